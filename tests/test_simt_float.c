/* Linear layers of the native plan: sums as near to those of doubles as any order of additions can be, and of a
 * row the same bits in any company. And what the fast plan's products read: the rows of files, rounded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "tests/simt/bed.h"

static const enum tensor_type types[] = { TENSOR_BF16, TENSOR_F16 };
enum { N_TYPES = sizeof types / sizeof *types, ADD = 1, BIAS = 2 };

struct shape { int32_t n_out, n_in, n_rows; };

struct fixture {
    struct shape shape;
    struct bed_weight weight;
    struct bed_act x;
    float *bias, *add;
};

/* bed_floats() has magnitudes up to a million, which in f16 is infinite. */
static void fixture_init(struct fixture *f, enum tensor_type type, const struct shape *shape)
{
    const size_t n = (size_t)shape->n_rows * (size_t)shape->n_in;
    bed_seed(7);
    f->shape = *shape;
    float *x = bed_floats(n);
    for (size_t i = 0; type == TENSOR_F16 && i < n; i++) {
        x[i] *= 0.01f;
    }
    bed_act_init(&f->x, x, shape->n_rows, shape->n_in);
    for (int32_t row = 0; row < shape->n_rows; row++) { /* what lies behind a row's end is not to be read */
        float *end = f->x.device.f32 + (size_t)row * (size_t)f->x.device.f32_stride + shape->n_in;
        for (int32_t i = 0; i < f->x.device.f32_stride - shape->n_in; i++) {
            end[i] = MATHX_NAN;
        }
    }
    bed_free(x);
    bed_weight_init(&f->weight, type, shape->n_out, shape->n_in);
    f->bias = bed_floats((size_t)shape->n_out);
    f->add = bed_floats((size_t)shape->n_rows * (size_t)shape->n_out);
}

static void fixture_deinit(struct fixture *f)
{
    bed_weight_deinit(&f->weight);
    bed_act_deinit(&f->x);
    bed_free(f->bias);
    bed_free(f->add);
}

/* Rows first .. first + n_rows - 1 of the fixture's, into out [n_rows, n_out]. */
static void run(struct fixture *f, int32_t first, int32_t n_rows, int kinds, float *out)
{
    struct cuda_op_linear op = { .n_parts = 1, .n_rows = n_rows, .x = f->x.device };
    op.x.q8 = NULL;
    op.x.f32 += (size_t)first * (size_t)op.x.f32_stride;
    op.part[0].weight = f->weight.device;
    op.part[0].out = out;
    op.part[0].add = kinds & ADD ? f->add + (size_t)first * (size_t)f->shape.n_out : NULL;
    op.part[0].bias = kinds & BIAS ? f->bias : NULL;
    BED_RUN(cuda_linear_native, &op);
}

/* ---- against doubles ---- */
/* To nearest even in the type, with bits and the smallest step counted out. */
static double rounded(double x, enum tensor_type type)
{
    int exponent;
    (void)frexp(x, &exponent);
    const int bits = type == TENSOR_BF16 ? 8 : 11, least = type == TENSOR_BF16 ? -133 : -24;
    const double step = ldexp(1.0, exponent - bits > least ? exponent - bits : least);
    return rint(x / step) * step;
}

/* Of n products, a carried sum every 16 of them, a sum a segment, a bias and an addend, each joins a sum once, in
 * whatever order; joining loses 2^-23 of the largest sum there can be (2^-24 where the device rounds and does not
 * cut off). Products of 16-bit floats are exact. Below 2^-126 a device may drop what is left. */
