/* tree: a node of a speculation has the bits that a plain chain of its ancestors and itself has, for
 * any tree at any place of a context, in any instruction set, KV type and page size, under a window,
 * fed at once or growing, among others; and what side branches wrote disturbs nobody afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "batching/batching.h"
#include "model/weights.h"
#include "tests/model_rig.h"

enum { MAX_SEQS = 9, MAX_NODES = 16, MAX_BEFORE = 3, N_AFTER = 3, MAX_PASSES = 3, CONTEXT = 576, VOCAB = 512,
       ROW_BYTES = VOCAB * sizeof(float) };
static const char TINY[] = "synth:tiny,q8_0,seed=7";

struct scene {
    const char *isa;
    enum kv_type kv;
    int32_t page_slots, window, threads, n_rounds;
    int32_t lens[MAX_SEQS], n_seqs;
};

/* One sequence and the tree it speculates with in this round. */
struct seq {
    struct kv_table *table;
    int32_t tokens[CONTEXT], n;          /* cached */
    int32_t n_before, n_nodes;           /* rows of the round: chain, then tree */
    int32_t fed[MAX_BEFORE + MAX_NODES]; /* their tokens */
    int8_t parent[MAX_NODES];
    int32_t end[MAX_PASSES];             /* rows fed by the end of each pass */
    int32_t n_accepted;                  /* nodes of the chain that are kept afterwards */
    int32_t after[N_AFTER];              /* tokens that follow them */
    float *want, *want_after;            /* [n_before + n_nodes, VOCAB], [N_AFTER, VOCAB] */
};

struct stage {
    struct model_rig rig;
    struct kv_pool *pool;
    struct batch *batch;
    struct seq seqs[MAX_SEQS];
    int32_t n_seqs;
    uint64_t word;
};

static int32_t draw(struct stage *stage, int32_t n) /* 0 .. n - 1 */
{
    stage->word = rng_mix64(stage->word + 1);
    return (int32_t)(stage->word % (uint64_t)n);
}

static void fill_random(struct stage *stage, int32_t *tokens, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        tokens[i] = draw(stage, VOCAB);
    }
}

static const float *run(struct stage *stage)
{
    struct model_rig *rig = &stage->rig;
    lane_wait(rig->lane, model_forward(rig->model, rig->lane, &rig->store, batch_pass(stage->batch),
                                       rig->buffers));
    return pass_buffers_logits(rig->buffers);
}

/* ---- a stage: sequences with their contexts cached, pages taken in turns ---- */

static void prefill(struct stage *stage, struct seq *seq)
{
    enum { CHUNK = 48 };
    for (int32_t at = 0; at < seq->n; at += CHUNK) {
        batch_clear(stage->batch);
        batch_add(stage->batch, &(struct batch_part){ .tokens = seq->tokens + at, .table = seq->table,
                  .first_position = at, .n_rows = seq->n - at < CHUNK ? seq->n - at : CHUNK });
        run(stage);
    }
}

static void stage_open(struct stage *stage, const struct scene *scene)
{
    enum { ROWS = MAX_SEQS * (MAX_BEFORE + MAX_NODES) };
    memset(stage, 0, sizeof *stage);
    stage->n_seqs = scene->n_seqs;
    stage->word = (uint64_t)scene->page_slots;
    assert_int_equal(model_rig_open(&stage->rig, &(struct model_rig_options){
        .name = TINY, .isa = scene->isa, .threads = scene->threads, .kv = scene->kv,
        .page_slots = scene->page_slots, .context = CONTEXT, .n_seqs = scene->n_seqs, .cap_rows = ROWS }),
        STATUS_OK);
    stage->rig.model->config.window = scene->window;
    assert_int_equal(kv_pool_create(stage->rig.store.n_pages, scene->page_slots, &stage->pool), STATUS_OK);
    assert_int_equal(batch_create(&(struct batch_caps){ .n_rows = ROWS, .n_seqs = MAX_SEQS,
                                  .n_logits = ROWS, .n_views = ROWS }, &stage->batch), STATUS_OK);
    for (int32_t s = 0; s < stage->n_seqs; s++) {
        assert_int_equal(kv_table_create(stage->pool, CONTEXT, &stage->seqs[s].table), STATUS_OK);
    }
    for (int32_t len = scene->page_slots; len <= CONTEXT; len += scene->page_slots) {
        for (int32_t s = 0; s < stage->n_seqs; s++) {
            assert_int_equal(kv_table_reserve(stage->seqs[s].table, len), STATUS_OK);
        }
    }
    for (int32_t s = 0; s < stage->n_seqs; s++) {
        struct seq *seq = &stage->seqs[s];
        seq->n = scene->lens[s];
        fill_random(stage, seq->tokens, seq->n);
        seq->want = mem_alloc(MAX_BEFORE + MAX_NODES, ROW_BYTES);
        seq->want_after = mem_alloc(N_AFTER, ROW_BYTES);
        assert_true(seq->want != NULL && seq->want_after != NULL);
        prefill(stage, seq);
    }
}

