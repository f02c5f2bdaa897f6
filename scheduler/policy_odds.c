/* policy_odds: see the header. */
#include "scheduler/policy_odds.h"

static const float PRIOR_SURVIVAL = 0.6f, PRIOR_WEIGHT = 2.0f; /* of depth 1 of everybody */
static const float DEPTH_WEIGHT = 6.0f;    /* of the depth before, for everybody */
static const float PLACE_WEIGHT = 3.0f;    /* of everybody, for a place */
static const float DECAY_ALL = 1.0f - 1.0f / 256.0f;  /* a round */
static const float DECAY_PLACE = 1.0f - 1.0f / 64.0f;
static const float DRIFT_ALL = 1.0f / 24.0f, DRIFT_PLACE = 1.0f / 12.0f;
static const float DRIFT_LIMIT = 0.35f;    /* more than three deviations of a coin's mean */
static const float WEIGHT_AFTER_DRIFT = 1.5f;
static const float DECAY_CORRECTION = 1.0f - 1.0f / 32.0f, CORRECTION_WEIGHT = 4.0f;
static const float SURVIVAL_MIN = 0.001f, SURVIVAL_MAX = 0.995f;

static float clamp(float value, float low, float high)
{
    return value < low ? low : value > high ? high : value;
}

enum status policy_odds_init(struct policy_odds *odds, struct draft *draft, int32_t n_places)
{
    *odds = (struct policy_odds){ .draft = draft, .n_places = n_places };
    odds->places = mem_alloc((size_t)n_places, sizeof *odds->places);
    if (odds->places == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the odds of %d places", n_places);
    }
    for (int32_t i = 0; i < n_places; i++) {
        policy_odds_forget(odds, i);
    }
    return STATUS_OK;
}

void policy_odds_deinit(struct policy_odds *odds)
{
    mem_free(odds->places);
    odds->places = NULL;
}

void policy_odds_forget(struct policy_odds *odds, int32_t place)
{
    ASSERT(place >= 0 && place < odds->n_places);
    odds->places[place] = (struct policy_place){ .seq_id = UINT64_MAX,
                                                 .wait_rounds = POLICY_WAIT_ROUNDS_MIN };
}

struct policy_place *policy_odds_place(struct policy_odds *odds, const struct draft_ask *ask)
{
    ASSERT(ask->place >= 0 && ask->place < odds->n_places);
    struct policy_place *place = &odds->places[ask->place];
    if (place->seq_id != ask->seq_id || place->epoch != ask->epoch) {
        policy_odds_forget(odds, ask->place);
        place->seq_id = ask->seq_id;
        place->epoch = ask->epoch;
    }
    return place;
}

/* ---- before drafting ---- */
/* Hits of `hit` in `reached`, leaning on the prior; with n_more hits, or, negative, misses. */
static float leaning(float hit, float reached, float prior, float weight, float n_more)
{
    const float n_hits = n_more > 0.0f ? n_more : 0.0f, n_misses = n_more < 0.0f ? -n_more : 0.0f;
    return clamp((hit + weight * prior + n_hits) / (reached + weight + n_hits + n_misses),
                 SURVIVAL_MIN, SURVIVAL_MAX);
}

/* Doubt is about what was seen: where nothing was, there is the prior. */
static float as_far_as_seen(float n_more, float reached)
{
    return n_more > reached ? reached : n_more < -reached ? -reached : n_more;
}

/* One place among many is no reason to doubt what all of them say. */
static float own_part(float own_reached, float all_reached)
{
    const float most = all_reached < 64.0f ? all_reached : 64.0f;
    return own_reached < most ? own_reached / most : 1.0f;
}

void policy_odds_by_depth(const struct policy_odds *odds, const struct policy_place *place,
                          int32_t n_depths, float n_more, float *survival)
{
    const struct policy_track *all = &odds->all, *own = &place->track;
    float of_all = PRIOR_SURVIVAL, ratio = 1.0f;
    for (int32_t d = 1; d <= n_depths; d++) {
        of_all = leaning(all->hit[d], all->reached[d], of_all, d == 1 ? PRIOR_WEIGHT : DEPTH_WEIGHT,
                         as_far_as_seen(n_more, all->reached[d]));
        const float prior = clamp(of_all * ratio, SURVIVAL_MIN, SURVIVAL_MAX);
        survival[d] = leaning(own->hit[d], own->reached[d], prior, PLACE_WEIGHT,
                              own_part(own->reached[d], all->reached[d]) *
                              as_far_as_seen(n_more, own->reached[d]));
        ratio = clamp(survival[d] / of_all, 0.5f, 2.0f);
    }
}

/* The averages were contradicted: this depth starts again from where the last fates point, those below
 * it know nothing any more, and those above it little. */
