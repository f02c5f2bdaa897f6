/* fuzz_safetensors: any bytes as a safetensors file. What is accepted must keep its promises: names
 * found again, tensors inside the file, of the size their shapes say, sharing no byte. */
#include <stdint.h>
#include <string.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check_tensor(const struct safetensors *file, int64_t idx)
{
    const struct safetensor *tensor = &file->tensors[idx];
    uint64_t bytes = tensor_type_info((uint32_t)tensor->type)->block_bytes;
    for (int32_t d = 0; d < tensor->n_dims; d++) {
        ASSERT(tensor->dims[d] >= 1);
        bytes *= (uint64_t)tensor->dims[d];
    }
    ASSERT(bytes == tensor->bytes);
    ASSERT(tensor->begin <= file->n_bytes && tensor->bytes <= file->n_bytes - tensor->begin);
    ASSERT(safetensors_find(file, tensor->name) == idx);
    for (int64_t i = 0; i < idx && idx < 64; i++) {
        const struct safetensor *other = &file->tensors[i];
        ASSERT(other->begin + other->bytes <= tensor->begin || tensor->begin + tensor->bytes <= other->begin);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct safetensors file;
    if (safetensors_parse("input", data, n_bytes, n_bytes, &file) == STATUS_OK) {
        for (int64_t i = 0; i < file.n_tensors; i++) {
            check_tensor(&file, i);
        }
    } else {
        ASSERT(strlen(status_message()) > 0);
    }
    safetensors_close(&file);
    return 0;
}
