/* calibrate: how long a pass of so many rows takes on this machine, before the first request. The rows
 * are of no sequence: they read the pool's first page, zeros, and store nothing. */
#include "scheduler/private.h"

enum { CALIBRATE_ROUNDS = 3 };
static const int64_t CALIBRATE_BUDGET_NS = 400000000;
/* Rows that matter most come first: where the budget ends, the rest is interpolated. */
static const int32_t CALIBRATE_ROWS[] = { 1, 5, 2, 9, 3, 4, 8, 6, 7, 13, 17, 33 };

struct calibration_pass {
    int32_t token[64], position[64], slot[64], seq[64], logits_row[64];
    uint32_t page;
    struct kv_view view;
};

static int64_t time_pass(struct scheduler *s, struct calibration_pass *rows, int32_t n_rows)
{
    const struct pass pass = {
        .n_rows = n_rows, .n_seqs = 1, .n_logits = n_rows, .token = rows->token, .position = rows->position,
        .slot = rows->slot, .seq_of_row = rows->seq, .views = &rows->view, .logits_row = rows->logits_row };
    struct target *target = s->options.target;
    const float *logits;
    const int64_t begin_ns = clock_now_ns();
    target->kind->begin(target, &(struct target_work){ .pass = &pass });
    const enum status status = target->kind->end(target, &logits);
    return status == STATUS_OK ? clock_now_ns() - begin_ns : 0;
}

void scheduler_calibrate(struct scheduler *s)
{
    struct calibration_pass rows = { .page = 0 };
    const int64_t begin_ns = clock_now_ns();
    const int32_t n_most = scheduler_cap_logits(&s->options);
    const int32_t n_positions = s->options.context < s->options.page_slots ? s->options.context
                                                                           : s->options.page_slots;
    rows.view = (struct kv_view){ .pages = &rows.page, .n_pages = 1 };
    for (int32_t i = 0; i < 64; i++) {
        rows.position[i] = i % n_positions;
        rows.slot[i] = -1;
        rows.logits_row[i] = i;
    }
    for (int round = 0; round < CALIBRATE_ROUNDS; round++) {
        for (size_t i = 0; i < sizeof CALIBRATE_ROWS / sizeof CALIBRATE_ROWS[0]; i++) {
            const bool late = clock_now_ns() - begin_ns > CALIBRATE_BUDGET_NS;
            if (CALIBRATE_ROWS[i] > n_most || (late && (round > 0 || i > 3))) {
                continue;
            }
            const int64_t ns = time_pass(s, &rows, CALIBRATE_ROWS[i]);
            if (ns > 0 && round + late > 0) { /* the first round touches memory for the first time */
                policy_observe_pass(s->policy, CALIBRATE_ROWS[i], ns);
            }
        }
    }
}
