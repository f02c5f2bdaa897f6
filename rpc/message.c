/* message: each kind of message as msgpack fields, written and read in one order. The two functions of a
 * kind stand together: what one writes the other expects.
 *
 *     [version, type, id, fields of the type ...]
 */
#include <string.h>

#include "rpc/wire.h"

const char *rpc_type_name(enum rpc_type type)
{
    switch (type) {
#define X(name, number, text) case name: return text;
        RPC_TYPE_TABLE(X)
#undef X
    }
    return "unknown";
}

void rpc_text_set(struct rpc_text *text, const char *bytes)
{
    const size_t n = strnlen(bytes, RPC_MAX_TEXT_BYTES);
    memcpy(text->bytes, bytes, n);
    text->bytes[n] = '\0';
    text->n = (int32_t)n;
}

/* Texts of the other side are shown to people: nothing in them steers a terminal. */
static void make_printable(struct rpc_text *text)
{
    for (int32_t i = 0; i < text->n; i++) {
        if ((unsigned char)text->bytes[i] < 0x20 || text->bytes[i] == 0x7f) {
            text->bytes[i] = '?';
        }
    }
}

/* ---- shared fields ---- */
static void put_int(msgpack_packer *packer, int64_t value)
{
    ASSERT(value >= 0);
    msgpack_pack_uint64(packer, (uint64_t)value);
}

static void put_array(msgpack_packer *packer, int32_t n, int32_t n_max)
{
    ASSERT(n >= 0 && n <= n_max);
    msgpack_pack_array(packer, (size_t)n);
}

static void put_text(msgpack_packer *packer, const struct rpc_text *text)
{
    ASSERT(text->n >= 0 && text->n <= RPC_MAX_TEXT_BYTES);
    msgpack_pack_str(packer, (size_t)text->n);
    msgpack_pack_str_body(packer, text->bytes, (size_t)text->n);
}

static void put_ids(msgpack_packer *packer, const int32_t *ids, int32_t n, int32_t n_max)
{
    put_array(packer, n, n_max);
    for (int32_t i = 0; i < n; i++) {
        put_int(packer, ids[i]);
    }
}

static int32_t get_ids(struct wire_in *in, const char *field, int32_t *ids, int32_t low, int32_t high)
{
    const int32_t n = wire_read_array(in, field, low, high);
    for (int32_t i = 0; i < n && !in->failed; i++) {
        ids[i] = wire_read_i32(in, field, 0, RPC_MAX_VOCAB - 1);
    }
    return in->failed ? 0 : n;
}

static void put_sequence(msgpack_packer *packer, struct rpc_sequence sequence)
{
    msgpack_pack_uint64(packer, sequence.id);
    msgpack_pack_uint64(packer, sequence.epoch);
}

static struct rpc_sequence get_sequence(struct wire_in *in)
{
    const struct wire_range any = { 0, UINT64_MAX };
    const uint64_t id = wire_read_uint(in, "sequence", any);
    return (struct rpc_sequence){ id, wire_read_uint(in, "epoch", any) };
}

/* ---- hello, welcome ---- */
static void put_model(msgpack_packer *packer, const struct rpc_model *model)
{
    msgpack_pack_uint64(packer, model->vocab_digest);
    msgpack_pack_uint64(packer, model->fingerprint);
    put_int(packer, model->n_vocab);
    put_int(packer, model->context);
    put_int(packer, model->n_sequences);
    put_int(packer, model->k_max);
    put_text(packer, &model->name);
}

static void get_model(struct wire_in *in, struct rpc_model *model)
{
    const struct wire_range any = { 0, UINT64_MAX };
    model->vocab_digest = wire_read_uint(in, "vocabulary digest", any);
    model->fingerprint = wire_read_uint(in, "fingerprint", any);
    model->n_vocab = wire_read_i32(in, "vocabulary size", 1, RPC_MAX_VOCAB);
    model->context = wire_read_i32(in, "context", 1, RPC_MAX_CONTEXT);
    model->n_sequences = wire_read_i32(in, "number of sequences", 0, RPC_MAX_SEQUENCES);
    model->k_max = wire_read_i32(in, "longest proposal", 1, RPC_MAX_CHAIN);
    wire_read_text(in, "name", &model->name);
    make_printable(&model->name);
}

