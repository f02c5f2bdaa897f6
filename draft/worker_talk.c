/* worker_talk: what a target says, and what becomes of it. A message about a place that is being grown
 * waits until the job is done, and whatever that target said behind it; an outcome and a cancel do not.
 */
#include <string.h>

#include "draft/worker_private.h"

static const int64_t EVICT_AFTER_NS = 1000000000; /* a place without rounds for so long may go to another */

/* ---- saying ---- */
void worker_send(struct draft_worker *worker, struct worker_target *target)
{
    if (target->is_connected && rpc_peer_send(target->peer, worker->message) != STATUS_OK) {
        worker_hang_up(worker, target, "expected a target that reads what it is sent");
    }
}

static void say_cancel(struct draft_worker *worker, struct worker_target *target, struct rpc_sequence sequence)
{
    worker->message->type = RPC_CANCEL;
    worker->message->id = 0;
    worker->message->cancel = sequence;
    worker_send(worker, target);
}

/* The last thing that is said to a target. */
static void say_error(struct draft_worker *worker, struct worker_target *target, enum rpc_error_code code,
                      const char *why)
{
    worker->message->type = RPC_ERROR;
    worker->message->id = 0;
    worker->message->error.code = code;
    rpc_text_set(&worker->message->error.text, why);
    if (rpc_peer_send(target->peer, worker->message) == STATUS_OK) {
        (void)rpc_peer_flush(target->peer);
    }
}

static void part_with(struct draft_worker *worker, struct worker_target *target, enum rpc_error_code code,
                      const char *why)
{
    char sentence[RPC_MAX_TEXT_BYTES + 1] = ""; /* why may lie where the next sentence is written */
    if (why != NULL) {
        strncpy(sentence, why, RPC_MAX_TEXT_BYTES);
        say_error(worker, target, code, sentence);
    }
    rpc_peer_hang_up(target->peer);
    target->is_connected = target->has_held = false;
    for (int32_t i = 0; i < worker->options.max_batch; i++) {
        if (worker->places[i].target == target) {
            worker_leave_place(worker, &worker->places[i]);
        }
    }
    pthread_mutex_lock(&worker->mutex);
    worker->report.n_connected -= target->is_greeted;
    worker->report.refused_targets += !target->is_greeted;
    pthread_mutex_unlock(&worker->mutex);
    if (target->is_greeted || why != NULL) {
        log_info("draft worker: target %d%s%s left after %llu rounds%s%s", target->number,
                 target->is_greeted ? " " : "", target->is_greeted ? target->name.bytes : "",
                 (unsigned long long)target->n_rounds, why != NULL ? ": " : "", sentence);
    }
    target->is_greeted = false;
    worker_grow_consider_stop(worker);
}

void worker_hang_up(struct draft_worker *worker, struct worker_target *target, const char *why)
{
    if (target->is_connected) {
        part_with(worker, target, RPC_ERROR_PROTOCOL, why);
    }
}

/* ---- places ---- */
void worker_leave_place(struct draft_worker *worker, struct worker_place *place)
{
    place->target = NULL;
    place->is_leaving = true;
    place->round = place->round == WORKER_ROUND_RUNNING ? WORKER_ROUND_RUNNING : WORKER_ROUND_NONE;
    pthread_mutex_lock(&worker->mutex);
    worker->report.n_places_taken--;
    pthread_mutex_unlock(&worker->mutex);
}

static struct worker_place *place_of(struct draft_worker *worker, const struct worker_target *target,
                                     struct rpc_sequence sequence)
{
    for (int32_t i = 0; i < worker->options.max_batch; i++) {
        struct worker_place *place = &worker->places[i];
        if (place->target == target && place->sequence.id == sequence.id &&
            place->sequence.epoch == sequence.epoch) {
            return place;
        }
    }
    return NULL;
}

static int32_t n_free_places(const struct draft_worker *worker)
{
    int32_t n = 0;
    for (int32_t i = 0; i < worker->options.max_batch; i++) {
        n += worker->places[i].target == NULL;
    }
    return n;
}

