/* outcomes: rows of both models over the texts, and what they say of each position. */
#include "bench/outcomes.h"

#include <stdio.h>
#include <string.h>

#include "sampling/sampling.h"

enum { MAX_TEXTS = 2048, PATH_CAP = 4096 };

/* Both models and room for a row of each. */
struct reader {
    const struct outcome_log_options *options;
    struct bench_rig target, draft;
    struct sampling_scratch *scratch;
    int32_t n_vocab;
    bool *is_kept;               /* [n_vocab] ids that the draft may propose, */
    int32_t *kept, n_kept;       /* and their list */
    float *noise, *value, *p, *q; /* [n_vocab] */
};

/* ---- opening ---- */
/* The ids beside the draft, NAME.ids for NAME.gguf; all, where there is no such list. */
static void read_kept(struct reader *reader)
{
    static const char ending[] = ".gguf";
    char path[PATH_CAP];
    const char *name = reader->options->draft;
    const size_t n = strlen(name), n_ending = sizeof ending - 1;
    FILE *file = NULL;
    if (n > n_ending && n < PATH_CAP && strcmp(name + n - n_ending, ending) == 0) {
        snprintf(path, sizeof path, "%.*s.ids", (int)(n - n_ending), name);
        file = fopen(path, "rb");
    }
    for (int32_t id = 0; id < reader->n_vocab; id++) {
        reader->is_kept[id] = file == NULL;
    }
    int32_t id;
    while (file != NULL && fscanf(file, "%9d", &id) == 1) {
        if (id >= 0 && id < reader->n_vocab) {
            reader->is_kept[id] = true;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    for (id = 0; id < reader->n_vocab; id++) {
        reader->kept[reader->n_kept] = id;
        reader->n_kept += reader->is_kept[id];
    }
}

static enum status open_rig(struct bench_rig *rig, const struct reader *reader, const char *name)
{
    const enum status status = bench_rig_init(rig, &(struct bench_rig_options){
        .target = name, .isa = reader->options->isa, .context = OUTCOME_TEXT_TOKENS, .cap_rows = OUTCOME_TEXT_TOKENS,
        .cap_logits = OUTCOME_TEXT_TOKENS, .threads = reader->options->threads });
    sched_setaffinity(0, sizeof rig->affinity, &rig->affinity); /* the other rig is to see all cores too */
    return status;
}

static enum status open_reader(struct reader *reader)
{
    TRY(open_rig(&reader->target, reader, reader->options->target));
    TRY(open_rig(&reader->draft, reader, reader->options->draft));
    reader->n_vocab = reader->target.config->n_vocab;
    if (reader->draft.config->n_vocab != reader->n_vocab) {
        return status_fail(STATUS_INVALID, "the draft has %d ids and the target %d", reader->draft.config->n_vocab,
                           reader->n_vocab);
    }
    const size_t n = (size_t)reader->n_vocab;
    reader->is_kept = mem_alloc(n, sizeof *reader->is_kept);
    reader->kept = mem_alloc(n + 1, sizeof *reader->kept);
    reader->noise = mem_alloc(n, 4 * sizeof *reader->noise);
    if (reader->is_kept == NULL || reader->kept == NULL || reader->noise == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for rows of %zu ids", n);
    }
    reader->value = reader->noise + n;
    reader->p = reader->value + n;
    reader->q = reader->p + n;
    read_kept(reader);
    return sampling_scratch_create(reader->n_vocab, &reader->scratch);
}

static void close_reader(struct reader *reader)
{
    sampling_scratch_destroy(reader->scratch);
    mem_free(reader->noise);
    mem_free(reader->kept);
    mem_free(reader->is_kept);
    bench_rig_deinit(&reader->draft);
    bench_rig_deinit(&reader->target);
}

/* ---- a position ---- */
/* Kept ids above `id` in the row of values, lowest first among equals; beyond all where it is not kept. */
static int32_t rank_of(const struct reader *reader, int32_t id)
{
    const float own = reader->value[id];
    int32_t rank = 0;
    for (int32_t i = 0; i < reader->n_kept && reader->is_kept[id]; i++) {
        const float value = reader->value[reader->kept[i]];
        rank += (value > own) | ((value == own) & (reader->kept[i] < id));
    }
    return reader->is_kept[id] && rank < OUTCOME_BEYOND ? rank : OUTCOME_BEYOND;
}

/* The same without another id, which stood before it or behind it. */
static int32_t rank_without(const struct reader *reader, int32_t rank, int32_t id, int32_t other)
{
    const float value = reader->value[other], own = reader->value[id];
    return rank < OUTCOME_BEYOND && (value > own || (value == own && other < id)) ? rank - 1 : rank;
}

/* The draft's own token is the first, so where it was refused it stood before. */
static struct outcome_spot coupled_spot(struct reader *reader, const float *draft, int32_t token)
{
    const float temperature = reader->options->temperature;
    for (int32_t i = 0; i < reader->n_kept; i++) {
        const int32_t id = reader->kept[i];
        reader->value[id] = temperature > 0 ? draft[id] / temperature + reader->noise[id] : draft[id];
    }
    const int32_t rank = rank_of(reader, token), left = rank > 0 && rank < OUTCOME_BEYOND ? rank - 1 : rank;
    return (struct outcome_spot){ .is_accepted = rank == 0, .rank = (uint8_t)rank, .rank_left = (uint8_t)left };
}

/* A coin of the walk's own: of the text's seed, not of those that wrote it. */
static float coin_of(const struct outcome_text *text, int32_t position, uint64_t which)
{
    return (float)(rng_mix64(rng_mix64(text->seed * 2 + which) + (uint64_t)position) >> 40) * 0x1p-24f;
}

static enum status rejection_spot(struct reader *reader, const float *draft, const struct outcome_text *text,
                                  int32_t position, struct outcome_spot *out)
{
    struct sampling_params params;
    const int32_t n = reader->n_vocab, token = text->token[position];
    sampling_params_defaults(&params);
    params.temperature = reader->options->temperature;
    for (int32_t id = 0; id < n; id++) {
        reader->value[id] = reader->is_kept[id] ? draft[id] : -MATHX_INF;
    }
    TRY(sampling_distribution(reader->draft.backend, &params, reader->value, n, NULL, 0, reader->scratch, reader->q));
    const int32_t rank = rank_of(reader, token);
    *out = (struct outcome_spot){ .is_accepted = coin_of(text, position, 0) * reader->p[token] < reader->q[token],
                                  .rank = (uint8_t)rank, .rank_left = (uint8_t)rank };
    if (!out->is_accepted) {
        const struct sampling_weights refused = { .prob = reader->q, .less = reader->p, .without_id = -1, .n_vocab = n };
        const int32_t proposed = sampling_draw_weights(&refused, coin_of(text, position, 1));
        out->rank_left = (uint8_t)(proposed < 0 ? rank : rank_without(reader, rank, token, proposed));
    }
    return STATUS_OK;
}

/* ---- a text ---- */
static enum status read_position(struct reader *reader, struct outcome_log *log, const struct outcome_text *text,
                                 int32_t position, int32_t spot)
{
    const int32_t n = reader->n_vocab, token = text->token[position];
    const size_t row = (size_t)(position - 1) * (size_t)n;
    const float *target = pass_buffers_logits(reader->target.buffers) + row;
    const float *draft = pass_buffers_logits(reader->draft.buffers) + row;
    struct sampling_params params;
    struct sampling_choice choice;
    sampling_params_defaults(&params);
    params.temperature = reader->options->temperature;
    params.seed = text->seed;
    TRY(sampling_choose(reader->target.backend, &params, target, n, text->token, position, position, reader->scratch,
                        &choice));
    if (choice.id != token) {
        return status_fail(STATUS_DIFFERENT, "the target's row at position %d chooses %d, it wrote %d", position,
                           choice.id, token);
    }
    if (params.temperature > 0) {
        backend_gumbel(reader->target.backend, text->seed, (uint32_t)position, 0, (uint32_t)n, reader->noise);
    }
    log->coupled[spot] = coupled_spot(reader, draft, token);
    if (log->rejection == NULL) {
        return STATUS_OK;
    }
    TRY(sampling_distribution(reader->target.backend, &params, target, n, NULL, 0, reader->scratch, reader->p));
    return rejection_spot(reader, draft, text, position, &log->rejection[spot]);
}

static enum status read_text(struct reader *reader, struct outcome_log *log, int32_t idx)
{
    const struct outcome_text *text = &log->text[idx];
    const int32_t n_rows = text->n - 1; /* the last token is only chosen */
    if (n_rows < 1) {
        return STATUS_OK;
    }
    bench_rig_pass(&reader->target, text->token, 0, n_rows, n_rows);
    bench_rig_pass(&reader->draft, text->token, 0, n_rows, n_rows);
    for (int32_t position = text->n_prompt; position < text->n; position++) {
        TRY(read_position(reader, log, text, position, log->first[idx] + position - text->n_prompt));
    }
    return STATUS_OK;
}

/* ---- the log ---- */
static enum status take_spots(struct outcome_log *log, bool has_rejection)
{
    log->first = mem_alloc((size_t)log->n_texts + 1, sizeof *log->first);
    if (log->first == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %d texts", log->n_texts);
    }
    for (int32_t i = 0; i < log->n_texts; i++) {
        log->first[i + 1] = log->first[i] + log->text[i].n - log->text[i].n_prompt;
    }
    const size_t n = (size_t)log->first[log->n_texts];
    log->coupled = mem_alloc(n, sizeof *log->coupled);
    log->rejection = has_rejection ? mem_alloc(n, sizeof *log->rejection) : NULL;
    if (log->coupled == NULL || (has_rejection && log->rejection == NULL)) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %zu positions", n);
    }
    return STATUS_OK;
}

enum status outcome_log_init(struct outcome_log *log, const struct outcome_log_options *options)
{
    struct reader reader = { .options = options };
    enum status status;
    memset(log, 0, sizeof *log);
    log->text = mem_alloc(MAX_TEXTS, sizeof *log->text);
    if (log->text == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %d texts", MAX_TEXTS);
    }
    TRY_GOTO(outcome_texts_write(&(struct outcome_texts_options){ .target = options->target, .isa = options->isa,
        .threads = options->threads, .temperature = options->temperature, .n_tokens = options->n_tokens,
        .n_max = MAX_TEXTS }, log->text, &log->n_texts), out);
    TRY_GOTO(take_spots(log, options->temperature > 0), out);
    TRY_GOTO(open_reader(&reader), out);
    log->isa = isa_name(backend_isa(reader.target.backend));
    for (int32_t i = 0; i < log->n_texts; i++) {
        TRY_GOTO(read_text(&reader, log, i), out);
    }
out:
    close_reader(&reader);
    if (status != STATUS_OK) {
        outcome_log_deinit(log);
    }
    return status;
}

void outcome_log_deinit(struct outcome_log *log)
{
    mem_free(log->rejection);
    mem_free(log->coupled);
    mem_free(log->first);
    mem_free(log->text);
    memset(log, 0, sizeof *log);
}

/* ---- rounds ---- */
int32_t outcomes_of_rounds(const struct outcome_log *log, const struct outcome_spot *spots, int32_t k,
                           struct outcome *out)
{
    int32_t n = 0;
    for (int32_t text = 0; text < log->n_texts; text++) {
        int32_t at = log->first[text];
        while (at < log->first[text + 1]) {
            int32_t accepted = 0;
            while (accepted < k && at + accepted < log->first[text + 1] && spots[at + accepted].is_accepted) {
                accepted++;
            }
            at += accepted;
            if (at == log->first[text + 1]) {
                break; /* its recovery token was not written any more */
            }
            const struct outcome_spot *spot = &spots[at++];
            out[n++] = (struct outcome){ .text = text, .k = (int8_t)accepted,
                                         .rank = accepted < k ? spot->rank_left : spot->rank };
        }
    }
    return n;
}
