/* tandem.h: the public C API of Tandem, a speculative and parallel decoding runtime.
 *
 * Two nouns: an *engine* (a model on its devices, its memory, its step thread) and a *request* (a
 * prompt and how to continue it). Requests are submitted from any thread and run together; what
 * happens to them comes back as *events* in one queue. Output is exactly what plain decoding of the
 * request alone would give, whatever else runs beside it.
 *
 * Thread rules: td_engine_open and td_engine_close from one thread; td_submit, td_cancel from any;
 * td_next_event from one consumer thread at a time. Errors: functions return a td_status; the
 * sentence for people is td_error_message() of the same thread.
 */
#ifndef TANDEM_H
#define TANDEM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TD_VERSION "0.1.0"

enum td_status {
    TD_OK = 0,
    TD_INVALID,     /* a file, option or request that is wrong */
    TD_UNSUPPORTED, /* well-formed, but not something this build can do */
    TD_NO_MEMORY,
    TD_IO,
    TD_REFUSED,     /* queue full: try again later */
    TD_TIMEOUT,     /* td_next_event: nothing happened in time */
    TD_CLOSED       /* td_next_event: no request is running or queued */
};
const char *td_error_message(void);

/* ---- ranks: processes that hold one target together ---- */
struct td_ranks;
/* The group that mpirun or srun (a build with MPI=1) or RANK, WORLD_SIZE, MASTER_ADDR started this process in; of
 * one without. Once, before any engine. */
enum td_status td_ranks_join(struct td_ranks **out, int32_t *rank, int32_t *n_ranks);
void td_ranks_leave(struct td_ranks *ranks); /* every rank, after its last engine is closed */

/* ---- engine ---- */
struct td_engine;
/* All fields have a default: start from td_engine_options_init(). Strings are borrowed for the call. */
struct td_engine_options {
    const char *target;        /* GGUF file or "synth:..."; required */
    const char *draft;         /* "none", "auto", "ngram", "suffix", "layerskip", a model, "tcp:host:port" or
                                * "unix:/path" of a draft worker; "a,b": several */
    const char *draft_key_file; /* what a draft worker asks for: the first line of this file; NULL = nothing */
    int32_t draft_wait_us;     /* a step waits for a draft worker's answer, at most; < 0: as long as answers
                                * usually take, measured (default) */
    const char *draft_vocab;   /* ids a model draft may propose: how many frequent ones, or a file; NULL = all */
    const char *verify;        /* "coupled", "rejection" */
    int32_t k;                 /* tokens drafted a round, 0..16; < 0: as many as pay (default) */
    const char *target_device; /* "cpu", "cpu:0-3", "cuda:0"; "cuda:0,1": several hold it; NULL = threads below */
    const char *draft_device;  /* cores of a draft model, as above; NULL = those of the target */
    const char *ahead;         /* whether a draft model works while the target does: "auto", "on", "off" */
    int32_t ahead_budget;      /* outcomes of a round that it prepares for, 1..64; 0: as many as fit */
    const char *fanout;        /* how they are spread: "learned", "geometric", "uniform", "list:9,6,4" */
    const char *fallback;      /* where none of them came true: "auto", "none", "lookup", "branch",
                                * "draft"; always the last with the rejection rule and a fixed K */
    int32_t saguaro_top;       /* rejection rule: so many likeliest ids of a draft's row, 0 (default) to 256, .. */
    float saguaro_factor;      /* .. are drawn with this share, 0..1, of their odds: fewer proposals are
                                * accepted, more outcomes were prepared for (Saguaro sampling) */
    int32_t ahead_hits;        /* percent of prepared proposals used, the others are dropped: for tests (default 100) */
    int32_t lend;              /* 1 = idle cores of one device help the other (default 1) */
    int32_t virtual_pass_us, virtual_row_us; /* for measurements: a target's pass of n rows lasts so long + n times
                                * so long, if it can; 0, 0 = as long as it takes */
    int32_t virtual_draft_us;  /* likewise a draft model's pass, whatever its rows */
    const char *isa;           /* "scalar", "avx2", "avx512"; NULL = best */
    const char *plan;          /* numeric rules: "exact"; "native", "fast": GPUs alone */
    const char *kv;            /* "f16", "f32" */
    const char *quant;         /* weights converted while loading: "q8_0", ...; NULL: as the file has them */
    int32_t threads;           /* 0 = the physical cores this process may use */
    int32_t context;           /* positions a sequence may have; 0 = the model's, at most 4096 */
    int32_t page;              /* slots of a KV page: 16, 32, 64, ... (default 64) */
    int32_t prefill_chunk;     /* prompt rows in one pass, at most (default 512) */
    int32_t max_batch;         /* sequences running at once (default 1) */
    int32_t max_queue;         /* requests waiting, before td_submit refuses (default 1024) */
    uint64_t memory_bytes;     /* budget of each device for weights, KV and scratch; 0 = what is free */
    int32_t kv_pages;          /* pages in the pool; 0 = enough for max_batch * context */
    int32_t prefix_cache;      /* 1 = share computed prompt pages between requests (default 1) */
    int32_t mlock;             /* 1 = lock weights in memory */
    struct td_ranks *ranks;    /* this is rank 0 and the others follow; NULL = this process alone */
    /* called while weights load; done and total in bytes; may be NULL */
    void (*progress)(void *user, uint64_t done_bytes, uint64_t total_bytes);
    void *progress_user;
};
void td_engine_options_init(struct td_engine_options *options);
enum td_status td_engine_open(const struct td_engine_options *options, struct td_engine **out);
void td_engine_close(struct td_engine *engine); /* cancels what still runs; frees everything */
/* Ranks above 0: holds this rank's part of the engines that rank 0 opens, until rank 0 leaves. Reads ranks,
 * isa, threads, target_device, mlock, memory_bytes; the rest is rank 0's to say. */
