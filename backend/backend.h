/* backend: what a device is. Memory, lanes (ordered queues), and about twenty operations on rows.
 *
 * An operation is submitted to a lane and runs some time later, in order, split over *outputs* into
 * chunks that the lane's workers claim; no output is ever split, so the number of workers cannot
 * change a bit. Every operation is row-invariant and computes the canonical order, version 1
 * (docs/DESIGN.md, "Numerics"); backend/cpu/ops_scalar.c is the definition.
 *
 * Who may call: submit and wait from one thread per lane at a time. Pointers in operation arguments
 * must stay valid until lane_wait() has passed the operation. Argument structs are copied.
 */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/comm.h"
#include "backend/shapes.h"
#include "base/base.h"

struct tensor_type_info {
    uint32_t number;       /* as in GGUF */
    const char *name;      /* "Q4_0" */
    uint32_t block_elems;  /* 1, 32, 256 */
    uint32_t block_bytes;  /* in the file */
    bool native;           /* the backend computes with it; others are known by name only */
};
/* NULL when the number (name, case-insensitive) is unknown. */
const struct tensor_type_info *tensor_type_info(uint32_t number);
const struct tensor_type_info *tensor_type_by_name(const char *name);
/* The native type that rows of a type which is not native become when a model is loaded (by
 * tensor_row_to_f32 and tensor_row_from_f32); -1 when it is native already or cannot be read. */
int tensor_type_convert_to(uint32_t number);
/* Whether tensor_row_from_f32 writes it. */
bool tensor_type_can_write(uint32_t number);

/* ---- device ---- */
enum isa { ISA_SCALAR, ISA_AVX2, ISA_AVX512, ISA_COUNT };
const char *isa_name(enum isa isa); /* "scalar", "avx2", "avx512" */

struct backend;
/* kind "cpu" or "cuda:N"; isa_or_null forces an instruction set of the host ("scalar", "avx2", "avx512"),
 * NULL = best here. STATUS_UNSUPPORTED with a sentence when this machine or build lacks it. */
enum status backend_create(const char *kind, const char *isa_or_null, struct backend **out);
void backend_destroy(struct backend *backend);
const char *backend_name(const struct backend *backend); /* "cpu avx512", "cuda:0 NVIDIA H200" */
enum isa backend_isa(const struct backend *backend);     /* of the host's part */
/* The numeric rules of a device's linear layers. Exact: the canonical order, identical bits everywhere. Native: a
 * row's bits depend on its own inputs alone, on one device. Fast: nothing is promised. */
enum numeric_plan { PLAN_EXACT, PLAN_NATIVE, PLAN_FAST, PLAN_COUNT };
const char *numeric_plan_name(enum numeric_plan plan); /* "exact", "native", "fast" */
/* Exact unless said; before the first lane. STATUS_UNSUPPORTED with a sentence where it cannot be honoured. */
enum status backend_set_plan(struct backend *backend, enum numeric_plan plan);
enum numeric_plan backend_plan(const struct backend *backend);
/* Whether the host reads and writes its memory in place. */
bool backend_is_host(const struct backend *backend);
bool backend_has_cuda(void);       /* whether this build knows GPUs */
int backend_n_cuda_devices(void); /* that are there */
/* STATUS_OK until the device failed for good; then why, each time. Results since then are worth nothing. */
enum status backend_health(struct backend *backend);

/* CPUs this process may use (affinity and cgroup quota respected), physical cores first, siblings
 * after. Returns how many were written; *n_physical gets the number of distinct cores. */
int backend_cpu_list(int *cpus, int cap, int *n_physical);

/* Memory of the device, page-aligned, zeroed; the host's by huge pages where it can. NULL if none. Only
 * where backend_is_host() may the host look into it; bytes are moved by the two below, which wait for
 * nothing that a lane was given. */
void *backend_alloc(struct backend *backend, size_t bytes);
void backend_free(struct backend *backend, void *ptr, size_t bytes);
uint64_t backend_free_bytes(struct backend *backend); /* of its memory, now; 0 = unknown */
enum status backend_upload(struct backend *backend, void *to, const void *from, size_t bytes);
enum status backend_download(struct backend *backend, void *to, const void *from, size_t bytes);

