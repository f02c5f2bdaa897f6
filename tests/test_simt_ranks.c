/* What ranks have of rows, on the device: group sums of linear layers, their sum over ranks, columns and rows
 * that come together. The scalar code's bits, at any number of rows, with parts of any width, some of them empty.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/simt/bed.h"

enum { MAX_ROWS = 17 };

static bool quick(void) { return getenv("TANDEM_TEST_QUICK") != NULL; }

/* ---- group sums ---- */

static const enum tensor_type types[] = { TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0,
                                          TENSOR_Q4_0, TENSOR_Q4_K, TENSOR_Q6_K, TENSOR_Q4_1, TENSOR_Q5_0,
                                          TENSOR_Q5_1, TENSOR_Q2_K, TENSOR_Q3_K, TENSOR_Q5_K };
enum { N_TYPES = sizeof types / sizeof *types };

/* As ranks have them: whole groups of a matrix of more segments than are here. */
static const struct linear_groups cuts[] = {
    { 1, { 0, 1 } }, { 2, { 0, 1, 3 } }, { 4, { 0, 2, 5, 7, 10 } }, { 3, { 0, 1, 2, 3 } }, { 8, { 0, 1, 2, 3, 4, 5, 6, 7, 9 } },
};
enum { N_CUTS = sizeof cuts / sizeof *cuts };

struct sums { enum tensor_type type; const struct linear_groups *groups; int32_t n_out, n_in, n_rows; };

static void expect_sums(struct bed *bed, const struct sums *s, struct bed_weight *weight, struct bed_act *x, float *out)
{
    if (backend_act_kind(s->type) == ACT_Q8) {
        backend_quantize(bed->lane, &(struct op_quantize){ &x->cpu, s->n_rows });
    }
    backend_linear(bed->lane, &(struct op_linear){ .part = { { .weight = &weight->cpu, .out = out } }, .n_parts = 1,
                                                   .x = &x->cpu, .n_rows = s->n_rows, .groups = s->groups });
    bed_wait(bed);
}

static void check_sums(const struct sums *s)
{
    const size_t n = (size_t)s->groups->n * (size_t)s->n_rows * (size_t)s->n_out;
    struct bed bed;
    struct bed_weight weight;
    struct bed_act act;
    bed_init(&bed);
    float *x = bed_floats((size_t)s->n_rows * (size_t)s->n_in), *expected = bed_alloc(n, sizeof *expected);
    bed_act_init(&act, x, s->n_rows, s->n_in);
    bed_weight_init(&weight, s->type, s->n_out, s->n_in);
    expect_sums(&bed, s, &weight, &act, expected);
    if (backend_act_kind(s->type) == ACT_Q8) {
        BED_RUN(cuda_quantize, &(struct cuda_op_quantize){ act.device, s->n_rows });
    }
    for (int backward = 0; backward < 2; backward++) {
        char what[64];
        float *out = bed_output(n, sizeof *out);
        struct cuda_op_linear_groups op = { .weight = weight.device, .out = out, .n_groups = s->groups->n,
                                            .n_rows = s->n_rows, .x = act.device };
        memcpy(op.begin, s->groups->begin, sizeof op.begin);
        bed_order(backward);
        BED_RUN(cuda_linear_groups, &op);
        snprintf(what, sizeof what, "%s, %d groups, %d rows", tensor_type_info((uint32_t)s->type)->name, s->groups->n,
                 s->n_rows);
        bed_assert_same(what, out, expected, n);
        bed_output_free(out);
    }
    bed_weight_deinit(&weight);
    bed_act_deinit(&act);
    bed_free(expected);
    bed_free(x);
    bed_deinit(&bed);
}

static void group_sums_of_all_types(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++) {
        for (int c = 0; c < N_CUTS; c += quick() ? 2 : 1) {
            const struct linear_groups *groups = &cuts[c];
            check_sums(&(struct sums){ types[t], groups, 5 + 31 * (c % 2), groups->begin[groups->n] * SEGMENT_ELEMS,
                                       1 + (t + 3 * c) % 5 });
        }
    }
}

