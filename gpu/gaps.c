/* gaps: how much of a step the device's kernels do not fill.
 *
 *     step     host's clock around a pass: inputs sent, kernels, logits fetched, waited for
 *     kernels  a pass whose operations each lie between two events, less what two events alone are apart
 *     gap      1 - kernels / step, for recorded passes and for passes launched kernel by kernel
 *
 * The host sleeps in the stream before the passes with events, so that all is queued by the time the device comes to
 * it and no event waits for a launch. Two kernels of one operation (attention) count with the pause between them.
 */
#include <stdio.h>
#include <time.h>

#include "backend/cuda/cuda.h"
#include "gpu/models.h"

enum operation { OP_EMBED, OP_NORM, OP_QUANTIZE, OP_LINEAR, OP_ROPE_STORE, OP_ATTENTION, OP_SWIGLU, N_OPERATIONS };
static const char *const operation_names[N_OPERATIONS] = { "embed", "norm", "quantize", "linear", "rope and store",
                                                           "attention", "swiglu" };
enum { SPANS_CAP = 2048, HOLD_NS = 20000000, EMPTY_SPANS = 64 };

/* One pass at a time: operations say nothing of who asked for them. */
static struct {
    const struct backend_ops *real;
    struct backend_ops timed;
    cudaEvent_t from[SPANS_CAP], to[SPANS_CAP];
    enum operation of[SPANS_CAP];
    int n, n_made;
} probe;

/* ---- spans ---- */
static void span_begin(struct cuda_lane *lane, enum operation operation)
{
    const cudaStream_t stream = cuda_lane_enter(lane);
    ASSERT(probe.n < SPANS_CAP);
    probe.of[probe.n] = operation;
    if (stream != NULL) {
        cuda_ok(cuda_lane_backend(lane), cudaEventRecord(probe.from[probe.n], stream), "timing a kernel");
    }
}

static void span_end(struct cuda_lane *lane)
{
    const cudaStream_t stream = cuda_lane_enter(lane);
    if (stream != NULL) {
        cuda_ok(cuda_lane_backend(lane), cudaEventRecord(probe.to[probe.n], stream), "timing a kernel");
    }
    probe.n++;
}

#define TIMED(name, operation)                                               \
    static void timed_##name(struct lane *lane, const struct op_##name *op)  \
    {                                                                        \
        span_begin(cuda_lane_of(lane), operation);                           \
        probe.real->name(lane, op);                                          \
        span_end(cuda_lane_of(lane));                                        \
    }
TIMED(embed, OP_EMBED)
TIMED(norm, OP_NORM)
TIMED(quantize, OP_QUANTIZE)
TIMED(linear, OP_LINEAR)
TIMED(rope_store, OP_ROPE_STORE)
TIMED(attention, OP_ATTENTION)
TIMED(swiglu, OP_SWIGLU)

static void set_operations(void)
{
    probe.timed = *probe.real;
    probe.timed.embed = timed_embed;
    probe.timed.norm = timed_norm;
    probe.timed.quantize = timed_quantize;
    probe.timed.linear = timed_linear;
    probe.timed.rope_store = timed_rope_store;
    probe.timed.attention = timed_attention;
    probe.timed.swiglu = timed_swiglu;
}

static enum status probe_begin(struct lane *lane)
{
    struct cuda_backend *backend = cuda_lane_backend(cuda_lane_of(lane));
    probe.real = lane->ops;
    set_operations();
    for (; probe.n_made < SPANS_CAP; probe.n_made++) {
        cudaEvent_t *from = &probe.from[probe.n_made], *to = &probe.to[probe.n_made];
        if (!cuda_ok(backend, cudaEventCreateWithFlags(from, cudaEventDefault), "making events") ||
            !cuda_ok(backend, cudaEventCreateWithFlags(to, cudaEventDefault), "making events")) {
            return backend_health(lane->backend);
        }
    }
    return STATUS_OK;
}

static void probe_end(void)
{
    for (; probe.n_made > 0; probe.n_made--) {
        (void)cudaEventDestroy(probe.from[probe.n_made - 1]);
        (void)cudaEventDestroy(probe.to[probe.n_made - 1]);
    }
}

/* ---- passes ---- */
static void CUDART_CB sleep_a_while(void *ns)
{
    nanosleep(&(struct timespec){ .tv_nsec = *(const long *)ns }, NULL);
}

static void hold(struct cuda_lane *lane)
{
    static long ns = HOLD_NS;
    const cudaStream_t stream = cuda_lane_enter(lane);
    if (stream != NULL) {
        cuda_ok(cuda_lane_backend(lane), cudaLaunchHostFunc(stream, sleep_a_while, &ns), "holding a stream");
    }
}

static double span_us(struct cuda_lane *lane, int i)
{
    float ms = 0;
    cuda_ok(cuda_lane_backend(lane), cudaEventElapsedTime(&ms, probe.from[i], probe.to[i]), "asking events");
    return 1e3 * (double)ms;
}

