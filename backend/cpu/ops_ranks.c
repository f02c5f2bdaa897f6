/* ops_ranks: what brings together what several ranks hold, as operations of a lane: they wait their turn
 * there like any other, so a pass stays one submission. An exchange is one chunk: whichever worker takes
 * it talks to the other ranks while the rest wait.
 */
#include <string.h>

#include "backend/cpu/operations.h"
#include "backend/cpu/ops.h"

static void exchange_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct op_exchange *op = arguments;
    struct comm_parts parts = op->parts;
    (void)chunk;
    (void)worker;
    if (!parts.own) {
        parts.own = parts.all + parts.unit_floats * (size_t)parts.first[op->comm->rank];
    }
    comm_gather(op->comm, &parts);
}

void cpu_exchange(struct lane *lane, const struct op_exchange *op)
{
    _Static_assert(sizeof *op <= LANE_ARGS_BYTES, "arguments must fit a ring slot");
    cpu_lane_submit(lane, exchange_chunk, op, sizeof *op, 1);
}

/* ---- fold: a unit is a piece of a row ---- */
struct fold_args { struct units units; struct op_fold op; };

static void fold_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct fold_args *args = arguments;
    const struct op_fold *op = &args->op;
    const struct unit_range range = units_of(&args->units, chunk);
    const size_t group_stride = (size_t)op->n_rows * (size_t)op->n_cols;
    float total[COLUMNS_PER_UNIT];
    (void)worker;
    for (int64_t unit = range.begin; unit < range.end; unit++) {
        const struct unit_range columns = piece_columns(unit, op->n_cols);
        const size_t n = (size_t)(columns.end - columns.begin);
        const size_t at = (size_t)(unit / pieces_of(op->n_cols) * op->n_cols + columns.begin);
        memset(total, 0, n * sizeof *total);
        for (int32_t group = 0; group < op->n_groups; group++) {
            const float *sums = op->sums + (size_t)group * group_stride + at;
            for (size_t i = 0; i < n; i++) {
                total[i] += sums[i];
            }
        }
        for (size_t i = 0; i < n; i++) {
            op->x[at + i] = total[i] + op->x[at + i];
        }
    }
}

void cpu_fold(struct lane *lane, const struct op_fold *op)
{
    struct fold_args args = { units_make(lane, op->n_rows * pieces_of(op->n_cols), CHUNKS_PER_WORKER), *op };
    OPS_SUBMIT(lane, fold_chunk, args);
}

/* ---- columns: a unit is a row ---- */
struct columns_args { struct units units; struct op_columns op; };

static void columns_of_rank(const struct op_columns *op, int64_t row, int32_t rank)
{
    const int64_t n_cols = op->first[op->n_ranks], first = op->first[rank];
    const int64_t n = op->first[rank + 1] - first;
    const float *from = op->parts + op->n_rows * first + row * n;
    float *to = op->out + row * n_cols + first;
    if (!op->add) {
        memcpy(to, from, (size_t)n * sizeof *to);
        return;
    }
    const float *add = op->add + row * n_cols + first;
    for (int64_t i = 0; i < n; i++) {
        to[i] = from[i] + add[i];
    }
}

static void columns_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct columns_args *args = arguments;
    const struct unit_range range = units_of(&args->units, chunk);
    (void)worker;
    for (int64_t row = range.begin; row < range.end; row++) {
        for (int32_t rank = 0; rank < args->op.n_ranks; rank++) {
            columns_of_rank(&args->op, row, rank);
        }
    }
}

void cpu_columns(struct lane *lane, const struct op_columns *op)
{
    struct columns_args args = { units_make(lane, op->n_rows, CHUNKS_PER_WORKER), *op };
    OPS_SUBMIT(lane, columns_chunk, args);
}

/* ---- pick: a unit is a row ---- */
struct pick_args { struct units units; struct op_pick op; };

static void pick_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct pick_args *args = arguments;
    const struct op_pick *op = &args->op;
    const struct unit_range range = units_of(&args->units, chunk);
    (void)worker;
    for (int64_t row = range.begin; row < range.end; row++) {
        const int64_t from = (int64_t)op->part[row] * op->n_rows + row;
        memcpy(op->out + row * op->n_cols, op->x + from * op->n_cols, (size_t)op->n_cols * sizeof *op->out);
    }
}

void cpu_pick(struct lane *lane, const struct op_pick *op)
{
    struct pick_args args = { units_make(lane, op->n_rows, CHUNKS_PER_WORKER), *op };
    OPS_SUBMIT(lane, pick_chunk, args);
}
