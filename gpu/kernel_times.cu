/* kernel_times: the kernels that a pass is made of, at the shapes of llama-8b, against the roofs of the same run.
 * Weights and KV rotate past the second-level cache, as a model's layers do.
 */
#include "gpu/bench.h"

#include <stdio.h>
#include <string.h>
#include <vector>

#include "backend/cuda/kernels.h"
#include "backend/cuda/weight.h"

enum { DIM = 4096, FFN = 14336, KV_DIM = 1024, VOCAB = 128256, MAX_ROWS = 64, N_HEADS = 32, N_KV_HEADS = 8,
       HEAD_DIM = 128, REPS = 9 };
static constexpr double REP_US = 1500;
static constexpr size_t ROTATED_BYTES = (size_t)400 << 20; /* several times a second-level cache */
static const double INTEGER_SHARE = 0.6; /* of the integer peak: what a kernel is held to (docs/SPEED.md) */

static void must_launch(int error, const char *what) { must((cudaError_t)error, what); }

static double max_of(double a, double b) { return a > b ? a : b; }

/* ---- linear ---- */

struct linear_shape { const char *name; int32_t n_in, n_parts, n_out[CUDA_LINEAR_PARTS]; };
static const linear_shape shapes[] = {
    { "qkv", DIM, 3, { DIM, KV_DIM, KV_DIM } }, { "attention-out", DIM, 1, { DIM } },
    { "gate-up", DIM, 2, { FFN, FFN } },        { "down", FFN, 1, { DIM } },
    { "head", DIM, 1, { VOCAB } },
};
static const int32_t row_counts[] = { 1, 2, 4, 8, 16, 64 };

struct linear_run {
    struct cuda_op_linear op;
    std::vector<unsigned char *> copies; /* of all parts' weights, one behind the other */
    size_t part_at[CUDA_LINEAR_PARTS];
};

static void launch_linear(void *context, int i)
{
    linear_run &run = *static_cast<linear_run *>(context);
    const unsigned char *data = run.copies[(size_t)i % run.copies.size()];
    for (int p = 0; p < run.op.n_parts; p++) {
        run.op.part[p].weight.data = data + run.part_at[p];
    }
    must_launch(cuda_linear(&run.op, nullptr), "cuda_linear");
}

static double file_bytes(enum tensor_type type, double n)
{
    return type == TENSOR_Q4_0 ? n * 18 / 32 : type == TENSOR_Q8_0 ? n * 34 / 32 : n * 2;
}

/* Microseconds: bytes of the file's format at the speed of reading, products at 0.6 of the peak that the type
 * can use on the exact plan. */
static double linear_bound(enum tensor_type type, double n_weights, int32_t rows)
{
    const double peak = type == TENSOR_BF16 ? roofs.fp32_tmac : roofs.int8_tmac;
    return max_of(file_bytes(type, n_weights) / roofs.read_gb * 1e-3,
                  n_weights * rows / (INTEGER_SHARE * peak) * 1e-6);
}

static void time_linear(linear_run &run, const linear_shape &shape, enum tensor_type type, const char *type_name)
{
    double one_row = 0, n_weights = 0;
    for (int p = 0; p < shape.n_parts; p++) {
        n_weights += (double)shape.n_in * shape.n_out[p];
    }
    for (const int32_t rows : row_counts) {
        if (seconds_left() < 5) {
            return;
        }
        run.op.n_rows = rows;
        struct result r = { "gpu-linear", "", "us", time_launches(launch_linear, &run, REPS, REP_US),
                            linear_bound(type, n_weights, rows), 1 };
        one_row = rows == 1 ? r.value.median : one_row;
        snprintf(r.shape, sizeof r.shape, "\"type\":\"%s\",\"shape\":\"%s\",\"rows\":%d,\"over_one_row\":%.3f",
                 type_name, shape.name, rows, r.value.median / one_row);
        put_result(&r);
    }
}

/* Copies of the weights of a shape, as many as make up ROTATED_BYTES. */
static bool linear_weights(linear_run &run, const linear_shape &shape, enum tensor_type type)
{
    size_t bytes = 0;
    for (int p = 0; p < shape.n_parts; p++) {
        run.part_at[p] = bytes;
        bytes += (cuda_weight_bytes(type, shape.n_out[p], shape.n_in) + 255) / 256 * 256;
    }
    for (size_t all = 0; all < ROTATED_BYTES || run.copies.size() < 2; all += bytes) {
        unsigned char *copy = static_cast<unsigned char *>(device_bytes(bytes, FILL_RANDOM));
        if (copy == nullptr) {
            return false;
        }
        run.copies.push_back(copy);
    }
    return true;
}

