/* json_ends: decoder and post_processor of a tokenizer.json: how tokens become text again, and what
 * stands around a text. */
#include <string.h>

#include "tokenizer/json.h"

/* ---- decoder ---- */
static enum status add_replace(const json_t *value, struct recipe *recipe)
{
    struct split_pattern found = { .syntax = PATTERN_LITERAL };
    struct tokenizer_text content;
    struct pattern *pattern;
    TRY(json_read_pattern(value, &found));
    TRY(json_read_text(value, "content", &content));
    TRY(pattern_create(found.syntax, found.source, found.n_bytes, &pattern));
    return normalizer_add(&recipe->piece_steps, NORMALIZE_REPLACE, content.bytes, content.n_bytes,
                          pattern);
}

/* Only the one that takes away what the normalizer put before a text. */
static enum status add_strip(const json_t *value, struct recipe *recipe)
{
    struct tokenizer_text content;
    const json_int_t start = json_integer_value(json_object_get(value, "start"));
    const json_int_t stop = json_integer_value(json_object_get(value, "stop"));
    TRY(json_read_text(value, "content", &content));
    if (start == 0 && stop == 0) {
        return STATUS_OK;
    }
    if (start != 1 || stop != 0 || !json_text_is(content, " ")) {
        return status_fail(STATUS_UNSUPPORTED,
                           "tokenizer.json: a Strip decoder is supported for one space at the "
                           "start of a text, and for nothing else");
    }
    recipe->drops_space = true;
    return STATUS_OK;
}

static enum status add_metaspace(const json_t *value, struct recipe *recipe)
{
    struct tokenizer_text mark, scheme;
    bool legacy;
    struct pattern *pattern;
    TRY(json_read_text(value, "replacement", &mark));
    TRY(json_read_text(value, "prepend_scheme", &scheme));
    TRY(json_read_bool(value, "add_prefix_space", true, &legacy));
    if (!mark.bytes || mark.n_bytes == 0) {
        mark = (struct tokenizer_text){ "\xe2\x96\x81", 3 };
    }
    recipe->drops_space = scheme.bytes ? !json_text_is(scheme, "never") : legacy;
    TRY(pattern_create(PATTERN_LITERAL, mark.bytes, mark.n_bytes, &pattern));
    return normalizer_add(&recipe->piece_steps, NORMALIZE_REPLACE, " ", 1, pattern);
}

static enum status add_decoder(const json_t *value, struct recipe *recipe)
{
    const char *type;
    TRY(json_read_type(value, "a decoder", &type));
    if (strcmp(type, "ByteLevel") == 0 && recipe->byte_level) {
        return STATUS_OK;
    }
    if (strcmp(type, "ByteLevel") == 0) {
        return status_fail(STATUS_UNSUPPORTED,
                           "tokenizer.json: a ByteLevel decoder behind a pre-tokenizer that is "
                           "none is not supported");
    }
    if (strcmp(type, "Fuse") == 0) {
        return STATUS_OK; /* pieces are joined in any case */
    }
    if (recipe->byte_level) {
        return status_fail(STATUS_UNSUPPORTED,
                           "tokenizer.json: decoder '%.60s' behind a ByteLevel pre-tokenizer is "
                           "not supported; supported: ByteLevel",
                           type);
    }
    if (strcmp(type, "ByteFallback") == 0) {
        return STATUS_OK; /* byte tokens are bytes in any case */
    }
    if (strcmp(type, "Replace") == 0) {
        return add_replace(value, recipe);
    }
    if (strcmp(type, "Strip") == 0) {
        return add_strip(value, recipe);
    }
    if (strcmp(type, "Metaspace") == 0) {
        return add_metaspace(value, recipe);
    }
    return status_fail(STATUS_UNSUPPORTED,
                       "tokenizer.json: decoder '%.60s' is not supported; supported: ByteLevel, "
                       "Metaspace, Replace, ByteFallback, Fuse, Strip, Sequence",
                       type);
}

