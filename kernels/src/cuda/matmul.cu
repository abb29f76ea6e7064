// Products of quantized weights and quantized activations.
//
// The numbers of a row are cut into units of 32, and the units into eight segments of `steps` units,
// the last of which may be short or empty. A result sums each segment in ascending order into one f32
// accumulator, integers being exact inside a unit, and then adds the segments in ascending order. Both
// kernels below do so, whatever the number of rows: a row never depends on its neighbours.
//
// Four rows of weights lie together: unit `step` of segment `s` of row `o` has the index
// ((o / 4 * steps + step) * 8 + s) * 4 + o % 4 in each plane, so that a warp reads 512 bytes at once.

struct Weights {
    const u8 *codes;
    const u8 *extra;
    const u8 *scales;
    const u8 *factors;
    int outputs;
    int units;
    int steps;
};

// 32 codes: bytes 4 * w .. of the first 16 in low[w], of the others in high[w].
struct Codes {
    int low[4];
    int high[4];
};

// What a unit's integers are scaled by: numbers are `factor * scales * code + offset * minimums`.
struct Scale {
    int scales[2];
    int minimums[2];
    float factor;
    float offset;
};

// How a block type keeps its scales.
enum {
    ONE,     // f16 factor of each unit
    OFFSET,  // f16 factor and f16 offset of each unit
    SHARED,  // of each unit a scale and a minimum, of 8 units f16 factor and f16 factor of minimums
    HALVES,  // of each unit two signed scales, of 8 units f16 factor
    NIBBLES, // of each unit two bytes of scale and minimum, of 8 units f16 factor and factor of minimums
};

template <int BITS, int KIND, int ZERO> struct Format {
    static const bool HAS_OFFSET = KIND == OFFSET || KIND == SHARED || KIND == NIBBLES;

    // Words `word` of a unit's halves.
    __device__ static void word(const Weights &w, size_t index, int word, int &low, int &high)
    {
        if (BITS == 8) {
            low = ((const int *)w.codes)[index * 4 + word];
            high = ((const int *)w.extra)[index * 4 + word];
            return;
        }
        widen(((const u32 *)w.codes)[index * 4 + word], extra_of(w, index), word, low, high);
    }

    __device__ static Codes codes(const Weights &w, size_t index)
    {
        Codes result;
        int4 packed = ((const int4 *)w.codes)[index];
        if (BITS == 8) {
            int4 second = ((const int4 *)w.extra)[index];
            return {{packed.x, packed.y, packed.z, packed.w}, {second.x, second.y, second.z, second.w}};
        }
        int2 extra = extra_of(w, index);
        widen(packed.x, extra, 0, result.low[0], result.high[0]);
        widen(packed.y, extra, 1, result.low[1], result.high[1]);
        widen(packed.z, extra, 2, result.low[2], result.high[2]);
        widen(packed.w, extra, 3, result.low[3], result.high[3]);
        return result;
    }

    __device__ static Scale scale(const Weights &w, size_t index, int output, int unit)
    {
        Scale result = {{1, 1}, {1, 1}, 0.0f, 0.0f};
        if (KIND == ONE || KIND == OFFSET) {
            const u16 *factors = (const u16 *)w.factors + index * (KIND == ONE ? 1 : 2);
            result.factor = half_to_float(factors[0]);
            if (KIND == OFFSET)
                result.offset = half_to_float(factors[1]);
            return result;
        }
        size_t block = ((size_t)(output / 4) * (w.units / 8) + unit / 8) * 4 + output % 4;
        const u16 *factors = (const u16 *)w.factors + block * (KIND == HALVES ? 1 : 2);
        result.factor = half_to_float(factors[0]);
        if (KIND != HALVES)
            result.offset = -half_to_float(factors[1]);
        u16 bytes = ((const u16 *)w.scales)[index];
        u8 first = bytes & 0xff, second = bytes >> 8;
        if (KIND == SHARED)
            return {{first, first}, {second, second}, result.factor, result.offset};
        if (KIND == HALVES)
            return {{(i8)first, (i8)second}, {0, 0}, result.factor, 0.0f};
        return {{first & 15, second & 15}, {first >> 4, second >> 4}, result.factor, result.offset};
    }

    // Adds what a unit gives: `dots` of codes and activations for both halves, `sums` of the latter.
    __device__ static float add(float sum, const Scale &w, const int dots[2], float scale, int sums)
    {
        int first = (i16)(sums & 0xffff), second = sums >> 16;
        int dot = w.scales[0] * (dots[0] - ZERO * first) + w.scales[1] * (dots[1] - ZERO * second);
        sum = fmaf((float)dot, w.factor * scale, sum);
        if (HAS_OFFSET)
            sum = fmaf((float)(w.minimums[0] * first + w.minimums[1] * second), w.offset * scale, sum);
        return sum;
    }

    // Number `i` of a row, as it was before it was packed.
    __device__ static float number(const Weights &w, int output, int i)
    {
        int unit = i / 32, half = i % 32 / 16, segment = unit / w.steps;
        size_t index = (((size_t)(output / 4) * w.steps + unit % w.steps) * 8 + segment) * 4 + output % 4;
        Scale s = scale(w, index, output, unit);
        int low, high;
        word(w, index, i % 16 / 4, low, high);
        int code = (i8)((half ? high : low) >> i % 4 * 8) - ZERO;
        float product = s.factor * (float)s.scales[half] * (float)code;
        return HAS_OFFSET ? product + s.offset * (float)s.minimums[half] : product;
    }

  private:
    // Bits above the fourth: of 5-bit codes in x, of 6-bit codes the first half's in x, the other's in y.
    __device__ static int2 extra_of(const Weights &w, size_t index)
    {
        if (BITS == 5)
            return {((const int *)w.extra)[index], 0};
        if (BITS == 6)
            return ((const int2 *)w.extra)[index];
        return {0, 0};
    }

    __device__ static void widen(u32 packed, int2 extra, int word, int &low, int &high)
    {
        low = packed & 0x0f0f0f0f;
        high = packed >> 4 & 0x0f0f0f0f;
        u32 first = extra.x, second = extra.y;
        if (BITS == 5) {
            low |= (first >> word & 0x01010101) << 4;
            high |= (first >> (4 + word) & 0x01010101) << 4;
        }
        if (BITS == 6) {
            low |= (first >> 2 * word & 0x03030303) << 4;
            high |= (second >> 2 * word & 0x03030303) << 4;
        }
    }
};

