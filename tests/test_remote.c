/* A draft elsewhere, against the real scheduler and a real worker over real sockets: whatever the worker
 * or the wire does, each text is what it would be alone (sim_compare). The worker's model is a table that
 * knows the target's mind, so that hits are as many as a test wants. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/draft_rig.h"
#include "tests/remote_rig.h"
#include "tests/rpc_proxy.h"
#include "tests/sim.h"

enum { K = 4, PATIENT_US = 500000 };

static const struct oracle_options good_oracle = { .n_candidates = 2, .seed = 1 };

static struct sim *open_sim(struct draft *draft, int32_t max_batch)
{
    struct sim_options options = sim_defaults();
    options.draft = draft;
    options.k_max = K;
    options.max_batch = max_batch;
    return sim_open(&options);
}

/* Some greedy, some drawn, some with a history. */
static void submit(struct sim *sim, int32_t n, int64_t max_tokens)
{
    for (int32_t i = 0; i < n; i++) {
        struct sim_spec spec = sim_spec((uint64_t)i + 1, 3 + 7 * i % 30, max_tokens);
        spec.temperature = i % 3 == 0 ? 0 : 0.8f;
        spec.repetition_penalty = i % 4 == 3 ? 1.3f : 1;
        spec.bias = i % 5 == 4 ? 2.0f : 0;
        sim_submit(sim, &spec);
    }
}

/* The target's pass takes until the worker has prepared all it was asked for. */
struct slow_target { struct remote_rig *rig; struct draft *draft; };

static void wait_for_tables(void *user)
{
    struct slow_target *slow = user;
    for (int i = 0; i < 5000 && remote_rig_report(slow->rig).tables < draft_remote_report(slow->draft).sent; i++) {
        usleep(100);
    }
}

static void take_a_while(void *user)
{
    (void)user;
    usleep(3000);
}

static void assert_fine(const char *wrong)
{
    if (wrong != NULL) {
        fail_msg("%s", wrong);
    }
}

static void run_and_compare(struct sim *sim)
{
    assert_fine(sim_run(sim));
    assert_fine(sim_compare(sim));
    assert_fine(sim_is_empty(sim));
}

static void destroy(struct draft *draft) { draft->kind->destroy(draft); }

static struct draft_remote_report run_with(const struct oracle_options *oracle, int64_t wait_us, int32_t n,
                                           int32_t max_batch)
{
    struct remote_rig *rig;
    remote_rig_open(&(struct remote_rig_options){ .oracle = *oracle }, &rig);
    struct draft *draft = remote_rig_draft(remote_rig_address(rig), max_batch, K, wait_us);
    struct sim *sim = open_sim(draft, max_batch);
    sim_on_pass(sim, wait_for_tables, &(struct slow_target){ rig, draft });
    submit(sim, n, 60);
    run_and_compare(sim);
    const struct draft_remote_report report = draft_remote_report(draft);
    sim_close(sim);
    destroy(draft);
    remote_rig_close(rig);
    return report;
}

/* ---- what is prepared is served ---- */
static void what_was_prepared_is_proposed(void **state)
{
    (void)state;
    const struct draft_remote_report report = run_with(&good_oracle, PATIENT_US, 9, 4);
    assert_true(report.is_linked);
    assert_int_equal(report.links, 1);
    assert_int_equal(report.unprepared, 9); /* the first round of each */
    assert_int_equal(report.misses, 0);     /* the right outcome is always among those prepared */
    assert_int_equal(report.hits, report.rounds - report.unanswered);
    assert_true(report.hits > 80);
    assert_true(report.unanswered <= 2); /* half a second each: a machine that is busy indeed */
    assert_true(report.tokens_served >= report.hits * (K - 1));
    assert_true(report.dropped <= 9 + report.unanswered); /* the last one of each comes when its text has ended */
}

