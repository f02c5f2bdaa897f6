/* policy_choose: which rows are worth their place in the pass.
 *
 * Candidates are rows, each with the probability that its whole path is accepted. The best R of them
 * for each R are a prefix of their order by that probability; a parent never stands behind its child.
 * Maximises tokens a second: (S + sum of the R) / (T_verify(base + R) + draft time).
 */
#ifndef SCHEDULER_POLICY_CHOOSE_H
#define SCHEDULER_POLICY_CHOOSE_H

#include "draft/draft.h"
#include "scheduler/policy_times.h"

enum { POLICY_BUCKETS = 256 }; /* of probabilities: the order is as fine as anybody knows them */
struct policy_row {
    float survival;             /* of the whole path */
    int16_t ask;
    int16_t place;              /* depth before drafting (1..), node afterwards (0..) */
};
struct policy_rows {
    int32_t n, cap;
    struct policy_row *added, *sorted; /* [cap] */
};
enum status policy_rows_init(struct policy_rows *rows, int32_t cap);
void policy_rows_deinit(struct policy_rows *rows);
void policy_rows_clear(struct policy_rows *rows);
/* Parents before their children. */
void policy_rows_add(struct policy_rows *rows, int32_t ask, int32_t place, float survival);
void policy_rows_sort(struct policy_rows *rows);

struct policy_question {
    const struct policy_times *verify;
    int32_t n_seqs, n_base_rows; /* tokens that come anyway; rows that the pass has anyway */
    int32_t place_max;           /* rows beyond this place do not count */
    double draft_ns;
};
struct policy_answer {
    int32_t n_rows;              /* the first so many of those sorted with a place of at most place_max */
    double value;                /* tokens expected of them */
    double verify_ns;
    double tokens_per_ns;
};
struct policy_answer policy_choose(const struct policy_rows *rows, const struct policy_question *question);

#endif
