/* widen: what a product in bf16 reads, and what it leaves: weights of any type and rows of activations as rows of
 * bf16, biases added after. For the fast plan (gemm.c) alone.
 */
#include "backend/cuda/weights_planes.cuh"

enum { WIDEN_THREADS = 256, WIDEN_WARPS = WIDEN_THREADS / CUDA_WARP, WIDEN_EACH = 8 /* elements: 16 bytes */ };

/* Elements i .. i + 7, those past n as zeros. */
template <class Element> DEVICE_FN uint4 widen_eight(int32_t i, int32_t n, const Element &element)
{
    uint32_t words[WIDEN_EACH / 2];
#pragma unroll
    for (int j = 0; j < WIDEN_EACH / 2; j++) {
        const int32_t at = i + 2 * j;
        words[j] = cuda_round_pair<TENSOR_BF16>(at < n ? element(at) : 0.0f, at + 1 < n ? element(at + 1) : 0.0f);
    }
    return { words[0], words[1], words[2], words[3] };
}

DEVICE_FN void widen_store(uint16_t *row, int32_t i, const uint4 &eight) { *reinterpret_cast<uint4 *>(row + i) = eight; }

/* Shapes: a matrix in tiles of 32 outputs, out [n_rows, widened columns]. Grid: (segments of 256 inputs, tiles).
 * Block: 8 warps, of four outputs each; a lane has eight inputs and writes 16 bytes of 512 in a row. Reads the
 * matrix once (bytes of one output lie apart, its neighbours' come from L1), writes 2 bytes an element; bound
 * by memory or by taking codes apart, not measured. Accumulates nothing. Plan: fast. Reference: tensor_row_to_f32,
 * then to bf16. */
template <class Weights> static __global__ void __launch_bounds__(WIDEN_THREADS) widen_rows_kernel(const cuda_op_widen op)
{
    const int32_t n_in = op.weight.n_in, first = (int32_t)blockIdx.y * CUDA_WARP;
    const int32_t i = (int32_t)blockIdx.x * SEGMENT_ELEMS + cuda_lane() * WIDEN_EACH;
    const unsigned char *tile = op.weight.data + (size_t)((op.first_out + first) / CUDA_WARP) *
                                                     cuda_tile_bytes((tensor_type)Weights::TYPE, n_in);
    if (i >= n_in) {
        return;
    }
    for (int32_t out = cuda_warp(); out < CUDA_WARP && first + out < op.n_rows; out += WIDEN_WARPS) {
        uint16_t *row = op.out + (size_t)(first + out) * (size_t)cuda_widened_cols(n_in);
        widen_store(row, i, widen_eight(i, n_in, [&](int32_t at) { return Weights::element(tile, n_in, out, at); }));
    }
}

