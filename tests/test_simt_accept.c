/* What drafting ahead and accepting do on the device: the likeliest ids of rows are those of a sort, outcomes
 * those of verify/, for chains and trees; copied rows are the rows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sampling/sampling.h"
#include "tests/simt/bed.h"
#include "verify/verify.h"

/* ---- ranks ---- */

struct ranked { float value; int32_t id; };

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->value > y->value ? -1 : x->value < y->value ? 1 : x->id < y->id ? -1 : 1;
}

static void expect_rank(const float *logits, int32_t n_vocab, const struct cuda_rank_row *row, const int32_t *id,
                        int32_t id_stride)
{
    struct ranked *all = mem_alloc((size_t)n_vocab, sizeof *all);
    int32_t n = 0;
    for (int32_t i = 0; i < n_vocab; i++) {
        const uint32_t word = rng_coin_word(row->seed, COIN_TARGET, (uint32_t)row->position, (uint32_t)i);
        const float value = row->temperature == 0.0f ? logits[i] : logits[i] / row->temperature + mathx_gumbel(word);
        if (i != row->excluded && value > -MATHX_INF) {
            all[n++] = (struct ranked){ value, i };
        }
    }
    qsort(all, (size_t)n, sizeof *all, by_rank);
    for (int32_t i = 0; i < id_stride; i++) {
        assert_int_equal(id[i], i < n && i < row->n_wanted ? all[i].id : -1);
    }
    mem_free(all);
}

static void the_likeliest_ids(void **state)
{
    static const int32_t n_vocab[] = { 1, 2, 33, 1024, 4097 }, id_stride[] = { 1, 3, 24, 64, 1000 };
    static const float temperature[] = { 0.0f, 1.0f, 0.5f };
    enum { N_ROWS = 7 };
    (void)state;
    bed_seed(11);
    for (int32_t turn = 0; turn < 25; turn++) {
        const int32_t n = n_vocab[turn % 5], stride = id_stride[turn / 5];
        float *logits = bed_alloc((size_t)N_ROWS * (size_t)n, sizeof *logits);
        struct cuda_rank_row *rows = bed_alloc(N_ROWS, sizeof *rows);
        for (int32_t i = 0; i < N_ROWS * n; i++) { /* rows with ties, with gaps, flat */
            const float x = bed_float();
            logits[i] = i / n % 3 == 0 ? (float)(int32_t)(x * 4) : i / n % 3 == 1 ? x * 10 : x * 1e-3f;
            logits[i] = i % 9 == 4 ? -MATHX_INF : i % 500 == 3 ? MATHX_NAN : logits[i];
        }
        for (int32_t i = 0; i < N_ROWS; i++) {
            rows[i] = (struct cuda_rank_row){ .seed = bed_word(), .position = 5 * i, .temperature = temperature[i % 3],
                                              .excluded = i % 2 ? (int32_t)(bed_word() % (uint64_t)n) : -1,
                                              .n_wanted = (stride * (i + 2)) / 5 };
        }
        for (int backward = 0; backward < 2; backward++) {
            int32_t *id = bed_output((size_t)N_ROWS * (size_t)stride, sizeof *id);
            float *scratch = bed_output((size_t)N_ROWS * (size_t)n, sizeof *scratch);
            bed_order(backward);
            const struct cuda_op_rank op = { logits, rows, id, scratch, N_ROWS, n, stride, { 0 } };
            BED_RUN(cuda_rank, &op);
            for (int32_t i = 0; i < N_ROWS; i++) {
                expect_rank(logits + i * n, n, &rows[i], id + i * stride, stride);
            }
            bed_output_free(id);
            bed_output_free(scratch);
        }
        bed_free(logits);
        bed_free(rows);
    }
}

/* ---- outcomes ---- */

enum { N_RUNS = 70, PATH_STRIDE = VERIFY_MAX_NODES };

struct runs {
    struct cuda_accept_run *run;
    int32_t *token, *parent;
    struct cuda_sampled *choice;
    int32_t n_rows, n_nodes;
};

/* Random proposals of few tokens, so that siblings repeat and paths are long. */
static void runs_init(struct runs *r, bool trees)
{
    r->run = bed_alloc(N_RUNS, sizeof *r->run);
    r->token = bed_alloc(N_RUNS * VERIFY_MAX_NODES, sizeof *r->token);
    r->parent = bed_alloc(N_RUNS * VERIFY_MAX_NODES, sizeof *r->parent);
    r->choice = bed_alloc(N_RUNS * (VERIFY_MAX_NODES + 1), sizeof *r->choice);
    r->n_rows = r->n_nodes = 0;
    for (int32_t i = 0; i < N_RUNS; i++) {
        const int32_t n = i == 0 ? 0 : i == 1 ? VERIFY_MAX_NODES : (int32_t)(bed_word() % 20);
        const uint64_t n_tokens = i == 1 ? 1 : 1 + bed_word() % 3;
        r->run[i] = (struct cuda_accept_run){ r->n_rows, r->n_nodes, n };
        for (int32_t j = 0; j <= n; j++) {
            r->choice[r->n_rows + j].id = (int32_t)(bed_word() % n_tokens);
        }
        for (int32_t j = 0; j < n; j++) {
            r->token[r->n_nodes + j] = (int32_t)(bed_word() % n_tokens);
            r->parent[r->n_nodes + j] = trees && i != 1 ? (int32_t)(bed_word() % (uint64_t)(j + 1)) - 1 : j - 1;
        }
        r->n_rows += n + 1;
        r->n_nodes += n;
    }
}

