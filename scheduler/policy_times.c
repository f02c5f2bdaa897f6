/* policy_times: see the header. */
#include "scheduler/policy_times.h"

static const float CLIP = 1.5f;          /* without three samples, how far one may be off */
static const float WEIGHT = 1.0f / 12.0f; /* of a sample */
static const float WEIGHT_STALE = 0.25f; /* of the first ones after a long time */
enum { STALE_AFTER = 256 };

enum status policy_times_init(struct policy_times *times, int32_t n_max, enum policy_times_start start)
{
    *times = (struct policy_times){ .start = start, .n_max = n_max };
    times->cells = mem_alloc((size_t)n_max + 1, sizeof *times->cells);
    times->curve_ns = mem_alloc((size_t)n_max + 1, sizeof *times->curve_ns);
    if (times->cells == NULL || times->curve_ns == NULL) {
        policy_times_deinit(times);
        return status_fail(STATUS_NO_MEMORY, "no memory for times of 1 to %d", n_max);
    }
    return STATUS_OK;
}

void policy_times_deinit(struct policy_times *times)
{
    mem_free(times->cells);
    mem_free(times->curve_ns);
    times->cells = NULL;
    times->curve_ns = NULL;
}

static float clip(float value, float middle)
{
    const float low = middle / CLIP, high = middle * CLIP;
    return value < low ? low : value > high ? high : value;
}

static float median(const float v[POLICY_TIMES_RECENT])
{
    const float low = v[0] < v[1] ? v[0] : v[1], high = v[0] < v[1] ? v[1] : v[0];
    return v[2] < low ? low : v[2] > high ? high : v[2];
}

/* ---- the curve ---- */
/* The next knot below (at least `bottom`) or above; outside, where there is none. */
static int32_t knot_below(const struct policy_times *times, int32_t n, int32_t bottom)
{
    do {
        n--;
    } while (n >= bottom && n > 0 && times->cells[n].n_seen == 0); /* zero is a knot where it counts */
    return n;
}

static int32_t knot_above(const struct policy_times *times, int32_t n)
{
    do {
        n++;
    } while (n <= times->n_max && times->cells[n].n_seen == 0);
    return n;
}

static float slope_between(const struct policy_times *times, int32_t low, int32_t high)
{
    const float slope_ns = (times->cells[high].mean_ns - times->cells[low].mean_ns) / (float)(high - low);
    return slope_ns > 0.0f ? slope_ns : 0.0f;
}

/* Beyond the last knot: the slope since about half of it, so that two neighbours' noise is no slope. */
static void fill_tail(struct policy_times *times)
{
    const int32_t last = times->last_knot;
    int32_t anchor = last / 2;
    while (anchor > 0 && times->cells[anchor].n_seen == 0) {
        anchor--;
    }
    for (int32_t n = last / 2; anchor == 0 && times->start == POLICY_TIMES_LEVEL && n < last; n++) {
        anchor = times->cells[n].n_seen > 0 ? n : 0;
    }
    float slope_ns = 0.0f; /* one size alone says nothing of others */
    if (anchor > 0 || times->start == POLICY_TIMES_FROM_ZERO) {
        slope_ns = slope_between(times, anchor, last);
    }
    for (int32_t n = last; n <= times->n_max; n++) {
        times->curve_ns[n] = times->cells[last].mean_ns + slope_ns * (float)(n - last);
    }
}

/* Between two knots: what the lines beyond them, carried on, say at least, but no more than the chord.
 * Passes are cheap until they are not, and a chord over the bend would keep anybody from ever looking. */
