/* Writing Hugging Face directories: built beside their place under another name, then renamed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/convert_impl.h"
#include "tokenizer/tokenizer.h"

#define TEXT_BYTES ((size_t)64 << 20) /* ceiling for config.json and the index of shards */
#define TMP_TRIES  100

/* Files of a model directory that go along unchanged between two Hugging Face directories. */
static const char *const companions[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
};

static bool begins_with(const char *s, const char *start)
{
    return strncmp(s, start, strlen(start)) == 0;
}

/* ---- the directory ------------------------------------------------------------------------ */

/* What a conversion may have written: the only files it ever removes. */
static bool is_model_file(const char *name)
{
    for (size_t i = 0; i < LSI_LEN(companions); i++)
        if (strcmp(name, companions[i]) == 0)
            return true;
    return strcmp(name, "config.json") == 0 || strcmp(name, "model.safetensors.index.json") == 0 ||
           (begins_with(name, "model") && lsi_path_has_suffix(name, ".safetensors"));
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Refuse to replace a directory that holds anything else. */
static ls_status check_replaceable(const struct lsi_convert *cv)
{
    ls_status st = LS_OK;
    if (!lsi_path_exists(cv->out))
        return LS_OK;
    DIR *d = opendir(cv->out);
    if (!d)
        return lsi_fail(cv->err, LS_E_IO, "cannot read the directory %s: %s", cv->out, strerror(errno));
    for (const struct dirent *e; st == LS_OK && (e = readdir(d)) != NULL;)
        if (!is_dots(e->d_name) && !is_model_file(e->d_name))
            st = lsi_fail(cv->err, LS_E_INVAL, "%s holds %s, which is no part of a model; it is not replaced",
                          cv->out, e->d_name);
    closedir(d);
    return st;
}

/* Remove a directory of model files, and unfinished ones beside them. With anything else in it, it stays. */
static void remove_dir(const char *dir)
{
    char path[LSI_MODEL_PATH];
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        if ((is_model_file(e->d_name) || strstr(e->d_name, LSI_PART)) &&
            lsi_path_join(path, sizeof path, dir, e->d_name))
            unlink(path);
    closedir(d);
    rmdir(dir);
}

static ls_status make_tmp(const struct lsi_convert *cv, char *tmp, size_t cap)
{
    size_t n = strlen(cv->out);
    while (n > 1 && cv->out[n - 1] == '/')
        n--;
    for (int i = 0; i < TMP_TRIES; i++) {
        if ((size_t)snprintf(tmp, cap, "%.*s.tmp-%ld-%d", (int)n, cv->out, (long)getpid(), i) >= cap)
            return lsi_fail(cv->err, LS_E_INVAL, "%s: the path is too long", cv->out);
        if (mkdir(tmp, 0777) == 0)
            return LS_OK;
        if (errno != EEXIST)
            break;
    }
    return lsi_fail(cv->err, LS_E_IO, "cannot create a directory beside %s: %s", cv->out, strerror(errno));
}

/* Names are safe on disk once the directory is. */
static void sync_dir(const char *dir)
{
    const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

/* Give the finished directory its name; one that was there is removed only afterwards. */
static ls_status take_place(const struct lsi_convert *cv, const char *tmp)
{
    int e;
    sync_dir(tmp);
    if (!lsi_path_exists(cv->out)) {
        if (rename(tmp, cv->out) == 0)
            return LS_OK;
    } else if (renameat2(AT_FDCWD, tmp, AT_FDCWD, cv->out, RENAME_EXCHANGE) == 0) {
        remove_dir(tmp);
        return LS_OK;
    } else {
        char old[LSI_MODEL_PATH + 8];
        snprintf(old, sizeof old, "%s-old", tmp);
        if (rename(cv->out, old) == 0) {
            if (rename(tmp, cv->out) == 0) {
                remove_dir(old);
                return LS_OK;
            }
            e = errno;
            (void)rename(old, cv->out); /* what was there comes back */
            errno = e;
        }
    }
    return lsi_fail(cv->err, LS_E_IO, "cannot rename %s to %s: %s", tmp, cv->out, strerror(errno));
}

/* ---- small files -------------------------------------------------------------------------- */

static ls_status write_file(const struct lsi_convert *cv, const char *dir, const char *name, const void *data,
                            size_t bytes)
{
    char path[LSI_MODEL_PATH];
    struct lsi_out out;
    if (!lsi_path_join(path, sizeof path, dir, name))
        return lsi_fail(cv->err, LS_E_INVAL, "%s: the path is too long", dir);
    LSI_TRY(lsi_out_open(&out, path, cv->err));
    lsi_out_write(&out, data, bytes);
    return lsi_out_commit(&out, cv->err);
}

/* Writes the buffer and releases it. */
static ls_status write_buf(const struct lsi_convert *cv, const char *dir, const char *name, struct lsi_buf *b)
{
    const ls_status st = b->failed ? lsi_fail(cv->err, LS_E_NOMEM, "out of memory writing %s", name)
                                   : write_file(cv, dir, name, b->data, b->len);
    lsi_buf_fini(b);
    return st;
}

static ls_status copy_file(const struct lsi_convert *cv, const char *dir, const char *name)
{
    char from[LSI_MODEL_PATH];
    struct lsi_map m;
    if (!lsi_path_join(from, sizeof from, cv->m->source.dir, name) || !lsi_path_exists(from))
        return LS_OK;
    LSI_TRY(lsi_map_open(&m, from, cv->err));
    const ls_status st = write_file(cv, dir, name, m.data, m.bytes);
    lsi_map_close(&m);
    return st;
}

static ls_status copy_config(const struct lsi_convert *cv, const char *dir)
{
    char from[LSI_MODEL_PATH];
    struct lsi_map m;
    struct lsi_buf b;
    if (cv->dtype == LSI_N_DTYPES)
        return copy_file(cv, dir, "config.json");
    if (!lsi_path_join(from, sizeof from, cv->m->source.dir, "config.json"))
        return lsi_fail(cv->err, LS_E_INVAL, "%s: the path is too long", cv->m->source.dir);
    LSI_TRY(lsi_map_open(&m, from, cv->err));
    lsi_buf_init(&b, cv->alloc, TEXT_BYTES);
    const ls_status st = lsi_convert_retype_json(m.data, m.bytes, from, cv->dtype, &b, cv->err);
    lsi_map_close(&m);
    if (st == LS_OK)
        return write_buf(cv, dir, "config.json", &b);
    lsi_buf_fini(&b);
    return st;
}

static ls_status write_tokenizer(const struct lsi_convert *cv, const char *dir)
{
    ls_tokenizer *t = NULL;
    struct lsi_str model;
    const struct lsi_gguf *g = &cv->m->source.gguf;
    if (!lsi_gguf_get_str(g, "tokenizer.ggml.model", &model) || lsi_str_is(model, "none"))
        return LS_OK; /* a model without one, for tests of the mathematics */
    LSI_TRY(lsi_tokenizer_from_gguf(g, cv->alloc, &t, cv->err));
    const ls_status st = lsi_tokenizer_write_hf(t, dir, cv->err);
    ls_tokenizer_close(t);
    return st;
}

/* Everything but the tensors. */
static ls_status write_small_files(const struct lsi_convert *cv, const char *dir)
{
    struct lsi_buf b;
    if (!cv->m->source.is_gguf) {
        for (size_t i = 0; i < LSI_LEN(companions); i++)
            LSI_TRY(copy_file(cv, dir, companions[i]));
        return copy_config(cv, dir);
    }
    lsi_buf_init(&b, cv->alloc, TEXT_BYTES);
    lsi_convert_config_json(cv, lsi_convert_float_dtype(cv), &b);
    LSI_TRY(write_buf(cv, dir, "config.json", &b));
    lsi_buf_init(&b, cv->alloc, TEXT_BYTES);
    lsi_convert_generation_json(cv, &b);
    LSI_TRY(write_buf(cv, dir, "generation_config.json", &b));
    return write_tokenizer(cv, dir);
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* One file of tensors [first, end). */
struct shard {
    size_t first, end;
    char name[64];
};

/* The tensors from `first` that fit in one file; at least one. */
static size_t shard_end(const struct lsi_convert *cv, size_t first)
{
    uint64_t bytes = 0;
    size_t i = first;
    while (i < cv->n_tensors && (i == first || bytes + cv->tensors[i].bytes <= cv->shard_bytes))
        bytes += cv->tensors[i++].bytes;
    return i;
}

static size_t count_shards(const struct lsi_convert *cv)
{
    size_t n = 0;
    for (size_t i = 0; i < cv->n_tensors; i = shard_end(cv, i))
        n++;
    return n;
}

static struct shard get_shard(const struct lsi_convert *cv, size_t first, size_t number, size_t n)
{
    struct shard s = { .first = first, .end = shard_end(cv, first) };
    if (n == 1)
        snprintf(s.name, sizeof s.name, "model.safetensors");
    else
        snprintf(s.name, sizeof s.name, "model-%05zu-of-%05zu.safetensors", number, n);
    return s;
}

static void write_data(void *to, const void *data, size_t bytes)
{
    lsi_st_write_data(to, data, bytes);
}

static ls_status write_shard(struct lsi_convert *cv, const char *dir, const struct shard *s)
{
    char path[LSI_MODEL_PATH];
    struct lsi_st_writer *w = NULL;
    ls_status st;
    if (!lsi_path_join(path, sizeof path, dir, s->name))
        return lsi_fail(cv->err, LS_E_INVAL, "%s: the path is too long", dir);
    LSI_TRY(lsi_st_writer_create(&w, path, cv->alloc, cv->err));
    for (size_t i = s->first; i < s->end; i++) {
        const struct lsi_convert_tensor *t = &cv->tensors[i];
        lsi_st_put_tensor(w, t->name, t->dtype, (uint32_t)t->src.rank, t->src.shape);
    }
    LSI_TRY_OR(fail, lsi_st_writer_begin(w, cv->err));
    for (size_t i = 0; i < s->end - s->first; i++) {
        const struct lsi_convert_tensor *t = &cv->tensors[s->first + lsi_st_writer_order(w, i)];
        LSI_TRY_OR(fail, lsi_convert_rows(cv, t, write_data, w));
        lsi_convert_progress(cv);
    }
    return lsi_st_writer_commit(w, cv->err);

fail:
    lsi_st_writer_free(w);
    return st;
}

static ls_status write_index(const struct lsi_convert *cv, const char *dir, size_t n)
{
    struct lsi_buf b;
    uint64_t total = 0;
    for (size_t i = 0; i < cv->n_tensors; i++)
        total += cv->tensors[i].bytes;
    lsi_buf_init(&b, cv->alloc, TEXT_BYTES);
    lsi_buf_printf(&b, "{\n  \"metadata\": {\"total_size\": %llu},\n  \"weight_map\": {",
                   (unsigned long long)total);
    size_t first = 0;
    for (size_t k = 1; k <= n; k++) {
        const struct shard s = get_shard(cv, first, k, n);
        for (size_t i = s.first; i < s.end; i++) {
            lsi_buf_printf(&b, "%s\n    ", i ? "," : "");
            lsi_buf_json_string(&b, cv->tensors[i].name, strlen(cv->tensors[i].name));
            lsi_buf_printf(&b, ": \"%s\"", s.name);
        }
        first = s.end;
    }
    lsi_buf_printf(&b, "\n  }\n}\n");
    return write_buf(cv, dir, "model.safetensors.index.json", &b);
}

static ls_status write_all(struct lsi_convert *cv, const char *dir)
{
    LSI_TRY(write_small_files(cv, dir));
    const size_t n = count_shards(cv);
    size_t first = 0;
    for (size_t k = 1; k <= n; k++) {
        const struct shard s = get_shard(cv, first, k, n);
        LSI_TRY(write_shard(cv, dir, &s));
        first = s.end;
    }
    return n > 1 ? write_index(cv, dir, n) : LS_OK;
}

/* ---- what config.json cannot say ------------------------------------------------------------ */

static ls_status check_expressible(const struct lsi_convert *cv)
{
    const struct lsi_config *c = &cv->m->config;
    const char *what = NULL;
    if (!cv->m->source.is_gguf)
        return LS_OK;
    if (c->freq_divisors && c->rope[0].scaling != LSI_ROPE_LLAMA3)
        what = "frequencies in rope_freqs.weight that follow no known rule";
    else if (!c->family->qkv_bias && c->qkv_bias != c->o_bias)
        what = "biases on some of q, k, v and o only";
    else if (!c->family->scaled_embedding && fabs((double)c->attn_scale * sqrt((double)c->D) - 1) > 1e-5)
        what = "attention.scale";
    if (!what)
        return LS_OK;
    return lsi_fail(cv->err, LS_E_UNSUPPORTED, "%s: a Hugging Face %s model cannot have %s", cv->m->path,
                    c->family->name, what);
}

ls_status lsi_convert_to_hf(struct lsi_convert *cv)
{
    char tmp[LSI_MODEL_PATH];
    LSI_TRY(check_expressible(cv));
    LSI_TRY(check_replaceable(cv));
    LSI_TRY(make_tmp(cv, tmp, sizeof tmp));
    ls_status st = write_all(cv, tmp);
    if (st == LS_OK)
        st = take_place(cv, tmp);
    if (st != LS_OK)
        remove_dir(tmp);
    return st;
}
