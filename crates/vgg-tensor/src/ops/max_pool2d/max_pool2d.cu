// 2x2 windows at stride 2. A cut-off window repeats its first row or column. The first of equal values is the
// maximum. One thread handles 8 channels of a window; `index`, if given, receives one byte per value.

KERNEL void max_pool2d_forward(const T* x, T* y, unsigned char* index, int n, int h, int w, int pitch, int oh, int ow) {
    const i64 i = thread();
    const int vectors = pitch / 8;
    if (i >= (i64)n * oh * ow * vectors) return;
    const int channel = i % vectors * 8;
    const i64 window = i / vectors;
    const int column = window % ow, row = window / ow % oh;
    const i64 image = window / ow / oh;
    V8 best;
    unsigned char place[8];
    for (int at = 0; at < 4; ++at) {
        int r = 2 * row + at / 2, q = 2 * column + at % 2;
        if (r >= h) r -= 1;
        if (q >= w) q -= 1;
        const V8 v = load8(x + ((image * h + r) * w + q) * pitch + channel);
        for (int j = 0; j < 8; ++j) {
            if (at == 0 || v.v[j] > best.v[j]) {
                best.v[j] = v.v[j];
                place[j] = at;
            }
        }
    }
    store8(y + window * pitch + channel, best);
    if (index) {
        u64 bytes = 0;
        for (int j = 0; j < 8; ++j) bytes |= (u64)place[j] << 8 * j;
        *reinterpret_cast<u64*>(index + window * pitch + channel) = bytes;
    }
}

// Copies each gradient to the position of the maximum. One thread writes a whole window, so that every pixel
// of the map is written once. A row or column that `Floor` rounding drops has threads of its own, which write
// zeros.
KERNEL void max_pool2d_backward(const T* dy, const unsigned char* index, T* dx, int n, int h, int w, int pitch, int oh,
                                int ow) {
    const i64 i = thread();
    const int vectors = pitch / 8, rows = (h + 1) / 2, columns = (w + 1) / 2;
    if (i >= (i64)n * rows * columns * vectors) return;
    const int channel = i % vectors * 8;
    const i64 window = i / vectors;
    const int column = window % columns, row = window / columns % rows;
    const i64 image = window / columns / rows;
    const bool pooled = row < oh && column < ow;
    V8 g;
    u64 bytes = 0;
    if (pooled) {
        const i64 at = ((image * oh + row) * ow + column) * pitch + channel;
        g = load8(dy + at);
        bytes = *reinterpret_cast<const u64*>(index + at);
    }
    for (int at = 0; at < 4; ++at) {
        const int r = 2 * row + at / 2, q = 2 * column + at % 2;
        if (r >= h || q >= w) continue;
        V8 out;
        for (int j = 0; j < 8; ++j) out.v[j] = pooled && (int)(bytes >> 8 * j & 255) == at ? g.v[j] : 0.0f;
        store8(dx + ((image * h + r) * w + q) * pitch + channel, out);
    }
}
