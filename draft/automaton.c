#include "draft/automaton.h"

#include <string.h>

enum {
    NONE = -1,
    ROOT = 0,
    COUNTED_SUFFIXES = 16, /* of a token's contexts, the longest: more would make periods quadratic */
    MOST_EDGES_READ = 256  /* of one state when asked what comes next: the newest */
};

struct state { int32_t len, link, first_edge; };
struct edge {
    int32_t from, token, to;
    int32_t next;            /* of the same state, older */
    uint32_t count;
};
struct automaton {
    struct state *states;    /* [2 * cap_tokens + 1] */
    struct edge *edges;      /* [4 * cap_tokens + 4] */
    int32_t *slots;          /* [n_slots] edge by (from, token), open addressing */
    int32_t cap_tokens, n_tokens, n_states, n_edges, n_slots, last;
};

/* At most 2n states and, with texts apart, 3n edges; a clone's edges come before the count is final. */
static size_t cap_states(int32_t cap_tokens) { return 2 * (size_t)cap_tokens + 1; }
static size_t cap_edges(int32_t cap_tokens) { return 4 * (size_t)cap_tokens + 4; }

static size_t n_slots_for(int32_t cap_tokens)
{
    size_t n = 16;
    while (n < 2 * cap_edges(cap_tokens)) {
        n *= 2;
    }
    return n;
}

size_t automaton_bytes(int32_t cap_tokens)
{
    return sizeof(struct automaton) + cap_states(cap_tokens) * sizeof(struct state) +
           cap_edges(cap_tokens) * sizeof(struct edge) + n_slots_for(cap_tokens) * sizeof(int32_t);
}

enum status automaton_create(int32_t cap_tokens, struct automaton **out)
{
    *out = NULL;
    ASSERT(cap_tokens >= 1 && cap_tokens <= 1 << 26);
    struct automaton *a = mem_alloc(1, sizeof *a);
    if (a == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a suffix automaton");
    }
    a->cap_tokens = cap_tokens;
    a->n_slots = (int32_t)n_slots_for(cap_tokens);
    a->states = mem_alloc(cap_states(cap_tokens), sizeof *a->states);
    a->edges = mem_alloc(cap_edges(cap_tokens), sizeof *a->edges);
    a->slots = mem_alloc((size_t)a->n_slots, sizeof *a->slots);
    if (a->states == NULL || a->edges == NULL || a->slots == NULL) {
        automaton_destroy(a);
        return status_fail(STATUS_NO_MEMORY, "no memory for a suffix automaton of %d tokens", cap_tokens);
    }
    automaton_clear(a);
    *out = a;
    return STATUS_OK;
}

void automaton_destroy(struct automaton *a)
{
    if (a != NULL) {
        mem_free(a->slots);
        mem_free(a->edges);
        mem_free(a->states);
        mem_free(a);
    }
}

void automaton_clear(struct automaton *a)
{
    memset(a->slots, 0xff, (size_t)a->n_slots * sizeof *a->slots);
    a->states[ROOT] = (struct state){ .len = 0, .link = NONE, .first_edge = NONE };
    a->n_states = 1;
    a->n_edges = a->n_tokens = 0;
    a->last = ROOT;
}

void automaton_break(struct automaton *a) { a->last = ROOT; }
int32_t automaton_n_tokens(const struct automaton *a) { return a->n_tokens; }

/* ---- edges ---- */
/* The slot that holds the edge, or the free one where it belongs. There is always a free one. */
static int32_t *slot_of(const struct automaton *a, int32_t from, int32_t token)
{
    const uint32_t mask = (uint32_t)a->n_slots - 1;
    uint32_t i = (uint32_t)rng_mix64((uint64_t)(uint32_t)from << 32 | (uint32_t)token) & mask;
    while (a->slots[i] != NONE && (a->edges[a->slots[i]].from != from || a->edges[a->slots[i]].token != token)) {
        i = (i + 1) & mask;
    }
    return &a->slots[i];
}

static struct edge *edge_of(const struct automaton *a, int32_t from, int32_t token)
{
    const int32_t edge = *slot_of(a, from, token);
    return edge == NONE ? NULL : &a->edges[edge];
}

static void add_edge(struct automaton *a, int32_t from, int32_t token, int32_t to, uint32_t count)
{
    const int32_t edge = a->n_edges++;
    a->edges[edge] = (struct edge){ .from = from, .token = token, .to = to, .count = count,
                                    .next = a->states[from].first_edge };
    a->states[from].first_edge = edge;
    *slot_of(a, from, token) = edge;
}

/* ---- growing ---- */
static int32_t add_state(struct automaton *a, int32_t len, int32_t link)
{
    const int32_t state = a->n_states++;
    a->states[state] = (struct state){ .len = len, .link = link, .first_edge = NONE };
    return state;
}

