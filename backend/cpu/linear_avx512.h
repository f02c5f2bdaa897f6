/* linear_avx512: one segment of a quantised tile on AVX-512 with VNNI, for every type and row count.
 * A template: linear_simple_avx512.c and linear_k_avx512.c make its instances.
 *
 * From about four rows on the dot-product units bind. A block of 32 inputs x 32 outputs x M rows is
 * 16 M vpdpbusd; every activation broadcast from memory serves both registers, which keeps the two load
 * ports below the two dot-product pipes. Up to six rows fit the register file at once (12 integer and
 * 12 float accumulators), four where a block has two scales; more go as two calls, the segment's
 * weights then in L1.
 *
 * Sub-scales multiply in float what the definition multiplies in int32: the dot, its product with a
 * scale and the sum of two such are integers below 2^24, so every step is exact, and vpmulld slow.
 */
#ifndef BACKEND_CPU_LINEAR_AVX512_H
#define BACKEND_CPU_LINEAR_AVX512_H

#include <immintrin.h>

#include "backend/cpu/linear.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    PREFETCH_BYTES = 8192, PREFETCH_FAR_BYTES = 16384, HALVES = 2, MAX_ROWS = 6, REGISTER_BYTES = 64,
    FLOAT_OF_INT = 0x4b400000 /* bits of 1.5 * 2^23: an integer added to them is added to the float */
};

/* Partial sums of the rows of one call, two registers of 16 outputs each; total starts at +0. */
struct row_sums { __m512 group[LINEAR_MAX_ROWS][HALVES], total[LINEAR_MAX_ROWS][HALVES]; };

/* Where segment sums go: rows `row`.. of sums; the segment begins and / or ends a group. */
struct place {
    struct row_sums *sums;
    int32_t row;
    int begins, ends;
};

/* Group sum from +0, then total: most layers have one segment a group, then no group sum is stored. */
INLINE void add_segment(const struct place *at, int m, __m512 acc[][HALVES])
{
    __m512(*group)[HALVES] = at->sums->group + at->row, (*total)[HALVES] = at->sums->total + at->row;
#pragma GCC unroll 8
    for (int r = 0; r < m; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < HALVES; h++) {
            const __m512 before = at->begins ? _mm512_setzero_ps() : group[r][h];
            acc[r][h] = _mm512_add_ps(before, acc[r][h]);
            if (at->ends) {
                total[r][h] = _mm512_add_ps(total[r][h], acc[r][h]);
            } else {
                group[r][h] = acc[r][h];
            }
        }
    }
}

/* Rows of one panel from a block on: codes 32 bytes apart, the rest 4; blocks stride apart. */
struct act_rows {
    const unsigned char *codes, *scales, *sums, *halves;
    size_t stride;
};

/* What a call does about lines further on. Nothing: others ask for them. Pass: those 8 KB behind the ones
 * it reads, past the second-level cache, as no later call will want them; where memory binds. Share:
 * `at` and those behind it, into the second-level cache, step_bytes a time, of which there are as many
 * as the segment has lines; where several calls read a segment, or arithmetic binds, so that memory
 * works during every call and the few miss buffers of the first level are left to the dots' loads. */
enum ahead_kind { AHEAD_NONE, AHEAD_PASS, AHEAD_SHARE };
struct ahead {
    enum ahead_kind kind;
    const unsigned char *at;
    size_t step_bytes; /* up to 64 */
};

/* One segment, M rows; tables by M, 1..linear_max_rows(type). */
typedef void (*linear_segment_fn)(const unsigned char *segment, int n_blocks, const struct act_rows *act,
                                  const struct ahead *ahead, const struct place *out);
extern const linear_segment_fn linear_q8_0_avx512[], linear_q4_0_avx512[], linear_q4_1_avx512[];
extern const linear_segment_fn linear_q5_0_avx512[], linear_q5_1_avx512[];
extern const linear_segment_fn linear_q2_k_avx512[], linear_q3_k_avx512[], linear_q4_k_avx512[];
extern const linear_segment_fn linear_q5_k_avx512[], linear_q6_k_avx512[];

