/* Opening a planner, and the trainer's layout run dry. */
#include <string.h>

#include "model/model_impl.h"
#include "plan/plan_impl.h"
#include "train/layout.h"

#define CONFIG_BYTES ((size_t)16 << 20)

/* ---- opening -------------------------------------------------------------------- */

static ls_status config_from_file(struct lsi_config *c, const char *path, const ls_alloc *alloc,
                                  ls_error *err)
{
    struct lsi_map m;
    LSI_TRY(lsi_map_read(&m, path, CONFIG_BYTES, alloc, err));
    const ls_status st = lsi_config_from_json(c, m.data, m.bytes, path, alloc, err);
    lsi_map_close(&m);
    return st;
}

/* A directory's config.json is enough: its weights need not be there. */
static ls_status config_from_path(struct lsi_config *c, const char *path, const ls_alloc *alloc,
                                  ls_error *err)
{
    char config[LSI_MODEL_PATH];
    struct lsi_source source;

    if (lsi_path_has_suffix(path, ".json"))
        return config_from_file(c, path, alloc, err);
    if (lsi_path_is_dir(path) && lsi_path_join(config, sizeof config, path, "config.json") &&
        lsi_path_exists(config))
        return config_from_file(c, config, alloc, err);
    LSI_TRY(lsi_source_open(&source, c, path, alloc, err));
    lsi_source_close(&source);
    return LS_OK;
}

static bool known_names(char *out, size_t cap)
{
    size_t used = 0;
    for (size_t i = 0; ls_plan_shape_name(i) && used < cap; i++)
        used += (size_t)snprintf(out + used, cap - used, "%s%s", i ? ", " : "", ls_plan_shape_name(i));
    return used < cap;
}

static ls_status read_model(ls_planner *p, const char *model, ls_error *err)
{
    char json[1024], names[256];

    if (lsi_plan_named_shape(model, &p->shape, json, sizeof json)) {
        if (!json[0])
            return LS_OK;
        LSI_TRY(lsi_config_from_json(&p->config, json, strlen(json), model, p->alloc, err));
    } else if (!lsi_path_exists(model) && !strchr(model, '/') && known_names(names, sizeof names)) {
        return lsi_fail(err, LS_E_INVAL, "'%s' is neither a file nor a known shape (known: %s)", model,
                        names);
    } else {
        LSI_TRY(config_from_path(&p->config, model, p->alloc, err));
    }
    p->has_config = true;
    p->config.interleaved = false; /* as the trainer keeps parameters */
    lsi_plan_shape_of(&p->config, &p->shape);
    return LS_OK;
}

ls_status ls_planner_open(const char *model, const ls_alloc *alloc, ls_planner **out, ls_error *err)
{
    const ls_alloc *a = lsi_alloc_or_default(alloc);
    ls_status st;

    *out = NULL;
    ls_planner *p = lsi_calloc(a, 1, sizeof *p);
    if (!p)
        return lsi_fail(err, LS_E_NOMEM, "out of memory for a planner");
    p->alloc = a;
    LSI_TRY_OR(fail, read_model(p, model, err));
    p->name_bytes = strlen(model) + 1;
    p->name = lsi_strndup(a, model, p->name_bytes - 1);
    if (!p->name) {
        st = lsi_fail(err, LS_E_NOMEM, "out of memory for a planner");
        goto fail;
    }
    p->shape.name = p->name;
    *out = p;
    return LS_OK;
fail:
    ls_planner_close(p);
    return st;
}

void ls_planner_close(ls_planner *p)
{
    if (!p)
        return;
    if (p->has_config)
        lsi_config_fini(&p->config);
    if (p->name)
        lsi_free(p->alloc, p->name, p->name_bytes);
    lsi_free(p->alloc, p, sizeof *p);
}

void ls_planner_get_shape(const ls_planner *p, ls_plan_shape *shape)
{
    const size_t size = shape->struct_size;
    memcpy(shape, &p->shape, lsi_min_size(size, sizeof *shape));
    shape->struct_size = size;
}

/* ---- the trainer's layout ----------------------------------------------------------- */

ls_train_options lsi_plan_options(const ls_train_options *o)
{
    ls_train_options all;
    ls_train_options_defaults(&all);
    memcpy(&all, o, lsi_min_size(o->struct_size, sizeof all));
    all.struct_size = sizeof all;
    return all;
}

static ls_status check_trainable(const ls_planner *p, ls_error *err)
{
    if (p->has_config)
        return LS_OK;
    return lsi_fail(err, LS_E_UNSUPPORTED,
                    "%s is of a family that the engine does not have: only profiles can plan it", p->name);
}

ls_status ls_planner_get(const ls_planner *p, const ls_train_options *options, ls_train_plan *plan,
                         ls_error *err)
{
    ls_train_options o = lsi_plan_options(options);
    LSI_TRY(check_trainable(p, err));
    if (!o.memory) /* a plan is not bound to this machine */
        o.checkpoint_layers = lsi_max_size(1, o.checkpoint_layers);
    return lsi_train_plan(&p->config, &o, plan, err);
}

struct length {
    const ls_planner *p;
    ls_train_options o;
};

static ls_status plan_of_length(void *ctx, size_t seq, ls_train_plan *plan, ls_error *err)
{
    struct length *l = ctx;
    l->o.seq = seq;
    return lsi_train_plan(&l->p->config, &l->o, plan, err);
}

ls_status ls_planner_longest(const ls_planner *p, const ls_train_options *options, uint64_t memory,
                             size_t *seq, ls_train_plan *plan, ls_error *err)
{
    struct length l = { p, lsi_plan_options(options) };
    l.o.memory = memory;
    /* A number of pieces needs as many rows. */
    const size_t least = lsi_max_size(1, lsi_max_size(l.o.mlp_chunks, l.o.head_chunks));
    LSI_TRY(check_trainable(p, err));
    return lsi_plan_longest(plan_of_length, &l, memory, least, LS_PLAN_MAX_SEQ, seq, plan, err);
}
