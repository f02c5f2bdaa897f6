/* sample: a row of logits to a token with all that a request may ask for: penalties, biases, temperature,
 * top-k, top-p, min-p, log probabilities. What sampling_choose() does; plain rows are choose.cu's, faster.
 *
 *     logits ─► value: penalties of the tokens before, bias ─► / temperature ─► kept? ─► + noise ─► highest
 *                                                              top-k, top-p, min-p
 *
 * Nothing is moved together: whether an id is kept follows from its own value and three borders, the lowest
 * key of top-k, the lowest key of top-p, the probability of min-p. Each border is one question to the whole
 * row (select.cuh). A block has a row to itself, so the rows of a pass take the time of one.
 *
 * Not here: choices of the rejection rule, whose residual draws stay with the host.
 */
#include "backend/cuda/select.cuh"

static constexpr float SAMPLE_NOISE_LIMIT = 23.0f; /* noise of the word 0 is 22.874 */
static constexpr double SAMPLE_ONE = 1099511627776.0; /* probability 1 in integers: 2^40 */
enum { SAMPLE_IDS = 4 /* of one Philox block */ };

/* One row on its way. Arrays are global memory; what was dropped has exp -1. */
struct sample_row {
    cuda_sampling how;
    const float *logits;
    float *value;  /* adjusted, then divided by the temperature */
    float *exp;    /* of value - max; before that, counts of the penalties */
    int32_t n_vocab;
    int32_t taken[CUDA_TAKEN];
};

/* The highest value above -inf and its id, the lowest among equals; NaN and +inf are noted. */
struct sample_best { choose_key_t key; bool bad; };

DEVICE_FN choose_key_t sample_nothing(void) { return choose_key(-MATHX_INF, 0); }

DEVICE_FN sample_best sample_find_best(const select_room &room, const float *value, int32_t n)
{
    choose_key_t best = sample_nothing(), bad = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += SELECT_THREADS) {
        const float x = value[i];
        bad |= x < MATHX_INF ? 0u : 1u;
        const choose_key_t key = x > -MATHX_INF ? choose_key(x, (uint32_t)i) : 0;
        best = key > best ? key : best;
    }
    best = select_max(room, best);
    return { best, select_max(room, bad) != 0 };
}

DEVICE_FN uint32_t sample_verdict(const sample_best &best)
{
    return best.bad                              ? CUDA_CHOICE_NOT_FINITE
           : !(choose_key_value(best.key) > -MATHX_INF) ? CUDA_CHOICE_NOTHING
                                                        : CUDA_CHOICE_GOOD;
}

/* ---- penalties and bias ---- */

DEVICE_FN float sample_penalised(const cuda_sampling &how, float value, int32_t count)
{
    value = value > 0.0f ? value / how.repetition_penalty : value * how.repetition_penalty;
    value = value - how.frequency_penalty * (float)count;
    return value - how.presence_penalty;
}

DEVICE_FN bool sample_has_penalties(const cuda_sampling &how)
{
    return (how.repetition_penalty != 1.0f || how.presence_penalty != 0.0f || how.frequency_penalty != 0.0f) &&
           how.penalty_last_n != 0;
}

