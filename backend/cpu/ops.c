/* ops: operations cut into chunks of whole outputs, and the direct calls. (Linear: ops_linear.c;
 * experts: ops_moe.c; ranks: ops_ranks.c.)
 */
#include <string.h>

#include "backend/cpu/attention.h"
#include "backend/cpu/ops.h"

enum { ATTENTION_CHUNKS_PER_WORKER = 16 };

/* ---- embed: a unit is a row ---- */
struct embed_args { struct units units; struct op_embed op; };

static void embed_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct embed_args *args = arguments;
    const struct weight *table = args->op.table;
    const struct tensor_type_info *info = tensor_type_info((uint32_t)table->type);
    void *row = scratch_of(worker, (size_t)table->n_in / info->block_elems * info->block_bytes);
    const struct unit_range range = units_of(&args->units, chunk);
    for (int64_t i = range.begin; i < range.end; i++) {
        backend_weight_row(table, args->op.token[i], row);
        tensor_row_to_f32(table->type, row, table->n_in, args->op.out + i * table->n_in);
    }
}

void cpu_embed(struct lane *lane, const struct op_embed *op)
{
    struct embed_args args = { units_make(lane, op->n_rows, CHUNKS_PER_WORKER), *op };
    OPS_SUBMIT(lane, embed_chunk, args);
}

/* ---- norm: a unit is a row ---- */
struct norm_args { struct units units; struct op_norm op; };

static void norm_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct norm_args *args = arguments;
    const struct op_norm *op = &args->op;
    const int32_t n_cols = op->out->n_cols;
    const struct unit_range range = units_of(&args->units, chunk);
    for (int32_t i = (int32_t)range.begin; i < range.end; i++) {
        const float *x = op->x + (op->row_idx ? op->row_idx[i] : i) * (int64_t)n_cols;
        float *out = op->kinds & ACT_F32 ? op->out->f32 + i * (int64_t)n_cols
                                         : scratch_of(worker, (size_t)n_cols * sizeof *out);
        args->units.kernels->norm_row(x, op->weight, op->eps, n_cols, out);
        if (op->kinds & ACT_Q8) {
            quantize_columns(args->units.kernels, out, op->out, op->n_rows, i,
                             (struct unit_range){ 0, n_cols });
        }
    }
}

void cpu_norm(struct lane *lane, const struct op_norm *op)
{
    struct norm_args args = { units_make(lane, op->n_rows, CHUNKS_PER_WORKER), *op };
    OPS_SUBMIT(lane, norm_chunk, args);
}

/* ---- quantize: a unit is a piece of a row ---- */
struct quantize_args { struct units units; struct op_quantize op; };

static void quantize_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct quantize_args *args = arguments;
    const struct act *act = args->op.act;
    const struct unit_range range = units_of(&args->units, chunk);
    (void)worker;
    for (int64_t unit = range.begin; unit < range.end; unit++) {
        const int32_t row = (int32_t)(unit / pieces_of(act->n_cols));
        const struct unit_range columns = piece_columns(unit, act->n_cols);
        quantize_columns(args->units.kernels,
                         act->f32 + row * (int64_t)act->n_cols + columns.begin, act,
                         args->op.n_rows, row, columns);
    }
}

void cpu_quantize(struct lane *lane, const struct op_quantize *op)
{
    struct quantize_args args = {
        units_make(lane, op->n_rows * pieces_of(op->act->n_cols), CHUNKS_PER_WORKER), *op
    };
    OPS_SUBMIT(lane, quantize_chunk, args);
}

/* ---- swiglu: a unit is a piece of a row ---- */
struct swiglu_args { struct units units; struct op_swiglu op; };

static void swiglu_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct swiglu_args *args = arguments;
    const struct op_swiglu *op = &args->op;
    const int32_t n_cols = op->out->n_cols;
    const struct unit_range range = units_of(&args->units, chunk);
    _Alignas(64) float piece[COLUMNS_PER_UNIT];
    (void)worker;
    for (int64_t unit = range.begin; unit < range.end; unit++) {
        const int32_t row = (int32_t)(unit / pieces_of(n_cols));
        const struct unit_range columns = piece_columns(unit, n_cols);
        const int64_t at = row * (int64_t)n_cols + columns.begin;
        const int32_t n = (int32_t)(columns.end - columns.begin);
        float *out = op->kinds & ACT_F32 ? op->out->f32 + at : piece;
        args->units.kernels->swiglu(op->gate + at, op->up + at, n, out);
        if (op->kinds & ACT_Q8) {
            quantize_columns(args->units.kernels, out, op->out, op->n_rows, row, columns);
        }
    }
}

