/* cli: what the verbs share: reading prompts, writing results, opening the engine by the options.
 *
 * A verb is one file with one entry, verb_NAME(); it returns a status whose sentence main() prints.
 * Text and JSON go to standard output, everything else to standard error. One thread.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/base.h"
#include "base/conf.h"
#include "tandem.h"

/* ---- verbs ---- */
enum status verb_run(const struct conf *conf);
enum status verb_chat(const struct conf *conf);
enum status verb_batch(const struct conf *conf);
enum status verb_logits(const struct conf *conf);
enum status verb_bench(const struct conf *conf);
void bench_print_names(FILE *out);
enum status verb_doctor(const struct conf *conf);
enum status verb_inspect(const struct conf *conf);
enum status verb_synth(const struct conf *conf);
enum status verb_draft_worker(const struct conf *conf);
enum status verb_quantize(const struct conf *conf);
enum status verb_tokenize(const struct conf *conf);
enum status verb_detokenize(const struct conf *conf);

/* ---- input.c ---- */
struct text { char *bytes; size_t n, cap; };     /* NUL after bytes[n); owned; zero-initialised */
enum status text_append(struct text *text, const char *bytes, size_t n);
void text_free(struct text *text);
/* The whole of a file ("-": standard input), at most INPUT_MAX_BYTES. */
enum { INPUT_MAX_BYTES = 64 << 20 };
enum status input_read(const char *path, struct text *out);

struct id_list { int32_t *ids; size_t n, cap; }; /* owned; zero-initialised */
enum status id_list_append(struct id_list *list, int32_t id);
void id_list_free(struct id_list *list);
/* Ids apart by commas or white space; `what` names the place in the sentence ("--ids"). */
enum status id_list_parse(const char *what, const char *text, size_t n, struct id_list *out);

/* --target, or the model that comes with the program: beside the executable, in the place it was
 * installed to, or in ./models. The text lives in `path`, or is the option's own. */
enum { PATH_CAP = 4096 };
enum status input_model(const struct conf *conf, char path[PATH_CAP], const char **model);

