/* model_rig: a model on a backend with KV for a few sequences, so that tests can run passes without
 * the rooms above model. Sequence s owns pages s, s + n_seqs, s + 2 n_seqs, ..: never neighbours. */
#ifndef TESTS_MODEL_RIG_H
#define TESTS_MODEL_RIG_H

#include "model/model.h"

struct model_rig_options {
    const char *name;          /* as model_source_open */
    struct model_source *source; /* instead of name; the rig closes it */
    const char *device;        /* NULL = "cpu"; what is not the host's memory is not poisoned */
    const char *isa;           /* NULL = best */
    int threads;               /* 0 = 1 */
    enum kv_type kv;
    int32_t page_slots;        /* 0 = 64 */
    int32_t context;           /* positions a sequence can have */
    int32_t n_seqs;            /* 0 = 1 */
    int32_t cap_rows;          /* of a pass */
    struct comm *comm;         /* the rig is one of several ranks, which make the same calls; NULL: alone */
};
struct model_rig {
    struct backend *backend;
    struct lane *lane;
    struct model_source *source;
    struct model *model;
    struct kv_store store;
    struct pass_buffers *buffers;
    uint32_t *pages;           /* [n_seqs, pages_per_seq] */
    struct kv_view *views;     /* [n_seqs] */
    int32_t n_seqs, pages_per_seq, cap_rows;
    int32_t *rows;             /* [5, cap_rows] token, position, slot, sequence, logits row */
};

enum status model_rig_open(struct model_rig *rig, const struct model_rig_options *options);
void model_rig_close(struct model_rig *rig);

/* One sequence's next tokens. */
struct model_rig_part { int32_t seq, first_position, n_tokens; const int32_t *tokens; };
/* One pass over all parts, logits of all rows; returns them, [rows, n_vocab], valid until the next. */
const float *model_rig_pass(struct model_rig *rig, const struct model_rig_part *parts, int32_t n_parts);
/* A whole sequence in chunks; logits of every position to out [n_tokens, n_vocab] (NULL: dropped). */
void model_rig_feed(struct model_rig *rig, int32_t seq, const int32_t *tokens, int32_t n_tokens,
                    int32_t chunk, float *out);
/* Digest of K and V of positions 0 .. n - 1 of a sequence, all layers. */
uint64_t model_rig_kv_digest(const struct model_rig *rig, int32_t seq, int32_t n);

#endif
