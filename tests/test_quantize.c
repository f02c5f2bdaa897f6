/* quantize: a source in another type equals its rows converted one by one, on any number of threads
 * and through a file; what cannot be converted has its sentence and leaves no file. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/family.h"
#include "tests/hostile_gguf.h"
#include "tests/model_rig.h"

enum { N_TOKENS = 12, PATH_BYTES = 64 };
/* Rows of 576 fit blocks of 32 alone, rows of 1536 those of 256 too. */
static const char *const BOTH_ROWS = "synth:smol-135m,f32,layers=1,vocab=300";

static char dir[PATH_BYTES] = "/tmp/tandem-quantize-XXXXXX";
static const char *file_path(const char *name)
{
    static char path[PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void must(enum status status)
{
    if (status != STATUS_OK) {
        print_error("%s\n", status_message());
    }
    assert_int_equal(status, STATUS_OK);
}

static void must_say(enum status status, enum status expected, const char *words)
{
    assert_int_equal(status, expected);
    if (!strstr(status_message(), words)) {
        print_error("'%s' has no '%s'\n", status_message(), words);
    }
    assert_non_null(strstr(status_message(), words));
}

struct bench_lane { struct backend *backend; struct lane *lane; };
static struct bench_lane lane_open(int n_workers)
{
    struct bench_lane self;
    const struct lane_options options = { .n_workers = n_workers, .caller_is_worker = true };
    must(backend_create("cpu", NULL, &self.backend));
    must(lane_create(self.backend, &options, &self.lane));
    return self;
}

static void lane_close(struct bench_lane *self)
{
    lane_destroy(self->lane);
    backend_destroy(self->backend);
}

static struct model_source *open_as(const char *name, uint32_t type, struct lane *lane)
{
    struct model_source *inner, *source;
    const struct model_requantize_options options = { .type = type, .lane = lane };
    must(model_source_open(name, &inner));
    must(model_source_requantize(inner, &options, &source));
    return source;
}

static void write_and_close(struct model_source *source, const char *path)
{
    must(model_source_write_gguf(source, path, NULL, NULL));
    model_source_close(source);
}

/* ---- values ---- */

static uint32_t expected_type(const struct model_tensor_info *info, uint32_t wanted)
{
    if (info->n_dims == 1) {
        return TENSOR_F32;
    }
    return info->dims[0] % tensor_type_info(wanted)->block_elems == 0 ? wanted : (uint32_t)TENSOR_Q8_0;
}

/* Every row of `file` is the row of `plain` (F32) written by the room below. Returns the error's
 * squares by the types' own rounding. */
static double compare_tensor(struct model_source *plain, struct model_source *file, int64_t idx, uint32_t wanted)
{
    struct model_tensor_info a, b;
    must(model_source_tensor(plain, idx, &a));
    const int64_t other = source_find_tensor(file, a.name);
    assert_true(other >= 0);
    must(model_source_tensor(file, other, &b));
    assert_int_equal(b.type, expected_type(&a, wanted));
    float *row = mem_alloc((size_t)a.dims[0] * 2, sizeof *row), *back = row + a.dims[0];
    unsigned char *expected = mem_alloc(source_row_bytes(&b), 1), *found = mem_alloc(source_row_bytes(&b), 1);
    double squares = 0;
    for (int64_t r = 0; r < source_n_rows(&a); r++) {
        must(model_source_read(plain, idx, r, 1, row));
        must(model_source_read(file, other, r, 1, found));
        tensor_row_from_f32((enum tensor_type)b.type, row, a.dims[0], expected);
        assert_memory_equal(expected, found, source_row_bytes(&b));
        tensor_row_to_f32((enum tensor_type)b.type, found, a.dims[0], back);
        for (int64_t i = 0; i < a.dims[0]; i++) {
            squares += pow((double)back[i] - (double)row[i], 2);
        }
    }
    mem_free(row);
    mem_free(expected);
    mem_free(found);
    return squares;
}

static void test_values(void **state)
{
    (void)state;
    static const struct { enum tensor_type type; double least, most; } CASES[] = {
        { TENSOR_Q4_0, 0.06, 0.12 }, { TENSOR_Q4_K, 0.03, 0.10 }, { TENSOR_Q6_K, 0.005, 0.03 },
        { TENSOR_Q8_0, 0.002, 0.01 }, { TENSOR_BF16, 0.0005, 0.003 }, { TENSOR_F16, 0.00005, 0.0004 },
        { TENSOR_F32, 0, 0 },
    };
    struct bench_lane lane = lane_open(3);
    double before = 1;
    for (size_t c = 0; c < sizeof CASES / sizeof CASES[0]; c++) {
        struct model_source *plain, *file, *source = open_as(BOTH_ROWS, CASES[c].type, lane.lane);
        struct model_requantize_report report;
        const char *path = file_path("values.gguf");
        must(model_source_write_gguf(source, path, NULL, NULL));
        must(model_source_open(BOTH_ROWS, &plain));
        must(model_source_open(path, &file));
        must(model_source_check(file));
        for (int64_t i = 0; i < model_source_n_tensors(plain); i++) {
            const double squares = compare_tensor(plain, file, i, CASES[c].type);
            model_requantize_get_report(source, i, &report);
            assert_true(fabs(squares - report.error_squares) <= 1e-9 * squares);
        }
        const int64_t down = source_find_tensor(plain, "blk.0.ffn_down.weight"); /* rows of 1536 */
        model_requantize_get_report(source, down, &report);
        const double error = CASES[c].type == TENSOR_F32 ? 0 : sqrt(report.error_squares / report.squares);
        assert_true(error >= CASES[c].least && error <= CASES[c].most && error < before);
        assert_false(report.falls_back);
        model_requantize_get_report(source, source_find_tensor(plain, "blk.0.attn_q.weight"), &report);
        assert_true(report.falls_back == (tensor_type_info(CASES[c].type)->block_elems == 256));
        before = error;
        model_source_close(file);
        model_source_close(plain);
        model_source_close(source);
        unlink(path);
    }
    lane_close(&lane);
}

/* The file and the errors do not depend on how many threads converted. */
static void test_threads(void **state)
{
    (void)state;
    unsigned char *bytes[2];
    size_t n[2];
    double squares[2];
    for (int i = 0; i < 2; i++) {
        struct bench_lane lane = lane_open(i == 0 ? 1 : 4);
        struct model_source *source = open_as(BOTH_ROWS, TENSOR_Q4_0, lane.lane);
        struct model_requantize_report report;
        must(model_source_write_gguf(source, file_path("threads.gguf"), NULL, NULL));
        model_requantize_get_report(source, 0, &report);
        squares[i] = report.error_squares;
        model_source_close(source);
        lane_close(&lane);
        FILE *file = fopen(file_path("threads.gguf"), "rb");
        assert_non_null(file);
        bytes[i] = mem_alloc(8 << 20, 1);
        n[i] = fread(bytes[i], 1, 8 << 20, file);
        fclose(file);
        unlink(file_path("threads.gguf"));
    }
    assert_int_equal(n[0], n[1]);
    assert_true(n[0] > 100000 && n[0] < 8 << 20);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
    assert_memory_equal(&squares[0], &squares[1], sizeof squares[0]);
    mem_free(bytes[0]);
    mem_free(bytes[1]);
}

/* ---- logits ---- */

static uint64_t logits_digest(const char *name, struct model_source *source)
{
    struct model_rig rig;
    int32_t tokens[N_TOKENS];
    for (int32_t i = 0; i < N_TOKENS; i++) {
        tokens[i] = (i * 37 + 5) % 512;
    }
    must(model_rig_open(&rig, &(struct model_rig_options){ .name = name, .source = source, .kv = KV_F32,
                                                           .context = 64, .cap_rows = N_TOKENS }));
    const struct model_rig_part part = { .n_tokens = N_TOKENS, .tokens = tokens };
    const float *logits = model_rig_pass(&rig, &part, 1);
    const uint64_t digest = digest_bytes(logits, (size_t)N_TOKENS * 512 * sizeof *logits);
    model_rig_close(&rig);
    return digest;
}

/* The own type again, or a float type in F32: nothing is lost, the answers are the same bits. */
static void test_same_logits(void **state)
{
    (void)state;
    static const struct { const char *name; enum tensor_type type; } CASES[] = {
        { "synth:tiny,q8_0", TENSOR_Q8_0 }, { "synth:tiny,q4_0", TENSOR_Q4_0 },
        { "synth:tiny,bf16", TENSOR_BF16 }, { "synth:tiny,f16", TENSOR_F16 },
        { "synth:tiny,bf16", TENSOR_F32 }, { "synth:tiny,f16", TENSOR_F32 },
    };
    struct bench_lane lane = lane_open(2);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        const char *path = file_path("same.gguf");
        write_and_close(open_as(CASES[i].name, CASES[i].type, lane.lane), path);
        assert_true(logits_digest(CASES[i].name, NULL) == logits_digest(path, NULL));
        unlink(path);
    }
    lane_close(&lane);
}

/* Converted while it is loaded, from any thread, a model is the one converted before. */
static void test_while_loading(void **state)
{
    (void)state;
    struct bench_lane lane = lane_open(2);
    const char *path = file_path("loading.gguf");
    write_and_close(open_as("synth:tiny,f32", TENSOR_Q4_0, lane.lane), path);
    const uint64_t file = logits_digest(path, NULL);
    assert_true(logits_digest(NULL, open_as("synth:tiny,f32", TENSOR_Q4_0, NULL)) == file);
    assert_true(logits_digest("synth:tiny,f32", NULL) != file);
    unlink(path);
    lane_close(&lane);
}

/* synth:tiny,f32 with its rotated rows put back, as folders hold them. */
struct natural_source {
    struct model_source base;
    struct model_source *inner;
};

static void natural_close(struct model_source *source)
{
    model_source_close(((struct natural_source *)source)->inner);
}

static enum status natural_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                                int64_t n_rows, void *out)
{
    struct model_source *inner = ((struct natural_source *)source)->inner;
    const struct model_tensor_info *info = &source->tensors[tensor_idx];
    const int64_t head_dim = source->config.head_dim;
    const bool rotated = strstr(info->name, "attn_q.w") || strstr(info->name, "attn_k.w");
    for (int64_t i = 0; i < n_rows; i++) {
        const int64_t row = first_row + i, head = row / head_dim * head_dim;
        const int64_t from = head + family_permuted_row((int32_t)(row - head), source->config.rope.dims);
        TRY(model_source_read(inner, tensor_idx, rotated ? from : row, 1,
                              (char *)out + (uint64_t)i * source_row_bytes(info)));
    }
    return STATUS_OK;
}