static void runs_deinit(struct runs *r)
{
    bed_free(r->run);
    bed_free(r->token);
    bed_free(r->parent);
    bed_free(r->choice);
}

static struct verify_path expected_path(const struct runs *r, int32_t i)
{
    int32_t chosen[VERIFY_MAX_NODES + 1];
    const struct cuda_accept_run *run = &r->run[i];
    const struct verify_tree tree = { r->token + run->first_proposed, r->parent + run->first_proposed,
                                      run->n_proposed };
    struct verify_path path;
    for (int32_t j = 0; j <= run->n_proposed; j++) {
        chosen[j] = r->choice[run->first_row + j].id;
    }
    verify_tree_coupled(&tree, chosen, &path);
    return path;
}

static void accept_all(const struct runs *r, bool chains, struct cuda_outcome *out, int32_t *path)
{
    const struct cuda_op_accept op = {
        .choice = (const struct cuda_choice *)(const void *)r->choice, .choice_stride_bytes = sizeof *r->choice,
        .runs = r->run, .token = r->token, .parent = chains ? NULL : r->parent, .out = out, .path = path,
        .n_runs = N_RUNS, .path_stride = PATH_STRIDE };
    BED_RUN(cuda_accept, &op);
}

static void outcomes(void **state)
{
    (void)state;
    bed_seed(13);
    for (int turn = 0; turn < 8; turn++) {
        struct runs r;
        runs_init(&r, turn % 2 == 1);
        struct cuda_outcome *out = bed_output(N_RUNS, sizeof *out);
        int32_t *path = bed_output(N_RUNS * PATH_STRIDE, sizeof *path);
        bed_order(turn / 2 % 2);
        accept_all(&r, turn % 2 == 0, out, turn < 6 ? path : NULL);
        int32_t longest = 0;
        for (int32_t i = 0; i < N_RUNS; i++) {
            const struct verify_path expected = expected_path(&r, i);
            assert_int_equal(out[i].bad, CUDA_CHOICE_GOOD);
            assert_int_equal(out[i].n_accepted, expected.n_accepted);
            assert_int_equal(out[i].recovery_token, expected.recovery_token);
            for (int32_t j = 0; turn < 6 && j < expected.n_accepted; j++) {
                assert_int_equal(path[i * PATH_STRIDE + j], expected.node[j]);
            }
            longest = expected.n_accepted > longest ? expected.n_accepted : longest;
        }
        assert_int_equal(longest, VERIFY_MAX_NODES); /* the run of one token */
        bed_output_free(out);
        bed_output_free(path);
        runs_deinit(&r);
    }
}

static void a_choice_that_could_not_be_made(void **state)
{
    struct runs r;
    (void)state;
    bed_seed(17);
    runs_init(&r, false);
    for (int32_t i = 0; i < N_RUNS; i++) { /* row 3, where there is one, and the first row of run 2 */
        if (r.run[i].n_proposed >= 3) {
            r.choice[r.run[i].first_row + 3].bad = CUDA_CHOICE_NOT_FINITE;
        }
    }
    r.choice[r.run[2].first_row].bad = CUDA_CHOICE_NOTHING;
    struct cuda_outcome *out = bed_output(N_RUNS, sizeof *out);
    accept_all(&r, true, out, NULL);
    int32_t n_bad = 0;
    for (int32_t i = 0; i < N_RUNS; i++) {
        const struct verify_path expected = expected_path(&r, i);
        const bool bad = i == 2 || (r.run[i].n_proposed >= 3 && expected.n_accepted >= 3);
        assert_int_equal(out[i].bad, !bad ? CUDA_CHOICE_GOOD : i == 2 ? CUDA_CHOICE_NOTHING : CUDA_CHOICE_NOT_FINITE);
        assert_int_equal(out[i].n_accepted, i == 2 ? 0 : bad ? 3 : expected.n_accepted);
        assert_int_equal(out[i].recovery_token, bad ? -1 : expected.recovery_token);
        n_bad += bad;
    }
    assert_true(n_bad > 2 && n_bad < N_RUNS);
    bed_output_free(out);
    runs_deinit(&r);
}

/* ---- copies ---- */

static void copied_rows(void **state)
{
    enum { N_COLS = 301, N_ROWS = 5 };
    (void)state;
    bed_seed(19);
    float *x = bed_floats(9 * N_COLS);
    int32_t *row_idx = bed_alloc(N_ROWS, sizeof *row_idx);
    for (int32_t i = 0; i < N_ROWS; i++) {
        row_idx[i] = 8 - 2 * i;
    }
    for (int listed = 0; listed < 2; listed++) {
        float *out = bed_output(N_ROWS * N_COLS, sizeof *out);
        const struct cuda_op_rows_copy op = { x, listed ? row_idx : NULL, out, N_ROWS, N_COLS };
        BED_RUN(cuda_rows_copy, &op);
        for (int32_t i = 0; i < N_ROWS; i++) {
            bed_assert_same("copy", out + i * N_COLS, x + (listed ? row_idx[i] : i) * N_COLS, N_COLS);
        }
        bed_output_free(out);
    }
    bed_free(x);
    bed_free(row_idx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_likeliest_ids), cmocka_unit_test(outcomes),
        cmocka_unit_test(a_choice_that_could_not_be_made), cmocka_unit_test(copied_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
