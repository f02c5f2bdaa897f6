/* linear_quant, AVX2 + FMA: one segment of a quantised tile, a quarter (8 outputs) at a time.
 *
 * The int8 dot is maddubs (unsigned x signed, pairs into int16) and madd (pairs into int32). Codes are
 * stored unsigned, so pairs of those below 16 may be summed eight times before they leave int16, those
 * below 32 four times, those below 64 twice. Q8_0 needs |w| x (x with w's sign), whose pairs reach
 * 2 * 128 * 127 and so just fit, one at a time. Sub-scales multiply in float: every step is an integer
 * below 2^24, hence exact. Definition: linear_scalar.c. Plan: exact.
 */
#include "backend/cpu/linear_avx2.h"

enum { QUADS = QUANT_BLOCK / 4 };

INLINE __m256i load_ymm(const void *p) { return _mm256_load_si256((const __m256i *)p); }

/* ---- codes ---- */

/* each 16-bit lane up (n > 0) or down by bits: fields move within their bytes once masked */
INLINE __m256i shift_bits(__m256i v, int n)
{
    return n > 0 ? _mm256_slli_epi16(v, n) : n < 0 ? _mm256_srli_epi16(v, -n) : v;
}

INLINE __m256i field_mask(int bits, int at) { return _mm256_set1_epi8((char)(((1 << bits) - 1) << at)); }

/* Where quad q of a plane of `bits` bits lies (tile.h): group, and bit of the byte. */
INLINE int quad_group(int bits, int q) { return bits == 8 ? q : bits == 4 ? q % 4 : bits == 2 ? q % 4 / 2 : 0; }
INLINE int quad_shift(int bits, int q)
{
    return bits == 8 ? 0 : bits == 4 ? q / 4 * 4 : bits == 2 ? q / 4 * 4 + q % 2 * 2 : q;
}

/* Codes of the four inputs of quad q, 8 outputs: unsigned as stored, Q8_0 signed. */
INLINE __m256i load_quad(const struct quant_layout *layout, const unsigned char *codes, int quarter, int q)
{
    const int low = layout->low_bits, high = layout->high_bits;
    const int low_group = tile_low_group(low, high, quad_group(low, q));
    __m256i w = load_ymm(codes + low_group * TILE_GROUP_BYTES + quarter * 32);
    if (low == 8) {
        return _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));
    }
    w = _mm256_and_si256(shift_bits(w, -quad_shift(low, q)), field_mask(low, 0));
    if (high > 0) {
        const int high_group = tile_high_group(low, high, quad_group(high, q));
        const __m256i above = load_ymm(codes + high_group * TILE_GROUP_BYTES + quarter * 32);
        w = _mm256_or_si256(w, _mm256_and_si256(shift_bits(above, low - quad_shift(high, q)),
                                                field_mask(high, low)));
    }
    return w;
}

/* int32 dots of 8 outputs with n quads of one row; a stored offset is not yet taken off */
INLINE __m256i dot_quads(const struct quant_layout *layout, const __m256i *w, const int32_t *x, int n)
{
    const int bits = layout->low_bits + layout->high_bits;
    const int at_once = bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
    const __m256i one = _mm256_set1_epi16(1);
    __m256i dot = _mm256_setzero_si256(), pairs = dot;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        __m256i left = w[i], right = _mm256_set1_epi32(x[i]);
        if (bits == 8) {
            right = _mm256_sign_epi8(right, left);
            left = _mm256_abs_epi8(left);
        }
        const __m256i more = _mm256_maddubs_epi16(left, right);
        pairs = i % at_once == 0 ? more : _mm256_add_epi16(pairs, more);
        if (i % at_once == at_once - 1 || i == n - 1) {
            const __m256i fours = _mm256_madd_epi16(pairs, one);
            dot = i < at_once ? fours : _mm256_add_epi32(dot, fours);
        }
    }
    return dot;
}

