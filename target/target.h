/* target: the model whose word counts. What the scheduler asks of it is one thing: logits of the
 * wanted rows of a ragged pass. A kind is one file behind a table of functions; a test puts a table
 * of numbers where the model is.
 *
 * Step thread only. The lane's caller is worker 0: whoever waits, works.
 */
#ifndef TARGET_TARGET_H
#define TARGET_TARGET_H

#include <stdint.h>

#include "backend/backend.h"
#include "base/base.h"
#include "kvcache/kvcache.h"
#include "model/model.h"

struct target;
struct target_work {
    const struct kv_copy *copies; /* [n_copies] pages to copy before the pass writes, in this order */
    int32_t n_copies;
    const struct pass *pass;
};
struct target_kind {
    const char *name;
    /* Submits the work and returns at once; work and what it points to live until end. */
    void (*begin)(struct target *target, const struct target_work *work);
    /* Waits for it. *logits is [pass.n_logits, n_vocab], valid until the next begin. */
    enum status (*end)(struct target *target, const float **logits);
    /* Submits copies of pages, in this order, before whatever is begun next; the list is not kept. */
    void (*copy)(struct target *target, const struct kv_copy *copies, int32_t n);
    void (*destroy)(struct target *target);
};
struct target {
    const struct target_kind *kind;
    struct lane *lane;   /* borrowed; sampling runs there too, after the pass */
    int32_t n_vocab;
};

struct model_target_options {
    const struct model *model; /* borrowed */
    struct lane *lane;         /* borrowed */
    enum kv_type kv;
    int32_t page_slots, n_pages;
    int32_t cap_rows, cap_logits; /* of a pass */
};
/* A model with its KV and the buffers of its largest pass, all taken here. STATUS_NO_MEMORY. */
enum status model_target_create(const struct model_target_options *options, struct target **out);
/* Bytes of the KV pages of such a target, before there is one. */
uint64_t model_target_kv_bytes(const struct model_config *config,
                               const struct model_target_options *options);
/* Bytes of the buffers of a pass. */
uint64_t model_target_scratch_bytes(const struct target *target);

static inline void target_destroy(struct target *target)
{
    if (target != NULL) {
        target->kind->destroy(target);
    }
}

#include "target/virtual_target.h" /* a part of this door */

#endif
