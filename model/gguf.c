/* gguf: from bytes to checked tables of keys and tensors.
 *
 *     "GGUF" | version u32 | n_tensors u64 | n_keys u64
 *     n_keys    x  name | type u32 | value            (string: length u64, bytes)
 *     n_tensors x  name | n_dims u32 | dims u64[] | type u32 | offset u64
 *     padding to the alignment | tensor data          (offsets count from here)
 *
 * Nothing is believed: a count is compared with the bytes that are left before it is used, tables
 * grow with what has really been read, so a lying header cannot ask for memory.
 */
#include "model/gguf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct cursor {
    const unsigned char *bytes;
    uint64_t n_bytes, at;
    const char *label;
};

enum { MIN_KEY_BYTES = 8 + 1 + 4 + 1, MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, FIRST_ENTRIES = 64 };

static enum status take(struct cursor *cursor, uint64_t n, const char *what,
                        const unsigned char **out)
{
    *out = cursor->bytes + cursor->at;
    if (n > cursor->n_bytes - cursor->at) {
        return status_fail(STATUS_INVALID,
                           "%s: the file is cut: %s needs %" PRIu64 " bytes at byte %" PRIu64
                           ", the file has %" PRIu64,
                           cursor->label, what, n, cursor->at, cursor->n_bytes);
    }
    cursor->at += n;
    return STATUS_OK;
}

static enum status take_u32(struct cursor *cursor, const char *what, uint32_t *value)
{
    const unsigned char *data;
    TRY(take(cursor, sizeof *value, what, &data));
    memcpy(value, data, sizeof *value);
    return STATUS_OK;
}

static enum status take_u64(struct cursor *cursor, const char *what, uint64_t *value)
{
    const unsigned char *data;
    TRY(take(cursor, sizeof *value, what, &data));
    memcpy(value, data, sizeof *value);
    return STATUS_OK;
}

/* A name: 1 to max_len printable ASCII characters (so it may be shown in a sentence). */
static enum status take_name(struct cursor *cursor, const char *what, uint64_t max_len,
                             const char **name, uint32_t *len)
{
    uint64_t n;
    const unsigned char *data;
    TRY(take_u64(cursor, what, &n));
    if (n == 0 || n > max_len) {
        return status_fail(STATUS_INVALID,
                           "%s: %s at byte %" PRIu64 " has %" PRIu64 " characters, expected 1 to %" PRIu64,
                           cursor->label, what, cursor->at - 8, n, max_len);
    }
    TRY(take(cursor, n, what, &data));
    for (uint64_t i = 0; i < n; i++) {
        if (data[i] < 0x20 || data[i] > 0x7e) {
            return status_fail(STATUS_INVALID,
                               "%s: %s at byte %" PRIu64 " holds byte 0x%02x, expected printable ASCII",
                               cursor->label, what, cursor->at - n + i, data[i]);
        }
    }
    *name = (const char *)data;
    *len = (uint32_t)n;
    return STATUS_OK;
}

/* Room for one more entry in a table of n: the table, moved where it had to grow; NULL when there is
 * no memory (the old one is still there). */
static void *grow_table(void *table, uint32_t n, uint32_t *cap, size_t entry_bytes)
{
    if (n < *cap) {
        return table;
    }
    const uint32_t wanted = *cap > 0 ? *cap * 2 : FIRST_ENTRIES;
    void *grown = mem_realloc(table, wanted, entry_bytes);
    if (!grown) {
        status_fail(STATUS_NO_MEMORY, "no memory for a table of %u entries", wanted);
        return NULL;
    }
    *cap = wanted;
    return grown;
}

/* ---- keys ---- */

static enum status skip_array(struct cursor *cursor, const struct gguf_key *key, uint32_t elem_type,
                              uint64_t n, int depth);

