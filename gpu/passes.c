/* passes: what passes of one model cost with no engine around them: a token after another at two lengths of text,
 * several rows beside one, prompts; and what the driver takes for recorded passes.
 *
 * Decoding is held to bytes / copies: the file's bytes of the weights that a token reads and the K and V of the
 * positions before it, over GB/s (read + written) of device memory copied between repetitions. KV is what memory
 * was cleared to: what is read of it does not matter to time.
 */
#include "gpu/models.h"

#include <stdio.h>
#include <string.h>

#include "gpu/device.h"

enum { TOKENS_CAP = 4096, F16_BYTES = 2, WARM_STEPS = 3 };

struct passes {
    struct models_run *run;
    struct bench_rig rig;
    const char *type;
    bool has_fast;          /* the device can keep the fast plan */
    int32_t tokens[TOKENS_CAP];
};

static enum status health(struct passes *p) { return backend_health(p->rig.backend); }

/* ---- decoding ---- */
/* Nanoseconds a token, each chosen from the logits before it. */
static double decode_ns(struct passes *p, int32_t first, int32_t n)
{
    const int64_t begin = clock_now_ns();
    int32_t token = 1;
    for (int32_t i = 0; i < n; i++) {
        bool bad = false;
        bench_rig_pass(&p->rig, &token, first + i, 1, 1);
        token = backend_argmax(p->rig.backend, p->rig.logits, p->rig.config->n_vocab, &bad);
    }
    return (double)(clock_now_ns() - begin) / n;
}

static double kv_bytes_of(const struct passes *p, double positions)
{
    const struct model_config *config = p->rig.config;
    return positions * config->n_layers * config->n_kv_heads * config->head_dim * 2 * F16_BYTES;
}

static void put_decode(const struct passes *p, int32_t context, const struct values *rates, double weight_bytes,
                       const struct values *copies)
{
    const double copy_gb = values_median(copies), kv_bytes = kv_bytes_of(p, context + p->run->scale->n_decoded / 2.0);
    struct line_result line = { .bench = "gpu-decode", .unit = "tok/s", .values = rates, .copy_gb = copy_gb,
                                .bound = copy_gb * 1e9 / (weight_bytes + kv_bytes) };
    snprintf(line.which, sizeof line.which, "\"model\":\"%s\",\"type\":\"%s\",\"text\":\"%s\",\"context\":%d,"
             "\"weight_mb\":%.5g,\"kv_mb\":%.5g", p->run->scale->model, p->type,
             context == p->run->scale->contexts[0] ? "short" : "long", context, weight_bytes * 1e-6, kv_bytes * 1e-6);
    line_put(&line);
}

static enum status measure_decode(struct passes *p)
{
    const struct models_scale *scale = p->run->scale;
    struct values rates[2] = { { .n = 0 } }, copies = { .n = 0 };
    for (int c = 0; c < 2; c++) {
        decode_ns(p, scale->contexts[c], WARM_STEPS);
    }
    const uint64_t before = pass_buffers_bytes_read(p->rig.buffers);
    for (int i = 0; i < scale->reps; i++) {
        for (int c = 0; c < 2; c++) {
            values_add(&rates[c], 1e9 / decode_ns(p, scale->contexts[c], scale->n_decoded));
            values_add(&copies, device_copy_gb());
        }
    }
    const double n_tokens = 2.0 * scale->reps * scale->n_decoded;
    const double bytes = (double)(pass_buffers_bytes_read(p->rig.buffers) - before) / n_tokens;
    TRY(health(p));
    for (int c = 0; c < 2; c++) {
        put_decode(p, scale->contexts[c], &rates[c], bytes, &copies);
    }
    return STATUS_OK;
}

/* ---- several rows ---- */
static double rows_ns(struct passes *p, int32_t n)
{
    int64_t ns = 0;
    for (int i = 0; i < p->run->scale->steps; i++) {
        ns += bench_rig_pass(&p->rig, p->tokens, p->run->scale->contexts[0], n, n);
    }
    return (double)ns / p->run->scale->steps;
}

