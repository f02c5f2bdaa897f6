/* special: finds tokens that are written out in a text ("</s>"). The texts are kept sorted; a search
 * narrows the range of those that still fit byte by byte, so that a position costs at most the length
 * of the longest one, however many there are. Private to tokenizer.
 */
#ifndef TOKENIZER_SPECIAL_H
#define TOKENIZER_SPECIAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "tokenizer/tokenizer.h"

struct special { struct tokenizer_text text; int32_t id; uint32_t bits; /* enum token_bits */ };
struct special_set {
    struct special *sorted;       /* [n] by text, no two alike, none empty */
    int32_t n;
    int32_t first[257];           /* [byte, byte + 1): those that begin with it */
};

/* Sorts, drops empty and repeated texts (the lowest id stays). Takes over `specials` (mem_free). */
void special_set_init(struct special_set *set, struct special *specials, int32_t n);
void special_set_deinit(struct special_set *set);
/* The longest special token at the beginning of text, or NULL. */
const struct special *special_set_match(const struct special_set *set, const char *text,
                                        size_t n_bytes);

/* Where in a text tokens may be found: in parts that are not literal, wholly within one. */
struct special_text {
    const char *bytes;
    size_t n_bytes;
    const struct tokenizer_part *parts; /* [n_parts] that make up the text */
    size_t n_parts;
};
/* One found: it takes text[begin, end), with white space if it asks for it. */
struct special_found { const struct special *special; size_t begin, end; };
/* A walk over a text from its beginning; zero but for the first two. */
struct special_walk {
    const struct special_set *set;
    const struct special_text *text;
    size_t at;                    /* looked at up to here */
    size_t part_idx, part_begin;
};
/* The next one; false at the end. */
bool special_walk_next(struct special_walk *walk, struct special_found *found);

#endif
