/* kv_sim: see its header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kv_sim.h"

struct kv_sim kv_sim_open(int32_t n_pages, int32_t n_tables)
{
    struct kv_sim cache = {.n_tables = n_tables};
    assert_true(n_pages <= MAX_PAGES && n_tables <= MAX_TABLES);
    assert_int_equal(kv_pool_create(n_pages, SLOTS, &cache.pool), STATUS_OK);
    assert_int_equal(kv_prefix_create(cache.pool, &cache.prefix), STATUS_OK);
    for (int32_t i = 0; i < n_tables; i++) {
        assert_int_equal(kv_table_create(cache.pool, CAP_LEN, &cache.tables[i]), STATUS_OK);
    }
    return cache;
}

void kv_sim_check(const struct kv_sim *cache)
{
    if (kv_pool_check(cache->pool, cache->tables, cache->n_tables) != STATUS_OK) {
        fail_msg("%s", status_message());
    }
}

void kv_sim_close(struct kv_sim *cache)
{
    kv_sim_check(cache);
    for (int32_t i = 0; i < cache->n_tables; i++) {
        kv_table_destroy(cache->tables[i]);
    }
    cache->n_tables = 0;
    kv_sim_check(cache);
    kv_prefix_destroy(cache->prefix);
    const struct kv_pool_counts counts = kv_pool_counts(cache->pool);
    assert_int_equal(counts.n_free, counts.n_total);
    assert_int_equal(counts.n_held, 0);
    kv_pool_destroy(cache->pool);
}

void kv_sim_assert_counts(const struct kv_sim *cache, int32_t n_free, int32_t n_held,
                          int32_t n_cached)
{
    kv_sim_check(cache);
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

int32_t kv_sim_write(struct kv_sim *cache, struct kv_table *table, const int32_t *tokens,
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

void kv_sim_assert_content(const struct kv_sim *cache, const struct kv_table *table,
                           const int32_t *tokens)
{
    for (int32_t i = 0; i < kv_table_cached_len(table); i++) {
        assert_true(cache->content[kv_table_slot(table, i)] == row_content(tokens, i));
    }
}

int32_t kv_sim_prefill(struct kv_sim *cache, int32_t idx, uint64_t salt, const int32_t *tokens,
                       int32_t n)
{
    struct kv_table *table = cache->tables[idx];
    const int32_t found = kv_prefix_attach(cache->prefix, salt, tokens, n, table);
    kv_sim_assert_content(cache, table, tokens);
    assert_int_equal(kv_table_reserve(table, n + 1), STATUS_OK);
    kv_table_commit(table, n - found);
    kv_sim_write(cache, table, tokens, found, n);
    kv_table_set_cached(table, n);
    kv_sim_assert_content(cache, table, tokens);
    kv_sim_check(cache);
    return found;
}

void kv_sim_publish(struct kv_sim *cache, int32_t idx, uint64_t salt, const int32_t *tokens)
{
    kv_prefix_publish(cache->prefix, salt, tokens, cache->tables[idx]);
    kv_sim_check(cache);
}

void kv_sim_remember(struct kv_sim *cache, int32_t idx, const int32_t *tokens, int32_t n)
{
    kv_sim_prefill(cache, idx, 0, tokens, n);
    kv_sim_publish(cache, idx, 0, tokens);
    kv_table_clear(cache->tables[idx]);
    kv_sim_check(cache);
}

void kv_sim_tokens(int32_t *tokens, int32_t n, int32_t first)
{
    for (int32_t i = 0; i < n; i++) {
        tokens[i] = first + i;
    }
}
