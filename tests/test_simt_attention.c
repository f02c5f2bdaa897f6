/* RoPE, the KV store, attention and page copies on the device give the scalar code's bits: ragged rows of
 * several sequences, branches, windows, shared heads. What no row may see is NaN.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/simt/bed.h"

enum { N_LAYERS = 2, LAYER = 1, N_SEQS = 3, PAGES_PER_SEQ = 64, MAX_ROWS = 17 };

struct shape {
    enum kv_type type;
    int32_t head_dim, n_kv_heads, n_group, page_slots, window;
    int32_t len[N_SEQS];    /* positions that lie somewhere, path included */
    int32_t n_path[N_SEQS]; /* how many of them at the end lie on a path */
};

struct fixture {
    struct shape shape;
    struct bed bed;
    struct kv_store store;
    struct kv_view *views;            /* [N_SEQS] */
    uint32_t (*pages)[PAGES_PER_SEQ]; /* [N_SEQS] */
    int32_t (*path)[KV_PATH_CAP];     /* [N_SEQS] */
    int32_t n_heads, head_skip;       /* of a rank that has some of the heads; 0: all are here */
};

/* Bytes of K, and of V. */
static size_t half_bytes(const struct kv_store *store) { return kv_store_bytes(store) / 2; }

/* The same store in memory of the device's own, an output. */
static struct kv_store store_copy(const struct kv_store *store)
{
    const size_t bytes = half_bytes(store);
    struct kv_store copy = *store;
    copy.k = bed_output(2 * bytes, 1);
    copy.v = copy.k + bytes;
    memcpy(copy.k, store->k, bytes);
    memcpy(copy.v, store->v, bytes);
    return copy;
}

static void assert_same_store(const struct kv_store *found, const struct kv_store *expected)
{
    assert_memory_equal(found->k, expected->k, half_bytes(expected));
    assert_memory_equal(found->v, expected->v, half_bytes(expected));
}

static void store_init(struct fixture *f, int32_t n_pages)
{
    const struct shape *s = &f->shape;
    f->store = (struct kv_store){ .type = s->type, .n_layers = N_LAYERS, .n_kv_heads = s->n_kv_heads,
                                  .head_dim = s->head_dim, .page_slots = s->page_slots, .n_pages = n_pages };
    assert_int_equal(kv_store_init(f->bed.backend, &f->store), STATUS_OK);
    for (int32_t p = 0; p < n_pages; p++) {
        kv_store_poison(&f->store, (uint32_t)p, 0, s->page_slots);
    }
}

/* Pages of the sequences lie interleaved and backwards; paths in spare pages, slots strewn. */
static void views_init(struct fixture *f)
{
    const struct shape *s = &f->shape;
    const int32_t spare = (KV_PATH_CAP + s->page_slots - 1) / s->page_slots * 3;
    int32_t n_pages = N_SEQS * spare, next;
    for (int32_t i = 0; i < N_SEQS; i++) {
        n_pages += (s->len[i] + s->page_slots - 1) / s->page_slots;
    }
    store_init(f, n_pages);
    f->views = bed_alloc_pointers(N_SEQS, sizeof *f->views);
    f->pages = bed_alloc(N_SEQS, sizeof *f->pages);
    f->path = bed_alloc(N_SEQS, sizeof *f->path);
    next = n_pages;
    for (int32_t i = 0; i < N_SEQS; i++) {
        const int32_t fork = s->len[i] - s->n_path[i], n = (fork + s->page_slots - 1) / s->page_slots;
        assert_true(n <= PAGES_PER_SEQ);
        for (int32_t p = 0; p < n; p++) {
            f->pages[i][p] = (uint32_t)--next;
        }
        for (int32_t p = 0; p < s->n_path[i]; p++) { /* every third slot of the spare pages */
            f->path[i][p] = i * spare * s->page_slots + 3 * p + 1;
        }
        f->views[i] = (struct kv_view){ f->pages[i], n, fork, f->path[i], s->n_path[i] };
    }
}

