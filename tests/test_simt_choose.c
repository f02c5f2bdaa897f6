/* Tokens chosen on the device are those that sampling_choose() names: any vocabulary, any temperature, ties,
 * rows that cannot be used.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sampling/sampling.h"
#include "tests/simt/bed.h"

enum { MAX_ROWS = 17 };

static void check(const float *logits, const struct cuda_choose_row *rows, int32_t n_rows, int32_t n_vocab,
                  uint32_t *bad)
{
    struct bed bed;
    struct sampling_scratch *scratch;
    bed_init(&bed);
    struct cuda_choose_row *device_rows = bed_copy(rows, (size_t)n_rows * sizeof *rows);
    assert_int_equal(sampling_scratch_create(n_vocab, &scratch), STATUS_OK);
    for (int backward = 0; backward < 2; backward++) {
        struct cuda_choice *out = bed_output((size_t)n_rows, sizeof *out);
        uint64_t *device_scratch = bed_output((size_t)n_rows * CUDA_CHOOSE_SCRATCH, sizeof *device_scratch);
        bed_order(backward);
        BED_RUN(cuda_choose, &(struct cuda_op_choose){ logits, device_rows, out, device_scratch, n_rows, n_vocab, { 0 } });
        for (int32_t row = 0; row < n_rows; row++) {
            struct sampling_params params;
            struct sampling_choice choice;
            sampling_params_defaults(&params);
            params.temperature = rows[row].temperature;
            params.seed = rows[row].seed;
            params.top_k = 0;
            params.top_p = 1.0f;
            params.min_p = 0.0f;
            params.n_top_logprobs = -1;
            assert_true(sampling_is_plain(&params));
            const enum status status =
                sampling_choose(bed.backend, &params, logits + (size_t)row * (size_t)n_vocab, n_vocab, NULL, 0,
                                rows[row].position, scratch, &choice);
            assert_int_equal(out[row].bad == CUDA_CHOICE_GOOD, status == STATUS_OK);
            if (status == STATUS_OK) {
                assert_int_equal(out[row].id, choice.id);
            }
            if (bad != NULL) {
                bad[row] = out[row].bad;
            }
        }
        bed_output_free(out);
        bed_output_free(device_scratch);
    }
    bed_free(device_rows);
    sampling_scratch_destroy(scratch);
    bed_deinit(&bed);
}

static void any_vocabulary_and_temperature(void **state)
{
    static const int32_t n_vocab[] = { 1, 3, 31, 32, 33, 1023, 1025, 3001 };
    static const float temperature[] = { 0.0f, 0.3f, 0.7f, 1.0f, 1.5f };
    (void)state;
    for (int32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows++) {
        const int32_t n = n_vocab[n_rows % 8];
        float *logits = bed_alloc((size_t)n_rows * (size_t)n, sizeof *logits);
        struct cuda_choose_row rows[MAX_ROWS];
        for (int32_t i = 0; i < n_rows * n; i++) {
            logits[i] = bed_float() * 8;
            logits[i] = i % 7 == 3 ? -MATHX_INF : logits[i];
        }
        logits[0] = 1.0f; /* something is possible, in a vocabulary of one too */
        for (int32_t i = 0; i < n_rows; i++) {
            logits[i * n] = 1.0f;
            rows[i] = (struct cuda_choose_row){ bed_word(), (int32_t)(bed_word() % 100000), temperature[i % 5] };
        }
        check(logits, rows, n_rows, n, NULL);
        bed_free(logits);
    }
}

static void ties_go_to_the_lowest_id(void **state)
{
    enum { N = 2100, N_ROWS = 3 };
    float *logits = bed_alloc(N_ROWS * N, sizeof *logits);
    const struct cuda_choose_row rows[N_ROWS] = { { 1, 2, 0.0f }, { 1, 2, 0.0f }, { 1, 2, 1.0f } };
    (void)state;
    for (int32_t i = 0; i < N_ROWS * N; i++) {
        logits[i] = -1.0f;
    }
    logits[70] = logits[1500] = logits[2099] = 5.0f;
    logits[N + 1030] = -0.0f; /* equal, and first */
    logits[N + 1031] = 0.0f;
    check(logits, rows, N_ROWS, N, NULL);
    bed_free(logits);
}

