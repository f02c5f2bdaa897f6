/* A draft worker and targets that say what no sound target says, or say it at a bad moment: each is heard,
 * refused or put out by itself, and the others are served. Targets are bare peers here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/remote_rig.h"
#include "tests/rpc_messages.h"
#include "tests/sim.h"

enum { SOON_MS = 300, PROMPT = 5 };

static struct rpc_message in, out;

/* ---- a bare target ---- */
static struct rpc_peer *call(struct remote_rig *rig)
{
    struct rpc_address address;
    struct rpc_peer *peer;
    assert_int_equal(rpc_address_parse(remote_rig_address(rig), &address), STATUS_OK);
    assert_int_equal(rpc_peer_create(1 << 20, &peer), STATUS_OK);
    assert_int_equal(rpc_peer_connect(peer, &address), STATUS_OK);
    return peer;
}

static void say(struct rpc_peer *peer)
{
    assert_int_equal(rpc_peer_send(peer, &out), STATUS_OK);
    (void)rpc_peer_flush(peer);
}

/* The next message within ms, or what became of the line. */
static enum status hear(struct rpc_peer *peer, int ms)
{
    const int64_t end_ns = clock_now_ns() + (int64_t)ms * 1000000;
    for (;;) {
        const enum status filled = rpc_peer_fill(peer);
        const enum status status = rpc_peer_next(peer, &in);
        if (status != STATUS_REFUSED) {
            return status;
        }
        if (filled != STATUS_OK || clock_now_ns() >= end_ns) {
            return filled;
        }
        rpc_wait(peer, end_ns - clock_now_ns());
    }
}

static void assert_heard(struct rpc_peer *peer, enum rpc_type type)
{
    in.type = RPC_PING;
    assert_int_equal(hear(peer, 5000), STATUS_OK);
    if (in.type != type) {
        fail_msg("expected %s, heard %s: %s", rpc_type_name(type), rpc_type_name(in.type),
                 in.type == RPC_ERROR ? in.error.text.bytes : "");
    }
}

/* The worker says why, and hangs up. */
static void assert_put_out(struct rpc_peer *peer, const char *words)
{
    assert_heard(peer, RPC_ERROR);
    if (strstr(in.error.text.bytes, words) == NULL) {
        fail_msg("expected '%s' in: %s", words, in.error.text.bytes);
    }
    in.type = RPC_PING;
    for (int i = 0; i < 100 && hear(peer, 50) == STATUS_OK; i++) {
        assert_int_not_equal(i, 99);
    }
    rpc_peer_destroy(peer);
}

static struct rpc_peer *greet(struct remote_rig *rig)
{
    struct rpc_peer *peer = call(rig);
    memset(&out, 0, sizeof out);
    out.type = RPC_HELLO;
    out.hello.model = (struct rpc_model){ .n_vocab = SIM_VOCAB, .context = 128, .n_sequences = 4, .k_max = 8 };
    rpc_text_set(&out.hello.model.name, "bare");
    say(peer);
    assert_heard(peer, RPC_WELCOME);
    return peer;
}

static void make_open(uint64_t id)
{
    memset(&out, 0, sizeof out);
    out.type = RPC_OPEN;
    out.open.sequence.id = id;
    out.open.n_prompt = PROMPT;
    sampling_params_defaults(&out.open.params);
    out.open.params.biases = out.open.biases;
    out.open.tokens.n = PROMPT;
    for (int32_t i = 0; i < PROMPT; i++) {
        out.open.tokens.id[i] = 3 + i;
    }
}

static void make_round(uint64_t id, int32_t first, int32_t n_proposed)
{
    memset(&out, 0, sizeof out);
    out.type = RPC_ROUND;
    out.round.sequence.id = id;
    out.round.first = first;
    out.round.k_next = 6;
    out.round.tokens.n = 1;
    out.round.tokens.id[0] = 9;
    out.round.n_proposed = n_proposed;
}

static void say_round(struct rpc_peer *peer, uint64_t id, int32_t first)
{
    make_round(id, first, 2);
    say(peer);
}

static void say_outcome(struct rpc_peer *peer, uint64_t id, int32_t n_tokens, int32_t k)
{
    memset(&out, 0, sizeof out);
    out.type = RPC_OUTCOME;
    out.outcome = (struct rpc_outcome){ { id, 0 }, n_tokens, k, 7 };
    say(peer);
}

