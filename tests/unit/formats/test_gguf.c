/* Reading GGUF: values, places of tensors, and every rule with a file that breaks it alone. */
#include "formats/gguf.h"

#include <unistd.h>

#include "bytes.h"
#include "test.h"
#include "faulty.h"
#include "outside.h"

static struct bytes file;
static char message[600];

static void begin(uint64_t n_tensors, uint64_t n_kv)
{
    file.n = 0;
    put_text(&file, "GGUF");
    put32(&file, 3);
    put64(&file, n_tensors);
    put64(&file, n_kv);
}

static void gstr(const char *s)
{
    put64(&file, strlen(s));
    put_text(&file, s);
}

static void kv(const char *key, uint32_t type)
{
    gstr(key);
    put32(&file, type);
}

static void kv_u32(const char *key, uint32_t v)
{
    kv(key, LSI_GGUF_U32);
    put32(&file, v);
}

static void array(const char *key, uint32_t type, uint64_t n)
{
    kv(key, LSI_GGUF_ARRAY);
    put32(&file, type);
    put64(&file, n);
}

static void tensor(const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset)
{
    gstr(name);
    put32(&file, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        put64(&file, dims[i]);
    put32(&file, type);
    put64(&file, offset);
}

static void tensor_f32(const char *name, uint64_t n, uint64_t offset)
{
    tensor(name, 0, 1, &n, offset);
}

static void data(size_t n)
{
    put_pad(&file, 32);
    put_zeros(&file, n);
}

/* Parse a copy of exactly the file's size; closed again. */
static ls_status parse_status(void)
{
    struct lsi_gguf g;
    ls_error err = { 0 };
    unsigned char *copy = malloc(file.n ? file.n : 1);
    REQUIRE(copy);
    memcpy(copy, file.data, file.n);
    const ls_status st = lsi_gguf_parse(&g, copy, file.n, "t.gguf", NULL, &err);
    snprintf(message, sizeof message, "%s", err.text);
    if (st == LS_OK)
        lsi_gguf_close(&g);
    else
        CHECK(g.kv == NULL && g.tensors == NULL);
    free(copy);
    return st;
}

static void check_refused(int line, const char *needle)
{
    const ls_status st = parse_status();
    if (st == LS_OK || !strstr(message, needle) || !strstr(message, "t.gguf")) {
        test_fail_(__FILE__, line);
        fprintf(stderr, "expected a message with \"%s\", got status %d: %s\n", needle, (int)st, message);
    }
}
#define REFUSED(needle) check_refused(__LINE__, needle)
#define ACCEPTED()      CHECK_INT(parse_status(), LS_OK)

/* ---- what is read ------------------------------------------------------- */

static void test_values(void)
{
    begin(0, 16);
    kv("u8", LSI_GGUF_U8), put8(&file, 200);
    kv("i8", LSI_GGUF_I8), put8(&file, 0x80);
    kv("u16", LSI_GGUF_U16), put(&file, (uint16_t[]){ 65535 }, 2);
    kv("i16", LSI_GGUF_I16), put(&file, (int16_t[]){ -2 }, 2);
    kv_u32("u32", 4000000000u);
    kv("i32", LSI_GGUF_I32), put(&file, (int32_t[]){ 7 }, 4);
    kv("f32", LSI_GGUF_F32), put(&file, (float[]){ 1.5f }, 4);
    kv("bool", LSI_GGUF_BOOL), put8(&file, 1);
    kv("str", LSI_GGUF_STRING), gstr("hello");
    kv("u64", LSI_GGUF_U64), put64(&file, UINT64_MAX);
    kv("i64", LSI_GGUF_I64), put64(&file, (uint64_t)-5);
    kv("f64", LSI_GGUF_F64), put(&file, (double[]){ 0.1 }, 8);
    array("one", LSI_GGUF_I32, 1), put32(&file, 9);
    array("ints", LSI_GGUF_I16, 3), put(&file, (int16_t[]){ 1, -2, 3 }, 6);
    array("strs", LSI_GGUF_STRING, 3), gstr("a"), gstr(""), gstr("ccc");
    array("none", LSI_GGUF_STRING, 0);

    struct lsi_gguf g;
    ls_error err = { 0 };
    REQUIRE_OK(lsi_gguf_parse(&g, file.data, file.n, "t", NULL, &err), err);
    CHECK_INT(g.version, 3);
    CHECK_INT(g.alignment, 32);
    CHECK_INT(g.n_kv, 16);

    uint64_t u = 77;
    double f = 77;
    int64_t i = 77;
    bool b = false;
    struct lsi_str s = { 0 };
    CHECK(lsi_gguf_get_u64(&g, "u8", &u) && u == 200);
    CHECK(lsi_gguf_get_u64(&g, "u16", &u) && u == 65535);
    CHECK(lsi_gguf_get_u64(&g, "u32", &u) && u == 4000000000u);
    CHECK(lsi_gguf_get_u64(&g, "u64", &u) && u == UINT64_MAX);
    CHECK(lsi_gguf_get_u64(&g, "i32", &u) && u == 7);
    CHECK(lsi_gguf_get_u64(&g, "one", &u) && u == 9);
    u = 77;
    CHECK(!lsi_gguf_get_u64(&g, "i8", &u) && !lsi_gguf_get_u64(&g, "i64", &u) && u == 77);
    CHECK(!lsi_gguf_get_u64(&g, "f32", &u) && !lsi_gguf_get_u64(&g, "bool", &u) && u == 77);
    CHECK(!lsi_gguf_get_u64(&g, "str", &u) && !lsi_gguf_get_u64(&g, "ints", &u) && u == 77);
    CHECK(!lsi_gguf_get_u64(&g, "absent", &u) && u == 77);
    CHECK(lsi_gguf_get_f64(&g, "f32", &f) && f == 1.5);
    CHECK(lsi_gguf_get_f64(&g, "f64", &f) && f == 0.1);
    CHECK(lsi_gguf_get_f64(&g, "i8", &f) && f == -128);
    CHECK(!lsi_gguf_get_f64(&g, "str", &f) && !lsi_gguf_get_f64(&g, "bool", &f));
    CHECK(lsi_gguf_get_bool(&g, "bool", &b) && b);
    CHECK(!lsi_gguf_get_bool(&g, "u8", &b));
    CHECK(lsi_gguf_get_str(&g, "str", &s));
    CHECK_MEM(s.s, s.len, "hello", 5);
    CHECK(!lsi_gguf_get_str(&g, "strs", &s) && !lsi_gguf_get_str(&g, "none", &s));

    const struct lsi_gguf_kv *kvs = lsi_gguf_find(&g, "ints");
    REQUIRE(kvs);
    CHECK(lsi_gguf_elem_i64(kvs, 1, &i) && i == -2);
    CHECK(lsi_gguf_elem_f64(kvs, 2, &f) && f == 3);
    CHECK(!lsi_gguf_elem_i64(kvs, 3, &i));
    CHECK(lsi_gguf_elem_i64(lsi_gguf_find(&g, "i64"), 0, &i) && i == -5);
    CHECK(!lsi_gguf_elem_i64(lsi_gguf_find(&g, "u64"), 0, &i));
    CHECK(!lsi_gguf_elem_i64(lsi_gguf_find(&g, "strs"), 0, &i));

    size_t cursor = 0, n = 0;
    static const char *const want[] = { "a", "", "ccc" };
    while (lsi_gguf_next_str(lsi_gguf_find(&g, "strs"), &cursor, &s)) {
        REQUIRE(n < 3);
        CHECK_MEM(s.s, s.len, want[n], strlen(want[n]));
        n++;
    }
    CHECK_INT(n, 3);
    cursor = 0;
    CHECK(!lsi_gguf_next_str(kvs, &cursor, &s));
    lsi_gguf_close(&g);
    lsi_gguf_close(&g); /* harmless */
}

static void test_tensors(void)
{
    begin(4, 0);
    tensor_f32("a", 3, 0);
    tensor("b", 8, 2, (uint64_t[]){ 64, 2 }, 32);
    tensor("empty", 0, 2, (uint64_t[]){ 0, 5 }, 192);
    tensor("c", 16, 1, (uint64_t[]){ 256 }, 192);
    data(192 + 66);
    for (size_t i = 0; i < 3; i++)
        file.data[file.n - 66 - 192 + i] = (unsigned char)(i + 1);

    struct lsi_gguf g;
    ls_error err = { 0 };
    REQUIRE_OK(lsi_gguf_parse(&g, file.data, file.n, "t", NULL, &err), err);
    const struct lsi_gguf_tensor *t = lsi_gguf_find_tensor(&g, "b");
    REQUIRE(t);
    CHECK_INT(t->dtype, LSI_Q8_0);
    CHECK_INT(t->bytes, 4 * 34);
    CHECK_INT(t->n_dims, 2);
    CHECK(t->dims[0] == 64 && t->dims[1] == 2 && t->dims[2] == 1 && t->dims[3] == 1);
    t = lsi_gguf_find_tensor(&g, "a");
    REQUIRE(t);
    CHECK_MEM(t->data, 3, "\1\2\3", 3);
    t = lsi_gguf_find_tensor(&g, "c");
    REQUIRE(t);
    CHECK_INT(t->dtype, LSI_OTHER); /* listed, with its name for the refusal */
    CHECK_STR(lsi_gguf_type_name(t->type_id), "IQ2_XXS");
    CHECK(t->data + t->bytes == file.data + file.n);
    t = lsi_gguf_find_tensor(&g, "empty");
    CHECK(t && t->bytes == 0);
    CHECK(!lsi_gguf_find_tensor(&g, "d"));
    CHECK_STR(lsi_gguf_type_name(4), "unknown");
    CHECK_STR(lsi_gguf_type_name(4000000000u), "unknown");
    lsi_gguf_close(&g);
}

static void test_edges(void)
{
    begin(0, 0);
    ACCEPTED();
    file.data[4] = 2; /* version 2 has the same layout */
    ACCEPTED();
    begin(1, 0); /* a tensor of no bytes needs no data section */
    tensor_f32("a", 0, 0);
    ACCEPTED();
    begin(1, 1);
    kv_u32("general.alignment", 256);
    tensor_f32("a", 1, 0);
    put_pad(&file, 256);
    put_zeros(&file, 4);
    ACCEPTED();
    file.n--;
    REFUSED("truncated");
    begin(1, 1); /* odd, but a power of two */
    kv_u32("general.alignment", 1);
    tensor_f32("a", 1, 0);
    put_zeros(&file, 4);
    ACCEPTED();
    begin(1, 0); /* bytes after the last tensor are padding */
    tensor_f32("a", 1, 0);
    data(64);
    ACCEPTED();
}

/* ---- what is refused ---------------------------------------------------- */

static void test_header(void)
{
    file.n = 0;
    REFUSED("not a GGUF file");
    put_text(&file, "GGU");
    REFUSED("not a GGUF file");
    begin(0, 0);
    file.data[0] = 'g';
    REFUSED("not a GGUF file");
    begin(0, 0);
    file.data[4] = 1;
    REFUSED("version 1");
    file.data[4] = 4;
    REFUSED("version 4");
    file.data[4] = 0;
    REFUSED("version 0");
    file.data[7] = 3;
    REFUSED("big-endian");
    for (size_t n = 4; n < 24; n++) {
        begin(0, 0);
        file.n = n;
        REFUSED("truncated");
    }
}

static void test_counts(void)
{
    static const uint64_t counts[] = { 1, 1000, (uint64_t)1 << 32, (uint64_t)1 << 60, UINT64_MAX };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        begin(counts[i], 0);
        REFUSED("tensors, more than");
        begin(0, counts[i]);
        REFUSED("metadata pairs, more than");
    }
    begin(2, 1);
    kv_u32("a", 1);
    put_zeros(&file, 33);
    REFUSED("tensors, more than");
}

