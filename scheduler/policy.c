/* policy: see the header. */
#include "scheduler/policy_private.h"

static const double CREDIT_SHARE = 0.008;    /* of the time, for trying */
static const double CREDIT_START = 2.5, CREDIT_MAX = 8.0, CREDIT_OVERDRAWN = -1.0, /* plain rounds */
                    CREDIT_RESERVE = 0.75;   /* for probes after a pause */
static const double MARGIN = 0.02;           /* expected gain below which averages are noise */
static const double MARGIN_IN_DOUBT = 0.05;  /* possible gain below which it is not worth finding out */
static const double PLAIN_SHARE = 0.004;     /* of the time, given up for plain rounds */
static const double PROBE_SHARE = 0.006;     /* of the time, for probes once they have failed for long */
static const double LAG_TOKEN_ROUNDS = 0.01; /* plain rounds of catching up by a token, while unknown */
static const double CATCH_UP_MAX = 4.0;      /* plain rounds a catch-up is charged with at most */
static const double RECENT = 1.0 - 1.0 / 2048.0; /* rounds that speedup_vs_plain speaks of */
static const float HOPE_HIGH = 0.9f;         /* survival that a probe after a pause hopes for */
static const float HOPE_DOUBT = 2.0f;        /* hits that may only have been missed by chance so far */
/* A token's rival in its place is right about so often. Where a row is worth more, a draft need not look for
 * rivals, which takes it a third as long as drafting. */
static const float SIDE_BRANCH_WORTH = 0.12f;
enum {
    PROBE_SPACING_MIN = 16, PROBE_SPACING_MAX = 4096,
    PROBE_K_MAX = 4,
    PLAIN_SPACING_START = 4, PLAIN_SPACING_EARLY = 1024, /* times the number of plain rounds so far */
    PLAIN_SPACING_MIN = 32,
    LAG_MAX = DRAFT_MAX_NODES + 2, /* tokens a draft takes in along with its work */
    LAG_FRESH = 64,                /* tokens written */
    INVESTMENT_ROUNDS = 128        /* in which the gain has to pay for catching up */
};
static const float EVIDENCE_MIN = 2.9f;      /* fates at depth 1 before the odds are more than a prior */
static const float INVESTMENT_DOUBT = 1.5f;  /* misses that may only have been spared by chance so far */

/* ---- creation ---- */
enum status policy_create(const struct policy_options *options, struct draft *draft, struct policy **out)
{
    enum status status = STATUS_OK;
    *out = NULL;
    struct policy *policy = mem_alloc(1, sizeof *policy);
    if (policy == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for the policy");
    }
    policy->options = *options;
    policy->draft = draft;
    policy->credit = CREDIT_START;
    policy->plain_spacing = PLAIN_SPACING_START;
    policy->n_plain_early = 1;
    policy->probe_spacing = PROBE_SPACING_MIN;
    TRY_GOTO(policy_times_init(&policy->verify, options->max_rows, POLICY_TIMES_LEVEL), out);
    for (int32_t i = 0; i < POLICY_ASK_SIZES; i++) {
        TRY_GOTO(policy_times_init(&policy->drafts[i], DRAFT_MAX_NODES, POLICY_TIMES_FROM_ZERO), out);
    }
    TRY_GOTO(policy_odds_init(&policy->odds, draft, options->max_batch), out);
    TRY_GOTO(policy_rows_init(&policy->rows, options->max_batch * DRAFT_MAX_NODES), out);
    policy->kept = mem_alloc((size_t)options->max_batch, sizeof *policy->kept);
    if (policy->kept == NULL) {
        status = status_fail(STATUS_NO_MEMORY, "no memory for the proposals of %d places",
                             options->max_batch);
        goto out;
    }
    *out = policy;
    return STATUS_OK;
out:
    policy_destroy(policy);
    return status;
}

void policy_destroy(struct policy *policy)
{
    if (policy == NULL) {
        return;
    }
    mem_free(policy->kept);
    policy_rows_deinit(&policy->rows);
    policy_odds_deinit(&policy->odds);
    for (int32_t i = 0; i < POLICY_ASK_SIZES; i++) {
        policy_times_deinit(&policy->drafts[i]);
    }
    policy_times_deinit(&policy->verify);
    mem_free(policy);
}

