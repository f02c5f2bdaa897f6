/* model: a smaller model guesses. What it computes lies in KV pages of its own; what was committed since
 * it was asked last is fed first, and nothing is ever undone but by a length (I3).
 *
 *     tokens   | committed, fed          | not fed | k proposed |
 *     cached_len ────────────────────────┘         │
 *     n_tokens ────────────────────────────────────┘
 *
 * A draft's cached_len = min(what was fed and is committed, n_tokens - 1): the last committed token is
 * always fed by the round, since its logits choose the first proposal. It lags by one after a full
 * acceptance, by any number after rounds that did not ask (I7).
 */
#include "draft/model_draft.h"

#include <string.h>

/* ---- places ---- */
static void empty_place(struct model_place *place)
{
    kv_table_clear(place->table);
    place->n_tail = 0;
}

/* The tail, as far as it was committed, becomes cached; at most max_cached tokens are. */
static void settle_tail(struct model_place *place, const int32_t *tokens, int32_t max_cached)
{
    int32_t cached = kv_table_cached_len(place->table);
    for (int32_t i = 0; i < place->n_tail && cached < max_cached; i++, cached++) {
        if (place->tail[i] != tokens[cached] && !mutant(MUTANT_DRAFT_LAG)) {
            break;
        }
    }
    place->n_tail = 0;
    cached = cached < max_cached ? cached : max_cached;
    kv_table_rollback(place->table, cached);
    kv_table_commit(place->table, cached - kv_table_committed_len(place->table));
    kv_table_set_cached(place->table, cached);
}

struct model_place *model_draft_enter(struct model_draft *draft, const struct draft_ask *ask)
{
    ASSERT(ask->place >= 0 && ask->place < draft->options.common.max_batch);
    struct model_place *place = &draft->places[ask->place];
    const bool is_another = place->seq_id != ask->seq_id || place->epoch != ask->epoch;
    if (!place->is_taken || (is_another && !mutant(MUTANT_DRAFT_STALE_PLACE))) {
        empty_place(place);
        place->is_taken = true;
        place->seq_id = ask->seq_id;
        place->epoch = ask->epoch;
    }
    if (kv_table_reserved_len(place->table) == 0) {
        kv_prefix_attach(draft->prefix, ask->tenant, ask->tokens, ask->n_tokens, place->table);
    }
    settle_tail(place, ask->tokens, ask->n_tokens - 1);
    return place;
}

/* Pages of a refused one go back, so that the others need not stop too; what is in the prefix tree is
 * found there again. */
bool model_draft_take_pages(struct model_draft *draft, struct model_place *place, const struct draft_ask *ask,
                            int32_t end)
{
    const int32_t cached = kv_table_cached_len(place->table);
    int32_t n_copies = 0;
    if (kv_table_reserve(place->table, end) != STATUS_OK ||
        kv_table_prepare_write(place->table, cached, end - cached, draft->copies + draft->n_copies,
                               draft->n_copies_max - draft->n_copies, &n_copies) != STATUS_OK) {
        empty_place(place);
        return false;
    }
    draft->n_copies += n_copies;
    kv_table_commit(place->table, ask->n_tokens - kv_table_committed_len(place->table));
    kv_table_trim(place->table, end);
    return true;
}

void model_draft_leave(struct model_draft *draft, const struct draft_ask *ask, int32_t n_fed)
{
    struct model_place *place = &draft->places[ask->place];
    const int32_t cached = n_fed < ask->n_tokens ? n_fed : ask->n_tokens;
    kv_table_set_cached(place->table, cached);
    place->n_tail = n_fed - cached;
    ASSERT(place->n_tail >= 0 && place->n_tail <= DRAFT_MAX_NODES);
    memcpy(place->tail, ask->tokens + cached, (size_t)place->n_tail * sizeof *place->tail);
    kv_prefix_publish(draft->prefix, ask->tenant, ask->tokens, place->table);
}

struct pass_desk *model_draft_desk(const struct model_draft *draft, const struct pass_buffers *buffers)
{
    return draft->options.common.wants_prob ? NULL : pass_buffers_desk(buffers);
}

/* A pass without rows to choose from is waited for: the next one may come on another lane. */
bool model_draft_pass(struct model_draft *draft, struct pass *pass, struct pass_buffers *buffers, const float **logits)
{
    const int64_t begin_ns = clock_now_ns(), least_ns = draft->options.least_pass_ns;
    pass->head = draft->head.data != NULL ? &draft->head : NULL;
    pass->rows_stay = pass->n_logits > 0 && model_draft_desk(draft, buffers) != NULL;
    const uint64_t ticket = model_forward(draft->options.model, draft->options.lane, &draft->store, pass, buffers);
    if (!pass->rows_stay || least_ns > 0) {
        lane_wait(draft->options.lane, ticket);
    }
    if (least_ns > 0) {
        clock_wait_until(begin_ns + least_ns);
    }
    *logits = pass->rows_stay ? NULL : pass_buffers_logits(buffers);
    return backend_health(draft->backend) == STATUS_OK; /* I9; once failed, every pass from then on */
}

