/* Opening a model, processing prompts, generating answers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "cli_session.h"

void session_context_options(struct session *s, size_t n_ctx, ls_context_options *c)
{
    const struct cli_options *o = s->o;

    ls_context_options_defaults(c);
    c->n_ctx = n_ctx;
    c->kv = o->kv;
    c->compute = strcmp(o->compute, "fp32") == 0   ? LS_COMPUTE_FP32
                 : strcmp(o->compute, "bf16") == 0 ? LS_COMPUTE_BF16
                                                   : LS_COMPUTE_AUTO;
    c->n_threads = (int)o->threads;
    c->block = (size_t)o->block;
    c->cancel = &cli_cancel;
    c->progress = progress_update;
    c->progress_user = &s->progress;
}

void session_note_trained(const struct session *s)
{
    cli_note(s->o->quiet, "the model was trained for %zu tokens; beyond them its answers may get worse",
             s->info.n_ctx_train);
}

int session_no_context(ls_status st, const ls_error *err)
{
    return st == LS_E_INVAL ? cli_usage("%s", err->text) : cli_fail("%s", err->text);
}

static void find_stop_ids(struct session *s)
{
    const size_t n = ls_tokenizer_n_vocab(s->tok);

    for (size_t i = 0; i < n && i < s->n_vocab; i++) {
        if (!ls_tokenizer_is_stop(s->tok, (int32_t)i))
            continue;
        s->stop_ids = cli_realloc(s->stop_ids, s->n_stop_ids + 1, sizeof *s->stop_ids);
        s->stop_ids[s->n_stop_ids++] = (int32_t)i;
    }
}

static int open_context(struct session *s, size_t n_ctx)
{
    ls_context_options c;
    ls_context_plan_info plan = { .struct_size = sizeof plan };
    ls_error err = { 0 };
    char weights[32], cache[32];

    session_context_options(s, n_ctx, &c);
    ls_status st = ls_context_plan(s->model, &c, &plan, &err);
    if (st == LS_OK)
        st = ls_context_create(s->model, &c, &s->ctx, &err);
    if (st != LS_OK)
        return session_no_context(st, &err);
    const bool endless = ls_context_endless(s->ctx);
    char tokens[48] = "any number of";
    n_ctx = ls_context_capacity(s->ctx);
    if (!endless)
        snprintf(tokens, sizeof tokens, "up to %zu", n_ctx);
    cli_note(s->o->quiet, "%s: %s weights, %s; %s tokens, %s of cache (%s)",
             s->info.name && *s->info.name ? s->info.name : s->info.family, s->info.weights,
             format_bytes(weights, (double)s->info.weight_bytes), tokens,
             format_bytes(cache, (double)plan.cache_bytes), ls_context_kv(s->ctx));
    if (!endless && s->info.n_ctx_train && n_ctx > s->info.n_ctx_train)
        session_note_trained(s);
    return EXIT_OK;
}

int session_open(struct session *s, const struct cli_options *o, size_t n_ctx)
{
    ls_error err = { 0 };
    char *path = find_model(o);
    int status = EXIT_ERROR;

    *s = (struct session){ .o = o };
    if (!path)
        return EXIT_USAGE;
    s->info.struct_size = sizeof s->info;
    if (o->seed >= 0)
        s->seed = (uint64_t)o->seed;
    else if (getrandom(&s->seed, sizeof s->seed, 0) != sizeof s->seed)
        s->seed = (uint64_t)getpid();
    s->seed &= (1ULL << 53) - 1; /* a number that JSON readers keep exactly */

    if (ls_model_open(path, NULL, &s->model, &err) != LS_OK ||
        ls_tokenizer_open(path, NULL, &s->tok, &err) != LS_OK) {
        cli_fail("%s", err.text);
    } else {
        ls_model_get_info(s->model, &s->info);
        status = open_context(s, n_ctx);
    }
    free(path);
    if (status != EXIT_OK)
        return status;
    s->n_vocab = ls_context_n_vocab(s->ctx);
    s->logits = cli_realloc(NULL, s->n_vocab, sizeof *s->logits);
    find_stop_ids(s);
    return EXIT_OK;
}

void session_close(struct session *s)
{
    ls_context_free(s->base);
    ls_context_free(s->ctx);
    ls_model_close(s->model);
    ls_tokenizer_close(s->tok);
    free(s->logits);
    free(s->held);
    free(s->base_ids);
    free(s->stop_ids);
    *s = (struct session){ 0 };
}

/* ---- prompts ------------------------------------------------------------------ */

