/* kernels: each kernel alone, per instruction set, on buffers far beyond the caches.
 *
 * Weights, rows and KV are cycled through so that nothing is found in a cache. bound = max(bytes /
 * read bandwidth, MACs / (0.6 * integer peak), FMAs / (0.6 * fp32 peak)) with the roofs of the same
 * instruction set; bytes are those of the file's format for weights, of what is read and written for
 * row operations.
 */
#include <string.h>

#include "bench/measure.h"

enum { N_IN = 2048, N_OUT = 8192, MAX_ROWS = 8, ROW_COLS = 2048, MAX_MATRICES = 64 };
enum { HEADS = 32, KV_HEADS = 8, HEAD_DIM = 128, POSITIONS = 4096, PAGE = 64 };

struct kernel_stage {
    const struct bench_options *options;
    struct backend *backend;
    struct lane *lane;
    int cpus[RIG_MAX_CPUS], threads;
    size_t buffer_bytes;     /* what is cycled through, at least */
    uint64_t turn;           /* which of the cycled things is next */
    double seconds;          /* of one sample */
};
/* A kernel: run() submits and waits for one call. */
struct kernel {
    const char *name;
    json_t *shape;           /* taken over */
    double bytes, macs, fmas;
    int kinds;               /* of roofs */
    void (*run)(struct kernel_stage *stage, void *self);
    void *self;
};

static enum status measure_kernel(struct kernel_stage *stage, const struct kernel *kernel)
{
    struct samples times = {0};
    struct roofs roofs = {.backend = stage->backend, .cpus = stage->cpus, .threads = stage->threads,
                          .kinds = kernel->kinds, .seconds = stage->seconds};
    const int reps = bench_reps(stage->options, 5, 2);
    kernel->run(stage, kernel->self);
    roofs_take(&roofs);
    for (int i = 0; i < reps; i++) {
        const int64_t begin = clock_now_ns();
        int64_t now = begin, n = 0;
        for (; (double)(now - begin) < stage->seconds * 1e9; n++) {
            kernel->run(stage, kernel->self);
            now = clock_now_ns();
        }
        samples_add(&times, (double)(now - begin) * 1e-3 / (double)n);
        roofs_take(&roofs);
    }
    const char *isa = isa_name(backend_isa(stage->backend));
    return line_write(stage->options, &(struct line){
        .bench = "kernels", .unit = "us", .better = LOWER, .values = &times, .roofs = &roofs,
        .bound = roofs_bound(&roofs, kernel->bytes, kernel->macs, kernel->fmas, 0.6) * 1e6,
        .roof = roofs_bound(&roofs, kernel->bytes, kernel->macs, kernel->fmas, 1) * 1e6, .isa = isa,
        .which = json_pack("{s:s,s:s,s:o}", "kernel", kernel->name, "isa", isa, "shape", kernel->shape),
    });
}

static void fill_random(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(rng_mix64(i) >> 40) * (2.0f / 16777216.0f) - 1.0f;
    }
}

/* ---- linear ---- */
struct linear_case {
    struct weight weight[MAX_MATRICES]; /* cycled: together beyond the caches */
    int n_matrices;
    size_t weight_bytes;
    struct act act;
    unsigned char *act_memory;
    float *out;              /* [MAX_ROWS, N_OUT] */
    int32_t n_rows;
};

static void linear_run(struct kernel_stage *stage, void *user)
{
    struct linear_case *self = user;
    struct op_linear op = {.n_parts = 1, .x = &self->act, .n_rows = self->n_rows};
    op.part[0].weight = &self->weight[stage->turn++ % (uint64_t)self->n_matrices];
    op.part[0].out = self->out;
    backend_linear(stage->lane, &op);
    lane_wait(stage->lane, lane_submit(stage->lane, NULL, NULL, 0, 0));
}

static void linear_free(struct kernel_stage *stage, struct linear_case *self)
{
    for (int i = 0; i < self->n_matrices; i++) {
        backend_free(stage->backend, self->weight[i].data, self->weight_bytes);
    }
    mem_free(self->act_memory);
    mem_free(self->out);
}

