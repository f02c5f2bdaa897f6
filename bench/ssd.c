/* ssd: what it brings that the draft works while the target verifies, beside drafting in turn and plain
 * decoding, on two cores.
 *
 *     cores     plain            in turn                    ahead
 *     each      target's core    a core each                a core each, no help
 *     shared    both             both, by turns             a core each, each helps the other; and auto,
 *                                                           which takes what it measures to be faster
 *     virtual target   the target's passes last as long as those of a device on which one token of the
 *               draft costs 0.13 of them (target/virtual_target.h), and leave both cores to the draft
 *     virtual pair     and the draft's passes last as long as those of a device on which the rows of all
 *               branches cost what one does
 *
 * A sweep finds the best K of each way; then repetitions run the three in turn, so that what the machine
 * does meanwhile meets them alike, and ratios are taken within them. Pairs are synthetic: passes of real
 * shapes, a planted agreement. The bound is what the model of the gain (draft/gain.h) predicts from
 * measured times, the verify's with the other core busy, and from the planted odds.
 */
#include <stdio.h>
#include <string.h>

#include "bench/engine_run.h"
#include "draft/draft.h"

enum { NAME_CAP = 160, CORE_CAP = 24, MAX_KS = 6, CONTEXT = 512 };
static const double TAIL = 1;

enum cores { CORES_EACH, CORES_SHARED, CORES_VIRTUAL_TARGET, CORES_VIRTUAL_PAIR };
static const char *const cores_names[] = { "each", "shared", "virtual target", "virtual pair" };
static const double VIRTUAL_COST = 0.13;
enum { VIRTUAL_DRAFT_US = 2000 };

/* One pair in one placement. */
struct ssd_case {
    const struct bench_options *options;
    const char *pair;              /* without agree= and tail= */
    double agree;                  /* planted; < 0: a target that was given */
    enum cores cores;
    int32_t ks[MAX_KS];            /* tried; 0 beyond */
    int64_t n_tokens;
};
/* A way to decode, and what its repetitions gave. */
struct way {
    struct td_engine *engine;
    int32_t k;
    struct samples rates;
    struct run_result sum;
};
enum { PLAIN, IN_TURN, AHEAD, AUTO, N_WAYS }; /* AUTO: whichever is faster, as measured on the way; shared cores only */
struct ssd_run {
    const struct ssd_case *which;
    char target[NAME_CAP], first_core[CORE_CAP], second_core[CORE_CAP], both_cores[CORE_CAP];
    struct way way[N_WAYS];        /* plain decoding is the second's engine with K = 0 */
    struct samples ratios;         /* ahead over in turn */
    int32_t virtual_pass_us, virtual_draft_us;
    uint64_t n_runs, late_passes, n_passes;
};

/* ---- running ---- */
static void add_result(struct run_result *sum, const struct run_result *result)
{
    sum->n_tokens += result->n_tokens;
    sum->n_passes += result->n_passes;
    sum->draft_seconds += result->draft_seconds;
    sum->verify_seconds += result->verify_seconds;
    sum->drafted.rounds += result->drafted.rounds;
    sum->drafted.proposed += result->drafted.proposed;
    sum->drafted.accepted += result->drafted.accepted;
    sum->drafted.accepted_by_position[0] += result->drafted.accepted_by_position[0];
    for (int i = 0; i < TD_MAX_SOURCES; i++) {
        sum->drafted.proposed_by_source[i] += result->drafted.proposed_by_source[i];
    }
    sum->ahead.hits += result->ahead.hits;
    sum->ahead.misses += result->ahead.misses;
    sum->ahead.branches_grown += result->ahead.branches_grown;
    sum->ahead.tokens_served += result->ahead.tokens_served;
    sum->ahead.hidden_seconds += result->ahead.hidden_seconds;
    sum->ahead.exposed_seconds += result->ahead.exposed_seconds;
    sum->ahead.fallback_seconds += result->ahead.fallback_seconds;
    sum->ahead.glues += result->ahead.glues;
    sum->ahead.grow_steps += result->ahead.grow_steps;
    sum->ahead.glue_seconds += result->ahead.glue_seconds;
    sum->ahead.grow_seconds += result->ahead.grow_seconds;
}

static enum status run_way(struct ssd_run *run, int way, int32_t k, int variant, struct run_result *out)
{
    TRY(run_requests(run->way[way].engine, &(struct run_spec){ .batch = 1, .n_tokens = run->which->n_tokens, .k = k,
        .variant = variant, .tenant = ++run->n_runs }, out));
    run->late_passes += out->late_passes;
    run->n_passes += (uint64_t)out->n_passes;
    return STATUS_OK;
}

