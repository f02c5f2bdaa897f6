/* speculate: how much faster than its own plain decoding each source and K makes a pair, at batch 1.
 *
 * One engine a source; a repetition runs plain decoding and every K in turn, so that what the machine
 * does meanwhile meets them alike, and the ratios are taken within it. Text, seed and length are the same
 * throughout, and so must the digest be. The bound of a fixed K is what its measured parts allow: tokens
 * committed over seconds drafting and verifying. The bound of "auto" is the best of those, so that its
 * fraction says how well it chose.
 */
#include <stdio.h>
#include <string.h>

#include "bench/engine_run.h"

enum { MAX_CELLS = 12, MAX_SOURCES = 6 };
struct pair {
    const char *name, *target;
    const char *sources[MAX_SOURCES]; /* as --draft takes them */
    float temperatures[2];
    int n_temperatures;
    int64_t n_tokens;
    bool is_synthetic;
};
struct cell {
    int32_t k;                        /* < 0: auto */
    struct samples rates, ratios;
    int64_t n_tokens;
    double seconds;                   /* drafting and verifying */
    struct td_draft_counts drafted;
};
struct source_run {
    const struct bench_options *options;
    const struct pair *pair;
    const char *source;
    float temperature;
    struct td_engine *engine;
    struct cell cells[MAX_CELLS];     /* the first is plain */
    int n_cells;
    uint64_t digest, n_runs;
};

static void add_counts(struct td_draft_counts *sum, const struct td_draft_counts *drafted)
{
    sum->rounds += drafted->rounds;
    sum->proposed += drafted->proposed;
    sum->accepted += drafted->accepted;
    sum->accepted_by_position[0] += drafted->accepted_by_position[0];
}

/* One repetition: every cell once, plain first. */
static enum status repeat(struct source_run *run, int variant, bool counts)
{
    double plain = 0;
    for (int i = 0; i < run->n_cells; i++) {
        struct cell *cell = &run->cells[i];
        struct run_result result;
        TRY(run_requests(run->engine, &(struct run_spec){ .batch = 1, .n_tokens = run->pair->n_tokens,
            .k = cell->k, .temperature = run->temperature, .variant = variant,
            .tenant = ++run->n_runs }, &result));
        plain = i == 0 ? result.tok_per_s : plain;
        run->digest = i == 0 ? result.digest : run->digest;
        if (result.digest != run->digest) {
            return status_fail(STATUS_DIFFERENT, "%s, draft %s, K %d: the text is not that of plain decoding",
                               run->pair->name, run->source, cell->k);
        }
        if (!counts) {
            continue;
        }
        samples_add(&cell->rates, result.tok_per_s);
        samples_add(&cell->ratios, result.tok_per_s / plain);
        cell->n_tokens += result.n_tokens;
        cell->seconds += result.draft_seconds + result.verify_seconds;
        add_counts(&cell->drafted, &result.drafted);
    }
    return STATUS_OK;
}

static double bound_of(const struct source_run *run, const struct cell *cell)
{
    double best = 0;
    for (int i = 0; i < run->n_cells; i++) {
        const struct cell *other = &run->cells[i];
        const double bound = other->k >= 0 && other->seconds > 0 ? (double)other->n_tokens / other->seconds : 0;
        if (cell->k < 0 ? bound > best : other == cell) {
            best = bound;
        }
    }
    return best;
}

