/* lane: an ordered queue of operations and the workers that run them.
 *
 *      submitted ──────────────────────────┐ (count of operations, moved by the submitter)
 *      ring: [ done | done | CURRENT | pending | pending |      ]
 *      ticket = (index of CURRENT << 24) | next chunk of it ┘ (moved by compare-and-swap)
 *
 * A worker claims a chunk by moving the ticket; whoever finishes an operation's last chunk moves the
 * ticket to the next operation. Nobody waits for a particular worker, so a core that is taken away
 * delays only its chunk, and workers of another lane can join and leave between any two chunks. The
 * ring slot of an operation is reused only after it has ended, so a claimed chunk's arguments stand.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/cpu/cpu.h"
#include "backend/cpu/operations.h"

enum { RING_OPS = 1024, CHUNK_BITS = 24, SPIN_CHECK = 64, MIN_SCRATCH_BYTES = 512 * 1024 };
#define CHUNK_MASK ((UINT64_C(1) << CHUNK_BITS) - 1)
static const int64_t SPIN_NS = 200 * 1000; /* longer than the pause between two decoding passes */

struct lane_op {
    _Alignas(64) lane_fn fn;
    _Atomic uint32_t n_chunks;
    _Atomic uint32_t n_done;
    _Alignas(64) unsigned char args[LANE_ARGS_BYTES];
};

struct lane_thread {
    struct cpu_lane *lane;
    pthread_t thread;
    struct lane_worker worker;
};

struct cpu_lane {
    struct lane base;
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint64_t n_submitted;
    _Atomic int stopping;
    _Atomic int64_t busy_since_ns, busy_ns;
    struct cpu_lane *_Atomic borrower; /* helped while this lane is idle; NULL = none */
    int first_thread, n_threads; /* started by us; first_thread is 1 when the caller is worker 0 */
    int first_cpu;               /* of worker 0; -1 = not pinned */
    struct lane_thread *threads; /* [n_workers]; thread i runs worker i */
    struct lane_op ring[RING_OPS];
};

enum claim { CLAIM_RAN, CLAIM_RETRY, CLAIM_TAIL, CLAIM_IDLE };

