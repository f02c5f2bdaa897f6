/* kernels: launchers of device code, for C; of the exact plan where nothing else is said. Private to backend/cuda.
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
    enum tensor_type type;     /* a native one: all that layout.h has */
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

/* out row i = row row_idx[i] (i when NULL) of x: taps, rows whose logits are wanted */
struct cuda_op_rows_copy {
    const float *x;         /* [*, n_cols] */
    const int32_t *row_idx; /* [n_rows] or NULL */
    float *out;             /* [n_rows, n_cols] */
    int32_t n_rows, n_cols;
};
int cuda_rows_copy(const struct cuda_op_rows_copy *op, struct CUstream_st *stream);

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

/* ---- linear_float.cu: the same on tensor cores, for weights of one type of 16 bits; the native plan. x is rounded
 * to that type. A row's bits are its own: the same alone as among others, on one device. ---- */
int cuda_linear_native(const struct cuda_op_linear *op, struct CUstream_st *stream);

/* ---- widen.cu: what a product in bf16 reads and leaves; the fast plan ---- */
/* Outputs first_out .. first_out + n_rows - 1 of a matrix as rows of bf16 (layout.h), zeros behind their ends. */
struct cuda_op_widen {
    struct cuda_weight weight;
    int32_t first_out, n_rows; /* first_out: of a tile */
    uint16_t *out;             /* [n_rows, cuda_widened_cols(n_in)], 16-byte aligned */
};
int cuda_widen(const struct cuda_op_widen *op, struct CUstream_st *stream);
/* The floats of rows likewise. */
struct cuda_op_round {
    struct cuda_act x;
    int32_t n_rows;
    uint16_t *out;             /* [n_rows, cuda_widened_cols(n_cols)], 16-byte aligned */
};
int cuda_round(const struct cuda_op_round *op, struct CUstream_st *stream);
/* x[row, i] += bias[i] */
struct cuda_op_bias { float *x; const float *bias; int32_t n_rows, n_cols; };
int cuda_bias(const struct cuda_op_bias *op, struct CUstream_st *stream);

/* ---- linear_groups.cu: group sums of one matrix, as op_linear with groups. Rows are cut likewise. ---- */
struct cuda_op_linear_groups {
    struct cuda_weight weight;
    float *out;            /* [n_groups, n_rows, n_out] */
    int32_t n_groups, n_rows;
    int32_t begin[SUM_GROUPS + 1]; /* first segment of each, ascending from 0 to all there are */
    struct cuda_act x;
};
int cuda_linear_groups(const struct cuda_op_linear_groups *op, struct CUstream_st *stream);

/* ---- ranks.cu: as op_fold, op_columns, op_pick ---- */
enum { CUDA_MAX_RANKS = 8 };
struct cuda_op_fold {
    const float *sums;     /* [n_groups, n_rows, n_cols] */
    float *x;              /* [n_rows, n_cols] */
    int32_t n_groups, n_rows, n_cols;
};
int cuda_fold(const struct cuda_op_fold *op, struct CUstream_st *stream);

struct cuda_op_columns {
    const float *parts;    /* of rank r [n_rows, first[r + 1] - first[r]], part after part */
    int32_t first[CUDA_MAX_RANKS + 1];
    const float *add;      /* [n_rows, first[n_ranks]] or NULL */
    float *out;            /* [n_rows, first[n_ranks]]; may be add */
    int32_t n_ranks, n_rows;
};
int cuda_columns(const struct cuda_op_columns *op, struct CUstream_st *stream);

struct cuda_op_pick {
    const float *x;        /* [parts, n_rows, n_cols] */
    const int32_t *part;   /* [n_rows] */
    float *out;            /* [n_rows, n_cols] */
    int32_t n_rows, n_cols;
};
int cuda_pick(const struct cuda_op_pick *op, struct CUstream_st *stream);

