/* kvcache: each function, the page cases of a ragged batch at K = 0, and proof that the recount sees
 * what is broken on purpose. Content is simulated: a slot holds the hash of the tokens up to it, so
 * that a page read by the wrong sequence, or overwritten under it, shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kvcache/private.h"

enum { SLOTS = 4, MAX_PAGES = 64, MAX_TABLES = 8, CAP_LEN = 96 };

struct cache {
    struct kv_pool *pool;
    struct kv_prefix *prefix;
    struct kv_table *tables[MAX_TABLES];
    int32_t n_tables;
    uint64_t content[MAX_PAGES * SLOTS]; /* what the device would hold */
};

static struct cache cache_open(int32_t n_pages, int32_t n_tables)
{
    struct cache cache = {.n_tables = n_tables};
    assert_true(n_pages <= MAX_PAGES && n_tables <= MAX_TABLES);
    assert_int_equal(kv_pool_create(n_pages, SLOTS, &cache.pool), STATUS_OK);
    assert_int_equal(kv_prefix_create(cache.pool, &cache.prefix), STATUS_OK);
    for (int32_t i = 0; i < n_tables; i++) {
        assert_int_equal(kv_table_create(cache.pool, CAP_LEN, &cache.tables[i]), STATUS_OK);
    }
    return cache;
}

static void cache_check(const struct cache *cache)
{
    if (kv_pool_check(cache->pool, cache->tables, cache->n_tables) != STATUS_OK) {
        fail_msg("%s", status_message());
    }
}

static void cache_close(struct cache *cache)
{
    cache_check(cache);
    for (int32_t i = 0; i < cache->n_tables; i++) {
        kv_table_destroy(cache->tables[i]);
    }
    cache->n_tables = 0;
    cache_check(cache);
    kv_prefix_destroy(cache->prefix);
    const struct kv_pool_counts counts = kv_pool_counts(cache->pool);
    assert_int_equal(counts.n_free, counts.n_total);
    assert_int_equal(counts.n_held, 0);
    kv_pool_destroy(cache->pool);
}

static void assert_counts(const struct cache *cache, int32_t n_free, int32_t n_held,
                          int32_t n_cached)
{
    cache_check(cache);
    const struct kv_pool_counts counts = kv_pool_counts(cache->pool);
    assert_int_equal(counts.n_free, n_free);
    assert_int_equal(counts.n_held, n_held);
    assert_int_equal(counts.n_cached, n_cached);
    assert_int_equal(kv_pool_available(cache->pool), n_free + n_cached);
}

static uint64_t row_content(const int32_t *tokens, int32_t position)
{
    uint64_t hash = 1;
    for (int32_t i = 0; i <= position; i++) {
        hash = rng_mix64(hash ^ (uint64_t)(uint32_t)tokens[i]);
    }
    return hash;
}

/* A pass that computes rows [first, end) of tokens in a table, after the copies it needs. */
static int32_t write_rows(struct cache *cache, struct kv_table *table, const int32_t *tokens,
                          int32_t first, int32_t end)
{
    struct kv_copy copies[MAX_PAGES];
    int32_t n_copies = 0;
    assert_int_equal(
        kv_table_prepare_write(table, first, end - first, copies, MAX_PAGES, &n_copies),
        STATUS_OK);
    for (int32_t i = 0; i < n_copies; i++) {
        memcpy(cache->content + copies[i].dst * SLOTS, cache->content + copies[i].src * SLOTS,
               SLOTS * sizeof cache->content[0]);
    }
    for (int32_t i = first; i < end; i++) {
        cache->content[kv_table_slot(table, i)] = row_content(tokens, i);
    }
    return n_copies;
}

static void assert_content(const struct cache *cache, const struct kv_table *table,
                           const int32_t *tokens)
{
    for (int32_t i = 0; i < kv_table_cached_len(table); i++) {
        assert_true(cache->content[kv_table_slot(table, i)] == row_content(tokens, i));
    }
}

