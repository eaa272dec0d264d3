/*
 * A step is the same however it is computed: modes, pieces, tiers, threads, the moment at which parameters
 * are stepped, how the labels are spread over sequences. What it takes is what was planned; what goes wrong
 * is said, and leaves the weights as they were.
 */
#include "small_trainer.h"

#define N 61 /* tokens: no piece of 2, 3 or 7 is even */
#define V 83

static char dir[512];

/* ---- ways to compute a step ---------------------------------------------------------------- */

struct way {
    ls_train_mode mode;
    size_t block, mlp_chunks, head_chunks, checkpoint_layers;
    bool spill;
};

static const struct way standard = { .mode = LS_TRAIN_STANDARD };

/* M in {1, 2, 3, 7, n} of blocks, of the MLP and of the head, and mixed. */
static const struct way ways[] = {
    { .mode = LS_TRAIN_STANDARD, .head_chunks = 3 },
    { .mode = LS_TRAIN_RECOMPUTE },
    { .mode = LS_TRAIN_RECOMPUTE, .spill = true },
    { .mode = LS_TRAIN_MST },
    { .mode = LS_TRAIN_MST, .mlp_chunks = 1, .head_chunks = 1 },
    { .mode = LS_TRAIN_MST, .mlp_chunks = 2, .head_chunks = 3 },
    { .mode = LS_TRAIN_MST, .mlp_chunks = 7, .head_chunks = 2 },
    { .mode = LS_TRAIN_MST, .mlp_chunks = N, .head_chunks = 7 },
    { .mode = LS_TRAIN_MST, .mlp_chunks = 3, .head_chunks = N },
    { .mode = LS_TRAIN_SWEEP },
    { .mode = LS_TRAIN_SWEEP, .block = N, .head_chunks = 1 },
    { .mode = LS_TRAIN_SWEEP, .block = 31, .head_chunks = 2 },
    { .mode = LS_TRAIN_SWEEP, .block = 21, .head_chunks = 3 },
    { .mode = LS_TRAIN_SWEEP, .block = 9, .head_chunks = 7 },
    { .mode = LS_TRAIN_SWEEP, .block = 9, .spill = true },
    { .mode = LS_TRAIN_SWEEP, .block = 1, .head_chunks = N },
    { .mode = LS_TRAIN_SWEEP, .block = 1, .spill = true },
    { .mode = LS_TRAIN_SWEEP, .block = 31, .mlp_chunks = 7, .head_chunks = 1 },
    { .mode = LS_TRAIN_SWEEP, .block = 21, .mlp_chunks = N, .spill = true },
    { .mode = LS_TRAIN_RECOMPUTE, .checkpoint_layers = 2 },
    { .mode = LS_TRAIN_SWEEP, .block = 9, .checkpoint_layers = 2 },
    { .mode = LS_TRAIN_SWEEP, .block = 17, .checkpoint_layers = 2, .spill = true },
    { .mode = LS_TRAIN_SWEEP, .block = 31, .checkpoint_layers = 99 },
};

static void set_way(ls_train_options *o, const struct way *w)
{
    o->mode = w->mode;
    o->block = w->block;
    o->mlp_chunks = w->mlp_chunks;
    o->head_chunks = w->head_chunks;
    o->checkpoint_layers = w->checkpoint_layers;
    o->spill = w->spill ? dir : NULL;
}

static const char *way_text(const struct way *w)
{
    static const char *const names[] = { "sweep", "standard", "recompute", "mst" };
    static char text[140];
    snprintf(text, sizeof text, "%s block %zu, MLP in %zu, head in %zu, %zu layers a checkpoint%s",
             names[w->mode], w->block, w->mlp_chunks, w->head_chunks, w->checkpoint_layers,
             w->spill ? ", spilled" : "");
    return text;
}

static struct small_result gradients_of(const ls_train_options *o, const ls_train_sequence *s)
{
    ls_trainer *t = small_trainer(o, 5);
    struct small_result r = small_gradients(t, s, 1);
    ls_trainer_free(t);
    return r;
}

/* ---- the same gradients ----------------------------------------------------------------------- */

struct bounds {
    double loss, whole, norm, distance, element;
};

/*
 * fp32: the order of additions alone, up to a row at a time. bf16: a value that is rounded on the way may
 * turn over to its neighbour, and in tensors as small as these little of that averages out; the error against
 * fp32 must not be greater for it.
 */
static const struct bounds fp32_bounds = { 5e-7, 1e-6, 1e-6, 3e-6, 4e-6 };
static const struct bounds bf16_bounds = { 1e-3, 1e-3, 0x1p-7, 0x1p-5, 0x1p-5 };
#define WORSE 1.5

