/* detokenizer: bytes of tokens to whole characters. At most three bytes are ever held back: those of
 * a character that may still become whole. What is broken is replaced as soon as that is certain, so
 * that output depends on the bytes alone, not on how tokens cut them. */
#include <string.h>

#include "tokenizer/kind.h"
#include "tokenizer/utf8.h"

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
enum { REPLACEMENT_BYTES = sizeof replacement - 1 };

void detokenizer_init(struct detokenizer *stream, const struct tokenizer *tokenizer, bool at_start)
{
    *stream = (struct detokenizer){ .tokenizer = tokenizer, .at_start = at_start };
}

size_t detokenizer_push_cap(const struct tokenizer *tokenizer)
{
    return 4 * (size_t)tokenizer->longest_piece_bytes + 16;
}

/* One more byte; returns bytes written: a character, or a replacement and then perhaps a character,
 * when `byte` shows that what is held cannot go on. */
static size_t push_byte(struct detokenizer *stream, unsigned char byte, char *out)
{
    size_t n_out = 0;
    stream->held[stream->n_held++] = byte;
    while (stream->n_held > 0) {
        const struct utf8_part part = utf8_first(stream->held, stream->n_held);
        if (part.state == UTF8_BEGUN) {
            break;
        }
        if (part.state == UTF8_WHOLE) {
            memcpy(out + n_out, stream->held, part.len);
            n_out += part.len;
        } else {
            memcpy(out + n_out, replacement, REPLACEMENT_BYTES);
            n_out += REPLACEMENT_BYTES;
        }
        stream->n_held = (uint8_t)(stream->n_held - part.len);
        memmove(stream->held, stream->held + part.len, stream->n_held);
    }
    return n_out;
}

size_t detokenizer_push(struct detokenizer *stream, int32_t id, char *out, size_t cap)
{
    const struct tokenizer_text piece = tokenizer_piece(stream->tokenizer, id, false);
    ASSERT(cap >= 4 * (size_t)piece.n_bytes + 16);
    if (piece.n_bytes == 0) {
        return 0;
    }
    uint32_t at = 0;
    if (stream->at_start && stream->tokenizer->drops_space && piece.bytes[0] == ' ') {
        at = 1;
    }
    stream->at_start = false;
    size_t n_out = 0;
    for (; at < piece.n_bytes; at++) {
        n_out += push_byte(stream, (unsigned char)piece.bytes[at], out + n_out);
    }
    return n_out;
}

size_t detokenizer_finish(struct detokenizer *stream, char *out, size_t cap)
{
    if (stream->n_held == 0) {
        return 0;
    }
    /* What is held is always one character begun: one maximal part. */
    ASSERT(cap >= REPLACEMENT_BYTES);
    memcpy(out, replacement, REPLACEMENT_BYTES);
    stream->n_held = 0;
    return REPLACEMENT_BYTES;
}
