/* policy_times: how long something of size n takes, from measurements at some sizes.
 *
 * Each size measured keeps an exponential average; sizes between two of them are read off a straight
 * line, sizes beyond the last follow the slope of its upper half. One descheduled process must not
 * bend the curve and a longer context must: a size's sample is the median of its last three.
 */
#ifndef SCHEDULER_POLICY_TIMES_H
#define SCHEDULER_POLICY_TIMES_H

#include <stdbool.h>

#include "base/base.h"

enum { POLICY_TIMES_RECENT = 3 };
struct policy_times_cell {
    float recent_ns[POLICY_TIMES_RECENT];
    float mean_ns;
    uint32_t n_seen, n_recent;
    uint64_t last_observed;    /* by the table's count; long ago: what it knew may be another context's */
};
enum policy_times_start { POLICY_TIMES_LEVEL, POLICY_TIMES_FROM_ZERO }; /* below the first size measured */
struct policy_times {
    enum policy_times_start start;
    int32_t n_max;             /* largest size */
    int32_t last_knot;         /* largest size measured; 0 = nothing measured yet */
    uint64_t n_observed;
    struct policy_times_cell *cells; /* [n_max + 1] */
    float *curve_ns;           /* [n_max + 1] */
};
enum status policy_times_init(struct policy_times *times, int32_t n_max, enum policy_times_start start);
void policy_times_deinit(struct policy_times *times);
/* Sizes outside 1..n_max are ignored. */
void policy_times_observe(struct policy_times *times, int32_t n, int64_t ns);
/* 0 while nothing is measured; sizes beyond n_max read as n_max. */
double policy_times_ns(const struct policy_times *times, int32_t n);
/* What a measurement may count for where it is charged: a process that lost its core is no cost. */
double policy_times_clipped_ns(const struct policy_times *times, int32_t n, int64_t ns);

#endif
