/* hint: what a draft says of the tokens it has chosen, and rows of a cut head spread over all ids, so that the
 * kernels that choose see one kind of row.
 *
 *     logits  |  piece 0  |  piece 1  | ...     a block each: 64 partials and a tree, as a row's sum
 *                  sum    +    sum    + ...     one thread, ascending: draft/choose.c sums as much at a time
 */
#include "backend/cuda/device.cuh"

enum { HINT_THREADS = 256, SPREAD_THREADS = 256 };

/* ---- rows of a cut head ---- */

/* Shapes: out [n_rows, n_vocab]. Grid: (pieces of 256 ids, rows). A thread an id. Writes 4 bytes an id; bound by
 * memory. Accumulates nothing. Plan: exact. Reference: chooser_full_row. */
static __global__ void spread_clear_kernel(const cuda_op_spread op)
{
    const int32_t id = (int32_t)(blockIdx.x * SPREAD_THREADS + threadIdx.x);
    if (id < op.n_vocab) {
        op.out[(size_t)blockIdx.y * (size_t)op.n_vocab + (size_t)id] = -MATHX_INF;
    }
}

/* Shapes: rows of n_kept logits, id [n_kept], out [n_rows, n_vocab]. Grid: (pieces of 256 logits, rows). A
 * thread a logit. Reads and writes 4 bytes each, and reads the id; bound by memory. Accumulates nothing. Plan:
 * exact. Reference: chooser_full_row. */
static __global__ void spread_kernel(const cuda_op_spread op)
{
    const int32_t i = (int32_t)(blockIdx.x * SPREAD_THREADS + threadIdx.x), row = (int32_t)blockIdx.y;
    if (i < op.n_kept) {
        const int32_t from = op.from.idx != nullptr ? op.from.idx[row] : row;
        const int32_t stride = op.from.stride > 0 ? op.from.stride : op.n_kept;
        const float logit = op.logits[(size_t)from * (size_t)stride + (size_t)i];
        op.out[(size_t)row * (size_t)op.n_vocab + (size_t)op.id[i]] = logit;
    }
}

extern "C" int cuda_spread(const struct cuda_op_spread *op, struct CUstream_st *stream)
{
    if (op->n_kept < 1 || op->n_kept > op->n_vocab) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const dim3 all((unsigned)((op->n_vocab + SPREAD_THREADS - 1) / SPREAD_THREADS), (unsigned)op->n_rows);
    const dim3 kept((unsigned)((op->n_kept + SPREAD_THREADS - 1) / SPREAD_THREADS), (unsigned)op->n_rows);
    CUDA_LAUNCH(spread_clear_kernel, all, SPREAD_THREADS, 0, stream, *op);
    CUDA_LAUNCH(spread_kernel, kept, SPREAD_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- hints ---- */

/* Of a row that cannot be used there is no token, and of a small vocabulary no sibling; nobody reads their shares. */
DEVICE_FN float hint_logit(const cuda_hint_row &row, int token)
{
    return *row.id[token] >= 0 ? row.full[*row.id[token]] : 0.0f;
}

/* Shapes: rows of n_logits, scratch [n_rows, pieces]. Grid: (pieces, rows). Block: 256 threads make the terms of
 * a piece, 64 run their chains, out of shared memory. Reads 4 bytes a logit; bound by exponentials. Accumulates:
 * 64 partials of 32 terms, a tree. Plan: exact. Reference: backend_exp_sum. */
static __global__ void __launch_bounds__(HINT_THREADS) hint_piece_kernel(const cuda_op_hint op)
{
    SHARED(float, tile, CUDA_HINT_PIECE);
    SHARED(float, partial, CUDA_PARTIALS);
    const cuda_hint_row row = op.rows[blockIdx.y];
    const float base = hint_logit(row, 0);
    const int32_t begin = (int32_t)blockIdx.x * CUDA_HINT_PIECE, left = op.n_logits - begin;
    for (int32_t i = (int32_t)threadIdx.x; i < CUDA_HINT_PIECE; i += HINT_THREADS) {
        tile[i] = i < left ? mathx_exp(row.logits[begin + i] - base) : 0.0f;
    }
    __syncthreads();
    if (threadIdx.x < CUDA_PARTIALS) {
        float sum = 0.0f;
        for (int32_t i = (int32_t)threadIdx.x; i < CUDA_HINT_PIECE; i += CUDA_PARTIALS) {
            sum += tile[i];
        }
        partial[threadIdx.x] = sum;
    }
    cuda_add_partials(partial);
    if (threadIdx.x == 0) {
        op.scratch[(size_t)blockIdx.y * gridDim.x + blockIdx.x] = partial[0];
    }
}

/* Shapes: scratch [n_rows, pieces], out [n_rows]. A thread a row. Bound by latency: one load a piece, 63 of a
 * vocabulary of 128 k. Accumulates: fp32, ascending. Plan: exact. Reference: exp_sum in draft/choose.c. */
static __global__ void hint_end_kernel(const cuda_op_hint op)
{
    const int32_t i = (int32_t)(blockIdx.x * HINT_THREADS + threadIdx.x);
    const int32_t n_pieces = (op.n_logits + CUDA_HINT_PIECE - 1) / CUDA_HINT_PIECE;
    if (i >= op.n_rows) {
        return;
    }
    const cuda_hint_row row = op.rows[i];
    float sum = 0.0f;
    for (int32_t piece = 0; piece < n_pieces; piece++) {
        sum += op.scratch[(size_t)i * (size_t)n_pieces + (size_t)piece];
    }
    struct cuda_hints hints = { { 1.0f / sum } };
    for (int t = 1; t < CUDA_HINT_TOKENS; t++) {
        hints.share[t] = row.id[t] != nullptr ? mathx_exp(hint_logit(row, t) - hint_logit(row, 0)) / sum : 0.0f;
    }
    op.out[i] = hints;
}

extern "C" int cuda_hint(const struct cuda_op_hint *op, struct CUstream_st *stream)
{
    if (op->n_logits < 1) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const dim3 pieces((unsigned)cuda_hint_pieces(op->n_logits), (unsigned)op->n_rows);
    const unsigned rows = (unsigned)((op->n_rows + HINT_THREADS - 1) / HINT_THREADS);
    CUDA_LAUNCH(hint_piece_kernel, pieces, HINT_THREADS, 0, stream, *op);
    CUDA_LAUNCH(hint_end_kernel, rows, HINT_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
