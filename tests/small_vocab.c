#include "small_vocab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

int32_t small_vocab_add(struct small_vocab *vocab, const char *text, float score, enum token_class class)
{
    const int32_t id = vocab->spec.n_tokens++;
    assert_true(id < SMALL_VOCAB_CAP);
    vocab->tokens[id] = (struct tokenizer_text){ text, (uint32_t)strlen(text) };
    vocab->scores[id] = score;
    vocab->classes[id] = (int32_t)class;
    return id;
}

void small_vocab_init(struct small_vocab *vocab)
{
    memset(vocab, 0, sizeof *vocab);
    vocab->spec = (struct tokenizer_spec){
        .kind = "llama", .tokens = vocab->tokens, .scores = vocab->scores, .classes = vocab->classes,
        .bos_id = SMALL_VOCAB_BOS, .eos_id = SMALL_VOCAB_EOS, .unk_id = SMALL_VOCAB_UNK,
        .pad_id = -1, .eot_id = -1, .add_bos = true, .add_space_prefix = true,
    };
    small_vocab_add(vocab, "<unk>", 0, TOKEN_UNKNOWN);
    small_vocab_add(vocab, "<s>", 0, TOKEN_CONTROL);
    small_vocab_add(vocab, "</s>", 0, TOKEN_CONTROL);
    for (int byte = 0; byte < 256; byte++) {
        snprintf(vocab->byte_texts[byte], sizeof vocab->byte_texts[byte], "<0x%02X>", (unsigned)byte);
        small_vocab_add(vocab, vocab->byte_texts[byte], 0, TOKEN_BYTE);
    }
}

struct tokenizer *small_vocab_create(const struct small_vocab *vocab)
{
    struct tokenizer *tokenizer = NULL;
    const enum status status = tokenizer_create(&vocab->spec, &tokenizer);
    if (status != STATUS_OK) {
        fail_msg("tokenizer_create: %s", status_message());
    }
    return tokenizer;
}