// The products of a unit with one row of activations.
template <class F> __device__ float unit_product(
    float sum, const Codes &codes, const Scale &scale, const Activations &x, size_t at)
{
    const int4 *integers = (const int4 *)x.integers + at * 2;
    int4 low = integers[0], high = integers[1];
    int dots[2] = {0, 0};
    dots[0] = __dp4a(codes.low[0], low.x, dots[0]);
    dots[0] = __dp4a(codes.low[1], low.y, dots[0]);
    dots[0] = __dp4a(codes.low[2], low.z, dots[0]);
    dots[0] = __dp4a(codes.low[3], low.w, dots[0]);
    dots[1] = __dp4a(codes.high[0], high.x, dots[1]);
    dots[1] = __dp4a(codes.high[1], high.y, dots[1]);
    dots[1] = __dp4a(codes.high[2], high.z, dots[1]);
    dots[1] = __dp4a(codes.high[3], high.w, dots[1]);
    return F::add(sum, scale, dots, x.scales[at], x.sums[at]);
}

// Up to ROWS rows, for decoding: a warp has four outputs, each with a lane for every segment.
template <class F, int ROWS> __device__ void few_rows(
    const Weights &w, u8 *x, int parts, int rows, const float *bias, float *out)
{
    int lane = threadIdx.x % 32, segment = lane / 4;
    int group = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    int output = group * 4 + lane % 4;
    // All lanes of a warp leave together.
    if (group * 4 >= w.outputs)
        return;
    Activations first = activations(x, rows * w.units, 0), second = activations(x, rows * w.units, 1);
    float sums[ROWS];
    for (int row = 0; row < ROWS; row++)
        sums[row] = 0.0f;
    int end = min(w.steps, w.units - segment * w.steps);
#pragma unroll 2
    for (int step = 0; step < end; step++) {
        int unit = segment * w.steps + step;
        size_t index = (size_t)(group * w.steps + step) * 32 + lane;
        Codes codes = F::codes(w, index);
        Scale scale = F::scale(w, index, output, unit);
#pragma unroll
        for (int row = 0; row < ROWS; row++) {
            // A row too many repeats the last one.
            size_t at = (size_t)min(row, rows - 1) * w.units + unit;
            sums[row] = unit_product<F>(sums[row], codes, scale, first, at);
            if (parts == 2 && second.scales[at] != 0.0f)
                sums[row] = unit_product<F>(sums[row], codes, scale, second, at);
        }
    }
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
        float sum = __shfl_sync(0xffffffff, sums[row], lane % 4);
        for (int other = 1; other < 8; other++)
            sum += __shfl_sync(0xffffffff, sums[row], other * 4 + lane % 4);
        if (lane < 4 && output < w.outputs && row < rows)
            out[(size_t)row * w.outputs + output] = bias ? sum + bias[output] : sum;
    }
}

