// Moves between plain arrays of float and padded arrays of T.

// `dst [padded_rows, pitch]` from `src [rows, c]`; what is beyond is zero. A thread writes 8 values.
KERNEL void to_padded(const float* src, T* dst, i64 rows, i64 padded_rows, int c, int pitch) {
    const i64 i = thread();
    const int vectors = pitch / 8;
    if (i >= padded_rows * vectors) return;
    const i64 row = i / vectors;
    const int first = i % vectors * 8;
    V8 x;
    for (int j = 0; j < 8; ++j) x.v[j] = row < rows && first + j < c ? src[row * c + first + j] : 0.0f;
    store8(dst + row * pitch + first, x);
}

// `dst [rows, c]` from `src [rows, pitch]`, or adds it; a value that is not finite clears the step's flag, if there is one.
KERNEL void to_plain(const T* src, float* dst, i64 rows, int c, int pitch, int add, Step* step) {
    const i64 i = thread();
    if (i >= rows * c) return;
    float x = to_float(src[i / c * pitch + i % c]);
    if (add) x += dst[i];
    dst[i] = x;
    if (step && !is_finite(x)) step->not_finite = 1;
}

// `dst (+)= src`.
KERNEL void copy_or_add(const float* src, float* dst, i64 n, int add, Step* step) {
    const i64 i = thread();
    if (i >= n) return;
    const float x = add ? dst[i] + src[i] : src[i];
    dst[i] = x;
    if (step && !is_finite(x)) step->not_finite = 1;
}

// Starts a step.
KERNEL void begin_step(Step* step, float lr, u64 number) {
    if (thread() > 0) return;
    step->lr = lr;
    step->not_finite = 0;
    step->step = number;
}

// Clears the step's flag if a value is not finite.
KERNEL void check_finite(const float* x, i64 n, Step* step) {
    const i64 i = thread();
    if (i < n && !is_finite(x[i])) step->not_finite = 1;
}

// `y [rows, c]` is `relu(y + bias)`, in place.
KERNEL void add_bias(float* y, const float* bias, i64 rows, int c, int relu) {
    const i64 i = thread();
    if (i >= rows * c) return;
    const float x = y[i] + bias[i % c];
    y[i] = relu && x < 0.0f ? 0.0f : x;
}

// `dst [rows, per_row / c * pitch]` to `[rows, per_row]` padded to `row_pitch`: images with padded channels become rows of
// a matrix.
KERNEL void flatten(const T* src, T* dst, i64 rows, i64 per_row, int c, int pitch, i64 row_pitch) {
    const i64 i = thread();
    if (i >= rows * row_pitch) return;
    const i64 row = i / row_pitch, at = i % row_pitch;
    T x;
    from_float(0.0f, x);
    if (at < per_row) x = src[(row * (per_row / c) + at / c) * pitch + at % c];
    dst[i] = x;
}

// The way back.
KERNEL void unflatten(const T* src, T* dst, i64 rows, i64 per_row, int c, int pitch, i64 row_pitch) {
    const i64 i = thread();
    const i64 pixels = per_row / c;
    if (i >= rows * pixels * pitch) return;
    const i64 pixel = i / pitch;
    const int channel = i % pitch;
    T x;
    from_float(0.0f, x);
    if (channel < c) x = src[pixel / pixels * row_pitch + pixel % pixels * c + channel];
    dst[i] = x;
}
