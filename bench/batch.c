/* batch: tokens a second of all sequences together, by batch, K and planted agreement, beside what a
 * model of the gain says from measured parts.
 *
 * One engine per pair, with room for the largest batch. The model: S sequences that draft K tokens of
 * agreement a commit S * (1 - a^(K+1)) / (1 - a) tokens in the time of a pass of S * (K + 1) rows and of
 * drafting; both times are those of the same run. Its bound is that prediction; for plain decoding it is
 * the measured passes alone, so that the fraction says what the loop around them costs.
 */
#include <math.h>
#include <string.h>

#include "bench/engine_run.h"

enum { BATCH_MAX = 16, MAX_CELLS = 40 };
struct cell {
    int batch;
    int32_t k;
    struct samples rates;
    struct run_result sum;
};

/* agree < 0: not planted; what was accepted of first proposals stands in for it. */
static double predicted(const struct cell *cell, double agree)
{
    const struct run_result *sum = &cell->sum;
    agree = agree < 0 ? run_first_acceptance(&sum->drafted) : agree;
    const double seconds = sum->draft_seconds + sum->verify_seconds;
    if (sum->n_passes == 0 || seconds <= 0) {
        return 0;
    }
    if (cell->k < 0) { /* its K is its own affair: tokens over the measured parts */
        return (double)sum->n_tokens / seconds;
    }
    const double k = (double)cell->k;
    const double length = agree < 1 ? (1 - pow(agree, k + 1)) / (1 - agree) : k + 1;
    return (double)cell->batch * length * (double)sum->n_passes / seconds;
}

static enum status run_cell(struct td_engine *engine, struct cell *cell, int64_t n_tokens, int variant, bool counts)
{
    static uint64_t n_runs; /* a tenant each */
    struct run_result result;
    TRY(run_requests(engine, &(struct run_spec){ .batch = cell->batch, .n_tokens = n_tokens, .k = cell->k,
                                                 .variant = variant, .tenant = ++n_runs }, &result));
    if (counts) {
        samples_add(&cell->rates, result.tok_per_s);
        cell->sum.n_tokens += result.n_tokens;
        cell->sum.n_passes += result.n_passes;
        cell->sum.draft_seconds += result.draft_seconds;
        cell->sum.verify_seconds += result.verify_seconds;
        cell->sum.drafted.rounds += result.drafted.rounds;
        cell->sum.drafted.accepted += result.drafted.accepted;
        cell->sum.drafted.accepted_by_position[0] += result.drafted.accepted_by_position[0];
    }
    return STATUS_OK;
}

static enum status write_cell(const struct bench_options *options, const struct cell *cell,
                              const struct cell *plain_one, double agree, const char *isa)
{
    json_t *k = cell->k < 0 ? json_string("auto") : json_integer(cell->k);
    json_t *which = json_pack("{s:i,s:o,s:f,s:f,s:f,s:f,s:b}", "batch", cell->batch, "k", k, "agree", agree,
        "agreement", run_first_acceptance(&cell->sum.drafted), "mean_length", run_mean_length(&cell->sum.drafted),
        "times_batch_1", samples_median(&cell->rates) / samples_median(&plain_one->rates), "synthetic_pair", agree >= 0);
    return line_write(options, &(struct line){
        .bench = "batch", .unit = "tok/s", .which = which, .better = HIGHER, .values = &cell->rates,
        .bound = predicted(cell, agree), .isa = isa, .seed = 1 });
}

static int list_cells(const struct bench_options *options, struct cell *cells)
{
    static const int batches[] = { 1, 2, 4, 8, 16 }, few[] = { 1, 8 };
    static const int32_t ks[] = { 0, 1, 2, 4, -1 };
    const int n_batches = options->quick ? 2 : 5;
    int n = 0;
    for (int b = 0; b < n_batches; b++) {
        for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
            cells[n++] = (struct cell){ .batch = options->quick ? few[b] : batches[b], .k = ks[i] };
        }
    }
    return n;
}

static enum status measure(const struct bench_options *options, struct td_engine *engine, struct cell *cells,
                           double agree)
{
    struct td_engine_info info;
    const int n = list_cells(options, cells), reps = bench_reps(options, 3, 1);
    const int64_t n_tokens = options->quick ? 24 : 48;
    td_engine_get_info(engine, &info);
    for (int i = 0; i <= reps; i++) {
        for (int c = 0; c < n; c++) {
            if (i > 0 || cells[c].k < 0) { /* before the first: what "auto" wants to learn */
                TRY(run_cell(engine, &cells[c], n_tokens, i, i > 0));
            }
        }
    }
    for (int c = 0; c < n; c++) {
        TRY(write_cell(options, &cells[c], &cells[0], agree, info.isa));
    }
    return STATUS_OK;
}

static enum status measure_pair(const struct bench_options *options, const char *target, double agree)
{
    struct td_engine *engine = NULL;
    struct cell *cells = mem_alloc(MAX_CELLS, sizeof *cells);
    if (cells == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for cells");
    }
    enum status status = run_engine_open(&(struct run_engine_options){
        .target = target, .draft = "auto", .isa = options->isa, .threads = options->threads,
        .max_batch = options->quick ? 8 : BATCH_MAX, .k = -1, .context = 256 }, &engine);
    if (status == STATUS_OK) {
        status = measure(options, engine, cells, agree);
        td_engine_close(engine);
    }
    mem_free(cells);
    return status;
}

enum status bench_batch(const struct bench_options *options)
{
    static const struct { const char *target; double agree; } pairs[] = {
        { "synth:pair=llama-1b,q8_0,agree=0.8,seed=1", 0.8 },
        { "synth:pair=llama-1b,q8_0,agree=0.6,seed=1", 0.6 },
        { "synth:pair=llama-1b,q8_0,agree=1,seed=1", 1.0 },
    };
    if (options->target != NULL) {
        return measure_pair(options, options->target, -1);
    }
    if (options->quick) {
        return measure_pair(options, "synth:pair=llama-1b,q8_0,layers=2,vocab=8192,agree=0.8,seed=1", 0.8);
    }
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        TRY(measure_pair(options, pairs[i].target, pairs[i].agree));
    }
    return STATUS_OK;
}
