/* fanout_learned: from outcomes counted to odds, from odds to the best plan.
 *
 * Counts of one (K, k, rank) are few for long, so each estimate leans on a coarser one as if that were so
 * many outcomes more:
 *
 *     survival of position i at this K  ◄ of position i at any K       ◄ the ask's acceptance
 *     ranks at k, k < K                 ◄ ranks at any k < K           ◄ the law (1 + F)^-r
 *     ranks of row K                    ◄ the first hits with the acceptance, then the law
 *
 * Ranks fall: of two neighbours that were counted the wrong way round both get their mean (pool adjacent
 * violators, Ayer et al. 1955). So slots handed out one by one never stop before a dip, and are the optimum.
 */
#include "draft/fanout.h"

#include <math.h>
#include <string.h>

/* Outcomes that the coarser estimate is worth. */
static const double WORTH_ACCEPTANCE = 16, WORTH_ANY_K = 64, WORTH_LAW = 32, WORTH_ANY_ROW = 64;

/* ---- counting ---- */
static void halve(uint32_t *count, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        count[i] /= 2;
    }
}

void fanout_observe(struct fanout_counts *counts, int32_t n_proposed, int32_t n_accepted, int32_t rank)
{
    ASSERT(n_proposed >= 0 && n_proposed <= FANOUT_MAX_K && n_accepted >= 0 && n_accepted <= n_proposed);
    const int32_t at = rank >= 0 && rank < FANOUT_MAX_RANK ? rank : FANOUT_MAX_RANK;
    counts->accepted[n_proposed][n_accepted] += FANOUT_UNIT;
    if (n_accepted == n_proposed) {
        counts->bonus_rank[at] += FANOUT_UNIT;
    } else {
        counts->rank[n_accepted][at] += FANOUT_UNIT;
    }
    counts->n_outcomes += counts->n_outcomes < UINT32_MAX;
    if (counts->n_outcomes % FANOUT_HALVE_EVERY == 0) {
        halve(counts->accepted[0], sizeof counts->accepted / sizeof(uint32_t));
        halve(counts->rank[0], sizeof counts->rank / sizeof(uint32_t));
        halve(counts->bonus_rank, sizeof counts->bonus_rank / sizeof(uint32_t));
    }
}

/* ---- how many are accepted ---- */
/* Rounds of K in which position i was judged, and in which it was accepted. */
struct position_counts { double judged, accepted; };

static struct position_counts count_position(const struct fanout_counts *counts, int32_t n_proposed, int32_t i)
{
    struct position_counts found = { 0, 0 };
    for (int32_t k = i; i < n_proposed && k <= n_proposed; k++) {
        const double n = counts->accepted[n_proposed][k] * (1.0 / FANOUT_UNIT);
        found.judged += n;
        found.accepted += k > i ? n : 0;
    }
    return found;
}

static double survival(const struct fanout_counts *counts, const struct fanout_ask *ask, int32_t i)
{
    struct position_counts any = { 0, 0 };
    for (int32_t n_proposed = i + 1; n_proposed <= FANOUT_MAX_K; n_proposed++) {
        const struct position_counts found = count_position(counts, n_proposed, i);
        any.judged += found.judged;
        any.accepted += found.accepted;
    }
    const double acceptance = ask->acceptance > 0 ? fmin((double)ask->acceptance, 1) : 0;
    const double at_any = (any.accepted + WORTH_ACCEPTANCE * acceptance) / (any.judged + WORTH_ACCEPTANCE);
    const struct position_counts own = count_position(counts, ask->n_proposed, i);
    return (own.accepted + WORTH_ANY_K * at_any) / (own.judged + WORTH_ANY_K);
}

/* ---- at which rank ---- */
/* P(rank) of the law: with F candidates (1 + F)^-r are missed, so that none misses all. */
static void fill_law(double tail, double *law /* [FANOUT_MAX_RANK] */)
{
    double missed = 1;
    for (int32_t rank = 0; rank < FANOUT_MAX_RANK; rank++) {
        const double next = tail == 1 ? 1.0 / (2 + rank) : pow(2 + rank, -tail);
        law[rank] = missed - next;
        missed = next;
    }
}

/* out = counted, and `base` as if it were `worth` outcomes more; out may be base. */
static void lean(const uint32_t *counted /* [FANOUT_MAX_RANK + 1] */, const double *base, double worth, double *out)
{
    double total = worth;
    for (int32_t rank = 0; rank <= FANOUT_MAX_RANK; rank++) {
        total += counted[rank] * (1.0 / FANOUT_UNIT);
    }
    for (int32_t rank = 0; rank < FANOUT_MAX_RANK; rank++) {
        out[rank] = (counted[rank] * (1.0 / FANOUT_UNIT) + worth * base[rank]) / total;
    }
}