/* ---- scales ---- */

INLINE __m256 load_halves(const unsigned char *at, int quarter)
{
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)(at + quarter * 16)));
}

/* Scales of one part of a block of a 256-element type, and its minimums. */
struct part_scales { __m256 scale, min; };

INLINE struct part_scales load_scales(const struct quant_layout *layout, const unsigned char *block,
                                      int part, int quarter)
{
    const __m128i low = _mm_set1_epi8(15);
    const unsigned char *at = block + quarter * 8;
    const __m128i first = _mm_loadl_epi64((const __m128i *)(const void *)(at + part * TILE_OUTPUTS));
    struct part_scales out = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    if (layout->min == QUANT_MIN_NONE) {
        out.scale = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(first));
    } else if (layout->part_elems == QUANT_BLOCK) {
        const __m128i second = _mm_loadl_epi64((const __m128i *)(const void *)(at + TILE_OUTPUTS));
        out.scale = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(first));
        out.min = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(second));
    } else {
        const __m128i high = _mm_and_si128(_mm_srli_epi16(first, 4), low);
        out.scale = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_and_si128(first, low)));
        out.min = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(high));
    }
    return out;
}

/* ---- a block ---- */

/* A block's weights and scales, 8 outputs. */
struct quarter {
    __m256i w[QUADS];
    __m256 d, dmin;
    struct part_scales part[2];
};

INLINE void load_quarter(const struct quant_layout *layout, const unsigned char *segment,
                         const unsigned char *block, int quarter, struct quarter *out)
{
    const unsigned char *halves = layout->elems == QUANT_BLOCK ? block : segment;
#pragma GCC unroll 8
    for (int q = 0; q < QUADS; q++) {
        out->w[q] = load_quad(layout, block + tile_scale_bytes(layout), quarter, q);
    }
    out->d = load_halves(halves, quarter);
    if (layout->min != QUANT_MIN_NONE) {
        out->dmin = load_halves(halves + TILE_HALVES_BYTES, quarter);
    }
    for (int part = 0; layout->elems > QUANT_BLOCK && part < QUANT_BLOCK / layout->part_elems; part++) {
        out->part[part] = load_scales(layout, block, part, quarter);
    }
}

/* A row's share in a block. */
struct act_block { const int32_t *x; float scale; int32_t sum[2]; /* of each part's codes */ };

INLINE __m256 add_block(const struct quant_layout *layout, const struct quarter *w,
                        const struct act_block *act, __m256 acc)
{
    const int parts = QUANT_BLOCK / layout->part_elems, quads = QUADS / parts;
    const __m256 scale = _mm256_set1_ps(act->scale);
    __m256 value = _mm256_setzero_ps(), min_sum = value;
#pragma GCC unroll 2
    for (int part = 0; part < parts; part++) {
        __m256i dot = dot_quads(layout, w->w + part * quads, act->x + part * quads, quads);
        const __m256i sum = _mm256_set1_epi32(act->sum[part]);
        if (layout->offset != 0 && layout->low_bits < 8) {
            dot = _mm256_sub_epi32(dot, _mm256_slli_epi32(sum, __builtin_ctz((unsigned int)layout->offset)));
        }
        const __m256 f = _mm256_cvtepi32_ps(dot), s = _mm256_cvtepi32_ps(sum);
        if (layout->elems == QUANT_BLOCK) {
            value = f;
            min_sum = s;
        } else {
            value = part == 0 ? _mm256_mul_ps(f, w->part[0].scale)
                              : _mm256_fmadd_ps(f, w->part[part].scale, value);
            min_sum = part == 0 ? _mm256_mul_ps(s, w->part[0].min)
                                : _mm256_fmadd_ps(s, w->part[part].min, min_sum);
        }
    }
    acc = _mm256_fmadd_ps(value, _mm256_mul_ps(w->d, scale), acc);
    if (layout->min == QUANT_MIN_ADDED) {
        acc = _mm256_fmadd_ps(w->dmin, _mm256_mul_ps(scale, min_sum), acc);
    } else if (layout->min == QUANT_MIN_SCALED) {
        acc = _mm256_fnmadd_ps(min_sum, _mm256_mul_ps(w->dmin, scale), acc);
    }
    return acc;
}

