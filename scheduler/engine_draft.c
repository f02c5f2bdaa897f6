/* engine_draft: see the header. The words are names apart by commas; a word that is no name is a model. */
#include "scheduler/engine_ahead.h"
#include "scheduler/engine_draft.h"
#include "scheduler/engine_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORD_CAP = 4096, AUTO_K_MAX = 8, SUFFIX_CAP_BYTES = 16 << 20 };

struct opening {
    struct td_engine *engine;
    const struct td_engine_options *options;
    struct draft_options common;
    struct draft *parts[DRAFT_MAX_SOURCES];
    int32_t n_parts;
};

/* ---- auto ---- */
static bool is_there(char word[WORD_CAP], const char *target, size_t n_stem)
{
    const int n = snprintf(word, WORD_CAP, "%.*s-draft.gguf", (int)n_stem, target);
    return n < WORD_CAP && access(word, R_OK) == 0;
}

/* The draft that belongs to a target: the other half of a synthetic pair; beside a file
 * "story7M.q8.gguf", "story7M.q8-draft.gguf" or "story-draft.gguf" (its name up to the first digit, dot
 * or hyphen). Without one, what needs no model. */
static void resolve_auto(const char *target, char word[WORD_CAP])
{
    static const char pair[] = "synth:pair=", ending[] = ".gguf";
    const size_t n = strlen(target), n_ending = sizeof ending - 1;
    if (strncmp(target, pair, sizeof pair - 1) == 0) {
        snprintf(word, WORD_CAP, "%s,role=draft", target);
        return;
    }
    if (n > n_ending && strcmp(target + n - n_ending, ending) == 0) {
        const char *slash = strrchr(target, '/');
        const char *name = slash != NULL ? slash + 1 : target;
        const size_t n_stem = (size_t)(name - target) + strcspn(name, "0123456789.-");
        if (is_there(word, target, n - n_ending) || (target[n_stem] != '/' && is_there(word, target, n_stem))) {
            return;
        }
    }
    snprintf(word, WORD_CAP, "suffix");
}

/* ---- a model ---- */
/* Ids below *n_common mean the same to both. */
static enum status compare_vocabularies(const struct td_engine *engine, const struct model_source *source,
                                        int32_t *n_common)
{
    const int32_t n_draft = model_source_config(source)->n_vocab, n_target = engine->info.n_vocab;
    struct tokenizer *tokenizer = NULL;
    const enum status opened = text_open(source, &tokenizer);
    *n_common = n_draft < n_target ? n_draft : n_target;
    if (opened == STATUS_UNSUPPORTED && engine->tokenizer == NULL) {
        return n_draft == n_target ? STATUS_OK : status_fail(STATUS_INVALID,
            "the draft has %d ids and the target %d, and neither has a vocabulary to compare", n_draft, n_target);
    }
    if (opened == STATUS_UNSUPPORTED || (opened == STATUS_OK && engine->tokenizer == NULL)) {
        text_close(tokenizer);
        return status_fail(STATUS_INVALID, "%s has no vocabulary to compare with the other's",
                           engine->tokenizer == NULL ? "the target" : "the draft");
    }
    TRY(opened);
    int32_t n_both;
    const enum status status = text_compare(engine->tokenizer, tokenizer, &n_both);
    *n_common = n_both < *n_common ? n_both : *n_common;
    text_close(tokenizer);
    return status;
}

static enum status load_draft_model(struct opening *opening, struct model_source *source)
{
    struct td_engine *engine = opening->engine;
    const struct td_engine_options *options = opening->options;
    TRY(model_source_check(source));
    TRY(compare_vocabularies(engine, source, &engine->n_vocab_common));
    const int32_t most = model_source_config(source)->context_len;
    engine->draft_context = most < engine->plan.context ? most : engine->plan.context;
    const int32_t per_seq = (engine->draft_context + engine->plan.page_slots - 1) / engine->plan.page_slots;
    TRY(engine_memory_plan_draft(engine, source, per_seq * engine->plan.max_batch));
    /* On the lane with more cores, unless the draft is for another device. */
    struct lane *lane = engine->draft_backend != NULL ? engine->draft_lane : engine->lane;
    return model_load(source, lane, &(struct model_load_options){
        .mlock = options->mlock != 0, .context = engine->draft_context, .progress = options->progress,
        .progress_user = options->progress_user }, &engine->draft_model);
}

static enum status open_draft_model(struct opening *opening, const char *name)
{
    struct model_source *source;
    TRY(model_source_open_as(name, NULL, &source));
    const enum status status = load_draft_model(opening, source);
    model_source_close(source);
    return status;
}