static void cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void wake_all(struct cpu_wake *wake)
{
    if (atomic_load(&wake->n_sleepers) > 0) {
        atomic_fetch_add(&wake->epoch, 1);
        syscall(SYS_futex, &wake->epoch, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
    }
}

static void op_finish(struct cpu_lane *lane, uint64_t op_idx)
{
    if (op_idx + 1 == atomic_load_explicit(&lane->n_submitted, memory_order_relaxed)) {
        const int64_t since = atomic_load_explicit(&lane->busy_since_ns, memory_order_relaxed);
        atomic_fetch_add_explicit(&lane->busy_ns, clock_now_ns() - since, memory_order_relaxed);
    }
    atomic_exchange(&lane->ticket, (op_idx + 1) << CHUNK_BITS); /* seq_cst: before reading sleepers */
    wake_all(&lane->base.backend->wake);
}

/* Claims and runs one chunk of the lane's current operation, if there is one to claim. */
static enum claim lane_claim(struct cpu_lane *lane, struct lane_worker *worker)
{
    uint64_t ticket = atomic_load_explicit(&lane->ticket, memory_order_acquire);
    const uint64_t op_idx = ticket >> CHUNK_BITS;
    if (op_idx >= atomic_load_explicit(&lane->n_submitted, memory_order_acquire)) {
        return CLAIM_IDLE;
    }
    struct lane_op *op = &lane->ring[op_idx % RING_OPS];
    const uint32_t chunk = (uint32_t)(ticket & CHUNK_MASK);
    const uint32_t n_chunks = atomic_load_explicit(&op->n_chunks, memory_order_relaxed);
    if (chunk >= n_chunks) {
        return CLAIM_TAIL;
    }
    /* success means the ticket has not moved since we read the slot: the slot is still this op's */
    if (!atomic_compare_exchange_weak_explicit(&lane->ticket, &ticket, ticket + 1,
                                               memory_order_acq_rel, memory_order_relaxed)) {
        return CLAIM_RETRY;
    }
    op->fn(op->args, chunk, worker);
    if (atomic_fetch_add_explicit(&op->n_done, 1, memory_order_acq_rel) + 1 == n_chunks) {
        op_finish(lane, op_idx);
    }
    return CLAIM_RAN;
}

struct snapshot { uint64_t ticket, n_submitted; };

static struct snapshot lane_snapshot(const struct cpu_lane *lane)
{
    return (struct snapshot){ atomic_load(&lane->ticket), atomic_load(&lane->n_submitted) };
}

static int snapshot_same(struct snapshot a, struct snapshot b)
{
    return a.ticket == b.ticket && a.n_submitted == b.n_submitted;
}

/* n, since_ns: turns in vain, and since when; until: what else ends the wait, or NULL */
struct spin { uint32_t n; int64_t since_ns; struct snapshot own, lent; const atomic_int *until; };

/* Sleeps until something changes in the lane (or in the one it lends to). A change after the
 * snapshot is seen by the second look; one after that finds n_sleepers raised and moves epoch. */
static void lane_sleep(struct cpu_lane *lane, const struct spin *spin)
{
    struct cpu_wake *wake = &lane->base.backend->wake;
    struct cpu_lane *borrower = atomic_load(&lane->borrower);
    const uint32_t epoch = atomic_load(&wake->epoch);
    atomic_fetch_add(&wake->n_sleepers, 1);
    const int changed = !snapshot_same(spin->own, lane_snapshot(lane)) || atomic_load(&lane->stopping) ||
                        (borrower && !snapshot_same(spin->lent, lane_snapshot(borrower))) ||
                        (spin->until && atomic_load(spin->until));
    if (!changed) {
        const struct timespec limit = { .tv_sec = 0, .tv_nsec = 100 * 1000 * 1000 };
        syscall(SYS_futex, &wake->epoch, FUTEX_WAIT_PRIVATE, epoch, &limit, NULL, 0);
    }
    atomic_fetch_sub(&wake->n_sleepers, 1);
}

/* One turn of waiting: pause for a while, then sleep. */
static void lane_idle(struct cpu_lane *lane, struct spin *spin)
{
    if (spin->n++ == 0) {
        spin->since_ns = clock_now_ns();
    }
    cpu_pause();
    if (spin->n % SPIN_CHECK != 0) {
        return;
    }
    struct cpu_lane *borrower = atomic_load_explicit(&lane->borrower, memory_order_acquire);
    const struct snapshot own = lane_snapshot(lane);
    const struct snapshot lent = borrower ? lane_snapshot(borrower) : own;
    if (spin->n == SPIN_CHECK || !snapshot_same(own, spin->own) || !snapshot_same(lent, spin->lent)) {
        spin->own = own;
        spin->lent = lent;
        spin->since_ns = spin->n == SPIN_CHECK ? spin->since_ns : clock_now_ns();
    } else if (clock_now_ns() - spin->since_ns > SPIN_NS) {
        lane_sleep(lane, spin);
        spin->n = 0;
    }
}

/* Runs a chunk of the lane, or of the lane it lends to while it has nothing of its own to do. */
static int lane_work(struct cpu_lane *lane, struct lane_worker *worker)
{
    enum claim claim;
    do {
        claim = lane_claim(lane, worker);
    } while (claim == CLAIM_RETRY);
    struct cpu_lane *borrower = atomic_load_explicit(&lane->borrower, memory_order_acquire);
    if (claim == CLAIM_IDLE && borrower) {
        claim = lane_claim(borrower, worker);
    }
    return claim == CLAIM_RAN;
}

static void *lane_thread_main(void *arg)
{
    struct lane_thread *thread = arg;
    struct cpu_lane *lane = thread->lane;
    cpu_float_mode_enter();
    struct spin spin = { 0 };
    for (;;) {
        if (lane_work(lane, &thread->worker)) {
            spin.n = 0;
            continue;
        }
        const struct snapshot now = lane_snapshot(lane);
        if (atomic_load(&lane->stopping) && now.ticket >> CHUNK_BITS >= now.n_submitted) {
            return NULL;
        }
        lane_idle(lane, &spin);
    }
}

static void pin_thread(pthread_t thread, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    pthread_setaffinity_np(thread, sizeof set, &set); /* a wish: correctness does not hang on it */
}

static struct cpu_lane *cpu_lane_of(struct lane *base) { return (struct cpu_lane *)base; }

void cpu_lane_pin_caller(const struct lane *base)
{
    const struct cpu_lane *lane = (const struct cpu_lane *)base;
    if (lane->first_cpu >= 0) {
        pin_thread(pthread_self(), lane->first_cpu);
    }
}

static enum status lane_start(struct cpu_lane *lane, const struct lane_options *options)
{
    const size_t scratch_bytes =
        options->scratch_bytes > MIN_SCRATCH_BYTES ? options->scratch_bytes : MIN_SCRATCH_BYTES;
    for (int i = 0; i < lane->base.n_workers; i++) {
        struct lane_thread *thread = &lane->threads[i];
        thread->lane = lane;
        thread->worker = (struct lane_worker){ .scratch = mem_alloc(1, scratch_bytes),
                                               .scratch_bytes = scratch_bytes, .idx = i };
        if (!thread->worker.scratch) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of scratch of worker %d",
                               scratch_bytes, i);
        }
    }
    for (int i = lane->first_thread; i < lane->base.n_workers; i++) {
        struct lane_thread *thread = &lane->threads[i];
        const int error = pthread_create(&thread->thread, NULL, lane_thread_main, thread);
        if (error != 0) {
            return status_fail(STATUS_NO_MEMORY, "cannot start worker thread %d: %s", i,
                               strerror(error));
        }
        lane->n_threads++;
        if (options->cpus) {
            pin_thread(thread->thread, options->cpus[i]);
        }
    }
    return STATUS_OK;
}

