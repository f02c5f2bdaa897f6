/* device_cuda: a GPU, by CUDA's runtime. */
#include <cuda_runtime.h>
#include <stdio.h>

#include "gpu/device.h"

static char text[512], name[300];

static const char *failed(const char *what, cudaError_t error)
{
    if (error == cudaSuccess) {
        return nullptr;
    }
    snprintf(text, sizeof text, "%s: %s", what, cudaGetErrorString(error));
    return text;
}

const char *device_begin(void)
{
    int n = 0;
    cudaDeviceProp properties;
    const cudaError_t error = cudaGetDeviceCount(&n);
    if (error != cudaSuccess || n < 1) {
        return failed("no GPU", error != cudaSuccess ? error : cudaErrorNoDevice);
    }
    const char *why = failed("no GPU can be used", cudaSetDevice(0));
    why = why != nullptr ? why : failed("no GPU says what it is", cudaGetDeviceProperties(&properties, 0));
    if (why == nullptr) {
        snprintf(name, sizeof name, "%s", properties.name);
    }
    return why;
}

const char *device_name(void) { return name; }

void *device_alloc(size_t bytes)
{
    void *memory = nullptr;
    if (cudaMalloc(&memory, bytes) != cudaSuccess) {
        (void)cudaGetLastError();
        return nullptr;
    }
    return cudaMemset(memory, 0, bytes) == cudaSuccess ? memory : nullptr;
}

const char *device_put(void *to, const void *from, size_t bytes)
{
    return failed("copying to the device", cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice));
}

const char *device_get(void *to, const void *from, size_t bytes)
{
    return failed("copying from the device", cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}

const char *device_wait(void) { return failed("a kernel failed", cudaDeviceSynchronize()); }

void device_order(int backward) { (void)backward; }
