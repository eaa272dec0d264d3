#include "model/hf_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tokenizer/tokenizer.h"

#define TEXT_BYTES ((size_t)64 << 20) /* ceiling for config.json and the index of shards */
#define TMP        ".tmp-"            /* in the name of an unfinished directory, after its own */
#define TMP_TRIES  100

/* Files of a model directory that go along unchanged between two Hugging Face directories. */
static const struct {
    const char *name;
    bool tokenizer;
} companions[] = {
    { "tokenizer.json", true },
    { "tokenizer_config.json", true },
    { "special_tokens_map.json", true },
    { "tokenizer.model", true },
    { "added_tokens.json", true },
    { "vocab.json", true },
    { "merges.txt", true },
    { "chat_template.jinja", true },
    { "chat_template.json", true },
    { "generation_config.json", false },
    { "preprocessor_config.json", false },
    { "processor_config.json", false },
};

static bool begins_with(const char *s, const char *start)
{
    return strncmp(s, start, strlen(start)) == 0;
}

/* ---- the directory ------------------------------------------------------------------------ */

/* What may have been written here before: the only files that are ever removed. */
static bool is_model_file(const char *name)
{
    for (size_t i = 0; i < LSI_LEN(companions); i++)
        if (strcmp(name, companions[i].name) == 0)
            return true;
    static const char *const others[] = { "config.json", "model.safetensors.index.json",
                                          "adapter_config.json", "adapter_model.safetensors",
                                          "longspan.json" };
    for (size_t i = 0; i < LSI_LEN(others); i++)
        if (strcmp(name, others[i]) == 0)
            return true;
    return begins_with(name, "model") && lsi_path_has_suffix(name, ".safetensors");
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Refuse to replace a directory that holds anything else. */
static ls_status check_replaceable(const struct lsi_hf_dir *h)
{
    ls_status st = LS_OK;
    if (!lsi_path_exists(h->out))
        return LS_OK;
    DIR *d = opendir(h->out);
    if (!d)
        return lsi_fail(h->err, LS_E_IO, "cannot read the directory %s: %s", h->out, strerror(errno));
    for (const struct dirent *e; st == LS_OK && (e = readdir(d)) != NULL;)
        if (!is_dots(e->d_name) && !is_model_file(e->d_name))
            st = lsi_fail(h->err, LS_E_INVAL, "%s holds %s, which is no part of a model; it is not replaced",
                          h->out, e->d_name);
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

/* Length of a path without slashes at its end. */
static int path_length(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return (int)n;
}

static ls_status make_tmp(struct lsi_hf_dir *h)
{
    const int n = path_length(h->out);
    for (int i = 0; i < TMP_TRIES; i++) {
        if ((size_t)snprintf(h->tmp, sizeof h->tmp, "%.*s" TMP "%ld-%d", n, h->out, (long)getpid(), i) >=
            sizeof h->tmp)
            return lsi_fail(h->err, LS_E_INVAL, "%s: the path is too long", h->out);
        if (mkdir(h->tmp, 0777) == 0)
            return LS_OK;
        if (errno != EEXIST)
            break;
    }
    return lsi_fail(h->err, LS_E_IO, "cannot create a directory beside %s: %s", h->out, strerror(errno));
}

void lsi_hf_dir_clean(const char *out)
{
    char parent[LSI_MODEL_PATH], start[LSI_MODEL_PATH], path[LSI_MODEL_PATH];
    if (snprintf(start, sizeof start, "%.*s" TMP, path_length(out), out) >= (int)sizeof start)
        return;
    const char *slash = strrchr(start, '/');
    const char *name = slash ? slash + 1 : start;
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)lsi_max_size((size_t)(slash - start), 1) : 1,
             slash ? start : ".");
    DIR *d = opendir(parent);
    for (const struct dirent *e; d && (e = readdir(d)) != NULL;)
        if (begins_with(e->d_name, name) && lsi_path_join(path, sizeof path, parent, e->d_name))
            remove_dir(path);
    if (d)
        closedir(d);
}

