/* family: which tensors an architecture has, their shapes and what they are for. One table of tensors
 * serves all; a family is a row that says which of them it needs. Private to model.
 */
#ifndef MODEL_FAMILY_H
#define MODEL_FAMILY_H

#include "model/source.h"

/* What a tensor does in the transformer. Those before ROLE_ATTN_NORM exist once, others per layer. */
enum tensor_role {
    ROLE_EMBED, ROLE_HEAD, ROLE_OUT_NORM, ROLE_ROPE_FACTORS,
    ROLE_ATTN_NORM, ROLE_Q, ROLE_K, ROLE_V, ROLE_Q_BIAS, ROLE_K_BIAS, ROLE_V_BIAS,
    ROLE_Q_NORM, ROLE_K_NORM, ROLE_O, ROLE_FFN_NORM, ROLE_GATE, ROLE_UP, ROLE_DOWN,
    ROLE_ROUTER, ROLE_EXPERT_GATE, ROLE_EXPERT_UP, ROLE_EXPERT_DOWN,
    ROLE_COUNT
};
enum family_dim {
    FAMILY_ONE, FAMILY_DIM, FAMILY_Q_DIM, FAMILY_KV_DIM, FAMILY_HEAD_DIM, FAMILY_FFN, FAMILY_VOCAB,
    FAMILY_ROPE_HALF, FAMILY_EXPERTS, FAMILY_EXPERT_FFN
};
enum {
    FAMILY_OPTIONAL = 1,
    FAMILY_VECTOR = 2,  /* kept as floats, not as a matrix */
    FAMILY_ROTATED = 4, /* rows are head dimensions that RoPE turns: permuted in llama GGUFs */
    FAMILY_STACKED = 8  /* a matrix per expert, one after the other */
};
/* What some families have and others lack. */
enum {
    TRAIT_ALWAYS = 0,
    TRAIT_QKV_BIAS = 1, /* q, k and v are added a bias */
    TRAIT_QK_NORM = 2,  /* heads of q and k are normed before RoPE */
    TRAIT_DENSE = 4,    /* one feed-forward layer; a config without experts */
    TRAIT_EXPERTS = 8   /* a router and experts; a config with them */
};

struct family_tensor {
    enum tensor_role role;
    const char *name;           /* with %d for the layer in roles that exist per layer */
    enum family_dim n_in, n_out;
    int flags, trait;
};
struct family {
    const char *architecture;   /* as GGUF files name it */
    bool permuted_qk;           /* how its GGUF files hold rotated rows */
    int traits;                 /* TRAIT_DENSE | TRAIT_EXPERTS: either */
};

extern const struct family_tensor FAMILY_TENSORS[];
extern const int32_t FAMILY_N_TENSORS;

/* NULL when there is no such family. */
const struct family *family_find(const char *architecture);
/* "llama, qwen2": the architectures there are, for sentences. */
void family_list(char *text, size_t cap);
/* Whether a model of this family and config has this tensor (optional ones too). */
bool family_needs(const struct family *family, const struct model_config *config,
                  const struct family_tensor *tensor);
/* The name of a tensor in a layer; layer < 0: of one that exists once. */
enum { FAMILY_NAME_CAP = 64 };
void family_tensor_name(const struct family_tensor *tensor, int32_t layer, char *name);

int64_t family_dim_value(const struct model_config *config, enum family_dim dim);

/* One tensor that a config asks for, and where the source has it. */
struct family_binding {
    const struct family_tensor *tensor;
    int32_t layer;              /* -1: exists once */
    int64_t tensor_idx;         /* -1: absent, and not needed */
    int64_t n_in, n_out;
    int32_t n_stacked;          /* matrices; 1 where there is one */
    enum tensor_type type;
};
int32_t family_n_bindings(const struct family *family, const struct model_config *config);
/* Finds and checks binding `idx`: present, shape as the config says, a type we compute with or can
 * convert to one. */
enum status family_bind(const struct model_source *source, const struct family *family, int32_t idx,
                        struct family_binding *binding);
/* All of them, and that the source holds nothing else: an unknown tensor means another model. */
enum status family_check(const struct model_source *source, const struct family *family);

/* In a head of a permuted tensor, the file's row that is row `row` in rotate-half order. */
int32_t family_permuted_row(int32_t row, int32_t rope_dims);

#endif
