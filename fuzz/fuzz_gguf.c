/* fuzz_gguf: any bytes as a model file. What opens is described and read; what passes the check is
 * loaded and runs a pass of two rows. Refusals are the expected end; a crash, a leak or a read outside
 * the input is a bug. */
#include <stdint.h>
#include <string.h>

#include "model/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { MAX_READ_BYTES = 1 << 20, N_ROWS = 2, CONTEXT = 16 };

static void use_line(void *user, const char *key, const char *value)
{
    size_t *sum = user;
    *sum += strlen(key) + strlen(value);
}

static void read_everything(struct model_source *source)
{
    size_t sum = 0;
    model_source_describe(source, use_line, &sum);
    const struct model_vocab *vocab = model_source_vocab(source);
    for (int32_t i = 0; vocab && i < vocab->n_tokens; i++) {
        sum += digest_bytes(vocab->tokens[i].bytes, vocab->tokens[i].n_bytes) & 1u;
        sum += vocab->classes ? (size_t)vocab->classes[i] & 1u : 0;
    }
    for (int64_t i = 0; i < model_source_n_tensors(source); i++) {
        struct model_tensor_info info;
        if (model_source_tensor(source, i, &info) == STATUS_OK && info.bytes <= MAX_READ_BYTES) {
            int64_t n_rows = 1;
            for (int32_t d = 1; d < info.n_dims; d++) {
                n_rows *= info.dims[d];
            }
            void *rows = mem_alloc(info.bytes, 1);
            if (rows && model_source_read(source, i, 0, n_rows, rows) == STATUS_OK) {
                sum += digest_bytes(rows, info.bytes) & 1u;
            }
            mem_free(rows);
        }
    }
    ASSERT(sum > 0 || model_source_n_tensors(source) >= 0); /* the sum is used */
}

static void run_pass(struct backend *backend, struct lane *lane, const struct model *model)
{
    static const int32_t TOKENS[N_ROWS], POSITIONS[N_ROWS] = { 0, 1 }, SLOTS[N_ROWS] = { 0, 1 };
    static const int32_t SEQS[N_ROWS], LOGITS[N_ROWS] = { 0, 1 };
    static const uint32_t PAGES[1];
    const struct model_config *config = model_get_config(model);
    const struct kv_view view = { .pages = PAGES, .n_pages = 1 };
    struct kv_store store = { .type = KV_F16, .n_layers = config->n_layers, .n_kv_heads = config->n_kv_heads,
                              .head_dim = config->head_dim, .page_slots = CONTEXT, .n_pages = 1 };
    struct pass_buffers *buffers;
    if (config->context_len < N_ROWS || kv_store_init(backend, &store) != STATUS_OK) {
        return;
    }
    if (pass_buffers_create(model, N_ROWS, N_ROWS, &buffers) == STATUS_OK) {
        const struct pass pass = { .n_rows = N_ROWS, .n_seqs = 1, .n_logits = N_ROWS, .token = TOKENS,
                                   .position = POSITIONS, .slot = SLOTS, .seq_of_row = SEQS,
                                   .views = &view, .logits_row = LOGITS };
        lane_wait(lane, model_forward(model, lane, &store, &pass, buffers));
        pass_buffers_destroy(buffers);
    }
    kv_store_deinit(backend, &store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static struct backend *backend;
    static struct lane *lane;
    struct model_source *source;
    struct model *model;
    if (!lane) {
        const struct lane_options options = { .n_workers = 1, .caller_is_worker = true };
        ASSERT(backend_create("cpu", "scalar", &backend) == STATUS_OK);
        ASSERT(lane_create(backend, &options, &lane) == STATUS_OK);
    }
    if (model_source_open_bytes(data, n_bytes, &source) != STATUS_OK) {
        return 0;
    }
    read_everything(source);
    const struct model_load_options load = { .context = CONTEXT };
    if (model_load(source, lane, &load, &model) == STATUS_OK) {
        run_pass(backend, lane, model);
        model_destroy(model);
    }
    model_source_close(source);
    return 0;
}
