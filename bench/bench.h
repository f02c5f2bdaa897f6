/* bench: speed against the roofs of the same run. One file a question; each is a row in bench_table.
 *
 * Also the door to two things it measures with: the *rig*, a model with one sequence's KV and no
 * engine around it, and the *machine*, what this computer says it is. One thread.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <sched.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/base.h"
#include "model/model.h"
#include "target/target.h"

/* ---- questions ---- */
struct bench_options {
    const char *target;      /* NULL: the models of the question */
    const char *default_model; /* path of the model that comes with the program; may be NULL */
    const char *isa;         /* NULL: best here (kernels: each) */
    int threads;             /* 0: one, and all physical cores */
    int reps;                /* 0: the question's */
    int quick, quiet;        /* flags */
    int virtual_only;        /* ssd: 1 = beside virtual targets alone */
};
struct bench_question {
    const char *name, *about;
    enum status (*run)(const struct bench_options *options);
};
extern const struct bench_question bench_table[];
extern const int bench_n_questions;

/* ---- rig ---- */
enum { RIG_MAX_CPUS = 1024 };
struct bench_rig_options {
    const char *target, *isa;
    const char *device;      /* NULL: the host's cores */
    enum numeric_plan plan;  /* of a device that has several */
    const char *quant;       /* weights in this type; NULL: as they are */
    enum kv_type kv;
    int32_t context;         /* positions of the sequence */
    int32_t page_slots;      /* 0 = 64 */
    int32_t cap_rows, cap_logits;
    int threads;             /* 0 = physical cores */
    int mlock;
    uint64_t budget_bytes;   /* 0 = none */
    struct comm *comm;       /* this is rank 0 of several that hold the model; NULL: this process alone */
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *progress_user;
};
struct bench_rig {
    struct backend *backend;
    struct lane *lane;
    struct model_source *source;
    struct model *model;
    const struct model_config *config;
    struct pass_buffers *buffers;
    struct kv_store store;
    struct target *target;   /* in place of buffers and store where ranks hold the model; else NULL */
    const float *logits;     /* of the last pass */
    struct kv_view view;
    uint32_t *pages;         /* [view.n_pages] */
    int32_t *position, *slot, *seq_of_row, *logits_row; /* [cap_rows] */
    int32_t cap_rows, cap_logits, context;
    int cpus[RIG_MAX_CPUS], n_cpus, n_physical, n_threads;
    cpu_set_t affinity;      /* the caller's before it was pinned; deinit gives it back */
};
/* Loads the model on `threads` cores and takes one sequence's KV. STATUS_INVALID when the context is
 * more than the model's. After failure only bench_rig_deinit() may follow. */
enum status bench_rig_init(struct bench_rig *rig, const struct bench_rig_options *options);
void bench_rig_deinit(struct bench_rig *rig);
/* Goes on with the first n cores: weights stay. */
enum status bench_rig_use_threads(struct bench_rig *rig, int n);
/* Rows token[0..n) at positions first.. of the sequence; logits of the last n_logits rows lie in
 * rig->logits when it returns. Returns nanoseconds. */
int64_t bench_rig_pass(struct bench_rig *rig, const int32_t *token, int32_t first, int32_t n,
                       int32_t n_logits);

/* ---- pair: a target and its draft, tried for some seconds ---- */
enum { PAIR_MAX_TRIES = 6 };
struct bench_pair_options { const char *target, *draft, *isa; int threads; double seconds; };
struct bench_pair {
    struct bench_pair_try {
        int32_t k;               /* 0: plain; < 0: as many as pay */
        double tok_per_s;        /* median */
        double length;           /* tokens a round */
        double pass_cost;        /* seconds of a pass of k + 1 rows over those of a plain one */
        double draft_cost;       /* seconds of drafting a token over those of a plain pass */
    } tries[PAIR_MAX_TRIES];     /* the first is plain, the last auto */
    int n_tries;
    double accepted[8];          /* share of rounds that accept so many or more, with the largest K */
    const char *sources[4];      /* NULL beyond the last; string constants */
};
enum status bench_pair_measure(const struct bench_pair_options *options, struct bench_pair *out);

/* ---- machine ---- */
struct machine {
    char cpu[96];            /* "AMD EPYC", as the processor says */
    int n_cpus, n_physical;  /* that this process may use */
    int64_t l1d_bytes, l2_bytes, l3_bytes; /* of one cache; 0 = unknown */
    uint64_t memory_bytes, available_bytes;
    int n_nodes;             /* NUMA */
};
/* Read once, at the first call: before the calling thread is pinned to a core. */
const struct machine *machine_get(void);

#endif