static void test_keys(void)
{
    begin(0, 1);
    kv_u32("", 1);
    put_zeros(&file, 8);
    REFUSED("key is empty");

    begin(0, 1);
    put64(&file, 65536);
    for (size_t i = 0; i < 65536; i++)
        put8(&file, 'k');
    put32(&file, LSI_GGUF_U8);
    put8(&file, 0);
    REFUSED("65536 bytes, more than the allowed");
    begin(0, 1);
    put64(&file, 65535);
    for (size_t i = 0; i < 65535; i++)
        put8(&file, 'k');
    put32(&file, LSI_GGUF_U8);
    put8(&file, 0);
    ACCEPTED();

    begin(0, 2);
    kv_u32("same", 1);
    kv_u32("same", 2);
    REFUSED("'same' occurs twice");

    begin(0, 1);
    put64(&file, UINT64_MAX);
    put_zeros(&file, 20);
    REFUSED("a metadata key claims 18446744073709551615 bytes");

    begin(0, 1);
    kv("k\x1b[31m", 99);
    put_zeros(&file, 8);
    REFUSED("'k?[31m' has the unknown type 99"); /* nothing of the file reaches a terminal raw */
}

static void test_value_rules(void)
{
    begin(0, 1);
    kv("b", LSI_GGUF_BOOL), put8(&file, 2);
    REFUSED("2 is no truth value");
    begin(0, 1);
    array("b", LSI_GGUF_BOOL, 3), put8(&file, 1), put8(&file, 0), put8(&file, 255);
    REFUSED("255 is no truth value");
    begin(0, 1);
    array("a", LSI_GGUF_ARRAY, 1), put_zeros(&file, 12);
    REFUSED("array of arrays");
    begin(0, 1);
    array("a", 13, 1), put_zeros(&file, 12);
    REFUSED("unknown type 13");
    begin(0, 1);
    kv("s", LSI_GGUF_STRING), put64(&file, 6), put_text(&file, "short");
    REFUSED("claims 6 bytes, but only 5");
    begin(0, 1);
    array("s", LSI_GGUF_STRING, 2), gstr("ok"), put64(&file, (uint64_t)1 << 62);
    REFUSED("claims 4611686018427387904 bytes");
    static const uint64_t counts[] = { 3, (uint64_t)1 << 60, ((uint64_t)1 << 62) + 1, UINT64_MAX };
    for (uint32_t type = 0; type < LSI_GGUF_N_TYPES; type++) {
        for (size_t i = 0; type != LSI_GGUF_ARRAY && i < sizeof counts / sizeof counts[0]; i++) {
            begin(0, 1);
            array("a", type, counts[i]);
            put_zeros(&file, 2);
            REFUSED("elements, but only 2 bytes are left");
        }
    }
    static const uint32_t alignments[] = { 0, 3, 33, 0xffffffffu };
    for (size_t i = 0; i < 4; i++) {
        begin(0, 1);
        kv_u32("general.alignment", alignments[i]);
        REFUSED("general.alignment");
    }
    begin(0, 1);
    kv("general.alignment", LSI_GGUF_U64), put64(&file, 32);
    REFUSED("general.alignment");
    begin(0, 1);
    array("general.alignment", LSI_GGUF_U32, 0);
    REFUSED("general.alignment");
}

