/* models: what the questions of gpu_models share. Whole synthetic models on the first device: passes with no
 * engine around them, and engines. Models are loaded once a question; what is compared runs in turn, again and
 * again, so that what the machine does meanwhile meets all of it alike. One thread.
 */
#ifndef GPU_MODELS_H
#define GPU_MODELS_H

#include "bench/engine_run.h"
#include "gpu/line.h"

#define MODELS_DEVICE "cuda:0"

enum { MODELS_MAX_ROWS = 8, MODELS_MAX_KS = 4, MODELS_MAX_BATCHES = 8 };
/* How large a question is: the real thing, or one of seconds that goes the same ways. Lists end with 0. */
struct models_scale {
    const char *model;                       /* a shape; a type follows */
    int32_t contexts[2], prompts[2], chunk;  /* positions decoded at; prompts and rows of a pass of one */
    int32_t rows[MODELS_MAX_ROWS + 1];
    int32_t n_decoded;                       /* tokens of a repetition */
    int reps, steps;                         /* repetitions; passes of one, where passes are timed alone */
    const char *batched;
    int batches[MODELS_MAX_BATCHES + 1];
    int32_t n_batched;
    const char *pairs[2];                    /* without agree= */
    double agreements[3];
    int32_t ks[MODELS_MAX_KS + 1], n_paired, context; /* of engines */
    const char *part, *rest;                 /* of the device: a draft's multiprocessors, and what they leave */
};
struct models_run {
    const struct models_scale *scale;
    double deadline;                         /* seconds of the monotonic clock */
    int n_left_out;
};
/* Whether about so many seconds are left; says what is left out when not. */
int models_has_time(struct models_run *run, double seconds, const char *what);

/* What follows the question's name and ':', or "". */
enum status models_decode(struct models_run *run, const char *type);
enum status models_batch(struct models_run *run, const char *unused);
enum status models_pairs(struct models_run *run, const char *which);
enum status models_small(struct models_run *run, const char *unused);

/* gaps.c: where the time of a step goes; `rig` holds a context of scale->contexts[0] and a bit. */
enum status models_gaps(struct models_run *run, struct bench_rig *rig, const char *type);

#endif
