/* folder_config: what the keys of config.json mean, in both of their spellings. A key whose value
 * would change the computation in a way this build does not do is refused by name. */
#include "model/folder_config.h"

#include <stdio.h>
#include <string.h>

#include "model/hints.h"
#include "model/rope.h"

enum {
    MAX_LAYERS = 1024, MAX_DIM = 1 << 17, MAX_FFN = 1 << 20, MAX_HEADS = 1024, MAX_HEAD_DIM = 256,
    MAX_VOCAB = 1 << 23, MAX_CONTEXT = 1 << 24, MAX_EXPERTS = 1024
};

/* How a model_type is called in GGUF files, and what its config.json means by keys left out. */
enum window_rule { WINDOW_NONE, WINDOW_ALWAYS, WINDOW_IF_USED };
struct folder_family {
    const char *model_type, *architecture;
    enum window_rule window;
    double rope_base;
    int32_t head_dim;     /* 0: width by heads */
    bool experts, normalised;
};
static const struct folder_family FOLDER_FAMILIES[] = {
    { "llama", "llama", WINDOW_NONE, 1e4, 0, false, false },
    { "mistral", "llama", WINDOW_ALWAYS, 1e4, 0, false, false },
    { "mixtral", "llama", WINDOW_ALWAYS, 1e6, 0, true, true },
    { "qwen2", "qwen2", WINDOW_IF_USED, 1e4, 0, false, false },
    { "qwen3", "qwen3", WINDOW_IF_USED, 1e4, 128, false, false },
    { "qwen3_moe", "qwen3moe", WINDOW_IF_USED, 1e4, 0, true, false },
};
enum { N_FOLDER_FAMILIES = sizeof FOLDER_FAMILIES / sizeof FOLDER_FAMILIES[0] };

struct reader {
    const char *label;
    const json_t *root;
    const struct folder_family *family;
    struct model_config *config;
};

/* As a GGUF file would hold it. */
static double as_float(double value) { return (double)(float)value; }

static enum status find_family(struct reader *reader)
{
    const char *type = "";
    char known[128] = "";
    TRY(folder_json_read_text(reader->label, reader->root, "model_type", &type));
    for (int i = 0; i < N_FOLDER_FAMILIES; i++) {
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "",
                 FOLDER_FAMILIES[i].model_type);
        if (strcmp(type, FOLDER_FAMILIES[i].model_type) == 0) {
            reader->family = &FOLDER_FAMILIES[i];
        }
    }
    if (!reader->family) {
        gguf_copy_text((struct model_text){ type, (uint32_t)strlen(type) },
                       reader->config->architecture, sizeof reader->config->architecture);
        return status_fail(STATUS_UNSUPPORTED,
                           "%s: model_type '%s' is not supported; supported: %s", reader->label,
                           reader->config->architecture, known);
    }
    snprintf(reader->config->architecture, sizeof reader->config->architecture, "%s",
             reader->family->architecture);
    return STATUS_OK;
}

/* ---- numbers ---- */

static enum status read_size(const struct reader *reader, const char *key, int32_t max,
                             int32_t *value)
{
    int64_t found = 0;
    if (!folder_json_find(reader->root, key)) {
        return status_fail(STATUS_INVALID, "%s: key %s is missing", reader->label, key);
    }
    TRY(folder_json_read_int(reader->label, reader->root, key, (struct folder_json_range){ 1, max },
                             &found));
    *value = (int32_t)found;
    return STATUS_OK;
}

