#include "tests/rpc_messages.h"

#include <string.h>

struct draw { uint64_t state; bool fullest; };

static uint64_t draw_bits(struct draw *draw)
{
    draw->state = rng_mix64(draw->state + 0x9e3779b97f4a7c15u);
    return draw->fullest ? UINT64_MAX : draw->state >> (draw->state & 63); /* small ones as often as large */
}

static int32_t draw_i32(struct draw *draw, int32_t low, int32_t high)
{
    return draw->fullest ? high : low + (int32_t)(draw_bits(draw) % ((uint64_t)(high - low) + 1));
}

static float draw_float(struct draw *draw) { return (float)draw_i32(draw, 0, 1000) / 1000.0f; }

static void draw_text(struct draw *draw, struct rpc_text *out)
{
    out->n = draw_i32(draw, 0, RPC_MAX_TEXT_BYTES);
    for (int32_t i = 0; i < out->n; i++) {
        out->bytes[i] = (char)draw_i32(draw, ' ', '~');
    }
    out->bytes[out->n] = '\0';
}

static int32_t draw_ids(struct draw *draw, int32_t *ids, int32_t low, int32_t high)
{
    const int32_t n = draw_i32(draw, low, high);
    for (int32_t i = 0; i < n; i++) {
        ids[i] = draw_i32(draw, 0, RPC_MAX_VOCAB - 1);
    }
    return n;
}

static struct rpc_sequence draw_sequence(struct draw *draw)
{
    const uint64_t id = draw_bits(draw);
    return (struct rpc_sequence){ id, draw_bits(draw) };
}

static void draw_model(struct draw *draw, struct rpc_model *model)
{
    model->vocab_digest = draw_bits(draw);
    model->fingerprint = draw_bits(draw);
    model->n_vocab = draw_i32(draw, 1, RPC_MAX_VOCAB);
    model->context = draw_i32(draw, 1, RPC_MAX_CONTEXT);
    model->n_sequences = draw_i32(draw, 0, RPC_MAX_SEQUENCES);
    model->k_max = draw_i32(draw, 1, RPC_MAX_CHAIN);
    draw_text(draw, &model->name);
}

static void draw_open(struct draw *draw, struct rpc_open *open)
{
    open->sequence = draw_sequence(draw);
    open->tenant = draw_bits(draw);
    open->n_prompt = draw_i32(draw, 0, RPC_MAX_CONTEXT);
    open->params = (struct sampling_params){
        .temperature = draw_float(draw), .top_k = draw_i32(draw, 0, INT32_MAX - 1), .top_p = draw_float(draw),
        .min_p = draw_float(draw), .repetition_penalty = 1.0f + draw_float(draw),
        .presence_penalty = -draw_float(draw), .frequency_penalty = draw_float(draw),
        .penalty_last_n = draw_i32(draw, 0, 1000) - 1, .seed = draw_bits(draw), .n_top_logprobs = -1 };
    open->params.n_biases = draw_i32(draw, 0, SAMPLING_MAX_BIASES);
    for (int32_t i = 0; i < open->params.n_biases; i++) {
        open->biases[i] = (struct sampling_bias){ draw_i32(draw, 0, RPC_MAX_VOCAB - 1), -draw_float(draw) };
    }
    open->params.biases = open->biases;
    open->tokens.n = draw_ids(draw, open->tokens.id, 0, RPC_MAX_TOKENS);
}

static void draw_table(struct draw *draw, struct rpc_table *table)
{
    table->sequence = draw_sequence(draw);
    table->n_tokens = draw_i32(draw, 1, RPC_MAX_CONTEXT);
    table->n_proposed = draw_i32(draw, 0, RPC_MAX_CHAIN);
    table->n_branches = draw_i32(draw, 0, RPC_MAX_BRANCHES);
    for (int32_t i = 0; i < table->n_branches; i++) {
        struct rpc_branch *branch = &table->branch[i];
        branch->n_accepted = draw_i32(draw, 0, table->n_proposed);
        branch->token = draw_i32(draw, 0, RPC_MAX_VOCAB - 1);
        branch->rank = draw_i32(draw, 0, RPC_MAX_VOCAB - 1);
        branch->n = draw_ids(draw, branch->next, 0, RPC_MAX_CHAIN);
        for (int32_t j = 0; j < branch->n; j++) {
            branch->hint[j] = (uint8_t)draw_i32(draw, 0, UINT8_MAX);
        }
    }
}

static void draw_round(struct draw *draw, struct rpc_round *round)
{
    round->sequence = draw_sequence(draw);
    round->first = draw_i32(draw, 0, RPC_MAX_CONTEXT);
    round->k_next = draw_i32(draw, 1, RPC_MAX_CHAIN);
    round->verify_rows = draw_i32(draw, 0, RPC_MAX_ROWS);
    round->verify_us = draw_i32(draw, 0, 1000000);
    round->after_miss = draw_i32(draw, 0, 1) == 1;
    round->tokens.n = draw_ids(draw, round->tokens.id, 1, RPC_MAX_TOKENS);
    round->n_proposed = draw_ids(draw, round->proposed, 0, RPC_MAX_CHAIN);
}

void rpc_message_draw(enum rpc_type type, uint64_t seed, bool fullest, struct rpc_message *out)
{
    struct draw draw = { .state = seed * 977 + (uint64_t)type, .fullest = fullest };
    memset(out, 0, sizeof *out);
    out->type = type;
    out->id = (uint32_t)draw_bits(&draw);
    switch (type) {
    case RPC_HELLO:
        draw_model(&draw, &out->hello.model);
        draw_text(&draw, &out->hello.key);
        break;
    case RPC_WELCOME: draw_model(&draw, &out->welcome); break;
    case RPC_OPEN: draw_open(&draw, &out->open); break;
    case RPC_APPEND:
        out->append.sequence = draw_sequence(&draw);
        out->append.first = draw_i32(&draw, 0, RPC_MAX_CONTEXT);
        out->append.tokens.n = draw_ids(&draw, out->append.tokens.id, 1, RPC_MAX_TOKENS);
        break;
    case RPC_ROUND: draw_round(&draw, &out->round); break;
    case RPC_OUTCOME:
        out->outcome = (struct rpc_outcome){ draw_sequence(&draw), draw_i32(&draw, 1, RPC_MAX_CONTEXT),
            draw_i32(&draw, 0, RPC_MAX_CHAIN), draw_i32(&draw, 0, RPC_MAX_VOCAB - 1) };
        break;
    case RPC_TABLE: draw_table(&draw, &out->table); break;
    case RPC_CANCEL: out->cancel = draw_sequence(&draw); break;
    case RPC_PING:
    case RPC_PONG: break;
    case RPC_ERROR:
        out->error.code = draw_i32(&draw, 0, RPC_ERROR_N_CODES - 1);
        draw_text(&draw, &out->error.text);
        break;
    }
}
