/* folder_none: stands in for the reader of model folders in the core library, which reads GGUF files
 * alone. */
#include "model/source.h"

enum status folder_source_open(const char *path, struct model_source **out)
{
    *out = NULL;
    return status_fail(STATUS_UNSUPPORTED, "%s is a folder; this build reads GGUF files alone", path);
}
