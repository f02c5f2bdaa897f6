/* Mixtures of experts on the device: routes, each expert's layers and what rows get out of it are the scalar
 * code's, for any number of rows, pads among them; places may lie elsewhere.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/simt/bed.h"

struct shape { enum tensor_type type; int32_t n_experts, n_used, n_rows, dim, ffn; };

/* Matrices [n_out, n_in] of every expert, for both. */
struct matrices { struct expert_weights cpu; unsigned char *device; size_t device_stride; };

static void matrices_init(struct matrices *m, const struct shape *s, int32_t n_out, int32_t n_in)
{
    const size_t cpu_bytes = backend_weight_bytes(s->type, n_out, n_in), row = bed_row_bytes(s->type, n_in);
    m->device_stride = cuda_weight_bytes(s->type, n_out, n_in);
    m->cpu = (struct expert_weights){ { s->type, n_out, n_in, mem_alloc((size_t)s->n_experts, cpu_bytes) }, cpu_bytes };
    m->device = bed_alloc((size_t)s->n_experts, m->device_stride);
    for (int32_t e = 0; e < s->n_experts; e++) {
        unsigned char *file = bed_file_rows(s->type, n_out, n_in);
        struct weight weight = m->cpu.first;
        weight.data += (size_t)e * cpu_bytes;
        backend_weight_fill(&weight, 0, n_out, file, row);
        cuda_weight_fill(s->type, n_in, 0, n_out, file, row, m->device + (size_t)e * m->device_stride);
        mem_free(file);
    }
}

static void matrices_deinit(struct matrices *m)
{
    mem_free(m->cpu.first.data);
    bed_free(m->device);
}

struct fixture {
    struct shape shape;
    struct bed bed;
    struct matrices gate, up, down;
    float *x, *logits;           /* [n_rows, dim], [n_rows, n_experts] */
    int32_t *position;
    /* the host's */
    struct routes routes;
    void *routes_memory;
    float *gate_out, *up_out, *down_out, *x_out;
    /* the device's */
    struct cuda_routes device_routes;
    void *device_routes_memory;
    int32_t n_places;
};

static void fixture_init(struct fixture *f, const struct shape *s)
{
    memset(f, 0, sizeof *f);
    f->shape = *s;
    bed_init_seeded(&f->bed, (uint64_t)s->n_rows + 100 * (uint64_t)s->type);
    matrices_init(&f->gate, s, s->ffn, s->dim);
    matrices_init(&f->up, s, s->ffn, s->dim);
    matrices_init(&f->down, s, s->dim, s->ffn);
    f->x = bed_floats((size_t)s->n_rows * (size_t)s->dim);
    f->logits = bed_alloc((size_t)s->n_rows * (size_t)s->n_experts, sizeof(float));
    f->position = bed_alloc((size_t)s->n_rows, sizeof(int32_t));
    for (int32_t i = 0; i < s->n_rows * s->n_experts; i++) { /* in steps: ties */
        f->logits[i] = (float)(int32_t)(bed_float() * 5.0f) * 0.5f + (i % 3 ? 0.0f : bed_float());
    }
    for (int32_t i = 0; i < s->n_rows; i++) {
        f->position[i] = i % 7 == 4 ? -1 : i;
    }
    const size_t places = (size_t)(s->n_rows * s->n_used);
    f->routes_memory = mem_alloc(1, backend_routes_bytes(s->n_experts, s->n_used, s->n_rows));
    backend_routes_init(&f->routes, s->n_experts, s->n_used, s->n_rows, f->routes_memory);
    f->gate_out = mem_alloc(places * (size_t)s->ffn, sizeof(float));
    f->up_out = mem_alloc(places * (size_t)s->ffn, sizeof(float));
    f->down_out = mem_alloc(places * (size_t)s->dim, sizeof(float));
    f->x_out = mem_alloc((size_t)s->n_rows * (size_t)s->dim, sizeof(float));
    f->device_routes_memory = bed_output(cuda_routes_bytes(s->n_experts, s->n_used, s->n_rows), 1);
    cuda_routes_init(&f->device_routes, s->n_experts, s->n_used, s->n_rows, f->device_routes_memory);
    f->n_places = cuda_routes_places(&f->device_routes);
}

static void fixture_deinit(struct fixture *f)
{
    matrices_deinit(&f->gate);
    matrices_deinit(&f->up);
    matrices_deinit(&f->down);
    bed_free(f->x);
    bed_free(f->logits);
    bed_free(f->position);
    mem_free(f->routes_memory);
    mem_free(f->gate_out);
    mem_free(f->up_out);
    mem_free(f->down_out);
    mem_free(f->x_out);
    bed_output_free(f->device_routes_memory);
    bed_deinit(&f->bed);
}

