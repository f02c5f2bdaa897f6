/* json: vocabulary, merges and added tokens of a tokenizer.json. */
#include "tokenizer/json.h"

#include <string.h>

#include "tokenizer/bpe.h"

/* Vocabularies have few holes; an id far beyond the number of tokens would cost memory for nothing. */
enum { MAX_HOLES = 1 << 16 };

struct reader {
    const json_t *root, *model, *config;
    struct tokenizer_spec spec;
    struct recipe recipe;
    struct tokenizer_text *tokens; /* [n_tokens] */
    int32_t *classes;
    uint8_t *bits;
    struct token_merge *merges;
    int32_t n_tokens;
};

static enum status no_memory(const struct reader *reader)
{
    return status_fail(STATUS_NO_MEMORY, "tokenizer.json: no memory for a vocabulary of %d tokens",
                       reader->n_tokens);
}

/* ---- sizes ---- */
static enum status count_id(const json_t *id, json_int_t *most)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= TOKENIZER_MAX_TOKENS) {
        return status_fail(
            STATUS_INVALID,
            "tokenizer.json: expected ids from 0 to %d in the vocabulary, found another",
            TOKENIZER_MAX_TOKENS - 1);
    }
    *most = json_integer_value(id) > *most ? json_integer_value(id) : *most;
    return STATUS_OK;
}

static enum status count_tokens(struct reader *reader)
{
    json_t *vocab = json_object_get(reader->model, "vocab");
    const json_t *added;
    json_int_t most = -1;
    if (!json_is_object(vocab)) {
        return status_fail(STATUS_INVALID,
                           "tokenizer.json: expected a \"vocab\" of texts and ids, found none");
    }
    TRY(json_read_array(reader->root, "added_tokens", &added));
    for (void *at = json_object_iter(vocab); at; at = json_object_iter_next(vocab, at)) {
        TRY(count_id(json_object_iter_value(at), &most));
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        TRY(count_id(json_object_get(json_array_get(added, i), "id"), &most));
    }
    const size_t n_there = json_object_size(vocab) + json_array_size(added);
    if (most < 0 || (size_t)most > 2 * n_there + MAX_HOLES) {
        return status_fail(
            STATUS_INVALID,
            "tokenizer.json: expected ids without large holes, found %zu tokens up to "
            "id %lld",
            n_there, (long long)most);
    }
    reader->n_tokens = (int32_t)most + 1;
    reader->tokens = mem_alloc((size_t)reader->n_tokens, sizeof *reader->tokens);
    reader->classes = mem_alloc((size_t)reader->n_tokens, sizeof *reader->classes);
    reader->bits = mem_alloc((size_t)reader->n_tokens, sizeof *reader->bits);
    return reader->tokens && reader->classes && reader->bits ? STATUS_OK : no_memory(reader);
}

/* ---- tokens ---- */
static bool is_byte_token(struct tokenizer_text text)
{
    return text.n_bytes == 6 && memcmp(text.bytes, "<0x", 3) == 0 && text.bytes[5] == '>' &&
           strchr("0123456789ABCDEF", text.bytes[3]) && strchr("0123456789ABCDEF", text.bytes[4]);
}

static enum status read_vocab(struct reader *reader)
{
    json_t *vocab = json_object_get(reader->model, "vocab");
    for (int32_t id = 0; id < reader->n_tokens; id++) {
        reader->tokens[id] = (struct tokenizer_text){ "", 0 };
        reader->classes[id] = TOKEN_UNUSED;
    }
    for (void *at = json_object_iter(vocab); at; at = json_object_iter_next(vocab, at)) {
        const int32_t id = (int32_t)json_integer_value(json_object_iter_value(at));
        const char *text = json_object_iter_key(at);
        if (reader->bits[id]) {
            return status_fail(
                STATUS_INVALID,
                "tokenizer.json: expected an id for each text, found id %d for '%.60s' "
                "and for '%.60s'",
                id, reader->tokens[id].bytes, text);
        }
        reader->bits[id] = TOKEN_IN_MODEL;
        reader->tokens[id] = (struct tokenizer_text){ text, (uint32_t)strlen(text) };
        const bool is_byte = reader->recipe.byte_fallback && is_byte_token(reader->tokens[id]);
        reader->classes[id] = is_byte ? TOKEN_BYTE : TOKEN_NORMAL;
    }
    return STATUS_OK;
}

