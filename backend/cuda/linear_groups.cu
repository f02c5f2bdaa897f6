/* linear_groups: what a rank has of y = W x where a matrix is cut along its inputs: sums of whole groups of
 * segments, each as linear.cu would have it on its way to the total. Ranks exchange them and add them up
 * (ranks.cu). A file of its own, so that the kernels of a whole model stay as they were measured.
 */
#include "backend/cuda/linear.cuh"

/* Group sums leave one by one; there is no total. */
struct linear_own_groups {
    const cuda_op_linear_groups &op;
    size_t group_floats; /* from a group's sums to the next one's: rows of a launch are a part of all rows */

    __device__ __forceinline__ const cuda_weight &weight() const { return op.weight; }
    __device__ __forceinline__ void end(int32_t segment, int32_t, int32_t row, int32_t out_idx, float *,
                                        float *group) const
    {
        int32_t ended = -1;
#pragma unroll
        for (int32_t g = 0; g < SUM_GROUPS; g++) { /* unrolled, so that `begin` stays where arguments are */
            ended = g < op.n_groups && op.begin[g + 1] == segment + 1 ? g : ended;
        }
        if (ended >= 0) {
            if (out_idx < op.weight.n_out) {
                op.out[(size_t)ended * group_floats + (size_t)row * (size_t)op.weight.n_out + (size_t)out_idx] = *group;
            }
            *group = 0.0f;
        }
    }
    __device__ __forceinline__ void store(int32_t, int32_t, float) const {}
};

/* Shapes: a matrix in tiles of 32 outputs (layout.h), x panels of 8 rows or [n_rows, f32_stride], out
 * [n_groups, n_rows, n_out]. Grid: tiles. Block: 8 warps; lane = output, warp = segment, ROWS rows at a time, of
 * at most 64. Reads each weight once, x once a block; bound by memory, not measured. Accumulates: exact int32
 * per 32 inputs, joined by fma in fp32; Q6_K spills unless it may have more registers. Plan: exact. Reference:
 * linear_tile_scalar, through backend_linear with groups. */
template <class Weights, int ROWS>
static __global__ void __launch_bounds__(LINEAR_THREADS, Weights::TYPE == TENSOR_Q6_K ? 1 : 0)
linear_groups_kernel(const cuda_op_linear_groups op, size_t group_floats)
{
    SHARED(float, sums, LINEAR_WARPS * ROWS * CUDA_WARP);
    SHARED_DYNAMIC(float, running);
    linear_tile_to<Weights, ROWS>(linear_own_groups{ op, group_floats }, (int32_t)blockIdx.x, op.x, op.n_rows, sums,
                                  running);
}

template <class Weights, int ROWS>
static void groups_launch(const cuda_op_linear_groups &op, size_t group_floats, struct CUstream_st *stream)
{
    const auto kernel = linear_groups_kernel<Weights, ROWS>;
    const size_t shared_bytes = 2 * (size_t)op.n_rows * CUDA_WARP * sizeof(float);
    CUDA_LAUNCH(kernel, (unsigned)cuda_n_tiles(op.weight.n_out), LINEAR_THREADS, shared_bytes, stream, op, group_floats);
}

/* One row, up to four by Few, more by Many. */
template <class Few, class Many>
static void groups_rows(const cuda_op_linear_groups &op, size_t group_floats, struct CUstream_st *stream)
{
    if (op.n_rows == 1) {
        groups_launch<Few, 1>(op, group_floats, stream);
    } else if (op.n_rows <= 4) {
        groups_launch<Few, 4>(op, group_floats, stream);
    } else {
        groups_launch<Many, CUDA_PANEL_ROWS>(op, group_floats, stream);
    }
}

template <int TYPE>
static void groups_floats(const cuda_op_linear_groups &op, size_t group_floats, struct CUstream_st *stream)
{
    groups_rows<weights_float<TYPE>, weights_float<TYPE>>(op, group_floats, stream);
}

