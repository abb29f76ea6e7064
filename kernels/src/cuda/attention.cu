// Attention, plain and over cached keys and values, and the cache itself.
//
// Keys are taken in tiles of 32 positions that start at multiples of 32. A block of threads has up to
// ROWS query rows of one head; its warps take the tiles in turn, each in ascending order, and their
// results are merged in the order of the warps. So a row depends on its own positions alone.

const int PAGE = 32, WIDEST_HEAD = 128, KV_BLOCK = 32;

// How keys and values are stored.
enum { KV_F32, KV_F16, KV_Q8 };

// Rows of keys or of values of one head and one tile.
template <int KIND> struct Tile {
    const u8 *numbers;
    const u16 *scales;
    int stride;
    int dim;

    __device__ float at(int row, int d) const
    {
        size_t i = (size_t)row * stride + d;
        if (KIND == KV_F32)
            return ((const float *)numbers)[i];
        if (KIND == KV_F16)
            return half_to_float(((const u16 *)numbers)[i]);
        return (float)((const i8 *)numbers)[i] * scale(row, d);
    }

    // Four numbers from `d` on; rows are whole fours.
    __device__ float4 four(int row, int d) const
    {
        size_t i = ((size_t)row * stride + d) / 4;
        if (KIND == KV_F32)
            return ((const float4 *)numbers)[i];
        if (KIND == KV_F16) {
            uint2 bits = ((const uint2 *)numbers)[i];
            return {half_to_float(bits.x & 0xffff), half_to_float(bits.x >> 16), half_to_float(bits.y & 0xffff),
                    half_to_float(bits.y >> 16)};
        }
        u32 codes = ((const u32 *)numbers)[i];
        float factor = scale(row, d);
        return {(float)(i8)(codes & 0xff) * factor, (float)(i8)(codes >> 8 & 0xff) * factor,
                (float)(i8)(codes >> 16 & 0xff) * factor, (float)(i8)(codes >> 24) * factor};
    }

  private:
    __device__ float scale(int row, int d) const
    {
        int blocks = (dim + KV_BLOCK - 1) / KV_BLOCK;
        return half_to_float(scales[row * blocks + d / KV_BLOCK]);
    }
};

// Keys and values that lie in tensors of `width` numbers a row.
struct Plain {
    static const int KIND = KV_F32;
    const float *parts[2];
    int width;
    int dim;
    int head;

    __device__ Tile<KIND> tile(int part, int index) const
    {
        const float *first = parts[part] + (size_t)index * PAGE * width + head * dim;
        return {(const u8 *)first, (const u16 *)first, width, dim};
    }
};

__device__ int bytes_of(int kind) { return kind == KV_F32 ? 4 : kind == KV_F16 ? 2 : 1; }

// Where layers, keys and values lie in a page: all numbers of a part, head after head, then with
// 8-bit integers the scales of its blocks.
struct PageLayout {
    int kv_heads;
    int dim;

    __device__ int blocks() const { return (dim + KV_BLOCK - 1) / KV_BLOCK; }
    __device__ size_t numbers(int kind) const { return (size_t)kv_heads * PAGE * dim * bytes_of(kind); }
    __device__ size_t part(int kind) const
    {
        return numbers(kind) + (kind == KV_Q8 ? (size_t)kv_heads * PAGE * blocks() * 2 : 0);
    }
};

// Keys and values in pages.
template <int STORED> struct Paged {
    static const int KIND = STORED;
    const u8 *arena;
    size_t page_bytes;
    PageLayout layout;
    int layer;
    const u32 *pages;
    int head;

    __device__ Tile<KIND> tile(int part, int index) const
    {
        const u8 *start = arena + pages[index] * page_bytes + (layer * 2 + part) * layout.part(KIND);
        const u8 *numbers = start + (size_t)head * PAGE * layout.dim * bytes_of(KIND);
        const u8 *scales = start + layout.numbers(KIND) + (size_t)head * PAGE * layout.blocks() * 2;
        return {numbers, (const u16 *)scales, layout.dim, layout.dim};
    }
};

// What a warp knows of a row: the largest score, the sum of powers, and the weighted sum of values.
struct Partial {
    float largest;
    float sum;
    float values[WIDEST_HEAD / 32];
};

__device__ float warp_sum(float value)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}

__device__ float warp_max(float value)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, distance));
    return value;
}

