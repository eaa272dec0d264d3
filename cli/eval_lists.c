/* The lists that 'longspan eval' is given. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cli_eval.h"

void names_add(struct names *l, const char *s, size_t n)
{
    struct text t = { 0 };

    text_add(&t, s, n);
    l->items = cli_realloc(l->items, l->n + 1, sizeof *l->items);
    l->items[l->n++] = t.data;
}

void names_free(struct names *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
    *l = (struct names){ 0 };
}

int list_split(const char *option, const char *text, struct names *out)
{
    for (const char *p = text;; p++) {
        const size_t n = strcspn(p, ",");
        if (n == 0)
            return cli_usage("%s is '%s'; it must be names with commas between them", option, text);
        names_add(out, p, n);
        p += n;
        if (!*p)
            return EXIT_OK;
    }
}

/* ---- policies --------------------------------------------------------------------------------- */

/* "recent=64" and "q8" go on with the policy before them; "h2o" and "h2o:heavy=64" begin one. */
static bool continues_policy(const char *item)
{
    static const char *const precisions[] = { "bf16", "q8", "fp32" };

    for (size_t i = 0; i < CLI_LEN(precisions); i++)
        if (strcspn(item, "+") == strlen(precisions[i]) &&
            strncmp(item, precisions[i], strlen(precisions[i])) == 0)
            return true;
    return item[strcspn(item, ":=")] == '=';
}

int list_policies(const char *text, struct names *out)
{
    struct names items = { 0 };
    int status = list_split("--kv", text, &items);

    for (size_t i = 0; i < items.n && status == EXIT_OK; i++) {
        if (!continues_policy(items.items[i])) {
            names_add(out, items.items[i], strlen(items.items[i]));
        } else if (out->n == 0) {
            status =
                cli_usage("--kv begins with '%s'; it must begin with the name of a policy", items.items[i]);
        } else {
            struct text t = { 0 };
            text_printf(&t, "%s,%s", out->items[out->n - 1], items.items[i]);
            free(out->items[out->n - 1]);
            out->items[out->n - 1] = t.data;
        }
    }
    names_free(&items);
    for (size_t i = 0; i < out->n && status == EXIT_OK; i++) {
        ls_error err = { 0 };
        if (ls_kv_check(out->items[i], &err) != LS_OK)
            status = cli_usage("%s", err.text);
    }
    return status;
}

/* How a policy is told a budget of B tokens. */
static const struct budget_row {
    const char *policy;
    size_t fixed;              /* tokens of B that the first key has, */
    bool half;                 /* or half of them */
    const char *first, *other; /* keys; NULL: the other has all */
} budget_rows[] = {
    { "streaming", 4, false, "sink", "recent" },
    { "h2o", 0, true, "heavy", "recent" },
    { "snapkv", 0, false, NULL, "budget" },
    { "quest", 0, false, NULL, "budget" },
    { "topk", 0, false, NULL, "k" },
};

static const struct budget_row *find_budget_row(const char *policy)
{
    const size_t n = strcspn(policy, ":+");

    for (size_t i = 0; i < CLI_LEN(budget_rows); i++)
        if (strlen(budget_rows[i].policy) == n && memcmp(budget_rows[i].policy, policy, n) == 0)
            return &budget_rows[i];
    return NULL;
}

static int budget_tokens(const char *budget, size_t n_tokens, size_t *tokens)
{
    enum {
        LEAST = 8
    };
    char *end;
    const double v = strtod(budget, &end);
    const bool percent = *end == '%';

    if (end == budget || (percent ? end[1] : *end) || !(v > 0) || (percent && v > 100) || v >= 1e15)
        return cli_usage("--budget has '%s'; it must be tokens or a share of the length, such as 512 or 10%%",
                         budget);
    *tokens = (size_t)(percent ? v / 100 * (double)n_tokens : v);
    if (*tokens < LEAST)
        return cli_usage("a budget of %s comes to %zu tokens of %zu; it takes at least %d", budget, *tokens,
                         n_tokens, LEAST);
    return EXIT_OK;
}