// Outputs and rows of a tile of `many_rows`.
const int TILE_OUTPUTS = 32, TILE_ROWS = 32;

// A tile's activations of one unit as tensor cores want them: columns are rows of x.
struct Columns {
    int low[TILE_ROWS / 8];
    int high[TILE_ROWS / 8];
    float scales[TILE_ROWS / 8][2];
    int sums[TILE_ROWS / 8][2];

    __device__ bool are_zero() const
    {
        bool all = true;
        for (int tile = 0; tile < TILE_ROWS / 8; tile++)
            all &= scales[tile][0] == 0.0f && scales[tile][1] == 0.0f;
        return all;
    }
};

__device__ Columns load_columns(const Activations &x, int first_row, int rows, int units, int unit)
{
    Columns columns;
    int lane = threadIdx.x % 32;
    for (int tile = 0; tile < TILE_ROWS / 8; tile++) {
        int row = min(first_row + tile * 8 + lane / 4, rows - 1);
        size_t at = (size_t)row * units + unit;
        columns.low[tile] = x.integers[at * 8 + lane % 4];
        columns.high[tile] = x.integers[at * 8 + 4 + lane % 4];
        for (int i = 0; i < 2; i++) {
            int row = min(first_row + tile * 8 + lane % 4 * 2 + i, rows - 1);
            columns.scales[tile][i] = x.scales[(size_t)row * units + unit];
            columns.sums[tile][i] = x.sums[(size_t)row * units + unit];
        }
    }
    return columns;
}

// The two words and scales of a lane's rows of weights in a tile of 16 outputs.
struct Rows {
    int low[2];
    int high[2];
    Scale scales[2];
};

template <class F> __device__ Rows load_rows(const Weights &w, int first_output, int segment, int step)
{
    Rows rows;
    int lane = threadIdx.x % 32, last = (w.outputs + 3) / 4 * 4 - 1;
    for (int i = 0; i < 2; i++) {
        int output = min(first_output + lane / 4 + i * 8, last);
        size_t index = (((size_t)(output / 4) * w.steps + step) * 8 + segment) * 4 + output % 4;
        F::word(w, index, lane % 4, rows.low[i], rows.high[i]);
        rows.scales[i] = F::scale(w, index, output, segment * w.steps + step);
    }
    return rows;
}

// Adds the products of 16 outputs and a tile of rows. What is `always` added may be 0.
template <class F> __device__ void add_tile(
    float sums[TILE_ROWS / 8][4], const Rows &w, const Columns &x, bool always)
{
#pragma unroll
    for (int tile = 0; tile < TILE_ROWS / 8; tile++) {
        int low[4] = {0, 0, 0, 0}, high[4] = {0, 0, 0, 0};
        multiply_16x8x16(low, w.low[0], w.low[1], x.low[tile]);
        multiply_16x8x16(high, w.high[0], w.high[1], x.high[tile]);
        for (int i = 0; i < 4; i++) {
            int dots[2] = {low[i], high[i]};
            float scale = x.scales[tile][i % 2];
            if (always || scale != 0.0f)
                sums[tile][i] = F::add(sums[tile][i], w.scales[i / 2], dots, scale, x.sums[tile][i % 2]);
        }
    }
}

