/* synth_plant: the text that a pair's two models write, planted in embedding and head.
 *
 * Ids stand on one circle: index → id is a permutation, and the target's next token has the next
 * index, so its text is a single cycle through the vocabulary. Each index n has a code of width signs.
 * The embedding of its id is that code; a head row is a sum of codes, weighted so that its product
 * with the code of n is the logit planted for it after n, and with any other code is small noise:
 *
 *     after n, target        n+1 at `top`     a few alternatives below it, the rest of 1 - peak
 *     draft, where it agrees the same
 *     draft, elsewhere       wrong 1 at `top` wrong 2 .. wrong r-1 below it    n+1 below those
 *
 * Alternatives and wrong tokens have an index a fixed offset away, so that a row finds out by itself
 * after which tokens it is planted: every row is a function of (seed, id), and no table is as large as
 * the vocabulary. Private to model.
 */
#ifndef MODEL_SYNTH_PLANT_H
#define MODEL_SYNTH_PLANT_H

#include "model/source.h"

enum { PLANT_MAX_ALTERNATIVES = 5, PLANT_N_OFFSETS = MODEL_PAIR_MAX_RANK + PLANT_MAX_ALTERNATIVES };

struct synth_plant {
    uint32_t n_vocab;
    int32_t width;
    uint64_t code_stream, rank_stream;
    uint32_t half_bits;              /* ids have up to 2 * half_bits bits */
    uint64_t round_key[4];
    uint64_t agrees_from;            /* of a hash of 53 bits: at or above, the draft agrees */
    uint64_t beyond[MODEL_PAIR_MAX_RANK + 1];        /* of another: below beyond[F], the rank is above F */
    uint32_t offset[PLANT_N_OFFSETS]; /* wrong tokens 1 .., then alternatives */
    int32_t n_alternatives;
    /* planted logits; [r]: where the true token stands at rank r */
    double top, alternative, wrong[MODEL_PAIR_MAX_RANK + 1], last[MODEL_PAIR_MAX_RANK + 1];
    double noise_share;              /* what random products take, of the mass that is not the top's */
};

/* STATUS_INVALID when so narrow a model cannot tell so many ids apart. */
enum status synth_plant_init(struct synth_plant *plant, const struct model_pair *pair, int32_t n_vocab,
                             int32_t width);
uint32_t synth_plant_id(const struct synth_plant *plant, uint32_t index);
uint32_t synth_plant_index(const struct synth_plant *plant, uint32_t id);
/* Of the true next token in this side's order, after the id at `index`; 1: it agrees. */
int32_t synth_plant_rank(const struct synth_plant *plant, uint32_t index);
/* The output norm's weight that makes logits of the head's products, when the residual stream is a
 * code and noise of `noise_squares` times its power. */
float synth_plant_gain(const struct synth_plant *plant, double noise_squares);

/* A row of n = width elements; any thread. */
void synth_plant_embed_row(const struct synth_plant *plant, uint32_t id, float amplitude,
                           enum tensor_type type, unsigned char *out);
void synth_plant_head_row(const struct synth_plant *plant, uint32_t id, enum tensor_type type,
                          unsigned char *out);

#endif