static enum status add_model(struct opening *opening, const char *name, struct draft **out)
{
    struct td_engine *engine = opening->engine;
    const struct engine_plan *plan = &engine->plan;
    int32_t *ids = NULL, n_ids = 0;
    if (engine->draft_model != NULL) {
        return status_fail(STATUS_UNSUPPORTED, "one draft model at a time, found another: '%s'", name);
    }
    TRY(open_draft_model(opening, name));
    enum status status = engine_vocab_open(engine, opening->options->draft_vocab, name, &ids, &n_ids);
    if (status == STATUS_OK) {
        const int32_t per_seq = (engine->draft_context + plan->page_slots - 1) / plan->page_slots;
        const struct draft_model_options model = {
            .common = opening->common, .model = engine->draft_model,
            .lane = engine->draft_lane != NULL ? engine->draft_lane : engine->lane, .kv = plan->kv,
            .context = engine->draft_context, .page_slots = plan->page_slots,
            .n_pages = per_seq * plan->max_batch, .prefill_chunk = plan->prefill_chunk,
            .n_vocab_common = engine->n_vocab_common, .kept_ids = ids, .n_kept = n_ids,
            .least_pass_ns = (int64_t)opening->options->virtual_draft_us * 1000,
            .n_reshaped = opening->options->saguaro_top, .reshape = opening->options->saguaro_factor };
        status = plan->drafts_ahead ? engine_ahead_create(engine, opening->options, &model, out)
                                    : draft_model_create(&model, out);
    }
    mem_free(ids);
    if (status == STATUS_OK) {
        engine->memory[1].kv_bytes = plan->drafts_ahead ? draft_ahead_kv_bytes(*out) : draft_model_kv_bytes(*out);
        engine->info.draft_bytes = model_resident_bytes(engine->draft_model) +
                                   (plan->drafts_ahead ? draft_ahead_bytes(*out) : draft_model_bytes(*out));
    }
    return status;
}

/* "layerskip", or "layerskip:L". */
static enum status add_layerskip(struct opening *opening, const char *layers, struct draft **out)
{
    const int32_t n_target_layers = opening->engine->info.n_layers;
    char *end = NULL;
    const long n = *layers == ':' ? strtol(layers + 1, &end, 10) : 0;
    if (*layers == ':' && (layers[1] < '0' || layers[1] > '9' || *end != '\0' || n < 1 || n > n_target_layers)) {
        return status_fail(STATUS_INVALID, "--draft layerskip:L keeps from 1 to %d layers, found '%s'",
                           n_target_layers, layers + 1);
    }
    return draft_layerskip_create(&(struct draft_layerskip_options){
        .common = opening->common, .target = opening->engine->target, .n_target_layers = n_target_layers,
        .n_layers = (int32_t)n }, out);
}

/* ---- elsewhere ---- */
static enum status add_remote(struct opening *opening, const char *address, struct draft **out)
{
    const struct td_engine *engine = opening->engine;
    const struct td_engine_options *options = opening->options;
    const char *fallback = options->fallback != NULL ? options->fallback : "auto";
    return draft_remote_create(&(struct draft_remote_options){
        .common = opening->common, .address = address, .key_file = options->draft_key_file,
        .name = engine->info.model_name, .fingerprint = engine->info.fingerprint,
        .vocab_digest = engine->tokenizer != NULL ? text_digest(engine->tokenizer) : 0,
        .wait_ns = options->draft_wait_us < 0 ? -1 : (int64_t)options->draft_wait_us * 1000,
        .has_lookup = strcmp(fallback, "none") != 0 }, out);
}

/* ---- words ---- */
static bool is_model(const char *word)
{
    return strncmp(word, "synth:", 6) == 0 || access(word, F_OK) == 0;
}

static enum status make_part(struct opening *opening, const char *word, struct draft **out)
{
    static const char layerskip[] = "layerskip";
    const size_t n_layerskip = sizeof layerskip - 1;
    if (strcmp(word, "ngram") == 0) {
        return draft_ngram_create(&opening->common, out);
    }
    if (strcmp(word, "suffix") == 0) {
        return draft_suffix_create(&opening->common, SUFFIX_CAP_BYTES, out);
    }
    if (strncmp(word, layerskip, n_layerskip) == 0 && (word[n_layerskip] == ':' || word[n_layerskip] == '\0')) {
        return add_layerskip(opening, word + n_layerskip, out);
    }
    if (draft_remote_is_address(word)) {
        return add_remote(opening, word, out);
    }
    if (is_model(word)) {
        return add_model(opening, word, out);
    }
    return status_fail(STATUS_UNSUPPORTED, "there is no draft '%s', nor a file of that name; there are: none, "
                       "auto, ngram, suffix, layerskip, models, and tcp:HOST:PORT or unix:/PATH of a draft worker", word);
}

