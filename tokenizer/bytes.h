/* bytes: a run of bytes that grows. Private to tokenizer. */
#ifndef TOKENIZER_BYTES_H
#define TOKENIZER_BYTES_H

#include <stddef.h>

#include "base/base.h"

/* Above what any text becomes that is within TOKENIZER_MAX_TEXT_BYTES and not made to explode. */
#define BYTES_MAX ((size_t)3 << 30)
struct bytes { char *at; size_t n, cap; }; /* owned; zero-initialised */

/* STATUS_NO_MEMORY; STATUS_INVALID beyond BYTES_MAX. */
enum status bytes_append(struct bytes *bytes, const char *more, size_t n);
void bytes_deinit(struct bytes *bytes);

#endif
