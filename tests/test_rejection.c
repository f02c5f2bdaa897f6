/* test_rejection: is what the rejection rule writes distributed exactly as the target's own text?
 * By integrating over all values of all coins, the draft's included, on vocabularies of 3 to 5; and
 * the same judgement on rules that are wrong in the ways they are known to go wrong, which must
 * fail it. Coins have 24 bits, so each decision may miss by 2^-24; the bar is 1e-6.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sampling/sampling.h"
#include "tests/coin_integral.h"
#include "tests/toy_text.h"
#include "verify/verify.h"

enum { MAX_K = 2, N_PAIRS = 40 };
static const double bar = 1e-6;

/* What is wrong on purpose. */
enum flaw {
    THE_RULE,             /* no copy: verify_rejection */
    FLAW_NONE,            /* the rule written out once more, right */
    FLAW_ARGMAX,          /* accepts what the target likes best */
    FLAW_NOT_STRICT,      /* <= instead of < */
    FLAW_HALF,            /* draft_prob rounded to half precision */
    FLAW_FIRST_FREE,      /* the first proposal is not verified */
    FLAW_DRAFT_COIN,      /* the draft's draw and the acceptance share a coin */
    FLAW_ACCEPT_COIN,     /* acceptance and the draw after it share a coin */
    FLAW_NO_RESIDUAL,     /* draws anew from the whole target row */
    FLAW_OTHER_TOKEN,     /* draws anew from the target row without the refused token */
    FLAW_DRAFT_UNFILTERED,/* drawn from a filtered row, stated without the filter */
    FLAW_TARGET_UNFILTERED, /* the filter of the draft's side is missing on the target's */
    FLAW_TIES,            /* stated row keeps other ids among equals than the row drawn from */
    FLAW_STALE_ROW,       /* the tokens of the run do not count for its later rows */
    FLAW_UNRESHAPED,      /* drawn from a reshaped row, stated as it was before */
    FLAWS,
};
static const char *const flaw_names[FLAWS] = {
    "the rule", "none", "argmax", "not strict", "half precision", "first one free",
    "coin of the draft's draw", "coin of acceptance", "no residual", "point residual",
    "draft stated unfiltered", "target unfiltered", "other tie order", "stale target row",
    "stated unreshaped",
};

struct scene {
    struct toy_text toy;
    int32_t max_k;
    bool is_point; /* the draft names one token a context, without a draw */
    int32_t n_reshaped; /* likeliest ids of the draft's rows, */
    float reshape;      /* times this */
    enum flaw flaw;
    int32_t token[TOY_TOKENS];
    /* of the round */
    struct coin_walk *walk;
    int32_t previous, proposed[MAX_K];
    const float *stated[MAX_K];
    float filtered[MAX_K][TOY_VOCAB], restated[MAX_K][TOY_VOCAB], kept[TOY_VOCAB];
};

/* The n likeliest ids of a row, lowest or highest id first among equals, normalised. */
enum ties { LOWEST_FIRST, HIGHEST_FIRST };
static void keep_top(const float *row, int32_t n_vocab, int32_t n, enum ties ties, float *out)
{
    bool taken[TOY_VOCAB] = { false };
    float sum = 0;
    memset(out, 0, TOY_VOCAB * sizeof *out);
    for (int32_t round = 0; round < n; round++) {
        int32_t best = -1;
        for (int32_t i = 0; i < n_vocab; i++) {
            const int32_t id = ties == HIGHEST_FIRST ? n_vocab - 1 - i : i;
            if (!taken[id] && (best < 0 || row[id] > row[best])) {
                best = id;
            }
        }
        taken[best] = true;
        out[best] = row[best];
        sum += row[best];
    }
    for (int32_t id = 0; id < n_vocab; id++) {
        out[id] /= sum;
    }
}

/* The token before row `row` of the round. */
static int32_t token_before(const struct scene *scene, int32_t row)
{
    return row == 0 || scene->flaw == FLAW_STALE_ROW ? scene->previous : scene->proposed[row - 1];
}

