/* remote: the calls of the step thread. See remote.h. */
#include "draft/remote_private.h"

#include <string.h>

static const int64_t CREATE_NS = 2000000000;
static const size_t OUT_BYTES = 4 * RPC_MAX_FRAME_BYTES; /* and some for each sequence */

bool draft_remote_is_address(const char *word) { return rpc_address_is(word); }

/* ---- looking up ---- */
enum found { FOUND_HIT, FOUND_MISS, FOUND_NOTHING_YET, FOUND_UNPREPARED };

static enum found look_up(struct remote *remote, const struct draft_ask *ask, struct ahead_outcome *outcome)
{
    struct remote_place *place = remote_place_of(remote, ask);
    const struct ahead_table *table = &remote->tables[ask->place];
    if (!place->has_round || !ahead_table_outcome(table, ask, outcome)) {
        return FOUND_UNPREPARED;
    }
    remote_say_outcome(remote, place, *outcome); /* of a round without proposals nobody was told */
    if (atomic_load(&table->n_ready) < 0) {
        return FOUND_NOTHING_YET;
    }
    const struct ahead_branch *branch = ahead_table_find(table, *outcome);
    return branch != NULL && ahead_branch_n(table, branch) > 0 ? FOUND_HIT : FOUND_MISS;
}

static int32_t n_awaited(struct remote *remote, const struct draft_ask *asks, int32_t n_asks)
{
    struct ahead_outcome outcome;
    int32_t n = 0;
    for (int32_t i = 0; i < n_asks; i++) {
        n += asks[i].k_max > 0 && look_up(remote, &asks[i], &outcome) == FOUND_NOTHING_YET;
    }
    return n;
}

/* One deadline for all: a worker that does not answer delays a step once, and after a few times not at all. */
static void await_answers(struct remote *remote, const struct draft_ask *asks, int32_t n_asks)
{
    const int64_t begin_ns = clock_now_ns(), end_ns = begin_ns + remote_link_patience_ns(remote);
    int32_t n = n_awaited(remote, asks, n_asks);
    remote_link_flush(remote);
    if (n == 0 || end_ns == begin_ns || remote->state != REMOTE_READY) {
        return;
    }
    for (int64_t now_ns = begin_ns; n > 0 && now_ns < end_ns && remote->state == REMOTE_READY;
         now_ns = clock_now_ns()) {
        rpc_wait(remote->peer, end_ns - now_ns);
        remote_link_turn(remote);
        n = n_awaited(remote, asks, n_asks);
    }
    remote->report.waited_seconds += (double)(clock_now_ns() - begin_ns) * 1e-9;
    remote->n_late = n > 0 ? remote->n_late + 1 : 0;
}

/* ---- proposals ---- */
static bool serve(struct remote *remote, struct draft_ask *ask)
{
    struct ahead_outcome outcome;
    const enum found found = look_up(remote, ask, &outcome);
    const struct ahead_table *table = &remote->tables[ask->place];
    struct draft_remote_report *report = &remote->report;
    report->unprepared += found == FOUND_UNPREPARED;
    report->unanswered += found == FOUND_NOTHING_YET;
    report->misses += found == FOUND_MISS;
    report->rounds += found != FOUND_UNPREPARED;
    if (found != FOUND_HIT) {
        return false;
    }
    const struct ahead_branch *branch = ahead_table_find(table, outcome);
    const int32_t n_ready = ahead_branch_n(table, branch);
    const int32_t n = n_ready < ask->k_max ? n_ready : ask->k_max;
    draft_proposal_chain(&ask->proposal, branch->next, n, REMOTE_SOURCE_REMOTE, branch->hint);
    report->hits++;
    report->tokens_served += (uint64_t)n;
    report->tokens_wanted += (uint64_t)ask->k_max;
    return true;
}

static void ask_lookup(struct remote *remote, struct draft_ask *asks, int32_t n_missed)
{
    struct draft *lookup = remote->lookup;
    if (lookup == NULL || n_missed == 0) {
        return;
    }
    lookup->calibration[0] = remote->base.calibration[REMOTE_SOURCE_NGRAM];
    lookup->kind->propose(lookup, remote->missed, n_missed);
    for (int32_t i = 0; i < n_missed; i++) {
        struct draft_proposal *proposal = &asks[remote->missed_idx[i]].proposal;
        *proposal = remote->missed[i].proposal;
        memset(proposal->source, REMOTE_SOURCE_NGRAM, sizeof proposal->source);
    }
}