static void test_tensor_names(void)
{
    char name[65];
    memset(name, 'n', 64);
    name[64] = '\0';
    begin(1, 0);
    tensor_f32(name, 0, 0);
    REFUSED("64 bytes, more than the allowed 63");
    name[63] = '\0';
    begin(1, 0);
    tensor_f32(name, 0, 0);
    ACCEPTED();
    begin(2, 0);
    tensor_f32("same", 0, 0);
    tensor_f32("same", 0, 0);
    REFUSED("'same' occurs twice");
    begin(1, 0);
    put64(&file, 3), put(&file, "a\0b", 3);
    put_zeros(&file, 40);
    REFUSED("NUL");
    begin(1, 0);
    put64(&file, 1000);
    put_zeros(&file, 40);
    REFUSED("a tensor name claims 1000 bytes");
}

static void test_dims(void)
{
    static const uint64_t five[5] = { 1, 1, 1, 1, 1 };
    begin(1, 0);
    tensor("t", 0, 5, five, 0), data(4);
    REFUSED("5 dimensions");
    begin(1, 0);
    tensor("t", 0, 0, five, 0), data(8);
    REFUSED("0 dimensions");
    static const uint64_t large[][4] = {
        { (uint64_t)1 << 62, 2, 1, 1 },   { (uint64_t)1 << 32, (uint64_t)1 << 32, 1, 1 },
        { UINT64_MAX, 1, 1, 1 },          { (uint64_t)1 << 40, (uint64_t)1 << 40, 0, 1 },
        { 0, UINT64_MAX, UINT64_MAX, 1 },
    };
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++) {
        begin(1, 0);
        tensor("t", 0, 4, large[i], 0), data(4);
        REFUSED("product of its dimensions overflows");
    }
    begin(1, 0);
    tensor("t", 0, 1, (uint64_t[]){ (uint64_t)1 << 61 }, 0), data(4);
    REFUSED("size in bytes overflows");
    begin(1, 0);
    tensor("t", 0, 1, (uint64_t[]){ (uint64_t)1 << 60 }, 0), data(4);
    REFUSED("past the file's 4 bytes");
}

