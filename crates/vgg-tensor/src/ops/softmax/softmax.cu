// Softmax of rows of float, a block per row.

KERNEL void softmax_forward(const float* x, float* y, int classes) {
    __shared__ float shared[THREADS / 32];
    const float* row = x + (i64)blockIdx.x * classes;
    float* out = y + (i64)blockIdx.x * classes;
    float largest = row[0];
    for (int i = threadIdx.x; i < classes; i += THREADS) largest = row[i] > largest ? row[i] : largest;
    largest = block_max(largest, shared);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < classes; i += THREADS) sum += expf(row[i] - largest);
    sum = block_sum(sum, shared);
    for (int i = threadIdx.x; i < classes; i += THREADS) out[i] = expf(row[i] - largest) / sum;
}

// `dz = y * (dy - sum of y dy)`, to padded T.
KERNEL void softmax_backward(const float* y, const float* dy, T* dz, int classes, int pitch) {
    __shared__ float shared[THREADS / 32];
    const i64 at = (i64)blockIdx.x * classes;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < classes; i += THREADS) sum += y[at + i] * dy[at + i];
    sum = block_sum(sum, shared);
    for (int i = threadIdx.x; i < pitch; i += THREADS) {
        const float g = i < classes ? y[at + i] * (dy[at + i] - sum) : 0.0f;
        from_float(g, dz[(i64)blockIdx.x * pitch + i]);
    }
}