static enum status skip_element(struct cursor *cursor, const struct gguf_key *key, uint32_t type,
                                int depth)
{
    const unsigned char *data;
    uint64_t n;
    if (type == GGUF_STRING) {
        TRY(take_u64(cursor, "a string's length", &n));
        return take(cursor, n, "a string", &data);
    }
    uint32_t elem_type;
    TRY(take_u32(cursor, "an array's type", &elem_type));
    TRY(take_u64(cursor, "an array's length", &n));
    return skip_array(cursor, key, elem_type, n, depth + 1);
}

static enum status skip_array(struct cursor *cursor, const struct gguf_key *key, uint32_t elem_type,
                              uint64_t n, int depth)
{
    if (elem_type >= GGUF_TYPE_COUNT) {
        return status_fail(STATUS_INVALID, "%s: key %.*s: unknown array type %u", cursor->label,
                           (int)key->name_len, key->name, elem_type);
    }
    if (depth > GGUF_MAX_NESTING) {
        return status_fail(STATUS_INVALID, "%s: key %.*s: arrays nested more than %d deep",
                           cursor->label, (int)key->name_len, key->name, GGUF_MAX_NESTING);
    }
    const uint32_t scalar_bytes = gguf_scalar_bytes(elem_type);
    const uint64_t least = scalar_bytes > 0 ? scalar_bytes : elem_type == GGUF_STRING ? 8 : 12;
    if (n > (cursor->n_bytes - cursor->at) / least) {
        return status_fail(STATUS_INVALID,
                           "%s: key %.*s: an array of %" PRIu64
                           " elements does not fit into the %" PRIu64 " bytes that are left",
                           cursor->label, (int)key->name_len, key->name, n,
                           cursor->n_bytes - cursor->at);
    }
    if (scalar_bytes > 0) {
        const unsigned char *data;
        return take(cursor, n * scalar_bytes, "an array", &data);
    }
    for (uint64_t i = 0; i < n; i++) {
        TRY(skip_element(cursor, key, elem_type, depth));
    }
    return STATUS_OK;
}

static enum status take_value(struct cursor *cursor, struct gguf_key *key)
{
    TRY(take_u32(cursor, "a value's type", &key->type));
    key->n = 1;
    if (key->type == GGUF_STRING) {
        TRY(take_u64(cursor, "a string's length", &key->n));
        return take(cursor, key->n, "a string", &key->data);
    }
    if (key->type == GGUF_ARRAY) {
        TRY(take_u32(cursor, "an array's type", &key->elem_type));
        TRY(take_u64(cursor, "an array's length", &key->n));
        key->data = cursor->bytes + cursor->at;
        return skip_array(cursor, key, key->elem_type, key->n, 1);
    }
    const uint32_t bytes = gguf_scalar_bytes(key->type);
    if (bytes == 0) {
        return status_fail(STATUS_INVALID, "%s: key %.*s: unknown value type %u", cursor->label,
                           (int)key->name_len, key->name, key->type);
    }
    TRY(take(cursor, bytes, "a value", &key->data));
    if (key->type == GGUF_BOOL && key->data[0] > 1) {
        return status_fail(STATUS_INVALID, "%s: key %.*s: expected a truth value of 0 or 1, file says %u",
                           cursor->label, (int)key->name_len, key->name, key->data[0]);
    }
    return STATUS_OK;
}

static enum status parse_keys(struct gguf *gguf, struct cursor *cursor, uint64_t n_keys)
{
    uint32_t cap = 0;
    for (uint64_t i = 0; i < n_keys; i++) {
        void *grown = grow_table(gguf->keys, gguf->n_keys, &cap, sizeof *gguf->keys);
        if (!grown) {
            return STATUS_NO_MEMORY;
        }
        gguf->keys = grown;
        struct gguf_key *key = &gguf->keys[gguf->n_keys];
        *key = (struct gguf_key){ 0 };
        TRY(take_name(cursor, "a key's name", GGUF_MAX_KEY_LEN, &key->name, &key->name_len));
        TRY(take_value(cursor, key));
        int64_t existing;
        TRY(name_index_add(&gguf->key_index, key->name, key->name_len, gguf->n_keys, &existing));
        if (existing >= 0) {
            return status_fail(STATUS_INVALID, "%s: key %.*s stands in the file twice", gguf->label,
                               (int)key->name_len, key->name);
        }
        gguf->n_keys++;
    }
    return STATUS_OK;
}

