/* line: see the header. */
#include <stdio.h>
#include <stdlib.h>

#include "gpu/line.h"

struct line_origin line_origin = { "unknown", "unknown", "unknown", "" };

void values_add(struct values *values, double value)
{
    if (values->n < LINE_VALUES) {
        values->at[values->n++] = value;
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static struct values sorted(const struct values *values)
{
    struct values copy = *values;
    qsort(copy.at, (size_t)copy.n, sizeof copy.at[0], compare);
    return copy;
}

double values_median(const struct values *values)
{
    const struct values s = sorted(values);
    return s.n == 0 ? 0 : (s.at[(s.n - 1) / 2] + s.at[s.n / 2]) / 2;
}

static void put_text(const char *name, const char *text)
{
    printf(",\"%s\":\"", name);
    for (; *text != '\0'; text++) {
        putchar(*text == '"' || *text == '\\' || (unsigned char)*text < ' ' ? ' ' : *text);
    }
    putchar('"');
}

void line_put(const struct line_result *result)
{
    const struct values s = sorted(result->values);
    const double median = values_median(&s), bound = result->bound;
    printf("{\"bench\":\"%s\",\"case\":{%s},\"value\":%.6g,\"unit\":\"%s\",\"n\":%d,\"min\":%.6g,\"median\":%.6g,"
           "\"max\":%.6g", result->bench, result->which, median, result->unit, s.n, s.n > 0 ? s.at[0] : 0.0, median,
           s.n > 0 ? s.at[s.n - 1] : 0.0);
    if (result->copy_gb > 0) {
        printf(",\"roofs\":{\"copy_gb_per_s\":%.6g}", result->copy_gb);
    } else {
        printf(",\"roofs\":{}");
    }
    if (bound > 0 && median > 0) {
        printf(",\"bound\":%.6g,\"fraction\":%.4g", bound,
               result->better == LINE_LOWER ? bound / median : median / bound);
    } else {
        printf(",\"bound\":null,\"fraction\":null");
    }
    put_text("machine", line_origin.machine);
    put_text("isa", line_origin.isa);
    put_text("commit", line_origin.commit);
    put_text("options", line_origin.options);
    printf(",\"seed\":1}\n");
    fflush(stdout);
}
