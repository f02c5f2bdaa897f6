/* timeline: who did what from when to when, as spans on a few rows, for --trace and --timeline. Off unless
 * someone asked; then a span costs one load. Recording is lock-free, from any thread, into a ring taken
 * when it is turned on: the last spans are kept, and how many went before them is known.
 *
 *     const int64_t begin_ns = timeline_begin();
 *     ... one pass of growing branches ...
 *     timeline_end(TIMELINE_DRAFT, &timeline_grow, begin_ns, step, n_rows);
 *
 *     timeline_mark(TIMELINE_STEP, &timeline_hit, n_accepted, n_tokens);
 *
 * Spans of one row nest or follow each other. A kind is a constant: here are those that are drawn; a file
 * may have others of its own, and they stand in --trace alike.
 */
#ifndef BASE_TIMELINE_H
#define BASE_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* The step thread, the target's lane, the draft (its thread and lane). */
enum timeline_row { TIMELINE_STEP, TIMELINE_TARGET, TIMELINE_DRAFT, TIMELINE_ROWS };
/* A name and what its two numbers are; NULL: not used. Letters, digits, underscores. */
struct timeline_kind { const char *name, *a, *b; };

/* ---- step thread ---- */
extern const struct timeline_kind timeline_step;    /* running, rows: a turn, around the next four */
extern const struct timeline_kind timeline_plan;    /* parts */
extern const struct timeline_kind timeline_propose; /* proposed, sequences */
extern const struct timeline_kind timeline_commit;  /* tokens */
extern const struct timeline_kind timeline_pick;    /* rows: target's tokens chosen */
extern const struct timeline_kind timeline_wait;    /* for the draft: drafting that is not hidden */
extern const struct timeline_kind timeline_hit;     /* mark; accepted, tokens served */
extern const struct timeline_kind timeline_miss;    /* mark; accepted, sequence */
/* ---- target ---- */
extern const struct timeline_kind timeline_verify;  /* rows, sequences */
extern const struct timeline_kind timeline_prefill; /* rows, sequences: a pass that chooses no token */
/* ---- draft ---- */
extern const struct timeline_kind timeline_draft;   /* rows, logits: a pass of drafting the ordinary way */
extern const struct timeline_kind timeline_glue;    /* rows, sequences */
extern const struct timeline_kind timeline_fork;    /* branches, sequences */
extern const struct timeline_kind timeline_grow;    /* step, rows */

/* Now; 0 when nothing is recorded, which timeline_end takes for "no span". */
int64_t timeline_begin(void);
void timeline_end(enum timeline_row row, const struct timeline_kind *kind, int64_t begin_ns, int64_t a, int64_t b);
/* A moment. */
void timeline_mark(enum timeline_row row, const struct timeline_kind *kind, int64_t a, int64_t b);

/* ---- turning it on ---- */
/* Remembers the last n_spans (about 64 bytes each). Before an engine opens; once. STATUS_NO_MEMORY. */
enum status timeline_open(uint32_t n_spans);
/* After all who record have ended. Does nothing when it is off. */
void timeline_close(void);
bool timeline_is_open(void);

/* ---- reading ---- */
struct timeline_span {
    enum timeline_row row;
    const struct timeline_kind *kind;
    int64_t begin_ns, end_ns;      /* since timeline_open; equal: a mark */
    int64_t a, b;
};
/* Numbers first..end-1 are there, in the order in which they ended; what is below first was lost. */
struct timeline_range { uint64_t first, end; };
struct timeline_range timeline_kept(void);
/* False: lost meanwhile, or half written. */
bool timeline_get(uint64_t number, struct timeline_span *out);

/* ---- timeline_file.c ---- */
/* Turns it on; with a path, opens that file now, so that what is wrong with it is said before any work. */
enum status timeline_record(const char *path_or_null);
/* Writes the file of timeline_record, if there is one, as Chrome's trace event JSON (chrome://tracing,
 * Perfetto), and turns it off. STATUS_IO with a sentence when the file cannot hold it. */
enum status timeline_finish(void);

#endif
