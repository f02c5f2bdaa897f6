/* linear on AVX2 + FMA: a tile's 32 outputs are four quarters of 8 lanes, a chain never leaves its lane.
 * Float segments, and the walk over a tile's segments; quantised ones are in linear_quant_avx2.c.
 * Definition: linear_scalar.c. Plan: exact.
 */
#include "backend/cpu/linear_avx2.h"

struct row_sums { __m256 group[LINEAR_MAX_ROWS][QUARTERS], total[LINEAR_MAX_ROWS][QUARTERS]; };

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
    const linear_segment_fn run = linear_segment_avx2(job->type);
    for (int32_t row = 0; row < job->n_rows; row += PANEL_ROWS) {
        const int32_t panel = (job->first_row + row) / PANEL_ROWS;
        const int32_t m = tile_panel_rows(job->act_rows, panel);
        const unsigned char *act =
            tile_panel(job->x, panel) + (size_t)(s * SEGMENT_BLOCKS * m) * ACT_BLOCK_BYTES;
        run(segment, here, act, m, acc + row);
    }
}

static void run_segments(const struct linear_job *job, struct row_sums *sums)
{
    const struct quant_layout layout = quant_layout(job->type);
    const int32_t n_segments = linear_end_segment(job);
    const unsigned char *segment = linear_first_segment(job);
    int32_t group = 0;
    __m256 acc[LINEAR_MAX_ROWS][QUARTERS];
    for (int32_t s = job->first_segment; s < n_segments; s++) {
        if (layout.elems > 0) {
            const int32_t left = job->n_in / QUANT_BLOCK - s * SEGMENT_BLOCKS;
            const int32_t here = left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS;
            segment_panels(job, segment, s, here, acc);
            segment += tile_header_bytes(&layout) + here * tile_block_bytes(&layout);
        } else {
            segment_float(job, s, acc);
        }
        const int ends = linear_group_ends(job, &group, s, n_segments);
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
