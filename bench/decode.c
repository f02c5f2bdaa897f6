/* decode: plain decoding of one sequence, against the time memory takes to deliver the weights.
 *
 * bound = read bandwidth of as many threads / file-format bytes of the weights that a token reads:
 * counted in the passes that were measured, since of experts it is those that were touched. A sample is
 * a run of tokens, each chosen from the logits before it; roofs are taken between samples.
 */
#include "bench/measure.h"

enum { PROMPT = 64, CONTEXT = 128, TOKENS = 16, TOKENS_QUICK = 8 };

/* Decodes n tokens after the prompt; returns tokens a second. */
static double decode_run(struct bench_rig *rig, int32_t n)
{
    int32_t token = 1;
    int64_t ns = 0;
    for (int32_t i = 0; i < n; i++) {
        const int64_t begin = clock_now_ns();
        bool bad = false;
        bench_rig_pass(rig, &token, PROMPT + i, 1, 1);
        token = backend_argmax(rig->backend, pass_buffers_logits(rig->buffers), rig->config->n_vocab, &bad);
        ns += clock_now_ns() - begin;
    }
    return (double)n / ((double)ns * 1e-9);
}

static enum status decode_threads(const struct bench_options *options, struct bench_rig *rig,
                                  const struct bench_model *model, int threads)
{
    struct samples rates = {0};
    struct roofs roofs = {.cpus = rig->cpus, .threads = threads, .kinds = ROOF_READ,
                          .seconds = options->quick ? 0.1 : 0.3, .backend = rig->backend};
    const int32_t n = options->quick ? TOKENS_QUICK : TOKENS;
    const int reps = bench_reps(options, 9, 3);
    TRY(bench_rig_use_threads(rig, threads));
    decode_run(rig, 2);
    roofs_take(&roofs);
    const uint64_t bytes_before = pass_buffers_bytes_read(rig->buffers);
    for (int i = 0; i < reps; i++) {
        samples_add(&rates, decode_run(rig, n));
        roofs_take(&roofs);
    }
    const double bytes = (double)(pass_buffers_bytes_read(rig->buffers) - bytes_before) / ((double)reps * n);
    return line_write(options, &(struct line){
        .bench = "decode", .unit = "tok/s", .better = HIGHER, .values = &rates, .roofs = &roofs, .seed = 1,
        .bound = 1 / roofs_bound(&roofs, bytes, 0, 0, 1), .isa = isa_name(backend_isa(rig->backend)),
        .which = json_pack("{s:s,s:s,s:i}", "model", model->model, "type", model->type, "threads", threads),
    });
}

static enum status decode_model(const struct bench_options *options, const struct bench_model *model)
{
    struct bench_rig rig;
    int32_t prompt[PROMPT];
    int threads[2];
    enum status status;
    TRY_GOTO(bench_rig_init(&rig, &(struct bench_rig_options){
        .target = model->target, .isa = options->isa, .context = CONTEXT, .cap_rows = PROMPT,
        .cap_logits = 1, .threads = options->threads,
    }), out);
    for (int32_t i = 0; i < PROMPT; i++) {
        prompt[i] = 1 + i % 200;
    }
    bench_rig_pass(&rig, prompt, 0, PROMPT, 1);
    const int n = bench_threads(options, &rig, threads);
    for (int i = 0; i < n; i++) {
        TRY_GOTO(decode_threads(options, &rig, model, threads[i]), out);
    }
out:
    bench_rig_deinit(&rig);
    return status;
}

enum status bench_decode(const struct bench_options *options)
{
    struct bench_model models[BENCH_MAX_MODELS];
    const int n = bench_models(options, models);
    for (int i = 0; i < n; i++) {
        TRY(decode_model(options, &models[i]));
    }
    return STATUS_OK;
}
