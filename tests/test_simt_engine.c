/* The engine on emulated GPUs writes what it writes on a CPU: ids, text, digests, for targets and drafts on
 * any of them. The runtime of backend/cuda is the real one; tests/simt/runtime.h says what it runs on and
 * what it would notice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/cuda/cuda.h"
#include "tests/engine_rig.h"
#include "tests/simt/runtime.h"
#include "tests/simt/silence.h"
#include "tests/simt/simt.h"

enum { N_PROMPT = 40, N_REQUESTS = 3 };
static const char PAIR[] = "synth:pair=tiny,q8_0,draft=tiny,draft-layers=1,agree=0.7,seed=1";

static struct rig_results wanted, found;

static void set_options(struct td_engine_options *options)
{
    rig_options(options);
    options->target = PAIR;
    options->context = 128;
    options->page = 16;
    options->prefill_chunk = 16; /* prompts come in chunks */
    options->max_batch = N_REQUESTS;
    options->k = 0;
}

/* Prompts of several lengths, one of them greedy; the second and third begin alike. */
static void run_on(const struct td_engine_options *options, int n_prompt, struct rig_results *results)
{
    int32_t ids[N_PROMPT];
    struct td_request requests[N_REQUESTS];
    struct td_engine *engine = rig_open(options);
    for (int i = 0; i < N_PROMPT; i++) {
        ids[i] = 3 + i * 37 % 90;
    }
    for (int i = 0; i < N_REQUESTS; i++) {
        td_request_init(&requests[i]);
        requests[i].ids = ids + (i == 0 ? 7 : 0);
        requests[i].n_ids = (size_t)(i == 0 ? 3 : i == 1 ? 17 < n_prompt ? 17 : n_prompt : n_prompt);
        requests[i].max_tokens = 8;
        requests[i].temperature = i == 0 ? 0 : 0.8f;
        requests[i].has_seed = 1;
        requests[i].seed = 5;
        requests[i].ignore_eos = 1;
    }
    rig_run(engine, requests, N_REQUESTS, results);
    td_engine_close(engine);
}

static void run(const struct td_engine_options *options, struct rig_results *results)
{
    run_on(options, N_PROMPT - 1, results);
}

static void expect_the_same(const struct td_engine_options *options)
{
    run(options, &found);
    simt_expect_silence();
    assert_int_equal(found.n_results, wanted.n_results);
    for (size_t i = 0; i < found.n_results; i++) {
        rig_assert_same(&wanted.result[i], &found.result[i]);
    }
    assert_int_equal(simt_held_bytes(), 0);
}

static int begin(void **state)
{
    (void)state;
    simt_reset();
    return 0;
}

static void plain_decoding_is_the_same(void **state)
{
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    run(&options, &wanted);
    options.target_device = "cuda:0";
    expect_the_same(&options);
    assert_true(simt_counts_get().graph_launches > 0);
    options.target_device = "cuda:1";
    options.kv = "f32";
    options.max_batch = 1;
    run(&options, &found); /* another KV type: another text, but no complaint */
    simt_expect_silence();
}

static const char *const devices[][2] = { { "cuda:0", NULL }, { "cuda:0", "cpu" }, { "cuda:0", "cuda:0" },
                                          { "cuda:0", "cuda:1" }, { NULL, "cuda:0" }, { "cuda:0/-5", "cuda:0/5" } };
enum { N_PLACES = sizeof devices / sizeof devices[0] };

static void speculation_is_the_same_wherever_the_draft_is(void **state)
{
    struct td_engine_options options;
    int64_t accepted = 0;
    (void)state;
    set_options(&options);
    options.draft = "auto";
    options.ahead = "off";
    options.k = 3;
    run(&options, &wanted);
    for (size_t i = 0; i < N_PLACES; i++) { /* how much is drafted depends on who came first */
        options.target_device = devices[i][0];
        options.draft_device = devices[i][1];
        expect_the_same(&options);
        for (size_t r = 0; r < found.n_results; r++) {
            accepted += (int64_t)found.result[r].usage.drafted.accepted;
        }
    }
    assert_true(accepted > 0);
}

