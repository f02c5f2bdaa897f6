/* choose_there: choices and rankings of rows that stayed on the device: asked in one call, answered in a few
 * bytes a row. What is asked for is what choose.c and rank.c compute. Not here: the rejection rule. */
#include "draft/chooser.h"

_Static_assert((int)DRAFT_SIBLINGS == (int)CHOICE_SIBLINGS, "no sibling is lost");
_Static_assert((int)DRAFT_MAX_RANKED == (int)CHOICE_MAX_RANKED, "no ranked id is lost");

/* ---- creation ---- */
static enum status take_arrays(struct draft_chooser *chooser)
{
    const size_t n = (size_t)chooser->options.cap_choices;
    chooser->asks = mem_alloc(n, sizeof *chooser->asks);
    chooser->answers = mem_alloc(n, sizeof *chooser->answers);
    chooser->bytes += n * (sizeof *chooser->asks + sizeof *chooser->answers);
    if (chooser->options.ranks) {
        chooser->rank_asks = mem_alloc(n, sizeof *chooser->rank_asks);
        chooser->ids = mem_alloc(n, sizeof(int32_t *));
        chooser->n_found = mem_alloc(n, sizeof *chooser->n_found);
        chooser->bytes += n * (sizeof *chooser->rank_asks + sizeof(int32_t *) + sizeof *chooser->n_found);
    }
    if (chooser->asks == NULL || chooser->answers == NULL ||
        (chooser->options.ranks && (chooser->rank_asks == NULL || chooser->ids == NULL || chooser->n_found == NULL))) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a draft's choices of %zu rows", n);
    }
    return STATUS_OK;
}

enum status chooser_open_there(struct draft_chooser *chooser)
{
    struct backend *backend = chooser->backend;
    const size_t bytes = (size_t)chooser->options.n_kept * sizeof *chooser->kept_there;
    TRY(take_arrays(chooser));
    if (chooser->kept_ids == NULL) {
        return STATUS_OK;
    }
    chooser->kept_there = backend_alloc(backend, bytes);
    if (chooser->kept_there == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory on %s for a draft of %d tokens", backend_name(backend),
                           chooser->options.n_kept);
    }
    chooser->bytes += bytes;
    return backend_upload(backend, chooser->kept_there, chooser->kept_ids, bytes);
}

void chooser_close_there(struct draft_chooser *chooser)
{
    if (chooser->kept_there != NULL) {
        backend_free(chooser->backend, chooser->kept_there,
                     (size_t)chooser->options.n_kept * sizeof *chooser->kept_there);
    }
    mem_free(chooser->asks);
    mem_free(chooser->answers);
    mem_free(chooser->rank_asks);
    mem_free(chooser->ids);
    mem_free(chooser->n_found);
}

/* ---- choices ---- */
static struct choice_domain domain_of(const struct draft_chooser *chooser)
{
    return (struct choice_domain){ .n_vocab = chooser->options.n_vocab_common, .kept_ids = chooser->kept_there,
                                   .n_kept = chooser->kept_there != NULL ? chooser->options.n_kept : 0 };
}

static void take_answer(const struct choice_answer *answer, struct draft_choice *choice)
{
    choice->token = answer->id;
    if (answer->id >= 0) {
        choice->hint = answer->hint;
    }
    for (int32_t i = 0; i < choice->n_siblings; i++) {
        choice->sibling[i].token = i < answer->n_siblings ? answer->sibling[i].id : -1;
        choice->sibling[i].hint = i < answer->n_siblings ? answer->sibling[i].hint : 0.0f;
    }
}

/* A device that failed has no token (I9); its target, or the next pass, says so. */
void chooser_choose_there(struct draft_chooser *chooser, struct draft_choice *const *choices, int32_t n)
{
    ASSERT(n <= chooser->options.cap_choices);
    for (int32_t i = 0; i < n; i++) {
        const struct draft_choice *choice = choices[i];
        const struct sampling_params params = chooser_params(chooser, choice->params);
        ASSERT(choice->logits == NULL && choice->prob == NULL);
        chooser->asks[i] = sampling_choice_ask(&params, choice->history, chooser_history_len(choice), choice->position);
        chooser->asks[i].row = choice->row;
        chooser->asks[i].n_siblings = choice->n_siblings;
    }
    (void)backend_choose(chooser->options.lane, chooser->options.desk, &(struct op_choose){
        .domain = domain_of(chooser), .asks = chooser->asks, .answers = chooser->answers, .n = n,
        .wants_hints = true });
    for (int32_t i = 0; i < n; i++) {
        take_answer(&chooser->answers[i], choices[i]);
    }
}

/* ---- rankings ---- */
void chooser_rank_there(struct draft_chooser *chooser, struct draft_ranking *const *rankings, int32_t n)
{
    ASSERT(n <= chooser->options.cap_choices);
    for (int32_t i = 0; i < n; i++) {
        struct draft_ranking *ranking = rankings[i];
        const struct sampling_params params = chooser_params(chooser, ranking->params);
        ASSERT(ranking->logits == NULL && !ranking->by_probability);
        chooser->rank_asks[i] = (struct rank_ask){
            .how = sampling_choice_ask(&params, ranking->history, ranking->n_history, ranking->position),
            .excluded = ranking->excluded, .n_wanted = ranking->n_wanted };
        chooser->rank_asks[i].how.row = ranking->row;
        chooser->ids[i] = ranking->id;
    }
    (void)backend_rank(chooser->options.lane, chooser->options.desk, &(struct op_rank){
        .domain = domain_of(chooser), .asks = chooser->rank_asks, .ids = chooser->ids, .n_found = chooser->n_found,
        .n = n });
    for (int32_t i = 0; i < n; i++) {
        rankings[i]->n = chooser->n_found[i];
    }
}