/* ---- tensors ---- */

/* While the table grows, names point into the file; name_len lives beside them until they are copied. */
struct tensor_name { const char *bytes; uint32_t len; };

static enum status check_dims(const struct gguf *gguf, const struct tensor_name *name,
                              struct model_tensor_info *info)
{
    const struct tensor_type_info *type = tensor_type_info(info->type);
    if (!type) {
        return status_fail(STATUS_UNSUPPORTED, "%s: tensor %.*s: unknown type number %u", gguf->label,
                           (int)name->len, name->bytes, info->type);
    }
    uint64_t elems = 1;
    for (int32_t i = 0; i < info->n_dims; i++) {
        const uint64_t dim = (uint64_t)info->dims[i];
        if (dim == 0 || dim > INT64_MAX / 16 || elems > (uint64_t)INT64_MAX / 16 / dim) {
            return status_fail(STATUS_INVALID,
                               "%s: tensor %.*s: dimension %d is %" PRIu64
                               ", expected at least 1 and a product below 2^59",
                               gguf->label, (int)name->len, name->bytes, i, dim);
        }
        elems *= dim;
    }
    if (info->dims[0] % type->block_elems != 0) {
        return status_fail(STATUS_INVALID,
                           "%s: tensor %.*s: a row of %" PRId64 " elements is no multiple of %u, the block of %s",
                           gguf->label, (int)name->len, name->bytes, info->dims[0], type->block_elems,
                           type->name);
    }
    info->bytes = elems / type->block_elems * type->block_bytes;
    return STATUS_OK;
}

static enum status take_tensor(struct gguf *gguf, struct cursor *cursor, struct tensor_name *name,
                               struct model_tensor_info *info, uint64_t *offset)
{
    uint32_t n_dims;
    *info = (struct model_tensor_info){ 0 };
    TRY(take_name(cursor, "a tensor's name", GGUF_MAX_TENSOR_NAME, &name->bytes, &name->len));
    TRY(take_u32(cursor, "a tensor's number of dimensions", &n_dims));
    if (n_dims < 1 || n_dims > MODEL_MAX_DIMS) {
        return status_fail(STATUS_INVALID, "%s: tensor %.*s: expected 1 to %d dimensions, file says %u",
                           gguf->label, (int)name->len, name->bytes, MODEL_MAX_DIMS, n_dims);
    }
    info->n_dims = (int32_t)n_dims;
    for (uint32_t i = 0; i < n_dims; i++) {
        uint64_t dim;
        TRY(take_u64(cursor, "a tensor's dimensions", &dim));
        info->dims[i] = dim > INT64_MAX ? INT64_MAX : (int64_t)dim; /* too large is refused below */
    }
    TRY(take_u32(cursor, "a tensor's type", &info->type));
    TRY(take_u64(cursor, "a tensor's offset", offset));
    return check_dims(gguf, name, info);
}

/* Names move from the file into one block, so that they end with NUL. */
static enum status copy_names(struct gguf *gguf, const struct tensor_name *names)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < gguf->n_tensors; i++) {
        bytes += names[i].len + 1u; /* at most 2^17 * 256 */
    }
    gguf->tensor_names = mem_alloc(bytes, 1);
    if (!gguf->tensor_names) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of tensor names", bytes);
    }
    char *at = gguf->tensor_names;
    for (uint32_t i = 0; i < gguf->n_tensors; i++) {
        memcpy(at, names[i].bytes, names[i].len);
        gguf->tensors[i].name = at;
        at += names[i].len + 1u;
    }
    return STATUS_OK;
}

/* Entry n_tensors of the three tables that grow together. */
struct tensor_tables { struct tensor_name *names; uint32_t cap_tensors, cap_begin, cap_names; };

