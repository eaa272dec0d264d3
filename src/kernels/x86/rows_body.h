/*
 * Row operations for any width of vectors. The includer defines NAME(x), the name of the function
 * of operation x. What is left of a row after whole vectors goes through a buffer of one vector.
 */
/* Four sums: one chain of additions would wait for each of them. */
static float inverse_rms(const float *x, size_t n, float eps)
{
    vec sum[4] = { vec_zero(), vec_zero(), vec_zero(), vec_zero() };
    size_t i = 0;

    for (; i + 4 * VEC_LANES <= n; i += 4 * VEC_LANES) {
        VEC_UNROLL
        for (size_t j = 0; j < 4; j++) {
            const vec v = vec_load(x + i + j * VEC_LANES);
            sum[j] = vec_fma(v, v, sum[j]);
        }
    }
    for (; i < n; i += VEC_LANES) {
        const vec v = i + VEC_LANES <= n ? vec_load(x + i) : vec_load_part(x + i, n - i);
        sum[0] = vec_fma(v, v, sum[0]);
    }
    const float total = vec_sum(vec_add(vec_add(sum[0], sum[1]), vec_add(sum[2], sum[3])));
    return 1.0f / sqrtf(total / (float)n + eps);
}

void NAME(rmsnorm)(float *y, const float *x, const float *gain, size_t n, float eps)
{
    const vec inv = vec_set(inverse_rms(x, n, eps));
    size_t i = 0;

    for (; i + VEC_LANES <= n; i += VEC_LANES)
        vec_store(y + i, vec_mul(vec_mul(vec_load(x + i), inv), vec_load(gain + i)));
    if (i < n)
        vec_store_part(
            y + i, vec_mul(vec_mul(vec_load_part(x + i, n - i), inv), vec_load_part(gain + i, n - i)), n - i);
}

void NAME(rmsnorm_add)(float *y, const float *x, const float *gain, size_t n, float eps)
{
    const vec inv = vec_set(inverse_rms(x, n, eps));
    size_t i = 0;

    for (; i + VEC_LANES <= n; i += VEC_LANES)
        vec_store(y + i, vec_fma(vec_mul(vec_load(x + i), inv), vec_load(gain + i), vec_load(y + i)));
    if (i < n) {
        const vec v = vec_mul(vec_load_part(x + i, n - i), inv);
        vec_store_part(y + i, vec_fma(v, vec_load_part(gain + i, n - i), vec_load_part(y + i, n - i)), n - i);
    }
}

VEC_INLINE vec silu(vec x)
{
    return vec_over_one_plus_exp2(x, vec_mul(x, vec_set(-VEC_LOG2_E)));
}

/* (1 + tanh u) / 2 = 1 / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
VEC_INLINE vec gelu(vec x)
{
    const vec square = vec_mul(x, x);
    const vec u = vec_mul(x, vec_fma(square, vec_set(0.044715f), vec_set(1.0f)));
    return vec_over_one_plus_exp2(x, vec_mul(u, vec_set(-2.0f * 0.79788456080286535588f * VEC_LOG2_E)));
}

void NAME(glu_silu)(float *y, const float *gate, const float *up, size_t n)
{
    size_t i = 0;

    for (; i + VEC_LANES <= n; i += VEC_LANES)
        vec_store(y + i, vec_mul(silu(vec_load(gate + i)), vec_load(up + i)));
    if (i < n)
        vec_store_part(y + i, vec_mul(silu(vec_load_part(gate + i, n - i)), vec_load_part(up + i, n - i)),
                       n - i);
}

void NAME(glu_gelu)(float *y, const float *gate, const float *up, size_t n)
{
    size_t i = 0;

    for (; i + VEC_LANES <= n; i += VEC_LANES)
        vec_store(y + i, vec_mul(gelu(vec_load(gate + i)), vec_load(up + i)));
    if (i < n)
        vec_store_part(y + i, vec_mul(gelu(vec_load_part(gate + i, n - i)), vec_load_part(up + i, n - i)),
                       n - i);
}

/*
 * Cosine and sine in double, good to fp32 (2e-9), written so that the loop vectorises. With
 * n = the nearest integer to angle * 2 / pi, r = angle - n * pi / 2 is formed with two fused
 * products; the first is exact but for the last bit of r. Taylor polynomials on |r| <= pi / 4;
 * the quadrant n mod 4 is in the lowest bits of what rounding by a large constant leaves.
 */
