/* chat_detect: which format a template is, by text that only that format has. Known templates that are
 * not built are known by name, so that the refusal says more than "another". */
#include <string.h>

#include "tokenizer/chat.h"

static const struct { const char *name; enum chat_format format; } FORMATS[] = {
    {"chatml", CHAT_CHATML},      {"llama2", CHAT_LLAMA2},         {"llama3", CHAT_LLAMA3},
    {"zephyr", CHAT_ZEPHYR},      {"mistral-v1", CHAT_MISTRAL_V1}, {"mistral-v3", CHAT_MISTRAL_V3},
    {"mistral", CHAT_MISTRAL_V3},
};
static const char known[] = "chatml, llama2, llama3, zephyr, mistral-v1, mistral-v3";

enum status chat_format_find(const char *name, enum chat_format *out)
{
    *out = CHAT_NONE;
    for (size_t i = 0; name && i < sizeof FORMATS / sizeof FORMATS[0]; i++) {
        if (strcmp(FORMATS[i].name, name) == 0) {
            *out = FORMATS[i].format;
            return STATUS_OK;
        }
    }
    return name ? status_fail(STATUS_UNSUPPORTED,
                              "chat format '%.60s' is not supported; supported: %s", name, known)
                : STATUS_OK;
}

const char *chat_format_name(enum chat_format format)
{
    for (size_t i = 0; i < sizeof FORMATS / sizeof FORMATS[0]; i++) {
        if (FORMATS[i].format == format) {
            return FORMATS[i].name;
        }
    }
    return "none";
}

static bool holds(const char *text, size_t n_bytes, const char *word)
{
    return memmem(text, n_bytes, word, strlen(word)) != NULL;
}

/* The first row whose words are all there, and whose other word is not. */
struct signature {
    const char *words[2];       /* NULL: any */
    const char *without;        /* NULL: any */
    enum chat_format format;    /* CHAT_NONE: named, not built */
    const char *name;
};
static const struct signature SIGNATURES[] = {
    { { "<|im_start|>", "<|im_sep|>" }, NULL, CHAT_NONE, "phi-4" },
    { { "<|im_start|>", NULL }, NULL, CHAT_CHATML, NULL },
    { { "<|start_header_id|>", NULL }, NULL, CHAT_LLAMA3, NULL },
    { { "[INST]", "<<SYS>>" }, NULL, CHAT_LLAMA2, NULL },
    { { "[INST]", "[SYSTEM_PROMPT]" }, NULL, CHAT_NONE, "mistral-v7" },
    { { " [INST] ", " [/INST]" }, NULL, CHAT_MISTRAL_V1, NULL },
    { { "[INST]", NULL }, " [/INST]", CHAT_MISTRAL_V3, NULL },
    { { "[INST]", NULL }, NULL, CHAT_NONE, "an early mistral" },
    { { "<|user|>", "<|end|>" }, NULL, CHAT_NONE, "phi-3" },
    { { "<|user|>", "eos_token" }, "[gMASK]", CHAT_ZEPHYR, NULL },
    { { "<|user|>", "</s>" }, "[gMASK]", CHAT_ZEPHYR, NULL },
    { { "[gMASK]", NULL }, NULL, CHAT_NONE, "chatglm" },
    { { "<start_of_turn>", NULL }, NULL, CHAT_NONE, "gemma" },
    { { "<|header_start|>", NULL }, NULL, CHAT_NONE, "llama4" },
    { { "<|start_of_role|>", NULL }, NULL, CHAT_NONE, "granite" },
    { { "<|START_OF_TURN_TOKEN|>", NULL }, NULL, CHAT_NONE, "command-r" },
    { { "<\xef\xbd\x9c" "User\xef\xbd\x9c>", NULL }, NULL, CHAT_NONE, "deepseek" },
    { { "<|start|>", "<|channel|>" }, NULL, CHAT_NONE, "harmony" },
    { { "GPT4 Correct User:", NULL }, NULL, CHAT_NONE, "openchat" },
    { { "USER: ", "ASSISTANT:" }, NULL, CHAT_NONE, "vicuna" },
    { { "### Instruction:", NULL }, NULL, CHAT_NONE, "alpaca" },
};

enum status chat_format_detect(const char *chat_template, size_t n_bytes, enum chat_format *out)
{
    *out = CHAT_NONE;
    for (size_t i = 0; i < sizeof SIGNATURES / sizeof SIGNATURES[0]; i++) {
        const struct signature *row = &SIGNATURES[i];
        if (!holds(chat_template, n_bytes, row->words[0]) ||
            (row->words[1] && !holds(chat_template, n_bytes, row->words[1])) ||
            (row->without && holds(chat_template, n_bytes, row->without))) {
            continue;
        }
        if (row->format == CHAT_NONE) {
            return status_fail(STATUS_UNSUPPORTED,
                               "the model's chat template (%s) is not supported; supported: %s; "
                               "--chat-format forces one",
                               row->name, known);
        }
        *out = row->format;
        return STATUS_OK;
    }
    char begin[64];
    size_t n = 0;
    for (; n < n_bytes && n < sizeof begin - 1; n++) {
        const unsigned char c = (unsigned char)chat_template[n];
        begin[n] = c >= ' ' && c < 0x7f ? (char)c : ' ';
    }
    begin[n] = '\0';
    return status_fail(STATUS_UNSUPPORTED,
                       "the model's chat template ('%s...') is not known; supported: %s; "
                       "--chat-format forces one",
                       begin, known);
}
