/* grower_rig: see the header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "tests/grower_rig.h"

static const char MODEL[] = "synth:tiny,q8_0,seed=7";
static struct grower_rig *spied; /* the rig whose lane is looked at; one at a time */

static void must(enum status status)
{
    if (status != STATUS_OK) {
        fail_msg("%s", status_message());
    }
}

/* ---- what goes by on the lane ---- */
static void spy_embed(struct lane *lane, const struct op_embed *op)
{
    struct grower_rig *rig = spied;
    assert_true(rig->n_rows + op->n_rows <= GROWER_RIG_MAX_ROWS);
    rig->n_passes++;
    if (rig->n_passes == rig->stop_in_pass) {
        atomic_store(&rig->stop, 1);
    }
    for (int32_t i = 0; i < op->n_rows; i++) {
        rig->rows[rig->n_rows + i] = (struct spied_row){ .pass = rig->n_passes, .token = op->token[i] };
    }
    cpu_ops->embed(lane, op);
}

static void spy_rope_store(struct lane *lane, const struct op_rope_store *op)
{
    for (int32_t i = 0; i < op->n_rows && op->layer == 0; i++) {
        spied->rows[spied->n_rows + i].position = op->position[i];
        spied->rows[spied->n_rows + i].slot = op->slot[i];
    }
    cpu_ops->rope_store(lane, op);
}

static void spy_attention(struct lane *lane, const struct op_attention *op)
{
    for (int32_t i = 0; i < op->n_rows && op->layer == 0; i++) {
        struct spied_row *row = &spied->rows[spied->n_rows + i];
        const struct kv_view *view = &op->views[op->seq_of_row[i]];
        assert_int_equal(row->position, op->position[i]);
        row->n_seen = row->position + 1;
        for (int32_t p = 0; p < row->n_seen; p++) {
            row->seen[p] = kv_view_slot(view, op->store->page_slots, p);
        }
    }
    spied->n_rows += op->layer == 0 ? op->n_rows : 0;
    cpu_ops->attention(lane, op);
}

/* Operations go past this: what comes here is chosen or ranked. */
static uint64_t spy_submit(struct lane *lane, lane_fn fn, const void *args, size_t args_bytes, uint32_t n_chunks)
{
    if (spied->on_choose != NULL) {
        spied->on_choose(spied);
    }
    return cpu_ops->lane_submit(lane, fn, args, args_bytes, n_chunks);
}

static void spy_on(struct grower_rig *rig)
{
    rig->spied_ops = *cpu_ops;
    rig->spied_ops.embed = spy_embed;
    rig->spied_ops.rope_store = spy_rope_store;
    rig->spied_ops.attention = spy_attention;
    rig->spied_ops.lane_submit = spy_submit;
    rig->lane->ops = &rig->spied_ops;
    spied = rig;
}

/* ---- open and close ---- */
struct grower_rig_options grower_rig_defaults(void)
{
    return (struct grower_rig_options){ .context = GROWER_RIG_CONTEXT, .page_slots = 16, .max_batch = 1,
        .prefill_chunk = 64, .k_max = 8, .budget = 8, .fanout = { .kind = FANOUT_UNIFORM }, .threads = 1 };
}

static struct draft_model_options model_options(const struct grower_rig *rig, struct lane *lane)
{
    const struct grower_rig_options *o = &rig->options;
    const int32_t enough = o->max_batch * ((o->context + o->page_slots - 1) / o->page_slots);
    return (struct draft_model_options){
        .common = { .n_vocab = GROWER_RIG_VOCAB, .context = o->context, .max_batch = o->max_batch,
                    .k_max = o->k_max, .wants_prob = o->wants_prob },
        .model = rig->fresh.model, .lane = lane, .kv = KV_F16, .context = o->context, .page_slots = o->page_slots,
        .n_pages = o->n_pages > 0 ? o->n_pages : enough, .prefill_chunk = o->prefill_chunk,
        .n_vocab_common = o->n_vocab_common, .kept_ids = o->kept_ids, .n_kept = o->n_kept };
}