static const struct source_kind NATURAL = { .close = natural_close, .read = natural_read };

/* Rows that a folder holds in rotate-half order are permuted in the file, as other programs expect. */
static void test_permuted(void **state)
{
    (void)state;
    const char *path = file_path("permuted.gguf");
    struct natural_source *self = mem_alloc(1, sizeof *self);
    struct model_source *file;
    const struct model_requantize_options options = { .type = TENSOR_F32 };
    must(model_source_open("synth:tiny,f32", &self->inner));
    self->base = *self->inner;
    self->base.kind = &NATURAL;
    self->base.config.permuted_qk = false;
    self->base.tensor_index = (struct name_index){ 0 };
    must(source_index_tensors(&self->base));
    must(model_source_requantize(&self->base, &options, &file));
    write_and_close(file, path);
    assert_true(logits_digest(path, NULL) == logits_digest("synth:tiny,f32", NULL));
    must(model_source_open(path, &file));
    struct model_source *plain;
    must(model_source_open("synth:tiny,f32", &plain));
    for (int64_t i = 0; i < model_source_n_tensors(plain); i++) {
        compare_tensor(plain, file, i, TENSOR_F32);
    }
    model_source_close(plain);
    model_source_close(file);
    unlink(path);
}

/* ---- keys ---- */

