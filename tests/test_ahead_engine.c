/* ahead_engine: working ahead through include/tandem.h. Whatever is prepared, kept, missed or cancelled, ids,
 * text and digests are those of plain decoding; with the rejection rule and a fixed K a seed gives the text
 * that drafting in turn gives, each time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "draft/ahead.h"
#include "scheduler/engine.h"
#include "tests/engine_rig.h"

#define PAIR "synth:pair=tiny,q8_0,draft=tiny,agree=0.8,seed=5"
static const char TARGET[] = PAIR, DRAFT[] = PAIR ",role=draft", STORIES[] = "models/stories15M.Q8_0.gguf";
enum { N_REQUESTS = 9, MAX_PROMPT = 90 };

static struct rig_results plain, found;
static struct td_request requests[N_REQUESTS];
static int32_t ids[N_REQUESTS][MAX_PROMPT];

static int is_quick(void) { return getenv("TANDEM_TEST_QUICK") != NULL; }

/* Of every kind: hot and cold, penalised, biased, filtered, several choices, a K of its own or none. */
static void fill_requests(int32_t n_vocab)
{
    static const struct td_bias biases[] = { { 3, 2.0f }, { 40, -100.0f }, { 77, 1.5f } };
    static const float temperatures[] = { 0, 0.7f, 1 };
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        td_request_init(&requests[i]);
        requests[i].n_ids = (size_t)(3 + i * 29 % (MAX_PROMPT - 3));
        for (size_t j = 0; j < requests[i].n_ids; j++) {
            ids[i][j] = (int32_t)((uint64_t)(i * 7919 + (int32_t)j * 104729) % (uint64_t)(n_vocab - 3)) + 3;
        }
        requests[i].ids = ids[i];
        requests[i].max_tokens = 24 + i * 5 % 17;
        requests[i].temperature = temperatures[i % 3];
        requests[i].repetition_penalty = i == 3 ? 1.3f : 1;
        requests[i].frequency_penalty = i == 7 ? 0.4f : 0;
        requests[i].biases = i == 4 || i == 3 ? biases : NULL;
        requests[i].n_biases = i == 4 || i == 3 ? 3 : 0;
        requests[i].top_k = i == 5 ? 20 : 0;
        requests[i].top_p = i == 1 ? 0.9f : 1;
        requests[i].has_seed = 1;
        requests[i].seed = 50 + (uint64_t)i;
        requests[i].n = i == 2 ? 2 : 1;
        requests[i].k = i % 4 == 3 ? i % 5 : -1;
        requests[i].ignore_eos = 1;
        requests[i].tenant = (uint64_t)(i % 2);
    }
}

static struct td_engine_options options_of(const char *draft, const char *ahead)
{
    struct td_engine_options options;
    rig_options(&options);
    options.target = TARGET;
    options.draft = draft;
    options.ahead = ahead;
    options.context = 192;
    options.page = 16;
    options.max_batch = 4;
    return options;
}

static void answer_plainly(void)
{
    struct td_engine_options options = options_of("none", "off");
    struct td_engine *engine = rig_open(&options);
    rig_run(engine, requests, N_REQUESTS, &plain);
    td_engine_close(engine);
}

static void assert_found_is_plain(void)
{
    assert_int_equal(found.n_results, plain.n_results);
    for (size_t i = 0; i < found.n_results; i++) {
        rig_assert_same(&plain.result[i], &found.result[i]);
    }
}

static struct ahead_report run_ahead(const struct td_engine_options *options)
{
    struct td_engine *engine = rig_open(options);
    struct td_engine_stats stats;
    rig_run(engine, requests, N_REQUESTS, &found);
    td_engine_get_stats(engine, &stats);
    const struct ahead_report report = draft_ahead_report(engine->draft);
    assert_int_equal(report.hits + report.misses, report.rounds);
    assert_true(report.tokens_served <= report.tokens_wanted);
    assert_int_equal(stats.pages_held, 0);
    td_engine_close(engine);
    return report;
}

static void every_hit_rate_and_fallback_gives_the_plain_text(void **state)
{
    (void)state;
    static const char *const fallbacks[] = { "auto", "none", "lookup", "branch", "draft" };
    static const int32_t ks[] = { -1, 1, 4, 8 }, batches[] = { 1, 3, 8 };
    uint64_t n_rounds = 0;
    fill_requests(500);
    answer_plainly();
    for (int32_t turn = 0; turn < (is_quick() ? 5 : 30); turn++) {
        struct td_engine_options options = options_of(DRAFT, "on");
        options.ahead_hits = turn % 3 * 50;
        options.fallback = fallbacks[turn % 5];
        options.ahead_budget = turn % 4 == 0 ? 0 : 1 + turn * 5 % 20;
        options.k = ks[turn % 4];
        options.max_batch = batches[turn % 3];
        options.kv_pages = turn % 7 == 3 ? 13 : 0;
        options.threads = 1 + turn % 2;
        const struct ahead_report report = run_ahead(&options);
        assert_found_is_plain();
        assert_true(options.ahead_hits > 0 || report.hits == 0);
        n_rounds += report.rounds;
    }
    assert_true(n_rounds > (is_quick() ? 5 : 100)); /* how many are hits here is a matter of time */
}

