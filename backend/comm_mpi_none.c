/* comm_mpi_none: stands in for comm_mpi.c in builds without MPI. */
#include "backend/comm.h"

enum status comm_mpi_open(struct comm **out)
{
    *out = NULL;
    return status_fail(STATUS_UNSUPPORTED, "this program was built without MPI: make MPI=1");
}
