/* rpc: what a draft elsewhere adds to a step, over a Unix socket and over loopback TCP: real client, real
 * worker, and in place of its model a table that is there at once.
 *
 *     hidden    tables came while the target verified: begin, known, observe and propose of the client
 *     awaited   the outcome was there first: the same, with the way to the worker and back in it (nobody
 *               has to: --draft-wait)
 *
 * The bound is a promise and not a roof: 100 us a step.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench/measure.h"
#include "draft/draft.h"

enum { N_VOCAB = 32000, CONTEXT = 4096, MAX_BATCH = 8, K = 8, N_BRANCHES = 24, PROMPT = 200 };
static const int64_t VERIFY_NS = 1000000; /* of the pass that hides */
static const double PROMISE_US = 100;

/* ---- a worker whose tables are there at once ---- */
static void run_at_once(void *user, const struct grower_call *call)
{
    (void)user;
    for (int32_t i = 0; i < call->n_rounds; i++) {
        const struct ahead_round *round = &call->rounds[i];
        struct ahead_table *table = &call->tables[i];
        table->n_branches = N_BRANCHES;
        for (int32_t j = 0; j < N_BRANCHES; j++) {
            struct ahead_branch *branch = &table->branch[j];
            *branch = (struct ahead_branch){ .n_accepted = j % (round->n_proposed + 1), .token = 1000 + j, .rank = j };
            for (int32_t t = 0; t < DRAFT_MAX_NODES; t++) {
                branch->next[t] = t < round->k_next ? 2000 + t : -1;
                branch->hint[t] = 0.5f;
            }
        }
        atomic_store_explicit(&table->n_ready, round->k_next, memory_order_release);
    }
}

static void forget_nothing(void *user, const struct draft_farewell *farewell) { (void)user, (void)farewell; }

static void *serve(void *worker)
{
    (void)draft_worker_serve(worker, NULL);
    return NULL;
}

static enum status open_worker(const char *address, struct draft_worker **out)
{
    return draft_worker_open(&(struct draft_worker_options){ .listen = address, .name = "table", .n_vocab = N_VOCAB,
        .context = CONTEXT, .max_batch = MAX_BATCH, .k_max = K, .max_budget = N_BRANCHES,
        .grower = { .run = run_at_once, .forget = forget_nothing } }, out);
}

/* ---- the step thread's side ---- */
struct stepper {
    struct draft *draft;
    struct draft_ask asks[MAX_BATCH];
    int32_t tokens[MAX_BATCH][CONTEXT + DRAFT_MAX_NODES];
    int32_t batch;
    int64_t verify_ns;
};

static void begin_texts(struct stepper *stepper, const struct sampling_params *params)
{
    static uint64_t n_texts;
    for (int32_t i = 0; i < stepper->batch; i++) {
        for (int32_t t = 0; t < PROMPT; t++) {
            stepper->tokens[i][t] = (i * 977 + t * 31) % N_VOCAB;
        }
        stepper->asks[i] = (struct draft_ask){ .place = i, .seq_id = ++n_texts, .tokens = stepper->tokens[i],
            .n_tokens = PROMPT, .n_prompt = PROMPT, .params = params, .k_max = K, .n_nodes_max = K };
    }
}

static void sleep_until(int64_t end_ns)
{
    const int64_t ns = end_ns - clock_now_ns();
    const struct timespec left = { .tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000 };
    if (ns > 0) {
        (void)nanosleep(&left, NULL);
    }
}

/* Half of each proposal is accepted, and then comes a token that was prepared for. */
static void accept_half(struct stepper *stepper)
{
    static const int8_t path[] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    for (int32_t i = 0; i < stepper->batch; i++) {
        struct draft_ask *ask = &stepper->asks[i];
        const int32_t k = ask->proposal.n / 2;
        const struct draft_verdict verdict = { .ask = ask, .n_accepted = k, .path = path,
                                               .recovery_token = 1000 + k };
        stepper->draft->kind->observe(stepper->draft, &verdict, 1);
        memcpy(ask->tokens + ask->n_tokens, ask->proposal.token, (size_t)k * sizeof *ask->tokens);
        ask->n_tokens += k + 1;
        ask->tokens[ask->n_tokens - 1] = 1000 + k;
    }
}

