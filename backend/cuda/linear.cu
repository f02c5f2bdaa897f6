/* linear: y = W x in the canonical order, weights streamed once for up to 64 rows.
 *
 * Outputs are lanes, segments of 256 inputs are warps, so chains are never split and a block still has
 * eight of them under way for each output:
 *
 *     warp 0   segment 0, 8, 16 ..  of 32 outputs ─┐  sums[warp][row][output]
 *     warp 1   segment 1, 9, 17 ..                 ├─► folded in ascending order: segment sums to the
 *     ...                                          │   group's, groups to the total
 *     warp 7   segment 7, 15, 23 .. ───────────────┘
 *
 * Dots of quantised blocks come from dp4a for few rows, from the tensor cores' integer products for more:
 * exact integers, so the same bits.
 */
#include "backend/cuda/linear.cuh"

/* Shapes: weights in tiles of 32 outputs (layout.h), x panels of 8 rows or [n_rows, f32_stride], out
 * [n_rows, n_out]. Grid: tiles of all parts. Block: 8 warps; lane = output, warp = segment, ROWS rows at
 * a time, of at most 64 (with matrix products a lane has the sums of four outputs and two rows).
 * Reads each weight once (float types: once for 16 rows, then from L2), x once a block. Bound by memory for
 * few rows, for more by converting and joining the dots of each 32 inputs. Neither was measured. Blocks on a
 * multiprocessor are the compiler's choice (61 to 166 registers on sm_90, `make cuda-resources`), which
 * spilled once where it is overruled. At 113 registers two blocks share one, with 16 warps of 17 loads of 512
 * bytes under way: 139 KB, of the 36 KB that latency times bandwidth asks for.
 * Accumulates: exact int32 per 32 inputs, joined by fma in fp32. Plan: exact.
 * Reference: linear_tile_scalar, through backend_linear. */
template <class Weights, int ROWS>
static __global__ void __launch_bounds__(LINEAR_THREADS, Weights::TYPE == TENSOR_Q4_K && ROWS == 2 ? 3 : 0)
linear_stream_kernel(const cuda_op_linear op)
{
    SHARED(float, sums, LINEAR_WARPS * ROWS * CUDA_WARP);
    SHARED_DYNAMIC(float, running);
    const linear_place place = linear_find(op);
    linear_tile<Weights, ROWS>(op.part[place.part], place.tile, op.x, op.n_rows, sums, running);
}

template <class Weights, int ROWS> static void linear_launch(const cuda_op_linear &op, unsigned n_tiles,
                                                             struct CUstream_st *stream)
{
    const auto kernel = linear_stream_kernel<Weights, ROWS>;
    const size_t shared_bytes = 2 * (size_t)op.n_rows * CUDA_WARP * sizeof(float);
    CUDA_LAUNCH(kernel, n_tiles, LINEAR_THREADS, shared_bytes, stream, op);
}

/* Up to four rows by Few, more by Many, MOST at a time. */
template <class Few, class Many, int MOST>
static void linear_rows(const cuda_op_linear &op, unsigned n_tiles, struct CUstream_st *stream)
{
    if (op.n_rows == 1) {
        linear_launch<Few, 1>(op, n_tiles, stream);
    } else if (op.n_rows == 2) {
        linear_launch<Few, 2>(op, n_tiles, stream);
    } else if (op.n_rows <= 4) {
        linear_launch<Few, 4>(op, n_tiles, stream);
    } else if (op.n_rows <= 8) {
        linear_launch<Many, 8>(op, n_tiles, stream);
    } else {
        linear_launch<Many, MOST>(op, n_tiles, stream);
    }
}

template <int TYPE> static void linear_floats(const cuda_op_linear &op, unsigned n_tiles, struct CUstream_st *stream)
{
    linear_rows<weights_float<TYPE>, weights_float<TYPE>, 16>(op, n_tiles, stream);
}

template <int TYPE> static void linear_planes(const cuda_op_linear &op, unsigned n_tiles, struct CUstream_st *stream)
{
    linear_rows<weights_planes<TYPE>, mma_planes<TYPE>, 8>(op, n_tiles, stream);
}

static cudaError_t linear_some_rows(const cuda_op_linear &op, unsigned n_tiles, struct CUstream_st *stream)
{
    switch ((int)op.part[0].weight.type) {
    case TENSOR_F32: linear_floats<TENSOR_F32>(op, n_tiles, stream); break;
    case TENSOR_F16: linear_floats<TENSOR_F16>(op, n_tiles, stream); break;
    case TENSOR_BF16: linear_floats<TENSOR_BF16>(op, n_tiles, stream); break;
    case TENSOR_Q8_0: linear_rows<weights_q8_0, mma_small<2, 0>, 8>(op, n_tiles, stream); break;
    case TENSOR_Q4_0: linear_rows<weights_q4_0, mma_small<1, 8>, 8>(op, n_tiles, stream); break;
    case TENSOR_Q4_K: linear_rows<weights_q4_k, mma_q4_k, 8>(op, n_tiles, stream); break;
    case TENSOR_Q6_K: linear_rows<weights_q6_k, mma_q6_k, 8>(op, n_tiles, stream); break;
    case TENSOR_Q4_1: linear_planes<TENSOR_Q4_1>(op, n_tiles, stream); break;
    case TENSOR_Q5_0: linear_planes<TENSOR_Q5_0>(op, n_tiles, stream); break;
    case TENSOR_Q5_1: linear_planes<TENSOR_Q5_1>(op, n_tiles, stream); break;
    case TENSOR_Q2_K: linear_planes<TENSOR_Q2_K>(op, n_tiles, stream); break;
    case TENSOR_Q3_K: linear_planes<TENSOR_Q3_K>(op, n_tiles, stream); break;
    case TENSOR_Q5_K: linear_planes<TENSOR_Q5_K>(op, n_tiles, stream); break;
    default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

extern "C" int cuda_linear(const struct cuda_op_linear *op, struct CUstream_st *stream)
{
    unsigned n_tiles = 0;
    if (!linear_count_tiles(*op, &n_tiles)) {
        return cudaErrorInvalidValue;
    }
    for (int32_t first = 0; first < op->n_rows; first += CUDA_LINEAR_ROWS) {
        const cudaError_t error = linear_some_rows(linear_from(*op, first), n_tiles, stream);
        if (error != cudaSuccess) {
            return error;
        }
    }
    return cudaSuccess;
}
