/* The JSON reader: what it accepts, what it refuses and where, and that values come out exactly. */
#include "base/json.h"

#include <locale.h>

#include "test.h"

static struct lsi_json reader(const char *text, ls_error *err)
{
    struct lsi_json j;
    *err = (ls_error){ 0 };
    lsi_json_init(&j, text, strlen(text), "t.json", err);
    return j;
}

static bool valid(const char *text)
{
    ls_error err;
    struct lsi_json j = reader(text, &err);
    lsi_json_skip(&j);
    const ls_status st = lsi_json_end(&j);
    CHECK_INT(st == LS_OK, err.text[0] == '\0');
    return st == LS_OK;
}

static void test_accepts(void)
{
    static const char *const good[] = {
        "null",
        "true",
        " false ",
        "0",
        "-0",
        "-1.5e+10",
        "1E2",
        "\"\"",
        "[]",
        "{}",
        "[1,[2,{}],\"a\"]",
        "{\"a\":1,\"a\":2}",
        "\t\r\n [ 1 , 2 ] ",
        "\"\\u00e9\\ud83d\\ude42\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\xc3\xa9\xf0\x9f\x99\x82\"",
        "1e999",
        "[1000000000000000019884624838656]",
        "\"\x7f\"",
        "\"a long string of more than eight bytes, with \\\" in it\"",
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!valid(good[i])) {
            CHECK(false);
            fprintf(stderr, "  refused: %s\n", good[i]);
        }
    }
}

static void test_refuses(void)
{
    static const char *const bad[] = {
        "",
        " ",
        "nul",
        "True",
        "01",
        "-",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x10",
        "1 2",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "[1",
        "]",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "{1:2}",
        "[}",
        "{\"a\":1]",
        "\"",
        "\"\\",
        "\"abc",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\ud800\"",
        "\"\n\"",
        "\"\x01\"",
        "\"1234567\n\"",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xf4\x90\x80\x80\"",
        "\"\xe2\x82\"",
        "\xef\xbb\xbf{}",
        "// c\n1",
        "[1]//",
        "NaN",
        "Infinity",
        "\"a\" \"b\"",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (valid(bad[i])) {
            CHECK(false);
            fprintf(stderr, "  accepted: %s\n", bad[i]);
        }
    }
    ls_error err = { 0 };
    struct lsi_json j;
    lsi_json_init(&j, "\"a\0b\"", 5, "t", &err);
    CHECK(lsi_json_skip(&j) == LS_E_FORMAT);
    lsi_json_init(&j, NULL, 0, "t", &err);
    CHECK(lsi_json_skip(&j) == LS_E_FORMAT);
}

/* Every truncation of a valid text is refused, every byte of it being needed. */
static void test_truncations(void)
{
    static const char text[] =
        "{\"a\":[1,2.5,\"x\\u00e9\\ud83d\\ude42\xc3\xa9\",true,null],\"b\":{\"c\":-3}}";
    for (size_t n = 0; n < sizeof text - 1; n++) {
        ls_error err = { 0 };
        struct lsi_json j;
        char *exact = malloc(n ? n : 1); /* so that a read past the end is seen by the sanitizer */
        REQUIRE(exact);
        memcpy(exact, text, n);
        lsi_json_init(&j, exact, n, "t", &err);
        lsi_json_skip(&j);
        CHECK(lsi_json_end(&j) == LS_E_FORMAT);
        free(exact);
    }
    CHECK(valid(text));
}

static void test_nesting(void)
{
    char text[2 * (LSI_JSON_DEPTH + 1) + 1];
    for (int depth = LSI_JSON_DEPTH; depth <= LSI_JSON_DEPTH + 1; depth++) {
        memset(text, '[', (size_t)depth);
        memset(text + depth, ']', (size_t)depth);
        text[2 * depth] = '\0';
        CHECK_INT(valid(text), depth == LSI_JSON_DEPTH);
    }
}

static bool read_int(const char *text, int64_t *v)
{
    ls_error err;
    struct lsi_json j = reader(text, &err);
    *v = 77;
    if (lsi_json_int(&j, v) == LS_OK && lsi_json_end(&j) == LS_OK)
        return true;
    CHECK_INT(*v, 77); /* untouched on failure */
    return false;
}