DEVICE_FN void sample_adjust(const sample_row &row)
{
    const cuda_sampling &how = row.how;
    const bool penalties = sample_has_penalties(how);
    int32_t *count = reinterpret_cast<int32_t *>(row.exp);
    for (int32_t i = (int32_t)threadIdx.x; i < row.n_vocab; i += SELECT_THREADS) {
        count[i] = 0;
    }
    __syncthreads();
    const int32_t last_n = how.penalty_last_n;
    const int32_t first = last_n >= 0 && last_n < how.n_history ? how.n_history - last_n : 0;
    for (int32_t i = first + (int32_t)threadIdx.x; penalties && i < how.n_history; i += SELECT_THREADS) {
        const int32_t id = how.history[i];
        if (id >= 0 && id < row.n_vocab) { /* a draft's vocabulary may be smaller */
            atomicAdd(&count[id], 1);
        }
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < row.n_vocab; i += SELECT_THREADS) {
        const float logit = row.logits[i];
        row.value[i] = count[i] > 0 ? sample_penalised(how, logit, count[i]) : logit;
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < how.n_biases; i += SELECT_THREADS) {
        const struct cuda_bias bias = how.biases[i];
        if (bias.id >= 0 && bias.id < row.n_vocab) {
            row.value[bias.id] = row.value[bias.id] + bias.bias;
        }
    }
    __syncthreads();
    for (int32_t i = 0; i < CUDA_TAKEN; i++) {
        if (threadIdx.x == 0 && row.taken[i] >= 0 && row.taken[i] < row.n_vocab) {
            row.value[row.taken[i]] = -MATHX_INF; /* as with a bias of that */
        }
    }
    __syncthreads();
}

/* ---- filters ---- */

/* What an id must have to be kept. */
struct sample_borders { choose_key_t top_k, top_p; float sum, min_p; bool has_exp; };

DEVICE_FN bool sample_keeps(const sample_row &row, const sample_borders &borders, int32_t i)
{
    if (choose_key(row.value[i], (uint32_t)i) < borders.top_k) {
        return false;
    }
    if (!borders.has_exp) {
        return true;
    }
    const float exp = row.exp[i];
    return !(borders.top_p > 0 && choose_key(exp / borders.sum, (uint32_t)i) < borders.top_p) &&
           !(borders.min_p > 0.0f && exp < borders.min_p);
}

struct sample_by_value { /* each weighs 1 */
    const float *value;
    __device__ __forceinline__ bool operator()(int32_t i, choose_key_t *key, choose_key_t *weight) const
    {
        *key = choose_key(value[i], (uint32_t)i);
        *weight = 1;
        return true;
    }
};

struct sample_by_prob { /* weighs its probability in integers */
    const float *exp;
    float sum;
    __device__ __forceinline__ bool operator()(int32_t i, choose_key_t *key, choose_key_t *weight) const
    {
        const float prob = exp[i] / sum;
        *key = choose_key(prob, (uint32_t)i);
        *weight = exp[i] >= 0.0f ? (choose_key_t)__double2ll_rn((double)prob * SAMPLE_ONE) : 0;
        return *weight > 0; /* what weighs nothing is no border */
    }
};

struct sample_exp_term { /* of a row of exponentials: what was dropped counts +0 */
    const float *exp;
    __device__ __forceinline__ float operator()(int32_t i) const { return exp[i] >= 0.0f ? exp[i] : 0.0f; }
};

DEVICE_FN sample_borders sample_filter(const select_room &room, const sample_row &row, float max)
{
    const cuda_sampling &how = row.how;
    sample_borders borders = { 0, 0, 1.0f, how.min_p, how.top_p < 1.0f || how.min_p > 0.0f };
    if (how.top_k > 0 && how.top_k < row.n_vocab) {
        borders.top_k = select_lowest(room, sample_by_value{ row.value }, row.n_vocab, (choose_key_t)how.top_k);
    }
    if (!borders.has_exp) {
        return borders;
    }
    for (int32_t i = (int32_t)threadIdx.x; i < row.n_vocab; i += SELECT_THREADS) {
        const float value = row.value[i];
        row.exp[i] = choose_key(value, (uint32_t)i) < borders.top_k ? -1.0f : mathx_exp(value - max);
    }
    __syncthreads();
    if (how.top_p < 1.0f) {
        const choose_key_t wanted = (choose_key_t)__double2ll_rn((double)how.top_p * SAMPLE_ONE);
        borders.sum = select_row_sum(room, row.n_vocab, sample_exp_term{ row.exp });
        borders.top_p = select_lowest(room, sample_by_prob{ row.exp, borders.sum }, row.n_vocab,
                                      wanted > 0 ? wanted : 1); /* the highest stays in any case */
    }
    return borders;
}

/* ---- the draw ---- */