/* Admission of a prompt and its prefill, up to cached == n. Returns tokens found in the tree. */
static int32_t prefill(struct cache *cache, int32_t idx, uint64_t salt, const int32_t *tokens,
                       int32_t n)
{
    struct kv_table *table = cache->tables[idx];
    const int32_t found = kv_prefix_attach(cache->prefix, salt, tokens, n, table);
    assert_content(cache, table, tokens);
    assert_int_equal(kv_table_reserve(table, n + 1), STATUS_OK);
    kv_table_commit(table, n - found);
    write_rows(cache, table, tokens, found, n);
    kv_table_set_cached(table, n);
    assert_content(cache, table, tokens);
    cache_check(cache);
    return found;
}

static void publish(struct cache *cache, int32_t idx, uint64_t salt, const int32_t *tokens)
{
    kv_prefix_publish(cache->prefix, salt, tokens, cache->tables[idx]);
    cache_check(cache);
}

/* Prefill, publish, go. */
static void remember(struct cache *cache, int32_t idx, const int32_t *tokens, int32_t n)
{
    prefill(cache, idx, 0, tokens, n);
    publish(cache, idx, 0, tokens);
    kv_table_clear(cache->tables[idx]);
    cache_check(cache);
}

static void fill_tokens(int32_t *tokens, int32_t n, int32_t first)
{
    for (int32_t i = 0; i < n; i++) {
        tokens[i] = first + i;
    }
}

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
    struct cache cache = cache_open(2, 2);
    assert_int_equal(kv_table_reserve(cache.tables[0], 2 * SLOTS), STATUS_OK);
    kv_pool_pass_begin(cache.pool);
    kv_table_clear(cache.tables[0]);
    assert_counts(&cache, 0, 2, 0); /* I5 */
    assert_int_equal(kv_table_reserve(cache.tables[1], 1), STATUS_REFUSED);
    kv_pool_pass_begin(cache.pool);
    kv_pool_pass_end(cache.pool);
    assert_int_equal(kv_table_reserve(cache.tables[1], 1), STATUS_REFUSED);
    kv_pool_pass_end(cache.pool);
    assert_counts(&cache, 2, 0, 0);
    assert_int_equal(kv_table_reserve(cache.tables[1], 2 * SLOTS), STATUS_OK);
    cache_close(&cache);
}

static void pages_attached_again_during_a_pass_stay_held(void **state)
{
    (void)state;
    int32_t tokens[9];
    fill_tokens(tokens, 9, 100);
    struct cache cache = cache_open(4, 2);
    prefill(&cache, 0, 0, tokens, 8);
    publish(&cache, 0, 0, tokens);
    kv_pool_pass_begin(cache.pool);
    kv_table_clear(cache.tables[0]);
    assert_counts(&cache, 1, 3, 0);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 9, cache.tables[1]), 8);
    cache_check(&cache);
    kv_table_clear(cache.tables[1]); /* let go a second time in the same pass */
    cache_check(&cache);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 9, cache.tables[1]), 8);
    kv_pool_pass_end(cache.pool);
    assert_counts(&cache, 2, 2, 0);
    kv_table_clear(cache.tables[1]);
    assert_counts(&cache, 2, 0, 2);
    cache_close(&cache);
}

/* ---- table ---- */
static void lengths_move_and_pages_stay(void **state)
{
    (void)state;
    struct cache cache = cache_open(8, 1);
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
    assert_counts(&cache, 8, 0, 0);
    cache_close(&cache);
}

static void prepare_write_copies_shared_pages_only(void **state)
{
    (void)state;
    int32_t tokens[16];
    fill_tokens(tokens, 16, 7);
    struct cache cache = cache_open(7, 2);
    struct kv_table *parent = cache.tables[0], *child = cache.tables[1];
    prefill(&cache, 0, 0, tokens, 10);
    assert_int_equal(kv_table_fork(parent, child), STATUS_OK);
    assert_counts(&cache, 4, 3, 0);
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
    assert_counts(&cache, 1, 6, 0);
    assert_int_equal(kv_table_prepare_write(parent, 4, 8, copies, 4, &n_copies), STATUS_OK);
    assert_int_equal(n_copies, 0); /* nobody else is left on those */
    cache_close(&cache);
}

