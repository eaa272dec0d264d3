/* Sums over the records of one policy, budget, task, length and protocol. */
#include "eval/eval_log.h"

#include <math.h>
#include <string.h>

static bool same_row(const ls_eval_record *a, const ls_eval_record *b)
{
    return a->n_tokens == b->n_tokens && a->protocol == b->protocol && strcmp(a->task, b->task) == 0 &&
           strcmp(a->budget, b->budget) == 0 && strcmp(a->kv, b->kv) == 0;
}

struct sums {
    double score, squares, nll[LS_EVAL_BINS], bytes;
    double prompt_seconds, decode_seconds;
    size_t prompt_tokens, decode_tokens, scored[LS_EVAL_BINS];
};

static void add(struct sums *s, const ls_eval_result *r)
{
    s->score += r->score;
    s->squares += r->score * r->score;
    s->bytes += (double)r->cache_bytes;
    s->prompt_seconds += r->prompt_seconds;
    s->decode_seconds += r->decode_seconds;
    s->prompt_tokens += r->prompt_tokens;
    s->decode_tokens += r->decode_tokens;
    for (size_t i = 0; i < LS_EVAL_BINS; i++) {
        s->nll[i] += r->nll[i];
        s->scored[i] += r->scored[i];
    }
}

static double rate(size_t n, double seconds)
{
    return n > 0 && seconds > 0 ? (double)n / seconds : (double)NAN;
}

/* The standard error is of the mean of cases, whose scores are independent of each other. */
static void finish(ls_eval_row *row, const struct sums *s)
{
    const double n = (double)row->n, mean = s->score / n;
    size_t predicted = 0;
    for (size_t i = 0; i < LS_EVAL_BINS; i++) {
        predicted += s->scored[i];
        row->perplexity[i] = s->scored[i] ? exp(s->nll[i] / (double)s->scored[i]) : (double)NAN;
    }
    row->accuracy = predicted ? (double)NAN : mean;
    row->accuracy_stderr =
        predicted || row->n < 2 ? (double)NAN : sqrt(fmax(0, s->squares - n * mean * mean) / (n - 1) / n);
    row->prompt_rate = rate(s->prompt_tokens, s->prompt_seconds);
    row->decode_rate = rate(s->decode_tokens, s->decode_seconds);
    row->cache_bytes = s->bytes / n;
}

/* ---- labels ------------------------------------------------------------------------------------------ */

/* Policy i of those there are; SIZE_MAX: none has this name, of n bytes. */
static size_t find_policy(const char *name, size_t n, ls_kv_policy_info *p)
{
    for (size_t i = 0; ls_kv_policy_at(i, p); i++)
        if (strlen(p->name) == n && memcmp(p->name, name, n) == 0)
            return i;
    return SIZE_MAX;
}

/* "key=value" that says nothing new: it is the default, or what a budget came to. */
static bool is_silent(size_t policy, const ls_kv_policy_info *p, const char *item, size_t len, bool budget)
{
    ls_kv_key_info key = { .struct_size = sizeof key };
    for (size_t i = 0; i < p->n_keys && ls_kv_key_at(policy, i, &key); i++) {
        const size_t n = strlen(key.name);
        if (len <= n || strncmp(item, key.name, n) != 0 || item[n] != '=')
            continue;
        const char *value = item + n + 1;
        return (budget && key.percent) || (key.normal && strlen(key.normal) == len - n - 1 &&
                                           memcmp(key.normal, value, len - n - 1) == 0);
    }
    return len == 4 && memcmp(item, "bf16", 4) == 0;
}

/* Of "NAME:item,item" what is not silent, behind the first `used` bytes of the label; the bytes then. */
static size_t put_part(ls_eval_row *row, size_t used, const char *part, size_t len)
{
    const size_t cap = sizeof row->label, n_name = lsi_min_size(len, strcspn(part, ":"));
    ls_kv_policy_info p = { .struct_size = sizeof p };
    const size_t policy = find_policy(part, n_name, &p);
    char mark = ':';

    used += (size_t)snprintf(row->label + used, cap - used, "%.*s", (int)n_name, part);
    for (size_t at = n_name + 1, n; at < len && used < cap; at += n + 1) {
        n = lsi_min_size(strcspn(part + at, ","), len - at);
        if (policy != SIZE_MAX && is_silent(policy, &p, part + at, n, *row->budget))
            continue;
        used += (size_t)snprintf(row->label + used, cap - used, "%c%.*s", mark, (int)n, part + at);
        mark = ',';
    }
    return used;
}

/* The policy, and how it stores what it keeps. */
static void put_label(ls_eval_row *row)
{
    size_t used = 0;
    for (const char *part = row->kv; used < sizeof row->label;) {
        const size_t n = strcspn(part, "+");
        used = put_part(row, used, part, n);
        if (!part[n] || used >= sizeof row->label)
            return;
        used += (size_t)snprintf(row->label + used, sizeof row->label - used, "+");
        part += n + 1;
    }
}

/* ---- rows -------------------------------------------------------------------------------------------- */

static bool add_row(ls_eval_log *log, const ls_eval_record *r, size_t first, size_t n)
{
    ls_eval_row row = { .kv = r[first].kv,
                        .budget = r[first].budget,
                        .task = r[first].task,
                        .n_tokens = r[first].n_tokens,
                        .protocol = r[first].protocol };
    struct sums s = { 0 };
    for (size_t i = first; i < n; i++)
        if (same_row(&r[first], &r[i])) {
            add(&s, &r[i].result);
            row.n++;
        }
    finish(&row, &s);
    put_label(&row);
    return lsi_buf_append(&log->rows, &row, sizeof row);
}

static bool is_first(const ls_eval_record *r, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (same_row(&r[k], &r[i]))
            return false;
    return true;
}

ls_status ls_eval_log_rows(ls_eval_log *log, const ls_eval_row **rows, size_t *n_rows, ls_error *err)
{
    size_t n;
    const ls_eval_record *r = lsi_eval_records(log, &n);
    log->rows.len = 0;
    for (size_t i = 0; i < n; i++)
        if (is_first(r, i) && !add_row(log, r, i, n))
            return lsi_fail(err, LS_E_NOMEM, "no memory for the rows of a table");
    *rows = (const ls_eval_row *)(const void *)log->rows.data;
    *n_rows = log->rows.len / sizeof **rows;
    return LS_OK;
}
