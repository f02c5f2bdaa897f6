/* ahead_thread: the draft's own thread, and what passes between it and the step thread. Nothing is locked:
 * a job is one thread's until it is posted, the other's until it has ended; tables may be read between as
 * far as they say (n_ready). The step thread never waits but where it asked for a draft. */
#include <string.h>

#include "draft/ahead_private.h"

static void say_farewell(struct ahead *ahead, const struct draft_farewell *farewells, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        grower_forget(ahead->grower, &farewells[i]);
    }
}

/* ---- the draft thread ---- */
static void run_job(struct ahead *ahead, struct ahead_job *job)
{
    say_farewell(ahead, job->farewells, job->n_farewells);
    if (job->kind == AHEAD_JOB_ROUNDS) {
        grower_run(ahead->grower, &(struct grower_call){ .rounds = job->rounds, .n_rounds = job->n_rounds,
            .tables = job->tables, .stop = &job->stop, .begin_ns = job->begin_ns,
            .grows_to_the_end = job->grows_to_the_end, .verify_rows = job->verify_rows,
            .verify_ns = job->verify_ns, .k_fallback = job->k_fallback,
            .fallback_seconds = job->fallback_seconds });
    } else if (job->kind == AHEAD_JOB_DRAFT) {
        grower_draft(ahead->grower, &(struct grower_draft_call){
            .calibration = &ahead->base.calibration[AHEAD_SOURCE_MODEL], .asks = job->asks, .n_asks = job->n_asks });
    }
}

static void *thread_main(void *arg)
{
    struct ahead *ahead = arg;
    struct lane *lane = ahead->options.grower.model.lane;
    lane_pin_caller(lane);
    for (uint64_t n_taken = 0;; n_taken++) {
        lane_idle_until(lane, &ahead->has_job);
        struct ahead_job *job = &ahead->jobs[n_taken % 2];
        atomic_store(&ahead->has_job, 0);
        if (job->kind == AHEAD_JOB_QUIT) {
            return NULL;
        }
        const int64_t begin_ns = clock_now_ns();
        run_job(ahead, job);
        job->run_ns = clock_now_ns() - begin_ns;
        job->grower = grower_report(ahead->grower);
        atomic_store(&job->is_done, 1);
        lane_wake(ahead->options.step_lane);
    }
}

/* ---- the step thread ---- */
/* What a round's job took and nobody waited for was hidden by the target's pass. */
static void count_hidden(struct ahead *ahead, struct ahead_job *job)
{
    const int64_t hidden_ns = job->run_ns - job->waited_ns;
    if (job->kind == AHEAD_JOB_ROUNDS && job->n_rounds > 0) {
        ahead->report.hidden_seconds += hidden_ns > 0 ? (double)hidden_ns * 1e-9 : 0.0;
        ahead->report.grower = job->grower;
    }
    job->run_ns = job->waited_ns = 0;
}

struct ahead_job *ahead_job_next(struct ahead *ahead, enum ahead_job_kind kind)
{
    if (atomic_load(&ahead->has_job)) {
        return NULL;
    }
    struct ahead_job *job = &ahead->jobs[ahead->n_posted % 2];
    ASSERT(atomic_load(&job->is_done));
    count_hidden(ahead, job);
    job->kind = kind;
    job->n_rounds = job->n_asks = 0;
    job->n_farewells = ahead->n_leaving;
    memcpy(job->farewells, ahead->leaving, (size_t)ahead->n_leaving * sizeof *job->farewells);
    ahead->n_leaving = 0;
    atomic_store(&job->stop, 0);
    atomic_store(&job->is_done, 0);
    return job;
}

void ahead_job_post(struct ahead *ahead, struct ahead_job *job)
{
    ASSERT(job == &ahead->jobs[ahead->n_posted % 2]);
    ahead->n_posted++;
    atomic_store(&ahead->has_job, 1);
    lane_wake(ahead->options.grower.model.lane);
}

double ahead_job_settle(struct ahead *ahead, struct ahead_job *job, bool stops)
{
    if (atomic_load(&job->is_done)) {
        return 0.0;
    }
    const int64_t begin_ns = clock_now_ns(), span_ns = timeline_begin();
    if (stops) {
        atomic_store(&job->stop, 1);
    }
    lane_idle_until(ahead->options.step_lane, &job->is_done);
    timeline_end(TIMELINE_STEP, &timeline_wait, span_ns, 0, 0);
    const int64_t waited_ns = clock_now_ns() - begin_ns;
    job->waited_ns += waited_ns;
    return (double)waited_ns * 1e-9;
}

void ahead_draft_here(struct ahead *ahead, struct draft_ask *asks, int32_t n_asks)
{
    say_farewell(ahead, ahead->leaving, ahead->n_leaving);
    ahead->n_leaving = 0;
    grower_draft(ahead->grower, &(struct grower_draft_call){
        .lane = ahead->options.step_lane, .calibration = &ahead->base.calibration[AHEAD_SOURCE_MODEL],
        .asks = asks, .n_asks = n_asks });
}

enum status ahead_thread_start(struct ahead *ahead)
{
    const int error = pthread_create(&ahead->thread, NULL, thread_main, ahead);
    if (error != 0) {
        return status_fail(STATUS_NO_MEMORY, "cannot start the draft's thread: %s", strerror(error));
    }
    ahead->has_thread = true;
    return STATUS_OK;
}

void ahead_thread_stop(struct ahead *ahead)
{
    if (ahead->has_thread) {
        for (int i = 0; i < 2; i++) {
            ahead_job_settle(ahead, &ahead->jobs[i], true);
        }
        ahead_job_post(ahead, ahead_job_next(ahead, AHEAD_JOB_QUIT));
        pthread_join(ahead->thread, NULL);
        ahead->has_thread = false;
    }
}