/* A value for each position of each sequence, stored by the scalar code. */
static void fill(struct fixture *f)
{
    const struct shape *s = &f->shape;
    const size_t width = (size_t)s->n_kv_heads * (size_t)s->head_dim;
    float *q = bed_alloc(width, sizeof *q), *k = bed_alloc(width, sizeof *k), *v = bed_alloc(width, sizeof *v);
    for (int32_t i = 0; i < N_SEQS; i++) {
        for (int32_t p = 0; p < s->len[i]; p++) {
            const int32_t none = -1, slot = kv_view_slot(&f->views[i], s->page_slots, p);
            for (size_t at = 0; at < width; at++) {
                k[at] = bed_float() * 2;
                v[at] = bed_float() * 3;
            }
            backend_rope_store(f->bed.lane, &(struct op_rope_store){
                .q = q, .k = k, .v = v, .position = &none, .slot = &slot, .store = &f->store, .layer = LAYER,
                .n_rows = 1, .n_heads = s->n_kv_heads, .rope_dims = 2 });
            bed_wait(&f->bed);
        }
    }
    bed_free(q);
    bed_free(k);
    bed_free(v);
}

static void fixture_init(struct fixture *f, const struct shape *shape)
{
    memset(f, 0, sizeof *f);
    f->shape = *shape;
    bed_init(&f->bed);
    views_init(f);
    fill(f);
}

static void fixture_deinit(struct fixture *f)
{
    bed_free(f->views);
    bed_free(f->pages);
    bed_free(f->path);
    kv_store_deinit(f->bed.backend, &f->store);
    bed_deinit(&f->bed);
}

static void check_rows(struct fixture *f, const int32_t *seq_of_row, const int32_t *position, int32_t n_rows)
{
    const struct shape *s = &f->shape;
    const bool some = f->n_heads > 0;
    const int32_t n_heads = some ? f->n_heads : s->n_kv_heads * s->n_group, n_group = some ? s->n_group : 0;
    const size_t n = (size_t)n_rows * (size_t)n_heads * (size_t)s->head_dim;
    float *q = bed_floats(n), *expected = bed_alloc(n, sizeof *expected);
    int32_t n_segments = 1;
    for (int32_t i = 0; i < n_rows; i++) {
        const int32_t needed = position[i] / SEGMENT_ELEMS + 1;
        n_segments = needed > n_segments ? needed : n_segments;
    }
    for (size_t i = 0; i < n; i++) {
        q[i] = bed_float() * 4;
    }
    backend_attention(f->bed.lane, &(struct op_attention){
        .q = q, .out = expected, .views = f->views, .seq_of_row = seq_of_row, .position = position,
        .store = &f->store, .layer = LAYER, .n_rows = n_rows, .n_heads = n_heads, .window = s->window,
        .n_group = n_group, .head_skip = f->head_skip, .scale = 0.125f });
    bed_wait(&f->bed);
    struct kv_store store = store_copy(&f->store);
    for (int backward = 0; backward < 2; backward++) {
        float *out = bed_output(n, sizeof *out);
        float *scratch = bed_output(cuda_attention_scratch_floats(n_rows, n_heads, s->head_dim, n_segments),
                                    sizeof *scratch);
        bed_order(backward);
        BED_RUN(cuda_attention, &(struct cuda_op_attention){
            .q = q, .out = out, .views = f->views, .seq_of_row = seq_of_row, .position = position,
            .store = store, .layer = LAYER, .n_rows = n_rows, .n_heads = n_heads, .window = s->window,
            .n_group = n_group, .head_skip = f->head_skip, .scale = 0.125f, .n_segments = n_segments, .scratch = scratch });
        char what[96];
        snprintf(what, sizeof what, "head_dim %d, %d heads share, %d rows, window %d", s->head_dim, s->n_group,
                 n_rows, s->window);
        bed_assert_same(what, out, expected, n);
        bed_output_free(out);
        bed_output_free(scratch);
    }
    bed_output_free(store.k);
    bed_free(q);
    bed_free(expected);
}

struct some_heads { int32_t n, skip; };

/* n_rows rows from the end of each sequence in turn; the fifth is a pad. */
static void check_heads(const struct shape *shape, int32_t n_rows, struct some_heads heads)
{
    struct fixture f;
    int32_t *seq_of_row = bed_alloc(MAX_ROWS, sizeof *seq_of_row), *position = bed_alloc(MAX_ROWS, sizeof *position);
    fixture_init(&f, shape);
    f.n_heads = heads.n;
    f.head_skip = heads.skip;
    for (int32_t i = 0; i < n_rows; i++) {
        const int32_t seq = i % N_SEQS, back = i / N_SEQS * 5;
        seq_of_row[i] = seq;
        position[i] = i == 4 ? -1 : shape->len[seq] - 1 - back < 0 ? 0 : shape->len[seq] - 1 - back;
    }
    check_rows(&f, seq_of_row, position, n_rows);
    bed_free(seq_of_row);
    bed_free(position);
    fixture_deinit(&f);
}

