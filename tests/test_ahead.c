/* ahead: SSD under the real scheduler. What is prepared, hit, missed, stopped or late never changes the
 * text; a target that drafts for itself is hit every time; KV is that of a fresh pass after each step; the
 * step thread waits for nothing that it did not ask for. Lanes may be as slow as they like. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <time.h>

#include "backend/device.h"
#include "draft/grower_private.h"
#include "tests/draft_rig.h"

static const char Q8[] = "q8_0", F32_TINY[] = "synth:tiny,f32,seed=7";
static struct draft_rig rig;

static struct ahead_options ahead_defaults(void)
{
    return (struct ahead_options){ .grower = { .fanout = { .kind = FANOUT_LEARNED, .budget = 8 }, .max_budget = 8,
                                               .never_stops_early = true },
                                   .when = AHEAD_ALWAYS, .fallback = AHEAD_FALLBACK_DRAFT, .kept_hits = 100 };
}

static void submit_mixed(int32_t n, int32_t max_tokens)
{
    static const float temperatures[] = { 0, 0.7f, 1, 0 };
    static const int32_t lengths[] = { 1, 15, 16, 17, 40, 5, 33, 64 };
    for (int32_t i = 0; i < n; i++) {
        draft_rig_submit(&rig, &(struct draft_rig_request){
            .prompt_seed = 100 + (uint64_t)i, .seed = (uint64_t)i, .n_prompt = lengths[i % 8],
            .max_tokens = max_tokens + i % 3, .temperature = temperatures[i % 4],
            .top_p = i % 5 == 1 ? 0.9f : 1, .top_k = i % 6 == 2 ? 20 : 0,
            .repetition_penalty = i % 7 == 3 ? 1.3f : 1 });
    }
}

static struct ahead_report report(void) { return draft_ahead_report(rig.draft); }

/* Every round that was prepared for was a hit or a miss. */
static void assert_counts_add_up(void)
{
    const struct ahead_report r = report();
    const struct td_draft_counts counts = draft_rig_counts(&rig);
    assert_int_equal(r.hits + r.misses, r.rounds);
    assert_true(r.tokens_served <= r.tokens_wanted && r.tokens_served >= r.hits);
    assert_int_equal(counts.proposed_by_source[AHEAD_SOURCE_AHEAD] + counts.proposed_by_source[AHEAD_SOURCE_MODEL] +
                     counts.proposed_by_source[AHEAD_SOURCE_FALLBACK], counts.proposed);
    assert_true(counts.accepted_by_source[AHEAD_SOURCE_AHEAD] <= (int64_t)r.tokens_served);
}

/* Runs, compares with plain decoding, closes; the report of the end. */
static struct ahead_report run_and_close(void)
{
    draft_rig_run(&rig);
    draft_rig_assert_plain(&rig);
    assert_counts_add_up();
    const struct ahead_report r = report();
    draft_rig_close(&rig);
    return r;
}

/* ---- O2: the target as its own draft ---- */
static void a_target_that_drafts_for_itself_is_hit_every_time(void **state)
{
    (void)state;
    for (int32_t k = 1; k <= 8; k += draft_rig_scale(3, 7)) {
        struct ahead_options ahead = ahead_defaults();
        struct draft_rig_options options = draft_rig_defaults();
        options.ahead = &ahead;
        options.k = k;
        options.max_batch = 4;
        draft_rig_open(&rig, &options);
        submit_mixed(draft_rig_scale(10, 5), 24);
        draft_rig_run(&rig);
        const struct td_draft_counts counts = draft_rig_counts(&rig);
        const struct ahead_report r = report();
        assert_int_equal(counts.accepted, counts.proposed);
        assert_true(r.hits > 20 / (uint64_t)k);
        assert_int_equal(r.misses, 0);
        assert_int_equal(r.tokens_served, r.tokens_wanted);
        run_and_close();
    }
}

