/* folder_vocab: see the header. Byte-level BPE becomes kind "gpt2" with the name of its pattern;
 * BPE over characters with byte fallback becomes kind "llama", where a token's score is the rank of
 * the merge that makes it. Anything else is refused rather than written as something near it.
 */
#include "cli/folder_vocab.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tokenizer/tokenizer.h"

enum { FOLDER_PATH_CAP = 4096, MAX_JSON_BYTES = 256 << 20, MAX_TEMPLATE_BYTES = 1 << 20, FILLER_BYTES = 16 };

#define GPT4_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define GPT4_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* ---- files ---- */

static enum status path_of(const char *folder, const char *name, char path[FOLDER_PATH_CAP])
{
    return snprintf(path, FOLDER_PATH_CAP, "%s/%s", folder, name) < FOLDER_PATH_CAP
               ? STATUS_OK
               : status_fail(STATUS_INVALID, "a path of more than %d bytes", FOLDER_PATH_CAP - 1);
}

/* *out NULL when the file is not there and need not be. */
static enum status load_json(const char *folder, const char *name, json_t **out)
{
    char path[FOLDER_PATH_CAP];
    json_error_t error;
    *out = NULL;
    TRY(path_of(folder, name, path));
    if (access(path, F_OK) != 0) {
        return STATUS_OK;
    }
    FILE *file = fopen(path, "rb");
    if (!file) {
        return status_fail(STATUS_IO, "cannot open %s: %s", path, strerror(errno));
    }
    fseek(file, 0, SEEK_END);
    const long n_bytes = ftell(file);
    rewind(file);
    if (n_bytes >= 0 && n_bytes <= MAX_JSON_BYTES) {
        *out = json_loadf(file, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    } else {
        snprintf(error.text, sizeof error.text, "%ld bytes, expected at most %d", n_bytes, MAX_JSON_BYTES);
        error.line = 0;
    }
    fclose(file);
    return json_is_object(*out) ? STATUS_OK
                                : status_fail(STATUS_INVALID, "%s: line %d: %s", path, *out ? 1 : error.line,
                                              *out ? "expected an object" : error.text);
}

/* chat_template.jinja; the template stays NULL when it is not there. */
static enum status load_template(struct folder_vocab *self, const char *folder)
{
    char path[FOLDER_PATH_CAP];
    TRY(path_of(folder, "chat_template.jinja", path));
    FILE *file = fopen(path, "rb");
    if (!file) {
        return errno == ENOENT ? STATUS_OK : status_fail(STATUS_IO, "cannot open %s: %s", path, strerror(errno));
    }
    self->template_bytes = mem_alloc(MAX_TEMPLATE_BYTES + 1, 1);
    const size_t n = self->template_bytes ? fread(self->template_bytes, 1, MAX_TEMPLATE_BYTES + 1, file) : 0;
    const int failed = ferror(file);
    fclose(file);
    if (!self->template_bytes) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %s", path);
    }
    if (failed || n > MAX_TEMPLATE_BYTES) {
        return status_fail(STATUS_INVALID, "%s: expected a file of at most %d bytes", path, MAX_TEMPLATE_BYTES);
    }
    self->template = (struct model_text){ self->template_bytes, (uint32_t)n };
    return STATUS_OK;
}

static struct model_text text_of(const json_t *string)
{
    return (struct model_text){ json_string_value(string), (uint32_t)json_string_length(string) };
}

static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

/* The step of that type: the object itself, or an entry of the Sequence it is. */
static const json_t *find_step(const json_t *object, const char *list, const char *type)
{
    const json_t *steps = json_object_get(object, list);
    size_t i;
    const json_t *step;
    if (strcmp(type_of(object), type) == 0) {
        return object;
    }
    json_array_foreach(steps, i, step) {
        if (strcmp(type_of(step), type) == 0) {
            return step;
        }
    }
    return NULL;
}

/* ---- kind ---- */

