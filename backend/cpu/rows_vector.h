/* rows in vectors: one source for every vector width, included by rows_avx2.c and rows_avx512.c after
 * they have said what a VEC is. The definition is rows_scalar.c.
 *
 * A row sum keeps its 64 partials in 64 / VEC_LANES registers; what is left at a row's end is padded
 * with zeros, and a partial (never -0) plus zero is itself. The loops over mathx are plain C: the
 * compiler makes vectors of them.
 */
#include <string.h>

#define UNROLL _Pragma("GCC unroll 8") /* early, so that arrays of partials become registers */

enum { PARTIAL_VECTORS = ROW_PARTIALS / VEC_LANES };

static float rows_square_sum(const float *x, int32_t n)
{
    VEC acc[PARTIAL_VECTORS];
    float rest[ROW_PARTIALS] = { 0 };
    UNROLL
    for (int k = 0; k < PARTIAL_VECTORS; k++) {
        acc[k] = vec_zero();
    }
    for (int32_t i = 0; i < n; i += ROW_PARTIALS) {
        const float *from = x + i;
        if (n - i < ROW_PARTIALS) {
            memcpy(rest, from, (size_t)(n - i) * sizeof *x);
            from = rest;
        }
        UNROLL
        for (int k = 0; k < PARTIAL_VECTORS; k++) {
            const VEC v = vec_load(from + k * VEC_LANES);
            acc[k] = vec_fma(v, v, acc[k]);
        }
    }
    UNROLL
    for (int k = 0; k < PARTIAL_VECTORS; k++) {
        vec_store(rest + k * VEC_LANES, acc[k]);
    }
    return rows_tree_sum(rest);
}

static void rows_norm(const float *x, const float *weight, float eps, int32_t n, float *out)
{
    const float mean = rows_square_sum(x, n) / (float)n;
    const float inv = 1.0f / __builtin_sqrtf(mean + eps);
    for (int32_t i = 0; i < n; i++) {
        out[i] = x[i] * inv * weight[i];
    }
}

static void rows_swiglu(const float *gate, const float *up, int32_t n, float *out)
{
    for (int32_t i = 0; i < n; i++) {
        out[i] = mathx_silu(gate[i]) * up[i];
    }
}

static void rows_accumulate(float weight, const float *x, int32_t n, float *acc)
{
    for (int32_t i = 0; i < n; i++) {
        acc[i] = mathx_fma(weight, x[i], acc[i]);
    }
}

static void rows_rope(float *x, const float *cos, const float *sin, int32_t half)
{
    int32_t i = 0;
    for (; i + VEC_LANES <= half; i += VEC_LANES) {
        const VEC x0 = vec_load(x + i), x1 = vec_load(x + i + half);
        const VEC c = vec_load(cos + i), s = vec_load(sin + i);
        vec_store(x + i, vec_fms(x0, c, vec_mul(x1, s)));
        vec_store(x + i + half, vec_fma(x0, s, vec_mul(x1, c)));
    }
    for (; i < half; i++) {
        const float x0 = x[i], x1 = x[i + half];
        x[i] = mathx_fma(x0, cos[i], -(x1 * sin[i]));
        x[i + half] = mathx_fma(x0, sin[i], x1 * cos[i]);
    }
}

static void rows_to_f16(const float *x, int32_t n, uint16_t *out)
{
    int32_t i = 0;
    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        vec_to_f16(out + i, vec_load(x + i));
    }
    for (; i < n; i++) {
        out[i] = mathx_f32_to_f16(x[i]);
    }
}

/* Two passes over a row that is in the cache: the maximum, then the first that equals it. */
static int32_t rows_argmax(const float *x, int64_t n, bool *bad)
{
    const VEC inf = vec_set1(MATHX_INF);
    VEC best[4] = { vec_set1(-MATHX_INF), vec_set1(-MATHX_INF), vec_set1(-MATHX_INF),
                    vec_set1(-MATHX_INF) };
    uint32_t bad_lanes = 0;
    int64_t i = 0;
    for (; i + 4 * VEC_LANES <= n; i += 4 * VEC_LANES) {
        UNROLL
        for (int k = 0; k < 4; k++) {
            const VEC v = vec_load(x + i + k * VEC_LANES);
            best[k] = vec_max(v, best[k]);
            bad_lanes |= vec_not_less_lanes(v, inf);
        }
    }
    best[0] = vec_max(vec_max(best[0], best[1]), vec_max(best[2], best[3]));
    float max = vec_max_lane(best[0]);
    for (; i < n; i++) {
        max = x[i] > max ? x[i] : max;
        bad_lanes |= x[i] < MATHX_INF ? 0 : 1;
    }
    *bad = bad_lanes != 0;
    const VEC wanted = vec_set1(max);
    for (i = 0; i + VEC_LANES <= n; i += VEC_LANES) {
        const uint32_t equal = vec_equal_lanes(vec_load(x + i), wanted);
        if (equal != 0) {
            return (int32_t)i + __builtin_ctz(equal);
        }
    }
    for (; i < n; i++) {
        if (x[i] == max) {
            return (int32_t)i;
        }
    }
    return 0;
}

static float rows_exp_sum(float *x, int64_t n, float max)
{
    VEC acc[PARTIAL_VECTORS];
    float rest[ROW_PARTIALS] = { 0 };
    UNROLL
    for (int k = 0; k < PARTIAL_VECTORS; k++) {
        acc[k] = vec_zero();
    }
    for (int64_t i = 0; i < n; i += ROW_PARTIALS) {
        float *at = x + i;
        if (n - i < ROW_PARTIALS) {
            for (int64_t k = 0; k < n - i; k++) {
                rest[k] = at[k] = mathx_exp(at[k] - max);
            }
            at = rest;
        } else {
            for (int k = 0; k < ROW_PARTIALS; k++) {
                at[k] = mathx_exp(at[k] - max);
            }
        }
        UNROLL
        for (int k = 0; k < PARTIAL_VECTORS; k++) {
            acc[k] = vec_add(acc[k], vec_load(at + k * VEC_LANES));
        }
    }
    UNROLL
    for (int k = 0; k < PARTIAL_VECTORS; k++) {
        vec_store(rest + k * VEC_LANES, acc[k]);
    }
    return rows_tree_sum(rest);
}

/* Blocks of one row; quantize_block is the instruction set's. What is not finite is rare, and not
 * multiplied: its block gets scale NaN and codes 0. */
static void rows_quantize(const float *x, int32_t b0, int32_t n_blocks, unsigned char *panel, int32_t m,
                          int32_t r)
{
    for (int32_t b = b0; b < b0 + n_blocks; b++) {
        const float *block = x + (size_t)b * QUANT_BLOCK;
        int8_t *codes = tile_act_codes(panel, m, b, r);
        const uint32_t bits = block_amax_bits(block);
        const float amax = mathx_from_bits(bits);
        if (bits >= 0x7f800000u || amax < ROWS_AMAX_MIN) {
            memset(codes, 0, QUANT_BLOCK);
            *tile_act_scale(panel, m, b, r) = bits >= 0x7f800000u ? MATHX_NAN : 0.0f;
            *tile_act_sum(panel, m, b, r) = *tile_act_half(panel, m, b, r) = 0;
            continue;
        }
        *tile_act_scale(panel, m, b, r) = amax / 127.0f;
        *tile_act_sum(panel, m, b, r) =
            quantize_block(block, 127.0f / amax, codes, tile_act_half(panel, m, b, r));
    }
}
