/* mutant: bugs planted on purpose, each in the place where it could be made, so that it is known which
 * test would see it. `make mutants` builds them in (-DTANDEM_MUTANTS) and runs the suites with one of
 * them at a time, named by TANDEM_MUTANT. In every other build mutant() is false to the compiler and
 * leaves nothing behind.
 *
 *     kept = mutant(MUTANT_NO_ROLLBACK) ? all_of_them : accepted;
 */
#ifndef BASE_MUTANT_H
#define BASE_MUTANT_H

#include <stdbool.h>

/* Name, and what it does wrong. tools/run_mutants reads the names here. */
#define MUTANTS(X)                                                                                    \
    X(BATCH_MAX_POSITIONS, "rows stand at the longest sequence's positions")                          \
    X(PERMUTED_ROWS, "a sequence is judged by its neighbour's rows")                                  \
    X(NO_ROLLBACK, "rejected tokens stay cached")                                                     \
    X(SIDE_BRANCH_KEPT, "KV of an accepted side branch counts as being in place")                     \
    X(BONUS_FROM_ROW_BEFORE, "after full acceptance the bonus comes from the row before")             \
    X(FIRST_TOKEN_UNVERIFIED, "the first proposal is accepted unseen")                                \
    X(STOP_SEEN_LATE, "a stop inside a run is seen at its end")                                       \
    X(PENALTIES_NOT_IN_RUN, "penalties do not look at the run before them")                           \
    X(ONE_NOISE_A_RUN, "all rows of a run draw with the noise of the first")                          \
    X(CUT_TOKENS_COUNTED, "proposals cut by a stop count as drafted")                                 \
    X(NO_COPY_ON_WRITE, "shared pages are written to")                                                \
    X(PAGE_LEAK, "every fourth page let go is never free again")                                      \
    X(PAGE_FREE_AT_ONCE, "a page is free while a pass reads it")                                      \
    X(PREFIX_BY_FIRST_IDS, "prompts are known by the first four ids of a page")                       \
    X(PREFIX_UNCACHED, "pages are published before they are full")                                    \
    X(ACCEPT_OR_EQUAL, "the rejection rule accepts by <=")                                            \
    X(RESIDUAL_IS_TARGET, "a rejected token is replaced by a draw from the target")                   \
    X(DRAFT_LAG, "the draft keeps what was rejected")                                                 \
    X(DRAFT_STALE_COLUMN, "the draft catches up with the token before")                               \
    X(DRAFT_STALE_PLACE, "the draft takes a new sequence for the last one in its place")              \
    X(DRAFT_NOISE_ELSEWHERE, "the draft draws with another position's noise")                         \
    X(DRAFT_PAGES_LEAK, "the draft keeps the pages of who has left")                                  \
    X(BRANCH_SEES_NEIGHBOUR, "a branch that grows ahead sees its neighbour's last token")             \
    X(BRANCH_FORKS_LATE, "a branch stands a position too far")                                        \
    X(BRANCH_NOISE_ELSEWHERE, "a branch draws with another position's noise")                         \
    X(BRANCH_KEPT, "KV of a branch counts as that of the token it guessed")                           \
    X(PROPOSED_TOKEN_FORKS, "what was proposed is prepared for as its own correction")                \
    X(TABLE_OF_ANOTHER_EPOCH, "what was prepared before a preemption is served after it")             \
    X(TABLE_KEY_WITHOUT_K, "what was prepared is found by its token alone")                           \
    X(TABLE_READY_EARLY, "tokens may be read before they are chosen")                                 \
    X(GROWER_NEVER_STOPS, "branches grow on when the outcome is known")                               \
    X(GROWER_ONE_BANK, "distributions are overwritten while their tokens are judged")                 \
    X(MISS_LEARNED_AS_HIT, "outcomes after a fallback are learned with those after a hit")

#define MUTANT_NAME(name, what) MUTANT_##name,
enum mutant { MUTANT_NONE, MUTANTS(MUTANT_NAME) MUTANT_COUNT };
#undef MUTANT_NAME

#ifdef TANDEM_MUTANTS
/* Is this the one? Asked of the environment once; a name that is none aborts. */
bool mutant(enum mutant which);
#else
static inline bool mutant(enum mutant which)
{
    return which == MUTANT_COUNT; /* nobody asks for that one */
}
#endif

#endif
