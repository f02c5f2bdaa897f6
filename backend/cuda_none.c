/* cuda_none: what builds without CUDA say of it. */
#include "backend/device.h"

enum status cuda_backend_create(const char *words, const char *isa_or_null, struct backend **out)
{
    (void)isa_or_null;
    *out = NULL;
    return status_fail(STATUS_UNSUPPORTED, "no device cuda:%s: built without CUDA (make CUDA=1)", words);
}

int cuda_device_count(void) { return -1; }
