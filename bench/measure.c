/* measure: medians, roofs taken between measurements, and the JSON line that says both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/measure.h"
#include "tandem_commit.h"

static const double VOID_FRACTION = 1.03; /* nothing is faster than its roof: the roof was badly taken */

const struct bench_question bench_table[] = {
    {"decode", "plain decoding of a synthetic 1.24 B model, tokens a second", bench_decode},
    {"rows", "one pass over 1 to 16 rows, logits of all, milliseconds", bench_rows},
    {"prefill", "a prompt of 512 tokens, tokens a second", bench_prefill},
    {"kernels", "each kernel alone, per instruction set, microseconds", bench_kernels},
    {"scheduler", "CPU time of the step around the passes, microseconds", bench_scheduler},
    {"load", "loading a model against reading its file, milliseconds", bench_load},
    {"first-token", "from the start of the program to the first byte of text, milliseconds", bench_first_token},
    {"speculate", "speculation against its own plain decoding, by source and K, tokens a second", bench_speculate},
    {"fanout", "outcomes prepared for: learned, geometric and uniform plans on recorded outcomes, share missed", bench_fanout},
    {"ssd", "drafting while verifying against drafting in turn and plain decoding, tokens a second", bench_ssd},
    {"rpc", "what a draft in another process adds to a step, microseconds", bench_rpc},
    {"batch", "many sequences at once, by batch, K and agreement, tokens a second", bench_batch},
    {"memory", "peak memory of a run over the bytes of its model", bench_memory},
};
const int bench_n_questions = sizeof bench_table / sizeof bench_table[0];

/* ---- samples ---- */
void samples_add(struct samples *samples, double value)
{
    if (samples->n < SAMPLES_CAP) {
        samples->value[samples->n++] = value;
    }
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct samples sorted(const struct samples *samples)
{
    struct samples copy = *samples;
    qsort(copy.value, (size_t)copy.n, sizeof copy.value[0], compare_doubles);
    return copy;
}

double samples_median(const struct samples *samples)
{
    const struct samples s = sorted(samples);
    return s.n == 0 ? 0 : (s.value[(s.n - 1) / 2] + s.value[s.n / 2]) / 2;
}

/* ---- roofs ---- */
void roofs_take(struct roofs *roofs)
{
    const struct roof_options options = {.cpus = roofs->cpus, .n_threads = roofs->threads,
                                         .seconds = roofs->seconds};
    if (roofs->kinds & ROOF_READ) {
        samples_add(&roofs->read, roof_read_bandwidth(roofs->backend, &options));
    }
    if (roofs->kinds & ROOF_INTEGER) {
        samples_add(&roofs->integer, roof_integer_peak(roofs->backend, &options));
    }
    if (roofs->kinds & ROOF_FLOAT) {
        samples_add(&roofs->fp32, roof_float_peak(roofs->backend, &options));
    }
}

static double over(double work, const struct samples *rate, double part)
{
    const double median = samples_median(rate);
    return work > 0 && median > 0 ? work / (part * median) : 0;
}

double roofs_bound(const struct roofs *roofs, double bytes, double macs, double fmas, double part)
{
    const double memory = over(bytes, &roofs->read, 1);
    const double integer = over(macs, &roofs->integer, part), fp32 = over(fmas, &roofs->fp32, part);
    const double arithmetic = integer > fp32 ? integer : fp32;
    return memory > arithmetic ? memory : arithmetic;
}

/* ---- the line ---- */
static json_t *rate_json(const struct samples *rate)
{
    return rate->n > 0 ? json_real(samples_median(rate) * 1e-9) : json_null();
}

static json_t *roofs_json(const struct roofs *roofs)
{
    if (!roofs) {
        return json_null();
    }
    return json_pack("{s:o,s:o,s:o,s:i}", "gb_per_s", rate_json(&roofs->read), "gmac_per_s",
                     rate_json(&roofs->integer), "gfma_per_s", rate_json(&roofs->fp32), "threads",
                     roofs->threads);
}

static json_t *machine_json(void)
{
    const struct machine *machine = machine_get();
    char text[160];
    snprintf(text, sizeof text, "%s, %d cores, %.0f GB", machine->cpu, machine->n_physical,
             (double)machine->memory_bytes * 1e-9);
    return json_string(text);
}

static json_t *options_json(const struct bench_options *options, int n)
{
    return json_pack("{s:s?,s:i,s:i,s:b}", "target", options->target, "threads", options->threads, "reps", n,
                     "quick", options->quick);
}

/* "decode  model=llama-1b type=q4_0 threads=1   62.1 tok/s   bound 66.0   0.94" */
static void print_row(const struct line *line, double value, double fraction, int is_void)
{
    char which[160] = "";
    size_t at = 0;
    const char *key;
    json_t *item;
    json_object_foreach (line->which, key, item) {
        char *text = json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT);
        const char *word = json_is_string(item) ? json_string_value(item) : text;
        if (at < sizeof which) {
            at += (size_t)snprintf(which + at, sizeof which - at, "%s%s=%s", at ? " " : "", key, word ? word : "?");
        }
        mem_free(text);
    }
    fprintf(stderr, "%-10s %-52s %10.3f %-6s bound %10.3f  %5.2f%s\n", line->bench, which, value, line->unit,
            line->bound, fraction, is_void ? "  void" : "");
}