static void propose(struct draft *base, struct draft_ask *asks, int32_t n_asks)
{
    struct remote *remote = (struct remote *)base;
    int32_t n_missed = 0;
    remote_link_turn(remote);
    await_answers(remote, asks, n_asks);
    for (int32_t i = 0; i < n_asks; i++) {
        struct draft_ask *ask = &asks[i];
        ask->proposal.n = 0;
        if (ask->k_max > 0) {
            struct remote_place *place = remote_place_of(remote, ask);
            place->was_miss = !serve(remote, ask);
            if (place->was_miss) {
                remote->missed[n_missed] = *ask;
                remote->missed_idx[n_missed++] = i;
            }
        }
    }
    ask_lookup(remote, asks, n_missed);
}

/* ---- rounds ---- */
static void begin(struct draft *base, const struct draft_ask *asks, int32_t n_asks)
{
    struct remote *remote = (struct remote *)base;
    bool has_prompt = false;
    remote->begin_rows = 0;
    for (int32_t i = 0; i < n_asks; i++) {
        remote->begin_rows += 1 + asks[i].proposal.n;
        has_prompt |= asks[i].n_tokens == asks[i].n_prompt;
    }
    remote->begin_ns = has_prompt ? 0 : clock_now_ns(); /* such a pass says nothing of others */
    remote_link_turn(remote); /* also where nothing was asked for, so that a lost link is made again */
    for (int32_t i = 0; i < n_asks && remote->state == REMOTE_READY; i++) {
        if (asks[i].k_max > 0) {
            remote_say_round(remote, &asks[i]);
        }
    }
    remote_link_flush(remote);
}

static void known(struct draft *base)
{
    struct remote *remote = (struct remote *)base;
    const int64_t ns = clock_now_ns() - remote->begin_ns;
    remote_link_turn(remote);
    if (remote->begin_ns > 0) {
        remote->last_ns = ns;
        remote->last_rows = remote->begin_rows;
        remote->verify_ns = remote->verify_ns > 0 ? remote->verify_ns + (ns - remote->verify_ns) / 8 : ns;
    }
}

/* The first chain's outcome; a side branch that was accepted is another story, which the worker hears
 * with the next round. */
static void observe(struct draft *base, const struct draft_verdict *verdicts, int32_t n_verdicts)
{
    struct remote *remote = (struct remote *)base;
    for (int32_t i = 0; i < n_verdicts; i++) {
        const struct draft_verdict *verdict = &verdicts[i];
        struct remote_place *place = &remote->places[verdict->ask->place];
        const struct ahead_table *table = &remote->tables[verdict->ask->place];
        const bool is_chain = verdict->n_accepted == 0 ||
                              verdict->path[verdict->n_accepted - 1] == verdict->n_accepted - 1;
        if (place->has_round && place->seq_id == verdict->ask->seq_id && place->epoch == verdict->ask->epoch &&
            table->n_tokens == verdict->ask->n_tokens && is_chain && verdict->n_accepted <= table->n_proposed) {
            remote_say_outcome(remote, place,
                               (struct ahead_outcome){ verdict->n_accepted, verdict->recovery_token });
        }
    }
    if (remote->n_unsaid == 0) {
        remote_link_flush(remote); /* all of the step's in one go */
    }
}

static void forget(struct draft *base, const struct draft_farewell *farewell)
{
    struct remote *remote = (struct remote *)base;
    struct remote_place *place = &remote->places[farewell->place];
    if (place->is_taken && place->seq_id == farewell->seq_id && place->epoch == farewell->epoch) {
        remote_leave(remote, place);
        remote_link_flush(remote);
    }
    if (remote->lookup != NULL) {
        remote->lookup->kind->forget(remote->lookup, farewell);
    }
}

static void destroy(struct draft *base)
{
    struct remote *remote = (struct remote *)base;
    if (remote->lookup != NULL) {
        remote->lookup->kind->destroy(remote->lookup);
    }
    rpc_peer_destroy(remote->peer);
    ahead_tables_destroy(remote->tables);
    mem_free(remote->places);
    mem_free(remote->missed);
    mem_free(remote->missed_idx);
    mem_free(remote->in);
    mem_free(remote->out);
    mem_free(remote);
}

static struct draft_ahead_counts count(const struct draft *base)
{
    const struct draft_remote_report report = draft_remote_report(base);
    return (struct draft_ahead_counts){
        .hits = report.hits, .misses = report.rounds - report.hits, .unprepared = report.unprepared,
        .branches_used = report.hits, .branches_grown = report.branches, .tokens_served = report.tokens_served,
        .tokens_wanted = report.tokens_wanted, .exposed_seconds = report.waited_seconds };
}

