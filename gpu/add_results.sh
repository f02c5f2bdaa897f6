#!/bin/sh
# Adds the lines of a run on a GPU machine to those that are kept. Refuses a dry run, lines that are not whole and a
# name that is taken.
# usage: gpu/add_results.sh FOLDER bench/results
set -eu
from=$1 to=$2
fail() { echo "$1" >&2; exit 1; }
[ -d "$from" ] || fail "there is no folder $from; name the one that ./run has written"
n=0
for lines in "$from"/*-gpu-*.jsonl; do
    [ -f "$lines" ] || fail "$from has no lines of a run on a GPU"
    case $lines in *-dry.jsonl) fail "$lines is of a dry run: no measure of anything" ;; esac
    name=$(basename "$lines")
    [ ! -e "$to/$name" ] || fail "$to/$name is there already"
    awk -v name="$name" '
        BEGIN { n = split("bench case value unit n min median max roofs bound fraction machine isa commit options seed", fields, " ") }
        { for (i = 1; i <= n; i++) if (!index($0, "\"" fields[i] "\":")) { printf "%s, line %d: no \"%s\"\n", name, NR, fields[i]; bad = 1; exit 1 } }
        END { if (!bad && NR == 0) { print name ": no lines"; exit 1 } exit bad }' "$lines" >&2 || exit 1
    cp "$lines" "$to/$name"
    echo "$to/$name: $(wc -l <"$to/$name") lines; summary.md beside the original has the table for docs/SPEED.md"
    n=$((n + 1))
done
