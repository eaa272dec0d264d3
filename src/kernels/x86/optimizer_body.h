/*
 * Kernels of the optimizer for any width of vectors. The includer defines NAME(x), the name of the
 * function of operation x. What is left after whole vectors goes through a buffer of one vector.
 */

/* Four sums: one chain of additions would wait for each of them. */
double NAME(sum_squares)(const float *x, size_t n)
{
    vec_double sum[4] = { vec_double_zero(), vec_double_zero(), vec_double_zero(), vec_double_zero() };
    size_t i = 0;

    for (; i + 2 * VEC_LANES <= n; i += 2 * VEC_LANES) {
        VEC_UNROLL
        for (size_t j = 0; j < 2; j++) {
            const vec v = vec_load(x + i + j * VEC_LANES);
            const vec_double low = vec_double_low(v), high = vec_double_high(v);
            sum[2 * j] = vec_double_fma(low, low, sum[2 * j]);
            sum[2 * j + 1] = vec_double_fma(high, high, sum[2 * j + 1]);
        }
    }
    for (; i < n; i += VEC_LANES) {
        const vec v = i + VEC_LANES <= n ? vec_load(x + i) : vec_load_part(x + i, n - i);
        const vec_double low = vec_double_low(v), high = vec_double_high(v);
        sum[0] = vec_double_fma(low, low, sum[0]);
        sum[1] = vec_double_fma(high, high, sum[1]);
    }
    return vec_double_total(vec_double_add(vec_double_add(sum[0], sum[1]), vec_double_add(sum[2], sum[3])));
}

VEC_INLINE void step(vec *w, vec *m, vec *v, vec g, const struct lsk_adamw *p)
{
    const vec h = vec_mul(g, vec_set(p->grad_scale));
    *m = vec_fma(*m, vec_set(p->beta1), vec_mul(h, vec_set(p->rest1)));
    *v = vec_fma(*v, vec_set(p->beta2), vec_mul(vec_mul(h, vec_set(p->rest2)), h));
    const vec below = vec_fma(vec_sqrt(*v), vec_set(p->root2), vec_set(p->eps));
    const vec change = vec_div(vec_mul(*m, vec_set(p->rate)), below);
    *w = vec_sub(*w, vec_fma(*w, vec_set(p->fade), change));
}

void NAME(adamw)(float *w, float *m, float *v, const float *g, size_t n, const struct lsk_adamw *p)
{
    size_t i = 0;

    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        vec a = vec_load(w + i), b = vec_load(m + i), c = vec_load(v + i);
        step(&a, &b, &c, vec_load(g + i), p);
        vec_store(w + i, a);
        vec_store(m + i, b);
        vec_store(v + i, c);
    }
    if (i < n) {
        const size_t left = n - i;
        vec a = vec_load_part(w + i, left), b = vec_load_part(m + i, left), c = vec_load_part(v + i, left);
        step(&a, &b, &c, vec_load_part(g + i, left), p);
        vec_store_part(w + i, a, left);
        vec_store_part(m + i, b, left);
        vec_store_part(v + i, c, left);
    }
}

/* ---- stochastic rounding ------------------------------------------------------------ */

/* lsk_random16 for the numbers j, given as j * LSK_RANDOM_STEP. */
VEC_INLINE vec_bits random16(uint64_t run, vec_bits steps)
{
    vec_bits x = vec_words_add(steps, vec_words_set((uint32_t)run));
    x = vec_words_xor(x, vec_words_right(x, 16));
    x = vec_words_mul(x, vec_words_set(LSK_RANDOM_MUL1));
    x = vec_words_xor(x, vec_words_xor(vec_words_right(x, 15), vec_words_set((uint32_t)(run >> 32))));
    return vec_words_right(vec_words_mul(x, vec_words_set(LSK_RANDOM_MUL2)), 16);
}

