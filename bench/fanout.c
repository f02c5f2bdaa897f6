/* fanout: which plan of the outcomes to prepare for misses least, on outcomes of real models. What is learned
 * is learned on every other text and judged on those between; plans are compared on the same outcomes, with
 * intervals by drawing whole texts again (bootstrap), since outcomes of one text are alike.
 *
 * Counts, not times: nothing here depends on the machine or on what else it does.
 */
#include "bench/outcomes.h"

#include <stdlib.h>
#include <string.h>

#include "draft/draft.h"

enum { N_KS = 2, N_BUDGETS = 3, N_WAYS = 3, N_DRAWS = 2000, MAX_NAME = 512, MAX_BEGINNERS = 16 };
static const int32_t ks[N_KS] = { 4, 7 }, budgets[N_BUDGETS] = { 8, 12, 24 };
static const enum fanout_kind ways[N_WAYS] = { FANOUT_UNIFORM, FANOUT_GEOMETRIC, FANOUT_LEARNED };
static const char *const way_names[N_WAYS] = { "uniform", "geometric", "learned" };
static const float TAIL = 1; /* of the law that the geometric plan believes in, as where it is used */

struct pair { const char *name, *target, *draft; bool is_synthetic; double tokens_per_outcome; };
/* One pair at one temperature under one rule. */
struct study {
    const struct bench_options *options;
    const struct pair *pair;
    const struct outcome_log *log;
    const struct outcome_spot *spots;
    const char *rule;
    float temperature;
    struct outcome *outcomes;          /* [n_outcomes] */
    int32_t n_outcomes, n_judged;      /* the latter: of texts that nothing is learned from */
    const char *isa;
};
/* Of one text: outcomes, and how many of them each way missed. */
struct tally { int32_t n, missed[N_WAYS]; };
struct interval { double mean, low, high; };

static bool is_judged(const struct outcome *outcome) { return outcome->text % 2 == 1; }

/* ---- misses ---- */
static void count(const struct study *study, bool judged, int32_t k, struct fanout_counts *out)
{
    memset(out, 0, sizeof *out);
    for (int32_t i = 0; i < study->n_outcomes; i++) {
        if (is_judged(&study->outcomes[i]) == judged) {
            fanout_observe(out, k, study->outcomes[i].k, study->outcomes[i].rank);
        }
    }
}

static float acceptance_of(const struct study *study, bool judged, int32_t k)
{
    double accepted = 0, refused = 0;
    for (int32_t i = 0; i < study->n_outcomes; i++) {
        if (is_judged(&study->outcomes[i]) == judged) {
            accepted += study->outcomes[i].k;
            refused += study->outcomes[i].k < k;
        }
    }
    return accepted + refused > 0 ? (float)(accepted / (accepted + refused)) : 0;
}

static bool misses(const struct fanout_plan *plan, const struct outcome *outcome)
{
    return outcome->rank >= plan->count[outcome->k];
}

/* The share of judged outcomes that a plan misses which was learned from these counts. */
static double missed_by(const struct study *study, const struct fanout_counts *counts, const struct fanout_ask *ask)
{
    int32_t n = 0, missed = 0;
    const struct fanout_plan plan = fanout_choose(&(struct fanout_options){ .kind = FANOUT_LEARNED }, counts, ask);
    for (int32_t i = 0; i < study->n_outcomes; i++) {
        n += is_judged(&study->outcomes[i]);
        missed += is_judged(&study->outcomes[i]) && misses(&plan, &study->outcomes[i]);
    }
    return n > 0 ? (double)missed / n : 0;
}

/* By the best plan, which knows the outcomes it is judged by. */
static double missed_in_hindsight(const struct study *study, int32_t k, int32_t budget)
{
    struct fanout_counts counts;
    count(study, true, k, &counts);
    return missed_by(study, &counts, &(struct fanout_ask){ k, budget, acceptance_of(study, true, k), TAIL });
}