enum td_status td_engine_follow(const struct td_engine_options *options);

enum { TD_MAX_DRAFTED = 16, TD_MAX_SOURCES = 8 };
struct td_engine_info {
    const char *model_name, *architecture, *plan, *kv, *isa; /* live as long as the engine */
    uint64_t fingerprint;      /* model digest, conversion, KV type, plan (native, fast: the device too), canonical version */
    uint64_t weight_bytes;     /* file format: what a pass reads */
    uint64_t resident_weight_bytes, kv_bytes, scratch_bytes;
    uint64_t draft_bytes;      /* weights, KV and buffers of a draft model */
    const char *draft, *draft_sources[TD_MAX_SOURCES]; /* as opened; names behind it, NULL beyond the last */
    int32_t n_vocab, context, model_context, threads, n_layers, page;
    int32_t draft_threads;     /* of a draft model's own device; 0 = it runs where the target does */
    double load_seconds;
};
void td_engine_get_info(const struct td_engine *engine, struct td_engine_info *info);
/* What target and draft take of devices, and of how much (0: unknown); recorded: of scratch, for a GPU's recordings. */
struct td_memory { const char *model, *device; uint64_t weight_bytes, kv_bytes, scratch_bytes, device_bytes, recorded_bytes; };
int td_engine_get_memory(const struct td_engine *engine, struct td_memory rows[2]);
/* Bytes a second at which the engine's cores read its weights, measured for about `seconds`; 0: unknown. No
 * decoding is faster. Call it while no request runs. */
double td_engine_read_roof(const struct td_engine *engine, double seconds);

/* What the model's makers advise for sampling, as its files say it, unchecked; below 0: not said.
 * Nothing uses it unasked. */
struct td_hints { float temperature, top_p, min_p, repetition_penalty; int32_t top_k; };
void td_engine_get_hints(const struct td_engine *engine, struct td_hints *hints);

/* What was drafted, and what of it the target agreed with. Tokens cut by a stop count as neither. */
struct td_draft_counts {
    int64_t rounds, proposed, accepted; /* rounds: with at least one proposed */
    int64_t accepted_by_position[TD_MAX_DRAFTED];
    int64_t proposed_by_source[TD_MAX_SOURCES], accepted_by_source[TD_MAX_SOURCES];
};
/* A draft that works while the target verifies: what it had prepared, and what drafting was waited for. */
struct td_ahead_counts {
    uint64_t hits, misses, unprepared;     /* rounds of sequences; unprepared: first ones, and after a preemption */
    uint64_t branches_grown, branches_used;
    uint64_t tokens_served, tokens_wanted; /* of hits */
    double hidden_seconds, exposed_seconds, fallback_seconds; /* beside a verify; waited for; of that, behind misses */
    uint64_t glues, grow_steps;            /* passes over what is verified, and of branches */
    double glue_seconds, grow_seconds;     /* theirs, choices included */
};
/* Counters since open; a snapshot, from any thread. */
struct td_engine_stats {
    uint64_t steps, target_passes, rows, committed_tokens, prompt_tokens, prefix_hit_tokens;
    uint64_t preemptions, cancelled, finished, failed;
    uint64_t page_copies;      /* KV pages copied on write, the only KV bytes that ever move */
    uint64_t scheduler_cpu_ns; /* step thread's CPU time outside passes and sampling */
    uint64_t pass_ns;          /* wall time inside target passes */
    uint64_t late_passes;      /* that took longer than virtual_pass_us asked */
    struct td_draft_counts drafted;
    struct td_ahead_counts ahead; /* all zero: the draft does not work ahead */
    double speedup_vs_plain;   /* tokens/s over those of plain rounds, measured; 0 = not yet */
    double draft_seconds, verify_seconds;
    int32_t running, waiting, pages_total, pages_free, pages_held, pages_cached;
};
void td_engine_get_stats(struct td_engine *engine, struct td_engine_stats *stats);

/* ---- text ---- */
/* Bytes to ids and back with the target's tokenizer. *n_ids is what the text needs; call again with
 * more room when it exceeds cap. flags: TD_TOKENIZE_*. TD_UNSUPPORTED when the model has none. */
enum { TD_TOKENIZE_NO_SPECIAL = 1, TD_TOKENIZE_LITERAL = 2 };
enum td_status td_tokenize(struct td_engine *engine, const char *text, size_t n_bytes, int flags,
                           int32_t *ids, size_t cap, size_t *n_ids);
