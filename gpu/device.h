/* device: the few things that a bed with memory of its own wants of a device. Two kinds: device_cuda.cu, and
 * device_emulated.c, with which everything but the device is tried where there is none. One thread.
 *
 * Functions that can fail return NULL, or why: one sentence, valid until the next call.
 */
#ifndef GPU_DEVICE_H
#define GPU_DEVICE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

const char *device_begin(void);      /* takes the first device; "no GPU: ..." */
const char *device_name(void);
void *device_alloc(size_t bytes);    /* zeroed; NULL: none left */
const char *device_put(void *to, const void *from, size_t bytes); /* host to device */
const char *device_get(void *to, const void *from, size_t bytes); /* device to host */
const char *device_wait(void);       /* for what was launched; says what went wrong with it */
double device_copy_gb(void);         /* GB/s, read + written, of memory far beyond the caches; 0: none to spare */
void device_order(int backward);     /* of blocks and threads, where that can be chosen */

#ifdef __cplusplus
}
#endif
#endif
