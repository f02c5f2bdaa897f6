/* Tokens and log probabilities of requests with penalties, biases and filters are, on the device, those of
 * sampling_choose(): any vocabulary, ties at every border, rows that cannot be used.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sampling/sampling.h"
#include "tests/simt/bed.h"

enum { MAX_ROWS = 8, MAX_HISTORY = 300, MAX_BIASES = 40 };

/* Rows of requests, as host and device have them; arrays that the device reads are the bed's. */
struct requests {
    int32_t n_rows, n_vocab;
    float *logits;
    struct cuda_sampling *rows;
    struct sampling_params params[MAX_ROWS];
    struct sampling_bias biases[MAX_ROWS][MAX_BIASES];
    uint32_t bad[MAX_ROWS];
};

static void requests_init(struct requests *r, int32_t n_rows, int32_t n_vocab)
{
    memset(r, 0, sizeof *r);
    r->n_rows = n_rows;
    r->n_vocab = n_vocab;
    r->logits = bed_alloc((size_t)n_rows * (size_t)n_vocab, sizeof *r->logits);
    r->rows = bed_alloc_pointers((size_t)n_rows, sizeof *r->rows);
    for (int32_t i = 0; i < n_rows; i++) {
        sampling_params_defaults(&r->params[i]);
        r->params[i].seed = bed_word();
        r->rows[i].position = (int32_t)(bed_word() % 100000);
        r->rows[i].history = bed_alloc(MAX_HISTORY, sizeof(int32_t));
        r->rows[i].biases = bed_alloc(MAX_BIASES, sizeof(struct cuda_bias));
        r->params[i].biases = r->biases[i];
    }
}

static void requests_deinit(struct requests *r)
{
    for (int32_t i = 0; i < r->n_rows; i++) {
        bed_free((void *)(uintptr_t)r->rows[i].history);
        bed_free((void *)(uintptr_t)r->rows[i].biases);
    }
    bed_free(r->rows);
    bed_free(r->logits);
}

static void history_put(struct requests *r, int32_t row, int32_t n)
{
    int32_t *history = (int32_t *)(uintptr_t)r->rows[row].history;
    r->rows[row].n_history = n;
    for (int32_t i = 0; i < n; i++) { /* few ids, often; some are of a larger vocabulary */
        history[i] = (int32_t)(bed_word() % (uint64_t)(i % 3 ? 7 : r->n_vocab + 5)) - (i % 50 == 49);
    }
}

static void bias_put(struct requests *r, int32_t row, int32_t id, float bias)
{
    struct sampling_params *params = &r->params[row];
    r->biases[row][params->n_biases] = (struct sampling_bias){ id, bias };
    ((struct cuda_bias *)(uintptr_t)r->rows[row].biases)[params->n_biases++] = (struct cuda_bias){ id, bias };
}

/* The params of a row in the device's words. */
static void row_fill(struct cuda_sampling *row, const struct sampling_params *params)
{
    row->seed = params->seed;
    row->temperature = params->temperature;
    row->top_p = params->top_p;
    row->min_p = params->min_p;
    row->repetition_penalty = params->repetition_penalty;
    row->presence_penalty = params->presence_penalty;
    row->frequency_penalty = params->frequency_penalty;
    row->top_k = params->top_k;
    row->penalty_last_n = params->penalty_last_n;
    row->n_top_logprobs = params->n_top_logprobs;
    row->n_biases = params->n_biases;
}

static void check_row(struct bed *bed, const struct requests *r, int32_t i, const struct cuda_sampled *found,
                      struct sampling_scratch *scratch)
{
    struct sampling_choice choice;
    const enum status status = sampling_choose(
        bed->backend, &r->params[i], r->logits + (size_t)i * (size_t)r->n_vocab, r->n_vocab, r->rows[i].history,
        r->rows[i].n_history, r->rows[i].position, scratch, &choice);
    assert_int_equal(found->bad == CUDA_CHOICE_GOOD, status == STATUS_OK);
    if (status != STATUS_OK) {
        return;
    }
    if (found->id != choice.id) {
        fail_msg("row %d of %d ids: token %d, expected %d", i, r->n_vocab, found->id, choice.id);
    }
    bed_assert_same("logprob", &found->logprob, &choice.logprob, 1);
    assert_int_equal(found->n_top, choice.n_top);
    for (int32_t t = 0; t < choice.n_top; t++) {
        assert_int_equal(found->top[t].id, choice.top[t].id);
        bed_assert_same("top logprob", &found->top[t].logprob, &choice.top[t].logprob, 1);
    }
}