static enum status read_sizes(const struct reader *reader)
{
    struct model_config *config = reader->config;
    int64_t head_dim = reader->family->head_dim, n_kv_heads;
    double eps = 1e-6;
    TRY(read_size(reader, "num_hidden_layers", MAX_LAYERS, &config->n_layers));
    TRY(read_size(reader, "hidden_size", MAX_DIM, &config->dim));
    TRY(read_size(reader, "intermediate_size", MAX_FFN, &config->ffn_dim));
    TRY(read_size(reader, "num_attention_heads", MAX_HEADS, &config->n_heads));
    TRY(read_size(reader, "vocab_size", MAX_VOCAB, &config->n_vocab));
    TRY(read_size(reader, "max_position_embeddings", MAX_CONTEXT, &config->context_len));
    n_kv_heads = config->n_heads;
    TRY(folder_json_read_int(reader->label, reader->root, "num_key_value_heads",
                             (struct folder_json_range){ 1, MAX_HEADS }, &n_kv_heads));
    TRY(folder_json_read_int(reader->label, reader->root, "head_dim",
                             (struct folder_json_range){ 1, MAX_HEAD_DIM }, &head_dim));
    TRY(folder_json_read_float(reader->label, reader->root, "rms_norm_eps", &eps));
    if (head_dim == 0) {
        if (config->dim % config->n_heads != 0) {
            return status_fail(STATUS_INVALID, "%s: %d heads do not divide the width %d",
                               reader->label, config->n_heads, config->dim);
        }
        head_dim = config->dim / config->n_heads;
    }
    config->n_kv_heads = (int32_t)n_kv_heads;
    config->head_dim = (int32_t)head_dim;
    config->norm_eps = (float)eps;
    return STATUS_OK;
}

static enum status read_experts(const struct reader *reader)
{
    struct model_config *config = reader->config;
    int64_t step = 1, n = 0, n_used = 0, ffn_dim = config->ffn_dim;
    int normalised = reader->family->normalised;
    if (!reader->family->experts) {
        return STATUS_OK;
    }
    const struct folder_json_range range = { 1, MAX_EXPERTS };
    TRY(folder_json_read_int(reader->label, reader->root, "num_local_experts", range, &n));
    TRY(folder_json_read_int(reader->label, reader->root, "num_experts", range, &n));
    TRY(folder_json_read_int(reader->label, reader->root, "num_experts_per_tok", range, &n_used));
    TRY(folder_json_read_int(reader->label, reader->root, "moe_intermediate_size",
                             (struct folder_json_range){ 1, MAX_FFN }, &ffn_dim));
    TRY(folder_json_read_int(reader->label, reader->root, "decoder_sparse_step",
                             (struct folder_json_range){ 0, INT32_MAX }, &step));
    if (!reader->family->normalised) {
        TRY(folder_json_read_flag(reader->label, reader->root, "norm_topk_prob", &normalised));
    }
    if (n == 0) {
        return status_fail(STATUS_INVALID, "%s: key num_experts (or num_local_experts) is missing",
                           reader->label);
    }
    if (step != 1 || json_array_size(folder_json_find(reader->root, "mlp_only_layers")) > 0) {
        return status_fail(STATUS_UNSUPPORTED,
                           "%s: layers without experts between layers with them are not supported",
                           reader->label);
    }
    config->experts.n = (int32_t)n;
    config->experts.n_used = (int32_t)n_used;
    config->experts.ffn_dim = (int32_t)ffn_dim;
    config->experts.normalised = normalised != 0;
    return STATUS_OK;
}

/* ---- window ---- */

/* Layers of one kind only: *sliding is what all of them are, or -1 where nothing is said. */
static enum status read_layer_types(const struct reader *reader, int *sliding)
{
    const json_t *types = folder_json_find(reader->root, "layer_types");
    *sliding = -1;
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        const int is_sliding = type && strcmp(type, "sliding_attention") == 0;
        if (!type || (!is_sliding && strcmp(type, "full_attention") != 0)) {
            return status_fail(STATUS_UNSUPPORTED,
                               "%s: layer_types: only full_attention and sliding_attention "
                               "are supported",
                               reader->label);
        }
        if (*sliding >= 0 && *sliding != is_sliding) {
            return status_fail(
                STATUS_UNSUPPORTED,
                "%s: layers with a sliding window among layers without are not supported",
                reader->label);
        }
        *sliding = is_sliding;
    }
    return STATUS_OK;
}

