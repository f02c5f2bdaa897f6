/* pool: who holds which page. References, the free list, and the limbo in which a page waits while
 * a pass that may read it is still running (I5). Every function leaves free + held + cached ==
 * total (I6). */
#include "kvcache/private.h"

enum status kv_pool_create(int32_t n_pages, int32_t page_slots, struct kv_pool **out)
{
    *out = NULL;
    if (n_pages < 1 || page_slots < 1 || n_pages > INT32_MAX / page_slots) {
        return status_fail(STATUS_INVALID,
                           "expected at least 1 KV page of at least 1 slot and below 2^31 slots in "
                           "all, found %d pages of %d slots", n_pages, page_slots);
    }
    const size_t n = (size_t)n_pages;
    struct kv_pool *pool = mem_alloc(1, sizeof *pool);
    if (pool == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a pool of %d KV pages", n_pages);
    }
    pool->n_pages = n_pages;
    pool->page_slots = page_slots;
    pool->n_refs = mem_alloc(n, sizeof *pool->n_refs);
    pool->in_limbo = mem_alloc(n, sizeof *pool->in_limbo);
    pool->free_pages = mem_alloc(n, sizeof *pool->free_pages);
    pool->limbo_pages = mem_alloc(n, sizeof *pool->limbo_pages);
    pool->recount = mem_alloc(n, sizeof *pool->recount);
    if (pool->n_refs == NULL || pool->in_limbo == NULL || pool->free_pages == NULL ||
        pool->limbo_pages == NULL || pool->recount == NULL) {
        kv_pool_destroy(pool);
        return status_fail(STATUS_NO_MEMORY, "no memory for a pool of %d KV pages", n_pages);
    }
    for (int32_t i = 0; i < n_pages; i++) { /* a stack: page 0 is handed out first */
        pool->free_pages[i] = (uint32_t)(n_pages - 1 - i);
    }
    pool->n_free = n_pages;
    *out = pool;
    return STATUS_OK;
}

void kv_pool_destroy(struct kv_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    ASSERT(pool->n_tables == 0 && pool->prefix == NULL);
    mem_free(pool->recount);
    mem_free(pool->limbo_pages);
    mem_free(pool->free_pages);
    mem_free(pool->in_limbo);
    mem_free(pool->n_refs);
    mem_free(pool);
}

int32_t kv_pool_page_slots(const struct kv_pool *pool)
{
    return pool->page_slots;
}

struct kv_pool_counts kv_pool_counts(const struct kv_pool *pool)
{
    return (struct kv_pool_counts){.n_total = pool->n_pages, .n_free = pool->n_free,
                                   .n_held = pool->n_held, .n_cached = pool->n_cached};
}

int32_t kv_pool_available(const struct kv_pool *pool)
{
    return pool->n_free + pool->n_cached;
}

/* ---- pages ---- */
uint32_t kv_page_take(struct kv_pool *pool)
{
    if (pool->n_free == 0) {
        ASSERT(pool->prefix != NULL);
        kv_node_evict_oldest(pool->prefix);
    }
    const uint32_t page = pool->free_pages[--pool->n_free];
    ASSERT(pool->n_refs[page] == 0);
    pool->n_refs[page] = 1;
    pool->n_held++;
    return page;
}

void kv_page_free(struct kv_pool *pool, uint32_t page)
{
    ASSERT(pool->n_refs[page] == 0 && pool->n_free < pool->n_pages);
    pool->free_pages[pool->n_free++] = page;
}

void kv_page_share(struct kv_pool *pool, uint32_t page)
{
    ASSERT(pool->n_refs[page] > 0);
    /* Only the tree had it. In limbo it is still pinned by the holder it lost. */
    if (pool->n_refs[page] == 1 && kv_page_is_node(pool, page) && !pool->in_limbo[page]) {
        kv_node_pin(pool->prefix, (int32_t)page);
    }
    pool->n_refs[page]++;
}

/* No table holds the page and no pass reads it: it is the tree's alone, or free. */
static void page_settle(struct kv_pool *pool, uint32_t page)
{
    if (kv_page_is_node(pool, page)) {
        kv_node_unpin(pool->prefix, (int32_t)page);
    } else {
        pool->n_held--;
        kv_page_free(pool, page);
    }
}

void kv_page_release(struct kv_pool *pool, uint32_t page)
{
    const int32_t n_tree = kv_page_is_node(pool, page) ? 1 : 0;
    ASSERT(pool->n_refs[page] > n_tree);
    if (mutant(MUTANT_PAGE_LEAK) && page % 4 == 3) {
        return;
    }
    pool->n_refs[page]--;
    if (pool->n_refs[page] > n_tree || pool->in_limbo[page]) {
        return;
    }
    if (pool->n_passes > 0 && !mutant(MUTANT_PAGE_FREE_AT_ONCE)) { /* I5 */
        pool->in_limbo[page] = 1;
        pool->limbo_pages[pool->n_limbo++] = page;
    } else {
        page_settle(pool, page);
    }
}

/* ---- passes ---- */
void kv_pool_pass_begin(struct kv_pool *pool)
{
    ASSERT(pool->n_passes < INT32_MAX);
    pool->n_passes++;
}

void kv_pool_pass_end(struct kv_pool *pool)
{
    ASSERT(pool->n_passes > 0);
    if (--pool->n_passes > 0) {
        return; /* which of them reads what is not known: all must have ended */
    }
    for (int32_t i = 0; i < pool->n_limbo; i++) {
        const uint32_t page = pool->limbo_pages[i];
        pool->in_limbo[page] = 0;
        if (pool->n_refs[page] == (kv_page_is_node(pool, page) ? 1 : 0)) {
            page_settle(pool, page); /* else it was attached again meanwhile */
        }
    }
    pool->n_limbo = 0;
}
