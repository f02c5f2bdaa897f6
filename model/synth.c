/* synth: a source of random weights with the shapes of known models, for measuring speed and testing;
 * and of pairs, a target and a draft that carry a planted text (synth_plant.h). Names: synth_name.c.
 *
 * A row is a pure function of (seed, tensor, row), so that rows can be made in any order and as fast as
 * memory takes them. Weights have a deviation of about 1 / sqrt(n_in) and embeddings one that keeps
 * logits within a few units, so that activations stay in the range real models have. In a pair the
 * layers compute as any others, but add little to the residual stream: the embedding decides. It
 * deliberately does not imitate language: there is no vocabulary.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/config.h"
#include "model/rope.h"
#include "model/synth.h"
#include "model/synth_plant.h"

enum { NAME_CAP = 48 };

/* How a tensor's numbers are made. */
struct recipe {
    uint64_t stream;   /* hash of seed and tensor name */
    float deviation;   /* of random numbers; MAKE_SAME: the number; MAKE_CODES: of signs */
    enum { MAKE_RANDOM, MAKE_NORM, MAKE_FACTORS, MAKE_SAME, MAKE_CODES, MAKE_HEAD } how;
};
struct synth_source {
    struct model_source base;
    struct recipe *recipes; /* [n_tensors] */
    char (*names)[NAME_CAP]; /* [n_tensors] */
    struct synth_spec spec;
    struct synth_plant plant; /* of a pair */
};

/* ---- rows ---- */

static uint64_t row_stream(const struct recipe *recipe, int64_t row)
{
    return rng_mix64(recipe->stream ^ ((uint64_t)row * 0xd1342543de82ef95u));
}

static void make_factors(const struct model_config *config, size_t n_bytes, unsigned char *out)
{
    struct model_config scaled = *config; /* the factors stand for this scaling */
    scaled.rope.scaling = ROPE_SCALING_LLAMA3;
    float factors[MODEL_MAX_ROPE_PAIRS];
    rope_llama3_factors(&scaled, factors);
    memcpy(out, factors, n_bytes);
}

static void make_same(float value, int64_t n, unsigned char *out)
{
    for (int64_t i = 0; i < n; i++) {
        memcpy(out + i * 4, &value, sizeof value);
    }
}

static void make_row(const struct synth_source *self, int64_t tensor_idx, int64_t row, unsigned char *out)
{
    const struct recipe *recipe = &self->recipes[tensor_idx];
    const struct model_tensor_info *info = &self->base.tensors[tensor_idx];
    const enum tensor_type type = (enum tensor_type)info->type;
    const uint64_t stream = row_stream(recipe, row);
    switch (recipe->how) {
    case MAKE_RANDOM: synth_row_random(stream, recipe->deviation, type, info->dims[0], out); break;
    case MAKE_NORM: synth_row_norm(stream, info->dims[0], out); break;
    case MAKE_FACTORS: make_factors(&self->base.config, source_row_bytes(info), out); break;
    case MAKE_SAME: make_same(recipe->deviation, info->dims[0], out); break;
    case MAKE_CODES:
        synth_plant_embed_row(&self->plant, (uint32_t)row, recipe->deviation, type, out);
        break;
    case MAKE_HEAD: synth_plant_head_row(&self->plant, (uint32_t)row, type, out); break;
    }
}

