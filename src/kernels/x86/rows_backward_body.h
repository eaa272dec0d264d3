/*
 * Gradients of row operations for any width of vectors. The includer defines NAME(x), the name of the
 * function of operation x. What is left of a row after whole vectors goes through a buffer of one vector.
 */

/* The sums of x^2 and of dy gain x, each in two chains: one would wait for each addition. */
static void norm_sums(float *square, float *c, const float *dy, const float *x, const float *gain, size_t n)
{
    vec s[2] = { vec_zero(), vec_zero() }, p[2] = { vec_zero(), vec_zero() };
    size_t i = 0;

    for (; i + 2 * VEC_LANES <= n; i += 2 * VEC_LANES) {
        VEC_UNROLL
        for (size_t j = 0; j < 2; j++) {
            const size_t at = i + j * VEC_LANES;
            const vec v = vec_load(x + at);
            s[j] = vec_fma(v, v, s[j]);
            p[j] = vec_fma(vec_mul(vec_load(dy + at), vec_load(gain + at)), v, p[j]);
        }
    }
    for (; i < n; i += VEC_LANES) {
        const bool whole = i + VEC_LANES <= n;
        const vec v = whole ? vec_load(x + i) : vec_load_part(x + i, n - i);
        const vec d = whole ? vec_load(dy + i) : vec_load_part(dy + i, n - i);
        const vec g = whole ? vec_load(gain + i) : vec_load_part(gain + i, n - i);
        s[0] = vec_fma(v, v, s[0]);
        p[0] = vec_fma(vec_mul(d, g), v, p[0]);
    }
    *square = vec_sum(vec_add(s[0], s[1]));
    *c = vec_sum(vec_add(p[0], p[1]));
}

void NAME(rmsnorm_backward)(float *dx, float *dgain, const float *dy, const float *x, const float *gain,
                            size_t n, float eps, bool accumulate)
{
    float square, c;
    norm_sums(&square, &c, dy, x, gain, n);
    const float inv = 1.0f / sqrtf(square / (float)n + eps);
    const vec r = vec_set(inv), along = vec_set(-inv * inv * inv * c / (float)n);
    size_t i = 0;

    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        const vec v = vec_load(x + i), d = vec_mul(vec_load(dy + i), r);
        const vec start = accumulate ? vec_load(dx + i) : vec_zero();
        if (dgain)
            vec_store(dgain + i, vec_fma(d, v, vec_load(dgain + i)));
        vec_store(dx + i, vec_add(start, vec_fma(along, v, vec_mul(d, vec_load(gain + i)))));
    }
    if (i < n) {
        const size_t left = n - i;
        const vec v = vec_load_part(x + i, left), d = vec_mul(vec_load_part(dy + i, left), r);
        const vec start = accumulate ? vec_load_part(dx + i, left) : vec_zero();
        if (dgain)
            vec_store_part(dgain + i, vec_fma(d, v, vec_load_part(dgain + i, left)), left);
        const vec side = vec_mul(d, vec_load_part(gain + i, left));
        vec_store_part(dx + i, vec_add(start, vec_fma(along, v, side)), left);
    }
}

/* z <- du act'(z), u <- d act(z), du = d u. */
typedef void glu_fn(vec *z, vec *u, vec d);

VEC_INLINE void silu_backward(vec *z, vec *u, vec d)
{
    const vec one = vec_set(1.0f), x = *z;
    const vec s = vec_over_one_plus_exp2(one, vec_mul(x, vec_set(-VEC_LOG2_E)));
    *z = vec_mul(vec_mul(vec_mul(d, *u), s), vec_fma(x, vec_sub(one, s), one));
    *u = vec_mul(d, vec_mul(x, s));
}