static void the_rejection_rule_too(void **state)
{
    (void)state;
    struct ahead_options ahead = ahead_defaults();
    struct draft_rig_options options = draft_rig_defaults();
    options.ahead = &ahead;
    options.rule = VERIFY_REJECTION;
    options.max_batch = 3;
    draft_rig_open(&rig, &options);
    for (int32_t i = 0; i < 6; i++) {
        draft_rig_submit(&rig, &(struct draft_rig_request){ .prompt_seed = (uint64_t)i, .seed = (uint64_t)i,
            .n_prompt = 5 + i, .max_tokens = 30, .temperature = i % 2 == 0 ? 0 : 1 });
    }
    draft_rig_run(&rig);
    const struct td_draft_counts counts = draft_rig_counts(&rig);
    assert_int_equal(counts.accepted, counts.proposed);
    assert_counts_add_up();
    assert_true(report().hits > report().misses);
    draft_rig_close(&rig);
}

/* ---- drafts that err ---- */
static void run_erring(const struct ahead_options *ahead, int32_t max_batch, const char *draft)
{
    struct draft_rig_options options = draft_rig_defaults();
    options.target = F32_TINY;
    options.draft = draft;
    options.draft_quant = draft == NULL ? Q8 : NULL;
    options.draft_page_slots = 32;
    options.max_batch = max_batch;
    options.ahead = ahead;
    draft_rig_open(&rig, &options);
    submit_mixed(draft_rig_scale(7, 3), 30);
}

static void nothing_that_was_prepared_changes_the_text(void **state)
{
    (void)state;
    static const enum fanout_kind kinds[] = { FANOUT_LEARNED, FANOUT_UNIFORM, FANOUT_GEOMETRIC };
    for (int32_t turn = 0; turn < draft_rig_scale(24, 6); turn++) {
        struct ahead_options ahead = ahead_defaults();
        ahead.kept_hits = turn % 3 * 50;
        ahead.fallback = (enum ahead_fallback)(turn * 3 % 5);
        ahead.grower.fanout.kind = kinds[turn % 3];
        ahead.grower.fanout.budget = turn % 5 == 0 ? 0 : 1 + turn % 7;
        ahead.grower.never_stops_early = turn % 2 == 0;
        ahead.drafts_on_step_lane = turn % 4 < 2;
        run_erring(&ahead, 1 + turn % 4, turn % 6 == 5 ? "synth:tiny,q8_0,seed=8" : NULL);
        rig.options.checks_kv = turn % 2 == 0;
        const struct ahead_report r = run_and_close();
        assert_true(ahead.kept_hits > 0 || r.hits == 0);
        assert_true(turn % 6 != 2 || r.hits > r.misses); /* most of what this draft says is right */
    }
}

/* ---- forced misses are ordinary speculation ---- */
struct history { int32_t n; struct { uint64_t seq_id; int32_t n_tokens, n, token[DRAFT_MAX_NODES]; } round[512]; };
static struct history *noting;

static void note_proposals(struct draft_rig *r, struct draft_ask *asks, int32_t n_asks)
{
    (void)r;
    for (int32_t i = 0; i < n_asks; i++) {
        assert_true(noting->n < 512);
        noting->round[noting->n].seq_id = asks[i].seq_id;
        noting->round[noting->n].n_tokens = asks[i].n_tokens;
        noting->round[noting->n].n = asks[i].proposal.n;
        memcpy(noting->round[noting->n++].token, asks[i].proposal.token, (size_t)asks[i].proposal.n * sizeof(int32_t));
    }
}

static void note_run(const struct ahead_options *ahead, enum verify_rule rule, struct history *history,
                     int32_t texts[3][64])
{
    struct draft_rig_options options = draft_rig_defaults();
    options.target = F32_TINY;
    options.draft_quant = Q8;
    options.rule = rule;
    options.max_batch = 3;
    options.ahead = ahead;
    options.prefill_chunk = options.draft_chunk = 512;
    memset(history, 0, sizeof *history);
    noting = history;
    draft_rig_open(&rig, &options);
    rig.after_propose = note_proposals;
    for (int32_t i = 0; i < 3; i++) {
        draft_rig_submit(&rig, &(struct draft_rig_request){ .prompt_seed = 50 + (uint64_t)i, .seed = 3 + (uint64_t)i,
            .n_prompt = 9 + i, .max_tokens = 40, .temperature = i == 0 ? 0 : 0.9f, .top_k = i == 2 ? 30 : 0,
            .repetition_penalty = i == 1 ? 1.2f : 1 });
    }
    draft_rig_run(&rig);
    for (int32_t i = 0; i < 3; i++) {
        const struct sequence *seq = draft_rig_sequence(&rig, i);
        assert_true(seq->n_tokens <= 64);
        memset(texts[i], 0, sizeof texts[i]);
        memcpy(texts[i], seq->tokens, (size_t)seq->n_tokens * sizeof *seq->tokens);
    }
    draft_rig_close(&rig);
}

