/*
 * Stored rows of Q5_0, Q5_1, Q4_K, Q5_K and Q6_K from values, for export. In the K types 256 values share a
 * scale in half precision (and one for the minima); each run of 32 or 16 of them has a small whole number of
 * it. In the others 32 values have halves of their own.
 *
 *     Q5_0          x = d q                 q in -16 .. 15
 *     Q5_1          x = d q + m             q in 0 .. 31
 *     Q4_K, Q5_K    x = d sc q - dmin m     q in 0 .. 15 or 31, sc and m in 0 .. 63 for each 32
 *     Q6_K          x = d sc q              q in -32 .. 31, sc in -128 .. 127 for each 16
 *
 * A run is fitted alone first: for each of several steps about as wide as its range takes, values are rounded
 * to codes, and the scale (and minimum) that suits these codes best, in weighted least squares, is found in
 * closed form; the best of all is kept. Then the numbers sc and m are rounded, up and down tried both, and
 * codes taken anew from what a reader will multiply by. Large values weigh more: they do more to a product.
 *
 * The step that the range of a run asks for would do worse than its size says on values that have been
 * quantised before: their grid and the new one beat, and all errors of a run point away from its middle.
 */
#include "kernels/impl.h"

#include <math.h>

enum {
    BLOCK = 256,
    RUN = 32,
    N_RUNS = BLOCK / RUN,
    RUN6 = 16,
    N_RUNS6 = BLOCK / RUN6,
    TRIALS = 21,
    MOST5 = 16,
    MOST6 = 32,
    MOST_K = 63, /* of a run's number in Q4_K and Q5_K */
    MOST_K6 = 127
};

#define GREATEST_HALF 65504.0f

static void put_u16(unsigned char *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}

static float inverse(float d)
{
    return d != 0.0f ? 1.0f / d : 0.0f;
}

/* Rounded to an integer in lo..hi; a NaN gives lo. */
static int code(float v, int lo, int hi)
{
    if (!(v > (float)lo))
        return lo;
    return v < (float)hi ? (int)roundf(v) : hi;
}

/* A scale as half precision has it: not beyond what is finite, and where halves are coarse rounded up, so
 * that runs find a number for theirs. */
static float put_scale(unsigned char *p, float want)
{
    lsi_f16 h = 0;
    if (want > 0.0f) {
        want = fminf(want, GREATEST_HALF);
        h = lsi_f16_from_f32(want);
        h += lsi_f16_to_f32(h) < want * (1.0f - 0x1p-10f);
    }
    put_u16(p, h);
    return lsi_f16_to_f32(h);
}

static float put_signed(unsigned char *p, float want)
{
    const float size = put_scale(p, fabsf(want));
    p[1] |= want < 0.0f ? 0x80 : 0;
    return copysignf(size, want);
}

static float put_offset(unsigned char *p, float want)
{
    const lsi_f16 h = lsi_f16_from_f32(fmaxf(-GREATEST_HALF, fminf(want, GREATEST_HALF)));
    put_u16(p, h);
    return lsi_f16_to_f32(h);
}

/* 1 / the greatest magnitude of n values; 0 where they are as good as 0. */
static float normaliser(const float *x, size_t n)
{
    float most = 0.0f;
    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    const float inv = inverse(most);
    return isfinite(inv) ? inv : 0.0f;
}

/* ---- types with a minimum ------------------------------------------------------------------- */

/* x = scale q - min */
struct fit {
    float scale, min;
};

/* The best scale and minimum for codes l of values y with weights w; the weighted squared error. below: the
 * minimum is not above 0. */