/* s = (1 + tanh u) / 2 as in gelu of rows_body.h, s' = 2 s (1 - s) u'. */
VEC_INLINE void gelu_backward(vec *z, vec *u, vec d)
{
    const float root = 0.79788456080286535588f;
    const vec one = vec_set(1.0f), x = *z, square = vec_mul(x, x);
    const vec arg = vec_mul(x, vec_fma(square, vec_set(0.044715f), one));
    const vec s = vec_over_one_plus_exp2(one, vec_mul(arg, vec_set(-2.0f * root * VEC_LOG2_E)));
    const vec slope = vec_mul(vec_fma(square, vec_set(0.134145f), one), vec_set(2.0f * root));
    const vec ds = vec_mul(vec_mul(s, vec_sub(one, s)), slope);
    *z = vec_mul(vec_mul(d, *u), vec_fma(x, ds, s));
    *u = vec_mul(d, vec_mul(x, s));
}

VEC_INLINE void glu_backward(float *gate, float *up, const float *da, size_t n, glu_fn *fn)
{
    size_t i = 0;

    for (; i + VEC_LANES <= n; i += VEC_LANES) {
        vec z = vec_load(gate + i), u = vec_load(up + i);
        fn(&z, &u, vec_load(da + i));
        vec_store(gate + i, z);
        vec_store(up + i, u);
    }
    if (i < n) {
        vec z = vec_load_part(gate + i, n - i), u = vec_load_part(up + i, n - i);
        fn(&z, &u, vec_load_part(da + i, n - i));
        vec_store_part(gate + i, z, n - i);
        vec_store_part(up + i, u, n - i);
    }
}

void NAME(glu_silu_backward)(float *gate, float *up, const float *da, size_t n)
{
    glu_backward(gate, up, da, n, silu_backward);
}

void NAME(glu_gelu_backward)(float *gate, float *up, const float *da, size_t n)
{
    glu_backward(gate, up, da, n, gelu_backward);
}

/* ---- cross-entropy ------------------------------------------------------------------ */

static float greatest(const float *x, size_t n)
{
    vec top[4] = { vec_set(-INFINITY), vec_set(-INFINITY), vec_set(-INFINITY), vec_set(-INFINITY) };
    float max = -INFINITY;
    size_t i = 0;

    for (; i + 4 * VEC_LANES <= n; i += 4 * VEC_LANES) {
        VEC_UNROLL
        for (size_t j = 0; j < 4; j++)
            top[j] = vec_max(top[j], vec_load(x + i + j * VEC_LANES));
    }
    if (i > 0)
        max = vec_greatest(vec_max(vec_max(top[0], top[1]), vec_max(top[2], top[3])));
    for (; i < n; i++)
        max = x[i] > max ? x[i] : max;
    return max;
}

/* x <- exp(x - max); their sum, 16 to a lane in fp32 and the rest in double. */
static double exponentials(float *x, size_t n, float max)
{
    const size_t whole = n / VEC_LANES * VEC_LANES;
    double total = 0.0;

    for (size_t i = 0; i < whole;) {
        const size_t end = i + 16 * VEC_LANES < whole ? i + 16 * VEC_LANES : whole;
        vec sum = vec_zero();
        for (; i < end; i += VEC_LANES) {
            const vec e = vec_exp2(vec_mul(vec_sub(vec_load(x + i), vec_set(max)), vec_set(VEC_LOG2_E)));
            vec_store(x + i, e);
            sum = vec_add(sum, e);
        }
        total += vec_sum_double(sum);
    }
    for (size_t i = whole; i < n; i++) {
        const double e = exp((double)x[i] - (double)max);
        x[i] = (float)e;
        total += e;
    }
    return total;
}

/* The row is read from memory once: it stays in the second-level cache for the other passes. */
double NAME(cross_entropy)(float *x, size_t n, size_t target)
{
    const float max = greatest(x, n);
    const double below = (double)max - (double)x[target], total = exponentials(x, n, max);
    const vec inverse = vec_set((float)(1.0 / total));
    size_t i = 0;

    for (; i + VEC_LANES <= n; i += VEC_LANES)
        vec_store(x + i, vec_mul(vec_load(x + i), inverse));
    if (i < n)
        vec_store_part(x + i, vec_mul(vec_load_part(x + i, n - i), inverse), n - i);
    x[target] -= 1.0f;
    return below + log(total);
}
