/* grower: the half of SSD that computes (see ahead.h): enter, glue, fork, grow, leave. A model draft lends
 * it places, pages and weights; its passes are wider, so their buffers are its own. */
#include <string.h>

#include "draft/grower_private.h"

/* ---- passes ---- */
bool grower_forward(struct grower *grower, const struct pass *pass, const float **logits)
{
    grower->pass = *pass;
    grower->report.rows += (uint64_t)pass->n_rows;
    return model_draft_pass(grower->model, &grower->pass, grower->buffers, logits);
}

const float *grower_row(const struct grower *grower, const float *logits, int32_t i)
{
    return logits != NULL ? logits + (size_t)i * grower_row_len(grower) : NULL;
}

size_t grower_row_len(const struct grower *grower)
{
    const struct model_draft *model = grower->model;
    return (size_t)(model->head.data != NULL ? model->head.n_out : model_get_config(model->options.model)->n_vocab);
}

/* ---- growing ---- */
/* The input of step i is the token that step i - 1 chose; the first one's is the branch's own. */
static void add_row(struct grower *grower, struct growing_branch *growing, int32_t step)
{
    const struct glued_round *glued = growing->glued;
    const int32_t n_ids = model_get_config(grower->options.model.model)->n_vocab;
    const int32_t token = step == 0 ? growing->branch->token : growing->branch->next[step - 1];
    growing->places[step] = glued->first_place + step * glued->table->n_branches + growing->idx;
    if (mutant(MUTANT_BRANCH_SEES_NEIGHBOUR) && step > 0) {
        growing->places[step - 1] += growing->idx + 1 < glued->table->n_branches ? 1 : -1;
    }
    batch_add_branch(grower->batch, &(struct batch_branch){
        .table = glued->place->table, .places = growing->places, .n_places = step + 1,
        .fork = growing->fork + mutant(MUTANT_BRANCH_FORKS_LATE),
        .token = token < n_ids ? token : 0 });
}

/* Ends what has its tokens, and says how many branches and steps are left. */
static int32_t count_open(struct grower *grower, int32_t step, int32_t *n_steps_left)
{
    int32_t n_open = 0;
    *n_steps_left = 0;
    for (int32_t i = 0; i < grower->n_growing; i++) {
        struct growing_branch *growing = &grower->growing[i];
        const int32_t n_left = growing->glued->k_next - step;
        growing->is_open = growing->is_open && n_left > 0;
        n_open += growing->is_open;
        *n_steps_left = growing->is_open && n_left > *n_steps_left ? n_left : *n_steps_left;
    }
    return n_open;
}

/* Rows of the likeliest; the others end here. */
static int32_t add_step(struct grower *grower, const struct grower_call *call, int32_t step)
{
    int32_t n = 0, n_steps_left;
    const int32_t n_open = count_open(grower, step, &n_steps_left);
    const int32_t n_max = n_open > 0 ? grower_pace(grower, call, n_open, n_steps_left) : 0;
    for (int32_t i = 0, n_kept = 0; i < grower->n_growing; i++) {
        struct growing_branch *growing = grower->order[i];
        growing->is_open = growing->is_open && n_kept < n_max;
        n_kept += growing->is_open;
    }
    batch_clear(grower->batch);
    for (int32_t i = 0; i < grower->n_growing; i++) {
        struct growing_branch *growing = &grower->growing[i];
        if (growing->is_open) {
            add_row(grower, growing, step);
            grower->choosing[n++] = growing;
        }
    }
    return n;
}

static float *prob_row(const struct grower *grower, const struct growing_branch *growing, int32_t step)
{
    const struct draft_options *common = &grower->options.model.common;
    const size_t row = (size_t)(growing - grower->growing) * (size_t)common->k_max + (size_t)step;
    return grower->probs[grower->bank] + row * (size_t)common->n_vocab;
}

/* Penalties look back along the branch itself: its tokens behind those of its round, in an array that
 * the branches share, so that these choices are made one by one. */
