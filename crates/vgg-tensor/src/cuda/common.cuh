// Definitions that all kernels use. NVRTC compiles this file and all kernels as one source.
//
// An activation is a row-major array of `T`, float or bf16 by the precision of the device, whose last axis is
// padded with zeros to a pitch that is a multiple of 8. Kernels work on vectors of 8 values and sum in float.
// The order of summation does not depend on timing: no kernel uses atomics, and all threads that write
// `not_finite` of a step write 1.

// A bf16 is the upper half of a float.
struct bf16 {
    unsigned short bits;
};

#ifdef VGG_BF16
typedef bf16 T;
#else
typedef float T;
#endif

typedef long long i64;
typedef unsigned long long u64;

// Threads per block, in every kernel.
#define THREADS 256

// Eight consecutive values.
struct V8 {
    float v[8];
};

// The state of a step in device memory: see `StepState`.
struct Step {
    float lr;
    unsigned not_finite;
    u64 step;
};

__device__ inline bool is_finite(float x) { return x * 0.0f == 0.0f; }

__device__ inline V8 load8(const float* p) {
    V8 x;
    const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
    x.v[0] = a.x, x.v[1] = a.y, x.v[2] = a.z, x.v[3] = a.w;
    x.v[4] = b.x, x.v[5] = b.y, x.v[6] = b.z, x.v[7] = b.w;
    return x;
}

__device__ inline void store8(float* p, const V8& x) {
    reinterpret_cast<float4*>(p)[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
    reinterpret_cast<float4*>(p)[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
}

__device__ inline float upper(unsigned bits) { return __uint_as_float(bits & 0xffff0000u); }
__device__ inline float lower(unsigned bits) { return __uint_as_float(bits << 16); }

// Two floats rounded to the nearest bf16, ties to even.
__device__ inline unsigned pack(float low, float high) {
#ifdef __CUDA_ARCH__
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    const float values[2] = {low, high};
    unsigned halves[2];
    for (int i = 0; i < 2; ++i) {
        const unsigned bits = __float_as_uint(values[i]);
        const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
        halves[i] = nan ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    }
    return halves[0] | halves[1] << 16;
#endif
}

__device__ inline V8 load8(const bf16* p) {
    const uint4 bits = *reinterpret_cast<const uint4*>(p);
    V8 x;
    x.v[0] = lower(bits.x), x.v[1] = upper(bits.x), x.v[2] = lower(bits.y), x.v[3] = upper(bits.y);
    x.v[4] = lower(bits.z), x.v[5] = upper(bits.z), x.v[6] = lower(bits.w), x.v[7] = upper(bits.w);
    return x;
}

__device__ inline void store8(bf16* p, const V8& x) {
    *reinterpret_cast<uint4*>(p) =
        make_uint4(pack(x.v[0], x.v[1]), pack(x.v[2], x.v[3]), pack(x.v[4], x.v[5]), pack(x.v[6], x.v[7]));
}

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(bf16 x) { return lower(x.bits); }
__device__ inline void from_float(float x, float& y) { y = x; }
__device__ inline void from_float(float x, bf16& y) { y.bits = (unsigned short)pack(x, 0.0f); }

#ifdef VGG_BF16
// `d [16, 8] += a [16, 16] * b [16, 8]`, computed by one warp. Thread `4 r + q` holds
// `d` at `(r, 2 q)`, `(r, 2 q + 1)`, `(r + 8, 2 q)`, `(r + 8, 2 q + 1)`,
// pairs of bf16 of `a` at `(r, 2 q)`, `(r + 8, 2 q)`, `(r, 2 q + 8)`, `(r + 8, 2 q + 8)`,
// and pairs of `b` at `(2 q, r)` and `(2 q + 8, r)`.
__device__ inline void multiply_add(float (&d)[4], const unsigned (&a)[4], uint2 b) {
#ifdef __CUDA_ARCH__
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
#else
    emulator::multiply_add(d, a, b.x, b.y);
#endif
}
#endif

// The sum or the maximum of a value over the block, in a fixed order; every thread gets the result.
__device__ inline float block_sum(float value, float* shared) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
    for (int warp = 0; warp < THREADS / 32; ++warp) sum += shared[warp];
    return sum;
}

__device__ inline float block_max(float value, float* shared) {
    for (int distance = 16; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, value, distance);
        value = value > other ? value : other;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    float largest = shared[0];
    for (int warp = 1; warp < THREADS / 32; ++warp) largest = largest > shared[warp] ? largest : shared[warp];
    return largest;
}

// Index of this thread in a one-dimensional grid.
__device__ inline i64 thread() { return (i64)blockIdx.x * THREADS + threadIdx.x; }