static float solve(const float *y, const float *w, const int *l, bool below, struct fit *f)
{
    float sum_w = 0, sum_l = 0, sum_ll = 0, sum_y = 0, sum_ly = 0, error = 0;
    for (size_t i = 0; i < RUN; i++) {
        const float wl = w[i] * (float)l[i];
        sum_w += w[i];
        sum_l += wl;
        sum_ll += wl * (float)l[i];
        sum_y += w[i] * y[i];
        sum_ly += wl * y[i];
    }
    const float det = sum_w * sum_ll - sum_l * sum_l; /* 0: all codes are equal */
    f->min = det > 0.0f ? (sum_l * sum_ly - sum_ll * sum_y) / det : 0.0f;
    if (det > 0.0f && (f->min > 0.0f || !below)) {
        f->scale = (sum_w * sum_ly - sum_y * sum_l) / det;
    } else {
        f->min = 0.0f;
        f->scale = sum_ly * inverse(sum_ll);
    }
    for (size_t i = 0; i < RUN; i++) {
        const float e = f->scale * (float)l[i] - f->min - y[i];
        error += w[i] * e * e;
    }
    return f->scale > 0.0f ? error : INFINITY;
}

static struct fit fit_run(const float *x, int most, bool below)
{
    const float inv = normaliser(x, RUN);
    float y[RUN], w[RUN], lo, hi, squares = 0, least = 0;
    int l[RUN];

    if (inv == 0.0f)
        return (struct fit){ 0 };
    hi = x[0] * inv;
    lo = below ? fminf(hi, 0.0f) : hi;
    for (size_t i = 0; i < RUN; i++) {
        y[i] = x[i] * inv;
        lo = fminf(lo, y[i]);
        hi = fmaxf(hi, y[i]);
        squares += y[i] * y[i];
    }
    struct fit best = { .min = -lo }; /* without a step: exact where all values are equal (and not above 0) */
    for (size_t i = 0; i < RUN; i++) {
        w[i] = sqrtf(squares / RUN) + fabsf(y[i]);
        least += w[i] * (y[i] - lo) * (y[i] - lo);
    }
    for (int k = 0; k < TRIALS && hi > lo; k++) {
        const float steps = ((float)(most - 1) + 0.1f * (float)k) / (hi - lo);
        struct fit f = { 0 };
        for (size_t i = 0; i < RUN; i++)
            l[i] = code((y[i] - lo) * steps, 0, most);
        const float error = solve(y, w, l, below, &f);
        if (error < least) {
            least = error;
            best = f;
        }
    }
    return (struct fit){ best.scale / inv, best.min / inv };
}

/* Nearest codes, and the squared error, in units of 1 / unit. */
static float encode(uint8_t *q, const float *x, float scale, float min, int most, float unit)
{
    const float inv = inverse(scale);
    float error = 0;
    for (size_t i = 0; i < RUN; i++) {
        q[i] = (uint8_t)code((x[i] + min) * inv, 0, most);
        const float e = (scale * (float)q[i] - min - x[i]) * unit;
        error += e * e;
    }
    return error;
}

/* The numbers of a run, and its codes. */
static void round_run(const float *x, const struct fit *f, float d, float dmin, int most, uint8_t *scale,
                      uint8_t *min, uint8_t *q)
{
    const float s = f->scale * inverse(d), m = f->min * inverse(dmin), unit = inverse(fmaxf(d, dmin));
    float least = INFINITY;
    uint8_t trial[RUN];
    for (int i = 0; i < 4; i++) {
        const int a = code(floorf(s) + (float)(i % 2), 0, MOST_K);
        const int b = code(floorf(m) + (float)(i / 2), 0, MOST_K);
        const float error = encode(trial, x, d * (float)a, dmin * (float)b, most, unit);
        if (i > 0 && !(error < least)) /* values beyond all scales have no finite error */
            continue;
        least = error;
        *scale = (uint8_t)a;
        *min = (uint8_t)b;
        memcpy(q, trial, RUN);
    }
}

/* The eight scales and eight minima of 6 bits in twelve bytes (unpack_ref.h). */
static void put_k_scales(unsigned char *sc, const uint8_t *scale, const uint8_t *min)
{
    for (size_t s = 0; s < 4; s++) {
        sc[s] = (unsigned char)(scale[s] | scale[s + 4] >> 4 << 6);
        sc[s + 4] = (unsigned char)(min[s] | min[s + 4] >> 4 << 6);
        sc[s + 8] = (unsigned char)((scale[s + 4] & 15) | (min[s + 4] & 15) << 4);
    }
}