static void choose_behind_path(struct grower *grower, struct growing_branch *growing, int32_t step)
{
    const struct ahead_round *round = growing->glued->round;
    struct draft_choice *choice = &growing->choice;
    if (grower->history_of != growing->glued) {
        memcpy(grower->history, round->tokens, (size_t)round->n_tokens * sizeof *grower->history);
        grower->history_of = growing->glued;
    }
    memcpy(grower->history + round->n_tokens, round->tokens + round->n_tokens,
           (size_t)(growing->fork - round->n_tokens) * sizeof *grower->history);
    grower->history[growing->fork] = growing->branch->token;
    memcpy(grower->history + growing->fork + 1, growing->branch->next, (size_t)step * sizeof *grower->history);
    choice->history = grower->history;
    choice->n_history = choice->position;
    draft_chooser_run(grower->chooser, &choice, 1);
}

static void choose_all(struct grower *grower, int32_t n, int32_t step)
{
    int32_t n_free = 0;
    for (int32_t i = 0; i < n; i++) {
        struct growing_branch *growing = grower->choosing[i];
        if (sampling_uses_history(growing->choice.params)) {
            choose_behind_path(grower, growing, step);
        } else {
            grower->choices[n_free++] = &growing->choice;
        }
    }
    draft_chooser_run(grower->chooser, grower->choices, n_free);
}

static void choose_step(struct grower *grower, const float *logits, int32_t n, int32_t step)
{
    for (int32_t i = 0; i < n; i++) {
        struct growing_branch *growing = grower->choosing[i];
        const struct ahead_round *round = growing->glued->round;
        ASSERT(!round->wants_prob || grower->probs[0] != NULL);
        growing->choice = (struct draft_choice){
            .params = round->params, .history = round->tokens, .n_history = growing->fork,
            .position = growing->fork + step + 1 + mutant(MUTANT_BRANCH_NOISE_ELSEWHERE),
            .logits = grower_row(grower, logits, i), .row = i,
            .prob = round->wants_prob ? prob_row(grower, growing, step) : NULL };
    }
    choose_all(grower, n, step);
    for (int32_t i = 0; i < n; i++) {
        struct growing_branch *growing = grower->choosing[i];
        growing->is_open = growing->choice.token >= 0 && growing->fork + step + 1 < grower->base->context;
        growing->branch->next[step] = growing->choice.token;
        growing->branch->hint[step] = growing->choice.hint;
        growing->branch->prob[step] = growing->choice.prob;
    }
}

static void publish_step(struct grower *grower, int32_t step)
{
    for (int32_t i = 0; i < grower->n_glued; i++) {
        if (grower->glued[i].is_forked && step < grower->glued[i].k_next) {
            atomic_store_explicit(&grower->glued[i].table->n_ready, step + 1, memory_order_release);
        }
    }
    grower->report.steps++;
}

static bool is_stopped(const atomic_int *stop) { return atomic_load(stop) && !mutant(MUTANT_GROWER_NEVER_STOPS); }

static void grow(struct grower *grower, const struct grower_call *call)
{
    const int64_t begin_ns = clock_now_ns();
    for (int32_t step = 0; step < DRAFT_MAX_NODES && !is_stopped(call->stop); step++) {
        const int64_t span_ns = timeline_begin();
        const int32_t n = add_step(grower, call, step);
        if (n == 0) {
            break;
        }
        const int64_t step_ns = clock_now_ns();
        const float *logits;
        if (!grower_forward(grower, batch_pass(grower->batch), &logits)) {
            break;
        }
        if (mutant(MUTANT_TABLE_READY_EARLY)) {
            publish_step(grower, step);
        }
        choose_step(grower, logits, n, step);
        publish_step(grower, step);
        timeline_end(TIMELINE_DRAFT, &timeline_grow, span_ns, step, n);
        gain_times_observe(&grower->grow, n, (double)(clock_now_ns() - step_ns) * 1e-9);
    }
    grower->report.grow_seconds += (double)(clock_now_ns() - begin_ns) * 1e-9;
}

/* ---- how much ---- */
enum { CHOOSE_EVERY = 16, CHOOSE_FIRST = 6, TRY_AGAIN_EVERY = 64, EIGHTHS = 8 };

/* Sizes of steps are measured by trying them, in the first calls and now and then again: what is not known
 * is neither cheap nor dear. In eighths of all branches; each call gives a few samples of its size. */
static int32_t rows_to_try(const struct grower *grower)
{
    static const int32_t eighths[CHOOSE_FIRST] = { 8, 2, 4, 1, 6, 3 };
    const uint64_t n = grower->n_calls;
    if (n >= CHOOSE_FIRST && n % TRY_AGAIN_EVERY != 0) {
        return 0;
    }
    const int32_t part = eighths[(n < CHOOSE_FIRST ? n : n / TRY_AGAIN_EVERY) % CHOOSE_FIRST];
    const int32_t rows = (grower->options.max_budget * part + EIGHTHS - 1) / EIGHTHS;
    return rows > 0 ? rows : 1;
}

