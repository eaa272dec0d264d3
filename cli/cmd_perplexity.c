/*
 * How well the model predicts a text. Windows of -c tokens are read one after the other, each
 * --stride tokens on; a token counts in the first window that holds it, predicted from what stands
 * before it in that window. The first token of all has no prediction, nor has, side by side
 * (stride = window), the first of each window. A cache without end reads the text as one window. With
 * --prompt-tokens the first tokens of a window are its prompt, which does not count. A last window in which
 * no token would count is not read.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>

#include "cli_session.h"

struct sums {
    size_t n;
    double sum, squares;
};

struct tally {
    size_t n_tokens, n_windows;
    size_t cache_bytes; /* the most that a window left */
    char kv[192];       /* the cache of the first window, which is the longest */
    struct sums all;
    struct sums *pieces; /* [n_pieces] of the text */
    size_t n_pieces, n_text;
};

static void add(struct sums *s, double nll)
{
    s->n++;
    s->sum += nll;
    s->squares += nll * nll;
}

/* The token at `at` of the text. */
static void count(struct tally *t, size_t at, double nll)
{
    add(&t->all, nll);
    if (t->n_pieces)
        add(&t->pieces[(size_t)((double)at / (double)t->n_text * (double)t->n_pieces)], nll);
}

static double mean(const struct sums *s)
{
    return s->sum / (double)s->n;
}

/* Standard error of the mean. */
static double deviation(const struct sums *s)
{
    const double n = (double)s->n, m = mean(s);
    return s->n > 1 ? sqrt(fmax(0, s->squares - n * m * m) / (n - 1) / n) : NAN;
}

/* One line per token: those of a window that were not in the window before. nll: NULL when it is not read. */
static void write_tokens(FILE *f, const int32_t *ids, const float *nll, size_t first, size_t n)
{
    for (size_t i = first; f && i < n; i++) {
        if (i == 0 || !nll)
            fprintf(f, "{\"id\":%d,\"nll\":null}\n", (int)ids[i]);
        else
            fprintf(f, "{\"id\":%d,\"nll\":%.9g}\n", (int)ids[i], (double)nll[i - 1]);
    }
}

/* nll of the n - 1 tokens behind the first: all in one call, or the first n_prompt and then one by one. */
static ls_status predict(struct session *s, const int32_t *ids, size_t n, size_t n_prompt, float *nll,
                         size_t done, size_t work, ls_error *err)
{
    ls_status st = ls_context_rewind(s->ctx, 0, err);

    if (st != LS_OK)
        return st;
    if (n_prompt == 0 || n_prompt >= n)
        return ls_context_append_nll(s->ctx, ids, n, nll, err);
    st = ls_context_append_next_nll(s->ctx, ids, n_prompt, nll, err);
    for (size_t i = n_prompt; i + 1 < n && st == LS_OK; i++) {
        progress_span(&s->progress, done + i, work);
        st = ls_context_append_next_nll(s->ctx, ids + i, 1, nll + i, err);
    }
    return st;
}

/* Where a window lies in the work: `first` of its tokens have been counted before. */
struct window {
    size_t begin, n, first;
    size_t done, work;
};

static int measure_window(struct session *s, const int32_t *ids, const struct window *w, float *nll,
                          struct tally *t, FILE *per_token)
{
    const size_t n_prompt = (size_t)s->o->prompt_tokens;
    const size_t skipped = n_prompt > w->first ? n_prompt : w->first;
    ls_error err = { 0 };
    const ls_status st = predict(s, ids + w->begin, w->n, n_prompt, nll, w->done, w->work, &err);

    if (st == LS_E_CANCELED)
        return EXIT_INTERRUPTED;
    if (st != LS_OK)
        return cli_fail("%s", err.text);
    for (size_t i = skipped > 0 ? skipped : 1; i < w->n; i++)
        count(t, w->begin + i, (double)nll[i - 1]);
    t->n_tokens += w->n - w->first;
    const size_t cache_bytes = ls_context_cache_bytes(s->ctx);
    t->cache_bytes = cache_bytes > t->cache_bytes ? cache_bytes : t->cache_bytes;
    if (t->n_windows++ == 0)
        snprintf(t->kv, sizeof t->kv, "%s", ls_context_kv(s->ctx));
    write_tokens(per_token, ids + w->begin, nll, w->first, w->n);
    return EXIT_OK;
}

