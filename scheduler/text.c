/* text: from a model's vocabulary to a tokenizer: the arrays of a GGUF file, or the files of a folder. */
#include "scheduler/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_MAX_BYTES = 256 << 20, FILE_PATH_CAP = 4096 };

/* ---- files ---- */
static enum status read_stream(FILE *file, const char *path, struct tokenizer_text *out)
{
    struct stat about;
    if (fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode) ||
        about.st_size > FILE_MAX_BYTES) {
        return status_fail(STATUS_INVALID, "%s: expected a file of at most %d MiB, found another",
                           path, FILE_MAX_BYTES >> 20);
    }
    const size_t n = (size_t)about.st_size;
    char *bytes = mem_alloc(n, 1);
    if (!bytes) {
        return status_fail(STATUS_NO_MEMORY, "%s: no memory for %zu bytes", path, n);
    }
    *out = (struct tokenizer_text){ bytes, (uint32_t)n };
    return fread(bytes, 1, n, file) == n
               ? STATUS_OK
               : status_fail(STATUS_IO, "cannot read %s: %s", path, strerror(errno));
}

/* Memory of *out is mem_free()d by the caller, after a failure too. A missing file that is not
 * required leaves it empty. */
enum need { FILE_OPTIONAL, FILE_REQUIRED };
static enum status read_file(const char *folder, const char *name, enum need need,
                             struct tokenizer_text *out)
{
    char path[FILE_PATH_CAP];
    *out = (struct tokenizer_text){ NULL, 0 };
    if (snprintf(path, sizeof path, "%s%s%s", folder, *name ? "/" : "", name) >= (int)sizeof path) {
        return status_fail(STATUS_INVALID, "expected a path below %d bytes, found '%.60s...'",
                           FILE_PATH_CAP, folder);
    }
    FILE *file = fopen(path, "rb");
    if (!file && need == FILE_OPTIONAL && errno == ENOENT) {
        return STATUS_OK;
    }
    if (!file) {
        return status_fail(STATUS_IO, "cannot open %s: %s", path, strerror(errno));
    }
    const enum status status = read_stream(file, path, out);
    fclose(file);
    return status;
}

static void drop_file(struct tokenizer_text text) { mem_free((void *)(uintptr_t)text.bytes); }

/* path: tokenizer.json itself when name is "", else the folder it lies in. */
static enum status open_files(const char *path, const char *name, struct tokenizer **out)
{
    struct tokenizer_files files = { .config = { NULL, 0 } };
    enum status status;
    TRY_GOTO(read_file(path, name, FILE_REQUIRED, &files.tokenizer), out);
    if (*name) {
        TRY_GOTO(read_file(path, "tokenizer_config.json", FILE_OPTIONAL, &files.config), out);
        TRY_GOTO(read_file(path, "chat_template.jinja", FILE_OPTIONAL, &files.chat_template), out);
    }
    status = tokenizer_create_json(&files, out);
out:
    drop_file(files.chat_template);
    drop_file(files.config);
    drop_file(files.tokenizer);
    return status;
}

/* ---- arrays ---- */

/* The two rooms' words for a run of bytes; neither may include the other. NULL when out of memory. */
static struct tokenizer_text *copy_texts(const struct model_text *from, int32_t n)
{
    struct tokenizer_text *texts = mem_alloc((size_t)n, sizeof *texts);
    for (int32_t i = 0; texts && i < n; i++) {
        texts[i] = (struct tokenizer_text){ from[i].bytes, from[i].n_bytes };
    }
    return texts;
}

static enum status open_vocab(const struct model_vocab *vocab, struct tokenizer **out)
{
    struct tokenizer_text *texts = copy_texts(vocab->tokens, vocab->n_tokens);
    struct tokenizer_text *merges = copy_texts(vocab->merges, vocab->n_merges);
    enum status status;
    if (!texts || !merges) {
        status = status_fail(STATUS_NO_MEMORY, "no memory for a vocabulary of %d tokens",
                             vocab->n_tokens);
        goto out;
    }
    const struct tokenizer_spec spec = {
        .kind = vocab->kind,
        .pre = vocab->pre,
        .tokens = texts,
        .scores = vocab->scores,
        .classes = vocab->classes,
        .merges = merges,
        .n_tokens = vocab->n_tokens,
        .n_merges = vocab->n_merges,
        .bos_id = vocab->bos_id,
        .eos_id = vocab->eos_id,
        .unk_id = vocab->unk_id,
        .pad_id = vocab->pad_id,
        .eot_id = vocab->eot_id,
        .add_bos = vocab->add_bos,
        .add_eos = vocab->add_eos,
        .add_space_prefix = vocab->add_space_prefix,
        .chat_template = { vocab->chat_template.bytes, vocab->chat_template.n_bytes },
    };
    status = tokenizer_create(&spec, out);
out:
    mem_free(merges);
    mem_free(texts);
    return status;
}

/* A model folder's tokenizer: it may be absent, and has no more tokens than the model has rows. */
static enum status open_folder(const struct model_source *source, struct tokenizer **out)
{
    const char *const folder = model_source_folder(source);
    const int32_t n_rows = model_source_config(source)->n_vocab;
    char path[FILE_PATH_CAP];
    struct stat about;
    if (snprintf(path, sizeof path, "%s/tokenizer.json", folder) < (int)sizeof path &&
        stat(path, &about) != 0) {
        return status_fail(STATUS_UNSUPPORTED,
                           "%s has no tokenizer.json: the model takes and gives ids only", folder);
    }
    TRY(open_files(folder, "tokenizer.json", out));
    if (model_source_check(source) == STATUS_OK && tokenizer_n_tokens(*out) > n_rows) {
        const int32_t n_tokens = tokenizer_n_tokens(*out);
        tokenizer_destroy(*out);
        *out = NULL;
        return status_fail(
            STATUS_INVALID,
            "%s: the vocabulary of %d tokens is larger than the embedding of %d rows", path,
            n_tokens, n_rows);
    }
    return STATUS_OK;
}

