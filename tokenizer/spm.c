/* spm: byte-pair encoding by scores, as SentencePiece does it (Kudo and Richardson, 2018) and Llama-2
 * files hold it. Spaces become "▁", one more stands before a text; neighbours whose joined text is a
 * token are joined, best score first, leftmost first among equals; characters that are no token
 * become byte tokens, or the unknown token.
 *
 *     "a cat"  →  ▁ a ▁ c a t  →  ▁a ▁ c at  →  ▁a ▁c at  →  ▁a ▁cat
 *
 * Only plain tokens are joined: no way of writing "</s>" in a text makes the control token here.
 */
#include <string.h>

#include "tokenizer/kind.h"
#include "tokenizer/merge_heap.h"
#include "tokenizer/text_map.h"
#include "tokenizer/utf8.h"

static const char space_mark[] = "\xe2\x96\x81"; /* ▁ U+2581 */
enum { SPACE_MARK_BYTES = sizeof space_mark - 1 };

struct spm {
    struct text_map map;       /* of plain tokens */
    char *piece_bytes;
    int32_t byte_ids[256];     /* -1 = none */
    /* No token holds a space after something else: words can be encoded one by one, and give the
     * same ids, since no join reaches over the cut. */
    bool cuts_at_spaces;
};

/* ---- making ---- */
static bool is_space_mark(const char *bytes, size_t n_bytes)
{
    return n_bytes >= SPACE_MARK_BYTES && memcmp(bytes, space_mark, SPACE_MARK_BYTES) == 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                        : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 0..255 for "<0xNN>", else -1. */
static int byte_of(struct tokenizer_text text)
{
    if (text.n_bytes != 6 || memcmp(text.bytes, "<0x", 3) != 0 || text.bytes[5] != '>') {
        return -1;
    }
    const int high = hex_digit(text.bytes[3]), low = hex_digit(text.bytes[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static enum status read_byte_tokens(struct tokenizer *tokenizer, struct spm *spm, bool by_text)
{
    int n_bytes_found = 0;
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        const int byte = byte_of(tokenizer->texts[id]);
        if (by_text && byte >= 0 && tokenizer->classes[id] == TOKEN_NORMAL) {
            tokenizer->classes[id] = TOKEN_BYTE;
        }
        if (tokenizer->classes[id] != TOKEN_BYTE) {
            continue;
        }
        if (byte < 0) {
            return status_fail(STATUS_INVALID,
                               "token %d is a byte token: expected a text from <0x00> to "
                               "<0xFF>, found another",
                               id);
        }
        if (spm->byte_ids[byte] < 0) {
            spm->byte_ids[byte] = id;
            n_bytes_found++;
        }
    }
    if (n_bytes_found < 256 && tokenizer->unk_id < 0) {
        return status_fail(STATUS_INVALID,
                           "expected 256 byte tokens or an unknown token, found %d byte "
                           "tokens and none",
                           n_bytes_found);
    }
    return STATUS_OK;
}

/* Copies text with ▁ as a space; returns the bytes written. */
static uint32_t unescape(struct tokenizer_text text, char *out)
{
    uint32_t n = 0;
    for (uint32_t at = 0; at < text.n_bytes;) {
        const bool mark = is_space_mark(text.bytes + at, text.n_bytes - at);
        out[n++] = mark ? ' ' : text.bytes[at];
        at += mark ? SPACE_MARK_BYTES : 1;
    }
    return n;
}

static enum status make_pieces(struct tokenizer *tokenizer, struct spm *spm)
{
    size_t n_bytes = 0;
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        n_bytes += tokenizer->texts[id].n_bytes;
    }
    spm->piece_bytes = mem_alloc(n_bytes, 1);
    if (!spm->piece_bytes) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of token texts", n_bytes);
    }
    char *out = spm->piece_bytes;
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        uint32_t n = 0;
        if (tokenizer->classes[id] == TOKEN_BYTE) {
            out[n++] = (char)byte_of(tokenizer->texts[id]);
        } else if (!tokenizer_is_control(tokenizer, id)) {
            n = unescape(tokenizer->texts[id], out);
        }
        tokenizer->pieces[id] = (struct tokenizer_text){ out, n };
        out += n;
    }
    return STATUS_OK;
}