void model_draft_use_lane(struct model_draft *draft, struct lane *lane)
{
    draft->options.lane = lane;
    draft_chains_use_lane(draft->chains, lane);
}

/* ---- the table of functions ---- */
void model_draft_submit_copies(struct model_draft *draft)
{
    for (int32_t i = 0; i < draft->n_copies; i++) {
        backend_page_copy(draft->options.lane, &(struct op_page_copy){
            .store = &draft->store, .src = draft->copies[i].src, .dst = draft->copies[i].dst });
    }
}

static bool model_draft_forward(void *user, const struct pass *pass, const float **logits)
{
    struct model_draft *draft = user;
    draft->pass = *pass;
    return model_draft_pass(draft, &draft->pass, draft->buffers, logits);
}

static void model_draft_propose(struct draft *base, struct draft_ask *asks, int32_t n_asks)
{
    struct model_draft *draft = (struct model_draft *)base;
    draft->n_copies = 0;
    draft_chains_begin(draft->chains);
    for (int32_t i = 0; i < n_asks; i++) {
        struct draft_ask *ask = &asks[i];
        const int32_t room = base->context - (ask->n_tokens - 1);
        const int32_t k = ask->k_max < room ? ask->k_max : room;
        ask->proposal.n = 0;
        if (k < 1) {
            continue; /* no work for it, and its pages may wait */
        }
        ASSERT(k <= draft->options.common.k_max);
        struct model_place *place = model_draft_enter(draft, ask);
        if (model_draft_take_pages(draft, place, ask, ask->n_tokens - 1 + k)) {
            struct draft_chain *chain = draft_chains_add(draft->chains, ask);
            chain->table = place->table;
            chain->next_position = kv_table_cached_len(place->table);
            chain->k_max = k;
        }
    }
    model_draft_submit_copies(draft); /* the lane keeps the order: before any row is written */
    draft_chains_run(draft->chains);
    for (int32_t i = 0; i < draft_chains_n(draft->chains); i++) {
        const struct draft_chain *chain = draft_chains_at(draft->chains, i);
        model_draft_leave(draft, chain->ask, chain->next_position);
    }
}

static void model_draft_forget(struct draft *base, const struct draft_farewell *farewell)
{
    struct model_draft *draft = (struct model_draft *)base;
    struct model_place *place = &draft->places[farewell->place];
    if (place->is_taken && place->seq_id == farewell->seq_id && place->epoch == farewell->epoch) {
        settle_tail(place, farewell->tokens, farewell->n_tokens);
        kv_prefix_publish(draft->prefix, farewell->tenant, farewell->tokens, place->table);
    }
    if (mutant(MUTANT_DRAFT_STALE_PLACE)) {
        return;
    }
    if (!mutant(MUTANT_DRAFT_PAGES_LEAK)) {
        empty_place(place);
    }
    place->is_taken = false;
}

static void model_draft_destroy(struct draft *base)
{
    struct model_draft *draft = (struct model_draft *)base;
    draft_chains_destroy(draft->chains);
    pass_buffers_destroy(draft->buffers);
    draft_head_deinit(draft->backend, &draft->head);
    mem_free(draft->copies);
    for (int32_t i = 0; draft->places != NULL && i < draft->options.common.max_batch; i++) {
        kv_table_destroy(draft->places[i].table);
    }
    mem_free(draft->places);
    kv_prefix_destroy(draft->prefix);
    kv_pool_destroy(draft->pool);
    if (draft->store.k != NULL) {
        kv_store_deinit(draft->backend, &draft->store);
    }
    mem_free(draft);
}

/* ---- creation ---- */
static int32_t min_i32(int32_t a, int32_t b) { return a < b ? a : b; }

static enum status check_kept_ids(const struct draft_model_options *options)
{
    if (options->n_kept < 1) {
        return status_fail(STATUS_INVALID, "expected at least 1 token that a draft may propose, found %d",
                           options->n_kept);
    }
    for (int32_t i = 0; i < options->n_kept; i++) {
        const int32_t id = options->kept_ids[i];
        if (id < 0 || id >= options->n_vocab_common || (i > 0 && id <= options->kept_ids[i - 1])) {
            return status_fail(STATUS_INVALID, "expected ascending ids below %d that a draft may propose, found %d "
                               "at place %d", options->n_vocab_common, id, i);
        }
    }
    return STATUS_OK;
}