static enum status read_added_bits(const json_t *entry, uint8_t *bits, bool *special)
{
    static const struct { const char *key; uint8_t bit;
    } known[] = {
        {"lstrip", TOKEN_LEFT_STRIP},
        {"rstrip", TOKEN_RIGHT_STRIP},
        {"single_word", TOKEN_SINGLE_WORD},
        {"normalized", TOKEN_NORMALIZED},
    };
    TRY(json_read_bool(entry, "special", false, special));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        bool is_set;
        TRY(json_read_bool(entry, known[i].key, false, &is_set));
        *bits = (uint8_t)(*bits | (is_set ? known[i].bit : 0));
    }
    return STATUS_OK;
}

static enum status read_added_token(struct reader *reader, const json_t *entry)
{
    struct tokenizer_text text;
    int32_t id;
    bool special;
    uint8_t bits = TOKEN_ADDED;
    TRY(json_read_id(entry, "id", &id));
    TRY(json_read_text(entry, "content", &text));
    TRY(read_added_bits(entry, &bits, &special));
    const struct tokenizer_text there = reader->tokens[id];
    const json_t *other = text.bytes && !memchr(text.bytes, 0, text.n_bytes)
                              ? json_object_get(json_object_get(reader->model, "vocab"), text.bytes)
                              : NULL;
    if (!text.bytes ||
        (there.n_bytes > 0 &&
         (there.n_bytes != text.n_bytes || memcmp(there.bytes, text.bytes, text.n_bytes) != 0))) {
        return status_fail(
            STATUS_INVALID,
            "tokenizer.json: added token %d: expected the text '%.60s' that its id has, "
            "found '%.60s'",
            id, there.bytes, text.bytes ? text.bytes : "");
    }
    if (other && json_integer_value(other) != id) {
        return status_fail(STATUS_INVALID,
                           "tokenizer.json: added token '%.60s': expected id %lld as in the "
                           "vocabulary, found %d",
                           text.bytes, (long long)json_integer_value(other), id);
    }
    reader->tokens[id] = text;
    reader->bits[id] = (uint8_t)(reader->bits[id] | bits);
    if (reader->classes[id] != TOKEN_BYTE) {
        reader->classes[id] = special ? TOKEN_CONTROL : TOKEN_USER_DEFINED;
    }
    return STATUS_OK;
}

static enum status read_added(struct reader *reader)
{
    const json_t *added;
    TRY(json_read_array(reader->root, "added_tokens", &added));
    for (size_t i = 0; i < json_array_size(added); i++) {
        TRY(read_added_token(reader, json_array_get(added, i)));
    }
    return STATUS_OK;
}

/* ---- merges ---- */
static bool split_merge(const char *text, size_t n_bytes, struct token_merge *out)
{
    const char *space = memchr(text, ' ', n_bytes);
    if (!space || memchr(space + 1, ' ', n_bytes - (size_t)(space - text) - 1)) {
        return false;
    }
    out->left = (struct tokenizer_text){ text, (uint32_t)(space - text) };
    out->right =
        (struct tokenizer_text){space + 1, (uint32_t)(n_bytes - (size_t)(space - text) - 1)};
    return true;
}

static bool read_merge(const json_t *value, struct token_merge *out)
{
    if (json_is_string(value)) {
        return split_merge(json_string_value(value), json_string_length(value), out);
    }
    const json_t *left = json_array_get(value, 0), *right = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_string(left) || !json_is_string(right)) {
        return false;
    }
    out->left =
        (struct tokenizer_text){json_string_value(left), (uint32_t)json_string_length(left)};
    out->right =
        (struct tokenizer_text){json_string_value(right), (uint32_t)json_string_length(right)};
    return true;
}

