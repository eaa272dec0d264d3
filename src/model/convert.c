#include "model/convert_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/numbers.h"
#include "model/hf_dir.h"

void ls_convert_options_defaults(ls_convert_options *o)
{
    *o = (ls_convert_options){ .struct_size = sizeof *o };
}

/* ---- types ------------------------------------------------------------------------------ */

enum lsi_dtype lsi_convert_float_dtype(const struct lsi_convert *cv)
{
    const enum lsi_dtype t = cv->dtype == LSI_N_DTYPES ? cv->m->main_dtype : cv->dtype;
    return lsi_dtype_is_quantized(t) ? LSI_BF16 : t;
}

/* Rows that no block of 256 divides get a type of about as many bits in blocks of 32. */
static enum lsi_dtype fitting_dtype(enum lsi_dtype t, size_t cols)
{
    if (cols % lsi_dtype_block(t) == 0)
        return t;
    switch (t) {
    case LSI_Q4_K:
        return LSI_Q5_0;
    case LSI_Q5_K:
        return LSI_Q5_1;
    case LSI_Q6_K:
        return LSI_Q8_0;
    default:
        return t;
    }
}

static enum lsi_dtype matrix_dtype(const struct lsi_convert *cv, enum lsi_role role, enum lsi_dtype src,
                                   size_t cols)
{
    if (cv->dtype == LSI_N_DTYPES)
        return !cv->to_gguf && lsi_dtype_is_quantized(src) ? LSI_BF16 : src;
    if (!lsi_dtype_is_quantized(cv->dtype))
        return cv->dtype;
    /* Four bits cost much accuracy in the table of tokens and in the output, for little size. */
    const bool table = role == LSI_ROLE_TOKEN_EMBD || role == LSI_ROLE_OUTPUT;
    const enum lsi_dtype t = fitting_dtype(table ? LSI_Q8_0 : cv->dtype, cols);
    if (cols % lsi_dtype_block(t) != 0)
        return src == LSI_BF16 ? LSI_BF16 : LSI_F16;
    return t;
}

static bool is_exact(const struct lsi_tensor *t, float add, size_t n, enum lsi_dtype dtype)
{
    for (size_t i = 0; i < n; i++) {
        const float v = lsi_tensor_value(t, i) + add;
        const float r = dtype == LSI_BF16  ? lsi_bf16_to_f32(lsi_bf16_from_f32(v))
                        : dtype == LSI_F16 ? lsi_f16_to_f32(lsi_f16_from_f32(v))
                                           : v;
        if (lsi_f32_bits(r) != lsi_f32_bits(v))
            return false;
    }
    return true;
}

/* GGUF readers expect F32. In a Hugging Face directory vectors take the type of the matrices where that is
 * exact. */
static enum lsi_dtype vector_dtype(const struct lsi_convert *cv, const struct lsi_convert_tensor *t, size_t n)
{
    const enum lsi_dtype dtype = lsi_convert_float_dtype(cv);
    return !cv->to_gguf && is_exact(&t->src, t->add, n, dtype) ? dtype : LSI_F32;
}

/* ---- the plan ----------------------------------------------------------------------------- */

static bool same_format(const struct lsi_convert *cv)
{
    return cv->m->source.is_gguf == cv->to_gguf;
}

static ls_status set_name(struct lsi_convert *cv, struct lsi_convert_tensor *t, enum lsi_role role,
                          size_t layer)
{
    const struct lsi_source gguf = { .is_gguf = true, .prefix = "", .head_prefix = "" };
    const struct lsi_source hf = { .prefix = "model.", .head_prefix = "" };
    if (!same_format(cv)) {
        lsi_source_name(cv->to_gguf ? &gguf : &hf, cv->m->config.family, role, layer, t->name,
                        sizeof t->name);
        return LS_OK;
    }
    if (t->src.name.len >= sizeof t->name)
        return lsi_fail(cv->err, LS_E_LIMIT, "%s: tensor %.*s has too long a name", cv->m->path,
                        (int)lsi_min_size(t->src.name.len, 200), t->src.name.s);
    memcpy(t->name, t->src.name.s, t->src.name.len);
    t->name[t->src.name.len] = '\0';
    return LS_OK;
}

/* Whether GGUF files have the rows of a role in interleaved order. */
static bool in_pairs(const struct lsi_convert *cv, enum lsi_role role)
{
    const bool rotated =
        role == LSI_ROLE_Q || role == LSI_ROLE_K || role == LSI_ROLE_Q_BIAS || role == LSI_ROLE_K_BIAS;
    return rotated && cv->m->config.family->interleaved_gguf;
}

static enum lsi_row_order row_order(const struct lsi_convert *cv, enum lsi_role role)
{
    if (same_format(cv) || !in_pairs(cv, role))
        return LSI_ROWS_SAME;
    return cv->to_gguf ? LSI_ROWS_INTERLEAVE : LSI_ROWS_SPLIT;
}

