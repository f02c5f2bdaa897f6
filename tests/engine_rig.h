/* engine_rig: an engine on a real model and what became of the requests it was given. Everything
 * asserts: a failed call fails the test. */
#ifndef TESTS_ENGINE_RIG_H
#define TESTS_ENGINE_RIG_H

#include <stddef.h>
#include <stdint.h>

#include "tandem.h"

enum { RIG_MAX_RESULTS = 64, RIG_MAX_TOKENS = 512, RIG_TEXT_CAP = 4096 };

struct rig_result {
    uint64_t id;
    int32_t choice;
    int32_t ids[RIG_MAX_TOKENS];
    size_t n_ids, n_text, n_events;
    char text[RIG_TEXT_CAP];
    enum td_finish finish;
    struct td_usage usage;
    int is_finished;
};
/* What a run of requests gave, in order of their submission. */
struct rig_results { struct rig_result result[RIG_MAX_RESULTS]; size_t n_results; };

void rig_options(struct td_engine_options *options); /* the default model, one thread */
struct td_engine *rig_open(const struct td_engine_options *options);
uint64_t rig_submit(struct td_engine *engine, const struct td_request *request);
/* Events until nothing runs; results are found by (id, choice), new ones are added. */
void rig_drain(struct td_engine *engine, struct rig_results *results);
struct rig_result *rig_find(struct rig_results *results, uint64_t id, int32_t choice);
/* One event. */
void rig_take(struct rig_results *results, const struct td_event *event);
/* Submits all, drains, sorts by id and choice. */
void rig_run(struct td_engine *engine, const struct td_request *requests, size_t n,
             struct rig_results *results);
/* Same ids, text, digest and end. */
void rig_assert_same(const struct rig_result *a, const struct rig_result *b);

#endif
