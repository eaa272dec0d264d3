/* Tokens per second, as llama-bench measures and names them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_session.h"

enum {
    FIRST_TOKENS = 512
}; /* read, then repeated to make a depth */

struct test {
    size_t n_prompt, n_gen, n_depth; /* of the first two one is 0 */
    long long n_threads;
};

struct bench {
    struct session s;
    struct json_out rows;
    size_t n_rows;
    int32_t *ids; /* [n_ids] tokens to read: the values do not matter */
    size_t n_ids;
    double *seconds; /* [repetitions] */
};

static void name_test(char out[64], const struct test *t)
{
    int n = t->n_gen ? snprintf(out, 64, "tg%zu", t->n_gen) : snprintf(out, 64, "pp%zu", t->n_prompt);

    if (t->n_depth)
        snprintf(out + n, 64 - (size_t)n, " @ d%zu", t->n_depth);
}

static int library_status(ls_status st, const ls_error *err)
{
    if (st == LS_E_CANCELED)
        return EXIT_INTERRUPTED;
    return st == LS_OK ? EXIT_OK : cli_fail("%s", err->text);
}

/* Any tokens do, as long as they are not all the same: embeddings should come from all over the table. */
static void fill_ids(struct bench *b, size_t n)
{
    uint32_t x = 12345;

    b->ids = cli_realloc(b->ids, n, sizeof *b->ids);
    for (size_t i = b->n_ids; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        b->ids[i] = (int32_t)((x >> 8) % b->s.n_vocab);
    }
    b->n_ids = n;
}

/* What is timed, once: the cache holds n_depth tokens before and after. */
static int run_once(struct bench *b, const struct test *t, size_t n_gen)
{
    ls_error err = { 0 };
    ls_status st = LS_OK;

    if (t->n_prompt)
        st = ls_context_append(b->s.ctx, b->ids, t->n_prompt, b->s.logits, &err);
    for (size_t i = 0; i < n_gen && st == LS_OK; i++)
        st = ls_context_append(b->s.ctx, b->ids + i % b->n_ids, 1, b->s.logits, &err);
    return library_status(st, &err);
}

static int fill_depth(struct bench *b, size_t depth)
{
    const size_t seed_tokens = depth < FIRST_TOKENS ? depth : FIRST_TOKENS;
    ls_error err = { 0 };
    ls_status st = LS_OK;

    if (depth) {
        st = ls_context_append(b->s.ctx, b->ids, seed_tokens, NULL, &err);
        if (st == LS_OK && depth > seed_tokens)
            st = ls_context_tile(b->s.ctx, depth, &err);
    }
    return library_status(st, &err);
}

/* Back to what was held before the test; a policy that has dropped it begins anew. */
static int restore_depth(struct bench *b, size_t depth)
{
    ls_error err = { 0 };
    ls_status st = ls_context_rewind(b->s.ctx, depth, &err);

    if (st != LS_E_UNSUPPORTED)
        return library_status(st, &err);
    st = ls_context_rewind(b->s.ctx, 0, &err);
    return st == LS_OK ? fill_depth(b, depth) : library_status(st, &err);
}

/* ---- results ------------------------------------------------------------------ */

