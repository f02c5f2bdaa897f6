/* remote_link: the connection of a remote draft, looked after by the step thread whenever it comes by. */
#include <string.h>

#include "draft/remote_private.h"

static const int64_t FIRST_PAUSE_NS = 20000000, LAST_PAUSE_NS = 5000000000, REFUSED_PAUSE_NS = 30000000000;
static const int64_t GREETING_NS = 2000000000, SILENCE_NS = 5000000000;
static const int64_t MAX_PATIENCE_NS = 20000000, SPARE_NS = 50000;
enum { MAX_LATE = 4 }; /* answers missed before they are no longer waited for */

/* ---- losing it ---- */
static void forget_there(struct remote *remote)
{
    for (int32_t i = 0; i < remote->options.common.max_batch; i++) {
        remote->places[i].is_open = remote->places[i].has_round = false;
        remote->places[i].n_sent = 0;
        remote->places[i].reopen_ns = 0;
    }
    remote->n_unsaid = 0;
}

/* Twice as long as the last one, and a little apart from others who lost the same worker. */
static int64_t next_pause_ns(struct remote *remote, int64_t now_ns)
{
    const int64_t pause = remote->pause_ns > 0 ? 2 * remote->pause_ns : FIRST_PAUSE_NS;
    remote->pause_ns = pause < LAST_PAUSE_NS ? pause : LAST_PAUSE_NS;
    const int64_t spread = remote->pause_ns / 4;
    return remote->pause_ns + (int64_t)(rng_mix64((uint64_t)now_ns) % (uint64_t)spread);
}

void remote_link_lose(struct remote *remote, const char *why)
{
    const int64_t now_ns = clock_now_ns();
    strncpy(remote->lost, why, RPC_MAX_TEXT_BYTES);
    rpc_peer_hang_up(remote->peer);
    remote->report.losses += remote->state == REMOTE_READY;
    if (!remote->has_complained && !(remote->is_creating && remote->was_refused)) {
        log_warn("draft worker %s: %s; going on without it, and trying again", remote->address.text, remote->lost);
        remote->has_complained = true;
    }
    remote->state = REMOTE_APART;
    remote->retry_ns = now_ns + (remote->was_refused ? REFUSED_PAUSE_NS : next_pause_ns(remote, now_ns));
    forget_there(remote);
}

/* ---- sending ---- */
bool remote_link_send(struct remote *remote)
{
    return rpc_peer_send(remote->peer, remote->out) == STATUS_OK;
}

void remote_link_flush(struct remote *remote)
{
    if (remote->state != REMOTE_APART && rpc_peer_flush(remote->peer) != STATUS_OK) {
        remote_link_lose(remote, status_message());
    }
}

static void say_hello(struct remote *remote)
{
    const struct draft_remote_options *options = &remote->options;
    remote->out->type = RPC_HELLO;
    remote->out->id = 0;
    remote->out->hello.model = (struct rpc_model){ .vocab_digest = options->vocab_digest,
        .fingerprint = options->fingerprint, .n_vocab = options->common.n_vocab, .context = options->common.context,
        .n_sequences = options->common.max_batch, .k_max = options->common.k_max };
    remote->out->hello.model.name = remote->name;
    remote->out->hello.key = remote->key;
    (void)remote_link_send(remote); /* the first message fits */
    remote->out->type = RPC_PING;
    (void)remote_link_send(remote);
    remote->ping_ns = clock_now_ns();
}

static void connect_again(struct remote *remote)
{
    remote->was_refused = false;
    if (remote->n_calls++ > 0) {
        rpc_address_turn(&remote->address); /* a name may stand for a place where nobody listens */
    }
    if (rpc_peer_connect(remote->peer, &remote->address) != STATUS_OK) {
        remote_link_lose(remote, status_message());
        return;
    }
    remote->state = REMOTE_GREETING;
    remote->since_ns = clock_now_ns();
    say_hello(remote);
    remote_link_flush(remote);
}

/* ---- hearing ---- */
static bool has_same_vocabulary(const struct remote *remote, const struct rpc_model *worker)
{
    const struct draft_remote_options *own = &remote->options;
    return worker->vocab_digest == own->vocab_digest &&
           (own->vocab_digest != 0 || worker->n_vocab == own->common.n_vocab);
}

static void refuse(struct remote *remote, const char *why)
{
    remote->was_refused = true;
    remote_link_lose(remote, why);
}

static void take_welcome(struct remote *remote, const struct rpc_model *worker)
{
    if (remote->state != REMOTE_GREETING) {
        remote_link_lose(remote, "a second welcome");
        return;
    }
    if (!has_same_vocabulary(remote, worker)) {
        (void)status_fail(STATUS_INVALID, "the draft %.60s has another vocabulary: digest %016llx, %d ids; the "
            "target's: %016llx, %d ids (fingerprints %016llx and %016llx)", worker->name.bytes,
            (unsigned long long)worker->vocab_digest, worker->n_vocab,
            (unsigned long long)remote->options.vocab_digest, remote->options.common.n_vocab,
            (unsigned long long)worker->fingerprint, (unsigned long long)remote->options.fingerprint);
        refuse(remote, status_message());
        return;
    }
    remote->worker = *worker;
    remote->state = REMOTE_READY;
    remote->report.links++;
    remote->n_late = 0;
    remote->since_ns = 0;
    if (remote->has_complained) {
        log_info("draft worker %s: %s is there again", remote->address.text, worker->name.bytes);
        remote->has_complained = false;
    }
}

