/*
 * Attention over one page in fp32, for any width of vectors and any stored format. The
 * includer defines
 *
 *     NAME(x)            names of this instance
 *     ROWS, KEYS, DIMS   rows, key vectors, dimension vectors of the register blocks; KEYS vectors
 *                        are one tile, so that keys are read in the order in which they lie
 *     SPLIT              partial sums of a score, so that additions do not wait for each other
 *     FIELDS             numbers in a 32-bit word of the page (1, 2, 4)
 *     KEY(w, c), VALUE(w, c)  field c of a vector of words, as floats
 *     SCALES             1 when the format has a scale for each run of a key's and a value's dimensions
 *     PAIRS              1 when words of two bf16 are multiplied as they are: queries and
 *                        weights are packed into such words too, and KEY, VALUE do nothing
 *
 * Pass 1, scores of ROWS rows with the whole page, a tile of keys at a time:
 *
 *                    d, d + 1, ...
 *            k     | x x x x |       z[row][key] += q[row][d] * k[d][key]
 *     rows   q     | z z z z |
 *            q     | z z z z |       ROWS * KEYS * SPLIT sums in registers
 *
 * Pass 2, per row: greatest score, weights, their sum. Pass 3, like pass 1 with the weights
 * in place of the queries and dimensions in place of keys.
 *
 * Every sum runs over its terms in an order that the number of rows has no part in, which is why a
 * row has the same bits in any company. Slots are taken in groups of GROUP; those that a row
 * does not see have weight 0.
 *
 * The passes go over PASS slots at a time: where few rows wait for memory over few, so that a page is read
 * nearly in the order in which it lies. Each block asks for what lies AHEAD bytes behind what the pass reads;
 * at the end of the page this is the next one, which can be anywhere. It asks for the second-level cache: the
 * first level has too few places for lines on their way to keep memory busy.
 *
 * The same passes serve a list of scattered tiles: tile i stands in for slots LSK_TILE i .. of a page,
 * and blocks ask for what is read FAR steps later, a step being the keys or the values of a tile.
 */
#define GROUP 64
#define AHEAD 12288
#define FAR   5
#if PAIRS
#define PASS LSK_PAGE
#else
#define PASS GROUP
#endif
#define PASS_TILES (PASS / LSK_TILE)
#if PAIRS
#define STEPS           1 /* products with one word */
#define MULADD(b, x, c) vec_fma_pairs(b, x, c)
#else
#define STEPS           FIELDS
#define MULADD(b, x, c) vec_fma(b, x, c)
#endif
#define WORDS (SPLIT > STEPS ? SPLIT / STEPS : 1)
/* Dimension vectors of a block in pass 3: with scales no more than share one. */
#if SCALES && DIMS * VEC_LANES > LSK_KV_Q8_RUN
#define BLOCK (LSK_KV_Q8_RUN / VEC_LANES)
#else
#define BLOCK DIMS
#endif

/* A tile of keys or values: its page and first slot there, its bytes, and what to ask for meanwhile. */
struct NAME(place) {
    const unsigned char *head, *data, *ahead;
    size_t slot;
};

VEC_INLINE const unsigned char *NAME(keys_of)(const void *head, size_t tile, size_t D)
{
    return (const unsigned char *)head + lsk_kv_k_tile(tile * LSK_TILE) * (D / FIELDS * 4 * LSK_TILE);
}

VEC_INLINE const unsigned char *NAME(values_of)(const void *head, size_t tile, size_t D)
{
    return (const unsigned char *)head + lsk_kv_v_tile(tile * LSK_TILE) * (D / FIELDS * 4 * LSK_TILE);
}

/* What to ask for at step `step` of a page, in the order in which it lies. The last keys that a pass reads
 * lie behind nearly all of its values: hence PASS_TILES tiles further on than what has the place of the step,
 * and AHEAD bytes. */
VEC_INLINE const unsigned char *NAME(later)(const struct lsk_attn *a, size_t step)
{
    const size_t tile = a->D / FIELDS * 4 * LSK_TILE;
    const size_t at = (step + PASS_TILES) * tile + AHEAD, end = 2 * LSK_ATTN_TILES * tile;

    return at < end ? (const unsigned char *)a->head + at
                    : (const unsigned char *)(a->next ? a->next : a->head) + (at - end);
}

