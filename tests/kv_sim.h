/* kv_sim: a pool, a prefix tree and some tables with a simulated device behind them. A slot holds
 * the hash of the tokens up to it, so that a page read by the wrong sequence, or overwritten under
 * it, shows. Everything asserts: a failed call fails the test. */
#ifndef TESTS_KV_SIM_H
#define TESTS_KV_SIM_H

#include "kvcache/private.h"

enum { SLOTS = 4, MAX_PAGES = 64, MAX_TABLES = 8, CAP_LEN = 96 };

struct kv_sim {
    struct kv_pool *pool;
    struct kv_prefix *prefix;
    struct kv_table *tables[MAX_TABLES];
    int32_t n_tables;
    uint64_t content[MAX_PAGES * SLOTS]; /* what the device would hold */
};

struct kv_sim kv_sim_open(int32_t n_pages, int32_t n_tables);
/* The recount holds. */
void kv_sim_check(const struct kv_sim *cache);
/* Ends everything; all pages must come back. */
void kv_sim_close(struct kv_sim *cache);
void kv_sim_assert_counts(const struct kv_sim *cache, int32_t n_free, int32_t n_held,
                          int32_t n_cached);
/* A pass that computes rows [first, end) of tokens in a table, after the copies it needs, whose
 * number is returned. */
int32_t kv_sim_write(struct kv_sim *cache, struct kv_table *table, const int32_t *tokens,
                     int32_t first, int32_t end);
/* Every cached slot holds what the tokens say. */
void kv_sim_assert_content(const struct kv_sim *cache, const struct kv_table *table,
                           const int32_t *tokens);
/* Admission of a prompt and its prefill, up to cached == n. Returns tokens found in the tree. */
int32_t kv_sim_prefill(struct kv_sim *cache, int32_t idx, uint64_t salt, const int32_t *tokens,
                       int32_t n);
void kv_sim_publish(struct kv_sim *cache, int32_t idx, uint64_t salt, const int32_t *tokens);
/* Prefill, publish, go. */
void kv_sim_remember(struct kv_sim *cache, int32_t idx, const int32_t *tokens, int32_t n);
/* first, first + 1, ... */
void kv_sim_tokens(int32_t *tokens, int32_t n, int32_t first);

#endif
