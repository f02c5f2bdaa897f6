/* A target on an emulated GPU whose rows stay there: ids, log probabilities, sentences and digests are a CPU's
 * for everything a request may ask for, and what comes back is tokens and the rows that chose them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "tests/engine_rig.h"
#include "tests/simt/runtime.h"
#include "tests/simt/silence.h"
#include "tests/simt/simt.h"

enum { N_REQUESTS = 6, N_TOKENS = 8, N_PROMPT = 30, VOCAB = 512, N_TOP = 5, ERROR_CAP = 256,
       CANCELLED_AFTER = 3, TD_WAIT_S = 300 };
static const char PAIR[] = "synth:pair=tiny,q8_0,draft=tiny,draft-layers=1,agree=0.7,seed=1";

/* What the engine's rig does not keep. */
struct told {
    int32_t ids[32], n_ids, n_top[32];
    float logprob[32];
    struct td_logprob top[32][N_TOP];
    enum td_finish finish;
    struct td_usage usage;
    char error[ERROR_CAP];
};
static struct told wanted[N_REQUESTS], found[N_REQUESTS];

static int begin(void **state)
{
    (void)state;
    simt_reset();
    return 0;
}

static void set_options(struct td_engine_options *options)
{
    rig_options(options);
    options->target = PAIR;
    options->context = 128;
    options->page = 16;
    options->max_batch = N_REQUESTS;
    options->k = 0;
}

/* Greedy, plain, each filter, penalties over all and over a few tokens, biases, log probabilities, and a
 * temperature by which no logit can be divided. */
static void fill_requests(struct td_request requests[N_REQUESTS])
{
    static int32_t ids[N_PROMPT];
    static const struct td_bias biases[] = { { 5, 2.5f }, { 44, -3.0f }, { 300, 1.0f } };
    for (int32_t i = 0; i < N_PROMPT; i++) {
        ids[i] = 3 + i * 37 % 90;
    }
    for (int32_t i = 0; i < N_REQUESTS; i++) {
        td_request_init(&requests[i]);
        requests[i].ids = ids;
        requests[i].n_ids = (size_t)(N_PROMPT - 4 * i);
        requests[i].max_tokens = N_TOKENS;
        requests[i].temperature = i == 0 ? 0.0f : 0.9f;
        requests[i].has_seed = 1;
        requests[i].seed = 11 + (uint64_t)i;
        requests[i].ignore_eos = 1;
        requests[i].logprobs = i == 0 ? N_TOP : i == 3 ? 0 : -1;
    }
    requests[2].top_k = 40;
    requests[2].top_p = 0.95f;
    requests[2].min_p = 0.01f;
    requests[3].repetition_penalty = 1.2f;
    requests[3].presence_penalty = 0.4f;
    requests[4].frequency_penalty = 0.5f;
    requests[4].biases = biases;
    requests[4].n_biases = sizeof biases / sizeof biases[0];
    requests[5].temperature = 1e-38f;
}

static void take(const struct td_event *event, struct told *told)
{
    for (size_t i = 0; i < event->n_tokens; i++) {
        const struct td_token *token = &event->tokens[i];
        assert_true(told->n_ids < 32 && token->n_top <= N_TOP);
        told->ids[told->n_ids] = token->id;
        told->logprob[told->n_ids] = token->logprob;
        told->n_top[told->n_ids] = token->n_top;
        if (token->n_top > 0) {
            memcpy(told->top[told->n_ids], token->top, (size_t)token->n_top * sizeof *token->top);
        }
        told->n_ids++;
    }
    if (event->kind == TD_EVENT_FINISHED) {
        told->finish = event->finish;
        told->usage = event->usage;
        snprintf(told->error, sizeof told->error, "%s", event->error != NULL ? event->error : "");
    }
}

/* cancelled: a request that is cancelled when it has a few tokens; -1: none. */
static void run(const struct td_engine_options *options, const struct td_request *requests, int32_t n,
                int32_t cancelled, struct told *told)
{
    struct td_engine *engine = rig_open(options);
    uint64_t id[N_REQUESTS];
    memset(told, 0, (size_t)n * sizeof *told);
    for (int32_t i = 0; i < n; i++) {
        id[i] = rig_submit(engine, &requests[i]);
    }
    for (;;) {
        struct td_event event;
        const enum td_status status = td_next_event(engine, INT64_C(1000000000) * TD_WAIT_S, &event);
        if (status == TD_CLOSED) {
            break;
        }
        assert_int_equal(status, TD_OK);
        for (int32_t i = 0; i < n; i++) {
            if (id[i] == event.id) {
                take(&event, &told[i]);
                if (i == cancelled && told[i].n_ids >= CANCELLED_AFTER) {
                    td_cancel(engine, id[i]);
                }
            }
        }
    }
    td_engine_close(engine);
    simt_expect_silence();
    assert_int_equal(simt_held_bytes(), 0);
}

static void same(const struct told *a, const struct told *b)
{
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, sizeof a->ids);
    assert_memory_equal(a->logprob, b->logprob, sizeof a->logprob);
    assert_memory_equal(a->n_top, b->n_top, sizeof a->n_top);
    assert_memory_equal(a->top, b->top, sizeof a->top);
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->usage.logits_digest, b->usage.logits_digest);
    assert_string_equal(a->error, b->error);
}

