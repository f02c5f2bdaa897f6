/* attention: RoPE and the KV store, attention over pages and paths, page copies. K and V lie as on the CPU
 * (shapes.h): K of 16 slots as [head_dim][16], V as [slot][head_dim].
 *
 * A row's segments of 256 positions are blocks of their own; what they find is merged in ascending order by
 * a second kernel. The heads of a KV head share a block, up to eight, and so K and V are read once for them.
 * Positions of a branch's path are positions like any other: each thread asks the view for its slot.
 *
 * Not here: rows of one sequence sharing a block; they read the same pages through the L2 cache.
 */
#include "backend/cuda/device.cuh"

enum { ATTENTION_THREADS = SEGMENT_ELEMS, ATTENTION_WARPS = ATTENTION_THREADS / CUDA_WARP,
       ATTENTION_MAX_HEADS = 8, ATTENTION_HEAD_DIM_CAP = 256, ROPE_THREADS = CUDA_PARTIALS };

static bool attention_store_is_sound(const struct kv_store &store)
{
    return store.head_dim > 0 && store.head_dim <= ATTENTION_HEAD_DIM_CAP && store.head_dim % 16 == 0 &&
           store.n_kv_heads > 0 && store.page_slots > 0 && store.page_slots % KV_BLOCK_SLOTS == 0;
}

/* Bytes before a slot's block of a head, and its place within the block. */
struct slot_place { size_t offset; int32_t in_block; };

DEVICE_FN slot_place attention_find(const struct kv_store &store, int32_t layer, int32_t kv_head, int32_t slot)
{
    const int32_t in_page = slot % store.page_slots;
    return { kv_store_block_offset(&store, layer, (uint32_t)(slot / store.page_slots), kv_head,
                                   in_page / KV_BLOCK_SLOTS), in_page % KV_BLOCK_SLOTS };
}

/* ---- elements of K and V as they are stored ---- */
struct kv_f16 {
    typedef uint16_t element;
    static __device__ __forceinline__ float load(const element *at) { return cuda_half(*at); }
    static __device__ __forceinline__ void store(element *at, float x) { *at = mathx_f32_to_f16(x); }
};
struct kv_f32 {
    typedef float element;
    static __device__ __forceinline__ float load(const element *at) { return *at; }
    static __device__ __forceinline__ void store(element *at, float x) { *at = x; }
};

/* ---- RoPE and store ---- */

/* The norm, if there is one, and the rotation of one head, in place. The whole block comes. */
DEVICE_FN void rope_turn(const cuda_op_rope_store &op, float *x, const float *norm, int32_t position,
                         SHARED_PTR(float) partial)
{
    const int32_t head_dim = op.store.head_dim, half = op.rope_dims / 2;
    if (norm != nullptr) {
        const float factor = cuda_norm_factor(cuda_square_sum(x, head_dim, partial), head_dim, op.norm_eps);
        for (int32_t d = (int32_t)threadIdx.x; d < head_dim; d += ROPE_THREADS) {
            x[d] = x[d] * factor * norm[d];
        }
        __syncthreads();
    }
    const float *cosines = op.cos + (size_t)position * (size_t)half, *sines = op.sin + (size_t)position * (size_t)half;
    for (int32_t i = (int32_t)threadIdx.x; i < half; i += ROPE_THREADS) {
        const float x0 = x[i], x1 = x[i + half];
        x[i] = mathx_fma(x0, cosines[i], -(x1 * sines[i]));
        x[i + half] = mathx_fma(x0, sines[i], x1 * cosines[i]);
    }
    __syncthreads();
}

/* Shapes: q [n_rows, n_heads, head_dim], k and v [n_rows, n_kv_heads, head_dim], tables [positions,
 * rope_dims / 2]. Grid: (query heads and then KV heads, rows). Block: 64 threads, partial sums of the norm
 * and then elements. Reads and writes each element a few times in L1, stores 4 bytes a pair of K and V in
 * f16; bound by latency. Accumulates: fma in fp32, 64 partials and a tree. Plan: exact.
 * Reference: backend_rope_store (rows_norm_scalar, rows_rope_scalar, rows_to_f16_scalar). */