static size_t count_windows(size_t n, size_t window, size_t stride)
{
    return n <= window ? 1 : 1 + (n - window + stride - 1) / stride;
}

/* Of the windows that the text has those in which tokens count: the last one may be too short. */
static size_t windows_to_read(size_t n, size_t window, size_t stride, size_t n_prompt)
{
    const size_t n_windows = count_windows(n, window, stride), begin = (n_windows - 1) * stride;
    return n_windows > 1 && n - begin <= (n_prompt > 1 ? n_prompt : 1) ? n_windows - 1 : n_windows;
}

static int measure(struct session *s, const int32_t *ids, size_t n, size_t window, size_t stride,
                   struct tally *t, FILE *per_token)
{
    const size_t n_windows = windows_to_read(n, window, stride, (size_t)s->o->prompt_tokens);
    const size_t work = n + (n_windows - 1) * (window - stride);
    float *nll = cli_realloc(NULL, window, sizeof *nll);
    size_t done = 0; /* tokens that have been counted */
    int status = EXIT_OK;

    progress_start(&s->progress, "perplexity", "tokens", s->o->quiet);
    for (size_t i = 0; i < n_windows && status == EXIT_OK; i++) {
        const size_t begin = i * stride, end = begin + window < n ? begin + window : n;
        const struct window w = { begin, end - begin, done - begin, i * window, work };
        progress_span(&s->progress, w.done, work);
        status = measure_window(s, ids, &w, nll, t, per_token);
        done = end;
    }
    progress_end(&s->progress);
    if (status == EXIT_OK && done < n) {
        cli_note(s->o->quiet, "the last %zu token%s not read: too few for a window that predicts one",
                 n - done, n - done == 1 ? " is" : "s are");
        write_tokens(per_token, ids, NULL, done, n);
    }
    free(nll);
    return status;
}

static size_t piece_begin(const struct tally *t, size_t i)
{
    return (size_t)ceil((double)i * (double)t->n_text / (double)t->n_pieces);
}

/* A value and its error; of a single number there is none. */
static void print_value(int digits, double value, double error)
{
    printf("%.*f", digits, value);
    if (isfinite(error))
        printf(" +- %.*f", digits, error);
    putchar('\n');
}

static void print_text(const struct tally *t, size_t n_prompt)
{
    const double m = mean(&t->all), error = deviation(&t->all);

    printf("tokens      %zu, %zu of them predicted, in %zu window%s\n", t->n_tokens, t->all.n, t->n_windows,
           t->n_windows == 1 ? "" : "s");
    if (n_prompt)
        printf("prompt      %zu tokens%s, the others one by one\n", n_prompt,
               t->n_windows == 1 ? "" : " of each window");
    printf("mean nll    ");
    print_value(6, m, error);
    printf("perplexity  ");
    print_value(4, exp(m), exp(m) * error);
    for (size_t i = 0; i < t->n_pieces; i++)
        if (t->pieces[i].n) {
            printf("%s%9zu .. %-9zu  ", i ? "            " : "mean nll    ", piece_begin(t, i),
                   piece_begin(t, i + 1) - 1);
            print_value(6, mean(&t->pieces[i]), deviation(&t->pieces[i]));
        }
}

static void add_pieces(struct json_out *j, const struct tally *t)
{
    json_open(j, "pieces", '[');
    for (size_t i = 0; i < t->n_pieces; i++) {
        json_open(j, NULL, '{');
        json_uint(j, "begin", piece_begin(t, i));
        json_uint(j, "end", piece_begin(t, i + 1));
        json_uint(j, "predicted", t->pieces[i].n);
        json_real(j, "mean_nll", mean(&t->pieces[i]));
        json_real(j, "mean_nll_stderr", deviation(&t->pieces[i]));
        json_close(j, '}');
    }
    json_close(j, ']');
}

