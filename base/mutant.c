/* mutant: see the header. Compiled into the build of mutants alone. */
#include "base/mutant.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/conf.h"

static enum mutant planted;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_planted(void)
{
#define MUTANT_WORD(name, what) #name,
    static const char *const words[] = { "NONE", MUTANTS(MUTANT_WORD) };
#undef MUTANT_WORD
    const char *word = conf_environment("TANDEM_MUTANT");
    for (int i = 0; word != NULL && i < MUTANT_COUNT; i++) {
        if (strcmp(word, words[i]) == 0) {
            planted = (enum mutant)i;
            return;
        }
    }
    if (word != NULL) {
        fprintf(stderr, "there is no mutant '%s'\n", word);
        abort();
    }
}

bool mutant(enum mutant which)
{
    pthread_once(&once, read_planted);
    return planted == which;
}
