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

/* 16-bit words a stride apart; `mask`: the exponent, all of it set in what is not finite. */
static bool words_finite(const unsigned char *bytes, int64_t n, int64_t stride_bytes, uint16_t mask)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint16_t word;
        memcpy(&word, bytes + i * stride_bytes, sizeof word);
        bad |= (word & mask) == mask;
    }
    return bad == 0;
}

static bool floats_finite(const unsigned char *bytes, int64_t n)
{
    uint32_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, bytes + i * 4, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}

bool tensor_row_is_finite(enum tensor_type type, const void *row, int64_t n)
{
    enum { F16_EXPONENT = 0x7c00, BF16_EXPONENT = 0x7f80 };
    const unsigned char *bytes = row;
    if (type == TENSOR_F32) {
        return floats_finite(bytes, n);
    }
    if (type == TENSOR_F16 || type == TENSOR_BF16) {
        return words_finite(bytes, n, 2, type == TENSOR_F16 ? F16_EXPONENT : BF16_EXPONENT);
    }
    const struct quant_layout layout = quant_layout(type);
    ASSERT(layout.elems > 0);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        if (places[i].type == type) {
            const int64_t n_blocks = n / layout.elems, step = layout.file_bytes;
            return words_finite(bytes + places[i].d, n_blocks, step, F16_EXPONENT) &&
                   (places[i].dmin < 0 ||
                    words_finite(bytes + places[i].dmin, n_blocks, step, F16_EXPONENT));
        }
    }
    return true;
}