/* By plans that have learned from n_each outcomes alone: mean over as many beginners as there are. */
static double missed_by_beginners(const struct study *study, const struct fanout_ask *ask, int32_t n_each)
{
    struct fanout_counts counts;
    double sum = 0;
    int32_t n_beginners = 0;
    memset(&counts, 0, sizeof counts);
    for (int32_t i = 0; i < study->n_outcomes && n_beginners < MAX_BEGINNERS; i++) {
        if (is_judged(&study->outcomes[i])) {
            continue;
        }
        fanout_observe(&counts, ask->n_proposed, study->outcomes[i].k, study->outcomes[i].rank);
        if ((int32_t)counts.n_outcomes == n_each) {
            sum += missed_by(study, &counts, ask);
            n_beginners++;
            memset(&counts, 0, sizeof counts);
        }
    }
    return n_beginners > 0 ? sum / n_beginners : 1;
}

static void tally_texts(const struct study *study, const struct fanout_plan plans[N_WAYS], struct tally *tallies)
{
    memset(tallies, 0, (size_t)study->log->n_texts * sizeof *tallies);
    for (int32_t i = 0; i < study->n_outcomes; i++) {
        const struct outcome *outcome = &study->outcomes[i];
        struct tally *tally = &tallies[outcome->text];
        if (is_judged(outcome)) {
            tally->n++;
            for (int way = 0; way < N_WAYS; way++) {
                tally->missed[way] += misses(&plans[way], outcome);
            }
        }
    }
}

/* ---- intervals ---- */
static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Misses of `way` less those of `other`, as a share of outcomes. */
static double difference(const struct tally *sum, int way, int other)
{
    return sum->n > 0 ? (double)(sum->missed[way] - sum->missed[other]) / sum->n : 0;
}

static void add(struct tally *sum, const struct tally *tally)
{
    sum->n += tally->n;
    for (int way = 0; way < N_WAYS; way++) {
        sum->missed[way] += tally->missed[way];
    }
}

static struct interval interval_of(const struct tally *tallies, int32_t n_texts, int way, int other)
{
    double drawn[N_DRAWS];
    struct tally whole = { .n = 0 };
    for (int32_t i = 0; i < n_texts; i++) {
        add(&whole, &tallies[i]);
    }
    for (uint64_t draw = 0; draw < N_DRAWS; draw++) {
        struct tally sum = { .n = 0 };
        for (int32_t i = 0; i < n_texts; i++) {
            add(&sum, &tallies[rng_mix64(draw << 32 | (uint64_t)i) % (uint64_t)n_texts]);
        }
        drawn[draw] = difference(&sum, way, other);
    }
    qsort(drawn, N_DRAWS, sizeof drawn[0], compare_doubles);
    return (struct interval){ difference(&whole, way, other), drawn[N_DRAWS / 40], drawn[N_DRAWS - 1 - N_DRAWS / 40] };
}

/* ---- lines ---- */
static json_t *interval_json(struct interval interval)
{
    return json_pack("[f,f,f]", interval.mean, interval.low, interval.high);
}

static json_t *plan_json(const struct fanout_plan *plan)
{
    json_t *list = json_array();
    for (int32_t k = 0; k < plan->n_rows; k++) {
        json_array_append_new(list, json_integer(plan->count[k]));
    }
    return list;
}

