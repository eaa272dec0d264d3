/* Reading safetensors: what the reference reader accepts, and each of its refusals (and ours) alone. */
#include "formats/safetensors.h"

#include "bytes.h"
#include "test.h"
#include "faulty.h"
#include "outside.h"

static struct bytes file;
static char message[600];

/* A file with this header and so many bytes of data, numbered 0, 1, 2 … */
static void make(const char *header, size_t data_bytes)
{
    file.n = 0;
    put64(&file, strlen(header));
    put_text(&file, header);
    for (size_t i = 0; i < data_bytes; i++)
        put8(&file, (unsigned)i);
}

static ls_status parse_status(void)
{
    struct lsi_safetensors s;
    ls_error err = { 0 };
    unsigned char *copy = malloc(file.n ? file.n : 1);
    REQUIRE(copy);
    memcpy(copy, file.data, file.n);
    const ls_status st = lsi_st_parse(&s, copy, file.n, "t.safetensors", NULL, &err);
    snprintf(message, sizeof message, "%s", err.text);
    if (st == LS_OK)
        lsi_st_close(&s);
    else
        CHECK(s.tensors == NULL && s.n_tensors == 0);
    free(copy);
    return st;
}

static void check_refused(int line, const char *needle)
{
    const ls_status st = parse_status();
    if (st == LS_OK || !strstr(message, needle) || !strstr(message, "t.safetensors")) {
        test_fail_(__FILE__, line);
        fprintf(stderr, "expected a message with \"%s\", got status %d: %s\n", needle, (int)st, message);
    }
}
#define REFUSED(header, bytes, needle)   \
    do {                                 \
        make(header, bytes);             \
        check_refused(__LINE__, needle); \
    } while (0)

static void check_accepted(int line)
{
    if (parse_status() != LS_OK) {
        test_fail_(__FILE__, line);
        fprintf(stderr, "refused: %s\n", message);
    }
}
#define ACCEPTED(header, bytes)   \
    do {                          \
        make(header, bytes);      \
        check_accepted(__LINE__); \
    } while (0)

static void test_read(void)
{
    make("{\"__metadata__\":{\"format\":\"pt\"},"
         "\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[1,13]},"
         "\"a\":{\"data_offsets\":[0,1],\"shape\":[],\"dtype\":\"U8\"},"
         "\"c\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[13,15]}}",
         15);
    struct lsi_safetensors s;
    ls_error err = { 0 };
    REQUIRE_OK(lsi_st_parse(&s, file.data, file.n, "t", NULL, &err), err);
    CHECK_INT(s.n_tensors, 3);
    CHECK_STR(s.tensors[0].name, "a");
    const struct lsi_st_tensor *t = lsi_st_find(&s, "b");
    REQUIRE(t);
    CHECK_INT(t->dtype, LSI_F16);
    CHECK(t->rank == 2 && t->shape[0] == 2 && t->shape[1] == 3);
    CHECK_INT(t->bytes, 12);
    CHECK_INT(t->data[0], 1);
    t = lsi_st_find(&s, "a");
    CHECK(t && t->rank == 0 && t->bytes == 1);
    t = lsi_st_find(&s, "c");
    CHECK(t && t->dtype == LSI_OTHER);
    CHECK_STR(t->dtype_name, "F8_E4M3");
    CHECK(!lsi_st_find(&s, "__metadata__") && !lsi_st_find(&s, "") && !lsi_st_find(&s, "zz"));
    lsi_st_close(&s);
    lsi_st_close(&s);
}

static void test_accepts(void)
{
    ACCEPTED("{}", 0);
    ACCEPTED("{\"__metadata__\":{}}", 0);
    ACCEPTED("  \n{} \t\r\n ", 0);
    ACCEPTED("{\"a\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[0,0]},"
             "\"b\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},"
             "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
             1);
    ACCEPTED("{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2);
    ACCEPTED("{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3);
    ACCEPTED("{\"caf\\u00e9\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1);
    static const char *const dtypes[] = { "BOOL",    "U8",          "I8",          "F8_E5M2", "F8_E4M3",
                                          "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16",     "U16",
                                          "F16",     "BF16",        "I32",         "U32",     "F32",
                                          "C64",     "F64",         "I64",         "U64" };
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        const size_t bytes = i < 8 ? 1 : i < 12 ? 2 : i < 15 ? 4 : 8;
        char header[200];
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}",
                 dtypes[i], 3 * bytes);
        ACCEPTED(header, 3 * bytes);
    }
}