/* Two events with nothing between them. */
static double empty_span_us(struct cuda_lane *lane)
{
    struct values us = { .n = 0 };
    probe.n = 0;
    hold(lane);
    for (int i = 0; i < EMPTY_SPANS; i++) {
        span_begin(lane, OP_EMBED);
        span_end(lane);
    }
    lane_wait(&lane->base, lane_mark(&lane->base));
    for (int i = 0; i < EMPTY_SPANS; i++) {
        values_add(&us, span_us(lane, i));
    }
    return values_median(&us);
}

/* Microseconds of each kind of operation in one pass. */
static void timed_pass(struct bench_rig *rig, int32_t position, double empty_us, double us[N_OPERATIONS])
{
    struct cuda_lane *lane = cuda_lane_of(rig->lane);
    const int32_t token = 1;
    probe.n = 0;
    hold(lane);
    lane->base.ops = &probe.timed;
    bench_rig_pass(rig, &token, position, 1, 1);
    lane->base.ops = probe.real;
    for (int i = 0; i < N_OPERATIONS; i++) {
        us[i] = 0;
    }
    for (int i = 0; i < probe.n; i++) {
        const double each = span_us(lane, i) - empty_us;
        us[probe.of[i]] += each > 0 ? each : 0;
    }
}

static double step_us(struct bench_rig *rig, int32_t position, int n)
{
    const int32_t token = 1;
    int64_t ns = 0;
    for (int i = 0; i < n; i++) {
        ns += bench_rig_pass(rig, &token, position, 1, 1);
    }
    return (double)ns * 1e-3 / n;
}

/* ---- results ---- */
struct gaps {
    struct values steps[2];               /* us: recorded, launched one by one */
    struct values kernels, of[N_OPERATIONS]; /* us */
    int n_spans;
};

static void put_share(const struct models_run *run, const struct gaps *gaps, int launched, const char *type)
{
    struct values shares = { .n = 0 };
    const double kernels = values_median(&gaps->kernels);
    for (int i = 0; i < gaps->steps[launched].n; i++) {
        values_add(&shares, 1 - kernels / gaps->steps[launched].at[i]);
    }
    struct line_result line = { .bench = "gpu-gaps", .unit = "of a step", .values = &shares, .better = LINE_LOWER };
    snprintf(line.which, sizeof line.which, "\"model\":\"%s\",\"type\":\"%s\",\"graphs\":\"%s\",\"step_us\":%.5g,"
             "\"kernels_us\":%.5g,\"operations\":%d", run->scale->model, type, launched ? "off" : "on",
             values_median(&gaps->steps[launched]), kernels, gaps->n_spans);
    line_put(&line);
}

static void put_operations(const struct models_run *run, const struct gaps *gaps, const char *type)
{
    const double kernels = values_median(&gaps->kernels);
    for (int i = 0; i < N_OPERATIONS; i++) {
        struct line_result line = { .bench = "gpu-operations", .unit = "us", .values = &gaps->of[i],
                                    .better = LINE_LOWER };
        snprintf(line.which, sizeof line.which, "\"model\":\"%s\",\"type\":\"%s\",\"operation\":\"%s\","
                 "\"of_kernels\":%.4g", run->scale->model, type, operation_names[i],
                 kernels > 0 ? values_median(&gaps->of[i]) / kernels : 0);
        line_put(&line);
    }
}

static void measure(struct models_run *run, struct bench_rig *rig, struct gaps *gaps)
{
    const int32_t position = run->scale->contexts[0];
    double us[N_OPERATIONS];
    const double empty_us = empty_span_us(cuda_lane_of(rig->lane));
    for (int i = -1; i < run->scale->reps; i++) { /* the first warms */
        double sum = 0, steps[2];
        for (int launched = 0; launched < 2; launched++) {
            cuda_backend_keep_graphs(rig->backend, !launched);
            steps[launched] = step_us(rig, position, run->scale->steps);
        }
        timed_pass(rig, position, empty_us, us);
        for (int o = 0; o < N_OPERATIONS && i >= 0; o++) {
            values_add(&gaps->of[o], us[o]);
            sum += us[o];
        }
        if (i >= 0) {
            values_add(&gaps->kernels, sum);
            values_add(&gaps->steps[0], steps[0]);
            values_add(&gaps->steps[1], steps[1]);
        }
    }
    gaps->n_spans = probe.n;
    cuda_backend_keep_graphs(rig->backend, true);
}

enum status models_gaps(struct models_run *run, struct bench_rig *rig, const char *type)
{
    struct gaps gaps = { .n_spans = 0 };
    enum status status = probe_begin(rig->lane);
    if (status == STATUS_OK) {
        measure(run, rig, &gaps);
        status = backend_health(rig->backend);
    }
    probe_end();
    TRY(status);
    put_share(run, &gaps, 0, type);
    put_share(run, &gaps, 1, type);
    put_operations(run, &gaps, type);
    return STATUS_OK;
}