static enum status target_prob(void *context, int32_t row, const float **prob)
{
    struct scene *scene = context;
    *prob = toy_text_target(&scene->toy, token_before(scene, row));
    if (scene->flaw == FLAW_TARGET_UNFILTERED) { /* a little of everything, as if nothing was cut */
        for (int32_t id = 0; id < scene->toy.n_vocab; id++) {
            scene->kept[id] = 0.9f * (*prob)[id] + 0.1f / (float)scene->toy.n_vocab;
        }
        *prob = scene->kept;
    }
    return STATUS_OK;
}

static int32_t argmax(const float *row, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        best = row[i] > row[best] ? i : best;
    }
    return best;
}

/* Draws the proposals of a round and says what from. */
static void draft_round(struct scene *scene, int32_t position, int32_t k)
{
    int32_t previous = scene->previous;
    for (int32_t i = 0; i < k; i++) {
        const float *row = toy_text_draft(&scene->toy, previous);
        const int32_t n_vocab = scene->toy.n_vocab;
        scene->stated[i] = row;
        if (scene->flaw == FLAW_DRAFT_UNFILTERED || scene->flaw == FLAW_TIES) {
            keep_top(row, n_vocab, 2, LOWEST_FIRST, scene->filtered[i]);
            keep_top(row, n_vocab, 2, HIGHEST_FIRST, scene->restated[i]);
            scene->stated[i] = scene->flaw == FLAW_TIES ? scene->restated[i] : row;
            row = scene->filtered[i];
        }
        if (scene->n_reshaped > 0) {
            memcpy(scene->filtered[i], row, (size_t)n_vocab * sizeof *row);
            sampling_reshape_top(scene->filtered[i], n_vocab, scene->n_reshaped, scene->reshape);
            scene->stated[i] = scene->flaw == FLAW_UNRESHAPED ? row : scene->filtered[i];
            row = scene->filtered[i];
        }
        if (scene->is_point) {
            scene->proposed[i] = argmax(row, n_vocab);
            scene->stated[i] = NULL;
        } else {
            const float coin = coin_walk_ask(scene->walk, COIN_DRAFT, position + i, 0);
            scene->proposed[i] = sampling_draw_from(row, n_vocab, coin);
        }
        coin_walk_note(scene->walk, scene->proposed[i]);
        previous = scene->proposed[i];
    }
}

/* ---- the rule written out, with a flaw ---- */
static bool flawed_accepts(struct scene *scene, int32_t position, int32_t i, const float *target)
{
    const int32_t token = scene->proposed[i];
    const float draft_prob = scene->stated[i] == NULL ? 1.0f : scene->stated[i][token];
    const enum coin_purpose purpose = scene->flaw == FLAW_DRAFT_COIN ? COIN_DRAFT : COIN_ACCEPT;
    const float coin = coin_walk_ask(scene->walk, purpose, position + i, 0);
    switch (scene->flaw) {
    case FLAW_ARGMAX:
        return token == argmax(target, scene->toy.n_vocab);
    case FLAW_NOT_STRICT:
        return (double)coin * (double)draft_prob <= (double)target[token];
    case FLAW_HALF:
        return verify_accepts(coin, mathx_f16_to_f32(mathx_f32_to_f16(draft_prob)), target[token]);
    case FLAW_FIRST_FREE:
        return i == 0 || verify_accepts(coin, draft_prob, target[token]);
    default:
        return verify_accepts(coin, draft_prob, target[token]);
    }
}

static struct verify_outcome flawed_rejection(struct scene *scene, int32_t position, int32_t k)
{
    const int32_t n_vocab = scene->toy.n_vocab;
    const float *target = NULL;
    for (int32_t i = 0;; i++) {
        assert_int_equal(target_prob(scene, i, &target), STATUS_OK);
        if (i < k && flawed_accepts(scene, position, i, target)) {
            continue;
        }
        const bool is_shared = scene->flaw == FLAW_ACCEPT_COIN && i < k;
        const float coin = coin_walk_ask(scene->walk, is_shared ? COIN_ACCEPT : COIN_RESIDUAL,
                                         position + i, 0);
        const bool is_whole = i == k || scene->flaw == FLAW_NO_RESIDUAL;
        const float *less = scene->flaw == FLAW_OTHER_TOKEN || i == k ? NULL : scene->stated[i];
        return (struct verify_outcome){ i, is_whole
            ? verify_target_draw(target, n_vocab, coin)
            : verify_residual_draw(target, less, scene->proposed[i], n_vocab, coin) };
    }
}

