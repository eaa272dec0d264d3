/*
 * Gradient of attention over slots of one page, for any width of vectors. The includer defines
 *
 *     NAME(x)     names of this instance
 *     ROWS, VECS  rows and vectors of the register block
 *     PAIRS       1 when operands are words of two bf16 numbers, 0 when they are floats
 *
 * All five products are sums over k of A(row, k) B(k, column): B is packed so that a vector holds
 * consecutive columns; A is read a word at a time, with strides, so that P and dZ serve as they are and
 * transposed. With PAIRS a word holds two consecutive k of its row or column:
 *
 *                A                            B                        sums go to
 *     Z    [row][d / 2]  q           [d / 2][slot]  keys               a strip of ROWS rows
 *     dP   [row][d / 2]  dout        [d / 2][slot]  values             a strip of ROWS rows
 *     dV   [row / 2][slot]  P        [row / 2][d]   dout               dv
 *     dK   [row / 2][slot]  dZ       [row / 2][d]   q                  dk
 *     dQ   [row][slot / 2]  dZ       [slot / 2][d]  keys               dq
 *
 * A block is BLOCK_ROWS rows by BLOCK_SLOTS slots: its P, its dZ and the operand they meet fit the
 * first-level cache together, the packed page the second. Queries are packed in units of log 2: P is
 * 2^(z - lse), and dK is multiplied by ln 2 when it is added. Sums e are formed from dout as it is packed:
 * dP - e of a row's slots then is what it would be for that dout, and cancels as it should.
 *
 * Rows that fill up the last strip have lse = +inf: their P and dZ are zero.
 */
#define BLOCK_ROWS  LSK_BACKWARD_ROWS
#define BLOCK_SLOTS LSK_BACKWARD_SLOTS
#if PAIRS
#define FIELDS          2
#define MULADD(b, x, c) vec_fma_pairs(b, x, c)
#else
#define FIELDS          1
#define MULADD(b, x, c) vec_fma(b, x, c)
#endif
/* Words of a row of packed queries: whole stores, and no two rows in one of them. */
#define ROW_WORDS(D) (((D) + FIELDS * VEC_LANES - 1) / (FIELDS * VEC_LANES) * VEC_LANES)

/* Operands of the page and of a block of rows, in words. */
struct NAME(operands) {
    float *k_columns, *v_columns;    /* [LSK_PAGE / BLOCK_SLOTS][D / FIELDS][BLOCK_SLOTS] */
    float *k_rows;                   /* [LSK_PAGE / FIELDS][D] */
    float *q, *dout;                 /* [BLOCK_ROWS][ROW_WORDS] */
    float *q_columns, *dout_columns; /* [BLOCK_ROWS / FIELDS][D]; without PAIRS they are q, dout */
    float *p, *dz;                   /* [BLOCK_ROWS / FIELDS][BLOCK_SLOTS] */
    float *dz_rows;                  /* [BLOCK_ROWS][BLOCK_SLOTS / FIELDS]; without PAIRS it is dz */
    float *lse, *e; /* [BLOCK_ROWS]; lse in units of log 2, e from the dout that is multiplied */
    uint16_t lo[BLOCK_ROWS], hi[BLOCK_ROWS];
};

static struct NAME(operands) NAME(layout)(const struct lsk_attn_backward *a)
{
    const size_t page = LSK_PAGE / FIELDS * a->D, rows = BLOCK_ROWS * ROW_WORDS(a->D);
    const size_t block = BLOCK_ROWS / FIELDS * BLOCK_SLOTS;
    struct NAME(operands) o;
    float *next = a->work;

    o.k_columns = next;
    o.v_columns = next += page;
    o.k_rows = next += page;
    o.q = next += page;
    o.dout = next += rows;
    next += rows;
    o.q_columns = o.q;
    o.dout_columns = o.dout;
#if PAIRS
    o.q_columns = next;
    o.dout_columns = next += rows;
    next += rows;
#endif
    o.p = next;
    o.dz = next += block;
    next += block;
    o.dz_rows = o.dz;
#if PAIRS
    o.dz_rows = next;
    next += block;
#endif
    o.lse = next;
    o.e = next + BLOCK_ROWS;
    return o;
}

