/* The foundations: memory, buffers, files, threads, numbers, UTF-8. */
#include "base/base.h"
#include "base/numbers.h"
#include "test.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_arena_counts_what_it_gives(void)
{
    struct lsi_arena plan = { 0 };
    CHECK(lsi_arena_take(&plan, 3, 5) == NULL);
    lsi_arena_take(&plan, 0, 8);
    lsi_arena_take(&plan, 1, 65);
    CHECK_INT(plan.used, 64 + 0 + 128);
    struct lsi_arena a;
    REQUIRE(lsi_arena_init(&a, NULL, plan.used) == LS_OK);
    char *p = lsi_arena_take(&a, 3, 5), *z = lsi_arena_take(&a, 0, 8), *q = lsi_arena_take(&a, 1, 65);
    CHECK(p && z && q && q == p + 64);
    CHECK_INT((uintptr_t)q % 64, 0);
    CHECK_INT(a.used, plan.used);
    CHECK(lsi_arena_take(&a, 1, 1) == NULL && a.failed);
    lsi_arena_fini(&a);

    struct lsi_arena big = { 0 };
    lsi_arena_take(&big, SIZE_MAX / 2, 3);
    CHECK(big.failed);
}

static void test_realloc_keeps_contents(void)
{
    char *p = lsi_alloc(NULL, 3);
    REQUIRE(p != NULL);
    memcpy(p, "abc", 3);
    p = lsi_realloc(NULL, p, 3, 1000);
    REQUIRE(p != NULL);
    CHECK_MEM(p, 3, "abc", 3);
    p = lsi_realloc(NULL, p, 1000, 2);
    CHECK_MEM(p, 2, "ab", 2);
    lsi_free(NULL, p, 2);
    CHECK(lsi_calloc(NULL, SIZE_MAX / 2, 4) == NULL);
}

static void test_grow_doubles(void)
{
    static const size_t caps[] = { 3, 3, 3, 6, 6, 6, 12 };
    size_t cap = 0, huge = SIZE_MAX / 3;
    int *p = NULL;
    for (size_t n = 0; n < LSI_LEN(caps); n++) {
        p = lsi_grow(NULL, p, n, &cap, 3, sizeof *p);
        REQUIRE(p != NULL);
        CHECK_INT(cap, caps[n]);
        p[n] = (int)n;
    }
    for (size_t n = 0; n < LSI_LEN(caps); n++)
        CHECK_INT(p[n], n);
    CHECK(lsi_grow(NULL, p, huge, &huge, 3, 2) == NULL); /* no size_t holds the bytes */
    CHECK(huge == SIZE_MAX / 3);
    lsi_free(NULL, p, cap * sizeof *p);
}

static void test_buf_has_a_ceiling(void)
{
    struct lsi_buf b;
    lsi_buf_init(&b, NULL, 10);
    CHECK(lsi_buf_printf(&b, "%s-%d", "abc", 42));
    CHECK_STR(b.data, "abc-42");
    CHECK(!lsi_buf_append(&b, "12345", 5));
    CHECK(b.failed);
    CHECK(!lsi_buf_append(&b, "1", 1));
    lsi_buf_fini(&b);
}