static void prepare_write_refuses_whole(void **state)
{
    (void)state;
    int32_t tokens[8];
    fill_tokens(tokens, 8, 7);
    struct cache cache = cache_open(4, 2);
    prefill(&cache, 0, 0, tokens, 8);
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
    assert_counts(&cache, 1, 3, 0);
    assert_int_equal(kv_table_prepare_write(cache.tables[1], 4, 1, copies, 1, &n_copies),
                     STATUS_OK);
    assert_int_equal(n_copies, 1);
    cache_close(&cache);
}

/* The source of a copy, once let go, may be evictable: it must not become a destination at once. */
static void a_copy_source_is_no_destination(void **state)
{
    (void)state;
    int32_t tokens[9], other[9];
    fill_tokens(tokens, 9, 7);
    fill_tokens(other, 9, 70);
    struct cache cache = cache_open(5, 1);
    remember(&cache, 0, other, 8);
    prefill(&cache, 0, 0, tokens, 8);
    publish(&cache, 0, 0, tokens);
    kv_table_rollback(cache.tables[0], 0);
    assert_counts(&cache, 0, 3, 2);
    struct kv_copy copies[2];
    int32_t n_copies = 0;
    assert_int_equal(kv_table_prepare_write(cache.tables[0], 0, 8, copies, 2, &n_copies),
                     STATUS_OK);
    assert_int_equal(n_copies, 2);
    for (int32_t i = 0; i < 4; i++) {
        assert_true(copies[i / 2].src != copies[i % 2].dst);
    }
    assert_counts(&cache, 0, 3, 2);
    kv_table_clear(cache.tables[0]);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 9, cache.tables[0]), 8);
    cache_close(&cache);
}

static void fork_needs_room(void **state)
{
    (void)state;
    int32_t tokens[9];
    fill_tokens(tokens, 9, 7);
    struct cache cache = cache_open(8, 1);
    prefill(&cache, 0, 0, tokens, 9);
    cache.n_tables = 2;
    assert_int_equal(kv_table_create(cache.pool, 8, &cache.tables[1]), STATUS_OK);
    assert_int_equal(kv_table_fork(cache.tables[0], cache.tables[1]), STATUS_INVALID);
    assert_int_equal(kv_table_reserved_len(cache.tables[1]), 0);
    cache_close(&cache);
}

/* ---- prefix tree ---- */
static void attach_leaves_the_last_token(void **state)
{
    (void)state;
    int32_t tokens[12];
    fill_tokens(tokens, 12, 1);
    struct cache cache = cache_open(8, 1);
    remember(&cache, 0, tokens, 12);
    assert_counts(&cache, 5, 0, 3);
    static const int32_t expected[13] = {0, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8};
    for (int32_t n = 0; n <= 12; n++) {
        assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, n, cache.tables[0]),
                         expected[n]);
        assert_int_equal(kv_table_cached_len(cache.tables[0]), expected[n]);
        assert_int_equal(kv_table_committed_len(cache.tables[0]), expected[n]);
        assert_int_equal(kv_table_reserved_len(cache.tables[0]), expected[n]);
        assert_content(&cache, cache.tables[0], tokens);
        kv_table_clear(cache.tables[0]);
        assert_counts(&cache, 5, 0, 3);
    }
    kv_prefix_clear(cache.prefix);
    assert_counts(&cache, 8, 0, 0);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 12, cache.tables[0]), 0);
    cache_close(&cache);
}

