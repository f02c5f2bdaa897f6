/* sim: see the header. The draft here guesses from the same hash as the target, rightly or wrongly
 * as its pattern says: digits are how many leading proposals are right, one digit a round. */
#include "tests/sim.h"

#include <stdio.h>
#include <string.h>

#include "kvcache/private.h"

enum { MAX_REQUESTS = 4096, WHY_CAP = 256 };

struct slot { int32_t token, position; };

struct sim {
    struct target target;
    struct draft draft;
    struct sim_options options;
    struct backend *backend;
    struct lane *lane;
    struct scheduler *scheduler;
    struct slot *slots;         /* [n_pages * page_slots] */
    int32_t *writer;            /* [n_pages] sequence of the pass that writes here, or -1 */
    float *logits;
    int32_t broken, draft_round;
    void (*hook)(void *user);
    void *hook_user;
    const char *violation;      /* of the last pass */
    struct sim_spec specs[MAX_REQUESTS];
    struct request *requests[MAX_REQUESTS];
    int32_t n_requests;
    char why[WHY_CAP];
};

/* ---- what the table says ---- */
static uint64_t hash_start(void) { return 0x5eed; }
static uint64_t hash_next(uint64_t hash, int32_t token)
{
    return rng_mix64(hash ^ ((uint64_t)token + 1));
}

static void fill_logits(const struct sim_options *options, uint64_t hash, int32_t last, float *logits)
{
    for (int32_t i = 0; i < SIM_VOCAB; i++) {
        const uint64_t bits = rng_mix64(hash + (uint64_t)i * 0x9e37);
        logits[i] = options->tied ? (float)(bits % 3) : (float)(bits >> 40) * 0x1p-21f - 4.0f;
    }
    if (options->nan_token && last == SIM_NAN) {
        logits[7] = MATHX_NAN;
    }
}

/* ---- the device ---- */
static void note(struct sim *sim, const char *violation)
{
    sim->violation = sim->violation != NULL ? sim->violation : violation;
}

/* Rows off a tree's chain have views of their own over the same page table. */
static bool same_sequence(const struct pass *pass, int32_t a, int32_t b)
{
    return pass->views[a].pages == pass->views[b].pages;
}

static void write_rows(struct sim *sim, const struct pass *pass)
{
    const struct kv_pool *pool = sim->scheduler->pool;
    memset(sim->writer, 0xff, (size_t)sim->options.n_pages * sizeof *sim->writer);
    for (int32_t i = 0; i < pass->n_rows; i++) {
        const int32_t page = pass->slot[i] / sim->options.page_slots;
        if (pool->n_refs[page] != 1) {
            note(sim, "a row writes to a page that others hold");
        }
        if (sim->writer[page] != -1 && !same_sequence(pass, sim->writer[page], pass->seq_of_row[i])) {
            note(sim, "two sequences write to one page");
        }
        sim->writer[page] = pass->seq_of_row[i];
        sim->slots[pass->slot[i]] = (struct slot){ pass->token[i], pass->position[i] };
    }
}

static void read_row(struct sim *sim, const struct pass *pass, int32_t row, float *logits)
{
    const struct kv_view *view = &pass->views[pass->seq_of_row[row]];
    uint64_t hash = hash_start();
    for (int32_t p = 0; p <= pass->position[row]; p++) {
        const int32_t at = kv_view_slot(view, sim->options.page_slots, p);
        const int32_t page = at / sim->options.page_slots;
        const struct slot *slot = &sim->slots[at];
        if (slot->position != p) {
            note(sim, "a row sees a slot that holds another position");
        }
        if (sim->writer[page] != -1 && !same_sequence(pass, sim->writer[page], pass->seq_of_row[row])) {
            note(sim, "a row sees a page that another sequence writes");
        }
        hash = hash_next(hash, slot->token);
    }
    fill_logits(&sim->options, hash, pass->token[row], logits);
}

static void sim_copy(struct target *target, const struct kv_copy *copies, int32_t n)
{
    struct sim *sim = (struct sim *)target;
    const size_t page_slots = (size_t)sim->options.page_slots;
    for (int32_t i = 0; i < n; i++) {
        memcpy(sim->slots + copies[i].dst * page_slots, sim->slots + copies[i].src * page_slots,
               page_slots * sizeof *sim->slots);
    }
}

static void sim_begin(struct target *target, const struct target_work *work)
{
    struct sim *sim = (struct sim *)target;
    sim_copy(target, work->copies, work->n_copies);
    write_rows(sim, work->pass);
    for (int32_t i = 0; i < work->pass->n_logits; i++) {
        read_row(sim, work->pass, work->pass->logits_row[i], sim->logits + (size_t)i * SIM_VOCAB);
    }
    if (sim->hook != NULL) {
        sim->hook(sim->hook_user);
    }
}