template <class Kv> static __global__ void rope_store_kernel(const cuda_op_rope_store op)
{
    SHARED(float, partial, CUDA_PARTIALS);
    const int32_t head_dim = op.store.head_dim, n_kv_heads = op.store.n_kv_heads;
    const int32_t row = (int32_t)blockIdx.y, kv_head = (int32_t)blockIdx.x - op.n_heads;
    const size_t kv_at = ((size_t)row * (size_t)n_kv_heads + (size_t)(kv_head < 0 ? 0 : kv_head)) * (size_t)head_dim;
    const size_t q_at = ((size_t)row * (size_t)op.n_heads + blockIdx.x) * (size_t)head_dim;
    float *x = kv_head < 0 ? op.q + q_at : op.k + kv_at;
    if (op.position[row] >= 0) {
        rope_turn(op, x, kv_head < 0 ? op.q_norm : op.k_norm, op.position[row], partial);
    }
    if (kv_head < 0 || op.slot[row] < 0) {
        return;
    }
    const slot_place place = attention_find(op.store, op.layer, kv_head, op.slot[row]);
    typename Kv::element *k = reinterpret_cast<typename Kv::element *>(op.store.k + place.offset);
    typename Kv::element *v = reinterpret_cast<typename Kv::element *>(op.store.v + place.offset);
    for (int32_t d = (int32_t)threadIdx.x; d < head_dim; d += ROPE_THREADS) {
        Kv::store(k + d * KV_BLOCK_SLOTS + place.in_block, x[d]);
        Kv::store(v + place.in_block * head_dim + d, op.v[kv_at + (size_t)d]);
    }
}

extern "C" int cuda_rope_store(const struct cuda_op_rope_store *op, struct CUstream_st *stream)
{
    if (!attention_store_is_sound(op->store) || op->rope_dims % 2 != 0 || op->rope_dims > op->store.head_dim) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const auto kernel = op->store.type == KV_F16 ? rope_store_kernel<kv_f16> : rope_store_kernel<kv_f32>;
    const dim3 grid((unsigned)(op->n_heads + op->store.n_kv_heads), (unsigned)op->n_rows);
    CUDA_LAUNCH(kernel, grid, ROPE_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- attention ---- */

/* What a block finds goes to scratch: [n_rows, n_heads, n_segments] of head_dim outputs, the maximum and the
 * denominator. */
DEVICE_FN float *attention_scratch_at(const cuda_op_attention &op, int32_t row, int32_t head, int32_t segment)
{
    const size_t at = ((size_t)row * (size_t)op.n_heads + (size_t)head) * (size_t)op.n_segments + (size_t)segment;
    return op.scratch + at * (size_t)(op.store.head_dim + 2);
}

DEVICE_FN int32_t attention_first(const cuda_op_attention &op, int32_t last)
{
    return op.window > 0 && last >= op.window ? last - op.window + 1 : 0;
}

/* What a block of the first kernel computes: heads head .. head + n_heads - 1 of one KV head, positions
 * [begin, end) of a segment. */
struct attention_part { int32_t row, kv_head, head, n_heads, segment, begin, end; };

/* end 0: the row does not see the segment, or the heads are another rank's. SOME: not all heads are here, which
 * takes registers that a whole model's kernels have none left for (launch bounds of their own: none spills). */
template <int HEADS, bool SOME> DEVICE_FN attention_part attention_part_of(const cuda_op_attention &op)
{
    const int32_t n_group = op.n_group, chunks = (n_group + HEADS - 1) / HEADS;
    const int32_t chunk = (int32_t)blockIdx.y % chunks, left = n_group - chunk * HEADS;
    attention_part part = { (int32_t)blockIdx.z, (int32_t)blockIdx.y / chunks, 0, left < HEADS ? left : HEADS,
                            (int32_t)blockIdx.x, 0, 0 };
    part.head = part.kv_head * n_group + chunk * HEADS;
    if constexpr (SOME) {
        const int32_t first = part.head - op.head_skip, end = first + part.n_heads;
        part.head = first > 0 ? first : 0;
        part.n_heads = (end < op.n_heads ? end : op.n_heads) - part.head;
        if (part.n_heads <= 0) {
            return part;
        }
    }
    const int32_t last = op.position[part.row], base = part.segment * SEGMENT_ELEMS;
    const int32_t first = attention_first(op, last);
    if (last >= base && first < base + SEGMENT_ELEMS) {
        part.begin = first > base ? first - base : 0;
        part.end = last - base < SEGMENT_ELEMS ? last - base + 1 : (int32_t)SEGMENT_ELEMS;
    }
    return part;
}

/* Scores of this thread's position: a chain over head_dim for each head. */
template <class Kv, int HEADS>
DEVICE_FN void attention_scores(const cuda_op_attention &op, const typename Kv::element *k, SHARED_PTR(float) q,
                                float *score)
{
    for (int32_t d = 0; d < op.store.head_dim; d++) {
        const float element = Kv::load(k + d * KV_BLOCK_SLOTS);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            score[h] = mathx_fma(q[h * ATTENTION_HEAD_DIM_CAP + d], element, score[h]);
        }
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        score[h] = score[h] * op.scale;
    }
}

/* The highest score of the block, which no order changes; a NaN never is it. Every thread comes. */
template <int HEADS> DEVICE_FN void attention_max(const float *score, SHARED_PTR(float) warp_max, float *max)
{
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float here = score[h] > -MATHX_INF ? score[h] : -MATHX_INF;
        for (int step = CUDA_WARP / 2; step > 0; step /= 2) {
            const float other = __shfl_xor_sync(WHOLE_WARP, here, step);
            here = other > here ? other : here;
        }
        if (cuda_lane() == 0) {
            warp_max[h * ATTENTION_WARPS + cuda_warp()] = here;
        }
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        max[h] = -MATHX_INF;
        for (int w = 0; w < ATTENTION_WARPS; w++) {
            const float other = warp_max[h * ATTENTION_WARPS + w];
            max[h] = other > max[h] ? other : max[h];
        }
    }
}

