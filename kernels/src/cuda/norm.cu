// Norms of rows: one block of threads for each row.

// The sum over all threads of a block, in an order that depends on the size of the block alone.
__device__ float block_sum(float value)
{
    __shared__ float parts[32];
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffff, value, distance);
    // What was summed before may still be being read.
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
        sum += parts[warp];
    return sum;
}

extern "C" __global__ void layer_norm(
    const float *x, const float *weight, const float *bias, float eps, float *out, int cols)
{
    x += (size_t)blockIdx.x * cols;
    out += (size_t)blockIdx.x * cols;
    float sum = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        sum += x[c];
    float mean = block_sum(sum) / cols;
    float squares = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        squares = fmaf(x[c] - mean, x[c] - mean, squares);
    float deviation = sqrtf(block_sum(squares) / cols + eps);
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        out[c] = fmaf((x[c] - mean) / deviation, weight[c], bias[c]);
}

extern "C" __global__ void rms_norm(const float *x, const float *weight, float eps, float *out, int cols)
{
    x += (size_t)blockIdx.x * cols;
    out += (size_t)blockIdx.x * cols;
    float squares = 0.0f;
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        squares = fmaf(x[c], x[c], squares);
    float root = sqrtf(block_sum(squares) / cols + eps);
    for (int c = threadIdx.x; c < cols; c += blockDim.x)
        out[c] = x[c] / root * weight[c];
}
