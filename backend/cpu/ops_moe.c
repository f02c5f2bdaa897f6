/* ops_moe: mixtures of experts. A row's experts are known only when the lane gets there, so every
 * operation is cut for the most it can find (all rows on different experts) and a chunk that finds
 * nothing of its own returns at once.
 *
 *     route     row → its experts and weights; then places: rows of an expert in one run
 *     gather    rows → places          expert_linear, expert_swiglu   over places
 *     combine   places → rows, ascending expert id
 *
 * What a row gets depends on its own logits and input alone: which rows share its experts decides
 * only where its place lies.
 */
#include <string.h>

#include "backend/cpu/linear.h"
#include "backend/cpu/ops.h"

enum {
    WEIGHT_CHUNK_BYTES = 64 * 1024,
    ACT_CACHE_BYTES = 192 * 1024 /* activations kept in the second-level cache between tiles */
};

/* ---- routes ---- */

struct cutter { unsigned char *at; size_t bytes; };

static void *cut(struct cutter *cutter, int64_t n_words)
{
    const size_t bytes = ((size_t)n_words * 4 + 63) & ~(size_t)63;
    unsigned char *piece = cutter->at;
    cutter->bytes += bytes;
    cutter->at = piece ? piece + bytes : NULL;
    return piece;
}

static size_t routes_place(struct routes *routes, unsigned char *memory)
{
    struct cutter cutter = { .at = memory };
    const int64_t n_places = (int64_t)routes->cap_rows * routes->n_used;
    routes->expert = cut(&cutter, n_places);
    routes->weight = cut(&cutter, n_places);
    routes->place = cut(&cutter, n_places);
    routes->row = cut(&cutter, n_places);
    routes->owner = cut(&cutter, n_places);
    routes->begin = cut(&cutter, routes->n_experts + 1);
    routes->next = cut(&cutter, routes->n_experts);
    routes->touched = cut(&cutter, routes->n_experts);
    return cutter.bytes;
}

size_t backend_routes_bytes(int32_t n_experts, int32_t n_used, int32_t cap_rows)
{
    struct routes shape = { .n_experts = n_experts, .n_used = n_used, .cap_rows = cap_rows };
    return routes_place(&shape, NULL);
}

void backend_routes_init(struct routes *routes, int32_t n_experts, int32_t n_used, int32_t cap_rows,
                         void *memory)
{
    ASSERT(n_used >= 1 && n_used <= n_experts && cap_rows >= 1);
    *routes = (struct routes){ .n_experts = n_experts, .n_used = n_used, .cap_rows = cap_rows,
                               .n_here = n_experts };
    routes_place(routes, memory);
}

static bool is_here(const struct routes *routes, int32_t expert)
{
    return expert >= routes->first_here && expert < routes->first_here + routes->n_here;
}

/* Places there are at most, and experts that can be touched at most, in a pass of n_rows. */
static int64_t most_places(const struct routes *routes, int32_t n_rows)
{
    return (int64_t)n_rows * routes->n_used;
}

static int64_t most_touched(const struct routes *routes, int32_t n_rows)
{
    const int64_t n = most_places(routes, n_rows);
    return n < routes->n_experts ? n : routes->n_experts;
}

/* The rows of one expert as an act of their own. */
static struct act expert_act(const struct act *places, const struct routes *routes, int32_t expert)
{
    const size_t first = (size_t)routes->begin[expert], n_cols = (size_t)places->n_cols;
    struct act act = *places;
    act.cap_rows = routes->begin[expert + 1] - routes->begin[expert];
    act.f32 += first * n_cols;
    act.q8 += first * (n_cols / QUANT_BLOCK) * ACT_BLOCK_BYTES;
    return act;
}

/* ---- route: a unit is a row; then one chunk hands out places ---- */
struct route_args { struct units units; struct op_route op; };

/* Highest first; a NaN is not higher than anything, and still n_used different experts are chosen. */
static void choose(const float *probs, int32_t n_experts, int32_t n_used, unsigned char *chosen)
{
    for (int32_t e = 0; e < n_experts; e++) {
        chosen[e] = 0;
    }
    for (int32_t j = 0; j < n_used; j++) {
        int32_t best = -1;
        for (int32_t e = 0; e < n_experts; e++) {
            if (!chosen[e] && (best < 0 || probs[e] > probs[best])) {
                best = e;
            }
        }
        chosen[best] = 1;
    }
}

