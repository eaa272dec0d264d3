/* Writing GGUF: what is put comes back, and no call order makes a wrong file. */
#include "formats/gguf.h"

#include <sys/stat.h>

#include "faulty.h"
#include "outside.h"
#include "test.h"

static const char *out_path(void)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/out.gguf", temp_dir());
    return path;
}

static bool out_exists(void)
{
    struct stat st;
    return stat(out_path(), &st) == 0;
}

static struct lsi_gguf_writer *create(const ls_alloc *alloc)
{
    struct lsi_gguf_writer *w;
    ls_error err = { 0 };
    remove(out_path());
    REQUIRE_OK(lsi_gguf_writer_create(&w, out_path(), alloc, &err), err);
    return w;
}

static void put_everything(struct lsi_gguf_writer *w)
{
    static const float values[10] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 };
    unsigned char blocks[2 * 34];
    for (size_t i = 0; i < sizeof blocks; i++)
        blocks[i] = (unsigned char)i;
    lsi_gguf_put_str(w, "general.architecture", "llama", 5);
    lsi_gguf_put_u32(w, "u32", 7);
    lsi_gguf_put_u64(w, "u64", (uint64_t)1 << 40);
    lsi_gguf_put_f32(w, "f32", 0.5f);
    lsi_gguf_put_bool(w, "yes", true);
    lsi_gguf_put_array(w, "strs", LSI_GGUF_STRING, 2);
    lsi_gguf_elem_put_str(w, "one", 3);
    lsi_gguf_elem_put_str(w, "", 0);
    lsi_gguf_put_array(w, "floats", LSI_GGUF_F32, 2);
    lsi_gguf_elem_put_f32(w, 1.5f);
    lsi_gguf_elem_put_f32(w, -2);
    lsi_gguf_put_array(w, "ints", LSI_GGUF_I32, 1);
    lsi_gguf_elem_put_i32(w, -3);
    lsi_gguf_put_tensor(w, "first", LSI_F32, 2, (uint64_t[]){ 5, 2 });
    lsi_gguf_put_tensor(w, "nothing", LSI_F32, 1, (uint64_t[]){ 0 });
    lsi_gguf_put_tensor(w, "second", LSI_Q8_0, 2, (uint64_t[]){ 32, 2 });
    lsi_gguf_write_data(w, values, 7); /* pieces need not respect elements or tensors */
    unsigned char rest[33 + sizeof blocks];
    memcpy(rest, (const unsigned char *)values + 7, 33);
    memcpy(rest + 33, blocks, sizeof blocks);
    lsi_gguf_write_data(w, rest, sizeof rest);
}

