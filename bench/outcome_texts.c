/* outcome_texts: the target writes. */
#include "bench/outcomes.h"

enum { AT_ONCE = 16, BEGINNING = 17, ROOM = 1 };

/* The first token of a text: the begin token, or one of all. */
static int32_t first_token(struct td_engine *engine, uint64_t seed)
{
    struct td_engine_info info;
    int32_t id = -1;
    size_t n = 0;
    td_engine_get_info(engine, &info);
    if (td_tokenize(engine, "", 0, 0, &id, 1, &n) == TD_OK && n == 1) {
        return id;
    }
    return (int32_t)(rng_mix64(seed) % (uint64_t)info.n_vocab);
}

/* The texts go on at `temperature` to n_max tokens, or to their end. */
static enum status go_on(struct td_engine *engine, struct outcome_text *texts, int32_t n, float temperature,
                         int32_t n_max)
{
    int32_t n_running = 0;
    for (int32_t i = 0; i < n; i++) {
        struct td_request request;
        uint64_t id;
        td_request_init(&request);
        request.ids = texts[i].token;
        request.n_ids = (size_t)texts[i].n;
        request.max_tokens = n_max - texts[i].n;
        request.temperature = temperature;
        request.has_seed = 1;
        request.seed = texts[i].seed;
        request.want_text = 0;
        request.user = &texts[i];
        TRY(run_said(td_submit(engine, &request, &id)));
        n_running++;
    }
    while (n_running > 0) {
        struct td_event event;
        TRY(run_said(td_next_event(engine, -1, &event)));
        struct outcome_text *text = event.user;
        for (size_t i = 0; event.kind == TD_EVENT_TOKENS && i < event.n_tokens && text->n < n_max; i++) {
            text->token[text->n++] = event.tokens[i].id;
        }
        n_running -= event.kind == TD_EVENT_FINISHED;
        if (event.kind == TD_EVENT_FINISHED && event.finish == TD_FINISH_ERROR) {
            return status_fail(STATUS_INVALID, "a text failed: %s", event.error);
        }
    }
    return STATUS_OK;
}

static enum status write_some(struct td_engine *engine, const struct outcome_texts_options *options,
                              struct outcome_text *texts, int32_t first, int32_t n)
{
    struct td_engine_info info;
    td_engine_get_info(engine, &info);
    const int32_t room = info.context < OUTCOME_TEXT_TOKENS ? info.context : OUTCOME_TEXT_TOKENS;
    for (int32_t i = 0; i < n; i++) {
        texts[i] = (struct outcome_text){ .n = 1, .n_prompt = 1, .seed = (uint64_t)(first + i) };
        texts[i].token[0] = first_token(engine, texts[i].seed);
    }
    if (options->temperature == 0) {
        TRY(go_on(engine, texts, n, 1, BEGINNING));
        for (int32_t i = 0; i < n; i++) {
            texts[i].n_prompt = texts[i].n;
        }
    }
    return go_on(engine, texts, n, options->temperature, room - ROOM);
}

enum status outcome_texts_write(const struct outcome_texts_options *options, struct outcome_text *texts, int32_t *n)
{
    struct td_engine *engine;
    enum status status = STATUS_OK;
    int64_t n_tokens = 0;
    *n = 0;
    TRY(run_engine_open(&(struct run_engine_options){ .target = options->target, .draft = "none", .isa = options->isa,
        .threads = options->threads, .max_batch = AT_ONCE, .context = OUTCOME_TEXT_TOKENS }, &engine));
    while (n_tokens < options->n_tokens && *n < options->n_max) {
        const int32_t some = options->n_max - *n < AT_ONCE ? options->n_max - *n : AT_ONCE;
        TRY_GOTO(write_some(engine, options, texts + *n, *n, some), out);
        for (int32_t i = 0; i < some; i++) {
            n_tokens += texts[*n + i].n - texts[*n + i].n_prompt;
        }
        *n += some;
    }
out:
    td_engine_close(engine);
    return status;
}
