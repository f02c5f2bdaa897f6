/* result: what one request gave, gathered from its events, and the object that says it. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

void result_free(struct result *result)
{
    text_free(&result->text);
    id_list_free(&result->prompt);
    id_list_free(&result->tokens);
}

enum status result_add(struct result *result, const struct td_event *event)
{
    for (size_t i = 0; event->kind == TD_EVENT_TOKENS && i < event->n_tokens; i++) {
        TRY(id_list_append(&result->tokens, event->tokens[i].id));
    }
    TRY(text_append(&result->text, event->text, event->n_text));
    if (event->kind == TD_EVENT_FINISHED) {
        result->finish = event->finish;
        result->usage = event->usage;
        snprintf(result->error, sizeof result->error, "%s", event->error ? event->error : "");
    }
    return STATUS_OK;
}

static enum status show(const struct td_event *event, enum result_text text, struct explain *explain)
{
    if (explain) {
        return explain_tokens(explain, event);
    }
    if (text == RESULT_HOLD_TEXT || event->n_text == 0) {
        return STATUS_OK;
    }
    TRY(output_write(event->text, event->n_text));
    return output_flush();
}

enum status result_follow(struct result *result, struct td_engine *engine, uint64_t id, enum result_text text,
                          struct explain *explain)
{
    static const int64_t wait_ns = 50000000; /* how long Ctrl-C may go unnoticed */
    int cancelled = 0;
    enum status status = STATUS_OK; /* of writing: the request is still drained to its end */
    for (;;) {
        struct td_event event;
        const enum td_status td = td_next_event(engine, wait_ns, &event);
        if (!cancelled && (interrupt_seen() || status != STATUS_OK)) {
            td_cancel(engine, id);
            cancelled = 1;
        }
        if (td == TD_TIMEOUT) {
            continue;
        }
        TRY(engine_failed(td));
        if (status == STATUS_OK) {
            status = result_add(result, &event);
        }
        if (status == STATUS_OK) {
            status = show(&event, text, explain);
        }
        if (event.kind == TD_EVENT_FINISHED) {
            return status;
        }
    }
}

/* The first token comes from the prompt's last row; decoding made the others. */
double result_tok_per_s(const struct result *result)
{
    const struct td_usage *usage = &result->usage;
    if (usage->completion_tokens < 2 || usage->decode_seconds <= 0) {
        return 0;
    }
    return (double)(usage->completion_tokens - 1) / usage->decode_seconds;
}

double result_gb_per_s(const struct result *result, const struct td_engine_info *info)
{
    const struct td_usage *usage = &result->usage;
    const int64_t n_passes = usage->completion_tokens - 1 - usage->drafted.accepted; /* each chose one more */
    if (n_passes < 1 || usage->decode_seconds <= 0) {
        return 0;
    }
    return (double)n_passes / usage->decode_seconds * (double)info->weight_bytes * 1e-9;
}

static json_t *roof_json(const struct result *result, const struct td_engine_info *info, double roof)
{
    if (roof <= 0) {
        return json_null();
    }
    return json_pack("{s:f,s:f}", "gb_per_s", roof, "fraction", result_gb_per_s(result, info) / roof);
}

/* A number as far as JSON's go here, the rest as a text of digits; batch reads both. */
static json_t *seed_json(uint64_t seed)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)seed);
    return seed <= INT64_MAX ? json_integer((json_int_t)seed) : json_string(digits);
}

static json_t *json_counts(const int64_t *counts, int n)
{
    json_t *array = json_array();
    for (int i = 0; array && i < n; i++) {
        if (json_array_append_new(array, json_integer((json_int_t)counts[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

int result_n_positions(const struct td_draft_counts *drafted)
{
    int n = TD_MAX_DRAFTED;
    while (n > 0 && drafted->accepted_by_position[n - 1] == 0) {
        n--;
    }
    return n;
}

static json_t *sources_json(const struct td_draft_counts *drafted, const struct td_engine_info *info)
{
    json_t *array = json_array();
    for (int i = 0; array && i < TD_MAX_SOURCES && info->draft_sources[i]; i++) {
        json_t *source = json_pack("{s:s,s:I,s:I}", "name", info->draft_sources[i],
                                   "proposed", (json_int_t)drafted->proposed_by_source[i],
                                   "accepted", (json_int_t)drafted->accepted_by_source[i]);
        if (json_array_append_new(array, source) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

/* Acceptance rate and mean length as vLLM counts them: accepted / proposed, 1 + accepted / rounds. */
static json_t *draft_json(const struct td_draft_counts *drafted, const struct td_engine_info *info)
{
    if (!info->draft_sources[0]) {
        return json_null();
    }
    const double proposed = (double)(drafted->proposed > 0 ? drafted->proposed : 1);
    const double rounds = (double)(drafted->rounds > 0 ? drafted->rounds : 1);
    return json_pack("{s:s,s:I,s:I,s:I,s:o,s:f,s:f,s:o}", "kind", info->draft,
                     "rounds", (json_int_t)drafted->rounds,
                     "proposed", (json_int_t)drafted->proposed, "accepted", (json_int_t)drafted->accepted,
                     "accepted_by_position", json_counts(drafted->accepted_by_position,
                                                         result_n_positions(drafted)),
                     "acceptance_rate", (double)drafted->accepted / proposed,
                     "mean_acceptance_length", 1 + (double)drafted->accepted / rounds,
                     "sources", sources_json(drafted, info));
}

enum status result_json(const struct result *result, const struct td_engine_info *info,
                        double roof_gb_per_s, json_t *object)
{
    const struct td_usage *usage = &result->usage;
    const double passes = (double)(usage->target_passes > 0 ? usage->target_passes : 1);
    json_t *fields = json_pack(
        "{s:o,s:o,s:o,s:s,s:o,s:{s:f,s:f,s:f},s:f,s:f,s:I,s:f,s:o,s:o,s:s,s:o,s:o}",
        "text", json_stringn(result->text.bytes ? result->text.bytes : "", result->text.n),
        "prompt_ids", json_ids(result->prompt.ids, result->prompt.n),
        "token_ids", json_ids(result->tokens.ids, result->tokens.n),
        "finish_reason", td_finish_name(result->finish),
        "seed", seed_json(usage->seed),
        "seconds", "load", info->load_seconds, "prefill", usage->prefill_seconds,
        "decode", usage->decode_seconds,
        "first_token_ms", usage->first_token_seconds * 1e3,
        "tok_per_s", result_tok_per_s(result),
        "target_passes", (json_int_t)usage->target_passes,
        "tokens_per_pass", (double)usage->completion_tokens / passes,
        "logits_digest", json_hex(usage->logits_digest),
        "fingerprint", json_hex(usage->fingerprint),
        "plan", info->plan,
        "roof", roof_json(result, info, roof_gb_per_s),
        "draft", draft_json(&usage->drafted, info));
    const int failed = !fields || json_object_update(object, fields) != 0;
    json_decref(fields);
    return failed ? status_fail(STATUS_NO_MEMORY, "no memory for a result") : STATUS_OK;
}
