#include "small_params.h"

#include <stdlib.h>
#include <string.h>

#include "base/numbers.h"
#include "ops/backward.h"

#define MAX_PARAMS 200

static void die(const char *what)
{
    fprintf(stderr, "small parameters: %s\n", what);
    abort();
}

void small_config(struct lsi_config *c, const char *text)
{
    ls_error err = { 0 };
    if (lsi_config_from_json(c, text, strlen(text), "config.json", NULL, &err) != LS_OK)
        die(err.text);
}

static size_t moment_bytes(const struct lsi_param *x)
{
    return lsi_moments_bytes(x->moments, x->n);
}

static void *random_bytes(const ls_alloc *a, size_t n, struct lsi_rng *rng)
{
    unsigned char *p = lsi_alloc(a, n);
    if (!p)
        die("memory");
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)lsi_rng_u64(rng);
    return p;
}

static void fill_weights(struct lsi_param *x, const ls_alloc *a, bool gain, struct lsi_rng *rng)
{
    float *values = lsi_alloc(a, x->n * sizeof *values);
    for (size_t i = 0; i < x->n; i++)
        values[i] = (float)(lsi_rng_double(rng) - 0.5) + (gain ? 1.0f : 0.0f);
    x->master = x->has_master ? values : NULL;
    x->w = x->dtype == LSI_F32 && !x->has_master ? values : lsi_alloc(a, x->n * 4);
    for (size_t i = 0; x->dtype == LSI_BF16 && i < x->n; i++)
        ((lsi_bf16 *)x->w)[i] = lsi_bf16_from_f32(values[i]);
    if (!x->has_master && x->dtype == LSI_BF16)
        lsi_free(a, values, x->n * sizeof *values);
}

static void add(struct lsi_params *p, const struct small_spec *spec, struct lsi_param *x, struct lsi_rng *rng)
{
    if (p->n == MAX_PARAMS)
        die("too many");
    x->n = x->rows * x->cols;
    x->trained = spec->lora_rank == 0 || x->kind != LSI_PARAM_BASE;
    x->dtype = x->rank == 2 && x->kind == LSI_PARAM_BASE ? spec->dtype : LSI_F32;
    x->has_master = spec->master && x->dtype == LSI_BF16 && x->trained;
    x->moments = x->rank == 2 ? spec->moments : LSI_MOMENTS_F32;
    fill_weights(x, p->alloc, lsi_role_is_gain(x->role), rng);
    if (x->trained) {
        x->m = random_bytes(p->alloc, moment_bytes(x), rng);
        x->v = random_bytes(p->alloc, moment_bytes(x), rng);
    }
    p->list[p->n++] = *x;
}

static void add_role(struct lsi_params *p, const struct lsi_config *c, const struct small_spec *spec,
                     enum lsi_role role, size_t layer, struct lsi_rng *rng)
{
    const struct lsi_source hf = { .prefix = "model.", .head_prefix = "" };
    const struct lsi_shape shape = lsi_role_shape(c, role);
    struct lsi_param x = {
        .role = role, .layer = layer, .rank = shape.rank, .rows = shape.rows, .cols = shape.cols
    };
    if (shape.rank == 0)
        return;
    lsi_source_name(&hf, c->family, role, layer, x.name, sizeof x.name);
    add(p, spec, &x, rng);
    const bool targeted = role == LSI_ROLE_Q || role == LSI_ROLE_DOWN;
    if (spec->lora_rank == 0 || !targeted)
        return;
    const size_t stem = strlen(x.name) - strlen(".weight");
    for (int b = 0; b < 2; b++) {
        struct lsi_param y = { .role = role,
                               .layer = layer,
                               .kind = b ? LSI_PARAM_LORA_B : LSI_PARAM_LORA_A,
                               .rank = 2,
                               .rows = b ? shape.rows : spec->lora_rank,
                               .cols = b ? spec->lora_rank : shape.cols };
        snprintf(y.name, sizeof y.name, "%.*s.lora_%c.weight", (int)stem, x.name, b ? 'B' : 'A');
        add(p, spec, &y, rng);
    }
}

void small_params(struct lsi_params *p, const struct lsi_config *c, const struct small_spec *spec,
                  const ls_alloc *alloc)
{
    struct lsi_rng rng;
    lsi_rng_init(&rng, spec->seed);
    *p = (struct lsi_params){ .alloc = lsi_alloc_or_default(alloc) };
    p->list = lsi_calloc(p->alloc, MAX_PARAMS, sizeof *p->list);
    add_role(p, c, spec, LSI_ROLE_TOKEN_EMBD, 0, &rng);
    for (size_t i = 0; i < c->L; i++)
        for (enum lsi_role role = LSI_ROLE_ATTN_NORM; role < LSI_N_ROLES; role++)
            add_role(p, c, spec, role, i, &rng);
    add_role(p, c, spec, LSI_ROLE_OUTPUT_NORM, 0, &rng);
    add_role(p, c, spec, LSI_ROLE_OUTPUT, 0, &rng);
}

void small_params_free(struct lsi_params *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct lsi_param *x = &p->list[i];
        lsi_free(p->alloc, x->w, x->n * 4);
        if (x->has_master)
            lsi_free(p->alloc, x->master, x->n * sizeof *x->master);
        if (x->m)
            lsi_free(p->alloc, x->m, moment_bytes(x));
        if (x->v)
            lsi_free(p->alloc, x->v, moment_bytes(x));
    }
    lsi_free(p->alloc, p->list, MAX_PARAMS * sizeof *p->list);
}

/* Moments beyond their elements are padding: files do not keep it. */
static size_t kept_bytes(const struct lsi_param *x)
{
    return x->moments == LSI_MOMENTS_F32    ? x->n * 4
           : x->moments == LSI_MOMENTS_BF16 ? x->n * 2
                                            : moment_bytes(x);
}

bool small_params_equal(const struct lsi_params *a, const struct lsi_params *b)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct lsi_param *x = &a->list[i], *y = &b->list[i];
        if (!x->trained)
            continue;
        if (memcmp(x->w, y->w, x->n * lsi_dtype_block_bytes(x->dtype)) != 0 ||
            memcmp(x->m, y->m, kept_bytes(x)) != 0 || memcmp(x->v, y->v, kept_bytes(x)) != 0 ||
            (x->master && memcmp(x->master, y->master, x->n * 4) != 0))
            return false;
    }
    return a->n == b->n;
}
