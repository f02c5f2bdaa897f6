/* none: plain decoding. It proposes nothing, so every round is one row and its recovery token. */
#include "draft/draft.h"

void draft_observe_nothing(struct draft *draft, const struct draft_verdict *verdicts, int32_t n_verdicts)
{
    (void)draft, (void)verdicts, (void)n_verdicts;
}

void draft_forget_nothing(struct draft *draft, const struct draft_farewell *farewell)
{
    (void)draft, (void)farewell;
}

static void none_propose(struct draft *draft, struct draft_ask *asks, int32_t n_asks)
{
    (void)draft;
    for (int32_t i = 0; i < n_asks; i++) {
        asks[i].proposal.n = 0;
    }
}

static void none_destroy(struct draft *draft)
{
    (void)draft;
}

enum status draft_none_create(struct draft **out)
{
    static const struct draft_kind kind = {
        .name = "none",
        .propose = none_propose,
        .observe = draft_observe_nothing,
        .forget = draft_forget_nothing,
        .destroy = none_destroy,
    };
    static struct draft none = { .kind = &kind, .context = INT32_MAX }; /* has no state, so one serves all */
    *out = &none;
    return STATUS_OK;
}
