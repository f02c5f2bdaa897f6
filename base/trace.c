/* trace: a ring of 1024 events. A writer takes a number, then its place; a reader meets a place by its
 * number. An event whose place is being written by another thread is left out, instead of torn. */
#include "base/trace.h"

#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/status.h"

enum { TRACE_EVENTS = 1024 };

static const uint64_t trace_writing = UINT64_MAX;

struct trace_place {
    _Atomic uint64_t number; /* of the event that lies here, from 1; trace_writing; 0 = none yet */
    _Atomic(const char *) name;
    _Atomic int64_t time_ns, a, b;
};

static struct trace_place trace_ring[TRACE_EVENTS];
static _Atomic uint64_t trace_count;

void trace_event(const char *name, int64_t a, int64_t b)
{
    const uint64_t number = atomic_fetch_add_explicit(&trace_count, 1, memory_order_relaxed) + 1;
    if (number == 1) {
        status_on_assert(trace_dump);
    }
    struct trace_place *place = &trace_ring[number % TRACE_EVENTS];
    uint64_t before = atomic_load(&place->number);
    /* A number above ours is a newer event, or a writer at work that slept for a whole round. */
    if (before > number || !atomic_compare_exchange_strong(&place->number, &before, trace_writing)) {
        return;
    }
    atomic_store_explicit(&place->name, name, memory_order_relaxed);
    atomic_store_explicit(&place->time_ns, clock_now_ns(), memory_order_relaxed);
    atomic_store_explicit(&place->a, a, memory_order_relaxed);
    atomic_store_explicit(&place->b, b, memory_order_relaxed);
    atomic_store_explicit(&place->number, number, memory_order_release);
}

void trace_dump(void)
{
    const uint64_t last = atomic_load(&trace_count);
    const uint64_t first = last > TRACE_EVENTS ? last - TRACE_EVENTS + 1 : 1;
    const int64_t now_ns = clock_now_ns();
    fprintf(stderr, "trace: the last %llu of %llu events\n", (unsigned long long)(last - first + 1),
            (unsigned long long)last);
    for (uint64_t number = first; number <= last; number++) {
        struct trace_place *place = &trace_ring[number % TRACE_EVENTS];
        if (atomic_load_explicit(&place->number, memory_order_acquire) != number) {
            continue;
        }
        const char *name = atomic_load(&place->name);
        const int64_t age_ns = now_ns - atomic_load(&place->time_ns);
        const int64_t a = atomic_load(&place->a), b = atomic_load(&place->b);
        if (atomic_load(&place->number) == number) {
            fprintf(stderr, "  %10.3f ms ago  %-24s %lld %lld\n", (double)age_ns * 1e-6, name,
                    (long long)a, (long long)b);
        }
    }
}