static int print_json(const struct session *s, const struct tally *t, size_t window, size_t stride,
                      double seconds)
{
    const double m = mean(&t->all), error = deviation(&t->all);
    struct json_out j = { 0 };

    json_open(&j, NULL, '{');
    json_uint(&j, "tokens", t->n_tokens);
    json_uint(&j, "predicted", t->all.n);
    json_uint(&j, "windows", t->n_windows);
    json_uint(&j, "context", window);
    json_uint(&j, "stride", stride);
    json_uint(&j, "prompt_tokens", (size_t)s->o->prompt_tokens);
    json_real(&j, "mean_nll", m);
    json_real(&j, "mean_nll_stderr", error);
    json_real(&j, "perplexity", exp(m));
    json_real(&j, "perplexity_stderr", exp(m) * error);
    if (t->n_pieces)
        add_pieces(&j, t);
    json_real(&j, "seconds", seconds);
    json_str(&j, "model", s->info.path);
    json_str(&j, "kv", t->kv);
    json_uint(&j, "cache_bytes", t->cache_bytes);
    json_str(&j, "compute", s->o->compute);
    json_int(&j, "threads", s->o->threads ? s->o->threads : ls_cpu_count());
    json_uint(&j, "peak_bytes", ls_peak_bytes());
    json_close(&j, '}');
    return json_print(&j);
}

static int print_results(const struct session *s, const struct tally *t, size_t window, size_t stride,
                         double seconds)
{
    char took[32], cache[32], peak[32];

    cli_note(s->o->quiet, "%s, %.1f tokens/s; %s of cache, peak memory %s", format_seconds(took, seconds),
             (double)t->n_tokens / seconds, format_bytes(cache, (double)t->cache_bytes),
             format_bytes(peak, (double)ls_peak_bytes()));
    if (s->o->json)
        return print_json(s, t, window, stride, seconds);
    print_text(t, (size_t)s->o->prompt_tokens);
    return finish_output(EXIT_OK);
}

/* Tokens of a window: all n where the cache has no end, unless windows are asked for. */
static size_t window_of(const struct session *s, size_t n)
{
    if (!ls_context_endless(s->ctx))
        return ls_context_capacity(s->ctx);
    if (!s->o->stride)
        return n;
    return s->o->context ? (size_t)s->o->context : s->info.n_ctx_train;
}

/* The text's ids in windows. */
static int run_ids(struct session *s, const int32_t *ids, size_t n, FILE *per_token)
{
    const double started = now_seconds();
    const size_t window = window_of(s, n), stride = s->o->stride ? (size_t)s->o->stride : window;
    struct tally t = { .n_pieces = (size_t)s->o->pieces, .n_text = n };

    if (n < 2)
        return cli_fail("the text has %zu token%s; it takes two to predict one from the other", n,
                        n == 1 ? "" : "s");
    if (stride > window)
        return cli_usage("--stride is %zu; it must not exceed the window of %zu tokens (-c)", stride, window);
    if (s->o->prompt_tokens && (size_t)s->o->prompt_tokens >= (n < window ? n : window))
        return cli_usage("--prompt-tokens is %lld and a window has %zu tokens: none is left to predict",
                         s->o->prompt_tokens, n < window ? n : window);
    if (t.n_pieces)
        t.pieces = memset(cli_realloc(NULL, t.n_pieces, sizeof *t.pieces), 0, t.n_pieces * sizeof *t.pieces);
    int status = measure(s, ids, n, window, stride, &t, per_token);
    if (status != EXIT_ERROR && t.all.n > 0) {
        const int printed = print_results(s, &t, window, stride, now_seconds() - started);
        status = printed == EXIT_OK ? status : printed;
    }
    free(t.pieces);
    return status;
}

static int run(struct session *s, const struct text *text, FILE *per_token)
{
    ls_error err = { 0 };
    int32_t *ids = NULL;
    size_t n = 0;

    if (ls_tokenizer_encode(s->tok, text->data, text->len, LS_ENCODE_ADD_SPECIAL, &ids, &n, &err) != LS_OK)
        return cli_fail("%s", err.text);
    const int status = run_ids(s, ids, n, per_token);
    ls_tokenizer_ids_free(s->tok, ids, n);
    return status;
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
