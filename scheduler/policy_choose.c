/* policy_choose: see the header. */
#include "scheduler/policy_choose.h"

enum status policy_rows_init(struct policy_rows *rows, int32_t cap)
{
    *rows = (struct policy_rows){ .cap = cap };
    rows->added = mem_alloc((size_t)cap, sizeof *rows->added);
    rows->sorted = mem_alloc((size_t)cap, sizeof *rows->sorted);
    if (rows->added == NULL || rows->sorted == NULL) {
        policy_rows_deinit(rows);
        return status_fail(STATUS_NO_MEMORY, "no memory for %d candidate rows", cap);
    }
    return STATUS_OK;
}

void policy_rows_deinit(struct policy_rows *rows)
{
    mem_free(rows->added);
    mem_free(rows->sorted);
    rows->added = rows->sorted = NULL;
}

void policy_rows_clear(struct policy_rows *rows)
{
    rows->n = 0;
}

void policy_rows_add(struct policy_rows *rows, int32_t ask, int32_t place, float survival)
{
    ASSERT(rows->n < rows->cap);
    rows->added[rows->n++] = (struct policy_row){ .survival = survival, .ask = (int16_t)ask,
                                                  .place = (int16_t)place };
}

static int32_t bucket_of(float survival)
{
    const int32_t bucket = (int32_t)((1.0f - survival) * (float)POLICY_BUCKETS);
    return bucket < 0 ? 0 : bucket >= POLICY_BUCKETS ? POLICY_BUCKETS - 1 : bucket;
}

/* Counting sort, stable: equals keep the order they were added in, parents before children. */
void policy_rows_sort(struct policy_rows *rows)
{
    int32_t start[POLICY_BUCKETS + 1] = { 0 };
    for (int32_t i = 0; i < rows->n; i++) {
        start[bucket_of(rows->added[i].survival) + 1]++;
    }
    for (int32_t b = 0; b < POLICY_BUCKETS; b++) {
        start[b + 1] += start[b];
    }
    for (int32_t i = 0; i < rows->n; i++) {
        rows->sorted[start[bucket_of(rows->added[i].survival)]++] = rows->added[i];
    }
}

struct policy_answer policy_choose(const struct policy_rows *rows, const struct policy_question *question)
{
    double verify_ns = policy_times_ns(question->verify, question->n_base_rows), value = 0.0;
    struct policy_answer best = { .verify_ns = verify_ns };
    double best_tokens = question->n_seqs, best_ns = verify_ns + question->draft_ns;
    int32_t n_rows = 0;
    for (int32_t i = 0; i < rows->n; i++) {
        if (rows->sorted[i].place > question->place_max) {
            continue;
        }
        const double row_ns = policy_times_ns(question->verify, question->n_base_rows + ++n_rows);
        verify_ns = row_ns > verify_ns ? row_ns : verify_ns; /* more rows never take less: that is noise */
        value += (double)rows->sorted[i].survival;
        const double tokens = question->n_seqs + value, ns = verify_ns + question->draft_ns;
        if (tokens * best_ns > best_tokens * ns) {
            best_tokens = tokens, best_ns = ns;
            best.n_rows = n_rows, best.value = value, best.verify_ns = verify_ns;
        }
    }
    best.tokens_per_ns = best_ns > 0.0 ? best_tokens / best_ns : 0.0;
    return best;
}
