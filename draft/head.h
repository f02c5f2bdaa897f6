/* head: a model's head cut to the ids that a draft may propose, row by row the same weights, so the same
 * logits (frequency-ranked speculation: Zhao et al., "FR-Spec", 2025). Inside the room only. */
#ifndef DRAFT_HEAD_H
#define DRAFT_HEAD_H

#include "model/model.h"

/* ids [n] ascending, below full->n_out. STATUS_NO_MEMORY. To be freed with draft_head_deinit. */
enum status draft_head_init(struct backend *backend, const struct weight *full, const int32_t *ids, int32_t n,
                            struct weight *head);
void draft_head_deinit(struct backend *backend, struct weight *head); /* zeroed is fine */
size_t draft_head_bytes(const struct backend *backend, const struct weight *head); /* 0 when there is none */

#endif