static void route_row(const struct route_args *args, int32_t row, struct lane_worker *worker)
{
    const struct op_route *op = &args->op;
    struct routes *routes = op->routes;
    const int32_t n = routes->n_experts;
    float *probs = scratch_of(worker, (size_t)n * (sizeof *probs + 1));
    unsigned char *chosen = (unsigned char *)(probs + n);
    float max = -MATHX_INF, sum = 0.0f;
    memcpy(probs, op->logits + (int64_t)row * n, (size_t)n * sizeof *probs);
    for (int32_t e = 0; e < n; e++) {
        max = probs[e] > max ? probs[e] : max;
    }
    const float total = args->units.kernels->exp_sum(probs, n, max);
    for (int32_t e = 0; e < n; e++) {
        probs[e] /= total;
    }
    choose(probs, n, routes->n_used, chosen);
    int32_t *expert = routes->expert + (int64_t)row * routes->n_used;
    float *weight = routes->weight + (int64_t)row * routes->n_used;
    for (int32_t e = 0, j = 0; e < n; e++) {
        if (chosen[e]) {
            expert[j] = e;
            weight[j++] = probs[e];
            sum += probs[e];
        }
    }
    for (int32_t j = 0; op->normalised && j < routes->n_used; j++) {
        weight[j] /= sum;
    }
}

static void route_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct route_args *args = arguments;
    const struct unit_range range = units_of(&args->units, chunk);
    for (int32_t row = (int32_t)range.begin; row < range.end; row++) {
        if (args->op.position[row] >= 0) {
            route_row(args, row, worker);
        }
    }
}

/* Counts, sums, then rows ascending: a counting sort by expert. */
static void places_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct op_route *op = &((const struct route_args *)arguments)->op;
    struct routes *routes = op->routes;
    const int32_t n_used = routes->n_used;
    (void)chunk;
    (void)worker;
    memset(routes->begin, 0, ((size_t)routes->n_experts + 1) * sizeof *routes->begin);
    for (int32_t i = 0; i < op->n_rows * n_used; i++) {
        if (op->position[i / n_used] >= 0) {
            routes->begin[routes->expert[i] + 1]++;
        }
    }
    routes->n_touched = 0;
    for (int32_t e = 0; e < routes->n_experts; e++) {
        if (routes->begin[e + 1] > 0) {
            routes->touched[routes->n_touched++] = e;
        }
        routes->begin[e + 1] += routes->begin[e];
        routes->next[e] = routes->begin[e];
    }
    routes->n_places = routes->begin[routes->n_experts];
    for (int32_t i = 0; i < op->n_rows * n_used; i++) {
        routes->place[i] = -1;
        if (op->position[i / n_used] >= 0) {
            const int32_t place = routes->next[routes->expert[i]]++;
            routes->place[i] = place;
            routes->row[place] = i / n_used;
            routes->owner[place] = routes->expert[i];
        }
    }
}

void cpu_route(struct lane *lane, const struct op_route *op)
{
    struct route_args args = { units_make(lane, op->n_rows, CHUNKS_PER_WORKER), *op };
    ASSERT(op->n_rows >= 1 && op->n_rows <= op->routes->cap_rows);
    OPS_SUBMIT(lane, route_chunk, args);
    cpu_lane_submit(lane, places_chunk, &args, sizeof args, 1);
}

/* ---- gather: a unit is a place ---- */
struct gather_args { struct units units; struct op_gather op; };

static void gather_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct gather_args *args = arguments;
    const struct op_gather *op = &args->op;
    const struct routes *routes = op->routes;
    const int32_t n_cols = op->out->n_cols;
    const struct unit_range range = units_of(&args->units, chunk);
    (void)worker;
    for (int32_t place = (int32_t)range.begin; place < range.end && place < routes->n_places;
         place++) {
        const float *x = op->x + (int64_t)routes->row[place] * n_cols;
        const int32_t expert = routes->owner[place];
        if (!is_here(routes, expert)) {
            continue;
        }
        const struct act act = expert_act(op->out, routes, expert);
        const int32_t row = place - routes->begin[expert];
        if (op->kinds & ACT_F32) {
            memcpy(act.f32 + (int64_t)row * n_cols, x, (size_t)n_cols * sizeof *x);
        }
        if (op->kinds & ACT_Q8) {
            quantize_columns(args->units.kernels, x, &act, act.cap_rows, row,
                             (struct unit_range){ 0, n_cols });
        }
    }
}

