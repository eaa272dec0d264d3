#include "double_model.h"

static size_t index_of(const struct double_model *m, enum lsi_param_kind kind, enum lsi_role role,
                       size_t layer)
{
    for (size_t i = 0; i < m->params->n; i++) {
        const struct lsi_param *p = &m->params->list[i];
        if (p->kind == kind && p->role == role && p->layer == layer)
            return i;
    }
    return SIZE_MAX;
}

static double *base(const struct double_model *m, double **of, enum lsi_role role, size_t layer)
{
    const size_t i = index_of(m, LSI_PARAM_BASE, role, layer);
    return i == SIZE_MAX ? NULL : of[i];
}

/* ---- products ------------------------------------------------------------------------------------ */

/* y += scale x W^T */
static void multiply(double *y, const double *w, const double *x, size_t rows, size_t n_out, size_t n_in,
                     double scale)
{
    for (size_t t = 0; t < rows; t++)
        for (size_t i = 0; i < n_out; i++) {
            double sum = 0;
            for (size_t j = 0; j < n_in; j++)
                sum += w[i * n_in + j] * x[t * n_in + j];
            y[t * n_out + i] += scale * sum;
        }
}

/* dx += scale dy W;  dW += scale dy^T x */
static void multiply_backward(double *dx, double *dw, const double *dy, const double *w, const double *x,
                              size_t rows, size_t n_out, size_t n_in, double scale)
{
    for (size_t t = 0; t < rows; t++)
        for (size_t i = 0; i < n_out; i++)
            for (size_t j = 0; j < n_in; j++) {
                dx[t * n_in + j] += scale * dy[t * n_out + i] * w[i * n_in + j];
                dw[i * n_in + j] += scale * dy[t * n_out + i] * x[t * n_in + j];
            }
}

/* One product of a layer: a matrix, perhaps a bias, perhaps an adapter. */
struct product {
    enum lsi_role role, bias;
    size_t layer, n_out, n_in;
};

static size_t adapter(const struct double_model *m, const struct product *p, enum lsi_param_kind kind)
{
    return index_of(m, kind, p->role, p->layer);
}

/* y = W x + b + scale B (A x) */
static void linear(const struct double_model *m, double *y, const double *x, struct product p)
{
    const size_t n = m->s->n, rank = m->params->options.lora_rank, a = adapter(m, &p, LSI_PARAM_LORA_A);
    const double *bias = base(m, m->values, p.bias, p.layer);
    for (size_t i = 0; i < n * p.n_out; i++)
        y[i] = bias ? bias[i % p.n_out] : 0;
    multiply(y, base(m, m->values, p.role, p.layer), x, n, p.n_out, p.n_in, 1);
    if (a == SIZE_MAX)
        return;
    double *low = calloc(n * rank, sizeof *low);
    REQUIRE(low != NULL);
    multiply(low, m->values[a], x, n, rank, p.n_in, 1);
    multiply(y, m->values[adapter(m, &p, LSI_PARAM_LORA_B)], low, n, p.n_out, rank,
             (double)m->params->options.lora_scale);
    free(low);
}

/* dx += */
static void linear_backward(const struct double_model *m, double *dx, const double *dy, const double *x,
                            struct product p)
{
    const size_t n = m->s->n, rank = m->params->options.lora_rank, a = adapter(m, &p, LSI_PARAM_LORA_A),
                 b = adapter(m, &p, LSI_PARAM_LORA_B);
    double *dbias = base(m, m->grads, p.bias, p.layer);
    for (size_t i = 0; dbias && i < n * p.n_out; i++)
        dbias[i % p.n_out] += dy[i];
    multiply_backward(dx, base(m, m->grads, p.role, p.layer), dy, base(m, m->values, p.role, p.layer), x, n,
                      p.n_out, p.n_in, 1);
    if (a == SIZE_MAX)
        return;
    double *low = calloc(2 * n * rank, sizeof *low), *dlow = low + n * rank;
    REQUIRE(low != NULL);
    multiply(low, m->values[a], x, n, rank, p.n_in, 1);
    multiply_backward(dlow, m->grads[b], dy, m->values[b], low, n, p.n_out, rank,
                      (double)m->params->options.lora_scale);
    multiply_backward(dx, m->grads[a], dlow, m->values[a], x, n, rank, p.n_in, 1);
    free(low);
}

/* ---- row by row ---------------------------------------------------------------------------------- */

static double norm_scale(const struct double_model *m, const double *x, size_t cols)
{
    double squares = 0;
    for (size_t i = 0; i < cols; i++)
        squares += x[i] * x[i];
    return 1 / sqrt(squares / (double)cols + (double)m->c->eps);
}

