/* ask: questions to an engine, so many in flight, and what came back. */
#include <string.h>

#include "base/base.h"
#include "tests/equivalence/equivalence.h"

enum { ENGINE_BATCH = 16, SPARE_PAGES = 1 };
static const int64_t WAIT_NS = INT64_C(300000000000); /* nothing here takes five minutes: it hangs */

/* ---- engines ---- */
static struct td_engine *open_or_say(const struct td_engine_options *options)
{
    struct td_engine *engine = NULL;
    if (td_engine_open(options, &engine) != TD_OK) {
        printf("cannot open %s with the draft %s: %s\n", options->target, options->draft, td_error_message());
        return NULL;
    }
    return engine;
}

struct td_engine *engine_open_plain(const struct subject *subject)
{
    struct td_engine_options options;
    td_engine_options_init(&options);
    options.target = subject->target;
    options.context = subject->context;
    options.threads = 1;
    options.prefix_cache = 0; /* every prompt from its first token */
    return open_or_say(&options);
}

/* Hits, and what misses fall back on: each of them with some draft, page size and pool. */
static void work_ahead(struct td_engine_options *options, const struct cell *cell)
{
    static const char *const fallbacks[] = { "auto", "none", "lookup", "branch", "draft" };
    static const int32_t hits[] = { 100, 50, 0 };
    const bool is_ahead = cell->draft >= DRAFT_AHEAD && cell->draft <= DRAFT_AHEAD_MISS;
    options->ahead = is_ahead ? "on" : "off";
    if (is_ahead) {
        options->ahead_hits = hits[cell->draft - DRAFT_AHEAD];
        options->fallback = fallbacks[(cell->draft + cell->page * 3 + cell->pool) % 5];
        options->ahead_budget = cell->pool == 1 ? 5 : 0;
    }
}

/* One thread with large pages, two with small ones. Too few pages: one sequence's and a few more. */
struct td_engine *engine_open(const struct subject *subject, const struct cell *cell)
{
    struct td_engine_options options;
    const int32_t page = PAGES[cell->page], per_seq = (subject->context + page - 1) / page;
    td_engine_options_init(&options);
    options.target = subject->target;
    options.draft = cell->draft == DRAFT_REMOTE ? worker_start(subject) : subject->drafts[cell->draft];
    if (options.draft == NULL) {
        return NULL;
    }
    work_ahead(&options, cell);
    options.context = subject->context;
    options.page = page;
    options.threads = cell->page == 0 ? 2 : 1;
    options.max_batch = ENGINE_BATCH;
    options.prefill_chunk = cell->page == 0 ? 96 : 512;
    options.kv_pages = cell->pool == 1 ? per_seq + SPARE_PAGES : 0;
    struct td_engine *engine = open_or_say(&options);
    if (engine == NULL) {
        worker_end();
    }
    return engine;
}

void engine_close(struct td_engine *engine)
{
    td_engine_close(engine);
    worker_end();
}

/* ---- one asking ---- */
struct flight {
    struct td_engine *engine;
    const struct asking *asking;
    struct answers *answers;
    uint64_t id[MAX_QUESTIONS];      /* by place in the asking */
    int32_t n_open_choices[MAX_QUESTIONS];
    int32_t n_sent, n_flying;
    struct digest logprobs[MAX_QUESTIONS][MAX_CHOICES];
};

static int32_t question_idx(const struct asking *asking, int32_t place)
{
    return (asking->first + place) % MAX_QUESTIONS;
}

/* Mixed: from the engine's own way to 8, a different one for every neighbour. */
static int32_t k_of(int32_t k, int32_t question)
{
    return k == K_AUTO ? -1 : k == K_MIXED ? question * 7 % 10 - 1 : k;
}

static bool send_next(struct flight *flight)
{
    const struct asking *asking = flight->asking;
    const int32_t place = flight->n_sent++, idx = question_idx(asking, place);
    struct td_request request = asking->questions[idx].request;
    request.k = k_of(asking->k, idx);
    memset(&flight->answers->answer[idx], 0, sizeof flight->answers->answer[idx]);
    for (int32_t c = 0; c < MAX_CHOICES; c++) {
        digest_init(&flight->logprobs[place][c]);
    }
    if (td_submit(flight->engine, &request, &flight->id[place]) != TD_OK) {
        printf("question %d was refused: %s\n", idx, td_error_message());
        return false;
    }
    flight->n_open_choices[place] = request.n;
    flight->n_flying++;
    return true;
}

static void digest_token(struct digest *digest, const struct td_token *token)
{
    digest_update(digest, &token->logprob, sizeof token->logprob);
    for (int32_t i = 0; i < token->n_top; i++) {
        digest_update(digest, &token->top[i].id, sizeof token->top[i].id);
        digest_update(digest, &token->top[i].logprob, sizeof token->top[i].logprob);
    }
}

static bool take_tokens(struct answer *answer, struct digest *logprobs, const struct td_event *event,
                        bool has_logprobs)
{
    if (answer->n_text + event->n_text > TEXT_CAP || event->n_tokens > (size_t)(MAX_ANSWER - answer->n_ids)) {
        printf("an answer of more than %d tokens or %d bytes\n", MAX_ANSWER, TEXT_CAP);
        return false;
    }
    for (size_t i = 0; i < event->n_tokens; i++) {
        answer->ids[answer->n_ids++] = event->tokens[i].id;
        if (has_logprobs) {
            digest_token(logprobs, &event->tokens[i]);
        }
    }
    memcpy(answer->text + answer->n_text, event->text, event->n_text);
    answer->n_text += event->n_text;
    return true;
}

static void take_end(struct flight *flight, int32_t place, struct answer *answer, const struct td_event *event)
{
    answer->is_finished = true;
    answer->finish = event->finish;
    answer->logits_digest = event->usage.logits_digest;
    answer->fingerprint = event->usage.fingerprint;
    answer->seed = event->usage.seed;
    answer->logprobs_digest = digest_value(&flight->logprobs[place][event->choice]);
    if (--flight->n_open_choices[place] == 0) {
        flight->n_flying--;
    }
}

static bool take_event(struct flight *flight, const struct td_event *event)
{
    int32_t place = 0;
    while (place < flight->n_sent && flight->id[place] != event->id) {
        place++;
    }
    if (place == flight->n_sent || event->choice < 0 || event->choice >= MAX_CHOICES) {
        printf("an event of nobody: request %llu, choice %d\n", (unsigned long long)event->id, event->choice);
        return false;
    }
    const int32_t idx = question_idx(flight->asking, place);
    struct answer *answer = &flight->answers->answer[idx][event->choice];
    const bool has_logprobs = flight->asking->questions[idx].request.logprobs >= 0;
    if (!take_tokens(answer, &flight->logprobs[place][event->choice], event, has_logprobs)) {
        return false;
    }
    if (event->kind == TD_EVENT_FINISHED) {
        take_end(flight, place, answer, event);
    }
    return true;
}

bool ask_all(struct td_engine *engine, const struct asking *asking, struct answers *answers)
{
    static struct flight flight; /* large, and one at a time */
    flight = (struct flight){ .engine = engine, .asking = asking, .answers = answers };
    while (flight.n_sent < asking->n || flight.n_flying > 0) {
        struct td_event event;
        while (flight.n_sent < asking->n && flight.n_flying < asking->at_once) {
            if (!send_next(&flight)) {
                return false;
            }
        }
        if (td_next_event(engine, WAIT_NS, &event) != TD_OK) {
            printf("no event, and %d questions are open\n", flight.n_flying);
            return false;
        }
        if (!take_event(&flight, &event)) {
            return false;
        }
    }
    return true;
}
