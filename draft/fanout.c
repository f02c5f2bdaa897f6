/* fanout: kinds by name, the closed forms, and plans of a whole number of candidates a row. What is
 * learned: fanout_learned.c. */
#include "draft/fanout.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- kinds by name ---- */
static enum status parse_list(const char *text, struct fanout_options *out)
{
    const char *at = text;
    int32_t total = 0;
    struct fanout_options read = { .kind = FANOUT_LIST, .budget = out->budget };
    for (;; at++) {
        char *end;
        errno = 0;
        const long count = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
        if (count < 0 || errno != 0 || count > FANOUT_MAX_BUDGET || (*end != ',' && *end != '\0')) {
            return status_fail(STATUS_INVALID, "a fan-out's list is numbers from 0 to %d apart by commas, found "
                               "'list:%.80s'", FANOUT_MAX_BUDGET, text);
        }
        if (read.n_list == FANOUT_MAX_K + 1) {
            return status_fail(STATUS_INVALID, "a fan-out's list has at most %d numbers, found more in 'list:%.80s'",
                               FANOUT_MAX_K + 1, text);
        }
        read.list[read.n_list++] = (int32_t)count;
        total += (int32_t)count;
        at = end;
        if (*at == '\0') {
            break;
        }
    }
    if (total < 1 || total > FANOUT_MAX_BUDGET) {
        return status_fail(STATUS_INVALID, "a fan-out's list adds up to 1 to %d candidates, 'list:%.80s' to %d",
                           FANOUT_MAX_BUDGET, text, total);
    }
    *out = read;
    return STATUS_OK;
}

enum status fanout_parse(const char *text, struct fanout_options *out)
{
    static const struct { const char *name; enum fanout_kind kind; } kinds[] = {
        { "geometric", FANOUT_GEOMETRIC }, { "learned", FANOUT_LEARNED }, { "uniform", FANOUT_UNIFORM },
    };
    static const char list[] = "list:";
    if (strncmp(text, list, sizeof list - 1) == 0) {
        return parse_list(text + sizeof list - 1, out);
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(text, kinds[i].name) == 0) {
            *out = (struct fanout_options){ .kind = kinds[i].kind, .budget = out->budget };
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_INVALID, "a fan-out is geometric, learned, uniform or list:N0,N1,.., found '%.80s'",
                       text);
}

/* ---- the closed forms ---- */
/* Near 1 row K takes everything, and at 1 the form divides by 0. */
static double bounded_acceptance(double acceptance)
{
    return !(acceptance > 0) ? 0 : acceptance < 0.999 ? acceptance : 0.999;
}

/* Of the published law, F^-r in every row: F_k / F_0 is beta^k, and for row K, where (1 - a) of the prior is
 * missing, times (1 - a)^(-1 / (1 + r)). */
static double geometric_share(double acceptance, double tail, int32_t k, int32_t n_proposed)
{
    const double share = pow(acceptance, k / (1 + tail));
    return k < n_proposed ? share : share * pow(1 - acceptance, -1 / (1 + tail));
}

static double geometric_shares(double acceptance, double tail, int32_t n_proposed)
{
    double sum = 0;
    for (int32_t k = 0; k <= n_proposed; k++) {
        sum += geometric_share(acceptance, tail, k, n_proposed);
    }
    return sum;
}

double fanout_geometric_miss(double acceptance, double tail, int32_t k, double budget)
{
    const double a = bounded_acceptance(acceptance);
    return (1 - a) * pow(geometric_shares(a, tail, k), 1 + tail) * pow(budget, -tail);
}

double fanout_uniform_miss(double tail, int32_t k, double budget) { return pow((k + 1) / budget, tail); }

/* ---- whole numbers ---- */
/* Whole numbers next to share[k] * budget that add up to it: what rounding down leaves goes to the largest
 * fractions, the lowest k among equals (Hamilton). */
static struct fanout_plan apportion(const double *share, int32_t n_rows, int32_t budget)
{
    struct fanout_plan plan = { .n_rows = n_rows };
    double fraction[FANOUT_MAX_K + 1];
    int32_t left = budget;
    for (int32_t k = 0; k < n_rows; k++) {
        const double wanted = share[k] * budget;
        plan.count[k] = (int32_t)wanted < left ? (int32_t)wanted : left;
        fraction[k] = wanted - plan.count[k];
        left -= plan.count[k];
    }
    for (; left > 0; left--) {
        int32_t best = 0;
        for (int32_t k = 1; k < n_rows; k++) {
            best = fraction[k] > fraction[best] ? k : best;
        }
        plan.count[best]++;
        fraction[best] -= 1;
    }
    return plan;
}

/* The closed form, but for row K. There nothing is refused: the first candidate, what the draft itself would say
 * next, is right with the acceptance, and only the rest, a^K (1 - a) as in other rows, falls with the tail. So
 * one candidate is set aside for it, and the others are shared as if row K were like the rest: F_k = F_0
 * a^(k / (1 + r)). */
static struct fanout_plan geometric_plan(const struct fanout_ask *ask)
{
    const double a = bounded_acceptance((double)ask->acceptance);
    const double tail = ask->tail > 0 ? (double)ask->tail : 0;
    const int32_t last = ask->n_proposed;
    double share[FANOUT_MAX_K + 1], sum = 0;
    for (int32_t k = 0; k <= last; k++) {
        share[k] = pow(a, k / (1 + tail));
        sum += share[k];
    }
    for (int32_t k = 0; k <= last; k++) {
        share[k] /= sum;
    }
    const int32_t n_aside = a > 0;
    struct fanout_plan plan = apportion(share, last + 1, ask->budget - n_aside);
    plan.count[last] += n_aside;
    return plan;
}

static struct fanout_plan uniform_plan(const struct fanout_ask *ask)
{
    double share[FANOUT_MAX_K + 1];
    for (int32_t k = 0; k <= ask->n_proposed; k++) {
        share[k] = 1.0 / (ask->n_proposed + 1);
    }
    return apportion(share, ask->n_proposed + 1, ask->budget);
}

static struct fanout_plan list_plan(const struct fanout_options *options, const struct fanout_ask *ask)
{
    struct fanout_plan plan = { .n_rows = ask->n_proposed + 1 };
    int32_t left = ask->budget;
    for (int32_t k = 0; k < plan.n_rows; k++) {
        const int32_t wanted = options->list[k < options->n_list ? k : options->n_list - 1];
        plan.count[k] = wanted < left ? wanted : left;
        left -= plan.count[k];
    }
    return plan;
}

static struct fanout_plan learned_plan(const struct fanout_counts *counts, const struct fanout_ask *ask)
{
    struct fanout_odds odds;
    fanout_estimate(counts, ask, &odds);
    return fanout_best(&odds, ask->budget);
}

struct fanout_plan fanout_choose(const struct fanout_options *options, const struct fanout_counts *counts,
                                 const struct fanout_ask *ask)
{
    ASSERT(ask->n_proposed >= 0 && ask->n_proposed <= FANOUT_MAX_K);
    ASSERT(ask->budget >= 1 && ask->budget <= FANOUT_MAX_BUDGET);
    if (ask->n_proposed == 0) {
        return (struct fanout_plan){ .n_rows = 1, .count = { ask->budget } };
    }
    switch (options->kind) {
    case FANOUT_UNIFORM:
        return uniform_plan(ask);
    case FANOUT_LIST:
        return list_plan(options, ask);
    case FANOUT_LEARNED:
        return counts->n_outcomes >= FANOUT_LEARN_FROM ? learned_plan(counts, ask) : geometric_plan(ask);
    default:
        return geometric_plan(ask);
    }
}
