/*
 * Gradients against finite differences: a plain forward of a complete model in double precision, written
 * here from the equations alone, differentiated along directions of every parameter; its slopes have to be
 * the inner products of those directions with the trainer's gradients, and its loss the trainer's.
 */
#include "small_trainer.h"

#define ROWS       31
#define VOCABULARY 83

static char dir[512];

/* ---- the model in double ------------------------------------------------------------------- */

struct reference {
    const struct lsi_config *c;
    const struct lsi_params *params;
    double **values; /* [params->n] */
    const ls_train_sequence *s;
    double *x, *n, *q, *k, *v, *o, *gate, *up, *y, *low; /* [ROWS][widest] */
};

static double *parameter(const struct reference *r, enum lsi_param_kind kind, enum lsi_role role,
                         size_t layer)
{
    for (size_t i = 0; i < r->params->n; i++) {
        const struct lsi_param *p = &r->params->list[i];
        if (p->kind == kind && p->role == role && p->layer == layer)
            return r->values[i];
    }
    return NULL;
}

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

/* y = W x + b + scale B (A x) */
static void linear(const struct reference *r, double *y, const double *x, enum lsi_role role,
                   enum lsi_role bias_role, size_t layer, size_t n_out, size_t n_in)
{
    const double *bias = parameter(r, LSI_PARAM_BASE, bias_role, layer);
    const double *a = parameter(r, LSI_PARAM_LORA_A, role, layer),
                 *b = parameter(r, LSI_PARAM_LORA_B, role, layer);
    const size_t rank = r->params->options.lora_rank, n = r->s->n;
    for (size_t i = 0; i < n * n_out; i++)
        y[i] = bias ? bias[i % n_out] : 0;
    multiply(y, parameter(r, LSI_PARAM_BASE, role, layer), x, n, n_out, n_in, 1);
    if (!a)
        return;
    memset(r->low, 0, n * rank * sizeof *r->low);
    multiply(r->low, a, x, n, rank, n_in, 1);
    multiply(y, b, r->low, n, n_out, rank, (double)r->params->options.lora_scale);
}

static void norm(const struct reference *r, double *y, const double *x, const double *gain, size_t rows,
                 size_t cols)
{
    for (size_t t = 0; t < rows; t++) {
        double squares = 0;
        for (size_t i = 0; i < cols; i++)
            squares += x[t * cols + i] * x[t * cols + i];
        const double scale = 1 / sqrt(squares / (double)cols + (double)r->c->eps);
        for (size_t i = 0; i < cols; i++)
            y[t * cols + i] = x[t * cols + i] * scale * gain[i];
    }
}

static size_t document_of(const struct reference *r, size_t row)
{
    size_t begin = 0;
    for (size_t d = 0; r->s->doc_start && d < r->s->n_docs; d++)
        if (r->s->doc_start[d] <= row)
            begin = r->s->doc_start[d];
    return begin;
}

static void rotate(const struct reference *r, double *x, size_t heads, size_t layer)
{
    const size_t D = r->c->D, half = D / 2;
    const double base = r->c->rope[r->c->sliding[layer]].base;
    for (size_t t = 0; t < r->s->n; t++)
        for (size_t h = 0; h < heads; h++)
            for (size_t i = 0; i < half; i++) {
                double *head = x + (t * heads + h) * D;
                const double position = (double)(t - document_of(r, t));
                const double angle = position * pow(base, -2 * (double)i / (double)D);
                const double a = head[i], b = head[i + half];
                head[i] = a * cos(angle) - b * sin(angle);
                head[i + half] = b * cos(angle) + a * sin(angle);
            }
}

static void attend(const struct reference *r, size_t layer)
{
    const size_t H = r->c->H, G = r->c->G, D = r->c->D;
    const size_t window = r->c->sliding[layer] ? r->c->window : ROWS;
    double p[ROWS];
    for (size_t t = 0; t < r->s->n; t++)
        for (size_t h = 0; h < H; h++) {
            const double *q = r->q + (t * H + h) * D;
            const size_t g = h / (H / G), begin = document_of(r, t),
                         first = t + 1 > begin + window ? t + 1 - window : begin;
            double *o = r->o + (t * H + h) * D, sum = 0;
            for (size_t j = first; j <= t; j++) {
                double dot = 0;
                for (size_t i = 0; i < D; i++)
                    dot += q[i] * r->k[(j * G + g) * D + i];
                sum += p[j] = exp((double)r->c->attn_scale * dot);
            }
            for (size_t i = 0; i < D; i++) {
                o[i] = 0;
                for (size_t j = first; j <= t; j++)
                    o[i] += p[j] / sum * r->v[(j * G + g) * D + i];
            }
        }
}

static double activation(const struct reference *r, double z)
{
    if (r->c->act == LSI_ACT_SILU)
        return z / (1 + exp(-z));
    return 0.5 * z * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (z + 0.044715 * z * z * z)));
}