void NAME(rope_angles)(float *cosine, float *sine, const double *inv_freq, size_t n, double pos,
                       double mscale)
{
    const double half_pi = 0x1.921fb54442d18p+0, half_pi_low = 0x1.1a62633145c07p-54, round = 0x1.8p52;

    for (size_t i = 0; i < n; i++) {
        const double angle = pos * inv_freq[i];
        const double shifted = angle * 0x1.45f306dc9c883p-1 + round;
        const double quarters = shifted - round;
        const double r = fma(quarters, -half_pi_low, fma(quarters, -half_pi, angle)), r2 = r * r;
        const double s =
            r + r * r2 * (-1.0 / 6 + r2 * (1.0 / 120 + r2 * (-1.0 / 5040 + r2 * (1.0 / 362880))));
        const double c =
            1.0 +
            r2 * (-0.5 + r2 * (1.0 / 24 + r2 * (-1.0 / 720 + r2 * (1.0 / 40320 - r2 * (1.0 / 3628800)))));
        uint64_t quadrant;
        memcpy(&quadrant, &shifted, sizeof quadrant);
        const double cos_sign = (quadrant + 1) & 2 ? -mscale : mscale;
        const double sin_sign = quadrant & 2 ? -mscale : mscale;
        cosine[i] = (float)(cos_sign * (quadrant & 1 ? s : c));
        sine[i] = (float)(sin_sign * (quadrant & 1 ? c : s));
    }
}

/* (a c - b s, b c + a s). What rounding takes from the product by s is added again, so that the result is
 * that of the products in double but for its last bit: queries and keys are what all later rounding starts
 * from. */
static inline void rotate(vec *a, vec *b, vec c, vec s)
{
    const vec minus_bs = vec_sub(vec_zero(), vec_mul(*b, s)), as = vec_mul(*a, s);
    const vec bs_lost = vec_fma(*b, s, minus_bs), as_lost = vec_fma(*a, s, vec_sub(vec_zero(), as));
    const vec first = vec_sub(vec_fma(*a, c, minus_bs), bs_lost);
    *b = vec_add(vec_fma(*b, c, as), as_lost);
    *a = first;
}

void NAME(rope)(float *x, const float *cosine, const float *sine, size_t n, bool interleaved)
{
    /* Brought to halves first, so that both pairings round alike: the same weights give the same bits
     * whichever way their file pairs them. */
    if (interleaved) {
        float odd[LSK_ROPE_MAX];
        for (size_t j = 0; j < n; j++)
            odd[j] = x[2 * j + 1];
        for (size_t j = 0; j < n; j++)
            x[j] = x[2 * j];
        memcpy(x + n, odd, n * sizeof *odd);
    }
    for (size_t i = 0; i < n; i += VEC_LANES) {
        const size_t left = n - i;
        if (left >= VEC_LANES) {
            vec a = vec_load(x + i), b = vec_load(x + n + i);
            rotate(&a, &b, vec_load(cosine + i), vec_load(sine + i));
            vec_store(x + i, a);
            vec_store(x + n + i, b);
        } else {
            vec a = vec_load_part(x + i, left), b = vec_load_part(x + n + i, left);
            rotate(&a, &b, vec_load_part(cosine + i, left), vec_load_part(sine + i, left));
            vec_store_part(x + i, a, left);
            vec_store_part(x + n + i, b, left);
        }
    }
}

/* Terms in fp32 (2 ulp), sums of 16 of them in fp32 lanes, the rest in double. */
double NAME(logsumexp)(const float *x, size_t n)
{
    const size_t whole = n / VEC_LANES * VEC_LANES;
    vec top = vec_set(-INFINITY);
    float max = -INFINITY;
    double total = 0.0;

    for (size_t i = 0; i < whole; i += VEC_LANES)
        top = vec_max(top, vec_load(x + i));
    if (whole > 0)
        max = vec_greatest(top);
    for (size_t i = whole; i < n; i++)
        max = x[i] > max ? x[i] : max;
    if (isinf(max))
        return (double)max;
    for (size_t i = 0; i < whole;) {
        const size_t end = i + 16 * VEC_LANES < whole ? i + 16 * VEC_LANES : whole;
        vec sum = vec_zero();
        for (; i < end; i += VEC_LANES)
            sum =
                vec_add(sum, vec_exp2(vec_mul(vec_sub(vec_load(x + i), vec_set(max)), vec_set(VEC_LOG2_E))));
        total += vec_sum_double(sum);
    }
    for (size_t i = whole; i < n; i++)
        total += exp((double)x[i] - (double)max);
    return (double)max + log(total);
}

/* Columns c .. of at most 4 vectors; n_cols: those left. */
VEC_INLINE void exp2_columns_block(float *sums, const float *z, size_t ld, const float *base, size_t n_rows,
                                   size_t n_vecs, size_t n_cols)
{
    vec sum[4];

    VEC_UNROLL
    for (size_t j = 0; j < n_vecs; j++)
        sum[j] = vec_zero();
    for (size_t r = 0; r < n_rows; r++) {
        const vec b = vec_set(base[r]);
        VEC_UNROLL
        for (size_t j = 0; j < n_vecs; j++) {
            const float *at = z + r * ld + j * VEC_LANES;
            const vec x = n_cols < VEC_LANES ? vec_load_part(at, n_cols) : vec_load(at);
            sum[j] = vec_add(sum[j], vec_exp2_short(vec_sub(x, b)));
        }
    }
    VEC_UNROLL
    for (size_t j = 0; j < n_vecs; j++) {
        float *at = sums + j * VEC_LANES;
        if (n_cols < VEC_LANES)
            vec_store_part(at, vec_add(vec_load_part(at, n_cols), sum[j]), n_cols);
        else
            vec_store(at, vec_add(vec_load(at), sum[j]));
    }
}