static void norm(const struct double_model *m, double *y, const double *x, const double *gain, size_t rows,
                 size_t cols)
{
    for (size_t t = 0; t < rows; t++) {
        const double scale = norm_scale(m, x + t * cols, cols);
        for (size_t i = 0; i < cols; i++)
            y[t * cols + i] = x[t * cols + i] * scale * gain[i];
    }
}

/* dx += (add) or = ; dx may be dy. */
static void norm_backward(const struct double_model *m, double *dx, double *dgain, const double *dy,
                          const double *x, const double *gain, size_t rows, size_t cols, bool add)
{
    for (size_t t = 0; t < rows; t++, x += cols, dx += cols, dy += cols) {
        const double scale = norm_scale(m, x, cols);
        double along = 0;
        for (size_t i = 0; i < cols; i++) {
            along += dy[i] * gain[i] * x[i];
            dgain[i] += dy[i] * x[i] * scale;
        }
        for (size_t i = 0; i < cols; i++)
            dx[i] = (add ? dx[i] : 0) + scale * gain[i] * dy[i] -
                    scale * scale * scale / (double)cols * x[i] * along;
    }
}

static size_t document_of(const struct double_model *m, size_t row)
{
    size_t begin = 0;
    for (size_t d = 0; m->s->doc_start && d < m->s->n_docs; d++)
        if (m->s->doc_start[d] <= row)
            begin = m->s->doc_start[d];
    return begin;
}

/* sign -1: back. */
static void rotate(const struct double_model *m, double *x, size_t heads, size_t layer, double sign)
{
    const size_t D = m->c->D, half = D / 2;
    const double period = m->c->rope[m->c->sliding[layer]].base;
    for (size_t t = 0; t < m->s->n; t++)
        for (size_t h = 0; h < heads; h++)
            for (size_t i = 0; i < half; i++) {
                double *head = x + (t * heads + h) * D;
                const double position = (double)(t - document_of(m, t));
                const double angle = sign * position * pow(period, -2 * (double)i / (double)D);
                const double a = head[i], b = head[i + half];
                head[i] = a * cos(angle) - b * sin(angle);
                head[i + half] = b * cos(angle) + a * sin(angle);
            }
}

#define GELU 0.79788456080286535588 /* sqrt(2 / pi) */

static double activation(const struct double_model *m, double z, double *slope)
{
    if (m->c->act == LSI_ACT_SILU) {
        const double s = 1 / (1 + exp(-z));
        *slope = s * (1 + z * (1 - s));
        return z * s;
    }
    const double t = tanh(GELU * (z + 0.044715 * z * z * z));
    *slope = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * GELU * (1 + 3 * 0.044715 * z * z);
    return 0.5 * z * (1 + t);
}

/* ---- attention ------------------------------------------------------------------------------------ */

static size_t first_seen(const struct double_model *m, size_t layer, size_t t)
{
    const size_t window = m->c->sliding[layer] ? m->c->window : DOUBLE_ROWS, begin = document_of(m, t);
    return t + 1 > begin + window ? t + 1 - window : begin;
}

static void attend(const struct double_model *m, size_t l)
{
    const struct double_layer *a = &m->layers[l];
    const size_t H = m->c->H, G = m->c->G, D = m->c->D, n = m->s->n;
    memset(a->o, 0, n * H * D * sizeof *a->o);
    for (size_t h = 0; h < H; h++)
        for (size_t t = 0; t < n; t++) {
            double *p = a->p + (h * n + t) * n, sum = 0;
            for (size_t j = first_seen(m, l, t); j <= t; j++) {
                double dot = 0;
                for (size_t i = 0; i < D; i++)
                    dot += a->q[(t * H + h) * D + i] * a->k[(j * G + h / (H / G)) * D + i];
                sum += p[j] = exp((double)m->c->attn_scale * dot);
            }
            for (size_t j = first_seen(m, l, t); j <= t; j++) {
                p[j] /= sum;
                for (size_t i = 0; i < D; i++)
                    a->o[(t * H + h) * D + i] += p[j] * a->v[(j * G + h / (H / G)) * D + i];
            }
        }
}