static enum status sim_end(struct target *target, const float **logits)
{
    struct sim *sim = (struct sim *)target;
    *logits = sim->logits;
    if (sim->broken) {
        sim->broken = 0;
        return status_fail(STATUS_IO, "the device has burnt down");
    }
    return STATUS_OK;
}

static void sim_target_destroy(struct target *target) { (void)target; }

/* ---- the draft ---- */
/* The table's own choice after a text that hashes to `hash`. */
static int32_t right_token(struct sim *sim, uint64_t hash)
{
    float logits[SIM_VOCAB];
    bool bad;
    fill_logits(&(struct sim_options){ .tied = sim->options.tied }, hash, 0, logits);
    return backend_argmax(sim->backend, logits, SIM_VOCAB, &bad);
}

/* A chain of n_nodes after `parent`, of which n_right are right. */
static void add_chain(struct sim *sim, struct draft_proposal *proposal, int32_t parent, uint64_t hash,
                      int32_t n_nodes, int32_t n_right)
{
    for (int32_t i = 0; i < n_nodes; i++) {
        const int32_t right = right_token(sim, hash), node = proposal->n++;
        proposal->token[node] = i < n_right ? right : (right + 1) % SIM_VOCAB;
        proposal->parent[node] = (int8_t)(i == 0 ? parent : node - 1);
        proposal->source[node] = 0;
        proposal->hint[node] = 0.5f;
        proposal->prob[node] = NULL;
        hash = hash_next(hash, proposal->token[node]);
    }
}

/* A digit: so many right ones. A letter: as many as its place in the alphabet, then a wrong one, and a
 * side branch that goes on rightly there. */
static void sim_propose_one(struct sim *sim, struct draft_ask *ask)
{
    const char *pattern = sim->options.draft_pattern;
    const char code = pattern[sim->draft_round++ % (int32_t)strlen(pattern)];
    const int32_t n_right = code >= 'a' ? code - 'a' : code - '0';
    uint64_t hash = hash_start();
    for (int32_t i = 0; i < ask->n_tokens; i++) {
        hash = hash_next(hash, ask->tokens[i]);
    }
    ask->proposal.n = 0;
    if (code < 'a' || ask->n_nodes_max < n_right + 2) {
        add_chain(sim, &ask->proposal, -1, hash, ask->k_max, n_right);
        return;
    }
    add_chain(sim, &ask->proposal, -1, hash, n_right + 1, n_right);
    for (int32_t i = 0; i < n_right; i++) {
        hash = hash_next(hash, ask->proposal.token[i]);
    }
    const int32_t n_more = ask->n_nodes_max - n_right - 1;
    add_chain(sim, &ask->proposal, n_right - 1, hash, n_more, n_more);
}

static void sim_propose(struct draft *draft, struct draft_ask *asks, int32_t n_asks)
{
    struct sim *sim = (struct sim *)(void *)((char *)draft - offsetof(struct sim, draft));
    for (int32_t i = 0; i < n_asks; i++) {
        if (asks[i].k_max > 0) {
            sim_propose_one(sim, &asks[i]);
        }
    }
}

static void sim_draft_destroy(struct draft *draft) { (void)draft; }

/* ---- what tests ask ---- */
void sim_logits(const struct sim *sim, const int32_t *tokens, int32_t n, float *logits)
{
    uint64_t hash = hash_start();
    for (int32_t i = 0; i < n; i++) {
        hash = hash_next(hash, tokens[i]);
    }
    fill_logits(&sim->options, hash, tokens[n - 1], logits);
}

int32_t sim_n_draft_rounds(const struct sim *sim) { return sim->draft_round; }

/* ---- the rig ---- */
struct sim_options sim_defaults(void)
{
    return (struct sim_options){ .page_slots = 16, .n_pages = 32, .context = 128, .max_batch = 4,
                                 .prefill_chunk = 32, .prefix_cache = 1, .threads = 1,
                                 .draft_pattern = "0" };
}

struct sim_spec sim_spec(uint64_t prompt_seed, int32_t n_prompt, int64_t max_tokens)
{
    return (struct sim_spec){ .prompt_seed = prompt_seed, .seed = prompt_seed, .n_prompt = n_prompt,
                              .max_tokens = max_tokens, .repetition_penalty = 1, .n = 1,
                              .ignore_eos = 1, .logprobs = -1 };
}