static void group_sums_of_any_number_of_rows(void **state)
{
    static const enum tensor_type some[] = { TENSOR_F16, TENSOR_Q8_0, TENSOR_Q4_K };
    (void)state;
    for (size_t t = 0; t < sizeof some / sizeof *some; t++) {
        for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows += quick() ? 4 : 1) {
            check_sums(&(struct sums){ some[t], &cuts[1], 33, 3 * SEGMENT_ELEMS, n_rows });
        }
        check_sums(&(struct sums){ some[t], &cuts[1], 3, 3 * SEGMENT_ELEMS, CUDA_LINEAR_ROWS + 6 }); /* two launches */
    }
}

/* The last of a matrix's segments may be short. */
static void group_sums_of_odd_inputs(void **state)
{
    (void)state;
    check_sums(&(struct sums){ TENSOR_F32, &cuts[1], 9, 2 * SEGMENT_ELEMS + 77, 3 });
    check_sums(&(struct sums){ TENSOR_BF16, &cuts[0], 32, 128, 2 });
    check_sums(&(struct sums){ TENSOR_Q8_0, &cuts[3], 7, 2 * SEGMENT_ELEMS + 32, 6 });
    check_sums(&(struct sums){ TENSOR_Q5_1, &cuts[0], 64, 96, 5 });
}

static void groups_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct bed_weight weight;
    struct bed_act act;
    float out[64];
    bed_seed(3);
    bed_weight_init(&weight, TENSOR_F32, 4, 3 * SEGMENT_ELEMS);
    bed_act_init(&act, NULL, 1, 3 * SEGMENT_ELEMS);
    static const struct linear_groups wrong[] = { { 0, { 0 } }, { 2, { 0, 1, 2 } }, { 2, { 1, 2, 3 } },
                                                  { 3, { 0, 1, 1, 3 } }, { 2, { 0, 1, 4 } } };
    struct cuda_op_linear_groups op = { .weight = weight.device, .out = out, .n_rows = 1, .x = act.device };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        op.n_groups = wrong[i].n;
        memcpy(op.begin, wrong[i].begin, sizeof op.begin);
        assert_int_not_equal(cuda_linear_groups(&op, NULL), 0);
    }
    op.n_groups = 2;
    memcpy(op.begin, cuts[1].begin, sizeof op.begin);
    op.x.n_cols = SEGMENT_ELEMS;
    assert_int_not_equal(cuda_linear_groups(&op, NULL), 0);
    bed_weight_deinit(&weight);
    bed_act_deinit(&act);
}

/* ---- what comes together ---- */

static void check_fold(struct bed *bed, int32_t n_groups, int32_t n_rows, int32_t n_cols)
{
    const size_t n = (size_t)n_rows * (size_t)n_cols;
    float *sums = bed_floats((size_t)n_groups * n), *x = bed_floats(n), *out = bed_output(n, sizeof *out);
    memcpy(out, x, n * sizeof *x);
    backend_fold(bed->lane, &(struct op_fold){ sums, x, n_groups, n_rows, n_cols });
    bed_wait(bed);
    bed_order(n_rows % 2);
    BED_RUN(cuda_fold, &(struct cuda_op_fold){ sums, out, n_groups, n_rows, n_cols });
    bed_assert_same("sums of groups", out, x, n);
    bed_output_free(out);
    bed_free(sums);
    bed_free(x);
}

static void sums_of_groups(void **state)
{
    static const int32_t cols[] = { 1, 31, 256, 257, 576 };
    struct bed bed;
    (void)state;
    bed_init(&bed);
    for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows++) {
        for (int32_t n_groups = 1; n_groups <= SUM_GROUPS; n_groups++) {
            check_fold(&bed, n_groups, n_rows, cols[(n_rows + n_groups) % 5]);
        }
    }
    bed_deinit(&bed);
    assert_int_not_equal(cuda_fold(&(struct cuda_op_fold){ .n_groups = SUM_GROUPS + 1, .n_rows = 1, .n_cols = 1 }, NULL), 0);
}