/* No hit is kept: each round proposes what an ordinary draft would; and with all of them kept too, as long
 * as branches are grown to their end. */
static void prepared_or_not_the_proposals_are_the_same(void **state)
{
    (void)state;
    static struct history ordinary, other;
    static int32_t texts[2][3][64];
    for (int rule = 0; rule < 2; rule++) {
        const enum verify_rule rules[] = { VERIFY_COUPLED, VERIFY_REJECTION };
        note_run(NULL, rules[rule], &ordinary, texts[0]);
        assert_true(ordinary.n > 20);
        for (int32_t kept = 0; kept <= 100; kept += 50) {
            struct ahead_options ahead = ahead_defaults();
            ahead.kept_hits = kept;
            ahead.drafts_on_step_lane = kept == 50;
            note_run(&ahead, rules[rule], &other, texts[1]);
            assert_int_equal(other.n, ordinary.n);
            assert_memory_equal(&other, &ordinary, sizeof other);
            assert_memory_equal(texts[1], texts[0], sizeof texts[0]);
        }
    }
}

static void spoil_first(struct draft_rig *r, struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        asks[i].proposal.token[0] = (asks[i].proposal.token[0] + 1) % r->target->n_vocab;
    }
}

static void shorten(struct draft_rig *r, struct draft_ask *asks, int32_t n_asks)
{
    (void)r;
    for (int32_t i = 0; i < n_asks; i++) {
        asks[i].proposal.n = asks[i].proposal.n > 2 ? 2 : asks[i].proposal.n;
    }
}

/* What a fallback or another source proposed is another draft's work: its outcomes say nothing of those
 * after a hit. */
static void outcomes_after_a_miss_are_learned_apart(void **state)
{
    (void)state;
    static const struct { int32_t kept; void (*after)(struct draft_rig *, struct draft_ask *, int32_t); } turns[] = {
        { 0, NULL }, { 100, NULL }, { 100, spoil_first }, { 100, shorten },
    };
    for (int32_t turn = 0; turn < 4; turn++) {
        struct ahead_options ahead = ahead_defaults();
        struct draft_rig_options options = draft_rig_defaults();
        ahead.kept_hits = turns[turn].kept;
        options.ahead = &ahead;
        draft_rig_open(&rig, &options);
        rig.after_propose = turns[turn].after;
        draft_rig_submit(&rig, &(struct draft_rig_request){ .prompt_seed = 1, .n_prompt = 9, .max_tokens = 60 });
        draft_rig_run(&rig);
        draft_rig_settle(&rig);
        const struct fanout_counts *counts = draft_rig_ahead(&rig)->grower->counts;
        if (turn % 2 == 0) {
            assert_int_equal(counts[0].n_outcomes, 0);
            assert_true(counts[1].n_outcomes > 6);
        } else {
            assert_int_equal(counts[1].n_outcomes, 1); /* the first round was nobody's to prepare */
            assert_true(counts[0].n_outcomes > 6);
        }
        run_and_close();
    }
}

/* ---- rounds of all kinds ---- */
static void turn_every_other_round(struct draft_rig *r, struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks / 2 && r->n_rounds % 2 == 0; i++) {
        const struct draft_ask ask = asks[i];
        asks[i] = asks[n_asks - 1 - i];
        asks[n_asks - 1 - i] = ask;
    }
}

static void order_may_change_between_propose_and_verify(void **state)
{
    (void)state;
    struct ahead_options ahead = ahead_defaults();
    struct draft_rig_options options = draft_rig_defaults();
    options.ahead = &ahead;
    options.max_batch = 5;
    draft_rig_open(&rig, &options);
    rig.before_propose = rig.after_propose = turn_every_other_round;
    submit_mixed(10, 30);
    draft_rig_run(&rig);
    const struct td_draft_counts counts = draft_rig_counts(&rig);
    assert_int_equal(counts.accepted, counts.proposed);
    assert_int_equal(run_and_close().misses, 0);
}

