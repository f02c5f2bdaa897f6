/* config: keys of a GGUF file into struct model_config. Key names are "<architecture>.<suffix>"; the
 * tables below say which suffix fills which field. */
#include "model/config.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "model/rope.h"

enum {
    MAX_LAYERS = 1024, MAX_DIM = 1 << 17, MAX_FFN = 1 << 20, MAX_HEADS = 1024, MAX_GROUP = 128,
    MAX_HEAD_DIM = 256, HEAD_DIM_STEP = 16, MAX_VOCAB = 1 << 23, MAX_CONTEXT = 1 << 24,
    MAX_EXPERTS = 1024
};
enum need { NEED_NOT, NEED };

struct int_field { const char *suffix; size_t offset; struct gguf_range range; enum need need; };
#define FIELD(f) offsetof(struct model_config, f)
static const struct int_field INT_FIELDS[] = {
    { "block_count", FIELD(n_layers), { 1, MAX_LAYERS }, NEED },
    { "embedding_length", FIELD(dim), { 1, MAX_DIM }, NEED },
    { "feed_forward_length", FIELD(ffn_dim), { 1, MAX_FFN }, NEED },
    { "context_length", FIELD(context_len), { 1, MAX_CONTEXT }, NEED },
    { "attention.head_count", FIELD(n_heads), { 1, MAX_HEADS }, NEED },
    { "attention.head_count_kv", FIELD(n_kv_heads), { 1, MAX_HEADS }, NEED_NOT },
    { "attention.key_length", FIELD(head_dim), { 1, MAX_HEAD_DIM }, NEED_NOT },
    { "attention.sliding_window", FIELD(window), { 0, MAX_CONTEXT }, NEED_NOT },
    { "rope.dimension_count", FIELD(rope.dims), { 1, MAX_HEAD_DIM }, NEED_NOT },
    { "rope.scaling.original_context_length", FIELD(rope.original_context), { 1, MAX_CONTEXT }, NEED_NOT },
    { "expert_count", FIELD(experts.n), { 0, MAX_EXPERTS }, NEED_NOT },
    { "expert_used_count", FIELD(experts.n_used), { 0, MAX_EXPERTS }, NEED_NOT },
    { "expert_feed_forward_length", FIELD(experts.ffn_dim), { 0, MAX_FFN }, NEED_NOT },
};

struct float_field { const char *suffix; size_t offset; };
static const struct float_field FLOAT_FIELDS[] = {
    { "rope.freq_base", FIELD(rope.base) },
    { "rope.scaling.factor", FIELD(rope.factor) },
    { "rope.scaling.yarn_beta_fast", FIELD(rope.beta_fast) },
    { "rope.scaling.yarn_beta_slow", FIELD(rope.beta_slow) },
};

enum { KEY_CAP = MODEL_NAME_CAP + 64 };

static void key_name(const struct model_config *config, const char *suffix, char *key)
{
    snprintf(key, KEY_CAP, "%s.%s", config->architecture, suffix);
}

static enum status read_ints(const struct gguf *gguf, struct model_config *config)
{
    for (size_t i = 0; i < sizeof INT_FIELDS / sizeof INT_FIELDS[0]; i++) {
        const struct int_field *field = &INT_FIELDS[i];
        char key[KEY_CAP];
        key_name(config, field->suffix, key);
        if (field->need == NEED && !gguf_find(gguf, key)) {
            return status_fail(STATUS_INVALID, "%s: key %s is missing", gguf->label, key);
        }
        int64_t value = 0;
        TRY(gguf_read_int(gguf, key, field->range, &value));
        const int32_t narrow = (int32_t)value; /* ranges are within int32 */
        memcpy((char *)config + field->offset, &narrow, sizeof narrow);
    }
    return STATUS_OK;
}

