/* Rows that stay on an emulated GPU: tokens, siblings, hints and rankings of a draft's chooser are those of the
 * same chooser on the host, bit for bit, from one copy up, one down and one wait.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "draft/choose.h"
#include "tests/simt/bed.h"
#include "tests/simt/runtime.h"
#include "tests/simt/silence.h"
#include "tests/simt/simt.h"

enum { CAP_ROWS = 12, MAX_COLS = 5000, MAX_HISTORY = 200, MAX_BIASES = 30, CONTEXT = 256 };

/* The same rows for a chooser of the host and for one of a device. */
struct pair {
    int32_t n_cols, n_common, n_kept; /* n_kept 0: all */
    int32_t kept[MAX_COLS];
    struct backend *host, *device;
    struct lane *host_lane, *device_lane;
    struct pass_desk *desk;
    struct draft_chooser *on_host, *on_device;
    float *logits, *there;            /* [CAP_ROWS, n_cols] */
    struct sampling_params params[CAP_ROWS];
    struct sampling_bias biases[CAP_ROWS][MAX_BIASES];
    int32_t history[CAP_ROWS][MAX_HISTORY];
};
static struct pair pair;

static void must(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", status_message());
    }
}

static struct draft_chooser *open_chooser(struct lane *lane, struct pass_desk *desk)
{
    struct draft_chooser *chooser;
    must(draft_chooser_create(&(struct draft_chooser_options){
        .lane = lane, .n_vocab = pair.n_common, .n_vocab_common = pair.n_common,
        .kept_ids = pair.n_kept > 0 ? pair.kept : NULL, .n_kept = pair.n_kept, .ranks = true, .desk = desk,
        .cap_choices = CAP_ROWS }, &chooser));
    return chooser;
}

/* n_cols: of rows; where some ids are kept, n_common is larger. */
static void pair_open(int32_t n_cols, int32_t n_common, int32_t context)
{
    const struct lane_options one = { .n_workers = 1, .caller_is_worker = true };
    simt_reset();
    pair.n_cols = n_cols;
    pair.n_common = n_common;
    pair.n_kept = n_cols < n_common ? n_cols : 0;
    for (int32_t i = 0; i < pair.n_kept; i++) { /* ascending, with gaps */
        pair.kept[i] = (int32_t)((int64_t)i * n_common / n_cols);
    }
    must(backend_create("cpu", "scalar", &pair.host));
    must(backend_create("cuda:0", "scalar", &pair.device));
    must(lane_create(pair.host, &one, &pair.host_lane));
    must(lane_create(pair.device, &one, &pair.device_lane));
    must(backend_desk_create(pair.device, &(struct pass_shape){
        .cap_rows = CAP_ROWS, .cap_logits = CAP_ROWS, .n_vocab = n_cols > n_common ? n_cols : n_common, .n_heads = 1,
        .head_dim = 32, .context = context }, &pair.desk));
    assert_true(backend_chooses(pair.device, pair.desk));
    assert_false(backend_chooses(pair.host, NULL));
    pair.on_host = open_chooser(pair.host_lane, NULL);
    pair.on_device = open_chooser(pair.device_lane, pair.desk);
    pair.logits = mem_alloc((size_t)CAP_ROWS * (size_t)n_cols, sizeof *pair.logits);
    pair.there = backend_alloc(pair.device, (size_t)CAP_ROWS * (size_t)n_cols * sizeof *pair.there);
    for (int32_t i = 0; i < CAP_ROWS; i++) {
        sampling_params_defaults(&pair.params[i]);
    }
}

static void pair_close(void)
{
    draft_chooser_destroy(pair.on_host);
    draft_chooser_destroy(pair.on_device);
    mem_free(pair.logits);
    backend_free(pair.device, pair.there, (size_t)CAP_ROWS * (size_t)pair.n_cols * sizeof *pair.there);
    backend_desk_destroy(pair.device, pair.desk);
    lane_destroy(pair.host_lane);
    lane_destroy(pair.device_lane);
    backend_destroy(pair.host);
    backend_destroy(pair.device);
    simt_expect_silence();
    assert_int_equal(simt_held_bytes(), 0);
}

/* The device has the rows as if a pass had left them. */
static void rows_stay(void)
{
    const size_t bytes = (size_t)CAP_ROWS * (size_t)pair.n_cols * sizeof *pair.there;
    must(backend_upload(pair.device, pair.there, pair.logits, bytes));
    (void)backend_pass_end(pair.device_lane, pair.desk, &(struct pass_result){
        .logits = pair.there, .n_logits = CAP_ROWS, .n_cols = pair.n_cols, .stays = true });
}