void NAME(exp2_columns)(float *sums, const float *z, size_t ld, const float *base, size_t n_rows,
                        size_t n_cols)
{
    size_t c = 0;

    for (; c + 4 * VEC_LANES <= n_cols; c += 4 * VEC_LANES)
        exp2_columns_block(sums + c, z + c, ld, base, n_rows, 4, 4 * VEC_LANES);
    for (; c < n_cols; c += VEC_LANES)
        exp2_columns_block(sums + c, z + c, ld, base, n_rows, 1, n_cols - c);
}

/* Whole numbers in the order of the floats: the bits, and of negative ones all but the sign turned over. */
VEC_INLINE vec_bits ranks(vec x)
{
    const vec_bits w = vec_words_of(x), sign = vec_words_right(w, 31);
    return vec_words_xor(w, vec_words_mul(sign, vec_words_set(INT32_MAX)));
}

/* How many of the ranks are not below `least`. The last, part of a vector, are in `rest`. */
static size_t count_from(const float *rank, size_t whole, vec_bits rest, int64_t least)
{
    const vec_bits below = vec_words_set((uint32_t)(least - 1));
    vec_bits count[4] = { vec_words_set(0), vec_words_set(0), vec_words_set(0), vec_words_set(0) };
    size_t i = 0;

    for (; i + 4 * VEC_LANES <= whole; i += 4 * VEC_LANES) {
        VEC_UNROLL
        for (size_t j = 0; j < 4; j++)
            count[j] = vec_count_words_above(count[j], vec_words(rank + i + j * VEC_LANES), below);
    }
    for (; i < whole; i += VEC_LANES)
        count[0] = vec_count_words_above(count[0], vec_words(rank + i), below);
    count[1] = vec_count_words_above(count[1], rest, below);
    return vec_words_total(
        vec_words_add(vec_words_add(count[0], count[1]), vec_words_add(count[2], count[3])));
}

/* The places of those of a vector that are not below `least`, without the first *skip that are equal to it.
 */
VEC_INLINE size_t put_places(uint32_t *at, vec_bits rank, uint32_t lanes, size_t first, vec_bits least,
                             size_t *skip)
{
    uint32_t chosen = lanes & ~vec_lanes_above(least, rank);

    if (*skip > 0)
        for (uint32_t equal = chosen & ~vec_lanes_above(rank, least); *skip > 0 && equal != 0; --*skip) {
            chosen &= ~(equal & -equal);
            equal &= equal - 1;
        }
    return vec_put_words(at, vec_words_add(vec_words_count(), vec_words_set((uint32_t)first)), chosen);
}

/* Halves the numbers among which the k-th greatest must be, until they tell the k greatest from the others or
 * there is one left. */
void NAME(choose)(uint32_t *at, float *x, size_t n, size_t k)
{
    const size_t whole = n / VEC_LANES * VEC_LANES;
    const uint32_t left = (UINT32_C(1) << (n - whole)) - 1;
    int64_t least = INT32_MIN, most = INT32_MAX;
    size_t some = n, chosen = 0; /* some: not below least */
    vec_bits rest = vec_words_set(1u << 31);

    for (size_t i = 0; i < whole; i += VEC_LANES)
        vec_store(x + i, vec_as_floats(ranks(vec_load(x + i))));
    if (left != 0) {
        uint32_t lane[VEC_LANES];
        vec_store_words(lane, ranks(vec_load_part(x + whole, n - whole)));
        for (size_t j = n - whole; j < VEC_LANES; j++)
            lane[j] = 1u << 31;
        rest = vec_words(lane);
    }
    while (least < most && some > k) {
        const int64_t middle = least + (most - least + 1) / 2;
        const size_t count = count_from(x, whole, rest, middle);
        if (count >= k) {
            least = middle;
            some = count;
        } else {
            most = middle - 1;
        }
    }
    size_t skip = some - k;
    const vec_bits threshold = vec_words_set((uint32_t)least);
    for (size_t i = 0; i < whole; i += VEC_LANES)
        chosen += put_places(at + chosen, vec_words(x + i), VEC_ALL_LANES, i, threshold, &skip);
    if (left != 0)
        put_places(at + chosen, rest, left, whole, threshold, &skip);
}
