/* measure: samples, roofs and the line that reports them. Private to bench/. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <jansson.h>

#include "bench/bench.h"

enum { SAMPLES_CAP = 1024 };
struct samples { double value[SAMPLES_CAP]; int n; };
void samples_add(struct samples *samples, double value);
double samples_median(const struct samples *samples); /* 0 when there is none */

/* Roofs of one number of threads, taken again and again between what is compared to them. */
enum { ROOF_READ = 1, ROOF_INTEGER = 2, ROOF_FLOAT = 4 };
struct roofs {
    struct backend *backend;
    const int *cpus;
    int threads, kinds;
    double seconds;          /* of one measurement of one roof */
    struct samples read, integer, fp32; /* bytes/s, MAC/s, FMA/s */
};
void roofs_take(struct roofs *roofs);
/* Seconds that bytes, MACs and FMAs cannot take less than: the largest of the three, arithmetic at
 * `part` of its peak (0.6 where a kernel is held to a mixed bound, 1 where to the peak). */
double roofs_bound(const struct roofs *roofs, double bytes, double macs, double fmas, double part);

enum better { HIGHER, LOWER };
struct line {
    const char *bench, *unit;
    json_t *which;           /* the case; taken over */
    enum better better;      /* LOWER: a time */
    const struct samples *values;
    const struct roofs *roofs; /* NULL: bound is a promise, not a roof */
    double bound;            /* in the unit */
    double roof;             /* in the unit, arithmetic at its full peak; 0 = the bound itself */
    const char *isa;
    uint64_t seed;
};
/* One JSON object on standard output, one row of a table on a terminal's standard error. */
enum status line_write(const struct bench_options *options, const struct line *line);

int bench_reps(const struct bench_options *options, int full, int quick);
/* Numbers of threads to measure: the one asked for, or 1 and all physical cores. Returns how many. */
int bench_threads(const struct bench_options *options, const struct bench_rig *rig, int out[2]);
/* The models of a question: the target asked for, or llama-1b in Q4_0, Q8_0, Q4_K and Q6_K (quick:
 * fewer layers). */
enum { BENCH_MAX_MODELS = 4 };
struct bench_model { const char *target, *model, *type; };
int bench_models(const struct bench_options *options, struct bench_model out[BENCH_MAX_MODELS]);
/* Multiply-adds of the linear layers for one row: the layers, and the head. */
double config_body_macs(const struct model_config *config);
double config_head_macs(const struct model_config *config);

enum status bench_decode(const struct bench_options *options);
enum status bench_rows(const struct bench_options *options);
enum status bench_prefill(const struct bench_options *options);
enum status bench_kernels(const struct bench_options *options);
enum status bench_scheduler(const struct bench_options *options);
enum status bench_load(const struct bench_options *options);
enum status bench_first_token(const struct bench_options *options);
enum status bench_memory(const struct bench_options *options);
enum status bench_speculate(const struct bench_options *options);
enum status bench_ssd(const struct bench_options *options);
enum status bench_rpc(const struct bench_options *options);
enum status bench_batch(const struct bench_options *options);
enum status bench_fanout(const struct bench_options *options);

#endif
