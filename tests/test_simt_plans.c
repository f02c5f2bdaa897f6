/* Numeric plans on emulated GPUs. Native: speculation writes what plain decoding does, whatever drafts, how the
 * prompt is cut and who else is there; not what the exact plan writes. Fast: long passes go through the library and
 * no others do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/base.h"
#include "tests/engine_rig.h"
#include "tests/simt/runtime.h"
#include "tests/simt/silence.h"
#include "tests/simt/simt.h"

enum { N_PROMPT = 24, N_REQUESTS = 3, N_TOKENS = 7, N_LONG = 70 };
static const char PAIR[] = "synth:pair=tiny,bf16,draft=tiny,draft-layers=1,agree=0.7,seed=1,vocab=128";

static struct rig_results wanted, found;

static int begin(void **state)
{
    (void)state;
    simt_reset();
    simt_set_blas(1);
    simt_fail_blas(-1);
    (void)simt_take_error();
    return 0;
}

static void set_options(struct td_engine_options *options)
{
    rig_options(options);
    options->target = PAIR;
    options->plan = "native";
    options->target_device = "cuda:0";
    options->context = 64;
    options->page = 16;
    options->prefill_chunk = 9;
    options->max_batch = N_REQUESTS;
    options->k = 0;
}

/* One greedy, one of temperature 0.8, one hot; prompts of several lengths. */
static void run(const struct td_engine_options *options, struct rig_results *results)
{
    int32_t ids[N_PROMPT];
    struct td_request requests[N_REQUESTS];
    struct td_engine *engine = rig_open(options);
    for (int i = 0; i < N_PROMPT; i++) {
        ids[i] = 3 + i * 37 % 90;
    }
    for (int i = 0; i < N_REQUESTS; i++) {
        td_request_init(&requests[i]);
        requests[i].ids = ids + i;
        requests[i].n_ids = (size_t)(i == 0 ? 3 : i == 1 ? 17 : N_PROMPT - i);
        requests[i].max_tokens = N_TOKENS;
        requests[i].temperature = i == 0 ? 0 : i == 1 ? 0.8f : 1.5f;
        requests[i].has_seed = 1;
        requests[i].seed = 5;
        requests[i].ignore_eos = 1;
    }
    rig_run(engine, requests, N_REQUESTS, results);
    td_engine_close(engine);
    simt_expect_silence();
    assert_int_equal(simt_held_bytes(), 0);
}

static int64_t expect_the_same(const struct td_engine_options *options)
{
    int64_t n_accepted = 0;
    run(options, &found);
    assert_int_equal(found.n_results, wanted.n_results);
    for (size_t i = 0; i < found.n_results; i++) {
        assert_int_equal(found.result[i].finish, TD_FINISH_LENGTH);
        rig_assert_same(&wanted.result[i], &found.result[i]);
        n_accepted += found.result[i].usage.drafted.accepted;
    }
    return n_accepted;
}

static void native_is_the_same_for_any_batch_and_chunk(void **state)
{
    static const struct { int32_t max_batch, prefill_chunk; } cases[] = { { 1, 64 }, { 2, 1 }, { 3, 16 } };
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    run(&options, &wanted);
    assert_true(simt_counts_get().graph_launches > 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        options.max_batch = cases[i].max_batch;
        options.prefill_chunk = cases[i].prefill_chunk;
        (void)expect_the_same(&options);
    }
    options.target_device = "cuda:1"; /* another device of the same kind: the same fingerprint too */
    (void)expect_the_same(&options);
    simt_set_name("another");
    run(&options, &found);
    for (size_t i = 0; i < found.n_results; i++) {
        assert_true(found.result[i].usage.fingerprint != wanted.result[i].usage.fingerprint);
    }
}