static enum status read_merges(struct reader *reader)
{
    const json_t *list;
    TRY(json_read_array(reader->model, "merges", &list));
    const size_t n = json_array_size(list);
    if (!list || n > TOKENIZER_MAX_MERGES) {
        return status_fail(STATUS_INVALID,
                           "tokenizer.json: expected a list of at most %d \"merges\", found %s",
                           TOKENIZER_MAX_MERGES, list ? "a longer one" : "none");
    }
    reader->merges = mem_alloc(n, sizeof *reader->merges);
    if (!reader->merges) {
        return no_memory(reader);
    }
    for (size_t i = 0; i < n; i++) {
        if (!read_merge(json_array_get(list, i), &reader->merges[i])) {
            return status_fail(STATUS_INVALID,
                               "tokenizer.json: merge %zu: expected two texts, as a pair or with a "
                               "space between, found something else",
                               i);
        }
    }
    reader->recipe.merges = reader->merges;
    reader->recipe.n_merges = (int32_t)n;
    return STATUS_OK;
}

/* ---- the model ---- */
static enum status refuse_text(const json_t *model, const char *key)
{
    struct tokenizer_text text;
    TRY(json_read_text(model, key, &text));
    return text.bytes && text.n_bytes > 0
               ? status_fail(STATUS_UNSUPPORTED,
                             "tokenizer.json: \"%s\" ('%.60s') is not supported", key, text.bytes)
               : STATUS_OK;
}

static enum status read_model(struct reader *reader)
{
    const json_t *model = json_object_get(reader->root, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    reader->model = model;
    if (!json_is_object(model)) {
        return status_fail(STATUS_INVALID, "tokenizer.json: expected a \"model\", found none");
    }
    if (type ? strcmp(type, "BPE") != 0 : !json_object_get(model, "merges")) {
        return status_fail(STATUS_UNSUPPORTED,
                           "tokenizer kind '%.60s' is not supported; supported in tokenizer.json: "
                           "BPE",
                           type ? type : "");
    }
    TRY(refuse_text(model, "continuing_subword_prefix"));
    TRY(refuse_text(model, "end_of_word_suffix"));
    if (json_number_value(json_object_get(model, "dropout")) > 0) {
        return status_fail(STATUS_UNSUPPORTED,
                           "tokenizer.json: \"dropout\" makes ids random, which is not supported");
    }
    TRY(json_read_bool(model, "fuse_unk", false, &reader->recipe.fuse_unk));
    TRY(json_read_bool(model, "byte_fallback", false, &reader->recipe.byte_fallback));
    return json_read_bool(model, "ignore_merges", false, &reader->recipe.ignore_merges);
}

static int32_t find_text(const struct reader *reader, struct tokenizer_text text)
{
    for (int32_t id = 0; text.bytes && id < reader->n_tokens; id++) {
        const struct tokenizer_text token = reader->tokens[id];
        if (token.n_bytes == text.n_bytes && memcmp(token.bytes, text.bytes, text.n_bytes) == 0) {
            return id;
        }
    }
    return -1;
}

/* A token that tokenizer_config.json names, as a text or as an object with "content". */
static int32_t named_token(const struct reader *reader, const char *key)
{
    const json_t *value = json_object_get(reader->config, key);
    value = json_is_object(value) ? json_object_get(value, "content") : value;
    return json_is_string(value)
               ? find_text(reader, (struct tokenizer_text){json_string_value(value),
                                                           (uint32_t)json_string_length(value)})
               : -1;
}

static enum status read_names(struct reader *reader)
{
    struct tokenizer_text unknown;
    struct tokenizer_spec *spec = &reader->spec;
    TRY(json_read_text(reader->model, "unk_token", &unknown));
    spec->unk_id = find_text(reader, unknown);
    if (unknown.bytes && spec->unk_id < 0) {
        return status_fail(
            STATUS_INVALID,
            "tokenizer.json: expected unk_token '%.60s' in the vocabulary, found none",
            unknown.bytes);
    }
    if (spec->unk_id >= 0 && reader->classes[spec->unk_id] == TOKEN_CONTROL) {
        reader->classes[spec->unk_id] = TOKEN_UNKNOWN;
    }
    spec->bos_id = named_token(reader, "bos_token");
    spec->eos_id = named_token(reader, "eos_token");
    spec->pad_id = named_token(reader, "pad_token");
    spec->eot_id = -1;
    if (spec->bos_id < 0 && reader->recipe.before.n > 0) {
        spec->bos_id = reader->recipe.before.ids[0];
    }
    return STATUS_OK;
}

/* The file of its own, or the entry of tokenizer_config.json: a text, or a list of named ones. */
static void read_chat_template(struct reader *reader, struct tokenizer_text file)
{
    const json_t *entry = json_object_get(reader->config, "chat_template");
    for (size_t i = 0; json_is_array(entry) && i < json_array_size(entry); i++) {
        const json_t *named = json_array_get(entry, i);
        const char *name = json_string_value(json_object_get(named, "name"));
        if (name && strcmp(name, "default") == 0) {
            entry = json_object_get(named, "template");
            break;
        }
    }
    reader->spec.chat_template = file;
    if (!file.bytes && json_is_string(entry)) {
        reader->spec.chat_template =
            (struct tokenizer_text){json_string_value(entry), (uint32_t)json_string_length(entry)};
    }
}

/* ---- all of it ---- */
static enum status digest_part(struct digest *digest, const json_t *value)
{
    char *text = json_is_there(value)
                     ? json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY)
                     : NULL;
    if (json_is_there(value) && !text) {
        return status_fail(STATUS_NO_MEMORY, "tokenizer.json: no memory for a digest");
    }
    if (text) {
        digest_update(digest, text, strlen(text) + 1);
        json_malloc_t allocate;
        json_free_t release;
        json_get_alloc_funcs(&allocate, &release);
        release(text);
    }
    return STATUS_OK;
}

