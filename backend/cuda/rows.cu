/* rows: embedding, norm, quantisation, SwiGLU, addition, copies. The definitions: backend/cpu/rows_scalar.c. */
#include "backend/cuda/weights_planes.cuh"

enum { ROWS_THREADS = 256, ROWS_WARPS = ROWS_THREADS / CUDA_WARP };

static unsigned rows_blocks(int64_t n, int32_t each) { return (unsigned)((n + each - 1) / each); }

/* ---- embedding ---- */

/* Shapes: table in tiles, token [n_rows], out [n_rows, n_in]. Grid: (pieces of 256 columns, rows). Block:
 * 256 columns, one a thread. Reads the rows' weights, 512 bytes apart, writes 4 bytes an element; bound by
 * memory latency. Accumulates nothing. Plan: exact. Reference: tensor_row_to_f32, through backend_embed. */
template <class Weights> static __global__ void embed_gather_kernel(const cuda_op_embed op)
{
    const int32_t n_in = op.table.n_in, row = (int32_t)blockIdx.y;
    const int32_t i = (int32_t)(blockIdx.x * ROWS_THREADS + threadIdx.x), out_idx = op.token[row];
    if (i < n_in) {
        const unsigned char *tile =
            op.table.data + (size_t)(out_idx / CUDA_WARP) * cuda_tile_bytes((tensor_type)Weights::TYPE, n_in);
        op.out[(size_t)row * (size_t)n_in + (size_t)i] = Weights::element(tile, n_in, out_idx % CUDA_WARP, i);
    }
}

template <class Weights> static void embed_launch(const cuda_op_embed &op, struct CUstream_st *stream)
{
    const auto kernel = embed_gather_kernel<Weights>;
    const dim3 grid(rows_blocks(op.table.n_in, ROWS_THREADS), (unsigned)op.n_rows);
    CUDA_LAUNCH(kernel, grid, ROWS_THREADS, 0, stream, op);
}

extern "C" int cuda_embed(const struct cuda_op_embed *op, struct CUstream_st *stream)
{
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    switch ((int)op->table.type) {
    case TENSOR_F32: embed_launch<weights_float<TENSOR_F32>>(*op, stream); break;
    case TENSOR_F16: embed_launch<weights_float<TENSOR_F16>>(*op, stream); break;
    case TENSOR_BF16: embed_launch<weights_float<TENSOR_BF16>>(*op, stream); break;
    case TENSOR_Q8_0: embed_launch<weights_q8_0>(*op, stream); break;
    case TENSOR_Q4_0: embed_launch<weights_q4_0>(*op, stream); break;
    case TENSOR_Q4_K: embed_launch<weights_q4_k>(*op, stream); break;
    case TENSOR_Q6_K: embed_launch<weights_q6_k>(*op, stream); break;
    case TENSOR_Q4_1: embed_launch<weights_planes<TENSOR_Q4_1>>(*op, stream); break;
    case TENSOR_Q5_0: embed_launch<weights_planes<TENSOR_Q5_0>>(*op, stream); break;
    case TENSOR_Q5_1: embed_launch<weights_planes<TENSOR_Q5_1>>(*op, stream); break;
    case TENSOR_Q2_K: embed_launch<weights_planes<TENSOR_Q2_K>>(*op, stream); break;
    case TENSOR_Q3_K: embed_launch<weights_planes<TENSOR_Q3_K>>(*op, stream); break;
    case TENSOR_Q5_K: embed_launch<weights_planes<TENSOR_Q5_K>>(*op, stream); break;
    default: return cudaErrorInvalidValue;
    }
    return cudaGetLastError();
}

/* ---- RMSNorm ---- */

/* Shapes: x [*, n_cols], weight [n_cols], out rows as floats and panels. Grid: rows. Block: 256 threads;
 * the first 64 hold a partial sum each, then a thread a column. Reads the row twice, the second time from
 * L1, writes it once or twice; bound by latency of the 64 chains. Accumulates: fma in fp32, 64 partials
 * and a tree. Plan: exact. Reference: rows_norm_scalar, through backend_norm. */
static __global__ void norm_row_kernel(const cuda_op_norm op)
{
    SHARED(float, partial, CUDA_PARTIALS);
    const int32_t row = (int32_t)blockIdx.x, n_cols = op.out.n_cols;
    const float *x = op.x + (size_t)(op.row_idx != nullptr ? op.row_idx[row] : row) * (size_t)n_cols;
    const float factor = cuda_norm_factor(cuda_square_sum(x, n_cols, partial), n_cols, op.eps);
    for (int32_t i = (int32_t)threadIdx.x; i < cuda_padded(n_cols); i += ROWS_THREADS) {
        cuda_put(op.out, row, i, i < n_cols ? x[i] * factor * op.weight[i] : 0.0f);
    }
}