static void test_int(void)
{
    static const struct {
        const char *text;
        int64_t v;
    } good[] = {
        { "0", 0 },
        { "-0", 0 },
        { "0e99999999999999999999", 0 },
        { "123456789012345678", 123456789012345678 },
        { "9223372036854775807", INT64_MAX },
        { "-9223372036854775808", INT64_MIN },
        { "1e6", 1000000 },
        { "1000000.0", 1000000 },
        { "1.5e1", 15 },
        { "100e-2", 1 },
        { "-12.50e2", -1250 },
        { "0.00000000000000000000000012e26", 12 },
        { "9007199254740993", 9007199254740993 },
    };
    int64_t v;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK(read_int(good[i].text, &v));
        CHECK_INT(v, good[i].v);
    }
    static const char *const bad[] = { "9223372036854775808",
                                       "-9223372036854775809",
                                       "0.5",
                                       "1e-1",
                                       "1e19",
                                       "1000000000000000019884624838656",
                                       "1e99999999999999999999",
                                       "\"1\"",
                                       "12345678901234567890123" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(!read_int(bad[i], &v));
}

static double read_double(const char *text)
{
    ls_error err;
    struct lsi_json j = reader(text, &err);
    double v = -77;
    return lsi_json_double(&j, &v) == LS_OK && lsi_json_end(&j) == LS_OK ? v : NAN;
}

static void test_double(void)
{
    static const char *const exact[] = { "0.1",
                                         "1e-5",
                                         "2.2250738585072011e-308",
                                         "4.9e-324",
                                         "1e308",
                                         "3.14159",
                                         "1000000000000000019884624838656",
                                         "-123.456e-7",
                                         "1e-400",
                                         "0.000001",
                                         "9007199254740993",
                                         "1.7976931348623157e308" };
    for (size_t i = 0; i < sizeof exact / sizeof exact[0]; i++)
        CHECK(read_double(exact[i]) == strtod(exact[i], NULL));
    CHECK(isnan(read_double("1e999")));
    CHECK(isnan(read_double("-1e309")));
    CHECK(signbit(read_double("-0.0")));

    /* 2^53 + 1 is a tie; digits far behind the point decide it. */
    char text[1200];
    strcpy(text, "9007199254740993.");
    memset(text + 17, '0', 1000);
    strcpy(text + 1017, "1");
    CHECK(read_double(text) == 9007199254740994.0);
    strcpy(text + 1017, "0");
    CHECK(read_double(text) == 9007199254740992.0);
}

static void test_double_in_any_locale(void)
{
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8"))
        setlocale(LC_NUMERIC, "fr_FR.UTF-8");
    CHECK_NEAR(read_double("2.5"), 2.5, 0);
    setlocale(LC_NUMERIC, "C");
}

static void test_strings(void)
{
    ls_error err;
    struct lsi_json_str s;
    struct lsi_json j = reader("\"caf\\u00e9 \\ud83d\\ude42\\n\"", &err);
    REQUIRE_OK(lsi_json_string(&j, &s), err);
    CHECK(s.escaped);
    CHECK(lsi_json_str_is(&s, "caf\xc3\xa9 \xf0\x9f\x99\x82\n"));
    CHECK(!lsi_json_str_is(&s, "caf\xc3\xa9 \xf0\x9f\x99\x82"));
    CHECK(!lsi_json_str_is(&s, "caf\xc3\xa9 \xf0\x9f\x99\x82\n!"));
    CHECK(!lsi_json_str_is(&s, ""));
    char out[64];
    CHECK_MEM(out, lsi_json_unescape(&s, out), "caf\xc3\xa9 \xf0\x9f\x99\x82\n", 11);
    char *copy = NULL;
    CHECK_INT(lsi_json_strdup(&s, NULL, &copy), LS_OK);
    CHECK_STR(copy, "caf\xc3\xa9 \xf0\x9f\x99\x82\n");
    lsi_free(NULL, copy, strlen(copy) + 1);

    j = reader("\"plain\"", &err);
    REQUIRE_OK(lsi_json_string(&j, &s), err);
    CHECK(!s.escaped && lsi_json_str_is(&s, "plain") && !lsi_json_str_is(&s, "plai"));

    j = reader("\"a\\u0000b\"", &err);
    REQUIRE_OK(lsi_json_string(&j, &s), err);
    CHECK(!lsi_json_str_is(&s, "a"));
    CHECK_MEM(out, lsi_json_unescape(&s, out), "a\0b", 3);
    CHECK_INT(lsi_json_strdup(&s, NULL, &copy), LS_E_FORMAT);
}