static void test_lengths(void)
{
    file.n = 0;
    check_refused(__LINE__, "too small");
    put_zeros(&file, 7);
    check_refused(__LINE__, "too small");
    file.n = 0;
    put64(&file, 100000001);
    put_text(&file, "{}");
    check_refused(__LINE__, "more than the allowed 100000000");
    file.n = 0;
    put64(&file, 100000000);
    put_text(&file, "{}");
    check_refused(__LINE__, "claims 100000000 bytes, but the file has 10");
    file.n = 0;
    put64(&file, UINT64_MAX);
    put_text(&file, "{}");
    check_refused(__LINE__, "more than the allowed");
    make("{}", 0);
    file.data[0] = 3;
    check_refused(__LINE__, "claims 3 bytes");
    file.data[0] = 0;
    check_refused(__LINE__, "expected an object, found the end");
    REFUSED("{}", 1, "longer than it should be");
    REFUSED("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 1, "truncated");
    REFUSED("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 3, "longer than it should be");
}

#define A(fields) "{\"a\":{" fields "}}"
#define GOOD      "\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"

static void test_header_rules(void)
{
    REFUSED("[]", 0, "expected an object");
    REFUSED("{", 0, "found the end");
    REFUSED("{}x", 0, "more text");
    REFUSED("{\"\xff\":1}", 0, "invalid UTF-8");
    REFUSED(A("\"dtype\":\"f32\",\"shape\":[],\"data_offsets\":[0,4]"), 4, "unknown dtype 'f32'");
    REFUSED(A("\"dtype\":\"Q4_0\",\"shape\":[],\"data_offsets\":[0,4]"), 4, "unknown dtype 'Q4_0'");
    REFUSED(A("\"dtype\":8,\"shape\":[],\"data_offsets\":[0,4]"), 4, "expected a string");
    REFUSED(A("\"shape\":[2],\"data_offsets\":[0,2]"), 2, "has no dtype");
    REFUSED(A("\"dtype\":\"U8\",\"data_offsets\":[0,2]"), 2, "has no shape");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[2]"), 2, "has no data_offsets");
    REFUSED(A(GOOD ",\"strides\":[1]"), 2, "'strides' is not known");
    REFUSED(A(GOOD ",\"dtype\":\"U8\""), 2, "'dtype' is there twice");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":2,\"data_offsets\":[0,2]"), 2, "expected an array");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[-2],\"data_offsets\":[0,2]"), 2, "not negative");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[2.0],\"data_offsets\":[0,2]"), 2, "whole number");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[2e0],\"data_offsets\":[0,2]"), 2, "whole number");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[\"2\"],\"data_offsets\":[0,2]"), 2, "expected a number");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,2]"), 2, "64 bits");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0]"), 2, "two numbers");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2,2]"), 2, "two numbers");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,-2]"), 2, "not negative");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0.0,2]"), 2, "whole number");
    REFUSED(A("\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]"), 1,
            "more than 8 dimensions");
    REFUSED("{\"a\":{" GOOD "},\"a\":{" GOOD "}}", 2, "");
    REFUSED("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2, "'a' is there twice");
    REFUSED("{\"a\\u0000\":{" GOOD "}}", 2, "NUL");
    REFUSED("{\"a\":[" GOOD "]}", 2, "expected an object");
    REFUSED("{\"__metadata__\":{\"a\":1}}", 0, "expected a string");
    REFUSED("{\"__metadata__\":[]}", 0, "expected an object");
    REFUSED("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "there twice");
}

static void test_layout_rules(void)
{
#define U8(name, shape, b, e) \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":[" #b "," #e "]}"
    REFUSED("{" U8("a", "[1]", 1, 2) "}", 2, "there is a gap");
    REFUSED("{" U8("a", "[1]", 0, 1) "," U8("b", "[1]", 2, 3) "}", 3, "there is a gap");
    REFUSED("{" U8("a", "[2]", 0, 2) "," U8("b", "[2]", 1, 3) "}", 3, "they overlap");
    REFUSED("{" U8("a", "[2]", 0, 2) "," U8("b", "[2]", 0, 2) "}", 2, "they overlap");
    REFUSED("{" U8("a", "[2]", 0, 2) "," U8("b", "[0]", 2, 1) "}", 2, "before it begins");
    REFUSED("{" U8("a", "[3]", 0, 2) "}", 2, "needs 3 bytes for its shape, but its offsets hold 2");
    REFUSED("{" U8("a", "[0]", 0, 2) "}", 2, "needs 0 bytes");
    REFUSED("{" U8("a", "[]", 0, 2) "}", 2, "needs 1 bytes");
    REFUSED("{" U8("a", "[4294967296,4294967296]", 0, 0) "}", 0, "overflows");
    REFUSED("{" U8("a", "[0,4294967296,4294967296]", 0, 0) "}", 0, "overflows");
    REFUSED("{" U8("a", "[2305843009213693952]", 0, 0) "}", 0, "overflows");
    REFUSED("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "whole bytes");
    REFUSED("{" U8("a", "[9000000000000000000]", 0, 9000000000000000000) "}", 2, "");
    REFUSED("{" U8("a", "[1000000]", 0, 1000000) "}", 2, "need 1000000; the file is truncated");
}

static void test_damage(void)
{
    make("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},\"__metadata__\":{\"x\":\"y\"},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]}}",
         11);
    check_accepted(__LINE__);
    const size_t n = file.n;
    for (file.n = 0; file.n < n; file.n++) {
        CHECK(parse_status() != LS_OK);
        CHECK(message[0] != '\0');
    }
    for (size_t i = 0; i < n; i++) {
        for (int bit = 0; bit < 8; bit++) {
            file.data[i] ^= (unsigned char)(1 << bit);
            parse_status();
            file.data[i] ^= (unsigned char)(1 << bit);
        }
    }
}

/* ---- files -------------------------------------------------------------- */

static char path[160];

static void save(const char *name, const void *data, size_t n)
{
    snprintf(path, sizeof path, "%s/%s", temp_dir(), name);
    FILE *f = fopen(path, "wb");
    REQUIRE(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

static void save_text(const char *name, const char *text)
{
    save(name, text, strlen(text));
}

static void save_shards(void)
{
    make("{" U8("a", "[1]", 0, 1) "," U8("c", "[2]", 1, 3) "}", 3);
    save("model-00001-of-00002.safetensors", file.data, file.n);
    make("{" U8("b", "[2]", 0, 2) "," U8("extra", "[1]", 2, 3) "}", 3);
    save("model-00002-of-00002.safetensors", file.data, file.n);
}

#define INDEX      "model.safetensors.index.json"
#define S1         "\"model-00001-of-00002.safetensors\""
#define S2         "\"model-00002-of-00002.safetensors\""
#define GOOD_INDEX "{\"metadata\":{\"total_size\":5},\"weight_map\":{\"a\":" S1 ",\"b\":" S2 ",\"c\":" S1 "}}"

static void check_dir(int line, const char *index, const char *needle)
{
    struct lsi_safetensors s;
    ls_error err = { 0 };
    save_text(INDEX, index);
    const ls_status st = lsi_st_open_dir(&s, temp_dir(), NULL, &err);
    if (st == LS_OK)
        lsi_st_close(&s);
    if (st == LS_OK || !strstr(err.text, needle)) {
        test_fail_(__FILE__, line);
        fprintf(stderr, "expected a message with \"%s\", got status %d: %s\n", needle, (int)st, err.text);
    }
}
#define DIR_REFUSED(index, needle) check_dir(__LINE__, index, needle)

static void test_shards(void)
{
    struct lsi_safetensors s;
    ls_error err = { 0 };
    CHECK_INT(lsi_st_open_dir(&s, temp_dir(), NULL, &err), LS_E_IO);
    CHECK(strstr(err.text, "neither model.safetensors nor"));
    save_shards();
    save_text(INDEX, GOOD_INDEX);
    REQUIRE_OK(lsi_st_open_dir(&s, temp_dir(), NULL, &err), err);
    CHECK_INT(s.n_tensors, 3);
    CHECK_INT(s.n_unlisted, 1);
    CHECK(lsi_st_find(&s, "a") && lsi_st_find(&s, "c") && !lsi_st_find(&s, "extra"));
    const struct lsi_st_tensor *t = lsi_st_find(&s, "b");
    REQUIRE(t && t->bytes == 2);
    CHECK_INT(t->data[1], 1);
    CHECK(t->shard != lsi_st_find(&s, "a")->shard);
    lsi_st_close(&s);

    DIR_REFUSED("{\"weight_map\":{\"a\":" S2 "}}", "has no tensor 'a'");
    DIR_REFUSED("{\"weight_map\":{\"a\":" S1 ",\"a\":" S1 "}}", "names tensor 'a' twice");
    DIR_REFUSED("{\"weight_map\":{\"b\":" S1 ",\"b\":" S2 "}}", "'b'");
    DIR_REFUSED("{\"weight_map\":{\"a\":\"model-00003-of-00002.safetensors\"}}", "model-00003-of-00002");
    DIR_REFUSED("{\"weight_map\":{}}", "names no tensors");
    DIR_REFUSED("{\"metadata\":{}}", "names no tensors");
    DIR_REFUSED("{\"weight_map\":{\"a\":1}}", "expected a string");
    DIR_REFUSED("{\"weight_map\":{},\"weight_map\":{}}", "twice");
    DIR_REFUSED("[]", "expected an object");
    DIR_REFUSED("", "expected an object");
    static const char *const bad[] = { "../x", "/etc/passwd", "a/b", "a\\\\b", "..", "" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char index[200];
        snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", bad[i]);
        DIR_REFUSED(index, "is not allowed as the name of a shard");
    }
    DIR_REFUSED("{\"weight_map\":{\"a\":\"m\\u0000\"}}", "NUL");
}

static void test_single_wins(void)
{
    struct lsi_safetensors s;
    ls_error err = { 0 };
    save_shards();
    save_text(INDEX, GOOD_INDEX);
    make("{" U8("only", "[1]", 0, 1) "}", 1);
    save("model.safetensors", file.data, file.n);
    REQUIRE_OK(lsi_st_open_dir(&s, temp_dir(), NULL, &err), err);
    CHECK(s.n_tensors == 1 && lsi_st_find(&s, "only"));
    lsi_st_close(&s);
    remove(path);
    CHECK_INT(lsi_st_open(&s, "/nonexistent.safetensors", NULL, &err), LS_E_IO);
    save("empty.safetensors", "", 0);
    CHECK_INT(lsi_st_open(&s, path, NULL, &err), LS_E_FORMAT);
}

static void test_no_memory(void)
{
    save_shards();
    save_text(INDEX, GOOD_INDEX);
    for (size_t i = 1;; i++) {
        struct faulty f = { .fail_at = i };
        const ls_alloc alloc = { faulty_alloc, faulty_free, &f };
        struct lsi_safetensors s;
        ls_error err = { 0 };
        const ls_status st = lsi_st_open_dir(&s, temp_dir(), &alloc, &err);
        if (st == LS_OK) {
            lsi_st_close(&s);
            CHECK_INT(f.outstanding, 0);
            CHECK(i > 16);
            break;
        }
        CHECK_INT(st, LS_E_NOMEM);
        CHECK(strstr(err.text, "memory"));
        CHECK_INT(f.outstanding, 0);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_read),         TEST(test_accepts),      TEST(test_lengths),
        TEST(test_header_rules), TEST(test_layout_rules), TEST(test_damage),
        TEST(test_shards),       TEST(test_single_wins),  TEST(test_no_memory),
    };
    const int rc = test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
    temp_dir_remove();
    return rc;
}
