/* quant_block: the bits of Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 and Q2_K to Q6_K as GGUF files hold them.
 *
 * Codes are moved eight at a time in a 64-bit word: a file's fields lie at equal places of
 * neighbouring bytes, and neighbouring bytes are neighbouring elements.
 */
#include <string.h>

#include "backend/quant_block.h"

#define BYTES(x) ((uint64_t)(x) * UINT64_C(0x0101010101010101)) /* x in each byte */
#define INLINE static inline __attribute__((always_inline)) /* for each width: loading waits for this */

INLINE uint64_t load64(const unsigned char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

INLINE void store64(unsigned char *bytes, uint64_t word) { memcpy(bytes, &word, sizeof word); }

/* ---- planes: fields of `bits` bits, `run` bytes of the file hold 8 / bits runs of elements ---- */

/* code (|)= field << to, for n elements: run by run of the lowest field, then of the next one */
INLINE void plane_read(const unsigned char *restrict file, int32_t bits, int32_t run, int32_t n, int32_t to,
                       uint8_t *restrict code)
{
    const uint64_t mask = BYTES((1u << bits) - 1u);
    for (int32_t done = 0; done < n; file += run) {
        for (int32_t from = 0; from < 8 && done < n; from += bits, done += run) {
            for (int32_t i = 0; i < run; i += 8) {
                const uint64_t field = (load64(file + i) >> from & mask) << to;
                store64(code + done + i, to == 0 ? field : load64(code + done + i) | field);
            }
        }
    }
}

INLINE void plane_write(unsigned char *file, int32_t bits, int32_t run, int32_t n, int32_t to,
                        const uint8_t *code)
{
    const uint64_t mask = BYTES((1u << bits) - 1u);
    for (int32_t done = 0; done < n; file += run) {
        for (int32_t i = 0; i < run; i += 8) {
            uint64_t word = 0;
            for (int32_t from = 0, at = done; from < 8 && at < n; from += bits, at += run) {
                word |= (load64(code + at + i) >> to & mask) << from;
            }
            store64(file + i, word);
        }
        done += run * 8 / bits;
    }
}

/* Q5_0, Q5_1: bit i of a word of 32 is bit 4 of code i */
INLINE void word_read(const unsigned char *file, uint8_t *code)
{
    for (int32_t i = 0; i < QUANT_BLOCK; i += 8) {
        /* byte k keeps bit k, then becomes 0 or 1: a bit plus 0x7f reaches 0x80 and no further byte */
        const uint64_t bits = BYTES(file[i / 8]) & UINT64_C(0x8040201008040201);
        const uint64_t ones = (bits + BYTES(0x7f)) >> 7 & BYTES(1);
        store64(code + i, load64(code + i) | ones << 4);
    }
}

INLINE void word_write(unsigned char *file, const uint8_t *code)
{
    for (int32_t i = 0; i < QUANT_BLOCK; i += 8) {
        /* the product gathers bit 0 of each byte in the top byte, the lowest byte's lowest */
        const uint64_t ones = load64(code + i) >> 4 & BYTES(1);
        file[i / 8] = (unsigned char)(ones * UINT64_C(0x0102040810204080) >> 56);
    }
}

/* ---- scales of the blocks of 256 ---- */

/* Q4_K, Q5_K: eight 6-bit scales and minimums in 12 bytes. Bytes 0..3 and 4..7 hold those of parts
 * 0..3; bytes 8..11 the low nibbles of parts 4..7, whose upper bits top the first eight bytes. */
static void scales_read_6bit(const unsigned char *file, struct quant_block *block)
{
    for (int32_t i = 0; i < 4; i++) {
        block->scale[i] = (int8_t)(file[i] & 63);
        block->min[i] = file[4 + i] & 63;
        block->scale[4 + i] = (int8_t)((file[8 + i] & 15) | file[i] >> 6 << 4);
        block->min[4 + i] = (uint8_t)(file[8 + i] >> 4 | file[4 + i] >> 6 << 4);
    }
}

static void scales_write_6bit(const struct quant_block *block, unsigned char *file)
{
    for (int32_t i = 0; i < 4; i++) {
        const int32_t scale = block->scale[4 + i], min = block->min[4 + i];
        file[i] = (unsigned char)(block->scale[i] | scale >> 4 << 6);
        file[4 + i] = (unsigned char)(block->min[i] | min >> 4 << 6);
        file[8 + i] = (unsigned char)((scale & 15) | (min & 15) << 4);
    }
}

/* Q3_K: sixteen 6-bit scales, + 32, in 12 bytes: low nibbles of scales i and 8 + i in byte i, then two
 * upper bits each of scales i, 4 + i, 8 + i, 12 + i in byte 8 + i. */
static void scales_read_q3(const unsigned char *file, struct quant_block *block)
{
    for (int32_t i = 0; i < 16; i++) {
        const int32_t low = file[i % 8] >> (i / 8 * 4) & 15, high = file[8 + i % 4] >> (i / 4 * 2) & 3;
        block->scale[i] = (int8_t)((low | high << 4) - 32);
    }
}

static void scales_write_q3(const struct quant_block *block, unsigned char *file)
{
    memset(file, 0, 12);
    for (int32_t i = 0; i < 16; i++) {
        const int32_t scale = block->scale[i] + 32;
        file[i % 8] = (unsigned char)(file[i % 8] | (scale & 15) << (i / 8 * 4));
        file[8 + i % 4] = (unsigned char)(file[8 + i % 4] | scale >> 4 << (i / 4 * 2));
    }
}

static void scales_read_q2(const unsigned char *file, struct quant_block *block)
{
    for (int32_t i = 0; i < 16; i++) {
        block->scale[i] = (int8_t)(file[i] & 15);
        block->min[i] = file[i] >> 4;
    }
}

static void scales_write_q2(const struct quant_block *block, unsigned char *file)
{
    for (int32_t i = 0; i < 16; i++) {
        file[i] = (unsigned char)(block->scale[i] | block->min[i] << 4);
    }
}

/* ---- types ---- */

/* Where a block's scale, and its minimum's behind it, stand in a file. */
static int32_t scale_at(enum tensor_type type)
{
    return type == TENSOR_Q2_K ? 80 : type == TENSOR_Q3_K ? 108 : type == TENSOR_Q6_K ? 208 : 0;
}

/* long: a table of file layouts, a type each */
void quant_block_read(const struct quant_layout *layout, const unsigned char *file,
                      struct quant_block *block)
{
    uint8_t *code = block->code;
    const int32_t d_at = scale_at(layout->type);
    memcpy(&block->d, file + d_at, 2);
    block->dmin = 0;
    if (layout->min != QUANT_MIN_NONE) {
        memcpy(&block->dmin, file + d_at + 2, 2);
    }
    switch ((int)layout->type) {
    case TENSOR_Q8_0:
        for (int32_t i = 0; i < QUANT_BLOCK; i += 8) {
            store64(code + i, load64(file + 2 + i) ^ BYTES(0x80)); /* signed → unsigned */
        }
        return;
    case TENSOR_Q4_0: plane_read(file + 2, 4, 16, 32, 0, code); return;
    case TENSOR_Q4_1: plane_read(file + 4, 4, 16, 32, 0, code); return;
    case TENSOR_Q5_0:
        plane_read(file + 6, 4, 16, 32, 0, code);
        word_read(file + 2, code);
        return;
    case TENSOR_Q5_1:
        plane_read(file + 8, 4, 16, 32, 0, code);
        word_read(file + 4, code);
        return;
    case TENSOR_Q2_K:
        scales_read_q2(file, block);
        plane_read(file + 16, 2, 32, 256, 0, code);
        return;
    case TENSOR_Q3_K:
        plane_read(file + 32, 2, 32, 256, 0, code);
        plane_read(file, 1, 32, 256, 2, code);
        scales_read_q3(file + 96, block);
        return;
    case TENSOR_Q4_K:
        scales_read_6bit(file + 4, block);
        plane_read(file + 16, 4, 32, 256, 0, code);
        return;
    case TENSOR_Q5_K:
        scales_read_6bit(file + 4, block);
        plane_read(file + 48, 4, 32, 256, 0, code);
        plane_read(file + 16, 1, 32, 256, 4, code);
        return;
    case TENSOR_Q6_K:
        plane_read(file, 4, 64, 256, 0, code);
        plane_read(file + 128, 2, 32, 256, 4, code);
        memcpy(block->scale, file + 192, 16);
        return;
    default: ASSERT(!"a native quantised type");
    }
}

/* long: the inverse of the table above */
void quant_block_write(const struct quant_layout *layout, const struct quant_block *block,
                       unsigned char *file)
{
    const uint8_t *code = block->code;
    const int32_t d_at = scale_at(layout->type);
    memcpy(file + d_at, &block->d, 2);
    if (layout->min != QUANT_MIN_NONE) {
        memcpy(file + d_at + 2, &block->dmin, 2);
    }
    switch ((int)layout->type) {
    case TENSOR_Q8_0:
        for (int32_t i = 0; i < QUANT_BLOCK; i += 8) {
            store64(file + 2 + i, load64(code + i) ^ BYTES(0x80));
        }
        return;
    case TENSOR_Q4_0: plane_write(file + 2, 4, 16, 32, 0, code); return;
    case TENSOR_Q4_1: plane_write(file + 4, 4, 16, 32, 0, code); return;
    case TENSOR_Q5_0:
        plane_write(file + 6, 4, 16, 32, 0, code);
        word_write(file + 2, code);
        return;
    case TENSOR_Q5_1:
        plane_write(file + 8, 4, 16, 32, 0, code);
        word_write(file + 4, code);
        return;
    case TENSOR_Q2_K:
        scales_write_q2(block, file);
        plane_write(file + 16, 2, 32, 256, 0, code);
        return;
    case TENSOR_Q3_K:
        plane_write(file + 32, 2, 32, 256, 0, code);
        plane_write(file, 1, 32, 256, 2, code);
        scales_write_q3(block, file + 96);
        return;
    case TENSOR_Q4_K:
        scales_write_6bit(block, file + 4);
        plane_write(file + 16, 4, 32, 256, 0, code);
        return;
    case TENSOR_Q5_K:
        scales_write_6bit(block, file + 4);
        plane_write(file + 48, 4, 32, 256, 0, code);
        plane_write(file + 16, 1, 32, 256, 4, code);
        return;
    case TENSOR_Q6_K:
        plane_write(file, 4, 64, 256, 0, code);
        plane_write(file + 128, 2, 32, 256, 4, code);
        memcpy(file + 192, block->scale, 16);
        return;
    default: ASSERT(!"a native quantised type");
    }
}

void quant_block_values(const struct quant_layout *layout, const struct quant_block *block, float *out)
{
    const float d = mathx_f16_to_f32(block->d), dmin = mathx_f16_to_f32(block->dmin);
    for (int32_t begin = 0; begin < layout->elems; begin += layout->part_elems) {
        const int32_t part = begin / layout->part_elems;
        const float scale = layout->elems == QUANT_BLOCK ? d : d * (float)block->scale[part];
        const float min = layout->min == QUANT_MIN_SCALED ? dmin * (float)block->min[part] : dmin;
        for (int32_t i = begin; i < begin + layout->part_elems; i++) {
            const float value = scale * (float)(block->code[i] - layout->offset);
            out[i] = layout->min == QUANT_MIN_SCALED  ? value - min
                     : layout->min == QUANT_MIN_ADDED ? value + min
                                                      : value;
        }
    }
}
