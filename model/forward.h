/* forward: what the steps of a pass share. Private to model. */
#ifndef MODEL_FORWARD_H
#define MODEL_FORWARD_H

#include "model/pass.h"

struct forward {
    const struct model *model;
    struct lane *lane;
    const struct kv_store *store;
    const struct pass *pass;
    struct pass_buffers *buffers;
    int32_t n_tapped;      /* rows that were asked for */
    const int32_t *own_token, *part; /* [n_rows] of ranks, where operations read them */
};

static inline const struct weight *forward_matrix(const struct forward *f, int32_t layer, enum tensor_role role)
{
    return &model_slot(f->model, layer, role)->matrix;
}

/* ---- forward_ranks.c: the steps in which ranks need each other's part; only where there are several ---- */
/* own_token and part of the buffers: each row's id in this rank's part of the embedding, and the rank that has it */
void forward_ranks_share_out(const struct model *model, const struct pass *pass, struct pass_buffers *buffers);
/* x = embed(token): each rank brings the rows of its ids */
void forward_ranks_embed(const struct forward *f);
/* attended, of this rank's heads, → x += W_o attended */
void forward_ranks_attended(const struct forward *f, int32_t layer);
/* gated, of this rank's features, → x += W_down gated */
void forward_ranks_gated(const struct forward *f, int32_t layer);
/* mixed, of this rank's experts, → of all of them */
void forward_ranks_mixed(const struct forward *f);
/* last → logits, on rank 0 */
void forward_ranks_head(const struct forward *f);

#endif
