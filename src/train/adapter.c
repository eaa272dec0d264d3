#include "train/adapter.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "model/hf_dir.h"

#define CONFIG_BYTES ((size_t)1 << 20)
#define MAX_RANK     ((int64_t)1 << 16)
#define PIECE        ((size_t)1 << 14) /* values at a time */

/* ---- adapter_config.json ------------------------------------------------------------------------ */

/* Members that ask for something else than plain LoRA unless they are absent, null, false or empty. */
static const char *const beyond[] = {
    "use_dora",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
    "fan_in_fan_out",
    "layer_replication",
    "trainable_token_indices",
    "lora_bias",
    "use_qalora",
    "use_bdlora",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
};

/* Ways to begin that leave the model's own weights as they are. */
static const char *const beginnings[] = { "gaussian", "orthogonal", "eva" };

static bool is_one_of(const struct lsi_json_str *s, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (lsi_json_str_is(s, list[i]))
            return true;
    return false;
}

static ls_status refuse(struct lsi_json *j, const struct lsi_json_str *key)
{
    return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: %.*s is not supported; plain LoRA is", j->name,
                    (int)lsi_min_size(key->len, 100), key->raw);
}

/* Skip a value; whether it is null, false or empty. */
static ls_status skip_off(struct lsi_json *j, bool *off)
{
    const enum lsi_json_type type = lsi_json_peek(j);
    const char *begin = j->p;
    LSI_TRY(lsi_json_skip(j));
    size_t n = 0; /* bytes that are no white space */
    for (const char *p = begin; p < j->p; p++)
        n += *p != ' ' && *p != '\n' && *p != '\r' && *p != '\t';
    *off = type == LSI_JSON_NULL || (type == LSI_JSON_BOOL && *begin == 'f') ||
           ((type == LSI_JSON_ARRAY || type == LSI_JSON_OBJECT) && n == 2);
    return LS_OK;
}

/* A text that must be `want`. */
static ls_status read_text(struct lsi_json *j, const struct lsi_json_str *key, const char *want)
{
    struct lsi_json_str s;
    LSI_TRY(lsi_json_string(j, &s));
    if (lsi_json_str_is(&s, want))
        return LS_OK;
    return lsi_fail(j->err, LS_E_UNSUPPORTED, "%s: %.*s \"%.*s\" is not supported; \"%s\" is", j->name,
                    (int)key->len, key->raw, (int)lsi_min_size(s.len, 100), s.raw, want);
}

static ls_status read_beginning(struct lsi_json *j)
{
    struct lsi_json_str s;
    if (lsi_json_peek(j) != LSI_JSON_STRING)
        return lsi_json_skip(j);
    LSI_TRY(lsi_json_string(j, &s));
    if (is_one_of(&s, beginnings, LSI_LEN(beginnings)))
        return LS_OK;
    return lsi_fail(
        j->err, LS_E_UNSUPPORTED,
        "%s: init_lora_weights \"%.*s\" is not supported: such adapters belong to changed weights", j->name,
        (int)lsi_min_size(s.len, 100), s.raw);
}

static ls_status read_member(struct lsi_json *j, const struct lsi_json_str *key, struct lsi_adapter *a)
{
    int64_t rank = 0;
    bool off = true;
    if (lsi_json_str_is(key, "peft_type"))
        return read_text(j, key, "LORA");
    if (lsi_json_str_is(key, "bias"))
        return read_text(j, key, "none");
    if (lsi_json_str_is(key, "init_lora_weights"))
        return read_beginning(j);
    if (lsi_json_str_is(key, "lora_alpha"))
        return lsi_json_double(j, &a->alpha);
    if (lsi_json_str_is(key, "r")) {
        LSI_TRY(lsi_json_int(j, &rank));
        if (rank < 1 || rank > MAX_RANK)
            return lsi_json_error(j, "a rank of %lld", (long long)rank);
        a->rank = (size_t)rank;
        return LS_OK;
    }
    if (!is_one_of(key, beyond, LSI_LEN(beyond)))
        return lsi_json_skip(j);
    LSI_TRY(skip_off(j, &off));
    return off ? LS_OK : refuse(j, key);
}

static ls_status read_config(struct lsi_adapter *a, const char *path, ls_error *err)
{
    struct lsi_map m;
    struct lsi_json j;
    struct lsi_json_str key;
    ls_status st;
    LSI_TRY(lsi_map_read(&m, path, CONFIG_BYTES, a->alloc, err));
    a->rank = 8; /* what absent members mean to PEFT */
    a->alpha = 8;
    lsi_json_init(&j, m.data, m.bytes, path, err);
    LSI_TRY_OR(end, lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key))
        LSI_TRY_OR(end, read_member(&j, &key, a));
    st = lsi_json_end(&j);
