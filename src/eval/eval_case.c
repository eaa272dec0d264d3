#include "eval/eval.h"

#include <stdarg.h>
#include <string.h>

#include "base/digest.h"

#define SPARE_PREDICT \
    6 /* tokens of an answer beyond the one that is expected: it may begin with a word or two */

/* ---- drafts ----------------------------------------------------------------------------------------- */

void lsi_draft_init(struct lsi_draft *d, const ls_eval_source *source, uint64_t seed)
{
    *d = (struct lsi_draft){ .source = source };
    lsi_rng_init(&d->rng, seed);
    lsi_buf_init(&d->text, NULL, LSI_EVAL_TEXT_BYTES);
    lsi_buf_init(&d->turns, NULL, SIZE_MAX / 4);
    lsi_buf_init(&d->expected, NULL, SIZE_MAX / 4);
    lsi_buf_init(&d->classes, NULL, SIZE_MAX / 4);
}

void lsi_draft_fini(struct lsi_draft *d)
{
    lsi_buf_fini(&d->text);
    lsi_buf_fini(&d->turns);
    lsi_buf_fini(&d->expected);
    lsi_buf_fini(&d->classes);
    lsi_used_fini(&d->used);
}

bool lsi_draft_failed(const struct lsi_draft *d)
{
    return d->text.failed || d->turns.failed || d->expected.failed || d->classes.failed || d->used.failed;
}

static struct lsi_draft_turn *last_turn(struct lsi_draft *d)
{
    if (d->turns.failed || d->turns.len == 0)
        return NULL;
    return (struct lsi_draft_turn *)(void *)(d->turns.data + d->turns.len) - 1;
}

/* The string that is being written ends. */
static void end_string(struct lsi_draft *d)
{
    lsi_buf_append(&d->text, "", 1);
}

void lsi_draft_turn(struct lsi_draft *d)
{
    end_string(d);
    const struct lsi_draft_turn t = { .text = d->text.len, .expected = d->expected.len / sizeof(size_t) };
    lsi_buf_append(&d->turns, &t, sizeof t);
}

void lsi_draft_add(struct lsi_draft *d, const char *s, size_t n)
{
    lsi_buf_append(&d->text, s, n);
}

void lsi_draft_put(struct lsi_draft *d, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    const int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    LSI_ASSERT(n >= 0 && (size_t)n < sizeof line); /* names and lines of our own are short */
    lsi_buf_append(&d->text, line, (size_t)n);
}

void lsi_draft_question(struct lsi_draft *d)
{
    end_string(d);
    struct lsi_draft_turn *t = last_turn(d);
    if (t)
        t->question = d->text.len;
}

void lsi_draft_prefix(struct lsi_draft *d)
{
    end_string(d);
    struct lsi_draft_turn *t = last_turn(d);
    if (t)
        t->prefix = d->text.len;
}

/* A string of its own; where it begins goes to the list. */
static void add_string(struct lsi_draft *d, struct lsi_buf *list, const char *s, size_t n)
{
    end_string(d);
    const size_t at = d->text.len;
    lsi_buf_append(&d->text, s, n);
    lsi_buf_append(list, &at, sizeof at);
}

void lsi_draft_expect(struct lsi_draft *d, const char *s, size_t n)
{
    add_string(d, &d->expected, s, n);
    struct lsi_draft_turn *t = last_turn(d);
    if (t)
        t->n_expected++;
}

void lsi_draft_class(struct lsi_draft *d, const char *s, size_t n)
{
    add_string(d, &d->classes, s, n);
}

/* ---- ids ----------------------------------------------------------------------------------------------- */

/* The whole prompt as a text, or its beginning alone. */
static ls_status encode(const ls_eval_source *source, const char *text, size_t n, bool first, int32_t **ids,
                        size_t *n_ids, ls_error *err)
{
    return ls_tokenizer_encode(source->tok, text, n, first ? LS_ENCODE_ADD_SPECIAL : 0, ids, n_ids, err);
}

static ls_status encode_chat(const ls_eval_source *source, const char *content, size_t n, const char *prefix,
                             int32_t **ids, size_t *n_ids, ls_error *err)
{
    const ls_chat_message m = { "user", content, n };
    prefix += strspn(prefix, " ");
    return ls_chat_encode(source->chat, &m, 1, true, *prefix ? prefix : NULL, ids, n_ids, err);
}

