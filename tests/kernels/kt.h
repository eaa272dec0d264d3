/*
 * Kernel tests: every usable implementation of every operation of kernels.def against
 * its reference, on buffers with guards on both sides.
 *
 *     void check_rmsnorm(struct kt *k)             // found by its name: check_<op>
 *     {
 *         lsk_rmsnorm_fn *ref = (lsk_rmsnorm_fn *)kt_ref(k), *fn;
 *         while ((fn = (lsk_rmsnorm_fn *)kt_next(k)) != NULL) {
 *             for each size {
 *                 float *x = kt_f32(k, n, KT_NORMAL), *want = ..., *got = kt_f32(k, n, KT_FILL);
 *                 ref(want, x, ...); fn(got, x, ...);
 *                 kt_near(k, got, want, n, 1e-6, 1e-6, "y");
 *                 kt_reset(k);                      // releases the buffers, checks the guards
 *             }
 *             KT_BENCH(k, "64x4096", bytes, fn(got, x, ...));
 *         }
 *     }
 *
 * Nothing returns an error: a failed check prints what, where and the seed, and ends the program.
 */
#ifndef KT_H
#define KT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/impl.h"

struct kt;
typedef void kt_any_fn(void);

#define KT_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* How a buffer is filled. */
enum kt_fill {
    KT_FILL,    /* a NaN pattern, to see what was not written */
    KT_ZERO,    /* zeros */
    KT_NORMAL,  /* standard normal */
    KT_UNIFORM, /* [-1, 1) */
    KT_WIDE,    /* magnitudes from 2^-20 to 2^20 */
    KT_SPARSE,  /* nine of ten are zero, the others normal */
    KT_N_FILLS,
};

/** The plainest implementation of the operation under check. */
kt_any_fn *kt_ref(struct kt *k);
/** The next usable implementation (the reference too: it must agree with itself); NULL after the last. */
kt_any_fn *kt_next(struct kt *k);
/** Name of the operation under check and of the implementation kt_next returned. */
const char *kt_op(const struct kt *k);
const char *kt_isa(const struct kt *k);

/** Reproducible numbers; each implementation sees the same sequence. */
uint64_t kt_rand(struct kt *k);
size_t kt_below(struct kt *k, size_t n);
double kt_normal(struct kt *k);

/** Guarded memory: touching one byte past either end is a fault or is reported by kt_reset. */
void *kt_bytes(struct kt *k, size_t bytes); /* filled with KT_FILL's pattern */
float *kt_f32(struct kt *k, size_t n, enum kt_fill fill);
uint16_t *kt_bf16(struct kt *k, size_t n, enum kt_fill fill);
int8_t *kt_i8(struct kt *k, size_t n); /* uniform in -127..127 */
/** Guarded copy. */
void *kt_copy(struct kt *k, const void *src, size_t bytes);
/** Release all buffers of this check after looking at their guards. */
void kt_reset(struct kt *k);

/** Bit-equal. */
void kt_equal(struct kt *k, const void *got, const void *want, size_t bytes, const char *what);
/** |got - want| <= abs + rel |want|; NaN must meet NaN and an infinity itself. */
void kt_near(struct kt *k, const float *got, const float *want, size_t n, double abs, double rel,
             const char *what);
/** |got - want| <= bound, one value: for sums whose bound is eps * sum |terms|. */
void kt_within(struct kt *k, double got, double want, double bound, const char *what, size_t index);
/** End the program with a message. */
void kt_fail(struct kt *k, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

/* Time a call (with --bench only): the least of many runs. bytes: read and written, for GB/s. */
bool kt_bench_wanted(const struct kt *k);
bool kt_bench_more(struct kt *k);
void kt_bench_report(struct kt *k, const char *label, double bytes, double flops);
#define KT_BENCH_FLOPS(k, label, bytes, flops, call) \
    do {                                             \
        if (kt_bench_wanted(k)) {                    \
            while (kt_bench_more(k)) {               \
                call;                                \
            }                                        \
            kt_bench_report(k, label, bytes, flops); \
        }                                            \
    } while (0)
#define KT_BENCH(k, label, bytes, call) KT_BENCH_FLOPS(k, label, bytes, 0.0, call)

/* Defined by the check files; a missing one fails the test. */
#define LSK_OP(op, type) void check_##op(struct kt *k) __attribute__((weak));
#include "kernels/ops.def"
#undef LSK_OP

#endif
