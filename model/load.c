/* load: from a source to repacked weights on a backend.
 *
 *     plan    every tensor of the family gets its place in one allocation and is cut into chunks
 *     fill    chunks in parallel on the lane: read rows, put rotated rows back, hash, repack
 *     finish  RoPE tables, digest, mlock
 *
 * A chunk is a fixed number of rows that depends on the tensor alone, so the digest (of the chunks'
 * digests in order) is the same for any number of workers. It covers rows in rotate-half order: the
 * same model in another container has the same digest.
 *
 * A rank of several reads the chunks that hold rows of its own and keeps its slice of them; digests of
 * the others come from the ranks that read those. Ranks agree where one may fail alone, so that all go
 * on or none does.
 */
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "model/rope.h"
#include "model/weights.h"

enum {
    CHUNK_BYTES = 256 << 10, /* read, hashed and repacked while it is in a core's own cache */
    BATCH_CHUNKS = 64,       /* between two words of progress */
    N_SLOTS = 32, ROPE_CHUNK_ROWS = 64, SENTENCE_CAP = 512
};
#define MIB (1024.0 * 1024.0)

struct load_tensor {
    struct family_binding binding;
    struct tensor_slot *slot;
    int64_t row_bytes;
    struct shard_slice keep;
    int32_t chunk_rows, first_chunk;
    int32_t chunks_each;            /* of one of the stacked matrices */
};

/* As ranks exchange them, an array of these from each. */
struct chunk_digest { uint64_t value, is_known; };

struct loader {
    struct model_source *source;
    struct model *model;
    struct lane *lane;
    const struct model_load_options *options;
    struct load_tensor *tensors;    /* [n_tensors], of those the source has */
    int32_t n_tensors, n_chunks;
    struct chunk_digest *chunk_digests; /* [1 + n_ranks, n_chunks]: own, then all */
    unsigned char *staging;         /* [N_SLOTS, slot_bytes], touched as far as used */
    size_t slot_bytes, chunk_bytes; /* a slot: rows as read, then rows put back in order */
    _Atomic uint32_t free_slots;    /* a bit each */
    uint64_t total_bytes;
    _Atomic int failed;             /* the first failing chunk writes the two below */
    enum status fail_status;
    char fail_sentence[SENTENCE_CAP];
};