/* Spread, in steps (ties), nearly flat, one far above; now and then one that cannot be used. */
static void logits_fill(int32_t row, uint64_t kind)
{
    float *logits = pair.logits + (size_t)row * (size_t)pair.n_cols;
    for (int32_t i = 0; i < pair.n_cols; i++) {
        const float x = bed_float();
        logits[i] = kind % 4 == 0 ? x * 9.0f : kind % 4 == 1 ? (float)(int32_t)(x * 6.0f) : kind % 4 == 2 ? x * 1e-6f
                    : i == pair.n_cols / 2 ? 60.0f : x;
        logits[i] = i % 11 == 7 ? -MATHX_INF : kind % 23 == 5 ? -MATHX_INF : logits[i];
    }
    const uint64_t at = bed_word() % (uint64_t)pair.n_cols;
    logits[at] = kind % 23 == 5 ? -MATHX_INF : kind % 23 == 6 ? MATHX_INF : kind % 23 == 7 ? MATHX_NAN : 1.5f;
}

static void params_fill(int32_t row, uint64_t kind)
{
    static const float temperature[] = { 0.0f, 0.9f, 0.3f, 1.0f, 1.5f };
    static const float top_p[] = { 1.0f, 0.0f, 0.5f, 0.9f };
    struct sampling_params *params = &pair.params[row];
    sampling_params_defaults(params);
    params->seed = bed_word();
    params->temperature = temperature[kind % 5];
    if (kind % 2 == 0) { /* half of them plain */
        return;
    }
    params->top_p = top_p[kind / 5 % 4];
    params->top_k = (int32_t)(kind / 7 % 3 == 0 ? 1 + kind / 11 % 60 : 0);
    params->min_p = kind / 13 % 3 == 0 ? 0.05f : 0.0f;
    params->repetition_penalty = kind / 3 % 4 == 1 ? 1.3f : 1.0f;
    params->presence_penalty = kind / 3 % 4 == 2 ? 0.7f : 0.0f;
    params->frequency_penalty = kind / 3 % 4 >= 2 ? 0.21f : 0.0f;
    params->penalty_last_n = kind / 17 % 3 == 0 ? -1 : kind / 17 % 3 == 1 ? 17 : 0;
    params->biases = pair.biases[row];
    params->n_biases = (int32_t)(kind / 19 % 3 == 0 ? kind % MAX_BIASES : 0);
    for (int32_t i = 0; i < params->n_biases; i++) { /* some beyond what may be chosen */
        pair.biases[row][i] = (struct sampling_bias){ i * (pair.n_common + 9) / MAX_BIASES + 1, bed_float() * 8 };
    }
}

static void fill(bool may_be_bad)
{
    for (int32_t i = 0; i < CAP_ROWS; i++) {
        logits_fill(i, may_be_bad ? bed_word() : bed_word() % 4);
        params_fill(i, bed_word());
        for (int32_t j = 0; j < MAX_HISTORY; j++) {
            pair.history[i][j] = (int32_t)(bed_word() % (uint64_t)(j % 3 ? 9 : pair.n_common + 5));
        }
    }
    rows_stay();
}

static struct draft_choice choice_of(int32_t row, uint64_t kind)
{
    const int32_t n = 1 + (int32_t)(kind % (MAX_HISTORY - 1));
    return (struct draft_choice){ .params = &pair.params[row], .history = pair.history[kind % 3 ? row : 0],
                                  .n_history = n, .position = n, .n_siblings = (int32_t)(kind / 7 % 3), .row = row,
                                  .logits = pair.logits + (size_t)row * (size_t)pair.n_cols };
}

static void same_choice(const struct draft_choice *wanted, const struct draft_choice *found)
{
    assert_int_equal(found->token, wanted->token);
    if (wanted->token < 0) {
        return;
    }
    bed_assert_same("hint", &found->hint, &wanted->hint, 1);
    for (int32_t i = 0; i < wanted->n_siblings && wanted->sibling[i].token >= 0; i++) {
        assert_int_equal(found->sibling[i].token, wanted->sibling[i].token);
        bed_assert_same("a sibling's hint", &found->sibling[i].hint, &wanted->sibling[i].hint, 1);
    }
    for (int32_t i = 0; i < wanted->n_siblings; i++) {
        assert_int_equal(found->sibling[i].token >= 0, wanted->sibling[i].token >= 0);
    }
}