static void hold(struct session *s, const int32_t *ids, size_t n)
{
    if (s->n_held + n > s->cap_held) {
        s->cap_held = 2 * (s->n_held + n);
        s->held = cli_realloc(s->held, s->cap_held, sizeof *s->held);
    }
    if (n)
        memcpy(s->held + s->n_held, ids, n * sizeof *ids);
    s->n_held += n;
}

/* Remember what the context holds; a copy of it shares its memory. */
static void keep_base(struct session *s)
{
    ls_error err = { 0 };
    const ls_status st =
        s->base ? ls_context_assign(s->base, s->ctx, &err) : ls_context_fork(s->ctx, &s->base, &err);

    s->n_base = st == LS_OK ? s->n_held : 0; /* without it prompts are processed from the first token on */
    s->base_ids = cli_realloc(s->base_ids, s->n_base, sizeof *s->base_ids);
    if (s->n_base)
        memcpy(s->base_ids, s->held, s->n_base * sizeof *s->base_ids);
}

void session_holds(struct session *s, const int32_t *ids, size_t n)
{
    s->n_held = 0;
    hold(s, ids, n);
    keep_base(s);
}

static int append(struct session *s, const int32_t *ids, size_t n)
{
    ls_error err = { 0 };
    const ls_status st = ls_context_append(s->ctx, ids, n, s->logits, &err);

    /* After a failure a cache that cannot go back still holds the first of them. */
    hold(s, ids, ls_context_length(s->ctx) - s->n_held);
    if (st == LS_E_CANCELED)
        return EXIT_INTERRUPTED;
    return st == LS_OK ? EXIT_OK : cli_fail("%s", err.text);
}

/*
 * How much of n common tokens a prompt may keep that is apart from those before it. All but the full cache
 * treat a token by the prompt that it came with, which ended elsewhere and had another length: the shared
 * beginning stays, or nothing.
 */
static size_t keep_apart(const struct session *s, size_t n)
{
    if (!s->apart || n == s->n_held || strncmp(ls_context_kv(s->ctx), "full:", 5) == 0)
        return n;
    return s->n_base == 0 ? 0 : n < s->n_base ? n : s->n_base;
}

/* Make the context hold the longest beginning of ids that it can still have, of *common tokens. */
static bool go_back(struct session *s, const int32_t *ids, size_t n, size_t *common, ls_error *err)
{
    size_t k = 0;
    while (k < s->n_held && k < n && s->held[k] == ids[k])
        k++;
    if (k == n)
        k--; /* the logits after the last token are wanted */
    k = keep_apart(s, k);
    ls_status st = k < s->n_held ? ls_context_rewind(s->ctx, k, err) : LS_OK;
    if (st == LS_E_UNSUPPORTED && s->n_base > 0 && s->n_base < n &&
        memcmp(s->base_ids, ids, s->n_base * sizeof *ids) == 0) {
        k = s->n_base;
        st = ls_context_assign(s->ctx, s->base, err);
    } else if (st == LS_E_UNSUPPORTED) {
        k = 0;
        st = ls_context_rewind(s->ctx, 0, err);
    }
    if (st == LS_OK)
        s->n_held = *common = k;
    return st == LS_OK;
}

int session_prompt(struct session *s, const int32_t *ids, size_t n, struct answer *a)
{
    const double started = now_seconds();
    ls_error err = { 0 };
    size_t common = 0;
    int status;

    a->prompt_tokens = n;
    if (n == 0)
        return cli_fail("the prompt is empty; give some text with -p or -f");
    if (n > ls_context_capacity(s->ctx))
        return cli_fail(
            "the prompt has %zu tokens but the context holds %zu; give -c %zu or more, or a shorter text", n,
            ls_context_capacity(s->ctx), n + 256);
    if (!go_back(s, ids, n, &common, &err))
        return cli_fail("%s", err.text);
    a->kept_tokens = common - (common < s->share_tokens ? common : s->share_tokens);
    progress_start(&s->progress, "prompt", "tokens", s->o->quiet);
    status = append(s, ids + common, n - common);
    progress_end(&s->progress);
    a->prompt_seconds = now_seconds() - started + s->share_seconds;
    s->share_tokens = 0;
    s->share_seconds = 0;
    return status;
}

/* Process ids as a prompt and keep them as a beginning, unless they are too many: then so are those of the
 * prompt, which is told. What it took counts for the first answer. */
static int begin(struct session *s, const int32_t *ids, size_t n)
{
    struct answer a = { 0 };

    if (n == 0 || n >= ls_context_capacity(s->ctx))
        return EXIT_OK;
    const int status = session_prompt(s, ids, n, &a);
    if (status == EXIT_OK)
        keep_base(s);
    s->share_tokens = n - a.kept_tokens;
    s->share_seconds = a.prompt_seconds;
    answer_free(&a);
    return status;
}

