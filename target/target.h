/* target: the model whose word counts. What the scheduler asks of it is one thing: logits of the
 * wanted rows of a ragged pass. A kind is one file behind a table of functions; a test puts a table
 * of numbers where the model is.
 *
 * Step thread only. The lane's caller is worker 0: whoever waits, works.
 */
#ifndef TARGET_TARGET_H
#define TARGET_TARGET_H

#include <stdbool.h>
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
    /* Waits for it. *logits is [pass.n_logits, n_vocab], valid until the next begin. Where pass.rows_stay
     * it is NULL, and nobody has waited: backend_choose() will. */
    enum status (*end)(struct target *target, const float **logits);
    /* Submits copies of pages, in this order, before whatever is begun next; the list is not kept. */
    void (*copy)(struct target *target, const struct kv_copy *copies, int32_t n);
    void (*destroy)(struct target *target);
};
struct target {
    const struct target_kind *kind;
    struct lane *lane;   /* borrowed; sampling runs there too, after the pass */
    int32_t n_vocab;
    struct pass_desk *desk; /* of its passes, whose rows may stay; NULL: they come to the host */
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

/* ---- ranks: rank 0 leads, the others follow ---- */
enum { RANK_NAME_CAP = 4096, RANK_QUANT_CAP = 16 };
/* A model that ranks are to hold together, and the passes that they will run. */
struct rank_order {
    char model[RANK_NAME_CAP], quant[RANK_QUANT_CAP]; /* as model_source_open_as(); "": as it is */
    int32_t context, kv;                              /* kv: enum kv_type */
    int32_t page_slots, n_pages, cap_rows, cap_logits;
    int32_t cap_seqs;                                 /* page tables that a pass reads, at most */
};
/* Rank 0. Tells the others; model_load() of the same with the same comm must come next, and if that went
 * well parallel_target_open(). */
void ranks_lead(struct comm *comm, const struct rank_order *order);
/* Rank 0: how making its part went (`status`, then *target is that part, a model target). All ranks agree,
 * and *target becomes one whose passes all of them run; it owns the part. A failure of any rank is one of
 * all; then *target is NULL. Destroying it lets the others go back to waiting for an order. */
enum status parallel_target_open(struct comm *comm, const struct rank_order *order, enum status status,
                                 struct target **target);
/* Rank 0: there will be no further order. */
void ranks_dismiss(struct comm *comm);
/* The others: waits for an order; false: dismissed. */
bool ranks_await(struct comm *comm, struct rank_order *order);
struct rank_follow_options {
    struct comm *comm;
    const struct rank_order *order;
    struct lane *lane;
    bool mlock;
    uint64_t budget_bytes;
};
/* The others: loads their part and runs passes until rank 0 destroys its target. A failure is one of all
 * ranks, and rank 0 has its sentence. */
enum status ranks_follow(const struct rank_follow_options *options);

static inline void target_destroy(struct target *target)
{
    if (target != NULL) {
        target->kind->destroy(target);
    }
}

#include "target/virtual_target.h" /* a part of this door */

#endif