/* Chains and trees, greedy and coupled, drafted in turn and ahead. */
static void native_speculation_writes_what_plain_decoding_does(void **state)
{
    static const struct { const char *draft, *device, *ahead; } cases[] = {
        { "auto", NULL, "off" }, { "auto", "cpu", "off" }, { "auto", "cuda:1", "on" }, { "auto", "cuda:0", "on" },
        { "layerskip:1", NULL, "off" }, { "suffix,auto", NULL, "off" }, { "suffix,ngram,layerskip:1", NULL, "off" } };
    struct td_engine_options options;
    int64_t n_accepted = 0;
    (void)state;
    set_options(&options);
    run(&options, &wanted);
    options.k = 4;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        options.draft = cases[i].draft;
        options.draft_device = cases[i].device;
        options.ahead = cases[i].ahead;
        n_accepted += expect_the_same(&options);
    }
    assert_true(n_accepted > 0);
}

/* Quantised layers stay as they are; layers of 16 bits do not, and no fingerprint says they did. */
static void native_is_not_exact(void **state)
{
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    run(&options, &wanted);
    options.plan = "exact";
    run(&options, &found);
    for (size_t i = 0; i < found.n_results; i++) {
        assert_true(found.result[i].usage.logits_digest != wanted.result[i].usage.logits_digest);
        assert_true(found.result[i].usage.fingerprint != wanted.result[i].usage.fingerprint);
    }
    options.target = "synth:tiny,q8_0,seed=2,vocab=128";
    run(&options, &wanted);
    options.plan = "native";
    run(&options, &found);
    for (size_t i = 0; i < found.n_results; i++) {
        assert_int_equal(found.result[i].usage.logits_digest, wanted.result[i].usage.logits_digest);
        assert_true(found.result[i].usage.fingerprint != wanted.result[i].usage.fingerprint);
    }
    options.target = "synth:tiny,f16,seed=2,vocab=128";
    run(&options, &wanted);
    options.max_batch = 1;
    options.draft = "layerskip:1";
    options.k = 3;
    (void)expect_the_same(&options);
}

static void the_plan_is_told(void **state)
{
    static const char *const plans[] = { "exact", "native", "fast" };
    struct td_engine_options options;
    struct td_engine_info info;
    (void)state;
    set_options(&options);
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        options.plan = plans[i];
        struct td_engine *engine = rig_open(&options);
        td_engine_get_info(engine, &info);
        assert_string_equal(info.plan, plans[i]);
        td_engine_close(engine);
    }
}

/* ---- fast ---- */
/* A prompt of N_LONG tokens in one chunk. */
static void run_long(const struct td_engine_options *options, struct rig_results *results)
{
    int32_t ids[N_LONG];
    struct td_request request;
    struct td_engine *engine = rig_open(options);
    for (int i = 0; i < N_LONG; i++) {
        ids[i] = 3 + i * 37 % 90;
    }
    td_request_init(&request);
    request.ids = ids;
    request.n_ids = N_LONG;
    request.max_tokens = N_TOKENS;
    request.ignore_eos = 1;
    rig_run(engine, &request, 1, results);
    td_engine_close(engine);
}

static void set_fast(struct td_engine_options *options)
{
    set_options(options);
    options->plan = "fast";
    options->context = 96;
    options->prefill_chunk = 80;
}

/* Two layers of seven matrices; the head has a row, which is no long pass. */
static void fast_takes_long_passes_to_the_library(void **state)
{
    static const char *const models[] = { "synth:tiny,bf16,seed=2,vocab=128", "synth:tiny,q4_0,seed=2,vocab=128" };
    struct td_engine_options options;
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        set_fast(&options);
        options.target = models[i];
        options.plan = "native";
        simt_fail_blas(-1);
        run_long(&options, &wanted);
        assert_int_equal(simt_blas_counts_get().products, 0);
        options.plan = "fast";
        run_long(&options, &found);
        simt_expect_silence();
        assert_int_equal(simt_blas_counts_get().products, 2 * 7);
        assert_int_equal(found.result[0].finish, TD_FINISH_LENGTH);
        assert_true(found.result[0].usage.fingerprint != wanted.result[0].usage.fingerprint);
        assert_true(found.result[0].usage.logits_digest != wanted.result[0].usage.logits_digest);
        options.prefill_chunk = 64; /* now no pass is long */
        run_long(&options, &found);
        assert_int_equal(simt_blas_counts_get().products, 2 * 7);
        assert_int_equal(found.result[0].usage.logits_digest, wanted.result[0].usage.logits_digest);
        assert_int_equal(simt_held_bytes(), 0);
    }
}

