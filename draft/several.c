/* several: more than one proposer behind one draft.
 *
 * Those that only look things up are asked first. Where what they found is expected to be worth more than
 * what the costlier ones have lately brought, those are not asked at all. What came back is merged per
 * position: of the sources whose tokens so far are the chain's, the one whose token survives best by its
 * calibration gives the next. What lost becomes side branches, as far as those are wanted.
 *
 * With the rejection rule a choice must not look at the tokens drawn: there the first source that has
 * something gives the whole proposal, and lookups depend on the context alone.
 */
#include "draft/draft.h"

#include <string.h>

struct several {
    struct draft base;
    struct draft *part[DRAFT_MAX_SOURCES];
    int32_t first_source[DRAFT_MAX_SOURCES];
    int32_t n_parts, max_batch, n_asks;
    struct draft_ask *asks;              /* [n_parts, max_batch] what each part was asked */
    float worth[DRAFT_MAX_SOURCES];      /* tokens that a part's rounds lately brought, on average */
};

static const float WORTH_NEWS = 1.0f / 16.0f; /* share of the newest round in that average */

/* ---- asking ---- */
static float survival_of(const struct several *several, const struct draft_proposal *proposal, int32_t node,
                         int32_t part)
{
    const int32_t source = several->first_source[part] + proposal->source[node];
    return calibration_survival(&several->base.calibration[source], proposal->hint[node]);
}

/* Tokens that the proposal's first chain is expected to bring. */
static float expected_of(const struct several *several, const struct draft_proposal *proposal, int32_t part)
{
    float survival = 1.0f, sum = 0.0f;
    const int32_t n = draft_proposal_chain_len(proposal);
    for (int32_t node = 0; node < n; node++) {
        survival *= survival_of(several, proposal, node, part);
        sum += survival;
    }
    return sum;
}

/* Whether a part that works for its proposals need not be asked: one before it has enough. */
static bool is_served(const struct several *several, int32_t part, int32_t ask)
{
    for (int32_t p = 0; p < part; p++) {
        const struct draft_ask *before = &several->asks[p * several->max_batch + ask];
        if (before->proposal.n > 0 &&
            (before->wants_prob || expected_of(several, &before->proposal, p) >= several->worth[part])) {
            return true;
        }
    }
    return false;
}

static void ask_part(struct several *several, int32_t part, const struct draft_ask *asks, int32_t n_asks)
{
    struct draft *draft = several->part[part];
    struct draft_ask *own = &several->asks[part * several->max_batch];
    memcpy(draft->calibration, &several->base.calibration[several->first_source[part]],
           (size_t)draft->n_sources * sizeof *draft->calibration);
    int32_t longest = 0;
    for (int32_t i = 0; i < n_asks; i++) {
        own[i] = asks[i];
        own[i].proposal.n = 0;
        if (asks[i].n_tokens + asks[i].k_max > draft->context) {
            own[i].k_max = draft->context > asks[i].n_tokens ? draft->context - asks[i].n_tokens : 0;
        }
        if (draft->is_costly && is_served(several, part, i)) {
            own[i].k_max = own[i].n_nodes_max = 0;
        }
        longest = own[i].k_max > longest ? own[i].k_max : longest;
    }
    if (longest > 0) {
        draft->kind->propose(draft, own, n_asks);
    }
    for (int32_t i = 0; i < n_asks; i++) {
        own[i].proposal.n = draft_proposal_n_valid(&own[i].proposal, INT32_MAX);
    }
}

/* ---- merging ---- */
static int32_t child_of(const struct draft_proposal *proposal, int32_t parent, int32_t token)
{
    for (int32_t node = parent + 1; node < proposal->n; node++) {
        if (proposal->parent[node] == parent && proposal->token[node] == token) {
            return node;
        }
    }
    return -1;
}

static int32_t append(struct draft_proposal *to, int32_t parent, const struct draft_proposal *from, int32_t node,
                      int32_t source)
{
    const int32_t at = to->n++;
    to->token[at] = from->token[node];
    to->parent[at] = (int8_t)parent;
    to->source[at] = (uint8_t)source;
    to->hint[at] = from->hint[node];
    to->prob[at] = from->prob[node];
    return at;
}

