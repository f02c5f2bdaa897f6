/* policy_private: the state of the policy, shared by policy.c and policy_trim.c. */
#ifndef SCHEDULER_POLICY_PRIVATE_H
#define SCHEDULER_POLICY_PRIVATE_H

#include "scheduler/policy.h"
#include "scheduler/policy_choose.h"
#include "scheduler/policy_odds.h"
#include "scheduler/policy_times.h"

enum policy_round {
    POLICY_ROUND_OFF,        /* nothing drafted: nothing is possible, or it does not pay */
    POLICY_ROUND_REFRESH,    /* nothing drafted, so that the time of a plain round stays known */
    POLICY_ROUND_PAYS,       /* drafted because the averages say so */
    POLICY_ROUND_PROBE,      /* drafted although they do not */
    POLICY_ROUND_FIXED
};
enum { POLICY_ASK_SIZES = 8 }; /* draft times by number of asks: 1, 2..3, 4..7, ... */

/* From plan to observe_step. */
struct policy_now {
    enum policy_round round;
    int32_t n_asks, n_drafting, longest_k;
    int32_t longest_drafted; /* what the draft ran for: less than longest_k where all ended early */
    int32_t n_lag;           /* tokens the draft has to catch up on, beyond what a round brings */
    double draft_ns;         /* expected */
    double lag_allowed_ns;   /* of catching up that the credit pays for */
};
struct policy {
    struct policy_options options;
    struct draft *draft;     /* borrowed */
    struct policy_times verify;                  /* by rows */
    struct policy_times drafts[POLICY_ASK_SIZES]; /* by longest K */
    double lag_token_ns;     /* of catching up by a token */
    struct policy_odds odds;
    struct policy_rows rows;
    uint32_t *kept;          /* [max_batch] nodes, as bits */
    struct policy_now now;
    double credit;           /* plain rounds */
    bool is_overdrawn;
    double debt;             /* plain rounds of catching up that there was no credit for: none flows until
                              * it is paid off, or the gain has shown */
    int32_t n_since_plain;   /* rounds */
    int32_t plain_spacing, n_plain_early; /* the first come often: a time seen thrice is not known */
    int32_t n_since_probe, probe_spacing;
    int32_t n_since_whole;   /* speculative rounds since the last that was not cut */
    double plain_ns, spent_ns; /* decayed sums over decode rounds: without a draft, and as they were */
    struct policy_report report;
};

#endif