/* What is read at step `step` of a list. */
VEC_INLINE const unsigned char *NAME(list_step)(const struct lsk_attn_tile *tiles, size_t n_tiles,
                                                size_t step, size_t D)
{
    const size_t first = step / (2 * PASS_TILES) * PASS_TILES, i = step - 2 * first;
    const size_t n = n_tiles - first < PASS_TILES ? n_tiles - first : PASS_TILES;
    const struct lsk_attn_tile *t = &tiles[first + (i < n ? i : i - n)];

    return i < n ? NAME(keys_of)(t->head, t->tile, D) : NAME(values_of)(t->head, t->tile, D);
}

VEC_INLINE const unsigned char *NAME(list_later)(const struct lsk_attn_tiles *list, size_t step, size_t D)
{
    const size_t at = step + FAR, end = 2 * list->n_tiles;

    return at < end                      ? NAME(list_step)(list->tiles, list->n_tiles, at, D)
           : at - end < 2 * list->n_next ? NAME(list_step)(list->next, list->n_next, at - end, D)
                                         : NAME(list_step)(list->tiles, list->n_tiles, step, D);
}

/* Where keys alone are read: the tile as far ahead, of the next page too. */
VEC_INLINE const unsigned char *NAME(later_keys)(const struct lsk_attn *a, size_t s)
{
    const size_t i = s / LSK_TILE + PASS_TILES;

    return i < LSK_ATTN_TILES ? NAME(keys_of)(a->head, i, a->D)
                              : NAME(keys_of)(a->next ? a->next : a->head, i % LSK_ATTN_TILES, a->D);
}

/* The keys at slot s, or its values; list: NULL for a page. */
VEC_INLINE struct NAME(place)
    NAME(find)(const struct lsk_attn *a, const struct lsk_attn_tiles *list, size_t s, bool values)
{
    const size_t i = s / LSK_TILE, first = s / PASS * PASS_TILES;
    const struct lsk_attn_tile *t = list ? &list->tiles[i] : NULL;
    const size_t n = list && list->n_tiles - first < PASS_TILES ? list->n_tiles - first : PASS_TILES;
    const size_t step = first + i + (values ? n : 0), tile = list ? t->tile : i;
    struct NAME(place) p = { .head = list ? t->head : a->head, .slot = tile * LSK_TILE };

    p.data = values ? NAME(values_of)(p.head, tile, a->D) : NAME(keys_of)(p.head, tile, a->D);
    p.ahead = list ? NAME(list_later)(list, step, a->D) : NAME(later)(a, step);
    return p;
}

#if SCALES
/* Scales of VEC_LANES slots from slot s on and the run of dimension d, for what VEC_BYTE_ONE counts. */
static vec NAME(scale)(const unsigned char *scales, size_t s, size_t d)
{
    return vec_mul(vec_load_bf16(scales + 2 * lsk_kv_q8_scale(s, d)), vec_set(1.0f / VEC_BYTE_ONE));
}

/* Weights times the scales of the values' run at dimension d. */
VEC_INLINE void NAME(scaled)(const struct lsk_attn *a, const struct lsk_attn_tiles *list, float *scaled,
                             const float *z, size_t d, size_t from, size_t to)
{
    for (size_t s = from; s < to; s += VEC_LANES) {
        const struct NAME(place) p = NAME(find)(a, list, s, true);
        const vec scale = NAME(scale)(p.head + lsk_kv_q8_v_scales(a->D), p.slot + s % LSK_TILE, d);
        vec_store(scaled + s, vec_mul(vec_load(z + s), scale));
    }
}
#endif

/*
 * The order in which a scattered tile is read. From lines that follow each other the processor concludes that
 * more will be read, and fetches what lies behind the tile, of a memory that two cores keep busy: words are
 * taken from both halves of first .. end - 1 in turn,
 */
