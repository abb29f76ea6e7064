// A GPU made of one processor thread: enough of CUDA C++ to run the kernels of kernels/src/cuda as
// they are. It takes the place of machine.cu; emulate.cpp has the threads.
//
// A block's threads are fibers. Each runs until it waits for its warp or its block, so whoever forgets
// to wait sees what others have not written yet. Every other launch goes through the threads
// backwards, which shows what depends on their order. All memory of the device is guarded.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
// One block runs at a time, so its shared memory can be static.
#define __shared__ static

typedef unsigned char u8;
typedef signed char i8;
typedef short i16;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { u32 x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { u32 x, y, z; };

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

// Waits for all threads of the block, or of the warp, that have not ended.
void wait_for_block();
void wait_for_warp();

// Gives `bits` to the other lanes of the warp and returns those of all, once all lanes have given.
const u64 *exchange(u64 bits);

inline void __syncthreads() { wait_for_block(); }
inline void __syncwarp() { wait_for_warp(); }

template <class T> T __shfl_sync(u32, T value, int lane)
{
    static_assert(sizeof(T) <= sizeof(u64), "a lane gives 64 bits at most");
    u64 bits = 0;
    memcpy(&bits, &value, sizeof(T));
    memcpy(&value, &exchange(bits)[lane & 31], sizeof(T));
    return value;
}

template <class T> T __shfl_xor_sync(u32 mask, T value, int distance)
{
    return __shfl_sync(mask, value, (threadIdx.x ^ distance) & 31);
}

inline u32 __ballot_sync(u32, bool condition)
{
    const u64 *all = exchange(condition);
    u32 ballot = 0;
    for (int lane = 0; lane < 32; lane++)
        ballot |= (all[lane] != 0) << lane;
    return ballot;
}

inline bool __any_sync(u32 mask, bool condition) { return __ballot_sync(mask, condition) != 0; }
inline int __popc(u32 bits) { return __builtin_popcount(bits); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

inline float __int_as_float(int bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline int __float_as_int(float value)
{
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// The sum wraps, as it does on the GPU.
inline int __dp4a(int a, int b, int c)
{
    for (int byte = 0; byte < 4; byte++)
        c = (int)((u32)c + (u32)((i8)(a >> 8 * byte) * (i8)(b >> 8 * byte)));
    return c;
}

inline float half_to_float(u16 half)
{
    u32 sign = (u32)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 0x3ff;
    if (exponent == 31)
        return __int_as_float((int)(sign | 0x7f800000 | fraction << 13));
    // Small numbers are whole multiples of 2 to the -24.
    float value = exponent == 0 ? ldexpf((float)fraction, -24)
                                : __int_as_float((int)((exponent + 112) << 23 | fraction << 13));
    return sign ? -value : value;
}

inline u16 float_to_half(float value)
{
    u32 bits = (u32)__float_as_int(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000)
        return 0x7fff;
    if (rest >= 0x477ff000)
        return sign | 0x7c00;
    // Below the smallest normal number steps are 2 to the -24; rintf takes ties to even.
    if (rest < 0x38800000)
        return sign | (u16)rintf(ldexpf(fabsf(value), 24));
    u32 shifted = rest - (112u << 23);
    return sign | (u16)((shifted + 0xfff + (shifted >> 13 & 1)) >> 13);
}

inline void multiply_16x8x16(int c[4], int a0, int a1, int b)
{
    u64 rows[32];
    memcpy(rows, exchange((u32)a0 | (u64)(u32)a1 << 32), sizeof rows);
    const u64 *columns = exchange((u32)b);
    u32 lane = threadIdx.x % 32;
    for (u32 i = 0; i < 4; i++)
        for (u32 word = 0; word < 4; word++) {
            int a = (int)(rows[lane / 4 * 4 + word] >> 32 * (i / 2));
            int b = (int)columns[(lane % 4 * 2 + i % 2) * 4 + word];
            c[i] = __dp4a(a, b, c[i]);
        }
}
