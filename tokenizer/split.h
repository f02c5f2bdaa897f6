/* split: cuts a text into the pieces that are encoded one by one ("pre-tokenizer"). A splitter is a
 * short list of steps; each looks at every piece of the one before, alone, and cuts it further or
 * changes its spaces. Private to tokenizer.
 *
 *     "I'm 12"  →digits→  "I'm " "1" "2"  →words→  "I" "'m" " " "1" "2"
 */
#ifndef TOKENIZER_SPLIT_H
#define TOKENIZER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/base.h"
#include "tokenizer/bytes.h"
#include "tokenizer/pattern.h"

/* What becomes of the parts that match, as the tokenizers library names it. */
enum split_behavior {
    SPLIT_REMOVED,              /* dropped */
    SPLIT_ISOLATED,             /* each a piece */
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS            /* neighbours that both match are one piece */
};
enum split_prefix { SPLIT_PREFIX_NEVER, SPLIT_PREFIX_FIRST, SPLIT_PREFIX_ALWAYS };
enum split_step_kind { SPLIT_STEP_PATTERN, SPLIT_STEP_SPACES };
struct split_step {
    enum split_step_kind kind;
    struct pattern *pattern;    /* PATTERN: owned */
    enum split_behavior behavior;
    bool invert;                /* what lies between the matches counts as matching */
    /* SPACES: each space becomes `mark`, and a mark is put before a piece that has none, always or
     * where it is the first of the text. A space as mark changes no space. */
    char mark[5];
    enum split_prefix prefix;
};
enum { SPLIT_MAX_STEPS = 16 };
struct splitter { struct split_step steps[SPLIT_MAX_STEPS]; int n_steps; }; /* zero-initialised */
void splitter_deinit(struct splitter *splitter);
/* Adds a step that cuts at a pattern, which is compiled here. STATUS_INVALID when there are too many. */
struct split_pattern {
    enum pattern_syntax syntax;
    const char *source;
    size_t n_bytes;
    enum split_behavior behavior;
    bool invert;
};
enum status splitter_add_pattern(struct splitter *splitter, const struct split_pattern *pattern);
enum status splitter_add_spaces(struct splitter *splitter, const char *mark,
                                enum split_prefix prefix);

struct piece { uint32_t begin, n_bytes; };
struct pieces { struct piece *at; size_t n, cap; };
struct split { /* of one text */
    const char *text;           /* the caller's, or `changed` */
    struct bytes changed;
    struct pieces pieces;       /* none empty */
};
/* is_first: nothing of the whole text stands before this. Fills *out, which split_deinit frees, after
 * a failure too. The text must live as long. Below 4 GiB. */
struct split_text { const char *bytes; size_t n_bytes; bool is_first; };
enum status splitter_run(const struct splitter *splitter, struct split_text text,
                         struct split *out);
void split_deinit(struct split *split);

#endif
