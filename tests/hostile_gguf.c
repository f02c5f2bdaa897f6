/* hostile_gguf: see the header. */
#include "tests/hostile_gguf.h"

#include <stdio.h>
#include <string.h>

#include "base/base.h"

void bytes_free(struct bytes *bytes)
{
    mem_free(bytes->data);
    *bytes = (struct bytes){ 0 };
}

void bytes_put(struct bytes *bytes, const void *data, size_t n)
{
    if (bytes->n + n > bytes->cap || !bytes->data) {
        bytes->cap = 2 * (bytes->n + n) + 256;
        bytes->data = mem_realloc(bytes->data, bytes->cap, 1);
        ASSERT(bytes->data);
    }
    memcpy(bytes->data + bytes->n, data, n);
    bytes->n += n;
}

void bytes_put_u32(struct bytes *bytes, uint32_t value) { bytes_put(bytes, &value, sizeof value); }
void bytes_put_u64(struct bytes *bytes, uint64_t value) { bytes_put(bytes, &value, sizeof value); }
void bytes_put_f32(struct bytes *bytes, float value) { bytes_put(bytes, &value, sizeof value); }

void bytes_put_text(struct bytes *bytes, const char *text)
{
    bytes_put_u64(bytes, strlen(text));
    bytes_put(bytes, text, strlen(text));
}

void bytes_put_header(struct bytes *bytes, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    bytes_put(bytes, "GGUF", 4);
    bytes_put_u32(bytes, version);
    bytes_put_u64(bytes, n_tensors);
    bytes_put_u64(bytes, n_keys);
}

void bytes_put_key_u32(struct bytes *bytes, const char *key, uint32_t value)
{
    bytes_put_text(bytes, key);
    bytes_put_u32(bytes, 4);
    bytes_put_u32(bytes, value);
}

void bytes_put_key_f32(struct bytes *bytes, const char *key, float value)
{
    bytes_put_text(bytes, key);
    bytes_put_u32(bytes, 6);
    bytes_put_f32(bytes, value);
}

void bytes_put_key_text(struct bytes *bytes, const char *key, const char *value)
{
    bytes_put_text(bytes, key);
    bytes_put_u32(bytes, 8);
    bytes_put_text(bytes, value);
}

void bytes_put_key_array(struct bytes *bytes, const char *key, uint32_t elem_type, uint64_t n)
{
    bytes_put_text(bytes, key);
    bytes_put_u32(bytes, 9);
    bytes_put_u32(bytes, elem_type);
    bytes_put_u64(bytes, n);
}

void bytes_put_tensor(struct bytes *bytes, const char *name, uint32_t n_dims, const uint64_t *dims,
                      uint32_t type, uint64_t offset)
{
    bytes_put_text(bytes, name);
    bytes_put_u32(bytes, n_dims);
    bytes_put(bytes, dims, n_dims * sizeof *dims);
    bytes_put_u32(bytes, type);
    bytes_put_u64(bytes, offset);
}

void bytes_pad(struct bytes *bytes, size_t alignment)
{
    while (bytes->n % alignment != 0) {
        bytes_put(bytes, "", 1);
    }
}

/* ---- the small file ---- */

static const struct { const char *name; uint64_t dims[2]; } TENSORS[] = {
    { "token_embd.weight", { 32, 8 } },        { "output_norm.weight", { 32, 0 } },
    { "blk.0.attn_norm.weight", { 32, 0 } },   { "blk.0.attn_q.weight", { 32, 32 } },
    { "blk.0.attn_k.weight", { 32, 16 } },     { "blk.0.attn_v.weight", { 32, 16 } },
    { "blk.0.attn_output.weight", { 32, 32 } }, { "blk.0.ffn_norm.weight", { 32, 0 } },
    { "blk.0.ffn_gate.weight", { 32, 64 } },   { "blk.0.ffn_up.weight", { 32, 64 } },
    { "blk.0.ffn_down.weight", { 64, 32 } },
};
enum { N_TENSORS = sizeof TENSORS / sizeof TENSORS[0] };
static const struct { const char *key; uint32_t value; } NUMBERS[] = {
    { "llama.block_count", 1 },          { "llama.context_length", 64 },
    { "llama.embedding_length", 32 },    { "llama.feed_forward_length", 64 },
    { "llama.attention.head_count", 2 }, { "llama.attention.head_count_kv", 1 },
};
enum { N_NUMBERS = sizeof NUMBERS / sizeof NUMBERS[0] };

