/* grower_pace: how many branches the next step grows. Branches stand likeliest first, so that a step over n of
 * them is worth P(n), the chance that one of these is asked for, and takes as long as n rows were measured to
 * take. Where all steps of all branches fit before the outcome is known, all are grown. Else a step takes as
 * many as let the steps that are left fit, but no fewer than bring the most for their time, P(n) / time(n);
 * what is left behind keeps the tokens it has. A step that would end after the outcome is not begun: the
 * next round's glue would wait for it. (Ours; the paper grows every branch to the end.) */
#include "draft/grower_private.h"

static const double LATE = 1.25; /* a step may end so much later, since times vary */

/* Seconds until the outcome is expected; below 0: not known. */
static double seconds_left(const struct grower *grower, const struct grower_call *call)
{
    int32_t n_rows = 0;
    for (int32_t i = 0; i < call->n_rounds; i++) {
        n_rows += 1 + call->rounds[i].n_proposed;
    }
    const double verify = gain_times_seconds(&grower->verify, n_rows);
    if (call->begin_ns == 0 || verify <= 0.0 || grower->options.never_stops_early || call->grows_to_the_end) {
        return -1.0;
    }
    const double left = verify - (double)(clock_now_ns() - call->begin_ns) * 1e-9;
    return left > 0.0 ? left : 0.0;
}

/* Numbers of rows worth considering, downwards: each up to 16, then in sixteenths. */
static int32_t fewer(int32_t n) { return n <= 16 ? n - 1 : n - n / 16; }

int32_t grower_pace(struct grower *grower, const struct grower_call *call, int32_t n_open, int32_t n_steps_left)
{
    const double left = seconds_left(grower, call);
    if (grower->rows_tried > 0 && call->begin_ns > 0 && !call->grows_to_the_end) {
        return grower->rows_tried < n_open ? grower->rows_tried : n_open;
    }
    const double all = gain_times_seconds(&grower->grow, n_open);
    if (left < 0.0 || all <= 0.0 || all * n_steps_left <= left) {
        return n_open;
    }
    double best_rate = 0.0;
    int32_t n_counted = 0, best = 0, most_that_fit = 0;
    for (int32_t i = 0; i < grower->n_growing && n_counted < n_open; i++) {
        if (grower->order[i]->is_open) {
            grower->worth[n_counted + 1] = grower->worth[n_counted] + (double)grower->order[i]->odds;
            n_counted++;
        }
    }
    for (int32_t n = n_counted; n >= 1; n = fewer(n)) {
        const double seconds = gain_times_seconds(&grower->grow, n);
        const double rate = grower->worth[n] / seconds;
        if (seconds > left * LATE) {
            continue;
        }
        if (rate > best_rate) {
            best_rate = rate;
            best = n;
        }
        if (most_that_fit == 0 && seconds * n_steps_left <= left) {
            most_that_fit = n;
        }
    }
    return best > most_that_fit ? best : most_that_fit;
}