static void all_that_a_request_may_ask_for(void **state)
{
    static const struct { const char *target, *draft_device, *draft, *ahead; int32_t k; } ways[] = {
        { "cuda:0", NULL, NULL, "off", 0 },         { "cuda:0", NULL, "auto", "off", 3 },
        { "cuda:0", "cuda:1", "auto", "on", 3 },    { "cuda:0", "cpu", "suffix,auto", "off", 4 },
        { NULL, "cuda:0", "auto", "on", 3 },        { "cuda:1", NULL, "layerskip:1", "off", 2 },
    };
    struct td_engine_options options;
    struct td_request requests[N_REQUESTS];
    (void)state;
    fill_requests(requests);
    set_options(&options);
    run(&options, requests, N_REQUESTS, -1, wanted);
    assert_int_equal(wanted[5].finish, TD_FINISH_ERROR);
    assert_non_null(strstr(wanted[5].error, "overflows"));
    assert_true(wanted[0].n_top[0] == N_TOP && wanted[3].logprob[1] < 0);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        options.target_device = ways[i].target;
        options.draft_device = ways[i].draft_device;
        options.draft = ways[i].draft;
        options.ahead = ways[i].ahead;
        options.k = ways[i].k;
        run(&options, requests, N_REQUESTS, -1, found);
        for (int32_t r = 0; r < N_REQUESTS; r++) {
            same(&found[r], &wanted[r]);
        }
    }
}

/* How often a draft was right, where it was asked, is the same too: the draft is alone with its sequence. */
static void as_much_is_accepted(void **state)
{
    struct td_engine_options options;
    struct td_request requests[N_REQUESTS];
    int64_t n_accepted = 0;
    (void)state;
    fill_requests(requests);
    set_options(&options);
    options.draft = "auto";
    options.ahead = "off";
    options.k = 3;
    options.max_batch = 1;
    run(&options, requests, N_REQUESTS, -1, wanted);
    options.target_device = "cuda:0";
    run(&options, requests, N_REQUESTS, -1, found);
    for (int32_t r = 0; r < N_REQUESTS; r++) {
        const struct td_draft_counts *a = &wanted[r].usage.drafted, *b = &found[r].usage.drafted;
        assert_memory_equal(a, b, sizeof *a);
        n_accepted += a->accepted;
    }
    assert_true(n_accepted > 0);
}

/* A step fetches what was chosen, and of the logits the rows that chose, once. */
static void targets_give_back_tokens_and_the_rows_that_chose(void **state)
{
    struct td_engine_options options;
    struct td_request requests[N_REQUESTS];
    uint64_t n_tokens = 0;
    (void)state;
    fill_requests(requests);
    set_options(&options);
    options.draft = "suffix";
    options.k = 3;
    options.target_device = "cuda:0";
    run(&options, requests, 3, -1, found);
    for (int32_t r = 0; r < 3; r++) {
        n_tokens += (uint64_t)found[r].n_ids;
    }
    const struct simt_counts counts = simt_counts_get();
    const uint64_t of_rows = n_tokens * VOCAB * sizeof(float), n_rows = 3 * 4;
    assert_int_equal(n_tokens, 3 * N_TOKENS);
    assert_true(counts.bytes_down >= of_rows);
    assert_true(counts.bytes_down - of_rows <= counts.copies_down * n_rows * 200);
    /* Two copies up a step; waits: for the choice, for rows while the next pass runs, for inputs used before. */
    assert_true(counts.waits <= 2 * counts.copies_up);
}

/* Alone, so that no pass follows in which its digest would be made anyway. When the cancel is seen is not the
 * same twice. */
static void cancel_alone(const struct td_request *request)
{
    struct td_engine_options options;
    struct td_request shorter = *request;
    set_options(&options);
    options.target_device = "cuda:0";
    run(&options, request, 1, 0, found);
    shorter.max_tokens = found[0].n_ids;
    options.target_device = NULL;
    run(&options, &shorter, 1, -1, wanted);
    assert_memory_equal(found[0].ids, wanted[0].ids, sizeof found[0].ids);
    assert_int_equal(found[0].usage.logits_digest, wanted[0].usage.logits_digest);
}

/* The digest of a request that is cancelled is that of the tokens it has. */
static void a_cancelled_request_has_its_digest(void **state)
{
    struct td_engine_options options;
    struct td_request requests[N_REQUESTS];
    (void)state;
    fill_requests(requests);
    for (int32_t i = 0; i < 2; i++) {
        requests[i].max_tokens = 28;
    }
    set_options(&options);
    options.target_device = "cuda:0";
    run(&options, requests, 2, 1, found);
    requests[1].max_tokens = found[1].n_ids;
    options.target_device = NULL;
    run(&options, requests, 2, -1, wanted);
    assert_true(found[1].n_ids >= CANCELLED_AFTER);
    for (int32_t r = 0; r < 2; r++) {
        assert_int_equal(found[r].n_ids, wanted[r].n_ids);
        assert_memory_equal(found[r].ids, wanted[r].ids, sizeof found[r].ids);
        assert_int_equal(found[r].usage.logits_digest, wanted[r].usage.logits_digest);
    }
    for (int i = 0; i < 8; i++) {
        requests[0].seed = (uint64_t)i;
        requests[0].max_tokens = 28;
        cancel_alone(&requests[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(all_that_a_request_may_ask_for, begin),
        cmocka_unit_test_setup(as_much_is_accepted, begin),
        cmocka_unit_test_setup(targets_give_back_tokens_and_the_rows_that_chose, begin),
        cmocka_unit_test_setup(a_cancelled_request_has_its_digest, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
