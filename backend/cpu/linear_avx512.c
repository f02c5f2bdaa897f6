/* linear on AVX-512 with VNNI: a tile's 32 outputs are two registers, a chain never leaves its lane.
 *
 * Bound: one row waits for memory (weights are read once, in one ascending stream; the prefetches ascend with
 * it, 8 KB ahead, because hardware follows them); from about four rows on the dot-product units bind. A block of 32 inputs x 32 outputs x M rows is 16 M
 * vpdpbusd; every activation broadcast from memory serves both registers, which keeps the two load
 * ports below the two dot-product pipes. Up to six rows fit the register file at once (12 integer and
 * 12 float accumulators); seven and eight go as two calls, the segment's weights then in L1.
 * Definition: linear_scalar.c. Plan: exact.
 */
#include <immintrin.h>

#include "backend/cpu/linear.h"

#define INLINE static inline __attribute__((always_inline))

enum { PREFETCH_BYTES = 8192, HALVES = 2, MAX_ROWS = 6, REGISTER_BYTES = 64 };

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

/* Rows of one panel from a block on: codes 32 bytes apart, scales and sums 4; blocks stride apart. */
struct act_rows {
    const unsigned char *codes, *scales, *sums;
    size_t stride;
};

/* ---- quantised: one segment, M rows ---- */

/* dot[half][row] += w[half] . x[row] for group `group` of four inputs */
INLINE void dot_group(const __m512i w[HALVES], const unsigned char *codes, int group, int m,
                      __m512i dot[][HALVES])
{
#pragma GCC unroll 6
    for (int r = 0; r < m; r++) {
        const int32_t *x = (const int32_t *)(const void *)(codes + r * QUANT_BLOCK);
        const __m512i v = _mm512_set1_epi32(x[group]);
        dot[r][0] = _mm512_dpbusd_epi32(dot[r][0], w[0], v);
        dot[r][1] = _mm512_dpbusd_epi32(dot[r][1], w[1], v);
    }
}

/* What to do about lines further on: nothing (they are in cache), fetch them to stay, or fetch them
 * past the second-level cache because no later row will want them. */
enum ahead { AHEAD_NONE, AHEAD_STAY, AHEAD_PASS };

/* volatile: the compiler would gather the prefetches of a block into one burst */
INLINE void fetch_ahead(const unsigned char *line, enum ahead ahead)
{
    if (ahead == AHEAD_STAY) {
        __asm__ volatile("prefetcht0 %0" : : "m"(*(line + PREFETCH_BYTES)));
    } else if (ahead == AHEAD_PASS) {
        __asm__ volatile("prefetchnta %0" : : "m"(*(line + PREFETCH_BYTES)));
    }
}

INLINE void load_group(const unsigned char *codes, int group, enum ahead ahead, __m512i w[HALVES])
{
    const unsigned char *at = codes + group * TILE_GROUP_BYTES;
    w[0] = _mm512_load_si512(at);
    w[1] = _mm512_load_si512(at + REGISTER_BYTES);
    fetch_ahead(at, ahead);
    fetch_ahead(at + REGISTER_BYTES, ahead);
}

INLINE void block_dots(enum tensor_type type, const unsigned char *codes, const unsigned char *x,
                       int m, enum ahead ahead, __m512i dot[][HALVES])
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512i w[HALVES], high[HALVES];
    if (type == TENSOR_Q8_0) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            load_group(codes, i, ahead, w);
            dot_group(w, x, i, m, dot);
        }
        return;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        load_group(codes, i, ahead, w);
        for (int h = 0; h < HALVES; h++) {
            high[h] = _mm512_and_si512(_mm512_srli_epi16(w[h], 4), low);
            w[h] = _mm512_and_si512(w[h], low);
        }
        dot_group(w, x, i, m, dot);
        dot_group(high, x, i + 4, m, dot);
    }
}