static void spoil_rotated(struct draft_rig *r, struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        const int32_t node = (r->n_rounds + asks[i].place) % (r->options.k + 1);
        if (node < asks[i].proposal.n) {
            asks[i].proposal.token[node] = (asks[i].proposal.token[node] + 1) % r->target->n_vocab;
        }
    }
}

/* Proposals that are spoilt behind the draft's back: what is verified is what is prepared for. */
static void accept_patterns_rotate(void **state)
{
    (void)state;
    for (int32_t k = 2; k <= 8; k += 3) {
        struct ahead_options ahead = ahead_defaults();
        struct draft_rig_options options = draft_rig_defaults();
        ahead.grower.max_budget = ahead.grower.fanout.budget = 12;
        options.ahead = &ahead;
        options.k = k;
        options.max_batch = 5;
        draft_rig_open(&rig, &options);
        rig.after_propose = spoil_rotated;
        submit_mixed(draft_rig_scale(10, 6), 30);
        const struct ahead_report r = run_and_close();
        assert_true(r.hits > 3 * r.misses); /* the corrections are what the draft itself would have said */
    }
}

static void k_changes_from_round_to_round(void **state)
{
    (void)state;
    static const char *const patterns[] = { "8103725046", "44400000000000000000000444444444" };
    for (int i = 0; i < 2; i++) {
        struct ahead_options ahead = ahead_defaults();
        struct draft_rig_options options = draft_rig_defaults();
        options.ahead = &ahead;
        options.k = 8;
        options.max_batch = 4;
        options.k_pattern = patterns[i];
        draft_rig_open(&rig, &options);
        submit_mixed(6, 40);
        draft_rig_run(&rig);
        const struct td_draft_counts counts = draft_rig_counts(&rig);
        assert_int_equal(counts.accepted, counts.proposed);
        assert_true(run_and_close().hits > 0);
    }
}

static void preempted_sequences_start_anew(void **state)
{
    (void)state;
    struct ahead_options ahead = ahead_defaults();
    struct draft_rig_options options = draft_rig_defaults();
    options.ahead = &ahead;
    options.max_batch = 3;
    draft_rig_open(&rig, &options);
    submit_mixed(5, 40);
    for (int32_t step = 0; scheduler_is_busy(rig.scheduler); step++) {
        draft_rig_step(&rig);
        if (step % 4 == 3) {
            scheduler_preempt_last(rig.scheduler);
        }
    }
    assert_true(scheduler_stats(rig.scheduler).preemptions > 3);
    const struct td_draft_counts counts = draft_rig_counts(&rig);
    assert_int_equal(counts.accepted, counts.proposed);
    const struct ahead_report r = run_and_close();
    assert_true(r.hits > 0 && r.unprepared > 3);
}

/* Pages for less than all, contexts that end: less is prepared, and the text goes on. */
static void pages_and_contexts_end(void **state)
{
    (void)state;
    for (int32_t turn = 0; turn < 4; turn++) {
        struct ahead_options ahead = ahead_defaults();
        struct draft_rig_options options = draft_rig_defaults();
        ahead.grower.max_budget = ahead.grower.fanout.budget = 1 + 3 * turn;
        options.ahead = &ahead;
        options.max_batch = 4;
        options.draft_pages = turn < 2 ? 1 : 0;
        options.draft_context = turn >= 2 ? 50 + turn : 0;
        options.n_pages = turn % 2 == 1 ? 12 : 0;
        draft_rig_open(&rig, &options);
        submit_mixed(8, 55);
        draft_rig_run(&rig);
        const struct td_draft_counts counts = draft_rig_counts(&rig);
        assert_int_equal(counts.accepted, counts.proposed);
        assert_true(counts.proposed > 0);
        run_and_close();
    }
}

static void rounds_allocate_nothing(void **state)
{
    (void)state;
    struct ahead_options ahead = ahead_defaults();
    struct draft_rig_options options = draft_rig_defaults();
    ahead.grower.never_stops_early = false;
    options.ahead = &ahead;
    options.checks_kv = false;
    options.max_batch = 4;
    options.threads = options.draft_threads = 2;
    draft_rig_open(&rig, &options);
    submit_mixed(8, 30);
    const uint64_t before = mem_alloc_count();
    while (scheduler_is_busy(rig.scheduler)) {
        scheduler_step(rig.scheduler);
    }
    assert_int_equal(mem_alloc_count(), before);
    run_and_close();
}

