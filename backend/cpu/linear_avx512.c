/* linear on AVX-512 with VNNI: one register holds 16 outputs, a chain never leaves its lane.
 *
 * Bound: one row waits for memory (weights are read once, in one stream, prefetched a few KB ahead);
 * from about four rows on the dot-product units bind: a block of 32 inputs x 16 outputs x 1 row is 8
 * vpdpbusd plus 2 float operations, with the activations as memory broadcasts. Weights are loaded
 * (and unpacked) once for up to 8 rows of a panel and stay in registers.
 * Definition: linear_scalar.c. Plan: exact.
 */
#include <immintrin.h>

#include "backend/cpu/linear.h"

#define INLINE static inline __attribute__((always_inline))

enum { PREFETCH_BYTES = 8192 };

/* Partial sums of the rows of one call, one register of 16 outputs each. */
struct row_sums { __m512 group[LINEAR_MAX_ROWS], total[LINEAR_MAX_ROWS]; };

/* ---- quantised: one segment of n_blocks blocks, M rows ---- */

INLINE void load_codes_q8(const unsigned char *codes, __m512i w[8])
{
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        w[i] = _mm512_load_si512(codes + i * 64);
    }
}

INLINE void load_codes_q4(const unsigned char *codes, __m512i w[8])
{
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512i both = _mm512_load_si512(codes + i * 64);
        w[i] = _mm512_and_si512(both, low);
        w[i + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
}

INLINE void prefetch_lines(const unsigned char *from, int n_lines)
{
#pragma GCC unroll 8
    for (int i = 0; i < n_lines; i++) {
        _mm_prefetch((const char *)from + i * 64, _MM_HINT_T0);
    }
}

/* acc[r] over the segment; `ahead` is 0 when the weights are known to be in cache. */
INLINE void segment_quantised(enum tensor_type type, const unsigned char *segment, int n_blocks,
                              const unsigned char *act, int m, size_t ahead, __m512 *acc)
{
    const unsigned int offset_shift = type == TENSOR_Q8_0 ? 7 : 3; /* codes are stored + 128 or + 8 */
    const size_t code_bytes = type == TENSOR_Q8_0 ? 512 : 256;
    const unsigned char *codes = segment + tile_scales_bytes(n_blocks);
#pragma GCC unroll 8
    for (int r = 0; r < m; r++) {
        acc[r] = _mm512_setzero_ps();
    }
    for (int b = 0; b < n_blocks; b++) {
        __m512i w[8];
        if (type == TENSOR_Q8_0) {
            load_codes_q8(codes, w);
        } else {
            load_codes_q4(codes, w);
        }
        if (ahead > 0) {
            prefetch_lines(codes + ahead, (int)(code_bytes / 64));
        }
        const __m512 weight_scale =
            _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(const void *)(segment + b * 32)));
        const float *scale = (const float *)(const void *)(act + m * QUANT_BLOCK);
        const int32_t *sum = (const int32_t *)(const void *)(act + m * (QUANT_BLOCK + 4));
#pragma GCC unroll 8
        for (int r = 0; r < m; r++) {
            const int32_t *x = (const int32_t *)(const void *)(act + r * QUANT_BLOCK);
            const __m512i offset = _mm512_slli_epi32(_mm512_set1_epi32(sum[r]), offset_shift);
            __m512i dot = _mm512_setzero_si512();
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                dot = _mm512_dpbusd_epi32(dot, w[i], _mm512_set1_epi32(x[i]));
            }
            dot = _mm512_sub_epi32(dot, offset);
            acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot),
                                     _mm512_mul_ps(weight_scale, _mm512_set1_ps(scale[r])), acc[r]);
        }
        codes += code_bytes;
        act += m * ACT_BLOCK_BYTES;
    }
}

/* One instance per number of rows, so that the row loop unrolls and accumulators stay in registers. */
typedef void (*segment_fn)(const unsigned char *segment, int n_blocks, const unsigned char *act,
                           size_t ahead, __m512 *acc);
#define SEGMENT_INSTANCE(name, type, m)                                                         \
    static void name##_##m(const unsigned char *segment, int n_blocks, const unsigned char *act, \
                           size_t ahead, __m512 *acc)                                           \
    {                                                                                           \
        __m512 sums[m];                                                                         \
        if (ahead > 0) {                                                                        \
            segment_quantised(type, segment, n_blocks, act, m, PREFETCH_BYTES, sums);           \
        } else {                                                                                \
            segment_quantised(type, segment, n_blocks, act, m, 0, sums);                        \
        }                                                                                       \
        for (int r = 0; r < (m); r++) {                                                         \
            acc[r] = sums[r];                                                                   \
        }                                                                                       \
    }
