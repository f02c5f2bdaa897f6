/* draft: what proposes tokens. A draft is a table of functions; each kind is one file. A draft may
 * fail, the answer may not: any error becomes "0 proposed" (I9). Step thread only.
 */
#ifndef DRAFT_DRAFT_H
#define DRAFT_DRAFT_H

#include <stdint.h>

#include "base/base.h"
#include "verify/verify.h"

struct draft;
struct draft_request {
    uint64_t seq_id, epoch;
    const int32_t *tokens; /* [n_tokens] committed tokens, the recovery token last */
    int32_t n_tokens;
    int32_t k_max;         /* how many proposals are wanted, at most */
};
struct draft_kind {
    const char *name;
    /* Fills proposed[0..k_max), returns how many (0 is always legal). */
    int32_t (*propose)(struct draft *draft, const struct draft_request *request, int32_t *proposed);
    void (*observe)(struct draft *draft, uint64_t seq_id, uint64_t epoch,
                    const struct verify_outcome *outcome);
    void (*forget)(struct draft *draft, uint64_t seq_id);
    void (*destroy)(struct draft *draft);
};
struct draft { const struct draft_kind *kind; };

/* name as in --draft: "none". Unknown names are refused, listing those there are. */
enum status draft_create(const char *name, struct draft **out);

#endif