VEC_INLINE size_t NAME(word)(size_t first, size_t end, size_t turn)
{
    return first + (turn - first) % 2 * ((end - first) / 2) + (turn - first) / 2;
}

/* and slots (values of which are FIELDS to a word) five words further on each time. */
VEC_INLINE size_t NAME(slot)(size_t turn)
{
    return turn * 5 % LSK_TILE;
}

/* z[r][s] for the slots from .. to - 1, multiples of LSK_TILE; n_rows is a constant at every call. `alone`:
 * values are not read. */
VEC_INLINE void NAME(scores)(const struct lsk_attn *a, const struct lsk_attn_tiles *list, const float *q,
                             float (*z)[LSK_PAGE], size_t n_rows, size_t from, size_t to, bool fetch,
                             bool alone)
{
    const size_t D = a->D, words = D / FIELDS;
#if SCALES
    const size_t run = LSK_KV_Q8_RUN / FIELDS;
#else
    const size_t run = words;
#endif

    for (size_t s = from; s < to; s += KEYS * VEC_LANES)
        for (size_t first = 0; first < words; first += run) {
            const size_t end = first + run < words ? first + run : words;
            struct NAME(place) k = NAME(find)(a, list, s, false);
            if (alone)
                k.ahead = NAME(later_keys)(a, s);
            vec sum[ROWS][KEYS][SPLIT];
            VEC_UNROLL
            for (size_t r = 0; r < n_rows; r++)
                VEC_UNROLL
            for (size_t j = 0; j < KEYS; j++)
                VEC_UNROLL
            for (size_t p = 0; p < SPLIT; p++)
                sum[r][j][p] = vec_zero();
            for (size_t i = first; i < end; i += WORDS) {
                VEC_UNROLL
                for (size_t p = 0; p < WORDS * STEPS; p++) {
                    const size_t turn = i + p / STEPS, at = list ? NAME(word)(first, end, turn) : turn;
                    if (fetch && p % STEPS == 0)
                        _mm_prefetch((const char *)k.ahead + at * 64, _MM_HINT_T1);
                    vec x[KEYS];
                    VEC_UNROLL
                    for (size_t j = 0; j < KEYS; j++)
                        x[j] = KEY(vec_words(k.data + at * 64 + j * VEC_LANES * 4), (int)(p % STEPS));
                    VEC_UNROLL
                    for (size_t r = 0; r < n_rows; r++) {
                        const vec b = vec_set(q[(r * words + at) * STEPS + p % STEPS]);
                        VEC_UNROLL
                        for (size_t j = 0; j < KEYS; j++)
                            sum[r][j][p % SPLIT] = MULADD(b, x[j], sum[r][j][p % SPLIT]);
                    }
                }
            }
            VEC_UNROLL
            for (size_t j = 0; j < KEYS; j++) {
#if SCALES
                const vec scale =
                    NAME(scale)(k.head + lsk_kv_q8_k_scales(D), k.slot + j * VEC_LANES, first * FIELDS);
#endif
                VEC_UNROLL
                for (size_t r = 0; r < n_rows; r++) {
                    vec total = sum[r][j][0];
                    VEC_UNROLL
                    for (size_t p = 1; p < SPLIT; p++)
                        total = vec_add(total, sum[r][j][p]);
#if SCALES
                    const vec before = first > 0 ? vec_load(z[r] + s + j * VEC_LANES) : vec_zero();
                    total = vec_fma(total, scale, before);
#endif
                    vec_store(z[r] + s + j * VEC_LANES, total);
                }
            }
        }
}

static size_t NAME(clamp)(size_t s, size_t least, size_t most)
{
    return s < least ? least : s > most ? most : s;
}

/* Scores of what row r does not see. */
static void NAME(hide)(const struct lsk_attn *a, float *z, size_t r, size_t from, size_t to)
{
    const size_t lo = NAME(clamp)(a->lo[r], from, to), hi = NAME(clamp)(a->hi[r], lo, to);

    for (size_t s = from; s < lo; s++)
        z[s] = -INFINITY;
    for (size_t s = hi; s < to; s++)
        z[s] = -INFINITY;
}