static void say_cancel(struct rpc_peer *peer, uint64_t id)
{
    memset(&out, 0, sizeof out);
    out.type = RPC_CANCEL;
    out.cancel.id = id;
    say(peer);
}

/* A round of sequence `id` from the beginning gets its table. */
static void assert_served(struct rpc_peer *peer, uint64_t id)
{
    make_open(id);
    say(peer);
    say_round(peer, id, PROMPT);
    assert_heard(peer, RPC_TABLE);
    assert_int_equal(in.table.sequence.id, id);
    assert_int_equal(in.table.n_tokens, PROMPT + 1);
    assert_int_equal(in.table.n_proposed, 2);
    assert_int_equal(in.table.n_branches, 3);
    assert_int_equal(in.table.branch[0].n, 6);
}

static struct remote_rig *open_rig(int32_t max_batch, int32_t step_us)
{
    struct remote_rig *rig;
    remote_rig_open(&(struct remote_rig_options){ .oracle = { .n_candidates = 1, .step_us = step_us, .seed = 1 },
                                                  .max_batch = max_batch, .max_targets = 3 }, &rig);
    return rig;
}

/* ---- what is not said ---- */
static void a_hello_comes_first_and_once(void **state)
{
    (void)state;
    struct remote_rig *rig = open_rig(4, 0);
    struct rpc_peer *peer = call(rig);
    say_round(peer, 1, PROMPT);
    assert_put_out(peer, "expected a hello");
    peer = greet(rig);
    out.type = RPC_HELLO;
    out.hello.model = (struct rpc_model){ .n_vocab = SIM_VOCAB, .context = 128, .k_max = 8 };
    say(peer);
    assert_put_out(peer, "expected one hello");
    peer = greet(rig);
    memset(&out, 0, sizeof out);
    out.type = RPC_TABLE;
    out.table.n_tokens = 1;
    say(peer);
    assert_put_out(peer, "what a worker does");
    remote_rig_close(rig);
}

static void what_is_out_of_range_ends_the_line(void **state)
{
    (void)state;
    struct remote_rig *rig = open_rig(4, 0);
    struct rpc_peer *other = greet(rig);
    for (int kind = 0; kind < 5; kind++) {
        struct rpc_peer *peer = greet(rig);
        make_open(1);
        out.open.tokens.id[2] = kind == 0 ? SIM_VOCAB : 3;
        out.open.params.temperature = kind == 1 ? -1.0f : 0;
        out.open.params.n_biases = kind == 2;
        out.open.biases[0].id = SIM_VOCAB;
        say(peer);
        if (kind == 3) {
            say(peer); /* twice */
        }
        if (kind == 4) {
            make_round(1, PROMPT, 1);
            out.round.proposed[0] = SIM_VOCAB + 5;
            say(peer);
        }
        assert_put_out(peer, kind == 3 ? "found one that is open" : kind == 4 ? "ids of the vocabulary in round"
                                                                                : "ids of the vocabulary and parameters");
    }
    assert_served(other, 1); /* whose places came to nothing */
    rpc_peer_destroy(other);
    remote_rig_close(rig);
}

static void bytes_that_are_no_message(void **state)
{
    (void)state;
    static const uint8_t version[] = { 0, 0, 0, 4, 0x93, 9, 9, 0 }, type[] = { 0, 0, 0, 4, 0x93, 1, 77, 0 };
    static const uint8_t huge[] = { 0x7f, 0, 0, 0, 1 };
    static const struct { const uint8_t *bytes; size_t n; const char *words; } cases[] = {
        { version, sizeof version, "expected rpc version 1, found 9" },
        { type, sizeof type, "no message of type 77" },
        { huge, sizeof huge, "found a length of" },
    };
    struct remote_rig *rig = open_rig(4, 0);
    struct rpc_peer *other = greet(rig);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rpc_peer *peer = greet(rig);
        assert_int_equal(write(rpc_peer_fd(peer), cases[i].bytes, cases[i].n), cases[i].n);
        assert_put_out(peer, cases[i].words);
    }
    assert_served(other, 1);
    rpc_peer_destroy(other);
    remote_rig_close(rig);
}

