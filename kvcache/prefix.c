/* prefix: full pages of prompts already computed, found again by their tokens.
 *
 * A radix tree whose edges are whole pages: node = (salt, parent, tokens of one page). A hash finds
 * candidates, the tokens decide. Nodes that no table needs, directly or through a node below them,
 * stand in a list from least to most recently used; what joins it joins at the young end and a
 * child is unpinned before its parent, so the old end is always a leaf and evicting is O(1).
 */
#include <string.h>

#include "kvcache/private.h"

static int32_t bucket_count(int32_t n_pages)
{
    int32_t n = 1;
    while (n < n_pages && n < (1 << 29)) {
        n *= 2;
    }
    return 2 * n;
}

enum status kv_prefix_create(struct kv_pool *pool, struct kv_prefix **out)
{
    *out = NULL;
    ASSERT(pool->prefix == NULL);
    struct kv_prefix *prefix = mem_alloc(1, sizeof *prefix);
    if (prefix == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a prefix tree of %d pages",
                           pool->n_pages);
    }
    const size_t n = (size_t)pool->n_pages;
    prefix->pool = pool;
    prefix->oldest = prefix->newest = KV_NONE;
    prefix->hash_mask = UINT64_MAX;
    prefix->n_buckets = bucket_count(pool->n_pages);
    prefix->nodes = mem_alloc(n, sizeof *prefix->nodes);
    prefix->tokens = mem_alloc(n * (size_t)pool->page_slots, sizeof *prefix->tokens);
    prefix->buckets = mem_alloc((size_t)prefix->n_buckets, sizeof *prefix->buckets);
    if (prefix->nodes == NULL || prefix->tokens == NULL || prefix->buckets == NULL) {
        kv_prefix_destroy(prefix);
        return status_fail(STATUS_NO_MEMORY, "no memory for a prefix tree of %d pages",
                           pool->n_pages);
    }
    for (int32_t i = 0; i < prefix->n_buckets; i++) {
        prefix->buckets[i] = KV_NONE;
    }
    pool->prefix = prefix;
    *out = prefix;
    return STATUS_OK;
}

/* ---- the list of evictable nodes ---- */
static void list_append(struct kv_prefix *prefix, int32_t node)
{
    struct kv_node *nodes = prefix->nodes;
    nodes[node].older = prefix->newest;
    nodes[node].newer = KV_NONE;
    if (prefix->newest != KV_NONE) {
        nodes[prefix->newest].newer = node;
    } else {
        prefix->oldest = node;
    }
    prefix->newest = node;
    prefix->pool->n_cached++;
    prefix->pool->n_held--;
}

static void list_remove(struct kv_prefix *prefix, int32_t node)
{
    struct kv_node *nodes = prefix->nodes;
    const int32_t older = nodes[node].older, newer = nodes[node].newer;
    if (older != KV_NONE) {
        nodes[older].newer = newer;
    } else {
        prefix->oldest = newer;
    }
    if (newer != KV_NONE) {
        nodes[newer].older = older;
    } else {
        prefix->newest = older;
    }
    prefix->pool->n_cached--;
    prefix->pool->n_held++;
}

void kv_node_pin(struct kv_prefix *prefix, int32_t node)
{
    while (node != KV_NONE && prefix->nodes[node].n_pins++ == 0) {
        list_remove(prefix, node);
        node = prefix->nodes[node].parent;
    }
}

void kv_node_unpin(struct kv_prefix *prefix, int32_t node)
{
    while (node != KV_NONE) {
        ASSERT(prefix->nodes[node].n_pins > 0);
        if (--prefix->nodes[node].n_pins > 0) {
            return;
        }
        list_append(prefix, node);
        node = prefix->nodes[node].parent;
    }
}

/* ---- nodes ---- */
uint64_t kv_node_hash(const struct kv_prefix *prefix, uint64_t salt, int32_t parent,
                      const int32_t *tokens)
{
    const size_t n_ids = mutant(MUTANT_PREFIX_BY_FIRST_IDS) ? 4 : (size_t)prefix->pool->page_slots;
    const size_t n_bytes = n_ids * sizeof *tokens;
    const uint64_t place = rng_mix64(salt ^ rng_mix64((uint64_t)(uint32_t)parent));
    return rng_mix64(digest_bytes(tokens, n_bytes) ^ place) & prefix->hash_mask;
}

static int32_t *node_bucket(const struct kv_prefix *prefix, uint64_t hash)
{
    return &prefix->buckets[hash & (uint64_t)(prefix->n_buckets - 1)];
}

static int32_t *node_tokens(const struct kv_prefix *prefix, int32_t node)
{
    return prefix->tokens + (size_t)node * (size_t)prefix->pool->page_slots;
}

static int32_t node_find(const struct kv_prefix *prefix, uint64_t salt, int32_t parent,
                         const int32_t *tokens)
{
    const size_t n_ids = mutant(MUTANT_PREFIX_BY_FIRST_IDS) ? 4 : (size_t)prefix->pool->page_slots;
    const size_t n_bytes = n_ids * sizeof *tokens;
    const uint64_t hash = kv_node_hash(prefix, salt, parent, tokens);
    int32_t node = *node_bucket(prefix, hash);
    for (; node != KV_NONE; node = prefix->nodes[node].bucket_next) {
        const struct kv_node *it = &prefix->nodes[node];
        if (it->hash == hash && it->parent == parent && it->salt == salt &&
            memcmp(node_tokens(prefix, node), tokens, n_bytes) == 0) {
            return node;
        }
    }
    return KV_NONE;
}

