#include "eval/eval_file.h"

#include <string.h>

#include "base/json.h"

static void free_text(char *s)
{
    if (s)
        lsi_free(NULL, s, strlen(s) + 1);
}

static void free_list(struct lsi_buf *list)
{
    for (size_t i = 0; i < lsi_eval_texts(list); i++)
        free_text((char *)(uintptr_t)lsi_eval_text(list, i));
    list->len = 0;
}

void lsi_eval_line_free(struct lsi_eval_line *l)
{
    free_text(l->context);
    free_text(l->input);
    free_text(l->prefix);
    free_text(l->dataset);
    free_list(&l->answers);
    free_list(&l->classes);
    lsi_buf_fini(&l->answers);
    lsi_buf_fini(&l->classes);
    *l = (struct lsi_eval_line){ 0 };
}

static ls_status copy_text(struct lsi_json *j, char **out)
{
    struct lsi_json_str s;
    LSI_TRY(lsi_json_string(j, &s));
    const ls_status st = lsi_json_strdup(&s, NULL, out);
    if (st != LS_OK)
        return lsi_json_error(j,
                              st == LS_E_NOMEM ? "no memory for a text" : "a text has the character U+0000");
    return LS_OK;
}

/* A text, null for none. The last of several with one key counts. */
static ls_status read_text(struct lsi_json *j, char **out)
{
    char *copy = NULL;
    if (lsi_json_peek(j) == LSI_JSON_NULL)
        return lsi_json_null(j);
    LSI_TRY(copy_text(j, &copy));
    free_text(*out);
    *out = copy;
    return LS_OK;
}

static ls_status add_text(struct lsi_json *j, struct lsi_buf *list)
{
    char *copy = NULL;
    LSI_TRY(copy_text(j, &copy));
    if (lsi_buf_append(list, &copy, sizeof copy))
        return LS_OK;
    free_text(copy);
    return lsi_json_error(j, "no memory for another text");
}

/* An array of texts, one text alone, or null. */
static ls_status read_list(struct lsi_json *j, struct lsi_buf *list)
{
    free_list(list);
    if (lsi_json_peek(j) == LSI_JSON_NULL)
        return lsi_json_null(j);
    if (lsi_json_peek(j) == LSI_JSON_STRING)
        return add_text(j, list);
    LSI_TRY(lsi_json_array(j));
    while (lsi_json_next_elem(j))
        LSI_TRY(add_text(j, list));
    return j->status;
}

static ls_status read_member(struct lsi_json *j, const struct lsi_json_str *key, struct lsi_eval_line *l)
{
    if (lsi_json_str_is(key, "context"))
        return read_text(j, &l->context);
    if (lsi_json_str_is(key, "input"))
        return read_text(j, &l->input);
    if (lsi_json_str_is(key, "answer_prefix"))
        return read_text(j, &l->prefix);
    if (lsi_json_str_is(key, "dataset"))
        return read_text(j, &l->dataset);
    if (lsi_json_str_is(key, "all_classes"))
        return read_list(j, &l->classes);
    if (lsi_json_str_is(key, "answers"))
        return read_list(j, &l->answers);
    if (lsi_json_str_is(key, "outputs")) {
        l->ruler = true;
        return read_list(j, &l->answers);
    }
    return lsi_json_skip(j);
}

static bool is_blank(const char *s)
{
    return s[strspn(s, " \t\r\n")] == '\0';
}

ls_status lsi_eval_line_read(struct lsi_eval_line *l, const char *line, size_t n, const char *name,
                             size_t number, ls_error *err)
{
    struct lsi_json j;
    struct lsi_json_str key;
    char where[4200];
    *l = (struct lsi_eval_line){ 0 };
    snprintf(where, sizeof where, "%s, line %zu", name, number);
    lsi_buf_init(&l->answers, NULL, SIZE_MAX / 4);
    lsi_buf_init(&l->classes, NULL, SIZE_MAX / 4);
    lsi_json_init(&j, line, n, where, err);
    LSI_TRY(lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key))
        LSI_TRY(read_member(&j, &key, l));
    LSI_TRY(lsi_json_end(&j));
    if (!l->input || (!l->ruler && !l->context) || lsi_eval_texts(&l->answers) == 0)
        return lsi_fail(
            err, LS_E_FORMAT,
            "%s is no question: it takes \"input\" and \"outputs\" as RULER's have, or \"context\", "
            "\"input\" and \"answers\" as LongBench's",
            where);
    if (is_blank(l->input) && (l->ruler || is_blank(l->context)))
        return lsi_fail(err, LS_E_FORMAT, "%s has an empty input: there is nothing to ask; remove the line",
                        where);
    return LS_OK;
}
