/* gguf_source: a GGUF file, the files of a split one, or the bytes of a file, as a source. Keys and
 * vocabulary are those of the first file; tensors are those of all. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "model/config.h"
#include "model/gguf_file.h"
#include "model/hints.h"

struct gguf_source {
    struct model_source base;
    struct gguf_file *files;   /* [n_files] */
    int32_t n_files;
    struct gguf_split split;
    struct place { int32_t file; uint64_t begin; } *places; /* [n_tensors] */
    struct model_text *tokens; /* [n_tokens] and the arrays below, owned */
    struct model_text *merges; /* [n_merges] */
    float *scores;
    int32_t *classes;
    char kind[MODEL_NAME_CAP], pre[MODEL_NAME_CAP];
};

/* ---- vocabulary ---- */

/* An array of one of two element types with as many entries as there are tokens; NULL if absent. */
static enum status find_per_token(const struct gguf *gguf, const char *name, uint32_t type_a,
                                  uint32_t type_b, uint64_t n, const struct gguf_key **out)
{
    const struct gguf_key *key = gguf_find(gguf, name);
    *out = key;
    if (!key) {
        return STATUS_OK;
    }
    if (key->type != GGUF_ARRAY || (key->elem_type != type_a && key->elem_type != type_b) ||
        key->n != n) {
        char found[64];
        gguf_type_text(key, found, sizeof found);
        return status_fail(STATUS_INVALID, "%s: %s: expected %s[%" PRIu64 "], file has %s",
                           gguf->label, name, gguf_type_name(type_a), n, found);
    }
    return STATUS_OK;
}

/* An array of texts, which stay where they are; `what` names one of them in the sentence. */
static enum status read_texts(const struct gguf *gguf, const struct gguf_key *key, const char *what,
                              struct model_text **out)
{
    struct model_text *texts = mem_alloc(key->n, sizeof *texts);
    *out = texts;
    if (!texts) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %" PRIu64 " %ss", key->n, what);
    }
    const unsigned char *at = key->data;
    for (uint64_t i = 0; i < key->n; i++) {
        uint64_t n_bytes;
        memcpy(&n_bytes, at, sizeof n_bytes);
        if (n_bytes > UINT16_MAX) {
            return status_fail(STATUS_INVALID,
                               "%s: %s %" PRIu64 " has %" PRIu64 " bytes, expected at most %u",
                               gguf->label, what, i, n_bytes, UINT16_MAX);
        }
        texts[i] = (struct model_text){ (const char *)at + 8, (uint32_t)n_bytes };
        at += 8 + n_bytes;
    }
    return STATUS_OK;
}

static enum status read_merges(struct gguf_source *self)
{
    enum { MAX_MERGES = 1 << 24 };
    static const char name[] = "tokenizer.ggml.merges";
    const struct gguf_key *key = gguf_find(self->base.gguf, name);
    if (!key) {
        return STATUS_OK;
    }
    if (key->type != GGUF_ARRAY || key->elem_type != GGUF_STRING || key->n > MAX_MERGES) {
        char found[64];
        gguf_type_text(key, found, sizeof found);
        return status_fail(STATUS_INVALID, "%s: %s: expected at most %d strings, file has %s",
                           self->base.label, name, MAX_MERGES, found);
    }
    TRY(read_texts(self->base.gguf, key, "merge", &self->merges));
    self->base.vocab.merges = self->merges;
    self->base.vocab.n_merges = (int32_t)key->n;
    return STATUS_OK;
}

/* Copies a per-token array of 4-byte elements; the file does not align them. */
static enum status copy_words(const struct gguf_key *key, void **out)
{
    *out = NULL;
    if (key) {
        *out = mem_alloc(key->n, 4);
        if (!*out) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %" PRIu64 " token entries", key->n);
        }
        memcpy(*out, key->data, key->n * 4);
    }
    return STATUS_OK;
}