// Any number of rows, for prompts and images: a block has a tile, each of its eight warps a segment.
template <class F> __device__ void many_rows(
    const Weights &w, u8 *x, int parts, int rows, const float *bias, float *out)
{
    __shared__ float total[TILE_ROWS][TILE_OUTPUTS + 1];
    int segment = threadIdx.x / 32, lane = threadIdx.x % 32;
    int first_output = blockIdx.x * TILE_OUTPUTS, first_row = blockIdx.y * TILE_ROWS;
    Activations first = activations(x, rows * w.units, 0), second = activations(x, rows * w.units, 1);
    float sums[2][TILE_ROWS / 8][4];
    for (int i = 0; i < TILE_ROWS; i++)
        sums[i / 16][i / 4 % 4][i % 4] = 0.0f;
    int end = min(w.steps, w.units - segment * w.steps);
    for (int step = 0; step < end; step++) {
        int unit = segment * w.steps + step;
#pragma unroll 1
        for (int part = 0; part < parts; part++) {
            Columns columns = load_columns(part == 0 ? first : second, first_row, rows, w.units, unit);
            // Few units are split.
            if (part == 1 && !__any_sync(0xffffffff, !columns.are_zero()))
                break;
#pragma unroll
            for (int half = 0; half < 2; half++) {
                Rows weights = load_rows<F>(w, first_output + half * 16, segment, step);
                add_tile<F>(sums[half], weights, columns, part == 0);
            }
        }
    }
    for (int turn = 0; turn < 8; turn++) {
        if (turn == segment)
            for (int half = 0; half < 2; half++)
                for (int tile = 0; tile < TILE_ROWS / 8; tile++)
                    for (int i = 0; i < 4; i++) {
                        float *to = &total[tile * 8 + lane % 4 * 2 + i % 2][half * 16 + lane / 4 + i / 2 * 8];
                        *to = turn == 0 ? sums[half][tile][i] : *to + sums[half][tile][i];
                    }
        __syncthreads();
    }
    for (int i = threadIdx.x; i < TILE_ROWS * TILE_OUTPUTS; i += blockDim.x) {
        int row = first_row + i / TILE_OUTPUTS, output = first_output + i % TILE_OUTPUTS;
        if (row < rows && output < w.outputs) {
            float sum = total[i / TILE_OUTPUTS][i % TILE_OUTPUTS];
            out[(size_t)row * w.outputs + output] = bias ? sum + bias[output] : sum;
        }
    }
}

#define PRODUCT(NAME, THREADS, BODY)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                          \
        NAME(const u8 *codes, const u8 *extra, const u8 *scales, const u8 *factors, int outputs, int units,        \
             int steps, u8 *x, int parts, int rows, const float *bias, float *out)                                 \
    {                                                                                                              \
        Weights w = {codes, extra, scales, factors, outputs, units, steps};                                        \
        BODY(w, x, parts, rows, bias, out);                                                                        \
    }

#define PRODUCTS(NAME, ...)                                                                                        \
    typedef Format<__VA_ARGS__> Format_##NAME;                                                                     \
    PRODUCT(one_row_##NAME, 128, (few_rows<Format_##NAME, 1>))                                                     \
    PRODUCT(four_rows_##NAME, 128, (few_rows<Format_##NAME, 4>))                                                   \
    PRODUCT(eight_rows_##NAME, 128, (few_rows<Format_##NAME, 8>))                                                  \
    PRODUCT(many_rows_##NAME, 256, (many_rows<Format_##NAME>))                                                     \
    extern "C" __global__ void embed_##NAME(const u8 *codes, const u8 *extra, const u8 *scales, const u8 *factors, \
                                            int outputs, int units, int steps, const u32 *ids, float *out,         \
                                            int count)                                                             \
    {                                                                                                              \
        Weights w = {codes, extra, scales, factors, outputs, units, steps};                                        \
        int index = blockIdx.x * blockDim.x + threadIdx.x, cols = units * 32;                                      \
        if (index < count)                                                                                         \
            out[index] = Format_##NAME::number(w, ids[index / cols], index % cols);                                \
    }

PRODUCTS(q4_0, 4, ONE, 8)
PRODUCTS(q4_1, 4, OFFSET, 0)
PRODUCTS(q5_0, 5, ONE, 16)
PRODUCTS(q5_1, 5, OFFSET, 0)
PRODUCTS(q8_0, 8, ONE, 0)
PRODUCTS(q2_k, 4, NIBBLES, 0)
PRODUCTS(q3_k, 4, HALVES, 4)
PRODUCTS(q4_k, 4, SHARED, 0)
PRODUCTS(q5_k, 5, SHARED, 0)
PRODUCTS(q6_k, 6, HALVES, 32)