static void every_allocation_of_creation_may_fail(void **state)
{
    (void)state;
    enum status status = STATUS_NO_MEMORY;
    struct ahead_options ahead = ahead_defaults();
    struct draft_rig_options options = draft_rig_defaults();
    struct draft *draft;
    uint64_t n = 0;
    options.ahead = &ahead;
    draft_rig_open(&rig, &options);
    struct ahead_options creation = draft_rig_ahead(&rig)->options;
    creation.grower.model.common.wants_prob = true;
    while (status != STATUS_OK) {
        mem_fail_at(++n);
        status = draft_ahead_create(&creation, &draft);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && draft == NULL));
    }
    assert_true(n > 50);
    assert_true(draft_ahead_bytes(draft) > draft_ahead_bytes(rig.draft));
    draft->kind->destroy(draft);
    draft_rig_close(&rig);
}

/* ---- lanes of any speed ---- */
/* The draft's passes and the target's are held up as a test likes; waits of the step thread are counted. */
static struct lanes {
    struct backend_ops draft_ops, step_ops;
    struct target_kind slow_target;
    const struct target_kind *target;
    int32_t draft_us, target_us;       /* each pass takes so much longer */
    atomic_bool waits_for_target;      /* each 7th pass of the draft: until the target has done 5 meanwhile */
    atomic_int n_draft_passes, n_target_passes, n_hung, n_step_waits, n_late_passes;
} lanes;

static void sleep_us(int32_t us)
{
    if (us > 0) {
        nanosleep(&(struct timespec){ .tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000 }, NULL);
    }
}

static void hang_until_the_target_moved(void)
{
    const int first = atomic_load(&lanes.n_target_passes);
    const int64_t end_ns = clock_now_ns() + INT64_C(20000000000);
    while (atomic_load(&lanes.n_target_passes) < first + 5 && clock_now_ns() < end_ns) {
        sleep_us(100);
    }
    atomic_fetch_add(&lanes.n_hung, atomic_load(&lanes.n_target_passes) >= first + 5);
}

static void draft_embed(struct lane *lane, const struct op_embed *op)
{
    const int pass = atomic_fetch_add(&lanes.n_draft_passes, 1);
    sleep_us(lanes.draft_us);
    if (lanes.waits_for_target && pass % 7 == 6) {
        hang_until_the_target_moved();
    }
    cpu_ops->embed(lane, op);
}

/* What was prepared for outcomes that did not come ends with the pass under way: at most the one that was
 * being begun when the stop was set comes besides. */
static void step_idle_until(struct lane *lane, const atomic_int *until)
{
    const struct ahead *ahead = draft_rig_ahead(&rig);
    const int before = atomic_load(&lanes.n_draft_passes);
    bool is_round = false;
    for (int i = 0; i < 2; i++) {
        is_round = is_round || (until == &ahead->jobs[i].is_done && ahead->jobs[i].kind == AHEAD_JOB_ROUNDS);
    }
    atomic_fetch_add(&lanes.n_step_waits, 1);
    cpu_ops->lane_idle_until(lane, until);
    if (is_round) {
        atomic_fetch_add(&lanes.n_late_passes, atomic_load(&lanes.n_draft_passes) - before);
    }
}

static enum status slow_end(struct target *target, const float **logits)
{
    sleep_us(lanes.target_us);
    atomic_fetch_add(&lanes.n_target_passes, 1);
    return lanes.target->end(target, logits);
}

static void hold_up_lanes(struct lane *step, struct lane *draft)
{
    lanes.draft_ops = lanes.step_ops = *cpu_ops;
    lanes.draft_ops.embed = draft_embed;
    lanes.step_ops.lane_idle_until = step_idle_until;
    draft->ops = &lanes.draft_ops;
    step->ops = &lanes.step_ops;
}

struct slowness { int32_t draft_us, target_us; enum verify_rule rule; };