end:
    lsi_map_close(&m);
    return st;
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

struct loader {
    struct lsi_adapter *a;
    const char *path;
    const struct lsi_config *c;
    ls_error *err;
};

static struct lsi_adapter_target *find(const struct lsi_adapter *a, enum lsi_role role, size_t layer)
{
    for (size_t i = 0; i < a->n; i++)
        if (a->targets[i].role == role && a->targets[i].layer == layer)
            return &a->targets[i];
    return NULL;
}

const struct lsi_adapter_target *lsi_adapter_find(const struct lsi_adapter *a, enum lsi_role role,
                                                  size_t layer)
{
    return find(a, role, layer);
}

/* "base_model.model.X.lora_A.weight" to the role of "X.weight". */
static bool read_name(const struct loader *l, const char *name, enum lsi_role *role, size_t *layer,
                      char *side)
{
    static const char *const suffixes[] = { ".lora_A.weight", ".lora_B.weight" };
    const struct lsi_source hf = { .prefix = "model.", .head_prefix = "" };
    char matrix[LSI_TENSOR_NAME];
    if (strncmp(name, LSI_PEFT_PREFIX, strlen(LSI_PEFT_PREFIX)) != 0)
        return false;
    name += strlen(LSI_PEFT_PREFIX);
    for (size_t i = 0; i < LSI_LEN(suffixes); i++) {
        if (!lsi_path_has_suffix(name, suffixes[i]))
            continue;
        const int stem = (int)(strlen(name) - strlen(suffixes[i]));
        const int n = snprintf(matrix, sizeof matrix, "%.*s.weight", stem, name);
        *side = i == 0 ? 'A' : 'B';
        *layer = 0;
        return n > 0 && (size_t)n < sizeof matrix &&
               lsi_source_role(&hf, l->c->family, (struct lsi_str){ matrix, (size_t)n }, role, layer) &&
               *role != LSI_ROLE_TOKEN_EMBD && *layer < l->c->L && lsi_role_shape(l->c, *role).rank == 2;
    }
    return false;
}

static struct lsi_adapter_target *add_target(struct lsi_adapter *a, enum lsi_role role, size_t layer,
                                             struct lsi_shape shape)
{
    struct lsi_adapter_target *p = lsi_grow(a->alloc, a->targets, a->n, &a->cap, 64, sizeof *p);
    if (!p)
        return NULL;
    a->targets = p;
    a->targets[a->n] =
        (struct lsi_adapter_target){ .role = role, .layer = layer, .n_out = shape.rows, .n_in = shape.cols };
    return &a->targets[a->n++];
}

static ls_status load_tensor(const struct loader *l, const struct lsi_st_tensor *t)
{
    enum lsi_role role;
    size_t layer;
    char side;
    if (!read_name(l, t->name, &role, &layer, &side))
        return lsi_fail(l->err, LS_E_UNSUPPORTED,
                        "%s: tensor %.150s has no place in a %s model of %zu layers", l->path, t->name,
                        l->c->family->name, l->c->L);
    const struct lsi_shape shape = lsi_role_shape(l->c, role);
    const size_t rows = side == 'A' ? l->a->rank : shape.rows, cols = side == 'A' ? shape.cols : l->a->rank;
    if (t->rank != 2 || t->shape[0] != rows || t->shape[1] != cols)
        return lsi_fail(l->err, LS_E_FORMAT, "%s: tensor %.150s: expected [%zu][%zu], found [%llu][%llu]",
                        l->path, t->name, rows, cols, (unsigned long long)t->shape[0],
                        (unsigned long long)t->shape[1]);
    if (t->dtype != LSI_F32 && t->dtype != LSI_F16 && t->dtype != LSI_BF16)
        return lsi_fail(l->err, LS_E_UNSUPPORTED, "%s: tensor %.150s of type %s is not supported", l->path,
                        t->name, t->dtype_name);
    struct lsi_adapter_target *x = find(l->a, role, layer);
    if (!x)
        x = add_target(l->a, role, layer, shape);
    float **place = !x ? NULL : side == 'A' ? &x->a : &x->b;
    if (place && *place)
        return lsi_fail(l->err, LS_E_FORMAT, "%s: tensor %.150s is there twice", l->path, t->name);
    float *values = place ? lsi_alloc(l->a->alloc, rows * cols * sizeof *values) : NULL;
    if (!values)
        return lsi_fail(l->err, LS_E_NOMEM, "no memory for the tensors of %s", l->path);
    *place = values;
    const struct lsi_tensor stored = { .dtype = t->dtype, .data = t->data };
    for (size_t i = 0; i < rows * cols; i++)
        values[i] = lsi_tensor_value(&stored, i);
    return LS_OK;
}