static enum status write_line(const struct study *study, int32_t k, int32_t budget, const struct tally *tallies,
                              const struct fanout_plan plans[N_WAYS], double *missed_learned)
{
    const int32_t n_texts = study->log->n_texts;
    const struct fanout_ask ask = { k, budget, acceptance_of(study, false, k), TAIL };
    struct tally whole = { .n = 0 };
    struct samples samples = { .n = 0 };
    json_t *missed = json_object(), *counts = json_object();
    for (int32_t i = 0; i < n_texts; i++) {
        add(&whole, &tallies[i]);
    }
    for (int way = 0; way < N_WAYS; way++) {
        const double share = whole.n > 0 ? (double)whole.missed[way] / whole.n : 0;
        json_object_set_new(missed, way_names[way], json_real(share));
        json_object_set_new(counts, way_names[way], plan_json(&plans[way]));
        *missed_learned = share;
    }
    samples_add(&samples, *missed_learned);
    return line_write(study->options, &(struct line){
        .bench = "fanout", .unit = "missed", .better = LOWER, .values = &samples, .isa = study->isa,
        .bound = missed_in_hindsight(study, k, budget),
        .which = json_pack("{s:s,s:b,s:f,s:s,s:i,s:i,s:i,s:i,s:i,s:f,s:o,s:f,s:f,s:o,s:o,s:o}", "pair", study->pair->name,
            "synthetic_pair", study->pair->is_synthetic, "temperature", (double)study->temperature, "rule",
            study->rule, "k", (int)k, "budget", (int)budget, "outcomes", (int)study->n_outcomes, "judged", (int)whole.n,
            "texts", (int)n_texts, "acceptance", (double)acceptance_of(study, true, k), "missed", missed,
            "missed_after_64", missed_by_beginners(study, &ask, 64), "missed_after_256",
            missed_by_beginners(study, &ask, 256),
            "geometric_less_uniform", interval_json(interval_of(tallies, n_texts, 1, 0)), "learned_less_geometric",
            interval_json(interval_of(tallies, n_texts, 2, 1)), "plans", counts) });
}

/* ---- studies ---- */
struct hits { double share[N_KS][N_BUDGETS]; int32_t n_outcomes[N_KS]; };

static enum status compare_ways(struct study *study, struct tally *tallies, struct hits *hits)
{
    for (int i = 0; i < N_KS; i++) {
        struct fanout_counts counts;
        const int32_t k = ks[i];
        study->n_outcomes = outcomes_of_rounds(study->log, study->spots, k, study->outcomes);
        hits->n_outcomes[i] = study->n_outcomes;
        count(study, false, k, &counts);
        for (int j = 0; j < N_BUDGETS; j++) {
            struct fanout_plan plans[N_WAYS];
            double missed;
            const struct fanout_ask ask = { k, budgets[j], acceptance_of(study, false, k), TAIL };
            for (int way = 0; way < N_WAYS; way++) {
                plans[way] = fanout_choose(&(struct fanout_options){ .kind = ways[way] }, &counts, &ask);
            }
            tally_texts(study, plans, tallies);
            TRY(write_line(study, k, budgets[j], tallies, plans, &missed));
            hits->share[i][j] = 1 - missed;
        }
    }
    return STATUS_OK;
}

static enum status study_log(struct study *study, const struct outcome_log *log, struct hits *coupled,
                             struct hits *rejection)
{
    enum status status = STATUS_OK;
    struct tally *tallies = mem_alloc((size_t)log->n_texts, sizeof *tallies);
    study->log = log;
    study->isa = log->isa;
    study->outcomes = mem_alloc((size_t)log->first[log->n_texts], sizeof *study->outcomes);
    if (tallies == NULL || study->outcomes == NULL) {
        status = status_fail(STATUS_NO_MEMORY, "no memory for %d outcomes", log->first[log->n_texts]);
        goto out;
    }
    study->spots = log->coupled;
    study->rule = study->temperature > 0 ? "coupled" : "greedy";
    TRY_GOTO(compare_ways(study, tallies, coupled), out);
    if (log->rejection != NULL) {
        study->spots = log->rejection;
        study->rule = "rejection";
        TRY_GOTO(compare_ways(study, tallies, rejection), out);
    }
out:
    mem_free(study->outcomes);
    mem_free(tallies);
    return status;
}

