/* linear on AVX-512: a tile's 32 outputs are two registers, a chain never leaves its lane. Float
 * segments, and the walk over a tile's segments; quantised segments are in linear_avx512.h.
 *
 * Bound: one row waits for memory (weights are read once, in one ascending stream; the prefetches
 * ascend with it, 8 KB ahead, because hardware follows them); from about as many rows on as a weight
 * has bits, arithmetic (the prefetches are spread over all that reads a segment).
 * Definition: linear_scalar.c. Plan: exact.
 */
#include "backend/cpu/linear_avx512.h"

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

enum { SHARING_ROWS = 16 }; /* rows that ask for what comes next; the arithmetic of more hides it all */

/* Rows of a panel that go in one call: two calls take about half each. */
static int32_t rows_at_once(int32_t m, int32_t max_rows)
{
    const int32_t calls = (m + max_rows - 1) / max_rows;
    return (m + calls - 1) / calls;
}

static const linear_segment_fn *segment_table(enum tensor_type type)
{
    switch ((int)type) {
    case TENSOR_Q4_0: return linear_q4_0_avx512;
    case TENSOR_Q8_0: return linear_q8_0_avx512;
    case TENSOR_Q4_1: return linear_q4_1_avx512;
    case TENSOR_Q5_0: return linear_q5_0_avx512;
    case TENSOR_Q5_1: return linear_q5_1_avx512;
    case TENSOR_Q2_K: return linear_q2_k_avx512;
    case TENSOR_Q3_K: return linear_q3_k_avx512;
    case TENSOR_Q4_K: return linear_q4_k_avx512;
    case TENSOR_Q5_K: return linear_q5_k_avx512;
    default: return linear_q6_k_avx512;
    }
}

/* Rows row..row + n of the job are about to read a segment: what of the stream they ask for. The lines
 * of a later segment are shared out in proportion to rows, so that they too are one ascending stream. */
static struct ahead ahead_of(const struct linear_job *job, const unsigned char *segment,
                             size_t segment_bytes, int32_t row, int32_t n)
{
    const struct quant_layout layout = quant_layout(job->type);
    const int32_t sharing = job->n_rows < SHARING_ROWS ? job->n_rows : SHARING_ROWS;
    struct ahead ahead = { AHEAD_NONE, segment, 0 };
    if (job->first_row > 0 || row >= sharing) {
        return ahead; /* earlier rows have brought the tile */
    }
    if (n == job->act_rows && n < layout.low_bits + layout.high_bits) {
        ahead.kind = AHEAD_PASS;
        return ahead;
    }
    ahead.kind = AHEAD_SHARE;
    ahead.at += PREFETCH_FAR_BYTES + segment_bytes * (size_t)row / (size_t)sharing;
    ahead.step_bytes = n >= sharing ? REGISTER_BYTES
                                    : (size_t)(n * REGISTER_BYTES + sharing - 1) / (size_t)sharing;
    return ahead;
}

/* All rows of panel `panel` over one segment; row: the panel's first row within the job. */
static void panel_segment(const struct linear_job *job, const struct place *place,
                          const unsigned char *segment, size_t segment_bytes, int32_t first_block,
                          int32_t n)
{
    const linear_segment_fn *table = segment_table(job->type);
    const int32_t panel = (job->first_row + place->row) / PANEL_ROWS;
    const int32_t m = tile_panel_rows(job->act_rows, panel);
    const unsigned char *block =
        tile_panel(job->x, panel) + (size_t)(first_block * m) * ACT_BLOCK_BYTES;
    const int32_t at_once = rows_at_once(m, linear_max_rows(job->type));
    for (int32_t r0 = 0, rows; r0 < m; r0 += rows) {
        rows = at_once < m - r0 ? at_once : m - r0;
        const struct act_rows act = {
            .codes = block + r0 * QUANT_BLOCK,
            .scales = block + m * QUANT_BLOCK + r0 * 4,
            .sums = block + m * (QUANT_BLOCK + 4) + r0 * 4,
            .halves = block + m * (QUANT_BLOCK + 8) + r0 * 4,
            .stride = (size_t)m * ACT_BLOCK_BYTES,
        };
        struct place here = *place;
        here.row += r0;
        const struct ahead ahead = ahead_of(job, segment, segment_bytes, here.row, rows);
        table[rows](segment, n, &act, &ahead, &here);
    }
}

static void run_quantised(const struct linear_job *job, struct row_sums *sums)
{
    const struct quant_layout layout = quant_layout(job->type);
    const int32_t n_blocks = job->n_in / QUANT_BLOCK;
    const int32_t n_segments = linear_end_segment(job);
    const unsigned char *segment = linear_first_segment(job);
    struct place place = { .sums = sums, .begins = 1 };
    int32_t group = 0;
    for (int32_t s = job->first_segment; s < n_segments; s++) {
        const int32_t first = s * SEGMENT_BLOCKS, left = n_blocks - first;
        const int32_t here = left < SEGMENT_BLOCKS ? left : SEGMENT_BLOCKS;
        const size_t bytes = (size_t)(tile_header_bytes(&layout) + here * tile_block_bytes(&layout));
        place.ends = linear_group_ends(job, &group, s, n_segments);
        for (place.row = 0; place.row < job->n_rows; place.row += PANEL_ROWS) {
            panel_segment(job, &place, segment, bytes, first, here);
        }
        place.begins = place.ends;
        segment += bytes;
    }
}

static void run_float(const struct linear_job *job, struct row_sums *sums)
{
    const size_t n_in = (size_t)job->n_in;
    const int32_t n_segments = linear_end_segment(job);
    struct place place = { .sums = sums, .begins = 1 };
    int32_t group = 0;
    for (int32_t s = job->first_segment; s < n_segments; s++) {
        const size_t begin = (size_t)s * SEGMENT_ELEMS;
        const size_t len = n_in - begin < SEGMENT_ELEMS ? n_in - begin : SEGMENT_ELEMS;
        place.ends = linear_group_ends(job, &group, s, n_segments);
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