/* The page of a table becomes a node: the tree holds it too, so it is read-only from here (I4). */
static void node_insert(struct kv_prefix *prefix, uint64_t salt, int32_t parent,
                        const int32_t *tokens, uint32_t page)
{
    struct kv_pool *pool = prefix->pool;
    struct kv_node *node = &prefix->nodes[page];
    const uint64_t hash = kv_node_hash(prefix, salt, parent, tokens);
    int32_t *bucket = node_bucket(prefix, hash);
    ASSERT(node->id == 0 && pool->n_refs[page] > 0);
    *node = (struct kv_node){.id = ++pool->last_node_id, .salt = salt, .hash = hash,
                             .parent = parent, .bucket_next = *bucket, .older = KV_NONE,
                             .newer = KV_NONE, .n_pins = 1};
    *bucket = (int32_t)page;
    memcpy(node_tokens(prefix, (int32_t)page), tokens, (size_t)pool->page_slots * sizeof *tokens);
    pool->n_refs[page]++;
    kv_node_pin(prefix, parent);
}

static void node_unlink(struct kv_prefix *prefix, int32_t node)
{
    int32_t *link = node_bucket(prefix, prefix->nodes[node].hash);
    while (*link != node) {
        link = &prefix->nodes[*link].bucket_next;
    }
    *link = prefix->nodes[node].bucket_next;
    prefix->nodes[node].id = 0;
    prefix->pool->n_refs[node]--;
}

void kv_node_evict_oldest(struct kv_prefix *prefix)
{
    const int32_t node = prefix->oldest;
    ASSERT(node != KV_NONE && prefix->nodes[node].n_pins == 0);
    list_remove(prefix, node);
    node_unlink(prefix, node);
    prefix->pool->n_held--; /* list_remove gave it to the holders, and there is none */
    kv_page_free(prefix->pool, (uint32_t)node);
}

void kv_prefix_clear(struct kv_prefix *prefix)
{
    while (prefix->oldest != KV_NONE) {
        kv_node_evict_oldest(prefix);
    }
}

void kv_prefix_destroy(struct kv_prefix *prefix)
{
    if (prefix == NULL) {
        return;
    }
    struct kv_pool *pool = prefix->pool;
    if (pool->prefix == prefix) { /* else it was never finished */
        kv_prefix_clear(prefix);
        for (int32_t i = 0; i < pool->n_pages; i++) {
            if (prefix->nodes[i].id != 0) {
                node_unlink(prefix, i);
                if (pool->n_refs[i] == 0 && !pool->in_limbo[i]) { /* a node below pinned it */
                    pool->n_held--;
                    kv_page_free(pool, (uint32_t)i);
                }
            }
        }
        pool->prefix = NULL;
    }
    mem_free(prefix->buckets);
    mem_free(prefix->tokens);
    mem_free(prefix->nodes);
    mem_free(prefix);
}

/* ---- what a sequence sees ---- */
int32_t kv_prefix_attach(struct kv_prefix *prefix, uint64_t salt, const int32_t *tokens, int32_t n,
                         struct kv_table *table)
{
    const int32_t slots = prefix->pool->page_slots;
    ASSERT(table->pool == prefix->pool && table->n_pages == 0 && table->committed_len == 0);
    int32_t n_max = n > 0 ? (n - 1) / slots : 0; /* the last token must be computed */
    n_max = n_max < table->cap_pages ? n_max : table->cap_pages;
    int32_t parent = KV_NONE;
    for (int32_t i = 0; i < n_max; i++) {
        const int32_t node = node_find(prefix, salt, parent, tokens + (size_t)i * (size_t)slots);
        if (node == KV_NONE) {
            break;
        }
        kv_page_share(prefix->pool, (uint32_t)node);
        table->pages[table->n_pages++] = (uint32_t)node;
        parent = node;
    }
    kv_table_start(table, table->n_pages * slots);
    if (parent != KV_NONE) {
        table->published = (struct kv_cursor){.n_pages = table->n_pages, .node = parent,
                                              .node_id = prefix->nodes[parent].id};
    }
    return table->cached_len;
}

static bool cursor_holds(const struct kv_prefix *prefix, const struct kv_cursor *cursor,
                         uint64_t salt)
{
    return cursor->n_pages > 0 && prefix->nodes[cursor->node].id == cursor->node_id &&
           prefix->nodes[cursor->node].salt == salt;
}

void kv_prefix_publish(struct kv_prefix *prefix, uint64_t salt, const int32_t *tokens,
                       struct kv_table *table)
{
    const int32_t slots = prefix->pool->page_slots;
    const int32_t known_len = mutant(MUTANT_PREFIX_UNCACHED) ? table->committed_len : table->cached_len;
    const int32_t n_full = known_len / slots; /* I8 */
    ASSERT(table->pool == prefix->pool);
    struct kv_cursor at = {.n_pages = 0, .node = KV_NONE};
    if (cursor_holds(prefix, &table->published, salt)) {
        at = table->published;
    }
    while (at.n_pages < n_full) {
        const int32_t *page_tokens = tokens + (size_t)at.n_pages * (size_t)slots;
        int32_t node = node_find(prefix, salt, at.node, page_tokens);
        if (node == KV_NONE) {
            const uint32_t page = table->pages[at.n_pages];
            if (prefix->nodes[page].id != 0) {
                break; /* cached for another salt: a page has one place in the tree */
            }
            node_insert(prefix, salt, at.node, page_tokens, page);
            node = (int32_t)page;
        }
        at = (struct kv_cursor){.n_pages = at.n_pages + 1, .node = node,
                                .node_id = prefix->nodes[node].id};
    }
    if (at.n_pages > 0) {
        kv_node_pin(prefix, at.node); /* to the young end, with all above it, children first */
        kv_node_unpin(prefix, at.node);
        table->published = at;
    }
}