static ls_status load_tensors(const struct loader *l)
{
    struct lsi_safetensors st;
    ls_status status = LS_OK;
    LSI_TRY(lsi_st_open(&st, l->path, l->a->alloc, l->err));
    for (size_t i = 0; status == LS_OK && i < st.n_tensors; i++)
        status = load_tensor(l, &st.tensors[i]);
    lsi_st_close(&st);
    LSI_TRY(status);
    for (size_t i = 0; i < l->a->n; i++) {
        const struct lsi_adapter_target *x = &l->a->targets[i];
        if (!x->a || !x->b)
            return lsi_fail(l->err, LS_E_FORMAT, "%s: %s of layer %zu has only one of lora_A and lora_B",
                            l->path, l->c->family->names[x->role].hf, x->layer);
    }
    if (l->a->n == 0)
        return lsi_fail(l->err, LS_E_FORMAT, "%s holds no tensors", l->path);
    return LS_OK;
}

ls_status lsi_adapter_open(struct lsi_adapter *a, const char *dir, const struct lsi_config *c,
                           const ls_alloc *alloc, ls_error *err)
{
    char config[LSI_MODEL_PATH], tensors[LSI_MODEL_PATH];
    *a = (struct lsi_adapter){ .alloc = lsi_alloc_or_default(alloc) };
    if (!lsi_path_join(config, sizeof config, dir, "adapter_config.json") ||
        !lsi_path_join(tensors, sizeof tensors, dir, "adapter_model.safetensors"))
        return lsi_fail(err, LS_E_INVAL, "%.200s…: the path is too long", dir);
    const struct loader l = { .a = a, .path = tensors, .c = c, .err = err };
    ls_status st = read_config(a, config, err);
    if (st == LS_OK)
        st = lsi_extension_read(&a->extension, dir, a->alloc, err);
    if (st == LS_OK)
        st = load_tensors(&l);
    if (st != LS_OK)
        lsi_adapter_close(a);
    return st;
}

void lsi_adapter_close(struct lsi_adapter *a)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct lsi_adapter_target *x = &a->targets[i];
        lsi_free(a->alloc, x->a, x->a ? a->rank * x->n_in * sizeof(float) : 0);
        lsi_free(a->alloc, x->b, x->b ? x->n_out * a->rank * sizeof(float) : 0);
    }
    lsi_free(a->alloc, a->targets, a->cap * sizeof *a->targets);
    *a = (struct lsi_adapter){ 0 };
}

/* ---- writing ----------------------------------------------------------------------------------------------
 */

struct saver {
    const struct lsi_params *p;
    struct lsi_hf_dir dir;
    ls_error *err;
};

/* The last part of a module's name: "q_proj" of "model.layers.3.self_attn.q_proj.lora_A.weight". */
static void module_name(const struct lsi_param *p, char out[LSI_TENSOR_NAME])
{
    snprintf(out, LSI_TENSOR_NAME, "%s", p->name);
    char *end = strstr(out, ".lora_");
    if (end)
        *end = '\0';
    const char *dot = strrchr(out, '.');
    if (dot)
        memmove(out, dot + 1, strlen(dot));
}

/* Every kind of module once, in order of appearance. */
static void put_modules(struct lsi_buf *b, const struct lsi_params *p)
{
    bool seen[LSI_N_ROLES] = { false };
    bool first = true;
    char name[LSI_TENSOR_NAME];
    for (size_t i = 0; i < p->n; i++) {
        const struct lsi_param *x = &p->list[i];
        if (x->kind != LSI_PARAM_LORA_A || seen[x->role])
            continue;
        seen[x->role] = true;
        module_name(x, name);
        lsi_buf_printf(b, "%s\"%s\"", first ? "" : ", ", name);
        first = false;
    }
}

