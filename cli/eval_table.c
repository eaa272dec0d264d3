/* The table of 'longspan eval', in four forms. */
#include <math.h>
#include <string.h>

#include "cli_eval.h"

static const char *real_text(char out[32], double v, const char *format)
{
    if (!isfinite(v))
        return "-";
    snprintf(out, 32, format, v);
    return out;
}

/* "87.5 ± 6.3", of one case without the error. */
static const char *accuracy_text(char out[32], const ls_eval_row *r)
{
    if (!isfinite(r->accuracy))
        return "-";
    if (isfinite(r->accuracy_stderr))
        snprintf(out, 32, "%.1f ± %.1f", 100 * r->accuracy, 100 * r->accuracy_stderr);
    else
        snprintf(out, 32, "%.1f", 100 * r->accuracy);
    return out;
}

static double perplexity_of(const ls_eval_row *r)
{
    return r->perplexity[LS_EVAL_BINS - 1];
}

void table_facts(struct text *out, const struct eval_facts *f, const char *quote)
{
    text_printf(out, "model %s%s%s, compute %s", quote, f->model, quote, f->compute);
    if (f->source)
        text_printf(out, "; things are hidden in %s%s%s; seed%s ", quote, f->source, quote,
                    f->seeds->n == 1 ? "" : "s");
    for (size_t i = 0; f->source && i < f->seeds->n; i++)
        text_printf(out, "%s%lld", i ? "," : "", f->seeds->items[i]);
}

/* ---- text --------------------------------------------------------------------------------------- */

static void header(struct text *out, int kv, int task)
{
    text_printf(out, "%-*s  %-6s  %-*s  %7s  %-8s  %5s  %13s  %10s  %10s  %10s  %9s\n", kv, "kv", "budget",
                task, "task", "length", "question", "cases", "accuracy %", "perplexity", "prompt t/s",
                "decode t/s", "cache");
}

static int widest(const ls_eval_row *rows, size_t n, bool task)
{
    size_t most = 4;

    for (size_t i = 0; i < n; i++) {
        const size_t len = strlen(task ? rows[i].task : rows[i].label);
        most = len > most ? len : most;
    }
    return (int)most;
}

static bool same_keys(const ls_eval_row *a, const ls_eval_row *b)
{
    return a->n_tokens == b->n_tokens && strcmp(a->kv, b->kv) == 0 && strcmp(a->budget, b->budget) == 0;
}

/* What budgets came to: the integers that each policy was given. */
static void budgets(struct text *out, const ls_eval_row *rows, size_t n, const char *before,
                    const char *quote)
{
    for (size_t i = 0; i < n; i++) {
        bool told = !*rows[i].budget;
        for (size_t k = 0; k < i && !told; k++)
            told = same_keys(&rows[k], &rows[i]);
        if (told)
            continue;
        text_printf(out, "%s%s of %zu tokens: %s%s%s\n", before, rows[i].budget, rows[i].n_tokens, quote,
                    rows[i].kv, quote);
        before = *quote ? before : "";
    }
}

static void positions(struct text *out, const ls_eval_row *rows, size_t n, int kv)
{
    bool titled = false;
    char number[32];

    for (size_t i = 0; i < n; i++) {
        const ls_eval_row *r = &rows[i];
        if (!isfinite(perplexity_of(r)))
            continue;
        if (!titled)
            text_printf(out, "\nperplexity by position, eighths of the text\n%-*s  %-6s  %7s  %-8s\n", kv,
                        "kv", "budget", "length", "question");
        titled = true;
        text_printf(out, "%-*s  %-6s  %7zu  %-8s", kv, r->label, *r->budget ? r->budget : "-", r->n_tokens,
                    ls_eval_protocol_name(r->protocol));
        for (size_t k = 0; k < LS_EVAL_BINS; k++)
            text_printf(out, "  %8s", real_text(number, r->perplexity[k], "%.3f"));
        text_puts(out, "\n");
    }
}

