/* ranks: a verb that several processes run together. Rank 0 does what the verb says; the others hold their
 * part of its model and say nothing.
 */
#include <signal.h>

#include "backend/backend.h"
#include "cli/cli.h"

static struct td_ranks *group;
static int32_t own_rank, n_ranks = 1;

static int runs_on_ranks(enum conf_verb verb)
{
    return verb == VERB_RUN || verb == VERB_BATCH || verb == VERB_CHAT || verb == VERB_LOGITS ||
           verb == VERB_SERVE;
}

enum status ranks_begin(const struct conf *conf, int *follows)
{
    *follows = 0;
    if (!runs_on_ranks(conf->verb)) {
        return STATUS_OK;
    }
    TRY(engine_failed(td_ranks_join(&group, &own_rank, &n_ranks)));
    *follows = own_rank > 0;
    return STATUS_OK;
}

/* What rank 0 says goes; only cores, memory and instruction set are this process's own. */
enum status ranks_follow_verb(const struct conf *conf)
{
    struct td_engine_options options;
    signal(SIGINT, SIG_IGN); /* rank 0 is asked to end, and tells us */
    signal(SIGTERM, SIG_IGN);
    td_engine_options_init(&options);
    options.ranks = group;
    options.target = "as rank 0 says";
    options.target_device = conf->verb == VERB_LOGITS ? NULL : conf_text(conf, OPT_TARGET_DEVICE);
    options.isa = conf_text(conf, OPT_ISA);
    options.threads = (int32_t)conf_int(conf, OPT_THREADS);
    options.memory_bytes = (uint64_t)conf_int(conf, OPT_MEMORY);
    options.mlock = conf_flag(conf, OPT_MLOCK);
    return engine_failed(td_engine_follow(&options));
}

void ranks_end(void)
{
    td_ranks_leave(group);
    group = NULL;
}

struct td_ranks *ranks_group(void) { return n_ranks > 1 ? group : NULL; }
int ranks_is_first(void) { return comm_launched_rank() == 0; }
