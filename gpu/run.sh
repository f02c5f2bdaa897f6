#!/bin/sh
# Everything that a GPU can say of Tandem, in one go. What matters most comes first: a run that is short of time, or
# cut off, lacks what comes last. A stage that ends early leaves its time to those behind it.
#
#   parity         90 s   every kernel against the scalar code, by memcmp
#   texts          60     whole texts through the program: the digests of the CPU's
#   sanitizer      75     memcheck, racecheck, synccheck over an engine with a tiny pair, then over the kernels
#   roofs          30     copies, reads, products, launches
#   decode-q4_0    45     llama-8b: one row at two lengths, several rows, gaps, prompts, recordings
#   pairs-8b      120     speculation against plain decoding, five ways, agreement 0.89 and 0.8, temperature 0 and 1
#   decode-q8_0    40
#   decode-bf16    50
#   batch          40     1 to 64 sequences
#   kernels        80     kernel times against the roofs
#   pairs-70b     240
#
# ./run [--minutes N] [--only STAGE,...] [--limit STAGE=SECONDS] [--dry] [FOLDER]
#   --minutes N   8 unless told otherwise; stages' seconds grow and shrink with it
#   --dry         all stages, tiny models: whether everything works, no measure of anything
# FOLDER (results) gets DATE-gpu-MACHINE.jsonl, a line a result, written as it comes; summary.md, made of it; and the
# stages' own words. `make gpu-results FROM=FOLDER` adds the lines to bench/results.
# Exit 0: all that ran is well, whatever its speed; 1: something differs, failed or hung; 2: usage; 4: no GPU.
set -u
LC_ALL=C
export LC_ALL
here=$(cd "$(dirname "$0")" && pwd)
all_stages='parity texts sanitizer roofs decode-q4_0 pairs-8b decode-q8_0 decode-bf16 batch kernels pairs-70b'
minutes=8 only='' limits='' size=full out=results

usage() {
    echo "$1; usage: ./run [--minutes N] [--only STAGE,...] [--limit STAGE=SECONDS] [--dry] [FOLDER]" >&2
    echo "stages: $all_stages" >&2
    exit 2
}
is_number() { case $1 in '' | *[!0-9]* | 0*) return 1 ;; esac; [ "${#1}" -le 5 ]; }
is_stage() { case " $all_stages " in *" $1 "*) return 0 ;; esac; return 1; }
while [ $# -gt 0 ]; do
    case $1 in
    --minutes) is_number "${2:-}" || usage "--minutes wants a number"; minutes=$2; shift ;;
    --only)
        [ -n "${2:-}" ] || usage "--only wants stages"
        for name in $(echo "$2" | tr , ' '); do is_stage "$name" || usage "no stage $name"; done
        only=$2; shift ;;
    --limit)
        is_stage "${2%%=*}" && is_number "${2#*=}" || usage "--limit wants STAGE=SECONDS"
        limits="$limits $2"; shift ;;
    --dry) size=dry ;;
    -*) usage "no option $1" ;;
    *) out=$1 ;;
    esac
    shift
done

mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
cd "$here" || exit 2
begin=$(date +%s)
total=$((minutes * 60)) closing=5
parity=$here/gpu_parity bench=$here/gpu_bench models=$here/gpu_models tandem=$here/tandem
commit=$(cat "$here/commit" 2>/dev/null || echo unknown)
summary=$out/summary.md
failed=0 child=''
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
[ "$size" = full ] || { TANDEM_TEST_QUICK=1 && export TANDEM_TEST_QUICK; }

say() { echo "$*" >&2; }
elapsed() { echo $(($(date +%s) - begin)); }

# ---- the device ----
device=$("$bench" --device 2>"$out/device.log")
code=$?
if [ "$code" -ne 0 ]; then
    cat "$out/device.log" >&2
    [ "$code" -eq 4 ] || say "no GPU was found: the program that asks ended with $code"
    exit 4
