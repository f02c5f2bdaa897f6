/* special: sorted texts, searched by narrowing. */
#include "tokenizer/special.h"

#include <stdlib.h>
#include <string.h>

#include "tokenizer/character.h"
#include "tokenizer/kind.h"

static int compare_texts(struct tokenizer_text a, struct tokenizer_text b)
{
    const uint32_t n = a.n_bytes < b.n_bytes ? a.n_bytes : b.n_bytes;
    const int order = memcmp(a.bytes, b.bytes, n);
    return order != 0 ? order : (a.n_bytes > b.n_bytes) - (a.n_bytes < b.n_bytes);
}

static int compare_specials(const void *left, const void *right)
{
    const struct special *a = left, *b = right;
    const int order = compare_texts(a->text, b->text);
    return order != 0 ? order : (a->id > b->id) - (a->id < b->id);
}

void special_set_init(struct special_set *set, struct special *specials, int32_t n)
{
    *set = (struct special_set){ .sorted = specials };
    if (n > 1) {
        qsort(specials, (size_t)n, sizeof *specials, compare_specials);
    }
    for (int32_t i = 0; i < n; i++) {
        const struct special *last = set->n > 0 ? &specials[set->n - 1] : NULL;
        if (specials[i].text.n_bytes > 0 &&
            !(last && compare_texts(last->text, specials[i].text) == 0)) {
            specials[set->n++] = specials[i];
        }
    }
    int32_t at = 0;
    for (int byte = 0; byte <= 256; byte++) {
        while (at < set->n && (unsigned char)specials[at].text.bytes[0] < byte) {
            at++;
        }
        set->first[byte] = at;
    }
}

void special_set_deinit(struct special_set *set)
{
    mem_free(set->sorted);
    *set = (struct special_set){ .sorted = NULL };
}

/* First of sorted[begin, end), which agree on `depth` bytes and are longer, whose next byte is at
 * least `byte`. */
static int32_t lower_bound(const struct special_set *set, int32_t begin, int32_t end,
                           uint32_t depth, int byte)
{
    while (begin < end) {
        const int32_t middle = begin + (end - begin) / 2;
        if ((unsigned char)set->sorted[middle].text.bytes[depth] < byte) {
            begin = middle + 1;
        } else {
            end = middle;
        }
    }
    return begin;
}

const struct special *special_set_match(const struct special_set *set, const char *text,
                                        size_t n_bytes)
{
    if (n_bytes == 0 || set->n == 0) {
        return NULL;
    }
    const struct special *longest = NULL;
    const int byte = (unsigned char)text[0];
    int32_t begin = set->first[byte], end = set->first[byte + 1];
    for (uint32_t depth = 1; begin < end; depth++) {
        if (set->sorted[begin].text.n_bytes == depth) { /* the shortest of them comes first */
            longest = &set->sorted[begin++];
        }
        if (depth == n_bytes) {
            break;
        }
        const int next = (unsigned char)text[depth];
        begin = lower_bound(set, begin, end, depth, next);
        end = lower_bound(set, begin, end, depth, next + 1);
    }
    return longest;
}

/* ---- along a text ---- */
/* No letter, digit or mark touches it. */
static bool stands_alone(const struct special_text *text, size_t begin, size_t end)
{
    int32_t point = -1;
    if (begin > 0) {
        character_last(text->bytes, begin, &point);
    }
    if (point >= 0 && character_is_word(point)) {
        return false;
    }
    point = -1;
    if (end < text->n_bytes) {
        character_first(text->bytes + end, text->n_bytes - end, &point);
    }
    return point < 0 || !character_is_word(point);
}

/* What a found token takes with it: white space at its sides, never before `from`. */
static struct special_found widen(const struct special_walk *walk, const struct special *special,
                                  size_t from)
{
    const struct special_text *text = walk->text;
    struct special_found found = { special, walk->at, walk->at + special->text.n_bytes };
    int32_t point = -1;
    while ((special->bits & TOKEN_LEFT_STRIP) && found.begin > from) {
        const size_t n = character_last(text->bytes + from, found.begin - from, &point);
        if (point < 0 || !character_is_white(point)) {
            break;
        }
        found.begin -= n;
    }
    while ((special->bits & TOKEN_RIGHT_STRIP) && found.end < text->n_bytes) {
        const size_t n =
            character_first(text->bytes + found.end, text->n_bytes - found.end, &point);
        if (point < 0 || !character_is_white(point)) {
            break;
        }
        found.end += n;
    }
    return found;
}

bool special_walk_next(struct special_walk *walk, struct special_found *found)
{
    const struct special_text *text = walk->text;
    const size_t from = walk->at; /* the end of the last one found */
    while (walk->part_idx < text->n_parts) {
        const struct tokenizer_part *part = &text->parts[walk->part_idx];
        const size_t end = walk->part_begin + part->n_bytes;
        for (; !part->is_literal && walk->at < end; walk->at++) {
            const struct special *special =
                special_set_match(walk->set, text->bytes + walk->at, end - walk->at);
            if (special && (special->bits & TOKEN_SINGLE_WORD) &&
                !stands_alone(text, walk->at, walk->at + special->text.n_bytes)) {
                walk->at += special->text.n_bytes - 1;
                continue;
            }
            if (special) {
                *found = widen(walk, special, from);
                walk->at = found->end;
                return true;
            }
        }
        walk->at = walk->at > end ? walk->at : end;
        walk->part_idx++;
        walk->part_begin = end;
    }
    return false;
}
