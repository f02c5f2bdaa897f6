/* run: one prompt to text, streamed as it is committed, and a closing line about speed and bits. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "cli/cli.h"
#include "cli/timeline.h"

/* Reads the prompt's text; *has_ids when ids were given instead. Before the model is loaded: what is
 * wrong here should not take that long to say. */
static enum status run_read_prompt(const struct conf *conf, struct text *prompt, struct result *result,
                                   int *has_ids)
{
    const char *text = conf_text(conf, OPT_PROMPT), *file = conf_text(conf, OPT_PROMPT_FILE);
    const char *ids = conf_text(conf, OPT_IDS);
    if ((text != NULL) + (file != NULL) + (ids != NULL) > 1) {
        return status_fail(STATUS_USAGE, "--prompt, --prompt-file and --ids are three ways to give one prompt; "
                           "use one of them");
    }
    *has_ids = ids != NULL;
    if (ids) {
        TRY(id_list_parse("--ids", ids, strlen(ids), &result->prompt));
        return result->prompt.n > 0 ? STATUS_OK : status_fail(STATUS_USAGE, "--ids holds no id");
    }
    if (text) {
        return text_append(prompt, text, strlen(text));
    }
    if (!file && isatty(STDIN_FILENO)) {
        say(conf, "reading the prompt from the terminal; Ctrl-D ends it");
    }
    return input_read(file ? file : "-", prompt);
}

static enum status run_close(const struct conf *conf, struct td_engine *engine, const struct result *result)
{
    struct td_engine_info about;
    struct td_engine_stats stats;
    const struct td_engine_info *info = &about;
    td_engine_get_info(engine, &about);
    td_engine_get_stats(engine, &stats);
    const int quiet = conf_flag(conf, OPT_QUIET), json = conf_flag(conf, OPT_JSON);
    /* whoever interrupts wants to be gone, not a measurement */
    const int measures = (json || !quiet) && !interrupt_seen();
    const double roof = measures ? td_engine_read_roof(engine, 0.2) * 1e-9 : 0;
    if (json) {
        json_t *object = json_object();
        enum status status = object ? result_json(result, info, roof, object) : STATUS_NO_MEMORY;
        status = status == STATUS_OK ? drafted_add_json(&stats.ahead, json_object_get(object, "draft")) : status;
        if (status != STATUS_OK) {
            json_decref(object);
            return status;
        }
        return output_json(object);
    }
    if (isatty(STDOUT_FILENO)) {
        TRY(output_write("\n", 1));
        TRY(output_flush());
    }
    const struct td_usage *usage = &result->usage;
    const double gb_per_s = result_gb_per_s(result, info);
    const int n_threads = info->threads + info->draft_threads;
    const int in_cache = info->weight_bytes < (uint64_t)machine_get()->l3_bytes;
    say(conf, "%s%lld tokens (%s), %.1f tok/s, %.2f GB/s of the %.1f GB/s that %d thread%s can read (%.2f%s), "
        "first token %.1f ms",
        style_dim(2), (long long)usage->completion_tokens, td_finish_name(result->finish),
        result_tok_per_s(result), gb_per_s, roof, n_threads, n_threads == 1 ? "" : "s",
        roof > 0 ? gb_per_s / roof : 0.0, in_cache ? ": the weights fit in the cache" : "",
        usage->first_token_seconds * 1e3);
    drafted_say(conf, info, &usage->drafted, &stats);
    say(conf, "logits digest %016llx, fingerprint %016llx, plan %s, %s, kv %s (%.1f MB), seed %llu%s",
        (unsigned long long)usage->logits_digest, (unsigned long long)usage->fingerprint, info->plan,
        info->isa, info->kv, (double)info->kv_bytes * 1e-6, (unsigned long long)usage->seed, style_off(2));
    return STATUS_OK;
}

/* On a terminal the story begins with its prompt. */
static enum status run_echo(const struct conf *conf, const struct text *prompt)
{
    if (conf_flag(conf, OPT_JSON) || !isatty(STDOUT_FILENO) || prompt->n == 0) {
        return STATUS_OK;
    }
    TRY(output_write(style_bold(1), strlen(style_bold(1))));
    TRY(output_write(prompt->bytes, prompt->n));
    TRY(output_write(style_off(1), strlen(style_off(1))));
    return output_flush();
}

static enum status run_request(const struct conf *conf, struct td_engine *engine, const struct text *prompt,
                               int has_ids, struct result *result)
{
    const int json = conf_flag(conf, OPT_JSON), explains = conf_flag(conf, OPT_EXPLAIN) && !json;
    struct explain explain;
    struct td_request request;
    struct td_hints hints;
    uint64_t id = 0;
    explain_init(&explain, engine);
    TRY(engine_hints(conf, engine, &hints));
    if (!has_ids) {
        TRY(engine_tokenize(engine, prompt->bytes, prompt->n, &result->prompt));
    }
    engine_request(conf, &hints, &request);
    request.ids = result->prompt.ids;
    request.n_ids = result->prompt.n;
    TRY(engine_failed(td_submit(engine, &request, &id)));
    memory_say(conf, engine);
    TRY(run_echo(conf, prompt));
    TRY(result_follow(result, engine, id, json ? RESULT_HOLD_TEXT : RESULT_STREAM_TEXT,
                      explains ? &explain : NULL));
    if (result->finish == TD_FINISH_ERROR) {
        return status_fail(STATUS_INVALID, "%s", result->error);
    }
    if (explains) {
        TRY(output_write("\n", 1));
        explain_legend(conf, &explain);
    }
    TRY(run_close(conf, engine, result));
    TRY(timeline_show(conf));
    return interrupt_seen() ? status_fail(STATUS_INTERRUPTED, "interrupted") : STATUS_OK;
}

enum status verb_run(const struct conf *conf)
{
    struct text prompt = {0};
    struct result result = {0};
    struct td_engine *engine = NULL;
    int has_ids = 0;
    enum status status;
    TRY_GOTO(run_read_prompt(conf, &prompt, &result, &has_ids), out);
    TRY_GOTO(engine_open(conf, 1, &engine), out);
    interrupt_catch();
    status = run_request(conf, engine, &prompt, has_ids, &result);
out:
    if (engine) {
        td_engine_close(engine);
    }
    text_free(&prompt);
    result_free(&result);
    return status;
}