/* A draft's pass is waited for once and gives back tokens, not rows: each pass sends its inputs, each choice what
 * it is to choose. */
static void drafts_give_back_tokens(void **state)
{
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    options.draft = "auto";
    options.ahead = "off";
    options.k = 3;
    options.draft_device = "cuda:0";
    run(&options, &found);
    simt_expect_silence();
    const struct simt_counts counts = simt_counts_get();
    const uint64_t n_passes = counts.copies_up - counts.copies_down;
    assert_true(counts.copies_down > 10 && counts.copies_down <= n_passes);
    assert_true(counts.bytes_down <= counts.copies_down * N_REQUESTS * 32);
    assert_true(counts.waits <= 2 * n_passes); /* the other: for a block of inputs that was used before */
}

/* Both lanes under way at once; which proposals are there in time is not the same twice. */
static void a_draft_ahead_changes_no_text(void **state)
{
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    run(&options, &wanted);
    options.draft = "auto";
    options.ahead = "on";
    options.k = 3;
    for (size_t i = 0; i < N_PLACES; i++) {
        options.target_device = devices[i][0];
        options.draft_device = devices[i][1];
        expect_the_same(&options);
    }
}

/* Trees, several drafts, a draft's cut head and layerskip go through the same door. */
static void drafts_of_all_kinds(void **state)
{
    static const char *const drafts[] = { "layerskip:1", "suffix,ngram", "suffix,auto" };
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    run(&options, &wanted);
    options.target_device = "cuda:0";
    options.k = 4;
    for (size_t i = 0; i < sizeof drafts / sizeof drafts[0]; i++) {
        options.draft = drafts[i];
        expect_the_same(&options);
    }
    options.draft = "auto";
    options.draft_vocab = "200";
    expect_the_same(&options);
    options.verify = "rejection";
    options.draft_vocab = NULL;
    options.target_device = NULL;
    run(&options, &wanted);
    options.target_device = "cuda:1";
    expect_the_same(&options);
}

/* Types, tied heads, norms of heads: what other models need of a device. */
static void models_of_other_shapes(void **state)
{
    static const char *const models[] = { "synth:tiny-256,q4_k,seed=2,vocab=128", "synth:tiny-256,q6_k,seed=2,vocab=128",
                                          "synth:tiny,q4_0,seed=2,vocab=128", "synth:tiny,f16,seed=2,vocab=128",
                                          "synth:tiny-moe,q8_0,seed=2,vocab=128", "synth:tiny-moe,f32,seed=2,vocab=128",
                                          "synth:smol-30m,q8_0,seed=2,layers=2,vocab=300" };
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    options.context = 64;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        options.target = models[i];
        options.target_device = NULL;
        run_on(&options, 12, &wanted);
        options.target_device = "cuda:0";
        run_on(&options, 12, &found);
        simt_expect_silence();
        for (size_t r = 0; r < found.n_results; r++) {
            rig_assert_same(&wanted.result[r], &found.result[r]);
        }
    }
}

/* The model that comes with the program, and its draft. */
static void the_stories_are_the_same(void **state)
{
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    options.target = "models/stories15M.Q8_0.gguf";
    options.max_batch = 1;
    options.draft = "auto";
    options.ahead = "off";
    options.k = 2;
    static const int32_t once[] = { 1, 9038, 2501, 263, 931 }; /* "Once upon a time" */
    struct td_request request;
    td_request_init(&request);
    request.ids = once;
    request.n_ids = sizeof once / sizeof once[0];
    request.max_tokens = 7;
    for (int i = 0; i < 2; i++) {
        struct td_engine *engine = rig_open(&options);
        rig_run(engine, &request, 1, i == 0 ? &wanted : &found);
        td_engine_close(engine);
        options.target_device = "cuda:0";
        options.draft_device = "cuda:1";
    }
    simt_expect_silence();
    rig_assert_same(&wanted.result[0], &found.result[0]);
    assert_true(found.result[0].n_text > 0);
}

