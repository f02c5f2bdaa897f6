/* check: counts everything again from the tables and the tree, and compares with what the pool
 * believes (I6). Slow on purpose: O(pages + tokens in the tree). Changes nothing but the pool's
 * working memory. */
#include <string.h>

#include "kvcache/private.h"

static enum status check_table(const struct kv_pool *pool, const struct kv_table *table,
                               int32_t idx)
{
    const int32_t reserved_len = kv_table_reserved_len(table);
    if (table->pool != pool || table->n_pages < 0 || table->n_pages > table->cap_pages) {
        return status_fail(STATUS_INVALID,
                           "table %d: expected 0 to %d pages of this pool, found %d", idx,
                           table->cap_pages, table->n_pages);
    }
    if (table->cached_len < 0 || table->cached_len > table->committed_len ||
        table->committed_len > table->proposed_len || table->proposed_len > reserved_len) {
        return status_fail(STATUS_INVALID,
                           "table %d: expected 0 <= cached <= committed <= proposed <= reserved, "
                           "found %d, %d, %d, %d", idx, table->cached_len, table->committed_len,
                           table->proposed_len, reserved_len);
    }
    if (table->published.n_pages > table->cached_len / pool->page_slots) {
        return status_fail(STATUS_INVALID,
                           "table %d: expected published pages below the %d cached tokens, "
                           "found %d pages", idx, table->cached_len, table->published.n_pages);
    }
    for (int32_t i = 0; i < table->n_pages; i++) {
        if (table->pages[i] >= (uint32_t)pool->n_pages) {
            return status_fail(STATUS_INVALID, "table %d: expected pages below %d, found %u", idx,
                               pool->n_pages, table->pages[i]);
        }
        pool->recount[table->pages[i]]++;
        for (int32_t j = 0; j < i; j++) {
            if (table->pages[j] == table->pages[i]) {
                return status_fail(STATUS_INVALID, "table %d: page %u stands in it twice", idx,
                                   table->pages[i]);
            }
        }
    }
    return STATUS_OK;
}

/* recount[] becomes the number of references each page should have. */
static enum status check_references(const struct kv_pool *pool, struct kv_table *const *tables,
                                    int32_t n_tables)
{
    if (n_tables != pool->n_tables) {
        return status_fail(STATUS_INVALID, "expected all %d live tables, found %d", pool->n_tables,
                           n_tables);
    }
    memset(pool->recount, 0, (size_t)pool->n_pages * sizeof *pool->recount);
    for (int32_t i = 0; i < n_tables; i++) {
        TRY(check_table(pool, tables[i], i));
    }
    for (int32_t page = 0; page < pool->n_pages; page++) {
        const int32_t n_tree = kv_page_is_node(pool, (uint32_t)page) ? 1 : 0;
        const int32_t n_refs = pool->recount[page] + n_tree;
        if (pool->n_refs[page] != n_refs) {
            return status_fail(STATUS_INVALID,
                               "page %d: expected %d references (%d tables, %d tree), found %d",
                               page, n_refs, pool->recount[page], n_tree, pool->n_refs[page]);
        }
    }
    return STATUS_OK;
}

/* A page nobody refers to lies in the free list or in limbo, once; no other page lies in either but
 * for pages of the tree in limbo. */
static enum status check_lists(const struct kv_pool *pool)
{
    int32_t n_flags = 0, n_idle = 0;
    for (int32_t page = 0; page < pool->n_pages; page++) {
        n_flags += pool->in_limbo[page];
        n_idle += pool->n_refs[page] == 0 && !pool->in_limbo[page];
        pool->recount[page] = 0;
    }
    if (pool->n_limbo != n_flags || (pool->n_passes == 0 && n_flags > 0)) {
        return status_fail(STATUS_INVALID, "expected %d pages in limbo during %d passes, found %d",
                           n_flags, pool->n_passes, pool->n_limbo);
    }
    if (pool->n_free != n_idle) {
        return status_fail(STATUS_INVALID, "expected %d free pages, found %d", n_idle,
                           pool->n_free);
    }
    for (int32_t i = 0; i < pool->n_limbo; i++) {
        const uint32_t page = pool->limbo_pages[i];
        if (page >= (uint32_t)pool->n_pages || !pool->in_limbo[page] || pool->recount[page]++ > 0) {
            return status_fail(STATUS_INVALID, "page %u is in limbo wrongly or twice", page);
        }
    }
    for (int32_t i = 0; i < pool->n_free; i++) {
        const uint32_t page = pool->free_pages[i];
        if (page >= (uint32_t)pool->n_pages || pool->n_refs[page] != 0 ||
            pool->recount[page]++ > 0) {
            return status_fail(STATUS_INVALID, "page %u is free wrongly or twice", page);
        }
    }
    return STATUS_OK;
}

