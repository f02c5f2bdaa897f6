/* kvcache: page numbers, never bytes. A pool hands out pages; a table is one sequence's row of
 * pages and its lengths; a prefix tree remembers full pages of prompts already computed.
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
/* A reference count per page; free + held + cached == total after every operation (I6).
 * free: anyone may take it. cached: only the prefix tree wants it; evicted when pages run out.
 * held: in a table, or still read by a pass, or above such a page in the prefix tree. */
struct kv_pool;
struct kv_pool_counts { int32_t n_total, n_free, n_held, n_cached; };

/* Takes all its memory here. STATUS_INVALID unless there is at least one page of at least one slot
 * and fewer than 2^31 slots; STATUS_NO_MEMORY. */
enum status kv_pool_create(int32_t n_pages, int32_t page_slots, struct kv_pool **out);
void kv_pool_destroy(struct kv_pool *pool); /* after its tables and its prefix tree; NULL is fine */
int32_t kv_pool_page_slots(const struct kv_pool *pool);
struct kv_pool_counts kv_pool_counts(const struct kv_pool *pool);
/* How many pages a reserve could get now: free + cached. */
int32_t kv_pool_available(const struct kv_pool *pool);
/* Pages released while a pass that may read them is in flight are reused only after it has ended
 * (I5): bracket every pass with begin/end, from before its tables are planned to its completion.
 * Passes may overlap; such pages are reused once none is in flight. */
void kv_pool_pass_begin(struct kv_pool *pool);
void kv_pool_pass_end(struct kv_pool *pool);
/* Recounts everything; STATUS_INVALID with a sentence when a count or refcount does not hold. Pass
 * all live tables. */
struct kv_table;
enum status kv_pool_check(const struct kv_pool *pool, struct kv_table *const *tables,
                          int32_t n_tables);

/* ---- table: one sequence ---- */
/* Room for cap_len positions, taken here, rounded up to whole pages; no later call allocates.
 * STATUS_INVALID, STATUS_NO_MEMORY. */
enum status kv_table_create(struct kv_pool *pool, int32_t cap_len, struct kv_table **out);
void kv_table_destroy(struct kv_table *table); /* releases its pages; NULL is fine */
/* Back to empty, keeping the allocation, for the next sequence in this place. */
void kv_table_clear(struct kv_table *table);

int32_t kv_table_cached_len(const struct kv_table *table);
int32_t kv_table_committed_len(const struct kv_table *table);
int32_t kv_table_proposed_len(const struct kv_table *table);
int32_t kv_table_reserved_len(const struct kv_table *table);
const uint32_t *kv_table_pages(const struct kv_table *table, int32_t *n_pages);
/* page * page_slots + offset of a position below reserved_len */
int32_t kv_table_slot(const struct kv_table *table, int32_t position);

/* Pages so that reserved_len >= len (len within the table's room); all or nothing; evicts cached
 * prefixes when it must. STATUS_REFUSED (nothing changed) when there are not enough. */
enum status kv_table_reserve(struct kv_table *table, int32_t len);
/* Makes positions [first, first + n) writable: every page in the range with refcount > 1 is
 * replaced by a fresh one (I4). Fills copies[] (cap: pages in range) that must be executed on the
 * device before the pass writes, in the order in which they and those of other tables were
 * returned. STATUS_REFUSED (nothing changed) when pages run out. */
struct kv_copy { uint32_t src, dst; };
enum status kv_table_prepare_write(struct kv_table *table, int32_t first, int32_t n,
                                   struct kv_copy *copies, int32_t cap, int32_t *n_copies);
/* committed_len grows by n tokens (prompt admission, or the tokens a step emitted). Reserve first:
 * a round that starts with n committed tokens and proposes K ends with at most n + K + 1, the
 * recovery token included. */
void kv_table_commit(struct kv_table *table, int32_t n);
/* proposed_len = committed_len + n for the round about to be verified. */
void kv_table_propose(struct kv_table *table, int32_t n);
/* cached_len = len; len <= committed_len. Ends the round: proposed_len = committed_len. */
void kv_table_set_cached(struct kv_table *table, int32_t len);
/* Lengths back to len (cached and committed at most len, nothing proposed); pages stay reserved
 * until trim. */
void kv_table_rollback(struct kv_table *table, int32_t len);
/* Releases pages wholly above len; len >= proposed_len. */
void kv_table_trim(struct kv_table *table, int32_t len);
/* child (empty, see kv_table_clear) sees the parent's committed prefix through shared pages
 * (refcounts rise, no byte moves); its cached_len and committed_len are the parent's.
 * STATUS_INVALID when its room is too small. */
enum status kv_table_fork(const struct kv_table *parent, struct kv_table *child);

/* ---- prefix tree ---- */
struct kv_prefix; /* full pages keyed by their tokens, per salt; least recently used is evicted */
/* The pool will evict from it; one tree a pool. All memory is taken here. STATUS_NO_MEMORY. */
enum status kv_prefix_create(struct kv_pool *pool, struct kv_prefix **out);
void kv_prefix_destroy(struct kv_prefix *prefix); /* tables keep what they hold; NULL is fine */
/* Longest cached prefix of tokens[0..n), whole pages, at most n - 1 tokens (the last token must be
 * computed to have logits). Shares those pages into `table` (empty, see kv_table_clear) and sets
 * its cached_len and committed_len to their number of tokens, which is returned: what remains to
 * commit is n less that. Compares tokens, not only hashes. */
int32_t kv_prefix_attach(struct kv_prefix *prefix, uint64_t salt, const int32_t *tokens, int32_t n,
                         struct kv_table *table);
/* Publishes the table's pages wholly below cached_len (I8), whose tokens are tokens[0..cached_len).
 * They stay in the table, read-only. What is there already stays as it is. Remembers in the table
 * how far it came: a call that finds no new full page costs a few comparisons. */
void kv_prefix_publish(struct kv_prefix *prefix, uint64_t salt, const int32_t *tokens,
                       struct kv_table *table);
/* Evicts all cached pages. */
void kv_prefix_clear(struct kv_prefix *prefix);

#endif