/* What draft/rank.c ranks such a row by: log of the probability, and the position's noise. */
static void check_values(const struct bed *bed, const struct requests *r, int32_t row, const float *found,
                         struct sampling_scratch *scratch)
{
    const size_t n = (size_t)r->n_vocab;
    float *prob = mem_alloc(n, sizeof *prob);
    const enum status status =
        sampling_distribution(bed->backend, &r->params[row], r->logits + (size_t)row * n, r->n_vocab,
                              r->rows[row].history, r->rows[row].n_history, scratch, prob);
    for (int32_t id = 0; id < r->n_vocab; id++) {
        const uint32_t word =
            rng_coin_word(r->params[row].seed, COIN_TARGET, (uint32_t)r->rows[row].position, (uint32_t)id);
        const float expected = status == STATUS_OK && prob[id] > 0 ? mathx_log(prob[id]) + mathx_gumbel(word)
                                                                   : -MATHX_INF;
        bed_assert_same("a value to rank", &found[id], &expected, 1);
    }
    mem_free(prob);
}

/* Rows without a temperature are ranked at another one, which is its caller's business. */
static void check_log_probs(struct bed *bed, const struct requests *r, struct sampling_scratch *scratch)
{
    const size_t n_floats = (size_t)r->n_rows * (size_t)r->n_vocab;
    struct cuda_rank_row *ranks = bed_alloc((size_t)r->n_rows, sizeof *ranks);
    float *out = bed_output(n_floats, sizeof *out), *device_scratch = bed_output(n_floats, sizeof *device_scratch);
    for (int32_t i = 0; i < r->n_rows; i++) {
        ranks[i] = (struct cuda_rank_row){ .seed = r->params[i].seed, .position = r->rows[i].position,
                                           .temperature = r->params[i].temperature };
    }
    const struct cuda_op_log_probs op = { .logits = r->logits, .rows = r->rows, .ranks = ranks, .out = out,
                                          .scratch = device_scratch, .n_rows = r->n_rows, .n_vocab = r->n_vocab };
    BED_RUN(cuda_log_probs, &op);
    for (int32_t i = 0; i < r->n_rows; i++) {
        if (r->params[i].temperature > 0) {
            check_values(bed, r, i, out + (size_t)i * (size_t)r->n_vocab, scratch);
        }
    }
    bed_output_free(device_scratch);
    bed_output_free(out);
    bed_free(ranks);
}

static void check(struct requests *r)
{
    struct bed bed;
    struct sampling_scratch *scratch;
    bed_init_seeded(&bed, bed_word());
    assert_int_equal(sampling_scratch_create(r->n_vocab, &scratch), STATUS_OK);
    for (int32_t i = 0; i < r->n_rows; i++) {
        assert_int_equal(sampling_params_check(&r->params[i], r->n_vocab), STATUS_OK);
        row_fill(&r->rows[i], &r->params[i]);
    }
    for (int backward = 0; backward < 2; backward++) {
        struct cuda_sampled *out = bed_output((size_t)r->n_rows, sizeof *out);
        float *device_scratch = bed_output(cuda_sample_scratch_floats(r->n_rows, r->n_vocab), sizeof(float));
        bed_order(backward);
        const struct cuda_op_sample op = { r->logits, r->rows, out, device_scratch, r->n_rows, r->n_vocab, { 0 } };
        BED_RUN(cuda_sample, &op);
        for (int32_t i = 0; i < r->n_rows; i++) {
            check_row(&bed, r, i, &out[i], scratch);
            r->bad[i] = out[i].bad;
        }
        bed_output_free(out);
        bed_output_free(device_scratch);
    }
    check_log_probs(&bed, r, scratch);
    sampling_scratch_destroy(scratch);
    bed_deinit(&bed);
}

/* Spread, in steps (ties), nearly flat, or one far above the others. */
static void logits_fill(struct requests *r, int32_t row, int32_t kind)
{
    float *logits = r->logits + (size_t)row * (size_t)r->n_vocab;
    for (int32_t i = 0; i < r->n_vocab; i++) {
        const float x = bed_float();
        logits[i] = kind == 0 ? x * 9.0f : kind == 1 ? (float)(int32_t)(x * 6.0f) : kind == 2 ? x * 1e-6f
                    : i == r->n_vocab / 2 ? 60.0f : x;
        logits[i] = i % 11 == 7 ? -MATHX_INF : logits[i];
    }
    logits[bed_word() % (uint64_t)r->n_vocab] = 1.5f; /* something is possible */
}

static void params_any(struct sampling_params *params, int32_t n_vocab, uint64_t kind)
{
    static const float temperature[] = { 0.0f, 0.3f, 0.7f, 1.0f, 1.5f };
    static const float top_p[] = { 1.0f, 0.0f, 0.1f, 0.5f, 0.9f, 0.999f };
    static const float min_p[] = { 0.0f, 0.0f, 0.05f, 0.5f, 1.0f };
    const int32_t top_k[] = { 0, 1, 2, 5, 40, n_vocab - 1, n_vocab, n_vocab + 3 };
    params->temperature = temperature[kind % 5];
    params->top_p = top_p[kind / 5 % 6];
    params->min_p = min_p[kind / 7 % 5];
    params->top_k = top_k[kind / 11 % 8] > 0 ? top_k[kind / 11 % 8] : 0;
    params->repetition_penalty = kind / 3 % 4 == 1 ? 1.3f : 1.0f;
    params->presence_penalty = kind / 3 % 4 == 2 ? 0.7f : 0.0f;
    params->frequency_penalty = kind / 3 % 4 >= 2 ? 0.21f : 0.0f;
    params->penalty_last_n = kind / 13 % 3 == 0 ? -1 : kind / 13 % 3 == 1 ? 17 : 0;
    params->n_top_logprobs = (int32_t)(kind % 4 == 0 ? kind / 17 % 21 : 0) - (kind % 3 == 0);
    params->n_top_logprobs = params->n_top_logprobs < -1 ? -1 : params->n_top_logprobs;
}

