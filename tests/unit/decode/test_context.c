/* Contexts at their limits: nothing to read, too much of it, cancelled midway, shared models. */
#include <pthread.h>
#include <stddef.h>

#include <longspan/context.h>

#include "../model/tiny.h"
#include "base/base.h"
#include "test.h"

enum {
    V = 80,
    N = 300
};

static ls_error err;
static int32_t ids[N];

static ls_model *open_model(void)
{
    char dir[256];
    ls_model *m = NULL;
    tiny_dir(dir, sizeof dir);
    tiny_model(dir, &(struct tiny_spec){ .config = tiny_configs[0], .dtype = LSI_F32 });
    const ls_status st = ls_model_open(dir, NULL, &m, &err);
    tiny_remove(dir);
    REQUIRE_OK(st, err);
    for (size_t i = 0; i < N; i++)
        ids[i] = (int32_t)(i * 7 % V);
    return m;
}

static ls_context_options options(size_t n_ctx)
{
    ls_context_options o;
    ls_context_options_defaults(&o);
    o.n_ctx = n_ctx;
    o.n_threads = 2;
    o.block = 32;
    o.compute = LS_COMPUTE_FP32;
    o.kv = "full:fp32";
    return o;
}

static ls_context *make(ls_model *m, const ls_context_options *o)
{
    ls_context *ctx = NULL;
    REQUIRE_OK(ls_context_create(m, o, &ctx, &err), err);
    return ctx;
}

static void test_limits(void)
{
    ls_model *m = open_model();
    const ls_context_options o = options(N);
    ls_context *ctx = make(m, &o);
    float logits[V];
    const int32_t outside = V;

    CHECK_INT(ls_context_append(ctx, ids, 0, logits, &err), LS_E_INVAL);
    CHECK_INT(ls_context_append(ctx, &outside, 1, logits, &err), LS_E_INVAL);
    CHECK_INT(ls_context_append_nll(ctx, ids, 0, NULL, &err), LS_OK);
    CHECK_INT(ls_context_append_nll(ctx, ids, 1, NULL, &err), LS_OK);
    CHECK_INT(ls_context_length(ctx), 1);
    REQUIRE_OK(ls_context_append(ctx, ids, N - 1, logits, &err), err); /* to the last token */
    CHECK_INT(ls_context_append(ctx, ids, 1, logits, &err), LS_E_LIMIT);
    CHECK_INT(ls_context_length(ctx), N);
    CHECK_INT(ls_context_rewind(ctx, N + 1, &err), LS_E_INVAL);
    CHECK_INT(ls_context_tile(ctx, N + 1, &err), LS_E_LIMIT);
    REQUIRE_OK(ls_context_rewind(ctx, 0, &err), err);
    CHECK_INT(ls_context_tile(ctx, 10, &err), LS_E_INVAL);
    ls_context_free(ctx);
    ls_model_close(m);
}

/* Structs of an older library are shorter: what lies behind their end is neither read nor written. */
static void test_short_structs(void)
{
    ls_model *m = open_model();
    ls_context_options o = options(N);
    o.struct_size = offsetof(ls_context_options, kv);
    o.kv = "nonsense";
    o.compute = (ls_compute)99;
    ls_context *ctx = make(m, &o);
    CHECK_INT(ls_context_capacity(ctx), N);
    CHECK_STR(ls_context_kv(ctx), "full:bf16");
    ls_context_free(ctx);

    ls_context_plan_info plan = { .struct_size = offsetof(ls_context_plan_info, scratch_bytes) };
    plan.scratch_bytes = 12345;
    REQUIRE_OK(ls_context_plan(m, &o, &plan, &err), err);
    CHECK(plan.cache_bytes > 0 && plan.activation_bytes > 0);
    CHECK_INT(plan.scratch_bytes, 12345);
    REQUIRE_OK(ls_context_plan(m, NULL, &plan, &err), err);
    ls_model_close(m);
}

struct canceller {
    volatile int flag;
    size_t at; /* raise the flag when so many tokens are done */
};

