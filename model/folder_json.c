/* folder_json: nesting is looked at before the parser may recurse into it; duplicates are the parser's. */
#include "model/folder_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model/file.h"

/* How deep brackets go, strings left out; stops where it is too deep. */
static int nesting(const unsigned char *bytes, size_t n_bytes)
{
    int depth = 0, deepest = 0;
    for (size_t i = 0; i < n_bytes && deepest <= FOLDER_JSON_MAX_NESTING; i++) {
        if (bytes[i] == '"') {
            for (i++; i < n_bytes && bytes[i] != '"'; i++) {
                i += bytes[i] == '\\' ? 1 : 0;
            }
        } else if (bytes[i] == '{' || bytes[i] == '[') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if (bytes[i] == '}' || bytes[i] == ']') {
            depth--;
        }
    }
    return deepest;
}

static void clean(char *text)
{
    for (; *text; text++) {
        *text = (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text;
    }
}

enum status folder_json_parse(const char *label, const void *bytes, size_t n_bytes, json_t **out)
{
    json_error_t error;
    *out = NULL;
    if (nesting(bytes, n_bytes) > FOLDER_JSON_MAX_NESTING) {
        return status_fail(STATUS_INVALID, "%s: JSON nested more than %d deep", label,
                           FOLDER_JSON_MAX_NESTING);
    }
    json_t *root = json_loadb(bytes, n_bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        clean(error.text);
        return status_fail(json_error_code(&error) == json_error_out_of_memory ? STATUS_NO_MEMORY
                                                                                : STATUS_INVALID,
                           "%s: line %d: %s", label, error.line, error.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return status_fail(STATUS_INVALID, "%s: expected a JSON object", label);
    }
    *out = root;
    return STATUS_OK;
}

static enum status read_and_parse(const char *path, int fd, uint64_t n_bytes, json_t **out)
{
    if (n_bytes > FOLDER_JSON_MAX_FILE_BYTES) {
        return status_fail(STATUS_INVALID, "%s: %" PRIu64 " bytes of JSON, expected at most %d",
                           path, n_bytes, FOLDER_JSON_MAX_FILE_BYTES);
    }
    unsigned char *bytes = mem_alloc((size_t)n_bytes, 1);
    if (!bytes) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the %" PRIu64 " bytes of %s", n_bytes,
                           path);
    }
    enum status status = file_read_all(fd, path, "it", 0, n_bytes, bytes);
    if (status == STATUS_OK) {
        status = folder_json_parse(path, bytes, (size_t)n_bytes, out);
    }
    mem_free(bytes);
    return status;
}

enum status folder_json_read_file(const char *path, json_t **out)
{
    int fd;
    uint64_t n_bytes;
    *out = NULL;
    if (access(path, F_OK) != 0) {
        return STATUS_OK;
    }
    enum status status = file_open(path, "JSON file", &fd, &n_bytes);
    if (status == STATUS_OK) {
        status = read_and_parse(path, fd, n_bytes, out);
    }
    if (fd >= 0) {
        close(fd);
    }
    return status;
}

/* ---- values ---- */

const json_t *folder_json_find(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

void folder_json_value_text(const json_t *value, char *text, size_t cap)
{
    const size_t n =
        json_dumpb(value, text, cap - 1,
                   JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9));
    if (n >= cap) { /* cut: nothing was promised about what is there */
        const char *kind = json_is_array(value)    ? "a long list"
                           : json_is_object(value) ? "an object"
                                                   : "a long text";
        snprintf(text, cap, "%s", kind);
        return;
    }
    text[n] = '\0';
    clean(text);
}

static enum status wrong(const char *label, const char *key, const char *expected,
                         const json_t *value)
{
    char found[96];
    folder_json_value_text(value, found, sizeof found);
    return status_fail(STATUS_INVALID, "%s: %s: expected %s, file says %s", label, key, expected,
                       found);
}

enum status folder_json_read_int(const char *label, const json_t *object, const char *key,
                          struct folder_json_range range, int64_t *value)
{
    const json_t *found = folder_json_find(object, key);
    if (!found) {
        return STATUS_OK;
    }
    const double real = json_is_real(found) ? json_real_value(found) : 0.5;
    const bool whole = json_is_real(found) && fabs(real) < 9e15 && floor(real) == real;
    const int64_t number = whole ? (int64_t)real : (int64_t)json_integer_value(found);
    if ((!json_is_integer(found) && !whole) || number < range.min || number > range.max) {
        char expected[64];
        snprintf(expected, sizeof expected, "a whole number from %" PRId64 " to %" PRId64,
                 range.min, range.max);
        return wrong(label, key, expected, found);
    }
    *value = number;
    return STATUS_OK;
}

enum status folder_json_read_float(const char *label, const json_t *object, const char *key,
                                   double *value)
{
    const json_t *found = folder_json_find(object, key);
    if (!found) {
        return STATUS_OK;
    }
    if (!json_is_number(found) || !isfinite(json_number_value(found))) {
        return wrong(label, key, "a number", found);
    }
    *value = json_number_value(found);
    return STATUS_OK;
}

enum status folder_json_read_flag(const char *label, const json_t *object, const char *key,
                                  int *value)
{
    const json_t *found = folder_json_find(object, key);
    if (!found) {
        return STATUS_OK;
    }
    if (!json_is_boolean(found)) {
        return wrong(label, key, "true or false", found);
    }
    *value = json_is_true(found);
    return STATUS_OK;
}

enum status folder_json_read_text(const char *label, const json_t *object, const char *key,
                                  const char **value)
{
    const json_t *found = folder_json_find(object, key);
    if (!found) {
        return STATUS_OK;
    }
    if (!json_is_string(found)) {
        return wrong(label, key, "a text", found);
    }
    *value = json_string_value(found);
    return STATUS_OK;
}
