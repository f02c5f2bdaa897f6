# engine: whole models on the device, through the program. Read by `run`, whose words it uses.
#
# What is written must be what the CPU writes, bit for bit: the digest of the logits that chose it says so. Then
# speeds, of one run each: plain, drafting and verifying in turn, drafting while verifying.

engine_begin=$(date +%s)
tandem=$here/tandem
stories=$here/models/stories15M.Q8_0.gguf stories_draft=$here/models/stories-draft.gguf
engine_left() { echo $((engine_seconds - ($(date +%s) - engine_begin))); }
json_of() { sed -n "s/.*\"$1\": *\"\{0,1\}\([^\",}]*\).*/\1/p" "$2" | head -n 1; }

# write_text FILE SECONDS ARGUMENTS...: what `tandem run` says of it, into FILE
write_text() {
    file=$1 seconds=$2
    shift 2
    left=$(engine_left)
    [ "$left" -lt "$seconds" ] && seconds=$left
    [ "$seconds" -ge 3 ] || { echo "the time for models is used up" >"$file.log"; return 1; }
    timeout -k 5 "$seconds" "$tandem" run --json --quiet --ignore-eos "$@" >"$file" 2>"$file.log" </dev/null
    code=$?
    [ "$code" -ne 124 ] || echo "stopped after $seconds s" >>"$file.log"
    return "$code"
}
# The line of one text: tokens a second, and how they came about.
put_text() { # put_text NAME FILE
    rate=$(json_of tok_per_s "$2")
    [ -n "$rate" ] || return 1
    printf '{"bench":"gpu-engine","case":{"text":"%s","tokens_per_pass":%s,"digest":"%s"},"value":%s,"unit":"tok/s","n":1,"min":%s,"median":%s,"max":%s,"roofs":{},"bound":null,"fraction":null,"machine":"%s","isa":"%s","commit":"%s","options":"","seed":7}\n' \
        "$1" "$(json_of tokens_per_pass "$2")" "$(json_of logits_digest "$2")" "$rate" "$rate" "$rate" "$rate" "$machine" "$isa" "$commit" >>"$results"
}

# same NAME HOST-FILE ARGUMENTS...: the device's text has the digest of the host's
same() {
    name=$1 host=$2
    shift 2
    if ! write_text "$out/device.json" 40 --target "$stories" --prompt "Once upon a time" --max-tokens 96 "$@"; then
        failed=1
        note "engine: $name" "no text: $(tail -n 1 "$out/device.json.log")"
    elif [ "$(json_of logits_digest "$host")" = "$(json_of logits_digest "$out/device.json")" ]; then
        put_text "$name" "$out/device.json"
        note "engine: $name" "the CPU's text from the CPU's logits, digest $(json_of logits_digest "$host")"
    else
        failed=1
        note "engine: $name" "digest $(json_of logits_digest "$out/device.json"), the CPU's is $(json_of logits_digest "$host")"
    fi
}

equal_texts() {
    on_gpu="--target-device cuda:0"
    for how in "--temperature 0" "--temperature 1 --seed 7" "--temperature 1 --seed 7 --top-k 40 --top-p 0.9 --repetition-penalty 1.1"; do
        # shellcheck disable=SC2086 # words
        write_text "$out/host.json" 40 --target "$stories" --prompt "Once upon a time" --max-tokens 96 --draft none $how || {
            note "engine: $how" "not run: no text on the CPU: $(tail -n 1 "$out/host.json.log")"
            continue
        }
        # shellcheck disable=SC2086
        same "stories, plain $how" "$out/host.json" --draft none $on_gpu $how
        # shellcheck disable=SC2086
        same "stories, draft on the GPU, K 4 $how" "$out/host.json" --draft "$stories_draft" --k 4 --ahead off --draft-device cuda:0 $on_gpu $how
        # shellcheck disable=SC2086
        same "stories, ahead, draft on the CPU $how" "$out/host.json" --draft "$stories_draft" --k 4 --ahead on --draft-device cpu $on_gpu $how
        # shellcheck disable=SC2086
        same "stories, ahead, draft on the GPU $how" "$out/host.json" --draft "$stories_draft" --k 4 --ahead on --draft-device cuda:0 $on_gpu $how
    done
}

# speed NAME SECONDS ARGUMENTS...
speed() {
    name=$1 seconds=$2
    shift 2
    if write_text "$out/speed.json" "$seconds" --ids 1,2,3,4 --target-device cuda:0 "$@" &&
        put_text "$name" "$out/speed.json"; then
        note "engine: $name" "$(json_of tok_per_s "$out/speed.json") tok/s, $(json_of tokens_per_pass "$out/speed.json") tokens a pass, digest $(json_of logits_digest "$out/speed.json")"
    else
        note "engine: $name" "not run: $(tail -n 1 "$out/speed.json.log")"
    fi
}
speeds() {
    pair=synth:pair=llama-1b,q8_0,agree=0.8,seed=1
    speed "llama-1b Q8_0 pair, plain" 40 --target "$pair" --draft none --max-tokens 256
    speed "llama-1b Q8_0 pair, in turn" 40 --target "$pair" --ahead off --draft-device cuda:0 --max-tokens 256
    speed "llama-1b Q8_0 pair, ahead, draft on the GPU" 40 --target "$pair" --ahead on --draft-device cuda:0 --max-tokens 256
    speed "llama-1b Q8_0 pair, ahead, draft on the CPU" 40 --target "$pair" --ahead on --draft-device cpu --max-tokens 256
    speed "llama-8b Q4_0, plain" 60 --target synth:llama-8b,q4_0,seed=1 --draft none --max-tokens 128
}

# Each way to decode a planted pair. What the time does not last for is named.
pair_speeds() {
    for shape in llama-8b,q4_0,draft=smol-135m llama-70b,q4_0,draft=llama-1b; do
        for agree in 0.8 0.89; do
            for temperature in 0 1; do
                pair=synth:pair=$shape,agree=$agree,tail=1,seed=1
                name="${shape%%,*} Q4_0 synthetic pair, agreement $agree, temperature $temperature"
                how="--max-tokens 192 --seed 7 --context 1024"
                # shellcheck disable=SC2086 # words
                {
                    speed "$name, plain" 90 --target "$pair" --draft none $how --temperature $temperature
                    speed "$name, in turn" 90 --target "$pair" --ahead off --draft-device cuda:0 $how --temperature $temperature
                    speed "$name, ahead, draft on the GPU" 90 --target "$pair" --ahead on --draft-device cuda:0 $how --temperature $temperature
                    speed "$name, ahead, draft on the CPU" 90 --target "$pair" --ahead on --draft-device cpu $how --temperature $temperature
                }
            done
        done
    done
}

if [ ! -x "$tandem" ]; then
    note engine "not run: the program is not in this folder"
elif ! write_text "$out/first.json" 30 --target "$stories" --prompt x --max-tokens 2 --draft none --target-device cuda:0; then
    note engine "not run: $(tail -n 1 "$out/first.json.log")"
elif [ "$stages" = pairs ]; then
    pair_speeds
else
    equal_texts
    speeds
fi
