/* gguf_file: one GGUF file, or its bytes in memory. Private to model.
 *
 * The header is read through a mapping, so that vocabularies need no copy of their text. Tensor rows
 * are read with pread: a file that is cut or on a failing disk while we read gives a sentence, not a
 * signal, and its pages never count as ours.
 */
#ifndef MODEL_GGUF_FILE_H
#define MODEL_GGUF_FILE_H

#include "model/file.h"
#include "model/gguf.h"

struct gguf_file {
    struct gguf gguf;
    int fd;          /* -1: bytes in memory */
    void *mapping;   /* of the whole file, or NULL */
};

/* Opens and parses; gguf_file_close() after a failure too. */
enum status gguf_file_open(const char *path, struct gguf_file *file);
enum status gguf_file_open_bytes(const char *label, const void *bytes, size_t n_bytes,
                                 struct gguf_file *file);
void gguf_file_close(struct gguf_file *file);
/* Bytes [at, at + n), which lie in the file; `what` is read there, for the sentence. Any thread. */
enum status gguf_file_read(const struct gguf_file *file, const char *what, uint64_t at, uint64_t n,
                           void *out);
/* ---- one model in several files: NAME-00001-of-00003.gguf ---- */
struct gguf_split { int32_t no, count; int64_t n_tensors; }; /* count 1: whole; n_tensors -1: not said */
enum status gguf_split_read(const struct gguf *gguf, struct gguf_split *split);
/* The path of part `no` (from 0) beside the first part's; refused where that is not named like one. */
enum status gguf_split_path(const char *first_path, const struct gguf_split *split, int32_t no,
                            char *path, size_t cap);

#endif