static void make_falling(const double *share, float *out /* [FANOUT_MAX_RANK] */)
{
    struct { double sum; int32_t n; } block[FANOUT_MAX_RANK];
    int32_t n_blocks = 0, at = 0;
    for (int32_t rank = 0; rank < FANOUT_MAX_RANK; rank++) {
        block[n_blocks].sum = share[rank];
        block[n_blocks++].n = 1;
        while (n_blocks > 1 && block[n_blocks - 1].sum * block[n_blocks - 2].n >
                                   block[n_blocks - 2].sum * block[n_blocks - 1].n) {
            block[n_blocks - 2].sum += block[n_blocks - 1].sum;
            block[n_blocks - 2].n += block[n_blocks - 1].n;
            n_blocks--;
        }
    }
    for (int32_t i = 0; i < n_blocks; i++) {
        for (int32_t j = 0; j < block[i].n; j++) {
            out[at++] = (float)(block[i].sum / block[i].n);
        }
    }
}

static void estimate_ranks(const struct fanout_counts *counts, const struct fanout_ask *ask, struct fanout_odds *out)
{
    uint32_t any_row[FANOUT_MAX_RANK + 1] = { 0 };
    double law[FANOUT_MAX_RANK], at_any[FANOUT_MAX_RANK], at_row[FANOUT_MAX_RANK];
    for (int32_t k = 0; k < FANOUT_MAX_K; k++) {
        for (int32_t rank = 0; rank <= FANOUT_MAX_RANK; rank++) {
            any_row[rank] += counts->rank[k][rank];
        }
    }
    fill_law(ask->tail > 0 ? (double)ask->tail : 0, law);
    lean(any_row, law, WORTH_LAW, at_any);
    for (int32_t k = 0; k < ask->n_proposed; k++) {
        lean(counts->rank[k], at_any, WORTH_ANY_ROW, at_row);
        make_falling(at_row, out->hit[k]);
    }
    const double first = ask->acceptance > 0 ? fmin((double)ask->acceptance, 1) : 0;
    double bonus[FANOUT_MAX_RANK] = { first };
    for (int32_t rank = 1; rank < FANOUT_MAX_RANK; rank++) {
        bonus[rank] = (1 - first) * law[rank - 1];
    }
    lean(counts->bonus_rank, bonus, WORTH_LAW, bonus);
    make_falling(bonus, out->hit[ask->n_proposed]);
}

void fanout_estimate(const struct fanout_counts *counts, const struct fanout_ask *ask, struct fanout_odds *out)
{
    ASSERT(ask->n_proposed >= 0 && ask->n_proposed <= FANOUT_MAX_K);
    double arrived = 1;
    out->n_rows = ask->n_proposed + 1;
    for (int32_t k = 0; k < ask->n_proposed; k++) {
        const double goes_on = survival(counts, ask, k);
        out->reach[k] = arrived * (1 - goes_on);
        arrived *= goes_on;
    }
    out->reach[ask->n_proposed] = arrived;
    estimate_ranks(counts, ask, out);
}

/* ---- the best plan ---- */
/* The row whose next candidate hits most often, the lowest k among equals; -1 when all rows are full. */
static int32_t best_row(const struct fanout_odds *odds, const struct fanout_plan *plan)
{
    int32_t best = -1;
    double most = -1;
    for (int32_t k = 0; k < odds->n_rows; k++) {
        if (plan->count[k] < FANOUT_MAX_RANK) {
            const double gain = odds->reach[k] * (double)odds->hit[k][plan->count[k]];
            best = gain > most ? k : best;
            most = gain > most ? gain : most;
        }
    }
    return best;
}

struct fanout_plan fanout_best(const struct fanout_odds *odds, int32_t budget)
{
    struct fanout_plan plan = { .n_rows = odds->n_rows };
    for (int32_t n = 0; n < budget; n++) {
        const int32_t k = best_row(odds, &plan);
        if (k < 0) {
            break;
        }
        plan.count[k]++;
    }
    return plan;
}

void fanout_hit_by_budget(const struct fanout_odds *odds, int32_t max_budget, float *hit)
{
    struct fanout_plan plan = { .n_rows = odds->n_rows };
    double sum = 0;
    hit[0] = 0;
    for (int32_t n = 1; n <= max_budget; n++) {
        const int32_t k = best_row(odds, &plan);
        if (k >= 0) {
            sum += odds->reach[k] * (double)odds->hit[k][plan.count[k]++];
        }
        hit[n] = (float)sum;
    }
}

double fanout_miss(const struct fanout_odds *odds, const struct fanout_plan *plan)
{
    double hit = 0;
    ASSERT(plan->n_rows == odds->n_rows);
    for (int32_t k = 0; k < plan->n_rows; k++) {
        for (int32_t rank = 0; rank < plan->count[k] && rank < FANOUT_MAX_RANK; rank++) {
            hit += odds->reach[k] * (double)odds->hit[k][rank];
        }
    }
    return 1 - hit;
}