static void open_slow(const struct ahead_options *ahead, struct slowness slow)
{
    struct draft_rig_options options = draft_rig_defaults();
    options.target = F32_TINY;
    options.draft_quant = Q8;
    options.ahead = ahead;
    options.rule = slow.rule;
    options.on_lanes = hold_up_lanes;
    options.checks_kv = false;
    options.max_batch = 3;
    memset(&lanes, 0, sizeof lanes);
    lanes.draft_us = slow.draft_us;
    lanes.target_us = slow.target_us;
    draft_rig_open(&rig, &options);
    lanes.target = rig.target->kind;
    lanes.slow_target = *lanes.target;
    lanes.slow_target.end = slow_end;
    rig.target->kind = &lanes.slow_target;
}

static void close_slow(void)
{
    rig.target->kind = lanes.target;
    draft_rig_close(&rig);
}

static void speeds_of_lanes_change_nothing(void **state)
{
    (void)state;
    static const int32_t speeds_us[][2] = { { 0, 0 }, { 0, 3000 }, { 1500, 0 }, { 400, 1000 }, { 2000, 2000 } };
    for (int32_t turn = 0; turn < draft_rig_scale(20, 5); turn++) {
        struct ahead_options ahead = ahead_defaults();
        ahead.grower.never_stops_early = false;
        ahead.fallback = (enum ahead_fallback)(turn * 3 % 5);
        ahead.drafts_on_step_lane = turn % 3 == 0;
        open_slow(&ahead, (struct slowness){ .draft_us = speeds_us[turn % 5][0], .target_us = speeds_us[turn % 5][1] });
        submit_mixed(4, 24);
        draft_rig_run(&rig);
        draft_rig_assert_plain(&rig);
        assert_counts_add_up();
        close_slow();
    }
}

/* A slow target leaves time for whole branches, and a draft of the same text hits nearly always. */
static void a_slow_target_is_prepared_for(void **state)
{
    (void)state;
    struct ahead_options ahead = ahead_defaults();
    ahead.grower.never_stops_early = false;
    open_slow(&ahead, (struct slowness){ .target_us = draft_rig_scale(10000, 100000) }); /* sanitizers are slow */
    submit_mixed(3, draft_rig_scale(40, 16));
    draft_rig_run(&rig);
    assert_true(report().hits > report().misses);
    assert_true(report().hidden_seconds > 0);
    close_slow();
}

/* The next round is drawn while the target judges this one; the rig sees to it that what this one was drawn
 * from is still there. */
static void distributions_last_until_they_are_judged(void **state)
{
    (void)state;
    enum { N = 49 };
    const struct draft_rig_request request = { .prompt_seed = 5, .seed = 5, .n_prompt = 9, .max_tokens = N - 9,
                                               .temperature = 1 };
    int32_t tokens[N];
    struct ahead_options ahead = ahead_defaults();
    for (int turn = 0; turn < 2; turn++) {
        open_slow(turn == 0 ? NULL : &ahead, (struct slowness){ .target_us = 10000 * turn,
                                                                .rule = VERIFY_REJECTION });
        draft_rig_submit(&rig, &request);
        draft_rig_run(&rig);
        const struct sequence *seq = draft_rig_sequence(&rig, 0);
        assert_int_equal(seq->n_tokens, N);
        if (turn == 1) {
            assert_true(report().hits > 5);
            assert_memory_equal(tokens, seq->tokens, sizeof tokens);
        }
        memcpy(tokens, seq->tokens, sizeof tokens);
        close_slow();
    }
}

/* Without chains just in time the step thread never waits: not for a draft that is slow, .. */
static void the_target_never_waits_for_what_it_did_not_ask_for(void **state)
{
    (void)state;
    for (enum ahead_fallback fallback = AHEAD_FALLBACK_NONE; fallback <= AHEAD_FALLBACK_BRANCH; fallback++) {
        struct ahead_options ahead = ahead_defaults();
        ahead.grower.never_stops_early = false;
        ahead.fallback = fallback;
        open_slow(&ahead, (struct slowness){ .draft_us = 3000, .target_us = 200 });
        submit_mixed(4, 40);
        draft_rig_run(&rig);
        assert_int_equal(atomic_load(&lanes.n_step_waits), 0);
        draft_rig_assert_plain(&rig);
        close_slow();
    }
}

