/* hostile_gguf: GGUF files made by hand in memory, right or wrong in one place, for the reader's tests.
 *
 * A builder appends bytes to a buffer; nothing is checked. hostile_small() is the smallest file that
 * can be loaded: one layer, width 32, two heads of 16, vocabulary of 8, matrices in Q4_0; a change of it names a thing
 * that is left out or made wrong.
 */
#ifndef TESTS_HOSTILE_GGUF_H
#define TESTS_HOSTILE_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes { unsigned char *data; size_t n, cap; };
void bytes_free(struct bytes *bytes);
void bytes_put(struct bytes *bytes, const void *data, size_t n);
void bytes_put_u32(struct bytes *bytes, uint32_t value);
void bytes_put_u64(struct bytes *bytes, uint64_t value);
void bytes_put_f32(struct bytes *bytes, float value);
void bytes_put_text(struct bytes *bytes, const char *text);
void bytes_put_header(struct bytes *bytes, uint32_t version, uint64_t n_tensors, uint64_t n_keys);
void bytes_put_key_u32(struct bytes *bytes, const char *key, uint32_t value);
void bytes_put_key_f32(struct bytes *bytes, const char *key, float value);
void bytes_put_key_text(struct bytes *bytes, const char *key, const char *value);
/* An array's head; its elements follow. */
void bytes_put_key_array(struct bytes *bytes, const char *key, uint32_t elem_type, uint64_t n);
void bytes_put_tensor(struct bytes *bytes, const char *name, uint32_t n_dims, const uint64_t *dims,
                      uint32_t type, uint64_t offset);
void bytes_pad(struct bytes *bytes, size_t alignment);

/* What hostile_small() does differently. Zero: nothing. */
struct hostile_change {
    const char *key;            /* this key ... */
    const char *text;           /* ... says this text */
    const uint32_t *number;     /* ... or this integer */
    const float *real;          /* ... or this float; all NULL: it is left out */
    const char *tensor;         /* this tensor ... */
    const uint64_t *dims;       /* [2] ... has this shape */
    const uint32_t *type;       /* ... or type */
    const uint64_t *offset;     /* ... or offset; all NULL: it is left out */
    const char *extra_tensor;   /* a tensor of 32 floats more */
    const char *extra_key;      /* a key more, of value 1 */
    uint32_t version;           /* 0 = 3 */
    uint32_t n_tokens;          /* a vocabulary of so many tokens */
    size_t cut;                 /* so many bytes less at the end */
};
struct bytes hostile_small(const struct hostile_change *change);

#endif