/* A free place, or the one that was used longest ago, if that is long. NULL: none now. Places that are
 * leaving are free once no job runs: *is_soon. */
static struct worker_place *find_place(struct draft_worker *worker, bool *is_soon)
{
    struct worker_place *oldest = NULL;
    *is_soon = false;
    for (int32_t i = 0; i < worker->options.max_batch; i++) {
        struct worker_place *place = &worker->places[i];
        if (place->target == NULL && !place->is_leaving) {
            return place;
        }
        *is_soon |= place->is_leaving;
        if (place->target != NULL && place->round == WORKER_ROUND_NONE &&
            (oldest == NULL || place->used_ns < oldest->used_ns)) {
            oldest = place;
        }
    }
    if (*is_soon || oldest == NULL || clock_now_ns() - oldest->used_ns < EVICT_AFTER_NS) {
        return NULL;
    }
    say_cancel(worker, oldest->target, oldest->sequence);
    worker_leave_place(worker, oldest);
    pthread_mutex_lock(&worker->mutex);
    worker->report.evicted++;
    pthread_mutex_unlock(&worker->mutex);
    *is_soon = true; /* when it is forgotten */
    return NULL;
}

/* Ids within the target's vocabulary; those the draft does not have become 0, which is never proposed for
 * them: a proposal is what the draft says. */
static bool take_ids(const struct draft_worker *worker, const struct worker_target *target, const int32_t *ids,
                     int32_t n, int32_t *out)
{
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] >= target->n_vocab) {
            return false;
        }
        out[i] = ids[i] < worker->options.n_vocab ? ids[i] : 0;
    }
    return true;
}

static bool take_params(const struct draft_worker *worker, const struct worker_target *target,
                        const struct sampling_params *params, struct worker_place *place)
{
    if (sampling_params_check(params, target->n_vocab) != STATUS_OK) {
        return false;
    }
    place->params = *params;
    place->params.n_biases = 0;
    place->params.biases = place->biases;
    for (int32_t i = 0; i < params->n_biases && params->biases[i].id < worker->options.n_vocab; i++) {
        place->biases[place->params.n_biases++] = params->biases[i];
    }
    return true;
}

/* ---- messages ---- */
enum handled { HANDLED, HELD, UNBELIEVABLE }; /* the last with a sentence */

static enum handled refuse(const char *sentence)
{
    (void)status_fail(STATUS_INVALID, "%s", sentence);
    return UNBELIEVABLE;
}

static enum status compare_vocabularies(const struct draft_worker_options *own, const struct rpc_model *other)
{
    const bool is_same = own->vocab_digest == other->vocab_digest &&
                         (own->vocab_digest != 0 || own->n_vocab == other->n_vocab);
    return is_same ? STATUS_OK : status_fail(STATUS_INVALID,
        "the draft %.60s has another vocabulary: digest %016llx, %d ids; the target's: %016llx, %d ids (fingerprints "
        "%016llx and %016llx)", own->name, (unsigned long long)own->vocab_digest, own->n_vocab,
        (unsigned long long)other->vocab_digest, other->n_vocab, (unsigned long long)own->fingerprint,
        (unsigned long long)other->fingerprint);
}

static void say_welcome(struct draft_worker *worker, struct worker_target *target, uint32_t id)
{
    const struct draft_worker_options *own = &worker->options;
    worker->message->type = RPC_WELCOME;
    worker->message->id = id;
    worker->message->welcome = (struct rpc_model){ .vocab_digest = own->vocab_digest,
        .fingerprint = own->fingerprint, .n_vocab = own->n_vocab, .context = own->context,
        .n_sequences = n_free_places(worker), .k_max = own->k_max };
    rpc_text_set(&worker->message->welcome.name, own->name);
    worker_send(worker, target);
}

