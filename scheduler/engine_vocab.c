/* engine_vocab: the ids a draft model may propose (--draft-vocab). A draft's head costs most of a small
 * draft, and text uses few of a vocabulary's ids (FR-Spec, 2502.14856).
 *
 *     FILE    ids apart by white space or commas
 *     N       the N most frequent of what the target writes: it is asked to write for a moment, at
 *             temperature 1 from its begin token. What a short sample cannot have seen comes next by id:
 *             vocabularies are numbered in the order of their merges, which is nearly that of frequency
 *     nothing the list beside the draft, NAME.ids for NAME.gguf, if there is one
 */
#include "scheduler/engine_draft.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLE_SEQUENCES = 16, SAMPLE_TOKENS = 128, PATH_CAP = 4096 };
static const int64_t SAMPLE_BUDGET_NS = 2000000000;

/* ---- a file ---- */
static enum status add_id(uint8_t *kept, int32_t n_vocab, const char *path, long id)
{
    if (id < 0 || id >= n_vocab) {
        return status_fail(STATUS_INVALID, "%s: expected ids below %d, found %ld", path, n_vocab, id);
    }
    kept[id] = 1;
    return STATUS_OK;
}

static enum status read_ids(FILE *file, const char *path, uint8_t *kept, int32_t n_vocab)
{
    long id = -1;
    for (int c = getc(file);; c = getc(file)) {
        if (c >= '0' && c <= '9') {
            id = id < 0 ? c - '0' : id <= INT32_MAX ? id * 10 + (c - '0') : id;
            continue;
        }
        if (id >= 0) {
            TRY(add_id(kept, n_vocab, path, id));
            id = -1;
        }
        if (c == EOF) {
            return ferror(file) ? status_fail(STATUS_IO, "cannot read %s: %s", path, strerror(errno)) : STATUS_OK;
        }
        if (c != ',' && c != ' ' && c != '\t' && c != '\n' && c != '\r') {
            return status_fail(STATUS_INVALID, "%s: expected whole numbers apart by white space, found byte 0x%02x",
                               path, (unsigned)c);
        }
    }
}

static enum status keep_file(const char *path, uint8_t *kept, int32_t n_vocab)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return status_fail(STATUS_IO, "cannot open %s, which --draft-vocab names: %s", path, strerror(errno));
    }
    const enum status status = read_ids(file, path, kept, n_vocab);
    fclose(file);
    return status;
}

/* ---- what the target writes ---- */
static enum status submit_sample(struct td_engine *engine, struct scheduler *scheduler, struct request **out,
                                 uint64_t seed)
{
    int32_t begin = engine->info.n_vocab > 1 ? 1 : 0; /* where there is no vocabulary to say more */
    size_t n_begin = 0;
    struct td_request asked;
    td_request_init(&asked);
    if (engine->tokenizer != NULL) {
        TRY(text_encode(engine->tokenizer, "", 0, TOKENIZE_SPECIAL, &begin, 1, &n_begin));
    }
    asked.ids = &begin;
    asked.n_ids = 1;
    asked.max_tokens = SAMPLE_TOKENS;
    asked.temperature = 1;
    asked.has_seed = 1;
    asked.seed = seed;
    asked.want_text = 0;
    TRY(request_create(&engine->limits, &asked, out));
    scheduler_submit(scheduler, *out);
    return STATUS_OK;
}

static void count_ids(const struct request *request, int32_t *count)
{
    const struct sequence *seq = &request->sequences[0];
    for (int32_t i = request->n_prompt; i < seq->n_tokens; i++) {
        count[seq->tokens[i]]++;
    }
}

static enum status run_samples(struct td_engine *engine, struct scheduler *scheduler, int32_t *count)
{
    struct request *requests[SAMPLE_SEQUENCES] = { NULL };
    enum status status = STATUS_OK;
    const int64_t begin_ns = clock_now_ns();
    for (int i = 0; i < SAMPLE_SEQUENCES && status == STATUS_OK; i++) {
        status = submit_sample(engine, scheduler, &requests[i], (uint64_t)i);
    }
    while (status == STATUS_OK && scheduler_is_busy(scheduler) &&
           clock_now_ns() - begin_ns < SAMPLE_BUDGET_NS) {
        scheduler_step(scheduler);
    }
    scheduler_cancel_all(scheduler);
    for (int i = 0; i < SAMPLE_SEQUENCES && requests[i] != NULL; i++) {
        count_ids(requests[i], count);
        request_destroy(requests[i]);
    }
    return status;
}

