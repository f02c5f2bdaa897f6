/* gain: see the header. */
#include "draft/gain.h"

#include <math.h>

/* ---- the model ---- */
double gain_ahead_rate(const struct gain_round *round)
{
    const double h = round->hit, longest = fmax(round->verify, round->draft);
    return (h * round->tokens_hit + (1 - h) * round->tokens_miss) /
           (h * longest + (1 - h) * (round->verify + round->fallback));
}

double gain_ordinary_rate(double tokens, double verify, double draft) { return tokens / (verify + draft); }

double gain_tokens(const struct fanout_odds *odds)
{
    double tokens = 1;
    for (int32_t k = 1; k < odds->n_rows; k++) {
        tokens += k * odds->reach[k];
    }
    return tokens;
}

/* ---- times ---- */
static const float WEIGHT = 1.0f / 8; /* of a sample, once there are several */

static int32_t bucket_of(int32_t rows)
{
    int32_t octave = 0;
    if (rows <= 16) {
        return rows - 1;
    }
    while (rows - 1 >= 32 << octave) {
        octave++;
    }
    return 16 + 4 * octave + (rows - 1 - (16 << octave)) / (4 << octave);
}

static float median(const float v[GAIN_RECENT])
{
    return fmaxf(fminf(v[0], v[1]), fminf(fmaxf(v[0], v[1]), v[2]));
}

void gain_times_observe(struct gain_times *times, int32_t rows, double seconds)
{
    if (rows < 1 || rows > GAIN_MAX_ROWS || !(seconds > 0) || seconds > 1e6) {
        return;
    }
    struct gain_bucket *bucket = &times->bucket[bucket_of(rows)];
    bucket->recent[bucket->n_seen % GAIN_RECENT] = (float)seconds;
    bucket->n_seen = bucket->n_seen < UINT32_MAX ? bucket->n_seen + 1 : GAIN_RECENT;
    if (bucket->n_seen <= 2) { /* of two the lower: the first touches memory for the first time */
        bucket->seconds = bucket->n_seen == 1 ? (float)seconds : fminf(bucket->recent[0], bucket->recent[1]);
        bucket->rows = (float)rows;
        return;
    }
    const float sample = median(bucket->recent), weight = bucket->n_seen == 3 ? 1 : WEIGHT;
    bucket->seconds += (sample - bucket->seconds) * weight;
    bucket->rows += ((float)rows - bucket->rows) * WEIGHT;
}

static double slope(const struct gain_bucket *low, const struct gain_bucket *high)
{
    const double seconds = (double)high->seconds - (double)low->seconds, rows = (double)high->rows - (double)low->rows;
    return rows > 0 && seconds > 0 ? seconds / rows : 0;
}

/* Beyond the last bucket that was measured: from about half its rows on, so that noise is no slope. */
static double beyond(const struct gain_times *times, const struct gain_bucket *last, double rows)
{
    const struct gain_bucket *anchor = last;
    for (const struct gain_bucket *b = last; b >= times->bucket && anchor->rows > last->rows / 2; b--) {
        anchor = b->seconds > 0 ? b : anchor;
    }
    return (double)last->seconds + slope(anchor, last) * (rows - (double)last->rows);
}

double gain_times_seconds(const struct gain_times *times, double rows)
{
    const struct gain_bucket *low = NULL;
    if (!(rows > 0)) {
        return 0;
    }
    for (int32_t i = 0; i < GAIN_BUCKETS; i++) {
        const struct gain_bucket *high = &times->bucket[i];
        if (!(high->seconds > 0)) {
            continue;
        }
        if ((double)high->rows >= rows) {
            return low == NULL ? (double)high->seconds
                               : (double)high->seconds - slope(low, high) * ((double)high->rows - rows);
        }
        low = high;
    }
    return low == NULL ? 0 : beyond(times, low, rows);
}

/* ---- the choice ---- */
/* What is known of each number of proposed tokens, for all plans. */
struct odds_by_k {
    double verify[FANOUT_MAX_K + 1], glue[FANOUT_MAX_K + 1]; /* seconds, when all sequences have so many */
    double tokens[FANOUT_MAX_K + 1];                   /* committed by a round of so many after a hit */
    float hit[FANOUT_MAX_K + 1][FANOUT_MAX_BUDGET + 1]; /* that follows it, by budget */
    double tokens_miss;                                /* of a round after a miss, */
    float hit_miss[FANOUT_MAX_BUDGET + 1];             /* and what follows it */
};
/* One K_next and budget on the way to a rate. */
struct plan {
    const struct gain_inputs *inputs;
    const struct odds_by_k *odds;
    int32_t k, budget;
    double grow;              /* seconds of one pass of the branches */
};

