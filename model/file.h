/* file: opening and reading files that hold weights. Private to model. */
#ifndef MODEL_FILE_H
#define MODEL_FILE_H

#include <stdint.h>

#include "base/base.h"

/* Opens a regular file that is not empty; never waits for a pipe or device. `kind` says what was
 * expected ("GGUF file"). *fd is to be closed after a failure too, unless it is negative. */
enum status file_open(const char *path, const char *kind, int *fd, uint64_t *n_bytes);
/* Bytes [at, at + n), all of them; `what` is read there, for the sentence. Any thread. */
enum status file_read_all(int fd, const char *label, const char *what, uint64_t at, uint64_t n, void *out);
/* The weights have been copied: what is cached of a large file may go. */
void file_consumed(int fd, uint64_t n_bytes);

#endif
