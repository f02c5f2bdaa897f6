/* choose_rows: a token for each row, its siblings, what a draft says of them. Rows that only the temperature and
 * the noise choose go to choose.cu, all others to sample.cu. What a sibling must pass over is an answer of the
 * stage before, which the next launch reads on the device:
 *
 *     stage 0: tokens ─► stage 1: first siblings ─► stage 2: second siblings ─► hints of all of them
 */
#include "backend/cuda/choosing.h"

struct choosing_run {
    struct portion portion;
    const struct op_choose *op;
    struct group plain[CHOOSING_STAGES], sampled[CHOOSING_STAGES];
    const struct cuda_hint_row *hint_rows_there; /* [asks.n], and what comes of them; NULL: no hints */
    struct cuda_hints *hints_there;
    const struct cuda_hints *hints;
};

/* ---- what is asked ---- */
static void count_rows(struct choosing_run *run)
{
    const struct asks *asks = &run->portion.asks;
    for (int32_t i = 0; i < asks->n; i++) {
        const struct choice_ask *ask = ask_at(asks, i);
        ASSERT(ask->n_siblings >= 0 && ask->n_siblings <= CHOICE_SIBLINGS);
        for (int32_t stage = 0; stage <= ask->n_siblings; stage++) {
            (ask->is_plain ? run->plain : run->sampled)[stage].n++;
        }
    }
}

static void put_row(struct choosing_run *run, int32_t i, int32_t stage)
{
    struct portion *portion = &run->portion;
    const struct choice_ask *ask = ask_at(&portion->asks, i);
    struct placed *placed = &portion->choosing->placed[i];
    struct group *group = ask->is_plain ? &run->plain[stage] : &run->sampled[stage];
    const int32_t at = group->n_put++;
    group->idx[at] = portion_full_row(portion, i);
    if (stage > 0) {
        group->taken[at] = (struct cuda_taken){ { placed->id[0], stage > 1 ? placed->id[1] : NULL } };
    }
    if (ask->is_plain) {
        ((struct cuda_choose_row *)group->rows)[at] =
            (struct cuda_choose_row){ .seed = ask->seed, .position = ask->position, .temperature = ask->temperature };
    } else {
        ((struct cuda_sampling *)group->rows)[at] = portion_sampling(portion, i);
    }
    placed->at[stage] = at;
    placed->id[stage] = (const void *)(group->out_there + (size_t)at * group->out_bytes); /* begins with the id */
}

static void put_hints(struct choosing_run *run)
{
    struct portion *portion = &run->portion;
    const size_t n = (size_t)portion->asks.n;
    const void *there;
    struct cuda_hint_row *rows = pack_aligned(&portion->in, n, sizeof *rows, CHOOSING_ALIGN, &there);
    run->hint_rows_there = there;
    run->hints = pack_aligned(&portion->out, n, sizeof *run->hints, CHOOSING_ALIGN, &there);
    run->hints_there = (struct cuda_hints *)(uintptr_t)there;
    for (int32_t i = 0; i < portion->asks.n; i++) {
        const struct placed *placed = &portion->choosing->placed[i];
        const size_t full = (size_t)portion_full_row(portion, i) * (size_t)portion->full_stride;
        const size_t own = (size_t)ask_at(&portion->asks, i)->row * (size_t)portion->rows.n_cols;
        rows[i] = (struct cuda_hint_row){ .logits = portion->rows.row + own, .full = portion->full + full,
                                          .id = { placed->id[0], placed->id[1], placed->id[2] } };
    }
}

static void put_all(struct choosing_run *run)
{
    struct portion *portion = &run->portion;
    count_rows(run);
    for (int32_t stage = 0; stage < CHOOSING_STAGES; stage++) {
        group_open(portion, &run->plain[stage], &(struct group_sizes){
            sizeof(struct cuda_choose_row), sizeof(struct cuda_choice), stage > 0 });
        group_open(portion, &run->sampled[stage], &(struct group_sizes){
            sizeof(struct cuda_sampling), sizeof(struct cuda_sampled), stage > 0 });
        for (int32_t i = 0; i < portion->asks.n; i++) {
            if (stage <= ask_at(&portion->asks, i)->n_siblings) {
                put_row(run, i, stage);
            }
        }
    }
    if (run->op->wants_hints) {
        put_hints(run);
    }
}

