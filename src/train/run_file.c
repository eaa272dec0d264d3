#include "train/run_file.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include <longspan/system.h>

#include "model/families.h"

#define TEXT_BYTES  ((size_t)16 << 20)
#define SHOWN_BYTES 60 /* of a value that is too long */

/* ---- the options, one row each ------------------------------------------------------------------ */

enum kind {
    TEXT,
    TEXTS,
    SIZE,
    U64,
    INT,
    REAL,
    FLAG,
    NAME
};

struct row {
    const char *name;
    enum kind kind;
    size_t offset;
    bool fixed;               /* the same when a run is continued */
    const char *const *names; /* of NAME, by value */
};

static const char *const formats[] = {
    [LS_TRAIN_AUTO] = "auto", [LS_TRAIN_TEXT] = "text", [LS_TRAIN_JSONL] = "jsonl", [LS_TRAIN_CHAT] = "chat"
};
static const char *const schedules[] = {
    [LS_TRAIN_CONSTANT] = "constant", [LS_TRAIN_LINEAR] = "linear", [LS_TRAIN_COSINE] = "cosine"
};
static const char *const dtypes[] = { [LS_TRAIN_BF16] = "bf16", [LS_TRAIN_FP32] = "fp32" };
static const char *const weights[] = { [LS_TRAIN_MASTER] = "master", [LS_TRAIN_PURE] = "pure" };
static const char *const moments[] = {
    [LS_TRAIN_MOMENTS_FP32] = "fp32", [LS_TRAIN_MOMENTS_BF16] = "bf16", [LS_TRAIN_MOMENTS_Q8] = "q8"
};
static const char *const modes[] = {
    [LS_TRAIN_SWEEP] = "sweep",
    [LS_TRAIN_STANDARD] = "standard",
    [LS_TRAIN_RECOMPUTE] = "recompute",
    [LS_TRAIN_MST] = "mst",
};

#define ROW(field, kind, fixed)                                      \
    {                                                                \
#field, kind, offsetof(ls_train_options, field), fixed, NULL \
    }
#define NAME_ROW(field, names, fixed)                                 \
    {                                                                 \
#field, NAME, offsetof(ls_train_options, field), fixed, names \
    }

static const struct row rows[] = {
    ROW(model, TEXT, false),
    ROW(init, TEXT, false),
    ROW(tokenizer, TEXT, false),
    ROW(rope_base, REAL, true),
    ROW(rope_scaling, TEXT, true),
    ROW(n_ctx, SIZE, false),
    ROW(lora_rank, SIZE, true),
    ROW(lora_alpha, REAL, true),
    ROW(lora_targets, TEXT, true),
    ROW(data, TEXTS, true),
    NAME_ROW(format, formats, true),
    ROW(chat_template, TEXT, true),
    ROW(eval_data, TEXT, false),
    ROW(seq, SIZE, true),
    ROW(shuffle, FLAG, true),
    ROW(pack, FLAG, true),
    ROW(token_cache, TEXT, false),
    ROW(steps, U64, false),
    ROW(lr, REAL, false),
    NAME_ROW(schedule, schedules, false),
    ROW(warmup, REAL, false),
    ROW(min_lr_ratio, REAL, false),
    ROW(beta1, REAL, false),
    ROW(beta2, REAL, false),
    ROW(eps, REAL, false),
    ROW(weight_decay, REAL, false),
    ROW(clip, REAL, false),
    ROW(accumulate, SIZE, true),
    ROW(seed, U64, true),
    NAME_ROW(dtype, dtypes, true),
    NAME_ROW(weights, weights, true),
    NAME_ROW(moments, moments, true),
    NAME_ROW(mode, modes, false),
    ROW(block, SIZE, false),
    ROW(mlp_chunks, SIZE, false),
    ROW(head_chunks, SIZE, false),
    ROW(checkpoint_layers, SIZE, false),
    ROW(spill, TEXT, false),
    ROW(memory, U64, false),
    ROW(n_threads, INT, false),
    ROW(out, TEXT, false),
    ROW(eval_every, U64, false),
    ROW(save_every, U64, false),
    ROW(eval_sequences, SIZE, false),
    ROW(keep, SIZE, false),
    ROW(resume, FLAG, false),
    ROW(gguf, TEXT, false),
};

/* ---- values --------------------------------------------------------------------------------------- */

static void put_text(struct lsi_buf *b, const char *s)
{
    if (s)
        lsi_buf_json_string(b, s, strlen(s));
    else
        lsi_buf_append(b, "null", 4);
}

static void put_texts(struct lsi_buf *b, const char *const *list, size_t n)
{
    lsi_buf_append(b, "[", 1);
    for (size_t i = 0; i < n; i++) {
        lsi_buf_append(b, ", ", i ? 2 : 0);
        put_text(b, list[i]);
    }
    lsi_buf_append(b, "]", 1);
}

