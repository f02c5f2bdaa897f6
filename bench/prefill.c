/* prefill: a prompt of 512 tokens in one pass, against the integer peak.
 *
 * bound = integer peak / MACs of the linear layers (the head once): everything beside the dot
 * products, attention included, counts as loss.
 */
#include "bench/measure.h"

enum { TOKENS = 512 };

static enum status prefill_threads(const struct bench_options *options, struct bench_rig *rig,
                                   const struct bench_model *model, int threads, const int32_t *tokens)
{
    struct samples rates = {0};
    struct roofs roofs = {.cpus = rig->cpus, .threads = threads, .kinds = ROOF_READ | ROOF_INTEGER,
                          .seconds = options->quick ? 0.06 : 0.2, .backend = rig->backend};
    const int reps = bench_reps(options, 7, 3);
    TRY(bench_rig_use_threads(rig, threads));
    bench_rig_pass(rig, tokens, 0, 64, 1);
    roofs_take(&roofs);
    for (int i = 0; i < reps; i++) {
        samples_add(&rates, TOKENS / ((double)bench_rig_pass(rig, tokens, 0, TOKENS, 1) * 1e-9));
        roofs_take(&roofs);
    }
    const double macs = config_body_macs(rig->config) * TOKENS + config_head_macs(rig->config);
    return line_write(options, &(struct line){
        .bench = "prefill", .unit = "tok/s", .better = HIGHER, .values = &rates, .roofs = &roofs, .seed = 1,
        .bound = TOKENS / roofs_bound(&roofs, 0, macs, 0, 1), .isa = isa_name(backend_isa(rig->backend)),
        .which = json_pack("{s:s,s:s,s:i,s:i}", "model", model->model, "type", model->type, "threads", threads,
                           "tokens", (int)TOKENS),
    });
}

static enum status prefill_model(const struct bench_options *options, const struct bench_model *model)
{
    struct bench_rig rig;
    int32_t tokens[TOKENS];
    int threads[2];
    enum status status;
    TRY_GOTO(bench_rig_init(&rig, &(struct bench_rig_options){
        .target = model->target, .isa = options->isa, .context = TOKENS, .cap_rows = TOKENS,
        .cap_logits = 1, .threads = options->threads,
    }), out);
    for (int32_t i = 0; i < TOKENS; i++) {
        tokens[i] = 1 + i % 200;
    }
    const int n = bench_threads(options, &rig, threads);
    for (int i = 0; i < n; i++) {
        TRY_GOTO(prefill_threads(options, &rig, model, threads[i], tokens), out);
    }
out:
    bench_rig_deinit(&rig);
    return status;
}

enum status bench_prefill(const struct bench_options *options)
{
    struct bench_model models[BENCH_MAX_MODELS];
    const int n = bench_models(options, models);
    for (int i = 0; i < n; i++) {
        TRY(prefill_model(options, &models[i]));
    }
    return STATUS_OK;
}
