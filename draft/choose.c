/* choose: see the header. */
#include "draft/chooser.h"

#include <string.h>

enum { EXP_BLOCK = 2048 }; /* floats summed on the stack at a time */

/* ---- creation ---- */
static enum status open_desk(struct draft_chooser *chooser, struct chooser_desk *desk)
{
    const size_t n = (size_t)chooser->options.n_vocab_common, n_biases = SAMPLING_MAX_BIASES + DRAFT_SIBLINGS;
    atomic_flag_clear(&desk->in_use);
    TRY(sampling_scratch_create(chooser->options.n_vocab_common, &desk->scratch));
    desk->biases = mem_alloc(n_biases, sizeof *desk->biases);
    desk->row = chooser->kept_ids != NULL ? mem_alloc(n, sizeof *desk->row) : NULL;
    desk->prob = chooser->options.ranks ? mem_alloc(n, sizeof *desk->prob) : NULL;
    if (desk->biases == NULL || (chooser->kept_ids != NULL && desk->row == NULL) ||
        (chooser->options.ranks && desk->prob == NULL)) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft's choices among %zu tokens", n);
    }
    for (size_t i = 0; desk->row != NULL && i < n; i++) {
        desk->row[i] = -MATHX_INF;
    }
    chooser->bytes += n_biases * sizeof *desk->biases + (desk->row != NULL ? n * sizeof *desk->row : 0) +
                      (desk->prob != NULL ? n * sizeof *desk->prob : 0);
    return STATUS_OK;
}

static enum status open_desks(struct draft_chooser *chooser)
{
    const struct draft_chooser_options *options = &chooser->options;
    const int32_t n = lane_n_workers(options->lane);
    if (options->kept_ids != NULL) {
        const size_t bytes = (size_t)options->n_kept * sizeof *chooser->kept_ids;
        chooser->kept_ids = mem_alloc(1, bytes);
        if (chooser->kept_ids == NULL) {
            return status_fail(STATUS_NO_MEMORY, "no memory for a draft of %d tokens", options->n_kept);
        }
        memcpy(chooser->kept_ids, options->kept_ids, bytes);
        chooser->bytes += bytes;
    }
    chooser->desks = mem_alloc((size_t)n, sizeof *chooser->desks);
    if (chooser->desks == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft's choices by %d workers", n);
    }
    while (chooser->n_desks < n) {
        TRY(open_desk(chooser, &chooser->desks[chooser->n_desks++]));
    }
    return STATUS_OK;
}

enum status draft_chooser_create(const struct draft_chooser_options *options, struct draft_chooser **out)
{
    *out = NULL;
    struct draft_chooser *chooser = mem_alloc(1, sizeof *chooser);
    if (chooser == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft's choices");
    }
    chooser->options = *options;
    chooser->backend = lane_backend(options->lane);
    enum status status = open_desks(chooser);
    chooser->options.kept_ids = chooser->kept_ids;
    if (status == STATUS_OK && options->desk != NULL) {
        status = chooser_open_there(chooser);
    }
    if (status != STATUS_OK) {
        draft_chooser_destroy(chooser);
        return status;
    }
    *out = chooser;
    return STATUS_OK;
}

void draft_chooser_destroy(struct draft_chooser *chooser)
{
    if (chooser == NULL) {
        return;
    }
    for (int32_t i = 0; i < chooser->n_desks; i++) {
        sampling_scratch_destroy(chooser->desks[i].scratch);
        mem_free(chooser->desks[i].biases);
        mem_free(chooser->desks[i].row);
        mem_free(chooser->desks[i].prob);
    }
    chooser_close_there(chooser);
    mem_free(chooser->desks);
    mem_free(chooser->kept_ids);
    mem_free(chooser);
}

void draft_chooser_use_lane(struct draft_chooser *chooser, struct lane *lane) { chooser->options.lane = lane; }

