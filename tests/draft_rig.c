/* draft_rig: see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "tests/draft_rig.h"

struct draft_rig_memory { struct draft_rig_request requests[DRAFT_RIG_MAX_REQUESTS]; };
static struct draft_rig_memory memory; /* one rig at a time but for the plain one, which copies it */

static void must(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", status_message());
    }
}

int32_t draft_rig_scale(int32_t full, int32_t quick)
{
    return getenv("TANDEM_TEST_QUICK") != NULL ? quick : full;
}

struct draft_rig_options draft_rig_defaults(void)
{
    return (struct draft_rig_options){ .target = "synth:tiny,q8_0,seed=7", .page_slots = 16, .context = 128,
                                       .max_batch = 2, .prefill_chunk = 32, .draft_chunk = 512, .k = 4,
                                       .checks_kv = true, .threads = 1 };
}

struct model_draft *draft_rig_model(const struct draft_rig *rig)
{
    if (rig->options.ahead != NULL) {
        return (struct model_draft *)grower_model_draft(draft_rig_ahead(rig)->grower);
    }
    assert_string_equal(rig->draft->kind->name, "model");
    return (struct model_draft *)rig->draft;
}

struct ahead *draft_rig_ahead(const struct draft_rig *rig)
{
    assert_string_equal(rig->draft->kind->name, "ahead");
    return (struct ahead *)rig->draft;
}

void draft_rig_settle(struct draft_rig *rig)
{
    for (int i = 0; i < 2; i++) {
        ahead_job_settle(draft_rig_ahead(rig), &draft_rig_ahead(rig)->jobs[i], false);
    }
}

/* ---- the wrapper ---- */
static void wrapper_propose(struct draft *wrapper, struct draft_ask *asks, int32_t n_asks)
{
    struct draft_rig *rig = (struct draft_rig *)wrapper;
    const char *pattern = rig->options.k_pattern;
    const int32_t round = rig->n_rounds++;
    for (int32_t i = 0; i < n_asks; i++) {
        const int32_t k = pattern != NULL ? pattern[round % (int32_t)strlen(pattern)] - '0' : asks[i].k_max;
        asks[i].k_max = k < asks[i].k_max ? k : asks[i].k_max;
        asks[i].n_nodes_max = asks[i].k_max;
        if (asks[i].k_max > 0 && rig->options.n_nodes > asks[i].k_max) {
            asks[i].n_nodes_max = rig->options.n_nodes;
        }
        rig->n_asked += asks[i].k_max;
    }
    if (rig->before_propose != NULL) {
        rig->before_propose(rig, asks, n_asks);
    }
    rig->draft->kind->propose(rig->draft, asks, n_asks);
    if (rig->after_propose != NULL) {
        rig->after_propose(rig, asks, n_asks);
    }
    for (int32_t i = 0; i < n_asks; i++) {
        rig->n_offered += asks[i].proposal.n;
        asks[i].n_nodes_max = asks[i].proposal.n; /* what comes is verified */
    }
}

static uint64_t probs_digest(const struct draft_rig *rig, const struct draft_ask *ask)
{
    struct digest digest;
    digest_init(&digest);
    for (int32_t node = 0; node < ask->proposal.n && ask->wants_prob; node++) {
        if (ask->proposal.prob[node] != NULL) {
            digest_update(&digest, ask->proposal.prob[node], (size_t)rig->target->n_vocab * sizeof(float));
        }
    }
    return digest_value(&digest);
}

static void wrapper_begin(struct draft *wrapper, const struct draft_ask *asks, int32_t n_asks)
{
    struct draft_rig *rig = (struct draft_rig *)wrapper;
    for (int32_t i = 0; i < n_asks; i++) {
        rig->probs_digest[asks[i].place] = probs_digest(rig, &asks[i]);
    }
    if (rig->draft->kind->begin != NULL) {
        rig->draft->kind->begin(rig->draft, asks, n_asks);
    }
}

static void wrapper_known(struct draft *wrapper)
{
    struct draft_rig *rig = (struct draft_rig *)wrapper;
    if (rig->draft->kind->known != NULL) {
        rig->draft->kind->known(rig->draft);
    }
}

static void wrapper_observe(struct draft *wrapper, const struct draft_verdict *verdicts, int32_t n)
{
    struct draft_rig *rig = (struct draft_rig *)wrapper;
    for (int32_t i = 0; i < n; i++) {
        assert_true(rig->probs_digest[verdicts[i].ask->place] == probs_digest(rig, verdicts[i].ask));
    }
    rig->draft->kind->observe(rig->draft, verdicts, n);
}

