#!/bin/sh
# The verb chat and "messages" of batch as people meet them: lines in, answers out, commands, refusals.
# usage: tests/test_chat_verb.sh PROGRAM      from the root of the tree
. tests/cases.sh

# chat_with CODE LINES OPTIONS...: a piped conversation, expects the exit code
chat_with() {
    chat_code=$1
    printf '%b' "$2" >"$dir/in"
    shift 2
    input=$dir/in run_it "$chat_code" chat "$@"
}
story="Once upon a time there was a little girl who lived in a house in the woods with her dog"

no_format() { chat_with 1 'hi\n' && err_has 'names no chat format' && [ ! -s "$dir/out" ]; }
check "a model without a template is refused" no_format
nearest() { chat_with 2 '' --chat-format chatlm && err_has "'chatml'"; }
check "an unknown format names the nearest" nearest
answers() { chat_with 0 "$story\\nAnd then?\\n" --chat-format chatml -n 8 && [ "$(wc -l <"$dir/out")" -ge 2 ]; }
check "lines are answered" answers
nothing() { chat_with 0 '' --chat-format chatml && [ ! -s "$dir/out" ]; }
check "no lines, no answers" nothing
remembers() {
    chat_with 0 "$story\\n/stats\\nAnd then?\\n/stats\\n" --chat-format chatml -n 8 --page 16 &&
        grep -q ' 0 of them from the cache' "$dir/err" &&
        tail -n 1 "$dir/err" | grep -q 'prompt tokens, [1-9][0-9]* of them from the cache'
}
check "a second turn finds the first in the cache" remembers
# The same turn after a reset gives the same bits, and another turn does not.
digest_of() { sed -n "s/.*logits digest //p" "$dir/err" | sed -n "$1p"; }
resets() {
    chat_with 0 "$story\\n/stats\\n/reset\\n$story\\n/stats\\n$story\\n/stats\\n" --chat-format chatml -n 8 &&
        [ "$(digest_of 1)" = "$(digest_of 2)" ] && [ "$(digest_of 1)" != "$(digest_of 3)" ]
}
check "/reset forgets what was said" resets
seeds() {
    chat_with 0 "/seed 7\\nHello\\n/stats\\n/seed x\\n" --chat-format chatml -n 4 -t 1 &&
        err_has 'seed 7,' && err_has 'whole number'
}
check "/seed decides the draws" seeds
quits() { chat_with 0 "/help\\n/quit\\nHello\\n" --chat-format chatml -n 4 && [ ! -s "$dir/out" ] && err_has '/reset forgets'; }
check "/help helps and /quit ends" quits
unknown() { chat_with 0 "/rest\\n" --chat-format chatml && err_has '^there is no command /rest; /reset forgets'; }
check "an unknown command is named" unknown
too_long() { chat_with 1 "$story $story\\n" --chat-format chatml --context 32 && err_has tandem:; }
check "a message beyond the context is refused" too_long

messages() {
    printf '%s\n' '{"id":1,"messages":[{"role":"user","content":"Hi"}],"max_tokens":2}' \
        '{"id":2,"messages":[{"role":"robot","content":"Hi"}]}' '{"id":3,"messages":7}' \
        '{"id":4,"messages":[],"ids":[1]}' >"$dir/in"
    "$tandem" batch "$dir/in" --chat-format zephyr >"$dir/out" 2>"$dir/err"
    [ $? -eq 1 ] && grep -q '"id":1,.*"token_ids"' "$dir/out" && grep -q '"id":2,"error":.*robot' "$dir/out" &&
        grep -q '"id":3,"error"' "$dir/out" && grep -q '"id":4,"error":.*more' "$dir/out"
}
check "batch takes messages" messages

exit $failed