/* ---- experts.cu: as op_route and its kin. A row of an act, or of an output, is a place. ---- */
enum { CUDA_EXPERT_PARTS = 2 };
/* Filled by cuda_route on the device; arrays are device memory. Runs of places begin at panels of eight rows,
 * so that there are up to cuda_routes_places of them, some without a row (-1). */
struct cuda_routes {
    int32_t n_experts, n_used, cap_rows; /* at most 1024 experts */
    int32_t *expert; /* [cap_rows, n_used] ascending in each row */
    float *weight;   /* [cap_rows, n_used] */
    int32_t *place;  /* [cap_rows, n_used]; -1: a pad row */
    int32_t *row, *owner;   /* [places] */
    int32_t *begin;  /* [n_experts + 1] first place of each expert */
    int32_t *count;  /* [n_experts] rows of each */
    int32_t *touched; /* [n_experts] those that have rows, ascending; behind them all, how many */
};
int32_t cuda_routes_places(const struct cuda_routes *routes); /* at most, in a pass of cap_rows */
/* 0 when the shape cannot be */
size_t cuda_routes_bytes(int32_t n_experts, int32_t n_used, int32_t cap_rows);
void cuda_routes_init(struct cuda_routes *routes, int32_t n_experts, int32_t n_used, int32_t cap_rows,
                      void *memory /* of the device, 64-byte aligned */);

struct cuda_op_route {
    const float *logits;     /* [n_rows, n_experts] */
    const int32_t *position; /* [n_rows]; < 0: a pad row, takes no expert */
    struct cuda_routes routes;
    int32_t n_rows;
    int32_t normalised;      /* flag */
};
int cuda_route(const struct cuda_op_route *op, struct CUstream_st *stream);

struct cuda_op_gather {
    const float *x;          /* [n_rows, n_cols] */
    struct cuda_routes routes;
    int32_t n_rows;          /* of the pass, here and below */
    struct cuda_act out;     /* room for cuda_routes_places rows */
};
int cuda_gather(const struct cuda_op_gather *op, struct CUstream_st *stream);

struct cuda_op_expert_linear {
    struct {
        struct cuda_weight weights; /* of expert 0 */
        size_t stride_bytes;        /* from one expert's to the next one's */
        float *out;                 /* [places, n_out] */
    } part[CUDA_EXPERT_PARTS];      /* of one type */
    int32_t n_parts, n_rows;
    struct cuda_act x;
    struct cuda_routes routes;
};
int cuda_expert_linear(const struct cuda_op_expert_linear *op, struct CUstream_st *stream);

struct cuda_op_expert_swiglu {
    const float *gate, *up;  /* [places, n_cols] */
    struct cuda_routes routes;
    int32_t n_rows;
    struct cuda_act out;
};
int cuda_expert_swiglu(const struct cuda_op_expert_swiglu *op, struct CUstream_st *stream);

struct cuda_op_combine {
    const float *y;          /* [places, n_cols] */
    float *x;                /* [n_rows, n_cols] */
    struct cuda_routes routes;
    int32_t n_rows, n_cols;
};
int cuda_combine(const struct cuda_op_combine *op, struct CUstream_st *stream);

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
    int32_t n_group, head_skip;  /* as in op_attention */
    float scale;
    int32_t n_segments;          /* at least position / 256 + 1 of every row */
    float *scratch;              /* [cuda_attention_scratch_floats] */
};
size_t cuda_attention_scratch_floats(int32_t n_rows, int32_t n_heads, int32_t head_dim, int32_t n_segments);
int cuda_attention(const struct cuda_op_attention *op, struct CUstream_st *stream);

struct cuda_op_page_copy { struct kv_store store; uint32_t src, dst; };
int cuda_page_copy(const struct cuda_op_page_copy *op, struct CUstream_st *stream);

