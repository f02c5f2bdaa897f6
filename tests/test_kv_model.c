/* kvcache against a model made of arrays: case 42.
 *
 * Random operations on several sequences go to the real thing and to the model; after every call
 * lengths, pages, counts, the recount and the content of every cached slot are compared. Content is
 * simulated: a slot holds the hash of all tokens up to it, free pages hold poison, and an owner map
 * says who may write where. Each run is a child process, so that a broken ASSERT is a finding too;
 * a finding is shrunk to the operations it needs and printed with its seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kvcache/private.h"

enum { N_SEQS = 5, MAX_PAGES = 48, MAX_SLOTS = 16, CAP_LEN = 64, MAX_OPS = 10000, MAX_PASSES = 3 };
#define POISON UINT64_C(0xdeaddeaddeaddead)

enum op_kind {
    OP_ADMIT, OP_PREFILL, OP_ROUND, OP_PUBLISH, OP_ROLLBACK, OP_TRIM, OP_FORK, OP_CLEAR,
    OP_UNCACHE, OP_RESERVE, OP_PASS_BEGIN, OP_PASS_END, OP_FORGET_ALL, N_OP_KINDS
};
static const char *const op_names[N_OP_KINDS] = {
    "admit", "prefill", "round", "publish", "rollback", "trim", "fork", "clear",
    "uncache", "reserve", "pass_begin", "pass_end", "forget_all"};
static const int op_weights[N_OP_KINDS] = {10, 14, 24, 14, 5, 4, 6, 8, 3, 3, 6, 6, 1};
struct op { enum op_kind kind; uint32_t a, b, c; };

/* Bugs planted in what surrounds the cache, or in the cache through its private header. */
enum fault {
    FAULT_NONE, FAULT_COPY_SKIPPED, FAULT_WRITE_UNPREPARED, FAULT_REFERENCE_LOST,
    FAULT_PASS_UNANNOUNCED, FAULT_PUBLISHED_EARLY, FAULT_LEAK
};
static enum fault fault = FAULT_NONE;

/* ---- the model ---- */
struct seq {
    int32_t tokens[CAP_LEN + 1];
    uint64_t hash[CAP_LEN + 1]; /* of tokens[0..i] */
    int32_t cached, committed, proposed, n_pages;
    uint32_t pages[CAP_LEN];
    uint64_t salt;
};

/* What the tree knows about a page; live == 0: nothing. */
struct entry {
    int live;
    uint64_t salt, key, parent_key; /* key: hash of all tokens up to the page's end */
    int32_t depth;
    int64_t last_use; /* when it was last not evictable, or published again */
};

struct world {
    int32_t n_pages, slots;
    struct kv_pool *pool;
    struct kv_prefix *prefix;
    struct kv_table *tables[N_SEQS];
    struct seq seqs[N_SEQS];
    struct entry entries[MAX_PAGES];
    int32_t n_holders[MAX_PAGES];
    int in_limbo[MAX_PAGES], is_free[MAX_PAGES];
    int32_t n_passes;
    int64_t now;
    uint64_t content[MAX_PAGES * MAX_SLOTS];
};

/* Shared with the child of a run: how far it came and what it found. */
static struct report { int32_t op_idx; char text[512]; } *report;

#define EXPECT(condition, ...)                                              \
    do {                                                                    \
        if (!(condition)) {                                                 \
            snprintf(report->text, sizeof report->text, __VA_ARGS__);       \
            _exit(1);                                                       \
        }                                                                   \
    } while (0)

static struct entry *entry_find(struct world *world, uint64_t salt, uint64_t key, int32_t depth)
{
    for (int32_t page = 0; page < world->n_pages; page++) {
        struct entry *entry = &world->entries[page];
        if (entry->live && entry->salt == salt && entry->key == key && entry->depth == depth) {
            return entry;
        }
    }
    return NULL;
}

/* Nobody holds it, nor anything below it. */
static int entry_evictable(const struct world *world, int32_t page)
{
    const struct entry *entry = &world->entries[page];
    if (!entry->live || world->n_holders[page] > 0 || world->in_limbo[page]) {
        return 0;
    }
    for (int32_t i = 0; i < world->n_pages; i++) {
        const struct entry *below = &world->entries[i];
        if (below->live && below->salt == entry->salt && below->depth == entry->depth + 1 &&
            below->parent_key == entry->key && !entry_evictable(world, i)) {
            return 0;
        }
    }
    return 1;
}