/* With a right proposal each round, a pass brings K + 1 tokens. */
static void hits_save_passes(void **state)
{
    (void)state;
    struct remote_rig *rig;
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle }, &rig);
    struct draft *draft = remote_rig_draft(remote_rig_address(rig), 1, K, PATIENT_US);
    struct sim *sim = open_sim(draft, 1);
    sim_on_pass(sim, wait_for_tables, &(struct slow_target){ rig, draft });
    submit(sim, 1, 100);
    run_and_compare(sim);
    assert_true(scheduler_stats(sim_scheduler(sim)).target_passes <= 1 + 4 + 100 / (K + 1));
    sim_close(sim);
    destroy(draft);
    remote_rig_close(rig);
}

static void misses_are_the_fallbacks(void **state)
{
    (void)state;
    const struct oracle_options nothing = { .n_candidates = 0 };
    const struct draft_remote_report report = run_with(&nothing, PATIENT_US, 6, 3);
    assert_int_equal(report.hits, 0);
    assert_true(report.misses > 30);
}

static void nobody_waits_for_nothing(void **state)
{
    (void)state;
    const struct oracle_options slow = { .n_candidates = 1, .step_us = 3000 };
    const struct draft_remote_report report = run_with(&slow, 0, 6, 3);
    assert_true(report.waited_seconds == 0);
    const struct draft_remote_report measured = run_with(&slow, -1, 6, 3);
    assert_int_equal(measured.hits + measured.misses + measured.unanswered, measured.rounds);
    assert_true(measured.waited_seconds <= 0.03 * (double)measured.rounds);
}

static void lies_cost_speed_alone(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        const struct oracle_options liar = { .n_candidates = 2, .lies = 60, .seed = seed };
        const struct draft_remote_report report = run_with(&liar, PATIENT_US, 8, 4);
        assert_true(report.dropped > 0); /* ids that are none */
        assert_true(report.hits > 0);
    }
}

static void steps_take_no_memory(void **state)
{
    (void)state;
    struct remote_rig *rig;
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle }, &rig);
    struct draft *draft = remote_rig_draft(remote_rig_address(rig), 4, K, PATIENT_US);
    struct sim *sim = open_sim(draft, 4);
    sim_on_pass(sim, wait_for_tables, &(struct slow_target){ rig, draft });
    submit(sim, 6, 50);
    const uint64_t before = mem_alloc_count();
    assert_fine(sim_run(sim));
    assert_int_equal(mem_alloc_count(), before); /* of both ends */
    assert_fine(sim_compare(sim));
    sim_close(sim);
    destroy(draft);
    remote_rig_close(rig);
}

/* ---- epochs, cancels, places ---- */
static void preempted_and_cancelled(void **state)
{
    (void)state;
    struct remote_rig *rig;
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle }, &rig);
    struct draft *draft = remote_rig_draft(remote_rig_address(rig), 3, K, PATIENT_US);
    struct sim *sim = open_sim(draft, 3);
    sim_on_pass(sim, take_a_while, NULL);
    submit(sim, 9, 60);
    for (int step = 0; scheduler_is_busy(sim_scheduler(sim)); step++) {
        assert_fine(sim_step(sim));
        if (step % 7 == 3) {
            (void)scheduler_preempt_last(sim_scheduler(sim));
        }
        if (step == 20) {
            sim_cancel(sim, 4);
        }
    }
    assert_fine(sim_compare(sim));
    assert_true(scheduler_stats(sim_scheduler(sim)).preemptions > 3);
    const struct draft_remote_report report = draft_remote_report(draft);
    assert_true(report.hits > 40);
    sim_close(sim);
    destroy(draft);
    remote_rig_close(rig);
}