/* Rows in another order than they lie, and not all of them. */
static int32_t check_choices(int32_t n)
{
    struct draft_choice wanted[CAP_ROWS], found[CAP_ROWS];
    struct draft_choice *of_host[CAP_ROWS] = { NULL }, *of_device[CAP_ROWS] = { NULL };
    int32_t n_siblings = 0;
    for (int32_t i = 0; i < n; i++) {
        wanted[i] = found[i] = choice_of((i * 7 + 3) % CAP_ROWS, bed_word());
        found[i].logits = NULL;
        of_host[i] = &wanted[i];
        of_device[i] = &found[i];
    }
    const struct simt_counts before = simt_counts_get();
    draft_chooser_run(pair.on_host, of_host, n);
    draft_chooser_run(pair.on_device, of_device, n);
    const struct simt_counts after = simt_counts_get();
    assert_int_equal(after.copies_up - before.copies_up, 1);
    assert_int_equal(after.copies_down - before.copies_down, 1);
    assert_int_equal(after.waits - before.waits, 1);
    assert_true(after.bytes_down - before.bytes_down <= 600 * (uint64_t)n);
    for (int32_t i = 0; i < n; i++) {
        same_choice(&wanted[i], &found[i]);
        n_siblings += wanted[i].token >= 0 ? wanted[i].n_siblings : 0;
    }
    return n_siblings;
}

static void check_rankings(int32_t n)
{
    struct draft_ranking wanted[CAP_ROWS], found[CAP_ROWS];
    struct draft_ranking *of_host[CAP_ROWS] = { NULL }, *of_device[CAP_ROWS] = { NULL };
    int32_t ids[2][CAP_ROWS][DRAFT_MAX_RANKED];
    for (int32_t i = 0; i < n; i++) {
        const struct draft_choice how = choice_of((i * 5 + 2) % CAP_ROWS, bed_word());
        wanted[i] = (struct draft_ranking){
            .params = how.params, .history = how.history, .n_history = how.n_history, .position = how.position,
            .logits = how.logits, .row = how.row, .id = ids[0][i],
            .excluded = bed_word() % 2 ? -1 : (int32_t)(bed_word() % (uint64_t)pair.n_common),
            .n_wanted = (int32_t)(bed_word() % (DRAFT_MAX_RANKED + 1)) };
        found[i] = wanted[i];
        found[i].logits = NULL;
        found[i].id = ids[1][i];
        of_host[i] = &wanted[i];
        of_device[i] = &found[i];
    }
    draft_chooser_rank(pair.on_host, of_host, n);
    draft_chooser_rank(pair.on_device, of_device, n);
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(found[i].n, wanted[i].n);
        if (wanted[i].n > 0) {
            assert_memory_equal(ids[1][i], ids[0][i], (size_t)wanted[i].n * sizeof(int32_t));
        }
    }
}

