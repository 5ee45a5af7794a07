// The CUDA driver, as far as it is called: one device, whose memory is the host's.
#include <sys/mman.h>

#include <chrono>
#include <mutex>

#include "kernel.h"

namespace {

constexpr int SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500;
constexpr size_t PAGE = 2 << 20;

std::recursive_mutex lock;
using Guard = std::lock_guard<std::recursive_mutex>;

size_t device_bytes() {
    const char* mib = std::getenv("VGG_EMULATED_MIB");
    return (mib ? std::strtoull(mib, nullptr, 10) : 8192) << 20;
}
size_t taken_bytes = 0;

struct Call {
    std::function<void()> run;
    // Whether it waits for other ranks, which may be threads of this process.
    bool waits = false;
};
struct Stream {
    bool capturing = false;
    std::vector<Call> captured;
    // The captured stream that this one waited for last: what comes after is captured with it.
    Stream* after = nullptr;
};
struct Graph { std::vector<Call> calls; };
struct Event {
    std::chrono::steady_clock::time_point at;
    Stream* captured_in = nullptr;
};
struct Module { std::string precision; };

// The stream whose capture takes what is given to this one, if any does.
Stream* capture_of(Stream* stream) {
    if (!stream || stream->capturing) return stream;
    return stream->after && stream->after->capturing ? stream->after : nullptr;
}

// Runs a call, or keeps it if the stream is captured.
int submit(Stream* stream, Call call) {
    if (Stream* capture = capture_of(stream)) {
        capture->captured.push_back(std::move(call));
    } else if (call.waits) {
        call.run();
    } else {
        Guard guard(lock);
        call.run();
    }
    return SUCCESS;
}
int submit(Stream* stream, std::function<void()> run) { return submit(stream, Call{std::move(run)}); }

}  // namespace

namespace emulator {
std::map<std::string, KernelEntry>& kernels() {
    static std::map<std::string, KernelEntry> all;
    return all;
}
// For the libraries above.
int on_stream(void* stream, std::function<void()> call) { return submit(static_cast<Stream*>(stream), std::move(call)); }
int wait_on_stream(void* stream, std::function<void()> call) {
    return submit(static_cast<Stream*>(stream), Call{std::move(call), true});
}
}  // namespace emulator

extern "C" {

int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int* version) { *version = 13000; return SUCCESS; }
// All of them are this one.
int cuDeviceGetCount(int* count) {
    const char* gpus = std::getenv("VGG_EMULATED_GPUS");
    *count = gpus ? std::atoi(gpus) : 1;
    return SUCCESS;
}
int cuDeviceGet(int* device, int number) {
    int count;
    cuDeviceGetCount(&count);
    *device = number;
    return number >= 0 && number < count ? SUCCESS : 101;
}
int cuDeviceGetName(char* name, int len, int) { std::snprintf(name, len, "emulated GPU"); return SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = device_bytes(); return SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 75: *value = 9; break;    // compute capability, major
        case 76: *value = 0; break;    // minor
        case 16: *value = 132; break;  // multiprocessors
        case 102: *value = 1; break;   // virtual memory management
        default: *value = 0;
    }
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int) { *context = &lock; return SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxSetCurrent(void*) { return SUCCESS; }
int cuCtxGetCurrent(void** context) { *context = &lock; return SUCCESS; }
int cuCtxSynchronize() { return SUCCESS; }
int cuGetErrorName(int error, const char** name) {
    *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == NOT_FOUND ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR";
    return SUCCESS;
}
int cuGetErrorString(int error, const char** text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == NOT_FOUND ? "named symbol not found" : "an error";
    return SUCCESS;
}

int cuStreamCreate(Stream** stream, unsigned) { *stream = new Stream; return SUCCESS; }
int cuStreamDestroy_v2(Stream* stream) { delete stream; return SUCCESS; }
int cuStreamSynchronize(Stream*) { return SUCCESS; }
int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    if (event->captured_in && event->captured_in->capturing && event->captured_in != stream) stream->after = event->captured_in;
    return SUCCESS;
}
int cuEventCreate(Event** event, unsigned) { *event = new Event; return SUCCESS; }
int cuEventDestroy_v2(Event* event) { delete event; return SUCCESS; }
int cuEventRecord(Event* event, Stream* stream) {
    event->captured_in = capture_of(stream);
    return submit(stream, [=] { event->at = std::chrono::steady_clock::now(); });
}
int cuEventSynchronize(Event*) { return SUCCESS; }
int cuEventQuery(Event*) { return SUCCESS; }
int cuEventElapsedTime(float* ms, Event* start, Event* end) {
    *ms = std::chrono::duration<float, std::milli>(end->at - start->at).count();
    return SUCCESS;
}
int cuEventElapsedTime_v2(float* ms, Event* start, Event* end) { return cuEventElapsedTime(ms, start, end); }