/* Fewer places at the worker than sequences here: some go without, and all texts are right. */
static void a_small_worker_serves_whom_it_can(void **state)
{
    (void)state;
    struct remote_rig *rig;
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle, .max_batch = 2 }, &rig);
    struct draft *draft = remote_rig_draft(remote_rig_address(rig), 4, K, PATIENT_US);
    struct sim *sim = open_sim(draft, 4);
    sim_on_pass(sim, take_a_while, NULL);
    submit(sim, 12, 60);
    run_and_compare(sim);
    const struct draft_remote_report report = draft_remote_report(draft);
    assert_true(report.hits > 0 && report.unprepared > 12);
    assert_true(remote_rig_report(rig).n_places_taken <= 2);
    sim_close(sim);
    destroy(draft);
    remote_rig_close(rig);
}

/* More tokens than a message holds, and a context that the worker does not have. */
static void long_texts_come_in_pieces(void **state)
{
    (void)state;
    enum { N = 3 * RPC_MAX_TOKENS + 5 };
    struct remote_rig *rig;
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle }, &rig);
    struct draft *draft = remote_rig_draft(remote_rig_address(rig), 1, K, PATIENT_US);
    struct sampling_params params;
    sampling_params_defaults(&params);
    static int32_t tokens[9000];
    for (int32_t i = 0; i < 9000; i++) {
        tokens[i] = (int32_t)(rng_mix64((uint64_t)i) % SIM_VOCAB);
    }
    struct draft_ask ask = { .seq_id = 5, .tokens = tokens, .n_tokens = N, .n_prompt = N, .params = &params,
                             .k_max = K, .n_nodes_max = K };
    draft->kind->propose(draft, &ask, 1);
    ask.proposal.n = 0;
    draft->kind->begin(draft, &ask, 1);
    wait_for_tables(&(struct slow_target){ rig, draft });
    struct sim *sim = open_sim(NULL, 1);
    float logits[SIM_VOCAB];
    sim_logits(sim, tokens, N, logits);
    int32_t best = 0;
    for (int32_t i = 1; i < SIM_VOCAB; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    tokens[ask.n_tokens++] = best;
    draft->kind->propose(draft, &ask, 1);
    assert_int_equal(draft_remote_report(draft).hits, 1);
    assert_int_equal(ask.proposal.n, K);
    ask.n_tokens = 8190; /* beyond the worker's context */
    draft->kind->begin(draft, &ask, 1);
    ask.n_tokens++;
    draft->kind->propose(draft, &ask, 1);
    assert_true(draft_remote_report(draft).is_linked);
    assert_int_equal(draft_remote_report(draft).rounds, 1);
    sim_close(sim);
    destroy(draft);
    remote_rig_close(rig);
}

/* ---- several targets ---- */
static void targets_share_a_worker(void **state)
{
    (void)state;
    enum { N_TARGETS = 3 };
    const struct oracle_options slow = { .n_candidates = 2, .step_us = 300 };
    struct remote_rig *rig;
    struct draft *drafts[N_TARGETS];
    struct sim *sims[N_TARGETS];
    remote_rig_open(&(struct remote_rig_options){ .oracle = slow }, &rig);
    for (int i = 0; i < N_TARGETS; i++) { /* their sequences have the same ids */
        drafts[i] = remote_rig_draft(remote_rig_address(rig), 2, K, i == 0 ? 1000 : PATIENT_US);
        sims[i] = open_sim(drafts[i], 2);
        sim_on_pass(sims[i], take_a_while, NULL);
        submit(sims[i], 4 + i, 50);
    }
    for (int n_busy = 1; n_busy > 0;) {
        n_busy = 0;
        for (int i = 0; i < N_TARGETS; i++) {
            if (scheduler_is_busy(sim_scheduler(sims[i]))) {
                n_busy++;
                assert_fine(sim_step(sims[i]));
            }
        }
    }
    const struct draft_worker_report report = remote_rig_report(rig);
    assert_int_equal(report.targets, N_TARGETS);
    assert_int_equal(report.n_connected, N_TARGETS);
    assert_true(report.batches > 0 && report.stopped_batches > 0);
    for (int i = 0; i < N_TARGETS; i++) {
        assert_fine(sim_compare(sims[i]));
        assert_true(i == 0 || draft_remote_report(drafts[i]).hits > 5);
        assert_int_equal(draft_remote_report(drafts[i]).losses, 0);
        sim_close(sims[i]);
        destroy(drafts[i]);
    }
    remote_rig_close(rig);
}

