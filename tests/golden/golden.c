#include "golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define CLEAR_MARGIN 0.25f

/* Elements of a tensor of 4-byte values, or NULL when it is missing or has another type. */
static const void *tensor(const struct golden *g, const char *name, enum lsi_dtype dtype, size_t *rows,
                          size_t *cols)
{
    const struct lsi_st_tensor *t = lsi_st_find(&g->file, name);

    if (!t || t->dtype != dtype || t->rank < 1 || t->rank > 2 || (uintptr_t)t->data % sizeof(float) != 0)
        return NULL;
    if (rows)
        *rows = (size_t)t->shape[0];
    if (cols)
        *cols = t->rank == 2 ? (size_t)t->shape[1] : 1;
    return t->data;
}

ls_status golden_open(struct golden *g, const char *name, ls_error *err)
{
    const char *dir = getenv("LONGSPAN_GOLDEN");
    const struct lsi_st_tensor *text;
    char path[4096];

    memset(g, 0, sizeof *g);
    snprintf(path, sizeof path, "%s/%s.safetensors", dir ? dir : LS_SOURCE_DIR "/tests/data/golden", name);
    LSI_TRY(lsi_st_open(&g->file, path, lsi_alloc_or_default(NULL), err));
    g->ids = tensor(g, "ids", LSI_I32, &g->n_tokens, NULL);
    g->nll = tensor(g, "nll", LSI_F32, NULL, NULL);
    g->top = tensor(g, "top", LSI_I32, NULL, NULL);
    g->margin = tensor(g, "margin", LSI_F32, NULL, NULL);
    g->lse = tensor(g, "lse", LSI_F32, NULL, NULL);
    g->probe_ids = tensor(g, "probe_ids", LSI_I32, &g->n_probe, NULL);
    g->probe = tensor(g, "probe", LSI_F32, NULL, NULL);
    if (lsi_st_find(&g->file, "full")) {
        g->full_at = tensor(g, "full_at", LSI_I32, NULL, NULL);
        g->full = tensor(g, "full", LSI_F32, &g->n_full, &g->n_vocab);
    }
    text = lsi_st_find(&g->file, "text");
    if (text) {
        g->text = (const char *)text->data;
        g->text_len = text->bytes;
    }
    if (g->ids && g->nll && g->top && g->margin && g->lse && g->probe_ids && g->probe)
        return LS_OK;
    lsi_st_close(&g->file);
    return lsi_fail(err, LS_E_FORMAT, "%s lacks a tensor that scripts/make-golden/golden.py writes", path);
}

void golden_close(struct golden *g)
{
    lsi_st_close(&g->file);
}

/* State of the comparison while rows arrive. */
struct compare {
    const struct golden *g;
    size_t n_vocab;
    float *keep;
    size_t next_full;
    size_t n_rows, n_compared, n_top, n_clear, n_top_clear;
    double max, sum2, nll_abs, nll_net, nll_sum2;
    uint64_t bits;
};

static void compare_value(struct compare *c, float got, float want)
{
    const double d = fabs((double)got - (double)want);

    if (!(d <= c->max)) /* NaN too */
        c->max = d;
    c->sum2 += d * d;
    c->n_compared++;
}

