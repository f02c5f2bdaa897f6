/* linear: one tile of 16 outputs, all rows of up to eight panels. linear_scalar.c is the definition. */
#ifndef BACKEND_CPU_LINEAR_H
#define BACKEND_CPU_LINEAR_H

#include "backend/cpu/cpu.h"

void linear_tile_scalar(const struct linear_job *job);
void linear_tile_fma(const struct linear_job *job);
void linear_tile_avx2(const struct linear_job *job);
void linear_tile_avx512(const struct linear_job *job);

/* weight.c: bytes of one tile, and of one segment of n_blocks blocks in a quantised tile */
size_t weight_tile_bytes(enum tensor_type type, int32_t n_in);

static inline size_t tile_scales_bytes(int32_t n_blocks)
{
    return ((size_t)n_blocks * TILE_OUTPUTS * 2 + 63) & ~(size_t)63;
}
static inline size_t tile_codes_bytes(enum tensor_type type) /* of one block */
{
    return (size_t)TILE_OUTPUTS * (type == TENSOR_Q4_0 ? QUANT_BLOCK / 2 : QUANT_BLOCK);
}
static inline size_t tile_segment_bytes(enum tensor_type type, int32_t n_blocks)
{
    return tile_scales_bytes(n_blocks) + (size_t)n_blocks * tile_codes_bytes(type);
}

/* Walks segments in order and tells where groups end. Usage: for each s, linear_group_ends(&g, s, n). */
static inline int linear_group_ends(int32_t *group, int32_t segment, int32_t n_segments)
{
    while (tile_group_begin(*group + 1, n_segments) <= segment) {
        ++*group;
    }
    return tile_group_begin(*group + 1, n_segments) == segment + 1;
}

#endif
