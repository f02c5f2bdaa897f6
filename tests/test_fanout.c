/* test_fanout: closed forms against published figures, plans of whole numbers against the best one found
 * by trying all, and learned plans against the optimum of laws that are known here. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "draft/fanout.h"

enum { N_KINDS = 4, SEED = 20260 };
static const float acceptances[] = { 0, 0.3f, 0.5f, 0.7f, 0.8f, 0.9f, 0.97f, 1 };
enum { N_ACCEPTANCES = sizeof acceptances / sizeof acceptances[0] };

static double uniform(uint64_t seed, uint64_t i) { return (double)(rng_mix64(rng_mix64(seed) + i) >> 11) * 0x1p-53; }

static void assert_near(double found, double wanted, double bar)
{
    if (!(fabs(found - wanted) <= bar)) {
        fail_msg("found %.6f, expected %.6f", found, wanted);
    }
}

static struct fanout_plan choose(enum fanout_kind kind, const struct fanout_counts *counts, struct fanout_ask ask)
{
    static const struct fanout_counts nothing;
    const struct fanout_options options = { .kind = kind, .list = { 5, 0, 3, 1 }, .n_list = 4 };
    return fanout_choose(&options, counts != NULL ? counts : &nothing, &ask);
}

/* ---- closed forms ---- */
static void closed_forms_are_the_published_ones(void **state)
{
    (void)state;
    assert_near(fanout_uniform_miss(1, 7, 24), 1.0 / 3, 1e-12);
    assert_near(fanout_geometric_miss(0.9, 1, 7, 24), 0.280, 0.0005);
    assert_near(fanout_geometric_miss(0.8, 1, 7, 24), 0.316, 0.0005);
    assert_near(fanout_geometric_miss(0.7, 1, 7, 24), 0.299, 0.0005);
    assert_near(fanout_uniform_miss(2, 3, 8), 0.25, 1e-12);
    for (int32_t k = 1; k <= FANOUT_MAX_K; k++) { /* uniform is what geometric is at no tail, and never better */
        for (double a = 0.05; a < 1; a += 0.05) {
            assert_true(fanout_geometric_miss(a, 1, k, 24) <= fanout_uniform_miss(1, k, 24) + 1e-12);
            assert_true(fanout_geometric_miss(a, 0.5, k, 24) <= fanout_uniform_miss(0.5, k, 24) + 1e-12);
        }
    }
}

/* The miss rate of the published form is that of its own F_k: recomputed here from scratch. */
static void the_published_form_is_that_of_its_counts(void **state)
{
    (void)state;
    for (double a = 0.1; a < 0.96; a += 0.05) {
        for (int32_t n = 1; n <= FANOUT_MAX_K; n++) {
            const double tail = 0.5 + 0.1 * n, beta = pow(a, 1 / (1 + tail)), last = pow(1 - a, -1 / (1 + tail));
            const double sum = (1 - pow(beta, n)) / (1 - beta) + last * pow(beta, n);
            double miss = 0;
            for (int32_t k = 0; k <= n; k++) {
                const double count = 48 / sum * pow(beta, k) * (k < n ? 1 : last);
                miss += pow(a, k) * (k < n ? 1 - a : 1) * pow(count, -tail);
            }
            assert_near(fanout_geometric_miss(a, tail, n, 48), miss, 1e-9);
        }
    }
}

/* Whether a plan of 48 is beta^k in every row and one more in row K, but for rounding. */
static bool is_geometric(const struct fanout_plan *plan, double beta)
{
    const int32_t last = plan->n_rows - 1;
    const double first = 47 * (1 - beta) / (1 - pow(beta, last + 1));
    bool is_so = true;
    for (int32_t k = 0; k <= last; k++) {
        is_so = is_so && fabs(plan->count[k] - first * pow(beta, k) - (k == last)) < 1;
    }
    return is_so;
}

static void geometric_counts_are_the_closed_form(void **state)
{
    (void)state;
    for (double a = 0.1; a < 0.96; a += 0.05) {
        for (int32_t n = 1; n <= FANOUT_MAX_K; n++) {
            const double tail = 0.5 + 0.1 * n, beta = pow(a, 1 / (1 + tail));
            const struct fanout_plan plan = choose(FANOUT_GEOMETRIC, NULL, (struct fanout_ask){
                .n_proposed = n, .budget = 48, .acceptance = (float)a, .tail = (float)tail });
            assert_true(is_geometric(&plan, beta));
        }
    }
}