static enum status write_cell(const struct source_run *run, const struct cell *cell, const char *isa)
{
    const struct samples *ratios = &cell->ratios;
    double low = ratios->n > 0 ? ratios->value[0] : 0, high = low;
    for (int i = 1; i < ratios->n; i++) {
        low = ratios->value[i] < low ? ratios->value[i] : low;
        high = ratios->value[i] > high ? ratios->value[i] : high;
    }
    json_t *k = cell->k < 0 ? json_string("auto") : json_integer(cell->k);
    json_t *which = json_pack("{s:s,s:s,s:o,s:f,s:f,s:f,s:f,s:f,s:f,s:b}", "pair", run->pair->name, "source",
        run->source, "k", k, "speedup_vs_plain", samples_median(ratios), "speedup_min", low, "speedup_max", high,
        "temperature", (double)run->temperature, "agreement", run_first_acceptance(&cell->drafted), "mean_length",
        run_mean_length(&cell->drafted), "synthetic_pair", run->pair->is_synthetic);
    return line_write(run->options, &(struct line){
        .bench = "speculate", .unit = "tok/s", .which = which, .better = HIGHER, .values = &cell->rates,
        .bound = bound_of(run, cell), .isa = isa });
}

static void set_cells(struct source_run *run)
{
    static const int32_t all[] = { 0, 1, 2, 3, 4, 5, 6, 8, -1 }, few[] = { 0, 2, 4, -1 };
    const int32_t *ks = run->options->quick ? few : all;
    run->n_cells = run->options->quick ? (int)(sizeof few / sizeof few[0]) : (int)(sizeof all / sizeof all[0]);
    memset(run->cells, 0, sizeof run->cells);
    for (int i = 0; i < run->n_cells; i++) {
        run->cells[i].k = ks[i];
    }
}

static enum status measure(struct source_run *run)
{
    struct td_engine_info info;
    const int reps = bench_reps(run->options, 7, 3);
    td_engine_get_info(run->engine, &info);
    for (int t = 0; t < run->pair->n_temperatures; t++) {
        run->temperature = run->pair->temperatures[t];
        set_cells(run);
        TRY(repeat(run, 0, false)); /* warms */
        for (int i = 0; i < reps; i++) {
            TRY(repeat(run, i + 1, true));
        }
        for (int i = 0; i < run->n_cells; i++) {
            TRY(write_cell(run, &run->cells[i], info.isa));
        }
    }
    return STATUS_OK;
}

static enum status measure_source(const struct bench_options *options, const struct pair *pair, const char *source)
{
    struct source_run *run = mem_alloc(1, sizeof *run); /* too large for a stack */
    if (run == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a run");
    }
    *run = (struct source_run){ .options = options, .pair = pair, .source = source };
    enum status status = run_engine_open(&(struct run_engine_options){
        .target = pair->target, .draft = source, .isa = options->isa, .threads = options->threads,
        .max_batch = 1, .k = -1, .context = pair->is_synthetic ? 512 : 0 }, &run->engine);
    if (status == STATUS_OK) {
        status = measure(run);
        td_engine_close(run->engine);
    }
    mem_free(run);
    return status;
}

#define PAIR_1B(AGREE) \
    { "llama-1b q8_0 agree=" AGREE, "synth:pair=llama-1b,q8_0,agree=" AGREE ",seed=1", { "auto" }, { 0 }, 1, 96, true }

enum status bench_speculate(const struct bench_options *options)
{
    const struct pair given = { options->target, options->target, { "auto", "ngram", "suffix", "layerskip" },
                                { 0, 1 }, 2, options->quick ? 64 : 160, false };
    const struct pair stories = { "stories15M + stories-draft", options->default_model,
                                  { "auto", "suffix", "ngram", "layerskip", "auto,suffix" }, { 0, 1 }, 2,
                                  options->quick ? 64 : 200, false };
    static const struct pair planted[] = { PAIR_1B("0"), PAIR_1B("0.6"), PAIR_1B("0.8"), PAIR_1B("0.9"),
                                           PAIR_1B("1") };
    const struct pair *first = options->target != NULL ? &given : &stories;
    for (int i = 0; i < MAX_SOURCES && first->target != NULL && first->sources[i] != NULL; i++) {
        TRY(measure_source(options, first, first->sources[i]));
    }
    for (size_t i = 0; i < sizeof planted / sizeof planted[0] && options->target == NULL && !options->quick; i++) {
        TRY(measure_source(options, &planted[i], planted[i].sources[0]));
    }
    return STATUS_OK;
}
