/* gguf_file: mapping and parsing one file, and how the files of a split model are named. */
#include "model/gguf_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void set_label(struct gguf_file *file, const char *label)
{
    *file = (struct gguf_file){ .fd = -1 };
    gguf_copy_text((struct model_text){ label, (uint32_t)strlen(label) }, file->gguf.label,
                   sizeof file->gguf.label);
}

enum status gguf_file_open(const char *path, struct gguf_file *file)
{
    uint64_t n_bytes;
    set_label(file, path);
    TRY(file_open(path, "GGUF file", &file->fd, &n_bytes));
    void *mapping = mmap(NULL, n_bytes, PROT_READ, MAP_PRIVATE, file->fd, 0);
    if (mapping == MAP_FAILED) {
        return status_fail(STATUS_IO, "cannot map model file %s: %s", path, strerror(errno));
    }
    file->mapping = mapping;
    file->gguf.n_bytes = n_bytes; /* for munmap, whatever parsing says */
    return gguf_parse(&file->gguf, mapping, n_bytes);
}

enum status gguf_file_open_bytes(const char *label, const void *bytes, size_t n_bytes,
                                 struct gguf_file *file)
{
    set_label(file, label);
    return gguf_parse(&file->gguf, bytes, n_bytes);
}

void gguf_file_close(struct gguf_file *file)
{
    gguf_deinit(&file->gguf);
    if (file->mapping) {
        munmap(file->mapping, file->gguf.n_bytes);
    }
    if (file->fd >= 0) {
        close(file->fd);
    }
    *file = (struct gguf_file){ .fd = -1 };
}

enum status gguf_file_read(const struct gguf_file *file, const char *what, uint64_t at, uint64_t n,
                           void *out)
{
    if (file->fd < 0) {
        memcpy(out, file->gguf.bytes + at, n);
        return STATUS_OK;
    }
    return file_read_all(file->fd, file->gguf.label, what, at, n, out);
}

/* ---- split files ---- */

enum { MAX_FILES = 4096 };

enum status gguf_split_read(const struct gguf *gguf, struct gguf_split *split)
{
    int64_t no = 0, count = 1;
    split->n_tensors = -1;
    TRY(gguf_read_int(gguf, "split.count", (struct gguf_range){ 0, MAX_FILES }, &count));
    TRY(gguf_read_int(gguf, "split.no", (struct gguf_range){ 0, count > 0 ? count - 1 : 0 }, &no));
    TRY(gguf_read_int(gguf, "split.tensors.count", (struct gguf_range){ 0, INT32_MAX },
                      &split->n_tensors));
    split->no = (int32_t)no;
    split->count = count > 0 ? (int32_t)count : 1;
    return STATUS_OK;
}

enum status gguf_split_path(const char *first_path, const struct gguf_split *split, int32_t no,
                            char *path, size_t cap)
{
    char tail[48];
    const size_t n = strlen(first_path);
    const int n_tail = snprintf(tail, sizeof tail, "-%05d-of-%05d.gguf", 1, split->count);
    if (n <= (size_t)n_tail || strcmp(first_path + n - (size_t)n_tail, tail) != 0) {
        return status_fail(STATUS_INVALID,
                           "%s holds the first of %d parts; expected a name that ends in %s, "
                           "with the other parts beside it",
                           first_path, split->count, tail);
    }
    const int stem = (int)(n - (size_t)n_tail);
    if (snprintf(path, cap, "%.*s-%05d-of-%05d.gguf", stem, first_path, no + 1, split->count) >=
        (int)cap) {
        return status_fail(STATUS_INVALID, "a path of %zu characters, expected at most %zu", n,
                           cap - 1);
    }
    return STATUS_OK;
}
