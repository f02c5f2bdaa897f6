/* table: one sequence's row of pages and its lengths. Commit, propose and rollback move lengths and
 * nothing else (I3); pages change hands in reserve, prepare_write, trim, fork and clear. */
#include "kvcache/private.h"

static int32_t pages_for(const struct kv_table *table, int32_t len)
{
    const int32_t slots = table->pool->page_slots;
    return len / slots + (len % slots != 0);
}

static void assert_order(const struct kv_table *table)
{
    ASSERT(table->cached_len >= 0 && table->cached_len <= table->committed_len);
    ASSERT(table->committed_len <= table->proposed_len);
    ASSERT(table->proposed_len <= kv_table_reserved_len(table));
}

enum status kv_table_create(struct kv_pool *pool, int32_t cap_len, struct kv_table **out)
{
    *out = NULL;
    if (cap_len < 1 || cap_len > INT32_MAX - pool->page_slots) {
        return status_fail(STATUS_INVALID,
                           "expected a sequence length between 1 and %d, found %d",
                           INT32_MAX - pool->page_slots, cap_len);
    }
    struct kv_table *table = mem_alloc(1, sizeof *table);
    if (table == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a page table of %d positions", cap_len);
    }
    table->pool = pool;
    table->cap_pages = pages_for(table, cap_len);
    table->pages = mem_alloc((size_t)table->cap_pages, sizeof *table->pages);
    if (table->pages == NULL) {
        mem_free(table);
        return status_fail(STATUS_NO_MEMORY, "no memory for a page table of %d positions", cap_len);
    }
    pool->n_tables++;
    *out = table;
    return STATUS_OK;
}

void kv_table_destroy(struct kv_table *table)
{
    if (table == NULL) {
        return;
    }
    kv_table_clear(table);
    table->pool->n_tables--;
    mem_free(table->pages);
    mem_free(table);
}

/* From the end: so the tree sees leaves before their parents, and evicts them first. */
static void release_from(struct kv_table *table, int32_t n_kept)
{
    while (table->n_pages > n_kept) {
        kv_page_release(table->pool, table->pages[--table->n_pages]);
    }
}

void kv_table_clear(struct kv_table *table)
{
    release_from(table, 0);
    kv_table_start(table, 0);
}

void kv_table_start(struct kv_table *table, int32_t len)
{
    table->cached_len = table->committed_len = table->proposed_len = len;
    table->published = (struct kv_cursor){0};
    assert_order(table);
}

int32_t kv_table_cached_len(const struct kv_table *table)
{
    return table->cached_len;
}

int32_t kv_table_committed_len(const struct kv_table *table)
{
    return table->committed_len;
}

int32_t kv_table_proposed_len(const struct kv_table *table)
{
    return table->proposed_len;
}

int32_t kv_table_reserved_len(const struct kv_table *table)
{
    return table->n_pages * table->pool->page_slots;
}

const uint32_t *kv_table_pages(const struct kv_table *table, int32_t *n_pages)
{
    *n_pages = table->n_pages;
    return table->pages;
}

int32_t kv_table_slot(const struct kv_table *table, int32_t position)
{
    const int32_t slots = table->pool->page_slots;
    const int32_t idx = position / slots;
    ASSERT(position >= 0 && idx < table->n_pages);
    return (int32_t)table->pages[idx] * slots + position % slots;
}

/* ---- pages ---- */
enum status kv_table_reserve(struct kv_table *table, int32_t len)
{
    struct kv_pool *pool = table->pool;
    const int32_t n_wanted = pages_for(table, len);
    ASSERT(len >= 0 && n_wanted <= table->cap_pages);
    if (n_wanted <= table->n_pages) {
        return STATUS_OK;
    }
    if (n_wanted - table->n_pages > kv_pool_available(pool)) {
        return status_fail(STATUS_REFUSED, "expected %d more KV pages, %d of %d are available",
                           n_wanted - table->n_pages, kv_pool_available(pool), pool->n_pages);
    }
    while (table->n_pages < n_wanted) {
        table->pages[table->n_pages++] = kv_page_take(pool);
    }
    return STATUS_OK;
}

