/* rank: the likeliest ids of a row, highest first: of logit / temperature + the noise of the position (coin
 * purpose 0, index = id), or of the logits at temperature 0; the lowest id among equals. What drafting ahead
 * forks on: with the noise known, the candidates of a recovery token are nearly certain.
 */
#include "backend/cuda/select.cuh"

enum { RANK_THREADS = 256, RANK_IDS = 4 /* a thread's: the words of one Philox block */ };

/* Shapes: logits and scratch [n_rows, n_vocab]. Grid: (pieces of 1024 ids, rows). Block: 256 threads of 4 ids,
 * one Philox block each. Reads and writes 4 bytes an id; bound by the noise's logarithms. Accumulates nothing.
 * Plan: exact. Reference: logit / temperature + rng_coin_word's mathx_gumbel, as sampling_draw has it. */
static __global__ void rank_noise_kernel(const cuda_op_rank op)
{
    const int32_t row = (int32_t)blockIdx.y;
    const uint32_t first = (blockIdx.x * RANK_THREADS + threadIdx.x) * RANK_IDS;
    const cuda_rank_row how = op.rows[row];
    const float *logits = choose_logits(op.logits, op.from, row, op.n_vocab);
    float *value = op.scratch + (size_t)row * (size_t)op.n_vocab;
    const struct philox_block counter = { { first / RANK_IDS, (uint32_t)how.position, COIN_TARGET, 0 } };
    const struct philox_block coin = how.temperature != 0.0f ? rng_rounds(counter, how.seed) : counter;
#pragma unroll
    for (uint32_t i = 0; i < RANK_IDS; i++) {
        if (first + i < (uint32_t)op.n_vocab) {
            const float logit = logits[first + i];
            value[first + i] =
                how.temperature != 0.0f ? logit / how.temperature + mathx_gumbel(coin.word[i]) : logit;
        }
    }
}

struct rank_values {
    const float *value;
    int32_t excluded;
    __device__ __forceinline__ bool operator()(int32_t i, choose_key_t *key, choose_key_t *weight) const
    {
        *key = choose_key(value[i], (uint32_t)i);
        *weight = 1;
        return i != excluded && value[i] > -MATHX_INF;
    }
};

/* Shapes: scratch [n_rows, n_vocab], id [n_rows, id_stride]. Grid: rows. Block: 1024 threads. Reads the row
 * three to six times, from L2, 4 bytes an id each; bound by what one multiprocessor loads. Accumulates:
 * integers. Plan: exact. Reference: ids sorted by (value, then lower id). */
static __global__ void __launch_bounds__(SELECT_THREADS, 1) rank_row_kernel(const cuda_op_rank op)
{
    SELECT_ROOM(room);
    const int32_t row = (int32_t)blockIdx.x;
    const cuda_rank_row how = op.rows[row];
    const rank_values values = { op.scratch + (size_t)row * (size_t)op.n_vocab, how.excluded };
    int32_t *id = op.id + (size_t)row * (size_t)op.id_stride;
    const int32_t n = how.n_wanted < op.id_stride ? how.n_wanted : op.id_stride;
    for (int32_t i = (int32_t)threadIdx.x; i < op.id_stride; i += SELECT_THREADS) {
        id[i] = -1;
    }
    if (n < 1) {
        return;
    }
    const choose_key_t lowest = select_lowest(room, values, op.n_vocab, (choose_key_t)n);
    const int32_t place = select_take(room, values, op.n_vocab, lowest, n);
    if (place >= 0) {
        id[place] = choose_key_id(select_bucket(room, (int32_t)threadIdx.x));
    }
}

extern "C" int cuda_rank(const struct cuda_op_rank *op, struct CUstream_st *stream)
{
    if (op->n_vocab < 1 || op->n_vocab > SELECT_MAX_ID || op->id_stride < 1 || op->id_stride > CUDA_RANK_CAP) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const int32_t piece = RANK_THREADS * RANK_IDS;
    const dim3 grid((unsigned)((op->n_vocab + piece - 1) / piece), (unsigned)op->n_rows);
    if (op->logits != nullptr) {
        CUDA_LAUNCH(rank_noise_kernel, grid, RANK_THREADS, 0, stream, *op);
    }
    CUDA_LAUNCH(rank_row_kernel, (unsigned)op->n_rows, SELECT_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
