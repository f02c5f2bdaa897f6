/* models: main() of gpu_models.
 * usage: gpu_models [--seconds N] [--commit TEXT] [--machine TEXT] [--isa TEXT] [--size full|dry] QUESTION...
 * Lines of JSON on standard output. Exit 1: something failed; 2: wrong usage; 3: texts differ; 4: no GPU.
 */
#include "gpu/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_DIFFERENT = 3, EXIT_NO_GPU = 4 };

static const struct models_scale scales[] = {
    { .model = "llama-8b", .contexts = { 128, 16384 }, .prompts = { 512, 4096 }, .chunk = 512,
      .rows = { 1, 2, 4, 8, 16, 32, 64 }, .n_decoded = 16, .reps = 5, .steps = 8,
      .batched = "synth:llama-8b,q4_0,seed=1", .batches = { 1, 2, 4, 8, 16, 32, 64 }, .n_batched = 33,
      .pairs = { "synth:pair=llama-8b,q4_0,draft=smol-135m,tail=1,seed=1",
                 "synth:pair=llama-70b,q4_0,draft=llama-1b,tail=1,seed=1" },
      .agreements = { 0.89, 0.8 }, .ks = { 2, 4, 6, 8 },
      .n_paired = 96, .context = 512, .part = "cuda:0/40", .rest = "cuda:0/-40" },
    { .model = "tiny,vocab=96", .contexts = { 16, 48 }, .prompts = { 12, 24 }, .chunk = 12,
      .rows = { 1, 2, 8 }, .n_decoded = 2, .reps = 3, .steps = 1,
      .batched = "synth:tiny,q4_0,vocab=96,seed=1", .batches = { 1, 3 }, .n_batched = 4,
      .pairs = { "synth:pair=tiny,q8_0,layers=1,vocab=128,draft=tiny,draft-layers=1,seed=1",
                 "synth:pair=tiny,q4_0,layers=1,vocab=128,draft=tiny,draft-layers=1,seed=2" },
      .agreements = { 0.89 }, .ks = { 2 }, .n_paired = 4, .context = 64, .part = "cuda:0/4", .rest = "cuda:0/-4" },
};

static const struct question {
    const char *name, *about;
    enum status (*ask)(struct models_run *run, const char *word);
} questions[] = {
    { "small", "a tiny pair in every way, each text with the CPU's digest: for sanitizers", models_small },
    { "decode", "decode:TYPE: one row, several rows, prompts, gaps, recordings of one model", models_decode },
    { "batch", "many sequences at once", models_batch },
    { "pairs", "pairs:8b, pairs:70b: speculation against plain decoding", models_pairs },
};
enum { N_QUESTIONS = sizeof questions / sizeof questions[0] };

static double seconds_now(void) { return (double)clock_now_ns() * 1e-9; }

int models_has_time(struct models_run *run, double seconds, const char *what)
{
    const double left = run->deadline - seconds_now();
    if (left >= seconds) {
        return 1;
    }
    fprintf(stderr, "left out: %s: %.0f s are left, it takes about %.0f\n", what, left > 0 ? left : 0, seconds);
    run->n_left_out++;
    return 0;
}

/* ---- words ---- */
static int refuse(const char *why, const char *word)
{
    fprintf(stderr, "%s '%s'; usage: gpu_models [--seconds N] [--commit TEXT] [--machine TEXT] [--isa TEXT] "
                    "[--size full|dry] QUESTION...\n", why, word);
    for (int i = 0; i < N_QUESTIONS; i++) {
        fprintf(stderr, "  %-8s %s\n", questions[i].name, questions[i].about);
    }
    return EXIT_USAGE;
}

static int take_option(struct models_run *run, const char *name, const char *value)
{
    const struct { const char *name, **text; } texts[] = { { "--commit", &line_origin.commit },
                                                           { "--machine", &line_origin.machine },
                                                           { "--isa", &line_origin.isa } };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].text = value;
            return 0;
        }
    }
    if (strcmp(name, "--size") == 0 && (strcmp(value, "full") == 0 || strcmp(value, "dry") == 0)) {
        run->scale = &scales[value[0] == 'd'];
        line_origin.options = value[0] == 'd' ? "dry: tiny models, no measure of anything" : "";
        return 0;
    }
    if (strcmp(name, "--seconds") == 0 && atof(value) > 0) {
        run->deadline = seconds_now() + atof(value);
        return 0;
    }
    return refuse("not an option and its value:", name);
}

/* "decode:q4_0" */
static const struct question *find(const char *word, const char **rest)
{
    const size_t n = strcspn(word, ":");
    *rest = word + n + (word[n] == ':');
    for (int i = 0; i < N_QUESTIONS; i++) {
        if (strlen(questions[i].name) == n && strncmp(questions[i].name, word, n) == 0) {
            return &questions[i];
        }
    }
    return NULL;
}

int main(int n, char **words)
{
    struct models_run run = { .scale = &scales[0], .deadline = seconds_now() + 1e6 };
    const char *rest;
    int at = 1, code = 0;
    for (; at + 1 < n && strncmp(words[at], "--", 2) == 0; at += 2) {
        if (take_option(&run, words[at], words[at + 1]) != 0) {
            return EXIT_USAGE;
        }
    }
    for (int i = at; i < n; i++) {
        if (find(words[i], &rest) == NULL) {
            return refuse("no question", words[i]);
        }
    }
    if (at >= n) {
        return refuse("no question is asked:", "");
    }
    if (backend_n_cuda_devices() < 1) {
        fprintf(stderr, "no GPU: this machine shows none, or its driver is older than this build's CUDA\n");
        return EXIT_NO_GPU;
    }
    for (; at < n && code == 0; at++) {
        const enum status status = find(words[at], &rest)->ask(&run, rest);
        if (status != STATUS_OK) {
            fprintf(stderr, "%s: %s\n", words[at], status_message());
            code = status == STATUS_DIFFERENT ? EXIT_DIFFERENT : EXIT_FAILED;
        }
    }
    return code;
}
