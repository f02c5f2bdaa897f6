/* linear on AVX2 + FMA: a tile's 32 outputs are four quarters of 8 lanes, a chain never leaves its lane.
 *
 * The int8 dot is maddubs (unsigned x signed, pairs into int16) and madd (pairs into int32). Q4_0
 * codes stay below 16, so eight maddubs sums fit int16; Q8_0 needs |w| x (x with w's sign), whose
 * pairs reach 2 * 128 * 127 and so just fit, one at a time.
 * Definition: linear_scalar.c. Plan: exact.
 */
#include <immintrin.h>

#include "backend/cpu/linear.h"

#define INLINE static inline __attribute__((always_inline))

enum { PREFETCH_BYTES = 8192, QUARTERS = 4 };

struct row_sums { __m256 group[LINEAR_MAX_ROWS][QUARTERS], total[LINEAR_MAX_ROWS][QUARTERS]; };

INLINE __m256i load_ymm(const void *p) { return _mm256_load_si256((const __m256i *)p); }

/* ---- quantised ---- */

/* int32 dots of 8 outputs with one row's 32 codes; the stored offset is not yet taken off */
INLINE __m256i dot_q4(const __m256i w[8], const int32_t *x)
{
    __m256i pairs = _mm256_maddubs_epi16(w[0], _mm256_set1_epi32(x[0]));
#pragma GCC unroll 8
    for (int i = 1; i < 8; i++) {
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[i], _mm256_set1_epi32(x[i])));
    }
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* w signed here; exact without an offset */
INLINE __m256i dot_q8(const __m256i w[8], const int32_t *x)
{
    const __m256i one = _mm256_set1_epi16(1);
    __m256i dot = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const __m256i signed_x = _mm256_sign_epi8(_mm256_set1_epi32(x[i]), w[i]);
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), signed_x);
        dot = _mm256_add_epi32(dot, _mm256_madd_epi16(pairs, one));
    }
    return dot;
}

INLINE void load_quarter(enum tensor_type type, const unsigned char *codes, int quarter, __m256i w[8])
{
    if (type == TENSOR_Q8_0) {
        const __m256i flip = _mm256_set1_epi8((char)0x80);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            w[i] = _mm256_xor_si256(load_ymm(codes + i * TILE_GROUP_BYTES + quarter * 32), flip);
        }
        return;
    }
    const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m256i both = load_ymm(codes + i * TILE_GROUP_BYTES + quarter * 32);
        w[i] = _mm256_and_si256(both, low);
        w[i + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
    }
}

INLINE void segment_quantised(enum tensor_type type, const unsigned char *segment, int n_blocks,
                              const unsigned char *act, int m, __m256 acc[][QUARTERS])
{
    const unsigned char *block = segment;
    for (int r = 0; r < m; r++) {
        for (int quarter = 0; quarter < QUARTERS; quarter++) {
            acc[r][quarter] = _mm256_setzero_ps();
        }
    }
    for (int b = 0; b < n_blocks; b++) {
        const float *scale = (const float *)(const void *)(act + m * QUANT_BLOCK);
        const int32_t *sum = (const int32_t *)(const void *)(act + m * (QUANT_BLOCK + 4));
        for (size_t line = 0; line < tile_block_bytes(type); line += 64) {
            _mm_prefetch((const char *)block + PREFETCH_BYTES + line, _MM_HINT_T0);
        }
        for (int quarter = 0; quarter < QUARTERS; quarter++) {
            __m256i w[8];
            load_quarter(type, block + TILE_SCALE_BYTES, quarter, w);
            const __m256 weight_scale = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)(block + quarter * 16)));
            for (int r = 0; r < m; r++) {
                const int32_t *x = (const int32_t *)(const void *)(act + r * QUANT_BLOCK);
                const __m256i dot =
                    type == TENSOR_Q8_0
                        ? dot_q8(w, x)
                        : _mm256_sub_epi32(dot_q4(w, x), _mm256_slli_epi32(_mm256_set1_epi32(sum[r]), 3));
                acc[r][quarter] = _mm256_fmadd_ps(
                    _mm256_cvtepi32_ps(dot), _mm256_mul_ps(weight_scale, _mm256_set1_ps(scale[r])),
                    acc[r][quarter]);
            }
        }
        block += tile_block_bytes(type);
        act += m * ACT_BLOCK_BYTES;
    }
}

static void segment_q8(const unsigned char *segment, int n_blocks, const unsigned char *act, int m,
                       __m256 acc[][QUARTERS])
{
    segment_quantised(TENSOR_Q8_0, segment, n_blocks, act, m, acc);
}

static void segment_q4(const unsigned char *segment, int n_blocks, const unsigned char *act, int m,
                       __m256 acc[][QUARTERS])
{
    segment_quantised(TENSOR_Q4_0, segment, n_blocks, act, m, acc);
}

/* ---- float ---- */

