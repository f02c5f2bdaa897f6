/* draft_model: a model draft under the real scheduler. What a draft does wrong never changes the text, so
 * the oracles are O2 (the target as its own draft is accepted whole), O4 (its KV is that of a fresh pass,
 * checked by the rig after each step) and page accounts; the text is compared with plain decoding
 * besides. Numbers are those of the cases in the list of what breaks ragged batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tests/draft_rig.h"

static const char Q8[] = "q8_0", F32_TINY[] = "synth:tiny,f32,seed=7";

/* Requests of all lengths, greedy and sampled. */
static void submit_mixed(struct draft_rig *rig, int32_t n, int32_t max_tokens)
{
    static const float temperatures[] = { 0, 0.7f, 1, 0 };
    static const int32_t lengths[] = { 1, 15, 16, 17, 40, 5, 33, 64 };
    for (int32_t i = 0; i < n; i++) {
        draft_rig_submit(rig, &(struct draft_rig_request){
            .prompt_seed = 100 + (uint64_t)i, .seed = (uint64_t)i, .n_prompt = lengths[i % 8],
            .max_tokens = max_tokens + i % 3, .temperature = temperatures[i % 4],
            .top_p = i % 5 == 1 ? 0.9f : 1, .top_k = i % 6 == 2 ? 20 : 0,
            .repetition_penalty = i % 7 == 3 ? 1.3f : 1 });
    }
}

static void assert_all_accepted(const struct draft_rig *rig)
{
    const struct td_draft_counts counts = draft_rig_counts(rig);
    assert_true(counts.proposed > 0);
    assert_int_equal(counts.accepted, counts.proposed);
    assert_int_equal(rig->n_offered, rig->n_asked);
}

/* ---- O2 ---- */
static void o2_the_target_as_its_own_draft_is_accepted_whole(void **state)
{
    (void)state;
    for (int32_t k = 1; k <= 8; k += draft_rig_scale(1, 7)) {
        struct draft_rig rig;
        struct draft_rig_options options = draft_rig_defaults();
        options.k = k;
        options.max_batch = 4;
        draft_rig_open(&rig, &options);
        submit_mixed(&rig, draft_rig_scale(10, 5), 24);
        draft_rig_run(&rig);
        assert_all_accepted(&rig);
        draft_rig_assert_plain(&rig);
        draft_rig_close(&rig);
    }
}