// Scores of the lane's position against all rows.
template <int KIND, int ROWS> __device__ void score(
    const Tile<KIND> &keys, int position, float (*q)[WIDEST_HEAD], float scores[ROWS])
{
    for (int row = 0; row < ROWS; row++)
        scores[row] = 0.0f;
    int d = 0;
    if (keys.dim % 4 == 0)
        for (; d < keys.dim; d += 4) {
            float4 k = keys.four(position, d);
            for (int row = 0; row < ROWS; row++) {
                float sum = fmaf(q[row][d], k.x, scores[row]);
                sum = fmaf(q[row][d + 1], k.y, sum);
                sum = fmaf(q[row][d + 2], k.z, sum);
                scores[row] = fmaf(q[row][d + 3], k.w, sum);
            }
        }
    for (; d < keys.dim; d++)
        for (int row = 0; row < ROWS; row++)
            scores[row] = fmaf(q[row][d], keys.at(position, d), scores[row]);
    float root = sqrtf((float)keys.dim);
    for (int row = 0; row < ROWS; row++)
        scores[row] /= root;
}

// Takes a tile into the partial results. Row r sees `seen[r]` of its positions, some of them none.
template <int KIND, int ROWS> __device__ void take_tile(
    const Tile<KIND> &keys, const Tile<KIND> &values, const int seen[ROWS], float (*q)[WIDEST_HEAD],
    float (*powers)[PAGE], Partial partials[ROWS])
{
    int lane = threadIdx.x % 32, most = 0;
    for (int row = 0; row < ROWS; row++)
        most = max(most, seen[row]);
    float scores[ROWS];
    // Lanes beyond the end repeat the last position; what they find is not used.
    score<KIND, ROWS>(keys, min(lane, most - 1), q, scores);
    __syncwarp();
    for (int row = 0; row < ROWS; row++) {
        if (seen[row] <= 0)
            continue;
        Partial &partial = partials[row];
        bool is_seen = lane < seen[row];
        float largest = fmaxf(partial.largest, warp_max(is_seen ? scores[row] : -__int_as_float(0x7f800000)));
        float power = is_seen ? expf(scores[row] - largest) : 0.0f;
        float fade = expf(partial.largest - largest);
        partial.sum = fmaf(partial.sum, fade, warp_sum(power));
        partial.largest = largest;
        for (int i = 0; i < WIDEST_HEAD / 32; i++)
            partial.values[i] *= fade;
        powers[row][lane] = power;
    }
    __syncwarp();
    for (int position = 0; position < most; position++)
        for (int i = 0; i < WIDEST_HEAD / 32; i++) {
            int d = i * 32 + lane;
            if (d >= values.dim)
                continue;
            float value = values.at(position, d);
            for (int row = 0; row < ROWS; row++)
                if (position < seen[row])
                    partials[row].values[i] = fmaf(powers[row][position], value, partials[row].values[i]);
        }
}

