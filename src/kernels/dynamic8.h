/*
 * The maps of optimizer.h as tables by decade: shared by all implementations, so that they agree bit for bit.
 * With P = 10^(e - E), part k of decade e, and t = 2^e + k:
 *
 *     u(t) = slope * t / 2^e + offset               slope 0.9 P, offset P (0.45 / 2^e - 0.8)
 *     t(u) = floor(u * inverse + start)             inverse 2^e / slope, start 2^e (1 - 1/9)
 *
 * cut at the decade's last code. A decade begins where its first u is as near as the last one of the decade
 * below: threshold P (0.1 + 0.18 / 2^e).
 */
#ifndef LSK_DYNAMIC8_H
#define LSK_DYNAMIC8_H

struct lsk_dynamic8 {
    float slope[8], offset[8], inverse[8], start[8], last[8];
    float threshold[8]; /* [0]: what is not above it gets code 0 */
    float unit;         /* 1 / the greatest u */
};

#define LSK_DECADES(f, p0, p1, p2, p3, p4, p5, p6, p7)                                 \
    {                                                                                  \
        f(0, p0), f(1, p1), f(2, p2), f(3, p3), f(4, p4), f(5, p5), f(6, p6), f(7, p7) \
    }
#define LSK_SLOPE(e, p)     (float)(0.9 * (p))
#define LSK_OFFSET(e, p)    (float)((p) * (0.45 / (1 << (e)) - 0.8))
#define LSK_INVERSE(e, p)   (float)((1 << (e)) / (0.9 * (p)))
#define LSK_START(e, p)     (float)((1 << (e)) * (8.0 / 9.0))
#define LSK_LAST(e, p)      (float)((2 << (e)) - 1)
#define LSK_THRESHOLD(e, p) (float)((p) * (0.1 + 0.18 / (1 << (e))))
/* Below the first decade: half its u, or nothing (see there). */
#define LSK_THRESHOLD_SIGNED(e, p)   ((e) == 0 ? (float)((p)*0.275) : LSK_THRESHOLD(e, p))
#define LSK_THRESHOLD_UNSIGNED(e, p) ((e) == 0 ? 0.0f : LSK_THRESHOLD(e, p))

/* The eighth decade of the signed map lies above 1: it is never reached. */
#define LSK_SIGNED(f)   LSK_DECADES(f, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1)
#define LSK_UNSIGNED(f) LSK_DECADES(f, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0)

static const struct lsk_dynamic8 lsk_dynamic8_signed = {
    .slope = LSK_SIGNED(LSK_SLOPE),
    .offset = LSK_SIGNED(LSK_OFFSET),
    .inverse = LSK_SIGNED(LSK_INVERSE),
    .start = LSK_SIGNED(LSK_START),
    .last = LSK_SIGNED(LSK_LAST),
    .threshold = LSK_SIGNED(LSK_THRESHOLD_SIGNED),
    .unit = (float)(1.0 / (1.0 - 0.45 / 64)),
};

static const struct lsk_dynamic8 lsk_dynamic8_unsigned = {
    .slope = LSK_UNSIGNED(LSK_SLOPE),
    .offset = LSK_UNSIGNED(LSK_OFFSET),
    .inverse = LSK_UNSIGNED(LSK_INVERSE),
    .start = LSK_UNSIGNED(LSK_START),
    .last = LSK_UNSIGNED(LSK_LAST),
    .threshold = LSK_UNSIGNED(LSK_THRESHOLD_UNSIGNED),
    .unit = (float)(1.0 / (1.0 - 0.45 / 128)),
};

#endif
