/* gguf: the structure of a GGUF file (v2, v3), checked. Private to model.
 *
 * Parses bytes that are already in memory (a mapping or a buffer) and points into them. What it
 * promises afterwards: every key and tensor name is printable ASCII and unique; every value lies in
 * the file; every tensor has 1 to 4 dimensions whose product fits, whole blocks per row, a known
 * type, and bytes that are aligned, in the file, and shared with no other tensor. What values mean
 * is config.c's business.
 */
#ifndef MODEL_GGUF_H
#define MODEL_GGUF_H

#include <stdint.h>

#include "model/model.h"
#include "model/names.h"

enum gguf_type {
    GGUF_UINT8, GGUF_INT8, GGUF_UINT16, GGUF_INT16, GGUF_UINT32, GGUF_INT32, GGUF_FLOAT32, GGUF_BOOL,
    GGUF_STRING, GGUF_ARRAY, GGUF_UINT64, GGUF_INT64, GGUF_FLOAT64, GGUF_TYPE_COUNT
};
enum {
    GGUF_MAX_KEYS = 1 << 16,
    GGUF_MAX_TENSORS = 1 << 17,
    GGUF_MAX_KEY_LEN = 65535,   /* by the format */
    GGUF_MAX_TENSOR_NAME = 255,
    GGUF_MAX_ALIGNMENT = 1 << 20,
    GGUF_MAX_NESTING = 4,       /* arrays of arrays */
    GGUF_LABEL_CAP = 256
};

struct gguf_key {
    const char *name;           /* in the file, not NUL-terminated */
    uint32_t name_len;
    uint32_t type, elem_type;   /* enum gguf_type; elem_type of arrays */
    uint64_t n;                 /* elements of an array, bytes of a string, else 1 */
    const unsigned char *data;  /* first byte of the value (of a string: of its text) */
};

struct gguf {
    char label[GGUF_LABEL_CAP]; /* how sentences call the file */
    const unsigned char *bytes; /* borrowed */
    uint64_t n_bytes;
    uint32_t version;
    uint64_t alignment;
    struct gguf_key *keys;
    uint32_t n_keys;
    struct name_index key_index;
    struct model_tensor_info *tensors; /* [n_tensors], names in tensor_names */
    uint64_t *tensor_begin;     /* [n_tensors] first byte, from the beginning of the file */
    uint32_t n_tensors;
    struct name_index tensor_index;
    char *tensor_names;
};

/* Fills *gguf (label set by the caller) from bytes, which must outlive it. gguf_deinit after a
 * failure too. STATUS_INVALID or STATUS_UNSUPPORTED with the sentence. */
enum status gguf_parse(struct gguf *gguf, const void *bytes, uint64_t n_bytes);
void gguf_deinit(struct gguf *gguf);

/* NULL when there is no such key. */
const struct gguf_key *gguf_find(const struct gguf *gguf, const char *name);

/* Readers of one key. A missing key leaves *value as it is; a key of another type, or out of range,
 * is refused with a sentence that names what was expected. */
struct gguf_range { int64_t min, max; };
enum status gguf_read_int(const struct gguf *gguf, const char *name, struct gguf_range range,
                          int64_t *value);
enum status gguf_read_float(const struct gguf *gguf, const char *name, double *value); /* finite */
enum status gguf_read_bool(const struct gguf *gguf, const char *name, bool *value);
enum status gguf_read_text(const struct gguf *gguf, const char *name, struct model_text *value);

/* "string[32000]", "uint32": what a key holds. */
void gguf_type_text(const struct gguf_key *key, char *text, size_t cap);
/* A value for people: numbers and strings in full (cut when long), arrays by their first elements. */
void gguf_value_text(const struct gguf_key *key, char *text, size_t cap);
/* The integer or float in a scalar at `data`. */
int64_t gguf_scalar_int(uint32_t type, const unsigned char *data);
double gguf_scalar_float(uint32_t type, const unsigned char *data);
/* Bytes of one scalar; 0 for strings, arrays and unknown types. */
uint32_t gguf_scalar_bytes(uint32_t type);
const char *gguf_type_name(uint32_t type);
static inline bool gguf_type_is_int(uint32_t type)
{
    return type <= GGUF_INT32 || type == GGUF_UINT64 || type == GGUF_INT64;
}

/* Copies text, replacing control characters, cut at a character boundary; always NUL-terminated. */
void gguf_copy_text(struct model_text text, char *out, size_t cap);

#endif
