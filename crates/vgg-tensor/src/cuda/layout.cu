// Conversions between plain arrays of float and padded arrays of T, and the state of a step.

// `dst [padded_rows, pitch]` from `src [rows, c]`; the padding is zero. A thread writes 8 values.
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

// `dst [rows, c] = src [rows, pitch]`, or `dst += src` if `add`. A non-finite result sets `step->not_finite`,
// unless `step` is null.
KERNEL void to_plain(const T* src, float* dst, i64 rows, int c, int pitch, int add, Step* step) {
    const i64 i = thread();
    if (i >= rows * c) return;
    float x = to_float(src[i / c * pitch + i % c]);
    if (add) x += dst[i];
    dst[i] = x;
    if (step && !is_finite(x)) step->not_finite = 1;
}

// `dst = src`, or `dst += src` if `add`. A non-finite result sets `step->not_finite`, unless `step` is null.
KERNEL void copy_or_add(const float* src, float* dst, i64 n, int add, Step* step) {
    const i64 i = thread();
    if (i >= n) return;
    const float x = add ? dst[i] + src[i] : src[i];
    dst[i] = x;
    if (step && !is_finite(x)) step->not_finite = 1;
}

// Starts a step: sets its learning rate and number, and resets `not_finite`.
KERNEL void begin_step(Step* step, float lr, u64 number) {
    if (thread() > 0) return;
    step->lr = lr;
    step->not_finite = 0;
    step->step = number;
}

// Sets `step->not_finite` if a value of `x` is not finite.
KERNEL void check_finite(const float* x, i64 n, Step* step) {
    const i64 i = thread();
    if (i < n && !is_finite(x[i])) step->not_finite = 1;
}

// `y [rows, c] = y + bias [c]` in place, then ReLU if `relu`.
KERNEL void add_bias(float* y, const float* bias, i64 rows, int c, int relu) {
    const i64 i = thread();
    if (i >= rows * c) return;
    const float x = y[i] + bias[i % c];
    y[i] = relu && x < 0.0f ? 0.0f : x;
}

// `dst [rows, row_pitch]` from `src [rows, per_row / c, pitch]`: flattens images with padded channels to rows
// of `per_row` values, padded with zeros to `row_pitch`.
KERNEL void flatten(const T* src, T* dst, i64 rows, i64 per_row, int c, int pitch, i64 row_pitch) {
    const i64 i = thread();
    if (i >= rows * row_pitch) return;
    const i64 row = i / row_pitch, at = i % row_pitch;
    T x;
    from_float(0.0f, x);
    if (at < per_row) x = src[(row * (per_row / c) + at / c) * pitch + at % c];
    dst[i] = x;
}

// The inverse of `flatten`.
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
