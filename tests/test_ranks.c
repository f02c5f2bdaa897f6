/* ranks: a model that several ranks hold gives the bits of one that is whole, however heads, groups and
 * ids fall; each rank holds its part alone; what cannot be spread is refused, by all ranks alike.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/comm_threads.h"
#include "tests/model_rig.h"

enum { N_PROMPT = 37, CHUNK = 16, N_STEPS = 3, N_LOGITS = N_PROMPT + 2 * N_STEPS, MAX_VOCAB = 32000, MAX_SEQS = 2 };

/* What a run gives: all logits, in order; and what it took. */
struct run {
    const char *name, *isa;
    int threads;
    enum status status;
    char sentence[256];
    float *logits;                                /* [N_LOGITS, n_vocab] */
    int32_t n_vocab;
    uint64_t digest[COMM_MAX_RANKS], bytes[COMM_MAX_RANKS], kv_bytes[COMM_MAX_RANKS];
};

static void fill_tokens(int32_t *tokens, int32_t n, int32_t n_vocab)
{
    for (int32_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)(rng_mix64((uint64_t)i + 17) % (uint64_t)n_vocab);
    }
}

/* A prompt in chunks of one sequence, then rows of two sequences in a pass. */
static void run_passes(struct run *run, struct model_rig *rig, bool keeps)
{
    int32_t tokens[N_PROMPT + N_STEPS], n = 0;
    const size_t row = (size_t)run->n_vocab;
    fill_tokens(tokens, N_PROMPT + N_STEPS, run->n_vocab);
    for (int32_t at = 0; at < N_PROMPT; at += CHUNK) {
        const int32_t n_here = N_PROMPT - at < CHUNK ? N_PROMPT - at : CHUNK;
        const float *logits = model_rig_pass(rig, &(struct model_rig_part){ 0, at, n_here, tokens + at }, 1);
        if (keeps) {
            memcpy(run->logits + (size_t)n * row, logits, (size_t)n_here * row * sizeof *logits);
        }
        n += n_here;
    }
    for (int32_t i = 0; i < N_STEPS; i++) {
        const struct model_rig_part parts[] = { { 0, N_PROMPT + i, 1, tokens + N_PROMPT + i }, { 1, i, 1, tokens + i } };
        const float *logits = model_rig_pass(rig, parts, 2);
        if (keeps) {
            memcpy(run->logits + (size_t)n * row, logits, 2 * row * sizeof *logits);
        }
        n += 2;
    }
    assert_int_equal(n, N_LOGITS);
}

static void run_rank(struct comm *comm, void *user)
{
    struct run *run = user;
    struct model_rig rig;
    const enum status status = model_rig_open(&rig, &(struct model_rig_options){
        .name = run->name, .isa = run->isa, .threads = run->threads, .page_slots = 16, .context = 64,
        .n_seqs = MAX_SEQS, .cap_rows = CHUNK, .comm = comm });
    const int32_t rank = comm ? comm->rank : 0;
    if (rank == 0) {
        run->status = status;
        snprintf(run->sentence, sizeof run->sentence, "%s", status == STATUS_OK ? "" : status_message());
    }
    if (status != STATUS_OK) {
        model_rig_close(&rig);
        return;
    }
    if (rank == 0) {
        run->n_vocab = model_get_config(rig.model)->n_vocab;
        run->logits = mem_alloc((size_t)N_LOGITS * (size_t)run->n_vocab, sizeof *run->logits);
        assert_non_null(run->logits);
    }
    if (comm) {
        comm_barrier(comm); /* run->n_vocab is there */
    }
    run->digest[rank] = model_digest(rig.model);
    run->bytes[rank] = model_resident_bytes(rig.model);
    run->kv_bytes[rank] = kv_store_bytes(&rig.store);
    run_passes(run, &rig, rank == 0);
    model_rig_close(&rig);
}

static void expect_same_bits(const struct run *whole, const char *isa, int threads, int32_t n_ranks)
{
    struct run run = { .name = whole->name, .isa = isa, .threads = threads };
    comm_threads_run(n_ranks, run_rank, &run);
    if (run.status != STATUS_OK) {
        print_error("%s over %d ranks: %s\n", whole->name, n_ranks, run.sentence);
    }
    assert_int_equal(run.status, STATUS_OK);
    uint64_t bytes = 0;
    for (int32_t r = 0; r < n_ranks; r++) {
        assert_true(run.digest[r] == whole->digest[0]);
        assert_true(run.bytes[r] < whole->bytes[0]);
        bytes += run.bytes[r];
    }
    if (memcmp(run.logits, whole->logits, (size_t)N_LOGITS * (size_t)whole->n_vocab * sizeof(float)) != 0) {
        print_error("%s over %d ranks, %s: other logits\n", whole->name, n_ranks, isa ? isa : "best");
        fail();
    }
    mem_free(run.logits);
}

/* Under sanitizers, on few cores, eight ranks wait for each other most of the time. */
static bool is_quick(void) { return getenv("TANDEM_TEST_QUICK") != NULL; }

static void check_model(const char *name)
{
    struct run whole = { .name = name, .threads = 1 };
    run_rank(NULL, &whole);
    assert_int_equal(whole.status, STATUS_OK);
    for (int32_t n_ranks = 2; n_ranks <= (is_quick() ? 4 : COMM_MAX_RANKS); n_ranks *= 2) {
        expect_same_bits(&whole, NULL, 1, n_ranks);
    }
    mem_free(whole.logits);
}

static void test_heads_and_groups_agree(void **unused)
{
    (void)unused;
    check_model("synth:tiny-256,q4_k,seed=3");
    check_model("synth:tiny-256,q8_0,seed=3");
    check_model("synth:tiny-256,f16,seed=4");
}

