/* model_rig: see the header. */
#include "tests/model_rig.h"

#include <string.h>

static enum status take_kv(struct model_rig *rig, const struct model_rig_options *options)
{
    const struct model_config *config = model_get_config(rig->model);
    const int32_t page_slots = options->page_slots > 0 ? options->page_slots : 64;
    rig->pages_per_seq = (options->context + page_slots - 1) / page_slots;
    const int32_t n_pages = rig->pages_per_seq * rig->n_seqs;
    rig->store = (struct kv_store){ .type = options->kv, .n_layers = config->n_layers,
                                    .n_kv_heads = model_n_kv_heads(rig->model), .head_dim = config->head_dim,
                                    .page_slots = page_slots, .n_pages = n_pages };
    if (rig->store.n_kv_heads > 0) {
        TRY(kv_store_init(rig->backend, &rig->store));
    }
    rig->pages = mem_alloc((size_t)n_pages, sizeof *rig->pages);
    rig->views = mem_alloc((size_t)rig->n_seqs, sizeof *rig->views);
    rig->rows = mem_alloc((size_t)rig->cap_rows * 5, sizeof *rig->rows);
    if (!rig->pages || !rig->views || !rig->rows) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a test rig");
    }
    for (int32_t s = 0; s < rig->n_seqs; s++) {
        uint32_t *pages = rig->pages + s * rig->pages_per_seq;
        for (int32_t i = 0; i < rig->pages_per_seq; i++) {
            pages[i] = (uint32_t)(i * rig->n_seqs + s);
        }
        rig->views[s] = (struct kv_view){ .pages = pages, .n_pages = rig->pages_per_seq };
    }
    for (int32_t i = 0; i < n_pages && rig->store.k && backend_is_host(rig->backend); i++) {
        kv_store_poison(&rig->store, (uint32_t)i, 0, page_slots);
    }
    return STATUS_OK;
}

enum status model_rig_open(struct model_rig *rig, const struct model_rig_options *options)
{
    *rig = (struct model_rig){ .n_seqs = options->n_seqs > 0 ? options->n_seqs : 1,
                               .cap_rows = options->cap_rows, .source = options->source };
    const struct lane_options lane = { .n_workers = options->threads > 0 ? options->threads : 1,
                                       .caller_is_worker = true };
    const struct model_load_options load = { .context = options->context, .comm = options->comm };
    TRY(backend_create(options->device != NULL ? options->device : "cpu", options->isa, &rig->backend));
    TRY(lane_create(rig->backend, &lane, &rig->lane));
    if (!rig->source) {
        TRY(model_source_open(options->name, &rig->source));
    }
    TRY(model_load(rig->source, rig->lane, &load, &rig->model));
    TRY(take_kv(rig, options));
    return pass_buffers_create(rig->model, options->cap_rows, options->cap_rows, &rig->buffers);
}

void model_rig_close(struct model_rig *rig)
{
    pass_buffers_destroy(rig->buffers);
    mem_free(rig->rows);
    mem_free(rig->views);
    mem_free(rig->pages);
    if (rig->store.k) {
        kv_store_deinit(rig->backend, &rig->store);
    }
    model_destroy(rig->model);
    model_source_close(rig->source);
    lane_destroy(rig->lane);
    backend_destroy(rig->backend);
    *rig = (struct model_rig){ 0 };
}

static int32_t slot_of(const struct model_rig *rig, int32_t seq, int32_t position)
{
    const int32_t page_slots = rig->store.page_slots;
    const uint32_t page = rig->views[seq].pages[position / page_slots];
    return (int32_t)page * page_slots + position % page_slots;
}

const float *model_rig_pass(struct model_rig *rig, const struct model_rig_part *parts, int32_t n_parts)
{
    const int32_t cap = rig->cap_rows;
    int32_t *token = rig->rows, *position = token + cap, *slot = position + cap, *seq = slot + cap;
    int32_t *logits_row = seq + cap, n = 0;
    for (int32_t p = 0; p < n_parts; p++) {
        for (int32_t i = 0; i < parts[p].n_tokens; i++, n++) {
            ASSERT(n < cap);
            token[n] = parts[p].tokens[i];
            position[n] = parts[p].first_position + i;
            slot[n] = slot_of(rig, parts[p].seq, position[n]);
            seq[n] = parts[p].seq;
            logits_row[n] = n;
        }
    }
    const struct pass pass = { .n_rows = n, .n_seqs = rig->n_seqs, .n_logits = n, .token = token,
                               .position = position, .slot = slot, .seq_of_row = seq,
                               .views = rig->views, .logits_row = logits_row };
    lane_wait(rig->lane, model_forward(rig->model, rig->lane, &rig->store, &pass, rig->buffers));
    return pass_buffers_logits(rig->buffers);
}

void model_rig_feed(struct model_rig *rig, int32_t seq, const int32_t *tokens, int32_t n_tokens,
                    int32_t chunk, float *out)
{
    const size_t n_vocab = (size_t)model_get_config(rig->model)->n_vocab;
    for (int32_t at = 0; at < n_tokens; at += chunk) {
        const int32_t n = n_tokens - at < chunk ? n_tokens - at : chunk;
        const struct model_rig_part part = { seq, at, n, tokens + at };
        const float *logits = model_rig_pass(rig, &part, 1);
        if (out) {
            memcpy(out + (size_t)at * n_vocab, logits, (size_t)n * n_vocab * sizeof *out);
        }
    }
}

uint64_t model_rig_kv_digest(const struct model_rig *rig, int32_t seq, int32_t n)
{
    float k[4096], v[4096];
    const size_t floats = (size_t)rig->store.n_kv_heads * (size_t)rig->store.head_dim;
    struct digest digest;
    ASSERT(floats <= sizeof k / sizeof k[0]);
    digest_init(&digest);
    for (int32_t layer = 0; layer < rig->store.n_layers; layer++) {
        for (int32_t position = 0; position < n; position++) {
            kv_store_read(&rig->store, layer, slot_of(rig, seq, position), k, v);
            digest_update(&digest, k, floats * sizeof *k);
            digest_update(&digest, v, floats * sizeof *v);
        }
    }
    return digest_value(&digest);
}
