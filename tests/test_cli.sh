#!/bin/sh
# The program as people meet it: what goes where, exit codes, one sentence for what is wrong.
# usage: tests/test_cli.sh PROGRAM      from the root of the tree; needs nothing but sh and coreutils
. tests/cases.sh
story="Once upon a time"
model=models/stories15M.Q8_0.gguf

# says CODE TEXT ARGUMENTS...: fails with one sentence that has TEXT, and writes nothing to stdout
says() {
    code_wanted=$1 text=$2
    shift 2
    run_it "$code_wanted" "$@" && err_has "$text" && [ ! -s "$dir/out" ] &&
        [ "$(wc -l <"$dir/err")" -eq 1 ]
}

# ---- help and wrong usage ----
help_page() { run_it 0 --help && out_has tokenize && [ ! -s "$dir/err" ]; }
verb_help() { run_it 0 run --help && out_has -- --max-tokens && run_it 0 help bench && out_has prefill; }
no_verb() { run_it 2 && [ ! -s "$dir/out" ] && err_has usage; }
version() { run_it 0 --version && out_has '^tandem '; }
check "help goes to standard output" help_page
check "every verb has its help" verb_help
check "no verb is wrong usage" no_verb
check "version" version
check "unknown verb names the nearest" says 2 "nearest is 'run'" runn
check "unknown option names the nearest" says 2 "--max-tokens" run --max-tokns 3
check "unknown value names the nearest" says 2 "'f16'" run --kv f17
check "value out of range" says 2 "from 1 to" run --threads 0
check "more threads than cores" says 2 "may use" run -p a --threads 256
check "two prompts" says 2 "one prompt" run -p a --ids 1
check "verbs not built are refused" says 1 "not built yet" serve
check "plans that a CPU does not have are refused" says 1 "the plan on a CPU is exact" run --plan native -p a
check "logits are exact" says 1 "found --plan fast" logits --plan fast --ids 1 --out "$dir/never"
check "a draft that is not there is refused" says 1 "there is no draft" run --draft model.gguf -p a
check "a draft worker by no address" says 1 "expected tcp:HOST:PORT" run --draft tcp://host -p a
check "a fan-out that is none" says 2 "geometric, learned, uniform or list" run -p a --fanout even
check "a fan-out of too many" says 2 "adds up to 1 to 64" run -p a --fanout list:60,5
check "k is a number or auto" says 2 "auto or a number" run -p a --k many
# ---- drafts ----
digest_of() { "$tandem" run -p "$story" -n 40 --ignore-eos "$@" --json 2>"$dir/err" | sed -n 's/.*"logits_digest":"\([0-9a-f]*\)".*/\1/p'; }
plain_digest=$(digest_of --draft none)
same_text() { [ -n "$plain_digest" ] && [ "$(digest_of "$@")" = "$plain_digest" ]; }
check "default draft, same digest" same_text
check "ngram, same digest" same_text --draft ngram --k 4
check "suffix, same digest" same_text --draft suffix --k 4
check "layerskip, same digest" same_text --draft layerskip:3 --k 2
check "two drafts, same digest" same_text --draft suffix,models/stories-draft.gguf --k 3
check "a draft on a core of its own, same digest" same_text --draft-device cpu --k 3
for way in learned geometric uniform list:3,2,1; do
    check "fan-out $way, same digest" same_text --draft-device cpu --k 3 --fanout $way