/* ---- products ------------------------------------------------------------------------ */

/* sum[r][j] of n_rows rows and n_vecs vectors of columns; both are constants at every call. */
VEC_INLINE void NAME(sums)(vec (*sum)[VECS], const float *a, size_t a_row, size_t a_k, const float *b,
                           size_t b_k, size_t n_k, size_t n_rows, size_t n_vecs)
{
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t j = 0; j < n_vecs; j++)
        sum[r][j] = vec_zero();
    for (size_t k = 0; k < n_k; k++) {
        vec x[VECS];
        VEC_UNROLL
        for (size_t j = 0; j < n_vecs; j++)
            x[j] = vec_load(b + j * VEC_LANES);
        VEC_UNROLL
        for (size_t r = 0; r < n_rows; r++) {
            const vec y = vec_set(a[r * a_row]);
            VEC_UNROLL
            for (size_t j = 0; j < n_vecs; j++)
                sum[r][j] = MULADD(y, x[j], sum[r][j]);
        }
        a += a_k;
        b += b_k;
    }
}

/* A product that is added to c, times alpha. */
struct NAME(product) {
    float *c;
    size_t ldc;
    float alpha;
    const float *a;
    size_t a_row, a_k;
    const float *b; /* [n_k][n_cols] */
    size_t n_rows, n_cols, n_k;
};

VEC_INLINE void NAME(add_block)(const struct NAME(product) * p, size_t row, size_t col, size_t a_row,
                                size_t a_k, size_t n_rows, size_t n_vecs)
{
    vec sum[ROWS][VECS];
    float *c = p->c + row * p->ldc + col;

    NAME(sums)(sum, p->a + row * a_row, a_row, a_k, p->b + col, p->n_cols, p->n_k, n_rows, n_vecs);
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t j = 0; j < n_vecs; j++) {
        float *at = c + r * p->ldc + j * VEC_LANES;
        vec_store(at, vec_fma(vec_set(p->alpha), sum[r][j], vec_load(at)));
    }
}

/* One strip of columns. The strides of A are constants at every call. */
VEC_INLINE void NAME(add_columns)(const struct NAME(product) * p, size_t col, size_t a_row, size_t a_k,
                                  size_t n_vecs)
{
    size_t row = 0;

    for (; row + ROWS <= p->n_rows; row += ROWS)
        NAME(add_block)(p, row, col, a_row, a_k, ROWS, n_vecs);
    switch (p->n_rows - row) {
    case 1:
        NAME(add_block)(p, row, col, a_row, a_k, 1, n_vecs);
        break;
    case 2:
        NAME(add_block)(p, row, col, a_row, a_k, 2, n_vecs);
        break;
    case 3:
        NAME(add_block)(p, row, col, a_row, a_k, 3, n_vecs);
        break;
    case 4:
        NAME(add_block)(p, row, col, a_row, a_k, 4, n_vecs);
        break;
    case 5:
        NAME(add_block)(p, row, col, a_row, a_k, 5, n_vecs);
        break;
    default:
        break;
    }
}

VEC_INLINE void NAME(add_product)(const struct NAME(product) * p, size_t a_row, size_t a_k)
{
    size_t col = 0;

    for (; col + VECS * VEC_LANES <= p->n_cols; col += VECS * VEC_LANES)
        NAME(add_columns)(p, col, a_row, a_k, VECS);
    for (; col < p->n_cols; col += VEC_LANES)
        NAME(add_columns)(p, col, a_row, a_k, 1);
}

/* A is [k][row]: P and dZ transposed. */
static void NAME(add_transposed)(const struct NAME(product) * p)
{
    NAME(add_product)(p, 1, BLOCK_SLOTS);
}

/* A is [row][k]: dZ. */
static void NAME(add_straight)(const struct NAME(product) * p)
{
    NAME(add_product)(p, BLOCK_SLOTS / FIELDS, 1);
}

