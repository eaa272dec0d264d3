/* Dense products of packed operands: the definition. */
#include "kernels/impl.h"

/* A sum of products in C, then scaled: the order that every implementation follows for one element. */
static void put(float *C, float sum, float scale, bool add)
{
    *C = add ? *C + scale * sum : scale * sum;
}

void lsk_gemm_f32_ref(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t n_units, size_t rows,
                      size_t cols, float scale, bool add)
{
    for (size_t r = 0; r < rows; r++) {
        float sum[LSK_GEMM_N] = { 0 };
        for (size_t u = 0; u < n_units; u++) {
            const float a = lsi_f32_from_bits(A[u * LSK_GEMM_M + r]);
            for (size_t c = 0; c < LSK_GEMM_N; c++)
                sum[c] += a * lsi_f32_from_bits(B[u * LSK_GEMM_N + c]);
        }
        for (size_t c = 0; c < cols; c++)
            put(&C[r * ldc + c], sum[c], scale, add);
    }
}

static float low(uint32_t pair)
{
    return lsi_f32_from_bits(pair << 16);
}

static float high(uint32_t pair)
{
    return lsi_f32_from_bits(pair & 0xffff0000u);
}

void lsk_gemm_bf16_ref(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t n_units,
                       size_t rows, size_t cols, float scale, bool add)
{
    for (size_t r = 0; r < rows; r++) {
        float sum[LSK_GEMM_N] = { 0 };
        for (size_t u = 0; u < n_units; u++) {
            const float a0 = low(A[u * LSK_GEMM_M + r]), a1 = high(A[u * LSK_GEMM_M + r]);
            for (size_t c = 0; c < LSK_GEMM_N; c++) {
                sum[c] += a0 * low(B[u * LSK_GEMM_N + c]);
                sum[c] += a1 * high(B[u * LSK_GEMM_N + c]);
            }
        }
        for (size_t c = 0; c < cols; c++)
            put(&C[r * ldc + c], sum[c], scale, add);
    }
}

void lsk_gemm_turn_ref(uint32_t *out, size_t width, const uint32_t *in, size_t ld, size_t n, size_t n_units)
{
    for (size_t i = 0; i < 8; i++)
        for (size_t u = 0; u < n_units; u++)
            out[u * width + i] = i < n ? in[i * ld + u] : 0;
}

static uint32_t pair(lsi_bf16 first, lsi_bf16 second)
{
    return (uint32_t)second << 16 | first;
}

void lsk_gemm_turn_f32_ref(uint32_t *out, size_t width, const float *in, size_t ld, size_t n, size_t n_values)
{
    for (size_t v = 0; v < n_values; v += 2, out += width)
        for (size_t i = 0; i < 8; i++) {
            const lsi_bf16 first = i < n ? lsi_bf16_from_f32(in[i * ld + v]) : 0;
            const bool second = i < n && v + 1 < n_values;
            out[i] = pair(first, second ? lsi_bf16_from_f32(in[i * ld + v + 1]) : 0);
        }
}

void lsk_gemm_pair_f32_ref(uint32_t *out, size_t panel, size_t width, const float *first, const float *second,
                           size_t n)
{
    for (size_t c = 0; c < (n + width - 1) / width * width; c++)
        out[c / width * panel + c % width] =
            c < n ? pair(lsi_bf16_from_f32(first[c]), second ? lsi_bf16_from_f32(second[c]) : 0) : 0;
}

void lsk_gemm_pair_bf16_ref(uint32_t *out, size_t panel, size_t width, const lsi_bf16 *first,
                            const lsi_bf16 *second, size_t n)
{
    for (size_t c = 0; c < (n + width - 1) / width * width; c++)
        out[c / width * panel + c % width] = c < n ? pair(first[c], second ? second[c] : 0) : 0;
}