void grower_rig_open(struct grower_rig *rig, const struct grower_rig_options *options)
{
    *rig = (struct grower_rig){ .options = *options };
    must(model_rig_open(&rig->fresh, &(struct model_rig_options){ .name = MODEL, .kv = KV_F16,
        .context = GROWER_RIG_CONTEXT + 32, .cap_rows = GROWER_RIG_CONTEXT + 32 }));
    must(lane_create(rig->fresh.backend, &(struct lane_options){ .n_workers = options->threads,
        .caller_is_worker = true }, &rig->lane));
    struct fanout_options fanout = options->fanout;
    fanout.budget = options->budget;
    must(grower_create(&(struct grower_options){ .model = model_options(rig, rig->lane), .fanout = fanout,
                                                 .max_budget = options->budget }, &rig->grower));
    struct draft_model_options oracle = model_options(rig, rig->fresh.lane);
    oracle.n_pages = oracle.common.max_batch * (GROWER_RIG_CONTEXT + 2 * oracle.page_slots);
    oracle.common.k_max = DRAFT_MAX_NODES;
    must(draft_model_create(&oracle, &rig->oracle));
    must(ahead_tables_create(options->max_batch, options->budget, &rig->tables));
    rig->rows = mem_alloc(GROWER_RIG_MAX_ROWS, sizeof *rig->rows);
    rig->logits = mem_alloc((GROWER_RIG_CONTEXT + 32) * GROWER_RIG_VOCAB, sizeof *rig->logits);
    assert_true(rig->rows != NULL && rig->logits != NULL);
    const struct model_draft *draft = (struct model_draft *)grower_model_draft(rig->grower);
    for (int32_t page = 0; page < draft->store.n_pages; page++) {
        kv_store_poison(&draft->store, (uint32_t)page, 0, draft->store.page_slots);
    }
    atomic_init(&rig->stop, 0);
    spy_on(rig);
}

void grower_rig_close(struct grower_rig *rig)
{
    mem_free(rig->logits);
    mem_free(rig->rows);
    ahead_tables_destroy(rig->tables);
    rig->oracle->kind->destroy(rig->oracle);
    grower_destroy(rig->grower);
    rig->lane->ops = cpu_ops;
    lane_destroy(rig->lane);
    model_rig_close(&rig->fresh);
}

/* ---- sequences ---- */
void grower_seq_start(struct grower_seq *seq, int32_t place, uint64_t seed, int32_t n_prompt)
{
    static uint64_t last_id;
    *seq = (struct grower_seq){ .id = ++last_id, .place = place, .n_prompt = n_prompt, .n_tokens = n_prompt,
                                .k_next = 8 };
    assert_true(n_prompt <= GROWER_RIG_CONTEXT);
    for (int32_t i = 0; i < n_prompt; i++) {
        seq->tokens[i] = (int32_t)(rng_mix64(seed * 1000 + (uint64_t)i) % GROWER_RIG_VOCAB);
    }
    sampling_params_defaults(&seq->params);
    seq->params.temperature = 0;
    seq->params.n_top_logprobs = -1;
    seq->params.seed = seed;
}

void grower_seq_propose(struct grower_seq *seq, const int32_t *tokens, int32_t n)
{
    assert_in_range(n, 0, DRAFT_MAX_NODES);
    memcpy(seq->tokens + seq->n_tokens, tokens, (size_t)n * sizeof *tokens);
    seq->n_proposed = n;
}

void grower_seq_commit(struct grower_seq *seq, int32_t n_accepted, int32_t token)
{
    assert_in_range(n_accepted, 0, seq->n_proposed);
    seq->tokens[seq->n_tokens + n_accepted] = token;
    seq->n_tokens += n_accepted + 1;
    seq->n_proposed = 0;
}

