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

struct special { struct tokenizer_text text; int32_t id; };
struct special_set {
    struct special *sorted;       /* [n] by text, no two alike, none empty */
    int32_t n;
    int32_t first[257];           /* [byte, byte + 1): those that begin with it */
};

/* Sorts, drops empty and repeated texts (the lowest id stays). Takes over `specials` (mem_free). */
void special_set_init(struct special_set *set, struct special *specials, int32_t n);
void special_set_deinit(struct special_set *set);
/* The longest special token at the beginning of text, or NULL. */
const struct special *special_set_match(const struct special_set *set, const char *text, size_t n_bytes);

#endif
