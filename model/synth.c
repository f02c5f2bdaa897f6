/* synth: a source of random weights with the shapes of known models, for measuring speed and testing.
 *
 *     synth:NAME[,TYPE][,seed=N][,layers=N][,vocab=N][,context=N]
 *
 * A row is a pure function of (seed, tensor, row): counters hashed by rng_mix64, written straight in
 * the file's block format, so that rows can be made in any order and as fast as memory takes them.
 * Weights have a deviation of about 1 / sqrt(n_in) and embeddings one that keeps logits within a few
 * units, so that activations stay in the range real models have. Rotated rows count as permuted, as
 * in llama GGUFs. It deliberately does not imitate language: there is no vocabulary.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf.h"
#include "model/config.h"
#include "model/rope.h"

struct shape {
    const char *name;
    int32_t dim, n_layers, n_heads, n_kv_heads, head_dim, ffn_dim, n_vocab, context;
    double rope_base;
    double llama3_factor; /* 0: no scaling */
    bool tied;
};
static const struct shape SHAPES[] = {
    { "llama-1b", 2048, 16, 32, 8, 64, 8192, 128256, 131072, 500000.0, 32.0, true },
    { "llama-8b", 4096, 32, 32, 8, 128, 14336, 128256, 131072, 500000.0, 8.0, false },
    { "llama-70b", 8192, 80, 64, 8, 128, 28672, 128256, 131072, 500000.0, 8.0, false },
    { "smol-135m", 576, 30, 9, 3, 64, 1536, 49152, 8192, 100000.0, 0.0, true },
    { "tiny", 128, 2, 4, 2, 32, 352, 512, 4096, 10000.0, 0.0, false },
    { "tiny-256", 256, 2, 4, 2, 64, 768, 512, 4096, 10000.0, 0.0, false }, /* for blocks of 256 */
};
enum { N_SHAPES = sizeof SHAPES / sizeof SHAPES[0], NAME_CAP = 48, OPTION_CAP = 64 };

static const enum tensor_type TYPES[] = { TENSOR_F32,  TENSOR_F16,  TENSOR_BF16, TENSOR_Q8_0,
                                          TENSOR_Q4_0, TENSOR_Q4_K, TENSOR_Q6_K };
enum { N_TYPES = sizeof TYPES / sizeof TYPES[0] };

/* How a tensor's numbers are made. */
struct recipe {
    uint64_t stream;   /* hash of seed and tensor name */
    float deviation;
    enum { MAKE_RANDOM, MAKE_NORM, MAKE_FACTORS } how;
};
struct synth_source {
    struct model_source base;
    struct recipe *recipes; /* [n_tensors] */
    char (*names)[NAME_CAP]; /* [n_tensors] */
};

/* ---- numbers ---- */

/* Word `i` of a row's stream. */
static inline uint64_t word_at(uint64_t row_stream, uint64_t i) { return rng_mix64(row_stream + i); }

static uint64_t row_stream(const struct recipe *recipe, int64_t row)
{
    return rng_mix64(recipe->stream ^ ((uint64_t)row * 0xd1342543de82ef95u));
}

/* Uniform in (-a, a) with the wanted deviation: a = deviation * sqrt 3. */
static void make_f32(uint64_t stream, float deviation, int64_t n, unsigned char *out)
{
    const float scale = deviation * 1.7320508f / 2147483648.0f;
    for (int64_t i = 0; i < n; i++) {
        const uint64_t word = word_at(stream, (uint64_t)i / 2);
        const int32_t half = (int32_t)(uint32_t)(i % 2 ? word >> 32 : word);
        const float value = (float)half * scale;
        memcpy(out + i * 4, &value, 4);
    }
}

