/* family: the table of architectures, and the comparison of a source with it. */
#include "model/family.h"

#include <stdio.h>
#include <string.h>

#define PER_LAYER(role) ((role) >= ROLE_ATTN_NORM)

const struct family_tensor FAMILY_TENSORS[] = {
    { ROLE_EMBED, "token_embd.weight", FAMILY_DIM, FAMILY_VOCAB, 0, TRAIT_ALWAYS },
    { ROLE_HEAD, "output.weight", FAMILY_DIM, FAMILY_VOCAB, FAMILY_OPTIONAL, TRAIT_ALWAYS },
    { ROLE_OUT_NORM, "output_norm.weight", FAMILY_DIM, FAMILY_ONE, FAMILY_VECTOR, TRAIT_ALWAYS },
    { ROLE_ROPE_FACTORS, "rope_freqs.weight", FAMILY_ROPE_HALF, FAMILY_ONE,
      FAMILY_VECTOR | FAMILY_OPTIONAL, TRAIT_ALWAYS },
    { ROLE_ATTN_NORM, "blk.%d.attn_norm.weight", FAMILY_DIM, FAMILY_ONE, FAMILY_VECTOR, TRAIT_ALWAYS },
    { ROLE_Q, "blk.%d.attn_q.weight", FAMILY_DIM, FAMILY_Q_DIM, FAMILY_ROTATED, TRAIT_ALWAYS },
    { ROLE_K, "blk.%d.attn_k.weight", FAMILY_DIM, FAMILY_KV_DIM, FAMILY_ROTATED, TRAIT_ALWAYS },
    { ROLE_V, "blk.%d.attn_v.weight", FAMILY_DIM, FAMILY_KV_DIM, 0, TRAIT_ALWAYS },
    { ROLE_Q_BIAS, "blk.%d.attn_q.bias", FAMILY_Q_DIM, FAMILY_ONE, FAMILY_VECTOR, TRAIT_QKV_BIAS },
    { ROLE_K_BIAS, "blk.%d.attn_k.bias", FAMILY_KV_DIM, FAMILY_ONE, FAMILY_VECTOR, TRAIT_QKV_BIAS },
    { ROLE_V_BIAS, "blk.%d.attn_v.bias", FAMILY_KV_DIM, FAMILY_ONE, FAMILY_VECTOR, TRAIT_QKV_BIAS },
    { ROLE_Q_NORM, "blk.%d.attn_q_norm.weight", FAMILY_HEAD_DIM, FAMILY_ONE, FAMILY_VECTOR, TRAIT_QK_NORM },
    { ROLE_K_NORM, "blk.%d.attn_k_norm.weight", FAMILY_HEAD_DIM, FAMILY_ONE, FAMILY_VECTOR, TRAIT_QK_NORM },
    { ROLE_O, "blk.%d.attn_output.weight", FAMILY_Q_DIM, FAMILY_DIM, 0, TRAIT_ALWAYS },
    { ROLE_FFN_NORM, "blk.%d.ffn_norm.weight", FAMILY_DIM, FAMILY_ONE, FAMILY_VECTOR, TRAIT_ALWAYS },
    { ROLE_GATE, "blk.%d.ffn_gate.weight", FAMILY_DIM, FAMILY_FFN, 0, TRAIT_DENSE },
    { ROLE_UP, "blk.%d.ffn_up.weight", FAMILY_DIM, FAMILY_FFN, 0, TRAIT_DENSE },
    { ROLE_DOWN, "blk.%d.ffn_down.weight", FAMILY_FFN, FAMILY_DIM, 0, TRAIT_DENSE },
    { ROLE_ROUTER, "blk.%d.ffn_gate_inp.weight", FAMILY_DIM, FAMILY_EXPERTS, 0, TRAIT_EXPERTS },
    { ROLE_EXPERT_GATE, "blk.%d.ffn_gate_exps.weight", FAMILY_DIM, FAMILY_EXPERT_FFN, FAMILY_STACKED,
      TRAIT_EXPERTS },
    { ROLE_EXPERT_UP, "blk.%d.ffn_up_exps.weight", FAMILY_DIM, FAMILY_EXPERT_FFN, FAMILY_STACKED,
      TRAIT_EXPERTS },
    { ROLE_EXPERT_DOWN, "blk.%d.ffn_down_exps.weight", FAMILY_EXPERT_FFN, FAMILY_DIM, FAMILY_STACKED,
      TRAIT_EXPERTS },
};
const int32_t FAMILY_N_TENSORS = sizeof FAMILY_TENSORS / sizeof FAMILY_TENSORS[0];