static enum status read_floats(const struct gguf *gguf, struct model_config *config)
{
    for (size_t i = 0; i < sizeof FLOAT_FIELDS / sizeof FLOAT_FIELDS[0]; i++) {
        char key[KEY_CAP];
        double value;
        key_name(config, FLOAT_FIELDS[i].suffix, key);
        memcpy(&value, (char *)config + FLOAT_FIELDS[i].offset, sizeof value);
        TRY(gguf_read_float(gguf, key, &value));
        memcpy((char *)config + FLOAT_FIELDS[i].offset, &value, sizeof value);
    }
    char key[KEY_CAP];
    key_name(config, "attention.layer_norm_rms_epsilon", key);
    if (!gguf_find(gguf, key)) {
        return status_fail(STATUS_INVALID, "%s: key %s is missing", gguf->label, key);
    }
    double eps = 0;
    TRY(gguf_read_float(gguf, key, &eps));
    config->norm_eps = (float)eps;
    return STATUS_OK;
}

static bool text_is(struct model_text text, const char *word)
{
    return text.n_bytes == strlen(word) && memcmp(text.bytes, word, text.n_bytes) == 0;
}

/* rope.scaling.type; files of Llama 3 hold its scaling as the tensor rope_freqs.weight instead. */
static enum status read_scaling(const struct gguf *gguf, struct model_config *config)
{
    char key[KEY_CAP], found[64];
    struct model_text type = { "none", 4 };
    key_name(config, "rope.scaling.type", key);
    TRY(gguf_read_text(gguf, key, &type));
    if (text_is(type, "linear")) {
        config->rope.scaling = ROPE_SCALING_LINEAR;
    } else if (text_is(type, "yarn")) {
        config->rope.scaling = ROPE_SCALING_YARN;
        double attn_factor = 1.0;
        key_name(config, "rope.scaling.attn_factor", key);
        TRY(gguf_read_float(gguf, key, &attn_factor));
        /* the file's number multiplies the formula's */
        config->rope.attention_factor = attn_factor * rope_magnitude(config);
    } else if (!text_is(type, "none")) {
        gguf_copy_text(type, found, sizeof found);
        return status_fail(STATUS_UNSUPPORTED, "%s: %s '%s' is not supported; supported: none, linear, yarn",
                           gguf->label, key, found);
    } else {
        config->rope.factor = 1.0;
    }
    return STATUS_OK;
}

/* Experts: weights add up to 1 unless the file says otherwise; their width is the dense one's where
 * it is not named. */
static enum status read_experts(const struct gguf *gguf, struct model_config *config)
{
    char key[KEY_CAP];
    if (config->experts.n == 0) {
        config->experts.n_used = config->experts.ffn_dim = 0;
        return STATUS_OK;
    }
    config->experts.normalised = true;
    key_name(config, "expert_weights_norm", key);
    TRY(gguf_read_bool(gguf, key, &config->experts.normalised));
    config->experts.ffn_dim = config->experts.ffn_dim > 0 ? config->experts.ffn_dim : config->ffn_dim;
    return STATUS_OK;
}

/* Keys whose presence would change the computation in ways this build does not do. */
static enum status refuse_variants(const struct gguf *gguf, const struct model_config *config)
{
    static const struct { const char *suffix; int64_t max; } ONLY[] = {
        { "expert_shared_count", 0 }, { "expert_gating_func", 1 }, /* 1: softmax */
        { "rope.scale_linear", 1 },
    };
    char key[KEY_CAP];
    for (size_t i = 0; i < sizeof ONLY / sizeof ONLY[0]; i++) {
        double value = 0;
        key_name(config, ONLY[i].suffix, key);
        TRY(gguf_read_float(gguf, key, &value));
        if (value > (double)ONLY[i].max) {
            return status_fail(STATUS_UNSUPPORTED, "%s: %s %g is not supported", gguf->label, key, value);
        }
    }
    int64_t value_length = config->head_dim;
    key_name(config, "attention.value_length", key);
    TRY(gguf_read_int(gguf, key, (struct gguf_range){ 1, MAX_HEAD_DIM }, &value_length));
    if (value_length != config->head_dim) {
        return status_fail(STATUS_UNSUPPORTED, "%s: %s: expected %d as for keys, file says %lld",
                           gguf->label, key, config->head_dim, (long long)value_length);
    }
    return STATUS_OK;
}