static void raise_flag(void *user, size_t done, size_t total)
{
    struct canceller *c = user;
    (void)total;
    if (done >= c->at)
        c->flag = 1;
}

/* A call that is cancelled leaves no trace: what follows gives the same bits as if it had not been. */
static void test_cancel(void)
{
    struct canceller c = { .at = SIZE_MAX };
    ls_model *m = open_model();
    ls_context_options o = options(N);
    o.cancel = &c.flag;
    o.progress = raise_flag;
    o.progress_user = &c;
    float want[V], got[V], nll[199];
    ls_context *ctx = make(m, &o);
    REQUIRE_OK(ls_context_append(ctx, ids, 10, NULL, &err), err);
    REQUIRE_OK(ls_context_append(ctx, ids + 10, 200, want, &err), err);
    REQUIRE_OK(ls_context_rewind(ctx, 10, &err), err);

    c.at = 64;
    CHECK_INT(ls_context_append(ctx, ids + 50, 200, got, &err), LS_E_CANCELED);
    CHECK_INT(ls_context_length(ctx), 10);
    CHECK_INT(ls_context_append(ctx, ids, 1, NULL, &err), LS_E_CANCELED); /* the flag is still up */
    c.flag = 0;
    CHECK_INT(ls_context_append_nll(ctx, ids + 50, 200, nll, &err), LS_E_CANCELED);
    CHECK_INT(ls_context_length(ctx), 10);
    c = (struct canceller){ .at = SIZE_MAX };
    REQUIRE_OK(ls_context_append(ctx, ids + 10, 200, got, &err), err);
    CHECK_MEM(got, sizeof got, want, sizeof want);
    ls_context_free(ctx);
    ls_model_close(m);
}

static ls_status stop_at_third_call(void *user, size_t row0, size_t n_rows, const float *logits)
{
    (void)row0;
    (void)n_rows;
    (void)logits;
    return ++*(int *)user == 3 ? LS_E_AGAIN : LS_OK;
}

static void test_function_that_stops(void)
{
    ls_model *m = open_model();
    const ls_context_options o = options(N);
    ls_context *ctx = make(m, &o);
    int calls = 0;
    CHECK_INT(ls_context_append_all(ctx, ids, 200, stop_at_third_call, &calls, &err), LS_E_AGAIN);
    CHECK_INT(calls, 3);
    CHECK_INT(ls_context_length(ctx), 0);
    ls_context_free(ctx);
    ls_model_close(m);
}

static void test_more_than_memory(void)
{
    ls_model *m = open_model();
    ls_context_options o = options(((size_t)1 << 31) + 1);
    ls_context *ctx = NULL;
    CHECK_INT(ls_context_create(m, &o, &ctx, &err), LS_E_INVAL);
    o.n_ctx--;
    ctx = make(m, &o);
    REQUIRE_OK(ls_context_append(ctx, ids, 256, NULL, &err), err);
    ls_context_plan_info plan = { .struct_size = sizeof plan };
    REQUIRE_OK(ls_context_plan(m, &o, &plan, &err), err);
    if (lsi_memory_available() < plan.cache_bytes) /* a terabyte */
        CHECK_INT(ls_context_tile(ctx, o.n_ctx, &err), LS_E_NOMEM);
    CHECK_INT(ls_context_length(ctx), 256);
    REQUIRE_OK(ls_context_tile(ctx, 1000, &err), err);
    ls_context_free(ctx);
    ls_model_close(m);
}

/* One value more than ls_context_append_nll gives, by blocks or step by step. */
static void test_the_next_token(void)
{
    ls_model *m = open_model();
    const ls_context_options o = options(N);
    ls_context *ctx = make(m, &o);
    const int32_t outside[] = { 1, V };
    float want[N], got[N];
    REQUIRE_OK(ls_context_append_nll(ctx, ids, 200, want, &err), err);
    REQUIRE_OK(ls_context_rewind(ctx, 0, &err), err);
    REQUIRE_OK(ls_context_append_next_nll(ctx, ids, 100, got, &err), err);
    CHECK_INT(ls_context_length(ctx), 100);
    for (size_t i = 100; i < 199; i++)
        REQUIRE_OK(ls_context_append_next_nll(ctx, ids + i, 1, got + i, &err), err);
    for (size_t i = 0; i < 199; i++)
        CHECK_NEAR(got[i], want[i], 1e-4);
    CHECK_INT(ls_context_append_next_nll(ctx, outside, 1, got, &err), LS_E_INVAL);
    CHECK_INT(ls_context_length(ctx), 199);
    ls_context_free(ctx);
    ls_model_close(m);
}