static void lists_of_drafts_and_measured_modes_too(void **state)
{
    (void)state;
    static const char *const drafts[] = { "suffix," PAIR ",role=draft", "layerskip:1,ngram," PAIR ",role=draft",
                                          PAIR ",role=draft" };
    fill_requests(500);
    answer_plainly();
    for (int32_t i = 0; i < 3; i++) {
        struct td_engine_options options = options_of(drafts[i], i < 2 ? "on" : "auto");
        options.draft_device = i == 2 ? "cpu" : NULL;
        options.k = i == 1 ? 5 : -1;
        run_ahead(&options);
        assert_found_is_plain();
    }
}

/* ---- cancels ---- */
static void who_cancels_leaves_the_others_alone(void **state)
{
    (void)state;
    fill_requests(500);
    requests[2].n = 1;
    answer_plainly();
    for (int32_t turn = 0; turn < (is_quick() ? 2 : 8); turn++) {
        struct td_engine_options options = options_of(DRAFT, "on");
        options.fallback = turn % 2 == 0 ? "draft" : "none";
        struct td_engine *engine = rig_open(&options);
        uint64_t id[N_REQUESTS];
        memset(&found, 0, sizeof found);
        for (int32_t i = 0; i < N_REQUESTS; i++) {
            id[i] = rig_submit(engine, &requests[i]);
        }
        for (int32_t i = 0; i < N_REQUESTS; i += 2) { /* some wait, some run; one of them has biases */
            struct td_event event;
            for (int32_t n = 0; n < turn && td_next_event(engine, INT64_C(60000000000), &event) == TD_OK; n++) {
                rig_take(&found, &event); /* until there are no more */
            }
            td_cancel(engine, id[i]);
        }
        rig_drain(engine, &found);
        for (int32_t i = 0; i < N_REQUESTS; i++) {
            const struct rig_result *result = rig_find(&found, id[i], 0);
            assert_true(result->is_finished);
            if (result->finish == TD_FINISH_CANCELLED) {
                assert_int_equal(i % 2, 0);
                assert_memory_equal(result->ids, plain.result[i].ids, result->n_ids * sizeof *result->ids);
            } else {
                rig_assert_same(&plain.result[i], result);
            }
        }
        td_engine_close(engine);
    }
}

/* ---- the rejection rule ---- */
static void a_seed_gives_its_text_again(void **state)
{
    (void)state;
    static struct rig_results wanted;
    for (int32_t turn = 0; turn < (is_quick() ? 1 : 3); turn++) {
        static const int32_t ks[] = { 4, 1, 7 };
        fill_requests(500);
        for (int32_t i = 0; i < N_REQUESTS; i++) {
            requests[i].k = -1;
        }
        struct td_engine_options options = options_of(DRAFT, "off");
        options.verify = "rejection";
        options.k = ks[turn];
        options.max_batch = 1;
        struct td_engine *engine = rig_open(&options);
        rig_run(engine, requests, N_REQUESTS, &wanted);
        td_engine_close(engine);
        options.ahead = "on";
        for (int32_t again = 0; again < 3; again++) {
            options.ahead_budget = again == 2 ? 3 : 8; /* not by the clock */
            options.ahead_hits = again == 1 ? 50 : 100;
            options.fallback = again == 1 ? "none" : again == 2 ? "lookup" : NULL;
            const struct ahead_report report = run_ahead(&options);
            assert_true(report.hits > 10);
            assert_int_equal(found.n_results, wanted.n_results);
            for (size_t i = 0; i < found.n_results; i++) {
                rig_assert_same(&wanted.result[i], &found.result[i]);
                assert_int_equal(wanted.result[i].usage.drafted.proposed, found.result[i].usage.drafted.proposed);
                assert_int_equal(wanted.result[i].usage.drafted.accepted, found.result[i].usage.drafted.accepted);
            }
        }
    }
}

