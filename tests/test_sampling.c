/* test_sampling: the walk from logits to a token, against a naive reference that sorts everything,
 * and its distribution against the softmax it promises.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sampling/sampling.h"

enum { MAX_VOCAB = 6000, MAX_HISTORY = 64 };

/* ---- backends, one per instruction set there is ---- */
static struct backend *backends[3];
static int n_backends;

static int open_backends(void **state)
{
    (void)state;
    static const char *const isas[] = { "scalar", "avx2", "avx512" };
    for (int i = 0; i < 3; i++) {
        if (backend_create("cpu", isas[i], &backends[n_backends]) == STATUS_OK) {
            n_backends++;
        } else {
            printf("skipped: %s: %s\n", isas[i], status_message());
        }
    }
    return n_backends == 0;
}

static int close_backends(void **state)
{
    (void)state;
    while (n_backends > 0) {
        backend_destroy(backends[--n_backends]);
    }
    return 0;
}

static struct sampling_scratch *new_scratch(void)
{
    struct sampling_scratch *scratch = NULL;
    assert_int_equal(sampling_scratch_create(MAX_VOCAB, &scratch), STATUS_OK);
    return scratch;
}

/* ---- a row and the request for it ---- */
struct row_case {
    struct sampling_params params;
    struct sampling_bias biases[8];
    float logits[MAX_VOCAB];
    int32_t n_vocab, history[MAX_HISTORY], n_history, position;
};

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state++;
    return (uint32_t)(rng_mix64(random_state) >> 32) % n;
}

static float random_float(float low, float high)
{
    return low + (high - low) * (float)random_below(1 << 20) * 0x1p-20f;
}

/* ---- the reference: what the specification says, in its order, everything sorted ---- */
struct kept { int32_t id; float value, exp, prob; };

static float naive_sum(const struct kept *kept, int32_t n)
{
    float partial[64] = { 0 };
    for (int32_t id = 0; id < MAX_VOCAB; id++) { /* ascending ids, however the list is sorted */
        for (int32_t i = 0; i < n; i++) {
            if (kept[i].id == id) {
                partial[id % 64] += kept[i].exp;
            }
        }
    }
    for (int stride = 32; stride > 0; stride /= 2) {
        for (int i = 0; i < stride; i++) {
            partial[i] += partial[i + stride];
        }
    }
    return partial[0];
}

static int by_value(const void *left, const void *right)
{
    const struct kept *a = left, *b = right;
    return a->value != b->value ? (a->value < b->value ? 1 : -1)
                                : (a->id > b->id) - (a->id < b->id);
}

static int by_prob(const void *left, const void *right)
{
    const struct kept *a = left, *b = right;
    return a->prob != b->prob ? (a->prob < b->prob ? 1 : -1) : (a->id > b->id) - (a->id < b->id);
}

static int by_id(const void *left, const void *right)
{
    const struct kept *a = left, *b = right;
    return (a->id > b->id) - (a->id < b->id);
}

static void naive_adjust(const struct row_case *c, float *value)
{
    const struct sampling_params *p = &c->params;
    for (int32_t id = 0; id < c->n_vocab; id++) {
        int32_t count = 0;
        for (int32_t i = 0; i < c->n_history; i++) {
            const bool within = p->penalty_last_n < 0 || i >= c->n_history - p->penalty_last_n;
            count += within && c->history[i] == id;
        }
        value[id] = c->logits[id];
        if (count > 0) {
            value[id] = value[id] > 0 ? value[id] / p->repetition_penalty
                                      : value[id] * p->repetition_penalty;
            value[id] = value[id] - p->frequency_penalty * (float)count;
            value[id] = value[id] - p->presence_penalty;
        }
        for (int32_t i = 0; i < p->n_biases; i++) {
            value[id] = p->biases[i].id == id ? value[id] + p->biases[i].bias : value[id];
        }
    }
}

static void naive_exps(struct kept *kept, int32_t n)
{
    float max = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        max = kept[i].value > max ? kept[i].value : max;
    }
    for (int32_t i = 0; i < n; i++) {
        kept[i].exp = mathx_exp(kept[i].value - max);
    }
}

