/* gguf_source: a GGUF file (or its bytes in memory) as a source.
 *
 * The header is read through a mapping, so that vocabularies need no copy of their text. Tensor rows
 * are read with pread: a file that is cut or on a failing disk while we read gives a sentence, not a
 * signal, and its pages never count as ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/config.h"

struct gguf_source {
    struct model_source base;
    struct gguf gguf;
    int fd;                    /* -1: bytes in memory */
    void *mapping;             /* of the whole file, or NULL */
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
        return status_fail(STATUS_INVALID, "%s: %s: expected %s[%" PRIu64 "], file has %s", gguf->label,
                           name, gguf_type_name(type_a), n, found);
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
            return status_fail(STATUS_INVALID, "%s: %s %" PRIu64 " has %" PRIu64
                               " bytes, expected at most %u", gguf->label, what, i, n_bytes, UINT16_MAX);
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
    const struct gguf_key *key = gguf_find(&self->gguf, name);
    if (!key) {
        return STATUS_OK;
    }
    if (key->type != GGUF_ARRAY || key->elem_type != GGUF_STRING || key->n > MAX_MERGES) {
        char found[64];
        gguf_type_text(key, found, sizeof found);
        return status_fail(STATUS_INVALID, "%s: %s: expected at most %d strings, file has %s",
                           self->gguf.label, name, MAX_MERGES, found);
    }
    TRY(read_texts(&self->gguf, key, "merge", &self->merges));
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
    const struct gguf *gguf = &self->gguf;
    const struct gguf_key *tokens = gguf_find(gguf, "tokenizer.ggml.tokens"), *scores, *classes;
    if (!tokens) {
        return STATUS_OK;
    }
    enum { MAX_TOKENS = 1 << 23 };
    if (tokens->type != GGUF_ARRAY || tokens->elem_type != GGUF_STRING || tokens->n < 1 ||
        tokens->n > MAX_TOKENS) {
        char found[64];
        gguf_type_text(tokens, found, sizeof found);
        return status_fail(STATUS_INVALID, "%s: tokenizer.ggml.tokens: expected 1 to %d strings, file has %s",
                           gguf->label, MAX_TOKENS, found);
    }
    TRY(find_per_token(gguf, "tokenizer.ggml.scores", GGUF_FLOAT32, GGUF_FLOAT32, tokens->n, &scores));
    TRY(find_per_token(gguf, "tokenizer.ggml.token_type", GGUF_INT32, GGUF_UINT32, tokens->n, &classes));
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
    gguf_deinit(&self->gguf);
    if (self->mapping) {
        munmap(self->mapping, self->gguf.n_bytes);
    }
    if (self->fd >= 0) {
        close(self->fd);
    }
}

static enum status gguf_source_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                                    int64_t n_rows, void *out)
{
    const struct gguf_source *self = (const struct gguf_source *)source;
    const struct model_tensor_info *info = &source->tensors[tensor_idx];
    const uint64_t row_bytes = source_row_bytes(info);
    uint64_t at = self->gguf.tensor_begin[tensor_idx] + (uint64_t)first_row * row_bytes;
    uint64_t left = (uint64_t)n_rows * row_bytes;
    if (self->fd < 0) {
        memcpy(out, self->gguf.bytes + at, left);
        return STATUS_OK;
    }
    unsigned char *to = out;
    while (left > 0) {
        const ssize_t got = pread(self->fd, to, left, (off_t)at);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return status_fail(STATUS_IO, "%s: cannot read %s at byte %" PRIu64 ": %s", source->label,
                               info->name, at, got == 0 ? "the file has become shorter" : strerror(errno));
        }
        to += got;
        at += (uint64_t)got;
        left -= (uint64_t)got;
    }
    return STATUS_OK;
}

