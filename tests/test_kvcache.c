/* kvcache: each function, and proof that the recount sees what is broken on purpose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kv_sim.h"

/* ---- pool ---- */
static void pool_refuses_impossible_sizes(void **state)
{
    (void)state;
    struct kv_pool *pool = (struct kv_pool *)(uintptr_t)1;
    assert_int_equal(kv_pool_create(0, 16, &pool), STATUS_INVALID);
    assert_null(pool);
    assert_int_equal(kv_pool_create(-5, 16, &pool), STATUS_INVALID);
    assert_int_equal(kv_pool_create(16, 0, &pool), STATUS_INVALID);
    assert_int_equal(kv_pool_create(INT32_MAX, 2, &pool), STATUS_INVALID);
    assert_int_equal(kv_pool_create(1 << 16, 1 << 15, &pool), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "65536 pages of 32768 slots"));
    assert_int_equal(kv_pool_create(8, 16, &pool), STATUS_OK);
    assert_int_equal(kv_pool_page_slots(pool), 16);
    struct kv_table *table = NULL;
    assert_int_equal(kv_table_create(pool, 0, &table), STATUS_INVALID);
    assert_int_equal(kv_table_create(pool, INT32_MAX, &table), STATUS_INVALID);
    assert_null(table);
    kv_pool_destroy(pool);
    kv_pool_destroy(NULL);
    kv_table_destroy(NULL);
    kv_prefix_destroy(NULL);
}

static void create_survives_each_failed_allocation(void **state)
{
    (void)state;
    int n_refused = 0;
    for (uint64_t at = 1;; at++) {
        struct kv_pool *pool = NULL;
        struct kv_prefix *prefix = NULL;
        struct kv_table *table = NULL;
        enum status status = STATUS_OK;
        const uint64_t before = mem_alloc_count();
        mem_fail_at(at);
        TRY_GOTO(kv_pool_create(8, SLOTS, &pool), out);
        TRY_GOTO(kv_prefix_create(pool, &prefix), out);
        TRY_GOTO(kv_table_create(pool, CAP_LEN, &table), out);
    out:
        mem_fail_at(0);
        if (pool != NULL) {
            assert_int_equal(kv_pool_check(pool, &table, table != NULL), STATUS_OK);
        }
        kv_table_destroy(table);
        kv_prefix_destroy(prefix);
        kv_pool_destroy(pool);
        if (status == STATUS_OK) {
            assert_true(mem_alloc_count() - before < at);
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        n_refused++;
    }
    assert_int_equal(n_refused, 12);
}

static void passes_keep_released_pages(void **state)
{
    (void)state;
    struct kv_sim cache = kv_sim_open(2, 2);
    assert_int_equal(kv_table_reserve(cache.tables[0], 2 * SLOTS), STATUS_OK);
    kv_pool_pass_begin(cache.pool);
    kv_table_clear(cache.tables[0]);
    kv_sim_assert_counts(&cache, 0, 2, 0); /* I5 */
    assert_int_equal(kv_table_reserve(cache.tables[1], 1), STATUS_REFUSED);
    kv_pool_pass_begin(cache.pool);
    kv_pool_pass_end(cache.pool);
    assert_int_equal(kv_table_reserve(cache.tables[1], 1), STATUS_REFUSED);
    kv_pool_pass_end(cache.pool);
    kv_sim_assert_counts(&cache, 2, 0, 0);
    assert_int_equal(kv_table_reserve(cache.tables[1], 2 * SLOTS), STATUS_OK);
    kv_sim_close(&cache);
}

static void pages_attached_again_during_a_pass_stay_held(void **state)
{
    (void)state;
    int32_t tokens[9];
    kv_sim_tokens(tokens, 9, 100);
    struct kv_sim cache = kv_sim_open(4, 2);
    kv_sim_prefill(&cache, 0, 0, tokens, 8);
    kv_sim_publish(&cache, 0, 0, tokens);
    kv_pool_pass_begin(cache.pool);
    kv_table_clear(cache.tables[0]);
    kv_sim_assert_counts(&cache, 1, 3, 0);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 9, cache.tables[1]), 8);
    kv_sim_check(&cache);
    kv_table_clear(cache.tables[1]); /* let go a second time in the same pass */
    kv_sim_check(&cache);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 9, cache.tables[1]), 8);
    kv_pool_pass_end(cache.pool);
    kv_sim_assert_counts(&cache, 2, 2, 0);
    kv_table_clear(cache.tables[1]);
    kv_sim_assert_counts(&cache, 2, 0, 2);
    kv_sim_close(&cache);
}

