/* outcomes: what would become of a draft's proposals at every position of texts that a target wrote. One pass
 * of each model over a whole text gives the rows of all its positions, so many outcomes are cheap; rounds of
 * any K are then walks over them. Private to bench/.
 *
 *     text      t0 t1 t2 t3 t4 t5 ..       the target's own, at the temperature, from a seed
 *     spot         .  +  +  .  +           + the draft, having read what is before, proposes what stands there
 *     K = 2        0     2     ..          k of the rounds that begin behind t0: 0, 2, ..
 *
 * Coupled rule: the draft's token is that of its row with the position's noise. Rejection rule: given that the
 * target's text has token y at a place where the rows are p and q, the proposal was y with probability
 * min(1, q(y) / p(y)); else it was refused, and distributed as max(q - p, 0). Drawn so, rounds have the law of
 * rounds that wrote the text themselves.
 */
#ifndef BENCH_OUTCOMES_H
#define BENCH_OUTCOMES_H

#include "bench/engine_run.h"

enum { OUTCOME_TEXT_TOKENS = 256, OUTCOME_BEYOND = 255 };

/* ---- texts ---- */
struct outcome_text { int32_t n_prompt, n; int32_t token[OUTCOME_TEXT_TOKENS]; uint64_t seed; };
struct outcome_texts_options {
    const char *target, *isa;
    int threads;
    float temperature;
    int32_t n_tokens;            /* written, in all, at least */
    int32_t n_max;               /* texts */
};
/* Texts from the begin token, or from ids all over the vocabulary where there is none; at temperature 0
 * from what temperature 1 has begun. *n: how many were written. */
enum status outcome_texts_write(const struct outcome_texts_options *options, struct outcome_text *texts, int32_t *n);

/* ---- spots ---- */
struct outcome_spot {
    bool is_accepted;
    uint8_t rank;                /* of the token that stands there in the draft's row: 0, 1, .., OUTCOME_BEYOND */
    uint8_t rank_left;           /* the same with the refused proposal left out */
};
struct outcome_log {
    struct outcome_text *text;   /* [n_texts] */
    int32_t n_texts;
    int32_t *first;              /* [n_texts + 1] spots of a text: first[i] .. first[i + 1] - 1 */
    const char *isa;
    struct outcome_spot *coupled, *rejection; /* [first[n_texts]] rejection: at temperature > 0 alone */
};
struct outcome_log_options {
    const char *target, *draft, *isa;
    int threads;
    float temperature;
    int32_t n_tokens;
};
/* STATUS_DIFFERENT when a text is not what the target's rows choose. */
enum status outcome_log_init(struct outcome_log *log, const struct outcome_log_options *options);
void outcome_log_deinit(struct outcome_log *log);

/* ---- rounds ---- */
struct outcome { int32_t text; int8_t k; uint8_t rank; };
/* Rounds of K over every text, what its end cuts off left out. Returns how many; at most first[n_texts]. */
int32_t outcomes_of_rounds(const struct outcome_log *log, const struct outcome_spot *spots, int32_t k,
                           struct outcome *out);

#endif