static float gain_change(const struct lsi_convert *cv, enum lsi_role role)
{
    if (same_format(cv) || !cv->m->config.family->gain_offset || !lsi_role_is_gain(role))
        return 0;
    return cv->to_gguf ? 1.0f : -1.0f;
}

static ls_status count_bytes(struct lsi_convert *cv, struct lsi_convert_tensor *t)
{
    size_t row, all;
    if (!lsi_dtype_row_bytes(t->dtype, t->cols, &row) || !lsi_mul_size(row, t->rows, &all))
        return lsi_fail(cv->err, LS_E_UNSUPPORTED,
                        "tensor %s has rows of %zu values, which do not fit blocks of %s", t->name, t->cols,
                        lsi_dtype_name(t->dtype));
    t->bytes = all;
    return LS_OK;
}

/* A tensor with a role. */
static ls_status add_role(struct lsi_convert *cv, enum lsi_role role, size_t layer,
                          const struct lsi_tensor *src)
{
    const struct lsi_shape shape = lsi_role_shape(&cv->m->config, role);
    struct lsi_convert_tensor *t = &cv->tensors[cv->n_tensors];
    *t = (struct lsi_convert_tensor){ .src = *src, .rows = shape.rows, .cols = shape.cols };
    LSI_TRY(set_name(cv, t, role, layer));
    t->order = row_order(cv, role);
    t->add = gain_change(cv, role);
    t->role = role;
    t->layer = layer;
    t->pairs = cv->m->source.is_gguf && in_pairs(cv, role);
    if (cv->edit && shape.rank == 2 && cv->edit->wanted(cv->edit->user, role, layer))
        t->edit = cv->edit;
    const bool keep = same_format(cv) && cv->dtype == LSI_N_DTYPES;
    if (shape.rank == 1 && t->order != LSI_ROWS_SAME) {
        t->rows = shape.cols;
        t->cols = 1;
    }
    if (keep)
        t->dtype = src->dtype;
    else
        t->dtype = shape.rank == 2 ? matrix_dtype(cv, role, src->dtype, shape.cols)
                                   : vector_dtype(cv, t, shape.cols);
    cv->n_tensors++;
    return count_bytes(cv, t);
}

/* A tensor of the same format that this library has no use for (a vision tower, say): its bytes. */
static ls_status add_other(struct lsi_convert *cv, const struct lsi_tensor *src)
{
    struct lsi_convert_tensor *t = &cv->tensors[cv->n_tensors++];
    *t = (struct lsi_convert_tensor){ .src = *src, .dtype = src->dtype, .rows = 1, .bytes = src->bytes };
    if (src->dtype == LSI_OTHER)
        return lsi_fail(cv->err, LS_E_UNSUPPORTED, "%s: tensor %.*s of type %s cannot be copied", cv->m->path,
                        (int)src->name.len, src->name.s, src->dtype_name);
    return set_name(cv, t, LSI_N_ROLES, 0);
}

static ls_status plan_same_format(struct lsi_convert *cv)
{
    const struct lsi_source *s = &cv->m->source;
    for (size_t i = 0; i < lsi_source_n_tensors(s); i++) {
        struct lsi_tensor src;
        enum lsi_role role;
        size_t layer;
        lsi_source_tensor(s, i, &src);
        const bool known = lsi_source_role(s, cv->m->config.family, src.name, &role, &layer);
        if (known && lsi_role_shape(&cv->m->config, role).rank > 0)
            LSI_TRY(add_role(cv, role, layer, &src));
        else if (cv->reconfigured && !cv->m->config.freq_divisors &&
                 lsi_str_is(src.name, "rope_freqs.weight"))
            continue;                               /* the model's are written anew, if it has any */
        else if (!known || role != LSI_ROLE_OUTPUT) /* a tied model has one table */
            LSI_TRY(add_other(cv, &src));
    }
    return LS_OK;
}

static ls_status plan_role(struct lsi_convert *cv, enum lsi_role role, size_t layer)
{
    struct lsi_tensor src;
    if (lsi_role_shape(&cv->m->config, role).rank == 0 ||
        !lsi_source_find(&cv->m->source, cv->m->config.family, role, layer, &src))
        return LS_OK;
    return add_role(cv, role, layer, &src);
}

static ls_status plan_other_format(struct lsi_convert *cv)
{
    LSI_TRY(plan_role(cv, LSI_ROLE_TOKEN_EMBD, 0));
    for (size_t i = 0; i < cv->m->config.L; i++)
        for (enum lsi_role role = LSI_ROLE_ATTN_NORM; role < LSI_N_ROLES; role++)
            LSI_TRY(plan_role(cv, role, i));
    LSI_TRY(plan_role(cv, LSI_ROLE_OUTPUT_NORM, 0));
    return plan_role(cv, LSI_ROLE_OUTPUT, 0);
}

