/* desk: what lies between the host and the passes of one set of buffers.
 *
 *     host arrays ─ packed ─► pinned block ─ one copy ─► device block ─► kernels ─► logits ─ one copy ─► pinned
 *                             (two, in turn)             (one)
 *
 * Arrays lie in the device block at places that depend on the numbers of rows and logits alone, so that a
 * recorded pass (a CUDA graph) reads its inputs where the next one's are:
 *
 *     token | position | slot | seq_of_row | logits_row | own_token | part | views | pages and paths of the views
 *
 * Passes of up to 64 rows are padded to a bucket and recorded when their shape comes the second time; the
 * first time they run as they are. Pad rows have position and slot -1: they write to no slot and attend to
 * nothing, and their results are not read. Longer passes (prompts) are not recorded: their kernels hide the
 * launches. Nor are passes of ranks that exchange through the host: they are cut at each exchange (ops_ranks.c). All
 * ranks pad alike and record alike, as they all meet the same passes.
 *
 * What the driver takes for recordings is its own affair, and grows with their kernels. So a desk counts
 * kernels: it says at creation for how many it keeps memory, and records no more than those.
 */
#include <string.h>

#include "backend/cuda/gemm.h"
#include "backend/cuda/pack.h"

enum {
    INPUT_BLOCKS = 2,
    MAX_GRAPHS = 64,
    MAX_GRAPH_ROWS = 64,
    LAYER_NODES = 10,         /* kernels of a recorded layer, of those before and behind the layers: for this */
    RANK_LAYER_NODES = 20,    /* the same where ranks exchange what layers give */
    OTHER_NODES = 8,          /* many MAX_GRAPHS recordings have room; of longer ones there are fewer */
    NODE_BYTES = 12 << 10,    /* of the driver, for a kernel: some 10 KB are what users of large graphs report */
    SCRATCH_FLOATS = 8 << 20 /* of attention, unless one row wants more; longer passes take turns */
};

/* Passes that are the same operations on the same places. */
struct graph_key {
    const void *of_model;
    const unsigned char *kv;
    int32_t n_rows, n_logits, n_layers, n_segments;
};
struct graph { struct graph_key key; cudaGraphExec_t exec; int32_t n_met; };

struct input_block { unsigned char *pinned; cudaEvent_t taken; bool is_used; };

struct pass_desk {
    struct cuda_backend *backend;
    struct pass_shape shape;
    size_t input_bytes;
    unsigned char *inputs;              /* of the device */
    struct input_block blocks[INPUT_BLOCKS];
    int next_block;
    float *logits;                      /* pinned, [cap_logits, n_vocab] */
    float *stage;                       /* pinned, [exchange_floats]; NULL: no exchanges, or they need none */
    float *scratch;                     /* of the device */
    size_t scratch_floats;
    struct cuda_gemm_desk *gemm;        /* NULL but for the fast plan */
    int32_t n_segments;                 /* of the pass under way */
    struct graph graphs[MAX_GRAPHS];
    int n_graphs;
    int64_t n_nodes, cap_nodes;         /* kernels of all recordings */
    int64_t longest;                    /* kernels of the longest */
    struct graph *recording, *replayed; /* of the pass under way */
    struct cuda_logits rows;            /* of the pass that ended last */
    struct cuda_choosing *choosing;
    struct cuda_fetch fetch;
};