void policy_forget(struct policy *policy, int32_t place)
{
    policy_odds_forget(&policy->odds, place);
}

/* ---- times ---- */
static int32_t ask_size_of(int32_t n_asks)
{
    int32_t size = 0;
    for (; n_asks > 1 && size < POLICY_ASK_SIZES - 1; n_asks /= 2) {
        size++;
    }
    return size;
}

/* Of so many asks, or of the nearest number that was measured. */
static const struct policy_times *draft_times(const struct policy *policy, int32_t n_asks)
{
    const int32_t size = ask_size_of(n_asks);
    for (int32_t away = 0; away < POLICY_ASK_SIZES; away++) {
        if (size - away >= 0 && policy->drafts[size - away].last_knot > 0) {
            return &policy->drafts[size - away];
        }
        if (size + away < POLICY_ASK_SIZES && policy->drafts[size + away].last_knot > 0) {
            return &policy->drafts[size + away];
        }
    }
    return &policy->drafts[size];
}

double policy_verify_seconds(const struct policy *policy, int32_t n_rows)
{
    return policy_times_ns(&policy->verify, n_rows) * 1e-9;
}

void policy_observe_pass(struct policy *policy, int32_t n_rows, int64_t ns)
{
    policy_times_observe(&policy->verify, n_rows, ns);
}

void policy_observe_draft(struct policy *policy, int32_t k, int64_t ns)
{
    policy_times_observe(&policy->drafts[0], k, ns);
}

/* ---- plan ---- */
static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t max_i32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* Drafting starts small: its time is measured, not guessed. From then on the line through zero says at
 * least what longer chains take. */
static int32_t longest_possible(const struct policy *policy, const struct draft_ask *asks, int32_t n_asks)
{
    const struct policy_times *drafts = draft_times(policy, n_asks);
    int32_t k = 0;
    for (int32_t i = 0; i < n_asks; i++) {
        k = max_i32(k, asks[i].k_max);
    }
    return drafts->n_observed >= POLICY_TIMES_RECENT ? k : min_i32(k, drafts->n_observed > 0 ? 2 : 1);
}

/* Depths of all asks as candidates; each survives at least `floor`, and as often as it would with n_more
 * hits (or, negative, misses). */
static void gather_depths(struct policy *policy, const struct draft_ask *asks, int32_t n_asks, int32_t k_max,
                          float n_more, float floor)
{
    policy_rows_clear(&policy->rows);
    for (int32_t i = 0; i < n_asks; i++) {
        const struct policy_place *place = policy_odds_place(&policy->odds, &asks[i]);
        float survival[DRAFT_MAX_NODES + 1], path = 1.0f;
        const int32_t k = min_i32(k_max, asks[i].k_max);
        policy_odds_by_depth(&policy->odds, place, k, n_more, survival);
        for (int32_t d = 1; d <= k; d++) {
            path *= survival[d] > floor ? survival[d] : floor;
            policy_rows_add(&policy->rows, i, d, path);
        }
    }
    policy_rows_sort(&policy->rows);
}

struct plan {
    int32_t k;                       /* longest; 0 = none pays */
    struct policy_answer answer;
    double gain;                     /* over plain: 0.1 = a tenth more tokens a second */
};

/* The best K, and for it the best rows. */
static struct plan best_plan(const struct policy *policy, int32_t n_seqs, int32_t n_other_rows, int32_t k_max)
{
    const struct policy_times *drafts = draft_times(policy, n_seqs);
    struct policy_question question = { .verify = &policy->verify, .n_seqs = n_seqs,
                                        .n_base_rows = n_seqs + n_other_rows };
    double plain_ns = policy_times_ns(&policy->verify, question.n_base_rows);
    struct plan best = { .answer = { .tokens_per_ns = n_seqs / plain_ns } };
    for (int32_t k = 1; k <= k_max; k += k < 6 ? 1 : 2) {
        question.place_max = k;
        question.draft_ns = policy_times_ns(drafts, k);
        const struct policy_answer answer = policy_choose(&policy->rows, &question);
        if (answer.n_rows > 0 && answer.tokens_per_ns > best.answer.tokens_per_ns) {
            best.k = k;
            best.answer = answer;
        }
    }
    /* Fewer rows never take longer: if they seem to, that is noise, and no gain. */
    const double most_ns = policy_times_ns(&policy->verify, question.n_base_rows + best.answer.n_rows);
    plain_ns = most_ns < plain_ns ? most_ns : plain_ns;
    best.gain = best.answer.tokens_per_ns * plain_ns / n_seqs - 1.0;
    return best;
}