static inline int32_t linear_max_rows(enum tensor_type type)
{
#ifdef TANDEM_INSTRUMENTED
    (void)type;
    return 2;
#else
    return quant_layout(type).part_elems == QUANT_BLOCK ? MAX_ROWS : 4;
#endif
}

/* Asks for as many lines as begin..end of what follows `base`. volatile: the compiler would gather the
 * prefetches of a block into one burst. */
INLINE void fetch_lines(const unsigned char *base, int begin, int end, struct ahead *ahead)
{
#pragma GCC unroll 16
    for (int line = begin; line < end; line++) {
        if (ahead->kind == AHEAD_PASS) {
            __asm__ volatile("prefetchnta %0" : : "m"(base[line * REGISTER_BYTES + PREFETCH_BYTES]));
        } else if (ahead->kind == AHEAD_SHARE) {
            __asm__ volatile("prefetcht1 %0" : : "m"(*ahead->at));
            ahead->at += ahead->step_bytes;
        }
    }
}

/* ---- codes ---- */

/* each 16-bit lane up (n > 0) or down by bits: fields move within their bytes once masked */
INLINE __m512i shift_bits(__m512i v, int n)
{
    return n > 0 ? _mm512_slli_epi16(v, n)
                 : n < 0 ? _mm512_srli_epi16(v, -n) : v;
}

INLINE __m512i field_mask(int bits, int at) { return _mm512_set1_epi8((char)(((1 << bits) - 1) << at)); }

/* Where quad q of a plane of `bits` bits lies (tile.h): group, and bit of the byte. */
INLINE int quad_group(int bits, int q) { return bits == 8 ? q : bits == 4 ? q % 4 : bits == 2 ? q % 4 / 2 : 0; }
INLINE int quad_shift(int bits, int q)
{
    return bits == 8 ? 0 : bits == 4 ? q / 4 * 4 : bits == 2 ? q / 4 * 4 + q % 2 * 2 : q;
}

/* Unsigned codes of the four inputs of quad q, 32 outputs. */
INLINE void load_quad(const struct quant_layout *layout, const unsigned char *codes, int q, __m512i w[HALVES])
{
    const int low = layout->low_bits, high = layout->high_bits;
    const unsigned char *low_at =
        codes + tile_low_group(low, high, quad_group(low, q)) * TILE_GROUP_BYTES;
#pragma GCC unroll 2
    for (int h = 0; h < HALVES; h++) {
        w[h] = _mm512_load_si512(low_at + h * REGISTER_BYTES);
        if (low < 8) {
            w[h] = _mm512_and_si512(shift_bits(w[h], -quad_shift(low, q)), field_mask(low, 0));
        }
        if (high > 0) {
            const unsigned char *high_at =
                codes + tile_high_group(low, high, quad_group(high, q)) * TILE_GROUP_BYTES;
            const __m512i above = shift_bits(_mm512_load_si512(high_at + h * REGISTER_BYTES),
                                             low - quad_shift(high, q));
            /* (above & mask) | w */
            w[h] = _mm512_ternarylogic_epi32(field_mask(high, low), above, w[h], 0xea);
        }
    }
}

/* dot[row][half] += w[half] . x[row] for quad q */
INLINE void dot_quad(const __m512i w[HALVES], const unsigned char *codes, int q, int m,
                     __m512i dot[][HALVES])
{
#pragma GCC unroll 6
    for (int r = 0; r < m; r++) {
        const int32_t *x = (const int32_t *)(const void *)(codes + r * QUANT_BLOCK);
        const __m512i v = _mm512_set1_epi32(x[q]);
        dot[r][0] = _mm512_dpbusd_epi32(dot[r][0], w[0], v);
        dot[r][1] = _mm512_dpbusd_epi32(dot[r][1], w[1], v);
    }
}