void table_text(struct text *out, const ls_eval_row *rows, size_t n)
{
    const int kv = widest(rows, n, false), task = widest(rows, n, true);
    char accuracy[32], ppl[32], prompt[32], decode[32], cache[32];

    header(out, kv, task);
    for (size_t i = 0; i < n; i++) {
        const ls_eval_row *r = &rows[i];
        accuracy_text(accuracy, r);
        const char *shown = isfinite(r->accuracy) ? accuracy : "-";
        const int wide = strstr(shown, "±") ? 14 : 13; /* the sign has two bytes */
        text_printf(out, "%-*s  %-6s  %-*s  %7zu  %-8s  %5zu  %*s  %10s  %10s  %10s  %9s\n", kv, r->label,
                    *r->budget ? r->budget : "-", task, r->task, r->n_tokens,
                    ls_eval_protocol_name(r->protocol), r->n, wide, shown,
                    real_text(ppl, perplexity_of(r), "%.3f"), real_text(prompt, r->prompt_rate, "%.0f"),
                    real_text(decode, r->decode_rate, "%.1f"), format_bytes(cache, r->cache_bytes));
    }
    positions(out, rows, n, kv);
    budgets(out, rows, n, "\n", "");
}

/* ---- CSV ------------------------------------------------------------------------------------------ */

static void csv_text(struct text *out, const char *s)
{
    text_puts(out, "\"");
    for (; *s; s++)
        text_add(out, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1);
    text_puts(out, "\",");
}

static void csv_real(struct text *out, double v, char end)
{
    if (isfinite(v))
        text_printf(out, "%.9g", v);
    text_add(out, &end, 1);
}

void table_csv(struct text *out, const ls_eval_row *rows, size_t n)
{
    text_puts(out, "kv,budget,task,length,protocol,cases,accuracy,accuracy_stderr,prompt_tokens_per_second,"
                   "decode_tokens_per_second,cache_bytes");
    for (size_t k = 0; k < LS_EVAL_BINS; k++)
        text_printf(out, ",perplexity_%zu", k + 1);
    text_puts(out, "\n");
    for (size_t i = 0; i < n; i++) {
        const ls_eval_row *r = &rows[i];
        csv_text(out, r->kv);
        csv_text(out, r->budget);
        csv_text(out, r->task);
        text_printf(out, "%zu,%s,%zu,", r->n_tokens, ls_eval_protocol_name(r->protocol), r->n);
        csv_real(out, r->accuracy, ',');
        csv_real(out, r->accuracy_stderr, ',');
        csv_real(out, r->prompt_rate, ',');
        csv_real(out, r->decode_rate, ',');
        csv_real(out, r->cache_bytes, ',');
        for (size_t k = 0; k < LS_EVAL_BINS; k++)
            csv_real(out, r->perplexity[k], k + 1 < LS_EVAL_BINS ? ',' : '\n');
    }
}

/* ---- JSON ------------------------------------------------------------------------------------------- */

static void json_row(struct json_out *j, const ls_eval_row *r)
{
    json_open(j, NULL, '{');
    json_str(j, "kv", r->kv);
    json_str(j, "budget", *r->budget ? r->budget : NULL);
    json_str(j, "task", r->task);
    json_uint(j, "length", r->n_tokens);
    json_str(j, "protocol", ls_eval_protocol_name(r->protocol));
    json_uint(j, "cases", r->n);
    json_real(j, "accuracy", r->accuracy);
    json_real(j, "accuracy_stderr", r->accuracy_stderr);
    json_real(j, "prompt_tokens_per_second", r->prompt_rate);
    json_real(j, "decode_tokens_per_second", r->decode_rate);
    json_real(j, "cache_bytes", r->cache_bytes);
    json_open(j, "perplexity_by_position", '[');
    for (size_t k = 0; k < LS_EVAL_BINS && isfinite(perplexity_of(r)); k++)
        json_real(j, NULL, r->perplexity[k]);
    json_close(j, ']');
    json_close(j, '}');
}

void table_json(struct json_out *j, const ls_eval_row *rows, size_t n, const struct eval_facts *f)
{
    json_open(j, NULL, '{');
    json_str(j, "model", f->model);
    json_str(j, "compute", f->compute);
    json_int(j, "threads", f->threads);
    json_str(j, "haystack", f->source);
    json_str(j, "chat_template", f->chat_template);
    json_int(j, "cases", f->cases);
    json_open(j, "seeds", '[');
    for (size_t i = 0; i < f->seeds->n; i++)
        json_int(j, NULL, f->seeds->items[i]);
    json_close(j, ']');
    json_bool(j, "interrupted", f->interrupted);
    json_open(j, "rows", '[');
    for (size_t i = 0; i < n; i++)
        json_row(j, &rows[i]);
    json_close(j, ']');
    json_close(j, '}');
}

/* ---- Markdown ------------------------------------------------------------------------------------------ */

