/* propose: from what the policy allows to the rows of the pass. A draft may fail, the answer may not:
 * what is not a valid id, or comes from nowhere, is no proposal (I9). */
#include "scheduler/private.h"

static int32_t n_prompt_rows(const struct scheduler *s)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_parts; i++) {
        n += s->parts[i].ask == NULL ? s->parts[i].n_rows : s->parts[i].n_rows - 1;
    }
    return n;
}

static int32_t longest_k(const struct scheduler *s)
{
    int32_t longest = 0;
    for (int32_t i = 0; i < s->n_asks; i++) {
        longest = s->asks[i].k_max > longest ? s->asks[i].k_max : longest;
    }
    return longest;
}

/* Penalties look back along one chain of tokens; and the rejection rule takes siblings that were drawn
 * independently or not drawn at all, which a model's likeliest are not. */
static bool keeps_to_chain(const struct scheduler *s, const struct draft_ask *ask)
{
    return sampling_uses_history(ask->params) || (ask->wants_prob && s->options.draft->is_costly);
}

static void keep_to_chains(struct scheduler *s)
{
    for (int32_t i = 0; i < s->n_asks; i++) {
        struct draft_ask *ask = &s->asks[i];
        ask->n_nodes_max = keeps_to_chain(s, ask) ? ask->k_max : ask->n_nodes_max;
    }
}

static void check_proposals(struct scheduler *s)
{
    for (int32_t i = 0; i < s->n_asks; i++) {
        struct draft_ask *ask = &s->asks[i];
        struct draft_proposal *proposal = &ask->proposal;
        const int32_t n_max = ask->n_nodes_max > ask->k_max ? ask->n_nodes_max : ask->k_max;
        proposal->n = draft_proposal_n_valid(proposal, s->n_vocab);
        proposal->n = proposal->n < n_max ? proposal->n : n_max;
        if (keeps_to_chain(s, ask)) {
            const int32_t n_chain = draft_proposal_chain_len(proposal);
            proposal->n = proposal->n < n_chain ? proposal->n : n_chain;
        }
    }
}

/* A pass has room for one row of every sequence and so many more; the first in line have the first claim. */
static void keep_to_room(struct scheduler *s)
{
    int32_t room = scheduler_cap_logits(&s->options) - s->n_asks;
    for (int32_t i = 0; i < s->n_asks; i++) {
        struct draft_proposal *proposal = &s->asks[i].proposal;
        proposal->n = proposal->n < room ? proposal->n : room;
        room -= proposal->n;
    }
}

/* Copy-on-write comes first: a draft may share the target's slots (layerskip). */
static void copy_pages(struct scheduler *s)
{
    if (s->n_copies > 0) {
        s->options.target->kind->copy(s->options.target, s->copies, s->n_copies);
        s->stats.page_copies += (uint64_t)s->n_copies;
    }
}

static int32_t n_proposed(const struct scheduler *s)
{
    int32_t n = 0;
    for (int32_t i = 0; i < s->n_asks; i++) {
        n += s->asks[i].proposal.n;
    }
    return n;
}

static void ask_draft(struct scheduler *s)
{
    struct draft *draft = s->options.draft;
    const int32_t n_other = n_prompt_rows(s);
    policy_plan(s->policy, s->asks, s->n_asks, n_other);
    s->longest_k = longest_k(s);
    s->draft_ns = 0;
    for (int32_t i = 0; i < s->n_asks; i++) {
        s->asks[i].proposal.n = 0;
    }
    if (s->longest_k == 0) {
        return; /* rounds at K = 0 do no draft work (I7) */
    }
    const int64_t begin_ns = clock_now_ns(), span_ns = timeline_begin();
    keep_to_chains(s);
    draft->kind->propose(draft, s->asks, s->n_asks);
    check_proposals(s);
    policy_trim(s->policy, s->asks, s->n_asks, n_other);
    keep_to_room(s);
    s->draft_ns = clock_now_ns() - begin_ns;
    timeline_end(TIMELINE_STEP, &timeline_propose, span_ns, n_proposed(s), s->n_asks);
}

static void add_part(struct scheduler *s, struct step_part *part)
{
    struct sequence *seq = part->seq;
    const int8_t *parent = NULL;
    if (part->ask != NULL) {
        const struct draft_proposal *proposal = &part->ask->proposal;
        part->n_nodes = proposal->n;
        for (int32_t i = 0; i < proposal->n; i++) {
            seq->tokens[seq->n_tokens + i] = proposal->token[i];
        }
        part->n_rows += part->n_nodes;
        part->n_logits = part->n_nodes + 1;
        kv_table_propose(seq->table, part->n_nodes);
        parent = draft_proposal_chain_len(proposal) < proposal->n ? proposal->parent : NULL;
    }
    part->first_logits = batch_add(s->batch, &(struct batch_part){
        .tokens = seq->tokens + part->first_position, .table = seq->table,
        .first_position = part->first_position, .n_rows = part->n_rows, .n_logits = part->n_logits,
        .parent = parent, .n_nodes = parent != NULL ? part->n_nodes : 0 });
}

void scheduler_propose(struct scheduler *s)
{
    batch_clear(s->batch);
    copy_pages(s);
    ask_draft(s);
    for (int32_t i = 0; i < s->n_parts; i++) {
        add_part(s, &s->parts[i]);
    }
}