struct wanted {
    struct small_result standard; /* the plain computation in the type that is tested */
    struct small_result exact;    /* and in fp32 */
    double distance;              /* between them */
};

static struct wanted want_of(const ls_train_options *options, const ls_train_sequence *s)
{
    struct wanted w;
    ls_train_options o = *options;
    set_way(&o, &standard);
    w.standard = gradients_of(&o, s);
    o.dtype = LS_TRAIN_FP32;
    ls_trainer *t = small_trainer(&o, 5);
    w.exact = small_gradients(t, s, 1);
    w.distance = small_compare(t, &w.standard, &w.exact).distance;
    CHECK(isfinite(w.exact.loss) && w.exact.loss > 1 && w.distance < 0.1);
    ls_trainer_free(t);
    return w;
}

static void want_free(struct wanted *w)
{
    small_free(&w->standard);
    small_free(&w->exact);
}

static void check_way(const struct wanted *want, const ls_train_options *o, const struct way *w,
                      const ls_train_sequence *s, const char *name)
{
    const bool fp32 = o->dtype == LS_TRAIN_FP32;
    const struct bounds *b = fp32 ? &fp32_bounds : &bf16_bounds;
    ls_trainer *t = small_trainer(o, 5);
    struct small_result got = small_gradients(t, s, 1);
    const struct small_difference d = small_compare(t, &got, &want->standard);
    const double exact = small_compare(t, &got, &want->exact).distance;
    const bool right = d.loss <= b->loss && d.whole <= b->whole && d.norm <= b->norm &&
                       d.distance <= b->distance && d.element <= b->element &&
                       (fp32 || exact <= WORSE * want->distance);
    if (!right || getenv("LS_TEST_VERBOSE"))
        fprintf(
            stderr,
            "  %s, %s, %s: loss %.2g, norm %.2g, of a tensor %.2g (%s), distance %.2g, element %.2g, from "
            "fp32 %.2g (%.2g)\n",
            name, fp32 ? "fp32" : "bf16", way_text(w), d.loss, d.whole, d.norm, d.tensor, d.distance,
            d.element, exact, want->distance);
    CHECK(right);
    small_free(&got);
    ls_trainer_free(t);
}

static void check_every_way(ls_train_options *o, const ls_train_sequence *s, const char *name)
{
    struct wanted want = want_of(o, s);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        set_way(o, &ways[i]);
        check_way(&want, o, &ways[i], s, name);
    }
    want_free(&want);
}

static void check_model(const struct small_model *m, ls_train_dtype dtype, size_t n_docs, size_t lora_rank)
{
    struct small_batch b;
    ls_train_options o = small_options(small_config_path(dir, m->config), N);
    o.dtype = dtype;
    o.lora_rank = lora_rank;
    small_sequence(&b, N, V, n_docs, 0.2, 3);
    check_every_way(&o, &b.s, m->name);
}

static void test_every_way_fp32(void)
{
    for (size_t i = 0; i < small_n_models; i++)
        check_model(&small_models[i], LS_TRAIN_FP32, 0, 0);
}

static void test_every_way_bf16(void)
{
    for (size_t i = 0; i < small_n_models; i++)
        check_model(&small_models[i], LS_TRAIN_BF16, 0, 0);
}

static void test_every_way_packed(void)
{
    for (size_t i = 0; i < small_n_models; i++)
        check_model(&small_models[i], i % 2 ? LS_TRAIN_BF16 : LS_TRAIN_FP32, 2 + i, 0);
}

static void test_every_way_adapters(void)
{
    check_model(&small_models[0], LS_TRAIN_FP32, 0, 5);
    check_model(&small_models[5], LS_TRAIN_BF16, 3, 5);
    check_model(&small_models[0], LS_TRAIN_FP32, 0, 300); /* a rank above every width of the model */
}

/* A trainer made for more: one block is shorter than a sequence, or longer. */
static void test_short_sequences(void)
{
    static const size_t lengths[] = { 1, 2, 8, 9, 10, 27 };
    const char *config = small_config_path(dir, small_find("qwen3"));
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct small_batch b;
        ls_train_options o = small_options(config, N);
        small_sequence(&b, lengths[i], V, 0, 0, 3);
        b.labels[lengths[i] - 1] = 7;
        check_every_way(&o, &b.s, "qwen3");
    }
}