/* ---- open ---- */
static void put_params(msgpack_packer *packer, const struct sampling_params *params)
{
    msgpack_pack_float(packer, params->temperature);
    put_int(packer, params->top_k);
    msgpack_pack_float(packer, params->top_p);
    msgpack_pack_float(packer, params->min_p);
    msgpack_pack_float(packer, params->repetition_penalty);
    msgpack_pack_float(packer, params->presence_penalty);
    msgpack_pack_float(packer, params->frequency_penalty);
    put_int(packer, (int64_t)params->penalty_last_n + 1);
    msgpack_pack_uint64(packer, params->seed);
    put_array(packer, 2 * params->n_biases, 2 * SAMPLING_MAX_BIASES); /* id, bias, id, bias .. */
    for (int32_t i = 0; i < params->n_biases; i++) {
        put_int(packer, params->biases[i].id);
        msgpack_pack_float(packer, params->biases[i].bias);
    }
}

/* Ranges of the values themselves are sampling_params_check()'s, once the vocabulary is known. */
static void get_params(struct wire_in *in, struct sampling_params *params, struct sampling_bias *biases)
{
    sampling_params_defaults(params);
    params->temperature = wire_read_float(in, "temperature");
    params->top_k = wire_read_i32(in, "top_k", 0, INT32_MAX);
    params->top_p = wire_read_float(in, "top_p");
    params->min_p = wire_read_float(in, "min_p");
    params->repetition_penalty = wire_read_float(in, "repetition penalty");
    params->presence_penalty = wire_read_float(in, "presence penalty");
    params->frequency_penalty = wire_read_float(in, "frequency penalty");
    params->penalty_last_n = wire_read_i32(in, "penalty window", 0, INT32_MAX) - 1;
    params->seed = wire_read_uint(in, "seed", (struct wire_range){ 0, UINT64_MAX });
    const int32_t n = wire_read_array(in, "ids and biases", 0, 2 * SAMPLING_MAX_BIASES) / 2;
    for (int32_t i = 0; i < n && !in->failed; i++) {
        biases[i].id = wire_read_i32(in, "bias id", 0, RPC_MAX_VOCAB - 1);
        biases[i].bias = wire_read_float(in, "bias");
    }
    params->biases = biases;
    params->n_biases = in->failed ? 0 : n;
}

static void put_open(msgpack_packer *packer, const struct rpc_open *open)
{
    put_sequence(packer, open->sequence);
    msgpack_pack_uint64(packer, open->tenant);
    put_int(packer, open->n_prompt);
    put_params(packer, &open->params);
    put_ids(packer, open->tokens.id, open->tokens.n, RPC_MAX_TOKENS);
}

static void get_open(struct wire_in *in, struct rpc_open *open)
{
    open->sequence = get_sequence(in);
    open->tenant = wire_read_uint(in, "tenant", (struct wire_range){ 0, UINT64_MAX });
    open->n_prompt = wire_read_i32(in, "length of the prompt", 0, RPC_MAX_CONTEXT);
    get_params(in, &open->params, open->biases);
    open->tokens.n = get_ids(in, "tokens", open->tokens.id, 0, RPC_MAX_TOKENS);
}

/* ---- append, round, outcome ---- */
static void put_append(msgpack_packer *packer, const struct rpc_append *append)
{
    put_sequence(packer, append->sequence);
    put_int(packer, append->first);
    put_ids(packer, append->tokens.id, append->tokens.n, RPC_MAX_TOKENS);
}

