/* conf: the table of options and verbs, and how a command line is read by it.
 *
 * A new option is a row here; parsing, ranges, the environment variable and help follow. What is
 * known and not built yet has its row too, so that it is refused by name and never ignored.
 */
#include "base/conf.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define V(verb) (1u << VERB_##verb)
#define GENERATES (V(RUN) | V(BATCH) | V(CHAT))
#define LOADS (GENERATES | V(LOGITS))
#define COMPUTES (LOADS | V(BENCH) | V(DOCTOR))
#define READS (V(TOKENIZE) | V(DETOKENIZE))
#define DRAFTS V(DRAFT_WORKER)
#define EVERY ((1u << VERB_SERVE) - 1u)

static const struct conf_verb_info verb_table[VERB_COUNT] = {
    [VERB_RUN] = {"run", "", "one prompt to text, streamed",
        "The prompt comes from --prompt, --prompt-file, --ids or standard input. Text goes to\n"
        "standard output; speed, digest and fingerprint to standard error.", 0, 0, NULL},
    [VERB_BATCH] = {"batch", "FILE", "JSON lines in, JSON lines out, all running together",
        "Each line of FILE (- is standard input) is an object: id, prompt, ids or messages (a list of\n"
        "role and content; role is system, user or assistant), and any of\n"
        "max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty,\n"
        "frequency_penalty, seed, stop, ignore_eos, priority; what it leaves out comes from the\n"
        "options. A result is written as each request ends, with its id. A line that cannot be\n"
        "run gets an object with \"error\", and the others go on.", 1, 1, NULL},
    [VERB_LOGITS] = {"logits", "", "logits of given ids as float32 rows",
        "Writes one little-endian float32 row of the vocabulary for each id, to compare with\n"
        "anything else.", 0, 0, NULL},
    [VERB_BENCH] = {"bench", "NAME", "speed against this machine's roofs, JSON lines", NULL, 1, 1,
        NULL},
    [VERB_DOCTOR] = {"doctor", "", "what this machine is and can do, and what holds a model back",
        "Measures read bandwidth and integer peak, on one thread and on all, and predicts the\n"
        "speed of --target from them.", 0, 0, NULL},
    [VERB_INSPECT] = {"inspect", "FILE", "what a model file holds", NULL, 0, 1, NULL},
    [VERB_SYNTH] = {"synth", "NAME", "a model of random weights and real shapes",
        "NAME is SHAPE,TYPE and settings: llama-1b,q4_0,seed=1. Shapes: llama-1b, llama-8b,\n"
        "llama-70b, qwen3-8b, qwen3-moe-30b, smol-135m, smol-30m, tiny, ...; layers=, vocab= and\n"
        "context= adjust them. Without --out says what it would be. synth:NAME is a --target for\n"
        "other verbs. pair=SHAPE,TYPE,draft=SHAPE,agree=0.8,tail=1.0,peak=0.9,seed=1 is a planted\n"
        "pair: this name is its target, with ,role=draft its draft (draft-type=, draft-layers=).", 1, 1, NULL},
    [VERB_TOKENIZE] = {"tokenize", "[TEXT]", "text to ids",
        "Text comes from the argument, or from standard input byte for byte.", 0, 1, NULL},
    [VERB_DETOKENIZE] = {"detokenize", "[IDS...]", "ids to text",
        "Ids come as arguments or on standard input, apart by spaces, commas or lines, or as the\n"
        "object that tokenize --json writes.", 0, CONF_ARGUMENT_CAP, NULL},
    [VERB_CHAT] = {"chat", "", "a conversation in the terminal",
        "Each line is a message; the answer is streamed to standard output. /reset forgets what was\n"
        "said, /stats shows the last answer's numbers, /seed N decides the draws to come, /quit or the\n"
        "end of input ends. Ctrl-C stops an answer and not the program.", 0, 0, NULL},
    [VERB_SERVE] = {"serve", "", "an HTTP server", NULL, 0, 0,
        "'serve' is not built yet; 'batch' runs many requests together"},
    [VERB_DRAFT_WORKER] = {"draft-worker", "", "a draft for targets in other processes or on other machines",
        "Serves --draft unix:/PATH or tcp:HOST:PORT of others: while they verify, it prepares what they\n"
        "propose next. Several targets may use one worker. What is said is not encrypted.", 0, 0, NULL},
    [VERB_AUDIT] = {"audit", "", "proof that speculation and batching changed nothing", NULL, 0, 0,
        "'audit' is not built yet; compare the logits_digest of two 'run --json'"},
    [VERB_QUANTIZE] = {"quantize", "IN OUT TYPE", "a model file in another type",
        "IN is a GGUF file or a model folder, OUT the GGUF file to write, TYPE one of F32, F16, BF16,\n"
        "Q8_0, Q6_K, Q4_K, Q4_0. Vectors stay F32; a matrix whose rows are no whole number of blocks\n"
        "becomes Q8_0 or F16. Says the error made, per tensor and in all.", 3, 3, NULL},
};

