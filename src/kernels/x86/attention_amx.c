/*
 * Attention over one page with matrix tiles (AMX), bf16 operands and fp32 sums.
 *
 * Pages are operands as they are (kv_layout.h): a tile of keys is 16 pairs of dimensions
 * by 16 keys, a tile of values 16 pairs of slots by 16 dimensions. 32 rows at a time:
 *
 *     z[32][256] = Q K^T     2 x 2 tiles of sums over D in steps of 32
 *     w = 2^(z - m)          rounded to bf16; their sum is that of the rounded weights
 *     acc += w V             2 x 2 tiles of sums over the slots in steps of 32
 *
 * D must be a multiple of 32; other sizes go to the AVX-512 kernel.
 */
#include "kernels/impl.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/vec_math.h"

#define ROWS  32
#define STEP  32 /* of dimensions and slots: what a tile product sums over */
#define MAX_D 256

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

_Static_assert(sizeof(struct tile_config) == 64, "the layout that the processor reads");

struct block {
    const struct lsk_attn *a;
    size_t r0;
    size_t n_rows;
    size_t from, to; /* slots, multiples of STEP */
    bool whole;      /* every row sees all of them */
};

static void round_queries(const struct block *b, lsi_bf16 *q)
{
    const size_t n = ROWS * b->a->D;
    const float *from = b->a->q + b->r0 * b->a->D;

    for (size_t i = 0; i < n; i += 32) {
        const __m512bh w = _mm512_cvtne2ps_pbh(vec_load(from + i + 16), vec_load(from + i));
        memcpy(q + i, &w, sizeof w);
    }
}

