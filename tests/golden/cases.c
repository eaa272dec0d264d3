#include "cases.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define MAX_BYTES ((size_t)16 << 20)

static ls_status grow(struct lsi_json *j, void *list, size_t n, size_t size)
{
    void **p = list, *q;

    if (n & (n - 1)) /* room doubles at powers of two */
        return LS_OK;
    q = realloc(*p, (n ? 2 * n : 1) * size);
    if (!q)
        return lsi_json_error(j, "out of memory");
    *p = q;
    return LS_OK;
}

static ls_status read_ids(struct lsi_json *j, int32_t **ids, size_t *n)
{
    LSI_TRY(lsi_json_array(j));
    while (lsi_json_next_elem(j)) {
        int64_t v;

        LSI_TRY(lsi_json_int(j, &v));
        LSI_TRY(grow(j, ids, *n, sizeof **ids));
        (*ids)[(*n)++] = (int32_t)v;
    }
    return j->status;
}

/* A string that may contain NUL; one more follows it. */
static ls_status read_text(struct lsi_json *j, char **text, size_t *len)
{
    struct lsi_json_str s;
    size_t n;

    LSI_TRY(lsi_json_string(j, &s));
    free(*text);
    *text = malloc(s.len + 1);
    if (!*text)
        return lsi_json_error(j, "out of memory");
    n = lsi_json_unescape(&s, *text);
    (*text)[n] = 0;
    if (len)
        *len = n;
    return LS_OK;
}

static ls_status read_case(struct lsi_json *j, struct golden_case *c)
{
    struct lsi_json_str key;

    LSI_TRY(lsi_json_object(j));
    while (lsi_json_next_key(j, &key)) {
        if (lsi_json_str_is(&key, "kind"))
            LSI_TRY(read_text(j, &c->kind, NULL));
        else if (lsi_json_str_is(&key, "prompt"))
            LSI_TRY(read_text(j, &c->prompt, NULL));
        else if (lsi_json_str_is(&key, "text"))
            LSI_TRY(read_text(j, &c->text, &c->text_len));
        else if (lsi_json_str_is(&key, "prompt_ids"))
            LSI_TRY(read_ids(j, &c->prompt_ids, &c->n_prompt_ids));
        else if (lsi_json_str_is(&key, "ids"))
            LSI_TRY(read_ids(j, &c->ids, &c->n_ids));
        else if (lsi_json_str_is(&key, "control_ids"))
            LSI_TRY(read_ids(j, &c->control_ids, &c->n_control_ids));
        else if (lsi_json_str_is(&key, "city"))
            LSI_TRY(read_text(j, &c->city, NULL));
        else if (lsi_json_str_is(&key, "passage"))
            LSI_TRY(read_text(j, &c->passage, NULL));
        else if (lsi_json_str_is(&key, "number"))
            LSI_TRY(lsi_json_int(j, &c->number));
        else if (lsi_json_str_is(&key, "chars"))
            LSI_TRY(lsi_json_int(j, &c->chars));
        else if (lsi_json_str_is(&key, "n_prompt"))
            LSI_TRY(lsi_json_int(j, &c->n_prompt));
        else if (lsi_json_str_is(&key, "share"))
            LSI_TRY(lsi_json_double(j, &c->share));
        else
            LSI_TRY(lsi_json_skip(j));
    }
    return j->status;
}

ls_status golden_cases_open(struct golden_cases *c, const char *name, ls_error *err)
{
    const ls_alloc *alloc = lsi_alloc_or_default(NULL);
    struct lsi_map map;
    struct lsi_json j;
    char path[4096];
    ls_status st;

    memset(c, 0, sizeof *c);
    snprintf(path, sizeof path, LS_SOURCE_DIR "/tests/data/golden/%s.json", name);
    LSI_TRY(lsi_map_read(&map, path, MAX_BYTES, alloc, err));
    lsi_json_init(&j, map.data, map.bytes, name, err);
    LSI_TRY_OR(out, lsi_json_array(&j));
    while (lsi_json_next_elem(&j)) {
        LSI_TRY_OR(out, grow(&j, &c->v, c->n, sizeof *c->v));
        memset(&c->v[c->n], 0, sizeof *c->v);
        c->n++;
        LSI_TRY_OR(out, read_case(&j, &c->v[c->n - 1]));
    }
    st = lsi_json_end(&j);
out:
    lsi_map_close(&map);
    if (st != LS_OK)
        golden_cases_close(c);
    return st;
}

void golden_cases_close(struct golden_cases *c)
{
    for (size_t i = 0; i < c->n; i++) {
        struct golden_case *k = &c->v[i];

        free(k->kind);
        free(k->prompt);
        free(k->text);
        free(k->prompt_ids);
        free(k->ids);
        free(k->control_ids);
        free(k->city);
        free(k->passage);
    }
    free(c->v);
    memset(c, 0, sizeof *c);
}
