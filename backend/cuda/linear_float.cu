/* linear_float: y = W x of weights in bf16 or f16 on tensor cores, for the native plan. x is rounded once, to the
 * type of the weights; products are exact and add up in fp32.
 *
 * Outputs, segments and warps lie as in linear.cu, so all that differs is how a segment of 256 inputs is summed:
 *
 *     inputs 0..15, 16..31, ..   16 products of one instruction after the other, into the same sums;
 *                                16 outputs and 8 rows each, a warp has 32 outputs
 *
 * and segment sums join by groups, ascending. One shape of product and one order of inputs for any number of
 * rows; rows that a product lacks are copies of the last, and nobody reads what they give. A column of a
 * product does not depend on its neighbours, so a row has the same bits alone as in any pass. How many
 * products a warp has under way (ROWS / 8) orders nothing.
 *
 * Not the CPU's bits: the order within an instruction is the device's.
 */
#include "backend/cuda/linear.cuh"

enum { FLOAT_STEP = 16, FLOAT_GROUP = 8 /* inputs in 16 bytes */, FLOAT_LOADED = 4 /* steps on their way at once */ };

/* The lane's four outputs (cuda_mma_output) and rows lane / 4 of each eight. */
template <int FLOAT_TYPE> struct mma_float {
    enum { TYPE = FLOAT_TYPE };
    const unsigned char *at;
    int32_t segment, n_inputs;

    __device__ __forceinline__ void load(const unsigned char *tile, int32_t segment_idx, int32_t n_in)
    {
        at = tile + (size_t)(segment_idx * (SEGMENT_ELEMS / FLOAT_GROUP)) * CUDA_PLANE_BYTES;
        segment = segment_idx;
        n_inputs = cuda_inputs_here(n_in, segment_idx);
    }
    /* Inputs i .. i + 15 of the outputs; weights past the last input are zero, a group past the last is not
     * there. */
    __device__ __forceinline__ void weights(int32_t i, uint32_t (*w)[MMA_OUTPUTS]) const
    {
        const unsigned char *plane = at + (size_t)(i / FLOAT_GROUP) * CUDA_PLANE_BYTES;
        cuda_mma_load(plane, w[0]);
#pragma unroll
        for (int j = 0; j < MMA_OUTPUTS; j++) {
            w[1][j] = 0;
        }
        if (i + FLOAT_GROUP < n_inputs) {
            cuda_mma_load(plane + CUDA_PLANE_BYTES, w[1]);
        }
    }
    /* Inputs i, i + 1 of a row; what lies past the last may be anything, and counts as zero. */
    __device__ __forceinline__ uint32_t pair(const float *row, int32_t i) const
    {
        if (i + 1 < n_inputs) {
            const float2 both = *reinterpret_cast<const float2 *>(row + i);
            return cuda_round_pair<FLOAT_TYPE>(both.x, both.y);
        }
        return cuda_round_pair<FLOAT_TYPE>(i < n_inputs ? row[i] : 0.0f, 0.0f);
    }
    /* 16 inputs join the sums of all outputs and rows. */
    template <int PANELS>
    __device__ __forceinline__ void step(int32_t i, const uint32_t (*w)[MMA_OUTPUTS], const float *const *row,
                                         float (*acc)[MMA_OUTPUTS / 2][4]) const
    {
        const int of_pair = cuda_lane() % 4 * 2;
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
            const uint32_t b[2] = { pair(row[p], i + of_pair), pair(row[p], i + FLOAT_GROUP + of_pair) };
#pragma unroll
            for (int half = 0; half < MMA_OUTPUTS / 2; half++) {
                const uint32_t a[4] = { w[0][2 * half], w[0][2 * half + 1], w[1][2 * half], w[1][2 * half + 1] };
                cuda_mma_float<FLOAT_TYPE>(a, b, acc[p][half]);
            }
        }
    }
    template <int ROWS>
    __device__ __forceinline__ void sums(const cuda_act &x, int32_t first, int32_t last, SHARED_PTR(float) to) const
    {
        constexpr int PANELS = ROWS / CUDA_PANEL_ROWS;
        const int of_row = cuda_lane() / 4, of_pair = cuda_lane() % 4 * 2;
        float acc[PANELS][MMA_OUTPUTS / 2][4] = {};
        const float *row[PANELS];
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
            const int32_t wanted = first + p * CUDA_PANEL_ROWS + of_row;
            row[p] = x.f32 + (size_t)(wanted < last ? wanted : last) * (size_t)x.f32_stride + segment * SEGMENT_ELEMS;
        }
        for (int32_t first_input = 0; first_input < n_inputs; first_input += FLOAT_LOADED * FLOAT_STEP) {
            uint32_t w[FLOAT_LOADED][2][MMA_OUTPUTS];
#pragma unroll
            for (int s = 0; s < FLOAT_LOADED; s++) {
                if (first_input + s * FLOAT_STEP < n_inputs) {
                    weights(first_input + s * FLOAT_STEP, w[s]);
                }
            }
#pragma unroll
            for (int s = 0; s < FLOAT_LOADED; s++) {
                if (first_input + s * FLOAT_STEP < n_inputs) {
                    step<PANELS>(first_input + s * FLOAT_STEP, w[s], row, acc);
                }
            }
        }