static void get_append(struct wire_in *in, struct rpc_append *append)
{
    append->sequence = get_sequence(in);
    append->first = wire_read_i32(in, "position", 0, RPC_MAX_CONTEXT);
    append->tokens.n = get_ids(in, "tokens", append->tokens.id, 1, RPC_MAX_TOKENS);
}

static void put_round(msgpack_packer *packer, const struct rpc_round *round)
{
    put_sequence(packer, round->sequence);
    put_int(packer, round->first);
    put_int(packer, round->k_next);
    put_int(packer, round->verify_rows);
    put_int(packer, round->verify_us);
    put_int(packer, round->after_miss);
    put_ids(packer, round->tokens.id, round->tokens.n, RPC_MAX_TOKENS);
    put_ids(packer, round->proposed, round->n_proposed, RPC_MAX_CHAIN);
}

static void get_round(struct wire_in *in, struct rpc_round *round)
{
    round->sequence = get_sequence(in);
    round->first = wire_read_i32(in, "position", 0, RPC_MAX_CONTEXT);
    round->k_next = wire_read_i32(in, "length wanted", 1, RPC_MAX_CHAIN);
    round->verify_rows = wire_read_i32(in, "rows of a pass", 0, RPC_MAX_ROWS);
    round->verify_us = wire_read_i32(in, "time of a pass", 0, INT32_MAX);
    round->after_miss = wire_read_i32(in, "sign of a miss", 0, 1) == 1;
    round->tokens.n = get_ids(in, "tokens", round->tokens.id, 1, RPC_MAX_TOKENS);
    round->n_proposed = get_ids(in, "proposed tokens", round->proposed, 0, RPC_MAX_CHAIN);
}

static void put_outcome(msgpack_packer *packer, const struct rpc_outcome *outcome)
{
    put_sequence(packer, outcome->sequence);
    put_int(packer, outcome->n_tokens);
    put_int(packer, outcome->n_accepted);
    put_int(packer, outcome->token);
}

static void get_outcome(struct wire_in *in, struct rpc_outcome *outcome)
{
    outcome->sequence = get_sequence(in);
    outcome->n_tokens = wire_read_i32(in, "length", 1, RPC_MAX_CONTEXT);
    outcome->n_accepted = wire_read_i32(in, "number of accepted tokens", 0, RPC_MAX_CHAIN);
    outcome->token = wire_read_i32(in, "recovery token", 0, RPC_MAX_VOCAB - 1);
}

/* ---- table ---- */
static void put_branch(msgpack_packer *packer, const struct rpc_branch *branch)
{
    put_array(packer, 5, 5);
    put_int(packer, branch->n_accepted);
    put_int(packer, branch->token);
    put_int(packer, branch->rank);
    put_ids(packer, branch->next, branch->n, RPC_MAX_CHAIN);
    put_array(packer, branch->n, RPC_MAX_CHAIN);
    for (int32_t i = 0; i < branch->n; i++) {
        put_int(packer, branch->hint[i]);
    }
}

static void get_branch(struct wire_in *in, int32_t n_proposed, struct rpc_branch *branch)
{
    (void)wire_read_array(in, "fields of a branch", 5, 5);
    branch->n_accepted = wire_read_i32(in, "number of accepted tokens", 0, n_proposed);
    branch->token = wire_read_i32(in, "recovery token", 0, RPC_MAX_VOCAB - 1);
    branch->rank = wire_read_i32(in, "rank", 0, RPC_MAX_VOCAB - 1);
    branch->n = get_ids(in, "tokens of a branch", branch->next, 0, RPC_MAX_CHAIN);
    const int32_t n_hints = wire_read_array(in, "hints of a branch", branch->n, branch->n);
    for (int32_t i = 0; i < n_hints && !in->failed; i++) {
        branch->hint[i] = (uint8_t)wire_read_i32(in, "hint", 0, UINT8_MAX);
    }
}

