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

/* NULL for types that are not native quantised ones. */
const struct quant_layout *quant_layout(enum tensor_type type);

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
