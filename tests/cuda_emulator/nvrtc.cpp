// NVRTC, which here compiles nothing: an image is the name of the precision that the options ask for.
#include <cstring>
#include <string>

struct Program {
    std::string source, image;
};

extern "C" {
int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return 0; }
const char* nvrtcGetErrorString(int) { return "an error"; }
int nvrtcCreateProgram(Program** program, const char* source, const char*, int, const char* const*, const char* const*) {
    *program = new Program{source, ""};
    return 0;
}
int nvrtcDestroyProgram(Program** program) { delete *program; *program = nullptr; return 0; }
int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
    program->image = "f32";
    for (int i = 0; i < count; ++i)
        if (std::strcmp(options[i], "-DVGG_BF16") == 0) program->image = "bf16";
    return 0;
}
int nvrtcGetCUBINSize(Program* program, size_t* bytes) { *bytes = program->image.size() + 1; return 0; }
int nvrtcGetCUBIN(Program* program, char* image) { std::strcpy(image, program->image.c_str()); return 0; }
int nvrtcGetProgramLogSize(Program*, size_t* bytes) { *bytes = 1; return 0; }
int nvrtcGetProgramLog(Program*, char* log) { *log = 0; return 0; }
}