struct widths { int32_t n_ranks, first[CUDA_MAX_RANKS + 1]; };
static const struct widths widths[] = {
    { 1, { 0, 40 } },
    { 2, { 0, 192, 288 } },
    { 4, { 0, 0, 5, 5, 263 } },
    { 8, { 0, 32, 64, 96, 96, 128, 512, 512, 577 } },
};

static void check_columns(struct bed *bed, const struct widths *w, int32_t n_rows, bool adds)
{
    const size_t n = (size_t)n_rows * (size_t)w->first[w->n_ranks];
    float *parts = bed_floats(n), *add = bed_floats(n), *expected = bed_alloc(n, sizeof *expected);
    float *out = bed_output(n, sizeof *out);
    struct cuda_op_columns op = { .parts = parts, .out = out, .n_ranks = w->n_ranks, .n_rows = n_rows };
    memcpy(op.first, w->first, sizeof op.first);
    if (adds) { /* in place, as a layer adds to x */
        memcpy(expected, add, n * sizeof *add);
        memcpy(out, add, n * sizeof *add);
        op.add = out;
    }
    backend_columns(bed->lane, &(struct op_columns){ .parts = parts, .first = w->first, .add = adds ? expected : NULL,
                                                     .out = expected, .n_ranks = w->n_ranks, .n_rows = n_rows });
    bed_wait(bed);
    bed_order(n_rows % 2);
    BED_RUN(cuda_columns, &op);
    bed_assert_same("columns", out, expected, n);
    bed_output_free(out);
    bed_free(parts);
    bed_free(add);
    bed_free(expected);
}

static void columns_of_uneven_width(void **state)
{
    struct bed bed;
    (void)state;
    bed_init(&bed);
    for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows++) {
        for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
            check_columns(&bed, &widths[i], n_rows, (n_rows + (int32_t)i) % 2);
        }
    }
    bed_deinit(&bed);
    struct cuda_op_columns op = { .n_ranks = CUDA_MAX_RANKS + 1, .n_rows = 1 };
    assert_int_not_equal(cuda_columns(&op, NULL), 0);
    op = (struct cuda_op_columns){ .n_ranks = 2, .n_rows = 1, .first = { 0, 5, 4 } };
    assert_int_not_equal(cuda_columns(&op, NULL), 0);
}

static void rows_are_picked(void **state)
{
    enum { N_PARTS = 5 };
    static const int32_t cols[] = { 64, 1, 300 };
    struct bed bed;
    (void)state;
    bed_init(&bed);
    for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows++) {
        const int32_t n_cols = cols[n_rows % 3];
        const size_t n = (size_t)n_rows * (size_t)n_cols;
        float *x = bed_floats(N_PARTS * n), *expected = bed_alloc(n, sizeof *x), *out = bed_output(n, sizeof *out);
        int32_t *part = bed_alloc((size_t)n_rows, sizeof *part);
        for (int32_t i = 0; i < n_rows; i++) {
            part[i] = (int32_t)(bed_word() % N_PARTS);
        }
        backend_pick(bed.lane, &(struct op_pick){ x, part, expected, n_rows, n_cols });
        bed_wait(&bed);
        bed_order(n_rows % 2);
        BED_RUN(cuda_pick, &(struct cuda_op_pick){ x, part, out, n_rows, n_cols });
        bed_assert_same("rows", out, expected, n);
        bed_output_free(out);
        bed_free(x);
        bed_free(expected);
        bed_free(part);
    }
    bed_deinit(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group_sums_of_all_types),  cmocka_unit_test(group_sums_of_any_number_of_rows),
        cmocka_unit_test(group_sums_of_odd_inputs), cmocka_unit_test(groups_that_cannot_be_are_refused),
        cmocka_unit_test(sums_of_groups),           cmocka_unit_test(columns_of_uneven_width),
        cmocka_unit_test(rows_are_picked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