static size_t align_up(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

static bool is_rotated(const struct loader *loader, const struct load_tensor *tensor)
{
    return (tensor->binding.tensor->flags & FAMILY_ROTATED) != 0 && loader->source->config.permuted_qk;
}

/* ---- plan ---- */

static size_t tensor_bytes(const struct model *model, const struct load_tensor *tensor)
{
    const struct family_binding *binding = &tensor->binding;
    if (binding->tensor->flags & FAMILY_VECTOR) {
        return align_up((size_t)binding->n_in * sizeof(float));
    }
    return backend_matrix_bytes(model->backend, binding->type, tensor->keep.n_out, tensor->keep.n_in) *
           (size_t)tensor->keep.n_stacked;
}

/* The source was checked for types that we compute with; a device may compute with fewer. */
static enum status check_device(const struct loader *loader, const struct load_tensor *tensor)
{
    const struct model *model = loader->model;
    const struct family_binding *binding = &tensor->binding;
    const bool keeps_none = tensor->keep.n_out == 0 || tensor->keep.n_in == 0 || tensor->keep.n_stacked == 0;
    if ((binding->tensor->flags & FAMILY_STACKED) && !backend_has_experts(model->backend)) {
        return status_fail(STATUS_UNSUPPORTED, "%s is a mixture of experts, and there are no kernels for those on %s",
                           loader->source->label, backend_name(model->backend));
    }
    if (tensor_bytes(model, tensor) == 0 && !keeps_none) {
        char shown[SOURCE_NAME_CAP];
        const struct tensor_type_info *type = tensor_type_info((uint32_t)binding->type);
        source_shown_name(loader->source, loader->source->tensors[binding->tensor_idx].name, shown);
        return status_fail(STATUS_UNSUPPORTED, "%s: %s is %s, for which there is no kernel on %s; --quant q8_0 "
                           "converts while loading", loader->source->label, shown, type != NULL ? type->name : "?",
                           backend_name(model->backend));
    }
    return STATUS_OK;
}

/* Whole tiles, and whole heads too where rows may have to move within a head. */
static int32_t chunk_rows(const struct loader *loader, const struct load_tensor *tensor)
{
    const bool heads = (tensor->binding.tensor->flags & FAMILY_ROTATED) != 0;
    int64_t unit = heads ? loader->source->config.head_dim : TILE_OUTPUTS;
    while (unit % TILE_OUTPUTS != 0) {
        unit += loader->source->config.head_dim;
    }
    const int64_t units = CHUNK_BYTES / (tensor->row_bytes * unit);
    const int64_t rows = (units > 0 ? units : 1) * unit;
    return (int32_t)(rows < tensor->binding.n_out ? rows : tensor->binding.n_out);
}

/* Which passes read a tensor: all, those with logits, those that touch its experts. */
static void count_bytes(struct model *model, int32_t layer, enum tensor_role role, uint64_t bytes)
{
    if (role == ROLE_ROPE_FACTORS || (role == ROLE_EMBED && !model->config.tied_head)) {
        return;
    }
    model->weight_bytes += bytes;
    if (role == ROLE_HEAD || role == ROLE_EMBED) {
        model->head_bytes += bytes;
    } else if (role != ROLE_EXPERT_GATE && role != ROLE_EXPERT_UP && role != ROLE_EXPERT_DOWN) {
        model->blocks[layer + 1].shared_bytes += bytes;
    }
}

/* Of a tensor's bytes in the file those that this rank's passes read. */
static uint64_t kept_bytes(const struct load_tensor *tensor, uint64_t bytes)
{
    const double kept = (double)tensor->keep.n_out * tensor->keep.n_in * tensor->keep.n_stacked;
    const double all = (double)tensor->binding.n_out * (double)tensor->binding.n_in * tensor->binding.n_stacked;
    return kept < all ? (uint64_t)((double)bytes * (kept / all)) : bytes;
}

static enum status plan_tensor(struct loader *loader, const struct family_binding *binding)
{
    enum { MAX_CHUNKS = 1 << 30 };
    struct load_tensor *tensor = &loader->tensors[loader->n_tensors++];
    tensor->binding = *binding;
    tensor->slot = model_slot(loader->model, binding->layer, binding->tensor->role);
    const struct model_tensor_info *info = &loader->source->tensors[binding->tensor_idx];
    tensor->row_bytes = (int64_t)source_row_bytes(info);
    tensor->keep = shard_slice(&loader->model->shard, &loader->model->config, binding);
    tensor->chunk_rows = chunk_rows(loader, tensor);
    tensor->first_chunk = loader->n_chunks;
    tensor->chunks_each = (int32_t)((binding->n_out + tensor->chunk_rows - 1) / tensor->chunk_rows);
    const int64_t n_chunks = (int64_t)tensor->chunks_each * binding->n_stacked;
    const size_t bytes = (size_t)(tensor->chunk_rows * tensor->row_bytes);
    loader->chunk_bytes = bytes > loader->chunk_bytes ? bytes : loader->chunk_bytes;
    loader->total_bytes += info->bytes;
    TRY(check_device(loader, tensor));
    loader->model->memory_bytes += tensor_bytes(loader->model, tensor);
    count_bytes(loader->model, binding->layer, binding->tensor->role, kept_bytes(tensor, info->bytes));
    if (loader->model->memory_bytes > SIZE_MAX / 4 || loader->n_chunks + n_chunks > MAX_CHUNKS) {
        return status_fail(STATUS_NO_MEMORY, "%s: the weights do not fit into an address space",
                           loader->source->label);
    }
    loader->n_chunks += (int32_t)n_chunks;
    return STATUS_OK;
}

static enum status plan(struct loader *loader)
{
    struct model *model = loader->model;
    const struct family *family = family_find(model->config.architecture);
    const int32_t n = family_n_bindings(family, &model->config);
    loader->tensors = mem_alloc((size_t)n, sizeof *loader->tensors);
    if (!loader->tensors) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a plan of %d tensors", n);
    }
    for (int32_t i = 0; i < n; i++) {
        struct family_binding binding;
        TRY(family_bind(loader->source, family, i, &binding));
        if (binding.tensor_idx < 0) {
            continue;
        }
        TRY(plan_tensor(loader, &binding));
    }
    model->memory_bytes +=
        2 * align_up((size_t)model->context * (size_t)(model->config.rope.dims / 2) * sizeof(float));
    return STATUS_OK;
}

