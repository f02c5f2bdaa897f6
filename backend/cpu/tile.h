/* tile: how weights and activations lie in memory on a CPU. Private to backend/cpu.
 *
 * Weights: tiles of 32 output rows (two AVX-512 registers: every activation that is broadcast serves
 * both), tile after tile. A quantised tile is its blocks of 32 inputs in ascending order, each
 *
 *     [32] f16 scales | [codes of 32 outputs x 32 inputs]
 *
 *   Q8_0 codes: 8 groups of 128 bytes; group i = 32 outputs x inputs 4i..4i+3, each byte the file's
 *        code + 128 (unsigned: what the dot-product instructions want on one side)
 *   Q4_0 codes: 4 groups of 128 bytes; group i = 32 outputs x file bytes 4i..4i+3, so the low nibbles
 *        are inputs 4i..4i+3 and the high ones inputs 16+4i..16+4i+3, code + 8
 *
 * so that a pass reads one strictly ascending stream of cache lines, which is what hardware
 * prefetchers follow (scales apart from codes cost a third of the bandwidth: docs/SPEED.md). A float
 * tile is [n_in][32] elements. Outputs past n_out in the last tile are zero weights.
 *
 * Activations: panels of up to 8 rows. With M rows in a panel, block b of 32 columns is
 *
 *     [M][32] int8 codes | [M] float scales | [M] int32 sums of the codes
 *
 * and panel p begins at p * 8 * n_blocks * ACT_BLOCK_BYTES; M = min(8, n_rows - 8 p).
 */
#ifndef BACKEND_CPU_TILE_H
#define BACKEND_CPU_TILE_H

#include "backend/backend.h"

enum {
    ACT_BLOCK_BYTES = QUANT_BLOCK + 4 + 4,
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

/* Where row r of an M-row panel keeps its codes, scale and sum of block b. */
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

/* First segment of group g of n segments (specs: groups hold floor(g n / 8) .. floor((g+1) n / 8) - 1). */
static inline int32_t tile_group_begin(int32_t g, int32_t n_segments)
{
    return (int32_t)((int64_t)g * n_segments / SUM_GROUPS);
}

#endif
