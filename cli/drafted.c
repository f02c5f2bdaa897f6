/* drafted: what was drafted, for people: closing lines, and a text in colours (--explain). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

/* ---- closing lines ---- */
static void append(char *line, size_t cap, const char *format, double value)
{
    const size_t n = strlen(line);
    snprintf(line + n, cap - n, format, value);
}

static void say_sources(const struct conf *conf, const struct td_engine_info *info,
                        const struct td_draft_counts *drafted)
{
    for (int i = 0; i < TD_MAX_SOURCES && info->draft_sources[i]; i++) {
        const double proposed = (double)drafted->proposed_by_source[i];
        if (proposed > 0) {
            say(conf, "%s  %s: %lld of %.0f guesses accepted (%.0f %%)%s", style_dim(2), info->draft_sources[i],
                (long long)drafted->accepted_by_source[i], proposed,
                100.0 * (double)drafted->accepted_by_source[i] / proposed, style_off(2));
        }
    }
}

static double share(double part, double rest)
{
    return part + rest > 0 ? part / (part + rest) : 0;
}

static int has_worked(const struct td_ahead_counts *ahead)
{
    return ahead->hits + ahead->misses + ahead->unprepared > 0;
}

enum status drafted_add_json(const struct td_ahead_counts *ahead, json_t *draft)
{
    if (!json_is_object(draft)) {
        return STATUS_OK; /* nothing is drafted */
    }
    json_t *fields = !has_worked(ahead) ? json_null() : json_pack(
        "{s:I,s:I,s:I,s:f,s:I,s:I,s:I,s:I,s:f,s:f,s:f}", "hits", (json_int_t)ahead->hits, "misses",
        (json_int_t)ahead->misses, "unprepared", (json_int_t)ahead->unprepared, "hit_rate",
        share((double)ahead->hits, (double)ahead->misses), "branches_grown", (json_int_t)ahead->branches_grown,
        "branches_used", (json_int_t)ahead->branches_used, "tokens_served", (json_int_t)ahead->tokens_served,
        "tokens_wanted", (json_int_t)ahead->tokens_wanted, "hidden_seconds", ahead->hidden_seconds,
        "exposed_seconds", ahead->exposed_seconds, "fallback_seconds", ahead->fallback_seconds);
    return json_object_set_new(draft, "ahead", fields) == 0
        ? STATUS_OK : status_fail(STATUS_NO_MEMORY, "no memory for a result");
}

static void say_ahead(const struct conf *conf, const struct td_ahead_counts *ahead)
{
    const double n_rounds = (double)(ahead->hits + ahead->misses);
    if (!has_worked(ahead)) {
        return;
    }
    say(conf, "%s  drafted ahead: %llu of %.0f outcomes prepared for (%.0f %%), %.1f of %.1f tokens ready; %llu of %llu "
        "branches used; %.1f ms of drafting hidden, %.1f ms waited for (%.0f %% hidden), %.1f of them behind misses%s", style_dim(2),
        (unsigned long long)ahead->hits, n_rounds, 100 * share((double)ahead->hits, (double)ahead->misses),
        ahead->hits > 0 ? (double)ahead->tokens_served / (double)ahead->hits : 0.0,
        ahead->hits > 0 ? (double)ahead->tokens_wanted / (double)ahead->hits : 0.0,
        (unsigned long long)ahead->branches_used, (unsigned long long)ahead->branches_grown,
        ahead->hidden_seconds * 1e3, ahead->exposed_seconds * 1e3,
        100 * share(ahead->hidden_seconds, ahead->exposed_seconds), ahead->fallback_seconds * 1e3, style_off(2));
}

void drafted_say(const struct conf *conf, const struct td_engine_info *info,
                 const struct td_draft_counts *drafted, const struct td_engine_stats *stats)
{
    char positions[256] = "", speedup[64] = "";
    if (!info->draft_sources[0]) {
        return;
    }
    if (drafted->rounds == 0) {
        say(conf, "%sdraft %s: nothing was proposed%s", style_dim(2), info->draft, style_off(2));
        return;
    }
    for (int i = 0; i < result_n_positions(drafted); i++) {
        append(positions, sizeof positions, " %.2f", (double)drafted->accepted_by_position[i] /
                                                         (double)drafted->rounds);
    }
    if (stats->speedup_vs_plain > 0) {
        append(speedup, sizeof speedup, ", %.2fx the speed of plain decoding", stats->speedup_vs_plain);
    }
    say(conf, "%sdraft %s: %.2f tokens a round over %lld rounds, %lld of %lld guesses accepted; by position%s%s%s",
        style_dim(2), info->draft, 1 + (double)drafted->accepted / (double)drafted->rounds,
        (long long)drafted->rounds, (long long)drafted->accepted, (long long)drafted->proposed, positions, speedup,
        style_off(2));
    if (info->draft_sources[1]) {
        say_sources(conf, info, drafted);
    }
    say_ahead(conf, &stats->ahead);
}