/* The highest of value + noise among the ids kept. Noise is dear and at most 23: an id that could not reach
 * `bound`, the noisy value of a kept id, even so is passed over; rounding keeps order, so no choice changes. */
DEVICE_FN int32_t sample_draw(const select_room &room, const sample_row &row, const sample_borders &borders)
{
    choose_key_t highest = sample_nothing(), best = sample_nothing();
    for (int32_t i = (int32_t)threadIdx.x; i < row.n_vocab; i += SELECT_THREADS) {
        const bool possible = row.value[i] > -MATHX_INF && sample_keeps(row, borders, i);
        const choose_key_t key = possible ? choose_key(row.value[i], (uint32_t)i) : 0;
        highest = key > highest ? key : highest;
    }
    highest = select_max(room, highest);
    const uint32_t position = (uint32_t)row.how.position, highest_id = (uint32_t)choose_key_id(highest);
    const struct philox_block at = { { highest_id / SAMPLE_IDS, position, COIN_TARGET, 0 } };
    const struct philox_block its = rng_rounds(at, row.how.seed);
    const uint32_t word = highest_id % SAMPLE_IDS == 0   ? its.word[0]
                          : highest_id % SAMPLE_IDS == 1 ? its.word[1]
                          : highest_id % SAMPLE_IDS == 2 ? its.word[2]
                                                         : its.word[3];
    const float bound = choose_key_value(highest) + mathx_gumbel(word);
    const int32_t step = SELECT_THREADS * SAMPLE_IDS;
    for (int32_t first = (int32_t)threadIdx.x * SAMPLE_IDS; first < row.n_vocab; first += step) {
        uint32_t wanted = 0;
        for (int32_t i = 0; i < SAMPLE_IDS && first + i < row.n_vocab; i++) {
            const float value = row.value[first + i];
            const bool reaches = value > -MATHX_INF && value + SAMPLE_NOISE_LIMIT >= bound;
            wanted |= reaches && sample_keeps(row, borders, first + i) ? 1u << i : 0u;
        }
        if (wanted != 0) {
            const struct philox_block counter = { { (uint32_t)first / SAMPLE_IDS, position, COIN_TARGET, 0 } };
            const struct philox_block coin = rng_rounds(counter, row.how.seed);
#pragma unroll
            for (int32_t i = 0; i < SAMPLE_IDS; i++) {
                const float noisy = wanted >> i & 1 ? row.value[first + i] + mathx_gumbel(coin.word[i]) : -MATHX_INF;
                const choose_key_t key = noisy > -MATHX_INF ? choose_key(noisy, (uint32_t)(first + i)) : 0;
                best = key > best ? key : best;
            }
        }
    }
    return choose_key_id(select_max(room, best));
}

/* The row adjusted, and divided by the temperature where there is one. id: of the highest value, max: that. */
struct sample_scaled { int32_t id; uint32_t bad; float max; };

DEVICE_FN sample_scaled sample_scale(const select_room &room, const sample_row &row, const sample_best &plain)
{
    const float temperature = row.how.temperature;
    uint32_t bad = sample_verdict(plain);
    if (bad != CUDA_CHOICE_GOOD) {
        return { 0, bad, 0.0f };
    }
    sample_adjust(row);
    const sample_best best = sample_find_best(room, row.value, row.n_vocab);
    bad = sample_verdict(best);
    if (bad != CUDA_CHOICE_GOOD || temperature == 0.0f) {
        return { choose_key_id(best.key), bad, choose_key_value(best.key) };
    }
    const float max = choose_key_value(best.key) / temperature;
    if (!(max > -MATHX_INF && max < MATHX_INF)) {
        return { 0, CUDA_CHOICE_OVERFLOW, max };
    }
    for (int32_t i = (int32_t)threadIdx.x; i < row.n_vocab; i += SELECT_THREADS) {
        row.value[i] = row.value[i] / temperature;
    }
    __syncthreads();
    return { choose_key_id(best.key), bad, max };
}

