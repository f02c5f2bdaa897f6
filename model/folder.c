/* folder: a Hugging Face model folder as a source: config.json, safetensors files, and what
 * generation_config.json adds. Tensors appear under the names of the table; experts, which the files
 * hold one by one, as one stacked tensor whose rows are read from where each expert lies.
 *
 * Llama 3's RoPE scaling is carried as GGUF files carry it, as a tensor of factors, so that a folder
 * and the file made of it are one model.
 */
#include <stdio.h>
#include <string.h>

#include "model/file.h"
#include "model/folder_config.h"
#include "model/folder_files.h"
#include "model/folder_names.h"
#include "model/rope.h"

enum { FACTORS = -2 }; /* a part that is made, not read */

struct folder_source {
    struct model_source base;
    char path[FOLDER_PATH_CAP];
    json_t *config, *generation;    /* generation: NULL where there is none */
    struct folder_files files;
    char (*names)[SOURCE_NAME_CAP]; /* [n_tensors] */
    /* tensor t's rows are those of parts first_part[t] .., each the same number of rows */
    int64_t *first_part;            /* [n_tensors] */
    int64_t *part_rows;             /* [n_tensors] */
    int64_t *parts;                 /* [n_parts] indices into files, or FACTORS */
    int64_t n_parts, cap_tensors;
    unsigned char *used;            /* [files.n_tensors] */
    float factors[MODEL_MAX_ROPE_PAIRS];
};

/* ---- the kind ---- */

static void folder_close(struct model_source *source)
{
    struct folder_source *self = (struct folder_source *)source;
    mem_free(self->used);
    mem_free(self->parts);
    mem_free(self->part_rows);
    mem_free(self->first_part);
    mem_free(self->names);
    mem_free(source->tensors);
    folder_files_close(&self->files);
    json_decref(self->generation);
    json_decref(self->config);
}

static enum status read_part(const struct folder_source *self, int64_t part, uint64_t at,
                             uint64_t n_bytes, void *out)
{
    if (self->parts[part] == FACTORS) {
        memcpy(out, (const unsigned char *)self->factors + at, n_bytes);
        return STATUS_OK;
    }
    const struct folder_place *place = &self->files.places[self->parts[part]];
    const struct safetensors *file = &self->files.files[place->file];
    const struct safetensor *tensor = &file->tensors[place->tensor];
    return file_read_all(file->fd, file->label, tensor->name, tensor->begin + at, n_bytes, out);
}

static enum status folder_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                               int64_t n_rows, void *out)
{
    const struct folder_source *self = (const struct folder_source *)source;
    const uint64_t row_bytes = source_row_bytes(&source->tensors[tensor_idx]);
    const int64_t part_rows = self->part_rows[tensor_idx];
    unsigned char *to = out;
    while (n_rows > 0) {
        const int64_t row = first_row % part_rows, left = part_rows - row,
                      n = n_rows < left ? n_rows : left;
        TRY(read_part(self, self->first_part[tensor_idx] + first_row / part_rows,
                      (uint64_t)row * row_bytes, (uint64_t)n * row_bytes, to));
        to += (uint64_t)n * row_bytes;
        first_row += n;
        n_rows -= n;
    }
    return STATUS_OK;
}

static void describe_json(const json_t *object, const char *prefix,
                          void (*line)(void *user, const char *key, const char *value), void *user)
{
    const char *key;
    json_t *value;
    char name[256], text[256], shown[256];
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        folder_json_value_text(value, text, sizeof text);
        gguf_copy_text((struct model_text){ key, (uint32_t)strlen(key) }, name, sizeof name);
        snprintf(shown, sizeof shown, "%s%.200s", prefix, name);
        line(user, shown, text);
    }
}

static void folder_describe(const struct model_source *source,
                            void (*line)(void *user, const char *key, const char *value),
                            void *user)
{
    const struct folder_source *self = (const struct folder_source *)source;
    char value[128];
    snprintf(value, sizeof value, "Hugging Face folder, %lld tensors in %d safetensors file%s",
             (long long)self->files.n_tensors, self->files.n_files,
             self->files.n_files == 1 ? "" : "s");
    line(user, "format", value);
    describe_json(self->config, "config.", line, user);
    describe_json(self->generation, "generation_config.", line, user);
}

