/* choose: rows of logits to tokens: the highest logit, or the highest of logit / temperature + Gumbel
 * noise of the position (coin purpose 0, index = id); the lowest id among equals. What a host does with
 * sampling_choose(), without penalties, biases and filters.
 * With them: sample.cu.
 *
 * Blocks meet in an atomic maximum of keys (keys.cuh), which no order changes.
 */
#include "backend/cuda/keys.cuh"

enum { CHOOSE_THREADS = 256, CHOOSE_IDS = 4, /* a thread's: the words of one Philox block */
       CHOOSE_PLAIN = 0, CHOOSE_NOISY = 1, CHOOSE_FLAGS = 2 /* places in a row's scratch */ };

/* Shapes: scratch [n_rows, 3]. A thread a row: nothing found yet, which is id 0 with -inf. Plan: exact.
 * Bound by the launch. Accumulates nothing. Reference: the start of rows_argmax_scalar. */
static __global__ void choose_begin_kernel(const cuda_op_choose op)
{
    const int32_t row = (int32_t)(blockIdx.x * CHOOSE_THREADS + threadIdx.x);
    if (row < op.n_rows) {
        uint64_t *scratch = op.scratch + (size_t)row * CUDA_CHOOSE_SCRATCH;
        scratch[CHOOSE_PLAIN] = scratch[CHOOSE_NOISY] = choose_key(-MATHX_INF, 0);
        scratch[CHOOSE_FLAGS] = 0;
    }
}

/* Shapes: rows of n_vocab logits, scratch [n_rows, 3]. Grid: (pieces of 1024 ids, rows). Block: 256
 * threads of 4 ids, one Philox block each. Reads 4 bytes an id; bound by memory without noise, with noise
 * by its logarithms. Accumulates: maxima of integers. Plan: exact.
 * Reference: rows_argmax_scalar and sampling_draw, through sampling_choose. */
static __global__ void choose_scan_kernel(const cuda_op_choose op)
{
    const int32_t row = (int32_t)blockIdx.y, n_vocab = op.n_vocab;
    const uint32_t first = (blockIdx.x * CHOOSE_THREADS + threadIdx.x) * CHOOSE_IDS;
    const cuda_choose_row how = op.rows[row];
    const float *logits = choose_logits(op.logits, op.from, row, n_vocab);
    const int32_t taken[CUDA_TAKEN] = { choose_taken(op.from, row, 0), choose_taken(op.from, row, 1) };
    const struct philox_block counter = { { first / 4, (uint32_t)how.position, COIN_TARGET, 0 } };
    const struct philox_block coin = how.temperature != 0.0f ? rng_rounds(counter, how.seed) : counter;
    const choose_key_t none = choose_key(-MATHX_INF, 0);
    choose_key_t plain = none, noisy = none, bad = 0;
#pragma unroll
    for (uint32_t i = 0; i < CHOOSE_IDS; i++) {
        const uint32_t id = first + i;
        const bool is_there = id < (uint32_t)n_vocab && (int32_t)id != taken[0] && (int32_t)id != taken[1];
        const float logit = is_there ? logits[id] : -MATHX_INF;
        bad |= logit < MATHX_INF ? 0u : 1u;
        if (logit > -MATHX_INF) {
            const choose_key_t key = choose_key(logit, id);
            plain = key > plain ? key : plain;
        }
        if (how.temperature != 0.0f) {
            const float value = logit / how.temperature + mathx_gumbel(coin.word[i]);
            const choose_key_t key = value > -MATHX_INF ? choose_key(value, id) : none;
            noisy = key > noisy ? key : noisy;
        }
    }
    plain = choose_warp_max(plain);
    noisy = choose_warp_max(noisy);
    bad = choose_warp_max(bad);
    if (cuda_lane() == 0) {
        choose_key_t *scratch = reinterpret_cast<choose_key_t *>(op.scratch) + (size_t)row * CUDA_CHOOSE_SCRATCH;
        atomicMax(scratch + CHOOSE_PLAIN, plain);
        atomicMax(scratch + CHOOSE_NOISY, noisy);
        atomicMax(scratch + CHOOSE_FLAGS, bad);
    }
}

/* Shapes: scratch [n_rows, 3], out [n_rows]. A thread a row. Bound by the launch. Accumulates nothing.
 * Plan: exact. Reference: the checks of sampling_choose. */
static __global__ void choose_end_kernel(const cuda_op_choose op)
{
    const int32_t row = (int32_t)(blockIdx.x * CHOOSE_THREADS + threadIdx.x);
    if (row < op.n_rows) {
        const uint64_t *scratch = op.scratch + (size_t)row * CUDA_CHOOSE_SCRATCH;
        const float temperature = op.rows[row].temperature, highest = choose_key_value(scratch[CHOOSE_PLAIN]);
        const float scaled = temperature == 0.0f ? highest : highest / temperature;
        struct cuda_choice choice = { choose_key_id(scratch[temperature == 0.0f ? CHOOSE_PLAIN : CHOOSE_NOISY]),
                                      CUDA_CHOICE_GOOD };
        if (scratch[CHOOSE_FLAGS] != 0) {
            choice.bad = CUDA_CHOICE_NOT_FINITE;
        } else if (!(highest > -MATHX_INF)) {
            choice.bad = CUDA_CHOICE_NOTHING;
        } else if (!(scaled > -MATHX_INF && scaled < MATHX_INF)) {
            choice.bad = CUDA_CHOICE_OVERFLOW;
        }
        op.out[row] = choice;
    }
}

extern "C" int cuda_choose(const struct cuda_op_choose *op, struct CUstream_st *stream)
{
    if (op->n_vocab < 1) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    const unsigned rows = (unsigned)((op->n_rows + CHOOSE_THREADS - 1) / CHOOSE_THREADS);
    const int32_t piece = CHOOSE_THREADS * CHOOSE_IDS;
    const dim3 grid((unsigned)((op->n_vocab + piece - 1) / piece), (unsigned)op->n_rows);
    CUDA_LAUNCH(choose_begin_kernel, rows, CHOOSE_THREADS, 0, stream, *op);
    CUDA_LAUNCH(choose_scan_kernel, grid, CHOOSE_THREADS, 0, stream, *op);
    CUDA_LAUNCH(choose_end_kernel, rows, CHOOSE_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