/* After any change of who holds what: limbo, free, poison, ages. */
static void model_settle(struct world *world)
{
    int32_t n_holders[MAX_PAGES] = {0};
    for (int32_t i = 0; i < N_SEQS; i++) {
        for (int32_t j = 0; j < world->seqs[i].n_pages; j++) {
            n_holders[world->seqs[i].pages[j]]++;
        }
    }
    for (int32_t page = 0; page < world->n_pages; page++) {
        if (world->n_holders[page] > 0 && n_holders[page] == 0 && world->n_passes > 0) {
            world->in_limbo[page] = 1; /* I5 */
        }
        if (world->n_passes == 0) {
            world->in_limbo[page] = 0;
        }
        world->n_holders[page] = n_holders[page];
        world->is_free[page] =
            n_holders[page] == 0 && !world->in_limbo[page] && !world->entries[page].live;
        for (int32_t i = 0; world->is_free[page] && i < world->slots; i++) {
            world->content[page * world->slots + i] = POISON;
        }
    }
    for (int32_t page = 0; page < world->n_pages; page++) {
        if (world->entries[page].live && !entry_evictable(world, page)) {
            world->entries[page].last_use = world->now;
        }
    }
}

static void check_counts(const struct world *world)
{
    int32_t n_free = 0, n_cached = 0;
    for (int32_t page = 0; page < world->n_pages; page++) {
        n_free += world->is_free[page];
        n_cached += entry_evictable(world, page);
    }
    const struct kv_pool_counts counts = kv_pool_counts(world->pool);
    EXPECT(counts.n_total == world->n_pages && counts.n_free == n_free &&
               counts.n_cached == n_cached && counts.n_held == world->n_pages - n_free - n_cached,
           "counts: expected %d free, %d cached, found %d, %d", n_free, n_cached, counts.n_free,
           counts.n_cached);
}

/* Everything the model knows, after every call. */
static void world_check(struct world *world)
{
    EXPECT(kv_pool_check(world->pool, world->tables, N_SEQS) == STATUS_OK, "%s", status_message());
    check_counts(world);
    for (int32_t i = 0; i < N_SEQS; i++) {
        const struct seq *seq = &world->seqs[i];
        const struct kv_table *table = world->tables[i];
        EXPECT(kv_table_cached_len(table) == seq->cached &&
                   kv_table_committed_len(table) == seq->committed &&
                   kv_table_proposed_len(table) == seq->proposed &&
                   kv_table_reserved_len(table) == seq->n_pages * world->slots,
               "sequence %d: expected lengths %d, %d, %d, %d, found %d, %d, %d, %d", i,
               seq->cached, seq->committed, seq->proposed, seq->n_pages * world->slots,
               kv_table_cached_len(table), kv_table_committed_len(table),
               kv_table_proposed_len(table), kv_table_reserved_len(table));
        int32_t n_pages = 0;
        const uint32_t *pages = kv_table_pages(table, &n_pages);
        EXPECT(n_pages == seq->n_pages &&
                   memcmp(pages, seq->pages, (size_t)n_pages * sizeof *pages) == 0,
               "sequence %d: other pages than the model's", i);
        for (int32_t p = 0; p < seq->cached; p++) { /* I1 */
            EXPECT(world->content[kv_table_slot(table, p)] == seq->hash[p],
                   "sequence %d: wrong content at position %d of %d cached", i, p, seq->cached);
        }
    }
}

static void world_settle_and_check(struct world *world)
{
    world->now++;
    model_settle(world);
    world_check(world);
}