/* Scores of row r to weights, multiples of GROUP; m, l brought up to date. Returns the factor for what the
 * row has summed so far. */
static float NAME(weights)(const struct lsk_attn *a, float *z, size_t r, size_t from, size_t to)
{
    vec top = vec_set(-INFINITY), sum[GROUP / VEC_LANES];
    float m = a->m[r], decay = 1.0f;

    for (size_t s = from; s < to; s += VEC_LANES)
        top = vec_max(top, vec_load(z + s));
    if (vec_any_above(top,
                      vec_set(m))) { /* seldom: what is seen later is hardly ever greater than all before */
        float lane[VEC_LANES];
        const float before = m;
        m = vec_greatest(top);
        vec_store(lane, vec_exp2(vec_set(before - m)));
        decay = lane[0];
        a->m[r] = m;
    }
    const float base = m == -INFINITY ? 0.0f : m;
    for (size_t j = 0; j < GROUP / VEC_LANES; j++)
        sum[j] = vec_zero();
#if PAIRS
    /* Words of two weights go to the front half of the row, behind what is still to be read. */
    for (size_t s = from; s < to; s += 2 * VEC_LANES) {
        const vec x = vec_exp2(vec_sub(vec_load(z + s), vec_set(base)));
        const vec y = vec_exp2(vec_sub(vec_load(z + s + VEC_LANES), vec_set(base)));
        const vec_bits both = vec_pack_bf16(x, y);
        sum[0] = vec_add(sum[0], vec_bf16_low(both));
        sum[1] = vec_add(sum[1], vec_bf16_high(both));
        vec_store(z + s / 2, vec_as_floats(both));
    }
#else
    for (size_t s = from; s < to; s += GROUP) {
        VEC_UNROLL
        for (size_t j = 0; j < GROUP / VEC_LANES; j++) {
            float *at = z + s + j * VEC_LANES;
            const vec w = vec_exp2(vec_sub(vec_load(at), vec_set(base)));
            sum[j] = vec_add(sum[j], w);
            vec_store(at, w);
        }
    }
#endif
    for (size_t j = 1; j < GROUP / VEC_LANES; j++)
        sum[0] = vec_add(sum[0], sum[j]);
    a->l[r] = a->l[r] * decay + vec_sum(sum[0]);
    return decay;
}

/* acc[r][d .. d + n_dims vectors) = decay[r] acc + sum_s z[r][s] v[s][d], slots multiples of LSK_TILE. */
VEC_INLINE void NAME(add_values)(const struct lsk_attn *a, const struct lsk_attn_tiles *list, float *acc,
                                 float (*z)[LSK_PAGE], const float *decay, size_t n_rows, size_t n_dims,
                                 size_t d, size_t from, size_t to, bool fetch)
{
    const size_t D = a->D;
    vec sum[ROWS][DIMS];

    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t j = 0; j < n_dims; j++)
        sum[r][j] = vec_mul(vec_set(decay[r]), vec_load(acc + r * D + d + j * VEC_LANES));
    for (size_t tile = from; tile < to; tile += LSK_TILE) {
        const struct NAME(place) v = NAME(find)(a, list, tile, true);
        for (size_t i = 0; i < LSK_TILE / FIELDS; i++) {
            const size_t s = list ? NAME(slot)(i * FIELDS) : i * FIELDS, at = s / FIELDS * D * 4 + d * 4;
            if (fetch)
                VEC_UNROLL
            for (size_t j = 0; j < n_dims; j += LSK_TILE / VEC_LANES)
                _mm_prefetch((const char *)v.ahead + (i * D + d + j * VEC_LANES) * 4, _MM_HINT_T1);
            VEC_UNROLL
            for (int c = 0; c < STEPS; c++) {
                vec x[DIMS];
                VEC_UNROLL
                for (size_t j = 0; j < n_dims; j++)
                    x[j] = VALUE(vec_words(v.data + at + j * VEC_LANES * 4), c);
                VEC_UNROLL
                for (size_t r = 0; r < n_rows; r++) {
                    const vec b = vec_set(z[r][(tile + s) / FIELDS * STEPS + (size_t)c]);
                    VEC_UNROLL
                    for (size_t j = 0; j < n_dims; j++)
                        sum[r][j] = MULADD(b, x[j], sum[r][j]);
                }
            }
        }
    }
    VEC_UNROLL
    for (size_t r = 0; r < n_rows; r++)
        VEC_UNROLL
    for (size_t j = 0; j < n_dims; j++)
        vec_store(acc + r * D + d + j * VEC_LANES, sum[r][j]);
}

