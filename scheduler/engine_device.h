/* engine_device: from --target-device and --draft-device to cores, and to lanes on them. Inside the room
 * only.
 *
 *     target        draft         cores of the target              cores of the draft
 *     -             -             the physical ones                none of its own
 *     cpu:0-2       cpu:3         0-2                              3
 *     - or cpu      cpu:3         the physical ones but 3          3
 *     cpu:0-2       cpu           0-2                              the physical ones but 0-2
 *     - or cpu      cpu           the physical ones but the last   the last (one in eight)
 *
 *     cuda:0        cpu           one in eight                     the others
 *     cuda:0        cuda:0        the physical ones                one, as it likes
 *
 * A model on a GPU has cores for what the host does of its work: sampling, digests. Two on one GPU have a
 * stream each. Whoever would be left without a core shares all of them. Results are the same wherever things run.
 */
#ifndef SCHEDULER_ENGINE_DEVICE_H
#define SCHEDULER_ENGINE_DEVICE_H

#include "scheduler/engine.h"

/* Cores of both, and whether they lend. plan->drafts_ahead is set: such a draft always has a lane of its
 * own, named or not. */
enum status engine_device_plan(const struct td_engine_options *options, struct engine_plan *plan);
/* engine->backend, lane and, where planned, draft_lane, on a backend of its own where its device is another. */
enum status engine_device_open(struct td_engine *engine, const struct td_engine_options *options);
void engine_device_close(struct td_engine *engine);

#endif
