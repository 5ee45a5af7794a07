// The mean over the cells of an f32 score map `[n, cells, classes]`, one thread per score.
KERNEL void global_avg_pool2d_forward(const float* map, float* y, i64 n, i64 cells, int classes) {
    const i64 i = thread();
    if (i >= n * classes) return;
    const float* cell = map + i / classes * cells * classes + i % classes;
    double sum = 0.0;
    for (i64 at = 0; at < cells; ++at) sum += cell[at * classes];
    y[i] = (float)(sum / (double)cells);
}
