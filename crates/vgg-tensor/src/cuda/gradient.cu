// Backward pass of ReLU and dropout by the saved output, and bias gradients (sums per channel).

// `dz = y > 0 ? scale * dz : 0` in place, unless `y` is null. Writes the sums of each column over rows
// `[first, first + per_block)` to `partial [blocks, pitch]`. A block covers up to 256 vectors of 8 columns;
// if it has fewer vectors, the remaining threads process other rows, and their sums are added in order.
KERNEL void relu_backward_and_bias_grad(T* dz, const T* y, float scale, i64 rows, int pitch, i64 per_block, float* partial) {
    __shared__ float sums[THREADS * 8];
    const int vectors = pitch / 8, group = blockIdx.y * THREADS;
    const int here = vectors - group < THREADS ? vectors - group : THREADS;
    const int lanes = THREADS / here, lane = threadIdx.x / here, vector = group + threadIdx.x % here;
    const i64 first = (i64)blockIdx.x * per_block, end = first + per_block < rows ? first + per_block : rows;
    V8 sum;
    for (int j = 0; j < 8; ++j) sum.v[j] = 0.0f;
    if (lane < lanes) {
        for (i64 row = first + lane; row < end; row += lanes) {
            const i64 at = row * pitch + vector * 8;
            V8 x = load8(dz + at);
            if (y) {
                const V8 saved = load8(y + at);
                for (int j = 0; j < 8; ++j) x.v[j] = saved.v[j] > 0.0f ? scale * x.v[j] : 0.0f;
                store8(dz + at, x);
            }
            for (int j = 0; j < 8; ++j) sum.v[j] += x.v[j];
        }
    }
    for (int j = 0; j < 8; ++j) sums[threadIdx.x * 8 + j] = sum.v[j];
    __syncthreads();
    if ((int)threadIdx.x < here) {
        for (int other = 1; other < lanes; ++other)
            for (int j = 0; j < 8; ++j) sum.v[j] += sums[(other * here + threadIdx.x) * 8 + j];
        for (int j = 0; j < 8; ++j) partial[(i64)blockIdx.x * pitch + vector * 8 + j] = sum.v[j];
    }
}

// `sums [c]` of `partial [blocks, pitch]`. A block of threads handles 32 channels with eight threads for each
// channel. A thread adds every eighth row; the eight sums are added in order.
KERNEL void add_partial_sums(const float* partial, float* sums, int blocks, int c, int pitch) {
    __shared__ float lanes[THREADS];
    const int channel = blockIdx.x * 32 + threadIdx.x % 32, lane = threadIdx.x / 32;
    float sum = 0.0f;
    if (channel < c)
        for (int block = lane; block < blocks; block += THREADS / 32) sum += partial[(i64)block * pitch + channel];
    lanes[threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0 && channel < c) {
        for (int other = 1; other < THREADS / 32; ++other) sum += lanes[other * 32 + threadIdx.x];
        sums[channel] = sum;
    }
}