/* ---- lanes ---- */
struct lane;
struct lane_options {
    const int *cpus;        /* [n_workers] core of each worker; NULL = not pinned */
    int n_workers;          /* at least 1 */
    bool caller_is_worker;  /* worker 0 is whoever calls lane_wait(): no wake-up on the hot path */
    size_t scratch_bytes;   /* per worker, 64-byte aligned */
};
enum status lane_create(struct backend *backend, const struct lane_options *options, struct lane **out);
void lane_destroy(struct lane *lane); /* waits for what was submitted */
int lane_n_workers(const struct lane *lane);
struct backend *lane_backend(const struct lane *lane);
/* While `lender` has nothing to do, its own workers claim chunks of `borrower`'s operations. Both
 * directions may be set; where they are, stop both lanes before destroying either. Call before the first
 * submit; destroy a lender before its borrower. Lanes of one CPU backend; others lend nothing. */
void lane_lend(struct lane *lender, struct lane *borrower);
/* Waits for what was submitted and ends the lane's threads; only lane_destroy may follow. NULL is fine. */
void lane_stop(struct lane *lane);
/* For the thread that is worker 0 of a lane made with caller_is_worker, instead of sleeping until there
 * is something to do: waits until *until is not 0, and helps the borrower meanwhile. Whoever sets *until
 * then calls lane_wake(lane). At most a chunk late. */
void lane_idle_until(struct lane *lane, const atomic_int *until);
void lane_wake(struct lane *lane);

/* One operation of the host: fn(args, chunk, worker) is called once for each chunk in 0..n_chunks-1, any order,
 * in parallel; the next operation starts when all have returned. Returns a ticket. Blocks only
 * while the ring of pending operations is full (then it helps), and on a device's lane until its
 * operations have ended. fn must not submit or wait. */
struct lane_worker { void *scratch; size_t scratch_bytes; int idx; };
typedef void (*lane_fn)(const void *args, uint32_t chunk, struct lane_worker *worker);
enum { LANE_ARGS_BYTES = 256 };
uint64_t lane_submit(struct lane *lane, lane_fn fn, const void *args, size_t args_bytes,
                     uint32_t n_chunks);
/* A ticket of everything submitted so far, operations included. */
uint64_t lane_mark(struct lane *lane);
void lane_wait(struct lane *lane, uint64_t ticket); /* until that operation and all before it ended */
bool lane_done(struct lane *lane, uint64_t ticket);
/* Pins the calling thread to worker 0's core (for the thread that will call lane_wait() on a lane
 * made with caller_is_worker). Does nothing when the lane has no cores. */
void lane_pin_caller(const struct lane *lane);
/* Nanoseconds during which at least one operation was pending. */
int64_t lane_busy_ns(const struct lane *lane);

/* ---- weights ---- */
/* A linear layer's matrix, repacked into tiles of 32 interleaved output rows (layouts: backend/cpu/tile.h,
 * backend/cuda/layout.h). A value; `data` belongs to whoever made it with backend_alloc. */
struct weight {
    enum tensor_type type;
    int32_t n_out, n_in;
    unsigned char *data; /* [backend_matrix_bytes] */
};
/* 0 when type, n_out, n_in cannot be on this device. 64-byte multiple. */
size_t backend_matrix_bytes(const struct backend *backend, enum tensor_type type, int64_t n_out, int64_t n_in);
/* Repacks rows first_out.. of file-format data; row_stride_bytes apart. first_out is a multiple of
 * TILE_OUTPUTS, and so is n_rows unless it reaches n_out. Disjoint calls may run in parallel. */
enum status backend_matrix_fill(struct backend *backend, const struct weight *weight, int32_t first_out,
                                int32_t n_rows, const void *rows, size_t row_stride_bytes);
/* Row i of `to` = row rows[i] of `from`; rows [to->n_out], same type and n_in. */
enum status backend_matrix_gather(struct backend *backend, const struct weight *from, const int32_t *rows,
                                  const struct weight *to);

/* The same in the CPU's layout. */
/* 0 when type, n_out, n_in cannot be (n_in no multiple of the block, not native). 64-byte multiple. */
size_t backend_weight_bytes(enum tensor_type type, int64_t n_out, int64_t n_in);
void backend_weight_fill(const struct weight *weight, int32_t first_out, int32_t n_rows,
                         const void *rows, size_t row_stride_bytes);