static double verify_seconds(const struct gain_inputs *inputs, double k)
{
    return gain_times_seconds(inputs->verify, inputs->n_seqs * (1 + k));
}

static double glue_seconds(const struct gain_inputs *inputs, double k)
{
    return gain_times_seconds(inputs->glue, inputs->n_seqs * (1 + k));
}

/* Tokens that a round serves which prepares them while k_now are verified. */
static int32_t served_after(const struct plan *plan, int32_t k_now)
{
    if (plan->inputs->end == GAIN_GROWS_TO_THE_END) {
        return plan->k;
    }
    const double left = plan->odds->verify[k_now] - plan->odds->glue[k_now];
    const double steps = left <= 0 ? 0 : left / plan->grow;
    return steps < plan->k ? (int32_t)steps : plan->k;
}

/* Served, hit after hit: what fits into the verify pass of what was served before. */
static int32_t served_in_the_long_run(const struct plan *plan)
{
    int32_t served = plan->k;
    while (served > 0 && served_after(plan, served) < served) {
        served--;
    }
    return served;
}

/* Share of rounds that are served from a branch, in the long run. */
static double share_of_hits(double after_hit, double after_miss)
{
    const double leaves = 1 - after_hit + after_miss;
    return leaves > 1e-9 ? after_miss / leaves : after_hit;
}

/* A round whose verify pass and glue take so long, and that prepares others meanwhile. */
static double round_seconds(const struct plan *plan, double verify, double glue)
{
    const bool stops = plan->inputs->end == GAIN_STOPS_EARLY;
    return fmax(verify, glue + (stops ? 0 : plan->k * plan->grow));
}

static double round_seconds_of(const struct plan *plan, int32_t k_now)
{
    return round_seconds(plan, plan->odds->verify[k_now], plan->odds->glue[k_now]);
}

/* From one miss to the next, each round weighed by how often it is come to: the miss, a hit that was prepared
 * beside it, a hit prepared beside that one, .. until as much is served as in the round before. */
static struct gain_choice rate_alone(const struct plan *plan)
{
    const struct gain_inputs *inputs = plan->inputs;
    const struct odds_by_k *odds = plan->odds;
    double seconds = inputs->fallback_seconds + round_seconds_of(plan, inputs->k_fallback), hit_seconds = 0;
    double arrives = (double)odds->hit_miss[plan->budget], hits = 0, tokens = 0, served = 0;
    int32_t now = served_after(plan, inputs->k_fallback);
    for (bool settles = false; !settles && arrives > 1e-6;) {
        const int32_t next = served_after(plan, now);
        const double again = fmin((double)odds->hit[now][plan->budget], 1 - 1e-6);
        settles = next == now;
        const double rounds = settles ? arrives / (1 - again) : arrives;
        hits += rounds;
        tokens += rounds * odds->tokens[now];
        served += rounds * now;
        hit_seconds += rounds * round_seconds_of(plan, now);
        arrives *= again;
        now = next;
    }
    return (struct gain_choice){ .rate = (odds->tokens_miss + tokens) / (seconds + hit_seconds),
                                 .hit = hits / (1 + hits), .tokens_hit = hits > 0 ? tokens / hits : 1,
                                 .served = hits > 0 ? served / hits : 0 };
}

/* Sequences in one pass wait for each other: its rows are those of the mix, and a fallback is waited for by
 * all when any needs it. */
static struct gain_choice rate_together(const struct plan *plan)
{
    const struct gain_inputs *inputs = plan->inputs;
    const struct odds_by_k *odds = plan->odds;
    const int32_t served = served_in_the_long_run(plan);
    const double hit = share_of_hits((double)odds->hit[served][plan->budget], (double)odds->hit_miss[plan->budget]);
    const double k_now = hit * served + (1 - hit) * inputs->k_fallback;
    const double seconds = round_seconds(plan, verify_seconds(inputs, k_now), glue_seconds(inputs, k_now)) +
                           (1 - pow(hit, inputs->n_seqs)) * inputs->fallback_seconds;
    const double tokens = hit * odds->tokens[served] + (1 - hit) * odds->tokens_miss;
    return (struct gain_choice){ .rate = inputs->n_seqs * tokens / seconds, .hit = hit,
                                 .tokens_hit = odds->tokens[served], .served = served };
}

