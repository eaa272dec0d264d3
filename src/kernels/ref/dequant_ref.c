/* Values of stored rows. */
#include "kernels/ref/unpack_ref.h"

static void dequant(float *y, const void *row, size_t n, lsk_unpack_fn *unpack, size_t block, size_t bytes)
{
    const uint8_t *p = row;
    struct lsk_ref_block o;

    for (size_t i = 0; i < n; i += block, p += bytes) {
        unpack(&o, p);
        for (size_t j = 0; j < block; j++)
            y[i + j] = o.a[j / 16] * (float)o.v[j] + o.b[j / 16];
    }
}

static void dequant_bf16(lsi_bf16 *y, const void *row, size_t n, lsk_unpack_fn *unpack, size_t block,
                         size_t bytes)
{
    const uint8_t *p = row;
    float values[LSK_REF_BLOCK];

    for (size_t i = 0; i < n; i += block, p += bytes) {
        dequant(values, p, block, unpack, block, bytes);
        for (size_t j = 0; j < block; j++)
            y[i + j] = lsi_bf16_from_f32(values[j]);
    }
}

#define DEQUANT(type, block, bytes)                                            \
    void lsk_dequant_##type##_ref(float *y, const void *row, size_t n)         \
    {                                                                          \
        dequant(y, row, n, lsk_unpack_##type, block, bytes);                   \
    }                                                                          \
    void lsk_dequant_bf16_##type##_ref(lsi_bf16 *y, const void *row, size_t n) \
    {                                                                          \
        dequant_bf16(y, row, n, lsk_unpack_##type, block, bytes);              \
    }

DEQUANT(q8_0, 32, 34)
DEQUANT(q4_0, 32, 18)
DEQUANT(q4_1, 32, 20)
DEQUANT(q5_0, 32, 22)
DEQUANT(q5_1, 32, 24)
DEQUANT(q4_k, 256, 144)
DEQUANT(q5_k, 256, 176)
DEQUANT(q6_k, 256, 210)

void lsk_dequant_f32_ref(float *y, const void *row, size_t n)
{
    if (n > 0)
        memcpy(y, row, n * sizeof *y);
}

static uint16_t u16_at(const void *row, size_t i)
{
    uint16_t v;
    memcpy(&v, (const unsigned char *)row + 2 * i, sizeof v);
    return v;
}

void lsk_dequant_f16_ref(float *y, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = lsi_f16_to_f32(u16_at(row, i));
}

void lsk_dequant_bf16_ref(float *y, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = lsi_bf16_to_f32(u16_at(row, i));
}

void lsk_dequant_bf16_f32_ref(lsi_bf16 *y, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v;
        memcpy(&v, (const unsigned char *)row + 4 * i, sizeof v);
        y[i] = lsi_bf16_from_f32(v);
    }
}

void lsk_dequant_bf16_f16_ref(lsi_bf16 *y, const void *row, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = lsi_bf16_from_f32(lsi_f16_to_f32(u16_at(row, i)));
}

void lsk_dequant_bf16_bf16_ref(lsi_bf16 *y, const void *row, size_t n)
{
    if (n > 0)
        memcpy(y, row, n * sizeof *y);
}
