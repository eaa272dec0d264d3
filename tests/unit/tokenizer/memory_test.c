/* Every allocation fails once: a status comes back and nothing is left behind. */
#include "recorded.h"

/* Allocations can be counted, and one of them made to fail. */
static size_t n_live, n_calls, fail_at;

static void *count_alloc(void *user, size_t bytes)
{
    (void)user;
    if (++n_calls == fail_at)
        return NULL;
    n_live++;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void count_free(void *user, void *p, size_t bytes)
{
    (void)user;
    (void)bytes;
    n_live -= p != NULL;
    free(p);
}

static const ls_alloc counting = { count_alloc, count_free, NULL };

/* Each allocation in turn fails: a status, and nothing left behind. */
static void test_failing_memory(void)
{
    static const char text[] =
        "Hello 123 \xe4\xb8\xad\xe6\x96\x87 <|sep|> e\xcc\x81 and some more text, with words";
    static const char *const names[] = { "qwen2", "other", "llama2" };
    for (size_t k = 0; k < LSI_LEN(names); k++) {
        char path[512];
        ls_error err = { 0 };
        struct lsi_map m;
        snprintf(path, sizeof path, DATA "%s.json", names[k]);
        REQUIRE_OK(lsi_map_open(&m, path, &err), err);
        bool done = false;
        for (fail_at = 1; !done && fail_at < 5000; fail_at++) {
            ls_tokenizer *t = NULL;
            int32_t *ids = NULL;
            size_t n = 0;
            n_calls = 0;
            ls_status st = lsi_tokenizer_from_json(m.data, m.bytes, path, &counting, &t, &err);
            if (st == LS_OK)
                st = ls_tokenizer_encode(t, text, sizeof text - 1, 0, &ids, &n, &err);
            done = n_calls < fail_at;
            /* A pattern whose machine code finds no memory is interpreted instead. */
            if (strcmp(names[k], "other") != 0 || st != LS_OK)
                CHECK_INT(st, done ? LS_OK : LS_E_NOMEM);
            if (ids)
                ls_tokenizer_ids_free(t, ids, n);
            ls_tokenizer_close(t);
            CHECK_INT(n_live, 0);
        }
        fail_at = 0;
        CHECK(done);
        lsi_map_close(&m);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_failing_memory) };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}
