/* rank: the likeliest tokens of a draft's row, against a sort of the whole row by the definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "draft/choose.h"

enum { VOCAB = 2500, COMMON = 2345, N_HISTORY = 60, N_ROWS = 24 };

static struct backend *backend;
static struct lane *lane;
static struct sampling_scratch *scratch;
static float rows[N_ROWS][VOCAB];
static int32_t history[N_HISTORY];

static int open_lane(void **state)
{
    (void)state;
    return backend_create("cpu", NULL, &backend) != STATUS_OK ||
           lane_create(backend, &(struct lane_options){ .n_workers = 2, .caller_is_worker = true }, &lane) != STATUS_OK ||
           sampling_scratch_create(VOCAB, &scratch) != STATUS_OK;
}

static int close_lane(void **state)
{
    (void)state;
    sampling_scratch_destroy(scratch);
    lane_destroy(lane);
    backend_destroy(backend);
    return 0;
}

static struct draft_chooser *open_chooser(const int32_t *kept_ids, int32_t n_kept)
{
    struct draft_chooser *chooser;
    const struct draft_chooser_options options = { .lane = lane, .n_vocab = VOCAB, .n_vocab_common = COMMON,
                                                   .kept_ids = kept_ids, .n_kept = n_kept, .ranks = true };
    if (draft_chooser_create(&options, &chooser) != STATUS_OK) {
        fail_msg("%s", status_message());
    }
    return chooser;
}

/* Few different values, so that many are equal; the likeliest ids lie beyond the common ones. */
static void fill_rows(uint64_t seed)
{
    for (int32_t r = 0; r < N_ROWS; r++) {
        for (int32_t id = 0; id < VOCAB; id++) {
            const uint64_t bits = rng_mix64(seed * 1000003 + (uint64_t)(r * VOCAB + id));
            rows[r][id] = id >= COMMON ? 100.0f : r % 3 == 0 ? (float)(bits % 40) * 0.25f : (float)(bits >> 40) * 0x1p-20f;
        }
    }
    for (int32_t i = 0; i < N_HISTORY; i++) {
        history[i] = (int32_t)(rng_mix64(seed + (uint64_t)i) % 50);
    }
}

/* ---- the definition ---- */
struct keyed { float key; int32_t id; };

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key ? -1 : 1) : x->id - y->id;
}

/* Keys of all ids that the row leaves, with noise where the token is drawn with it. */
static int32_t sort_plain(const struct draft_ranking *ranking, const int32_t *ids, int32_t n, struct keyed *sorted)
{
    static float noise[VOCAB];
    const float temperature = ranking->params->temperature;
    const bool has_noise = temperature > 0 && !ranking->by_probability;
    int32_t n_sorted = 0;
    rng_gumbel_fill(ranking->params->seed, COIN_TARGET, (uint32_t)ranking->position, 0, VOCAB, noise);
    for (int32_t i = 0; i < n; i++) {
        const int32_t id = ids != NULL ? ids[i] : i;
        const float value = ranking->logits[i];
        if (id != ranking->excluded && value > -MATHX_INF) {
            sorted[n_sorted++] = (struct keyed){ has_noise ? value / temperature + noise[id] : value, id };
        }
    }
    qsort(sorted, (size_t)n_sorted, sizeof *sorted, by_key);
    return n_sorted;
}

static int32_t sort_filtered(const struct draft_ranking *ranking, struct keyed *sorted)
{
    static float noise[VOCAB], prob[VOCAB];
    struct sampling_params params = *ranking->params;
    int32_t n_sorted = 0;
    const bool has_noise = params.temperature > 0 && !ranking->by_probability;
    if (params.temperature == 0) {
        params = (struct sampling_params){ .temperature = 1, .top_p = 1, .n_top_logprobs = -1,
            .repetition_penalty = params.repetition_penalty, .presence_penalty = params.presence_penalty,
            .frequency_penalty = params.frequency_penalty, .penalty_last_n = params.penalty_last_n,
            .biases = params.biases, .n_biases = params.n_biases };
    }
    assert_int_equal(sampling_distribution(backend, &params, ranking->logits, COMMON, ranking->history,
                                           ranking->n_history, scratch, prob), STATUS_OK);
    rng_gumbel_fill(params.seed, COIN_TARGET, (uint32_t)ranking->position, 0, VOCAB, noise);
    for (int32_t id = 0; id < COMMON; id++) {
        if (prob[id] > 0 && id != ranking->excluded) {
            sorted[n_sorted++] = (struct keyed){ mathx_log(prob[id]) + (has_noise ? noise[id] : 0), id };
        }
    }
    qsort(sorted, (size_t)n_sorted, sizeof *sorted, by_key);
    return n_sorted;
}

static void assert_ranked(const struct draft_ranking *ranking, const struct keyed *sorted, int32_t n_sorted)
{
    assert_int_equal(ranking->n, n_sorted < ranking->n_wanted ? n_sorted : ranking->n_wanted);
    for (int32_t i = 0; i < ranking->n; i++) {
        assert_int_equal(ranking->id[i], sorted[i].id);
    }
}

/* ---- rankings of all rows at once ---- */
static struct draft_ranking rankings[N_ROWS];
static struct draft_ranking *list[N_ROWS];
static int32_t found[N_ROWS][DRAFT_MAX_RANKED];
static struct sampling_params params_of[N_ROWS];