static struct verify_outcome right_rejection(struct scene *scene, int32_t position, int32_t k)
{
    const struct verify_run run = {
        .target = { scene->toy.n_vocab, target_prob, scene },
        .coins = { .position = position, .coin = coin_walk_ask, .context = scene->walk },
        .proposed = scene->proposed, .n_proposed = k, .draft_prob = scene->stated,
    };
    struct verify_outcome outcome;
    assert_int_equal(verify_rejection(&run, &outcome), STATUS_OK);
    return outcome;
}

/* Rounds of up to max_k proposals until the text is full. */
static void write_text(void *context, struct coin_walk *walk)
{
    struct scene *scene = context;
    int32_t n = 0;
    scene->walk = walk;
    while (n < scene->toy.n_tokens) {
        const int32_t left = scene->toy.n_tokens - n - 1;
        const int32_t k = left < scene->max_k ? left : scene->max_k, position = 100 + n;
        scene->previous = n == 0 ? -1 : scene->token[n - 1];
        draft_round(scene, position, k);
        const struct verify_outcome outcome = scene->flaw == THE_RULE
                                                  ? right_rejection(scene, position, k)
                                                  : flawed_rejection(scene, position, k);
        for (int32_t i = 0; i < outcome.n_accepted; i++) {
            scene->token[n++] = scene->proposed[i];
        }
        scene->token[n++] = outcome.recovery_token;
        coin_walk_note(walk, outcome.n_accepted * 100 + outcome.recovery_token);
    }
}

static void add_text(void *context, double prob)
{
    struct scene *scene = context;
    toy_text_add(&scene->toy, scene->token, prob);
}

static double judge(struct scene *scene)
{
    const struct coin_program program = { write_text, add_text, scene };
    toy_text_begin(&scene->toy);
    coin_integrate(&program);
    return toy_text_worst(&scene->toy);
}

/* One and two tokens ahead; vocabularies of 3, 4 and 5; drawn and point proposals. */
static void fill_scene(struct scene *scene, int32_t pair)
{
    const int32_t n_tokens = pair % 3 == 0 ? 3 : 2;
    *scene = (struct scene){ .max_k = n_tokens - 1, .is_point = pair % 5 == 4 };
    toy_text_fill(&scene->toy, 3 + pair / 3 % 3, n_tokens, (uint64_t)pair);
}

static void rule_is_exact(void **state)
{
    (void)state;
    double worst = 0;
    for (int32_t pair = 0; pair < 3 * N_PAIRS; pair++) {
        struct scene scene;
        fill_scene(&scene, pair);
        const double difference = judge(&scene);
        if (difference > bar) {
            fail_msg("pair %d: off by %g", pair, difference);
        }
        worst = fmax(worst, difference);
    }
    printf("%d pairs: largest difference to the target %.2g\n", 3 * N_PAIRS, worst);
}

/* Saguaro sampling: whatever the factor and however many ids, and with a draft that is the target's equal,
 * the text is the target's. */
static void rule_is_exact_with_reshaped_drafts(void **state)
{
    (void)state;
    static const float factors[] = { 0, 0.1f, 0.5f, 1 };
    for (int i = 0; i < 4; i++) {
        double worst = 0;
        for (int32_t pair = 0; pair < 2 * N_PAIRS; pair++) {
            struct scene scene;
            fill_scene(&scene, pair);
            scene.n_reshaped = 1 + pair % 3;
            scene.reshape = factors[i];
            worst = fmax(worst, judge(&scene));
        }
        printf("factor %.1f: largest difference to the target %.2g\n", (double)factors[i], worst);
        assert_true(worst < bar);
    }
}

static void flaws_are_found_out(void **state)
{
    (void)state;
    for (enum flaw flaw = FLAW_NONE; flaw < FLAWS; flaw++) {
        double worst = 0;
        for (int32_t pair = 0; pair < N_PAIRS; pair++) {
            struct scene scene;
            fill_scene(&scene, pair);
            scene.flaw = flaw;
            scene.n_reshaped = flaw == FLAW_UNRESHAPED ? 1 : 0;
            scene.reshape = 0.5f;
            worst = fmax(worst, judge(&scene));
        }
        printf("flaw %-24s off by %.2g\n", flaw_names[flaw], worst);
        assert_true(flaw == FLAW_NONE ? worst < bar : worst > 2 * bar);
    }
}