/* Layers between two checkpoints are computed again from the same bits: nothing at all changes. */
static void test_checkpoint_layers_bits(void)
{
    static const char config[] = "{\"model_type\": \"llama\", \"hidden_size\": 32, \"intermediate_size\": "
                                 "48, \"num_hidden_layers\": 7, "
                                 "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": "
                                 "83, \"rms_norm_eps\": 1e-05, "
                                 "\"tie_word_embeddings\": true, \"max_position_embeddings\": 128}";
    static const size_t layers[] = { 2, 3, 4, 6, 8 };
    const char *path = small_config_path(dir, config);
    struct small_batch b;
    small_sequence(&b, N, V, 3, 0.1, 3);
    for (int i = 0; i < 4; i++) {
        ls_train_options o = small_options(path, N);
        o.block = i / 2 ? 9 : 0;
        o.dtype = i % 2 ? LS_TRAIN_BF16 : LS_TRAIN_FP32;
        o.checkpoint_layers = 1;
        struct small_result want = gradients_of(&o, &b.s);
        for (size_t k = 0; k < LSI_LEN(layers); k++) {
            o.checkpoint_layers = layers[k];
            o.spill = k % 2 == (size_t)(i % 2) ? dir : NULL;
            struct small_result got = gradients_of(&o, &b.s);
            CHECK_MEM(got.values, got.n * sizeof(float), want.values, want.n * sizeof(float));
            CHECK(got.loss == want.loss);
            small_free(&got);
        }
        small_free(&want);
    }
}

/* Left to the trainer, as many as a limit asks for, and no more; what was chosen is what is allocated. */
static void test_checkpoint_layers_chosen(void)
{
    static const char config[] = "{\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": "
                                 "48, \"num_hidden_layers\": 30, "
                                 "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"vocab_size\": "
                                 "83, \"rms_norm_eps\": 1e-05, "
                                 "\"tie_word_embeddings\": true, \"max_position_embeddings\": 8192}";
    ls_train_options o = small_options(small_config_path(dir, config), 4096);
    ls_train_plan plan = { .struct_size = sizeof plan };
    uint64_t bytes[7];
    ls_error err = { 0 };
    ls_trainer *t = NULL;
    for (size_t n = 1; n < 7; n++) {
        o.checkpoint_layers = n;
        REQUIRE_OK(ls_train_get_plan(&o, &plan, &err), err);
        CHECK_INT(plan.checkpoint_layers, n);
        bytes[n] = plan.total_bytes;
        CHECK(n == 1 || n == 6 || bytes[n] < bytes[n - 1]);
    }
    o.checkpoint_layers = 0;
    for (size_t n = 1; n < 6; n++) {
        o.memory = bytes[n];
        REQUIRE_OK(ls_trainer_create(&o, &t, &err), err);
        ls_trainer_get_plan(t, &plan);
        CHECK_INT(plan.checkpoint_layers, n);
        CHECK_INT(t->states.cap + t->work.cap + t->exec.scratch.cap, bytes[n]);
        ls_trainer_free(t);
    }
    o.memory = bytes[5] - 1;
    CHECK_INT(ls_trainer_create(&o, &t, &err), LS_E_NOMEM);
    o.mode = LS_TRAIN_STANDARD;
    o.checkpoint_layers = 2;
    CHECK_INT(ls_trainer_create(&o, &t, &err), LS_E_INVAL);
    CHECK(strstr(err.text, "another mode") != NULL);
}

static void test_spilled_bits(void)
{
    static const struct way some[] = { { .mode = LS_TRAIN_SWEEP, .block = 9 },
                                       { .mode = LS_TRAIN_RECOMPUTE },
                                       { .mode = LS_TRAIN_MST, .mlp_chunks = 3 } };
    const char *config = small_config_path(dir, small_find("gemma3"));
    struct small_batch b;
    small_sequence(&b, N, V, 3, 0.1, 3);
    for (size_t i = 0; i < 2 * sizeof some / sizeof *some; i++) {
        ls_train_options o = small_options(config, N);
        set_way(&o, &some[i / 2]);
        o.dtype = i % 2 ? LS_TRAIN_BF16 : LS_TRAIN_FP32;
        struct small_result want = gradients_of(&o, &b.s);
        o.spill = dir;
        struct small_result got = gradients_of(&o, &b.s);
        CHECK_MEM(got.values, got.n * sizeof(float), want.values, want.n * sizeof(float));
        CHECK(got.loss == want.loss);
        small_free(&want);
        small_free(&got);
    }
}

/* ---- labels ---------------------------------------------------------------------------------------- */

static void ignore_rows(struct small_batch *b, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        b->labels[i] = LS_TRAIN_IGNORE;
}

