// Rotary position embedding from a table; one thread for each pair.

extern "C" __global__ void rope(
    float *x, const float *table, const u32 *positions, int rows, int heads, int head_dim, int neighbours)
{
    int half = head_dim / 2, pairs = heads * half;
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= rows * pairs)
        return;
    int row = index / pairs, head = index % pairs / half, i = index % half;
    const float *turn = table + (size_t)positions[row] * head_dim;
    float *numbers = x + ((size_t)row * heads + head) * head_dim;
    float *first = numbers + (neighbours ? 2 * i : i);
    float *second = numbers + (neighbours ? 2 * i + 1 : i + half);
    float a = *first, b = *second, cosine = turn[i], sine = turn[half + i];
    *first = fmaf(a, cosine, -(b * sine));
    *second = fmaf(a, sine, b * cosine);
}