/* z[r][slot] of a strip: a [ROWS][ROW_WORDS], b [D / FIELDS][BLOCK_SLOTS]. */
static void NAME(strip)(float (*z)[BLOCK_SLOTS], const float *a, const float *b, size_t D)
{
    for (size_t s = 0; s < BLOCK_SLOTS; s += VECS * VEC_LANES) {
        vec sum[ROWS][VECS];
        NAME(sums)(sum, a, ROW_WORDS(D), 1, b + s, BLOCK_SLOTS, D / FIELDS, ROWS, VECS);
        VEC_UNROLL
        for (size_t r = 0; r < ROWS; r++)
            VEC_UNROLL
        for (size_t j = 0; j < VECS; j++)
            vec_store(z[r] + s + j * VEC_LANES, sum[r][j]);
    }
}

/* ---- rows ------------------------------------------------------------------------------ */

/* Vector of a row at p, times scale; NULL is a row of zeros. */
static inline vec NAME(scaled)(const float *p, size_t d, float scale)
{
    return p ? vec_mul(vec_load(p + d), vec_set(scale)) : vec_zero();
}

/* Rows r and, with PAIRS, r + 1 of an operand, of which NULL is zeros. dots[i], unless NULL: sums of the
 * packed numbers times those of y[i]. */
VEC_INLINE void NAME(pack_row)(float *rows, float *columns, size_t r, const float *const x[FIELDS], size_t D,
                               float scale, float *dots, const float *const y[FIELDS])
{
    vec sum[FIELDS];

    for (size_t i = 0; i < FIELDS; i++)
        sum[i] = vec_zero();
#if PAIRS
    float *pair = columns + r / 2 * D;
    for (size_t d = 0; d < D; d += 2 * VEC_LANES) {
        const bool half = d + VEC_LANES == D;
        vec_bits both[2];
        for (size_t i = 0; i < 2; i++) {
            both[i] = vec_pack_bf16(NAME(scaled)(x[i], d, scale),
                                    half ? vec_zero() : NAME(scaled)(x[i], d + VEC_LANES, scale));
            vec_store_words(rows + (r + i) * ROW_WORDS(D) + d / 2, both[i]);
            if (dots && y[i])
                sum[i] = vec_fma(vec_bf16_first(both[i]), vec_load(y[i] + d), sum[i]);
            if (dots && y[i] && !half)
                sum[i] = vec_fma(vec_bf16_last(both[i]), vec_load(y[i] + d + VEC_LANES), sum[i]);
        }
        vec_store_words(pair + d, vec_pairs_low(both[0], both[1]));
        if (!half)
            vec_store_words(pair + d + VEC_LANES, vec_pairs_high(both[0], both[1]));
    }
#else
    (void)columns;
    for (size_t d = 0; d < D; d += VEC_LANES) {
        const vec packed = NAME(scaled)(x[0], d, scale);
        vec_store(rows + r * D + d, packed);
        if (dots && y[0])
            sum[0] = vec_fma(packed, vec_load(y[0] + d), sum[0]);
    }
#endif
    for (size_t i = 0; i < FIELDS && dots; i++)
        dots[i] = vec_sum(sum[i]);
}

/* Rows first .. first + n - 1 and what fills up their last strip. */
static void NAME(pack_rows)(const struct lsk_attn_backward *a, struct NAME(operands) * o, size_t first,
                            size_t n)
{
    const float log2e = 1.4426950408889634f;
    const float units = (float)((double)a->scale * 1.4426950408889634);
    /* A strip has an even number of rows. */
    const size_t padded = (n + ROWS - 1) / ROWS * ROWS;

    for (size_t r = 0; r < padded; r += FIELDS) {
        const float *q[FIELDS], *out[FIELDS], *dout[FIELDS];
        for (size_t i = 0; i < FIELDS; i++) {
            const bool real = r + i < n;
            const size_t t = (first + r + i) / a->group, j = (first + r + i) % a->group;
            const float lse = real ? a->lse[t * a->ldl + j] : -INFINITY;
            q[i] = real ? a->q + t * a->ldq + j * a->D : NULL;
            out[i] = real ? a->out + t * a->ldo + j * a->D : NULL;
            dout[i] = real ? a->dout + t * a->lddo + j * a->D : NULL;
            o->lse[r + i] = lse > -INFINITY ? lse * log2e : INFINITY;
            o->lo[r + i] = real ? a->lo[t] : 0;
            o->hi[r + i] = real ? a->hi[t] : 0;
        }
        NAME(pack_row)(o->q, o->q_columns, r, q, a->D, units, NULL, NULL);
        NAME(pack_row)(o->dout, o->dout_columns, r, dout, a->D, 1.0f, o->e + r, out);
    }
}