/* x += y, behind a norm where the family has one. */
static void add(const struct reference *r, enum lsi_role post_norm, size_t layer)
{
    const double *gain = parameter(r, LSI_PARAM_BASE, post_norm, layer);
    if (gain)
        norm(r, r->y, r->y, gain, r->s->n, r->c->C);
    for (size_t i = 0; i < r->s->n * r->c->C; i++)
        r->x[i] += r->y[i];
}

static void layer_forward(const struct reference *r, size_t l)
{
    const struct lsi_config *c = r->c;
    const size_t n = r->s->n, q_cols = c->H * c->D, kv_cols = c->G * c->D;
    norm(r, r->n, r->x, parameter(r, LSI_PARAM_BASE, LSI_ROLE_ATTN_NORM, l), n, c->C);
    linear(r, r->q, r->n, LSI_ROLE_Q, LSI_ROLE_Q_BIAS, l, q_cols, c->C);
    linear(r, r->k, r->n, LSI_ROLE_K, LSI_ROLE_K_BIAS, l, kv_cols, c->C);
    linear(r, r->v, r->n, LSI_ROLE_V, LSI_ROLE_V_BIAS, l, kv_cols, c->C);
    if (c->qk_norm) {
        norm(r, r->q, r->q, parameter(r, LSI_PARAM_BASE, LSI_ROLE_Q_NORM, l), n * c->H, c->D);
        norm(r, r->k, r->k, parameter(r, LSI_PARAM_BASE, LSI_ROLE_K_NORM, l), n * c->G, c->D);
    }
    rotate(r, r->q, c->H, l);
    rotate(r, r->k, c->G, l);
    attend(r, l);
    linear(r, r->y, r->o, LSI_ROLE_O, LSI_ROLE_O_BIAS, l, c->C, q_cols);
    add(r, LSI_ROLE_POST_ATTN_NORM, l);
    norm(r, r->n, r->x, parameter(r, LSI_PARAM_BASE, LSI_ROLE_FFN_NORM, l), n, c->C);
    linear(r, r->gate, r->n, LSI_ROLE_GATE, LSI_ROLE_GATE_BIAS, l, c->F, c->C);
    linear(r, r->up, r->n, LSI_ROLE_UP, LSI_ROLE_UP_BIAS, l, c->F, c->C);
    for (size_t i = 0; i < n * c->F; i++)
        r->gate[i] = activation(r, r->gate[i]) * r->up[i];
    linear(r, r->y, r->gate, LSI_ROLE_DOWN, LSI_ROLE_DOWN_BIAS, l, c->C, c->F);
    add(r, LSI_ROLE_POST_FFN_NORM, l);
}

/* Mean loss of the valid labels. */
static double loss_of(const struct reference *r)
{
    const struct lsi_config *c = r->c;
    const double *embed = parameter(r, LSI_PARAM_BASE, LSI_ROLE_TOKEN_EMBD, 0);
    const double *out = c->tied ? embed : parameter(r, LSI_PARAM_BASE, LSI_ROLE_OUTPUT, 0);
    double sum = 0, n_valid = 0;
    for (size_t i = 0; i < r->s->n * c->C; i++)
        r->x[i] = (double)c->embed_scale * embed[(size_t)r->s->tokens[i / c->C] * c->C + i % c->C];
    for (size_t l = 0; l < c->L; l++)
        layer_forward(r, l);
    norm(r, r->n, r->x, parameter(r, LSI_PARAM_BASE, LSI_ROLE_OUTPUT_NORM, 0), r->s->n, c->C);
    for (size_t t = 0; t < r->s->n; t++) {
        double all = 0, wanted = 0;
        if (r->s->labels[t] < 0)
            continue;
        for (size_t i = 0; i < c->V; i++) {
            double z = 0;
            for (size_t j = 0; j < c->C; j++)
                z += out[i * c->C + j] * r->n[t * c->C + j];
            all += exp(z);
            wanted = (size_t)r->s->labels[t] == i ? z : wanted;
        }
        sum += log(all) - wanted;
        n_valid++;
    }
    return sum / n_valid;
}

static size_t widest(const struct lsi_config *c)
{
    return lsi_max_size(lsi_max_size(c->C, c->F), c->H * c->D);
}

static struct reference open_reference(const ls_trainer *t, const ls_train_sequence *s)
{
    struct reference r = { .c = &t->model.config, .params = &t->params, .s = s };
    double **const all[] = { &r.x, &r.n, &r.q, &r.k, &r.v, &r.o, &r.gate, &r.up, &r.y, &r.low };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        REQUIRE((*all[i] = malloc(ROWS * widest(r.c) * sizeof(double))) != NULL);
    REQUIRE((r.values = malloc(t->params.n * sizeof *r.values)) != NULL);
    for (size_t i = 0; i < t->params.n; i++) {
        const struct lsi_param *p = &t->params.list[i];
        REQUIRE((r.values[i] = malloc(p->n * sizeof(double))) != NULL);
        for (size_t k = 0; k < p->n; k++) {
            float value;
            lsi_param_get(p, k, &value, 1);
            r.values[i][k] = (double)value;
        }
    }
    return r;
}

static void close_reference(struct reference *r)
{
    double *const all[] = { r->x, r->n, r->q, r->k, r->v, r->o, r->gate, r->up, r->y, r->low };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    for (size_t i = 0; i < r->params->n; i++)
        free(r->values[i]);
    free(r->values);
}

