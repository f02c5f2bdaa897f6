/* Linear layers on the device: every type, shape and number of rows gives the scalar code's bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/simt/bed.h"

static const enum tensor_type types[] = { TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0,
                                          TENSOR_Q4_0, TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_Q4_1, TENSOR_Q5_0,
                                          TENSOR_Q5_1, TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q5_K };
enum { N_TYPES = sizeof types / sizeof *types, N_ALL_ROWS = 17 };

struct shape { int32_t n_out[CUDA_LINEAR_PARTS]; int32_t n_parts, n_in, n_rows; };

/* Floats of all parts, one behind the other. */
static size_t begin_of(const struct shape *s, int32_t part)
{
    size_t at = 0;
    for (int32_t p = 0; p < part; p++) {
        at += (size_t)s->n_rows * (size_t)s->n_out[p];
    }
    return at;
}

struct fixture {
    struct shape shape;
    struct bed bed;
    struct bed_weight weight[CUDA_LINEAR_PARTS];
    struct bed_act x;
    float *bias, *add, *expected;
};

/* Parts differ: the first has an addend, the second a bias, the third both. */
static void expect(struct fixture *f)
{
    const struct shape *s = &f->shape;
    struct op_linear op = { .n_parts = s->n_parts, .x = &f->x.cpu, .n_rows = s->n_rows };
    for (int32_t p = 0; p < s->n_parts; p++) {
        op.part[p].weight = &f->weight[p].cpu;
        op.part[p].out = f->expected + begin_of(s, p);
        op.part[p].add = p != 1 ? f->add + begin_of(s, p) : NULL;
        op.part[p].bias = p != 0 ? f->bias : NULL;
    }
    if (backend_act_kind(f->weight[0].cpu.type) == ACT_Q8) {
        backend_quantize(f->bed.lane, &(struct op_quantize){ &f->x.cpu, s->n_rows });
    }
    backend_linear(f->bed.lane, &op);
    bed_wait(&f->bed);
}

static void fixture_init(struct fixture *f, enum tensor_type type, const struct shape *shape)
{
    const size_t n = begin_of(shape, shape->n_parts);
    memset(f, 0, sizeof *f);
    f->shape = *shape;
    bed_init(&f->bed);
    float *x = bed_floats((size_t)shape->n_rows * (size_t)shape->n_in);
    bed_act_init(&f->x, x, shape->n_rows, shape->n_in);
    bed_free(x);
    for (int32_t p = 0; p < shape->n_parts; p++) {
        bed_weight_init(&f->weight[p], type, shape->n_out[p], shape->n_in);
    }
    f->bias = bed_floats(1024);
    f->add = bed_floats(n);
    f->expected = bed_alloc(n, sizeof(float));
    expect(f);
}

static void fixture_deinit(struct fixture *f)
{
    for (int32_t p = 0; p < f->shape.n_parts; p++) {
        bed_weight_deinit(&f->weight[p]);
    }
    bed_act_deinit(&f->x);
    bed_free(f->bias);
    bed_free(f->add);
    bed_free(f->expected);
    bed_deinit(&f->bed);
}

static struct cuda_op_linear device_op(struct fixture *f, float *out)
{
    const struct shape *s = &f->shape;
    struct cuda_op_linear op = { .n_parts = s->n_parts, .n_rows = s->n_rows, .x = f->x.device };
    for (int32_t p = 0; p < s->n_parts; p++) {
        op.part[p].weight = f->weight[p].device;
        op.part[p].out = out + begin_of(s, p);
        op.part[p].add = p != 1 ? f->add + begin_of(s, p) : NULL;
        op.part[p].bias = p != 0 ? f->bias : NULL;
    }
    return op;
}

static void check(enum tensor_type type, const struct shape *shape)
{
    struct fixture f;
    fixture_init(&f, type, shape);
    const size_t n = begin_of(shape, shape->n_parts);
    for (int backward = 0; backward < 2; backward++) {
        float *out = bed_output(n, sizeof *out);
        const struct cuda_op_linear op = device_op(&f, out);
        bed_order(backward);
        if (backend_act_kind(type) == ACT_Q8) {
            BED_RUN(cuda_quantize, &(struct cuda_op_quantize){ f.x.device, shape->n_rows });
        }
        BED_RUN(cuda_linear, &op);
        char what[64];
        snprintf(what, sizeof what, "%s, %d inputs, %d rows", tensor_type_info((uint32_t)type)->name,
                 shape->n_in, shape->n_rows);
        bed_assert_same(what, out, f.expected, n);
        bed_output_free(out);
    }
    fixture_deinit(&f);
}