done
check "a draft on a core of its own without help, same digest" same_text --draft-device cpu --lend off --k 3
check "a device for a draft that computes nothing" says 1 "there is none" run --draft ngram --draft-device cpu -p a
traced() {
    same_text --k 3 --trace "$dir/trace" && grep -q '"name":"verify"' "$dir/trace" && tail -n 1 "$dir/trace" | grep -qx ']}'
}
drawn() {
    run_it 0 run -p "$story" -n 30 --k 4 --ahead on --timeline && err_has '^target  *V' && err_has '^V verify' &&
        err_has 'drafted ahead: ' && run_it 0 run -p "$story" -n 30 --k 4 --ahead on --json &&
        out_has '"ahead":{"hits":' && out_has '"fallback_seconds":' &&
        run_it 0 run -p "$story" -n 30 --k 4 --ahead on --draft models/stories-draft.gguf,ngram --json &&
        out_has '"ahead":{"hits":' && out_has '"hidden_seconds":'
}
check "the lanes are drawn, and told of" drawn
check "a trace changes nothing and is whole" traced
check "a trace that cannot be written" says 1 "/nowhere/trace" run --trace /nowhere/trace -p a
check "few ids, same digest" same_text --draft-vocab 600 --k 3
check "rejection at temperature 0, same digest" same_text --verify rejection --k 3
check "too many layers to skip" says 1 "from 1 to 6 layers" run --draft layerskip:9 -p a
check "a draft of another vocabulary" says 1 "vocabular" run --draft synth:tiny,q8_0 -p a
check "a draft twice" says 1 "one draft model" run --draft models/stories-draft.gguf,models/stories-draft.gguf -p a
check "none among others" says 1 "stand alone" run --draft ngram,none -p a
check "no such list of ids" says 1 "nowhere" run --draft-vocab "$dir/nowhere" -p a
explained() {
    "$tandem" run -p "$story" -n 30 --k 4 --explain >"$dir/out" 2>"$dir/err" </dev/null || return 1
    grep -q '{model:' "$dir/out" && grep -q 'the rest is the target' "$dir/err" && grep -q 'by position' "$dir/err"
}
check "explain shows who guessed what" explained

check "unknown bench names the nearest" says 2 "'decode'" bench decod
check "logits needs ids and out" says 2 "--ids" logits
environment() { TANDEM_THREADS=many says 2 "TANDEM_THREADS" run -p a; }
check "environment is checked too" environment

# ---- run ----
run_text() {
    run_it 0 run -p "$story" -n 24 --threads 1 && [ "$(wc -c <"$dir/out")" -gt 40 ] &&
        err_has 'tok/s' && err_has 'digest' && err_has 'fingerprint'
}
check "run writes text, and speed and digest beside it" run_text
cp "$dir/out" "$dir/story"
run_quiet() { run_it 0 run -p "$story" -n 24 --quiet && cmp -s "$dir/out" "$dir/story" && [ ! -s "$dir/err" ]; }
check "quiet" run_quiet
run_stdin() {
    printf %s "$story" | "$tandem" run -n 24 --quiet >"$dir/out" 2>"$dir/err" && cmp -s "$dir/out" "$dir/story"
}
check "prompt from standard input" run_stdin
run_file() {
    printf %s "$story" >"$dir/prompt" && run_it 0 run --prompt-file "$dir/prompt" -n 24 --quiet &&
        cmp -s "$dir/out" "$dir/story"
}
check "prompt from a file" run_file
run_ids() { run_it 0 run --ids 1,9038,2501,263,931 -n 24 --quiet && cmp -s "$dir/out" "$dir/story"; }
check "prompt as ids" run_ids
run_json() {
    run_it 0 run -p "$story" -n 24 --json || return 1
    [ "$(wc -l <"$dir/out")" -eq 1 ] || return 1
    for key in text prompt_ids token_ids finish_reason seed seconds load prefill decode first_token_ms \
        tok_per_s target_passes tokens_per_pass logits_digest fingerprint plan roof draft; do
        out_has "\"$key\":" || { echo "    no $key"; return 1; }
    done
    out_has '"finish_reason":"length"' && out_has '"plan":"exact"' && out_has '"draft":{"kind":"' &&
        field logits_digest "$dir/out" | grep -qx '[0-9a-f]\{16\}'
}
check "run --json has every field" run_json
digest=$(field logits_digest "$dir/out")
fingerprint=$(field fingerprint "$dir/out")
same_digest() {
    "$@" "$tandem" run -p "$story" -n 24 --json >"$dir/out" 2>"$dir/err" &&
        [ "$(field logits_digest "$dir/out")" = "$digest" ] &&
        [ "$(field fingerprint "$dir/out")" = "$fingerprint" ]
}
check "same digest in scalar code" same_digest env TANDEM_ISA=scalar
if grep -q avx512_vnni /proc/cpuinfo; then
    check "same digest in avx2 and avx512" same_digest env TANDEM_ISA=avx2