static void test_types(void)
{
    static const uint32_t gone[] = { 4, 5, 31, 32, 33, 36, 37, 38, 43, 1000, 0xffffffffu };
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) {
        begin(1, 0);
        tensor("t", gone[i], 1, (uint64_t[]){ 256 }, 0), data(4096);
        REFUSED("not defined");
    }
    static const struct {
        uint32_t id;
        const char *name;
        uint32_t block;
        size_t bytes;
    } blocks[] = {
        { 2, "Q4_0", 32, 18 },    { 3, "Q4_1", 32, 20 },      { 6, "Q5_0", 32, 22 },
        { 7, "Q5_1", 32, 24 },    { 8, "Q8_0", 32, 34 },      { 9, "Q8_1", 32, 36 },
        { 10, "Q2_K", 256, 84 },  { 11, "Q3_K", 256, 110 },   { 12, "Q4_K", 256, 144 },
        { 13, "Q5_K", 256, 176 }, { 14, "Q6_K", 256, 210 },   { 15, "Q8_K", 256, 292 },
        { 20, "IQ4_NL", 32, 18 }, { 23, "IQ4_XS", 256, 136 }, { 29, "IQ1_M", 256, 56 },
        { 34, "TQ1_0", 256, 54 }, { 39, "MXFP4", 32, 17 },    { 42, "Q2_0", 64, 18 },
    };
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        CHECK_STR(lsi_gguf_type_name(blocks[i].id), blocks[i].name);
        begin(1, 0);
        tensor("t", blocks[i].id, 2, (uint64_t[]){ blocks[i].block, 3 }, 0), data(3 * blocks[i].bytes);
        ACCEPTED();
        file.n--;
        REFUSED("past the file's");
        begin(1, 0);
        tensor("t", blocks[i].id, 1, (uint64_t[]){ blocks[i].block - 1 }, 0), data(4096);
        REFUSED("is stored in blocks of");
    }
}