static enum status make_digest(struct reader *reader)
{
    static const char *const parts[] = {"normalizer", "pre_tokenizer", "post_processor", "decoder"};
    const struct recipe *recipe = &reader->recipe;
    struct digest digest;
    digest_init(&digest);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        TRY(digest_part(&digest, json_object_get(reader->root, parts[i])));
    }
    const int32_t flags[] = { recipe->fuse_unk, recipe->byte_fallback, recipe->ignore_merges };
    digest_update(&digest, flags, sizeof flags);
    digest_update(&digest, reader->bits, (size_t)reader->n_tokens);
    for (int32_t i = 0; i < recipe->n_merges; i++) {
        const struct token_merge *merge = &recipe->merges[i];
        digest_update(&digest, &merge->left.n_bytes, sizeof merge->left.n_bytes);
        digest_update(&digest, merge->left.bytes, merge->left.n_bytes);
        digest_update(&digest, merge->right.bytes, merge->right.n_bytes);
    }
    reader->recipe.digest = digest_value(&digest);
    return STATUS_OK;
}

static enum status read_all(struct reader *reader)
{
    TRY(read_model(reader));
    TRY(count_tokens(reader));
    TRY(read_vocab(reader));
    TRY(read_added(reader));
    TRY(read_merges(reader));
    TRY(json_read_normalizer(json_object_get(reader->root, "normalizer"), &reader->recipe));
    TRY(json_read_pre_tokenizer(json_object_get(reader->root, "pre_tokenizer"), &reader->recipe));
    TRY(json_read_decoder(json_object_get(reader->root, "decoder"), &reader->recipe));
    TRY(json_read_post_processor(json_object_get(reader->root, "post_processor"), reader->n_tokens,
                                 &reader->recipe));
    TRY(read_names(reader));
    reader->recipe.bits = reader->bits;
    reader->spec.kind = bpe_kind.name;
    reader->spec.tokens = reader->tokens;
    reader->spec.classes = reader->classes;
    reader->spec.n_tokens = reader->n_tokens;
    return make_digest(reader);
}

enum status tokenizer_create_json(const struct tokenizer_files *files, struct tokenizer **out)
{
    struct reader reader = { .root = NULL };
    json_t *root = NULL, *config = NULL;
    enum status status;
    *out = NULL;
    TRY_GOTO(json_parse("tokenizer.json", files->tokenizer.bytes, files->tokenizer.n_bytes, &root),
             out);
    if (files->config.bytes) {
        TRY_GOTO(json_parse("tokenizer_config.json", files->config.bytes, files->config.n_bytes,
                            &config),
                 out);
    }
    reader.root = root;
    reader.config = config;
    read_chat_template(&reader, files->chat_template);
    status = read_all(&reader);
    if (status == STATUS_OK) {
        status = tokenizer_build(&bpe_kind, &reader.spec, &reader.recipe, out);
    } else {
        recipe_deinit(&reader.recipe);
    }
out:
    mem_free(reader.merges);
    mem_free(reader.bits);
    mem_free(reader.classes);
    mem_free(reader.tokens);
    json_decref(config);
    json_decref(root);
    return status;
}
