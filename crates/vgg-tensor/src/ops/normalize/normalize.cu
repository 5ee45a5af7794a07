// `y [pixels, 8] = (pixels + offset of the image) * scale`; the last five channels are zero. One thread per
// pixel.
KERNEL void normalize(const unsigned char* pixels, const float* offset, float scale0, float scale1, float scale2,
                        i64 count, i64 per_image, T* y) {
    const i64 i = thread();
    if (i >= count) return;
    const float* shift = offset + i / per_image * 3;
    V8 x;
    for (int j = 3; j < 8; ++j) x.v[j] = 0.0f;
    x.v[0] = (pixels[3 * i] + shift[0]) * scale0;
    x.v[1] = (pixels[3 * i + 1] + shift[1]) * scale1;
    x.v[2] = (pixels[3 * i + 2] + shift[2]) * scale2;
    store8(y + 8 * i, x);
}