/* Does a space stand behind something that is none? */
static bool holds_cut(struct tokenizer_text text)
{
    for (uint32_t at = 1; at < text.n_bytes; at++) {
        const bool after_mark = at >= SPACE_MARK_BYTES &&
                                is_space_mark(text.bytes + at - SPACE_MARK_BYTES, SPACE_MARK_BYTES);
        if (is_space_mark(text.bytes + at, text.n_bytes - at) && !after_mark) {
            return true;
        }
    }
    return false;
}

static enum status spm_init(struct tokenizer *tokenizer, const struct tokenizer_spec *spec,
                            struct recipe *recipe)
{
    (void)recipe; /* scores and classes say it all */
    tokenizer->add_space_prefix = spec->add_space_prefix;
    tokenizer->drops_space = spec->add_space_prefix;
    if (!spec->scores) {
        return status_fail(STATUS_INVALID, "expected a score for each of %d tokens, found none",
                           spec->n_tokens);
    }
    struct spm *spm = mem_alloc(1, sizeof *spm);
    if (!spm) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a tokenizer");
    }
    tokenizer->state = spm;
    memset(spm->byte_ids, 0xff, sizeof spm->byte_ids);
    TRY(read_byte_tokens(tokenizer, spm, spec->classes == NULL));
    TRY(make_pieces(tokenizer, spm));
    TRY(text_map_init(&spm->map, tokenizer->texts, tokenizer->n_tokens));
    spm->cuts_at_spaces = true;
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        if (tokenizer->classes[id] == TOKEN_NORMAL && tokenizer->texts[id].n_bytes > 0) {
            text_map_add(&spm->map, id);
            spm->cuts_at_spaces = spm->cuts_at_spaces && !holds_cut(tokenizer->texts[id]);
        }
    }
    return STATUS_OK;
}

static void spm_deinit(struct tokenizer *tokenizer)
{
    struct spm *spm = tokenizer->state;
    if (spm) {
        text_map_deinit(&spm->map);
        mem_free(spm->piece_bytes);
        mem_free(spm);
    }
    tokenizer->state = NULL;
}

/* ---- encoding one word ---- */
/* A run of the word's text: a character at first, later what was joined. n_bytes 0: joined to its
 * left neighbour. */
struct symbol { int32_t prev, next; uint32_t begin, n_bytes; int32_t id; };

struct work {
    const struct tokenizer *tokenizer;
    const struct spm *spm;
    struct id_sink *sink;
    char *text;               /* [n_text] the word, escaped */
    uint32_t n_text;
    struct symbol *symbols;   /* [n_symbols] */
    int32_t n_symbols;
    struct merge_heap heap;   /* at most one pair a gap, and one more for each join */
    bool in_unknown;          /* the last id is that of an unknown run */
};

/* Queues left and its right neighbour when together they are a token. */
static void offer_pair(struct work *work, int32_t left)
{
    const int32_t right = left < 0 ? -1 : work->symbols[left].next;
    if (right < 0) {
        return;
    }
    const struct symbol *first = &work->symbols[left];
    const uint32_t n_bytes = first->n_bytes + work->symbols[right].n_bytes;
    const int32_t id = text_map_find(&work->spm->map, work->text + first->begin, n_bytes);
    if (id >= 0) {
        merge_heap_push(&work->heap,
                        (struct merge_pair){ -(double)work->tokenizer->scores[id], left, id, n_bytes });
    }
}

static void split_characters(struct work *work)
{
    work->n_symbols = 0;
    for (uint32_t at = 0; at < work->n_text;) {
        const struct utf8_part part =
            utf8_first((const unsigned char *)work->text + at, work->n_text - at);
        const uint32_t n_bytes = part.state == UTF8_WHOLE ? part.len : 1;
        const int32_t idx = work->n_symbols++;
        work->symbols[idx] = (struct symbol){
            .prev = idx - 1,
            .next = at + n_bytes < work->n_text ? idx + 1 : -1,
            .begin = at,
            .n_bytes = n_bytes,
            .id = text_map_find(&work->spm->map, work->text + at, n_bytes),
        };
        at += n_bytes;
    }
}