static void rows_that_cannot_be_used(void **state)
{
    enum { N = 1030, N_ROWS = 6 };
    float *logits = bed_floats(N_ROWS * N);
    const struct cuda_choose_row rows[N_ROWS] = { { 1, 2, 0.0f }, { 1, 2, 1.0f }, { 1, 2, 1.0f },
                                                  { 1, 2, 1.0f }, { 1, 2, 1e-38f }, { 1, 2, 0.0f } };
    uint32_t bad[N_ROWS];
    (void)state;
    logits[N - 1] = MATHX_NAN;
    logits[N + 1025] = MATHX_INF;
    for (int32_t i = 0; i < N; i++) {
        logits[2 * N + i] = -MATHX_INF;
    }
    logits[3 * N + 5] = -MATHX_INF;
    check(logits, rows, N_ROWS, N, bad);
    assert_int_equal(bad[0], CUDA_CHOICE_NOT_FINITE);
    assert_int_equal(bad[1], CUDA_CHOICE_NOT_FINITE);
    assert_int_equal(bad[2], CUDA_CHOICE_NOTHING);
    assert_int_equal(bad[3], CUDA_CHOICE_GOOD);
    assert_int_equal(bad[4], CUDA_CHOICE_OVERFLOW);
    assert_int_equal(bad[5], CUDA_CHOICE_GOOD);
    bed_free(logits);
}

/* ---- what a draft asks beside its token ---- */
/* Rows in another order than they lie; the second launch passes over what the first has chosen, on the device. */
static void what_was_chosen_is_passed_over(void **state)
{
    enum { N = 1500, STRIDE = 1600, N_ROWS = 3 };
    static const int32_t order[N_ROWS] = { 2, 0, 1 };
    const struct cuda_choose_row rows[N_ROWS] = { { 8, 2, 0.0f }, { 9, 3, 0.9f }, { 10, 4, 1.5f } };
    struct bed bed;
    struct sampling_scratch *scratch;
    (void)state;
    bed_init(&bed);
    assert_int_equal(sampling_scratch_create(N, &scratch), STATUS_OK);
    float *logits = bed_floats(N_ROWS * STRIDE);
    struct cuda_choose_row *there = bed_copy(rows, sizeof rows);
    int32_t *idx = bed_copy(order, sizeof order);
    struct cuda_taken *taken = bed_alloc_pointers(N_ROWS, sizeof *taken);
    struct cuda_choice *first = bed_output(N_ROWS, sizeof *first), *second = bed_output(N_ROWS, sizeof *second);
    uint64_t *keys = bed_output(N_ROWS * CUDA_CHOOSE_SCRATCH, sizeof *keys);
    struct cuda_op_choose op = { .logits = logits, .rows = there, .out = first, .scratch = keys, .n_rows = N_ROWS,
                                 .n_vocab = N, .from = { .stride = STRIDE, .idx = idx } };
    BED_RUN(cuda_choose, &op);
    for (int32_t i = 0; i < N_ROWS; i++) {
        taken[i].id[0] = &first[i].id;
    }
    op.out = second;
    op.from.taken = taken;
    BED_RUN(cuda_choose, &op);
    for (int32_t i = 0; i < N_ROWS; i++) {
        struct sampling_params params;
        struct sampling_choice choice;
        const struct sampling_bias none = { first[i].id, -MATHX_INF };
        sampling_params_defaults(&params);
        params.temperature = rows[i].temperature;
        params.seed = rows[i].seed;
        for (params.n_biases = 0; params.n_biases < 2; params.n_biases++) {
            params.biases = &none;
            assert_int_equal(sampling_choose(bed.backend, &params, logits + order[i] * STRIDE, N, NULL, 0,
                                             rows[i].position, scratch, &choice), STATUS_OK);
            assert_int_equal(params.n_biases == 0 ? first[i].id : second[i].id, choice.id);
        }
    }
    bed_output_free(keys);
    bed_output_free(second);
    bed_output_free(first);
    bed_free(taken);
    bed_free(idx);
    bed_free(there);
    bed_free(logits);
    sampling_scratch_destroy(scratch);
    bed_deinit(&bed);
}