/* ---- colours ---- */
/* Of sources in their order; what the target chose itself is plain, a wrong guess is struck out. */
static const char *const source_style[TD_MAX_SOURCES] = {"\033[32m", "\033[36m", "\033[35m", "\033[34m",
    "\033[33m", "\033[92m", "\033[96m", "\033[95m"};
static const char *const wrong_style = "\033[2;9;31m";

void explain_init(struct explain *explain, struct td_engine *engine)
{
    memset(explain, 0, sizeof *explain);
    explain->engine = engine;
    td_engine_get_info(engine, &explain->info);
    explain->colours = *style_off(1) != '\0';
}

/* Text of one more token: what it adds to the few before it, so that spaces and characters in pieces
 * come out as they stand. Returns its bytes. */
static size_t token_text(const struct explain *explain, int32_t id, char *text, size_t cap)
{
    char with[EXPLAIN_TEXT_CAP], before[EXPLAIN_TEXT_CAP];
    int32_t ids[EXPLAIN_WINDOW + 1];
    size_t n_with = 0, n_before = 0;
    memcpy(ids, explain->last, (size_t)explain->n_last * sizeof *ids);
    ids[explain->n_last] = id;
    if (td_detokenize(explain->engine, ids, (size_t)explain->n_last, before, sizeof before, &n_before) != TD_OK ||
        td_detokenize(explain->engine, ids, (size_t)explain->n_last + 1, with, sizeof with, &n_with) != TD_OK ||
        n_with > sizeof with || n_with < n_before || n_with - n_before > cap) {
        return 0;
    }
    memcpy(text, with + n_before, n_with - n_before);
    return n_with - n_before;
}

static enum status put(const char *style, const char *open, const struct text *text, const char *close)
{
    TRY(output_write(style, strlen(style)));
    TRY(output_write(open, strlen(open)));
    TRY(output_write(text->bytes, text->n));
    TRY(output_write(close, strlen(close)));
    return *style ? output_write("\033[0m", 4) : STATUS_OK;
}

static enum status put_token(const struct explain *explain, int32_t id, int source, int is_wrong)
{
    char bytes[EXPLAIN_TEXT_CAP], open[64];
    const struct text text = {bytes, token_text(explain, id, bytes, sizeof bytes), sizeof bytes};
    if (explain->colours) {
        return put(is_wrong ? wrong_style : source >= 0 ? source_style[source] : "", "", &text, "");
    }
    if (source < 0) {
        return put("", "", &text, "");
    }
    snprintf(open, sizeof open, "%c%s:", is_wrong ? '[' : '{', explain->info.draft_sources[source]);
    return put("", open, &text, is_wrong ? "]" : "}");
}

enum status explain_tokens(struct explain *explain, const struct td_event *event)
{
    for (size_t i = 0; event->kind == TD_EVENT_TOKENS && i < event->n_tokens; i++) {
        const struct td_token *token = &event->tokens[i];
        if (token->rejected_id >= 0) {
            TRY(put_token(explain, token->rejected_id, token->rejected_source, 1));
        }
        TRY(put_token(explain, token->id, token->source, 0));
        if (explain->n_last == EXPLAIN_WINDOW) {
            memmove(explain->last, explain->last + 1, (EXPLAIN_WINDOW - 1) * sizeof *explain->last);
            explain->n_last--;
        }
        explain->last[explain->n_last++] = token->id;
    }
    return output_flush();
}

void explain_legend(const struct conf *conf, const struct explain *explain)
{
    if (!explain->colours) {
        say(conf, "{source:accepted} [source:wrong guess] the rest is the target's own");
        return;
    }
    char line[512] = "";
    for (int i = 0; i < TD_MAX_SOURCES && explain->info.draft_sources[i]; i++) {
        const size_t n = strlen(line);
        snprintf(line + n, sizeof line - n, "%s%s accepted\033[0m, ", source_style[i],
                 explain->info.draft_sources[i]);
    }
    say(conf, "%s%swrong guesses\033[0m, the target's own", line, wrong_style);
}
