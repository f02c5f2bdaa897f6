/* family: the table of architectures, and the comparison of a source with it. */
#include "model/family.h"

#include <stdio.h>
#include <string.h>

#define PER_LAYER(role) ((role) >= ROLE_ATTN_NORM)

static const struct family_tensor LLAMA[] = {
    { ROLE_EMBED, "token_embd.weight", FAMILY_DIM, FAMILY_VOCAB, 0 },
    { ROLE_HEAD, "output.weight", FAMILY_DIM, FAMILY_VOCAB, FAMILY_OPTIONAL },
    { ROLE_OUT_NORM, "output_norm.weight", FAMILY_DIM, FAMILY_ONE, FAMILY_VECTOR },
    { ROLE_ROPE_FACTORS, "rope_freqs.weight", FAMILY_ROPE_HALF, FAMILY_ONE,
      FAMILY_VECTOR | FAMILY_OPTIONAL },
    { ROLE_ATTN_NORM, "blk.%d.attn_norm.weight", FAMILY_DIM, FAMILY_ONE, FAMILY_VECTOR },
    { ROLE_Q, "blk.%d.attn_q.weight", FAMILY_DIM, FAMILY_Q_DIM, FAMILY_ROTATED },
    { ROLE_K, "blk.%d.attn_k.weight", FAMILY_DIM, FAMILY_KV_DIM, FAMILY_ROTATED },
    { ROLE_V, "blk.%d.attn_v.weight", FAMILY_DIM, FAMILY_KV_DIM, 0 },
    { ROLE_O, "blk.%d.attn_output.weight", FAMILY_Q_DIM, FAMILY_DIM, 0 },
    { ROLE_FFN_NORM, "blk.%d.ffn_norm.weight", FAMILY_DIM, FAMILY_ONE, FAMILY_VECTOR },
    { ROLE_GATE, "blk.%d.ffn_gate.weight", FAMILY_DIM, FAMILY_FFN, 0 },
    { ROLE_UP, "blk.%d.ffn_up.weight", FAMILY_DIM, FAMILY_FFN, 0 },
    { ROLE_DOWN, "blk.%d.ffn_down.weight", FAMILY_FFN, FAMILY_DIM, 0 },
};

#define TABLE(t) .tensors = (t), .n_tensors = (int32_t)(sizeof(t) / sizeof(t)[0])
static const struct family FAMILIES[] = {
    { .architecture = "llama", .permuted_qk = true, TABLE(LLAMA) },
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

int64_t family_dim_value(const struct model_config *config, enum family_dim dim)
{
    switch (dim) {
    case FAMILY_DIM: return config->dim;
    case FAMILY_Q_DIM: return (int64_t)config->n_heads * config->head_dim;
    case FAMILY_KV_DIM: return (int64_t)config->n_kv_heads * config->head_dim;
    case FAMILY_FFN: return config->ffn_dim;
    case FAMILY_VOCAB: return config->n_vocab;
    case FAMILY_ROPE_HALF: return config->rope.dims / 2;
    case FAMILY_ONE: break;
    }
    return 1;
}

static int32_t n_once(const struct family *family)
{
    int32_t n = 0;
    while (n < family->n_tensors && !PER_LAYER(family->tensors[n].role)) {
        n++;
    }
    return n;
}

int32_t family_n_bindings(const struct family *family, const struct model_config *config)
{
    const int32_t once = n_once(family);
    return once + (family->n_tensors - once) * config->n_layers;
}

static enum status check_shape(const struct model_source *source, const char *name,
                               const struct family_binding *binding,
                               const struct model_tensor_info *info)
{
    int64_t rest = 1;
    for (int32_t i = 2; i < info->n_dims; i++) {
        rest *= info->dims[i];
    }
    const int64_t rows = info->n_dims > 1 ? info->dims[1] : 1;
    if (info->dims[0] != binding->n_in || rows != binding->n_out || rest != 1) {
        char expected[48], found[96];
        snprintf(expected, sizeof expected, "%lld x %lld", (long long)binding->n_in,
                 (long long)binding->n_out);
        snprintf(found, sizeof found, "%lld x %lld", (long long)info->dims[0], (long long)rows);
        for (int32_t i = 2; i < info->n_dims; i++) {
            const size_t used = strlen(found);
            snprintf(found + used, sizeof found - used, " x %lld", (long long)info->dims[i]);
        }
        return status_fail(STATUS_INVALID, "%s: %s: expected %s, file says %s", source->label, name,
                           expected, found);
    }
    return STATUS_OK;
}

static enum status check_type(const struct model_source *source, const char *name,
                              const struct family_binding *binding,
                              const struct model_tensor_info *info)
{
    const struct tensor_type_info *type = tensor_type_info(info->type);
    if (!type->native) {
        return status_fail(STATUS_UNSUPPORTED,
                           "%s: %s has type %s; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, "
                           "Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K", source->label,
                           name, type->name);
    }
    if (binding->tensor->flags & FAMILY_VECTOR) {
        if (type->block_elems != 1) {
            return status_fail(STATUS_UNSUPPORTED, "%s: %s: expected F32, F16 or BF16, file says %s",
                               source->label, name, type->name);
        }
    } else if (backend_weight_bytes(binding->type, binding->n_out, binding->n_in) == 0) {
        return status_fail(STATUS_UNSUPPORTED, "%s: %s: a matrix of %lld x %lld in %s cannot be computed with",
                           source->label, name, (long long)binding->n_in, (long long)binding->n_out,
                           type->name);
    }
    return STATUS_OK;
}

enum status family_bind(const struct model_source *source, const struct family *family, int32_t idx,
                        struct family_binding *binding)
{
    const int32_t once = n_once(family), per_layer = family->n_tensors - once;
    const int32_t layer = idx < once ? -1 : (idx - once) / per_layer;
    const struct family_tensor *tensor =
        &family->tensors[idx < once ? idx : once + (idx - once) % per_layer];
    char name[64];
    if (layer < 0) {
        snprintf(name, sizeof name, "%s", tensor->name);
    } else {
        snprintf(name, sizeof name, tensor->name, layer);
    }
    *binding = (struct family_binding){
        .tensor = tensor, .layer = layer, .tensor_idx = source_find_tensor(source, name),
        .n_in = family_dim_value(&source->config, tensor->n_in),
        .n_out = family_dim_value(&source->config, tensor->n_out),
    };
    if (binding->tensor_idx < 0) {
        if (tensor->flags & FAMILY_OPTIONAL) {
            return STATUS_OK;
        }
        return status_fail(STATUS_INVALID, "%s: tensor %s is missing", source->label, name);
    }
    const struct model_tensor_info *info = &source->tensors[binding->tensor_idx];
    binding->type = (enum tensor_type)info->type;
    TRY(check_shape(source, name, binding, info));
    return check_type(source, name, binding, info);
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
            status = status_fail(STATUS_UNSUPPORTED,
                                 "%s: tensor %s is not part of architecture '%s' as it is supported",
                                 source->label, source->tensors[i].name, family->architecture);
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