/* Budget and length for the calls to come, now that nobody waits. */
static void choose_size(struct grower *grower, const struct grower_call *call)
{
    const int32_t first = grower->report.choice.budget > 0 ? CHOOSE_EVERY : CHOOSE_FIRST;
    if (++grower->n_since_choice < first || call->n_rounds == 0) {
        return;
    }
    grower->n_since_choice = 0;
    grower->report.choice = gain_choose(&(struct gain_inputs){
        .verify = &grower->verify, .glue = &grower->glue, .grow = &grower->grow,
        .after_hit = &grower->counts[0], .after_miss = &grower->counts[1],
        .acceptance = (float)grower->report.acceptance, .tail = GROWER_TAIL,
        .k_max = call->rounds[0].k_next, .max_budget = grower->options.max_budget,
        .fixed_budget = grower->options.fanout.budget, .n_seqs = call->n_rounds, .k_fallback = call->k_fallback,
        .fallback_seconds = call->fallback_seconds,
        .end = grower->options.never_stops_early ? GAIN_GROWS_TO_THE_END : GAIN_STOPS_EARLY });
}

int32_t grower_budget(const struct grower *grower)
{
    const int32_t fixed = grower->options.fanout.budget, chosen = grower->report.choice.budget;
    const int32_t budget = fixed > 0 ? fixed : chosen > 0 && grower->rows_tried == 0 ? chosen
                                                                                      : grower->options.max_budget;
    return budget < grower->options.max_budget ? budget : grower->options.max_budget;
}

/* ---- a call ---- */
static void begin_tables(const struct grower_call *call)
{
    for (int32_t i = 0; i < call->n_rounds; i++) {
        const struct ahead_round *round = &call->rounds[i];
        struct ahead_table *table = &call->tables[i];
        ASSERT(round->n_proposed >= 0 && round->n_proposed <= DRAFT_MAX_NODES && round->k_next <= DRAFT_MAX_NODES);
        table->n_branches = 0; /* nobody reads below n_ready = -1 */
    }
}

/* Until some round has its rows: others that have much to catch up on go on in the next call. */
static void glue_and_fork(struct grower *grower, const struct grower_call *call)
{
    int32_t n_forked = 0;
    grower_enter(grower, call);
    while (n_forked == 0 && !atomic_load(call->stop)) {
        const float *logits;
        const int64_t begin_ns = clock_now_ns(), span_ns = timeline_begin();
        if (!grower_glue_pass(grower, &logits)) {
            return;
        }
        timeline_end(TIMELINE_DRAFT, &timeline_glue, span_ns, grower->pass.n_rows, grower->n_glued);
        const int64_t glued_ns = clock_now_ns(), fork_span_ns = timeline_begin();
        n_forked = grower_fork(grower, logits);
        timeline_end(TIMELINE_DRAFT, &timeline_fork, fork_span_ns, grower->n_growing, n_forked);
        grower->report.glue_seconds += (double)(glued_ns - begin_ns) * 1e-9;
        grower->report.fork_seconds += (double)(clock_now_ns() - glued_ns) * 1e-9;
        gain_times_observe(&grower->glue, batch_pass(grower->batch)->n_rows,
                           (double)(clock_now_ns() - begin_ns) * 1e-9);
    }
}

/* A bug to be found: the place behind the round's own holds a branch's KV, whatever came true. */
static void keep_branch(const struct glued_round *glued)
{
    struct model_place *place = glued->place;
    for (int32_t j = 0; mutant(MUTANT_BRANCH_KEPT) && j < glued->table->n_branches; j++) {
        const struct ahead_branch *branch = &glued->table->branch[j];
        if (branch->n_accepted == glued->round->n_proposed && place->n_tail < DRAFT_MAX_NODES) {
            place->tail[place->n_tail++] = branch->token;
            return;
        }
    }
}

