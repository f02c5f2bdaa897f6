#!/bin/sh
# The verb draft-worker as people meet it: targets with --draft of its address write the same text, with
# a key, two at once, after it was killed; what does not belong is refused; signals end it cleanly.
# usage: tests/test_draft_worker.sh PROGRAM      from the root of the tree
. tests/cases.sh
model=models/stories-draft.gguf
story="Once upon a time there was a little girl"
worker=
stop_worker() { [ -z "$worker" ] || kill "$1" "$worker" 2>/dev/null; }
trap 'stop_worker -KILL; rm -rf "$dir"' EXIT

# begin_worker ADDRESS OPTIONS...: returns once it listens; $where is what it says it listens on
begin_worker() {
    address=$1
    shift
    rm -f "$dir/worker" # of the one before
    "$tandem" draft-worker --model "$model" --listen "$address" --threads 1 "$@" >"$dir/worker" 2>&1 &
    worker=$!
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        where=$(sed -n 's/.*listening on //p' "$dir/worker" 2>/dev/null)
        [ -n "$where" ] && return 0
        sleep 0.2
    done
    cp "$dir/worker" "$dir/err"
    return 1
}
# ended SIGNAL CODE: the worker ends so
ended() {
    stop_worker "$1"
    wait "$worker" 2>/dev/null
    code=$?
    worker=
    [ "$code" -eq "$2" ]
}
writes() { run_it 0 run -p "$story" -n 60 --threads 1 "$@" --json; }
plain() { writes --draft none -t "$1" -s 3 && plain_digest=$(field logits_digest "$dir/out"); }
same_text() { [ "$(field logits_digest "$dir/out")" = "$plain_digest" ]; }
hits() { sed -n 's/.*"ahead":{"hits":\([0-9]*\).*/\1/p' "$dir/out"; }

# The whole text takes milliseconds: the first ones are over before a new worker is at its full speed.
hits_come() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        writes --k 4 "$@" && same_text || return 1
        [ "$(hits)" -gt 0 ] && return 0
    done
    return 1
}

check "a worker needs a model and an address" run_it 2 draft-worker
check "no such address" run_it 1 draft-worker --model "$model" --listen udp:1
open_to_all() { run_it 1 draft-worker --model "$model" --listen tcp:0.0.0.0:0 && err_has 'give a key'; }
check "an address of other machines needs a key" open_to_all
bad_wait() { run_it 2 run -p a --draft tcp:1 --draft-wait soon && err_has "found 'soon'"; }
check "a wait that is none" bad_wait

over_path() {
    begin_worker "unix:$dir/socket" --draft-device cpu || return 1
    for temperature in 0 0.9; do
        plain $temperature && hits_come --draft "unix:$dir/socket" -t $temperature -s 3 &&
            writes --draft "unix:$dir/socket" -t $temperature -s 3 && same_text || return 1
    done
}
check "over a path: the same text, and hits" over_path
no_wait() { writes --draft "unix:$dir/socket" --k 4 --draft-wait 0 -t 0.9 -s 3 && same_text; }
check "nothing is waited for: the same text" no_wait
two_targets() {
    "$tandem" run -p "$story" -n 60 --threads 1 --draft "unix:$dir/socket" --k 3 -t 0.9 -s 3 --json \
        >"$dir/other" 2>"$dir/other_err" &
    other=$!
    writes --draft "unix:$dir/socket" --k 4 -t 0.9 -s 3 && same_text && wait "$other" &&
        [ "$(field logits_digest "$dir/other")" = "$plain_digest" ]
}
check "two targets at once: the same text" two_targets
digests() { sed 's/.*"id":\([0-9]*\).*"logits_digest":"\([0-9a-f]*\)".*/\1 \2/' "$dir/out" | sort; }
many() {
    for i in 1 2 3 4 5 6; do echo "{\"id\":$i,\"prompt\":\"$story\",\"seed\":$i,\"temperature\":0.8,\"max_tokens\":40}"; done \
        >"$dir/lines"
    run_it 0 batch "$dir/lines" --threads 1 --draft none && digests >"$dir/alone" && [ -s "$dir/alone" ] &&
        run_it 0 batch "$dir/lines" --threads 1 --draft "unix:$dir/socket" --k 4 && digests | cmp - "$dir/alone"
}
check "a batch: the same texts" many
no_rejection() { run_it 1 run -p a --draft "unix:$dir/socket" --verify rejection && err_has 'no probabilities'; }
check "the rejection rule is refused" no_rejection
other_words() { run_it 1 run --ids 1,2 -m synth:tiny,q8_0 --draft "unix:$dir/socket" && err_has 'fingerprints'; }
check "another vocabulary is refused, with both fingerprints" other_words
second_one() { run_it 1 draft-worker --model "$model" --listen "unix:$dir/socket" && err_has 'another program does'; }
check "one worker an address" second_one

killed() {
    "$tandem" run -p "$story" -n 200 --threads 1 --draft "unix:$dir/socket" --k 4 -t 0.9 -s 3 --json >"$dir/out" \
        2>"$dir/err" &
    run=$!
    sleep 0.15
    ended -KILL 137
    wait "$run" && [ -n "$(field logits_digest "$dir/out")" ] && cp "$dir/out" "$dir/killed" &&
        run_it 0 run -p "$story" -n 200 --threads 1 --draft none -t 0.9 -s 3 --json &&
        [ "$(field logits_digest "$dir/out")" = "$(field logits_digest "$dir/killed")" ]
}
check "killed in the middle: the same text" killed
nobody() { writes --draft "unix:$dir/socket" --k 4 -t 0.9 -s 3 && same_text && err_has 'going on without it'; }
check "nobody there: the same text, and a line that says so" nobody

over_port() {
    echo "open sesame" >"$dir/key"
    begin_worker tcp:0 --draft-key-file "$dir/key" || return 1
    case $where in tcp:127.0.0.1:*) ;; *) return 1 ;; esac
    run_it 1 run -p a --draft "$where" && err_has 'asks for a key' || return 1
    plain 0.9 && hits_come --draft "$where" --draft-key-file "$dir/key" -t 0.9 -s 3
}
check "over a port of this machine, with a key" over_port
by_name() { hits_come --draft "tcp:localhost:${where##*:}" --draft-key-file "$dir/key" -t 0.9 -s 3; }
check "by a name that may stand for two addresses" by_name
check "SIGTERM ends it cleanly" ended -TERM 0
said() { grep -Eq 'ends after ([2-9]|[1-4][0-9]) targets' "$dir/worker"; }
check "and it says what it did" said
exit $failed
