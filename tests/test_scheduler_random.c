/* Case 42: twenty thousand random operations on the scheduler over a table. After every step all checks
 * run, at the end of a round everything finished is compared with what it is alone. A round that
 * fails is cut down to the fewest operations that still fail, and printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "tests/sim.h"

enum { N_ROUNDS = 80, OPS_OF_ROUND = 250, WHY_CAP = 300 };
enum op_kind { OP_SUBMIT, OP_STEP, OP_CANCEL, OP_PREEMPT, OP_KINDS };

struct op { enum op_kind kind; uint64_t number; };

/* ---- operations from numbers, so that any subset of them can be run ---- */
static struct sim_options round_options(uint64_t seed)
{
    const uint64_t bits = rng_mix64(seed);
    struct sim_options options = sim_defaults();
    options.page_slots = bits & 1 ? 16 : 64;
    options.context = bits & 2 ? 96 : 160;
    const int32_t least = (options.context + options.page_slots - 1) / options.page_slots;
    options.n_pages = least + (int32_t)((bits >> 2) % (uint64_t)(3 * least));
    options.max_batch = 1 + (int32_t)((bits >> 10) % 6);
    options.prefill_chunk = 1 + (int32_t)((bits >> 20) % 40);
    options.prefix_cache = (bits >> 28) % 4 != 0;
    options.tied = (bits >> 32) % 4 == 0;
    options.k_max = (bits >> 36) % 2 ? (int32_t)((bits >> 40) % 5) : 0;
    options.draft_pattern = (bits >> 44) % 3 == 0 ? "0123" : (bits >> 44) % 3 == 1 ? "94" : "ab1c";
    return options;
}

static struct sim_spec random_spec(uint64_t number, int32_t context)
{
    const uint64_t a = rng_mix64(number), b = rng_mix64(a);
    struct sim_spec spec = sim_spec(1 + a % 5, 1 + (int32_t)((a >> 8) % (uint64_t)(context - 1)),
                                    (int64_t)((a >> 20) % 30) - 1);
    spec.shared = (a >> 30) % 2 ? (int32_t)((a >> 32) % 80) : 0;
    spec.seed = (a >> 40) % 3;
    spec.priority = (int32_t)((a >> 48) % 3);
    spec.n = (a >> 56) % 5 == 0 ? 3 : 1;
    spec.temperature = b % 2 ? 0.9f : 0;
    spec.top_k = (b >> 4) % 3 ? 0 : 8;
    spec.ignore_eos = (b >> 8) % 2;
    spec.repetition_penalty = (b >> 12) % 4 ? 1 : 1.2f;
    spec.logprobs = (b >> 16) % 4 ? -1 : 2;
    return spec;
}

static struct op random_op(uint64_t seed, int32_t idx)
{
    const uint64_t bits = rng_mix64(seed * 100003 + (uint64_t)idx);
    const uint64_t die = bits % 20;
    const enum op_kind kind = die < 4 ? OP_SUBMIT : die < 18 ? OP_STEP : die < 19 ? OP_CANCEL : OP_PREEMPT;
    return (struct op){ kind, bits >> 8 };
}

static const char *apply(struct sim *sim, const struct op *op, int32_t context)
{
    switch (op->kind) {
    case OP_SUBMIT: {
        const struct sim_spec spec = random_spec(op->number, context);
        sim_submit(sim, &spec);
        return NULL;
    }
    case OP_STEP: return scheduler_is_busy(sim_scheduler(sim)) ? sim_step(sim) : NULL;
    case OP_CANCEL:
        if (sim_n_requests(sim) > 0) {
            sim_cancel(sim, (int32_t)(op->number % (uint64_t)sim_n_requests(sim)));
        }
        return NULL;
    case OP_PREEMPT:
    case OP_KINDS: break;
    }
    scheduler_preempt_last(sim_scheduler(sim));
    return NULL;
}

/* True when all is well; otherwise why says what is not. */
static bool run_ops(const struct sim_options *options, const struct op *ops, int32_t n_ops, char *why)
{
    struct sim *sim = sim_open(options);
    const char *wrong = NULL;
    for (int32_t i = 0; i < n_ops && wrong == NULL; i++) {
        wrong = apply(sim, &ops[i], options->context);
    }
    wrong = wrong != NULL ? wrong : sim_run(sim);
    wrong = wrong != NULL ? wrong : sim_compare(sim);
    wrong = wrong != NULL ? wrong : sim_is_empty(sim);
    snprintf(why, WHY_CAP, "%s", wrong != NULL ? wrong : "");
    sim_close(sim);
    return why[0] == '\0';
}

/* Leaves out ever smaller stretches of operations as long as it still fails. */
static int32_t shrink(const struct sim_options *options, struct op *ops, int32_t n_ops, char *why)
{
    struct op fewer[OPS_OF_ROUND];
    char its_why[WHY_CAP];
    for (int32_t len = n_ops / 2; len >= 1; len /= 2) {
        for (int32_t at = 0; at + len <= n_ops;) {
            memcpy(fewer, ops, (size_t)at * sizeof *ops);
            memcpy(fewer + at, ops + at + len, (size_t)(n_ops - at - len) * sizeof *ops);
            if (run_ops(options, fewer, n_ops - len, its_why)) {
                at += len;
                continue;
            }
            n_ops -= len;
            memcpy(ops, fewer, (size_t)n_ops * sizeof *ops);
            memcpy(why, its_why, WHY_CAP);
        }
    }
    return n_ops;
}

static void print_ops(const struct sim_options *options, const struct op *ops, int32_t n_ops)
{
    static const char *const names[OP_KINDS] = { "submit", "step", "cancel", "preempt" };
    print_message("pages %d x %d, context %d, batch %d, chunk %d, prefix %d, k %d\n", options->n_pages,
                  options->page_slots, options->context, options->max_batch, options->prefill_chunk,
                  options->prefix_cache, options->k_max);
    for (int32_t i = 0; i < n_ops; i++) {
        const struct sim_spec spec = random_spec(ops[i].number, options->context);
        print_message("  %s", names[ops[i].kind]);
        if (ops[i].kind == OP_SUBMIT) {
            print_message(" prompt %d (seed %llu, shared %d), max %lld, n %d, priority %d", spec.n_prompt,
                          (unsigned long long)spec.prompt_seed, spec.shared, (long long)spec.max_tokens,
                          spec.n, spec.priority);
        }
        print_message("\n");
    }
}

static void case_42_random_operations(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= N_ROUNDS; seed++) {
        const struct sim_options options = round_options(seed);
        struct op ops[OPS_OF_ROUND];
        char why[WHY_CAP];
        for (int32_t i = 0; i < OPS_OF_ROUND; i++) {
            ops[i] = random_op(seed, i);
        }
        if (!run_ops(&options, ops, OPS_OF_ROUND, why)) {
            const int32_t n_ops = shrink(&options, ops, OPS_OF_ROUND, why);
            print_ops(&options, ops, n_ops);
            fail_msg("round of seed %llu, %d operations: %s", (unsigned long long)seed, n_ops, why);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_42_random_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
