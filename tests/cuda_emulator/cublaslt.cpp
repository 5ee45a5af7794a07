// cuBLASLt: column-major matrix products of float or bf16, summed in float, with bias and ReLU.
#include "kernel.h"

namespace emulator {
int on_stream(void* stream, std::function<void()> call);
}

namespace {

constexpr int SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15, R_32F = 0, R_16BF = 14;
constexpr int RELU = 2, BIAS = 4, RELU_BIAS = 6;

struct Product { int compute, transpose_a = 0, transpose_b = 0, epilogue = 1, bias_type = -1; const void* bias = nullptr; };
struct Layout { int type; uint64_t rows, columns; int64_t pitch; };
struct Preference { uint64_t workspace = 0; };
// The front of cublasLtMatmulHeuristicResult_t: an opaque algorithm of 64 bytes, then these.
struct Found { uint64_t algorithm[8]; size_t workspace; int status; float waves; int reserved[4]; };

float load(const void* base, int type, int64_t at) {
    if (type == R_32F) return static_cast<const float*>(base)[at];
    const uint32_t bits = (uint32_t)static_cast<const uint16_t*>(base)[at] << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
void store(void* base, int type, int64_t at, float x) {
    if (type == R_32F) { static_cast<float*>(base)[at] = x; return; }
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    static_cast<uint16_t*>(base)[at] = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

}  // namespace

extern "C" {

size_t cublasLtGetVersion() { return 130000; }
int cublasLtCreate(void** handle) { *handle = new int; return SUCCESS; }
int cublasLtDestroy(void* handle) { delete static_cast<int*>(handle); return SUCCESS; }
int cublasLtMatmulDescCreate(Product** product, int compute, int) { *product = new Product{compute}; return SUCCESS; }
int cublasLtMatmulDescDestroy(Product* product) { delete product; return SUCCESS; }
int cublasLtMatmulDescSetAttribute(Product* product, int name, const void* value, size_t) {
    switch (name) {
        case 3: product->transpose_a = *static_cast<const int*>(value); return SUCCESS;
        case 4: product->transpose_b = *static_cast<const int*>(value); return SUCCESS;
        case 7: product->epilogue = *static_cast<const int*>(value); return SUCCESS;
        case 8: product->bias = *static_cast<const void* const*>(value); return SUCCESS;
        case 26: product->bias_type = *static_cast<const int*>(value); return SUCCESS;
        default: return NOT_SUPPORTED;
    }
}
int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t pitch) {
    if (pitch < (int64_t)rows) return INVALID_VALUE;
    *layout = new Layout{type, rows, columns, pitch};
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(Layout* layout) { delete layout; return SUCCESS; }
int cublasLtMatmulPreferenceCreate(Preference** preference) { *preference = new Preference; return SUCCESS; }
int cublasLtMatmulPreferenceDestroy(Preference* preference) { delete preference; return SUCCESS; }
int cublasLtMatmulPreferenceSetAttribute(Preference* preference, int name, const void* value, size_t) {
    if (name == 1) preference->workspace = *static_cast<const uint64_t*>(value);
    return SUCCESS;
}
int cublasLtMatmulAlgoGetHeuristic(void*, Product*, Layout*, Layout*, Layout*, Layout*, Preference*, int asked, Found* found, int* count) {
    *count = asked < 2 ? asked : 2;
    for (int i = 0; i < *count; ++i) found[i] = Found{{(uint64_t)i}, 256, SUCCESS, 1.0f, {}};
    return SUCCESS;
}
int cublasLtMatmul(void*, Product* product, const float* alpha, const void* a, Layout* la, const void* b, Layout* lb, const float* beta,
                   const void* c, Layout* lc, void* d, Layout* ld, const void*, void* workspace, size_t, void* stream) {
    const Product p = *product;
    const Layout A = *la, B = *lb, C = *lc, D = *ld;
    const float scale = *alpha, keep = *beta;
    const uint64_t inner = p.transpose_a ? A.rows : A.columns;
    if ((p.transpose_a ? A.columns : A.rows) != D.rows || (p.transpose_b ? B.rows : B.columns) != D.columns) return INVALID_VALUE;
    if ((p.transpose_b ? B.columns : B.rows) != inner || A.type != B.type || !workspace) return INVALID_VALUE;
    if (p.epilogue != 1 && p.epilogue != BIAS && p.epilogue != RELU_BIAS) return NOT_SUPPORTED;
    const int bias_type = p.bias_type < 0 ? D.type : p.bias_type;
    if (p.epilogue != 1 && D.type == R_16BF && bias_type != R_16BF) return NOT_SUPPORTED;
    return emulator::on_stream(stream, [=] {
        for (uint64_t column = 0; column < D.columns; ++column)
            for (uint64_t row = 0; row < D.rows; ++row) {
                float sum = 0.0f;
                for (uint64_t i = 0; i < inner; ++i)
                    sum += load(a, A.type, p.transpose_a ? i + row * A.pitch : row + i * A.pitch) *
                           load(b, B.type, p.transpose_b ? column + i * B.pitch : i + column * B.pitch);
                sum *= scale;
                if (keep != 0.0f) sum += keep * load(c, C.type, row + column * C.pitch);
                if (p.epilogue & BIAS) sum += load(p.bias, bias_type, row);
                if (p.epilogue & RELU && sum < 0.0f) sum = 0.0f;
                store(d, D.type, row + column * D.pitch, sum);
            }
    });
}

}  // extern "C"
