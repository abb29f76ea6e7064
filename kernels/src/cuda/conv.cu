// Operations on images and grids; one thread for each number of the result.

extern "C" __global__ void patches(const float *image, float *out, int side, int patch)
{
    int n = side / patch, width = 3 * patch * patch;
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= n * n * width)
        return;
    int row = index / width, i = index % width;
    int plane = i / (patch * patch), dy = i / patch % patch, dx = i % patch;
    int line = plane * side + row / n * patch + dy;
    out[index] = image[(size_t)line * side + row % n * patch + dx];
}

extern "C" __global__ void depthwise3x3(
    const float *x, const float *weight, const float *bias, float *out, int width, int height, int channels, int stride)
{
    int out_width = (width + stride - 1) / stride, out_height = (height + stride - 1) / stride;
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= out_width * out_height * channels)
        return;
    int channel = index % channels, position = index / channels;
    int top = position / out_width * stride - 1, left = position % out_width * stride - 1;
    float sum = bias ? bias[channel] : 0.0f;
    for (int tap = 0; tap < 9; tap++) {
        int in_y = top + tap / 3, in_x = left + tap % 3;
        if (in_y >= 0 && in_y < height && in_x >= 0 && in_x < width)
            sum = fmaf(weight[tap * channels + channel], x[((size_t)in_y * width + in_x) * channels + channel], sum);
    }
    out[index] = sum;
}

extern "C" __global__ void average_pool2x2(const float *x, float *out, int width, int height, int channels)
{
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= width / 2 * (height / 2) * channels)
        return;
    int channel = index % channels, position = index / channels;
    size_t corner = (size_t)(position / (width / 2) * 2) * width + position % (width / 2) * 2;
    const float *above = x + corner * channels + channel;
    const float *below = above + (size_t)width * channels;
    out[index] = ((above[0] + above[channels]) + (below[0] + below[channels])) * 0.25f;
}

// Few and short sums, so that f64 costs nothing.
extern "C" __global__ void column_mean(const float *x, float *out, int rows, int cols)
{
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= cols)
        return;
    double sum = 0.0;
    for (int row = 0; row < rows; row++)
        sum += x[(size_t)row * cols + column];
    out[column] = (float)(sum / rows);
}

extern "C" __global__ void scale_columns(float *x, const float *scale, int count, int cols)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        x[i] *= scale[i % cols];
}
