/*
 * What a model attends to in a text. The last --rows tokens are looked at in a full cache: which tokens
 * get how much of their attention, in each layer and head; and for cache policies, how much of it goes to
 * tokens that a step of decoding reads at that moment, beside what the best choice of as many would have got.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_session.h"
#include "inspect.h"

enum {
    N_SINKS = 4, /* first and latest tokens that are told about */
    N_LATEST = 64,
    TEXT_AROUND = 24, /* bytes of a token's text */
};

/* What one head of a layer does, mean of the rows. */
struct head {
    double sinks, latest, entropy;
    size_t n90; /* most attended tokens that get 90 % together, of the last row */
};

/* What a policy keeps and reads, mean of rows and heads. */
struct policy {
    char kv[192];
    double kept, read, mass, oracle;
    size_t cache_bytes;
    double *by_layer; /* [L] mass */
};

struct inspect {
    struct session s;
    const struct cli_options *o;
    size_t L, H, G, n, n_rows; /* n: tokens of the text, of which the last n_rows are looked at */
    int32_t *ids;
    float *p;           /* [n_rows][L][H][n] probabilities */
    float *order;       /* [n] scratch */
    struct head *heads; /* [L][H] */
    double *mass;       /* [n] of a token, mean of rows and of the heads that are looked at */
    struct attention_map map;
    bool want_map;
};

static float *row_of(const struct inspect *in, size_t r, size_t l, size_t h)
{
    return in->p + ((r * in->L + l) * in->H + h) * in->n;
}

/* Whether --layer and --head leave it. */
static bool chosen(const struct inspect *in, size_t l, size_t h)
{
    return (in->o->layer < 0 || (size_t)in->o->layer == l) && (in->o->head < 0 || (size_t)in->o->head == h);
}

/* ---- the text through the model ----------------------------------------------------- */

/* An ls_attention_fn for the whole text (with a picture) or for its last rows. */
static void take_rows(void *user, size_t layer, size_t row0, size_t n_rows, const float *p, size_t ld)
{
    struct inspect *in = user;
    const size_t first = in->n - in->n_rows, before = in->want_map ? 0 : first;

    for (size_t i = 0; i < n_rows; i++)
        for (size_t h = 0; h < in->H; h++) {
            const size_t row = before + row0 + i;
            const float *from = p + (i * in->H + h) * ld;
            if (in->want_map && chosen(in, layer, h))
                map_add(&in->map, row, from);
            if (row >= first)
                memcpy(row_of(in, row - first, layer, h), from, in->n * sizeof *from);
        }
}

static int status_of(ls_status st, const ls_error *err)
{
    if (st == LS_E_CANCELED)
        return EXIT_INTERRUPTED;
    return st == LS_OK ? EXIT_OK : cli_fail("%s", err->text);
}

static int read_text(struct inspect *in)
{
    const size_t prefix = in->want_map ? 0 : in->n - in->n_rows;
    ls_error err = { 0 };
    ls_status st = LS_OK;

    progress_start(&in->s.progress, "text", "tokens", in->o->quiet);
    if (prefix)
        st = ls_context_append(in->s.ctx, in->ids, prefix, NULL, &err);
    if (st == LS_OK)
        st = ls_context_append_attention(in->s.ctx, in->ids + prefix, in->n - prefix, SIZE_MAX, take_rows, in,
                                         &err);
    progress_end(&in->s.progress);
    return status_of(st, &err);
}

/* ---- numbers --------------------------------------------------------------------------- */

static double range_sum(const float *p, size_t begin, size_t end)
{
    double sum = 0;

    for (size_t j = begin; j < end; j++)
        sum += (double)p[j];
    return sum;
}

/* How many of the most attended tokens get the share together. */
static size_t count_for_share(struct inspect *in, const float *p, size_t n, double share)
{
    size_t low = 1, high = n;

    while (low < high) {
        const size_t k = low + (high - low) / 2;
        memcpy(in->order, p, n * sizeof *p);
        if (largest_sum(in->order, n, k) >= share)
            high = k;
        else
            low = k + 1;
    }
    return low;
}

