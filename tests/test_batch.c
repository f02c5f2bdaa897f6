/* batch: which slots each row of a pass sees, slot by slot, for chains, trees and a speculation that
 * grows while its round is verified. Numbers only; the bits of such passes are test_tree's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "batching/batching.h"

enum { PAGE_SLOTS = 16, N_PAGES = 40, TABLE_LEN = 256 };

/* A table whose pages are in no order, with room up to TABLE_LEN. */
struct fixture {
    struct kv_pool *pool;
    struct kv_table *table, *other; /* take their pages in turns */
    struct batch *batch;
};

static struct fixture fixture_open(const struct batch_caps *caps)
{
    struct fixture f;
    assert_int_equal(kv_pool_create(N_PAGES, PAGE_SLOTS, &f.pool), STATUS_OK);
    assert_int_equal(kv_table_create(f.pool, TABLE_LEN, &f.table), STATUS_OK);
    assert_int_equal(kv_table_create(f.pool, TABLE_LEN, &f.other), STATUS_OK);
    for (int32_t len = PAGE_SLOTS; len <= TABLE_LEN; len += PAGE_SLOTS) {
        assert_int_equal(kv_table_reserve(f.table, len), STATUS_OK);
        assert_int_equal(kv_table_reserve(f.other, len), STATUS_OK);
    }
    assert_int_equal(batch_create(caps, &f.batch), STATUS_OK);
    return f;
}

static void fixture_close(struct fixture *f)
{
    batch_destroy(f->batch);
    kv_table_destroy(f->other);
    kv_table_destroy(f->table);
    kv_pool_destroy(f->pool);
}

/* A row stands in `place`, and sees the table's places 0 .. n_below - 1 and then those listed, the
 * last of which is its own; its position is their number less one. */
static void assert_sees(const struct fixture *f, const struct kv_table *table, int32_t row,
                        int32_t n_below, const int32_t *then, int32_t n_then)
{
    const struct pass *pass = batch_pass(f->batch);
    const struct kv_view *view = &pass->views[pass->seq_of_row[row]];
    assert_in_range(pass->seq_of_row[row], 0, pass->n_seqs - 1);
    assert_int_equal(pass->position[row], n_below + n_then - 1);
    for (int32_t p = 0; p < n_below; p++) {
        assert_int_equal(kv_view_slot(view, PAGE_SLOTS, p), kv_table_slot(table, p));
    }
    for (int32_t i = 0; i < n_then; i++) {
        assert_int_equal(kv_view_slot(view, PAGE_SLOTS, n_below + i), kv_table_slot(table, then[i]));
    }
    assert_int_equal(pass->slot[row], kv_table_slot(table, n_then > 0 ? then[n_then - 1] : n_below - 1));
}

static const int32_t tokens[64] = { 11, 12, 13, 14, 15, 16, 17, 18 };

static void a_chain_written_as_a_tree_is_a_chain(void **state)
{
    (void)state;
    static const int8_t parent[5] = { -1, 0, 1, 2, 3 };
    struct fixture f = fixture_open(&(struct batch_caps){ .n_rows = 8, .n_seqs = 1, .n_logits = 8 });
    struct batch_part part = { .tokens = tokens, .table = f.table, .first_position = 13, .n_rows = 7,
                               .n_logits = 6 };
    for (int round = 0; round < 2; round++) {
        batch_clear(f.batch);
        assert_int_equal(batch_add(f.batch, &part), 0);
        const struct pass *pass = batch_pass(f.batch);
        assert_int_equal(pass->n_rows, 7);
        assert_int_equal(pass->n_seqs, 1);
        assert_int_equal(pass->n_logits, 6);
        assert_int_equal(pass->views[0].n_path, 0);
        for (int32_t i = 0; i < 7; i++) {
            assert_int_equal(pass->token[i], tokens[i]);
            assert_sees(&f, f.table, i, 14 + i, NULL, 0);
        }
        part.parent = parent;
        part.n_nodes = 5;
    }
    fixture_close(&f);
}