/* 128 features are one segment: one rank has all of o. */
static void test_ranks_that_own_nothing(void **unused)
{
    (void)unused;
    check_model("synth:tiny,q8_0,seed=7");
    check_model("synth:tiny,f32,seed=7");
}

/* 9 heads, 3 KV heads, features 576 and 1536. */
static void test_uneven_heads(void **unused)
{
    (void)unused;
    check_model("synth:smol-135m,q8_0,seed=1,layers=2,vocab=1000");
    check_model("synth:smol-135m,bf16,seed=1,layers=1,vocab=500");
}

/* 6 heads of 48: groups end within heads. */
static void test_heads_that_groups_cut(void **unused)
{
    (void)unused;
    check_model("models/stories15M.Q8_0.gguf");
}

static void test_instruction_sets_and_threads(void **unused)
{
    (void)unused;
    struct run whole = { .name = "synth:smol-135m,q4_0,seed=5,layers=1,vocab=300", .threads = 1 };
    run_rank(NULL, &whole);
    assert_int_equal(whole.status, STATUS_OK);
    static const char *const isas[] = { "scalar", "avx2", "avx512" };
    for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++) {
        struct backend *backend;
        if (backend_create("cpu", isas[i], &backend) != STATUS_OK) {
            print_message("ranks on %s # SKIP %s\n", isas[i], status_message());
            continue;
        }
        backend_destroy(backend);
        expect_same_bits(&whole, isas[i], 2, 2);
    }
    mem_free(whole.logits);
}

/* Weights and KV: half on two ranks, but for vectors and tables, which all have. */
static void test_memory_is_shared_out(void **unused)
{
    (void)unused;
    const char *name = "synth:llama-1b,q8_0,seed=1,layers=1,vocab=4000,context=64";
    struct run whole = { .name = name, .threads = 1 }, run = { .name = name, .threads = 1 };
    run_rank(NULL, &whole);
    comm_threads_run(4, run_rank, &run);
    assert_int_equal(run.status, STATUS_OK);
    for (int32_t r = 0; r < 4; r++) {
        assert_in_range(run.bytes[r], whole.bytes[0] / 5, whole.bytes[0] / 10 * 3);
        assert_int_equal(run.kv_bytes[r] * 4, whole.kv_bytes[0]);
    }
    assert_memory_equal(run.logits, whole.logits, (size_t)N_LOGITS * 4000 * sizeof(float));
    mem_free(run.logits);
    mem_free(whole.logits);
}

/* 8 experts, whole on their ranks; attention of 4 heads beside them. */
static void test_experts(void **unused)
{
    (void)unused;
    check_model("synth:tiny-moe,q8_0,seed=5");
    check_model("synth:tiny-moe,f32,seed=6,layers=1");
}

static void test_refusals_are_of_all_ranks(void **unused)
{
    (void)unused;
    struct run three = { .name = "synth:tiny,q8_0", .threads = 1 };
    comm_threads_run(3, run_rank, &three);
    assert_int_equal(three.status, STATUS_UNSUPPORTED);
    assert_non_null(strstr(three.sentence, "found 3"));
}

/* One rank cannot: no rank goes on, and all say why. */
struct lame { int32_t rank; enum status status[COMM_MAX_RANKS]; char sentence[COMM_MAX_RANKS][256]; };

static void open_lame(struct comm *comm, void *user)
{
    struct lame *lame = user;
    const enum status status = comm_agree(comm, comm->rank == lame->rank
        ? status_fail(STATUS_NO_MEMORY, "no memory here") : STATUS_OK);
    lame->status[comm->rank] = status;
    snprintf(lame->sentence[comm->rank], sizeof lame->sentence[0], "%s", status_message());
}

static void test_one_rank_fails(void **unused)
{
    (void)unused;
    struct lame lame = { .rank = 2 };
    comm_threads_run(4, open_lame, &lame);
    for (int32_t r = 0; r < 4; r++) {
        assert_int_equal(lame.status[r], STATUS_NO_MEMORY);
        assert_string_equal(lame.sentence[r], "rank 2: no memory here");
    }
}

static void different_models(struct comm *comm, void *user)
{
    struct lame *lame = user;
    struct model_rig rig;
    lame->status[comm->rank] = model_rig_open(&rig, &(struct model_rig_options){
        .name = comm->rank == 1 ? "synth:tiny,q8_0,seed=2" : "synth:tiny,q8_0,seed=1", .context = 16,
        .cap_rows = 4, .comm = comm });
    snprintf(lame->sentence[comm->rank], sizeof lame->sentence[0], "%s", status_message());
    model_rig_close(&rig);
}

static void test_ranks_with_different_models(void **unused)
{
    (void)unused;
    struct lame lame = { .rank = -1 };
    comm_threads_run(2, different_models, &lame);
    for (int32_t r = 0; r < 2; r++) {
        assert_int_equal(lame.status[r], STATUS_INVALID);
        assert_non_null(strstr(lame.sentence[r], "another model"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads_and_groups_agree),
        cmocka_unit_test(test_ranks_that_own_nothing),
        cmocka_unit_test(test_uneven_heads),
        cmocka_unit_test(test_heads_that_groups_cut),
        cmocka_unit_test(test_instruction_sets_and_threads),
        cmocka_unit_test(test_memory_is_shared_out),
        cmocka_unit_test(test_experts),
        cmocka_unit_test(test_refusals_are_of_all_ranks),
        cmocka_unit_test(test_one_rank_fails),
        cmocka_unit_test(test_ranks_with_different_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
