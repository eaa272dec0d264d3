/* The configuration that is trained: a model's or a config.json's, with what the options change. */
#include <math.h>
#include <stdlib.h>
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

/* "linear:4", "yarn:4", "yarn:4:2048", "none". */
static ls_status set_scaling(struct lsi_config *c, struct lsi_rope_config *r, const char *text, ls_error *err)
{
    char *end;
    const struct lsi_rope_config plain = { .base = r->base, .factor = 1, .attention_factor = 1 };
    const char *colon = strchr(text, ':');
    const size_t len = colon ? (size_t)(colon - text) : strlen(text);
    *r = plain;
    if (strcmp(text, "none") == 0)
        return LS_OK;
    const bool linear = len == 6 && memcmp(text, "linear", 6) == 0;
    const bool yarn = len == 4 && memcmp(text, "yarn", 4) == 0;
    r->factor = colon ? strtod(colon + 1, &end) : 0;
    r->original_ctx = (double)c->n_ctx_train;
    if (yarn && colon && *end == ':')
        r->original_ctx = strtod(end + 1, &end);
    if ((!linear && !yarn) || !colon || *end || !(r->factor >= 1) || !(r->factor <= 1e6) ||
        !(r->original_ctx >= 1))
        return lsi_fail(
            err, LS_E_INVAL,
            "rope scaling \"%.60s\" is none of none, linear:FACTOR, yarn:FACTOR, yarn:FACTOR:ORIGINAL", text);
    r->scaling = linear ? LSI_ROPE_LINEAR : LSI_ROPE_YARN;
    if (yarn) {
        r->attention_factor = lsi_yarn_attention_factor(r->factor);
        r->beta_fast = 32;
        r->beta_slow = 1;
        r->truncate = true;
    }
    return LS_OK;
}

static ls_status set_rope(struct lsi_config *c, const ls_train_options *o, ls_error *err)
{
    /* Sliding layers with a base of their own (Gemma 3) see no further than before. */
    const int n = c->family->defaults.rope_base_local == 0 ? 2 : 1;
    if (o->rope_base != 0 && !(o->rope_base > 1 && o->rope_base < 1e12))
        return lsi_fail(err, LS_E_INVAL, "a rope base of %g makes no sense; it lies between 1 and 1e12",
                        o->rope_base);
    for (int i = 0; i < n; i++) {
        if (o->rope_base != 0)
            c->rope[i].base = o->rope_base;
        if (o->rope_scaling)
            LSI_TRY(set_scaling(c, &c->rope[i], o->rope_scaling, err));
    }
    if (o->rope_scaling && c->freq_divisors) { /* they were the old scaling */
        lsi_free(c->alloc, c->freq_divisors, c->D / 2 * sizeof *c->freq_divisors);
        c->freq_divisors = NULL;
    }
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
    ls_status st = set_rope(c, o, err);
    if (st != LS_OK) {
        lsi_config_fini(c);
        return st;
    }
    c->n_ctx_train = o->n_ctx ? o->n_ctx : lsi_max_size(c->n_ctx_train, o->seq);
    return LS_OK;
}