/* The inverse, for one row: file-format bytes of row `out_idx`. */
void backend_weight_row(const struct weight *weight, int32_t out_idx, void *row);
/* One file-format row of n elements (a multiple of the block) to floats (types that are native or can
 * be converted), bit for bit what the published reference gives; and back (F32, F16, BF16, Q8_0, Q4_0
 * with the published rounding; Q4_K, Q6_K by a search of their scales). */
void tensor_row_to_f32(enum tensor_type type, const void *row, int64_t n, float *out);
void tensor_row_from_f32(enum tensor_type type, const float *in, int64_t n, void *row);
/* Whether every float that native type's row holds (elements, or the scales of blocks) is finite. */
bool tensor_row_is_finite(enum tensor_type type, const void *row, int64_t n);

/* ---- activations ---- */
/* Rows that feed linear layers: plain floats for float weights, quantised panels for quantised
 * weights, either or both. Panels hold up to PANEL_ROWS rows, see backend/cpu/tile.h. */
enum { ACT_F32 = 1, ACT_Q8 = 2, PANEL_ROWS = 8 };
struct act {
    int32_t n_cols;       /* multiple of 32 when ACT_Q8 is used */
    int32_t cap_rows;
    float *f32;           /* [cap_rows, n_cols] */
    unsigned char *q8;    /* panels */
};
/* On this device; memory is the device's and nobody looks into it here. */
size_t backend_rows_bytes(const struct backend *backend, int32_t n_cols, int32_t cap_rows);
void backend_rows_init(const struct backend *backend, struct act *act, int32_t n_cols, int32_t cap_rows, void *memory);
/* The same in the CPU's layout. */
size_t backend_act_bytes(int32_t n_cols, int32_t cap_rows);
void backend_act_init(struct act *act, int32_t n_cols, int32_t cap_rows, void *memory);
/* ACT_F32 or ACT_Q8: what a weight of this type reads. */
int backend_act_kind(enum tensor_type type);

/* ---- KV store: the bytes behind page numbers ---- */
size_t kv_store_bytes(const struct kv_store *shape); /* K and V, all layers; fills nothing */
enum status kv_store_init(struct backend *backend, struct kv_store *store); /* shape set, takes memory */
void kv_store_deinit(struct backend *backend, struct kv_store *store);

/* ---- passes ---- */
/* What a pass takes from the host: small arrays, one per row or sequence. Operations of a pass read what
 * pass_begin() left in here, which on a CPU is what it found. */
struct pass_inputs {
    int32_t n_rows, n_seqs, n_logits;
    const int32_t *token, *position, *slot, *seq_of_row; /* [n_rows] */
    const int32_t *own_token, *part;                     /* [n_rows] what ranks embed with; NULL, NULL: nobody asks */
    const struct kv_view *views;                         /* [n_seqs] */
    const int32_t *logits_row;                           /* [n_logits] */
    const struct kv_store *store;
    /* Passes that are equal in these and in their counts are the same operations; NULL, 0: never so. */
    const void *of_model;                                /* anything that names the model and its head */
    int32_t n_layers;
};
/* What it gives back: rows of logits, on the device and, unless they stay there, for the host. */
struct pass_result { const float *logits; int32_t n_logits, n_cols; bool stays; };
/* The largest pass, so that a device takes what it needs beside it once. */
struct pass_shape {
    int32_t cap_rows, cap_logits, n_vocab;
    int32_t n_heads, head_dim, context, n_layers;
    int32_t most_in;     /* inputs of a linear layer, at most */
    size_t matrix_elems; /* of the largest matrix of a layer, the head not counted */
    size_t exchange_floats; /* of the largest exchange between ranks; 0: there is none */
};
/* What a device keeps for passes that use the same buffers: inputs on their way, logits on theirs, scratch,
 * recorded passes. NULL on a CPU, which needs none of it; all calls take NULL. */