static enum status read_window(const struct reader *reader)
{
    int64_t window = 0, first_layer = 0;
    int sliding, used = reader->family->window == WINDOW_ALWAYS;
    TRY(folder_json_read_int(reader->label, reader->root, "sliding_window",
                             (struct folder_json_range){ 1, INT32_MAX }, &window));
    TRY(read_layer_types(reader, &sliding));
    if (reader->family->window == WINDOW_IF_USED) {
        TRY(folder_json_read_flag(reader->label, reader->root, "use_sliding_window", &used));
        TRY(folder_json_read_int(reader->label, reader->root, "max_window_layers",
                                 (struct folder_json_range){ 0, INT32_MAX }, &first_layer));
    }
    if (!used || window == 0 || sliding == 0 ||
        (sliding < 0 && first_layer >= reader->config->n_layers)) {
        return STATUS_OK;
    }
    if (sliding < 0 && first_layer > 0) {
        return status_fail(
            STATUS_UNSUPPORTED,
            "%s: layers with a sliding window among layers without are not supported",
            reader->label);
    }
    reader->config->window = window < MAX_CONTEXT ? (int32_t)window : 0;
    return STATUS_OK;
}

/* ---- RoPE ---- */

/* The object that says how positions are scaled: rope_parameters, or rope_scaling in older files. */
static enum status find_rope(const struct reader *reader, const json_t **rope)
{
    const json_t *new = folder_json_find(reader->root, "rope_parameters");
    const json_t *old = folder_json_find(reader->root, "rope_scaling");
    const char *key;
    json_t *value;
    *rope = new ? new : old;
    if (new && old && !json_equal(new, old)) {
        return status_fail(STATUS_INVALID,
                           "%s: rope_parameters and rope_scaling say different things",
                           reader->label);
    }
    if (*rope && !json_is_object(*rope)) {
        return status_fail(STATUS_INVALID, "%s: %s: expected an object", reader->label,
                           new ? "rope_parameters" : "rope_scaling");
    }
    json_object_foreach((json_t *)(uintptr_t)*rope, key, value)
    {
        if (json_is_object(value)) {
            return status_fail(STATUS_UNSUPPORTED,
                               "%s: a RoPE of its own for %s layers is not supported",
                               reader->label, key);
        }
    }
    return STATUS_OK;
}

static enum status read_yarn(const struct reader *reader, const json_t *rope)
{
    struct model_config *config = reader->config;
    double attention = 0, mscale = 0, fast = 32.0, slow = 1.0;
    int truncate = 1;
    TRY(folder_json_read_float(reader->label, rope, "attention_factor", &attention));
    TRY(folder_json_read_float(reader->label, rope, "mscale_all_dim", &mscale));
    TRY(folder_json_read_float(reader->label, rope, "beta_fast", &fast));
    TRY(folder_json_read_float(reader->label, rope, "beta_slow", &slow));
    TRY(folder_json_read_flag(reader->label, rope, "truncate", &truncate));
    if (mscale > 0 || !truncate) {
        return status_fail(STATUS_UNSUPPORTED, "%s: YaRN with %s is not supported", reader->label,
                           truncate ? "mscale_all_dim" : "truncate false");
    }
    config->rope.beta_fast = as_float(fast);
    config->rope.beta_slow = as_float(slow);
    const double formula = rope_magnitude(config); /* while no factor is given */
    config->rope.attention_factor =
        attention > 0 ? as_float(attention / formula) * formula : formula;
    return STATUS_OK;
}

static enum status read_llama3(const struct reader *reader, const json_t *rope)
{
    struct model_config *config = reader->config;
    TRY(folder_json_read_float(reader->label, rope, "low_freq_factor",
                               &config->rope.low_freq_factor));
    TRY(folder_json_read_float(reader->label, rope, "high_freq_factor",
                               &config->rope.high_freq_factor));
    if (!(config->rope.low_freq_factor > 0 &&
          config->rope.high_freq_factor > config->rope.low_freq_factor)) {
        return status_fail(
            STATUS_INVALID,
            "%s: expected 0 < low_freq_factor < high_freq_factor, file says %g and %g",
            reader->label, config->rope.low_freq_factor, config->rope.high_freq_factor);
    }
    return STATUS_OK;
}