static void attach_keeps_salts_apart(void **state)
{
    (void)state;
    int32_t tokens[12];
    fill_tokens(tokens, 12, 1);
    struct cache cache = cache_open(16, 3);
    prefill(&cache, 0, 11, tokens, 9);
    publish(&cache, 0, 11, tokens);
    assert_int_equal(prefill(&cache, 1, 12, tokens, 9), 0);
    publish(&cache, 1, 12, tokens);
    assert_int_equal(kv_prefix_attach(cache.prefix, 11, tokens, 9, cache.tables[2]), 8);
    kv_table_clear(cache.tables[2]);
    publish(&cache, 0, 13, tokens); /* its pages are taken: they stay with the first salt */
    assert_int_equal(kv_prefix_attach(cache.prefix, 13, tokens, 9, cache.tables[2]), 0);
    cache_close(&cache);
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
    struct cache cache = cache_open(32, 5);
    cache.prefix->hash_mask = 0;
    for (int32_t i = 0; i < 5; i++) {
        static const int32_t expected[5] = {0, 4, 0, 4, 0};
        assert_int_equal(prefill(&cache, i, 0, prompts[i], 13), expected[i]);
        publish(&cache, i, 0, prompts[i]);
    }
    for (int32_t i = 0; i < 5; i++) {
        kv_table_clear(cache.tables[i]);
        assert_int_equal(prefill(&cache, i, 0, prompts[i], 13), 12);
    }
    cache_close(&cache);
}

static void publish_keeps_the_first_copy(void **state)
{
    (void)state;
    int32_t tokens[12];
    fill_tokens(tokens, 12, 1);
    struct cache cache = cache_open(16, 3);
    prefill(&cache, 0, 0, tokens, 8); /* two computed the same at the same time */
    prefill(&cache, 1, 0, tokens, 12);
    int32_t n_pages = 0;
    const uint32_t first = kv_table_pages(cache.tables[0], &n_pages)[0];
    publish(&cache, 0, 0, tokens);
    publish(&cache, 1, 0, tokens);
    kv_table_clear(cache.tables[0]);
    /* The first two pages of the tree are in no table, but the third below them is. */
    assert_counts(&cache, 10, 6, 0);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 12, cache.tables[2]), 8);
    assert_int_equal(kv_table_pages(cache.tables[2], &n_pages)[0], first);
    kv_table_clear(cache.tables[2]);
    kv_table_clear(cache.tables[1]);
    assert_counts(&cache, 13, 0, 3);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, tokens, 12, cache.tables[2]), 8);
    cache_close(&cache);
}

/* I8: neither a page half cached nor one merely committed. */
static void publish_stops_below_cached(void **state)
{
    (void)state;
    int32_t tokens[12];
    fill_tokens(tokens, 12, 1);
    struct cache cache = cache_open(16, 1);
    struct kv_table *table = cache.tables[0];
    assert_int_equal(kv_table_reserve(table, 12), STATUS_OK);
    kv_table_commit(table, 12);
    static const int32_t cached[] = {3, 4, 7, 8, 11, 12};
    for (int i = 0; i < 6; i++) {
        write_rows(&cache, table, tokens, kv_table_cached_len(table), cached[i]);
        kv_table_set_cached(table, cached[i]);
        publish(&cache, 0, 0, tokens);
        publish(&cache, 0, 0, tokens);
        int32_t n_nodes = 0;
        for (int32_t page = 0; page < 16; page++) {
            n_nodes += kv_page_is_node(cache.pool, (uint32_t)page);
        }
        assert_int_equal(n_nodes, cached[i] / SLOTS);
    }
    cache_close(&cache);
}

static void a_published_page_is_read_only(void **state)
{
    (void)state;
    int32_t tokens[9], other[9];
    fill_tokens(tokens, 9, 1);
    memcpy(other, tokens, sizeof tokens);
    other[6] = 99;
    struct cache cache = cache_open(16, 2);
    prefill(&cache, 0, 0, tokens, 8);
    publish(&cache, 0, 0, tokens);
    kv_table_rollback(cache.tables[0], 6);
    kv_table_commit(cache.tables[0], 3);
    assert_int_equal(write_rows(&cache, cache.tables[0], other, 6, 9), 1);
    kv_table_set_cached(cache.tables[0], 9);
    publish(&cache, 0, 0, other); /* from the tree's root again: other tokens, other branch */
    assert_content(&cache, cache.tables[0], other);
    assert_int_equal(prefill(&cache, 1, 0, tokens, 9), 8);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(prefill(&cache, 1, 0, other, 9), 8);
    cache_close(&cache);
}