/* An option as JSON. */
static void put_value(struct lsi_buf *b, const ls_train_options *o, const struct row *r)
{
    const void *p = (const unsigned char *)o + r->offset;
    switch (r->kind) {
    case TEXT:
        put_text(b, *(const char *const *)p);
        break;
    case TEXTS:
        put_texts(b, *(const char *const *const *)p, o->n_data);
        break;
    case SIZE:
        lsi_buf_printf(b, "%zu", *(const size_t *)p);
        break;
    case U64:
        lsi_buf_printf(b, "%" PRIu64, *(const uint64_t *)p);
        break;
    case INT:
        lsi_buf_printf(b, "%d", *(const int *)p);
        break;
    case REAL:
        lsi_buf_json_number(b, *(const double *)p);
        break;
    case FLAG:
        lsi_buf_printf(b, "%s", *(const bool *)p ? "true" : "false");
        break;
    case NAME: {
        unsigned v; /* enumerations without negative values */
        memcpy(&v, p, sizeof v);
        put_text(b, r->names[v]);
        break;
    }
    }
}

/* ---- the file --------------------------------------------------------------------------------------- */

static void put_model(struct lsi_buf *b, const struct lsi_config *c)
{
    lsi_buf_printf(b, "  \"model\": {\"family\": \"%s\", \"name\": ", c->family->name);
    put_text(b, c->name);
    lsi_buf_printf(b,
                   ", \"layers\": %zu, \"width\": %zu, \"mlp\": %zu, \"heads\": %zu, \"kv_heads\": %zu, "
                   "\"head_dim\": %zu, \"vocabulary\": %zu, \"tied\": %s, \"context\": %zu, \"rope_base\": ",
                   c->L, c->C, c->F, c->H, c->G, c->D, c->V, c->tied ? "true" : "false", c->n_ctx_train);
    lsi_buf_json_number(b, c->rope[0].base);
    lsi_buf_printf(
        b, ", \"rope_scaling\": \"%s\", \"rope_factor\": ", lsi_rope_scaling_name(c->rope[0].scaling));
    lsi_buf_json_number(b, c->rope[0].factor);
    lsi_buf_printf(b, "},\n");
}

static void put_start(struct lsi_buf *b)
{
    char text[40] = "";
    const time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm))
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    lsi_buf_printf(b, "{\n  \"longspan\": \"%s\",\n  \"build\": ", ls_version());
    put_text(b, ls_build_info());
    lsi_buf_printf(b, ",\n  \"started\": \"%s\",\n", text);
}

ls_status lsi_run_file_write(const char *run, const ls_train_options *o, const struct lsi_config *c,
                             const ls_alloc *alloc, ls_error *err)
{
    char path[LSI_MODEL_PATH];
    struct lsi_buf b;
    struct lsi_out out;
    ls_status st;
    if (!lsi_path_join(path, sizeof path, run, "run.json"))
        return lsi_fail(err, LS_E_INVAL, "%.200s…: the path of the run is too long", run);
    lsi_buf_init(&b, lsi_alloc_or_default(alloc), TEXT_BYTES);
    put_start(&b);
    if (c)
        put_model(&b, c);
    lsi_buf_printf(&b, "  \"options\": {");
    for (size_t i = 0; i < LSI_LEN(rows); i++) {
        lsi_buf_printf(&b, "%s\n    \"%s\": ", i ? "," : "", rows[i].name);
        put_value(&b, o, &rows[i]);
    }
    lsi_buf_printf(&b, "\n  }\n}\n");
    if (b.failed) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory to write %s", path);
        goto end;
    }
    LSI_TRY_OR(end, lsi_out_open(&out, path, err));
    lsi_out_write(&out, b.data, b.len);
    st = lsi_out_commit(&out, err);
end:
    lsi_buf_fini(&b);
    return st;
}

/* ---- settings ------------------------------------------------------------------------------------------ */

/* FNV-1a, for texts that are only compared. */
static uint64_t hash(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h;
}

ls_status lsi_run_settings(const ls_train_options *o, struct lsi_setting out[LSI_RUN_SETTINGS], size_t *n_out,
                           ls_error *err)
{
    struct lsi_buf b;
    size_t n = 0;
    lsi_buf_init(&b, lsi_alloc_or_default(o->alloc), TEXT_BYTES);
    for (size_t i = 0; i < LSI_LEN(rows); i++) {
        if (!rows[i].fixed)
            continue;
        b.len = 0;
        put_value(&b, o, &rows[i]);
        out[n].name = rows[i].name;
        if (b.failed) {
            lsi_buf_fini(&b);
            return lsi_fail(err, LS_E_NOMEM, "no memory to compare the options of the run");
        }
        if (b.len < sizeof out[n].value)
            snprintf(out[n].value, sizeof out[n].value, "%s", b.data);
        else
            snprintf(out[n].value, sizeof out[n].value, "%.*s… (%016" PRIx64 ")",
                     (int)lsi_utf8_valid_prefix(b.data, SHOWN_BYTES), b.data, hash(b.data, b.len));
        n++;
    }
    lsi_buf_fini(&b);
    *n_out = n;
    return LS_OK;
}
