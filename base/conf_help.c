/* conf_help: pages of help, made from the tables of conf.c and nothing else. */
#include <stdio.h>
#include <string.h>

#include "base/conf.h"

enum { HELP_COLUMN = 30, HELP_WIDTH = 96 };

/* Prints `text` from HELP_COLUMN on, broken between words. `at` is the column reached so far. */
static void print_wrapped(FILE *out, int at, const char *text)
{
    if (at >= HELP_COLUMN) {
        fputc('\n', out);
        at = 0;
    }
    fprintf(out, "%*s", HELP_COLUMN - at, "");
    int column = HELP_COLUMN;
    while (*text) {
        const int word = (int)strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + word > HELP_WIDTH) {
            fprintf(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        column += fprintf(out, "%s%.*s", column > HELP_COLUMN ? " " : "", word, text);
        text += word + (text[word] == ' ');
    }
    fputc('\n', out);
}

static void print_option(FILE *out, const struct conf_option_info *info)
{
    char text[512];
    int at = info->short_form ? fprintf(out, "  -%c, --%s", info->short_form, info->name)
                              : fprintf(out, "      --%s", info->name);
    const char *value = info->choices ? info->choices : info->metavar;
    at += value ? fprintf(out, " %s", value) : 0;
    const int shows_default = info->unset && info->type != CONF_FLAG &&
                              !(info->choices && strcmp(info->choices, info->unset) == 0);
    if (shows_default) {
        snprintf(text, sizeof text, "%s (default: %s)", info->help, info->unset);
    } else {
        snprintf(text, sizeof text, "%s", info->help);
    }
    print_wrapped(out, at, text);
}

void conf_print_help(FILE *out)
{
    fputs("usage: tandem VERB [options]     tandem VERB --help\n\nverbs:\n", out);
    for (int i = 0; i < VERB_COUNT; i++) {
        const struct conf_verb_info *verb = conf_verb_info((enum conf_verb)i);
        if (!verb->later) {
            print_wrapped(out, fprintf(out, "  %s %s", verb->name, verb->arguments), verb->summary);
        }
    }
    fputs("\nEvery option may be set as TANDEM_<OPTION> in the environment (TANDEM_MAX_TOKENS=100); the\n"
          "command line wins. Text goes to standard output, everything else to standard error.\n"
          "Exit: 0 done, 1 failed, 2 wrong usage, 3 a difference was found, 130 interrupted.\n", out);
}

/* Built options have their line; those that are known and not built are left out. */
void conf_print_verb_help(FILE *out, enum conf_verb verb)
{
    const struct conf_verb_info *info = conf_verb_info(verb);
    fprintf(out, "usage: tandem %s%s%s [options]\n\n%s\n", info->name, *info->arguments ? " " : "",
            info->arguments, info->summary);
    if (info->about) {
        fprintf(out, "\n%s\n", info->about);
    }
    fputs("\noptions:\n", out);
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct conf_option_info *option = conf_option_info((enum conf_option)i);
        const int built = !(option->later && strcmp(option->later, "*") == 0) || option->choices;
        if ((option->verbs >> verb & 1u) && built) {
            print_option(out, option);
        }
    }
}
