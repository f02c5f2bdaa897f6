/* chi_square: how far counts are from what a distribution promises. */
#ifndef TESTS_CHI_SQUARE_H
#define TESTS_CHI_SQUARE_H

#include <stdint.h>

/* Pearson's statistic as a normal deviate (Wilson and Hilferty 1931); infinite when what cannot be
 * was seen. Cells expected less than 5 times are counted together. */
double chi_square_sigmas(const int64_t *seen, const double *prob, int n_cells, int64_t n_draws);

#endif
