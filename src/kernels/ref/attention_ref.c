/*
 * Attention of query rows over one page, by the formula. With z_s = q . k_s for the
 * slots a row sees:
 *
 *     m' = max(m, max z);  a = 2^(m - m');  w_s = 2^(z_s - m')
 *     l  = a l + sum w_s;  acc = a acc + sum w_s v_s;  m = m'
 */
#include "kernels/ref/kv_element_ref.h"

#include <math.h>
#include <string.h>

struct format {
    lsk_kv_element_fn *key, *value;
    float (*round)(float x); /* of queries and weights */
};

static float q8_scale(const void *scales, size_t slot, size_t d)
{
    return lsi_bf16_to_f32(((const lsi_bf16 *)scales)[lsk_kv_q8_scale(slot, d)]);
}

static float q8_key(const void *head, size_t D, size_t slot, size_t d)
{
    const uint8_t *p = head;
    return (float)(p[lsk_kv_q8_k(D, slot, d)] - 128) * q8_scale(p + lsk_kv_q8_k_scales(D), slot, d);
}

static float q8_value(const void *head, size_t D, size_t slot, size_t d)
{
    const uint8_t *p = head;
    return (float)(int8_t)p[lsk_kv_q8_v(D, slot, d)] * q8_scale(p + lsk_kv_q8_v_scales(D), slot, d);
}

static float exact(float x)
{
    return x;
}

static float to_bf16(float x)
{
    return lsi_bf16_to_f32(lsi_bf16_from_f32(x));
}

static const struct format f32_format = { lsk_ref_f32_key, lsk_ref_f32_value, exact };
static const struct format bf16_format = { lsk_ref_bf16_key, lsk_ref_bf16_value, exact };
static const struct format bf16_round_format = { lsk_ref_bf16_key, lsk_ref_bf16_value, to_bf16 };
static const struct format q8_format = { q8_key, q8_value, exact };

static float dot(const struct format *f, const float *q, const void *head, size_t D, size_t slot)
{
    double z = 0.0;

    for (size_t d = 0; d < D; d++)
        z += (double)f->round(q[d]) * (double)f->key(head, D, slot, d);
    return (float)z;
}

static void attend_row(const struct lsk_attn *a, const struct format *f, size_t r)
{
    const size_t D = a->D, lo = a->lo[r], hi = a->hi[r];
    float w[LSK_PAGE];
    float m = a->m[r];
    double sum = 0.0;

    for (size_t s = lo; s < hi; s++) {
        w[s] = dot(f, a->q + r * D, a->head, D, s);
        m = w[s] > m ? w[s] : m;
    }
    if (m == -INFINITY)
        return;
    const double decay = exp2((double)a->m[r] - (double)m);
    for (size_t s = lo; s < hi; s++) {
        w[s] = f->round((float)exp2((double)w[s] - (double)m));
        sum += (double)w[s];
    }
    for (size_t d = 0; d < D; d++) {
        double acc = decay * (double)a->acc[r * D + d];
        for (size_t s = lo; s < hi; s++)
            acc += (double)w[s] * (double)f->value(a->head, D, s, d);
        a->acc[r * D + d] = (float)acc;
    }
    a->l[r] = (float)(decay * (double)a->l[r] + sum);
    a->m[r] = m;
}

static void attend(const struct lsk_attn *a, const struct format *f)
{
    for (size_t r = 0; r < a->n_rows; r++)
        if (a->lo[r] < a->hi[r])
            attend_row(a, f, r);
}

void lsk_attn_f32_ref(const struct lsk_attn *a)
{
    attend(a, &f32_format);
}

void lsk_attn_bf16_ref(const struct lsk_attn *a)
{
    attend(a, &bf16_format);
}

void lsk_attn_bf16_round_ref(const struct lsk_attn *a)
{
    attend(a, &bf16_round_format);
}

void lsk_attn_q8_ref(const struct lsk_attn *a)
{
    attend(a, &q8_format);
}

/* ---- scattered tiles ------------------------------------------------------------------- */