/* The token, or why there is none. */
DEVICE_FN cuda_choice sample_choose(const select_room &room, const sample_row &row, const sample_best &plain)
{
    const sample_scaled scaled = sample_scale(room, row, plain);
    if (scaled.bad != CUDA_CHOICE_GOOD || row.how.temperature == 0.0f) {
        return { scaled.id, scaled.bad };
    }
    const sample_borders borders = sample_filter(room, row, scaled.max);
    return { sample_draw(room, row, borders), CUDA_CHOICE_GOOD };
}

/* ---- log probabilities ---- */

struct sample_logit_term { /* exp(logit - max) */
    const float *logits;
    float max;
    __device__ __forceinline__ float operator()(int32_t i) const { return mathx_exp(logits[i] - max); }
};

/* What the model thought of the token, and of its likeliest ones: (logit - max) - log(sum). */
DEVICE_FN void sample_describe(const select_room &room, const sample_row &row, choose_key_t plain, int32_t id,
                               struct cuda_sampled *out)
{
    const float max = choose_key_value(plain);
    const float log_sum = mathx_log(select_row_sum(room, row.n_vocab, sample_logit_term{ row.logits, max }));
    const int32_t asked = row.how.n_top_logprobs < CUDA_SAMPLE_TOP ? row.how.n_top_logprobs : (int32_t)CUDA_SAMPLE_TOP;
    const int32_t n_top = asked < row.n_vocab ? asked : row.n_vocab;
    if (threadIdx.x == 0) {
        out->logprob = (row.logits[id] - max) - log_sum;
        out->n_top = n_top;
    }
    if (n_top < 1) {
        return;
    }
    const choose_key_t lowest = select_lowest(room, sample_by_value{ row.logits }, row.n_vocab, (choose_key_t)n_top);
    const int32_t place = select_take(room, sample_by_value{ row.logits }, row.n_vocab, lowest, n_top);
    if (place >= 0) { /* thread i has the i-th key taken, and its place among them */
        const int32_t top = choose_key_id(select_bucket(room, (int32_t)threadIdx.x));
        out->top[place].id = top;
        out->top[place].logprob = (row.logits[top] - max) - log_sum;
    }
}

/* Shapes: rows of n_vocab logits, scratch [n_rows, 2, n_vocab], out [n_rows]. Grid: rows. Block: 1024
 * threads. Reads the row and its scratch 6 to 20 times, from L2, 4 bytes an id each; bound by what one
 * multiprocessor loads, and by histograms where many keys share a digit. Accumulates: sums of 64 partials and
 * a tree, integers otherwise. Plan: exact. Reference: sampling_choose. */
static __global__ void __launch_bounds__(SELECT_THREADS, 1) sample_row_kernel(const cuda_op_sample op)
{
    SELECT_ROOM(room);
    const int32_t i = (int32_t)blockIdx.x;
    float *scratch = op.scratch + 2 * (size_t)i * (size_t)op.n_vocab;
    const sample_row row = { op.rows[i], choose_logits(op.logits, op.from, i, op.n_vocab), scratch,
                             scratch + (size_t)op.n_vocab, op.n_vocab,
                             { choose_taken(op.from, i, 0), choose_taken(op.from, i, 1) } };
    struct cuda_sampled *out = &op.out[blockIdx.x];
    const sample_best plain = sample_find_best(room, row.logits, row.n_vocab);
    const cuda_choice choice = sample_choose(room, row, plain);
    if (threadIdx.x == 0) {
        out->id = choice.id;
        out->bad = choice.bad;
        out->logprob = 0.0f;
        out->n_top = 0;
    }
    if (choice.bad == CUDA_CHOICE_GOOD && row.how.n_top_logprobs >= 0) {
        sample_describe(room, row, plain.key, choice.id, out);
    }
}

/* ---- values to rank ---- */

