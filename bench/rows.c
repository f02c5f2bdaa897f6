/* rows: what a pass over n rows costs, logits of all of them included, at a context of 128.
 *
 * bound = max(weight bytes / read bandwidth, n * MACs / (0.6 * integer peak)): whichever is longer,
 * the weights coming in (of experts, those that the rows touched) or the arithmetic on them. What
 * speculation pays for its guesses.
 */
#include "bench/measure.h"

enum { CONTEXT = 128, MAX_ROWS = 16, ROWS_BETWEEN_ROOFS = 4 };

static enum status rows_threads(const struct bench_options *options, struct bench_rig *rig,
                                const struct bench_model *model, int threads, const int32_t *tokens)
{
    static struct samples times[MAX_ROWS + 1];
    double bytes[MAX_ROWS + 1] = {0}; /* read by the last pass of so many rows */
    struct roofs roofs = {.cpus = rig->cpus, .threads = threads, .kinds = ROOF_READ | ROOF_INTEGER,
                          .seconds = options->quick ? 0.06 : 0.15, .backend = rig->backend};
    const int reps = bench_reps(options, 7, 3), step = options->quick ? 3 : 1;
    TRY(bench_rig_use_threads(rig, threads));
    bench_rig_pass(rig, tokens, CONTEXT, 1, 1);
    for (int32_t n = 1; n <= MAX_ROWS; n++) {
        times[n].n = 0;
    }
    for (int i = 0; i < reps; i++) {
        for (int32_t n = 1, k = 0; n <= MAX_ROWS; n += step, k++) {
            if (k % ROWS_BETWEEN_ROOFS == 0) {
                roofs_take(&roofs);
            }
            const uint64_t before = pass_buffers_bytes_read(rig->buffers);
            samples_add(&times[n], (double)bench_rig_pass(rig, tokens, CONTEXT, n, n) * 1e-6);
            bytes[n] = (double)(pass_buffers_bytes_read(rig->buffers) - before);
        }
    }
    roofs_take(&roofs);
    const double macs = config_body_macs(rig->config) + config_head_macs(rig->config);
    for (int32_t n = 1; n <= MAX_ROWS; n += step) {
        TRY(line_write(options, &(struct line){
            .bench = "rows", .unit = "ms", .better = LOWER, .values = &times[n], .roofs = &roofs, .seed = 1,
            .bound = roofs_bound(&roofs, bytes[n], macs * n, 0, 0.6) * 1e3,
            .roof = roofs_bound(&roofs, bytes[n], macs * n, 0, 1) * 1e3,
            .isa = isa_name(backend_isa(rig->backend)),
            .which = json_pack("{s:s,s:s,s:i,s:i}", "model", model->model, "type", model->type, "threads",
                               threads, "rows", (int)n),
        }));
    }
    return STATUS_OK;
}

static enum status rows_model(const struct bench_options *options, const struct bench_model *model)
{
    struct bench_rig rig;
    int32_t tokens[CONTEXT];
    int threads[2];
    enum status status;
    TRY_GOTO(bench_rig_init(&rig, &(struct bench_rig_options){
        .target = model->target, .isa = options->isa, .context = CONTEXT + MAX_ROWS, .cap_rows = CONTEXT,
        .cap_logits = MAX_ROWS, .threads = options->threads,
    }), out);
    for (int32_t i = 0; i < CONTEXT; i++) {
        tokens[i] = 1 + i % 200;
    }
    bench_rig_pass(&rig, tokens, 0, CONTEXT, 1);
    const int n = bench_threads(options, &rig, threads);
    for (int i = 0; i < n; i++) {
        TRY_GOTO(rows_threads(options, &rig, model, threads[i], tokens), out);
    }
out:
    bench_rig_deinit(&rig);
    return status;
}

enum status bench_rows(const struct bench_options *options)
{
    struct bench_model models[BENCH_MAX_MODELS];
    const int n = bench_models(options, models);
    for (int i = 0; i < n; i++) {
        TRY(rows_model(options, &models[i]));
    }
    return STATUS_OK;
}
