/* pairs: speculation beside plain decoding on planted pairs, by agreement, temperature and where the draft is:
 * on the same device in turn, ahead on a stream of its own, ahead on multiprocessors of its own, on the host's
 * cores in turn and ahead.
 *
 *     base    the engine that drafts in turn on the device; K = 0 is plain decoding on all of it
 *     way     an engine a way, opened beside it one after another
 *
 * Each way takes the K of most tokens a second, then plain decoding and the way run in turn; a line's value is
 * the median of the ratios. Texts have the digest of plain decoding, or the question fails.
 */
#include <stdio.h>
#include <string.h>

#include "gpu/models.h"

enum { TARGET_CAP = 160 };

struct way { const char *name, *target_device, *draft_device, *ahead; };
struct pair_run {
    struct models_run *run;
    const char *size, *shape;
    double agree;
    char target[TARGET_CAP];
    struct td_engine *base;
    uint64_t n_runs;
};

/* Base first. Parts of the device are the scale's. */
static int list_ways(const struct models_scale *scale, struct way ways[5])
{
    ways[0] = (struct way){ "in turn, draft on the GPU", MODELS_DEVICE, MODELS_DEVICE, "off" };
    ways[1] = (struct way){ "ahead, two streams", MODELS_DEVICE, MODELS_DEVICE, "on" };
    ways[2] = (struct way){ "ahead, parts of the GPU", scale->rest, scale->part, "on" };
    ways[3] = (struct way){ "ahead, draft on the cores", MODELS_DEVICE, "cpu", "on" };
    ways[4] = (struct way){ "in turn, draft on the cores", MODELS_DEVICE, "cpu", "off" };
    return 5;
}

static enum status open_way(const struct pair_run *pair, const struct way *way, struct td_engine **out)
{
    const int64_t begin = clock_now_ns();
    TRY(run_engine_open(&(struct run_engine_options){ .target = pair->target, .draft = "auto", .max_batch = 1, .k = -1,
        .context = pair->run->scale->context, .target_device = way->target_device, .draft_device = way->draft_device,
        .ahead = way->ahead }, out));
    fprintf(stderr, "%s, %s: loaded in %.1f s\n", pair->target, way->name, (double)(clock_now_ns() - begin) * 1e-9);
    return STATUS_OK;
}

static enum status run_once(struct pair_run *pair, struct td_engine *engine, const struct run_spec *how,
                            struct run_result *result)
{
    struct run_spec spec = *how;
    spec.batch = 1;
    spec.n_tokens = pair->run->scale->n_paired;
    spec.tenant = ++pair->n_runs;
    return run_requests(engine, &spec, result);
}

/* A way's first run learns and does not count. */
static enum status find_k(struct pair_run *pair, struct td_engine *engine, float temperature, int32_t *k)
{
    const int32_t *ks = pair->run->scale->ks;
    double best = 0;
    struct run_result result;
    *k = ks[0];
    TRY(run_once(pair, engine, &(struct run_spec){ .k = ks[0], .temperature = temperature }, &result));
    for (int i = 0; ks[i] > 0 && ks[1] > 0; i++) {
        const struct run_spec how = { .k = ks[i], .temperature = temperature, .variant = 1 };
        TRY(run_once(pair, engine, &how, &result));
        if (result.tok_per_s > best) {
            best = result.tok_per_s;
            *k = ks[i];
        }
    }
    return STATUS_OK;
}

/* ---- one way at one temperature ---- */
struct compared { struct values plain, way, ratios; struct run_result sum; int32_t k; };