/* What one more row must bring at least: the rate times what the last ones took, in the pass and, where
 * the draft works for nobody else, in the draft. */
static float worth_of_row(const struct policy *policy, const struct plan *plan, int32_t n_seqs,
                          int32_t n_base_rows)
{
    const struct policy_times *verify = &policy->verify, *drafts = draft_times(policy, n_seqs);
    const int32_t high = n_base_rows + max_i32(plan->answer.n_rows, 4), low = max_i32(n_base_rows, high - 8);
    double row_ns = (policy_times_ns(verify, high) - policy_times_ns(verify, low)) / (high - low);
    double draft_ns = policy_times_ns(drafts, plan->k) - policy_times_ns(drafts, plan->k - 1);
    row_ns = row_ns > 0.0 ? row_ns : 0.0;
    draft_ns = draft_ns > 0.0 && n_seqs == 1 ? draft_ns : 0.0;
    const double worth = plan->answer.tokens_per_ns * (row_ns + draft_ns);
    return worth < 0.5 ? (float)worth : 0.5f;
}

/* Tokens the draft must take in before it can work, beyond those of the last round. */
static int32_t lag_of(const struct policy *policy, const struct draft_ask *ask)
{
    const int32_t drafted_len = policy->odds.places[ask->place].drafted_len;
    const int32_t lag = ask->n_tokens - drafted_len;
    return drafted_len > 0 && lag <= LAG_MAX ? 0 : lag;
}

/* Plain rounds that the draft takes to catch up with this sequence. Before any was measured a text that
 * has only begun is worth finding out, and a long one is expected to take its time. */
static double lag_rounds_of(const struct policy *policy, const struct draft_ask *ask, double plain_ns)
{
    const int32_t lag = lag_of(policy, ask);
    if (policy->lag_token_ns == 0.0) {
        return ask->n_tokens - ask->n_prompt <= LAG_FRESH ? 0.0 : LAG_TOKEN_ROUNDS * lag;
    }
    return lag * policy->lag_token_ns / plain_ns;
}

static void give(struct policy *policy, struct draft_ask *ask, int32_t k)
{
    struct policy_place *place = policy_odds_place(&policy->odds, ask);
    const bool is_cut = policy->options.follows_hints && policy->now.round == POLICY_ROUND_PAYS;
    const int32_t n_nodes_max = is_cut ? ask->n_nodes_max : k; /* side branches only where trim has its say */
    ask->k_max = k;
    ask->n_nodes_max = k > 0 ? max_i32(n_nodes_max, k) : 0;
    ask->stop_below = 0.0f;
    if (k == 0) {
        place->n_rounds_off += place->n_rounds_off < INT32_MAX;
        return;
    }
    policy->now.n_lag += lag_of(policy, ask);
    policy->now.n_drafting++;
    policy->now.longest_k = max_i32(policy->now.longest_k, k);
    place->drafted_len = ask->n_tokens;
    place->n_rounds_off = 0;
}

static void give_nothing(struct policy *policy, struct draft_ask *asks, int32_t n_asks)
{
    for (int32_t i = 0; i < n_asks; i++) {
        give(policy, &asks[i], 0);
    }
}

static void give_fixed(struct policy *policy, struct draft_ask *asks, int32_t n_asks)
{
    policy->now.round = POLICY_ROUND_FIXED;
    for (int32_t i = 0; i < n_asks; i++) {
        const int32_t k = min_i32(policy->options.fixed_k, asks[i].k_max);
        asks[i].n_nodes_max = k;
        give(policy, &asks[i], k);
    }
}

/* Requests that name their K get it, and nothing is cut in their company. */
static void give_asked(struct policy *policy, struct draft_ask *asks, int32_t n_asks)
{
    policy->now.round = POLICY_ROUND_FIXED;
    policy->now.n_lag = policy->now.n_drafting = policy->now.longest_k = 0; /* counted again */
    for (int32_t i = 0; i < n_asks; i++) {
        const int32_t k = asks[i].is_fixed ? asks[i].fixed_k : asks[i].k_max;
        asks[i].n_nodes_max = k;
        give(policy, &asks[i], k);
    }
}

