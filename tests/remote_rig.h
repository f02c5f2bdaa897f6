/* remote_rig: a draft worker in a thread or a process of its own, with a table in place of a model: it
 * knows what the simulated target (sim.h) will say, and so may be right whenever it likes. */
#ifndef TESTS_REMOTE_RIG_H
#define TESTS_REMOTE_RIG_H

#include <sys/types.h>

#include "draft/draft.h"

struct oracle_options {
    int32_t n_candidates;   /* recovery tokens prepared after each number of accepted ones; the right one is
                             * the first of them */
    int32_t step_us;        /* a step of growing takes */
    int32_t lies;           /* of 100 branches, so many hold anything at all */
    uint64_t seed;
};
struct remote_rig;
/* address NULL: a path of its own. key_file, and the number of places: as draft_worker_options. */
struct remote_rig_options {
    struct oracle_options oracle;
    const char *address, *key_file;
    int32_t max_batch, max_targets, context, k_max; /* 0: 8, 4, 8192, 8 */
    uint64_t vocab_digest;
    int32_t n_vocab;        /* 0: the sim's */
};
void remote_rig_open(const struct remote_rig_options *options, struct remote_rig **out);
void remote_rig_close(struct remote_rig *rig); /* stops the worker */
const char *remote_rig_address(const struct remote_rig *rig);
struct draft_worker_report remote_rig_report(struct remote_rig *rig);
/* The same in a process of its own; returns its id. The address must be given. */
pid_t remote_rig_fork(const struct remote_rig_options *options);

/* A client of it; wait_us as draft_remote_options. Asserts. */
struct draft *remote_rig_draft(const char *address, int32_t max_batch, int32_t k_max, int64_t wait_us);

#endif