/* Chains of outputs and denominators in position order: a thread is a dimension of some of the heads, and
 * the threads of dimension 0 sum the denominators of theirs. */
template <class Kv, int HEADS>
DEVICE_FN void attention_values(const cuda_op_attention &op, const attention_part &part,
                                SHARED_PTR(unsigned long long) v_at, SHARED_PTR(float) prob)
{
    const int32_t head_dim = op.store.head_dim, n_sub = ATTENTION_THREADS / head_dim;
    const int32_t d = (int32_t)threadIdx.x % head_dim, sub = (int32_t)threadIdx.x / head_dim;
    float acc[HEADS] = {}, sum[HEADS] = {};
    if (sub >= n_sub || sub >= HEADS) {
        return;
    }
    for (int32_t p = part.begin; p < part.end; p++) {
        const float v = Kv::load(reinterpret_cast<const typename Kv::element *>(op.store.v + v_at[p]) + d);
#pragma unroll
        for (int j = 0; j < HEADS; j++) {
            const int32_t h = sub + j * n_sub;
            if (h < HEADS) {
                acc[j] = mathx_fma(prob[h * SEGMENT_ELEMS + p], v, acc[j]);
                sum[j] = d == 0 ? sum[j] + prob[h * SEGMENT_ELEMS + p] : 0.0f;
            }
        }
    }
#pragma unroll
    for (int j = 0; j < HEADS; j++) {
        const int32_t h = sub + j * n_sub;
        if (h < part.n_heads) {
            float *out = attention_scratch_at(op, part.row, part.head + h, part.segment);
            out[d] = acc[j];
            if (d == 0) {
                out[head_dim + 1] = sum[j];
            }
        }
    }
}

/* Shapes: q [n_rows, n_heads, head_dim], K and V in pages, scratch [n_rows, n_heads, n_segments, head_dim
 * + 2]. Grid: (segments, chunks of heads of each KV head, rows). Block: 256 threads; first a thread is a
 * position, then a dimension. Reads K and V of a segment once for HEADS heads: 4 head_dim bytes a position
 * in f16; bound by memory. Accumulates: fma chains in fp32. Plan: exact.
 * Reference: attention_row_scalar, through backend_attention. */