#if PAIRS
/* n numbers to words of two bf16. */
static void NAME(pack)(float *packed, const float *q, size_t n)
{
    for (size_t i = 0; i < n; i += 2 * VEC_LANES) {
        /* The last rows of an odd number of vectors end in the middle of a pair of vectors. */
        const vec high = i + VEC_LANES < n ? vec_load(q + i + VEC_LANES) : vec_zero();
        vec_store(packed + i / 2, vec_as_floats(vec_pack_bf16(vec_load(q + i), high)));
    }
}
#endif

/* Passes 2 and 3 for rows r0 .. r0 + n_rows - 1, whose scores are in z. `end`: where the last tile ends;
 * from there to `to`, which is a multiple of GROUP, scores are -inf. */
VEC_INLINE void NAME(take_values)(size_t n_rows, const struct lsk_attn *a, const struct lsk_attn_tiles *list,
                                  float (*z)[LSK_PAGE], size_t r0, size_t from, size_t end, size_t to)
{
    const size_t D = a->D;
    float decay[ROWS], *acc = a->acc + r0 * D;
#if SCALES
    float w[ROWS][LSK_PAGE];
#else
    float(*const w)[LSK_PAGE] = z;
#endif

    for (size_t r = 0; r < n_rows; r++)
        decay[r] = NAME(weights)(a, z[r], r0 + r, from, to);
    for (size_t d = 0, n; d < D; d += n * VEC_LANES) {
        n = d + BLOCK * VEC_LANES <= D ? BLOCK : 1;
#if SCALES
        for (size_t r = 0; r < n_rows && d % LSK_KV_Q8_RUN == 0; r++)
            NAME(scaled)(a, list, w[r], z[r], d, from, end);
#endif
        if (n == BLOCK)
            NAME(add_values)(a, list, acc, w, decay, n_rows, BLOCK, d, from, end, r0 == 0);
        else
            NAME(add_values)(a, list, acc, w, decay, n_rows, 1, d, from, end, r0 == 0);
    }
}

/* The three passes for rows r0 .. r0 + n_rows - 1. */
VEC_INLINE void NAME(block)(size_t n_rows, const struct lsk_attn *a, size_t r0, size_t from, size_t to)
{
    float z[ROWS][LSK_PAGE];
    const float *q = a->q + r0 * a->D;

#if PAIRS
    float packed[ROWS * PAIRS_MAX_D / 2];
    NAME(pack)(packed, q, n_rows * a->D);
    q = packed;
#endif
    NAME(scores)(a, NULL, q, z, n_rows, from, to, r0 == 0, false);
    for (size_t r = 0; r < n_rows; r++)
        NAME(hide)(a, z[r], r0 + r, from, to);
    NAME(take_values)(n_rows, a, NULL, z, r0, from, to, to);
}

/* f with a constant number of rows, so that sums of a block are in registers. */
#if ROWS > 4
#define MORE_ROWS(f, ...)  \
    case 4:                \
        f(4, __VA_ARGS__); \
        break;             \
    case 5:                \
        f(5, __VA_ARGS__); \
        break;
#else
#define MORE_ROWS(f, ...)
#endif
#define BY_ROWS(n, f, ...)        \
    switch (n) {                  \
    case 1:                       \
        f(1, __VA_ARGS__);        \
        break;                    \
    case 2:                       \
        f(2, __VA_ARGS__);        \
        break;                    \
    case 3:                       \
        f(3, __VA_ARGS__);        \
        break;                    \
        MORE_ROWS(f, __VA_ARGS__) \
    default:                      \
        f(ROWS, __VA_ARGS__);     \
        break;                    \
    }

