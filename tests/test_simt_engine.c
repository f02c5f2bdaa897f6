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
#include "tests/simt/simt.h"

enum { N_PROMPT = 40, N_REQUESTS = 3 };
static const char PAIR[] = "synth:pair=tiny,q8_0,draft=tiny,draft-layers=1,agree=0.7,seed=1";

static struct rig_results wanted, found;

static void expect_silence(void)
{
    const char *said = simt_take_error();
    if (said != NULL) {
        fail_msg("%s", said);
    }
}

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
static void run(const struct td_engine_options *options, struct rig_results *results)
{
    int32_t ids[N_PROMPT];
    struct td_request requests[N_REQUESTS];
    struct td_engine *engine = rig_open(options);
    for (int i = 0; i < N_PROMPT; i++) {
        ids[i] = 3 + i * 37 % 500;
    }
    for (int i = 0; i < N_REQUESTS; i++) {
        td_request_init(&requests[i]);
        requests[i].ids = ids + (i == 0 ? 7 : 0);
        requests[i].n_ids = (size_t)(i == 0 ? 3 : i == 1 ? 17 : N_PROMPT - 1);
        requests[i].max_tokens = 8;
        requests[i].temperature = i == 0 ? 0 : 0.8f;
        requests[i].has_seed = 1;
        requests[i].seed = 5;
        requests[i].ignore_eos = 1;
    }
    rig_run(engine, requests, N_REQUESTS, results);
    td_engine_close(engine);
}

static void expect_the_same(const struct td_engine_options *options)
{
    run(options, &found);
    expect_silence();
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
    expect_silence();
}

static const char *const devices[][2] = { { "cuda:0", NULL }, { "cuda:0", "cpu" }, { "cuda:0", "cuda:0" },
                                          { "cuda:0", "cuda:1" }, { NULL, "cuda:0" } };
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(plain_decoding_is_the_same, begin),
        cmocka_unit_test_setup(speculation_is_the_same_wherever_the_draft_is, begin),
        cmocka_unit_test_setup(a_draft_ahead_changes_no_text, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