static void stage_close(struct stage *stage)
{
    for (int32_t s = 0; s < stage->n_seqs; s++) {
        kv_table_destroy(stage->seqs[s].table);
        mem_free(stage->seqs[s].want);
        mem_free(stage->seqs[s].want_after);
    }
    batch_destroy(stage->batch);
    kv_pool_destroy(stage->pool);
    model_rig_close(&stage->rig);
}

/* ---- a round's tree, and what plain chains say of it ---- */

static void plan_tree(struct stage *stage, struct seq *seq)
{
    const int32_t shape = draw(stage, 5), n_chain = draw(stage, MAX_NODES);
    seq->n_before = draw(stage, MAX_BEFORE + 1);
    seq->n_nodes = 1 + draw(stage, MAX_NODES);
    seq->n_accepted = 0;
    for (int32_t i = 0; i < seq->n_nodes; i++) {
        const int32_t any = draw(stage, i + 1) - 1;
        const int32_t late = i - 1 - draw(stage, 3);
        seq->parent[i] = (int8_t)(shape == 0 ? i - 1                      /* a chain */
                                  : shape == 1 ? -1                       /* a star */
                                  : shape == 2 ? any
                                  : shape == 3 ? (i < n_chain ? i - 1 : any) /* a chain with side branches */
                                  : late < -1 ? -1 : late);               /* long branches, interleaved */
    }
    while (seq->n_accepted < seq->n_nodes && seq->parent[seq->n_accepted] == seq->n_accepted - 1 &&
           draw(stage, 4) > 0) {
        seq->n_accepted++;
    }
    const int32_t n_rows = seq->n_before + seq->n_nodes;
    for (int32_t p = 0; p < MAX_PASSES; p++) { /* half of the trees at once, else in up to three passes */
        const int32_t from = p > 0 ? seq->end[p - 1] : seq->n_before;
        seq->end[p] = shape % 2 == 0 || p == MAX_PASSES - 1 ? n_rows : from + draw(stage, n_rows - from + 1);
    }
    fill_random(stage, seq->fed, n_rows);
    fill_random(stage, seq->after, N_AFTER);
}

static void poison_from(struct stage *stage, const struct seq *seq, int32_t place)
{
    const int32_t page_slots = stage->rig.store.page_slots;
    for (; place < CONTEXT; place++) {
        const int32_t slot = kv_table_slot(seq->table, place);
        kv_store_poison(&stage->rig.store, (uint32_t)(slot / page_slots), slot % page_slots, 1);
    }
}

/* Logits of the last n_logits of a plain chain's rows, after the cached context. */
static void chain(struct stage *stage, const struct seq *seq, const int32_t *tokens, int32_t n_rows,
                  int32_t n_logits, float *out)
{
    poison_from(stage, seq, seq->n);
    batch_clear(stage->batch);
    batch_add(stage->batch, &(struct batch_part){ .tokens = tokens, .table = seq->table,
              .first_position = seq->n, .n_rows = n_rows, .n_logits = n_logits });
    memcpy(out, run(stage), (size_t)n_logits * ROW_BYTES);
}