static void measure_head(struct inspect *in, size_t l, size_t h)
{
    struct head *to = &in->heads[l * in->H + h];

    for (size_t r = 0; r < in->n_rows; r++) {
        const float *p = row_of(in, r, l, h);
        const size_t n = in->n - in->n_rows + r + 1;
        double entropy = 0;
        for (size_t j = 0; j < n; j++)
            entropy -= p[j] > 0 ? (double)p[j] * log((double)p[j]) : 0;
        to->entropy += entropy / (double)in->n_rows;
        to->sinks += range_sum(p, 0, n < N_SINKS ? n : N_SINKS) / (double)in->n_rows;
        to->latest += range_sum(p, n > N_LATEST ? n - N_LATEST : 0, n) / (double)in->n_rows;
    }
    to->n90 = count_for_share(in, row_of(in, in->n_rows - 1, l, h), in->n, 0.9);
}

static void measure(struct inspect *in)
{
    size_t n_heads = 0;

    for (size_t l = 0; l < in->L; l++)
        for (size_t h = 0; h < in->H; h++) {
            measure_head(in, l, h);
            if (!chosen(in, l, h))
                continue;
            n_heads++;
            for (size_t r = 0; r < in->n_rows; r++)
                for (size_t j = 0; j < in->n; j++)
                    in->mass[j] += (double)row_of(in, r, l, h)[j];
        }
    for (size_t j = 0; j < in->n; j++)
        in->mass[j] /= (double)(n_heads * in->n_rows);
}

/* ---- policies --------------------------------------------------------------------------- */

struct reading {
    struct inspect *in;
    struct policy *p;
    size_t r; /* row */
};

/* An ls_read_fn: what a head reads, of the attention that the row pays in the full cache. */
static void add_reads(void *user, size_t l, size_t h, const int64_t *positions, size_t n_read)
{
    const struct reading *x = user;
    struct inspect *in = x->in;
    struct policy *p = x->p;
    const float *row = row_of(in, x->r, l, h);
    const size_t n = in->n - in->n_rows + x->r + 1;
    const double share = 1.0 / (double)(in->n_rows * in->L * in->H);
    double mass = 0;

    for (size_t i = 0; i < n_read; i++)
        mass += (double)row[positions[i]];
    memcpy(in->order, row, n * sizeof *row);
    p->oracle += share * largest_sum(in->order, n, n_read);
    p->read += share * (double)n_read;
    p->mass += share * mass;
    p->by_layer[l] += mass / (double)(in->n_rows * in->H);
}

static void add_kept(const struct inspect *in, struct policy *p, const ls_context *ctx)
{
    for (size_t l = 0; l < in->L; l++)
        for (size_t g = 0; g < in->G; g++)
            p->kept += (double)ls_context_kept(ctx, l, g, NULL) / (double)(in->n_rows * in->L * in->G);
}

static int run_policy(struct inspect *in, struct policy *p, const char *kv)
{
    const size_t prefix = in->n - in->n_rows;
    ls_context_options c;
    ls_context *ctx = NULL;
    ls_error err = { 0 };

    session_context_options(&in->s, in->n, &c);
    c.kv = kv;
    p->by_layer = memset(cli_realloc(NULL, in->L, sizeof *p->by_layer), 0, in->L * sizeof *p->by_layer);
    progress_start(&in->s.progress, kv, "tokens", in->o->quiet);
    ls_status st = ls_context_create(in->s.model, &c, &ctx, &err);
    if (st == LS_OK)
        st = ls_context_append(ctx, in->ids, prefix, NULL, &err);
    for (size_t r = 0; r < in->n_rows && st == LS_OK; r++) {
        struct reading x = { in, p, r };
        add_kept(in, p, ctx);
        st = ls_context_append_reads(ctx, in->ids[prefix + r], add_reads, &x, &err);
    }
    progress_end(&in->s.progress);
    if (st == LS_OK) {
        snprintf(p->kv, sizeof p->kv, "%s", ls_context_kv(ctx));
        p->cache_bytes = ls_context_cache_bytes(ctx);
    }
    ls_context_free(ctx);
    return status_of(st, &err);
}