struct pass_desk;
enum pass_way {
    PASS_SUBMIT, /* submit the pass's operations now */
    PASS_REPLAY  /* they are known from a pass before: submit nothing */
};
enum status backend_desk_create(struct backend *backend, const struct pass_shape *shape, struct pass_desk **out);
void backend_desk_destroy(struct backend *backend, struct pass_desk *desk);
uint64_t backend_desk_bytes(const struct backend *backend, const struct pass_desk *desk); /* of the device */
/* Part of the bytes of all desks: kept for what the device's driver takes for recorded passes. */
uint64_t backend_recorded_bytes(const struct backend *backend);
/* Inputs may come back with rows added behind the last (pads: token 0, position and slot -1), never beyond
 * cap_rows and cap_logits; then operations compute those too. */
enum pass_way backend_pass_begin(struct lane *lane, struct pass_desk *desk, struct pass_inputs *inputs);
uint64_t backend_pass_end(struct lane *lane, struct pass_desk *desk, const struct pass_result *result);
/* Where the host finds the logits of the pass that ended last, once its ticket has passed. */
const float *backend_pass_logits(const struct backend *backend, const struct pass_desk *desk, const float *logits);

/* ---- choices where the rows are ----
 * A device may choose tokens from the rows of the pass that ended last with a desk, so that answers of a few
 * bytes come to the host and no rows: those of sampling_choose() and of a draft's chooser, bit for bit. */
bool backend_chooses(const struct backend *backend, const struct pass_desk *desk);
enum { CHOICE_SIBLINGS = 2, CHOICE_TOP = 20, CHOICE_MAX_RANKED = 64, CHOICE_MAX_BIASES = 1024 };
/* One row and what is asked of it: struct sampling_params in words of this room (sampling_choice_ask()). Arrays
 * are the host's, and read before the call returns. */
struct choice_ask {
    int32_t row, position;   /* row: among those of the pass; position: of the token */
    uint64_t seed;
    float temperature;
    bool is_plain;           /* what follows, up to the siblings, changes nothing */
    float top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int32_t top_k, penalty_last_n, n_top_logprobs;
    int32_t n_history;       /* 0 where nothing looks back */
    const int32_t *history;  /* [n_history] tokens before the position */
    int32_t n_biases;
    const void *biases;      /* [n_biases] of struct choice_bias, no id twice */
    int32_t n_siblings;      /* what would be chosen if the token, then its first sibling, were not there */
};
struct choice_bias { int32_t id; float bias; };
struct choice_answer {
    int32_t id;              /* -1: the row cannot be used */
    float hint, logprob;     /* hint: its share of the softmax at temperature 1, if hints are wanted */
    int32_t n_siblings;      /* fewer where there is nothing left to choose */
    struct { int32_t id; float hint; } sibling[CHOICE_SIBLINGS];
    int32_t n_top;
    struct { int32_t id; float logprob; } top[CHOICE_TOP];
};
/* Ids that may be chosen: below n_vocab; of those, where rows have n_kept columns, the ones listed. */
struct choice_domain { int32_t n_vocab, n_kept; const int32_t *kept_ids; /* [n_kept] ascending, on the device */ };
struct op_choose {
    struct choice_domain domain;
    const struct choice_ask *asks;  /* [n] */
    struct choice_answer *answers;  /* [n] */
    int32_t n;
    bool wants_hints;
};
/* Waits for the answers, and so for the pass. An error of the device is told; answers are -1 then. */
enum status backend_choose(struct lane *lane, struct pass_desk *desk, const struct op_choose *op);
/* The n_wanted likeliest ids of a row in order, as draft_chooser_rank() has them by the coupled rule. */
struct rank_ask { struct choice_ask how; int32_t excluded /* -1: none */, n_wanted; };
struct op_rank {
    struct choice_domain domain;
    const struct rank_ask *asks;    /* [n] */
    int32_t *const *ids;            /* [n] of [n_wanted] */
    int32_t *n_found;               /* [n] */
    int32_t n;
};
enum status backend_rank(struct lane *lane, struct pass_desk *desk, const struct op_rank *op);
/* Rows that stayed come to the host while the lane goes on: the next pass with the desk waits until they have
 * left, the caller when it wants them. One fetch at a time. */
struct op_fetch { const int32_t *rows; /* [n] read before the call returns */ int32_t n; };
void backend_fetch(struct lane *lane, struct pass_desk *desk, const struct op_fetch *op);
/* Those fetched last, at their places among all rows of that pass, [n_logits, n_cols]: until the next fetch, or
 * a pass whose rows come to the host. An error of the device is told. */
