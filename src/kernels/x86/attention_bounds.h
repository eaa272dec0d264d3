/*
 * The most that rows can score within bounds of 8 bits, in fp32 for any width of vectors: a dimension adds
 *
 *     max(q, 0) most + max(-q, 0) opposite
 */
#define BOUNDS_ROWS  4
#define BOUNDS_MAX_D 256

VEC_INLINE void bounds_rows(const struct lsk_attn_scores *a, size_t r0, size_t n_rows)
{
    const size_t D = a->D;
    float above[BOUNDS_ROWS][BOUNDS_MAX_D], below[BOUNDS_ROWS][BOUNDS_MAX_D];

    for (size_t r = 0; r < n_rows; r++)
        for (size_t d = 0; d < D; d++) {
            const float q = a->q[(r0 + r) * D + d];
            above[r][d] = q > 0.0f ? q : 0.0f;
            below[r][d] = q > 0.0f ? 0.0f : -q;
        }
    for (size_t i = a->from; i < a->to; i += VEC_LANES) {
        const unsigned char *runs = (const unsigned char *)a->head + lsk_bounds_most(D, i, 0);
        const float *scales =
            (const float *)(const void *)((const unsigned char *)a->head + lsk_bounds_scale(D, i));
        vec sum[BOUNDS_ROWS][2];
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            sum[r][0] = sum[r][1] = vec_zero();
        for (size_t d = 0; d < D; d += 4, runs += 8 * LSK_TILE) {
            const vec_bits most = vec_words(runs), opposite = vec_words(runs + 4 * LSK_TILE);
            VEC_UNROLL
            for (int c = 0; c < 4; c++) {
                const vec x = vec_byte(most, c), y = vec_byte(opposite, c);
                VEC_UNROLL
                for (size_t r = 0; r < n_rows; r++) {
                    sum[r][0] = vec_fma(vec_set(above[r][d + (size_t)c]), x, sum[r][0]);
                    sum[r][1] = vec_fma(vec_set(below[r][d + (size_t)c]), y, sum[r][1]);
                }
            }
        }
        const vec scale = vec_mul(vec_load(scales), vec_set(1.0f / VEC_BYTE_ONE));
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            vec_store(a->z + (r0 + r) * LSK_PAGE + i, vec_mul(vec_add(sum[r][0], sum[r][1]), scale));
    }
}

static void bounds_scores(const struct lsk_attn_scores *a)
{
    for (size_t r = 0; r < a->n_rows; r += BOUNDS_ROWS) {
        switch (a->n_rows - r) {
        case 1:
            bounds_rows(a, r, 1);
            break;
        case 2:
            bounds_rows(a, r, 2);
            break;
        case 3:
            bounds_rows(a, r, 3);
            break;
        default:
            bounds_rows(a, r, BOUNDS_ROWS);
            break;
        }
    }
}
