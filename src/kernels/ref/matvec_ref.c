/* Products of stored matrices with a few rows of activations, summed in double from the first element on. */
#include "kernels/ref/unpack_ref.h"

/* A block of weights as fp32 values. */
typedef void lsk_values_fn(float *y, const void *row, size_t n);

static void matvec_f32(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out, const float *x,
                       size_t ldx, size_t n_rows, size_t n_in, lsk_values_fn *values, size_t block,
                       size_t block_bytes)
{
    for (size_t o = 0; o < n_out; o++) {
        const uint8_t *p = (const uint8_t *)w + o * row_bytes;
        double sum[LSK_MATVEC_ROWS] = { 0 };

        for (size_t i = 0; i < n_in; i += block, p += block_bytes) {
            float v[LSK_REF_BLOCK];
            values(v, p, block);
            for (size_t r = 0; r < n_rows; r++)
                for (size_t j = 0; j < block; j++)
                    sum[r] += (double)v[j] * (double)x[r * ldx + i + j];
        }
        for (size_t r = 0; r < n_rows; r++)
            y[r * ldy + o] = (float)sum[r];
    }
}

/* a and b of the two halves of a run may differ (Q6_K); b is then zero, so the sum s of the whole run will
 * do. */
static void matvec_q8(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out,
                      const struct lsk_q8 *x, size_t n_rows, size_t n_in, lsk_unpack_fn *unpack, size_t block,
                      size_t block_bytes)
{
    for (size_t o = 0; o < n_out; o++) {
        const uint8_t *p = (const uint8_t *)w + o * row_bytes;
        double sum[LSK_MATVEC_ROWS] = { 0 };

        for (size_t i = 0; i < n_in; i += block, p += block_bytes) {
            struct lsk_ref_block u;
            unpack(&u, p);
            for (size_t r = 0; r < n_rows; r++) {
                for (size_t h = 0; h < block / 16; h++) {
                    const size_t run = (i + 16 * h) / 32;
                    int32_t dot = 0;
                    for (size_t j = 0; j < 16; j++)
                        dot += u.v[16 * h + j] * x[r].q[i + 16 * h + j];
                    sum[r] += (double)u.a[h] * (double)x[r].d[run] * dot;
                    if (h % 2 == 0)
                        sum[r] += (double)u.b[h] * (double)x[r].s[run];
                }
            }
        }
        for (size_t r = 0; r < n_rows; r++)
            y[r * ldy + o] = (float)sum[r];
    }
}

#define MATVEC_F32(type, block, bytes)                                                                    \
    void lsk_matvec_f32_##type##_ref(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out, \
                                     const float *x, size_t ldx, size_t n_rows, size_t n_in)              \
    {                                                                                                     \
        matvec_f32(y, ldy, w, row_bytes, n_out, x, ldx, n_rows, n_in, lsk_dequant_##type##_ref, block,    \
                   bytes);                                                                                \
    }

#define MATVEC_Q8(type, block, bytes)                                                                    \
    void lsk_matvec_q8_##type##_ref(float *y, size_t ldy, const void *w, size_t row_bytes, size_t n_out, \
                                    const struct lsk_q8 *x, size_t n_rows, size_t n_in)                  \
    {                                                                                                    \
        matvec_q8(y, ldy, w, row_bytes, n_out, x, n_rows, n_in, lsk_unpack_##type, block, bytes);        \
    }

MATVEC_F32(f32, 1, 4)
MATVEC_F32(f16, 1, 2)
MATVEC_F32(bf16, 1, 2)

#define MATVEC_BOTH(type, block, bytes) \
    MATVEC_F32(type, block, bytes)      \
    MATVEC_Q8(type, block, bytes)

MATVEC_BOTH(q8_0, 32, 34)
MATVEC_BOTH(q4_0, 32, 18)
MATVEC_BOTH(q4_1, 32, 20)
MATVEC_BOTH(q5_0, 32, 22)
MATVEC_BOTH(q5_1, 32, 24)
MATVEC_BOTH(q4_k, 256, 144)
MATVEC_BOTH(q5_k, 256, 176)
MATVEC_BOTH(q6_k, 256, 210)
