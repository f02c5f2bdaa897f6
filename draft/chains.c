/* chains: see the header. */
#include "draft/chains.h"

#include <string.h>

/* What the token after a chain survives with, before it is known: where even so it would not be worth a
 * row, it is not drafted. */
static const float NEXT_SURVIVAL = 0.7f;

struct draft_chains {
    struct draft_chains_options options;
    struct draft_chooser *chooser;
    struct batch *batch;
    struct draft_chain *chains;        /* [max_batch] */
    int32_t n_chains, n_open;
    struct draft_chain **choosing;     /* [max_batch] chains whose last row is in the pass */
    struct draft_choice **choices;     /* [max_batch] theirs */
    int32_t n_choosing;
    int32_t *feed;                     /* [catch_up_rows + 1] ids of a part as the model knows them */
    float *prob;                       /* [max_batch, k_max, n_vocab]; NULL unless asks may want it */
    uint64_t bytes;
};

/* ---- creation ---- */
static enum status take_arrays(struct draft_chains *chains)
{
    const struct draft_chains_options *options = &chains->options;
    const struct draft_options *common = &options->common;
    const size_t n = (size_t)common->max_batch, n_feed = (size_t)options->catch_up_rows + 1;
    const size_t n_probs = common->wants_prob ? n * (size_t)common->k_max : 0; /* n is a few hundred at most */
    chains->chains = mem_alloc(n, sizeof *chains->chains);
    chains->choosing = mem_alloc(n, sizeof *chains->choosing);
    chains->choices = mem_alloc(n, sizeof *chains->choices);
    chains->feed = mem_alloc(n_feed, sizeof *chains->feed);
    chains->prob = n_probs > 0 ? mem_alloc(n_probs, (size_t)common->n_vocab * sizeof *chains->prob) : NULL;
    if (chains->chains == NULL || chains->choosing == NULL || chains->choices == NULL || chains->feed == NULL ||
        (n_probs > 0 && chains->prob == NULL)) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the chains of %d sequences%s", common->max_batch,
                           n_probs > 0 ? " and their distributions" : "");
    }
    chains->bytes = n * (sizeof *chains->chains + sizeof *chains->choosing + sizeof *chains->choices) +
                    n_feed * sizeof *chains->feed + n_probs * (size_t)common->n_vocab * sizeof *chains->prob;
    return STATUS_OK;
}

enum status draft_chains_create(const struct draft_chains_options *options, struct draft_chains **out)
{
    enum status status = STATUS_OK;
    const int32_t max_batch = options->common.max_batch;
    *out = NULL;
    struct draft_chains *chains = mem_alloc(1, sizeof *chains);
    if (chains == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the chains of a draft");
    }
    chains->options = *options;
    TRY_GOTO(take_arrays(chains), out);
    TRY_GOTO(batch_create(&(struct batch_caps){ .n_rows = max_batch + options->catch_up_rows,
                                                .n_seqs = max_batch, .n_logits = max_batch }, &chains->batch), out);
    TRY_GOTO(draft_chooser_create(&options->chooser, &chains->chooser), out);
    *out = chains;
    return STATUS_OK;
out:
    draft_chains_destroy(chains);
    return status;
}

void draft_chains_destroy(struct draft_chains *chains)
{
    if (chains != NULL) {
        draft_chooser_destroy(chains->chooser);
        batch_destroy(chains->batch);
        mem_free(chains->prob);
        mem_free(chains->feed);
        mem_free(chains->choices);
        mem_free(chains->choosing);
        mem_free(chains->chains);
        mem_free(chains);
    }
}

void draft_chains_use_lane(struct draft_chains *chains, struct lane *lane)
{
    draft_chooser_use_lane(chains->chooser, lane);
}

uint64_t draft_chains_bytes(const struct draft_chains *chains)
{
    return chains->bytes + draft_chooser_bytes(chains->chooser);
}

/* ---- which chains ---- */
void draft_chains_begin(struct draft_chains *chains)
{
    chains->n_chains = chains->n_open = 0;
}

struct draft_chain *draft_chains_add(struct draft_chains *chains, struct draft_ask *ask)
{
    ASSERT(chains->n_chains < chains->options.common.max_batch);
    struct draft_chain *chain = &chains->chains[chains->n_chains++];
    chain->ask = ask;
    chain->is_open = true;
    chain->end_position = ask->n_tokens;
    chain->n = chain->nodes.n = 0;
    chain->survival = 1.0f;
    chains->n_open++;
    return chain;
}

