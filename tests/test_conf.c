/* The option table: every row sound, values bounded, the environment below the command line, and one
 * sentence, with the nearest name, for what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/conf.h"

enum { MAX_WORDS = 80 };
static struct conf conf;

/* Parses "run --threads 2", words apart by single spaces. */
static enum status parse(const char *line)
{
    static char text[1024];
    static char *argv[MAX_WORDS + 2];
    static char program[] = "tandem";
    int argc = 1;
    argv[0] = program;
    snprintf(text, sizeof text, "%s", line);
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    return conf_parse(&conf, argc, argv);
}

static void expect_sentence(const char *line, enum status status, const char *part)
{
    assert_int_equal(parse(line), status);
    if (!strstr(status_message(), part)) {
        fail_msg("'%s' said '%s', expected '%s' in it", line, status_message(), part);
    }
}

static void test_table_is_whole(void **state)
{
    (void)state;
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct conf_option_info *a = conf_option_info((enum conf_option)i);
        assert_non_null(a->name);
        assert_non_null(a->help);
        assert_true(a->verbs != 0);
        assert_true(a->type == CONF_FLAG || a->metavar != NULL);
        assert_int_equal(a->type == CONF_CHOICE, a->choices != NULL);
        assert_true(a->type != CONF_INT || a->min < a->max);
        for (int j = 0; j < i; j++) {
            const struct conf_option_info *b = conf_option_info((enum conf_option)j);
            assert_string_not_equal(a->name, b->name);
            assert_true(a->short_form == 0 || a->short_form != b->short_form);
        }
    }
    for (int i = 0; i < VERB_COUNT; i++) {
        const struct conf_verb_info *verb = conf_verb_info((enum conf_verb)i);
        assert_non_null(verb->name);
        assert_non_null(verb->arguments);
        assert_non_null(verb->summary);
    }
}

static void test_defaults_parse(void **state)
{
    (void)state;
    assert_int_equal(parse("run"), STATUS_OK);
    assert_int_equal(conf.verb, VERB_RUN);
    assert_int_equal(conf_int(&conf, OPT_MAX_TOKENS), -1);
    assert_int_equal(conf_int(&conf, OPT_PAGE), 64);
    assert_int_equal(conf_int(&conf, OPT_PREFILL_CHUNK), 512);
    assert_true(conf_float(&conf, OPT_TEMPERATURE) == 0);
    assert_true(conf_float(&conf, OPT_TOP_P) == 1);
    assert_string_equal(conf_text(&conf, OPT_KV), "f16");
    assert_string_equal(conf_text(&conf, OPT_PLAN), "exact");
    assert_null(conf_text(&conf, OPT_TARGET));
    assert_false(conf_is_set(&conf, OPT_SEED));
    assert_false(conf_flag(&conf, OPT_JSON));
}

static void test_forms(void **state)
{
    (void)state;
    assert_int_equal(parse("run -m model.gguf -p hello -n 5 -t 0.5 -s 7 --json --top-k=40 --stop a --stop b"),
                     STATUS_OK);
    assert_string_equal(conf_text(&conf, OPT_TARGET), "model.gguf");
    assert_string_equal(conf_text(&conf, OPT_PROMPT), "hello");
    assert_int_equal(conf_int(&conf, OPT_MAX_TOKENS), 5);
    assert_true(conf_float(&conf, OPT_TEMPERATURE) == 0.5);
    assert_int_equal(conf_int(&conf, OPT_SEED), 7);
    assert_int_equal(conf_int(&conf, OPT_TOP_K), 40);
    assert_true(conf_flag(&conf, OPT_JSON));
    assert_int_equal(conf.n_list, 2);
    assert_string_equal(conf.list[1], "b");
    assert_int_equal(parse("run --max-tokens -1 -- --json"), STATUS_USAGE); /* an argument, and run takes none */
    assert_int_equal(parse("batch --max-batch 4 -- -file"), STATUS_OK);
    assert_string_equal(conf.argument[0], "-file");
    assert_int_equal(parse("batch -"), STATUS_OK);
    assert_int_equal(parse("run --json=0"), STATUS_OK);
    assert_false(conf_flag(&conf, OPT_JSON));
    assert_int_equal(parse("run --seed 18446744073709551615"), STATUS_OK);
    assert_true((uint64_t)conf_int(&conf, OPT_SEED) == UINT64_MAX);
}