enum status cpu_lane_create(struct backend *backend, const struct lane_options *options, struct lane **out)
{
    ASSERT(options->n_workers >= 1);
    *out = NULL;
    struct cpu_lane *lane = mem_alloc(1, sizeof *lane);
    struct lane_thread *threads = mem_alloc((size_t)options->n_workers, sizeof *threads);
    if (!lane || !threads) {
        mem_free(lane);
        mem_free(threads);
        return status_fail(STATUS_NO_MEMORY, "no memory for a lane of %d workers",
                           options->n_workers);
    }
    lane->base = (struct lane){ .ops = cpu_ops, .backend = backend, .n_workers = options->n_workers };
    lane->threads = threads;
    lane->first_thread = options->caller_is_worker ? 1 : 0;
    lane->first_cpu = options->cpus ? options->cpus[0] : -1;
    const enum status status = lane_start(lane, options);
    if (status != STATUS_OK) {
        cpu_lane_destroy(&lane->base);
        return status;
    }
    *out = &lane->base;
    return STATUS_OK;
}

void cpu_lane_stop(struct lane *base)
{
    struct cpu_lane *lane = cpu_lane_of(base);
    if (atomic_load(&lane->stopping)) {
        return;
    }
    cpu_lane_wait(base, atomic_load(&lane->n_submitted));
    atomic_store(&lane->stopping, 1);
    wake_all(&base->backend->wake);
    for (int i = lane->first_thread; i < lane->first_thread + lane->n_threads; i++) {
        pthread_join(lane->threads[i].thread, NULL);
    }
}