/* Splits off of q what is reached from p by one token, with the edges of q. */
static int32_t clone_state(struct automaton *a, int32_t p, int32_t token, int32_t q)
{
    const int32_t clone = add_state(a, a->states[p].len + 1, a->states[q].link);
    for (int32_t e = a->states[q].first_edge; e != NONE; e = a->edges[e].next) {
        add_edge(a, clone, a->edges[e].token, a->edges[e].to, a->edges[e].count);
    }
    a->states[q].link = clone;
    for (struct edge *edge; p != NONE && (edge = edge_of(a, p, token)) != NULL && edge->to == q;
         p = a->states[p].link) {
        edge->to = clone;
    }
    return clone;
}

static int32_t n_edges_of(const struct automaton *a, int32_t state)
{
    int32_t n = 0;
    for (int32_t e = a->states[state].first_edge; e != NONE; e = a->edges[e].next) {
        n++;
    }
    return n;
}

/* Room for the worst that one token can bring: two states, a path of edges and a clone's. */
static bool has_room(const struct automaton *a, int32_t token)
{
    int32_t n_new = 0, p = a->last;
    const struct edge *edge = NULL;
    for (; p != NONE && (edge = edge_of(a, p, token)) == NULL; p = a->states[p].link) {
        n_new++;
    }
    n_new += edge != NULL ? n_edges_of(a, edge->to) : 0;
    return a->n_tokens < a->cap_tokens && (size_t)a->n_states + 2 <= cap_states(a->cap_tokens) &&
           (size_t)a->n_edges + (size_t)n_new <= cap_edges(a->cap_tokens);
}

static void count_next(struct automaton *a, int32_t state, int32_t token)
{
    for (int n = 0; n < COUNTED_SUFFIXES && state != NONE; n++, state = a->states[state].link) {
        struct edge *edge = edge_of(a, state, token);
        edge->count++;
    }
}

/* Where the text ends after the token: the state of which it is the longest string. */
static int32_t extend(struct automaton *a, int32_t token)
{
    int32_t p = a->last;
    const struct edge *edge = edge_of(a, p, token);
    if (edge != NULL) { /* another text has been here */
        const int32_t q = edge->to;
        return a->states[q].len == a->states[p].len + 1 ? q : clone_state(a, p, token, q);
    }
    const int32_t here = add_state(a, a->states[p].len + 1, ROOT);
    for (; p != NONE && (edge = edge_of(a, p, token)) == NULL; p = a->states[p].link) {
        add_edge(a, p, token, here, 0);
    }
    if (p != NONE) {
        const int32_t q = edge->to;
        a->states[here].link =
            a->states[q].len == a->states[p].len + 1 ? q : clone_state(a, p, token, q);
    }
    return here;
}

bool automaton_append(struct automaton *a, int32_t token)
{
    if (!has_room(a, token)) {
        return false;
    }
    const int32_t before = a->last;
    a->last = extend(a, token);
    count_next(a, before, token);
    a->n_tokens++;
    return true;
}

/* ---- asking ---- */
struct automaton_match automaton_repeat(const struct automaton *a)
{
    const int32_t link = a->states[a->last].link;
    return link == NONE ? (struct automaton_match){ ROOT, 0 }
                        : (struct automaton_match){ link, a->states[link].len };
}

void automaton_advance(const struct automaton *a, struct automaton_match *match, int32_t token)
{
    const struct edge *edge = edge_of(a, match->state, token);
    while (edge == NULL && a->states[match->state].link != NONE) {
        match->state = a->states[match->state].link;
        match->len = a->states[match->state].len;
        edge = edge_of(a, match->state, token);
    }
    *match = edge != NULL ? (struct automaton_match){ edge->to, match->len + 1 }
                          : (struct automaton_match){ ROOT, 0 };
}

int32_t automaton_next(const struct automaton *a, int32_t state, struct automaton_next next[2])
{
    const struct edge *best[2] = { NULL, NULL };
    uint64_t total = 0;
    int n_read = 0;
    for (int32_t e = a->states[state].first_edge; e != NONE && n_read < MOST_EDGES_READ;
         e = a->edges[e].next, n_read++) {
        const struct edge *edge = &a->edges[e];
        total += edge->count;
        if (best[0] == NULL || edge->count >= best[0]->count) {
            best[1] = best[0];
            best[0] = edge;
        } else if (best[1] == NULL || edge->count >= best[1]->count) {
            best[1] = edge;
        }
    }
    int32_t n = 0;
    for (; n < 2 && best[n] != NULL; n++) {
        const float share = total > 0 ? (float)best[n]->count / (float)total : 0.0f;
        next[n] = (struct automaton_next){ best[n]->token, best[n]->to, share };
    }
    return n;
}