template <class Weights> static void widen_launch(const cuda_op_widen &op, struct CUstream_st *stream)
{
    const auto kernel = widen_rows_kernel<Weights>;
    const dim3 grid((unsigned)((op.weight.n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS), (unsigned)cuda_n_tiles(op.n_rows));
    CUDA_LAUNCH(kernel, grid, WIDEN_THREADS, 0, stream, op);
}

extern "C" int cuda_widen(const struct cuda_op_widen *op, struct CUstream_st *stream)
{
    if (op->first_out % CUDA_WARP != 0 || op->first_out < 0 || op->n_rows < 1 ||
        op->n_rows > op->weight.n_out - op->first_out) {
        return cudaErrorInvalidValue;
    }
    switch ((int)op->weight.type) {
    case TENSOR_F32: widen_launch<weights_float<TENSOR_F32>>(*op, stream); break;
    case TENSOR_F16: widen_launch<weights_float<TENSOR_F16>>(*op, stream); break;
    case TENSOR_BF16: widen_launch<weights_float<TENSOR_BF16>>(*op, stream); break;
    case TENSOR_Q8_0: widen_launch<weights_q8_0>(*op, stream); break;
    case TENSOR_Q4_0: widen_launch<weights_q4_0>(*op, stream); break;
    case TENSOR_Q4_K: widen_launch<weights_q4_k>(*op, stream); break;
    case TENSOR_Q6_K: widen_launch<weights_q6_k>(*op, stream); break;
    case TENSOR_Q4_1: widen_launch<weights_planes<TENSOR_Q4_1>>(*op, stream); break;
    case TENSOR_Q5_0: widen_launch<weights_planes<TENSOR_Q5_0>>(*op, stream); break;
    case TENSOR_Q5_1: widen_launch<weights_planes<TENSOR_Q5_1>>(*op, stream); break;
    case TENSOR_Q2_K: widen_launch<weights_planes<TENSOR_Q2_K>>(*op, stream); break;
    case TENSOR_Q3_K: widen_launch<weights_planes<TENSOR_Q3_K>>(*op, stream); break;
    case TENSOR_Q5_K: widen_launch<weights_planes<TENSOR_Q5_K>>(*op, stream); break;
    default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

/* ---- activations ---- */

/* Shapes: x [n_rows, f32_stride], out [n_rows, widened columns]. Grid: (rows, pieces of 2048 columns). Block: 256
 * threads of eight columns. Reads 4 bytes an element, writes 2; bound by memory. Plan: fast. Reference: rounding to
 * bf16, to nearest even. */
static __global__ void __launch_bounds__(WIDEN_THREADS) round_rows_kernel(const cuda_op_round op)
{
    const int32_t row = (int32_t)blockIdx.x, n_cols = op.x.n_cols;
    const int32_t i = (int32_t)(blockIdx.y * WIDEN_THREADS + threadIdx.x) * WIDEN_EACH;
    const float *x = op.x.f32 + (size_t)row * (size_t)op.x.f32_stride;
    if (i < n_cols) {
        uint16_t *to = op.out + (size_t)row * (size_t)cuda_widened_cols(n_cols);
        widen_store(to, i, widen_eight(i, n_cols, [&](int32_t at) { return x[at]; }));
    }
}

extern "C" int cuda_round(const struct cuda_op_round *op, struct CUstream_st *stream)
{
    if (!cuda_act_is_sound(op->x) || op->x.f32 == nullptr) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows > 0) {
        const int32_t piece = WIDEN_THREADS * WIDEN_EACH;
        const dim3 grid((unsigned)op->n_rows, (unsigned)((op->x.n_cols + piece - 1) / piece));
        CUDA_LAUNCH(round_rows_kernel, grid, WIDEN_THREADS, 0, stream, *op);
    }
    return op->n_rows > 0 ? cudaGetLastError() : cudaSuccess;
}

/* ---- biases ---- */

/* Shapes: x [n_rows, n_cols], bias [n_cols]. Grid: (rows, pieces of 256 columns). Block: 256 columns, one a thread.
 * Reads 8 bytes an element, writes 4; bound by memory. Plan: fast. Reference: x + bias. */
static __global__ void __launch_bounds__(WIDEN_THREADS) bias_rows_kernel(const cuda_op_bias op)
{
    const int32_t i = (int32_t)(blockIdx.y * WIDEN_THREADS + threadIdx.x);
    if (i < op.n_cols) {
        float *x = op.x + (size_t)blockIdx.x * (size_t)op.n_cols + (size_t)i;
        *x = *x + op.bias[i];
    }
}

extern "C" int cuda_bias(const struct cuda_op_bias *op, struct CUstream_st *stream)
{
    if (op->n_rows <= 0 || op->n_cols <= 0) {
        return cudaSuccess;
    }
    const dim3 grid((unsigned)op->n_rows, (unsigned)((op->n_cols + WIDEN_THREADS - 1) / WIDEN_THREADS));
    CUDA_LAUNCH(bias_rows_kernel, grid, WIDEN_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
