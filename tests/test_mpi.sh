#!/bin/sh
# Ranks as processes: under mpirun every run has the digest that one process gives, and what goes wrong on
# one rank ends all of them with one sentence. Short here; `make test-mpi` runs more of it.
# usage: tests/test_mpi.sh PROGRAM      from the root of the tree
. tests/cases.sh
single=$tandem
ranked=build/mpi/tandem
case $single in
*/release/* | */mpi/*) ;;
*)
    echo "ok - ranks under mpirun # SKIP the release build runs them; ranks as threads run everywhere"
    exit 0
    ;;
esac
if ! command -v mpirun >/dev/null || [ ! -x "$ranked" ]; then
    echo "ok - ranks under mpirun # SKIP no Open MPI: make deps-mpi"
    exit 0
fi
# Open MPI has its own say on root, on few cores, and on where temporary files go.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export TMPDIR="$dir"

# on N ARGUMENTS...: the program on N ranks; output and errors as run_it
on() {
    n=$1
    shift
    timeout -k 5 60 mpirun --oversubscribe --bind-to none -n "$n" "$ranked" "$@" >"$dir/out" 2>"$dir/err" </dev/null
}
# same_digest "COUNTS" ARGUMENTS...: one process and groups of that many ranks agree
same_digest() {
    counts=$1
    shift
    run_it 0 run --json --quiet --ignore-eos -n 24 --ids 1,5,9,2,7,5,9,2,7,5,9,2,11,30,5,9,2 "$@" || return 1
    expected=$(field logits_digest "$dir/out")
    [ -n "$expected" ] || return 1
    for count in $counts; do
        on "$count" run --json --quiet --ignore-eos -n 24 --ids 1,5,9,2,7,5,9,2,7,5,9,2,11,30,5,9,2 "$@" || return 1
        found=$(field logits_digest "$dir/out")
        [ "$(wc -l <"$dir/out")" -eq 1 ] || { echo "    not one line from $count ranks"; return 1; }
        [ "$found" = "$expected" ] || { echo "    $count ranks: $found, one process: $expected"; return 1; }
    done
}

smol=synth:smol-135m,q8_0,layers=2,vocab=1000,seed=2
check "heads that groups cut" same_digest "2 4" -m models/stories15M.Q8_0.gguf -d none
check "uneven heads, guesses, a prompt in chunks" same_digest "4" -m $smol -d suffix --k 4 --prefill-chunk 5

logits_agree() {
    run_it 0 logits -m $smol --ids 1,5,9,2 --out "$dir/one.f32" --quiet &&
        on 2 logits -m $smol --ids 1,5,9,2 --out "$dir/two.f32" --quiet && cmp "$dir/one.f32" "$dir/two.f32"
}
check "logits are the same bytes" logits_agree

one_sentence() { [ "$(grep -c '^tandem: ' "$dir/err")" -eq 1 ]; }
refused() {
    pattern=$1 count=$2
    shift 2
    if on "$count" "$@"; then return 1; fi
    err_has "^tandem: .*$pattern" && one_sentence
}
check "experts, dealt out" same_digest "2" -m synth:tiny-moe,q8_0,seed=4 -d none
check "so is a count that groups do not divide into" refused 'found 3' 3 run -m $smol --ids 1
check "a wrong option is said once" refused 'no option' 2 run --no-such-option
check "and a file that is not there" refused 'No such file' 2 run -m /no/such.gguf --ids 1

# gone PID: within seconds; one that nobody has waited for yet is
gone() {
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        case $(ps -o stat= -p "$1") in '' | Z*) return 0 ;; esac
        sleep 0.5
    done
    return 1
}
# killed first|last: that process of a run that would take minutes; all end, and soon
killed() {
    on 2 run -m synth:smol-135m,q8_0,layers=4 --ids 1 -n 100000 --ignore-eos --context 8192 -d none --trace "$dir/$1" &
    waiting=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 0.5
        pids=$(ps -eo pid=,args= | awk -v mark="--trace $dir/$1" 'index($0, mark) && !/mpirun|timeout|awk/ { print $1 }')
        [ "$(echo "$pids" | wc -w)" -eq 2 ] && break
    done
    sleep 1
    # shellcheck disable=SC2086 # words
    set -- "$1" $pids
    [ $# -eq 3 ] || return 1
    kill -9 "$([ "$1" = first ] && echo "$2" || echo "$3")"
    if wait $waiting; then return 1; fi
    gone "$2" && gone "$3"
}
if command -v ps >/dev/null; then
    check "a rank that dies ends all" killed last
else
    echo "ok - a rank that dies ends all # SKIP no program 'ps'"
fi
[ -n "${TANDEM_TEST_FULL:-}" ] || exit $failed

# ---- make test-mpi ----
check "rank 0 that dies ends all" killed first
tiny=synth:tiny-256,q4_k,seed=3
check "eight ranks" same_digest "8" -m $smol -d suffix --k 4
check "ranks that own nothing of a layer" same_digest "2 4 8" -m synth:tiny,q4_0,seed=1 -d none
check "a model draft" same_digest "2 4" -m synth:pair=tiny-256,q8_0,agree=0.7,seed=3 -d auto --k 4
check "one that works ahead" same_digest "2 4" -m synth:pair=tiny-256,q8_0,agree=0.7,seed=3 -d auto --k 4 --ahead on
check "the target's own first layers" same_digest "2 4" -m $tiny -d layerskip:1 --k 3
check "as many guesses as pay" same_digest "2 4" -m models/stories15M.Q8_0.gguf -d auto
check "a seed and a temperature" same_digest "2 4" -m models/stories15M.Q8_0.gguf -d none -t 0.8 -s 7
check "two threads a rank" same_digest "2 4" -m $smol --threads 2 -d none
check "weights converted while loading" same_digest "2 4" -m synth:tiny-256,f16,seed=3 --quant q6_k -d none
for folder in "${TANDEM_SHARED:-../shared/data}"/golden/models/*/; do
    [ -f "$folder/config.json" ] || continue
    name=$(basename "$folder")
    check "$name" same_digest "2 4" -m "$folder" -d none
done
batch_agrees() {
    for i in 1 2 3 4 5 6; do
        echo "{\"id\":\"$i\",\"ids\":[1,$i,7,9,$i],\"max_tokens\":12,\"seed\":$i,\"temperature\":0.7}"
    done >"$dir/batch.jsonl"
    run_it 0 batch "$dir/batch.jsonl" -m $smol --max-batch 4 --quiet || return 1
    grep -o '"id":"[^"]*"\|"logits_digest":"[^"]*"' "$dir/out" | sort >"$dir/one"
    on 4 batch "$dir/batch.jsonl" -m $smol --max-batch 4 --quiet || return 1
    grep -o '"id":"[^"]*"\|"logits_digest":"[^"]*"' "$dir/out" | sort >"$dir/four"
    [ "$(wc -l <"$dir/one")" -eq 12 ] && cmp "$dir/one" "$dir/four"
}
check "a batch" batch_agrees
exit $failed
