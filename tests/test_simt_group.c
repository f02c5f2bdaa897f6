/* A model on several emulated GPUs, a rank on each: logits, text and digests are a CPU's, however heads, groups and
 * ids fall; what cannot be spread is refused with the reason; a GPU that fails ends all, with one sentence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cuda/cuda.h"
#include "tests/comm_threads.h"
#include "tests/engine_rig.h"
#include "tests/model_rig.h"
#include "tests/simt/runtime.h"
#include "tests/simt/simt.h"

static bool quick(void) { return getenv("TANDEM_TEST_QUICK") != NULL; }

static int begin(void **state)
{
    (void)state;
    simt_reset();
    (void)simt_take_error();
    simt_set_devices(8, (size_t)1 << 28);
    return 0;
}

static void expect_silence(void)
{
    const char *said = simt_take_error();
    if (said != NULL) {
        fail_msg("%s", said);
    }
    assert_int_equal(simt_held_bytes(), 0);
}

/* ---- passes ---- */

enum { N_PROMPT = 11, CHUNK = 7, N_STEPS = 2, N_LOGITS = N_PROMPT + 2 * N_STEPS, MAX_SEQS = 2 };

/* What a run gives: all logits, in order. */
struct run {
    const char *name;
    bool on_gpus, on_one; /* all ranks on one GPU */
    enum status status;
    char sentence[256];
    float *logits; /* [N_LOGITS, n_vocab] of rank 0 */
    int32_t n_vocab;
};

static void keep(struct run *run, int32_t at, int32_t n, const float *logits)
{
    memcpy(run->logits + (size_t)at * (size_t)run->n_vocab, logits, (size_t)n * (size_t)run->n_vocab * sizeof *logits);
}

/* A prompt in chunks of one sequence, then rows of two sequences in a pass. */
static void run_passes(struct run *run, struct model_rig *rig, bool keeps)
{
    int32_t tokens[N_PROMPT + N_STEPS], n = 0;
    for (int32_t i = 0; i < N_PROMPT + N_STEPS; i++) {
        tokens[i] = (int32_t)(rng_mix64((uint64_t)i + 17) % (uint64_t)run->n_vocab);
    }
    for (int32_t at = 0; at < N_PROMPT; at += CHUNK) {
        const int32_t n_here = N_PROMPT - at < CHUNK ? N_PROMPT - at : CHUNK;
        const float *logits = model_rig_pass(rig, &(struct model_rig_part){ 0, at, n_here, tokens + at }, 1);
        if (keeps) {
            keep(run, n, n_here, logits);
        }
        n += n_here;
    }
    for (int32_t i = 0; i < N_STEPS; i++) {
        const struct model_rig_part parts[] = { { 0, N_PROMPT + i, 1, tokens + N_PROMPT + i }, { 1, i, 1, tokens + i } };
        const float *logits = model_rig_pass(rig, parts, 2);
        if (keeps) {
            keep(run, n, 2, logits);
        }
        n += 2;
    }
}

static void run_rank(struct comm *comm, void *user)
{
    struct run *run = user;
    struct model_rig rig;
    char device[16] = "cpu";
    const int32_t rank = comm != NULL ? comm->rank : 0;
    if (run->on_gpus) {
        snprintf(device, sizeof device, "cuda:%d", run->on_one ? 0 : rank);
    }
    const enum status status = model_rig_open(&rig, &(struct model_rig_options){
        .name = run->name, .device = device, .page_slots = 16, .context = 32, .n_seqs = MAX_SEQS, .cap_rows = CHUNK,
        .comm = comm });
    if (rank == 0) {
        run->status = status;
        snprintf(run->sentence, sizeof run->sentence, "%s", status == STATUS_OK ? "" : status_message());
        run->n_vocab = status == STATUS_OK ? model_get_config(rig.model)->n_vocab : 0;
        run->logits = mem_alloc((size_t)N_LOGITS * (size_t)run->n_vocab, sizeof *run->logits);
        assert_non_null(run->logits);
    }
    if (comm != NULL) {
        comm_barrier(comm); /* run->n_vocab is there */
    }
    if (status == STATUS_OK) {
        run_passes(run, &rig, rank == 0);
    }
    if (comm != NULL) {
        comm_barrier(comm); /* ranks may share a GPU, and the emulation frees nothing beside another's pass */
    }
    model_rig_close(&rig);
}

static void check_run(const struct run *whole, int32_t n_ranks, bool on_one)
{
    struct run run = { .name = whole->name, .on_gpus = true, .on_one = on_one };
    comm_threads_run(n_ranks, run_rank, &run);
    if (run.status != STATUS_OK) {
        fail_msg("%s over %d GPUs: %s", whole->name, n_ranks, run.sentence);
    }
    expect_silence();
    if (memcmp(run.logits, whole->logits, (size_t)N_LOGITS * (size_t)whole->n_vocab * sizeof(float)) != 0) {
        fail_msg("%s over %d GPUs: other logits", whole->name, n_ranks);
    }
    mem_free(run.logits);
}