/* ---- weights ------------------------------------------------------------------------------ */

static size_t NAME(clamp)(size_t s, size_t least, size_t most)
{
    return s < least ? least : s > most ? most : s;
}

/* Scores of slots that a row does not see become -inf. */
static void NAME(mask)(const struct NAME(operands) * o, float (*z)[BLOCK_SLOTS], size_t row, size_t slot,
                       size_t from, size_t to)
{
    for (size_t r = 0; r < ROWS; r++) {
        const size_t lo = NAME(clamp)(o->lo[row + r], from, to), hi = NAME(clamp)(o->hi[row + r], lo, to);
        for (size_t s = 0; s < BLOCK_SLOTS; s++)
            if (slot + s < lo || slot + s >= hi)
                z[r][s] = -INFINITY;
    }
}

/* P = 2^(z - lse), dZ = P (dP - e) of a strip. */
static void NAME(weights)(const struct NAME(operands) * o, float (*z)[BLOCK_SLOTS], float (*dp)[BLOCK_SLOTS],
                          size_t row)
{
    for (size_t r = 0; r < ROWS; r += FIELDS) {
        const size_t at = (row + r) / FIELDS * BLOCK_SLOTS;
        for (size_t s = 0; s < BLOCK_SLOTS; s += FIELDS * VEC_LANES) {
            vec p[FIELDS][FIELDS], dz[FIELDS][FIELDS];
            VEC_UNROLL
            for (size_t i = 0; i < FIELDS; i++)
                VEC_UNROLL
            for (size_t j = 0; j < FIELDS; j++) {
                const vec score = vec_load(z[r + i] + s + j * VEC_LANES);
                p[i][j] = vec_exp2(vec_sub(score, vec_set(o->lse[row + r + i])));
                dz[i][j] = vec_mul(
                    p[i][j], vec_sub(vec_load(dp[r + i] + s + j * VEC_LANES), vec_set(o->e[row + r + i])));
            }
#if PAIRS
            vec_bits p_rows[2], dz_rows[2];
            for (size_t i = 0; i < 2; i++) {
                p_rows[i] = vec_pack_bf16(p[i][0], p[i][1]);
                dz_rows[i] = vec_pack_bf16(dz[i][0], dz[i][1]);
                vec_store_words(o->dz_rows + (row + r + i) * (BLOCK_SLOTS / 2) + s / 2, dz_rows[i]);
            }
            vec_store_words(o->p + at + s, vec_pairs_low(p_rows[0], p_rows[1]));
            vec_store_words(o->p + at + s + VEC_LANES, vec_pairs_high(p_rows[0], p_rows[1]));
            vec_store_words(o->dz + at + s, vec_pairs_low(dz_rows[0], dz_rows[1]));
            vec_store_words(o->dz + at + s + VEC_LANES, vec_pairs_high(dz_rows[0], dz_rows[1]));
#else
            vec_store(o->p + at + s, p[0][0]);
            vec_store(o->dz + at + s, dz[0][0]);
#endif
        }
    }
}

/* ---- blocks --------------------------------------------------------------------------------- */

/* What is seen of a block: slots from .. to - 1 by rows row .. end - 1, of which the first begins a strip;
 * all: every row sees every slot. */
struct NAME(seen) {
    size_t from, to, row, end;
    bool all;
};

static struct NAME(seen)
    NAME(seen_part)(const struct lsk_attn_backward *a, const struct NAME(operands) * o, size_t n, size_t slot)
{
    const size_t block_end = slot + BLOCK_SLOTS;
    const size_t from = slot > a->from ? slot : a->from, to = block_end < a->to ? block_end : a->to;
    struct NAME(seen) seen = { .from = to, .to = from, .row = n, .all = from == slot && to == block_end };

    for (size_t r = 0; r < n; r++) {
        const size_t lo = NAME(clamp)(o->lo[r], from, to), hi = NAME(clamp)(o->hi[r], from, to);
        seen.all &= lo == slot && hi == block_end;
        if (lo >= hi)
            continue;
        seen.from = lo < seen.from ? lo : seen.from;
        seen.to = hi > seen.to ? hi : seen.to;
        seen.row = r < seen.row ? r / ROWS * ROWS : seen.row;
        seen.end = r + 1;
    }
    return seen;
}

