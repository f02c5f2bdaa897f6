/* engine_ahead: from options to a draft model that works while the target does. Inside the room only. */
#ifndef SCHEDULER_ENGINE_AHEAD_H
#define SCHEDULER_ENGINE_AHEAD_H

#include "draft/draft.h"
#include "scheduler/engine.h"

/* How branches are spread, and how many of a round there are at most. */
enum status engine_ahead_fanout(const struct td_engine_options *options, struct fanout_options *fanout,
                                int32_t *max_budget);
/* Words and ranges; plan->drafts_ahead. */
enum status engine_ahead_plan(const struct td_engine_options *options, struct engine_plan *plan);
enum status engine_ahead_create(struct td_engine *engine, const struct td_engine_options *options,
                                const struct draft_model_options *model, struct draft **out);

#endif
