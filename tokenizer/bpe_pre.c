/* bpe_pre: what tokenizer.ggml.pre names. GGUF files hold a vocabulary and merges, but of the way text
 * is cut only a name; this table says what each means, in the words of the vocabularies' own
 * tokenizer.json. Names that share a row of patterns differ in nothing that decides ids.
 */
#include <string.h>

#include "tokenizer/bpe.h"

const char bpe_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

#define GPT4_WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define GPT4_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char llama3_pattern[] = GPT4_WORDS "\\p{N}{1,3}" GPT4_REST;
static const char qwen2_pattern[] = GPT4_WORDS "\\p{N}" GPT4_REST;

/* Words are cut where a small letter is followed by a capital. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED_WORDS(suffix)                                                                       \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER \
    "*" suffix "|"
#define CASED_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char tekken_pattern[] = CASED_WORDS("") "\\p{N}" CASED_REST;
static const char gpt4o_pattern[] =
    CASED_WORDS("(?i:'s|'t|'re|'ve|'m|'ll|'d)?") "\\p{N}{1,3}" CASED_REST;

static const char punctuation_pattern[] = "[\\p{P}\\$\\+<=>\\^~\\|]+";
static const char falcon_punctuation_pattern[] = "[\\p{P}\\$\\+<=>\\^~\\|`]+";
static const char three_digits_pattern[] = "[0-9][0-9][0-9]";
static const char digit_pattern[] = "\\p{N}";
static const char digits_pattern[] = "\\p{N}+";

enum { PRE_MAX_PATTERNS = 4 };
struct pre {
    const char *names;        /* apart by spaces */
    const char *patterns[PRE_MAX_PATTERNS];
    bool ignore_merges, is_nfc;
};
static const struct pre PRES[] = {
    {.names = "default",
     .patterns = {punctuation_pattern, bpe_gpt2_pattern, digits_pattern, three_digits_pattern}},
    {.names = "gpt-2 phi-2 mpt olmo jina-es jina-de roberta-bpe", .patterns = {bpe_gpt2_pattern}},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral smaug-bpe",
     .patterns = {llama3_pattern},
     .ignore_merges = true},
    {.names = "dbrx", .patterns = {llama3_pattern}},
    {.names = "qwen2 deepseek-r1-qwen megrez", .patterns = {qwen2_pattern}, .is_nfc = true},
    {.names = "stablelm2 hunyuan", .patterns = {qwen2_pattern}},
    {.names = "smollm starcoder refact command-r codeshell exaone granite",
     .patterns = {digit_pattern, bpe_gpt2_pattern}},
    {.names = "falcon",
     .patterns = {falcon_punctuation_pattern, bpe_gpt2_pattern, three_digits_pattern}},
    {.names = "tekken", .patterns = {tekken_pattern}, .ignore_merges = true},
    {.names = "gpt-4o llama4", .patterns = {gpt4o_pattern}},
};
enum { N_PRES = sizeof PRES / sizeof PRES[0] };

static bool holds_name(const char *names, const char *name)
{
    const size_t n = strlen(name);
    for (const char *at = names; *at;) {
        const size_t len = strcspn(at, " ");
        if (len == n && memcmp(at, name, n) == 0) {
            return true;
        }
        at += len + strspn(at + len, " ");
    }
    return false;
}

static enum status refuse(const char *name)
{
    char known[512];
    size_t n = 0;
    for (int i = 0; i < N_PRES; i++) {
        const size_t len = strlen(PRES[i].names);
        ASSERT(n + len + 2 < sizeof known);
        memcpy(known + n, PRES[i].names, len);
        n += len;
        known[n++] = ' ';
    }
    known[n - 1] = '\0';
    return status_fail(STATUS_UNSUPPORTED, "pre-tokenizer '%.60s' is not supported; supported: %s",
                       name, known);
}

enum status bpe_pre_recipe(const char *pre, struct recipe *recipe)
{
    const char *name = pre && *pre ? pre : "default";
    const struct pre *found = NULL;
    for (int i = 0; i < N_PRES && !found; i++) {
        found = holds_name(PRES[i].names, name) ? &PRES[i] : NULL;
    }
    if (!found) {
        return refuse(name);
    }
    recipe->byte_level = true;
    recipe->ignore_merges = found->ignore_merges;
    if (found->is_nfc) {
        TRY(normalizer_add(&recipe->normalizer, NORMALIZE_NFC, NULL, 0, NULL));
    }
    for (int i = 0; i < PRE_MAX_PATTERNS && found->patterns[i]; i++) {
        TRY(splitter_add_pattern(&recipe->splitter,
                                 &(struct split_pattern){.syntax = PATTERN_REGEX,
                                                         .source = found->patterns[i],
                                                         .n_bytes = strlen(found->patterns[i]),
                                                         .behavior = SPLIT_ISOLATED}));
    }
    return STATUS_OK;
}