void cpu_gather(struct lane *lane, const struct op_gather *op)
{
    struct gather_args args = {
        units_make(lane, most_places(op->routes, op->n_rows), CHUNKS_PER_WORKER), *op
    };
    OPS_SUBMIT(lane, gather_chunk, args);
}

/* ---- expert linear: a chunk is some tiles of one touched expert ---- */
struct expert_linear_args {
    struct op_expert_linear op;
    int32_t n_tiles, tiles_per_chunk, chunks_per_expert; /* of one expert, its parts together */
    const struct cpu_kernels *kernels;
};

static int32_t tiles_of(const struct weight *weight)
{
    return (weight->n_out + TILE_OUTPUTS - 1) / TILE_OUTPUTS;
}

/* Bytes of an output's row as the file has it. */
static uint64_t file_row_bytes(const struct weight *weight)
{
    const struct tensor_type_info *type = tensor_type_info((uint32_t)weight->type);
    return (uint64_t)weight->n_in / type->block_elems * type->block_bytes;
}

/* Rows [first, first + n) of tile `tile` of one expert; returns the file's bytes of the tile. */
static uint64_t expert_tile(const struct expert_linear_args *args, const struct act *x,
                            int32_t expert, int32_t tile, struct unit_range rows)
{
    const struct op_expert_linear *op = &args->op;
    int32_t p = 0;
    while (tile >= tiles_of(&op->part[p].weights->first)) {
        tile -= tiles_of(&op->part[p++].weights->first);
    }
    const struct expert_weights *weights = op->part[p].weights;
    const struct weight *weight = &weights->first;
    const size_t stride = (size_t)weight->n_out, first_out = (size_t)tile * TILE_OUTPUTS;
    const int32_t left = weight->n_out - (int32_t)first_out;
    const struct linear_job job = {
        .type = weight->type,
        .tile = weight->data + (size_t)(expert - op->routes->first_here) * weights->stride_bytes +
                (size_t)tile * weight_tile_bytes(weight->type, weight->n_in),
        .n_in = weight->n_in, .n_valid = left < TILE_OUTPUTS ? left : TILE_OUTPUTS,
        .first_row = (int32_t)rows.begin, .n_rows = (int32_t)(rows.end - rows.begin),
        .act_rows = x->cap_rows, .x = x,
        .out = op->part[p].out + ((size_t)op->routes->begin[expert] + (size_t)rows.begin) * stride +
               first_out,
        .out_stride = stride,
    };
    args->kernels->linear_tile(&job);
    return (uint64_t)job.n_valid * file_row_bytes(weight);
}

static void expert_linear_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct expert_linear_args *args = arguments;
    struct routes *routes = args->op.routes;
    const int32_t rank = (int32_t)chunk / args->chunks_per_expert;
    (void)worker;
    if (rank >= routes->n_touched || !is_here(routes, routes->touched[rank])) {
        return;
    }
    const int32_t expert = routes->touched[rank];
    const struct act x = expert_act(args->op.x, routes, expert);
    const int32_t begin = (int32_t)chunk % args->chunks_per_expert * args->tiles_per_chunk;
    const int32_t end = begin + args->tiles_per_chunk < args->n_tiles
                            ? begin + args->tiles_per_chunk
                            : args->n_tiles;
    const int32_t row_bytes = x.n_cols / QUANT_BLOCK * ACT_BLOCK_BYTES;
    int32_t rows = ACT_CACHE_BYTES / (row_bytes > 0 ? row_bytes : 1) / PANEL_ROWS * PANEL_ROWS;
    rows = rows < PANEL_ROWS ? PANEL_ROWS : rows > LINEAR_MAX_ROWS ? LINEAR_MAX_ROWS : rows;
    uint64_t bytes = 0;
    for (int32_t row = 0; row < x.cap_rows; row += rows) {
        const int32_t last = x.cap_rows - row < rows ? x.cap_rows : row + rows;
        for (int32_t tile = begin; tile < end; tile++) {
            const uint64_t tile_bytes =
                expert_tile(args, &x, expert, tile, (struct unit_range){ row, last });
            bytes += row == 0 ? tile_bytes : 0;
        }
    }
    atomic_fetch_add_explicit(&routes->bytes_read, bytes, memory_order_relaxed);
}

