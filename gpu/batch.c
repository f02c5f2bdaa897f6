/* batch: tokens a second of many sequences together, decoded plainly in one engine, by how many there are. */
#include <stdio.h>

#include "gpu/models.h"

static enum status run_all(struct models_run *run, struct td_engine *engine, struct values rates[MODELS_MAX_BATCHES])
{
    const struct models_scale *scale = run->scale;
    for (int i = -1; i < scale->reps; i++) { /* the first warms: each shape is recorded */
        for (int b = 0; scale->batches[b] > 0; b++) {
            struct run_result result;
            TRY(run_requests(engine, &(struct run_spec){ .batch = scale->batches[b], .n_tokens = scale->n_batched,
                .variant = i + 1, .tenant = (uint64_t)(i + 2) }, &result));
            if (i >= 0) {
                values_add(&rates[b], result.tok_per_s);
            }
        }
    }
    return STATUS_OK;
}

static void put_all(const struct models_run *run, const struct values rates[MODELS_MAX_BATCHES])
{
    const struct models_scale *scale = run->scale;
    for (int b = 0; scale->batches[b] > 0; b++) {
        const double rate = values_median(&rates[b]), one = values_median(&rates[0]);
        struct line_result line = { .bench = "gpu-batch", .unit = "tok/s", .values = &rates[b] };
        snprintf(line.which, sizeof line.which, "\"model\":\"%s\",\"batch\":%d,\"times_batch_1\":%.4g,\"step_ms\":%.5g",
                 scale->batched, scale->batches[b], one > 0 ? rate / one : 0,
                 rate > 0 ? 1e3 * scale->batches[b] / rate : 0);
        line_put(&line);
    }
}

enum status models_batch(struct models_run *run, const char *unused)
{
    struct values rates[MODELS_MAX_BATCHES] = { { .n = 0 } };
    struct td_engine *engine = NULL;
    int32_t most = 1;
    (void)unused;
    for (int b = 0; run->scale->batches[b] > 0; b++) {
        most = run->scale->batches[b] > most ? run->scale->batches[b] : most;
    }
    TRY(run_engine_open(&(struct run_engine_options){ .target = run->scale->batched, .draft = "none",
        .max_batch = most, .context = run->scale->context, .target_device = MODELS_DEVICE }, &engine));
    const enum status status = run_all(run, engine, rates);
    td_engine_close(engine);
    if (status == STATUS_OK) {
        put_all(run, rates);
    }
    return status;
}
