/* types_finite: a NaN or infinity among a row's floats, found before it is computed with. What a block
 * holds as floats are its halves d and dmin; codes cannot be wrong. */
#include <string.h>

#include "backend/quant_block.h"

/* Where in a block the halves stand; -1: none. */
static const struct { enum tensor_type type; int d, dmin; } places[] = {
    { TENSOR_Q4_0, 0, -1 },  { TENSOR_Q4_1, 0, 2 },    { TENSOR_Q5_0, 0, -1 },  { TENSOR_Q5_1, 0, 2 },
    { TENSOR_Q8_0, 0, -1 },  { TENSOR_Q2_K, 80, 82 },  { TENSOR_Q3_K, 108, -1 }, { TENSOR_Q4_K, 0, 2 },
    { TENSOR_Q5_K, 0, 2 },   { TENSOR_Q6_K, 208, -1 },
};

/* A float whose exponent is all ones: adding the exponent's lowest bit to the exponent alone carries
 * into the sign. Eight bytes at a time; `unit` is that lowest bit, `width` the float's bits. */
static bool run_finite(const unsigned char *bytes, size_t n_bytes, int width, uint64_t unit)
{
    const uint64_t ones = width == 32 ? UINT64_C(0x0000000100000001) : UINT64_C(0x0001000100010001);
    const uint64_t sign = ones << (width - 1), low = ones * unit;
    const uint64_t exponent = sign - low; /* from the lowest bit up to below the sign */
    uint64_t carried = 0, word;
    size_t at = 0;
    for (; at + sizeof word <= n_bytes; at += sizeof word) {
        memcpy(&word, bytes + at, sizeof word);
        carried |= (word & exponent) + low;
    }
    word = 0;
    memcpy(&word, bytes + at, n_bytes - at);
    carried |= (word & exponent) + low;
    return (carried & sign) == 0;
}

/* Halves a stride apart. */
static bool halves_finite(const unsigned char *bytes, int64_t n, int64_t stride_bytes)
{
    uint32_t carried = 0;
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, bytes + i * stride_bytes, sizeof half);
        carried |= (half & 0x7c00u) + 0x0400u;
    }
    return (carried & 0x8000u) == 0;
}

bool tensor_row_is_finite(enum tensor_type type, const void *row, int64_t n)
{
    const unsigned char *bytes = row;
    switch ((int)type) {
    case TENSOR_F32: return run_finite(bytes, (size_t)n * 4, 32, 0x00800000);
    case TENSOR_F16: return run_finite(bytes, (size_t)n * 2, 16, 0x0400);
    case TENSOR_BF16: return run_finite(bytes, (size_t)n * 2, 16, 0x0080);
    default: break;
    }
    const struct quant_layout layout = quant_layout(type);
    ASSERT(layout.elems > 0);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (places[i].type == type) {
            const int64_t n_blocks = n / layout.elems, step = layout.file_bytes;
            return halves_finite(bytes + places[i].d, n_blocks, step) &&
                   (places[i].dmin < 0 || halves_finite(bytes + places[i].dmin, n_blocks, step));
        }
    }
    return true;
}
