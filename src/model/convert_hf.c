/* Conversion to Hugging Face directories. */
#include <string.h>

#include "model/convert_impl.h"
#include "model/hf_dir.h"

static ls_status copy_config(const struct lsi_convert *cv, const struct lsi_hf_dir *d)
{
    char from[LSI_MODEL_PATH];
    struct lsi_map m;
    struct lsi_buf b;
    if (cv->dtype == LSI_N_DTYPES && !cv->reconfigured)
        return lsi_hf_dir_copy(d, cv->m->source.dir, "config.json");
    if (!lsi_path_join(from, sizeof from, cv->m->source.dir, "config.json"))
        return lsi_fail(cv->err, LS_E_INVAL, "%s: the path is too long", cv->m->source.dir);
    if (cv->reconfigured && strstr(cv->m->source.prefix, "language_model"))
        return lsi_fail(
            cv->err, LS_E_UNSUPPORTED,
            "%s describes more than a language model and another context cannot be written into it; "
            "write a .gguf file",
            from);
    LSI_TRY(lsi_map_open(&m, from, cv->err));
    lsi_hf_dir_buf(d, &b);
    const ls_status st = cv->reconfigured
                             ? lsi_config_patch_json(m.data, m.bytes, from, &cv->m->config,
                                                     lsi_convert_float_dtype(cv), &b, cv->err)
                             : lsi_config_retype_json(m.data, m.bytes, from, cv->dtype, &b, cv->err);
    lsi_map_close(&m);
    if (st == LS_OK)
        return lsi_hf_dir_write_buf(d, "config.json", &b);
    lsi_buf_fini(&b);
    return st;
}

/* Everything but the tensors. */
static ls_status write_small_files(const struct lsi_convert *cv, const struct lsi_hf_dir *d)
{
    struct lsi_buf b;
    if (!cv->m->source.is_gguf) {
        LSI_TRY(lsi_hf_dir_copy_companions(d, cv->m->source.dir, true));
        return copy_config(cv, d);
    }
    lsi_hf_dir_buf(d, &b);
    lsi_config_write_json(&cv->m->config, lsi_convert_float_dtype(cv), &b);
    LSI_TRY(lsi_hf_dir_write_buf(d, "config.json", &b));
    lsi_hf_dir_buf(d, &b);
    lsi_config_write_generation(&cv->m->config, &b);
    LSI_TRY(lsi_hf_dir_write_buf(d, "generation_config.json", &b));
    return lsi_hf_dir_write_tokenizer(d, &cv->m->source.gguf);
}

static struct lsi_hf_tensor describe(void *user, size_t i)
{
    const struct lsi_convert *cv = user;
    const struct lsi_convert_tensor *t = &cv->tensors[i];
    struct lsi_hf_tensor d = {
        .name = t->name, .dtype = t->dtype, .rank = (uint32_t)t->src.rank, .bytes = t->bytes
    };
    memcpy(d.shape, t->src.shape, sizeof d.shape);
    return d;
}

static void write_data(void *to, const void *data, size_t bytes)
{
    lsi_st_write_data(to, data, bytes);
}

static ls_status write_tensor(void *user, size_t i, struct lsi_st_writer *w)
{
    struct lsi_convert *cv = user;
    LSI_TRY(lsi_convert_rows(cv, &cv->tensors[i], write_data, w));
    lsi_convert_progress(cv);
    return LS_OK;
}

ls_status lsi_convert_to_hf(struct lsi_convert *cv)
{
    const struct lsi_hf_tensors tensors = {
        .n = cv->n_tensors,
        .shard_bytes = cv->shard_bytes,
        .describe = describe,
        .write = write_tensor,
        .user = cv,
    };
    struct lsi_hf_dir d;
    if (cv->m->source.is_gguf)
        LSI_TRY(lsi_config_check_hf(&cv->m->config, cv->m->path, cv->err));
    LSI_TRY(lsi_hf_dir_create(&d, cv->out, cv->alloc, cv->err));
    ls_status st = write_small_files(cv, &d);
    if (st == LS_OK)
        st = lsi_hf_dir_write_tensors(&d, &tensors);
    return lsi_hf_dir_finish(&d, st);
}