/* Mistral is a llama with a window, Mixtral a llama with experts: GGUF files name both llama. */
static const struct family FAMILIES[] = {
    { "llama", true, TRAIT_DENSE | TRAIT_EXPERTS },
    { "qwen2", false, TRAIT_QKV_BIAS | TRAIT_DENSE },
    { "qwen3", false, TRAIT_QK_NORM | TRAIT_DENSE },
    { "qwen3moe", false, TRAIT_QK_NORM | TRAIT_EXPERTS },
};
enum { N_FAMILIES = sizeof FAMILIES / sizeof FAMILIES[0] };

const struct family *family_find(const char *architecture)
{
    for (int i = 0; i < N_FAMILIES; i++) {
        if (strcmp(FAMILIES[i].architecture, architecture) == 0) {
            return &FAMILIES[i];
        }
    }
    return NULL;
}

void family_list(char *text, size_t cap)
{
    text[0] = '\0';
    for (int i = 0; i < N_FAMILIES; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, cap - used, "%s%s", i > 0 ? ", " : "", FAMILIES[i].architecture);
    }
}

bool family_needs(const struct family *family, const struct model_config *config,
                  const struct family_tensor *tensor)
{
    if (tensor->trait == TRAIT_DENSE || tensor->trait == TRAIT_EXPERTS) {
        return tensor->trait == (config->experts.n > 0 ? TRAIT_EXPERTS : TRAIT_DENSE);
    }
    return (family->traits & tensor->trait) == tensor->trait;
}

void family_tensor_name(const struct family_tensor *tensor, int32_t layer, char *name)
{
    if (layer < 0) {
        snprintf(name, FAMILY_NAME_CAP, "%s", tensor->name);
    } else {
        snprintf(name, FAMILY_NAME_CAP, tensor->name, layer);
    }
}

int64_t family_dim_value(const struct model_config *config, enum family_dim dim)
{
    switch (dim) {
    case FAMILY_DIM: return config->dim;
    case FAMILY_Q_DIM: return (int64_t)config->n_heads * config->head_dim;
    case FAMILY_KV_DIM: return (int64_t)config->n_kv_heads * config->head_dim;
    case FAMILY_HEAD_DIM: return config->head_dim;
    case FAMILY_FFN: return config->ffn_dim;
    case FAMILY_VOCAB: return config->n_vocab;
    case FAMILY_ROPE_HALF: return config->rope.dims / 2;
    case FAMILY_EXPERTS: return config->experts.n;
    case FAMILY_EXPERT_FFN: return config->experts.ffn_dim;
    case FAMILY_ONE: break;
    }
    return 1;
}

static int32_t n_once(void)
{
    int32_t n = 0;
    while (n < FAMILY_N_TENSORS && !PER_LAYER(FAMILY_TENSORS[n].role)) {
        n++;
    }
    return n;
}

int32_t family_n_bindings(const struct family *family, const struct model_config *config)
{
    (void)family; /* of the whole table: those it does not need are bound to nothing */
    return n_once() + (FAMILY_N_TENSORS - n_once()) * config->n_layers;
}

static enum status check_shape(const struct model_source *source, const char *name,
                               const struct family_binding *binding,
                               const struct model_tensor_info *info)
{
    const int64_t expected[MODEL_MAX_DIMS] = { binding->n_in, binding->n_out, binding->n_stacked, 1 };
    char wanted[96] = "", found[96] = "";
    bool same = true;
    for (int32_t i = 0; i < MODEL_MAX_DIMS; i++) {
        const int64_t dim = i < info->n_dims ? info->dims[i] : 1;
        const size_t used = strlen(found), at = strlen(wanted);
        same = same && dim == expected[i];
        if (i < 2 || expected[i] != 1) {
            snprintf(wanted + at, sizeof wanted - at, "%s%lld", i > 0 ? " x " : "", (long long)expected[i]);
        }
        if (i < 2 || i < info->n_dims) {
            snprintf(found + used, sizeof found - used, "%s%lld", i > 0 ? " x " : "", (long long)dim);
        }
    }
    return same ? STATUS_OK
                : status_fail(STATUS_INVALID, "%s: %s: expected %s, file says %s", source->label, name,
                              wanted, found);
}

