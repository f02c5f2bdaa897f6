/* linear: one tile of 32 outputs, all rows of up to eight panels. linear_scalar.c is the definition. */
#ifndef BACKEND_CPU_LINEAR_H
#define BACKEND_CPU_LINEAR_H

#include "backend/cpu/cpu.h"
#include "backend/quant_block.h"

void linear_tile_scalar(const struct linear_job *job);
void linear_tile_fma(const struct linear_job *job);
void linear_tile_avx2(const struct linear_job *job);
void linear_tile_avx512(const struct linear_job *job);

/* weight.c: bytes of one tile */
size_t weight_tile_bytes(enum tensor_type type, int32_t n_in);

/* ---- quantised tiles: tile.h draws them ---- */

enum {
    TILE_GROUP_BYTES = TILE_OUTPUTS * 4, /* 32 bits of each output */
    TILE_HALVES_BYTES = TILE_OUTPUTS * 2 /* a half of each output */
};

static inline int32_t tile_halves_bytes(const struct quant_layout *layout)
{
    return layout->min == QUANT_MIN_NONE ? TILE_HALVES_BYTES : 2 * TILE_HALVES_BYTES;
}
/* Of the header that begins a segment. */
static inline int32_t tile_header_bytes(const struct quant_layout *layout)
{
    return layout->elems == QUANT_BLOCK ? 0 : tile_halves_bytes(layout);
}
/* Of what precedes the codes of a block of 32 inputs. */
static inline int32_t tile_scale_bytes(const struct quant_layout *layout)
{
    return layout->elems == QUANT_BLOCK ? tile_halves_bytes(layout) : 2 * TILE_OUTPUTS;
}
static inline int32_t tile_block_bytes(const struct quant_layout *layout)
{
    return tile_scale_bytes(layout) + (layout->low_bits + layout->high_bits) * TILE_GROUP_BYTES;
}
/* Where a group of the low, of the high plane lies among the groups of a block. */
static inline int32_t tile_low_group(int32_t low_bits, int32_t high_bits, int32_t group)
{
    return high_bits == 0 ? group : group + group / (low_bits / high_bits) + 1;
}
static inline int32_t tile_high_group(int32_t low_bits, int32_t high_bits, int32_t group)
{
    return group * (low_bits / high_bits + 1);
}
/* Runs of one scale in a block of 32 inputs: 1 or 2. */
static inline int32_t tile_block_parts(const struct quant_layout *layout)
{
    return QUANT_BLOCK / layout->part_elems;
}

/* tile_block.c: one output's file block into a segment and back; `b`: the block of 32 inputs where it
 * begins, 0 for blocks of 256. */
void tile_block_put(const struct quant_layout *layout, const struct quant_block *from, int32_t b,
                    int32_t lane, unsigned char *segment);
void tile_block_get(const struct quant_layout *layout, const unsigned char *segment, int32_t b,
                    int32_t lane, struct quant_block *to);

/* Walks a job's segments in order and tells where groups end:
 * for (s = job->first_segment; s < n; s++) linear_group_ends(job, &group, s, n), n = linear_end_segment(job). */
static inline int32_t linear_end_segment(const struct linear_job *job)
{
    return job->end_segment > 0 ? job->end_segment : (job->n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS;
}
static inline int linear_group_ends(const struct linear_job *job, int32_t *group, int32_t segment,
                                    int32_t n_segments)
{
    if (job->end_segment > 0) {
        return segment + 1 == job->end_segment;
    }
    while (tile_group_begin(*group + 1, n_segments) <= segment) {
        ++*group;
    }
    return tile_group_begin(*group + 1, n_segments) == segment + 1;
}
/* A quantised job's first segment. */
static inline const unsigned char *linear_first_segment(const struct linear_job *job)
{
    return job->tile + (size_t)job->first_segment * weight_tile_bytes(job->type, SEGMENT_ELEMS);
}

#endif
