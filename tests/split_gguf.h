/* split_gguf: a GGUF file in memory cut into the files of a split one, right or wrong in one place.
 *
 * The first part holds the keys and no tensor, as other programs make them too; the tensors are spread
 * over the rest.
 */
#ifndef TESTS_SPLIT_GGUF_H
#define TESTS_SPLIT_GGUF_H

#include <stddef.h>
#include <stdint.h>

#include "tests/small_folder.h"

/* What is wrong with the parts; zero: nothing. */
struct split_change {
    int missing;          /* this part is not there */
    int repeats;          /* this part is a copy of the one before it */
    uint32_t n_tensors;   /* split.tensors.count says so, if not 0 */
    uint32_t count;       /* split.count of the second part says so, if not 0 */
    int twice;            /* the last part holds a tensor of the first */
    const char *pattern;  /* how parts are named */
};

/* Writes the parts into the folder `out`; n_parts is at least 2. */
void split_gguf_write(const struct small_folder *out, const unsigned char *whole, size_t n_whole, int n_parts,
                      const struct split_change *change);
/* The path of part `no`, counted from 0. */
void split_gguf_path(const struct small_folder *out, const struct split_change *change, int n_parts, int no,
                     char path[512]);

#endif
