/* test_sampling_distribution: does argmax of logit / temperature + noise have the distribution that
 * softmax promises? First with all words of the coins, by breakpoints; then by counting real draws,
 * with samplers that are wrong on purpose and must be found out.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sampling/sampling.h"
#include "tests/chi_square.h"

/* ---- exact: integrate over the words ---- */
enum { N_EXACT = 4, STRATA = 128 };

/* Token a with word x beats token b with word y: the rule itself, ties to the lowest id. */
static bool beats(const float *value, int a, uint32_t x, int b, uint32_t y)
{
    const float noisy_a = value[a] + mathx_gumbel(x), noisy_b = value[b] + mathx_gumbel(y);
    return noisy_a > noisy_b || (noisy_a == noisy_b && a < b);
}

/* Noise falls as the word grows: the words with which b loses to (a, x) run from a breakpoint to
 * the end. Their share of all words. */
static double share_that_loses(const float *value, int a, uint32_t x, int b)
{
    uint64_t low = 0, high = (uint64_t)1 << 32; /* b loses from `high` on */
    while (low < high) {
        const uint64_t middle = (low + high) / 2;
        if (beats(value, a, x, b, (uint32_t)middle)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return 1.0 - (double)high * 0x1p-32;
}

static double wins_with(const float *value, int a, uint32_t x)
{
    double share = 1;
    for (int b = 0; b < N_EXACT; b++) {
        share *= b == a ? 1 : share_that_loses(value, a, x, b);
    }
    return share;
}

/* The noise is steep at both ends of the words, so each half is cut into octaves from its end:
 * distances below STRATA one by one, each octave above in STRATA equal parts by their middle. */
static double win_probability(const float *value, int a)
{
    double total = 0;
    for (uint32_t distance = 0; distance < STRATA; distance++) {
        total += wins_with(value, a, distance) + wins_with(value, a, ~distance);
    }
    for (uint32_t octave = STRATA; octave < (uint32_t)1 << 31; octave *= 2) {
        const uint32_t width = octave / STRATA;
        for (uint32_t part = 0; part < STRATA; part++) {
            const uint32_t distance = octave + part * width + width / 2;
            total += width * (wins_with(value, a, distance) + wins_with(value, a, ~distance));
        }
    }
    return total * 0x1p-32;
}

static double largest_difference(const float *logits, float temperature, float promised_temperature)
{
    float value[N_EXACT];
    double sum = 0, worst = 0;
    for (int i = 0; i < N_EXACT; i++) {
        value[i] = logits[i] / temperature;
        sum += exp((double)logits[i] / (double)promised_temperature);
    }
    for (int i = 0; i < N_EXACT; i++) {
        const double promised = exp((double)logits[i] / (double)promised_temperature) / sum;
        worst = fmax(worst, fabs(win_probability(value, i) - promised));
    }
    return worst;
}

static void exact_over_all_words(void **state)
{
    (void)state;
    static const float rows[][N_EXACT] = {{1, 0.5f, -0.25f, -3}, {2, 2, 2, 2}, {9, 0, -1, 3}};
    static const float temperatures[] = { 1, 0.7f, 1.5f };
    for (int i = 0; i < 3; i++) {
        const double worst = largest_difference(rows[i], temperatures[i], temperatures[i]);
        printf("row %d, temperature %g: largest difference to softmax %.2g\n", i,
               (double)temperatures[i], worst);
        assert_true(worst < 1e-6);
    }
    /* the same measure with a temperature that is a thousandth off sees it */
    assert_true(largest_difference(rows[0], 1.0f, 1.001f) > 1e-5);
}

/* ---- counting draws ---- */
enum { N_VOCAB = 40, N_DRAWS = 40000, MAX_CELLS = N_VOCAB * N_VOCAB };

static struct backend *backend;
static struct sampling_scratch *scratch;
static float logits[N_VOCAB];

static int open_all(void **state)
{
    (void)state;
    for (int i = 0; i < N_VOCAB; i++) {
        logits[i] = 3.0f * (float)(rng_mix64((uint64_t)i) >> 40) * 0x1p-24f;
    }
    return backend_create("cpu", NULL, &backend) != STATUS_OK
        || sampling_scratch_create(N_VOCAB, &scratch) != STATUS_OK;
}

static int close_all(void **state)
{
    (void)state;
    sampling_scratch_destroy(scratch);
    backend_destroy(backend);
    return 0;
}

static int32_t draw(const struct sampling_params *params, int32_t position)
{
    struct sampling_choice choice;
    const int32_t history[] = { 3, 3, 5 };
    assert_int_equal(
        sampling_choose(backend, params, logits, N_VOCAB, history, 3, position, scratch, &choice),
        STATUS_OK);
    return choice.id;
}

static void distribution(const struct sampling_params *params, double *prob)
{
    float found[N_VOCAB];
    const int32_t history[] = { 3, 3, 5 };
    assert_int_equal(
        sampling_distribution(backend, params, logits, N_VOCAB, history, 3, scratch, found),
        STATUS_OK);
    for (int i = 0; i < N_VOCAB; i++) {
        prob[i] = (double)found[i];
    }
}

static struct sampling_params some_params(int which)
{
    struct sampling_params params;
    sampling_params_defaults(&params);
    params.temperature = which == 1 ? 0.3f : which == 2 ? 1.5f : which == 3 ? 0.7f : 1.0f;
    params.top_k = which == 4 || which == 7 ? 12 : 0;
    params.top_p = which == 5 || which == 7 ? 0.8f : 1.0f;
    params.min_p = which == 6 || which == 7 ? 0.2f : 0.0f;
    params.repetition_penalty = which == 7 ? 1.3f : 1.0f;
    params.frequency_penalty = which == 7 ? 0.4f : 0.0f;
    params.seed = rng_mix64(1000 + (uint64_t)which);
    return params;
}

/* Over positions, with one seed; and over seeds, at one position. */
static void draws_follow_the_distribution(void **state)
{
    (void)state;
    for (int which = 0; which < 8; which++) {
        struct sampling_params params = some_params(which);
        int64_t by_position[N_VOCAB] = { 0 }, by_seed[N_VOCAB] = { 0 };
        double prob[N_VOCAB];
        distribution(&params, prob);
        for (int32_t i = 0; i < N_DRAWS; i++) {
            by_position[draw(&params, i)]++;
        }
        for (int32_t i = 0; i < N_DRAWS; i++) {
            params.seed = (uint64_t)i;
            by_seed[draw(&params, 17)]++;
        }
        const double a = chi_square_sigmas(by_position, prob, N_VOCAB, N_DRAWS);
        const double b = chi_square_sigmas(by_seed, prob, N_VOCAB, N_DRAWS);
        printf("filters %d: %+.2f sigma over positions, %+.2f over seeds\n", which, a, b);
        assert_true(a < 4 && b < 4);
    }
}

/* Neighbouring positions, and choices of one request, are independent. */
static void draws_are_independent(void **state)
{
    (void)state;
    static int64_t neighbours[MAX_CELLS], choices[MAX_CELLS];
    static double prob[N_VOCAB], joint[MAX_CELLS];
    struct sampling_params params = some_params(0);
    distribution(&params, prob);
    for (int i = 0; i < MAX_CELLS; i++) {
        joint[i] = prob[i / N_VOCAB] * prob[i % N_VOCAB];
    }
    const uint64_t seed = params.seed;
    for (int32_t i = 0; i < N_DRAWS; i++) {
        params.seed = seed;
        const int32_t here = draw(&params, 2 * i), next = draw(&params, 2 * i + 1);
        neighbours[here * N_VOCAB + next]++;
        params.seed = rng_choice_seed(seed, 1);
        choices[here * N_VOCAB + draw(&params, 2 * i)]++;
    }
    assert_true(chi_square_sigmas(neighbours, joint, MAX_CELLS, N_DRAWS) < 4);
    assert_true(chi_square_sigmas(choices, joint, MAX_CELLS, N_DRAWS) < 4);
}

/* ---- negative controls: what must be found out ---- */
enum flaw { FLAW_NONE, FLAW_SHARED_COIN, FLAW_POOR_COIN, FLAW_TEMPERATURE, FLAWS };

/* The rule written out, with a flaw. */
static int32_t flawed_draw(enum flaw flaw, int32_t position)
{
    float best = -INFINITY;
    int32_t best_id = 0;
    for (int32_t id = 0; id < N_VOCAB; id++) {
        const uint32_t index = (uint32_t)(flaw == FLAW_SHARED_COIN ? id / 2 : id);
        uint32_t word = rng_coin_word(5, COIN_TARGET, (uint32_t)position, index);
        if (flaw == FLAW_POOR_COIN) {
            word = word >> 28 << 28; /* four bits: the tail is cut */
        }
        const float value = flaw == FLAW_TEMPERATURE ? logits[id] / 1.1f : logits[id];
        const float noisy = value + mathx_gumbel(word);
        if (noisy > best) {
            best = noisy;
            best_id = id;
        }
    }
    return best_id;
}

static void flaws_are_found_out(void **state)
{
    (void)state;
    double prob[N_VOCAB];
    const struct sampling_params params = some_params(0);
    distribution(&params, prob);
    for (enum flaw flaw = FLAW_NONE; flaw < FLAWS; flaw++) {
        int64_t seen[N_VOCAB] = { 0 };
        for (int32_t i = 0; i < N_DRAWS; i++) {
            seen[flawed_draw(flaw, i)]++;
        }
        const double sigmas = chi_square_sigmas(seen, prob, N_VOCAB, N_DRAWS);
        printf("flaw %d: %+.2f sigma\n", (int)flaw, sigmas);
        assert_true(flaw == FLAW_NONE ? sigmas < 4 : sigmas > 6);
    }
}

/* A coin of another purpose or position is another coin: an off-by-one disagrees often. */
static void coins_are_keyed(void **state)
{
    (void)state;
    struct sampling_params params = some_params(0);
    int32_t n_equal = 0;
    for (int32_t i = 0; i < 2000; i++) {
        const int32_t here = draw(&params, i);
        assert_int_equal(here, draw(&params, i)); /* asked twice, answered alike */
        n_equal += here == draw(&params, i + 1);
    }
    assert_true(n_equal < 400);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_over_all_words),     cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(draws_are_independent),    cmocka_unit_test(flaws_are_found_out),
        cmocka_unit_test(coins_are_keyed),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