void cpu_expert_linear(struct lane *lane, const struct op_expert_linear *op)
{
    struct expert_linear_args args = { .op = *op, .kernels = lane_backend(lane)->kernels };
    size_t bytes = 0;
    ASSERT(op->n_parts >= 1 && op->n_parts <= EXPERT_PARTS);
    for (int32_t p = 0; p < op->n_parts; p++) {
        const struct weight *weight = &op->part[p].weights->first;
        ASSERT(weight->n_in == op->x->n_cols);
        args.n_tiles += tiles_of(weight);
        bytes += (size_t)tiles_of(weight) * weight_tile_bytes(weight->type, weight->n_in);
    }
    const int64_t by_bytes = (int64_t)((bytes + WEIGHT_CHUNK_BYTES - 1) / WEIGHT_CHUNK_BYTES);
    const int64_t n_chunks = by_bytes < args.n_tiles ? by_bytes : args.n_tiles;
    args.tiles_per_chunk = (int32_t)((args.n_tiles + n_chunks - 1) / n_chunks);
    args.chunks_per_expert = (args.n_tiles + args.tiles_per_chunk - 1) / args.tiles_per_chunk;
    _Static_assert(sizeof args <= LANE_ARGS_BYTES, "arguments must fit a ring slot");
    cpu_lane_submit(lane, expert_linear_chunk, &args, sizeof args,
                (uint32_t)(most_touched(op->routes, op->n_rows) * args.chunks_per_expert));
}

/* ---- expert swiglu: a unit is a piece of a place's columns ---- */
struct expert_swiglu_args { struct units units; struct op_expert_swiglu op; };

static void expert_swiglu_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct expert_swiglu_args *args = arguments;
    const struct op_expert_swiglu *op = &args->op;
    const struct routes *routes = op->routes;
    const int32_t n_cols = op->out->n_cols;
    const struct unit_range range = units_of(&args->units, chunk);
    _Alignas(64) float piece[COLUMNS_PER_UNIT];
    (void)worker;
    for (int64_t unit = range.begin; unit < range.end; unit++) {
        const int32_t place = (int32_t)(unit / pieces_of(n_cols));
        if (place >= routes->n_places) {
            return;
        }
        if (!is_here(routes, routes->owner[place])) {
            continue;
        }
        const struct unit_range columns = piece_columns(unit, n_cols);
        const int32_t expert = routes->owner[place], row = place - routes->begin[expert];
        const struct act act = expert_act(op->out, routes, expert);
        const int64_t at = (int64_t)place * n_cols + columns.begin;
        float *out = op->kinds & ACT_F32 ? act.f32 + (int64_t)row * n_cols + columns.begin : piece;
        args->units.kernels->swiglu(op->gate + at, op->up + at,
                                    (int32_t)(columns.end - columns.begin), out);
        if (op->kinds & ACT_Q8) {
            quantize_columns(args->units.kernels, out, &act, act.cap_rows, row, columns);
        }
    }
}

void cpu_expert_swiglu(struct lane *lane, const struct op_expert_swiglu *op)
{
    struct expert_swiglu_args args = {
        units_make(lane, most_places(op->routes, op->n_rows) * pieces_of(op->out->n_cols),
                   CHUNKS_PER_WORKER), *op
    };
    OPS_SUBMIT(lane, expert_swiglu_chunk, args);
}

/* ---- combine: a unit is a piece of a row ---- */
struct combine_args { struct units units; struct op_combine op; };

static void combine_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct combine_args *args = arguments;
    const struct op_combine *op = &args->op;
    const struct routes *routes = op->routes;
    const struct unit_range range = units_of(&args->units, chunk);
    _Alignas(64) float acc[COLUMNS_PER_UNIT];
    (void)worker;
    for (int64_t unit = range.begin; unit < range.end; unit++) {
        const int64_t row = unit / pieces_of(op->n_cols);
        const struct unit_range columns = piece_columns(unit, op->n_cols);
        const int32_t n = (int32_t)(columns.end - columns.begin);
        memset(acc, 0, (size_t)n * sizeof *acc);
        for (int64_t i = row * routes->n_used; i < (row + 1) * routes->n_used; i++) {
            if (routes->place[i] >= 0) {
                const float *y = op->y + (int64_t)routes->place[i] * op->n_cols + columns.begin;
                args->units.kernels->accumulate(routes->weight[i], y, n, acc);
            }
        }
        float *x = op->x + row * op->n_cols + columns.begin;
        for (int32_t i = 0; i < n; i++) {
            x[i] += acc[i];
        }
    }
}

void cpu_combine(struct lane *lane, const struct op_combine *op)
{
    struct combine_args args = {
        units_make(lane, op->n_rows * pieces_of(op->n_cols), CHUNKS_PER_WORKER), *op
    };
    OPS_SUBMIT(lane, combine_chunk, args);
}