static struct gain_choice rate_of(const struct plan *plan)
{
    struct gain_choice choice = plan->inputs->n_seqs == 1 ? rate_alone(plan) : rate_together(plan);
    choice.budget = plan->budget;
    choice.k_next = plan->k;
    return choice;
}

static void fill_odds(const struct gain_inputs *inputs, struct odds_by_k *out)
{
    struct fanout_ask ask = { .n_proposed = inputs->k_fallback, .budget = 1, .acceptance = inputs->acceptance,
                              .tail = inputs->tail };
    struct fanout_odds odds;
    fanout_estimate(inputs->after_miss, &ask, &odds);
    fanout_hit_by_budget(&odds, inputs->max_budget, out->hit_miss);
    out->tokens_miss = gain_tokens(&odds);
    for (int32_t k = 0; k <= FANOUT_MAX_K; k++) { /* a fallback may propose more than k_max */
        out->verify[k] = verify_seconds(inputs, k);
        out->glue[k] = glue_seconds(inputs, k);
    }
    for (ask.n_proposed = 0; ask.n_proposed <= inputs->k_max; ask.n_proposed++) {
        fanout_estimate(inputs->after_hit, &ask, &odds);
        fanout_hit_by_budget(&odds, inputs->max_budget, out->hit[ask.n_proposed]);
        out->tokens[ask.n_proposed] = gain_tokens(&odds);
    }
}

static void choose_ordinary(const struct gain_inputs *inputs, const struct odds_by_k *odds, struct gain_choice *out)
{
    const double pass = gain_times_seconds(inputs->grow, inputs->n_seqs);
    for (int32_t k = 1; k <= inputs->k_max; k++) {
        const double rate = inputs->n_seqs * gain_ordinary_rate(odds->tokens[k], odds->verify[k], k * pass);
        if (rate > out->ordinary_rate) {
            out->ordinary_rate = rate;
            out->ordinary_k = k;
        }
    }
}

/* The better of two; the first among equals. */
static struct gain_choice better(struct gain_choice a, struct gain_choice b) { return b.rate > a.rate ? b : a; }

struct gain_choice gain_choose(const struct gain_inputs *inputs)
{
    ASSERT(inputs->k_max >= 1 && inputs->k_max <= FANOUT_MAX_K && inputs->n_seqs >= 1);
    ASSERT(inputs->max_budget >= 1 && inputs->max_budget <= FANOUT_MAX_BUDGET);
    ASSERT(inputs->fixed_k >= 0 && inputs->fixed_k <= inputs->k_max && inputs->fixed_budget >= 0);
    ASSERT(inputs->fixed_budget <= inputs->max_budget && inputs->k_fallback >= 0 && inputs->k_fallback <= FANOUT_MAX_K);
    struct gain_choice best = { .budget = 0 };
    struct odds_by_k odds;
    const double plain = verify_seconds(inputs, 0);
    if (plain <= 0 || gain_times_seconds(inputs->grow, 1) <= 0 || gain_times_seconds(inputs->glue, 1) <= 0) {
        return best;
    }
    fill_odds(inputs, &odds);
    const int32_t first_k = inputs->fixed_k > 0 ? inputs->fixed_k : 1, last_k = inputs->fixed_k > 0 ? first_k : inputs->k_max;
    const int32_t first = inputs->fixed_budget > 0 ? inputs->fixed_budget : 1;
    const int32_t last = inputs->fixed_budget > 0 ? first : inputs->max_budget;
    for (int32_t n = first; n <= last; n += n < 8 ? 1 : n / 8) { /* every eighth more, roughly, is a case of its own */
        const double grow = gain_times_seconds(inputs->grow, inputs->n_seqs * n);
        for (int32_t k = first_k; k <= last_k; k++) {
            best = better(best, rate_of(&(struct plan){ inputs, &odds, .k = k, .budget = n, .grow = grow }));
        }
    }
    best.verify_seconds = verify_seconds(inputs, best.served);
    best.draft_seconds = glue_seconds(inputs, best.served) +
                         best.k_next * gain_times_seconds(inputs->grow, inputs->n_seqs * best.budget);
    choose_ordinary(inputs, &odds, &best);
    best.plain_rate = inputs->n_seqs / plain;
    return best;
}