/* adds part `part` of a block to dot; lines of the block's codes are fetched as they go */
INLINE void part_dots(const struct quant_layout *layout, const unsigned char *codes, int part,
                      const unsigned char *x, int m, struct ahead *ahead, __m512i dot[][HALVES])
{
    const int lines = HALVES * (layout->low_bits + layout->high_bits);
    const int n_quads = layout->part_elems / 4; /* 4 or 8 */
#pragma GCC unroll 8
    for (int i = 0; i < n_quads; i++) {
        /* nibbles of one byte follow each other */
        const int q = n_quads == 8 && layout->low_bits == 4 ? i / 2 + i % 2 * 4 : part * n_quads + i;
        const int step = part * n_quads + i;
        __m512i w[HALVES];
        load_quad(layout, codes, q, w);
        fetch_lines(codes, lines * step / 8, lines * (step + 1) / 8, ahead);
        dot_quad(w, x, q, m, dot);
    }
}

/* ---- scales ---- */

INLINE void load_halves(const unsigned char *at, __m512 out[HALVES])
{
    out[0] = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)at));
    out[1] = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)(at + 32)));
}

enum scale_byte { SCALE_UNSIGNED, SCALE_SIGNED, SCALE_LOW_NIBBLE, SCALE_HIGH_NIBBLE };

/* 32 bytes to floats */
INLINE void load_scales(const unsigned char *at, enum scale_byte kind, __m512 out[HALVES])
{
    const __m128i low = _mm_set1_epi8(15);
#pragma GCC unroll 2
    for (int h = 0; h < HALVES; h++) {
        __m128i v = _mm_load_si128((const __m128i *)(const void *)(at + h * 16));
        if (kind == SCALE_HIGH_NIBBLE) {
            v = _mm_srli_epi16(v, 4);
        }
        if (kind == SCALE_LOW_NIBBLE || kind == SCALE_HIGH_NIBBLE) {
            v = _mm_and_si128(v, low);
        }
        out[h] = _mm512_cvtepi32_ps(kind == SCALE_SIGNED ? _mm512_cvtepi8_epi32(v)
                                                         : _mm512_cvtepu8_epi32(v));
    }
}

/* Scales of one part of a block of a 256-element type. */
INLINE void part_scales(const struct quant_layout *layout, const unsigned char *block, int part,
                        __m512 out[HALVES])
{
    const int two = layout->part_elems < QUANT_BLOCK;
    const enum scale_byte kind = layout->min == QUANT_MIN_NONE ? SCALE_SIGNED
                                 : two                         ? SCALE_LOW_NIBBLE
                                                               : SCALE_UNSIGNED;
    load_scales(block + part * TILE_OUTPUTS, kind, out);
}

INLINE void part_mins(const struct quant_layout *layout, const unsigned char *block, int part,
                      __m512 out[HALVES])
{
    if (layout->part_elems < QUANT_BLOCK) {
        load_scales(block + part * TILE_OUTPUTS, SCALE_HIGH_NIBBLE, out);
    } else {
        load_scales(block + TILE_OUTPUTS, SCALE_UNSIGNED, out);
    }
}

/* ---- a block ---- */

/* Sum of row r's codes over one part of a block. */
INLINE __m512i part_sum(const struct quant_layout *layout, const struct act_rows *x, int part, int r)
{
    const __m512i all = _mm512_set1_epi32(((const int32_t *)(const void *)x->sums)[r]);
    if (layout->part_elems == QUANT_BLOCK) {
        return all;
    }
    const __m512i half = _mm512_set1_epi32(((const int32_t *)(const void *)x->halves)[r]);
    return part == 0 ? half : _mm512_sub_epi32(all, half);
}

INLINE __m512 act_scale(const struct act_rows *x, int r)
{
    return _mm512_set1_ps(((const float *)(const void *)x->scales)[r]);
}

/* Where a dot begins: at minus the codes' offset, and where a sub-scale follows at FLOAT_OF_INT, so that
 * its bits are those of the float 1.5 * 2^23 + dot. */
INLINE __m512i first_dot(const struct quant_layout *layout, const struct act_rows *x, int part, int r)
{
    const __m512i base = layout->elems > QUANT_BLOCK ? _mm512_set1_epi32(FLOAT_OF_INT)
                                                     : _mm512_setzero_si512();
    if (layout->offset == 0) {
        return base;
    }
    const int shift = __builtin_ctz((unsigned int)layout->offset);
    return _mm512_sub_epi32(base, _mm512_slli_epi32(part_sum(layout, x, part, r), (unsigned int)shift));
}