#pragma unroll
        for (int p = 0; p < PANELS; p++) {
#pragma unroll
            for (int i = 0; i < 2 * MMA_OUTPUTS; i++) { /* two rows of each of the four outputs */
                const int j = i / MMA_ROWS, r = p * CUDA_PANEL_ROWS + of_pair + i % MMA_ROWS;
                to[r * CUDA_WARP + cuda_mma_output(j)] = acc[p][j / 2][j % 2 * MMA_ROWS + i % MMA_ROWS];
            }
        }
    }
};

/* Shapes: weights in tiles of 32 outputs (layout.h), x [n_rows, f32_stride], out [n_rows, n_out]. Grid: tiles of
 * all parts. Block: 8 warps; warp = segment, two products of 16 outputs and 8 rows side by side, ROWS rows at
 * a time, of at most 64. Reads each weight once for 32 rows, then from L2; x once a block, rounded there.
 * Bound by memory for few rows. Not measured; 56 (8 rows) to 108 registers on sm_90. Accumulates: fp32, as the
 * instruction does, 16 inputs at a time. Plan: native. Reference: sums in double, within a bound
 * (tests/test_simt_float.c). */
template <int FLOAT_TYPE, int ROWS>
static __global__ void __launch_bounds__(LINEAR_THREADS) linear_native_kernel(const cuda_op_linear op)
{
    SHARED(float, sums, LINEAR_WARPS * ROWS * CUDA_WARP);
    SHARED_DYNAMIC(float, running);
    const linear_place place = linear_find(op);
    linear_tile<mma_float<FLOAT_TYPE>, ROWS>(op.part[place.part], place.tile, op.x, op.n_rows, sums, running);
}

template <int FLOAT_TYPE, int ROWS>
static void native_launch(const cuda_op_linear &op, unsigned n_tiles, struct CUstream_st *stream)
{
    const auto kernel = linear_native_kernel<FLOAT_TYPE, ROWS>;
    const size_t shared_bytes = 2 * (size_t)op.n_rows * CUDA_WARP * sizeof(float);
    CUDA_LAUNCH(kernel, n_tiles, LINEAR_THREADS, shared_bytes, stream, op);
}

template <int FLOAT_TYPE> static cudaError_t native_rows(const cuda_op_linear &op, unsigned n_tiles,
                                                         struct CUstream_st *stream)
{
    if (op.n_rows <= 8) {
        native_launch<FLOAT_TYPE, 8>(op, n_tiles, stream);
    } else if (op.n_rows <= 16) {
        native_launch<FLOAT_TYPE, 16>(op, n_tiles, stream);
    } else {
        native_launch<FLOAT_TYPE, 32>(op, n_tiles, stream);
    }
    return cudaGetLastError();
}

extern "C" int cuda_linear_native(const struct cuda_op_linear *op, struct CUstream_st *stream)
{
    const int type = (int)op->part[0].weight.type;
    unsigned n_tiles = 0;
    if ((type != TENSOR_BF16 && type != TENSOR_F16) || !linear_count_tiles(*op, &n_tiles)) {
        return cudaErrorInvalidValue;
    }
    for (int32_t first = 0; first < op->n_rows; first += CUDA_LINEAR_ROWS) {
        const cuda_op_linear some = linear_from(*op, first);
        const cudaError_t error = type == TENSOR_BF16 ? native_rows<TENSOR_BF16>(some, n_tiles, stream)
                                                      : native_rows<TENSOR_F16>(some, n_tiles, stream);
        if (error != cudaSuccess) {
            return error;
        }
    }
    return cudaSuccess;
}
