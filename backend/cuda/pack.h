/* pack: arrays put behind each other into a pinned block that goes to the device as a whole, or that a block of
 * the device comes back to: the same offset on both sides. Private to backend/cuda. */
#ifndef BACKEND_CUDA_PACK_H
#define BACKEND_CUDA_PACK_H

#include "base/base.h"

struct packer { unsigned char *pinned, *device; size_t at, cap; };

/* Room for n elements, which lie at multiples of `align`; *device is where kernels find them. */
static inline void *pack_aligned(struct packer *packer, size_t n, size_t size, size_t align, const void **device)
{
    const size_t at = (packer->at + align - 1) / align * align;
    ASSERT(n <= (packer->cap - at) / size);
    packer->at = at + n * size;
    *device = packer->device + at;
    return packer->pinned + at;
}

/* Elements of a size that is their alignment, or a multiple of what they hold. */
static inline void *pack(struct packer *packer, size_t n, size_t size, const void **device)
{
    return pack_aligned(packer, n, size, size, device);
}

#endif