enum status text_open(const struct model_source *source, struct tokenizer **out)
{
    *out = NULL;
    if (model_source_folder(source)) {
        return open_folder(source, out);
    }
    const struct model_vocab *vocab = model_source_vocab(source);
    if (!vocab) {
        return status_fail(STATUS_UNSUPPORTED,
                           "the model has no vocabulary: it takes and gives ids only");
    }
    return open_vocab(vocab, out);
}

enum status text_open_path(const char *name, struct tokenizer **out)
{
    *out = NULL;
    struct stat about;
    const size_t n = strlen(name);
    if (stat(name, &about) == 0 && S_ISDIR(about.st_mode)) {
        return open_files(name, "tokenizer.json", out);
    }
    if (n > 5 && strcmp(name + n - 5, ".json") == 0) {
        return open_files(name, "", out);
    }
    struct model_source *source;
    TRY(model_source_open(name, &source));
    const enum status status = text_open(source, out);
    model_source_close(source);
    return status;
}

void text_close(struct tokenizer *tokenizer)
{
    tokenizer_destroy(tokenizer);
}

enum status text_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                        int flags, int32_t *ids, size_t cap, size_t *n_ids)
{
    return tokenizer_encode(tokenizer, text, n_bytes, flags, ids, cap, n_ids);
}

static enum status read_message(const struct td_message *message, struct chat_message *out)
{
    static const char *const roles[] = {
        [CHAT_SYSTEM] = "system", [CHAT_USER] = "user", [CHAT_ASSISTANT] = "assistant",
    };
    for (size_t i = 0; message->role && i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(message->role, roles[i]) == 0) {
            if (message->n_text > TOKENIZER_MAX_TEXT_BYTES) {
                return status_fail(STATUS_INVALID,
                                   "expected a message of at most %d bytes, found %zu",
                                   TOKENIZER_MAX_TEXT_BYTES, message->n_text);
            }
            *out = (struct chat_message){(enum chat_role)i,
                                         {message->text, (uint32_t)message->n_text}};
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_INVALID,
                       "expected the role of a message to be system, user or assistant, found "
                       "'%.40s'",
                       message->role ? message->role : "");
}

enum status text_encode_chat(const struct tokenizer *tokenizer, const struct td_chat *chat,
                             int32_t *ids, size_t cap, size_t *n_ids, int32_t *end_id)
{
    enum chat_format format;
    *n_ids = 0;
    TRY(tokenizer_chat_format(tokenizer, chat->format, &format));
    struct chat_message *messages = mem_alloc(chat->n_messages, sizeof *messages);
    enum status status =
        messages ? STATUS_OK
                 : status_fail(STATUS_NO_MEMORY, "no memory for %zu messages", chat->n_messages);
    for (size_t i = 0; status == STATUS_OK && i < chat->n_messages; i++) {
        status = read_message(&chat->messages[i], &messages[i]);
    }
    if (status == STATUS_OK) {
        status =
            tokenizer_encode_chat(tokenizer, format, messages, chat->n_messages, ids, cap, n_ids);
        *end_id = tokenizer_chat_end(tokenizer, format);
    }
    mem_free(messages);
    return status;
}

uint64_t text_digest(const struct tokenizer *tokenizer)
{
    return tokenizer_digest(tokenizer);
}

size_t text_push_cap(const struct tokenizer *tokenizer)
{
    return detokenizer_push_cap(tokenizer);
}

void text_stream_begin(struct detokenizer *stream, const struct tokenizer *tokenizer, bool at_start)
{
    detokenizer_init(stream, tokenizer, at_start);
}

size_t text_stream_push(struct detokenizer *stream, int32_t id, char *out, size_t cap)
{
    return detokenizer_push(stream, id, out, cap);
}

size_t text_stream_finish(struct detokenizer *stream, char *out, size_t cap)
{
    return detokenizer_finish(stream, out, cap);
}

/* ---- two vocabularies ---- */
static bool same_piece(const struct tokenizer *a, const struct tokenizer *b, int32_t id)
{
    const bool control = tokenizer_is_control(a, id);
    if (control || tokenizer_is_control(b, id)) {
        return control == tokenizer_is_control(b, id);
    }
    const struct tokenizer_text x = tokenizer_piece(a, id, true), y = tokenizer_piece(b, id, true);
    return x.n_bytes == y.n_bytes && (x.n_bytes == 0 || memcmp(x.bytes, y.bytes, x.n_bytes) == 0);
}

enum status text_compare(const struct tokenizer *target, const struct tokenizer *draft, int32_t *n_common)
{
    const int32_t n_target = tokenizer_n_tokens(target), n_draft = tokenizer_n_tokens(draft);
    *n_common = n_target < n_draft ? n_target : n_draft;
    for (int32_t id = 0; id < *n_common; id++) {
        if (!same_piece(target, draft, id)) {
            const struct tokenizer_text x = tokenizer_piece(target, id, true);
            const struct tokenizer_text y = tokenizer_piece(draft, id, true);
            return status_fail(STATUS_INVALID, "the draft has another vocabulary: id %d is '%.*s' to the target "
                               "and '%.*s' to the draft (fingerprints %016llx and %016llx)", id,
                               (int)(x.n_bytes < 40 ? x.n_bytes : 40), x.bytes,
                               (int)(y.n_bytes < 40 ? y.n_bytes : 40), y.bytes,
                               (unsigned long long)tokenizer_digest(target),
                               (unsigned long long)tokenizer_digest(draft));
        }
    }
    return STATUS_OK;
}