/* Loss 0, gradients 0, and a step that is decay alone. */
static void test_all_ignored(void)
{
    const char *config = small_config_path(dir, small_find("llama tied"));
    const double lr = 0.125, decay = 0.25;
    for (size_t i = 0; i < 2 * sizeof ways / sizeof *ways; i++) {
        struct small_batch b;
        ls_error err = { 0 };
        ls_train_step step = { .struct_size = sizeof step };
        ls_train_options o = small_options(config, N);
        set_way(&o, &ways[i / 2]);
        o.weight_decay = decay;
        o.clip = i % 2; /* with gradients resident and without */
        small_sequence(&b, N, V, 2, 0, 3);
        ignore_rows(&b, 0, N);
        ls_trainer *t = small_trainer(&o, 5);
        struct small_result before = small_weights(t);
        REQUIRE_OK(ls_trainer_step(t, &b.s, 1, lr, &step, &err), err);
        struct small_result after = small_weights(t);
        CHECK(step.loss == 0 && step.grad_norm == 0);
        CHECK_INT(step.valid_labels, 0);
        const float *w = before.values, *now = after.values;
        size_t wrong = 0;
        for (size_t k = 0; k < t->params.n; k++) {
            const struct lsi_param *p = &t->params.list[k];
            const double keep = p->decay ? 1 - lr * decay : 1;
            for (size_t j = 0; j < 2 * p->n; j++, w++, now++)
                wrong += !(fabs(*now - keep * *w) <= 1e-6 * fabs(*w));
        }
        CHECK_INT(wrong, 0);
        small_free(&before);
        small_free(&after);
        ls_trainer_free(t);
    }
}

/* Whole blocks and pieces of the head without a label, and a single one. */
static void test_ignored_blocks(void)
{
    const char *config = small_config_path(dir, small_find("llama untied"));
    for (int single = 0; single < 2; single++) {
        struct small_batch b;
        ls_train_options o = small_options(config, N);
        small_sequence(&b, N, V, 0, 0, 3);
        ignore_rows(&b, 0, 22);
        ignore_rows(&b, single ? 23 : 27, N);
        CHECK(b.labels[22] >= 0);
        check_every_way(&o, &b.s, single ? "one label" : "five labels");
    }
}

/* The labels cut in P parts, of unequal numbers of valid ones: the sums are the sum. */
static void test_cuts(void)
{
    const char *config = small_config_path(dir, small_find("mistral"));
    ls_train_options o = small_options(config, N);
    struct small_batch whole;
    ls_error err = { 0 };
    double all;
    uint64_t n_all;
    o.block = 9;
    small_sequence(&whole, N, V, 0, 0.5, 3);
    ignore_rows(&whole, 0, 10);
    ls_trainer *t = small_trainer(&o, 5);
    REQUIRE_OK(ls_trainer_eval(t, &whole.s, &all, &n_all, &err), err);
    struct small_result want = small_gradients(t, &whole.s, 1);
    CHECK_NEAR(want.loss, all / (double)n_all, 1e-12 * all);
    for (size_t P = 1; P <= 8; P *= 2) {
        static struct small_batch part[8];
        ls_train_sequence seqs[8];
        double sum = 0;
        uint64_t n_valid = 0;
        for (size_t p = 0; p < P; p++) {
            double loss;
            uint64_t n;
            small_sequence(&part[p], N, V, 0, 0.5, 3);
            ignore_rows(&part[p], 0, lsi_max_size(10, p * N / P));
            ignore_rows(&part[p], (p + 1) * N / P, N);
            seqs[p] = part[p].s;
            REQUIRE_OK(ls_trainer_eval(t, &seqs[p], &loss, &n, &err), err);
            sum += loss;
            n_valid += n;
        }
        CHECK_INT(n_valid, n_all);
        CHECK_NEAR(sum, all, 5e-7 * all);
        struct small_result got = small_gradients(t, seqs, P);
        const struct small_difference d = small_compare(t, &got, &want);
        CHECK(d.loss <= fp32_bounds.loss && d.distance <= fp32_bounds.distance);
        small_free(&got);
    }
    small_free(&want);
    ls_trainer_free(t);
}

/* Gradients of sequences one by one, weighted by their valid labels, are those of all together. */
static void test_accumulation(void)
{
    static const double ignored[] = { 0, 0.9, 0.4, 1 };
    enum {
        K = 4
    };
    const char *config = small_config_path(dir, small_find("qwen2"));
    for (size_t i = 0; i < 4; i++) {
        static struct small_batch b[K];
        ls_train_sequence seqs[K];
        struct small_result one[K];
        double n_valid[K] = { 0 }, all = 0, loss = 0;
        ls_train_options o = small_options(config, N);
        o.mode = (ls_train_mode)i;
        o.block = 9;
        o.accumulate = K;
        ls_trainer *t = small_trainer(&o, 5);
        for (size_t k = 0; k < K; k++) {
            small_sequence(&b[k], N - 11 * k, V, k % 2 ? 0 : 2, ignored[k], 40 + k);
            seqs[k] = b[k].s;
            for (size_t r = 0; r < b[k].s.n; r++)
                n_valid[k] += b[k].labels[r] >= 0;
            one[k] = small_gradients(t, &seqs[k], 1);
            all += n_valid[k];
            loss += n_valid[k] * one[k].loss;
        }
        struct small_result got = small_gradients(t, seqs, K);
        for (size_t j = 0; j < got.n; j++) {
            double sum = 0;
            for (size_t k = 0; k < K; k++)
                sum += n_valid[k] / all * (double)one[k].values[j];
            one[0].values[j] = (float)sum;
        }
        one[0].loss = loss / all;
        const struct small_difference d = small_compare(t, &got, &one[0]);
        CHECK(d.loss <= 1e-12);
        CHECK(d.distance <= fp32_bounds.distance);
        for (size_t k = 0; k < K; k++)
            small_free(&one[k]);
        small_free(&got);
        ls_trainer_free(t);
    }
}