/* ---- choosing: which rows of logits, for the three below ---- */
/* Ids that a row's choice passes over: chosen by launches before, on the device; NULL: none. */
enum { CUDA_TAKEN = 2 };
struct cuda_taken { const int32_t *id[CUDA_TAKEN]; };
/* All zero: row i of [n_rows, n_vocab], nothing passed over. */
struct cuda_rows {
    int32_t stride;                 /* floats from row to row, at least n_vocab; 0: n_vocab */
    const int32_t *idx;             /* [n_rows] on the device; NULL: 0, 1, .. */
    const struct cuda_taken *taken; /* [n_rows] on the device; NULL: none. Not for ranks */
};

/* ---- choose.cu: rows of logits to tokens, without penalties, biases and filters ---- */
struct cuda_choose_row { uint64_t seed; int32_t position; float temperature; /* 0: the highest logit */ };
/* What sampling_choose() would answer: a token, or why the row cannot be used. */
enum { CUDA_CHOICE_GOOD, CUDA_CHOICE_NOT_FINITE /* NaN or +inf */, CUDA_CHOICE_NOTHING /* all -inf */,
       CUDA_CHOICE_OVERFLOW /* the highest logit, divided by the temperature */ };
struct cuda_choice { int32_t id; uint32_t bad; };
struct cuda_op_choose {
    const float *logits;                /* rows of n_vocab */
    const struct cuda_choose_row *rows; /* [n_rows] */
    struct cuda_choice *out;            /* [n_rows] */
    uint64_t *scratch;                  /* [n_rows, CUDA_CHOOSE_SCRATCH] */
    int32_t n_rows, n_vocab;
    struct cuda_rows from;
};
enum { CUDA_CHOOSE_SCRATCH = 3 };
int cuda_choose(const struct cuda_op_choose *op, struct CUstream_st *stream);

/* ---- sample.cu: the same with penalties, biases, filters and log probabilities: all of sampling_choose ---- */
struct cuda_bias { int32_t id; float bias; };
struct cuda_sampling { /* struct sampling_params and what else sampling_choose() takes, of one row */
    uint64_t seed;
    int32_t position;
    float temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int32_t top_k, penalty_last_n, n_top_logprobs;
    int32_t n_history, n_biases;
    const int32_t *history;         /* [n_history] on the device: the tokens before, proposed ones included */
    const struct cuda_bias *biases; /* [n_biases] on the device, no id twice */
};
enum { CUDA_SAMPLE_TOP = 20 };
struct cuda_sampled {
    int32_t id;
    uint32_t bad; /* as in struct cuda_choice, as which this can be read */
    float logprob; /* where n_top_logprobs >= 0 */
    int32_t n_top;
    struct { int32_t id; float logprob; } top[CUDA_SAMPLE_TOP];
};
struct cuda_op_sample {
    const float *logits;              /* rows of n_vocab */
    const struct cuda_sampling *rows; /* [n_rows] on the device */
    struct cuda_sampled *out;         /* [n_rows] */
    float *scratch;                   /* [cuda_sample_scratch_floats] */
    int32_t n_rows, n_vocab;          /* n_vocab at most 2^24 */
    struct cuda_rows from;
};
size_t cuda_sample_scratch_floats(int32_t n_rows, int32_t n_vocab);
int cuda_sample(const struct cuda_op_sample *op, struct CUstream_st *stream);

/* ---- rank.cu: the likeliest ids of rows, highest first, lowest id among equals ---- */
enum { CUDA_RANK_CAP = 1024 };
struct cuda_rank_row {
    uint64_t seed;
    int32_t position;
    float temperature;            /* 0: logits, without noise */
    int32_t excluded;             /* an id that is not ranked; -1: none */
    int32_t n_wanted;             /* at most id_stride are given */
};
struct cuda_op_rank {
    const float *logits;              /* rows of n_vocab; NULL: the values to rank lie in scratch */
    const struct cuda_rank_row *rows; /* [n_rows] on the device */
    int32_t *id;                      /* [n_rows, id_stride], -1 behind the last; NaN and -inf are not ranked */
    float *scratch;                   /* [n_rows, n_vocab] */
    int32_t n_rows, n_vocab, id_stride; /* id_stride at most CUDA_RANK_CAP */
    struct cuda_rows from;
};
int cuda_rank(const struct cuda_op_rank *op, struct CUstream_st *stream);
/* sample.cu: values to rank of rows with penalties, biases and filters: log of what sampling_distribution()
 * gives, and the noise where there is a temperature to rank by. rows[i] has a temperature above 0. */
