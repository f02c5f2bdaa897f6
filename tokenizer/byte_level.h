/* byte_level: the 256 characters that byte-level vocabularies write bytes as (GPT-2): printable ones
 * of Latin-1 stand for themselves, the others are moved to U+0100 and on. "Ġcat" is " cat". Private
 * to tokenizer.
 */
#ifndef TOKENIZER_BYTE_LEVEL_H
#define TOKENIZER_BYTE_LEVEL_H

#include <stdbool.h>
#include <stdint.h>

#include "tokenizer/tokenizer.h"

/* The bytes a token's spelling stands for, to out (at most as many). False: it holds a character that
 * stands for no byte, and out is the spelling itself. */
bool byte_level_decode(struct tokenizer_text spelling, char *out, uint32_t *n_out);

#endif
