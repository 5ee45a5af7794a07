// Writes `0.5 * sum of (x - target)^2` of a row, and `weight * (x - target)` to padded T; one block per row.
KERNEL void euclidean_loss(const float* x, const float* target, float weight, float* losses, T* dz, i64 per_sample, int c,
                          int pitch, Step* step) {
    __shared__ float shared[THREADS / 32];
    const i64 at = (i64)blockIdx.x * per_sample, rows = per_sample / c;
    float sum = 0.0f;
    for (i64 i = threadIdx.x; i < rows * pitch; i += THREADS) {
        const int channel = i % pitch;
        float difference = 0.0f;
        if (channel < c) {
            const i64 from = at + i / pitch * c + channel;
            difference = x[from] - target[from];
        }
        sum += difference * difference;
        from_float(weight * difference, dz[(i64)blockIdx.x * rows * pitch + i]);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        losses[blockIdx.x] = 0.5f * sum;
        if (!is_finite(sum)) step->not_finite = 1;
    }
}