/* ---- whole numbers ---- */
/* Tries every plan of the budget; the least of `miss`. */
struct search {
    double (*miss)(const void *context, const struct fanout_plan *plan);
    const void *context;
    struct fanout_plan plan;
    double least;
};
static void try_all(struct search *search, int32_t k, int32_t left)
{
    if (k == search->plan.n_rows - 1) {
        search->plan.count[k] = left;
        const double miss = search->miss(search->context, &search->plan);
        search->least = miss < search->least ? miss : search->least;
        return;
    }
    for (int32_t count = 0; count <= left; count++) {
        search->plan.count[k] = count;
        try_all(search, k + 1, left - count);
    }
}

static double least_miss(double (*miss)(const void *, const struct fanout_plan *), const void *context,
                         int32_t n_rows, int32_t budget)
{
    struct search search = { .miss = miss, .context = context, .plan = { .n_rows = n_rows }, .least = 2 };
    try_all(&search, 0, budget);
    return search.least;
}

/* The law of the plans: with F candidates F^-r are missed, all with none; of row K, once it has its first, only
 * 1 - a, and of that as many as with one candidate less. */
static double law_miss(const void *context, const struct fanout_plan *plan)
{
    const struct fanout_ask *ask = context;
    const double a = (double)ask->acceptance;
    double miss = 0;
    for (int32_t k = 0; k < plan->n_rows; k++) {
        const bool is_last = k == plan->n_rows - 1;
        const double missed = pow(fmax(plan->count[k] - is_last, 1), -(double)ask->tail);
        miss += pow(a, k) * (is_last && plan->count[k] == 0 ? 1 : (1 - a) * missed);
    }
    return miss;
}

/* With several candidates a row, rounding costs next to nothing, and uniform is not better. */
static void geometric_is_near_the_best_whole_numbers(void **state)
{
    (void)state;
    double worst[2] = { 0, 0 }; /* few a row, many */
    for (int i = 1; i < N_ACCEPTANCES - 1; i++) {
        for (int32_t budget = 12; budget <= 40; budget += 4) {
            const struct fanout_ask ask = { .n_proposed = 3, .budget = budget, .acceptance = acceptances[i], .tail = 1 };
            const struct fanout_plan plan = choose(FANOUT_GEOMETRIC, NULL, ask);
            const struct fanout_plan even = choose(FANOUT_UNIFORM, NULL, ask);
            const double found = law_miss(&ask, &plan), best = least_miss(law_miss, &ask, 4, budget);
            assert_true(found <= law_miss(&ask, &even) + 1e-12);
            worst[budget >= 24] = fmax(worst[budget >= 24], found / best - 1);
        }
    }
    printf("geometric misses %.1f %% more than the best whole numbers under its law, %.1f %% from a budget of 24 on\n",
           100 * worst[0], 100 * worst[1]);
    assert_true(worst[0] < 0.15 && worst[1] < 0.05);
}

static void plans_use_the_budget(void **state)
{
    (void)state;
    struct fanout_counts counts = { .n_outcomes = 0 };
    for (int32_t i = 0; i < 1000; i++) {
        const int32_t n = i % (FANOUT_MAX_K + 1);
        fanout_observe(&counts, n, (int32_t)(uniform(SEED, (uint64_t)i) * (n + 0.99)), i % 70);
    }
    for (int32_t n = 0; n <= FANOUT_MAX_K; n++) {
        for (int32_t budget = 1; budget <= FANOUT_MAX_BUDGET; budget++) {
            for (int i = 0; i < N_ACCEPTANCES * N_KINDS; i++) {
                const enum fanout_kind kind = (enum fanout_kind)(i % N_KINDS);
                const struct fanout_plan plan = choose(kind, &counts, (struct fanout_ask){
                    .n_proposed = n, .budget = budget, .acceptance = acceptances[i / N_KINDS], .tail = 1 });
                const int32_t listed = 5 + 0 + 3 + (n - 2); /* 5, 0, 3, 1, 1, .. */
                const int32_t wanted = kind != FANOUT_LIST || n == 0 ? budget : n == 1 ? 5 : listed;
                assert_int_equal(plan.n_rows, n + 1);
                assert_int_equal(fanout_plan_total(&plan), wanted < budget ? wanted : budget);
                for (int32_t k = 0; k <= n; k++) {
                    assert_in_range(plan.count[k], 0, FANOUT_MAX_RANK);
                }
            }
        }
    }
}

