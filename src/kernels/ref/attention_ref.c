/*
 * Attention of query rows over one page, by the formula. With z_s = q . k_s for the
 * slots a row sees:
 *
 *     m' = max(m, max z);  a = 2^(m - m');  w_s = 2^(z_s - m')
 *     l  = a l + sum w_s;  acc = a acc + sum w_s v_s;  m = m'
 */
#include "kernels/impl.h"

#include <math.h>

typedef float element_fn(const void *head, size_t D, size_t slot, size_t d);

struct format {
    element_fn *key, *value;
    float (*round)(float x); /* of queries and weights */
};

static float f32_key(const void *head, size_t D, size_t slot, size_t d)
{
    return ((const float *)head)[lsk_kv_f32_k(D, slot, d)];
}

static float f32_value(const void *head, size_t D, size_t slot, size_t d)
{
    return ((const float *)head)[lsk_kv_f32_v(D, slot, d)];
}

static float bf16_key(const void *head, size_t D, size_t slot, size_t d)
{
    return lsi_bf16_to_f32(((const lsi_bf16 *)head)[lsk_kv_bf16_k(D, slot, d)]);
}

static float bf16_value(const void *head, size_t D, size_t slot, size_t d)
{
    return lsi_bf16_to_f32(((const lsi_bf16 *)head)[lsk_kv_bf16_v(D, slot, d)]);
}

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

static void attend_row(const struct lsk_attn *a, const struct format *f, size_t r)
{
    const size_t D = a->D, lo = a->lo[r], hi = a->hi[r];
    float w[LSK_PAGE];
    float m = a->m[r];
    double sum = 0.0;

    for (size_t s = lo; s < hi; s++) {
        double z = 0.0;
        for (size_t d = 0; d < D; d++)
            z += (double)f->round(a->q[r * D + d]) * (double)f->key(a->head, D, s, d);
        w[s] = (float)z;
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
    static const struct format f = { f32_key, f32_value, exact };
    attend(a, &f);
}

void lsk_attn_bf16_ref(const struct lsk_attn *a)
{
    static const struct format f = { bf16_key, bf16_value, exact };
    attend(a, &f);
}

void lsk_attn_bf16_round_ref(const struct lsk_attn *a)
{
    static const struct format f = { bf16_key, bf16_value, to_bf16 };
    attend(a, &f);
}

void lsk_attn_q8_ref(const struct lsk_attn *a)
{
    static const struct format f = { q8_key, q8_value, exact };
    attend(a, &f);
}