/* Nanoseconds that the draft took of a step. */
static int64_t step(struct stepper *stepper)
{
    const struct draft_kind *kind = stepper->draft->kind;
    const int64_t begin_ns = clock_now_ns();
    kind->propose(stepper->draft, stepper->asks, stepper->batch);
    kind->begin(stepper->draft, stepper->asks, stepper->batch);
    const int64_t begun_ns = clock_now_ns();
    sleep_until(begun_ns + stepper->verify_ns);
    const int64_t known_ns = clock_now_ns();
    kind->known(stepper->draft);
    accept_half(stepper);
    return begun_ns - begin_ns + clock_now_ns() - known_ns;
}

static void sample(struct stepper *stepper, int n, struct samples *out)
{
    struct sampling_params params;
    sampling_params_defaults(&params);
    begin_texts(stepper, &params);
    for (int i = 0; i < n; i++) {
        const int64_t ns = step(stepper);
        if (i >= 8) { /* the first ones open the sequences */
            samples_add(out, (double)ns * 1e-3);
        }
        if (stepper->asks[0].n_tokens > CONTEXT - 2 * DRAFT_MAX_NODES) {
            begin_texts(stepper, &params);
        }
    }
}

/* ---- cases ---- */
static enum status measure(const struct bench_options *options, struct draft_worker *worker, const char *transport,
                           int32_t batch)
{
    static struct stepper stepper;
    enum status status = STATUS_OK;
    TRY(draft_remote_create(&(struct draft_remote_options){ .address = draft_worker_address(worker), .wait_ns = 20000000,
        .common = { .n_vocab = N_VOCAB, .context = CONTEXT, .max_batch = MAX_BATCH, .k_max = K } }, &stepper.draft));
    stepper.batch = batch;
    for (int is_hidden = 1; is_hidden >= 0 && status == STATUS_OK; is_hidden--) {
        struct samples costs = {0};
        const struct draft_remote_report before = draft_remote_report(stepper.draft);
        stepper.verify_ns = is_hidden ? VERIFY_NS : 0;
        sample(&stepper, options->quick ? 100 : 1000, &costs);
        const struct draft_remote_report after = draft_remote_report(stepper.draft);
        const double sent = (double)(after.sent - before.sent);
        status = line_write(options, &(struct line){
            .bench = "rpc", .unit = "us", .better = LOWER, .values = &costs, .bound = PROMISE_US, .isa = "none",
            .which = json_pack("{s:s,s:i,s:s,s:f,s:f,s:f}", "transport", transport, "batch", (int)batch, "table",
                               is_hidden ? "hidden" : "awaited", "hits", (double)(after.hits - before.hits) / sent,
                               "bytes_out", (double)(after.bytes_out - before.bytes_out) / sent, "bytes_in",
                               (double)(after.bytes_in - before.bytes_in) / sent) });
    }
    stepper.draft->kind->destroy(stepper.draft);
    return status;
}

static enum status measure_transport(const struct bench_options *options, const char *transport, const char *address)
{
    struct draft_worker *worker;
    pthread_t thread;
    TRY(open_worker(address, &worker));
    if (pthread_create(&thread, NULL, serve, worker) != 0) {
        draft_worker_close(worker);
        return status_fail(STATUS_NO_MEMORY, "cannot start a thread for the draft worker");
    }
    enum status status = measure(options, worker, transport, 1);
    if (status == STATUS_OK) {
        status = measure(options, worker, transport, MAX_BATCH);
    }
    draft_worker_stop(worker);
    pthread_join(thread, NULL);
    draft_worker_close(worker);
    return status;
}

enum status bench_rpc(const struct bench_options *options)
{
    char address[64];
    snprintf(address, sizeof address, "unix:/tmp/tandem-bench-%d", (int)getpid());
    log_set_level(LOG_WARN);
    TRY(measure_transport(options, "unix", address));
    return measure_transport(options, "tcp", "tcp:0");
}
