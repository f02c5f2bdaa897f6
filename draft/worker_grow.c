/* worker_grow: rounds that wait become a job, a job becomes tables, tables go to whom they belong.
 *
 * A job stops at its next pass when one target has all its outcomes: what it has grown by then is all
 * that target will use. The rounds of others are sent what there is, and go on in the next job; that one
 * is theirs to the end, so that a quick target does not starve a slow one.
 */
#include <string.h>
#include <unistd.h>

#include "draft/worker_private.h"

enum { MAX_JOBS = 256 }; /* that a round without any branch may be part of: for a prompt, a chunk each */

/* ---- the growing thread ---- */
static void *grow_main(void *arg)
{
    struct draft_worker *worker = arg;
    struct worker_job *job = &worker->job;
    const struct worker_grower *grower = &worker->options.grower;
    pthread_mutex_lock(&worker->mutex);
    for (;;) {
        while (!worker->has_job && !worker->is_ending) {
            pthread_cond_wait(&worker->cond, &worker->mutex);
        }
        if (worker->is_ending) {
            break;
        }
        worker->has_job = false;
        pthread_mutex_unlock(&worker->mutex);
        grower->run(grower->user, &(struct grower_call){ .rounds = job->rounds, .n_rounds = job->n,
            .tables = job->tables, .stop = &job->stop, .begin_ns = job->begin_ns,
            .verify_rows = job->verify_rows, .verify_ns = job->verify_ns });
        atomic_store(&worker->is_done, 1);
        const uint64_t one = 1;
        (void)(write(worker->wake_fd, &one, sizeof one) == 0);
        pthread_mutex_lock(&worker->mutex);
    }
    pthread_mutex_unlock(&worker->mutex);
    return NULL;
}

enum status worker_grow_start(struct draft_worker *worker)
{
    const int error = pthread_create(&worker->thread, NULL, grow_main, worker);
    if (error != 0) {
        return status_fail(STATUS_NO_MEMORY, "cannot start a draft worker's thread: %s", strerror(error));
    }
    worker->has_thread = true;
    return STATUS_OK;
}

void worker_grow_end(struct draft_worker *worker)
{
    if (!worker->has_thread) {
        return;
    }
    atomic_store(&worker->job.stop, 1);
    pthread_mutex_lock(&worker->mutex);
    worker->is_ending = true;
    pthread_cond_signal(&worker->cond);
    pthread_mutex_unlock(&worker->mutex);
    pthread_join(worker->thread, NULL);
    worker->has_thread = false;
}

/* ---- stopping ---- */
/* Of one target's rounds in the job, all have their outcome or left; it has some. */
static bool is_target_done(const struct worker_job *job, const struct worker_target *target)
{
    for (int32_t i = 0; i < job->n; i++) {
        const struct worker_place *place = job->places[i];
        if (place->target == target && !place->is_leaving && !place->has_outcome) {
            return false;
        }
    }
    return true;
}

void worker_grow_consider_stop(struct draft_worker *worker)
{
    const struct worker_job *job = &worker->job;
    bool is_done = false;
    if (!worker->is_running) {
        return;
    }
    for (int32_t i = 0; i < job->n; i++) {
        const struct worker_place *place = job->places[i];
        const bool is_over = place->is_leaving || place->has_outcome;
        if (!is_over && place->n_interrupted > 0) {
            return;
        }
        is_done |= is_over && (place->target == NULL || is_target_done(job, place->target));
    }
    if (is_done) {
        atomic_store(&worker->job.stop, 1);
    }
}

/* ---- tables ---- */
static void put_branch(struct rpc_table *out, const struct ahead_table *table, const struct ahead_branch *branch)
{
    struct rpc_branch *to = &out->branch[out->n_branches++];
    *to = (struct rpc_branch){ .n_accepted = branch->n_accepted, .token = branch->token, .rank = branch->rank,
                               .n = ahead_branch_n(table, branch) };
    for (int32_t i = 0; i < to->n; i++) {
        const float hint = branch->hint[i] > 0 ? branch->hint[i] < 1 ? branch->hint[i] : 1.0f : 0.0f;
        to->next[i] = branch->next[i];
        to->hint[i] = (uint8_t)(hint * 255.0f + 0.5f);
    }
}