static void forget_most(struct policy_track *track, int32_t depth, float hit)
{
    for (int32_t d = 1; d <= DRAFT_MAX_NODES; d++) {
        const float reached = track->reached[d];
        const float most = reached < WEIGHT_AFTER_DRIFT ? reached : WEIGHT_AFTER_DRIFT;
        const float weight = d > depth ? 0.0f : most;
        const float rate = d == depth ? hit : reached > 0.0f ? track->hit[d] / reached : 0.0f;
        track->reached[d] = weight;
        track->hit[d] = weight * rate;
    }
    track->drift = 0.0f;
}

/* Depth 1 has a fate in each round: then all depths grow older, so that one given up comes back. */
static void add_to_track(struct policy_track *track, int32_t depth, float hit, float decay)
{
    for (int32_t d = 1; d <= DRAFT_MAX_NODES && depth == 1; d++) {
        track->reached[d] *= decay;
        track->hit[d] *= decay;
    }
    track->reached[depth] += 1.0f;
    track->hit[depth] += hit;
}

/* What came against what was expected, in the long run. */
static void check_drift(struct policy_track *track, int32_t depth, float hit, float expected, float weight)
{
    track->drift += (hit - expected - track->drift) * weight;
    if (track->drift > DRIFT_LIMIT || track->drift < -DRIFT_LIMIT) {
        forget_most(track, depth, hit);
    }
}

void policy_odds_observe_depth(struct policy_odds *odds, struct policy_place *place, int32_t depth,
                               int32_t n_accepted)
{
    float survival[DRAFT_MAX_NODES + 1];
    const float hit = n_accepted > 0 ? 1.0f : 0.0f;
    policy_odds_by_depth(odds, place, depth, 0.0f, survival);
    check_drift(&place->track, depth, hit, survival[depth], DRIFT_PLACE);
    check_drift(&odds->all, depth, hit, survival[depth], DRIFT_ALL);
    add_to_track(&place->track, depth, hit, DECAY_PLACE);
    add_to_track(&odds->all, depth, hit, DECAY_ALL);
}

void policy_odds_assume_depth(struct policy_odds *odds, struct policy_place *place, int32_t depth,
                              float survival)
{
    add_to_track(&place->track, depth, survival, DECAY_PLACE);
    add_to_track(&odds->all, depth, survival, DECAY_ALL);
}

/* ---- after drafting ---- */
float policy_odds_of_node(const struct policy_odds *odds, const struct policy_place *place,
                          const struct draft_proposal *proposal, int32_t node)
{
    const uint8_t source = proposal->source[node];
    const struct policy_correction *correction = &place->corrections[source];
    const float ratio = clamp((correction->accepted + CORRECTION_WEIGHT) /
                              (correction->expected + CORRECTION_WEIGHT), 0.25f, 2.0f);
    const float survival = calibration_survival(&odds->draft->calibration[source], proposal->hint[node]);
    return clamp(survival * ratio, SURVIVAL_MIN, SURVIVAL_MAX);
}

static void observe_node(struct policy_odds *odds, struct policy_place *place,
                         const struct draft_proposal *proposal, int32_t node, int is_accepted)
{
    struct policy_correction *correction = &place->corrections[proposal->source[node]];
    struct calibration *calibration = &odds->draft->calibration[proposal->source[node]];
    correction->accepted = correction->accepted * DECAY_CORRECTION + (is_accepted ? 1.0f : 0.0f);
    correction->expected = correction->expected * DECAY_CORRECTION +
                           calibration_survival(calibration, proposal->hint[node]);
    calibration_observe(calibration, proposal->hint[node], is_accepted);
}

/* Nodes whose parent is right have a fate; of the others nothing is known. */
static void observe_nodes(struct policy_odds *odds, struct policy_place *place,
                          const struct draft_verdict *verdict)
{
    const struct draft_proposal *proposal = &verdict->ask->proposal;
    uint32_t is_right = 0;
    for (int32_t i = 0; i < verdict->n_accepted; i++) {
        is_right |= UINT32_C(1) << verdict->path[i];
    }
    for (int32_t node = 0; node < proposal->n; node++) {
        const int8_t parent = proposal->parent[node];
        if (parent < 0 || (is_right >> parent & 1) != 0) {
            observe_node(odds, place, proposal, node, (int)(is_right >> node & 1));
        }
    }
}

void policy_odds_observe_verdict(struct policy_odds *odds, const struct draft_verdict *verdict)
{
    struct policy_place *place = policy_odds_place(odds, verdict->ask);
    const int32_t n_accepted = verdict->n_accepted;
    for (int32_t d = 1; d <= n_accepted; d++) {
        policy_odds_observe_depth(odds, place, d, 1);
    }
    if (n_accepted < verdict->ask->k_max && place->cut_depth == n_accepted + 1) {
        policy_odds_assume_depth(odds, place, n_accepted + 1, place->cut_survival);
    } else if (n_accepted < verdict->ask->k_max) {
        policy_odds_observe_depth(odds, place, n_accepted + 1, 0);
    }
    if (n_accepted > 0) {
        place->wait_rounds = POLICY_WAIT_ROUNDS_MIN;
    }
    observe_nodes(odds, place, verdict);
}