void cpu_swiglu(struct lane *lane, const struct op_swiglu *op)
{
    struct swiglu_args args = {
        units_make(lane, op->n_rows * pieces_of(op->out->n_cols), CHUNKS_PER_WORKER), *op
    };
    OPS_SUBMIT(lane, swiglu_chunk, args);
}

/* ---- rope and store: a unit is a row ---- */
struct rope_args { struct units units; struct op_rope_store op; };

/* One head's k into lane `in_block` of its K block: element d lies 16 elements after element d - 1. */
static void store_k(const struct kv_store *store, const struct cpu_kernels *kernels, const float *k,
                    int32_t in_block, unsigned char *block)
{
    if (store->type == KV_F32) {
        float *to = (float *)(void *)block + in_block;
        for (int32_t d = 0; d < store->head_dim; d++) {
            to[d * KV_BLOCK_SLOTS] = k[d];
        }
    } else {
        uint16_t half[ATTENTION_MAX_HEAD_DIM];
        uint16_t *to = (uint16_t *)(void *)block + in_block;
        kernels->to_f16(k, store->head_dim, half);
        for (int32_t d = 0; d < store->head_dim; d++) {
            to[d * KV_BLOCK_SLOTS] = half[d];
        }
    }
}

static void store_v(const struct kv_store *store, const struct cpu_kernels *kernels, const float *v,
                    int32_t in_block, unsigned char *block)
{
    const size_t at = (size_t)in_block * (size_t)store->head_dim;
    if (store->type == KV_F32) {
        memcpy((float *)(void *)block + at, v, (size_t)store->head_dim * sizeof *v);
    } else {
        kernels->to_f16(v, store->head_dim, (uint16_t *)(void *)block + at);
    }
}

static void store_row(const struct rope_args *args, int32_t row)
{
    const struct op_rope_store *op = &args->op;
    const struct kv_store *store = op->store;
    const int32_t slot = op->slot[row], in_page = slot % store->page_slots;
    const size_t kv_stride = (size_t)store->n_kv_heads * (size_t)store->head_dim;
    ASSERT(slot / store->page_slots < store->n_pages);
    for (int32_t head = 0; head < store->n_kv_heads; head++) {
        const size_t at = (size_t)row * kv_stride + (size_t)head * (size_t)store->head_dim;
        const size_t offset =
            attention_block_offset(store, op->layer, (uint32_t)(slot / store->page_slots), head,
                                   in_page / KV_BLOCK_SLOTS);
        const int32_t in_block = in_page % KV_BLOCK_SLOTS;
        store_k(store, args->units.kernels, op->k + at, in_block, store->k + offset);
        store_v(store, args->units.kernels, op->v + at, in_block, store->v + offset);
    }
}

/* The heads of one row of q or k. */
static void turn_heads(const struct rope_args *args, float *heads, int32_t n_heads, const float *norm,
                       int32_t position)
{
    const struct cpu_kernels *kernels = args->units.kernels;
    const int32_t head_dim = args->op.store->head_dim, half = args->op.rope_dims / 2;
    const float *cos = args->op.cos + (int64_t)position * half;
    const float *sin = args->op.sin + (int64_t)position * half;
    for (int32_t head = 0; head < n_heads; head++, heads += head_dim) {
        if (norm) {
            kernels->norm_row(heads, norm, args->op.norm_eps, head_dim, heads);
        }
        kernels->rope_row(heads, cos, sin, half);
    }
}