static bool is(const char *a, const char *b) { return a && strcmp(a, b) == 0; }

/* Writes a key, changed or not; returns how many keys that were. */
static uint64_t put_changed(struct bytes *bytes, const struct hostile_change *change, const char *key)
{
    if (!is(change->key, key)) {
        return 0;
    }
    if (change->text) {
        bytes_put_key_text(bytes, key, change->text);
    } else if (change->number) {
        bytes_put_key_u32(bytes, key, *change->number);
    } else if (change->real) {
        bytes_put_key_f32(bytes, key, *change->real);
    } else {
        return 0;
    }
    return 1;
}

static uint64_t put_keys(struct bytes *bytes, const struct hostile_change *change)
{
    static const char ARCHITECTURE[] = "general.architecture";
    static const char EPSILON[] = "llama.attention.layer_norm_rms_epsilon";
    uint64_t n = 0;
    bool known = is(change->key, ARCHITECTURE) || is(change->key, EPSILON);
    if (!is(change->key, ARCHITECTURE)) {
        bytes_put_key_text(bytes, ARCHITECTURE, "llama");
        n++;
    }
    if (!is(change->key, EPSILON)) {
        bytes_put_key_f32(bytes, EPSILON, 1e-5f);
        n++;
    }
    for (int i = 0; i < N_NUMBERS; i++) {
        if (is(change->key, NUMBERS[i].key)) {
            known = true;
        } else {
            bytes_put_key_u32(bytes, NUMBERS[i].key, NUMBERS[i].value);
            n++;
        }
    }
    if (change->key) {
        n += put_changed(bytes, change, change->key);
        ASSERT(known || change->text || change->number || change->real);
    }
    if (change->extra_key) {
        bytes_put_key_u32(bytes, change->extra_key, 1);
        n++;
    }
    if (change->n_tokens > 0) {
        bytes_put_key_array(bytes, "tokenizer.ggml.tokens", 8, change->n_tokens);
        for (uint32_t i = 0; i < change->n_tokens; i++) {
            char token[16];
            snprintf(token, sizeof token, "t%u", i);
            bytes_put_text(bytes, token);
        }
        n++;
    }
    return n;
}

/* Bytes that 32 elements of a type take; of types that are only named, enough. */
static uint64_t block_bytes(uint32_t type)
{
    return type == 0 ? 128 : type == 1 || type == 30 ? 64 : type == 2 ? 18 : 34;
}

static uint64_t put_tensors(struct bytes *bytes, const struct hostile_change *change, uint64_t *n_data)
{
    uint64_t n = 0, offset = 0;
    for (int i = 0; i < N_TENSORS; i++) {
        const bool changed = is(change->tensor, TENSORS[i].name), vector = TENSORS[i].dims[1] == 0;
        if (changed && !change->dims && !change->type && !change->offset) {
            continue;
        }
        const uint64_t *dims = changed && change->dims ? change->dims : TENSORS[i].dims;
        const uint32_t type = changed && change->type ? *change->type : vector ? 0 : 2;
        bytes_put_tensor(bytes, TENSORS[i].name, dims[1] > 0 ? 2 : 1, dims, type,
                         changed && change->offset ? *change->offset : offset);
        offset += TENSORS[i].dims[0] / 32 * (vector ? 1 : TENSORS[i].dims[1]) * block_bytes(type);
        offset = (offset + 31) & ~UINT64_C(31);
        n++;
    }
    if (change->extra_tensor) {
        bytes_put_tensor(bytes, change->extra_tensor, 1, TENSORS[1].dims, 0, offset);
        offset += 128;
        n++;
    }
    *n_data = offset;
    return n;
}

struct bytes hostile_small(const struct hostile_change *change)
{
    struct bytes bytes = { 0 };
    uint64_t n_data;
    bytes_put_header(&bytes, change->version > 0 ? change->version : 3, 0, 0);
    const uint64_t n_keys = put_keys(&bytes, change);
    const uint64_t n_tensors = put_tensors(&bytes, change, &n_data);
    memcpy(bytes.data + 8, &n_tensors, sizeof n_tensors);
    memcpy(bytes.data + 16, &n_keys, sizeof n_keys);
    bytes_pad(&bytes, 32);
    for (uint64_t i = 0; i < n_data / 4; i++) {
        bytes_put_f32(&bytes, (float)(i % 17) * 0.01f - 0.08f);
    }
    ASSERT(change->cut <= bytes.n);
    bytes.n -= change->cut;
    return bytes;
}