static enum status add_word(struct opening *opening, char word[WORD_CAP])
{
    struct draft *part = NULL;
    if (opening->n_parts == DRAFT_MAX_SOURCES) {
        return status_fail(STATUS_INVALID, "--draft names more than %d drafts", DRAFT_MAX_SOURCES);
    }
    if (strcmp(word, "none") == 0 || word[0] == '\0') {
        return status_fail(STATUS_INVALID, "--draft: 'none' and nothing stand alone, not in a list");
    }
    const bool is_auto = strcmp(word, "auto") == 0;
    if (is_auto) {
        resolve_auto(opening->options->target, word);
    }
    enum status status = make_part(opening, word, &part);
    if (is_auto && status == STATUS_INVALID) { /* a file beside the target that is no draft of it */
        log_info("%s; drafting from repeated text instead", status_message());
        status = draft_suffix_create(&opening->common, SUFFIX_CAP_BYTES, &part);
    }
    TRY(status);
    opening->parts[opening->n_parts++] = part;
    return STATUS_OK;
}

/* A synthetic model's name has commas of its own: from "synth:" on, the rest is one word. */
static enum status add_words(struct opening *opening, const char *words)
{
    char word[WORD_CAP];
    for (const char *at = words;;) {
        const size_t n = strncmp(at, "synth:", 6) == 0 ? strlen(at) : strcspn(at, ",");
        if (n >= WORD_CAP) {
            return status_fail(STATUS_INVALID, "--draft holds a word of over %d bytes", WORD_CAP - 1);
        }
        memcpy(word, at, n);
        word[n] = '\0';
        TRY(add_word(opening, word));
        if (at[n] == '\0') {
            return STATUS_OK;
        }
        at += n + 1;
    }
}

bool engine_draft_has_model(const struct td_engine_options *options)
{
    char word[WORD_CAP];
    for (const char *at = options->draft; at != NULL;) {
        const size_t n = strncmp(at, "synth:", 6) == 0 ? strlen(at) : strcspn(at, ",");
        snprintf(word, sizeof word, "%.*s", (int)(n < WORD_CAP ? n : WORD_CAP - 1), at);
        if (strcmp(word, "auto") == 0 && options->target != NULL) {
            resolve_auto(options->target, word);
        }
        if (is_model(word)) {
            return true;
        }
        at = at[n] == '\0' ? NULL : at + n + 1;
    }
    return false;
}

static void describe_draft(struct td_engine *engine)
{
    engine->info.draft = engine->draft->kind->name;
    for (int32_t i = 0; i < engine->draft->n_sources; i++) {
        engine->info.draft_sources[i] = engine->draft->source_name[i];
    }
}

int32_t engine_draft_k_max(const struct td_engine_options *options)
{
    const char *words = options->draft != NULL ? options->draft : "none";
    if (strcmp(words, "none") == 0) {
        return 0;
    }
    return options->k < 0 ? AUTO_K_MAX : options->k < DRAFT_MAX_NODES ? options->k : DRAFT_MAX_NODES;
}

/* Cores kept for nobody would only be taken from the target. */
static enum status check_device(const struct td_engine *engine, const struct td_engine_options *options)
{
    return options->draft_device == NULL || engine->draft_model != NULL ? STATUS_OK : status_fail(STATUS_INVALID,
        "the draft device '%s' is for a draft model; there is none", options->draft_device);
}

enum status engine_draft_open(struct td_engine *engine, const struct td_engine_options *options)
{
    enum status status = STATUS_OK;
    if (engine_draft_k_max(options) == 0) {
        TRY(check_device(engine, options));
        TRY(draft_none_create(&engine->draft));
        describe_draft(engine);
        return STATUS_OK;
    }
    struct opening opening = { .engine = engine, .options = options, .common = {
        .n_vocab = engine->info.n_vocab, .context = engine->plan.context,
        .max_batch = engine->plan.max_batch, .k_max = engine_draft_k_max(options),
        .wants_prob = engine->plan.rule == VERIFY_REJECTION } };
    TRY_GOTO(add_words(&opening, options->draft), out);
    TRY_GOTO(check_device(engine, options), out);
    TRY_GOTO(draft_several_create(&opening.common, opening.parts, opening.n_parts, &engine->draft), out);
    describe_draft(engine);
    return STATUS_OK;
out:
    for (int32_t i = 0; i < opening.n_parts; i++) {
        opening.parts[i]->kind->destroy(opening.parts[i]);
    }
    return status;
}

void engine_draft_close(struct td_engine *engine)
{
    if (engine->draft != NULL) {
        engine->draft->kind->destroy(engine->draft);
    }
    model_destroy(engine->draft_model);
}
