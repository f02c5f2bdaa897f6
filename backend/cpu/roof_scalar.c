/* roof loops in plain C: what the scalar code is held against. */
#ifndef KERNEL
#define KERNEL(name) name##_scalar
#endif

#include "backend/cpu/roof.h"

#include <string.h>

#define OPAQUE(value) __asm__ volatile("" : "+r"(value))

double KERNEL(roof_read)(const unsigned char *buf, size_t bytes, int variant)
{
    uint64_t sum[4] = { 0 };
    (void)variant;
    for (size_t i = 0; i + 32 <= bytes; i += 32) {
        for (size_t k = 0; k < 4; k++) {
            uint64_t word;
            memcpy(&word, buf + i + k * 8, 8);
            sum[k] += word;
        }
    }
    uint64_t all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    OPAQUE(all);
    return (double)bytes;
}

double KERNEL(roof_int)(int64_t iterations)
{
    int32_t acc[8] = { 0 };
    int32_t a = 3, b = 5;
    for (int64_t i = 0; i < iterations; i++) {
        OPAQUE(a);
        OPAQUE(b);
        for (int k = 0; k < 8; k++) {
            acc[k] += (int32_t)((uint32_t)(a + k) * (uint32_t)b) & 0xff;
        }
    }
    for (int k = 0; k < 8; k++) {
        OPAQUE(acc[k]);
    }
    return (double)iterations * 8;
}

double KERNEL(roof_float)(int64_t iterations)
{
    float acc[8] = { 0 };
    float a = 1.0000001f;
    for (int64_t i = 0; i < iterations; i++) {
        __asm__ volatile("" : "+m"(a));
        for (int k = 0; k < 8; k++) {
            acc[k] = __builtin_fmaf(acc[k], a, 1.0f);
        }
    }
    float all = 0;
    for (int k = 0; k < 8; k++) {
        all += acc[k];
    }
    __asm__ volatile("" : "+m"(all));
    return (double)iterations * 8;
}
