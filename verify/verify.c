/* verify: where proposals and the target's choices part. The first disagreement ends the run; what
 * the target chose there is right by definition, whatever was proposed. */
#include "verify/verify.h"

#include "base/base.h"

struct verify_outcome verify_coupled(const int32_t *proposed, int32_t n_proposed,
                                     const int32_t *target_token)
{
    ASSERT(n_proposed >= 0);
    int32_t k = 0;
    while (k < n_proposed && proposed[k] == target_token[k]) {
        k++;
    }
    return (struct verify_outcome){ .n_accepted = k, .recovery_token = target_token[k] };
}
