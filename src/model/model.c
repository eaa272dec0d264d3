#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/model_impl.h"

void ls_model_options_defaults(ls_model_options *o)
{
    *o = (ls_model_options){ .struct_size = sizeof *o };
}

/* Start reading the file, then touch every page, so that the first forward pass does not wait for the disk.
 */
static void prefault(const struct lsi_map *map)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const volatile unsigned char *p = map->data;
    if (map->map_base)
        madvise(map->map_base, map->map_bytes, MADV_WILLNEED);
    for (size_t i = 0; i < map->bytes; i += page)
        (void)p[i];
}

static void prefault_all(const struct lsi_source *s)
{
    const struct lsi_map *maps = s->is_gguf ? s->gguf.maps : s->st.maps;
    const size_t n = s->is_gguf ? s->gguf.n_maps : s->st.n_maps;
    for (size_t i = 0; i < n; i++)
        prefault(&maps[i]);
}

ls_model *lsi_model_ref(ls_model *m)
{
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

static void model_free(ls_model *m)
{
    const ls_alloc *a = m->alloc;
    lsi_arena_fini(&m->vectors);
    lsi_source_close(&m->source);
    lsi_config_fini(&m->config);
    if (m->path)
        lsi_free(a, (void *)(uintptr_t)m->path, strlen(m->path) + 1);
    lsi_free(a, m, sizeof *m);
}

void lsi_model_unref(ls_model *m)
{
    if (m && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) == 1)
        model_free(m);
}

ls_status ls_model_open(const char *path, const ls_model_options *options, ls_model **model, ls_error *err)
{
    ls_model_options o;
    ls_status st;

    if (!model)
        return lsi_fail(err, LS_E_INVAL, "ls_model_open: model is NULL");
    *model = NULL;
    if (!path)
        return lsi_fail(err, LS_E_INVAL, "ls_model_open: path is NULL");
    ls_model_options_defaults(&o);
    if (options)
        memcpy(&o, options, lsi_min_size(options->struct_size, sizeof o));

    const ls_alloc *alloc = lsi_alloc_or_default(o.alloc);
    ls_model *m = lsi_calloc(alloc, 1, sizeof *m);
    if (!m)
        return lsi_fail(err, LS_E_NOMEM, "out of memory opening %s", path);
    m->alloc = alloc;
    atomic_init(&m->refs, 1);
    m->path = lsi_strndup(alloc, path, strlen(path));
    if (!m->path) {
        st = lsi_fail(err, LS_E_NOMEM, "out of memory opening %s", path);
        goto fail;
    }
    LSI_TRY_OR(fail, lsi_source_open(&m->source, &m->config, path, alloc, err));
    LSI_TRY_OR(fail, lsi_model_bind(m, err));
    if (o.prefault)
        prefault_all(&m->source);
    *model = m;
    return LS_OK;

fail:
    lsi_model_unref(m);
    return st;
}

void ls_model_close(ls_model *model)
{
    lsi_model_unref(model);
}

void ls_model_get_info(const ls_model *m, ls_model_info *info)
{
    const struct lsi_config *c = &m->config;
    const ls_model_info full = {
        .struct_size = info->struct_size,
        .path = m->path,
        .format = m->source.is_gguf ? "gguf" : "safetensors",
        .family = c->family->name,
        .name = c->name,
        .weights = lsi_dtype_name(m->main_dtype),
        .n_layers = c->L,
        .n_embd = c->C,
        .n_heads = c->H,
        .n_kv_heads = c->G,
        .head_dim = c->D,
        .n_ff = c->F,
        .n_vocab = c->V,
        .n_ctx_train = c->n_ctx_train,
        .window = c->window,
        .n_window_layers = c->n_window_layers,
        .rope_base = c->rope[0].base,
        .rope_scaling = lsi_rope_scaling_name(c->rope[0].scaling),
        .tied = c->tied,
        .n_parameters = m->n_parameters,
        .weight_bytes = m->weight_bytes,
    };
    memcpy(info, &full, lsi_min_size(info->struct_size, sizeof full));
}

size_t ls_model_n_tensors(const ls_model *m)
{
    return m->n_tensors;
}

bool ls_model_get_tensor(const ls_model *m, size_t i, ls_tensor_info *info)
{
    if (i >= m->n_tensors)
        return false;
    *info = m->tensors[i];
    return true;
}