/* The picture in batching.h, beside another sequence. */
static void branches_see_their_ancestors(void **state)
{
    (void)state;
    static const int8_t parent[4] = { -1, 0, -1, 2 };
    struct fixture f = fixture_open(
        &(struct batch_caps){ .n_rows = 9, .n_seqs = 3, .n_logits = 9, .n_views = 5 });
    const struct batch_part plain = { .tokens = tokens, .table = f.other, .first_position = 40,
                                      .n_rows = 1, .n_logits = 1 };
    const struct batch_part tree = { .tokens = tokens, .table = f.table, .first_position = 7, .n_rows = 6,
                                     .n_logits = 5, .parent = parent, .n_nodes = 4 };
    assert_int_equal(batch_add(f.batch, &plain), 0);
    assert_int_equal(batch_add(f.batch, &tree), 1);
    assert_int_equal(batch_add(f.batch, &plain), 6);
    const struct pass *pass = batch_pass(f.batch);
    assert_int_equal(pass->n_seqs, 5); /* three parts, two rows off the chain */
    assert_int_equal(pass->n_rows, 8);
    assert_sees(&f, f.other, 0, 41, NULL, 0);
    for (int32_t i = 0; i < 4; i++) { /* 7, 8, and the chain of nodes 9, 10 */
        assert_sees(&f, f.table, 1 + i, 8 + i, NULL, 0);
        assert_int_equal(pass->views[pass->seq_of_row[1 + i]].n_path, 0);
    }
    assert_sees(&f, f.table, 5, 9, (int32_t[]){ 11 }, 1);
    assert_sees(&f, f.table, 6, 9, (int32_t[]){ 11, 12 }, 2);
    assert_int_equal(pass->views[pass->seq_of_row[6]].fork, 9);
    assert_int_equal(pass->views[pass->seq_of_row[6]].n_path, 2);
    assert_sees(&f, f.other, 7, 41, NULL, 0);
    for (int32_t i = 1; i < 7; i++) {
        assert_int_equal(pass->logits_row[i], i + 1);
    }
    fixture_close(&f);
}

/* The path begins where the branch leaves the chain, not where the nodes begin. */
static void a_branch_shares_the_chain_it_hangs_on(void **state)
{
    (void)state;
    static const int8_t parent[6] = { -1, 0, 1, 1, 3, 2 }; /* 3, 4 off node 1; 5 on top of the chain */
    struct fixture f = fixture_open(
        &(struct batch_caps){ .n_rows = 6, .n_seqs = 1, .n_logits = 6, .n_views = 4 });
    batch_add(f.batch, &(struct batch_part){ .tokens = tokens, .table = f.table, .first_position = 30,
              .n_rows = 6, .n_logits = 6, .parent = parent, .n_nodes = 6 });
    const struct pass *pass = batch_pass(f.batch);
    const struct kv_view *view = &pass->views[pass->seq_of_row[4]];
    assert_sees(&f, f.table, 2, 33, NULL, 0);
    assert_sees(&f, f.table, 3, 32, (int32_t[]){ 33 }, 1);
    assert_sees(&f, f.table, 4, 32, (int32_t[]){ 33, 34 }, 2);
    assert_sees(&f, f.table, 5, 33, (int32_t[]){ 35 }, 1);
    assert_int_equal(view->fork, 32);
    assert_int_equal(view->n_path, 2);
    fixture_close(&f);
}

/* Any tree, fed at once or its first nodes earlier. */
static void random_trees_slot_by_slot(void **state)
{
    enum { MAX_NODES = 48, ROUNDS = 2000 };
    (void)state;
    struct fixture f = fixture_open(&(struct batch_caps){ .n_rows = MAX_NODES + 4, .n_seqs = 1,
                                                          .n_logits = MAX_NODES, .n_views = MAX_NODES + 1 });
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint64_t word = rng_mix64(round + 77);
        const int32_t n_nodes = 1 + (int32_t)(word % MAX_NODES), bushy = (int32_t)(word >> 8) % 4;
        const int32_t n_fed = word >> 16 & 1 ? (int32_t)((word >> 20) % (uint64_t)n_nodes) : 0;
        const int32_t n_before = n_fed > 0 ? 0 : (int32_t)((word >> 40) % 4);
        const int32_t first_node = 4 + (int32_t)((word >> 44) % 180);
        int8_t parent[MAX_NODES];
        for (int32_t i = 0; i < n_nodes; i++) { /* bushy 0: nearly a chain */
            word = rng_mix64(word);
            parent[i] = (int8_t)(word % 4 >= (uint64_t)bushy ? i - 1 : (int32_t)((word >> 9) % (uint64_t)(i + 1)) - 1);
        }
        const int32_t first_row_place = n_fed > 0 ? first_node + n_fed : first_node - n_before;
        batch_clear(f.batch);
        batch_add(f.batch, &(struct batch_part){ .tokens = tokens, .table = f.table,
                  .first_position = first_row_place, .n_rows = first_node + n_nodes - first_row_place,
                  .parent = parent, .n_nodes = n_nodes });
        for (int32_t i = n_fed; i < n_nodes; i++) {
            int32_t then[MAX_NODES], n = 0;
            for (int32_t at = i; at >= 0; at = parent[at]) {
                memmove(then + 1, then, (size_t)n++ * sizeof *then);
                then[0] = first_node + at;
            }
            assert_sees(&f, f.table, first_node + i - first_row_place, first_node, then, n);
        }
        for (int32_t i = 0; i < n_before; i++) {
            assert_sees(&f, f.table, i, first_row_place + i + 1, NULL, 0);
        }
    }
    fixture_close(&f);
}

