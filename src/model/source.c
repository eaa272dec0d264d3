/* Where a model's tensors come from: the files behind a path, and names to roles. */
#include <stdio.h>
#include <string.h>

#include "base/numbers.h"
#include "model/model_impl.h"

#define CONFIG_BYTES ((size_t)16 << 20) /* ceiling for config.json and its like */

/* What stands before the names of the map: text models, and text models inside multimodal ones. */
static const struct {
    const char *body; /* before "layers." */
    const char *head; /* before "lm_head." */
} prefixes[] = {
    { "model.", "" },
    { "model.language_model.", "" },
    { "language_model.model.", "language_model." },
    { "", "" },
};

/* ---- tensors ------------------------------------------------------------------------- */

size_t lsi_source_n_tensors(const struct lsi_source *s)
{
    return s->is_gguf ? s->gguf.n_tensors : s->st.n_tensors;
}

static void from_gguf(const struct lsi_gguf_tensor *g, struct lsi_tensor *t)
{
    *t = (struct lsi_tensor){
        .name = g->name, .dtype = g->dtype, .rank = g->n_dims, .data = g->data, .bytes = g->bytes
    };
    if (g->dtype == LSI_OTHER)
        snprintf(t->dtype_name, sizeof t->dtype_name, "%s", lsi_gguf_type_name(g->type_id));
    else
        snprintf(t->dtype_name, sizeof t->dtype_name, "%s", lsi_dtype_name(g->dtype));
    for (uint32_t i = 0; i < g->n_dims; i++)
        t->shape[i] = g->dims[g->n_dims - 1 - i];
}

static void from_safetensors(const struct lsi_st_tensor *s, struct lsi_tensor *t)
{
    *t = (struct lsi_tensor){ .name = { s->name, strlen(s->name) },
                              .dtype = s->dtype,
                              .rank = s->rank,
                              .data = s->data,
                              .bytes = s->bytes };
    memcpy(t->dtype_name, s->dtype_name, sizeof t->dtype_name);
    memcpy(t->shape, s->shape, sizeof t->shape);
}

void lsi_source_tensor(const struct lsi_source *s, size_t i, struct lsi_tensor *t)
{
    if (s->is_gguf)
        from_gguf(&s->gguf.tensors[i], t);
    else
        from_safetensors(&s->st.tensors[i], t);
}

float lsi_tensor_value(const struct lsi_tensor *t, size_t i)
{
    float f;
    lsi_bf16 h;
    if (t->dtype == LSI_F32) {
        memcpy(&f, t->data + i * sizeof f, sizeof f);
        return f;
    }
    memcpy(&h, t->data + i * sizeof h, sizeof h);
    return t->dtype == LSI_BF16 ? lsi_bf16_to_f32(h) : lsi_f16_to_f32(h);
}

bool lsi_source_name(const struct lsi_source *s, const struct lsi_family *f, enum lsi_role role, size_t layer,
                     char *out, size_t cap)
{
    const char *name = s->is_gguf ? f->names[role].gguf : f->names[role].hf;
    if (!name)
        return false;
    if (s->is_gguf && lsi_role_in_layer(role))
        snprintf(out, cap, "blk.%zu.%s", layer, name);
    else if (s->is_gguf)
        snprintf(out, cap, "%s", name);
    else if (lsi_role_in_layer(role))
        snprintf(out, cap, "%slayers.%zu.%s", s->prefix, layer, name);
    else
        snprintf(out, cap, "%s%s", role == LSI_ROLE_OUTPUT ? s->head_prefix : s->prefix, name);
    return true;
}

bool lsi_source_find(const struct lsi_source *s, const struct lsi_family *f, enum lsi_role role, size_t layer,
                     struct lsi_tensor *t)
{
    char name[LSI_TENSOR_NAME];
    if (!lsi_source_name(s, f, role, layer, name, sizeof name))
        return false;
    if (s->is_gguf) {
        const struct lsi_gguf_tensor *g = lsi_gguf_find_tensor(&s->gguf, name);
        if (g)
            from_gguf(g, t);
        return g;
    }
    const struct lsi_st_tensor *st = lsi_st_find(&s->st, name);
    if (st)
        from_safetensors(st, t);
    return st;
}

bool lsi_source_layer_name(const struct lsi_source *s, struct lsi_str name, size_t *layer,
                           struct lsi_str *rest)
{
    char start[64];
    const int n = snprintf(start, sizeof start, s->is_gguf ? "blk." : "%slayers.", s->prefix);
    if (name.len <= (size_t)n || memcmp(name.s, start, (size_t)n) != 0)
        return false;
    size_t i = (size_t)n, v = 0;
    for (; i < name.len && name.s[i] >= '0' && name.s[i] <= '9' && v < SIZE_MAX / 16; i++)
        v = v * 10 + (size_t)(name.s[i] - '0');
    if (i == (size_t)n || i == name.len || name.s[i] != '.')
        return false;
    *layer = v;
    *rest = (struct lsi_str){ name.s + i + 1, name.len - i - 1 };
    return true;
}