static enum handled handle_hello(struct draft_worker *worker, struct worker_target *target,
                                 const struct rpc_message *message)
{
    const struct rpc_model *model = &message->hello.model;
    if (target->is_greeted) {
        return refuse("expected one hello, found another");
    }
    if (!rpc_key_equal(&worker->key, &message->hello.key)) {
        part_with(worker, target, RPC_ERROR_KEY, message->hello.key.n == 0 ? "the draft worker asks for a key"
                                                                            : "the key is not the draft worker's");
        return HANDLED;
    }
    if (compare_vocabularies(&worker->options, model) != STATUS_OK) {
        part_with(worker, target, RPC_ERROR_VOCABULARY, status_message());
        return HANDLED;
    }
    target->is_greeted = true;
    target->n_vocab = model->n_vocab;
    target->name = model->name;
    pthread_mutex_lock(&worker->mutex);
    worker->report.targets++;
    worker->report.n_connected++;
    pthread_mutex_unlock(&worker->mutex);
    log_info("draft worker: target %d %s came, fingerprint %016llx", target->number, target->name.bytes,
             (unsigned long long)model->fingerprint);
    say_welcome(worker, target, message->id);
    return HANDLED;
}

static enum handled handle_open(struct draft_worker *worker, struct worker_target *target,
                                const struct rpc_open *open)
{
    bool is_soon;
    if (place_of(worker, target, open->sequence) != NULL) {
        return refuse("expected a new sequence to be opened, found one that is open");
    }
    if (open->tokens.n > worker->options.context) {
        return refuse("expected a sequence that fits into the draft's context");
    }
    struct worker_place *place = find_place(worker, &is_soon);
    if (place == NULL && is_soon) {
        return HELD;
    }
    if (place == NULL) {
        say_cancel(worker, target, open->sequence);
        return HANDLED;
    }
    if (!take_params(worker, target, &open->params, place) ||
        !take_ids(worker, target, open->tokens.id, open->tokens.n, place->tokens)) {
        return refuse("expected ids of the vocabulary and parameters within their ranges in open");
    }
    place->target = target;
    place->sequence = open->sequence;
    place->seq_id = ++worker->n_seq_ids;
    place->tenant = rng_mix64(open->tenant ^ rng_mix64(target->serial)); /* targets share nothing */
    place->n_tokens = open->tokens.n;
    place->n_prompt = open->n_prompt;
    place->round = WORKER_ROUND_NONE;
    place->used_ns = clock_now_ns();
    pthread_mutex_lock(&worker->mutex);
    worker->report.sequences++;
    worker->report.n_places_taken++;
    pthread_mutex_unlock(&worker->mutex);
    return HANDLED;
}

/* Tokens that begin where the place's end. False: they do not, or do not fit; the target is told to begin
 * again. */
static bool append_tokens(struct draft_worker *worker, struct worker_target *target, struct worker_place *place,
                          int32_t first, const struct rpc_tokens *tokens)
{
    if (first != place->n_tokens || tokens->n > worker->options.context - first ||
        !take_ids(worker, target, tokens->id, tokens->n, place->tokens + first)) {
        say_cancel(worker, target, place->sequence);
        worker_leave_place(worker, place);
        return false;
    }
    place->n_tokens += tokens->n;
    place->used_ns = clock_now_ns();
    return true;
}

/* What follows a round says how it ended, even if nobody said it before. */
static void end_round_of(struct draft_worker *worker, struct worker_place *place, const struct rpc_tokens *next)
{
    if (!place->has_outcome) {
        place->has_outcome = place->was_answered = true; /* nobody waits for that answer any more */
        place->outcome = (struct ahead_outcome){ next->n - 1, next->id[next->n - 1] };
        worker_grow_consider_stop(worker);
    }
}

static enum handled handle_append(struct draft_worker *worker, struct worker_target *target,
                                  const struct rpc_append *append)
{
    struct worker_place *place = place_of(worker, target, append->sequence);
    if (place == NULL) {
        return HANDLED; /* it was put out, and the target hears of it */
    }
    if (place->round == WORKER_ROUND_RUNNING) {
        end_round_of(worker, place, &append->tokens);
        return HELD;
    }
    place->round = WORKER_ROUND_NONE;
    (void)append_tokens(worker, target, place, append->first, &append->tokens);
    return HANDLED;
}