void sim_prompt(const struct sim_spec *spec, int32_t *tokens)
{
    for (int32_t i = 0; i < spec->n_prompt; i++) {
        const uint64_t seed = i < spec->shared ? 0 : spec->prompt_seed;
        tokens[i] = spec->tokens != NULL ? spec->tokens[i]
                                         : (int32_t)(rng_mix64(seed * 1000 + (uint64_t)i) % (SIM_VOCAB - 1));
    }
    if (spec->first_id > 0) {
        tokens[0] = spec->first_id - 1;
    }
}

struct sim *sim_open(const struct sim_options *options)
{
    static const struct target_kind kind = { "table", sim_begin, sim_end, sim_copy, sim_target_destroy };
    static const struct draft_kind draft_kind = { "pattern", sim_propose, draft_observe_nothing,
                                                  draft_forget_nothing, sim_draft_destroy, NULL, NULL, NULL };
    struct sim *sim = mem_alloc(1, sizeof *sim);
    ASSERT(sim != NULL);
    sim->options = *options;
    sim->draft = (struct draft){ .kind = &draft_kind, .n_sources = 1, .source_name = { "pattern" },
                                 .context = INT32_MAX };
    ASSERT(backend_create("cpu", NULL, &sim->backend) == STATUS_OK);
    ASSERT(lane_create(sim->backend, &(struct lane_options){ .n_workers = options->threads,
                       .caller_is_worker = true }, &sim->lane) == STATUS_OK);
    sim->target = (struct target){ .kind = &kind, .lane = sim->lane, .n_vocab = SIM_VOCAB };
    const struct scheduler_options loop = {
        .target = &sim->target, .draft = options->draft != NULL ? options->draft : &sim->draft, .context = options->context,
        .page_slots = options->page_slots, .n_pages = options->n_pages,
        .max_batch = options->max_batch, .prefill_chunk = options->prefill_chunk,
        .k_max = options->k_max, .fixed_k = options->k_max, .prefix_cache = options->prefix_cache,
    };
    const size_t n_slots = (size_t)options->n_pages * (size_t)options->page_slots;
    sim->slots = mem_alloc(n_slots, sizeof *sim->slots);
    sim->writer = mem_alloc((size_t)options->n_pages, sizeof *sim->writer);
    sim->logits = mem_alloc((size_t)scheduler_cap_logits(&loop) * SIM_VOCAB, sizeof *sim->logits);
    ASSERT(sim->slots != NULL && sim->writer != NULL && sim->logits != NULL);
    memset(sim->slots, 0xff, n_slots * sizeof *sim->slots); /* nothing stands at position -1 */
    ASSERT(scheduler_create(&loop, &sim->scheduler) == STATUS_OK);
    return sim;
}

void sim_close(struct sim *sim)
{
    scheduler_cancel_all(sim->scheduler);
    scheduler_destroy(sim->scheduler);
    for (int32_t i = 0; i < sim->n_requests; i++) {
        request_destroy(sim->requests[i]);
    }
    lane_destroy(sim->lane);
    backend_destroy(sim->backend);
    mem_free(sim->logits);
    mem_free(sim->writer);
    mem_free(sim->slots);
    mem_free(sim);
}

struct scheduler *sim_scheduler(struct sim *sim) { return sim->scheduler; }
struct request *sim_request(struct sim *sim, int32_t idx) { return sim->requests[idx]; }
int32_t sim_n_requests(const struct sim *sim) { return sim->n_requests; }
void sim_break_device(struct sim *sim) { sim->broken = 1; }

void sim_on_pass(struct sim *sim, void (*hook)(void *user), void *user)
{
    sim->hook = hook;
    sim->hook_user = user;
}

static struct td_request asked_of(const struct sim_spec *spec, const int32_t *tokens, struct td_bias biases[2])
{
    struct td_request asked;
    td_request_init(&asked);
    asked.ids = tokens;
    asked.n_ids = (size_t)spec->n_prompt;
    asked.max_tokens = spec->max_tokens;
    asked.temperature = spec->temperature;
    asked.repetition_penalty = spec->repetition_penalty;
    asked.top_k = spec->top_k;
    asked.has_seed = 1;
    asked.seed = spec->seed;
    asked.n = spec->n;
    asked.priority = spec->priority;
    asked.ignore_eos = spec->ignore_eos;
    asked.logprobs = spec->logprobs;
    asked.k = spec->k_and_one - 1;
    asked.presence_penalty = spec->presence_penalty;
    asked.frequency_penalty = spec->frequency_penalty;
    if (spec->bias != 0) {
        biases[0] = (struct td_bias){ 7, spec->bias };
        biases[1] = (struct td_bias){ 11, -spec->bias };
        asked.biases = biases;
        asked.n_biases = 2;
    }
    return asked;
}

