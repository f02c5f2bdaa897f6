/* verify: accept rules as pure functions: arrays and coins in, outcome out. They never learn where
 * the numbers came from. Any thread.
 */
#ifndef VERIFY_VERIFY_H
#define VERIFY_VERIFY_H

#include <stdint.h>

enum verify_rule { VERIFY_COUPLED, VERIFY_REJECTION };

struct verify_outcome {
    int32_t n_accepted;     /* k: leading proposals the target agreed with */
    int32_t recovery_token; /* t: the target's own token after them */
};
/* Greedy and coupled rule: k is the first disagreement between proposed[i] and the token the target
 * chose for the same position; after full agreement the bonus token comes from row K. */
struct verify_outcome verify_coupled(const int32_t *proposed /* [n_proposed] */, int32_t n_proposed,
                                     const int32_t *target_token /* [n_proposed + 1] */);

#endif