static enum status take_memory(struct loader *loader)
{
    struct model *model = loader->model;
    const double needed = (double)model->memory_bytes / MIB;
    const uint64_t budget = loader->options->budget_bytes, available = backend_free_bytes(model->backend);
    if (budget > 0 && model->memory_bytes > budget) {
        return status_fail(STATUS_NO_MEMORY,
                           "%s: weights need %.1f MiB, the memory budget allows %.1f MiB",
                           loader->source->label, needed, (double)budget / MIB);
    }
    if (available > 0 && model->memory_bytes > available) {
        return status_fail(STATUS_NO_MEMORY, "%s: weights need %.1f MiB, %.1f MiB of memory are free",
                           loader->source->label, needed, (double)available / MIB);
    }
    model->memory = backend_alloc(model->backend, model->memory_bytes);
    if (!model->memory) {
        return status_fail(STATUS_NO_MEMORY,
                           "%s: weights need %.1f MiB, and the system did not give them (%.1f MiB free)",
                           loader->source->label, needed, (double)available / MIB);
    }
    return STATUS_OK;
}

/* Hands out the allocation in the order of the plan. */
static void place_tensors(struct loader *loader)
{
    struct model *model = loader->model;
    unsigned char *at = model->memory;
    for (int32_t i = 0; i < loader->n_tensors; i++) {
        const struct load_tensor *tensor = &loader->tensors[i];
        const struct family_binding *binding = &tensor->binding;
        const struct weight first = { .type = binding->type, .n_out = tensor->keep.n_out,
                                      .n_in = tensor->keep.n_in, .data = at };
        if (binding->tensor->flags & FAMILY_VECTOR) {
            tensor->slot->vector = (float *)(void *)at;
        } else if (binding->tensor->flags & FAMILY_STACKED) {
            tensor->slot->experts = (struct expert_weights){
                first, backend_matrix_bytes(model->backend, first.type, first.n_out, first.n_in) };
        } else {
            tensor->slot->matrix = first;
        }
        at += tensor_bytes(model, tensor);
    }
    model->cos = (float *)(void *)at;
    model->sin = (float *)(void *)(at + (size_t)(model->memory + model->memory_bytes - at) / 2);
    if (model->config.tied_head) {
        *model_slot(model, -1, ROLE_HEAD) = *model_slot(model, -1, ROLE_EMBED);
    }
}

/* ---- fill ---- */

static const struct load_tensor *tensor_of_chunk(const struct loader *loader, int32_t chunk)
{
    int32_t low = 0, high = loader->n_tensors;
    while (high - low > 1) {
        const int32_t mid = low + (high - low) / 2;
        if (loader->tensors[mid].first_chunk <= chunk) {
            low = mid;
        } else {
            high = mid;
        }
    }
    return &loader->tensors[low];
}

/* Rows of whole heads from the file's order to rotate-half order. */
static void put_rows_back(const struct loader *loader, const struct load_tensor *tensor, int32_t n_rows,
                          const unsigned char *from, unsigned char *to)
{
    const int32_t head_dim = loader->source->config.head_dim, dims = loader->source->config.rope.dims;
    const size_t bytes = (size_t)tensor->row_bytes;
    for (int32_t row = 0; row < n_rows; row++) {
        const int32_t head = row / head_dim * head_dim;
        const int32_t source_row = head + family_permuted_row(row - head, dims);
        memcpy(to + (size_t)row * bytes, from + (size_t)source_row * bytes, bytes);
    }
}