static void any_request(void **state)
{
    static const int32_t n_vocab[] = { 1, 2, 31, 64, 65, 1023, 2049, 4500 };
    (void)state;
    bed_seed(2024);
    const int32_t n_turns = getenv("TANDEM_TEST_QUICK") != NULL ? 8 : 24;
    for (int32_t turn = 0; turn < n_turns; turn++) {
        struct requests r;
        requests_init(&r, 1 + turn % MAX_ROWS, n_vocab[turn % 8]);
        for (int32_t i = 0; i < r.n_rows; i++) {
            logits_fill(&r, i, (int32_t)(bed_word() % 4));
            params_any(&r.params[i], r.n_vocab, bed_word());
            history_put(&r, i, (int32_t)(bed_word() % MAX_HISTORY));
            for (int32_t id = 0; id < r.n_vocab && i % 2 == 1 && r.params[i].n_biases < MAX_BIASES; id += 1 + r.n_vocab / 20) {
                bias_put(&r, i, id, bed_float() * 5);
            }
        }
        check(&r);
        requests_deinit(&r);
    }
}

/* Equal values and equal probabilities on both sides of each border. */
static void ties_at_the_borders(void **state)
{
    enum { N = 3000, N_ROWS = 8 };
    struct requests r;
    (void)state;
    bed_seed(7);
    requests_init(&r, N_ROWS, N);
    for (int32_t row = 0; row < N_ROWS; row++) {
        for (int32_t i = 0; i < N; i++) { /* -0 and +0 too, which are equal */
            r.logits[row * N + i] = i % 5 == 0 ? 2.0f : i % 5 == 1 ? -0.0f : i % 5 == 2 ? 0.0f : -1.0f;
        }
        r.params[row].temperature = 1.0f;
    }
    r.params[0].top_k = 601;   /* all of 2.0 and one zero: the lowest id of either sign */
    r.params[1].top_k = 599;   /* the last but one of 2.0 */
    r.params[2].top_p = 0.3f;  /* within the run of 2.0 */
    r.params[3].top_p = 0.9f;  /* within the run of zeros */
    r.params[4].min_p = 0.13f; /* zeros stay, at exp(-2) */
    r.params[5].top_k = 1500;
    r.params[5].top_p = 0.7f;
    r.params[6].top_k = 1;     /* -0 of id 1: equal to the +0 of id 2, and first */
    r.params[7].top_p = 0.5f;  /* of two equal ones the first is just enough */
    for (int32_t i = 0; i < N; i++) {
        r.logits[6 * N + i] = i % 5 == 0 ? -1.0f : r.logits[6 * N + i];
        r.logits[7 * N + i] = i == 70 || i == 2900 ? 0.0f : -MATHX_INF;
    }
    for (int32_t seed = 0; seed < 12; seed++) {
        for (int32_t row = 0; row < N_ROWS; row++) {
            r.params[row].seed = (uint64_t)seed;
        }
        check(&r);
    }
    requests_deinit(&r);
}

static void rows_that_cannot_be_used(void **state)
{
    enum { N = 1030, N_ROWS = 6 };
    struct requests r;
    (void)state;
    bed_seed(9);
    requests_init(&r, N_ROWS, N);
    for (int32_t i = 0; i < N_ROWS; i++) {
        logits_fill(&r, i, 0);
        r.params[i].temperature = 1.0f;
        r.params[i].top_p = 0.9f;
    }
    r.logits[N - 1] = MATHX_NAN;
    r.logits[N + 1025] = MATHX_INF;
    for (int32_t i = 0; i < N; i++) {
        r.logits[2 * N + i] = -MATHX_INF;
    }
    r.params[3].temperature = 1e-38f;
    for (int32_t i = 0; i < N; i++) { /* an overflow that a penalty makes */
        r.logits[4 * N + i] = 3e38f;
    }
    r.params[4].repetition_penalty = 0.01f;
    history_put(&r, 4, 20);
    check(&r);
    static const uint32_t expected[N_ROWS] = { CUDA_CHOICE_NOT_FINITE, CUDA_CHOICE_NOT_FINITE, CUDA_CHOICE_NOTHING,
                                               CUDA_CHOICE_OVERFLOW, CUDA_CHOICE_NOT_FINITE, CUDA_CHOICE_GOOD };
    for (int32_t i = 0; i < N_ROWS; i++) {
        assert_int_equal(r.bad[i], expected[i]);
    }
    requests_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_request),
        cmocka_unit_test(ties_at_the_borders),
        cmocka_unit_test(rows_that_cannot_be_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
