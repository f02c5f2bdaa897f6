/* choosing: see the header. Memory is taken with the desk; a pass takes none. */
#include "backend/cuda/choosing.h"

#include <string.h>

enum {
    ARRAY_BYTES = 4 << 20,  /* of histories and biases in a portion, unless one row wants more */
    SLACK_BYTES = 4096,     /* between arrays */
    MORE_TOKENS = 64,       /* behind a context: what a branch of a draft looks back on */
    MAX_BIASES = CHOICE_MAX_BIASES
};
_Static_assert((int)CUDA_TAKEN == (int)CHOICE_SIBLINGS, "siblings pass over all that was chosen before");
_Static_assert((int)CUDA_SAMPLE_TOP == (int)CHOICE_TOP, "as many log probabilities");
_Static_assert(sizeof(struct cuda_bias) == sizeof(struct choice_bias), "biases are copied as they are");

/* ---- creation ---- */
static size_t row_bytes(void)
{
    return CHOOSING_STAGES * (sizeof(struct cuda_sampling) + sizeof(struct cuda_taken) + sizeof(int32_t)) +
           sizeof(struct cuda_hint_row) + sizeof(struct cuda_rank_row);
}

/* What a row says and what a ranked one says, whichever is more. */
static size_t answer_bytes(void)
{
    const size_t chosen = CHOOSING_STAGES * sizeof(struct cuda_sampled) + sizeof(struct cuda_hints);
    const size_t ranked = CHOICE_MAX_RANKED * sizeof(int32_t);
    return chosen > ranked ? chosen : ranked;
}

static size_t array_bytes(const struct pass_shape *shape)
{
    const size_t tokens = ((size_t)shape->context + MORE_TOKENS) * sizeof(int32_t);
    const size_t one = tokens + MAX_BIASES * sizeof(struct cuda_bias) + CHOOSING_ALIGN;
    const size_t all = one * (size_t)shape->cap_logits;
    return all < ARRAY_BYTES ? all : one > ARRAY_BYTES ? one : ARRAY_BYTES;
}

static size_t key_bytes(const struct pass_shape *shape)
{
    return cuda_align((size_t)shape->cap_logits * CUDA_CHOOSE_SCRATCH * sizeof(uint64_t));
}

size_t cuda_choosing_scratch_floats(const struct pass_shape *shape, size_t most)
{
    const size_t one = 3 * (size_t)shape->n_vocab, all = one * (size_t)shape->cap_logits; /* spread, value, exp */
    return all < most ? all : one > most ? one : most;
}

static enum status take_memory(struct cuda_choosing *choosing)
{
    struct backend *backend = &choosing->backend->base;
    void *pinned;
    choosing->in_device = backend_alloc(backend, choosing->in_bytes);
    choosing->out_device = backend_alloc(backend, choosing->out_bytes);
    choosing->work = backend_alloc(backend, choosing->work_bytes);
    choosing->placed = mem_alloc((size_t)choosing->shape.cap_logits, sizeof *choosing->placed);
    if (choosing->in_device == NULL || choosing->out_device == NULL || choosing->work == NULL ||
        choosing->placed == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory on %s for choices of %d rows", backend_name(backend),
                           choosing->shape.cap_logits);
    }
    TRY(cuda_pinned_alloc(choosing->backend, choosing->in_bytes, &pinned));
    choosing->in_pinned = pinned;
    TRY(cuda_pinned_alloc(choosing->backend, choosing->out_bytes, &pinned));
    choosing->out_pinned = pinned;
    return STATUS_OK;
}

enum status cuda_choosing_create(struct cuda_backend *backend, const struct pass_shape *shape,
                                 struct cuda_choosing **out)
{
    const size_t n = (size_t)shape->cap_logits;
    *out = NULL;
    struct cuda_choosing *choosing = mem_alloc(1, sizeof *choosing);
    if (choosing == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for choices of tokens");
    }
    choosing->backend = backend;
    choosing->shape = *shape;
    choosing->in_bytes = cuda_align(n * row_bytes() + array_bytes(shape) + SLACK_BYTES);
    choosing->out_bytes = cuda_align(n * answer_bytes() + SLACK_BYTES);
    choosing->work_bytes =
        key_bytes(shape) + cuda_align(n * (size_t)cuda_hint_pieces(shape->n_vocab) * sizeof(float));
    const enum status status = take_memory(choosing);
    if (status != STATUS_OK) {
        cuda_choosing_destroy(choosing);
        return status;
    }
    *out = choosing;
    return STATUS_OK;
}

void cuda_choosing_destroy(struct cuda_choosing *choosing)
{
    if (choosing == NULL) {
        return;
    }
    struct backend *backend = &choosing->backend->base;
    backend_free(backend, choosing->in_device, choosing->in_bytes);
    backend_free(backend, choosing->out_device, choosing->out_bytes);
    backend_free(backend, choosing->work, choosing->work_bytes);
    (void)cudaFreeHost(choosing->in_pinned);
    (void)cudaFreeHost(choosing->out_pinned);
    mem_free(choosing->placed);
    mem_free(choosing);
}