/* The chain: at each position the best of the sources that agree with it so far. */
static void merge_chains(const struct several *several, struct draft_ask *ask, int32_t i)
{
    bool agrees[DRAFT_MAX_SOURCES];
    memset(agrees, 1, sizeof agrees);
    for (int32_t node = 0; node < ask->k_max; node++) {
        const struct draft_proposal *best = NULL;
        float best_survival = 0.0f;
        int32_t best_part = 0;
        for (int32_t p = 0; p < several->n_parts; p++) {
            const struct draft_proposal *own = &several->asks[p * several->max_batch + i].proposal;
            agrees[p] = agrees[p] && node < draft_proposal_chain_len(own);
            const float survival = agrees[p] ? survival_of(several, own, node, p) : 0.0f;
            if (survival > best_survival) {
                best = own;
                best_survival = survival;
                best_part = p;
            }
        }
        if (best == NULL) {
            return;
        }
        append(&ask->proposal, node - 1, best, node, several->first_source[best_part] + best->source[node]);
        for (int32_t p = 0; p < several->n_parts; p++) {
            const struct draft_proposal *own = &several->asks[p * several->max_batch + i].proposal;
            agrees[p] = agrees[p] && own->token[node] == best->token[node];
        }
    }
}

/* What is not in the tree yet, parents first, in the parts' order. */
static void merge_branches(const struct several *several, struct draft_ask *ask, int32_t i)
{
    struct draft_proposal *merged = &ask->proposal;
    const int32_t n_max = ask->n_nodes_max < DRAFT_MAX_NODES ? ask->n_nodes_max : DRAFT_MAX_NODES;
    for (int32_t p = 0; p < several->n_parts; p++) {
        const struct draft_proposal *own = &several->asks[p * several->max_batch + i].proposal;
        int32_t place[DRAFT_MAX_NODES]; /* of own nodes in the merged tree; -2: not there */
        for (int32_t node = 0; node < own->n; node++) {
            const int32_t parent = own->parent[node] < 0 ? -1 : place[own->parent[node]];
            place[node] = parent == -2 ? -2 : child_of(merged, parent, own->token[node]);
            if (parent != -2 && place[node] < 0) {
                place[node] = merged->n < n_max
                    ? append(merged, parent, own, node, several->first_source[p] + own->source[node]) : -2;
            }
        }
    }
}

/* Rejection rule: the first that has something. */
static void take_first(const struct several *several, struct draft_ask *ask, int32_t i)
{
    for (int32_t p = 0; p < several->n_parts; p++) {
        const struct draft_proposal *own = &several->asks[p * several->max_batch + i].proposal;
        for (int32_t node = 0; node < own->n; node++) {
            append(&ask->proposal, own->parent[node], own, node, several->first_source[p] + own->source[node]);
        }
        if (own->n > 0) {
            return;
        }
    }
}

static void several_propose(struct draft *draft, struct draft_ask *asks, int32_t n_asks)
{
    struct several *several = (struct several *)draft;
    several->n_asks = n_asks;
    for (int32_t p = 0; p < several->n_parts; p++) {
        ask_part(several, p, asks, n_asks);
    }
    for (int32_t i = 0; i < n_asks; i++) {
        asks[i].proposal.n = 0;
        if (asks[i].wants_prob) {
            take_first(several, &asks[i], i);
        } else {
            merge_chains(several, &asks[i], i);
            merge_branches(several, &asks[i], i);
        }
    }
}

/* ---- what became of it ---- */
/* How far a part's own proposal goes along what was committed. */
static int32_t n_right(const struct draft_proposal *own, const struct draft_verdict *verdict)
{
    int32_t node = -1, n = 0;
    for (; n < verdict->n_accepted; n++) {
        node = child_of(own, node, verdict->ask->proposal.token[verdict->path[n]]);
        if (node < 0) {
            return n;
        }
    }
    return n + (child_of(own, node, verdict->recovery_token) >= 0);
}

static void several_observe(struct draft *draft, const struct draft_verdict *verdicts, int32_t n_verdicts)
{
    struct several *several = (struct several *)draft;
    for (int32_t v = 0; v < n_verdicts; v++) {
        for (int32_t p = 0; p < several->n_parts; p++) {
            struct draft_ask *own = &several->asks[p * several->max_batch];
            int32_t i = 0;
            while (i < several->n_asks && own[i].seq_id != verdicts[v].ask->seq_id) {
                i++;
            }
            if (i < several->n_asks && own[i].k_max > 0) {
                several->worth[p] += WORTH_NEWS * ((float)n_right(&own[i].proposal, &verdicts[v]) -
                                                   several->worth[p]);
            }
        }
    }
    for (int32_t p = 0; p < several->n_parts; p++) {
        several->part[p]->kind->observe(several->part[p], verdicts, n_verdicts);
    }
}