static enum status read_scaling(const struct reader *reader, const json_t *rope)
{
    static const struct { const char *name; enum rope_scaling scaling; } TYPES[] = {
        { "default", ROPE_SCALING_NONE }, { "linear", ROPE_SCALING_LINEAR },
        { "llama3", ROPE_SCALING_LLAMA3 }, { "yarn", ROPE_SCALING_YARN },
    };
    struct model_config *config = reader->config;
    const char *type = "default";
    double factor = 0;
    int64_t original = config->context_len;
    const struct folder_json_range range = { 1, MAX_CONTEXT };
    TRY(folder_json_read_text(reader->label, rope, "type", &type)); /* the older spelling */
    TRY(folder_json_read_text(reader->label, rope, "rope_type", &type));
    int found = -1;
    for (int i = 0; i < (int)(sizeof TYPES / sizeof TYPES[0]); i++) {
        found = strcmp(type, TYPES[i].name) == 0 ? i : found;
    }
    if (found < 0) {
        char shown[64];
        gguf_copy_text((struct model_text){ type, (uint32_t)strlen(type) }, shown, sizeof shown);
        return status_fail(
            STATUS_UNSUPPORTED,
            "%s: RoPE scaling '%s' is not supported; supported: default, linear, llama3, yarn",
            reader->label, shown);
    }
    if (TYPES[found].scaling == ROPE_SCALING_NONE) {
        return STATUS_OK;
    }
    TRY(folder_json_read_float(reader->label, rope, "factor", &factor));
    TRY(folder_json_read_int(reader->label, reader->root, "original_max_position_embeddings", range,
                             &original));
    TRY(folder_json_read_int(reader->label, rope, "original_max_position_embeddings", range,
                             &original));
    config->rope.scaling = TYPES[found].scaling;
    config->rope.factor = as_float(factor);
    config->rope.original_context = (int32_t)original;
    return config->rope.scaling == ROPE_SCALING_YARN     ? read_yarn(reader, rope)
           : config->rope.scaling == ROPE_SCALING_LLAMA3 ? read_llama3(reader, rope)
                                                         : STATUS_OK;
}

static enum status read_rope(const struct reader *reader)
{
    struct model_config *config = reader->config;
    const json_t *rope;
    double base = reader->family->rope_base, part = 1.0;
    TRY(find_rope(reader, &rope));
    TRY(folder_json_read_float(reader->label, reader->root, "rope_theta", &base));
    TRY(folder_json_read_float(reader->label, rope, "rope_theta", &base));
    TRY(folder_json_read_float(reader->label, reader->root, "partial_rotary_factor", &part));
    TRY(folder_json_read_float(reader->label, rope, "partial_rotary_factor", &part));
    if (part < 1.0 || part > 1.0) {
        return status_fail(STATUS_UNSUPPORTED, "%s: partial_rotary_factor %g is not supported",
                           reader->label, part);
    }
    config->rope.dims = config->head_dim;
    config->rope.base = as_float(base);
    config->rope.factor = 1.0;
    config->rope.original_context = config->context_len;
    return rope ? read_scaling(reader, rope) : STATUS_OK;
}

/* ---- all ---- */

/* Both spellings of the dtype say the same, if they say anything. */
static enum status check_dtype(const struct reader *reader)
{
    const char *new = NULL, *old = NULL;
    TRY(folder_json_read_text(reader->label, reader->root, "dtype", &new));
    TRY(folder_json_read_text(reader->label, reader->root, "torch_dtype", &old));
    if (new && old && strcmp(new, old) != 0) {
        return status_fail(STATUS_INVALID,
                           "%s: two dtypes: dtype says %.32s, torch_dtype says %.32s",
                           reader->label, new, old);
    }
    return STATUS_OK;
}

