/* Writing safetensors: order, padding, metadata, and what cannot be written. */
#include "formats/safetensors.h"

#include <sys/stat.h>

#include "faulty.h"
#include "outside.h"
#include "test.h"

static const char *out_path(void)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/out.safetensors", temp_dir());
    return path;
}

static bool out_exists(void)
{
    struct stat st;
    return stat(out_path(), &st) == 0;
}

static struct lsi_st_writer *create(void)
{
    struct lsi_st_writer *w;
    ls_error err = { 0 };
    remove(out_path());
    REQUIRE_OK(lsi_st_writer_create(&w, out_path(), NULL, &err), err);
    return w;
}

static const struct {
    const char *name;
    enum lsi_dtype dtype;
    uint32_t rank;
    uint64_t shape[2];
    size_t bytes;
} tensors[] = {
    { "z", LSI_F32, 2, { 2, 3 }, 24 },    { "caf\xc3\xa9 \"q\"", LSI_U8, 1, { 3 }, 3 },
    { "b", LSI_BF16, 1, { 4 }, 8 },       { "a", LSI_F32, 0, { 0 }, 4 },
    { "empty", LSI_F16, 2, { 0, 7 }, 0 }, { "i", LSI_I64, 1, { 1 }, 8 },
};
#define N_TENSORS (sizeof tensors / sizeof tensors[0])

static ls_status write_all(struct lsi_st_writer *w, ls_error *err)
{
    static const char *const order[] = { "i", "a", "z", "b", "empty", "caf\xc3\xa9 \"q\"" };
    for (size_t i = 0; i < N_TENSORS; i++)
        lsi_st_put_tensor(w, tensors[i].name, tensors[i].dtype, tensors[i].rank, tensors[i].shape);
    lsi_st_put_metadata(w, "made by", "a \"test\"\n");
    ls_status st = lsi_st_writer_begin(w, err);
    for (size_t i = 0; st == LS_OK && i < N_TENSORS; i++) {
        const size_t k = lsi_st_writer_order(w, i);
        CHECK_STR(tensors[k].name, order[i]);
        unsigned char data[24];
        memset(data, (int)(k + 1), sizeof data);
        lsi_st_write_data(w, data, tensors[k].bytes / 3); /* pieces of any size */
        lsi_st_write_data(w, data, tensors[k].bytes - tensors[k].bytes / 3);
    }
    return lsi_st_writer_commit(w, err);
}

static void test_round_trip(void)
{
    ls_error err = { 0 };
    REQUIRE_OK(write_all(create(), &err), err);
    struct lsi_safetensors s;
    REQUIRE_OK(lsi_st_open(&s, out_path(), NULL, &err), err);
    CHECK_INT(s.n_tensors, N_TENSORS);
    for (size_t i = 0; i < N_TENSORS; i++) {
        const struct lsi_st_tensor *t = lsi_st_find(&s, tensors[i].name);
        REQUIRE(t);
        CHECK_INT(t->dtype, tensors[i].dtype);
        CHECK_INT(t->rank, tensors[i].rank);
        CHECK_MEM(t->shape, t->rank * sizeof t->shape[0], tensors[i].shape,
                  tensors[i].rank * sizeof t->shape[0]);
        CHECK_INT(t->bytes, tensors[i].bytes);
        for (size_t k = 0; k < t->bytes; k++)
            CHECK_INT(t->data[k], i + 1);
    }
    uint64_t n;
    memcpy(&n, s.maps[0].data, 8);
    CHECK_INT(n % 8, 0);
    static const char begin[] = "{\"__metadata__\":{\"format\":\"pt\",\"made by\":\"a \\\"test\\\"\\n\"}";
    CHECK_MEM(s.maps[0].data + 8, sizeof begin - 1, begin, sizeof begin - 1);
    lsi_st_close(&s);
}

