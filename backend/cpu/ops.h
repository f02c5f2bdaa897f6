/* ops: how operations are cut. An operation is a number of units (rows, columns of rows, heads of
 * rows), counted in the order that keeps neighbours' inputs in the cache; a chunk is a run of units.
 * How units are grouped depends on the number of workers; what a unit computes does not.
 */
#ifndef BACKEND_CPU_OPS_H
#define BACKEND_CPU_OPS_H

#include "backend/cpu/operations.h"
#include "backend/cpu/rows.h"

enum {
    CHUNKS_PER_WORKER = 8,
    COLUMNS_PER_UNIT = 1024 /* elementwise operations; a multiple of QUANT_BLOCK */
};

/* Every argument struct begins with this. */
struct units {
    int64_t n, per_chunk;
    const struct cpu_kernels *kernels;
};

struct unit_range { int64_t begin, end; };

static inline struct unit_range units_of(const struct units *units, uint32_t chunk)
{
    const int64_t begin = (int64_t)chunk * units->per_chunk;
    const int64_t end = begin + units->per_chunk;
    return (struct unit_range){ begin, end < units->n ? end : units->n };
}

static inline struct units units_make(const struct lane *lane, int64_t n, int64_t chunks_per_worker)
{
    const int64_t n_chunks = lane_n_workers(lane) * chunks_per_worker;
    return (struct units){ .n = n, .per_chunk = n > n_chunks ? (n + n_chunks - 1) / n_chunks : 1,
                           .kernels = lane_backend(lane)->kernels };
}

static inline void units_submit(struct lane *lane, lane_fn fn, const struct units *units,
                                size_t args_bytes)
{
    if (units->n > 0) {
        cpu_lane_submit(lane, fn, units, args_bytes,
                        (uint32_t)((units->n + units->per_chunk - 1) / units->per_chunk));
    }
}
#define OPS_SUBMIT(lane, fn, args)                                                         \
    do {                                                                                   \
        _Static_assert(sizeof(args) <= LANE_ARGS_BYTES, "arguments must fit a ring slot"); \
        units_submit(lane, fn, &(args).units, sizeof(args));                               \
    } while (0)

static inline void *scratch_of(const struct lane_worker *worker, size_t bytes)
{
    ASSERT(bytes <= worker->scratch_bytes);
    return worker->scratch;
}

/* x, the columns of row `row`, into the panels of an act that holds n_rows. The panel is entered at
 * the first column's block, so x need not be a whole row. */
static inline void quantize_columns(const struct cpu_kernels *kernels, const float *x,
                                    const struct act *act, int32_t n_rows, int32_t row,
                                    struct unit_range columns)
{
    const int32_t m = tile_panel_rows(n_rows, row / PANEL_ROWS);
    const int32_t n_blocks = (int32_t)((columns.end - columns.begin) / QUANT_BLOCK);
    unsigned char *block = tile_panel(act, row / PANEL_ROWS) +
                           (size_t)(columns.begin / QUANT_BLOCK) * (size_t)m * ACT_BLOCK_BYTES;
    kernels->quantize_row(x, 0, n_blocks, block, m, row % PANEL_ROWS);
}

/* Rows cut into column ranges: unit → row and columns. */
static inline int64_t pieces_of(int32_t n_cols)
{
    return (n_cols + COLUMNS_PER_UNIT - 1) / COLUMNS_PER_UNIT;
}

static inline struct unit_range piece_columns(int64_t unit, int32_t n_cols)
{
    const int64_t begin = unit % pieces_of(n_cols) * COLUMNS_PER_UNIT;
    const int64_t end = begin + COLUMNS_PER_UNIT;
    return (struct unit_range){ begin, end < n_cols ? end : n_cols };
}

#endif