/* Where the end of a document begins that stands for all of it when it is asked what follows: behind a gap.
 */
static size_t last_part(const struct text *doc)
{
    enum {
        PART = 1024
    };
    size_t at = doc->len > 2 * PART ? doc->len - PART : 0;

    while (at > 0 && at < doc->len - PART / 2 && doc->data[at - 1] != '\n' && doc->data[at - 1] != ' ')
        at++;
    return at;
}

struct probe {
    int32_t *ids;
    size_t n;
};

static size_t common_start(const struct probe *a, const struct probe *b)
{
    size_t k = 0;

    while (k < a->n && k < b->n && a->ids[k] == b->ids[k])
        k++;
    return k;
}

static size_t common_end(const struct probe *a, const struct probe *b)
{
    size_t k = 0;

    while (k < a->n && k < b->n && a->ids[a->n - 1 - k] == b->ids[b->n - 1 - k])
        k++;
    return k;
}

/* How many of the ids with the first question the others share: of the document from byte `from` on. */
static int count_shared(struct session *s, encode_fn *encode, void *user, size_t from, struct probe *first,
                        size_t *n_shared)
{
    static const char *const questions[] = { "a", "?", "\n" };
    int status = encode(user, from, questions[0], 1, &first->ids, &first->n);

    *n_shared = first->n;
    for (size_t i = 1; i < CLI_LEN(questions) && status == EXIT_OK; i++) {
        struct probe p = { 0 };
        status = encode(user, from, questions[i], 1, &p.ids, &p.n);
        const size_t k = common_start(first, &p);
        *n_shared = k < *n_shared ? k : *n_shared;
        ls_tokenizer_ids_free(s->tok, p.ids, p.n);
    }
    return status;
}

/*
 * What a question changes is at the end: the last part of a long document is asked, and the document once.
 * When both end with the same ids, further than the questions reach, the document has as many that change as
 * its part. Should that be wrong for other questions, session_prompt notices and begins anew.
 */
int session_share(struct session *s, encode_fn *encode, void *user, const struct text *doc)
{
    const size_t from = last_part(doc);
    struct probe whole = { 0 }, part = { 0 };
    size_t n_shared = 0;
    bool known = false;
    int status = EXIT_OK;

    if (from > 0) {
        status = count_shared(s, encode, user, from, &part, &n_shared);
        if (status == EXIT_OK)
            status = encode(user, 0, "a", 1, &whole.ids, &whole.n);
        const size_t n_changed = part.n - n_shared;
        known = common_end(&whole, &part) > n_changed;
        n_shared = whole.n - n_changed;
    }
    if (status == EXIT_OK && !known) {
        ls_tokenizer_ids_free(s->tok, whole.ids, whole.n);
        status = count_shared(s, encode, user, 0, &whole, &n_shared);
    }
    if (status == EXIT_OK)
        status = begin(s, whole.ids, n_shared);
    ls_tokenizer_ids_free(s->tok, whole.ids, whole.n);
    ls_tokenizer_ids_free(s->tok, part.ids, part.n);
    return status;
}

/* ---- answers -------------------------------------------------------------------- */

static void emit(const struct session *s, struct answer *a, const char *text, size_t len)
{
    text_add(&a->text, text, len);
    if (!s->o->json && len) {
        fwrite(text, 1, len, stdout);
        fflush(stdout);
    }
}

static bool is_stop(const struct session *s, int32_t id)
{
    for (size_t i = 0; i < s->n_stop_ids; i++)
        if (s->stop_ids[i] == id)
            return true;
    return false;
}

static int make_sampler(const struct session *s, const int32_t *ids, size_t n, ls_sampler **sampler)
{
    const struct cli_options *o = s->o;
    ls_sampler_options so;
    ls_error err = { 0 };

    ls_sampler_options_defaults(&so);
    so.temperature = (float)o->temp;
    so.top_k = (int)o->top_k;
    so.top_p = (float)o->top_p;
    so.min_p = (float)o->min_p;
    so.repeat_penalty = (float)o->repeat_penalty;
    so.repeat_last = (int)o->repeat_last;
    so.seed = s->seed;
    /* Rows of the output beyond the tokenizer's ids fill up a table: nothing may be chosen there. */
    const size_t n_tokens = ls_tokenizer_n_vocab(s->tok);
    if (ls_sampler_create(&so, n_tokens < s->n_vocab ? n_tokens : s->n_vocab, NULL, sampler, &err) != LS_OK)
        return cli_fail("%s", err.text);
    for (size_t i = 0; i < n; i++)
        ls_sampler_accept(*sampler, ids[i]);
    return EXIT_OK;
}