/* The matrix that a chunk is of. */
static struct weight weight_of_chunk(const struct load_tensor *tensor, int32_t stacked)
{
    struct weight weight = tensor->slot->matrix;
    if (tensor->binding.tensor->flags & FAMILY_STACKED) {
        weight = tensor->slot->experts.first;
        weight.data += (size_t)stacked * tensor->slot->experts.stride_bytes;
    }
    return weight;
}

static enum status refuse_values(const struct loader *loader, const struct load_tensor *tensor,
                                 const unsigned char *rows, int64_t first_row)
{
    int64_t row = 0;
    char shown[SOURCE_NAME_CAP];
    while (tensor_row_is_finite(tensor->binding.type, rows + row * tensor->row_bytes,
                                tensor->binding.n_in)) {
        row++;
    }
    source_shown_name(loader->source, loader->source->tensors[tensor->binding.tensor_idx].name, shown);
    return status_fail(STATUS_INVALID, "%s: %s: row %lld holds a NaN or infinity where weights should be",
                       loader->source->label, shown, (long long)(first_row + row));
}

/* Digested as floats: files that keep a vector in different types hold the same model. */
static enum status load_vector(const struct loader *loader, const struct load_tensor *tensor,
                               const unsigned char *row, uint64_t *digest)
{
    const size_t bytes = (size_t)tensor->binding.n_in * sizeof(float);
    float *values = mem_alloc(1, bytes);
    if (values == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %lld weights on their way", (long long)tensor->binding.n_in);
    }
    tensor_row_to_f32(tensor->binding.type, row, tensor->binding.n_in, values);
    *digest = digest_bytes(values, bytes);
    const enum status status = backend_upload(loader->model->backend, tensor->slot->vector, values, bytes);
    mem_free(values);
    return status;
}

/* Of the rows `here`, in file format, what this rank keeps. */
static enum status keep_rows(const struct loader *loader, const struct load_tensor *tensor,
                             const struct weight *weight, struct shard_range here, const unsigned char *rows)
{
    const struct shard_slice *keep = &tensor->keep;
    const struct tensor_type_info *info = tensor_type_info((uint32_t)tensor->binding.type);
    const int32_t begin = here.first > keep->first_out ? here.first : keep->first_out;
    const int32_t here_end = here.first + here.n, keep_end = keep->first_out + keep->n_out;
    const int32_t end = here_end < keep_end ? here_end : keep_end;
    rows += (size_t)(begin - here.first) * (size_t)tensor->row_bytes;
    rows += (size_t)keep->first_in / info->block_elems * info->block_bytes;
    return backend_matrix_fill(loader->model->backend, weight, begin - keep->first_out, end - begin, rows,
                               (size_t)tensor->row_bytes);
}

static bool keeps_some(const struct shard_slice *keep, struct shard_range here)
{
    return keep->n_in > 0 && keep->n_out > 0 && here.first < keep->first_out + keep->n_out && keep->first_out < here.first + here.n;
}

static enum status load_chunk(struct loader *loader, int32_t chunk, unsigned char *staging)
{
    const struct load_tensor *tensor = tensor_of_chunk(loader, chunk);
    const int32_t stacked = (chunk - tensor->first_chunk) / tensor->chunks_each;
    const int32_t first = (chunk - tensor->first_chunk) % tensor->chunks_each * tensor->chunk_rows;
    const int32_t left = (int32_t)tensor->binding.n_out - first;
    const int32_t n_rows = left < tensor->chunk_rows ? left : tensor->chunk_rows;
    const struct shard_range here = { first, n_rows };
    const int32_t kept_stacked = stacked - tensor->keep.first_stacked;
    if (!keeps_some(&tensor->keep, here) || kept_stacked < 0 || kept_stacked >= tensor->keep.n_stacked) {
        return STATUS_OK;
    }
    const int64_t n_elems = (int64_t)n_rows * tensor->binding.n_in;
    const int64_t source_row = (int64_t)stacked * tensor->binding.n_out + first;
    unsigned char *rows = staging;
    TRY(model_source_read(loader->source, tensor->binding.tensor_idx, source_row, n_rows, rows));
    if (!tensor_row_is_finite(tensor->binding.type, rows, n_elems)) {
        return refuse_values(loader, tensor, rows, source_row);
    }
    if (is_rotated(loader, tensor)) {
        put_rows_back(loader, tensor, n_rows, staging, staging + loader->chunk_bytes);
        rows = staging + loader->chunk_bytes;
    }
    loader->chunk_digests[chunk].is_known = 1;
    if (tensor->slot->vector) {
        return load_vector(loader, tensor, rows, &loader->chunk_digests[chunk].value);
    }
    const struct weight weight = weight_of_chunk(tensor, kept_stacked);
    loader->chunk_digests[chunk].value = digest_bytes(rows, (size_t)(n_rows * tensor->row_bytes));
    return keep_rows(loader, tensor, &weight, here, rows);
}