static enum status check_options(struct draft_model_options *options)
{
    const struct model_config *config = model_get_config(options->model);
    const int32_t n_both = min_i32(config->n_vocab, options->common.n_vocab);
    if (options->common.max_batch < 1 || options->common.k_max < 1 || options->common.k_max > DRAFT_MAX_NODES ||
        options->prefill_chunk < 1) {
        return status_fail(STATUS_INVALID, "expected a batch and a prefill chunk of at least 1 and K between 1 and "
                           "%d for a draft, found %d, %d and %d", DRAFT_MAX_NODES, options->common.max_batch,
                           options->prefill_chunk, options->common.k_max);
    }
    if (options->context < 2 || options->context > config->context_len) {
        return status_fail(STATUS_INVALID, "expected a draft context between 2 and the %d positions of %s, found %d",
                           config->context_len, config->name, options->context);
    }
    if (options->n_reshaped < 0 || options->n_reshaped > SAMPLING_MAX_RESHAPED || !(options->reshape >= 0) ||
        options->reshape > 1) {
        return status_fail(STATUS_INVALID, "expected 0 to %d ids to weigh 0 to 1 of what they did, found %d and %g",
                           SAMPLING_MAX_RESHAPED, options->n_reshaped, (double)options->reshape);
    }
    options->context = min_i32(options->context, options->common.context);
    options->n_vocab_common = options->n_vocab_common == 0 ? n_both : options->n_vocab_common;
    if (options->n_vocab_common < 1 || options->n_vocab_common > n_both) {
        return status_fail(STATUS_INVALID, "expected between 1 and %d tokens common to draft and target, found %d",
                           n_both, options->n_vocab_common);
    }
    return options->kept_ids != NULL ? check_kept_ids(options) : STATUS_OK;
}

static enum status open_pages(struct model_draft *draft)
{
    const struct draft_model_options *options = &draft->options;
    const struct model_config *config = model_get_config(options->model);
    const int32_t n = options->common.max_batch;
    draft->store = (struct kv_store){
        .type = options->kv, .n_layers = config->n_layers, .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim, .page_slots = options->page_slots, .n_pages = options->n_pages,
    };
    TRY(kv_pool_create(options->n_pages, options->page_slots, &draft->pool));
    TRY(kv_prefix_create(draft->pool, &draft->prefix));
    TRY(kv_store_init(draft->backend, &draft->store));
    const int32_t n_places = options->context + options->scratch_slots;
    draft->n_copies_max = n * (n_places / options->page_slots + 2);
    draft->places = mem_alloc((size_t)n, sizeof *draft->places);
    draft->copies = mem_alloc((size_t)draft->n_copies_max, sizeof *draft->copies);
    if (draft->places == NULL || draft->copies == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft of %d sequences", n);
    }
    for (int32_t i = 0; i < n; i++) {
        TRY(kv_table_create(draft->pool, n_places, &draft->places[i].table));
    }
    return STATUS_OK;
}

static enum status open_passes(struct model_draft *draft)
{
    const struct draft_model_options *options = &draft->options;
    const struct model_config *config = model_get_config(options->model);
    const int32_t n = options->common.max_batch;
    const bool is_cut = options->kept_ids != NULL;
    if (is_cut) {
        TRY(draft_head_init(draft->backend, model_head(options->model), options->kept_ids, options->n_kept,
                            &draft->head));
    }
    TRY(pass_buffers_create(options->model, n + options->prefill_chunk, n, &draft->buffers));
    return draft_chains_create(&(struct draft_chains_options){
        .draft = &draft->base, .common = options->common, .catch_up_rows = options->prefill_chunk,
        .n_ids = config->n_vocab, .forward = model_draft_forward, .user = draft,
        .row_len = is_cut ? options->n_kept : config->n_vocab,
        .chooser = { .lane = options->lane, .n_vocab = options->common.n_vocab,
                     .n_vocab_common = options->n_vocab_common, .kept_ids = options->kept_ids,
                     .n_kept = options->n_kept, .n_reshaped = options->n_reshaped,
                     .reshape = options->reshape, .desk = model_draft_desk(draft, draft->buffers),
                     .cap_choices = n },
    }, &draft->chains);
}

enum status draft_model_create(const struct draft_model_options *options, struct draft **out)
{
    static const struct draft_kind kind = {
        .name = "model",
        .propose = model_draft_propose,
        .observe = draft_observe_nothing, /* tokens are compared when the next round begins */
        .forget = model_draft_forget,
        .destroy = model_draft_destroy,
    };
    enum status status = STATUS_OK;
    *out = NULL;
    struct model_draft *draft = mem_alloc(1, sizeof *draft);
    if (draft == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft");
    }
    draft->options = *options;
    draft->backend = lane_backend(options->lane);
    TRY_GOTO(check_options(&draft->options), out);
    draft_base_init(&draft->base, &kind, "model");
    draft->base.context = draft->options.context;
    draft->base.is_costly = true;
    TRY_GOTO(open_pages(draft), out);
    TRY_GOTO(open_passes(draft), out);
    draft->options.kept_ids = NULL; /* the caller's; what is needed of them was copied */
    *out = &draft->base;
    return STATUS_OK;
out:
    model_draft_destroy(&draft->base);
    return status;
}

uint64_t draft_model_bytes(const struct draft *base)
{
    const struct model_draft *draft = (const struct model_draft *)base;
    return kv_store_bytes(&draft->store) + pass_buffers_bytes(draft->buffers) + draft_chains_bytes(draft->chains) +
           draft_head_bytes(draft->backend, &draft->head);
}

uint64_t draft_model_kv_bytes(const struct draft *base)
{
    return kv_store_bytes(&((const struct model_draft *)base)->store);
}