fi
machine=${device% *} isa=${device##* }
driver=$(grep -o '[0-9][0-9]*\.[0-9.]*[0-9]' /proc/driver/nvidia/version 2>/dev/null | head -n 1)
about="$(tail -n 1 "$out/device.log"), driver ${driver:-of a version that is not said}"
slug=$(echo "$machine" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
results=$out/$(date -u +%Y-%m-%d)-gpu-$slug$([ "$size" = full ] || echo -dry).jsonl
: >"$results"
say "$machine ($isa): $about"

# ---- results ----
# put BENCH CASE VALUE UNIT OPTIONS: a line of a result that has no spread; VALUE may be null
put() {
    text=$(printf '%s' "$5" | tr '\n"\\\t' "  ' ")
    printf '{"bench":"%s","case":{%s},"value":%s,"unit":"%s","n":%d,"min":%s,"median":%s,"max":%s,"roofs":{},"bound":null,"fraction":null,"machine":"%s","isa":"%s","commit":"%s","options":"%s","seed":7}\n' \
        "$1" "$2" "$3" "$4" "$([ "$3" = null ] && echo 0 || echo 1)" "$3" "$3" "$3" "$machine" "$isa" "$commit" "$text" >>"$results"
}
put gpu-stage '"stage":"device","state":"ok","seconds":0' 1 well "$about"
# note STAGE ok|failed|not-run TEXT: what became of a stage
note() {
    say "$1: $3"
    case $2 in ok) value=1 ;; failed) value=0 failed=1 ;; *) value=null ;; esac
    put gpu-stage "\"stage\":\"$1\",\"state\":\"$2\",\"seconds\":$(($(elapsed) - ${stage_begin:-0}))" "$value" well "$3"
}
why() { # why CODE SECONDS: of something that did not end well
    case $1 in
    124 | 137) echo "stopped after $2 s, its share of the time" ;;
    *) echo "ended with $1" ;;
    esac
}
keep_whole_lines() { # of a program that was stopped the last may be half of one
    sed -i '/^{"bench":.*"seed":[0-9]*}$/!d' "$results"
}
finish() {
    {
        echo "# GPU suite on $machine ($isa), commit $commit"
        echo
        echo "$(date -u +%Y-%m-%dT%H:%M:%SZ), $(elapsed) s of $total. $about. Lines: $(basename "$results")."
        [ "$size" = full ] || printf '\nA dry run: tiny models, no measure of anything.\n'
        awk -v stages="$all_stages" -f "$here/table.awk" "$results"
    } >"$summary"
    cat "$summary"
    say "$(elapsed) s in all"
    exit $failed
}
interrupted() {
    trap - INT TERM HUP
    [ -z "$child" ] || kill "$child" 2>/dev/null
    wait
    keep_whole_lines
    note "${stage:-run}" failed "interrupted"
    finish
}
trap interrupted INT TERM HUP

# ---- stages ----
# limited SECONDS COMMAND...: in the background, so that a signal need not wait for it
limited() {
    for_seconds=$1
    shift
    timeout -k 5 "$for_seconds" "$@" &
    child=$!
    wait "$child"
    code=$?
    child=
    return "$code"
}
# stage NAME SECONDS LEAST FUNCTION: $limit seconds of it, or the reason why not
stage() {
    [ -z "$only" ] || case ",$only," in *",$1,"*) ;; *) return ;; esac
    stage=$1 limit=$(($2 * minutes / 8)) stage_begin=$(elapsed)
    for each in $limits; do
        [ "${each%%=*}" != "$1" ] || limit=${each#*=}
    done
    left=$((total - $(elapsed) - closing))
    if [ "$left" -lt "$3" ]; then
        note "$1" not-run "not run: $((left > 0 ? left : 0)) s of $minutes minutes are left, it wants $3"
        return
    fi
    [ "$limit" -le "$left" ] || limit=$left
    "$4"
}
stage_left() { echo $((stage_begin + limit - $(elapsed))); }

. "$here/stages.sh"
. "$here/texts.sh"
stage parity 90 10 run_parity
stage texts 60 10 run_texts
stage sanitizer 75 10 run_sanitizer
stage roofs 30 5 run_roofs
stage decode-q4_0 45 15 run_decode
stage pairs-8b 120 20 run_pairs
stage decode-q8_0 40 15 run_decode
stage decode-bf16 50 15 run_decode
stage batch 40 15 run_batch
stage kernels 80 10 run_kernels
stage pairs-70b 240 60 run_pairs
finish