static void put_table(msgpack_packer *packer, const struct rpc_table *table)
{
    put_sequence(packer, table->sequence);
    put_int(packer, table->n_tokens);
    put_int(packer, table->n_proposed);
    put_array(packer, table->n_branches, RPC_MAX_BRANCHES);
    for (int32_t i = 0; i < table->n_branches; i++) {
        put_branch(packer, &table->branch[i]);
    }
}

static void get_table(struct wire_in *in, struct rpc_table *table)
{
    table->sequence = get_sequence(in);
    table->n_tokens = wire_read_i32(in, "length", 1, RPC_MAX_CONTEXT);
    table->n_proposed = wire_read_i32(in, "number of proposed tokens", 0, RPC_MAX_CHAIN);
    const int32_t n = wire_read_array(in, "branches", 0, RPC_MAX_BRANCHES);
    for (int32_t i = 0; i < n && !in->failed; i++) {
        get_branch(in, table->n_proposed, &table->branch[i]);
    }
    table->n_branches = in->failed ? 0 : n;
}

/* ---- a message ---- */
enum { N_HEAD_FIELDS = 3 };

/* How many fields a type has behind the head; what put_ functions write. */
static int32_t n_fields(enum rpc_type type)
{
    switch (type) {
    case RPC_HELLO: return 8;
    case RPC_WELCOME: return 7;
    case RPC_OPEN: return 15;
    case RPC_APPEND: return 4;
    case RPC_ROUND: return 9;
    case RPC_OUTCOME: return 5;
    case RPC_TABLE: return 5;
    case RPC_CANCEL: return 2;
    case RPC_PING: return 0;
    case RPC_PONG: return 0;
    case RPC_ERROR: return 2;
    }
    return -1;
}

static void put_fields(msgpack_packer *packer, const struct rpc_message *message)
{
    switch (message->type) {
    case RPC_HELLO:
        put_model(packer, &message->hello.model);
        put_text(packer, &message->hello.key);
        break;
    case RPC_WELCOME: put_model(packer, &message->welcome); break;
    case RPC_OPEN: put_open(packer, &message->open); break;
    case RPC_APPEND: put_append(packer, &message->append); break;
    case RPC_ROUND: put_round(packer, &message->round); break;
    case RPC_OUTCOME: put_outcome(packer, &message->outcome); break;
    case RPC_TABLE: put_table(packer, &message->table); break;
    case RPC_CANCEL: put_sequence(packer, message->cancel); break;
    case RPC_PING:
    case RPC_PONG: break;
    case RPC_ERROR:
        put_int(packer, message->error.code);
        put_text(packer, &message->error.text);
        break;
    }
}

static void get_fields(struct wire_in *in, struct rpc_message *message)
{
    switch (message->type) {
    case RPC_HELLO:
        get_model(in, &message->hello.model);
        wire_read_text(in, "key", &message->hello.key);
        break;
    case RPC_WELCOME: get_model(in, &message->welcome); break;
    case RPC_OPEN: get_open(in, &message->open); break;
    case RPC_APPEND: get_append(in, &message->append); break;
    case RPC_ROUND: get_round(in, &message->round); break;
    case RPC_OUTCOME: get_outcome(in, &message->outcome); break;
    case RPC_TABLE: get_table(in, &message->table); break;
    case RPC_CANCEL: message->cancel = get_sequence(in); break;
    case RPC_PING:
    case RPC_PONG: break;
    case RPC_ERROR:
        message->error.code = wire_read_i32(in, "code", 0, RPC_ERROR_N_CODES - 1);
        wire_read_text(in, "sentence", &message->error.text);
        make_printable(&message->error.text);
        break;
    }
}

/* ---- frames ---- */
static void put_be32(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < RPC_HEAD_BYTES; i++) {
        out[i] = (uint8_t)(value >> (24 - 8 * i));
    }
}