static double bound(const struct shape *s, double magnitudes)
{
    const double joins = s->n_in + (s->n_in + 15) / 16 + (s->n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS + 2;
    return joins * (0x1p-23 * 1.001 * magnitudes + 0x1p-126);
}

static void check_sums(const struct fixture *f, const float *out, int kinds, const char *what)
{
    const struct shape *s = &f->shape;
    const enum tensor_type type = f->weight.cpu.type;
    float *row = mem_alloc((size_t)s->n_in, sizeof *row);
    for (int32_t o = 0; o < s->n_out; o++) {
        tensor_row_to_f32(type, f->weight.file + (size_t)o * bed_row_bytes(type, s->n_in), s->n_in, row);
        for (int32_t r = 0; r < s->n_rows; r++) {
            const size_t at = (size_t)r * (size_t)s->n_out + (size_t)o;
            double sum = 0, magnitudes = 0;
            for (int32_t i = 0; i < s->n_in; i++) {
                const double x = f->x.device.f32[(size_t)r * (size_t)f->x.device.f32_stride + (size_t)i];
                sum += (double)row[i] * rounded(x, type);
                magnitudes += fabs((double)row[i] * rounded(x, type));
            }
            sum += (kinds & BIAS ? (double)f->bias[o] : 0) + (kinds & ADD ? (double)f->add[at] : 0);
            magnitudes += (kinds & BIAS ? fabs((double)f->bias[o]) : 0) + (kinds & ADD ? fabs((double)f->add[at]) : 0);
            if (!(fabs((double)out[at] - sum) <= bound(s, magnitudes))) {
                fail_msg("%s, row %d, output %d: %a, expected %a within %g", what, r, o, (double)out[at], sum,
                         bound(s, magnitudes));
            }
        }
    }
    mem_free(row);
}

static void check(enum tensor_type type, struct shape shape, int kinds)
{
    struct fixture f;
    char what[64];
    const size_t n = (size_t)shape.n_rows * (size_t)shape.n_out;
    fixture_init(&f, type, &shape);
    snprintf(what, sizeof what, "%s, %d inputs, %d rows", tensor_type_info((uint32_t)type)->name, shape.n_in,
             shape.n_rows);
    float *forward = bed_output(n, sizeof *forward), *backward = bed_output(n, sizeof *backward);
    bed_order(0);
    run(&f, 0, shape.n_rows, kinds, forward);
    bed_order(1);
    run(&f, 0, shape.n_rows, kinds, backward);
    bed_order(0);
    check_sums(&f, forward, kinds, what);
    bed_assert_same(what, backward, forward, n);
    bed_output_free(forward);
    bed_output_free(backward);
    fixture_deinit(&f);
}

static void sums_are_within_the_bound(void **state)
{
    static const int32_t n_in[] = { 1, 3, 8, 9, 16, 17, 24, 31, 255, 256, 257, 301, 512, 520, 2312, 17 * 256 + 5 };
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        for (size_t i = 0; i < sizeof n_in / sizeof *n_in; i++) {
            check(types[t], (struct shape){ 33, n_in[i], 3 }, (int)(i % 4));
        }
        for (int32_t rows = 1; rows <= 17; rows++) {
            check(types[t], (struct shape){ 5, 301, rows }, ADD | BIAS);
        }
        check(types[t], (struct shape){ 2, 40, 64 + 9 }, ADD);
    }
}

/* ---- rows ---- */
/* Alone, and in windows that begin elsewhere, so that a row takes each place of a product. */
static void a_row_is_the_same_in_any_company(void **state)
{
    const struct shape shape = { 37, 7 * 256 + 45, 73 };
    static const int32_t windows[][2] = { { 0, 2 }, { 3, 7 }, { 1, 8 }, { 5, 9 }, { 2, 16 }, { 0, 17 }, { 7, 31 },
                                          { 11, 33 }, { 9, 64 }, { 0, 73 } };
    const size_t row = (size_t)shape.n_out;
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        struct fixture f;
        fixture_init(&f, types[t], &shape);
        float *alone = bed_output(73 * row, sizeof *alone), *together = bed_output(73 * row, sizeof *together);
        for (int32_t r = 0; r < shape.n_rows; r++) {
            run(&f, r, 1, ADD | BIAS, alone + (size_t)r * row);
        }
        for (int32_t n = 1; n <= 17; n++) {
            run(&f, 0, n, ADD | BIAS, together);
            bed_assert_same("the first rows", together, alone, (size_t)n * row);
        }
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
            const int32_t first = windows[w][0], n = windows[w][1];
            run(&f, first, n, ADD | BIAS, together);
            bed_assert_same("a window of rows", together, alone + (size_t)first * row, (size_t)n * row);
        }
        bed_output_free(alone);
        bed_output_free(together);
        fixture_deinit(&f);
    }
}

static void what_is_no_number_stays_in_its_row(void **state)
{
    const struct shape shape = { 9, 500, 5 };
    struct fixture f;
    float *clean = NULL, *out = NULL;
    (void)state;
    fixture_init(&f, TENSOR_BF16, &shape);
    clean = bed_output(45, sizeof *clean);
    out = bed_output(45, sizeof *out);
    run(&f, 0, 5, 0, clean);
    f.x.device.f32[2 * f.x.device.f32_stride + 499] = MATHX_NAN;
    run(&f, 0, 5, 0, out);
    for (int i = 0; i < 45; i++) {
        if (i / 9 == 2) {
            assert_true(out[i] != out[i]);
        } else {
            bed_assert_same("another row", out + i, clean + i, 1);
        }
    }
    bed_output_free(clean);
    bed_output_free(out);
    fixture_deinit(&f);
}

static void other_types_are_refused(void **state)
{
    const struct shape shape = { 4, 256, 1 };
    struct fixture f;
    float out[4];
    (void)state;
    fixture_init(&f, TENSOR_BF16, &shape);
    struct cuda_op_linear op = { .n_parts = 1, .n_rows = 1, .x = f.x.device };
    op.part[0].weight = f.weight.device;
    op.part[0].out = out;
    op.part[0].weight.type = TENSOR_F32;
    assert_int_not_equal(cuda_linear_native(&op, NULL), 0);
    op.part[0].weight.type = TENSOR_Q8_0;
    assert_int_not_equal(cuda_linear_native(&op, NULL), 0);
    op.part[0].weight.type = TENSOR_BF16;
    op.x.n_cols = 128;
    assert_int_not_equal(cuda_linear_native(&op, NULL), 0);
    fixture_deinit(&f);
}

