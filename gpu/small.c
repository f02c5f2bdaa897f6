/* small: a tiny planted pair decoded in every way that the device has, each text with the digest of the CPU's. What
 * sanitizers watch: it launches every kernel of a pass, records passes, and runs two streams at once.
 */
#include <stdio.h>

#include "gpu/models.h"

enum { CONTEXT = 64, BATCH = 2, TOKENS = 5, K = 3 };
static const char PAIR[] = "synth:pair=tiny,q8_0,draft=tiny,draft-layers=1,agree=0.7,seed=1";

struct small_way { const char *name, *target_device, *draft_device, *ahead; int32_t k; };

static enum status run_way(const struct small_way *way, uint64_t *digest)
{
    struct run_result result = { .digest = 0 };
    struct td_engine *engine = NULL;
    TRY(run_engine_open(&(struct run_engine_options){ .target = PAIR, .draft = way->k > 0 ? "auto" : "none",
        .max_batch = BATCH, .context = CONTEXT, .k = way->k, .target_device = way->target_device,
        .draft_device = way->draft_device, .ahead = way->ahead }, &engine));
    const enum status status = run_requests(engine, &(struct run_spec){ .batch = BATCH, .n_tokens = TOKENS, .k = way->k,
                                                                        .temperature = 0.8f }, &result);
    td_engine_close(engine);
    *digest = result.digest;
    return status;
}

enum status models_small(struct models_run *run, const char *unused)
{
    const struct small_way ways[] = {
        { "the CPU", NULL, NULL, "off", 0 },
        { "plain", MODELS_DEVICE, NULL, "off", 0 },
        { "in turn, draft on the GPU", MODELS_DEVICE, MODELS_DEVICE, "off", K },
        { "ahead, two streams", MODELS_DEVICE, MODELS_DEVICE, "on", K },
        { "ahead, draft on the cores", MODELS_DEVICE, "cpu", "on", K },
    };
    uint64_t wanted = 0;
    (void)run;
    (void)unused;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct values equal = { .n = 0 };
        struct line_result line = { .bench = "gpu-small", .unit = "equal", .values = &equal, .bound = 1 };
        uint64_t digest;
        TRY(run_way(&ways[i], &digest));
        wanted = i == 0 ? digest : wanted;
        values_add(&equal, digest == wanted);
        snprintf(line.which, sizeof line.which, "\"way\":\"%s\",\"digest\":\"%016llx\"", ways[i].name,
                 (unsigned long long)digest);
        line_put(&line);
        if (digest != wanted) {
            return status_fail(STATUS_DIFFERENT, "%s, %s: digest %016llx, the CPU's is %016llx", PAIR, ways[i].name,
                               (unsigned long long)digest, (unsigned long long)wanted);
        }
    }
    return STATUS_OK;
}
