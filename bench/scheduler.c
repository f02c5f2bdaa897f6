/* scheduler: CPU time of the step thread outside passes and sampling, on a model so small that the
 * pass hides nothing.
 *
 * The bound is a promise and not a roof: 20 us a step at batch 1, 2 us a sequence at batch 64.
 */
#include "bench/measure.h"
#include "tandem.h"

enum { MAX_BATCH = 64, TOKENS = 96, TOKENS_QUICK = 32, CONTEXT = 256 };

static enum status engine_said(enum td_status td)
{
    char sentence[1024]; /* the message may lie where status_fail() is about to write */
    snprintf(sentence, sizeof sentence, "%s", td_error_message());
    return td == TD_OK ? STATUS_OK : status_fail(STATUS_INVALID, "%s", sentence);
}

/* Runs `batch` requests together to their end. */
static enum status run_batch(struct td_engine *engine, int batch, int64_t n_tokens)
{
    int32_t prompt[8];
    for (int i = 0; i < batch; i++) {
        struct td_request request;
        uint64_t id;
        td_request_init(&request);
        for (int32_t j = 0; j < 8; j++) {
            prompt[j] = 3 + (i * 8 + j) % 400;
        }
        request.ids = prompt;
        request.n_ids = 8;
        request.max_tokens = n_tokens;
        request.ignore_eos = 1;
        request.want_text = 0;
        TRY(engine_said(td_submit(engine, &request, &id)));
    }
    for (int finished = 0; finished < batch;) {
        struct td_event event;
        TRY(engine_said(td_next_event(engine, -1, &event)));
        finished += event.kind == TD_EVENT_FINISHED;
    }
    return STATUS_OK;
}

/* One sample: microseconds a step (batch 1), or a sequence and step. */
static enum status sample(struct td_engine *engine, int batch, int64_t n_tokens, struct samples *out)
{
    struct td_engine_stats before, after;
    td_engine_get_stats(engine, &before);
    TRY(run_batch(engine, batch, n_tokens));
    td_engine_get_stats(engine, &after);
    const double turns = (double)(after.committed_tokens - before.committed_tokens);
    samples_add(out, (double)(after.scheduler_cpu_ns - before.scheduler_cpu_ns) * 1e-3 / turns);
    return STATUS_OK;
}

static enum status measure_batch(const struct bench_options *options, int batch)
{
    struct td_engine_options engine_options;
    struct td_engine *engine = NULL;
    struct td_engine_info info;
    struct samples costs = {0};
    enum status status = STATUS_OK;
    td_engine_options_init(&engine_options);
    engine_options.target = options->target ? options->target : "synth:tiny,q8_0,seed=1";
    engine_options.isa = options->isa;
    engine_options.threads = options->threads ? options->threads : 1;
    engine_options.context = CONTEXT;
    engine_options.max_batch = batch;
    TRY(engine_said(td_engine_open(&engine_options, &engine)));
    td_engine_get_info(engine, &info);
    const int reps = bench_reps(options, 9, 3);
    for (int i = 0; i <= reps && status == STATUS_OK; i++) {
        status = sample(engine, batch, options->quick ? TOKENS_QUICK : TOKENS, &costs);
        costs.n = i == 0 ? 0 : costs.n; /* the first run warms */
    }
    if (status == STATUS_OK) {
        status = line_write(options, &(struct line){
            .bench = "scheduler", .unit = batch == 1 ? "us/step" : "us/seq", .better = LOWER, .values = &costs,
            .bound = batch == 1 ? 20 : 2, .isa = info.isa, .seed = 1,
            .which = json_pack("{s:s,s:i,s:i}", "model", engine_options.target, "batch", batch, "threads",
                               info.threads),
        });
    }
    td_engine_close(engine);
    return status;
}

enum status bench_scheduler(const struct bench_options *options)
{
    TRY(measure_batch(options, 1));
    return measure_batch(options, MAX_BATCH);
}