INLINE void segment_quantised(enum tensor_type type, const unsigned char *block, int n_blocks,
                              const struct act_rows *act, int m, enum ahead ahead,
                              const struct place *out)
{
    const unsigned int offset_shift = type == TENSOR_Q8_0 ? 7 : 3; /* codes are stored + 128, + 8 */
    struct act_rows x = *act;
    __m512 acc[MAX_ROWS][HALVES];
#pragma GCC unroll 6
    for (int r = 0; r < m; r++) {
        acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    }
    for (int b = 0; b < n_blocks; b++) {
        __m512i dot[MAX_ROWS][HALVES];
#pragma GCC unroll 6
        for (int r = 0; r < m; r++) {
            dot[r][0] = dot[r][1] = _mm512_setzero_si512();
        }
        fetch_ahead(block, ahead);
        block_dots(type, block + TILE_SCALE_BYTES, x.codes, m, ahead, dot);
        const __m256i *scales = (const __m256i *)(const void *)block;
        const __m512 w_scale[HALVES] = { _mm512_cvtph_ps(_mm256_load_si256(scales)),
                                         _mm512_cvtph_ps(_mm256_load_si256(scales + 1)) };
#pragma GCC unroll 6
        for (int r = 0; r < m; r++) {
            const __m512i sum = _mm512_set1_epi32(((const int32_t *)(const void *)x.sums)[r]);
            const __m512i offset = _mm512_slli_epi32(sum, offset_shift);
            const __m512 scale = _mm512_set1_ps(((const float *)(const void *)x.scales)[r]);
#pragma GCC unroll 2
            for (int h = 0; h < HALVES; h++) {
                const __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(dot[r][h], offset));
                acc[r][h] = _mm512_fmadd_ps(value, _mm512_mul_ps(w_scale[h], scale), acc[r][h]);
            }
        }
        block += tile_block_bytes(type);
        x.codes += x.stride;
        x.scales += x.stride;
        x.sums += x.stride;
    }
    add_segment(out, m, acc);
}

/* One instance per number of rows, so that loops unroll and accumulators stay in registers. */
typedef void (*segment_fn)(const unsigned char *segment, int n_blocks, const struct act_rows *act,
                           enum ahead ahead, const struct place *out);
#define SEGMENT_INSTANCE(name, type, m)                                                      \
    static void name##_##m(const unsigned char *segment, int n_blocks,                      \
                           const struct act_rows *act, enum ahead ahead, const struct place *out) \
    {                                                                                        \
        if (ahead == AHEAD_PASS) {                                                           \
            segment_quantised(type, segment, n_blocks, act, m, AHEAD_PASS, out);             \
        } else if (ahead == AHEAD_STAY) {                                                    \
            segment_quantised(type, segment, n_blocks, act, m, AHEAD_STAY, out);             \
        } else {                                                                             \
            segment_quantised(type, segment, n_blocks, act, m, AHEAD_NONE, out);             \
        }                                                                                    \
    }
#define SEGMENT_FAMILY(name, type)                                                             \
    SEGMENT_INSTANCE(name, type, 1)                                                            \
    SEGMENT_INSTANCE(name, type, 2)                                                            \
    SEGMENT_INSTANCE(name, type, 3)                                                            \
    SEGMENT_INSTANCE(name, type, 4)                                                            \
    SEGMENT_INSTANCE(name, type, 5)                                                            \
    SEGMENT_INSTANCE(name, type, 6)                                                            \
    static const segment_fn name##_table[MAX_ROWS + 1] = { NULL,     name##_1, name##_2, name##_3, \
                                                           name##_4, name##_5, name##_6 };
SEGMENT_FAMILY(segment_q8, TENSOR_Q8_0)
SEGMENT_FAMILY(segment_q4, TENSOR_Q4_0)

/* ---- float: one segment, M rows ---- */

