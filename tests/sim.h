/* sim: the real scheduler over a table instead of a model. The simulated device keeps, for each KV
 * slot, the token and the position that were written there; logits are a hash of the tokens a row
 * sees through its page table. So a page read by the wrong sequence, overwritten, copied late or not
 * at all changes the text, and what a request gives alone is a few lines of arithmetic.
 */
#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include "scheduler/private.h"

enum { SIM_VOCAB = 61, SIM_EOS = 2, SIM_NAN = 60 /* this token makes its row a NaN, if asked for */ };

struct sim_options {
    int32_t page_slots, n_pages, context, max_batch, prefill_chunk, prefix_cache;
    int threads;
    int32_t tied;        /* 1: logits of three values only */
    int32_t nan_token;   /* 1: SIM_NAN is poison */
    const char *draft_pattern; /* not NULL: a draft that proposes; see sim.c */
    struct draft *draft; /* not NULL: this one instead, borrowed */
    int32_t k_max;
    int32_t poisons;     /* 1: after each step, what no sequence has cached holds nonsense (O5) */
};
struct sim_options sim_defaults(void); /* 4 sequences of 128 positions, pages of 16 */

/* A request as a value; prompts are made from prompt_seed, so that equal seeds share prefixes. */
struct sim_spec {
    uint64_t prompt_seed, seed;
    int32_t n_prompt;
    int32_t shared;          /* the first `shared` tokens come from seed 0 */
    int64_t max_tokens;
    float temperature, repetition_penalty;
    int32_t top_k, n, priority, ignore_eos, logprobs;
    int32_t first_id;        /* > 0: the prompt's first token - 1 (odd ids) */
    int32_t k_and_one;       /* > 0: its own K - 1 */
    float presence_penalty, frequency_penalty, bias; /* bias: of ids 7 and, the other way, 11 */
    const int32_t *tokens;   /* not NULL: the prompt itself; outlives the sim */
};
struct sim_spec sim_spec(uint64_t prompt_seed, int32_t n_prompt, int64_t max_tokens);
void sim_prompt(const struct sim_spec *spec, int32_t *tokens);

struct sim; /* a target, a scheduler, and the requests it was given */
struct sim *sim_open(const struct sim_options *options);
void sim_close(struct sim *sim);
struct scheduler *sim_scheduler(struct sim *sim);
/* Place of the request, for the calls below. */
int32_t sim_submit(struct sim *sim, const struct sim_spec *spec);
struct request *sim_request(struct sim *sim, int32_t idx);
int32_t sim_n_requests(const struct sim *sim);
void sim_cancel(struct sim *sim, int32_t idx);
/* Logits after these tokens. */
void sim_logits(const struct sim *sim, const int32_t *tokens, int32_t n, float *logits /* [SIM_VOCAB] */);
/* Rounds in which the draft was asked. */
int32_t sim_n_draft_rounds(const struct sim *sim);
/* The next pass fails. */
void sim_break_device(struct sim *sim);
/* Every later pass runs `hook` between plan and commit. */
void sim_on_pass(struct sim *sim, void (*hook)(void *user), void *user);

/* One step, then every check: pages, lengths, what the slots hold. NULL, or what is wrong. */
const char *sim_step(struct sim *sim);
/* Steps until nothing runs or waits. */
const char *sim_run(struct sim *sim);
/* All that is finished is what it would be alone: ids, digest, ending. NULL, or what is wrong. */
const char *sim_compare(struct sim *sim);
/* Pages are free or cached, every one. */
const char *sim_is_empty(struct sim *sim);

#endif