template <class Kv, int HEADS, bool SOME>
static __global__ void __launch_bounds__(ATTENTION_THREADS, SOME ? 1 : HEADS == 2 ? 6 : 0)
attention_segment_kernel(const cuda_op_attention op)
{
    SHARED(float, q, HEADS * ATTENTION_HEAD_DIM_CAP);
    SHARED(float, prob, HEADS * SEGMENT_ELEMS);
    SHARED(float, warp_max, HEADS * ATTENTION_WARPS);
    SHARED(unsigned long long, v_at, SEGMENT_ELEMS); /* bytes before each position's V */
    const attention_part part = attention_part_of<HEADS, SOME>(op);
    if (part.end == 0) {
        return;
    }
    const int32_t head_dim = op.store.head_dim, p = (int32_t)threadIdx.x;
    const float *q_here = op.q + ((size_t)part.row * (size_t)op.n_heads + (size_t)part.head) * (size_t)head_dim;
    for (int32_t i = p; i < HEADS * head_dim; i += ATTENTION_THREADS) {
        q[i / head_dim * ATTENTION_HEAD_DIM_CAP + i % head_dim] = i < part.n_heads * head_dim ? q_here[i] : 0.0f;
    }
    __syncthreads();
    float score[HEADS] = {}, max[HEADS];
    const bool visible = p >= part.begin && p < part.end;
    if (visible) {
        const struct kv_view *view = &op.views[op.seq_of_row[part.row]];
        const int32_t slot = kv_view_slot(view, op.store.page_slots, part.segment * SEGMENT_ELEMS + p);
        const slot_place place = attention_find(op.store, op.layer, part.kv_head, slot);
        const typename Kv::element *k =
            reinterpret_cast<const typename Kv::element *>(op.store.k + place.offset) + place.in_block;
        v_at[p] = place.offset + (size_t)place.in_block * (size_t)head_dim * sizeof(typename Kv::element);
        attention_scores<Kv, HEADS>(op, k, q, score);
    } else {
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            score[h] = -MATHX_INF;
        }
    }
    attention_max<HEADS>(score, warp_max, max);
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        prob[h * SEGMENT_ELEMS + p] = visible ? mathx_exp(score[h] - max[h]) : 0.0f;
        if (p == 0 && h < part.n_heads) {
            attention_scratch_at(op, part.row, part.head + h, part.segment)[head_dim] = max[h];
        }
    }
    __syncthreads();
    attention_values<Kv, HEADS>(op, part, v_at, prob);
}

/* Shapes: scratch as above, out [n_rows, n_heads, head_dim]. Grid: (heads, rows). Block: a thread a
 * dimension. Reads 4 bytes a dimension and segment; bound by latency. Accumulates: fma in fp32, segments
 * ascending. Plan: exact. Reference: attention_row_scalar's merge, through backend_attention. */
static __global__ void attention_merge_kernel(const cuda_op_attention op)
{
    const int32_t head = (int32_t)blockIdx.x, row = (int32_t)blockIdx.y, d = (int32_t)threadIdx.x;
    const int32_t head_dim = op.store.head_dim, last = op.position[row];
    float out = 0.0f;
    if (last >= 0) {
        const int32_t first_segment = attention_first(op, last) / SEGMENT_ELEMS;
        const float *here = attention_scratch_at(op, row, head, first_segment);
        float max = here[head_dim], sum = here[head_dim + 1];
        out = here[d];
        for (int32_t s = first_segment + 1; s <= last / SEGMENT_ELEMS; s++) {
            here = attention_scratch_at(op, row, head, s);
            const float max_here = here[head_dim], both = max_here > max ? max_here : max;
            const float a = mathx_exp(max - both), b = mathx_exp(max_here - both);
            max = both;
            sum = mathx_fma(here[head_dim + 1], b, sum * a);
            out = mathx_fma(here[d], b, out * a);
        }
        out = out / sum;
    }
    op.out[((size_t)row * (size_t)op.n_heads + (size_t)head) * (size_t)head_dim + (size_t)d] = out;
}

extern "C" size_t cuda_attention_scratch_floats(int32_t n_rows, int32_t n_heads, int32_t head_dim,
                                                int32_t n_segments)
{
    return (size_t)n_rows * (size_t)n_heads * (size_t)n_segments * (size_t)(head_dim + 2);
}

