/* examine: the plain answers of a subject, then its cells, engine by engine, and what differs. */
#include <string.h>

#include "base/base.h"
#include "tests/equivalence/equivalence.h"

enum { FEWEST_QUESTIONS = 4, MOST_PRINTED = 12 };

/* One subject's; large, and one at a time. */
static struct question questions[MAX_QUESTIONS];
static struct answers plain, found;

const char *answer_difference(const struct answer *a, const struct answer *b, int32_t *at)
{
    const int32_t n = a->n_ids < b->n_ids ? a->n_ids : b->n_ids;
    for (*at = 0; *at < n && a->ids[*at] == b->ids[*at]; ++*at) {
    }
    if (!a->is_finished || !b->is_finished) {
        return "one has no end";
    }
    if (*at < n || a->n_ids != b->n_ids) {
        return "other tokens";
    }
    if (a->logits_digest != b->logits_digest) {
        return "logits of other bits";
    }
    if (a->finish != b->finish) {
        return "another end";
    }
    if (a->n_text != b->n_text || memcmp(a->text, b->text, a->n_text) != 0) {
        return "another text";
    }
    if (a->logprobs_digest != b->logprobs_digest) {
        return "other logprobs";
    }
    return a->fingerprint != b->fingerprint || a->seed != b->seed ? "another fingerprint or seed" : NULL;
}

int64_t tally_failures(const struct tally *tally)
{
    int64_t n = tally->n_misplaced + tally->n_refused_own;
    for (int32_t d = 0; d < N_DRAFTS; d++) {
        for (int32_t k = 0; k < N_KS; k++) {
            n += tally->n_different[d][k];
        }
    }
    return n;
}

/* ---- plain ---- */
static bool answer_plainly(const struct subject *subject)
{
    const struct asking asking = { .questions = questions, .n = MAX_QUESTIONS, .at_once = 1, .k = 0 };
    struct td_engine *engine = engine_open_plain(subject);
    if (engine == NULL) {
        return false;
    }
    questions_make(questions, subject, engine);
    bool works = ask_all(engine, &asking, &plain);
    if (works) {
        questions_add_stops(questions, &plain, subject->has_text);
        works = ask_all(engine, &asking, &plain);
    }
    td_engine_close(engine);
    return works;
}

/* ---- one cell ---- */
static void say_difference(struct tally *tally, const struct subject *subject, const struct cell *cell,
                           int32_t question, int32_t choice, const char *what, int32_t at)
{
    if (tally->n_printed++ < MOST_PRINTED) {
        printf("DIFFERENT: %s, draft %s, K %s, batch %d, pages of %d%s: question %d, choice %d: %s (token %d of "
               "%d)\n", subject->name, DRAFT_NAMES[cell->draft], K_NAMES[cell->k], BATCHES[cell->batch],
               PAGES[cell->page], cell->pool == 1 ? ", too few" : "", question, choice, what, at,
               plain.answer[question][choice].n_ids);
    }
}

static void compare(struct tally *tally, const struct subject *subject, const struct cell *cell,
                    const struct asking *asking)
{
    for (int32_t place = 0; place < asking->n; place++) {
        const int32_t idx = (asking->first + place) % MAX_QUESTIONS;
        for (int32_t c = 0; c < questions[idx].request.n; c++) {
            int32_t at;
            const char *what = answer_difference(&plain.answer[idx][c], &found.answer[idx][c], &at);
            tally->n_runs[cell->draft][cell->k]++;
            if (what != NULL) {
                tally->n_different[cell->draft][cell->k]++;
                say_difference(tally, subject, cell, idx, c, what, at);
            }
        }
    }
}

/* KV moves between pages only where choices of one prompt part: a page each, once for every time that
 * one of them came in. */
static void count_copies(struct tally *tally, const struct asking *asking, int64_t n_copies, int64_t n_preempted)
{
    int64_t n_forks = 0;
    for (int32_t place = 0; place < asking->n; place++) {
        n_forks += questions[(asking->first + place) % MAX_QUESTIONS].request.n - 1;
    }
    const int64_t most = n_forks == 0 ? 0 : n_forks + n_preempted;
    tally->n_forks += n_forks;
    tally->n_page_copies += n_copies;
    tally->n_misplaced += n_copies > most ? n_copies - most : 0;
}

