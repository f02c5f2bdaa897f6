/* widened_source: see the header. */
#include "tests/widened_source.h"

#include "model/source.h"

struct widened_source {
    struct model_source base;
    struct model_source *inner;
};

static void widened_close(struct model_source *source)
{
    mem_free(source->tensors);
    model_source_close(((struct widened_source *)source)->inner);
}

static enum status widened_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                                int64_t n_rows, void *out)
{
    struct model_source *inner = ((struct widened_source *)source)->inner;
    const struct model_tensor_info *info = &inner->tensors[tensor_idx];
    unsigned char *row = mem_alloc(source_row_bytes(info), 1);
    enum status status = row ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for a row");
    for (int64_t i = 0; i < n_rows && status == STATUS_OK; i++) {
        status = model_source_read(inner, tensor_idx, first_row + i, 1, row);
        tensor_row_to_f32((enum tensor_type)info->type, row, info->dims[0],
                          (float *)out + i * info->dims[0]);
    }
    mem_free(row);
    return status;
}

static const struct source_kind WIDENED_SOURCE = { .close = widened_close, .read = widened_read };

enum status widened_source_open(const char *name, struct model_source **out)
{
    struct widened_source *self = mem_alloc(1, sizeof *self);
    ASSERT(self);
    self->base.kind = &WIDENED_SOURCE;
    TRY(model_source_open(name, &self->inner));
    self->base.config = self->inner->config;
    self->base.n_tensors = self->inner->n_tensors;
    self->base.tensors = mem_alloc((size_t)self->base.n_tensors, sizeof *self->base.tensors);
    ASSERT(self->base.tensors);
    for (int64_t i = 0; i < self->base.n_tensors; i++) {
        struct model_tensor_info *info = &self->base.tensors[i];
        *info = self->inner->tensors[i];
        info->type = TENSOR_F32;
        info->bytes = source_row_bytes(info) * (uint64_t)source_n_rows(info);
        self->base.total_bytes += info->bytes;
    }
    *out = &self->base;
    return source_index_tensors(&self->base);
}
