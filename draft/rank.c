/* rank: see choose.h. One scan over a row keeps the best so far in order; few of the others get that far. */
#include "draft/chooser.h"

#include <string.h>

enum { RANK_BLOCK = 1024 }; /* ids whose noise lies on the stack at a time; a multiple of 4 */

struct leaders { struct draft_ranking *ranking; float key[DRAFT_MAX_RANKED]; };

/* Ids come ascending, so an equal key stays behind those before it. */
static void offer(struct leaders *leaders, int32_t id, float key)
{
    struct draft_ranking *ranking = leaders->ranking;
    const bool is_full = ranking->n == ranking->n_wanted;
    if (!(key > -MATHX_INF) || id == ranking->excluded || (is_full && !(key > leaders->key[ranking->n - 1]))) {
        return;
    }
    int32_t at = is_full ? ranking->n - 1 : ranking->n++;
    while (at > 0 && key > leaders->key[at - 1]) {
        leaders->key[at] = leaders->key[at - 1];
        ranking->id[at] = ranking->id[at - 1];
        at--;
    }
    leaders->key[at] = key;
    ranking->id[at] = id;
}

/* What a row says of its ids before noise: value[i] of ids[i], or of i. */
struct ranked_row { const float *value; const int32_t *ids; int32_t n; float divisor; bool are_probs; };

static float key_of(const struct ranked_row *row, int32_t i)
{
    if (!row->are_probs) {
        return row->value[i] / row->divisor;
    }
    return row->value[i] > 0.0f ? mathx_log(row->value[i]) : -MATHX_INF;
}

static void scan(const struct draft_chooser *chooser, const struct ranked_row *row, bool has_noise,
                 struct leaders *leaders)
{
    const struct draft_ranking *ranking = leaders->ranking;
    float noise[RANK_BLOCK];
    int32_t first = -RANK_BLOCK; /* of the block whose noise is there */
    memset(noise, 0, sizeof noise);
    for (int32_t i = 0; i < row->n; i++) {
        const int32_t id = row->ids != NULL ? row->ids[i] : i;
        if (has_noise && id >= first + RANK_BLOCK) {
            first = id / RANK_BLOCK * RANK_BLOCK;
            backend_gumbel(chooser->backend, ranking->params->seed, (uint32_t)ranking->position, (uint32_t)first,
                           RANK_BLOCK, noise);
        }
        offer(leaders, id, key_of(row, i) + (has_noise ? noise[id - first] : 0.0f));
    }
}

/* What is left after penalties, biases and filters; without temperature only the first two count. */
static bool filtered_row(const struct draft_chooser *chooser, const struct chooser_desk *desk,
                         const struct draft_ranking *ranking, struct ranked_row *row)
{
    struct sampling_params params = chooser_params(chooser, ranking->params);
    if (params.temperature == 0.0f) {
        params.temperature = 1.0f;
        params.top_k = 0;
        params.top_p = 1.0f;
        params.min_p = 0.0f;
    }
    *row = (struct ranked_row){ .value = desk->prob, .n = chooser->options.n_vocab_common, .are_probs = true };
    return sampling_distribution(chooser->backend, &params, chooser_full_row(chooser, desk, ranking->logits),
                                 chooser->options.n_vocab_common, ranking->history, ranking->n_history,
                                 desk->scratch, desk->prob) == STATUS_OK;
}

static void rank(const struct draft_chooser *chooser, const struct chooser_desk *desk,
                 struct draft_ranking *ranking)
{
    const struct sampling_params *params = ranking->params;
    const bool has_noise = params->temperature > 0.0f && !ranking->by_probability;
    struct leaders leaders = { .ranking = ranking };
    struct ranked_row row = { .value = ranking->logits, .ids = chooser->kept_ids,
                              .n = chooser->kept_ids != NULL ? chooser->options.n_kept
                                                             : chooser->options.n_vocab_common,
                              .divisor = has_noise ? params->temperature : 1.0f };
    ranking->n = 0;
    ASSERT(ranking->n_wanted >= 0 && ranking->n_wanted <= DRAFT_MAX_RANKED);
    if (ranking->n_wanted > 0 && (sampling_is_plain(params) || filtered_row(chooser, desk, ranking, &row))) {
        scan(chooser, &row, has_noise, &leaders);
    }
}

static void rank_fn(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    struct draft_chooser *chooser = *(struct draft_chooser *const *)args;
    struct chooser_desk *desk = chooser_desk_acquire(chooser, worker->idx);
    rank(chooser, desk, chooser->rankings[chunk]);
    chooser_desk_release(desk);
}

void draft_chooser_rank(struct draft_chooser *chooser, struct draft_ranking *const *rankings, int32_t n)
{
    struct lane *lane = chooser->options.lane;
    ASSERT(chooser->options.ranks);
    chooser->rankings = rankings;
    if (n > 0 && rankings[0]->logits == NULL) {
        chooser_rank_there(chooser, rankings, n);
    } else if (n > 0) {
        lane_wait(lane, lane_submit(lane, rank_fn, &chooser, sizeof chooser, (uint32_t)n));
    }
}
