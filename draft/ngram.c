/* ngram: prompt lookup. The longest suffix of the context that stood there before is continued as it was
 * then (Saxena, "Prompt lookup decoding", 2023). Best for code, quotes and agents.
 *
 * Every position is filed under the hash of its last two tokens; positions of one hash form a chain, the
 * newest first. A lookup walks a bounded part of the chain and compares backwards. Nothing is copied: the
 * tokens are the ask's own. A continuation that reaches the end of the context goes on in itself, so that
 * a period repeats.
 */
#include "draft/draft.h"

#include <string.h>

enum {
    NGRAM_MIN_MATCH = 2,       /* tokens that must be alike: what the index is made of */
    NGRAM_MAX_MATCH = 32,      /* longer matches are as good */
    NGRAM_MAX_CANDIDATES = 64, /* of one lookup */
    NGRAM_NONE = -1
};

struct ngram_place {
    uint64_t seq_id, epoch;
    int32_t n_indexed;         /* positions below are filed */
    int32_t *newest;           /* [n_buckets] last position of a hash */
    int32_t *older;            /* [context] the one before it */
};
struct ngram {
    struct draft base;
    int32_t context, n_buckets, n_places;
    int32_t *memory;
    struct ngram_place *places; /* [n_places] */
};

/* A place in the past that looks like the present. */
struct ngram_match { int32_t position, len; };

static uint32_t bucket_of(const struct ngram *ngram, const int32_t *tokens, int32_t position)
{
    const uint64_t pair = (uint64_t)(uint32_t)tokens[position - 1] << 32 | (uint32_t)tokens[position];
    return (uint32_t)rng_mix64(pair) & (uint32_t)(ngram->n_buckets - 1);
}

static struct ngram_place *place_of(struct ngram *ngram, const struct draft_ask *ask)
{
    struct ngram_place *place = &ngram->places[ask->place];
    if (place->seq_id != ask->seq_id || place->epoch != ask->epoch || place->n_indexed > ask->n_tokens) {
        place->seq_id = ask->seq_id;
        place->epoch = ask->epoch;
        place->n_indexed = 1; /* the first token ends no pair */
        memset(place->newest, 0xff, (size_t)ngram->n_buckets * sizeof *place->newest);
    }
    return place;
}

static void file_positions(const struct ngram *ngram, struct ngram_place *place, const struct draft_ask *ask)
{
    for (; place->n_indexed < ask->n_tokens; place->n_indexed++) {
        int32_t *newest = &place->newest[bucket_of(ngram, ask->tokens, place->n_indexed)];
        place->older[place->n_indexed] = *newest;
        *newest = place->n_indexed;
    }
}

static int32_t match_len(const int32_t *tokens, int32_t position, int32_t last)
{
    int32_t len = 0;
    while (len <= position && len < NGRAM_MAX_MATCH && tokens[position - len] == tokens[last - len]) {
        len++;
    }
    return len;
}

/* The longest match, the newest among equals; and the longest of those that go on differently. */
static void look_up(const struct ngram *ngram, const struct ngram_place *place, const struct draft_ask *ask,
                    struct ngram_match best[2])
{
    const int32_t *tokens = ask->tokens, last = ask->n_tokens - 1;
    struct ngram_match found[NGRAM_MAX_CANDIDATES];
    int32_t n_found = 0, n_seen = 0;
    best[0] = best[1] = (struct ngram_match){ NGRAM_NONE, 0 };
    for (int32_t p = place->newest[bucket_of(ngram, tokens, last)];
         p != NGRAM_NONE && n_seen < NGRAM_MAX_CANDIDATES; p = place->older[p], n_seen++) {
        const int32_t len = p < last ? match_len(tokens, p, last) : 0;
        if (len >= NGRAM_MIN_MATCH) {
            found[n_found++] = (struct ngram_match){ p, len };
            best[0] = len > best[0].len ? found[n_found - 1] : best[0];
        }
    }
    for (int32_t i = 0; i < n_found; i++) {
        const bool differs = tokens[found[i].position + 1] != tokens[best[0].position + 1];
        best[1] = differs && found[i].len > best[1].len ? found[i] : best[1];
    }
}