static int32_t min_i32(int32_t a, int32_t b) { return a < b ? a : b; }
static int32_t segments_of(int32_t n_positions) { return (n_positions + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS; }

/* ---- creation ---- */
/* Kept for the driver, not taken. */
static uint64_t recorded_bytes_of(const struct pass_desk *desk) { return (uint64_t)desk->cap_nodes * NODE_BYTES; }

static int32_t pages_cap(const struct pass_shape *shape) { return shape->context / KV_BLOCK_SLOTS + 1; }

/* Every row a sequence of its own, each with its page table and a path. */
static size_t input_bytes_of(const struct pass_shape *shape)
{
    const size_t rows = (size_t)shape->cap_rows, words = (size_t)pages_cap(shape) + KV_PATH_CAP;
    const size_t ints = 6 * rows + (size_t)shape->cap_logits + rows * words;
    return cuda_align(ints * sizeof(int32_t) + rows * sizeof(struct kv_view) + 64);
}

static size_t scratch_floats_of(const struct pass_shape *shape)
{
    const int32_t n_segments = segments_of(shape->context);
    const size_t one = cuda_attention_scratch_floats(1, shape->n_heads, shape->head_dim, n_segments);
    const size_t all = one * (size_t)shape->cap_rows;
    const size_t attention = all < SCRATCH_FLOATS ? all : one > SCRATCH_FLOATS ? one : SCRATCH_FLOATS;
    const size_t choices = cuda_choosing_scratch_floats(shape, SCRATCH_FLOATS); /* when attention is done */
    return attention > choices ? attention : choices;
}

static enum status take_memory(struct pass_desk *desk)
{
    struct backend *backend = &desk->backend->base;
    const size_t logits_bytes = (size_t)desk->shape.cap_logits * (size_t)desk->shape.n_vocab * sizeof(float);
    void *pinned;
    desk->inputs = backend_alloc(backend, desk->input_bytes);
    desk->scratch = backend_alloc(backend, desk->scratch_floats * sizeof *desk->scratch);
    if (desk->inputs == NULL || desk->scratch == NULL) {
        return status_fail(STATUS_NO_MEMORY, "passes of %d rows need %.1f MiB beside their buffers on %s, %.1f MiB are "
                           "free", desk->shape.cap_rows, (double)cuda_desk_bytes(desk) / (1024.0 * 1024.0),
                           backend_name(backend), (double)backend_free_bytes(backend) / (1024.0 * 1024.0));
    }
    for (int i = 0; i < INPUT_BLOCKS; i++) {
        TRY(cuda_pinned_alloc(desk->backend, desk->input_bytes, &pinned));
        desk->blocks[i].pinned = pinned;
        cuda_ok(desk->backend, cudaEventCreateWithFlags(&desk->blocks[i].taken, cudaEventDisableTiming), "making events");
    }
    TRY(cuda_pinned_alloc(desk->backend, logits_bytes, &pinned));
    desk->logits = pinned;
    TRY(cuda_choosing_create(desk->backend, &desk->shape, &desk->choosing));
    if (backend_plan(backend) == PLAN_FAST) {
        TRY(cuda_gemm_desk_create(desk->backend, &desk->shape, &desk->gemm));
    }
    if (desk->shape.exchange_floats > 0 && desk->backend->nccl == NULL) {
        TRY(cuda_pinned_alloc(desk->backend, desk->shape.exchange_floats * sizeof(float), &pinned));
        desk->stage = pinned;
    }
    (void)cuda_fetch_open(desk->backend, &desk->fetch);
    return backend_health(backend);
}

enum status cuda_desk_create(struct backend *backend, const struct pass_shape *shape, struct pass_desk **out)
{
    struct pass_desk *desk = mem_alloc(1, sizeof *desk);
    if (desk == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for what passes need beside their buffers");
    }
    desk->backend = cuda_backend_of(backend);
    desk->shape = *shape;
    desk->input_bytes = input_bytes_of(shape);
    desk->scratch_floats = scratch_floats_of(shape);
    desk->longest = (shape->exchange_floats > 0 ? RANK_LAYER_NODES : LAYER_NODES) * shape->n_layers + OTHER_NODES;
    desk->cap_nodes = desk->backend->keeps_graphs ? MAX_GRAPHS * desk->longest : 0;
    atomic_fetch_add(&desk->backend->recorded_bytes, recorded_bytes_of(desk));
    const enum status status = take_memory(desk);
    if (status != STATUS_OK) {
        cuda_desk_destroy(desk);
        return status;
    }
    *out = desk;
    return STATUS_OK;
}

void cuda_desk_destroy(struct pass_desk *desk)
{
    struct backend *backend = &desk->backend->base;
    (void)cudaSetDevice(desk->backend->device);
    atomic_fetch_sub(&desk->backend->recorded_bytes, recorded_bytes_of(desk));
    for (int i = 0; i < desk->n_graphs; i++) {
        if (desk->graphs[i].exec != NULL) {
            (void)cudaGraphExecDestroy(desk->graphs[i].exec);
        }
    }
    for (int i = 0; i < INPUT_BLOCKS; i++) {
        if (desk->blocks[i].taken != NULL) {
            (void)cudaEventDestroy(desk->blocks[i].taken);
        }
        (void)cudaFreeHost(desk->blocks[i].pinned);
    }
    cuda_fetch_close(&desk->fetch);
    (void)cudaFreeHost(desk->logits);
    cuda_choosing_destroy(desk->choosing);
    cuda_gemm_desk_destroy(desk->gemm);
    (void)cudaFreeHost(desk->stage);
    backend_free(backend, desk->inputs, desk->input_bytes);
    backend_free(backend, desk->scratch, desk->scratch_floats * sizeof *desk->scratch);
    mem_free(desk);
}

uint64_t cuda_desk_bytes(const struct pass_desk *desk)
{
    return desk->input_bytes + desk->scratch_floats * sizeof *desk->scratch + cuda_choosing_bytes(desk->choosing) +
           cuda_gemm_desk_bytes(desk->gemm) + recorded_bytes_of(desk);
}

struct cuda_gemm_desk *cuda_desk_gemm(const struct pass_desk *desk) { return desk->gemm; }

const float *cuda_pass_logits(const struct pass_desk *desk) { return desk->logits; }
struct cuda_logits cuda_desk_rows(const struct pass_desk *desk) { return desk->rows; }
struct cuda_fetch *cuda_desk_fetch(struct pass_desk *desk) { return &desk->fetch; }
struct cuda_choosing *cuda_desk_choosing(const struct pass_desk *desk) { return desk->choosing; }

struct cuda_room cuda_desk_room(const struct pass_desk *desk)
{
    return (struct cuda_room){ desk->n_segments, desk->scratch, desk->scratch_floats };
}

float *cuda_desk_stage(const struct pass_desk *desk, size_t n_floats)
{
    ASSERT(desk->stage != NULL && n_floats <= desk->shape.exchange_floats);
    return desk->stage;
}

/* ---- inputs ---- */
/* n_all values: those given, then pads. */
static const int32_t *pack_ints(struct packer *packer, const int32_t *from, int32_t n, int32_t n_all, int32_t pad)
{
    const void *device;
    int32_t *to = pack(packer, (size_t)n_all, sizeof *to, &device);
    for (int32_t i = 0; i < n_all; i++) {
        to[i] = i < n ? from[i] : pad;
    }
    return device;
}

static void pack_view(struct packer *packer, const struct kv_view *from, const struct kv_view *before,
                      int32_t most_pages, struct kv_view *to, const struct kv_view *to_before)
{
    const void *device = NULL;
    const int32_t n_pages = min_i32(from->n_pages, most_pages);
    *to = *from;
    if (before != NULL && before->pages == from->pages && before->n_pages == from->n_pages) {
        to->pages = to_before->pages; /* branches of one sequence */
    } else {
        uint32_t *pages = pack(packer, (size_t)n_pages, sizeof *pages, &device);
        if (n_pages > 0) {
            memcpy(pages, from->pages, (size_t)n_pages * sizeof *pages);
        }
        to->pages = device;
    }
    to->path = from->n_path > 0 ? pack_ints(packer, from->path, from->n_path, from->n_path, 0) : NULL;
}

static const struct kv_view *pack_views(struct packer *packer, const struct pass_inputs *inputs, int32_t most_pages)
{
    const void *device;
    struct kv_view *to = pack(packer, (size_t)inputs->n_seqs, sizeof *to, &device);
    for (int32_t i = 0; i < inputs->n_seqs; i++) {
        ASSERT(inputs->views[i].n_path <= KV_PATH_CAP);
        pack_view(packer, &inputs->views[i], i > 0 ? &inputs->views[i - 1] : NULL, most_pages, &to[i],
                  i > 0 ? &to[i - 1] : NULL);
    }
    return device;
}

/* Everything up to a row's position lies somewhere: kernels do not ask. */
static void check_rows(const struct pass_inputs *inputs)
{
    const int32_t page_slots = inputs->store->page_slots;
    for (int32_t i = 0; i < inputs->n_rows; i++) {
        const struct kv_view *view = &inputs->views[inputs->seq_of_row[i]];
        const int32_t last = inputs->position[i];
        const bool on_path = view->n_path > 0 && last >= view->fork;
        const int32_t n_in_pages = on_path ? view->fork : last + 1;
        ASSERT(n_in_pages >= 0 && (!on_path || last - view->fork < view->n_path));
        ASSERT((n_in_pages + page_slots - 1) / page_slots <= view->n_pages);
    }
}

/* The block that was sent longest ago; its copy has left the host long since. */
static struct input_block *take_block(struct pass_desk *desk)
{
    struct input_block *block = &desk->blocks[desk->next_block];
    desk->next_block = (desk->next_block + 1) % INPUT_BLOCKS;
    if (block->is_used) {
        cuda_ok(desk->backend, cudaEventSynchronize(block->taken), "sending inputs");
    }
    block->is_used = true;
    return block;
}

/* Counts of `to` include pads. */
static void send_inputs(struct pass_desk *desk, cudaStream_t stream, const struct pass_inputs *from,
                        struct pass_inputs *to)
{
    struct input_block *block = take_block(desk);
    struct packer packer = { block->pinned, desk->inputs, 0, desk->input_bytes };
    to->token = pack_ints(&packer, from->token, from->n_rows, to->n_rows, 0);
    to->position = pack_ints(&packer, from->position, from->n_rows, to->n_rows, -1);
    to->slot = pack_ints(&packer, from->slot, from->n_rows, to->n_rows, -1);
    to->seq_of_row = pack_ints(&packer, from->seq_of_row, from->n_rows, to->n_rows, 0);
    to->logits_row = pack_ints(&packer, from->logits_row, from->n_logits, to->n_logits, 0);
    if (from->own_token != NULL) {
        to->own_token = pack_ints(&packer, from->own_token, from->n_rows, to->n_rows, 0);
        to->part = pack_ints(&packer, from->part, from->n_rows, to->n_rows, 0);
    }
    to->views = pack_views(&packer, from, pages_cap(&desk->shape));
    cuda_ok(desk->backend, cudaMemcpyAsync(desk->inputs, block->pinned, packer.at, cudaMemcpyHostToDevice, stream),
            "sending inputs");
    cuda_ok(desk->backend, cudaEventRecord(block->taken, stream), "sending inputs");
}

/* ---- recorded passes ---- */
/* 1 to 8, then in steps of half the power of two below: 12, 16, 24, 32, 48, 64. */
static int32_t bucket_of(int32_t n)
{
    int32_t size = 8;
    if (n <= size) {
        return n;
    }
    while (size * 2 < n) {
        size *= 2;
    }
    return n <= size + size / 2 ? size + size / 2 : size * 2;
}

static int32_t count_segments(const struct pass_inputs *inputs)
{
    int32_t highest = 0;
    for (int32_t i = 0; i < inputs->n_rows; i++) {
        highest = inputs->position[i] > highest ? inputs->position[i] : highest;
    }
    return segments_of(highest + 1);
}

/* Powers of two, so that a growing text seldom comes to a new shape. */
static int32_t round_segments(int32_t n, int32_t most)
{
    int32_t rounded = 1;
    while (rounded < n) {
        rounded *= 2;
    }
    return min_i32(rounded, most);
}

static struct graph *find_graph(struct pass_desk *desk, const struct graph_key *key)
{
    for (int i = 0; i < desk->n_graphs; i++) {
        const struct graph_key *held = &desk->graphs[i].key;
        if (held->of_model == key->of_model && held->kv == key->kv && held->n_rows == key->n_rows &&
            held->n_logits == key->n_logits && held->n_layers == key->n_layers &&
            held->n_segments == key->n_segments) {
            return &desk->graphs[i];
        }
    }
    if (desk->n_graphs == MAX_GRAPHS) {
        return NULL; /* runs as it is */
    }
    desk->graphs[desk->n_graphs] = (struct graph){ .key = *key };
    return &desk->graphs[desk->n_graphs++];
}

/* The recording that this pass is, or is to become; its counts then include pads. NULL: it is none. */
static struct graph *choose_graph(struct pass_desk *desk, struct pass_inputs *inputs)
{
    const int32_t n_segments = count_segments(inputs);
    desk->n_segments = n_segments;
    if (!desk->backend->keeps_graphs || inputs->of_model == NULL || inputs->n_rows > MAX_GRAPH_ROWS ||
        desk->stage != NULL) {
        return NULL;
    }
    const struct graph_key key = {
        .of_model = inputs->of_model, .kv = inputs->store->k, .n_layers = inputs->n_layers,
        .n_rows = min_i32(bucket_of(inputs->n_rows), desk->shape.cap_rows),
        .n_logits = min_i32(bucket_of(inputs->n_logits), desk->shape.cap_logits),
        .n_segments = round_segments(n_segments, segments_of(desk->shape.context)),
    };
    struct graph *graph = find_graph(desk, &key);
    if (graph != NULL) {
        inputs->n_rows = key.n_rows;
        inputs->n_logits = key.n_logits;
        desk->n_segments = key.n_segments;
        graph->n_met += graph->n_met < 2;
    }
    return graph;
}

static bool may_record(const struct pass_desk *desk, const struct graph *graph)
{
    return graph != NULL && graph->n_met > 1 && desk->n_nodes + desk->longest <= desk->cap_nodes;
}

/* Ranks may have more kernels than others, and still are to record the same passes: each counts for the longest. */
static void count_nodes(struct pass_desk *desk, size_t n)
{
    if (desk->shape.exchange_floats > 0) {
        desk->n_nodes += desk->longest;
        return;
    }
    desk->n_nodes += (int64_t)n;
    desk->longest = (int64_t)n > desk->longest ? (int64_t)n : desk->longest;
}

static void end_recording(struct pass_desk *desk, cudaStream_t stream)
{
    struct cuda_backend *backend = desk->backend;
    cudaGraph_t graph = NULL;
    size_t n = 0;
    if (!cuda_ok(backend, cudaStreamEndCapture(stream, &graph), "recording a pass") ||
        !cuda_ok(backend, cudaGraphGetNodes(graph, NULL, &n), "recording a pass") ||
        !cuda_ok(backend, cudaGraphInstantiate(&desk->recording->exec, graph, 0), "recording a pass")) {
        desk->recording->exec = NULL;
    }
    count_nodes(desk, n);
    if (graph != NULL) {
        (void)cudaGraphDestroy(graph);
    }
    desk->replayed = desk->recording;
    desk->recording = NULL;
}

/* ---- a pass ---- */
enum pass_way cuda_pass_begin(struct lane *base, struct pass_desk *desk, struct pass_inputs *inputs)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    const cudaStream_t stream = cuda_lane_enter(lane);
    const struct pass_inputs from = *inputs;
    desk->recording = desk->replayed = NULL;
    if (stream == NULL) {
        return PASS_REPLAY; /* of nothing: the device has failed */
    }
    check_rows(inputs);
    lane->desk = desk;
    struct graph *graph = choose_graph(desk, inputs);
    send_inputs(desk, stream, &from, inputs);
    cuda_fetch_hold(desk->backend, &desk->fetch, stream);
    if (graph != NULL && graph->exec != NULL) {
        desk->replayed = graph;
        return PASS_REPLAY;
    }
    if (may_record(desk, graph) &&
        cuda_ok(desk->backend, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "recording a pass")) {
        desk->recording = graph;
    }
    return PASS_SUBMIT;
}

uint64_t cuda_pass_end(struct lane *base, struct pass_desk *desk, const struct pass_result *result)
{
    struct cuda_lane *lane = cuda_lane_of(base);
    const size_t bytes = (size_t)result->n_logits * (size_t)result->n_cols * sizeof(float);
    if (desk->recording != NULL) {
        end_recording(desk, lane->stream);
    }
    const cudaStream_t stream = cuda_lane_enter(lane);
    lane->desk = NULL;
    if (stream != NULL && desk->replayed != NULL) {
        cuda_ok(desk->backend, cudaGraphLaunch(desk->replayed->exec, stream), "a recorded pass");
    }
    ASSERT(result->n_logits <= desk->shape.cap_logits && result->n_cols <= desk->shape.n_vocab);
    desk->rows = (struct cuda_logits){ result->logits, result->n_logits, result->n_cols };
    if (stream != NULL && bytes > 0 && !result->stays) {
        cuda_ok(desk->backend, cudaMemcpyAsync(desk->logits, result->logits, bytes, cudaMemcpyDeviceToHost, stream),
                "fetching logits");
    }
    return cuda_lane_mark(base);
}