static void plans_by_hand(void **state)
{
    (void)state;
    const struct fanout_ask ask = { .n_proposed = 3, .budget = 10, .acceptance = 0.8f, .tail = 1 };
    const int32_t even[] = { 3, 3, 2, 2 }, listed[] = { 5, 0, 3, 1 }, cut[] = { 5, 0, 1, 0 };
    assert_memory_equal(choose(FANOUT_UNIFORM, NULL, ask).count, even, sizeof even);
    assert_memory_equal(choose(FANOUT_LIST, NULL, ask).count, listed, sizeof listed);
    struct fanout_ask small = ask;
    small.budget = 6;
    assert_memory_equal(choose(FANOUT_LIST, NULL, small).count, cut, sizeof cut);
    /* one for row 3; beta = .894: F_0 = 9 / (1 + .894 + .8 + .716) = 2.64, 2.36, 2.11, 1.89 + 1 */
    const int32_t geometric[] = { 3, 2, 2, 3 };
    assert_memory_equal(choose(FANOUT_GEOMETRIC, NULL, ask).count, geometric, sizeof geometric);
    struct fanout_ask never = ask, always = ask;
    never.acceptance = NAN; /* no number is no acceptance: all of it at k = 0 and, as likely as not, K */
    always.acceptance = 2;
    assert_int_equal(choose(FANOUT_GEOMETRIC, NULL, never).count[0], 10);
    const int32_t sure[] = { 3, 2, 2, 3 }; /* what is never refused needs no more than one candidate */
    assert_memory_equal(choose(FANOUT_GEOMETRIC, NULL, always).count, sure, sizeof sure);
}

/* ---- the best plan of odds ---- */
static double odds_miss(const void *context, const struct fanout_plan *plan) { return fanout_miss(context, plan); }

/* Rows that fall as they like, flat stretches and zeros among them. */
static void fill_odds(struct fanout_odds *odds, int32_t n_proposed, uint64_t seed)
{
    double arrived = 1;
    memset(odds, 0, sizeof *odds);
    odds->n_rows = n_proposed + 1;
    for (int32_t k = 0; k <= n_proposed; k++) {
        const double goes_on = k == n_proposed ? 0 : uniform(seed, (uint64_t)k);
        odds->reach[k] = arrived * (1 - goes_on);
        arrived *= goes_on;
        double left = 1, share = uniform(seed, (uint64_t)(100 + k));
        for (int32_t rank = 0; rank < FANOUT_MAX_RANK; rank++) {
            const double chance = uniform(seed, (uint64_t)(1000 + k * 64 + rank));
            share = fmin(share, left) * (chance < 0.3 ? 1 : chance > 0.97 ? 0 : chance);
            odds->hit[k][rank] = (float)share;
            left -= share;
        }
    }
}

static void best_is_the_best_of_all(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct fanout_odds odds;
        const int32_t n = 1 + (int32_t)(seed % 4), budget = 1 + (int32_t)(seed % 9);
        float hit[FANOUT_MAX_BUDGET + 1];
        fill_odds(&odds, n, SEED + seed);
        const struct fanout_plan plan = fanout_best(&odds, budget);
        assert_int_equal(fanout_plan_total(&plan), budget);
        assert_near(fanout_miss(&odds, &plan), least_miss(odds_miss, &odds, n + 1, budget), 1e-7);
        fanout_hit_by_budget(&odds, FANOUT_MAX_BUDGET, hit);
        assert_true(hit[0] == 0);
        for (int32_t b = 1; b <= FANOUT_MAX_BUDGET; b++) {
            const struct fanout_plan other = fanout_best(&odds, b);
            assert_near((double)hit[b], 1 - fanout_miss(&odds, &other), 1e-6);
        }
    }
}

/* ---- learning ---- */
/* Where the true token falls: survival of each position, and how the ranks of rows fall. */
struct world { double survival[FANOUT_MAX_K]; double tail, bonus_first, bonus_tail; };