static void eviction_takes_the_least_recently_used_leaf(void **state)
{
    (void)state;
    int32_t a[9], b[9], c[9];
    fill_tokens(a, 9, 100);
    fill_tokens(b, 9, 200);
    fill_tokens(c, 9, 300);
    struct cache cache = cache_open(7, 2);
    remember(&cache, 0, a, 8);
    remember(&cache, 0, b, 8);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, a, 9, cache.tables[0]), 8); /* a is young */
    kv_table_clear(cache.tables[0]);
    assert_counts(&cache, 3, 0, 4);
    assert_int_equal(kv_table_reserve(cache.tables[1], 4 * SLOTS), STATUS_OK);
    assert_counts(&cache, 0, 4, 3);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, b, 9, cache.tables[0]), 4); /* leaf first */
    kv_table_clear(cache.tables[0]);
    assert_int_equal(kv_table_reserve(cache.tables[1], 5 * SLOTS), STATUS_OK);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, a, 9, cache.tables[0]), 4);
    kv_table_clear(cache.tables[0]);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, b, 9, cache.tables[0]), 4);
    assert_counts(&cache, 0, 6, 1);
    assert_int_equal(kv_table_reserve(cache.tables[1], 7 * SLOTS), STATUS_REFUSED);
    assert_counts(&cache, 0, 6, 1); /* all or nothing: not even evicted */
    assert_int_equal(kv_table_reserve(cache.tables[1], 6 * SLOTS), STATUS_OK);
    assert_counts(&cache, 0, 7, 0);
    kv_table_clear(cache.tables[0]);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, b, 9, cache.tables[0]), 4);
    kv_table_clear(cache.tables[0]);
    remember(&cache, 0, c, 9);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, c, 9, cache.tables[0]), 8);
    cache_close(&cache);
}

/* Publishing again what is there is use, too. */
static void publishing_refreshes(void **state)
{
    (void)state;
    int32_t a[9], b[9];
    fill_tokens(a, 9, 100);
    fill_tokens(b, 9, 200);
    struct cache cache = cache_open(8, 2);
    assert_int_equal(kv_table_reserve(cache.tables[0], 8), STATUS_OK);
    kv_table_commit(cache.tables[0], 8);
    write_rows(&cache, cache.tables[0], a, 0, 8);
    kv_table_set_cached(cache.tables[0], 8);
    remember(&cache, 1, a, 8);
    remember(&cache, 1, b, 8);
    publish(&cache, 0, 0, a);
    kv_table_clear(cache.tables[0]);
    assert_counts(&cache, 4, 0, 4);
    assert_int_equal(kv_table_reserve(cache.tables[0], 6 * SLOTS), STATUS_OK);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, b, 9, cache.tables[1]), 0);
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, a, 9, cache.tables[1]), 8);
    cache_close(&cache);
}

static void tables_survive_the_tree(void **state)
{
    (void)state;
    int32_t tokens[12];
    fill_tokens(tokens, 12, 1);
    struct cache cache = cache_open(16, 2);
    prefill(&cache, 0, 0, tokens, 8);
    prefill(&cache, 1, 0, tokens, 12);
    publish(&cache, 0, 0, tokens);
    publish(&cache, 1, 0, tokens);
    kv_table_clear(cache.tables[0]);
    kv_pool_pass_begin(cache.pool);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(prefill(&cache, 1, 0, tokens, 9), 8);
    kv_prefix_destroy(cache.prefix);
    assert_content(&cache, cache.tables[1], tokens);
    cache_check(&cache);
    assert_int_equal(kv_prefix_create(cache.pool, &cache.prefix), STATUS_OK);
    publish(&cache, 1, 0, tokens); /* the place it remembers was in the other tree */
    kv_pool_pass_end(cache.pool);
    assert_counts(&cache, 13, 3, 0);
    kv_table_clear(cache.tables[1]);
    assert_counts(&cache, 14, 0, 2);
    cache_close(&cache);
}

