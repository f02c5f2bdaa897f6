/* tokenizer: what all kinds have in common: checks and copies when one is made, and what is known of
 * each token. Text to ids is encode.c. */
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

#include "tokenizer/chat.h"
#include "tokenizer/kind.h"

static const struct tokenizer_kind *const KINDS[] = { &spm_kind, &bpe_kind };
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
    return status_fail(STATUS_UNSUPPORTED,
                       "tokenizer kind '%.40s' is not supported; supported: %s, %s",
                       name ? name : "", KINDS[0]->name, KINDS[1]->name);
}

static enum status check_id(const char *what, int32_t id, int32_t n_tokens)
{
    if (id < -1 || id >= n_tokens) {
        return status_fail(STATUS_INVALID,
                           "expected the %s token in a vocabulary of %d, found id %d", what,
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
    if (spec->n_merges < 0 || spec->n_merges > TOKENIZER_MAX_MERGES) {
        return status_fail(STATUS_INVALID, "expected at most %d merges, found %d",
                           TOKENIZER_MAX_MERGES, spec->n_merges);
    }
    TRY(check_id("bos", spec->bos_id, spec->n_tokens));
    TRY(check_id("eos", spec->eos_id, spec->n_tokens));
    TRY(check_id("unknown", spec->unk_id, spec->n_tokens));
    TRY(check_id("pad", spec->pad_id, spec->n_tokens));
    TRY(check_id("eot", spec->eot_id, spec->n_tokens));
    for (int32_t id = 0; id < spec->n_tokens; id++) {
        if (spec->tokens[id].n_bytes > TOKENIZER_MAX_TOKEN_BYTES) {
            return status_fail(STATUS_INVALID,
                               "expected tokens of at most %d bytes, token %d has %u",
                               TOKENIZER_MAX_TOKEN_BYTES, id, spec->tokens[id].n_bytes);
        }
        if (spec->classes && (spec->classes[id] < 0 || spec->classes[id] > TOKEN_BYTE)) {
            return status_fail(STATUS_INVALID,
                               "expected a token class from 1 to %d, token %d has %d", TOKEN_BYTE,
                               id, spec->classes[id]);
        }
        if (spec->scores && spec->scores[id] != spec->scores[id]) {
            return status_fail(STATUS_INVALID,
                               "expected numbers as scores, token %d has none (NaN)", id);
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
        if (id >= 0 && (tokenizer->classes[id] == TOKEN_NORMAL ||
                        tokenizer->classes[id] == TOKEN_USER_DEFINED)) {
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
        return status_fail(STATUS_NO_MEMORY, "no memory for a vocabulary of %d tokens",
                           spec->n_tokens);
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

/* Bits a token has when nothing but its class says so. */
static uint8_t bits_of(const struct tokenizer *tokenizer, const struct recipe *recipe, int32_t id)
{
    if (recipe && recipe->bits) {
        return recipe->bits[id];
    }
    const bool is_added =
        tokenizer_is_control(tokenizer, id) || tokenizer->classes[id] == TOKEN_USER_DEFINED;
    return is_added ? TOKEN_ADDED : TOKEN_IN_MODEL;
}

/* The text of one that is looked for after normalising, normalised itself, onto special_bytes. */
static enum status normalize_special(struct tokenizer *tokenizer, struct special *special)
{
    struct bytes text = { .at = NULL };
    enum status status =
        normalizer_run(&tokenizer->normalizer, special->text.bytes, special->text.n_bytes, &text);
    if (status == STATUS_OK) {
        status = bytes_append(&tokenizer->special_bytes, text.at, text.n);
        special->text.n_bytes = (uint32_t)text.n;
    }
    bytes_deinit(&text);
    return status;
}

/* special_bytes has stopped moving: texts may point into it. */
static void place_normalized(struct tokenizer *tokenizer, struct special *specials, int32_t n)
{
    const char *at = tokenizer->special_bytes.at;
    for (int32_t i = 0; i < n; i++) {
        specials[i].text.bytes = at;
        at += specials[i].text.n_bytes;
    }
}

/* Control tokens are looked for as they are spelled, user-defined ones as they stand in a text. */
static enum status collect(struct tokenizer *tokenizer, const struct recipe *recipe,
                           uint8_t normalized, struct special_set *set)
{
    int32_t n = 0;
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        const uint8_t bits = bits_of(tokenizer, recipe, id);
        n += (bits & TOKEN_ADDED) && (bits & TOKEN_NORMALIZED) == normalized;
    }
    if (n == 0) {
        return STATUS_OK;
    }
    struct special *specials = mem_alloc((size_t)n, sizeof *specials);
    if (!specials) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %d special tokens", n);
    }
    n = 0;
    enum status status = STATUS_OK;
    for (int32_t id = 0; id < tokenizer->n_tokens && status == STATUS_OK; id++) {
        const uint8_t bits = bits_of(tokenizer, recipe, id);
        if ((bits & TOKEN_ADDED) && (bits & TOKEN_NORMALIZED) == normalized) {
            const bool spelled = recipe && recipe->bits;
            const struct tokenizer_text text =
                spelled ? tokenizer->texts[id] : tokenizer_piece(tokenizer, id, true);
            specials[n] = (struct special){ text, id, bits };
            status = normalized ? normalize_special(tokenizer, &specials[n]) : STATUS_OK;
            n++;
        }
    }
    if (normalized) {
        place_normalized(tokenizer, specials, status == STATUS_OK ? n : 0);
    }
    special_set_init(set, specials, status == STATUS_OK ? n : 0);
    return status;
}

static enum status collect_specials(struct tokenizer *tokenizer, const struct recipe *recipe)
{
    for (int32_t id = 0; id < tokenizer->n_tokens; id++) {
        const uint32_t n_bytes = tokenizer->pieces[id].n_bytes;
        tokenizer->longest_piece_bytes = n_bytes > tokenizer->longest_piece_bytes
                                             ? n_bytes : tokenizer->longest_piece_bytes;
    }
    TRY(collect(tokenizer, recipe, 0, &tokenizer->specials));
    return collect(tokenizer, recipe, TOKEN_NORMALIZED, &tokenizer->normalized_specials);
}

static void make_digest(struct tokenizer *tokenizer, const struct tokenizer_spec *spec,
                        uint64_t recipe_digest)
{
    struct digest digest;
    digest_init(&digest);
    digest_update(&digest, tokenizer->kind->name, strlen(tokenizer->kind->name) + 1);
    const int32_t numbers[] = {
        tokenizer->n_tokens, tokenizer->bos_id, tokenizer->eos_id, tokenizer->unk_id,
        spec->add_bos && spec->bos_id >= 0, spec->add_eos && spec->eos_id >= 0,
        tokenizer->add_space_prefix, tokenizer->scores != NULL,
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
    for (int32_t i = 0; i < spec->n_merges; i++) {
        digest_update(&digest, &spec->merges[i].n_bytes, sizeof spec->merges[i].n_bytes);
        digest_update(&digest, spec->merges[i].bytes, spec->merges[i].n_bytes);
    }
    if (spec->pre) {
        digest_update(&digest, spec->pre, strlen(spec->pre));
    }
    if (recipe_digest != 0) {
        digest_update(&digest, &recipe_digest, sizeof recipe_digest);
    }
    tokenizer->digest = digest_value(&digest);
}

void recipe_deinit(struct recipe *recipe)
{
    normalizer_deinit(&recipe->normalizer);
    normalizer_deinit(&recipe->piece_steps);
    splitter_deinit(&recipe->splitter);
}

static void set_around(struct tokenizer *tokenizer, const struct tokenizer_spec *spec,
                       const struct recipe *recipe)
{
    if (recipe) {
        tokenizer->before = recipe->before;
        tokenizer->behind = recipe->behind;
        return;
    }
    if (spec->add_bos && spec->bos_id >= 0) {
        tokenizer->before = (struct around_ids){ .ids = { spec->bos_id }, .n = 1 };
    }
    if (spec->add_eos && spec->eos_id >= 0) {
        tokenizer->behind = (struct around_ids){ .ids = { spec->eos_id }, .n = 1 };
    }
}

static void set_chat(struct tokenizer *tokenizer, struct tokenizer_text chat_template)
{
    const char *sentence = "the model names no chat format, and may be one that only continues texts; "
                           "--chat-format forces one: chatml, llama2, llama3, zephyr, mistral-v1, mistral-v3";
    if (chat_template.n_bytes > 0 && chat_format_detect(chat_template.bytes, chat_template.n_bytes,
                                                        &tokenizer->chat_format) != STATUS_OK) {
        sentence = status_message();
    }
    snprintf(tokenizer->chat_sentence, sizeof tokenizer->chat_sentence, "%s", sentence);
}

static enum status build(struct tokenizer *tokenizer, const struct tokenizer_spec *spec,
                         struct recipe *recipe)
{
    TRY(copy_spec(tokenizer, spec));
    TRY(tokenizer->kind->init(tokenizer, spec, recipe));
    TRY(collect_specials(tokenizer, recipe));
    make_digest(tokenizer, spec, recipe ? recipe->digest : 0);
    return STATUS_OK;
}

enum status tokenizer_build(const struct tokenizer_kind *kind, const struct tokenizer_spec *spec,
                            struct recipe *recipe, struct tokenizer **out)
{
    *out = NULL;
    enum status status = check_spec(spec);
    struct tokenizer *tokenizer = status == STATUS_OK ? mem_alloc(1, sizeof *tokenizer) : NULL;
    if (tokenizer) {
        *tokenizer = (struct tokenizer){
            .kind = kind,
            .n_tokens = spec->n_tokens,
            .bos_id = spec->bos_id,
            .eos_id = spec->eos_id,
            .unk_id = spec->unk_id,
        };
        set_around(tokenizer, spec, recipe);
        set_chat(tokenizer, spec->chat_template);
        status = build(tokenizer, spec, recipe);
    } else if (status == STATUS_OK) {
        status = status_fail(STATUS_NO_MEMORY, "no memory for a tokenizer");
    }
    if (recipe) {
        recipe_deinit(recipe);
    }
    if (status == STATUS_OK) {
        *out = tokenizer;
    } else {
        tokenizer_destroy(tokenizer);
    }
    return status;
}

enum status tokenizer_create(const struct tokenizer_spec *spec, struct tokenizer **out)
{
    *out = NULL;
    const struct tokenizer_kind *kind = NULL;
    TRY(find_kind(spec->kind, &kind));
    return tokenizer_build(kind, spec, NULL, out);
}

void tokenizer_destroy(struct tokenizer *tokenizer)
{
    if (!tokenizer) {
        return;
    }
    tokenizer->kind->deinit(tokenizer);
    normalizer_deinit(&tokenizer->normalizer);
    special_set_deinit(&tokenizer->specials);
    special_set_deinit(&tokenizer->normalized_specials);
    bytes_deinit(&tokenizer->special_bytes);
    mem_free(tokenizer->scores);
    mem_free(tokenizer->classes);
    mem_free(tokenizer->pieces);
    mem_free(tokenizer->texts);
    mem_free(tokenizer->bytes);
    mem_free(tokenizer);
}

/* ---- what is known of tokens ---- */
struct tokenizer_text tokenizer_piece(const struct tokenizer *tokenizer, int32_t id,
                                      bool show_control)
{
    if (id < 0 || id >= tokenizer->n_tokens) {
        return (struct tokenizer_text){ "", 0 };
    }
    return show_control && tokenizer_is_control(tokenizer, id) ? tokenizer->texts[id]
                                                               : tokenizer->pieces[id];
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

enum status tokenizer_chat_format(const struct tokenizer *tokenizer, const char *name,
                                  enum chat_format *out)
{
    *out = tokenizer->chat_format;
    if (name) {
        return chat_format_find(name, out);
    }
    return *out == CHAT_NONE ? status_fail(STATUS_UNSUPPORTED, "%s", tokenizer->chat_sentence)
                             : STATUS_OK;
}

bool tokenizer_adds_space(const struct tokenizer *tokenizer) { return tokenizer->drops_space; }

uint64_t tokenizer_digest(const struct tokenizer *tokenizer)
{
    return tokenizer->digest;
}