/* value = sum over parts of sub-scale * dot, an exact integer. (1.5 * 2^23 + dot) * scale less 1.5 *
 * 2^23 * scale is one fma: its exact result is that integer, so nothing is rounded. */
INLINE void block_values(const struct quant_layout *layout, const unsigned char *block,
                         const struct act_rows *x, int m, struct ahead *ahead, __m512 value[][HALVES])
{
    const int parts = QUANT_BLOCK / layout->part_elems;
    const unsigned char *codes = block + tile_scale_bytes(layout);
    const __m512 lift = _mm512_set1_ps(-12582912.0f);
#pragma GCC unroll 2
    for (int part = 0; part < parts; part++) {
        __m512i dot[MAX_ROWS][HALVES];
        __m512 scale[HALVES], lifted[HALVES];
#pragma GCC unroll 6
        for (int r = 0; r < m; r++) {
            dot[r][0] = dot[r][1] = first_dot(layout, x, part, r);
        }
        part_dots(layout, codes, part, x->codes, m, ahead, dot);
        if (layout->elems > QUANT_BLOCK) {
            part_scales(layout, block, part, scale);
            lifted[0] = _mm512_mul_ps(scale[0], lift);
            lifted[1] = _mm512_mul_ps(scale[1], lift);
        }
#pragma GCC unroll 6
        for (int r = 0; r < m; r++) {
#pragma GCC unroll 2
            for (int h = 0; h < HALVES; h++) {
                if (layout->elems == QUANT_BLOCK) {
                    value[r][h] = _mm512_cvtepi32_ps(dot[r][h]);
                    continue;
                }
                const __m512 scaled =
                    _mm512_fmadd_ps(_mm512_castsi512_ps(dot[r][h]), scale[h], lifted[h]);
                value[r][h] = part == 0 ? scaled : _mm512_add_ps(value[r][h], scaled);
            }
        }
    }
}

/* acc += the minimums' share of a block */
INLINE void add_mins(const struct quant_layout *layout, const unsigned char *block,
                     const __m512 dmin[HALVES], const struct act_rows *x, int m, __m512 acc[][HALVES])
{
    const int two = layout->part_elems < QUANT_BLOCK;
    __m512 first[HALVES], second[HALVES];
    if (layout->min == QUANT_MIN_SCALED) {
        part_mins(layout, block, 0, first);
        if (two) {
            part_mins(layout, block, 1, second);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < m; r++) {
        const __m512 sum = _mm512_cvtepi32_ps(part_sum(layout, x, 0, r)), scale = act_scale(x, r);
        const __m512 rest = _mm512_cvtepi32_ps(part_sum(layout, x, 1, r));
#pragma GCC unroll 2
        for (int h = 0; h < HALVES; h++) {
            if (layout->min == QUANT_MIN_ADDED) {
                acc[r][h] = _mm512_fmadd_ps(dmin[h], _mm512_mul_ps(scale, sum), acc[r][h]);
                continue;
            }
            __m512 min_sum = _mm512_mul_ps(first[h], sum);
            if (two) {
                min_sum = _mm512_fmadd_ps(second[h], rest, min_sum);
            }
            acc[r][h] = _mm512_fnmadd_ps(min_sum, _mm512_mul_ps(dmin[h], scale), acc[r][h]);
        }
    }
}

/* ---- one segment, M rows ---- */
INLINE void segment_quantised(enum tensor_type type, const unsigned char *segment, int n_blocks,
                              const struct act_rows *act, int m, enum ahead_kind kind,
                              const struct ahead *given, const struct place *out)
{
    const struct quant_layout layout = quant_layout(type);
    const unsigned char *block = segment + tile_header_bytes(&layout);
    struct act_rows x = *act;
    struct ahead ahead = { kind, given->at, given->step_bytes }; /* kind: a constant here */
    __m512 acc[MAX_ROWS][HALVES], d[HALVES], dmin[HALVES];
#pragma GCC unroll 6
    for (int r = 0; r < m; r++) {
        acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    }
    fetch_lines(segment, 0, tile_header_bytes(&layout) / REGISTER_BYTES, &ahead);
    for (int b = 0; b < n_blocks; b++) {
        const unsigned char *halves = layout.elems == QUANT_BLOCK ? block : segment;
        __m512 value[MAX_ROWS][HALVES];
        fetch_lines(block, 0, tile_scale_bytes(&layout) / REGISTER_BYTES, &ahead);
        block_values(&layout, block, &x, m, &ahead, value);
        load_halves(halves, d);
#pragma GCC unroll 6
        for (int r = 0; r < m; r++) {
            const __m512 scale = act_scale(&x, r);
#pragma GCC unroll 2
            for (int h = 0; h < HALVES; h++) {
                acc[r][h] = _mm512_fmadd_ps(value[r][h], _mm512_mul_ps(d[h], scale), acc[r][h]);
            }
        }
        if (layout.min != QUANT_MIN_NONE) {
            load_halves(halves + TILE_HALVES_BYTES, dmin);
            add_mins(&layout, block, dmin, &x, m, acc);
        }
        block += tile_block_bytes(&layout);
        x.codes += x.stride;
        x.scales += x.stride;
        x.sums += x.stride;
        x.halves += x.stride;
    }
    add_segment(out, m, acc);
}

/* One instance per number of rows, so that loops unroll and accumulators stay in registers. */
#ifdef TANDEM_INSTRUMENTED /* a sanitizer's build: one row or two, or it compiles for minutes */
#define SEGMENT_INSTANCE(name, type, m)                                                                \
    static void name##_##m(const unsigned char *segment, int n_blocks, const struct act_rows *act,    \
                           const struct ahead *ahead, const struct place *out)                         \
    {                                                                                                  \
        segment_quantised(type, segment, n_blocks, act, m, AHEAD_SHARE, ahead, out);                   \
    }