static struct fanout_odds odds_of(const struct world *world, int32_t n_proposed)
{
    struct fanout_odds odds = { .n_rows = n_proposed + 1 };
    double arrived = 1;
    for (int32_t k = 0; k <= n_proposed; k++) {
        const double goes_on = k < n_proposed ? world->survival[k] : 0;
        const double tail = k < n_proposed ? world->tail : world->bonus_tail;
        const double first = k < n_proposed ? 0 : world->bonus_first;
        odds.reach[k] = arrived * (1 - goes_on);
        arrived *= goes_on;
        for (int32_t rank = 0; rank < FANOUT_MAX_RANK; rank++) {
            const double share = (1 - first) * (pow(1 + rank, -tail) - pow(2 + rank, -tail));
            odds.hit[k][rank] = (float)(rank == 0 ? first + share : share);
        }
    }
    return odds;
}

static void observe_one(struct fanout_counts *counts, const struct fanout_odds *odds, uint64_t seed)
{
    double coin = uniform(seed, 1), beyond = uniform(seed, 2);
    int32_t k = 0, rank = 0;
    for (; k < odds->n_rows - 1 && coin >= odds->reach[k]; k++) {
        coin -= odds->reach[k];
    }
    for (; rank < FANOUT_MAX_RANK && beyond >= (double)odds->hit[k][rank]; rank++) {
        beyond -= (double)odds->hit[k][rank];
    }
    fanout_observe(counts, odds->n_rows - 1, k, rank);
}

static double miss_of(enum fanout_kind kind, const struct fanout_counts *counts, const struct fanout_odds *truth,
                      int32_t budget)
{
    const struct fanout_plan plan = choose(kind, counts, (struct fanout_ask){
        .n_proposed = truth->n_rows - 1, .budget = budget, .acceptance = 0.7f, .tail = 1 });
    return fanout_miss(truth, &plan);
}

static const struct world worlds[] = {
    { { .7, .7, .7, .7, .7, .7, .7 }, 1, .7, 1 },           /* what the geometric plan believes, but for row K */
    { { .5, .7, .8, .9, .9, .95, .95 }, 2, .9, 1.5 },       /* hard to begin with */
    { { .9, .8, .7, .6, .5, .4, .3 }, .5, .5, .7 },         /* harder and harder, long tails */
    { { .97, .97, .97, .97, .97, .97, .97 }, 3, .97, .4 },  /* nearly always row K */
    { { .1, .1, .1, .1, .1, .1, .1 }, .3, .1, .3 },         /* a poor draft */
};
enum { N_WORLDS = sizeof worlds / sizeof worlds[0] };

static void learning_finds_the_optimum(void **state)
{
    (void)state;
    static const int n_outcomes[] = { 64, 500, 4000, 20000 };
    static const double excess[] = { 0.03, 0.01, 0.006, 0.005 }; /* of miss, over the optimum, at most */
    for (int w = 0; w < N_WORLDS; w++) {
        static struct fanout_counts counts;
        const struct fanout_odds truth = odds_of(&worlds[w], 7);
        const struct fanout_plan optimum = fanout_best(&truth, 24);
        const double least = fanout_miss(&truth, &optimum);
        const double geometric = miss_of(FANOUT_GEOMETRIC, &counts, &truth, 24);
        int n = 0;
        memset(&counts, 0, sizeof counts);
        printf("world %d: optimum %.4f, geometric %.4f, learned", w, least, geometric);
        for (int i = 0; i < 4; i++) {
            for (; n < n_outcomes[i]; n++) {
                observe_one(&counts, &truth, rng_mix64(SEED + (uint64_t)w) + (uint64_t)n);
            }
            const double miss = miss_of(FANOUT_LEARNED, &counts, &truth, 24);
            printf(" %.4f (%d)", miss, n);
            assert_true(miss <= least + excess[i]);
            assert_true(i == 0 || miss <= geometric + 2e-3); /* in world 0 what geometric believes is so */
        }
        printf("\n");
    }
}

