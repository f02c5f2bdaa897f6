/* model: files that hold weights, and the transformer, written once over backend operations.
 *
 * A *source* is something tensors can be read from (a GGUF file, random numbers; folders later): a
 * table of functions, one file each. A *model* is weights repacked for a backend, with its config.
 * A *pass* is one forward computation over ragged rows. model does not know page tables' owners: rows
 * reach KV through a kv_view.
 */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/base.h"

enum { MODEL_MAX_EOS = 8, MODEL_NAME_CAP = 64, MODEL_MAX_ROPE_PAIRS = 128 };
enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_LLAMA3, ROPE_SCALING_YARN };

struct model_config {
    char name[MODEL_NAME_CAP];
    char architecture[MODEL_NAME_CAP]; /* as GGUF files name it: "llama", "qwen3moe" */
    int32_t n_layers, dim, ffn_dim, n_heads, n_kv_heads, head_dim, n_vocab, context_len;
    float norm_eps;
    int32_t window;                    /* sliding window, 0 = none */
    struct {
        int32_t dims;                  /* rotated dimensions of a head, even, <= head_dim */
        double base;
        enum rope_scaling scaling;
        double factor, low_freq_factor, high_freq_factor, attention_factor, beta_fast, beta_slow;
        int32_t original_context;
    } rope;
    struct {
        int32_t n, n_used;             /* experts, and how many a row takes; n = 0: a dense model */
        int32_t ffn_dim;               /* of one expert */
        bool normalised;               /* weights of a row add up to 1 */
    } experts;
    bool tied_head;
    bool permuted_qk;                  /* rows as llama GGUFs hold them; put back at load */
    int32_t eos_ids[MODEL_MAX_EOS];
    int32_t n_eos;
};

/* ---- source ---- */
enum { MODEL_MAX_DIMS = 4 };
struct model_tensor_info {
    const char *name;                  /* GGUF names: "blk.0.attn_q.weight" */
    uint32_t type;                     /* GGUF number */
    int32_t n_dims;
    int64_t dims[MODEL_MAX_DIMS];      /* dims[0] is the contiguous one (n_in) */
    uint64_t bytes;
};
struct model_text { const char *bytes; uint32_t n_bytes; };
struct model_source;
/* "synth:...", the path of a GGUF file (the first of several that belong together), or that of a
 * Hugging Face folder. The structure is checked here: counts, sizes, offsets,
 * types, names. A well-formed file that cannot be run (vocabulary only, other architecture, wrong
 * shapes) opens all the same, for inspect and tokenize; model_source_check() says why it cannot. */
enum status model_source_open(const char *name, struct model_source **out);
/* The same over the bytes of a GGUF file in memory (borrowed until close). */
enum status model_source_open_bytes(const void *bytes, size_t n_bytes, struct model_source **out);
/* STATUS_OK when the source can be loaded: architecture known, config in range, every tensor there
 * with the right shape and a type we compute with. Call before using the config for anything but
 * names: until it is OK, fields may be 0. model_load() calls it too. */
enum status model_source_check(const struct model_source *source);
void model_source_close(struct model_source *source);
const struct model_config *model_source_config(const struct model_source *source);
int64_t model_source_n_tensors(const struct model_source *source);
enum status model_source_tensor(const struct model_source *source, int64_t idx,
                                struct model_tensor_info *info);
/* Rows [first, first + n) of a tensor seen as [rows, dims[0]], file format, to `out`; any thread. */
enum status model_source_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                              int64_t n_rows, void *out);
uint64_t model_source_bytes(const struct model_source *source); /* of the file, or its equivalent */
/* Metadata as text lines "key = value" for inspect, one call per key; arrays are summarised. */
void model_source_describe(const struct model_source *source,
                           void (*line)(void *user, const char *key, const char *value), void *user);