#define SEGMENT_FAMILY_4(name, type)                                                                   \
    SEGMENT_INSTANCE(name, type, 1)                                                                    \
    SEGMENT_INSTANCE(name, type, 2)                                                                    \
    const linear_segment_fn name[] = { NULL, name##_1, name##_2 };
#define SEGMENT_FAMILY_6(name, type) SEGMENT_FAMILY_4(name, type)
#else
#define SEGMENT_INSTANCE(name, type, m)                                                                \
    static void name##_##m(const unsigned char *segment, int n_blocks, const struct act_rows *act,    \
                           const struct ahead *ahead, const struct place *out)                         \
    {                                                                                                  \
        if (ahead->kind == AHEAD_PASS) {                                                               \
            segment_quantised(type, segment, n_blocks, act, m, AHEAD_PASS, ahead, out);                \
        } else if (ahead->kind == AHEAD_SHARE) {                                                       \
            segment_quantised(type, segment, n_blocks, act, m, AHEAD_SHARE, ahead, out);               \
        } else {                                                                                       \
            segment_quantised(type, segment, n_blocks, act, m, AHEAD_NONE, ahead, out);                \
        }                                                                                              \
    }
#define SEGMENT_FAMILY_4(name, type)                                                                   \
    SEGMENT_INSTANCE(name, type, 1)                                                                    \
    SEGMENT_INSTANCE(name, type, 2)                                                                    \
    SEGMENT_INSTANCE(name, type, 3)                                                                    \
    SEGMENT_INSTANCE(name, type, 4)                                                                    \
    const linear_segment_fn name[] = { NULL, name##_1, name##_2, name##_3, name##_4 };
#define SEGMENT_FAMILY_6(name, type)                                                                   \
    SEGMENT_INSTANCE(name, type, 1)                                                                    \
    SEGMENT_INSTANCE(name, type, 2)                                                                    \
    SEGMENT_INSTANCE(name, type, 3)                                                                    \
    SEGMENT_INSTANCE(name, type, 4)                                                                    \
    SEGMENT_INSTANCE(name, type, 5)                                                                    \
    SEGMENT_INSTANCE(name, type, 6)                                                                    \
    const linear_segment_fn name[] = { NULL,     name##_1, name##_2, name##_3,                         \
                                       name##_4, name##_5, name##_6 };
#endif

#endif