/* Nothing of K = 5 was seen, all of K = 7: what carries over is survival and ranks. */
static void what_is_learned_serves_other_k(void **state)
{
    (void)state;
    for (int w = 0; w < N_WORLDS; w++) {
        static struct fanout_counts counts;
        const struct fanout_odds seen = odds_of(&worlds[w], 7), truth = odds_of(&worlds[w], 5);
        const struct fanout_plan optimum = fanout_best(&truth, 24);
        memset(&counts, 0, sizeof counts);
        for (uint64_t i = 0; i < 4000; i++) {
            observe_one(&counts, &seen, SEED + 7 * i);
        }
        assert_true(miss_of(FANOUT_LEARNED, &counts, &truth, 24) <= fanout_miss(&truth, &optimum) + 0.006);
    }
}

static void geometric_until_enough_is_known(void **state)
{
    (void)state;
    static struct fanout_counts counts;
    const struct fanout_ask ask = { .n_proposed = 3, .budget = 12, .acceptance = 0.7f, .tail = 1 };
    const struct fanout_plan geometric = choose(FANOUT_GEOMETRIC, NULL, ask);
    memset(&counts, 0, sizeof counts);
    for (int32_t i = 0; i < FANOUT_LEARN_FROM; i++) {
        const struct fanout_plan plan = choose(FANOUT_LEARNED, &counts, ask);
        assert_memory_equal(&plan, &geometric, sizeof plan);
        fanout_observe(&counts, 3, 1, i % 8); /* always row 1, spread over eight ranks */
    }
    const struct fanout_plan learned = choose(FANOUT_LEARNED, &counts, ask);
    assert_true(learned.count[1] > geometric.count[1] && learned.count[1] >= 8);
}

/* The text changes its nature: within some thousand outcomes the plan is that of the new one. */
static void old_outcomes_fade(void **state)
{
    (void)state;
    static struct fanout_counts counts;
    const struct fanout_odds before = odds_of(&worlds[4], 7), after = odds_of(&worlds[3], 7);
    const struct fanout_plan optimum = fanout_best(&after, 24);
    memset(&counts, 0, sizeof counts);
    for (uint64_t i = 0; i < 200000; i++) {
        observe_one(&counts, &before, SEED + i);
    }
    assert_true(miss_of(FANOUT_LEARNED, &counts, &after, 24) > fanout_miss(&after, &optimum) + 0.1);
    for (uint64_t i = 0; i < 12000; i++) {
        observe_one(&counts, &after, SEED * 3 + i);
    }
    assert_true(miss_of(FANOUT_LEARNED, &counts, &after, 24) <= fanout_miss(&after, &optimum) + 0.02);
    assert_int_equal(counts.n_outcomes, 212000);
}

/* The likeliest rank is the fourth: candidates before it must be bought with it, and are. */
static void a_dip_does_not_stop_it(void **state)
{
    (void)state;
    static struct fanout_counts counts;
    memset(&counts, 0, sizeof counts);
    for (int32_t i = 0; i < 4000; i++) {
        fanout_observe(&counts, 2, i % 2, i % 2 == 0 ? 3 : i % 8);
    }
    const struct fanout_plan plan = choose(FANOUT_LEARNED, &counts, (struct fanout_ask){
        .n_proposed = 2, .budget = 6, .acceptance = 0.5f, .tail = 1 });
    assert_true(plan.count[0] >= 4);
}

static void odds_are_odds(void **state)
{
    (void)state;
    static struct fanout_counts counts;
    memset(&counts, 0, sizeof counts);
    for (int32_t i = 0; i < 3000; i++) {
        static const int32_t ranks[] = { -5, 0, 1, 2, 63, 64, 1 << 30 };
        fanout_observe(&counts, i % 9, i % (1 + i % 9), ranks[i % 7]);
        if (i % 100 != 0) {
            continue;
        }
        for (int32_t n = 0; n <= FANOUT_MAX_K; n++) {
            struct fanout_odds odds;
            double sum = 0;
            fanout_estimate(&counts, &(struct fanout_ask){ .n_proposed = n, .budget = 1,
                .acceptance = acceptances[i % N_ACCEPTANCES], .tail = 0.1f * (float)(i % 30) }, &odds);
            for (int32_t k = 0; k <= n; k++) {
                double hits = 0;
                for (int32_t rank = 0; rank < FANOUT_MAX_RANK; rank++) {
                    hits += (double)odds.hit[k][rank];
                    assert_true(odds.hit[k][rank] >= 0);
                    assert_true(rank == 0 || odds.hit[k][rank] <= odds.hit[k][rank - 1]);
                }
                assert_true(hits <= 1 + 1e-5 && odds.reach[k] >= 0);
                sum += odds.reach[k];
            }
            assert_near(sum, 1, 1e-9);
        }
    }
}