static void nothing_allocates_after_creation(void **state)
{
    (void)state;
    int32_t tokens[40];
    fill_tokens(tokens, 40, 1);
    struct cache cache = cache_open(12, 2);
    const uint64_t before = mem_alloc_count();
    for (int32_t round = 0; round < 50; round++) {
        tokens[round % 40] = round;
        prefill(&cache, 0, 0, tokens, 30);
        publish(&cache, 0, 0, tokens);
        assert_int_equal(kv_table_fork(cache.tables[0], cache.tables[1]), STATUS_OK);
        kv_table_rollback(cache.tables[1], 28);
        write_rows(&cache, cache.tables[1], tokens, 28, 30);
        kv_table_clear(cache.tables[1]);
        kv_table_clear(cache.tables[0]);
    }
    assert_true(mem_alloc_count() == before);
    cache_close(&cache);
}

/* ---- cases of a ragged batch ---- */
static void case_06_prompts_around_a_page(void **state)
{
    (void)state;
    static const int32_t lens[5] = {1, SLOTS - 1, SLOTS, SLOTS + 1, 10 * SLOTS};
    int32_t tokens[5][10 * SLOTS + 1];
    struct cache cache = cache_open(24, 5);
    for (int32_t i = 0; i < 5; i++) {
        fill_tokens(tokens[i], 10 * SLOTS + 1, 100 * i);
        prefill(&cache, i, 0, tokens[i], lens[i]);
        publish(&cache, i, 0, tokens[i]);
    }
    for (int32_t i = 0; i < 5; i++) { /* one decoding step each, all beside each other */
        struct kv_table *table = cache.tables[i];
        assert_int_equal(kv_table_reserve(table, lens[i] + 1), STATUS_OK);
        kv_table_commit(table, 1);
        write_rows(&cache, table, tokens[i], lens[i], lens[i] + 1);
        kv_table_set_cached(table, lens[i] + 1);
    }
    for (int32_t i = 0; i < 5; i++) {
        assert_content(&cache, cache.tables[i], tokens[i]);
        int32_t n_pages = 0;
        (void)kv_table_pages(cache.tables[i], &n_pages);
        assert_int_equal(n_pages, (lens[i] + 1 + SLOTS - 1) / SLOTS);
    }
    cache_close(&cache);
}

static void case_20_exhausted_and_exact_minimum_pool(void **state)
{
    (void)state;
    int32_t tokens[16];
    fill_tokens(tokens, 16, 1);
    struct cache cache = cache_open(4, 2);
    prefill(&cache, 0, 0, tokens, 15); /* 16 slots with the next token: exactly the pool */
    assert_counts(&cache, 0, 4, 0);
    assert_int_equal(kv_table_reserve(cache.tables[1], 1), STATUS_REFUSED);
    assert_non_null(strstr(status_message(), "0 of 4"));
    assert_int_equal(kv_table_reserve(cache.tables[0], 17), STATUS_REFUSED);
    assert_int_equal(kv_table_reserved_len(cache.tables[0]), 16);
    kv_table_trim(cache.tables[0], 15);
    assert_counts(&cache, 0, 4, 0);
    kv_table_rollback(cache.tables[0], 5);
    kv_table_trim(cache.tables[0], 5);
    assert_counts(&cache, 2, 2, 0);
    assert_int_equal(kv_table_reserve(cache.tables[1], 3 * SLOTS), STATUS_REFUSED);
    assert_counts(&cache, 2, 2, 0);
    assert_int_equal(kv_table_reserve(cache.tables[1], 2 * SLOTS), STATUS_OK);
    assert_content(&cache, cache.tables[0], tokens);
    cache_close(&cache);
}