enum status json_read_decoder(const json_t *value, struct recipe *recipe)
{
    const char *type;
    if (!json_is_there(value)) {
        return status_fail(STATUS_UNSUPPORTED, "tokenizer.json: expected a decoder, found none");
    }
    TRY(json_read_type(value, "a decoder", &type));
    if (strcmp(type, "Sequence") != 0) {
        return add_decoder(value, recipe);
    }
    const json_t *list;
    TRY(json_read_array(value, "decoders", &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        TRY(add_decoder(json_array_get(list, i), recipe));
    }
    return STATUS_OK;
}

/* ---- post-processor ---- */
static enum status put_around(struct around_ids *around, const json_t *id, int32_t n_tokens)
{
    const json_int_t value = json_integer_value(id);
    if (!json_is_integer(id) || value < 0 || value >= n_tokens) {
        return status_fail(STATUS_INVALID,
                           "tokenizer.json: post_processor: expected an id in a vocabulary of %d, "
                           "found another",
                           n_tokens);
    }
    if (around->n == TOKENIZER_MAX_AROUND) {
        return status_fail(STATUS_UNSUPPORTED,
                           "tokenizer.json: post_processor: at most %d tokens before or behind "
                           "a text are supported",
                           TOKENIZER_MAX_AROUND);
    }
    around->ids[around->n++] = (int32_t)value;
    return STATUS_OK;
}

static enum status put_special(const json_t *processor, const json_t *special, int32_t n_tokens,
                               struct around_ids *around)
{
    const char *name = json_string_value(json_object_get(special, "id"));
    const json_t *entry =
        name ? json_object_get(json_object_get(processor, "special_tokens"), name) : NULL;
    const json_t *ids;
    TRY(json_read_array(entry, "ids", &ids));
    if (!ids) {
        return status_fail(
            STATUS_INVALID,
            "tokenizer.json: post_processor: expected the ids of '%.60s', found none",
            name ? name : "");
    }
    for (size_t i = 0; i < json_array_size(ids); i++) {
        TRY(put_around(around, json_array_get(ids, i), n_tokens));
    }
    return STATUS_OK;
}

static enum status add_template(const json_t *value, int32_t n_tokens, struct recipe *recipe)
{
    const json_t *list;
    int n_texts = 0;
    TRY(json_read_array(value, "single", &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *part = json_array_get(list, i);
        const json_t *special = json_object_get(part, "SpecialToken");
        n_texts += json_object_get(part, "Sequence") != NULL;
        if (special) {
            TRY(put_special(value, special, n_tokens,
                            n_texts == 0 ? &recipe->before : &recipe->behind));
        }
    }
    if (n_texts != 1) {
        return status_fail(STATUS_INVALID,
                           "tokenizer.json: post_processor: expected one text in the template, "
                           "found %d",
                           n_texts);
    }
    return STATUS_OK;
}

static enum status add_processor(const json_t *value, int32_t n_tokens, struct recipe *recipe)
{
    const char *type;
    TRY(json_read_type(value, "a post-processor", &type));
    if (strcmp(type, "ByteLevel") == 0) {
        return STATUS_OK; /* moves offsets alone */
    }
    if (strcmp(type, "TemplateProcessing") == 0) {
        return add_template(value, n_tokens, recipe);
    }
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
        TRY(put_around(&recipe->before, json_array_get(json_object_get(value, "cls"), 1),
                       n_tokens));
        return put_around(&recipe->behind, json_array_get(json_object_get(value, "sep"), 1),
                          n_tokens);
    }
    return status_fail(STATUS_UNSUPPORTED,
                       "tokenizer.json: post-processor '%.60s' is not supported; supported: "
                       "TemplateProcessing, ByteLevel, RobertaProcessing, BertProcessing, Sequence",
                       type);
}

enum status json_read_post_processor(const json_t *value, int32_t n_tokens, struct recipe *recipe)
{
    const char *type;
    if (!json_is_there(value)) {
        return STATUS_OK;
    }
    TRY(json_read_type(value, "a post-processor", &type));
    if (strcmp(type, "Sequence") != 0) {
        return add_processor(value, n_tokens, recipe);
    }
    const json_t *list;
    TRY(json_read_array(value, "processors", &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        TRY(add_processor(json_array_get(list, i), n_tokens, recipe));
    }
    return STATUS_OK;
}
