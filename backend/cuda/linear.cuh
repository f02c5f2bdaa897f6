/* linear: the block's part of y = W x, for kernels that differ in which weights and rows a block takes.
 * linear.cu draws how outputs, segments and rows lie on lanes, warps and loops.
 */
#ifndef BACKEND_CUDA_LINEAR_CUH
#define BACKEND_CUDA_LINEAR_CUH

#include "backend/cuda/weights_planes.cuh"

enum { LINEAR_WARPS = 8, LINEAR_THREADS = LINEAR_WARPS * CUDA_WARP };

/* Which part and tile a block computes. */
struct linear_place { int32_t part, tile; };

DEVICE_FN linear_place linear_find(const cuda_op_linear &op)
{
    linear_place place = { 0, (int32_t)blockIdx.x };
    while (place.tile >= cuda_n_tiles(op.part[place.part].weight.n_out)) {
        place.tile -= cuda_n_tiles(op.part[place.part].weight.n_out);
        place.part++;
    }
    return place;
}

/* Tiles of all parts; false: parts that are no launch. */
static inline bool linear_count_tiles(const cuda_op_linear &op, unsigned *n_tiles)
{
    if (op.n_parts < 1 || op.n_parts > CUDA_LINEAR_PARTS) {
        return false;
    }
    for (int32_t p = 0; p < op.n_parts; p++) {
        const cuda_weight &weight = op.part[p].weight;
        if (weight.type != op.part[0].weight.type || weight.n_in != op.x.n_cols) {
            return false;
        }
        *n_tiles += (unsigned)cuda_n_tiles(weight.n_out);
    }
    return true;
}

/* The rows from `first` on, as many as a launch takes. */
static inline cuda_op_linear linear_from(const cuda_op_linear &all, int32_t first)
{
    cuda_op_linear op = all;
    const int32_t left = all.n_rows - first;
    op.n_rows = left < CUDA_LINEAR_ROWS ? left : (int32_t)CUDA_LINEAR_ROWS;
    if (op.x.f32 != nullptr) {
        op.x.f32 += (size_t)first * (size_t)op.x.f32_stride;
    }
    if (op.x.q8 != nullptr) {
        op.x.q8 += cuda_act_block(op.x.n_cols, first / CUDA_PANEL_ROWS, 0);
    }
    for (int32_t p = 0; p < op.n_parts; p++) {
        const size_t at = (size_t)first * (size_t)op.part[p].weight.n_out;
        op.part[p].out += at;
        op.part[p].add = op.part[p].add != nullptr ? op.part[p].add + at : nullptr;
    }
    return op;
}

/* The last segment of a group of SUM_GROUPS: group g ends before segment floor((g + 1) n / 8). */
DEVICE_FN bool linear_group_ends(int32_t segment, int32_t n_segments)
{
    const int32_t next = (SUM_GROUPS * (segment + 1) + n_segments - 1) / n_segments;
    return next * n_segments / SUM_GROUPS == segment + 1;
}

/* y = total, + bias, + add, in this order */
DEVICE_FN void linear_store(const cuda_op_linear::cuda_linear_part &part, int32_t row, int32_t out_idx, float y)
{
    if (out_idx < part.weight.n_out) {
        const size_t at = (size_t)row * (size_t)part.weight.n_out + (size_t)out_idx;
        y = part.bias != nullptr ? y + part.bias[out_idx] : y;
        y = part.add != nullptr ? y + part.add[at] : y;
        part.out[at] = y;
    }
}

/* Where group sums go: to the total, which goes to `part`. */
struct linear_whole {
    const cuda_op_linear::cuda_linear_part &part;

    __device__ __forceinline__ const cuda_weight &weight() const { return part.weight; }
    __device__ __forceinline__ void end(int32_t segment, int32_t n_segments, int32_t, int32_t, float *total,
                                        float *group) const
    {
        if (linear_group_ends(segment, n_segments)) {
            *total += *group;
            *group = 0.0f;
        }
    }
    __device__ __forceinline__ void store(int32_t row, int32_t out_idx, float total) const
    {
        linear_store(part, row, out_idx, total);
    }
};

/* Tile `tile` of one matrix times n_rows rows of x, by a block of LINEAR_THREADS, ROWS at a time. sums: LINEAR_WARPS
 * * ROWS * 32 floats; running: 2 * n_rows * 32, totals and then group sums. Both are free again after a
 * barrier. */
template <class Weights, int ROWS, class Sums>
DEVICE_FN void linear_tile_to(const Sums &out, int32_t tile_idx, const cuda_act &x,
                              int32_t n_rows, SHARED_PTR(float) sums /* [warp][row][output] */,
                              SHARED_PTR(float) running /* [n_rows][output], twice */)
{
    const int32_t n_in = out.weight().n_in, n_segments = (n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS;
    const unsigned char *tile =
        out.weight().data + (size_t)tile_idx * cuda_tile_bytes((tensor_type)Weights::TYPE, n_in);
    const int32_t groups = n_rows * CUDA_WARP; /* where group sums begin */
    for (int32_t i = (int32_t)threadIdx.x; i < 2 * groups; i += LINEAR_THREADS) {
        running[i] = 0.0f;
    }
    for (int32_t wave = 0; wave < n_segments; wave += LINEAR_WARPS) {
        const int32_t segment = wave + cuda_warp();
        Weights weights = {};
        if (segment < n_segments) {
            weights.load(tile, segment, n_in);
        }
        for (int32_t first = 0; first < n_rows; first += ROWS) {
            if (segment < n_segments) {
                weights.template sums<ROWS>(x, first, n_rows - 1, sums + cuda_warp() * ROWS * CUDA_WARP);
            }
            __syncthreads();
            for (int32_t i = (int32_t)threadIdx.x; i < ROWS * CUDA_WARP; i += LINEAR_THREADS) {
                const int32_t at = first * CUDA_WARP + i;
                if (at < groups) {
                    float total = running[at], group = running[groups + at];
                    for (int32_t s = wave; s < wave + LINEAR_WARPS && s < n_segments; s++) {
                        group += sums[(s - wave) * ROWS * CUDA_WARP + i];
                        out.end(s, n_segments, at / CUDA_WARP, tile_idx * CUDA_WARP + at % CUDA_WARP, &total, &group);
                    }
                    running[at] = total;
                    running[groups + at] = group;
                }
            }
            __syncthreads();
        }
    }
    for (int32_t at = (int32_t)threadIdx.x; at < groups; at += LINEAR_THREADS) {
        out.store(at / CUDA_WARP, tile_idx * CUDA_WARP + at % CUDA_WARP, running[at]);
    }
}

template <class Weights, int ROWS>
DEVICE_FN void linear_tile(const cuda_op_linear::cuda_linear_part &part, int32_t tile_idx, const cuda_act &x,
                           int32_t n_rows, SHARED_PTR(float) sums, SHARED_PTR(float) running)
{
    linear_tile_to<Weights, ROWS>(linear_whole{ part }, tile_idx, x, n_rows, sums, running);
}

#endif
