/* Cases put to the bundled model: what is asked is what was meant, and protocols read the same tokens. */
#include <longspan/eval.h>

#include "test.h"

#define BLOCK 64

static ls_error err;
static ls_tokenizer *tok;
static ls_model *model;
static ls_eval_source *source;
static ls_context *ctx;

static void begin_with(size_t n_ctx, const char *kv)
{
    ls_context_options o;
    memset(&err, 0, sizeof err);
    REQUIRE_OK(ls_tokenizer_open(LS_SOURCE_DIR "/models/recall", NULL, &tok, &err), err);
    REQUIRE_OK(ls_model_open(LS_SOURCE_DIR "/models/recall", NULL, &model, &err), err);
    REQUIRE_OK(ls_eval_source_create(tok, NULL, NULL, &source, &err), err);
    ls_context_options_defaults(&o);
    o.n_ctx = n_ctx;
    o.block = BLOCK;
    o.kv = kv;
    o.compute = LS_COMPUTE_FP32;
    REQUIRE_OK(ls_context_create(model, &o, &ctx, &err), err);
}

static void begin(size_t n_ctx)
{
    begin_with(n_ctx, NULL);
}

static void end(void)
{
    ls_context_free(ctx);
    ls_eval_source_free(source);
    ls_model_close(model);
    ls_tokenizer_close(tok);
}

static ls_eval_result ask(const ls_eval_case *c, ls_eval_protocol protocol, size_t held)
{
    ls_eval_result r = { .struct_size = sizeof r };
    REQUIRE_OK(ls_eval_ask(ctx, source, c, protocol, held, &r, &err), err);
    return r;
}

/* The answer is what `append` and the likeliest token come to, done by hand. */
static void test_answer(void)
{
    ls_eval_case *c = NULL;
    begin(700);
    REQUIRE_OK(ls_eval_case_create(source, "needle-single", 600, 3, 0, &c, &err), err);
    ls_eval_result r = ask(c, LS_EVAL_DENSE, 0);
    char *prompt = calloc(1, strlen(c->turns[0].text) + 1000);
    sprintf(prompt, "%s%s%s", c->turns[0].text, c->turns[0].question, c->turns[0].prefix);
    const size_t V = ls_context_n_vocab(ctx);
    float *logits = calloc(V, sizeof *logits);
    int32_t *ids = NULL, answer[64];
    size_t n = 0, n_answer = 0, len = 0;
    char *text = NULL;
    REQUIRE_OK(ls_tokenizer_encode(tok, prompt, strlen(prompt), LS_ENCODE_ADD_SPECIAL, &ids, &n, &err), err);
    CHECK_INT(n, c->n_tokens);
    CHECK_INT(r.prompt_tokens, n);
    REQUIRE_OK(ls_context_rewind(ctx, 0, &err), err);
    REQUIRE_OK(ls_context_append(ctx, ids, n, logits, &err), err);
    REQUIRE(c->n_predict < 64);
    while (n_answer < c->n_predict) {
        int32_t best = 0;
        for (size_t i = 1; i < V; i++)
            best = logits[i] > logits[best] ? (int32_t)i : best;
        if (ls_tokenizer_is_stop(tok, best))
            break;
        answer[n_answer++] = best;
        REQUIRE_OK(ls_context_append(ctx, &best, 1, logits, &err), err);
    }
    REQUIRE_OK(ls_tokenizer_decode(tok, answer, n_answer, false, &text, &len, &err), err);
    CHECK_STR(r.answer, text);
    CHECK_NEAR(r.score, strstr(text, c->turns[0].expected[0]) != NULL, 0);
    ls_tokenizer_text_free(tok, text, len);
    ls_tokenizer_ids_free(tok, ids, n);
    ls_eval_result_clear(&r);
    ls_eval_case_free(c);
    free(logits);
    free(prompt);
    end();
}

/* Both protocols read all tokens, and going back changes nothing but how many are read. */
static void test_keep(void)
{
    ls_eval_case *c = NULL;
    begin(1000);
    for (uint64_t seed = 0; seed < 4; seed++) {
        size_t held = 0;
        REQUIRE_OK(
            ls_eval_case_create(source, seed % 2 ? "needle-multiquery" : "lines", 900, seed, 0, &c, &err),
            err);
        ls_eval_result alone = ask(c, LS_EVAL_DENSE, 0), sparse = ask(c, LS_EVAL_SPARSE, 0);
        REQUIRE_OK(ls_eval_keep(ctx, source, c, BLOCK, &held, &err), err);
        CHECK(held > 0 && held % BLOCK == 0 && held < c->n_tokens);
        ls_eval_result kept = ask(c, LS_EVAL_DENSE, held);
        CHECK_INT(alone.prompt_tokens, c->n_tokens);
        CHECK_INT(kept.prompt_tokens + held, c->n_tokens);
        CHECK(sparse.prompt_tokens < c->n_tokens &&
              sparse.prompt_tokens + sparse.decode_tokens > c->n_tokens);
        CHECK_STR(kept.answer, alone.answer);
        CHECK_NEAR(kept.score, alone.score, 0);
        CHECK(alone.cache_bytes > 0);
        ls_eval_result_clear(&alone);
        ls_eval_result_clear(&sparse);
        ls_eval_result_clear(&kept);
        ls_eval_case_free(c);
    }
    end();
}

