/* plan: all cells of a subject in an order of which any beginning is the best there is: each next cell
 * meets the most pairs of values that no cell before it has met. */
#include <string.h>

#include "base/base.h"
#include "tests/equivalence/equivalence.h"

const char *const DRAFT_NAMES[N_DRAFTS] = { "none", "ngram", "suffix", "layerskip", "model", "model+suffix",
                                             "ahead", "ahead-half", "ahead-miss", "remote" };
const char *const K_NAMES[N_KS] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "auto", "mixed" };
const int32_t BATCHES[N_BATCHES] = { 1, 2, 4, 8, 16 }, PAGES[N_PAGES] = { 16, 64 };

enum { N_FACTORS = 5, MAX_VALUES = 11 };
static const int32_t N_VALUES[N_FACTORS] = { N_DRAFTS, N_KS, N_BATCHES, N_PAGES, N_POOLS };

/* Pairs met: [factor][its value][other factor][its value], factor < other. */
struct pairs { bool met[N_FACTORS][MAX_VALUES][N_FACTORS][MAX_VALUES]; int32_t n_left; };

static void values_of(const struct cell *cell, int32_t values[N_FACTORS])
{
    const int32_t all[N_FACTORS] = { cell->draft, cell->k, cell->batch, cell->page, cell->pool };
    memcpy(values, all, sizeof all);
}

static int32_t count_new(const struct pairs *pairs, const struct cell *cell)
{
    int32_t values[N_FACTORS], n = 0;
    values_of(cell, values);
    for (int32_t a = 0; a < N_FACTORS; a++) {
        for (int32_t b = a + 1; b < N_FACTORS; b++) {
            n += !pairs->met[a][values[a]][b][values[b]];
        }
    }
    return n;
}

static void meet(struct pairs *pairs, const struct cell *cell)
{
    int32_t values[N_FACTORS];
    pairs->n_left -= count_new(pairs, cell);
    values_of(cell, values);
    for (int32_t a = 0; a < N_FACTORS; a++) {
        for (int32_t b = a + 1; b < N_FACTORS; b++) {
            pairs->met[a][values[a]][b][values[b]] = true;
        }
    }
}

static void swap(struct cell *a, struct cell *b)
{
    const struct cell held = *a;
    *a = *b;
    *b = held;
}

static void fill_shuffled(struct plan *plan, uint64_t seed)
{
    plan->n_cells = MAX_CELLS;
    for (int32_t i = 0; i < MAX_CELLS; i++) {
        int32_t rest = i, values[N_FACTORS];
        for (int32_t f = 0; f < N_FACTORS; f++) {
            values[f] = rest % N_VALUES[f];
            rest /= N_VALUES[f];
        }
        plan->cells[i] = (struct cell){ values[0], values[1], values[2], values[3], values[4] };
        swap(&plan->cells[i], &plan->cells[rng_mix64(seed + (uint64_t)i) % (uint64_t)(i + 1)]);
    }
}

void plan_make(struct plan *plan, uint64_t seed)
{
    struct pairs pairs = { .n_left = 0 };
    for (int32_t a = 0; a < N_FACTORS; a++) {
        for (int32_t b = a + 1; b < N_FACTORS; b++) {
            pairs.n_left += N_VALUES[a] * N_VALUES[b];
        }
    }
    fill_shuffled(plan, seed);
    for (plan->n_covering = 0; pairs.n_left > 0; plan->n_covering++) {
        int32_t best = plan->n_covering, most = 0;
        for (int32_t i = plan->n_covering; i < plan->n_cells; i++) {
            const int32_t n = count_new(&pairs, &plan->cells[i]);
            if (n > most) {
                most = n;
                best = i;
            }
        }
        swap(&plan->cells[plan->n_covering], &plan->cells[best]);
        meet(&pairs, &plan->cells[plan->n_covering]);
    }
}
