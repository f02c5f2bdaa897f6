/* main: finds the verb, runs it, and turns its status into an exit code. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "tandem_commit.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DIFFERENT = 3, EXIT_INTERRUPTED = 130 };

static enum status (*const verbs[VERB_COUNT])(const struct conf *conf) = {
    [VERB_RUN] = verb_run, [VERB_BATCH] = verb_batch, [VERB_LOGITS] = verb_logits,
    [VERB_BENCH] = verb_bench, [VERB_DOCTOR] = verb_doctor, [VERB_INSPECT] = verb_inspect,
    [VERB_SYNTH] = verb_synth, [VERB_CHAT] = verb_chat, [VERB_TOKENIZE] = verb_tokenize, [VERB_DETOKENIZE] = verb_detokenize,
    [VERB_QUANTIZE] = verb_quantize, [VERB_DRAFT_WORKER] = verb_draft_worker,
};

static int exit_code(enum status status)
{
    switch (status) {
    case STATUS_OK: return EXIT_DONE;
    case STATUS_USAGE: return EXIT_USAGE;
    case STATUS_DIFFERENT: return EXIT_DIFFERENT;
    case STATUS_INTERRUPTED: return EXIT_INTERRUPTED;
    default: return EXIT_FAILED;
    }
}

/* `--help`, `--version` and no verb at all; -1 when there is a verb to run. */
static int answer_without_verb(int argc, char **argv)
{
    if (argc < 2) {
        conf_print_help(stderr);
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--version") == 0) {
        printf("tandem %s (%s)\n", TD_VERSION, TANDEM_COMMIT);
        return EXIT_DONE;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || (strcmp(word, "help") == 0 && argc == 2)) {
        conf_print_help(stdout);
        return EXIT_DONE;
    }
    return -1;
}

/* A verb that failed has its own sentence; that of the timeline comes second. */
static enum status end_timeline(enum status status)
{
    char sentence[1024];
    snprintf(sentence, sizeof sentence, "%s", status_message());
    const enum status ended = timeline_finish();
    if (status == STATUS_OK || ended == STATUS_OK) {
        return status == STATUS_OK ? ended : status_fail(status, "%s", sentence);
    }
    return status_fail(status, "%s; and %s", sentence, status_message());
}

static enum status run_verb(int argc, char **argv)
{
    static struct conf conf; /* 10 KiB, one */
    TRY(conf_parse(&conf, argc, argv));
    if (conf_flag(&conf, OPT_HELP)) {
        conf_print_verb_help(stdout, conf.verb);
        if (conf.verb == VERB_BENCH) {
            bench_print_names(stdout);
        }
        return STATUS_OK;
    }
    if (conf_flag(&conf, OPT_QUIET)) {
        log_set_level(LOG_ERROR);
    }
    int follows = 0;
    TRY(ranks_begin(&conf, &follows));
    return follows ? ranks_follow_verb(&conf) : end_timeline(verbs[conf.verb](&conf));
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* a reader that is gone is a write error, with its sentence */
    output_json_init();
    char *help_argv[] = {argv[0], NULL, "--help", NULL};
    if (argc == 3 && strcmp(argv[1], "help") == 0) { /* help VERB is VERB --help */
        help_argv[1] = argv[2];
        argv = help_argv;
    }
    int code = answer_without_verb(argc, argv);
    if (code < 0) {
        const enum status status = run_verb(argc, argv);
        /* rank 0 speaks for all: a launcher ends every rank when one fails, maybe before it has spoken */
        code = ranks_is_first() ? exit_code(status) : EXIT_DONE;
        if (code != EXIT_DONE && status != STATUS_INTERRUPTED) {
            fprintf(stderr, "tandem: %s\n", status_message());
        }
        ranks_end();
    }
    if (fclose(stdout) != 0 && code == EXIT_DONE) {
        fputs("tandem: cannot write to standard output\n", stderr);
        code = EXIT_FAILED;
    }
    return code;
}
