# cases: what the test scripts share; each reads it with `. tests/cases.sh`. Sets $tandem, the program
# (the script's first argument), and $dir, a folder of its own. A script ends with `exit $failed`.
set -u
LC_ALL=C
export LC_ALL
tandem=${1:-build/release/tandem}
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
failed=0

# check NAME COMMAND...: a case, ok when the command succeeds
check() {
    name=$1
    shift
    if "$@"; then
        echo "ok - $name"
    else
        echo "not ok - $name"
        sed 's/^/    err: /' "$dir/err" | head -n 3
        failed=1
    fi
}
# run_it CODE ARGUMENTS...: runs tandem into $dir/out and $dir/err, from $dir/in where $input says so,
# and expects the exit code
input=/dev/null
run_it() {
    expected=$1
    shift
    "$tandem" "$@" >"$dir/out" 2>"$dir/err" <"$input"
    code=$?
    [ "$code" -eq "$expected" ] || { echo "    exit $code, expected $expected: $*"; return 1; }
}
out_has() { grep -q -- "$1" "$dir/out"; }
err_has() { grep -q -- "$1" "$dir/err"; }
# field NAME FILE: the first value of that name in JSON
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" "$2" | head -n 1; }
