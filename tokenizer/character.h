/* character: what Unicode says of one character of a text. Private to tokenizer. */
#ifndef TOKENIZER_CHARACTER_H
#define TOKENIZER_CHARACTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character a text begins or ends with, n_bytes > 0; *point is -1 for one byte that is
 * part of none. */
size_t character_first(const char *text, size_t n_bytes, int32_t *point);
size_t character_last(const char *text, size_t n_bytes, int32_t *point);
bool character_is_white(int32_t point); /* White_Space */
bool character_is_word(int32_t point);  /* letters, marks, digits, connectors */
bool character_is_mark(int32_t point);

#endif
