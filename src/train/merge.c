/* A model with an adapter added to its matrices, written by the conversion. */
#include <string.h>

#include <longspan/adapter.h>

#include "model/convert_impl.h"
#include "model/hf_dir.h"
#include "train/adapter.h"

#define TILE ((size_t)256) /* columns at a time */

struct merge {
    struct lsi_adapter a;
    const char *dir;
};

/* The context that the adapter was trained for. */
static ls_status configure(void *user, struct lsi_config *c, bool *changed, ls_error *err)
{
    const struct merge *m = user;
    const struct lsi_extension *e = &m->a.extension;
    ls_error inner = { 0 };
    *changed = e->rope_base != 0 || *e->rope_scaling || (e->n_ctx && e->n_ctx != c->n_ctx_train);
    const ls_status st = lsi_config_extend(c, e, &inner);
    return st == LS_OK ? st : lsi_fail(err, st, "%s/" LSI_EXTENSION_FILE ": %s", m->dir, inner.text);
}

static bool is_target(void *user, enum lsi_role role, size_t layer)
{
    const struct merge *m = user;
    return lsi_adapter_find(&m->a, role, layer) != NULL;
}

/* row += (alpha / r) B[row] A, the sum over the rank first: it is small against the weights. */
static void add_row(void *user, enum lsi_role role, size_t layer, size_t row, float *values)
{
    const struct lsi_adapter *a = &((const struct merge *)user)->a;
    const struct lsi_adapter_target *t = lsi_adapter_find(a, role, layer);
    const float *b = t->b + row * a->rank;
    const float scale = (float)(a->alpha / (double)a->rank);
    for (size_t at = 0; at < t->n_in; at += TILE) {
        const size_t n = lsi_min_size(TILE, t->n_in - at);
        float sum[TILE] = { 0 };
        for (size_t k = 0; k < a->rank; k++) {
            const float *restrict x = t->a + k * t->n_in + at;
            for (size_t i = 0; i < n; i++)
                sum[i] += b[k] * x[i];
        }
        for (size_t i = 0; i < n; i++)
            values[at + i] += scale * sum[i];
    }
}

ls_status ls_merge_adapter(const char *model, const char *adapter, const char *out,
                           const ls_convert_options *options, ls_error *err)
{
    ls_convert_options o;
    ls_model_options mo;
    ls_model *m = NULL;
    struct merge merge = { .dir = adapter };
    ls_status st;

    if (!model || !adapter || !out || !*out)
        return lsi_fail(err, LS_E_INVAL, "ls_merge_adapter: a path is missing");
    ls_convert_options_defaults(&o);
    if (options)
        memcpy(&o, options, lsi_min_size(options->struct_size, sizeof o));
    o.struct_size = sizeof o;
    ls_model_options_defaults(&mo);
    mo.alloc = o.alloc;
    LSI_TRY(ls_model_open(model, &mo, &m, err));
    st = lsi_adapter_open(&merge.a, adapter, &m->config, o.alloc, err);
    if (st == LS_OK) {
        const struct lsi_convert_edit edit = {
            .configure = configure, .wanted = is_target, .apply = add_row, .user = &merge
        };
        st = lsi_convert_edited(model, out, &o, LSI_SHARD_BYTES, &edit, err);
    }
    lsi_adapter_close(&merge.a);
    ls_model_close(m);
    return st;
}
