/*
 * How well the model predicts a text. Windows of -c tokens are read one after the other, each
 * --stride tokens on; a token counts in the first window that holds it, predicted from what stands
 * before it in that window. The first token of all has no prediction, nor has, side by side
 * (stride = window), the first of each window.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>

#include "cli_session.h"

struct tally {
    size_t n_tokens, n_scored, n_windows;
    double sum, sum_squares;
};

static void count(struct tally *t, double nll)
{
    t->n_scored++;
    t->sum += nll;
    t->sum_squares += nll * nll;
}

/* One line per token: those of a window that were not in the window before. */
static void write_tokens(FILE *f, const int32_t *ids, const float *nll, size_t first, size_t n)
{
    for (size_t i = first; f && i < n; i++) {
        if (i == 0)
            fprintf(f, "{\"id\":%d,\"nll\":null}\n", (int)ids[i]);
        else
            fprintf(f, "{\"id\":%d,\"nll\":%.9g}\n", (int)ids[i], (double)nll[i - 1]);
    }
}

static int measure_window(struct session *s, const int32_t *ids, size_t n, size_t first, float *nll,
                          struct tally *t, FILE *per_token)
{
    ls_error err = { 0 };
    ls_status st = ls_context_rewind(s->ctx, 0, &err);

    if (st == LS_OK)
        st = ls_context_append_nll(s->ctx, ids, n, nll, &err);
    if (st == LS_E_CANCELED)
        return EXIT_INTERRUPTED;
    if (st != LS_OK)
        return cli_fail("%s", err.text);
    for (size_t i = first > 0 ? first : 1; i < n; i++)
        count(t, (double)nll[i - 1]);
    t->n_tokens += n - first;
    t->n_windows++;
    write_tokens(per_token, ids, nll, first, n);
    return EXIT_OK;
}

static size_t count_windows(size_t n, size_t window, size_t stride)
{
    return n <= window ? 1 : 1 + (n - window + stride - 1) / stride;
}

static int measure(struct session *s, const int32_t *ids, size_t n, size_t window, size_t stride,
                   struct tally *t, FILE *per_token)
{
    const size_t n_windows = count_windows(n, window, stride), work = n + (n_windows - 1) * (window - stride);
    float *nll = cli_realloc(NULL, window, sizeof *nll);
    size_t done = 0; /* tokens that have been counted */
    int status = EXIT_OK;

    progress_start(&s->progress, "perplexity", "tokens", s->o->quiet);
    for (size_t i = 0; i < n_windows && status == EXIT_OK; i++) {
        const size_t begin = i * stride, end = begin + window < n ? begin + window : n;
        progress_span(&s->progress, i * window, work);
        status = measure_window(s, ids + begin, end - begin, done - begin, nll, t, per_token);
        done = end;
    }
    progress_end(&s->progress);
    free(nll);
    return status;
}

static int print_results(const struct session *s, const struct tally *t, size_t window, size_t stride,
                         double seconds)
{
    const double n = (double)t->n_scored, mean = t->sum / n;
    const double variance = t->n_scored > 1 ? fmax(0, t->sum_squares - n * mean * mean) / (n - 1) : NAN;
    const double error = sqrt(variance / n), ppl = exp(mean);
    char took[32], peak[32];

    cli_note(s->o->quiet, "%s, %.1f tokens/s; peak memory %s", format_seconds(took, seconds),
             (double)t->n_tokens / seconds, format_bytes(peak, (double)ls_peak_bytes()));
    if (!s->o->json) {
        printf("tokens      %zu, %zu of them predicted, in %zu window%s\n", t->n_tokens, t->n_scored,
               t->n_windows, t->n_windows == 1 ? "" : "s");
        printf("mean nll    %.6f +- %.6f\n", mean, error);
        printf("perplexity  %.4f +- %.4f\n", ppl, ppl * error);
        return finish_output(EXIT_OK);
    }
    struct json_out j = { 0 };
    json_open(&j, NULL, '{');
    json_uint(&j, "tokens", t->n_tokens);
    json_uint(&j, "predicted", t->n_scored);
    json_uint(&j, "windows", t->n_windows);
    json_uint(&j, "context", window);
    json_uint(&j, "stride", stride);
    json_real(&j, "mean_nll", mean);
    json_real(&j, "mean_nll_stderr", error);
    json_real(&j, "perplexity", ppl);
    json_real(&j, "perplexity_stderr", ppl * error);
    json_real(&j, "seconds", seconds);
    json_str(&j, "model", s->info.path);
    json_str(&j, "kv", ls_context_kv(s->ctx));
    json_str(&j, "compute", s->o->compute);
    json_int(&j, "threads", s->o->threads ? s->o->threads : ls_cpu_count());
    json_uint(&j, "peak_bytes", ls_peak_bytes());
    json_close(&j, '}');
    return json_print(&j);
}

static int run(struct session *s, const struct text *text, FILE *per_token)
{
    const size_t window = ls_context_capacity(s->ctx);
    const size_t stride = s->o->stride ? (size_t)s->o->stride : window;
    struct tally t = { 0 };
    ls_error err = { 0 };
    int32_t *ids = NULL;
    size_t n = 0;
    const double started = now_seconds();
    int status;

    if (stride > window)
        return cli_usage("--stride is %zu; it must not exceed the window of %zu tokens (-c)", stride, window);
    if (ls_tokenizer_encode(s->tok, text->data, text->len, LS_ENCODE_ADD_SPECIAL, &ids, &n, &err) != LS_OK)
        return cli_fail("%s", err.text);
    if (n < 2)
        status = cli_fail("the text has %zu token%s; it takes two to predict one from the other", n,
                          n == 1 ? "" : "s");
    else
        status = measure(s, ids, n, window, stride, &t, per_token);
    ls_tokenizer_ids_free(s->tok, ids, n);
    if (status == EXIT_ERROR || t.n_scored == 0)
        return status;
    const int printed = print_results(s, &t, window, stride, now_seconds() - started);
    return printed == EXIT_OK ? status : printed;
}

int cmd_perplexity(const struct cli_options *o)
{
    struct session s = { 0 };
    struct text text = { 0 };
    FILE *per_token = NULL;
    int status = EXIT_OK;

    if (!o->file)
        return cli_usage("no text: name a file with -f FILE");
    if (!text_read_file(&text, o->file))
        status = EXIT_ERROR;
    if (status == EXIT_OK)
        status = session_open(&s, o, (size_t)o->context);
    if (status == EXIT_OK && o->per_token && !(per_token = fopen(o->per_token, "w")))
        status = cli_fail("cannot write '%s': %s", o->per_token, strerror(errno));
    if (status == EXIT_OK)
        status = run(&s, &text, per_token);
    if (per_token) {
        const bool failed = ferror(per_token) != 0;
        if ((fclose(per_token) != 0 || failed) && status != EXIT_ERROR)
            status = cli_fail("cannot write '%s': %s", o->per_token, strerror(errno));
    }
    session_close(&s);
    text_free(&text);
    return status;
}
