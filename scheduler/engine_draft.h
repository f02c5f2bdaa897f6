/* engine_draft: from the words of --draft to a draft with what it stands on. Inside the room only. */
#ifndef SCHEDULER_ENGINE_DRAFT_H
#define SCHEDULER_ENGINE_DRAFT_H

#include "scheduler/engine.h"

/* The longest chain of a round by these options; 0 = plain decoding. */
int32_t engine_draft_k_max(const struct td_engine_options *options);
/* engine->draft and what it needs; the target must be there. STATUS_UNSUPPORTED, naming what there is. */
enum status engine_draft_open(struct td_engine *engine, const struct td_engine_options *options);
void engine_draft_close(struct td_engine *engine);

#endif
