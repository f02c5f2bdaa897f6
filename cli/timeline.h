/* timeline: see timeline.c. A header of its own, so that a test can draw spans it made up. */
#ifndef CLI_TIMELINE_H
#define CLI_TIMELINE_H

#include <stdio.h>

#include "base/base.h"

struct conf;
struct timeline_look { int width, colours; }; /* columns; 1: escape sequences */
/* Draws the last rounds of n spans that ended in this order, as many as fit. */
void timeline_draw(FILE *out, const struct timeline_span *spans, size_t n, const struct timeline_look *look);
/* With --timeline: what was recorded, to standard error. */
enum status timeline_show(const struct conf *conf);

#endif