/* A match that has held for long will hold on; calibration puts numbers to it. */
static float hint_of(int32_t len) { return (float)len / (float)(len + 3); }

/* Appends a chain of at most n_max nodes after the recovery token, as long as it may be worth a row. */
static void add_chain(const struct ngram *ngram, struct draft_ask *ask, const struct ngram_match *match,
                      int32_t n_max)
{
    struct draft_proposal *proposal = &ask->proposal;
    const int32_t first = proposal->n, n_tokens = ask->n_tokens;
    float survival = 1.0f;
    for (int32_t i = 0; i < n_max && proposal->n < DRAFT_MAX_NODES; i++) {
        const int32_t from = match->position + 1 + i, node = proposal->n;
        const float hint = hint_of(match->len + i);
        survival *= calibration_survival(&ngram->base.calibration[0], hint);
        if (survival < ask->stop_below && !ask->wants_prob) {
            return;
        }
        proposal->token[node] = from < n_tokens ? ask->tokens[from] : proposal->token[first + from - n_tokens];
        proposal->parent[node] = (int8_t)(i == 0 ? -1 : node - 1);
        proposal->source[node] = 0;
        proposal->hint[node] = hint;
        proposal->prob[node] = NULL;
        proposal->n++;
    }
}

static void ngram_propose(struct draft *draft, struct draft_ask *asks, int32_t n_asks)
{
    struct ngram *ngram = (struct ngram *)draft;
    for (int32_t i = 0; i < n_asks; i++) {
        struct draft_ask *ask = &asks[i];
        struct ngram_match best[2];
        ask->proposal.n = 0;
        if (ask->k_max == 0 || ask->n_tokens < NGRAM_MIN_MATCH || ask->n_tokens > ngram->context) {
            continue;
        }
        struct ngram_place *place = place_of(ngram, ask);
        file_positions(ngram, place, ask);
        look_up(ngram, place, ask, best);
        if (best[0].len > 0) {
            add_chain(ngram, ask, &best[0], ask->k_max);
        }
        const int32_t n_more = ask->n_nodes_max - ask->proposal.n;
        if (best[1].len > 0 && n_more > 0) {
            add_chain(ngram, ask, &best[1], n_more < ask->k_max ? n_more : ask->k_max);
        }
    }
}

static void ngram_destroy(struct draft *draft)
{
    struct ngram *ngram = (struct ngram *)draft;
    mem_free(ngram->memory);
    mem_free(ngram->places);
    mem_free(ngram);
}

static enum status take_places(struct ngram *ngram)
{
    const size_t per_place = (size_t)ngram->n_buckets + (size_t)ngram->context;
    ngram->places = mem_alloc((size_t)ngram->n_places, sizeof *ngram->places);
    ngram->memory = mem_alloc((size_t)ngram->n_places * per_place, sizeof *ngram->memory);
    if (ngram->places == NULL || ngram->memory == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for n-grams of %d sequences of %d positions",
                           ngram->n_places, ngram->context);
    }
    for (int32_t i = 0; i < ngram->n_places; i++) {
        ngram->places[i].newest = ngram->memory + (size_t)i * per_place;
        ngram->places[i].older = ngram->places[i].newest + ngram->n_buckets;
    }
    return STATUS_OK;
}

enum status draft_ngram_create(const struct draft_options *options, struct draft **out)
{
    static const struct draft_kind kind = {
        .name = "ngram",
        .propose = ngram_propose,
        .observe = draft_observe_nothing,
        .forget = draft_forget_nothing,
        .destroy = ngram_destroy,
    };
    *out = NULL;
    struct ngram *ngram = mem_alloc(1, sizeof *ngram);
    if (ngram == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for an n-gram draft");
    }
    draft_base_init(&ngram->base, &kind, "ngram");
    ngram->context = options->context;
    ngram->n_places = options->max_batch;
    ngram->n_buckets = 16;
    while (ngram->n_buckets < options->context && ngram->n_buckets < 1 << 24) {
        ngram->n_buckets *= 2;
    }
    const enum status status = take_places(ngram);
    if (status != STATUS_OK) {
        ngram_destroy(&ngram->base);
        return status;
    }
    *out = &ngram->base;
    return STATUS_OK;
}