enum status backend_await(struct lane *lane, struct pass_desk *desk, const float **logits);

/* ---- operations ---- */
/* out[row] = row token[row] of the embedding, widened to fp32 */
struct op_embed { const struct weight *table; const int32_t *token; float *out; int32_t n_rows; };
void backend_embed(struct lane *lane, const struct op_embed *op);

/* RMSNorm of x[row_idx ? row_idx[i] : i] into row i of out, in the kinds asked for */
struct op_norm {
    const float *x;          /* [*, n_cols] */
    const int32_t *row_idx;  /* [n_rows] or NULL */
    const float *weight;     /* [n_cols] */
    float eps;
    int32_t n_rows;
    int kinds;               /* ACT_F32 | ACT_Q8 */
    const struct act *out;
};
void backend_norm(struct lane *lane, const struct op_norm *op);

/* floats that already lie in act.f32 → quantised panels of the same act */
struct op_quantize { const struct act *act; int32_t n_rows; };
void backend_quantize(struct lane *lane, const struct op_quantize *op);

/* part i: out_i[row, o] = (add_i ? add_i[row, o] : +0 omitted) + (bias_i[o] omitted if NULL) + W_i x.
 * Order: total, then + bias, then + add. out == add is allowed. */
enum { LINEAR_PARTS = 3 };
/* Segments in groups that a caller will add up itself: group i of n holds begin[i] .. begin[i + 1] - 1. */
struct linear_groups { int32_t n, begin[SUM_GROUPS + 1]; };
struct op_linear {
    struct {
        const struct weight *weight;
        float *out;            /* [n_rows, n_out] */
        const float *add;      /* [n_rows, n_out] or NULL */
        const float *bias;     /* [n_out] or NULL */
    } part[LINEAR_PARTS];
    int32_t n_parts;           /* share x */
    const struct act *x;
    int32_t n_rows;
    const struct linear_groups *groups; /* NULL; or out is group sums, [groups.n, n_rows, n_out], no add or bias */
};
void backend_linear(struct lane *lane, const struct op_linear *op);

/* Norms each head of q and k (RMSNorm over head_dim) where norm weights are given, rotates q and k in
 * place (rotate-half pairs i, i + rope_dims / 2), stores k and v at slot[row] (page * page_slots +
 * offset; -1 stores nothing). */
struct op_rope_store {
    float *q;               /* [n_rows, n_heads, head_dim] */
    float *k;               /* [n_rows, n_kv_heads, head_dim] */
    const float *v;         /* [n_rows, n_kv_heads, head_dim] */
    const float *cos, *sin; /* [positions, rope_dims / 2] */
    const int32_t *position, *slot; /* [n_rows] */
    const struct kv_store *store;
    int32_t layer, n_rows, n_heads, rope_dims;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float norm_eps;
};
void backend_rope_store(struct lane *lane, const struct op_rope_store *op);

/* Causal attention of each row over positions 0..position[row] of its sequence (the last `window`
 * of them when window > 0), reading K and V as stored. */
struct op_attention {
    const float *q;                 /* [n_rows, n_heads, head_dim] */
    float *out;                     /* [n_rows, n_heads, head_dim] */
    const struct kv_view *views;    /* a row's is views[seq_of_row[row]] */
    const int32_t *seq_of_row;      /* [n_rows] */
    const int32_t *position;        /* [n_rows]; < 0: a pad row, gives zeros */
    const struct kv_store *store;
    int32_t layer, n_rows, n_heads, window;
    /* heads that a KV head serves, and of the first one's how many are not among these; 0, 0: all heads
     * are here, n_heads / n_kv_heads each */
    int32_t n_group, head_skip;
    float scale;
};
void backend_attention(struct lane *lane, const struct op_attention *op);

/* out = silu(gate) * up, in the kinds asked for */
struct op_swiglu {
    const float *gate, *up; /* [n_rows, n_cols] */
    int32_t n_rows;
    int kinds;
    const struct act *out;
};
void backend_swiglu(struct lane *lane, const struct op_swiglu *op);

/* out[row] = x[row] for the host: out is memory of the host, n_rows * n_cols floats */
struct op_tap { const float *x; float *out; int32_t n_rows, n_cols; };
void backend_tap(struct lane *lane, const struct op_tap *op);