INLINE void segment_quantised(enum tensor_type type, const unsigned char *segment, int n_blocks,
                              const unsigned char *act, int m, __m256 acc[][QUARTERS])
{
    const struct quant_layout layout = quant_layout(type);
    const int two = layout.part_elems < QUANT_BLOCK;
    const unsigned char *block = segment + tile_header_bytes(&layout);
    for (int r = 0; r < m; r++) {
        for (int quarter = 0; quarter < QUARTERS; quarter++) {
            acc[r][quarter] = _mm256_setzero_ps();
        }
    }
    for (int b = 0; b < n_blocks; b++) {
        const float *scale = (const float *)(const void *)(act + m * QUANT_BLOCK);
        const int32_t *sum = (const int32_t *)(const void *)(scale + m), *half = sum + m;
        for (int32_t line = 0; line < tile_block_bytes(&layout); line += 64) {
            _mm_prefetch((const char *)block + PREFETCH_BYTES + line, _MM_HINT_T0);
        }
        for (int quarter = 0; quarter < QUARTERS; quarter++) {
            struct quarter w;
            load_quarter(&layout, segment, block, quarter, &w);
            for (int r = 0; r < m; r++) {
                const struct act_block row = {
                    (const int32_t *)(const void *)(act + r * QUANT_BLOCK), scale[r],
                    { two ? half[r] : sum[r], two ? sum[r] - half[r] : 0 },
                };
                acc[r][quarter] = add_block(&layout, &w, &row, acc[r][quarter]);
            }
        }
        block += tile_block_bytes(&layout);
        act += m * ACT_BLOCK_BYTES;
    }
}

#define SEGMENT_INSTANCE(name, type)                                                              \
    static void name(const unsigned char *segment, int n_blocks, const unsigned char *act, int m, \
                     __m256 acc[][QUARTERS])                                                      \
    {                                                                                             \
        segment_quantised(type, segment, n_blocks, act, m, acc);                                  \
    }
SEGMENT_INSTANCE(segment_q8_0, TENSOR_Q8_0)
SEGMENT_INSTANCE(segment_q4_0, TENSOR_Q4_0)
SEGMENT_INSTANCE(segment_q4_1, TENSOR_Q4_1)
SEGMENT_INSTANCE(segment_q5_0, TENSOR_Q5_0)
SEGMENT_INSTANCE(segment_q5_1, TENSOR_Q5_1)
SEGMENT_INSTANCE(segment_q2_k, TENSOR_Q2_K)
SEGMENT_INSTANCE(segment_q3_k, TENSOR_Q3_K)
SEGMENT_INSTANCE(segment_q4_k, TENSOR_Q4_K)
SEGMENT_INSTANCE(segment_q5_k, TENSOR_Q5_K)
SEGMENT_INSTANCE(segment_q6_k, TENSOR_Q6_K)

linear_segment_fn linear_segment_avx2(enum tensor_type type)
{
    switch ((int)type) {
    case TENSOR_Q8_0: return segment_q8_0;
    case TENSOR_Q4_0: return segment_q4_0;
    case TENSOR_Q4_1: return segment_q4_1;
    case TENSOR_Q5_0: return segment_q5_0;
    case TENSOR_Q5_1: return segment_q5_1;
    case TENSOR_Q2_K: return segment_q2_k;
    case TENSOR_Q3_K: return segment_q3_k;
    case TENSOR_Q4_K: return segment_q4_k;
    case TENSOR_Q5_K: return segment_q5_k;
    default: return segment_q6_k;
    }
}
