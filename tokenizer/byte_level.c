/* byte_level: the map from characters back to bytes, by counting. */
#include "tokenizer/byte_level.h"

#include <string.h>

#include "tokenizer/character.h"

/* Bytes that are written as the character of the same number. */
static bool stands_for_itself(int32_t point)
{
    return (point >= '!' && point <= '~') || (point >= 0xa1 && point <= 0xff && point != 0xad);
}

/* The moved ones, ascending: 0..32, 127..160, 173. -1: none. */
static int byte_of(int32_t point)
{
    if (stands_for_itself(point)) {
        return point;
    }
    const int32_t moved = point - 0x100;
    if (moved < 0 || moved > 67) {
        return -1;
    }
    return moved < 33 ? moved : moved < 67 ? moved - 33 + 127 : 173;
}

bool byte_level_decode(struct tokenizer_text spelling, char *out, uint32_t *n_out)
{
    uint32_t n = 0;
    for (uint32_t at = 0; at < spelling.n_bytes;) {
        int32_t point;
        at += (uint32_t)character_first(spelling.bytes + at, spelling.n_bytes - at, &point);
        const int byte = byte_of(point);
        if (byte < 0) {
            memcpy(out, spelling.bytes, spelling.n_bytes);
            *n_out = spelling.n_bytes;
            return false;
        }
        out[n++] = (char)byte;
    }
    *n_out = n;
    return true;
}
