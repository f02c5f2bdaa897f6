/* utf8: the table of well-formed sequences, walked a byte at a time. */
#include "tokenizer/utf8.h"

/* Length a first byte promises, and the range of the second; later ones are 80..BF. */
static unsigned promise(unsigned char first, unsigned char *low, unsigned char *high)
{
    *low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    *high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (first < 0x80) {
        return 1;
    }
    if (first >= 0xc2 && first <= 0xdf) {
        return 2;
    }
    if (first >= 0xe0 && first <= 0xef) {
        return 3;
    }
    return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

struct utf8_part utf8_first(const unsigned char *text, size_t n_bytes)
{
    unsigned char low, high;
    const unsigned len = promise(text[0], &low, &high);
    if (len == 0) {
        return (struct utf8_part){ UTF8_BROKEN, 1 };
    }
    for (unsigned i = 1; i < len; i++) {
        if (i == n_bytes) {
            return (struct utf8_part){ UTF8_BEGUN, i };
        }
        if (text[i] < low || text[i] > high) {
            return (struct utf8_part){ UTF8_BROKEN, i };
        }
        low = 0x80;
        high = 0xbf;
    }
    return (struct utf8_part){ UTF8_WHOLE, len };
}
