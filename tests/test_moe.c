/* moe: the operations on experts against a plain reading of their rule, bit for bit: softmax over all
 * logits, the highest with lowest ids among equals, outputs added by ascending id from +0; for float
 * and quantised weights, every instruction set, 1 and 3 threads, 1 to 17 rows. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "backend/backend.h"

enum { DIM = 64, FFN = 96, EXPERTS = 7, USED = 3, MAX_ROWS = 17 };

struct scene {
    struct backend *backend;
    struct lane *lane;
    struct expert_weights gate, up, down;
    struct routes routes;
    void *routes_memory, *gathered_memory, *gated_memory;
    struct act gathered, gated;
    float *g, *u, *y; /* [places, *] */
};

static float noise(uint64_t seed, uint64_t i)
{
    return (float)(int32_t)(rng_mix64(seed * 7919 + i) >> 32) * 0x1p-31f;
}

/* One matrix per expert from random floats, in `type`. */
static struct expert_weights make_weights(struct backend *backend, enum tensor_type type,
                                          int32_t n_out, int32_t n_in, uint64_t seed)
{
    const struct tensor_type_info *info = tensor_type_info((uint32_t)type);
    const size_t row_bytes = (size_t)n_in / info->block_elems * info->block_bytes;
    const size_t stride = backend_weight_bytes(type, n_out, n_in);
    struct expert_weights weights = { .stride_bytes = stride };
    unsigned char *rows = mem_alloc((size_t)n_out, row_bytes);
    float *floats = mem_alloc((size_t)n_in, sizeof *floats);
    weights.first = (struct weight){ .type = type, .n_out = n_out, .n_in = n_in,
                                     .data = backend_alloc(backend, stride * EXPERTS) };
    for (int32_t e = 0; e < EXPERTS; e++) {
        struct weight one = weights.first;
        one.data += (size_t)e * stride;
        for (int32_t o = 0; o < n_out; o++) {
            for (int32_t i = 0; i < n_in; i++) {
                floats[i] = noise(seed, (uint64_t)((e * n_out + o) * n_in + i)) * 0.3f;
            }
            tensor_row_from_f32(type, floats, n_in, rows + (size_t)o * row_bytes);
        }
        backend_weight_fill(&one, 0, n_out, rows, row_bytes);
    }
    mem_free(floats);
    mem_free(rows);
    return weights;
}

static bool open_scene(struct scene *scene, const char *isa, int threads, enum tensor_type type)
{
    const int32_t places = MAX_ROWS * USED;
    *scene = (struct scene){ 0 };
    if (backend_create("cpu", isa, &scene->backend) != STATUS_OK) {
        print_message("skipped: this machine lacks %s\n", isa);
        return false;
    }
    assert_int_equal(lane_create(scene->backend, &(struct lane_options){ .n_workers = threads,
                                 .caller_is_worker = true }, &scene->lane), STATUS_OK);
    scene->gate = make_weights(scene->backend, type, FFN, DIM, 1);
    scene->up = make_weights(scene->backend, type, FFN, DIM, 2);
    scene->down = make_weights(scene->backend, type, DIM, FFN, 3);
    scene->routes_memory = mem_alloc(backend_routes_bytes(EXPERTS, USED, MAX_ROWS), 1);
    scene->gathered_memory = mem_alloc(backend_act_bytes(DIM, places), 1);
    scene->gated_memory = mem_alloc(backend_act_bytes(FFN, places), 1);
    backend_routes_init(&scene->routes, EXPERTS, USED, MAX_ROWS, scene->routes_memory);
    backend_act_init(&scene->gathered, DIM, places, scene->gathered_memory);
    backend_act_init(&scene->gated, FFN, places, scene->gated_memory);
    scene->g = mem_alloc((size_t)places * FFN, sizeof(float));
    scene->u = mem_alloc((size_t)places * FFN, sizeof(float));
    scene->y = mem_alloc((size_t)places * DIM, sizeof(float));
    return true;
}

static void close_scene(struct scene *scene)
{
    const struct expert_weights *weights[] = { &scene->gate, &scene->up, &scene->down };
    for (int i = 0; i < 3; i++) {
        backend_free(scene->backend, weights[i]->first.data, weights[i]->stride_bytes * EXPERTS);
    }
    mem_free(scene->y);
    mem_free(scene->u);
    mem_free(scene->g);
    mem_free(scene->gated_memory);
    mem_free(scene->gathered_memory);
    mem_free(scene->routes_memory);
    lane_destroy(scene->lane);
    backend_destroy(scene->backend);
}