/* ---- table ---- */
static void lengths_move_and_pages_stay(void **state)
{
    (void)state;
    struct kv_sim cache = kv_sim_open(8, 1);
    struct kv_table *table = cache.tables[0];
    assert_int_equal(kv_table_reserve(table, 10), STATUS_OK);
    assert_int_equal(kv_table_reserved_len(table), 12);
    assert_int_equal(kv_table_reserve(table, 3), STATUS_OK); /* never shrinks */
    assert_int_equal(kv_table_reserved_len(table), 12);
    int32_t n_pages = 0;
    const uint32_t *pages = kv_table_pages(table, &n_pages);
    assert_int_equal(n_pages, 3);
    for (int32_t i = 0; i < 12; i++) {
        assert_int_equal(kv_table_slot(table, i), (int32_t)pages[i / SLOTS] * SLOTS + i % SLOTS);
    }
    kv_table_commit(table, 6);
    kv_table_set_cached(table, 5);
    kv_table_propose(table, 4);
    assert_int_equal(kv_table_proposed_len(table), 10);
    kv_table_commit(table, 2); /* one accepted, one recovery token */
    assert_int_equal(kv_table_proposed_len(table), 10);
    kv_table_set_cached(table, 7);
    assert_int_equal(kv_table_cached_len(table), 7);
    assert_int_equal(kv_table_committed_len(table), 8);
    assert_int_equal(kv_table_proposed_len(table), 8);
    kv_table_rollback(table, 9); /* nothing above: nothing happens */
    assert_int_equal(kv_table_committed_len(table), 8);
    kv_table_rollback(table, 3);
    assert_int_equal(kv_table_cached_len(table), 3);
    assert_int_equal(kv_table_committed_len(table), 3);
    assert_int_equal(kv_table_reserved_len(table), 12);
    kv_table_trim(table, 4);
    assert_int_equal(kv_table_reserved_len(table), 4);
    kv_table_clear(table);
    assert_int_equal(kv_table_committed_len(table), 0);
    kv_sim_assert_counts(&cache, 8, 0, 0);
    kv_sim_close(&cache);
}

static void prepare_write_copies_shared_pages_only(void **state)
{
    (void)state;
    int32_t tokens[16];
    kv_sim_tokens(tokens, 16, 7);
    struct kv_sim cache = kv_sim_open(7, 2);
    struct kv_table *parent = cache.tables[0], *child = cache.tables[1];
    kv_sim_prefill(&cache, 0, 0, tokens, 10);
    assert_int_equal(kv_table_fork(parent, child), STATUS_OK);
    kv_sim_assert_counts(&cache, 4, 3, 0);
    assert_int_equal(kv_table_cached_len(child), 10);
    assert_int_equal(kv_table_reserve(child, 16), STATUS_OK);

    struct kv_copy copies[4];
    int32_t n_copies = -1, n_pages = 0;
    assert_int_equal(kv_table_prepare_write(child, 12, 4, copies, 4, &n_copies), STATUS_OK);
    assert_int_equal(n_copies, 0); /* its own page */
    assert_int_equal(kv_table_prepare_write(child, 10, 0, copies, 4, &n_copies), STATUS_OK);
    assert_int_equal(n_copies, 0); /* nothing to write */
    assert_int_equal(kv_table_prepare_write(child, 7, 4, copies, 2, &n_copies), STATUS_OK);
    assert_int_equal(n_copies, 2);
    const uint32_t *old = kv_table_pages(parent, &n_pages), *new = kv_table_pages(child, &n_pages);
    for (int32_t i = 0; i < 2; i++) {
        assert_int_equal(copies[i].src, old[1 + i]);
        assert_int_equal(copies[i].dst, new[1 + i]);
    }
    assert_int_equal(old[0], new[0]);
    kv_sim_assert_counts(&cache, 1, 6, 0);
    assert_int_equal(kv_table_prepare_write(parent, 4, 8, copies, 4, &n_copies), STATUS_OK);
    assert_int_equal(n_copies, 0); /* nobody else is left on those */
    kv_sim_close(&cache);
}