/* A target that fails ends its requests with its sentence; a draft that fails changes no text (I9). */
static void a_device_that_fails(void **state)
{
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    run(&options, &wanted);
    options.target_device = "cuda:0";
    simt_fail_launch(90);
    run(&options, &found);
    for (size_t i = 0; i < found.n_results; i++) {
        assert_true(found.result[i].is_finished);
        assert_int_equal(found.result[i].finish, TD_FINISH_ERROR);
    }
    simt_reset();
    options.target_device = NULL;
    options.draft = "auto";
    options.draft_device = "cuda:0";
    options.k = 3;
    simt_fail_launch(90);
    run(&options, &found);
    assert_int_equal(found.n_results, wanted.n_results);
    for (size_t i = 0; i < found.n_results; i++) {
        rig_assert_same(&wanted.result[i], &found.result[i]);
    }
    simt_expect_silence();
}

/* Each device has its own room, and a refusal says which had too little. */
static void memory_is_counted_by_device(void **state)
{
    struct td_engine_options options;
    struct td_memory rows[2];
    struct td_engine *engine;
    (void)state;
    set_options(&options);
    options.target_device = "cuda:0";
    options.draft_device = "cuda:1";
    options.draft = "auto";
    options.k = 3;
    engine = rig_open(&options);
    assert_int_equal(td_engine_get_memory(engine, rows), 2);
    assert_string_equal(rows[0].device, "cuda:0 emulated");
    assert_string_equal(rows[1].device, "cuda:1 emulated");
    const size_t held = simt_held_bytes(); /* pinned memory of the host too */
    const uint64_t target = rows[0].weight_bytes + rows[0].kv_bytes + rows[0].scratch_bytes;
    const uint64_t draft = rows[1].weight_bytes + rows[1].kv_bytes + rows[1].scratch_bytes;
    const uint64_t taken = target - rows[0].recorded_bytes, drafts = draft - rows[1].recorded_bytes; /* nothing is recorded yet */
    assert_true(held >= taken + drafts - drafts / 8 && held < 2 * (taken + drafts));
    assert_true(rows[0].recorded_bytes > 0 && rows[0].recorded_bytes < rows[0].scratch_bytes);
    assert_true(rows[1].recorded_bytes > 0 && rows[1].recorded_bytes < rows[1].scratch_bytes);
    td_engine_close(engine);
    options.memory_bytes = target > draft ? target : draft; /* of each */
    engine = rig_open(&options);
    td_engine_close(engine);
    options.memory_bytes = target - 1;
    assert_int_equal(td_engine_open(&options, &engine), TD_NO_MEMORY);
    assert_non_null(strstr(td_error_message(), "on cuda:0 emulated"));
    options.memory_bytes = 0;
    simt_set_devices(2, target / 2);
    assert_int_equal(td_engine_open(&options, &engine), TD_NO_MEMORY);
    assert_non_null(strstr(td_error_message(), "MiB are free"));
    simt_expect_silence();
    assert_int_equal(simt_held_bytes(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(plain_decoding_is_the_same, begin),
        cmocka_unit_test_setup(speculation_is_the_same_wherever_the_draft_is, begin),
        cmocka_unit_test_setup(drafts_give_back_tokens, begin),
        cmocka_unit_test_setup(a_draft_ahead_changes_no_text, begin),
        cmocka_unit_test_setup(drafts_of_all_kinds, begin),
        cmocka_unit_test_setup(models_of_other_shapes, begin),
        cmocka_unit_test_setup(the_stories_are_the_same, begin),
        cmocka_unit_test_setup(memory_is_counted_by_device, begin),
        cmocka_unit_test_setup(a_device_that_fails, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