uint64_t cuda_choosing_bytes(const struct cuda_choosing *choosing)
{
    return choosing != NULL ? choosing->in_bytes + choosing->out_bytes + choosing->work_bytes : 0;
}

uint64_t *choosing_keys(const struct cuda_choosing *choosing) { return (void *)choosing->work; }
float *choosing_sums(const struct cuda_choosing *choosing)
{
    return (void *)(choosing->work + key_bytes(&choosing->shape));
}

/* ---- how many ---- */
/* Floats of scratch that a row wants: spread, and a value and an exponential where there are filters. */
static size_t floats_of(const struct portion *portion, const struct choice_ask *ask)
{
    const size_t n_rows = (portion->domain.n_kept > 0 ? 1 : 0) + (ask->is_plain ? portion->plain_rows : 2);
    return n_rows * (size_t)portion->domain.n_vocab;
}

/* Rows of one text share what was sent of it, as far as the longest of them looks. */
static bool shares_history(const struct choice_ask *ask, const struct choice_ask *before)
{
    return before != NULL && before->n_history > 0 && before->history == ask->history;
}

static bool shares_biases(const struct choice_ask *ask, const struct choice_ask *before)
{
    return before != NULL && before->biases == ask->biases && before->n_biases == ask->n_biases;
}

static const struct choice_ask *ask_before(const struct asks *asks, int32_t i)
{
    return i > 0 ? ask_at(asks, i - 1) : NULL;
}

static size_t array_bytes_of(const struct choice_ask *ask, const struct choice_ask *before)
{
    const int32_t n_sent = shares_history(ask, before) ? before->n_history : 0;
    const size_t n_more = ask->n_history > n_sent ? (size_t)(ask->n_history - n_sent) : 0;
    const size_t n_biases = shares_biases(ask, before) ? 0 : (size_t)ask->n_biases;
    return n_more * sizeof(int32_t) + n_biases * sizeof(struct cuda_bias) + CHOOSING_ALIGN;
}

/* At least one: there is room for that. */
static int32_t portion_len(const struct portion *portion, const struct asks *left, size_t scratch_floats)
{
    const struct pass_shape *shape = &portion->choosing->shape;
    size_t floats = 0, bytes = 0;
    int32_t n = 0;
    for (; n < left->n && n < shape->cap_logits; n++) {
        floats += floats_of(portion, ask_at(left, n));
        bytes += array_bytes_of(ask_at(left, n), ask_before(left, n));
        if (floats > scratch_floats || bytes > array_bytes(shape)) {
            break;
        }
    }
    ASSERT(n > 0);
    return n;
}

/* ---- what is sent ---- */
static const int32_t *pack_history(struct portion *portion, int32_t first)
{
    const void *there;
    const struct choice_ask *ask = ask_at(&portion->asks, first);
    int32_t n = ask->n_history;
    for (int32_t i = first + 1; i < portion->asks.n && shares_history(ask_at(&portion->asks, i), ask); i++) {
        const int32_t own = ask_at(&portion->asks, i)->n_history;
        n = own > n ? own : n;
    }
    int32_t *to = pack(&portion->in, (size_t)n, sizeof *to, &there);
    memcpy(to, ask->history, (size_t)n * sizeof *to);
    return there;
}

static const struct cuda_bias *pack_biases(struct portion *portion, const struct choice_ask *ask)
{
    const void *there;
    ASSERT(ask->n_biases <= MAX_BIASES);
    void *to = pack_aligned(&portion->in, (size_t)ask->n_biases, sizeof(struct cuda_bias), CHOOSING_ALIGN, &there);
    memcpy(to, ask->biases, (size_t)ask->n_biases * sizeof(struct cuda_bias));
    return there;
}

static void pack_arrays(struct portion *portion)
{
    for (int32_t i = 0; i < portion->asks.n; i++) {
        struct placed *placed = &portion->choosing->placed[i];
        const struct choice_ask *ask = ask_at(&portion->asks, i), *before = ask_before(&portion->asks, i);
        ASSERT(ask->row >= 0 && ask->row < portion->rows.n_rows);
        *placed = (struct placed){ .history = NULL };
        if (ask->n_history > 0) {
            placed->history = shares_history(ask, before) ? placed[-1].history : pack_history(portion, i);
        }
        if (ask->n_biases > 0) {
            placed->biases = shares_biases(ask, before) ? placed[-1].biases : pack_biases(portion, ask);
        }
    }
}