/* ---- results -------------------------------------------------------------------------------- */

/* A token's text between quotes, without what would break a line. */
static void show_token(const struct inspect *in, size_t at, char out[TEXT_AROUND + 8])
{
    size_t len = 0, n = 0;
    const char *piece = ls_tokenizer_piece(in->s.tok, in->ids[at], true, &len);

    out[n++] = '\'';
    for (size_t i = 0; i < len && n < TEXT_AROUND; i++)
        out[n++] = (unsigned char)piece[i] < ' ' ? '.' : piece[i];
    out[n++] = '\'';
    out[n] = '\0';
}

/* The next most attended token after those that were taken; n when none is left. */
static size_t next_hitter(const struct inspect *in, const bool *taken)
{
    size_t best = in->n;

    for (size_t j = 0; j < in->n; j++)
        if (!taken[j] && (best == in->n || in->mass[j] > in->mass[best]))
            best = j;
    return best;
}

static void print_hitters(const struct inspect *in)
{
    bool *taken = memset(cli_realloc(NULL, in->n, sizeof *taken), 0, in->n * sizeof *taken);
    char token[TEXT_AROUND + 8];

    puts("\nmost attended tokens\n  position    share  token");
    for (long long i = 0; i < in->o->top; i++) {
        const size_t j = next_hitter(in, taken);
        if (j == in->n)
            break;
        taken[j] = true;
        show_token(in, j, token);
        printf("  %8zu  %6.2f%%  %s\n", j, 100 * in->mass[j], token);
    }
    free(taken);
}

/* Mean over the heads of a layer that are looked at, or of one head. */
static void print_heads(const struct inspect *in)
{
    printf("\nheads (means of a layer)\n  layer  first %d  latest %d  tokens for 90%%  exp(entropy)\n",
           N_SINKS, N_LATEST);
    for (size_t l = 0; l < in->L; l++) {
        struct head m = { 0 };
        double n = 0, n90 = 0;
        for (size_t h = 0; h < in->H; h++) {
            const struct head *x = &in->heads[l * in->H + h];
            if (!chosen(in, l, h))
                continue;
            n++;
            m.sinks += x->sinks;
            m.latest += x->latest;
            m.entropy += exp(x->entropy);
            n90 += (double)x->n90;
        }
        if (n > 0)
            printf("  %5zu  %6.1f%%  %8.1f%%  %14.1f  %12.1f\n", l, 100 * m.sinks / n, 100 * m.latest / n,
                   n90 / n, m.entropy / n);
    }
}

static void print_policies(const struct policy *p, size_t n)
{
    if (n == 0)
        return;
    puts("\nattention that goes to tokens which a step with a policy reads\n"
         "     kept     read     mass   oracle  of oracle  policy");
    for (size_t i = 0; i < n; i++)
        printf("  %7.1f  %7.1f  %6.2f%%  %6.2f%%  %8.2f%%  %s\n", p[i].kept, p[i].read, 100 * p[i].mass,
               100 * p[i].oracle, 100 * p[i].mass / p[i].oracle, p[i].kv);
}