enum td_status td_detokenize(struct td_engine *engine, const int32_t *ids, size_t n_ids, char *text,
                             size_t cap, size_t *n_bytes);

/* A conversation that ends with the user's message, to the ids of a prompt that opens the answer. What
 * messages hold never becomes a special token. *end_id (may be NULL): the token that ends an answer,
 * -1 = none; a request takes it as a stop id. TD_UNSUPPORTED when the model's template is none of the
 * formats known. */
struct td_message { const char *role, *text; size_t n_text; }; /* "system", "user", "assistant" */
struct td_chat {
    const char *format;        /* "chatml", "llama2", "llama3", "zephyr", "mistral"; NULL = the model's */
    const struct td_message *messages;
    size_t n_messages;
};
enum td_status td_tokenize_chat(struct td_engine *engine, const struct td_chat *chat, int32_t *ids, size_t cap,
                                size_t *n_ids, int32_t *end_id);

/* ---- request ---- */
struct td_bias { int32_t id; float bias; };
struct td_request {
    const int32_t *ids;        /* [n_ids] the prompt, not empty; copied by td_submit */
    size_t n_ids;
    int64_t max_tokens;        /* < 0: until the context ends; 0: nothing, ends at once */
    float temperature;         /* 0 = greedy */
    int32_t top_k;             /* 0 = off */
    float top_p, min_p;        /* 1 = off; 0 = off */
    float repetition_penalty, presence_penalty, frequency_penalty; /* 1, 0, 0 = off */
    int32_t has_seed;          /* 0: the OS gives one, reported in the finish event */
    uint64_t seed;
    const struct td_bias *biases;
    size_t n_biases;
    const char *const *stops;  /* stop strings; the text ends before them */
    size_t n_stops;
    const int32_t *stop_ids;   /* further ids that end the text; the id is reported, its text is not */
    size_t n_stop_ids;
    int32_t ignore_eos;
    int32_t logprobs;          /* -1 none, 0..20 alternatives per token */
    int32_t n;                 /* choices: n > 1 makes n requests that share the prompt's KV; events carry `choice` */
    int32_t k;                 /* tokens drafted a round; 0: plain decoding; < 0: the engine's way (default) */
    uint64_t tenant;           /* computed prompts and learned texts are shared within a tenant alone (default 0) */
    int32_t priority;          /* higher first */
    int32_t want_text;         /* 1: events carry UTF-8 text (default), 0: ids only */
    void *user;                /* comes back in every event */
};
void td_request_init(struct td_request *request);
enum td_status td_submit(struct td_engine *engine, const struct td_request *request, uint64_t *id);
void td_cancel(struct td_engine *engine, uint64_t id); /* a finish event still comes */

/* ---- events ---- */
enum td_event_kind { TD_EVENT_TOKENS, TD_EVENT_FINISHED };
enum td_finish { TD_FINISH_STOP, TD_FINISH_LENGTH, TD_FINISH_CONTEXT, TD_FINISH_CANCELLED, TD_FINISH_ERROR };
const char *td_finish_name(enum td_finish finish); /* "stop", "length", "context", "cancelled", "error" */

struct td_logprob { int32_t id; float logprob; };
struct td_token {
    int32_t id;
    float logprob;
    const struct td_logprob *top; /* [n_top] */
    int32_t n_top;
    int32_t source;            /* which source of the draft proposed it; -1: it is the target's own */
    int32_t rejected_id;       /* what the draft had proposed in its place; -1: nothing */
    int32_t rejected_source, n_rejected; /* n_rejected: proposed tokens that fell with it, itself included */
};
struct td_usage {
    uint64_t seed;             /* of this choice: alone with it, the request gives the same again */
    uint64_t logits_digest, fingerprint;
    int64_t prompt_tokens, cached_prompt_tokens, completion_tokens, target_passes;
    struct td_draft_counts drafted;
    double queue_seconds, prefill_seconds, decode_seconds, first_token_seconds; /* from td_submit */
};
/* Pointers are valid until the next td_next_event on this engine. */
struct td_event {
    enum td_event_kind kind;
    uint64_t id;
    int32_t choice;               /* 0..n-1 */
    void *user;
    const struct td_token *tokens; /* TD_EVENT_TOKENS: newly final tokens, in order */
    size_t n_tokens;
    const char *text;             /* whole UTF-8 characters; may be empty; also in FINISHED (the rest) */
    size_t n_text;
    enum td_finish finish;        /* TD_EVENT_FINISHED, the last event of a choice */
    const char *error;            /* TD_FINISH_ERROR: one sentence, else NULL */
    struct td_usage usage;        /* TD_EVENT_FINISHED */
};
/* Waits up to timeout_ns (< 0 for ever). TD_TIMEOUT, or TD_CLOSED when nothing runs or waits. */
enum td_status td_next_event(struct td_engine *engine, int64_t timeout_ns, struct td_event *event);

#ifdef __cplusplus
}
#endif

#endif
