/* base: what all kinds share: a draft's beginnings, and proposals as values. */
#include "draft/draft.h"

void draft_base_init(struct draft *draft, const struct draft_kind *kind, const char *source_name)
{
    *draft = (struct draft){ .kind = kind, .n_sources = 1, .source_name = { source_name },
                             .context = INT32_MAX };
    calibration_init(&draft->calibration[0]);
}

void draft_proposal_chain(struct draft_proposal *proposal, const int32_t *tokens, int32_t n,
                          uint8_t source, const float *hints)
{
    ASSERT(n >= 0 && n <= DRAFT_MAX_NODES);
    proposal->n = n;
    for (int32_t i = 0; i < n; i++) {
        proposal->token[i] = tokens[i];
        proposal->parent[i] = (int8_t)(i - 1);
        proposal->source[i] = source;
        proposal->hint[i] = hints != NULL ? hints[i] : 0.5f;
        proposal->prob[i] = NULL;
    }
}

int32_t draft_proposal_n_valid(const struct draft_proposal *proposal, int32_t n_vocab)
{
    int32_t n = 0;
    while (n < proposal->n && n < DRAFT_MAX_NODES && proposal->token[n] >= 0 && proposal->token[n] < n_vocab &&
           proposal->parent[n] >= -1 && proposal->parent[n] < n && proposal->source[n] < DRAFT_MAX_SOURCES) {
        n++;
    }
    return n;
}

int32_t draft_proposal_chain_len(const struct draft_proposal *proposal)
{
    int32_t n = 0;
    while (n < proposal->n && proposal->parent[n] == n - 1) {
        n++;
    }
    return n;
}

void draft_ahead_counts_add(struct draft_ahead_counts *sum, const struct draft_ahead_counts *more)
{
    sum->hits += more->hits;
    sum->misses += more->misses;
    sum->unprepared += more->unprepared;
    sum->branches_grown += more->branches_grown;
    sum->branches_used += more->branches_used;
    sum->tokens_served += more->tokens_served;
    sum->tokens_wanted += more->tokens_wanted;
    sum->hidden_seconds += more->hidden_seconds;
    sum->exposed_seconds += more->exposed_seconds;
    sum->fallback_seconds += more->fallback_seconds;
    sum->glues += more->glues;
    sum->grow_steps += more->grow_steps;
    sum->glue_seconds += more->glue_seconds;
    sum->grow_seconds += more->grow_seconds;
}