/* long: the table of all options, a row each, in the order in which help shows them */
static const struct conf_option_info option_table[OPT_COUNT] = {
    [OPT_TARGET] = {"target", 'm', CONF_TEXT, 0, 0, NULL, NULL, NULL, "MODEL",
        "a GGUF file (the first of a split one), a Hugging Face folder, or "
        "synth:llama-1b,q4_0,seed=1 built in memory (default: the model that comes with the program)", EVERY & ~(V(SYNTH) | V(QUANTIZE) | DRAFTS)},
    [OPT_MODEL] = {"model", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "MODEL",
        "the model that drafts: a GGUF file, a Hugging Face folder, or synth:...", DRAFTS},
    [OPT_LISTEN] = {"listen", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "ADDRESS",
        "unix:/PATH, tcp:PORT (this machine alone) or tcp:HOST:PORT", DRAFTS},
    [OPT_INSECURE] = {"insecure", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "listen to other machines without a key", DRAFTS},
    [OPT_DRAFT] = {"draft", 'd', CONF_TEXT, 0, 0, "auto", NULL, NULL, "DRAFT",
        "what proposes tokens: none, ngram, suffix, layerskip[:LAYERS], a smaller MODEL of the same "
        "vocabulary, tcp:HOST:PORT or unix:/PATH of a draft worker, or several apart by commas; auto: the model's own draft where it has one, else "
        "suffix", GENERATES | V(DOCTOR)},
    [OPT_DRAFT_KEY_FILE] = {"draft-key-file", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "FILE",
        "its first line is the key that a draft worker and its targets share", GENERATES | DRAFTS},
    [OPT_DRAFT_WAIT] = {"draft-wait", 0, CONF_TEXT, 0, 0, "auto", NULL, NULL, "US|auto",
        "microseconds that a step waits for a draft worker's answer, at most; auto: as long as answers usually "
        "take, measured, 20000 at most", GENERATES},
    [OPT_DRAFT_VOCAB] = {"draft-vocab", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "N|FILE",
        "ids a draft model may propose: the N most frequent of what the target writes, or those listed in "
        "FILE (default: NAME.ids beside the draft NAME.gguf, else all); changes speed, never text", GENERATES},
    [OPT_TARGET_DEVICE] = {"target-device", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "DEVICE",
        "cpu, the cores to use: cpu:0-3, or a GPU: cuda:0, or a part of its multiprocessors: cuda:0/-40 all but "
        "those of cuda:0/40, or 2, 4 or 8 GPUs that hold the model together: cuda:0,1; cuda: of a launcher's "
        "processes each its own (builds with CUDA=1)", GENERATES},
    [OPT_DRAFT_DEVICE] = {"draft-device", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "DEVICE",
        "cores of a draft model, if not the target's: cpu:1; cpu: cores that the target leaves; a GPU: cuda:1, or "
        "the target's own", GENERATES | DRAFTS},
    [OPT_LEND] = {"lend", 0, CONF_CHOICE, 0, 0, "on", "on|off", NULL, "on|off",
        "idle cores of one device help the other, where they have cores of their own", GENERATES},
    [OPT_AHEAD] = {"ahead", 0, CONF_CHOICE, 0, 0, "auto", "auto|on|off", NULL, "WHEN",
        "draft the next tokens while the last are verified, for the outcomes that are likely (SSD); auto: "
        "while that is faster than drafting and verifying in turn", GENERATES},
    [OPT_AHEAD_BUDGET] = {"ahead-budget", 0, CONF_INT, 1, 64, NULL, NULL, NULL, "N",
        "outcomes of a round that are prepared for (default: chosen from measured times)", GENERATES | DRAFTS},
    [OPT_FANOUT] = {"fanout", 0, CONF_TEXT, 0, 0, "learned", NULL, NULL, "WAY",
        "how they are spread over the numbers of accepted tokens: learned from outcomes, geometric, uniform, or "
        "list:N0,N1,.. for 0, 1, .. accepted, the last again for more", GENERATES | DRAFTS},
    [OPT_FALLBACK] = {"fallback", 0, CONF_CHOICE, 0, 0, "auto", "auto|none|lookup|branch|draft", NULL, "WHAT",
        "what is proposed where none of them came true; auto: what brings most, measured; draft, whatever is said, "
        "with the rejection rule and a fixed K", GENERATES},
    [OPT_SAGUARO] = {"saguaro", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "F:C",
        "rejection rule: the draft's F likeliest ids, to 256, are drawn with C, 0 to 1, of their odds, so that a "
        "refusal ends more often where a proposal was prepared; the distribution of the text stays", GENERATES},
    [OPT_K] = {"k", 0, CONF_TEXT, 0, 0, "auto", NULL, NULL, "N|auto",
        "tokens proposed in a round, 0 to 16; auto: as many as pay, measured", GENERATES | DRAFTS},
    [OPT_VERIFY] = {"verify", 0, CONF_CHOICE, 0, 0, "coupled", "coupled|rejection", NULL, "RULE",
        "how proposals are judged; coupled: the very text of plain decoding, rejection: its distribution",
        GENERATES},
    [OPT_EXPLAIN] = {"explain", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "colour each token by who proposed it, with the guesses that were wrong", V(RUN)},
    [OPT_TIMELINE] = {"timeline", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "draw what target and draft did in the last rounds, side by side", V(RUN)},
    [OPT_PLAN] = {"plan", 0, CONF_CHOICE, 0, 0, "exact", "exact|native|fast", NULL, "PLAN",
        "numeric rules; exact: the same bits everywhere; native, on a GPU: 16-bit weights on tensor cores, the same bits "
        "whatever else runs there; fast, on a GPU: long passes by cuBLASLt, where a text may depend on batches and "
        "drafts", LOADS},
    [OPT_ISA] = {"isa", 0, CONF_CHOICE, 0, 0, NULL, "scalar|avx2|avx512", NULL, "SET",
        "instruction set to force (default: the best here)", COMPUTES | DRAFTS},
    [OPT_THREADS] = {"threads", 0, CONF_INT, 1, 256, NULL, NULL, NULL, "N",
        "the first N cores this process may run on (default: its physical cores)",
        COMPUTES | V(QUANTIZE) | DRAFTS},
    [OPT_CONTEXT] = {"context", 0, CONF_INT, 1, 1 << 24, NULL, NULL, NULL, "N",
        "positions a sequence may have; its KV is reserved at start (default: the model's, at most "
        "4096)", LOADS | DRAFTS},
    [OPT_KV] = {"kv", 0, CONF_CHOICE, 0, 0, "f16", "f16|f32", NULL, "TYPE",
        "type of keys and values in memory", LOADS | DRAFTS},
    [OPT_QUANT] = {"quant", 0, CONF_CHOICE, 0, 0, NULL, "f32|f16|bf16|q8_0|q4_0|q4_k|q6_k", NULL, "TYPE",
        "convert the weights to this type while loading (default: as they are)", LOADS | DRAFTS},
    [OPT_PAGE] = {"page", 0, CONF_INT, 16, 4096, "64", NULL, NULL, "N",
        "positions in a KV page, a multiple of 16", LOADS | DRAFTS},
    [OPT_PREFILL_CHUNK] = {"prefill-chunk", 0, CONF_INT, 1, 65536, "512", NULL, NULL, "N",
        "prompt rows in one pass, at most", LOADS | DRAFTS},
    [OPT_MAX_BATCH] = {"max-batch", 0, CONF_INT, 1, 4096, NULL, NULL, NULL, "N",
        "sequences running at once (default: 1, batch and draft-worker: 8)", GENERATES | DRAFTS},
    [OPT_MEMORY] = {"memory", 0, CONF_BYTES, 1, 1e18, NULL, NULL, NULL, "BYTES",
        "budget for weights, KV and scratch, of each device: 512M, 8G (default: what is free)", LOADS | DRAFTS},
    [OPT_MLOCK] = {"mlock", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "lock the weights in memory", LOADS | DRAFTS},
    [OPT_PROMPT] = {"prompt", 'p', CONF_TEXT, 0, 0, NULL, NULL, NULL, "TEXT",
        "text to continue", V(RUN)},
    [OPT_PROMPT_FILE] = {"prompt-file", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "FILE",
        "file that holds it (- is standard input)", V(RUN)},
    [OPT_IDS] = {"ids", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "1,2,3",
        "token ids, taken as they are", V(RUN) | V(LOGITS)},
    [OPT_MAX_TOKENS] = {"max-tokens", 'n', CONF_INT, -1, 1e9, "-1", NULL, NULL, "N",
        "tokens to write, at most; -1: until the text or the context ends", GENERATES},
    [OPT_STOP] = {"stop", 0, CONF_LIST, 0, 0, NULL, NULL, NULL, "TEXT",
        "end before this text; may be repeated", GENERATES},
    [OPT_IGNORE_EOS] = {"ignore-eos", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "go on after an end-of-text token", GENERATES},
    [OPT_TEMPERATURE] = {"temperature", 't', CONF_FLOAT, 0, 100, "0", NULL, NULL, "X",
        "0 is greedy", GENERATES},
    [OPT_TOP_K] = {"top-k", 0, CONF_INT, 0, 1e9, "0", NULL, NULL, "N",
        "keep the N likeliest; 0 is off", GENERATES},
    [OPT_TOP_P] = {"top-p", 0, CONF_FLOAT, 0, 1, "1", NULL, NULL, "X",
        "keep the likeliest that make up X; 1 is off", GENERATES},
    [OPT_MIN_P] = {"min-p", 0, CONF_FLOAT, 0, 1, "0", NULL, NULL, "X",
        "keep what has X of the likeliest one's probability; 0 is off", GENERATES},
    [OPT_REPETITION_PENALTY] = {"repetition-penalty", 0, CONF_FLOAT, 0.01, 100, "1", NULL, NULL, "X",
        "divides logits of tokens seen; 1 is off", GENERATES},
    [OPT_PRESENCE_PENALTY] = {"presence-penalty", 0, CONF_FLOAT, -100, 100, "0", NULL, NULL, "X",
        "lowers logits of tokens seen; 0 is off", GENERATES},
    [OPT_FREQUENCY_PENALTY] = {"frequency-penalty", 0, CONF_FLOAT, -100, 100, "0", NULL, NULL, "X",
        "lowers them by X each time seen; 0 is off", GENERATES},
    [OPT_SEED] = {"seed", 's', CONF_SEED, 0, 0, NULL, NULL, NULL, "N",
        "64 bits that decide every draw (default: from the system, and reported)", GENERATES},
    [OPT_SAMPLING] = {"sampling", 0, CONF_CHOICE, 0, 0, "options", "options|model", NULL, "FROM",
        "where settings come from that are not given: the defaults above, or the model's makers", GENERATES},
    [OPT_SYSTEM] = {"system", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "TEXT",
        "the conversation's system message", V(CHAT)},
    [OPT_CHAT_FORMAT] = {"chat-format", 0, CONF_CHOICE, 0, 0, NULL,
        "chatml|llama2|llama3|zephyr|mistral-v1|mistral-v3", NULL, "FORMAT",
        "words around messages (default: as the model's template says)", V(CHAT) | V(BATCH)},
    [OPT_OUT] = {"out", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "FILE",
        "file to write", V(LOGITS) | V(SYNTH)},
    [OPT_NO_SPECIAL] = {"no-special", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "add no begin or end token; special tokens written out in the text count as such",
        V(TOKENIZE)},
    [OPT_LITERAL] = {"literal", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "special tokens written out in the text are plain text", V(TOKENIZE)},
    [OPT_REPS] = {"reps", 0, CONF_INT, 1, 1000, NULL, NULL, NULL, "N",
        "times each thing is measured (default: 7, quick: 3)", V(BENCH)},
    [OPT_QUICK] = {"quick", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "a few seconds: smaller models, fewer cases", V(BENCH)},
    [OPT_VIRTUAL] = {"virtual", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "ssd: beside virtual targets alone, whose passes last as long as asked", V(BENCH)},
    [OPT_TEXT] = {"text", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "FILE",
        "text whose perplexity under both models is compared (its first 2048 tokens)", V(QUANTIZE)},
    [OPT_JSON] = {"json", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "one JSON object instead of text", EVERY & ~(V(BATCH) | V(BENCH) | V(CHAT) | DRAFTS)},
    [OPT_QUIET] = {"quiet", 0, CONF_FLAG, 0, 0, "0", NULL, NULL, NULL,
        "nothing on standard error but errors", EVERY},
    [OPT_TRACE] = {"trace", 0, CONF_TEXT, 0, 0, NULL, NULL, NULL, "FILE",
        "a timeline of the run, for chrome://tracing or Perfetto", GENERATES},
    [OPT_HELP] = {"help", 'h', CONF_FLAG, 0, 0, "0", NULL, NULL, NULL, "this page", EVERY},
};

