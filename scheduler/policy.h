/* policy: how far to speculate. Numbers in, numbers out: it knows times and odds, no model and no KV.
 *
 *     plan      before drafting: how long a chain each sequence may ask for
 *     trim      after drafting: which of the tokens offered are worth a row of the verify pass
 *     observe   times of passes and drafts, fates of tokens
 *
 * A step over S sequences with R extra rows and a longest chain K takes T_verify(S + R) + T_draft(K) and
 * commits S + (value of the R nodes), a node's value being the product of survivals along its path. The
 * best R nodes for each R, the best R and K over all: maximise tokens a second (specs: "Choosing K").
 * K = 0 is a legal answer for any sequence at any time; probes come back with exponential back-off so
 * that speculation that does not pay costs under 1 %, and plain rounds now and then keep the comparison
 * honest. With the coupled rule the text never depends on any of this, so it may look at the clock. With
 * the rejection rule K must not depend on the tokens it then keeps: trim does nothing.
 *
 * Every round has a balance in plain rounds: what it took less what its tokens would have taken without
 * a draft. A little less than one percent of the time is credit for trying; losses are drawn from it,
 * gains are saved up to a bound, and when it is overdrawn the averages are not believed until it has
 * recovered. Catching up (a draft that has not seen a sequence's tokens yet) is an investment: made from
 * credit, beyond it only where doubtful odds would still earn it back before long.
 * speedup_vs_plain: over rounds that only decode, the times their tokens would have taken in plain rounds
 * of as many sequences (predicted from those measured), over the times they took, drafts included; half
 * of what it says comes from the last 1400 rounds, and a process that lost its core counts in neither.
 *
 * Files: policy_times (how long), policy_odds (how likely), policy_choose (the best rows), policy_trim
 * (proposals cut), policy (when to speculate at all). Step thread only; all memory at creation.
 */
#ifndef SCHEDULER_POLICY_H
#define SCHEDULER_POLICY_H

#include "draft/draft.h"

enum { POLICY_AUTO = -1 };
struct policy_options {
    int32_t max_batch;
    int32_t k_max;               /* 0 = plain decoding */
    int32_t fixed_k;             /* POLICY_AUTO, or every round of every sequence asks for this many */
    int32_t max_rows;            /* of a pass: bounds the table of times */
    bool follows_hints;          /* coupled rule; false: rejection, K from averages alone */
};
struct policy;
enum status policy_create(const struct policy_options *options, struct draft *draft, struct policy **out);
void policy_destroy(struct policy *policy); /* NULL is fine */

/* ---- one step ---- */
/* asks[i].k_max and n_nodes_max come in as what is possible (limits, context, pages) and go out as what
 * is worth drafting; stop_below is set. n_other_rows: rows of prompts in the same pass. */
void policy_plan(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows);
/* Shortens proposals (n, leading nodes kept; nodes may be reordered so that kept ones come first, chain
 * before side branches) to what is worth verifying. */
void policy_trim(struct policy *policy, struct draft_ask *asks, int32_t n_asks, int32_t n_other_rows);
/* The fate of one sequence's proposal. Feeds draft->calibration. */
void policy_observe_verdict(struct policy *policy, const struct draft_verdict *verdict);
/* A whole step: what was drafted and verified, how long it took. */
struct policy_step {
    int32_t n_seqs;              /* that decoded */
    int32_t n_rows;              /* of the pass, prompts and proposals included */
    int32_t n_other_rows;        /* of prompts: such steps say nothing of decoding */
    int32_t longest_k;           /* the draft was asked for */
    int64_t draft_ns, verify_ns; /* verify: the pass and the choices on its rows */
    int32_t n_committed;         /* tokens of those that decoded */
};
void policy_observe_step(struct policy *policy, const struct policy_step *step);
/* One measured pass of n_rows, before any request (calibration at start). */
void policy_observe_pass(struct policy *policy, int32_t n_rows, int64_t ns);
/* One measured draft of a chain of k for one sequence, before any request: neither the first one, which
 * touches memory for the first time, nor one that had to catch up. */
void policy_observe_draft(struct policy *policy, int32_t k, int64_t ns);
/* The sequence of this place has left. */
void policy_forget(struct policy *policy, int32_t place);

struct policy_report {
    double speedup_vs_plain;     /* tokens a second over those of plain rounds; 0 = not measured yet */
    uint64_t rounds, plain_rounds, probes;
    double draft_seconds, verify_seconds;
};
struct policy_report policy_report(const struct policy *policy);
/* Predicted seconds of a pass of n_rows. */
double policy_verify_seconds(const struct policy *policy, int32_t n_rows);

#endif