static bool same_page(const ls_eval_row *a, const ls_eval_row *b)
{
    return a->n_tokens == b->n_tokens && a->protocol == b->protocol;
}

static bool same_policy(const ls_eval_row *a, const ls_eval_row *b)
{
    return strcmp(a->kv, b->kv) == 0 && strcmp(a->budget, b->budget) == 0;
}

/* Rows of a page that are the first with their policy, or their task. */
static bool first_of(const ls_eval_row *rows, size_t i, bool task)
{
    for (size_t k = 0; k < i; k++)
        if (same_page(&rows[k], &rows[i]) &&
            (task ? strcmp(rows[k].task, rows[i].task) == 0 : same_policy(&rows[k], &rows[i])))
            return false;
    return true;
}

static const ls_eval_row *cell(const ls_eval_row *rows, size_t n, const ls_eval_row *policy, const char *task)
{
    for (size_t i = 0; i < n; i++)
        if (same_page(&rows[i], policy) && same_policy(&rows[i], policy) && strcmp(rows[i].task, task) == 0)
            return &rows[i];
    return NULL;
}

/* A line of the page: accuracy in per cent, of ppl the perplexity; the mean of the accuracies; speed, memory.
 */
static void page_line(struct text *out, const ls_eval_row *rows, size_t n, size_t first, size_t i)
{
    double sum = 0, decode = 0, bytes = 0;
    size_t n_accuracy = 0, n_decode = 0, n_rows = 0;
    char number[32];

    text_printf(out, "| `%s` | %s |", rows[i].label, rows[i].budget);
    for (size_t k = first; k < n; k++) {
        if (!same_page(&rows[first], &rows[k]) || !first_of(rows, k, true))
            continue;
        const ls_eval_row *r = cell(rows, n, &rows[i], rows[k].task);
        if (!r) {
            text_puts(out, "  |");
            continue;
        }
        const bool scored = isfinite(r->accuracy);
        text_printf(out, " %s |",
                    scored ? real_text(number, 100 * r->accuracy, "%.0f")
                           : real_text(number, perplexity_of(r), "%.2f"));
        sum += scored ? r->accuracy : 0;
        n_accuracy += scored;
        decode += isfinite(r->decode_rate) ? r->decode_rate : 0;
        n_decode += isfinite(r->decode_rate);
        bytes += r->cache_bytes;
        n_rows++;
    }
    text_printf(out, " %s |", real_text(number, n_accuracy ? 100 * sum / (double)n_accuracy : NAN, "%.1f"));
    text_printf(out, " %s |", real_text(number, n_decode ? decode / (double)n_decode : NAN, "%.1f"));
    text_printf(out, " %s |\n", format_bytes(number, n_rows ? bytes / (double)n_rows : 0));
}

/* A name from a file, as a cell of a table. */
static void cell_text(struct text *out, const char *s)
{
    for (; *s; s++)
        if (*s == '|')
            text_puts(out, "\\|");
        else
            text_add(out, (unsigned char)*s < ' ' ? " " : s, 1);
}

static void page(struct text *out, const ls_eval_row *rows, size_t n, size_t first)
{
    size_t columns = 5;

    text_printf(out, "%s%zu tokens, question %s: accuracy in per cent\n\n| kv | budget |",
                out->len ? "\n" : "", rows[first].n_tokens, ls_eval_protocol_name(rows[first].protocol));
    for (size_t k = first; k < n; k++)
        if (same_page(&rows[first], &rows[k]) && first_of(rows, k, true)) {
            text_puts(out, " ");
            cell_text(out, rows[k].task);
            text_puts(out, " |");
            columns++;
        }
    text_puts(out, " mean | decode tokens/s | cache |\n|");
    for (size_t k = 0; k < columns; k++)
        text_puts(out, k < 2 ? " --- |" : " ---: |");
    text_puts(out, "\n");
    for (size_t i = first; i < n; i++)
        if (same_page(&rows[first], &rows[i]) && first_of(rows, i, false))
            page_line(out, rows, n, first, i);
}

void table_markdown(struct text *out, const ls_eval_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool seen = false;
        for (size_t k = 0; k < i; k++)
            seen |= same_page(&rows[k], &rows[i]);
        if (!seen)
            page(out, rows, n, i);
    }
    if (out->len)
        text_puts(out, "\n");
    budgets(out, rows, n, "* ", "`");
}