static void test_round_trip(void)
{
    struct lsi_gguf_writer *w = create(NULL);
    ls_error err = { 0 };
    put_everything(w);
    CHECK(!out_exists()); /* not before it is complete */
    REQUIRE_OK(lsi_gguf_writer_commit(w, &err), err);

    struct lsi_gguf g;
    REQUIRE_OK(lsi_gguf_open(&g, out_path(), NULL, &err), err);
    CHECK_INT(g.version, 3);
    CHECK_INT(g.n_kv, 8);
    CHECK_INT(g.n_tensors, 3);
    uint64_t u = 0;
    double f = 0;
    bool b = false;
    int64_t i = 0;
    struct lsi_str s = { 0 };
    CHECK(lsi_gguf_get_u64(&g, "u32", &u) && u == 7);
    CHECK(lsi_gguf_get_u64(&g, "u64", &u) && u == (uint64_t)1 << 40);
    CHECK(lsi_gguf_get_f64(&g, "f32", &f) && f == 0.5);
    CHECK(lsi_gguf_get_bool(&g, "yes", &b) && b);
    CHECK(lsi_gguf_get_str(&g, "general.architecture", &s));
    CHECK_MEM(s.s, s.len, "llama", 5);
    CHECK(lsi_gguf_elem_i64(lsi_gguf_find(&g, "ints"), 0, &i) && i == -3);
    CHECK(lsi_gguf_elem_f64(lsi_gguf_find(&g, "floats"), 1, &f) && f == -2);
    const struct lsi_gguf_tensor *t = lsi_gguf_find_tensor(&g, "first");
    REQUIRE(t);
    float v;
    memcpy(&v, t->data + 36, 4);
    CHECK_NEAR(v, 10, 0);
    CHECK_INT((uintptr_t)t->data % 32, 0);
    t = lsi_gguf_find_tensor(&g, "second");
    REQUIRE(t && t->bytes == 68);
    CHECK_INT(t->data[67], 67);
    CHECK_INT(t->offset, 64);

    /* A copy by pairs is the same file. */
    static unsigned char copy[4096];
    const size_t n = g.maps[0].bytes;
    REQUIRE(n <= sizeof copy);
    memcpy(copy, g.maps[0].data, n);
    w = create(NULL);
    for (size_t k = 0; k < g.n_kv; k++)
        lsi_gguf_put_kv(w, &g.kv[k]);
    for (size_t k = 0; k < g.n_tensors; k++)
        lsi_gguf_put_tensor(w,
                            k == 0   ? "first"
                            : k == 1 ? "nothing"
                                     : "second",
                            g.tensors[k].dtype, g.tensors[k].n_dims, g.tensors[k].dims);
    for (size_t k = 0; k < g.n_tensors; k++)
        lsi_gguf_write_data(w, g.tensors[k].data, g.tensors[k].bytes);
    REQUIRE_OK(lsi_gguf_writer_commit(w, &err), err);
    lsi_gguf_close(&g);
    REQUIRE_OK(lsi_gguf_open(&g, out_path(), NULL, &err), err);
    CHECK_MEM(g.maps[0].data, g.maps[0].bytes, copy, n);
    lsi_gguf_close(&g);
}

static void test_alignment(void)
{
    struct lsi_gguf_writer *w = create(NULL);
    ls_error err = { 0 };
    lsi_gguf_put_u32(w, "general.alignment", 256);
    lsi_gguf_put_tensor(w, "a", LSI_F32, 1, (uint64_t[]){ 1 });
    lsi_gguf_put_tensor(w, "b", LSI_F32, 1, (uint64_t[]){ 1 });
    lsi_gguf_write_data(w, (float[]){ 1, 2 }, 8);
    REQUIRE_OK(lsi_gguf_writer_commit(w, &err), err);
    struct lsi_gguf g;
    REQUIRE_OK(lsi_gguf_open(&g, out_path(), NULL, &err), err);
    CHECK_INT(g.alignment, 256);
    CHECK_INT(g.tensors[1].offset, 256);
    CHECK_INT((g.tensors[1].data - g.maps[0].data) % 256, 0);
    lsi_gguf_close(&g);

    w = create(NULL);
    lsi_gguf_put_u32(w, "general.alignment", 24);
    CHECK_INT(lsi_gguf_writer_commit(w, &err), LS_E_INVAL);
}

static void test_no_tensors(void)
{
    struct lsi_gguf_writer *w = create(NULL);
    ls_error err = { 0 };
    REQUIRE_OK(lsi_gguf_writer_commit(w, &err), err);
    struct lsi_gguf g;
    REQUIRE_OK(lsi_gguf_open(&g, out_path(), NULL, &err), err);
    CHECK(g.n_kv == 0 && g.n_tensors == 0);
    lsi_gguf_close(&g);
}

static void check_failed(int line, struct lsi_gguf_writer *w, const char *needle)
{
    ls_error err = { 0 };
    const ls_status st = lsi_gguf_writer_commit(w, &err);
    if (st != LS_E_INVAL || !strstr(err.text, needle) || out_exists()) {
        test_fail_(__FILE__, line);
        fprintf(stderr, "expected a message with \"%s\", got status %d: %s\n", needle, (int)st, err.text);
    }
}
#define FAILED(w, needle) check_failed(__LINE__, w, needle)

