/*
 * A small test harness: typed assertions that print both values, a runner that
 * names each case and goes on after a failure.
 *
 *     static void test_add(void) { CHECK_INT(1 + 1, 2); }
 *     int main(int argc, char **argv)
 *     {
 *         static const struct test tests[] = { TEST(test_add) };
 *         return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
 *     }
 *
 * `prog NAME` runs the cases whose name contains NAME. REQUIRE leaves the case on failure.
 */
#ifndef LS_TEST_H
#define LS_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct test {
    const char *name;
    void (*fn)(void);
};
/* clang-format off */
#define TEST(fn) { #fn, fn }
/* clang-format on */
#define TEST_SKIP 77

static int test_failures; /* of the running case */
static jmp_buf test_leave;

static inline void test_fail_(const char *file, int line)
{
    test_failures++;
    fprintf(stderr, "  %s:%d: ", file, line);
}

#define CHECK(cond)                                  \
    do {                                             \
        if (!(cond)) {                               \
            test_fail_(__FILE__, __LINE__);          \
            fprintf(stderr, "%s is false\n", #cond); \
        }                                            \
    } while (0)

#define REQUIRE(cond)                                \
    do {                                             \
        if (!(cond)) {                               \
            test_fail_(__FILE__, __LINE__);          \
            fprintf(stderr, "%s is false\n", #cond); \
            longjmp(test_leave, 1);                  \
        }                                            \
    } while (0)

#define CHECK_INT(got, want)                                              \
    do {                                                                  \
        const long long g_ = (long long)(got), w_ = (long long)(want);    \
        if (g_ != w_) {                                                   \
            test_fail_(__FILE__, __LINE__);                               \
            fprintf(stderr, "%s is %lld, expected %lld\n", #got, g_, w_); \
        }                                                                 \
    } while (0)

#define CHECK_NEAR(got, want, tol)                                                               \
    do {                                                                                         \
        const double g_ = (double)(got), w_ = (double)(want);                                    \
        if (!(fabs(g_ - w_) <= (double)(tol))) {                                                 \
            test_fail_(__FILE__, __LINE__);                                                      \
            fprintf(stderr, "%s is %.9g, expected %.9g +- %.3g\n", #got, g_, w_, (double)(tol)); \
        }                                                                                        \
    } while (0)

#define CHECK_STR(got, want)                                                                  \
    do {                                                                                      \
        const char *g_ = (got), *w_ = (want);                                                 \
        if (!g_ || strcmp(g_, w_) != 0) {                                                     \
            test_fail_(__FILE__, __LINE__);                                                   \
            fprintf(stderr, "%s is \"%s\", expected \"%s\"\n", #got, g_ ? g_ : "(null)", w_); \
        }                                                                                     \
    } while (0)

/* A text with a part in it. */
#define CHECK_HAS(text, part)                                                                     \
    do {                                                                                          \
        const char *g_ = (text), *w_ = (part);                                                    \
        if (!g_ || !strstr(g_, w_)) {                                                             \
            test_fail_(__FILE__, __LINE__);                                                       \
            fprintf(stderr, "%s is \"%s\", which lacks \"%s\"\n", #text, g_ ? g_ : "(null)", w_); \
        }                                                                                         \
    } while (0)

#define CHECK_MEM(got, got_len, want, want_len)                                                     \
    do {                                                                                            \
        const size_t gl_ = (got_len), wl_ = (want_len);                                             \
        if (gl_ != wl_ || (wl_ && memcmp((got), (want), wl_) != 0)) {                               \
            test_fail_(__FILE__, __LINE__);                                                         \
            fprintf(stderr, "%s (%zu bytes) differs from %s (%zu bytes)\n", #got, gl_, #want, wl_); \
        }                                                                                           \
    } while (0)

/* A call that must succeed: prints the library's explanation and leaves the case. */
#define REQUIRE_OK(call, err)                                                   \
    do {                                                                        \
        const int st_ = (int)(call);                                            \
        if (st_ != 0) {                                                         \
            test_fail_(__FILE__, __LINE__);                                     \
            fprintf(stderr, "%s gave status %d: %s\n", #call, st_, (err).text); \
            longjmp(test_leave, 1);                                             \
        }                                                                       \
    } while (0)

static inline int test_main(const struct test *tests, size_t n, int argc, char **argv)
{
    volatile int failed = 0, passed = 0; /* they survive longjmp */
    for (volatile size_t i = 0; i < n; i++) {
        if (argc > 1 && !strstr(tests[i].name, argv[1]))
            continue;
        test_failures = 0;
        if (setjmp(test_leave) == 0)
            tests[i].fn();
        fprintf(stderr, "%s %s\n", test_failures ? "FAIL" : "ok  ", tests[i].name);
        if (test_failures)
            failed++;
        else
            passed++;
    }
    fprintf(stderr, "%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}

#endif