uint64_t draft_chooser_bytes(const struct draft_chooser *chooser) { return chooser->bytes; }

/* ---- rows ---- */
static int32_t n_logits(const struct draft_chooser *chooser)
{
    return chooser->kept_ids != NULL ? chooser->options.n_kept : chooser->options.n_vocab_common;
}

const float *chooser_full_row(const struct draft_chooser *chooser, const struct chooser_desk *desk,
                              const float *logits)
{
    if (chooser->kept_ids == NULL) {
        return logits;
    }
    for (int32_t i = 0; i < chooser->options.n_kept; i++) {
        desk->row[chooser->kept_ids[i]] = logits[i];
    }
    return desk->row;
}

/* The logit of an id that may be chosen. */
static float logit_of(const struct draft_chooser *chooser, const float *logits, int32_t id)
{
    if (chooser->kept_ids == NULL) {
        return logits[id];
    }
    int32_t low = 0, high = chooser->options.n_kept - 1;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (chooser->kept_ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return logits[low];
}

/* Sum of exp(logit - base). Relative to any logit: overflow is a hint of 0, and a hint is no result. */
static float exp_sum(const struct draft_chooser *chooser, const float *logits, float base)
{
    float block[EXP_BLOCK], sum = 0;
    const int32_t n = n_logits(chooser);
    for (int32_t done = 0; done < n; done += EXP_BLOCK) {
        const int32_t len = n - done < EXP_BLOCK ? n - done : EXP_BLOCK;
        memcpy(block, logits + done, (size_t)len * sizeof *block);
        sum += backend_exp_sum(chooser->backend, block, len, base);
    }
    return sum;
}

/* ---- choices ---- */
int32_t chooser_history_len(const struct draft_choice *choice)
{
    return choice->n_history > 0 ? choice->n_history : choice->position;
}

static bool choose_coupled(const struct draft_chooser *chooser, const struct chooser_desk *desk,
                           const struct sampling_params *params, const struct draft_choice *choice, int32_t *token)
{
    struct sampling_choice chosen;
    if (chooser->kept_ids != NULL && sampling_is_plain(params)) {
        *token = -1;
        return sampling_choose_kept(chooser->backend, params, choice->logits, chooser->kept_ids,
                                    chooser->options.n_kept, choice->position, token) == STATUS_OK;
    }
    const enum status status =
        sampling_choose(chooser->backend, params, chooser_full_row(chooser, desk, choice->logits),
                        chooser->options.n_vocab_common, choice->history, chooser_history_len(choice), choice->position,
                        desk->scratch, &chosen);
    *token = status == STATUS_OK ? chosen.id : -1;
    return status == STATUS_OK;
}

static void choose_by_rejection(const struct draft_chooser *chooser, const struct chooser_desk *desk,
                                const struct sampling_params *params, struct draft_choice *choice)
{
    const int32_t n_common = chooser->options.n_vocab_common, n_vocab = chooser->options.n_vocab;
    choice->token = -1;
    if (sampling_distribution(chooser->backend, params, chooser_full_row(chooser, desk, choice->logits), n_common,
                              choice->history, chooser_history_len(choice), desk->scratch, choice->prob) != STATUS_OK) {
        return;
    }
    memset(choice->prob + n_common, 0, (size_t)(n_vocab - n_common) * sizeof *choice->prob);
    if (chooser->options.n_reshaped > 0) {
        sampling_reshape_top(choice->prob, n_vocab, chooser->options.n_reshaped, chooser->options.reshape);
    }
    choice->token = sampling_draw_from(choice->prob, n_vocab, rng_coin_uniform(params->seed, COIN_DRAFT,
                                                                               (uint32_t)choice->position, 0));
    choice->hint = choice->token >= 0 ? choice->prob[choice->token] : 0.0f;
}

/* params with one more id that cannot be chosen; its biases then lie on the desk, sorted. */
static void pass_over(const struct chooser_desk *desk, struct sampling_params *params, int32_t id)
{
    int32_t n = params->n_biases, at = 0;
    if (params->biases != desk->biases && n > 0) {
        memcpy(desk->biases, params->biases, (size_t)n * sizeof *desk->biases);
    }
    while (at < n && desk->biases[at].id < id) {
        at++;
    }
    if (at == n || desk->biases[at].id != id) {
        memmove(desk->biases + at + 1, desk->biases + at, (size_t)(n - at) * sizeof *desk->biases);
        n++;
    }
    desk->biases[at] = (struct sampling_bias){ id, -MATHX_INF };
    params->biases = desk->biases;
    params->n_biases = n;
}

/* What would be chosen if the token, and then its first sibling, were not there. */
static void choose_siblings(const struct draft_chooser *chooser, const struct chooser_desk *desk,
                            const struct sampling_params *own, struct draft_choice *choice, float base, float sum)
{
    struct sampling_params params = *own;
    int32_t token = choice->token;
    for (int32_t i = 0; i < DRAFT_SIBLINGS; i++) {
        choice->sibling[i].token = -1;
    }
    for (int32_t i = 0; i < choice->n_siblings; i++) {
        pass_over(desk, &params, token);
        if (!choose_coupled(chooser, desk, &params, choice, &token)) {
            return;
        }
        choice->sibling[i].token = token;
        choice->sibling[i].hint = mathx_exp(logit_of(chooser, choice->logits, token) - base) / sum;
    }
}

struct sampling_params chooser_params(const struct draft_chooser *chooser, const struct sampling_params *own)
{
    struct sampling_params params = *own;
    params.n_top_logprobs = -1;
    while (params.n_biases > 0 && params.biases[params.n_biases - 1].id >= chooser->options.n_vocab_common) {
        params.n_biases--; /* sorted by id */
    }
    return params;
}

static void choose(const struct draft_chooser *chooser, const struct chooser_desk *desk, struct draft_choice *choice)
{
    const struct sampling_params params = chooser_params(chooser, choice->params);
    if (choice->prob != NULL) {
        choose_by_rejection(chooser, desk, &params, choice);
        return;
    }
    if (choose_coupled(chooser, desk, &params, choice, &choice->token)) {
        const float base = logit_of(chooser, choice->logits, choice->token);
        const float sum = exp_sum(chooser, choice->logits, base);
        choice->hint = 1.0f / sum;
        if (choice->n_siblings > 0) {
            choose_siblings(chooser, desk, &params, choice, base, sum);
        }
    }
}

struct chooser_desk *chooser_desk_acquire(struct draft_chooser *chooser, int32_t wanted)
{
    int32_t i = wanted % chooser->n_desks;
    while (atomic_flag_test_and_set_explicit(&chooser->desks[i].in_use, memory_order_acquire)) {
        i = (i + 1) % chooser->n_desks;
    }
    return &chooser->desks[i];
}

void chooser_desk_release(struct chooser_desk *desk)
{
    atomic_flag_clear_explicit(&desk->in_use, memory_order_release);
}

static void choose_fn(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    struct draft_chooser *chooser = *(struct draft_chooser *const *)args;
    struct chooser_desk *desk = chooser_desk_acquire(chooser, worker->idx);
    choose(chooser, desk, chooser->choices[chunk]);
    chooser_desk_release(desk);
}

void draft_chooser_run(struct draft_chooser *chooser, struct draft_choice *const *choices, int32_t n)
{
    chooser->choices = choices;
    if (n > 0 && choices[0]->logits == NULL) {
        chooser_choose_there(chooser, choices, n);
    } else if (n == 1) { /* the caller is not slower than the lane */
        choose(chooser, &chooser->desks[0], choices[0]);
    } else if (n > 1) {
        struct lane *lane = chooser->options.lane;
        lane_wait(lane, lane_submit(lane, choose_fn, &chooser, sizeof chooser, (uint32_t)n));
    }
}
