/* A few cells of the equivalence program (tests/equivalence): the whole engine on the default pair, on a
 * planted pair beyond 2048 positions and on experts, against plain decoding alone; and that the program
 * sees what differs. `make equivalence` runs the rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/equivalence/equivalence.h"

enum { NONE, NGRAM, SUFFIX, LAYERSKIP, MODEL, SEVERAL, AHEAD, AHEAD_HALF, AHEAD_MISS, REMOTE }; /* in DRAFT_NAMES */
enum { BATCH_1, BATCH_2, BATCH_4, BATCH_8, BATCH_16, PAGE_16 = 0, PAGE_64, ENOUGH = 0, FEW };

static struct subjects subjects;
static struct tally tally;

static const struct subject *find(const char *name)
{
    subjects_find(&subjects);
    for (int32_t i = 0; i < subjects.n; i++) {
        if (strcmp(subjects.subject[i].name, name) == 0) {
            return &subjects.subject[i];
        }
    }
    return NULL;
}

static void examine_cells(const char *name, const struct cell *cells, int32_t n_cells)
{
    const struct subject *subject = find(name);
    if (subject == NULL) {
        skip();
        return;
    }
    assert_true(examine(&(struct examination){ .subject = subject, .cells = cells, .n_cells = n_cells }, &tally));
    if (tally_failures(&tally) > 0) {
        tally_print(stdout, subject, &tally);
    }
    assert_int_equal(tally_failures(&tally), 0);
    assert_int_equal(tally.n_cells, n_cells);
}

static void the_default_pair(void **state)
{
    (void)state;
    static const struct cell cells[] = {
        { MODEL, 4, BATCH_8, PAGE_16, ENOUGH }, { MODEL, K_MIXED, BATCH_16, PAGE_16, FEW },
        { SEVERAL, K_AUTO, BATCH_4, PAGE_64, ENOUGH }, { LAYERSKIP, 3, BATCH_16, PAGE_16, FEW },
        { AHEAD, 4, BATCH_4, PAGE_64, ENOUGH }, { REMOTE, 3, BATCH_2, PAGE_16, ENOUGH },
    };
    if (getenv("TANDEM_TEST_QUICK") != NULL) {
        skip(); /* a pass takes a hundred times as long under sanitizers: the small models then */
    }
    examine_cells("stories15M", cells, 6);
    assert_true(tally.n_preempted > 0);
    assert_true(tally.accepted[MODEL] > 0 && tally.accepted[MODEL] < tally.proposed[MODEL]);
}

/* Texts on both sides of 2048 positions, and pages for one of them and a little more: they wait. */
static void a_planted_pair_beyond_2048(void **state)
{
    (void)state;
    static const struct cell cells[] = {
        { MODEL, 5, BATCH_16, PAGE_16, FEW }, { SEVERAL, K_MIXED, BATCH_4, PAGE_64, ENOUGH },
    };
    if (getenv("TANDEM_TEST_QUICK") != NULL) {
        skip();
    }
    examine_cells("planted-pair", cells, 2);
    assert_true(tally.accepted[MODEL] > 0 && tally.accepted[MODEL] < tally.proposed[MODEL]);
}

/* Each kind of fallback, with all hits, some and none, on pages for all and for few; and a worker. */
static void drafts_that_work_ahead(void **state)
{
    (void)state;
    static const struct cell cells[] = {
        { AHEAD, 4, BATCH_4, PAGE_16, ENOUGH }, { REMOTE, 4, BATCH_4, PAGE_64, ENOUGH },
        { AHEAD_HALF, K_MIXED, BATCH_8, PAGE_16, FEW }, { AHEAD_MISS, 5, BATCH_16, PAGE_64, FEW },
        { AHEAD, K_AUTO, BATCH_16, PAGE_64, FEW }, { AHEAD_HALF, K_AUTO, BATCH_1, PAGE_64, ENOUGH },
        { AHEAD_MISS, K_AUTO, BATCH_8, PAGE_16, ENOUGH }, { AHEAD, 8, BATCH_8, PAGE_16, FEW },
        { REMOTE, K_MIXED, BATCH_16, PAGE_16, FEW },
    };
    const bool is_quick = getenv("TANDEM_TEST_QUICK") != NULL;
    examine_cells("experts", cells, is_quick ? 2 : 9);
    assert_true(is_quick || tally.accepted[AHEAD] > 0); /* what is ready in time is a matter of time */
}