struct cuda_op_log_probs {
    const float *logits;              /* rows of n_vocab */
    const struct cuda_sampling *rows; /* [n_rows] on the device; logprobs are not looked at */
    const struct cuda_rank_row *ranks; /* [n_rows] on the device: seed, position and temperature of the noise */
    float *out;                       /* [n_rows, n_vocab]; a row that cannot be used: -inf */
    float *scratch;                   /* [n_rows, n_vocab] */
    int32_t n_rows, n_vocab;
    struct cuda_rows from;
};
int cuda_log_probs(const struct cuda_op_log_probs *op, struct CUstream_st *stream);

/* ---- hint.cu: what a draft says of its tokens; rows of a cut head as rows over all ids ---- */
/* out[row, id[i]] = logits[row, i]; -inf elsewhere */
struct cuda_op_spread {
    const float *logits;              /* rows of n_kept */
    const int32_t *id;                /* [n_kept] ascending, below n_vocab, on the device */
    float *out;                       /* [n_rows, n_vocab] */
    int32_t n_rows, n_kept, n_vocab;
    struct cuda_rows from;
};
int cuda_spread(const struct cuda_op_spread *op, struct CUstream_st *stream);

/* Shares of a row's softmax at temperature 1, by sums over CUDA_HINT_PIECE logits at a time, each in the
 * canonical order of a row, relative to the first token's logit: 1 / sum, and exp(logit - first) / sum. */
enum { CUDA_HINT_TOKENS = 1 + CUDA_TAKEN, CUDA_HINT_PIECE = 2048 };
struct cuda_hint_row {
    const float *logits;              /* [n_logits] */
    const float *full;                /* by id; the same where none are left out */
    const int32_t *id[CUDA_HINT_TOKENS]; /* on the device; NULL: not asked for */
};
struct cuda_hints { float share[CUDA_HINT_TOKENS]; };
struct cuda_op_hint {
    const struct cuda_hint_row *rows; /* [n_rows] on the device */
    struct cuda_hints *out;           /* [n_rows] */
    float *scratch;                   /* [n_rows, cuda_hint_pieces] */
    int32_t n_rows, n_logits;
};
static inline int32_t cuda_hint_pieces(int32_t n_logits)
{
    return (n_logits + CUDA_HINT_PIECE - 1) / CUDA_HINT_PIECE;
}
int cuda_hint(const struct cuda_op_hint *op, struct CUstream_st *stream);

/* ---- accept.cu: verify_coupled and verify_tree_coupled on tokens chosen on the device ---- */
struct cuda_accept_run { int32_t first_row, first_proposed, n_proposed; };
/* bad: a choice on the way could not be made; what was accepted before it stands, and there is no token (-1). */
struct cuda_outcome { int32_t n_accepted, recovery_token; uint32_t bad; };
struct cuda_op_accept {
    const struct cuda_choice *choice;   /* of row i, at i * choice_stride_bytes */
    size_t choice_stride_bytes;         /* sizeof(struct cuda_choice), or of cuda_sampled */
    const struct cuda_accept_run *runs; /* [n_runs]: row first_row follows what is committed, row first_row + 1
                                           + i proposal i */
    const int32_t *token;               /* proposals of all runs */
    const int32_t *parent;              /* within the run, before the child, -1 the root; NULL: all chains */
    struct cuda_outcome *out;           /* [n_runs] */
    int32_t *path;                      /* [n_runs, path_stride] accepted nodes; NULL: not wanted */
    int32_t n_runs, path_stride;
};
int cuda_accept(const struct cuda_op_accept *op, struct CUstream_st *stream);

#ifdef __cplusplus
}
#endif
#endif