static void folder_name_shown(const struct model_source *source, const char *name, char *shown)
{
    folder_shown_name(&source->config, name, shown);
}

static void folder_consumed(struct model_source *source)
{
    const struct folder_source *self = (const struct folder_source *)source;
    for (int32_t f = 0; f < self->files.n_files; f++) {
        file_consumed(self->files.files[f].fd, source->total_bytes);
    }
}

static const struct source_kind FOLDER_SOURCE = {
    .close = folder_close, .read = folder_read, .describe = folder_describe,
    .shown_name = folder_name_shown, .consumed = folder_consumed,
};

/* ---- the tensors ---- */

static enum status take_tables(struct folder_source *self)
{
    const int64_t n = self->files.n_tensors + 1; /* one may be made: RoPE's factors */
    const size_t cap = (size_t)n;
    self->cap_tensors = n;
    self->base.tensors = mem_alloc(cap, sizeof *self->base.tensors);
    self->names = mem_alloc(cap, sizeof *self->names);
    self->first_part = mem_alloc(cap, sizeof *self->first_part);
    self->part_rows = mem_alloc(cap, sizeof *self->part_rows);
    self->parts = mem_alloc(cap, sizeof *self->parts);
    self->used = mem_alloc(cap, 1);
    if (!self->base.tensors || !self->names || !self->first_part || !self->part_rows ||
        !self->parts || !self->used) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a table of %lld tensors", (long long)n);
    }
    return STATUS_OK;
}

/* A tensor under this name, as wide and high as `shape`; its parts follow. */
static struct model_tensor_info *add_tensor(struct folder_source *self, const char *name,
                                            const struct safetensor *shape)
{
    const int64_t idx = self->base.n_tensors++;
    struct model_tensor_info *info = &self->base.tensors[idx];
    ASSERT(idx < self->cap_tensors);
    snprintf(self->names[idx], SOURCE_NAME_CAP, "%s", name);
    *info = (struct model_tensor_info){ .name = self->names[idx], .type = (uint32_t)shape->type,
                                        .n_dims = shape->n_dims };
    memcpy(info->dims, shape->dims, sizeof info->dims);
    info->bytes = source_row_bytes(info) * (uint64_t)source_n_rows(info);
    self->first_part[idx] = self->n_parts;
    self->part_rows[idx] = source_n_rows(info);
    return info;
}

static void add_part(struct folder_source *self, int64_t file_tensor)
{
    self->parts[self->n_parts++] = file_tensor;
    if (file_tensor >= 0) {
        self->used[file_tensor] = 1;
        self->base.total_bytes += folder_files_tensor(&self->files, file_tensor)->bytes;
    }
}

/* The matrices of all experts, as one tensor with a dimension more. */
static enum status add_stacked(struct folder_source *self, const struct family_tensor *tensor,
                               int32_t layer, const char *name)
{
    const struct model_config *config = &self->base.config;
    const struct safetensor *first = NULL;
    struct model_tensor_info *info = NULL;
    char theirs[SOURCE_NAME_CAP];
    for (int32_t expert = 0; expert < config->experts.n; expert++) {
        folder_name_of(config, tensor->role, layer, expert, theirs);
        const int64_t at = folder_files_find(&self->files, theirs);
        if (at < 0) {
            return status_fail(STATUS_INVALID, "%s: tensor %s is missing", self->base.label,
                               theirs);
        }
        const struct safetensor *found = folder_files_tensor(&self->files, at);
        if (!first) {
            first = found;
            info = add_tensor(self, name, found);
        }
        if (found->n_dims != 2 || found->type != first->type ||
            memcmp(found->dims, first->dims, 2 * sizeof found->dims[0]) != 0) {
            return status_fail(STATUS_INVALID,
                               "%s: %s: expected a matrix of the shape and dtype of %s",
                               self->base.label, theirs, first->name);
        }
        add_part(self, at);
    }
    info->n_dims = 3;
    info->dims[2] = config->experts.n;
    info->bytes *= (uint64_t)config->experts.n;
    return STATUS_OK;
}

