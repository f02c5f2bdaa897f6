/* gguf: each way in which a file can be wrong has its sentence, and none of them takes memory, reads
 * outside the file or loads. The first test shows that the small file, unchanged, does load. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/model.h"
#include "tests/golden.h"
#include "tests/hostile_gguf.h"

/* The file as it is seen by a reader: in a block exactly as long, so that sanitizers see a step past
 * its end. Opens and, when that went well, checks. */
static enum status open_and_check(const struct bytes *bytes)
{
    unsigned char *exact = mem_alloc(bytes->n > 0 ? bytes->n : 1, 1);
    struct model_source *source;
    assert_non_null(exact);
    if (bytes->n > 0) {
        memcpy(exact, bytes->data, bytes->n);
    }
    enum status status = model_source_open_bytes(exact, bytes->n, &source);
    if (status == STATUS_OK) {
        status = model_source_check(source);
    } else {
        assert_null(source);
    }
    model_source_close(source);
    mem_free(exact);
    return status;
}

/* Refused with this status and a sentence that holds these words; frees the bytes. */
static void refused(struct bytes bytes, enum status status, const char *words)
{
    const enum status found = open_and_check(&bytes);
    if (found != status || !strstr(status_message(), words)) {
        print_error("expected %s with \"%s\", found %s: %s\n", status_name(status), words,
                    status_name(found), status_message());
    }
    assert_int_equal(found, status);
    assert_non_null(strstr(status_message(), words));
    bytes_free(&bytes);
}
#define CHANGED(...) hostile_small(&(struct hostile_change){ __VA_ARGS__ })
#define U32(value) &(const uint32_t){ value }
#define F32(value) &(const float){ value }
#define U64(value) &(const uint64_t){ value }
#define DIMS(a, b) (const uint64_t[]){ a, b }

static void test_small_file_loads(void **state)
{
    (void)state;
    struct bytes bytes = CHANGED(.n_tokens = 8);
    struct model_source *source;
    assert_int_equal(model_source_open_bytes(bytes.data, bytes.n, &source), STATUS_OK);
    assert_int_equal(model_source_check(source), STATUS_OK);
    const struct model_config *config = model_source_config(source);
    assert_int_equal(config->n_layers, 1);
    assert_int_equal(config->head_dim, 16);
    assert_int_equal(config->n_vocab, 8);
    assert_true(config->tied_head && config->permuted_qk);
    const struct model_vocab *vocab = model_source_vocab(source);
    assert_int_equal(vocab->n_tokens, 8);
    assert_memory_equal(vocab->tokens[7].bytes, "t7", 2);
    struct backend *backend;
    struct lane *lane;
    struct model *model;
    assert_int_equal(backend_create("cpu", NULL, &backend), STATUS_OK);
    const struct lane_options options = { .n_workers = 1, .caller_is_worker = true };
    assert_int_equal(lane_create(backend, &options, &lane), STATUS_OK);
    assert_int_equal(model_load(source, lane, &(struct model_load_options){ 0 }, &model), STATUS_OK);
    model_destroy(model);
    lane_destroy(lane);
    backend_destroy(backend);
    model_source_close(source);
    bytes_free(&bytes);
    bytes = CHANGED(.version = 2);
    assert_int_equal(open_and_check(&bytes), STATUS_OK);
    bytes_free(&bytes);
}

static struct bytes text_bytes(const char *text)
{
    struct bytes bytes = { 0 };
    bytes_put(&bytes, text, strlen(text));
    return bytes;
}

static void test_header(void **state)
{
    (void)state;
    refused(text_bytes(""), STATUS_INVALID, "the file is cut");
    refused(text_bytes("PK\003\004 a zip"), STATUS_INVALID, "not a GGUF file");
    refused(text_bytes("GGUF"), STATUS_INVALID, "the version needs 4 bytes");
    refused(CHANGED(.version = 1), STATUS_UNSUPPORTED, "version 2 or 3, file says 1");
    refused(CHANGED(.version = 0x03000000), STATUS_UNSUPPORTED, "big-endian");
    struct bytes counts = { 0 };
    bytes_put_header(&counts, 3, UINT64_MAX, 0);
    refused(counts, STATUS_INVALID, "the header counts 18446744073709551615 tensors");
    counts = (struct bytes){ 0 };
    bytes_put_header(&counts, 3, 0, UINT64_C(1) << 40);
    refused(counts, STATUS_INVALID, "the header counts 1099511627776 keys");
    counts = (struct bytes){ 0 };
    bytes_put_header(&counts, 3, 0, 3);
    refused(counts, STATUS_INVALID, "3 keys");
    counts = (struct bytes){ 0 };
    bytes_put_header(&counts, 3, 0, 0);
    refused(counts, STATUS_INVALID, "general.architecture is missing");
}

