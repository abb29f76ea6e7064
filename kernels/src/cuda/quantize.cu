// Activations to 8-bit integers, to the bit as `Device::matmul` says. One warp for each block of 32
// or of 256 numbers.
//
// The result has a part, or two where blocks may be split. A part holds for each unit of 32 numbers,
// row after row, 32 integers; then the scales of all units; then the sums of the integers of both
// halves of each unit, 16 bits each.

struct Activations {
    int *integers;
    float *scales;
    int *sums;
};

__device__ __forceinline__ Activations activations(u8 *base, int units, int part)
{
    base += part * ((size_t)units * 40 + 15) / 16 * 16;
    u8 *scales = base + (size_t)units * 32;
    return {(int *)base, (float *)scales, (int *)(scales + (size_t)units * 4)};
}

__device__ bool is_finite(float value) { return fabsf(value) <= 3.40282347e38f; }

__device__ float not_a_number() { return __int_as_float(0x7fc00000); }

__device__ int two_sums(int first, int second) { return (int)((u32)(first & 0xffff) | (u32)second << 16); }

struct Integer {
    int q;
    float scale;
};

// One block of 32, a number in each lane.
__device__ Integer quantize_lane(float value, float largest, bool is_poisoned)
{
    if (is_poisoned)
        return {0, not_a_number()};
    float scale = largest / 127.0f;
    float inverse = 1.0f / scale;
    if (!is_finite(inverse))
        return {0, 0.0f};
    return {(int)roundf(value * inverse), half_to_float(float_to_half(scale))};
}

__device__ float warp_largest(float value)
{
    float largest = fabsf(value);
    for (int distance = 16; distance > 0; distance /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, distance));
    return largest;
}

__device__ void store_lane(Activations to, int unit, Integer integer)
{
    int lane = threadIdx.x % 32, sum = integer.q;
    for (int distance = 8; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, distance);
    int second = __shfl_sync(0xffffffff, sum, 16);
    ((i8 *)to.integers)[(size_t)unit * 32 + lane] = (i8)integer.q;
    if (lane == 0) {
        to.scales[unit] = integer.scale;
        to.sums[unit] = two_sums(sum, second);
    }
}

extern "C" __global__ void quantize32(const float *x, u8 *to, int units, int parts)
{
    int unit = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (unit >= units)
        return;
    float value = x[(size_t)unit * 32 + threadIdx.x % 32];
    bool is_poisoned = __any_sync(0xffffffff, !is_finite(value));
    float largest = warp_largest(value);
    Integer integer = quantize_lane(value, largest, is_poisoned);
    store_lane(activations(to, units, 0), unit, integer);
    if (parts == 1)
        return;
    int loud = __popc(__ballot_sync(0xffffffff, integer.q >= 4 || integer.q <= -4));
    bool is_split = loud < 16 && integer.scale != 0.0f && is_finite(integer.scale);
    float left = is_split ? value - integer.q * integer.scale : 0.0f;
    store_lane(activations(to, units, 1), unit, quantize_lane(left, warp_largest(left), false));
}

// The number of largest magnitude of a warp with eight numbers in each lane, the first of equals.
__device__ float first_largest(const float values[8])
{
    float best = 0.0f;
    for (int i = 0; i < 8; i++)
        best = fabsf(values[i]) > fabsf(best) ? values[i] : best;
    int from = threadIdx.x % 32;
    for (int distance = 16; distance > 0; distance /= 2) {
        float other = __shfl_xor_sync(0xffffffff, best, distance);
        int other_from = __shfl_xor_sync(0xffffffff, from, distance);
        bool is_better = fabsf(other) > fabsf(best) || (fabsf(other) == fabsf(best) && other_from < from);
        best = is_better ? other : best;
        from = is_better ? other_from : from;
    }
    return best;
}

extern "C" __global__ void quantize256(const float *x, u8 *to, int units)
{
    int block = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (block >= units / 8)
        return;
    float values[8];
    bool is_poisoned = false;
    for (int i = 0; i < 8; i++) {
        values[i] = x[(size_t)block * 256 + lane * 8 + i];
        is_poisoned |= !is_finite(values[i]);
    }
    is_poisoned = __any_sync(0xffffffff, is_poisoned);
    float inverse = -127.0f / first_largest(values);
    bool is_zero = is_poisoned || !is_finite(inverse);
    u32 words[2] = {0, 0};
    int sum = 0;
    for (int i = 0; i < 8; i++) {
        int q = is_zero ? 0 : min((int)rintf(values[i] * inverse), 127);
        words[i / 4] |= (u32)(q & 0xff) << (8 * (i % 4));
        sum += q;
    }
    Activations out = activations(to, units, 0);
    size_t first = (size_t)block * 64 + lane * 2;
    out.integers[first] = (int)words[0];
    out.integers[first + 1] = (int)words[1];
    // Two lanes make 16 numbers, four a unit.
    sum += __shfl_xor_sync(0xffffffff, sum, 1);
    int second = __shfl_xor_sync(0xffffffff, sum, 2);
    if (lane % 4 == 0) {
        int unit = block * 8 + lane / 4;
        out.scales[unit] = is_poisoned ? not_a_number() : is_zero ? 0.0f : 1.0f / inverse;
        out.sums[unit] = two_sums(sum, second);
    }
}