struct load_args { struct loader *loader; int32_t first_chunk; };

/* The lowest free slot, so that a worker gets the one still in its cache; spins when more workers
 * than slots are at it. */
static int claim_slot(struct loader *loader)
{
    for (;;) {
        uint32_t free_slots = atomic_load(&loader->free_slots);
        if (free_slots != 0 && atomic_compare_exchange_weak(&loader->free_slots, &free_slots,
                                                            free_slots & (free_slots - 1))) {
            return __builtin_ctz(free_slots);
        }
    }
}

static void load_chunk_fn(const void *args, uint32_t idx, struct lane_worker *worker)
{
    const struct load_args *load = args;
    struct loader *loader = load->loader;
    (void)worker; /* not its number: a helper from another lane has the same one */
    if (atomic_load(&loader->failed) != 0) {
        return;
    }
    const int slot = claim_slot(loader);
    const enum status status = load_chunk(loader, load->first_chunk + (int32_t)idx,
                                          loader->staging + (size_t)slot * loader->slot_bytes);
    atomic_fetch_or(&loader->free_slots, UINT32_C(1) << slot);
    int expected = 0;
    if (status != STATUS_OK && atomic_compare_exchange_strong(&loader->failed, &expected, 1)) {
        loader->fail_status = status;
        strncpy(loader->fail_sentence, status_message(), SENTENCE_CAP - 1);
    }
}

static enum status fill(struct loader *loader)
{
    atomic_store(&loader->free_slots, UINT32_MAX);
    loader->slot_bytes = align_up(2 * loader->chunk_bytes);
    loader->chunk_digests = mem_alloc((size_t)loader->n_chunks * (size_t)(loader->model->shard.n_ranks + 1),
                                      sizeof *loader->chunk_digests);
    loader->staging = mem_map(N_SLOTS * loader->slot_bytes);
    if (!loader->chunk_digests || !loader->staging) {
        return status_fail(STATUS_NO_MEMORY, "no memory for %.1f MiB to read weights into",
                           (double)N_SLOTS * (double)loader->slot_bytes / MIB);
    }
    for (int32_t chunk = 0; chunk < loader->n_chunks; chunk += BATCH_CHUNKS) {
        const int32_t left = loader->n_chunks - chunk;
        const int32_t n = left < BATCH_CHUNKS ? left : BATCH_CHUNKS;
        const struct load_args args = { loader, chunk };
        lane_wait(loader->lane,
                  lane_submit(loader->lane, load_chunk_fn, &args, sizeof args, (uint32_t)n));
        if (atomic_load(&loader->failed) != 0) {
            return status_fail(loader->fail_status, "%s", loader->fail_sentence);
        }
        if (loader->options->progress) {
            const double share = (double)(chunk + n) / loader->n_chunks;
            loader->options->progress(loader->options->progress_user,
                                      (uint64_t)(share * (double)loader->total_bytes),
                                      loader->total_bytes);
        }
    }
    return STATUS_OK;
}

/* ---- finish ---- */

struct rope_args { const struct model *model; const double *frequency; double magnitude; float *cos, *sin; };