static void gguf_source_describe(const struct model_source *source,
                                 void (*line)(void *user, const char *key, const char *value), void *user)
{
    const struct gguf_source *self = (const struct gguf_source *)source;
    char name[256], value[256];
    snprintf(value, sizeof value, "GGUF v%u, %u keys, %u tensors", self->gguf.version, self->gguf.n_keys,
             self->gguf.n_tensors);
    line(user, "format", value);
    for (uint32_t i = 0; i < self->gguf.n_keys; i++) {
        const struct gguf_key *key = &self->gguf.keys[i];
        gguf_copy_text((struct model_text){ key->name, key->name_len }, name, sizeof name);
        gguf_value_text(key, value, sizeof value);
        line(user, name, value);
    }
}

/* A small file may stay in the system's cache, so that the next start finds it there; one that takes
 * more than half of what is free would push out everything else. */
static void gguf_source_consumed(struct model_source *source)
{
    const struct gguf_source *self = (const struct gguf_source *)source;
    if (self->fd >= 0 && self->gguf.n_bytes > mem_available_bytes() / 2) {
        posix_fadvise(self->fd, 0, 0, POSIX_FADV_DONTNEED);
    }
}

static const struct source_kind GGUF_SOURCE = {
    .close = gguf_source_close,
    .read = gguf_source_read,
    .describe = gguf_source_describe,
    .consumed = gguf_source_consumed,
};

static enum status check_runnable(struct gguf_source *self)
{
    struct model_config *config = &self->base.config;
    TRY(config_from_gguf(&self->gguf, config));
    return family_check(&self->base, family_find(config->architecture));
}

static enum status finish_open(struct gguf_source *self, const void *bytes, uint64_t n_bytes)
{
    memcpy(self->gguf.label, self->base.label, sizeof self->gguf.label);
    TRY(gguf_parse(&self->gguf, bytes, n_bytes));
    self->base.gguf = &self->gguf;
    self->base.tensors = self->gguf.tensors;
    self->base.n_tensors = self->gguf.n_tensors;
    self->base.total_bytes = n_bytes;
    TRY(source_index_tensors(&self->base));
    TRY(read_vocab(self));
    return source_keep_check(&self->base, check_runnable(self));
}

static enum status gguf_source_create(const char *label, struct gguf_source **out)
{
    struct gguf_source *self = mem_alloc(1, sizeof *self);
    *out = self;
    if (!self) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a model file's tables");
    }
    self->base.kind = &GGUF_SOURCE;
    self->fd = -1;
    gguf_copy_text((struct model_text){ label, (uint32_t)strlen(label) }, self->base.label,
                   sizeof self->base.label);
    return STATUS_OK;
}

static enum status map_file(struct gguf_source *self, const char *path, uint64_t *n_bytes)
{
    struct stat info;
    self->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (self->fd < 0 || fstat(self->fd, &info) != 0) {
        return status_fail(STATUS_IO, "cannot open model file %s: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return status_fail(STATUS_UNSUPPORTED, "%s is %s; expected a GGUF file", path,
                           S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
    }
    if (info.st_size == 0) {
        return status_fail(STATUS_INVALID, "%s is empty; expected a GGUF file", path);
    }
    *n_bytes = (uint64_t)info.st_size;
    void *mapping = mmap(NULL, *n_bytes, PROT_READ, MAP_PRIVATE, self->fd, 0);
    if (mapping == MAP_FAILED) {
        return status_fail(STATUS_IO, "cannot map model file %s: %s", path, strerror(errno));
    }
    self->mapping = mapping;
    self->gguf.n_bytes = *n_bytes; /* for munmap, whatever parsing says */
    return STATUS_OK;
}

enum status gguf_source_open(const char *path, struct model_source **out)
{
    struct gguf_source *self;
    uint64_t n_bytes = 0;
    enum status status;
    TRY(gguf_source_create(path, &self));
    TRY_GOTO(map_file(self, path, &n_bytes), fail);
    TRY_GOTO(finish_open(self, self->mapping, n_bytes), fail);
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
    TRY_GOTO(finish_open(self, bytes, n_bytes), fail);
    *out = &self->base;
    return STATUS_OK;
fail:
    model_source_close(&self->base);
    return status;
}