static void wrapper_forget(struct draft *wrapper, const struct draft_farewell *farewell)
{
    struct draft_rig *rig = (struct draft_rig *)wrapper;
    rig->draft->kind->forget(rig->draft, farewell);
}

static void wrapper_destroy(struct draft *wrapper) { (void)wrapper; }

/* ---- open and close ---- */
static struct model *load(struct draft_rig *rig, const char *name, const char *quant)
{
    struct model_source *source;
    struct model *model;
    must(model_source_open_as(name, quant, &source));
    must(model_load(source, rig->lane, &(struct model_load_options){ .context = rig->options.context }, &model));
    model_source_close(source);
    return model;
}

static void open_ahead(struct draft_rig *rig, struct draft_model_options model)
{
    struct ahead_options options = *rig->options.ahead;
    const int n = rig->options.draft_threads > 0 ? rig->options.draft_threads : 1;
    must(lane_create(rig->backend, &(struct lane_options){ .n_workers = n, .caller_is_worker = true },
                     &rig->draft_lane));
    if (rig->options.on_lanes != NULL) {
        rig->options.on_lanes(rig->lane, rig->draft_lane);
    }
    model.lane = rig->draft_lane;
    options.grower.model = model;
    options.step_lane = rig->lane;
    must(draft_ahead_create(&options, &rig->draft));
}

static void open_draft(struct draft_rig *rig)
{
    const struct draft_rig_options *o = &rig->options;
    const int32_t page_slots = o->draft_page_slots > 0 ? o->draft_page_slots : o->page_slots;
    const int32_t context = o->draft_context > 0 ? o->draft_context : o->context;
    const struct draft_options common = { .n_vocab = rig->target->n_vocab, .context = o->context,
                                          .max_batch = o->max_batch, .k_max = o->k,
                                          .wants_prob = o->rule == VERIFY_REJECTION };
    if (o->k == 0) {
        must(draft_none_create(&rig->draft));
        return;
    }
    if (o->draft_layers != 0) {
        must(draft_layerskip_create(&(struct draft_layerskip_options){
            .common = common, .target = rig->target, .n_layers = o->draft_layers > 0 ? o->draft_layers : 0,
            .n_target_layers = model_get_config(rig->target_model)->n_layers }, &rig->draft));
        return;
    }
    if (o->draft != NULL || o->draft_quant != NULL) {
        rig->draft_model = load(rig, o->draft != NULL ? o->draft : o->target, o->draft_quant);
    }
    const struct model *model = rig->draft_model != NULL ? rig->draft_model : rig->target_model;
    const int32_t enough = o->max_batch * ((context + page_slots - 1) / page_slots);
    const struct draft_model_options options = {
        .common = common, .model = model, .lane = rig->lane, .kv = KV_F16, .context = context,
        .page_slots = page_slots, .n_pages = o->draft_pages > 0 ? o->draft_pages : enough,
        .prefill_chunk = o->draft_chunk, .n_vocab_common = o->n_vocab_common, .kept_ids = o->kept_ids,
        .n_kept = o->n_kept };
    if (o->ahead != NULL) {
        open_ahead(rig, options);
    } else {
        must(draft_model_create(&options, &rig->draft));
    }
    rig->fresh = draft_rig_model(rig)->store;
    rig->fresh.n_pages = (o->context + page_slots - 1) / page_slots;
    must(kv_store_init(rig->backend, &rig->fresh));
    must(pass_buffers_create(model, o->context, 1, &rig->fresh_buffers));
}