struct wanted_key { const char *key; char value[256]; int n; };
static void find_key(void *user, const char *key, const char *value)
{
    struct wanted_key *wanted = user;
    if (strcmp(key, wanted->key) == 0) {
        snprintf(wanted->value, sizeof wanted->value, "%s", value);
        wanted->n++;
    }
}

static void assert_key(const struct model_source *source, const char *key, const char *value)
{
    struct wanted_key wanted = { .key = key };
    model_source_describe(source, find_key, &wanted);
    if (wanted.n != 1 || strcmp(wanted.value, value) != 0) {
        print_error("%s: %d times, '%s'\n", key, wanted.n, wanted.value);
    }
    assert_int_equal(wanted.n, 1);
    assert_string_equal(wanted.value, value);
}

static void test_keys(void **state)
{
    (void)state;
    const struct hostile_change change = { .extra_key = "author.shoe_size", .n_tokens = 8 };
    static const struct { enum tensor_type type; const char *number; } CASES[] = {
        { TENSOR_F16, "1" }, { TENSOR_Q8_0, "7" }, { TENSOR_Q4_0, "2" }, { TENSOR_F32, "0" },
        { TENSOR_BF16, "32" },
    };
    struct bytes bytes = hostile_small(&change);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct model_source *inner, *source, *file;
        const struct model_requantize_options options = { .type = CASES[i].type };
        must(model_source_open_bytes(bytes.data, bytes.n, &inner));
        must(model_source_requantize(inner, &options, &source));
        must(model_source_write_gguf(source, file_path("keys.gguf"), NULL, NULL));
        must(model_source_open(file_path("keys.gguf"), &file));
        must(model_source_check(file));
        assert_key(file, "author.shoe_size", "1");
        assert_key(file, "general.file_type", CASES[i].number);
        const struct model_vocab *before = model_source_vocab(source), *after = model_source_vocab(file);
        assert_non_null(before);
        assert_non_null(after);
        assert_int_equal(after->n_tokens, 8);
        for (int32_t t = 0; t < 8; t++) {
            assert_int_equal(after->tokens[t].n_bytes, before->tokens[t].n_bytes);
            assert_memory_equal(after->tokens[t].bytes, before->tokens[t].bytes, after->tokens[t].n_bytes);
        }
        model_source_close(file);
        model_source_close(source);
        unlink(file_path("keys.gguf"));
    }
    bytes_free(&bytes);
}