/* ---- runs ---- */
static void fill_round(const struct grower_seq *seq, struct ahead_round *round, struct ahead_table *table)
{
    *round = (struct ahead_round){
        .place = seq->place, .seq_id = seq->id, .epoch = seq->epoch, .tokens = (int32_t *)(uintptr_t)seq->tokens,
        .n_tokens = seq->n_tokens, .n_prompt = seq->n_prompt, .n_proposed = seq->n_proposed, .k_next = seq->k_next,
        .params = &seq->params, .tenant = seq->tenant, .wants_prob = seq->wants_prob, .after_miss = seq->after_miss };
    table->place = seq->place;
    table->seq_id = seq->id;
    table->epoch = seq->epoch;
    table->n_tokens = seq->n_tokens;
    table->n_proposed = seq->n_proposed;
    memcpy(table->proposed, seq->tokens + seq->n_tokens, (size_t)seq->n_proposed * sizeof *table->proposed);
    atomic_store(&table->n_ready, -1);
}

static void check_pages(const struct grower_rig *rig)
{
    const struct model_draft *draft = (struct model_draft *)grower_model_draft(rig->grower);
    struct kv_table *tables[GROWER_RIG_MAX_BATCH];
    for (int32_t i = 0; i < rig->options.max_batch; i++) {
        tables[i] = draft->places[i].table;
    }
    must(kv_pool_check(draft->pool, tables, rig->options.max_batch));
}

/* What no place counts as fed may hold anything, whatever was written there (I1, O5). */
static void poison_unfed(const struct grower_rig *rig)
{
    const struct model_draft *draft = (struct model_draft *)grower_model_draft(rig->grower);
    for (int32_t i = 0; i < rig->options.max_batch; i++) {
        const struct model_place *place = &draft->places[i];
        const int32_t slots = draft->store.page_slots, end = kv_table_reserved_len(place->table);
        for (int32_t p = kv_table_cached_len(place->table) + place->n_tail; p < end; p++) {
            const int32_t slot = kv_table_slot(place->table, p);
            kv_store_poison(&draft->store, (uint32_t)(slot / slots), slot % slots, 1);
        }
    }
}

void grower_rig_run(struct grower_rig *rig, const struct grower_seq *seqs, int32_t n_seqs)
{
    struct ahead_round rounds[GROWER_RIG_MAX_BATCH];
    assert_in_range(n_seqs, 0, rig->options.max_batch);
    for (int32_t i = 0; i < n_seqs; i++) {
        fill_round(&seqs[i], &rounds[i], &rig->tables[i]);
    }
    poison_unfed(rig);
    rig->n_rows = rig->n_passes = 0;
    rig->n_tables = n_seqs;
    atomic_store(&rig->stop, rig->stop_in_pass < 0);
    grower_run(rig->grower, &(struct grower_call){ .rounds = rounds, .n_rounds = n_seqs, .tables = rig->tables,
                                                   .stop = &rig->stop });
    check_pages(rig);
}

void grower_rig_forget(struct grower_rig *rig, const struct grower_seq *seq)
{
    grower_forget(rig->grower, &(struct draft_farewell){ .place = seq->place, .seq_id = seq->id,
                                                         .epoch = seq->epoch });
    check_pages(rig);
}

/* ---- KV and logits against fresh passes ---- */
const struct model_place *grower_rig_place(const struct grower_rig *rig, const struct grower_seq *seq)
{
    return &((struct model_draft *)grower_model_draft(rig->grower))->places[seq->place];
}

int32_t grower_rig_n_fed(const struct grower_rig *rig, const struct grower_seq *seq)
{
    const struct model_place *place = grower_rig_place(rig, seq);
    const bool is_its_own = place->is_taken && place->seq_id == seq->id && place->epoch == seq->epoch;
    return is_its_own ? kv_table_cached_len(place->table) + place->n_tail : 0;
}

