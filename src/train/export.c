#include "train/export.h"

#include <stdio.h>
#include <string.h>

#include "base/numbers.h"
#include "model/hf_dir.h"
#include "tokenizer/tokenizer.h"

#define CONFIG_BYTES ((size_t)16 << 20)
#define PIECE        ((size_t)1 << 16) /* values at a time */

struct exporter {
    const struct lsi_export *e;
    const ls_alloc *alloc;
    struct lsi_hf_dir dir;
    const struct lsi_param **list; /* [n] parameters to write */
    enum lsi_dtype *dtypes;        /* [n] */
    size_t n;
    float *values; /* [PIECE] */
    ls_error *err;
};

/* ---- tensors --------------------------------------------------------------------------------- */

/* Values as the file has them: gains of some families less 1. */
static void get_values(const struct exporter *x, const struct lsi_param *p, size_t first, size_t n)
{
    lsi_param_get(p, first, x->values, n);
    if (x->e->config->family->gain_offset && lsi_role_is_gain(p->role))
        for (size_t i = 0; i < n; i++)
            x->values[i] -= 1.0f;
}

static bool is_exact(const struct exporter *x, const struct lsi_param *p)
{
    for (size_t at = 0; at < p->n; at += PIECE) {
        const size_t n = lsi_min_size(PIECE, p->n - at);
        get_values(x, p, at, n);
        for (size_t i = 0; i < n; i++)
            if (lsi_f32_bits(lsi_bf16_to_f32(lsi_bf16_from_f32(x->values[i]))) != lsi_f32_bits(x->values[i]))
                return false;
    }
    return true;
}

static void list_tensors(struct exporter *x)
{
    const struct lsi_params *p = x->e->params;
    for (size_t i = 0; i < p->n; i++) {
        const struct lsi_param *t = &p->list[i];
        if (t->kind != LSI_PARAM_BASE)
            continue;
        x->list[x->n] = t;
        x->dtypes[x->n++] =
            t->rank == 1 && x->e->dtype == LSI_BF16 && !is_exact(x, t) ? LSI_F32 : x->e->dtype;
    }
}

static struct lsi_hf_tensor describe(void *user, size_t i)
{
    const struct exporter *x = user;
    const struct lsi_param *p = x->list[i];
    return (struct lsi_hf_tensor){
        .name = p->name,
        .dtype = x->dtypes[i],
        .rank = (uint32_t)p->rank,
        .shape = { p->rank == 2 ? p->rows : p->n, p->cols },
        .bytes = (uint64_t)p->n * lsi_dtype_block_bytes(x->dtypes[i]),
    };
}

static ls_status write_tensor(void *user, size_t i, struct lsi_st_writer *w)
{
    const struct exporter *x = user;
    const struct lsi_param *p = x->list[i];
    for (size_t at = 0; at < p->n; at += PIECE) {
        const size_t n = lsi_min_size(PIECE, p->n - at);
        if (x->e->cancel && *x->e->cancel)
            return lsi_fail(x->err, LS_E_CANCELED, "writing %s was cancelled", x->dir.out);
        get_values(x, p, at, n);
        lsi_bf16 *narrow =
            (lsi_bf16 *)x->values; /* in place: each value is read before its half is written */
        if (x->dtypes[i] == LSI_BF16)
            for (size_t k = 0; k < n; k++) {
                const lsi_bf16 h = lsi_bf16_from_f32(x->values[k]);
                memcpy(&narrow[k], &h, sizeof h);
            }
        lsi_st_write_data(w, x->values, n * lsi_dtype_block_bytes(x->dtypes[i]));
    }
    return LS_OK;
}

/* ---- config.json ------------------------------------------------------------------------------- */

static ls_status patch_config(const struct exporter *x, const char *path)
{
    struct lsi_map m;
    struct lsi_buf b;
    LSI_TRY(lsi_map_read(&m, path, CONFIG_BYTES, x->alloc, x->err));
    lsi_hf_dir_buf(&x->dir, &b);
    const ls_status st = lsi_config_patch_json(m.data, m.bytes, path, x->e->config, x->e->dtype, &b, x->err);
    lsi_map_close(&m);
    if (st == LS_OK)
        return lsi_hf_dir_write_buf(&x->dir, "config.json", &b);
    lsi_buf_fini(&b);
    return st;
}

static ls_status write_config(const struct exporter *x)
{
    const ls_model *source = x->e->source;
    char path[LSI_MODEL_PATH];
    struct lsi_buf b;
    if (source && !source->source.is_gguf) {
        if (!lsi_path_join(path, sizeof path, source->source.dir, "config.json"))
            return lsi_fail(x->err, LS_E_INVAL, "%s: the path is too long", source->source.dir);
        return patch_config(x, path);
    }
    if (!source && x->e->init)
        return patch_config(x, x->e->init);
    lsi_hf_dir_buf(&x->dir, &b);
    lsi_config_write_json(x->e->config, x->e->dtype, &b);
    return lsi_hf_dir_write_buf(&x->dir, "config.json", &b);
}