static void keep_id(struct answer *a, int32_t id)
{
    if (a->n_ids == a->cap_ids) {
        a->cap_ids = a->cap_ids ? 2 * a->cap_ids : 256;
        a->ids = cli_realloc(a->ids, a->cap_ids, sizeof *a->ids);
    }
    a->ids[a->n_ids++] = id;
}

/* Choose, show, append until something ends it; sets a->stop. */
static int generate(struct session *s, ls_sampler *sampler, ls_detokenizer *detok, struct answer *a)
{
    const size_t most = s->o->n_predict < 0 ? SIZE_MAX : (size_t)s->o->n_predict;
    const char *text;
    size_t len;

    a->stop = STOP_LENGTH;
    while (a->n_ids < most) {
        bool stopped = false;
        int status;
        if (cli_cancel) {
            a->stop = STOP_INTERRUPT;
            return EXIT_INTERRUPTED;
        }
        if (s->o->ignore_eos)
            for (size_t i = 0; i < s->n_stop_ids; i++)
                s->logits[s->stop_ids[i]] = -INFINITY;
        const int32_t id = ls_sampler_choose(sampler, s->logits);
        if (!s->o->ignore_eos && is_stop(s, id)) {
            a->stop = STOP_EOS;
            break;
        }
        ls_sampler_accept(sampler, id);
        keep_id(a, id);
        if (ls_detokenizer_push(detok, id, &text, &len, &stopped) != LS_OK)
            return cli_fail("token %d has no text", (int)id);
        emit(s, a, text, len);
        if (stopped) {
            a->stop = STOP_TEXT;
            break;
        }
        if (a->n_ids == most || s->n_held == ls_context_capacity(s->ctx))
            break;
        status = append(s, &id, 1);
        if (status == EXIT_INTERRUPTED)
            a->stop = STOP_INTERRUPT;
        if (status != EXIT_OK)
            return status;
    }
    if (a->stop == STOP_LENGTH && a->n_ids < most)
        cli_note(s->o->quiet, "the context of %zu tokens is full; -c N makes a larger one", s->n_held);
    return EXIT_OK;
}

int session_answer(struct session *s, const int32_t *ids, size_t n, const char *prefix, struct answer *a)
{
    ls_sampler *sampler = NULL;
    ls_detokenizer *detok = NULL;
    const char *text;
    size_t len;
    /* A continuation keeps its leading space; a fresh answer does not begin with one. */
    const bool continues = prefix || (s->o->command->bit & CMD_GENERATE);
    int status = session_prompt(s, ids, n, a);

    if (status != EXIT_OK) {
        a->stop = STOP_INTERRUPT;
        return status;
    }
    if (prefix)
        emit(s, a, prefix, strlen(prefix));
    status = make_sampler(s, ids, n, &sampler);
    if (status == EXIT_OK &&
        ls_detokenizer_create(s->tok, continues, s->o->stop.items, s->o->stop.n, &detok, NULL) != LS_OK)
        status = cli_fail("out of memory");
    if (status == EXIT_OK) {
        const double started = now_seconds();
        status = generate(s, sampler, detok, a);
        a->generate_seconds = now_seconds() - started;
        if (ls_detokenizer_finish(detok, &text, &len) == LS_OK && a->stop != STOP_TEXT)
            emit(s, a, text, len);
        if (!s->o->json && !(a->text.len && a->text.data[a->text.len - 1] == '\n'))
            fputc('\n', stdout);
        fflush(stdout);
    }
    ls_detokenizer_free(detok);
    ls_sampler_free(sampler);
    return status;
}

void answer_free(struct answer *a)
{
    text_free(&a->text);
    free(a->ids);
    *a = (struct answer){ 0 };
}

/* ---- what to ask ------------------------------------------------------------------ */

struct text *prompts_add(struct prompts *p)
{
    p->items = cli_realloc(p->items, p->n + 1, sizeof *p->items);
    p->items[p->n] = (struct text){ 0 };
    return &p->items[p->n++];
}

int prompts_read(const struct cli_options *o, struct prompts *p)
{
    *p = (struct prompts){ 0 };
    if (o->file && !text_read_file(prompts_add(p), o->file))
        return EXIT_ERROR;
    for (size_t i = 0; i < o->prompts.n; i++)
        text_puts(prompts_add(p), o->prompts.items[i]);
    return EXIT_OK;
}

void prompts_free(struct prompts *p)
{
    for (size_t i = 0; i < p->n; i++)
        text_free(&p->items[i]);
    free(p->items);
    *p = (struct prompts){ 0 };
}