static void test_misuse(void)
{
    static const uint64_t one[4] = { 1, 1, 1, 1 };
    struct lsi_gguf_writer *w = create(NULL);
    lsi_gguf_put_u32(w, "twice", 1), lsi_gguf_put_u32(w, "other", 1), lsi_gguf_put_bool(w, "twice", 1);
    FAILED(w, "metadata key 'twice' is put twice");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_F32, 1, one), lsi_gguf_put_tensor(w, "t", LSI_F32, 1, one);
    FAILED(w, "tensor 't' is put twice");
    w = create(NULL);
    lsi_gguf_put_u32(w, "", 1);
    FAILED(w, "1 to 65535 bytes");
    w = create(NULL);
    lsi_gguf_put_array(w, "a", LSI_GGUF_I32, 2), lsi_gguf_elem_put_i32(w, 1);
    FAILED(w, "1 elements of its last array are missing");
    w = create(NULL);
    lsi_gguf_put_array(w, "a", LSI_GGUF_I32, 2), lsi_gguf_put_u32(w, "b", 1);
    FAILED(w, "'b' is put before the array before it is full");
    w = create(NULL);
    lsi_gguf_put_array(w, "a", LSI_GGUF_I32, 1), lsi_gguf_elem_put_f32(w, 1);
    FAILED(w, "another type");
    w = create(NULL);
    lsi_gguf_elem_put_i32(w, 1);
    FAILED(w, "one too many");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_F32, 1, one);
    FAILED(w, "data of tensor 't' is not complete");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_F32, 1, one), lsi_gguf_write_data(w, one, 8);
    FAILED(w, "more data than its tensors hold");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_F32, 1, one), lsi_gguf_write_data(w, one, 4), lsi_gguf_put_u32(w, "k", 1);
    FAILED(w, "after the data began");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_F32, 1, one), lsi_gguf_write_data(w, one, 4);
    lsi_gguf_put_tensor(w, "u", LSI_F32, 1, one);
    FAILED(w, "the data has begun");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_Q4_0, 1, one);
    FAILED(w, "multiple of 32");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_F32, 5, one);
    FAILED(w, "1 to 4 dimensions");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_BOOL, 1, one);
    FAILED(w, "no such element type");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_OTHER, 1, one);
    FAILED(w, "no such element type");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "t", LSI_F32, 2, (uint64_t[]){ (uint64_t)1 << 61, 4 });
    FAILED(w, "overflows");
    w = create(NULL);
    lsi_gguf_put_tensor(w, "a name of more than sixty-three bytes is not read by any reader of GGUF", LSI_F32,
                        1, one);
    FAILED(w, "1 to 63 bytes");
}

static void test_dropped(void)
{
    ls_error err = { 0 };
    struct lsi_gguf_writer *w = create(NULL);
    put_everything(w);
    lsi_gguf_writer_free(w);
    lsi_gguf_writer_free(NULL);
    CHECK(!out_exists());
    CHECK(lsi_gguf_writer_create(&w, "/nonexistent/out.gguf", NULL, &err) == LS_E_IO && w == NULL);
    CHECK(strstr(err.text, "/nonexistent/out.gguf"));
}

static void test_no_memory(void)
{
    for (size_t i = 1;; i++) {
        struct faulty f = { .fail_at = i };
        const ls_alloc alloc = { faulty_alloc, faulty_free, &f };
        struct lsi_gguf_writer *w;
        ls_error err = { 0 };
        remove(out_path());
        ls_status st = lsi_gguf_writer_create(&w, out_path(), &alloc, &err);
        if (st == LS_OK) {
            put_everything(w);
            st = lsi_gguf_writer_commit(w, &err);
        }
        CHECK_INT(f.outstanding, 0);
        if (st == LS_OK) {
            CHECK(i > 5);
            break;
        }
        CHECK_INT(st, LS_E_NOMEM);
        CHECK(!out_exists());
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_round_trip), TEST(test_alignment), TEST(test_no_tensors),
        TEST(test_misuse),     TEST(test_dropped),   TEST(test_no_memory),
    };
    const int rc = test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
    temp_dir_remove();
    return rc;
}