static void NAME(attend)(const struct lsk_attn *a)
{
    size_t r = 0;

    while (r < a->n_rows) {
        const size_t n = a->n_rows - r < ROWS ? a->n_rows - r : ROWS;
        size_t lo = LSK_PAGE, hi = 0;
        for (size_t i = r; i < r + n; i++) {
            lo = a->lo[i] < a->hi[i] && a->lo[i] < lo ? a->lo[i] : lo;
            hi = a->lo[i] < a->hi[i] && a->hi[i] > hi ? a->hi[i] : hi;
        }
        lo = lo / GROUP * GROUP;
        hi = (hi + GROUP - 1) / GROUP * GROUP;
        for (size_t from = lo, to; from < hi; from = to) {
            to = (from / PASS + 1) * PASS < hi ? (from / PASS + 1) * PASS : hi;
            BY_ROWS(n, NAME(block), a, r, from, to)
        }
        r += n;
    }
}

/* Scores alone of rows r0 .. r0 + n_rows - 1. */
VEC_INLINE void NAME(score_block)(size_t n_rows, const struct lsk_attn_scores *a, size_t r0)
{
    const struct lsk_attn page = { .head = a->head, .next = a->next, .D = a->D };
    float(*const z)[LSK_PAGE] = (float(*)[LSK_PAGE])(a->z + r0 * LSK_PAGE);
    const float *q = a->q + r0 * a->D;

#if PAIRS
    float packed[ROWS * PAIRS_MAX_D / 2];
    NAME(pack)(packed, q, n_rows * a->D);
    q = packed;
#endif
    NAME(scores)(&page, NULL, q, z, n_rows, a->from, a->to, r0 == 0, true);
}

static void NAME(score)(const struct lsk_attn_scores *a)
{
    for (size_t r = 0; r < a->n_rows; r += ROWS) {
        const size_t n = a->n_rows - r < ROWS ? a->n_rows - r : ROWS;
        BY_ROWS(n, NAME(score_block), a, r)
    }
}

#if !PAIRS
/* Rows r0 .. r0 + n_rows - 1 and slots from .. end - 1 of a list of tiles. */
VEC_INLINE void NAME(tiles_block)(size_t n_rows, const struct lsk_attn_tiles *list, size_t r0, size_t from,
                                  size_t end)
{
    const struct lsk_attn a = { .D = list->D, .m = list->m, .l = list->l, .acc = list->acc };
    const size_t to = (end + GROUP - 1) / GROUP * GROUP;
    float z[ROWS][LSK_PAGE];

    NAME(scores)(&a, list, list->q + r0 * list->D, z, n_rows, from, end, r0 == 0, false);
    for (size_t s = end; s < to; s++)
        for (size_t r = 0; r < n_rows; r++)
            z[r][s] = -INFINITY;
    for (size_t i = from / LSK_TILE; i < end / LSK_TILE; i++) {
        const uint16_t seen = list->tiles[i].seen;
        for (size_t s = 0; seen != 0xffff && s < LSK_TILE; s++)
            for (size_t r = 0; !(seen >> s & 1) && r < n_rows; r++)
                z[r][i * LSK_TILE + s] = -INFINITY;
    }
    NAME(take_values)(n_rows, &a, list, z, r0, from, end, to);
}

static void NAME(attend_tiles)(const struct lsk_attn_tiles *a)
{
    const size_t end = a->n_tiles * LSK_TILE;

    for (size_t r = 0; r < a->n_rows; r += ROWS) {
        const size_t n = a->n_rows - r < ROWS ? a->n_rows - r : ROWS;
        for (size_t from = 0; from < end; from += PASS)
            BY_ROWS(n, NAME(tiles_block), a, r, from, from + PASS < end ? from + PASS : end)
    }
}
#endif

#undef GROUP
#undef PASS
#undef PASS_TILES
#undef AHEAD
#undef FAR
#undef BY_ROWS
#undef MORE_ROWS
#undef STEPS
#undef BLOCK
#undef WORDS
#undef MULADD
#undef PAIRS
#undef FIELDS
#undef KEY
#undef VALUE
#undef SCALES
#undef NAME