/* GGUF's name for the way text is cut; NULL when there is none. */
static const char *find_pre(const json_t *tokenizer)
{
    const json_t *pre = json_object_get(tokenizer, "pre_tokenizer");
    const json_t *normalizer = json_object_get(tokenizer, "normalizer");
    const json_t *split = find_step(pre, "pretokenizers", "Split");
    const json_t *digits = find_step(pre, "pretokenizers", "Digits");
    const int is_nfc = strcmp(type_of(normalizer), "NFC") == 0;
    if ((normalizer && !json_is_null(normalizer) && !is_nfc) || !find_step(pre, "pretokenizers", "ByteLevel")) {
        return NULL;
    }
    if (!split) {
        return is_nfc ? NULL : digits ? "smollm" : "gpt-2";
    }
    const char *pattern = json_string_value(json_object_get(json_object_get(split, "pattern"), "Regex"));
    if (pattern && strcmp(pattern, GPT4_HEAD "\\p{N}{1,3}" GPT4_TAIL) == 0 && !is_nfc) {
        return json_is_true(json_object_get(json_object_get(tokenizer, "model"), "ignore_merges")) ? "llama-bpe"
                                                                                                   : "dbrx";
    }
    if (pattern && strcmp(pattern, GPT4_HEAD "\\p{N}" GPT4_TAIL) == 0) {
        return is_nfc ? "qwen2" : "stablelm2";
    }
    return NULL;
}

static enum status find_kind(struct folder_vocab *self)
{
    const json_t *model = json_object_get(self->tokenizer, "model");
    if (strcmp(type_of(model), "BPE") != 0) {
        return status_fail(STATUS_UNSUPPORTED, "tokenizer.json: model '%.40s' has no GGUF form here; BPE has",
                           type_of(model));
    }
    self->vocab.pre = "";
    if (json_is_true(json_object_get(model, "byte_fallback"))) {
        self->vocab.kind = "llama";
        self->vocab.add_space_prefix =
            find_step(json_object_get(self->tokenizer, "normalizer"), "normalizers", "Prepend") ||
            find_step(json_object_get(self->tokenizer, "pre_tokenizer"), "pretokenizers", "Metaspace");
        return STATUS_OK;
    }
    self->vocab.kind = "gpt2";
    self->vocab.pre = find_pre(self->tokenizer);
    if (!self->vocab.pre) {
        return status_fail(STATUS_UNSUPPORTED, "tokenizer.json cuts or normalizes text in a way that GGUF files "
                           "have no name for");
    }
    return STATUS_OK;
}

/* ---- tokens ---- */

static enum status put_token(struct folder_vocab *self, struct model_text text, const json_t *id_value,
                             int32_t token_class)
{
    const json_int_t id = json_is_integer(id_value) ? json_integer_value(id_value) : -1;
    if (id < 0 || id >= self->vocab.n_tokens) {
        return status_fail(STATUS_INVALID, "tokenizer.json: '%.40s' has id %lld, the model has %d tokens",
                           text.bytes ? text.bytes : "", (long long)id, self->vocab.n_tokens);
    }
    self->tokens[id] = text;
    if (self->classes[id] != TOKEN_BYTE) { /* added again as special, it still stands for its byte */
        self->classes[id] = token_class;
    }
    return STATUS_OK;
}

static int is_byte_token(const char *text)
{
    return strlen(text) == 6 && strncmp(text, "<0x", 3) == 0 && text[5] == '>';
}