void cpu_lane_destroy(struct lane *base)
{
    struct cpu_lane *lane = cpu_lane_of(base);
    cpu_lane_stop(base);
    for (int i = 0; i < base->n_workers; i++) {
        mem_free(lane->threads[i].worker.scratch);
    }
    mem_free(lane->threads);
    mem_free(lane);
}

void cpu_lane_lend(struct lane *lender, struct lane *borrower)
{
    ASSERT(lender->backend == borrower->backend && lender != borrower);
    atomic_store(&cpu_lane_of(lender)->borrower, cpu_lane_of(borrower));
}

static void no_operation(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    (void)args;
    (void)chunk;
    (void)worker;
}

uint64_t cpu_lane_submit(struct lane *base, lane_fn fn, const void *args, size_t args_bytes, uint32_t n_chunks)
{
    struct cpu_lane *lane = cpu_lane_of(base);
    ASSERT(args_bytes <= LANE_ARGS_BYTES && n_chunks < CHUNK_MASK);
    const uint64_t op_idx = atomic_load_explicit(&lane->n_submitted, memory_order_relaxed);
    const uint64_t current = atomic_load(&lane->ticket) >> CHUNK_BITS;
    if (op_idx - current >= RING_OPS) {
        cpu_lane_wait(base, op_idx - RING_OPS + 1);
    }
    if (op_idx == current) {
        atomic_store_explicit(&lane->busy_since_ns, clock_now_ns(), memory_order_relaxed);
    }
    struct lane_op *op = &lane->ring[op_idx % RING_OPS];
    op->fn = n_chunks > 0 ? fn : no_operation;
    if (args_bytes > 0) {
        memcpy(op->args, args, args_bytes);
    }
    atomic_store_explicit(&op->n_chunks, n_chunks > 0 ? n_chunks : 1, memory_order_relaxed);
    atomic_store_explicit(&op->n_done, 0, memory_order_relaxed);
    atomic_exchange(&lane->n_submitted, op_idx + 1);
    wake_all(&lane->base.backend->wake);
    return op_idx + 1;
}

/* An empty operation: its ticket stands for everything before it. */
uint64_t cpu_lane_mark(struct lane *base) { return cpu_lane_submit(base, no_operation, NULL, 0, 1); }

static bool is_done(const struct cpu_lane *lane, uint64_t ticket)
{
    return atomic_load_explicit(&lane->ticket, memory_order_acquire) >> CHUNK_BITS >= ticket;
}

bool cpu_lane_done(struct lane *base, uint64_t ticket) { return is_done(cpu_lane_of(base), ticket); }

void cpu_lane_wait(struct lane *base, uint64_t ticket)
{
    struct cpu_lane *lane = cpu_lane_of(base);
    const int works = lane->first_thread == 1; /* the caller is worker 0 */
    const unsigned int mode = cpu_float_mode_enter();
    struct spin spin = { 0 };
    while (!is_done(lane, ticket)) {
        if (works && lane_claim(lane, &lane->threads[0].worker) != CLAIM_TAIL) {
            spin.n = 0;
            continue;
        }
        lane_idle(lane, &spin);
    }
    cpu_float_mode_restore(mode);
}

void cpu_lane_idle_until(struct lane *base, const atomic_int *until)
{
    struct cpu_lane *lane = cpu_lane_of(base);
    ASSERT(lane->first_thread == 1);
    const unsigned int mode = cpu_float_mode_enter();
    struct spin spin = { .until = until };
    while (!atomic_load(until)) {
        if (lane_work(lane, &lane->threads[0].worker)) {
            spin.n = 0;
            continue;
        }
        lane_idle(lane, &spin);
    }
    cpu_float_mode_restore(mode);
}

void cpu_lane_wake(struct lane *base) { wake_all(&base->backend->wake); }

int64_t cpu_lane_busy_ns(const struct lane *base)
{
    const struct cpu_lane *lane = (const struct cpu_lane *)base;
    return atomic_load_explicit(&lane->busy_ns, memory_order_relaxed);
}