/* ---- launches ---- */
static void launch_stage(struct choosing_run *run, int32_t stage)
{
    const struct portion *portion = &run->portion;
    const struct group *plain = &run->plain[stage], *sampled = &run->sampled[stage];
    const struct cuda_op_choose choose = {
        .logits = portion->full, .rows = plain->rows_there, .out = (void *)plain->out_there,
        .scratch = choosing_keys(portion->choosing), .n_rows = plain->n, .n_vocab = portion->domain.n_vocab,
        .from = plain->from };
    const struct cuda_op_sample sample = {
        .logits = portion->full, .rows = sampled->rows_there, .out = (void *)sampled->out_there,
        .scratch = portion->scratch, .n_rows = sampled->n, .n_vocab = portion->domain.n_vocab,
        .from = sampled->from };
    cuda_ok(portion->choosing->backend, cuda_choose(&choose, portion->stream), "choosing tokens");
    cuda_ok(portion->choosing->backend, cuda_sample(&sample, portion->stream), "choosing tokens");
}

static void launch_hints(const struct choosing_run *run)
{
    const struct portion *portion = &run->portion;
    const struct cuda_op_hint hint = {
        .rows = run->hint_rows_there, .out = run->hints_there, .scratch = choosing_sums(portion->choosing),
        .n_rows = portion->asks.n,
        .n_logits = portion->domain.n_kept > 0 ? portion->domain.n_kept : portion->domain.n_vocab };
    cuda_ok(portion->choosing->backend, cuda_hint(&hint, portion->stream), "hints");
}

/* ---- what is answered ---- */
/* As which both kinds of answers begin. */
static const struct cuda_choice *choice_of(const struct choosing_run *run, int32_t i, int32_t stage)
{
    const struct choice_ask *ask = ask_at(&run->portion.asks, i);
    const struct group *group = ask->is_plain ? &run->plain[stage] : &run->sampled[stage];
    return (const void *)(group->out + (size_t)run->portion.choosing->placed[i].at[stage] * group->out_bytes);
}

static void take_logprobs(const struct cuda_sampled *sampled, struct choice_answer *answer)
{
    answer->logprob = sampled->logprob;
    answer->n_top = sampled->n_top;
    for (int32_t t = 0; t < sampled->n_top; t++) {
        answer->top[t].id = sampled->top[t].id;
        answer->top[t].logprob = sampled->top[t].logprob;
    }
}

/* Where one sibling is missing there is none behind it. */
static void take_answer(const struct choosing_run *run, int32_t i, struct choice_answer *answer)
{
    const struct choice_ask *ask = ask_at(&run->portion.asks, i);
    const struct cuda_choice *choice = choice_of(run, i, 0);
    if (choice->bad != CUDA_CHOICE_GOOD) {
        return;
    }
    answer->id = choice->id;
    answer->hint = run->hints != NULL ? run->hints[i].share[0] : 0.0f;
    if (!ask->is_plain) {
        take_logprobs((const void *)choice, answer);
    }
    for (int32_t s = 0; s < ask->n_siblings && choice_of(run, i, s + 1)->bad == CUDA_CHOICE_GOOD; s++) {
        answer->sibling[s].id = choice_of(run, i, s + 1)->id;
        answer->sibling[s].hint = run->hints != NULL ? run->hints[i].share[s + 1] : 0.0f;
        answer->n_siblings++;
    }
}

/* Returns how many were done; 0: the device failed, or none are left. */
static int32_t run_portion(struct lane *lane, struct pass_desk *desk, const struct op_choose *op, int32_t first)
{
    struct choosing_run run = { .portion = { .lane = lane, .domain = op->domain }, .op = op };
    const struct asks left = { op->asks + first, sizeof *op->asks, op->n - first };
    if (!portion_begin(&run.portion, desk, &left)) {
        return 0;
    }
    put_all(&run);
    portion_send(&run.portion);
    for (int32_t stage = 0; stage < CHOOSING_STAGES; stage++) {
        launch_stage(&run, stage);
    }
    if (op->wants_hints) {
        launch_hints(&run);
    }
    if (!portion_end(&run.portion)) {
        return 0;
    }
    for (int32_t i = 0; i < run.portion.asks.n; i++) {
        take_answer(&run, i, &op->answers[first + i]);
    }
    return run.portion.asks.n;
}

enum status cuda_run_choose(struct lane *lane, struct pass_desk *desk, const struct op_choose *op)
{
    for (int32_t i = 0; i < op->n; i++) {
        op->answers[i] = (struct choice_answer){ .id = -1 };
    }
    for (int32_t done = 0, n; done < op->n && (n = run_portion(lane, desk, op, done)) > 0; done += n) {
        ;
    }
    return backend_health(lane->backend);
}