/* ---- calls, mirrored ---- */
/* Pages just given out were free; or, once none was free, the least recently used evictable. */
static void take_pages(struct world *world, const uint32_t *pages, int32_t n)
{
    int32_t n_free = 0;
    for (int32_t page = 0; page < world->n_pages; page++) {
        n_free += world->is_free[page];
    }
    int64_t youngest_evicted = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t page = (int32_t)pages[i];
        if (i < n_free) {
            EXPECT(world->is_free[page], "page %d was given out but is not free", page);
            world->is_free[page] = 0;
            continue;
        }
        EXPECT(entry_evictable(world, page), "page %d was evicted but is needed", page);
        if (world->entries[page].last_use > youngest_evicted) {
            youngest_evicted = world->entries[page].last_use;
        }
        world->entries[page].live = 0;
        for (int32_t s = 0; s < world->slots; s++) {
            world->content[page * world->slots + s] = POISON;
        }
    }
    for (int32_t page = 0; page < world->n_pages && n > n_free; page++) {
        EXPECT(!entry_evictable(world, page) || world->entries[page].last_use >= youngest_evicted,
               "page %d was used less recently than one evicted", page);
    }
}

static int32_t model_available(const struct world *world)
{
    int32_t n = 0;
    for (int32_t page = 0; page < world->n_pages; page++) {
        n += world->is_free[page] || entry_evictable(world, page);
    }
    return n;
}

static int world_reserve(struct world *world, int32_t idx, int32_t len)
{
    struct seq *seq = &world->seqs[idx];
    const int32_t n_wanted = (len + world->slots - 1) / world->slots;
    const int32_t n_more = n_wanted > seq->n_pages ? n_wanted - seq->n_pages : 0;
    const int expected = n_more <= model_available(world);
    const enum status status = kv_table_reserve(world->tables[idx], len);
    EXPECT((status == STATUS_OK) == expected, "reserve: expected %d, found status %d", expected,
           (int)status);
    if (status == STATUS_OK && n_more > 0) {
        int32_t n_pages = 0;
        const uint32_t *pages = kv_table_pages(world->tables[idx], &n_pages);
        EXPECT(n_pages == n_wanted, "reserve: expected %d pages, found %d", n_wanted, n_pages);
        take_pages(world, pages + seq->n_pages, n_more);
        memcpy(seq->pages + seq->n_pages, pages + seq->n_pages, (size_t)n_more * sizeof *pages);
        seq->n_pages = n_wanted;
    }
    world_settle_and_check(world);
    return status == STATUS_OK;
}

/* Makes the range writable, executes the copies. 0: refused. */
static int world_prepare(struct world *world, int32_t idx, int32_t first, int32_t n)
{
    struct seq *seq = &world->seqs[idx];
    struct kv_copy copies[CAP_LEN];
    uint32_t fresh[CAP_LEN];
    int32_t n_copies = 0, n_expected = 0;
    if (fault == FAULT_WRITE_UNPREPARED) {
        return 1;
    }
    for (int32_t i = first / world->slots; n > 0 && i <= (first + n - 1) / world->slots; i++) {
        n_expected += world->n_holders[seq->pages[i]] + world->entries[seq->pages[i]].live > 1;
    }
    const int expected = n_expected <= model_available(world);
    const enum status status =
        kv_table_prepare_write(world->tables[idx], first, n, copies, CAP_LEN, &n_copies);
    EXPECT((status == STATUS_OK) == expected && n_copies == (expected ? n_expected : 0),
           "prepare: expected %d copies, found %d, status %d", n_expected, n_copies, (int)status);
    for (int32_t i = 0; i < n_copies; i++) {
        fresh[i] = copies[i].dst;
    }
    take_pages(world, fresh, n_copies);
    for (int32_t i = 0, at = first / world->slots; i < n_copies; i++, at++) {
        while (seq->pages[at] != copies[i].src) {
            at++;
            EXPECT(at < seq->n_pages, "copy of page %u, not in its place", copies[i].src);
        }
        seq->pages[at] = copies[i].dst;
        if (fault != FAULT_COPY_SKIPPED) {
            memcpy(world->content + copies[i].dst * (uint32_t)world->slots,
                   world->content + copies[i].src * (uint32_t)world->slots,
                   (size_t)world->slots * sizeof world->content[0]);
        }
    }
    world_settle_and_check(world);
    return status == STATUS_OK;
}

/* One slot, by a pass. The owner map: no one else's page, and none the tree keeps. */
static void world_write(struct world *world, int32_t idx, int32_t position, uint64_t value)
{
    const int32_t slot = kv_table_slot(world->tables[idx], position);
    const int32_t page = slot / world->slots;
    EXPECT(world->n_holders[page] == 1 && !world->entries[page].live,
           "sequence %d writes to page %d of %d holders", idx, page, world->n_holders[page]);
    world->content[slot] = value;
}

