/* rope: the angles of rotary position embedding, in double. Private to model. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include "model/model.h"

/* Radians per position of each rotated pair, scaled as the config says; divided by factors[i] when
 * factors is not NULL (rope_freqs.weight). */
void rope_frequencies(const struct model_config *config, const float *factors /* [dims / 2] or NULL */,
                      double *frequency /* [dims / 2] */);
/* What cos and sin are multiplied by: 1, or YaRN's attention factor. */
double rope_magnitude(const struct model_config *config);
/* Rows first .. first + n - 1 of the tables, [*, dims / 2]; each value rounded once. */
void rope_fill(const double *frequency, int32_t half, double magnitude, int32_t first, int32_t n,
               float *cos_table, float *sin_table);
/* Llama 3's scaling as the per-pair divisors that GGUF files hold in rope_freqs.weight. */
void rope_llama3_factors(const struct model_config *config, float *factors /* [dims / 2] */);

#endif