static double fraction_of(enum better better, double value, double bound)
{
    if (bound <= 0 || value <= 0) {
        return 0;
    }
    return better == HIGHER ? value / bound : bound / value;
}

enum status line_write(const struct bench_options *options, const struct line *line)
{
    const struct samples s = sorted(line->values);
    const double value = samples_median(line->values);
    const double fraction = fraction_of(line->better, value, line->bound);
    const double of_roof = fraction_of(line->better, value, line->roof > 0 ? line->roof : line->bound);
    const int is_void = line->roofs != NULL && of_roof > VOID_FRACTION;
    if (isatty(STDERR_FILENO) && !options->quiet) {
        print_row(line, value, fraction, is_void);
    }
    json_t *object = json_pack(
        "{s:s,s:o,s:f,s:s,s:i,s:f,s:f,s:f,s:o,s:f,s:f,s:o,s:s,s:s,s:o,s:I}", "bench", line->bench, "case",
        line->which, "value", value, "unit", line->unit, "n", s.n, "min", s.n ? s.value[0] : 0.0, "median", value,
        "max", s.n ? s.value[s.n - 1] : 0.0, "roofs", roofs_json(line->roofs), "bound", line->bound, "fraction",
        fraction, "machine", machine_json(), "isa", line->isa, "commit", TANDEM_COMMIT, "options",
        options_json(options, s.n), "seed", (json_int_t)line->seed);
    if (object && is_void) {
        json_object_set_new(object, "void", json_true());
    }
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(object);
    if (!text) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a line of JSON");
    }
    const int failed = printf("%s\n", text) < 0 || fflush(stdout) != 0 || ferror(stdout);
    mem_free(text);
    return failed ? status_fail(STATUS_IO, "cannot write to standard output") : STATUS_OK;
}

/* ---- what questions share ---- */
int bench_reps(const struct bench_options *options, int full, int quick)
{
    return options->reps ? options->reps : options->quick ? quick : full;
}

int bench_threads(const struct bench_options *options, const struct bench_rig *rig, int out[2])
{
    out[0] = options->threads ? options->threads : 1;
    out[1] = rig->n_physical;
    return options->threads || rig->n_physical == 1 ? 1 : 2;
}

int bench_models(const struct bench_options *options, struct bench_model out[BENCH_MAX_MODELS])
{
    static const struct bench_model whole[BENCH_MAX_MODELS] = {
        {"synth:llama-1b,q4_0,seed=1", "llama-1b", "q4_0"},
        {"synth:llama-1b,q8_0,seed=1", "llama-1b", "q8_0"},
        {"synth:llama-1b,q4_k,seed=1", "llama-1b", "q4_k"},
        {"synth:llama-1b,q6_k,seed=1", "llama-1b", "q6_k"},
    };
    static const struct bench_model quick[BENCH_MAX_MODELS] = {
        {"synth:llama-1b,q4_0,layers=4,vocab=32000,seed=1", "llama-1b,layers=4,vocab=32000", "q4_0"},
        {"synth:llama-1b,q8_0,layers=4,vocab=32000,seed=1", "llama-1b,layers=4,vocab=32000", "q8_0"},
        {"synth:llama-1b,q4_k,layers=4,vocab=32000,seed=1", "llama-1b,layers=4,vocab=32000", "q4_k"},
        {"synth:llama-1b,q6_k,layers=4,vocab=32000,seed=1", "llama-1b,layers=4,vocab=32000", "q6_k"},
    };
    if (options->target) {
        out[0] = (struct bench_model){options->target, options->target, "as given"};
        return 1;
    }
    memcpy(out, options->quick ? quick : whole, sizeof whole);
    return BENCH_MAX_MODELS;
}

double config_body_macs(const struct model_config *config)
{
    const double dim = config->dim, q = (double)config->n_heads * config->head_dim;
    const double kv = (double)config->n_kv_heads * config->head_dim;
    const double ffn = config->experts.n > 0 ? dim * config->experts.n + /* the router */
                                                   3 * dim * config->experts.ffn_dim * config->experts.n_used
                                             : 3 * dim * config->ffn_dim;
    return config->n_layers * (2 * dim * q + 2 * dim * kv + ffn);
}

double config_head_macs(const struct model_config *config) { return (double)config->dim * config->n_vocab; }
