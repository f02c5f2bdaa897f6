/* engine: from options to an open engine and a request; what is not built is refused here. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "bench/bench.h"
#include "cli/cli.h"
#include "draft/draft.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    interrupted = number;
}

void interrupt_catch(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int interrupt_seen(void) { return interrupted; }

void interrupt_forget(void)
{
    interrupted = 0;
    interrupt_catch();
}

enum status engine_failed(enum td_status td)
{
    static const enum status same[] = {
        [TD_OK] = STATUS_OK, [TD_INVALID] = STATUS_INVALID, [TD_UNSUPPORTED] = STATUS_UNSUPPORTED,
        [TD_NO_MEMORY] = STATUS_NO_MEMORY, [TD_IO] = STATUS_IO, [TD_REFUSED] = STATUS_REFUSED,
        [TD_TIMEOUT] = STATUS_REFUSED, [TD_CLOSED] = STATUS_CANCELLED,
    };
    char sentence[1024]; /* the message may lie where status_fail() is about to write */
    snprintf(sentence, sizeof sentence, "%s", td_error_message());
    return td == TD_OK ? STATUS_OK : status_fail(same[td], "%s", sentence);
}

/* "auto", or how many. */
static enum status engine_k(const struct conf *conf, int32_t *k)
{
    const char *text = conf_text(conf, OPT_K);
    char *end;
    *k = -1;
    if (strcmp(text, "auto") == 0) {
        return STATUS_OK;
    }
    const long asked = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || asked > TD_MAX_DRAFTED) {
        return status_fail(STATUS_USAGE, "--k is auto or a number from 0 to %d, found '%s'", TD_MAX_DRAFTED, text);
    }
    *k = (int32_t)asked;
    return STATUS_OK;
}

/* "F:C" */
static enum status engine_saguaro(const struct conf *conf, struct td_engine_options *options)
{
    const char *text = conf_text(conf, OPT_SAGUARO);
    char *end = NULL, *last = NULL;
    if (text == NULL) {
        return STATUS_OK;
    }
    const long top = strtol(text, &end, 10);
    const float factor = *end == ':' ? strtof(end + 1, &last) : 0.0f;
    if (text[0] < '0' || text[0] > '9' || last == NULL || last == end + 1 || *last != '\0' || top > 256 ||
        !(factor >= 0.0f && factor <= 1.0f)) {
        return status_fail(STATUS_USAGE, "--saguaro is F:C, up to 256 ids and a factor from 0 to 1, such as 3:0.5; "
                           "found '%s'", text);
    }
    if (strcmp(conf_text(conf, OPT_VERIFY), "rejection") != 0) {
        return status_fail(STATUS_USAGE, "--saguaro is for --verify rejection; the coupled rule draws nothing of its own");
    }
    options->saguaro_top = (int32_t)top;
    options->saguaro_factor = factor;
    return STATUS_OK;
}

/* "auto", or microseconds. */
static enum status engine_draft_wait(const struct conf *conf, int32_t *wait_us)
{
    const char *text = conf_text(conf, OPT_DRAFT_WAIT);
    char *end;
    *wait_us = -1;
    if (strcmp(text, "auto") == 0) {
        return STATUS_OK;
    }
    const long asked = strtol(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || asked > 1000000) {
        return status_fail(STATUS_USAGE, "--draft-wait is auto or a number of microseconds from 0 to 1000000, found "
                           "'%s'", text);
    }
    *wait_us = (int32_t)asked;
    return STATUS_OK;
}

static enum status engine_check(const struct conf *conf)
{
    if (conf_int(conf, OPT_PAGE) % 16 != 0) {
        return status_fail(STATUS_USAGE, "--page is a multiple of 16, found %lld",
                           (long long)conf_int(conf, OPT_PAGE));
    }
    const int n_cpus = machine_get()->n_cpus;
    if (conf_int(conf, OPT_THREADS) > n_cpus) {
        return status_fail(STATUS_USAGE, "--threads %lld: this process may use %d cores",
                           (long long)conf_int(conf, OPT_THREADS), n_cpus);
    }
    struct fanout_options fanout = { .budget = 0 };
    if (fanout_parse(conf_text(conf, OPT_FANOUT), &fanout) != STATUS_OK) {
        char sentence[1024]; /* the message lies where status_fail() is about to write */
        snprintf(sentence, sizeof sentence, "%s", status_message());
        return status_fail(STATUS_USAGE, "--fanout: %s", sentence);
    }
    const char *device = conf_text(conf, OPT_TARGET_DEVICE);
    if (device && strncmp(device, "cpu:", 4) == 0 && conf_is_set(conf, OPT_THREADS)) {
        return status_fail(STATUS_USAGE, "--threads and the cores of --target-device %s say the same thing; "
                           "give one of them", device);
    }
    return STATUS_OK;
}