static void measure_shape(const linear_shape &shape, enum tensor_type type, const char *type_name)
{
    linear_run run = {};
    run.op.n_parts = shape.n_parts;
    run.op.x = { shape.n_in, shape.n_in, static_cast<float *>(device_bytes((size_t)MAX_ROWS * shape.n_in * 4, FILL_RANDOM)),
                 static_cast<unsigned char *>(device_bytes(cuda_act_q8_bytes(shape.n_in, MAX_ROWS), FILL_RANDOM)) };
    for (int p = 0; p < shape.n_parts; p++) {
        run.op.part[p].weight = { type, shape.n_out[p], shape.n_in, nullptr };
        run.op.part[p].out = static_cast<float *>(device_bytes((size_t)MAX_ROWS * shape.n_out[p] * 4, FILL_ZERO));
    }
    if (linear_weights(run, shape, type)) {
        time_linear(run, shape, type, type_name);
    } else {
        fprintf(stderr, "no memory for %s %s\n", type_name, shape.name);
    }
    for (unsigned char *copy : run.copies) {
        MUST(cudaFree(copy));
    }
    MUST(cudaFree(run.op.x.f32));
    MUST(cudaFree(run.op.x.q8));
    for (int p = 0; p < shape.n_parts; p++) {
        MUST(cudaFree(run.op.part[p].out));
    }
}

void measure_linear(void)
{
    static const struct { enum tensor_type type; const char *name; } types[] = {
        { TENSOR_Q4_0, "Q4_0" }, { TENSOR_Q8_0, "Q8_0" }, { TENSOR_BF16, "BF16" },
        { TENSOR_Q4_K, "Q4_K" }, { TENSOR_Q6_K, "Q6_K" },
    };
    for (const auto &type : types) {
        for (const linear_shape &shape : shapes) {
            if (type.type == TENSOR_Q6_K && shape.n_out[0] != VOCAB) {
                continue; /* what such files have it for */
            }
            measure_shape(shape, type.type, type.name);
        }
    }
}

/* ---- attention ---- */

enum { PAGE_SLOTS = 64, N_LAYERS = 6 };
struct attention_run { struct cuda_op_attention op; };

static void launch_attention(void *context, int i)
{
    attention_run &run = *static_cast<attention_run *>(context);
    run.op.layer = i % N_LAYERS;
    must_launch(cuda_attention(&run.op, nullptr), "cuda_attention");
}

