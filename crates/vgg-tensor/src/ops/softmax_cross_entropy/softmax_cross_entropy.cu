// Loss `ln sum - x[target]` and gradient `weight * (softmax - one-hot)` of a row of logits, one block per
// row. A target that is not a class makes the loss NaN.
KERNEL void softmax_cross_entropy(const float* x, const unsigned* targets, float weight, float* losses, T* dz, int classes,
                                  int pitch, Step* step) {
    __shared__ float shared[THREADS / 32];
    const float* row = x + (i64)blockIdx.x * classes;
    T* out = dz + (i64)blockIdx.x * pitch;
    const int target = targets[blockIdx.x];
    float largest = row[0];
    for (int i = threadIdx.x; i < classes; i += THREADS) largest = row[i] > largest ? row[i] : largest;
    largest = block_max(largest, shared);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < classes; i += THREADS) sum += expf(row[i] - largest);
    sum = block_sum(sum, shared);
    for (int i = threadIdx.x; i < pitch; i += THREADS) {
        const float p = i < classes ? expf(row[i] - largest) / sum - (i == target ? 1.0f : 0.0f) : 0.0f;
        from_float(weight * p, out[i]);
    }
    if (threadIdx.x == 0) {
        const float at_target = target >= 0 && target < classes ? row[target] : nanf("");
        const float loss = logf(sum) + (largest - at_target);
        losses[blockIdx.x] = loss;
        if (!is_finite(loss)) step->not_finite = 1;
    }
}
