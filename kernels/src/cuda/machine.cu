// What the kernels take from the machine beside plain CUDA C++: types, conversions of f16 and the
// integer products of tensor cores. The emulator of the tests has a version of its own of this file.

typedef unsigned char u8;
typedef signed char i8;
typedef short i16;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ float half_to_float(u16 bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// Rounds to nearest, ties to even; what is too large becomes infinite.
__device__ __forceinline__ u16 float_to_half(float value)
{
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// c += a * b of a warp, 16 x 16 and 16 x 8 bytes. Lane l holds of a the bytes 4 * (l % 4) .. of rows
// l / 4 and l / 4 + 8, of b the same bytes of column l / 4, and of c the columns 2 * (l % 4) and the
// next one in row l / 4, then in row l / 4 + 8.
__device__ __forceinline__ void multiply_16x8x16(int c[4], int a0, int a1, int b)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a0), "r"(a1), "r"(b));
}
