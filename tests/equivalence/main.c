/* equivalence: proves that speculation, batching, paging and preemption change nothing.
 *
 *     equivalence [--quick] [--seconds N] [--seed N] [--target NAME]
 *
 * Full: every cell of every subject. --quick: cells that meet every pair of values of two factors.
 * --seconds: no engine is opened after that time; the table says how many cells ran.
 * Exit: 0 all the same, 3 something differs, 1 something could not be run, 2 usage.
 */
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "tests/equivalence/equivalence.h"

struct arguments { bool is_quick; int64_t seconds; uint64_t seed; const char *target; };

static bool parse_arguments(int argc, char **argv, struct arguments *arguments)
{
    *arguments = (struct arguments){ .seed = 1 };
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--quick") == 0) {
            arguments->is_quick = true;
            continue;
        }
        if (value == NULL) {
            return false;
        }
        if (strcmp(argv[i], "--seconds") == 0) {
            arguments->seconds = strtoll(value, NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0) {
            arguments->seed = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--target") == 0) {
            arguments->target = value;
        } else {
            return false;
        }
        i++;
    }
    return true;
}

static struct plan plan;
static struct subjects subjects;

struct total { int64_t n_runs, n_failures, n_few_pages, n_preempted; int32_t n_subjects; bool is_broken; };

static void run_subject(const struct subject *subject, const struct arguments *arguments, int64_t deadline_ns,
                        struct total *total)
{
    static struct tally tally;
    total->n_subjects++;
    total->is_broken |= !examine(&(struct examination){
        .subject = subject, .cells = plan.cells, .deadline_ns = deadline_ns,
        .n_cells = arguments->is_quick ? plan.n_covering : plan.n_cells }, &tally);
    tally_print(stdout, subject, &tally);
    fflush(stdout);
    for (int32_t d = 0; d < N_DRAFTS; d++) {
        for (int32_t k = 0; k < N_KS; k++) {
            total->n_runs += tally.n_runs[d][k];
        }
    }
    total->n_failures += tally_failures(&tally);
    total->n_preempted += tally.n_preempted;
    total->n_few_pages += tally.n_few_pages;
}

static int close_with_count(const struct total *total)
{
    printf("\n%lld runs compared with plain decoding alone: %lld differences\n", (long long)total->n_runs,
           (long long)total->n_failures);
    if (total->n_failures > 0) {
        return 3;
    }
    if (total->n_few_pages > 0 && total->n_preempted == 0) {
        printf("nothing was preempted, so that nothing is known of preemption\n");
        return 1;
    }
    return total->is_broken || total->n_subjects == 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    struct total total = { .n_runs = 0 };
    if (!parse_arguments(argc, argv, &arguments)) {
        fprintf(stderr, "usage: equivalence [--quick] [--seconds N] [--seed N] [--target NAME]\n");
        return 2;
    }
    const int64_t deadline_ns = arguments.seconds > 0 ? clock_now_ns() + arguments.seconds * INT64_C(1000000000) : 0;
    plan_make(&plan, arguments.seed);
    subjects_find(&subjects);
    printf("%d of %d cells a target (seed %llu); in each cell: runs/differences\n",
           arguments.is_quick ? plan.n_covering : plan.n_cells, plan.n_cells, (unsigned long long)arguments.seed);
    for (int32_t i = 0; i < subjects.n; i++) {
        if (arguments.target == NULL || strcmp(arguments.target, subjects.subject[i].name) == 0) {
            run_subject(&subjects.subject[i], &arguments, deadline_ns, &total);
        }
    }
    return close_with_count(&total);
}
