/*
 * The most that rows can score within bounds of 8 bits, with fourfold integer products (AVX512_VNNI).
 *
 * The size of a query is written as a whole number of 24 bits, whose three bytes, unsigned, go through the
 * products one by one; its sign chooses between the signed bytes of a bound and of its opposite:
 *
 *     z[i] = scale[i] unit sum_d (q[d] > 0 ? most[i][d] : opposite[i][d]) (2^16 x2[d] + 2^8 x1[d] + x0[d])
 */
#include "kernels/impl.h"

#include "kernels/x86/attention_digits.h"

#define TILES  2 /* ROWS x TILES x DIGITS = 24 sums */
#define AHEAD  4 /* tiles between what is read and what is asked for */
#define MAX_D  256
#define X_MOST 0xffffff /* of three unsigned bytes */

_Static_assert(LSK_SCORES_STEP % (TILES * LSK_TILE) == 0, "pairs of tiles");

struct queries {
    float unit[ROWS];
    int32_t bytes[ROWS][MAX_D];        /* [d + c], d a multiple of 4: bytes c of dimensions d .. d + 3 */
    int32_t positive[ROWS][MAX_D / 4]; /* a byte of ones for each dimension whose query is positive */
};

static void split_query(struct queries *x, size_t r, const float *q, size_t D)
{
    const __m512i by_byte =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    vec most = vec_zero(), zero = vec_zero();

    for (size_t d = 0; d < D; d += VEC_LANES) {
        most = vec_max(vec_abs(vec_load(q + d)), most);
        zero = vec_fma(vec_load(q + d), vec_zero(), zero);
    }
    const float greatest = vec_greatest(most), by = (float)X_MOST / greatest;
    /* Queries too small for a unit count as 0. Whole numbers have no NaN: the unit carries it. */
    const vec scale = vec_set(by <= 0x1p126f ? by : 0.0f);
    x->unit[r] = greatest / (float)X_MOST + vec_sum(zero);
    for (size_t d = 0; d < D; d += VEC_LANES) {
        const vec y = vec_load(q + d);
        const vec size = vec_min(vec_set((float)X_MOST), vec_mul(vec_abs(y), scale));
        _mm512_storeu_si512(x->bytes[r] + d, _mm512_shuffle_epi8(_mm512_cvtps_epi32(size), by_byte));
        _mm_storeu_si128((__m128i *)(void *)(x->positive[r] + d / 4),
                         _mm_movm_epi8(_mm512_cmp_ps_mask(y, vec_zero(), _CMP_GT_OQ)));
    }
}

VEC_INLINE void score_rows(const struct lsk_attn_scores *a, size_t r0, size_t n_rows)
{
    const size_t D = a->D, tile_bytes = lsk_bounds_tile_bytes(D);
    const unsigned char *head = a->head, *next = a->next ? a->next : head;
    struct queries x;

    for (size_t r = 0; r < n_rows; r++)
        split_query(&x, r, a->q + (r0 + r) * D, D);
    for (size_t i = a->from; i < a->to; i += TILES * LSK_TILE) {
        const unsigned char *runs = head + lsk_bounds_most(D, i, 0);
        /* What is asked for meanwhile, in the order in which it lies. */
        const size_t then = i + AHEAD * LSK_TILE;
        const unsigned char *ahead = then < LSK_PAGE ? head + lsk_bounds_most(D, then, 0)
                                                     : next + lsk_bounds_most(D, then - LSK_PAGE, 0);
        __m512i sum[ROWS][TILES][DIGITS];
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            VEC_UNROLL
        for (size_t c = 0; c < DIGITS; c++)
            sum[r][0][c] = sum[r][1][c] = _mm512_setzero_si512();
        for (size_t d = 0; d < D; d += 4, runs += 8 * LSK_TILE, ahead += TILES * 2 * 64) {
            VEC_UNROLL
            for (size_t j = 0; j < TILES * 2; j++)
                _mm_prefetch((const char *)ahead + j * 64, _MM_HINT_T1);
            const __m512i most[TILES] = { _mm512_loadu_si512(runs), _mm512_loadu_si512(runs + tile_bytes) };
            const __m512i opposite[TILES] = { _mm512_loadu_si512(runs + 4 * LSK_TILE),
                                              _mm512_loadu_si512(runs + 4 * LSK_TILE + tile_bytes) };
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++) {
                const __m512i positive = _mm512_set1_epi32(x.positive[r][d / 4]);
                const __m512i y[TILES] = { _mm512_ternarylogic_epi32(positive, most[0], opposite[0], 0xca),
                                           _mm512_ternarylogic_epi32(positive, most[1], opposite[1], 0xca) };
                VEC_UNROLL
                for (size_t c = 0; c < DIGITS; c++) {
                    const __m512i digit = _mm512_set1_epi32(x.bytes[r][d + c]);
                    sum[r][0][c] = add_products(sum[r][0][c], digit, y[0]);
                    sum[r][1][c] = add_products(sum[r][1][c], digit, y[1]);
                }
            }
        }
        VEC_UNROLL
        for (size_t t = 0; t < TILES; t++) {
            const vec scale = vec_load((const float *)(const void *)(runs + t * tile_bytes));
            _mm_prefetch((const char *)ahead + t * 64, _MM_HINT_T1);
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++)
                vec_store(a->z + (r0 + r) * LSK_PAGE + i + t * LSK_TILE,
                          vec_mul(vec_mul(join(sum[r][t]), vec_set(x.unit[r])), scale));
        }
    }
}

void lsk_attn_bounds_vnni(const struct lsk_attn_scores *a)
{
    if (a->D % VEC_LANES != 0 || a->D > MAX_D) {
        lsk_attn_bounds_avx512(a);
        return;
    }
    for (size_t r = 0; r < a->n_rows; r += ROWS) {
        switch (a->n_rows - r) {
        case 1:
            score_rows(a, r, 1);
            break;
        case 2:
            score_rows(a, r, 2);
            break;
        case 3:
            score_rows(a, r, 3);
            break;
        default:
            score_rows(a, r, ROWS);
            break;
        }
    }
}