fi
check "same digest on one thread" same_digest env TANDEM_THREADS=1
check "same digest for prompt chunks of 1" same_digest env TANDEM_PREFILL_CHUNK=1
check "same digest for pages of 16" same_digest env TANDEM_PAGE=16
seeded() {
    run_it 0 run -p "$story" -n 24 -t 0.9 -s 7 --quiet && cp "$dir/out" "$dir/seven" &&
        run_it 0 run -p "$story" -n 24 -t 0.9 -s 7 --quiet && cmp -s "$dir/out" "$dir/seven" &&
        run_it 0 run -p "$story" -n 24 -t 0.9 -s 8 --quiet && ! cmp -s "$dir/out" "$dir/seven"
}
large_seed() {
    run_it 0 run -p "$story" -n 2 -s 18446744073709551615 --json && out_has '"seed":"18446744073709551615"' &&
        echo '{"prompt":"x","max_tokens":2,"seed":"18446744073709551615"}' | "$tandem" batch - >"$dir/out" 2>"$dir/err" &&
        out_has '"seed":"18446744073709551615"' &&
        ! echo '{"prompt":"x","seed":"18446744073709551616"}' | "$tandem" batch - >"$dir/out" 2>/dev/null
}
check "seeds of 64 bits" large_seed
check "a seed repeats a text, another gives another" seeded
stops() { run_it 0 run -p "$story" --stop girl --json && out_has '"finish_reason":"stop"' && ! out_has '"text":"[^"]*girl'; }
check "stop text" stops