/* The K of most tokens a second, tried twice each; a way's first run learns and does not count. */
static enum status find_best_k(struct ssd_run *run, int way)
{
    double best = 0;
    struct run_result result;
    run->way[way].k = run->which->ks[0];
    TRY(run_way(run, way, run->which->ks[0], 0, &result));
    for (int i = 0; i < MAX_KS && run->which->ks[1] > 0 && run->which->ks[i] > 0; i++) {
        double rate = 0;
        for (int variant = 1; variant <= 2; variant++) {
            TRY(run_way(run, way, run->which->ks[i], variant, &result));
            rate += result.tok_per_s;
        }
        if (rate > best) {
            best = rate;
            run->way[way].k = run->which->ks[i];
        }
    }
    return STATUS_OK;
}

static enum status repeat(struct ssd_run *run, int variant)
{
    struct run_result results[N_WAYS];
    for (int way = 0; way < N_WAYS && run->way[way].engine != NULL; way++) {
        TRY(run_way(run, way, run->way[way].k, variant, &results[way]));
        if (results[way].digest != results[0].digest) {
            return status_fail(STATUS_DIFFERENT, "%s, K %d: digest %016llx, %016llx by plain decoding", run->target,
                               run->way[way].k, (unsigned long long)results[way].digest,
                               (unsigned long long)results[0].digest);
        }
        samples_add(&run->way[way].rates, results[way].tok_per_s);
        add_result(&run->way[way].sum, &results[way]);
    }
    samples_add(&run->ratios, results[AHEAD].tok_per_s / results[IN_TURN].tok_per_s);
    return STATUS_OK;
}

/* ---- what the parts took, and what they promise ---- */
static double per(double seconds, uint64_t n)
{
    return n > 0 ? seconds / (double)n : 0;
}

static double pass_seconds(const struct way *way)
{
    return per(way->sum.verify_seconds, (uint64_t)way->sum.n_passes);
}

/* Seconds of drafting a token in turn. */
static double token_seconds(const struct ssd_run *run)
{
    return per(run->way[IN_TURN].sum.draft_seconds, (uint64_t)run->way[IN_TURN].sum.drafted.proposed);
}

static double acceptance(const struct ssd_run *run)
{
    return run->which->agree >= 0 ? run->which->agree : run_first_acceptance(&run->way[IN_TURN].sum.drafted);
}

static double budget_of(const struct ssd_run *run)
{
    return per((double)run->way[AHEAD].sum.ahead.branches_grown, run->way[AHEAD].sum.ahead.glues);
}

/* Tokens that a miss had proposed by something else; source 0 is what was prepared. */
static double fallback_tokens(const struct run_result *sum)
{
    int64_t n = 0;
    for (int i = 1; i < TD_MAX_SOURCES; i++) {
        n += sum->drafted.proposed_by_source[i];
    }
    return per((double)n, sum->ahead.misses);
}

static struct gain_choice predict(const struct ssd_run *run)
{
    static const struct fanout_counts nothing_counted;
    const struct way *ahead = &run->way[AHEAD];
    const struct td_ahead_counts *counts = &ahead->sum.ahead;
    struct gain_times verify = { 0 }, glue = { 0 }, grow = { 0 };
    const int32_t budget = (int32_t)(budget_of(run) + 0.5);
    const double n_fallback = fallback_tokens(&ahead->sum);
    gain_times_observe(&verify, 1, pass_seconds(&run->way[PLAIN]));
    gain_times_observe(&verify, ahead->k + 1, pass_seconds(ahead));
    gain_times_observe(&glue, ahead->k + 1, per(counts->glue_seconds, counts->glues));
    gain_times_observe(&grow, budget, per(counts->grow_seconds, counts->grow_steps));
    return gain_choose(&(struct gain_inputs){
        .verify = &verify, .glue = &glue, .grow = &grow, .after_hit = &nothing_counted,
        .after_miss = &nothing_counted, .acceptance = (float)acceptance(run), .tail = (float)TAIL,
        .k_max = ahead->k, .max_budget = budget > 0 ? budget : 1, .fixed_k = ahead->k,
        .fixed_budget = budget > 0 ? budget : 1, .n_seqs = 1, .k_fallback = (int32_t)(n_fallback + 0.5),
        .fallback_seconds = per(counts->exposed_seconds, counts->misses), .end = GAIN_STOPS_EARLY });
}

static double share(double part, double rest)
{
    return part + rest > 0 ? part / (part + rest) : 0;
}

