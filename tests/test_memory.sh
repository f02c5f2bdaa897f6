#!/bin/sh
# What a run takes of memory, as the system counts it for the whole process, and what a person sees while
# a model loads.
# usage: tests/test_memory.sh PROGRAM      from the root of the tree
. tests/cases.sh
case $tandem in
*/release/*) ;;
*)
    echo "ok - memory of a run # SKIP instrumented code has memory of its own"
    exit 0
    ;;
esac

# 311 MB; 1.1 of it, and 32 MB for what does not grow with the model: the program, rows to compute in,
# the KV of the positions that are reached
file=$dir/model.gguf
fixed=$((32 << 20))
written() { run_it 0 synth llama-1b,q4_0,layers=8,vocab=32000,seed=1 --out "$file" --quiet; }
check "a file to load" written
peak_is_held() {
    run_it 0 bench memory --target "$1" --reps 1 || return 1
    peak=$(field peak_bytes "$dir/out") bytes=$(field model_bytes "$dir/out")
    [ "$peak" -gt "$bytes" ] && [ "$peak" -le $((bytes / 10 * 11 + fixed)) ] ||
        { echo "    $peak bytes at the peak, the model has $bytes"; return 1; }
}
check "a run takes 1.1 of its model's file" peak_is_held "$file"
check "and of a model built in memory" peak_is_held synth:llama-1b,q4_0,layers=8,vocab=32000,seed=1
size_is_true() { [ "$(field model_bytes "$dir/out")" -gt 300000000 ] && [ "$(wc -c <"$file")" -gt 300000000 ]; }
check "the model is as large as is said" size_is_true

# A conversion takes longer than the moment after which a bar is shown.
progress() {
    script -qec "$tandem run -m synth:smol-135m,f16 --quant q4_k --ids 1,2,3 -n 1" /dev/null >"$dir/out" 2>"$dir/err" </dev/null
    tr '\r' '\n' <"$dir/out" | grep -q '^loading \[#*\.*\] *[0-9]* % of 0\.[0-9]* GB'
}
no_progress() { run_it 0 run -m synth:smol-135m,f16 --quant q4_k --ids 1,2,3 -n 1 && ! err_has 'loading \['; }
if command -v script >/dev/null; then
    check "a terminal sees how far loading is" progress
else
    echo "ok - a terminal sees how far loading is # SKIP no program 'script'"
fi
check "a file of errors does not" no_progress

exit $failed