static void test_nearest(void **state)
{
    (void)state;
    expect_sentence("rum", STATUS_USAGE, "'run'");
    expect_sentence("tokenise", STATUS_USAGE, "'tokenize'");
    expect_sentence("run --max-token 3", STATUS_USAGE, "--max-tokens");
    expect_sentence("run --tempreature 1", STATUS_USAGE, "--temperature");
    expect_sentence("run --kv f23", STATUS_USAGE, "'f32'");
    expect_sentence("run --isa avx12", STATUS_USAGE, "avx2");
    expect_sentence("run -x", STATUS_USAGE, "no option -x");
    expect_sentence("inspect --prompt a", STATUS_USAGE, "'run', not of 'inspect'");
    assert_int_equal(conf_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(conf_edit_distance("ab", "ba"), 1);
    assert_int_equal(conf_edit_distance("", "abc"), 3);
    assert_int_equal(conf_edit_distance("same", "same"), 0);
}

static void test_ranges(void **state)
{
    (void)state;
    expect_sentence("run --threads 0", STATUS_USAGE, "--threads is from 1 to 256, found 0");
    expect_sentence("run --threads two", STATUS_USAGE, "whole number, found 'two'");
    expect_sentence("run --threads 2x", STATUS_USAGE, "'2x'");
    expect_sentence("run --threads 99999999999999999999", STATUS_USAGE, "from 1 to 256");
    expect_sentence("run --top-p 1.5", STATUS_USAGE, "from 0 to 1, found 1.5");
    expect_sentence("run --temperature nan", STATUS_USAGE, "number");
    expect_sentence("run --temperature -1", STATUS_USAGE, "from 0 to 100");
    expect_sentence("run --seed -1", STATUS_USAGE, "'-1'");
    expect_sentence("run --seed 18446744073709551616", STATUS_USAGE, "--seed");
    expect_sentence("run --memory lots", STATUS_USAGE, "512M");
    expect_sentence("run --memory 0", STATUS_USAGE, "at least");
    expect_sentence("run --json=maybe", STATUS_USAGE, "'maybe'");
    expect_sentence("run --prompt", STATUS_USAGE, "needs a value");
    expect_sentence("batch", STATUS_USAGE, "needs FILE");
    expect_sentence("synth a b", STATUS_USAGE, "found 'b' too");
}

static void test_not_built_is_refused(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "serve", "audit",
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        expect_sentence(lines[i], STATUS_UNSUPPORTED, "not built yet");
    }
    assert_int_equal(parse("run --target-device cuda:0 --draft-device cuda:1"), STATUS_OK);
    assert_int_equal(parse("run --target-device cpu:0-1 --draft none --verify coupled --plan exact"), STATUS_OK);
    assert_int_equal(parse("run --target-device cuda:0 --plan native"), STATUS_OK);
    assert_int_equal(parse("logits --plan fast --ids 1 --out x"), STATUS_OK);
    expect_sentence("run --plan quick", STATUS_USAGE, "exact|native|fast");
}