static int32_t naive_top_p(float top_p, struct kept *kept, int32_t n)
{
    const float sum = naive_sum(kept, n);
    for (int32_t i = 0; i < n; i++) {
        kept[i].prob = kept[i].exp / sum;
    }
    qsort(kept, (size_t)n, sizeof *kept, by_prob);
    int64_t mass = 0;
    for (int32_t i = 0; i < n; i++) {
        mass += llrint((double)kept[i].prob * 0x1p40);
        if (mass >= llrint((double)top_p * 0x1p40)) {
            return i + 1;
        }
    }
    return n;
}

/* The kept ids, ascending; for temperature 0 the best alone. */
static int32_t naive_kept(const struct row_case *c, struct kept *kept)
{
    static float value[MAX_VOCAB];
    const struct sampling_params *p = &c->params;
    int32_t n = c->n_vocab;
    naive_adjust(c, value);
    for (int32_t id = 0; id < n; id++) {
        kept[id] = (struct kept){ .id = id, .value = value[id] };
    }
    if (p->temperature == 0) {
        qsort(kept, (size_t)n, sizeof *kept, by_value);
        kept[0].exp = 1;
        return 1;
    }
    for (int32_t id = 0; id < n; id++) {
        kept[id].value = value[id] / p->temperature;
    }
    if (p->top_k > 0 && p->top_k < n) {
        qsort(kept, (size_t)n, sizeof *kept, by_value);
        n = p->top_k;
    }
    naive_exps(kept, n);
    if (p->top_p < 1) {
        n = naive_top_p(p->top_p, kept, n);
    }
    if (p->min_p > 0) {
        int32_t m = 0;
        for (int32_t i = 0; i < n; i++) {
            if (kept[i].exp >= p->min_p) {
                kept[m++] = kept[i];
            }
        }
        n = m;
    }
    qsort(kept, (size_t)n, sizeof *kept, by_id);
    return n;
}

static int32_t naive_choice(const struct row_case *c, const struct kept *kept, int32_t n)
{
    int32_t best_id = -1;
    float best = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        const uint32_t word = rng_coin_word(c->params.seed, COIN_TARGET, (uint32_t)c->position,
                                            (uint32_t)kept[i].id);
        const float noisy = kept[i].value + (c->params.temperature == 0 ? 0 : mathx_gumbel(word));
        if (noisy > best) {
            best = noisy;
            best_id = kept[i].id;
        }
    }
    return best_id;
}

static void expect_as_naive(const struct row_case *c, struct sampling_scratch *scratch)
{
    static struct kept kept[MAX_VOCAB];
    static float expected[MAX_VOCAB], prob[MAX_VOCAB];
    const int32_t n = naive_kept(c, kept);
    const int32_t id = naive_choice(c, kept, n);
    const float sum = naive_sum(kept, n);
    memset(expected, 0, sizeof expected);
    for (int32_t i = 0; i < n; i++) {
        expected[kept[i].id] = kept[i].exp / sum;
    }
    for (int b = 0; b < n_backends; b++) {
        struct sampling_choice choice;
        assert_int_equal(sampling_choose(backends[b], &c->params, c->logits, c->n_vocab, c->history,
                                         c->n_history, c->position, scratch, &choice), STATUS_OK);
        assert_int_equal(choice.id, id);
        assert_int_equal(sampling_distribution(backends[b], &c->params, c->logits, c->n_vocab,
                                               c->history, c->n_history, scratch, prob), STATUS_OK);
        assert_memory_equal(prob, expected, (size_t)c->n_vocab * sizeof *prob);
    }
}

/* Few distinct values, so that ties are everywhere; or many; some impossible tokens. */
static void random_row(struct row_case *c, int32_t n_vocab)
{
    c->n_vocab = n_vocab;
    c->position = (int32_t)random_below(1 << 20);
    const uint32_t shape = random_below(4);
    for (int32_t id = 0; id < n_vocab; id++) {
        const float value = random_float(-8, 8);
        c->logits[id] = shape == 0 ? rintf(value) : shape == 1 ? rintf(value / 8) * 0.0f : value;
        if (shape == 3 && random_below(3) == 0 && id > 0) {
            c->logits[id] = -INFINITY;
        }
    }
    c->n_history = (int32_t)random_below(MAX_HISTORY);
    for (int32_t i = 0; i < c->n_history; i++) {
        c->history[i] = (int32_t)random_below((uint32_t)n_vocab);
    }
}

enum {
    USE_TOP_K = 1,
    USE_TOP_P = 2,
    USE_MIN_P = 4,
    USE_PENALTIES = 8,
    USE_BIAS = 16,
    USE_ALL = 31
};

