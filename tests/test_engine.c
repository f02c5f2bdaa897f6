/* The public API on the default model: the same bits in any company, events, stops, limits, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "tests/engine_rig.h"

enum { N_REQUESTS = 16, MAX_PROMPT = 150 };

/* Under sanitizers, where a pass takes a hundred times as long: a smaller model and fewer tokens. */
static bool is_quick(void)
{
    return getenv("TANDEM_TEST_QUICK") != NULL;
}

static void batch_options(struct td_engine_options *options)
{
    rig_options(options);
    if (is_quick()) {
        options->target = "synth:tiny,q8_0,context=256,seed=1";
    }
}

static int32_t prompts[N_REQUESTS][MAX_PROMPT];
static struct td_request requests[N_REQUESTS];
static struct rig_results alone, together;

/* Prompts of 1 to 150 tokens; some share a beginning, some are sampled. */
static void make_requests(int64_t max_tokens)
{
    static const size_t lens[N_REQUESTS] = { 1, 2, 15, 16, 17, 40, 63, 64, 65, 66, 100, 128, 129, 5, 150, 7 };
    for (int i = 0; i < N_REQUESTS; i++) {
        for (int j = 0; j < MAX_PROMPT; j++) {
            const uint64_t seed = i % 3 == 0 || j < 60 ? 0 : (uint64_t)i;
            prompts[i][j] = 3 + (int32_t)(rng_mix64(seed * 1000 + (uint64_t)j) % 400);
        }
        prompts[i][0] = 1;
        td_request_init(&requests[i]);
        requests[i].ids = prompts[i];
        requests[i].n_ids = lens[i];
        requests[i].max_tokens = max_tokens;
        requests[i].temperature = i % 4 == 1 ? 0.8f : 0;
        requests[i].top_p = i % 8 == 1 ? 0.9f : 1;
        requests[i].has_seed = 1;
        requests[i].seed = (uint64_t)i;
        requests[i].ignore_eos = 1;
        requests[i].user = &requests[i];
    }
}

static void run_alone(void)
{
    struct td_engine_options options;
    batch_options(&options);
    options.prefix_cache = 0;
    struct td_engine *engine = rig_open(&options);
    rig_run(engine, requests, N_REQUESTS, &alone);
    td_engine_close(engine);
}

static void assert_together_is_alone(const struct td_engine_options *options)
{
    struct td_engine *engine = rig_open(options);
    rig_run(engine, requests, N_REQUESTS, &together);
    assert_int_equal(together.n_results, N_REQUESTS);
    for (int i = 0; i < N_REQUESTS; i++) {
        rig_assert_same(&alone.result[i], &together.result[i]);
    }
    td_engine_close(engine);
}

/* ---- the same bits ---- */
static void sixteen_together_equal_each_alone(void **state)
{
    (void)state;
    static const int32_t chunks[] = { 1, 7, 64, 512 };
    make_requests(24);
    run_alone();
    for (int i = 0; i < 8; i++) {
        struct td_engine_options options;
        batch_options(&options);
        options.max_batch = N_REQUESTS;
        options.prefill_chunk = chunks[i % 4];
        options.page = i % 2 ? 16 : 64;
        options.threads = 1 + i / 4;
        options.prefix_cache = i % 3 != 0;
        assert_together_is_alone(&options);
    }
}

static void few_pages_preempt_and_change_nothing(void **state)
{
    (void)state;
    make_requests(24);
    run_alone();
    struct td_engine_options options;
    batch_options(&options);
    options.max_batch = 8;
    options.page = 16;
    options.kv_pages = 17; /* 16 hold one context */
    options.max_queue = 64;
    assert_together_is_alone(&options);
}

static void instruction_sets_agree(void **state)
{
    (void)state;
    static const char *const names[] = { "scalar", "avx2", "avx512" };
    static struct rig_results results;
    uint64_t digest = 0;
    make_requests(3);
    for (int i = 0; i < 3; i++) {
        struct td_engine_options options;
        struct td_engine *engine;
        rig_options(&options);
        options.isa = names[i];
        options.max_batch = 3;
        if (td_engine_open(&options, &engine) != TD_OK) {
            print_message("skipped: no %s here: %s\n", names[i], td_error_message());
            continue;
        }
        rig_run(engine, requests, 3, &results);
        digest = digest == 0 ? results.result[2].usage.logits_digest : digest;
        assert_int_equal(results.result[2].usage.logits_digest, digest);
        td_engine_close(engine);
    }
}

