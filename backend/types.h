/* types: blocks of types that are read but not computed with, and of those that are written. Private
 * to backend.
 */
#ifndef BACKEND_TYPES_H
#define BACKEND_TYPES_H

#include "backend/backend.h"

/* types_grid.c: what digits stand for is said there */
extern const uint16_t types_grid_iq2_xxs[256], types_grid_iq2_xs[512], types_grid_iq2_s[1024];
extern const uint16_t types_grid_iq1[2048], types_grid_iq3_xxs[256], types_grid_iq3_s[512];

/* One block of 256 (IQ4_NL, MXFP4: 32) elements to floats. types_iq.c, types_ternary.c */
typedef void (*types_to_f32_fn)(const unsigned char *block, float *out);
void types_iq1_s_to_f32(const unsigned char *block, float *out);
void types_iq1_m_to_f32(const unsigned char *block, float *out);
void types_iq2_xxs_to_f32(const unsigned char *block, float *out);
void types_iq2_xs_to_f32(const unsigned char *block, float *out);
void types_iq2_s_to_f32(const unsigned char *block, float *out);
void types_iq3_xxs_to_f32(const unsigned char *block, float *out);
void types_iq3_s_to_f32(const unsigned char *block, float *out);
void types_iq4_nl_to_f32(const unsigned char *block, float *out);
void types_iq4_xs_to_f32(const unsigned char *block, float *out);
void types_mxfp4_to_f32(const unsigned char *block, float *out);
void types_tq1_0_to_f32(const unsigned char *block, float *out);
void types_tq2_0_to_f32(const unsigned char *block, float *out);

/* One block from floats. types_quantise.c */
typedef void (*types_from_f32_fn)(const float *in, unsigned char *block);
void types_q8_0_from_f32(const float *in, unsigned char *block);
void types_q4_0_from_f32(const float *in, unsigned char *block);
void types_q4_k_from_f32(const float *in, unsigned char *block);
void types_q6_k_from_f32(const float *in, unsigned char *block);

#endif