/* Files of this vocabulary mean a begin token without saying so. */
static bool is_llama3(const struct model_vocab *vocab)
{
    return strcmp(vocab->pre, "llama-bpe") == 0 || strcmp(vocab->pre, "llama3") == 0 ||
           strcmp(vocab->pre, "llama-v3") == 0;
}

static enum status read_ids(const struct gguf *gguf, struct model_vocab *vocab)
{
    /* What SentencePiece vocabularies mean when they do not say. */
    const bool spm = strcmp(vocab->kind, "llama") == 0;
    const struct { const char *key; int32_t *id; int32_t missing; } IDS[] = {
        { "tokenizer.ggml.bos_token_id", &vocab->bos_id, spm ? 1 : -1 },
        { "tokenizer.ggml.eos_token_id", &vocab->eos_id, spm ? 2 : -1 },
        { "tokenizer.ggml.unknown_token_id", &vocab->unk_id, spm ? 0 : -1 },
        { "tokenizer.ggml.padding_token_id", &vocab->pad_id, -1 },
        { "tokenizer.ggml.eot_token_id", &vocab->eot_id, -1 },
    };
    for (size_t i = 0; i < sizeof IDS / sizeof IDS[0]; i++) {
        int64_t id = IDS[i].missing < vocab->n_tokens ? IDS[i].missing : -1;
        TRY(gguf_read_int(gguf, IDS[i].key, (struct gguf_range){ 0, vocab->n_tokens - 1 }, &id));
        *IDS[i].id = (int32_t)id;
    }
    vocab->add_bos = spm || is_llama3(vocab);
    vocab->add_space_prefix = true;
    TRY(gguf_read_bool(gguf, "tokenizer.ggml.add_bos_token", &vocab->add_bos));
    TRY(gguf_read_bool(gguf, "tokenizer.ggml.add_eos_token", &vocab->add_eos));
    return gguf_read_bool(gguf, "tokenizer.ggml.add_space_prefix", &vocab->add_space_prefix);
}

static enum status read_vocab(struct gguf_source *self)
{
    const struct gguf *gguf = self->base.gguf;
    const struct gguf_key *tokens = gguf_find(gguf, "tokenizer.ggml.tokens"), *scores, *classes;
    if (!tokens) {
        return STATUS_OK;
    }
    enum { MAX_TOKENS = 1 << 23 };
    if (tokens->type != GGUF_ARRAY || tokens->elem_type != GGUF_STRING || tokens->n < 1 ||
        tokens->n > MAX_TOKENS) {
        char found[64];
        gguf_type_text(tokens, found, sizeof found);
        return status_fail(STATUS_INVALID,
                           "%s: tokenizer.ggml.tokens: expected 1 to %d strings, file has %s",
                           gguf->label, MAX_TOKENS, found);
    }
    TRY(find_per_token(gguf, "tokenizer.ggml.scores", GGUF_FLOAT32, GGUF_FLOAT32, tokens->n,
                       &scores));
    TRY(find_per_token(gguf, "tokenizer.ggml.token_type", GGUF_INT32, GGUF_UINT32, tokens->n,
                       &classes));
    TRY(read_texts(gguf, tokens, "token", &self->tokens));
    void *words;
    TRY(copy_words(scores, &words));
    self->scores = words;
    TRY(copy_words(classes, &words));
    self->classes = words;
    struct model_text kind = { "", 0 }, pre = { "", 0 };
    TRY(gguf_read_text(gguf, "tokenizer.ggml.model", &kind));
    TRY(gguf_read_text(gguf, "tokenizer.ggml.pre", &pre));
    gguf_copy_text(kind, self->kind, sizeof self->kind);
    gguf_copy_text(pre, self->pre, sizeof self->pre);
    self->base.vocab = (struct model_vocab){
        .kind = self->kind, .pre = self->pre, .tokens = self->tokens, .scores = self->scores,
        .classes = self->classes, .n_tokens = (int32_t)tokens->n,
    };
    self->base.has_vocab = true;
    TRY(read_merges(self));
    TRY(gguf_read_text(gguf, "tokenizer.chat_template", &self->base.vocab.chat_template));
    return read_ids(gguf, &self->base.vocab);
}