static void test_environment(void **state)
{
    (void)state;
    setenv("TANDEM_MAX_TOKENS", "9", 1);
    setenv("TANDEM_JSON", "1", 1);
    setenv("TANDEM_STOP", "env", 1);
    setenv("TANDEM_ISA", "scalar", 1);
    assert_int_equal(parse("run"), STATUS_OK);
    assert_int_equal(conf_int(&conf, OPT_MAX_TOKENS), 9);
    assert_true(conf_flag(&conf, OPT_JSON));
    assert_string_equal(conf_text(&conf, OPT_ISA), "scalar");
    assert_true(conf_is_set(&conf, OPT_MAX_TOKENS));
    assert_string_equal(conf.list[0], "env");
    assert_int_equal(parse("run -n 3 --json=0 --stop a --stop b"), STATUS_OK);
    assert_int_equal(conf_int(&conf, OPT_MAX_TOKENS), 3);
    assert_false(conf_flag(&conf, OPT_JSON));
    assert_int_equal(conf.n_list, 2);
    assert_string_equal(conf.list[0], "a");
    assert_int_equal(parse("tokenize"), STATUS_OK); /* what a verb does not know does not hurt it */
    setenv("TANDEM_MAX_TOKENS", "many", 1);
    expect_sentence("run", STATUS_USAGE, "TANDEM_MAX_TOKENS needs a whole number");
    setenv("TANDEM_MAX_TOKENS", "", 1); /* empty is unset */
    assert_int_equal(parse("run"), STATUS_OK);
    unsetenv("TANDEM_MAX_TOKENS");
    unsetenv("TANDEM_JSON");
    unsetenv("TANDEM_STOP");
    unsetenv("TANDEM_ISA");
}

static void test_bytes(void **state)
{
    (void)state;
    int64_t bytes = 0;
    assert_int_equal(conf_parse_bytes("512M", &bytes), STATUS_OK);
    assert_int_equal(bytes, 512 << 20);
    assert_int_equal(conf_parse_bytes("1.5GiB", &bytes), STATUS_OK);
    assert_true(bytes == 3LL << 29);
    assert_int_equal(conf_parse_bytes("2kb", &bytes), STATUS_USAGE);
    assert_int_equal(conf_parse_bytes("2kB", &bytes), STATUS_OK);
    assert_int_equal(bytes, 2048);
    assert_int_equal(conf_parse_bytes("-1", &bytes), STATUS_USAGE);
    assert_int_equal(conf_parse_bytes("1e30", &bytes), STATUS_USAGE);
    assert_int_equal(conf_parse_bytes("inf", &bytes), STATUS_USAGE);
    assert_int_equal(conf_parse_bytes("", &bytes), STATUS_USAGE);
}

static void test_limits(void **state)
{
    (void)state;
    char line[1024] = "run";
    for (int i = 0; i < CONF_LIST_CAP / 2 + 1; i++) { /* 33 fit, the cap of 64 needs a direct call */
        strcat(line, " --stop a");
    }
    assert_int_equal(parse(line), STATUS_OK);
    assert_int_equal(conf.n_list, CONF_LIST_CAP / 2 + 1);
    static char stop[] = "--stop=a", tandem[] = "tandem", run[] = "run";
    char *argv[CONF_LIST_CAP + 3] = {tandem, run};
    for (int i = 0; i <= CONF_LIST_CAP; i++) {
        argv[2 + i] = stop;
    }
    assert_int_equal(conf_parse(&conf, CONF_LIST_CAP + 2, argv), STATUS_OK);
    assert_int_equal(conf_parse(&conf, CONF_LIST_CAP + 3, argv), STATUS_USAGE);
}

/* Help names every option of the verb that is built, and none that is not its own. */
static void test_help(void **state)
{
    (void)state;
    for (int v = 0; v < VERB_SERVE; v++) {
        static char page[16384];
        FILE *out = fmemopen(page, sizeof page, "w");
        assert_non_null(out);
        conf_print_verb_help(out, (enum conf_verb)v);
        fclose(out);
        for (int i = 0; i < OPT_COUNT; i++) {
            const struct conf_option_info *option = conf_option_info((enum conf_option)i);
            char name[64];
            snprintf(name, sizeof name, "--%s", option->name);
            const char *at = strstr(strstr(page, "options:"), name);
            while (at && at[strlen(name)] != ' ' && at[strlen(name)] != '\n') {
                at = strstr(at + 1, name);
            }
            const int has = (option->verbs >> v & 1u) != 0;
            const int hidden = option->later && strcmp(option->later, "*") == 0 && !option->choices;
            assert_int_equal(at != NULL, has && !hidden);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_whole), cmocka_unit_test(test_defaults_parse),
        cmocka_unit_test(test_forms), cmocka_unit_test(test_nearest), cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_not_built_is_refused), cmocka_unit_test(test_environment),
        cmocka_unit_test(test_bytes), cmocka_unit_test(test_limits), cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