/* Documents packed in one sequence, or each a sequence of its own. */
static void test_packed_is_separate(void)
{
    for (size_t i = 0; i < 2 * small_n_models; i++) {
        const bool bf16 = i % 2;
        struct small_batch b;
        ls_train_sequence docs[4];
        ls_train_options o = small_options(small_config_path(dir, small_models[i / 2].config), N);
        o.dtype = bf16 ? LS_TRAIN_BF16 : LS_TRAIN_FP32;
        o.block = 10;
        small_sequence(&b, N, V, 4, 0.3, 17);
        for (size_t d = 0; d < 4; d++)
            docs[d] = (ls_train_sequence){ .tokens = b.tokens + b.doc_start[d],
                                           .labels = b.labels + b.doc_start[d],
                                           .n = b.doc_start[d + 1] - b.doc_start[d] };
        ls_trainer *t = small_trainer(&o, 5);
        struct small_result packed = small_gradients(t, &b.s, 1);
        struct small_result separate = small_gradients(t, docs, 4);
        const struct small_difference d = small_compare(t, &packed, &separate);
        const struct bounds *bounds = bf16 ? &bf16_bounds : &fp32_bounds;
        CHECK(d.loss <= bounds->loss && d.whole <= bounds->whole);
        CHECK(d.distance <= bounds->distance);
        small_free(&packed);
        small_free(&separate);
        ls_trainer_free(t);
    }
}

/* ---- the same bits ----------------------------------------------------------------------------------- */

/* Weights after three steps of 1e-2. */
static struct small_result stepped(const ls_train_options *o, double *grad_norm)
{
    ls_trainer *t = small_trainer(o, 5);
    ls_error err = { 0 };
    for (uint64_t i = 0; i < 3; i++) {
        struct small_batch b;
        ls_train_step step = { .struct_size = sizeof step };
        small_sequence(&b, N, V, i, 0.1, 90 + i);
        REQUIRE_OK(ls_trainer_step(t, &b.s, 1, 1e-2, &step, &err), err);
        CHECK_INT(step.step, i + 1);
        grad_norm[i] = step.grad_norm;
    }
    struct small_result r = small_weights(t);
    ls_trainer_free(t);
    return r;
}

static void check_same_steps(const ls_train_options *a, const ls_train_options *b, double norm_bound)
{
    double norm_a[3], norm_b[3];
    struct small_result x = stepped(a, norm_a), y = stepped(b, norm_b);
    CHECK_MEM(y.values, y.n * sizeof(float), x.values, x.n * sizeof(float));
    for (int i = 0; i < 3; i++)
        CHECK_NEAR(norm_b[i] / norm_a[i], 1, norm_bound);
    small_free(&x);
    small_free(&y);
}

static void test_threads(void)
{
    static const struct {
        ls_train_dtype dtype;
        ls_train_weights weights;
        ls_train_moments moments;
    } numbers[] = {
        { LS_TRAIN_FP32, LS_TRAIN_MASTER, LS_TRAIN_MOMENTS_FP32 },
        { LS_TRAIN_BF16, LS_TRAIN_MASTER, LS_TRAIN_MOMENTS_BF16 },
        { LS_TRAIN_BF16, LS_TRAIN_PURE, LS_TRAIN_MOMENTS_Q8 },
    };
    for (size_t i = 0; i < 4 * 3; i++)
        for (int clip = 0; clip < 2; clip++) {
            const char *config = small_config_path(dir, small_models[i % small_n_models].config);
            ls_train_options one = small_options(config, N), more;
            one.mode = (ls_train_mode)(i / 3);
            one.block = 17;
            one.dtype = numbers[i % 3].dtype;
            one.weights = numbers[i % 3].weights;
            one.moments = numbers[i % 3].moments;
            one.clip = clip;
            one.n_threads = 1;
            more = one;
            for (more.n_threads = 2; more.n_threads <= 3; more.n_threads++)
                check_same_steps(&one, &more, 0);
        }
}

