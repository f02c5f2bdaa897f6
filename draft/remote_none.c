/* remote_none: stands in for remote.c in the core library, which has no rpc. */
#include <string.h>

#include "draft/remote.h"

bool draft_remote_is_address(const char *word)
{
    return strncmp(word, "tcp:", 4) == 0 || strncmp(word, "unix:", 5) == 0;
}

enum status draft_remote_create(const struct draft_remote_options *options, struct draft **out)
{
    *out = NULL;
    return status_fail(STATUS_UNSUPPORTED, "'%s': this build is the engine core, without drafts elsewhere",
                       options->address);
}

struct draft_remote_report draft_remote_report(const struct draft *draft)
{
    (void)draft;
    return (struct draft_remote_report){ .rounds = 0 };
}