static void ask_chains(struct stage *stage, struct seq *seq)
{
    int32_t tokens[MAX_BEFORE + MAX_NODES + N_AFTER];
    const int32_t n = seq->n_before;
    memcpy(tokens, seq->fed, sizeof seq->fed);
    if (n > 0) {
        chain(stage, seq, tokens, n, n, seq->want);
    }
    for (int32_t i = 0; i < seq->n_nodes; i++) {
        int32_t depth = 0;
        for (int32_t at = i; at >= 0; at = seq->parent[at]) {
            depth++;
        }
        for (int32_t at = i, d = depth; at >= 0; at = seq->parent[at]) {
            tokens[n + --d] = seq->fed[n + at];
        }
        chain(stage, seq, tokens, n + depth, 1, seq->want + (size_t)(n + i) * VOCAB);
    }
    memcpy(tokens, seq->fed, sizeof seq->fed);
    memcpy(tokens + n + seq->n_accepted, seq->after, sizeof seq->after);
    chain(stage, seq, tokens, n + seq->n_accepted + N_AFTER, N_AFTER, seq->want_after);
    poison_from(stage, seq, seq->n);
}

/* ---- the round ---- */

static void assert_row(const float *got, const float *want, const struct seq *seq, int32_t row, const char *what)
{
    if (memcmp(got, want, ROW_BYTES) != 0) {
        fail_msg("%s %d of a sequence of %d (%d rows before, %d nodes, parent %d) differs from its chain", what,
                 row, seq->n, seq->n_before, seq->n_nodes,
                 row >= seq->n_before && row < seq->n_before + seq->n_nodes ? seq->parent[row - seq->n_before] : -1);
    }
}

/* Rows of this pass of every sequence's tree, in one ragged pass, the last sequence first. */
static void feed_trees(struct stage *stage, int32_t pass)
{
    int32_t first_logits[MAX_SEQS];
    batch_clear(stage->batch);
    for (int32_t s = stage->n_seqs - 1; s >= 0; s--) {
        const struct seq *seq = &stage->seqs[s];
        const int32_t begin = pass > 0 ? seq->end[pass - 1] : 0, end = seq->end[pass];
        first_logits[s] = end == begin ? 0 : batch_add(stage->batch, &(struct batch_part){
            .tokens = seq->fed + begin, .table = seq->table, .first_position = seq->n + begin,
            .n_rows = end - begin, .n_logits = end - begin, .parent = seq->parent,
            .n_nodes = end - seq->n_before });
    }
    if (batch_pass(stage->batch)->n_rows == 0) {
        return;
    }
    const float *logits = run(stage);
    for (int32_t s = 0; s < stage->n_seqs; s++) {
        const struct seq *seq = &stage->seqs[s];
        const int32_t begin = pass > 0 ? seq->end[pass - 1] : 0;
        for (int32_t row = begin; row < seq->end[pass]; row++) {
            assert_row(logits + (size_t)(first_logits[s] + row - begin) * VOCAB,
                       seq->want + (size_t)row * VOCAB, seq, row, "row");
        }
    }
}

/* The chain prefix is kept as it lies, and decoding goes on over what the branches left behind. */
static void feed_after(struct stage *stage)
{
    for (int32_t i = 0; i < N_AFTER; i++) {
        batch_clear(stage->batch);
        for (int32_t s = 0; s < stage->n_seqs; s++) {
            const struct seq *seq = &stage->seqs[s];
            batch_add(stage->batch, &(struct batch_part){ .tokens = &seq->after[i], .table = seq->table,
                      .first_position = seq->n + seq->n_before + seq->n_accepted + i, .n_rows = 1,
                      .n_logits = 1 });
        }
        const float *logits = run(stage);
        for (int32_t s = 0; s < stage->n_seqs; s++) {
            assert_row(logits + (size_t)s * VOCAB, stage->seqs[s].want_after + (size_t)i * VOCAB,
                       &stage->seqs[s], i, "token after the tree,");
        }
    }
}

