/* engine_draft: from the words of --draft to a draft with what it stands on. Inside the room only. */
#ifndef SCHEDULER_ENGINE_DRAFT_H
#define SCHEDULER_ENGINE_DRAFT_H

#include "scheduler/engine.h"

/* The longest chain of a round by these options; 0 = plain decoding. */
int32_t engine_draft_k_max(const struct td_engine_options *options);
/* Whether one of its words names a model. */
bool engine_draft_has_model(const struct td_engine_options *options);
/* Ids that the draft model named `model` may propose, ascending; NULL: all. `asked` as --draft-vocab.
 * The target and what is known of the draft must be there; nothing runs yet. *ids is mem_free()d by the
 * caller, after a failure too. */
enum status engine_vocab_open(struct td_engine *engine, const char *asked, const char *model, int32_t **ids,
                              int32_t *n_ids);
/* engine->draft and what it needs; the target must be there. STATUS_UNSUPPORTED, naming what there is. */
enum status engine_draft_open(struct td_engine *engine, const struct td_engine_options *options);
void engine_draft_close(struct td_engine *engine);

#endif