static enum status read_vocab_size(const struct gguf *gguf, const struct model_source *source,
                                   struct model_config *config)
{
    char key[KEY_CAP];
    key_name(config, "vocab_size", key);
    int64_t declared = 0;
    TRY(gguf_read_int(gguf, key, (struct gguf_range){ 1, MAX_VOCAB }, &declared));
    const struct gguf_key *tokens = gguf_find(gguf, "tokenizer.ggml.tokens");
    const uint64_t n_tokens = tokens && tokens->type == GGUF_ARRAY ? tokens->n : 0;
    if (source->n_tensors == 0) {
        return status_fail(STATUS_INVALID, "%s: the file holds %s but no weights", gguf->label,
                           n_tokens > 0 ? "a vocabulary" : "keys");
    }
    const char *const name = "token_embd.weight";
    const int64_t idx = source_find_tensor(source, name);
    if (idx < 0) {
        return status_fail(STATUS_INVALID, "%s: tensor %s is missing", gguf->label, name);
    }
    const int64_t rows = source->tensors[idx].n_dims > 1 ? source->tensors[idx].dims[1] : 1;
    if (rows > MAX_VOCAB || (declared > 0 && declared != rows)) {
        return status_fail(STATUS_INVALID, "%s: %s: expected %lld rows, file says %lld", gguf->label, name,
                           (long long)(declared > 0 ? declared : MAX_VOCAB), (long long)rows);
    }
    if (n_tokens > (uint64_t)rows) {
        return status_fail(STATUS_INVALID, "%s: %llu tokens in the vocabulary, but %s has %lld rows",
                           gguf->label, (unsigned long long)n_tokens, name, (long long)rows);
    }
    config->n_vocab = (int32_t)rows;
    return STATUS_OK;
}

static enum status read_eos(const struct gguf *gguf, struct model_config *config)
{
    static const char *const KEYS[] = { "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++) {
        if (!gguf_find(gguf, KEYS[i])) {
            continue;
        }
        int64_t id = 0;
        bool known = false;
        TRY(gguf_read_int(gguf, KEYS[i], (struct gguf_range){ 0, config->n_vocab - 1 }, &id));
        for (int32_t j = 0; j < config->n_eos; j++) {
            known = known || config->eos_ids[j] == (int32_t)id;
        }
        if (!known) {
            config->eos_ids[config->n_eos++] = (int32_t)id;
        }
    }
    return STATUS_OK;
}

static enum status read_architecture(const struct gguf *gguf, struct model_config *config)
{
    struct model_text name = { "", 0 }, architecture = { "", 0 };
    TRY(gguf_read_text(gguf, "general.name", &name));
    gguf_copy_text(name, config->name, sizeof config->name);
    TRY(gguf_read_text(gguf, "general.architecture", &architecture));
    gguf_copy_text(architecture, config->architecture, sizeof config->architecture);
    if (architecture.n_bytes == 0) {
        return status_fail(STATUS_INVALID, "%s: key general.architecture is missing", gguf->label);
    }
    const struct family *family = family_find(config->architecture);
    if (!family) {
        char known[256];
        family_list(known, sizeof known);
        return status_fail(STATUS_UNSUPPORTED, "%s: architecture '%s' is not supported; supported: %s",
                           gguf->label, config->architecture, known);
    }
    config->permuted_qk = family->permuted_qk;
    return STATUS_OK;
}