/* ---- what cannot be ---- */

/* synth:tiny,f32 with one number replaced. */
struct planted_source {
    struct model_source base;
    struct model_source *inner;
    float value;
};

static void planted_close(struct model_source *source)
{
    model_source_close(((struct planted_source *)source)->inner);
}

static enum status planted_read(struct model_source *source, int64_t tensor_idx, int64_t first_row,
                                int64_t n_rows, void *out)
{
    struct planted_source *self = (struct planted_source *)source;
    const struct model_tensor_info *info = &source->tensors[tensor_idx];
    TRY(model_source_read(self->inner, tensor_idx, first_row, n_rows, out));
    if (strcmp(info->name, "blk.1.ffn_up.weight") == 0 && first_row <= 7 && first_row + n_rows > 7) {
        memcpy((char *)out + (uint64_t)(7 - first_row) * source_row_bytes(info) + 3 * 4, &self->value, 4);
    }
    return STATUS_OK;
}

static const struct source_kind PLANTED = { .close = planted_close, .read = planted_read };

static struct model_source *open_planted(float value)
{
    struct planted_source *self = mem_alloc(1, sizeof *self);
    struct model_source *inner;
    must(model_source_open("synth:tiny,f32", &inner));
    self->base = *inner;
    self->base.kind = &PLANTED;
    self->base.tensor_index = (struct name_index){ 0 };
    self->inner = inner;
    self->value = value;
    must(source_index_tensors(&self->base));
    return &self->base;
}

