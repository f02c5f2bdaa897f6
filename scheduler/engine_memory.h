/* engine_memory: what models take of their devices, held against what there is: before a model is loaded by
 * what is known of it, and once more when all is taken. Inside the room only.
 *
 *     row 0   the target     weights   KV   to compute in
 *     row 1   a draft model  weights   KV   to compute in      on the same device, or on one of its own
 *
 * Rows of one device are held against one sum; of a target on several ranks, this rank's part counts. --memory says how much of each device may be taken; without it,
 * what is free there when the engine opens.
 */
#ifndef SCHEDULER_ENGINE_MEMORY_H
#define SCHEDULER_ENGINE_MEMORY_H

#include "scheduler/engine.h"

/* Devices are open. */
void engine_memory_begin(struct td_engine *engine, const struct td_engine_options *options);
/* What loading this target, or this draft, will take at least. */
enum status engine_memory_plan_target(struct td_engine *engine, const struct model_source *source);
enum status engine_memory_plan_draft(struct td_engine *engine, const struct model_source *source, int32_t n_pages);
/* What was taken; the draft's KV is written down by whoever made it. */
enum status engine_memory_settle(struct td_engine *engine);

#endif