/* The worked example of speculating while verifying: K = 2, 5 branches, N = 10; slots 0..8 valid, the
 * recovery token at 9. Glue feeds 9, 10, 11; then all branches grow by a token a pass. */
static void a_speculation_grows_beside_its_round(void **state)
{
    enum { N = 10, K = 2, MQ = 5 };
    static const int32_t accepted[MQ] = { 0, 0, 1, 2, 2 }; /* of each branch */
    static const int32_t rope[2][MQ] = { { 10, 10, 11, 12, 12 }, { 11, 11, 12, 13, 13 } };
    int8_t parent[K + 2 * MQ] = { -1, 0 }; /* x1, x2 in places 10, 11; then two steps of branches */
    (void)state;
    for (int32_t j = 0; j < MQ; j++) {
        parent[K + j] = (int8_t)(accepted[j] - 1);
        parent[K + MQ + j] = (int8_t)(K + j);
    }
    struct fixture f = fixture_open(
        &(struct batch_caps){ .n_rows = MQ, .n_seqs = 1, .n_logits = MQ, .n_views = MQ + 1 });
    batch_add(f.batch, &(struct batch_part){ .tokens = tokens, .table = f.table, .first_position = N - 1,
              .n_rows = K + 1, .n_logits = K + 1 });
    for (int32_t i = 0; i <= K; i++) {
        assert_sees(&f, f.table, i, N + i, NULL, 0);
    }
    for (int32_t step = 0; step < 2; step++) {
        batch_clear(f.batch);
        batch_add(f.batch, &(struct batch_part){ .tokens = tokens, .table = f.table,
                  .first_position = N + K + step * MQ, .n_rows = MQ, .n_logits = MQ,
                  .parent = parent, .n_nodes = K + (step + 1) * MQ });
        for (int32_t j = 0; j < MQ; j++) {
            const int32_t then[2] = { 12 + j, 17 + j };
            assert_sees(&f, f.table, j, N + accepted[j], then, step + 1);
            assert_int_equal(batch_pass(f.batch)->position[j], rope[step][j]);
        }
    }
    /* branch 2 in full: 0..10, 14, 19 */
    const struct pass *pass = batch_pass(f.batch);
    const struct kv_view *view = &pass->views[pass->seq_of_row[2]];
    static const int32_t sees[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 19 };
    assert_int_equal(pass->position[2], 12);
    for (int32_t p = 0; p < 13; p++) {
        assert_int_equal(kv_view_slot(view, PAGE_SLOTS, p), kv_table_slot(f.table, sees[p]));
    }
    /* outcome (1, its token): N = 12, and the next glue writes 11, 12, 13 */
    batch_clear(f.batch);
    batch_add(f.batch, &(struct batch_part){ .tokens = tokens, .table = f.table,
              .first_position = N + 1, .n_rows = K + 1, .n_logits = K + 1 });
    for (int32_t i = 0; i <= K; i++) {
        assert_sees(&f, f.table, i, 12 + i, NULL, 0);
    }
    fixture_close(&f);
}

static void a_batch_allocates_at_creation_or_not_at_all(void **state)
{
    (void)state;
    static const int8_t parent[4] = { -1, -1, -1, 2 };
    const struct batch_caps caps = { .n_rows = 4, .n_seqs = 1, .n_logits = 4, .n_views = 4 };
    struct batch *batch;
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_at(n);
        assert_int_equal(batch_create(&caps, &batch), STATUS_NO_MEMORY);
        assert_null(batch);
    }
    mem_fail_at(0);
    struct fixture f = fixture_open(&caps);
    const uint64_t before = mem_alloc_count();
    for (int round = 0; round < 3; round++) {
        batch_clear(f.batch);
        batch_add(f.batch, &(struct batch_part){ .tokens = tokens, .table = f.table, .first_position = 30,
                  .n_rows = 4, .n_logits = 4, .parent = parent, .n_nodes = 4 });
        assert_int_equal(batch_pass(f.batch)->n_seqs, 4);
    }
    assert_true(mem_alloc_count() == before);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_written_as_a_tree_is_a_chain),
        cmocka_unit_test(branches_see_their_ancestors),
        cmocka_unit_test(a_branch_shares_the_chain_it_hangs_on),
        cmocka_unit_test(random_trees_slot_by_slot),
        cmocka_unit_test(a_speculation_grows_beside_its_round),
        cmocka_unit_test(a_batch_allocates_at_creation_or_not_at_all),
    };
    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