/* What the host makes of it. */
static void expect(struct fixture *f, bool normalised)
{
    const struct shape *s = &f->shape;
    const int32_t places = s->n_rows * s->n_used;
    const int kinds = backend_act_kind(s->type);
    struct act in, mid;
    void *in_memory = mem_alloc(1, backend_act_bytes(s->dim, places));
    void *mid_memory = mem_alloc(1, backend_act_bytes(s->ffn, places));
    backend_act_init(&in, s->dim, places, in_memory);
    backend_act_init(&mid, s->ffn, places, mid_memory);
    memcpy(f->x_out, f->x, (size_t)s->n_rows * (size_t)s->dim * sizeof(float));
    struct lane *lane = f->bed.lane;
    backend_route(lane, &(struct op_route){ f->logits, f->position, &f->routes, s->n_rows, normalised });
    backend_gather(lane, &(struct op_gather){ f->x, &f->routes, s->n_rows, kinds, &in });
    backend_expert_linear(lane, &(struct op_expert_linear){
        .part = { { &f->gate.cpu, f->gate_out }, { &f->up.cpu, f->up_out } }, .n_parts = 2, .x = &in,
        .routes = &f->routes, .n_rows = s->n_rows });
    backend_expert_swiglu(lane, &(struct op_expert_swiglu){ f->gate_out, f->up_out, &f->routes, s->n_rows, kinds, &mid });
    backend_expert_linear(lane, &(struct op_expert_linear){
        .part = { { &f->down.cpu, f->down_out } }, .n_parts = 1, .x = &mid, .routes = &f->routes, .n_rows = s->n_rows });
    backend_combine(lane, &(struct op_combine){ f->down_out, f->x_out, &f->routes, s->n_rows, s->dim });
    bed_wait(&f->bed);
    mem_free(in_memory);
    mem_free(mid_memory);
}

static void check_routes(const struct fixture *f)
{
    const struct shape *s = &f->shape;
    const struct cuda_routes *found = &f->device_routes;
    int32_t n_touched = 0, begin = 0;
    for (int32_t i = 0; i < s->n_rows * s->n_used; i++) {
        const bool pad = f->position[i / s->n_used] < 0;
        assert_int_equal(found->place[i] < 0, pad);
        if (!pad) {
            assert_int_equal(found->expert[i], f->routes.expert[i]);
            bed_assert_same("weight", &found->weight[i], &f->routes.weight[i], 1);
            assert_int_equal(found->row[found->place[i]], i / s->n_used);
            assert_int_equal(found->owner[found->place[i]], found->expert[i]);
        }
    }
    for (int32_t e = 0; e < s->n_experts; e++) {
        const int32_t count = f->routes.begin[e + 1] - f->routes.begin[e];
        assert_int_equal(found->count[e], count);
        assert_int_equal(found->begin[e], begin);
        assert_int_equal(begin % 8, 0);
        begin += (count + 7) / 8 * 8;
        if (count > 0) {
            assert_int_equal(found->touched[n_touched++], e);
        }
        for (int32_t p = found->begin[e] + count; p < begin; p++) {
            assert_int_equal(found->row[p], -1);
        }
    }
    assert_int_equal(found->begin[s->n_experts], begin);
    assert_int_equal(found->touched[s->n_experts], n_touched);
    assert_true(begin <= f->n_places);
}

/* Rows of places, wherever each side has them. */
static void check_places(const struct fixture *f, const char *what, const float *found, const float *expected,
                         int32_t n_cols)
{
    for (int32_t i = 0; i < f->shape.n_rows * f->shape.n_used; i++) {
        if (f->routes.place[i] >= 0) {
            bed_assert_same(what, found + (size_t)f->device_routes.place[i] * (size_t)n_cols,
                            expected + (size_t)f->routes.place[i] * (size_t)n_cols, (size_t)n_cols);
        }
    }
}

