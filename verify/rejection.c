/* rejection: a proposal is accepted with probability target / draft, capped at 1; the first refused
 * one is replaced by a draw from what the draft gave too little of. Together: the target's own
 * distribution, whatever the draft's (Leviathan, Kalman, Matias, "Fast inference from transformers
 * via speculative decoding"; Chen et al., "Accelerating large language model decoding with
 * speculative sampling", 2023). One refusal ends the run; the rows behind it are never asked for.
 */
#include "verify/verify.h"

#include "sampling/sampling.h"
#include "verify/private.h"

bool verify_accepts(float coin, float draft_prob, float target_prob)
{
    /* 24 by 24 bits: the product is exact. False for a NaN. */
    const double offered = (double)coin * (double)draft_prob;
    return offered < (double)target_prob || (mutant(MUTANT_ACCEPT_OR_EQUAL) && offered == (double)target_prob);
}

int32_t verify_target_draw(const float *target_prob, int32_t n_vocab, float coin)
{
    const int32_t id = sampling_draw_from(target_prob, n_vocab, coin);
    ASSERT(id >= 0); /* a distribution has a token */
    return id;
}

int32_t verify_residual_draw(const float *target_prob, const float *draft_prob, int32_t point_id,
                             int32_t n_vocab, float coin)
{
    const struct sampling_weights left = {
        .prob = target_prob, .less = draft_prob, .n_vocab = n_vocab,
        .without_id = draft_prob == NULL ? point_id : -1,
    };
    const int32_t id = mutant(MUTANT_RESIDUAL_IS_TARGET) ? -1 : sampling_draw_weights(&left, coin);
    return id >= 0 ? id : verify_target_draw(target_prob, n_vocab, coin);
}

float verify_coin(const struct verify_coins *coins, enum coin_purpose purpose, int32_t ahead,
                  int32_t index)
{
    const int32_t position = coins->position + ahead;
    if (coins->coin != NULL) {
        return coins->coin(coins->context, purpose, position, index);
    }
    return rng_coin_uniform(coins->seed, purpose, (uint32_t)position, (uint32_t)index);
}

/* The token that ends a run at row k: refused proposal k, or the bonus after the last. */
static int32_t recovery_token(const struct verify_run *run, int32_t k, const float *target_prob)
{
    const int32_t n_vocab = run->target.n_vocab;
    const float coin = verify_coin(&run->coins, COIN_RESIDUAL, k, 0);
    if (k == run->n_proposed) {
        return verify_target_draw(target_prob, n_vocab, coin);
    }
    const float *draft_prob = run->draft_prob == NULL ? NULL : run->draft_prob[k];
    return verify_residual_draw(target_prob, draft_prob, run->proposed[k], n_vocab, coin);
}

static bool accepts_proposal(const struct verify_run *run, int32_t k, const float *target_prob)
{
    const int32_t token = run->proposed[k];
    if (token < 0 || token >= run->target.n_vocab) {
        return false; /* an id that a draft made up */
    }
    const float *draft_prob = run->draft_prob == NULL ? NULL : run->draft_prob[k];
    const float coin = verify_coin(&run->coins, COIN_ACCEPT, k, 0);
    return verify_accepts(coin, draft_prob == NULL ? 1.0f : draft_prob[token], target_prob[token]);
}

enum status verify_rejection(const struct verify_run *run, struct verify_outcome *out)
{
    ASSERT(run->n_proposed >= 0 && run->target.n_vocab > 0);
    *out = (struct verify_outcome){ .recovery_token = -1 };
    const float *target_prob = NULL;
    for (;; out->n_accepted++) {
        const int32_t k = out->n_accepted;
        TRY(run->target.prob(run->target.context, k, &target_prob));
        if (k == run->n_proposed || !accepts_proposal(run, k, target_prob)) {
            out->recovery_token = recovery_token(run, k, target_prob);
            return STATUS_OK;
        }
    }
}
