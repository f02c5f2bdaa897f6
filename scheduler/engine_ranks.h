/* engine_ranks: an engine whose target several processes hold. Rank 0 has the engine and decides; the
 * others load their part and run the passes they are told (target/parallel_target.c). Inside the room only.
 *
 *     rank 0    join ► open: lead, load ... agree ► passes ► close ► leave: dismiss
 *     others    join ► follow: await, load ... agree ► passes ► await ► dismissed ► leave
 */
#ifndef SCHEDULER_ENGINE_RANKS_H
#define SCHEDULER_ENGINE_RANKS_H

#include "scheduler/engine.h"

/* NULL where the engine's target is this process's alone. */
struct comm *engine_ranks_comm(const struct td_engine_options *options);
/* plan->ranks. */
void engine_ranks_plan(const struct td_engine_options *options, struct engine_plan *plan);
/* Right before the target is loaded. Does nothing for a process alone, nor does what follows. */
void engine_ranks_lead(struct td_engine *engine, const struct td_engine_options *options,
                       const struct scheduler_options *loop);
/* How making the target went; it becomes one of all ranks. */
enum status engine_ranks_open(struct td_engine *engine, const struct td_engine_options *options, enum status status);

#endif