/* Stepped in the backward pass, layer by layer, or all at the end. */
static void test_stepping_in_the_sweep(void)
{
    for (size_t i = 0; i < 2 * small_n_models; i++) {
        ls_train_options at_end = small_options(small_config_path(dir, small_models[i / 2].config), N), early;
        at_end.block = 17;
        at_end.clip = 1e30; /* gradients stay, and are not made smaller */
        at_end.dtype = i % 2 ? LS_TRAIN_BF16 : LS_TRAIN_FP32;
        at_end.mode = i % 3 == 2 ? LS_TRAIN_RECOMPUTE : LS_TRAIN_SWEEP;
        at_end.weights = i % 4 == 3 ? LS_TRAIN_PURE : LS_TRAIN_MASTER;
        early = at_end;
        early.clip = 0;
        check_same_steps(&at_end, &early, 1e-6);
    }
}

/* ---- memory ----------------------------------------------------------------------------------------------
 */

struct counted {
    size_t greatest, now, peak;
};

static void *count_alloc(void *user, size_t bytes)
{
    struct counted *c = user;
    void *p = aligned_alloc(64, lsi_round_up(bytes, 64));
    if (!p)
        return NULL;
    c->greatest = lsi_max_size(c->greatest, bytes);
    c->now += bytes;
    c->peak = lsi_max_size(c->peak, c->now);
    return p;
}

static void count_free(void *user, void *ptr, size_t bytes)
{
    struct counted *c = user;
    if (ptr)
        c->now -= bytes;
    free(ptr);
}

static void check_planned(const ls_train_options *o)
{
    ls_train_plan before = { .struct_size = sizeof before }, after = before;
    ls_error err = { 0 };
    REQUIRE_OK(ls_train_get_plan(o, &before, &err), err);
    ls_trainer *t = NULL;
    REQUIRE_OK(ls_trainer_create(o, &t, &err), err);
    ls_trainer_get_plan(t, &after);
    CHECK_MEM(&after, sizeof after, &before, sizeof before);
    CHECK_INT(t->states.used, t->states.cap);
    CHECK_INT(t->work.used, t->work.cap);
    CHECK_INT(t->states.cap + t->work.cap + t->exec.scratch.cap, after.total_bytes);
    CHECK_INT(after.scratch_bytes, t->exec.scratch.cap);
    CHECK_INT(after.weights_bytes + after.master_bytes + after.moments_bytes + after.gradient_bytes,
              t->states.cap);
    const uint64_t loop = after.block_bytes + after.dkv_bytes,
                   shared = loop > after.head_bytes ? loop : after.head_bytes;
    CHECK_INT(after.checkpoint_bytes + after.rows_bytes + after.kv_bytes + after.kept_bytes + shared,
              t->work.cap);
    CHECK_INT(after.spill_bytes > 0, o->spill != NULL);
    ls_trainer_free(t);
}

static void test_planned_is_allocated(void)
{
    for (size_t i = 0; i < small_n_models; i++)
        for (size_t k = 0; k < sizeof ways / sizeof *ways; k++)
            for (size_t j = 0; j < 2; j++) { /* over the models every way meets all numbers */
                const size_t numbers = (i + k + j) % 4;
                ls_train_options o = small_options(small_config_path(dir, small_models[i].config), N);
                set_way(&o, &ways[k]);
                o.dtype = numbers ? LS_TRAIN_BF16 : LS_TRAIN_FP32;
                o.weights = numbers == 2 ? LS_TRAIN_PURE : LS_TRAIN_MASTER;
                o.moments = (ls_train_moments)(numbers % 3);
                o.lora_rank = numbers == 3 ? 3 : 0;
                o.clip = k % 2;
                check_planned(&o);
            }
}

