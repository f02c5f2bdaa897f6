/* linear: one tile of 32 outputs, all rows of up to eight panels. linear_scalar.c is the definition. */
#ifndef BACKEND_CPU_LINEAR_H
#define BACKEND_CPU_LINEAR_H

#include "backend/cpu/cpu.h"

void linear_tile_scalar(const struct linear_job *job);
void linear_tile_fma(const struct linear_job *job);
void linear_tile_avx2(const struct linear_job *job);
void linear_tile_avx512(const struct linear_job *job);

/* weight.c: bytes of one tile */
size_t weight_tile_bytes(enum tensor_type type, int32_t n_in);

enum {
    TILE_SCALE_BYTES = TILE_OUTPUTS * 2, /* the scales that begin a quantised block */
    TILE_GROUP_BYTES = TILE_OUTPUTS * 4  /* codes of four inputs (Q4_0: of eight) */
};

/* One block of 32 inputs of a quantised tile: scales and codes. */
static inline size_t tile_block_bytes(enum tensor_type type)
{
    return TILE_SCALE_BYTES + (size_t)(type == TENSOR_Q4_0 ? 4 : 8) * TILE_GROUP_BYTES;
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
