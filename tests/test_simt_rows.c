/* Embedding, norm, quantisation, SwiGLU and addition on the device give the scalar code's bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/simt/bed.h"

enum { MAX_ROWS = 17 };

static const int32_t cols[] = { 32, 64, 96, 256, 288, 1056 };
enum { N_COLS = sizeof cols / sizeof *cols };

static void embedding_rows(void **state)
{
    static const enum tensor_type types[] = { TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_Q8_0,
                                              TENSOR_Q4_0, TENSOR_Q4_1, TENSOR_Q5_0, TENSOR_Q5_1, TENSOR_Q2_K,
                                              TENSOR_Q3_K, TENSOR_Q4_K, TENSOR_Q5_K, TENSOR_Q6_K };
    static const int32_t any_token[] = { 0, 36, 5, 31, 32, 5 };
    enum { N_TOKENS = 6, N_VOCAB = 37 };
    (void)state;
    struct bed bed;
    bed_init(&bed);
    int32_t *token = bed_copy(any_token, sizeof any_token);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const int32_t n_in = t < 3 ? 301 : t < 8 ? 288 : 512;
        struct bed_weight weight;
        bed_weight_init(&weight, types[t], N_VOCAB, n_in);
        float *expected = bed_alloc(N_TOKENS * (size_t)n_in, sizeof *expected);
        backend_embed(bed.lane, &(struct op_embed){ &weight.cpu, token, expected, N_TOKENS });
        bed_wait(&bed);
        float *out = bed_output(N_TOKENS * (size_t)n_in, sizeof *out);
        BED_RUN(cuda_embed, &(struct cuda_op_embed){ weight.device, token, out, N_TOKENS });
        bed_assert_same(tensor_type_info((uint32_t)types[t])->name, out, expected, N_TOKENS * (size_t)n_in);
        bed_output_free(out);
        bed_free(expected);
        bed_weight_deinit(&weight);
    }
    bed_free(token);
    bed_deinit(&bed);
}

static void check_norm(struct bed *bed, int32_t n_rows, int32_t n_cols, int backward)
{
    int32_t *row_idx = bed_alloc(MAX_ROWS, sizeof *row_idx);
    float *x = bed_floats((size_t)n_rows * (size_t)n_cols), *weight = bed_floats((size_t)n_cols);
    struct bed_act act;
    bed_act_init(&act, NULL, n_rows, n_cols);
    for (int32_t i = 0; i < n_rows; i++) {
        row_idx[i] = n_rows - 1 - i;
    }
    const bool panels = n_cols % QUANT_BLOCK == 0;
    const int32_t *rows = n_rows % 2 ? row_idx : NULL;
    backend_norm(bed->lane, &(struct op_norm){ x, rows, weight, 1e-5f, n_rows,
                                               panels ? ACT_F32 | ACT_Q8 : ACT_F32, &act.cpu });
    bed_wait(bed);
    bed_order(backward);
    struct cuda_op_norm op = { x, rows, weight, 1e-5f, n_rows, act.device };
    op.out.q8 = panels ? op.out.q8 : NULL;
    BED_RUN(cuda_norm, &op);
    bed_assert_same_floats(&act, n_rows);
    if (panels) {
        bed_assert_same_panels(&act, n_rows);
    }
    bed_act_deinit(&act);
    bed_free(row_idx);
    bed_free(x);
    bed_free(weight);
}

static void norms(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows++) {
        check_norm(&bed, n_rows, cols[n_rows % N_COLS], n_rows % 3 == 0);
    }
    for (int32_t n_cols = 1; n_cols < 330; n_cols += 23) { /* odd widths: floats only */
        check_norm(&bed, 2, n_cols, n_cols % 2);
    }
    bed_deinit(&bed);
}

static void quantisation(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows++) {
        const int32_t n_cols = cols[n_rows % N_COLS];
        float *x = bed_floats((size_t)n_rows * (size_t)n_cols);
        x[3] = n_rows == 4 ? MATHX_INF : n_rows == 5 ? MATHX_NAN : x[3];
        struct bed_act act;
        bed_act_init(&act, x, n_rows, n_cols);
        backend_quantize(bed.lane, &(struct op_quantize){ &act.cpu, n_rows });
        bed_wait(&bed);
        bed_order(n_rows % 2);
        BED_RUN(cuda_quantize, &(struct cuda_op_quantize){ act.device, n_rows });
        bed_assert_same_panels(&act, n_rows);
        bed_act_deinit(&act);
        bed_free(x);
    }
    bed_deinit(&bed);
}

static void swiglu(void **state)
{
    (void)state;
    struct bed bed;
    bed_init(&bed);
    for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows++) {
        const int32_t n_cols = cols[n_rows % N_COLS] + (n_rows > 14);
        const bool panels = n_cols % QUANT_BLOCK == 0;
        const size_t n = (size_t)n_rows * (size_t)n_cols;
        float *gate = bed_floats(n), *up = bed_floats(n);
        gate[0] = -100.0f;
        gate[1] = -88.0f;
        gate[2] = 89.0f;
        struct bed_act act;
        bed_act_init(&act, NULL, n_rows, n_cols);
        backend_swiglu(bed.lane, &(struct op_swiglu){ gate, up, n_rows, panels ? ACT_F32 | ACT_Q8 : ACT_F32,
                                                      &act.cpu });
        bed_wait(&bed);
        struct cuda_op_swiglu op = { gate, up, n_rows, act.device };
        op.out.q8 = panels ? op.out.q8 : NULL;
        bed_order(n_rows % 2);
        BED_RUN(cuda_swiglu, &op);
        bed_assert_same_floats(&act, n_rows);
        if (panels) {
            bed_assert_same_panels(&act, n_rows);
        }
        bed_act_deinit(&act);
        bed_free(gate);
        bed_free(up);
    }
    bed_deinit(&bed);
}

static void addition(void **state)
{
    enum { N = 771 };
    (void)state;
    bed_seed(7);
    float *x = bed_floats(N), *y = bed_floats(N), *out = bed_output(N, sizeof *out), expected[N];
    for (int i = 0; i < N; i++) {
        expected[i] = x[i] + y[i];
    }
    memcpy(out, x, N * sizeof *out);
    BED_RUN(cuda_add, &(struct cuda_op_add){ out, y, N });
    bed_assert_same("sum", out, expected, N);
    bed_output_free(out);
    bed_free(x);
    bed_free(y);
}

static void shapes_that_cannot_be_are_refused(void **state)
{
    float x[40] = { 0 };
    unsigned char q8[2 * CUDA_ACT_BLOCK_BYTES];
    (void)state;
    struct cuda_op_norm norm = { .x = x, .weight = x, .n_rows = 1,
                                 .out = { .n_cols = 40, .f32_stride = 40, .f32 = x, .q8 = q8 } };
    assert_int_not_equal(cuda_norm(&norm, NULL), 0); /* panels of 40 columns */
    norm.out.q8 = NULL;
    norm.out.f32_stride = 36;
    assert_int_not_equal(cuda_norm(&norm, NULL), 0);
    const struct cuda_op_embed embed = { .table = { TENSOR_IQ4_NL, 1, 256, q8 }, .n_rows = 1 };
    assert_int_not_equal(cuda_embed(&embed, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding_rows), cmocka_unit_test(norms),    cmocka_unit_test(quantisation),
        cmocka_unit_test(swiglu),         cmocka_unit_test(addition),
        cmocka_unit_test(shapes_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