static void prepare_write_refuses_whole(void **state)
{
    (void)state;
    int32_t tokens[8];
    kv_sim_tokens(tokens, 8, 7);
    struct kv_sim cache = kv_sim_open(4, 2);
    kv_sim_prefill(&cache, 0, 0, tokens, 8);
    kv_table_trim(cache.tables[0], 8);
    assert_int_equal(kv_table_fork(cache.tables[0], cache.tables[1]), STATUS_OK);
    assert_int_equal(kv_table_reserve(cache.tables[1], 12), STATUS_OK);
    uint32_t before[3];
    int32_t n_pages = 0, n_copies = -1;
    memcpy(before, kv_table_pages(cache.tables[1], &n_pages), sizeof before);
    struct kv_copy copies[2];
    assert_int_equal(kv_table_prepare_write(cache.tables[1], 0, 8, copies, 2, &n_copies),
                     STATUS_REFUSED);
    assert_int_equal(n_copies, 0);
    assert_memory_equal(before, kv_table_pages(cache.tables[1], &n_pages), sizeof before);
    kv_sim_assert_counts(&cache, 1, 3, 0);
    assert_int_equal(kv_table_prepare_write(cache.tables[1], 4, 1, copies, 1, &n_copies),
                     STATUS_OK);
    assert_int_equal(n_copies, 1);
    kv_sim_close(&cache);
}

/* The source of a copy, once let go, may be evictable: it must not become a destination at once. */
static void a_copy_source_is_no_destination(void **state)
{
    (void)state;
    int32_t tokens[9], other[9];
    kv_sim_tokens(tokens, 9, 7);
    kv_sim_tokens(other, 9, 70);
    struct kv_sim cache = kv_sim_open(5, 1);
    kv_sim_remember(&cache, 0, other, 8);
    kv_sim_prefill(&cache, 0, 0, tokens, 8);
    kv_sim_publish(&cache, 0, 0, tokens);
    kv_table_rollback(cache.tables[0], 0);
    kv_sim_assert_counts(&cache, 0, 3, 2);
    struct kv_copy copies[2];
    int32_t n_copies = 0;
    assert_int_equal(kv_table_prepare_write(cache.tables[0], 0, 8, copies, 2, &n_copies),
                     STATUS_OK);
    assert_int_equal(n_copies, 2);
    for (int32_t i = 0; i < 4; i++) {
        assert_true(copies[i / 2].src != copies[i % 2].dst);
    }
    kv_sim_assert_counts(&cache, 0, 3, 2);
    kv_table_clear(cache.tables[0]);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 9, cache.tables[0]), 8);
    kv_sim_close(&cache);
}

static void fork_needs_room(void **state)
{
    (void)state;
    int32_t tokens[9];
    kv_sim_tokens(tokens, 9, 7);
    struct kv_sim cache = kv_sim_open(8, 1);
    kv_sim_prefill(&cache, 0, 0, tokens, 9);
    cache.n_tables = 2;
    assert_int_equal(kv_table_create(cache.pool, 8, &cache.tables[1]), STATUS_OK);
    assert_int_equal(kv_table_fork(cache.tables[0], cache.tables[1]), STATUS_INVALID);
    assert_int_equal(kv_table_reserved_len(cache.tables[1]), 0);
    kv_sim_close(&cache);
}

/* ---- prefix tree ---- */
static void attach_leaves_the_last_token(void **state)
{
    (void)state;
    int32_t tokens[12];
    kv_sim_tokens(tokens, 12, 1);
    struct kv_sim cache = kv_sim_open(8, 1);
    kv_sim_remember(&cache, 0, tokens, 12);
    kv_sim_assert_counts(&cache, 5, 0, 3);
    static const int32_t expected[13] = {0, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8};
    for (int32_t n = 0; n <= 12; n++) {
        assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, n, cache.tables[0]),
                         expected[n]);
        assert_int_equal(kv_table_cached_len(cache.tables[0]), expected[n]);
        assert_int_equal(kv_table_committed_len(cache.tables[0]), expected[n]);
        assert_int_equal(kv_table_reserved_len(cache.tables[0]), expected[n]);
        kv_sim_assert_content(&cache, cache.tables[0], tokens);
        kv_table_clear(cache.tables[0]);
        kv_sim_assert_counts(&cache, 5, 0, 3);
    }
    kv_prefix_clear(cache.prefix);
    kv_sim_assert_counts(&cache, 8, 0, 0);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 12, cache.tables[0]), 0);
    kv_sim_close(&cache);
}