static void world_clear(struct world *world, int32_t idx)
{
    kv_table_clear(world->tables[idx]);
    world->seqs[idx] = (struct seq){0};
    world_settle_and_check(world);
}

static void seq_push(struct seq *seq, int32_t token)
{
    const int32_t n = seq->committed++;
    seq->tokens[n] = token;
    seq->hash[n] = rng_mix64((n > 0 ? seq->hash[n - 1] : 1) ^ (uint64_t)(uint32_t)token);
}

static void world_attach(struct world *world, int32_t idx, const int32_t *tokens, int32_t n)
{
    struct seq *seq = &world->seqs[idx];
    const int32_t found = kv_prefix_attach(world->prefix, seq->salt, tokens, n, world->tables[idx]);
    struct seq probe = *seq;
    for (int32_t i = 0; i < n; i++) {
        seq_push(&probe, tokens[i]);
    }
    int32_t depth = 0;
    while ((depth + 1) * world->slots <= n - 1) {
        struct entry *entry = entry_find(world, seq->salt,
                                         probe.hash[(depth + 1) * world->slots - 1], depth + 1);
        if (entry == NULL) {
            break;
        }
        seq->pages[depth++] = (uint32_t)(entry - world->entries);
    }
    EXPECT(found == depth * world->slots, "attach: expected %d tokens, found %d",
           depth * world->slots, found);
    for (int32_t i = 0; i < found; i++) {
        seq_push(seq, tokens[i]);
    }
    seq->n_pages = depth;
    seq->cached = seq->proposed = found;
    world_settle_and_check(world);
}

/* ---- operations ---- */
/* Few streams that part from each other at a few places: prefixes meet often. */
static int32_t prompt_token(uint32_t variant, int32_t position)
{
    const int32_t parting = (int32_t)(variant / 4 % 5) * 5;
    return position < parting ? position % 7 : position % 3 + 10 * (int32_t)(variant % 4);
}

static void op_admit(struct world *world, int32_t idx, const struct op *op)
{
    struct seq *seq = &world->seqs[idx];
    int32_t tokens[CAP_LEN];
    const int32_t n = 1 + (int32_t)(op->b % (CAP_LEN / 2));
    world_clear(world, idx);
    for (int32_t i = 0; i < n; i++) {
        tokens[i] = prompt_token(op->c, i);
    }
    seq->salt = op->c >> 8 & 1;
    world_attach(world, idx, tokens, n);
    if (!world_reserve(world, idx, n + 1)) {
        world_clear(world, idx);
        return;
    }
    kv_table_commit(world->tables[idx], n - seq->committed);
    while (seq->committed < n) {
        seq_push(seq, tokens[seq->committed]);
    }
    seq->proposed = n;
}

static void op_prefill(struct world *world, int32_t idx, const struct op *op)
{
    struct seq *seq = &world->seqs[idx];
    const int32_t room = seq->committed - seq->cached, chunk = 1 + (int32_t)(op->b % 20);
    const int32_t end = seq->cached + (chunk < room ? chunk : room);
    if (!world_prepare(world, idx, seq->cached, end - seq->cached)) {
        return;
    }
    for (int32_t i = seq->cached; i < end; i++) {
        world_write(world, idx, i, seq->hash[i]);
    }
    kv_table_set_cached(world->tables[idx], end);
    seq->cached = end;
    seq->proposed = seq->committed;
}

/* Propose K, write their rows, accept m, commit m and a recovery token. */
static void op_round(struct world *world, int32_t idx, const struct op *op)
{
    struct seq *seq = &world->seqs[idx];
    const int32_t n = seq->committed, k = (int32_t)(op->b % 7);
    const int32_t m = (int32_t)(op->c % (uint32_t)(k + 1));
    if (n == 0 || n + k + 1 > CAP_LEN || !world_reserve(world, idx, n + k + 1) ||
        !world_prepare(world, idx, seq->cached, n + k - seq->cached)) {
        return;
    }
    kv_table_propose(world->tables[idx], k);
    seq->proposed = n + k;
    world_check(world);
    for (int32_t i = 0; i <= m; i++) {
        seq_push(seq, prompt_token(op->c >> 4, n + i));
    }
    for (int32_t i = seq->cached; i < n + k; i++) { /* the rejected rows are junk */
        world_write(world, idx, i, i < n + m ? seq->hash[i] : rng_mix64(op->c + (uint32_t)i));
    }
    kv_table_commit(world->tables[idx], m + 1);
    kv_table_set_cached(world->tables[idx], n + m);
    seq->proposed = seq->committed;
    seq->cached = n + m;
}