static enum status check_type(const struct model_source *source, const char *name,
                              const struct family_binding *binding,
                              const struct model_tensor_info *info)
{
    const struct tensor_type_info *type = tensor_type_info(info->type);
    const int becomes = tensor_type_convert_to(info->type);
    if (!type->native && becomes < 0) {
        return status_fail(STATUS_UNSUPPORTED, "%s: %s has type %s (number %u), which cannot be read",
                           source->label, name, type->name, type->number);
    }
    if (binding->tensor->flags & FAMILY_VECTOR) {
        if (type->block_elems != 1) {
            return status_fail(STATUS_UNSUPPORTED, "%s: %s: expected F32, F16 or BF16, file says %s",
                               source->label, name, type->name);
        }
    } else if (backend_weight_bytes(type->native ? binding->type : (enum tensor_type)becomes,
                                    binding->n_out, binding->n_in) == 0) {
        return status_fail(STATUS_UNSUPPORTED, "%s: %s: a matrix of %lld x %lld in %s cannot be computed with",
                           source->label, name, (long long)binding->n_in, (long long)binding->n_out,
                           type->name);
    }
    return STATUS_OK;
}

enum status family_bind(const struct model_source *source, const struct family *family, int32_t idx,
                        struct family_binding *binding)
{
    const int32_t once = n_once(), per_layer = FAMILY_N_TENSORS - once;
    const int32_t layer = idx < once ? -1 : (idx - once) / per_layer;
    const struct family_tensor *tensor =
        &FAMILY_TENSORS[idx < once ? idx : once + (idx - once) % per_layer];
    const struct model_config *config = &source->config;
    *binding = (struct family_binding){
        .tensor = tensor, .layer = layer, .tensor_idx = -1,
        .n_in = family_dim_value(config, tensor->n_in), .n_out = family_dim_value(config, tensor->n_out),
        .n_stacked = tensor->flags & FAMILY_STACKED ? config->experts.n : 1,
    };
    if (!family_needs(family, config, tensor)) {
        return STATUS_OK;
    }
    char name[FAMILY_NAME_CAP], shown[SOURCE_NAME_CAP];
    family_tensor_name(tensor, layer, name);
    source_shown_name(source, name, shown);
    binding->tensor_idx = source_find_tensor(source, name);
    if (binding->tensor_idx < 0) {
        if (tensor->flags & FAMILY_OPTIONAL) {
            return STATUS_OK;
        }
        return status_fail(STATUS_INVALID, "%s: tensor %s is missing", source->label, shown);
    }
    const struct model_tensor_info *info = &source->tensors[binding->tensor_idx];
    binding->type = (enum tensor_type)info->type;
    TRY(check_shape(source, shown, binding, info));
    return check_type(source, shown, binding, info);
}

enum status family_check(const struct model_source *source, const struct family *family)
{
    unsigned char *bound = mem_alloc((size_t)source->n_tensors, 1);
    if (!bound) {
        return status_fail(STATUS_NO_MEMORY, "no memory to check %lld tensors",
                           (long long)source->n_tensors);
    }
    enum status status = STATUS_OK;
    const int32_t n = family_n_bindings(family, &source->config);
    for (int32_t i = 0; i < n; i++) {
        struct family_binding binding;
        TRY_GOTO(family_bind(source, family, i, &binding), out);
        if (binding.tensor_idx >= 0) {
            bound[binding.tensor_idx] = 1;
        }
    }
    for (int64_t i = 0; i < source->n_tensors; i++) {
        if (!bound[i]) {
            char shown[SOURCE_NAME_CAP];
            source_shown_name(source, source->tensors[i].name, shown);
            status = status_fail(STATUS_UNSUPPORTED,
                                 "%s: tensor %s is not part of architecture '%s' as it is supported",
                                 source->label, shown, family->architecture);
            goto out;
        }
    }
out:
    mem_free(bound);
    return status;
}

int32_t family_permuted_row(int32_t row, int32_t rope_dims)
{
    const int32_t half = rope_dims / 2;
    if (row >= rope_dims) {
        return row; /* not rotated, not moved */
    }
    return row < half ? 2 * row : 2 * (row - half) + 1;
}