static void test_places(void)
{
    begin(1, 0);
    tensor_f32("t", 1, 4), data(64);
    REFUSED("no multiple of the alignment");
    begin(1, 0);
    tensor_f32("t", 1, 32), data(64);
    REFUSED("there is a gap");
    begin(1, 0);
    tensor_f32("t", 17, 0), data(64);
    REFUSED("past the file's 64 bytes of data");
    begin(1, 0);
    tensor_f32("t", 1, (uint64_t)0 - 32), data(64);
    REFUSED("past the file's 64 bytes of data");
    begin(2, 0);
    tensor_f32("a", 16, 0), tensor_f32("b", 8, 32), data(96);
    REFUSED("they overlap");
    begin(2, 0);
    tensor_f32("a", 8, 0), tensor_f32("b", 8, 0), data(96);
    REFUSED("they overlap");
    begin(2, 0);
    tensor_f32("a", 8, 0), tensor_f32("b", 8, 64), data(96);
    REFUSED("there is a gap");
    begin(2, 0); /* out of order */
    tensor_f32("a", 8, 32), tensor_f32("b", 8, 0), data(96);
    REFUSED("there is a gap");
    begin(1, 0); /* no data section at all */
    tensor_f32("t", 1, 0);
    REFUSED("truncated");
}

