#!/bin/sh
# The folder that travels: programs without their symbols, the libraries they need beside libc, models, the
# runner. Says its size; fails when it is larger than it may be.
# usage: gpu/pack.sh BUILD FOLDER LIMIT_MB
set -eu
build=$1 folder=$2 limit_mb=$3
rm -rf "$folder"
mkdir -p "$folder/lib" "$folder/models"
for program in "$build/gpu/gpu_parity" "$build/gpu/gpu_bench" "$build/gpu/gpu_models" "$build/tandem"; do
    strip -o "$folder/${program##*/}" "$program"
    ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
        grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so' |
        while read -r library; do cp -L "$library" "$folder/lib/"; done || true
done
cp models/*.gguf models/*.ids "$folder/models/"
cp gpu/table.awk gpu/stages.sh gpu/texts.sh "$folder/"
cp gpu/run.sh "$folder/run"
chmod +x "$folder/run"
git describe --always --dirty --exclude='*' >"$folder/commit" 2>/dev/null || echo unknown >"$folder/commit"
size_kb=$(du -sk "$folder" | cut -f1)
echo "$folder: $((size_kb / 1024)).$((size_kb % 1024 * 10 / 1024)) MB"
[ "$size_kb" -le $((limit_mb * 1024)) ] || { echo "expected at most $limit_mb MB" >&2; exit 1; }