/* ---- output.c ---- */
/* Standard output, checked: STATUS_IO with a sentence when the reader is gone or the disk is full. */
enum status output_write(const char *bytes, size_t n);
enum status output_flush(void);
/* One object on one line; takes over `object`, NULL counts as out of memory. */
enum status output_json(json_t *object);
/* Routes jansson's memory through base/mem.h; call once before any JSON is made. */
void output_json_init(void);
json_t *json_hex(uint64_t value);                /* 16 digits: JSON numbers end at 2^53 */
json_t *json_ids(const int32_t *ids, size_t n);
/* A sentence on standard error unless --quiet. */
void say(const struct conf *conf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Escape sequence when standard error (fd 2) or output (fd 1) is a terminal that wants colour, "" else. */
const char *style_dim(int fd);
const char *style_bold(int fd);
const char *style_off(int fd);

/* A bar on a terminal, for what takes longer than a moment; fits the callbacks that count bytes. */
struct progress { const char *what; int on, shown; int64_t begin_ns, last_ns; };
void progress_init(struct progress *progress, const struct conf *conf, const char *what);
void progress_show(void *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *progress);

/* ---- engine.c ---- */
/* Refuses what is known and not built; fills td_engine_options; opens, with a progress bar. */
enum status engine_open(const struct conf *conf, int32_t default_max_batch, struct td_engine **out);
/* The sentence of the last td_ call as this program's status. */
enum status engine_failed(enum td_status status);
/* Request settings by the options, and by `hints` where they say something. stops lives in conf. */
void engine_request(const struct conf *conf, const struct td_hints *hints, struct td_request *request);
/* Text to prompt ids with the target's tokenizer, begin token added. */
enum status engine_tokenize(struct td_engine *engine, const char *text, size_t n, struct id_list *out);
/* A conversation to prompt ids; *end_id ends an answer, -1 = none. */
enum status engine_tokenize_chat(struct td_engine *engine, const struct td_chat *chat, struct id_list *out,
                                 int32_t *end_id);
/* From now on Ctrl-C sets a flag; a second one ends the program at once. */
void interrupt_catch(void);
int interrupt_seen(void); /* the signal's number; 0 = none */
void interrupt_forget(void); /* and catch the next one */

/* ---- ranks.c: verbs whose target several processes may hold ---- */
/* Joins the group that a launcher started this process in, if it did and the verb runs on ranks. *follows:
 * this is not rank 0, and ranks_follow_verb() is all there is to do. */
enum status ranks_begin(const struct conf *conf, int *follows);
enum status ranks_follow_verb(const struct conf *conf);
void ranks_end(void);
struct td_ranks *ranks_group(void); /* NULL: this process is alone */
int ranks_is_first(void);           /* the one that talks to people */

/* ---- hints.c ---- */
/* What the model advises and nobody gave, with a line that says so; nothing without --sampling model. */
enum status engine_hints(const struct conf *conf, const struct td_engine *engine, struct td_hints *out);
/* "temperature 0.6, top-k 20" into text; returns how many settings that is. */
int hints_text(const struct td_hints *hints, char *text, size_t cap);

/* ---- result.c: what run --json and batch write ---- */
struct result {
    struct text text;
    struct id_list prompt, tokens;
    enum td_finish finish;
    struct td_usage usage;
    char error[512];                             /* "" = none */
};
void result_free(struct result *result);
/* Adds one event's tokens and text; after TD_EVENT_FINISHED the rest of the fields hold. */
enum status result_add(struct result *result, const struct td_event *event);
/* Gathers one request's events to its end; text goes to standard output as it comes, if asked to, or
 * token by token as `explain` (may be NULL) shows them. An interrupt or a write error cancels the
 * request. */
enum result_text { RESULT_HOLD_TEXT, RESULT_STREAM_TEXT };
struct explain;
enum status result_follow(struct result *result, struct td_engine *engine, uint64_t id, enum result_text text,
                          struct explain *explain);
double result_tok_per_s(const struct result *result);
/* Positions up to the last at which a proposal was ever accepted. */
int result_n_positions(const struct td_draft_counts *drafted);
/* GB/s of weights in file format that decoding's passes of the target read. */
double result_gb_per_s(const struct result *result, const struct td_engine_info *info);
/* Adds the fields of the result to `object`. roof_gb_per_s 0: roof is null. */
enum status result_json(const struct result *result, const struct td_engine_info *info,
                        double roof_gb_per_s, json_t *object);

/* ---- doctor_pair.c ---- */
/* Tries --target with --draft for some seconds and says what to expect and what holds the pair back: to
 * `into` as "pair", or in print where that is NULL. */
enum status doctor_pair(const struct conf *conf, const char *default_target, json_t *into);
/* ---- drafted.c ---- */
/* Closing lines: guesses, positions, sources; nothing where nothing can be drafted. */
void drafted_say(const struct conf *conf, const struct td_engine_info *info,
                 const struct td_draft_counts *drafted, const struct td_engine_stats *stats);
/* Adds "ahead" to a result's "draft": what was prepared, null where the draft does not work ahead. */
enum status drafted_add_json(const struct td_ahead_counts *ahead, json_t *draft);
/* A text with each token in the colour of who proposed it; without colours, in braces. */
enum { EXPLAIN_WINDOW = 4, EXPLAIN_TEXT_CAP = 8192 };
struct explain {
    struct td_engine *engine;
    struct td_engine_info info;
    int32_t last[EXPLAIN_WINDOW];
    int n_last, colours;
};
void explain_init(struct explain *explain, struct td_engine *engine);
enum status explain_tokens(struct explain *explain, const struct td_event *event);
void explain_legend(const struct conf *conf, const struct explain *explain);

/* ---- memory.c ---- */
struct model_config;
/* What the models take of their devices: a table on standard error, unless --quiet or --json. */
void memory_say(const struct conf *conf, const struct td_engine *engine);
void devices_print(void);
/* For a model that is not loaded. */
void memory_print_plan(const struct model_config *config, uint64_t weight_bytes, int32_t context);

#endif
