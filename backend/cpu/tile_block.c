/* tile_block: one output's codes and scales into the tile's planes, and back. tile.h draws them.
 *
 * Codes are handled a quad (four inputs, four bytes of a word) at a time; a plane's word gathers the
 * fields of the quads that share it.
 */
#include <string.h>

#include "backend/cpu/linear.h"

enum { QUADS = QUANT_BLOCK / 4 };

static uint32_t load32(const unsigned char *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static void store32(unsigned char *bytes, uint32_t word) { memcpy(bytes, &word, sizeof word); }

/* `width` low bits of each byte */
static uint32_t field_mask(int32_t width) { return 0x01010101u * ((1u << width) - 1u); }

#define INLINE static inline __attribute__((always_inline)) /* for each width: loading waits for this */

/* Where a quad lies in a plane of `width` bits: group and shift. */
struct quad_place { int32_t group, shift; };

INLINE struct quad_place quad_place(int32_t width, int32_t quad)
{
    switch (width) {
    case 8: return (struct quad_place){ quad, 0 };
    case 4: return (struct quad_place){ quad % 4, quad / 4 * 4 };
    case 2: return (struct quad_place){ quad % 4 / 2, quad / 4 * 4 + quad % 2 * 2 };
    default: return (struct quad_place){ 0, quad };
    }
}

enum plane { PLANE_LOW, PLANE_HIGH };

/* Byte of a block's codes at which group `group` of a plane begins. */
INLINE int32_t group_at(enum plane plane, int32_t low, int32_t high, int32_t group)
{
    return TILE_GROUP_BYTES *
           (plane == PLANE_LOW ? tile_low_group(low, high, group) : tile_high_group(low, high, group));
}

INLINE void plane_put(unsigned char *codes, int32_t lane, enum plane plane, int32_t low, int32_t high,
                      const uint8_t *code)
{
    const int32_t width = plane == PLANE_LOW ? low : high, from = plane == PLANE_LOW ? 0 : low;
    uint32_t words[QUADS] = { 0 };
#pragma GCC unroll 8
    for (int32_t quad = 0; quad < QUADS; quad++) {
        const struct quad_place at = quad_place(width, quad);
        words[at.group] |= (load32(code + quad * 4) >> from & field_mask(width)) << at.shift;
    }
#pragma GCC unroll 8
    for (int32_t group = 0; group < width; group++) {
        store32(codes + group_at(plane, low, high, group) + lane * 4, words[group]);
    }
}

INLINE void plane_get(const unsigned char *codes, int32_t lane, enum plane plane, int32_t low,
                      int32_t high, uint8_t *code)
{
    const int32_t width = plane == PLANE_LOW ? low : high, to = plane == PLANE_LOW ? 0 : low;
#pragma GCC unroll 8
    for (int32_t quad = 0; quad < QUADS; quad++) {
        const struct quad_place at = quad_place(width, quad);
        const uint32_t word = load32(codes + group_at(plane, low, high, at.group) + lane * 4);
        const uint32_t field = (word >> at.shift & field_mask(width)) << to;
        store32(code + quad * 4, to == 0 ? field : load32(code + quad * 4) | field);
    }
}

/* The codes of 32 inputs of one output. */
INLINE void put_bits(unsigned char *codes, int32_t lane, int32_t low, int32_t high, const uint8_t *code)
{
    plane_put(codes, lane, PLANE_LOW, low, high, code);
    if (high > 0) {
        plane_put(codes, lane, PLANE_HIGH, low, high, code);
    }
}

INLINE void get_bits(const unsigned char *codes, int32_t lane, int32_t low, int32_t high, uint8_t *code)
{
    plane_get(codes, lane, PLANE_LOW, low, high, code);
    if (high > 0) {
        plane_get(codes, lane, PLANE_HIGH, low, high, code);
    }
}

enum { BITS_3 = 2 * 4 + 1, BITS_4 = 4 * 4, BITS_5 = 4 * 4 + 1, BITS_6 = 4 * 4 + 2, BITS_8 = 8 * 4 };

static int32_t layout_bits(const struct quant_layout *layout)
{
    return layout->low_bits * 4 + layout->high_bits;
}

static void codes_put(const struct quant_layout *layout, unsigned char *codes, int32_t lane,
                      const uint8_t *code)
{
    switch (layout_bits(layout)) {
    case BITS_3: put_bits(codes, lane, 2, 1, code); return;
    case BITS_4: put_bits(codes, lane, 4, 0, code); return;
    case BITS_5: put_bits(codes, lane, 4, 1, code); return;
    case BITS_6: put_bits(codes, lane, 4, 2, code); return;
    case BITS_8: put_bits(codes, lane, 8, 0, code); return;
    default: put_bits(codes, lane, 2, 0, code); return;
    }
}

static void codes_get(const struct quant_layout *layout, const unsigned char *codes, int32_t lane,
                      uint8_t *code)
{
    switch (layout_bits(layout)) {
    case BITS_3: get_bits(codes, lane, 2, 1, code); return;
    case BITS_4: get_bits(codes, lane, 4, 0, code); return;
    case BITS_5: get_bits(codes, lane, 4, 1, code); return;
    case BITS_6: get_bits(codes, lane, 4, 2, code); return;
    case BITS_8: get_bits(codes, lane, 8, 0, code); return;
    default: get_bits(codes, lane, 2, 0, code); return;
    }
}

static void halves_put(const struct quant_layout *layout, const struct quant_block *from, int32_t lane,
                       unsigned char *halves)
{
    memcpy(halves + lane * 2, &from->d, 2);
    if (layout->min != QUANT_MIN_NONE) {
        memcpy(halves + TILE_HALVES_BYTES + lane * 2, &from->dmin, 2);
    }
}

static void halves_get(const struct quant_layout *layout, const unsigned char *halves, int32_t lane,
                       struct quant_block *to)
{
    memcpy(&to->d, halves + lane * 2, 2);
    to->dmin = 0;
    if (layout->min != QUANT_MIN_NONE) {
        memcpy(&to->dmin, halves + TILE_HALVES_BYTES + lane * 2, 2);
    }
}

/* Two bytes of each output: of two parts, or the scale and the minimum of one. */
static void scales_put(const struct quant_layout *layout, const struct quant_block *from, int32_t b,
                       int32_t lane, unsigned char *scales)
{
    unsigned char *first = scales + lane, *second = first + TILE_OUTPUTS;
    if (tile_block_parts(layout) == 1) {
        *first = (unsigned char)from->scale[b];
        *second = from->min[b];
    } else if (layout->min == QUANT_MIN_NONE) {
        *first = (unsigned char)from->scale[2 * b];
        *second = (unsigned char)from->scale[2 * b + 1];
    } else {
        *first = (unsigned char)(from->scale[2 * b] | from->min[2 * b] << 4);
        *second = (unsigned char)(from->scale[2 * b + 1] | from->min[2 * b + 1] << 4);
    }
}

static void scales_get(const struct quant_layout *layout, const unsigned char *scales, int32_t b,
                       int32_t lane, struct quant_block *to)
{
    const unsigned char first = scales[lane], second = scales[TILE_OUTPUTS + lane];
    if (tile_block_parts(layout) == 1) {
        to->scale[b] = (int8_t)first;
        to->min[b] = second;
    } else if (layout->min == QUANT_MIN_NONE) {
        to->scale[2 * b] = (int8_t)first;
        to->scale[2 * b + 1] = (int8_t)second;
    } else {
        to->scale[2 * b] = (int8_t)(first & 15);
        to->scale[2 * b + 1] = (int8_t)(second & 15);
        to->min[2 * b] = first >> 4;
        to->min[2 * b + 1] = second >> 4;
    }
}

void tile_block_put(const struct quant_layout *layout, const struct quant_block *from, int32_t b,
                    int32_t lane, unsigned char *segment)
{
    unsigned char *block = segment + tile_header_bytes(layout) + b * tile_block_bytes(layout);
    halves_put(layout, from, lane, layout->elems == QUANT_BLOCK ? block : segment);
    for (int32_t i = 0; i < layout->elems / QUANT_BLOCK; i++, block += tile_block_bytes(layout)) {
        if (layout->elems != QUANT_BLOCK) {
            scales_put(layout, from, i, lane, block);
        }
        codes_put(layout, block + tile_scale_bytes(layout), lane, from->code + i * QUANT_BLOCK);
    }
}

void tile_block_get(const struct quant_layout *layout, const unsigned char *segment, int32_t b,
                    int32_t lane, struct quant_block *to)
{
    const unsigned char *block = segment + tile_header_bytes(layout) + b * tile_block_bytes(layout);
    halves_get(layout, layout->elems == QUANT_BLOCK ? block : segment, lane, to);
    for (int32_t i = 0; i < layout->elems / QUANT_BLOCK; i++, block += tile_block_bytes(layout)) {
        if (layout->elems != QUANT_BLOCK) {
            scales_get(layout, block, i, lane, to);
        }
        codes_get(layout, block + tile_scale_bytes(layout), lane, to->code + i * QUANT_BLOCK);
    }
}
