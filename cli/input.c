/* input: prompts, ids and model names from outside, bounded before use. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum { MAX_IDS = 1 << 24 };

enum status text_append(struct text *text, const char *bytes, size_t n)
{
    if (n > INPUT_MAX_BYTES || text->n + n > 4 * (size_t)INPUT_MAX_BYTES) {
        return status_fail(STATUS_INVALID, "text is over %d MiB", 4 * (INPUT_MAX_BYTES >> 20));
    }
    if (text->n + n + 1 > text->cap) {
        const size_t cap = (text->n + n + 1) * 2 + 256;
        char *bigger = mem_realloc(text->bytes, cap, 1);
        if (!bigger) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %zu bytes of text", cap);
        }
        text->bytes = bigger;
        text->cap = cap;
    }
    if (n > 0) {
        memcpy(text->bytes + text->n, bytes, n);
    }
    text->n += n;
    text->bytes[text->n] = '\0';
    return STATUS_OK;
}

void text_free(struct text *text)
{
    mem_free(text->bytes);
    *text = (struct text){0};
}

enum status input_read(const char *path, struct text *out)
{
    const int is_stdin = strcmp(path, "-") == 0;
    const char *name = is_stdin ? "standard input" : path;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    if (!file) {
        return status_fail(STATUS_IO, "cannot open %s: %s", name, strerror(errno));
    }
    enum status status = text_append(out, "", 0);
    char block[1 << 16];
    size_t n = 1;
    while (status == STATUS_OK && n > 0) {
        n = fread(block, 1, sizeof block, file);
        if (out->n + n > INPUT_MAX_BYTES) {
            status = status_fail(STATUS_INVALID, "%s holds more than %d MiB", name, INPUT_MAX_BYTES >> 20);
        } else {
            status = text_append(out, block, n);
        }
    }
    if (status == STATUS_OK && ferror(file)) {
        status = status_fail(STATUS_IO, "cannot read %s: %s", name, strerror(errno));
    }
    if (!is_stdin) {
        fclose(file);
    }
    return status;
}

enum status id_list_append(struct id_list *list, int32_t id)
{
    if (list->n == MAX_IDS) {
        return status_fail(STATUS_INVALID, "more than %d ids", MAX_IDS);
    }
    if (list->n == list->cap) {
        const size_t cap = list->cap * 2 + 64;
        int32_t *bigger = mem_realloc(list->ids, cap, sizeof *bigger);
        if (!bigger) {
            return status_fail(STATUS_NO_MEMORY, "no memory for %zu ids", cap);
        }
        list->ids = bigger;
        list->cap = cap;
    }
    list->ids[list->n++] = id;
    return STATUS_OK;
}

void id_list_free(struct id_list *list)
{
    mem_free(list->ids);
    *list = (struct id_list){0};
}

enum status id_list_parse(const char *what, const char *text, size_t n, struct id_list *out)
{
    static const char between[] = ", \t\r\n";
    for (size_t i = 0; i < n;) {
        if (text[i] != '\0' && strchr(between, text[i])) {
            i++;
            continue;
        }
        const size_t begin = i;
        int64_t id = 0;
        while (i < n && text[i] >= '0' && text[i] <= '9' && id <= INT32_MAX) {
            id = id * 10 + (text[i++] - '0');
        }
        const int ends = i == n || (text[i] != '\0' && strchr(between, text[i]));
        if (i == begin || !ends || id > INT32_MAX) {
            size_t len = 0;
            while (begin + len < n && len < 24 && text[begin + len] && !strchr(between, text[begin + len])) {
                len++;
            }
            return status_fail(STATUS_USAGE, "%s holds '%.*s', expected whole numbers apart by commas",
                               what, (int)len, text + begin);
        }
        TRY(id_list_append(out, (int32_t)id));
    }
    return STATUS_OK;
}

/* The places a program looks in, from the folder it lies in: a checkout's build folder, an install. */
static const char *const model_places[] = {"", "/../..", "/../share/tandem"};

enum status input_model(const struct conf *conf, char path[PATH_CAP], const char **model)
{
    static const char name[] = "models/stories15M.Q8_0.gguf";
    *model = conf_text(conf, OPT_TARGET);
    if (*model) {
        return STATUS_OK;
    }
    *model = path;
    char program[PATH_CAP] = "";
    const ssize_t len = readlink("/proc/self/exe", program, sizeof program - 1);
    char *slash = len > 0 ? strrchr(program, '/') : NULL;
    const int folder = slash ? (int)(slash - program) : 0;
    for (size_t i = 0; slash && i < sizeof model_places / sizeof model_places[0]; i++) {
        const int n = snprintf(path, PATH_CAP, "%.*s%s/%s", folder, program, model_places[i], name);
        if (n < PATH_CAP && access(path, R_OK) == 0) {
            return STATUS_OK;
        }
    }
    snprintf(path, PATH_CAP, "%s", name);
    if (access(path, R_OK) == 0) {
        return STATUS_OK;
    }
    return status_fail(STATUS_IO, "the model that comes with the program, %s, was not found beside it, in "
                       "its share/tandem or here; name one with --target", name);
}
