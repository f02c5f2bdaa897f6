/* safetensors: from a header's JSON to a checked table of tensors. */
#include "model/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/file.h"

enum { LENGTH_BYTES = 8 };

static const struct { const char *name; int type; } DTYPES[] = {
    { "F32", TENSOR_F32 }, { "F16", TENSOR_F16 }, { "BF16", TENSOR_BF16 },
};

/* ---- one tensor ---- */

static enum status check_name(const struct safetensors *file, const char *name)
{
    const size_t n = strlen(name);
    if (n < 1 || n > SAFETENSORS_MAX_NAME) {
        return status_fail(STATUS_INVALID,
                           "%s: a tensor's name has %zu characters, expected 1 to %d", file->label,
                           n, SAFETENSORS_MAX_NAME);
    }
    for (size_t i = 0; i < n; i++) {
        if (name[i] < 0x20 || name[i] > 0x7e) {
            return status_fail(STATUS_INVALID,
                               "%s: a tensor's name holds byte 0x%02x, expected printable ASCII",
                               file->label, (unsigned char)name[i]);
        }
    }
    return STATUS_OK;
}

static enum status read_dtype(const struct safetensors *file, struct safetensor *tensor,
                              const json_t *entry)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    char found[48];
    for (size_t i = 0; dtype && i < sizeof DTYPES / sizeof DTYPES[0]; i++) {
        if (strcmp(dtype, DTYPES[i].name) == 0) {
            tensor->type = (enum tensor_type)DTYPES[i].type;
            return STATUS_OK;
        }
    }
    folder_json_value_text(json_object_get(entry, "dtype"), found, sizeof found);
    return status_fail(STATUS_UNSUPPORTED, "%s: %s: expected dtype F32, F16 or BF16, file says %s",
                       file->label, tensor->name, dtype ? found : "none");
}

/* The shape, and how many bytes it means; a scalar is a vector of one. */
static enum status read_shape(const struct safetensors *file, struct safetensor *tensor,
                              const json_t *entry)
{
    const json_t *shape = json_object_get(entry, "shape");
    const uint64_t element = tensor_type_info((uint32_t)tensor->type)->block_bytes;
    const uint64_t most = UINT64_C(1) << 59; /* elements: their bytes still fit */
    const size_t n = json_array_size(shape);
    uint64_t elements = 1;
    if (!json_is_array(shape) || n > MODEL_MAX_DIMS) {
        return status_fail(STATUS_INVALID, "%s: %s: expected a shape of at most %d numbers",
                           file->label, tensor->name, MODEL_MAX_DIMS);
    }
    tensor->n_dims = n > 0 ? (int32_t)n : 1;
    tensor->dims[0] = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *dim = json_array_get(shape, n - 1 - i);
        const int64_t value = (int64_t)json_integer_value(dim);
        if (!json_is_integer(dim) || value < 1 || (uint64_t)value > most / elements) {
            char found[96];
            folder_json_value_text(shape, found, sizeof found);
            return status_fail(
                STATUS_INVALID,
                "%s: %s: expected a shape of numbers above 0 whose product is below 2^59, file says %s",
                file->label, tensor->name, found);
        }
        tensor->dims[i] = value;
        elements *= (uint64_t)value;
    }
    tensor->bytes = elements * element;
    return STATUS_OK;
}

static enum status read_offsets(const struct safetensors *file, struct safetensor *tensor,
                                const json_t *entry, uint64_t data_begin)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    const uint64_t n_data = file->n_bytes - data_begin;
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        json_integer_value(first) < 0 || json_integer_value(last) < json_integer_value(first)) {
        char found[64];
        folder_json_value_text(offsets, found, sizeof found);
        return status_fail(
            STATUS_INVALID,
            "%s: %s: expected data_offsets of a beginning and an end behind it, file says %s",
            file->label, tensor->name, offsets ? found : "nothing");
    }
    const uint64_t begin = (uint64_t)json_integer_value(first),
                   end = (uint64_t)json_integer_value(last);
    if (end > n_data) {
        return status_fail(STATUS_INVALID,
                           "%s: %s: its data ends at byte %" PRIu64 ", the file holds %" PRIu64
                           " bytes of data: it is cut or wrong",
                           file->label, tensor->name, end, n_data);
    }
    if (end - begin != tensor->bytes) {
        return status_fail(STATUS_INVALID,
                           "%s: %s: shape and dtype mean %" PRIu64
                           " bytes, data_offsets say %" PRIu64,
                           file->label, tensor->name, tensor->bytes, end - begin);
    }
    tensor->begin = data_begin + begin;
    return STATUS_OK;
}

static enum status read_tensor(struct safetensors *file, const char *name, const json_t *entry,
                               uint64_t data_begin)
{
    struct safetensor *tensor = &file->tensors[file->n_tensors];
    int64_t existing;
    TRY(check_name(file, name));
    tensor->name = name;
    if (!json_is_object(entry)) {
        return status_fail(STATUS_INVALID,
                           "%s: %s: expected an object with dtype, shape and data_offsets",
                           file->label, name);
    }
    TRY(read_dtype(file, tensor, entry));
    TRY(read_shape(file, tensor, entry));
    TRY(read_offsets(file, tensor, entry, data_begin));
    TRY(name_index_add(&file->index, name, (uint32_t)strlen(name), (uint32_t)file->n_tensors,
                       &existing));
    ASSERT(existing < 0); /* duplicate keys do not come through the parser */
    file->n_tensors++;
    return STATUS_OK;
}

/* ---- where tensors lie ---- */

static int compare_places(const void *a, const void *b)
{
    const struct safetensor *const *x = a, *const *y = b;
    return (*x)->begin < (*y)->begin ? -1 : (*x)->begin > (*y)->begin;
}

