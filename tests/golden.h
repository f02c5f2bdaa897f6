/* golden: where the tests find data that programs other than Tandem computed, and how they read it.
 *
 * The folder is $TANDEM_SHARED, or ../shared/data seen from the root of the repository. Where it is
 * absent a test prints "skipped: no golden data" and skips; golden_or_skip() does both.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include <stdbool.h>
#include <stddef.h>

/* The folder, or NULL when there is none. */
const char *golden_dir(void);
/* Skips the running cmocka test, after the sentence, when there is no folder. */
void golden_or_skip(void);
/* "<folder>/<relative>" in buf; false when there is no folder or buf is too small. */
bool golden_path(const char *relative, char *buf, size_t buf_bytes);
bool golden_exists(const char *relative);

/* The whole file and a closing 0 that *n_bytes does not count; NULL when it cannot be read. Free
 * with golden_free. golden_read wants a path below the folder, golden_read_file any path. */
unsigned char *golden_read(const char *relative, size_t *n_bytes);
unsigned char *golden_read_file(const char *path, size_t *n_bytes);
/* A .f32 file: *n_floats little-endian floats. */
float *golden_read_floats(const char *relative, size_t *n_floats);
void golden_free(void *data);

#endif