/* ---- faults ---- */
static void submit_some(struct sim *sim, int32_t n) { submit(sim, n, 50); }

static void run_through(const int32_t *per_mille, uint64_t seed, int32_t n, uint64_t *n_faults)
{
    struct remote_rig *rig;
    struct rpc_proxy *proxy;
    char own[64];
    snprintf(own, sizeof own, "unix:/tmp/tandem-proxy-%d", (int)getpid());
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle }, &rig);
    rpc_proxy_open(own, remote_rig_address(rig), per_mille, seed, &proxy);
    struct draft *draft = remote_rig_draft(own, 3, K, 3000);
    struct sim *sim = open_sim(draft, 3);
    sim_on_pass(sim, take_a_while, NULL);
    submit_some(sim, n);
    run_and_compare(sim);
    *n_faults += rpc_proxy_n_faults(proxy);
    sim_close(sim);
    destroy(draft);
    rpc_proxy_close(proxy);
    remote_rig_close(rig);
}

static void each_fault_alone(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR); /* every loss has its line */
    for (int kind = 0; kind < FAULT_N_KINDS; kind++) {
        uint64_t n_faults = 0;
        for (uint64_t seed = 1; seed <= (uint64_t)draft_rig_scale(4, 2); seed++) {
            int32_t per_mille[FAULT_N_KINDS] = { 0 };
            per_mille[kind] = 60;
            run_through(per_mille, seed * 31 + (uint64_t)kind, 6, &n_faults);
        }
        if (n_faults == 0) {
            fail_msg("no frame suffered '%s'", rpc_fault_name((enum rpc_fault)kind));
        }
    }
    log_set_level(LOG_INFO);
}

static void all_faults_together(void **state)
{
    (void)state;
    uint64_t n_faults = 0;
    log_set_level(LOG_ERROR);
    for (uint64_t seed = 1; seed <= (uint64_t)draft_rig_scale(15, 3); seed++) {
        static const int32_t per_mille[FAULT_N_KINDS] = { 20, 20, 20, 10, 40, 3, 3, 3, 3 };
        run_through(per_mille, seed, 6, &n_faults);
    }
    log_set_level(LOG_INFO);
    assert_true(n_faults > 30);
}

/* A worker that hangs is waited for a few times and then no more. */
static void a_hung_worker_delays_a_few_steps(void **state)
{
    (void)state;
    static const int32_t none[FAULT_N_KINDS] = { 0 };
    struct remote_rig *rig;
    struct rpc_proxy *proxy;
    char own[64];
    snprintf(own, sizeof own, "unix:/tmp/tandem-hung-%d", (int)getpid());
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle }, &rig);
    rpc_proxy_open(own, remote_rig_address(rig), none, 1, &proxy);
    struct draft *draft = remote_rig_draft(own, 2, K, 20000);
    struct sim *sim = open_sim(draft, 2);
    submit_some(sim, 8);
    for (int i = 0; i < 12; i++) {
        assert_fine(sim_step(sim));
    }
    const double waited = draft_remote_report(draft).waited_seconds;
    rpc_proxy_freeze(proxy);
    run_and_compare(sim);
    const struct draft_remote_report report = draft_remote_report(draft);
    assert_true(report.unanswered > 10);
    assert_true(report.waited_seconds - waited < 6 * 0.02 + 0.2); /* four waits, and a machine that is busy */
    sim_close(sim);
    destroy(draft);
    rpc_proxy_close(proxy);
    remote_rig_close(rig);
}

/* ---- a worker that is killed ---- */
struct killing { pid_t child; int32_t n_passes, at; };