/* Every row of every matrix is the same one: its numbers do not change how long a product takes. */
static enum status linear_fill(struct kernel_stage *stage, struct linear_case *self, enum tensor_type type)
{
    float row[N_IN];
    unsigned char file_row[N_IN * sizeof(float)];
    fill_random(row, N_IN);
    tensor_row_from_f32(type, row, N_IN, file_row);
    self->weight_bytes = backend_weight_bytes(type, N_OUT, N_IN);
    const size_t wanted = stage->buffer_bytes / self->weight_bytes + 1;
    self->act_memory = mem_alloc(backend_act_bytes(N_IN, MAX_ROWS), 1);
    self->out = mem_alloc((size_t)MAX_ROWS * N_OUT, sizeof *self->out);
    if (!self->act_memory || !self->out) {
        return status_fail(STATUS_NO_MEMORY, "no memory for activations");
    }
    for (size_t i = 0; i < wanted && i < MAX_MATRICES; i++) {
        struct weight *weight = &self->weight[i];
        *weight = (struct weight){.type = type, .n_out = N_OUT, .n_in = N_IN,
                                  .data = backend_alloc(stage->backend, self->weight_bytes)};
        if (!weight->data) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of weights", self->weight_bytes);
        }
        self->n_matrices++;
        backend_weight_fill(weight, 0, N_OUT, file_row, 0);
    }
    return STATUS_OK;
}

static enum status linear_type(struct kernel_stage *stage, enum tensor_type type)
{
    static const int32_t rows[] = {1, 8};
    struct linear_case self = {0};
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    const int quantised = backend_act_kind(type) == ACT_Q8;
    enum status status;
    TRY_GOTO(linear_fill(stage, &self, type), out);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        self.n_rows = rows[i];
        backend_act_init(&self.act, N_IN, MAX_ROWS, self.act_memory);
        fill_random(self.act.f32, (size_t)rows[i] * N_IN);
        backend_quantize(stage->lane, &(struct op_quantize){&self.act, rows[i]});
        const double products = (double)N_IN * N_OUT * rows[i];
        char name[32];
        snprintf(name, sizeof name, "linear_%s", info->name);
        for (char *c = name; *c; c++) {
            *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
        }
        TRY_GOTO(measure_kernel(stage, &(struct kernel){
            .name = name, .run = linear_run, .self = &self,
            .bytes = (double)N_OUT * N_IN / info->block_elems * info->block_bytes,
            .macs = quantised ? products : 0, .fmas = quantised ? 0 : products,
            .kinds = ROOF_READ | (quantised ? ROOF_INTEGER : ROOF_FLOAT),
            .shape = json_pack("[i,i,i]", (int)rows[i], N_OUT, N_IN),
        }), out);
    }
out:
    linear_free(stage, &self);
    return status;
}

/* ---- rows: norm, quantize, swiglu ---- */
struct rows_case {
    struct act act;
    float *x, *y, *weight;   /* [n_rows, ROW_COLS] twice, [ROW_COLS] */
    unsigned char *act_memory;
    size_t act_bytes, x_bytes;
    int32_t n_rows;
};

static void norm_run(struct kernel_stage *stage, void *user)
{
    struct rows_case *self = user;
    backend_norm(stage->lane, &(struct op_norm){.x = self->x, .weight = self->weight, .eps = 1e-5f,
                                                .n_rows = self->n_rows, .kinds = ACT_F32, .out = &self->act});
    lane_wait(stage->lane, lane_submit(stage->lane, NULL, NULL, 0, 0));
}

static void quantize_run(struct kernel_stage *stage, void *user)
{
    struct rows_case *self = user;
    backend_quantize(stage->lane, &(struct op_quantize){&self->act, self->n_rows});
    lane_wait(stage->lane, lane_submit(stage->lane, NULL, NULL, 0, 0));
}

static void swiglu_run(struct kernel_stage *stage, void *user)
{
    struct rows_case *self = user;
    backend_swiglu(stage->lane, &(struct op_swiglu){.gate = self->x, .up = self->y, .n_rows = self->n_rows,
                                                    .kinds = ACT_F32, .out = &self->act});
    lane_wait(stage->lane, lane_submit(stage->lane, NULL, NULL, 0, 0));
}