/* ---- events ---- */
static void case_41_results_under_their_own_id(void **state)
{
    (void)state;
    struct td_engine_options options;
    uint64_t ids[N_REQUESTS];
    size_t n_finished = 0;
    make_requests(8);
    rig_options(&options);
    options.max_batch = 5;
    struct td_engine *engine = rig_open(&options);
    for (int i = 0; i < N_REQUESTS; i++) {
        requests[i].max_tokens = 1 + (i * 5) % 13;
        ids[i] = rig_submit(engine, &requests[i]);
    }
    struct td_event event;
    while (td_next_event(engine, -1, &event) == TD_OK) {
        const struct td_request *request = event.user;
        assert_int_equal(event.id, ids[request - requests]);
        if (event.kind == TD_EVENT_FINISHED) {
            n_finished++;
            assert_int_equal(event.usage.completion_tokens, request->max_tokens);
            assert_int_equal(event.usage.prompt_tokens, request->n_ids);
            assert_int_equal(event.usage.seed, request->seed);
            assert_true(event.usage.first_token_seconds > 0 && event.usage.decode_seconds >= 0);
        }
    }
    assert_int_equal(n_finished, N_REQUESTS);
    td_engine_close(engine);
}

static struct td_engine *open_story(int32_t *ids, struct td_request *request)
{
    static const char text[] = "Once upon a time";
    struct td_engine_options options;
    size_t n_ids;
    rig_options(&options);
    struct td_engine *engine = rig_open(&options);
    assert_int_equal(td_tokenize(engine, text, strlen(text), 0, ids, 16, &n_ids), TD_OK);
    assert_true(n_ids <= 16 && ids[0] == 1);
    td_request_init(request);
    request->ids = ids;
    request->n_ids = n_ids;
    request->max_tokens = 80;
    return engine;
}

static void text_is_what_the_ids_say(void **state)
{
    (void)state;
    int32_t ids[16], whole[RIG_MAX_TOKENS];
    struct td_request request;
    static struct rig_results results;
    static char text[RIG_TEXT_CAP];
    size_t n_text, n_prompt_text;
    struct td_engine *engine = open_story(ids, &request);
    rig_run(engine, &request, 1, &results);
    const struct rig_result *result = &results.result[0];
    memcpy(whole, ids, request.n_ids * sizeof *ids);
    memcpy(whole + request.n_ids, result->ids, result->n_ids * sizeof *ids);
    assert_int_equal(td_detokenize(engine, whole, request.n_ids, text, sizeof text, &n_prompt_text), TD_OK);
    assert_int_equal(n_prompt_text, strlen("Once upon a time"));
    td_detokenize(engine, whole, request.n_ids + result->n_ids, text, sizeof text, &n_text);
    assert_int_equal(n_text, n_prompt_text + result->n_text);
    assert_memory_equal(text + n_prompt_text, result->text, result->n_text);
    assert_true(result->n_text > 100 && result->finish == TD_FINISH_LENGTH);
    /* what does not fit is counted */
    td_detokenize(engine, whole, request.n_ids, text, 4, &n_prompt_text);
    assert_int_equal(n_prompt_text, strlen("Once upon a time"));
    request.want_text = 0;
    rig_run(engine, &request, 1, &results);
    assert_int_equal(results.result[0].n_text, 0);
    td_engine_close(engine);
}

static void case_11_stop_string_over_tokens(void **state)
{
    (void)state;
    int32_t ids[16];
    struct td_request request;
    static struct rig_results plain, stopped;
    static char expected[RIG_TEXT_CAP + 1];
    struct td_engine *engine = open_story(ids, &request);
    rig_run(engine, &request, 1, &plain);
    memcpy(expected, plain.result[0].text, plain.result[0].n_text);
    for (size_t begin = 1; begin + 12 < plain.result[0].n_text; begin += is_quick() ? 40 : 9) {
        char stop[13];
        memcpy(stop, expected + begin, 12); /* longer than any one of these tokens */
        stop[12] = '\0';
        const char *stops[] = { "never comes", stop };
        request.stops = stops;
        request.n_stops = 2;
        rig_run(engine, &request, 1, &stopped);
        const struct rig_result *result = &stopped.result[0];
        assert_int_equal(result->finish, TD_FINISH_STOP);
        assert_int_equal(result->n_text, (size_t)(strstr(expected, stop) - expected));
        assert_memory_equal(result->text, expected, result->n_text);
        assert_memory_equal(result->ids, plain.result[0].ids, result->n_ids * sizeof *result->ids);
        assert_true(result->n_ids < plain.result[0].n_ids);
    }
    td_engine_close(engine);
}

