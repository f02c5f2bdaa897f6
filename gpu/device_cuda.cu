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

/* Milliseconds of `n` copies; negative when one failed. */
static float copy_ms(void *to, const void *from, size_t bytes, int n, cudaEvent_t begin, cudaEvent_t end)
{
    float ms = -1;
    bool is_ok = cudaEventRecord(begin, 0) == cudaSuccess;
    for (int i = 0; i < n; i++) {
        is_ok = is_ok && cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, 0) == cudaSuccess;
    }
    is_ok = is_ok && cudaEventRecord(end, 0) == cudaSuccess && cudaEventSynchronize(end) == cudaSuccess;
    return is_ok && cudaEventElapsedTime(&ms, begin, end) == cudaSuccess ? ms : -1;
}

double device_copy_gb(void)
{
    static cudaEvent_t begin, end;
    const size_t bytes = (size_t)1 << 30;
    void *from = nullptr, *to = nullptr;
    const int n = 8;
    double gb = 0;
    if ((begin != nullptr || (cudaEventCreate(&begin) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess)) &&
        cudaMalloc(&from, bytes) == cudaSuccess && cudaMalloc(&to, bytes) == cudaSuccess &&
        cudaMemset(from, 1, bytes) == cudaSuccess && copy_ms(to, from, bytes, 1, begin, end) > 0) {
        const float ms = copy_ms(to, from, bytes, n, begin, end);
        gb = ms > 0 ? 2e-6 * (double)bytes * n / (double)ms : 0;
    }
    (void)cudaFree(from);
    (void)cudaFree(to);
    (void)cudaGetLastError();
    return gb;
}

void device_order(int backward) { (void)backward; }