static void several_forget(struct draft *draft, const struct draft_farewell *farewell)
{
    struct several *several = (struct several *)draft;
    for (int32_t p = 0; p < several->n_parts; p++) {
        several->part[p]->kind->forget(several->part[p], farewell);
    }
}

static void several_begin(struct draft *draft, const struct draft_ask *asks, int32_t n_asks)
{
    struct several *several = (struct several *)draft;
    for (int32_t p = 0; p < several->n_parts; p++) {
        if (several->part[p]->kind->begin != NULL) {
            several->part[p]->kind->begin(several->part[p], asks, n_asks);
        }
    }
}

static void several_known(struct draft *draft)
{
    struct several *several = (struct several *)draft;
    for (int32_t p = 0; p < several->n_parts; p++) {
        if (several->part[p]->kind->known != NULL) {
            several->part[p]->kind->known(several->part[p]);
        }
    }
}

/* Of the parts together: parts that work ahead are few, and none of the others counts. */
static struct draft_ahead_counts several_count(const struct draft *draft)
{
    const struct several *several = (const struct several *)draft;
    struct draft_ahead_counts sum = { .hits = 0 };
    for (int32_t p = 0; p < several->n_parts; p++) {
        if (several->part[p]->kind->count != NULL) {
            const struct draft_ahead_counts part = several->part[p]->kind->count(several->part[p]);
            draft_ahead_counts_add(&sum, &part);
        }
    }
    return sum;
}

static void several_destroy(struct draft *draft)
{
    struct several *several = (struct several *)draft;
    for (int32_t p = 0; p < several->n_parts; p++) {
        several->part[p]->kind->destroy(several->part[p]);
    }
    mem_free(several->asks);
    mem_free(several);
}

/* ---- creation ---- */
static enum status add_part(struct several *several, struct draft *part)
{
    struct draft *base = &several->base;
    const int32_t p = several->n_parts;
    if (base->n_sources + part->n_sources > DRAFT_MAX_SOURCES) {
        return status_fail(STATUS_UNSUPPORTED, "at most %d drafts together, found one more", DRAFT_MAX_SOURCES);
    }
    several->part[p] = part;
    several->first_source[p] = base->n_sources;
    several->worth[p] = 1.0f;
    for (int32_t i = 0; i < part->n_sources; i++) {
        base->source_name[base->n_sources] = part->source_name[i];
        base->calibration[base->n_sources++] = part->calibration[i];
    }
    base->context = part->context > base->context ? part->context : base->context;
    base->is_costly |= part->is_costly;
    several->n_parts++;
    return STATUS_OK;
}

enum status draft_several_create(const struct draft_options *options, struct draft *const *parts,
                                 int32_t n_parts, struct draft **out)
{
    static const struct draft_kind kind = {
        .name = "several",
        .propose = several_propose,
        .observe = several_observe,
        .forget = several_forget,
        .destroy = several_destroy,
        .begin = several_begin,
        .known = several_known,
        .count = several_count,
    };
    enum status status = STATUS_OK;
    *out = NULL;
    ASSERT(n_parts >= 1);
    if (n_parts == 1) {
        *out = parts[0];
        return STATUS_OK;
    }
    struct several *several = mem_alloc(1, sizeof *several);
    if (several == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for several drafts");
    }
    several->base = (struct draft){ .kind = &kind };
    several->max_batch = options->max_batch;
    for (int32_t p = 0; p < n_parts; p++) {
        TRY_GOTO(add_part(several, parts[p]), out);
    }
    several->asks = mem_alloc((size_t)n_parts * (size_t)options->max_batch, sizeof *several->asks);
    if (several->asks == NULL) {
        status = status_fail(STATUS_NO_MEMORY, "no memory for the asks of several drafts");
        goto out;
    }
    *out = &several->base;
    return STATUS_OK;
out:
    mem_free(several->asks);
    mem_free(several);
    return status;
}