static void attend_backward(const struct double_model *m, size_t l, const double *d_o, double *dq, double *dk,
                            double *dv)
{
    const struct double_layer *a = &m->layers[l];
    const size_t H = m->c->H, G = m->c->G, D = m->c->D, n = m->s->n;
    for (size_t h = 0; h < H; h++)
        for (size_t t = 0; t < n; t++) {
            const size_t row = (t * H + h) * D;
            const double *p = a->p + (h * n + t) * n;
            double dp[DOUBLE_ROWS], mean = 0;
            for (size_t j = first_seen(m, l, t); j <= t; j++) {
                const size_t kv = (j * G + h / (H / G)) * D;
                dp[j] = 0;
                for (size_t i = 0; i < D; i++) {
                    dp[j] += d_o[row + i] * a->v[kv + i];
                    dv[kv + i] += p[j] * d_o[row + i];
                }
                mean += p[j] * dp[j];
            }
            for (size_t j = first_seen(m, l, t); j <= t; j++) {
                const size_t kv = (j * G + h / (H / G)) * D;
                const double dz = (double)m->c->attn_scale * p[j] * (dp[j] - mean);
                for (size_t i = 0; i < D; i++) {
                    dq[row + i] += dz * a->k[kv + i];
                    dk[kv + i] += dz * a->q[row + i];
                }
            }
        }
}

/* ---- a layer -------------------------------------------------------------------------------------- */

struct products {
    struct product q, k, v, o, gate, up, down;
};

static struct products products_of(const struct lsi_config *c, size_t l)
{
    const size_t q = c->H * c->D, kv = c->G * c->D;
    return (struct products){
        .q = { LSI_ROLE_Q, LSI_ROLE_Q_BIAS, l, q, c->C },
        .k = { LSI_ROLE_K, LSI_ROLE_K_BIAS, l, kv, c->C },
        .v = { LSI_ROLE_V, LSI_ROLE_V_BIAS, l, kv, c->C },
        .o = { LSI_ROLE_O, LSI_ROLE_O_BIAS, l, c->C, q },
        .gate = { LSI_ROLE_GATE, LSI_ROLE_GATE_BIAS, l, c->F, c->C },
        .up = { LSI_ROLE_UP, LSI_ROLE_UP_BIAS, l, c->F, c->C },
        .down = { LSI_ROLE_DOWN, LSI_ROLE_DOWN_BIAS, l, c->C, c->F },
    };
}

/* to = from + y, behind a norm where the family has one. */
static void add(const struct double_model *m, double *to, const double *from, const double *y,
                enum lsi_role role, size_t l)
{
    const double *gain = base(m, m->values, role, l);
    const size_t C = m->c->C;
    for (size_t t = 0; t < m->s->n; t++) {
        const double scale = gain ? norm_scale(m, y + t * C, C) : 1;
        for (size_t i = 0; i < C; i++)
            to[t * C + i] = from[t * C + i] + y[t * C + i] * scale * (gain ? gain[i] : 1);
    }
}

/* Gradient of y in `add`: of the sum, through the norm. */
static void add_backward(const struct double_model *m, double *dy, const double *dx, const double *y,
                         enum lsi_role role, size_t l)
{
    const double *gain = base(m, m->values, role, l);
    if (gain)
        norm_backward(m, dy, base(m, m->grads, role, l), dx, y, gain, m->s->n, m->c->C, false);
    else
        memcpy(dy, dx, m->s->n * m->c->C * sizeof *dy);
}

void double_layer_forward(struct double_model *m, size_t l, double *y)
{
    const struct lsi_config *c = m->c;
    const struct double_layer *a = &m->layers[l];
    const struct products p = products_of(c, l);
    const size_t n = m->s->n;
    double unused;
    norm(m, a->n, a->x, base(m, m->values, LSI_ROLE_ATTN_NORM, l), n, c->C);
    linear(m, a->q_in, a->n, p.q);
    linear(m, a->k_in, a->n, p.k);
    linear(m, a->v, a->n, p.v);
    memcpy(a->q, a->q_in, n * p.q.n_out * sizeof *a->q);
    memcpy(a->k, a->k_in, n * p.k.n_out * sizeof *a->k);
    if (c->qk_norm) {
        norm(m, a->q, a->q_in, base(m, m->values, LSI_ROLE_Q_NORM, l), n * c->H, c->D);
        norm(m, a->k, a->k_in, base(m, m->values, LSI_ROLE_K_NORM, l), n * c->G, c->D);
    }
    rotate(m, a->q, c->H, l, 1);
    rotate(m, a->k, c->G, l, 1);
    attend(m, l);
    linear(m, a->y, a->o, p.o);
    add(m, a->h, a->x, a->y, LSI_ROLE_POST_ATTN_NORM, l);
    norm(m, a->n2, a->h, base(m, m->values, LSI_ROLE_FFN_NORM, l), n, c->C);
    linear(m, a->gate, a->n2, p.gate);
    linear(m, a->up, a->n2, p.up);
    for (size_t i = 0; i < n * c->F; i++)
        a->act[i] = activation(m, a->gate[i], &unused) * a->up[i];
    linear(m, a->z, a->act, p.down);
    add(m, y, a->h, a->z, LSI_ROLE_POST_FFN_NORM, l);
}