void draft_rig_open(struct draft_rig *rig, const struct draft_rig_options *options)
{
    static const struct draft_kind kind = { "wrapper", wrapper_propose, wrapper_observe, wrapper_forget,
                                            wrapper_destroy, wrapper_begin, wrapper_known, NULL };
    *rig = (struct draft_rig){ .options = *options };
    assert_in_range(options->max_batch, 1, sizeof rig->probs_digest / sizeof rig->probs_digest[0]);
    const struct draft_rig_options *o = &rig->options;
    must(backend_create("cpu", NULL, &rig->backend));
    must(lane_create(rig->backend, &(struct lane_options){ .n_workers = o->threads, .caller_is_worker = true },
                     &rig->lane));
    rig->target_model = load(rig, o->target, NULL);
    struct scheduler_options loop = {
        .context = o->context, .page_slots = o->page_slots, .max_batch = o->max_batch,
        .n_pages = o->n_pages > 0 ? o->n_pages : o->max_batch * ((o->context + o->page_slots - 1) / o->page_slots),
        .prefill_chunk = o->prefill_chunk, .k_max = o->k > o->n_nodes ? o->k : o->n_nodes, .fixed_k = o->k,
        .rule = o->rule, .prefix_cache = !o->no_prefix_cache,
    };
    must(model_target_create(&(struct model_target_options){
        .model = rig->target_model, .lane = rig->lane, .kv = KV_F16, .page_slots = o->page_slots,
        .n_pages = loop.n_pages, .cap_rows = scheduler_cap_rows(&loop),
        .cap_logits = scheduler_cap_logits(&loop) }, &rig->target));
    open_draft(rig);
    draft_base_init(&rig->wrapper, &kind, "model");
    rig->wrapper.context = rig->draft->context;
    rig->wrapper.n_sources = rig->draft->n_sources;
    memcpy(rig->wrapper.source_name, rig->draft->source_name, sizeof rig->wrapper.source_name);
    memcpy(rig->wrapper.calibration, rig->draft->calibration, sizeof rig->wrapper.calibration);
    loop.target = rig->target;
    loop.draft = &rig->wrapper;
    must(scheduler_create(&loop, &rig->scheduler));
}

void draft_rig_close(struct draft_rig *rig)
{
    scheduler_cancel_all(rig->scheduler);
    scheduler_destroy(rig->scheduler);
    for (int32_t i = 0; i < rig->n_requests; i++) {
        request_destroy(rig->requests[i]);
    }
    pass_buffers_destroy(rig->fresh_buffers);
    if (rig->fresh.k != NULL) {
        kv_store_deinit(rig->backend, &rig->fresh);
    }
    rig->draft->kind->destroy(rig->draft);
    target_destroy(rig->target);
    model_destroy(rig->draft_model);
    model_destroy(rig->target_model);
    lane_destroy(rig->draft_lane);
    lane_destroy(rig->lane);
    backend_destroy(rig->backend);
}

/* ---- requests ---- */
int32_t draft_rig_submit(struct draft_rig *rig, const struct draft_rig_request *spec)
{
    int32_t ids[512];
    struct td_request asked;
    const struct request_limits limits = { .n_vocab = rig->target->n_vocab, .context = rig->options.context };
    const int32_t idx = rig->n_requests++;
    assert_in_range(idx, 0, DRAFT_RIG_MAX_REQUESTS - 1);
    assert_in_range(spec->n_prompt, 1, 512);
    memory.requests[idx] = *spec;
    for (int32_t i = 0; i < spec->n_prompt; i++) {
        ids[i] = (int32_t)(rng_mix64(spec->prompt_seed * 1000 + (uint64_t)i) % 256);
    }
    ids[0] = spec->first_id > 0 ? spec->first_id - 1 : ids[0];
    td_request_init(&asked);
    asked.ids = ids;
    asked.n_ids = (size_t)spec->n_prompt;
    asked.max_tokens = spec->max_tokens;
    asked.temperature = spec->temperature;
    asked.top_p = spec->top_p > 0 ? spec->top_p : 1;
    asked.top_k = spec->top_k;
    asked.repetition_penalty = spec->repetition_penalty > 0 ? spec->repetition_penalty : 1;
    asked.has_seed = 1;
    asked.seed = spec->seed;
    asked.n = spec->n > 0 ? spec->n : 1;
    asked.ignore_eos = 1;
    asked.want_text = 0;
    must(request_create(&limits, &asked, &rig->requests[idx]));
    scheduler_submit(rig->scheduler, rig->requests[idx]);
    return idx;
}

const struct sequence *draft_rig_sequence(const struct draft_rig *rig, int32_t idx)
{
    return &rig->requests[idx]->sequences[0];
}

struct td_draft_counts draft_rig_counts(const struct draft_rig *rig)
{
    return scheduler_stats(rig->scheduler).drafted;
}