static void test_empty(void)
{
    ls_error err = { 0 };
    struct lsi_st_writer *w = create();
    REQUIRE_OK(lsi_st_writer_begin(w, &err), err);
    REQUIRE_OK(lsi_st_writer_commit(w, &err), err);
    struct lsi_safetensors s;
    REQUIRE_OK(lsi_st_open(&s, out_path(), NULL, &err), err);
    CHECK_INT(s.n_tensors, 0);
    lsi_st_close(&s);
}

static void check_failed(int line, struct lsi_st_writer *w, const char *needle)
{
    ls_error err = { 0 };
    const ls_status st = lsi_st_writer_commit(w, &err);
    if (st != LS_E_INVAL || !strstr(err.text, needle) || out_exists()) {
        test_fail_(__FILE__, line);
        fprintf(stderr, "expected a message with \"%s\", got status %d: %s\n", needle, (int)st, err.text);
    }
}
#define FAILED(w, needle) check_failed(__LINE__, w, needle)

static void test_misuse(void)
{
    static const uint64_t shape[9] = { 2, 1, 1, 1, 1, 1, 1, 1, 1 };
    static const uint64_t large[2] = { (uint64_t)1 << 62, 4 };
    struct lsi_st_writer *w = create();
    lsi_st_put_tensor(w, "t", LSI_U8, 1, shape), lsi_st_put_tensor(w, "s", LSI_F32, 1, shape);
    lsi_st_put_tensor(w, "t", LSI_F32, 1, shape), lsi_st_writer_begin(w, NULL);
    FAILED(w, "'t' is put twice");
    w = create();
    lsi_st_put_tensor(w, "t", LSI_Q8_0, 1, shape);
    FAILED(w, "no such element type");
    w = create();
    lsi_st_put_tensor(w, "t", LSI_OTHER, 1, shape);
    FAILED(w, "no such element type");
    w = create();
    lsi_st_put_tensor(w, "t", LSI_U8, 9, shape);
    FAILED(w, "more than 8 dimensions");
    w = create();
    lsi_st_put_tensor(w, "__metadata__", LSI_U8, 1, shape);
    FAILED(w, "reserved");
    w = create();
    lsi_st_put_tensor(w, "t", LSI_U8, 2, large);
    FAILED(w, "overflows");
    w = create();
    lsi_st_put_tensor(w, "t", LSI_U8, 1, shape), lsi_st_write_data(w, shape, 2);
    FAILED(w, "data before its header");
    w = create();
    FAILED(w, "it has no header");
    w = create();
    lsi_st_put_tensor(w, "t", LSI_U8, 1, shape), lsi_st_writer_begin(w, NULL), lsi_st_write_data(w, shape, 3);
    FAILED(w, "more data than its tensors hold");
    w = create();
    lsi_st_put_tensor(w, "t", LSI_U8, 1, shape), lsi_st_writer_begin(w, NULL), lsi_st_write_data(w, shape, 1);
    FAILED(w, "data of tensor 't' is not complete");
    w = create();
    lsi_st_writer_begin(w, NULL), lsi_st_put_tensor(w, "t", LSI_U8, 1, shape);
    FAILED(w, "written already");
    w = create();
    lsi_st_writer_begin(w, NULL), lsi_st_writer_begin(w, NULL);
    FAILED(w, "written already");
    lsi_st_writer_free(create());
    lsi_st_writer_free(NULL);
    CHECK(!out_exists());
}

static void test_no_memory(void)
{
    for (size_t i = 1;; i++) {
        struct faulty f = { .fail_at = i };
        const ls_alloc alloc = { faulty_alloc, faulty_free, &f };
        struct lsi_st_writer *w;
        ls_error err = { 0 };
        remove(out_path());
        ls_status st = lsi_st_writer_create(&w, out_path(), &alloc, &err);
        if (st == LS_OK)
            st = write_all(w, &err);
        CHECK_INT(f.outstanding, 0);
        if (st == LS_OK)
            break;
        CHECK(st == LS_E_NOMEM || st == LS_E_LIMIT);
        CHECK(!out_exists());
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_round_trip),
        TEST(test_empty),
        TEST(test_misuse),
        TEST(test_no_memory),
    };
    const int rc = test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
    temp_dir_remove();
    return rc;
}