static void rope_chunk_fn(const void *args, uint32_t chunk, struct lane_worker *worker)
{
    const struct rope_args *rope = args;
    const struct model *model = rope->model;
    const int32_t first = (int32_t)chunk * ROPE_CHUNK_ROWS, left = model->context - first;
    (void)worker;
    rope_fill(rope->frequency, model->config.rope.dims / 2, rope->magnitude, first,
              left < ROPE_CHUNK_ROWS ? left : ROPE_CHUNK_ROWS, rope->cos, rope->sin);
}

/* Everything that decides logits, in a fixed order; names and stop tokens do not. */
static void digest_config(struct digest *digest, const struct model_config *config,
                          const double *frequency)
{
    const int64_t numbers[] = { config->n_layers, config->dim, config->ffn_dim, config->n_heads,
                                config->n_kv_heads, config->head_dim, config->n_vocab, config->window,
                                config->rope.dims, config->tied_head ? 1 : 0 };
    const double magnitude = rope_magnitude(config);
    digest_update(digest, config->architecture, strlen(config->architecture) + 1);
    digest_update(digest, numbers, sizeof numbers);
    digest_update(digest, &config->norm_eps, sizeof config->norm_eps);
    digest_update(digest, &magnitude, sizeof magnitude);
    digest_update(digest, frequency, (size_t)(config->rope.dims / 2) * sizeof *frequency);
    if (config->experts.n > 0) {
        const int64_t experts[] = { config->experts.n, config->experts.n_used, config->experts.ffn_dim,
                                    config->experts.normalised ? 1 : 0 };
        digest_update(digest, experts, sizeof experts);
    }
}

static void digest_weights(struct digest *digest, const struct loader *loader)
{
    for (int32_t i = 0; i < loader->n_tensors; i++) {
        const struct family_binding *binding = &loader->tensors[i].binding;
        const bool vector = (binding->tensor->flags & FAMILY_VECTOR) != 0;
        const int64_t numbers[] = { (int64_t)binding->tensor->role, binding->layer,
                                    vector ? (int64_t)TENSOR_F32 : (int64_t)binding->type };
        digest_update(digest, numbers, sizeof numbers);
    }
    for (int32_t i = 0; i < loader->n_chunks; i++) {
        digest_update(digest, &loader->chunk_digests[i].value, sizeof loader->chunk_digests[i].value);
    }
}

static enum status refuse_difference(const struct loader *loader, int32_t rank)
{
    return status_fail(STATUS_INVALID, "%s is another model to rank %d than to rank %d",
                       loader->source->label, rank, loader->model->shard.rank);
}

/* n_bytes from every rank. */
static void gather_bytes(const struct shard *shard, const void *own, size_t n_bytes, void *all)
{
    int32_t first[COMM_MAX_RANKS + 1];
    for (int32_t r = 0; r <= shard->n_ranks; r++) {
        first[r] = r;
    }
    comm_gather(shard->comm, &(struct comm_parts){ .own = own, .all = all, .first = first,
                                                   .unit_floats = n_bytes / sizeof(float), .root = COMM_ALL });
}

/* What other ranks have read; what several have read must be the same. */
static enum status exchange_digests(struct loader *loader)
{
    const struct shard *shard = &loader->model->shard;
    struct chunk_digest *own = loader->chunk_digests, *all = own + loader->n_chunks;
    int32_t n_chunks[COMM_MAX_RANKS];
    gather_bytes(shard, &loader->n_chunks, sizeof loader->n_chunks, n_chunks);
    for (int32_t r = 0; r < shard->n_ranks; r++) {
        if (n_chunks[r] != loader->n_chunks) { /* every rank comes upon some */
            return refuse_difference(loader, r);
        }
    }
    gather_bytes(shard, own, (size_t)loader->n_chunks * sizeof *own, all);
    for (int32_t i = 0; i < shard->n_ranks * loader->n_chunks; i++) {
        struct chunk_digest *known = &own[i % loader->n_chunks];
        if (!all[i].is_known) {
            continue;
        }
        if (known->is_known && known->value != all[i].value) {
            return refuse_difference(loader, i / loader->n_chunks);
        }
        *known = all[i];
    }
    for (int32_t i = 0; i < loader->n_chunks; i++) {
        ASSERT(own[i].is_known);
    }
    return STATUS_OK;
}