static void kill_in_mid_round(void *user)
{
    struct killing *killing = user;
    usleep(3000);
    if (++killing->n_passes == killing->at) { /* the target's pass runs, so does the worker's job */
        kill(killing->child, SIGKILL);
        (void)waitpid(killing->child, NULL, 0);
    }
}

static void wait_for_link(struct draft *draft, uint64_t n_links)
{
    for (int i = 0; i < 600 && draft_remote_report(draft).links < n_links; i++) {
        draft->kind->begin(draft, NULL, 0); /* a step comes by */
        usleep(10000);
    }
    for (int i = 0; i < 100 && !draft_remote_report(draft).is_linked; i++) {
        draft->kind->begin(draft, NULL, 0);
        usleep(10000);
    }
    assert_true(draft_remote_report(draft).links >= n_links);
}

static void a_killed_worker_is_gone_and_comes_back(void **state)
{
    (void)state;
    char address[64];
    struct remote_rig_options options = { .oracle = { .n_candidates = 2, .step_us = 200 }, .address = address };
    snprintf(address, sizeof address, "unix:/tmp/tandem-killed-%d", (int)getpid());
    struct killing killing = { .child = remote_rig_fork(&options), .at = 12 };
    for (int i = 0; i < 500 && access(address + 5, F_OK) != 0; i++) {
        usleep(10000);
    }
    struct draft *draft = remote_rig_draft(address, 2, K, 50000);
    wait_for_link(draft, 1);
    struct sim *sim = open_sim(draft, 2);
    sim_on_pass(sim, kill_in_mid_round, &killing);
    submit_some(sim, 4);
    assert_fine(sim_run(sim));
    assert_true(killing.n_passes > killing.at);
    assert_int_equal(draft_remote_report(draft).losses, 1);
    assert_false(draft_remote_report(draft).is_linked);

    sim_on_pass(sim, take_a_while, NULL);
    killing.child = remote_rig_fork(&options); /* takes over the path that was left behind */
    wait_for_link(draft, 2);
    const uint64_t hits = draft_remote_report(draft).hits;
    submit_some(sim, 4);
    run_and_compare(sim);
    assert_true(draft_remote_report(draft).hits > hits + 10);
    kill(killing.child, SIGKILL);
    (void)waitpid(killing.child, NULL, 0);
    unlink(address + 5);
    sim_close(sim);
    destroy(draft);
}

static void a_worker_that_comes_later_is_found(void **state)
{
    (void)state;
    char address[64];
    struct remote_rig *rig;
    snprintf(address, sizeof address, "unix:/tmp/tandem-later-%d", (int)getpid());
    struct draft *draft = remote_rig_draft(address, 2, K, PATIENT_US);
    struct sim *sim = open_sim(draft, 2);
    sim_on_pass(sim, take_a_while, NULL);
    submit_some(sim, 4);
    assert_fine(sim_run(sim));
    assert_int_equal(draft_remote_report(draft).links, 0);
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle, .address = address }, &rig);
    wait_for_link(draft, 1);
    submit_some(sim, 4);
    run_and_compare(sim);
    assert_true(draft_remote_report(draft).hits > 10);
    sim_close(sim);
    destroy(draft);
    remote_rig_close(rig);
}

/* ---- refusals ---- */
static void assert_no_draft(struct draft_remote_options options, enum status expected, const char *words)
{
    struct draft *draft;
    options.common = (struct draft_options){ .n_vocab = SIM_VOCAB, .context = 128, .max_batch = 1, .k_max = K,
                                             .wants_prob = options.common.wants_prob };
    options.fingerprint = 0xabc;
    assert_int_equal(draft_remote_create(&options, &draft), expected);
    assert_null(draft);
    if (strstr(status_message(), words) == NULL) {
        fail_msg("expected '%s' in: %s", words, status_message());
    }
}