static enum status measure_rows(struct passes *p)
{
    const struct models_scale *scale = p->run->scale;
    struct values over[MODELS_MAX_ROWS] = { { .n = 0 } }, ns[MODELS_MAX_ROWS] = { { .n = 0 } };
    for (int i = -1; i < scale->reps; i++) { /* the first warms: each shape is recorded */
        double one = 0;
        for (int r = 0; scale->rows[r] > 0; r++) {
            const double each = rows_ns(p, scale->rows[r]);
            one = r == 0 ? each : one;
            if (i >= 0) {
                values_add(&ns[r], each);
                values_add(&over[r], each / one);
            }
        }
    }
    TRY(health(p));
    for (int r = 0; scale->rows[r] > 0; r++) {
        struct line_result line = { .bench = "gpu-rows", .unit = "times one row", .values = &over[r],
                                    .better = LINE_LOWER };
        snprintf(line.which, sizeof line.which, "\"model\":\"%s\",\"type\":\"%s\",\"rows\":%d,\"ms\":%.5g",
                 scale->model, p->type, scale->rows[r], values_median(&ns[r]) * 1e-6);
        line_put(&line);
    }
    return STATUS_OK;
}

/* ---- prompts ---- */
static double prefill_rate(struct passes *p, int32_t n_tokens)
{
    int64_t ns = 0;
    for (int32_t at = 0; at < n_tokens; at += p->run->scale->chunk) {
        const int32_t left = n_tokens - at, n = left < p->run->scale->chunk ? left : p->run->scale->chunk;
        ns += bench_rig_pass(&p->rig, p->tokens + at, at, n, at + n == n_tokens);
    }
    return n_tokens / ((double)ns * 1e-9);
}

static void put_prefill(const struct passes *p, enum numeric_plan plan, int prompt, const struct values *rates)
{
    const struct models_scale *scale = p->run->scale;
    struct line_result line = { .bench = "gpu-prefill", .unit = "tok/s", .values = rates };
    snprintf(line.which, sizeof line.which, "\"model\":\"%s\",\"type\":\"%s\",\"plan\":\"%s\",\"text\":\"%s\","
             "\"tokens\":%d,\"chunk\":%d", scale->model, p->type, numeric_plan_name(plan),
             prompt == 0 ? "short" : "long", scale->prompts[prompt], scale->chunk);
    line_put(&line);
}

/* Layers of blocks of integers are the exact plan's in the native one. */
static bool is_measured(const struct passes *p, enum numeric_plan plan)
{
    return plan == PLAN_EXACT || (plan == PLAN_FAST ? p->has_fast : strcmp(p->type, "bf16") == 0);
}

/* Passes of prompts are not recorded, so that a plan holds from one to the next. The first round warms. */
static enum status measure_prefill(struct passes *p)
{
    struct values rates[PLAN_COUNT][2] = { { { .n = 0 } } };
    for (int i = -1; i < 3; i++) {
        for (enum numeric_plan plan = PLAN_EXACT; plan < PLAN_COUNT; plan++) {
            for (int c = 0; c < 2 && is_measured(p, plan) && models_has_time(p->run, 4, "a prompt"); c++) {
                TRY(backend_set_plan(p->rig.backend, plan));
                const double rate = prefill_rate(p, i < 0 ? p->run->scale->chunk : p->run->scale->prompts[c]);
                if (i >= 0) {
                    values_add(&rates[plan][c], rate);
                }
            }
        }
    }
    TRY(backend_set_plan(p->rig.backend, PLAN_EXACT));
    TRY(health(p));
    for (enum numeric_plan plan = PLAN_EXACT; plan < PLAN_COUNT; plan++) {
        for (int c = 0; c < 2 && rates[plan][c].n > 0; c++) {
            put_prefill(p, plan, c, &rates[plan][c]);
        }
    }
    return STATUS_OK;
}

