/* pattern: where a text matches a regular expression, as tokenizers mean them. PCRE2 with its
 * compiler to machine code finds the matches; patterns are written for Oniguruma, so what differs is
 * rewritten or refused (pattern_rewrite.c). Private to tokenizer.
 *
 * Bytes that are no UTF-8 match nothing and part the text: what stands before and after them is
 * searched by itself.
 */
#ifndef TOKENIZER_PATTERN_H
#define TOKENIZER_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/base.h"
#include "tokenizer/bytes.h"

enum { PATTERN_MAX_BYTES = 8192 }; /* of its source */
enum pattern_syntax { PATTERN_REGEX, PATTERN_LITERAL };
struct pattern; /* immutable; any thread */

/* STATUS_INVALID or STATUS_UNSUPPORTED with the place in the pattern; STATUS_NO_MEMORY. */
enum status pattern_create(enum pattern_syntax syntax, const char *source, size_t n_bytes,
                           struct pattern **out);
void pattern_destroy(struct pattern *pattern); /* NULL is fine */

/* One owner; init once, then any number of texts. */
struct pattern_scan { const struct pattern *pattern; void *match_data; };
enum status pattern_scan_init(struct pattern_scan *scan, const struct pattern *pattern);
void pattern_scan_deinit(struct pattern_scan *scan);

/* A part of a text: a match, or what lies between two. Matches may be empty, what lies between not. */
struct pattern_part { size_t begin, end; bool is_match; };
typedef enum status pattern_visit(void *user, struct pattern_part part);
/* Calls visit for all parts of the text in order; they cover it. Stops at the first failure. A search
 * that takes too many steps is STATUS_INVALID: the pattern runs away on this text. */
enum status pattern_scan_text(struct pattern_scan *scan, const char *text, size_t n_bytes,
                              pattern_visit *visit, void *user);

/* The same pattern in PCRE2's words, appended to out. */
enum status pattern_rewrite(const char *source, size_t n_bytes, struct bytes *out);

#endif