/* Sign, one of two neighbouring exponents, any mantissa: a deviation of 1.2076 * 2^exponent. */
static void make_16bit(uint64_t stream, float deviation, enum tensor_type type, int64_t n,
                       unsigned char *out)
{
    const uint32_t mantissa_bits = type == TENSOR_F16 ? 10 : 7, bias = type == TENSOR_F16 ? 15 : 127;
    int power;
    const float fraction = frexpf(deviation / 1.2076f, &power); /* to the nearest power of two */
    const uint32_t exponent = (uint32_t)(power - (fraction < 0.7071f ? 1 : 0) + (int)bias);
    const uint16_t keep = (uint16_t)(0x8000u | ((1u << mantissa_bits) - 1));
    for (int64_t i = 0; i < n; i += 4) {
        const uint64_t word = word_at(stream, (uint64_t)i / 4);
        for (int64_t j = i; j < n && j < i + 4; j++) {
            const uint16_t bits = (uint16_t)(word >> (16 * (j - i)));
            const uint32_t low = (bits >> mantissa_bits) & 1u; /* a bit that `keep` drops */
            const uint16_t value = (uint16_t)((bits & keep) | ((exponent - low) << mantissa_bits));
            memcpy(out + j * 2, &value, 2);
        }
    }
}

/* Blocks of 32: a half scale with 8 random mantissa bits, then random code bytes. */
static void make_blocks(uint64_t stream, float deviation, enum tensor_type type, int64_t n_blocks,
                        unsigned char *out)
{
    const int n_words = type == TENSOR_Q4_0 ? 2 : 4;
    const float code_deviation = type == TENSOR_Q4_0 ? 4.6368f : 73.9f; /* of uniform codes */
    /* random bits take the place of the low mantissa bits: a quarter of the value at most */
    const uint16_t base = mathx_f32_to_f16(deviation / code_deviation) & 0xff00u;
    uint64_t at = 0, jitter = 0;
    for (int64_t b = 0; b < n_blocks; b++) {
        if (b % 8 == 0) {
            jitter = word_at(stream, at++);
        }
        const uint16_t scale = (uint16_t)(base | (jitter & 0xffu));
        jitter >>= 8;
        memcpy(out, &scale, 2);
        for (int i = 0; i < n_words; i++) {
            const uint64_t word = word_at(stream, at++);
            memcpy(out + 2 + i * 8, &word, 8);
        }
        out += 2 + n_words * 8;
    }
}

/* Random bytes from a stream's words, n a multiple of 8. */
static unsigned char *put_words(uint64_t stream, uint64_t *at, int n, unsigned char *out)
{
    for (int i = 0; i < n; i += 8, out += 8) {
        const uint64_t word = word_at(stream, (*at)++);
        memcpy(out, &word, 8);
    }
    return out;
}

/* Blocks of 256 in parts of 32: scales 32..63, minimums equal to them and dmin = 7.5 d, so that the
 * middle of the codes is 0. */
static void make_q4_k(uint64_t stream, float deviation, int64_t n_blocks, unsigned char *out)
{
    const float d = deviation / (48.4f * 4.61f); /* of uniform scales and codes */
    const uint16_t halves[2] = { mathx_f32_to_f16(d), mathx_f32_to_f16(7.5f * d) };
    uint64_t at = 0;
    for (int64_t b = 0; b < n_blocks; b++) {
        const uint64_t word = word_at(stream, at++);
        const uint32_t upper = ((uint32_t)word & 0x5f5f5f5fu) | 0xa0a0a0a0u; /* top bits of all are 1 */
        const uint32_t nibbles = (uint32_t)(word >> 32) & 0x0f0f0f0fu, lower = nibbles | nibbles << 4;
        memcpy(out, halves, 4);
        memcpy(out + 4, &upper, 4);
        memcpy(out + 8, &upper, 4);
        memcpy(out + 12, &lower, 4);
        out = put_words(stream, &at, 128, out + 16);
    }
}

/* Blocks of 256 in parts of 16: scales of magnitude 64..128, either sign. */
static void make_q6_k(uint64_t stream, float deviation, int64_t n_blocks, unsigned char *out)
{
    const uint16_t d = mathx_f32_to_f16(deviation / (97.7f * 18.5f));
    uint64_t at = 0;
    for (int64_t b = 0; b < n_blocks; b++) {
        out = put_words(stream, &at, 192, out);
        for (int i = 0; i < 2; i++, out += 8) {
            const uint64_t word = word_at(stream, at++), bit = UINT64_C(0x4040404040404040);
            const uint64_t scales = (word & ~bit) | (~word >> 1 & bit);
            memcpy(out, &scales, 8);
        }
        memcpy(out, &d, 2);
        out += 2;
    }
}