/* The vocabulary arrays in the file (borrowed, live as long as the source); NULL if it has none. */
struct model_vocab {
    const char *kind;                  /* tokenizer.ggml.model */
    const char *pre;                   /* tokenizer.ggml.pre or "" */
    const struct model_text *tokens;   /* [n_tokens], not NUL-terminated */
    const float *scores;               /* may be NULL */
    const int32_t *classes;            /* may be NULL */
    const struct model_text *merges;   /* [n_merges] "left right", best first; may be NULL */
    int32_t n_tokens, n_merges;
    int32_t bos_id, eos_id, unk_id, pad_id, eot_id;
    bool add_bos, add_eos, add_space_prefix;
    struct model_text chat_template;   /* tokenizer.chat_template; 0 bytes = none */
};
const struct model_vocab *model_source_vocab(const struct model_source *source);
/* What the model's makers advise for sampling (generation_config.json, general.sampling.* of GGUF files),
 * unchecked; below 0: not said. */
struct model_hints { double temperature, top_p, min_p, repetition_penalty; int32_t top_k; };
struct model_hints model_source_hints(const struct model_source *source);
/* A synthetic pair, as asked for: both sides, and the law planted in them. The target's next token is
 * the successor of the last one on a single cycle through the vocabulary; the draft has it first after
 * a share `agree` of the ids, elsewhere at a rank r > 1 with P(r > F) = F^-tail, at most max_rank; at
 * temperature 1 the top token has probability `peak`. */
enum model_pair_role { MODEL_PAIR_TARGET, MODEL_PAIR_DRAFT };
enum { MODEL_PAIR_MAX_RANK = 64 };
struct model_pair {
    double agree, tail, peak;
    int32_t max_rank;
    enum model_pair_role role;         /* the side that this source is */
    uint64_t seed;
    const char *target_shape, *draft_shape;
    uint32_t target_type, draft_type;  /* GGUF numbers */
};
/* NULL for everything that is no side of a synthetic pair; lives as long as the source. */
const struct model_pair *model_source_pair(const struct model_source *source);
/* The folder whose tokenizer.json holds the vocabulary; NULL where it is in the file itself. */
const char *model_source_folder(const struct model_source *source);
/* Writes source as a GGUF v3 file (synth --out; types unchanged). */
enum status model_source_write_gguf(struct model_source *source, const char *path,
                                    void (*progress)(void *user, uint64_t done, uint64_t total),
                                    void *user);

/* ---- another type ---- */
struct model_requantize_options {
    uint32_t type;                     /* of matrices, one that tensor_type_can_write() */
    struct lane *lane;                 /* converts in parallel and sums errors; NULL: the caller alone */
    int (*stop)(void *user);           /* not 0: reads end with STATUS_INTERRUPTED; may be NULL */
    void *stop_user;
    const struct model_vocab *vocab;   /* in place of the inner source's (borrowed); may be NULL */
};
/* `inner` with its tensors in another type, converted as they are read: vectors become F32, routers
 * stay floats, rows that are no whole number of blocks fall back to Q8_0 or F16, what has the type
 * already is passed on as it is. Values that are not finite are refused when read. With a lane one
 * thread at a time reads. The new source closes `inner`; after a failure the caller still does. */
enum status model_source_requantize(struct model_source *inner, const struct model_requantize_options *options,
                                    struct model_source **out);
/* model_source_open() for what will be loaded: matrices in the type of this name ("q8_0") where one is
 * given, else as they are but for types that cannot be computed with, which are converted. Its bytes
 * are those that loading takes in. */
enum status model_source_open_as(const char *name, const char *type_or_null, struct model_source **out);
struct model_requantize_report {
    uint32_t from, to;                 /* GGUF numbers */
    bool falls_back;                   /* the wanted type does not fit its rows */
    double error_squares, squares, largest_error; /* sums over what was read and converted */
};
void model_requantize_get_report(const struct model_source *source, int64_t tensor_idx,
                                 struct model_requantize_report *report);

