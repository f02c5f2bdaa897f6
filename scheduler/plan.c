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

/* The tokens left to feed, and as many proposals behind them as a round may have rows for: within the
 * request, within the context of the draft, and none where the prompt's end is only now reached. With the
 * rejection rule none before the first token at all: else a seed's text would hang on whether others had
 * computed the prompt up to its last token. */
static struct wish wish_of(const struct scheduler *s, const struct sequence *seq)
{
    const int32_t k_max = s->options.k_max;
    const int32_t left = kv_table_committed_len(seq->table) - kv_table_cached_len(seq->table);
    const int32_t n_more = seq->request->max_new - sequence_n_generated(seq);
    ASSERT(left >= 1); /* I2 */
    if (left == 1 || (left <= k_max && sequence_n_generated(seq) > 0)) { /* a side branch was accepted */
        const int32_t asked = seq->request->k < 0 ? k_max : min_i32(k_max, seq->request->k);
        const int32_t room = min_i32(n_more - 1, s->options.draft->context - seq->n_tokens);
        const bool is_first = s->options.rule == VERIFY_REJECTION && sequence_n_generated(seq) == 0;
        const int32_t k = is_first ? 0 : min_i32(asked, min_i32(k_max + 1 - left, room));
        return (struct wish){ .n_rows = left, .n_proposed = k > 0 ? k : 0, .reaches_end = true };
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

/* What the draft will be asked for; the policy may want less. */
static void fill_ask(struct scheduler *s, struct step_part *part, const struct wish *wish)
{
    struct sequence *seq = part->seq;
    struct draft_ask *ask = &s->asks[s->n_asks++];
    ask->place = seq->table_idx;
    ask->seq_id = seq->id;
    ask->epoch = seq->epoch;
    ask->tokens = seq->tokens;
    ask->n_tokens = seq->n_tokens;
    ask->n_prompt = seq->request->n_prompt;
    ask->tenant = seq->request->tenant;
    ask->params = &seq->params;
    ask->table = seq->table;
    ask->k_max = ask->n_nodes_max = wish->n_proposed;
    ask->is_fixed = seq->request->k >= 0 || s->options.fixed_k >= 0;
    ask->fixed_k = wish->n_proposed;
    ask->stop_below = 0.0f;
    ask->wants_prob = s->options.rule == VERIFY_REJECTION;
    ask->proposal.n = 0;
    part->ask = ask;
}

void scheduler_plan(struct scheduler *s)
{
    s->n_parts = s->n_asks = s->n_copies = 0;
    s->prefill_left = s->options.prefill_chunk;
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
        struct step_part *part = &s->parts[s->n_parts++];
        *part = (struct step_part){ .seq = seq, .n_rows = wish.n_rows,
                                    .first_position = kv_table_cached_len(seq->table) };
        if (wish.reaches_end) {
            fill_ask(s, part, &wish);
        }
    }
}
