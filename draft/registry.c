/* registry: a draft by its name. A new kind is a new file and a line here. */
#include "draft/registry.h"

#include <string.h>

static const struct draft_maker makers[] = {
    { "none", draft_none_create },
};
enum { N_MAKERS = sizeof makers / sizeof makers[0], NAMES_CAP = 256 };

static enum status draft_refuse(const char *name)
{
    char names[NAMES_CAP] = "";
    size_t len = 0;
    for (size_t i = 0; i < N_MAKERS; i++) {
        const size_t n = strlen(makers[i].name);
        ASSERT(len + n + 3 < NAMES_CAP);
        if (i > 0) {
            memcpy(names + len, ", ", 2);
            len += 2;
        }
        memcpy(names + len, makers[i].name, n + 1);
        len += n;
    }
    return status_fail(STATUS_UNSUPPORTED, "there is no draft '%s'; there are: %s", name, names);
}

enum status draft_create(const char *name, struct draft **out)
{
    *out = NULL;
    for (size_t i = 0; i < N_MAKERS; i++) {
        if (strcmp(name, makers[i].name) == 0) {
            return makers[i].create(out);
        }
    }
    return draft_refuse(name);
}
