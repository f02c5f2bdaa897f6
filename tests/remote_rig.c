#include "tests/remote_rig.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim.h"

enum { CONTEXT = 8192 };

struct remote_rig {
    struct remote_rig_options options;
    struct draft_worker *worker;
    pthread_t thread;
    char address[128];
    /* ---- the oracle's: growing thread ---- */
    struct sim *sim;
    struct backend *backend;
    struct sampling_scratch *scratch;
    uint64_t state;
    int32_t tokens[CONTEXT + 4 * DRAFT_MAX_NODES];
};

/* ---- the oracle ---- */
static int32_t choose(struct remote_rig *rig, const struct sampling_params *params, int32_t n)
{
    float logits[SIM_VOCAB];
    struct sampling_choice choice;
    sim_logits(rig->sim, rig->tokens, n, logits);
    return sampling_choose(rig->backend, params, logits, SIM_VOCAB, rig->tokens, n, n, rig->scratch, &choice) ==
                   STATUS_OK ? choice.id : 0;
}

static int32_t draw(struct remote_rig *rig, int32_t n)
{
    rig->state = rng_mix64(rig->state + 1);
    return (int32_t)(rig->state % (uint64_t)n);
}

static void lie(struct remote_rig *rig, struct ahead_branch *branch)
{
    branch->token = draw(rig, 3 * SIM_VOCAB);
    branch->n_accepted = draw(rig, branch->n_accepted + 1);
    for (int32_t i = 0; i < DRAFT_MAX_NODES; i++) {
        branch->next[i] = draw(rig, 8) == 0 ? SIM_VOCAB + draw(rig, 1000) : draw(rig, SIM_VOCAB);
    }
}

/* tokens[0..n) end with the k accepted ones. */
static void fill_branch(struct remote_rig *rig, const struct ahead_round *round, int32_t k, int32_t rank,
                        struct ahead_branch *branch)
{
    int32_t n = round->n_tokens + k;
    const int32_t right = choose(rig, round->params, n);
    *branch = (struct ahead_branch){ .n_accepted = k, .token = (right + rank) % SIM_VOCAB, .rank = rank };
    rig->tokens[n++] = branch->token;
    for (int32_t i = 0; i < DRAFT_MAX_NODES; i++) {
        branch->next[i] = i < round->k_next ? choose(rig, round->params, n) : -1;
        branch->hint[i] = 0.9f;
        rig->tokens[n++] = branch->next[i];
    }
    if (draw(rig, 100) < rig->options.oracle.lies) {
        lie(rig, branch);
    }
}

static void fork_round(struct remote_rig *rig, const struct ahead_round *round, struct ahead_table *table)
{
    const int32_t n_all = round->n_tokens + round->n_proposed;
    table->n_branches = 0;
    for (int32_t k = 0; k <= round->n_proposed; k++) {
        for (int32_t rank = 0; rank < rig->options.oracle.n_candidates && table->n_branches < 32; rank++) {
            memcpy(rig->tokens, round->tokens, (size_t)n_all * sizeof *rig->tokens);
            fill_branch(rig, round, k, rank, &table->branch[table->n_branches++]);
        }
    }
    atomic_store_explicit(&table->n_ready, 0, memory_order_release);
}

static void oracle_run(void *user, const struct grower_call *call)
{
    struct remote_rig *rig = user;
    for (int32_t i = 0; i < call->n_rounds && !atomic_load(call->stop); i++) {
        fork_round(rig, &call->rounds[i], &call->tables[i]);
    }
    for (int32_t step = 0; step < DRAFT_MAX_NODES && !atomic_load(call->stop); step++) {
        if (rig->options.oracle.step_us > 0) {
            usleep((useconds_t)rig->options.oracle.step_us);
        }
        for (int32_t i = 0; i < call->n_rounds; i++) {
            if (step < call->rounds[i].k_next && atomic_load(&call->tables[i].n_ready) == step) {
                atomic_store_explicit(&call->tables[i].n_ready, step + 1, memory_order_release);
            }
        }
    }
}