static void op_publish(struct world *world, int32_t idx)
{
    struct seq *seq = &world->seqs[idx];
    const int32_t cached = seq->cached, n = world->slots;
    if (fault == FAULT_PUBLISHED_EARLY) {
        world->tables[idx]->cached_len = seq->committed;
    }
    kv_prefix_publish(world->prefix, seq->salt, seq->tokens, world->tables[idx]);
    world->tables[idx]->cached_len = cached;
    for (int32_t depth = 1; depth * n <= seq->cached; depth++) {
        const uint64_t key = seq->hash[depth * n - 1];
        struct entry *entry = entry_find(world, seq->salt, key, depth);
        if (entry == NULL) {
            entry = &world->entries[seq->pages[depth - 1]];
            if (entry->live) {
                break; /* it is cached for another salt */
            }
            *entry = (struct entry){.live = 1, .salt = seq->salt, .key = key, .depth = depth,
                                    .parent_key = depth > 1 ? seq->hash[(depth - 1) * n - 1] : 0};
        }
        entry->last_use = world->now + 1;
    }
}

static void op_fork(struct world *world, int32_t idx, const struct op *op)
{
    const int32_t child = (idx + 1 + (int32_t)(op->b % (N_SEQS - 1))) % N_SEQS;
    world_clear(world, child);
    EXPECT(kv_table_fork(world->tables[idx], world->tables[child]) == STATUS_OK, "fork refused");
    struct seq *to = &world->seqs[child];
    *to = world->seqs[idx];
    to->n_pages = (to->committed + world->slots - 1) / world->slots;
    to->proposed = to->committed;
    if (fault == FAULT_REFERENCE_LOST && to->n_pages > 1) {
        world->pool->n_refs[to->pages[1]]--;
    }
}

static void op_shorten(struct world *world, int32_t idx, const struct op *op)
{
    struct seq *seq = &world->seqs[idx];
    struct kv_table *table = world->tables[idx];
    const int32_t reserved = seq->n_pages * world->slots;
    if (op->kind == OP_ROLLBACK) {
        const int32_t len = (int32_t)(op->b % (uint32_t)(seq->committed + 3));
        kv_table_rollback(table, len);
        seq->committed = len < seq->committed ? len : seq->committed;
        seq->cached = len < seq->cached ? len : seq->cached;
    } else if (op->kind == OP_UNCACHE) {
        seq->cached = (int32_t)(op->b % (uint32_t)(seq->cached + 1));
        kv_table_set_cached(table, seq->cached);
    } else {
        const int32_t len = seq->proposed + (int32_t)(op->b % (uint32_t)(reserved + 3));
        kv_table_trim(table, len);
        const int32_t n_kept = (len + world->slots - 1) / world->slots;
        seq->n_pages = fault != FAULT_LEAK && n_kept < seq->n_pages ? n_kept : seq->n_pages;
        return;
    }
    seq->proposed = seq->committed;
}

static void op_pass(struct world *world, const struct op *op)
{
    if (op->kind == OP_PASS_BEGIN && world->n_passes < MAX_PASSES) {
        world->n_passes++;
        if (fault != FAULT_PASS_UNANNOUNCED) {
            kv_pool_pass_begin(world->pool);
        }
    } else if (op->kind == OP_PASS_END && world->n_passes > 0) {
        world->n_passes--;
        if (fault != FAULT_PASS_UNANNOUNCED) {
            kv_pool_pass_end(world->pool);
        }
    }
}

static void op_forget_all(struct world *world)
{
    int evictable[MAX_PAGES];
    for (int32_t page = 0; page < world->n_pages; page++) {
        evictable[page] = entry_evictable(world, page);
    }
    for (int32_t page = 0; page < world->n_pages; page++) {
        world->entries[page].live &= !evictable[page];
    }
    kv_prefix_clear(world->prefix);
}