const struct conf_verb_info *conf_verb_info(enum conf_verb verb) { return &verb_table[verb]; }
const struct conf_option_info *conf_option_info(enum conf_option option) { return &option_table[option]; }
const char *conf_environment(const char *name) { return getenv(name); }

/* ---- words ---- */
enum { WORD_CAP = 64 };

int conf_edit_distance(const char *a, const char *b)
{
    const int n = (int)strnlen(a, WORD_CAP - 1), m = (int)strnlen(b, WORD_CAP - 1);
    int d[WORD_CAP][WORD_CAP]; /* d[i][j]: from the first i bytes of a to the first j of b */
    for (int i = 0; i <= n; i++) {
        for (int j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = d[i - 1][j] + 1 < best ? d[i - 1][j] + 1 : best;
            best = d[i][j - 1] + 1 < best ? d[i][j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best) {
                best = d[i - 2][j - 2] + 1;
            }
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *conf_nearest(const char *word, const char *const *words, int n)
{
    const char *nearest = NULL;
    int least = 0;
    for (int i = 0; i < n; i++) {
        const int distance = conf_edit_distance(word, words[i]);
        if (!nearest || distance < least) {
            nearest = words[i];
            least = distance;
        }
    }
    return nearest;
}

/* The i-th word of "a|b|c" into `word`; 0 when there are fewer. */
static int choice_word(const char *choices, int i, char word[WORD_CAP])
{
    for (; choices && i > 0; i--) {
        choices = strchr(choices, '|');
        choices = choices ? choices + 1 : NULL;
    }
    if (!choices || *choices == '\0') {
        return 0;
    }
    snprintf(word, WORD_CAP, "%.*s", (int)strcspn(choices, "|"), choices);
    return 1;
}

static int choice_has(const char *choices, const char *text)
{
    char word[WORD_CAP];
    for (int i = 0; choice_word(choices, i, word); i++) {
        if (strcmp(word, text) == 0) {
            return 1;
        }
    }
    return 0;
}

/* ---- values ---- */
/* How the user named the option: "--threads" or "TANDEM_THREADS". */
struct label { char text[WORD_CAP]; };

static struct label option_label(enum conf_option option, enum conf_origin origin)
{
    struct label label;
    const char *name = option_table[option].name;
    if (origin != CONF_ENVIRONMENT) {
        snprintf(label.text, sizeof label.text, "--%s", name);
        return label;
    }
    snprintf(label.text, sizeof label.text, "TANDEM_%s", name);
    for (char *c = label.text + 7; *c; c++) {
        *c = *c == '-' ? '_' : *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
    }
    return label;
}

static enum status parse_flag(const char *label, const char *text, struct conf_value *value)
{
    static const char *const yes = "1|true|yes|on", *const no = "0|false|no|off";
    if (!choice_has(yes, text) && !choice_has(no, text)) {
        return status_fail(STATUS_USAGE, "%s is on or off: expected 1 or 0, found '%s'", label, text);
    }
    value->integer = choice_has(yes, text);
    return STATUS_OK;
}

static enum status parse_int(const char *label, const char *text, const struct conf_option_info *info,
                             struct conf_value *value)
{
    char *end;
    errno = 0;
    const long long n = strtoll(text, &end, 10);
    if (end == text || *end != '\0') {
        return status_fail(STATUS_USAGE, "%s needs a whole number, found '%s'", label, text);
    }
    if (errno == ERANGE || (double)n < info->min || (double)n > info->max) {
        return status_fail(STATUS_USAGE, "%s is from %.0f to %.0f, found %s", label, info->min, info->max,
                           text);
    }
    value->integer = n;
    value->number = (double)n;
    return STATUS_OK;
}

static enum status parse_float(const char *label, const char *text, const struct conf_option_info *info,
                               struct conf_value *value)
{
    char *end;
    const double x = strtod(text, &end);
    if (end == text || *end != '\0' || isnan(x)) {
        return status_fail(STATUS_USAGE, "%s needs a number, found '%s'", label, text);
    }
    if (x < info->min || x > info->max) {
        return status_fail(STATUS_USAGE, "%s is from %g to %g, found %s", label, info->min, info->max, text);
    }
    value->number = x;
    return STATUS_OK;
}

static enum status parse_seed(const char *label, const char *text, struct conf_value *value)
{
    char *end;
    errno = 0;
    const unsigned long long bits = strtoull(text, &end, 0);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno == ERANGE) {
        return status_fail(STATUS_USAGE, "%s is a whole number from 0 to 18446744073709551615, found '%s'",
                           label, text);
    }
    value->integer = (int64_t)bits;
    return STATUS_OK;
}

enum status conf_parse_bytes(const char *text, int64_t *bytes)
{
    static const char units[] = "KMGT";
    char *end;
    const double x = strtod(text, &end);
    if (end == text || !(x >= 0) || text[0] == '-') {
        return status_fail(STATUS_USAGE, "expected bytes such as 512M or 8G, found '%s'", text);
    }
    double scale = 1;
    const char upper = *end >= 'a' && *end <= 'z' ? (char)(*end - 'a' + 'A') : *end;
    const char *unit = upper ? strchr(units, upper) : NULL;
    if (unit) {
        scale = (double)(1LL << (10 * (unit - units + 1)));
        end++;
        end += *end == 'i' ? 1 : 0;
    }
    end += *end == 'B' ? 1 : 0;
    if (*end != '\0' || x * scale > 1e18) {
        return status_fail(STATUS_USAGE, "expected bytes such as 512M or 8G, found '%s'", text);
    }
    *bytes = (int64_t)(x * scale);
    return STATUS_OK;
}

static enum status parse_bytes(const char *label, const char *text, const struct conf_option_info *info,
                               struct conf_value *value)
{
    if (conf_parse_bytes(text, &value->integer) != STATUS_OK) {
        return status_fail(STATUS_USAGE, "%s needs bytes such as 512M or 8G, found '%s'", label, text);
    }
    if ((double)value->integer < info->min) {
        return status_fail(STATUS_USAGE, "%s is at least %.0f byte, found %s", label, info->min, text);
    }
    return STATUS_OK;
}

static enum status parse_choice(const char *label, const char *text, const struct conf_option_info *info)
{
    enum { MAX_CHOICES = 16 };
    if (choice_has(info->choices, text)) {
        return STATUS_OK;
    }
    if (info->later && (strcmp(info->later, "*") == 0 || choice_has(info->later, text))) {
        return status_fail(STATUS_UNSUPPORTED, "%s %s is not built yet; this build has %s", label, text,
                           info->choices);
    }
    char word[MAX_CHOICES][WORD_CAP];
    const char *words[MAX_CHOICES];
    int n = 0;
    for (; n < MAX_CHOICES && choice_word(info->choices, n, word[n]); n++) {
        words[n] = word[n];
    }
    return status_fail(STATUS_USAGE, "%s has no value '%s'; the nearest is '%s' (there are %s)", label, text,
                       conf_nearest(text, words, n), info->choices);
}

static enum status parse_text(const char *label, const char *text, const struct conf_option_info *info)
{
    const char *later = info->later;
    const size_t n = later ? strcspn(later, "*") : 0;
    if (later && strncmp(text, later, n) == 0) {
        return status_fail(STATUS_UNSUPPORTED, "%s %s is not built yet", label, text);
    }
    return STATUS_OK;
}

static enum status parse_value(struct conf *conf, enum conf_option option, enum conf_origin origin,
                               const char *text)
{
    const struct conf_option_info *info = &option_table[option];
    struct conf_value *value = &conf->value[option];
    const struct label label = option_label(option, origin);
    switch (info->type) {
    case CONF_FLAG: TRY(parse_flag(label.text, text, value)); break;
    case CONF_INT: TRY(parse_int(label.text, text, info, value)); break;
    case CONF_FLOAT: TRY(parse_float(label.text, text, info, value)); break;
    case CONF_BYTES: TRY(parse_bytes(label.text, text, info, value)); break;
    case CONF_SEED: TRY(parse_seed(label.text, text, value)); break;
    case CONF_CHOICE: TRY(parse_choice(label.text, text, info)); break;
    case CONF_TEXT: TRY(parse_text(label.text, text, info)); break;
    case CONF_LIST:
        if (value->origin != origin) {
            conf->n_list = 0; /* the command line replaces the environment, and does not add to it */
        }
        if (conf->n_list == CONF_LIST_CAP) {
            return status_fail(STATUS_USAGE, "%s may be given %d times at most", label.text, CONF_LIST_CAP);
        }
        conf->list[conf->n_list++] = text;
        break;
    }
    value->text = text;
    value->origin = origin;
    return STATUS_OK;
}

/* ---- the command line ---- */
static enum status find_verb(const char *word, enum conf_verb *verb)
{
    const char *names[VERB_COUNT];
    int n = 0;
    for (int i = 0; i < VERB_COUNT; i++) {
        if (strcmp(verb_table[i].name, word) == 0) {
            *verb = (enum conf_verb)i;
            return STATUS_OK;
        }
        if (!verb_table[i].later) {
            names[n++] = verb_table[i].name;
        }
    }
    return status_fail(STATUS_USAGE, "no verb '%s'; the nearest is '%s' (tandem --help lists them)", word,
                       conf_nearest(word, names, n));
}

static int option_applies(int option, enum conf_verb verb)
{
    return (option_table[option].verbs >> verb & 1u) != 0;
}

static enum status unknown_option(enum conf_verb verb, const char *name, int dashes)
{
    const char *names[OPT_COUNT];
    int n = 0;
    for (int i = 0; i < OPT_COUNT; i++) {
        if (option_applies(i, verb)) {
            names[n++] = option_table[i].name;
        }
    }
    return status_fail(STATUS_USAGE, "'%s' has no option %.*s%s; the nearest is --%s", verb_table[verb].name,
                       dashes, "--", name, conf_nearest(name, names, n));
}

/* `word` without its dashes, up to '=': an option of this verb, or the sentence that says why not. */
static enum status find_option(enum conf_verb verb, const char *word, int dashes, enum conf_option *option)
{
    const int is_short = dashes == 1;
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct conf_option_info *info = &option_table[i];
        const int hit = is_short ? word[1] == '\0' && info->short_form == word[0]
                                 : strcmp(info->name, word) == 0;
        if (hit && option_applies(i, verb)) {
            *option = (enum conf_option)i;
            return STATUS_OK;
        }
        if (hit) {
            int owner = 0;
            while (!option_applies(i, (enum conf_verb)owner)) {
                owner++;
            }
            return status_fail(STATUS_USAGE, "--%s is an option of '%s', not of '%s'", info->name,
                               verb_table[owner].name, verb_table[verb].name);
        }
    }
    return unknown_option(verb, word, dashes);
}

/* Reads the option at argv[*at] and its value; *at moves past what was used. */
static enum status parse_option(struct conf *conf, int argc, char **argv, int *at)
{
    const char *word = argv[*at];
    const int dashes = word[1] == '-' ? 2 : 1;
    char name[WORD_CAP];
    const size_t len = strcspn(word + dashes, "=");
    snprintf(name, sizeof name, "%.*s", (int)(len < WORD_CAP ? len : WORD_CAP - 1), word + dashes);
    const char *text = word[(size_t)dashes + len] == '=' ? word + dashes + len + 1 : NULL;
    enum conf_option option = OPT_HELP;
    TRY(find_option(conf->verb, name, dashes, &option));
    (*at)++;
    if (!text && option_table[option].type == CONF_FLAG) {
        text = "1";
    }
    if (!text) {
        if (*at >= argc) {
            return status_fail(STATUS_USAGE, "%s needs a value (%s)", word, option_table[option].metavar);
        }
        text = argv[(*at)++];
    }
    return parse_value(conf, option, CONF_COMMAND_LINE, text);
}

static enum status parse_defaults(struct conf *conf)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct conf_option_info *info = &option_table[i];
        if (info->unset) {
            TRY(parse_value(conf, (enum conf_option)i, CONF_DEFAULT, info->unset));
        }
    }
    for (int i = 0; i < OPT_HELP; i++) {
        const char *text = option_applies(i, conf->verb)
                               ? getenv(option_label((enum conf_option)i, CONF_ENVIRONMENT).text) : NULL;
        if (text && *text) {
            TRY(parse_value(conf, (enum conf_option)i, CONF_ENVIRONMENT, text));
        }
    }
    return STATUS_OK;
}

