/* suffix: what followed the longest repeated suffix most often, in this text, or in earlier outputs of the
 * same tenant (suffix decoding: 2411.04975). Two automata say so: one of the sequence's own tokens, one
 * of what was written before. The longer match speaks.
 *
 * Memory is bounded at creation. A sequence's automaton that is full starts anew from its recent half;
 * a tenant's is in two generations, of which the older is dropped when the younger is full. Of tenants
 * the few most recent are remembered.
 */
#include "draft/automaton.h"
#include "draft/draft.h"

enum { SUFFIX_TENANTS = 4, SUFFIX_MIN_TOKENS = 256, SUFFIX_OWN_SHARE = 2 };

struct suffix_place {
    uint64_t seq_id, epoch;
    int32_t n_read;                        /* tokens both automata were told or matched against */
    uint64_t tenant;
    struct automaton *own;
    struct automaton_match earlier[2];     /* in the generations of the tenant */
    uint64_t turn;                         /* of the tenant when they were made */
};
struct suffix_tenant {
    uint64_t salt, used, turn;             /* turn: rises when what matches point to has moved */
    bool is_used;
    struct automaton *generation[2];       /* 0 grows */
};
struct suffix {
    struct draft base;
    struct suffix_place *places;           /* [n_places] */
    struct suffix_tenant tenants[SUFFIX_TENANTS];
    int32_t n_places;
    uint64_t n_uses;
};

/* ---- tenants ---- */
static struct suffix_tenant *find_tenant(struct suffix *suffix, uint64_t salt)
{
    for (int i = 0; i < SUFFIX_TENANTS; i++) {
        if (suffix->tenants[i].is_used && suffix->tenants[i].salt == salt) {
            return &suffix->tenants[i];
        }
    }
    return NULL;
}

/* The tenant's, or the one longest not used, emptied. */
static struct suffix_tenant *take_tenant(struct suffix *suffix, uint64_t salt)
{
    struct suffix_tenant *tenant = find_tenant(suffix, salt);
    if (tenant == NULL) {
        tenant = &suffix->tenants[0];
        for (int i = 1; i < SUFFIX_TENANTS; i++) {
            tenant = suffix->tenants[i].used < tenant->used ? &suffix->tenants[i] : tenant;
        }
        automaton_clear(tenant->generation[0]);
        automaton_clear(tenant->generation[1]);
        tenant->turn++;
        tenant->salt = salt;
        tenant->is_used = true;
    }
    tenant->used = ++suffix->n_uses;
    return tenant;
}

static void learn(struct suffix_tenant *tenant, const int32_t *tokens, int32_t n)
{
    automaton_break(tenant->generation[0]);
    for (int32_t i = 0; i < n; i++) {
        if (!automaton_append(tenant->generation[0], tokens[i])) {
            struct automaton *oldest = tenant->generation[1];
            tenant->generation[1] = tenant->generation[0];
            tenant->generation[0] = oldest;
            automaton_clear(oldest);
            automaton_append(oldest, tokens[i]);
        }
    }
    tenant->turn++;
}

/* ---- a sequence ---- */
static void start_place(struct suffix_place *place, const struct draft_ask *ask)
{
    place->seq_id = ask->seq_id;
    place->epoch = ask->epoch;
    place->n_read = 0;
    place->turn = 0;
    place->tenant = ask->tenant;
    automaton_clear(place->own);
}

static void append_own(struct automaton *own, const int32_t *tokens, int32_t i)
{
    if (automaton_append(own, tokens[i])) {
        return;
    }
    const int32_t n_recent = automaton_n_tokens(own) / 2;
    automaton_clear(own);
    for (int32_t j = i - n_recent; j <= i; j++) {
        automaton_append(own, tokens[j]);
    }
}

/* Matches that point into automata which have changed are made again, from a bounded past. */
static void read_tokens(struct suffix_place *place, const struct suffix_tenant *tenant, const struct draft_ask *ask)
{
    enum { PAST = 64 };
    const bool moved = tenant != NULL && place->turn != tenant->turn;
    int32_t from = place->n_read;
    if (moved) {
        place->turn = tenant->turn;
        place->earlier[0] = place->earlier[1] = (struct automaton_match){ 0, 0 };
        from = ask->n_tokens > PAST ? ask->n_tokens - PAST : 0;
    }
    for (int32_t i = from; tenant != NULL && i < ask->n_tokens; i++) {
        automaton_advance(tenant->generation[0], &place->earlier[0], ask->tokens[i]);
        automaton_advance(tenant->generation[1], &place->earlier[1], ask->tokens[i]);
    }
    for (; place->n_read < ask->n_tokens; place->n_read++) {
        append_own(place->own, ask->tokens, place->n_read);
    }
}

/* ---- proposing ---- */
/* A frequent continuation of a long match. */
static float hint_of(const struct automaton_next *next, int32_t len)
{
    return next->share * (float)len / (float)(len + 2);
}

struct branch { struct automaton_next next; int32_t parent, len; };

static void add_node(struct draft_proposal *proposal, int32_t parent, int32_t token, float hint)
{
    const int32_t node = proposal->n++;
    proposal->token[node] = token;
    proposal->parent[node] = (int8_t)parent;
    proposal->source[node] = 0;
    proposal->hint[node] = hint;
    proposal->prob[node] = NULL;
}

