/* line: a figure of whole models as a line of JSON with the fields of every bench (bench/measure.h), written and
 * flushed at once, so that a run cut off keeps what it has. One thread.
 */
#ifndef GPU_LINE_H
#define GPU_LINE_H

enum { LINE_VALUES = 32 };
struct values { double at[LINE_VALUES]; int n; };
void values_add(struct values *values, double value); /* beyond LINE_VALUES: dropped */
double values_median(const struct values *values);    /* 0: there is none */

/* Where a line comes from: strings of the whole run. */
struct line_origin { const char *machine, *isa, *commit, *options; };
extern struct line_origin line_origin;

enum line_better { LINE_HIGHER, LINE_LOWER };
struct line_result {
    const char *bench, *unit;
    char which[400];                 /* members of "case", JSON */
    const struct values *values;
    enum line_better better;
    double bound;                    /* the roof's prediction, same unit; 0: none */
    double copy_gb;                  /* GB/s of copies between what was measured; 0: not measured */
};
void line_put(const struct line_result *result);

#endif
