#!/bin/sh
# Ranks as processes that the environment alone tells of each other (RANK, WORLD_SIZE, MASTER_ADDR): the digest is that
# of one process, and what goes wrong on one of them ends all with one sentence. No MPI is needed.
# usage: tests/test_launch.sh PROGRAM      from the root of the tree
. tests/cases.sh

# together COUNT ARGUMENTS...: so many processes; rank 0's output and errors as run_it, the others' errors in $dir/err.R
together() {
    count=$1
    shift
    for port in $((20000 + $$ % 20000)) $((20001 + $$ % 20000)) $((20002 + $$ % 20000)); do
        rank=$((count - 1))
        pids=
        while [ "$rank" -gt 0 ]; do
            RANK=$rank WORLD_SIZE=$count LOCAL_RANK=$rank MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
                timeout -k 5 60 "$tandem" "$@" >"$dir/out.$rank" 2>"$dir/err.$rank" </dev/null &
            pids="$pids $!"
            rank=$((rank - 1))
        done
        RANK=0 WORLD_SIZE=$count LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
            timeout -k 5 60 "$tandem" "$@" >"$dir/out" 2>"$dir/err" </dev/null
        code=$?
        # Whoever cannot listen leaves the others waiting for a minute.
        if grep -q 'cannot listen' "$dir/err"; then
            # shellcheck disable=SC2086 # words
            kill $pids
            wait
            continue
        fi
        # shellcheck disable=SC2086
        wait $pids
        return $code
    done
}
same_digest() {
    count=$1
    shift
    run_it 0 run --json --quiet --ignore-eos -n 16 --ids 1,5,9,2,7,5,9,2,7 "$@" || return 1
    expected=$(field logits_digest "$dir/out")
    [ -n "$expected" ] || return 1
    together "$count" run --json --quiet --ignore-eos -n 16 --ids 1,5,9,2,7,5,9,2,7 "$@" || return 1
    found=$(field logits_digest "$dir/out")
    [ "$(wc -l <"$dir/out")" -eq 1 ] && [ ! -s "$dir/out.1" ] || { echo "    not one line"; return 1; }
    [ "$found" = "$expected" ] || { echo "    $count ranks: $found, one process: $expected"; return 1; }
}
check "two processes, told by the environment" same_digest 2 -m synth:tiny-256,q8_0,seed=2 -d suffix --k 3
check "four" same_digest 4 -m synth:smol-135m,q8_0,layers=1,vocab=400,seed=2 -d none

# refused PATTERN COUNT ARGUMENTS...
refused() {
    pattern=$1
    shift
    if together "$@"; then return 1; fi
    err_has "^tandem: .*$pattern" && [ "$(cat "$dir/err" "$dir/err.1" | grep -c '^tandem: ')" -eq 1 ]
}
check "a model that is not there is said once" refused 'No such file' 2 run -m /no/such.gguf --ids 1
check "so is a GPU that is not there" refused 'cuda' 2 run -m synth:tiny,q8_0 --ids 1 --target-device cuda:70,71
exit $failed
