// Local response normalisation, one thread per value: windows span only a few channels.

__device__ inline float lrn_power(float base, float beta) {
    if (beta == 0.75f) {
        const float root = sqrtf(base);
        return 1.0f / (root * sqrtf(root));
    }
    return powf(base, -beta);
}

// `base = k + a * sum of squares over the window; y = x * base^-beta`.
KERNEL void lrn_forward(const T* x, T* y, float* base, i64 rows, int c, int pitch, int half, float a, float beta, float k) {
    const i64 i = thread();
    if (i >= rows * pitch) return;
    const int channel = i % pitch;
    if (channel >= c) {
        from_float(0.0f, y[i]);
        base[i] = 1.0f;
        return;
    }
    float sum = 0.0f;
    for (int d = -half; d <= half; ++d) {
        if (channel + d < 0 || channel + d >= c) continue;
        const float v = to_float(x[i + d]);
        sum += v * v;
    }
    const float b = k + a * sum;
    base[i] = b;
    from_float(to_float(x[i]) * lrn_power(b, beta), y[i]);
}

// `dx = dy base^-beta - 2 a beta x * sum over the window of dy x base^(-beta-1)`, before the mask.
KERNEL void lrn_backward(const T* dy, const T* x, const float* base, T* dx, i64 rows, int c, int pitch, int half, float a,
                         float beta) {
    const i64 i = thread();
    if (i >= rows * pitch) return;
    const int channel = i % pitch;
    if (channel >= c) {
        from_float(0.0f, dx[i]);
        return;
    }
    float sum = 0.0f;
    for (int d = -half; d <= half; ++d) {
        if (channel + d < 0 || channel + d >= c) continue;
        const float b = base[i + d];
        sum += to_float(dy[i + d]) * to_float(x[i + d]) * lrn_power(b, beta) / b;
    }
    from_float(to_float(dy[i]) * lrn_power(base[i], beta) - 2.0f * a * beta * to_float(x[i]) * sum, dx[i]);
}
