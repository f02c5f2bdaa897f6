/* stop: stop strings over a text that arrives in pieces. What could be the beginning of a stop string
 * is held back until the next piece decides. Inside the room only.
 */
#ifndef SCHEDULER_STOP_H
#define SCHEDULER_STOP_H

#include <stdbool.h>

#include "scheduler/text.h"

enum { STOP_MAX_STRINGS = 64, STOP_MAX_BYTES = 4096 };

/* The stop strings of a request; read-only once made. */
struct stop_set {
    struct tokenizer_text string[STOP_MAX_STRINGS]; /* owned bytes */
    int32_t n_strings;
    size_t max_bytes;
};
/* STATUS_INVALID when there are too many or one is empty or too long. */
enum status stop_set_init(struct stop_set *set, const char *const *strings, size_t n_strings);
void stop_set_deinit(struct stop_set *set);

/* One sequence's text, as far as a stop string could still begin in it. Allocates at init only. */
struct stop_scan {
    struct detokenizer stream;
    char *window;      /* [stop_scan_cap] text that is not released */
    size_t n_window;
    int64_t n_released; /* bytes before the window: no stop string begins there */
};
/* `stream` stands where the prompt ended. */
enum status stop_scan_init(struct stop_scan *scan, const struct stop_set *set,
                           const struct detokenizer *stream);
void stop_scan_deinit(struct stop_scan *scan);
/* Text of one more token. True when a stop string is complete: of all, the one that ends first, so
 * that it does not matter how tokens cut the text. n_released then counts the text before it. */
bool stop_scan_push(struct stop_scan *scan, const struct stop_set *set, int32_t id);

#endif