enum {
    READ_AT = 200, /* the token whose reads are looked at */
    READ_L = 2,
    READ_H = 4
};

struct reads {
    size_t n[READ_L][READ_H];
    int64_t pos[READ_L][READ_H][READ_AT + 1];
    bool ascending;
};

static void see_reads(void *user, size_t layer, size_t head, const int64_t *positions, size_t n)
{
    struct reads *r = user;
    r->n[layer][head] = n;
    memcpy(r->pos[layer][head], positions, n * sizeof *positions);
    for (size_t i = 1; i < n; i++)
        r->ascending = r->ascending && positions[i - 1] < positions[i];
}

static void take_row(void *user, size_t layer, size_t row0, size_t n_rows, const float *p, size_t ld)
{
    float *row = user;
    (void)row0;
    (void)n_rows;
    memcpy(row + layer * READ_H * ld, p, READ_H * ld * sizeof *p);
}

/* Whether no token that is left out has more probability than one that is read. */
static bool are_best(const float *p, const int64_t *pos, size_t n)
{
    float least = 1, most = 0;
    size_t i = 0;
    for (size_t j = 0; j < READ_AT; j++) /* the newest is read whatever it has */
        if (i < n && pos[i] == (int64_t)j) {
            least = fminf(least, p[j]);
            i++;
        } else {
            most = fmaxf(most, p[j]);
        }
    return i + 1 == n && least >= most;
}

/* What is told is what the policy chooses; the step is what it would have been. */
static void test_what_a_step_reads(void)
{
    static const struct {
        const char *kv;
        size_t n[READ_L];
    } cases[] = {
        { "full:fp32", { READ_AT + 1, READ_AT + 1 } },
        { "streaming:sink=4,recent=20,fp32", { 25, 25 } },
        { "h2o:heavy=20,recent=30,fp32", { 51, 51 } },
        { "topk:k=12,fp32", { 12, 12 } },
        { "topk:k=500,fp32", { READ_AT + 1, READ_AT + 1 } },
        { "quest:budget=48,page=16,skip=1,fp32", { READ_AT + 1, 2 * 16 + (READ_AT + 1) % 16 } },
    };
    static float p[READ_L * READ_H * (READ_AT + 1)];
    static struct reads r;
    ls_model *m = open_model();
    ls_context_options o = options(N);
    ls_context *full = make(m, &o);
    REQUIRE_OK(ls_context_append(full, ids, READ_AT, NULL, &err), err);
    REQUIRE_OK(ls_context_append_attention(full, ids + READ_AT, 1, SIZE_MAX, take_row, p, &err), err);
    ls_context_free(full);
    for (size_t c = 0; c < LSI_LEN(cases); c++) {
        float want[V], got[V];
        o.kv = cases[c].kv;
        ls_context *a = make(m, &o), *b = make(m, &o);
        r.ascending = true;
        REQUIRE_OK(ls_context_append(a, ids, READ_AT, NULL, &err), err);
        REQUIRE_OK(ls_context_append(b, ids, READ_AT, NULL, &err), err);
        REQUIRE_OK(ls_context_append(a, ids + READ_AT, 1, NULL, &err), err);
        REQUIRE_OK(ls_context_append_reads(b, ids[READ_AT], see_reads, &r, &err), err);
        REQUIRE_OK(ls_context_append(a, ids, 1, want, &err), err);
        REQUIRE_OK(ls_context_append(b, ids, 1, got, &err), err);
        CHECK_MEM(got, sizeof got, want, sizeof want);
        CHECK(r.ascending);
        for (size_t l = 0; l < READ_L; l++)
            for (size_t h = 0; h < READ_H; h++) {
                CHECK_INT(r.n[l][h], cases[c].n[l]);
                CHECK_INT(r.pos[l][h][r.n[l][h] - 1], READ_AT);
                /* Before the first layer nothing has been left out: there the choice is that of the full
                 * cache. */
                if (c == 3 && l == 0)
                    CHECK(are_best(p + h * (READ_AT + 1), r.pos[l][h], r.n[l][h]));
            }
        ls_context_free(a);
        ls_context_free(b);
    }
    ls_model_close(m);
}