static void rows_free(struct kernel_stage *stage, struct rows_case *self)
{
    backend_free(stage->backend, self->act_memory, self->act_bytes);
    backend_free(stage->backend, self->x, self->x_bytes);
    backend_free(stage->backend, self->y, self->x_bytes);
    mem_free(self->weight);
}

static enum status rows_kernels(struct kernel_stage *stage)
{
    struct rows_case self = {.n_rows = (int32_t)(stage->buffer_bytes / 2 / ROW_COLS / sizeof(float))};
    enum status status = STATUS_OK;
    self.x_bytes = (size_t)self.n_rows * ROW_COLS * sizeof(float);
    self.act_bytes = backend_act_bytes(ROW_COLS, self.n_rows);
    self.act_memory = backend_alloc(stage->backend, self.act_bytes);
    self.x = backend_alloc(stage->backend, self.x_bytes);
    self.y = backend_alloc(stage->backend, self.x_bytes);
    self.weight = mem_alloc(ROW_COLS, sizeof *self.weight);
    if (!self.act_memory || !self.x || !self.y || !self.weight) {
        status = status_fail(STATUS_NO_MEMORY, "no memory for %d rows", self.n_rows);
        goto out;
    }
    backend_act_init(&self.act, ROW_COLS, self.n_rows, self.act_memory);
    fill_random(self.x, (size_t)self.n_rows * ROW_COLS);
    fill_random(self.y, (size_t)self.n_rows * ROW_COLS);
    fill_random(self.weight, ROW_COLS);
    const double elements = (double)self.n_rows * ROW_COLS;
    const struct kernel kernels[] = {
        {"norm", NULL, elements * 8, 0, 0, ROOF_READ, norm_run, &self},
        {"quantize", NULL, elements * (4 + 40.0 / 32), 0, 0, ROOF_READ, quantize_run, &self},
        {"swiglu", NULL, elements * 12, 0, 0, ROOF_READ, swiglu_run, &self},
    };
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        struct kernel kernel = kernels[i];
        kernel.shape = json_pack("[i,i]", (int)self.n_rows, ROW_COLS);
        TRY_GOTO(measure_kernel(stage, &kernel), out);
    }
out:
    rows_free(stage, &self);
    return status;
}

/* ---- attention ---- */
struct attention_case {
    struct kv_store store;
    struct kv_view view;
    uint32_t pages[POSITIONS / PAGE];
    float *q, *out;          /* [HEADS, HEAD_DIM] */
    int32_t position, seq_of_row;
};

static void attention_run(struct kernel_stage *stage, void *user)
{
    struct attention_case *self = user;
    const struct op_attention op = {
        .q = self->q, .out = self->out, .views = &self->view, .seq_of_row = &self->seq_of_row,
        .position = &self->position, .store = &self->store, .n_rows = 1, .n_heads = HEADS,
        .layer = (int32_t)(stage->turn++ % (uint64_t)self->store.n_layers), .scale = 0.088388348f,
    };
    backend_attention(stage->lane, &op);
    lane_wait(stage->lane, lane_submit(stage->lane, NULL, NULL, 0, 0));
}

static void store_fill(struct kv_store *store)
{
    const size_t n = store->page_bytes * (size_t)store->n_pages * (size_t)store->n_layers / 2;
    uint16_t *const halves[2] = {(uint16_t *)(void *)store->k, (uint16_t *)(void *)store->v};
    for (int part = 0; part < 2; part++) {
        for (size_t i = 0; i < n; i++) {
            halves[part][i] = (uint16_t)(0x3000u | (rng_mix64(i / 4) >> (16 * (i % 4)) & 0x83ffu));
        }
    }
}