/* All operations, in the order of a pass; x is added to. */
static void run(struct scene *scene, const float *logits, const int32_t *position,
                const float *normed, float *x, int32_t n_rows, bool normalised)
{
    const int kind = backend_act_kind(scene->gate.first.type);
    backend_route(scene->lane, &(struct op_route){ .logits = logits, .position = position,
                  .routes = &scene->routes, .n_rows = n_rows, .normalised = normalised });
    backend_gather(scene->lane, &(struct op_gather){.x = normed,
                                                    .routes = &scene->routes,
                                                    .n_rows = n_rows,
                                                    .kinds = kind,
                                                    .out = &scene->gathered});
    backend_expert_linear(scene->lane, &(struct op_expert_linear){
        .part = { { &scene->gate, scene->g }, { &scene->up, scene->u } }, .n_parts = 2,
        .x = &scene->gathered, .routes = &scene->routes, .n_rows = n_rows });
    backend_expert_swiglu(scene->lane, &(struct op_expert_swiglu){.gate = scene->g,
                                                                  .up = scene->u,
                                                                  .routes = &scene->routes,
                                                                  .n_rows = n_rows,
                                                                  .kinds = kind,
                                                                  .out = &scene->gated});
    backend_expert_linear(scene->lane, &(struct op_expert_linear){
        .part = { { &scene->down, scene->y } }, .n_parts = 1, .x = &scene->gated,
        .routes = &scene->routes, .n_rows = n_rows });
    backend_combine(
        scene->lane,
        &(struct op_combine){
            .y = scene->y, .x = x, .routes = &scene->routes, .n_rows = n_rows, .n_cols = DIM});
    lane_wait(scene->lane, lane_submit(scene->lane, NULL, NULL, 0, 0));
}

/* ---- the rule, read plainly: one row, one expert after the other ---- */

static void one_linear(struct scene *scene, const struct expert_weights *weights, int32_t expert,
                       const float *in, float *out)
{
    struct weight one = weights->first;
    one.data += (size_t)expert * weights->stride_bytes;
    void *memory = mem_alloc(backend_act_bytes(one.n_in, 1), 1);
    struct act act;
    backend_act_init(&act, one.n_in, 1, memory);
    memcpy(act.f32, in, (size_t)one.n_in * sizeof *in);
    backend_quantize(scene->lane, &(struct op_quantize){ .act = &act, .n_rows = 1 });
    backend_linear(scene->lane, &(struct op_linear){.part = {{.weight = &one, .out = out}},
                                                    .n_parts = 1,
                                                    .x = &act,
                                                    .n_rows = 1});
    lane_wait(scene->lane, lane_submit(scene->lane, NULL, NULL, 0, 0));
    mem_free(memory);
}

static void reference_row(struct scene *scene, const float *logits, const float *normed, float *x,
                          bool normalised)
{
    float probs[EXPERTS], acc[DIM] = { 0 }, max = logits[0], sum = 0;
    int chosen[EXPERTS] = { 0 };
    for (int e = 0; e < EXPERTS; e++) {
        max = logits[e] > max ? logits[e] : max;
        probs[e] = logits[e];
    }
    const float total = backend_exp_sum(scene->backend, probs, EXPERTS, max);
    for (int e = 0; e < EXPERTS; e++) {
        probs[e] /= total;
    }
    for (int e = 0; e < EXPERTS; e++) { /* chosen: fewer than USED are better */
        int better = 0;
        for (int o = 0; o < EXPERTS; o++) {
            better += probs[o] > probs[e] || (probs[o] == probs[e] && o < e);
        }
        chosen[e] = better < USED;
        sum += chosen[e] ? probs[e] : 0.0f;
    }
    for (int e = 0; e < EXPERTS; e++) {
        float gate[FFN], up[FFN], out[DIM];
        if (!chosen[e]) {
            continue;
        }
        one_linear(scene, &scene->gate, e, normed, gate);
        one_linear(scene, &scene->up, e, normed, up);
        for (int i = 0; i < FFN; i++) {
            gate[i] = mathx_silu(gate[i]) * up[i];
        }
        one_linear(scene, &scene->down, e, gate, out);
        const float weight = normalised ? probs[e] / sum : probs[e];
        for (int i = 0; i < DIM; i++) {
            acc[i] = fmaf(weight, out[i], acc[i]);
        }
    }
    for (int i = 0; i < DIM; i++) {
        x[i] += acc[i];
    }
}

/* Some rows have ties, one is a pad. */
static void fill(float *logits, int32_t *position, float *normed, float *x, int32_t n_rows)
{
    for (int32_t r = 0; r < n_rows; r++) {
        position[r] = r == 5 ? -1 : r;
        for (int32_t e = 0; e < EXPERTS; e++) {
            logits[r * EXPERTS + e] =
                r % 3 == 1 ? (float)(e % 2) : 3.0f * noise(11, (uint64_t)(r * EXPERTS + e));
        }
        for (int32_t i = 0; i < DIM; i++) {
            normed[r * DIM + i] = noise(12, (uint64_t)(r * DIM + i));
            x[r * DIM + i] = noise(13, (uint64_t)(r * DIM + i));
        }
    }
}