/* Scores of row r with the slots that are seen, the greatest of them and of before. */
static float tile_scores(const struct lsk_attn_tiles *a, const struct format *f, size_t r,
                         float (*z)[LSK_TILE])
{
    float m = a->m[r];

    for (size_t i = 0; i < a->n_tiles; i++) {
        const struct lsk_attn_tile *t = &a->tiles[i];
        for (size_t s = 0; s < LSK_TILE; s++) {
            z[i][s] = -INFINITY;
            if (t->seen >> s & 1)
                z[i][s] = dot(f, a->q + r * a->D, t->head, a->D, (size_t)t->tile * LSK_TILE + s);
            m = z[i][s] > m ? z[i][s] : m;
        }
    }
    return m;
}

static void attend_tiles_row(const struct lsk_attn_tiles *a, const struct format *f, size_t r)
{
    float z[LSK_ATTN_TILES][LSK_TILE];
    const float m = tile_scores(a, f, r, z);
    const double decay = a->m[r] == m ? 1.0 : exp2((double)a->m[r] - (double)m);
    double sum = decay * (double)a->l[r];

    if (m == -INFINITY)
        return;
    for (size_t i = 0; i < a->n_tiles; i++)
        for (size_t s = 0; s < LSK_TILE; s++) {
            z[i][s] = (float)exp2((double)z[i][s] - (double)m);
            sum += (double)z[i][s];
        }
    for (size_t d = 0; d < a->D; d++) {
        double acc = decay * (double)a->acc[r * a->D + d];
        for (size_t i = 0; i < a->n_tiles; i++)
            for (size_t s = 0; s < LSK_TILE; s++)
                if (a->tiles[i].seen >> s & 1)
                    acc += (double)z[i][s] * (double)f->value(a->tiles[i].head, a->D,
                                                              (size_t)a->tiles[i].tile * LSK_TILE + s, d);
        a->acc[r * a->D + d] = (float)acc;
    }
    a->l[r] = (float)sum;
    a->m[r] = m;
}

static void attend_tiles(const struct lsk_attn_tiles *a, const struct format *f)
{
    for (size_t r = 0; r < a->n_rows; r++)
        attend_tiles_row(a, f, r);
}

void lsk_attn_tiles_f32_ref(const struct lsk_attn_tiles *a)
{
    attend_tiles(a, &f32_format);
}

void lsk_attn_tiles_bf16_ref(const struct lsk_attn_tiles *a)
{
    attend_tiles(a, &bf16_format);
}

void lsk_attn_tiles_q8_ref(const struct lsk_attn_tiles *a)
{
    attend_tiles(a, &q8_format);
}

/* ---- scores alone ------------------------------------------------------------------------ */

static void scores(const struct lsk_attn_scores *a, const struct format *f)
{
    for (size_t r = 0; r < a->n_rows; r++)
        for (size_t s = a->from; s < a->to; s++)
            a->z[r * LSK_PAGE + s] = dot(f, a->q + r * a->D, a->head, a->D, s);
}

void lsk_attn_scores_f32_ref(const struct lsk_attn_scores *a)
{
    scores(a, &f32_format);
}

void lsk_attn_scores_bf16_ref(const struct lsk_attn_scores *a)
{
    scores(a, &bf16_format);
}

void lsk_attn_scores_bf16_round_ref(const struct lsk_attn_scores *a)
{
    scores(a, &bf16_round_format);
}

void lsk_attn_scores_q8_ref(const struct lsk_attn_scores *a)
{
    scores(a, &q8_format);
}

/* ---- bounds ---------------------------------------------------------------------------------- */

void lsk_attn_bounds_ref(const struct lsk_attn_scores *a)
{
    const unsigned char *head = a->head;

    for (size_t r = 0; r < a->n_rows; r++)
        for (size_t i = a->from; i < a->to; i++) {
            float scale, sum = 0.0f;
            memcpy(&scale, head + lsk_bounds_scale(a->D, i), sizeof scale);
            for (size_t d = 0; d < a->D; d++) {
                const float q = a->q[r * a->D + d];
                const size_t at = lsk_bounds_most(a->D, i, d) + (q > 0.0f ? 0 : 4 * LSK_TILE);
                sum += fabsf(q) * (float)(int8_t)head[at];
            }
            a->z[r * LSK_PAGE + i] = sum * scale;
        }
}