/* From device to device, and through the host. */
static void check_model(const char *name, int32_t most_ranks)
{
    struct run whole = { .name = name };
    run_rank(NULL, &whole);
    assert_int_equal(whole.status, STATUS_OK);
    for (int nccl = 1; nccl >= 0; nccl--) {
        for (int32_t n_ranks = 1; n_ranks <= most_ranks; n_ranks *= 2) {
            simt_set_nccl(nccl);
            check_run(&whole, n_ranks, false);
        }
    }
    mem_free(whole.logits);
}

/* Which NCCL refuses, so they exchange through the host. */
static void ranks_that_share_a_gpu(void **state)
{
    struct run whole = { .name = "synth:tiny,q8_0,seed=2,vocab=70" };
    (void)state;
    run_rank(NULL, &whole);
    check_run(&whole, 2, true);
    mem_free(whole.logits);
}

static void heads_and_groups_agree(void **state)
{
    (void)state;
    check_model("synth:tiny-256,q4_k,seed=3,vocab=200", quick() ? 2 : 8);
    check_model("synth:tiny-256,f16,seed=4,vocab=96", 4);
}

/* 128 features are one segment: one rank has all of o. */
static void ranks_that_own_nothing(void **state)
{
    (void)state;
    check_model("synth:tiny,q8_0,seed=7,vocab=100", quick() ? 2 : 8);
    check_model("synth:tiny,f32,seed=7,vocab=40", 4);
}

/* 9 heads, 3 KV heads, features 576 and 1536. */
static void uneven_heads(void **state)
{
    (void)state;
    check_model("synth:smol-135m,q8_0,seed=1,layers=1,vocab=300", quick() ? 2 : 4);
}

/* 6 heads of 48: groups end within heads, and o is cut along its outputs. */
static void heads_that_groups_cut(void **state)
{
    (void)state;
    check_model("models/stories15M.Q8_0.gguf", 2);
}

static void experts_are_refused(void **state)
{
    struct run run = { .name = "synth:tiny-moe,q8_0,seed=5", .on_gpus = true };
    (void)state;
    comm_threads_run(2, run_rank, &run);
    assert_int_equal(run.status, STATUS_UNSUPPORTED);
    assert_string_equal(run.sentence, "a mixture of experts is spread over ranks on CPUs alone, found cuda:0 emulated");
    mem_free(run.logits);
    expect_silence();
}

/* ---- engines ---- */

enum { N_IDS = 30, N_REQUESTS = 3 };
static struct rig_results wanted, found;

static void set_options(struct td_engine_options *options)
{
    rig_options(options);
    options->target = "synth:pair=tiny,q8_0,draft=tiny,draft-layers=1,agree=0.7,seed=1";
    options->context = 128;
    options->page = 16;
    options->prefill_chunk = 16;
    options->max_batch = N_REQUESTS;
    options->k = 0;
}

static void run(const struct td_engine_options *options, struct rig_results *results)
{
    int32_t ids[N_IDS];
    struct td_request requests[N_REQUESTS];
    struct td_engine *engine = rig_open(options);
    for (int i = 0; i < N_IDS; i++) {
        ids[i] = 3 + i * 37 % 90;
    }
    for (int i = 0; i < N_REQUESTS; i++) {
        td_request_init(&requests[i]);
        requests[i].ids = ids + (i == 0 ? 7 : 0);
        requests[i].n_ids = (size_t)(i == 0 ? 3 : i == 1 ? 17 : N_IDS - 1);
        requests[i].max_tokens = 6;
        requests[i].temperature = i == 0 ? 0 : 0.8f;
        requests[i].n = i == 2 ? 2 : 1; /* choices that part copy a page */
        requests[i].has_seed = 1;
        requests[i].seed = 5;
        requests[i].ignore_eos = 1;
    }
    rig_run(engine, requests, N_REQUESTS, results);
    td_engine_close(engine);
}

/* Passes that come again are recorded where exchanges are: between devices, not through the host. */
static void expect_the_same(const struct td_engine_options *options)
{
    run(options, &found);
    expect_silence();
    assert_int_equal(found.n_results, wanted.n_results);
    for (size_t i = 0; i < found.n_results; i++) {
        rig_assert_same(&wanted.result[i], &found.result[i]);
    }
}

static void a_list_of_gpus_just_works(void **state)
{
    static const char *const lists[] = { "cuda:0,1", "cuda:3,1", "cuda:0,1,2,3" };
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    run(&options, &wanted);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (int nccl = 0; nccl < 2; nccl++) {
            simt_reset();
            simt_set_devices(8, (size_t)1 << 28);
            simt_set_nccl(nccl);
            options.target_device = lists[i];
            expect_the_same(&options);
            assert_int_equal(simt_counts_get().graph_launches > 0, nccl);
        }
    }
}