/* ---- options ------------------------------------------------------------------------------- */

static ls_status read_format(struct lsi_convert *cv)
{
    const char *f = cv->o.format;
    if (!f)
        cv->to_gguf = lsi_path_has_suffix(cv->out, ".gguf");
    else if (strcmp(f, "gguf") == 0)
        cv->to_gguf = true;
    else if (strcmp(f, "hf") != 0)
        return lsi_fail(cv->err, LS_E_INVAL, "output format \"%s\" is unknown (gguf, hf)", f);
    return LS_OK;
}

static ls_status read_dtype(struct lsi_convert *cv)
{
    const char *d = cv->o.dtype;
    cv->dtype = LSI_N_DTYPES;
    if (!d || strcmp(d, "keep") == 0)
        return LS_OK;
    const enum lsi_dtype t = lsi_dtype_from_name(d);
    if (t == LSI_N_DTYPES || !lsi_dtype_is_weight(t))
        return lsi_fail(cv->err, LS_E_INVAL,
                        "output type \"%s\" is unknown (keep, f32, f16, bf16, q8_0, q6_k, q5_k, q5_1, q5_0, "
                        "q4_k, q4_1, q4_0)",
                        d);
    cv->dtype = t;
    if (!cv->to_gguf && lsi_dtype_is_quantized(t))
        return lsi_fail(
            cv->err, LS_E_INVAL,
            "a Hugging Face directory holds f32, f16 or bf16, not %s; write a .gguf file for that", d);
    return LS_OK;
}

static ls_status check_output(const struct lsi_convert *cv)
{
    if (!lsi_path_exists(cv->out))
        return LS_OK;
    if (!cv->o.force)
        return lsi_fail(cv->err, LS_E_INVAL,
                        "%s exists already; ask to replace it (force) or choose another name", cv->out);
    if (cv->to_gguf && lsi_path_is_dir(cv->out))
        return lsi_fail(cv->err, LS_E_INVAL, "%s is a directory; a GGUF file cannot replace it", cv->out);
    if (!cv->to_gguf && !lsi_path_is_dir(cv->out))
        return lsi_fail(cv->err, LS_E_INVAL, "%s is a file; a Hugging Face directory cannot replace it",
                        cv->out);
    return LS_OK;
}

static ls_status open_source(struct lsi_convert *cv, const char *in)
{
    ls_model_options o;
    ls_model_options_defaults(&o);
    o.alloc = cv->alloc;
    return ls_model_open(in, &o, &cv->m, cv->err);
}

ls_status lsi_convert_edited(const char *in, const char *out, const ls_convert_options *o,
                             uint64_t shard_bytes, const struct lsi_convert_edit *edit, ls_error *err)
{
    struct lsi_convert cv = { .err = err, .out = out, .shard_bytes = shard_bytes, .edit = edit };
    size_t cap = 0;
    ls_status st;

    if (!in || !out || !*out)
        return lsi_fail(err, LS_E_INVAL, "ls_convert: a path is missing");
    ls_convert_options_defaults(&cv.o);
    if (o)
        memcpy(&cv.o, o, lsi_min_size(o->struct_size, sizeof cv.o));
    cv.alloc = lsi_alloc_or_default(cv.o.alloc);
    cv.n_threads = lsi_cpu_count();
    LSI_TRY(read_format(&cv));
    LSI_TRY(read_dtype(&cv));
    LSI_TRY(check_output(&cv));
    LSI_TRY(open_source(&cv, in));
    if (edit)
        LSI_TRY_OR(end, edit->configure(edit->user, &cv.m->config, &cv.reconfigured, err));

    lsk_table_init(&cv.kernels, lsk_cpu_features());
    cap = lsi_source_n_tensors(&cv.m->source);
    cv.tensors = lsi_calloc(cv.alloc, cap, sizeof *cv.tensors);
    if (!cv.tensors || lsi_pool_create(&cv.pool, cv.n_threads, cv.alloc) != LS_OK) {
        st = lsi_fail(err, LS_E_NOMEM, "out of memory converting %s", in);
        goto end;
    }
    LSI_TRY_OR(end, same_format(&cv) ? plan_same_format(&cv) : plan_other_format(&cv));
    st = cv.to_gguf ? lsi_convert_to_gguf(&cv) : lsi_convert_to_hf(&cv);
end:
    lsi_pool_free(cv.pool);
    lsi_free(cv.alloc, cv.tensors, cap * sizeof *cv.tensors);
    ls_model_close(cv.m);
    return st;
}

ls_status ls_convert(const char *in, const char *out, const ls_convert_options *o, ls_error *err)
{
    return lsi_convert_edited(in, out, o, LSI_SHARD_BYTES, NULL, err);
}