/* Hits at temperature 1 beside those at 0, learned plans both. */
static enum status write_hits(const struct study *study, const struct hits *greedy, const struct hits *coupled,
                              const struct hits *rejection)
{
    for (int i = 0; i < N_KS; i++) {
        for (int j = 0; j < N_BUDGETS; j++) {
            struct samples samples = { .n = 0 };
            samples_add(&samples, coupled->share[i][j]);
            TRY(line_write(study->options, &(struct line){
                .bench = "fanout", .unit = "hit", .better = HIGHER, .values = &samples, .isa = study->isa,
                .bound = greedy->share[i][j],
                .which = json_pack("{s:s,s:b,s:i,s:i,s:f,s:f,s:f}", "pair", study->pair->name, "synthetic_pair",
                    study->pair->is_synthetic, "k", (int)ks[i], "budget", (int)budgets[j], "hit_greedy",
                    greedy->share[i][j], "hit_coupled", coupled->share[i][j], "hit_rejection",
                    rejection->share[i][j]) }));
        }
    }
    return STATUS_OK;
}

static enum status study_pair(const struct bench_options *options, const struct pair *pair)
{
    static const float temperatures[] = { 0, 1 };
    struct study study = { .options = options, .pair = pair };
    struct hits coupled[2], rejection = { .n_outcomes = { 0 } };
    const double n_wanted = options->quick ? 1000 : 21000;
    for (int t = 0; t < 2; t++) {
        struct outcome_log log;
        study.temperature = temperatures[t];
        TRY(outcome_log_init(&log, &(struct outcome_log_options){ .target = pair->target, .draft = pair->draft,
            .isa = options->isa, .threads = options->threads, .temperature = temperatures[t],
            .n_tokens = (int32_t)(n_wanted * pair->tokens_per_outcome) }));
        const enum status status = study_log(&study, &log, &coupled[t], &rejection);
        outcome_log_deinit(&log);
        TRY(status);
    }
    return write_hits(&study, &coupled[0], &coupled[1], &rejection);
}

/* The draft of a target: the other half of a synthetic pair, or the file "NAME-draft.gguf" beside it, NAME
 * ending where its first digit, dot or hyphen is. */
static enum status draft_of(const char *target, char out[MAX_NAME])
{
    const char *slash = strrchr(target, '/'), *name = slash != NULL ? slash + 1 : target;
    const bool is_synthetic = strncmp(target, "synth:pair=", 11) == 0;
    if (!is_synthetic && strncmp(target, "synth:", 6) == 0) {
        return status_fail(STATUS_USAGE, "bench fanout needs a target with a draft, synth:pair=.. or a file; found '%s'",
                           target);
    }
    const int n_stem = (int)((size_t)(name - target) + strcspn(name, "0123456789.-"));
    const int n = is_synthetic ? snprintf(out, MAX_NAME, "%s,role=draft", target)
                               : snprintf(out, MAX_NAME, "%.*s-draft.gguf", n_stem, target);
    return n < MAX_NAME ? STATUS_OK : status_fail(STATUS_USAGE, "the name of --target is too long");
}

#define PLANTED "synth:pair=smol-30m,q8_0,draft=tiny,agree=0.8,vocab=8192,context=256,seed=1"

enum status bench_fanout(const struct bench_options *options)
{
    char draft[MAX_NAME];
    const char *target = options->target != NULL ? options->target : options->default_model;
    const bool is_synthetic = target != NULL && strncmp(target, "synth:", 6) == 0;
    if (target != NULL) {
        TRY(draft_of(target, draft));
        TRY(study_pair(options, &(struct pair){ options->target != NULL ? target : "stories15M + stories-draft", target,
                                                draft, is_synthetic, 3.3 }));
    }
    if (options->target == NULL && !options->quick) {
        TRY(draft_of(PLANTED, draft));
        TRY(study_pair(options, &(struct pair){ "smol-30m q8_0 + tiny agree=0.8", PLANTED, draft, true, 4.7 }));
    }
    return STATUS_OK;
}