static int32_t n_fixed_of(const struct draft_ask *asks, int32_t n_asks)
{
    int32_t n = 0;
    for (int32_t i = 0; i < n_asks; i++) {
        n += asks[i].is_fixed;
    }
    return n;
}

/* A sequence whose own averages say no, among others that are drafted for, gets a token to try with
 * every so often; less often, the more it has to catch up on. */
static bool may_try(const struct policy *policy, struct policy_place *place, const struct draft_ask *ask,
                    double plain_ns)
{
    const double lag_rounds = lag_rounds_of(policy, ask, plain_ns);
    if (ask->k_max == 0 || place->n_rounds_off < place->wait_rounds || lag_rounds > policy->credit ||
        place->n_rounds_off * PROBE_SHARE < lag_rounds) {
        return false;
    }
    place->wait_rounds = min_i32(2 * place->wait_rounds, POLICY_WAIT_ROUNDS_MAX);
    return true;
}

static void give_plan(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows,
                      const struct plan *plan)
{
    const double plain_ns = policy_times_ns(&policy->verify, n_asks + n_other_rows);
    double lag_rounds = 0.0;
    int32_t n_tries = 1 + n_asks / 16;
    policy->now.round = POLICY_ROUND_PAYS;
    for (int32_t i = 0; i < n_asks; i++) {
        policy->kept[i] = 0;
    }
    for (int32_t i = 0, n_taken = 0; n_taken < plan->answer.n_rows; i++) {
        const struct policy_row *row = &policy->rows.sorted[i];
        if (row->place <= plan->k) {
            policy->kept[row->ask]++;
            n_taken++;
        }
    }
    const float worth = policy->options.follows_hints ?
                        worth_of_row(policy, plan, n_asks, n_asks + n_other_rows) : 0.0f;
    for (int32_t i = 0; i < n_asks; i++) {
        struct policy_place *place = policy_odds_place(&policy->odds, &asks[i]);
        place->is_trying = policy->kept[i] == 0 && n_tries > 0 && may_try(policy, place, &asks[i], plain_ns);
        n_tries -= place->is_trying;
        if (place->is_trying || policy->kept[i] > 0) {
            lag_rounds += lag_rounds_of(policy, &asks[i], plain_ns);
        }
        give(policy, &asks[i], place->is_trying ? 1 : (int32_t)policy->kept[i]);
        asks[i].stop_below = place->is_trying ? 0.0f : worth;
        if (worth > SIDE_BRANCH_WORTH) {
            asks[i].n_nodes_max = asks[i].k_max;
        }
    }
    const double credit = policy->credit > 0.0 ? policy->credit : 0.0;
    policy->now.lag_allowed_ns = (lag_rounds < credit ? lag_rounds : credit) * plain_ns;
    policy->now.draft_ns = policy_times_ns(draft_times(policy, policy->now.n_drafting),
                                           policy->now.longest_k);
}

/* ---- probes ---- */
/* What a probe of this sequence takes beyond a plain round, if it brings nothing. */
static double probe_ns(const struct policy *policy, const struct draft_ask *ask, int32_t n_rows, int32_t k)
{
    const double plain_ns = policy_times_ns(&policy->verify, n_rows);
    return policy_times_ns(draft_times(policy, 1), k) + lag_rounds_of(policy, ask, plain_ns) * plain_ns +
           policy_times_ns(&policy->verify, n_rows + k) - plain_ns;
}

/* Those cheapest to try, as many as the credit pays for, an eighth at most. Not affordable: no one. */
static void give_probe(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_rows,
                       int32_t k)
{
    double left_ns = policy->credit * policy_times_ns(&policy->verify, n_rows);
    for (int32_t i = 0; i < n_asks; i++) {
        policy->kept[i] = 0;
    }
    for (int32_t n = 0; n < 1 + n_asks / 8; n++) {
        int32_t best = -1;
        double best_ns = left_ns;
        for (int32_t i = 0; i < n_asks; i++) {
            const double ns = probe_ns(policy, &asks[i], n_rows, k);
            if (policy->kept[i] == 0 && asks[i].k_max > 0 && ns < best_ns) {
                best = i, best_ns = ns;
            }
        }
        if (best >= 0) {
            policy->kept[best] = 1;
            left_ns -= best_ns;
            policy->now.round = POLICY_ROUND_PROBE;
        }
    }
    for (int32_t i = 0; i < n_asks; i++) {
        give(policy, &asks[i], policy->kept[i] != 0 ? min_i32(k, asks[i].k_max) : 0);
    }
}

