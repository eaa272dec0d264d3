/*
 * States of rows (m, l, acc), merged as
 *
 *     M = max m_c;  l = sum 2^(m_c - M) l_c;  acc = sum 2^(m_c - M) acc_c;  out = acc / l.
 */
#include "backend/cpu_attention.h"

#include <string.h>

void lsi_cpu_pack_queries(float *to, const float *from, size_t ld, size_t n_tokens, size_t n, double scale)
{
    const float by = (float)scale;

    for (size_t t = 0; t < n_tokens; t++)
        for (size_t i = 0; i < n; i++)
            to[t * n + i] = from[t * ld + i] * by;
}

void lsi_cpu_states_reset(const struct lsi_cpu_states *s, size_t n_rows, size_t D)
{
    for (size_t r = 0; r < n_rows; r++)
        s->m[r] = -INFINITY;
    memset(s->l, 0, n_rows * sizeof *s->l);
    memset(s->acc, 0, n_rows * D * sizeof *s->acc);
}

void lsi_cpu_states_merge(const struct lsi_cpu_states *s, size_t i, size_t n, size_t step, size_t D)
{
    float *acc = s->acc + i * D;
    float m = -INFINITY, l = 0.0f;

    for (size_t c = 0; c < n; c++)
        m = fmaxf(m, s->m[i + c * step]);
    for (size_t c = 0; c < n && m > -INFINITY; c++) {
        const float w = exp2f(s->m[i + c * step] - m);
        const float *part = acc + c * step * D;
        l += w * s->l[i + c * step];
        for (size_t d = 0; d < D; d++)
            acc[d] = (c > 0 ? acc[d] : 0.0f) + w * part[d];
    }
    s->m[i] = m;
    s->l[i] = l;
}

void lsi_cpu_states_finish(const struct lsi_cpu_states *s, size_t i, size_t D, float *out, float *lse)
{
    const float l = s->l[i], inv = l > 0.0f ? 1.0f / l : 0.0f;

    for (size_t d = 0; d < D; d++)
        out[d] = s->acc[i * D + d] * inv;
    if (lse)
        *lse = l > 0.0f ? (float)(0.69314718055994531 * ((double)s->m[i] + log2((double)l))) : -INFINITY;
}
