/*
 * Gradients against finite differences. A complete layer in double precision against its own slopes, which
 * are exact to 1e-7 (training.md 16.2); then the trainer's gradients against those of the whole model in
 * double, and against its slopes along directions of every parameter.
 */
#include "double_model.h"

#define ROWS       DOUBLE_ROWS
#define VOCABULARY 83

static char dir[512];

/* ---- slopes ------------------------------------------------------------------------------------ */

typedef double value_fn(struct double_model *m);

static double moved(struct double_model *m, value_fn *f, double *values, const double *direction, size_t n,
                    double by)
{
    for (size_t i = 0; i < n; i++)
        values[i] += by * direction[i];
    const double value = f(m);
    for (size_t i = 0; i < n; i++)
        values[i] -= by * direction[i];
    return value;
}

/* Central differences of two widths, so that their errors of second order cancel. */
static double slope(struct double_model *m, value_fn *f, double *values, const double *direction, size_t n)
{
    const double h = 2e-3;
    double d[2];
    for (int i = 0; i < 2; i++) {
        const double width = i ? h / 2 : h;
        d[i] = (moved(m, f, values, direction, n, width) - moved(m, f, values, direction, n, -width)) /
               (2 * width);
    }
    return (4 * d[1] - d[0]) / 3;
}