/* Where rows by id will lie. */
static void place_rows(struct portion *portion, float *scratch)
{
    const struct choice_domain *domain = &portion->domain;
    const void *there;
    portion->full = portion->rows.row;
    portion->full_stride = portion->rows.n_cols;
    portion->scratch = scratch;
    portion->spread_idx = NULL;
    ASSERT(domain->n_vocab <= portion->choosing->shape.n_vocab);
    ASSERT(domain->n_kept > 0 ? domain->n_kept == portion->rows.n_cols : domain->n_vocab <= portion->rows.n_cols);
    if (domain->n_kept > 0) {
        int32_t *idx = pack(&portion->in, (size_t)portion->asks.n, sizeof *idx, &there);
        for (int32_t i = 0; i < portion->asks.n; i++) {
            idx[i] = ask_at(&portion->asks, i)->row;
        }
        portion->spread_idx = there;
        portion->full = scratch;
        portion->full_stride = domain->n_vocab;
        portion->scratch = scratch + (size_t)portion->asks.n * (size_t)domain->n_vocab;
    }
}

bool portion_begin(struct portion *portion, struct pass_desk *desk, const struct asks *left)
{
    struct cuda_choosing *choosing = cuda_desk_choosing(desk);
    const struct cuda_room room = cuda_desk_room(desk);
    if (left->n == 0 || (portion->stream = cuda_lane_enter(cuda_lane_of(portion->lane))) == NULL) {
        return false;
    }
    portion->choosing = choosing;
    portion->rows = cuda_desk_rows(desk);
    portion->asks = *left;
    portion->asks.n = portion_len(portion, left, room.scratch_floats);
    portion->in = (struct packer){ choosing->in_pinned, choosing->in_device, 0, choosing->in_bytes };
    portion->out = (struct packer){ choosing->out_pinned, choosing->out_device, 0, choosing->out_bytes };
    pack_arrays(portion);
    place_rows(portion, room.scratch);
    return true;
}

void group_open(struct portion *portion, struct group *group, const struct group_sizes *sizes)
{
    const size_t n = (size_t)group->n;
    const void *there;
    if (n == 0) {
        return;
    }
    group->rows = pack_aligned(&portion->in, n, sizes->row_bytes, CHOOSING_ALIGN, &group->rows_there);
    group->idx = pack(&portion->in, n, sizeof *group->idx, &there);
    group->from = (struct cuda_rows){ .stride = portion->full_stride, .idx = there };
    if (sizes->passes_over) {
        group->taken = pack_aligned(&portion->in, n, sizeof *group->taken, CHOOSING_ALIGN, &there);
        group->from.taken = there;
    }
    group->out_bytes = sizes->out_bytes;
    group->out = pack_aligned(&portion->out, n, sizes->out_bytes, CHOOSING_ALIGN, &there);
    group->out_there = (unsigned char *)(uintptr_t)there;
}

struct cuda_sampling portion_sampling(const struct portion *portion, int32_t i)
{
    const struct choice_ask *ask = ask_at(&portion->asks, i);
    const struct placed *placed = &portion->choosing->placed[i];
    return (struct cuda_sampling){
        .seed = ask->seed, .position = ask->position, .temperature = ask->temperature, .top_p = ask->top_p,
        .min_p = ask->min_p, .repetition_penalty = ask->repetition_penalty,
        .presence_penalty = ask->presence_penalty, .frequency_penalty = ask->frequency_penalty, .top_k = ask->top_k,
        .penalty_last_n = ask->penalty_last_n, .n_top_logprobs = ask->n_top_logprobs, .n_history = ask->n_history,
        .n_biases = ask->n_biases, .history = placed->history, .biases = placed->biases };
}

/* ---- there and back ---- */
void portion_send(struct portion *portion)
{
    struct cuda_backend *backend = portion->choosing->backend;
    cuda_ok(backend, cudaMemcpyAsync(portion->in.device, portion->in.pinned, portion->in.at, cudaMemcpyHostToDevice,
                                     portion->stream), "sending what is to be chosen");
    if (portion->spread_idx != NULL) {
        const struct cuda_op_spread op = {
            .logits = portion->rows.row, .id = portion->domain.kept_ids, .out = (float *)(uintptr_t)portion->full,
            .n_rows = portion->asks.n, .n_kept = portion->domain.n_kept, .n_vocab = portion->domain.n_vocab,
            .from = { .idx = portion->spread_idx } };
        cuda_ok(backend, cuda_spread(&op, portion->stream), "rows of a cut head");
    }
}

bool portion_end(struct portion *portion)
{
    struct cuda_backend *backend = portion->choosing->backend;
    cuda_ok(backend, cudaMemcpyAsync(portion->out.pinned, portion->out.device, portion->out.at,
                                     cudaMemcpyDeviceToHost, portion->stream), "fetching tokens");
    cuda_lane_wait(portion->lane, cuda_lane_mark(portion->lane));
    return !cuda_has_failed(backend);
}