/* Rank 0 drafts, wherever the draft is, also on a GPU that holds a part of the target. */
static void drafts_beside_several_gpus(void **state)
{
    static const struct { const char *draft, *device; } drafts[] = {
        { "auto", NULL }, { "auto", "cuda:1" }, { "auto", "cpu" }, { "layerskip:1", NULL }, { "suffix", NULL } };
    struct td_engine_options options;
    uint64_t accepted = 0;
    (void)state;
    set_options(&options);
    run(&options, &wanted);
    options.target_device = "cuda:0,1";
    options.k = 3;
    for (size_t i = 0; i < sizeof drafts / sizeof drafts[0]; i += quick() ? 3 : 1) {
        simt_set_nccl(i % 2 == 0);
        options.draft = drafts[i].draft;
        options.draft_device = drafts[i].device;
        expect_the_same(&options);
        for (size_t r = 0; r < found.n_results; r++) {
            accepted += (uint64_t)found.result[r].usage.drafted.accepted;
        }
    }
    assert_true(accepted > 0);
}

static void expect_refusal(const struct td_engine_options *options, const char *sentence)
{
    struct td_engine *engine;
    assert_int_not_equal(td_engine_open(options, &engine), TD_OK);
    if (strstr(td_error_message(), sentence) == NULL) {
        fail_msg("expected '%s', found '%s'", sentence, td_error_message());
    }
    expect_silence();
}

static void what_cannot_be_is_refused(void **state)
{
    static const struct { const char *device, *sentence; } cases[] = {
        { "cuda:0,1,2", "2, 4 or 8 GPUs, found 3" }, { "cuda:0,0", "GPU 0 is named twice" },
        { "cuda:0,8", "names a GPU 8; there are 8 here" }, { "cuda:0,", "expected GPUs like cuda:0,1" },
        { "cuda:0/2,1", "expected GPUs like cuda:0,1" }, { "cuda:,1", "expected GPUs like cuda:0,1" },
        { "cuda:0,1,2,3,4,5,6,7,8", "8 GPUs at most" }, { "cuda:99999999999999999999,1", "expected GPUs like" },
    };
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        options.target_device = cases[i].device;
        expect_refusal(&options, cases[i].sentence);
    }
    options.target_device = "cuda:0,1";
    options.draft = "auto";
    options.k = 2;
    options.draft_device = "cuda:0,1";
    expect_refusal(&options, "one is wanted here, found cuda:0,1");
    set_options(&options);
    options.target_device = "cuda:0,1";
    options.target = "synth:tiny-moe,q8_0,seed=2";
    expect_refusal(&options, "a mixture of experts");
    set_options(&options);
    options.target_device = "cuda:0,1";
    options.plan = "native";
    expect_refusal(&options, "by the exact plan, found native");
    set_options(&options);
    options.target_device = "cuda:0,1";
    options.target = "no such file";
    expect_refusal(&options, "no such file");
    set_options(&options);
    options.target_device = "cuda:0,1";
    simt_set_devices(8, (size_t)1 << 16);
    expect_refusal(&options, "MiB");
}

/* Wherever the launch is that fails: requests end with an error, and so does the engine when it is told to. */
static void a_gpu_that_fails_ends_all(void **state)
{
    struct td_engine_options options;
    (void)state;
    set_options(&options);
    options.target_device = "cuda:0,1";
    for (int64_t after = 40, nccl = 0; after < 300; after += quick() ? 140 : 61, nccl = !nccl) {
        simt_reset();
        simt_set_nccl((int)nccl);
        simt_fail_launch(after);
        run(&options, &found);
        simt_reset();
        (void)simt_take_error();
        size_t n_failed = 0;
        for (size_t i = 0; i < found.n_results; i++) {
            assert_true(found.result[i].is_finished);
            n_failed += found.result[i].finish == TD_FINISH_ERROR;
        }
        assert_true(n_failed > 0);
        assert_int_equal(simt_held_bytes(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(heads_and_groups_agree, begin),
        cmocka_unit_test_setup(ranks_that_own_nothing, begin),
        cmocka_unit_test_setup(uneven_heads, begin),
        cmocka_unit_test_setup(heads_that_groups_cut, begin),
        cmocka_unit_test_setup(ranks_that_share_a_gpu, begin),
        cmocka_unit_test_setup(experts_are_refused, begin),
        cmocka_unit_test_setup(a_list_of_gpus_just_works, begin),
        cmocka_unit_test_setup(drafts_beside_several_gpus, begin),
        cmocka_unit_test_setup(what_cannot_be_is_refused, begin),
        cmocka_unit_test_setup(a_gpu_that_fails_ends_all, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
