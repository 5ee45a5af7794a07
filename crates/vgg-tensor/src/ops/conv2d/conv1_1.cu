// conv1_1 on tensor cores, for bf16 only: its three input channels make poor use of cuDNN's engines.

#ifdef VGG_BF16

// A block computes a tile of outputs, one row of two groups of 16 pixels per warp, from these inputs and with
// these filters.
#define TILE_ROWS 8
#define TILE_COLUMNS 32
#define INPUT_ROWS (TILE_ROWS + 2)
#define INPUT_COLUMNS (TILE_COLUMNS + 2)
#define FILTERS 64
// Matrix products of 16 terms, two taps of 8 channels each; the tenth tap is zero.
#define PRODUCTS 5

// The filter of column `column` in group `group` of 8 columns of the product. A thread holds two columns of
// each group; in this order they are two runs of 8 filters, and four threads write 64 contiguous bytes.
__device__ inline int filter_of(int group, int column) { return group / 4 * 32 + column / 2 * 8 + group % 4 * 2 + column % 2; }

__device__ inline V8 rectified(const float (*sum)[4], int first_group, int half, const float* bias) {
    V8 y;
    for (int group = 0; group < 4; ++group)
        for (int e = 0; e < 2; ++e) {
            const float z = sum[first_group + group][half * 2 + e] + bias[group * 2 + e];
            y.v[group * 2 + e] = z > 0.0f ? z : (z == z ? 0.0f : z);
        }
    return y;
}

// `y [n, h, w, 64] = relu(bias + x * weight)` for 3x3 filters with padding 1, `x [n, h, w, 8]` and
// `weight [64, 3, 3, 8]`. A block computes every `gridDim.x`th tile.
KERNEL void conv1_1(const T* x, const T* weight, const T* bias, T* y, int n, int h, int w) {
    __shared__ uint4 inputs[INPUT_ROWS * INPUT_COLUMNS + 1];
    __shared__ uint2 filters[PRODUCTS * (FILTERS / 8) * 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, pixel = lane / 4, quarter = lane % 4;
    const unsigned* words = reinterpret_cast<const unsigned*>(weight);
    for (int i = threadIdx.x; i < PRODUCTS * (FILTERS / 8) * 32; i += THREADS) {
        const int product = i / 256, filter = filter_of(i / 32 % 8, i % 32 / 4), tap = product * 2;
        const unsigned* from = words + (filter * 9 + tap) * 4 + i % 4;
        filters[i] = make_uint2(from[0], tap < 8 ? from[4] : 0);
    }
    // The zeros that the tenth tap reads.
    if (threadIdx.x == 0) inputs[INPUT_ROWS * INPUT_COLUMNS] = make_uint4(0, 0, 0, 0);
    float shift[2][8];
    for (int half = 0; half < 2; ++half)
        for (int j = 0; j < 8; ++j) shift[half][j] = to_float(bias[half * 32 + quarter * 8 + j]);

    const int across = (w + TILE_COLUMNS - 1) / TILE_COLUMNS, down = (h + TILE_ROWS - 1) / TILE_ROWS;
    for (int tile = blockIdx.x; tile < n * down * across; tile += gridDim.x) {
        const int image = tile / (down * across), row0 = tile / across % down * TILE_ROWS, column0 = tile % across * TILE_COLUMNS;
        __syncthreads();
        for (int i = threadIdx.x; i < INPUT_ROWS * INPUT_COLUMNS; i += THREADS) {
            const int row = row0 + i / INPUT_COLUMNS - 1, column = column0 + i % INPUT_COLUMNS - 1;
            const bool inside = row >= 0 && row < h && column >= 0 && column < w;
            const i64 at = ((i64)image * h + row) * w + column;
            inputs[i] = inside ? reinterpret_cast<const uint4*>(x)[at] : make_uint4(0, 0, 0, 0);
        }
        __syncthreads();

        float sum[2][FILTERS / 8][4] = {};
#pragma unroll
        for (int product = 0; product < PRODUCTS; ++product) {
            unsigned a[2][4];
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                const int tap = product * 2 + side;
#pragma unroll
                for (int part = 0; part < 4; ++part) {
                    const int column = part * 8 + pixel + tap % 3;
                    const int at = tap < 9 ? (warp + tap / 3) * INPUT_COLUMNS + column : INPUT_ROWS * INPUT_COLUMNS;
                    a[part / 2][side * 2 + part % 2] = reinterpret_cast<const unsigned*>(inputs + at)[quarter];
                }
            }
#pragma unroll
            for (int group = 0; group < FILTERS / 8; ++group) {
                const uint2 b = filters[(product * (FILTERS / 8) + group) * 32 + lane];
                multiply_add(sum[0][group], a[0], b);
                multiply_add(sum[1][group], a[1], b);
            }
        }

        const int row = row0 + warp;
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            const int column = column0 + part * 8 + pixel;
            if (row >= h || column >= w) continue;
            T* to = y + (((i64)image * h + row) * w + column) * FILTERS + quarter * 8;
            store8(to, rectified(sum[part / 2], 0, part % 2, shift[0]));
            store8(to + 32, rectified(sum[part / 2], 4, part % 2, shift[1]));
        }
    }
}

#endif
