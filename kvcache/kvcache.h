/* kvcache: page numbers, never bytes. A pool hands out pages; a table is one sequence's row of pages
 * and its lengths; a prefix tree remembers full pages of prompts already computed.
 *
 * All calls from one thread (the step thread). Pages hold `page_slots` positions. Lengths:
 * cached_len <= committed_len <= proposed_len <= reserved_len (docs/DESIGN.md, I1..I6). Commit and
 * rollback only move lengths; no KV byte moves but by copy-on-write, which the caller executes from
 * the list that kv_table_prepare_write() returns.
 */
#ifndef KVCACHE_KVCACHE_H
#define KVCACHE_KVCACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

/* ---- pool ---- */
struct kv_pool; /* refcount per page; free + held + cached == total after every operation (I6) */
struct kv_pool_counts { int32_t n_total, n_free, n_held, n_cached; };

enum status kv_pool_create(int32_t n_pages, int32_t page_slots, struct kv_pool **out);
void kv_pool_destroy(struct kv_pool *pool);
int32_t kv_pool_page_slots(const struct kv_pool *pool);
struct kv_pool_counts kv_pool_counts(const struct kv_pool *pool);
/* free, or cached by the prefix tree alone and so evictable */
int32_t kv_pool_available(const struct kv_pool *pool);
/* Pages released while a pass that may read them is in flight are reused only after it has ended
 * (I5): bracket every pass with begin/end. */
void kv_pool_pass_begin(struct kv_pool *pool);
void kv_pool_pass_end(struct kv_pool *pool);
/* Recounts everything; STATUS_INVALID with a sentence when a count or refcount does not hold. Pass
 * all live tables. */
struct kv_table;
enum status kv_pool_check(const struct kv_pool *pool, struct kv_table *const *tables, int32_t n_tables);

/* ---- table: one sequence ---- */
enum status kv_table_create(struct kv_pool *pool, int32_t cap_len, struct kv_table **out);
void kv_table_destroy(struct kv_table *table); /* releases its pages */
/* Back to empty, keeping the allocation, for the next sequence in this place. */
void kv_table_clear(struct kv_table *table);

int32_t kv_table_cached_len(const struct kv_table *table);
int32_t kv_table_committed_len(const struct kv_table *table);
int32_t kv_table_proposed_len(const struct kv_table *table);
int32_t kv_table_reserved_len(const struct kv_table *table);
const uint32_t *kv_table_pages(const struct kv_table *table, int32_t *n_pages);
/* page * page_slots + offset of a position below reserved_len */
int32_t kv_table_slot(const struct kv_table *table, int32_t position);

/* Pages so that reserved_len >= len; all or nothing; evicts cached prefixes when it must.
 * STATUS_REFUSED (nothing changed) when there are not enough. */
enum status kv_table_reserve(struct kv_table *table, int32_t len);
/* Makes positions [first, first + n) writable: every page in the range with refcount > 1 is
 * replaced by a fresh one (I4). Fills copies[] (cap: pages in range) that must be executed on the
 * device before the pass writes. STATUS_REFUSED (nothing changed) when pages run out. */
struct kv_copy { uint32_t src, dst; };
enum status kv_table_prepare_write(struct kv_table *table, int32_t first, int32_t n,
                                   struct kv_copy *copies, int32_t cap, int32_t *n_copies);
/* committed_len grows by n tokens (prompt admission, or the tokens a step emitted). */
void kv_table_commit(struct kv_table *table, int32_t n);
/* proposed_len = committed_len + n for the round about to be verified. */
void kv_table_propose(struct kv_table *table, int32_t n);
/* cached_len = len; len <= committed_len. Ends the round: proposed_len = committed_len. */
void kv_table_set_cached(struct kv_table *table, int32_t len);
/* Lengths back to len (cached and committed at most len); pages stay reserved until trim. */
void kv_table_rollback(struct kv_table *table, int32_t len);
/* Releases pages wholly above len. */
void kv_table_trim(struct kv_table *table, int32_t len);
/* child sees the parent's committed prefix through shared pages (refcounts rise, no byte moves). */
enum status kv_table_fork(const struct kv_table *parent, struct kv_table *child);

/* ---- prefix tree ---- */
struct kv_prefix; /* full pages keyed by their tokens, per salt; least recently used is evicted */
enum status kv_prefix_create(struct kv_pool *pool, struct kv_prefix **out); /* pool will evict from it */
void kv_prefix_destroy(struct kv_prefix *prefix);
/* Longest cached prefix of tokens[0..n), whole pages, at most n - 1 tokens (the last token must be
 * computed to have logits). Shares those pages into `table` (empty, see kv_table_clear) and sets its
 * cached_len. Compares tokens, not only hashes. Returns the number of tokens. */
int32_t kv_prefix_attach(struct kv_prefix *prefix, uint64_t salt, const int32_t *tokens, int32_t n,
                         struct kv_table *table);
/* Publishes the table's pages wholly below cached_len (I8). */
void kv_prefix_publish(struct kv_prefix *prefix, uint64_t salt, const int32_t *tokens,
                       const struct kv_table *table);
/* Evicts all pages nobody holds. */
void kv_prefix_clear(struct kv_prefix *prefix);

#endif
