/* private: the structures behind the door, shared by the files of this room and by tests that break
 * them on purpose.
 *
 * A page is in exactly one state (I6):
 *
 *               take                     release, nobody left
 *      FREE ───────────► HELD ──────────────────────────────────────► FREE
 *        ▲                │ ▲                        (through limbo while a pass runs, I5)
 *        │ evict   release│ │attach
 *        │                ▼ │
 *        └────────────── CACHED   (in the prefix tree, nobody else needs it)
 *
 * A tree node is its page: node arrays are indexed by page number, so there is never a node to
 * allocate. Nodes know their parent, not their children; a child is found by hash.
 */
#ifndef KVCACHE_PRIVATE_H
#define KVCACHE_PRIVATE_H

#include "kvcache/kvcache.h"

enum { KV_NONE = -1 }; /* no page, no parent, end of a list */

struct kv_pool {
    int32_t n_pages, page_slots;
    int32_t *n_refs;       /* [n_pages] tables that hold it, and one for the prefix tree */
    uint8_t *in_limbo;     /* [n_pages] 1: lies in limbo_pages */
    uint32_t *free_pages;  /* [n_pages] stack, n_free used */
    uint32_t *limbo_pages; /* [n_pages] let go while a pass may read them, n_limbo used */
    int32_t n_free, n_limbo, n_held, n_cached;
    int32_t n_passes;         /* begun and not ended */
    int32_t n_tables;         /* live */
    uint64_t last_node_id;    /* ids are never reused, not even by a second tree */
    struct kv_prefix *prefix; /* borrowed; NULL when there is none */
    int32_t *recount;         /* [n_pages] working memory of kv_pool_check */
};

/* Place in the tree up to which a table's pages are known to be published. It is a hint: the node
 * may have been evicted since, which its id tells. */
struct kv_cursor {
    int32_t n_pages; /* 0: nothing known */
    int32_t node;
    uint64_t node_id;
};

struct kv_table {
    struct kv_pool *pool; /* borrowed */
    uint32_t *pages;      /* [cap_pages], n_pages used */
    int32_t n_pages, cap_pages;
    int32_t cached_len, committed_len, proposed_len;
    struct kv_cursor published;
};

struct kv_node {
    uint64_t id; /* 0: this page is not in the tree */
    uint64_t salt;
    uint64_t hash; /* of salt, parent and tokens */
    int32_t parent;
    int32_t bucket_next;
    int32_t older, newer; /* places in the list of evictable nodes */
    int32_t n_pins;       /* 1 if a table holds the page or it is in limbo, + 1 per pinned child */
};

struct kv_prefix {
    struct kv_pool *pool;  /* borrowed */
    struct kv_node *nodes; /* [pool->n_pages] */
    int32_t *tokens;       /* [pool->n_pages, page_slots] */
    int32_t *buckets;      /* [n_buckets] first node or KV_NONE */
    int32_t n_buckets;     /* power of two */
    int32_t oldest, newest; /* evictable nodes, children always before their parents */
    uint64_t hash_mask;    /* all ones; tests degrade the hash with fewer */
};

/* ---- pages (pool.c) ---- */
/* A page with one reference; evicts when none is free. There must be one available. */
uint32_t kv_page_take(struct kv_pool *pool);
void kv_page_share(struct kv_pool *pool, uint32_t page);   /* one more table holds it */
void kv_page_release(struct kv_pool *pool, uint32_t page); /* one table less */
/* Nobody holds the page any more and no pass reads it. */
void kv_page_free(struct kv_pool *pool, uint32_t page);

static inline bool kv_page_is_node(const struct kv_pool *pool, uint32_t page)
{
    return pool->prefix != NULL && pool->prefix->nodes[page].id != 0;
}

/* ---- nodes (prefix.c) ---- */
/* A pinned node, and with it all above it, cannot be evicted. */
void kv_node_pin(struct kv_prefix *prefix, int32_t node);
void kv_node_unpin(struct kv_prefix *prefix, int32_t node);
/* Takes the least recently used evictable node out of the tree and frees its page. */
void kv_node_evict_oldest(struct kv_prefix *prefix);
uint64_t kv_node_hash(const struct kv_prefix *prefix, uint64_t salt, int32_t parent,
                      const int32_t *tokens /* [page_slots] */);

/* ---- tables (table.c) ---- */
/* Lengths and published place of an empty table that has just been given n_pages full ones. */
void kv_table_start(struct kv_table *table, int32_t len);

#endif