void grower_run(struct grower *grower, const struct grower_call *call)
{
    ASSERT(call->n_rounds <= grower->options.model.common.max_batch);
    grower->bank = !grower->bank && !mutant(MUTANT_GROWER_ONE_BANK);
    grower->rows_tried = rows_to_try(grower) * call->n_rounds;
    grower->n_calls++;
    grower->n_growing = 0;
    grower->history_of = NULL;
    begin_tables(call);
    for (int32_t i = 0; i < call->n_rounds; i++) {
        grower_learn(grower, &call->rounds[i]);
        grower->report.rounds++;
    }
    gain_times_observe(&grower->verify, call->verify_rows, (double)call->verify_ns * 1e-9);
    glue_and_fork(grower, call);
    grow(grower, call);
    for (int32_t i = 0; i < grower->n_glued; i++) {
        if (grower->glued[i].place != NULL) {
            model_draft_leave(grower->model, &grower->glued[i].ask, grower->glued[i].next_position);
            keep_branch(&grower->glued[i]);
        }
    }
    choose_size(grower, call);
}

void grower_draft(struct grower *grower, const struct grower_draft_call *call)
{
    struct lane *own = grower->options.model.lane;
    grower->base->calibration[0] = *call->calibration;
    model_draft_use_lane(grower->model, call->lane != NULL ? call->lane : own);
    grower->base->kind->propose(grower->base, call->asks, call->n_asks);
    model_draft_use_lane(grower->model, own);
}

void grower_forget(struct grower *grower, const struct draft_farewell *farewell)
{
    grower->ranked[farewell->place].is_there = false;
    grower->base->kind->forget(grower->base, farewell);
}

struct grower_report grower_report(const struct grower *grower) { return grower->report; }
struct draft *grower_model_draft(struct grower *grower) { return grower->base; }

/* ---- creation ---- */
static enum status check_options(const struct grower_options *options)
{
    if (options->max_budget < 1 || options->max_budget > FANOUT_MAX_BUDGET || options->fanout.budget < 0 ||
        options->fanout.budget > options->max_budget) {
        return status_fail(STATUS_INVALID, "expected a budget of 1 to %d outcomes to prepare for, found %d of %d",
                           FANOUT_MAX_BUDGET, options->fanout.budget, options->max_budget);
    }
    return STATUS_OK;
}

/* With room behind each context for the widest round. */
static enum status open_model(struct grower *grower)
{
    struct draft_model_options model = grower->options.model;
    const int32_t k_max = model.common.k_max, slots = model.page_slots;
    model.scratch_slots = DRAFT_MAX_NODES + k_max * grower->options.max_budget;
    const int64_t n_pages = model.n_pages +
                            (int64_t)model.common.max_batch * ((model.scratch_slots + slots - 1) / slots + 1);
    if (n_pages > INT32_MAX / slots) {
        return status_fail(STATUS_INVALID, "expected fewer than 2^31 KV slots of a draft, found %lld pages of %d",
                           (long long)n_pages, slots);
    }
    model.n_pages = (int32_t)n_pages;
    TRY(draft_model_create(&model, &grower->base));
    grower->model = (struct model_draft *)grower->base;
    return STATUS_OK;
}

static void *take(struct grower *grower, size_t n, size_t bytes)
{
    grower->bytes += n * bytes; /* n: a few thousand at most but for probs, which mem_alloc checks */
    return mem_alloc(n, bytes);
}

static enum status open_arrays(struct grower *grower)
{
    const struct draft_options *common = &grower->options.model.common;
    const size_t n = (size_t)common->max_batch, n_rows = n * (DRAFT_MAX_NODES + 1);
    const size_t n_branches = n * (size_t)grower->options.max_budget;
    grower->feed = take(grower, (size_t)grower->options.model.prefill_chunk + DRAFT_MAX_NODES + 1, sizeof(int32_t));
    grower->history = take(grower, (size_t)common->context + 2 * DRAFT_MAX_NODES, sizeof(int32_t));
    grower->glued = take(grower, n, sizeof *grower->glued);
    grower->ranked = take(grower, n, sizeof *grower->ranked);
    grower->ranked_ids = take(grower, n_rows * DRAFT_MAX_RANKED, sizeof(int32_t));
    grower->rankings = take(grower, n_rows, sizeof *grower->rankings);
    grower->ranking_list = take(grower, n_rows, sizeof(struct draft_ranking *));
    grower->growing = take(grower, n_branches, sizeof *grower->growing);
    grower->order = take(grower, n_branches, sizeof(struct growing_branch *));
    grower->worth = take(grower, n_branches + 1, sizeof *grower->worth);
    grower->choosing = take(grower, n_branches, sizeof(struct growing_branch *));
    grower->choices = take(grower, n_branches, sizeof(struct draft_choice *));
    if (grower->feed == NULL || grower->history == NULL || grower->glued == NULL || grower->ranked == NULL || grower->ranked_ids == NULL ||
        grower->rankings == NULL || grower->ranking_list == NULL || grower->growing == NULL || grower->order == NULL ||
        grower->worth == NULL ||
        grower->choosing == NULL || grower->choices == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory to prepare for %zu outcomes", n_branches);
    }
    for (size_t i = 0; i < n; i++) {
        grower->ranked[i].id = grower->ranked_ids + i * (DRAFT_MAX_NODES + 1) * DRAFT_MAX_RANKED;
    }
    for (int bank = 0; bank < 2 && common->wants_prob; bank++) {
        grower->probs[bank] = take(grower, n_branches * (size_t)common->k_max * (size_t)common->n_vocab,
                                   sizeof(float));
        if (grower->probs[bank] == NULL) {
            return status_fail(STATUS_NO_MEMORY, "no memory for the distributions of %zu branches of %d tokens",
                               n_branches, common->k_max);
        }
    }
    return STATUS_OK;
}

