/* report: a subject's tally as a table: a row a draft, a column a K, in each cell runs and differences. */
#include "tests/equivalence/equivalence.h"

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static void print_row(FILE *out, const struct subject *subject, const struct tally *tally, int32_t d)
{
    const double step_seconds = tally->metadata_seconds[d] + tally->pass_seconds[d] + tally->draft_seconds[d];
    fprintf(out, "%-13s %-13s", subject->name, DRAFT_NAMES[d]);
    for (int32_t k = 0; k < N_KS; k++) {
        char text[32];
        snprintf(text, sizeof text, "%lld/%lld", (long long)tally->n_runs[d][k], (long long)tally->n_different[d][k]);
        fprintf(out, " %7s", text);
    }
    fprintf(out, "  %5.1f %% %5.2f %5.1f us %5.2f %%\n", 100 * ratio((double)tally->accepted[d], (double)tally->proposed[d]),
            ratio((double)tally->n_tokens[d], (double)tally->n_passes[d]),
            1e6 * ratio(tally->metadata_seconds[d], (double)tally->n_steps[d]),
            100 * ratio(tally->metadata_seconds[d], step_seconds));
}

void tally_print(FILE *out, const struct subject *subject, const struct tally *tally)
{
    fprintf(out, "\n%-13s %-13s", "target", "draft \\ K");
    for (int32_t k = 0; k < N_KS; k++) {
        fprintf(out, " %7s", K_NAMES[k]);
    }
    fprintf(out, "  accept tok/p  metadata a step\n");
    for (int32_t d = 0; d < N_DRAFTS; d++) {
        if (subject->drafts[d] != NULL && tally->n_passes[d] > 0) {
            print_row(out, subject, tally, d);
        }
    }
    fprintf(out, "%d cells; %lld preemptions; %lld KV pages copied, all where %lld choices parted from their "
            "siblings' page; KV bytes realigned: %s\n", tally->n_cells, (long long)tally->n_preempted,
            (long long)tally->n_page_copies, (long long)tally->n_forks, tally->n_misplaced == 0 ? "0" : "SOME");
    if (tally->n_misplaced > 0) {
        fprintf(out, "WRONG: %lld KV pages were copied where nothing parted\n", (long long)tally->n_misplaced);
    }
    if (tally->n_refused_own > 0) {
        fprintf(out, "WRONG: the target refused %lld proposals of its own\n", (long long)tally->n_refused_own);
    }
}
