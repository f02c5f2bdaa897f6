/* pattern_rewrite: from Oniguruma's words to PCRE2's. The two agree on most; \s, \w and \h mean other
 * characters, scripts are named otherwise, and classes can hold classes there. What cannot be said
 * the same way is refused by name, rather than matched almost right.
 */
#include <string.h>

#include "tokenizer/pattern.h"

/* Inside of a class. White_Space; letters, marks, digits and connectors. */
#define SPACES "\\x{9}-\\x{d}\\x{85}\\p{Z}"
#define WORDS "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}"
#define HEX_DIGITS "0-9A-Fa-f"

struct rewrite {
    const char *source;
    size_t n, at;
    bool in_class;
    struct bytes *out;
};

static enum status put(struct rewrite *rewrite, const char *text)
{
    return bytes_append(rewrite->out, text, strlen(text));
}

static enum status refuse(const struct rewrite *rewrite, const char *what)
{
    return status_fail(STATUS_UNSUPPORTED, "%s at byte %zu of the pattern '%.*s' is not supported",
                       what, rewrite->at, rewrite->n < 200 ? (int)rewrite->n : 200,
                       rewrite->source);
}

/* A class by itself, its inside within another, or everything else. */
static enum status put_class(struct rewrite *rewrite, const char *inside, bool negated)
{
    if (rewrite->in_class) {
        return negated ? refuse(rewrite, "a negated kind of characters within a class")
                       : put(rewrite, inside);
    }
    TRY(put(rewrite, negated ? "[^" : "["));
    TRY(put(rewrite, inside));
    return put(rewrite, "]");
}

/* PCRE2 takes a script's bare name for all characters used with the script. */
static bool is_script(const char *name, size_t n)
{
    static const char *const scripts[] = {
        "Arabic",   "Armenian", "Bengali",   "Bopomofo",  "Cyrillic", "Devanagari",
        "Ethiopic", "Georgian", "Greek",     "Gujarati",  "Gurmukhi", "Han",
        "Hangul",   "Hebrew",   "Hiragana",  "Kannada",   "Katakana", "Khmer",
        "Lao",      "Latin",    "Malayalam", "Mongolian", "Myanmar",  "Oriya",
        "Sinhala",  "Tamil",    "Telugu",    "Thai",      "Tibetan",
    };
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        if (strlen(scripts[i]) == n && memcmp(scripts[i], name, n) == 0) {
            return true;
        }
    }
    return false;
}

/* \p{Name}, \p{^Name}, \P{Name}; at stands on the backslash. */
static enum status rewrite_property(struct rewrite *rewrite)
{
    const char *begin = rewrite->source + rewrite->at;
    const char *end = memchr(begin, '}', rewrite->n - rewrite->at);
    if (rewrite->n - rewrite->at < 4 || begin[2] != '{' || !end) {
        return refuse(rewrite, "a property without braces");
    }
    const char *name = begin + 3;
    const bool negated = *name == '^';
    name += negated;
    TRY(bytes_append(rewrite->out, begin, 3));
    if (negated) {
        TRY(put(rewrite, "^"));
    }
    if (is_script(name, (size_t)(end - name))) {
        TRY(put(rewrite, "sc:"));
    }
    TRY(bytes_append(rewrite->out, name, (size_t)(end - name) + 1));
    rewrite->at = (size_t)(end - rewrite->source) + 1;
    return STATUS_OK;
}

static enum status rewrite_escape(struct rewrite *rewrite)
{
    if (rewrite->at + 1 == rewrite->n) {
        return refuse(rewrite, "a backslash before nothing");
    }
    const char letter = rewrite->source[rewrite->at + 1];
    switch (letter) {
    case 's': TRY(put_class(rewrite, SPACES, false)); break;
    case 'S': TRY(put_class(rewrite, SPACES, true)); break;
    case 'w': TRY(put_class(rewrite, WORDS, false)); break;
    case 'W': TRY(put_class(rewrite, WORDS, true)); break;
    case 'h': TRY(put_class(rewrite, HEX_DIGITS, false)); break;
    case 'H': TRY(put_class(rewrite, HEX_DIGITS, true)); break;
    case 'p':
    case 'P': return rewrite_property(rewrite);
    case 'R':
    case 'X':
    case 'K':
    case 'C':
    case 'g':
    case 'k':
    case 'Q':
    case 'E':
    case 'y':
    case 'Y': return refuse(rewrite, "this escape");
    default: TRY(bytes_append(rewrite->out, rewrite->source + rewrite->at, 2)); break;
    }
    rewrite->at += 2;
    return STATUS_OK;
}

/* At a '[': opens a class, or is [:name:] within one. */
static enum status rewrite_bracket(struct rewrite *rewrite)
{
    const char *begin = rewrite->source + rewrite->at;
    const size_t left = rewrite->n - rewrite->at;
    if (!rewrite->in_class) {
        /* a ']' right behind stands for itself in both */
        size_t n = 1;
        n += left > n && begin[n] == '^';
        n += left > n && begin[n] == ']';
        rewrite->in_class = true;
        rewrite->at += n;
        return bytes_append(rewrite->out, begin, n);
    }
    const char *end = left > 1 && begin[1] == ':' ? memchr(begin, ']', left) : NULL;
    if (!end) {
        return refuse(rewrite, "a class within a class");
    }
    const size_t n = (size_t)(end - begin) + 1;
    rewrite->at += n;
    return bytes_append(rewrite->out, begin, n);
}

enum status pattern_rewrite(const char *source, size_t n_bytes, struct bytes *out)
{
    struct rewrite rewrite = { .source = source, .n = n_bytes, .out = out };
    while (rewrite.at < rewrite.n) {
        const char c = source[rewrite.at];
        if (c == '\\') {
            TRY(rewrite_escape(&rewrite));
            continue;
        }
        if (c == '[') {
            TRY(rewrite_bracket(&rewrite));
            continue;
        }
        if (rewrite.in_class && c == '&' && rewrite.at + 1 < n_bytes &&
            source[rewrite.at + 1] == '&') {
            return refuse(&rewrite, "an intersection of classes");
        }
        if (!rewrite.in_class && c == '(' && rewrite.at + 1 < n_bytes &&
            source[rewrite.at + 1] == '*') {
            return refuse(&rewrite, "a verb"); /* PCRE2's own: limits could be lifted by it */
        }
        rewrite.in_class = rewrite.in_class && c != ']';
        TRY(bytes_append(out, &source[rewrite.at++], 1));
    }
    return STATUS_OK;
}