static ls_status write_config(const struct saver *s, size_t rank, double alpha, const char *base)
{
    struct lsi_buf b;
    lsi_hf_dir_buf(&s->dir, &b);
    lsi_buf_printf(&b, "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": \"CAUSAL_LM\",\n"
                       "  \"base_model_name_or_path\": ");
    lsi_buf_json_string(&b, base, strlen(base));
    lsi_buf_printf(&b, ",\n  \"r\": %zu,\n  \"lora_alpha\": ", rank);
    if (alpha == (double)(int64_t)alpha)
        lsi_buf_printf(&b, "%lld", (long long)alpha);
    else
        lsi_buf_json_number(&b, alpha);
    lsi_buf_printf(&b, ",\n  \"lora_dropout\": 0.0,\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n"
                       "  \"init_lora_weights\": true,\n  \"use_rslora\": false,\n  \"use_dora\": false,\n"
                       "  \"rank_pattern\": {},\n  \"alpha_pattern\": {},\n  \"modules_to_save\": null,\n"
                       "  \"inference_mode\": true,\n  \"target_modules\": [");
    put_modules(&b, s->p);
    lsi_buf_printf(&b, "]\n}\n");
    return lsi_hf_dir_write_buf(&s->dir, "adapter_config.json", &b);
}

/* The i-th parameter of an adapter. */
static const struct lsi_param *nth(const struct lsi_params *p, size_t i)
{
    const struct lsi_param *x = p->list;
    while (x->kind == LSI_PARAM_BASE || i-- > 0)
        x++;
    return x;
}

static void write_values(struct lsi_st_writer *w, const struct lsi_param *x, float *values)
{
    for (size_t at = 0; at < x->n; at += PIECE) {
        const size_t n = lsi_min_size(PIECE, x->n - at);
        lsi_param_get(x, at, values, n);
        lsi_st_write_data(w, values, n * sizeof *values);
    }
}

static ls_status write_tensors(const struct saver *s, size_t n, float *values)
{
    char path[LSI_MODEL_PATH], name[LSI_TENSOR_NAME + sizeof LSI_PEFT_PREFIX];
    struct lsi_st_writer *w = NULL;
    ls_status st;
    if (!lsi_path_join(path, sizeof path, s->dir.tmp, "adapter_model.safetensors"))
        return lsi_fail(s->err, LS_E_INVAL, "%.200s…: the path is too long", s->dir.out);
    LSI_TRY(lsi_st_writer_create(&w, path, s->dir.alloc, s->err));
    for (size_t i = 0; i < n; i++) {
        const struct lsi_param *x = nth(s->p, i);
        snprintf(name, sizeof name, LSI_PEFT_PREFIX "%s", x->name);
        lsi_st_put_tensor(w, name, LSI_F32, 2, (const uint64_t[]){ x->rows, x->cols });
    }
    LSI_TRY_OR(fail, lsi_st_writer_begin(w, s->err));
    for (size_t i = 0; i < n; i++)
        write_values(w, nth(s->p, lsi_st_writer_order(w, i)), values);
    return lsi_st_writer_commit(w, s->err);

fail:
    lsi_st_writer_free(w);
    return st;
}

static ls_status write_extension(const struct saver *s, const struct lsi_extension *e)
{
    struct lsi_buf b;
    lsi_hf_dir_buf(&s->dir, &b);
    lsi_extension_write(e, &b);
    return lsi_hf_dir_write_buf(&s->dir, LSI_EXTENSION_FILE, &b);
}

ls_status lsi_adapter_save(const struct lsi_params *p, double alpha, const char *base,
                           const struct lsi_extension *e, const char *dir, ls_error *err)
{
    struct saver s = { .p = p, .err = err };
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += p->list[i].kind != LSI_PARAM_BASE;
    if (n == 0)
        return lsi_fail(err, LS_E_INVAL, "%s: there is no adapter to write", dir);
    float *values = lsi_alloc(p->alloc, PIECE * sizeof *values);
    if (!values)
        return lsi_fail(err, LS_E_NOMEM, "no memory to write %s", dir);
    ls_status st = lsi_hf_dir_create(&s.dir, dir, p->alloc, err);
    if (st == LS_OK) {
        const struct lsi_param *first = nth(p, 0);
        st = write_config(&s, first->kind == LSI_PARAM_LORA_A ? first->rows : first->cols, alpha, base);
        if (st == LS_OK)
            st = write_extension(&s, e);
        if (st == LS_OK)
            st = write_tensors(&s, n, values);
        st = lsi_hf_dir_finish(&s.dir, st);
    }
    lsi_free(p->alloc, values, PIECE * sizeof *values);
    return st;
}
