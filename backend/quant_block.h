/* quant_block: one block of a native quantised type taken apart, and put together again without loss.
 *
 * Dequantising, quantising and repacking all go through this form, so that what a type's bits mean
 * is written down once. A value is
 *
 *     d * scale[part] * (code - offset)              types with an offset
 *     d * scale[part] * code - dmin * min[part]      Q2_K, Q4_K, Q5_K
 *     d * code + dmin                                Q4_1, Q5_1
 *
 * where parts are runs of 16 or 32 elements and the types of 32 elements have no scale.
 */
#ifndef BACKEND_QUANT_BLOCK_H
#define BACKEND_QUANT_BLOCK_H

#include "backend/backend.h"

enum { QUANT_MAX_ELEMS = 256, QUANT_MAX_PARTS = 16 };

enum quant_min {
    QUANT_MIN_NONE,
    QUANT_MIN_ADDED, /* + dmin */
    QUANT_MIN_SCALED /* - dmin * min[part] */
};

struct quant_layout {
    enum tensor_type type;
    int32_t elems, file_bytes;
    int32_t part_elems; /* 16 or 32 */
    int32_t offset;
    enum quant_min min;
    int32_t low_bits, high_bits; /* of a code: 8, 4 or 2 and 0, 1 or 2 */
};

/* elems 0 for types that are not native quantised ones. Inline: kernels are made for one layout each. */
static inline struct quant_layout quant_layout(enum tensor_type type)
{
    switch ((int)type) {
    case TENSOR_Q8_0: return (struct quant_layout){ type, 32, 34, 32, 128, QUANT_MIN_NONE, 8, 0 };
    case TENSOR_Q4_0: return (struct quant_layout){ type, 32, 18, 32, 8, QUANT_MIN_NONE, 4, 0 };
    case TENSOR_Q4_1: return (struct quant_layout){ type, 32, 20, 32, 0, QUANT_MIN_ADDED, 4, 0 };
    case TENSOR_Q5_0: return (struct quant_layout){ type, 32, 22, 32, 16, QUANT_MIN_NONE, 4, 1 };
    case TENSOR_Q5_1: return (struct quant_layout){ type, 32, 24, 32, 0, QUANT_MIN_ADDED, 4, 1 };
    case TENSOR_Q2_K: return (struct quant_layout){ type, 256, 84, 16, 0, QUANT_MIN_SCALED, 2, 0 };
    case TENSOR_Q3_K: return (struct quant_layout){ type, 256, 110, 16, 4, QUANT_MIN_NONE, 2, 1 };
    case TENSOR_Q4_K: return (struct quant_layout){ type, 256, 144, 32, 0, QUANT_MIN_SCALED, 4, 0 };
    case TENSOR_Q5_K: return (struct quant_layout){ type, 256, 176, 32, 0, QUANT_MIN_SCALED, 4, 1 };
    case TENSOR_Q6_K: return (struct quant_layout){ type, 256, 210, 16, 32, QUANT_MIN_NONE, 4, 2 };
    default: return (struct quant_layout){ type, 0, 0, 0, 0, QUANT_MIN_NONE, 0, 0 };
    }
}

struct quant_block {
    uint16_t d, dmin;                /* halves; dmin 0 where there is none */
    int8_t scale[QUANT_MAX_PARTS];   /* blocks of 256 only */
    uint8_t min[QUANT_MAX_PARTS];    /* QUANT_MIN_SCALED only */
    _Alignas(8) uint8_t code[QUANT_MAX_ELEMS]; /* in the order of elements */
};

/* Scales and minimums that a type lacks are left as they were. */
void quant_block_read(const struct quant_layout *layout, const unsigned char *file,
                      struct quant_block *block);
void quant_block_write(const struct quant_layout *layout, const struct quant_block *block,
                       unsigned char *file);
/* the floats that a block stands for, [layout->elems] */
void quant_block_values(const struct quant_layout *layout, const struct quant_block *block, float *out);

#endif
