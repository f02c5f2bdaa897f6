/* tokenizer: what all kinds have in common: checks and copies when one is made, special tokens
 * around and inside a text, and what is known of each token. */
#include "tokenizer/tokenizer.h"

#include <string.h>

#include "tokenizer/kind.h"

static const struct tokenizer_kind *const KINDS[] = { &spm_kind };
enum { N_KINDS = sizeof KINDS / sizeof KINDS[0] };

/* ---- making ---- */
static enum status find_kind(const char *name, const struct tokenizer_kind **out)
{
    for (size_t i = 0; name && i < N_KINDS; i++) {
        if (strcmp(KINDS[i]->name, name) == 0) {
            *out = KINDS[i];
            return STATUS_OK;
        }
    }
    return status_fail(STATUS_UNSUPPORTED, "tokenizer '%.40s' is not supported; supported: %s",
                       name ? name : "", KINDS[0]->name);
}

static enum status check_id(const char *what, int32_t id, int32_t n_tokens)
{
    if (id < -1 || id >= n_tokens) {
        return status_fail(STATUS_INVALID, "expected the %s token in a vocabulary of %d, found id %d", what,
                           n_tokens, id);
    }
    return STATUS_OK;
}

static enum status check_spec(const struct tokenizer_spec *spec)
{
    if (spec->n_tokens < 1 || spec->n_tokens > TOKENIZER_MAX_TOKENS) {
        return status_fail(STATUS_INVALID, "expected a vocabulary of 1 to %d tokens, found %d",
                           TOKENIZER_MAX_TOKENS, spec->n_tokens);
    }
    TRY(check_id("bos", spec->bos_id, spec->n_tokens));
    TRY(check_id("eos", spec->eos_id, spec->n_tokens));
    TRY(check_id("unknown", spec->unk_id, spec->n_tokens));
    TRY(check_id("pad", spec->pad_id, spec->n_tokens));
    TRY(check_id("eot", spec->eot_id, spec->n_tokens));
    for (int32_t id = 0; id < spec->n_tokens; id++) {
        if (spec->tokens[id].n_bytes > TOKENIZER_MAX_TOKEN_BYTES) {
            return status_fail(STATUS_INVALID, "expected tokens of at most %d bytes, token %d has %u",
                               TOKENIZER_MAX_TOKEN_BYTES, id, spec->tokens[id].n_bytes);
        }
        if (spec->classes && (spec->classes[id] < 0 || spec->classes[id] > TOKEN_BYTE)) {
            return status_fail(STATUS_INVALID, "expected a token class from 1 to %d, token %d has %d",
                               TOKEN_BYTE, id, spec->classes[id]);
        }
        if (spec->scores && spec->scores[id] != spec->scores[id]) {
            return status_fail(STATUS_INVALID, "expected numbers as scores, token %d has none (NaN)", id);
        }
    }
    return STATUS_OK;
}

/* Files that give no classes, or call the end of a text an ordinary token, mean the same as others. */
static void read_classes(struct tokenizer *tokenizer, const struct tokenizer_spec *spec)
{
    for (int32_t id = 0; id < spec->n_tokens; id++) {
        const int32_t class = spec->classes ? spec->classes[id] : TOKEN_NORMAL;
        tokenizer->classes[id] = (uint8_t)(class == 0 ? TOKEN_NORMAL : class);
    }
    if (!spec->classes && spec->unk_id >= 0) {
        tokenizer->classes[spec->unk_id] = TOKEN_UNKNOWN;
    }
    const int32_t control[] = { spec->bos_id, spec->eos_id, spec->eot_id };
    for (size_t i = 0; i < sizeof control / sizeof control[0]; i++) {
        const int32_t id = control[i];
        if (id >= 0 && (tokenizer->classes[id] == TOKEN_NORMAL || tokenizer->classes[id] == TOKEN_USER_DEFINED)) {
            tokenizer->classes[id] = TOKEN_CONTROL;
        }
    }
}