static void json_hitters(struct json_out *j, const struct inspect *in)
{
    bool *taken = memset(cli_realloc(NULL, in->n, sizeof *taken), 0, in->n * sizeof *taken);

    json_open(j, "most_attended", '[');
    for (long long i = 0; i < in->o->top; i++) {
        size_t len = 0;
        const size_t at = next_hitter(in, taken);
        if (at == in->n)
            break;
        taken[at] = true;
        const char *piece = ls_tokenizer_piece(in->s.tok, in->ids[at], true, &len);
        json_open(j, NULL, '{');
        json_uint(j, "position", at);
        json_int(j, "id", in->ids[at]);
        json_text(j, "text", piece, len);
        json_real(j, "share", in->mass[at]);
        json_close(j, '}');
    }
    json_close(j, ']');
    free(taken);
}

static void json_heads(struct json_out *j, const struct inspect *in)
{
    json_open(j, "heads", '[');
    for (size_t l = 0; l < in->L; l++)
        for (size_t h = 0; h < in->H; h++) {
            const struct head *x = &in->heads[l * in->H + h];
            if (!chosen(in, l, h))
                continue;
            json_open(j, NULL, '{');
            json_uint(j, "layer", l);
            json_uint(j, "head", h);
            json_real(j, "first", x->sinks);
            json_real(j, "latest", x->latest);
            json_real(j, "entropy", x->entropy);
            json_uint(j, "tokens_for_90_percent", x->n90);
            json_close(j, '}');
        }
    json_close(j, ']');
}

static void json_policies(struct json_out *j, const struct inspect *in, const struct policy *p, size_t n)
{
    json_open(j, "policies", '[');
    for (size_t i = 0; i < n; i++) {
        json_open(j, NULL, '{');
        json_str(j, "kv", p[i].kv);
        json_real(j, "kept", p[i].kept);
        json_real(j, "read", p[i].read);
        json_real(j, "mass", p[i].mass);
        json_real(j, "oracle", p[i].oracle);
        json_uint(j, "cache_bytes", p[i].cache_bytes);
        json_open(j, "mass_by_layer", '[');
        for (size_t l = 0; l < in->L; l++)
            json_real(j, NULL, p[i].by_layer[l]);
        json_close(j, ']');
        json_close(j, '}');
    }
    json_close(j, ']');
}

static int print_results(const struct inspect *in, const struct policy *p, size_t n)
{
    struct json_out j = { 0 };

    if (!in->o->json) {
        printf("tokens      %zu, of which the last %zu are looked at\n"
               "model       %zu layers, %zu heads on %zu key/value heads\n",
               in->n, in->n_rows, in->L, in->H, in->G);
        print_hitters(in);
        print_heads(in);
        print_policies(p, n);
        return finish_output(EXIT_OK);
    }
    json_open(&j, NULL, '{');
    json_uint(&j, "tokens", in->n);
    json_uint(&j, "rows", in->n_rows);
    json_uint(&j, "first_tokens", N_SINKS);
    json_uint(&j, "latest_tokens", N_LATEST);
    json_hitters(&j, in);
    json_heads(&j, in);
    json_policies(&j, in, p, n);
    json_str(&j, "model", in->s.info.path);
    json_str(&j, "compute", in->o->compute);
    json_close(&j, '}');
    return json_print(&j);
}

static int write_picture(const struct inspect *in)
{
    char title[128], layer[32] = "all layers", head[32] = "all heads";

    if (in->o->layer >= 0)
        snprintf(layer, sizeof layer, "layer %lld", in->o->layer);
    if (in->o->head >= 0)
        snprintf(head, sizeof head, "head %lld", in->o->head);
    snprintf(title, sizeof title, "attention of %zu tokens, %s, %s", in->n, layer, head);
    return map_write(&in->map, in->o->svg, title);
}

/* ---- the command --------------------------------------------------------------------------------- */