static enum status put_tokens(struct folder_vocab *self)
{
    json_t *model = json_object_get(self->tokenizer, "model"), *id;
    const json_t *added;
    const char *text, *unknown = json_string_value(json_object_get(model, "unk_token"));
    const int bytes = strcmp(self->vocab.kind, "llama") == 0;
    size_t i;
    json_object_foreach(json_object_get(model, "vocab"), text, id) {
        TRY(put_token(self, (struct model_text){ text, (uint32_t)strlen(text) }, id,
                      bytes && is_byte_token(text) ? TOKEN_BYTE : TOKEN_NORMAL));
    }
    json_array_foreach(json_object_get(self->tokenizer, "added_tokens"), i, added) {
        const json_t *content = json_object_get(added, "content");
        const int is_special = json_is_true(json_object_get(added, "special"));
        TRY(put_token(self, text_of(content), json_object_get(added, "id"),
                      is_special ? TOKEN_CONTROL : TOKEN_USER_DEFINED));
    }
    char *filler = self->spelled;
    for (int32_t t = 0; t < self->vocab.n_tokens; t++) {
        if (!self->tokens[t].bytes) {
            const int n = snprintf(filler, FILLER_BYTES, "[PAD%d]", t);
            self->tokens[t] = (struct model_text){ filler, (uint32_t)n };
            self->classes[t] = TOKEN_UNUSED;
            filler += FILLER_BYTES;
        } else if (unknown && self->tokens[t].n_bytes == strlen(unknown) &&
                   memcmp(self->tokens[t].bytes, unknown, strlen(unknown)) == 0) {
            self->classes[t] = TOKEN_UNKNOWN;
            self->vocab.unk_id = t;
        }
    }
    return STATUS_OK;
}

/* ---- merges ---- */

static size_t merge_bytes(const json_t *merge)
{
    return json_is_array(merge) ? json_string_length(json_array_get(merge, 0)) +
                                      json_string_length(json_array_get(merge, 1)) + 1
                                : json_string_length(merge);
}

/* "left right", into *at where JSON has a pair. */
static enum status spell_merge(const json_t *merge, char **at, struct model_text *out)
{
    const json_t *left = json_array_get(merge, 0), *right = json_array_get(merge, 1);
    if (json_is_string(merge)) {
        *out = text_of(merge);
        return STATUS_OK;
    }
    if (!json_is_string(left) || !json_is_string(right)) {
        return status_fail(STATUS_INVALID, "tokenizer.json: a merge is neither a string nor a pair of strings");
    }
    const size_t n_left = json_string_length(left), n_right = json_string_length(right);
    memcpy(*at, json_string_value(left), n_left);
    (*at)[n_left] = ' ';
    memcpy(*at + n_left + 1, json_string_value(right), n_right);
    *out = (struct model_text){ *at, (uint32_t)(n_left + 1 + n_right) };
    *at += n_left + 1 + n_right;
    return STATUS_OK;
}

static enum status put_merges(struct folder_vocab *self, char *at)
{
    size_t i;
    const json_t *merge;
    json_array_foreach(json_object_get(json_object_get(self->tokenizer, "model"), "merges"), i, merge) {
        TRY(spell_merge(merge, &at, &self->merges[i]));
    }
    self->vocab.merges = self->merges;
    return STATUS_OK;
}

/* Ways to put a plain token together from two tokens. */
static int64_t n_joins(const json_t *ids, const struct model_text *token)
{
    char left[TOKENIZER_MAX_TOKEN_BYTES + 1], right[TOKENIZER_MAX_TOKEN_BYTES + 1];
    int64_t n = 0;
    for (uint32_t at = 1; at < token->n_bytes && token->n_bytes < sizeof left; at++) {
        if (((unsigned char)token->bytes[at] & 0xc0) != 0x80) { /* a character begins */
            snprintf(left, sizeof left, "%.*s", (int)at, token->bytes);
            snprintf(right, sizeof right, "%.*s", (int)(token->n_bytes - at), token->bytes + at);
            n += json_object_get(ids, left) && json_object_get(ids, right);
        }
    }
    return n;
}

/* SentencePiece joins any two tokens whose text is a token, tokenizer.json those it lists. Files made
 * from SentencePiece models list them all. */
