/*
 * Attention over packed keys or values of one width of codes, for any width of vectors: products with the
 * codes as they lie (kernels/kivi.h). The includer defines
 *
 *     NAME(x)   names of this instance
 *     BITS      of a code
 *
 * A word of a page has 32 / BITS codes, four bytes of 8 / BITS planes. They are taken from the low end, one
 * after the other: code i is that of byte i * BITS / 8 and of plane i % PLANES.
 */
#define PLANES (8 / BITS)
#define CODES  (32 / BITS)
/* Vectors that a tile's 16 words fill, and tiles worked on at a time: two vectors of sums for each row. */
#define PARTS (LSK_TILE / VEC_LANES)
#define TILES (2 / PARTS)

/* Which of the 4 * PLANES slots or dimensions of a word code i stands for. */
#define PLACE(i) ((i) % PLANES * 4 + (i)*BITS / 8)

#if BITS == 2
#define CODE(w) vec_choose(vec_load_table(kivi_low_bits), w)
#else
#define CODE(w) vec_from_words(vec_words_and(w, vec_words_set((1u << BITS) - 1)))
#endif

/* z[r][z0 + s] for the slots from .. to - 1 of one block, multiples of 32; q: queries times the scales of the
 * block's keys, beta: queries times their offsets. */
VEC_INLINE void NAME(scores)(const unsigned char *codes, size_t D, float (*q)[KIVI_MAX_D], const float *beta,
                             float (*z)[LSK_PAGE], size_t z0, size_t n_rows, size_t from, size_t to)
{
    const size_t per_tile = D / (4 * PLANES); /* vectors */

    for (size_t s = from; s < to; s += TILES * LSK_TILE) {
        vec sum[KIVI_ROWS][2];
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++)
            sum[r][0] = sum[r][1] = vec_set(beta[r]);
        for (size_t i = 0; i < per_tile; i++) {
            vec_bits w[2];
            VEC_UNROLL
            for (size_t j = 0; j < 2; j++)
                w[j] = vec_words(codes + ((s / LSK_TILE + j / PARTS) * per_tile + i) * LSK_KIVI_VECTOR +
                                 j % PARTS * VEC_LANES * 4);
            VEC_UNROLL
            for (size_t c = 0; c < CODES; c++) {
                const vec x = CODE(w[0]), y = CODE(w[1]);
                VEC_UNROLL
                for (size_t r = 0; r < n_rows; r++) {
                    const vec b = vec_set(q[r][i * 4 * PLANES + PLACE(c)]);
                    sum[r][0] = vec_fma(b, x, sum[r][0]);
                    sum[r][1] = vec_fma(b, y, sum[r][1]);
                }
                w[0] = vec_words_right(w[0], BITS);
                w[1] = vec_words_right(w[1], BITS);
            }
        }
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++) {
            vec_store(z[r] + z0 + s, sum[r][0]);
            vec_store(z[r] + z0 + s + VEC_LANES, sum[r][1]);
        }
    }
}

/* sum[r][j] += the values in the slots from .. to - 1 of one block, multiples of 32, weighed with w, whose
 * first element is slot 0 of the block; n_vectors vectors of dimensions from d on. */
VEC_INLINE void NAME(values)(const unsigned char *codes, size_t D, float (*w)[LSK_PAGE], size_t w0,
                             vec (*sum)[2], size_t n_rows, size_t n_vectors, size_t d, size_t from, size_t to)
{
    for (size_t s = from; s < to; s += 4 * PLANES) {
        const unsigned char *at = codes + (s / (4 * PLANES) * (D / LSK_TILE)) * LSK_KIVI_VECTOR + d * 4;
        vec_bits words[2];
        VEC_UNROLL
        for (size_t j = 0; j < n_vectors; j++)
            words[j] = vec_words(at + j * VEC_LANES * 4);
        VEC_UNROLL
        for (size_t c = 0; c < CODES; c++) {
            vec x[2];
            VEC_UNROLL
            for (size_t j = 0; j < n_vectors; j++) {
                x[j] = CODE(words[j]);
                words[j] = vec_words_right(words[j], BITS);
            }
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++) {
                const vec b = vec_set(w[r][w0 + s + PLACE(c)]);
                VEC_UNROLL
                for (size_t j = 0; j < n_vectors; j++)
                    sum[r][j] = vec_fma(b, x[j], sum[r][j]);
            }
        }
    }
}

/* Numbers that the codes of VEC_LANES words stand for: x[place], scale and offset of each place. */
VEC_INLINE void NAME(numbers)(vec x[16], const unsigned char *words, const float *scale, const float *offset)
{
    vec_bits w = vec_words(words);

    VEC_UNROLL
    for (size_t c = 0; c < CODES; c++) {
        /* As the reference: the product is rounded, then the sum. */
        x[PLACE(c)] = vec_add(vec_mul(CODE(w), vec_set(scale[PLACE(c)])), vec_set(offset[PLACE(c)]));
        w = vec_words_right(w, BITS);
    }
}

#undef PLANES
#undef CODES
#undef PARTS
#undef TILES
#undef PLACE
#undef CODE
#undef BITS
#undef NAME
