/* grower_glue: one causal pass over [rec, x1 .. xK] into the draft's true slots. It makes the draft's KV
 * valid for every outcome, whoever proposed, and yields the rows that fork. A sequence that has more to
 * catch up on (its prompt, rounds without a draft) is fed that first, a chunk a pass. */
#include "draft/grower_private.h"

static int32_t min_i32(int32_t a, int32_t b) { return a < b ? a : b; }

/* None where the context has no room for the round itself, whose last row stands at position N + K - 1. A
 * branch ends where the context does. */
static int32_t steps_of(const struct grower *grower, const struct ahead_round *round)
{
    return round->n_tokens + round->n_proposed <= grower->base->context ? round->k_next : 0;
}

static void enter(struct grower *grower, struct glued_round *glued, const struct ahead_round *round,
                  struct ahead_table *table)
{
    *glued = (struct glued_round){ .round = round, .table = table, .first_logits = -1,
        .ask = { .place = round->place, .seq_id = round->seq_id, .epoch = round->epoch, .tokens = round->tokens,
                 .n_tokens = round->n_tokens, .n_prompt = round->n_prompt, .params = round->params,
                 .tenant = round->tenant } };
    ASSERT(round->k_next <= grower->options.model.common.k_max);
    glued->k_next = steps_of(grower, round);
    if (glued->k_next < 1) {
        return; /* the end of its context */
    }
    glued->budget = grower_budget(grower);
    glued->first_place = round->n_tokens + round->n_proposed;
    struct model_place *place = model_draft_enter(grower->model, &glued->ask);
    if (model_draft_take_pages(grower->model, place, &glued->ask,
                               glued->first_place + glued->k_next * glued->budget)) {
        glued->place = place;
        glued->next_position = kv_table_cached_len(place->table);
    }
}

static bool wants_rows(const struct glued_round *glued)
{
    return glued->place != NULL && glued->first_logits < 0;
}

/* Rows that the pass has room for; all but those of the round itself count against *n_left. */
static void add_rows(struct grower *grower, struct glued_round *glued, int32_t *n_left)
{
    const struct ahead_round *round = glued->round;
    const int32_t n_own = round->n_proposed + 1, n_lacking = glued->first_place - glued->next_position;
    const int32_t n_behind = n_lacking - n_own; /* catching up */
    const int32_t n_rows = n_behind <= *n_left ? n_lacking : *n_left;
    const int32_t n_ids = model_get_config(grower->options.model.model)->n_vocab;
    ASSERT(n_behind >= 0 && n_own <= DRAFT_MAX_NODES + 1);
    if (n_rows == 0) {
        return;
    }
    *n_left -= min_i32(n_rows, n_behind);
    for (int32_t i = 0; i < n_rows; i++) {
        const int32_t id = round->tokens[glued->next_position + i];
        grower->feed[i] = id < n_ids ? id : 0;
    }
    const bool is_last = n_rows == n_lacking;
    const int32_t first_logits = batch_add(grower->batch, &(struct batch_part){
        .tokens = grower->feed, .table = glued->place->table, .first_position = glued->next_position,
        .n_rows = n_rows, .n_logits = is_last ? n_own : 0 });
    glued->first_logits = is_last ? first_logits : -1;
    glued->next_position += n_rows;
}

static bool add_pass(struct grower *grower)
{
    int32_t n_left = grower->options.model.prefill_chunk;
    bool has_rows = false;
    batch_clear(grower->batch);
    for (int32_t i = 0; i < grower->n_glued; i++) {
        if (wants_rows(&grower->glued[i])) {
            add_rows(grower, &grower->glued[i], &n_left);
            has_rows = true;
        }
    }
    return has_rows;
}

void grower_enter(struct grower *grower, const struct grower_call *call)
{
    grower->n_glued = 0;
    grower->model->n_copies = 0;
    for (int32_t i = 0; i < call->n_rounds; i++) {
        enter(grower, &grower->glued[grower->n_glued++], &call->rounds[i], &call->tables[i]);
    }
    model_draft_submit_copies(grower->model);
}

bool grower_glue_pass(struct grower *grower, const float **logits)
{
    if (!add_pass(grower)) {
        return false;
    }
    return grower_forward(grower, batch_pass(grower->batch), logits);
}
