/* weights: a loaded model's tensors by role and layer. Private to model. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H

#include "model/shard.h"

struct tensor_slot {
    struct weight matrix;          /* or */
    struct expert_weights experts; /* or */
    float *vector;                 /* [n], NULL when the model has no such tensor */
};
struct model_block {
    struct tensor_slot slot[ROLE_COUNT];
    uint64_t shared_bytes; /* of weight_bytes, what every pass through here reads: no experts, no head */
};

struct model {
    struct model_config config;
    struct backend *backend;
    struct shard shard;         /* what of it is here */
    unsigned char *memory;      /* one allocation: matrices, vectors, RoPE tables */
    size_t memory_bytes;
    struct model_block *blocks; /* [1 + n_layers]: first what exists once, then each layer */
    float *cos, *sin;           /* [context, rope.dims / 2] */
    int32_t context;
    uint64_t digest, weight_bytes;
    uint64_t head_bytes;        /* of weight_bytes, what a pass with logits reads besides */
};

/* layer -1: what exists once */
static inline struct tensor_slot *model_slot(const struct model *model, int32_t layer,
                                             enum tensor_role role)
{
    return &model->blocks[layer + 1].slot[role];
}

#endif