static void check(struct scene *scene, int32_t n_rows, bool normalised)
{
    static float logits[MAX_ROWS * EXPERTS], normed[MAX_ROWS * DIM], x[MAX_ROWS * DIM],
        want[MAX_ROWS * DIM];
    int32_t position[MAX_ROWS];
    fill(logits, position, normed, x, n_rows);
    memcpy(want, x, sizeof want);
    for (int32_t r = 0; r < n_rows; r++) {
        if (position[r] >= 0) {
            reference_row(scene, logits + r * EXPERTS, normed + r * DIM, want + r * DIM,
                          normalised);
        }
    }
    run(scene, logits, position, normed, x, n_rows, normalised);
    assert_memory_equal(x, want, (size_t)n_rows * DIM * sizeof *x);
}

static void check_type(enum tensor_type type)
{
    static const struct { const char *isa; int threads;
    } WAYS[] = {{"scalar", 1}, {"avx2", 1}, {"avx512", 1}, {"avx512", 3}};
    for (size_t w = 0; w < sizeof WAYS / sizeof WAYS[0]; w++) {
        struct scene scene;
        if (!open_scene(&scene, WAYS[w].isa, WAYS[w].threads, type)) {
            continue;
        }
        for (int32_t n = 1; n <= MAX_ROWS; n++) {
            check(&scene, n, n % 2 == 0);
        }
        close_scene(&scene);
    }
}

static void test_float_experts(void **state)
{
    (void)state;
    check_type(TENSOR_F32);
    check_type(TENSOR_BF16);
}

static void test_quantised_experts(void **state)
{
    (void)state;
    check_type(TENSOR_Q8_0);
    check_type(TENSOR_Q4_0);
}

/* Lowest ids among equals; rows of an expert ascending; only what is touched is listed and counted. */
static void test_routes(void **state)
{
    (void)state;
    enum { ROWS = 3 };
    struct scene scene;
    const float logits[ROWS * EXPERTS] = {1, 1, 1, 1,      1, 1, 1, /**/ 0, 9, 0, 9,
                                          0, 9, 9, /**/ 0, 1, 2, 3, 4,      5, 6};
    const int32_t position[ROWS] = { 4, 0, 7 };
    static float normed[ROWS * DIM], x[ROWS * DIM];
    assert_true(open_scene(&scene, "scalar", 1, TENSOR_F32));
    run(&scene, logits, position, normed, x, ROWS, false);
    const int32_t experts[ROWS * USED] = { 0, 1, 2, /**/ 1, 3, 5, /**/ 4, 5, 6 };
    assert_memory_equal(scene.routes.expert, experts, sizeof experts);
    const int32_t begin[EXPERTS + 1] = { 0, 1, 3, 4, 5, 6, 8, 9 };
    assert_memory_equal(scene.routes.begin, begin, sizeof begin);
    assert_int_equal(scene.routes.row[6], 1);
    assert_int_equal(scene.routes.row[7], 2);
    assert_int_equal(scene.routes.n_touched, 7);
    assert_int_equal(scene.routes.bytes_read, (uint64_t)EXPERTS * 3 * DIM * FFN * sizeof(float));
    run(&scene, logits, position, normed, x, 1, false);
    assert_int_equal(scene.routes.n_touched, USED);
    assert_int_equal(scene.routes.bytes_read,
                     (uint64_t)(EXPERTS + USED) * 3 * DIM * FFN * sizeof(float));
    close_scene(&scene);
}

/* What is no number reaches its own row, and no other. */
static void test_nan_stays_in_its_row(void **state)
{
    (void)state;
    enum { ROWS = 2 };
    struct scene scene;
    float logits[ROWS * EXPERTS], normed[ROWS * DIM], x[ROWS * DIM], want[ROWS * DIM];
    int32_t position[ROWS];
    assert_true(open_scene(&scene, "scalar", 1, TENSOR_Q8_0));
    fill(logits, position, normed, x, ROWS);
    memcpy(want, x, sizeof want);
    reference_row(&scene, logits + EXPERTS, normed + DIM, want + DIM, true);
    logits[2] = NAN;
    run(&scene, logits, position, normed, x, ROWS, true);
    assert_true(isnan(x[0]));
    assert_memory_equal(x + DIM, want + DIM, DIM * sizeof *x);
    close_scene(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_float_experts),
        cmocka_unit_test(test_quantised_experts),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_nan_stays_in_its_row),
    };
    return cmocka_run_group_tests_name("moe", tests, NULL, NULL);
}
