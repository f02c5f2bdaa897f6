/* json_value: JSON to values of the types expected, or a sentence. */
#include <string.h>

#include "tokenizer/json.h"

/* ---- the whole ---- */
/* Depth is bounded before the parser, which recurses and builds, sees a byte. Strings are stepped
 * over; what else is wrong is the parser's to say. */
static enum status check_depth(const char *file, const char *bytes, size_t n_bytes)
{
    int depth = 0;
    bool in_text = false;
    for (size_t at = 0; at < n_bytes; at++) {
        const char c = bytes[at];
        if (in_text) {
            at += c == '\\';
            in_text = c != '"';
        } else if (c == '"') {
            in_text = true;
        } else if (c == '[' || c == '{') {
            depth++;
        } else if (c == ']' || c == '}') {
            depth--;
        }
        if (depth > JSON_MAX_DEPTH) {
            return status_fail(STATUS_INVALID,
                               "%s: expected brackets at most %d deep, found more at byte %zu",
                               file, JSON_MAX_DEPTH, at);
        }
    }
    return STATUS_OK;
}

enum status json_parse(const char *file, const char *bytes, size_t n_bytes, json_t **out)
{
    *out = NULL;
    if (n_bytes > JSON_MAX_BYTES) {
        return status_fail(STATUS_INVALID, "%s: expected at most %d MiB, found %zu bytes", file,
                           JSON_MAX_BYTES >> 20, n_bytes);
    }
    TRY(check_depth(file, bytes, n_bytes));
    json_error_t error;
    json_t *root = json_loadb(bytes, n_bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!root && json_error_code(&error) == json_error_out_of_memory) {
        return status_fail(STATUS_NO_MEMORY, "%s: no memory for %zu bytes of JSON", file, n_bytes);
    }
    if (!root) {
        return status_fail(STATUS_INVALID, "%s: line %d, column %d: %s", file, error.line,
                           error.column, error.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return status_fail(STATUS_INVALID, "%s: expected a JSON object, found something else",
                           file);
    }
    *out = root;
    return STATUS_OK;
}

/* ---- members ---- */
bool json_is_there(const json_t *value) { return value && !json_is_null(value); }

static enum status wrong_type(const char *key, const char *expected)
{
    return status_fail(STATUS_INVALID,
                       "tokenizer.json: \"%.60s\": expected %s, found something else", key,
                       expected);
}

enum status json_read_bool(const json_t *object, const char *key, bool missing, bool *out)
{
    const json_t *value = json_object_get(object, key);
    *out = json_is_there(value) ? json_is_true(value) : missing;
    return json_is_there(value) && !json_is_boolean(value) ? wrong_type(key, "true or false")
                                                           : STATUS_OK;
}

enum status json_read_text(const json_t *object, const char *key, struct tokenizer_text *out)
{
    const json_t *value = json_object_get(object, key);
    *out = (struct tokenizer_text){ NULL, 0 };
    if (!json_is_there(value)) {
        return STATUS_OK;
    }
    if (!json_is_string(value)) {
        return wrong_type(key, "a text");
    }
    *out = (struct tokenizer_text){ json_string_value(value), (uint32_t)json_string_length(value) };
    return STATUS_OK;
}

enum status json_read_id(const json_t *object, const char *key, int32_t *out)
{
    const json_t *value = json_object_get(object, key);
    const json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= TOKENIZER_MAX_TOKENS) {
        return status_fail(
            STATUS_INVALID, "tokenizer.json: \"%.60s\": expected an id below %d, found %s", key,
            TOKENIZER_MAX_TOKENS, json_is_integer(value) ? "another number" : "none");
    }
    *out = (int32_t)id;
    return STATUS_OK;
}

enum status json_read_array(const json_t *object, const char *key, const json_t **out)
{
    const json_t *value = json_object_get(object, key);
    *out = json_is_there(value) ? value : NULL;
    return *out && !json_is_array(value) ? wrong_type(key, "a list") : STATUS_OK;
}

enum status json_read_type(const json_t *object, const char *what, const char **out)
{
    *out = json_string_value(json_object_get(object, "type"));
    if (!*out) {
        return status_fail(STATUS_INVALID,
                           "tokenizer.json: expected %s with a \"type\", found none", what);
    }
    return STATUS_OK;
}