INLINE __m512 load_float(enum tensor_type type, const unsigned char *tile, size_t input, int half)
{
    if (type == TENSOR_F32) {
        return _mm512_load_ps(tile + (input * HALVES + (size_t)half) * 64);
    }
    const __m256i narrow = _mm256_load_si256(
        (const __m256i *)(const void *)(tile + (input * HALVES + (size_t)half) * 32));
    return type == TENSOR_F16
               ? _mm512_cvtph_ps(narrow)
               : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}

INLINE void segment_float(enum tensor_type type, const unsigned char *tile, const float *const *x,
                          size_t begin, size_t len, int m, const struct place *out)
{
    __m512 acc[PANEL_ROWS][HALVES];
    const size_t element_bytes = type == TENSOR_F32 ? 4 : 2;
#pragma GCC unroll 8
    for (int r = 0; r < m; r++) {
        acc[r][0] = acc[r][1] = _mm512_setzero_ps();
    }
    for (size_t i = begin; i < begin + len; i++) {
        const __m512 w0 = load_float(type, tile, i, 0), w1 = load_float(type, tile, i, 1);
        const unsigned char *ahead = tile + i * TILE_OUTPUTS * element_bytes + PREFETCH_BYTES;
        _mm_prefetch((const char *)ahead, _MM_HINT_T0);
        if (type == TENSOR_F32) {
            _mm_prefetch((const char *)ahead + 64, _MM_HINT_T0);
        }
#pragma GCC unroll 8
        for (int r = 0; r < m; r++) {
            const __m512 v = _mm512_set1_ps(x[r][i]);
            acc[r][0] = _mm512_fmadd_ps(w0, v, acc[r][0]);
            acc[r][1] = _mm512_fmadd_ps(w1, v, acc[r][1]);
        }
    }
    add_segment(out, m, acc);
}

#define FLOAT_INSTANCE(name, type)                                                              \
    static void name(const unsigned char *tile, const float *const *x, size_t begin, size_t len, \
                     int m, const struct place *out)                                            \
    {                                                                                           \
        switch (m) {                                                                            \
        case 8: segment_float(type, tile, x, begin, len, 8, out); break;                        \
        case 4: segment_float(type, tile, x, begin, len, 4, out); break;                        \
        case 2: segment_float(type, tile, x, begin, len, 2, out); break;                        \
        default: segment_float(type, tile, x, begin, len, 1, out); break;                       \
        }                                                                                       \
    }
FLOAT_INSTANCE(segment_f32, TENSOR_F32)
FLOAT_INSTANCE(segment_f16, TENSOR_F16)
FLOAT_INSTANCE(segment_bf16, TENSOR_BF16)

/* ---- a tile ---- */

/* All rows of panel `panel` over one segment; row: the panel's first row within the job. */
static void panel_segment(const struct linear_job *job, const struct place *place,
                          const unsigned char *segment, int32_t first_block, int32_t n)
{
    static const int32_t at_once[PANEL_ROWS + 1] = { 0, 1, 2, 3, 4, 5, 6, 4, 4 };
    const segment_fn *table = job->type == TENSOR_Q8_0 ? segment_q8_table : segment_q4_table;
    const int32_t panel = (job->first_row + place->row) / PANEL_ROWS;
    const int32_t m = tile_panel_rows(job->act_rows, panel);
    const unsigned char *block =
        tile_panel(job->x, panel) + (size_t)(first_block * m) * ACT_BLOCK_BYTES;
    for (int32_t r0 = 0, rows; r0 < m; r0 += rows) {
        rows = at_once[m] < m - r0 ? at_once[m] : m - r0;
        const struct act_rows act = {
            .codes = block + r0 * QUANT_BLOCK,
            .scales = block + m * QUANT_BLOCK + r0 * 4,
            .sums = block + m * (QUANT_BLOCK + 4) + r0 * 4,
            .stride = (size_t)m * ACT_BLOCK_BYTES,
        };
        struct place here = *place;
        here.row += r0;
        const enum ahead ahead = here.row + job->first_row > 0 ? AHEAD_NONE
                                 : job->act_rows > job->n_rows ? AHEAD_STAY
                                                               : AHEAD_PASS;
        table[rows](segment, n, &act, ahead, &here);
    }
}