/* exp of what is kept, 0 elsewhere. */
DEVICE_FN void sample_keep_exps(const sample_row &row, const sample_borders &borders, float max)
{
    for (int32_t i = (int32_t)threadIdx.x; i < row.n_vocab; i += SELECT_THREADS) {
        row.exp[i] = sample_keeps(row, borders, i) ? mathx_exp(row.value[i] - max) : 0.0f;
    }
    __syncthreads();
}

/* log of the probability, with the noise of the id's coin where there is a temperature; -inf: dropped. */
DEVICE_FN void sample_rankable(const sample_row &row, const cuda_rank_row &rank, float sum)
{
    const int32_t step = SELECT_THREADS * SAMPLE_IDS;
    for (int32_t first = (int32_t)threadIdx.x * SAMPLE_IDS; first < row.n_vocab; first += step) {
        const uint32_t block = (uint32_t)first / SAMPLE_IDS;
        const struct philox_block counter = { { block, (uint32_t)rank.position, COIN_TARGET, 0 } };
        const struct philox_block coin = rank.temperature != 0.0f ? rng_rounds(counter, rank.seed) : counter;
#pragma unroll
        for (int32_t i = 0; i < SAMPLE_IDS; i++) {
            if (first + i < row.n_vocab) {
                const float prob = row.exp[first + i] / sum;
                const float noise = rank.temperature != 0.0f ? mathx_gumbel(coin.word[i]) : 0.0f;
                row.value[first + i] = prob > 0.0f ? mathx_log(prob) + noise : -MATHX_INF;
            }
        }
    }
}

/* Shapes: rows of n_vocab logits, out and scratch [n_rows, n_vocab]. Grid: rows. Block: 1024 threads. As
 * sample_row_kernel, and a logarithm an id that is left. Accumulates: sums of 64 partials and a tree, integers
 * otherwise. Plan: exact. Reference: sampling_distribution, and key_of() and its noise in draft/rank.c. */
static __global__ void __launch_bounds__(SELECT_THREADS, 1) sample_log_probs_kernel(const cuda_op_log_probs op)
{
    SELECT_ROOM(room);
    const int32_t i = (int32_t)blockIdx.x;
    const size_t at = (size_t)i * (size_t)op.n_vocab;
    const sample_row row = { op.rows[i], choose_logits(op.logits, op.from, i, op.n_vocab), op.out + at,
                             op.scratch + at, op.n_vocab, { -1, -1 } };
    const sample_scaled scaled = sample_scale(room, row, sample_find_best(room, row.logits, row.n_vocab));
    if (scaled.bad != CUDA_CHOICE_GOOD) { /* of the whole row, so all threads leave */
        for (int32_t id = (int32_t)threadIdx.x; id < row.n_vocab; id += SELECT_THREADS) {
            row.value[id] = -MATHX_INF;
        }
        return;
    }
    const sample_borders borders = sample_filter(room, row, scaled.max);
    sample_keep_exps(row, borders, scaled.max);
    sample_rankable(row, op.ranks[i], select_row_sum(room, row.n_vocab, sample_exp_term{ row.exp }));
}

extern "C" int cuda_log_probs(const struct cuda_op_log_probs *op, struct CUstream_st *stream)
{
    if (op->n_vocab < 1 || op->n_vocab > SELECT_MAX_ID) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    CUDA_LAUNCH(sample_log_probs_kernel, (unsigned)op->n_rows, SELECT_THREADS, 0, stream, *op);
    return cudaGetLastError();
}

extern "C" size_t cuda_sample_scratch_floats(int32_t n_rows, int32_t n_vocab)
{
    return 2 * (size_t)n_rows * (size_t)n_vocab;
}

extern "C" int cuda_sample(const struct cuda_op_sample *op, struct CUstream_st *stream)
{
    if (op->n_vocab < 1 || op->n_vocab > SELECT_MAX_ID) {
        return cudaErrorInvalidValue;
    }
    if (op->n_rows <= 0) {
        return cudaSuccess;
    }
    CUDA_LAUNCH(sample_row_kernel, (unsigned)op->n_rows, SELECT_THREADS, 0, stream, *op);
    return cudaGetLastError();
}