static enum status write_run(const struct ssd_run *run)
{
    const struct ssd_case *c = run->which;
    const struct way *ahead = &run->way[AHEAD];
    const struct td_ahead_counts *counts = &ahead->sum.ahead;
    const struct gain_choice predicted = predict(run);
    const double plain_pass = pass_seconds(&run->way[PLAIN]);
    const double draft = per(counts->glue_seconds, counts->glues) +
                         ahead->k * per(counts->grow_seconds, counts->grow_steps);
    struct td_engine_info info;
    td_engine_get_info(ahead->engine, &info);
    json_t *which = json_pack("{s:s,s:f,s:f,s:i,s:i,s:f,s:s,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:b,s:b,s:f}",
        "pair", run->target, "cost", plain_pass > 0 ? token_seconds(run) / plain_pass : 0.0, "agree", acceptance(run),
        "k", ahead->k, "k_in_turn", run->way[IN_TURN].k, "mq", budget_of(run), "cores", cores_names[c->cores],
        "plain", samples_median(&run->way[PLAIN].rates), "sd", samples_median(&run->way[IN_TURN].rates),
        "ssd", samples_median(&ahead->rates), "auto", samples_median(&run->way[AUTO].rates),
        "predicted", predicted.rate, "ssd_over_sd", samples_median(&run->ratios),
        "speedup_vs_plain", samples_median(&ahead->rates) / samples_median(&run->way[PLAIN].rates),
        "hit", share((double)counts->hits, (double)counts->misses), "hit_predicted", predicted.hit,
        "hidden", share(counts->hidden_seconds, counts->exposed_seconds),
        "hidden_prepared", share(counts->hidden_seconds, counts->exposed_seconds - counts->fallback_seconds),
        "served", per((double)counts->tokens_served, counts->hits) / ahead->k,
        "verify_cost", plain_pass > 0 ? pass_seconds(ahead) / plain_pass : 0.0, /* both in plain passes */
        "draft_cost", plain_pass > 0 ? draft / plain_pass : 0.0, "synthetic_pair", c->agree >= 0,
        "virtual_target", c->cores >= CORES_VIRTUAL_TARGET, "late", per((double)run->late_passes, run->n_passes));
    return line_write(c->options, &(struct line){
        .bench = "ssd", .unit = "tok/s", .which = which, .better = HIGHER, .values = &ahead->rates,
        .bound = predicted.rate, .isa = info.isa, .seed = 1 });
}

/* ---- opening ---- */
static enum status open_way(struct ssd_run *run, int way)
{
    static const char *const whens[N_WAYS] = { "off", "off", "on", "auto" };
    const enum cores cores = run->which->cores;
    const int is_divided = cores != CORES_SHARED || way >= AHEAD;
    /* A virtual target leaves its core to the draft while it waits. */
    const char *draft_cores = cores == CORES_VIRTUAL_TARGET ? run->both_cores : run->second_core;
    return run_engine_open(&(struct run_engine_options){
        .target = run->target, .draft = "auto", .isa = run->which->options->isa, .max_batch = 1, .k = -1,
        .context = CONTEXT, .ahead = whens[way],
        .target_device = is_divided ? run->first_core : run->both_cores,
        .draft_device = is_divided ? draft_cores : NULL,
        .keeps_apart = cores != CORES_SHARED, .virtual_pass_us = run->virtual_pass_us,
        .virtual_draft_us = run->virtual_draft_us }, &run->way[way].engine);
}

static void close_way(struct ssd_run *run, int way)
{
    if (run->way[way].engine != NULL) {
        td_engine_close(run->way[way].engine);
        run->way[way].engine = NULL;
    }
}

/* A pass of the virtual target: that of which a drafted token is the share asked for. */
static enum status choose_virtual_pass(struct ssd_run *run)
{
    struct run_result result;
    if (run->which->cores == CORES_VIRTUAL_PAIR) {
        run->virtual_draft_us = VIRTUAL_DRAFT_US;
    }
    TRY(open_way(run, IN_TURN));
    enum status status = STATUS_OK;
    double seconds = 0;
    for (int variant = 0; variant < 3; variant++) { /* the first one warms; of the others the lower */
        TRY_GOTO(run_way(run, IN_TURN, 4, variant, &result), out);
        const double found = per(result.draft_seconds, (uint64_t)result.drafted.proposed);
        seconds = variant < 2 || found < seconds ? found : seconds;
    }
    run->virtual_pass_us = (int32_t)(seconds / VIRTUAL_COST * 1e6);
    run->n_passes = run->late_passes = 0;
out:
    close_way(run, IN_TURN);
    return status;
}

static enum status measure(struct ssd_run *run)
{
    const int reps = bench_reps(run->which->options, 7, 2);
    struct run_result warmed;
    TRY(open_way(run, IN_TURN));
    TRY(open_way(run, AHEAD));
    run->way[PLAIN].engine = run->way[IN_TURN].engine;
    TRY(find_best_k(run, IN_TURN));
    TRY(find_best_k(run, AHEAD));
    if (run->which->cores == CORES_SHARED) {
        TRY(open_way(run, AUTO));
        run->way[AUTO].k = run->way[IN_TURN].k;
        TRY(run_way(run, AUTO, run->way[AUTO].k, 0, &warmed));
    }
    for (int i = 0; i < reps; i++) {
        TRY(repeat(run, 3 + i));
    }
    return write_run(run);
}