/* Tokens that come one by one are decoded after a prompt of one: shares are of that, at least a token. */
static void test_a_prompt_of_one_token(void)
{
    static const struct {
        const char *kv, *resolved;
        size_t n[READ_L];
    } cases[] = {
        { "h2o:fp32", "h2o:heavy=1,recent=1,sinks=0,", { 3, 3 } },
        { "h2o:fp32+kivi:residual=32", "h2o:heavy=1,recent=1,sinks=0,", { 34, 34 } },
        { "quest:page=16,skip=1,fp32", "quest:", { READ_AT + 1, 2 * 16 + (READ_AT + 1) % 16 } },
        { "snapkv:budget=10%,window=8,fp32", "snapkv:budget=9,window=8,", { READ_AT + 1, READ_AT + 1 } },
        { "streaming:recent=10%,prompt=dense,fp32", "streaming:sink=4,recent=1,", { 6, 6 } },
        { "kivi:residual=32,fp32", "kivi:", { READ_AT + 1, READ_AT + 1 } },
    };
    static struct reads r;
    ls_model *m = open_model();
    ls_context_options o = options(N);
    for (size_t c = 0; c < LSI_LEN(cases); c++) {
        float want[V], got[V];
        o.kv = cases[c].kv;
        ls_context *a = make(m, &o), *b = NULL;
        REQUIRE_OK(ls_context_append(a, ids, 1, NULL, &err), err);
        CHECK(strncmp(ls_context_kv(a), cases[c].resolved, strlen(cases[c].resolved)) == 0);
        REQUIRE_OK(ls_context_fork(a, &b, &err), err);
        for (size_t i = 1; i < READ_AT; i++) {
            REQUIRE_OK(ls_context_append(a, ids + i, 1, NULL, &err), err);
            REQUIRE_OK(ls_context_append(b, ids + i, 1, NULL, &err), err);
        }
        REQUIRE_OK(ls_context_append_reads(a, ids[READ_AT], see_reads, &r, &err), err);
        for (size_t l = 0; l < READ_L; l++)
            for (size_t h = 0; h < READ_H; h++)
                CHECK_INT(r.n[l][h], cases[c].n[l]);
        REQUIRE_OK(ls_context_append(b, ids + READ_AT, 1, NULL, &err), err);
        REQUIRE_OK(ls_context_append(a, ids, 1, want, &err), err);
        REQUIRE_OK(ls_context_append(b, ids, 1, got, &err), err);
        CHECK_MEM(got, sizeof got, want, sizeof want);
        ls_context_free(a);
        ls_context_free(b);
    }
    ls_model_close(m);
}

/* From the beginning shares are open again, and a prompt that never came is none. */
static void test_shares_are_of_the_first_prompt(void)
{
    struct canceller c = { .at = SIZE_MAX };
    ls_model *m = open_model();
    ls_context_options o = options(N);
    o.cancel = &c.flag;
    o.kv = "h2o";
    ls_context *ctx = make(m, &o);
    const char *const after_100 = "h2o:heavy=10,recent=10,", *const asked = "h2o:heavy=10%,recent=10%,";
    REQUIRE_OK(ls_context_append(ctx, ids, 1, NULL, &err), err);
    REQUIRE_OK(ls_context_rewind(ctx, 0, &err), err);
    CHECK(strncmp(ls_context_kv(ctx), asked, strlen(asked)) == 0);
    REQUIRE_OK(ls_context_append(ctx, ids, 100, NULL, &err), err);
    CHECK(strncmp(ls_context_kv(ctx), after_100, strlen(after_100)) == 0);
    REQUIRE_OK(ls_context_rewind(ctx, 0, &err), err);
    c.flag = 1;
    CHECK_INT(ls_context_append(ctx, ids, 200, NULL, &err), LS_E_CANCELED);
    c.flag = 0;
    REQUIRE_OK(ls_context_append(ctx, ids, 100, NULL, &err), err);
    CHECK(strncmp(ls_context_kv(ctx), after_100, strlen(after_100)) == 0);
    ls_context_free(ctx);
    ls_model_close(m);
}