enum { MAX_ROPE_PAIRS = 128 }; /* head_dim is at most 256 */

/* Frequencies of the config, divided by the file's factors where it has some. */
static enum status find_frequencies(const struct loader *loader, double *frequency)
{
    const struct model *model = loader->model;
    const float *there = model_slot(model, -1, ROLE_ROPE_FACTORS)->vector;
    const int32_t half = model->config.rope.dims / 2;
    float factors[MAX_ROPE_PAIRS];
    ASSERT(half <= MAX_ROPE_PAIRS);
    if (there != NULL) {
        TRY(backend_download(model->backend, factors, there, (size_t)half * sizeof *factors));
    }
    for (int32_t i = 0; there != NULL && i < half; i++) {
        if (!(factors[i] > 0.0f && isfinite(factors[i]))) {
            return status_fail(STATUS_INVALID, "%s: rope_freqs.weight: expected factors above 0, file says %g",
                               loader->source->label, (double)factors[i]);
        }
    }
    rope_frequencies(&model->config, there != NULL ? factors : NULL, frequency);
    return STATUS_OK;
}

/* Filled in place where the host can, else beside and sent. */
static enum status fill_rope(const struct loader *loader, const double *frequency)
{
    const struct model *model = loader->model;
    const size_t n = (size_t)model->context * (size_t)(model->config.rope.dims / 2);
    const bool in_place = backend_is_host(model->backend);
    float *tables = in_place ? NULL : mem_alloc(2 * n, sizeof *tables);
    if (!in_place && tables == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for RoPE tables of %d positions", model->context);
    }
    const struct rope_args args = { model, frequency, rope_magnitude(&model->config),
                                    in_place ? model->cos : tables, in_place ? model->sin : tables + n };
    const uint32_t n_chunks = (uint32_t)((model->context + ROPE_CHUNK_ROWS - 1) / ROPE_CHUNK_ROWS);
    lane_wait(loader->lane, lane_submit(loader->lane, rope_chunk_fn, &args, sizeof args, n_chunks));
    enum status status = STATUS_OK;
    if (!in_place) {
        TRY_GOTO(backend_upload(model->backend, model->cos, args.cos, n * sizeof *tables), out);
        TRY_GOTO(backend_upload(model->backend, model->sin, args.sin, n * sizeof *tables), out);
    }
out:
    mem_free(tables);
    return status;
}

static enum status finish_rope(struct loader *loader)
{
    struct model *model = loader->model;
    double frequency[MAX_ROPE_PAIRS];
    struct digest digest;
    TRY(find_frequencies(loader, frequency));
    TRY(fill_rope(loader, frequency));
    digest_init(&digest);
    digest_config(&digest, &model->config, frequency);
    digest_weights(&digest, loader);
    model->digest = digest_value(&digest);
    return STATUS_OK;
}

static enum status lock_memory(const struct model *model)
{
    if (!backend_is_host(model->backend)) {
        return STATUS_OK; /* a device's memory is nowhere else to go */
    }
    if (mlock(model->memory, model->memory_bytes) != 0) {
        return status_fail(STATUS_NO_MEMORY, "cannot lock %.1f MiB of weights in memory: %s (see ulimit -l)",
                           (double)model->memory_bytes / MIB, strerror(errno));
    }
    return STATUS_OK;
}

static enum status plan_ranks(struct loader *loader)
{
    const struct model *model = loader->model;
    TRY(shard_plan(&model->config, loader->options->comm, &loader->model->shard));
    if (model->shard.comm && !backend_has_ranks(model->backend)) {
        return status_fail(STATUS_UNSUPPORTED, "ranks hold a model together on CPUs, found %s",
                           backend_name(model->backend));
    }
    if (model->shard.comm && backend_plan(model->backend) != PLAN_EXACT) {
        return status_fail(STATUS_UNSUPPORTED, "ranks hold a model together by the exact plan, found %s",
                           numeric_plan_name(backend_plan(model->backend)));
    }
    if (model->shard.comm && model->config.experts.n > 0 && !backend_is_host(model->backend)) {
        return status_fail(STATUS_UNSUPPORTED, "a mixture of experts is spread over ranks on CPUs alone, found %s",
                           backend_name(model->backend));
    }
    return STATUS_OK;
}