static void stop_ids_end_the_text_before_them(void **state)
{
    (void)state;
    int32_t ids[16];
    struct td_request request;
    static struct rig_results plain, stopped;
    struct td_engine *engine = open_story(ids, &request);
    rig_run(engine, &request, 1, &plain);
    const int32_t stop_id = plain.result[0].ids[10];
    request.stop_ids = &stop_id;
    request.n_stop_ids = 1;
    rig_run(engine, &request, 1, &stopped);
    const struct rig_result *result = &stopped.result[0];
    assert_int_equal(result->finish, TD_FINISH_STOP);
    assert_true(result->n_ids <= 11 && result->ids[result->n_ids - 1] == stop_id);
    assert_true(result->n_text > 0 && result->n_text < plain.result[0].n_text);
    assert_memory_equal(result->text, plain.result[0].text, result->n_text);
    td_engine_close(engine);
}

static void choices_have_seeds_of_their_own(void **state)
{
    (void)state;
    int32_t ids[16];
    struct td_request request;
    static struct rig_results choices, single;
    struct td_engine *engine = open_story(ids, &request);
    request.n = 4;
    request.temperature = 1;
    request.has_seed = 1;
    request.seed = 77;
    request.max_tokens = 30;
    rig_run(engine, &request, 1, &choices);
    assert_int_equal(choices.n_results, 4);
    for (uint32_t i = 0; i < 4; i++) {
        request.n = 1;
        request.seed = rng_choice_seed(77, i);
        rig_run(engine, &request, 1, &single);
        rig_assert_same(&choices.result[i], &single.result[0]);
        assert_true(i == 0 || memcmp(choices.result[0].ids, choices.result[i].ids, 40) != 0);
    }
    td_engine_close(engine);
}

/* ---- ends ---- */
static void *cancel_after_a_while(void *arg)
{
    void *const *both = arg;
    const int64_t until = clock_now_ns() + 5 * 1000 * 1000;
    while (clock_now_ns() < until) {
    }
    td_cancel(both[0], *(uint64_t *)both[1]);
    return NULL;
}

static void cancel_from_another_thread(void **state)
{
    (void)state;
    int32_t ids[16];
    struct td_request request;
    static struct rig_results plain, results;
    struct td_engine *engine = open_story(ids, &request);
    request.max_tokens = -1;
    request.ignore_eos = 1;
    rig_run(engine, &request, 1, &plain);
    assert_int_equal(plain.result[0].finish, TD_FINISH_CONTEXT);
    for (int i = 0; i < (is_quick() ? 2 : 5); i++) {
        pthread_t thread;
        uint64_t id = rig_submit(engine, &request);
        void *both[] = { engine, &id };
        memset(&results, 0, sizeof results);
        assert_int_equal(pthread_create(&thread, NULL, cancel_after_a_while, both), 0);
        rig_drain(engine, &results);
        pthread_join(thread, NULL);
        const struct rig_result *result = &results.result[0];
        assert_true(result->finish == TD_FINISH_CANCELLED || result->finish == TD_FINISH_CONTEXT);
        assert_memory_equal(result->ids, plain.result[0].ids, result->n_ids * sizeof *result->ids);
    }
    td_cancel(engine, 123456); /* nobody */
    td_engine_close(engine);
}

