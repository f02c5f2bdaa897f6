/* equivalence: the same questions, asked of plain decoding alone and of every way to speculate, batch
 * and page, give the same answers: ids, text, logprobs, digests of logits and ends. Through
 * include/tandem.h alone.
 *
 *     subject ──► questions ──► plain answers (no draft, one at a time)
 *        │                            │ equal?
 *        └──► a plan of cells ──► answers of each cell ──► tally ──► table
 *
 * The program stands here, and a few cells of it in test_equivalence.c.
 */
#ifndef TESTS_EQUIVALENCE_H
#define TESTS_EQUIVALENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tandem.h"

/* ---- cells: one way to decode ---- */
enum { N_DRAFTS = 10, N_KS = 11, N_BATCHES = 5, N_PAGES = 2, N_POOLS = 2 };
enum { K_AUTO = 9, K_MIXED = 10 };   /* below them: that many tokens a round */
/* Places of drafts that other files know. A draft that works ahead has all its hits, half of them, or none,
 * and falls back on anything. The remote one is a worker on a socket. */
enum { DRAFT_MODEL = 4, DRAFT_AHEAD = 6, DRAFT_AHEAD_HALF = 7, DRAFT_AHEAD_MISS = 8, DRAFT_REMOTE = 9 };
extern const char *const DRAFT_NAMES[N_DRAFTS];
extern const char *const K_NAMES[N_KS];
extern const int32_t BATCHES[N_BATCHES], PAGES[N_PAGES];
struct cell { int32_t draft, k, batch, page, pool; }; /* indices; pool 1: too few pages for all */

enum { MAX_CELLS = N_DRAFTS * N_KS * N_BATCHES * N_PAGES * N_POOLS };
/* All cells, in an order whose first *n_covering meet every pair of values of two factors. */
struct plan { struct cell cells[MAX_CELLS]; int32_t n_cells, n_covering; };
void plan_make(struct plan *plan, uint64_t seed);

/* ---- subjects: a target and its drafts ---- */
struct subject {
    const char *name, *target;
    const char *drafts[N_DRAFTS];    /* as --draft, of the remote one the worker's model; NULL: none */
    bool drafts_itself;              /* the model draft is the target: all of it must be accepted */
    bool has_text;
    int32_t context, n_ids;          /* ids of prompts are below n_ids */
    const int32_t *lengths;          /* [MAX_QUESTIONS] of prompts */
};
enum { MAX_SUBJECTS = 8 };
/* Those whose files are there; paths of golden folders live in the caller's buffer. */
enum { SUBJECT_PATH_CAP = 1024 };
struct subjects {
    struct subject subject[MAX_SUBJECTS];
    char path[MAX_SUBJECTS][2 * SUBJECT_PATH_CAP];
    int32_t n;
};
void subjects_find(struct subjects *subjects);

/* ---- questions ---- */
enum { MAX_QUESTIONS = 16, MAX_CHOICES = 2, MAX_PROMPT = 2304, MAX_ANSWER = 136, TEXT_CAP = 2048 };
struct question {
    struct td_request request;       /* points into the rest */
    int32_t ids[MAX_PROMPT], stop_id;
    struct td_bias biases[3];
    char stop[16];
    const char *stops[1];
};
struct answer {
    int32_t ids[MAX_ANSWER], n_ids;
    char text[TEXT_CAP];
    size_t n_text;
    uint64_t logits_digest, fingerprint, logprobs_digest, seed;
    enum td_finish finish;
    bool is_finished;
};
struct answers { struct answer answer[MAX_QUESTIONS][MAX_CHOICES]; };

void questions_make(struct question *questions, const struct subject *subject, struct td_engine *engine);
/* Some end at something that stands in the middle of what was answered. */
void questions_add_stops(struct question *questions, const struct answers *answers, bool has_text);

/* ---- asking ---- */
struct asking {
    struct question *questions;      /* [MAX_QUESTIONS] */
    int32_t first, n;                /* which, round the end */
    int32_t at_once;                 /* in flight, at most */
    int32_t k;                       /* index into K_NAMES */
};
struct td_engine *engine_open(const struct subject *subject, const struct cell *cell); /* NULL: says why */
struct td_engine *engine_open_plain(const struct subject *subject);
void engine_close(struct td_engine *engine); /* and the worker that drafted for it; NULL is fine */
/* worker.c: a draft worker on a socket of its own, one at a time. Its address, NULL after a sentence. */
const char *worker_start(const struct subject *subject);
void worker_end(void);
/* False after a sentence: a call failed, or an answer does not fit. */
bool ask_all(struct td_engine *engine, const struct asking *asking, struct answers *answers);

/* ---- comparing ---- */
struct tally {
    int64_t n_runs[N_DRAFTS][N_KS], n_different[N_DRAFTS][N_KS];
    int64_t n_steps[N_DRAFTS], n_passes[N_DRAFTS], n_tokens[N_DRAFTS], proposed[N_DRAFTS], accepted[N_DRAFTS];
    int64_t n_preempted, n_few_pages;   /* preemptions; cells that should cause some */
    int64_t n_page_copies, n_forks, n_misplaced; /* of copies: where nothing was forked, or beyond it */
    int64_t n_refused_own;              /* proposals of the target itself that it refused */
    double metadata_seconds[N_DRAFTS], pass_seconds[N_DRAFTS], draft_seconds[N_DRAFTS];
    int32_t n_cells;
    int n_printed;
};
/* What must be 0. */
int64_t tally_failures(const struct tally *tally);
/* NULL, or in what they differ. */
const char *answer_difference(const struct answer *plain, const struct answer *other, int32_t *at);
/* Runs the cells of one subject; false: something could not be run. */
struct examination {
    const struct subject *subject;
    const struct cell *cells;        /* [n_cells] any order; grouped by engine here */
    int32_t n_cells;
    int64_t deadline_ns;             /* clock_now_ns() after which no further engine opens; 0 = none */
    bool spoil;                      /* a planted difference in one answer: it must be seen */
};
bool examine(const struct examination *examination, struct tally *tally);
void tally_print(FILE *out, const struct subject *subject, const struct tally *tally);

#endif
