#!/bin/sh
# texts: whole texts through the program. What a device writes is what the CPU writes, bit for bit: the digest of the
# logits that chose it says so. Read by `run`, whose words it uses.

stories=models/stories15M.Q8_0.gguf stories_draft=models/stories-draft.gguf
json_of() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$2" | head -n 1; }

# write_text FILE ARGUMENTS...: what `tandem run` says of it, into FILE
write_text() {
    file=$1 seconds=$(stage_left)
    shift
    [ "$seconds" -le 40 ] || seconds=40
    [ "$seconds" -ge 2 ] || { echo "the stage's time is used up" >"$file.log"; return 5; }
    limited "$seconds" "$tandem" run --json --quiet --ignore-eos --prompt "Once upon a time" \
        --max-tokens "$([ "$size" = full ] && echo 96 || echo 8)" "$@" >"$file" 2>"$file.log"
    code=$?
    [ "$code" -ne 124 ] || echo "stopped after $seconds s" >>"$file.log"
    return "$code"
}

# same NAME HOST-FILE ARGUMENTS...: the device's text has the digest of the host's
same() {
    name=$1 host=$2
    shift 2
    write_text "$out/device.json" "$@"
    code=$?
    if [ "$code" -eq 5 ]; then
        put gpu-text "\"text\":\"$name\"" null equal "not run: $(tail -n 1 "$out/device.json.log")"
    elif [ "$code" -ne 0 ]; then
        n_differ=$((n_differ + 1))
        put gpu-text "\"text\":\"$name\"" 0 equal "no text: $(tail -n 1 "$out/device.json.log")"
    elif [ "$(json_of logits_digest "$host")" = "$(json_of logits_digest "$out/device.json")" ]; then
        n_same=$((n_same + 1))
        put gpu-text "\"text\":\"$name\"" 1 equal "digest $(json_of logits_digest "$host"), $(json_of tok_per_s "$out/device.json") tok/s"
    else
        n_differ=$((n_differ + 1))
        put gpu-text "\"text\":\"$name\"" 0 equal "digest $(json_of logits_digest "$out/device.json"), the CPU's is $(json_of logits_digest "$host")"
    fi
}

same_in_every_way() { # NAME OPTIONS...
    what=$1
    shift
    write_text "$out/host.json" --target "$stories" --draft none "$@" || {
        put gpu-text "\"text\":\"$what\"" null equal "not run: no text on the CPU: $(tail -n 1 "$out/host.json.log")"
        return
    }
    on_gpu="--target $stories --target-device cuda:0"
    drafted="--draft $stories_draft --k 4"
    # shellcheck disable=SC2086 # words
    {
        same "plain, $what" "$out/host.json" $on_gpu --draft none "$@"
        same "in turn, draft on the GPU, $what" "$out/host.json" $on_gpu $drafted --ahead off --draft-device cuda:0 "$@"
        same "ahead, two streams, $what" "$out/host.json" $on_gpu $drafted --ahead on --draft-device cuda:0 "$@"
        same "ahead, draft on the cores, $what" "$out/host.json" $on_gpu $drafted --ahead on --draft-device cpu "$@"
        same "ahead, parts of the GPU, $what" "$out/host.json" --target "$stories" --target-device cuda:0/-16 $drafted \
            --ahead on --draft-device cuda:0/16 "$@"
    }
}

run_texts() {
    n_same=0 n_differ=0
    if [ ! -x "$tandem" ]; then
        note texts not-run "not run: the program is not in this folder"
        return
    fi
    same_in_every_way "temperature 0" --temperature 0
    same_in_every_way "temperature 1" --temperature 1 --seed 7
    same_in_every_way "temperature 1 with filters" --temperature 1 --seed 7 --top-k 40 --top-p 0.9 --repetition-penalty 1.1
    if [ "$n_differ" -gt 0 ]; then
        note texts failed "$n_differ of $((n_same + n_differ)) texts differ or did not come"
    elif [ "$n_same" -gt 0 ]; then
        note texts ok "$n_same texts from the CPU's logits, bit for bit"
    else
        note texts not-run "not run: $(tail -n 1 "$out/host.json.log")"
    fi
}