static void attach_stays_within_the_room(void **state)
{
    (void)state;
    int32_t tokens[13];
    kv_sim_tokens(tokens, 13, 1);
    struct kv_sim cache = kv_sim_open(8, 1);
    kv_sim_remember(&cache, 0, tokens, 12);
    cache.n_tables = 2;
    assert_int_equal(kv_table_create(cache.pool, 7, &cache.tables[1]), STATUS_OK);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 13, cache.tables[1]), 8);
    kv_sim_close(&cache);
}

static void attach_keeps_salts_apart(void **state)
{
    (void)state;
    int32_t tokens[12];
    kv_sim_tokens(tokens, 12, 1);
    struct kv_sim cache = kv_sim_open(16, 3);
    kv_sim_prefill(&cache, 0, 11, tokens, 9);
    kv_sim_publish(&cache, 0, 11, tokens);
    assert_int_equal(kv_sim_prefill(&cache, 1, 12, tokens, 9), 0);
    kv_sim_publish(&cache, 1, 12, tokens);
    assert_int_equal(kv_prefix_attach(cache.prefix, 11, tokens, 9, cache.tables[2]), 8);
    kv_table_clear(cache.tables[2]);
    kv_sim_publish(&cache, 0, 13, tokens); /* its pages are taken: they stay with the first salt */
    assert_int_equal(kv_prefix_attach(cache.prefix, 13, tokens, 9, cache.tables[2]), 0);
    assert_int_equal(kv_table_reserve(cache.tables[0], 12), STATUS_OK);
    kv_table_commit(cache.tables[0], 3);
    kv_sim_write(&cache, cache.tables[0], tokens, 9, 12);
    kv_table_set_cached(cache.tables[0], 12);
    kv_sim_publish(&cache, 0, 13, tokens); /* nor may a page of one hang below pages of the other */
    kv_sim_assert_counts(&cache, 10, 6, 0);
    kv_sim_close(&cache);
}

/* One bucket and one hash for all: only the tokens tell pages apart. */
static void tokens_decide_when_all_hashes_collide(void **state)
{
    (void)state;
    static const int32_t prompts[5][13] = {
        {1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 0},
        {1, 2, 3, 4, 5, 6, 7, 9, 9, 9, 9, 9, 0},
        {5, 6, 7, 8, 1, 2, 3, 4, 9, 9, 9, 9, 0},
        {5, 6, 7, 8, 5, 6, 7, 8, 5, 6, 7, 8, 0},
        {1, 2, 3, 5, 5, 6, 7, 8, 9, 9, 9, 9, 0},
    };
    struct kv_sim cache = kv_sim_open(32, 5);
    cache.prefix->hash_mask = 0;
    for (int32_t i = 0; i < 5; i++) {
        static const int32_t expected[5] = {0, 4, 0, 4, 0};
        assert_int_equal(kv_sim_prefill(&cache, i, 0, prompts[i], 13), expected[i]);
        kv_sim_publish(&cache, i, 0, prompts[i]);
    }
    for (int32_t i = 0; i < 5; i++) {
        kv_table_clear(cache.tables[i]);
        assert_int_equal(kv_sim_prefill(&cache, i, 0, prompts[i], 13), 12);
    }
    kv_sim_close(&cache);
}

