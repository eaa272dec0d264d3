/* Values of stored rows, 32 at a time; the same roundings as the reference, so equal bits. */
#include "kernels/x86/weights_avx2.h"

typedef void put_fn(void *y, size_t at, __m256 v);

LSK_INLINE void put_f32(void *y, size_t at, __m256 v)
{
    _mm256_storeu_ps((float *)y + at, v);
}

/* Round to nearest even; NaN stays NaN. */
LSK_INLINE __m128i to_bf16(__m256 v)
{
    const __m256i u = _mm256_castps_si256(v), quiet = _mm256_set1_epi32(0x400000);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i r = _mm256_blendv_epi8(up, _mm256_or_si256(u, quiet), nan);
    const __m256i h = _mm256_srli_epi32(r, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}

LSK_INLINE void put_bf16(void *y, size_t at, __m256 v)
{
    _mm_storeu_si128((__m128i *)((lsi_bf16 *)y + at), to_bf16(v));
}

LSK_INLINE void dequant(void *y, const uint8_t *row, size_t n, lsk_run_fn *load, put_fn *put, int zero,
                        bool offset, bool is_signed)
{
    for (size_t run = 0; run < n / 32; run++) {
        const struct lsk_run r = load(row, run);
#pragma GCC unroll 4
        for (int part = 0; part < 4; part++) {
            const __m256 v = lsk_run_part(&r, part, zero, is_signed);
            put(y, 32 * run + 8 * (size_t)part, offset ? _mm256_add_ps(v, r.b) : v);
        }
    }
}

#define DEQUANT(type, run_bytes, zero, offset, is_signed)                       \
    void lsk_dequant_##type##_avx2(float *y, const void *row, size_t n)         \
    {                                                                           \
        dequant(y, row, n, lsk_run_##type, put_f32, zero, offset, is_signed);   \
    }                                                                           \
    void lsk_dequant_bf16_##type##_avx2(lsi_bf16 *y, const void *row, size_t n) \
    {                                                                           \
        dequant(y, row, n, lsk_run_##type, put_bf16, zero, offset, is_signed);  \
    }

LSK_AVX2_TYPES(DEQUANT)
