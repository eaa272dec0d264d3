/* Eight vectors of eight units turned on their side. */
#ifndef LSK_TURN_AVX2_H
#define LSK_TURN_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* out[u * width + i] = unit u of vector i. */
static inline void turn8(uint32_t *out, size_t width, __m256 r0, __m256 r1, __m256 r2, __m256 r3, __m256 r4,
                         __m256 r5, __m256 r6, __m256 r7)
{
    const __m256 a0 = _mm256_unpacklo_ps(r0, r1), a1 = _mm256_unpackhi_ps(r0, r1);
    const __m256 a2 = _mm256_unpacklo_ps(r2, r3), a3 = _mm256_unpackhi_ps(r2, r3);
    const __m256 a4 = _mm256_unpacklo_ps(r4, r5), a5 = _mm256_unpackhi_ps(r4, r5);
    const __m256 a6 = _mm256_unpacklo_ps(r6, r7), a7 = _mm256_unpackhi_ps(r6, r7);
    const __m256 b0 = _mm256_shuffle_ps(a0, a2, 0x44), b1 = _mm256_shuffle_ps(a0, a2, 0xee);
    const __m256 b2 = _mm256_shuffle_ps(a1, a3, 0x44), b3 = _mm256_shuffle_ps(a1, a3, 0xee);
    const __m256 b4 = _mm256_shuffle_ps(a4, a6, 0x44), b5 = _mm256_shuffle_ps(a4, a6, 0xee);
    const __m256 b6 = _mm256_shuffle_ps(a5, a7, 0x44), b7 = _mm256_shuffle_ps(a5, a7, 0xee);
    float *y = (float *)(void *)out;
    _mm256_storeu_ps(y, _mm256_permute2f128_ps(b0, b4, 0x20));
    _mm256_storeu_ps(y + width, _mm256_permute2f128_ps(b1, b5, 0x20));
    _mm256_storeu_ps(y + 2 * width, _mm256_permute2f128_ps(b2, b6, 0x20));
    _mm256_storeu_ps(y + 3 * width, _mm256_permute2f128_ps(b3, b7, 0x20));
    _mm256_storeu_ps(y + 4 * width, _mm256_permute2f128_ps(b0, b4, 0x31));
    _mm256_storeu_ps(y + 5 * width, _mm256_permute2f128_ps(b1, b5, 0x31));
    _mm256_storeu_ps(y + 6 * width, _mm256_permute2f128_ps(b2, b6, 0x31));
    _mm256_storeu_ps(y + 7 * width, _mm256_permute2f128_ps(b3, b7, 0x31));
}

#endif