/* The sixteen bytes of scales of a block; its codes. */
static void quantize_block(unsigned char *p, uint8_t *q, const float *x, int most)
{
    struct fit fit[N_RUNS];
    uint8_t scale[N_RUNS], min[N_RUNS];
    float scales = 0.0f, mins = 0.0f;
    for (size_t r = 0; r < N_RUNS; r++) {
        fit[r] = fit_run(x + r * RUN, most, true);
        scales = fmaxf(scales, fit[r].scale);
        mins = fmaxf(mins, fit[r].min);
    }
    const float d = put_scale(p, scales / MOST_K), dmin = put_scale(p + 2, mins / MOST_K);
    for (size_t r = 0; r < N_RUNS; r++)
        round_run(x + r * RUN, &fit[r], d, dmin, most, &scale[r], &min[r], q + r * RUN);
    put_k_scales(p + 4, scale, min);
}

/* The lower four bits of the codes: of 64, the first 32 in the low halves of 32 bytes. */
static void put_low_bits(unsigned char *p, const uint8_t *q)
{
    for (size_t i = 0; i < BLOCK / 2; i++) {
        const uint8_t *first = q + i / 32 * 64 + i % 32;
        p[i] = (unsigned char)((first[0] & 15) | (first[32] & 15) << 4);
    }
}

void lsk_quantize_q4_k_ref(void *row, const float *x, size_t n)
{
    unsigned char *p = row;
    uint8_t q[BLOCK];

    for (size_t i = 0; i < n; i += BLOCK, p += 144) {
        quantize_block(p, q, x + i, 15);
        put_low_bits(p + 16, q);
    }
}

void lsk_quantize_q5_k_ref(void *row, const float *x, size_t n)
{
    unsigned char *p = row;
    uint8_t q[BLOCK];

    for (size_t i = 0; i < n; i += BLOCK, p += 176) {
        quantize_block(p, q, x + i, 31);
        memset(p + 16, 0, 32);
        for (size_t j = 0; j < BLOCK; j++)
            p[16 + j % 32] |= (unsigned char)(q[j] >> 4 << j / 32);
        put_low_bits(p + 48, q);
    }
}

/* ---- types about 0 ------------------------------------------------------------------------------ */

/* The scale of a run of n whose codes are -most .. most - 1; it is negative where the largest value is
 * positive: there is one code more below 0 than above. */
static float fit_signed(const float *x, size_t n, int most)
{
    const float inv = normaliser(x, n);
    float peak = 0.0f, best = 0.0f, greatest = 0.0f, squares = 0.0f;

    for (size_t i = 0; i < n; i++) {
        if (fabsf(x[i]) > fabsf(peak))
            peak = x[i];
        squares += x[i] * inv * (x[i] * inv);
    }
    const float rms = sqrtf(squares / (float)n);
    for (int k = 0; k < TRIALS && inv > 0.0f; k++) {
        const float steps = copysignf((float)(most - 1) + 0.1f * (float)k, -peak);
        float sum_ll = 0, sum_ly = 0;
        for (size_t i = 0; i < n; i++) {
            const float y = x[i] * inv, w = rms + fabsf(y), l = (float)code(y * steps, -most, most - 1);
            sum_ll += w * l * l;
            sum_ly += w * l * y;
        }
        /* What is left of the squares of y is their sum less this. */
        const float gain = sum_ly * sum_ly * inverse(sum_ll);
        if (gain > greatest) {
            greatest = gain;
            best = sum_ly / sum_ll;
        }
    }
    return inv > 0.0f ? best / inv : 0.0f;
}