static enum status check_node(const struct kv_prefix *prefix, int32_t idx)
{
    const struct kv_node *node = &prefix->nodes[idx];
    const int32_t slots = prefix->pool->page_slots;
    const int32_t *tokens = prefix->tokens + (size_t)idx * (size_t)slots;
    const struct kv_node *parent = node->parent == KV_NONE ? NULL : &prefix->nodes[node->parent];
    if (parent != NULL && (parent->id == 0 || parent->salt != node->salt)) {
        return status_fail(STATUS_INVALID, "page %d: its parent %d is not cached for its salt", idx,
                           node->parent);
    }
    if (node->hash != kv_node_hash(prefix, node->salt, node->parent, tokens)) {
        return status_fail(STATUS_INVALID, "page %d: its hash is not that of its tokens", idx);
    }
    int32_t n_found = 0, n_steps = 0;
    int32_t it = prefix->buckets[node->hash & (uint64_t)(prefix->n_buckets - 1)];
    for (; it != KV_NONE && n_steps <= prefix->pool->n_pages; n_steps++) {
        const struct kv_node *other = &prefix->nodes[it];
        n_found += other->salt == node->salt && other->parent == node->parent &&
                   memcmp(tokens, prefix->tokens + (size_t)it * (size_t)slots,
                          (size_t)slots * sizeof *tokens) == 0;
        it = other->bucket_next;
    }
    if (n_found != 1 || it != KV_NONE) {
        return status_fail(STATUS_INVALID, "page %d: expected once in its bucket, found %d times",
                           idx, n_found);
    }
    return STATUS_OK;
}

/* recount[] becomes the number of pins each node should have: children push up to parents in any
 * order, so whether a node is pinned is taken from the stored count, which is then compared. */
static enum status check_pins(const struct kv_prefix *prefix)
{
    const struct kv_pool *pool = prefix->pool;
    memset(pool->recount, 0, (size_t)pool->n_pages * sizeof *pool->recount);
    for (int32_t i = 0; i < pool->n_pages; i++) {
        if (prefix->nodes[i].id != 0) {
            TRY(check_node(prefix, i));
            pool->recount[i] += pool->n_refs[i] > 1 || pool->in_limbo[i];
            if (prefix->nodes[i].n_pins > 0 && prefix->nodes[i].parent != KV_NONE) {
                pool->recount[prefix->nodes[i].parent]++;
            }
        }
    }
    for (int32_t i = 0; i < pool->n_pages; i++) {
        if (prefix->nodes[i].id != 0 && prefix->nodes[i].n_pins != pool->recount[i]) {
            return status_fail(STATUS_INVALID, "page %d: expected %d pins, found %d", i,
                               pool->recount[i], prefix->nodes[i].n_pins);
        }
    }
    return STATUS_OK;
}

/* The list holds exactly the nodes without pins, children before parents. */
static enum status check_evictable(const struct kv_prefix *prefix)
{
    const struct kv_pool *pool = prefix->pool;
    int32_t n_listed = 0, n_unpinned = 0, older = KV_NONE;
    memset(pool->recount, 0, (size_t)pool->n_pages * sizeof *pool->recount);
    for (int32_t i = prefix->oldest; i != KV_NONE; i = prefix->nodes[i].newer) {
        const struct kv_node *node = &prefix->nodes[i];
        if (node->id == 0 || node->n_pins != 0 || node->older != older || pool->recount[i]++ > 0) {
            return status_fail(STATUS_INVALID, "page %d stands wrongly among the evictable", i);
        }
        if (node->parent != KV_NONE && pool->recount[node->parent] > 0) {
            return status_fail(STATUS_INVALID, "page %d would be evicted after its parent %d", i,
                               node->parent);
        }
        older = i;
        n_listed++;
    }
    for (int32_t i = 0; i < pool->n_pages; i++) {
        n_unpinned += prefix->nodes[i].id != 0 && prefix->nodes[i].n_pins == 0;
    }
    if (n_listed != n_unpinned || n_listed != pool->n_cached || prefix->newest != older) {
        return status_fail(STATUS_INVALID,
                           "expected %d evictable pages, found %d listed, %d counted", n_unpinned,
                           n_listed, pool->n_cached);
    }
    return STATUS_OK;
}

enum status kv_pool_check(const struct kv_pool *pool, struct kv_table *const *tables,
                          int32_t n_tables)
{
    TRY(check_references(pool, tables, n_tables));
    TRY(check_lists(pool));
    if (pool->prefix != NULL) {
        TRY(check_pins(pool->prefix));
        TRY(check_evictable(pool->prefix));
    } else if (pool->n_cached != 0) {
        return status_fail(STATUS_INVALID, "expected no cached pages without a tree, found %d",
                           pool->n_cached);
    }
    if (pool->n_free + pool->n_held + pool->n_cached != pool->n_pages || pool->n_held < 0) {
        return status_fail(STATUS_INVALID,
                           "expected free + held + cached = %d pages, found %d + %d + %d",
                           pool->n_pages, pool->n_free, pool->n_held, pool->n_cached);
    }
    return STATUS_OK;
}