static void count_stats(struct tally *tally, const struct subject *subject, const struct cell *cell,
                        const struct asking *asking, const struct td_engine_stats stats[2])
{
    const int32_t d = cell->draft;
    const struct td_engine_stats *a = &stats[0], *b = &stats[1];
    const int64_t proposed = b->drafted.proposed - a->drafted.proposed;
    const int64_t accepted = b->drafted.accepted - a->drafted.accepted;
    const int64_t n_preempted = (int64_t)(b->preemptions - a->preemptions);
    tally->n_cells++;
    tally->n_steps[d] += (int64_t)(b->steps - a->steps);
    tally->n_passes[d] += (int64_t)(b->target_passes - a->target_passes);
    tally->n_tokens[d] += (int64_t)(b->committed_tokens - a->committed_tokens);
    tally->proposed[d] += proposed;
    tally->accepted[d] += accepted;
    tally->n_preempted += n_preempted;
    tally->n_few_pages += cell->pool == 1 && BATCHES[cell->batch] >= 8;
    tally->metadata_seconds[d] += (double)(b->scheduler_cpu_ns - a->scheduler_cpu_ns) * 1e-9;
    tally->pass_seconds[d] += b->verify_seconds - a->verify_seconds;
    tally->draft_seconds[d] += b->draft_seconds - a->draft_seconds;
    /* where the engine chooses, side branches may be among them, of which one at most is right */
    const bool is_own = subject->drafts_itself && cell->k < K_AUTO;
    tally->n_refused_own += is_own && d == DRAFT_MODEL ? proposed - accepted : 0;
    tally->n_refused_own += is_own && (d == DRAFT_AHEAD || d == DRAFT_REMOTE) /* source 0: what was prepared */
                                ? b->drafted.proposed_by_source[0] - a->drafted.proposed_by_source[0] -
                                      (b->drafted.accepted_by_source[0] - a->drafted.accepted_by_source[0])
                                : 0;
    count_copies(tally, asking, (int64_t)(b->page_copies - a->page_copies), n_preempted);
}

static bool run_cell(const struct examination *examination, const struct cell *cell, struct td_engine *engine,
                     struct tally *tally)
{
    const int32_t batch = BATCHES[cell->batch], more = batch + 2;
    const struct asking asking = {
        .questions = questions, .first = (cell->k * 5 + cell->batch * 3 + cell->draft + 2 * cell->pool) % MAX_QUESTIONS,
        .n = more < FEWEST_QUESTIONS ? FEWEST_QUESTIONS : more < MAX_QUESTIONS ? more : MAX_QUESTIONS,
        .at_once = batch, .k = cell->k };
    struct td_engine_stats stats[2];
    td_engine_get_stats(engine, &stats[0]);
    if (!ask_all(engine, &asking, &found)) {
        return false;
    }
    td_engine_get_stats(engine, &stats[1]);
    if (examination->spoil) {
        found.answer[asking.first][0].ids[0] ^= 1;
    }
    compare(tally, examination->subject, cell, &asking);
    count_stats(tally, examination->subject, cell, &asking, stats);
    return true;
}

/* ---- engine by engine ---- */
static bool shares_engine(const struct cell *a, const struct cell *b)
{
    return a->draft == b->draft && a->page == b->page && a->pool == b->pool;
}

static bool run_engine(const struct examination *examination, const struct cell *like, struct tally *tally)
{
    struct td_engine *engine = engine_open(examination->subject, like);
    bool works = engine != NULL;
    for (int32_t i = 0; i < examination->n_cells && works; i++) {
        if (shares_engine(&examination->cells[i], like)) {
            works = run_cell(examination, &examination->cells[i], engine, tally);
        }
    }
    engine_close(engine);
    return works;
}

bool examine(const struct examination *examination, struct tally *tally)
{
    const struct subject *subject = examination->subject;
    memset(tally, 0, sizeof *tally);
    if (!answer_plainly(subject)) {
        return false;
    }
    for (int32_t i = 0; i < examination->n_cells; i++) {
        const struct cell *cell = &examination->cells[i];
        bool is_first = subject->drafts[cell->draft] != NULL;
        for (int32_t j = 0; j < i && is_first; j++) {
            is_first = !shares_engine(&examination->cells[j], cell);
        }
        if (is_first && examination->deadline_ns > 0 && clock_now_ns() > examination->deadline_ns) {
            return true;
        }
        if (is_first && !run_engine(examination, cell, tally)) {
            return false;
        }
    }
    return true;
}