static struct rpc_table *begin_table(struct draft_worker *worker, const struct worker_place *place)
{
    struct rpc_table *out = &worker->message->table;
    worker->message->type = RPC_TABLE;
    worker->message->id = 0;
    out->sequence = place->sequence;
    out->n_tokens = place->n_tokens;
    out->n_proposed = place->n_proposed;
    out->n_branches = 0;
    return out;
}

static void push_table(struct draft_worker *worker, struct worker_place *place)
{
    struct worker_target *target = place->target;
    target->n_tables++;
    pthread_mutex_lock(&worker->mutex);
    worker->report.tables++;
    pthread_mutex_unlock(&worker->mutex);
    worker_send(worker, target);
}

static int32_t n_standing(const struct ahead_table *table)
{
    const int32_t n_ready = atomic_load_explicit(&table->n_ready, memory_order_acquire);
    ASSERT(table->n_branches <= FANOUT_MAX_BUDGET || n_ready < 0);
    return n_ready >= 0 ? table->n_branches : 0;
}

/* Its own branch alone, as far as it is grown: that, and now, is what the target can use. */
void worker_grow_answer(struct draft_worker *worker, struct worker_place *place)
{
    struct rpc_table *out = begin_table(worker, place);
    const struct ahead_branch *branch = place->round == WORKER_ROUND_RUNNING
                                            ? ahead_table_find(place->table, place->outcome) : NULL;
    if (branch != NULL) {
        put_branch(out, place->table, branch);
    }
    place->was_answered = true;
    push_table(worker, place);
}

static void push_all_branches(struct draft_worker *worker, struct worker_place *place)
{
    struct rpc_table *out = begin_table(worker, place);
    const int32_t n = n_standing(place->table);
    for (int32_t i = 0; i < n; i++) {
        put_branch(out, place->table, &place->table->branch[i]);
    }
    push_table(worker, place);
}

/* A round comes back from a job. Without an outcome it may go on: others' outcomes stopped it, or it has
 * still to be told a long text. */
static void take_round(struct draft_worker *worker, struct worker_place *place, bool was_stopped)
{
    const int32_t n_ready = atomic_load(&place->table->n_ready);
    const bool is_cut = was_stopped && n_ready < place->k_next;
    const bool goes_on = !place->has_outcome && (is_cut || (n_ready < 0 && place->n_jobs < MAX_JOBS));
    place->round = goes_on ? WORKER_ROUND_WAITING : WORKER_ROUND_NONE;
    place->n_interrupted += goes_on && is_cut;
    if (!place->was_answered && (n_ready >= 0 || !goes_on)) {
        push_all_branches(worker, place);
    }
}

static void take_job(struct draft_worker *worker)
{
    struct worker_job *job = &worker->job;
    const bool was_stopped = atomic_load(&job->stop) != 0;
    pthread_mutex_lock(&worker->mutex);
    worker->is_running = false;
    worker->report.stopped_batches += was_stopped;
    pthread_mutex_unlock(&worker->mutex);
    atomic_store(&worker->is_done, 0);
    for (int32_t i = 0; i < job->n; i++) {
        struct worker_place *place = job->places[i];
        place->round = WORKER_ROUND_NONE;
        if (!place->is_leaving) {
            take_round(worker, place, was_stopped); /* may end the target, and with it places to come */
        }
    }
}

/* ---- jobs ---- */
static void forget_leaving(struct draft_worker *worker)
{
    const struct worker_grower *grower = &worker->options.grower;
    for (int32_t i = 0; i < worker->options.max_batch; i++) {
        struct worker_place *place = &worker->places[i];
        if (place->is_leaving) {
            grower->forget(grower->user, &(struct draft_farewell){ .place = i, .seq_id = place->seq_id,
                .tokens = place->tokens, .n_tokens = place->n_tokens, .tenant = place->tenant,
                .is_finished = true });
            place->is_leaving = false;
            place->round = WORKER_ROUND_NONE;
        }
    }
}

