#include "scheduler/engine_draft.h"

#include <string.h>

enum status engine_draft_open(struct td_engine *engine, const struct td_engine_options *options)
{
    const char *name = options->draft != NULL ? options->draft : "none";
    if (strcmp(name, "none") != 0) {
        return status_fail(STATUS_UNSUPPORTED, "there is no draft '%s'; there are: none", name);
    }
    return draft_none_create(&engine->draft);
}

void engine_draft_close(struct td_engine *engine)
{
    if (engine->draft != NULL) {
        engine->draft->kind->destroy(engine->draft);
    }
}