/* All five products of packed rows, of which n are real and the first is row `first`, with one block of
 * slots. At the diagonal and the edge of the window only the part that is seen is multiplied. */
static void NAME(block)(const struct lsk_attn_backward *a, const struct NAME(operands) * o, size_t first,
                        size_t n, size_t slot)
{
    const size_t D = a->D, columns = slot / BLOCK_SLOTS * (D / FIELDS) * BLOCK_SLOTS;
    const struct NAME(seen) seen = NAME(seen_part)(a, o, n, slot);

    for (size_t row = seen.row; row < seen.end; row += ROWS) {
        float z[ROWS][BLOCK_SLOTS], dp[ROWS][BLOCK_SLOTS];
        NAME(strip)(z, o->q + row * ROW_WORDS(D), o->k_columns + columns, D);
        NAME(strip)(dp, o->dout + row * ROW_WORDS(D), o->v_columns + columns, D);
        if (!seen.all)
            NAME(mask)(o, z, row, slot, seen.from, seen.to);
        NAME(weights)(o, z, dp, row);
    }
    if (seen.row >= seen.end)
        return;
    const size_t pair = seen.row / FIELDS, word = (seen.from - slot) / FIELDS;
    struct NAME(product) p = { .n_rows = seen.to - seen.from, .n_cols = D, .ldc = a->ldkv };
    p.n_k = (seen.end - seen.row + FIELDS - 1) / FIELDS;
    p.c = a->dv + (seen.from - a->from) * a->ldkv;
    p.alpha = 1.0f;
    p.a = o->p + pair * BLOCK_SLOTS + (seen.from - slot);
    p.b = o->dout_columns + pair * D;
    NAME(add_transposed)(&p);
    p.c = a->dk + (seen.from - a->from) * a->ldkv;
    p.alpha = 0.69314718055994531f;
    p.a = o->dz + pair * BLOCK_SLOTS + (seen.from - slot);
    p.b = o->q_columns + pair * D;
    NAME(add_transposed)(&p);
    p.c = a->dq + (first + seen.row) * D;
    p.ldc = D;
    p.alpha = a->scale;
    p.a = o->dz_rows + seen.row * (BLOCK_SLOTS / FIELDS) + word;
    p.b = o->k_rows + (slot / FIELDS + word) * D;
    p.n_rows = seen.end - seen.row;
    p.n_k = (seen.to - slot + FIELDS - 1) / FIELDS - word;
    NAME(add_straight)(&p);
}

/* pack: fills k_columns, v_columns, k_rows for blocks of slots from .. to - 1. */
VEC_INLINE void NAME(backward)(const struct lsk_attn_backward *a,
                               void (*pack)(const struct NAME(operands) *, const void *head, size_t D,
                                            size_t from, size_t to))
{
    struct NAME(operands) o = NAME(layout)(a);
    const size_t from = a->from / BLOCK_SLOTS * BLOCK_SLOTS, n_rows = a->n_tokens * a->group;
    const size_t to = (a->to + BLOCK_SLOTS - 1) / BLOCK_SLOTS * BLOCK_SLOTS;

    pack(&o, a->head, a->D, from, to);
    for (size_t first = 0, n; first < n_rows; first += n) {
        n = n_rows - first < BLOCK_ROWS ? n_rows - first : BLOCK_ROWS;
        NAME(pack_rows)(a, &o, first, n);
        for (size_t slot = from; slot < to; slot += BLOCK_SLOTS)
            NAME(block)(a, &o, first, n, slot);
    }
}

#undef BLOCK_ROWS
#undef BLOCK_SLOTS
#undef FIELDS
#undef MULADD
#undef ROW_WORDS
#undef PAIRS
#undef NAME