// Attention of `rows` rows, of which row r sees the first `position + r + 1` positions if it is
// `causal` and the first `position` otherwise. `width` is that of q and out, both at the head.
template <class Source, int ROWS, int WARPS> __device__ void attend_rows(
    const Source &source, const float *q, float *out, int width, int dim, int rows, int position, bool causal)
{
    __shared__ float queries[ROWS][WIDEST_HEAD];
    __shared__ float powers[WARPS][ROWS][PAGE];
    __shared__ float values[WARPS][ROWS][WIDEST_HEAD];
    __shared__ float largest[WARPS][ROWS], sums[WARPS][ROWS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int i = threadIdx.x; i < ROWS * dim; i += blockDim.x)
        queries[i / dim][i % dim] = i / dim < rows ? q[(size_t)(i / dim) * width + i % dim] : 0.0f;
    __syncthreads();
    Partial partials[ROWS];
    for (int row = 0; row < ROWS; row++)
        partials[row] = {-__int_as_float(0x7f800000), 0.0f, {0.0f, 0.0f, 0.0f, 0.0f}};
    int last = causal ? position + rows : position;
    for (int tile = warp; tile * PAGE < last; tile += WARPS) {
        int seen[ROWS];
        for (int row = 0; row < ROWS; row++)
            seen[row] = row < rows ? min((causal ? position + row + 1 : position) - tile * PAGE, PAGE) : 0;
        take_tile<Source::KIND, ROWS>(
            source.tile(0, tile), source.tile(1, tile), seen, queries, powers[warp], partials);
    }
    for (int row = 0; row < ROWS; row++) {
        for (int i = 0; i < WIDEST_HEAD / 32; i++)
            values[warp][row][i * 32 + lane] = partials[row].values[i];
        if (lane == 0) {
            largest[warp][row] = partials[row].largest;
            sums[warp][row] = partials[row].sum;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < rows * dim; i += blockDim.x) {
        int row = i / dim, d = i % dim;
        // Warps without a tile of the row have nothing to say.
        int end = causal ? position + row + 1 : position;
        int count = min((end + PAGE - 1) / PAGE, WARPS);
        float top = largest[0][row];
        for (int w = 1; w < count; w++)
            top = fmaxf(top, largest[w][row]);
        float value = 0.0f, sum = 0.0f;
        for (int w = 0; w < count; w++) {
            float weight = expf(largest[w][row] - top);
            value = fmaf(weight, values[w][row][d], value);
            sum = fmaf(weight, sums[w][row], sum);
        }
        out[(size_t)row * width + d] = value / sum;
    }
}

// Attention of every row to every row; blocks of 8 rows and heads.
extern "C" __global__ void __launch_bounds__(128) attention(
    const float *q, const float *k, const float *v, float *out, int rows, int heads, int dim)
{
    const int ROWS = 8;
    int width = heads * dim, first = blockIdx.x * ROWS;
    size_t start = (size_t)first * width + blockIdx.y * dim;
    Plain source = {{k, v}, width, dim, (int)blockIdx.y};
    attend_rows<Plain, ROWS, 4>(source, q + start, out + start, width, dim, min(ROWS, rows - first), rows, false);
}

// Groups of up to four consecutive rows of a sequence.
struct Group {
    u32 first_row;
    u32 rows;
    u32 position;
    u32 first_page;
};

template <int KIND> __device__ void attend_group(
    const float *q, const u8 *arena, size_t page_bytes, int layer, const u32 *spans, int groups, int heads,
    int kv_heads, int dim, float *out)
{
    Group group = ((const Group *)spans)[blockIdx.x];
    int width = heads * dim, head = blockIdx.y;
    size_t start = (size_t)group.first_row * width + head * dim;
    const u32 *pages = spans + groups * 4 + group.first_page;
    Paged<KIND> source = {arena, page_bytes, {kv_heads, dim}, layer, pages, head / (heads / kv_heads)};
    attend_rows<Paged<KIND>, 4, 8>(source, q + start, out + start, width, dim, group.rows, group.position, true);
}

#define ATTEND(NAME, KIND)                                                                                         \
    extern "C" __global__ void __launch_bounds__(256)                                                              \
        NAME(const float *q, const u8 *arena, u64 page_bytes, int layer, const u32 *spans, int groups, int heads,  \
             int kv_heads, int dim, float *out)                                                                    \
    {                                                                                                              \
        attend_group<KIND>(q, arena, page_bytes, layer, spans, groups, heads, kv_heads, dim, out);                 \
    }

ATTEND(attend_f32, KV_F32)
ATTEND(attend_f16, KV_F16)
ATTEND(attend_q8, KV_Q8)

// Stores rows of keys and values, a warp for each block of 32 numbers of a head.
extern "C" __global__ void kv_append(
    u8 *arena, u64 page_bytes, int kind, int layer, const float *k, const float *v, const u32 *slots, int rows,
    int kv_heads, int dim)
{
    PageLayout layout = {kv_heads, dim};
    int blocks = layout.blocks();
    int index = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (index >= rows * 2 * kv_heads * blocks)
        return;
    int block = index % blocks, head = index / blocks % kv_heads, part = index / blocks / kv_heads % 2;
    int row = index / blocks / kv_heads / 2, d = block * KV_BLOCK + lane;
    const float *from = (part ? v : k) + ((size_t)row * kv_heads + head) * dim;
    u8 *start = arena + slots[row * 2] * page_bytes + (layer * 2 + part) * layout.part(kind);
    size_t at = ((size_t)head * PAGE + slots[row * 2 + 1]);
    float value = d < dim ? from[d] : 0.0f;
    if (kind == KV_F32 && d < dim)
        ((float *)start)[at * dim + d] = value;
    if (kind == KV_F16 && d < dim)
        ((u16 *)start)[at * dim + d] = float_to_half(value);
    if (kind != KV_Q8)
        return;
    u16 scale = float_to_half(warp_largest(value) / 127.0f);
    float factor = half_to_float(scale);
    if (__any_sync(0xffffffff, !is_finite(value) || !is_finite(factor))) {
        scale = 0x7e00;
        factor = 0.0f;
    }
    float q = factor == 0.0f ? 0.0f : rintf(fminf(fmaxf(value / factor, -127.0f), 127.0f));
    if (d < dim)
        ((i8 *)start)[at * dim + d] = (i8)q;
    if (lane == 0)
        ((u16 *)(start + layout.numbers(KV_Q8)))[at * blocks + block] = scale;
}