static int check(struct inspect *in)
{
    ls_context_options c;
    ls_context_plan_info plan = { .struct_size = sizeof plan };
    ls_error err = { 0 };

    session_context_options(&in->s, ls_context_capacity(in->s.ctx), &c);
    for (size_t i = 0; i < in->o->policies.n; i++) {
        c.kv = in->o->policies.items[i];
        const ls_status st = ls_context_plan(in->s.model, &c, &plan, &err);
        if (st != LS_OK)
            return session_no_context(st, &err);
    }
    if (in->o->layer >= (long long)in->L)
        return cli_usage("--layer is %lld; the model has layers 0 to %zu", in->o->layer, in->L - 1);
    if (in->o->head >= (long long)in->H)
        return cli_usage("--head is %lld; the model has heads 0 to %zu", in->o->head, in->H - 1);
    return EXIT_OK;
}

/* The text's first tokens, as many as the context holds. */
static int encode(struct inspect *in, const struct text *text, size_t *n_ids)
{
    const size_t most = ls_context_capacity(in->s.ctx);
    ls_error err = { 0 };

    if (ls_tokenizer_encode(in->s.tok, text->data, text->len, LS_ENCODE_ADD_SPECIAL, &in->ids, n_ids, &err) !=
        LS_OK)
        return cli_fail("%s", err.text);
    if (*n_ids < 2)
        return cli_fail("the text has %zu token%s; it takes two for one to attend to the other", *n_ids,
                        *n_ids == 1 ? "" : "s");
    in->n = *n_ids < most ? *n_ids : most;
    if (in->n < *n_ids)
        cli_note(in->o->quiet, "the first %zu of the text's %zu tokens; -c N takes more", in->n, *n_ids);
    const size_t rows = (size_t)in->o->rows;
    in->n_rows = rows < in->n ? rows : in->n - 1;
    return EXIT_OK;
}

static void make_room(struct inspect *in)
{
    const size_t n_heads = in->L * in->H;

    in->p = cli_realloc(NULL, in->n_rows * n_heads * in->n, sizeof *in->p);
    in->order = cli_realloc(NULL, in->n, sizeof *in->order);
    in->heads = memset(cli_realloc(NULL, n_heads, sizeof *in->heads), 0, n_heads * sizeof *in->heads);
    in->mass = memset(cli_realloc(NULL, in->n, sizeof *in->mass), 0, in->n * sizeof *in->mass);
    if (in->want_map)
        map_init(&in->map, in->n);
}

static int run(struct inspect *in)
{
    const size_t n = in->o->policies.n;
    struct policy *p = memset(cli_realloc(NULL, n + 1, sizeof *p), 0, (n + 1) * sizeof *p);

    make_room(in);
    int status = read_text(in);
    if (status == EXIT_OK)
        measure(in);
    for (size_t i = 0; i < n && status == EXIT_OK; i++)
        status = run_policy(in, &p[i], in->o->policies.items[i]);
    if (status == EXIT_OK && in->want_map)
        status = write_picture(in);
    if (status == EXIT_OK)
        status = print_results(in, p, n);
    for (size_t i = 0; i < n; i++)
        free(p[i].by_layer);
    free(p);
    return status;
}

int cmd_inspect(const struct cli_options *o)
{
    struct inspect in = { .o = o, .want_map = o->svg != NULL };
    struct text text = { 0 };
    size_t n_ids = 0;
    int status = EXIT_OK;

    if (!o->file)
        return cli_usage("no text: name a file with -f FILE");
    if (!text_read_file(&text, o->file))
        status = EXIT_ERROR;
    if (status == EXIT_OK)
        status = session_open(&in.s, o, (size_t)o->context);
    if (status == EXIT_OK) {
        in.L = in.s.info.n_layers;
        in.H = in.s.info.n_heads;
        in.G = in.s.info.n_kv_heads;
        status = check(&in);
    }
    if (status == EXIT_OK)
        status = encode(&in, &text, &n_ids);
    if (status == EXIT_OK)
        status = run(&in);
    if (in.ids)
        ls_tokenizer_ids_free(in.s.tok, in.ids, n_ids);
    free(in.p);
    free(in.order);
    free(in.heads);
    free(in.mass);
    map_free(&in.map);
    session_close(&in.s);
    text_free(&text);
    return status;
}