/* ---- experts: each row goes through a few of many feed-forward layers ---- */
/* Matrices of one shape, one per expert. */
struct expert_weights {
    struct weight first;            /* of expert 0 */
    size_t stride_bytes;            /* from one expert's tiles to the next one's */
};
/* Which experts each row takes. The rows of an expert stand in a run of *places*, runs and rows
 * ascending: an act whose rows are places holds, from begin[e] on, an act of that expert's rows
 * alone. Filled by backend_route, read by the operations below; made once for the largest pass. */
struct routes {
    int32_t n_experts, n_used, cap_rows;
    int32_t n_places, n_touched;    /* of this pass; a pad row has no place */
    int32_t first_here, n_here;     /* experts whose weights are here: all, but where ranks share them out;
                                     * places of the others are passed over */
    int32_t *expert;                /* [cap_rows, n_used] ascending in each row */
    float *weight;                  /* [cap_rows, n_used] */
    int32_t *place;                 /* [cap_rows, n_used]; -1: a pad row */
    int32_t *row, *owner;           /* [cap_rows * n_used] row and expert of each place */
    int32_t *begin;                 /* [n_experts + 1] first place of each expert */
    int32_t *next;                  /* [n_experts] while places are handed out */
    int32_t *touched;               /* [n_experts] the experts that have rows, ascending */
    _Atomic uint64_t bytes_read;    /* of expert weights, file format, since backend_routes_init; a CPU counts */
};
bool backend_has_experts(const struct backend *backend);
/* On this device: places of a pass of cap_rows at most, bytes (0: the shape cannot be), and the struct whose
 * arrays lie in the device's memory. */
int32_t backend_places_most(const struct backend *backend, int32_t n_experts, int32_t n_used, int32_t cap_rows);
size_t backend_routing_bytes(const struct backend *backend, int32_t n_experts, int32_t n_used, int32_t cap_rows);
void backend_routing_init(const struct backend *backend, struct routes *routes, int32_t n_experts, int32_t n_used,
                          int32_t cap_rows, void *memory);
/* The same on the host. */
size_t backend_routes_bytes(int32_t n_experts, int32_t n_used, int32_t cap_rows);
void backend_routes_init(struct routes *routes, int32_t n_experts, int32_t n_used, int32_t cap_rows,
                         void *memory);

/* Softmax over all logits of a row, the n_used highest (lowest id among equals), their probabilities
 * as weights. */
struct op_route {
    const float *logits;            /* [n_rows, n_experts] */
    const int32_t *position;        /* [n_rows]; < 0: a pad row, takes no expert */
    struct routes *routes;
    int32_t n_rows;
    bool normalised;                /* weights of a row are divided by their sum (ascending ids) */
};
void backend_route(struct lane *lane, const struct op_route *op);

/* out's row `place` = x's row of that place, in the kinds asked for. */
struct op_gather {
    const float *x;                 /* [n_rows, out->n_cols] */
    const struct routes *routes;
    int32_t n_rows;                 /* of the pass */
    int kinds;
    const struct act *out;          /* cap_rows >= n_rows * n_used */
};
void backend_gather(struct lane *lane, const struct op_gather *op);

/* out_i[place] = W_i of the place's expert times x[place]. Reads the experts touched, no others. */
enum { EXPERT_PARTS = 2 };
struct op_expert_linear {
    struct { const struct expert_weights *weights; float *out; } part[EXPERT_PARTS];
    int32_t n_parts;                /* share x */
    const struct act *x;            /* rows are places */
    struct routes *routes;
    int32_t n_rows;                 /* of the pass */
};
void backend_expert_linear(struct lane *lane, const struct op_expert_linear *op);

/* out[place] = silu(gate) * up, in the kinds asked for */
struct op_expert_swiglu {
    const float *gate, *up;         /* [places, out->n_cols] */
    const struct routes *routes;
    int32_t n_rows;
    int kinds;
    const struct act *out;
};
void backend_expert_swiglu(struct lane *lane, const struct op_expert_swiglu *op);

/* x[row] += sum of a row's experts, ascending: acc = fma(weight, y[place], acc) from +0 */
struct op_combine {
    const float *y;                 /* [places, n_cols] */
    float *x;                       /* [n_rows, n_cols] */
    const struct routes *routes;
    int32_t n_rows, n_cols;
};
void backend_combine(struct lane *lane, const struct op_combine *op);