/* Cut anywhere, it is refused; nothing is read past the end. */
static void test_cut_everywhere(void **state)
{
    (void)state;
    struct bytes whole = CHANGED(.n_tokens = 8);
    for (size_t n = 0; n < whole.n; n += n < 2048 ? 1 : 997) {
        struct bytes cut = { .data = whole.data, .n = n };
        assert_int_equal(open_and_check(&cut), STATUS_INVALID);
    }
    bytes_free(&whole);
    refused(CHANGED(.cut = 3000), STATUS_INVALID, "do not fit into");
}

static struct bytes one_key(void)
{
    struct bytes bytes = { 0 };
    bytes_put_header(&bytes, 3, 0, 1);
    return bytes;
}

static struct bytes padded(struct bytes bytes)
{
    for (int i = 0; i < 100; i++) {
        bytes_put_u32(&bytes, 0);
    }
    return bytes;
}

static void test_keys(void **state)
{
    (void)state;
    struct bytes bytes = one_key();
    bytes_put_u64(&bytes, UINT64_MAX);
    refused(padded(bytes), STATUS_INVALID, "a key's name at byte 24 has 18446744073709551615 characters");
    bytes = one_key();
    bytes_put_text(&bytes, "bad\nname");
    refused(padded(bytes), STATUS_INVALID, "holds byte 0x0a");
    bytes = one_key();
    bytes_put_text(&bytes, "k");
    bytes_put_u32(&bytes, 99);
    refused(padded(bytes), STATUS_INVALID, "key k: unknown value type 99");
    bytes = one_key();
    bytes_put_text(&bytes, "k");
    bytes_put_u32(&bytes, 8);
    bytes_put_u64(&bytes, UINT64_MAX - 3);
    refused(padded(bytes), STATUS_INVALID, "a string needs 18446744073709551612 bytes");
    bytes = one_key();
    bytes_put_text(&bytes, "flag");
    bytes_put_u32(&bytes, 7);
    bytes_put(&bytes, "\002", 1);
    refused(padded(bytes), STATUS_INVALID, "key flag: expected a truth value of 0 or 1, file says 2");
    refused(CHANGED(.extra_key = "llama.block_count"), STATUS_INVALID, "key llama.block_count stands in the file twice");
}

static void test_arrays(void **state)
{
    (void)state;
    struct bytes bytes = one_key();
    bytes_put_key_array(&bytes, "a", 6, UINT64_MAX / 4 + 2); /* times 4 overflows to a small number */
    refused(padded(bytes), STATUS_INVALID, "key a: an array of 4611686018427387905 elements does not fit");
    bytes = one_key();
    bytes_put_key_array(&bytes, "a", 8, 1000000);
    refused(padded(bytes), STATUS_INVALID, "does not fit");
    bytes = one_key();
    bytes_put_key_array(&bytes, "a", 77, 1);
    refused(padded(bytes), STATUS_INVALID, "unknown array type 77");
    bytes = one_key();
    bytes_put_key_array(&bytes, "a", 9, 1);
    for (int i = 0; i < 6; i++) {
        bytes_put_u32(&bytes, 9);
        bytes_put_u64(&bytes, 1);
    }
    refused(padded(bytes), STATUS_INVALID, "nested more than 4 deep");
}

static void test_tensors(void **state)
{
    (void)state;
    static const char Q[] = "blk.0.attn_q.weight";
    refused(CHANGED(.extra_tensor = "output_norm.weight"), STATUS_INVALID,
            "tensor output_norm.weight stands in the file twice");
    refused(CHANGED(.tensor = Q, .offset = U64(8)), STATUS_INVALID, "offset 8 is no multiple of the alignment 32");
    refused(CHANGED(.tensor = Q, .offset = U64(1 << 20)), STATUS_INVALID, "do not fit into");
    refused(CHANGED(.tensor = Q, .offset = U64(UINT64_MAX - 31)), STATUS_INVALID, "do not fit into");
    refused(CHANGED(.tensor = Q, .offset = U64(64)), STATUS_INVALID, "overlap at byte");
    refused(CHANGED(.tensor = Q, .dims = DIMS(UINT64_C(1) << 62, 4)), STATUS_INVALID, "product below 2^59");
    refused(CHANGED(.tensor = Q, .dims = DIMS(UINT64_MAX, 1)), STATUS_INVALID, "dimension 0 is 9223372036854775807");
    refused(CHANGED(.tensor = Q, .dims = DIMS(UINT64_C(1) << 32, UINT64_C(1) << 32)), STATUS_INVALID,
            "product below 2^59");
    refused(CHANGED(.tensor = Q, .dims = DIMS(1 << 20, 1 << 20)), STATUS_INVALID, "do not fit into");
    refused(CHANGED(.tensor = Q, .type = U32(12345)), STATUS_UNSUPPORTED, "unknown type number 12345");
    refused(CHANGED(.tensor = Q, .dims = DIMS(33, 8), .type = U32(8)), STATUS_INVALID,
            "a row of 33 elements is no multiple of 32, the block of Q8_0");
    struct bytes bytes = { 0 };
    bytes_put_header(&bytes, 3, 1, 0);
    bytes_put_tensor(&bytes, "five", 5, (const uint64_t[]){ 1, 1, 1, 1, 1 }, 0, 0);
    refused(padded(bytes), STATUS_INVALID, "expected 1 to 4 dimensions, file says 5");
    bytes = (struct bytes){ 0 };
    bytes_put_header(&bytes, 3, 1, 0);
    bytes_put_tensor(&bytes, "none", 0, (const uint64_t[]){ 1 }, 0, 0);
    refused(padded(bytes), STATUS_INVALID, "expected 1 to 4 dimensions, file says 0");
    refused(CHANGED(.key = "general.alignment", .number = U32(24)), STATUS_INVALID,
            "expected a power of two, file says 24");
    refused(CHANGED(.key = "general.alignment", .number = U32(0)), STATUS_INVALID, "expected 1 to");
}

