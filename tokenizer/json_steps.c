/* json_steps: normalizer and pre_tokenizer of a tokenizer.json. What they name and is not here is
 * refused by name. */
#include <string.h>

#include "tokenizer/bpe.h"
#include "tokenizer/json.h"

/* ---- patterns ---- */
enum status json_read_pattern(const json_t *object, struct split_pattern *out)
{
    const json_t *pattern = json_object_get(object, "pattern");
    struct tokenizer_text literal, regex;
    TRY(json_read_text(pattern, "String", &literal));
    TRY(json_read_text(pattern, "Regex", &regex));
    if (!literal.bytes && !regex.bytes) {
        return status_fail(STATUS_INVALID,
                           "tokenizer.json: expected a \"pattern\" with \"String\" or \"Regex\", "
                           "found neither");
    }
    if (literal.bytes && literal.n_bytes == 0) {
        return status_fail(STATUS_INVALID,
                           "tokenizer.json: expected a pattern, found an empty text");
    }
    out->syntax = literal.bytes ? PATTERN_LITERAL : PATTERN_REGEX;
    out->source = literal.bytes ? literal.bytes : regex.bytes;
    out->n_bytes = literal.bytes ? literal.n_bytes : regex.n_bytes;
    return STATUS_OK;
}

static enum status read_behavior(const json_t *object, enum split_behavior missing,
                                 enum split_behavior *out)
{
    static const struct { const char *name; enum split_behavior behavior; } known[] = {
        { "Removed", SPLIT_REMOVED }, { "Isolated", SPLIT_ISOLATED },
        { "MergedWithPrevious", SPLIT_MERGED_WITH_PREVIOUS },
        { "MergedWithNext", SPLIT_MERGED_WITH_NEXT }, { "Contiguous", SPLIT_CONTIGUOUS },
    };
    struct tokenizer_text text;
    *out = missing;
    TRY(json_read_text(object, "behavior", &text));
    for (size_t i = 0; text.bytes && i < sizeof known / sizeof known[0]; i++) {
        if (json_text_is(text, known[i].name)) {
            *out = known[i].behavior;
            return STATUS_OK;
        }
    }
    return text.bytes
               ? status_fail(STATUS_UNSUPPORTED,
                             "tokenizer.json: split behavior '%.60s' is not supported", text.bytes)
               : STATUS_OK;
}

/* ---- normalizers ---- */
static enum status add_replace(const json_t *value, struct recipe *recipe)
{
    struct split_pattern found = { .syntax = PATTERN_LITERAL };
    struct tokenizer_text content;
    struct pattern *pattern;
    TRY(json_read_pattern(value, &found));
    TRY(json_read_text(value, "content", &content));
    TRY(pattern_create(found.syntax, found.source, found.n_bytes, &pattern));
    return normalizer_add(&recipe->normalizer, NORMALIZE_REPLACE, content.bytes, content.n_bytes,
                          pattern);
}

static enum status add_strip(const json_t *value, struct recipe *recipe)
{
    bool left, right;
    TRY(json_read_bool(value, "strip_left", true, &left));
    TRY(json_read_bool(value, "strip_right", true, &right));
    if (left) {
        TRY(normalizer_add(&recipe->normalizer, NORMALIZE_STRIP_LEFT, NULL, 0, NULL));
    }
    return right ? normalizer_add(&recipe->normalizer, NORMALIZE_STRIP_RIGHT, NULL, 0, NULL)
                 : STATUS_OK;
}

static enum status add_normalizer(const json_t *value, struct recipe *recipe)
{
    static const struct { const char *type; enum normalize_kind kind;
    } plain[] = {
        {"NFC", NORMALIZE_NFC},
        {"NFD", NORMALIZE_NFD},
        {"NFKC", NORMALIZE_NFKC},
        {"NFKD", NORMALIZE_NFKD},
        {"Lowercase", NORMALIZE_LOWERCASE},
        {"StripAccents", NORMALIZE_STRIP_ACCENTS},
    };
    const char *type;
    TRY(json_read_type(value, "a normalizer", &type));
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        if (strcmp(type, plain[i].type) == 0) {
            return normalizer_add(&recipe->normalizer, plain[i].kind, NULL, 0, NULL);
        }
    }
    if (strcmp(type, "Prepend") == 0) {
        struct tokenizer_text text;
        TRY(json_read_text(value, "prepend", &text));
        return normalizer_add(&recipe->normalizer, NORMALIZE_PREPEND, text.bytes, text.n_bytes,
                              NULL);
    }
    if (strcmp(type, "Replace") == 0) {
        return add_replace(value, recipe);
    }
    if (strcmp(type, "Strip") == 0) {
        return add_strip(value, recipe);
    }
    return status_fail(
        STATUS_UNSUPPORTED,
        "tokenizer.json: normalizer '%.60s' is not supported; supported: NFC, "
        "NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Prepend, Replace, Sequence",
        type);
}