enum status rpc_frame_encode(const struct rpc_message *message, uint8_t *out, size_t cap, size_t *n_bytes)
{
    *n_bytes = 0;
    if (cap < RPC_HEAD_BYTES) {
        return status_fail(STATUS_REFUSED, "no room for an rpc message");
    }
    cap -= RPC_HEAD_BYTES;
    struct wire_out body = { .bytes = out + RPC_HEAD_BYTES,
                             .cap = cap < RPC_MAX_FRAME_BYTES ? cap : RPC_MAX_FRAME_BYTES };
    msgpack_packer packer;
    msgpack_packer_init(&packer, &body, wire_write);
    msgpack_pack_array(&packer, (size_t)(N_HEAD_FIELDS + n_fields(message->type)));
    put_int(&packer, RPC_VERSION);
    put_int(&packer, (int64_t)message->type);
    put_int(&packer, message->id);
    put_fields(&packer, message);
    if (body.is_full) {
        return status_fail(STATUS_REFUSED, "no room for an rpc message of type %s", rpc_type_name(message->type));
    }
    put_be32(out, (uint32_t)body.n);
    *n_bytes = RPC_HEAD_BYTES + body.n;
    return STATUS_OK;
}

enum status rpc_frame_size(const uint8_t *bytes, size_t n, size_t *frame_bytes)
{
    uint32_t size = 0;
    *frame_bytes = 0;
    if (n < RPC_HEAD_BYTES) {
        return STATUS_OK;
    }
    for (int i = 0; i < RPC_HEAD_BYTES; i++) {
        size = size << 8 | bytes[i];
    }
    if (size == 0 || size > RPC_MAX_FRAME_BYTES) {
        return status_fail(STATUS_INVALID, "expected an rpc frame of 1 to %d bytes, found a length of %u",
                           RPC_MAX_FRAME_BYTES, size);
    }
    *frame_bytes = RPC_HEAD_BYTES + (size_t)size;
    return STATUS_OK;
}

static enum status check_head(struct wire_in *in, int32_t n_items, uint64_t version, uint64_t type)
{
    if (in->failed) {
        return STATUS_INVALID;
    }
    if (version != RPC_VERSION) {
        return status_fail(STATUS_INVALID, "expected rpc version %d, found %llu", RPC_VERSION,
                           (unsigned long long)version);
    }
    const int32_t n = type <= RPC_ERROR ? n_fields((enum rpc_type)type) : -1;
    if (n < 0) {
        return status_fail(STATUS_INVALID, "rpc version %d has no message of type %llu", RPC_VERSION,
                           (unsigned long long)type);
    }
    if (n_items != N_HEAD_FIELDS + n) {
        return status_fail(STATUS_INVALID, "rpc message %s: expected %d items, found %d",
                           rpc_type_name((enum rpc_type)type), N_HEAD_FIELDS + n, n_items);
    }
    return STATUS_OK;
}

enum status rpc_frame_decode(const uint8_t *bytes, size_t n, struct rpc_message *message)
{
    const struct wire_range any = { 0, UINT64_MAX };
    struct wire_in in = { .at = bytes, .end = bytes + n, .message = "head" };
    message->type = RPC_ERROR;
    message->error.text.n = 0;
    if (n > RPC_MAX_FRAME_BYTES) {
        return status_fail(STATUS_INVALID, "an rpc frame of %zu bytes is too long", n);
    }
    const int32_t n_items = wire_read_array(&in, "items", N_HEAD_FIELDS, UINT8_MAX);
    const uint64_t version = wire_read_uint(&in, "version", any);
    const uint64_t type = wire_read_uint(&in, "type", any);
    const uint64_t id = wire_read_uint(&in, "id", (struct wire_range){ 0, UINT32_MAX });
    TRY(check_head(&in, n_items, version, type));
    message->type = (enum rpc_type)type;
    message->id = (uint32_t)id;
    in.message = rpc_type_name(message->type);
    get_fields(&in, message);
    return wire_end(&in);
}
