/* The configuration that is trained: a model's or a config.json's, with what the options change. */
#include <string.h>

#include "base/json.h"
#include "train/trainer.h"

#define CONFIG_BYTES ((size_t)16 << 20)
#define INIT_STD     0.02 /* where the file does not say */

static ls_status from_json(struct lsi_config *c, const char *path, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_map map;
    LSI_TRY(lsi_map_read(&map, path, CONFIG_BYTES, alloc, err));
    const ls_status st = lsi_config_from_json(c, map.data, map.bytes, path, alloc, err);
    lsi_map_close(&map);
    return st;
}

ls_status lsi_trainer_init_std(const char *path, const ls_alloc *alloc, double *std, ls_error *err)
{
    struct lsi_map map;
    struct lsi_json j;
    struct lsi_json_str key;
    ls_status st = LS_OK;
    *std = INIT_STD;
    LSI_TRY(lsi_map_read(&map, path, CONFIG_BYTES, alloc, err));
    lsi_json_init(&j, map.data, map.bytes, path, err);
    LSI_TRY_OR(end, lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key)) {
        const bool wanted = lsi_json_str_is(&key, "initializer_range");
        LSI_TRY_OR(end, wanted ? lsi_json_double(&j, std) : lsi_json_skip(&j));
    }
    LSI_TRY_OR(end, lsi_json_end(&j));
    if (!(*std > 0 && *std < 10))
        st = lsi_fail(err, LS_E_FORMAT, "%s: initializer_range is %g; it lies between 0 and 10", path, *std);
end:
    lsi_map_close(&map);
    return st;
}

static ls_status from_model(struct lsi_config *c, const char *path, const ls_alloc *alloc, ls_error *err)
{
    ls_model_options o;
    ls_model *m;
    ls_model_options_defaults(&o);
    o.alloc = alloc;
    LSI_TRY(ls_model_open(path, &o, &m, err));
    const ls_status st = lsi_config_copy(c, &m->config, alloc, err);
    ls_model_close(m);
    return st;
}

ls_status lsi_trainer_extension(struct lsi_extension *e, const ls_train_options *o, size_t n_ctx_model,
                                ls_error *err)
{
    const char *scaling = o->rope_scaling ? o->rope_scaling : "";
    *e = (struct lsi_extension){ .rope_base = o->rope_base };
    e->n_ctx = o->n_ctx ? o->n_ctx : lsi_max_size(n_ctx_model, o->seq);
    if (strlen(scaling) >= sizeof e->rope_scaling)
        return lsi_fail(err, LS_E_INVAL, "the rope scaling \"%.60s…\" is too long", scaling);
    memcpy(e->rope_scaling, scaling, strlen(scaling) + 1);
    return LS_OK;
}

ls_status lsi_trainer_config(struct lsi_config *c, const ls_train_options *o, ls_error *err)
{
    const ls_alloc *alloc = lsi_alloc_or_default(o->alloc);
    *c = (struct lsi_config){ 0 };
    if (!o->model == !o->init)
        return lsi_fail(err, LS_E_INVAL, "training takes a model, or a config.json to begin from (init)");
    LSI_TRY(o->init ? from_json(c, o->init, alloc, err) : from_model(c, o->model, alloc, err));
    c->interleaved = false; /* parameters are in the order of Hugging Face files */
    struct lsi_extension e;
    ls_status st = lsi_trainer_extension(&e, o, c->n_ctx_train, err);
    if (st == LS_OK)
        st = lsi_config_extend(c, &e, err);
    if (st != LS_OK)
        lsi_config_fini(c);
    return st;
}