static void join_pairs(struct work *work)
{
    work->heap.n = 0;
    for (int32_t i = 0; i < work->n_symbols; i++) {
        offer_pair(work, i);
    }
    while (work->heap.n > 0) {
        const struct merge_pair pair = merge_heap_pop(&work->heap);
        struct symbol *left = &work->symbols[pair.left];
        if (left->n_bytes == 0 || left->next < 0) {
            continue;
        }
        /* Symbols only grow to the right or vanish: equal sums mean the very same two. */
        struct symbol *right = &work->symbols[left->next];
        if (left->n_bytes + right->n_bytes != pair.n_bytes) {
            continue;
        }
        left->n_bytes = pair.n_bytes;
        left->id = pair.id;
        left->next = right->next;
        right->n_bytes = 0;
        if (left->next >= 0) {
            work->symbols[left->next].prev = pair.left;
        }
        offer_pair(work, left->prev);
        offer_pair(work, pair.left);
    }
}

/* Byte tokens for all bytes of a symbol, or one unknown token for a whole run of such symbols. */
static void put_unknown(struct work *work, const struct symbol *symbol)
{
    const unsigned char *bytes = (const unsigned char *)work->text + symbol->begin;
    bool has_bytes = true;
    for (uint32_t i = 0; i < symbol->n_bytes; i++) {
        has_bytes = has_bytes && work->spm->byte_ids[bytes[i]] >= 0;
    }
    for (uint32_t i = 0; has_bytes && i < symbol->n_bytes; i++) {
        id_sink_put(work->sink, work->spm->byte_ids[bytes[i]]);
    }
    if (!has_bytes && !work->in_unknown) {
        id_sink_put(work->sink, work->tokenizer->unk_id);
    }
    work->in_unknown = !has_bytes;
}

static void put_symbols(struct work *work)
{
    for (int32_t i = 0; i >= 0; i = work->symbols[i].next) {
        const struct symbol *symbol = &work->symbols[i];
        if (symbol->id < 0) {
            put_unknown(work, symbol);
            continue;
        }
        id_sink_put(work->sink, symbol->id);
        work->in_unknown = false;
    }
}

/* ---- a text, word by word ---- */
static uint32_t escape(const char *text, size_t n_bytes, bool prefix, char *out)
{
    uint32_t n = 0;
    if (prefix) {
        memcpy(out, space_mark, SPACE_MARK_BYTES);
        n = SPACE_MARK_BYTES;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        if (text[i] == ' ') {
            memcpy(out + n, space_mark, SPACE_MARK_BYTES);
            n += SPACE_MARK_BYTES;
        } else {
            out[n++] = text[i];
        }
    }
    return n;
}

/* Bytes of the first word: up to a space that follows something else. */
static size_t word_bytes(const struct spm *spm, const char *text, size_t n_bytes)
{
    for (size_t at = 1; spm->cuts_at_spaces && at < n_bytes; at++) {
        if (text[at] == ' ' && text[at - 1] != ' ' &&
            !(at >= SPACE_MARK_BYTES &&
              is_space_mark(text + at - SPACE_MARK_BYTES, SPACE_MARK_BYTES))) {
            return at;
        }
    }
    return n_bytes;
}

static enum status spm_encode(const struct tokenizer *tokenizer, struct segment segment,
                              struct id_sink *sink)
{
    const char *text = segment.bytes;
    const size_t n_bytes = segment.n_bytes;
    const struct spm *spm = tokenizer->state;
    size_t longest = 0;
    for (size_t at = 0, n; at < n_bytes; at += n) {
        n = word_bytes(spm, text + at, n_bytes - at);
        longest = n > longest ? n : longest;
    }
    struct work work = { .tokenizer = tokenizer, .spm = spm, .sink = sink };
    work.text = mem_alloc(longest + 1, SPACE_MARK_BYTES);
    work.symbols = mem_alloc(longest + 1, sizeof *work.symbols);
    work.heap.pairs = mem_alloc(2 * (longest + 1), sizeof *work.heap.pairs);
    enum status status = STATUS_OK;
    if (!work.text || !work.symbols || !work.heap.pairs) {
        status = status_fail(STATUS_NO_MEMORY, "no memory to tokenize %zu bytes of text", n_bytes);
        goto out;
    }
    for (size_t at = 0, n; at < n_bytes; at += n) {
        n = word_bytes(spm, text + at, n_bytes - at);
        work.n_text = escape(text + at, n, at == 0 && tokenizer->add_space_prefix, work.text);
        split_characters(&work);
        join_pairs(&work);
        put_symbols(&work);
    }
out:
    mem_free(work.heap.pairs);
    mem_free(work.symbols);
    mem_free(work.text);
    return status;
}

const struct tokenizer_kind spm_kind = {
    .name = "llama",
    .init = spm_init,
    .deinit = spm_deinit,
    .encode = spm_encode,
};