bool lsi_source_role(const struct lsi_source *s, const struct lsi_family *f, struct lsi_str name,
                     enum lsi_role *role, size_t *layer)
{
    struct lsi_str rest;
    const bool in_layer = lsi_source_layer_name(s, name, layer, &rest);
    for (enum lsi_role r = 0; r < LSI_N_ROLES; r++) {
        char full[LSI_TENSOR_NAME];
        const char *part = s->is_gguf ? f->names[r].gguf : f->names[r].hf;
        if (!part || lsi_role_in_layer(r) != in_layer)
            continue;
        if (in_layer ? lsi_str_is(rest, part)
                     : lsi_source_name(s, f, r, 0, full, sizeof full) && lsi_str_is(name, full)) {
            *role = r;
            return true;
        }
    }
    return false;
}

/* ---- files ------------------------------------------------------------------------------ */

static ls_status open_gguf(struct lsi_source *s, struct lsi_config *c, const char *path,
                           const ls_alloc *alloc, ls_error *err)
{
    s->is_gguf = true;
    s->prefix = s->head_prefix = "";
    LSI_TRY(lsi_gguf_open(&s->gguf, path, alloc, err));
    return lsi_config_from_gguf(c, &s->gguf, path, alloc, err);
}

static ls_status read_config(struct lsi_config *c, const char *path, const ls_alloc *alloc, ls_error *err)
{
    struct lsi_map m;
    LSI_TRY(lsi_map_read(&m, path, CONFIG_BYTES, alloc, err));
    const ls_status st = lsi_config_from_json(c, m.data, m.bytes, path, alloc, err);
    lsi_map_close(&m);
    return st;
}

static ls_status read_generation(struct lsi_config *c, const char *dir, const ls_alloc *alloc, ls_error *err)
{
    char path[LSI_MODEL_PATH];
    struct lsi_map m;
    if (!lsi_path_join(path, sizeof path, dir, "generation_config.json") || !lsi_path_exists(path))
        return LS_OK;
    LSI_TRY(lsi_map_read(&m, path, CONFIG_BYTES, alloc, err));
    const ls_status st = lsi_config_add_generation(c, m.data, m.bytes, path, err);
    lsi_map_close(&m);
    return st;
}

static ls_status find_prefix(struct lsi_source *s, const struct lsi_family *f, const char *dir, ls_error *err)
{
    struct lsi_tensor t;
    for (size_t i = 0; i < LSI_LEN(prefixes); i++) {
        s->prefix = prefixes[i].body;
        s->head_prefix = prefixes[i].head;
        if (lsi_source_find(s, f, LSI_ROLE_TOKEN_EMBD, 0, &t))
            return LS_OK;
    }
    return lsi_fail(err, LS_E_FORMAT, "%s: tensor model.%s is missing", dir,
                    f->names[LSI_ROLE_TOKEN_EMBD].hf);
}

static ls_status open_hf(struct lsi_source *s, struct lsi_config *c, const char *dir, const ls_alloc *alloc,
                         ls_error *err)
{
    char config[LSI_MODEL_PATH];
    if (!lsi_path_join(config, sizeof config, dir, "config.json"))
        return lsi_fail(err, LS_E_INVAL, "%s: the path is too long", dir);
    snprintf(s->dir, sizeof s->dir, "%s", dir);
    LSI_TRY(read_config(c, config, alloc, err));
    LSI_TRY(read_generation(c, dir, alloc, err));
    LSI_TRY(lsi_st_open_dir(&s->st, dir, alloc, err));
    return find_prefix(s, c->family, dir, err);
}

ls_status lsi_source_open(struct lsi_source *s, struct lsi_config *c, const char *path, const ls_alloc *alloc,
                          ls_error *err)
{
    char found[LSI_MODEL_PATH];
    ls_status st;
    memset(s, 0, sizeof *s);
    memset(c, 0, sizeof *c);
    LSI_TRY(lsi_model_path(path, found, err));
    if (lsi_path_is_dir(found))
        st = open_hf(s, c, found, alloc, err);
    else
        st = open_gguf(s, c, found, alloc, err);
    if (st != LS_OK) {
        lsi_source_close(s);
        lsi_config_fini(c);
    }
    return st;
}

void lsi_source_close(struct lsi_source *s)
{
    if (s->is_gguf)
        lsi_gguf_close(&s->gguf);
    else
        lsi_st_close(&s->st);
    memset(s, 0, sizeof *s);
}
