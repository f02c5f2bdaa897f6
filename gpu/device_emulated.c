/* device_emulated: no device: the emulation of the tests, with memory of its own. */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "gpu/device.h"
#include "tests/simt/simt.h"

const char *device_begin(void) { return NULL; }
const char *device_name(void) { return "emulated"; }
void *device_alloc(size_t bytes) { return mem_map(bytes); }

const char *device_put(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    return NULL;
}

const char *device_get(void *to, const void *from, size_t bytes) { return device_put(to, from, bytes); }

const char *device_wait(void) { return simt_take_error(); }

/* The host's, and of little: a figure where there is one to be had. */
double device_copy_gb(void)
{
    enum { BYTES = 1 << 22 };
    unsigned char *from = mem_map(BYTES), *to = mem_map(BYTES);
    double gb = 0;
    if (from != NULL && to != NULL) {
        memset(from, 1, BYTES);
        const int64_t begin = clock_now_ns();
        memcpy(to, from, BYTES);
        gb = 2.0 * BYTES / (double)(clock_now_ns() - begin + 1);
    }
    mem_unmap(from, BYTES);
    mem_unmap(to, BYTES);
    return gb;
}

void device_order(int backward)
{
    const enum simt_order order = backward ? SIMT_BACKWARD : SIMT_FORWARD;
    simt_set_order(order, order);
}