/*
 * A prompt is encoded as a whole; of it the document has the ids that it shares with the document alone. So
 * both protocols read the same ids, and a token that joins the two is part of the question. A stream and a
 * text that is only predicted are no messages of a chat.
 */
ls_status lsi_turn_encode(const ls_eval_source *source, const ls_eval_case *c, size_t i,
                          struct lsi_turn_ids *t, ls_error *err)
{
    const ls_eval_turn *turn = &c->turns[i];
    const bool first = i == 0, chat = source->chat && c->n_turns == 1 && c->metric != LS_EVAL_NLL;
    const size_t n_text = strlen(turn->text);
    struct lsi_buf whole;
    int32_t *alone = NULL;
    size_t n_alone = 0;
    ls_status st;
    *t = (struct lsi_turn_ids){ 0 };
    lsi_buf_init(&whole, NULL, LSI_EVAL_TEXT_BYTES);
    lsi_buf_append(&whole, turn->text, n_text);
    lsi_buf_append(&whole, turn->question, strlen(turn->question));
    if (!chat)
        lsi_buf_append(&whole, turn->prefix, strlen(turn->prefix));
    if (whole.failed) {
        st = lsi_fail(err, LS_E_NOMEM, "no memory for a prompt of %zu bytes", n_text);
        goto end;
    }
    if (chat) {
        LSI_TRY_OR(end, encode_chat(source, whole.data, whole.len, turn->prefix, &t->ids, &t->n, err));
        LSI_TRY_OR(end, encode_chat(source, turn->text, n_text, "", &alone, &n_alone, err));
    } else {
        LSI_TRY_OR(end, encode(source, whole.data, whole.len, first, &t->ids, &t->n, err));
        LSI_TRY_OR(end, encode(source, turn->text, n_text, first, &alone, &n_alone, err));
    }
    while (t->n_text < n_alone && t->n_text < t->n && alone[t->n_text] == t->ids[t->n_text])
        t->n_text++;
end:
    ls_tokenizer_ids_free(source->tok, alone, n_alone);
    lsi_buf_fini(&whole);
    return st;
}

void lsi_turn_ids_free(const ls_eval_source *source, struct lsi_turn_ids *t)
{
    ls_tokenizer_ids_free(source->tok, t->ids, t->n);
    *t = (struct lsi_turn_ids){ 0 };
}

ls_status ls_eval_prompt_ids(const ls_eval_source *source, const ls_eval_case *c, size_t turn, int32_t **ids,
                             size_t *n, size_t *n_document, ls_error *err)
{
    struct lsi_turn_ids t;
    LSI_TRY(lsi_turn_encode(source, c, turn, &t, err));
    *ids = t.ids;
    *n = t.n;
    if (n_document)
        *n_document = t.n_text;
    return LS_OK;
}

/* ---- cases ------------------------------------------------------------------------------------------------
 */

/* A case and its strings. */
struct owned_case {
    ls_eval_case c; /* first: what callers hold */
    char *text;
    size_t text_bytes;
    ls_eval_turn *turns;
    const char **expected, **classes;
    size_t n_expected;
};

void ls_eval_case_free(ls_eval_case *c)
{
    struct owned_case *o = (struct owned_case *)(void *)c;
    if (!o)
        return;
    lsi_free(NULL, o->text, o->text_bytes);
    lsi_free(NULL, o->turns, c->n_turns * sizeof *o->turns);
    lsi_free(NULL, (void *)o->expected, o->n_expected * sizeof *o->expected);
    lsi_free(NULL, (void *)o->classes, c->n_classes * sizeof *o->classes);
    lsi_free(NULL, o, sizeof *o);
}

