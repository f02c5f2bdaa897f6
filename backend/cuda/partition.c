/* partition: a part of a GPU's multiprocessors for the lanes of one backend (CUDA's green contexts), so that a
 * draft and a target on one GPU do not wait for each other's blocks.
 *
 *     cuda:0/40     about 40 of them (the driver rounds up to what it can keep apart)
 *     cuda:0/-40    those that cuda:0/40 leaves
 *
 * Both words of one number name halves that do not meet, since the driver cuts the same way each time. Memory
 * is the whole device's. Functions of the driver are asked for at run time, so nothing of it is linked; where
 * one is missing or refuses, lanes use the whole GPU and a line says so.
 */
#include <cuda.h>

#include "backend/cuda/cuda.h"

/* The first driver that has them, and the runtime's number for it. */
enum { DRIVER_VERSION = 12040 };

typedef CUresult (*device_get_fn)(CUdevice *, int);
typedef CUresult (*get_resource_fn)(CUdevice, CUdevResource *, CUdevResourceType);
typedef CUresult (*split_fn)(CUdevResource *, unsigned *, const CUdevResource *, CUdevResource *, unsigned, unsigned);
typedef CUresult (*describe_fn)(CUdevResourceDesc *, CUdevResource *, unsigned);
typedef CUresult (*create_fn)(CUgreenCtx *, CUdevResourceDesc, CUdevice, unsigned);
typedef CUresult (*stream_fn)(CUstream *, CUgreenCtx, unsigned, int);
typedef CUresult (*destroy_fn)(CUgreenCtx);

/* NULL: this driver does not have it. */
static void *find(const char *name)
{
    enum cudaDriverEntryPointQueryResult found;
    void *function = NULL;
    if (cudaGetDriverEntryPointByVersion(name, &function, DRIVER_VERSION, cudaEnableDefault, &found) != cudaSuccess ||
        found != cudaDriverEntryPointSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    return function;
}

/* The part that is asked for, as a context; NULL where the driver does not give it. */
static CUgreenCtx cut(const struct cuda_backend *backend, int *n_got)
{
    const get_resource_fn get_resource = (get_resource_fn)find("cuDeviceGetDevResource");
    const split_fn split = (split_fn)find("cuDevSmResourceSplitByCount");
    const describe_fn describe = (describe_fn)find("cuDevResourceGenerateDesc");
    const create_fn create = (create_fn)find("cuGreenCtxCreate");
    const device_get_fn device_get = (device_get_fn)find("cuDeviceGet");
    const int wanted = backend->n_multiprocessors;
    const unsigned n_least = (unsigned)(wanted < 0 ? -wanted : wanted);
    unsigned n_groups = 1;
    CUdevice device;
    CUdevResource all, first, rest;
    CUdevResourceDesc desc;
    CUgreenCtx context;
    if (get_resource == NULL || split == NULL || describe == NULL || create == NULL || device_get == NULL ||
        device_get(&device, backend->device) != CUDA_SUCCESS ||
        get_resource(device, &all, CU_DEV_RESOURCE_TYPE_SM) != CUDA_SUCCESS ||
        split(&first, &n_groups, &all, &rest, 0, n_least) != CUDA_SUCCESS || n_groups != 1) {
        return NULL;
    }
    CUdevResource *part = wanted < 0 ? &rest : &first;
    if (part->sm.smCount == 0 || describe(&desc, part, 1) != CUDA_SUCCESS ||
        create(&context, desc, device, CU_GREEN_CTX_DEFAULT_STREAM) != CUDA_SUCCESS) {
        return NULL;
    }
    *n_got = (int)part->sm.smCount;
    return context;
}

void cuda_partition_open(struct cuda_backend *backend)
{
    int n_got = 0;
    if (backend->n_multiprocessors == 0 || !cuda_enter(backend)) {
        return;
    }
    backend->partition = cut(backend, &n_got);
    if (backend->partition == NULL) {
        log_info("cuda:%d: the driver does not give a part of the GPU (%d multiprocessors were asked for), so all of "
                 "it is used", backend->device, backend->n_multiprocessors);
    } else {
        log_info("cuda:%d: %d multiprocessors", backend->device, n_got);
    }
}

void cuda_partition_close(struct cuda_backend *backend)
{
    const destroy_fn destroy = backend->partition != NULL ? (destroy_fn)find("cuGreenCtxDestroy") : NULL;
    if (destroy != NULL) {
        (void)destroy(backend->partition);
    }
    backend->partition = NULL;
}

bool cuda_partition_stream(struct cuda_backend *backend, cudaStream_t *stream)
{
    const stream_fn create = backend->partition != NULL ? (stream_fn)find("cuGreenCtxStreamCreate") : NULL;
    if (create != NULL && create(stream, backend->partition, CU_STREAM_NON_BLOCKING, 0) == CUDA_SUCCESS) {
        return true;
    }
    return cuda_ok(backend, cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), "opening a stream");
}
