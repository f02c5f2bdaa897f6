#!/bin/sh
# stages: what each stage runs. Read by `run`, whose words it uses; texts.sh has the one of whole texts.

# ---- parity ----
parity_lines() {
    awk -v machine="$machine" -v isa="$isa" -v commit="$commit" '
    /^# suite / { suite = $3 }
    /^\[ +OK +\]|^\[ +FAILED +\] [a-z_0-9]+$/ {
        name = $NF; ok = $0 ~ /OK/
        if ((suite, name) in seen) next # failures are listed once more
        seen[suite, name] = 1
        printf "{\"bench\":\"gpu-parity\",\"case\":{\"suite\":\"%s\",\"test\":\"%s\"},\"value\":%d,\"unit\":\"equal\",\"n\":1,\"min\":%d,\"median\":%d,\"max\":%d,\"roofs\":{},\"bound\":1,\"fraction\":%d,\"machine\":\"%s\",\"isa\":\"%s\",\"commit\":\"%s\",\"options\":\"\",\"seed\":42}\n", suite, name, ok, ok, ok, ok, ok, machine, isa, commit
    }' "$out/parity.log" >>"$results"
}

run_parity() {
    limited "$limit" "$parity" >"$out/parity.log" 2>&1
    code=$?
    parity_lines
    n_equal=$(grep -c '"gpu-parity".*"value":1,' "$results")
    n_differ=$(grep -c '"gpu-parity".*"value":0,' "$results")
    if [ "$code" -eq 0 ] && [ "$n_differ" -eq 0 ] && [ "$n_equal" -gt 0 ]; then
        note parity ok "$n_equal cases, each of the scalar code's bits"
    else
        note parity failed "$n_differ of $((n_equal + n_differ)) cases differ; $(why $code "$limit"); parity.log"
    fi
}

# ---- figures ----
# figures PROGRAM ARGUMENTS...: its lines go into the results as they come
figures() {
    if [ ! -x "$1" ]; then
        note "$stage" not-run "not run: $(basename "$1") is not in this folder"
        return
    fi
    before=$(wc -l <"$results")
    limited "$limit" "$@" >>"$results" 2>"$out/$stage.log"
    code=$?
    keep_whole_lines
    n=$(($(wc -l <"$results") - before))
    left_out=$(grep -c '^left out' "$out/$stage.log")
    if [ "$code" -ne 0 ]; then
        note "$stage" failed "$n figures, then $(why $code "$limit"): $(tail -n 1 "$out/$stage.log")"
    elif [ "$left_out" -gt 0 ]; then
        note "$stage" ok "$n figures; $left_out parts left out for want of time ($stage.log)"
    else
        note "$stage" ok "$n figures"
    fi
}
# What a program may plan with: so that it ends by itself.
planned() { echo $((limit > 20 ? limit - 8 : limit * 2 / 3)); }
bench_figures() { figures "$bench" --seconds "$(planned)" --commit "$commit" "$@"; }
model_figures() {
    figures "$models" --seconds "$(planned)" --commit "$commit" --machine "$machine" --isa "$isa" --size "$size" "$@"
}
run_roofs() { bench_figures roofs launch; }
run_kernels() { bench_figures linear attention choose; }
run_decode() { model_figures "decode:${stage#decode-}"; }
run_batch() { model_figures batch; }
run_pairs() { model_figures "pairs:${stage#pairs-}"; }

# ---- sanitizer ----
# watch TOOL ON COMMAND...: a line: 1 nothing found, 0 something, null not run
watch() {
    tool=$1 on=$2 log=$out/sanitizer-$1-${2%% *}.log
    shift 2
    seconds=$(stage_left)
    if [ "$seconds" -lt 5 ]; then
        put gpu-sanitizer "\"tool\":\"$tool\",\"on\":\"$on\"" null clean "not run: the stage's time is used up"
        return
    fi
    [ "$seconds" -le $((limit / 2)) ] || seconds=$((limit / 2))
    limited "$seconds" "$sanitizer" --tool "$tool" --error-exitcode 9 "$@" >"$log" 2>&1
    code=$?
    grep -q 'Device not supported' "$log" && code=unsupported
    n_found=$(grep -cE '^=+ +(Invalid|Error: |Warning: |Barrier error|Race reported)' "$log")
    case $code-$n_found in
    unsupported-*) found=null text="not run: the tool says that it does not support this device here" ;;
    0-0) found=1 text="nothing found" ;;
    124-0 | 137-0) found=null text="not finished in $seconds s, nothing found until then" ;;
    *) found=0 n_bad=$((n_bad + 1))
        text="$n_found findings, $(why "$code" "$seconds"): $(grep -m 1 -E 'Invalid|Error|Race|Barrier|SUMMARY' "$log")" ;;
    esac
    put gpu-sanitizer "\"tool\":\"$tool\",\"on\":\"$on\"" "$found" clean "$text"
    [ "$found" != 1 ] || n_clean=$((n_clean + 1))
    say "  $tool, $on: $text"
}

run_sanitizer() {
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | head -n 1)
    if [ -z "$sanitizer" ]; then
        note sanitizer not-run "not run: compute-sanitizer is not on this machine"
        return
    fi
    n_clean=0 n_bad=0
    for each_tool in memcheck racecheck synccheck; do
        watch "$each_tool" "engine with a tiny pair" "$models" --size dry small
    done
    for each_tool in memcheck racecheck synccheck; do
        watch "$each_tool" "kernels" env TANDEM_TEST_QUICK=1 "$parity" rows linear attention choose accept
    done
    if [ "$n_bad" -gt 0 ]; then
        note sanitizer failed "$n_bad runs of a tool found something; sanitizer-*.log"
    elif [ "$n_clean" -eq 6 ]; then
        note sanitizer ok "6 runs of its tools, nothing found"
    elif [ "$n_clean" -gt 0 ]; then
        note sanitizer ok "$n_clean of 6 runs of its tools ended, nothing found; of the others there are lines"
    else
        note sanitizer not-run "not run to an end: of each tool there is a line"
    fi
}