static void test_bad_numbers(void **state)
{
    (void)state;
    static const struct { float value; enum tensor_type type; const char *words; } CASES[] = {
        { NAN, TENSOR_Q8_0, "blk.1.ffn_up.weight, row 7, column 3: nan is no number" },
        { INFINITY, TENSOR_BF16, "row 7, column 3: inf is no number" },
        { 70000.0f, TENSOR_F16, "row 7, column 3: 70000 is beyond the largest number of this type" },
    };
    struct bench_lane lane = lane_open(2);
    for (size_t i = 0; i < 2 * sizeof CASES / sizeof CASES[0]; i++) {
        struct model_source *source;
        const struct model_requantize_options options = { .type = CASES[i / 2].type,
                                                          .lane = i % 2 ? lane.lane : NULL };
        must(model_source_requantize(open_planted(CASES[i / 2].value), &options, &source));
        must_say(model_source_write_gguf(source, file_path("bad.gguf"), NULL, NULL), STATUS_INVALID,
                 CASES[i / 2].words);
        assert_int_equal(access(file_path("bad.gguf"), F_OK), -1);
        assert_int_equal(access(file_path("bad.gguf.part"), F_OK), -1);
        model_source_close(source);
    }
    lane_close(&lane);
}

static void test_types_refused(void **state)
{
    (void)state;
    struct model_source *inner, *source;
    must(model_source_open("synth:tiny,f32", &inner));
    struct model_requantize_options options = { .type = TENSOR_IQ1_S };
    must_say(model_source_requantize(inner, &options, &source), STATUS_UNSUPPORTED,
             "IQ1_S can be read but not written; there are F32, F16, Q4_0");
    assert_null(source);
    options.type = 77;
    must_say(model_source_requantize(inner, &options, &source), STATUS_INVALID, "type 77 is unknown");
    model_source_close(inner);
    const struct hostile_change change = { .tensor = "output_norm.weight" };
    struct bytes bytes = hostile_small(&change);
    options.type = TENSOR_F16;
    must(model_source_open_bytes(bytes.data, bytes.n, &inner));
    must_say(model_source_requantize(inner, &options, &source), STATUS_INVALID, "output_norm.weight");
    model_source_close(inner);
    bytes_free(&bytes);
}

static int stop_after(void *user) { return ++*(int *)user > 5; }

static void test_stop(void **state)
{
    (void)state;
    int n_asked = 0;
    struct bench_lane lane = lane_open(2);
    struct model_source *inner, *source;
    const struct model_requantize_options options = { .type = TENSOR_Q8_0, .lane = lane.lane,
                                                      .stop = stop_after, .stop_user = &n_asked };
    must(model_source_open("synth:tiny,f32", &inner));
    must(model_source_requantize(inner, &options, &source));
    must_say(model_source_write_gguf(source, file_path("stop.gguf"), NULL, NULL), STATUS_INTERRUPTED,
             "interrupted while converting");
    assert_int_equal(n_asked, 6);
    assert_int_equal(access(file_path("stop.gguf"), F_OK), -1);
    assert_int_equal(access(file_path("stop.gguf.part"), F_OK), -1);
    model_source_close(source);
    lane_close(&lane);
}

/* Each allocation made to fail once: a sentence, or the same result. */
static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 400; n++) {
        struct model_source *inner, *source = NULL;
        struct model_tensor_info info;
        unsigned char row[4096];
        const struct model_requantize_options options = { .type = TENSOR_Q8_0 };
        must(model_source_open("synth:tiny,f32", &inner));
        mem_fail_at(n);
        enum status status = model_source_requantize(inner, &options, &source);
        if (status == STATUS_OK) {
            must(model_source_tensor(source, 1, &info));
            assert_true(source_row_bytes(&info) < sizeof row);
            status = model_source_read(source, 1, 0, 1, row);
        }
        mem_fail_at(0);
        assert_true(status == STATUS_OK || status == STATUS_NO_MEMORY);
        model_source_close(source ? source : inner);
        if (status == STATUS_OK) {
            assert_true(n > 5);
            return;
        }
    }
    fail_msg("memory never sufficed");
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return rmdir(dir); /* a file left behind is a failure too */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_threads), cmocka_unit_test(test_same_logits),
        cmocka_unit_test(test_while_loading), cmocka_unit_test(test_permuted),
        cmocka_unit_test(test_keys), cmocka_unit_test(test_bad_numbers),
        cmocka_unit_test(test_types_refused), cmocka_unit_test(test_stop), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