/* ---- slopes ------------------------------------------------------------------------------------ */

static double moved_loss(struct reference *r, double *values, const double *direction, size_t n, double by)
{
    for (size_t i = 0; i < n; i++)
        values[i] += by * direction[i];
    const double loss = loss_of(r);
    for (size_t i = 0; i < n; i++)
        values[i] -= by * direction[i];
    return loss;
}

/* Central differences of two widths, so that their errors of second order cancel. */
static double slope(struct reference *r, double *values, const double *direction, size_t n)
{
    const double h = 2e-3;
    double d[2];
    for (int i = 0; i < 2; i++) {
        const double width = i ? h / 2 : h;
        d[i] = (moved_loss(r, values, direction, n, width) - moved_loss(r, values, direction, n, -width)) /
               (2 * width);
    }
    return (4 * d[1] - d[0]) / 3;
}

/* Along the gradient itself, where the slope is its norm, and along a random direction. */
static double check_parameter(struct reference *r, size_t index, const float *const *gradients,
                              size_t n_gradients)
{
    const struct lsi_param *p = &r->params->list[index];
    double *direction = malloc(p->n * sizeof *direction), norm = 0, worst = 0;
    struct lsi_rng rng;
    REQUIRE(direction != NULL);
    lsi_rng_init(&rng, index);
    for (size_t i = 0; i < p->n; i++)
        norm += (double)gradients[0][i] * (double)gradients[0][i];
    norm = sqrt(norm);
    CHECK(norm > 0);
    for (int random = 0; random < 2; random++) {
        /* A random direction sees about 1 / sqrt(n) of the norm. */
        const double size = random ? 1 / sqrt((double)p->n) : 1;
        for (size_t i = 0; i < p->n; i++)
            direction[i] = random ? size * lsi_rng_normal(&rng) : (double)gradients[0][i] / norm;
        const double want = slope(r, r->values[index], direction, p->n);
        for (size_t g = 0; g < n_gradients; g++) {
            double dot = 0;
            for (size_t i = 0; i < p->n; i++)
                dot += (double)gradients[g][i] * direction[i];
            worst = fmax(worst, fabs(dot - want) / (size * norm));
        }
    }
    free(direction);
    return worst;
}

/* ---- cases ---------------------------------------------------------------------------------------- */

#define BOUND 1e-5

static void check_model(const char *config, size_t n_docs, size_t lora_rank)
{
    static const struct {
        ls_train_mode mode;
        size_t block;
    } ways[] = { { LS_TRAIN_STANDARD, 0 }, { LS_TRAIN_SWEEP, 7 } };
    struct small_batch b;
    struct small_result got[2];
    ls_trainer *t = NULL;
    size_t at = 0;
    small_sequence(&b, ROWS, VOCABULARY, n_docs, 0.2, 23);
    for (int i = 0; i < 2; i++) {
        ls_train_options o = small_options(small_config_path(dir, config), ROWS);
        o.mode = ways[i].mode;
        o.block = ways[i].block;
        o.lora_rank = lora_rank;
        ls_trainer_free(t);
        t = small_trainer(&o, 11);
        got[i] = small_gradients(t, &b.s, 1);
    }
    struct reference r = open_reference(t, &b.s);
    const double loss = loss_of(&r);
    for (int i = 0; i < 2; i++)
        CHECK_NEAR(got[i].loss / loss, 1, 1e-6);
    for (size_t i = 0; i < t->params.n; i++) {
        if (!t->params.list[i].trained)
            continue;
        const float *const gradients[] = { got[0].values + at, got[1].values + at };
        const double d = check_parameter(&r, i, gradients, 2);
        if (!(d <= BOUND) || getenv("LS_TEST_VERBOSE"))
            fprintf(stderr, "  %s: %.2g\n", t->params.list[i].name, d);
        CHECK(d <= BOUND);
        at += t->params.list[i].n;
    }
    CHECK_INT(at, got[0].n);
    close_reference(&r);
    small_free(&got[0]);
    small_free(&got[1]);
    ls_trainer_free(t);
}

static void test_llama(void)
{
    check_model(small_find("llama untied"), 0, 0);
    check_model(small_find("llama tied"), 3, 0);
}

static void test_mistral(void)
{
    check_model(small_find("mistral"), 2, 0);
}

static void test_qwen(void)
{
    check_model(small_find("qwen2"), 0, 0);
    check_model(small_find("qwen3"), 3, 0);
}

static void test_gemma3(void)
{
    check_model(small_find("gemma3"), 0, 0);
    check_model(small_find("gemma3"), 2, 0);
}

static void test_adapters(void)
{
    check_model(small_find("llama tied"), 0, 3);
    check_model(small_find("gemma3"), 2, 4);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_llama), TEST(test_mistral), TEST(test_qwen), TEST(test_gemma3), TEST(test_adapters),
    };
    tiny_dir(dir, sizeof dir);
    const int status = test_main(tests, sizeof tests / sizeof *tests, argc, argv);
    tiny_remove(dir);
    return status;
}