static void run(struct fixture *f, bool normalised)
{
    const struct shape *s = &f->shape;
    const size_t places = (size_t)f->n_places;
    struct bed_act in, mid;
    bed_act_init(&in, NULL, f->n_places, s->dim);
    bed_act_init(&mid, NULL, f->n_places, s->ffn);
    float *gate = bed_output(places * (size_t)s->ffn, 4), *up = bed_output(places * (size_t)s->ffn, 4);
    float *down = bed_output(places * (size_t)s->dim, 4), *x = bed_output((size_t)(s->n_rows * s->dim), 4);
    const bool panels = backend_act_kind(s->type) == ACT_Q8;
    memcpy(x, f->x, (size_t)(s->n_rows * s->dim) * 4);
    struct cuda_act in_act = in.device, mid_act = mid.device;
    in_act.q8 = panels ? in_act.q8 : NULL;
    mid_act.q8 = panels ? mid_act.q8 : NULL;
    BED_RUN(cuda_route, &(struct cuda_op_route){ f->logits, f->position, f->device_routes, s->n_rows, normalised });
    check_routes(f);
    BED_RUN(cuda_gather, &(struct cuda_op_gather){ f->x, f->device_routes, s->n_rows, in_act });
    const struct cuda_weight w_gate = { s->type, s->ffn, s->dim, f->gate.device };
    const struct cuda_weight w_up = { s->type, s->ffn, s->dim, f->up.device };
    const struct cuda_weight w_down = { s->type, s->dim, s->ffn, f->down.device };
    BED_RUN(cuda_expert_linear, &(struct cuda_op_expert_linear){
        .part = { { w_gate, f->gate.device_stride, gate }, { w_up, f->up.device_stride, up } }, .n_parts = 2,
        .n_rows = s->n_rows, .x = in_act, .routes = f->device_routes });
    check_places(f, "gate", gate, f->gate_out, s->ffn);
    check_places(f, "up", up, f->up_out, s->ffn);
    BED_RUN(cuda_expert_swiglu, &(struct cuda_op_expert_swiglu){ gate, up, f->device_routes, s->n_rows, mid_act });
    BED_RUN(cuda_expert_linear, &(struct cuda_op_expert_linear){
        .part = { { w_down, f->down.device_stride, down } }, .n_parts = 1, .n_rows = s->n_rows, .x = mid_act,
        .routes = f->device_routes });
    check_places(f, "down", down, f->down_out, s->dim);
    BED_RUN(cuda_combine, &(struct cuda_op_combine){ down, x, f->device_routes, s->n_rows, s->dim });
    bed_assert_same("combined", x, f->x_out, (size_t)(s->n_rows * s->dim));
    bed_act_deinit(&in);
    bed_act_deinit(&mid);
    bed_output_free(gate);
    bed_output_free(up);
    bed_output_free(down);
    bed_output_free(x);
}

static void check(const struct shape *shape)
{
    struct fixture f;
    fixture_init(&f, shape);
    for (int turn = 0; turn < 2; turn++) {
        bed_order(turn);
        expect(&f, turn == 0);
        run(&f, turn == 0);
    }
    fixture_deinit(&f);
}

static bool quick(void) { return getenv("TANDEM_TEST_QUICK") != NULL; }

static void every_type(void **state)
{
    static const enum tensor_type types[] = { TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0,
                                              TENSOR_Q4_0, TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_Q4_1, TENSOR_Q5_0,
                                              TENSOR_Q5_1, TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q5_K };
    (void)state;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const int32_t dim = tensor_type_info((uint32_t)types[t])->block_elems == 256 ? 256 : 96;
        check(&(struct shape){ types[t], 5, 2, 9, dim, 256 });
    }
}

/* One row an expert, some, a panel, more than one launch of rows takes. */
static void any_number_of_rows(void **state)
{
    static const struct shape shapes[] = {
        { TENSOR_Q4_0, 8, 2, 1, 64, 32 },   { TENSOR_Q4_0, 16, 4, 3, 32, 96 }, { TENSOR_Q8_0, 3, 3, 17, 32, 64 },
        { TENSOR_F16, 130, 6, 5, 33, 20 },  { TENSOR_Q4_0, 2, 1, 75, 32, 32 }, { TENSOR_BF16, 1, 1, 90, 16, 24 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i += quick() ? 2 : 1) {
        check(&shapes[i]);
    }
}

static void a_row_that_is_no_number_stays_there(void **state)
{
    const struct shape shape = { TENSOR_F32, 6, 2, 3, 8, 8 };
    struct fixture f;
    (void)state;
    fixture_init(&f, &shape);
    f.logits[6 + 2] = MATHX_NAN;
    expect(&f, true);
    BED_RUN(cuda_route, &(struct cuda_op_route){ f.logits, f.position, f.device_routes, 3, 1 });
    for (int32_t i = 0; i < 6; i++) {
        assert_int_equal(f.device_routes.expert[i], f.routes.expert[i]);
        assert_int_equal(f.device_routes.weight[i] != f.device_routes.weight[i], i / 2 == 1);
    }
    fixture_deinit(&f);
}

static void what_cannot_be_is_refused(void **state)
{
    const struct shape shape = { TENSOR_F32, 6, 2, 3, 8, 8 };
    struct fixture f;
    (void)state;
    fixture_init(&f, &shape);
    struct cuda_op_route op = { f.logits, f.position, f.device_routes, 4, 1 };
    assert_int_not_equal(cuda_route(&op, NULL), 0); /* more rows than there is room for */
    assert_int_equal(cuda_routes_bytes(1025, 2, 4), 0);
    assert_int_equal(cuda_routes_bytes(4, 5, 4), 0);
    assert_int_equal(cuda_routes_bytes(4, 2, INT32_MAX), 0);
    struct cuda_op_expert_linear linear = { .n_parts = 1, .n_rows = 1, .x = { .n_cols = 8 }, .routes = f.device_routes };
    linear.part[0].weights = (struct cuda_weight){ TENSOR_IQ4_NL, 8, 8, f.gate.device };
    assert_int_not_equal(cuda_expert_linear(&linear, NULL), 0);
    fixture_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type), cmocka_unit_test(any_number_of_rows),
        cmocka_unit_test(a_row_that_is_no_number_stays_there), cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
