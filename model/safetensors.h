/* safetensors: the structure of a safetensors file, checked. Private to model, of the full library.
 *
 *     n u64 | n bytes of JSON: { name: { dtype, shape, data_offsets: [begin, end] }, ... } | data
 *
 * What it promises afterwards: names are printable ASCII and unique, dtypes are floats we read, every
 * tensor has as many bytes as its shape says, in the file, shared with no other tensor.
 */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include "model/folder_json.h"
#include "model/model.h"
#include "model/names.h"

enum { SAFETENSORS_LABEL_CAP = 256, SAFETENSORS_MAX_TENSORS = 1 << 18, SAFETENSORS_MAX_NAME = 200 };

struct safetensor {
    const char *name;               /* in the header's JSON */
    enum tensor_type type;          /* F32, F16, BF16 */
    int32_t n_dims;
    int64_t dims[MODEL_MAX_DIMS];   /* dims[0] is the contiguous one: the file's shape from its end */
    uint64_t begin, bytes;          /* begin: from the beginning of the file */
};
struct safetensors {
    char label[SAFETENSORS_LABEL_CAP];
    int fd;                         /* -1: none */
    uint64_t n_bytes;               /* of the file */
    json_t *header;
    struct safetensor *tensors;     /* [n_tensors] in the header's order */
    int64_t n_tensors;
    struct name_index index;
};

/* safetensors_close() after a failure too. */
enum status safetensors_open(const char *path, struct safetensors *file);
/* The same over the first bytes of a file of n_file bytes: its length and header, at least. */
enum status safetensors_parse(const char *label, const void *bytes, size_t n_bytes, uint64_t n_file,
                              struct safetensors *file);
void safetensors_close(struct safetensors *file);
int64_t safetensors_find(const struct safetensors *file, const char *name); /* -1: none */

#endif