static void random_params(struct row_case *c, uint32_t use)
{
    static const float temperatures[] = { 0, 0.3f, 0.7f, 1, 1.5f };
    static const float top_ps[] = { 0, 0.1f, 0.5f, 0.9f, 0.99f, 0.9999999f };
    sampling_params_defaults(&c->params);
    c->params.seed = rng_mix64(random_state);
    c->params.temperature = temperatures[random_below(5)];
    if (use & USE_TOP_K) {
        c->params.top_k = 1 + (int32_t)random_below((uint32_t)c->n_vocab + 2);
    }
    if (use & USE_TOP_P) {
        c->params.top_p = top_ps[random_below(6)];
    }
    if (use & USE_MIN_P) {
        c->params.min_p = random_below(4) == 0 ? 1 : random_float(0, 0.3f);
    }
    if (use & USE_PENALTIES) {
        c->params.repetition_penalty = random_float(0.8f, 1.6f);
        c->params.presence_penalty = random_float(-1, 2);
        c->params.frequency_penalty = random_float(-1, 2);
        c->params.penalty_last_n = (int32_t)random_below(MAX_HISTORY) - 1;
    }
    if (use & USE_BIAS) {
        int32_t id = (int32_t)random_below(4);
        for (int32_t i = 0; i < 8 && id < c->n_vocab; i++, id += 1 + (int32_t)random_below(9)) {
            c->biases[i] = (struct sampling_bias){ id, random_float(-5, 5) };
            c->params.n_biases = i + 1;
        }
        c->params.biases = c->biases;
    }
    assert_int_equal(sampling_params_check(&c->params, c->n_vocab), STATUS_OK);
}

/* Every subset of the filters, on small rows full of ties. */
static void filters_as_the_reference(void **state)
{
    (void)state;
    static struct row_case c;
    struct sampling_scratch *scratch = new_scratch();
    for (uint32_t use = 0; use <= USE_ALL; use++) {
        for (uint32_t round = 0; round < 12; round++) {
            random_state = (uint64_t)use << 32 | round << 16;
            random_row(&c, 1 + (int32_t)random_below(150));
            random_params(&c, use);
            expect_as_naive(&c, scratch);
        }
    }
    sampling_scratch_destroy(scratch);
}

/* One token far above thousands: their noise together beats it one time in four. */
static void far_ahead_row(struct row_case *c)
{
    for (int32_t id = 0; id < c->n_vocab; id++) {
        c->logits[id] = random_float(0, 0.5f);
    }
    c->logits[random_below((uint32_t)c->n_vocab)] = 10;
}

/* Logits so large that noise is rounded to a few values: ties after the noise. */
static void coarse_row(struct row_case *c)
{
    for (int32_t id = 0; id < c->n_vocab; id++) {
        c->logits[id] = 0x1p25f + 4 * (float)random_below(2);
    }
}

/* Many blocks of ids, sharp and flat: what passing over blocks must not change. */
static void long_rows_as_the_reference(void **state)
{
    (void)state;
    static struct row_case c;
    static struct kept kept[MAX_VOCAB];
    struct sampling_scratch *scratch = new_scratch();
    for (uint32_t round = 0; round < 60; round++) {
        random_state = (uint64_t)99 << 32 | round << 16;
        random_row(&c, MAX_VOCAB - (int32_t)random_below(600));
        random_params(&c, round % 3 == 0 ? 0 : round % (USE_ALL + 1));
        c.params.temperature = round % 2 == 0 ? 1.0f : 0.1f;
        if (round >= 20) {
            round < 40 ? far_ahead_row(&c) : coarse_row(&c);
            c.params.temperature = 1;
        }
        const int32_t id = naive_choice(&c, kept, naive_kept(&c, kept));
        for (int b = 0; b < n_backends; b++) {
            struct sampling_choice choice;
            assert_int_equal(sampling_choose(backends[b], &c.params, c.logits, c.n_vocab, c.history,
                                             c.n_history, c.position, scratch, &choice), STATUS_OK);
            assert_int_equal(choice.id, id);
        }
    }
    sampling_scratch_destroy(scratch);
}

/* ---- ties ---- */
static int32_t chosen(const struct sampling_params *params, const float *logits, int32_t n_vocab,
                      struct sampling_scratch *scratch)
{
    struct sampling_choice choice;
    assert_int_equal(
        sampling_choose(backends[0], params, logits, n_vocab, NULL, 0, 3, scratch, &choice),
        STATUS_OK);
    return choice.id;
}