static enum status check_arguments(const struct conf *conf)
{
    const struct conf_verb_info *verb = &verb_table[conf->verb];
    if (conf->n_arguments < verb->n_arguments_min) {
        return status_fail(STATUS_USAGE, "'%s' needs %s (tandem %s --help)", verb->name, verb->arguments,
                           verb->name);
    }
    if (conf->n_arguments > verb->n_arguments_max) {
        return status_fail(STATUS_USAGE, "'%s' takes %d argument%s, found '%s' too", verb->name,
                           verb->n_arguments_max, verb->n_arguments_max == 1 ? "" : "s",
                           conf->argument[verb->n_arguments_max]);
    }
    return STATUS_OK;
}

enum status conf_parse(struct conf *conf, int argc, char **argv)
{
    memset(conf, 0, sizeof *conf);
    if (argc < 2) {
        return status_fail(STATUS_USAGE, "a verb is needed (tandem --help lists them)");
    }
    TRY(find_verb(argv[1], &conf->verb));
    const struct conf_verb_info *verb = &verb_table[conf->verb];
    if (verb->later) {
        return status_fail(STATUS_UNSUPPORTED, "%s", verb->later);
    }
    TRY(parse_defaults(conf));
    int only_arguments = 0;
    for (int at = 2; at < argc;) {
        const char *word = argv[at];
        if (!only_arguments && strcmp(word, "--") == 0) {
            only_arguments = 1;
            at++;
        } else if (!only_arguments && word[0] == '-' && word[1] != '\0') {
            TRY(parse_option(conf, argc, argv, &at));
        } else if (conf->n_arguments == CONF_ARGUMENT_CAP) {
            return status_fail(STATUS_USAGE, "'%s' takes %d arguments at most", verb->name, CONF_ARGUMENT_CAP);
        } else {
            conf->argument[conf->n_arguments++] = word;
            at++;
        }
    }
    return conf_flag(conf, OPT_HELP) ? STATUS_OK : check_arguments(conf);
}

/* ---- values, typed ---- */
int conf_is_set(const struct conf *conf, enum conf_option option)
{
    return conf->value[option].origin != CONF_DEFAULT;
}

int conf_flag(const struct conf *conf, enum conf_option option)
{
    ASSERT(option_table[option].type == CONF_FLAG);
    return conf->value[option].integer != 0;
}

int64_t conf_int(const struct conf *conf, enum conf_option option)
{
    const enum conf_type type = option_table[option].type;
    ASSERT(type == CONF_INT || type == CONF_BYTES || type == CONF_SEED);
    return conf->value[option].integer;
}

double conf_float(const struct conf *conf, enum conf_option option)
{
    ASSERT(option_table[option].type == CONF_FLOAT);
    return conf->value[option].number;
}

const char *conf_text(const struct conf *conf, enum conf_option option)
{
    const enum conf_type type = option_table[option].type;
    ASSERT(type == CONF_TEXT || type == CONF_CHOICE);
    return conf->value[option].text;
}