/* generation_config.json that goes along, or one with the ids that end a text. */
static ls_status write_generation(const struct exporter *x)
{
    const ls_model *source = x->e->source;
    struct lsi_buf b;
    if (source && !source->source.is_gguf)
        return lsi_hf_dir_copy(&x->dir, source->source.dir, "generation_config.json");
    if (x->e->config->n_eos == 0)
        return LS_OK;
    lsi_hf_dir_buf(&x->dir, &b);
    lsi_config_write_generation(x->e->config, &b);
    return lsi_hf_dir_write_buf(&x->dir, "generation_config.json", &b);
}

/* ---- tokenizer ----------------------------------------------------------------------------------- */

/* The folder that a file stands in. */
static void folder_of(const char *path, char out[LSI_MODEL_PATH])
{
    const char *slash = strrchr(path, '/');
    const int n = slash ? (int)lsi_max_size((size_t)(slash - path), 1) : 1;
    snprintf(out, LSI_MODEL_PATH, "%.*s", n, slash ? path : ".");
}

/* A directory with a tokenizer, a file of one, or a model that has one. */
static ls_status tokenizer_from_path(const struct exporter *x, const char *path)
{
    static const char *const files[] = { "tokenizer.json", "tokenizer.model" };
    char folder[LSI_MODEL_PATH], found[LSI_MODEL_PATH];
    struct lsi_gguf g = { 0 };
    if (lsi_path_is_dir(path))
        snprintf(folder, sizeof folder, "%s", path);
    else
        folder_of(path, folder);
    for (size_t i = 0; !lsi_path_has_suffix(path, ".gguf") && i < LSI_LEN(files); i++)
        if (lsi_path_join(found, sizeof found, folder, files[i]) && lsi_path_exists(found))
            return lsi_hf_dir_copy_companions(&x->dir, folder, false);
    LSI_TRY(lsi_model_path(path, found, x->err));
    LSI_TRY(lsi_gguf_open(&g, found, x->alloc, x->err));
    const ls_status st = lsi_hf_dir_write_tokenizer(&x->dir, &g);
    lsi_gguf_close(&g);
    return st;
}

static ls_status write_tokenizer(const struct exporter *x)
{
    const struct lsi_export *e = x->e;
    char folder[LSI_MODEL_PATH];
    if (e->tokenizer)
        return tokenizer_from_path(x, e->tokenizer);
    if (e->source && e->source->source.is_gguf)
        return lsi_hf_dir_write_tokenizer(&x->dir, &e->source->source.gguf);
    if (e->source)
        return lsi_hf_dir_copy_companions(&x->dir, e->source->source.dir, false);
    if (!e->init)
        return LS_OK;
    folder_of(e->init, folder);
    return lsi_hf_dir_copy_companions(&x->dir, folder, false);
}

/* ---- all ------------------------------------------------------------------------------------------- */

static ls_status write_all(struct exporter *x, uint64_t shard_bytes)
{
    const struct lsi_hf_tensors tensors = {
        .n = x->n,
        .shard_bytes = shard_bytes,
        .describe = describe,
        .write = write_tensor,
        .user = x,
    };
    LSI_TRY(write_config(x));
    LSI_TRY(write_generation(x));
    LSI_TRY(write_tokenizer(x));
    return lsi_hf_dir_write_tensors(&x->dir, &tensors);
}

ls_status lsi_export_sharded(const struct lsi_export *e, const char *out, uint64_t shard_bytes, ls_error *err)
{
    struct exporter x = { .e = e, .alloc = lsi_alloc_or_default(e->alloc), .err = err };
    const size_t cap = e->params->n;
    ls_status st;
    LSI_TRY(lsi_config_check_hf(e->config, out, err));
    x.list = lsi_calloc(x.alloc, cap, sizeof *x.list);
    x.dtypes = lsi_calloc(x.alloc, cap, sizeof *x.dtypes);
    x.values = lsi_alloc(x.alloc, PIECE * sizeof *x.values);
    if (!x.list || !x.dtypes || !x.values) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory to write %s", out);
        goto end;
    }
    list_tensors(&x);
    LSI_TRY_OR(end, lsi_hf_dir_create(&x.dir, out, x.alloc, err));
    st = lsi_hf_dir_finish(&x.dir, write_all(&x, shard_bytes));
end:
    lsi_free(x.alloc, x.list, cap * sizeof *x.list);
    lsi_free(x.alloc, x.dtypes, cap * sizeof *x.dtypes);
    lsi_free(x.alloc, x.values, PIECE * sizeof *x.values);
    return st;
}

ls_status lsi_export_hf(const struct lsi_export *e, const char *out, ls_error *err)
{
    return lsi_export_sharded(e, out, LSI_SHARD_BYTES, err);
}
