/* tile: how weights and activations lie in memory on a CPU. Private to backend/cpu.
 *
 * Weights: tiles of 32 output rows (two AVX-512 registers: every activation that is broadcast serves
 * both), tile after tile. A float tile is [n_in][32] elements. A quantised tile is its segments of 256
 * inputs, ascending; a segment is, for types with blocks of 256, a header, and 8 blocks of 32 inputs:
 *
 *     header   [32] halves d | [32] halves dmin (types with minimums)
 *     block    scales | planes
 *     scales   blocks of 32 inputs:  [32] halves d | [32] halves dmin (types with minimums)
 *              Q4_K, Q5_K:           [32] scales | [32] minimums
 *              Q3_K, Q6_K:           [32] scales of inputs 0..15 | [32] of 16..31 (signed)
 *              Q2_K:                 the same, a scale's low nibble and a minimum's high one
 *     planes   the codes, unsigned (the dot-product instructions want that on one side): their low 8, 4
 *              or 2 bits, and the 0, 1 or 2 bits above those (5 = 4 + 1, 6 = 4 + 2, 3 = 2 + 1)
 *
 * A plane of n bits is n groups of 128 bytes, 4 bytes of each of the 32 outputs; byte k of a group
 * holds the fields of inputs 4 q + k, where quads q are, from the lowest bits on,
 *
 *     8 bits: q = group     4 bits: q = group, 4 + group      (as Q4_0 files have them)
 *     2 bits: q = 2 group, 2 group + 1, 4 + 2 group, 5 + 2 group        1 bit: q = 0..7
 *
 * so that a shift and a mask unpack a quad, and quads 0..3 are inputs 0..15. A group of the high plane
 * comes before the groups of the low plane that hold the same quads:
 *
 *     4 + 2 bits: high 0, low 0, low 1, high 1, low 2, low 3       4 + 1, 2 + 1 bits: high 0, low 0, ..
 *
 * A pass reads one strictly ascending stream of cache lines, which is what hardware prefetchers follow
 * (scales apart from codes cost a third of the bandwidth, a plane after the other a sixth:
 * docs/SPEED.md). Outputs past n_out in the last tile are zero bytes.
 *
 * Activations: panels of up to 8 rows. With M rows in a panel, block b of 32 columns is
 *
 *     [M][32] int8 codes | [M] float scales | [M] int32 sums of the codes | [M] sums of the first 16
 *
 * and panel p begins at p * 8 * n_blocks * ACT_BLOCK_BYTES; M = min(8, n_rows - 8 p).
 */
#ifndef BACKEND_CPU_TILE_H
#define BACKEND_CPU_TILE_H

#include "backend/backend.h"

enum {
    ACT_BLOCK_BYTES = QUANT_BLOCK + 4 + 4 + 4,
    SEGMENT_BLOCKS = SEGMENT_ELEMS / QUANT_BLOCK
};

static inline int32_t tile_panel_rows(int32_t n_rows, int32_t panel)
{
    const int32_t left = n_rows - panel * PANEL_ROWS;
    return left < PANEL_ROWS ? left : PANEL_ROWS;
}

/* First byte of panel `panel` of an act with n_cols columns. */
static inline unsigned char *tile_panel(const struct act *act, int32_t panel)
{
    return act->q8 + (size_t)panel * PANEL_ROWS * (size_t)(act->n_cols / QUANT_BLOCK) * ACT_BLOCK_BYTES;
}

/* Where row r of an M-row panel keeps its codes, scale, sum and sum of the first half of block b. */
static inline int8_t *tile_act_codes(unsigned char *panel, int32_t m, int32_t b, int32_t r)
{
    return (int8_t *)(panel + (size_t)b * (size_t)m * ACT_BLOCK_BYTES + (size_t)r * QUANT_BLOCK);
}
static inline float *tile_act_scale(unsigned char *panel, int32_t m, int32_t b, int32_t r)
{
    return (float *)(void *)(panel + (size_t)b * (size_t)m * ACT_BLOCK_BYTES + (size_t)m * QUANT_BLOCK) + r;
}
static inline int32_t *tile_act_sum(unsigned char *panel, int32_t m, int32_t b, int32_t r)
{
    return (int32_t *)(void *)tile_act_scale(panel, m, b, m) + r;
}
static inline int32_t *tile_act_half(unsigned char *panel, int32_t m, int32_t b, int32_t r)
{
    return tile_act_sum(panel, m, b, m) + r;
}

/* First segment of group g of n segments (specs: groups hold floor(g n / 8) .. floor((g+1) n / 8) - 1). */
static inline int32_t tile_group_begin(int32_t g, int32_t n_segments)
{
    return (int32_t)((int64_t)g * n_segments / SUM_GROUPS);
}

#endif