static void o2_holds_with_two_workers(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.threads = 2;
    options.max_batch = 8;
    draft_rig_open(&rig, &options);
    submit_mixed(&rig, 8, 20);
    draft_rig_run(&rig);
    assert_all_accepted(&rig);
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

/* The rejection rule too: the draft's distribution is the target's, and coin * p < p. */
static void o2_holds_for_the_rejection_rule(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.rule = VERIFY_REJECTION;
    options.max_batch = 4;
    draft_rig_open(&rig, &options);
    submit_mixed(&rig, draft_rig_scale(10, 5), 24);
    draft_rig_run(&rig);
    assert_all_accepted(&rig);
    draft_rig_close(&rig);
}

/* Many prompts at once share the rows of a pass: some sequences wait with their first proposals, and
 * those that come are right all the same. Alone, a prompt is computed in as many passes as it takes. */
static void prompts_are_computed_in_chunks(void **state)
{
    (void)state;
    for (int32_t chunk = 1; chunk <= 64; chunk *= 4) {
        struct draft_rig rig;
        struct draft_rig_options options = draft_rig_defaults();
        options.draft_chunk = chunk;
        options.max_batch = 8;
        options.prefill_chunk = 512;
        draft_rig_open(&rig, &options);
        submit_mixed(&rig, 8, 24);
        draft_rig_run(&rig);
        const struct td_draft_counts counts = draft_rig_counts(&rig);
        assert_true(counts.proposed > 0);
        assert_int_equal(counts.accepted, counts.proposed);
        assert_true(rig.n_offered < rig.n_asked);
        draft_rig_assert_plain(&rig);
        draft_rig_close(&rig);
        draft_rig_open(&rig, &options);
        submit_mixed(&rig, 1, 24);
        draft_rig_run(&rig);
        assert_all_accepted(&rig);
        draft_rig_close(&rig);
    }
}

/* ---- drafts that err ---- */
static void another_model_never_changes_the_text(void **state)
{
    (void)state;
    static const char *const drafts[] = { "synth:tiny,q8_0,seed=8", NULL };
    for (int i = 0; i < 2; i++) { /* right hardly ever, and most of the time */
        struct draft_rig rig;
        struct draft_rig_options options = draft_rig_defaults();
        options.target = F32_TINY;
        options.draft = drafts[i];
        options.draft_quant = drafts[i] == NULL ? Q8 : NULL;
        options.draft_page_slots = 32;
        options.max_batch = 3;
        draft_rig_open(&rig, &options);
        submit_mixed(&rig, draft_rig_scale(9, 4), 30);
        draft_rig_run(&rig);
        const struct td_draft_counts counts = draft_rig_counts(&rig);
        assert_true(counts.accepted < counts.proposed);
        if (i == 1) {
            assert_true(2 * counts.accepted > counts.proposed);
        }
        draft_rig_assert_plain(&rig);
        draft_rig_close(&rig);
    }
}

/* ---- accept patterns: proposals are spoilt after the draft has fed its own ---- */
static void spoil(struct draft_ask *ask, int32_t node, int32_t n_vocab)
{
    if (node < ask->proposal.n) {
        ask->proposal.token[node] = (ask->proposal.token[node] + 1) % n_vocab;
    }
}

static void spoil_all(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        spoil(&asks[i], 0, rig->target->n_vocab);
    }
}

/* Ask i of round r keeps (r + i) mod (K + 1) right tokens. */
static void spoil_rotated(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        spoil(&asks[i], (rig->n_rounds + asks[i].place) % (rig->options.k + 1), rig->target->n_vocab);
    }
}