/* ---- recordings ---- */
/* Each shape once as it is, so that nothing is taken for the first time later, then once more: recorded. The
 * device's free memory is everybody's: on one that others use the figure is theirs too. */
static enum status measure_recordings(struct passes *p)
{
    const struct models_scale *scale = p->run->scale;
    struct values bytes = { .n = 0 };
    uint64_t before = 0;
    int n = 0;
    for (int round = 0; round < 2; round++) {
        before = backend_free_bytes(p->rig.backend);
        for (n = 0; scale->rows[n] > 0; n++) {
            bench_rig_pass(&p->rig, p->tokens, scale->contexts[0], scale->rows[n], scale->rows[n]);
        }
    }
    TRY(health(p));
    values_add(&bytes, ((double)before - (double)backend_free_bytes(p->rig.backend)) / n * 1e-3);
    struct line_result line = { .bench = "gpu-recording", .unit = "KB", .values = &bytes, .better = LINE_LOWER };
    snprintf(line.which, sizeof line.which, "\"model\":\"%s\",\"type\":\"%s\",\"recorded\":%d,\"kept_mb_for_all\":%.5g",
             scale->model, p->type, n, (double)backend_recorded_bytes(p->rig.backend) * 1e-6);
    line_put(&line);
    return STATUS_OK;
}

/* ---- one model ---- */
static int32_t most_rows(const struct models_scale *scale)
{
    int32_t most = 1;
    for (int i = 0; scale->rows[i] > 0; i++) {
        most = scale->rows[i] > most ? scale->rows[i] : most;
    }
    return most;
}

/* The fast plan's room is taken with the model's buffers, so it is chosen first and left at once. */
static bool can_be_fast(void)
{
    struct backend *backend = NULL;
    enum status status = backend_create(MODELS_DEVICE, NULL, &backend);
    if (status == STATUS_OK) {
        status = backend_set_plan(backend, PLAN_FAST);
    }
    if (status != STATUS_OK) {
        fprintf(stderr, "not run: prompts of the fast plan: %s\n", status_message());
    }
    backend_destroy(backend);
    return status == STATUS_OK;
}

static enum status open_model(struct passes *p)
{
    const struct models_scale *scale = p->run->scale;
    char target[128];
    snprintf(target, sizeof target, "synth:%s,%s,seed=1", scale->model, p->type);
    const int64_t begin = clock_now_ns();
    p->has_fast = can_be_fast();
    TRY(bench_rig_init(&p->rig, &(struct bench_rig_options){
        .target = target, .device = MODELS_DEVICE, .plan = p->has_fast ? PLAN_FAST : PLAN_EXACT,
        .context = scale->contexts[1] + scale->chunk, .cap_rows = scale->chunk, .cap_logits = most_rows(scale) }));
    TRY(backend_set_plan(p->rig.backend, PLAN_EXACT));
    fprintf(stderr, "%s: loaded in %.1f s\n", target, (double)(clock_now_ns() - begin) * 1e-9);
    for (int32_t i = 0; i < TOKENS_CAP; i++) {
        p->tokens[i] = 1 + i % (p->rig.config->n_vocab - 1);
    }
    return STATUS_OK;
}

static enum status measure_all(struct passes *p)
{
    TRY(measure_recordings(p));
    TRY(measure_decode(p));
    if (models_has_time(p->run, 2, "several rows")) {
        TRY(measure_rows(p));
    }
    if (models_has_time(p->run, 2, "gaps")) {
        TRY(models_gaps(p->run, &p->rig, p->type));
    }
    return models_has_time(p->run, 5, "prompts") ? measure_prefill(p) : STATUS_OK;
}

enum status models_decode(struct models_run *run, const char *type)
{
    struct passes *p = mem_alloc(1, sizeof *p);
    enum status status;
    if (p == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a rig");
    }
    p->run = run;
    p->type = type;
    TRY_GOTO(open_model(p), out);
    status = measure_all(p);
out:
    bench_rig_deinit(&p->rig);
    mem_free(p);
    return status;
}