static void make_norm(uint64_t stream, int64_t n, unsigned char *out)
{
    for (int64_t i = 0; i < n; i++) {
        const float value = 0.9f + (float)(word_at(stream, (uint64_t)i) >> 40) * (0.2f / 16777216.0f);
        memcpy(out + i * 4, &value, 4);
    }
}

static enum status synth_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                              int64_t n_rows, void *out)
{
    const struct synth_source *self = (const struct synth_source *)source;
    const struct recipe *recipe = &self->recipes[tensor_idx];
    const struct model_tensor_info *info = &source->tensors[tensor_idx];
    const uint64_t row_bytes = source_row_bytes(info);
    unsigned char *to = out;
    for (int64_t row = first_row; row < first_row + n_rows; row++, to += row_bytes) {
        const uint64_t stream = row_stream(recipe, row);
        if (recipe->how == MAKE_FACTORS) {
            struct model_config scaled = source->config; /* the factors stand for this scaling */
            scaled.rope.scaling = ROPE_SCALING_LLAMA3;
            float factors[128];
            rope_llama3_factors(&scaled, factors);
            memcpy(to, factors, row_bytes);
        } else if (recipe->how == MAKE_NORM) {
            make_norm(stream, info->dims[0], to);
        } else if (info->type == TENSOR_F32) {
            make_f32(stream, recipe->deviation, info->dims[0], to);
        } else if (info->type == TENSOR_F16 || info->type == TENSOR_BF16) {
            make_16bit(stream, recipe->deviation, (enum tensor_type)info->type, info->dims[0], to);
        } else if (info->type == TENSOR_Q4_K) {
            make_q4_k(stream, recipe->deviation, info->dims[0] / 256, to);
        } else if (info->type == TENSOR_Q6_K) {
            make_q6_k(stream, recipe->deviation, info->dims[0] / 256, to);
        } else {
            make_blocks(stream, recipe->deviation, (enum tensor_type)info->type, info->dims[0] / 32, to);
        }
    }
    return STATUS_OK;
}

static void synth_close(struct model_source *source)
{
    struct synth_source *self = (struct synth_source *)source;
    mem_free(self->names);
    mem_free(self->recipes);
    mem_free(source->tensors);
}

static void synth_describe(const struct model_source *source,
                           void (*line)(void *user, const char *key, const char *value), void *user)
{
    const struct model_config *config = &source->config;
    const struct { const char *key; int64_t value; } NUMBERS[] = {
        { "layers", config->n_layers }, { "width", config->dim }, { "feed-forward width", config->ffn_dim },
        { "heads", config->n_heads }, { "KV heads", config->n_kv_heads },
        { "head dimension", config->head_dim }, { "vocabulary", config->n_vocab },
        { "context", config->context_len }, { "tensors", source->n_tensors },
    };
    line(user, "format", "synthetic: random weights, no vocabulary");
    line(user, "name", config->name);
    line(user, "architecture", config->architecture);
    for (size_t i = 0; i < sizeof NUMBERS / sizeof NUMBERS[0]; i++) {
        char value[32];
        snprintf(value, sizeof value, "%lld", (long long)NUMBERS[i].value);
        line(user, NUMBERS[i].key, value);
    }
    line(user, "head", config->tied_head ? "tied to the embedding" : "separate");
}

static const struct source_kind SYNTH_SOURCE = {
    .close = synth_close, .read = synth_read, .describe = synth_describe,
};

/* ---- the name ---- */

struct synth_spec {
    struct shape shape;
    enum tensor_type type;
    uint64_t seed;
};

static enum status refuse_word(const char *what, const char *word, const char *const *words, int n)
{
    char list[256] = "", shown[OPTION_CAP];
    for (int i = 0; i < n; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", words[i]);
    }
    gguf_copy_text((struct model_text){ word, (uint32_t)strlen(word) }, shown, sizeof shown);
    return status_fail(STATUS_INVALID, "synth: unknown %s '%s'; did you mean %s? There are: %s", what,
                       shown, conf_nearest(word, words, n), list);
}