#define SEGMENT_FAMILY(name, type)                                                             \
    SEGMENT_INSTANCE(name, type, 1)                                                            \
    SEGMENT_INSTANCE(name, type, 2)                                                            \
    SEGMENT_INSTANCE(name, type, 3)                                                            \
    SEGMENT_INSTANCE(name, type, 4)                                                            \
    SEGMENT_INSTANCE(name, type, 5)                                                            \
    SEGMENT_INSTANCE(name, type, 6)                                                            \
    SEGMENT_INSTANCE(name, type, 7)                                                            \
    SEGMENT_INSTANCE(name, type, 8)                                                            \
    static const segment_fn name##_table[PANEL_ROWS + 1] = {                                   \
        NULL,     name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7, name##_8 \
    };
SEGMENT_FAMILY(segment_q8, TENSOR_Q8_0)
SEGMENT_FAMILY(segment_q4, TENSOR_Q4_0)

/* ---- float: one segment, M rows x S segments at once so that enough chains are in flight ---- */

INLINE __m512 load_float(enum tensor_type type, const unsigned char *tile, size_t input)
{
    if (type == TENSOR_F32) {
        return _mm512_load_ps(tile + input * 64);
    }
    const __m256i half = _mm256_load_si256((const __m256i *)(const void *)(tile + input * 32));
    return type == TENSOR_F16
               ? _mm512_cvtph_ps(half)
               : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* acc[s * m + r]: rows x[r], segments starting at `begin`, each `len` long */
INLINE void segments_float(enum tensor_type type, const unsigned char *tile, const float *const *x,
                           size_t begin, size_t len, int m, int n_segments, __m512 *acc)
{
    __m512 sums[16];
#pragma GCC unroll 16
    for (int i = 0; i < m * n_segments; i++) {
        sums[i] = _mm512_setzero_ps();
    }
    for (size_t i = begin; i < begin + len; i++) {
#pragma GCC unroll 4
        for (int s = 0; s < n_segments; s++) {
            const size_t at = i + (size_t)s * SEGMENT_ELEMS;
            const __m512 w = load_float(type, tile, at);
#pragma GCC unroll 8
            for (int r = 0; r < m; r++) {
                sums[s * m + r] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[r][at]), sums[s * m + r]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < m * n_segments; i++) {
        acc[i] = sums[i];
    }
}

#define FLOAT_CASE(type, m, s) \
    segments_float(type, tile, x, begin, len, m, s, acc); \
    break
#define FLOAT_INSTANCE(name, type)                                                                \
    static void name(const unsigned char *tile, const float *const *x, size_t begin, size_t len,  \
                     int m, int n_segments, __m512 *acc)                                          \
    {                                                                                             \
        switch (m * 8 + n_segments) {                                                             \
        case 1 * 8 + 4: FLOAT_CASE(type, 1, 4);                                                   \
        case 1 * 8 + 1: FLOAT_CASE(type, 1, 1);                                                   \
        case 2 * 8 + 4: FLOAT_CASE(type, 2, 4);                                                   \
        case 2 * 8 + 1: FLOAT_CASE(type, 2, 1);                                                   \
        case 4 * 8 + 4: FLOAT_CASE(type, 4, 4);                                                   \
        case 4 * 8 + 1: FLOAT_CASE(type, 4, 1);                                                   \
        case 8 * 8 + 1: FLOAT_CASE(type, 8, 1);                                                   \
        default: ASSERT(!"no such float instance");                                               \
        }                                                                                         \
    }
FLOAT_INSTANCE(float_f32, TENSOR_F32)
FLOAT_INSTANCE(float_f16, TENSOR_F16)
FLOAT_INSTANCE(float_bf16, TENSOR_BF16)

static void float_dispatch(const struct linear_job *job, const float *const *x, int32_t segment,
                           int m, int n_segments, __m512 *acc)
{
    const size_t begin = (size_t)segment * SEGMENT_ELEMS, n_in = (size_t)job->n_in;
    const size_t len = n_in - begin < SEGMENT_ELEMS ? n_in - begin : SEGMENT_ELEMS;
    if (job->type == TENSOR_F32) {
        float_f32(job->tile, x, begin, len, m, n_segments, acc);
    } else if (job->type == TENSOR_F16) {
        float_f16(job->tile, x, begin, len, m, n_segments, acc);
    } else {
        float_bf16(job->tile, x, begin, len, m, n_segments, acc);
    }
}

/* ---- sums in the canonical order ---- */

INLINE void add_segment(struct row_sums *sums, int32_t row, __m512 segment)
{
    sums->group[row] = _mm512_add_ps(sums->group[row], segment);
}

static void end_group(struct row_sums *sums, int32_t n_rows)
{
    for (int32_t r = 0; r < n_rows; r++) {
        sums->total[r] = _mm512_add_ps(sums->total[r], sums->group[r]);
        sums->group[r] = _mm512_setzero_ps();
    }
}

static void run_quantised(const struct linear_job *job, struct row_sums *sums)
{
    const segment_fn *table = job->type == TENSOR_Q8_0 ? segment_q8_table : segment_q4_table;
    const int32_t n_blocks = job->n_in / QUANT_BLOCK;
    const int32_t n_segments = (n_blocks + SEGMENT_BLOCKS - 1) / SEGMENT_BLOCKS;
    const int32_t first_panel = job->first_row / PANEL_ROWS;
    const unsigned char *segment = job->tile;
    int32_t group = 0;
    for (int32_t s = 0; s < n_segments; s++) {
        const int32_t left = n_blocks - s * SEGMENT_BLOCKS;
        const int32_t here = left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS;
        for (int32_t row = 0; row < job->n_rows; row += PANEL_ROWS) {
            const int32_t panel = first_panel + row / PANEL_ROWS;
            const int32_t m = tile_panel_rows(job->act_rows, panel);
            const unsigned char *act = tile_panel(job->x, panel) +
                                       (size_t)(s * SEGMENT_BLOCKS * m) * ACT_BLOCK_BYTES;
            __m512 acc[PANEL_ROWS];
            table[m](segment, here, act, row == 0 && job->first_row == 0, acc);
            for (int32_t r = 0; r < m; r++) {
                add_segment(sums, row + r, acc[r]);
            }
        }
        if (linear_group_ends(&group, s, n_segments)) {
            end_group(sums, job->n_rows);
        }
        segment += tile_segment_bytes(job->type, here);
    }
}

static void run_float(const struct linear_job *job, struct row_sums *sums)
{
    const int32_t n_segments = (job->n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS;
    int32_t group = 0, at_once = 1;
    for (int32_t s = 0; s < n_segments; s += at_once) {
        const int32_t whole = job->n_in / SEGMENT_ELEMS - s;
        at_once = job->n_rows <= 4 && whole >= 4 ? 4 : 1;
        __m512 acc[16 * LINEAR_MAX_ROWS / 4];
        for (int32_t row = 0, m; row < job->n_rows; row += m) {
            const int32_t left = job->n_rows - row;
            m = left >= 8 && at_once == 1 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            const float *x[PANEL_ROWS];
            for (int32_t r = 0; r < m; r++) {
                x[r] = job->x->f32 + (size_t)(job->first_row + row + r) * (size_t)job->n_in;
            }
            __m512 part[16];
            float_dispatch(job, x, s, m, at_once, part);
            for (int32_t i = 0; i < m * at_once; i++) {
                acc[(i / m) * job->n_rows + row + i % m] = part[i];
            }
        }
        for (int32_t k = 0; k < at_once; k++) {
            for (int32_t r = 0; r < job->n_rows; r++) {
                add_segment(sums, r, acc[k * job->n_rows + r]);
            }
            if (linear_group_ends(&group, s + k, n_segments)) {
                end_group(sums, job->n_rows);
            }
        }
    }
}

void linear_tile_avx512(const struct linear_job *job)
{
    struct row_sums sums;
    const __mmask16 valid = (__mmask16)((1u << job->n_valid) - 1u);
    for (int32_t r = 0; r < job->n_rows; r++) {
        sums.group[r] = sums.total[r] = _mm512_setzero_ps();
    }
    if (backend_act_kind(job->type) == ACT_Q8) {
        run_quantised(job, &sums);
    } else {
        run_float(job, &sums);
    }
    for (int32_t r = 0; r < job->n_rows; r++) {
        const size_t at = (size_t)r * job->out_stride;
        __m512 y = sums.total[r];
        if (job->bias) {
            y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(valid, job->bias));
        }
        if (job->add) {
            y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(valid, job->add + at));
        }
        _mm512_mask_storeu_ps(job->out + at, valid, y);
    }
}