enum status config_from_gguf(const struct gguf *gguf, const struct model_source *source,
                             struct model_config *config)
{
    TRY(read_architecture(gguf, config));
    config->rope.base = 10000.0;
    config->rope.factor = 1.0;
    config->rope.beta_fast = 32.0;
    config->rope.beta_slow = 1.0;
    TRY(read_ints(gguf, config));
    config->n_kv_heads = config->n_kv_heads > 0 ? config->n_kv_heads : config->n_heads;
    if (config->head_dim == 0) {
        if (config->dim % config->n_heads != 0) {
            return status_fail(STATUS_INVALID, "%s: %d heads do not divide the width %d", gguf->label,
                               config->n_heads, config->dim);
        }
        config->head_dim = config->dim / config->n_heads;
    }
    config->rope.dims = config->rope.dims > 0 ? config->rope.dims : config->head_dim;
    config->rope.original_context =
        config->rope.original_context > 0 ? config->rope.original_context : config->context_len;
    TRY(read_floats(gguf, config));
    TRY(read_scaling(gguf, config));
    TRY(read_experts(gguf, config));
    TRY(refuse_variants(gguf, config));
    TRY(read_vocab_size(gguf, source, config));
    TRY(read_eos(gguf, config));
    config->tied_head = source_find_tensor(source, "output.weight") < 0;
    return config_check(gguf->label, config);
}

static enum status check_heads(const char *label, const struct model_config *config)
{
    if (config->n_heads % config->n_kv_heads != 0 || config->n_heads / config->n_kv_heads > MAX_GROUP) {
        return status_fail(STATUS_INVALID,
                           "%s: expected the %d heads to be shared evenly, at most %d to one, by the %d KV heads",
                           label, config->n_heads, MAX_GROUP, config->n_kv_heads);
    }
    if (config->head_dim % HEAD_DIM_STEP != 0 || config->head_dim > MAX_HEAD_DIM) {
        return status_fail(STATUS_UNSUPPORTED,
                           "%s: expected a head dimension that is a multiple of %d up to %d, file says %d",
                           label, HEAD_DIM_STEP, MAX_HEAD_DIM, config->head_dim);
    }
    if (config->rope.dims % 2 != 0 || config->rope.dims > config->head_dim) {
        return status_fail(STATUS_INVALID,
                           "%s: expected an even number of rotated dimensions up to %d, file says %d",
                           label, config->head_dim, config->rope.dims);
    }
    return STATUS_OK;
}

static enum status check_experts(const char *label, const struct model_config *config)
{
    const struct family *family = family_find(config->architecture);
    if (family && !(family->traits & (config->experts.n > 0 ? TRAIT_EXPERTS : TRAIT_DENSE))) {
        return status_fail(STATUS_UNSUPPORTED, "%s: %d experts in a model of architecture '%s', which %s", label,
                           config->experts.n, config->architecture,
                           config->experts.n > 0 ? "has none" : "has some");
    }
    if (config->experts.n > 0 && (config->experts.n_used < 1 || config->experts.n_used > config->experts.n)) {
        return status_fail(STATUS_INVALID, "%s: expected a row to take 1 to %d experts, file says %d", label,
                           config->experts.n, config->experts.n_used);
    }
    return STATUS_OK;
}

enum status config_check(const char *label, const struct model_config *config)
{
    TRY(check_heads(label, config));
    TRY(check_experts(label, config));
    if (!(config->norm_eps >= 0.0f && config->norm_eps <= 1.0f)) {
        return status_fail(STATUS_INVALID, "%s: expected a norm epsilon from 0 to 1, file says %g", label,
                           (double)config->norm_eps);
    }
    if (!(config->rope.base > 1.0 && config->rope.base <= 1e18)) {
        return status_fail(STATUS_INVALID, "%s: expected a RoPE base above 1 and up to 1e18, file says %g",
                           label, config->rope.base);
    }
    if (!(config->rope.factor > 0.0 && config->rope.factor <= 1e9)) {
        return status_fail(STATUS_INVALID, "%s: expected a RoPE scaling factor above 0 and up to 1e9, file says %g",
                           label, config->rope.factor);
    }
    if (config->rope.scaling == ROPE_SCALING_YARN &&
        !(config->rope.beta_fast > 0 && config->rope.beta_slow > 0 &&
          config->rope.attention_factor > 0)) {
        return status_fail(STATUS_INVALID,
                           "%s: expected YaRN's factors to be above 0, file says %g, %g and %g", label,
                           config->rope.beta_fast, config->rope.beta_slow,
                           config->rope.attention_factor);
    }
    return STATUS_OK;
}