static void rope_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct rope_args *args = arguments;
    const struct op_rope_store *op = &args->op;
    const int32_t head_dim = op->store->head_dim, n_kv_heads = op->store->n_kv_heads;
    const struct unit_range range = units_of(&args->units, chunk);
    (void)worker;
    for (int32_t row = (int32_t)range.begin; row < range.end; row++) {
        if (op->position[row] >= 0) {
            turn_heads(args, op->q + (int64_t)row * op->n_heads * head_dim, op->n_heads, op->q_norm,
                       op->position[row]);
            turn_heads(args, op->k + (int64_t)row * n_kv_heads * head_dim, n_kv_heads, op->k_norm,
                       op->position[row]);
        }
        if (op->slot[row] >= 0) {
            store_row(args, row);
        }
    }
}

void cpu_rope_store(struct lane *lane, const struct op_rope_store *op)
{
    struct rope_args args = { units_make(lane, op->n_rows, CHUNKS_PER_WORKER), *op };
    OPS_SUBMIT(lane, rope_chunk, args);
}

/* ---- attention: a unit is (KV head, row), rows fastest, so that a chunk of a long prompt reads one
 * KV head's pages again and again ---- */
struct attention_args { struct units units; struct op_attention op; };

size_t attention_scratch_floats(int32_t n_group, int32_t head_dim)
{
    const size_t here = n_group < ATTENTION_MAX_GROUP ? (size_t)n_group : ATTENTION_MAX_GROUP;
    return here * (SEGMENT_ELEMS + (size_t)head_dim + 4);
}

/* The operation's arrays in a worker's scratch: blocks of paths first, they are read in vectors. */
struct attend_scratch { unsigned char *path_blocks; float *floats; };

/* Everything up to `last` lies somewhere. (Slots of a path are looked at when they are copied.) */
static void check_view(const struct kv_view *view, int32_t page_slots, int32_t last)
{
    const bool on_path = view->n_path > 0 && last >= view->fork;
    const int32_t n_in_pages = on_path ? view->fork : last + 1;
    ASSERT(n_in_pages >= 0 && view->n_path <= KV_PATH_CAP);
    ASSERT(!on_path || last - view->fork < view->n_path);
    ASSERT((n_in_pages + page_slots - 1) / page_slots <= view->n_pages);
}

static int32_t heads_per_kv(const struct op_attention *op)
{
    return op->n_group > 0 ? op->n_group : op->n_heads / op->store->n_kv_heads;
}

static void attend(const struct attention_args *args, int32_t row, int32_t kv_head,
                   const struct attend_scratch *scratch)
{
    const struct op_attention *op = &args->op;
    const int32_t head_dim = op->store->head_dim, per_kv = heads_per_kv(op);
    const int32_t begin = kv_head * per_kv - op->head_skip, first_head = begin > 0 ? begin : 0;
    const int32_t end = begin + per_kv < op->n_heads ? begin + per_kv : op->n_heads;
    const int32_t n_group = end - first_head;
    const int64_t at = ((int64_t)row * op->n_heads + first_head) * head_dim;
    const int32_t last = op->position[row];
    if (n_group <= 0) {
        return;
    }
    if (last < 0) {
        memset(op->out + at, 0, (size_t)n_group * (size_t)head_dim * sizeof(float));
        return;
    }
    const struct kv_view *view = &op->views[op->seq_of_row[row]];
    check_view(view, op->store->page_slots, last);
    for (int32_t head = 0; head < n_group; head += ATTENTION_MAX_GROUP) {
        const int32_t left = n_group - head;
        const struct attention_job job = {
            .q = op->q + at + (int64_t)head * head_dim, .out = op->out + at + (int64_t)head * head_dim,
            .n_group = left < ATTENTION_MAX_GROUP ? left : ATTENTION_MAX_GROUP, .head_dim = head_dim,
            .first = op->window > 0 && last >= op->window ? last - op->window + 1 : 0, .last = last,
            .scale = op->scale, .store = op->store, .view = view, .layer = op->layer,
            .kv_head = kv_head, .scratch = scratch->floats, .path_blocks = scratch->path_blocks,
        };
        args->units.kernels->attention(&job);
    }
}

static void attention_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct attention_args *args = arguments;
    const struct op_attention *op = &args->op;
    const size_t floats =
        attention_scratch_floats(heads_per_kv(op), op->store->head_dim);
    const size_t path_bytes = attention_path_bytes(op->store);
    unsigned char *bytes = scratch_of(worker, path_bytes + floats * sizeof(float));
    const struct attend_scratch scratch = { bytes, (float *)(void *)(bytes + path_bytes) };
    const struct unit_range range = units_of(&args->units, chunk);
    for (int64_t unit = range.begin; unit < range.end; unit++) {
        attend(args, (int32_t)(unit % op->n_rows), (int32_t)(unit / op->n_rows), &scratch);
    }
}