/* ---- what comes late, twice, or out of step ---- */
static void what_is_out_of_step_begins_again(void **state)
{
    (void)state;
    struct remote_rig *rig = open_rig(4, 0);
    struct rpc_peer *peer = greet(rig);
    say_round(peer, 77, 3);            /* of no sequence */
    say_outcome(peer, 77, 4, 0);
    say_cancel(peer, 77);
    assert_served(peer, 1);
    say_outcome(peer, 1, PROMPT + 1, 2); /* after its table: nothing to say */
    say_outcome(peer, 1, PROMPT + 1, 1); /* and another */
    say_outcome(peer, 1, PROMPT + 9, 0); /* of a round that never was */
    say_round(peer, 1, PROMPT + 3);      /* leaves a gap */
    assert_heard(peer, RPC_CANCEL);
    assert_int_equal(in.cancel.id, 1);
    assert_served(peer, 1);
    say_round(peer, 1, PROMPT - 1);      /* goes back */
    assert_heard(peer, RPC_CANCEL);
    assert_served(peer, 1);
    assert_int_equal(remote_rig_report(rig).n_connected, 1);
    rpc_peer_destroy(peer);
    remote_rig_close(rig);
}

/* A place that was left is there for the next in the same breath. */
static void places_change_hands_at_once(void **state)
{
    (void)state;
    struct remote_rig *rig = open_rig(1, 0);
    struct rpc_peer *peer = greet(rig);
    assert_served(peer, 1);
    const int64_t begin_ns = clock_now_ns();
    for (uint64_t id = 2; id < 12; id++) {
        memset(&out, 0, sizeof out);
        out.type = RPC_CANCEL;
        out.cancel.id = id - 1;
        assert_int_equal(rpc_peer_send(peer, &out), STATUS_OK); /* goes out with what follows */
        assert_served(peer, id);
    }
    assert_true(clock_now_ns() - begin_ns < 10 * (int64_t)SOON_MS * 1000000);
    make_open(50); /* one too many */
    say(peer);
    assert_heard(peer, RPC_CANCEL);
    assert_int_equal(in.cancel.id, 50);
    usleep(1100000); /* the place was not used for a second: whoever wants it gets it */
    make_open(51);
    say(peer);
    assert_heard(peer, RPC_CANCEL);
    assert_int_equal(in.cancel.id, 11);
    say_round(peer, 51, PROMPT);
    assert_heard(peer, RPC_TABLE);
    assert_int_equal(remote_rig_report(rig).evicted, 1);
    rpc_peer_destroy(peer);
    remote_rig_close(rig);
}

/* ---- outcomes while it grows ---- */
static void an_outcome_is_answered_at_once(void **state)
{
    (void)state;
    struct remote_rig *rig = open_rig(4, 100000); /* six steps take 0.6 s */
    struct rpc_peer *peer = greet(rig);
    make_open(1);
    say(peer);
    say_round(peer, 1, PROMPT);
    usleep(150000);
    const int64_t begin_ns = clock_now_ns();
    say_outcome(peer, 1, PROMPT + 1, 0);
    assert_heard(peer, RPC_TABLE);
    assert_true(clock_now_ns() - begin_ns < 250000000);
    assert_true(in.table.n_branches <= 1); /* its own, if that was prepared */
    say_round(peer, 1, PROMPT + 1);        /* the next goes on with it */
    assert_heard(peer, RPC_TABLE);
    assert_int_equal(in.table.n_tokens, PROMPT + 2);
    assert_int_equal(remote_rig_report(rig).stopped_batches, 1);
    rpc_peer_destroy(peer);
    remote_rig_close(rig);
}

/* One target's outcomes come faster than anything grows; the other's round is grown all the same. */
static void a_quick_target_does_not_starve_a_slow_one(void **state)
{
    (void)state;
    struct remote_rig *rig = open_rig(4, 20000);
    struct rpc_peer *quick = greet(rig), *slow = greet(rig);
    int32_t n = PROMPT, n_heard = 0;
    make_open(1);
    say(quick);
    say(slow);
    say_round(quick, 1, n++);
    usleep(30000);                /* that is being grown: */
    say_round(slow, 1, PROMPT);   /* this waits, and will share its job with quick's next */
    say_outcome(quick, 1, n, 0);
    enum status status = STATUS_OK;
    bool is_grown = false;
    for (int i = 0; i < 60 && !is_grown && status == STATUS_OK; i++) {
        say_round(quick, 1, n++);
        usleep(30000);
        say_outcome(quick, 1, n, 0);
        while ((status = hear(quick, 0)) == STATUS_OK && in.type == RPC_TABLE) {
            n_heard++;
            in.type = RPC_PING;
        }
        in.type = RPC_PING;
        while (!is_grown && (status = hear(slow, 0)) == STATUS_OK && in.type == RPC_TABLE) {
            is_grown = in.table.n_branches > 0 && in.table.branch[0].n == 6;
            in.type = RPC_PING;
        }
        in.type = RPC_PING;
    }
    assert_true(is_grown);
    assert_true(n_heard > 0);
    assert_true(remote_rig_report(rig).stopped_batches > 0);
    rpc_peer_destroy(quick);
    rpc_peer_destroy(slow);
    remote_rig_close(rig);
}

