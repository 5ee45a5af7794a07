// Runs CUDA kernels on the host: blocks in turn, the threads of a block in turn, as fibers where the kernel has barriers.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulator {

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    dim3 thread;
    int number = 0;
    bool done = false;
};

// A barrier of `members` fibers.
struct Barrier {
    int members = 0, waiting = 0;
    unsigned generation = 0;
};

struct Block {
    dim3 grid, size, index, thread;
    std::vector<Fiber> fibers;
    Fiber* current = nullptr;
    ucontext_t scheduler;
    Barrier all;
    std::vector<Barrier> warps;
    std::vector<uint64_t> lanes;
    const std::function<void()>* body = nullptr;
};

inline Block block;

[[noreturn]] inline void fail(const char* why) {
    std::fprintf(stderr, "emulated GPU: %s\n", why);
    std::abort();
}

// Leaves the fiber until the scheduler comes back to it.
inline void pause() {
    if (!block.current) fail("a barrier in a kernel without shared memory");
    Fiber* fiber = block.current;
    swapcontext(&fiber->context, &block.scheduler);
    block.thread = fiber->thread;
}

inline void wait(Barrier& barrier) {
    const unsigned generation = barrier.generation;
    if (++barrier.waiting == barrier.members) {
        barrier.waiting = 0;
        ++barrier.generation;
        return;
    }
    while (barrier.generation == generation) pause();
}

inline void start_fiber() {
    (*block.body)();
    block.current->done = true;
    swapcontext(&block.current->context, &block.scheduler);
}

inline void run_with_barriers(int count) {
    block.fibers.resize(count);
    block.lanes.assign(count, 0);
    block.all = Barrier{count, 0, 0};
    block.warps.assign((count + 31) / 32, Barrier{});
    for (int i = 0; i < count; ++i) {
        Fiber& fiber = block.fibers[i];
        ++block.warps[i / 32].members;
        fiber.thread = dim3{(unsigned)i, 0, 0};
        fiber.number = i;
        fiber.done = false;
        fiber.stack.resize(256 << 10);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &block.scheduler;
        makecontext(&fiber.context, start_fiber, 0);
    }
    for (int left = count; left > 0;) {
        for (Fiber& fiber : block.fibers) {
            if (fiber.done) continue;
            block.current = &fiber;
            block.thread = fiber.thread;
            swapcontext(&block.scheduler, &fiber.context);
            if (fiber.done) --left;
        }
        if (left > 0 && left < count && block.all.waiting == left) fail("threads wait at a barrier that others have left");
    }
    block.current = nullptr;
}

// A launch whose arguments have been copied, to run now or when its graph is launched.
inline void run(dim3 grid, dim3 size, bool barriers, const std::function<void()>& body) {
    if (size.y != 1 || size.z != 1) fail("blocks have one dimension");
    block.grid = grid;
    block.size = size;
    block.body = &body;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                block.index = dim3{x, y, z};
                if (barriers) {
                    run_with_barriers(size.x);
                    continue;
                }
                for (unsigned i = 0; i < size.x; ++i) {
                    block.thread = dim3{i, 0, 0};
                    body();
                }
            }
}

template <class Value> Value shuffle_xor(Value value, int distance) {
    static_assert(sizeof(Value) <= 8);
    const int me = block.current->number, warp = me / 32, other = warp * 32 + (me % 32 ^ distance);
    std::memcpy(&block.lanes[me], &value, sizeof value);
    wait(block.warps[warp]);
    if (other < (int)block.lanes.size()) std::memcpy(&value, &block.lanes[other], sizeof value);
    wait(block.warps[warp]);
    return value;
}

// What the tensor cores do for a warp: see `multiply_add` in common.cuh.
inline void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    struct Operands {
        unsigned a[4], b[2];
    };
    static Operands all[1024];
    const int me = block.current->number, warp = me / 32, row = me % 32 / 4, column = me % 4 * 2;
    all[me] = Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}};
    wait(block.warps[warp]);
    const Operands* of = all + warp * 32;
    const auto value = [](unsigned pair, int k) {
        const unsigned bits = k % 2 ? pair & 0xffff0000u : pair << 16;
        float x;
        std::memcpy(&x, &bits, 4);
        return x;
    };
    for (int i = 0; i < 4; ++i) {
        const int m = row + i / 2 * 8, n = column + i % 2;
        for (int k = 0; k < 16; ++k) {
            const unsigned left = of[m % 8 * 4 + k % 8 / 2].a[k / 8 * 2 + m / 8], right = of[n * 4 + k % 8 / 2].b[k / 8];
            d[i] += value(left, k) * value(right, k);
        }
    }
    wait(block.warps[warp]);
}

// Copies the arguments of a kernel, as `cuLaunchKernel` does, and returns the call of one thread.
using Bind = std::function<void()> (*)(void** arguments);

template <auto Kernel, class... A, size_t... I>
std::function<void()> bind_as(void (*)(A...), void** arguments, std::index_sequence<I...>) {
    auto copies = std::make_tuple(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
    return [copies] { std::apply(Kernel, copies); };
}

template <auto Kernel> std::function<void()> bind(void** arguments) {
    return [&]<class... A>(void (*kernel)(A...)) {
        return bind_as<Kernel>(kernel, arguments, std::index_sequence_for<A...>{});
    }(Kernel);
}

struct KernelEntry {
    Bind bind;
    bool barriers;
};

// By precision and name, such as `bf16/sgd_step`.
std::map<std::string, KernelEntry>& kernels();

}  // namespace emulator

#ifdef EMULATE_KERNELS
#define __device__
#define __shared__ static  // one block at a time
#define __global__
#define threadIdx emulator::block.thread
#define blockIdx emulator::block.index
#define blockDim emulator::block.size
#define gridDim emulator::block.grid
#define __syncthreads() emulator::wait(emulator::block.all)
#define __shfl_xor_sync(mask, value, distance) emulator::shuffle_xor(value, distance)
#define KERNEL static

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float __uint_as_float(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }
#endif