static void publish_keeps_the_first_copy(void **state)
{
    (void)state;
    int32_t tokens[12];
    kv_sim_tokens(tokens, 12, 1);
    struct kv_sim cache = kv_sim_open(16, 3);
    kv_sim_prefill(&cache, 0, 0, tokens, 8); /* two computed the same at the same time */
    kv_sim_prefill(&cache, 1, 0, tokens, 12);
    int32_t n_pages = 0;
    const uint32_t first = kv_table_pages(cache.tables[0], &n_pages)[0];
    kv_sim_publish(&cache, 0, 0, tokens);
    kv_sim_publish(&cache, 1, 0, tokens);
    kv_table_clear(cache.tables[0]);
    /* The first two pages of the tree are in no table, but the third below them is. */
    kv_sim_assert_counts(&cache, 10, 6, 0);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 12, cache.tables[2]), 8);
    assert_int_equal(kv_table_pages(cache.tables[2], &n_pages)[0], first);
    kv_table_clear(cache.tables[2]);
    kv_table_clear(cache.tables[1]);
    kv_sim_assert_counts(&cache, 13, 0, 3);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 12, cache.tables[2]), 8);
    kv_sim_close(&cache);
}

/* I8: neither a page half cached nor one merely committed. */
static void publish_stops_below_cached(void **state)
{
    (void)state;
    int32_t tokens[12];
    kv_sim_tokens(tokens, 12, 1);
    struct kv_sim cache = kv_sim_open(16, 1);
    struct kv_table *table = cache.tables[0];
    assert_int_equal(kv_table_reserve(table, 12), STATUS_OK);
    kv_table_commit(table, 12);
    static const int32_t cached[] = {3, 4, 7, 8, 11, 12};
    for (int i = 0; i < 6; i++) {
        kv_sim_write(&cache, table, tokens, kv_table_cached_len(table), cached[i]);
        kv_table_set_cached(table, cached[i]);
        kv_sim_publish(&cache, 0, 0, tokens);
        kv_sim_publish(&cache, 0, 0, tokens);
        int32_t n_nodes = 0;
        for (int32_t page = 0; page < 16; page++) {
            n_nodes += kv_page_is_node(cache.pool, (uint32_t)page);
        }
        assert_int_equal(n_nodes, cached[i] / SLOTS);
    }
    kv_sim_close(&cache);
}

static void a_published_page_is_read_only(void **state)
{
    (void)state;
    int32_t tokens[9], other[9];
    kv_sim_tokens(tokens, 9, 1);
    memcpy(other, tokens, sizeof tokens);
    other[6] = 99;
    struct kv_sim cache = kv_sim_open(16, 2);
    kv_sim_prefill(&cache, 0, 0, tokens, 8);
    kv_sim_publish(&cache, 0, 0, tokens);
    kv_table_rollback(cache.tables[0], 6);
    kv_table_commit(cache.tables[0], 3);
    assert_int_equal(kv_sim_write(&cache, cache.tables[0], other, 6, 9), 1);
    kv_table_set_cached(cache.tables[0], 9);
    kv_sim_publish(&cache, 0, 0, other); /* from the root again: other tokens, other branch */
    kv_sim_assert_content(&cache, cache.tables[0], other);
    assert_int_equal(kv_sim_prefill(&cache, 1, 0, tokens, 9), 8);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(kv_sim_prefill(&cache, 1, 0, other, 9), 8);
    kv_sim_close(&cache);
}

static void eviction_takes_the_least_recently_used_leaf(void **state)
{
    (void)state;
    int32_t a[9], b[9], c[9];
    kv_sim_tokens(a, 9, 100);
    kv_sim_tokens(b, 9, 200);
    kv_sim_tokens(c, 9, 300);
    struct kv_sim cache = kv_sim_open(7, 2);
    kv_sim_remember(&cache, 0, a, 8);
    kv_sim_remember(&cache, 0, b, 8);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, a, 9, cache.tables[0]), 8); /* a is young */
    kv_table_clear(cache.tables[0]);
    kv_sim_assert_counts(&cache, 3, 0, 4);
    assert_int_equal(kv_table_reserve(cache.tables[1], 4 * SLOTS), STATUS_OK);
    kv_sim_assert_counts(&cache, 0, 4, 3);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, b, 9, cache.tables[0]), 4); /* leaf first */
    kv_table_clear(cache.tables[0]);
    assert_int_equal(kv_table_reserve(cache.tables[1], 5 * SLOTS), STATUS_OK);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, a, 9, cache.tables[0]), 4);
    kv_table_clear(cache.tables[0]);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, b, 9, cache.tables[0]), 4);
    kv_sim_assert_counts(&cache, 0, 6, 1);
    assert_int_equal(kv_table_reserve(cache.tables[1], 7 * SLOTS), STATUS_REFUSED);
    kv_sim_assert_counts(&cache, 0, 6, 1); /* all or nothing: not even evicted */
    assert_int_equal(kv_table_reserve(cache.tables[1], 6 * SLOTS), STATUS_OK);
    kv_sim_assert_counts(&cache, 0, 7, 0);
    kv_table_clear(cache.tables[0]);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, b, 9, cache.tables[0]), 4);
    kv_table_clear(cache.tables[0]);
    kv_sim_remember(&cache, 0, c, 9);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, c, 9, cache.tables[0]), 8);
    kv_sim_close(&cache);
}

