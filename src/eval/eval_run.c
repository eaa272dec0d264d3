/* A case put to a context: prompt, question, greedy answer. */
#include "eval/eval.h"

#include <string.h>

#include "decode/context_impl.h"

struct run {
    ls_context *ctx;
    const ls_eval_source *source;
    const ls_eval_case *c;
    ls_eval_protocol protocol;
    ls_eval_result *r;
    float *logits; /* [V] */
    size_t n_choices;
    struct lsi_buf answers;
};

const char *ls_eval_protocol_name(ls_eval_protocol protocol)
{
    return protocol == LS_EVAL_DENSE ? "dense" : "sparse";
}

/* One call of append is a prompt when it is more than one token. */
static ls_status read_prompt(struct run *run, const int32_t *ids, size_t n, bool logits, ls_error *err)
{
    const double started = lsi_now();
    if (n == 0)
        return LS_OK;
    LSI_TRY(ls_context_append(run->ctx, ids, n, logits ? run->logits : NULL, err));
    run->r->prompt_tokens += n;
    run->r->prompt_seconds += lsi_now() - started;
    return LS_OK;
}

static ls_status step(struct run *run, int32_t id, bool logits, ls_error *err)
{
    const double started = lsi_now();
    LSI_TRY(ls_context_append(run->ctx, &id, 1, logits ? run->logits : NULL, err));
    run->r->decode_tokens++;
    run->r->decode_seconds += lsi_now() - started;
    return LS_OK;
}

/* ---- answers ----------------------------------------------------------------------------------------- */

/* The likeliest token, the lowest of equal ones. */
static int32_t likeliest(const struct run *run)
{
    size_t best = 0;
    for (size_t i = 1; i < run->n_choices; i++)
        if (run->logits[i] > run->logits[best])
            best = i;
    return (int32_t)best;
}

/* Whether a line of an answer is complete: in a stream the next text follows. */
static bool ends_line(const struct run *run, const int32_t *ids, size_t n)
{
    size_t len;
    bool written = false;
    if (run->c->n_turns == 1)
        return false;
    for (size_t i = 0; i < n; i++) {
        const char *piece = ls_tokenizer_piece(run->source->tok, ids[i], false, &len);
        if (written && memchr(piece, '\n', len))
            return true;
        written |= len > strspn(piece, " \n");
    }
    return false;
}

static ls_status generate(struct run *run, int32_t *ids, size_t *n_ids, ls_error *err)
{
    for (*n_ids = 0; *n_ids < run->c->n_predict;) {
        const int32_t id = likeliest(run);
        if (ls_tokenizer_is_stop(run->source->tok, id))
            return LS_OK;
        ids[(*n_ids)++] = id;
        if (*n_ids == run->c->n_predict || ends_line(run, ids, *n_ids))
            return LS_OK;
        LSI_TRY(step(run, id, true, err));
    }
    return LS_OK;
}

static ls_status answer(struct run *run, size_t turn, ls_error *err)
{
    int32_t *ids = lsi_calloc(NULL, run->c->n_predict, sizeof *ids);
    char *text = NULL;
    size_t n_ids = 0, len = 0;
    ls_status st;
    if (!ids)
        return lsi_fail(err, LS_E_NOMEM, "no memory for an answer of %zu tokens", run->c->n_predict);
    LSI_TRY_OR(end, generate(run, ids, &n_ids, err));
    LSI_TRY_OR(end, ls_tokenizer_decode(run->source->tok, ids, n_ids, false, &text, &len, err));
    run->r->score += ls_eval_score(run->c, turn, text) / (double)run->c->n_turns;
    lsi_buf_printf(&run->answers, "%s", turn ? "\n" : "");
    lsi_buf_append(&run->answers, text, len);
end:
    if (text)
        ls_tokenizer_text_free(run->source->tok, text, len);
    lsi_free(NULL, ids, run->c->n_predict * sizeof *ids);
    return st;
}

static ls_status ask_turn(struct run *run, size_t i, const struct lsi_turn_ids *t, size_t held, ls_error *err)
{
    const size_t n_prompt = run->protocol == LS_EVAL_DENSE ? t->n : t->n_text;
    LSI_TRY(read_prompt(run, t->ids + held, n_prompt - held, n_prompt == t->n, err));
    for (size_t k = n_prompt; k < t->n; k++)
        LSI_TRY(step(run, t->ids[k], k + 1 == t->n, err));
    return answer(run, i, err);
}

/* ---- predicting -------------------------------------------------------------------------------------------
 */

static void count_nll(ls_eval_result *r, size_t position, size_t n, double nll)
{
    const size_t bin = position * LS_EVAL_BINS / n;
    r->nll[bin] += nll;
    r->scored[bin]++;
}

/* Steps of decoding: the token that stands there, and how well the one behind it was predicted. */
static ls_status predict_steps(struct run *run, const struct lsi_turn_ids *t, size_t i, ls_error *err)
{
    for (; i + 1 < t->n; i++) {
        const double started = lsi_now();
        float nll;
        LSI_TRY(ls_context_append_next_nll(run->ctx, t->ids + i, 1, &nll, err));
        run->r->decode_tokens++;
        run->r->decode_seconds += lsi_now() - started;
        count_nll(run->r, i + 1, t->n, (double)nll);
    }
    return i < t->n ? step(run, t->ids[i], false, err) : LS_OK;
}