/* Well-formed, but not a model we can run: opens for inspect, and the check says why. */
static void test_what_cannot_run(void **state)
{
    (void)state;
    refused(CHANGED(.key = "general.architecture", .text = "foo"), STATUS_UNSUPPORTED,
            "architecture 'foo' is not supported; supported: llama");
    refused(CHANGED(.key = "general.architecture", .text = "fo\033[2Jo"), STATUS_UNSUPPORTED, "'fo?[2Jo'");
    refused(CHANGED(.key = "general.architecture", .number = U32(1)), STATUS_INVALID,
            "general.architecture: expected a string");
    refused(CHANGED(.key = "llama.block_count"), STATUS_INVALID, "key llama.block_count is missing");
    refused(CHANGED(.key = "llama.block_count", .number = U32(0)), STATUS_INVALID, "expected 1 to 1024, file says 0");
    refused(CHANGED(.key = "llama.block_count", .number = U32(4000000000u)), STATUS_INVALID, "file says 4000000000");
    refused(CHANGED(.key = "llama.block_count", .number = U32(2)), STATUS_INVALID,
            "tensor blk.1.attn_norm.weight is missing");
    refused(CHANGED(.key = "llama.block_count", .text = "many"), STATUS_INVALID, "expected an integer, file has string");
    refused(CHANGED(.key = "llama.attention.head_count", .number = U32(3)), STATUS_INVALID, "3 heads do not divide");
    refused(CHANGED(.key = "llama.attention.head_count", .number = U32(4)), STATUS_UNSUPPORTED,
            "multiple of 16 up to 256, file says 8");
    refused(CHANGED(.key = "llama.attention.head_count_kv", .number = U32(3)), STATUS_INVALID, "shared evenly");
    refused(CHANGED(.key = "llama.attention.layer_norm_rms_epsilon", .real = F32(-1.0f)), STATUS_INVALID,
            "norm epsilon from 0 to 1");
    refused(CHANGED(.key = "llama.attention.layer_norm_rms_epsilon", .real = F32(__builtin_nanf(""))),
            STATUS_INVALID, "expected a finite number");
    refused(CHANGED(.key = "llama.rope.freq_base", .real = F32(0.0f)), STATUS_INVALID, "RoPE base");
    refused(CHANGED(.key = "llama.rope.dimension_count", .number = U32(15)), STATUS_INVALID, "even number of rotated");
    refused(CHANGED(.key = "llama.rope.scaling.type", .text = "longrope"), STATUS_UNSUPPORTED,
            "'longrope' is not supported; supported: none, linear, yarn");
    refused(CHANGED(.key = "llama.expert_count", .number = U32(8)), STATUS_INVALID,
            "expected a row to take 1 to 8 experts, file says 0");
    refused(CHANGED(.key = "split.count", .number = U32(4)), STATUS_UNSUPPORTED, "one of 4 files");
    refused(CHANGED(.key = "llama.vocab_size", .number = U32(9)), STATUS_INVALID, "expected 9 rows, file says 8");
    refused(CHANGED(.n_tokens = 9), STATUS_INVALID, "9 tokens in the vocabulary, but token_embd.weight has 8 rows");
    refused(CHANGED(.key = "tokenizer.ggml.eos_token_id", .number = U32(8)), STATUS_INVALID,
            "tokenizer.ggml.eos_token_id: expected 0 to 7, file says 8");
    refused(CHANGED(.key = "tokenizer.ggml.bos_token_id", .number = U32(77), .n_tokens = 8), STATUS_INVALID,
            "expected 0 to 7, file says 77");
}

