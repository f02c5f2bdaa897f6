/* remote_rounds: what a remote draft and its worker tell each other of sequences and rounds. Both keep the
 * same count of a sequence's tokens; where they come apart, it is opened again. */
#include <string.h>

#include "draft/remote_private.h"

static const int64_t REOPEN_NS = 250000000;

static struct rpc_sequence sequence_of(const struct remote_place *place)
{
    return (struct rpc_sequence){ place->seq_id, place->epoch };
}

static struct ahead_table *table_of(const struct remote *remote, const struct remote_place *place)
{
    return &remote->tables[place - remote->places];
}

static void end_round(struct remote *remote, struct remote_place *place)
{
    remote->n_unsaid -= place->has_round && !place->has_said_outcome;
    if (place->has_round) {
        place->last_n_tokens = table_of(remote, place)->n_tokens;
        place->last_said_ns = place->has_said_outcome ? place->said_ns : 0;
    }
    place->has_round = false;
}

/* ---- places ---- */
void remote_leave(struct remote *remote, struct remote_place *place)
{
    end_round(remote, place);
    if (place->is_taken && place->is_open && remote->state == REMOTE_READY) {
        remote->out->type = RPC_CANCEL;
        remote->out->id = 0;
        remote->out->cancel = sequence_of(place);
        (void)remote_link_send(remote); /* unheard, the worker's place is put out when others want it */
        remote->since_ns = 0;           /* and need not be answered */
    }
    *place = (struct remote_place){ .is_taken = false };
}

struct remote_place *remote_place_of(struct remote *remote, const struct draft_ask *ask)
{
    ASSERT(ask->place >= 0 && ask->place < remote->options.common.max_batch);
    struct remote_place *place = &remote->places[ask->place];
    if (place->is_taken && (place->seq_id != ask->seq_id || place->epoch != ask->epoch)) {
        remote_leave(remote, place);
    }
    if (!place->is_taken) {
        *place = (struct remote_place){ .is_taken = true, .seq_id = ask->seq_id, .epoch = ask->epoch };
    }
    return place;
}

static struct remote_place *find(struct remote *remote, struct rpc_sequence sequence)
{
    for (int32_t i = 0; i < remote->options.common.max_batch; i++) {
        struct remote_place *place = &remote->places[i];
        if (place->is_taken && place->seq_id == sequence.id && place->epoch == sequence.epoch) {
            return place;
        }
    }
    return NULL;
}

void remote_take_cancel(struct remote *remote, struct rpc_sequence sequence)
{
    struct remote_place *place = find(remote, sequence);
    if (place != NULL && place->is_open) {
        end_round(remote, place);
        place->is_open = false;
        place->n_sent = 0;
        place->reopen_ns = clock_now_ns() + REOPEN_NS;
        remote->report.dropped++;
    }
}

/* ---- tables ---- */
/* A branch whose ids are the target's, as far as they are. */
static bool take_branch(const struct remote *remote, const struct rpc_branch *from, struct ahead_branch *to)
{
    const int32_t n_vocab = remote->options.common.n_vocab;
    int32_t n = 0;
    to->n_accepted = from->n_accepted;
    to->token = from->token;
    to->rank = from->rank;
    for (; n < from->n && from->next[n] < n_vocab; n++) {
        to->next[n] = from->next[n];
        to->hint[n] = (float)from->hint[n] / 255.0f;
        to->prob[n] = NULL;
    }
    if (n < DRAFT_MAX_NODES) {
        to->next[n] = -1;
    }
    return from->token < n_vocab && n == from->n;
}

/* Of another round, late or twice; or of a sequence that is no more. */
static void drop_table(struct remote *remote, const struct remote_place *place, const struct rpc_table *from)
{
    remote->report.dropped++;
    if (place != NULL && place->last_said_ns > 0 && place->last_n_tokens == from->n_tokens) {
        remote_link_time_answer(remote, clock_now_ns() - place->last_said_ns);
    }
}

void remote_take_table(struct remote *remote, const struct rpc_table *from)
{
    struct remote_place *place = find(remote, from->sequence);
    struct ahead_table *table = place != NULL ? table_of(remote, place) : NULL;
    if (place == NULL || !place->has_round || table->n_tokens != from->n_tokens ||
        table->n_proposed != from->n_proposed) {
        drop_table(remote, place, from);
        return;
    }
    if (place->has_said_outcome) {
        remote_link_time_answer(remote, clock_now_ns() - place->said_ns);
    } else {
        remote->n_late = 0; /* nobody waited */
    }
    if (from->n_branches == 0 && atomic_load(&table->n_ready) >= 0) {
        return; /* what is there is not replaced by nothing */
    }
    table->n_branches = 0;
    for (int32_t i = 0; i < from->n_branches; i++) {
        const bool is_sound = take_branch(remote, &from->branch[i], &table->branch[table->n_branches]);
        table->n_branches += is_sound;
        remote->report.dropped += !is_sound;
    }
    atomic_store(&table->n_ready, DRAFT_MAX_NODES);
    remote->report.branches += (uint64_t)table->n_branches;
    remote->pause_ns = 0; /* it works: the next pause is a short one again */
}