static double *zeros(size_t n)
{
    double *p = calloc(n, sizeof *p);
    REQUIRE(p != NULL);
    return p;
}

/* dx: of the MLP's sum, becomes that of h. */
static void mlp_backward(struct double_model *m, size_t l, double *dx)
{
    const size_t n = m->s->n, C = m->c->C, F = m->c->F;
    const struct double_layer *a = &m->layers[l];
    const struct products p = products_of(m->c, l);
    double *d = zeros(n * (2 * C + 3 * F)), *dn = d + n * C, *dact = dn + n * C, *dgate = dact + n * F,
           *dup = dgate + n * F;
    add_backward(m, d, dx, a->z, LSI_ROLE_POST_FFN_NORM, l);
    linear_backward(m, dact, d, a->act, p.down);
    for (size_t i = 0; i < n * F; i++) {
        double slope;
        dup[i] = dact[i] * activation(m, a->gate[i], &slope);
        dgate[i] = dact[i] * a->up[i] * slope;
    }
    linear_backward(m, dn, dgate, a->n2, p.gate);
    linear_backward(m, dn, dup, a->n2, p.up);
    norm_backward(m, dx, base(m, m->grads, LSI_ROLE_FFN_NORM, l), dn, a->h,
                  base(m, m->values, LSI_ROLE_FFN_NORM, l), n, C, true);
    free(d);
}

void double_layer_backward(struct double_model *m, size_t l, double *dx)
{
    const struct lsi_config *c = m->c;
    const struct double_layer *a = &m->layers[l];
    const struct products p = products_of(c, l);
    const size_t n = m->s->n, C = c->C, Q = p.q.n_out, KV = p.k.n_out;
    mlp_backward(m, l, dx);
    double *d = zeros(n * (2 * C + 2 * Q + 2 * KV)), *dn = d + n * C, *d_o = dn + n * C, *dq = d_o + n * Q,
           *dk = dq + n * Q, *dv = dk + n * KV;
    add_backward(m, d, dx, a->y, LSI_ROLE_POST_ATTN_NORM, l);
    linear_backward(m, d_o, d, a->o, p.o);
    attend_backward(m, l, d_o, dq, dk, dv);
    rotate(m, dq, c->H, l, -1);
    rotate(m, dk, c->G, l, -1);
    if (c->qk_norm) {
        norm_backward(m, dq, base(m, m->grads, LSI_ROLE_Q_NORM, l), dq, a->q_in,
                      base(m, m->values, LSI_ROLE_Q_NORM, l), n * c->H, c->D, false);
        norm_backward(m, dk, base(m, m->grads, LSI_ROLE_K_NORM, l), dk, a->k_in,
                      base(m, m->values, LSI_ROLE_K_NORM, l), n * c->G, c->D, false);
    }
    linear_backward(m, dn, dq, a->n, p.q);
    linear_backward(m, dn, dk, a->n, p.k);
    linear_backward(m, dn, dv, a->n, p.v);
    norm_backward(m, dx, base(m, m->grads, LSI_ROLE_ATTN_NORM, l), dn, a->x,
                  base(m, m->values, LSI_ROLE_ATTN_NORM, l), n, C, true);
    free(d);
}

/* ---- the model -------------------------------------------------------------------------------------- */

static size_t output_index(const struct double_model *m)
{
    return index_of(m, LSI_PARAM_BASE, m->c->tied ? LSI_ROLE_TOKEN_EMBD : LSI_ROLE_OUTPUT, 0);
}

/* Loss of the rows behind the last norm; dn (NULL: not wanted): their gradient, and the head's. */
static double head(struct double_model *m, double *dn)
{
    const size_t V = m->c->V, C = m->c->C, out = output_index(m);
    double sum = 0, n_valid = 0, *z = zeros(V);
    for (size_t t = 0; t < m->s->n; t++)
        n_valid += m->s->labels[t] >= 0;
    for (size_t t = 0; t < m->s->n; t++) {
        double all = 0;
        if (m->s->labels[t] < 0)
            continue;
        memset(z, 0, V * sizeof *z);
        multiply(z, m->values[out], m->n + t * C, 1, V, C, 1);
        for (size_t i = 0; i < V; i++)
            all += exp(z[i]);
        sum += log(all) - z[m->s->labels[t]];
        for (size_t i = 0; i < V; i++)
            z[i] = (exp(z[i]) / all - ((size_t)m->s->labels[t] == i)) / n_valid;
        if (dn)
            multiply_backward(dn + t * C, m->grads[out], z, m->values[out], m->n + t * C, 1, V, C, 1);
    }
    free(z);
    return sum / n_valid;
}

