/* cpu: the kernel table. One table per instruction set, same functions, same bits: *_scalar.c is the
 * definition, *_avx2.c and *_avx512.c are optimisations of it, *_fma.c is the scalar source compiled
 * with hardware fma. Kernels are plain functions on host memory; ops.c cuts operations into chunks.
 */
#ifndef BACKEND_CPU_CPU_H
#define BACKEND_CPU_CPU_H

#include "backend/cpu/tile.h"
#include "backend/device.h"

/* Linear: one tile of 32 outputs for up to LINEAR_MAX_PANELS panels of rows. */
enum { LINEAR_MAX_PANELS = 8, LINEAR_MAX_ROWS = LINEAR_MAX_PANELS * PANEL_ROWS };
struct linear_job {
    enum tensor_type type;
    const unsigned char *tile; /* the tile's first byte */
    int32_t n_in, n_valid;     /* n_valid: outputs that exist, 1..32 */
    int32_t first_segment, end_segment; /* one group's alone, to give its sum; end 0: all, to give totals */
    int32_t first_row, n_rows; /* first_row a multiple of 8; n_rows <= LINEAR_MAX_ROWS */
    int32_t act_rows;          /* rows in x: decides the shape of its last panel */
    const struct act *x;
    float *out;                /* row first_row at the tile's first output; rows out_stride apart */
    const float *add;          /* same shape and stride, or NULL */
    const float *bias;         /* [n_valid] or NULL */
    size_t out_stride;         /* in floats */
};

/* Attention of one row and the heads of one KV head, over segments of 256 positions. */
struct attention_job {
    const float *q;            /* [n_group, head_dim]: the query heads that share this KV head */
    float *out;                /* [n_group, head_dim] */
    int32_t n_group, head_dim;
    int32_t first, last;       /* visible positions, inclusive (first > 0 with a sliding window) */
    float scale;
    const struct kv_store *store;
    const struct kv_view *view;
    int32_t layer, kv_head;
    float *scratch;            /* attention_scratch_floats(n_group, head_dim) */
    unsigned char *path_blocks; /* attention_path_bytes(store) where the view has a path */
};

struct cpu_kernels {
    enum isa isa;
    /* ---- linear_*.c ---- */
    void (*linear_tile)(const struct linear_job *job);
    /* ---- rows_*.c ---- */
    /* out[i] = x[i] * (1 / sqrtf(mean + eps)) * weight[i], mean by the canonical row sum */
    void (*norm_row)(const float *x, const float *weight, float eps, int32_t n, float *out);
    /* Quantises n_blocks blocks of one row, starting at block b0, into row r of an m-row panel. A
     * block with a NaN or inf gets scale NaN and codes 0. */
    void (*quantize_row)(const float *x, int32_t b0, int32_t n_blocks, unsigned char *panel, int32_t m,
                         int32_t r); /* x: the row's first column */
    void (*swiglu)(const float *gate, const float *up, int32_t n, float *out);
    /* acc[i] = fma(weight, x[i], acc[i]) */
    void (*accumulate)(float weight, const float *x, int32_t n, float *acc);
    /* rotate-half: x0 = x[i], x1 = x[i + half]; y0 = fma(x0, c, -(x1 s)), y1 = fma(x0, s, x1 c) */
    void (*rope_row)(float *x, const float *cos, const float *sin, int32_t half);
    void (*to_f16)(const float *x, int32_t n, uint16_t *out);
    int32_t (*argmax)(const float *x, int64_t n, bool *bad);
    float (*exp_sum)(float *x, int64_t n, float max);
    void (*gumbel)(uint64_t seed, uint32_t position, uint32_t first, uint32_t n, uint64_t limit,
                   float *noise);
    /* ---- attention_*.c ---- */
    void (*attention)(const struct attention_job *job);
    /* ---- roof_*.c ---- : each runs `iterations` rounds and returns the work done */
    double (*roof_read)(const unsigned char *buf, size_t bytes, int variant); /* bytes read; variants 0..n-1 */
    int roof_read_variants;
    double (*roof_int)(int64_t iterations);   /* MACs */
    double (*roof_float)(int64_t iterations); /* FMAs */
};

/* NULL when this machine or build lacks it. */
const struct cpu_kernels *cpu_kernels_for(enum isa isa);
extern const struct cpu_kernels *const cpu_kernels_scalar;

size_t attention_scratch_floats(int32_t n_group, int32_t head_dim);
size_t attention_path_bytes(const struct kv_store *store);

/* Rounding to nearest even, no flush-to-zero, exceptions masked: the mode the bits are defined in.
 * A host program may have changed it. Returns the old mode for cpu_float_mode_restore(). */
unsigned int cpu_float_mode_enter(void);
void cpu_float_mode_restore(unsigned int mode);

#endif