static enum status copy_spec(struct tokenizer *tokenizer, const struct tokenizer_spec *spec)
{
    const size_t n = (size_t)spec->n_tokens;
    size_t n_bytes = 0; /* n_tokens * MAX_TOKEN_BYTES fits */
    for (size_t i = 0; i < n; i++) {
        n_bytes += spec->tokens[i].n_bytes;
    }
    tokenizer->bytes = mem_alloc(n_bytes, 1);
    tokenizer->texts = mem_alloc(n, sizeof *tokenizer->texts);
    tokenizer->pieces = mem_alloc(n, sizeof *tokenizer->pieces);
    tokenizer->classes = mem_alloc(n, sizeof *tokenizer->classes);
    tokenizer->scores = spec->scores ? mem_alloc(n, sizeof *tokenizer->scores) : NULL;
    if (!tokenizer->bytes || !tokenizer->texts || !tokenizer->pieces || !tokenizer->classes ||
        (spec->scores && !tokenizer->scores)) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a vocabulary of %d tokens", spec->n_tokens);
    }
    char *out = tokenizer->bytes;
    for (size_t i = 0; i < n; i++) {
        const struct tokenizer_text text = spec->tokens[i];
        if (text.n_bytes > 0) {
            memcpy(out, text.bytes, text.n_bytes);
        }
        tokenizer->texts[i] = (struct tokenizer_text){ out, text.n_bytes };
        out += text.n_bytes;
    }
    if (spec->scores) {
        memcpy(tokenizer->scores, spec->scores, n * sizeof *tokenizer->scores);
    }
    read_classes(tokenizer, spec);
    return STATUS_OK;
}

static bool is_special(const struct tokenizer *tokenizer, int32_t id)
{
    return tokenizer_is_control(tokenizer, id) || tokenizer->classes[id] == TOKEN_USER_DEFINED;
}

/* Control tokens are looked for as they are spelled, user-defined ones as they stand in a text. */
static enum status collect_specials(struct tokenizer *tokenizer)
{
    int32_t n = 0;
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        n += is_special(tokenizer, id);
        const uint32_t n_bytes = tokenizer->pieces[id].n_bytes;
        tokenizer->longest_piece_bytes = n_bytes > tokenizer->longest_piece_bytes
                                             ? n_bytes : tokenizer->longest_piece_bytes;
    }
    struct special *specials = mem_alloc((size_t)n, sizeof *specials);
    if (!specials) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %d special tokens", n);
    }
    n = 0;
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        if (is_special(tokenizer, id)) {
            specials[n++] = (struct special){ tokenizer_piece(tokenizer, id, true), id };
        }
    }
    special_set_init(&tokenizer->specials, specials, n);
    return STATUS_OK;
}

static void make_digest(struct tokenizer *tokenizer)
{
    struct digest digest;
    digest_init(&digest);
    digest_update(&digest, tokenizer->kind->name, strlen(tokenizer->kind->name) + 1);
    const int32_t numbers[] = {
        tokenizer->n_tokens, tokenizer->bos_id, tokenizer->eos_id, tokenizer->unk_id,
        tokenizer->add_bos, tokenizer->add_eos, tokenizer->add_space_prefix, tokenizer->scores != NULL,
    };
    digest_update(&digest, numbers, sizeof numbers);
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        const struct tokenizer_text text = tokenizer->texts[id];
        digest_update(&digest, &text.n_bytes, sizeof text.n_bytes);
        digest_update(&digest, text.bytes, text.n_bytes);
    }
    const size_t n = (size_t)tokenizer->n_tokens;
    digest_update(&digest, tokenizer->classes, n);
    if (tokenizer->scores) {
        digest_update(&digest, tokenizer->scores, n * sizeof *tokenizer->scores);
    }
    tokenizer->digest = digest_value(&digest);
}

enum status tokenizer_create(const struct tokenizer_spec *spec, struct tokenizer **out)
{
    *out = NULL;
    const struct tokenizer_kind *kind = NULL;
    TRY(find_kind(spec->kind, &kind));
    TRY(check_spec(spec));
    struct tokenizer *tokenizer = mem_alloc(1, sizeof *tokenizer);
    if (!tokenizer) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a tokenizer");
    }
    *tokenizer = (struct tokenizer){
        .kind = kind,
        .n_tokens = spec->n_tokens,
        .bos_id = spec->bos_id,
        .eos_id = spec->eos_id,
        .unk_id = spec->unk_id,
        .add_bos = spec->add_bos && spec->bos_id >= 0,
        .add_eos = spec->add_eos && spec->eos_id >= 0,
        .add_space_prefix = spec->add_space_prefix,
    };
    enum status status;
    TRY_GOTO(copy_spec(tokenizer, spec), out);
    TRY_GOTO(kind->init(tokenizer, spec), out);
    TRY_GOTO(collect_specials(tokenizer), out);
    make_digest(tokenizer);
    *out = tokenizer;
    tokenizer = NULL;