VEC_INLINE vec_bits rounded(vec x, vec_bits random)
{
    const vec_bits bits = vec_words_of(x), cut = vec_words_right(bits, 16);
    const vec_bits up = vec_words_right(vec_words_add(bits, random), 16);
    return vec_words_if_nan(x, vec_words_or(cut, vec_words_set(64)), up);
}

void NAME(round_bf16)(lsi_bf16 *y, const float *x, size_t n, uint64_t key, uint64_t first)
{
    const vec_bits lanes = vec_words_mul(vec_words_count(), vec_words_set(LSK_RANDOM_STEP));
    const vec_bits next = vec_words_set((uint32_t)VEC_LANES * LSK_RANDOM_STEP);
    vec_bits steps = lanes;
    uint64_t run = 0;

    for (size_t i = 0; i < n; i += VEC_LANES) {
        if (i % LSK_RANDOM_RUN == 0) {
            run = lsk_random_run(key, first + i);
            steps = lanes;
        }
        const vec_bits random = random16(run, steps);
        steps = vec_words_add(steps, next);
        if (i + VEC_LANES <= n) {
            vec_store_u16(y + i, rounded(vec_load(x + i), random));
        } else {
            lsi_bf16 part[VEC_LANES];
            vec_store_u16(part, rounded(vec_load_part(x + i, n - i), random));
            memcpy(y + i, part, (n - i) * sizeof *y);
        }
    }
}

/* ---- moments in 8 bits ----------------------------------------------------------------
 *
 * The exponent of a code's magnitude as a float is its decade, and the mantissa 1 + k / 2^e, so that u is a
 * product and a sum with factors chosen by the decade. The other way the decade is the number of thresholds
 * below u.
 */

/* Lanes whose decade is e take the element e of the tables: exponents begin at 127, which is 7 modulo 8. */
VEC_INLINE vec turned(const float *table)
{
    float by_exponent[8];
    for (size_t e = 0; e < 8; e++)
        by_exponent[(e + 127) % 8] = table[e];
    return vec_load_table(by_exponent);
}

/* u of magnitudes t; slope and offset as `turned` gives them. */
VEC_INLINE vec magnitude(vec_bits t, vec slope, vec offset)
{
    const vec f = vec_from_words(t);
    const vec_bits bits = vec_words_of(f), exponent = vec_words_right(bits, 23);
    const vec_bits fraction = vec_words_and(bits, vec_words_set(0x007fffff));
    const vec mantissa = vec_as_floats(vec_words_or(fraction, vec_words_of(vec_set(1.0f))));
    const vec u = vec_add(vec_mul(vec_choose(slope, exponent), mantissa), vec_choose(offset, exponent));
    return vec_if_above(f, vec_zero(), u);
}

VEC_INLINE void load(float *x, const uint8_t *codes, const float *scales, size_t n,
                     const struct lsk_dynamic8 *map, bool is_signed)
{
    const vec slope = turned(map->slope), offset = turned(map->offset);

    for (size_t i = 0; i < n; i += VEC_LANES) {
        const vec scale = vec_set(scales[i / LSK_DYNAMIC8_BLOCK]);
        const bool whole = i + VEC_LANES <= n;
        uint8_t part[VEC_LANES] = { 0 };
        if (!whole)
            memcpy(part, codes + i, n - i);
        const vec_bits code =
            is_signed ? vec_load_i8(whole ? codes + i : part) : vec_load_u8(whole ? codes + i : part);
        const vec signs = vec_as_floats(code); /* the sign bit of the word is that of the code */
        vec u = magnitude(is_signed ? vec_words_abs(code) : code, slope, offset);
        if (is_signed)
            u = vec_copy_sign(u, signs);
        const vec v = vec_mul(scale, u);
        if (whole)
            vec_store(x + i, v);
        else
            vec_store_part(x + i, v, n - i);
    }
}

/* The tables of the way back. */
struct encoder {
    vec inverse, start, last, threshold[8];
};

