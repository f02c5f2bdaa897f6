/* engine_rig: see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/engine_rig.h"

void rig_options(struct td_engine_options *options)
{
    td_engine_options_init(options);
    options->target = "models/stories15M.Q8_0.gguf";
    options->threads = 1;
}

struct td_engine *rig_open(const struct td_engine_options *options)
{
    struct td_engine *engine;
    if (td_engine_open(options, &engine) != TD_OK) {
        fail_msg("%s", td_error_message());
    }
    return engine;
}

uint64_t rig_submit(struct td_engine *engine, const struct td_request *request)
{
    uint64_t id;
    if (td_submit(engine, request, &id) != TD_OK) {
        fail_msg("%s", td_error_message());
    }
    return id;
}

struct rig_result *rig_find(struct rig_results *results, uint64_t id, int32_t choice)
{
    for (size_t i = 0; i < results->n_results; i++) {
        if (results->result[i].id == id && results->result[i].choice == choice) {
            return &results->result[i];
        }
    }
    assert_true(results->n_results < RIG_MAX_RESULTS);
    struct rig_result *result = &results->result[results->n_results++];
    memset(result, 0, sizeof *result);
    result->id = id;
    result->choice = choice;
    return result;
}

static void take(struct rig_result *result, const struct td_event *event)
{
    assert_false(result->is_finished); /* the end is the last event */
    assert_true(result->n_ids + event->n_tokens <= RIG_MAX_TOKENS);
    assert_true(result->n_text + event->n_text <= RIG_TEXT_CAP);
    for (size_t i = 0; i < event->n_tokens; i++) {
        result->ids[result->n_ids++] = event->tokens[i].id;
    }
    memcpy(result->text + result->n_text, event->text, event->n_text);
    result->n_text += event->n_text;
    result->n_events++;
    if (event->kind == TD_EVENT_FINISHED) {
        result->is_finished = 1;
        result->finish = event->finish;
        result->usage = event->usage;
        assert_int_equal(event->usage.completion_tokens, result->n_ids);
    }
}

void rig_take(struct rig_results *results, const struct td_event *event)
{
    take(rig_find(results, event->id, event->choice), event);
}

void rig_drain(struct td_engine *engine, struct rig_results *results)
{
    for (;;) {
        struct td_event event;
        const enum td_status status = td_next_event(engine, INT64_C(60000000000), &event);
        if (status == TD_CLOSED) {
            return;
        }
        assert_int_equal(status, TD_OK);
        rig_take(results, &event);
    }
}

static int by_id(const void *a, const void *b)
{
    const struct rig_result *x = a, *y = b;
    return x->id != y->id ? (x->id < y->id ? -1 : 1) : x->choice - y->choice;
}

void rig_run(struct td_engine *engine, const struct td_request *requests, size_t n,
             struct rig_results *results)
{
    memset(results, 0, sizeof *results);
    for (size_t i = 0; i < n; i++) {
        rig_submit(engine, &requests[i]);
    }
    rig_drain(engine, results);
    qsort(results->result, results->n_results, sizeof *results->result, by_id);
}

void rig_assert_same(const struct rig_result *a, const struct rig_result *b)
{
    assert_int_equal(a->n_ids, b->n_ids);
    assert_memory_equal(a->ids, b->ids, a->n_ids * sizeof *a->ids);
    assert_int_equal(a->usage.logits_digest, b->usage.logits_digest);
    assert_int_equal(a->usage.fingerprint, b->usage.fingerprint);
    assert_int_equal(a->finish, b->finish);
    assert_int_equal(a->n_text, b->n_text);
    assert_memory_equal(a->text, b->text, a->n_text);
}