static void ties_go_to_the_lowest_id(void **state)
{
    (void)state;
    struct sampling_scratch *scratch = new_scratch();
    struct sampling_params params;
    sampling_params_defaults(&params);
    static float logits[1000];
    for (int32_t first = 0; first < 1000; first += 37) {
        for (int32_t id = 0; id < 1000; id++) {
            logits[id] = id >= first && id % 3 == first % 3 ? 2.5f : -1.0f;
        }
        assert_int_equal(chosen(&params, logits, 1000, scratch), first);
    }
    const float zeros[] = { -1.0f, -0.0f, 0.0f, -0.0f }; /* -0 equals +0 */
    assert_int_equal(chosen(&params, zeros, 4, scratch), 1);
    params.temperature = 1;
    params.top_k = 1;
    assert_int_equal(chosen(&params, zeros, 4, scratch), 1);
    params.top_k = 0;
    params.top_p = 0; /* the smallest prefix is one token */
    assert_int_equal(chosen(&params, zeros, 4, scratch), 1);
    sampling_scratch_destroy(scratch);
}

/* top-p: four equal tokens of a quarter each, exact in integers: 0.5 keeps two, the lowest. */
static void top_p_at_the_border(void **state)
{
    (void)state;
    struct sampling_scratch *scratch = new_scratch();
    struct sampling_params params;
    const float logits[] = { 1, 1, 1, 1 };
    const struct { float top_p; int32_t n_kept;
    } cases[] = {{0, 1},     {0.25f, 1},      {0.2500001f, 2}, {0.5f, 2},
                 {0.75f, 3}, {0.7500001f, 4}, {1, 4}};
    sampling_params_defaults(&params);
    params.temperature = 1;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float prob[4];
        params.top_p = cases[i].top_p;
        assert_int_equal(
            sampling_distribution(backends[0], &params, logits, 4, NULL, 0, scratch, prob),
            STATUS_OK);
        for (int32_t id = 0; id < 4; id++) {
            assert_true(prob[id] == (id < cases[i].n_kept ? 1.0f / (float)cases[i].n_kept : 0.0f));
        }
    }
    /* a half and two quarters: the border falls between two different probabilities */
    const float halves[] = { -0x1.62e43p-1f, 0, -0x1.62e43p-1f };
    const float first[] = { 0, 1, 0 };
    float prob[3];
    assert_true(mathx_exp(halves[0]) == 0.5f);
    params.top_p = 0.5f;
    assert_int_equal(sampling_distribution(backends[0], &params, halves, 3, NULL, 0, scratch, prob),
                     STATUS_OK);
    assert_memory_equal(prob, first, sizeof prob);
    params.top_p = 0.75f;
    assert_int_equal(sampling_distribution(backends[0], &params, halves, 3, NULL, 0, scratch, prob),
                     STATUS_OK);
    assert_true(prob[0] > 0 && prob[1] > 0 && prob[2] == 0);
    sampling_scratch_destroy(scratch);
}

/* ---- penalties, with numbers worked out by hand ---- */
static void penalties_by_hand(void **state)
{
    (void)state;
    struct sampling_scratch *scratch = new_scratch();
    struct sampling_params params;
    const float logits[] = { 2, 1.5f, -1, -1.2f, 0 };
    const int32_t history[] = { 0, 0, 2 };
    float prob[5], plain[5];
    const float adjusted[] = {2.0f / 2 - 2 * 0.25f - 0.5f, 1.5f, -1.0f * 2 - 0.25f - 0.5f, -1.2f,
                              0};
    sampling_params_defaults(&params);
    params.temperature = 1;
    assert_int_equal(
        sampling_distribution(backends[0], &params, adjusted, 5, NULL, 0, scratch, plain),
        STATUS_OK);
    params.repetition_penalty = 2;
    params.frequency_penalty = 0.25f;
    params.presence_penalty = 0.5f;
    assert_int_equal(
        sampling_distribution(backends[0], &params, logits, 5, history, 3, scratch, prob),
        STATUS_OK);
    assert_memory_equal(prob, plain, sizeof prob);

    struct sampling_choice choice;
    params.temperature = 0; /* greedy hears penalties too: token 0 falls behind token 1 */
    assert_int_equal(
        sampling_choose(backends[0], &params, logits, 5, history, 3, 3, scratch, &choice),
        STATUS_OK);
    assert_int_equal(choice.id, 1);
    params.penalty_last_n = 1; /* sees token 2 alone */
    assert_int_equal(
        sampling_choose(backends[0], &params, logits, 5, history, 3, 3, scratch, &choice),
        STATUS_OK);
    assert_int_equal(choice.id, 0);
    const int32_t foreign[] = { -1, 5, 1 << 30 }; /* another vocabulary's ids: passed over */
    assert_int_equal(
        sampling_choose(backends[0], &params, logits, 5, foreign, 3, 3, scratch, &choice),
        STATUS_OK);
    assert_int_equal(choice.id, 0);
    sampling_scratch_destroy(scratch);
}