static void world_step(struct world *world, const struct op *op)
{
    const int32_t idx = (int32_t)(op->a % N_SEQS);
    switch (op->kind) {
    case OP_ADMIT: op_admit(world, idx, op); break;
    case OP_PREFILL: op_prefill(world, idx, op); break;
    case OP_ROUND: op_round(world, idx, op); break;
    case OP_PUBLISH: op_publish(world, idx); break;
    case OP_FORK: op_fork(world, idx, op); break;
    case OP_CLEAR: world_clear(world, idx); break;
    case OP_RESERVE: (void)world_reserve(world, idx, (int32_t)(op->b % CAP_LEN)); break;
    case OP_FORGET_ALL: op_forget_all(world); break;
    case OP_PASS_BEGIN:
    case OP_PASS_END: op_pass(world, op); break;
    default: op_shorten(world, idx, op); break;
    }
    world_settle_and_check(world);
}

/* ---- runs ---- */
struct setting { int32_t n_pages, slots; uint64_t hash_mask; };

/* In a child process: exits 0, or 1 with report->text, or dies of a broken ASSERT. */
static void run_child(const struct setting *setting, const struct op *ops, int32_t n_ops)
{
    static struct world world;
    world = (struct world){.n_pages = setting->n_pages, .slots = setting->slots};
    EXPECT(kv_pool_create(world.n_pages, world.slots, &world.pool) == STATUS_OK &&
               kv_prefix_create(world.pool, &world.prefix) == STATUS_OK, "%s", status_message());
    world.prefix->hash_mask = setting->hash_mask;
    for (int32_t i = 0; i < N_SEQS; i++) {
        EXPECT(kv_table_create(world.pool, CAP_LEN, &world.tables[i]) == STATUS_OK, "table");
    }
    world_settle_and_check(&world);
    const uint64_t n_allocs = mem_alloc_count();
    for (report->op_idx = 0; report->op_idx < n_ops; report->op_idx++) {
        world_step(&world, &ops[report->op_idx]);
    }
    EXPECT(mem_alloc_count() == n_allocs, "an operation allocated");
    for (int32_t i = 0; i < N_SEQS; i++) {
        kv_table_destroy(world.tables[i]);
    }
    while (world.n_passes-- > 0 && fault != FAULT_PASS_UNANNOUNCED) {
        kv_pool_pass_end(world.pool);
    }
    kv_prefix_destroy(world.prefix);
    EXPECT(kv_pool_counts(world.pool).n_free == world.n_pages, "pages are lost at the end");
    kv_pool_destroy(world.pool);
    _exit(0);
}

/* 1: these operations end in a finding. */
static int run_fails(const struct setting *setting, const struct op *ops, int32_t n_ops)
{
    report->op_idx = 0;
    snprintf(report->text, sizeof report->text, "a broken ASSERT, or a signal");
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr); /* a finding is printed once, shrunk */
        run_child(setting, ops, n_ops);
    }
    int code = 0;
    assert_int_equal(waitpid(child, &code, 0), child);
    return code != 0;
}

/* Leaves out chunks, from halves to single operations, as long as it still fails. */
static int32_t shrink(const struct setting *setting, struct op *ops, int32_t n_ops)
{
    static struct op fewer[MAX_OPS];
    for (int32_t chunk = n_ops / 2 > 0 ? n_ops / 2 : 1, removed = 0; chunk > 0;) {
        removed = 0;
        for (int32_t at = 0; at < n_ops && n_ops > 1;) {
            const int32_t n_out = chunk < n_ops - at ? chunk : n_ops - at;
            memcpy(fewer, ops, (size_t)at * sizeof *ops);
            memcpy(fewer + at, ops + at + n_out, (size_t)(n_ops - at - n_out) * sizeof *ops);
            if (run_fails(setting, fewer, n_ops - n_out)) {
                n_ops = report->op_idx + 1 < n_ops - n_out ? report->op_idx + 1 : n_ops - n_out;
                memcpy(ops, fewer, (size_t)n_ops * sizeof *ops);
                removed = 1;
            } else {
                at += n_out;
            }
        }
        if (chunk == 1 && !removed) {
            break;
        }
        chunk = chunk > 1 ? chunk / 2 : 1;
    }
    return n_ops;
}

