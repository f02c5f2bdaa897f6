/* rank_rows: the likeliest ids of rows, for drafting ahead. Rows that only the temperature and the noise rank are
 * read as they are; of others sample.cu makes the values to rank first. */
#include <string.h>

#include "backend/cuda/choosing.h"

struct ranking_run {
    struct portion portion;
    const struct rank_ask *asks;      /* of the portion */
    int32_t stride;                   /* of ids: what is wanted at most */
    struct group plain, filtered;     /* rows: struct cuda_rank_row */
    struct cuda_sampling *how;        /* [filtered.n] and there */
    const struct cuda_sampling *how_there;
};

static struct group *group_of(struct ranking_run *run, int32_t i)
{
    return run->asks[i].how.is_plain ? &run->plain : &run->filtered;
}

/* Without temperature penalties and biases count, and no filter. */
static struct cuda_sampling how_of(const struct ranking_run *run, int32_t i)
{
    struct cuda_sampling how = portion_sampling(&run->portion, i);
    if (how.temperature == 0.0f) {
        how.temperature = how.top_p = 1.0f;
        how.top_k = 0;
        how.min_p = 0.0f;
    }
    return how;
}

static void put_all(struct ranking_run *run)
{
    struct portion *portion = &run->portion;
    const struct group_sizes sizes = { .row_bytes = sizeof(struct cuda_rank_row),
                                       .out_bytes = (size_t)run->stride * sizeof(int32_t) };
    const void *there;
    for (int32_t i = 0; i < portion->asks.n; i++) {
        ASSERT(run->asks[i].n_wanted >= 0 && run->asks[i].n_wanted <= CHOICE_MAX_RANKED);
        group_of(run, i)->n++;
    }
    group_open(portion, &run->plain, &sizes);
    group_open(portion, &run->filtered, &sizes);
    run->how = pack_aligned(&portion->in, (size_t)run->filtered.n, sizeof *run->how, CHOOSING_ALIGN, &there);
    run->how_there = there;
    for (int32_t i = 0; i < portion->asks.n; i++) {
        const struct rank_ask *ask = &run->asks[i];
        struct group *group = group_of(run, i);
        const int32_t at = group->n_put++;
        if (group == &run->filtered) {
            run->how[at] = how_of(run, i);
        }
        group->idx[at] = portion_full_row(portion, i);
        ((struct cuda_rank_row *)group->rows)[at] = (struct cuda_rank_row){
            .seed = ask->how.seed, .position = ask->how.position, .temperature = ask->how.temperature,
            .excluded = ask->excluded, .n_wanted = ask->n_wanted };
        portion->choosing->placed[i].at[0] = at;
    }
}

static void launch(const struct ranking_run *run)
{
    const struct portion *portion = &run->portion;
    const int32_t n_vocab = portion->domain.n_vocab;
    float *filtered = portion->scratch + (size_t)run->plain.n * (size_t)n_vocab; /* values, then exponentials */
    const struct cuda_op_rank plain = {
        .logits = portion->full, .rows = run->plain.rows_there, .id = (void *)run->plain.out_there,
        .scratch = portion->scratch, .n_rows = run->plain.n, .n_vocab = n_vocab, .id_stride = run->stride,
        .from = run->plain.from };
    const struct cuda_op_log_probs values = {
        .logits = portion->full, .rows = run->how_there, .ranks = run->filtered.rows_there, .out = filtered,
        .scratch = filtered + (size_t)run->filtered.n * (size_t)n_vocab, .n_rows = run->filtered.n,
        .n_vocab = n_vocab, .from = run->filtered.from };
    const struct cuda_op_rank others = {
        .rows = run->filtered.rows_there, .id = (void *)run->filtered.out_there, .scratch = filtered,
        .n_rows = run->filtered.n, .n_vocab = n_vocab, .id_stride = run->stride };
    cuda_ok(portion->choosing->backend, cuda_rank(&plain, portion->stream), "ranking tokens");
    cuda_ok(portion->choosing->backend, cuda_log_probs(&values, portion->stream), "ranking tokens");
    cuda_ok(portion->choosing->backend, cuda_rank(&others, portion->stream), "ranking tokens");
}

static void take_ids(struct ranking_run *run, int32_t i, int32_t *ids, int32_t *n_found)
{
    const struct group *group = group_of(run, i);
    const size_t at = (size_t)run->portion.choosing->placed[i].at[0];
    const int32_t *from = (const void *)(group->out + at * group->out_bytes);
    for (*n_found = 0; *n_found < run->asks[i].n_wanted && from[*n_found] >= 0; ++*n_found) {
        ids[*n_found] = from[*n_found];
    }
}

/* Returns how many were done; 0: the device failed, or none are left. */
static int32_t run_portion(struct lane *lane, struct pass_desk *desk, const struct op_rank *op, int32_t first,
                           int32_t stride)
{
    struct ranking_run run = { .portion = { .lane = lane, .domain = op->domain, .plain_rows = 1 },
                               .asks = op->asks + first, .stride = stride };
    const struct asks left = { op->asks + first, sizeof *op->asks, op->n - first };
    if (!portion_begin(&run.portion, desk, &left)) {
        return 0;
    }
    put_all(&run);
    portion_send(&run.portion);
    launch(&run);
    if (!portion_end(&run.portion)) {
        return 0;
    }
    for (int32_t i = 0; i < run.portion.asks.n; i++) {
        take_ids(&run, i, op->ids[first + i], &op->n_found[first + i]);
    }
    return run.portion.asks.n;
}

enum status cuda_run_rank(struct lane *lane, struct pass_desk *desk, const struct op_rank *op)
{
    int32_t stride = 1;
    for (int32_t i = 0; i < op->n; i++) {
        op->n_found[i] = 0;
        stride = op->asks[i].n_wanted > stride ? op->asks[i].n_wanted : stride;
    }
    for (int32_t done = 0, n; done < op->n && (n = run_portion(lane, desk, op, done, stride)) > 0; done += n) {
        ;
    }
    return backend_health(lane->backend);
}