static enum status compare(struct pair_run *pair, struct td_engine *engine, float temperature, struct compared *c)
{
    for (int i = 0; i < 3; i++) {
        struct run_spec how = { .temperature = temperature, .variant = 2 + i };
        struct run_result plain, result;
        TRY(run_once(pair, pair->base, &how, &plain));
        how.k = c->k;
        TRY(run_once(pair, engine, &how, &result));
        if (result.digest != plain.digest) {
            return status_fail(STATUS_DIFFERENT, "%s, K %d, temperature %g: digest %016llx, by plain decoding %016llx",
                               pair->target, c->k, (double)temperature, (unsigned long long)result.digest,
                               (unsigned long long)plain.digest);
        }
        values_add(&c->plain, plain.tok_per_s);
        values_add(&c->way, result.tok_per_s);
        values_add(&c->ratios, plain.tok_per_s > 0 ? result.tok_per_s / plain.tok_per_s : 0);
        c->sum.n_tokens += result.n_tokens;
        c->sum.n_passes += result.n_passes;
        c->sum.ahead.hits += result.ahead.hits;
        c->sum.ahead.misses += result.ahead.misses;
    }
    return STATUS_OK;
}

static void put_way(const struct pair_run *pair, const struct way *way, float temperature, const struct compared *c)
{
    const double rounds = (double)(c->sum.ahead.hits + c->sum.ahead.misses);
    struct line_result line = { .bench = "gpu-pairs", .unit = "times plain", .values = &c->ratios };
    snprintf(line.which, sizeof line.which, "\"size\":\"%s\",\"pair\":\"%s\",\"agree\":%g,\"temperature\":%g,"
             "\"way\":\"%s\",\"k\":%d,\"plain\":%.5g,\"tok_per_s\":%.5g,\"tokens_per_pass\":%.4g,\"hit\":%.4g",
             pair->size, pair->shape, pair->agree, (double)temperature, way->name, c->k, values_median(&c->plain),
             values_median(&c->way), c->sum.n_passes > 0 ? (double)c->sum.n_tokens / (double)c->sum.n_passes : 0,
             rounds > 0 ? (double)c->sum.ahead.hits / rounds : 0);
    line_put(&line);
}

static enum status measure_way(struct pair_run *pair, const struct way *way, struct td_engine *engine)
{
    for (int t = 0; t < 2; t++) {
        struct compared c = { .k = 0 };
        TRY(find_k(pair, engine, (float)t, &c.k));
        TRY(compare(pair, engine, (float)t, &c));
        put_way(pair, way, (float)t, &c);
    }
    return STATUS_OK;
}

/* ---- all ways of one agreement ---- */
static enum status measure_ways(struct pair_run *pair, double load_seconds)
{
    struct way ways[5];
    const int n = list_ways(pair->run->scale, ways);
    TRY(measure_way(pair, &ways[0], pair->base));
    for (int w = 1; w < n; w++) {
        struct td_engine *engine = NULL;
        if (!models_has_time(pair->run, 1.5 * load_seconds, ways[w].name)) {
            continue;
        }
        TRY(open_way(pair, &ways[w], &engine));
        const enum status status = measure_way(pair, &ways[w], engine);
        td_engine_close(engine);
        TRY(status);
    }
    return STATUS_OK;
}

static enum status measure_agreement(struct pair_run *pair)
{
    struct way ways[5];
    list_ways(pair->run->scale, ways);
    snprintf(pair->target, sizeof pair->target, "%s,agree=%g", pair->shape, pair->agree);
    const int64_t begin = clock_now_ns();
    TRY(open_way(pair, &ways[0], &pair->base));
    const enum status status = measure_ways(pair, (double)(clock_now_ns() - begin) * 1e-9);
    td_engine_close(pair->base);
    return status;
}

enum status models_pairs(struct models_run *run, const char *which)
{
    const double *agreements = run->scale->agreements;
    const int64_t begin = clock_now_ns();
    const int large = strcmp(which, "70b") == 0;
    if (!large && strcmp(which, "8b") != 0) {
        return status_fail(STATUS_USAGE, "expected pairs:8b or pairs:70b, found 'pairs:%s'", which);
    }
    for (int a = 0; agreements[a] > 0; a++) {
        struct pair_run pair = { .run = run, .size = which, .shape = run->scale->pairs[large], .agree = agreements[a] };
        const double last = (double)(clock_now_ns() - begin) * 1e-9; /* the first took so long */
        if (a == 0 || models_has_time(run, last / 2, "another agreement")) {
            TRY(measure_agreement(&pair));
        }
    }
    return STATUS_OK;
}