/* ---- model ---- */
struct model;
struct model_load_options {
    bool mlock;
    int32_t context;                   /* positions the RoPE tables cover; 0 = the model's */
    uint64_t budget_bytes;             /* 0 = none; refused with both numbers when weights exceed it */
    struct comm *comm;                 /* ranks that load the model together, each its part; NULL: all of it here */
    void (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_user;
};
/* Repacks in parallel on `lane`; types we read but do not compute with become Q8_0, and a line says so.
 * Weights that are not finite numbers are refused. File pages are dropped as they are consumed: weights exist once. */
enum status model_load(struct model_source *source, struct lane *lane,
                       const struct model_load_options *options, struct model **out);
void model_destroy(struct model *model);
const struct model_config *model_get_config(const struct model *model); /* of the whole model */
/* KV heads that passes of this rank write and read: all, or those of its part, maybe none. */
int32_t model_n_kv_heads(const struct model *model);
const struct weight *model_head(const struct model *model); /* [n_vocab, dim] borrowed */
uint64_t model_digest(const struct model *model);         /* of config and weight bytes */
uint64_t model_weight_bytes(const struct model *model);   /* of this rank's part; file format, head included; a pass reads them all but experts it does not touch */
uint64_t model_resident_bytes(const struct model *model);
const void *model_memory(const struct model *model);      /* [model_resident_bytes], page-aligned */

/* ---- pass ---- */
struct pass_buffers;                    /* activations and row lists of the largest pass */
enum status pass_buffers_create(const struct model *model, int32_t cap_rows, int32_t cap_logits,
                                struct pass_buffers **out);
void pass_buffers_destroy(struct pass_buffers *buffers);
uint64_t pass_buffers_bytes(const struct pass_buffers *buffers);

/* All arrays live until the pass has completed. */
struct pass {
    int32_t n_rows, n_seqs, n_logits;
    const int32_t *token;               /* [n_rows] */
    const int32_t *position;            /* [n_rows]; -1 = pad row */
    const int32_t *slot;                /* [n_rows] where K and V go; -1 = nowhere (pad) */
    const int32_t *seq_of_row;          /* [n_rows] index into views */
    const struct kv_view *views;        /* [n_seqs] a sequence's, or a branch's where it has a path */
    const int32_t *logits_row;          /* [n_logits] rows whose logits are wanted */
    /* taps: residual stream before layer tap_layer (as many as run = after the last) of every row, fp32
     * [n_rows, dim]; NULL = not asked for */
    float *tap;
    int32_t tap_layer;
    /* only the first n_layers layers run, then the last norm and the head: 0 = all. K and V of the
     * layers left out are not written. */
    int32_t n_layers;
    /* instead of the model's head; NULL = that one. Same type and n_in, n_out at most the vocabulary:
     * logits rows have n_out floats then. */
    const struct weight *head;
    /* logits rows stay where they are computed, and tokens are chosen there: pass_buffers_desk() */
    bool rows_stay;
};
/* Submits the whole pass; returns its last ticket. Logits: pass_buffers_logits, row i of logits_row.
 * Of a model that ranks hold together all of them run the same pass, with the model's own head, one at a
 * time with these buffers; logits come to rank 0. The store then has model_n_kv_heads() heads. */
uint64_t model_forward(const struct model *model, struct lane *lane, const struct kv_store *store,
                       const struct pass *pass, struct pass_buffers *buffers);
const float *pass_buffers_logits(const struct pass_buffers *buffers); /* [cap_logits, n_vocab] */
/* With which backend_choose() reads the rows of the pass that ended last; NULL: the device has no such
 * operations, and rows do not stay. */
struct pass_desk *pass_buffers_desk(const struct pass_buffers *buffers);
/* Weight bytes (file format) that completed passes have read since creation: what all passes share, and
 * of experts those that were touched, counted where they are read. */
uint64_t pass_buffers_bytes_read(const struct pass_buffers *buffers);

#endif