const float *grower_rig_fresh_logits(struct grower_rig *rig, const struct grower_seq *seq, int32_t n)
{
    model_rig_feed(&rig->fresh, 0, seq->tokens, n, 37, rig->logits);
    return rig->logits;
}

static int32_t fresh_slot(const struct model_rig *fresh, int32_t position)
{
    return kv_view_slot(&fresh->views[0], fresh->store.page_slots, position);
}

void grower_rig_check_kv(struct grower_rig *rig, const struct grower_seq *seq)
{
    const struct model_draft *draft = (struct model_draft *)grower_model_draft(rig->grower);
    const struct kv_table *table = draft->places[seq->place].table;
    const int32_t n = grower_rig_n_fed(rig, seq);
    const size_t bytes = (size_t)draft->store.n_kv_heads * (size_t)draft->store.head_dim * sizeof(float);
    float k[2][1024], v[2][1024];
    assert_true(bytes <= sizeof k[0]);
    if (n == 0) {
        return;
    }
    grower_rig_fresh_logits(rig, seq, n);
    for (int32_t layer = 0; layer < draft->store.n_layers; layer++) {
        for (int32_t p = 0; p < n; p++) {
            kv_store_read(&rig->fresh.store, layer, fresh_slot(&rig->fresh, p), k[0], v[0]);
            kv_store_read(&draft->store, layer, kv_table_slot(table, p), k[1], v[1]);
            assert_memory_equal(k[0], k[1], bytes);
            assert_memory_equal(v[0], v[1], bytes);
        }
    }
}

/* ---- the mask ---- */
static void check_row(const struct spied_row *row, int32_t position, int32_t slot, const int32_t *seen)
{
    assert_int_equal(row->position, position);
    assert_int_equal(row->slot, slot);
    assert_int_equal(row->n_seen, position + 1);
    assert_memory_equal(row->seen, seen, (size_t)row->n_seen * sizeof *seen);
}

/* Branch j of fork depth k at step i: position N + k + i, place N + K + i * MQ + j; it sees all places below
 * N + k, then its own. */
static void check_branch_row(const struct grower_rig *rig, const struct grower_seq *seq,
                             const struct ahead_table *table, int32_t j, int32_t step, const struct spied_row *row)
{
    const struct kv_table *kv = grower_rig_place(rig, seq)->table;
    const struct ahead_branch *branch = &table->branch[j];
    const int32_t fork = seq->n_tokens + branch->n_accepted, first = seq->n_tokens + seq->n_proposed;
    int32_t seen[GROWER_RIG_CONTEXT + 32];
    for (int32_t p = 0; p < fork; p++) {
        seen[p] = kv_table_slot(kv, p);
    }
    for (int32_t i = 0; i <= step; i++) {
        seen[fork + i] = kv_table_slot(kv, first + i * table->n_branches + j);
    }
    assert_int_equal(row->token, step == 0 ? branch->token : branch->next[step - 1]);
    check_row(row, fork + step, seen[fork + step], seen);
}

/* The last rows that were fed of the sequence itself, in the first pass that has all of them. */
static void check_glue_rows(const struct grower_rig *rig, const struct grower_seq *seq,
                            const struct spied_row *rows, int32_t n_rows)
{
    const struct kv_table *kv = grower_rig_place(rig, seq)->table;
    int32_t seen[GROWER_RIG_CONTEXT + 32];
    for (int32_t i = 0; i < n_rows; i++) {
        const int32_t position = seq->n_tokens + seq->n_proposed - n_rows + i;
        for (int32_t p = 0; p <= position; p++) {
            seen[p] = kv_table_slot(kv, p);
        }
        assert_int_equal(rows[i].token, seq->tokens[position]);
        check_row(&rows[i], position, seen[position], seen);
    }
}

static int32_t n_rows_of_pass(const struct grower_rig *rig, int32_t first)
{
    int32_t n = 0;
    while (first + n < rig->n_rows && rig->rows[first + n].pass == rig->rows[first].pass) {
        n++;
    }
    return n;
}

