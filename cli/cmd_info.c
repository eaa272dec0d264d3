/* What a model is and what it takes. */
#include <stdlib.h>
#include <string.h>

#include "cli_session.h"

#define MOST_CONTEXTS 8

struct subject {
    const struct cli_options *o;
    ls_model *model;
    ls_tokenizer *tok;
    ls_model_info info;
    size_t n_contexts;
    size_t contexts[MOST_CONTEXTS]; /* tokens of those worth telling about, rising; what each takes: */
    ls_context_plan_info plans[MOST_CONTEXTS];
};

/* Some usual contexts, the trained one, the one asked for. */
static size_t list_contexts(const struct subject *s, size_t out[MOST_CONTEXTS])
{
    const size_t wanted[] = { 4096, 32768, 131072, s->info.n_ctx_train, (size_t)s->o->context };
    size_t n = 0;

    for (size_t i = 0; i < CLI_LEN(wanted); i++) {
        size_t at = 0;
        while (at < n && out[at] < wanted[i])
            at++;
        if (wanted[i] == 0 || (at < n && out[at] == wanted[i]))
            continue;
        memmove(out + at + 1, out + at, (n - at) * sizeof *out);
        out[at] = wanted[i];
        n++;
    }
    return n;
}

/* An exit status. */
static int plan_contexts(struct subject *s)
{
    ls_context_options c;
    ls_error err = { 0 };
    ls_status st = LS_OK;

    s->n_contexts = list_contexts(s, s->contexts);
    ls_context_options_defaults(&c);
    c.kv = s->o->kv;
    for (size_t i = 0; i < s->n_contexts && st == LS_OK; i++) {
        c.n_ctx = s->contexts[i];
        s->plans[i] = (ls_context_plan_info){ .struct_size = sizeof s->plans[i] };
        st = ls_context_plan(s->model, &c, &s->plans[i], &err);
    }
    return st == LS_OK ? EXIT_OK : session_no_context(st, &err);
}

static void print_architecture(const ls_model_info *m)
{
    char bytes[32];

    if (m->name && *m->name)
        printf("name        %s\n", m->name);
    printf("file        %s (%s)\n", m->path, m->format);
    printf("family      %s\n", m->family);
    printf("parameters  %.1f million, %s, %s in %s\n", (double)m->n_parameters / 1e6, m->weights,
           format_bytes(bytes, (double)m->weight_bytes), "memory");
    printf("layers      %zu, %zu wide, feed-forward %zu\n", m->n_layers, m->n_embd, m->n_ff);
    printf("attention   %zu heads on %zu key/value heads of %zu\n", m->n_heads, m->n_kv_heads, m->head_dim);
    if (m->window)
        printf("window      %zu tokens in %zu of the layers\n", m->window, m->n_window_layers);
    printf("rope        base %.9g, scaling %s\n", m->rope_base, m->rope_scaling);
    printf("vocabulary  %zu, %s\n", m->n_vocab,
           m->tied ? "output matrix is the embedding" : "own output matrix");
    printf("context     %zu tokens\n", m->n_ctx_train);
}

static void print_token(const struct subject *s, const char *label, int32_t id)
{
    size_t len = 0;

    if (id < 0)
        return;
    const char *piece = ls_tokenizer_piece(s->tok, id, true, &len);
    printf(", %s %d %.*s", label, (int)id, (int)len, piece);
}

/* The chat template's name, or why there is none in *err. */
static const char *template_name(const struct subject *s, ls_chat_template **tmpl, ls_error *err)
{
    *tmpl = NULL;
    return ls_chat_template_open(s->tok, NULL, tmpl, err) == LS_OK ? ls_chat_template_name(*tmpl) : NULL;
}

static void print_tokenizer(const struct subject *s)
{
    ls_chat_template *tmpl;
    ls_error err = { 0 };
    const char *name = template_name(s, &tmpl, &err);

    printf("tokenizer   %s, split %s, %zu tokens", ls_tokenizer_kind(s->tok), ls_tokenizer_split(s->tok),
           ls_tokenizer_n_vocab(s->tok));
    print_token(s, "bos", ls_tokenizer_bos(s->tok));
    print_token(s, "eos", ls_tokenizer_eos(s->tok));
    printf(", %s bos\n", ls_tokenizer_adds_bos(s->tok) ? "adds" : "adds no");
    printf("chat        %s\n", name                                 ? name
                               : ls_tokenizer_chat_template(s->tok) ? "unknown template"
                                                                    : "no template");
    ls_chat_template_close(tmpl);
}

static void print_memory(const struct subject *s)
{
    for (size_t i = 0; i < s->n_contexts; i++) {
        const ls_context_plan_info *p = &s->plans[i];
        char cache[32], all[32], token[32];
        if (i == 0)
            printf("cache       %s, %s per token\n", s->o->kv,
                   format_bytes(token, (double)p->cache_bytes_per_token));
        printf("%s%9zu tokens: %s of cache, %s with weights and scratch%s\n",
               i ? "            " : "memory      ", s->contexts[i],
               format_bytes(cache, (double)p->cache_bytes),
               format_bytes(
                   all, (double)(p->weights_bytes + p->cache_bytes + p->activation_bytes + p->scratch_bytes)),
               s->contexts[i] == s->info.n_ctx_train ? "  (as trained)" : "");
    }
}