/* A cache of fixed size takes any text, whatever n_ctx says, and goes back or says that it cannot. */
static void test_without_end(void)
{
    ls_model *m = open_model();
    ls_context_options o = options(100);
    o.kv = "streaming:sink=2,recent=40,fp32";
    ls_context *ctx = make(m, &o);
    float want[V], got[V];
    CHECK(ls_context_endless(ctx));
    CHECK_INT(ls_context_capacity(ctx), 1LL << 31);
    for (size_t i = 0; i < 5; i++)
        REQUIRE_OK(ls_context_append(ctx, ids, N, want, &err), err);
    CHECK_INT(ls_context_length(ctx), 5 * N);
    const size_t held = ls_context_cache_bytes(ctx);
    CHECK_INT(ls_context_rewind(ctx, 100 + N, &err), LS_E_UNSUPPORTED);
    REQUIRE_OK(ls_context_rewind(ctx, 5 * N - 20, &err), err);
    REQUIRE_OK(ls_context_append(ctx, ids + N - 20, 20, got, &err), err);
    for (size_t i = 0; i < V; i++)
        CHECK_NEAR(got[i], want[i], 1e-4);
    REQUIRE_OK(ls_context_tile(ctx, 1000000000, &err), err);
    REQUIRE_OK(ls_context_append(ctx, ids, 1, got, &err), err);
    CHECK_INT(ls_context_cache_bytes(ctx), held);
    CHECK_INT(ls_context_tile(ctx, ((size_t)1 << 31) + 1, &err), LS_E_LIMIT);
    ls_context_free(ctx);
    o.kv = "streaming:sink=2,recent=1000000";
    CHECK_INT(ls_context_create(m, &o, &ctx, &err), LS_E_INVAL);
    ls_model_close(m);
}

static void test_cache_policies_are_listed(void)
{
    ls_kv_policy_info p = { .struct_size = sizeof p };
    size_t n = 0, keys = 0;
    for (; ls_kv_policy_at(n, &p); n++) {
        CHECK(p.name[0] != '\0' && p.summary[0] != '\0');
        char text[256];
        if (p.example) {
            snprintf(text, sizeof text, "%.*s", (int)strcspn(p.example, " "), p.example);
            CHECK_INT(ls_kv_check(text, &err), LS_OK);
            CHECK(strncmp(text, p.name, strlen(p.name)) == 0);
        }
        for (size_t k = 0; k < p.n_keys; k++, keys++) {
            ls_kv_key_info key = { .struct_size = sizeof key };
            REQUIRE(ls_kv_key_at(n, k, &key));
            snprintf(text, sizeof text, "%s:%s=%s", p.name, key.name, key.normal ? key.normal : "");
            if (key.normal)
                CHECK_INT(ls_kv_check(text, &err), LS_OK);
        }
        ls_kv_key_info none = { .struct_size = sizeof none };
        CHECK(!ls_kv_key_at(n, p.n_keys, &none));
    }
    CHECK(n >= 2 && keys >= 4);
    CHECK_INT(ls_kv_check("nonsense", &err), LS_E_INVAL);
}

struct seen {
    size_t n_rows, n_layers, H;
    double worst;      /* distance of a row's sum from 1 */
    double past, last; /* to tokens after the row; of the last row to its own token */
};