static void take_error(struct remote *remote, const struct rpc_error *error)
{
    if (error->code == RPC_ERROR_KEY || error->code == RPC_ERROR_VOCABULARY) {
        refuse(remote, error->text.bytes);
    } else {
        remote_link_lose(remote, error->text.bytes);
    }
}

static void take_pong(struct remote *remote, int64_t now_ns)
{
    const int64_t ns = now_ns - remote->ping_ns;
    if (remote->ping_ns > 0 && (remote->round_trip_ns == 0 || ns < remote->round_trip_ns)) {
        remote->round_trip_ns = ns;
    }
    remote->ping_ns = 0;
}

static void take(struct remote *remote, const struct rpc_message *message, int64_t now_ns)
{
    if (remote->state == REMOTE_GREETING && message->type != RPC_WELCOME && message->type != RPC_ERROR) {
        remote_link_lose(remote, "expected a welcome first");
        return;
    }
    remote->since_ns = remote->state == REMOTE_READY ? 0 : remote->since_ns;
    switch (message->type) {
    case RPC_WELCOME: take_welcome(remote, &message->welcome); return;
    case RPC_TABLE: remote_take_table(remote, &message->table); return;
    case RPC_CANCEL: remote_take_cancel(remote, message->cancel); return;
    case RPC_ERROR: take_error(remote, &message->error); return;
    case RPC_PONG: take_pong(remote, now_ns); return;
    case RPC_PING:
        remote->out->type = RPC_PONG;
        remote->out->id = message->id;
        (void)remote_link_send(remote);
        return;
    case RPC_HELLO:
    case RPC_OPEN:
    case RPC_APPEND:
    case RPC_ROUND:
    case RPC_OUTCOME: break;
    }
    remote_link_lose(remote, "it said what only a target says");
}

static void take_all(struct remote *remote, int64_t now_ns)
{
    while (remote->state != REMOTE_APART) {
        const enum status status = rpc_peer_next(remote->peer, remote->in);
        if (status == STATUS_REFUSED) {
            return;
        }
        if (status != STATUS_OK) {
            remote_link_lose(remote, status_message());
            return;
        }
        take(remote, remote->in, now_ns);
    }
}

void remote_link_turn(struct remote *remote)
{
    const int64_t now_ns = clock_now_ns();
    if (remote->state == REMOTE_APART) {
        if (now_ns >= remote->retry_ns) {
            connect_again(remote);
        }
        return;
    }
    char lost[RPC_MAX_TEXT_BYTES + 1] = "";
    if (rpc_peer_fill(remote->peer) != STATUS_OK) {
        strncpy(lost, status_message(), RPC_MAX_TEXT_BYTES);
    }
    take_all(remote, now_ns); /* what it said before it was lost */
    if (remote->state != REMOTE_APART && lost[0] != '\0') {
        remote_link_lose(remote, lost);
    }
    if (remote->state == REMOTE_GREETING && now_ns - remote->since_ns > GREETING_NS) {
        remote_link_lose(remote, "no welcome within 2 seconds");
    }
    if (remote->state == REMOTE_READY && remote->since_ns > 0 && now_ns - remote->since_ns > SILENCE_NS) {
        remote_link_lose(remote, "it takes rounds and says nothing");
    }
    remote_link_flush(remote);
}

/* ---- waiting ---- */
void remote_link_time_answer(struct remote *remote, int64_t ns)
{
    remote->n_late -= remote->n_late > 0; /* late, but there */
    remote->answer_ns = remote->answer_ns > 0 ? remote->answer_ns + (ns - remote->answer_ns) / 8 : ns;
}

int64_t remote_link_patience_ns(struct remote *remote)
{
    if (remote->n_late >= MAX_LATE) {
        return 0;
    }
    if (remote->options.wait_ns >= 0) {
        return remote->options.wait_ns;
    }
    if (remote->answer_ns >= MAX_PATIENCE_NS) { /* it would be in vain; but times change: some day again */
        remote->answer_ns -= remote->answer_ns / 32;
        return 0;
    }
    const int64_t usual_ns = remote->answer_ns > remote->round_trip_ns ? remote->answer_ns : remote->round_trip_ns;
    const int64_t ns = 2 * usual_ns + SPARE_NS;
    /* What it may bring are some passes saved: one is the most that is put in. */
    const int64_t most_ns = remote->verify_ns < MAX_PATIENCE_NS ? remote->verify_ns : MAX_PATIENCE_NS;
    return ns < most_ns ? ns : most_ns;
}