out:
    tokenizer_destroy(tokenizer);
    return status;
}

void tokenizer_destroy(struct tokenizer *tokenizer)
{
    if (!tokenizer) {
        return;
    }
    tokenizer->kind->deinit(tokenizer);
    special_set_deinit(&tokenizer->specials);
    mem_free(tokenizer->scores);
    mem_free(tokenizer->classes);
    mem_free(tokenizer->pieces);
    mem_free(tokenizer->texts);
    mem_free(tokenizer->bytes);
    mem_free(tokenizer);
}

/* ---- text to ids ---- */
/* Plain text between the special tokens written out in it. */
static enum status encode_parts(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                                struct id_sink *sink)
{
    size_t begin = 0;
    for (size_t at = 0; at < n_bytes;) {
        const struct special *special = special_set_match(&tokenizer->specials, text + at, n_bytes - at);
        if (!special) {
            at++;
            continue;
        }
        if (at > begin) {
            TRY(tokenizer->kind->encode(tokenizer, text + begin, at - begin, sink));
        }
        id_sink_put(sink, special->id);
        at += special->text.n_bytes;
        begin = at;
    }
    return begin < n_bytes ? tokenizer->kind->encode(tokenizer, text + begin, n_bytes - begin, sink)
                           : STATUS_OK;
}

static bool begins_with_bos(const struct tokenizer *tokenizer, const char *text, size_t n_bytes, int flags)
{
    const struct special *first = special_set_match(&tokenizer->specials, text, n_bytes);
    return first && first->id == tokenizer->bos_id && !(flags & TOKENIZE_LITERAL);
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                             int flags, int32_t *ids, size_t cap, size_t *n_ids)
{
    *n_ids = 0;
    if (n_bytes > TOKENIZER_MAX_TEXT_BYTES) {
        return status_fail(STATUS_INVALID, "expected a text of at most %d bytes, found %zu",
                           TOKENIZER_MAX_TEXT_BYTES, n_bytes);
    }
    struct id_sink sink = { .ids = ids, .cap = cap };
    const bool special = (flags & TOKENIZE_SPECIAL) != 0;
    if (special && tokenizer->add_bos &&
        ((flags & TOKENIZE_SECOND_BOS) || !begins_with_bos(tokenizer, text, n_bytes, flags))) {
        id_sink_put(&sink, tokenizer->bos_id);
    }
    if (!(flags & TOKENIZE_LITERAL)) {
        TRY(encode_parts(tokenizer, text, n_bytes, &sink));
    } else if (n_bytes > 0) {
        TRY(tokenizer->kind->encode(tokenizer, text, n_bytes, &sink));
    }
    if (special && tokenizer->add_eos) {
        id_sink_put(&sink, tokenizer->eos_id);
    }
    *n_ids = sink.n;
    return STATUS_OK;
}

/* ---- what is known of tokens ---- */
struct tokenizer_text tokenizer_piece(const struct tokenizer *tokenizer, int32_t id, bool show_control)
{
    if (id < 0 || id >= tokenizer->n_tokens) {
        return (struct tokenizer_text){ "", 0 };
    }
    return show_control && tokenizer_is_control(tokenizer, id) ? tokenizer->texts[id] : tokenizer->pieces[id];
}

int32_t tokenizer_n_tokens(const struct tokenizer *tokenizer)
{
    return tokenizer->n_tokens;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos_id;
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->eos_id;
}

bool tokenizer_is_control(const struct tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->n_tokens &&
           (tokenizer->classes[id] == TOKEN_CONTROL || tokenizer->classes[id] == TOKEN_UNKNOWN);
}

uint64_t tokenizer_digest(const struct tokenizer *tokenizer)
{
    return tokenizer->digest;
}
