/* engine_group: a target on several GPUs of this process (--target-device cuda:0,1). Each has a rank, which is a
 * thread: the engine's is rank 0, the others follow as processes would (engine_ranks.h). Inside the room only.
 *
 *     td_engine_open ──► group: rank 0 ─────► engine on cuda:0, with its step thread
 *                               rank 1.. ───► td_engine_follow on cuda:1, on a thread of its own
 */
#ifndef SCHEDULER_ENGINE_GROUP_H
#define SCHEDULER_ENGINE_GROUP_H

#include "scheduler/engine.h"

/* What a list of GPUs names. */
struct device_list { int32_t n; int32_t device[COMM_MAX_RANKS]; };
/* n 0 where the text is no list. STATUS_INVALID when it is no good one. */
enum status device_list_parse(const char *text, struct device_list *out);

struct engine_group;
/* Where the options name several devices and no ranks: the group, with its other ranks waiting for orders, and in
 * *options what rank 0 goes on with, borrowed from the group. Else *out is NULL and options stay. */
enum status engine_group_open(struct td_engine_options *options, struct engine_group **out);
/* When rank 0's engine has gone. NULL is fine. */
void engine_group_close(struct engine_group *group);

#endif