/* ---- what is widened ---- */
static const enum tensor_type all_types[] = { TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_K,
                                              TENSOR_Q6_K, TENSOR_Q4_1, TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q2_K,
                                              TENSOR_Q3_K, TENSOR_Q5_K };
enum { N_ALL_TYPES = sizeof all_types / sizeof *all_types };

static void assert_row(const char *what, const uint16_t *found, const float *x, int32_t n)
{
    uint16_t *expected = mem_alloc((size_t)cuda_widened_cols(n), sizeof *expected); /* zeros at the end */
    tensor_row_from_f32(TENSOR_BF16, x, n, expected);
    for (int32_t i = 0; i < cuda_widened_cols(n); i++) {
        if (found[i] != expected[i]) {
            fail_msg("%s: element %d is %04x, expected %04x", what, i, found[i], expected[i]);
        }
    }
    mem_free(expected);
}

static void check_widened(enum tensor_type type, int32_t n_in, int32_t first, int32_t n_rows)
{
    struct bed_weight weight;
    const size_t cols = (size_t)cuda_widened_cols(n_in);
    float *row = mem_alloc((size_t)n_in, sizeof *row);
    bed_seed(3);
    bed_weight_init(&weight, type, 70, n_in);
    for (int backward = 0; backward < 2; backward++) {
        uint16_t *out = bed_output((size_t)n_rows * cols, sizeof *out);
        bed_order(backward);
        BED_RUN(cuda_widen, &(struct cuda_op_widen){ weight.device, first, n_rows, out });
        for (int32_t r = 0; r < n_rows; r++) {
            tensor_row_to_f32(type, weight.file + (size_t)(first + r) * bed_row_bytes(type, n_in), n_in, row);
            assert_row(tensor_type_info((uint32_t)type)->name, out + (size_t)r * cols, row, n_in);
        }
        bed_output_free(out);
    }
    bed_order(0);
    bed_weight_deinit(&weight);
    mem_free(row);
}

static void widened_weights_are_the_files(void **state)
{
    (void)state;
    for (int t = 0; t < N_ALL_TYPES; t++) {
        const int32_t block = (int32_t)tensor_type_info((uint32_t)all_types[t])->block_elems;
        check_widened(all_types[t], block == 1 ? 301 : block == 32 ? 288 : 768, 0, 70);
        check_widened(all_types[t], block == 1 ? 3 : block, 32, 33);
        check_widened(all_types[t], block == 1 ? 257 : 2 * block, 64, 6);
    }
    struct bed_weight weight;
    uint16_t out[8];
    bed_weight_init(&weight, TENSOR_F32, 70, 8);
    assert_int_not_equal(cuda_widen(&(struct cuda_op_widen){ weight.device, 16, 1, out }, NULL), 0);
    assert_int_not_equal(cuda_widen(&(struct cuda_op_widen){ weight.device, 64, 7, out }, NULL), 0);
    bed_weight_deinit(&weight);
}

static void rows_are_rounded_and_biases_added(void **state)
{
    static const int32_t n_cols[] = { 1, 7, 8, 301, 2048, 2056 };
    enum { ROWS = 3 };
    (void)state;
    for (size_t c = 0; c < sizeof n_cols / sizeof *n_cols; c++) {
        const size_t n = (size_t)n_cols[c], cols = (size_t)cuda_widened_cols(n_cols[c]);
        struct bed_act act;
        float *x = bed_floats(ROWS * n), *bias = bed_floats(n);
        uint16_t *out = bed_output(ROWS * cols, sizeof *out);
        float *sums = bed_output(ROWS * n, sizeof *sums);
        bed_act_init(&act, x, ROWS, n_cols[c]);
        struct cuda_op_round round = { act.device, ROWS, out };
        round.x.q8 = NULL; /* columns of any number */
        BED_RUN(cuda_round, &round);
        memcpy(sums, x, ROWS * n * sizeof *sums);
        BED_RUN(cuda_bias, &(struct cuda_op_bias){ sums, bias, ROWS, n_cols[c] });
        for (size_t r = 0; r < ROWS; r++) {
            assert_row("a row", out + r * cols, x + r * n, n_cols[c]);
            for (size_t i = 0; i < n; i++) {
                assert_true(sums[r * n + i] == x[r * n + i] + bias[i]);
            }
        }
        bed_output_free(out);
        bed_output_free(sums);
        bed_free(x);
        bed_free(bias);
        bed_act_deinit(&act);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_within_the_bound),
        cmocka_unit_test(a_row_is_the_same_in_any_company),
        cmocka_unit_test(what_is_no_number_stays_in_its_row),
        cmocka_unit_test(other_types_are_refused),
        cmocka_unit_test(widened_weights_are_the_files),
        cmocka_unit_test(rows_are_rounded_and_biases_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
