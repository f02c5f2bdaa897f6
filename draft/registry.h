/* registry: the kinds of draft there are, one file each. Inside the room only. */
#ifndef DRAFT_REGISTRY_H
#define DRAFT_REGISTRY_H

#include "draft/draft.h"

struct draft_maker {
    const char *name; /* as in --draft */
    enum status (*create)(struct draft **out);
};

enum status draft_none_create(struct draft **out);

#endif