static void who_does_not_belong_is_refused(void **state)
{
    (void)state;
    struct remote_rig *rig;
    char key[] = "/tmp/tandem-key-XXXXXX", other[] = "/tmp/tandem-key-XXXXXX";
    const int fd = mkstemp(key), fd_other = mkstemp(other);
    assert_true(write(fd, "open sesame\n", 12) == 12 && write(fd_other, "open barley\n", 12) == 12);
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle, .vocab_digest = 77, .key_file = key,
                                                  .address = "tcp:0" }, &rig);
    const char *address = remote_rig_address(rig);
    assert_non_null(strstr(address, "tcp:127.0.0.1:"));
    assert_no_draft((struct draft_remote_options){ .address = address, .vocab_digest = 77 }, STATUS_INVALID,
                    "the draft worker asks for a key");
    assert_no_draft((struct draft_remote_options){ .address = address, .vocab_digest = 77, .key_file = other },
                    STATUS_INVALID, "the key is not the draft worker's");
    assert_no_draft((struct draft_remote_options){ .address = address, .vocab_digest = 78, .key_file = key },
                    STATUS_INVALID, "fingerprints 00000000000000d0 and 0000000000000abc");
    assert_no_draft((struct draft_remote_options){ .address = address, .vocab_digest = 0, .key_file = key },
                    STATUS_INVALID, "another vocabulary");
    assert_no_draft((struct draft_remote_options){ .address = address, .common.wants_prob = true },
                    STATUS_UNSUPPORTED, "no probabilities");
    assert_no_draft((struct draft_remote_options){ .address = "tcp:nowhere" }, STATUS_INVALID, "tcp:HOST:PORT");
    struct draft *draft;
    assert_int_equal(draft_remote_create(&(struct draft_remote_options){ .address = address, .vocab_digest = 77,
        .key_file = key, .common = { .n_vocab = SIM_VOCAB + 3, .context = 128, .max_batch = 1, .k_max = K } },
        &draft), STATUS_OK); /* padding differs, the vocabulary does not */
    assert_true(draft_remote_report(draft).is_linked);
    destroy(draft);
    const struct draft_worker_report report = remote_rig_report(rig);
    assert_int_equal(report.targets, 1);
    assert_int_equal(report.refused_targets, 4);
    remote_rig_close(rig);
    close(fd);
    close(fd_other);
    unlink(key);
    unlink(other);
}

static void memory_that_is_not_there(void **state)
{
    (void)state;
    struct remote_rig *rig;
    remote_rig_open(&(struct remote_rig_options){ .oracle = good_oracle }, &rig);
    int n_failed = 0;
    for (uint64_t n = 1; n < 40; n++) {
        struct draft *draft;
        mem_fail_at(n);
        const enum status status = draft_remote_create(&(struct draft_remote_options){
            .address = remote_rig_address(rig), .has_lookup = true,
            .common = { .n_vocab = SIM_VOCAB, .context = 128, .max_batch = 2, .k_max = K } }, &draft);
        mem_fail_at(0);
        if (status == STATUS_OK) {
            destroy(draft);
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        n_failed++;
    }
    assert_true(n_failed > 8);
    remote_rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_worker_is_gone_and_comes_back), /* forks: before any thread is made */
        cmocka_unit_test(what_was_prepared_is_proposed),
        cmocka_unit_test(hits_save_passes),
        cmocka_unit_test(misses_are_the_fallbacks),
        cmocka_unit_test(nobody_waits_for_nothing),
        cmocka_unit_test(lies_cost_speed_alone),
        cmocka_unit_test(steps_take_no_memory),
        cmocka_unit_test(preempted_and_cancelled),
        cmocka_unit_test(a_small_worker_serves_whom_it_can),
        cmocka_unit_test(long_texts_come_in_pieces),
        cmocka_unit_test(targets_share_a_worker),
        cmocka_unit_test(each_fault_alone),
        cmocka_unit_test(all_faults_together),
        cmocka_unit_test(a_hung_worker_delays_a_few_steps),
        cmocka_unit_test(a_worker_that_comes_later_is_found),
        cmocka_unit_test(who_does_not_belong_is_refused),
        cmocka_unit_test(memory_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