static void run_spoilt(void (*how)(struct draft_rig *, struct draft_ask *, int32_t), int32_t k)
{
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.k = k;
    options.max_batch = 5;
    draft_rig_open(&rig, &options);
    rig.after_propose = how;
    submit_mixed(&rig, draft_rig_scale(10, 6), 30);
    draft_rig_run(&rig);
    const struct td_draft_counts counts = draft_rig_counts(&rig);
    assert_true(counts.proposed > 0);
    if (how == spoil_all) {
        assert_int_equal(counts.accepted, 0);
    } else {
        assert_in_range(counts.accepted, counts.proposed / 5, counts.proposed * 4 / 5);
    }
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

static void case_01_all_rejected_every_round(void **state)
{
    (void)state;
    run_spoilt(spoil_all, 4);
}

static void case_04_accept_pattern_rotates(void **state)
{
    (void)state;
    for (int32_t k = 2; k <= 8; k += 3) {
        run_spoilt(spoil_rotated, k);
    }
}

static void turn_round(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    (void)rig;
    for (int32_t i = 0; i < n_asks / 2; i++) {
        const struct draft_ask ask = asks[i];
        asks[i] = asks[n_asks - 1 - i];
        asks[n_asks - 1 - i] = ask;
    }
}

/* What a draft knows belongs to places, not to the order of asks. */
static void turn_every_other_round(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    if (rig->n_rounds % 2 == 0) {
        turn_round(rig, asks, n_asks);
    }
}

static void case_05_order_changes_between_steps(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.max_batch = 5;
    draft_rig_open(&rig, &options);
    rig.before_propose = rig.after_propose = turn_every_other_round;
    submit_mixed(&rig, 10, 30);
    draft_rig_run(&rig);
    assert_all_accepted(&rig);
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

/* What is verified need not be what the draft fed: another source may have known better. The next round
 * must find out by comparing tokens, and feed the right ones (O4). */
static int32_t right_tokens[256], n_right_tokens;

static void replace_by_right_ones(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    (void)rig;
    for (int32_t i = 0; i < n_asks; i++) {
        for (int32_t node = 0; node < asks[i].proposal.n; node++) {
            assert_true(asks[i].n_tokens + node < n_right_tokens);
            asks[i].proposal.token[node] = right_tokens[asks[i].n_tokens + node];
        }
    }
}

static void proposals_of_others_are_fed_again(void **state)
{
    (void)state;
    const struct draft_rig_request request = { .prompt_seed = 8, .n_prompt = 20, .max_tokens = 40 };
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    draft_rig_open(&rig, &options);
    draft_rig_submit(&rig, &request);
    draft_rig_run(&rig);
    n_right_tokens = draft_rig_sequence(&rig, 0)->n_tokens;
    memcpy(right_tokens, draft_rig_sequence(&rig, 0)->tokens, (size_t)n_right_tokens * sizeof *right_tokens);
    draft_rig_close(&rig);
    options.draft = "synth:tiny,q8_0,seed=8";
    draft_rig_open(&rig, &options);
    rig.after_propose = replace_by_right_ones;
    draft_rig_submit(&rig, &request);
    draft_rig_run(&rig);
    assert_all_accepted(&rig);
    draft_rig_close(&rig);
}

/* ---- how far the draft lags ---- */
static int32_t lags[DRAFT_MAX_NODES + 8], n_lags;

/* Committed tokens that this round must feed: those behind what was fed and committed. */
static int32_t lag_of(const struct draft_rig *rig, const struct draft_ask *ask)
{
    const struct model_place *place = &draft_rig_model(rig)->places[ask->place];
    int32_t cached = kv_table_cached_len(place->table);
    for (int32_t i = 0; i < place->n_tail && cached < ask->n_tokens - 1 && place->tail[i] == ask->tokens[cached]; i++) {
        cached++;
    }
    return ask->n_tokens - cached;
}

static void note_lag(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    assert_int_equal(n_asks, 1);
    assert_true(n_lags < (int32_t)(sizeof lags / sizeof lags[0]));
    lags[n_lags++] = lag_of(rig, &asks[0]);
}

static void case_02_full_acceptance_feeds_two_tokens(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    n_lags = 0;
    draft_rig_open(&rig, &options);
    rig.before_propose = note_lag;
    draft_rig_submit(&rig, &(struct draft_rig_request){ .prompt_seed = 3, .n_prompt = 20, .max_tokens = 41 });
    draft_rig_run(&rig);
    assert_true(n_lags >= 8);
    assert_int_equal(lags[0], 21); /* the prompt, and the token chosen after it */
    for (int32_t i = 1; i < n_lags; i++) {
        assert_int_equal(lags[i], 2);
    }
    assert_all_accepted(&rig);
    draft_rig_close(&rig);
}

/* Wrong on purpose: from the third round on the second node is another token. */
static void spoil_from_third(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    (void)n_asks;
    if (rig->n_rounds >= 3) {
        spoil(&asks[0], 1, rig->target->n_vocab);
    }
}

/* What was proposed is not what was fed: the draft must compare with what it fed, not with verdicts. */
static void case_03_full_acceptance_twice_then_reject(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    n_lags = 0;
    draft_rig_open(&rig, &options);
    rig.before_propose = note_lag;
    rig.after_propose = spoil_from_third;
    draft_rig_submit(&rig, &(struct draft_rig_request){ .prompt_seed = 4, .n_prompt = 9, .max_tokens = 22 });
    draft_rig_run(&rig);
    assert_int_equal(lags[1], 2);
    assert_int_equal(lags[2], 2);
    /* One proposal was accepted, and the recovery token is what the draft had fed in its place. */
    assert_int_equal(lags[3], 1);
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

static void case_15_twenty_rounds_without_and_back(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    n_lags = 0;
    options.k_pattern = "44400000000000000000000444444444";
    draft_rig_open(&rig, &options);
    submit_mixed(&rig, 2, 60);
    draft_rig_run(&rig);
    assert_true(rig.n_rounds > 26);
    assert_all_accepted(&rig);
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

static void case_16_k_changes_every_round(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.k = 8;
    options.max_batch = 4;
    options.k_pattern = "8103725046";
    draft_rig_open(&rig, &options);
    submit_mixed(&rig, 6, 40);
    draft_rig_run(&rig);
    assert_all_accepted(&rig);
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

/* ---- contexts, pages, prefixes ---- */
static void case_13_draft_context_is_shorter(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.draft_context = 50;
    draft_rig_open(&rig, &options);
    submit_mixed(&rig, 6, 60);
    draft_rig_run(&rig);
    const struct td_draft_counts counts = draft_rig_counts(&rig);
    assert_true(counts.proposed > 0);
    assert_int_equal(counts.accepted, counts.proposed);
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

static void refused_ones_hold_no_pages(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        if (asks[i].k_max > 0 && asks[i].proposal.n == 0) {
            assert_int_equal(kv_table_reserved_len(draft_rig_model(rig)->places[asks[i].place].table), 0);
        }
    }
}

/* Pages for one sequence and a bit: who comes first goes on, the others write without a draft. */
static void case_21_draft_pages_run_out(void **state)
{
    (void)state;
    for (int32_t n_pages = 1; n_pages <= 10; n_pages += 3) {
        struct draft_rig rig;
        struct draft_rig_options options = draft_rig_defaults();
        options.max_batch = 4;
        options.draft_pages = n_pages;
        draft_rig_open(&rig, &options);
        rig.after_propose = refused_ones_hold_no_pages;
        submit_mixed(&rig, 8, 30);
        draft_rig_run(&rig);
        const struct td_draft_counts counts = draft_rig_counts(&rig);
        assert_true(counts.proposed > 0);
        assert_int_equal(counts.accepted, counts.proposed);
        assert_true(rig.n_offered < rig.n_asked);
        draft_rig_assert_plain(&rig);
        draft_rig_close(&rig);
    }
}

static void run_one(struct draft_rig *rig, uint64_t prompt_seed)
{
    draft_rig_submit(rig, &(struct draft_rig_request){ .prompt_seed = prompt_seed, .n_prompt = 50,
                                                       .max_tokens = 12 });
    draft_rig_run(rig);
}

static void case_24_prefix_found_by_one_and_not_the_other(void **state)
{
    (void)state;
    for (int target_hits = 0; target_hits < 2; target_hits++) {
        struct draft_rig rig;
        struct draft_rig_options options = draft_rig_defaults();
        options.no_prefix_cache = !target_hits;
        n_lags = 0;
        draft_rig_open(&rig, &options);
        run_one(&rig, 1);
        if (target_hits) {
            kv_prefix_clear(draft_rig_model(&rig)->prefix);
        }
        rig.before_propose = note_lag;
        run_one(&rig, 1);
        assert_int_equal(lags[0], 51); /* before the place is entered */
        const int64_t hits = (int64_t)scheduler_stats(rig.scheduler).prefix_hit_tokens;
        assert_int_equal(hits, target_hits ? 48 : 0);
        assert_all_accepted(&rig);
        draft_rig_assert_plain(&rig);
        draft_rig_close(&rig);
    }
}

static int32_t n_attached;

static void note_attached(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    int32_t n_pages;
    const struct model_place *place = &draft_rig_model(rig)->places[asks[0].place];
    (void)n_asks;
    const uint32_t *pages = kv_table_pages(place->table, &n_pages);
    n_attached = 0;
    for (int32_t i = 0; i < n_pages; i++) {
        n_attached += pages[i] < 3; /* the first sequence's */
    }
}

static void a_prompt_seen_before_is_not_computed_again(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    draft_rig_open(&rig, &options);
    /* 66 tokens in the end: the last round was asked at 61 and fed 64, all of which were accepted. */
    draft_rig_submit(&rig, &(struct draft_rig_request){ .prompt_seed = 1, .n_prompt = 50, .max_tokens = 16 });
    draft_rig_run(&rig);
    const struct kv_pool_counts counts = kv_pool_counts(draft_rig_model(&rig)->pool);
    assert_int_equal(counts.n_held, 0);
    assert_int_equal(counts.n_cached, 64 / 16);
    rig.after_propose = note_attached;
    run_one(&rig, 1);
    assert_int_equal(n_attached, 3);
    assert_all_accepted(&rig);
    draft_rig_close(&rig);
}

static void preempted_sequences_start_anew(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.max_batch = 3;
    draft_rig_open(&rig, &options);
    submit_mixed(&rig, 5, 40);
    for (int32_t step = 0; scheduler_is_busy(rig.scheduler); step++) {
        draft_rig_step(&rig);
        if (step % 4 == 3) {
            scheduler_preempt_last(rig.scheduler);
        }
    }
    assert_true(scheduler_stats(rig.scheduler).preemptions > 3);
    assert_all_accepted(&rig);
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

/* ---- vocabularies ---- */
static void case_35_vocabularies_differ(void **state)
{
    (void)state;
    static const struct { const char *target, *draft; int32_t n_common; } pairs[] = {
        { "synth:tiny,q8_0,seed=7", "synth:tiny,q8_0,seed=7,vocab=480", 0 },  /* the draft has fewer */
        { "synth:tiny,q8_0,seed=7,vocab=480", "synth:tiny,q8_0,seed=7", 0 },  /* and more */
        { "synth:tiny,q8_0,seed=7", "synth:tiny,q8_0,seed=7", 300 },
    };
    for (int i = 0; i < 3; i++) {
        struct draft_rig rig;
        struct draft_rig_options options = draft_rig_defaults();
        options.target = pairs[i].target;
        options.draft = pairs[i].draft;
        options.n_vocab_common = pairs[i].n_common;
        draft_rig_open(&rig, &options);
        submit_mixed(&rig, 6, 40);
        draft_rig_submit(&rig, &(struct draft_rig_request){ .prompt_seed = 5, .n_prompt = 3, .max_tokens = 9,
                                                            .first_id = 480 }); /* the last both have */
        draft_rig_submit(&rig, &(struct draft_rig_request){ .prompt_seed = 5, .n_prompt = 3, .max_tokens = 9,
                                                            .first_id = i == 1 ? 1 : 512 });
        draft_rig_run(&rig);
        assert_true(draft_rig_counts(&rig).accepted > 0);
        draft_rig_assert_plain(&rig);
        draft_rig_close(&rig);
    }
}

/* ---- trouble ---- */
static void poison_pages(struct draft_rig *rig, struct draft_ask *asks, int32_t n_asks)
{
    const struct model_draft *draft = draft_rig_model(rig);
    (void)asks, (void)n_asks;
    for (int32_t page = 0; page < draft->options.n_pages && rig->n_rounds % 3 == 0; page++) {
        kv_store_poison(&draft->store, (uint32_t)page, 0, draft->options.page_slots);
    }
}

static void a_draft_that_says_nan_says_nothing(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.checks_kv = false;
    draft_rig_open(&rig, &options);
    rig.before_propose = poison_pages;
    submit_mixed(&rig, 5, 30);
    draft_rig_run(&rig);
    assert_true(draft_rig_counts(&rig).proposed > 0);
    assert_true(rig.n_offered < rig.n_asked);
    draft_rig_assert_plain(&rig);
    draft_rig_close(&rig);
}

static void rounds_allocate_nothing(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    options.checks_kv = false;
    options.max_batch = 4;
    options.threads = 2;
    draft_rig_open(&rig, &options);
    submit_mixed(&rig, 8, 30);
    const uint64_t before = mem_alloc_count();
    while (scheduler_is_busy(rig.scheduler)) {
        scheduler_step(rig.scheduler);
    }
    assert_int_equal(mem_alloc_count(), before);
    assert_all_accepted(&rig);
    draft_rig_close(&rig);
}

static void every_allocation_of_creation_may_fail(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft_rig_options options = draft_rig_defaults();
    struct draft *draft;
    enum status status = STATUS_NO_MEMORY;
    draft_rig_open(&rig, &options);
    struct draft_model_options creation = draft_rig_model(&rig)->options;
    creation.common.wants_prob = true;
    uint64_t n = 0;
    while (status != STATUS_OK) {
        mem_fail_at(++n);
        status = draft_model_create(&creation, &draft);
        mem_fail_at(0);
        assert_true(status == STATUS_OK || (status == STATUS_NO_MEMORY && draft == NULL));
    }
    assert_true(n > 20);
    assert_true(draft_model_bytes(draft) > kv_store_bytes(&draft_rig_model(&rig)->store));
    draft->kind->destroy(draft);
    draft_rig_close(&rig);
}

static void impossible_options_get_a_sentence(void **state)
{
    (void)state;
    struct draft_rig rig;
    struct draft *draft;
    const struct draft_rig_options defaults = draft_rig_defaults();
    draft_rig_open(&rig, &defaults);
#define REFUSES(change, words)                                                      \
    do {                                                                            \
        struct draft_model_options options = draft_rig_model(&rig)->options;        \
        change;                                                                     \
        assert_int_equal(draft_model_create(&options, &draft), STATUS_INVALID);     \
        assert_null(draft);                                                         \
        assert_non_null(strstr(status_message(), words));                           \
    } while (0)
    REFUSES(options.common.k_max = 0, "K between 1 and 16");
    REFUSES(options.common.k_max = 17, "K between 1 and 16");
    REFUSES(options.common.max_batch = 0, "batch");
    REFUSES(options.prefill_chunk = 0, "chunk");
    REFUSES(options.context = 1, "context");
    REFUSES(options.context = 5000, "4096 positions");
    REFUSES(options.n_vocab_common = 513, "between 1 and 512");
    REFUSES(options.n_pages = 0, "page");
#undef REFUSES
    draft_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(o2_the_target_as_its_own_draft_is_accepted_whole),
        cmocka_unit_test(o2_holds_with_two_workers),
        cmocka_unit_test(o2_holds_for_the_rejection_rule),
        cmocka_unit_test(prompts_are_computed_in_chunks),
        cmocka_unit_test(another_model_never_changes_the_text),
        cmocka_unit_test(case_01_all_rejected_every_round),
        cmocka_unit_test(case_02_full_acceptance_feeds_two_tokens),
        cmocka_unit_test(case_03_full_acceptance_twice_then_reject),
        cmocka_unit_test(case_04_accept_pattern_rotates),
        cmocka_unit_test(case_05_order_changes_between_steps),
        cmocka_unit_test(proposals_of_others_are_fed_again),
        cmocka_unit_test(case_13_draft_context_is_shorter),
        cmocka_unit_test(case_15_twenty_rounds_without_and_back),
        cmocka_unit_test(case_16_k_changes_every_round),
        cmocka_unit_test(case_21_draft_pages_run_out),
        cmocka_unit_test(case_24_prefix_found_by_one_and_not_the_other),
        cmocka_unit_test(case_35_vocabularies_differ),
        cmocka_unit_test(a_prompt_seen_before_is_not_computed_again),
        cmocka_unit_test(preempted_sequences_start_anew),
        cmocka_unit_test(a_draft_that_says_nan_says_nothing),
        cmocka_unit_test(rounds_allocate_nothing),
        cmocka_unit_test(every_allocation_of_creation_may_fail),
        cmocka_unit_test(impossible_options_get_a_sentence),
    };
    return cmocka_run_group_tests_name("draft_model", tests, NULL, NULL);
}
