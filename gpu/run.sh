#!/bin/sh
# Everything that a GPU can say of Tandem, in one go: ./run [FOLDER]; and ./run --pairs [FOLDER]
#
#   parity      every kernel against the scalar code, by memcmp
#   bench       what the device can do, and kernel times against it
#   engine      whole models through the program, where it was built with a CUDA runtime
#   pairs       instead of all these: planted pairs of 8 and 70 billion parameters, agreement 0.8 and 0.89,
#               temperature 0 and 1: plain, in turn, ahead with the draft on the GPU and on CPU cores
#   sanitizer   the parity cases again under compute-sanitizer, where that is found
#
# FOLDER (results) gets results.jsonl, a line a result, summary.md and the stages' own words. A stage that
# cannot run is named with the reason, never estimated. Each has its seconds; all of them end within eight
# minutes. Exit 0: all that ran is well; 1: something differs or failed; 4: no GPU.
set -u
LC_ALL=C
export LC_ALL
here=$(cd "$(dirname "$0")" && pwd)
stages=all
if [ "${1:-}" = --pairs ]; then
    stages=pairs
    shift
    ENGINE_SECONDS=${ENGINE_SECONDS:-540}
fi
out=${1:-results}
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
results=$out/results.jsonl summary=$out/summary.md
begin=$(date +%s)
parity_seconds=${PARITY_SECONDS:-90} bench_seconds=${BENCH_SECONDS:-150}
engine_seconds=${ENGINE_SECONDS:-150} sanitizer_seconds=${SANITIZER_SECONDS:-50}
parity=$here/gpu_parity bench=$here/gpu_bench
commit=$(cat "$here/commit" 2>/dev/null || echo unknown)
failed=0
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
: >"$results"

say() { echo "$*" >&2; }
elapsed() { echo $(($(date +%s) - begin)); }

device=$("$bench" --device 2>"$out/device.log")
code=$?
if [ "$code" -ne 0 ]; then
    cat "$out/device.log" >&2
    [ "$code" -eq 4 ] || say "no GPU was found: the program that asks ended with $code"
    exit 4
fi
machine=${device% *} isa=${device##* }
say "$device"
{
    echo "# GPU suite on $machine ($isa), commit $commit"
    echo
    echo "$(date -u +%Y-%m-%dT%H:%M:%SZ). Lines of JSON: results.jsonl."
} >"$summary"

# note STAGE TEXT: what became of a stage, for people and as a line
notes=$out/notes
: >"$notes"
note() {
    say "$1: $2"
    echo "| $1 | $2 |" >>"$notes"
    text=$(printf '%s' "$2" | tr '\n"\\' "  '")
    printf '{"bench":"gpu-stage","case":{"stage":"%s"},"value":null,"unit":"","n":0,"min":null,"median":null,"max":null,"roofs":{},"bound":null,"fraction":null,"machine":"%s","isa":"%s","commit":"%s","options":"%s","seed":0}\n' \
        "$1" "$machine" "$isa" "$commit" "$text" >>"$results"
}
why() { # WHY CODE SECONDS: of a stage that did not end well
    case $1 in
    124 | 137) echo "stopped after $2 s, its share of the time" ;;
    *) echo "ended with $1" ;;
    esac
}

run_kernels() {
# ---- parity ----
timeout -k 5 "$parity_seconds" "$parity" >"$out/parity.log" 2>&1
code=$?
awk -v machine="$machine" -v isa="$isa" -v commit="$commit" '
    /^# suite / { suite = $3 }
    /^\[ +OK +\]|^\[ +FAILED +\] [a-z_0-9]+$/ {
        name = $NF; ok = $0 ~ /OK/
        if ((suite, name) in seen) next # failures are listed once more
        seen[suite, name] = 1
        printf "{\"bench\":\"gpu-parity\",\"case\":{\"suite\":\"%s\",\"test\":\"%s\"},\"value\":%d,\"unit\":\"equal\",\"n\":1,\"min\":%d,\"median\":%d,\"max\":%d,\"roofs\":{},\"bound\":1,\"fraction\":%d,\"machine\":\"%s\",\"isa\":\"%s\",\"commit\":\"%s\",\"options\":\"\",\"seed\":42}\n", suite, name, ok, ok, ok, ok, ok, machine, isa, commit
    }' "$out/parity.log" >>"$results"
n_equal=$(grep -c '"gpu-parity".*"value":1,' "$results")
n_differ=$(grep -c '"gpu-parity".*"value":0,' "$results")
if [ "$code" -eq 0 ] && [ "$n_differ" -eq 0 ] && [ "$n_equal" -gt 0 ]; then
    note parity "$n_equal cases, each of the scalar code's bits"
else
    failed=1
    note parity "$n_differ of $((n_equal + n_differ)) cases differ; $(why $code "$parity_seconds"); parity.log"
fi

# ---- bench ----
timeout -k 5 "$bench_seconds" "$bench" --seconds $((bench_seconds - 15)) --commit "$commit" \
    >"$out/bench.jsonl" 2>"$out/bench.log"
code=$?
grep '^{.*}$' "$out/bench.jsonl" >>"$results"
n=$(grep -c '^{.*}$' "$out/bench.jsonl")
if [ "$code" -eq 0 ]; then
    note bench "$n figures"
else
    failed=1
    note bench "$n figures, then $(why $code "$bench_seconds"): $(tail -n 1 "$out/bench.log")"
fi
}
[ "$stages" = pairs ] || run_kernels

# ---- engine ----
. "$here/engine.sh"

run_sanitizer() {
# ---- sanitizer ----
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
if [ -z "$sanitizer" ]; then
    note sanitizer "not run: compute-sanitizer is not on this machine"
else
    TANDEM_TEST_QUICK=1 timeout -k 5 "$sanitizer_seconds" "$sanitizer" --error-exitcode 9 "$parity" rows choose accept \
        >"$out/sanitizer.log" 2>&1
    code=$?
    grep -q 'Device not supported' "$out/sanitizer.log" && code=unsupported
    case $code in
    unsupported) note sanitizer "not run: the tool says that it does not support this device here" ;;
    0) note sanitizer "memcheck of suites rows, choose, accept: nothing found" ;;
    124 | 137) note sanitizer "memcheck $(why $code "$sanitizer_seconds"), nothing found until then: $(grep -c 'Invalid' "$out/sanitizer.log") findings" ;;
    *) failed=1; note sanitizer "ended with $code: $(grep -m 1 -E 'Invalid|ERROR SUMMARY' "$out/sanitizer.log")" ;;
    esac
fi
}
[ "$stages" = pairs ] || run_sanitizer

# ---- summary ----
{
    echo
    echo "| stage | what came of it |"
    echo "|---|---|"
    cat "$notes"
    echo
    awk -f "$here/summary.awk" "$results"
} >>"$summary"
rm -f "$notes"
cat "$summary"
say "$(elapsed) s in all"
exit $failed
