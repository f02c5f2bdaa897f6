/* comm_nccl_none: stands in for comm_nccl.c in builds without NCCL. */
#include "backend/comm.h"

enum status comm_nccl_open(const struct comm_place *place, struct comm **out)
{
    (void)place;
    *out = NULL;
    return status_fail(STATUS_UNSUPPORTED, "this program was built without NCCL: make CUDA=1 NCCL=1");
}