int32_t draft_chains_n(const struct draft_chains *chains) { return chains->n_chains; }
const struct draft_chain *draft_chains_at(const struct draft_chains *chains, int32_t idx)
{
    ASSERT(idx >= 0 && idx < chains->n_chains);
    return &chains->chains[idx];
}

static void close_chain(struct draft_chains *chains, struct draft_chain *chain)
{
    ASSERT(chain->is_open);
    chain->is_open = false;
    chains->n_open--;
}

/* A sequence alone catches up at once. Where others wait for their tokens, whole prompts share the rows
 * of one pass a step, so that nobody stalls for longer; what is missing comes with the next steps. Not so
 * where the text hangs on what is proposed: it would hang on the neighbours then. */
static void spread_catching_up(struct draft_chains *chains)
{
    int32_t left = chains->options.catch_up_rows;
    for (int32_t i = 0; i < chains->n_chains && chains->n_open > 1; i++) {
        struct draft_chain *chain = &chains->chains[i];
        const int32_t n_extra = chain->end_position - chain->next_position - 1;
        if (n_extra <= DRAFT_MAX_NODES || (chain->ask->wants_prob && chain->ask->is_fixed)) {
            continue; /* no prompt: what a few rounds left behind */
        }
        const int32_t n_fed = n_extra < left ? n_extra : left;
        left -= n_fed;
        if (n_fed < n_extra) {
            chain->end_position = chain->next_position + n_fed;
        }
    }
    for (int32_t i = 0; i < chains->n_chains; i++) {
        if (chains->chains[i].end_position == chains->chains[i].next_position) {
            close_chain(chains, &chains->chains[i]);
        }
    }
}

/* ---- a pass ---- */
/* The rows that a chain lacks: all but one of them count against *n_left. */
static void add_rows(struct draft_chains *chains, struct draft_chain *chain, int32_t *n_left)
{
    const struct draft_ask *ask = chain->ask;
    const bool catches_up = chain->end_position < ask->n_tokens;
    const int32_t n_known = chain->end_position + chain->n, n_lacking = n_known - chain->next_position;
    const int32_t n_rows = n_lacking - 1 <= *n_left ? n_lacking : 1 + *n_left;
    const bool chooses = n_rows == n_lacking && !catches_up;
    ASSERT(n_rows >= 1);
    *n_left -= n_rows - 1;
    for (int32_t i = 0; i < n_rows; i++) {
        const int32_t late = mutant(MUTANT_DRAFT_STALE_COLUMN) && n_rows > 1 && chain->next_position + i > 0;
        const int32_t id = ask->tokens[chain->next_position + i - late];
        chains->feed[i] = id < chains->options.n_ids ? id : 0;
    }
    const int32_t logits_row = batch_add(chains->batch, &(struct batch_part){
        .tokens = chains->feed, .table = chain->table, .first_position = chain->next_position,
        .n_rows = n_rows, .n_logits = chooses ? 1 : 0 });
    chain->next_position += n_rows;
    if (chooses) {
        ASSERT(logits_row == chains->n_choosing);
        chains->choosing[chains->n_choosing++] = chain;
    } else if (catches_up && n_rows == n_lacking) {
        close_chain(chains, chain);
    }
}

static struct draft_choice *next_choice(const struct draft_chains *chains, struct draft_chain *chain,
                                        const float *logits, int32_t row_idx)
{
    const struct draft_options *common = &chains->options.common;
    const struct draft_ask *ask = chain->ask;
    const size_t row = (size_t)(chain - chains->chains) * (size_t)common->k_max + (size_t)chain->n;
    struct draft_choice *choice = &chain->choices[chain->n];
    ASSERT(!ask->wants_prob || chains->prob != NULL);
    choice->params = ask->params;
    choice->history = ask->tokens;
    choice->position = ask->n_tokens + chain->n + mutant(MUTANT_DRAFT_NOISE_ELSEWHERE);
    choice->logits = logits != NULL ? logits + (size_t)row_idx * (size_t)chains->options.row_len : NULL;
    choice->row = row_idx;
    choice->prob = ask->wants_prob ? chains->prob + row * (size_t)common->n_vocab : NULL;
    /* Siblings drawn without replacement would bias the rejection rule. */
    choice->n_siblings = ask->n_nodes_max > ask->k_max && !ask->wants_prob ? DRAFT_SIBLINGS : 0;
    return choice;
}

/* A token that no row should be spent on ends its chain: there is none, or what precedes it and the
 * token itself survive too rarely. (Not with the rejection rule, which K must not anticipate.) */