static float encode6(int8_t *q, const float *x, float d, int scale)
{
    const float inv_d = inverse(d), inv = inverse(d * (float)scale);
    float error = 0;
    for (size_t i = 0; i < RUN6; i++) {
        q[i] = (int8_t)(scale ? code(x[i] * inv, -MOST6, MOST6 - 1) : 0);
        const float e = (float)(scale * q[i]) - x[i] * inv_d;
        error += e * e;
    }
    return error;
}

static int8_t round_run6(const float *x, float scale, float d, int8_t *q)
{
    int8_t trial[RUN6];
    const float s = floorf(scale * inverse(d));
    float least = INFINITY;
    int best = 0;
    for (int i = 0; i < 2; i++) {
        const int a = code(s + (float)i, -MOST_K6 - 1, MOST_K6);
        const float error = encode6(trial, x, d, a);
        if (i > 0 && !(error < least))
            continue;
        least = error;
        best = a;
        memcpy(q, trial, RUN6);
    }
    return (int8_t)best;
}

/* Low four and high two bits of the codes (unpack_ref.h). */
static void put_codes6(unsigned char *p, const int8_t *q)
{
    memset(p, 0, 192);
    for (size_t i = 0; i < BLOCK; i++) {
        const size_t half = i / 128, run = i % 128 / 32, l = i % 32;
        const int v = q[i] + MOST6;
        p[64 * half + 32 * (run & 1) + l] |= (unsigned char)((v & 15) << (run < 2 ? 0 : 4));
        p[128 + 32 * half + l] |= (unsigned char)(v >> 4 << (2 * run));
    }
}

void lsk_quantize_q6_k_ref(void *row, const float *x, size_t n)
{
    unsigned char *p = row;

    for (size_t i = 0; i < n; i += BLOCK, p += 210) {
        float scale[N_RUNS6], most = 0.0f;
        int8_t q[BLOCK];
        for (size_t r = 0; r < N_RUNS6; r++) {
            scale[r] = fit_signed(x + i + r * RUN6, RUN6, MOST6);
            most = fmaxf(most, fabsf(scale[r]));
        }
        const float d = put_scale(p + 208, most / MOST_K6);
        for (size_t r = 0; r < N_RUNS6; r++)
            p[192 + r] = (unsigned char)round_run6(x + i + r * RUN6, scale[r], d, q + r * RUN6);
        put_codes6(p, q);
    }
}

/* ---- blocks of 32 ------------------------------------------------------------------------- */

/* The fifth bits of 32 codes, after which come their low four bits as lsk_unpack_nibbles reads them. */
static void put_five_bits(unsigned char *p, const int *q)
{
    memset(p, 0, 4);
    for (size_t j = 0; j < RUN; j++)
        p[j / 8] |= (unsigned char)(q[j] >> 4 << j % 8);
    for (size_t j = 0; j < RUN / 2; j++)
        p[4 + j] = (unsigned char)((q[j] & 15) | (q[j + RUN / 2] & 15) << 4);
}

void lsk_quantize_q5_0_ref(void *row, const float *x, size_t n)
{
    unsigned char *p = row;
    int q[RUN];

    for (size_t i = 0; i < n; i += RUN, p += 22) {
        const float inv = inverse(put_signed(p, fit_signed(x + i, RUN, MOST5)));
        for (size_t j = 0; j < RUN; j++)
            q[j] = code(x[i + j] * inv, -MOST5, MOST5 - 1) + MOST5;
        put_five_bits(p + 2, q);
    }
}

void lsk_quantize_q5_1_ref(void *row, const float *x, size_t n)
{
    unsigned char *p = row;
    int q[RUN];

    for (size_t i = 0; i < n; i += RUN, p += 24) {
        const struct fit f = fit_run(x + i, 2 * MOST5 - 1, false);
        const float inv = inverse(put_scale(p, f.scale)), m = put_offset(p + 2, -f.min);
        for (size_t j = 0; j < RUN; j++)
            q[j] = code((x[i + j] - m) * inv, 0, 2 * MOST5 - 1);
        put_five_bits(p + 4, q);
    }
}