/* Every byte that is planned is asked of the allocator; a limit is kept before that. */
static void test_memory_limit(void)
{
    static const struct {
        struct way way;
        const char *advice;
    } cases[] = {
        { { .mode = LS_TRAIN_STANDARD }, "take the mode sweep" },
        { { .mode = LS_TRAIN_SWEEP }, "spill" },
        { { .mode = LS_TRAIN_SWEEP, .spill = true }, "fewer tokens" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct counted c = { 0 };
        const ls_alloc alloc = { count_alloc, count_free, &c };
        ls_train_options o = small_options(small_config_path(dir, small_find("llama untied")), 1500);
        ls_train_plan plan = { .struct_size = sizeof plan };
        ls_error err = { 0 };
        ls_trainer *t = NULL;
        o.alloc = &alloc;
        set_way(&o, &cases[i].way);
        REQUIRE_OK(ls_train_get_plan(&o, &plan, &err), err);
        CHECK(c.peak < plan.total_bytes / 20);
        o.memory = plan.total_bytes - 1;
        CHECK_INT(ls_trainer_create(&o, &t, &err), LS_E_NOMEM);
        CHECK(t == NULL);
        CHECK(strstr(err.text, cases[i].advice) != NULL);
        CHECK(c.peak < plan.total_bytes / 20);
        CHECK_INT(c.now, 0);
        o.memory = plan.total_bytes;
        REQUIRE_OK(ls_trainer_create(&o, &t, &err), err);
        CHECK(c.now >= plan.total_bytes);
        CHECK(c.now - plan.total_bytes < plan.total_bytes / 20);
        ls_trainer_free(t);
        CHECK_INT(c.now, 0);
    }
}

/* The sizes of SmolLM2-135M. */
static void test_bytes_per_token(void)
{
    static const char config[] =
        "{\"model_type\": \"llama\", \"hidden_size\": 576, \"intermediate_size\": 1536, "
        "\"num_hidden_layers\": 30, \"num_attention_heads\": 9, \"num_key_value_heads\": 3, "
        "\"vocab_size\": 49152, \"rms_norm_eps\": 1e-05, \"tie_word_embeddings\": true, "
        "\"max_position_embeddings\": 8192}";
    const double C = 576, L = 30, G = 3, D = 64;
    const char *path = small_config_path(dir, config);
    for (int i = 0; i < 4; i++) {
        const double row = i / 2 ? 4 : 2; /* bytes of a value of a row, of keys and values */
        ls_train_options o = small_options(path, 65536);
        ls_train_plan plan = { .struct_size = sizeof plan }, longer = plan;
        ls_error err = { 0 };
        o.dtype = i / 2 ? LS_TRAIN_FP32 : LS_TRAIN_BF16;
        o.spill = i % 2 ? dir : NULL;
        const double want = row * C * (o.spill ? 1 : L + 1) + (2 * row + 8) * G * D;
        REQUIRE_OK(ls_train_get_plan(&o, &plan, &err), err);
        o.seq *= 4;
        REQUIRE_OK(ls_train_get_plan(&o, &longer, &err), err);
        const double slope = (double)(longer.total_bytes - plan.total_bytes) / (3 * 65536.0);
        CHECK_NEAR(plan.bytes_per_token / want, 1, 0.02);
        CHECK_NEAR(slope / want, 1, 0.02);
        CHECK_NEAR((double)plan.spill_bytes, o.spill ? row * C * L * 65536 : 0, 1);
    }
}

/* ---- what goes wrong ----------------------------------------------------------------------------------- */

/* Every matrix and vector in turn: the sentence says where it is. With resident gradients nothing is stepped.
 */
static void test_not_finite(void)
{
    struct small_batch b;
    ls_train_options o = small_options(small_config_path(dir, small_find("gemma3")), N);
    o.block = 17;
    small_sequence(&b, N, V, 0, 0, 3);
    for (int i = 0; i < 4; i++) {
        o.dtype = i / 2 ? LS_TRAIN_BF16 : LS_TRAIN_FP32;
        o.clip = i % 2;
        ls_trainer *t = small_trainer(&o, 5);
        for (size_t k = 0; k < t->params.n; k++) {
            struct lsi_param *p = &t->params.list[k];
            ls_train_step step = { .struct_size = sizeof step };
            ls_error err = { 0 };
            const size_t at = p->role == LSI_ROLE_TOKEN_EMBD ? (size_t)b.tokens[3] * p->cols : p->n / 2;
            const float nan = NAN;
            float value;
            lsi_param_get(p, at, &value, 1);
            lsi_param_set(p, at, &nan, 1);
            struct small_result before = small_weights(t);
            CHECK_INT(ls_trainer_step(t, &b.s, 1, 1e-3, &step, &err), LS_E_NUMERIC);
            if (!strstr(err.text, p->name))
                fprintf(stderr, "  %s: %s\n", p->name, err.text);
            CHECK(strstr(err.text, p->name) != NULL);
            struct small_result after = small_weights(t);
            if (o.clip > 0)
                CHECK_MEM(after.values, after.n * sizeof(float), before.values, before.n * sizeof(float));
            CHECK_INT(t->steps, 0);
            lsi_param_set(p, at, &value, 1);
            small_free(&before);
            small_free(&after);
        }
        ls_trainer_free(t);
    }
}

struct stop {
    size_t after;
    size_t done, total;
    volatile int cancel;
};

static void stop_later(void *user, size_t done, size_t total)
{
    struct stop *s = user;
    CHECK(done <= total);
    s->done = done;
    s->total = total;
    if (s->after > 0 && --s->after == 0)
        s->cancel = 1;
}

/* Given up at any moment, a step leaves weights, moments and their count alone: the next is as if it had
 * been the first. */
static void test_cancel(void)
{
    struct small_batch b;
    struct stop stop = { 0 };
    ls_train_options o = small_options(small_config_path(dir, small_find("llama tied")), N);
    ls_error err = { 0 };
    ls_train_step step = { .struct_size = sizeof step };
    o.block = 17;
    o.spill = dir;
    o.on_rows = stop_later;
    o.user = &stop;
    o.cancel = &stop.cancel;
    small_sequence(&b, N, V, 0, 0, 3);
    ls_trainer *t = small_trainer(&o, 5);
    struct small_result before = small_weights(t);
    size_t n_stopped = 0;
    for (size_t i = 1; i < 1000; i += 3) {
        stop.after = i;
        stop.cancel = 0;
        const ls_status st = ls_trainer_step(t, &b.s, 1, 1e-3, &step, &err);
        if (st == LS_OK)
            break;
        CHECK_INT(st, LS_E_CANCELED);
        CHECK(stop.done < stop.total);
        struct small_result after = small_weights(t);
        CHECK_MEM(after.values, after.n * sizeof(float), before.values, before.n * sizeof(float));
        small_free(&after);
        n_stopped++;
    }
    CHECK(n_stopped > 5);
    CHECK_INT(stop.done, stop.total);
    CHECK_INT(t->steps, 1);
    struct small_result got = small_weights(t);
    ls_trainer_free(t);
    stop = (struct stop){ 0 };
    t = small_trainer(&o, 5);
    REQUIRE_OK(ls_trainer_step(t, &b.s, 1, 1e-3, &step, &err), err);
    struct small_result want = small_weights(t);
    CHECK_MEM(got.values, got.n * sizeof(float), want.values, want.n * sizeof(float));
    small_free(&before);
    small_free(&got);
    small_free(&want);
    ls_trainer_free(t);
}

static void test_refused(void)
{
    struct small_batch b;
    ls_train_options o = small_options(small_config_path(dir, small_find("llama tied")), N);
    ls_train_step step = { .struct_size = sizeof step };
    ls_error err = { 0 };
    size_t borders[] = { 0, 30, 30, N };
    ls_trainer *t = small_trainer(&o, 5);
    small_sequence(&b, N, V, 0, 0, 3);
    b.labels[60] = V;
    CHECK_INT(ls_trainer_step(t, &b.s, 1, 0, &step, &err), LS_E_INVAL);
    b.labels[60] = 0;
    b.tokens[0] = -1;
    CHECK_INT(ls_trainer_step(t, &b.s, 1, 0, &step, &err), LS_E_INVAL);
    b.tokens[0] = 0;
    b.s.doc_start = borders;
    b.s.n_docs = 3;
    CHECK_INT(ls_trainer_step(t, &b.s, 1, 0, &step, &err), LS_E_INVAL);
    borders[2] = N;
    CHECK_INT(ls_trainer_step(t, &b.s, 1, 0, &step, &err), LS_E_INVAL);
    b.s.n_docs = 2;
    REQUIRE_OK(ls_trainer_step(t, &b.s, 1, 0, &step, &err), err);
    b.s.n = N + 1;
    CHECK_INT(ls_trainer_step(t, &b.s, 1, 0, &step, &err), LS_E_INVAL);
    b.s.n = 0;
    CHECK_INT(ls_trainer_step(t, &b.s, 1, 0, &step, &err), LS_E_INVAL);
    CHECK_INT(ls_trainer_step(t, &b.s, 0, 0, &step, &err), LS_E_INVAL);
    ls_trainer_free(t);
    o.mode = LS_TRAIN_STANDARD;
    o.spill = dir;
    CHECK_INT(ls_trainer_create(&o, &t, &err), LS_E_INVAL);
    o.spill = NULL;
    o.head_chunks = N + 1;
    CHECK_INT(ls_trainer_create(&o, &t, &err), LS_E_INVAL);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_every_way_fp32),
        TEST(test_every_way_bf16),
        TEST(test_every_way_packed),
        TEST(test_every_way_adapters),
        TEST(test_short_sequences),
        TEST(test_checkpoint_layers_bits),
        TEST(test_checkpoint_layers_chosen),
        TEST(test_spilled_bits),
        TEST(test_all_ignored),
        TEST(test_ignored_blocks),
        TEST(test_cuts),
        TEST(test_accumulation),
        TEST(test_packed_is_separate),
        TEST(test_threads),
        TEST(test_stepping_in_the_sweep),
        TEST(test_planned_is_allocated),
        TEST(test_memory_limit),
        TEST(test_bytes_per_token),
        TEST(test_not_finite),
        TEST(test_cancel),
        TEST(test_refused),
    };
    tiny_dir(dir, sizeof dir);
    const int status = test_main(tests, sizeof tests / sizeof *tests, argc, argv);
    tiny_remove(dir);
    return status;
}