static void full_queue_refuses_and_recovers(void **state)
{
    (void)state;
    struct td_engine_options options;
    static struct rig_results results;
    enum td_status status = TD_OK;
    uint64_t id;
    int n_taken = 0;
    make_requests(20);
    rig_options(&options);
    options.max_queue = 3;
    struct td_engine *engine = rig_open(&options);
    struct td_event event;
    assert_int_equal(td_next_event(engine, 0, &event), TD_CLOSED);
    while (status == TD_OK && n_taken < 10000) {
        status = td_submit(engine, &requests[0], &id);
        n_taken += status == TD_OK;
    }
    assert_int_equal(status, TD_REFUSED);
    assert_true(n_taken >= 3);
    assert_non_null(strstr(td_error_message(), "3 requests wait"));
    memset(&results, 0, sizeof results);
    assert_true(n_taken <= RIG_MAX_RESULTS);
    rig_drain(engine, &results);
    assert_int_equal(results.n_results, n_taken);
    rig_submit(engine, &requests[0]);
    td_engine_close(engine); /* cancels it */
}

static void waiting_has_a_limit(void **state)
{
    (void)state;
    int32_t ids[16];
    struct td_request request;
    struct td_event event;
    struct td_engine *engine = open_story(ids, &request);
    request.max_tokens = 60;
    request.ignore_eos = 1;
    rig_submit(engine, &request);
    int n_timeouts = 0;
    for (enum td_status status = TD_OK; status != TD_CLOSED;) {
        status = td_next_event(engine, 0, &event);
        n_timeouts += status == TD_TIMEOUT;
    }
    assert_true(n_timeouts > 0);
    td_engine_close(engine);
}

/* ---- memory ---- */
static void a_step_allocates_nothing(void **state)
{
    (void)state;
    struct td_engine_options options;
    struct td_event event = { 0 };
    make_requests(is_quick() ? 10 : 60);
    rig_options(&options);
    options.max_batch = N_REQUESTS;
    struct td_engine *engine = rig_open(&options);
    for (int i = 0; i < N_REQUESTS; i++) {
        rig_submit(engine, &requests[i]);
    }
    const uint64_t before = mem_alloc_count();
    while (td_next_event(engine, -1, &event) == TD_OK) {
    }
    assert_int_equal(mem_alloc_count(), before);
    td_engine_close(engine);
}

static void every_allocation_of_opening_may_fail(void **state)
{
    (void)state;
    struct td_engine_options options;
    enum td_status status = TD_NO_MEMORY;
    rig_options(&options);
    options.target = "synth:tiny,q8_0,seed=1";
    options.context = 64;
    uint64_t n = 0;
    while (status != TD_OK) {
        struct td_engine *engine;
        mem_fail_at(++n);
        status = td_engine_open(&options, &engine);
        mem_fail_at(0);
        if (status != TD_OK) {
            assert_int_equal(status, TD_NO_MEMORY);
            assert_null(engine);
        } else {
            td_engine_close(engine);
        }
    }
    assert_true(n > 40);
}

/* ---- refusals ---- */
static void expect_refusal(const struct td_engine_options *options, enum td_status expected, const char *words)
{
    struct td_engine *engine;
    assert_int_equal(td_engine_open(options, &engine), expected);
    assert_null(engine);
    if (strstr(td_error_message(), words) == NULL) {
        fail_msg("expected '%s' in: %s", words, td_error_message());
    }
}

static void impossible_options_get_a_sentence(void **state)
{
    (void)state;
    struct td_engine_options options;
#define REFUSES(change, status, words)            \
    do {                                          \
        rig_options(&options);                    \
        change;                                   \
        expect_refusal(&options, status, words);  \
    } while (0)
    REFUSES(options.target = NULL, TD_INVALID, "no target");
    REFUSES(options.target = "models/nowhere.gguf", TD_IO, "nowhere");
    REFUSES(options.plan = "fast", TD_UNSUPPORTED, "exact");
    REFUSES(options.kv = "q8", TD_UNSUPPORTED, "f16 or f32");
    REFUSES(options.draft = "oracle", TD_UNSUPPORTED, "none");
    REFUSES(options.isa = "mmx", TD_UNSUPPORTED, "mmx");
    REFUSES(options.page = 20, TD_INVALID, "multiple of 16");
    REFUSES(options.page = 0, TD_INVALID, "page");
    REFUSES(options.context = 100000, TD_INVALID, "256");
    REFUSES(options.threads = -1, TD_INVALID, "threads");
    REFUSES(options.max_batch = 0, TD_INVALID, "batch");
    REFUSES(options.prefill_chunk = 0, TD_INVALID, "chunk");
    REFUSES(options.kv_pages = 1, TD_INVALID, "needs 4 KV pages");
    REFUSES(options.fanout = "list:1,x", TD_INVALID, "apart by commas");
    REFUSES(options.target_device = "tpu", TD_UNSUPPORTED, "tpu");
    REFUSES(options.target_device = "cpu:", TD_INVALID, "cpu:0-3");
    REFUSES(options.target_device = "cpu:0-", TD_INVALID, "cpu:0-3");
    REFUSES(options.target_device = "cpu:4000", TD_INVALID, "4000");
    REFUSES(options.target_device = "cpu:99999999999999999999", TD_INVALID, "core");
    REFUSES(options.draft_device = "tpu", TD_UNSUPPORTED, "tpu");
    REFUSES(options.draft_device = "cpu:4000", TD_INVALID, "draft device");
    REFUSES(options.draft_device = "cpu", TD_INVALID, "there is none");
    REFUSES(options.memory_bytes = 1 << 20, TD_NO_MEMORY, "1.0 MiB are allowed");
#undef REFUSES
}