/* A value, or the values of a Sequence, each to `add`; sequences hold no sequences. */
static enum status each(const json_t *value, const char *what, const char *list_key,
                        enum status (*add)(const json_t *value, struct recipe *recipe),
                        struct recipe *recipe)
{
    const char *type;
    if (!json_is_there(value)) {
        return STATUS_OK;
    }
    TRY(json_read_type(value, what, &type));
    if (strcmp(type, "Sequence") != 0) {
        return add(value, recipe);
    }
    const json_t *list;
    TRY(json_read_array(value, list_key, &list));
    if (!list) {
        return status_fail(STATUS_INVALID,
                           "tokenizer.json: expected \"%s\" in a Sequence, found none", list_key);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        TRY(add(json_array_get(list, i), recipe));
    }
    return STATUS_OK;
}

enum status json_read_normalizer(const json_t *value, struct recipe *recipe)
{
    return each(value, "a normalizer", "normalizers", add_normalizer, recipe);
}

/* ---- pre-tokenizers ---- */
static enum status add_pattern(struct recipe *recipe, const char *source,
                               enum split_behavior behavior)
{
    return splitter_add_pattern(&recipe->splitter,
                                &(struct split_pattern){.syntax = PATTERN_REGEX,
                                                        .source = source,
                                                        .n_bytes = strlen(source),
                                                        .behavior = behavior});
}

static enum status add_byte_level(const json_t *value, struct recipe *recipe)
{
    bool prefix, uses_pattern;
    TRY(json_read_bool(value, "add_prefix_space", true, &prefix));
    TRY(json_read_bool(value, "use_regex", true, &uses_pattern));
    if (prefix) {
        TRY(splitter_add_spaces(&recipe->splitter, " ", SPLIT_PREFIX_ALWAYS));
    }
    recipe->byte_level = true;
    return uses_pattern ? add_pattern(recipe, bpe_gpt2_pattern, SPLIT_ISOLATED) : STATUS_OK;
}

static enum status add_split(const json_t *value, struct recipe *recipe)
{
    struct split_pattern pattern = { .syntax = PATTERN_LITERAL };
    TRY(json_read_pattern(value, &pattern));
    TRY(read_behavior(value, SPLIT_ISOLATED, &pattern.behavior));
    TRY(json_read_bool(value, "invert", false, &pattern.invert));
    return splitter_add_pattern(&recipe->splitter, &pattern);
}

static enum status read_prefix(const json_t *value, enum split_prefix *out)
{
    struct tokenizer_text scheme;
    bool legacy;
    TRY(json_read_text(value, "prepend_scheme", &scheme));
    TRY(json_read_bool(value, "add_prefix_space", true, &legacy));
    if (!scheme.bytes) {
        *out = legacy ? SPLIT_PREFIX_ALWAYS : SPLIT_PREFIX_NEVER;
        return STATUS_OK;
    }
    *out = json_text_is(scheme, "always") ? SPLIT_PREFIX_ALWAYS
           : json_text_is(scheme, "first") ? SPLIT_PREFIX_FIRST : SPLIT_PREFIX_NEVER;
    if (*out == SPLIT_PREFIX_NEVER && !json_text_is(scheme, "never")) {
        return status_fail(STATUS_UNSUPPORTED,
                           "tokenizer.json: prepend_scheme '%.60s' is not supported; supported: "
                           "always, first, never",
                           scheme.bytes);
    }
    return STATUS_OK;
}