/* Publishing again what is there is use, too. */
static void publishing_refreshes(void **state)
{
    (void)state;
    int32_t a[9], b[9];
    kv_sim_tokens(a, 9, 100);
    kv_sim_tokens(b, 9, 200);
    struct kv_sim cache = kv_sim_open(8, 2);
    assert_int_equal(kv_table_reserve(cache.tables[0], 8), STATUS_OK);
    kv_table_commit(cache.tables[0], 8);
    kv_sim_write(&cache, cache.tables[0], a, 0, 8);
    kv_table_set_cached(cache.tables[0], 8);
    kv_sim_remember(&cache, 1, a, 8);
    kv_sim_remember(&cache, 1, b, 8);
    kv_sim_publish(&cache, 0, 0, a);
    kv_table_clear(cache.tables[0]);
    kv_sim_assert_counts(&cache, 4, 0, 4);
    assert_int_equal(kv_table_reserve(cache.tables[0], 6 * SLOTS), STATUS_OK);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, b, 9, cache.tables[1]), 0);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, a, 9, cache.tables[1]), 8);
    kv_sim_close(&cache);
}

static void tables_survive_the_tree(void **state)
{
    (void)state;
    int32_t tokens[12];
    kv_sim_tokens(tokens, 12, 1);
    struct kv_sim cache = kv_sim_open(16, 2);
    kv_sim_prefill(&cache, 0, 0, tokens, 8);
    kv_sim_prefill(&cache, 1, 0, tokens, 12);
    kv_sim_publish(&cache, 0, 0, tokens);
    kv_sim_publish(&cache, 1, 0, tokens);
    kv_table_clear(cache.tables[0]);
    kv_pool_pass_begin(cache.pool);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(kv_sim_prefill(&cache, 1, 0, tokens, 9), 8);
    kv_prefix_destroy(cache.prefix);
    kv_sim_assert_content(&cache, cache.tables[1], tokens);
    kv_sim_check(&cache);
    assert_int_equal(kv_prefix_create(cache.pool, &cache.prefix), STATUS_OK);
    kv_sim_publish(&cache, 1, 0, tokens); /* the place it remembers was in the other tree */
    kv_pool_pass_end(cache.pool);
    kv_sim_assert_counts(&cache, 13, 3, 0);
    kv_table_clear(cache.tables[1]);
    kv_sim_assert_counts(&cache, 14, 0, 2);
    kv_sim_close(&cache);
}

static void nothing_allocates_after_creation(void **state)
{
    (void)state;
    int32_t tokens[40];
    kv_sim_tokens(tokens, 40, 1);
    struct kv_sim cache = kv_sim_open(12, 2);
    const uint64_t before = mem_alloc_count();
    for (int32_t round = 0; round < 50; round++) {
        tokens[round % 40] = round;
        kv_sim_prefill(&cache, 0, 0, tokens, 30);
        kv_sim_publish(&cache, 0, 0, tokens);
        assert_int_equal(kv_table_fork(cache.tables[0], cache.tables[1]), STATUS_OK);
        kv_table_rollback(cache.tables[1], 28);
        kv_sim_write(&cache, cache.tables[1], tokens, 28, 30);
        kv_table_clear(cache.tables[1]);
        kv_table_clear(cache.tables[0]);
    }
    assert_true(mem_alloc_count() == before);
    kv_sim_close(&cache);
}

/* ---- the recount sees what is broken ---- */
static void check_finds(const struct kv_sim *cache, const char *words)
{
    assert_int_equal(kv_pool_check(cache->pool, cache->tables, cache->n_tables), STATUS_INVALID);
    if (strstr(status_message(), words) == NULL) {
        fail_msg("expected '%s' in: %s", words, status_message());
    }
}