static struct owned_case *own(const struct lsi_draft *d)
{
    const struct lsi_draft_turn *t = (const struct lsi_draft_turn *)(const void *)d->turns.data;
    const size_t *expected = (const size_t *)(const void *)d->expected.data;
    const size_t *classes = (const size_t *)(const void *)d->classes.data;
    struct owned_case *o = lsi_calloc(NULL, 1, sizeof *o);
    if (!o)
        return NULL;
    o->c.n_turns = d->turns.len / sizeof *t;
    o->n_expected = d->expected.len / sizeof *expected;
    o->c.n_classes = d->classes.len / sizeof *classes;
    o->text_bytes = d->text.len + 1;
    o->text = lsi_alloc(NULL, o->text_bytes);
    o->turns = lsi_calloc(NULL, o->c.n_turns, sizeof *o->turns);
    o->expected = lsi_calloc(NULL, o->n_expected, sizeof *o->expected);
    o->classes = lsi_calloc(NULL, o->c.n_classes, sizeof *o->classes);
    if (!o->text || !o->turns || !o->expected || !o->classes) {
        ls_eval_case_free(&o->c);
        return NULL;
    }
    memcpy(o->text, d->text.data, o->text_bytes);
    for (size_t i = 0; i < o->n_expected; i++)
        o->expected[i] = o->text + expected[i];
    for (size_t i = 0; i < o->c.n_classes; i++)
        o->classes[i] = o->text + classes[i];
    for (size_t i = 0; i < o->c.n_turns; i++)
        o->turns[i] = (ls_eval_turn){ .text = o->text + t[i].text,
                                      .question = o->text + t[i].question,
                                      .prefix = o->text + t[i].prefix,
                                      .expected = o->expected + t[i].expected,
                                      .n_expected = t[i].n_expected };
    o->c.turns = o->turns;
    o->c.classes = o->classes;
    return o;
}

/* Tokens that the expected answers of a turn take, and some more where a model may say them in several ways.
 */
static ls_status predict(const ls_eval_source *source, const ls_eval_turn *turn, size_t *n_predict,
                         ls_error *err)
{
    size_t sum = 0;
    for (size_t i = 0; i < turn->n_expected; i++) {
        int32_t *ids;
        size_t n;
        LSI_TRY(encode(source, turn->expected[i], strlen(turn->expected[i]), false, &ids, &n, err));
        ls_tokenizer_ids_free(source->tok, ids, n);
        sum += n;
    }
    sum = turn->n_expected > 1 ? 2 * sum + SPARE_PREDICT : sum + SPARE_PREDICT;
    *n_predict = lsi_max_size(*n_predict, sum);
    return LS_OK;
}

static ls_status count_tokens(const ls_eval_source *source, ls_eval_case *c, const struct lsi_draft *d,
                              ls_error *err)
{
    c->n_predict = d->n_predict ? d->n_predict : d->n_least_predict;
    for (size_t i = 0; i < c->n_turns; i++) {
        struct lsi_turn_ids t;
        const ls_status st = lsi_turn_encode(source, c, i, &t, err);
        c->n_tokens += t.n;
        lsi_turn_ids_free(source, &t);
        LSI_TRY(st);
        if (!d->n_predict && c->metric != LS_EVAL_NLL)
            LSI_TRY(predict(source, &c->turns[i], &c->n_predict, err));
    }
    c->n_ctx = c->n_tokens + c->n_turns * c->n_predict;
    return LS_OK;
}

ls_status lsi_case_finish(const ls_eval_source *source, const struct lsi_draft *d, const char *task,
                          uint64_t seed, uint64_t index, ls_eval_case **out, ls_error *err)
{
    struct owned_case *o = lsi_draft_failed(d) ? NULL : own(d);
    if (!o)
        return lsi_fail(err, LS_E_NOMEM, "no memory for a case of %s", task);
    o->c.task = task;
    o->c.metric = d->metric;
    o->c.first_line = d->first_line;
    o->c.seed = seed;
    o->c.index = index;
    const ls_status st = count_tokens(source, &o->c, d, err);
    if (st == LS_OK)
        *out = &o->c;
    else
        ls_eval_case_free(&o->c);
    return st;
}

/* ---- as many units of text as fit -----------------------------------------------------------------------
 */

/* Everything that a case depends on; the number of units is not among it, so that more of them give a longer
 * text of the same kind. */
static uint64_t case_seed(const char *task, uint64_t seed, uint64_t index, size_t n_tokens)
{
    struct lsi_digest digest;
    lsi_digest_init(&digest);
    lsi_digest_add_u64(&digest, seed);
    lsi_digest_add_u64(&digest, index);
    lsi_digest_add_u64(&digest, n_tokens);
    lsi_digest_add(&digest, task, strlen(task));
    return lsi_digest_get(&digest);
}

struct fitting {
    const ls_eval_source *source;
    const struct lsi_eval_task *task;
    size_t n_tokens;
    uint64_t seed, index;
};

