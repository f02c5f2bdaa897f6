/* pass: the activations of the largest pass a model is asked for. Private to model. */
#ifndef MODEL_PASS_H
#define MODEL_PASS_H

#include "model/weights.h"

struct pass_buffers {
    struct backend *backend;
    unsigned char *memory;    /* one allocation for all below */
    size_t memory_bytes;
    int32_t cap_rows, cap_logits;
    struct pass_desk *desk;   /* NULL: operations read what the host wrote, and the host what they write */
    float *x;                 /* [cap_rows, dim] residual stream */
    /* columns of q, k, v, gate, up and gated: this rank's, where several hold the model */
    struct act normed;        /* [cap_rows, dim] what q, k, v, gate and up read */
    float *q;                 /* [cap_rows, n_heads * head_dim] */
    float *k, *v;             /* [cap_rows, n_kv_heads * head_dim] */
    struct act attended;      /* [cap_rows, n_heads * head_dim] what o reads: this rank's heads, or all */
    float *gate, *up;         /* [cap_rows, ffn_dim] */
    struct act gated;         /* [cap_rows, ffn_dim] what down reads */
    struct act last;          /* [cap_logits, dim] what the head reads */
    float *logits;            /* [cap_logits, n_vocab]; ranks above 0: their ids alone */
    /* ranks */
    float *exchange;          /* what all of them contribute, part after part */
    int32_t *own_token, *part; /* [cap_rows] of the host: rows of this rank's embedding, the rank that has each */
    int32_t place_first[COMM_MAX_RANKS + 1];
    /* mixtures of experts; rows of gate, up and gated are places then */
    struct routes routes;
    float *router;            /* [cap_rows, n_experts] */
    struct act gathered;      /* [cap_rows * n_used, dim] what experts read */
    float *mixed;             /* [cap_rows * n_used, dim] what they give */
    uint64_t shared_bytes;    /* of weights read since creation, without experts */
};

#endif
