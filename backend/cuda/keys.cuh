/* keys: what device code ranks ids by. A value and its id make one 64-bit key whose order is "higher value,
 * then lower id", so that any order of comparing gives the same winner. A key is
 *
 *     value as an ordered integer (-0 made +0) | ~id
 *
 * The host's: sampling/row.h.
 */
#ifndef BACKEND_CUDA_KEYS_CUH
#define BACKEND_CUDA_KEYS_CUH

#include "backend/cuda/device.cuh"

typedef unsigned long long choose_key_t; /* what atomicMax takes */

DEVICE_FN choose_key_t choose_key(float value, uint32_t id)
{
    const uint32_t bits = mathx_to_bits(value + 0.0f);
    const uint32_t ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (choose_key_t)ordered << 32 | (0xffffffffu - id);
}

DEVICE_FN int32_t choose_key_id(choose_key_t key) { return (int32_t)(0xffffffffu - (uint32_t)key); }

DEVICE_FN float choose_key_value(choose_key_t key)
{
    const uint32_t ordered = (uint32_t)(key >> 32);
    return mathx_from_bits(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}

/* ---- rows to choose from ---- */
DEVICE_FN const float *choose_logits(const float *logits, const cuda_rows &from, int32_t row, int32_t n_vocab)
{
    const int32_t at = from.idx != nullptr ? from.idx[row] : row;
    return logits + (size_t)at * (size_t)(from.stride > 0 ? from.stride : n_vocab);
}

/* An id that was chosen before, or -1. */
DEVICE_FN int32_t choose_taken(const cuda_rows &from, int32_t row, int i)
{
    const int32_t *id = from.taken != nullptr ? from.taken[row].id[i] : nullptr;
    return id != nullptr ? *id : -1;
}

/* The highest key of a warp, in every lane; the whole warp comes. */
DEVICE_FN choose_key_t choose_warp_max(choose_key_t key)
{
    for (int step = CUDA_WARP / 2; step > 0; step /= 2) {
        const choose_key_t other = __shfl_xor_sync(WHOLE_WARP, key, step);
        key = other > key ? other : key;
    }
    return key;
}

#endif