static void spread(const double *v, size_t n, double *mean, double *deviation)
{
    double sum = 0, squares = 0;

    for (size_t i = 0; i < n; i++)
        sum += v[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (v[i] - *mean) * (v[i] - *mean);
    *deviation = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
}

static void add_json(struct bench *b, const struct test *t, const double *speeds, double mean,
                     double deviation)
{
    const struct cli_options *o = b->s.o;
    const size_t n = (size_t)o->repetitions;
    struct json_out *j = &b->rows;
    double ns, ns_deviation;
    char test[64];

    name_test(test, t);
    spread(b->seconds, n, &ns, &ns_deviation);
    json_open(j, NULL, '{');
    json_str(j, "test", test);
    json_str(j, "model_filename", b->s.info.path);
    json_str(j, "model_type", b->s.info.weights);
    json_uint(j, "model_size", b->s.info.weight_bytes);
    json_uint(j, "model_n_params", b->s.info.n_parameters);
    json_int(j, "n_threads", t->n_threads);
    json_str(j, "kv", ls_context_kv(b->s.ctx));
    json_str(j, "compute", o->compute);
    json_uint(j, "n_prompt", t->n_prompt);
    json_uint(j, "n_gen", t->n_gen);
    json_uint(j, "n_depth", t->n_depth);
    json_real(j, "avg_ns", ns * 1e9);
    json_real(j, "stddev_ns", ns_deviation * 1e9);
    json_real(j, "avg_ts", mean);
    json_real(j, "stddev_ts", deviation);
    json_open(j, "samples_ns", '[');
    for (size_t i = 0; i < n; i++)
        json_real(j, NULL, b->seconds[i] * 1e9);
    json_close(j, ']');
    json_open(j, "samples_ts", '[');
    for (size_t i = 0; i < n; i++)
        json_real(j, NULL, speeds[i]);
    json_close(j, ']');
    json_uint(j, "peak_bytes", ls_peak_bytes());
    json_str(j, "version", ls_version());
    json_str(j, "build", ls_build_info());
    json_close(j, '}');
}

static void print_row(struct bench *b, const struct test *t, double mean, double deviation)
{
    const ls_model_info *m = &b->s.info;
    const char *name = m->name && *m->name ? m->name : m->family;
    char model[64], size[32], peak[32], test[64];

    snprintf(model, sizeof model, "%s %s", name, m->weights);
    name_test(test, t);
    if (b->n_rows == 0)
        printf("| %-32s | %9s | %8s | %-9s | %-7s | %7s | %16s | %18s | %9s |\n"
               "| %s | %s: | %s: | %s | %s | %s: | %s: | %s: | %s: |\n",
               "model", "size", "params", "kv", "compute", "threads", "test", "t/s", "peak",
               "--------------------------------", "--------", "-------", "---------", "-------", "------",
               "---------------", "-----------------", "--------");
    printf("| %-32.32s | %9s | %6.1f M | %-9s | %-7s | %7lld | %16s | %9.2f ± %6.2f | %9s |\n", model,
           format_bytes(size, (double)m->weight_bytes), (double)m->n_parameters / 1e6,
           ls_context_kv(b->s.ctx), b->s.o->compute, t->n_threads, test, mean, deviation,
           format_bytes(peak, (double)ls_peak_bytes()));
    fflush(stdout);
    b->n_rows++;
}

/* ---- the tests ------------------------------------------------------------------ */

static int run_test(struct bench *b, const struct test *t)
{
    const size_t n = (size_t)b->s.o->repetitions;
    double *speeds = cli_realloc(NULL, n, sizeof *speeds);
    double mean, deviation;
    char name[64];
    int status = EXIT_OK;

    name_test(name, t);
    if (!b->s.o->no_warmup) {
        status = run_once(b, t, t->n_gen < 4 ? t->n_gen : 4);
        if (status == EXIT_OK)
            status = restore_depth(b, t->n_depth);
    }
    for (size_t i = 0; i < n && status == EXIT_OK; i++) {
        const double started = now_seconds();
        status = run_once(b, t, t->n_gen);
        b->seconds[i] = now_seconds() - started;
        speeds[i] = (double)(t->n_prompt + t->n_gen) / b->seconds[i];
        if (status == EXIT_OK)
            status = restore_depth(b, t->n_depth);
        progress_span(&b->s.progress, 0, 0);
        b->s.progress.what = name;
        progress_update(&b->s.progress, i + 1, n);
    }
    progress_end(&b->s.progress);
    if (status == EXIT_OK) {
        spread(speeds, n, &mean, &deviation);
        if (b->s.o->json)
            add_json(b, t, speeds, mean, deviation);
        else
            print_row(b, t, mean, deviation);
    }
    free(speeds);
    return status;
}

static long long largest(const struct count_list *l)
{
    long long most = 0;

    for (size_t i = 0; i < l->n; i++)
        most = l->items[i] > most ? l->items[i] : most;
    return most;
}

/* All tests of one depth and number of threads, in a context just large enough. */
static int run_depth(struct bench *b, const struct cli_options *o, size_t depth, long long n_threads)
{
    const long long most_prompt = largest(&o->n_prompt), most_gen = largest(&o->n_gen);
    const size_t room = (size_t)(most_prompt > most_gen ? most_prompt : most_gen);
    ls_context_options c;
    ls_error err = { 0 };
    int status;

    session_context_options(&b->s, depth + room, &c);
    c.n_threads = (int)n_threads;
    c.progress = NULL;
    const ls_status st = ls_context_create(b->s.model, &c, &b->s.ctx, &err);
    if (st != LS_OK)
        return session_no_context(st, &err);
    b->s.n_vocab = ls_context_n_vocab(b->s.ctx);
    b->s.logits = cli_realloc(b->s.logits, b->s.n_vocab, sizeof *b->s.logits);
    fill_ids(b, room > FIRST_TOKENS ? room : FIRST_TOKENS);
    status = fill_depth(b, depth);
    for (size_t i = 0; i < o->n_prompt.n && status == EXIT_OK; i++) {
        const struct test t = { (size_t)o->n_prompt.items[i], 0, depth, n_threads };
        if (t.n_prompt)
            status = run_test(b, &t);
    }
    for (size_t i = 0; i < o->n_gen.n && status == EXIT_OK; i++) {
        const struct test t = { 0, (size_t)o->n_gen.items[i], depth, n_threads };
        if (t.n_gen)
            status = run_test(b, &t);
    }
    ls_context_free(b->s.ctx);
    b->s.ctx = NULL;
    return status;
}

static int run_all(struct bench *b, const struct cli_options *o)
{
    static long long all_cpus[1];
    struct count_list threads = o->n_threads;
    int status = EXIT_OK;

    if (threads.n == 0) {
        all_cpus[0] = ls_cpu_count();
        threads = (struct count_list){ all_cpus, 1 };
    }
    b->seconds = cli_realloc(NULL, (size_t)o->repetitions, sizeof *b->seconds);
    progress_start(&b->s.progress, "bench", "runs", o->quiet);
    for (size_t d = 0; d < o->n_depth.n && status == EXIT_OK; d++)
        for (size_t i = 0; i < threads.n && status == EXIT_OK; i++)
            status = run_depth(b, o, (size_t)o->n_depth.items[d], threads.items[i]);
    if (status != EXIT_ERROR && b->s.o->json) {
        struct json_out j = { 0 };
        json_raw(&j, NULL, '[', &b->rows.text, ']');
        const int printed = json_print(&j);
        status = printed == EXIT_OK ? status : printed;
    }
    return status;
}

int cmd_bench(const struct cli_options *given)
{
    struct cli_options o = *given;
    struct bench b = { .s = { .o = &o } };
    ls_error err = { 0 };
    char *path = NULL;
    int status;

    o.json |= strcmp(o.output, "json") == 0;
    if (largest(&o.n_prompt) == 0 && largest(&o.n_gen) == 0)
        return cli_usage("nothing to time: -p and -n are both 0");
    path = find_model(&o);
    if (!path)
        return EXIT_USAGE;
    b.s.info.struct_size = sizeof b.s.info;
    if (ls_model_open(path, NULL, &b.s.model, &err) != LS_OK) {
        status = cli_fail("%s", err.text);
    } else {
        ls_model_get_info(b.s.model, &b.s.info);
        status = run_all(&b, &o);
    }
    free(b.ids);
    free(b.seconds);
    text_free(&b.rows.text);
    session_close(&b.s);
    free(path);
    return finish_output(status);
}
