/* automaton: a suffix automaton over tokens, grown one token at a time (Blumer et al., "The smallest
 * automaton recognizing the subwords of a text", 1985), for one text or several apart. Every substring is
 * a walk from the root; a state's link is its longest suffix that occurs in other places too. Edges count
 * how often they were what came next. Memory is taken at creation and never grows. Inside the room only.
 */
#ifndef DRAFT_AUTOMATON_H
#define DRAFT_AUTOMATON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

struct automaton;
/* Bytes that an automaton of so many tokens takes. */
size_t automaton_bytes(int32_t cap_tokens);
enum status automaton_create(int32_t cap_tokens, struct automaton **out);
void automaton_destroy(struct automaton *automaton); /* NULL is fine */
void automaton_clear(struct automaton *automaton);
/* False: full, nothing changed. Amortised constant time. */
bool automaton_append(struct automaton *automaton, int32_t token);
/* What comes next is another text. */
void automaton_break(struct automaton *automaton);
int32_t automaton_n_tokens(const struct automaton *automaton);

/* A substring: the walk's end and how many tokens it has. { 0, 0 } is the empty one. */
struct automaton_match { int32_t state, len; };
/* The longest suffix of the text so far that also stands elsewhere in it. */
struct automaton_match automaton_repeat(const struct automaton *automaton);
/* From a suffix of some other text to the longest suffix of that text and one more token. */
void automaton_advance(const struct automaton *automaton, struct automaton_match *match, int32_t token);
/* What came next most often, the first seen among equals, and next to most often. */
struct automaton_next {
    int32_t token, state;
    float share;             /* of all that came next here */
};
/* Fills at most two; returns how many there are. */
int32_t automaton_next(const struct automaton *automaton, int32_t state, struct automaton_next next[2]);

#endif