static enum handled handle_round(struct draft_worker *worker, struct worker_target *target,
                                 const struct rpc_round *round)
{
    struct worker_place *place = place_of(worker, target, round->sequence);
    if (place == NULL) {
        return HANDLED;
    }
    if (place->round == WORKER_ROUND_RUNNING) {
        end_round_of(worker, place, &round->tokens);
        return HELD;
    }
    if (!append_tokens(worker, target, place, round->first, &round->tokens)) {
        return HANDLED;
    }
    if (!take_ids(worker, target, round->proposed, round->n_proposed, place->tokens + place->n_tokens)) {
        return refuse("expected proposed ids of the vocabulary in round");
    }
    place->n_proposed = round->n_proposed;
    place->k_next = round->k_next < worker->options.k_max ? round->k_next : worker->options.k_max;
    place->verify_rows = round->verify_rows;
    place->verify_us = round->verify_us;
    place->after_miss = round->after_miss;
    place->round = WORKER_ROUND_WAITING;
    place->n_jobs = place->n_interrupted = 0;
    place->has_outcome = place->was_answered = false;
    target->n_rounds++;
    pthread_mutex_lock(&worker->mutex);
    worker->report.rounds++;
    pthread_mutex_unlock(&worker->mutex);
    return HANDLED;
}

static enum handled handle_outcome(struct draft_worker *worker, struct worker_target *target,
                                   const struct rpc_outcome *outcome)
{
    struct worker_place *place = place_of(worker, target, outcome->sequence);
    if (place == NULL || place->has_outcome || place->round == WORKER_ROUND_NONE ||
        outcome->n_tokens != place->n_tokens || outcome->n_accepted > place->n_proposed) {
        return HANDLED; /* late, twice, of another round, or all was pushed already */
    }
    place->has_outcome = true;
    place->outcome = (struct ahead_outcome){ outcome->n_accepted, outcome->token };
    worker_grow_answer(worker, place);
    worker_grow_consider_stop(worker);
    return HANDLED;
}

static enum handled handle_cancel(struct draft_worker *worker, struct worker_target *target,
                                  struct rpc_sequence sequence)
{
    struct worker_place *place = place_of(worker, target, sequence);
    if (place != NULL) {
        worker_leave_place(worker, place);
        worker_grow_consider_stop(worker);
    }
    return HANDLED;
}

static enum handled handle(struct draft_worker *worker, struct worker_target *target,
                           const struct rpc_message *message)
{
    if (!target->is_greeted && message->type != RPC_HELLO) {
        return refuse("expected a hello before anything else");
    }
    switch (message->type) {
    case RPC_HELLO: return handle_hello(worker, target, message);
    case RPC_OPEN: return handle_open(worker, target, &message->open);
    case RPC_APPEND: return handle_append(worker, target, &message->append);
    case RPC_ROUND: return handle_round(worker, target, &message->round);
    case RPC_OUTCOME: return handle_outcome(worker, target, &message->outcome);
    case RPC_CANCEL: return handle_cancel(worker, target, message->cancel);
    case RPC_PING:
        worker->message->type = RPC_PONG;
        worker->message->id = message->id;
        worker_send(worker, target);
        return HANDLED;
    case RPC_PONG: return HANDLED;
    case RPC_WELCOME:
    case RPC_TABLE:
    case RPC_ERROR: break;
    }
    return refuse(message->type == RPC_ERROR ? "the target ended it" : "expected what a target says, found what a "
                                                                        "worker does");
}

void worker_listen_to(struct draft_worker *worker, struct worker_target *target)
{
    while (target->is_connected) {
        if (!target->has_held) {
            const enum status status = rpc_peer_next(target->peer, target->held);
            if (status == STATUS_REFUSED) {
                return;
            }
            if (status != STATUS_OK) {
                worker_hang_up(worker, target, status_message());
                return;
            }
        }
        target->has_held = true;
        const enum handled handled = handle(worker, target, target->held);
        if (handled == UNBELIEVABLE) {
            worker_hang_up(worker, target, status_message());
        }
        if (handled == HELD) {
            return;
        }
        target->has_held = false;
    }
}