enum status engine_open(const struct conf *conf, int32_t default_max_batch, struct td_engine **out)
{
    char path[PATH_CAP];
    struct td_engine_options options;
    struct progress progress;
    td_engine_options_init(&options);
    TRY(engine_check(conf));
    if (conf_text(conf, OPT_TRACE) != NULL || conf_flag(conf, OPT_TIMELINE)) {
        TRY(timeline_record(conf_text(conf, OPT_TRACE)));
    }
    options.ranks = ranks_group();
    TRY(input_model(conf, path, &options.target));
    TRY(engine_k(conf, &options.k));
    TRY(engine_saguaro(conf, &options));
    TRY(engine_draft_wait(conf, &options.draft_wait_us));
    options.draft = conf_text(conf, OPT_DRAFT);
    options.draft_key_file = conf_text(conf, OPT_DRAFT_KEY_FILE);
    options.draft_vocab = conf_text(conf, OPT_DRAFT_VOCAB);
    options.verify = conf_text(conf, OPT_VERIFY);
    options.target_device = conf_text(conf, OPT_TARGET_DEVICE);
    options.draft_device = conf_text(conf, OPT_DRAFT_DEVICE);
    options.lend = strcmp(conf_text(conf, OPT_LEND), "on") == 0;
    options.ahead = conf_text(conf, OPT_AHEAD);
    options.ahead_budget = (int32_t)conf_int(conf, OPT_AHEAD_BUDGET);
    options.fanout = conf_text(conf, OPT_FANOUT);
    options.fallback = conf_text(conf, OPT_FALLBACK);
    options.isa = conf_text(conf, OPT_ISA);
    options.plan = conf_text(conf, OPT_PLAN);
    options.kv = conf_text(conf, OPT_KV);
    options.quant = conf_text(conf, OPT_QUANT);
    options.threads = (int32_t)conf_int(conf, OPT_THREADS);
    options.context = (int32_t)conf_int(conf, OPT_CONTEXT);
    options.page = (int32_t)conf_int(conf, OPT_PAGE);
    options.prefill_chunk = (int32_t)conf_int(conf, OPT_PREFILL_CHUNK);
    options.max_batch = conf_is_set(conf, OPT_MAX_BATCH) ? (int32_t)conf_int(conf, OPT_MAX_BATCH)
                                                         : default_max_batch;
    options.memory_bytes = (uint64_t)conf_int(conf, OPT_MEMORY);
    options.mlock = conf_flag(conf, OPT_MLOCK);
    progress_init(&progress, conf, "loading");
    options.progress = progress_show;
    options.progress_user = &progress;
    const enum td_status opened = td_engine_open(&options, out);
    progress_end(&progress);
    return engine_failed(opened);
}

/* A seed that every reader of JSON keeps whole: many hold numbers as doubles. */
static uint64_t new_seed(void) { return rng_os_seed() >> 11; }

static float advised(float hint, double option) { return hint >= 0 ? hint : (float)option; }

void engine_request(const struct conf *conf, const struct td_hints *hints, struct td_request *request)
{
    td_request_init(request);
    request->max_tokens = conf_int(conf, OPT_MAX_TOKENS);
    request->temperature = advised(hints->temperature, conf_float(conf, OPT_TEMPERATURE));
    request->top_k = hints->top_k >= 0 ? hints->top_k : (int32_t)conf_int(conf, OPT_TOP_K);
    request->top_p = advised(hints->top_p, conf_float(conf, OPT_TOP_P));
    request->min_p = advised(hints->min_p, conf_float(conf, OPT_MIN_P));
    request->repetition_penalty =
        advised(hints->repetition_penalty, conf_float(conf, OPT_REPETITION_PENALTY));
    request->presence_penalty = (float)conf_float(conf, OPT_PRESENCE_PENALTY);
    request->frequency_penalty = (float)conf_float(conf, OPT_FREQUENCY_PENALTY);
    request->has_seed = 1;
    request->seed = conf_is_set(conf, OPT_SEED) ? (uint64_t)conf_int(conf, OPT_SEED) : new_seed();
    request->stops = conf->list;
    request->n_stops = (size_t)conf->n_list;
    request->ignore_eos = conf_flag(conf, OPT_IGNORE_EOS);
}

enum status engine_tokenize(struct td_engine *engine, const char *text, size_t n, struct id_list *out)
{
    size_t needed = 0;
    enum td_status td = td_tokenize(engine, text, n, 0, out->ids, out->cap, &needed);
    if (td == TD_OK && needed > out->cap) {
        int32_t *bigger = mem_realloc(out->ids, needed, sizeof *bigger);
        if (!bigger) {
            return status_fail(STATUS_NO_MEMORY, "no memory for a prompt of %zu tokens", needed);
        }
        out->ids = bigger;
        out->cap = needed;
        td = td_tokenize(engine, text, n, 0, out->ids, out->cap, &needed);
    }
    out->n = td == TD_OK ? needed : 0;
    return engine_failed(td);
}

enum status engine_tokenize_chat(struct td_engine *engine, const struct td_chat *chat, struct id_list *out,
                                 int32_t *end_id)
{
    size_t needed = 0;
    enum td_status td = td_tokenize_chat(engine, chat, out->ids, out->cap, &needed, end_id);
    if (td == TD_OK && needed > out->cap) {
        int32_t *bigger = mem_realloc(out->ids, needed, sizeof *bigger);
        if (!bigger) {
            return status_fail(STATUS_NO_MEMORY, "no memory for a prompt of %zu tokens", needed);
        }
        out->ids = bigger;
        out->cap = needed;
        td = td_tokenize_chat(engine, chat, out->ids, out->cap, &needed, end_id);
    }
    out->n = td == TD_OK ? needed : 0;
    return engine_failed(td);
}