static void see_rows(void *user, size_t layer, size_t row0, size_t n_rows, const float *p, size_t ld)
{
    struct seen *s = user;
    for (size_t i = 0; i < n_rows * s->H; i++) {
        double sum = 0, past = 0;
        for (size_t j = 0; j < ld; j++)
            *(j <= 20 + row0 + i / s->H ? &sum : &past) += (double)p[i * ld + j];
        s->worst = fmax(s->worst, fabs(sum - 1));
        s->past += past;
    }
    s->n_rows += n_rows;
    s->n_layers = lsi_max_size(s->n_layers, layer + 1);
    s->last = (double)p[n_rows * s->H * ld - 1];
}

/* Probabilities of every row, in blocks and after a prefix; what is computed does not change. */
static void test_attention_is_told(void)
{
    ls_model *m = open_model();
    ls_model_info info = { .struct_size = sizeof info };
    ls_model_get_info(m, &info);
    ls_context_options o = options(N);
    ls_context *ctx = make(m, &o);
    struct seen s = { .H = info.n_heads };
    float want[V], got[V];
    int64_t pos[N];
    REQUIRE_OK(ls_context_append(ctx, ids, 121, want, &err), err);
    REQUIRE_OK(ls_context_rewind(ctx, 0, &err), err);
    REQUIRE_OK(ls_context_append(ctx, ids, 20, NULL, &err), err);
    REQUIRE_OK(ls_context_append_attention(ctx, ids + 20, 100, SIZE_MAX, see_rows, &s, &err), err);
    CHECK_INT(s.n_layers, info.n_layers);
    CHECK_INT(s.n_rows, 100 * info.n_layers);
    CHECK_NEAR(s.worst, 0, 1e-5);
    CHECK(s.past == 0 && s.last > 0);
    CHECK_INT(ls_context_kept(ctx, 0, 0, pos), 120);
    CHECK_INT(pos[119], 119);
    REQUIRE_OK(ls_context_append(ctx, ids + 120, 1, got, &err), err);
    for (size_t i = 0; i < V; i++)
        CHECK_NEAR(got[i], want[i], 1e-4);
    CHECK_INT(ls_context_append_attention(ctx, ids, N, SIZE_MAX, see_rows, &s, &err), LS_E_LIMIT);
    ls_context_free(ctx);
    o.kv = "streaming:recent=20";
    ctx = make(m, &o);
    CHECK_INT(ls_context_append_attention(ctx, ids, 10, 0, see_rows, &s, &err), LS_E_UNSUPPORTED);
    ls_context_free(ctx);
    ls_model_close(m);
}

struct reader {
    ls_model *model;
    float logits[V];
    ls_status status;
};

static void *read_text(void *arg)
{
    struct reader *r = arg;
    const ls_context_options o = options(N);
    ls_context *ctx = NULL;
    r->status = ls_context_create(r->model, &o, &ctx, NULL);
    if (r->status == LS_OK)
        r->status = ls_context_append(ctx, ids, 100, r->logits, NULL);
    ls_context_free(ctx);
    return NULL;
}

/* Contexts of several threads share a model, which may be closed before they are done. */
static void test_shared_model(void)
{
    ls_model *m = open_model();
    struct reader r[3] = { { .model = m }, { .model = m }, { .model = m } };
    pthread_t t[3];
    const ls_context_options o = options(N);
    ls_context *keeper = make(m, &o);
    for (int i = 0; i < 3; i++)
        REQUIRE(pthread_create(&t[i], NULL, read_text, &r[i]) == 0);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    ls_model_close(m);
    float logits[V];
    REQUIRE_OK(ls_context_append(keeper, ids, 100, logits, &err), err);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(r[i].status, LS_OK);
        CHECK_MEM(r[i].logits, sizeof logits, logits, sizeof logits);
    }
    ls_context_free(keeper);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_limits),
        TEST(test_short_structs),
        TEST(test_cancel),
        TEST(test_function_that_stops),
        TEST(test_the_next_token),
        TEST(test_attention_is_told),
        TEST(test_what_a_step_reads),
        TEST(test_a_prompt_of_one_token),
        TEST(test_shares_are_of_the_first_prompt),
        TEST(test_without_end),
        TEST(test_cache_policies_are_listed),
        TEST(test_more_than_memory),
        TEST(test_shared_model),
    };
    return test_main(tests, LSI_LEN(tests), argc, argv);
}