/* A loop of its own over the engine's target, before the engine's loop is there. */
static enum status count_written(struct td_engine *engine, int32_t *count)
{
    const struct engine_plan *plan = &engine->plan;
    struct draft *none;
    struct scheduler *scheduler;
    TRY(draft_none_create(&none));
    TRY(scheduler_create(&(struct scheduler_options){
        .target = engine->target, .draft = none, .context = plan->context, .page_slots = plan->page_slots,
        .n_pages = plan->n_pages, .max_batch = plan->max_batch, .prefill_chunk = 1 }, &scheduler));
    const enum status status = run_samples(engine, scheduler, count);
    scheduler_destroy(scheduler);
    return status;
}

static void keep_frequent(const int32_t *count, int32_t n_vocab, int32_t n_wanted, uint8_t *kept)
{
    int32_t n_kept = 0, highest = 0;
    for (int32_t id = 0; id < n_vocab; id++) {
        highest = count[id] > highest ? count[id] : highest;
    }
    for (int32_t times = highest; times > 0 && n_kept < n_wanted; times--) {
        for (int32_t id = 0; id < n_vocab && n_kept < n_wanted; id++) {
            n_kept += count[id] == times;
            kept[id] |= count[id] == times;
        }
    }
    for (int32_t id = 0; id < n_vocab && n_kept < n_wanted; id++) {
        n_kept += !kept[id];
        kept[id] = 1;
    }
}

static enum status keep_written(struct td_engine *engine, int32_t n_wanted, uint8_t *kept, int32_t n_vocab)
{
    int32_t *count = mem_alloc((size_t)engine->info.n_vocab, sizeof *count);
    if (count == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory to count %d ids", engine->info.n_vocab);
    }
    const enum status status = count_written(engine, count);
    keep_frequent(count, n_vocab, n_wanted, kept);
    mem_free(count);
    return status;
}

/* ---- the three ways ---- */
static bool list_beside(const char *model, char path[PATH_CAP])
{
    static const char ending[] = ".gguf";
    const size_t n = strlen(model), n_ending = sizeof ending - 1;
    if (n <= n_ending || strcmp(model + n - n_ending, ending) != 0 ||
        snprintf(path, PATH_CAP, "%.*s.ids", (int)(n - n_ending), model) >= PATH_CAP) {
        return false;
    }
    FILE *file = fopen(path, "rb");
    if (file != NULL) {
        fclose(file);
    }
    return file != NULL;
}

static enum status keep_ids(struct td_engine *engine, const char *asked, uint8_t *kept, int32_t n_vocab)
{
    char *end;
    errno = 0;
    const long n = strtol(asked, &end, 10);
    if (asked[0] < '0' || asked[0] > '9' || *end != '\0') {
        return keep_file(asked, kept, n_vocab);
    }
    if (errno != 0 || n < 1 || n > n_vocab) {
        return status_fail(STATUS_INVALID, "--draft-vocab keeps from 1 to %d ids, found %s", n_vocab, asked);
    }
    return keep_written(engine, (int32_t)n, kept, n_vocab);
}

static enum status list_kept(const uint8_t *kept, int32_t n_vocab, int32_t **ids, int32_t *n_ids)
{
    *ids = mem_alloc((size_t)n_vocab, sizeof **ids);
    if (*ids == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a list of ids");
    }
    for (int32_t id = 0; id < n_vocab; id++) {
        if (kept[id]) {
            (*ids)[(*n_ids)++] = id;
        }
    }
    return *n_ids > 0 ? STATUS_OK : status_fail(STATUS_INVALID, "the list of ids for the draft is empty");
}

enum status engine_vocab_open(struct td_engine *engine, const char *asked, const char *model, int32_t **ids,
                              int32_t *n_ids)
{
    char path[PATH_CAP];
    const int32_t n_vocab = engine->n_vocab_common;
    *ids = NULL;
    *n_ids = 0;
    if (asked == NULL && !list_beside(model, path)) {
        return STATUS_OK;
    }
    uint8_t *kept = mem_alloc((size_t)n_vocab, 1);
    if (kept == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %d ids", n_vocab);
    }
    enum status status = keep_ids(engine, asked != NULL ? asked : path, kept, n_vocab);
    if (status == STATUS_OK) {
        status = list_kept(kept, n_vocab, ids, n_ids);
    }
    mem_free(kept);
    return status;
}