ls_status lsi_hf_dir_create(struct lsi_hf_dir *d, const char *out, const ls_alloc *alloc, ls_error *err)
{
    *d = (struct lsi_hf_dir){ .out = out, .alloc = alloc, .err = err };
    LSI_TRY(check_replaceable(d));
    return make_tmp(d);
}

static ls_status take_place(const struct lsi_hf_dir *h)
{
    int e;
    lsi_sync_dir(h->tmp);
    if (!lsi_path_exists(h->out)) {
        if (rename(h->tmp, h->out) == 0)
            return LS_OK;
    } else if (renameat2(AT_FDCWD, h->tmp, AT_FDCWD, h->out, RENAME_EXCHANGE) == 0) {
        remove_dir(h->tmp);
        return LS_OK;
    } else {
        char old[LSI_MODEL_PATH + 8];
        snprintf(old, sizeof old, "%s-old", h->tmp);
        if (rename(h->out, old) == 0) {
            if (rename(h->tmp, h->out) == 0) {
                remove_dir(old);
                return LS_OK;
            }
            e = errno;
            (void)rename(old, h->out); /* what was there comes back */
            errno = e;
        }
    }
    return lsi_fail(h->err, LS_E_IO, "cannot rename %s to %s: %s", h->tmp, h->out, strerror(errno));
}

ls_status lsi_hf_dir_finish(struct lsi_hf_dir *d, ls_status st)
{
    if (st == LS_OK)
        st = take_place(d);
    if (st != LS_OK)
        remove_dir(d->tmp);
    return st;
}

/* ---- small files -------------------------------------------------------------------------- */

ls_status lsi_hf_dir_write(const struct lsi_hf_dir *d, const char *name, const void *data, size_t bytes)
{
    char path[LSI_MODEL_PATH];
    struct lsi_out out;
    if (!lsi_path_join(path, sizeof path, d->tmp, name))
        return lsi_fail(d->err, LS_E_INVAL, "%s: the path is too long", d->out);
    LSI_TRY(lsi_out_open(&out, path, d->err));
    lsi_out_write(&out, data, bytes);
    return lsi_out_commit(&out, d->err);
}

void lsi_hf_dir_buf(const struct lsi_hf_dir *d, struct lsi_buf *b)
{
    lsi_buf_init(b, d->alloc, TEXT_BYTES);
}

ls_status lsi_hf_dir_write_buf(const struct lsi_hf_dir *d, const char *name, struct lsi_buf *b)
{
    const ls_status st = b->failed ? lsi_fail(d->err, LS_E_NOMEM, "out of memory writing %s", name)
                                   : lsi_hf_dir_write(d, name, b->data, b->len);
    lsi_buf_fini(b);
    return st;
}

ls_status lsi_hf_dir_copy(const struct lsi_hf_dir *d, const char *from, const char *name)
{
    char path[LSI_MODEL_PATH];
    struct lsi_map m;
    if (!lsi_path_join(path, sizeof path, from, name) || !lsi_path_exists(path))
        return LS_OK;
    LSI_TRY(lsi_map_open(&m, path, d->err));
    const ls_status st = lsi_hf_dir_write(d, name, m.data, m.bytes);
    lsi_map_close(&m);
    return st;
}

ls_status lsi_hf_dir_copy_companions(const struct lsi_hf_dir *d, const char *from, bool all)
{
    for (size_t i = 0; i < LSI_LEN(companions); i++)
        if (all || companions[i].tokenizer)
            LSI_TRY(lsi_hf_dir_copy(d, from, companions[i].name));
    return LS_OK;
}

ls_status lsi_hf_dir_write_tokenizer(const struct lsi_hf_dir *d, const struct lsi_gguf *g)
{
    ls_tokenizer *t = NULL;
    struct lsi_str model;
    if (!lsi_gguf_get_str(g, "tokenizer.ggml.model", &model) || lsi_str_is(model, "none"))
        return LS_OK; /* a model without one, for tests of the mathematics */
    LSI_TRY(lsi_tokenizer_from_gguf(g, d->alloc, &t, d->err));
    const ls_status st = lsi_tokenizer_write_hf(t, d->tmp, d->err);
    ls_tokenizer_close(t);
    return st;
}