/* As a draft's chooser has it: sums of 2048 logits at a time, relative to the token's. */
static float share_of(const struct bed *bed, const float *logits, int32_t n, float base, float own)
{
    float piece[CUDA_HINT_PIECE], sum = 0.0f;
    for (int32_t done = 0; done < n; done += CUDA_HINT_PIECE) {
        const int32_t len = n - done < CUDA_HINT_PIECE ? n - done : CUDA_HINT_PIECE;
        memcpy(piece, logits + done, (size_t)len * sizeof *piece);
        sum += backend_exp_sum(bed->backend, piece, len, base);
    }
    return own == base ? 1.0f / sum : mathx_exp(own - base) / sum;
}

/* Rows of a cut head over all ids, and what a draft says of two ids of each. */
static void spread_rows_and_hints(void **state)
{
    enum { N_KEPT = 4500, N = 5300, N_ROWS = 3, PIECES = (N_KEPT + CUDA_HINT_PIECE - 1) / CUDA_HINT_PIECE };
    static const int32_t order[N_ROWS] = { 1, 2, 0 };
    static int32_t kept[N_KEPT];
    struct bed bed;
    (void)state;
    bed_init(&bed);
    for (int32_t i = 0; i < N_KEPT; i++) {
        kept[i] = (int32_t)((int64_t)i * N / N_KEPT);
    }
    float *logits = bed_floats(N_ROWS * N_KEPT);
    int32_t *ids = bed_copy(kept, sizeof kept), *idx = bed_copy(order, sizeof order);
    float *full = bed_output(N_ROWS * N, sizeof *full), *sums = bed_output(N_ROWS * PIECES, sizeof *sums);
    struct cuda_hint_row *rows = bed_alloc_pointers(N_ROWS, sizeof *rows);
    struct cuda_hints *out = bed_output(N_ROWS, sizeof *out);
    BED_RUN(cuda_spread, &(struct cuda_op_spread){ .logits = logits, .id = ids, .out = full, .n_rows = N_ROWS,
                                                   .n_kept = N_KEPT, .n_vocab = N, .from = { .idx = idx } });
    for (int32_t i = 0; i < N_ROWS; i++) {
        rows[i] = (struct cuda_hint_row){ .logits = logits + order[i] * N_KEPT, .full = full + i * N,
                                          .id = { ids + 70 * i, ids + 4000 + i, NULL } };
    }
    BED_RUN(cuda_hint, &(struct cuda_op_hint){ .rows = rows, .out = out, .scratch = sums, .n_rows = N_ROWS,
                                               .n_logits = N_KEPT });
    for (int32_t i = 0; i < N_ROWS; i++) {
        const float *own = logits + order[i] * N_KEPT;
        for (int32_t id = 0, k = 0; id < N; id++) {
            const float expected = k < N_KEPT && kept[k] == id ? own[k++] : -MATHX_INF;
            bed_assert_same("spread", &full[i * N + id], &expected, 1);
        }
        const float expected[2] = { share_of(&bed, own, N_KEPT, own[70 * i], own[70 * i]),
                                    share_of(&bed, own, N_KEPT, own[70 * i], own[4000 + i]) };
        bed_assert_same("hints", out[i].share, expected, 2);
    }
    bed_output_free(out);
    bed_free(rows);
    bed_output_free(sums);
    bed_output_free(full);
    bed_free(idx);
    bed_free(ids);
    bed_free(logits);
    bed_deinit(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_vocabulary_and_temperature),
        cmocka_unit_test(ties_go_to_the_lowest_id),
        cmocka_unit_test(rows_that_cannot_be_used),
        cmocka_unit_test(what_was_chosen_is_passed_over),
        cmocka_unit_test(spread_rows_and_hints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
