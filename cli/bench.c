/* bench: hands the options to the question that was named. */
#include <stdio.h>
#include <string.h>

#include "bench/bench.h"
#include "cli/cli.h"

void bench_print_names(FILE *out)
{
    fputs("\nnames:\n", out);
    for (int i = 0; i < bench_n_questions; i++) {
        fprintf(out, "  %-14s %s\n", bench_table[i].name, bench_table[i].about);
    }
}

enum status verb_bench(const struct conf *conf)
{
    static const char *const later[] = {"ssd"};
    enum { MAX_QUESTIONS = 64 };
    const char *names[MAX_QUESTIONS];
    char path[PATH_CAP];
    struct bench_options options = {
        .target = conf_text(conf, OPT_TARGET), .isa = conf_text(conf, OPT_ISA),
        .threads = (int)conf_int(conf, OPT_THREADS), .reps = (int)conf_int(conf, OPT_REPS),
        .quick = conf_flag(conf, OPT_QUICK), .quiet = conf_flag(conf, OPT_QUIET),
        .virtual_only = conf_flag(conf, OPT_VIRTUAL),
    };
    if (!options.target && input_model(conf, path, &options.default_model) != STATUS_OK) {
        options.default_model = NULL;
    }
    int n = 0;
    for (; n < bench_n_questions && n < MAX_QUESTIONS; n++) {
        names[n] = bench_table[n].name;
        if (strcmp(bench_table[n].name, conf->argument[0]) == 0) {
            return bench_table[n].run(&options);
        }
    }
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        if (strcmp(later[i], conf->argument[0]) == 0) {
            return status_fail(STATUS_UNSUPPORTED, "bench %s is not built yet", later[i]);
        }
    }
    return status_fail(STATUS_USAGE, "no bench '%s'; the nearest is '%s' (tandem bench --help lists them)",
                       conf->argument[0], conf_nearest(conf->argument[0], names, n));
}