static void run_quantised(const struct linear_job *job, struct row_sums *sums)
{
    const int32_t n_blocks = job->n_in / QUANT_BLOCK;
    const int32_t n_segments = (n_blocks + SEGMENT_BLOCKS - 1) / SEGMENT_BLOCKS;
    const unsigned char *segment = job->tile;
    struct place place = { .sums = sums, .begins = 1 };
    int32_t group = 0;
    for (int32_t s = 0; s < n_segments; s++) {
        const int32_t first = s * SEGMENT_BLOCKS, left = n_blocks - first;
        const int32_t here = left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS;
        place.ends = linear_group_ends(&group, s, n_segments);
        for (place.row = 0; place.row < job->n_rows; place.row += PANEL_ROWS) {
            panel_segment(job, &place, segment, first, here);
        }
        place.begins = place.ends;
        segment += (size_t)here * tile_block_bytes(job->type);
    }
}

static void run_float(const struct linear_job *job, struct row_sums *sums)
{
    const size_t n_in = (size_t)job->n_in;
    const int32_t n_segments = (job->n_in + SEGMENT_ELEMS - 1) / SEGMENT_ELEMS;
    struct place place = { .sums = sums, .begins = 1 };
    int32_t group = 0;
    for (int32_t s = 0; s < n_segments; s++) {
        const size_t begin = (size_t)s * SEGMENT_ELEMS;
        const size_t len = n_in - begin < SEGMENT_ELEMS ? n_in - begin : SEGMENT_ELEMS;
        place.ends = linear_group_ends(&group, s, n_segments);
        place.row = 0;
        for (int32_t m; place.row < job->n_rows; place.row += m) {
            const int32_t left = job->n_rows - place.row;
            m = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
            const float *x[PANEL_ROWS];
            for (int32_t r = 0; r < m; r++) {
                x[r] = job->x->f32 + (size_t)(job->first_row + place.row + r) * n_in;
            }
            if (job->type == TENSOR_F32) {
                segment_f32(job->tile, x, begin, len, m, &place);
            } else if (job->type == TENSOR_F16) {
                segment_f16(job->tile, x, begin, len, m, &place);
            } else {
                segment_bf16(job->tile, x, begin, len, m, &place);
            }
        }
        place.begins = place.ends;
    }
}

/* Rows of the output lie far apart: ask for their lines now, they will be there when written. */
static void fetch_outputs(const struct linear_job *job)
{
    for (int32_t r = 0; r < job->n_rows; r++) {
        const float *out = job->out + (size_t)r * job->out_stride;
        __builtin_prefetch(out, 1);
        __builtin_prefetch(out + 16, 1);
    }
}

void linear_tile_avx512(const struct linear_job *job)
{
    struct row_sums sums;
    fetch_outputs(job);
    for (int32_t r = 0; r < job->n_rows; r++) {
        for (int h = 0; h < HALVES; h++) {
            sums.total[r][h] = _mm512_setzero_ps();
        }
    }
    if (backend_act_kind(job->type) == ACT_Q8) {
        run_quantised(job, &sums);
    } else {
        run_float(job, &sums);
    }
    const uint32_t valid = job->n_valid == 32 ? UINT32_MAX : (1u << job->n_valid) - 1u;
    for (int32_t r = 0; r < job->n_rows; r++) {
        for (int h = 0; h < HALVES; h++) {
            const __mmask16 mask = (__mmask16)(valid >> (16 * h));
            const size_t at = (size_t)r * job->out_stride + (size_t)h * 16;
            __m512 y = sums.total[r][h];
            if (job->bias) {
                y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, job->bias + h * 16));
            }
            if (job->add) {
                y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, job->add + at));
            }
            _mm512_mask_storeu_ps(job->out + at, mask, y);
        }
    }
}