static void test_shapes_and_types(void **state)
{
    (void)state;
    refused(CHANGED(.tensor = "blk.0.attn_q.weight", .dims = DIMS(32, 16)), STATUS_INVALID,
            "blk.0.attn_q.weight: expected 32 x 32, file says 32 x 16");
    refused(CHANGED(.tensor = "blk.0.ffn_down.weight", .dims = DIMS(32, 64)), STATUS_INVALID,
            "blk.0.ffn_down.weight: expected 64 x 32, file says 32 x 64");
    refused(CHANGED(.tensor = "output_norm.weight", .dims = DIMS(16, 2)), STATUS_INVALID,
            "output_norm.weight: expected 32 x 1, file says 16 x 2");
    refused(CHANGED(.tensor = "output_norm.weight", .type = U32(8)), STATUS_UNSUPPORTED, "expected F32, F16 or BF16");
    refused(CHANGED(.tensor = "blk.0.attn_v.weight", .type = U32(31)), STATUS_UNSUPPORTED,
            "blk.0.attn_v.weight has type Q4_0_4_4 (number 31), which cannot be read");
    refused(CHANGED(.tensor = "token_embd.weight"), STATUS_INVALID, "token_embd.weight is missing");
    refused(CHANGED(.tensor = "blk.0.ffn_up.weight"), STATUS_INVALID, "tensor blk.0.ffn_up.weight is missing");
    refused(CHANGED(.extra_tensor = "blk.0.attn_q.bias"), STATUS_UNSUPPORTED, "tensor blk.0.attn_q.bias is not part of");
}

/* A lying header asks for nothing: what is allocated stays near what the file holds. */
static void test_lying_header_takes_no_memory(void **state)
{
    (void)state;
    struct bytes bytes = { 0 };
    bytes_put_header(&bytes, 3, 0, 60000);
    for (int i = 0; i < 60000 * 14 / 4; i++) { /* as many bytes as so many keys need at least */
        bytes_put_u32(&bytes, 0);
    }
    const uint64_t before = mem_alloc_count();
    refused(bytes, STATUS_INVALID, "a key's name at byte 24 has 0 characters");
    assert_true(mem_alloc_count() - before < 6); /* the copy, the source, one small table */
}

/* Single bytes changed all over: refused or fine, never a crash, and always a sentence. */
static void test_flipped_bytes(void **state)
{
    (void)state;
    struct bytes bytes = CHANGED(.n_tokens = 8, .extra_key = "x");
    for (size_t i = 0; i < 2000 && i < bytes.n; i++) {
        static const unsigned char FLIPS[] = { 0x01, 0x80, 0xff };
        for (size_t f = 0; f < sizeof FLIPS; f++) {
            bytes.data[i] ^= FLIPS[f];
            const enum status status = open_and_check(&bytes);
            assert_true(status == STATUS_OK || strlen(status_message()) > 10);
            bytes.data[i] ^= FLIPS[f];
        }
    }
    assert_int_equal(open_and_check(&bytes), STATUS_OK);
    bytes_free(&bytes);
}

static void count_line(void *user, const char *key, const char *value)
{
    int *n = user;
    assert_true(key[0] != '\0' && value);
    (*n)++;
}

/* Files made by others: vocabularies of any architecture open, and say that they hold no weights. */
static void test_vocabulary_files(void **state)
{
    (void)state;
    static const struct { const char *file, *words; } FILES[] = {
        { "vocab/ggml-vocab-llama-spm.gguf", "a vocabulary but no weights" },
        { "vocab/ggml-vocab-llama-bpe.gguf", "a vocabulary but no weights" },
        { "vocab/ggml-vocab-gpt-2.gguf", "architecture 'gpt2' is not supported" },
    };
    golden_or_skip();
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        char path[4096];
        struct model_source *source;
        int n_lines = 0;
        assert_true(golden_path(FILES[i].file, path, sizeof path));
        assert_int_equal(model_source_open(path, &source), STATUS_OK);
        assert_true(model_source_check(source) != STATUS_OK);
        assert_non_null(strstr(status_message(), FILES[i].words));
        assert_true(model_source_vocab(source)->n_tokens > 30000);
        model_source_describe(source, count_line, &n_lines);
        assert_true(n_lines > 10);
        model_source_close(source);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_file_loads),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_cut_everywhere),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_what_cannot_run),
        cmocka_unit_test(test_shapes_and_types),
        cmocka_unit_test(test_lying_header_takes_no_memory),
        cmocka_unit_test(test_flipped_bytes),
        cmocka_unit_test(test_vocabulary_files),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
