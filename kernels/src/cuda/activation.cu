// Functions of single numbers and of pairs; one thread for each number.

extern "C" __global__ void add(float *x, const float *y, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        x[i] += y[i];
}

// exp(c * t) with what rounding c * t leaves over: `low` is what c itself lacks.
__device__ float exp_of_product(float c, float low, float t)
{
    float product = c * t;
    float rest = fmaf(c, t, -product) + low * t;
    float power = expf(product);
    // The rest of an infinite or vanishing power means nothing.
    return power > 0.0f && power < 1e38f ? fmaf(power, rest, power) : power;
}

__device__ float quick_gelu(float t)
{
    // The f32 next to -1.702 lies this far below it.
    return t / (1.0f + exp_of_product(-1.702f, 2.193451e-8f, t));
}

// t / 2 * erfc(-t / sqrt(2)), which does not cancel for negative t.
__device__ float gelu(float t)
{
    const float root = 0.70710678f, low = 1.2101617e-8f;
    float at = -t * root;
    float rest = fmaf(-t, root, -at) - t * low;
    float tail = erfcf(at);
    // For large arguments erfc falls like exp(-at * at).
    if (at > 0.5f)
        tail = fmaf(tail, -2.0f * (at + 0.5f / at) * rest, tail);
    return 0.5f * t * tail;
}

__device__ float hard_sigmoid(float t)
{
    // The order of the arguments keeps a NaN.
    float shifted = t + 3.0f;
    return (shifted < 0.0f ? 0.0f : shifted > 6.0f ? 6.0f : shifted) / 6.0f;
}

// 0 quick-GELU, 1 GELU, 2 ReLU, 3 hard-swish, 4 hard-sigmoid.
extern "C" __global__ void activate(float *x, int count, int function)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    float t = x[i];
    switch (function) {
    case 0: x[i] = quick_gelu(t); break;
    case 1: x[i] = gelu(t); break;
    case 2: x[i] = fmaxf(t, 0.0f); break;
    case 3: x[i] = t * hard_sigmoid(t); break;
    default: x[i] = hard_sigmoid(t);
    }
}

extern "C" __global__ void silu_mul(float *gate, const float *up, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}