static void check(const struct shape *shape, int32_t n_rows)
{
    check_heads(shape, n_rows, (struct some_heads){ 0, 0 });
}

static bool quick(void) { return getenv("TANDEM_TEST_QUICK") != NULL; }

static void attention_of_ragged_rows(void **state)
{
    static const struct shape shapes[] = {
        { KV_F16, 64, 2, 1, 16, 0, { 1, 17, 300 }, { 0 } },
        { KV_F16, 16, 1, 2, 32, 0, { 256, 257, 40 }, { 0 } },
        { KV_F32, 80, 2, 3, 48, 0, { 33, 512, 5 }, { 0 } },
        { KV_F16, 128, 1, 8, 16, 0, { 513, 31, 255 }, { 0 } },
        { KV_F32, 256, 1, 5, 16, 0, { 20, 2, 259 }, { 0 } },
        { KV_F16, 48, 1, 9, 64, 0, { 96, 270, 3 }, { 0 } },
        { KV_F16, 160, 1, 17, 16, 0, { 9, 18, 300 }, { 0 } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i += quick() ? 2 : 1) {
        check(&shapes[i], 7);
    }
}

static void attention_of_any_number_of_rows(void **state)
{
    static const struct shape shape = { KV_F16, 32, 2, 2, 16, 0, { 90, 41, 266 }, { 5, 0, 20 } };
    (void)state;
    for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows += quick() ? 4 : 1) {
        check(&shape, n_rows);
    }
}

static void attention_of_branches(void **state)
{
    static const struct shape shapes[] = {
        { KV_F16, 64, 1, 4, 16, 0, { 260, 17, 64 }, { 7, 3, KV_PATH_CAP } },
        { KV_F32, 32, 2, 1, 32, 0, { 300, 33, 8 }, { KV_PATH_CAP, 1, 2 } },
        { KV_F16, 64, 1, 3, 16, 50, { 280, 60, 100 }, { 20, 8, KV_PATH_CAP } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check(&shapes[i], 9);
    }
}

/* What a rank has: heads that begin and end within a KV head's, KV heads that none of them reads. */
static void attention_of_some_heads(void **state)
{
    static const struct shape shapes[] = { { KV_F16, 32, 3, 3, 16, 0, { 20, 300, 9 }, { 0 } },
                                           { KV_F32, 16, 2, 9, 16, 0, { 40, 7, 260 }, { 0, 0, 9 } },
                                           { KV_F16, 64, 4, 1, 16, 0, { 33, 17, 5 }, { 0 } } };
    static const struct some_heads heads[] = { { 3, 2 }, { 1, 4 }, { 7, 0 }, { 4, 5 } };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (size_t h = 0; h < 4; h++) {
            const int32_t all = shapes[i].n_kv_heads * shapes[i].n_group;
            if (heads[h].n + heads[h].skip <= all) {
                check_heads(&shapes[i], 6, heads[h]);
            }
        }
    }
    const struct cuda_op_attention op = { .store = { .n_kv_heads = 2, .head_dim = 16, .page_slots = 16 },
                                          .n_heads = 4, .n_group = 2, .head_skip = 1, .n_segments = 1, .n_rows = 1 };
    assert_int_not_equal(cuda_attention(&op, NULL), 0);
}

static void attention_in_a_window(void **state)
{
    (void)state;
    for (int32_t window = 1; window < 600; window += quick() ? 255 : 85) {
        const struct shape shape = { KV_F16, 32, 1, 2, 16, window, { 600, 256, 257 }, { 0 } };
        check(&shape, 6);
    }
}

/* ---- RoPE and store ---- */