/* ---- limits ---- */
static void who_does_not_read_is_hung_up_on(void **state)
{
    (void)state;
    struct remote_rig *rig = open_rig(4, 0);
    struct rpc_peer *deaf = greet(rig), *other = greet(rig);
    out.type = RPC_PING;
    bool is_put_out = false;
    for (int i = 0; i < 400000 && !is_put_out; i++) {
        is_put_out = rpc_peer_send(deaf, &out) != STATUS_OK && rpc_peer_flush(deaf) != STATUS_OK;
        if (i % 1000 == 0) {
            is_put_out |= rpc_peer_flush(deaf) != STATUS_OK;
            usleep(2000);
        }
    }
    assert_true(is_put_out);
    assert_served(other, 1);
    rpc_peer_destroy(deaf);
    rpc_peer_destroy(other);
    remote_rig_close(rig);
}

static void one_target_too_many_is_sent_away(void **state)
{
    (void)state;
    struct remote_rig *rig = open_rig(4, 0);
    struct rpc_peer *peers[3] = { greet(rig), greet(rig), greet(rig) };
    struct rpc_peer *fourth = call(rig);
    assert_int_equal(hear(fourth, 2000), STATUS_IO);
    rpc_peer_destroy(fourth);
    rpc_peer_destroy(peers[1]);
    usleep(100000);
    peers[1] = greet(rig);
    for (uint64_t i = 0; i < 3; i++) {
        assert_served(peers[i], 1); /* the same id: each its own */
        rpc_peer_destroy(peers[i]);
    }
    remote_rig_close(rig);
}

static void refusals_of_a_worker(void **state)
{
    (void)state;
    struct draft_worker *worker;
    struct draft_worker_options options = { .listen = "tcp:0.0.0.0:0", .name = "x", .n_vocab = 10, .context = 20,
                                            .max_batch = 2, .k_max = 4, .max_budget = 8 };
    assert_int_equal(draft_worker_open(&options, &worker), STATUS_INVALID);
    assert_non_null(strstr(status_message(), "give a key"));
    options.is_open_to_all = true;
    assert_int_equal(draft_worker_open(&options, &worker), STATUS_OK);
    draft_worker_close(worker);
    options.listen = "tcp:0";
    options.max_batch = 5000;
    assert_int_equal(draft_worker_open(&options, &worker), STATUS_INVALID);
    options.max_batch = 2;
    options.k_max = 17;
    assert_int_equal(draft_worker_open(&options, &worker), STATUS_INVALID);
    options.k_max = 4;
    int n_failed = 0;
    for (uint64_t n = 1; n < 200; n++) {
        mem_fail_at(n);
        const enum status status = draft_worker_open(&options, &worker);
        mem_fail_at(0);
        if (status == STATUS_OK) {
            draft_worker_close(worker);
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        n_failed++;
    }
    assert_true(n_failed > 20 && n_failed < 199);
}

int main(void)
{
    log_set_level(LOG_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hello_comes_first_and_once),
        cmocka_unit_test(what_is_out_of_range_ends_the_line),
        cmocka_unit_test(bytes_that_are_no_message),
        cmocka_unit_test(what_is_out_of_step_begins_again),
        cmocka_unit_test(places_change_hands_at_once),
        cmocka_unit_test(an_outcome_is_answered_at_once),
        cmocka_unit_test(a_quick_target_does_not_starve_a_slow_one),
        cmocka_unit_test(who_does_not_read_is_hung_up_on),
        cmocka_unit_test(one_target_too_many_is_sent_away),
        cmocka_unit_test(refusals_of_a_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