/* The first row of growth: behind the pass that glued. */
static int32_t first_grown_row(const struct grower_rig *rig, int32_t n_grown_passes)
{
    int32_t at = 0;
    while (at < rig->n_rows && rig->rows[at].pass <= rig->n_passes - n_grown_passes) {
        at++;
    }
    return at;
}

void grower_rig_check_mask(const struct grower_rig *rig, const struct grower_seq *seqs, int32_t n_seqs)
{
    int32_t n_steps = 0, glued = 0;
    for (int32_t i = 0; i < n_seqs; i++) {
        const int32_t n_ready = atomic_load(&rig->tables[i].n_ready);
        n_steps = n_ready > n_steps ? n_ready : n_steps;
    }
    int32_t at = first_grown_row(rig, n_steps);
    while (glued < rig->n_rows && rig->rows[glued].pass < rig->n_passes - n_steps) {
        glued++;
    }
    for (int32_t i = 0; i < n_seqs; i++) {
        if (atomic_load(&rig->tables[i].n_ready) >= 0) {
            const int32_t n_own = seqs[i].n_proposed + 1;
            while (rig->rows[glued].token != seqs[i].tokens[seqs[i].n_tokens - 1] ||
                   rig->rows[glued].position != seqs[i].n_tokens - 1) {
                glued++;
            }
            check_glue_rows(rig, &seqs[i], &rig->rows[glued], n_own);
            glued += n_own;
        }
    }
    for (int32_t step = 0; step < n_steps; step++) {
        const int32_t end = at + n_rows_of_pass(rig, at);
        for (int32_t i = 0; i < n_seqs; i++) {
            for (int32_t j = 0; j < rig->tables[i].n_branches && step < atomic_load(&rig->tables[i].n_ready); j++) {
                check_branch_row(rig, &seqs[i], &rig->tables[i], j, step, &rig->rows[at++]);
            }
        }
        assert_int_equal(at, end);
    }
    assert_int_equal(at, rig->n_rows);
}

/* ---- branches against an ordinary draft ---- */
struct draft_proposal grower_rig_ask_oracle(struct grower_rig *rig, const struct grower_seq *seq, int32_t k)
{
    struct grower_seq copy = *seq;
    struct draft_ask ask = { .place = 0, .seq_id = ++rig->n_oracle_asks, .tokens = copy.tokens,
                             .n_tokens = copy.n_tokens, .n_prompt = copy.n_prompt, .params = &copy.params,
                             .k_max = k, .n_nodes_max = k, .wants_prob = copy.wants_prob };
    rig->oracle->kind->propose(rig->oracle, &ask, 1);
    return ask.proposal;
}

static void check_branch(struct grower_rig *rig, const struct grower_seq *seq, const struct ahead_branch *branch,
                         int32_t n)
{
    struct grower_seq after = *seq;
    grower_seq_commit(&after, branch->n_accepted, branch->token);
    const struct draft_proposal expected = grower_rig_ask_oracle(rig, &after, n);
    assert_int_equal(expected.n, n);
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(branch->next[i], expected.token[i]);
        assert_memory_equal(&branch->hint[i], &expected.hint[i], sizeof branch->hint[i]);
        assert_int_equal(branch->prob[i] != NULL, seq->wants_prob);
        if (seq->wants_prob) {
            assert_memory_equal(branch->prob[i], expected.prob[i], GROWER_RIG_VOCAB * sizeof(float));
        }
    }
}

int32_t grower_rig_check_branches(struct grower_rig *rig, const struct grower_seq *seq,
                                  const struct ahead_table *table)
{
    int32_t n_all = 0;
    for (int32_t j = 0; j < table->n_branches; j++) {
        const int32_t n = ahead_branch_n(table, &table->branch[j]);
        if (n > 0) {
            check_branch(rig, seq, &table->branch[j], n);
        }
        n_all += n;
    }
    return n_all;
}
