/* trace: a ring of 1024 events. A writer takes a number, then writes its place; a reader meets a
 * place by its number, so an event being overwritten is left out instead of shown torn. */
#include "base/trace.h"

#include <stdatomic.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/status.h"

enum { TRACE_EVENTS = 1024 };

struct trace_place {
    _Atomic uint64_t number; /* of the event that lies here, from 1; 0 while it is being written */
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
    (void)atomic_exchange(&place->number, 0); /* what follows cannot be seen before this */
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