static enum status add_metaspace(const json_t *value, struct recipe *recipe)
{
    struct tokenizer_text mark;
    enum split_prefix prefix;
    bool cuts;
    TRY(json_read_text(value, "replacement", &mark));
    TRY(read_prefix(value, &prefix));
    TRY(json_read_bool(value, "split", true, &cuts));
    if (!mark.bytes) {
        mark = (struct tokenizer_text){ "\xe2\x96\x81", 3 };
    }
    if (mark.n_bytes < 1 || mark.n_bytes > 4 || memchr(mark.bytes, 0, mark.n_bytes)) {
        return status_fail(
            STATUS_INVALID,
            "tokenizer.json: \"replacement\": expected one character, found %u bytes",
            mark.n_bytes);
    }
    TRY(splitter_add_spaces(&recipe->splitter, mark.bytes, prefix));
    return !cuts ? STATUS_OK
                 : splitter_add_pattern(&recipe->splitter, &(struct split_pattern){
                       .syntax = PATTERN_LITERAL, .source = mark.bytes, .n_bytes = mark.n_bytes,
                       .behavior = SPLIT_MERGED_WITH_NEXT });
}

static enum status add_digits(const json_t *value, struct recipe *recipe)
{
    bool single;
    TRY(json_read_bool(value, "individual_digits", false, &single));
    return add_pattern(recipe, "\\p{N}", single ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
}

static enum status add_punctuation(const json_t *value, struct recipe *recipe)
{
    enum split_behavior behavior;
    TRY(read_behavior(value, SPLIT_ISOLATED, &behavior));
    return add_pattern(recipe, "[\\p{P}!-\\/:-@\\x{5b}-`{-~]", behavior);
}

static enum status add_whitespace(const json_t *value, struct recipe *recipe)
{
    static const char words[] = "\\w+|[^\\w\\s]+";
    (void)value;
    return splitter_add_pattern(&recipe->splitter,
                                &(struct split_pattern){.syntax = PATTERN_REGEX,
                                                        .source = words,
                                                        .n_bytes = sizeof words - 1,
                                                        .behavior = SPLIT_REMOVED,
                                                        .invert = true});
}

static enum status add_whitespace_split(const json_t *value, struct recipe *recipe)
{
    (void)value;
    return add_pattern(recipe, "\\s", SPLIT_REMOVED);
}

static enum status add_delimiter(const json_t *value, struct recipe *recipe)
{
    struct tokenizer_text delimiter;
    TRY(json_read_text(value, "delimiter", &delimiter));
    if (!delimiter.bytes || delimiter.n_bytes == 0) {
        return status_fail(STATUS_INVALID, "tokenizer.json: expected a \"delimiter\", found none");
    }
    return splitter_add_pattern(&recipe->splitter, &(struct split_pattern){
        .syntax = PATTERN_LITERAL, .source = delimiter.bytes, .n_bytes = delimiter.n_bytes,
        .behavior = SPLIT_REMOVED });
}

static enum status add_pre_tokenizer(const json_t *value, struct recipe *recipe)
{
    static const struct {
        const char *type;
        enum status (*add)(const json_t *value, struct recipe *recipe);
    } known[] = {
        {"ByteLevel", add_byte_level},
        {"Split", add_split},
        {"Metaspace", add_metaspace},
        {"Digits", add_digits},
        {"Punctuation", add_punctuation},
        {"Whitespace", add_whitespace},
        {"WhitespaceSplit", add_whitespace_split},
        {"CharDelimiterSplit", add_delimiter},
    };
    const char *type;
    TRY(json_read_type(value, "a pre-tokenizer", &type));
    if (recipe->byte_level) {
        return status_fail(STATUS_UNSUPPORTED,
                           "tokenizer.json: pre-tokenizer '%.60s' behind ByteLevel is not "
                           "supported: that must be the last",
                           type);
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(type, known[i].type) == 0) {
            return known[i].add(value, recipe);
        }
    }
    return status_fail(
        STATUS_UNSUPPORTED,
        "tokenizer.json: pre-tokenizer '%.60s' is not supported; supported: "
        "ByteLevel, Split, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, "
        "CharDelimiterSplit, Sequence",
        type);
}

enum status json_read_pre_tokenizer(const json_t *value, struct recipe *recipe)
{
    return each(value, "a pre-tokenizer", "pretokenizers", add_pre_tokenizer, recipe);
}