/* While too little is known to say no, round after round; later a try after each pause. */
static void probe(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows,
                  int32_t k_max)
{
    const bool is_due = policy->n_since_probe >= policy->probe_spacing;
    const int32_t k = min_i32(k_max, PROBE_K_MAX);
    if (!is_due && policy->credit < CREDIT_RESERVE) {
        give_nothing(policy, asks, n_asks);
        return;
    }
    gather_depths(policy, asks, n_asks, k, HOPE_DOUBT, is_due ? HOPE_HIGH : 0.0f);
    const struct plan hope = best_plan(policy, n_asks, n_other_rows, k);
    const uint64_t n_drafts = draft_times(policy, n_asks)->n_observed;
    const bool is_unsure = n_drafts > 0 && n_drafts < POLICY_TIMES_RECENT; /* of what drafting takes */
    if (hope.gain >= (is_due ? MARGIN : MARGIN_IN_DOUBT) || (is_unsure && is_due) ||
        policy->n_since_probe >= PROBE_SPACING_MAX) {
        give_probe(policy, asks, n_asks, n_asks + n_other_rows, max_i32(1, hope.k));
    } else {
        give_nothing(policy, asks, n_asks); /* not even if nearly all were accepted */
    }
}

/* Gains are expected, from odds that are more than a prior and times that were measured. */
static bool pays(const struct policy *policy, int32_t n_asks, const struct plan *plan)
{
    return plan->gain >= MARGIN && !policy->is_overdrawn && draft_times(policy, n_asks)->last_knot > 0 &&
           policy->odds.all.reached[1] >= EVIDENCE_MIN;
}

/* Catching up with those who have fallen behind is an investment. It is made as far as there is credit;
 * beyond it only if even doubtful odds would earn it back before long. */
static bool may_catch_up(struct policy *policy, const struct draft_ask *asks, int32_t n_asks,
                         int32_t n_other_rows, int32_t k_max)
{
    const double plain_ns = policy_times_ns(&policy->verify, n_asks + n_other_rows);
    double lag_rounds = 0.0;
    for (int32_t i = 0; i < n_asks; i++) {
        lag_rounds += asks[i].k_max > 0 ? lag_rounds_of(policy, &asks[i], plain_ns) : 0.0;
    }
    if (lag_rounds == 0.0 || lag_rounds < policy->credit) {
        return true;
    }
    gather_depths(policy, asks, n_asks, k_max, -INVESTMENT_DOUBT, 0.0f);
    const struct plan doubtful = best_plan(policy, n_asks, n_other_rows, k_max);
    if (doubtful.gain < MARGIN || doubtful.gain * INVESTMENT_ROUNDS < lag_rounds || policy->debt > 0.0) {
        return false;
    }
    policy->debt = lag_rounds - (policy->credit > 0.0 ? policy->credit : 0.0);
    return true;
}

/* Those whom there is no credit for stay out, in this step. */
static void leave_behind(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows)
{
    const double plain_ns = policy_times_ns(&policy->verify, n_asks + n_other_rows);
    double left = policy->credit;
    for (int32_t i = 0; i < n_asks; i++) {
        const double rounds = lag_rounds_of(policy, &asks[i], plain_ns);
        if (rounds > 0.0 && rounds > left) {
            asks[i].k_max = asks[i].n_nodes_max = 0;
        } else {
            left -= rounds;
        }
    }
}