VEC_INLINE struct encoder make_encoder(const struct lsk_dynamic8 *map)
{
    struct encoder c;
    c.inverse = vec_load_table(map->inverse);
    c.start = vec_load_table(map->start);
    c.last = vec_load_table(map->last);
    for (size_t e = 0; e < 8; e++)
        c.threshold[e] = vec_set(map->threshold[e]);
    return c;
}

/* The magnitudes of the codes nearest to u. */
VEC_INLINE vec nearest(const struct encoder *c, vec u)
{
    vec_bits e = vec_words_set(0);

    VEC_UNROLL
    for (size_t j = 1; j < 8; j++)
        e = vec_count_above(e, u, c->threshold[j]);
    const vec t = vec_add(vec_mul(u, vec_choose(c->inverse, e)), vec_choose(c->start, e));
    const vec cut = vec_min(vec_max(t, vec_set(1.0f)), vec_choose(c->last, e));
    return vec_if_above(u, c->threshold[0], cut);
}

/* The greatest magnitude of n <= LSK_DYNAMIC8_BLOCK elements times map->unit; NaN when one is not finite. */
static float scale_of(const float *x, size_t n, const struct lsk_dynamic8 *map)
{
    vec top = vec_zero(), odd = vec_zero();

    for (size_t i = 0; i < n; i += VEC_LANES) {
        const vec v = i + VEC_LANES <= n ? vec_load(x + i) : vec_load_part(x + i, n - i);
        top = vec_max(top, vec_abs(v));
        odd = vec_fma(v, vec_zero(), odd); /* 0, or NaN from the first infinity or NaN on */
    }
    if (isnan(vec_sum(odd)))
        return NAN;
    const float max = vec_greatest(top);
    return max < LSK_DYNAMIC8_LEAST ? 0.0f : max * map->unit;
}

VEC_INLINE void store(uint8_t *codes, float *scales, const float *x, size_t n, const struct lsk_dynamic8 *map,
                      bool is_signed)
{
    const struct encoder c = make_encoder(map);
    vec inverse = vec_zero();

    for (size_t i = 0; i < n; i += VEC_LANES) {
        const size_t left = n - i;
        if (i % LSK_DYNAMIC8_BLOCK == 0) {
            const float scale = scale_of(x + i, left < LSK_DYNAMIC8_BLOCK ? left : LSK_DYNAMIC8_BLOCK, map);
            scales[i / LSK_DYNAMIC8_BLOCK] = scale;
            inverse = vec_set(scale == 0.0f ? 0.0f : 1.0f / scale);
        }
        const vec v = left >= VEC_LANES ? vec_load(x + i) : vec_load_part(x + i, left);
        const vec t = nearest(&c, vec_mul(vec_abs(v), inverse));
        const vec_bits code = vec_truncate(is_signed ? vec_copy_sign(t, v) : t);
        if (left >= VEC_LANES) {
            vec_store_u8(codes + i, code);
        } else {
            uint8_t part[VEC_LANES];
            vec_store_u8(part, code);
            memcpy(codes + i, part, left);
        }
    }
}

void NAME(dynamic8_load)(float *x, const uint8_t *codes, const float *scales, size_t n)
{
    load(x, codes, scales, n, &lsk_dynamic8_signed, true);
}

void NAME(dynamic8u_load)(float *x, const uint8_t *codes, const float *scales, size_t n)
{
    load(x, codes, scales, n, &lsk_dynamic8_unsigned, false);
}

void NAME(dynamic8_store)(uint8_t *codes, float *scales, const float *x, size_t n)
{
    store(codes, scales, x, n, &lsk_dynamic8_signed, true);
}

void NAME(dynamic8u_store)(uint8_t *codes, float *scales, const float *x, size_t n)
{
    store(codes, scales, x, n, &lsk_dynamic8_unsigned, false);
}