static ls_status write_case(const struct fitting *f, size_t n, ls_eval_case **c, ls_error *err)
{
    struct lsi_draft d;
    lsi_draft_init(&d, f->source, case_seed(f->task->info.name, f->seed, f->index, f->n_tokens));
    d.n_target = f->n_tokens;
    f->task->write(&d, n);
    const ls_status st = lsi_case_finish(f->source, &d, f->task->info.name, f->seed, f->index, c, err);
    lsi_draft_fini(&d);
    return st;
}

/*
 * How many units to try next. Tokens grow almost linearly with them: the line through two counts that are
 * known says where n_tokens are reached.
 */
static size_t next_units(size_t n_tokens, size_t n0, size_t tokens0, size_t n1, size_t tokens1)
{
    const double slope = ((double)tokens1 - (double)tokens0) / (double)(n1 - n0);
    return n0 + (size_t)(((double)n_tokens - (double)tokens0) / slope);
}

#define FIRST_UNITS 16

/* The greatest n whose case fits, between one that fits and one that does not. *c holds the case of low. */
static ls_status fit(const struct fitting *f, ls_eval_case **c, ls_error *err)
{
    const size_t least_tokens = (*c)->n_ctx;
    size_t low = f->task->least, high = 0, high_tokens = 0;
    while (high == 0 || high - low > 1) {
        size_t next;
        if (high)
            next = next_units(f->n_tokens, low, (*c)->n_ctx, high, high_tokens);
        else if (low == f->task->least)
            next = low + FIRST_UNITS;
        else if ((*c)->n_ctx > least_tokens)
            next = next_units(f->n_tokens, f->task->least, least_tokens, low, (*c)->n_ctx) + 1;
        else
            return lsi_fail(err, LS_E_INVAL,
                            "the model's vocabulary has no tokens for the text to hide things in");
        next = lsi_max_size(low + 1, high ? lsi_min_size(high - 1, next) : next);
        ls_eval_case *more = NULL;
        LSI_TRY(write_case(f, next, &more, err));
        if (more->n_ctx <= f->n_tokens) {
            ls_eval_case_free(*c);
            *c = more;
            low = next;
        } else {
            high = next;
            high_tokens = more->n_ctx;
            ls_eval_case_free(more);
        }
    }
    return LS_OK;
}

ls_status ls_eval_case_create(const ls_eval_source *source, const char *task, size_t n_tokens, uint64_t seed,
                              uint64_t index, ls_eval_case **out, ls_error *err)
{
    const struct fitting f = {
        .source = source, .task = lsi_eval_find_task(task), .n_tokens = n_tokens, .seed = seed, .index = index
    };
    ls_eval_case *c = NULL;
    if (!f.task)
        return lsi_fail(err, LS_E_INVAL, "there is no task '%s'", task);
    LSI_TRY(write_case(&f, f.task->least, &c, err));
    ls_status st = LS_OK;
    if (c->n_ctx > n_tokens)
        st =
            lsi_fail(err, LS_E_LIMIT, "%s takes at least %zu tokens and %zu are given: take a greater length",
                     task, c->n_ctx, n_tokens);
    else
        st = fit(&f, &c, err);
    if (st == LS_OK)
        *out = c;
    else
        ls_eval_case_free(c);
    return st;
}

/* ---- sources
 * ----------------------------------------------------------------------------------------------- */

ls_status ls_eval_source_create(const ls_tokenizer *tok, const ls_eval_text *text,
                                const ls_chat_template *chat, ls_eval_source **out, ls_error *err)
{
    ls_eval_source *s = lsi_calloc(NULL, 1, sizeof *s);
    struct lsi_digest digest;
    if (!s)
        return lsi_fail(err, LS_E_NOMEM, "no memory for an evaluation");
    s->tok = tok;
    s->chat = chat;
    const ls_status st =
        text ? lsi_hay_init(&s->hay, text->data, text->len, err) : lsi_hay_init_made_up(&s->hay, err);
    if (st != LS_OK) {
        ls_eval_source_free(s);
        return st;
    }
    lsi_digest_init(&digest);
    lsi_digest_add(&digest, s->hay.text, s->hay.bytes);
    snprintf(s->name, sizeof s->name, "%.200s:%016llx", text ? text->name : "made-up",
             (unsigned long long)lsi_digest_get(&digest));
    *out = s;
    return LS_OK;
}

void ls_eval_source_free(ls_eval_source *s)
{
    if (!s)
        return;
    lsi_hay_fini(&s->hay);
    lsi_free(NULL, s, sizeof *s);
}

const char *ls_eval_source_name(const ls_eval_source *source)
{
    return source->name;
}