/* ---- O4: what is cached is what a fresh pass computes ---- */
static void fresh_pass(struct draft_rig *rig, const int32_t *tokens, int32_t n)
{
    const struct model_draft *draft = draft_rig_model(rig);
    const int32_t n_ids = model_get_config(draft->options.model)->n_vocab;
    int32_t rows[4][1024];
    uint32_t pages[1024];
    assert_in_range(n, 1, 1024);
    for (int32_t i = 0; i < n; i++) {
        rows[0][i] = tokens[i] < n_ids ? tokens[i] : 0;
        rows[1][i] = rows[2][i] = i;
        rows[3][i] = 0;
        pages[i] = (uint32_t)i;
    }
    const struct kv_view view = { .pages = pages, .n_pages = rig->fresh.n_pages };
    const struct pass pass = { .n_rows = n, .n_seqs = 1, .token = rows[0], .position = rows[1], .slot = rows[2],
                               .seq_of_row = rows[3], .views = &view };
    lane_wait(rig->lane, model_forward(draft->options.model, rig->lane, &rig->fresh, &pass, rig->fresh_buffers));
}

static void check_place(struct draft_rig *rig, const struct sequence *seq)
{
    const struct model_draft *draft = draft_rig_model(rig);
    const struct model_place *place = &draft->places[seq->table_idx];
    float k[2][512], v[2][512];
    const size_t bytes = (size_t)rig->fresh.n_kv_heads * (size_t)rig->fresh.head_dim * sizeof(float);
    if (!place->is_taken || place->seq_id != seq->id || place->epoch != seq->epoch ||
        kv_table_cached_len(place->table) == 0) {
        return;
    }
    const int32_t n = kv_table_cached_len(place->table);
    assert_in_range(n, 1, seq->n_tokens - 1);
    assert_in_range(bytes, 4, sizeof k[0]);
    fresh_pass(rig, seq->tokens, n);
    for (int32_t layer = 0; layer < rig->fresh.n_layers; layer++) {
        for (int32_t i = 0; i < n; i++) {
            kv_store_read(&rig->fresh, layer, i, k[0], v[0]);
            kv_store_read(&draft->store, layer, kv_table_slot(place->table, i), k[1], v[1]);
            assert_memory_equal(k[0], k[1], bytes);
            assert_memory_equal(v[0], v[1], bytes);
        }
    }
}

static void check_draft(struct draft_rig *rig)
{
    struct kv_table *tables[64];
    const struct model_draft *draft = draft_rig_model(rig);
    assert_in_range(rig->options.max_batch, 1, 64);
    if (rig->options.ahead != NULL) {
        draft_rig_settle(rig);
    }
    for (int32_t i = 0; i < rig->options.max_batch; i++) {
        tables[i] = draft->places[i].table;
    }
    must(kv_pool_check(draft->pool, tables, rig->options.max_batch));
    for (const struct lineup_item *item = rig->scheduler->running.first; item != NULL; item = item->after) {
        if (rig->options.checks_kv) {
            check_place(rig, (const struct sequence *)item);
        }
    }
}

void draft_rig_step(struct draft_rig *rig)
{
    scheduler_step(rig->scheduler);
    must(scheduler_check(rig->scheduler));
    const bool may_look = rig->options.ahead == NULL || rig->options.checks_kv; /* its thread may be at work */
    if (rig->options.k > 0 && rig->options.draft_layers == 0 && may_look) {
        check_draft(rig);
    }
}

void draft_rig_run(struct draft_rig *rig)
{
    while (scheduler_is_busy(rig->scheduler)) {
        draft_rig_step(rig);
    }
}

/* ---- O1 ---- */
static void assert_same(const struct sequence *a, const struct sequence *b)
{
    assert_int_equal(a->state, SEQUENCE_FINISHED);
    assert_int_equal(a->ending, b->ending);
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(a->tokens, b->tokens, (size_t)a->n_tokens * sizeof *a->tokens);
    assert_true(digest_value(&a->digest) == digest_value(&b->digest));
}

void draft_rig_assert_plain(const struct draft_rig *rig)
{
    static struct draft_rig plain;
    struct draft_rig_options options = rig->options;
    options.k = options.n_nodes = options.n_pages = 0;
    options.ahead = NULL;
    options.on_lanes = NULL;
    draft_rig_open(&plain, &options);
    for (int32_t i = 0; i < rig->n_requests; i++) {
        const struct draft_rig_request spec = memory.requests[i];
        draft_rig_submit(&plain, &spec);
    }
    draft_rig_run(&plain);
    for (int32_t i = 0; i < rig->n_requests; i++) {
        assert_int_equal(rig->requests[i]->n_choices, plain.requests[i]->n_choices);
        for (int32_t c = 0; c < rig->requests[i]->n_choices; c++) {
            assert_same(&rig->requests[i]->sequences[c], &plain.requests[i]->sequences[c]);
        }
    }
    draft_rig_close(&plain);
}
