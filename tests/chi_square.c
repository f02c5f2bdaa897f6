/* chi_square: see the header. */
#include "tests/chi_square.h"

#include <math.h>

double chi_square_sigmas(const int64_t *seen, const double *prob, int n_cells,
                         int64_t n_draws)
{
    double statistic = 0, rare_expected = 0, rare_seen = 0;
    int n_used = 0;
    for (int i = 0; i < n_cells; i++) {
        const double expected = prob[i] * (double)n_draws;
        if (prob[i] == 0 && seen[i] > 0) {
            return INFINITY;
        }
        if (expected < 5) {
            rare_expected += expected;
            rare_seen += (double)seen[i];
            continue;
        }
        statistic += ((double)seen[i] - expected) * ((double)seen[i] - expected) / expected;
        n_used++;
    }
    if (rare_expected >= 5) {
        statistic += (rare_seen - rare_expected) * (rare_seen - rare_expected) / rare_expected;
        n_used++;
    }
    const double spread = 2.0 / (9.0 * (n_used - 1));
    return n_used < 2 ? 0 : (cbrt(statistic / (n_used - 1)) - (1 - spread)) / sqrt(spread);
}