int cuMemGetInfo_v2(size_t* available, size_t* total) {
    *total = device_bytes();
    *available = *total - taken_bytes;
    return SUCCESS;
}
int cuMemAlloc_v2(uint64_t* pointer, size_t bytes) {
    Guard guard(lock);
    if (taken_bytes + bytes > device_bytes()) return OUT_OF_MEMORY;
    // Device memory starts as anything; NaN shows who relies on it.
    // Not rounded up, so that a sanitizer sees every step beyond.
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes)) return OUT_OF_MEMORY;
    std::memset(memory, 0xff, bytes);
    *pointer = (uint64_t)memory;
    return SUCCESS;
}
int cuMemFree_v2(uint64_t pointer) { std::free((void*)pointer); return SUCCESS; }
int cuMemGetAllocationGranularity(size_t* bytes, const void*, int) { *bytes = PAGE; return SUCCESS; }
int cuMemAddressReserve(uint64_t* pointer, size_t bytes, size_t, uint64_t, unsigned long long) {
    void* memory = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return OUT_OF_MEMORY;
    *pointer = (uint64_t)memory;
    return SUCCESS;
}
int cuMemAddressFree(uint64_t pointer, size_t bytes) { return munmap((void*)pointer, bytes) ? INVALID_VALUE : SUCCESS; }
// A handle is the size of its memory.
int cuMemCreate(unsigned long long* handle, size_t bytes, const void*, unsigned long long) {
    Guard guard(lock);
    if (bytes % PAGE) return INVALID_VALUE;
    if (taken_bytes + bytes > device_bytes()) return OUT_OF_MEMORY;
    taken_bytes += bytes;
    *handle = bytes;
    return SUCCESS;
}
int cuMemRelease(unsigned long long handle) {
    Guard guard(lock);
    taken_bytes -= handle;
    return SUCCESS;
}
int cuMemMap(uint64_t pointer, size_t bytes, size_t, unsigned long long, unsigned long long) {
    return pointer % PAGE % 4096 || bytes % PAGE ? INVALID_VALUE : SUCCESS;
}
int cuMemUnmap(uint64_t pointer, size_t bytes) {
    madvise((void*)pointer, bytes, MADV_DONTNEED);
    return mprotect((void*)pointer, bytes, PROT_NONE) ? INVALID_VALUE : SUCCESS;
}
int cuMemSetAccess(uint64_t pointer, size_t bytes, const void*, size_t) {
    if (mprotect((void*)pointer, bytes, PROT_READ | PROT_WRITE)) return INVALID_VALUE;
    std::memset((void*)pointer, 0xff, bytes);
    return SUCCESS;
}

int cuMemHostAlloc(void** pointer, size_t bytes, unsigned) { *pointer = std::malloc(bytes); return SUCCESS; }
int cuMemFreeHost(void* pointer) { std::free(pointer); return SUCCESS; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    return submit(stream, [=] { std::memcpy((void*)to, from, bytes); });
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    return submit(stream, [=] { std::memcpy(to, (const void*)from, bytes); });
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
    return submit(stream, [=] { std::memcpy((void*)to, (const void*)from, bytes); });
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream* stream) {
    return submit(stream, [=] { std::memset((void*)to, value, bytes); });
}

int cuModuleLoadData(Module** module, const void* image) {
    *module = new Module{static_cast<const char*>(image)};
    return SUCCESS;
}
int cuModuleUnload(Module* module) { delete module; return SUCCESS; }
int cuModuleGetFunction(const emulator::KernelEntry** function, Module* module, const char* name) {
    const auto found = emulator::kernels().find(module->precision + "/" + name);
    if (found == emulator::kernels().end()) return NOT_FOUND;
    *function = &found->second;
    return SUCCESS;
}
int cuFuncGetAttribute(int* value, int, const void*) { *value = 0; return SUCCESS; }
int cuLaunchKernel(const emulator::KernelEntry* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned, Stream* stream, void** arguments, void**) {
    if (gx == 0 || gy == 0 || gy > 65535 || bx == 0 || bx > 1024) return INVALID_VALUE;
    const auto body = kernel->bind(arguments);
    const bool barriers = kernel->barriers;
    return submit(stream, [=] { emulator::run(dim3{gx, gy, gz}, dim3{bx, by, bz}, barriers, body); });
}

int cuStreamBeginCapture_v2(Stream* stream, int) {
    stream->capturing = true;
    stream->captured.clear();
    return SUCCESS;
}
int cuStreamEndCapture(Stream* stream, Graph** graph) {
    stream->capturing = false;
    *graph = new Graph{std::move(stream->captured)};
    return SUCCESS;
}
int cuStreamIsCapturing(Stream* stream, int* status) { *status = stream->capturing; return SUCCESS; }
int cuGraphInstantiateWithFlags(Graph** exec, Graph* graph, unsigned long long) {
    *exec = new Graph(*graph);
    return SUCCESS;
}
int cuGraphLaunch(Graph* exec, Stream* stream) {
    for (const Call& call : exec->calls) submit(stream, call);
    return SUCCESS;
}
int cuGraphUpload(Graph*, Stream*) { return SUCCESS; }
int cuGraphExecDestroy(Graph* exec) { delete exec; return SUCCESS; }
int cuGraphDestroy(Graph* graph) { delete graph; return SUCCESS; }

}  // extern "C"