/* Along the gradient itself, where the slope is its norm, and along a random direction. */
static double check_parameter(struct double_model *m, size_t index, const float *const *gradients,
                              size_t n_gradients)
{
    const struct lsi_param *p = &m->params->list[index];
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
        const double want = slope(m, double_loss, m->values[index], direction, p->n);
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

/* ---- a layer alone ----------------------------------------------------------------------------- */

#define LAYER_BOUND 1e-7

static struct {
    size_t layer;
    double y[ROWS * 128], weight[ROWS * 128]; /* output, and the gradient of the sum over it */
} probe;

static double probe_layer(struct double_model *m)
{
    double sum = 0;
    double_layer_forward(m, probe.layer, probe.y);
    for (size_t i = 0; i < m->s->n * m->c->C; i++)
        sum += probe.weight[i] * probe.y[i];
    return sum;
}

/* Along the gradient, at random, and by single elements: the greatest error over the norm. */
static double check_values(struct double_model *m, double *values, const double *gradient, size_t n,
                           struct lsi_rng *rng)
{
    double *direction = malloc(n * sizeof *direction), norm = 0, worst = 0;
    REQUIRE(direction != NULL);
    for (size_t i = 0; i < n; i++)
        norm += gradient[i] * gradient[i];
    norm = sqrt(norm);
    CHECK(norm > 0);
    for (size_t k = 0; k < 6; k++) {
        double dot = 0;
        const size_t single = lsi_rng_u64(rng) % n;
        for (size_t i = 0; i < n; i++) {
            direction[i] = k == 0   ? gradient[i] / norm
                           : k == 1 ? lsi_rng_normal(rng) / sqrt((double)n)
                                    : (double)(i == single);
            dot += direction[i] * gradient[i];
        }
        worst = fmax(worst, fabs(slope(m, probe_layer, values, direction, n) - dot) / norm);
    }
    free(direction);
    return worst;
}

static void check_layer(struct double_model *m, size_t layer)
{
    const size_t n = m->s->n * m->c->C;
    double dx[ROWS * 128];
    struct lsi_rng rng;
    lsi_rng_init(&rng, layer);
    REQUIRE(n <= LSI_LEN(dx));
    probe.layer = layer;
    for (size_t i = 0; i < n; i++) {
        m->layers[layer].x[i] = lsi_rng_normal(&rng);
        dx[i] = probe.weight[i] = lsi_rng_normal(&rng);
    }
    probe_layer(m);
    double_layer_backward(m, layer, dx);
    double worst = check_values(m, m->layers[layer].x, dx, n, &rng);
    for (size_t i = 0; i < m->params->n; i++) {
        const struct lsi_param *p = &m->params->list[i];
        if (lsi_role_in_layer(p->role) && p->layer == layer)
            worst = fmax(worst, check_values(m, m->values[i], m->grads[i], p->n, &rng));
    }
    CHECK(worst <= LAYER_BOUND);
    fprintf(stderr, "  %s, layer %zu: %.1e\n", m->c->family->name, layer, worst);
}

/* Every layer of every family, with packed documents, with and without adapters. */
static void test_layers_in_double(void)
{
    for (size_t i = 0; i < 2 * small_n_models; i++) {
        struct small_batch b;
        ls_train_options o = small_options(small_config_path(dir, small_models[i / 2].config), ROWS);
        o.lora_rank = i % 2 ? 3 : 0;
        ls_trainer *t = small_trainer(&o, 11);
        small_sequence(&b, ROWS - 8, VOCABULARY, i % 2 ? 2 : 0, 0, 5);
        struct double_model m = double_open(t, &b.s);
        for (size_t l = 0; l < m.c->L; l++)
            check_layer(&m, l);
        double_close(&m);
        ls_trainer_free(t);
    }
}

/* ---- cases ---------------------------------------------------------------------------------------- */

#define BOUND 1e-5
/* From the gradients in double: of all together, by norms, as training.md 15.7 has it, and of one tensor. */
#define EXACT        1e-6
#define EXACT_TENSOR 5e-6

struct distance {
    double squares, all;
};

static struct distance distance(const float *got, const double *want, size_t n)
{
    struct distance d = { 0 };
    for (size_t i = 0; i < n; i++) {
        d.squares += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        d.all += want[i] * want[i];
    }
    return d;
}

static void check_model(const char *config, size_t n_docs, size_t lora_rank)
{
    static const struct {
        ls_train_mode mode;
        size_t block;
    } ways[] = { { LS_TRAIN_STANDARD, 0 }, { LS_TRAIN_SWEEP, 7 } };
    struct small_batch b;
    struct small_result got[2];
    ls_trainer *t = NULL;
    struct distance whole[2] = { 0 };
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
    struct double_model m = double_open(t, &b.s);
    const double loss = double_gradients(&m);
    for (int i = 0; i < 2; i++)
        CHECK_NEAR(got[i].loss / loss, 1, 1e-6);
    for (size_t i = 0; i < t->params.n; i++) {
        if (!t->params.list[i].trained)
            continue;
        const float *const gradients[] = { got[0].values + at, got[1].values + at };
        const double d = check_parameter(&m, i, gradients, 2);
        if (!(d <= BOUND) || getenv("LS_TEST_VERBOSE"))
            fprintf(stderr, "  %s: %.2g\n", t->params.list[i].name, d);
        CHECK(d <= BOUND);
        for (int k = 0; k < 2; k++) {
            const struct distance of = distance(gradients[k], m.grads[i], t->params.list[i].n);
            CHECK(sqrt(of.squares / of.all) <= EXACT_TENSOR);
            whole[k].squares += of.squares;
            whole[k].all += of.all;
        }
        at += t->params.list[i].n;
    }
    CHECK_INT(at, got[0].n);
    for (int k = 0; k < 2; k++) {
        fprintf(stderr, "  %s: %.1e from double\n", t->model.config.family->name,
                sqrt(whole[k].squares / whole[k].all));
        CHECK(sqrt(whole[k].squares / whole[k].all) <= EXACT);
    }
    double_close(&m);
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
        TEST(test_layers_in_double), TEST(test_llama),    TEST(test_mistral), TEST(test_qwen),
        TEST(test_gemma3),           TEST(test_adapters),
    };
    tiny_dir(dir, sizeof dir);
    const int status = test_main(tests, sizeof tests / sizeof *tests, argc, argv);
    tiny_remove(dir);
    return status;
}