/* ---- tensors -------------------------------------------------------------------------------- */

/* One file of tensors [first, end). */
struct shard {
    size_t first, end;
    char name[64];
};

/* The tensors from `first` that fit in one file; at least one. */
static size_t shard_end(const struct lsi_hf_tensors *t, size_t first)
{
    uint64_t bytes = 0;
    size_t i = first;
    for (; i < t->n; i++) {
        const uint64_t more = t->describe(t->user, i).bytes;
        if (i > first && bytes + more > t->shard_bytes)
            break;
        bytes += more;
    }
    return i;
}

static size_t count_shards(const struct lsi_hf_tensors *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n; i = shard_end(t, i))
        n++;
    return n;
}

static struct shard get_shard(const struct lsi_hf_tensors *t, size_t first, size_t number, size_t n)
{
    struct shard s = { .first = first, .end = shard_end(t, first) };
    if (n == 1)
        snprintf(s.name, sizeof s.name, "model.safetensors");
    else
        snprintf(s.name, sizeof s.name, "model-%05zu-of-%05zu.safetensors", number, n);
    return s;
}

static ls_status write_shard(const struct lsi_hf_dir *d, const struct lsi_hf_tensors *t,
                             const struct shard *s)
{
    char path[LSI_MODEL_PATH];
    struct lsi_st_writer *w = NULL;
    ls_status st;
    if (!lsi_path_join(path, sizeof path, d->tmp, s->name))
        return lsi_fail(d->err, LS_E_INVAL, "%s: the path is too long", d->out);
    LSI_TRY(lsi_st_writer_create(&w, path, d->alloc, d->err));
    for (size_t i = s->first; i < s->end; i++) {
        const struct lsi_hf_tensor x = t->describe(t->user, i);
        lsi_st_put_tensor(w, x.name, x.dtype, x.rank, x.shape);
    }
    LSI_TRY_OR(fail, lsi_st_writer_begin(w, d->err));
    for (size_t i = 0; i < s->end - s->first; i++)
        LSI_TRY_OR(fail, t->write(t->user, s->first + lsi_st_writer_order(w, i), w));
    return lsi_st_writer_commit(w, d->err);

fail:
    lsi_st_writer_free(w);
    return st;
}

static ls_status write_index(const struct lsi_hf_dir *d, const struct lsi_hf_tensors *t, size_t n)
{
    struct lsi_buf b;
    uint64_t total = 0;
    for (size_t i = 0; i < t->n; i++)
        total += t->describe(t->user, i).bytes;
    lsi_hf_dir_buf(d, &b);
    lsi_buf_printf(&b, "{\n  \"metadata\": {\"total_size\": %llu},\n  \"weight_map\": {",
                   (unsigned long long)total);
    size_t first = 0;
    for (size_t k = 1; k <= n; k++) {
        const struct shard s = get_shard(t, first, k, n);
        for (size_t i = s.first; i < s.end; i++) {
            const char *name = t->describe(t->user, i).name;
            lsi_buf_printf(&b, "%s\n    ", i ? "," : "");
            lsi_buf_json_string(&b, name, strlen(name));
            lsi_buf_printf(&b, ": \"%s\"", s.name);
        }
        first = s.end;
    }
    lsi_buf_printf(&b, "\n  }\n}\n");
    return lsi_hf_dir_write_buf(d, "model.safetensors.index.json", &b);
}

ls_status lsi_hf_dir_write_tensors(const struct lsi_hf_dir *d, const struct lsi_hf_tensors *t)
{
    const size_t n = count_shards(t);
    size_t first = 0;
    for (size_t k = 1; k <= n; k++) {
        const struct shard s = get_shard(t, first, k, n);
        LSI_TRY(write_shard(d, t, &s));
        first = s.end;
    }
    return n > 1 ? write_index(d, t, n) : LS_OK;
}