template <int TYPE>
static void groups_planes(const cuda_op_linear_groups &op, size_t group_floats, struct CUstream_st *stream)
{
    groups_rows<weights_planes<TYPE>, mma_planes<TYPE>>(op, group_floats, stream);
}

static cudaError_t groups_some_rows(const cuda_op_linear_groups &op, size_t group_floats, struct CUstream_st *stream)
{
    switch ((int)op.weight.type) {
    case TENSOR_F32: groups_floats<TENSOR_F32>(op, group_floats, stream); break;
    case TENSOR_F16: groups_floats<TENSOR_F16>(op, group_floats, stream); break;
    case TENSOR_BF16: groups_floats<TENSOR_BF16>(op, group_floats, stream); break;
    case TENSOR_Q8_0: groups_rows<weights_q8_0, mma_small<2, 0>>(op, group_floats, stream); break;
    case TENSOR_Q4_0: groups_rows<weights_q4_0, mma_small<1, 8>>(op, group_floats, stream); break;
    case TENSOR_Q4_K: groups_rows<weights_q4_k, mma_q4_k>(op, group_floats, stream); break;
    case TENSOR_Q6_K: groups_rows<weights_q6_k, mma_q6_k>(op, group_floats, stream); break;
    case TENSOR_Q4_1: groups_planes<TENSOR_Q4_1>(op, group_floats, stream); break;
    case TENSOR_Q5_0: groups_planes<TENSOR_Q5_0>(op, group_floats, stream); break;
    case TENSOR_Q5_1: groups_planes<TENSOR_Q5_1>(op, group_floats, stream); break;
    case TENSOR_Q2_K: groups_planes<TENSOR_Q2_K>(op, group_floats, stream); break;
    case TENSOR_Q3_K: groups_planes<TENSOR_Q3_K>(op, group_floats, stream); break;
    case TENSOR_Q5_K: groups_planes<TENSOR_Q5_K>(op, group_floats, stream); break;
    default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

/* Groups follow each other, none is empty, and they are all of the matrix. */
static bool groups_are_sound(const cuda_op_linear_groups &op)
{
    const int32_t n_segments = (op.weight.n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS;
    if (op.n_groups < 1 || op.n_groups > SUM_GROUPS || op.begin[0] != 0 || op.begin[op.n_groups] != n_segments) {
        return false;
    }
    for (int32_t g = 0; g < op.n_groups; g++) {
        if (op.begin[g] >= op.begin[g + 1]) {
            return false;
        }
    }
    return true;
}

/* The rows from `first` on. */
static cuda_op_linear_groups groups_from(const cuda_op_linear_groups &all, int32_t first)
{
    cuda_op_linear_groups op = all;
    const int32_t left = all.n_rows - first;
    op.n_rows = left < CUDA_LINEAR_ROWS ? left : (int32_t)CUDA_LINEAR_ROWS;
    op.out += (size_t)first * (size_t)op.weight.n_out;
    if (op.x.f32 != nullptr) {
        op.x.f32 += (size_t)first * (size_t)op.x.f32_stride;
    }
    if (op.x.q8 != nullptr) {
        op.x.q8 += cuda_act_block(op.x.n_cols, first / CUDA_PANEL_ROWS, 0);
    }
    return op;
}

extern "C" int cuda_linear_groups(const struct cuda_op_linear_groups *op, struct CUstream_st *stream)
{
    if (!groups_are_sound(*op) || op->weight.n_in != op->x.n_cols) {
        return cudaErrorInvalidValue;
    }
    for (int32_t first = 0; first < op->n_rows; first += CUDA_LINEAR_ROWS) {
        const size_t group_floats = (size_t)op->n_rows * (size_t)op->weight.n_out;
        const cudaError_t error = groups_some_rows(groups_from(*op, first), group_floats, stream);
        if (error != cudaSuccess) {
            return error;
        }
    }
    return cudaSuccess;
}
