/* gguf_value: what the keys of a parsed GGUF file say: typed reads, and text for people. */
#include "model/gguf.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct { const char *name; uint32_t bytes; } TYPES[GGUF_TYPE_COUNT] = {
    [GGUF_UINT8] = { "uint8", 1 },     [GGUF_INT8] = { "int8", 1 },
    [GGUF_UINT16] = { "uint16", 2 },   [GGUF_INT16] = { "int16", 2 },
    [GGUF_UINT32] = { "uint32", 4 },   [GGUF_INT32] = { "int32", 4 },
    [GGUF_FLOAT32] = { "float32", 4 }, [GGUF_BOOL] = { "bool", 1 },
    [GGUF_STRING] = { "string", 0 },   [GGUF_ARRAY] = { "array", 0 },
    [GGUF_UINT64] = { "uint64", 8 },   [GGUF_INT64] = { "int64", 8 },
    [GGUF_FLOAT64] = { "float64", 8 },
};

uint32_t gguf_scalar_bytes(uint32_t type) { return type < GGUF_TYPE_COUNT ? TYPES[type].bytes : 0; }
const char *gguf_type_name(uint32_t type) { return type < GGUF_TYPE_COUNT ? TYPES[type].name : "?"; }

int64_t gguf_scalar_int(uint32_t type, const unsigned char *data)
{
    uint64_t raw = 0;
    memcpy(&raw, data, gguf_scalar_bytes(type)); /* little-endian: low bytes first */
    switch (type) {
    case GGUF_INT8: return (int8_t)raw;
    case GGUF_INT16: return (int16_t)raw;
    case GGUF_INT32: return (int32_t)raw;
    case GGUF_UINT64: return raw > INT64_MAX ? INT64_MAX : (int64_t)raw;
    default: return (int64_t)raw;
    }
}

double gguf_scalar_float(uint32_t type, const unsigned char *data)
{
    if (type == GGUF_FLOAT32) {
        float value;
        memcpy(&value, data, sizeof value);
        return (double)value;
    }
    if (type == GGUF_FLOAT64) {
        double value;
        memcpy(&value, data, sizeof value);
        return value;
    }
    return (double)gguf_scalar_int(type, data);
}

/* ---- reads ---- */

const struct gguf_key *gguf_find(const struct gguf *gguf, const char *name)
{
    const int64_t idx = name_index_find(&gguf->key_index, name, (uint32_t)strlen(name));
    return idx >= 0 ? &gguf->keys[idx] : NULL;
}

static enum status wrong_type(const struct gguf *gguf, const char *name, const struct gguf_key *key,
                              const char *expected)
{
    char found[64];
    gguf_type_text(key, found, sizeof found);
    return status_fail(STATUS_INVALID, "%s: %s: expected %s, file has %s", gguf->label, name, expected,
                       found);
}

enum status gguf_read_int(const struct gguf *gguf, const char *name, struct gguf_range range,
                          int64_t *value)
{
    const struct gguf_key *key = gguf_find(gguf, name);
    if (!key) {
        return STATUS_OK;
    }
    if (!gguf_type_is_int(key->type)) {
        return wrong_type(gguf, name, key, "an integer");
    }
    const int64_t found = gguf_scalar_int(key->type, key->data);
    if (found < range.min || found > range.max) {
        return status_fail(STATUS_INVALID,
                           "%s: %s: expected %" PRId64 " to %" PRId64 ", file says %" PRId64, gguf->label,
                           name, range.min, range.max, found);
    }
    *value = found;
    return STATUS_OK;
}

enum status gguf_read_float(const struct gguf *gguf, const char *name, double *value)
{
    const struct gguf_key *key = gguf_find(gguf, name);
    if (!key) {
        return STATUS_OK;
    }
    if (key->type != GGUF_FLOAT32 && key->type != GGUF_FLOAT64 && !gguf_type_is_int(key->type)) {
        return wrong_type(gguf, name, key, "a number");
    }
    const double found = gguf_scalar_float(key->type, key->data);
    if (!isfinite(found)) {
        return status_fail(STATUS_INVALID, "%s: %s: expected a finite number, file says %g", gguf->label,
                           name, found);
    }
    *value = found;
    return STATUS_OK;
}