static enum status check_overlap(const struct safetensors *file)
{
    const struct safetensor **order = mem_alloc((size_t)file->n_tensors, sizeof *order);
    enum status status = STATUS_OK;
    if (!order) {
        return status_fail(STATUS_NO_MEMORY, "no memory to check %lld tensors",
                           (long long)file->n_tensors);
    }
    for (int64_t i = 0; i < file->n_tensors; i++) {
        order[i] = &file->tensors[i];
    }
    qsort(order, (size_t)file->n_tensors, sizeof(struct safetensor *), compare_places);
    for (int64_t i = 1; i < file->n_tensors && status == STATUS_OK; i++) {
        if (order[i]->begin < order[i - 1]->begin + order[i - 1]->bytes) {
            status = status_fail(STATUS_INVALID, "%s: tensors %s and %s overlap at byte %" PRIu64,
                                 file->label, order[i - 1]->name, order[i]->name, order[i]->begin);
        }
    }
    mem_free(order);
    return status;
}

/* ---- the file ---- */

static enum status read_tensors(struct safetensors *file, uint64_t data_begin)
{
    const char *name;
    json_t *entry;
    const size_t n = json_object_size(file->header);
    if (n > SAFETENSORS_MAX_TENSORS) {
        return status_fail(STATUS_INVALID, "%s: %zu tensors, expected at most %d", file->label, n,
                           SAFETENSORS_MAX_TENSORS);
    }
    file->tensors = mem_alloc(n, sizeof *file->tensors);
    if (!file->tensors) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a table of %zu tensors", n);
    }
    json_object_foreach(file->header, name, entry)
    {
        if (strcmp(name, "__metadata__") != 0) {
            TRY(read_tensor(file, name, entry, data_begin));
        }
    }
    return check_overlap(file);
}

static enum status check_length(const struct safetensors *file, uint64_t n_header)
{
    if (n_header > file->n_bytes - LENGTH_BYTES) {
        return status_fail(STATUS_INVALID,
                           "%s: a header of %" PRIu64 " bytes in a file of %" PRIu64
                           ": not a safetensors file, or cut",
                           file->label, n_header, file->n_bytes);
    }
    if (n_header > FOLDER_JSON_MAX_FILE_BYTES) {
        return status_fail(STATUS_INVALID, "%s: a header of %" PRIu64 " bytes, expected at most %d",
                           file->label, n_header, FOLDER_JSON_MAX_FILE_BYTES);
    }
    return STATUS_OK;
}

static void set_label(struct safetensors *file, const char *label)
{
    *file = (struct safetensors){ .fd = -1 };
    snprintf(file->label, sizeof file->label, "%s", label);
    for (char *at = file->label; *at; at++) {
        *at = (unsigned char)*at < 0x20 || *at == 0x7f ? '?' : *at;
    }
}

enum status safetensors_parse(const char *label, const void *bytes, size_t n_bytes, uint64_t n_file,
                              struct safetensors *file)
{
    uint64_t n_header;
    set_label(file, label);
    file->n_bytes = n_file;
    ASSERT(n_bytes <= n_file);
    if (n_bytes < LENGTH_BYTES) {
        return status_fail(STATUS_INVALID, "%s: %" PRIu64 " bytes are no safetensors file",
                           file->label, n_file);
    }
    memcpy(&n_header, bytes, sizeof n_header);
    TRY(check_length(file, n_header));
    ASSERT(n_header <= n_bytes - LENGTH_BYTES);
    TRY(folder_json_parse(file->label, (const char *)bytes + LENGTH_BYTES, (size_t)n_header,
                          &file->header));
    return read_tensors(file, LENGTH_BYTES + n_header);
}

/* Reads length and header into a buffer of its own. */
static enum status read_header(struct safetensors *file, unsigned char **bytes, size_t *n_bytes)
{
    uint64_t n_header;
    if (file->n_bytes < LENGTH_BYTES) {
        return status_fail(STATUS_INVALID, "%s: %" PRIu64 " bytes are no safetensors file",
                           file->label, file->n_bytes);
    }
    TRY(file_read_all(file->fd, file->label, "the header's length", 0, sizeof n_header, &n_header));
    TRY(check_length(file, n_header));
    *n_bytes = (size_t)n_header + LENGTH_BYTES;
    *bytes = mem_alloc(*n_bytes, 1);
    if (!*bytes) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a header of %" PRIu64 " bytes",
                           n_header);
    }
    return file_read_all(file->fd, file->label, "the header", 0, *n_bytes, *bytes);
}

enum status safetensors_open(const char *path, struct safetensors *file)
{
    unsigned char *bytes = NULL;
    size_t n_bytes = 0;
    int fd;
    uint64_t n_file = 0;
    set_label(file, path);
    enum status status = file_open(path, "safetensors file", &fd, &n_file);
    file->fd = fd;
    file->n_bytes = n_file;
    if (status == STATUS_OK) {
        status = read_header(file, &bytes, &n_bytes);
    }
    if (status == STATUS_OK) {
        status = safetensors_parse(path, bytes, n_bytes, n_file, file);
        file->fd = fd;
    }
    mem_free(bytes);
    return status;
}

void safetensors_close(struct safetensors *file)
{
    name_index_deinit(&file->index);
    mem_free(file->tensors);
    json_decref(file->header);
    if (file->fd >= 0) {
        close(file->fd);
    }
    *file = (struct safetensors){ .fd = -1 };
}

int64_t safetensors_find(const struct safetensors *file, const char *name)
{
    return name_index_find(&file->index, name, (uint32_t)strlen(name));
}