/* ---- the kind ---- */

static void gguf_source_close(struct model_source *source)
{
    struct gguf_source *self = (struct gguf_source *)source;
    mem_free(self->classes);
    mem_free(self->scores);
    mem_free(self->merges);
    mem_free(self->tokens);
    mem_free(self->places);
    mem_free(source->tensors);
    for (int32_t i = 0; i < self->n_files; i++) {
        gguf_file_close(&self->files[i]);
    }
    mem_free(self->files);
}

static enum status gguf_source_read(struct model_source *source, int64_t tensor_idx,
                                    int64_t first_row, int64_t n_rows, void *out)
{
    const struct gguf_source *self = (const struct gguf_source *)source;
    const struct place *place = &self->places[tensor_idx];
    const uint64_t row_bytes = source_row_bytes(&source->tensors[tensor_idx]);
    return gguf_file_read(&self->files[place->file], source->tensors[tensor_idx].name,
                          place->begin + (uint64_t)first_row * row_bytes,
                          (uint64_t)n_rows * row_bytes, out);
}

static void gguf_source_describe(const struct model_source *source,
                                 void (*line)(void *user, const char *key, const char *value),
                                 void *user)
{
    const struct gguf_source *self = (const struct gguf_source *)source;
    char name[256], value[256];
    const int n =
        snprintf(value, sizeof value, "GGUF v%u, %u keys, %lld tensors", source->gguf->version,
                 source->gguf->n_keys, (long long)source->n_tensors);
    if (self->n_files > 1) {
        snprintf(value + n, sizeof value - (size_t)n, " in %d files", self->n_files);
    }
    line(user, "format", value);
    for (uint32_t i = 0; i < source->gguf->n_keys; i++) {
        const struct gguf_key *key = &source->gguf->keys[i];
        gguf_copy_text((struct model_text){ key->name, key->name_len }, name, sizeof name);
        gguf_value_text(key, value, sizeof value);
        line(user, name, value);
    }
}

static void gguf_source_consumed(struct model_source *source)
{
    const struct gguf_source *self = (const struct gguf_source *)source;
    for (int32_t i = 0; i < self->n_files; i++) {
        file_consumed(self->files[i].fd, source->total_bytes);
    }
}

static const struct source_kind GGUF_SOURCE = {
    .close = gguf_source_close,
    .read = gguf_source_read,
    .describe = gguf_source_describe,
    .consumed = gguf_source_consumed,
};

/* ---- open ---- */

static enum status check_runnable(struct gguf_source *self)
{
    struct model_config *config = &self->base.config;
    if (self->split.count > self->n_files) {
        return status_fail(
            STATUS_UNSUPPORTED,
            "%s: one of %d files that belong together; only by its path can it find the others",
            self->base.label, self->split.count);
    }
    TRY(hints_from_gguf(self->base.gguf, &self->base.hints));
    self->base.has_hints = true;
    TRY(config_from_gguf(self->base.gguf, &self->base, config));
    return family_check(&self->base, family_find(config->architecture));
}

/* The tables of all files in one. */
static enum status join_tensors(struct gguf_source *self)
{
    struct model_source *base = &self->base;
    size_t n = 0;
    for (int32_t f = 0; f < self->n_files; f++) {
        n += self->files[f].gguf.n_tensors;
    }
    base->tensors = mem_alloc(n, sizeof *base->tensors);
    self->places = mem_alloc(n, sizeof *self->places);
    if (!base->tensors || !self->places) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a table of %zu tensors", n);
    }
    for (int32_t f = 0; f < self->n_files; f++) {
        const struct gguf *gguf = &self->files[f].gguf;
        base->total_bytes += gguf->n_bytes;
        for (uint32_t i = 0; i < gguf->n_tensors; i++) {
            base->tensors[base->n_tensors] = gguf->tensors[i];
            self->places[base->n_tensors++] = (struct place){ f, gguf->tensor_begin[i] };
        }
    }
    if (self->n_files > 1 && self->split.n_tensors >= 0 &&
        self->split.n_tensors != base->n_tensors) {
        return status_fail(
            STATUS_INVALID,
            "%s: split.tensors.count: the %d files hold %lld tensors, the key says %lld",
            base->label, self->n_files, (long long)base->n_tensors,
            (long long)self->split.n_tensors);
    }
    return source_index_tensors(base);
}

