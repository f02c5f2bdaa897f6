/* policy_trim: proposals cut to the nodes that are worth a row. Drafting is paid for by now; what each
 * token says of itself is known. Only with the coupled rule: which tokens are kept depends on them. */
#include "scheduler/policy_private.h"

enum { WHOLE_EVERY = 32 }; /* rounds: tokens held to be poor must be seen to be poor now and then */

/* The kept nodes, the chain of first children in front (their slots are where their tokens will lie),
 * then the rest in their order, parents first. Returns the chain's length. */
static int32_t order_nodes(const struct draft_proposal *proposal, uint32_t is_kept, int8_t *order, int32_t *n)
{
    int32_t parent = -1, n_ordered = 0;
    uint32_t left = is_kept;
    for (int32_t node = 0; node < proposal->n; node++) {
        if ((left >> node & 1) != 0 && proposal->parent[node] == parent) {
            order[n_ordered++] = (int8_t)node;
            left &= ~(UINT32_C(1) << node);
            parent = node;
        }
    }
    const int32_t n_chain = n_ordered;
    for (int32_t node = 0; node < proposal->n; node++) {
        if ((left >> node & 1) != 0) {
            order[n_ordered++] = (int8_t)node;
        }
    }
    *n = n_ordered;
    return n_chain;
}

/* What stands behind the chain and is not verified: the depth counts as that, for later rounds. */
static void note_cut(struct policy *policy, struct policy_place *place, const struct draft_proposal *proposal,
                     uint32_t is_kept, int32_t chain_end, int32_t n_chain)
{
    float survival = 0.0f;
    for (int32_t node = chain_end + 1; node < proposal->n; node++) {
        if (proposal->parent[node] == chain_end && (is_kept >> node & 1) == 0) {
            survival += policy_odds_of_node(&policy->odds, place, proposal, node);
            place->cut_depth = (int8_t)(n_chain + 1);
        }
    }
    place->cut_survival = survival < 1.0f ? survival : 1.0f;
}

static void keep_nodes(struct policy *policy, struct policy_place *place, struct draft_proposal *proposal,
                       uint32_t is_kept)
{
    const struct draft_proposal whole = *proposal;
    int8_t order[DRAFT_MAX_NODES], moved_to[DRAFT_MAX_NODES];
    const int32_t n_chain = order_nodes(&whole, is_kept, order, &proposal->n);
    note_cut(policy, place, &whole, is_kept, n_chain > 0 ? order[n_chain - 1] : -1, n_chain);
    for (int32_t i = 0; i < proposal->n; i++) {
        const int32_t node = order[i];
        moved_to[node] = (int8_t)i;
        proposal->token[i] = whole.token[node];
        proposal->parent[i] = (int8_t)(whole.parent[node] < 0 ? -1 : moved_to[whole.parent[node]]);
        proposal->source[i] = whole.source[node];
        proposal->hint[i] = whole.hint[node];
        proposal->prob[i] = whole.prob[node];
    }
}

/* Path survivals of all nodes of all asks as candidates. Returns the rows of those that are not cut. */
static int32_t gather(struct policy *policy, const struct draft_ask *asks, int32_t n_asks)
{
    int32_t n_untouched = 0;
    policy_rows_clear(&policy->rows);
    for (int32_t i = 0; i < n_asks; i++) {
        const struct draft_proposal *proposal = &asks[i].proposal;
        const struct policy_place *place = policy_odds_place(&policy->odds, &asks[i]);
        float path[DRAFT_MAX_NODES];
        if (place->is_trying) {
            n_untouched += proposal->n;
            continue;
        }
        for (int32_t node = 0; node < proposal->n; node++) {
            const int8_t parent = proposal->parent[node];
            path[node] = (parent < 0 ? 1.0f : path[parent]) *
                         policy_odds_of_node(&policy->odds, place, proposal, node);
            policy_rows_add(&policy->rows, i, node, path[node]);
        }
    }
    policy_rows_sort(&policy->rows);
    return n_untouched;
}

static void cut(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows)
{
    const int32_t n_untouched = gather(policy, asks, n_asks);
    const struct policy_answer answer = policy_choose(&policy->rows, &(struct policy_question){
        .verify = &policy->verify, .n_seqs = n_asks, .n_base_rows = n_asks + n_other_rows + n_untouched,
        .place_max = DRAFT_MAX_NODES, .draft_ns = policy->now.draft_ns });
    if (answer.n_rows == policy->rows.n) {
        return;
    }
    for (int32_t i = 0; i < n_asks; i++) {
        policy->kept[i] = 0;
    }
    for (int32_t i = 0; i < answer.n_rows; i++) {
        const struct policy_row *row = &policy->rows.sorted[i];
        policy->kept[row->ask] |= UINT32_C(1) << row->place;
    }
    for (int32_t i = 0; i < n_asks; i++) {
        struct policy_place *place = policy_odds_place(&policy->odds, &asks[i]);
        if (!place->is_trying && asks[i].proposal.n > 0) {
            keep_nodes(policy, place, &asks[i].proposal, policy->kept[i]);
        }
    }
}

/* A chain shorter than what was asked for ended because the draft had nothing, or held its next token
 * to be worth less than stop_below, which bounds what that token would have been. */
static void note_early_end(struct policy *policy, struct policy_place *place, const struct draft_ask *ask)
{
    const int32_t n_chain = draft_proposal_chain_len(&ask->proposal);
    float path = 1.0f, survival[DRAFT_MAX_NODES + 1];
    if (n_chain >= ask->k_max || n_chain < ask->proposal.n || ask->stop_below <= 0.0f) {
        return;
    }
    for (int32_t node = 0; node < n_chain; node++) {
        path *= policy_odds_of_node(&policy->odds, place, &ask->proposal, node);
    }
    policy_odds_by_depth(&policy->odds, place, n_chain + 1, 0.0f, survival);
    const float bound = path > ask->stop_below ? ask->stop_below / path : 1.0f;
    place->cut_depth = (int8_t)(n_chain + 1);
    const float known = survival[n_chain + 1];
    place->cut_survival = n_chain == 0 ? 0.5f * bound : bound < known ? bound : known;
}

/* Asked and nothing to verify: no verdict will speak of it. */
static void observe_empty(struct policy *policy, const struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        struct policy_place *place = policy_odds_place(&policy->odds, &asks[i]);
        if (asks[i].k_max == 0 || asks[i].proposal.n > 0) {
            continue;
        }
        if (place->cut_depth == 1) {
            policy_odds_assume_depth(&policy->odds, place, 1, place->cut_survival);
        } else {
            policy_odds_observe_depth(&policy->odds, place, 1, 0);
        }
    }
}

void policy_trim(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows)
{
    ASSERT(n_asks <= policy->options.max_batch);
    for (int32_t i = 0; i < n_asks; i++) {
        struct policy_place *place = policy_odds_place(&policy->odds, &asks[i]);
        const int32_t n_tried = draft_proposal_chain_len(&asks[i].proposal) + 1; /* one more, in vain */
        const int32_t n_drafted = n_tried < asks[i].k_max ? n_tried : asks[i].k_max;
        if (n_drafted > policy->now.longest_drafted) {
            policy->now.longest_drafted = n_drafted;
        }
        place->cut_depth = 0;
        note_early_end(policy, place, &asks[i]);
    }
    if (policy->options.follows_hints && policy->now.round == POLICY_ROUND_PAYS) {
        if (++policy->n_since_whole < WHOLE_EVERY) {
            cut(policy, asks, n_asks, n_other_rows);
        } else {
            policy->n_since_whole = 0;
        }
    }
    observe_empty(policy, asks, n_asks);
}