static enum status synth_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                              int64_t n_rows, void *out)
{
    const struct synth_source *self = (const struct synth_source *)source;
    const uint64_t row_bytes = source_row_bytes(&source->tensors[tensor_idx]);
    unsigned char *to = out;
    for (int64_t row = first_row; row < first_row + n_rows; row++, to += row_bytes) {
        make_row(self, tensor_idx, row, to);
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

static void describe_pair(const struct model_pair *pair,
                          void (*line)(void *user, const char *key, const char *value), void *user)
{
    char value[192];
    snprintf(value, sizeof value, "the %s of %s, %s and %s, %s; seed %llu",
             pair->role == MODEL_PAIR_DRAFT ? "draft" : "target", pair->target_shape,
             tensor_type_info(pair->target_type)->name, pair->draft_shape,
             tensor_type_info(pair->draft_type)->name, (unsigned long long)pair->seed);
    line(user, "synthetic pair", value);
    snprintf(value, sizeof value,
             "the draft agrees after %g of the ids; elsewhere the true token has rank r, P(r > F) = F^-%g up "
             "to %d; the top token has probability %g at temperature 1",
             pair->agree, pair->tail, pair->max_rank, pair->peak);
    line(user, "planted", value);
}

static void synth_describe(const struct model_source *source,
                           void (*line)(void *user, const char *key, const char *value), void *user)
{
    const struct model_config *config = &source->config;
    const struct { const char *key; int64_t value; } NUMBERS[] = {
        { "layers", config->n_layers }, { "width", config->dim }, { "feed-forward width", config->ffn_dim },
        { "heads", config->n_heads }, { "KV heads", config->n_kv_heads },
        { "head dimension", config->head_dim }, { "experts", config->experts.n },
        { "experts of a row", config->experts.n_used }, { "vocabulary", config->n_vocab },
        { "context", config->context_len }, { "tensors", source->n_tensors },
    };
    line(user, "format", source->pair ? "synthetic pair: random layers, a planted text, no vocabulary"
                                      : "synthetic: random weights, no vocabulary");
    line(user, "name", config->name);
    line(user, "architecture", config->architecture);
    if (source->pair) {
        describe_pair(source->pair, line, user);
    }
    for (size_t i = 0; i < sizeof NUMBERS / sizeof NUMBERS[0]; i++) {
        char value[32];
        if (NUMBERS[i].value > 0) {
            snprintf(value, sizeof value, "%lld", (long long)NUMBERS[i].value);
            line(user, NUMBERS[i].key, value);
        }
    }
    line(user, "head", config->tied_head ? "tied to the embedding"
                       : source->pair    ? "separate, as in every pair"
                                         : "separate");
}

static const struct source_kind SYNTH_SOURCE = {
    .close = synth_close, .read = synth_read, .describe = synth_describe,
};

/* ---- the tensors ---- */

static void fill_name(const struct synth_spec *spec, struct model_config *config)
{
    char type[16];
    snprintf(type, sizeof type, "%s", tensor_type_info((uint32_t)spec->type)->name);
    snprintf(config->name, sizeof config->name, "synth %s%s %s seed %llu",
             !spec->is_pair ? "" : spec->pair.role == MODEL_PAIR_DRAFT ? "pair draft " : "pair target ",
             spec->shape.name, type, (unsigned long long)spec->seed);
    snprintf(config->architecture, sizeof config->architecture, "%s", spec->shape.architecture);
}

static void fill_config(const struct synth_spec *spec, struct model_config *config)
{
    const struct synth_shape *shape = &spec->shape;
    fill_name(spec, config);
    config->n_layers = shape->n_layers;
    config->dim = shape->dim;
    config->ffn_dim = shape->ffn_dim;
    config->n_heads = shape->n_heads;
    config->n_kv_heads = shape->n_kv_heads;
    config->head_dim = shape->head_dim;
    config->n_vocab = shape->n_vocab;
    config->context_len = shape->context;
    config->norm_eps = shape->norm_eps;
    config->rope.dims = shape->head_dim;
    config->rope.base = shape->rope_base;
    config->rope.factor = shape->llama3_factor > 0 ? shape->llama3_factor : 1.0;
    config->rope.low_freq_factor = 1.0;
    config->rope.high_freq_factor = 4.0;
    config->rope.original_context = 8192;
    config->experts.n = shape->experts.n;
    config->experts.n_used = shape->experts.n_used;
    config->experts.ffn_dim = shape->experts.ffn_dim;
    config->experts.normalised = shape->experts.n > 0;
    config->tied_head = shape->tied;
    config->permuted_qk = family_find(shape->architecture)->permuted_qk;
}

/* What a layer of a pair adds to the residual stream, twice over: a share of its size. */
static double layer_share(const struct synth_source *self)
{
    const double most = 0.01, all = 0.1 / sqrt(2.0 * self->base.config.n_layers);
    return most < all ? most : all;
}

static void fill_recipe(const struct synth_source *self, const struct family_tensor *tensor,
                        struct recipe *recipe, int64_t n_in)
{
    /* So large that deviations of a small share of it are normal numbers in the halves of blocks. */
    const double amplitude = 512.0;
    const bool vocabulary = tensor->role == ROLE_EMBED || tensor->role == ROLE_HEAD;
    recipe->how = tensor->role == ROLE_ROPE_FACTORS ? MAKE_FACTORS
                  : tensor->flags & FAMILY_VECTOR   ? MAKE_NORM
                                                    : MAKE_RANDOM;
    recipe->deviation = (vocabulary ? 2.5f : 1.0f) / sqrtf((float)n_in);
    if (!self->spec.is_pair) {
        return;
    }
    const double share = layer_share(self);
    if (tensor->role == ROLE_EMBED) {
        recipe->how = MAKE_CODES;
        recipe->deviation = (float)amplitude;
    } else if (tensor->role == ROLE_HEAD) {
        recipe->how = MAKE_HEAD;
    } else if (tensor->role == ROLE_OUT_NORM) {
        recipe->how = MAKE_SAME;
        recipe->deviation = synth_plant_gain(&self->plant, 2 * self->base.config.n_layers * share * share);
    } else if (tensor->role == ROLE_O) {
        recipe->deviation = (float)(amplitude * share) / sqrtf((float)n_in);
    } else if (tensor->role == ROLE_DOWN || tensor->role == ROLE_EXPERT_DOWN) {
        /* silu(g) u of unit g and u has a deviation of 0.6 */
        recipe->deviation = (float)(amplitude * share / 0.6) / sqrtf((float)n_in);
    }
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
    const bool stacked = (tensor->flags & FAMILY_STACKED) != 0;
    info->name = name;
    /* routers stay floats, as files have them */
    info->type = vector || tensor->role == ROLE_ROUTER ? TENSOR_F32 : (uint32_t)spec->type;
    info->n_dims = vector ? 1 : stacked ? 3 : 2;
    info->dims[0] = family_dim_value(config, tensor->n_in);
    info->dims[1] = family_dim_value(config, tensor->n_out);
    info->dims[2] = stacked ? config->experts.n : 1;
    info->bytes = source_row_bytes(info) * (uint64_t)source_n_rows(info);
    recipe->stream = rng_mix64(spec->seed ^ digest_bytes(name, strlen(name)));
    fill_recipe(self, tensor, recipe, info->dims[0]);
    self->base.total_bytes += info->bytes;
}

static enum status fill_tensors(struct synth_source *self)
{
    const struct synth_spec *spec = &self->spec;
    const struct family *family = family_find(self->base.config.architecture);
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

static enum status fill_source(struct synth_source *self)
{
    const struct synth_spec *spec = &self->spec;
    fill_config(spec, &self->base.config);
    if (spec->is_pair) {
        TRY(synth_plant_init(&self->plant, &spec->pair, spec->shape.n_vocab, spec->shape.dim));
        self->base.pair = &spec->pair;
    }
    return fill_tensors(self);
}

enum status synth_source_open(const char *name, struct model_source **out)
{
    struct synth_spec spec;
    TRY(synth_name_parse(name, &spec));
    struct synth_source *self = mem_alloc(1, sizeof *self);
    if (!self) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a synthetic model's tables");
    }
    self->base.kind = &SYNTH_SOURCE;
    self->spec = spec;
    snprintf(self->base.label, sizeof self->base.label, "%s", name);
    const enum status status = fill_source(self);
    if (status != STATUS_OK) {
        model_source_close(&self->base);
        return status;
    }
    *out = &self->base;
    return STATUS_OK;
}