/* Sets a number wrong, expects the recount to say so, sets it right. */
#define PLANT(place, wrong, words)          \
    do {                                    \
        const __typeof__(place) kept_ = (place); \
        (place) = (wrong);                  \
        check_finds(&cache, words);         \
        (place) = kept_;                    \
        kv_sim_check(&cache);                \
    } while (0)

static void check_finds_planted_bugs(void **state)
{
    (void)state;
    int32_t tokens[13], other[13];
    kv_sim_tokens(tokens, 13, 1);
    kv_sim_tokens(other, 13, 100);
    struct kv_sim cache = kv_sim_open(16, 2);
    kv_sim_remember(&cache, 1, other, 12);
    kv_sim_prefill(&cache, 0, 0, tokens, 12);
    kv_sim_publish(&cache, 0, 0, tokens);
    struct kv_pool *pool = cache.pool;
    struct kv_table *table = cache.tables[0];
    struct kv_node *nodes = cache.prefix->nodes;
    const uint32_t held = table->pages[0], free = pool->free_pages[0];
    const int32_t cached = cache.prefix->oldest;

    PLANT(pool->n_refs[held], 1, "expected 2 references");
    PLANT(pool->n_refs[held], 3, "found 3");
    PLANT(pool->n_refs[free], 1, "expected 0 references");
    PLANT(pool->n_free, pool->n_free - 1, "free pages");
    PLANT(pool->free_pages[0], held, "free wrongly");
    PLANT(pool->free_pages[0], pool->free_pages[1], "free wrongly or twice");
    PLANT(pool->in_limbo[held], 1, "in limbo during 0 passes");
    PLANT(pool->n_held, pool->n_held + 1, "free + held + cached");
    PLANT(pool->n_cached, pool->n_cached - 1, "evictable pages");
    PLANT(table->cached_len, 13, "cached <= committed");
    PLANT(table->proposed_len, 20, "proposed <= reserved");
    PLANT(table->pages[3], held, "twice");
    PLANT(table->pages[3], 16, "pages below 16");
    PLANT(table->pages[3], free, "references");
    PLANT(table->published.n_pages, 4, "published pages");
    PLANT(cache.n_tables, 1, "all 2 live tables");
    PLANT(nodes[held].n_pins, 0, "pins");
    PLANT(nodes[cached].n_pins, 1, "pins");
    PLANT(nodes[cached].salt, 1, "not cached for its salt");
    PLANT(nodes[held].hash, nodes[held].hash + 1, "hash");
    PLANT(cache.prefix->tokens[held * SLOTS], 77, "hash");
    PLANT(cache.prefix->oldest, nodes[cached].newer, "wrongly among the evictable");
    PLANT(cache.prefix->newest, cached, "evictable pages");
    kv_sim_close(&cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_refuses_impossible_sizes),
        cmocka_unit_test(create_survives_each_failed_allocation),
        cmocka_unit_test(passes_keep_released_pages),
        cmocka_unit_test(pages_attached_again_during_a_pass_stay_held),
        cmocka_unit_test(lengths_move_and_pages_stay),
        cmocka_unit_test(prepare_write_copies_shared_pages_only),
        cmocka_unit_test(prepare_write_refuses_whole),
        cmocka_unit_test(a_copy_source_is_no_destination),
        cmocka_unit_test(fork_needs_room),
        cmocka_unit_test(attach_leaves_the_last_token),
        cmocka_unit_test(attach_stays_within_the_room),
        cmocka_unit_test(attach_keeps_salts_apart),
        cmocka_unit_test(tokens_decide_when_all_hashes_collide),
        cmocka_unit_test(publish_keeps_the_first_copy),
        cmocka_unit_test(publish_stops_below_cached),
        cmocka_unit_test(a_published_page_is_read_only),
        cmocka_unit_test(eviction_takes_the_least_recently_used_leaf),
        cmocka_unit_test(publishing_refreshes),
        cmocka_unit_test(tables_survive_the_tree),
        cmocka_unit_test(nothing_allocates_after_creation),
        cmocka_unit_test(check_finds_planted_bugs),
    };
    return cmocka_run_group_tests_name("kvcache", tests, NULL, NULL);
}