static int32_t round_to_type(int32_t n_in, enum tensor_type type)
{
    const int32_t block = (int32_t)tensor_type_info((uint32_t)type)->block_elems;
    return (n_in + block - 1) / block * block;
}

static bool quick(void) { return getenv("TANDEM_TEST_QUICK") != NULL; }

static void all_numbers_of_rows(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        for (int32_t rows = 1; rows <= N_ALL_ROWS; rows += quick() ? 4 : 1) {
            const struct shape shape = { { 33 }, 1, round_to_type(301, types[t]), rows };
            check(types[t], &shape);
        }
    }
}

static void any_number_of_segments(void **state)
{
    static const int32_t n_in[] = { 32, 256, 288, 2 * 256, 3 * 256, 7 * 256 + 32, 8 * 256, 9 * 256, 17 * 256 };
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        for (size_t i = 0; i < sizeof n_in / sizeof *n_in; i += quick() ? 3 : 1) {
            const struct shape shape = { { 5 }, 1, round_to_type(n_in[i], types[t]), 3 };
            check(types[t], &shape);
        }
    }
}

static void odd_numbers_of_inputs(void **state)
{
    static const int32_t n_in[] = { 1, 3, 5, 255, 257, 519 };
    (void)state;
    for (int t = 0; t < 3; t++) {
        for (size_t i = 0; i < sizeof n_in / sizeof *n_in; i++) {
            const struct shape shape = { { 31 }, 1, n_in[i], 2 };
            check(types[t], &shape);
        }
    }
}

static void parts_share_a_launch(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        const struct shape shape = { { 64, 1, 35 }, 3, 768, 6 };
        check(types[t], &shape);
    }
}

static void many_rows_are_several_launches(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        const struct shape shape = { { 2, 1 }, 2, 256, 64 + 9 };
        check(types[t], &shape);
    }
}

static void a_bad_block_of_one_row_stays_there(void **state)
{
    const struct shape shape = { { 9 }, 1, 512, 3 };
    (void)state;
    struct fixture f;
    fixture_init(&f, TENSOR_Q8_0, &shape);
    float *out = bed_output(27, sizeof *out);
    f.x.device.f32[f.x.device.f32_stride + 300] = MATHX_NAN;
    const struct cuda_op_linear op = device_op(&f, out);
    BED_RUN(cuda_quantize, &(struct cuda_op_quantize){ f.x.device, 3 });
    BED_RUN(cuda_linear, &op);
    for (int i = 0; i < 27; i++) {
        if (i / 9 == 1) {
            assert_true(out[i] != out[i]);
        } else {
            bed_assert_same("another row", out + i, f.expected + i, 1);
        }
    }
    bed_output_free(out);
    fixture_deinit(&f);
}

static void what_the_layout_lacks_is_refused(void **state)
{
    const struct shape shape = { { 4 }, 1, 256, 1 };
    (void)state;
    struct fixture f;
    fixture_init(&f, TENSOR_Q4_0, &shape);
    float out[4];
    struct cuda_op_linear op = device_op(&f, out);
    op.part[0].weight.type = TENSOR_IQ4_NL;
    assert_int_not_equal(cuda_linear(&op, NULL), 0);
    op.part[0].weight.type = TENSOR_Q4_0;
    op.x.n_cols = 288;
    assert_int_not_equal(cuda_linear(&op, NULL), 0);
    op.n_parts = CUDA_LINEAR_PARTS + 1;
    assert_int_not_equal(cuda_linear(&op, NULL), 0);
    assert_int_equal(cuda_weight_bytes(TENSOR_IQ4_NL, 4, 256), 0);
    assert_int_equal(cuda_weight_bytes(TENSOR_Q4_0, 4, 33), 0);
    assert_int_equal(cuda_weight_bytes(TENSOR_F32, (int64_t)1 << 40, 4), 0);
    fixture_deinit(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_numbers_of_rows),
        cmocka_unit_test(any_number_of_segments),
        cmocka_unit_test(odd_numbers_of_inputs),
        cmocka_unit_test(parts_share_a_launch),
        cmocka_unit_test(many_rows_are_several_launches),
        cmocka_unit_test(a_bad_block_of_one_row_stays_there),
        cmocka_unit_test(what_the_layout_lacks_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