static void compare_row(struct compare *c, size_t row, const float *logits)
{
    const struct golden *g = c->g;
    size_t top = 0;
    double sum = 0, lse;

    for (size_t v = 0; v < c->n_vocab; v++) {
        uint32_t u;

        memcpy(&u, &logits[v], sizeof u);
        c->bits = (c->bits ^ u) * 1099511628211u;
        if (logits[v] > logits[top])
            top = v;
    }
    for (size_t v = 0; v < c->n_vocab; v++)
        sum += exp((double)logits[v] - (double)logits[top]);
    lse = (double)logits[top] + log(sum);

    for (size_t p = 0; p < g->n_probe; p++)
        compare_value(c, logits[g->probe_ids[p]], g->probe[row * g->n_probe + p]);
    if (c->next_full < g->n_full && (size_t)g->full_at[c->next_full] == row) {
        for (size_t v = 0; v < c->n_vocab; v++)
            compare_value(c, logits[v], g->full[c->next_full * g->n_vocab + v]);
        c->next_full++;
    }
    if (fabs(lse - (double)g->lse[row]) > c->max)
        c->max = fabs(lse - (double)g->lse[row]);

    c->n_rows++;
    c->n_top += top == (size_t)g->top[row];
    if (g->margin[row] >= CLEAR_MARGIN) {
        c->n_clear++;
        c->n_top_clear += top == (size_t)g->top[row];
    }
    if (row + 1 < g->n_tokens) {
        const double d = lse - (double)logits[g->ids[row + 1]] - (double)g->nll[row];

        c->nll_abs += fabs(d);
        c->nll_net += d;
        c->nll_sum2 += d * d;
    }
}

static ls_status compare_rows(void *user, size_t row0, size_t n_rows, const float *logits)
{
    struct compare *c = user;

    for (size_t r = 0; r < n_rows; r++) {
        compare_row(c, row0 + r, logits + r * c->n_vocab);
        if (c->keep)
            memcpy(c->keep + (row0 + r) * c->n_vocab, logits + r * c->n_vocab, c->n_vocab * sizeof *logits);
    }
    return LS_OK;
}

ls_status golden_compare(const struct golden *g, ls_model *model, const struct golden_run *run,
                         struct golden_diff *diff, float *keep, ls_error *err)
{
    struct compare c = { .g = g, .keep = keep, .bits = 14695981039346656037u };
    ls_context_options o;
    ls_context *ctx = NULL;
    ls_status st;

    ls_context_options_defaults(&o);
    o.n_ctx = g->n_tokens;
    o.kv = run->kv;
    o.compute = run->compute;
    o.n_threads = run->n_threads;
    o.block = run->block;
    LSI_TRY(ls_context_create(model, &o, &ctx, err));
    c.n_vocab = ls_context_n_vocab(ctx);
    if (g->n_full && g->n_vocab != c.n_vocab) {
        st = lsi_fail(err, LS_E_FORMAT, "the reference has %zu logits a row, the model %zu", g->n_vocab,
                      c.n_vocab);
        goto out;
    }
    st = ls_context_append_all(ctx, g->ids, g->n_tokens, compare_rows, &c, err);
    if (st != LS_OK)
        goto out;
    *diff = (struct golden_diff){
        .n_rows = c.n_rows,
        .max = c.max,
        .rms = sqrt(c.sum2 / (double)c.n_compared),
        .top = (double)c.n_top / (double)c.n_rows,
        .top_clear = c.n_clear ? (double)c.n_top_clear / (double)c.n_clear : 1,
        .nll_abs = c.nll_abs / (double)(g->n_tokens - 1),
        .nll_net = c.nll_net / (double)(g->n_tokens - 1),
        .nll_error = sqrt(c.nll_sum2) / (double)(g->n_tokens - 1),
        .bits = c.bits,
    };
out:
    ls_context_free(ctx);
    return st;
}

void golden_print(const char *what, const struct golden_diff *d)
{
    fprintf(stderr,
            "    %-32s rows %zu  max %.2e  rms %.2e  top-1 %.2f %% (clear ones %.2f %%)  |dNLL| %.2e  net "
            "%+.1e +- %.1e\n",
            what, d->n_rows, d->max, d->rms, 100 * d->top, 100 * d->top_clear, d->nll_abs, d->nll_net,
            d->nll_error);
}

const char *golden_model_path(const char *variable, const char *file)
{
    static char path[4096];
    const char *given = getenv(variable), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (given && *given)
        snprintf(path, sizeof path, "%s", given);
    else if (cache && *cache)
        snprintf(path, sizeof path, "%s/longspan/%s", cache, file);
    else
        snprintf(path, sizeof path, "%s/.cache/longspan/%s", home ? home : "", file);
    return lsi_path_exists(path) ? path : NULL;
}