int32_t sim_submit(struct sim *sim, const struct sim_spec *spec)
{
    static const int32_t eos = SIM_EOS;
    const struct request_limits limits = { .n_vocab = SIM_VOCAB, .context = sim->options.context,
                                           .eos_ids = &eos, .n_eos = 1 };
    const int32_t idx = sim->n_requests++;
    int32_t *tokens = mem_alloc((size_t)spec->n_prompt, sizeof *tokens);
    ASSERT(idx < MAX_REQUESTS && tokens != NULL);
    sim_prompt(spec, tokens);
    struct td_bias biases[2];
    const struct td_request asked = asked_of(spec, tokens, biases);
    ASSERT(request_create(&limits, &asked, &sim->requests[idx]) == STATUS_OK);
    mem_free(tokens);
    sim->specs[idx] = *spec;
    scheduler_submit(sim->scheduler, sim->requests[idx]);
    return idx;
}

void sim_cancel(struct sim *sim, int32_t idx)
{
    atomic_store(&sim->requests[idx]->cancelled, 1);
    scheduler_notice_cancel(sim->scheduler);
}

/* ---- checks ---- */
static const char *fail_with(struct sim *sim, const char *format, long long a, long long b)
{
    snprintf(sim->why, sizeof sim->why, format, a, b);
    return sim->why;
}

/* I1: slots below cached_len hold committed tokens (KV recomputed, oracle O4). */
static const char *check_slots(struct sim *sim)
{
    for (const struct lineup_item *item = sim->scheduler->running.first; item; item = item->after) {
        const struct sequence *seq = (const struct sequence *)item;
        for (int32_t p = 0; p < kv_table_cached_len(seq->table); p++) {
            const struct slot *slot = &sim->slots[kv_table_slot(seq->table, p)];
            if (slot->token != seq->tokens[p] || slot->position != p) {
                return fail_with(sim, "sequence %lld: the slot of position %lld holds something else",
                                 (long long)seq->id, p);
            }
        }
    }
    return NULL;
}

/* O5: what nobody has cached may be anything, so it is. */
static void poison_slots(struct sim *sim)
{
    const struct kv_pool *pool = sim->scheduler->pool;
    const int32_t page_slots = sim->options.page_slots;
    for (int32_t page = 0; page < pool->n_pages; page++) {
        if (pool->n_refs[page] == 0) {
            memset(sim->slots + page * page_slots, 0xff, (size_t)page_slots * sizeof *sim->slots);
        }
    }
    for (const struct lineup_item *item = sim->scheduler->running.first; item; item = item->after) {
        const struct kv_table *table = ((const struct sequence *)item)->table;
        for (int32_t p = kv_table_cached_len(table); p < kv_table_reserved_len(table); p++) {
            const int32_t slot = kv_table_slot(table, p);
            if (pool->n_refs[slot / page_slots] == 1) {
                sim->slots[slot] = (struct slot){ -1, -1 };
            }
        }
    }
}

const char *sim_step(struct sim *sim)
{
    const struct scheduler *s = sim->scheduler;
    const uint64_t before = s->stats.committed_tokens + s->stats.finished + s->stats.preemptions +
                            s->stats.rows;
    scheduler_step(sim->scheduler);
    if (sim->options.poisons) {
        poison_slots(sim);
    }
    if (sim->violation != NULL) {
        return sim->violation;
    }
    if (scheduler_check(s) != STATUS_OK) {
        snprintf(sim->why, sizeof sim->why, "%s", status_message());
        return sim->why;
    }
    const uint64_t after = s->stats.committed_tokens + s->stats.finished + s->stats.preemptions +
                           s->stats.rows;
    if (after == before && scheduler_is_busy(s)) {
        return "a step made no progress"; /* I10 */
    }
    return check_slots(sim);
}

const char *sim_run(struct sim *sim)
{
    while (scheduler_is_busy(sim->scheduler)) {
        const char *wrong = sim_step(sim);
        if (wrong != NULL) {
            return wrong;
        }
    }
    return NULL;
}

/* ---- the same request alone, without a scheduler ---- */
struct alone { int32_t n_tokens; enum sequence_ending ending; uint64_t digest; };

static enum sequence_ending alone_ending(const struct sim *sim, const struct sim_spec *spec, int32_t id,
                                         int32_t n_tokens)
{
    if (id == SIM_EOS && !spec->ignore_eos) {
        return ENDING_STOP_ID;
    }
    if (spec->max_tokens >= 0 && n_tokens - spec->n_prompt >= spec->max_tokens) {
        return ENDING_LENGTH;
    }
    return n_tokens >= sim->options.context ? ENDING_CONTEXT : ENDING_NONE;
}

