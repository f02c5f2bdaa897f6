/* normalize: what a tokenizer does to a text before it looks at it: Unicode forms, letters made
 * small, texts replaced, a mark put before. A list of steps, each over the whole of the one before.
 * Private to tokenizer.
 *
 * Bytes that are no UTF-8 pass through unchanged and part what stands around them.
 */
#ifndef TOKENIZER_NORMALIZE_H
#define TOKENIZER_NORMALIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/base.h"
#include "tokenizer/bytes.h"
#include "tokenizer/pattern.h"

enum normalize_kind {
    NORMALIZE_NFC, NORMALIZE_NFD, NORMALIZE_NFKC, NORMALIZE_NFKD,
    NORMALIZE_LOWERCASE,
    NORMALIZE_STRIP_ACCENTS,    /* marks are dropped */
    NORMALIZE_STRIP_LEFT, NORMALIZE_STRIP_RIGHT, /* white space at the ends */
    NORMALIZE_PREPEND,          /* content before a text that is not empty */
    NORMALIZE_REPLACE           /* matches of a pattern by content */
};
enum { NORMALIZE_MAX_STEPS = 16, NORMALIZE_MAX_CONTENT_BYTES = 256 };
struct normalize_step {
    enum normalize_kind kind;
    struct pattern *pattern;    /* owned */
    char content[NORMALIZE_MAX_CONTENT_BYTES];
    size_t n_content;
};
struct normalizer {
    struct normalize_step steps[NORMALIZE_MAX_STEPS];
    int n_steps;
}; /* zero-initialised */
void normalizer_deinit(struct normalizer *normalizer);
/* Adds a step; content only for PREPEND and REPLACE, whose pattern the normalizer takes over, even
 * when it fails. STATUS_UNSUPPORTED: too many steps, too long a content. */
enum status normalizer_add(struct normalizer *normalizer, enum normalize_kind kind,
                           const char *content, size_t n_content, struct pattern *pattern);
/* The text after all steps, in *out (bytes_deinit, after a failure too). */
enum status normalizer_run(const struct normalizer *normalizer, const char *text, size_t n_bytes,
                           struct bytes *out);

/* normalize_form.c: one of the four forms, appended to out. Linear, however many marks there are. */
enum status normalize_form(enum normalize_kind form, const char *text, size_t n_bytes,
                           struct bytes *out);

#endif