static enum status grow_tensors(struct gguf *gguf, struct tensor_tables *tables)
{
    const uint32_t n = gguf->n_tensors;
    void *tensors = grow_table(gguf->tensors, n, &tables->cap_tensors, sizeof *gguf->tensors);
    gguf->tensors = tensors ? tensors : gguf->tensors;
    void *begin = grow_table(gguf->tensor_begin, n, &tables->cap_begin, sizeof *gguf->tensor_begin);
    gguf->tensor_begin = begin ? begin : gguf->tensor_begin;
    void *names = grow_table(tables->names, n, &tables->cap_names, sizeof *tables->names);
    tables->names = names ? names : tables->names;
    return tensors && begin && names ? STATUS_OK : STATUS_NO_MEMORY;
}

static enum status parse_tensors(struct gguf *gguf, struct cursor *cursor, uint64_t n_tensors)
{
    struct tensor_tables tables = { 0 };
    enum status status = STATUS_OK;
    for (uint64_t i = 0; i < n_tensors; i++) {
        const uint32_t at = gguf->n_tensors;
        int64_t existing;
        TRY_GOTO(grow_tensors(gguf, &tables), out);
        struct tensor_name *name = &tables.names[at];
        TRY_GOTO(take_tensor(gguf, cursor, name, &gguf->tensors[at], &gguf->tensor_begin[at]), out);
        TRY_GOTO(name_index_add(&gguf->tensor_index, name->bytes, name->len, at, &existing), out);
        if (existing >= 0) {
            status = status_fail(STATUS_INVALID, "%s: tensor %.*s stands in the file twice",
                                 gguf->label, (int)name->len, name->bytes);
            goto out;
        }
        gguf->n_tensors++;
    }
    status = gguf->n_tensors > 0 ? copy_names(gguf, tables.names) : STATUS_OK;
out:
    mem_free(tables.names);
    return status;
}

/* ---- where tensors lie ---- */

struct extent { uint64_t begin, end; uint32_t idx; };

static int compare_extents(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;
    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    return x->idx < y->idx ? -1 : x->idx > y->idx;
}

static enum status check_overlap(const struct gguf *gguf)
{
    struct extent *extents = mem_alloc(gguf->n_tensors, sizeof *extents);
    if (!extents) {
        return status_fail(STATUS_NO_MEMORY, "no memory to check %u tensors", gguf->n_tensors);
    }
    for (uint32_t i = 0; i < gguf->n_tensors; i++) {
        extents[i] = (struct extent){ .begin = gguf->tensor_begin[i],
                                      .end = gguf->tensor_begin[i] + gguf->tensors[i].bytes, .idx = i };
    }
    qsort(extents, gguf->n_tensors, sizeof *extents, compare_extents);
    enum status status = STATUS_OK;
    for (uint32_t i = 1; i < gguf->n_tensors; i++) {
        if (extents[i].begin < extents[i - 1].end) {
            status = status_fail(STATUS_INVALID, "%s: tensors %s and %s overlap at byte %" PRIu64,
                                 gguf->label, gguf->tensors[extents[i - 1].idx].name,
                                 gguf->tensors[extents[i].idx].name, extents[i].begin);
            break;
        }
    }
    mem_free(extents);
    return status;
}

static enum status check_places(struct gguf *gguf, uint64_t header_end)
{
    const uint64_t begin = (header_end + gguf->alignment - 1) & ~(gguf->alignment - 1);
    const uint64_t room = begin <= gguf->n_bytes ? gguf->n_bytes - begin : 0;
    for (uint32_t i = 0; i < gguf->n_tensors; i++) {
        const struct model_tensor_info *info = &gguf->tensors[i];
        const uint64_t offset = gguf->tensor_begin[i];
        if (offset % gguf->alignment != 0) {
            return status_fail(STATUS_INVALID,
                               "%s: tensor %s: offset %" PRIu64 " is no multiple of the alignment %" PRIu64,
                               gguf->label, info->name, offset, gguf->alignment);
        }
        if (offset > room || info->bytes > room - offset) {
            return status_fail(STATUS_INVALID,
                               "%s: tensor %s: its %" PRIu64 " bytes at offset %" PRIu64
                               " do not fit into the %" PRIu64 " bytes of tensor data: the file is cut or wrong",
                               gguf->label, info->name, info->bytes, offset, room);
        }
        gguf->tensor_begin[i] = begin + offset;
    }
    return gguf->n_tensors > 1 ? check_overlap(gguf) : STATUS_OK;
}