/* .. and not for one that hangs until the target has gone on. */
static void a_draft_that_hangs_holds_nobody_up(void **state)
{
    (void)state;
    struct ahead_options ahead = ahead_defaults();
    ahead.grower.never_stops_early = false;
    ahead.fallback = AHEAD_FALLBACK_NONE;
    open_slow(&ahead, (struct slowness){ .target_us = 500 });
    lanes.waits_for_target = true;
    submit_mixed(4, 50);
    for (int32_t step = 0; scheduler_is_busy(rig.scheduler); step++) {
        draft_rig_step(&rig);
        if (step == 60) {
            lanes.waits_for_target = false; /* the last steps are nobody's to wait for */
        }
    }
    assert_true(atomic_load(&lanes.n_hung) > 1);
    draft_rig_assert_plain(&rig);
    close_slow();
}

static void what_is_of_no_use_ends_with_its_pass(void **state)
{
    (void)state;
    struct ahead_options ahead = ahead_defaults();
    ahead.grower.never_stops_early = false;
    ahead.kept_hits = 0;
    open_slow(&ahead, (struct slowness){ .draft_us = 1000 });
    submit_mixed(2, 24);
    int32_t n_waits = 0;
    while (scheduler_is_busy(rig.scheduler)) {
        atomic_store(&lanes.n_late_passes, 0);
        draft_rig_step(&rig);
        n_waits += atomic_load(&lanes.n_step_waits) > 0;
        assert_in_range(atomic_load(&lanes.n_late_passes), 0, 1);
    }
    assert_true(n_waits > 5);
    close_slow();
}

/* ---- ahead, or in turn ---- */
/* Steps of two ways that bring so many tokens a second, 10 ms each. Returns the share worked ahead. */
static double simulate_modes(struct ahead_modes *modes, double turns, double ahead, int32_t n_steps)
{
    int32_t n_ahead = 0;
    for (int32_t i = 0; i < n_steps; i++) {
        n_ahead += !modes->takes_turns;
        ahead_mode_observe(modes, 2, 2 / (modes->takes_turns ? turns : ahead));
    }
    return (double)n_ahead / n_steps;
}

static void the_faster_way_is_found_and_kept(void **state)
{
    (void)state;
    struct ahead_modes modes;
    ahead_mode_begin(&modes, false);
    assert_false(modes.takes_turns);
    ahead_mode_begin(&modes, true);
    assert_true(modes.takes_turns);
    assert_true(simulate_modes(&modes, 200, 260, 30) == 0); /* not at once */
    assert_true(simulate_modes(&modes, 200, 260, 2000) > 0.85);
    assert_true(simulate_modes(&modes, 200, 100, 100) < 0.5); /* it has become slow: seen within a few windows */
    simulate_modes(&modes, 200, 150, 2000); /* the machine has changed */
    assert_true(simulate_modes(&modes, 200, 150, 4000) < 0.05);
    simulate_modes(&modes, 200, 260, 2000);
    assert_true(simulate_modes(&modes, 200, 260, 4000) > 0.85);
    ahead_mode_begin(&modes, true);
    assert_true(simulate_modes(&modes, 2000, 2600, 4000) == 0); /* steps of 1 ms: in turn */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_target_that_drafts_for_itself_is_hit_every_time),
        cmocka_unit_test(the_rejection_rule_too),
        cmocka_unit_test(nothing_that_was_prepared_changes_the_text),
        cmocka_unit_test(prepared_or_not_the_proposals_are_the_same),
        cmocka_unit_test(outcomes_after_a_miss_are_learned_apart),
        cmocka_unit_test(order_may_change_between_propose_and_verify),
        cmocka_unit_test(accept_patterns_rotate),
        cmocka_unit_test(k_changes_from_round_to_round),
        cmocka_unit_test(preempted_sequences_start_anew),
        cmocka_unit_test(pages_and_contexts_end),
        cmocka_unit_test(rounds_allocate_nothing),
        cmocka_unit_test(every_allocation_of_creation_may_fail),
        cmocka_unit_test(speeds_of_lanes_change_nothing),
        cmocka_unit_test(a_slow_target_is_prepared_for),
        cmocka_unit_test(distributions_last_until_they_are_judged),
        cmocka_unit_test(the_target_never_waits_for_what_it_did_not_ask_for),
        cmocka_unit_test(a_draft_that_hangs_holds_nobody_up),
        cmocka_unit_test(what_is_of_no_use_ends_with_its_pass),
        cmocka_unit_test(the_faster_way_is_found_and_kept),
    };
    return cmocka_run_group_tests_name("ahead", tests, NULL, NULL);
}
