/* ops_linear: a linear operation cut into chunks of whole tiles, never into parts of an output.
 *
 * The tiles are cut into units of about 64 KB, the units into chunks: of what is left, the workers get a
 * half in as many chunks, again and again down to one unit. So a worker reads long runs, as prefetches
 * that cross a chunk's end bring lines another worker reads, and a chunk's first lines come late; and
 * the last chunks are small enough for all workers to end together.
 *
 *     32 units, 2 workers:   |   8   |   8   | 4 | 4 |2|2|1|1|1|1|
 */
#include "backend/cpu/linear.h"
#include "backend/cpu/operations.h"

enum {
    UNIT_BYTES = 64 * 1024,  /* of weights: a few microseconds of memory time */
    UNITS_PER_WORKER = 8,
    ACT_CACHE_BYTES = 192 * 1024 /* activations kept in the second-level cache between tiles */
};

struct linear_args {
    struct op_linear op;
    int32_t tiles_per_unit, n_tiles, n_units, n_workers;
    struct backend *backend;
};

static int32_t tiles_of(const struct weight *weight)
{
    return (weight->n_out + TILE_OUTPUTS - 1) / TILE_OUTPUTS;
}

/* The job as it is, or each group's sum to an output of its own. */
static void run_job(const struct linear_args *args, struct linear_job *job)
{
    const struct linear_groups *groups = args->op.groups;
    if (!groups) {
        args->backend->kernels->linear_tile(job);
        return;
    }
    for (int32_t i = 0; i < groups->n; i++) {
        job->first_segment = groups->begin[i];
        job->end_segment = groups->begin[i + 1];
        args->backend->kernels->linear_tile(job);
        job->out += (size_t)args->op.n_rows * job->out_stride;
    }
}

/* Rows [first, first + n) of one tile of one part. */
static void run_tile(const struct linear_args *args, int32_t tile, int32_t first_row, int32_t n_rows)
{
    const struct op_linear *op = &args->op;
    int32_t p = 0;
    while (tile >= tiles_of(op->part[p].weight)) {
        tile -= tiles_of(op->part[p++].weight);
    }
    const struct weight *weight = op->part[p].weight;
    const size_t stride = (size_t)weight->n_out, first_out = (size_t)tile * TILE_OUTPUTS;
    const size_t at = (size_t)first_row * stride + first_out;
    const int32_t left = weight->n_out - (int32_t)first_out;
    struct linear_job job = {
        .type = weight->type,
        .tile = weight->data + (size_t)tile * weight_tile_bytes(weight->type, weight->n_in),
        .n_in = weight->n_in, .n_valid = left < TILE_OUTPUTS ? left : TILE_OUTPUTS,
        .first_row = first_row, .n_rows = n_rows, .act_rows = op->n_rows, .x = op->x,
        .out = op->part[p].out + at, .add = op->part[p].add ? op->part[p].add + at : NULL,
        .bias = op->part[p].bias ? op->part[p].bias + first_out : NULL, .out_stride = stride,
    };
    run_job(args, &job);
}

/* All rows of one unit: those whose activations stay in cache at a time, over tiles that do too. */
static void run_unit(const struct linear_args *args, int32_t unit)
{
    const int32_t begin = unit * args->tiles_per_unit;
    const int32_t end = begin + args->tiles_per_unit < args->n_tiles ? begin + args->tiles_per_unit
                                                                     : args->n_tiles;
    const int32_t row_bytes = args->op.x->n_cols / QUANT_BLOCK * ACT_BLOCK_BYTES;
    int32_t rows = ACT_CACHE_BYTES / (row_bytes > 0 ? row_bytes : 1) / PANEL_ROWS * PANEL_ROWS;
    rows = rows < PANEL_ROWS ? PANEL_ROWS : rows > LINEAR_MAX_ROWS ? LINEAR_MAX_ROWS : rows;
    for (int32_t row = 0; row < args->op.n_rows; row += rows) {
        const int32_t n_rows = args->op.n_rows - row < rows ? args->op.n_rows - row : rows;
        for (int32_t tile = begin; tile < end; tile++) {
            run_tile(args, tile, row, n_rows);
        }
    }
}

struct unit_range { int32_t begin, end; };

/* Units of chunk `chunk`; none behind the last chunk. */
static struct unit_range chunk_units(int32_t n_units, int32_t n_workers, int32_t chunk)
{
    int32_t begin = 0;
    for (;;) {
        const int32_t half = (n_units - begin) / (2 * n_workers), each = half > 1 ? half : 1;
        if (chunk < n_workers || begin >= n_units) {
            begin += chunk * each;
            begin = begin < n_units ? begin : n_units;
            return (struct unit_range){ begin, begin + each < n_units ? begin + each : n_units };
        }
        begin += n_workers * each;
        chunk -= n_workers;
    }
}

static uint32_t count_chunks(int32_t n_units, int32_t n_workers)
{
    uint32_t n = 0;
    while (chunk_units(n_units, n_workers, (int32_t)n).begin < n_units) {
        n++;
    }
    return n;
}

static void linear_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct linear_args *args = arguments;
    const struct unit_range units = chunk_units(args->n_units, args->n_workers, (int32_t)chunk);
    (void)worker;
    for (int32_t unit = units.begin; unit < units.end; unit++) {
        run_unit(args, unit);
    }
}

void cpu_linear(struct lane *lane, const struct op_linear *op)
{
    struct linear_args args = { .op = *op, .backend = lane_backend(lane) };
    size_t bytes = 0;
    ASSERT(op->n_parts >= 1 && op->n_parts <= LINEAR_PARTS);
    for (int32_t p = 0; p < op->n_parts; p++) {
        ASSERT(op->part[p].weight->n_in == op->x->n_cols);
        ASSERT(!op->groups || (!op->part[p].add && !op->part[p].bias));
        args.n_tiles += tiles_of(op->part[p].weight);
        bytes += (size_t)tiles_of(op->part[p].weight) *
                 weight_tile_bytes(op->part[p].weight->type, op->part[p].weight->n_in);
    }
    if (op->n_rows <= 0) {
        return;
    }
    args.n_workers = lane_n_workers(lane);
    const int32_t by_bytes = (int32_t)((bytes + UNIT_BYTES - 1) / UNIT_BYTES);
    const int32_t by_workers = args.n_workers * UNITS_PER_WORKER;
    int32_t n_units = by_bytes > by_workers ? by_bytes : by_workers;
    n_units = n_units > args.n_tiles ? args.n_tiles : n_units;
    args.tiles_per_unit = (args.n_tiles + n_units - 1) / n_units;
    args.n_units = (args.n_tiles + args.tiles_per_unit - 1) / args.tiles_per_unit;
    _Static_assert(sizeof args <= LANE_ARGS_BYTES, "arguments must fit a ring slot");
    cpu_lane_submit(lane, linear_chunk, &args, sizeof args, count_chunks(args.n_units, args.n_workers));
}