static void experts_that_draft_for_themselves(void **state)
{
    (void)state;
    static const struct cell cells[] = {
        { MODEL, 7, BATCH_8, PAGE_16, FEW }, { MODEL, K_AUTO, BATCH_2, PAGE_64, ENOUGH },
        { SUFFIX, 8, BATCH_16, PAGE_16, ENOUGH }, { NGRAM, 2, BATCH_4, PAGE_64, FEW },
    };
    examine_cells("experts", cells, getenv("TANDEM_TEST_QUICK") != NULL ? 1 : 4);
    assert_true(tally.proposed[MODEL] > 0);
}

static void a_folder_of_another_family(void **state)
{
    (void)state;
    static const struct cell cells[] = {
        { MODEL, K_MIXED, BATCH_8, PAGE_64, FEW }, { LAYERSKIP, 8, BATCH_4, PAGE_16, ENOUGH },
    };
    examine_cells("qwen3", cells, getenv("TANDEM_TEST_QUICK") != NULL ? 1 : 2);
}

/* ---- the oracle itself ---- */
static void a_planted_difference_is_seen(void **state)
{
    (void)state;
    static const struct cell cell = { SUFFIX, 4, BATCH_2, PAGE_64, ENOUGH };
    assert_true(examine(&(struct examination){ .subject = find("experts"), .cells = &cell, .n_cells = 1,
                                               .spoil = true }, &tally));
    assert_int_equal(tally_failures(&tally), 1);
    assert_int_equal(tally.n_different[SUFFIX][4], 1);
}

static void every_part_of_an_answer_counts(void **state)
{
    (void)state;
    static struct answer plain, other;
    int32_t at;
    plain = (struct answer){ .n_ids = 3, .ids = { 5, 6, 7 }, .n_text = 2, .text = "ab", .is_finished = true };
#define DIFFERS(change)                                           \
    do {                                                          \
        other = plain;                                            \
        assert_null(answer_difference(&plain, &other, &at));      \
        change;                                                   \
        assert_non_null(answer_difference(&plain, &other, &at));  \
    } while (0)
    DIFFERS(other.ids[2] = 8);
    DIFFERS(other.n_ids = 2);
    DIFFERS(other.text[1] = 'c');
    DIFFERS(other.n_text = 1);
    DIFFERS(other.logits_digest = 1);
    DIFFERS(other.logprobs_digest = 1);
    DIFFERS(other.fingerprint = 1);
    DIFFERS(other.seed = 1);
    DIFFERS(other.finish = TD_FINISH_LENGTH);
    DIFFERS(other.is_finished = false);
#undef DIFFERS
}

static void a_plan_meets_all_pairs_first_and_all_cells_at_last(void **state)
{
    (void)state;
    static struct plan plan;
    static bool is_met[N_DRAFTS][N_KS], is_seen[MAX_CELLS];
    int32_t n_met = 0, n_pages_met = 0, n_seen = 0;
    bool is_page_met[N_BATCHES][N_PAGES] = { { false } };
    plan_make(&plan, 9);
    assert_in_range(plan.n_covering, N_DRAFTS * N_KS, 2 * N_DRAFTS * N_KS);
    for (int32_t i = 0; i < plan.n_covering; i++) {
        const struct cell *cell = &plan.cells[i];
        n_met += !is_met[cell->draft][cell->k];
        is_met[cell->draft][cell->k] = true;
        n_pages_met += !is_page_met[cell->batch][cell->page];
        is_page_met[cell->batch][cell->page] = true;
    }
    assert_int_equal(n_met, N_DRAFTS * N_KS);
    assert_int_equal(n_pages_met, N_BATCHES * N_PAGES);
    for (int32_t i = 0; i < plan.n_cells; i++) {
        const struct cell *cell = &plan.cells[i];
        const int32_t idx = (((cell->draft * N_KS + cell->k) * N_BATCHES + cell->batch) * N_PAGES + cell->page) *
                            N_POOLS + cell->pool;
        assert_in_range(idx, 0, MAX_CELLS - 1);
        n_seen += !is_seen[idx];
        is_seen[idx] = true;
    }
    assert_int_equal(n_seen, MAX_CELLS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_pair),
        cmocka_unit_test(a_planted_pair_beyond_2048),
        cmocka_unit_test(experts_that_draft_for_themselves),
        cmocka_unit_test(drafts_that_work_ahead),
        cmocka_unit_test(a_folder_of_another_family),
        cmocka_unit_test(a_planted_difference_is_seen),
        cmocka_unit_test(every_part_of_an_answer_counts),
        cmocka_unit_test(a_plan_meets_all_pairs_first_and_all_cells_at_last),
    };
    return cmocka_run_group_tests_name("equivalence", tests, NULL, NULL);
}