static void make_ops(struct op *ops, int32_t n_ops, uint64_t seed)
{
    int32_t total = 0;
    for (int i = 0; i < N_OP_KINDS; i++) {
        total += op_weights[i];
    }
    for (int32_t i = 0; i < n_ops; i++) {
        const uint64_t x = rng_mix64(seed * 0x10001 + (uint64_t)i), y = rng_mix64(x);
        int32_t left = (int32_t)(x % (uint64_t)total);
        int kind = 0;
        while (left >= op_weights[kind]) {
            left -= op_weights[kind++];
        }
        ops[i] = (struct op){(enum op_kind)kind, (uint32_t)(x >> 32), (uint32_t)y,
                             (uint32_t)(y >> 32)};
    }
}

/* Number of operations a finding needs, 0 if there is none. */
static int32_t find(const struct setting *setting, uint64_t seed, int32_t n_ops, struct op *ops)
{
    make_ops(ops, n_ops, seed);
    if (!run_fails(setting, ops, n_ops)) {
        return 0;
    }
    n_ops = report->op_idx + 1 < n_ops ? report->op_idx + 1 : n_ops;
    n_ops = shrink(setting, ops, n_ops);
    (void)run_fails(setting, ops, n_ops); /* the sentence of the shortest */
    return n_ops;
}

static const struct setting settings[] = {
    {.n_pages = 20, .slots = 4, .hash_mask = UINT64_MAX},
    {.n_pages = 20, .slots = 4, .hash_mask = 0}, /* all hashes collide */
    {.n_pages = 48, .slots = 3, .hash_mask = UINT64_MAX},
    {.n_pages = 48, .slots = 1, .hash_mask = 1},
    {.n_pages = 9, .slots = 16, .hash_mask = UINT64_MAX},
    {.n_pages = 4, .slots = 4, .hash_mask = UINT64_MAX}, /* hardly anything fits */
};
enum { N_SETTINGS = sizeof settings / sizeof settings[0] };

static void case_42_random_operations_against_lists(void **state)
{
    (void)state;
    static struct op ops[MAX_OPS];
    const char *wish = getenv("TANDEM_TEST_SEED");
    const uint64_t first_seed = wish != NULL ? strtoull(wish, NULL, 10) : 1;
    for (uint64_t i = 0; i < N_SETTINGS; i++) {
        const struct setting *setting = &settings[i];
        const uint64_t seed = first_seed + i;
        const int32_t n_needed = find(setting, seed, MAX_OPS, ops);
        printf("seed %llu: %d pages of %d slots, %d operations\n", (unsigned long long)seed,
               setting->n_pages, setting->slots, MAX_OPS);
        for (int32_t j = 0; j < n_needed; j++) {
            printf("  %s %u %u %u\n", op_names[ops[j].kind], ops[j].a, ops[j].b, ops[j].c);
        }
        if (n_needed > 0) {
            fail_msg("seed %llu: %s", (unsigned long long)seed, report->text);
        }
    }
}

static void planted_bugs_are_found_and_shrunk(void **state)
{
    (void)state;
    static struct op ops[MAX_OPS];
    static const struct { enum fault fault; const char *words; } plants[] = {
        {FAULT_COPY_SKIPPED, "wrong content"},
        {FAULT_WRITE_UNPREPARED, "writes to page"},
        {FAULT_REFERENCE_LOST, "references"},
        {FAULT_PASS_UNANNOUNCED, "counts"},
        {FAULT_PUBLISHED_EARLY, ""},
        {FAULT_LEAK, "counts"},
    };
    for (size_t i = 0; i < sizeof plants / sizeof plants[0]; i++) {
        fault = plants[i].fault;
        const int32_t n_needed = find(&settings[0], 77, 2000, ops);
        fault = FAULT_NONE;
        printf("planted bug %d: %d operations: %s\n", (int)plants[i].fault, n_needed,
               report->text);
        assert_in_range(n_needed, 1, 12);
        assert_non_null(strstr(report->text, plants[i].words));
    }
}

int main(void)
{
    report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_42_random_operations_against_lists),
        cmocka_unit_test(planted_bugs_are_found_and_shrunk),
    };
    return cmocka_run_group_tests_name("kv_model", tests, NULL, NULL);
}
