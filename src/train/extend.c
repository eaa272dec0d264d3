#include "train/extend.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define FILE_BYTES ((size_t)1 << 16)

/* "linear:4", "yarn:4", "yarn:4:2048", "none". */
static ls_status set_scaling(struct lsi_config *c, struct lsi_rope_config *r, const char *text, ls_error *err)
{
    char *end;
    const struct lsi_rope_config plain = { .base = r->base, .factor = 1, .attention_factor = 1 };
    const char *colon = strchr(text, ':');
    const size_t len = colon ? (size_t)(colon - text) : strlen(text);
    *r = plain;
    if (strcmp(text, "none") == 0)
        return LS_OK;
    const bool linear = len == 6 && memcmp(text, "linear", 6) == 0;
    const bool yarn = len == 4 && memcmp(text, "yarn", 4) == 0;
    r->factor = colon ? strtod(colon + 1, &end) : 0;
    r->original_ctx = (double)c->n_ctx_train;
    if (yarn && colon && *end == ':')
        r->original_ctx = strtod(end + 1, &end);
    if ((!linear && !yarn) || !colon || *end || !(r->factor >= 1) || !(r->factor <= 1e6) ||
        !(r->original_ctx >= 1))
        return lsi_fail(
            err, LS_E_INVAL,
            "rope scaling \"%.60s\" is none of none, linear:FACTOR, yarn:FACTOR, yarn:FACTOR:ORIGINAL", text);
    r->scaling = linear ? LSI_ROPE_LINEAR : LSI_ROPE_YARN;
    if (yarn) {
        r->attention_factor = lsi_yarn_attention_factor(r->factor);
        r->beta_fast = 32;
        r->beta_slow = 1;
        r->truncate = true;
    }
    return LS_OK;
}

ls_status lsi_config_extend(struct lsi_config *c, const struct lsi_extension *e, ls_error *err)
{
    /* Sliding layers with a base of their own (Gemma 3) see no further than before. */
    const int n = c->family->defaults.rope_base_local == 0 ? 2 : 1;
    if (e->rope_base != 0 && !(e->rope_base > 1 && e->rope_base < 1e12))
        return lsi_fail(err, LS_E_INVAL, "a rope base of %g makes no sense; it lies between 1 and 1e12",
                        e->rope_base);
    for (int i = 0; i < n; i++) {
        if (e->rope_base != 0)
            c->rope[i].base = e->rope_base;
        if (*e->rope_scaling)
            LSI_TRY(set_scaling(c, &c->rope[i], e->rope_scaling, err));
    }
    /* They were the old scaling, or follow from the old base. */
    const bool stale = *e->rope_scaling || (e->rope_base != 0 && c->rope[0].scaling == LSI_ROPE_LLAMA3);
    if (stale && c->freq_divisors) {
        lsi_free(c->alloc, c->freq_divisors, c->D / 2 * sizeof *c->freq_divisors);
        c->freq_divisors = NULL;
    }
    if (e->n_ctx)
        c->n_ctx_train = e->n_ctx;
    return LS_OK;
}

/* ---- the file --------------------------------------------------------------------------------- */

void lsi_extension_write(const struct lsi_extension *e, struct lsi_buf *b)
{
    lsi_buf_printf(b, "{\n  \"context_length\": %zu", e->n_ctx);
    if (e->rope_base != 0) {
        lsi_buf_printf(b, ",\n  \"rope_base\": ");
        lsi_buf_json_number(b, e->rope_base);
    }
    if (*e->rope_scaling) {
        lsi_buf_printf(b, ",\n  \"rope_scaling\": ");
        lsi_buf_json_string(b, e->rope_scaling, strlen(e->rope_scaling));
    }
    lsi_buf_printf(b, "\n}\n");
}

static ls_status read_member(struct lsi_json *j, const struct lsi_json_str *key, struct lsi_extension *e)
{
    struct lsi_json_str s;
    int64_t n;
    if (lsi_json_str_is(key, "rope_base"))
        return lsi_json_double(j, &e->rope_base);
    if (lsi_json_str_is(key, "context_length")) {
        LSI_TRY(lsi_json_int(j, &n));
        if (n < 1 || n > INT32_MAX)
            return lsi_json_error(j, "a context of %lld tokens", (long long)n);
        e->n_ctx = (size_t)n;
        return LS_OK;
    }
    if (!lsi_json_str_is(key, "rope_scaling"))
        return lsi_json_skip(j);
    LSI_TRY(lsi_json_string(j, &s));
    if (s.len >= sizeof e->rope_scaling)
        return lsi_json_error(j, "a rope_scaling of %zu bytes", s.len);
    e->rope_scaling[lsi_json_unescape(&s, e->rope_scaling)] = '\0';
    return LS_OK;
}

ls_status lsi_extension_read(struct lsi_extension *e, const char *dir, const ls_alloc *alloc, ls_error *err)
{
    char path[LSI_MODEL_PATH];
    struct lsi_map m;
    struct lsi_json j;
    struct lsi_json_str key;
    ls_status st;
    *e = (struct lsi_extension){ 0 };
    if (!lsi_path_join(path, sizeof path, dir, LSI_EXTENSION_FILE))
        return lsi_fail(err, LS_E_INVAL, "%.200s…: the path is too long", dir);
    if (!lsi_path_exists(path))
        return LS_OK;
    LSI_TRY(lsi_map_read(&m, path, FILE_BYTES, alloc, err));
    lsi_json_init(&j, m.data, m.bytes, path, err);
    LSI_TRY_OR(end, lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key))
        LSI_TRY_OR(end, read_member(&j, &key, e));
    st = lsi_json_end(&j);
end:
    lsi_map_close(&m);
    return st;
}
