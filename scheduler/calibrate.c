/* calibrate: how long passes of so many rows and drafts of so many tokens take on this machine, before the
 * first request. The rows are of no sequence: they read the pool's first page, zeros, and store nothing. */
#include "scheduler/private.h"

enum { CALIBRATE_ROUNDS = 3 };
static const int64_t CALIBRATE_BUDGET_NS = 400000000;
enum { CALIBRATE_MAX_ROWS = 64, CALIBRATE_SURE = 4, CALIBRATE_COUNTS = 14 };

struct calibration_pass {
    int32_t token[CALIBRATE_MAX_ROWS], position[CALIBRATE_MAX_ROWS], slot[CALIBRATE_MAX_ROWS];
    int32_t seq[CALIBRATE_MAX_ROWS], logits_row[CALIBRATE_MAX_ROWS];
    uint32_t page;
    struct kv_view view;
};

static int64_t time_pass(struct scheduler *s, struct calibration_pass *rows, int32_t n_rows)
{
    const struct pass pass = {
        .n_rows = n_rows, .n_seqs = 1, .n_logits = n_rows, .token = rows->token, .position = rows->position,
        .slot = rows->slot, .seq_of_row = rows->seq, .views = &rows->view, .logits_row = rows->logits_row,
        .rows_stay = s->asks_there != NULL };
    struct target *target = s->options.target;
    const float *logits;
    const int64_t begin_ns = clock_now_ns();
    target->kind->begin(target, &(struct target_work){ .pass = &pass });
    enum status status = target->kind->end(target, &logits);
    if (pass.rows_stay) {
        lane_wait(target->lane, lane_mark(target->lane));
        status = backend_health(lane_backend(target->lane));
    }
    return status == STATUS_OK ? clock_now_ns() - begin_ns : 0;
}

/* Row counts in the order of what they are worth: the first four are measured in any case, the rest while
 * there is time; where it ends, lines are drawn. With many sequences a full batch is among the first. */
static int32_t list_rows(int32_t max_batch, int32_t rows[CALIBRATE_COUNTS])
{
    static const int32_t few[] = { 1, 5, 2, 9, 3, 4, 8, 6, 7, 13, 17, 33 };
    const int32_t batch = max_batch < CALIBRATE_MAX_ROWS ? max_batch : CALIBRATE_MAX_ROWS;
    int32_t n = 0;
    for (size_t i = 0; i < sizeof few / sizeof few[0]; i++) {
        if (i == 2 && batch > 1) {
            rows[n++] = batch;
            rows[n++] = 2 * batch < CALIBRATE_MAX_ROWS ? 2 * batch : CALIBRATE_MAX_ROWS;
        }
        rows[n++] = few[i];
    }
    return n;
}

static void calibrate_passes(struct scheduler *s)
{
    int32_t counts[CALIBRATE_COUNTS];
    const int32_t n_counts = list_rows(s->options.max_batch, counts);
    struct calibration_pass rows = { .page = 0 };
    const int64_t begin_ns = clock_now_ns();
    const int32_t n_most = scheduler_cap_logits(&s->options);
    const int32_t n_positions = s->options.context < s->options.page_slots ? s->options.context
                                                                           : s->options.page_slots;
    rows.view = (struct kv_view){ .pages = &rows.page, .n_pages = 1 };
    for (int32_t i = 0; i < CALIBRATE_MAX_ROWS; i++) {
        rows.position[i] = i % n_positions;
        rows.slot[i] = -1;
        rows.logits_row[i] = i;
    }
    for (int round = 0; round < CALIBRATE_ROUNDS; round++) {
        for (int32_t i = 0; i < n_counts; i++) {
            const bool late = clock_now_ns() - begin_ns > CALIBRATE_BUDGET_NS;
            if (counts[i] > n_most || (late && (round > 0 || i >= CALIBRATE_SURE))) {
                continue;
            }
            const int64_t ns = time_pass(s, &rows, counts[i]);
            if (ns > 0 && round + late > 0) { /* the first round touches memory for the first time */
                policy_observe_pass(s->policy, counts[i], ns);
            }
        }
    }
}

/* Chains after a short text of no meaning, in the first place, which nobody has yet. */
static void draft_chains(struct scheduler *s, struct draft_ask *ask)
{
    static const int32_t lengths[] = { 1, 4, 2, 8 };
    struct draft *draft = s->options.draft;
    const int64_t begin_ns = clock_now_ns();
    for (int round = 0; round < CALIBRATE_ROUNDS; round++) {
        for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
            if (lengths[i] > s->options.k_max || (round > 0 && clock_now_ns() - begin_ns > CALIBRATE_BUDGET_NS)) {
                continue;
            }
            ask->k_max = ask->n_nodes_max = lengths[i];
            const int64_t from_ns = clock_now_ns();
            draft->kind->propose(draft, ask, 1);
            const int64_t ns = clock_now_ns() - from_ns;
            if (round > 0 && ask->proposal.n == lengths[i]) { /* a chain cut short says nothing of its length */
                policy_observe_draft(s->policy, lengths[i], ns);
            }
        }
    }
}

static void calibrate_drafts(struct scheduler *s)
{
    enum { TEXT = 12, SEQ_ID = -1 };
    int32_t tokens[TEXT + DRAFT_MAX_NODES];
    struct sampling_params params;
    struct kv_table *table = s->tables[0];
    if (!s->options.draft->is_costly || s->options.context < TEXT + DRAFT_MAX_NODES + 1 ||
        kv_table_reserve(table, TEXT + DRAFT_MAX_NODES + 1) != STATUS_OK) {
        return;
    }
    sampling_params_defaults(&params);
    for (int32_t i = 0; i < TEXT; i++) {
        tokens[i] = (i + 1) % s->n_vocab;
    }
    kv_table_commit(table, TEXT);
    kv_table_set_cached(table, TEXT - 1); /* of zeros */
    struct draft_ask ask = { .place = 0, .seq_id = (uint64_t)SEQ_ID, .tokens = tokens, .n_tokens = TEXT,
                             .n_prompt = TEXT, .params = &params, .table = table };
    draft_chains(s, &ask);
    s->options.draft->kind->forget(s->options.draft, &(struct draft_farewell){
        .place = 0, .seq_id = ask.seq_id, .tokens = tokens, .n_tokens = TEXT, .n_prompt = TEXT });
    kv_table_clear(table);
}

void scheduler_calibrate(struct scheduler *s)
{
    calibrate_passes(s);
    calibrate_drafts(s);
}