void cpu_attention(struct lane *lane, const struct op_attention *op)
{
    struct attention_args args = {
        units_make(lane, (int64_t)op->n_rows * op->store->n_kv_heads, ATTENTION_CHUNKS_PER_WORKER), *op
    };
    ASSERT(op->n_group > 0 || op->n_heads % op->store->n_kv_heads == 0);
    ASSERT(op->n_heads + op->head_skip <= heads_per_kv(op) * op->store->n_kv_heads);
    OPS_SUBMIT(lane, attention_chunk, args);
}

/* ---- page copy: a unit is a head of a layer ---- */
struct page_copy_args { struct units units; struct op_page_copy op; };

static void page_copy_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct page_copy_args *args = arguments;
    const struct kv_store *store = args->op.store;
    const struct unit_range range = units_of(&args->units, chunk);
    const size_t bytes = store->page_bytes / (size_t)store->n_kv_heads;
    (void)worker;
    for (int32_t unit = (int32_t)range.begin; unit < range.end; unit++) {
        const int32_t layer = unit / store->n_kv_heads, head = unit % store->n_kv_heads;
        const size_t from = attention_block_offset(store, layer, args->op.src, head, 0);
        const size_t to = attention_block_offset(store, layer, args->op.dst, head, 0);
        memcpy(store->k + to, store->k + from, bytes);
        memcpy(store->v + to, store->v + from, bytes);
    }
}

void cpu_page_copy(struct lane *lane, const struct op_page_copy *op)
{
    struct page_copy_args args = { units_make(lane, op->store->n_layers * op->store->n_kv_heads, CHUNKS_PER_WORKER), *op };
    ASSERT(op->src != op->dst && op->src < (uint32_t)op->store->n_pages &&
           op->dst < (uint32_t)op->store->n_pages);
    OPS_SUBMIT(lane, page_copy_chunk, args);
}

/* ---- tap: a unit is a row ---- */
struct tap_args { struct units units; struct op_tap op; };

static void tap_chunk(const void *arguments, uint32_t chunk, struct lane_worker *worker)
{
    const struct tap_args *args = arguments;
    const size_t n_cols = (size_t)args->op.n_cols;
    const struct unit_range range = units_of(&args->units, chunk);
    (void)worker;
    memcpy(args->op.out + (size_t)range.begin * n_cols, args->op.x + (size_t)range.begin * n_cols,
           (size_t)(range.end - range.begin) * n_cols * sizeof(float));
}

void cpu_tap(struct lane *lane, const struct op_tap *op)
{
    struct tap_args args = { units_make(lane, op->n_rows, CHUNKS_PER_WORKER), *op };
    OPS_SUBMIT(lane, tap_chunk, args);
}

/* ---- direct calls: the caller's floating-point mode is set aside for as long as they take ---- */

int32_t backend_argmax(const struct backend *backend, const float *x, int64_t n, bool *bad)
{
    const unsigned int mode = cpu_float_mode_enter();
    const int32_t best = backend->kernels->argmax(x, n, bad);
    cpu_float_mode_restore(mode);
    return best;
}

float backend_exp_sum(const struct backend *backend, float *x, int64_t n, float max)
{
    const unsigned int mode = cpu_float_mode_enter();
    const float sum = backend->kernels->exp_sum(x, n, max);
    cpu_float_mode_restore(mode);
    return sum;
}

void backend_gumbel(const struct backend *backend, uint64_t seed, uint32_t position, uint32_t first,
                    uint32_t n, float *noise)
{
    backend_gumbel_below(backend, seed, position, first, n, (uint64_t)1 << 32, noise);
}

void backend_gumbel_below(const struct backend *backend, uint64_t seed, uint32_t position, uint32_t first,
                          uint32_t n, uint64_t limit, float *noise)
{
    const unsigned int mode = cpu_float_mode_enter();
    backend->kernels->gumbel(seed, position, first, n, limit, noise);
    cpu_float_mode_restore(mode);
}