static void forward(struct double_model *m)
{
    const struct lsi_config *c = m->c;
    const double *embed = base(m, m->values, LSI_ROLE_TOKEN_EMBD, 0);
    for (size_t i = 0; i < m->s->n * c->C; i++)
        m->layers[0].x[i] = (double)c->embed_scale * embed[(size_t)m->s->tokens[i / c->C] * c->C + i % c->C];
    for (size_t l = 0; l < c->L; l++)
        double_layer_forward(m, l, l + 1 < c->L ? m->layers[l + 1].x : m->x);
    norm(m, m->n, m->x, base(m, m->values, LSI_ROLE_OUTPUT_NORM, 0), m->s->n, c->C);
}

double double_loss(struct double_model *m)
{
    forward(m);
    return head(m, NULL);
}

double double_gradients(struct double_model *m)
{
    const struct lsi_config *c = m->c;
    const size_t n = m->s->n;
    double *dembed = base(m, m->grads, LSI_ROLE_TOKEN_EMBD, 0);
    forward(m);
    memset(m->dx, 0, n * c->C * sizeof *m->dx);
    const double loss = head(m, m->dx);
    norm_backward(m, m->dx, base(m, m->grads, LSI_ROLE_OUTPUT_NORM, 0), m->dx, m->x,
                  base(m, m->values, LSI_ROLE_OUTPUT_NORM, 0), n, c->C, false);
    for (size_t l = c->L; l-- > 0;)
        double_layer_backward(m, l, m->dx);
    for (size_t i = 0; i < n * c->C; i++)
        dembed[(size_t)m->s->tokens[i / c->C] * c->C + i % c->C] += (double)c->embed_scale * m->dx[i];
    return loss;
}

static double *take(double **at, size_t n)
{
    double *p = *at;
    *at += n;
    return p;
}

static void lay_out(struct double_model *m)
{
    const struct lsi_config *c = m->c;
    const size_t n = m->s->n, Q = c->H * c->D, KV = c->G * c->D;
    const size_t of_layer = n * (6 * c->C + 3 * Q + 3 * KV + 3 * c->F + c->H * n);
    double *at = m->all = zeros(c->L * of_layer + 3 * n * c->C);
    for (size_t l = 0; l < c->L; l++)
        m->layers[l] = (struct double_layer){
            .x = take(&at, n * c->C),
            .n = take(&at, n * c->C),
            .q_in = take(&at, n * Q),
            .k_in = take(&at, n * KV),
            .q = take(&at, n * Q),
            .k = take(&at, n * KV),
            .v = take(&at, n * KV),
            .p = take(&at, n * n * c->H),
            .o = take(&at, n * Q),
            .y = take(&at, n * c->C),
            .h = take(&at, n * c->C),
            .n2 = take(&at, n * c->C),
            .gate = take(&at, n * c->F),
            .up = take(&at, n * c->F),
            .act = take(&at, n * c->F),
            .z = take(&at, n * c->C),
        };
    m->x = take(&at, n * c->C);
    m->n = take(&at, n * c->C);
    m->dx = take(&at, n * c->C);
}

struct double_model double_open(const ls_trainer *t, const ls_train_sequence *s)
{
    struct double_model m = { .c = &t->model.config, .params = &t->params, .s = s };
    REQUIRE(s->n <= DOUBLE_ROWS);
    REQUIRE((m.values = calloc(2 * t->params.n, sizeof *m.values)) != NULL);
    REQUIRE((m.layers = calloc(m.c->L, sizeof *m.layers)) != NULL);
    m.grads = m.values + t->params.n;
    for (size_t i = 0; i < t->params.n; i++) {
        const struct lsi_param *p = &t->params.list[i];
        m.values[i] = zeros(p->n);
        m.grads[i] = zeros(p->n);
        for (size_t k = 0; k < p->n; k++) {
            float value;
            lsi_param_get(p, k, &value, 1);
            m.values[i][k] = (double)value;
        }
    }
    lay_out(&m);
    return m;
}

void double_close(struct double_model *m)
{
    for (size_t i = 0; i < 2 * m->params->n; i++)
        free(m->values[i]);
    free(m->values);
    free(m->layers);
    free(m->all);
}