static void fill_between(struct policy_times *times, int32_t low, int32_t high)
{
    const int32_t bottom = times->start == POLICY_TIMES_FROM_ZERO ? 0 : 1;
    const int32_t before = knot_below(times, low, bottom), after = knot_above(times, high);
    const float low_ns = times->cells[low].mean_ns, high_ns = times->cells[high].mean_ns;
    const float chord = (high_ns - low_ns) / (float)(high - low);
    const float slope_low = before >= bottom && low > 0 ? slope_between(times, before, low) : 0.0f;
    const float slope_high = after <= times->n_max ? slope_between(times, high, after) : chord;
    for (int32_t n = low; n <= high; n++) {
        const float line = low_ns + chord * (float)(n - low);
        const float from_low = low_ns + slope_low * (float)(n - low);
        const float from_high = high_ns - slope_high * (float)(high - n);
        const float least = from_low > from_high ? from_low : from_high;
        times->curve_ns[n] = n == high ? high_ns : least < line ? least : line;
    }
}

/* The knot has moved: the lines that end in it, and those that are bounded by them. */
static void refill(struct policy_times *times, int32_t knot)
{
    const int32_t bottom = times->start == POLICY_TIMES_FROM_ZERO ? 0 : 1;
    int32_t low = knot;
    for (int32_t i = 0; i < 2 && knot_below(times, low, bottom) >= bottom; i++) {
        low = knot_below(times, low, bottom);
    }
    const bool is_first = bottom == 1 && knot_below(times, low, bottom) < bottom;
    for (int32_t n = 0; is_first && n <= low; n++) {
        times->curve_ns[n] = times->cells[low].mean_ns; /* level below the first knot */
    }
    for (int32_t i = 0; i < 4 && knot_above(times, low) <= times->n_max; i++) {
        const int32_t high = knot_above(times, low);
        fill_between(times, low, high);
        low = high;
    }
    if (low == times->last_knot) {
        fill_tail(times);
    }
}

/* ---- measurements ---- */
/* With fewer than three samples to compare: the lower of two, and of one what the curve foretold is the
 * second opinion. */
static float robust_sample(const struct policy_times *times, const struct policy_times_cell *cell, int32_t n)
{
    const float *recent = cell->recent_ns;
    if (cell->n_recent >= POLICY_TIMES_RECENT) {
        return median(recent);
    }
    if (cell->n_recent == 2 && cell->n_seen < POLICY_TIMES_RECENT) {
        return recent[0] < recent[1] ? recent[0] : recent[1];
    }
    const float sample = recent[cell->n_recent - 1];
    return times->last_knot > 0 && times->curve_ns[n] > 0.0f ? clip(sample, times->curve_ns[n]) : sample;
}

/* The first three replace each other; then a plain average until there are enough for a moving one. */
static float weight_of(const struct policy_times_cell *cell)
{
    if (cell->n_seen < POLICY_TIMES_RECENT) {
        return 1.0f;
    }
    if (cell->n_recent < POLICY_TIMES_RECENT) {
        return WEIGHT_STALE;
    }
    const float share = 1.0f / (float)(cell->n_seen - 1);
    return share > WEIGHT ? share : WEIGHT;
}

void policy_times_observe(struct policy_times *times, int32_t n, int64_t ns)
{
    if (n < 1 || n > times->n_max || ns < 0) {
        return;
    }
    struct policy_times_cell *cell = &times->cells[n];
    const bool is_stale = cell->n_seen > 0 && times->n_observed - cell->last_observed > STALE_AFTER;
    cell->n_recent = is_stale ? 0 : cell->n_recent;
    cell->recent_ns[cell->n_recent++ % POLICY_TIMES_RECENT] = (float)ns;
    cell->last_observed = ++times->n_observed;
    const float sample = robust_sample(times, cell, n);
    cell->mean_ns += (sample - cell->mean_ns) * weight_of(cell);
    cell->n_seen += cell->n_seen < UINT32_MAX;
    times->last_knot = n > times->last_knot ? n : times->last_knot;
    refill(times, n);
}

double policy_times_ns(const struct policy_times *times, int32_t n)
{
    return times->curve_ns[n < 0 ? 0 : n > times->n_max ? times->n_max : n];
}

double policy_times_clipped_ns(const struct policy_times *times, int32_t n, int64_t ns)
{
    const double expected_ns = policy_times_ns(times, n), high_ns = expected_ns * (double)CLIP;
    return expected_ns > 0.0 && (double)ns > high_ns ? high_ns : (double)ns;
}