static void case_22_two_share_prefix_mid_page(void **state)
{
    (void)state;
    int32_t left[20], right[20];
    fill_tokens(left, 20, 1);
    memcpy(right, left, sizeof left);
    for (int32_t i = 10; i < 20; i++) {
        right[i] = 500 + i; /* same for two pages and a half */
    }
    struct cache cache = cache_open(16, 2);
    prefill(&cache, 0, 0, left, 13);
    publish(&cache, 0, 0, left);
    assert_int_equal(prefill(&cache, 1, 0, right, 13), 8);
    for (int32_t n = 13; n < 20; n++) {
        for (int32_t i = 0; i < 2; i++) {
            const int32_t *tokens = i == 0 ? left : right;
            assert_int_equal(kv_table_reserve(cache.tables[i], n + 1), STATUS_OK);
            kv_table_commit(cache.tables[i], 1);
            assert_int_equal(write_rows(&cache, cache.tables[i], tokens, n, n + 1), 0);
            kv_table_set_cached(cache.tables[i], n + 1);
            publish(&cache, i, 0, tokens);
        }
        assert_content(&cache, cache.tables[0], left);
        assert_content(&cache, cache.tables[1], right);
    }
    assert_counts(&cache, 8, 8, 0); /* 2 shared, 3 each alone */
    cache_close(&cache);
}

static void fork_and_end(int32_t first_to_end)
{
    int32_t tokens[2][16];
    fill_tokens(tokens[0], 16, 1);
    fill_tokens(tokens[1], 16, 1);
    for (int32_t i = 10; i < 16; i++) {
        tokens[1][i] = 700 + i;
    }
    struct cache cache = cache_open(8, 2);
    prefill(&cache, 0, 0, tokens[0], 10);
    assert_int_equal(kv_table_fork(cache.tables[0], cache.tables[1]), STATUS_OK);
    for (int32_t n = 10; n < 13; n++) {
        for (int32_t i = 0; i < 2; i++) {
            assert_int_equal(kv_table_reserve(cache.tables[i], n + 1), STATUS_OK);
            kv_table_commit(cache.tables[i], 1);
            write_rows(&cache, cache.tables[i], tokens[i], n, n + 1);
            kv_table_set_cached(cache.tables[i], n + 1);
        }
        assert_content(&cache, cache.tables[0], tokens[0]);
        assert_content(&cache, cache.tables[1], tokens[1]);
    }
    assert_counts(&cache, 2, 6, 0);
    const int32_t other = 1 - first_to_end;
    kv_table_clear(cache.tables[first_to_end]);
    assert_counts(&cache, 4, 4, 0);
    assert_content(&cache, cache.tables[other], tokens[other]);
    prefill(&cache, first_to_end, 0, tokens[0] + 3, 12); /* its place and pages are used at once */
    assert_content(&cache, cache.tables[other], tokens[other]);
    kv_table_clear(cache.tables[other]);
    assert_counts(&cache, 4, 4, 0);
    cache_close(&cache);
}

static void case_23_fork_parent_ends_first(void **state)
{
    (void)state;
    fork_and_end(0);
}

static void case_23_fork_child_ends_first(void **state)
{
    (void)state;
    fork_and_end(1);
}

static void case_26_prompt_is_a_cached_key_plus_one(void **state)
{
    (void)state;
    int32_t tokens[13];
    fill_tokens(tokens, 13, 1);
    struct cache cache = cache_open(16, 2);
    remember(&cache, 0, tokens, 8);
    assert_int_equal(prefill(&cache, 0, 0, tokens, 8), 4); /* the key itself: the last is computed */
    kv_table_clear(cache.tables[0]);
    assert_int_equal(prefill(&cache, 0, 0, tokens, 9), 8);
    cache_close(&cache);
}

/* Rows of rejected tokens fill a page to its end; they are not what the page is known by. */
static void case_26_prompt_is_committed_plus_rejected_tokens(void **state)
{
    (void)state;
    int32_t committed[12], guessed[12];
    fill_tokens(committed, 12, 1);
    fill_tokens(guessed, 12, 1);
    committed[6] = 50;
    committed[7] = 51;
    struct cache cache = cache_open(16, 2);
    struct kv_table *table = cache.tables[0];
    prefill(&cache, 0, 0, committed, 5);
    kv_table_commit(table, 1);
    assert_int_equal(kv_table_reserve(table, 12), STATUS_OK);
    kv_table_propose(table, 3);
    write_rows(&cache, table, guessed, 5, 9); /* 6, 7, 8 will be rejected */
    kv_table_commit(table, 1);
    kv_table_set_cached(table, 6);
    publish(&cache, 0, 0, committed);
    assert_int_equal(prefill(&cache, 1, 0, guessed, 12), 4);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(kv_table_reserve(table, 10), STATUS_OK);
    kv_table_commit(table, 2);
    write_rows(&cache, table, committed, 6, 9);
    kv_table_set_cached(table, 9);
    publish(&cache, 0, 0, committed);
    assert_int_equal(prefill(&cache, 1, 0, guessed, 12), 4);
    kv_table_clear(cache.tables[1]);
    assert_int_equal(prefill(&cache, 1, 0, committed, 12), 8);
    cache_close(&cache);
}