/* What a policy has compressed is no beginning of another prompt, even where it could go back to there. */
static void test_keep_what_is_exact(void)
{
    static const struct {
        const char *kv;
        bool kept;
    } of[] = {
        { "full:q8", true },
        { "quest:budget=100", true },
        { "topk:k=100", true },
        { "quest:budget=50%", false },
        { "kivi:bits=2,residual=512", false },
        { "quest:budget=600+kivi:bits=2,residual=512", false },
        { "streaming:recent=700,prompt=dense", false },
        { "h2o:heavy=500,recent=500", false },
        { "snapkv:budget=900", false },
    };
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        ls_eval_case *c = NULL;
        size_t held = 1;
        begin_with(1000, of[i].kv);
        REQUIRE_OK(ls_eval_case_create(source, "lines", 900, 1, 0, &c, &err), err);
        ls_eval_result alone = ask(c, LS_EVAL_DENSE, 0), sparse = ask(c, LS_EVAL_SPARSE, 0);
        REQUIRE_OK(ls_eval_keep(ctx, source, c, BLOCK, &held, &err), err);
        CHECK((held > 0) == of[i].kept);
        ls_eval_result again = ask(c, LS_EVAL_DENSE, held);
        CHECK_STR(again.answer, alone.answer);
        ls_eval_result_clear(&alone);
        ls_eval_result_clear(&sparse);
        ls_eval_result_clear(&again);
        ls_eval_case_free(c);
        end();
    }
}

/* A stream is read on: every turn's tokens once, and nothing of it can be kept for the other protocol. */
static void test_stream(void)
{
    ls_eval_case *c = NULL;
    begin(3000);
    size_t held = 1;
    REQUIRE_OK(ls_eval_case_create(source, "stream", 3000, 1, 0, &c, &err), err);
    CHECK(c->n_turns > 3);
    ls_eval_result r = ask(c, LS_EVAL_DENSE, 0);
    CHECK_INT(r.prompt_tokens, c->n_tokens);
    CHECK(r.decode_tokens <= c->n_turns * c->n_predict);
    CHECK(ls_context_length(ctx) == r.prompt_tokens + r.decode_tokens);
    size_t lines = 1;
    for (const char *p = r.answer; *p; p++)
        lines += *p == '\n';
    CHECK(lines >= c->n_turns);
    REQUIRE_OK(ls_eval_keep(ctx, source, c, BLOCK, &held, &err), err);
    CHECK_INT(held, 0);
    ls_eval_result_clear(&r);
    ls_eval_case_free(c);
    end();
}

/* Against ls_context_append_nll over the whole text; both protocols count the same tokens. */
static void test_perplexity(void)
{
    ls_eval_case *c = NULL;
    begin(1000);
    REQUIRE_OK(ls_eval_case_create(source, "ppl", 1000, 1, 0, &c, &err), err);
    ls_eval_result dense = ask(c, LS_EVAL_DENSE, 0), sparse = ask(c, LS_EVAL_SPARSE, 0);
    int32_t *ids = NULL;
    size_t n = 0, scored = 0;
    double nll[LS_EVAL_BINS] = { 0 };
    REQUIRE_OK(ls_tokenizer_encode(tok, c->turns[0].text, strlen(c->turns[0].text), LS_ENCODE_ADD_SPECIAL,
                                   &ids, &n, &err),
               err);
    float *each = calloc(n, sizeof *each);
    REQUIRE_OK(ls_context_rewind(ctx, 0, &err), err);
    REQUIRE_OK(ls_context_append_nll(ctx, ids, n, each, &err), err);
    for (size_t i = 1; i < n; i++)
        nll[i * LS_EVAL_BINS / n] += (double)each[i - 1];
    for (size_t i = 0; i < LS_EVAL_BINS; i++) {
        CHECK_NEAR(dense.nll[i], nll[i], 1e-6 * nll[i]);
        CHECK_NEAR(sparse.nll[i], nll[i], 1e-5 * nll[i]); /* steps are computed in another order */
        CHECK_INT(sparse.scored[i], dense.scored[i]);
        scored += dense.scored[i];
    }
    CHECK_INT(scored, n - 1);
    CHECK_INT(sparse.decode_tokens, n / LS_EVAL_BINS);
    CHECK_INT(sparse.prompt_tokens + sparse.decode_tokens, n);
    ls_tokenizer_ids_free(tok, ids, n);
    ls_eval_result_clear(&dense);
    ls_eval_result_clear(&sparse);
    ls_eval_case_free(c);
    free(each);
    end();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_answer), TEST(test_keep), TEST(test_keep_what_is_exact),
                                         TEST(test_stream), TEST(test_perplexity) };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}