static enum status load_weights(struct loader *loader)
{
    TRY(plan_ranks(loader));
    TRY(plan(loader));
    requantize_say(loader->source, loader->model->memory_bytes);
    TRY(take_memory(loader));
    place_tensors(loader);
    return fill(loader);
}

/* What all ranks make of it. */
static enum status agree(const struct model_load_options *options, enum status status)
{
    return options->comm ? comm_agree(options->comm, status) : status;
}

static enum status finish(struct loader *loader)
{
    if (loader->model->shard.comm) {
        TRY(exchange_digests(loader));
    }
    TRY(finish_rope(loader));
    if (loader->source->kind->consumed) {
        loader->source->kind->consumed(loader->source);
    }
    return loader->options->mlock ? lock_memory(loader->model) : STATUS_OK;
}

static enum status load_all(struct loader *loader)
{
    TRY(agree(loader->options, load_weights(loader)));
    if (loader->model->shard.comm) {
        TRY(agree(loader->options, backend_ranks_open(loader->model->backend, loader->model->shard.comm)));
    }
    return agree(loader->options, finish(loader));
}

static enum status load_native(struct model_source *source, struct lane *lane,
                               const struct model_load_options *options, struct model **out)
{
    const struct model_config *config = &source->config;
    struct model *model = mem_alloc(1, sizeof *model);
    struct model_block *blocks = mem_alloc((size_t)config->n_layers + 1, sizeof *blocks);
    struct loader *loader = mem_alloc(1, sizeof *loader);
    enum status status;
    if (!model || !blocks || !loader) {
        mem_free(model);
        mem_free(blocks);
        mem_free(loader);
        return agree(options, status_fail(STATUS_NO_MEMORY, "no memory for the tables of %d layers",
                                          config->n_layers));
    }
    const int32_t context = options->context > 0 ? options->context : config->context_len;
    *model = (struct model){ .config = *config, .backend = lane_backend(lane), .blocks = blocks,
                             .context = context < config->context_len ? context : config->context_len };
    loader->source = source;
    loader->model = model;
    loader->lane = lane;
    loader->options = options;
    status = load_all(loader);
    if (loader->staging) {
        mem_unmap(loader->staging, N_SLOTS * loader->slot_bytes);
    }
    mem_free(loader->chunk_digests);
    mem_free(loader->tensors);
    mem_free(loader);
    if (status != STATUS_OK) {
        model_destroy(model);
        return status;
    }
    *out = model;
    return STATUS_OK;
}

enum status model_load(struct model_source *source, struct lane *lane,
                       const struct model_load_options *options, struct model **out)
{
    struct model_source *native = NULL;
    *out = NULL;
    enum status status = model_source_check(source);
    if (status == STATUS_OK) {
        status = requantize_to_native(source, &native);
    }
    TRY(agree(options, status));
    status = load_native(native ? native : source, lane, options, out);
    model_source_close(native);
    return status;
}

void model_destroy(struct model *model)
{
    if (!model) {
        return;
    }
    if (model->shard.comm) {
        backend_ranks_close(model->backend);
    }
    if (model->memory) {
        backend_free(model->backend, model->memory, model->memory_bytes);
    }
    mem_free(model->blocks);
    mem_free(model);
}

const struct model_config *model_get_config(const struct model *model) { return &model->config; }
int32_t model_n_kv_heads(const struct model *model) { return model->shard.kv_heads.n; }
const struct weight *model_head(const struct model *model) { return &model_slot(model, -1, ROLE_HEAD)->matrix; }
uint64_t model_digest(const struct model *model) { return model->digest; }
uint64_t model_weight_bytes(const struct model *model) { return model->weight_bytes; }
uint64_t model_resident_bytes(const struct model *model) { return model->memory_bytes; }
const void *model_memory(const struct model *model) { return model->memory; }
