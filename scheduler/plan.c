/* plan: which rows of which sequences the next pass has. Oldest first, so that whoever must give way
 * to another has no rows in this pass yet. */
#include "scheduler/private.h"

/* What a sequence would like to do in this step. */
struct wish {
    int32_t n_rows;      /* of committed tokens */
    int32_t n_proposed;  /* K */
    int32_t n_budget;    /* rows that count against the prefill budget: those of prompts */
    bool reaches_end;    /* of the committed tokens: its last row chooses the next one */
};

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static struct wish wish_of(const struct scheduler *s, const struct sequence *seq)
{
    const int32_t left = kv_table_committed_len(seq->table) - kv_table_cached_len(seq->table);
    ASSERT(left >= 1); /* I2 */
    if (left == 1) {
        const int32_t n_more = seq->request->max_new - sequence_n_generated(seq);
        return (struct wish){ .n_rows = 1, .n_proposed = min_i32(s->options.k_max, n_more - 1),
                              .reaches_end = true };
    }
    const int32_t n_rows = min_i32(left, s->prefill_left);
    return (struct wish){ .n_rows = n_rows, .n_budget = n_rows, .reaches_end = n_rows == left };
}

/* Pages for what the step may write and commit, none of them shared with anybody (I4). */
static enum status take_pages(struct scheduler *s, const struct sequence *seq, const struct wish *wish)
{
    const int32_t cached = kv_table_cached_len(seq->table);
    const int32_t committed = kv_table_committed_len(seq->table);
    int32_t n_copies;
    TRY(kv_table_reserve(seq->table, wish->reaches_end ? committed + wish->n_proposed + 1 : committed));
    TRY(kv_table_prepare_write(seq->table, cached, wish->n_rows + wish->n_proposed,
                               s->copies + s->n_copies,
                               scheduler_cap_rows(&s->options) - s->n_copies, &n_copies));
    s->n_copies += n_copies;
    return STATUS_OK;
}

/* All or nothing: less speculation first, then the youngest of the lowest priority goes, which may be
 * this one. False: it went. */
static bool take_pages_or_preempt(struct scheduler *s, struct sequence *seq, struct wish *wish)
{
    while (take_pages(s, seq, wish) != STATUS_OK) {
        if (wish->n_proposed > 0) {
            wish->n_proposed = 0;
            continue;
        }
        struct sequence *victim = sequence_of(s->running.last);
        scheduler_preempt(s, victim);
        if (victim == seq) {
            return false;
        }
    }
    return true;
}

/* Valid ids only, up to the first that is not; a draft's nonsense is no proposal (I9). */
static int32_t propose(struct scheduler *s, struct sequence *seq, int32_t k)
{
    if (k == 0) {
        return 0;
    }
    int32_t *proposed = seq->tokens + seq->n_tokens;
    const struct draft_request request = {
        .seq_id = seq->id, .epoch = seq->epoch, .tokens = seq->tokens, .n_tokens = seq->n_tokens,
        .k_max = k,
    };
    const int32_t n = min_i32(k, s->options.draft->kind->propose(s->options.draft, &request, proposed));
    int32_t n_valid = 0;
    while (n_valid < n && proposed[n_valid] >= 0 && proposed[n_valid] < s->n_vocab) {
        n_valid++;
    }
    return n_valid;
}

static void add_part(struct scheduler *s, struct sequence *seq, const struct wish *wish)
{
    const int32_t cached = kv_table_cached_len(seq->table);
    struct step_part *part = &s->parts[s->n_parts++];
    *part = (struct step_part){ .seq = seq, .n_rows = wish->n_rows };
    if (wish->reaches_end) {
        part->n_proposed = propose(s, seq, wish->n_proposed);
        part->n_rows += part->n_proposed;
        part->n_logits = part->n_proposed + 1;
        kv_table_propose(seq->table, part->n_proposed);
    }
    part->first_logits = batch_add(s->batch, &(struct batch_part){
        .tokens = seq->tokens + cached, .table = seq->table, .first_position = cached,
        .n_rows = part->n_rows, .n_logits = part->n_logits });
}

void scheduler_plan(struct scheduler *s)
{
    s->n_parts = s->n_copies = 0;
    s->prefill_left = s->options.prefill_chunk;
    batch_clear(s->batch);
    for (struct lineup_item *item = s->running.first; item != NULL; item = item->after) {
        struct sequence *seq = sequence_of(item);
        struct wish wish = wish_of(s, seq);
        if (wish.n_rows == 0) {
            continue; /* the budget is spent: next step */
        }
        if (!take_pages_or_preempt(s, seq, &wish)) {
            return; /* it was the last in line */
        }
        s->prefill_left -= wish.n_budget;
        add_part(s, seq, &wish);
    }
}
