/* kernels: launchers of the device code of the exact plan, for C. Private to backend/cuda.
 *
 * Each computes what the operation of that name in backend.h computes, with the bits of the scalar code
 * in backend/cpu. All pointers are device memory, borrowed until the stream has passed the launch;
 * argument structs are copied. Launching takes no memory and waits for nothing. Returned is CUDA's error
 * number, 0 when the launch was taken. Rows, panels and shapes: shapes.h of the backend, layout.h here.
 */
#ifndef BACKEND_CUDA_KERNELS_H
#define BACKEND_CUDA_KERNELS_H

#include "backend/shapes.h"

#ifdef __cplusplus
extern "C" {
#endif

struct CUstream_st; /* cudaStream_t is a pointer to it */

/* ---- weights and activations: layout.h draws them ---- */
struct cuda_weight {
    enum tensor_type type;     /* F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K */
    int32_t n_out, n_in;
    const unsigned char *data; /* [cuda_weight_bytes], 16-byte aligned */
};
struct cuda_act {
    int32_t n_cols;            /* multiple of 32 where q8 is used */
    int32_t f32_stride;        /* floats from row to row: at least n_cols, a multiple of 4 */
    float *f32;                /* [n_rows, f32_stride], 16-byte aligned; NULL: not wanted */
    unsigned char *q8;         /* full panels of 8 rows; NULL: not wanted */
};

/* ---- rows.cu ---- */
/* out[row, i] = element i of table row token[row] */
struct cuda_op_embed {
    struct cuda_weight table;
    const int32_t *token; /* [n_rows] */
    float *out;           /* [n_rows, n_in] */
    int32_t n_rows;
};
int cuda_embed(const struct cuda_op_embed *op, struct CUstream_st *stream);

/* out = RMSNorm of rows row_idx[i] (i when NULL) of x, into out.f32 and out.q8 where they are given */
struct cuda_op_norm {
    const float *x;         /* [*, n_cols] */
    const int32_t *row_idx; /* [n_rows] or NULL */
    const float *weight;    /* [n_cols] */
    float eps;
    int32_t n_rows;
    struct cuda_act out;
};
int cuda_norm(const struct cuda_op_norm *op, struct CUstream_st *stream);

/* act.f32 → act.q8 */
struct cuda_op_quantize { struct cuda_act act; int32_t n_rows; };
int cuda_quantize(const struct cuda_op_quantize *op, struct CUstream_st *stream);

struct cuda_op_swiglu {
    const float *gate, *up; /* [n_rows, n_cols] */
    int32_t n_rows;
    struct cuda_act out;
};
int cuda_swiglu(const struct cuda_op_swiglu *op, struct CUstream_st *stream);

/* x[i] += y[i] */
struct cuda_op_add { float *x; const float *y; int64_t n; };
int cuda_add(const struct cuda_op_add *op, struct CUstream_st *stream);

/* ---- linear.cu: as op_linear. Rows are cut into launches of CUDA_LINEAR_ROWS. ---- */
enum { CUDA_LINEAR_PARTS = 3, CUDA_LINEAR_ROWS = 64 };
struct cuda_op_linear {
    struct cuda_linear_part {
        struct cuda_weight weight;
        float *out;        /* [n_rows, n_out] */
        const float *add;  /* [n_rows, n_out] or NULL */
        const float *bias; /* [n_out] or NULL */
    } part[CUDA_LINEAR_PARTS]; /* of one type */
    int32_t n_parts, n_rows;
    struct cuda_act x;
};
int cuda_linear(const struct cuda_op_linear *op, struct CUstream_st *stream);

/* ---- attention.cu ---- */
struct cuda_op_rope_store {
    float *q;               /* [n_rows, n_heads, head_dim] */
    float *k;               /* [n_rows, n_kv_heads, head_dim] */
    const float *v;         /* [n_rows, n_kv_heads, head_dim] */
    const float *cos, *sin; /* [positions, rope_dims / 2] */
    const int32_t *position, *slot; /* [n_rows] */
    struct kv_store store;  /* k and v on the device */
    int32_t layer, n_rows, n_heads, rope_dims;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float norm_eps;
};
int cuda_rope_store(const struct cuda_op_rope_store *op, struct CUstream_st *stream);

struct cuda_op_attention {
    const float *q;              /* [n_rows, n_heads, head_dim] */
    float *out;                  /* [n_rows, n_heads, head_dim] */
    const struct kv_view *views; /* on the device, and so are their pages and paths */
    const int32_t *seq_of_row, *position; /* [n_rows] */
    struct kv_store store;
    int32_t layer, n_rows, n_heads, window;
    float scale;
    int32_t n_segments;          /* at least position / 256 + 1 of every row */
    float *scratch;              /* [cuda_attention_scratch_floats] */
};
size_t cuda_attention_scratch_floats(int32_t n_rows, int32_t n_heads, int32_t head_dim, int32_t n_segments);
int cuda_attention(const struct cuda_op_attention *op, struct CUstream_st *stream);

struct cuda_op_page_copy { struct kv_store store; uint32_t src, dst; };
int cuda_page_copy(const struct cuda_op_page_copy *op, struct CUstream_st *stream);

/* ---- choose.cu: rows of logits to tokens, without penalties, biases and filters ---- */
struct cuda_choose_row { uint64_t seed; int32_t position; float temperature; /* 0: the highest logit */ };
/* What sampling_choose() would answer: a token, or why the row cannot be used. */
enum { CUDA_CHOICE_GOOD, CUDA_CHOICE_NOT_FINITE /* NaN or +inf */, CUDA_CHOICE_NOTHING /* all -inf */,
       CUDA_CHOICE_OVERFLOW /* the highest logit, divided by the temperature */ };
struct cuda_choice { int32_t id; uint32_t bad; };
struct cuda_op_choose {
    const float *logits;                /* [n_rows, n_vocab] */
    const struct cuda_choose_row *rows; /* [n_rows] */
    struct cuda_choice *out;            /* [n_rows] */
    uint64_t *scratch;                  /* [n_rows, CUDA_CHOOSE_SCRATCH] */
    int32_t n_rows, n_vocab;
};
enum { CUDA_CHOOSE_SCRATCH = 3 };
int cuda_choose(const struct cuda_op_choose *op, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
