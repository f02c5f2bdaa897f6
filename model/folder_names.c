/* folder_names: what Hugging Face folders call the tensors of the table, and back. */
#include "model/folder_names.h"

#include <stdio.h>
#include <string.h>

/* %d: the layer; in stacked tensors a second one, the expert. */
struct folder_name { enum tensor_role role; const char *name, *other; };
static const struct folder_name FOLDER_NAMES[] = {
    { ROLE_EMBED, "model.embed_tokens.weight", NULL },
    { ROLE_HEAD, "lm_head.weight", NULL },
    { ROLE_OUT_NORM, "model.norm.weight", NULL },
    { ROLE_ATTN_NORM, "model.layers.%d.input_layernorm.weight", NULL },
    { ROLE_Q, "model.layers.%d.self_attn.q_proj.weight", NULL },
    { ROLE_K, "model.layers.%d.self_attn.k_proj.weight", NULL },
    { ROLE_V, "model.layers.%d.self_attn.v_proj.weight", NULL },
    { ROLE_Q_BIAS, "model.layers.%d.self_attn.q_proj.bias", NULL },
    { ROLE_K_BIAS, "model.layers.%d.self_attn.k_proj.bias", NULL },
    { ROLE_V_BIAS, "model.layers.%d.self_attn.v_proj.bias", NULL },
    { ROLE_Q_NORM, "model.layers.%d.self_attn.q_norm.weight", NULL },
    { ROLE_K_NORM, "model.layers.%d.self_attn.k_norm.weight", NULL },
    { ROLE_O, "model.layers.%d.self_attn.o_proj.weight", NULL },
    { ROLE_FFN_NORM, "model.layers.%d.post_attention_layernorm.weight", NULL },
    { ROLE_GATE, "model.layers.%d.mlp.gate_proj.weight", NULL },
    { ROLE_UP, "model.layers.%d.mlp.up_proj.weight", NULL },
    { ROLE_DOWN, "model.layers.%d.mlp.down_proj.weight", NULL },
    /* Qwen3-MoE's names, Mixtral's */
    { ROLE_ROUTER, "model.layers.%d.mlp.gate.weight", "model.layers.%d.block_sparse_moe.gate.weight" },
    { ROLE_EXPERT_GATE, "model.layers.%d.mlp.experts.%d.gate_proj.weight",
      "model.layers.%d.block_sparse_moe.experts.%d.w1.weight" },
    { ROLE_EXPERT_UP, "model.layers.%d.mlp.experts.%d.up_proj.weight",
      "model.layers.%d.block_sparse_moe.experts.%d.w3.weight" },
    { ROLE_EXPERT_DOWN, "model.layers.%d.mlp.experts.%d.down_proj.weight",
      "model.layers.%d.block_sparse_moe.experts.%d.w2.weight" },
};

bool folder_name_of(const struct model_config *config, enum tensor_role role, int32_t layer,
                    int32_t expert, char *name)
{
    /* of those called llama in GGUF files only Mixtral has experts */
    const bool other = strcmp(config->architecture, "llama") == 0;
    for (size_t i = 0; i < sizeof FOLDER_NAMES / sizeof FOLDER_NAMES[0]; i++) {
        if (FOLDER_NAMES[i].role == role) {
            const char *pattern = other && FOLDER_NAMES[i].other ? FOLDER_NAMES[i].other
                                                                 : FOLDER_NAMES[i].name;
            snprintf(name, SOURCE_NAME_CAP, pattern, layer, expert);
            return true;
        }
    }
    return false;
}

void folder_shown_name(const struct model_config *config, const char *name, char *shown)
{
    char ours[FAMILY_NAME_CAP];
    int layer = -1;
    if (sscanf(name, "blk.%d.", &layer) != 1 || layer < 0) {
        layer = -1;
    }
    for (int32_t i = 0; i < FAMILY_N_TENSORS; i++) {
        const struct family_tensor *tensor = &FAMILY_TENSORS[i];
        if ((tensor->role >= ROLE_ATTN_NORM) != (layer >= 0)) {
            continue;
        }
        family_tensor_name(tensor, layer, ours);
        if (strcmp(ours, name) == 0 && !(tensor->flags & FAMILY_STACKED) &&
            folder_name_of(config, tensor->role, layer, 0, shown)) {
            return;
        }
    }
    snprintf(shown, SOURCE_NAME_CAP, "%s", name);
}
