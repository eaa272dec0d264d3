/* Gradient of attention over slots of one page, by the formula, sums in double. */
#include "kernels/ref/kv_element_ref.h"

#include <math.h>

struct format {
    lsk_kv_element_fn *key, *value;
};

/* The row of token t and head j, slots from .. to - 1. */
static void see_slots(const struct lsk_attn_backward *a, const struct format *f, size_t t, size_t j,
                      size_t from, size_t to)
{
    const size_t D = a->D;
    const float *q = a->q + t * a->ldq + j * D, *dout = a->dout + t * a->lddo + j * D;
    const float *out = a->out + t * a->ldo + j * D;
    const double lse = (double)a->lse[t * a->ldl + j];
    float *dq = a->dq + (t * a->group + j) * D;
    double e = 0.0;

    for (size_t d = 0; d < D; d++)
        e += (double)dout[d] * (double)out[d];
    for (size_t s = from; s < to; s++) {
        double z = 0.0, dp = 0.0;
        for (size_t d = 0; d < D; d++) {
            z += (double)q[d] * (double)f->key(a->head, D, s, d);
            dp += (double)dout[d] * (double)f->value(a->head, D, s, d);
        }
        const double p = exp((double)a->scale * z - lse), dz = (double)a->scale * p * (dp - e);
        float *dk = a->dk + (s - a->from) * a->ldkv, *dv = a->dv + (s - a->from) * a->ldkv;
        for (size_t d = 0; d < D; d++) {
            dq[d] += (float)(dz * (double)f->key(a->head, D, s, d));
            dk[d] += (float)(dz * (double)q[d]);
            dv[d] += (float)(p * (double)dout[d]);
        }
    }
}

static void backward(const struct lsk_attn_backward *a, const struct format *f)
{
    for (size_t t = 0; t < a->n_tokens; t++) {
        const size_t from = a->lo[t] > a->from ? a->lo[t] : a->from;
        const size_t to = a->hi[t] < a->to ? a->hi[t] : a->to;
        for (size_t j = 0; j < a->group && from < to; j++)
            if (a->lse[t * a->ldl + j] > -INFINITY)
                see_slots(a, f, t, j, from, to);
    }
}

void lsk_attn_backward_f32_ref(const struct lsk_attn_backward *a)
{
    const struct format f = { lsk_ref_f32_key, lsk_ref_f32_value };
    backward(a, &f);
}

void lsk_attn_backward_bf16_ref(const struct lsk_attn_backward *a)
{
    const struct format f = { lsk_ref_bf16_key, lsk_ref_bf16_value };
    backward(a, &f);
}

void lsk_attn_backward_bf16_round_ref(const struct lsk_attn_backward *a)
{
    lsk_attn_backward_bf16_ref(a);
}
