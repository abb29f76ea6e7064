// Weights as they are stored: rows of embeddings, and products in f32. Plain and slow beside the
// integer products, for tables and for the exact path.

__device__ float half_at(const u8 *bytes) { return half_to_float(bytes[0] | bytes[1] << 8); }

// Code `i` of 4 bits in blocks of 32.
__device__ int nibble32(const u8 *bytes, int i) { return bytes[i % 16] >> i / 16 * 4 & 15; }

// Bit `i` of some bytes.
__device__ int bit_at(const u8 *bytes, int i) { return bytes[i / 8] >> i % 8 & 1; }

// Code `i` of 2 bits, and of 4 bits, in blocks of 256.
__device__ int pair256(const u8 *bytes, int i) { return bytes[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3; }
__device__ int nibble256(const u8 *bytes, int i) { return bytes[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15; }

// Scale and minimum `j` of eight, of 6 bits each in 12 bytes.
__device__ int scale6(const u8 *bytes, int j)
{
    return j < 4 ? bytes[j] & 63 : (bytes[j + 4] & 15) | bytes[j - 4] >> 6 << 4;
}
__device__ int minimum6(const u8 *bytes, int j)
{
    return j < 4 ? bytes[j + 4] & 63 : bytes[j + 4] >> 4 | bytes[j] >> 6 << 4;
}

__device__ int scale_q3(const u8 *bytes, int j)
{
    int low = j < 8 ? bytes[j] & 15 : bytes[j - 8] >> 4;
    return (low | (bytes[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
}

__device__ int code_q6(const u8 *bytes, int i)
{
    int half = i / 128, at = i % 128;
    int low = bytes[64 * half + at % 64] >> at / 64 * 4 & 15;
    return (low | (bytes[128 + 32 * half + at % 32] >> at / 32 * 2 & 3) << 4) - 32;
}

// `scale * scales * code - minimum * minimums`, rounded as `Block256::dequantize` does.
__device__ float number256(float factor, int scale, int code) { return factor * (float)scale * (float)code; }

enum { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K };

// Number `i` of a stored row.
__device__ float stored_number(int dtype, const u8 *row, int i)
{
    int i32 = i % 32, i256 = i % 256;
    size_t block32 = i / 32, block256 = i / 256;
    const u8 *b;
    switch (dtype) {
    case F32: return ((const float *)row)[i];
    case F16: return half_to_float(((const u16 *)row)[i]);
    case BF16: return __int_as_float((int)((u32)((const u16 *)row)[i] << 16));
    case Q4_0: b = row + block32 * 18; return (float)(nibble32(b + 2, i32) - 8) * half_at(b);
    case Q4_1: b = row + block32 * 20; return (float)nibble32(b + 4, i32) * half_at(b) + half_at(b + 2);
    case Q5_0:
        b = row + block32 * 22;
        return (float)((nibble32(b + 6, i32) | bit_at(b + 2, i32) << 4) - 16) * half_at(b);
    case Q5_1:
        b = row + block32 * 24;
        return (float)(nibble32(b + 8, i32) | bit_at(b + 4, i32) << 4) * half_at(b) + half_at(b + 2);
    case Q8_0: b = row + block32 * 34; return (float)(i8)b[2 + i32] * half_at(b);
    case Q2K: {
        b = row + block256 * 84;
        int scale = b[i256 / 16];
        return number256(half_at(b + 80), scale & 15, pair256(b + 16, i256)) - half_at(b + 82) * (float)(scale >> 4);
    }
    case Q3K: {
        b = row + block256 * 110;
        int code = pair256(b + 32, i256) + ((b[i256 % 32] >> i256 / 32 & 1) << 2) - 4;
        return number256(half_at(b + 108), scale_q3(b + 96, i256 / 16), code);
    }
    case Q4K: {
        b = row + block256 * 144;
        float minimum = half_at(b + 2) * (float)minimum6(b + 4, i256 / 32);
        return number256(half_at(b), scale6(b + 4, i256 / 32), nibble256(b + 16, i256)) - minimum;
    }
    case Q5K: {
        b = row + block256 * 176;
        float minimum = half_at(b + 2) * (float)minimum6(b + 4, i256 / 32);
        int code = nibble256(b + 48, i256) | (b[16 + i256 % 32] >> i256 / 32 & 1) << 4;
        return number256(half_at(b), scale6(b + 4, i256 / 32), code) - minimum;
    }
    default:
        b = row + block256 * 210;
        return number256(half_at(b + 208), (i8)b[192 + i256 / 16], code_q6(b, i256));
    }
}

extern "C" __global__ void embed(
    const u8 *table, int dtype, int row_bytes, const u32 *ids, float *out, int rows, int cols)
{
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < rows * cols)
        out[index] = stored_number(dtype, table + (size_t)ids[index / cols] * row_bytes, index % cols);
}

// Sums in the order of `matmul.cu`: eight segments of units of 32 numbers, each with a lane.
template <bool IS_F32> __device__ void exact_rows(
    const u8 *w, int dtype, int row_bytes, int outputs, const float *x, int rows, int cols, const float *bias, float *out)
{
    const int ROWS = 4;
    int lane = threadIdx.x % 32, group = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (group * 4 >= outputs)
        return;
    int output = group * 4 + lane % 4, first_row = blockIdx.y * ROWS;
    const u8 *weights = w + (size_t)min(output, outputs - 1) * row_bytes;
    const float *inputs[ROWS];
    float sums[ROWS];
    for (int row = 0; row < ROWS; row++) {
        sums[row] = 0.0f;
        inputs[row] = x + (size_t)min(first_row + row, rows - 1) * cols;
    }
    int length = ((cols + 31) / 32 + 7) / 8 * 32;
    int end = min((lane / 4 + 1) * length, cols);
    for (int i = lane / 4 * length; i < end; i++) {
        float weight = IS_F32 ? ((const float *)weights)[i] : stored_number(dtype, weights, i);
        for (int row = 0; row < ROWS; row++)
            sums[row] = fmaf(inputs[row][i], weight, sums[row]);
    }
    for (int row = 0; row < ROWS; row++) {
        float sum = __shfl_sync(0xffffffff, sums[row], lane % 4);
        for (int other = 1; other < 8; other++)
            sum += __shfl_sync(0xffffffff, sums[row], other * 4 + lane % 4);
        if (lane < 4 && output < outputs && first_row + row < rows)
            out[(size_t)(first_row + row) * outputs + output] = bias ? sum + bias[output] : sum;
    }
}

extern "C" __global__ void __launch_bounds__(128) exact_f32(
    const u8 *w, int dtype, int row_bytes, int outputs, const float *x, int rows, int cols, const float *bias, float *out)
{
    exact_rows<true>(w, dtype, row_bytes, outputs, x, rows, cols, bias, out);
}

extern "C" __global__ void __launch_bounds__(128) exact_stored(
    const u8 *w, int dtype, int row_bytes, int outputs, const float *x, int rows, int cols, const float *bias, float *out)
{
    exact_rows<false>(w, dtype, row_bytes, outputs, x, rows, cols, bias, out);
}