/* Rows at the end of one sequence of `context` positions, pages in order. */
static bool attention_prepare(attention_run &run, int32_t context, int32_t n_rows)
{
    const int32_t n_pages = (context + PAGE_SLOTS - 1) / PAGE_SLOTS;
    struct kv_store store = {};
    store.type = KV_F16;
    store.n_layers = N_LAYERS;
    store.n_kv_heads = N_KV_HEADS;
    store.head_dim = HEAD_DIM;
    store.page_slots = PAGE_SLOTS;
    store.n_pages = n_pages;
    store.page_bytes = (size_t)PAGE_SLOTS * N_KV_HEADS * HEAD_DIM * 2;
    const size_t half = store.page_bytes * (size_t)n_pages * N_LAYERS;
    store.k = static_cast<unsigned char *>(device_bytes(half, FILL_ZERO));
    store.v = static_cast<unsigned char *>(device_bytes(half, FILL_ZERO));
    if (store.k == nullptr || store.v == nullptr) {
        return false;
    }
    std::vector<uint32_t> pages((size_t)n_pages);
    std::vector<int32_t> position((size_t)n_rows), seq((size_t)n_rows, 0);
    for (int32_t p = 0; p < n_pages; p++) {
        pages[(size_t)p] = (uint32_t)p;
    }
    for (int32_t i = 0; i < n_rows; i++) {
        position[(size_t)i] = context - n_rows + i;
    }
    struct kv_view view = {};
    view.pages = static_cast<const uint32_t *>(device_copy(pages.data(), pages.size() * 4));
    view.n_pages = n_pages;
    run.op.q = static_cast<const float *>(device_bytes((size_t)n_rows * N_HEADS * HEAD_DIM * 4, FILL_ZERO));
    run.op.out = static_cast<float *>(device_bytes((size_t)n_rows * N_HEADS * HEAD_DIM * 4, FILL_ZERO));
    run.op.views = static_cast<const struct kv_view *>(device_copy(&view, sizeof view));
    run.op.seq_of_row = static_cast<const int32_t *>(device_copy(seq.data(), seq.size() * 4));
    run.op.position = static_cast<const int32_t *>(device_copy(position.data(), position.size() * 4));
    run.op.store = store;
    run.op.n_rows = n_rows;
    run.op.n_heads = N_HEADS;
    run.op.scale = 0.088f;
    run.op.n_segments = (context + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS;
    run.op.scratch = static_cast<float *>(device_bytes(
        4 * cuda_attention_scratch_floats(n_rows, N_HEADS, HEAD_DIM, run.op.n_segments), FILL_ZERO));
    return run.op.scratch != nullptr;
}

void measure_attention(void)
{
    for (const int32_t context : { 128, 4096, 16384 }) {
        for (const int32_t n_rows : { 1, 4, 8 }) {
            attention_run run = {};
            if (seconds_left() < 5 || !attention_prepare(run, context, n_rows)) {
                return;
            }
            /* K and V once, whatever the rows: they are of one sequence */
            const double bytes = (double)context * N_KV_HEADS * HEAD_DIM * 2 * 2;
            const double macs = (double)context * N_HEADS * HEAD_DIM * 2 * n_rows;
            struct result r = { "gpu-attention", "", "us", time_launches(launch_attention, &run, REPS, REP_US),
                                max_of(bytes / roofs.read_gb * 1e-3, macs / (INTEGER_SHARE * roofs.fp32_tmac) * 1e-6), 1 };
            snprintf(r.shape, sizeof r.shape, "\"heads\":\"8x4x128\",\"kv\":\"f16\",\"context\":%d,\"rows\":%d", context, n_rows);
            put_result(&r);
        }
    }
}

/* ---- choices ---- */

struct choice_run {
    struct cuda_op_choose choose;
    struct cuda_op_sample sample;
    struct cuda_op_rank rank;
};

static void launch_choose(void *context, int)
{
    must_launch(cuda_choose(&static_cast<choice_run *>(context)->choose, nullptr), "cuda_choose");
}
static void launch_sample(void *context, int)
{
    must_launch(cuda_sample(&static_cast<choice_run *>(context)->sample, nullptr), "cuda_sample");
}
static void launch_rank(void *context, int)
{
    must_launch(cuda_rank(&static_cast<choice_run *>(context)->rank, nullptr), "cuda_rank");
}

/* Logits between -8 and 8, more of them in the middle. */
static std::vector<float> some_logits(size_t n)
{
    std::vector<float> logits(n);
    uint32_t word = 1;
    for (float &logit : logits) {
        logit = 0;
        for (int i = 0; i < 4; i++) {
            word = word * 1664525u + 1013904223u;
            logit += (float)(int32_t)word * 0x1p-30f;
        }
    }
    return logits;
}

static void put_choice(const char *how, int32_t rows, launch_fn launch, choice_run &run)
{
    struct result r = { "gpu-choose", "", "us", time_launches(launch, &run, REPS, REP_US),
                        (double)rows * VOCAB * 4 / roofs.read_gb * 1e-3, 1 };
    snprintf(r.shape, sizeof r.shape, "\"how\":\"%s\",\"vocab\":%d,\"rows\":%d", how, (int)VOCAB, rows);
    put_result(&r);
}

void measure_choices(void)
{
    enum { ROWS = 8, FORK = 24 };
    const std::vector<float> logits = some_logits((size_t)ROWS * VOCAB);
    struct cuda_choose_row choose_row[ROWS];
    struct cuda_rank_row rank_row[ROWS];
    struct cuda_sampling sampling[ROWS];
    memset(sampling, 0, sizeof sampling);
    for (int32_t i = 0; i < ROWS; i++) {
        choose_row[i] = { 7, 100 + i, 1.0f };
        rank_row[i] = { 7, 100 + i, 1.0f, -1, FORK };
        sampling[i].seed = 7;
        sampling[i].position = 100 + i;
        sampling[i].temperature = sampling[i].repetition_penalty = 1.0f;
        sampling[i].top_p = 0.95f;
        sampling[i].top_k = 50;
        sampling[i].n_top_logprobs = -1;
    }
    choice_run run = {};
    const float *on_device = static_cast<const float *>(device_copy(logits.data(), logits.size() * 4));
    float *scratch = static_cast<float *>(device_bytes(4 * cuda_sample_scratch_floats(ROWS, VOCAB), FILL_ZERO));
    run.choose = { on_device, static_cast<const struct cuda_choose_row *>(device_copy(choose_row, sizeof choose_row)),
                   static_cast<struct cuda_choice *>(device_bytes(ROWS * sizeof(struct cuda_choice), FILL_ZERO)),
                   static_cast<uint64_t *>(device_bytes(ROWS * CUDA_CHOOSE_SCRATCH * 8, FILL_ZERO)), ROWS, VOCAB };
    run.sample = { on_device, static_cast<const struct cuda_sampling *>(device_copy(sampling, sizeof sampling)),
                   static_cast<struct cuda_sampled *>(device_bytes(ROWS * sizeof(struct cuda_sampled), FILL_ZERO)),
                   scratch, ROWS, VOCAB };
    run.rank = { on_device, static_cast<const struct cuda_rank_row *>(device_copy(rank_row, sizeof rank_row)),
                 static_cast<int32_t *>(device_bytes(ROWS * FORK * 4, FILL_ZERO)), scratch, ROWS, VOCAB, FORK };
    for (const int32_t rows : { 1, 8 }) {
        run.choose.n_rows = run.sample.n_rows = run.rank.n_rows = rows;
        put_choice("coupled", rows, launch_choose, run);
        put_choice("top-k 50, top-p 0.95", rows, launch_sample, run);
        put_choice("24 likeliest", rows, launch_rank, run);
    }
}