/* ---- rounds ---- */
static int32_t put_tokens(struct rpc_tokens *tokens, const struct draft_ask *ask, int32_t first, int32_t n)
{
    tokens->n = n < RPC_MAX_TOKENS ? n : RPC_MAX_TOKENS;
    memcpy(tokens->id, ask->tokens + first, (size_t)tokens->n * sizeof *tokens->id);
    return tokens->n;
}

/* All but the last token of what was committed: the round brings at least one. */
static bool say_open(struct remote *remote, struct remote_place *place, const struct draft_ask *ask)
{
    struct rpc_open *open = &remote->out->open;
    remote->out->type = RPC_OPEN;
    remote->out->id = 0;
    open->sequence = sequence_of(place);
    open->tenant = ask->tenant;
    open->n_prompt = ask->n_prompt;
    open->params = *ask->params;
    const int32_t n = put_tokens(&open->tokens, ask, 0, ask->n_tokens - 1);
    place->is_open = remote_link_send(remote);
    place->n_sent = place->is_open ? n : 0;
    return place->is_open;
}

static bool say_append(struct remote *remote, struct remote_place *place, const struct draft_ask *ask)
{
    struct rpc_append *append = &remote->out->append;
    remote->out->type = RPC_APPEND;
    remote->out->id = 0;
    append->sequence = sequence_of(place);
    append->first = place->n_sent;
    const int32_t n = put_tokens(&append->tokens, ask, place->n_sent, ask->n_tokens - 1 - place->n_sent);
    const bool is_sent = remote_link_send(remote);
    place->n_sent += is_sent ? n : 0;
    return is_sent;
}

static int32_t k_next_of(const struct remote *remote, const struct draft_ask *ask)
{
    const int32_t k = ask->is_fixed && ask->fixed_k > 0 ? ask->fixed_k : remote->options.common.k_max;
    return k < remote->worker.k_max ? k : remote->worker.k_max;
}

static void remember_round(struct remote *remote, struct remote_place *place, const struct draft_ask *ask,
                           int32_t n_chain)
{
    struct ahead_table *table = table_of(remote, place);
    ahead_table_begin(table, ask, n_chain);
    place->has_round = true;
    place->has_said_outcome = false;
    remote->n_unsaid++;
}

static void say_last(struct remote *remote, struct remote_place *place, const struct draft_ask *ask)
{
    struct rpc_round *round = &remote->out->round;
    const int32_t n_chain = draft_proposal_chain_len(&ask->proposal);
    const int64_t verify_us = remote->last_ns / 1000;
    remote->out->type = RPC_ROUND;
    remote->out->id = 0;
    round->sequence = sequence_of(place);
    round->first = place->n_sent;
    round->k_next = k_next_of(remote, ask);
    round->verify_rows = remote->last_rows;
    round->verify_us = (int32_t)(verify_us < INT32_MAX ? verify_us : INT32_MAX);
    round->after_miss = place->was_miss;
    (void)put_tokens(&round->tokens, ask, place->n_sent, ask->n_tokens - place->n_sent);
    round->n_proposed = n_chain;
    memcpy(round->proposed, ask->proposal.token, (size_t)n_chain * sizeof *round->proposed);
    if (remote_link_send(remote)) {
        place->n_sent = ask->n_tokens;
        remote->report.sent++;
        remember_round(remote, place, ask, n_chain);
        remote->since_ns = remote->since_ns > 0 ? remote->since_ns : clock_now_ns();
    }
}

void remote_say_round(struct remote *remote, const struct draft_ask *ask)
{
    struct remote_place *place = remote_place_of(remote, ask);
    end_round(remote, place);
    if (ask->n_tokens + DRAFT_MAX_NODES >= remote->worker.context || place->n_sent >= ask->n_tokens ||
        clock_now_ns() < place->reopen_ns) {
        return;
    }
    bool is_going = place->is_open || say_open(remote, place, ask);
    while (is_going && ask->n_tokens - place->n_sent > RPC_MAX_TOKENS) {
        is_going = say_append(remote, place, ask);
    }
    if (is_going) {
        say_last(remote, place, ask);
    }
}

void remote_say_outcome(struct remote *remote, struct remote_place *place, struct ahead_outcome outcome)
{
    if (!place->has_round || place->has_said_outcome || remote->state != REMOTE_READY) {
        return;
    }
    place->has_said_outcome = true;
    place->said_ns = clock_now_ns();
    remote->n_unsaid--;
    remote->out->type = RPC_OUTCOME;
    remote->out->id = 0;
    remote->out->outcome = (struct rpc_outcome){ sequence_of(place), table_of(remote, place)->n_tokens,
                                                 outcome.n_accepted, outcome.token };
    (void)remote_link_send(remote); /* unheard, the next round says it too */
}