/* Prompts that take several chunks, alone and beside each other, in turn and ahead. */
static void neighbours_do_not_change_the_text_of_a_seed(void **state)
{
    (void)state;
    static struct rig_results wanted;
    fill_requests(500);
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        requests[i].k = -1;
        requests[i].temperature = 1;
        requests[i].n_ids = (size_t)(MAX_PROMPT - i);
        for (size_t j = 0; j < requests[i].n_ids; j++) {
            ids[i][j] = (int32_t)((uint64_t)(i * 7919 + (int32_t)j * 104729) % 480) + 3;
        }
    }
    for (int32_t turn = 0; turn < 3; turn++) {
        struct td_engine_options options = options_of(DRAFT, turn == 2 ? "on" : "off");
        options.verify = "rejection";
        options.k = 4;
        options.prefill_chunk = 24;
        options.max_batch = turn == 0 ? 1 : 4;
        struct td_engine *engine = rig_open(&options);
        rig_run(engine, requests, N_REQUESTS, turn == 0 ? &wanted : &found);
        td_engine_close(engine);
        for (size_t i = 0; i < found.n_results && turn > 0; i++) {
            rig_assert_same(&wanted.result[i], &found.result[i]);
        }
    }
}

/* A forced miss is ordinary speculation: as many proposed and as many accepted, position by position. */
static void forced_misses_draft_as_in_turn(void **state)
{
    (void)state;
    static struct rig_results wanted;
    fill_requests(500);
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        requests[i].k = 4;
    }
    struct td_engine_options options = options_of(DRAFT, "off");
    options.max_batch = 1; /* who is a neighbour when is a matter of time, and of who catches up first */
    options.k = 4;
    struct td_engine *engine = rig_open(&options);
    rig_run(engine, requests, N_REQUESTS, &wanted);
    td_engine_close(engine);
    options.ahead = "on";
    options.ahead_hits = 0;
    options.fallback = "draft";
    const struct ahead_report report = run_ahead(&options);
    assert_int_equal(report.hits, 0);
    for (size_t i = 0; i < found.n_results; i++) {
        const struct td_draft_counts *a = &wanted.result[i].usage.drafted, *b = &found.result[i].usage.drafted;
        rig_assert_same(&wanted.result[i], &found.result[i]);
        assert_int_equal(a->rounds, b->rounds);
        assert_int_equal(a->proposed, b->proposed);
        assert_memory_equal(a->accepted_by_position, b->accepted_by_position, sizeof a->accepted_by_position);
    }
}

/* ---- text, with trained weights ---- */
static void stories_are_the_same(void **state)
{
    (void)state;
    static const int32_t story[] = { 1, 9038, 2501, 263, 931 };
    if (is_quick()) {
        skip(); /* its passes take too long under sanitizers; the small models are here */
    }
    for (int32_t turn = 0; turn < 3; turn++) {
        struct td_engine_options options;
        rig_options(&options);
        options.target = STORIES;
        options.draft = turn == 0 ? "none" : turn == 1 ? "auto" : "auto,suffix";
        options.ahead = turn == 0 ? "off" : "on";
        options.max_batch = 3;
        options.k = turn > 0 ? 3 : 0;
        options.fallback = "draft";
        for (int32_t i = 0; i < 3; i++) {
            td_request_init(&requests[i]);
            requests[i].ids = story;
            requests[i].n_ids = 5;
            requests[i].max_tokens = 60;
            requests[i].temperature = 0.5f * (float)i;
            requests[i].has_seed = 1;
            requests[i].seed = 3;
        }
        struct td_engine *engine = rig_open(&options);
        rig_run(engine, requests, 3, turn == 0 ? &plain : &found);
        td_engine_close(engine);
        if (turn > 0) {
            assert_found_is_plain();
            assert_true(found.result[0].usage.drafted.accepted > 0);
        }
    }
}

static void what_cannot_be_gets_a_sentence(void **state)
{
    (void)state;
    struct td_engine *engine;
#define REFUSES(change, words)                                              \
    do {                                                                    \
        struct td_engine_options options = options_of(DRAFT, "on");         \
        change;                                                             \
        assert_int_not_equal(td_engine_open(&options, &engine), TD_OK);     \
        assert_non_null(strstr(td_error_message(), words));                 \
    } while (0)
    REFUSES(options.ahead = "always", "auto, on or off");
    REFUSES(options.fallback = "luck", "'luck'");
    REFUSES(options.draft = "suffix", "is a model");
    REFUSES(options.ahead_budget = 65, "64");
    REFUSES(options.ahead_hits = 101, "100 percent");
    REFUSES(options.fanout = "list:", "list");
#undef REFUSES
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_hit_rate_and_fallback_gives_the_plain_text),
        cmocka_unit_test(lists_of_drafts_and_measured_modes_too),
        cmocka_unit_test(who_cancels_leaves_the_others_alone),
        cmocka_unit_test(a_seed_gives_its_text_again),
        cmocka_unit_test(neighbours_do_not_change_the_text_of_a_seed),
        cmocka_unit_test(forced_misses_draft_as_in_turn),
        cmocka_unit_test(stories_are_the_same),
        cmocka_unit_test(what_cannot_be_gets_a_sentence),
    };
    return cmocka_run_group_tests_name("ahead_engine", tests, NULL, NULL);
}