static void case_27_eviction_during_a_pass(void **state)
{
    (void)state;
    int32_t read[9], old[9];
    fill_tokens(read, 9, 100);
    fill_tokens(old, 9, 200);
    struct cache cache = cache_open(6, 3);
    remember(&cache, 0, old, 8);
    prefill(&cache, 0, 0, read, 8);
    publish(&cache, 0, 0, read);
    kv_table_trim(cache.tables[0], 8);
    assert_counts(&cache, 2, 2, 2);
    kv_pool_pass_begin(cache.pool);
    kv_table_clear(cache.tables[0]); /* cancelled while its pages are read */
    assert_counts(&cache, 2, 2, 2);
    assert_int_equal(kv_table_reserve(cache.tables[1], 5 * SLOTS), STATUS_REFUSED);
    assert_int_equal(kv_table_reserve(cache.tables[1], 4 * SLOTS), STATUS_OK); /* old is evicted */
    for (int32_t i = 0; i < 4 * SLOTS; i++) {
        cache.content[kv_table_slot(cache.tables[1], i)] = 0;
    }
    assert_int_equal(kv_prefix_attach(cache.prefix, 0, read, 9, cache.tables[2]), 8);
    assert_content(&cache, cache.tables[2], read);
    kv_table_clear(cache.tables[2]);
    assert_counts(&cache, 0, 6, 0);
    kv_pool_pass_end(cache.pool);
    assert_counts(&cache, 0, 4, 2);
    assert_int_equal(kv_table_reserve(cache.tables[1], 5 * SLOTS), STATUS_OK);
    cache_close(&cache);
}

/* ---- the recount sees what is broken ---- */
static void check_finds(const struct cache *cache, const char *words)
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
        cache_check(&cache);                \
    } while (0)

static void check_finds_planted_bugs(void **state)
{
    (void)state;
    int32_t tokens[13], other[13];
    fill_tokens(tokens, 13, 1);
    fill_tokens(other, 13, 100);
    struct cache cache = cache_open(16, 2);
    remember(&cache, 1, other, 12);
    prefill(&cache, 0, 0, tokens, 12);
    publish(&cache, 0, 0, tokens);
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
    cache_close(&cache);
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
        cmocka_unit_test(attach_keeps_salts_apart),
        cmocka_unit_test(tokens_decide_when_all_hashes_collide),
        cmocka_unit_test(publish_keeps_the_first_copy),
        cmocka_unit_test(publish_stops_below_cached),
        cmocka_unit_test(a_published_page_is_read_only),
        cmocka_unit_test(eviction_takes_the_least_recently_used_leaf),
        cmocka_unit_test(publishing_refreshes),
        cmocka_unit_test(tables_survive_the_tree),
        cmocka_unit_test(nothing_allocates_after_creation),
        cmocka_unit_test(case_06_prompts_around_a_page),
        cmocka_unit_test(case_20_exhausted_and_exact_minimum_pool),
        cmocka_unit_test(case_22_two_share_prefix_mid_page),
        cmocka_unit_test(case_23_fork_parent_ends_first),
        cmocka_unit_test(case_23_fork_child_ends_first),
        cmocka_unit_test(case_26_prompt_is_a_cached_key_plus_one),
        cmocka_unit_test(case_26_prompt_is_committed_plus_rejected_tokens),
        cmocka_unit_test(case_27_eviction_during_a_pass),
        cmocka_unit_test(check_finds_planted_bugs),
    };
    return cmocka_run_group_tests_name("kvcache", tests, NULL, NULL);
}