extern "C" int cuda_norm(const struct cuda_op_norm *op, struct CUstream_st *stream)
{
    if (!cuda_act_is_sound(op->out)) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows > 0) {
        CUDA_LAUNCH(norm_row_kernel, (unsigned)op->n_rows, ROWS_THREADS, 0, stream, *op);
    }
    return op->n_rows > 0 ? cudaGetLastError() : cudaSuccess;
}

/* ---- quantisation ---- */

/* Shapes: act.f32 [n_rows, f32_stride] into panels. Grid: (8 blocks of 32 columns, rows). Block: 8 warps;
 * a warp is a block of 32 columns. Reads 4 bytes an element, writes 1.4; bound by memory. Accumulates:
 * integers. Plan: exact. Reference: rows_quantize_scalar, through backend_quantize. */
static __global__ void quantize_block_kernel(const cuda_op_quantize op)
{
    const int32_t b = (int32_t)blockIdx.x * ROWS_WARPS + cuda_warp(), row = (int32_t)blockIdx.y;
    if (b < op.act.n_cols / QUANT_BLOCK) {
        const float *x = op.act.f32 + (size_t)row * (size_t)op.act.f32_stride + (size_t)b * QUANT_BLOCK;
        cuda_quantize_block(x[cuda_lane()], row, b, op.act);
    }
}

extern "C" int cuda_quantize(const struct cuda_op_quantize *op, struct CUstream_st *stream)
{
    if (!cuda_act_is_sound(op->act) || op->act.f32 == nullptr || op->act.q8 == nullptr) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const dim3 grid(rows_blocks(op->act.n_cols / QUANT_BLOCK, ROWS_WARPS), (unsigned)op->n_rows);
    CUDA_LAUNCH(quantize_block_kernel, grid, ROWS_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- SwiGLU ---- */

/* Shapes: gate, up [n_rows, n_cols], out rows as floats and panels. Grid: (pieces of 256 columns, rows).
 * Block: 256 columns, one a thread. Reads 8 bytes an element, writes 1.4 or 4; bound by memory.
 * Accumulates nothing. Plan: exact. Reference: rows_swiglu_scalar, through backend_swiglu. */
static __global__ void swiglu_row_kernel(const cuda_op_swiglu op)
{
    const int32_t i = (int32_t)(blockIdx.x * ROWS_THREADS + threadIdx.x), row = (int32_t)blockIdx.y;
    if (i < cuda_padded(op.out.n_cols)) {
        const size_t at = (size_t)row * (size_t)op.out.n_cols + (size_t)i;
        cuda_put(op.out, row, i, i < op.out.n_cols ? mathx_silu(op.gate[at]) * op.up[at] : 0.0f);
    }
}

extern "C" int cuda_swiglu(const struct cuda_op_swiglu *op, struct CUstream_st *stream)
{
    if (!cuda_act_is_sound(op->out)) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const dim3 grid(rows_blocks(op->out.n_cols, ROWS_THREADS), (unsigned)op->n_rows);
    CUDA_LAUNCH(swiglu_row_kernel, grid, ROWS_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- residual ---- */

/* Shapes: x, y [n]. Grid: pieces of 256 elements. Block: 256, one a thread. Reads 8 bytes an element,
 * writes 4; bound by memory. Accumulates nothing. Plan: exact. Reference: the `add` of op_linear, x + y. */
static __global__ void add_rows_kernel(const cuda_op_add op)
{
    const int64_t i = (int64_t)blockIdx.x * ROWS_THREADS + threadIdx.x;
    if (i < op.n) {
        op.x[i] = op.x[i] + op.y[i];
    }
}

extern "C" int cuda_add(const struct cuda_op_add *op, struct CUstream_st *stream)
{
    if (op->n <= 0) {
        return cudaSuccess;
    }
    CUDA_LAUNCH(add_rows_kernel, rows_blocks(op->n, ROWS_THREADS), ROWS_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- copies ---- */

/* Shapes: x [*, n_cols], out [n_rows, n_cols]. Grid: (pieces of 256 columns, rows). Block: 256 columns, one a
 * thread. Reads and writes 4 bytes an element; bound by memory. Accumulates nothing. Plan: exact.
 * Reference: memcpy, as the taps of model/forward.c. */
static __global__ void rows_copy_kernel(const cuda_op_rows_copy op)
{
    const int32_t i = (int32_t)(blockIdx.x * ROWS_THREADS + threadIdx.x), row = (int32_t)blockIdx.y;
    if (i < op.n_cols) {
        const size_t from = (size_t)(op.row_idx != nullptr ? op.row_idx[row] : row);
        op.out[(size_t)row * (size_t)op.n_cols + (size_t)i] = op.x[from * (size_t)op.n_cols + (size_t)i];
    }
}

extern "C" int cuda_rows_copy(const struct cuda_op_rows_copy *op, struct CUstream_st *stream)
{
    if (op->n_rows <= 0 || op->n_cols <= 0) {
        return cudaSuccess;
    }
    const dim3 grid(rows_blocks(op->n_cols, ROWS_THREADS), (unsigned)op->n_rows);
    CUDA_LAUNCH(rows_copy_kernel, grid, ROWS_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
