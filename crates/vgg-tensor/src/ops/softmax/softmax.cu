// Softmax of f32 rows, one block per row.

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
