/* none: plain decoding. It proposes nothing, so every round is one row and its recovery token. */
#include "draft/registry.h"

static int32_t none_propose(struct draft *draft, const struct draft_request *request, int32_t *proposed)
{
    (void)draft, (void)request, (void)proposed;
    return 0;
}

static void none_observe(struct draft *draft, uint64_t seq_id, uint64_t epoch,
                         const struct verify_outcome *outcome)
{
    (void)draft, (void)seq_id, (void)epoch, (void)outcome;
}

static void none_forget(struct draft *draft, uint64_t seq_id)
{
    (void)draft, (void)seq_id;
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
        .observe = none_observe,
        .forget = none_forget,
        .destroy = none_destroy,
    };
    static struct draft none = { &kind }; /* has no state, so one serves all */
    *out = &none;
    return STATUS_OK;
}
