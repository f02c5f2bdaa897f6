/* parts: what the driver says of parts of an emulated device, its multiprocessors. */
#include "tests/simt/exchange.h"
#include "tests/simt/include/cuda.h"
#include "tests/simt/runtime.h"

#include <stdlib.h>
#include <string.h>

struct CUgreenCtx_st { int device; unsigned n; };
struct CUdevResourceDesc_st { unsigned n; };

namespace {

bool gives_parts = true;
unsigned held_parts;

enum { MULTIPROCESSORS = 16, KEPT_TOGETHER = 2 };

CUresult device_get(CUdevice *device, int n)
{
    *device = n;
    int n_devices = 0;
    (void)cudaGetDeviceCount(&n_devices);
    return n < n_devices ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult get_resource(CUdevice, CUdevResource *all, CUdevResourceType type)
{
    *all = { type, { MULTIPROCESSORS } };
    return CUDA_SUCCESS;
}

CUresult split(CUdevResource *parts, unsigned *n, const CUdevResource *all, CUdevResource *rest, unsigned, unsigned least)
{
    const unsigned count = (least + KEPT_TOGETHER - 1) / KEPT_TOGETHER * KEPT_TOGETHER;
    if (*n != 1 || count > all->sm.smCount) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    parts[0] = { all->type, { count } };
    *rest = { all->type, { all->sm.smCount - count } };
    return CUDA_SUCCESS;
}

CUresult describe(CUdevResourceDesc *desc, CUdevResource *parts, unsigned n)
{
    *desc = static_cast<CUdevResourceDesc>(calloc(1, sizeof **desc));
    (*desc)->n = parts[0].sm.smCount;
    return n == 1 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult green_create(CUgreenCtx *context, CUdevResourceDesc desc, CUdevice device, unsigned)
{
    *context = static_cast<CUgreenCtx>(calloc(1, sizeof **context));
    **context = { device, desc->n };
    held_parts += desc->n;
    free(desc);
    return CUDA_SUCCESS;
}

CUresult green_stream(CUstream *stream, CUgreenCtx context, unsigned flags, int)
{
    return context->device == simt_current_device() && cudaStreamCreateWithFlags(stream, flags) == cudaSuccess
               ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult green_destroy(CUgreenCtx context)
{
    held_parts -= context->n;
    free(context);
    return CUDA_SUCCESS;
}

} // namespace

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned version,
                                             unsigned long long flags, enum cudaDriverEntryPointQueryResult *found)
{
    static const struct { const char *name; void *function; } entries[] = {
        { "cuDeviceGet", reinterpret_cast<void *>(device_get) },
        { "cuDeviceGetDevResource", reinterpret_cast<void *>(get_resource) },
        { "cuDevSmResourceSplitByCount", reinterpret_cast<void *>(split) },
        { "cuDevResourceGenerateDesc", reinterpret_cast<void *>(describe) },
        { "cuGreenCtxCreate", reinterpret_cast<void *>(green_create) },
        { "cuGreenCtxStreamCreate", reinterpret_cast<void *>(green_stream) },
        { "cuGreenCtxDestroy", reinterpret_cast<void *>(green_destroy) },
    };
    (void)version;
    (void)flags;
    *function = nullptr;
    for (const auto &entry : entries) {
        if (gives_parts && strcmp(entry.name, symbol) == 0) {
            *function = entry.function;
        }
    }
    *found = *function != nullptr ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

void simt_set_parts(int gives) { gives_parts = gives != 0; }
int simt_held_parts(void) { return (int)held_parts; }