static enum status measure_case(const struct ssd_case *c)
{
    int cpus[RIG_MAX_CPUS], n_physical = 1;
    const int n_cpus = backend_cpu_list(cpus, RIG_MAX_CPUS, &n_physical);
    if (n_cpus < 2) {
        return status_fail(STATUS_UNSUPPORTED, "bench ssd needs two cores; this process may use %d", n_cpus);
    }
    struct ssd_run *run = mem_alloc(1, sizeof *run); /* too large for a stack */
    if (run == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a run");
    }
    run->which = c;
    snprintf(run->first_core, sizeof run->first_core, "cpu:%d", cpus[0]);
    snprintf(run->second_core, sizeof run->second_core, "cpu:%d", cpus[1]);
    snprintf(run->both_cores, sizeof run->both_cores, "cpu:%d,%d", cpus[1], cpus[0]);
    if (c->agree >= 0) {
        snprintf(run->target, sizeof run->target, "%s,agree=%g,tail=%g,seed=1", c->pair, c->agree, TAIL);
    } else {
        snprintf(run->target, sizeof run->target, "%s", c->pair);
    }
    enum status status = c->cores >= CORES_VIRTUAL_TARGET ? choose_virtual_pass(run) : STATUS_OK;
    if (status == STATUS_OK) {
        status = measure(run);
    }
    close_way(run, AUTO);
    close_way(run, AHEAD);
    close_way(run, IN_TURN);
    mem_free(run);
    return status;
}

/* ---- the cases ---- */
/* Draft layers for about 0.05, 0.13 and 0.25 of a target's pass; the cost found stands in the result. */
static const char *const pairs[] = {
    "synth:pair=llama-1b,q8_0,draft=smol-135m,draft-type=q8_0,draft-layers=4",
    "synth:pair=llama-1b,q8_0,draft=smol-135m,draft-type=q8_0,draft-layers=26",
    "synth:pair=llama-1b,q8_0,draft=llama-1b,draft-type=q8_0,draft-layers=1",
};
/* Beside a virtual target only the draft's shape matters: the target behind it has to be in time. */
static const char patient_pair[] =
    "synth:pair=llama-1b,q8_0,layers=1,vocab=32768,draft=smol-135m,draft-type=q8_0,draft-layers=30";
static const char quick_pair[] =
    "synth:pair=llama-1b,q8_0,layers=2,vocab=4096,draft=smol-135m,draft-type=q8_0,draft-layers=4";
static const char quick_patient_pair[] =
    "synth:pair=llama-1b,q8_0,layers=1,vocab=4096,draft=smol-135m,draft-type=q8_0,draft-layers=12";

/* A draft whose passes of 32 rows are well within 2 ms. */
static const char fast_pair[] =
    "synth:pair=llama-1b,q8_0,layers=1,vocab=4096,draft=smol-30m,draft-type=q8_0";

static enum status measure_pair(struct ssd_case c)
{
    c.cores = CORES_EACH;
    TRY(measure_case(&c));
    c.cores = CORES_SHARED;
    return measure_case(&c);
}

/* K = 7 at an agreement of 0.89, as published pairs have. */
static enum status measure_virtual(struct ssd_case c)
{
    c.pair = c.options->quick ? quick_patient_pair : patient_pair;
    c.agree = 0.89;
    c.n_tokens = c.options->quick ? c.n_tokens : 256; /* a stream's first round is prepared by its prompt alone */
    memset(c.ks, 0, sizeof c.ks);
    c.ks[0] = 7;
    c.cores = CORES_VIRTUAL_TARGET;
    TRY(measure_case(&c));
    c.cores = CORES_VIRTUAL_PAIR;
    c.pair = fast_pair;
    return measure_case(&c);
}

enum status bench_ssd(const struct bench_options *options)
{
    static const double agreements[] = { 0.8, 0.89 };
    const struct ssd_case full = { .options = options, .ks = { 2, 3, 4, 6 }, .n_tokens = 128 };
    const struct ssd_case quick = { .options = options, .ks = { 4 }, .n_tokens = 24 };
    struct ssd_case c = options->quick ? quick : full;
    if (options->target != NULL) {
        c.pair = options->target;
        c.agree = -1;
        return measure_pair(c);
    }
    const size_t n_cases = options->virtual_only ? 0 : options->quick ? 1 : sizeof pairs / sizeof pairs[0] * 2;
    for (size_t i = 0; i < n_cases; i++) {
        c.pair = options->quick ? quick_pair : pairs[i / 2];
        c.agree = agreements[i % 2];
        TRY(measure_pair(c));
    }
    return measure_virtual(c);
}