static enum status attention_kernel(struct kernel_stage *stage)
{
    const double layer_bytes = 2.0 * 2 * POSITIONS * KV_HEADS * HEAD_DIM;
    struct attention_case self = {
        .store = {.type = KV_F16, .n_layers = (int32_t)((double)stage->buffer_bytes / layer_bytes) + 1,
                  .n_kv_heads = KV_HEADS, .head_dim = HEAD_DIM, .page_slots = PAGE, .n_pages = POSITIONS / PAGE},
        .view = {.n_pages = POSITIONS / PAGE}, .position = POSITIONS - 1,
    };
    enum status status;
    TRY(kv_store_init(stage->backend, &self.store));
    store_fill(&self.store);
    for (uint32_t i = 0; i < POSITIONS / PAGE; i++) {
        self.pages[i] = i * 37 % (POSITIONS / PAGE); /* not in the order of memory */
    }
    self.view.pages = self.pages;
    self.q = mem_alloc((size_t)2 * HEADS * HEAD_DIM, sizeof *self.q);
    if (!self.q) {
        status = status_fail(STATUS_NO_MEMORY, "no memory for a row of queries");
        goto out;
    }
    self.out = self.q + (size_t)HEADS * HEAD_DIM;
    fill_random(self.q, (size_t)HEADS * HEAD_DIM);
    status = measure_kernel(stage, &(struct kernel){
        .name = "attention_f16", .run = attention_run, .self = &self, .bytes = layer_bytes,
        .fmas = 2.0 * POSITIONS * HEADS * HEAD_DIM, .kinds = ROOF_READ | ROOF_FLOAT,
        .shape = json_pack("{s:i,s:i,s:i,s:i}", "positions", POSITIONS, "heads", HEADS, "kv_heads", KV_HEADS,
                           "head_dim", HEAD_DIM),
    });
out:
    mem_free(self.q);
    kv_store_deinit(stage->backend, &self.store);
    return status;
}

/* ---- all of them ---- */
static enum status kernels_isa(const struct bench_options *options, const char *isa)
{
    static const enum tensor_type types[] = {TENSOR_Q4_0, TENSOR_Q8_0, TENSOR_Q4_K, TENSOR_Q6_K,
                                            TENSOR_F16, TENSOR_BF16, TENSOR_F32};
    struct kernel_stage stage = {.options = options, .seconds = options->quick ? 0.03 : 0.15,
                                 .threads = options->threads ? options->threads : 1};
    const size_t beyond = (size_t)machine_get()->l3_bytes * (options->quick ? 3 : 8);
    cpu_set_t affinity;
    int n_physical = 0;
    enum status status;
    CPU_ZERO(&affinity);
    sched_getaffinity(0, sizeof affinity, &affinity);
    TRY(backend_create("cpu", isa, &stage.backend));
    stage.buffer_bytes = beyond < (64u << 20) ? 64u << 20 : beyond > (512u << 20) ? 512u << 20 : beyond;
    if (stage.threads > backend_cpu_list(stage.cpus, RIG_MAX_CPUS, &n_physical)) {
        status = status_fail(STATUS_USAGE, "--threads %d is more than the cores this process may use",
                             stage.threads);
        goto out;
    }
    TRY_GOTO(lane_create(stage.backend, &(struct lane_options){
        .cpus = stage.cpus, .n_workers = stage.threads, .caller_is_worker = true}, &stage.lane), out);
    lane_pin_caller(stage.lane);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        TRY_GOTO(linear_type(&stage, types[i]), out);
    }
    TRY_GOTO(rows_kernels(&stage), out);
    status = attention_kernel(&stage);
out:
    if (stage.lane) {
        lane_destroy(stage.lane);
    }
    backend_destroy(stage.backend);
    sched_setaffinity(0, sizeof affinity, &affinity);
    return status;
}

enum status bench_kernels(const struct bench_options *options)
{
    if (options->isa) {
        return kernels_isa(options, options->isa);
    }
    for (int isa = ISA_COUNT - 1; isa >= 0; isa--) {
        const char *name = isa_name((enum isa)isa);
        struct backend *backend = NULL;
        if (backend_create("cpu", name, &backend) == STATUS_OK) { /* else: not on this machine */
            backend_destroy(backend);
            TRY(kernels_isa(options, name));
        }
    }
    return STATUS_OK;
}