static void check_rope(enum kv_type type, int32_t n_rows, int32_t head_dim, int32_t rope_dims, bool normed)
{
    enum { N_HEADS = 4, N_KV = 2, N_POSITIONS = 40 };
    struct fixture f = { .shape = { type, head_dim, N_KV, 2, 16, 0, { 0 }, { 0 } } };
    int32_t *position = bed_alloc(MAX_ROWS, sizeof *position), *slot = bed_alloc(MAX_ROWS, sizeof *slot);
    bed_init(&f.bed);
    store_init(&f, 20);
    const size_t n_q = (size_t)(n_rows * N_HEADS * head_dim), n_k = n_q / N_HEADS * N_KV;
    float *q = bed_floats(n_q), *k = bed_floats(n_k), *v = bed_floats(n_k), *norm = bed_floats((size_t)head_dim);
    float *table = bed_floats((size_t)(2 * N_POSITIONS * rope_dims));
    float *q_out = bed_output(n_q, 4), *k_out = bed_output(n_k, 4);
    for (int32_t i = 0; i < n_rows; i++) {
        position[i] = i % 6 == 3 ? -1 : i * 7 % N_POSITIONS;
        slot[i] = i % 5 == 2 ? -1 : (i * 37 + 5) % (20 * 16);
    }
    struct cuda_op_rope_store op = {
        .q = q_out, .k = k_out, .v = v, .cos = table, .sin = table + N_POSITIONS * rope_dims, .position = position,
        .slot = slot, .store = store_copy(&f.store), .layer = LAYER, .n_rows = n_rows, .n_heads = N_HEADS,
        .rope_dims = rope_dims, .q_norm = normed ? norm : NULL, .k_norm = normed ? norm : NULL, .norm_eps = 1e-6f };
    memcpy(q_out, q, n_q * 4);
    memcpy(k_out, k, n_k * 4);
    bed_order(n_rows % 2);
    BED_RUN(cuda_rope_store, &op);
    backend_rope_store(f.bed.lane, &(struct op_rope_store){
        .q = q, .k = k, .v = v, .cos = op.cos, .sin = op.sin, .position = position, .slot = slot, .store = &f.store,
        .layer = LAYER, .n_rows = n_rows, .n_heads = N_HEADS, .rope_dims = rope_dims, .q_norm = op.q_norm,
        .k_norm = op.k_norm, .norm_eps = op.norm_eps });
    bed_wait(&f.bed);
    bed_assert_same("q", q_out, q, n_q);
    bed_assert_same("k", k_out, k, n_k);
    assert_same_store(&op.store, &f.store);
    bed_output_free(q_out);
    bed_output_free(k_out);
    bed_output_free(op.store.k);
    bed_free(position);
    bed_free(slot);
    bed_free(q);
    bed_free(k);
    bed_free(v);
    bed_free(norm);
    bed_free(table);
    fixture_deinit(&f);
}

static void rope_and_store(void **state)
{
    static const int32_t head_dims[] = { 64, 16, 128, 80, 256 };
    (void)state;
    for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows++) {
        const int32_t head_dim = head_dims[n_rows % 5];
        check_rope(n_rows % 3 ? KV_F16 : KV_F32, n_rows, head_dim, n_rows % 4 ? head_dim : head_dim / 2,
                   n_rows % 2);
    }
}

static void page_copies(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct shape shape = { i ? KV_F16 : KV_F32, 48, 3, 1, 32, 0, { 40, 700, 90 }, { 0 } };
        struct fixture f;
        fixture_init(&f, &shape);
        struct cuda_op_page_copy op = { store_copy(&f.store), f.pages[1][3], f.pages[0][0] };
        BED_RUN(cuda_page_copy, &op);
        backend_page_copy(f.bed.lane, &(struct op_page_copy){ &f.store, op.src, op.dst });
        bed_wait(&f.bed);
        assert_same_store(&op.store, &f.store);
        op.dst = op.src;
        assert_int_not_equal(cuda_page_copy(&op, NULL), 0);
        op.dst = (uint32_t)f.store.n_pages;
        assert_int_not_equal(cuda_page_copy(&op, NULL), 0);
        bed_output_free(op.store.k);
        fixture_deinit(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_of_ragged_rows), cmocka_unit_test(attention_of_any_number_of_rows),
        cmocka_unit_test(attention_of_branches),    cmocka_unit_test(attention_in_a_window),
        cmocka_unit_test(attention_of_some_heads),
        cmocka_unit_test(rope_and_store),           cmocka_unit_test(page_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