static enum status parse_number(const char *key, const char *text, uint64_t min, uint64_t max,
                                uint64_t *value)
{
    char *end;
    errno = 0;
    const unsigned long long parsed = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || parsed < min || parsed > max) {
        return status_fail(STATUS_INVALID, "synth: %s: expected a whole number from %llu to %llu, found '%s'",
                           key, (unsigned long long)min, (unsigned long long)max, text);
    }
    *value = parsed;
    return STATUS_OK;
}

static enum status parse_option(struct synth_spec *spec, char *text)
{
    static const char *const KEYS[] = { "seed", "layers", "vocab", "context" };
    static const char *const TYPE_NAMES[] = { "f32", "f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k" };
    uint64_t value;
    char *equals = strchr(text, '=');
    if (!equals) {
        const struct tensor_type_info *type = tensor_type_by_name(text);
        for (int i = 0; type && i < N_TYPES; i++) {
            if (type->number == (uint32_t)TYPES[i]) {
                spec->type = TYPES[i];
                return STATUS_OK;
            }
        }
        return refuse_word("type", text, TYPE_NAMES, N_TYPES);
    }
    *equals = '\0';
    if (strcmp(text, "seed") == 0) {
        return parse_number("seed", equals + 1, 0, UINT64_MAX, &spec->seed);
    }
    if (strcmp(text, "layers") == 0) {
        TRY(parse_number("layers", equals + 1, 1, 1024, &value));
        spec->shape.n_layers = (int32_t)value;
        return STATUS_OK;
    }
    if (strcmp(text, "vocab") == 0) {
        TRY(parse_number("vocab", equals + 1, 2, 1 << 22, &value));
        spec->shape.n_vocab = (int32_t)value;
        return STATUS_OK;
    }
    if (strcmp(text, "context") == 0) {
        TRY(parse_number("context", equals + 1, 1, 1 << 24, &value));
        spec->shape.context = (int32_t)value;
        return STATUS_OK;
    }
    return refuse_word("option", text, KEYS, (int)(sizeof KEYS / sizeof KEYS[0]));
}

/* Copies the next part, up to a comma, and moves *at behind it. */
static enum status next_part(const char **at, char *part)
{
    const size_t n = strcspn(*at, ",");
    if (n >= OPTION_CAP) {
        return status_fail(STATUS_INVALID, "synth: a part of the name has %zu characters, expected at most %d",
                           n, OPTION_CAP - 1);
    }
    memcpy(part, *at, n);
    part[n] = '\0';
    *at += n;
    *at += **at == ',' ? 1 : 0;
    return STATUS_OK;
}

static enum status parse_spec(const char *name, struct synth_spec *spec)
{
    const char *names[N_SHAPES], *at = name + strlen("synth:");
    char part[OPTION_CAP];
    *spec = (struct synth_spec){ .type = TENSOR_Q8_0, .seed = 1 };
    TRY(next_part(&at, part));
    for (int i = 0; i < N_SHAPES; i++) {
        names[i] = SHAPES[i].name;
        if (strcmp(part, names[i]) == 0) {
            spec->shape = SHAPES[i];
        }
    }
    if (!spec->shape.name) {
        return refuse_word("model", part, names, N_SHAPES);
    }
    while (*at) {
        TRY(next_part(&at, part));
        TRY(parse_option(spec, part));
    }
    return STATUS_OK;
}

/* ---- the tensors ---- */

static void fill_config(const struct synth_spec *spec, struct model_config *config)
{
    const struct shape *shape = &spec->shape;
    char type[16];
    snprintf(type, sizeof type, "%s", tensor_type_info((uint32_t)spec->type)->name);
    snprintf(config->name, sizeof config->name, "synth %s %s seed %llu", shape->name, type,
             (unsigned long long)spec->seed);
    snprintf(config->architecture, sizeof config->architecture, "llama");
    config->n_layers = shape->n_layers;
    config->dim = shape->dim;
    config->ffn_dim = shape->ffn_dim;
    config->n_heads = shape->n_heads;
    config->n_kv_heads = shape->n_kv_heads;
    config->head_dim = shape->head_dim;
    config->n_vocab = shape->n_vocab;
    config->context_len = shape->context;
    config->norm_eps = 1e-5f;
    config->rope.dims = shape->head_dim;
    config->rope.base = shape->rope_base;
    config->rope.factor = shape->llama3_factor > 0 ? shape->llama3_factor : 1.0;
    config->rope.low_freq_factor = 1.0;
    config->rope.high_freq_factor = 4.0;
    config->rope.original_context = 8192;
    config->tied_head = shape->tied;
    config->permuted_qk = true;
}