static void take_choice(struct draft_chains *chains, struct draft_chain *chain)
{
    const struct draft_choice *choice = &chain->choices[chain->n];
    const int32_t i = chain->n;
    chain->survival_before[i] = chain->survival;
    if (choice->token < 0) {
        close_chain(chains, chain);
        return;
    }
    chain->survival *= calibration_survival(&chains->options.draft->calibration[0], choice->hint);
    if (!chain->ask->wants_prob && chain->survival < chain->ask->stop_below) {
        close_chain(chains, chain);
        return;
    }
    chain->nodes.token[i] = choice->token;
    chain->nodes.parent[i] = (int8_t)(i - 1);
    chain->nodes.source[i] = 0;
    chain->nodes.hint[i] = choice->hint;
    chain->nodes.prob[i] = choice->prob;
    chain->ask->tokens[chain->ask->n_tokens + i] = choice->token;
    chain->n++;
    const bool next_is_poor = !chain->ask->wants_prob &&
                              chain->survival * NEXT_SURVIVAL < chain->ask->stop_below;
    if (chain->n == chain->k_max || next_is_poor) {
        close_chain(chains, chain);
    }
}

/* False: the device failed. */
static bool run_pass(struct draft_chains *chains)
{
    int32_t n_left = chains->options.catch_up_rows;
    chains->n_choosing = 0;
    batch_clear(chains->batch);
    for (int32_t i = 0; i < chains->n_chains; i++) {
        if (chains->chains[i].is_open) {
            add_rows(chains, &chains->chains[i], &n_left);
        }
    }
    const struct pass *pass = batch_pass(chains->batch);
    const int64_t span_ns = timeline_begin();
    const float *logits;
    const bool went_well = chains->options.forward(chains->options.user, pass, &logits);
    timeline_end(TIMELINE_DRAFT, &timeline_draft, span_ns, pass->n_rows, pass->n_logits);
    if (!went_well) {
        return false;
    }
    for (int32_t i = 0; i < chains->n_choosing; i++) {
        chains->choices[i] = next_choice(chains, chains->choosing[i], logits, i);
    }
    draft_chooser_run(chains->chooser, chains->choices, chains->n_choosing);
    for (int32_t i = 0; i < chains->n_choosing; i++) {
        take_choice(chains, chains->choosing[i]);
    }
    return true;
}

/* ---- side branches ---- */
struct branch { int32_t node, sibling; float survival; };

/* The most likely sibling that is not in the proposal yet: its path's survival times its own share. */
static struct branch best_branch(const struct draft_chain *chain, const uint8_t *n_taken)
{
    struct branch best = { .node = -1 };
    for (int32_t node = 0; node < chain->n; node++) {
        const struct draft_choice *choice = &chain->choices[node];
        const int32_t next = n_taken[node];
        if (next < choice->n_siblings && choice->sibling[next].token >= 0) {
            const float survival = chain->survival_before[node] * choice->sibling[next].hint;
            if (survival > best.survival && survival >= chain->ask->stop_below) {
                best = (struct branch){ node, next, survival };
            }
        }
    }
    return best;
}

/* Leaves behind the chain, best first. */
static void add_branches(struct draft_chain *chain)
{
    struct draft_proposal *nodes = &chain->nodes;
    uint8_t n_taken[DRAFT_MAX_NODES] = { 0 };
    const int32_t n_max = chain->ask->n_nodes_max < DRAFT_MAX_NODES ? chain->ask->n_nodes_max : DRAFT_MAX_NODES;
    while (nodes->n < n_max) {
        const struct branch branch = best_branch(chain, n_taken);
        if (branch.node < 0) {
            return;
        }
        n_taken[branch.node]++;
        nodes->token[nodes->n] = chain->choices[branch.node].sibling[branch.sibling].token;
        nodes->hint[nodes->n] = chain->choices[branch.node].sibling[branch.sibling].hint;
        nodes->parent[nodes->n] = (int8_t)(branch.node - 1);
        nodes->source[nodes->n] = 0;
        nodes->prob[nodes->n] = NULL;
        nodes->n++;
    }
}

void draft_chains_run(struct draft_chains *chains)
{
    bool works = true;
    spread_catching_up(chains);
    while (works && chains->n_open > 0) {
        works = run_pass(chains);
    }
    for (int32_t i = 0; i < chains->n_chains; i++) {
        struct draft_chain *chain = &chains->chains[i];
        chain->nodes.n = works ? chain->n : 0; /* I9 */
        if (works) {
            add_branches(chain);
        }
        chain->ask->proposal = chain->nodes;
    }
}
