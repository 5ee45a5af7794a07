// Updates weights, velocity and, if given, the weights' copy in T, whose rows of `c` values are `pitch`
// apart. Does nothing if the step is not finite.
KERNEL void sgd_step(float* w, float* v, const float* g, T* copy, const Step* step, i64 n, float momentum,
                     float weight_decay, float lr_mult, int caffe, int c, int pitch) {
    const i64 i = thread();
    if (i >= n || step->not_finite) return;
    const float lr = step->lr * lr_mult;
    const float of_grad = caffe ? lr : 1.0f, of_velocity = caffe ? 1.0f : lr;
    const float velocity = momentum * v[i] + of_grad * (g[i] + weight_decay * w[i]);
    const float weight = w[i] - of_velocity * velocity;
    v[i] = velocity;
    w[i] = weight;
    if (copy) from_float(weight, copy[c == pitch ? i : i / c * pitch + i % c]);
}