static enum status read_alignment(struct gguf *gguf)
{
    int64_t alignment = 32;
    TRY(gguf_read_int(gguf, "general.alignment", (struct gguf_range){ 1, GGUF_MAX_ALIGNMENT },
                      &alignment));
    if ((alignment & (alignment - 1)) != 0) {
        return status_fail(STATUS_INVALID,
                           "%s: general.alignment: expected a power of two, file says %" PRId64,
                           gguf->label, alignment);
    }
    gguf->alignment = (uint64_t)alignment;
    return STATUS_OK;
}

/* ---- header ---- */

static enum status parse_version(struct gguf *gguf, struct cursor *cursor)
{
    const unsigned char *magic;
    TRY(take(cursor, 4, "the signature", &magic));
    if (memcmp(magic, "GGUF", 4) != 0) {
        return status_fail(STATUS_INVALID,
                           "%s: not a GGUF file: expected it to begin with \"GGUF\", found bytes %02x %02x %02x %02x",
                           gguf->label, magic[0], magic[1], magic[2], magic[3]);
    }
    TRY(take_u32(cursor, "the version", &gguf->version));
    if (gguf->version == 2 || gguf->version == 3) {
        return STATUS_OK;
    }
    if ((gguf->version & 0xffffu) == 0 && gguf->version != 0) {
        return status_fail(STATUS_UNSUPPORTED, "%s: a big-endian GGUF file; only little-endian is supported",
                           gguf->label);
    }
    return status_fail(STATUS_UNSUPPORTED, "%s: expected GGUF version 2 or 3, file says %u", gguf->label,
                       gguf->version);
}

static enum status check_count(const struct cursor *cursor, const char *what, uint64_t n, uint64_t limit,
                               uint64_t least_bytes)
{
    if (n > limit || n > (cursor->n_bytes - cursor->at) / least_bytes) {
        return status_fail(STATUS_INVALID,
                           "%s: the header counts %" PRIu64 " %s: expected at most %" PRIu64
                           ", in a file of %" PRIu64 " bytes",
                           cursor->label, n, what, limit, cursor->n_bytes);
    }
    return STATUS_OK;
}

enum status gguf_parse(struct gguf *gguf, const void *bytes, uint64_t n_bytes)
{
    struct cursor cursor = { .bytes = bytes, .n_bytes = n_bytes, .label = gguf->label };
    uint64_t n_tensors, n_keys;
    gguf->bytes = bytes;
    gguf->n_bytes = n_bytes;
    TRY(parse_version(gguf, &cursor));
    TRY(take_u64(&cursor, "the number of tensors", &n_tensors));
    TRY(take_u64(&cursor, "the number of keys", &n_keys));
    TRY(check_count(&cursor, "keys", n_keys, GGUF_MAX_KEYS, MIN_KEY_BYTES));
    TRY(check_count(&cursor, "tensors", n_tensors, GGUF_MAX_TENSORS, MIN_TENSOR_BYTES));
    TRY(parse_keys(gguf, &cursor, n_keys));
    TRY(read_alignment(gguf));
    TRY(parse_tensors(gguf, &cursor, n_tensors));
    return check_places(gguf, cursor.at);
}

void gguf_deinit(struct gguf *gguf)
{
    name_index_deinit(&gguf->tensor_index);
    name_index_deinit(&gguf->key_index);
    mem_free(gguf->tensor_names);
    mem_free(gguf->tensor_begin);
    mem_free(gguf->tensors);
    mem_free(gguf->keys);
    gguf->tensor_names = NULL;
    gguf->tensor_begin = NULL;
    gguf->tensors = NULL;
    gguf->keys = NULL;
    gguf->n_tensors = gguf->n_keys = 0;
}