enum status gguf_read_bool(const struct gguf *gguf, const char *name, bool *value)
{
    const struct gguf_key *key = gguf_find(gguf, name);
    if (!key) {
        return STATUS_OK;
    }
    if (key->type != GGUF_BOOL) {
        return wrong_type(gguf, name, key, "a truth value");
    }
    *value = key->data[0] != 0;
    return STATUS_OK;
}

enum status gguf_read_text(const struct gguf *gguf, const char *name, struct model_text *value)
{
    const struct gguf_key *key = gguf_find(gguf, name);
    if (!key) {
        return STATUS_OK;
    }
    if (key->type != GGUF_STRING || key->n > UINT32_MAX) {
        return wrong_type(gguf, name, key, "a string below 4 GiB");
    }
    *value = (struct model_text){ .bytes = (const char *)key->data, .n_bytes = (uint32_t)key->n };
    return STATUS_OK;
}

/* ---- text for people ---- */

void gguf_type_text(const struct gguf_key *key, char *text, size_t cap)
{
    if (key->type == GGUF_ARRAY) {
        snprintf(text, cap, "%s[%" PRIu64 "]", gguf_type_name(key->elem_type), key->n);
    } else {
        snprintf(text, cap, "%s", gguf_type_name(key->type));
    }
}

void gguf_copy_text(struct model_text text, char *out, size_t cap)
{
    size_t n = text.n_bytes;
    if (n > cap - 1) {
        n = cap - 1;
        while (n > 0 && ((unsigned char)text.bytes[n] & 0xc0u) == 0x80u) {
            n--; /* not inside a UTF-8 character */
        }
    }
    for (size_t i = 0; i < n; i++) {
        const unsigned char byte = (unsigned char)text.bytes[i];
        out[i] = byte < 0x20 || byte == 0x7f ? '?' : text.bytes[i];
    }
    out[n] = '\0';
}

static void scalar_text(uint32_t type, const unsigned char *data, char *text, size_t cap)
{
    if (type == GGUF_BOOL) {
        snprintf(text, cap, "%s", data[0] ? "true" : "false");
    } else if (type == GGUF_FLOAT32 || type == GGUF_FLOAT64) {
        snprintf(text, cap, "%.9g", gguf_scalar_float(type, data));
    } else if (type == GGUF_UINT64) {
        uint64_t value;
        memcpy(&value, data, sizeof value);
        snprintf(text, cap, "%" PRIu64, value);
    } else {
        snprintf(text, cap, "%" PRId64, gguf_scalar_int(type, data));
    }
}

/* The first elements of an array of scalars or strings. */
static void array_text(const struct gguf_key *key, char *text, size_t cap)
{
    enum { SHOWN = 6 };
    const unsigned char *at = key->data;
    gguf_type_text(key, text, cap);
    for (uint64_t i = 0; i < key->n && i < SHOWN && key->elem_type != GGUF_ARRAY; i++) {
        char item[40];
        const size_t used = strlen(text);
        if (key->elem_type == GGUF_STRING) {
            uint64_t n;
            memcpy(&n, at, sizeof n);
            const uint32_t shown = n < sizeof item ? (uint32_t)n : (uint32_t)sizeof item;
            gguf_copy_text((struct model_text){ (const char *)at + sizeof n, shown }, item, sizeof item);
            at += sizeof n + n;
        } else {
            scalar_text(key->elem_type, at, item, sizeof item);
            at += gguf_scalar_bytes(key->elem_type);
        }
        snprintf(text + used, cap - used, "%s%s", i == 0 ? " " : ", ", item);
    }
    const size_t used = strlen(text);
    if (key->n > SHOWN && key->elem_type != GGUF_ARRAY) {
        snprintf(text + used, cap - used, ", ...");
    }
}

void gguf_value_text(const struct gguf_key *key, char *text, size_t cap)
{
    if (key->type == GGUF_ARRAY) {
        array_text(key, text, cap);
    } else if (key->type == GGUF_STRING) {
        const uint32_t shown = key->n < cap ? (uint32_t)key->n : (uint32_t)cap;
        gguf_copy_text((struct model_text){ (const char *)key->data, shown }, text, cap);
    } else {
        scalar_text(key->type, key->data, text, cap);
    }
}