static int32_t count_shared(const struct kv_table *table, int32_t first_page, int32_t end_page)
{
    int32_t n_shared = 0;
    for (int32_t i = first_page; i < end_page && !mutant(MUTANT_NO_COPY_ON_WRITE); i++) {
        n_shared += table->pool->n_refs[table->pages[i]] > 1;
    }
    return n_shared;
}

enum status kv_table_prepare_write(struct kv_table *table, int32_t first, int32_t n,
                                   struct kv_copy *copies, int32_t cap, int32_t *n_copies)
{
    struct kv_pool *pool = table->pool;
    *n_copies = 0;
    ASSERT(first >= 0 && n >= 0 && n <= kv_table_reserved_len(table) - first);
    const int32_t first_page = first / pool->page_slots;
    const int32_t end_page = n == 0 ? first_page : pages_for(table, first + n);
    const int32_t n_shared = count_shared(table, first_page, end_page);
    if (n_shared == 0) {
        return STATUS_OK;
    }
    ASSERT(n_shared <= cap);
    if (n_shared > kv_pool_available(pool)) {
        return status_fail(STATUS_REFUSED,
                           "expected %d KV pages to copy shared ones to, %d of %d are available",
                           n_shared, kv_pool_available(pool), pool->n_pages);
    }
    for (int32_t i = first_page; i < end_page; i++) {
        if (pool->n_refs[table->pages[i]] > 1) { /* I4 */
            const uint32_t fresh = kv_page_take(pool);
            copies[(*n_copies)++] = (struct kv_copy){.src = table->pages[i], .dst = fresh};
            table->pages[i] = fresh;
            /* Even if only the tree keeps the source now, it is the youngest there: the pages still
             * to be taken here are found before it, so no source becomes a destination. */
            kv_page_release(pool, copies[*n_copies - 1].src);
        }
    }
    return STATUS_OK;
}

void kv_table_trim(struct kv_table *table, int32_t len)
{
    ASSERT(len >= table->proposed_len);
    release_from(table, pages_for(table, len));
}

enum status kv_table_fork(const struct kv_table *parent, struct kv_table *child)
{
    ASSERT(parent->pool == child->pool && parent != child && child->n_pages == 0);
    const int32_t n_pages = pages_for(parent, parent->committed_len);
    if (n_pages > child->cap_pages) {
        return status_fail(STATUS_INVALID,
                           "expected a page table of at least %d positions to fork into, found %d",
                           parent->committed_len, child->cap_pages * child->pool->page_slots);
    }
    for (int32_t i = 0; i < n_pages; i++) {
        kv_page_share(child->pool, parent->pages[i]);
        child->pages[child->n_pages++] = parent->pages[i];
    }
    kv_table_start(child, parent->committed_len);
    child->cached_len = parent->cached_len;
    child->published = parent->published;
    return STATUS_OK;
}

/* ---- lengths ---- */
/* Other tokens may follow, so another branch of the tree: the next publish looks from the root. */
static void forget_published_above(struct kv_table *table, int32_t len)
{
    if (table->published.n_pages > len / table->pool->page_slots) {
        table->published = (struct kv_cursor){0};
    }
}

void kv_table_commit(struct kv_table *table, int32_t n)
{
    ASSERT(n >= 0 && n <= kv_table_reserved_len(table) - table->committed_len);
    table->committed_len += n;
    if (table->proposed_len < table->committed_len) {
        table->proposed_len = table->committed_len;
    }
    assert_order(table);
}

void kv_table_propose(struct kv_table *table, int32_t n)
{
    ASSERT(n >= 0 && n <= kv_table_reserved_len(table) - table->committed_len);
    table->proposed_len = table->committed_len + n;
    assert_order(table);
}

void kv_table_set_cached(struct kv_table *table, int32_t len)
{
    table->cached_len = len;
    table->proposed_len = table->committed_len;
    forget_published_above(table, len);
    assert_order(table);
}

void kv_table_rollback(struct kv_table *table, int32_t len)
{
    ASSERT(len >= 0);
    if (table->committed_len > len) {
        table->committed_len = len;
    }
    if (table->cached_len > len) {
        table->cached_len = len;
    }
    table->proposed_len = table->committed_len;
    forget_published_above(table, len);
    assert_order(table);
}
