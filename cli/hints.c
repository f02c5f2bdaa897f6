/* hints: --sampling model. What the makers advise holds where the command line and the environment say
 * nothing, and one line says what that is. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

struct hint { enum conf_option option; double value; };
enum { N_HINTS = 5 };

static void hints_list(const struct td_hints *hints, struct hint list[N_HINTS])
{
    const struct hint all[N_HINTS] = {
        { OPT_TEMPERATURE, (double)hints->temperature }, { OPT_TOP_K, hints->top_k },
        { OPT_TOP_P, (double)hints->top_p }, { OPT_MIN_P, (double)hints->min_p },
        { OPT_REPETITION_PENALTY, (double)hints->repetition_penalty },
    };
    for (int i = 0; i < N_HINTS; i++) {
        list[i] = all[i];
    }
}

/* A number from a file is bounded like one from the command line. */
static enum status hint_check(const struct hint *hint)
{
    const struct conf_option_info *info = conf_option_info(hint->option);
    if (hint->value >= info->min && hint->value <= info->max) {
        return STATUS_OK;
    }
    return status_fail(STATUS_INVALID, "the model advises %s %g, expected %g to %g; give --%s, or leave "
                       "--sampling model out", info->name, hint->value, info->min, info->max, info->name);
}

int hints_text(const struct td_hints *hints, char *text, size_t cap)
{
    struct hint list[N_HINTS];
    int n = 0;
    size_t at = 0;
    hints_list(hints, list);
    text[0] = '\0';
    for (int i = 0; i < N_HINTS; i++) {
        if (list[i].value >= 0 && at < cap) {
            at += (size_t)snprintf(text + at, cap - at, "%s%s %g", n++ > 0 ? ", " : "",
                                   conf_option_info(list[i].option)->name, list[i].value);
        }
    }
    return n;
}

/* Whoever gives a setting decides it. */
static void hints_drop_given(const struct conf *conf, struct td_hints *hints)
{
    hints->temperature = conf_is_set(conf, OPT_TEMPERATURE) ? -1 : hints->temperature;
    hints->top_k = conf_is_set(conf, OPT_TOP_K) ? -1 : hints->top_k;
    hints->top_p = conf_is_set(conf, OPT_TOP_P) ? -1 : hints->top_p;
    hints->min_p = conf_is_set(conf, OPT_MIN_P) ? -1 : hints->min_p;
    hints->repetition_penalty = conf_is_set(conf, OPT_REPETITION_PENALTY) ? -1 : hints->repetition_penalty;
}

enum status engine_hints(const struct conf *conf, const struct td_engine *engine, struct td_hints *out)
{
    char text[160];
    struct hint list[N_HINTS];
    *out = (struct td_hints){ -1, -1, -1, -1, -1 };
    if (strcmp(conf_text(conf, OPT_SAMPLING), "model") != 0) {
        return STATUS_OK;
    }
    td_engine_get_hints(engine, out);
    hints_drop_given(conf, out);
    hints_list(out, list);
    for (int i = 0; i < N_HINTS; i++) {
        TRY(list[i].value >= 0 ? hint_check(&list[i]) : STATUS_OK);
    }
    if (hints_text(out, text, sizeof text) > 0) {
        say(conf, "sampling as the model advises: %s", text);
    } else {
        say(conf, "sampling: the model advises nothing that is not given already");
    }
    return STATUS_OK;
}