/* ---- logprobs ---- */
static void logprobs(void **state)
{
    (void)state;
    static struct row_case c;
    struct sampling_scratch *scratch = new_scratch();
    for (int32_t n_top = -1; n_top <= SAMPLING_MAX_TOP_LOGPROBS; n_top++) {
        random_state = (uint64_t)(77 + n_top) << 20;
        random_row(&c, n_top == 7 ? 5 : 300); /* once more alternatives than tokens */
        random_params(&c, USE_ALL);
        c.params.n_top_logprobs = n_top;
        struct sampling_choice choice;
        assert_int_equal(sampling_choose(backends[n_backends - 1], &c.params, c.logits, c.n_vocab,
                                         c.history, c.n_history, c.position, scratch, &choice),
                         STATUS_OK);
        double max = -INFINITY, sum = 0;
        for (int32_t id = 0; id < c.n_vocab; id++) {
            max = fmax(max, (double)c.logits[id]);
        }
        for (int32_t id = 0; id < c.n_vocab; id++) {
            sum += exp((double)c.logits[id] - max);
        }
        if (n_top < 0) {
            assert_int_equal(choice.n_top, 0);
            assert_true(choice.logprob == 0.0f);
            continue;
        }
        assert_int_equal(choice.n_top, n_top < c.n_vocab ? n_top : c.n_vocab);
        assert_true(fabs((double)choice.logprob - ((double)c.logits[choice.id] - max - log(sum))) <
                    1e-5);
        bool seen[MAX_VOCAB] = { false };
        for (int32_t i = 0; i < choice.n_top; i++) {
            int32_t best = -1; /* highest logit not yet listed, lowest id first */
            for (int32_t id = 0; id < c.n_vocab; id++) {
                if (!seen[id] && (best < 0 || c.logits[id] > c.logits[best])) {
                    best = id;
                }
            }
            seen[best] = true;
            assert_int_equal(choice.top[i].id, best);
            const double exact = (double)c.logits[best] - max - log(sum);
            assert_true(choice.top[i].logprob == -INFINITY
                            ? exact == -INFINITY
                            : fabs((double)choice.top[i].logprob - exact) < 1e-5);
        }
    }
    sampling_scratch_destroy(scratch);
}

/* ---- what is no number, and what no request may ask ---- */
static void expect_refused(const float *logits, int32_t n_vocab, float temperature,
                           const char *words)
{
    struct sampling_scratch *scratch = new_scratch();
    struct sampling_params params;
    struct sampling_choice choice;
    float prob[300];
    sampling_params_defaults(&params);
    params.temperature = temperature;
    for (int b = 0; b < n_backends; b++) {
        assert_int_equal(
            sampling_choose(backends[b], &params, logits, n_vocab, NULL, 0, 41, scratch, &choice),
            STATUS_NUMERIC);
        assert_non_null(strstr(status_message(), words));
        assert_non_null(strstr(status_message(), "position 41"));
        assert_int_equal(
            sampling_distribution(backends[b], &params, logits, n_vocab, NULL, 0, scratch, prob),
            STATUS_NUMERIC);
    }
    sampling_scratch_destroy(scratch);
}