static void test_buf_long_format(void)
{
    struct lsi_buf b;
    char text[1000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    lsi_buf_init(&b, NULL, 4096);
    CHECK(lsi_buf_printf(&b, "<%s>", text));
    CHECK_INT(b.len, sizeof text + 1);
    CHECK(b.data[0] == '<' && b.data[b.len - 1] == '>');
    lsi_buf_fini(&b);
}

static void test_json_string(void)
{
    struct lsi_buf b;
    lsi_buf_init(&b, NULL, 4096);
    lsi_buf_json_string(&b, "a\"\\\n\x01\xc3\xa9\xff", 8);
    CHECK_STR(b.data, "\"a\\\"\\\\\\n\\u0001\xc3\xa9\xef\xbf\xbd\"");
    lsi_buf_fini(&b);
}

static void make_name(char *out, size_t cap, const char *what)
{
    snprintf(out, cap, "/tmp/ls_test_base_%ld_%s", (long)getpid(), what);
}

static void test_files_appear_whole(void)
{
    char path[128];
    make_name(path, sizeof path, "out");
    ls_error err = { 0 };
    struct lsi_out o;
    REQUIRE_OK(lsi_out_open(&o, path, &err), err);
    lsi_out_write(&o, "hello", 5);
    lsi_out_zeros(&o, 3);
    CHECK(!lsi_path_exists(path));
    REQUIRE_OK(lsi_out_commit(&o, &err), err);
    lsi_out_abort(&o);

    struct lsi_map m;
    REQUIRE_OK(lsi_map_open(&m, path, &err), err);
    CHECK_MEM(m.data, m.bytes, "hello\0\0\0", 8);
    lsi_map_close(&m);
    REQUIRE_OK(lsi_map_read(&m, path, 8, NULL, &err), err);
    CHECK_MEM(m.data, m.bytes, "hello\0\0\0", 8);
    lsi_map_close(&m);
    CHECK_INT(lsi_map_read(&m, path, 7, NULL, &err), LS_E_LIMIT);

    REQUIRE_OK(lsi_out_open(&o, path, &err), err);
    lsi_out_write(&o, "other", 5);
    lsi_out_abort(&o);
    REQUIRE_OK(lsi_map_open(&m, path, &err), err);
    CHECK_INT(m.bytes, 8); /* the old contents are untouched */
    lsi_map_close(&m);
    unlink(path);
}

static void touch(const char *path)
{
    FILE *f = fopen(path, "w");
    REQUIRE(f != NULL && fclose(f) == 0);
}

/* What killed writers of a file left goes with the next; files of other names and of the living stay. */
static void test_unfinished_files_are_cleared_away(void)
{
    static const char *const others[] = { "other.part-1", "out.part-", "out.part-1x", "out.part-1.part-2" };
    char dir[96], path[128], part[160], other[LSI_LEN(others)][128];
    ls_error err = { 0 };
    struct lsi_out o, second;
    make_name(dir, sizeof dir, "parts");
    REQUIRE(mkdir(dir, 0700) == 0);
    snprintf(path, sizeof path, "%s/out", dir);
    for (size_t i = 0; i < LSI_LEN(others); i++) {
        snprintf(other[i], sizeof other[i], "%s/%s", dir, others[i]);
        touch(other[i]);
    }

    const pid_t killed = fork();
    if (killed == 0) {
        if (lsi_out_open(&o, path, &err) == LS_OK) {
            lsi_out_write(&o, "half", 4);
            raise(SIGKILL);
        }
        _exit(1);
    }
    int status;
    REQUIRE(killed > 0 && waitpid(killed, &status, 0) == killed && WIFSIGNALED(status));
    snprintf(part, sizeof part, "%s.part-%ld", path, (long)killed);
    CHECK(lsi_path_exists(part));
    REQUIRE_OK(lsi_out_open(&o, path, &err), err);
    CHECK(!lsi_path_exists(part));

    /* While one is being written another writer leaves it alone, and is told when the names are equal. */
    CHECK_INT(lsi_out_open(&second, path, &err), LS_E_IO);
    CHECK(strstr(err.text, "being written already") != NULL);
    const pid_t writer = fork();
    if (writer == 0) {
        const bool ok = lsi_out_open(&second, path, &err) == LS_OK && lsi_path_exists(o.tmp) &&
                        lsi_out_commit(&second, &err) == LS_OK;
        _exit(ok ? 0 : 1);
    }
    REQUIRE(writer > 0 && waitpid(writer, &status, 0) == writer);
    CHECK_INT(status, 0);
    lsi_out_write(&o, "mine", 4);
    REQUIRE_OK(lsi_out_commit(&o, &err), err);

    for (size_t i = 0; i < LSI_LEN(others); i++)
        CHECK(unlink(other[i]) == 0);
    CHECK(unlink(path) == 0 && rmdir(dir) == 0); /* and nothing else was there */
}

static void test_file_errors_name_the_path(void)
{
    ls_error err = { 0 };
    struct lsi_map m;
    CHECK_INT(lsi_map_open(&m, "/nonexistent/file", &err), LS_E_IO);
    CHECK(strstr(err.text, "/nonexistent/file") != NULL);
    CHECK_INT(lsi_map_open(&m, "/tmp", &err), LS_E_IO);
    struct lsi_out o;
    CHECK_INT(lsi_out_open(&o, "/nonexistent/file", &err), LS_E_IO);
    CHECK(strstr(err.text, "/nonexistent/file") != NULL);
}

/* Opening a pipe that nobody writes to must not wait for a writer. */
static void test_a_pipe_is_no_file(void)
{
    ls_error err = { 0 };
    struct lsi_map m;
    char path[64];
    snprintf(path, sizeof path, "/tmp/longspan-pipe-%ld", (long)getpid());
    REQUIRE(mkfifo(path, 0600) == 0);
    CHECK_INT(lsi_map_open(&m, path, &err), LS_E_IO);
    CHECK_INT(lsi_map_read(&m, path, 100, NULL, &err), LS_E_IO);
    CHECK(strstr(err.text, "not a regular file") != NULL);
    unlink(path);
}

struct handled {
    pthread_t caller;
    _Atomic int elsewhere, here;
};

static struct handled handled;

static void on_signal(int number)
{
    (void)number;
    if (pthread_equal(pthread_self(), handled.caller))
        handled.here++;
    else
        handled.elsewhere++;
}

static void no_task(void *ctx, size_t task, int thread)
{
    (void)ctx;
    (void)task;
    (void)thread;
}

/* A signal that the caller has blocked waits for it: no worker takes it. */
static void test_workers_take_no_signals(void)
{
    struct lsi_pool *pool;
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    handled = (struct handled){ .caller = pthread_self() };
    REQUIRE(signal(SIGUSR1, on_signal) != SIG_ERR);
    REQUIRE(lsi_pool_create(&pool, 3, NULL) == LS_OK);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    for (int i = 0; i < 10; i++) {
        kill(getpid(), SIGUSR1);
        lsi_parallel(pool, 100, no_task, NULL);
    }
    CHECK_INT(handled.here + handled.elsewhere, 0);
    pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
    lsi_pool_free(pool);
    signal(SIGUSR1, SIG_DFL);
    CHECK(handled.here > 0);
    CHECK_INT(handled.elsewhere, 0);
}

struct counted {
    _Atomic int runs[1000];
    _Atomic int bad_thread;
};

static void count_task(void *ctx, size_t task, int thread)
{
    struct counted *c = ctx;
    c->runs[task]++;
    if (thread < 0 || thread >= 3)
        c->bad_thread++;
}

static void test_every_task_runs_once(void)
{
    static struct counted c;
    for (int threads = 1; threads <= 3; threads++) {
        struct lsi_pool *pool;
        REQUIRE(lsi_pool_create(&pool, threads, NULL) == LS_OK);
        for (int round = 0; round < 300; round++) {
            const int n = round % 7 == 0 ? 1000 : round % 5; /* long jobs, short ones and none */
            memset(&c, 0, sizeof c);
            (round % 2 ? lsi_parallel : lsi_parallel_split)(pool, (size_t)n, count_task, &c);
            int wrong = 0;
            for (int i = 0; i < 1000; i++)
                wrong += c.runs[i] != (i < n);
            CHECK_INT(wrong, 0);
            CHECK_INT(c.bad_thread, 0);
            if (round % 50 == 0)
                usleep(2000); /* let the workers fall asleep */
        }
        lsi_pool_free(pool);
    }
    CHECK(lsi_cpu_count() >= 1);
}

static void test_half_floats(void)
{
    for (uint32_t i = 0; i < 65536; i++) { /* every half survives the trip through fp32 */
        const lsi_f16 h = (lsi_f16)i;
        const float f = lsi_f16_to_f32(h);
        if (f != f)
            CHECK((lsi_f16_from_f32(f) & 0x7c00u) == 0x7c00u && (lsi_f16_from_f32(f) & 0x3ffu) != 0);
        else if (lsi_f16_from_f32(f) != h)
            CHECK_INT(lsi_f16_from_f32(f), h);
    }
    CHECK_INT(lsi_f16_from_f32(65519.0f), 0x7bff);
    CHECK_INT(lsi_f16_from_f32(65520.0f), 0x7c00);
    CHECK_INT(lsi_f16_from_f32(0x1p-25f), 0); /* half of the smallest: to even */
    CHECK_INT(lsi_f16_from_f32(0x1.8p-25f), 1);
    CHECK_INT(lsi_f16_from_f32(1.0f + 0x1p-11f), 0x3c00);
    CHECK_INT(lsi_f16_from_f32(1.0f + 0x3p-11f), 0x3c02);
}

static void test_bf16(void)
{
    CHECK_INT(lsi_bf16_from_f32(1.0f), 0x3f80);
    CHECK_INT(lsi_bf16_from_f32(1.0f + 0x1p-8f), 0x3f80); /* a tie goes to even */
    CHECK_INT(lsi_bf16_from_f32(1.0f + 0x3p-8f), 0x3f82);
    CHECK_INT(lsi_bf16_from_f32(INFINITY), 0x7f80);
    const float nan = lsi_bf16_to_f32(lsi_bf16_from_f32(NAN));
    CHECK(nan != nan);
}

static void test_random_numbers(void)
{
    struct lsi_rng a, b;
    lsi_rng_init(&a, 7);
    lsi_rng_init(&b, 7);
    double sum = 0, square = 0;
    int counts[3] = { 0 };
    for (int i = 0; i < 30000; i++) {
        CHECK(lsi_rng_u64(&a) == lsi_rng_u64(&b));
        const double x = lsi_rng_normal(&a);
        sum += x;
        square += x * x;
        counts[lsi_rng_below(&a, 3)]++;
        b = a;
    }
    CHECK_NEAR(sum / 30000, 0, 0.03);
    CHECK_NEAR(square / 30000, 1, 0.05);
    for (int i = 0; i < 3; i++)
        CHECK_NEAR(counts[i], 10000, 400);
}

static void test_utf8(void)
{
    static const struct {
        const char *s;
        size_t n, len;
        uint32_t cp;
    } cases[] = {
        { "a", 1, 1, 'a' },
        { "\xc3\xa9", 2, 2, 0xe9 },
        { "\xe2\x82\xac", 3, 3, 0x20ac },
        { "\xf0\x9f\x98\x80", 4, 4, 0x1f600 },
        { "\xf4\x8f\xbf\xbf", 4, 4, 0x10ffff },
        { "\xf4\x90\x80\x80", 4, 0, 0 }, /* above the last code point */
        { "\xc0\x80", 2, 0, 0 },         /* overlong */
        { "\xe0\x9f\xbf", 3, 0, 0 },     /* overlong */
        { "\xed\xa0\x80", 3, 0, 0 },     /* surrogate */
        { "\xe2\x82", 2, 0, 0 },         /* cut */
        { "\x80", 1, 0, 0 },
        { "", 0, 0, 0 },
    };
    for (size_t i = 0; i < LSI_LEN(cases); i++) {
        uint32_t cp = 0;
        CHECK_INT(lsi_utf8_decode(cases[i].s, cases[i].n, &cp), cases[i].len);
        CHECK_INT(cp, cases[i].cp);
        char out[4];
        if (cases[i].len)
            CHECK_MEM(out, lsi_utf8_encode(cp, out), cases[i].s, cases[i].len);
    }
    CHECK_INT(lsi_utf8_valid_prefix("ab\xc3\xa9\xff", 5), 4);
}

static void test_status_texts(void)
{
    CHECK_STR(ls_status_text(LS_OK), "success");
    CHECK_STR(ls_status_text((ls_status)99), "unknown status");
    ls_error err = { 0 };
    CHECK_INT(lsi_fail(&err, LS_E_IO, "no %s", "tea"), LS_E_IO);
    lsi_error_prefix(&err, "%s", "kitchen");
    CHECK_STR(err.text, "kitchen: no tea");
    CHECK_INT(lsi_fail(NULL, LS_E_IO, "nowhere to write this"), LS_E_IO);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_arena_counts_what_it_gives),
        TEST(test_realloc_keeps_contents),
        TEST(test_grow_doubles),
        TEST(test_buf_has_a_ceiling),
        TEST(test_buf_long_format),
        TEST(test_json_string),
        TEST(test_files_appear_whole),
        TEST(test_unfinished_files_are_cleared_away),
        TEST(test_file_errors_name_the_path),
        TEST(test_a_pipe_is_no_file),
        TEST(test_every_task_runs_once),
        TEST(test_workers_take_no_signals),
        TEST(test_half_floats),
        TEST(test_bf16),
        TEST(test_random_numbers),
        TEST(test_utf8),
        TEST(test_status_texts),
    };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}
