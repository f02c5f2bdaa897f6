/* ahead_mode: whether to work ahead at all. Where draft and target share cores, or a draft costs as much
 * as it hides, drafting and verifying in turn is faster: both ways are measured over windows of steps, and
 * the faster one is taken; the other gets a window again after ever longer times, and soon where the one taken
 * has become slower since: the machine has changed, or the batch. The text is the same. */
#include "draft/ahead_private.h"

enum {
    WINDOW_STEPS = 12,
    SETTLING_STEPS = 2,      /* of a window after a change: its first rounds are not prepared yet */
    FIRST_WAIT = 3,          /* windows in turn before working ahead is tried at all: short texts never do */
    LAST_WAIT = 96           /* windows until the slower way is tried again */
};
static const double SHORTEST_STEP = 3e-3; /* seconds; below it, words between threads cost what there is to gain */
static const double NEWS = 0.5;      /* share of the newest window in a record */
static const double CLEARLY = 1.02;  /* the other way must be so much faster */
static const double HOPELESS = 0.9;  /* below it the wait grows faster */
static const double WORSE = 0.85;    /* of what the way taken once brought: the other is tried soon */

static double rate_of(const struct mode_record *record)
{
    return record->seconds > 0.0 ? record->tokens / record->seconds : 0.0;
}

static void enter(struct ahead_modes *modes, bool turns)
{
    modes->n_settling = modes->takes_turns != turns ? SETTLING_STEPS : 0;
    modes->takes_turns = turns;
    modes->n_steps = 0;
    modes->window = (struct mode_record){ .seconds = 0.0 };
}

static void end_window(struct ahead_modes *modes)
{
    struct mode_record *own = &modes->record[modes->takes_turns], *other = &modes->record[!modes->takes_turns];
    const double news = own->n_windows == 0 ? 1.0 : NEWS;
    own->tokens += news * (modes->window.tokens - own->tokens);
    own->seconds += news * (modes->window.seconds - own->seconds);
    own->n_windows++;
    const bool is_trial = modes->takes_turns != modes->prefers_turns;
    const double gain = other->n_windows > 0 ? rate_of(own) / rate_of(other) : 0.0;
    if (is_trial && gain > CLEARLY) {
        modes->prefers_turns = modes->takes_turns;
        modes->wait = FIRST_WAIT;
    } else if (is_trial) {
        const int32_t wait = modes->wait * (gain < HOPELESS ? 4 : 2);
        modes->wait = wait < LAST_WAIT ? wait : LAST_WAIT;
    }
    const double rate = rate_of(&modes->record[modes->prefers_turns]);
    if (is_trial || modes->rate_at_trial <= 0.0) {
        modes->rate_at_trial = rate;
    } else if (rate < WORSE * modes->rate_at_trial) {
        modes->rate_at_trial = rate; /* one trial, not one a window */
        modes->wait = FIRST_WAIT;
    }
    modes->n_since_trial = is_trial ? 0 : modes->n_since_trial + 1;
    const bool is_time = modes->n_since_trial >= modes->wait;
    const bool is_long = !modes->prefers_turns || own->seconds > SHORTEST_STEP * WINDOW_STEPS;
    enter(modes, is_time && is_long ? !modes->prefers_turns : modes->prefers_turns);
}

void ahead_mode_begin(struct ahead_modes *modes, bool is_measured)
{
    *modes = (struct ahead_modes){ .takes_turns = is_measured, .prefers_turns = is_measured, .wait = FIRST_WAIT };
}

void ahead_mode_observe(struct ahead_modes *modes, int64_t n_tokens, double seconds)
{
    if (modes->n_settling > 0) {
        modes->n_settling--;
        return;
    }
    modes->window.tokens += (double)n_tokens;
    modes->window.seconds += seconds;
    if (++modes->n_steps == WINDOW_STEPS) {
        end_window(modes);
    }
}
