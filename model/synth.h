/* synth: what the parts of synthetic models share: shapes, the reading of names, rows of numbers.
 * Private to model. synth.c is the source, synth_name.c reads names, synth_rows.c makes random rows,
 * synth_plant.c those that carry a pair's planted text.
 */
#ifndef MODEL_SYNTH_H
#define MODEL_SYNTH_H

#include "model/source.h"

/* A published shape. */
struct synth_shape {
    const char *name, *architecture;
    int32_t dim, n_layers, n_heads, n_kv_heads, head_dim, ffn_dim, n_vocab, context;
    double rope_base;
    double llama3_factor; /* 0: no scaling */
    float norm_eps;
    bool tied;
    struct { int32_t n, n_used, ffn_dim; } experts; /* n = 0: a dense model */
};
struct synth_spec {
    struct synth_shape shape;
    enum tensor_type type;
    uint64_t seed;
    bool is_pair;
    struct model_pair pair; /* is_pair: of both sides; shape and type are those of its role */
};

/* synth_name.c: "synth:..." read; the sentence names the part that is wrong and the nearest right one. */
enum status synth_name_parse(const char *name, struct synth_spec *spec);

/* synth_rows.c: n elements in a file's format; n is a multiple of the type's block. */
void synth_row_random(uint64_t stream, float deviation, enum tensor_type type, int64_t n, unsigned char *out);
/* Floats from 0.9 to 1.1. */
void synth_row_norm(uint64_t stream, int64_t n, unsigned char *out);

#endif