/* Drafts beside it go on; texts end as they should. */
static void fast_speculates(void **state)
{
    static const char *const devices[] = { NULL, "cuda:1", "cpu" };
    struct td_engine_options options;
    (void)state;
    set_fast(&options);
    options.draft = "auto";
    options.k = 3;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        options.draft_device = devices[i];
        options.ahead = i == 1 ? "on" : "off";
        run_long(&options, &found);
        simt_expect_silence();
        assert_int_equal(found.result[0].finish, TD_FINISH_LENGTH);
        assert_int_equal(found.result[0].n_ids, N_TOKENS);
        assert_int_equal(simt_held_bytes(), 0);
    }
}

/* What products need is counted where memory is planned. */
static void fast_memory_is_planned(void **state)
{
    struct td_engine_options options;
    struct td_memory rows[2];
    uint64_t scratch[2];
    (void)state;
    set_fast(&options);
    for (int i = 0; i < 2; i++) {
        options.plan = i == 0 ? "native" : "fast";
        struct td_engine *engine = rig_open(&options);
        (void)td_engine_get_memory(engine, rows);
        scratch[i] = rows[0].scratch_bytes;
        assert_true(rows[0].weight_bytes + rows[0].kv_bytes + rows[0].scratch_bytes <=
                    simt_held_bytes() + rows[0].recorded_bytes); /* which is kept for the driver, not taken */
        td_engine_close(engine);
    }
    assert_true(scratch[1] >= scratch[0] + (32u << 20) + 2u * 128 * 352);
    options.memory_bytes = scratch[1];
    struct td_engine *engine;
    assert_int_equal(td_engine_open(&options, &engine), TD_NO_MEMORY);
    assert_int_equal(simt_held_bytes(), 0);
}

static void a_product_that_fails_ends_its_request(void **state)
{
    struct td_engine_options options;
    (void)state;
    set_fast(&options);
    options.max_batch = 1;
    simt_fail_blas(4);
    run_long(&options, &found);
    assert_int_equal(found.result[0].finish, TD_FINISH_ERROR);
    assert_int_equal(simt_held_bytes(), 0);
}

static void expect_refusal(const struct td_engine_options *options, const char *words)
{
    struct td_engine *engine;
    assert_int_equal(td_engine_open(options, &engine), TD_UNSUPPORTED);
    if (strstr(td_error_message(), words) == NULL) {
        fail_msg("expected '%s' in '%s'", words, td_error_message());
    }
    assert_int_equal(simt_held_bytes(), 0);
}

static void a_plan_that_cannot_be_is_refused(void **state)
{
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    options.plan = "nativ";
    expect_refusal(&options, "exact, native or fast, found 'nativ'");
    options.plan = "native";
    options.target_device = NULL;
    expect_refusal(&options, "the plan on a CPU is exact; found 'native'");
    options.target_device = "cpu:0";
    options.plan = "fast";
    expect_refusal(&options, "the plan on a CPU is exact; found 'fast'");
    options.target_device = "cuda:0";
    simt_set_blas(0);
    expect_refusal(&options, "the plan fast needs cuBLASLt, which is not here");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(native_is_the_same_for_any_batch_and_chunk, begin),
        cmocka_unit_test_setup(native_speculation_writes_what_plain_decoding_does, begin),
        cmocka_unit_test_setup(native_is_not_exact, begin),
        cmocka_unit_test_setup(fast_takes_long_passes_to_the_library, begin),
        cmocka_unit_test_setup(fast_speculates, begin),
        cmocka_unit_test_setup(fast_memory_is_planned, begin),
        cmocka_unit_test_setup(a_product_that_fails_ends_its_request, begin),
        cmocka_unit_test_setup(the_plan_is_told, begin),
        cmocka_unit_test_setup(a_plan_that_cannot_be_is_refused, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
