/* parity: every kernel on the device against the scalar code of the host, by memcmp: the cases of
 * tests/test_simt*.c, run for real. usage: gpu_parity [SUITE]...   Exit 1: something differs; 4: no GPU.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu/device.h"

enum { EXIT_NO_GPU = 4 };

/* main() of a file of cases, renamed */
int suite_rows(void);
int suite_linear(void);
int suite_float(void);
int suite_attention(void);
int suite_experts(void);
int suite_choose(void);
int suite_sample(void);
int suite_accept(void);
int suite_ranks(void);

static const struct suite { const char *name; int (*run)(void); } suites[] = {
    { "rows", suite_rows },           { "linear", suite_linear },   { "float", suite_float },
    { "attention", suite_attention }, { "experts", suite_experts }, { "choose", suite_choose },
    { "sample", suite_sample },       { "accept", suite_accept }, { "ranks", suite_ranks },
};
enum { N_SUITES = sizeof suites / sizeof *suites };

static int is_wanted(const char *name, int n, char **names)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            return 1;
        }
    }
    return n == 0;
}

int main(int n_arguments, char **arguments)
{
    const char *why_not = device_begin();
    int n_failed = 0, n_run = 0;
    if (why_not != NULL) {
        fprintf(stderr, "%s\n", why_not);
        return EXIT_NO_GPU;
    }
    for (int i = 0; i < N_SUITES; i++) {
        if (is_wanted(suites[i].name, n_arguments - 1, arguments + 1)) {
            printf("# suite %s on %s\n", suites[i].name, device_name());
            fflush(stdout);
            n_failed += suites[i].run() != 0;
            n_run++;
        }
    }
    if (n_run == 0) {
        fprintf(stderr, "no suite of that name; there are");
        for (int i = 0; i < N_SUITES; i++) {
            fprintf(stderr, " %s", suites[i].name);
        }
        fprintf(stderr, "\n");
        return 2;
    }
    return n_failed > 0;
}