static enum status add_needed(struct folder_source *self, const struct family_tensor *tensor,
                              int32_t layer)
{
    char ours[FAMILY_NAME_CAP], theirs[SOURCE_NAME_CAP];
    family_tensor_name(tensor, layer, ours);
    if (tensor->flags & FAMILY_STACKED) {
        return add_stacked(self, tensor, layer, ours);
    }
    if (!folder_name_of(&self->base.config, tensor->role, layer, 0, theirs)) {
        return STATUS_OK;
    }
    const int64_t at = folder_files_find(&self->files, theirs);
    if (at < 0) {
        return STATUS_OK; /* the comparison with the family says what is missing */
    }
    if (tensor->role == ROLE_HEAD && self->base.config.tied_head) {
        self->used[at] = 1; /* a copy of the embedding */
        return STATUS_OK;
    }
    add_tensor(self, ours, folder_files_tensor(&self->files, at));
    add_part(self, at);
    return STATUS_OK;
}

/* Buffers that old files saved along; they follow from the config. */
static bool is_derived(const char *name)
{
    static const char suffix[] = ".rotary_emb.inv_freq";
    const size_t n = strlen(name), n_suffix = sizeof suffix - 1;
    return n > n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

static void add_factors(struct folder_source *self)
{
    struct model_config *config = &self->base.config;
    const struct safetensor shape = { .type = TENSOR_F32,
                                      .n_dims = 1,
                                      .dims = { config->rope.dims / 2 } };
    if (config->rope.scaling != ROPE_SCALING_LLAMA3) {
        return;
    }
    rope_llama3_factors(config, self->factors);
    config->rope.scaling = ROPE_SCALING_NONE;
    config->rope.factor = 1.0;
    self->base.total_bytes += add_tensor(self, "rope_freqs.weight", &shape)->bytes;
    add_part(self, FACTORS);
}

static enum status add_all(struct folder_source *self, const struct family *family)
{
    const struct model_config *config = &self->base.config;
    for (int32_t layer = -1; layer < config->n_layers; layer++) {
        for (int32_t i = 0; i < FAMILY_N_TENSORS; i++) {
            const struct family_tensor *tensor = &FAMILY_TENSORS[i];
            if ((tensor->role >= ROLE_ATTN_NORM) == (layer >= 0) &&
                family_needs(family, config, tensor)) {
                TRY(add_needed(self, tensor, layer));
            }
        }
    }
    add_factors(self);
    return STATUS_OK;
}

/* What nothing asked for stays visible under its own name. */
static void add_rest(struct folder_source *self)
{
    for (int64_t i = 0; i < self->files.n_tensors; i++) {
        const struct safetensor *tensor = folder_files_tensor(&self->files, i);
        if (!self->used[i] && !is_derived(tensor->name)) {
            add_tensor(self, tensor->name, tensor);
            add_part(self, i);
        }
    }
}

/* ---- whether it can be run ---- */

/* Matrices are all of one dtype. Vectors (norms, biases) may be F32 beside them, as many programs keep
 * them: every value of the matrices' dtype is one of F32, so nothing depends on which it is. */
static enum status check_one_dtype(const struct folder_source *self)
{
    const struct safetensor *first = NULL;
    for (int64_t i = 0; i < self->files.n_tensors && !first; i++) {
        const struct safetensor *tensor = folder_files_tensor(&self->files, i);
        first = tensor->n_dims > 1 && !is_derived(tensor->name) ? tensor : NULL;
    }
    for (int64_t i = 0; i < self->files.n_tensors && first; i++) {
        const struct safetensor *tensor = folder_files_tensor(&self->files, i);
        const bool is_wide_vector = tensor->n_dims == 1 && tensor->type == TENSOR_F32;
        if (tensor->type != first->type && !is_wide_vector && !is_derived(tensor->name)) {
            return status_fail(STATUS_INVALID, "%s: two dtypes: %s is %s, %s is %s",
                               self->base.label, first->name,
                               tensor_type_info((uint32_t)first->type)->name, tensor->name,
                               tensor_type_info((uint32_t)tensor->type)->name);
        }
    }
    return STATUS_OK;
}

static enum status check_vocab(const struct folder_source *self)
{
    const struct model_config *config = &self->base.config;
    char name[SOURCE_NAME_CAP];
    folder_name_of(config, ROLE_EMBED, -1, 0, name);
    const int64_t at = folder_files_find(&self->files, name);
    if (at >= 0) {
        const struct safetensor *embed = folder_files_tensor(&self->files, at);
        if (embed->n_dims == 2 && config->n_vocab > embed->dims[1]) {
            return status_fail(STATUS_INVALID,
                               "%s: vocab_size %d is larger than the embedding: %s has %lld rows",
                               self->base.label, config->n_vocab, name, (long long)embed->dims[1]);
        }
    }
    folder_name_of(config, ROLE_HEAD, -1, 0, name);
    if (!config->tied_head && folder_files_find(&self->files, name) < 0) {
        return status_fail(STATUS_INVALID, "%s: tie_word_embeddings is false, and %s is missing",
                           self->base.label, name);
    }
    return STATUS_OK;
}

static enum status check_runnable(struct folder_source *self, enum status config_status)
{
    const struct family *family = family_find(self->base.config.architecture);
    if (config_status != STATUS_OK) {
        return config_status;
    }
    TRY(check_vocab(self));
    TRY(check_one_dtype(self));
    TRY(add_all(self, family));
    return STATUS_OK;
}

/* ---- open ---- */

static enum status read_config(struct folder_source *self)
{
    struct model_config *config = &self->base.config;
    char path[FOLDER_PATH_CAP];
    TRY(folder_config_read(self->base.label, self->config, config));
    TRY(folder_path(self->path, "generation_config.json", path));
    TRY(folder_json_read_file(path, &self->generation));
    if (self->generation) {
        TRY(folder_config_eos(self->base.label, self->generation, config));
        TRY(folder_config_hints(self->base.label, self->generation, &self->base.hints));
        self->base.has_hints = true;
    }
    return STATUS_OK;
}

/* Without slashes at its end. */
static enum status set_path(struct folder_source *self, const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    if (n >= sizeof self->path) {
        return status_fail(STATUS_INVALID, "a path of %zu characters, expected at most %zu", n,
                           sizeof self->path - 1);
    }
    memcpy(self->path, path, n);
    self->path[n] = '\0';
    return STATUS_OK;
}

static void set_name(struct folder_source *self)
{
    const char *slash = strrchr(self->path, '/');
    const char *name = slash && slash[1] ? slash + 1 : self->path;
    gguf_copy_text((struct model_text){ name, (uint32_t)strlen(name) }, self->base.config.name,
                   sizeof self->base.config.name);
}

/* The structure first, which must be right; then what keeps it from running, which may be told later. */
static enum status open_folder(struct folder_source *self)
{
    char path[FOLDER_PATH_CAP];
    TRY(folder_path(self->path, "config.json", path));
    TRY(folder_json_read_file(path, &self->config));
    if (!self->config) {
        return status_fail(
            STATUS_UNSUPPORTED,
            "%s is a folder without config.json; expected a GGUF file or a folder with "
            "config.json and safetensors files",
            self->base.label);
    }
    TRY(folder_files_open(self->path, &self->files));
    TRY(take_tables(self));
    TRY(source_keep_check(&self->base, check_runnable(self, read_config(self))));
    set_name(self);
    add_rest(self);
    TRY(source_index_tensors(&self->base));
    if (self->base.check != STATUS_OK) {
        return STATUS_OK;
    }
    return source_keep_check(
        &self->base, family_check(&self->base, family_find(self->base.config.architecture)));
}

enum status folder_source_open(const char *path, struct model_source **out)
{
    struct folder_source *self = mem_alloc(1, sizeof *self);
    if (!self) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a model folder's tables");
    }
    self->base.kind = &FOLDER_SOURCE;
    self->base.folder = self->path;
    gguf_copy_text((struct model_text){ path, (uint32_t)strlen(path) }, self->base.label,
                   sizeof self->base.label);
    enum status status = set_path(self, path);
    if (status == STATUS_OK) {
        status = open_folder(self);
    }
    if (status != STATUS_OK) {
        model_source_close(&self->base);
        return status;
    }
    *out = &self->base;
    return STATUS_OK;
}