# ---- --sampling model ----
# le VALUE BYTES: a number as files hold it. key NAME TYPE: a GGUF key up to its value.
le() {
    value=$1 left=$2
    while [ "$left" -gt 0 ]; do
        # shellcheck disable=SC2059 # the byte is an escape sequence
        printf "\\$(printf %03o $((value % 256)))"
        value=$((value / 256)) left=$((left - 1))
    done
}
key() { le ${#1} 8; printf %s "$1"; le "$2" 4; }
# advise FILE TEMPERATURE: the model with keys of its makers' advice and a chat template, in a block of
# 192 bytes so that tensors stay aligned. Floats by their bits: 1.5 is 1069547520, 0.75 is 1061158912.
advise() {
    {
        head -c 16 $model
        le $(($(od -An -tu1 -j16 -N1 $model) + 4)) 1
        head -c 24 $model | tail -c 7
        key general.sampling.temp 6; le "$2" 4
        key general.sampling.top_k 5; le 20 4
        key general.sampling.top_p 6; le 1061158912 4
        key tokenizer.chat_template 8; le 36 8; printf %-36s '<|im_start|>'
        tail -c +25 $model
    } >"$1"
}
advise "$dir/advised.gguf" 1069547520
advised() { run_it 0 run -m "$dir/advised.gguf" -p "$story" -n 24 -s 7 "$@"; }
wanted() { run_it 0 run -p "$story" -n 24 -s 7 --quiet "$@" && cp "$dir/out" "$dir/wanted"; }
sampling_unasked() { wanted && advised && cmp -s "$dir/out" "$dir/wanted" && ! err_has advises; }
check "advice is not used unasked" sampling_unasked
sampling_model() {
    wanted -t 1.5 --top-k 20 --top-p 0.75 && ! cmp -s "$dir/wanted" "$dir/story" &&
        advised --sampling model && cmp -s "$dir/out" "$dir/wanted" &&
        err_has 'as the model advises: temperature 1.5, top-k 20, top-p 0.75$'
}
check "--sampling model takes the makers' advice and says which" sampling_model
sampling_given() {
    wanted -t 0.9 --top-k 3 --top-p 0.75 &&
        TANDEM_TOP_K=3 advised --sampling model -t 0.9 && cmp -s "$dir/out" "$dir/wanted" &&
        err_has 'as the model advises: top-p 0.75$'
}
check "what is given wins over advice" sampling_given
sampling_batch() {
    wanted -t 1.5 --top-k 20 --top-p 0.75 --json && cp "$dir/wanted" "$dir/first" &&
        wanted -t 0.9 --top-k 20 --top-p 0.75 --json &&
        printf '%s\n' "{\"prompt\":\"$story\",\"max_tokens\":24,\"seed\":7}" >"$dir/lines" &&
        run_it 0 batch -m "$dir/advised.gguf" --sampling model "$dir/lines" &&
        [ "$(field logits_digest "$dir/out")" = "$(field logits_digest "$dir/first")" ] &&
        [ "$(field text "$dir/out")" = "$(field text "$dir/first")" ] &&
        sed -i 's/"seed"/"temperature":0.9,"seed"/' "$dir/lines" &&
        run_it 0 batch -m "$dir/advised.gguf" --sampling model "$dir/lines" &&
        [ "$(field text "$dir/out")" = "$(field text "$dir/wanted")" ]
}
check "batch takes advice where neither line nor options say" sampling_batch
sampling_chat() {
    printf 'Hi\n' | "$tandem" chat -m "$dir/advised.gguf" -n 8 -s 7 --sampling model \
        >"$dir/out" 2>"$dir/err" && err_has 'temperature 1.5' && cp "$dir/out" "$dir/wanted" &&
        printf 'Hi\n' | "$tandem" chat --chat-format chatml -n 8 -s 7 -t 1.5 --top-k 20 --top-p 0.75 \
            >"$dir/out" 2>"$dir/err" && cmp -s "$dir/out" "$dir/wanted"
}
check "chat takes advice" sampling_chat
check "a model without advice says so" run_it 0 run -p a -n 1 --sampling model
sampling_quantized() {
    run_it 0 quantize "$dir/advised.gguf" "$dir/advised4.gguf" q4_0 &&
        run_it 0 run -m "$dir/advised4.gguf" -p a -n 1 --sampling model && err_has 'temperature 1.5, top-k 20' &&
        rm "$dir/advised4.gguf"
}
check "a quantized file keeps the advice" sampling_quantized
inspect_advised() {
    run_it 0 inspect "$dir/advised.gguf" && out_has '^chat format: chatml$' &&
        out_has '^sampling advised: temperature 1.5, top-k 20, top-p 0.75 (used with --sampling model)$' &&
        run_it 0 inspect "$dir/advised.gguf" --json && out_has '"chat_format":"chatml"'
}
check "inspect shows advice and the chat format" inspect_advised
advise "$dir/advised.gguf" 1128792064
check "advice beyond what can be is refused" says 1 'advises temperature 200' \
    run -m "$dir/advised.gguf" -p a --sampling model
check "and hurts no one who does not ask" run_it 0 run -m "$dir/advised.gguf" -p a -n 1 --sampling model -t 1
rm "$dir/advised.gguf"

# ---- files that are wrong ----
head -c 1000000 $model >"$dir/cut.gguf"
printf 'this is not a model\n' >"$dir/text.gguf"
check "missing file" says 1 "missing.gguf" run -m "$dir/missing.gguf" -p a
check "cut file" says 1 "cut or wrong" run -m "$dir/cut.gguf" -p a
check "file of another kind" says 1 "GGUF" run -m "$dir/text.gguf" -p a
check "missing prompt file" says 1 "nowhere" run --prompt-file "$dir/nowhere"
check "id outside the vocabulary" says 1 "32000" run --ids 1,32000
check "id that is no number" says 2 "one" run --ids 1,one
check "empty ids" says 2 "no id" run --ids ,
check "prompt longer than the context" says 1 "4" run -p "$story, there was a girl" --context 4
check "too little memory says how much" says 1 "[0-9]" run -p a --memory 1M
check "context over the model's" says 1 "256" run -p a --context 100000

# ---- ends that are not the program's ----
full_disk() {
    "$tandem" run -p "$story" -n 4 --quiet >/dev/full 2>"$dir/err"
    [ $? -eq 1 ] && err_has "cannot write"
}
check "full disk" full_disk
gone_reader() {
    { "$tandem" run -p "$story" -n 200 --quiet 2>"$dir/err"; echo $? >"$dir/code"; } | head -c 1 >/dev/null
    [ "$(cat "$dir/code")" -eq 1 ] && err_has "cannot write"
}
check "reader that is gone" gone_reader
interrupted() {
    "$tandem" run -m synth:llama-1b,q4_0,layers=2,vocab=8192 --ids 1,2,3 --json >"$dir/out" 2>"$dir/err" &
    pid=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do # not heard before the model is loaded
        sleep 2
        kill -INT $pid 2>/dev/null || break
    done
    wait $pid
    code=$?
    [ "$code" -eq 130 ] || { echo "    exit $code, expected 130"; return 1; }
    out_has '"finish_reason":"cancelled"' && out_has '"token_ids":\[[0-9]'
}
check "Ctrl-C ends with what was written" interrupted

# ---- batch ----
cat >"$dir/requests" <<LINES
{"id":"a","prompt":"$story","max_tokens":24}
{"id":7,"ids":[1,9038,2501,263,931],"max_tokens":24,"temperature":0}

{"prompt":"The dragon","max_tokens":8,"temperature":0.8,"seed":3,"stop":["."]}
LINES
batch_good() {
    run_it 0 batch "$dir/requests" --max-batch 3 && [ "$(wc -l <"$dir/out")" -eq 3 ] &&
        grep '"id":"a"' "$dir/out" | grep -q "\"logits_digest\":\"$digest\"" &&
        grep '"id":7' "$dir/out" | grep -q "\"logits_digest\":\"$digest\"" && out_has '"id":4'
}
check "batch runs all, with the digests of runs alone" batch_good
cat >>"$dir/requests" <<'LINES'
not json
{"id":"m","messages":[]}
{"id":"t","prompt":"x","max_token":3}
{"id":"v","ids":[99999]}
{"id":"e"}
{"id":"r","prompt":"x","temperature":-1}
LINES
batch_bad() {
    run_it 1 batch "$dir/requests" && [ "$(wc -l <"$dir/out")" -eq 9 ] &&
        [ "$(grep -c '"error":' "$dir/out")" -eq 6 ] && grep '"id":"t"' "$dir/out" | grep -q max_tokens &&
        grep '"id":"a"' "$dir/out" | grep -q "$digest" && out_has '"id":5'
}
check "bad lines hurt no other" batch_bad
batch_stdin() { head -n 1 "$dir/requests" | "$tandem" batch - >"$dir/out" 2>"$dir/err" && out_has "$digest"; }
check "batch from standard input" batch_stdin
check "batch of a missing file" says 1 "none.jsonl" batch "$dir/none.jsonl"

# ---- logits ----
logits_file() {
    run_it 0 logits --ids 1,9038,2501 --out "$dir/a.f32" --json &&
        [ "$(wc -c <"$dir/a.f32")" -eq $((3 * 32000 * 4)) ] &&
        TANDEM_PREFILL_CHUNK=1 run_it 0 logits --ids 1,9038,2501 --out "$dir/b.f32" --threads 1 --isa scalar &&
        cmp -s "$dir/a.f32" "$dir/b.f32" &&
        run_it 0 logits --ids 1,9038,2501 --out - && cmp -s "$dir/a.f32" "$dir/out"
}
check "logits, alike for any chunk, thread and instruction set" logits_file
logits_full() {
    ln -sf /dev/full "$dir/full" && says 1 "No space" logits --ids 1,2 --out "$dir/full" && [ -c "$dir/full" ]
}
check "logits to a full disk" logits_full
check "logits of an id outside the vocabulary" says 1 "32000" logits --ids 40000 --out "$dir/c.f32"

# ---- text and ids ----
tokens() { run_it 0 tokenize "$story" && [ "$(cat "$dir/out")" = "1 9038 2501 263 931" ]; }
check "tokenize" tokens
tokens_json() {
    run_it 0 tokenize --json --no-special "$story" && [ "$(cat "$dir/out")" = '{"ids":[9038,2501,263,931]}' ]
}
check "tokenize --json --no-special" tokens_json
printf 'caf\303\251 \377\000\n  two  spaces\342\202' >"$dir/bytes"
round_trip() {
    "$tandem" tokenize <"$dir/bytes" >"$dir/ids" 2>"$dir/err" &&
        "$tandem" detokenize <"$dir/ids" >"$dir/out" 2>"$dir/err" && cmp -s "$dir/bytes" "$dir/out" &&
        "$tandem" tokenize --json <"$dir/bytes" | "$tandem" detokenize >"$dir/out" && cmp -s "$dir/bytes" "$dir/out"
}
check "bytes come back as they were" round_trip
ids_as_arguments() { run_it 0 detokenize 1 9038 2501 263 931 && [ "$(cat "$dir/out")" = "$story" ]; }
check "detokenize arguments" ids_as_arguments
check "detokenize outside the vocabulary" says 1 "32000" detokenize 32000

# ---- inspect, synth, doctor, bench ----
inspect() { run_it 0 inspect $model && out_has llama && out_has 'token_embd.weight' && run_it 0 inspect $model --json && out_has '"runs":true'; }
check "inspect" inspect
inspect_more() {
    run_it 0 inspect $model && out_has 'a position at f16' && out_has 'tokenizer: llama, 32000 tokens' &&
        out_has 'chat format: not known: the model names no chat format' && ! out_has ' MB  $' &&
        out_has '# Q8_0 *43 tensors' && out_has '^  layer 0 and 5 more .* #*$' &&
        run_it 0 inspect synth:llama-70b,q4_0 --json && out_has '"kv_bytes_per_position":327680' &&
        out_has 'no vocabulary: ids go in and out'
}
check "inspect says memory, types, where the bytes are and what hinders" inspect_more
check "inspect of something else" says 1 "not a GGUF file" inspect "$dir/text.gguf"
synth() {
    run_it 0 synth tiny,q8_0,seed=3 && out_has parameters &&
        run_it 0 synth tiny,q8_0,seed=3 --out "$dir/tiny.gguf" && run_it 0 inspect "$dir/tiny.gguf" &&
        run_it 0 run -m "$dir/tiny.gguf" --ids 1,2,3 -n 8 --json && cp "$dir/out" "$dir/from_file" &&
        run_it 0 run -m synth:tiny,q8_0,seed=3 --ids 1,2,3 -n 8 --json &&
        [ "$(field logits_digest "$dir/out")" = "$(field logits_digest "$dir/from_file")" ]
}
check "synth, in memory and as a file" synth
synth_pair() {
    pair=pair=tiny,q8_0,draft=tiny,agree=0.7,seed=3
    run_it 0 synth $pair && out_has 'synthetic pair, seed 3' && out_has 'target: tiny Q8_0' &&
        out_has 'draft: tiny Q4_0' && out_has 'agrees after 0.7 of the ids' &&
        run_it 0 synth $pair --json && out_has '"kind":"synthetic pair"' && out_has '"agree":0.7' &&
        out_has '"pass_bytes":' && run_it 0 synth $pair,role=draft --out "$dir/draft.gguf" &&
        run_it 0 run -m "$dir/draft.gguf" --ids 1,2,3 -n 8 --json && cp "$dir/out" "$dir/from_file" &&
        run_it 0 run -m synth:$pair,role=draft --ids 1,2,3 -n 8 --json &&
        [ "$(field logits_digest "$dir/out")" = "$(field logits_digest "$dir/from_file")" ]
}
check "a synthetic pair, described and its draft as a file" synth_pair
check "a pair with an unknown draft" says 1 "did you mean smol-30m" synth pair=tiny,draft=smol-30
quantize() {
    printf '%s, there was a girl. She liked to play. One day she saw a big dog.' "$story" >"$dir/prose"
    run_it 0 quantize $model "$dir/q4.gguf" q4_0 --text "$dir/prose" --threads 1 &&
        out_has 'blk.0.ffn_up.weight *Q8_0 to Q4_0' && out_has 'perplexity of' && [ ! -e "$dir/q4.gguf.part" ] &&
        run_it 0 run -m "$dir/q4.gguf" -p "$story" -n 8 --quiet && [ -s "$dir/out" ] &&
        run_it 0 quantize $model "$dir/same.gguf" Q8_0 --json && out_has '"error_max":0.0' &&
        run_it 0 run -m "$dir/same.gguf" -p "$story" -n 24 --quiet && cmp -s "$dir/out" "$dir/story"
}
check "quantize" quantize
check "quantize over its input" says 2 "is the input" quantize "$dir/q4.gguf" "$dir/q4.gguf" F16
check "quantize over a device" says 1 "no regular file" quantize $model "$dir/full" F16
check "quantize to a type that is not written" says 2 "read but not written" quantize $model "$dir/q.gguf" iq1_s
check "quantize to an unknown type" says 2 "nearest is 'Q4_0'" quantize $model "$dir/q.gguf" q4_9
check "quantize a missing file" says 1 "cannot open" quantize "$dir/none.gguf" "$dir/q.gguf" F16
check "quantize without a type" says 2 "IN OUT TYPE" quantize $model "$dir/q.gguf"
check "unknown synthetic shape" says 1 "llama-1b" synth lama-1b
check "synth over something that is no file" says 1 "no regular file" synth tiny,q8_0 --out "$dir/full"
no_text() { run_it 1 run -m synth:tiny,q8_0 -p a && [ -s "$dir/err" ]; }
check "text for a model without vocabulary" no_text
doctor() { run_it 0 doctor --threads 1 && out_has 'tok/s' && run_it 0 doctor --threads 1 --json && out_has gmac_per_s; }
check "doctor" doctor
bench_fields() {
    run_it 0 bench "$1" --target synth:tiny,q8_0,seed=1 --quick --reps 2 --threads 1 || return 1
    for key in bench case value unit n min median max roofs bound fraction machine isa commit options seed; do
        out_has "\"$key\":" || { echo "    no $key"; return 1; }
    done
}
for name in decode rows prefill scheduler memory speculate batch; do
    check "bench $name has every field" bench_fields $name
done
bench_ssd() {
    run_it 0 bench ssd --quick --reps 1 && [ "$(wc -l <"$dir/out")" -eq 4 ] || return 1
    for key in cost agree k mq cores plain sd ssd predicted hidden served bound fraction; do
        [ "$(grep -c "\"$key\":" "$dir/out")" -eq 4 ] || { echo "    no $key"; return 1; }
    done
    for cores in each shared "virtual target" "virtual pair"; do
        out_has "\"cores\":\"$cores\"" || { echo "    not $cores"; return 1; }
    done
}
if [ "$(nproc)" -ge 2 ]; then
    check "bench ssd measures all placements" bench_ssd
else
    echo "skipped: bench ssd needs two cores"
fi
# Of experts a token reads those it uses: 1 340 928 bytes of this model's 2.96 MB. The bound says how many
# were counted: bytes = bandwidth / bound.
experts=${TANDEM_SHARED:-../shared/data}/golden/models/qwen3-moe
bench_experts() {
    run_it 0 bench decode --target "$experts" --quick --reps 2 --threads 1 || return 1
    bytes=$(sed -n 's/.*"gb_per_s":\([0-9.e+]*\).*"bound":\([0-9.e+]*\).*/\1 \2/p' "$dir/out" |
        awk '{ printf "%d", $1 * 1e9 / $2 / 1000 }')
    [ "$bytes" -ge 1340 ] && [ "$bytes" -le 1341 ] || { echo "    $bytes KB"; return 1; }
    run_it 0 doctor -m "$experts" --threads 1 --json && out_has '"token_bytes":1340928.0'
}
if [ -d "$experts" ]; then
    check "bench decode and doctor count the experts that a token uses" bench_experts
else
    echo "skipped: no golden/models/qwen3-moe"
fi
first_token() { run_it 0 bench first-token --quick --reps 1 && out_has '"unit":"ms"'; }
check "bench first-token" first_token
load() { run_it 0 bench load --quick --reps 1 && out_has '"bench":"load"'; }
check "bench load" load

exit $failed
