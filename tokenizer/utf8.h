/* utf8: how many bytes of a text are one character, and how far a broken one goes (Unicode 15.0,
 * table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF). Private to tokenizer.
 */
#ifndef TOKENIZER_UTF8_H
#define TOKENIZER_UTF8_H

#include <stddef.h>

enum { UTF8_MAX_BYTES = 4 };
/* whole: a character of len bytes. begun: the text ends within a character, len bytes of it are
 * there. broken: len bytes are the maximal part of a character that cannot go on; at least 1. */
enum utf8_state { UTF8_WHOLE, UTF8_BEGUN, UTF8_BROKEN };
struct utf8_part { enum utf8_state state; unsigned len; };

/* What text begins with; n_bytes > 0. */
struct utf8_part utf8_first(const unsigned char *text, size_t n_bytes);

#endif