/* ---- one run: what is asked for, what is refused ---- */
struct table {
    const float *row[4]; /* NULL: this row fails */
    int32_t asked[8], n_asked;
    float accept, residual;
    int32_t coin[8], n_coins; /* purpose * 1000 + position * 10 + index, as asked */
};

static enum status table_prob(void *context, int32_t row, const float **prob)
{
    struct table *table = context;
    table->asked[table->n_asked++] = row;
    *prob = table->row[row];
    return *prob == NULL ? status_fail(STATUS_NUMERIC, "a row that is no number") : STATUS_OK;
}

static float table_coin(void *context, enum coin_purpose purpose, int32_t position, int32_t index)
{
    struct table *table = context;
    table->coin[table->n_coins++] = (int32_t)purpose * 1000 + position * 10 + index;
    return purpose == COIN_ACCEPT ? table->accept : table->residual;
}

static const float even[3] = { 0.5f, 0.5f, 0 }, second[3] = { 0, 1, 0 }, third[3] = { 0, 0, 1 };

static struct verify_run table_run(struct table *table, const int32_t *proposed, int32_t n)
{
    return (struct verify_run){ .target = { 3, table_prob, table },
                                .coins = { .position = 7, .coin = table_coin, .context = table },
                                .proposed = proposed, .n_proposed = n };
}

/* Rows behind a refused proposal are never computed; coins are those of the tokens' positions. */
static void asks_for_what_it_needs(void **state)
{
    (void)state;
    const int32_t proposed[] = { 0, 1, 0 };
    struct table table = { .row = { even, second, third }, .accept = 0.25f, .residual = 0.5f };
    const struct verify_run run = table_run(&table, proposed, 3);
    struct verify_outcome outcome;
    assert_int_equal(verify_rejection(&run, &outcome), STATUS_OK);
    assert_int_equal(outcome.n_accepted, 2);
    assert_int_equal(outcome.recovery_token, 2);
    const int32_t rows[] = { 0, 1, 2 }, coins[] = { 1070, 1080, 1090, 2090 };
    assert_int_equal(table.n_asked, 3);
    assert_memory_equal(table.asked, rows, sizeof rows);
    assert_int_equal(table.n_coins, 4);
    assert_memory_equal(table.coin, coins, sizeof coins);
}

static void bonus_and_nothing_proposed(void **state)
{
    (void)state;
    const int32_t proposed[] = { 0, 1 };
    struct table table = { .row = { even, second, third }, .accept = 0.25f, .residual = 0.5f };
    struct verify_run run = table_run(&table, proposed, 2);
    struct verify_outcome outcome;
    assert_int_equal(verify_rejection(&run, &outcome), STATUS_OK);
    assert_int_equal(outcome.n_accepted, 2);
    assert_int_equal(outcome.recovery_token, 2);
    assert_int_equal(table.coin[2], 2090);
    table.n_coins = table.n_asked = 0;
    run.n_proposed = 0;
    run.proposed = NULL;
    assert_int_equal(verify_rejection(&run, &outcome), STATUS_OK);
    assert_int_equal(outcome.n_accepted, 0);
    assert_int_equal(outcome.recovery_token, 1); /* 0.5 is the first coin of the second half */
    assert_int_equal(table.coin[0], 2070);
    assert_int_equal(table.n_asked, 1);
}

static void failed_row_ends_the_run(void **state)
{
    (void)state;
    const int32_t proposed[] = { 0, 1, 0 };
    struct table table = { .row = { even, second, NULL }, .accept = 0.25f };
    const struct verify_run run = table_run(&table, proposed, 3);
    struct verify_outcome outcome;
    assert_int_equal(verify_rejection(&run, &outcome), STATUS_NUMERIC);
    assert_int_equal(outcome.n_accepted, 2);
    assert_int_equal(outcome.recovery_token, -1);
}

/* Ids that are none, and stated rows that are no distributions: the outcome is one the target
 * could have written, and memory is left alone. */