static void plan_freely(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows)
{
    const int32_t k_max = longest_possible(policy, asks, n_asks);
    if (k_max == 0 || policy->verify.last_knot == 0) {
        give_nothing(policy, asks, n_asks);
        return;
    }
    if (n_other_rows == 0 && policy->n_since_plain >= policy->plain_spacing) {
        policy->now.round = POLICY_ROUND_REFRESH;
        give_nothing(policy, asks, n_asks);
        return;
    }
    gather_depths(policy, asks, n_asks, k_max, 0.0f, 0.0f);
    struct plan plan = best_plan(policy, n_asks, n_other_rows, k_max);
    if (pays(policy, n_asks, &plan)) {
        if (!may_catch_up(policy, asks, n_asks, n_other_rows, k_max)) {
            leave_behind(policy, asks, n_asks, n_other_rows);
        }
        gather_depths(policy, asks, n_asks, k_max, 0.0f, 0.0f);
        plan = best_plan(policy, n_asks, n_other_rows, k_max);
    }
    if (pays(policy, n_asks, &plan)) {
        give_plan(policy, asks, n_asks, n_other_rows, &plan);
    } else {
        probe(policy, asks, n_asks, n_other_rows, k_max);
    }
}

void policy_plan(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows)
{
    ASSERT(n_asks <= policy->options.max_batch);
    policy->now = (struct policy_now){ .round = POLICY_ROUND_OFF, .n_asks = n_asks };
    for (int32_t i = 0; i < n_asks; i++) {
        struct policy_place *place = policy_odds_place(&policy->odds, &asks[i]);
        place->is_trying = false;
        asks[i].k_max = min_i32(asks[i].k_max, DRAFT_MAX_NODES);
    }
    if (n_asks == 0) {
        return;
    }
    const int32_t n_fixed = n_fixed_of(asks, n_asks);
    if (policy->options.fixed_k >= 0) {
        give_fixed(policy, asks, n_asks);
    } else if (n_fixed < n_asks) {
        plan_freely(policy, asks, n_asks, n_other_rows);
    }
    if (n_fixed > 0) {
        give_asked(policy, asks, n_asks);
    }
}

/* ---- observe ---- */
void policy_observe_verdict(struct policy *policy, const struct draft_verdict *verdict)
{
    policy_odds_observe_verdict(&policy->odds, verdict);
}

/* A round with much to catch up on says what catching up costs, others what drafting does. */
static void observe_draft(struct policy *policy, const struct policy_step *step)
{
    const struct policy_now *now = &policy->now;
    if (now->longest_k == 0) {
        return;
    }
    if (now->n_lag == 0) {
        /* the first of this many asks is held against those of other numbers */
        const int64_t ns = (int64_t)policy_times_clipped_ns(draft_times(policy, now->n_drafting),
                                                            now->longest_drafted, step->draft_ns);
        struct policy_times *drafts = &policy->drafts[ask_size_of(now->n_drafting)];
        policy_times_observe(drafts, now->longest_drafted, drafts->last_knot == 0 ? ns : step->draft_ns);
        return;
    }
    const double extra_ns = (double)step->draft_ns -
                            policy_times_ns(draft_times(policy, now->n_drafting), now->longest_drafted);
    const double token_ns = extra_ns > 0.0 ? extra_ns / now->n_lag : 0.0;
    policy->lag_token_ns += (token_ns - policy->lag_token_ns) * (policy->lag_token_ns > 0.0 ? 0.25 : 1.0);
}

/* What the draft took, as far as this round is to blame for it. */
static double charged_draft_ns(const struct policy *policy, const struct policy_step *step, double plain_ns)
{
    const struct policy_now *now = &policy->now;
    const struct policy_times *drafts = draft_times(policy, now->n_drafting);
    if (now->longest_k == 0) {
        return 0.0;
    }
    if (now->n_lag == 0) {
        return policy_times_ns(drafts, now->longest_drafted);
    }
    const double most_ns = policy_times_ns(drafts, now->longest_drafted) +
                           (now->round == POLICY_ROUND_PAYS ? now->lag_allowed_ns : CATCH_UP_MAX * plain_ns);
    return (double)step->draft_ns < most_ns ? (double)step->draft_ns : most_ns;
}

/* Probes: twice as long until the next one, up to where they cost next to nothing; at once if it paid. */
static void space_probes(struct policy *policy, double loss, int32_t n_won)
{
    if (policy->now.round != POLICY_ROUND_PROBE) {
        return;
    }
    policy->report.probes++;
    policy->n_since_probe = 0;
    const double enough = loss / PROBE_SHARE;
    if (loss < 0.0 && n_won > 0) { /* without a token more it is the clock that lies */
        policy->probe_spacing = 0;
    } else if (policy->probe_spacing < PROBE_SPACING_MIN) {
        policy->probe_spacing = PROBE_SPACING_MIN;
    } else if (policy->probe_spacing < 4 * PROBE_SPACING_MIN || policy->probe_spacing < enough) {
        policy->probe_spacing = min_i32(2 * policy->probe_spacing, PROBE_SPACING_MAX);
    }
}