static void check_scene(const struct scene *scene)
{
    struct backend *backend;
    struct stage stage;
    if (backend_create("cpu", scene->isa, &backend) != STATUS_OK) {
        print_message("skipped %s: %s\n", scene->isa, status_message());
        return;
    }
    backend_destroy(backend);
    stage_open(&stage, scene);
    const int32_t n_rounds = getenv("TANDEM_TEST_QUICK") ? 1 : scene->n_rounds;
    for (int32_t round = 0; round < n_rounds; round++) {
        for (int32_t s = 0; s < stage.n_seqs; s++) {
            plan_tree(&stage, &stage.seqs[s]);
            ask_chains(&stage, &stage.seqs[s]);
        }
        for (int32_t pass = 0; pass < MAX_PASSES; pass++) {
            feed_trees(&stage, pass);
        }
        feed_after(&stage);
    }
    stage_close(&stage);
}

#define ALL_LENS { 15, 16, 17, 255, 256, 257, 511, 512, 513 }
#define FEW_LENS { 17, 255 }

static void trees_avx512(void **state)
{
    (void)state;
    check_scene(&(struct scene){ "avx512", KV_F16, 16, 0, 2, 12, ALL_LENS, 9 });
    check_scene(&(struct scene){ "avx512", KV_F32, 64, 0, 1, 12, ALL_LENS, 9 });
}

static void trees_avx2(void **state)
{
    (void)state;
    check_scene(&(struct scene){ "avx2", KV_F16, 64, 0, 1, 6, ALL_LENS, 9 });
    check_scene(&(struct scene){ "avx2", KV_F32, 16, 0, 2, 6, ALL_LENS, 9 });
}

static void trees_scalar(void **state)
{
    (void)state;
    check_scene(&(struct scene){ "scalar", KV_F16, 16, 0, 1, 2, ALL_LENS, 9 });
    check_scene(&(struct scene){ "scalar", KV_F32, 64, 0, 2, 2, FEW_LENS, 2 });
}

static void trees_under_a_window(void **state)
{
    (void)state;
    check_scene(&(struct scene){ NULL, KV_F16, 16, 5, 1, 4, ALL_LENS, 9 });
    check_scene(&(struct scene){ NULL, KV_F32, 64, 17, 1, 4, ALL_LENS, 9 });
    check_scene(&(struct scene){ NULL, KV_F16, 64, 256, 1, 4, ALL_LENS, 9 });
    check_scene(&(struct scene){ "scalar", KV_F16, 16, 17, 1, 2, FEW_LENS, 2 });
}

/* Another parent gives other bits, else equality above proves nothing. */
static void another_parent_differs(void **state)
{
    static const int8_t parents[2][3] = { { -1, 0, 0 }, { -1, 0, -1 } };
    static const int32_t tokens[3] = { 5, 6, 7 };
    static float logits[2][3 * VOCAB];
    struct stage stage;
    (void)state;
    stage_open(&stage, &(struct scene){ NULL, KV_F16, 16, 0, 1, 1, { 30 }, 1 });
    for (int t = 0; t < 2; t++) {
        batch_clear(stage.batch);
        batch_add(stage.batch, &(struct batch_part){ .tokens = tokens, .table = stage.seqs[0].table,
                  .first_position = 30, .n_rows = 3, .n_logits = 3, .parent = parents[t], .n_nodes = 3 });
        memcpy(logits[t], run(&stage), sizeof logits[t]);
    }
    assert_memory_equal(logits[0], logits[1], 2 * ROW_BYTES);
    assert_memory_not_equal(logits[0] + 2 * VOCAB, logits[1] + 2 * VOCAB, ROW_BYTES);
    stage_close(&stage);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trees_avx512),
        cmocka_unit_test(trees_avx2),
        cmocka_unit_test(trees_scalar),
        cmocka_unit_test(trees_under_a_window),
        cmocka_unit_test(another_parent_differs),
    };
    return cmocka_run_group_tests_name("tree", tests, NULL, NULL);
}