static void draft_may_lie(void **state)
{
    (void)state;
    static const int32_t wild[] = { -1, 3, INT32_MIN, INT32_MAX, 2 };
    const float nan[3] = { NAN, NAN, NAN }, below[3] = { -1, -INFINITY, -5 };
    const float above[3] = { INFINITY, 9, INFINITY }, nothing[3] = { 0 };
    const float *const rows[] = { NULL, nan, below, above, nothing };
    for (int i = 0; i < 25; i++) {
        for (int coin = 0; coin < 4; coin++) {
            const float *stated[] = { rows[i / 5] };
            struct table table = { .row = { even, even }, .accept = 0.25f * (float)coin,
                                   .residual = 0.25f * (float)coin };
            struct verify_run run = table_run(&table, &wild[i % 5], 1);
            struct verify_outcome outcome;
            run.draft_prob = stated;
            assert_int_equal(verify_rejection(&run, &outcome), STATUS_OK);
            assert_true(outcome.n_accepted == 0 || (stated[0] == below && i % 5 == 4));
            assert_in_range(outcome.recovery_token, 0, 1);
        }
    }
}

/* Half precision would lose a draft probability of 3e-8 and accept whatever the target likes. */
static void steps_are_strict_and_fine(void **state)
{
    (void)state;
    assert_true(verify_accepts(0.25f, 3e-8f, 1e-8f));
    assert_false(verify_accepts(0.5f, 3e-8f, 1e-8f));
    assert_true(verify_accepts(0.5f, mathx_f16_to_f32(mathx_f32_to_f16(2e-8f)), 1e-8f));
    assert_false(verify_accepts(0.0f, 1.0f, 0.0f));
    assert_false(verify_accepts(0.5f, 0.5f, 0.25f)); /* equal is not less */
    assert_true(verify_accepts(0.5f, 0.5f, nextafterf(0.25f, 1.0f)));
    assert_true(verify_accepts(0x1.fffffep-1f, 0.3f, 0.3f)); /* the highest coin */
    assert_false(verify_accepts(0.5f, NAN, 1.0f));
    assert_false(verify_accepts(0.5f, 1.0f, NAN));
}

/* Without a function in their place coins are those of the seed: the draws of a thousand seeds and
 * positions, told one by one. */
static void coins_are_the_seeds(void **state)
{
    (void)state;
    static const float draft[3] = { 0.25f, 0.5f, 0.25f }, target[3] = { 0.5f, 0.25f, 0.25f };
    const float *const stated[] = { draft };
    for (int32_t i = 0; i < 1000; i++) {
        const uint64_t seed = rng_mix64((uint64_t)i);
        const float draw = rng_coin_uniform(seed, COIN_DRAFT, (uint32_t)i, 0);
        const float accept = rng_coin_uniform(seed, COIN_ACCEPT, (uint32_t)i, 0);
        const float next = rng_coin_uniform(seed, COIN_RESIDUAL, (uint32_t)i + 1, 0);
        const int32_t proposed = sampling_draw_from(draft, 3, draw);
        assert_int_equal(proposed, draw < 0.25f ? 0 : draw < 0.75f ? 1 : 2);
        struct table table = { .row = { target, even } };
        const struct verify_run run = {
            .target = { 3, table_prob, &table }, .coins = { .seed = seed, .position = i },
            .proposed = &proposed, .n_proposed = 1, .draft_prob = stated,
        };
        struct verify_outcome outcome;
        assert_int_equal(verify_rejection(&run, &outcome), STATUS_OK);
        const bool is_accepted = proposed != 1 || accept < 0.5f;
        assert_int_equal(outcome.n_accepted, is_accepted);
        /* what is left of the target once the draft is taken off is token 0 alone */
        assert_int_equal(outcome.recovery_token, !is_accepted ? 0 : next < 0.5f ? 0 : 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_is_exact),
        cmocka_unit_test(rule_is_exact_with_reshaped_drafts),
        cmocka_unit_test(flaws_are_found_out),
        cmocka_unit_test(asks_for_what_it_needs),
        cmocka_unit_test(bonus_and_nothing_proposed),
        cmocka_unit_test(failed_row_ends_the_run),
        cmocka_unit_test(draft_may_lie),
        cmocka_unit_test(steps_are_strict_and_fine),
        cmocka_unit_test(coins_are_the_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