/* Whole vocabularies, of which a draft shares a part or all; heads of kept ids; more than a piece of hints. */
static const struct { int32_t n_cols, n_common; } shapes[] = {
    { 1, 1 }, { 96, 96 }, { 300, 257 }, { 2049, 2049 }, { 70, 900 }, { 4200, 4099 }, { 2100, 4500 },
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static void choices_are_the_hosts(void **state)
{
    const int32_t n_turns = getenv("TANDEM_TEST_QUICK") != NULL ? 2 : 5;
    int32_t n_siblings = 0;
    (void)state;
    bed_seed(4711);
    for (int32_t s = 0; s < N_SHAPES; s++) {
        pair_open(shapes[s].n_cols, shapes[s].n_common, CONTEXT);
        for (int32_t turn = 0; turn < n_turns; turn++) {
            fill(turn > 0);
            n_siblings += check_choices(1 + (turn * 5 + s) % CAP_ROWS);
        }
        pair_close();
    }
    assert_true(n_siblings > 20);
}

static void rankings_are_the_hosts(void **state)
{
    const int32_t n_turns = getenv("TANDEM_TEST_QUICK") != NULL ? 2 : 5;
    (void)state;
    bed_seed(815);
    for (int32_t s = 0; s < N_SHAPES; s++) {
        pair_open(shapes[s].n_cols, shapes[s].n_common, CONTEXT);
        for (int32_t turn = 0; turn < n_turns; turn++) {
            fill(turn > 0);
            check_rankings(1 + (turn * 5 + s) % CAP_ROWS);
        }
        pair_close();
    }
}

/* Long histories, each its own, are more than is sent at once: the choices come in portions. */
static void portions_are_the_hosts(void **state)
{
    enum { LONG = 200000, N = 70 };
    struct draft_choice wanted[CAP_ROWS], found[CAP_ROWS];
    struct draft_choice *of_host[CAP_ROWS] = { NULL }, *of_device[CAP_ROWS] = { NULL };
    (void)state;
    bed_seed(99);
    pair_open(N, N, LONG);
    fill(false);
    int32_t *history = mem_alloc((size_t)CAP_ROWS * LONG, sizeof *history);
    for (int32_t i = 0; i < CAP_ROWS; i++) {
        pair.params[i].frequency_penalty = 1e-4f;
        pair.params[i].penalty_last_n = -1;
        for (int32_t j = 0; j < LONG; j++) {
            history[i * LONG + j] = (i + j * 3 + j / 1000) % N;
        }
        wanted[i] = found[i] = (struct draft_choice){
            .params = &pair.params[i], .history = history + i * LONG, .n_history = LONG - i, .position = LONG - i,
            .row = i, .logits = pair.logits + (size_t)i * N };
        found[i].logits = NULL;
        of_host[i] = &wanted[i];
        of_device[i] = &found[i];
    }
    const struct simt_counts before = simt_counts_get();
    draft_chooser_run(pair.on_host, of_host, CAP_ROWS);
    draft_chooser_run(pair.on_device, of_device, CAP_ROWS);
    const uint64_t n_portions = simt_counts_get().copies_up - before.copies_up;
    assert_true(n_portions > 1 && n_portions < CAP_ROWS);
    for (int32_t i = 0; i < CAP_ROWS; i++) {
        same_choice(&wanted[i], &found[i]);
    }
    mem_free(history);
    pair_close();
}

/* Rows of one text look back on it as far as they stand, in any order, and it is sent once. */
static void rows_of_one_text_share_its_history(void **state)
{
    struct draft_choice wanted[CAP_ROWS], found[CAP_ROWS];
    struct draft_choice *of_host[CAP_ROWS] = { NULL }, *of_device[CAP_ROWS] = { NULL };
    (void)state;
    bed_seed(12);
    pair_open(96, 96, CONTEXT);
    fill(false);
    for (int32_t i = 0; i < CAP_ROWS; i++) {
        const int32_t n = 20 + i * 7 % CAP_ROWS * 15; /* the first is not the longest */
        sampling_params_defaults(&pair.params[i]);
        pair.params[i].frequency_penalty = 2.0f;
        pair.params[i].temperature = i % 2 ? 0.9f : 0.0f;
        for (int32_t id = 0; id < 96; id++) { /* whose penalties differ by what stands late in it */
            pair.logits[i * 96 + id] = bed_float();
        }
        wanted[i] = found[i] = (struct draft_choice){ .params = &pair.params[i], .history = pair.history[0],
                                                      .n_history = n, .position = n, .row = i,
                                                      .logits = pair.logits + i * 96 };
        found[i].logits = NULL;
        of_host[i] = &wanted[i];
        of_device[i] = &found[i];
    }
    for (int32_t j = 0; j < MAX_HISTORY; j++) {
        pair.history[0][j] = j * 5 % 96;
    }
    rows_stay();
    draft_chooser_run(pair.on_host, of_host, CAP_ROWS);
    draft_chooser_run(pair.on_device, of_device, CAP_ROWS);
    for (int32_t i = 0; i < CAP_ROWS; i++) {
        same_choice(&wanted[i], &found[i]);
    }
    pair_close();
}

/* A device that fails has no tokens (I9), and says so when it is asked. */
static void a_device_that_fails_has_no_tokens(void **state)
{
    struct draft_choice choice, *list[1] = { &choice };
    int32_t id[4];
    struct draft_ranking ranking, *rankings[1] = { &ranking };
    (void)state;
    bed_seed(5);
    pair_open(96, 96, CONTEXT);
    fill(false);
    simt_fail_launch(1);
    choice = choice_of(0, 1);
    choice.logits = NULL;
    choice.token = 7;
    draft_chooser_run(pair.on_device, list, 1);
    assert_int_equal(choice.token, -1);
    ranking = (struct draft_ranking){ .params = &pair.params[0], .history = pair.history[0], .excluded = -1,
                                      .n_wanted = 4, .id = id, .n = 4 };
    draft_chooser_rank(pair.on_device, rankings, 1);
    assert_int_equal(ranking.n, 0);
    assert_int_equal(backend_health(pair.device), STATUS_IO);
    pair_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_are_the_hosts),
        cmocka_unit_test(rankings_are_the_hosts),
        cmocka_unit_test(portions_are_the_hosts),
        cmocka_unit_test(rows_of_one_text_share_its_history),
        cmocka_unit_test(a_device_that_fails_has_no_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