static void account(struct policy *policy, double loss, double rounds)
{
    policy->credit += (policy->debt > 0.0 ? 0.0 : CREDIT_SHARE * rounds) - loss;
    policy->debt -= policy->debt > 0.0 ? CREDIT_SHARE * rounds : 0.0;
    if (policy->credit >= CREDIT_MAX) { /* earned back */
        policy->credit = CREDIT_MAX;
        policy->debt = 0.0;
    }
    policy->is_overdrawn = policy->credit < (policy->is_overdrawn ? 0.0 : CREDIT_OVERDRAWN);
}

/* A plain round among rounds `speedup` times as fast gives up (1 - 1 / speedup) of its time. */
static void space_plain(struct policy *policy, double plain_ns, double round_ns)
{
    const double speedup = policy->spent_ns > 0.0 ? policy->plain_ns / policy->spent_ns : 1.0;
    const double lost_ns = speedup > 1.0 ? plain_ns * (1.0 - 1.0 / speedup) : 0.0;
    const double spacing = round_ns > 0.0 ? lost_ns / (PLAIN_SHARE * round_ns) : 0.0;
    const int32_t wanted = spacing > 4096.0 ? 4096 : max_i32(PLAIN_SPACING_MIN, (int32_t)spacing);
    const double bounded = speedup < 1.0 ? 1.0 : speedup > 8.0 ? 8.0 : speedup;
    /* clear cases can wait */
    const double early = bounded * bounded * PLAIN_SPACING_START * policy->n_plain_early;
    policy->plain_spacing = min_i32(wanted, (int32_t)early);
}

static void observe_decode(struct policy *policy, const struct policy_step *step)
{
    const double base_ns = policy_times_ns(&policy->verify, step->n_seqs);
    const double most_ns = policy_times_ns(&policy->verify, step->n_rows);
    const double plain_ns = most_ns < base_ns ? most_ns : base_ns; /* fewer rows never take longer */
    /* By the averages, this round in them: a round that lost its core is no more a loss than a plain one. */
    const double round_ns = charged_draft_ns(policy, step, plain_ns) + most_ns;
    if (plain_ns <= 0.0) {
        return;
    }
    const double worth_ns = plain_ns * step->n_committed / step->n_seqs;
    const double loss = policy->now.longest_k == 0 ? 0.0 : (round_ns - worth_ns) / plain_ns;
    policy->plain_ns = policy->plain_ns * RECENT + worth_ns;
    policy->spent_ns = policy->spent_ns * RECENT + round_ns;
    if (policy->now.round != POLICY_ROUND_FIXED) { /* what others asked for is no loss of its own */
        account(policy, loss, round_ns / plain_ns);
    }
    space_probes(policy, loss, step->n_committed - step->n_seqs);
    policy->n_since_probe += policy->n_since_probe < INT32_MAX;
    if (policy->now.longest_k == 0) {
        policy->n_since_plain = 0;
        policy->n_plain_early += policy->n_plain_early < PLAIN_SPACING_EARLY;
    } else {
        policy->n_since_plain++;
        space_plain(policy, plain_ns, round_ns);
    }
}

void policy_observe_step(struct policy *policy, const struct policy_step *step)
{
    policy->report.draft_seconds += (double)step->draft_ns * 1e-9;
    policy->report.verify_seconds += (double)step->verify_ns * 1e-9;
    observe_draft(policy, step);
    if (step->n_other_rows > 0 || step->n_seqs == 0) {
        return;
    }
    policy_times_observe(&policy->verify, step->n_rows, step->verify_ns);
    policy->report.rounds++;
    policy->report.plain_rounds += policy->now.longest_k == 0;
    observe_decode(policy, step);
}

struct policy_report policy_report(const struct policy *policy)
{
    struct policy_report report = policy->report;
    report.speedup_vs_plain = policy->spent_ns > 0.0 ? policy->plain_ns / policy->spent_ns : 0.0;
    return report;
}
