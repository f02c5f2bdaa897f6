/* character: utf8proc's categories under the names that tokenizers need. */
#include "tokenizer/character.h"

#include <utf8proc.h>

#include "tokenizer/utf8.h"

size_t character_first(const char *text, size_t n_bytes, int32_t *point)
{
    const struct utf8_part part = utf8_first((const unsigned char *)text, n_bytes);
    *point = -1;
    if (part.state != UTF8_WHOLE) {
        return 1;
    }
    utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)part.len, point);
    return part.len;
}

size_t character_last(const char *text, size_t n_bytes, int32_t *point)
{
    size_t at = n_bytes - 1;
    while (at > 0 && n_bytes - at < UTF8_MAX_BYTES && ((unsigned char)text[at] & 0xc0) == 0x80) {
        at--;
    }
    if (character_first(text + at, n_bytes - at, point) != n_bytes - at) {
        *point = -1;
    }
    return *point < 0 ? 1 : n_bytes - at;
}

bool character_is_mark(int32_t point)
{
    const utf8proc_category_t category = utf8proc_category(point);
    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
           category == UTF8PROC_CATEGORY_ME;
}

bool character_is_white(int32_t point)
{
    const utf8proc_category_t category = utf8proc_category(point);
    return (point >= 0x9 && point <= 0xd) || point == 0x85 || category == UTF8PROC_CATEGORY_ZS ||
           category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

bool character_is_word(int32_t point)
{
    switch (utf8proc_category(point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return character_is_mark(point);
    }
}