/* What was counted, where it is plenty, is what is estimated. */
static void estimates_are_the_counts(void **state)
{
    (void)state;
    static struct fanout_counts counts;
    struct fanout_odds odds;
    memset(&counts, 0, sizeof counts);
    for (int32_t i = 0; i < 4000; i++) { /* k = 0: ranks 0, 1; k = 1: beyond; k = K = 2: rank 0 */
        fanout_observe(&counts, 2, i % 4 == 0 ? 0 : i % 4 == 1 ? 1 : 2, i % 4 == 0 ? i / 4 % 2 : i % 4 == 1 ? 99 : 0);
    }
    fanout_estimate(&counts, &(struct fanout_ask){ .n_proposed = 2, .budget = 1, .acceptance = 0.1f, .tail = 1 }, &odds);
    assert_near(odds.reach[0], 0.25, 0.01);
    assert_near(odds.reach[1], 0.25, 0.01);
    assert_near((double)odds.hit[0][0], 0.5, 0.02);
    assert_near((double)odds.hit[0][1], 0.5, 0.02);
    assert_near((double)odds.hit[1][0], 0, 0.02);
    assert_near((double)odds.hit[2][0], 1, 0.02);
}

/* ---- names ---- */
static void kinds_have_names(void **state)
{
    (void)state;
    struct fanout_options options = { .budget = 24 };
    assert_int_equal(fanout_parse("geometric", &options), STATUS_OK);
    assert_int_equal(options.kind, FANOUT_GEOMETRIC);
    assert_int_equal(fanout_parse("uniform", &options), STATUS_OK);
    assert_int_equal(options.kind, FANOUT_UNIFORM);
    assert_int_equal(fanout_parse("list:9,6,4,5", &options), STATUS_OK);
    assert_int_equal(options.kind, FANOUT_LIST);
    assert_int_equal(options.n_list, 4);
    assert_int_equal(options.list[3], 5);
    assert_int_equal(fanout_parse("list:0,64", &options), STATUS_OK);
    assert_int_equal(fanout_parse("learned", &options), STATUS_OK);
    assert_int_equal(options.kind, FANOUT_LEARNED);
    assert_int_equal(options.n_list, 0);
    assert_int_equal(options.budget, 24);
}

static void wrong_names_are_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "", "Learned", "learned ", "list", "list:", "list:,", "list:1,", "list:,1", "list:1,,2", "list:-1", "list:+1",
        "list:1.5", "list: 1", "list:65", "list:99999999999999999999", "list:0", "list:0,0", "list:40,25",
        "list:1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", "list:1;2", "geometric:1",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct fanout_options options = { .kind = FANOUT_UNIFORM, .budget = 7 };
        const struct fanout_options kept = options;
        if (fanout_parse(wrong[i], &options) != STATUS_INVALID || memcmp(&options, &kept, sizeof kept) != 0) {
            fail_msg("'%s' was taken", wrong[i]);
        }
        assert_non_null(strstr(status_message(), "fan-out"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_forms_are_the_published_ones),
        cmocka_unit_test(the_published_form_is_that_of_its_counts),
        cmocka_unit_test(geometric_counts_are_the_closed_form),
        cmocka_unit_test(geometric_is_near_the_best_whole_numbers),
        cmocka_unit_test(plans_use_the_budget),
        cmocka_unit_test(plans_by_hand),
        cmocka_unit_test(best_is_the_best_of_all),
        cmocka_unit_test(learning_finds_the_optimum),
        cmocka_unit_test(what_is_learned_serves_other_k),
        cmocka_unit_test(geometric_until_enough_is_known),
        cmocka_unit_test(old_outcomes_fade),
        cmocka_unit_test(a_dip_does_not_stop_it),
        cmocka_unit_test(odds_are_odds),
        cmocka_unit_test(estimates_are_the_counts),
        cmocka_unit_test(kinds_have_names),
        cmocka_unit_test(wrong_names_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