/* One tensor of the family table, if this spec has it. */
static void fill_tensor(struct synth_source *self, const struct synth_spec *spec,
                        const struct family_tensor *tensor, int32_t layer)
{
    const struct model_config *config = &self->base.config;
    if ((tensor->role == ROLE_HEAD && config->tied_head) ||
        (tensor->role == ROLE_ROPE_FACTORS && spec->shape.llama3_factor <= 0)) {
        return;
    }
    const int64_t idx = self->base.n_tensors++;
    struct model_tensor_info *info = &self->base.tensors[idx];
    struct recipe *recipe = &self->recipes[idx];
    char *name = self->names[idx];
    snprintf(name, NAME_CAP, "%.40s", tensor->name);
    if (layer >= 0) {
        snprintf(name, NAME_CAP, tensor->name, layer);
    }
    const bool vector = (tensor->flags & FAMILY_VECTOR) != 0;
    const bool vocabulary = tensor->role == ROLE_EMBED || tensor->role == ROLE_HEAD;
    info->name = name;
    info->type = vector ? TENSOR_F32 : (uint32_t)spec->type;
    info->n_dims = vector ? 1 : 2;
    info->dims[0] = family_dim_value(config, tensor->n_in);
    info->dims[1] = family_dim_value(config, tensor->n_out);
    info->bytes = source_row_bytes(info) * (uint64_t)source_n_rows(info);
    recipe->stream = rng_mix64(spec->seed ^ digest_bytes(name, strlen(name)));
    recipe->how = tensor->role == ROLE_ROPE_FACTORS ? MAKE_FACTORS : vector ? MAKE_NORM : MAKE_RANDOM;
    recipe->deviation = (vocabulary ? 2.5f : 1.0f) / sqrtf((float)info->dims[0]);
    self->base.total_bytes += info->bytes;
}

static enum status fill_tensors(struct synth_source *self, const struct synth_spec *spec)
{
    const struct family *family = family_find("llama");
    const size_t cap = (size_t)family_n_bindings(family, &self->base.config);
    self->base.tensors = mem_alloc(cap, sizeof *self->base.tensors);
    self->recipes = mem_alloc(cap, sizeof *self->recipes);
    self->names = mem_alloc(cap, sizeof *self->names);
    if (!self->base.tensors || !self->recipes || !self->names) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a table of %zu tensors", cap);
    }
    for (int32_t layer = -1; layer < self->base.config.n_layers; layer++) {
        for (int32_t i = 0; i < FAMILY_N_TENSORS; i++) {
            if ((FAMILY_TENSORS[i].role >= ROLE_ATTN_NORM) == (layer >= 0) &&
                family_needs(family, &self->base.config, &FAMILY_TENSORS[i])) {
                fill_tensor(self, spec, &FAMILY_TENSORS[i], layer);
            }
        }
    }
    TRY(source_index_tensors(&self->base));
    TRY(config_check(self->base.label, &self->base.config));
    return family_check(&self->base, family);
}

enum status synth_source_open(const char *name, struct model_source **out)
{
    struct synth_spec spec;
    TRY(parse_spec(name, &spec));
    struct synth_source *self = mem_alloc(1, sizeof *self);
    if (!self) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a synthetic model's tables");
    }
    self->base.kind = &SYNTH_SOURCE;
    snprintf(self->base.label, sizeof self->base.label, "%s", name);
    fill_config(&spec, &self->base.config);
    const enum status status = fill_tensors(self, &spec);
    if (status != STATUS_OK) {
        model_source_close(&self->base);
        return status;
    }
    *out = &self->base;
    return STATUS_OK;
}