static enum status finish_open(struct gguf_source *self)
{
    self->base.gguf = &self->files[0].gguf;
    TRY(join_tensors(self));
    TRY(read_vocab(self));
    return source_keep_check(&self->base, check_runnable(self));
}

static enum status open_part(struct gguf_source *self, const char *first_path, int32_t no)
{
    char path[4096];
    struct gguf_split split;
    TRY(gguf_split_path(first_path, &self->split, no, path, sizeof path));
    TRY(gguf_file_open(path, &self->files[self->n_files++]));
    TRY(gguf_split_read(&self->files[no].gguf, &split));
    if (split.no != no || split.count != self->split.count) {
        return status_fail(STATUS_INVALID, "%s: expected part %d of %d, file says part %d of %d",
                           self->files[no].gguf.label, no + 1, self->split.count, split.no + 1,
                           split.count);
    }
    return STATUS_OK;
}

/* The first file is open: the others, if it is one of several. */
static enum status open_parts(struct gguf_source *self, const char *path)
{
    if (self->split.count == 1) {
        return STATUS_OK;
    }
    if (self->split.no != 0) {
        return status_fail(STATUS_UNSUPPORTED,
                           "%s is part %d of %d; open the first part, which names the rest",
                           self->base.label, self->split.no + 1, self->split.count);
    }
    struct gguf_file *files = mem_realloc(self->files, (size_t)self->split.count, sizeof *files);
    if (!files) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a table of %d files",
                           self->split.count);
    }
    self->files = files;
    for (int32_t no = 1; no < self->split.count; no++) {
        TRY(open_part(self, path, no));
    }
    return STATUS_OK;
}

static enum status gguf_source_create(const char *label, struct gguf_source **out)
{
    struct gguf_source *self = mem_alloc(1, sizeof *self);
    struct gguf_file *files = mem_alloc(1, sizeof *files);
    *out = self;
    if (!self || !files) {
        mem_free(files);
        mem_free(self);
        return status_fail(STATUS_NO_MEMORY, "no memory for a model file's tables");
    }
    self->base.kind = &GGUF_SOURCE;
    self->files = files;
    gguf_copy_text((struct model_text){ label, (uint32_t)strlen(label) }, self->base.label,
                   sizeof self->base.label);
    return STATUS_OK;
}

enum status gguf_source_open(const char *path, struct model_source **out)
{
    struct gguf_source *self;
    enum status status;
    TRY(gguf_source_create(path, &self));
    self->n_files = 1;
    TRY_GOTO(gguf_file_open(path, &self->files[0]), fail);
    TRY_GOTO(gguf_split_read(&self->files[0].gguf, &self->split), fail);
    TRY_GOTO(open_parts(self, path), fail);
    TRY_GOTO(finish_open(self), fail);
    *out = &self->base;
    return STATUS_OK;
fail:
    model_source_close(&self->base);
    return status;
}

enum status gguf_source_open_bytes(const void *bytes, size_t n_bytes, struct model_source **out)
{
    struct gguf_source *self;
    enum status status;
    TRY(gguf_source_create("model bytes", &self));
    self->n_files = 1;
    TRY_GOTO(gguf_file_open_bytes(self->base.label, bytes, n_bytes, &self->files[0]), fail);
    TRY_GOTO(gguf_split_read(&self->files[0].gguf, &self->split), fail);
    TRY_GOTO(finish_open(self), fail);
    *out = &self->base;
    return STATUS_OK;
fail:
    model_source_close(&self->base);
    return status;
}
