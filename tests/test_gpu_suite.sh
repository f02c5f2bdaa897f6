#!/bin/sh
# The suite for GPU machines, where there is none: its parity program with an emulated device that has memory of
# its own, its runner with programs that act, and what the folder needs of a system where it was built.
# usage: tests/test_gpu_suite.sh PROGRAM      from the root of the tree
. tests/cases.sh
build=$(dirname "$tandem")
emulated=$build/gpu/gpu_parity_emulated
if [ ! -x "$emulated" ]; then
    echo "ok - GPU suite # SKIP no C++ compiler to run device code with"
    exit 0
fi
export TANDEM_TEST_QUICK=1

# ---- a device with memory of its own ----
all_cases_pass() { "$emulated" >"$dir/out" 2>"$dir/err" && ! grep -q FAILED "$dir/out" "$dir/err"; }
check "every case passes where the device has memory of its own" all_cases_pass
unknown_suite() { "$emulated" no-such-suite >"$dir/out" 2>"$dir/err"; [ $? -eq 2 ] && err_has "there are rows"; }
check "an unknown suite is refused" unknown_suite

# ---- the runner ----
# A folder as on a GPU machine, with a device that is none; the bench says a line and ends with $1.
suite=$dir/suite
mkdir -p "$suite"
cp gpu/run.sh "$suite/run"
cp gpu/summary.awk gpu/engine.sh "$suite/"
printf '#!/bin/sh\nexec "%s" rows accept\n' "$(realpath "$emulated")" >"$suite/gpu_parity"
chmod +x "$suite/gpu_parity"
act() {
    cat >"$suite/gpu_bench" <<ACT
#!/bin/sh
case \$1 in
--device) [ $1 -ne 4 ] || echo "no GPU: it is acted" >&2; echo "Acted sm_00"; exit $1 ;;
esac
echo '{"bench":"gpu-roof","case":{"roof":"read"},"value":7,"unit":"GB/s","n":1,"min":6,"median":7,"max":8,"roofs":{},"bound":null,"fraction":null,"machine":"m","isa":"i","commit":"c","options":"","seed":0}'
exit $2
ACT
    chmod +x "$suite/gpu_bench"
}
run_suite() { # run_suite CODE: into $dir/results
    PATH=/usr/bin:/bin "$suite/run" "$dir/results" >"$dir/out" 2>"$dir/err"
    code=$?
    [ "$code" -eq "$1" ] || { echo "    exit $code, expected $1"; return 1; }
}
fields='bench case value unit n min median max roofs bound fraction machine isa commit options seed'
lines_are_whole() {
    [ -s "$dir/results/results.jsonl" ] || return 1
    while read -r line; do
        for field in $fields; do
            case $line in *"\"$field\":"*) ;; *) echo "    no $field in $line"; return 1 ;; esac
        done
    done <"$dir/results/results.jsonl"
}
act 0 0
check "a run where all is well" run_suite 0
check "every line has the fields of a bench" lines_are_whole
equal_cases() { [ "$(grep -c '"gpu-parity".*"value":1,' "$dir/results/results.jsonl")" -eq 10 ]; }
check "a line a case" equal_cases
named() { grep -q "| engine | not run: the program is not in this folder |" "$dir/results/summary.md" &&
    grep -q "| roof read | 7 | 6 ... 8 | GB/s |" "$dir/results/summary.md"; }
check "what did not run is named, what did is in a table" named

# A program whose texts all have one digest, but for those of $1.
act_tandem() {
    cat >"$suite/tandem" <<ACT
#!/bin/sh
digest=ab
case "\$*" in *"$1"*) digest=cd ;; esac
echo "{\"tok_per_s\":50.5,\"tokens_per_pass\":2.5,\"logits_digest\":\"\$digest\"}"
ACT
    chmod +x "$suite/tandem"
}
act_tandem nothing-of-this
check "models whose texts agree" run_suite 0
engine_lines() { lines_are_whole && [ "$(grep -c '"gpu-engine"' "$dir/results/results.jsonl")" -eq 17 ]; }
check "a line a text" engine_lines
run_pairs() {
    PATH=/usr/bin:/bin "$suite/run" --pairs "$dir/results" >"$dir/out" 2>"$dir/err" && lines_are_whole &&
        [ "$(grep -c '"gpu-engine".*Q4_0 synthetic pair' "$dir/results/results.jsonl")" -eq 32 ] &&
        ! grep -q gpu-parity "$dir/results/results.jsonl"
}
check "large pairs alone: two shapes, two agreements, two temperatures, four ways" run_pairs
act_tandem "--ahead on --draft-device cpu"
check "a text that differs is a failure" run_suite 1
differs() { [ "$(grep -c 'digest cd, the CPU' "$dir/results/summary.md")" -eq 3 ]; }
check "and named" differs
printf '#!/bin/sh\necho "it is acted" >&2\nexit 1\n' >"$suite/tandem"
check "a program that has no such device is no failure" run_suite 0
refused() { grep -q "| engine | not run: it is acted |" "$dir/results/summary.md"; }
check "but is named with its sentence" refused
rm "$suite/tandem"

act 4 0
check "no GPU: says so and ends with 4" run_suite 4
said_so() { err_has "no GPU"; }
check "and with its sentence" said_so
act 0 3
check "a bench that fails is a failure" run_suite 1
act 0 0
cat >"$suite/gpu_parity" <<'ACT'
#!/bin/sh
printf '# suite rows on Acted\n[       OK ] norms\n[  FAILED  ] swiglu\n[  FAILED  ] swiglu\n'
exit 1
ACT
check "a difference is a failure" run_suite 1
counted() { grep -q "1 of 2 cases differ" "$dir/results/summary.md"; }
check "and counted once" counted
cat >"$suite/gpu_parity" <<'ACT'
#!/bin/sh
printf '# suite rows on Acted\n[       OK ] norms\n'
exec sleep 60
ACT
PARITY_SECONDS=1
export PARITY_SECONDS
check "a program that hangs is stopped" run_suite 1

# ---- the folder itself ----
packed=build/gpu-suite
if [ ! -x "$packed/gpu_bench" ]; then
    echo "ok - the folder's needs # SKIP build/gpu-suite is not built (make gpu-suite, with nvcc)"
else
    needs() { readelf -d "$1" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | grep -vE '^(libc|libm|libpthread|libdl|librt|ld-linux-x86-64)\.so'; }
    needs_little() { [ -z "$(needs "$packed/gpu_bench")" ] && [ "$(needs "$packed/gpu_parity")" = libcmocka.so.0 ] && [ -f "$packed/lib/libcmocka.so.0" ]; }
    check "programs need libc and what lies beside them" needs_little
    if [ -e /dev/nvidia0 ]; then
        echo "ok - without a GPU # SKIP there is one"
    else
        says_no_gpu() { "$packed/run" "$dir/packed" >"$dir/out" 2>"$dir/err"; [ $? -eq 4 ] && err_has "no GPU"; }
        check "the packed runner says that there is no GPU" says_no_gpu
    fi
fi
exit $failed