static enum status refuse_variants(const struct reader *reader)
{
    static const char *const FLAGS[] = { "attention_bias", "mlp_bias" };
    const char *activation = "silu";
    char shown[64];
    TRY(folder_json_read_text(reader->label, reader->root, "hidden_act", &activation));
    if (strcmp(activation, "silu") != 0) {
        gguf_copy_text((struct model_text){ activation, (uint32_t)strlen(activation) }, shown,
                       sizeof shown);
        return status_fail(STATUS_UNSUPPORTED,
                           "%s: hidden_act '%s' is not supported; supported: silu", reader->label,
                           shown);
    }
    for (size_t i = 0; i < sizeof FLAGS / sizeof FLAGS[0]; i++) {
        int set = 0;
        TRY(folder_json_read_flag(reader->label, reader->root, FLAGS[i], &set));
        if (set && strcmp(reader->family->architecture, "qwen2") != 0) {
            return status_fail(STATUS_UNSUPPORTED, "%s: %s is not supported in model_type '%s'",
                               reader->label, FLAGS[i], reader->family->model_type);
        }
    }
    if (folder_json_find(reader->root, "quantization_config")) {
        return status_fail(
            STATUS_UNSUPPORTED,
            "%s: quantization_config: weights packed by another program are not supported; "
            "take the folder with F32, F16 or BF16 weights, or a GGUF file",
            reader->label);
    }
    return STATUS_OK;
}

enum status folder_config_read(const char *label, const json_t *root, struct model_config *config)
{
    struct reader reader = { .label = label, .root = root, .config = config };
    int tied = 0;
    TRY(find_family(&reader));
    TRY(check_dtype(&reader));
    TRY(refuse_variants(&reader));
    TRY(read_sizes(&reader));
    TRY(read_experts(&reader));
    TRY(read_window(&reader));
    TRY(read_rope(&reader));
    TRY(folder_json_read_flag(label, root, "tie_word_embeddings", &tied));
    config->tied_head = tied != 0;
    config->permuted_qk = false;
    TRY(folder_config_eos(label, root, config));
    return config_check(label, config);
}

static enum status add_eos(const char *label, const json_t *value, struct model_config *config)
{
    const int64_t id = (int64_t)json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= config->n_vocab) {
        char found[48];
        folder_json_value_text(value, found, sizeof found);
        return status_fail(STATUS_INVALID, "%s: eos_token_id: expected 0 to %d, file says %s",
                           label, config->n_vocab - 1, found);
    }
    for (int32_t i = 0; i < config->n_eos; i++) {
        if (config->eos_ids[i] == (int32_t)id) {
            return STATUS_OK;
        }
    }
    if (config->n_eos == MODEL_MAX_EOS) {
        return status_fail(STATUS_UNSUPPORTED, "%s: more than %d end-of-text ids", label,
                           MODEL_MAX_EOS);
    }
    config->eos_ids[config->n_eos++] = (int32_t)id;
    return STATUS_OK;
}

enum status folder_config_eos(const char *label, const json_t *root, struct model_config *config)
{
    const json_t *value = folder_json_find(root, "eos_token_id");
    if (value && !json_is_array(value)) {
        return add_eos(label, value, config);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        TRY(add_eos(label, json_array_get(value, i), config));
    }
    return STATUS_OK;
}

enum status folder_config_hints(const char *label, const json_t *root, struct model_hints *hints)
{
    int64_t top_k = -1;
    int samples = -1;
    *hints = HINTS_NONE;
    TRY(folder_json_read_float(label, root, "temperature", &hints->temperature));
    TRY(folder_json_read_float(label, root, "top_p", &hints->top_p));
    TRY(folder_json_read_float(label, root, "min_p", &hints->min_p));
    TRY(folder_json_read_float(label, root, "repetition_penalty", &hints->repetition_penalty));
    TRY(folder_json_read_int(label, root, "top_k", (struct folder_json_range){ -1, INT32_MAX },
                             &top_k));
    TRY(folder_json_read_flag(label, root, "do_sample", &samples));
    hints->top_k = (int32_t)top_k;
    if (samples == 0 || (samples == 1 && hints->temperature < 0)) {
        hints->temperature = samples; /* greedy is said this way, and 1 is what is not written out */
    }
    return STATUS_OK;
}