static enum status open_passes(struct grower *grower)
{
    const struct draft_model_options *model = &grower->options.model;
    const int32_t n = model->common.max_batch;
    const int32_t n_glue = n * (DRAFT_MAX_NODES + 1), n_grow = n * grower->options.max_budget;
    const int32_t n_logits = n_glue > n_grow ? n_glue : n_grow;
    const int32_t n_rows = n_glue + model->prefill_chunk > n_grow ? n_glue + model->prefill_chunk : n_grow;
    TRY(pass_buffers_create(model->model, n_rows, n_logits, &grower->buffers));
    TRY(batch_create(&(struct batch_caps){ .n_rows = n_rows, .n_seqs = n, .n_logits = n_logits,
                                           .n_views = n + n_grow }, &grower->batch));
    return draft_chooser_create(&(struct draft_chooser_options){
        .lane = model->lane, .n_vocab = model->common.n_vocab,
        .n_vocab_common = grower->model->options.n_vocab_common, .kept_ids = model->kept_ids,
        .n_kept = model->n_kept, .n_reshaped = model->n_reshaped, .reshape = model->reshape,
        .ranks = true, .desk = model_draft_desk(grower->model, grower->buffers), .cap_choices = n_logits },
        &grower->chooser);
}

enum status grower_create(const struct grower_options *options, struct grower **out)
{
    enum status status = STATUS_OK;
    *out = NULL;
    TRY(check_options(options));
    struct grower *grower = mem_alloc(1, sizeof *grower);
    if (grower == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft that works ahead");
    }
    grower->options = *options;
    grower->report.acceptance = 0.8; /* until there are outcomes */
    TRY_GOTO(open_model(grower), out);
    TRY_GOTO(open_arrays(grower), out);
    TRY_GOTO(open_passes(grower), out);
    grower->options.model.kept_ids = NULL; /* the caller's; what is needed of them was copied */
    *out = grower;
    return STATUS_OK;
out:
    grower_destroy(grower);
    return status;
}

void grower_destroy(struct grower *grower)
{
    if (grower == NULL) {
        return;
    }
    draft_chooser_destroy(grower->chooser);
    batch_destroy(grower->batch);
    pass_buffers_destroy(grower->buffers);
    mem_free(grower->probs[0]);
    mem_free(grower->probs[1]);
    mem_free(grower->choices);
    mem_free(grower->choosing);
    mem_free(grower->worth);
    mem_free(grower->order);
    mem_free(grower->growing);
    mem_free(grower->ranking_list);
    mem_free(grower->rankings);
    mem_free(grower->ranked_ids);
    mem_free(grower->ranked);
    mem_free(grower->glued);
    mem_free(grower->history);
    mem_free(grower->feed);
    if (grower->base != NULL) {
        grower->base->kind->destroy(grower->base);
    }
    mem_free(grower);
}

uint64_t grower_bytes(const struct grower *grower)
{
    return grower->bytes + draft_model_bytes(grower->base) + pass_buffers_bytes(grower->buffers) +
           draft_chooser_bytes(grower->chooser);
}

uint64_t grower_kv_bytes(const struct grower *grower) { return draft_model_kv_bytes(grower->base); }