/* The likeliest walk, and what came second at each of its places as a side branch of one token. */
static void walk(const struct suffix *suffix, const struct automaton *automaton, struct automaton_match match,
                 struct draft_ask *ask)
{
    struct branch branches[DRAFT_MAX_NODES];
    struct automaton_next next[2];
    int32_t n_branches = 0, n = 0;
    float survival = 1.0f;
    while (ask->proposal.n < ask->k_max && (n = automaton_next(automaton, match.state, next)) > 0) {
        const float hint = hint_of(&next[0], match.len);
        survival *= calibration_survival(&suffix->base.calibration[0], hint);
        if (survival < ask->stop_below && !ask->wants_prob) {
            break;
        }
        if (n > 1) {
            branches[n_branches++] = (struct branch){ next[1], ask->proposal.n - 1, match.len };
        }
        add_node(&ask->proposal, ask->proposal.n - 1, next[0].token, hint);
        match = (struct automaton_match){ next[0].state, match.len + 1 };
    }
    for (int32_t i = 0; i < n_branches && ask->proposal.n < ask->n_nodes_max; i++) {
        add_node(&ask->proposal, branches[i].parent, branches[i].next.token,
                 hint_of(&branches[i].next, branches[i].len));
    }
}

static void propose_one(struct suffix *suffix, struct draft_ask *ask)
{
    struct suffix_place *place = &suffix->places[ask->place];
    if (place->seq_id != ask->seq_id || place->epoch != ask->epoch || place->n_read > ask->n_tokens) {
        start_place(place, ask);
    }
    const struct suffix_tenant *tenant = find_tenant(suffix, place->tenant);
    read_tokens(place, tenant, ask);
    const struct automaton *best = place->own;
    struct automaton_match match = automaton_repeat(place->own);
    for (int g = 0; tenant != NULL && g < 2; g++) {
        if (place->earlier[g].len > match.len) {
            best = tenant->generation[g];
            match = place->earlier[g];
        }
    }
    if (match.len > 0) {
        walk(suffix, best, match, ask);
    }
}

static void suffix_propose(struct draft *draft, struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        asks[i].proposal.n = 0;
        if (asks[i].k_max > 0) {
            propose_one((struct suffix *)draft, &asks[i]);
        }
    }
}

static void suffix_forget(struct draft *draft, const struct draft_farewell *farewell)
{
    struct suffix *suffix = (struct suffix *)draft;
    suffix->places[farewell->place].seq_id = 0; /* of no sequence */
    if (farewell->is_finished && farewell->n_tokens > farewell->n_prompt) {
        learn(take_tenant(suffix, farewell->tenant), farewell->tokens + farewell->n_prompt,
              farewell->n_tokens - farewell->n_prompt);
    }
}

/* ---- creation ---- */
static void suffix_destroy(struct draft *draft)
{
    struct suffix *suffix = (struct suffix *)draft;
    for (int32_t i = 0; suffix->places != NULL && i < suffix->n_places; i++) {
        automaton_destroy(suffix->places[i].own);
    }
    for (int i = 0; i < SUFFIX_TENANTS; i++) {
        automaton_destroy(suffix->tenants[i].generation[0]);
        automaton_destroy(suffix->tenants[i].generation[1]);
    }
    mem_free(suffix->places);
    mem_free(suffix);
}

/* Tokens whose automaton fits into so many bytes, at most n_most. */
static int32_t tokens_within(uint64_t bytes, int32_t n_most)
{
    int32_t n = SUFFIX_MIN_TOKENS;
    while (n < n_most && automaton_bytes(2 * n) <= bytes) {
        n *= 2;
    }
    return n;
}

static enum status take_automata(struct suffix *suffix, const struct draft_options *options, uint64_t bytes)
{
    const uint64_t own = bytes / SUFFIX_OWN_SHARE;
    const int32_t n_own = tokens_within(own / (uint64_t)options->max_batch, options->context);
    const int32_t n_earlier = tokens_within((bytes - own) / (2 * SUFFIX_TENANTS), 1 << 20);
    suffix->places = mem_alloc((size_t)options->max_batch, sizeof *suffix->places);
    if (suffix->places == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for suffixes of %d sequences", options->max_batch);
    }
    for (int32_t i = 0; i < options->max_batch; i++) {
        TRY(automaton_create(n_own, &suffix->places[i].own));
    }
    for (int i = 0; i < SUFFIX_TENANTS; i++) {
        TRY(automaton_create(n_earlier, &suffix->tenants[i].generation[0]));
        TRY(automaton_create(n_earlier, &suffix->tenants[i].generation[1]));
    }
    return STATUS_OK;
}

enum status draft_suffix_create(const struct draft_options *options, uint64_t cap_bytes, struct draft **out)
{
    static const struct draft_kind kind = {
        .name = "suffix",
        .propose = suffix_propose,
        .observe = draft_observe_nothing,
        .forget = suffix_forget,
        .destroy = suffix_destroy,
    };
    *out = NULL;
    struct suffix *suffix = mem_alloc(1, sizeof *suffix);
    if (suffix == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a suffix draft");
    }
    draft_base_init(&suffix->base, &kind, "suffix");
    suffix->n_places = options->max_batch;
    const enum status status = take_automata(suffix, options, cap_bytes);
    if (status != STATUS_OK) {
        suffix_destroy(&suffix->base);
        return status;
    }
    *out = &suffix->base;
    return STATUS_OK;
}