static void count_unlisted(struct folder_vocab *self, const json_t *ids, int64_t n_listed)
{
    int64_t n = 0;
    for (int32_t t = 0; t < self->vocab.n_tokens; t++) {
        n += self->classes[t] == TOKEN_NORMAL ? n_joins(ids, &self->tokens[t]) : 0;
    }
    self->n_unlisted_joins = n > n_listed ? n - n_listed : 0;
}

/* SentencePiece joins the pair whose token scores highest: the earlier merge. */
static enum status put_scores(struct folder_vocab *self)
{
    const json_t *ids = json_object_get(json_object_get(self->tokenizer, "model"), "vocab");
    char joined[2 * TOKENIZER_MAX_TOKEN_BYTES];
    int64_t n_listed = 0;
    for (int32_t t = 0; t < self->vocab.n_tokens; t++) {
        self->scores[t] = self->classes[t] == TOKEN_NORMAL ? -1e9f : 0.0f;
    }
    for (int32_t m = 0; m < self->vocab.n_merges; m++) {
        const struct model_text *merge = &self->merges[m];
        const char *space = memchr(merge->bytes, ' ', merge->n_bytes);
        if (!space || merge->n_bytes >= sizeof joined) {
            return status_fail(STATUS_INVALID, "tokenizer.json: merge %d is no pair of tokens", m);
        }
        const int n_left = (int)(space - merge->bytes);
        snprintf(joined, sizeof joined, "%.*s%.*s", n_left, merge->bytes, (int)merge->n_bytes - n_left - 1,
                 space + 1);
        const json_t *id = json_object_get(ids, joined);
        const json_int_t t = json_is_integer(id) ? json_integer_value(id) : -1;
        if (t >= 0 && t < self->vocab.n_tokens && self->scores[t] < (float)-m) {
            self->scores[t] = (float)-m;
        }
        n_listed += t >= 0 && t < self->vocab.n_tokens && self->classes[t] == TOKEN_NORMAL;
    }
    count_unlisted(self, ids, n_listed);
    self->vocab.scores = self->scores;
    self->vocab.merges = NULL; /* said by the scores */
    self->vocab.n_merges = 0;
    return STATUS_OK;
}

/* ---- special ids ---- */

static int32_t find_token(const struct folder_vocab *self, const json_t *name)
{
    const json_t *text = json_is_object(name) ? json_object_get(name, "content") : name;
    for (int32_t t = 0; json_is_string(text) && t < self->vocab.n_tokens; t++) {
        if (self->tokens[t].n_bytes == json_string_length(text) &&
            memcmp(self->tokens[t].bytes, json_string_value(text), self->tokens[t].n_bytes) == 0) {
            return t;
        }
    }
    return -1;
}

/* Whether the template that surrounds a text has a special token on that side of it; its id then. */
static int32_t template_token(const struct folder_vocab *self, int at_end)
{
    const json_t *post = json_object_get(self->tokenizer, "post_processor");
    const json_t *single = json_object_get(find_step(post, "processors", "TemplateProcessing"), "single");
    const size_t n = json_array_size(single);
    const json_t *step = n > 1 ? json_array_get(single, at_end ? n - 1 : 0) : NULL;
    return find_token(self, json_object_get(json_object_get(step, "SpecialToken"), "id"));
}

/* A text, or the one named "default" in a list of texts with names. */
static struct model_text config_template(const json_t *config)
{
    const json_t *entry = json_object_get(config, "chat_template"), *named;
    size_t i;
    json_array_foreach(entry, i, named) {
        const char *name = json_string_value(json_object_get(named, "name"));
        if (name && strcmp(name, "default") == 0) {
            entry = json_object_get(named, "template");
            break;
        }
    }
    return json_is_string(entry) ? text_of(entry) : (struct model_text){ NULL, 0 };
}