static void scores(const struct block *b, const lsi_bf16 *q, float (*z)[LSK_PAGE])
{
    const size_t D = b->a->D, stride = LSK_PAGE * sizeof(float);

    for (size_t s = b->from; s < b->to; s += 2 * LSK_TILE) {
        const lsi_bf16 *k0 = (const lsi_bf16 *)b->a->head + lsk_kv_bf16_k(D, s, 0);
        const lsi_bf16 *k1 = (const lsi_bf16 *)b->a->head + lsk_kv_bf16_k(D, s + LSK_TILE, 0);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (size_t d = 0; d < D; d += STEP) {
            _tile_loadd(4, q + d, D * 2);
            _tile_loadd(6, k0 + d * LSK_TILE, 64);
            _tile_loadd(5, q + LSK_TILE * D + d, D * 2);
            _tile_loadd(7, k1 + d * LSK_TILE, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, &z[0][s], stride);
        _tile_stored(1, &z[0][s + LSK_TILE], stride);
        _tile_stored(2, &z[LSK_TILE][s], stride);
        _tile_stored(3, &z[LSK_TILE][s + LSK_TILE], stride);
    }
}

/* Weights of row r; brings m and l up to date and returns the factor for the row's sums so far. */
static float weights(const struct block *b, size_t r, float *z, lsi_bf16 *w)
{
    const struct lsk_attn *a = b->a;
    const size_t from = b->from, to = b->to;
    vec top0 = vec_set(-INFINITY), top1 = top0, sum0 = vec_zero(), sum1 = vec_zero();
    const float before = a->m[r];

    if (!b->whole) {
        for (size_t s = from; s < a->lo[r] && s < to; s++)
            z[s] = -INFINITY;
        for (size_t s = a->hi[r] > from ? a->hi[r] : from; s < to; s++)
            z[s] = -INFINITY;
    }
    for (size_t s = from; s < to; s += STEP) {
        top0 = vec_max(top0, vec_load(z + s));
        top1 = vec_max(top1, vec_load(z + s + 16));
    }
    const float top = vec_greatest(vec_max(top0, top1)), m = top > before ? top : before;
    const vec base = vec_set(m == -INFINITY ? 0.0f : m);
    for (size_t s = from; s < to; s += STEP) {
        const vec x = vec_exp2_short(vec_sub(vec_load(z + s), base));
        const vec y = vec_exp2_short(vec_sub(vec_load(z + s + 16), base));
        const __m512bh both = _mm512_cvtne2ps_pbh(y, x);
        __m512i bits;
        memcpy(&bits, &both, sizeof bits);
        _mm512_storeu_si512(w + s, bits);
        sum0 = vec_add(sum0, vec_bf16_low(bits));
        sum1 = vec_add(sum1, vec_bf16_high(bits));
    }
    const float decay = m > before ? exp2f(before - m) : 1.0f;
    a->l[r] = a->l[r] * decay + vec_sum(vec_add(sum0, sum1));
    a->m[r] = m;
    return decay;
}

static void values(const struct block *b, lsi_bf16 (*w)[LSK_PAGE])
{
    const size_t D = b->a->D;
    float *acc = b->a->acc + b->r0 * D;

    for (size_t d = 0; d < D; d += 2 * LSK_TILE) {
        _tile_loadd(0, acc + d, D * 4);
        _tile_loadd(1, acc + d + LSK_TILE, D * 4);
        _tile_loadd(2, acc + LSK_TILE * D + d, D * 4);
        _tile_loadd(3, acc + LSK_TILE * D + d + LSK_TILE, D * 4);
        for (size_t s = b->from; s < b->to; s += STEP) {
            /* The values of STEP slots lie together (kv_layout.h). */
            const lsi_bf16 *v = (const lsi_bf16 *)b->a->head + lsk_kv_bf16_v(D, s, d);
            _tile_loadd(4, &w[0][s], LSK_PAGE * 2);
            _tile_loadd(6, v, D * 4);
            _tile_loadd(5, &w[LSK_TILE][s], LSK_PAGE * 2);
            _tile_loadd(7, v + 2 * LSK_TILE, D * 4);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(0, acc + d, D * 4);
        _tile_stored(1, acc + d + LSK_TILE, D * 4);
        _tile_stored(2, acc + LSK_TILE * D + d, D * 4);
        _tile_stored(3, acc + LSK_TILE * D + d + LSK_TILE, D * 4);
    }
}

static void attend_block(struct block *b)
{
    const struct lsk_attn *a = b->a;
    const size_t D = a->D;
    _Alignas(64) lsi_bf16 q[ROWS * MAX_D], w[ROWS][LSK_PAGE];
    _Alignas(64) float z[ROWS][LSK_PAGE];

    round_queries(b, q);
    scores(b, q, z);
    for (size_t r = 0; r < b->n_rows; r++) {
        float *acc = a->acc + (b->r0 + r) * D;
        const float decay = weights(b, b->r0 + r, z[r], w[r]);
        if (decay != 1.0f)
            for (size_t d = 0; d < D; d += VEC_LANES)
                vec_store(acc + d, vec_mul(vec_load(acc + d), vec_set(decay)));
    }
    for (size_t r = b->n_rows; r < ROWS; r++)
        memset(w[r], 0, sizeof w[r]);
    values(b, w);
}

/* The slots that rows r0 .. of a block see. False: none. */
static bool block_extent(struct block *b)
{
    size_t lo = LSK_PAGE, hi = 0;

    b->whole = true;
    for (size_t r = b->r0; r < b->r0 + b->n_rows; r++) {
        const size_t row_lo = b->a->lo[r], row_hi = b->a->hi[r];
        b->whole = b->whole && row_lo == 0 && row_hi == LSK_PAGE;
        if (row_lo < row_hi) {
            lo = row_lo < lo ? row_lo : lo;
            hi = row_hi > hi ? row_hi : hi;
        }
    }
    b->from = lo / STEP * STEP;
    b->to = (hi + STEP - 1) / STEP * STEP;
    return lo < hi;
}

/* Ask for a part of the next page: while weights are computed memory has nothing to do. */
static void fetch(const struct lsk_attn *a, size_t r0)
{
    const size_t bytes = lsk_kv_bf16_head_bytes(a->D), blocks = (a->n_rows + ROWS - 1) / ROWS;
    const size_t share = (bytes / 64 + blocks - 1) / blocks * 64, at = r0 / ROWS * share;

    for (size_t i = at; i < at + share && i < bytes; i += 64)
        _mm_prefetch((const char *)a->next + i, _MM_HINT_T1);
}

static void configure_tiles(void)
{
    struct tile_config config = { .palette = 1 };

    for (size_t i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = LSK_TILE;
    }
    _tile_loadconfig(&config);
}

void lsk_attn_bf16_round_amx(const struct lsk_attn *a)
{
    if (a->D % STEP != 0 || a->D > MAX_D) {
        lsk_attn_bf16_round_avx512(a);
        return;
    }
    configure_tiles();
    for (size_t r = 0; r < a->n_rows; r += ROWS) {
        struct block b = { .a = a, .r0 = r, .n_rows = a->n_rows - r < ROWS ? a->n_rows - r : ROWS };
        if (a->next)
            fetch(a, r);
        if (block_extent(&b))
            attend_block(&b);
    }
    _tile_release();
}

void lsk_attn_scores_bf16_round_amx(const struct lsk_attn_scores *a)
{
    const struct lsk_attn page = { .head = a->head, .D = a->D, .q = a->q };
    _Alignas(64) lsi_bf16 q[ROWS * MAX_D];

    if (a->D % STEP != 0 || a->D > MAX_D) {
        lsk_attn_scores_bf16_round_avx512(a);
        return;
    }
    configure_tiles();
    for (size_t r = 0; r < a->n_rows; r += ROWS) {
        const struct block b = { .a = &page, .r0 = r, .from = a->from, .to = a->to };
        round_queries(&b, q);
        scores(&b, q, (float(*)[LSK_PAGE])(a->z + r * LSK_PAGE));
    }
    _tile_release();
}