/* A quote, a backslash and a control character are found at every place of the eight-byte steps. */
static void test_string_positions(void)
{
    for (size_t at = 0; at < 20; at++) {
        for (size_t len = at; len < 24; len++) {
            char text[64];
            ls_error err = { 0 };
            struct lsi_json j;
            struct lsi_json_str s;
            text[0] = '"';
            memset(text + 1, 'x', len);
            text[1 + len] = '"';
            lsi_json_init(&j, text, len + 2, "t", &err);
            REQUIRE_OK(lsi_json_string(&j, &s), err);
            CHECK_INT(s.len, len);
            if (at == len)
                continue;
            text[1 + at] = '\x1f';
            lsi_json_init(&j, text, len + 2, "t", &err);
            CHECK_INT(lsi_json_string(&j, &s), LS_E_FORMAT);
            CHECK_INT(j.p - text, 1 + at);
            text[1 + at] = '"';
            lsi_json_init(&j, text, len + 2, "t", &err);
            REQUIRE_OK(lsi_json_string(&j, &s), err);
            CHECK_INT(s.len, at);
        }
    }
}

static void test_walk(void)
{
    ls_error err;
    struct lsi_json j =
        reader("{\"n\": 3, \"list\": [1, 2.5, true, null, \"s\"], \"o\": {\"x\": {}}, \"z\": false}", &err);
    struct lsi_json_str key;
    int keys = 0, elems = 0;
    REQUIRE_OK(lsi_json_object(&j), err);
    while (lsi_json_next_key(&j, &key)) {
        keys++;
        if (!lsi_json_str_is(&key, "list")) {
            REQUIRE_OK(lsi_json_skip(&j), err);
            continue;
        }
        static const enum lsi_json_type want[] = { LSI_JSON_NUMBER, LSI_JSON_NUMBER, LSI_JSON_BOOL,
                                                   LSI_JSON_NULL, LSI_JSON_STRING };
        REQUIRE_OK(lsi_json_array(&j), err);
        while (lsi_json_next_elem(&j)) {
            CHECK_INT(lsi_json_peek(&j), want[elems++]);
            REQUIRE_OK(lsi_json_skip(&j), err);
        }
    }
    CHECK_INT(keys, 4);
    CHECK_INT(elems, 5);
    REQUIRE_OK(lsi_json_end(&j), err);
}

static void test_messages(void)
{
    ls_error err;
    struct lsi_json j = reader("{\n  \"a\": 1,\n  \"b\": x\n}", &err);
    CHECK_INT(lsi_json_skip(&j), LS_E_FORMAT);
    CHECK_STR(err.text, "t.json:3:8: expected a value, found something else");
    CHECK_INT(lsi_json_end(&j), LS_E_FORMAT); /* sticky, and the first message stays */
    CHECK_INT(lsi_json_error(&j, "another"), LS_E_FORMAT);
    CHECK_STR(err.text, "t.json:3:8: expected a value, found something else");

    j = reader("[\"a\"]", &err);
    int64_t v;
    lsi_json_array(&j);
    CHECK(lsi_json_next_elem(&j));
    CHECK_INT(lsi_json_int(&j, &v), LS_E_FORMAT);
    CHECK_STR(err.text, "t.json:1:2: expected an integer, found a string");
    CHECK(!lsi_json_next_elem(&j));

    j = reader("{\"a\" 1}", &err);
    struct lsi_json_str key;
    lsi_json_object(&j);
    CHECK(!lsi_json_next_key(&j, &key));
    CHECK_INT(lsi_json_end(&j), LS_E_FORMAT);
    CHECK_STR(err.text, "t.json:1:6: expected ':', found a number");

    lsi_json_init(&j, "[", 1, "t", NULL); /* without a place for the message */
    CHECK_INT(lsi_json_skip(&j), LS_E_FORMAT);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_accepts),
        TEST(test_refuses),
        TEST(test_truncations),
        TEST(test_nesting),
        TEST(test_int),
        TEST(test_double),
        TEST(test_double_in_any_locale),
        TEST(test_strings),
        TEST(test_string_positions),
        TEST(test_walk),
        TEST(test_messages),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}