static void ask_all(uint64_t seed)
{
    static const int32_t wanted[] = { 64, 1, 7, 0, 33 };
    static const float temperatures[] = { 0, 1, 0.3f, 1.7f };
    fill_rows(seed);
    for (int32_t r = 0; r < N_ROWS; r++) {
        sampling_params_defaults(&params_of[r]);
        params_of[r].temperature = temperatures[r % 4];
        params_of[r].seed = seed + (uint64_t)r;
        params_of[r].n_top_logprobs = r % 5; /* of no matter here */
        rankings[r] = (struct draft_ranking){
            .params = &params_of[r], .history = history, .n_history = N_HISTORY - r, .position = 10 + r,
            .logits = rows[r], .excluded = -1, .by_probability = r % 7 == 6,
            .n_wanted = wanted[r % 5], .id = found[r] };
        list[r] = &rankings[r];
    }
}

static void plain_rows_are_sorted_by_logit_and_noise(void **state)
{
    (void)state;
    static struct keyed sorted[VOCAB];
    struct draft_chooser *chooser = open_chooser(NULL, 0);
    for (uint64_t seed = 1; seed <= 5; seed++) {
        ask_all(seed);
        draft_chooser_rank(chooser, list, N_ROWS);
        for (int32_t r = 0; r < N_ROWS; r++) {
            const int32_t best = rankings[r].n > 0 ? found[r][0] : -1;
            assert_ranked(&rankings[r], sorted, sort_plain(&rankings[r], NULL, COMMON, sorted));
            rankings[r].excluded = best; /* and again without it */
        }
        draft_chooser_rank(chooser, list, N_ROWS);
        for (int32_t r = 0; r < N_ROWS; r++) {
            assert_ranked(&rankings[r], sorted, sort_plain(&rankings[r], NULL, COMMON, sorted));
        }
    }
    draft_chooser_destroy(chooser);
}

static void a_cut_head_ranks_its_own_ids(void **state)
{
    (void)state;
    static struct keyed sorted[VOCAB];
    static int32_t kept[VOCAB];
    int32_t n = 0;
    for (int32_t id = 3; id < COMMON; id += 1 + id % 4) {
        kept[n++] = id;
    }
    struct draft_chooser *chooser = open_chooser(kept, n);
    ask_all(8);
    draft_chooser_rank(chooser, list, N_ROWS);
    for (int32_t r = 0; r < N_ROWS; r++) {
        assert_ranked(&rankings[r], sorted, sort_plain(&rankings[r], kept, n, sorted));
    }
    draft_chooser_destroy(chooser);
}

static void penalties_biases_and_filters_count(void **state)
{
    (void)state;
    static struct keyed sorted[VOCAB];
    static const struct sampling_bias biases[] = { { 5, 30.0f }, { 9, -MATHX_INF }, { COMMON + 3, 9.0f } };
    struct draft_chooser *chooser = open_chooser(NULL, 0);
    ask_all(9);
    for (int32_t r = 0; r < N_ROWS; r++) {
        params_of[r].repetition_penalty = r % 6 == 0 ? 1.5f : 1;
        params_of[r].presence_penalty = r % 6 == 1 ? 2.0f : 0;
        params_of[r].frequency_penalty = r % 6 == 2 ? 0.5f : 0;
        params_of[r].penalty_last_n = r % 2 == 0 ? -1 : 8;
        params_of[r].top_k = r % 6 == 3 ? 5 : 0;
        params_of[r].top_p = r % 6 == 4 ? 0.8f : 1;
        params_of[r].min_p = r % 6 == 5 ? 0.2f : 0;
        params_of[r].biases = biases;
        params_of[r].n_biases = 3;
        rankings[r].excluded = r % 4 == 3 ? 5 : -1;
    }
    draft_chooser_rank(chooser, list, N_ROWS);
    for (int32_t r = 0; r < N_ROWS; r++) {
        params_of[r].n_biases = 2; /* the third is of no id of the draft's */
        assert_ranked(&rankings[r], sorted, sort_filtered(&rankings[r], sorted));
        params_of[r].n_biases = 3;
    }
    draft_chooser_destroy(chooser);
}

/* The first of a row is the very token that the draft would choose there. */
static void the_first_is_the_drafts_own_choice(void **state)
{
    (void)state;
    struct draft_chooser *chooser = open_chooser(NULL, 0);
    for (uint64_t seed = 20; seed < 25; seed++) {
        ask_all(seed);
        draft_chooser_rank(chooser, list, N_ROWS);
        for (int32_t r = 0; r < N_ROWS; r++) {
            struct draft_choice choice = { .params = &params_of[r], .history = history, .position = 10 + r,
                                           .logits = rows[r] };
            struct draft_choice *one = &choice;
            draft_chooser_run(chooser, &one, 1);
            assert_true(rankings[r].n == 0 || rankings[r].by_probability || found[r][0] == choice.token);
        }
    }
    draft_chooser_destroy(chooser);
}

static void rows_that_are_no_numbers_rank_what_is_one(void **state)
{
    (void)state;
    struct draft_chooser *chooser = open_chooser(NULL, 0);
    ask_all(30);
    for (int32_t id = 0; id < VOCAB; id++) {
        rows[0][id] = MATHX_NAN;
        rows[5][id] = -MATHX_INF;
    }
    rows[0][7] = 1.0f;
    rankings[0].n_wanted = rankings[5].n_wanted = 3;
    draft_chooser_rank(chooser, list, N_ROWS);
    assert_int_equal(rankings[0].n, 1);
    assert_int_equal(found[0][0], 7);
    assert_int_equal(rankings[5].n, 0);
    draft_chooser_destroy(chooser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_rows_are_sorted_by_logit_and_noise),
        cmocka_unit_test(a_cut_head_ranks_its_own_ids),
        cmocka_unit_test(penalties_biases_and_filters_count),
        cmocka_unit_test(the_first_is_the_drafts_own_choice),
        cmocka_unit_test(rows_that_are_no_numbers_rank_what_is_one),
    };
    return cmocka_run_group_tests_name("rank", tests, open_lane, close_lane);
}
