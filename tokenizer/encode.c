/* encode: a text to ids. Special tokens are found first; what lies between them is normalised, looked
 * through for those that are meant to be found then, and goes to the kind.
 *
 *     "<s>Crème<tool>"  →  [1] "Crème" [7]  →normalise→  [1] "Crème" [7]  →kind→  [1] 312 95 [7]
 */
#include <string.h>

#include "tokenizer/kind.h"

struct encoding {
    const struct tokenizer *tokenizer;
    struct special_text text;
    struct id_sink sink;
};

/* Ids of normalised text in which no special tokens are. */
static enum status put_plain(struct encoding *encoding, struct segment segment)
{
    return segment.n_bytes > 0
               ? encoding->tokenizer->kind->encode(encoding->tokenizer, segment, &encoding->sink)
               : STATUS_OK;
}

/* Normalised text, with those special tokens that are found after normalising. */
static enum status put_normalized(struct encoding *encoding, struct segment segment, bool finds)
{
    const struct tokenizer_part part = { segment.bytes, segment.n_bytes, !finds };
    const struct special_text text = { segment.bytes, segment.n_bytes, &part, 1 };
    struct special_walk walk = { .set = &encoding->tokenizer->normalized_specials, .text = &text };
    struct special_found found;
    size_t begin = 0;
    while (special_walk_next(&walk, &found)) {
        TRY(put_plain(encoding, (struct segment){ segment.bytes + begin, found.begin - begin,
                                                  segment.is_first && begin == 0 }));
        id_sink_put(&encoding->sink, found.special->id);
        begin = found.end;
    }
    return put_plain(encoding, (struct segment){ segment.bytes + begin, segment.n_bytes - begin,
                                                 segment.is_first && begin == 0 });
}

/* Any byte of text[begin, end) is to be taken literally. */
static bool holds_literal(const struct special_text *text, size_t begin, size_t end)
{
    size_t at = 0;
    for (size_t i = 0; i < text->n_parts && at < end; i++) {
        const size_t part_end = at + text->parts[i].n_bytes;
        if (text->parts[i].is_literal && part_end > begin && text->parts[i].n_bytes > 0) {
            return true;
        }
        at = part_end;
    }
    return false;
}

/* Text between special tokens, as it was given. After normalising nobody knows any more which bytes
 * were literal: where some were, all are. */
static enum status put_run(struct encoding *encoding, size_t begin, size_t end)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    const struct special_text *text = &encoding->text;
    struct segment segment = { text->bytes + begin, end - begin, begin == 0 };
    if (begin == end) {
        return STATUS_OK;
    }
    const bool finds = tokenizer->normalized_specials.n > 0 && !holds_literal(text, begin, end);
    if (tokenizer->normalizer.n_steps == 0) {
        return finds ? put_normalized(encoding, segment, true) : put_plain(encoding, segment);
    }
    struct bytes normalized;
    enum status status =
        normalizer_run(&tokenizer->normalizer, segment.bytes, segment.n_bytes, &normalized);
    if (status == STATUS_OK) {
        segment.bytes = normalized.at;
        segment.n_bytes = normalized.n;
        status = put_normalized(encoding, segment, finds);
    }
    bytes_deinit(&normalized);
    return status;
}

static enum status put_text(struct encoding *encoding)
{
    struct special_walk walk = { .set = &encoding->tokenizer->specials, .text = &encoding->text };
    struct special_found found;
    size_t begin = 0;
    while (special_walk_next(&walk, &found)) {
        TRY(put_run(encoding, begin, found.begin));
        id_sink_put(&encoding->sink, found.special->id);
        begin = found.end;
    }
    return put_run(encoding, begin, encoding->text.n_bytes);
}

static bool begins_with_bos(const struct encoding *encoding)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    const struct special_text *text = &encoding->text;
    const size_t n_bytes =
        text->n_parts > 0 && !text->parts[0].is_literal ? text->parts[0].n_bytes : 0;
    const struct special *first = special_set_match(&tokenizer->specials, text->bytes, n_bytes);
    return first && tokenizer->before.n == 1 && first->id == tokenizer->before.ids[0];
}

static void put_around(struct encoding *encoding, const struct around_ids *around)
{
    for (int i = 0; i < around->n; i++) {
        id_sink_put(&encoding->sink, around->ids[i]);
    }
}

static enum status encode(struct encoding *encoding, int flags, size_t *n_ids)
{
    const struct tokenizer *tokenizer = encoding->tokenizer;
    if ((flags & TOKENIZE_SPECIAL) &&
        ((flags & TOKENIZE_SECOND_BOS) || !begins_with_bos(encoding))) {
        put_around(encoding, &tokenizer->before);
    }
    TRY(put_text(encoding));
    if (flags & TOKENIZE_SPECIAL) {
        put_around(encoding, &tokenizer->behind);
    }
    *n_ids = encoding->sink.n;
    return STATUS_OK;
}

static enum status check_bytes(size_t n_bytes)
{
    if (n_bytes > TOKENIZER_MAX_TEXT_BYTES) {
        return status_fail(STATUS_INVALID, "expected a text of at most %d bytes, found %zu",
                           TOKENIZER_MAX_TEXT_BYTES, n_bytes);
    }
    return STATUS_OK;
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                             int flags, int32_t *ids, size_t cap, size_t *n_ids)
{
    *n_ids = 0;
    TRY(check_bytes(n_bytes));
    const struct tokenizer_part part = { text, n_bytes, (flags & TOKENIZE_LITERAL) != 0 };
    struct encoding encoding = {
        .tokenizer = tokenizer,
        .text = { text, n_bytes, &part, 1 },
        .sink = { .ids = ids, .cap = cap },
    };
    return encode(&encoding, flags, n_ids);
}

enum status tokenizer_encode_parts(const struct tokenizer *tokenizer,
                                   const struct tokenizer_part *parts, size_t n_parts, int flags,
                                   int32_t *ids, size_t cap, size_t *n_ids)
{
    *n_ids = 0;
    size_t n_bytes = 0;
    for (size_t i = 0; i < n_parts; i++) {
        TRY(check_bytes(parts[i].n_bytes));
        n_bytes += parts[i].n_bytes;
        TRY(check_bytes(n_bytes));
    }
    char *text = mem_alloc(n_bytes, 1);
    if (!text) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of text", n_bytes);
    }
    size_t at = 0;
    for (size_t i = 0; i < n_parts; i++) {
        if (parts[i].n_bytes > 0) {
            memcpy(text + at, parts[i].bytes, parts[i].n_bytes);
        }
        at += parts[i].n_bytes;
    }
    struct encoding encoding = {
        .tokenizer = tokenizer,
        .text = { text, n_bytes, parts, n_parts },
        .sink = { .ids = ids, .cap = cap },
    };
    const enum status status = encode(&encoding, flags, n_ids);
    mem_free(text);
    return status;
}
