#!/bin/sh
# The suite for GPU machines, where there is none: its parity program and its whole models on an emulated device, its
# runner with these and with programs that act, its tables, and what the folder needs of a system where it was built.
# usage: tests/test_gpu_suite.sh PROGRAM      from the root of the tree
. tests/cases.sh
build=$(dirname "$tandem")
emulated=$build/gpu/gpu_parity_emulated models=$build/gpu/gpu_models_emulated
if [ ! -x "$emulated" ] || [ ! -x "$models" ]; then
    echo "ok - GPU suite # SKIP no C++ compiler to run device code with"
    exit 0
fi
export TANDEM_TEST_QUICK=1

# ---- a device with memory of its own ----
all_cases_pass() { "$emulated" >"$dir/out" 2>"$dir/err" && ! grep -q FAILED "$dir/out" "$dir/err"; }
check "every case passes where the device has memory of its own" all_cases_pass
unknown_suite() { "$emulated" no-such-suite >"$dir/out" 2>"$dir/err"; [ $? -eq 2 ] && err_has "there are rows"; }
check "an unknown suite is refused" unknown_suite

# ---- whole models ----
unknown_question() { "$models" decode:q4_0 sizes >"$dir/out" 2>"$dir/err"; [ $? -eq 2 ] && [ ! -s "$dir/out" ] && err_has "no question 'sizes'"; }
check "an unknown question is refused before any is asked" unknown_question
unknown_type() { "$models" --size dry decode:q9 >"$dir/out" 2>"$dir/err"; [ $? -eq 1 ] && err_has "q9"; }
check "an unknown type is a failure with its sentence" unknown_type
no_time() { "$models" --size dry --seconds 0.01 decode:q8_0 >"$dir/out" 2>"$dir/err" && err_has "left out: several rows" &&
    out_has gpu-decode && ! out_has gpu-rows; }
check "what there is no time for is left out by name" no_time

# ---- the runner ----
# A folder as on a GPU machine, with a device that is emulated or none; acts write programs into it.
suite=$dir/suite path=$dir/bin:/usr/bin:/bin
mkdir -p "$suite/models" "$dir/bin"
cp gpu/run.sh "$suite/run"
cp gpu/table.awk gpu/stages.sh gpu/texts.sh "$suite/"
act() { # act PROGRAM < what it does
    cat >"$suite/$1"
    chmod +x "$suite/$1"
}
line='"value":7,"unit":"GB/s","n":1,"min":6,"median":7,"max":8,"roofs":{},"bound":null,"fraction":null,"machine":"m","isa":"i","commit":"c","options":"","seed":0}'
act_bench() { # CODE of the device, CODE of the rest
    act gpu_bench <<ACT
#!/bin/sh
case \$1 in
--device) [ $1 -ne 4 ] && echo "Acted One, 1 multiprocessor" >&2 || echo "no GPU: it is acted" >&2; echo "Acted One sm_00"; exit $1 ;;
esac
echo '{"bench":"gpu-roof","case":{"roof":"read"},$line'
exit $2
ACT
}
act_tandem() { # texts all have one digest, but for those of $1
    act tandem <<ACT
#!/bin/sh
digest=ab
case "\$*" in *"$1"*) digest=cd ;; esac
echo "{\"tok_per_s\":50.5,\"tokens_per_pass\":2.5,\"logits_digest\":\"\$digest\"}"
ACT
}
act_sanitizer() { # finds something with the tool $1
    cat >"$dir/bin/compute-sanitizer" <<ACT
#!/bin/sh
[ "\$1 \$3 \$4" = "--tool --error-exitcode 9" ] || exit 2
tool=\$2
shift 4
[ "\$tool" != "$1" ] || { echo "========= Error: Race reported between Write access and Read access"; exit 9; }
echo "========= ERROR SUMMARY: 0 errors"
exec "\$@"
ACT
    chmod +x "$dir/bin/compute-sanitizer"
}
printf '#!/bin/sh\nexec "%s" rows accept\n' "$(realpath "$emulated")" | act gpu_parity
ln -s "$(realpath "$models")" "$suite/gpu_models"
act_bench 0 0
act_tandem nothing-of-this
act_sanitizer none