static void put_ids(struct folder_vocab *self, const struct model_config *config)
{
    struct model_vocab *vocab = &self->vocab;
    const int32_t first = template_token(self, 0), last = template_token(self, 1);
    vocab->bos_id = find_token(self, json_object_get(self->config, "bos_token"));
    vocab->eos_id = find_token(self, json_object_get(self->config, "eos_token"));
    vocab->pad_id = find_token(self, json_object_get(self->config, "pad_token"));
    vocab->bos_id = first >= 0 ? first : vocab->bos_id;
    vocab->eos_id = last >= 0 ? last : vocab->eos_id;
    vocab->add_bos = first >= 0 || json_is_true(json_object_get(self->config, "add_bos_token"));
    vocab->add_eos = last >= 0 || json_is_true(json_object_get(self->config, "add_eos_token"));
    vocab->add_bos = vocab->add_bos && vocab->bos_id >= 0;
    vocab->add_eos = vocab->add_eos && vocab->eos_id >= 0;
    vocab->eot_id = -1;
    for (int32_t i = 0; i < config->n_eos; i++) {
        if (vocab->eos_id < 0) {
            vocab->eos_id = config->eos_ids[i];
        } else if (config->eos_ids[i] != vocab->eos_id) {
            vocab->eot_id = config->eos_ids[i];
        }
    }
    vocab->chat_template = self->template.bytes ? self->template : config_template(self->config);
}

/* ---- the door ---- */

static enum status take_memory(struct folder_vocab *self, const struct model_config *config)
{
    const json_t *model = json_object_get(self->tokenizer, "model"), *merges = json_object_get(model, "merges");
    const json_t *merge;
    size_t i, n_spelled = (size_t)config->n_vocab * FILLER_BYTES;
    if (json_array_size(merges) > TOKENIZER_MAX_MERGES) {
        return status_fail(STATUS_INVALID, "tokenizer.json: %zu merges, expected at most %d",
                           json_array_size(merges), TOKENIZER_MAX_MERGES);
    }
    json_array_foreach(merges, i, merge) {
        n_spelled += merge_bytes(merge);
    }
    self->vocab.n_tokens = config->n_vocab;
    self->vocab.n_merges = (int32_t)json_array_size(merges);
    self->tokens = mem_alloc((size_t)config->n_vocab, sizeof *self->tokens);
    self->classes = mem_alloc((size_t)config->n_vocab, sizeof *self->classes);
    self->scores = mem_alloc((size_t)config->n_vocab, sizeof *self->scores);
    self->merges = mem_alloc(json_array_size(merges), sizeof *self->merges);
    self->spelled = mem_alloc(n_spelled, 1);
    if (!self->tokens || !self->classes || !self->scores || !self->merges || !self->spelled) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a vocabulary of %d tokens", config->n_vocab);
    }
    self->vocab.tokens = self->tokens;
    self->vocab.classes = self->classes;
    self->vocab.unk_id = -1;
    return STATUS_OK;
}

enum status folder_vocab_init(struct folder_vocab *self, const char *folder, const struct model_config *config)
{
    TRY(load_json(folder, "tokenizer.json", &self->tokenizer));
    if (!self->tokenizer) {
        return STATUS_OK;
    }
    TRY(load_json(folder, "tokenizer_config.json", &self->config));
    TRY(load_template(self, folder));
    TRY(find_kind(self));
    TRY(take_memory(self, config));
    TRY(put_tokens(self));
    TRY(put_merges(self, self->spelled + (size_t)config->n_vocab * FILLER_BYTES));
    if (strcmp(self->vocab.kind, "llama") == 0) {
        TRY(put_scores(self));
    }
    put_ids(self, config);
    self->has_vocab = 1;
    return STATUS_OK;
}

void folder_vocab_deinit(struct folder_vocab *self)
{
    mem_free(self->template_bytes);
    mem_free(self->spelled);
    mem_free(self->merges);
    mem_free(self->scores);
    mem_free(self->classes);
    mem_free(self->tokens);
    json_decref(self->config);
    json_decref(self->tokenizer);
}