/* Just enough memory is enough; a little less is refused with both numbers. */
static void memory_is_held_to(void **state)
{
    (void)state;
    struct td_engine_options options;
    struct td_engine_info info;
    rig_options(&options);
    struct td_engine *engine = rig_open(&options);
    td_engine_get_info(engine, &info);
    td_engine_close(engine);
    const uint64_t total = info.resident_weight_bytes + info.kv_bytes + info.scratch_bytes;
    options.memory_bytes = total;
    engine = rig_open(&options);
    td_engine_close(engine);
    options.memory_bytes = total - 1;
    expect_refusal(&options, TD_NO_MEMORY, "MiB are allowed");
    options.memory_bytes = info.kv_bytes + info.weight_bytes / 2;
    expect_refusal(&options, TD_NO_MEMORY, "MiB are allowed");
}

static uint64_t sum_of(const struct td_memory *row)
{
    return row->weight_bytes + row->kv_bytes + row->scratch_bytes;
}

/* Both models of one device are held against one sum, before the draft is loaded and when all is there. */
static void a_draft_counts_too(void **state)
{
    (void)state;
    struct td_engine_options options;
    struct td_memory rows[2];
    rig_options(&options);
    struct td_engine *engine = rig_open(&options);
    assert_int_equal(td_engine_get_memory(engine, rows), 1);
    assert_true(sum_of(&rows[0]) > 0 && rows[0].device_bytes >= sum_of(&rows[0]));
    assert_non_null(strstr(rows[0].device, "cpu"));
    td_engine_close(engine);
    const uint64_t target = sum_of(&rows[0]);
    options.draft = "auto";
    options.k = 2;
    engine = rig_open(&options);
    assert_int_equal(td_engine_get_memory(engine, rows), 2);
    td_engine_close(engine);
    assert_true(rows[1].weight_bytes > 0 && rows[1].kv_bytes > 0 && rows[1].scratch_bytes > 0);
    options.memory_bytes = sum_of(&rows[0]) + sum_of(&rows[1]);
    engine = rig_open(&options);
    td_engine_close(engine);
    options.memory_bytes--;
    expect_refusal(&options, TD_NO_MEMORY, "its draft");
    options.memory_bytes = target + 1000;
    expect_refusal(&options, TD_NO_MEMORY, "its draft");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sixteen_together_equal_each_alone),
        cmocka_unit_test(few_pages_preempt_and_change_nothing),
        cmocka_unit_test(instruction_sets_agree),
        cmocka_unit_test(case_41_results_under_their_own_id),
        cmocka_unit_test(text_is_what_the_ids_say),
        cmocka_unit_test(case_11_stop_string_over_tokens),
        cmocka_unit_test(stop_ids_end_the_text_before_them),
        cmocka_unit_test(choices_have_seeds_of_their_own),
        cmocka_unit_test(cancel_from_another_thread),
        cmocka_unit_test(full_queue_refuses_and_recovers),
        cmocka_unit_test(waiting_has_a_limit),
        cmocka_unit_test(a_step_allocates_nothing),
        cmocka_unit_test(every_allocation_of_opening_may_fail),
        cmocka_unit_test(impossible_options_get_a_sentence),
        cmocka_unit_test(memory_is_held_to),
        cmocka_unit_test(a_draft_counts_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