/* A file cut at any byte, or with any byte changed, is refused or read, but never read past its end. */
static void test_damage(void)
{
    begin(2, 3);
    kv_u32("general.alignment", 32);
    array("tokens", LSI_GGUF_STRING, 3), gstr("a"), gstr("bb"), gstr("");
    array("flags", LSI_GGUF_BOOL, 2), put8(&file, 0), put8(&file, 1);
    tensor_f32("a", 3, 0);
    tensor("b", 8, 2, (uint64_t[]){ 32, 2 }, 32);
    data(32 + 68);
    ACCEPTED();
    const size_t n = file.n;
    for (file.n = 0; file.n < n;) {
        CHECK(parse_status() != LS_OK);
        CHECK(message[0] != '\0');
        file.n++;
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

static char path[128];

static const char *save(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", temp_dir(), name);
    FILE *f = fopen(path, "wb");
    REQUIRE(f && fwrite(file.data, 1, file.n, f) == file.n && fclose(f) == 0);
    return path;
}

static void part(const char *tensor_name, uint32_t no, uint32_t count, int32_t total)
{
    begin(1, 3);
    kv("split.no", LSI_GGUF_U16), put(&file, (uint16_t[]){ (uint16_t)no }, 2);
    kv("split.count", LSI_GGUF_U16), put(&file, (uint16_t[]){ (uint16_t)count }, 2);
    kv("split.tensors.count", LSI_GGUF_I32), put(&file, &total, 4);
    tensor_f32(tensor_name, 1, 0);
    data(0);
    put(&file, (float[]){ (float)no + 1 }, 4);
}

static void check_open(int line, const char *file_path, const char *needle)
{
    struct lsi_gguf g;
    ls_error err = { 0 };
    const ls_status st = lsi_gguf_open(&g, file_path, NULL, &err);
    if (st == LS_OK)
        lsi_gguf_close(&g);
    if (st == LS_OK || !strstr(err.text, needle)) {
        test_fail_(__FILE__, line);
        fprintf(stderr, "expected a message with \"%s\", got status %d: %s\n", needle, (int)st, err.text);
    }
}
#define NOT_OPENED(file_path, needle) check_open(__LINE__, file_path, needle)

static void test_split(void)
{
    char first[128];
    struct lsi_gguf g;
    ls_error err = { 0 };
    part("c", 2, 3, 3), save("m-00003-of-00003.gguf");
    part("b", 1, 3, 3), save("m-00002-of-00003.gguf");
    part("a", 0, 3, 3), strcpy(first, save("m-00001-of-00003.gguf"));
    REQUIRE_OK(lsi_gguf_open(&g, first, NULL, &err), err);
    CHECK_INT(g.n_tensors, 3);
    static const char *const names[] = { "a", "b", "c" };
    for (int i = 0; i < 3; i++) {
        const struct lsi_gguf_tensor *t = lsi_gguf_find_tensor(&g, names[i]);
        REQUIRE(t);
        float v;
        memcpy(&v, t->data, 4);
        CHECK_NEAR(v, i + 1, 0);
    }
    lsi_gguf_close(&g);

    part("b", 1, 3, 3), save("m-00002-of-00003.gguf");
    NOT_OPENED(path, "is not the first part of the model; open");
    part("a", 1, 3, 3), save("m-00002-of-00003.gguf");
    NOT_OPENED(first, "'a' occurs twice");
    part("b", 2, 3, 3), save("m-00002-of-00003.gguf");
    NOT_OPENED(first, "does not say that it is part 2 of 3");
    part("b", 1, 3, 3), save("m-00002-of-00003.gguf");
    part("a", 0, 3, 4), save("m-00001-of-00003.gguf");
    NOT_OPENED(first, "hold 4 tensors, but they hold 3");
    part("a", 0, 3, 3), save("m-00001-of-00003.gguf");
    unlink(save("m-00003-of-00003.gguf"));
    NOT_OPENED(first, "m-00003-of-00003.gguf");
    part("a", 0, 3, 3);
    NOT_OPENED(save("renamed.gguf"), "does not end in");
}

static void test_open(void)
{
    begin(1, 0);
    tensor_f32("t", 1, 0), data(4);
    struct lsi_gguf g;
    ls_error err = { 0 };
    REQUIRE_OK(lsi_gguf_open(&g, save("ok.gguf"), NULL, &err), err);
    CHECK_INT(g.n_tensors, 1);
    lsi_gguf_close(&g);
    NOT_OPENED("/nonexistent.gguf", "/nonexistent.gguf");
    NOT_OPENED(temp_dir(), "not a regular file");
    file.n = 0;
    NOT_OPENED(save("empty.gguf"), "not a GGUF file");
}

/* Every allocation fails once: an error, nothing held. */
static void test_no_memory(void)
{
    char first[128];
    part("b", 1, 2, 2), save("n-00002-of-00002.gguf");
    part("a", 0, 2, 2), strcpy(first, save("n-00001-of-00002.gguf"));
    for (size_t i = 1;; i++) {
        struct faulty f = { .fail_at = i };
        const ls_alloc alloc = { faulty_alloc, faulty_free, &f };
        struct lsi_gguf g;
        ls_error err = { 0 };
        const ls_status st = lsi_gguf_open(&g, first, &alloc, &err);
        if (st == LS_OK) {
            lsi_gguf_close(&g);
            CHECK_INT(f.outstanding, 0);
            CHECK(i > 8);
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
        TEST(test_values), TEST(test_tensors), TEST(test_edges),       TEST(test_header),
        TEST(test_counts), TEST(test_keys),    TEST(test_value_rules), TEST(test_tensor_names),
        TEST(test_dims),   TEST(test_types),   TEST(test_places),      TEST(test_damage),
        TEST(test_split),  TEST(test_open),    TEST(test_no_memory),
    };
    const int rc = test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
    temp_dir_remove();
    return rc;
}