/* Whether the policy is given a key itself: "h2o:heavy=64" is not told another budget. */
static bool has_key(const char *policy, const char *key)
{
    const size_t n = key ? strlen(key) : 0;

    for (const char *p = policy; key && (p = strpbrk(p, ":,")) != NULL;)
        if (strncmp(++p, key, n) == 0 && p[n] == '=')
            return true;
    return false;
}

int policy_with_budget(struct text *out, const char *policy, const char *budget, size_t n_tokens,
                       bool *applied)
{
    const struct budget_row *r = find_budget_row(policy);
    const char *rest = policy + strcspn(policy, ":+"), *storage = policy + strcspn(policy, "+");
    size_t tokens = 0;
    const int status = budget_tokens(budget, n_tokens, &tokens);

    if (status != EXIT_OK)
        return status;
    *applied = r && !has_key(policy, r->first) && !has_key(policy, r->other);
    text_clear(out);
    if (!*applied) {
        text_puts(out, policy);
        return EXIT_OK;
    }
    const size_t first = r->half ? tokens / 2 : r->fixed;
    text_printf(out, "%s:", r->policy);
    if (r->first)
        text_printf(out, "%s=%zu,", r->first, first);
    text_printf(out, "%s=%zu", r->other, tokens - first);
    if (rest < storage)
        text_printf(out, ",%.*s", (int)(storage - rest - 1), rest + 1);
    text_puts(out, storage);
    return EXIT_OK;
}

/* ---- tasks, lengths ------------------------------------------------------------------------------ */

static bool has_name(const struct names *l, const char *s)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->items[i], s) == 0)
            return true;
    return false;
}

static bool add_tasks(struct names *out, const char *name)
{
    const ls_eval_task_info *t;
    bool found = false;

    for (size_t i = 0; (t = ls_eval_task(i)) != NULL; i++) {
        if (strcmp(name, "all") != 0 && strcmp(name, t->name) != 0 && strcmp(name, t->group) != 0)
            continue;
        found = true;
        if (!has_name(out, t->name))
            names_add(out, t->name, strlen(t->name));
    }
    return found;
}

/* `groups`: names that stand for several tasks are known as well. */
static int complain_task(const char *option, const char *name, bool groups)
{
    const ls_eval_task_info *t;
    const char *known[64] = { "all", "needle" };
    struct text list = { 0 };
    size_t n = groups ? 2 : 0;

    for (size_t i = 0; (t = ls_eval_task(i)) != NULL && n < CLI_LEN(known); i++)
        known[n++] = t->name;
    for (size_t i = 0; i < n; i++)
        text_printf(&list, "%s%s", i ? ", " : "", known[i]);
    const char *near = nearest_name(name, known, n);
    cli_usage("%s has '%s'; it must be one of %s%s%s%s", option, name, list.data,
              near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    text_free(&list);
    return EXIT_USAGE;
}

int list_tasks(const char *text, struct names *out)
{
    struct names items = { 0 };
    int status = list_split("--task", text, &items);

    for (size_t i = 0; i < items.n && status == EXIT_OK; i++)
        if (!add_tasks(out, items.items[i]))
            status = complain_task("--task", items.items[i], true);
    names_free(&items);
    return status;
}

int check_task(const char *option, const char *name)
{
    const ls_eval_task_info *t;

    for (size_t i = 0; (t = ls_eval_task(i)) != NULL; i++)
        if (strcmp(name, t->name) == 0)
            return EXIT_OK;
    return complain_task(option, name, false);
}

int list_lengths(const char *text, struct count_list *out)
{
    struct names items = { 0 };
    int status = list_split("--length", text, &items);

    for (size_t i = 0; i < items.n && status == EXIT_OK; i++) {
        char *end;
        const double v = strtod(items.items[i], &end);
        const int unit = tolower((unsigned char)*end);
        const double n = v * (unit == 'k' ? 1024 : unit == 'm' ? 1048576 : 1);
        if (end == items.items[i] || (*end && (!strchr("km", unit) || end[1])) ||
            !(n >= 16 && n <= 2147483648.0))
            status = cli_usage(
                "--length has '%s'; it must be tokens, 16 or more, such as 4096 or 4k (1k is 1,024)",
                items.items[i]);
        out->items = cli_realloc(out->items, out->n + 1, sizeof *out->items);
        out->items[out->n++] = (long long)n;
    }
    names_free(&items);
    return status;
}