static void oracle_forget(void *user, const struct draft_farewell *farewell) { (void)user, (void)farewell; }

/* ---- the worker ---- */
static void *serve(void *arg)
{
    struct remote_rig *rig = arg;
    ASSERT(draft_worker_serve(rig->worker, NULL) == STATUS_OK);
    return NULL;
}

static int32_t or_else(int32_t value, int32_t otherwise) { return value != 0 ? value : otherwise; }

static struct remote_rig *make(const struct remote_rig_options *options)
{
    static int n_made;
    struct remote_rig *rig = mem_alloc(1, sizeof *rig);
    ASSERT(rig != NULL);
    rig->options = *options;
    rig->state = options->oracle.seed;
    if (options->address != NULL) {
        snprintf(rig->address, sizeof rig->address, "%s", options->address);
    } else {
        snprintf(rig->address, sizeof rig->address, "unix:/tmp/tandem-rig-%d-%d", (int)getpid(), n_made++);
    }
    const struct sim_options sim = sim_defaults();
    rig->sim = sim_open(&sim);
    ASSERT(backend_create("cpu", NULL, &rig->backend) == STATUS_OK);
    ASSERT(sampling_scratch_create(SIM_VOCAB, &rig->scratch) == STATUS_OK);
    const enum status status = draft_worker_open(&(struct draft_worker_options){
        .listen = rig->address, .key_file = options->key_file, .name = "oracle", .fingerprint = 0xd0,
        .vocab_digest = options->vocab_digest, .n_vocab = or_else(options->n_vocab, SIM_VOCAB),
        .context = or_else(options->context, CONTEXT), .max_batch = or_else(options->max_batch, 8),
        .max_targets = or_else(options->max_targets, 4), .k_max = or_else(options->k_max, 8), .max_budget = 32,
        .grower = { .user = rig, .run = oracle_run, .forget = oracle_forget } }, &rig->worker);
    if (status != STATUS_OK) {
        fprintf(stderr, "%s\n", status_message());
    }
    ASSERT(status == STATUS_OK);
    snprintf(rig->address, sizeof rig->address, "%s", draft_worker_address(rig->worker));
    return rig;
}

void remote_rig_open(const struct remote_rig_options *options, struct remote_rig **out)
{
    *out = make(options);
    ASSERT(pthread_create(&(*out)->thread, NULL, serve, *out) == 0);
}

void remote_rig_close(struct remote_rig *rig)
{
    draft_worker_stop(rig->worker);
    pthread_join(rig->thread, NULL);
    draft_worker_close(rig->worker);
    sampling_scratch_destroy(rig->scratch);
    sim_close(rig->sim);
    backend_destroy(rig->backend);
    mem_free(rig);
}

const char *remote_rig_address(const struct remote_rig *rig) { return rig->address; }
struct draft_worker_report remote_rig_report(struct remote_rig *rig) { return draft_worker_report(rig->worker); }

pid_t remote_rig_fork(const struct remote_rig_options *options)
{
    const pid_t child = fork();
    ASSERT(child >= 0);
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* it never outlives a test that failed */
        struct remote_rig *rig = make(options);
        (void)draft_worker_serve(rig->worker, NULL); /* until it is killed */
        _exit(0);
    }
    return child;
}

struct draft *remote_rig_draft(const char *address, int32_t max_batch, int32_t k_max, int64_t wait_us)
{
    struct draft *draft;
    ASSERT(draft_remote_create(&(struct draft_remote_options){
        .common = { .n_vocab = SIM_VOCAB, .context = 128, .max_batch = max_batch, .k_max = k_max },
        .address = address, .name = "sim", .fingerprint = 0x7a, .wait_ns = wait_us < 0 ? -1 : wait_us * 1000,
        .has_lookup = true }, &draft) == STATUS_OK);
    return draft;
}
