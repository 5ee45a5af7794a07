// Dropout by Philox4x32-10, with the same random numbers as on the CPU: see `philox.rs`.

__device__ inline void philox(unsigned counter[4], unsigned key0, unsigned key1) {
    for (int round = 0; round < 10; ++round) {
        const u64 a = (u64)0xD2511F53u * counter[0], b = (u64)0xCD9E8D57u * counter[2];
        const unsigned c1 = counter[1], c3 = counter[3];
        counter[0] = (unsigned)(b >> 32) ^ c1 ^ key0;
        counter[1] = (unsigned)b;
        counter[2] = (unsigned)(a >> 32) ^ c3 ^ key1;
        counter[3] = (unsigned)a;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

// Drops a value if its 32 random bits are below `threshold`, else multiplies it by `scale`. A sample is
// `pixels` rows of `c` values, padded to `pitch`; one thread handles 8 values of a row. If `step` is given,
// its step number replaces `step_number`, so that a captured step draws new values at each launch.
KERNEL void dropout(const T* x, T* y, i64 n, i64 pixels, int c, int pitch, u64 threshold, float scale, u64 seed,
                    u64 step_number, const Step* step, unsigned layer, u64 first_sample) {
    const i64 i = thread();
    const int vectors = pitch / 8;
    if (i >= n * pixels * vectors) return;
    const int channel = i % vectors * 8;
    const i64 row = i / vectors, sample = row / pixels;
    const u64 per_sample = (u64)pixels * c, blocks = (per_sample + 3) / 4;
    const u64 number = step ? step->step : step_number;
    V8 v = load8(x + row * pitch + channel);
    u64 drawn = ~(u64)0;
    unsigned bits[4] = {0, 0, 0, 0};
    for (int j = 0; j < 8; ++j) {
        if (channel + j >= c) {
            v.v[j] = 0.0f;
            continue;
        }
        const u64 at = (u64)(row % pixels) * c + channel + j, block = (first_sample + sample) * blocks + at / 4;
        if (block != drawn) {
            bits[0] = (unsigned)block;
            bits[1] = ((unsigned)(block >> 32) & 0xFFu) | layer << 8;
            bits[2] = (unsigned)number;
            bits[3] = (unsigned)(number >> 32);
            philox(bits, (unsigned)seed, (unsigned)(seed >> 32));
            drawn = block;
        }
        const int word = at % 4;
        const unsigned random = word == 0 ? bits[0] : word == 1 ? bits[1] : word == 2 ? bits[2] : bits[3];
        v.v[j] = random < threshold ? 0.0f : v.v[j] * scale;
    }
    store8(y + row * pitch + channel, v);
}
