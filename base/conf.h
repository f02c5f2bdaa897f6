/* conf: verbs and options of the command line, their environment variables, ranges, defaults and
 * help, all from one table in conf.c. The only place that reads the environment.
 *
 * The command line wins over TANDEM_<OPTION>, which wins over the default. Knows no engine and opens
 * no file: values are parsed and bounded here, and mean something only to the verb. Not thread-safe;
 * made once in main().
 */
#ifndef BASE_CONF_H
#define BASE_CONF_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

/* ---- verbs ---- */
enum conf_verb {
    VERB_RUN, VERB_BATCH, VERB_LOGITS, VERB_BENCH, VERB_DOCTOR, VERB_INSPECT, VERB_SYNTH,
    VERB_TOKENIZE, VERB_DETOKENIZE, VERB_QUANTIZE,
    VERB_CHAT, VERB_DRAFT_WORKER,
    VERB_SERVE, VERB_AUDIT, /* named, not built */
    VERB_COUNT
};
struct conf_verb_info {
    const char *name;
    const char *arguments;   /* for the usage line: "FILE"; "" = none */
    const char *summary;
    const char *about;       /* a paragraph for --help, or NULL */
    int n_arguments_min, n_arguments_max;
    const char *later;       /* not NULL: not built, and this is the sentence */
};
const struct conf_verb_info *conf_verb_info(enum conf_verb verb);

/* ---- options ---- */
enum conf_option {
    OPT_TARGET, OPT_MODEL, OPT_LISTEN, OPT_INSECURE, OPT_DRAFT, OPT_DRAFT_KEY_FILE, OPT_DRAFT_WAIT, OPT_DRAFT_VOCAB, OPT_TARGET_DEVICE, OPT_DRAFT_DEVICE, OPT_LEND, OPT_AHEAD, OPT_AHEAD_BUDGET, OPT_FANOUT, OPT_FALLBACK, OPT_SAGUARO, OPT_K, OPT_VERIFY, OPT_EXPLAIN, OPT_TIMELINE, OPT_PLAN,
    OPT_ISA, OPT_THREADS, OPT_CONTEXT, OPT_KV, OPT_QUANT, OPT_PAGE, OPT_PREFILL_CHUNK, OPT_MAX_BATCH,
    OPT_MEMORY, OPT_MLOCK,
    OPT_PROMPT, OPT_PROMPT_FILE, OPT_IDS, OPT_MAX_TOKENS, OPT_STOP, OPT_IGNORE_EOS,
    OPT_TEMPERATURE, OPT_TOP_K, OPT_TOP_P, OPT_MIN_P, OPT_REPETITION_PENALTY,
    OPT_PRESENCE_PENALTY, OPT_FREQUENCY_PENALTY, OPT_SEED, OPT_SAMPLING,
    OPT_SYSTEM, OPT_CHAT_FORMAT,
    OPT_OUT, OPT_NO_SPECIAL, OPT_LITERAL, OPT_REPS, OPT_QUICK, OPT_VIRTUAL, OPT_TEXT,
    OPT_JSON, OPT_QUIET, OPT_TRACE, OPT_HELP,
    OPT_COUNT
};
enum conf_type { CONF_FLAG, CONF_INT, CONF_FLOAT, CONF_BYTES, CONF_SEED, CONF_TEXT, CONF_LIST, CONF_CHOICE };
struct conf_option_info {
    const char *name;        /* "max-tokens": --max-tokens, TANDEM_MAX_TOKENS */
    char short_form;         /* 'n', or 0 */
    enum conf_type type;
    double min, max;         /* CONF_INT, CONF_FLOAT, CONF_BYTES; inclusive */
    const char *unset;       /* default as it would be typed; NULL = not set */
    const char *choices;     /* CONF_CHOICE: "f16|f32" */
    const char *later;       /* values known and not built, "rejection|fast"; "*" = all of them */
    const char *metavar;     /* "N", "FILE" */
    const char *help;
    uint32_t verbs;          /* bit 1 << verb */
};
const struct conf_option_info *conf_option_info(enum conf_option option);

/* ---- a parsed command line ---- */
enum { CONF_LIST_CAP = 64, CONF_ARGUMENT_CAP = 1024 };
enum conf_origin { CONF_DEFAULT, CONF_ENVIRONMENT, CONF_COMMAND_LINE };
struct conf_value {
    enum conf_origin origin;
    const char *text;        /* as given; NULL = not set. Borrowed from argv or the environment */
    int64_t integer;         /* CONF_FLAG (0, 1), CONF_INT, CONF_BYTES; CONF_SEED: the bits */
    double number;           /* CONF_FLOAT, CONF_INT */
};
struct conf {
    enum conf_verb verb;
    struct conf_value value[OPT_COUNT];
    const char *list[CONF_LIST_CAP];           /* items of the one repeatable option, --stop */
    int n_list;
    const char *argument[CONF_ARGUMENT_CAP];   /* what is not an option */
    int n_arguments;
};

/* Fills conf from argv (argv[1] is the verb) and the environment. STATUS_USAGE with one sentence
 * for what is unknown (naming the nearest there is), out of range or missing, STATUS_UNSUPPORTED
 * for what is known and not built. With --help among the options, arguments are not required. */
enum status conf_parse(struct conf *conf, int argc, char **argv);

/* A value, typed; the option's type is asserted. conf_text is NULL when not set. */
int conf_is_set(const struct conf *conf, enum conf_option option); /* not by default */
int conf_flag(const struct conf *conf, enum conf_option option);
int64_t conf_int(const struct conf *conf, enum conf_option option);
double conf_float(const struct conf *conf, enum conf_option option);
const char *conf_text(const struct conf *conf, enum conf_option option);

/* ---- help, made from the tables ---- */
void conf_print_help(FILE *out);
void conf_print_verb_help(FILE *out, enum conf_verb verb);

/* ---- words ---- */
/* Edits (insert, delete, replace, swap neighbours) that turn a into b; words over 63 bytes are cut. */
int conf_edit_distance(const char *a, const char *b);
/* Of n words the one nearest to `word`, the first among equals; NULL when n is 0. */
const char *conf_nearest(const char *word, const char *const *words, int n);
/* "12", "512M", "1.5G" (1024-based; K, M, G, T, with or without B or iB) to bytes. */
enum status conf_parse_bytes(const char *text, int64_t *bytes);
/* An environment variable that is no option: a terminal's TERM, NO_COLOR. NULL when not set. */
const char *conf_environment(const char *name);

#endif
