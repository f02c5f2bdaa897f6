/* engine_run: an engine and timed runs of requests in it. Private to bench/. */
#ifndef BENCH_ENGINE_RUN_H
#define BENCH_ENGINE_RUN_H

#include "bench/measure.h"
#include "tandem.h"

enum { RUN_MAX_REQUESTS = 64, RUN_PROMPT_TOKENS = 8 };

struct run_engine_options {
    const char *target, *draft, *isa;
    int threads;             /* 0: physical cores */
    int max_batch;
    int32_t context;         /* 0: the model's */
    int32_t k;               /* < 0: as many as pay */
    const char *target_device, *draft_device, *ahead; /* NULL: the engine's way */
    int keeps_apart;         /* 1: neither device's cores help the other's */
    int32_t virtual_pass_us, virtual_draft_us; /* of target and draft; 0: passes take what they take */
};
enum status run_engine_open(const struct run_engine_options *options, struct td_engine **out);

/* `batch` requests at once. Prompts are of the model's own words where it has a vocabulary (the
 * beginning of a story), else ids; they differ by `variant` and place. */
struct run_spec {
    int batch;
    int64_t n_tokens;
    int32_t k;               /* of every request; < 0: as many as pay */
    float temperature;
    int variant;
    uint64_t tenant;
};
struct run_result {
    double tok_per_s;        /* of all together, first tokens and prompts not counted */
    int64_t n_tokens, n_passes;
    double draft_seconds, verify_seconds;
    struct td_draft_counts drafted;
    struct td_ahead_counts ahead;
    uint64_t late_passes;    /* of a virtual target */
    uint64_t digest;         /* over the requests' own, in their order */
};
enum status run_requests(struct td_engine *engine, const struct run_spec *spec, struct run_result *out);
/* Tokens a round: 1 + accepted / rounds. */
double run_mean_length(const struct td_draft_counts *drafted);
/* The share of first proposals accepted: with a planted pair, the agreement that came about. */
double run_first_acceptance(const struct td_draft_counts *drafted);
/* The last td_ call as a status. */
enum status run_said(enum td_status td);

#endif
