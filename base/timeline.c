/* timeline: a ring as in trace.c, of spans. A writer takes a number, then its place; a reader meets a place
 * by its number, so that a span that is being written over is left out, instead of torn. */
#include "base/timeline.h"

#include <stdatomic.h>

#include "base/clock.h"
#include "base/mem.h"

const struct timeline_kind timeline_step = { "step", "running", "rows" };
const struct timeline_kind timeline_plan = { "plan", "parts", NULL };
const struct timeline_kind timeline_propose = { "propose", "proposed", "sequences" };
const struct timeline_kind timeline_commit = { "commit", "tokens", NULL };
const struct timeline_kind timeline_pick = { "pick", "rows", NULL };
const struct timeline_kind timeline_wait = { "wait", NULL, NULL };
const struct timeline_kind timeline_verify = { "verify", "rows", "sequences" };
const struct timeline_kind timeline_prefill = { "prefill", "rows", "sequences" };
const struct timeline_kind timeline_draft = { "draft", "rows", "logits" };
const struct timeline_kind timeline_glue = { "glue", "rows", "sequences" };
const struct timeline_kind timeline_fork = { "fork", "branches", "sequences" };
const struct timeline_kind timeline_grow = { "grow", "step", "rows" };
const struct timeline_kind timeline_hit = { "hit", "accepted", "tokens" };
const struct timeline_kind timeline_miss = { "miss", "accepted", "sequence" };

static const uint64_t place_writing = UINT64_MAX;

struct timeline_place {
    _Atomic uint64_t number; /* of the span that lies here, from 1; place_writing; 0 = none yet */
    _Atomic(const struct timeline_kind *) kind;
    _Atomic int row;
    _Atomic int64_t begin_ns, end_ns, a, b;
};
struct timeline {
    int64_t origin_ns;
    uint32_t n_places;
    _Atomic uint64_t count;
    struct timeline_place place[];
};
static struct timeline *_Atomic the_timeline; /* NULL: off */

enum status timeline_open(uint32_t n_spans)
{
    ASSERT(n_spans > 0 && atomic_load(&the_timeline) == NULL);
    const size_t bytes = sizeof(struct timeline) + n_spans * sizeof(struct timeline_place);
    struct timeline *timeline = mem_alloc(1, bytes);
    if (timeline == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a timeline of %u spans", n_spans);
    }
    timeline->origin_ns = clock_now_ns();
    timeline->n_places = n_spans;
    atomic_store(&the_timeline, timeline);
    return STATUS_OK;
}

void timeline_close(void)
{
    mem_free(atomic_exchange(&the_timeline, NULL));
}

bool timeline_is_open(void)
{
    return atomic_load_explicit(&the_timeline, memory_order_acquire) != NULL;
}

int64_t timeline_begin(void)
{
    return atomic_load_explicit(&the_timeline, memory_order_relaxed) != NULL ? clock_now_ns() : 0;
}

static void record(struct timeline *timeline, const struct timeline_span *span)
{
    const uint64_t number = atomic_fetch_add_explicit(&timeline->count, 1, memory_order_relaxed) + 1;
    struct timeline_place *place = &timeline->place[number % timeline->n_places];
    uint64_t before = atomic_load(&place->number);
    /* A number above ours is a newer span, or a writer at work that slept for a whole round. */
    if (before > number || !atomic_compare_exchange_strong(&place->number, &before, place_writing)) {
        return;
    }
    atomic_store_explicit(&place->kind, span->kind, memory_order_relaxed);
    atomic_store_explicit(&place->row, (int)span->row, memory_order_relaxed);
    atomic_store_explicit(&place->begin_ns, span->begin_ns, memory_order_relaxed);
    atomic_store_explicit(&place->end_ns, span->end_ns, memory_order_relaxed);
    atomic_store_explicit(&place->a, span->a, memory_order_relaxed);
    atomic_store_explicit(&place->b, span->b, memory_order_relaxed);
    atomic_store_explicit(&place->number, number, memory_order_release);
}

void timeline_end(enum timeline_row row, const struct timeline_kind *kind, int64_t begin_ns, int64_t a, int64_t b)
{
    struct timeline *timeline = atomic_load_explicit(&the_timeline, memory_order_acquire);
    if (begin_ns == 0 || timeline == NULL) {
        return;
    }
    const int64_t end_ns = clock_now_ns();
    record(timeline, &(struct timeline_span){
        .row = row, .kind = kind, .begin_ns = begin_ns - timeline->origin_ns, .a = a, .b = b,
        .end_ns = (end_ns > begin_ns ? end_ns : begin_ns + 1) - timeline->origin_ns }); /* no mark, however short */
}

void timeline_mark(enum timeline_row row, const struct timeline_kind *kind, int64_t a, int64_t b)
{
    struct timeline *timeline = atomic_load_explicit(&the_timeline, memory_order_acquire);
    if (timeline != NULL) {
        const int64_t now_ns = clock_now_ns() - timeline->origin_ns;
        record(timeline, &(struct timeline_span){ .row = row, .kind = kind, .begin_ns = now_ns,
                                                  .end_ns = now_ns, .a = a, .b = b });
    }
}

/* ---- reading ---- */
struct timeline_range timeline_kept(void)
{
    const struct timeline *timeline = atomic_load_explicit(&the_timeline, memory_order_acquire);
    if (timeline == NULL) {
        return (struct timeline_range){ .end = 0 };
    }
    const uint64_t count = atomic_load(&timeline->count);
    return (struct timeline_range){ .first = count > timeline->n_places ? count - timeline->n_places + 1 : 1,
                                    .end = count + 1 };
}

bool timeline_get(uint64_t number, struct timeline_span *out)
{
    struct timeline *timeline = atomic_load_explicit(&the_timeline, memory_order_acquire);
    if (timeline == NULL) {
        return false;
    }
    struct timeline_place *place = &timeline->place[number % timeline->n_places];
    if (atomic_load_explicit(&place->number, memory_order_acquire) != number) {
        return false;
    }
    *out = (struct timeline_span){ .row = (enum timeline_row)atomic_load(&place->row),
        .kind = atomic_load(&place->kind), .begin_ns = atomic_load(&place->begin_ns),
        .end_ns = atomic_load(&place->end_ns), .a = atomic_load(&place->a), .b = atomic_load(&place->b) };
    return atomic_load(&place->number) == number;
}