/* Under both protocols every token but the first counts: the last of the prompt predicts the first step's. */
static ls_status predict(struct run *run, const struct lsi_turn_ids *t, ls_error *err)
{
    const size_t decoded = run->protocol == LS_EVAL_SPARSE ? t->n / LS_EVAL_BINS : 0, n = t->n - decoded;
    const size_t n_nll = decoded ? n : n - 1;
    const double started = lsi_now();
    float *nll = lsi_calloc(NULL, n, sizeof *nll);
    ls_status st;
    if (!nll)
        return lsi_fail(err, LS_E_NOMEM, "no memory for %zu predictions", n);
    LSI_TRY_OR(end, decoded ? ls_context_append_next_nll(run->ctx, t->ids, n, nll, err)
                            : ls_context_append_nll(run->ctx, t->ids, n, nll, err));
    run->r->prompt_tokens += n;
    run->r->prompt_seconds += lsi_now() - started;
    for (size_t i = 0; i < n_nll; i++)
        count_nll(run->r, i + 1, t->n, (double)nll[i]);
    st = predict_steps(run, t, n, err);
end:
    lsi_free(NULL, nll, n * sizeof *nll);
    return st;
}

/* ---- the case
 * ------------------------------------------------------------------------------------------------ */

static ls_status ask_all(struct run *run, size_t held, ls_error *err)
{
    for (size_t i = 0; i < run->c->n_turns; i++) {
        struct lsi_turn_ids t;
        ls_status st = lsi_turn_encode(run->source, run->c, i, &t, err);
        if (st == LS_OK && t.n == 0)
            st = lsi_fail(err, LS_E_INVAL, "a prompt of %s has no tokens", run->c->task);
        if (st == LS_OK)
            st = run->c->metric == LS_EVAL_NLL ? predict(run, &t, err)
                                               : ask_turn(run, i, &t, lsi_min_size(held, t.n_text), err);
        lsi_turn_ids_free(run->source, &t);
        LSI_TRY(st);
        held = 0;
    }
    return LS_OK;
}

void ls_eval_result_clear(ls_eval_result *r)
{
    if (r->answer)
        lsi_free(NULL, r->answer, strlen(r->answer) + 1);
    *r = (ls_eval_result){ .struct_size = r->struct_size };
}

ls_status ls_eval_ask(ls_context *ctx, const ls_eval_source *source, const ls_eval_case *c,
                      ls_eval_protocol protocol, size_t held, ls_eval_result *result, ls_error *err)
{
    const size_t V = ls_context_n_vocab(ctx);
    ls_eval_result r = { .struct_size = result->struct_size };
    struct run run = { .ctx = ctx, .source = source, .c = c, .protocol = protocol, .r = &r };
    ls_status st = LS_OK;
    /* Rows of the output beyond the tokenizer's ids fill up a table: nothing may be chosen there. */
    run.n_choices = lsi_min_size(V, ls_tokenizer_n_vocab(source->tok));
    run.logits = lsi_alloc(NULL, V * sizeof *run.logits);
    lsi_buf_init(&run.answers, NULL, LSI_EVAL_TEXT_BYTES);
    if (!run.logits)
        st = lsi_fail(err, LS_E_NOMEM, "no memory for %zu logits", V);
    if (st == LS_OK && held == 0)
        st = ls_context_rewind(ctx, 0, err);
    if (st == LS_OK)
        st = ask_all(&run, held, err);
    r.cache_bytes = ls_context_cache_bytes(ctx);
    if (st == LS_OK) {
        r.answer = lsi_strndup(NULL, run.answers.data ? run.answers.data : "", run.answers.len);
        if (!r.answer || run.answers.failed)
            st = lsi_fail(err, LS_E_NOMEM, "no memory for an answer");
    }
    lsi_buf_fini(&run.answers);
    lsi_free(NULL, run.logits, V * sizeof *run.logits);
    if (st == LS_OK)
        memcpy(result, &r, lsi_min_size(result->struct_size, sizeof r));
    else
        ls_eval_result_clear(&r);
    return st;
}

uint64_t ls_eval_model_digest(const ls_model *model)
{
    return lsi_session_fingerprint(model);
}

/* Policies that keep every token as it was: the end of a prompt sees of its beginning what it would have seen
 * in one piece. Others have compressed the beginning, or counted it as a prompt of its own. */
static bool keeps_all(const char *kv)
{
    static const char *const names[] = { "full:", "topk:", "quest:" };
    for (size_t i = 0; i < LSI_LEN(names); i++)
        if (strncmp(kv, names[i], strlen(names[i])) == 0)
            return strchr(kv, '+') == NULL;
    return false;
}

ls_status ls_eval_keep(ls_context *ctx, const ls_eval_source *source, const ls_eval_case *c, size_t block,
                       size_t *held, ls_error *err)
{
    struct lsi_turn_ids t;
    *held = 0;
    /* A share of the prompt is of the one that was read first: the document would stay it. */
    if (c->n_turns != 1 || c->metric == LS_EVAL_NLL || strchr(ls_context_kv(ctx), '%') ||
        !keeps_all(ls_context_kv(ctx)))
        return LS_OK;
    LSI_TRY(lsi_turn_encode(source, c, 0, &t, err));
    const size_t whole = t.n_text / block * block;
    if (whole > 0 && t.n > whole + 1 && ls_context_length(ctx) >= whole &&
        ls_context_rewind(ctx, whole, NULL) == LS_OK)
        *held = whole;
    lsi_turn_ids_free(source, &t);
    return LS_OK;
}
