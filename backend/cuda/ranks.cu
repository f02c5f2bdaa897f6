/* ranks: what brings together what several ranks hold of rows. The definitions: backend/cpu/ops_ranks.c. */
#include "backend/cuda/device.cuh"

enum { RANKS_THREADS = 256 };

static unsigned ranks_blocks(int64_t n) { return (unsigned)((n + RANKS_THREADS - 1) / RANKS_THREADS); }

/* ---- fold ---- */

/* Shapes: sums [n_groups, n], x [n], n = n_rows * n_cols. Grid: pieces of 256 elements. Block: 256, one a thread.
 * Reads 4 bytes an element and group and 4 of x, writes 4; bound by memory. Accumulates: groups ascending from
 * +0, then x, in fp32. Plan: exact. Reference: fold_chunk, through backend_fold. */
static __global__ void fold_groups_kernel(const cuda_op_fold op)
{
    const int64_t n = (int64_t)op.n_rows * op.n_cols, i = (int64_t)blockIdx.x * RANKS_THREADS + threadIdx.x;
    if (i < n) {
        float total = 0.0f;
        for (int32_t group = 0; group < op.n_groups; group++) {
            total += op.sums[(int64_t)group * n + i];
        }
        op.x[i] = total + op.x[i];
    }
}

extern "C" int cuda_fold(const struct cuda_op_fold *op, struct CUstream_st *stream)
{
    if (op->n_groups < 0 || op->n_groups > SUM_GROUPS) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0 || op->n_cols <= 0) {
        return cudaSuccess;
    }
    CUDA_LAUNCH(fold_groups_kernel, ranks_blocks((int64_t)op->n_rows * op->n_cols), RANKS_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- columns ---- */

/* Shapes: parts of rank r [n_rows, its columns], out and add [n_rows, all columns]. Grid: (pieces of 256 columns,
 * rows). Block: 256 columns, one a thread. Reads 4 or 8 bytes an element, writes 4; bound by memory. Accumulates
 * nothing. Plan: exact. Reference: columns_chunk, through backend_columns. */
static __global__ void columns_row_kernel(const cuda_op_columns op)
{
    const int32_t n_cols = op.first[op.n_ranks], row = (int32_t)blockIdx.y;
    const int32_t i = (int32_t)(blockIdx.x * RANKS_THREADS + threadIdx.x);
    if (i < n_cols) {
        int32_t rank = 0;
        while (i >= op.first[rank + 1]) {
            rank++;
        }
        const int64_t first = op.first[rank], n = op.first[rank + 1] - first;
        const float value = op.parts[op.n_rows * first + row * n + (i - first)];
        const int64_t at = (int64_t)row * n_cols + i;
        op.out[at] = op.add != nullptr ? value + op.add[at] : value;
    }
}

static bool columns_are_sound(const cuda_op_columns &op)
{
    bool sound = op.n_ranks >= 1 && op.n_ranks <= CUDA_MAX_RANKS && op.first[0] == 0;
    for (int32_t rank = 0; sound && rank < op.n_ranks; rank++) {
        sound = op.first[rank] <= op.first[rank + 1];
    }
    return sound;
}

extern "C" int cuda_columns(const struct cuda_op_columns *op, struct CUstream_st *stream)
{
    if (!columns_are_sound(*op)) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0 || op->first[op->n_ranks] == 0) {
        return cudaSuccess;
    }
    const dim3 grid(ranks_blocks(op->first[op->n_ranks]), (unsigned)op->n_rows);
    CUDA_LAUNCH(columns_row_kernel, grid, RANKS_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

/* ---- pick ---- */

/* Shapes: x [parts, n_rows, n_cols], part [n_rows], out [n_rows, n_cols]. Grid: (pieces of 256 columns, rows).
 * Block: 256 columns, one a thread. Reads and writes 4 bytes an element; bound by memory. Accumulates nothing.
 * Plan: exact. Reference: pick_chunk, through backend_pick. */
static __global__ void pick_rows_kernel(const cuda_op_pick op)
{
    const int32_t i = (int32_t)(blockIdx.x * RANKS_THREADS + threadIdx.x), row = (int32_t)blockIdx.y;
    if (i < op.n_cols) {
        const int64_t from = (int64_t)op.part[row] * op.n_rows + row;
        op.out[(int64_t)row * op.n_cols + i] = op.x[from * op.n_cols + i];
    }
}

extern "C" int cuda_pick(const struct cuda_op_pick *op, struct CUstream_st *stream)
{
    if (op->n_rows <= 0 || op->n_cols <= 0) {
        return cudaSuccess;
    }
    const dim3 grid(ranks_blocks(op->n_cols), (unsigned)op->n_rows);
    CUDA_LAUNCH(pick_rows_kernel, grid, RANKS_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