static struct alone run_alone(const struct sim *sim, const struct sim_spec *spec, int32_t choice,
                              int32_t *tokens)
{
    struct sampling_scratch *scratch;
    struct sampling_params params;
    struct sampling_choice chosen;
    struct digest digest;
    float logits[SIM_VOCAB];
    struct alone alone = { .n_tokens = spec->n_prompt };
    uint64_t hash = hash_start();
    sampling_params_defaults(&params);
    params.temperature = spec->temperature;
    params.repetition_penalty = spec->repetition_penalty;
    params.top_k = spec->top_k;
    params.presence_penalty = spec->presence_penalty;
    params.frequency_penalty = spec->frequency_penalty;
    const struct sampling_bias biases[] = { { 7, spec->bias }, { 11, -spec->bias } };
    params.biases = biases;
    params.n_biases = spec->bias != 0 ? 2 : 0;
    params.seed = rng_choice_seed(spec->seed, (uint32_t)choice);
    digest_init(&digest);
    ASSERT(sampling_scratch_create(SIM_VOCAB, &scratch) == STATUS_OK);
    for (int32_t i = 0; i < spec->n_prompt; i++) {
        hash = hash_next(hash, tokens[i]);
    }
    alone.ending = spec->max_tokens == 0 ? ENDING_LENGTH : ENDING_NONE;
    while (alone.ending == ENDING_NONE) {
        fill_logits(&sim->options, hash, tokens[alone.n_tokens - 1], logits);
        if (sampling_choose(sim->backend, &params, logits, SIM_VOCAB, tokens, alone.n_tokens,
                            alone.n_tokens, scratch, &chosen) != STATUS_OK) {
            alone.ending = ENDING_ERROR;
            break;
        }
        digest_update(&digest, logits, sizeof logits);
        hash = hash_next(hash, chosen.id);
        tokens[alone.n_tokens++] = chosen.id;
        alone.ending = alone_ending(sim, spec, chosen.id, alone.n_tokens);
    }
    sampling_scratch_destroy(scratch);
    alone.digest = digest_value(&digest);
    return alone;
}

/* A cancelled sequence is a beginning of what it would have been. */
static const char *compare_sequence(struct sim *sim, int32_t idx, const struct sequence *seq)
{
    const struct sim_spec *spec = &sim->specs[idx];
    int32_t *tokens = mem_alloc((size_t)sim->options.context + 1, sizeof *tokens);
    ASSERT(tokens != NULL);
    sim_prompt(spec, tokens);
    const struct alone alone = run_alone(sim, spec, seq->choice, tokens);
    const bool cancelled = seq->ending == ENDING_CANCELLED;
    const bool same_end = cancelled ? seq->n_tokens <= alone.n_tokens : seq->n_tokens == alone.n_tokens;
    const char *wrong = NULL;
    if (seq->state != SEQUENCE_FINISHED) {
        wrong = fail_with(sim, "request %lld, choice %lld did not finish", idx, seq->choice);
    } else if (!same_end || memcmp(tokens, seq->tokens, (size_t)seq->n_tokens * sizeof *tokens) != 0) {
        wrong = fail_with(sim, "request %lld, choice %lld: other tokens than alone", idx, seq->choice);
    } else if (!cancelled && (seq->ending != alone.ending || digest_value(&seq->digest) != alone.digest)) {
        wrong = fail_with(sim, "request %lld, choice %lld: another end or digest than alone", idx,
                          seq->choice);
    } else if (cancelled && !atomic_load(&seq->request->cancelled)) {
        wrong = fail_with(sim, "request %lld, choice %lld: nobody cancelled it", idx, seq->choice);
    }
    mem_free(tokens);
    return wrong;
}

const char *sim_compare(struct sim *sim)
{
    for (int32_t i = 0; i < sim->n_requests; i++) {
        for (int32_t c = 0; c < sim->requests[i]->n_choices; c++) {
            const char *wrong = compare_sequence(sim, i, &sim->requests[i]->sequences[c]);
            if (wrong != NULL) {
                return wrong;
            }
        }
    }
    return NULL;
}

const char *sim_is_empty(struct sim *sim)
{
    const struct kv_pool_counts counts = kv_pool_counts(sim->scheduler->pool);
    return counts.n_held == 0 && counts.n_free + counts.n_cached == counts.n_total ? NULL
                                                                                  : "pages are still held";
}