static void bad_logits(void **state)
{
    (void)state;
    static float logits[300];
    for (int32_t n = 1; n <= 300; n += 23) {
        for (int32_t at = 0; at < n; at += 1 + n / 5) {
            char words[64];
            memset(logits, 0, sizeof logits);
            snprintf(words, sizeof words, "token %d is NaN", at);
            logits[at] = NAN;
            expect_refused(logits, n, 0, words);
            expect_refused(logits, n, 1, words);
            snprintf(words, sizeof words, "token %d is +inf", at);
            logits[at] = INFINITY;
            expect_refused(logits, n, 0, words);
            expect_refused(logits, n, 1, words);
        }
        for (int32_t id = 0; id < n; id++) {
            logits[id] = -INFINITY;
        }
        expect_refused(logits, n, 0, "all logits are -inf");
        expect_refused(logits, n, 1, "all logits are -inf");
    }
    logits[0] = 1e38f;
    expect_refused(logits, 1, 0.01f, "overflows");
}

static void params_out_of_range(void **state)
{
    (void)state;
    const struct sampling_bias twice[] = { { 3, 1 }, { 3, 1 } }, beyond[] = { { 10, 1 } };
    const struct sampling_bias infinite[] = { { 3, INFINITY } };
    struct sampling_params good;
    sampling_params_defaults(&good);
    assert_int_equal(sampling_params_check(&good, 10), STATUS_OK);
#define EXPECT_INVALID(words, ...)                                            \
    do {                                                                      \
        struct sampling_params params = good;                                 \
        __VA_ARGS__;                                                          \
        assert_int_equal(sampling_params_check(&params, 10), STATUS_INVALID); \
        assert_non_null(strstr(status_message(), words));                     \
    } while (0)
    EXPECT_INVALID("temperature", params.temperature = -1);
    EXPECT_INVALID("temperature", params.temperature = NAN);
    EXPECT_INVALID("temperature", params.temperature = INFINITY);
    EXPECT_INVALID("top_k", params.top_k = -1);
    EXPECT_INVALID("top_p", params.top_p = 1.5f);
    EXPECT_INVALID("min_p", params.min_p = -0.1f);
    EXPECT_INVALID("repetition_penalty", params.repetition_penalty = 0);
    EXPECT_INVALID("presence_penalty", params.presence_penalty = NAN);
    EXPECT_INVALID("frequency_penalty", params.frequency_penalty = 1000);
    EXPECT_INVALID("penalty_last_n", params.penalty_last_n = -2);
    EXPECT_INVALID("logprobs", params.n_top_logprobs = 21);
    EXPECT_INVALID("biases", params.n_biases = SAMPLING_MAX_BIASES + 1);
    EXPECT_INVALID("found 3 after 3", params.biases = twice; params.n_biases = 2);
    EXPECT_INVALID("between 0 and 9, found 10", params.biases = beyond; params.n_biases = 1);
    EXPECT_INVALID("bias", params.biases = infinite; params.n_biases = 1);
#undef EXPECT_INVALID
}

/* ---- memory ---- */
static void choosing_allocates_nothing(void **state)
{
    (void)state;
    static struct row_case c;
    struct sampling_scratch *scratch = new_scratch();
    const uint64_t before = mem_alloc_count();
    for (uint32_t use = 0; use <= USE_ALL; use++) {
        struct sampling_choice choice;
        random_state = use;
        random_row(&c, 500);
        random_params(&c, use);
        c.params.n_top_logprobs = 20;
        assert_int_equal(sampling_choose(backends[0], &c.params, c.logits, c.n_vocab, c.history,
                                         c.n_history, c.position, scratch, &choice), STATUS_OK);
    }
    assert_true(mem_alloc_count() == before);
    sampling_scratch_destroy(scratch);
}

static void scratch_without_memory(void **state)
{
    (void)state;
    struct sampling_scratch *scratch = NULL;
    for (uint64_t n = 1; n <= 7; n++) {
        mem_fail_at(n);
        assert_int_equal(sampling_scratch_create(100, &scratch), STATUS_NO_MEMORY);
        assert_null(scratch);
    }
    mem_fail_at(0);
    sampling_scratch_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_as_the_reference),
        cmocka_unit_test(long_rows_as_the_reference),
        cmocka_unit_test(ties_go_to_the_lowest_id),
        cmocka_unit_test(top_p_at_the_border),
        cmocka_unit_test(penalties_by_hand),
        cmocka_unit_test(logprobs),
        cmocka_unit_test(bad_logits),
        cmocka_unit_test(params_out_of_range),
        cmocka_unit_test(choosing_allocates_nothing),
        cmocka_unit_test(scratch_without_memory),
    };
    return cmocka_run_group_tests(tests, open_backends, close_backends);
}
