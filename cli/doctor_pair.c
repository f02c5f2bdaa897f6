/* doctor_pair: a target and a draft, tried, and what holds the pair back in words. */
#include <stdio.h>

#include "bench/bench.h"
#include "cli/cli.h"

static const double PAIR_SECONDS = 10;

static const struct bench_pair_try *best_try(const struct bench_pair *pair)
{
    const struct bench_pair_try *best = &pair->tries[0];
    for (int i = 1; i < pair->n_tries - 1; i++) {
        best = pair->tries[i].tok_per_s > best->tok_per_s ? &pair->tries[i] : best;
    }
    return best;
}

/* Of three costs the one that, gone, would gain most: wrong guesses, drafting, rows. With K = 4 tried. */
static void what_holds_back(const struct bench_pair *pair, char *text, size_t cap)
{
    const struct bench_pair_try *four = &pair->tries[3];
    const double k = 4, seconds = four->pass_cost + k * four->draft_cost;
    const double now = four->length / seconds;
    const double all_right = (k + 1) / seconds, free_draft = four->length / four->pass_cost;
    const double free_rows = four->length / (1 + k * four->draft_cost);
    if (pair->accepted[0] == 0 && four->length <= 1) {
        snprintf(text, cap, "nothing is guessed right: the draft knows too little of what this target writes");
    } else if (all_right - now >= free_draft - now && all_right - now >= free_rows - now) {
        snprintf(text, cap, "wrong guesses: the first is right in %.0f %% of rounds, the fourth reached in %.0f %%; "
                 "a draft trained on the target's own texts would help most", 100 * pair->accepted[0],
                 100 * pair->accepted[3]);
    } else if (free_draft >= free_rows) {
        snprintf(text, cap, "drafting: a drafted token costs %.0f %% of a pass of the target; a smaller draft or "
                 "--draft-vocab would help most", 100 * four->draft_cost);
    } else {
        snprintf(text, cap, "rows: a pass of 5 rows costs %.2f of one; where weights fit into caches or the batch is "
                 "large, arithmetic binds", four->pass_cost);
    }
}

static void print_pair(const char *target, const char *draft, const struct bench_pair *pair)
{
    char text[256];
    const struct bench_pair_try *plain = &pair->tries[0], *best = best_try(pair);
    const struct bench_pair_try *automatic = &pair->tries[pair->n_tries - 1];
    printf("\n%s with draft %s, tried for %.0f seconds\n", target, draft, PAIR_SECONDS);
    printf("  K      tok/s   speedup   tokens a round   pass   draft a token\n");
    for (int i = 0; i < pair->n_tries; i++) {
        const struct bench_pair_try *t = &pair->tries[i];
        char k[16];
        snprintf(k, sizeof k, t->k < 0 ? "auto" : "%d", t->k);
        printf("  %-4s %7.1f %8.2fx %15.2f %6.2f %14.3f\n", k, t->tok_per_s, t->tok_per_s / plain->tok_per_s,
               t->length, t->pass_cost, t->draft_cost);
    }
    printf("  accepted by position:");
    for (int p = 0; p < 8; p++) {
        printf(" %.2f", pair->accepted[p]);
    }
    what_holds_back(pair, text, sizeof text);
    printf("\n  expect %.2fx plain decoding (auto), best fixed K %d at %.2fx; batch 1, greedy\n",
           automatic->tok_per_s / plain->tok_per_s, best->k, best->tok_per_s / plain->tok_per_s);
    printf("  held back by %s\n", text);
}

static json_t *pair_json(const char *target, const char *draft, const struct bench_pair *pair)
{
    char text[256];
    json_t *tries = json_array(), *accepted = json_array();
    for (int i = 0; i < pair->n_tries; i++) {
        const struct bench_pair_try *t = &pair->tries[i];
        json_array_append_new(tries, json_pack("{s:o,s:f,s:f,s:f,s:f,s:f}", "k",
            t->k < 0 ? json_string("auto") : json_integer(t->k), "tok_per_s", t->tok_per_s, "speedup_vs_plain",
            t->tok_per_s / pair->tries[0].tok_per_s, "mean_length", t->length, "pass_cost", t->pass_cost,
            "draft_cost", t->draft_cost));
    }
    for (int p = 0; p < 8; p++) {
        json_array_append_new(accepted, json_real(pair->accepted[p]));
    }
    what_holds_back(pair, text, sizeof text);
    return json_pack("{s:s,s:s,s:o,s:o,s:s}", "target", target, "draft", draft, "tries", tries,
                     "accepted_by_position", accepted, "held_back_by", text);
}

enum status doctor_pair(const struct conf *conf, const char *default_target, json_t *into)
{
    struct bench_pair pair;
    const char *target = conf_text(conf, OPT_TARGET) ? conf_text(conf, OPT_TARGET) : default_target;
    const char *draft = conf_text(conf, OPT_DRAFT);
    say(conf, "%strying %s with draft %s for %.0f seconds%s", style_dim(2), target, draft, PAIR_SECONDS, style_off(2));
    TRY(bench_pair_measure(&(struct bench_pair_options){ .target = target, .draft = draft,
        .isa = conf_text(conf, OPT_ISA), .threads = (int)conf_int(conf, OPT_THREADS), .seconds = PAIR_SECONDS }, &pair));
    if (into) {
        const int failed = json_object_set_new(into, "pair", pair_json(target, draft, &pair));
        return failed ? status_fail(STATUS_NO_MEMORY, "no memory for a result") : STATUS_OK;
    }
    print_pair(target, draft, &pair);
    return output_flush();
}