static const struct draft_kind remote_kind = {
    .name = "remote",
    .propose = propose,
    .observe = observe,
    .forget = forget,
    .destroy = destroy,
    .begin = begin,
    .known = known,
    .count = count,
};

/* ---- creation ---- */
static enum status take_memory(struct remote *remote)
{
    const struct draft_options *common = &remote->options.common;
    const size_t n = (size_t)common->max_batch;
    remote->places = mem_alloc(n, sizeof *remote->places);
    remote->missed = mem_alloc(n, sizeof *remote->missed);
    remote->missed_idx = mem_alloc(n, sizeof *remote->missed_idx);
    remote->in = mem_alloc(1, sizeof *remote->in);
    remote->out = mem_alloc(1, sizeof *remote->out);
    if (remote->places == NULL || remote->missed == NULL || remote->missed_idx == NULL || remote->in == NULL ||
        remote->out == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a remote draft of %zu sequences", n);
    }
    TRY(ahead_tables_create(common->max_batch, FANOUT_MAX_BUDGET, &remote->tables));
    TRY(rpc_peer_create(OUT_BYTES + n * 1024, &remote->peer));
    return remote->options.has_lookup ? draft_ngram_create(common, &remote->lookup) : STATUS_OK;
}

/* The first greeting is waited for: a worker that will never do is better known now. */
static enum status greet(struct remote *remote)
{
    const int64_t end_ns = clock_now_ns() + CREATE_NS;
    remote->is_creating = true;
    do {
        remote_link_turn(remote);
        rpc_wait(remote->peer, 10000000);
    } while (clock_now_ns() < end_ns && (remote->state == REMOTE_GREETING ||
                                         (remote->state == REMOTE_READY && remote->ping_ns != 0) ||
                                         (remote->state == REMOTE_APART && !remote->was_refused &&
                                          remote->n_calls < remote->address.n_places)));
    remote->is_creating = false;
    return remote->was_refused ? status_fail(STATUS_INVALID, "draft worker %s: %s", remote->address.text, remote->lost)
                               : STATUS_OK;
}

static enum status check(const struct draft_remote_options *options)
{
    if (options->common.wants_prob) {
        return status_fail(STATUS_UNSUPPORTED, "a draft elsewhere sends tokens and no probabilities, which "
                           "--verify rejection needs; --verify coupled does without");
    }
    if (options->common.max_batch > RPC_MAX_SEQUENCES) {
        return status_fail(STATUS_INVALID, "a draft worker takes at most %d sequences of a target, found %d",
                           RPC_MAX_SEQUENCES, options->common.max_batch);
    }
    return STATUS_OK;
}

enum status draft_remote_create(const struct draft_remote_options *options, struct draft **out)
{
    enum status status = STATUS_OK;
    *out = NULL;
    TRY(check(options));
    struct remote *remote = mem_alloc(1, sizeof *remote);
    if (remote == NULL) {
        return status_fail(STATUS_NO_MEMORY, "no memory for a remote draft");
    }
    remote->options = *options;
    rpc_text_set(&remote->name, options->name != NULL ? options->name : "");
    draft_base_init(&remote->base, &remote_kind, "remote");
    if (options->has_lookup) {
        remote->base.source_name[remote->base.n_sources++] = "ngram";
        calibration_init(&remote->base.calibration[REMOTE_SOURCE_NGRAM]);
    }
    TRY_GOTO(rpc_address_parse(options->address, &remote->address), out);
    TRY_GOTO(rpc_key_read(options->key_file, &remote->key), out);
    TRY_GOTO(take_memory(remote), out);
    TRY_GOTO(greet(remote), out);
    remote->options.address = remote->options.key_file = remote->options.name = NULL; /* the caller's */
    *out = &remote->base;
    return STATUS_OK;
out:
    destroy(&remote->base);
    return status;
}

struct draft_remote_report draft_remote_report(const struct draft *base)
{
    const struct remote *remote = (const struct remote *)base;
    if (base->kind != &remote_kind) {
        return (struct draft_remote_report){ .rounds = 0 };
    }
    struct draft_remote_report report = remote->report;
    const struct rpc_counts counts = rpc_peer_counts(remote->peer);
    report.bytes_in = counts.bytes_in;
    report.bytes_out = counts.bytes_out;
    report.is_linked = remote->state == REMOTE_READY;
    return report;
}