/* ---- ranks: what several processes hold of a row comes together (comm.h) ---- */
bool backend_has_ranks(const struct backend *backend);
/* What exchanges of a group need of devices, before its model's first pass; all ranks together, whatever device each
 * has. Closed when what passes computed in is gone. */
enum status backend_ranks_open(struct backend *backend, struct comm *comm);
void backend_ranks_close(struct backend *backend);
/* parts.first is read when it takes place; parts.own NULL: in its place in parts.all */
struct op_exchange { struct comm *comm; struct comm_parts parts; };
void backend_exchange(struct lane *lane, const struct op_exchange *op);
/* x += sum of the groups, ascending from +0 */
struct op_fold {
    const float *sums;              /* [n_groups, n_rows, n_cols] */
    float *x;                       /* [n_rows, n_cols] */
    int32_t n_groups, n_rows, n_cols;
};
void backend_fold(struct lane *lane, const struct op_fold *op);
/* out = (add omitted if NULL) the columns of a row side by side: those of rank r are first[r] ..
 * first[r + 1] - 1 and lie as [n_rows, so many] from float n_rows * first[r] on. Order: they + add. */
struct op_columns {
    const float *parts;
    const int32_t *first;           /* [n_ranks + 1] */
    const float *add;               /* [n_rows, first[n_ranks]] or NULL; out == add is allowed */
    float *out;                     /* [n_rows, first[n_ranks]] */
    int32_t n_ranks, n_rows;
};
void backend_columns(struct lane *lane, const struct op_columns *op);
/* out[row] = row `row` of part part[row] */
struct op_pick {
    const float *x;                 /* [parts, n_rows, n_cols] */
    const int32_t *part;            /* [n_rows] */
    float *out;                     /* [n_rows, n_cols] */
    int32_t n_rows, n_cols;
};
void backend_pick(struct lane *lane, const struct op_pick *op);

/* All layers of page src to page dst. */
struct op_page_copy { const struct kv_store *store; uint32_t src, dst; };
void backend_page_copy(struct lane *lane, const struct op_page_copy *op);

/* ---- direct calls on host memory, on the calling thread, in the backend's instruction set ---- */
/* Highest value, lowest index among equals; *bad is set when any value is NaN or +inf. */
int32_t backend_argmax(const struct backend *backend, const float *x, int64_t n, bool *bad);
/* x[i] = exp(x[i] - max), returns the canonical sum of a row (64 partials and a tree). */
float backend_exp_sum(const struct backend *backend, float *x, int64_t n, float max);
/* as rng_gumbel_fill, vectorised */
void backend_gumbel(const struct backend *backend, uint64_t seed, uint32_t position, uint32_t first,
                    uint32_t n, float *noise);
/* as rng_gumbel_fill_below_inline: the same but for noise of words from `limit` on, which may be -inf */
void backend_gumbel_below(const struct backend *backend, uint64_t seed, uint32_t position, uint32_t first,
                          uint32_t n, uint64_t limit, float *noise);
/* One slot's K and V of one layer as floats, [n_kv_heads, head_dim] each (tests, digests). */
void kv_store_read(const struct kv_store *store, int32_t layer, int32_t slot, float *k, float *v);
/* Fills a page of every layer with NaN (tests: freed memory must not be read). */
void kv_store_poison(const struct kv_store *store, uint32_t page, int32_t first_slot, int32_t n_slots);

/* ---- roofs: what this machine can do, measured ---- */
struct roof_options {
    const int *cpus;           /* [n_threads]; NULL: not pinned */
    int n_threads;
    double seconds;
    const unsigned char *memory; /* what to read, page-aligned, borrowed; NULL: a buffer far larger than */
    size_t memory_bytes;       /* the caches, kept for the life of the process */
};
/* Best of several streaming-load loops, bytes/s; 0 when there is nothing to read. */
double roof_read_bandwidth(struct backend *backend, const struct roof_options *options);
/* Independent chains of the int8 dot-product sequence of the instruction set, MAC/s. */
double roof_integer_peak(struct backend *backend, const struct roof_options *options);
/* Independent fma chains, FMA/s. */
double roof_float_peak(struct backend *backend, const struct roof_options *options);

#endif