template <class Kv, int HEADS> static void attention_launch(const cuda_op_attention &op, struct CUstream_st *stream)
{
    const bool all = op.n_heads == op.n_group * op.store.n_kv_heads;
    const auto kernel = all ? attention_segment_kernel<Kv, HEADS, false> : attention_segment_kernel<Kv, HEADS, true>;
    const int32_t chunks = (op.n_group + HEADS - 1) / HEADS;
    const dim3 grid((unsigned)op.n_segments, (unsigned)(op.store.n_kv_heads * chunks), (unsigned)op.n_rows);
    CUDA_LAUNCH(kernel, grid, ATTENTION_THREADS, 0, stream, op);
}

template <class Kv> static void attention_heads(const cuda_op_attention &op, struct CUstream_st *stream)
{
    if (op.n_group == 1) {
        attention_launch<Kv, 1>(op, stream);
    } else if (op.n_group == 2) {
        attention_launch<Kv, 2>(op, stream);
    } else if (op.n_group <= 4) {
        attention_launch<Kv, 4>(op, stream);
    } else {
        attention_launch<Kv, ATTENTION_MAX_HEADS>(op, stream);
    }
}

/* Every head has its KV head in the store. */
static bool attention_heads_are_sound(const cuda_op_attention &op)
{
    const int32_t n_kv_heads = op.store.n_kv_heads;
    return op.n_heads > 0 && (op.n_group > 0 ? op.head_skip >= 0 && op.head_skip < op.n_group * n_kv_heads &&
                                                   op.n_heads <= op.n_group * n_kv_heads - op.head_skip
                                             : op.n_heads % n_kv_heads == 0 && op.head_skip == 0);
}

extern "C" int cuda_attention(const struct cuda_op_attention *op, struct CUstream_st *stream)
{
    if (!attention_store_is_sound(op->store) || !attention_heads_are_sound(*op) || op->n_segments < 1) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    cuda_op_attention job = *op;
    job.n_group = op->n_group > 0 ? op->n_group : op->n_heads / op->store.n_kv_heads;
    if (op->store.type == KV_F16) {
        attention_heads<kv_f16>(job, stream);
    } else {
        attention_heads<kv_f32>(job, stream);
    }
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) {
        return error;
    }
    const dim3 grid((unsigned)op->n_heads, (unsigned)op->n_rows);
    CUDA_LAUNCH(attention_merge_kernel, grid, (unsigned)op->store.head_dim, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- page copy ---- */

enum { COPY_THREADS = 256 };

/* Shapes: a page of K and of V, all layers. Grid: heads of all layers. Block: 256 threads, 16 bytes each at
 * a time. Reads and writes the page's bytes; bound by memory. Accumulates nothing. Plan: exact.
 * Reference: backend_page_copy. */
static __global__ void page_copy_kernel(const cuda_op_page_copy op)
{
    const int32_t layer = (int32_t)blockIdx.x / op.store.n_kv_heads, head = (int32_t)blockIdx.x % op.store.n_kv_heads;
    const size_t from = kv_store_block_offset(&op.store, layer, op.src, head, 0);
    const size_t to = kv_store_block_offset(&op.store, layer, op.dst, head, 0);
    const size_t bytes = (size_t)op.store.page_slots * (size_t)op.store.head_dim * (op.store.type == KV_F16 ? 2 : 4);
    for (size_t i = threadIdx.x * (size_t)CUDA_LOAD_BYTES; i < bytes; i += COPY_THREADS * (size_t)CUDA_LOAD_BYTES) {
        *reinterpret_cast<uint4 *>(op.store.k + to + i) = *reinterpret_cast<const uint4 *>(op.store.k + from + i);
        *reinterpret_cast<uint4 *>(op.store.v + to + i) = *reinterpret_cast<const uint4 *>(op.store.v + from + i);
    }
}

extern "C" int cuda_page_copy(const struct cuda_op_page_copy *op, struct CUstream_st *stream)
{
    const uint32_t n_pages = (uint32_t)op->store.n_pages;
    if (!attention_store_is_sound(op->store) || op->src == op->dst || op->src >= n_pages || op->dst >= n_pages) {
        return cudaErrorInvalidValue;
    }
    CUDA_LAUNCH(page_copy_kernel, (unsigned)(op->store.n_layers * op->store.n_kv_heads), COPY_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