static void add_round(struct draft_worker *worker, int32_t idx)
{
    struct worker_job *job = &worker->job;
    struct worker_place *place = &worker->places[idx];
    struct ahead_table *table = &job->tables[job->n];
    job->rounds[job->n] = (struct ahead_round){ .place = idx, .seq_id = place->seq_id, .tokens = place->tokens,
        .n_tokens = place->n_tokens, .n_prompt = place->n_prompt, .n_proposed = place->n_proposed,
        .k_next = place->k_next, .params = &place->params, .tenant = place->tenant,
        .after_miss = place->after_miss };
    table->place = idx;
    table->seq_id = place->seq_id;
    table->epoch = 0;
    table->n_tokens = place->n_tokens;
    table->n_proposed = place->n_proposed;
    memcpy(table->proposed, place->tokens + place->n_tokens, (size_t)place->n_proposed * sizeof *table->proposed);
    atomic_store(&table->n_ready, -1);
    job->places[job->n++] = place;
    place->table = table;
    place->n_jobs++;
    place->round = WORKER_ROUND_RUNNING;
}

/* How long the outcome may take is known of one target; the passes of several are not alike, and a job for
 * them is stopped when it is. The place's last word came when the target's pass began. */
static void set_times(struct draft_worker *worker)
{
    struct worker_job *job = &worker->job;
    const struct worker_place *place = job->places[0];
    const bool is_known = worker->report.n_connected == 1 && place->n_jobs == 1;
    job->begin_ns = is_known ? place->used_ns : 0;
    job->verify_rows = is_known ? place->verify_rows : 0;
    job->verify_ns = is_known ? (int64_t)place->verify_us * 1000 : 0;
}

/* Rounds whose outcome came before they were begun were answered then. */
static void gather_rounds(struct draft_worker *worker, int32_t *n_targets)
{
    const struct worker_target *first = NULL;
    worker->job.n = *n_targets = 0;
    for (int32_t i = 0; i < worker->options.max_batch; i++) {
        struct worker_place *place = &worker->places[i];
        if (place->target == NULL || place->round != WORKER_ROUND_WAITING) {
            continue;
        }
        if (place->has_outcome) {
            place->round = WORKER_ROUND_NONE;
            continue;
        }
        first = first == NULL ? place->target : first;
        *n_targets = *n_targets == 0 ? 1 : place->target != first ? 2 : *n_targets;
        add_round(worker, i);
    }
}

static void start_job(struct draft_worker *worker)
{
    int32_t n_targets;
    gather_rounds(worker, &n_targets);
    if (worker->job.n == 0) {
        return;
    }
    set_times(worker);
    atomic_store(&worker->job.stop, 0);
    pthread_mutex_lock(&worker->mutex);
    worker->is_running = worker->has_job = true;
    worker->report.batches++;
    worker->report.shared_batches += n_targets > 1;
    pthread_cond_signal(&worker->cond);
    pthread_mutex_unlock(&worker->mutex);
}

void worker_grow_take(struct draft_worker *worker)
{
    if (worker->is_running && atomic_load(&worker->is_done)) {
        take_job(worker);
    }
    if (!worker->is_running) {
        forget_leaving(worker);
    }
}

void worker_grow_go(struct draft_worker *worker)
{
    if (!worker->is_running) {
        forget_leaving(worker);
        start_job(worker);
    }
}

/* ---- a grower ---- */
static void run_grower(void *user, const struct grower_call *call) { grower_run(user, call); }
static void forget_in_grower(void *user, const struct draft_farewell *farewell) { grower_forget(user, farewell); }

struct worker_grower worker_grower_of(struct grower *grower)
{
    return (struct worker_grower){ .user = grower, .run = run_grower, .forget = forget_in_grower };
}