run_suite() { # run_suite CODE OPTIONS...: into $dir/results
    expected=$1
    shift
    rm -rf "$dir/results"
    PATH=$path "$suite/run" "$@" "$dir/results" >"$dir/out" 2>"$dir/err"
    code=$?
    [ "$code" -eq "$expected" ] || { echo "    exit $code, expected $expected"; return 1; }
}
results() { cat "$dir"/results/*-gpu-acted-one*.jsonl; }
says() { grep -qF -- "$1" "$dir/results/summary.md" || { echo "    summary.md does not say: $1"; return 1; }; }
fields='bench case value unit n min median max roofs bound fraction machine isa commit options seed'
lines_are_whole() {
    results >"$dir/lines"
    [ -s "$dir/lines" ] || return 1
    while read -r text; do
        for field in $fields; do
            case $text in *"\"$field\":"*) ;; *) echo "    no $field in $text"; return 1 ;; esac
        done
    done <"$dir/lines"
}
n_lines() { [ "$(results | grep -c "$1")" -eq "$2" ] || { echo "    $(results | grep -c "$1") lines of $1, expected $2"; return 1; }; }

check "a dry run of all stages on an emulated device" run_suite 0 --dry --minutes 60
check "every line has the fields of a bench" lines_are_whole
all_lines() {
    n_lines '"gpu-parity".*"value":1,' 10 && n_lines '"gpu-text".*"value":1,' 15 && n_lines '"gpu-sanitizer".*"value":1,' 6 &&
        n_lines '"gpu-decode"' 6 && n_lines '"gpu-rows"' 9 && n_lines '"gpu-gaps"' 6 && n_lines '"gpu-operations"' 21 &&
        n_lines '"gpu-prefill"' 14 && n_lines '"gpu-recording"' 3 && n_lines '"gpu-batch"' 2 && n_lines '"gpu-pairs"' 20 &&
        n_lines '"gpu-stage".*"state":"ok"' 12
}
check "each stage has its lines" all_lines
repeated() { ! results | grep -E '"gpu-(decode|rows|gaps|batch|pairs|prefill)"' | grep -qE '"n":[012],'; }
check "speeds are medians of three repetitions at least" repeated
tables() {
    says "| kernels with the scalar code's bits | 10 of 10 | all | met |" && says "| texts from the CPU's logits | 15 of 15 | all | met |" &&
        says "| runs of sanitizers that found nothing | 6 of 6 | all | met |" && says "A dry run: tiny models" &&
        says "| 64 sequences together: tok/s |  |  | not run |" && says "| roof read | 7 | 6 ... 8 | 1 | GB/s |" &&
        ! grep -qE 'agreement 0.89.*not run|decoding.*not run|prompt.*not run|gaps.*not run' "$dir/results/summary.md"
}
check "the tables have a row for each figure" tables
added() { gpu/add_results.sh "$dir/results" "$dir/kept" >"$dir/out" 2>"$dir/err"; }
refused() { added; [ $? -eq 1 ] && err_has "$1"; }
mkdir -p "$dir/kept"
check "a dry run is not kept" refused "dry run"

# ---- full size, acted: figures and goals ----
rm "$suite/gpu_models"
act gpu_models <<ACT
#!/bin/sh
for question; do :; done
type=\${question#decode:}
end='"n":3,"min":1.4,"median":1.5,"max":1.6,"roofs":{},"bound":9,"fraction":0.65,"machine":"m","isa":"i","commit":"c","options":"","seed":1}'
case \$question in
decode:*) for text in short long; do echo '{"bench":"gpu-decode","case":{"type":"'\$type'","text":"'\$text'"},"value":1.5,"unit":"tok/s",'"\$end"; done
    echo '{"bench":"gpu-rows","case":{"type":"'\$type'","rows":8,"ms":3},"value":1.5,"unit":"times one row",'"\$end" ;;
pairs:8b) echo '{"bench":"gpu-pairs","case":{"size":"8b","agree":0.89,"temperature":1,"way":"ahead, two streams","k":6},"value":1.5,"unit":"times plain",'"\$end" ;;
esac
ACT
check "a run at full size" run_suite 0
goals() {
    says "| plain decoding, q4_0, long text: share of the copy bandwidth | 0.65 | at least 0.6 | met, 8 % to spare |" &&
        says "| plain decoding, bf16, short text: share of the copy bandwidth | 0.65 | at least 0.8 | missed by 19 % |" &&
        says "| 8 rows over one row, q8_0 | 1.5 (1.4 ... 1.6) | at most 1.2 | missed by 25 % |" &&
        says "| speculation, 8b, agreement 0.89, temperature 1, ahead, two streams: times plain | 1.5 (1.4 ... 1.6) | at least 1 | met, 50 % to spare |" &&
        says "| speculation, 70b, agreement 0.8, temperature 0, in turn, draft on the cores: times plain |  | at least 1 | not run |"
}
check "figures are held to their goals" goals
check "its lines are kept under its name" added
kept() { cmp -s "$dir"/kept/*-gpu-acted-one.jsonl "$dir"/results/*-gpu-acted-one.jsonl; }
check "all of them" kept
check "not twice" refused "is there already"
rm "$dir"/kept/*
sed -i 's/"n":3,//' "$dir"/results/*.jsonl
check "and not when a field is missing" refused 'no "n"'
out_of_time() { run_suite 0 --only pairs-70b --minutes 1 && says "s of 1 minutes are left, it wants 60 |" && n_lines gpu-pairs 0; }
check "a stage that there is no time for says so" out_of_time
only_parity() { run_suite 0 --only parity && says "| roofs |  | not run: not asked for"; }
check "one stage alone; the others are named" only_parity
wrong_words() {
    for words in "--only parties" "--minutes" "--minutes 0" "--minutes x" "--limit parity" "--limit parity=x" "--fast"; do
        # shellcheck disable=SC2086 # words
        PATH=$path "$suite/run" $words >"$dir/out" 2>"$dir/err"
        [ $? -eq 2 ] && err_has "usage: ./run" || { echo "    $words"; return 1; }
    done
}
check "wrong words are refused" wrong_words

# ---- what goes wrong ----
act_tandem "--ahead on --draft-device cpu"
check "a text that differs is a failure" run_suite 1 --only texts
differs() { [ "$(grep -c 'digest cd, the CPU' "$dir/results/summary.md")" -eq 3 ] && says "| texts from the CPU's logits | 12 of 15 | all | missed by 3 |" &&
    says "FAILED: 3 of 15 texts differ"; }
check "and named" differs
printf '#!/bin/sh\necho "it is acted" >&2\nexit 1\n' | act tandem
check "a program that writes no text on the CPU: nothing is said of the device" run_suite 0 --only texts
no_text() { says "| texts from the CPU's logits | | all | not run |" && says "not run: it is acted"; }
check "with its sentence" no_text
rm "$suite/tandem"
not_there() { run_suite 0 --only texts && says "not run: the program is not in this folder"; }
check "a program that is not there" not_there

act_sanitizer racecheck
found() { run_suite 1 --only sanitizer && says "| runs of sanitizers that found nothing | 4 of 6 | all | missed by 2 |" &&
    says "FAILED: 2 runs of a tool found something" && says "1 findings, ended with 9: ========= Error: Race reported"; }
check "what a sanitizer finds is a failure" found
rm "$dir/bin/compute-sanitizer"
if [ -z "$(PATH=$path command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null)" ]; then
    no_sanitizer() { run_suite 0 --only sanitizer && says "not run: compute-sanitizer is not on this machine"; }
    check "no sanitizer, no word of it" no_sanitizer
fi

act_bench 4 0
check "no GPU: says so and ends with 4" run_suite 4
said_so() { err_has "no GPU"; }
check "and with its sentence" said_so
act_bench 0 3
dies() { run_suite 1 --only roofs,kernels && says "| roofs |" && says "FAILED: 1 figures, then ended with 3" && n_lines '"gpu-roof"' 2; }
check "a bench that dies is a failure, what it said before is kept" dies
act_bench 0 0
act gpu_models <<ACT
#!/bin/sh
echo '{"bench":"gpu-batch","case":{"batch":1,"step_ms":1},$line'
printf '{"bench":"gpu-batch","case":{"batch":2},"value":7,"unit":"GB'
exec sleep 60
ACT
hangs() { run_suite 1 --only batch,kernels --limit batch=3 && says "FAILED: 1 figures, then stopped after 3 s" && n_lines '"gpu-batch"' 1 &&
    lines_are_whole && says "| 1 sequences together: tok/s | 7 (6 ... 8) |  | no goal |" && n_lines '"gpu-roof"' 1; }
check "a stage that hangs is stopped, whole lines are kept, the next one runs" hangs
cut_off() {
    rm -rf "$dir/results"
    PATH=$path "$suite/run" --only parity,batch "$dir/results" >"$dir/out" 2>"$dir/err" &
    running=$!
    waited=0
    until grep -q '"batch":1' "$dir"/results/*.jsonl 2>/dev/null || [ "$waited" -gt 600 ]; do sleep 0.1; waited=$((waited + 1)); done
    kill -TERM "$running"
    wait "$running"
    [ $? -eq 1 ] && lines_are_whole && n_lines '"gpu-batch"' 1 && says "FAILED: interrupted" && says "10 of 10"
}
check "a run that is cut off keeps what it has, and its table" cut_off
act gpu_parity <<'ACT'
#!/bin/sh
printf '# suite rows on Acted\n[       OK ] norms\n[  FAILED  ] swiglu\n[  FAILED  ] swiglu\n'
exit 1
ACT
unequal() { run_suite 1 --only parity && says "FAILED: 1 of 2 cases differ" && says "| kernels with the scalar code's bits | 1 of 2 | all | missed by 1 |"; }
check "a kernel that differs is a failure, counted once" unequal
act gpu_parity <<'ACT'
#!/bin/sh
printf '# suite rows on Acted\n[       OK ] norms\n'
exec sleep 60
ACT
parity_hangs() { run_suite 1 --only parity --limit parity=2 && says "stopped after 2 s"; }
check "and so is a parity program that hangs" parity_hangs

# ---- the folder itself ----
packed=build/gpu-suite
if [ ! -x "$packed/gpu_models" ]; then
    echo "ok - the folder's needs # SKIP build/gpu-suite is not built (make gpu-suite, with nvcc)"
else
    needs() { readelf -d "$1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vE '^(libc|libm|libpthread|libdl|librt|ld-linux-x86-64)\.so'; }
    needs_little() { [ -z "$(needs "$packed/gpu_bench")$(needs "$packed/gpu_models")" ] && [ "$(needs "$packed/gpu_parity")" = libcmocka.so.0 ] && [ -f "$packed/lib/libcmocka.so.0" ]; }
    check "programs need libc and what lies beside them" needs_little
    if [ -e /dev/nvidia0 ]; then
        echo "ok - without a GPU # SKIP there is one"
    else
        says_no_gpu() { "$packed/run" "$dir/packed" >"$dir/out" 2>"$dir/err"; [ $? -eq 4 ] && err_has "no GPU"; }
        check "the packed runner says that there is no GPU" says_no_gpu
        models_say_no_gpu() { "$packed/gpu_models" batch >"$dir/out" 2>"$dir/err"; [ $? -eq 4 ] && err_has "no GPU"; }
        check "and so do whole models" models_say_no_gpu
    fi
fi
exit $failed