INLINE __m256 load_float(enum tensor_type type, const unsigned char *tile, size_t input, int quarter)
{
    if (type == TENSOR_F32) {
        return _mm256_load_ps((const float *)(const void *)(tile + input * 128 + quarter * 32));
    }
    const __m128i h =
        _mm_load_si128((const __m128i *)(const void *)(tile + input * 64 + quarter * 16));
    return type == TENSOR_F16
               ? _mm256_cvtph_ps(h)
               : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE void segment_float_type(enum tensor_type type, const unsigned char *tile,
                               const float *const *x, size_t begin, size_t len, int m,
                               __m256 acc[][QUARTERS])
{
    __m256 sums[2][QUARTERS];
#pragma GCC unroll 2
    for (int r = 0; r < m; r++) {
#pragma GCC unroll 4
        for (int q = 0; q < QUARTERS; q++) {
            sums[r][q] = _mm256_setzero_ps();
        }
    }
    for (size_t i = begin; i < begin + len; i++) {
#pragma GCC unroll 4
        for (int q = 0; q < QUARTERS; q++) {
            const __m256 w = load_float(type, tile, i, q);
#pragma GCC unroll 2
            for (int r = 0; r < m; r++) {
                sums[r][q] = _mm256_fmadd_ps(w, _mm256_set1_ps(x[r][i]), sums[r][q]);
            }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < m; r++) {
#pragma GCC unroll 4
        for (int q = 0; q < QUARTERS; q++) {
            acc[r][q] = sums[r][q];
        }
    }
}

#define FLOAT_INSTANCE(name, type)                                                              \
    static void name(const unsigned char *tile, const float *const *x, size_t begin, size_t len, \
                     int m, __m256 acc[][QUARTERS])                                               \
    {                                                                                           \
        if (m == 2) {                                                                           \
            segment_float_type(type, tile, x, begin, len, 2, acc);                              \
        } else {                                                                                \
            segment_float_type(type, tile, x, begin, len, 1, acc);                              \
        }                                                                                       \
    }
FLOAT_INSTANCE(segment_f32, TENSOR_F32)
FLOAT_INSTANCE(segment_f16, TENSOR_F16)
FLOAT_INSTANCE(segment_bf16, TENSOR_BF16)

static void segment_float(const struct linear_job *job, int32_t segment, __m256 acc[][QUARTERS])
{
    const size_t begin = (size_t)segment * SEGMENT_ELEMS, n_in = (size_t)job->n_in;
    const size_t len = n_in - begin < SEGMENT_ELEMS ? n_in - begin : SEGMENT_ELEMS;
    for (int32_t row = 0, m; row < job->n_rows; row += m) {
        const int32_t left = job->n_rows - row;
        m = left >= 2 ? 2 : 1;
        const float *x[2];
        for (int32_t r = 0; r < m; r++) {
            x[r] = job->x->f32 + (size_t)(job->first_row + row + r) * n_in;
        }
        if (job->type == TENSOR_F32) {
            segment_f32(job->tile, x, begin, len, m, acc + row);
        } else if (job->type == TENSOR_F16) {
            segment_f16(job->tile, x, begin, len, m, acc + row);
        } else {
            segment_bf16(job->tile, x, begin, len, m, acc + row);
        }
    }
}

/* ---- sums in the canonical order ---- */

static void segment_panels(const struct linear_job *job, const unsigned char *segment, int32_t s,
                           int32_t here, __m256 acc[][QUARTERS])
{
    for (int32_t row = 0; row < job->n_rows; row += PANEL_ROWS) {
        const int32_t panel = (job->first_row + row) / PANEL_ROWS;
        const int32_t m = tile_panel_rows(job->act_rows, panel);
        const unsigned char *act =
            tile_panel(job->x, panel) + (size_t)(s * SEGMENT_BLOCKS * m) * ACT_BLOCK_BYTES;
        if (job->type == TENSOR_Q8_0) {
            segment_q8(segment, here, act, m, acc + row);
        } else {
            segment_q4(segment, here, act, m, acc + row);
        }
    }
}

static void run_segments(const struct linear_job *job, struct row_sums *sums)
{
    const int quantised = backend_act_kind(job->type) == ACT_Q8;
    const int32_t n_segments = (job->n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS;
    const unsigned char *segment = job->tile;
    int32_t group = 0;
    __m256 acc[LINEAR_MAX_ROWS][QUARTERS];
    for (int32_t s = 0; s < n_segments; s++) {
        if (quantised) {
            const int32_t left = job->n_in / QUANT_BLOCK - s * SEGMENT_BLOCKS;
            const int32_t here = left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS;
            segment_panels(job, segment, s, here, acc);
            segment += (size_t)here * tile_block_bytes(job->type);
        } else {
            segment_float(job, s, acc);
        }
        const int ends = linear_group_ends(&group, s, n_segments);
        for (int32_t r = 0; r < job->n_rows; r++) {
            for (int q = 0; q < QUARTERS; q++) {
                sums->group[r][q] = _mm256_add_ps(sums->group[r][q], acc[r][q]);
                if (ends) {
                    sums->total[r][q] = _mm256_add_ps(sums->total[r][q], sums->group[r][q]);
                    sums->group[r][q] = _mm256_setzero_ps();
                }
            }
        }
    }
}

void linear_tile_avx2(const struct linear_job *job)
{
    struct row_sums sums;
    for (int32_t r = 0; r < job->n_rows; r++) {
        for (int q = 0; q < QUARTERS; q++) {
            sums.group[r][q] = sums.total[r][q] = _mm256_setzero_ps();
        }
    }
    run_segments(job, &sums);
    for (int32_t r = 0; r < job->n_rows; r++) {
        float total[TILE_OUTPUTS];
        for (int q = 0; q < QUARTERS; q++) {
            _mm256_storeu_ps(total + q * 8, sums.total[r][q]);
        }
        for (int32_t lane = 0; lane < job->n_valid; lane++) {
            const size_t at = (size_t)r * job->out_stride + (size_t)lane;
            float y = total[lane];
            y = job->bias ? y + job->bias[lane] : y;
            y = job->add ? y + job->add[at] : y;
            job->out[at] = y;
        }
    }
}