static void print_tensors(const struct subject *s)
{
    const size_t n = ls_model_n_tensors(s->model);
    ls_tensor_info t;

    if (!s->o->tensors) {
        printf("tensors     %zu (--tensors lists them)\n", n);
        return;
    }
    printf("tensors     %zu\n", n);
    for (size_t i = 0; i < n && ls_model_get_tensor(s->model, i, &t); i++) {
        char bytes[32];
        struct text shape = { 0 };
        for (size_t k = 0; k < t.rank; k++)
            text_printf(&shape, "[%llu]", (unsigned long long)t.shape[k]);
        printf("  %-36s %-6s %-18s %s\n", t.name, t.dtype, shape.data ? shape.data : "",
               format_bytes(bytes, (double)t.bytes));
        text_free(&shape);
    }
}

static int print_text(const struct subject *s)
{
    print_architecture(&s->info);
    print_tokenizer(s);
    print_memory(s);
    print_tensors(s);
    return finish_output(EXIT_OK);
}

static void json_architecture(struct json_out *j, const ls_model_info *m)
{
    json_str(j, "path", m->path);
    json_str(j, "format", m->format);
    json_str(j, "name", m->name);
    json_open(j, "architecture", '{');
    json_str(j, "family", m->family);
    json_uint(j, "n_layers", m->n_layers);
    json_uint(j, "n_embd", m->n_embd);
    json_uint(j, "n_heads", m->n_heads);
    json_uint(j, "n_kv_heads", m->n_kv_heads);
    json_uint(j, "head_dim", m->head_dim);
    json_uint(j, "n_ff", m->n_ff);
    json_uint(j, "n_vocab", m->n_vocab);
    json_uint(j, "n_ctx_train", m->n_ctx_train);
    json_uint(j, "window", m->window);
    json_uint(j, "n_window_layers", m->n_window_layers);
    json_real(j, "rope_base", m->rope_base);
    json_str(j, "rope_scaling", m->rope_scaling);
    json_bool(j, "tied", m->tied);
    json_uint(j, "n_parameters", m->n_parameters);
    json_str(j, "weights", m->weights);
    json_uint(j, "weight_bytes", m->weight_bytes);
    json_close(j, '}');
}

static void json_tokenizer(struct json_out *j, const struct subject *s)
{
    const int32_t bos = ls_tokenizer_bos(s->tok), eos = ls_tokenizer_eos(s->tok);
    ls_chat_template *tmpl;
    ls_error err = { 0 };

    json_open(j, "tokenizer", '{');
    json_str(j, "kind", ls_tokenizer_kind(s->tok));
    json_str(j, "split", ls_tokenizer_split(s->tok));
    json_uint(j, "n_vocab", ls_tokenizer_n_vocab(s->tok));
    json_int(j, "bos", bos);
    json_int(j, "eos", eos);
    json_bool(j, "adds_bos", ls_tokenizer_adds_bos(s->tok));
    json_str(j, "chat_template", template_name(s, &tmpl, &err));
    json_close(j, '}');
    ls_chat_template_close(tmpl);
}

static void json_memory(struct json_out *j, const struct subject *s)
{
    json_str(j, "kv", s->o->kv);
    json_uint(j, "kv_bytes_per_token", s->plans[0].cache_bytes_per_token);
    json_open(j, "contexts", '[');
    for (size_t i = 0; i < s->n_contexts; i++) {
        const ls_context_plan_info *p = &s->plans[i];
        json_open(j, NULL, '{');
        json_uint(j, "n_ctx", s->contexts[i]);
        json_uint(j, "cache_bytes", p->cache_bytes);
        json_uint(j, "weights_bytes", p->weights_bytes);
        json_uint(j, "activation_bytes", p->activation_bytes);
        json_uint(j, "scratch_bytes", p->scratch_bytes);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void json_tensors(struct json_out *j, const struct subject *s)
{
    ls_tensor_info t;

    json_open(j, "tensors", '[');
    for (size_t i = 0; i < ls_model_n_tensors(s->model) && ls_model_get_tensor(s->model, i, &t); i++) {
        json_open(j, NULL, '{');
        json_str(j, "name", t.name);
        json_str(j, "dtype", t.dtype);
        json_open(j, "shape", '[');
        for (size_t k = 0; k < t.rank; k++)
            json_uint(j, NULL, t.shape[k]);
        json_close(j, ']');
        json_uint(j, "bytes", t.bytes);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static int print_json(const struct subject *s)
{
    struct json_out j = { 0 };

    json_open(&j, NULL, '{');
    json_architecture(&j, &s->info);
    json_tokenizer(&j, s);
    json_memory(&j, s);
    json_tensors(&j, s);
    json_close(&j, '}');
    return json_print(&j);
}

int cmd_info(const struct cli_options *o)
{
    struct subject s = { .o = o, .info = { .struct_size = sizeof s.info } };
    ls_error err = { 0 };
    char *path = find_model(o);
    int status;

    if (!path)
        return EXIT_USAGE;
    if (ls_model_open(path, NULL, &s.model, &err) != LS_OK ||
        ls_tokenizer_open(path, NULL, &s.tok, &err) != LS_OK) {
        status = cli_fail("%s", err.text);
    } else {
        ls_model_get_info(s.model, &s.info);
        status = plan_contexts(&s);
        if (status == EXIT_OK)
            status = o->json ? print_json(&s) : print_text(&s);
    }
    ls_tokenizer_close(s.tok);
    ls_model_close(s.model);
    free(path);
    return status;
}
