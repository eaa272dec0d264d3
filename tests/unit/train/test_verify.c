/* A mode against the standard computation, and the gradients that are written for others to look at. */
#include "data_files.h"

#include <sys/stat.h>

#include "formats/safetensors.h"

#define MODEL LS_SOURCE_DIR "/tests/data/models/smollm2"

static char dir[512];

struct told {
    ls_train_verify_step steps[8];
    size_t n;
};

static void keep_step(void *user, const ls_train_verify_step *step)
{
    struct told *t = user;
    REQUIRE(t->n < LSI_LEN(t->steps));
    t->steps[t->n++] = *step;
}

static const char *write_data(void)
{
    struct lsi_buf b;
    lsi_buf_init(&b, NULL, 1 << 20);
    for (int i = 0; i < 40; i++)
        lsi_buf_printf(&b, "{\"text\": \"the number %d and %d more of the same kind\"}\n", i * i * 37, i);
    const char *path = write_text(dir, "verify.jsonl", b.data);
    lsi_buf_fini(&b);
    return path;
}

static ls_train_options verify_options(const char *const *data)
{
    ls_train_options o;
    ls_train_options_defaults(&o);
    o.model = MODEL;
    o.data = data;
    o.n_data = 1;
    o.seq = 60;
    o.steps = 2;
    o.lr = 1e-3;
    o.block = 16;
    o.n_threads = 1;
    o.dtype = LS_TRAIN_FP32;
    return o;
}

static void test_modes(void)
{
    static const ls_train_mode modes[] = { LS_TRAIN_SWEEP, LS_TRAIN_RECOMPUTE, LS_TRAIN_MST };
    const char *data = write_data();
    for (size_t i = 0; i < LSI_LEN(modes) * 4; i++) {
        ls_train_options o = verify_options(&data);
        ls_train_verify_result r = { .struct_size = sizeof r };
        struct told told = { .n = 0 };
        ls_error err = { 0 };
        o.mode = modes[i / 4];
        o.dtype = i % 2 ? LS_TRAIN_BF16 : LS_TRAIN_FP32;
        o.clip = i / 2 % 2 ? 0 : 1; /* without clipping layers are stepped in the sweep */
        REQUIRE_OK(ls_train_verify(&o, NULL, keep_step, &told, &r, &err), err);
        CHECK_INT(told.n, 3);
        CHECK(r.passed);
        for (size_t k = 0; k < told.n; k++) {
            const ls_train_verify_step *s = &told.steps[k];
            CHECK_INT(s->step, k);
            CHECK(s->loss > 1 && s->grad_norm > 0);
            CHECK_NEAR(s->loss, s->standard_loss, r.step_tolerance * s->standard_loss);
        }
        CHECK(told.steps[2].loss < told.steps[0].loss); /* it learns */
        CHECK(r.weight_difference < 1e-2);
        fprintf(stderr,
                "  mode %d %s: loss %.2g norm %.2g gradient %.2g tensor %.2g step %.2g weights %.2g\n",
                (int)o.mode, o.dtype == LS_TRAIN_BF16 ? "bf16" : "fp32", r.loss_difference, r.norm_difference,
                r.gradient_difference, r.tensor_difference, r.step_loss_difference, r.weight_difference);
    }
}

/* Blocks, and a last one of few rows: what they change is the order of sums, in bf16 too. */
static void test_short_blocks(void)
{
    static const size_t blocks[] = { 1, 7, 8, 19 };
    const char *data = write_data();
    for (size_t i = 0; i < LSI_LEN(blocks) * 2; i++) {
        ls_train_options o = verify_options(&data);
        ls_train_verify_result r = { .struct_size = sizeof r };
        ls_error err = { 0 };
        o.steps = 0;
        o.block = blocks[i / 2];
        o.dtype = i % 2 ? LS_TRAIN_BF16 : LS_TRAIN_FP32;
        o.lora_rank = i / 2 % 2 ? 4 : 0;
        REQUIRE_OK(ls_train_verify(&o, NULL, NULL, NULL, &r, &err), err);
        CHECK(r.loss_difference < 1e-5);
        CHECK(r.gradient_difference < 5e-4); /* otherwise rounded: 2e-3 */
        fprintf(stderr, "  block %zu: loss %.2g gradient %.2g\n", o.block, r.loss_difference,
                r.gradient_difference);
    }
}

static void on_data(void *user, size_t done, size_t total)
{
    size_t *seen = user;
    CHECK(done > seen[0] && done <= total);
    seen[0] = done;
    seen[1] = total;
}

/* What is told of the data while they are tokenised: every byte, once. */
static void test_progress_of_data(void)
{
    const char *data = write_data();
    ls_train_options o = verify_options(&data);
    ls_train_verify_result r = { .struct_size = sizeof r };
    size_t seen[2] = { 0, 1 };
    struct stat file;
    ls_error err = { 0 };
    o.steps = 0;
    o.on_data = on_data;
    o.user = seen;
    REQUIRE_OK(ls_train_verify(&o, NULL, NULL, NULL, &r, &err), err);
    REQUIRE(stat(data, &file) == 0);
    CHECK_INT(seen[0], file.st_size);
    CHECK_INT(seen[1], file.st_size);
}

/* Every tensor of the model is there with its shape, and the values are the trainer's. */
static void test_dump(void)
{
    const char *data = write_data(), *path = tiny_path(dir, "dump.safetensors");
    ls_train_options o = verify_options(&data);
    ls_train_verify_result r = { .struct_size = sizeof r };
    struct told told = { .n = 0 };
    struct lsi_safetensors dump, model;
    ls_error err = { 0 };
    float loss;
    double squares = 0;
    o.steps = 0;
    REQUIRE_OK(ls_train_verify(&o, path, keep_step, &told, &r, &err), err);
    CHECK_INT(told.n, 1);
    CHECK_NEAR(r.weight_difference, 0, 0);
    REQUIRE_OK(lsi_st_open(&dump, path, NULL, &err), err);
    REQUIRE_OK(lsi_st_open_dir(&model, MODEL, NULL, &err), err);
    CHECK_INT(dump.n_tensors, model.n_tensors + 1);
    for (size_t i = 0; i < model.n_tensors; i++) {
        const struct lsi_st_tensor *m = &model.tensors[i], *t = lsi_st_find(&dump, m->name);
        REQUIRE(t != NULL && t->rank == m->rank && t->dtype == LSI_F32);
        CHECK_MEM(t->shape, t->rank * sizeof *t->shape, m->shape, m->rank * sizeof *m->shape);
        for (size_t k = 0; k < t->bytes / sizeof(float); k++) {
            float g;
            memcpy(&g, t->data + k * sizeof g, sizeof g);
            squares += (double)g * (double)g;
        }
    }
    const struct lsi_st_tensor *t = lsi_st_find(&dump, "loss");
    REQUIRE(t != NULL && t->rank == 0 && t->bytes == sizeof loss);
    memcpy(&loss, t->data, sizeof loss);
    CHECK_NEAR(loss, told.steps[0].loss, 1e-6 * told.steps[0].loss);
    CHECK_NEAR(sqrt(squares), told.steps[0].grad_norm, 1e-9 * told.steps[0].grad_norm);
    lsi_st_close(&dump);
    lsi_st_close(&model);
}

/* Those of an adapter have the names of PEFT's files. */
static void test_dump_adapter(void)
{
    const char *data = write_data(), *path = tiny_path(dir, "adapter.safetensors");
    ls_train_options o = verify_options(&data);
    ls_train_verify_result r = { .struct_size = sizeof r };
    struct lsi_safetensors dump;
    ls_error err = { 0 };
    o.steps = 0;
    o.lora_rank = 4;
    REQUIRE_OK(ls_train_verify(&o, path, NULL, NULL, &r, &err), err);
    REQUIRE_OK(lsi_st_open(&dump, path, NULL, &err), err);
    const struct lsi_st_tensor *t =
        lsi_st_find(&dump, "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight");
    CHECK(t != NULL && t->rank == 2 && t->shape[1] == 4);
    for (size_t i = 0; i < dump.n_tensors; i++)
        CHECK(strncmp(dump.tensors[i].name, "base_model.model.", 17) == 0 ||
              strcmp(dump.tensors[i].name, "loss") == 0);
    lsi_st_close(&dump);
}

static void test_refusals(void)
{
    const char *data = write_data();
    ls_train_options o = verify_options(&data);
    ls_train_verify_result r = { .struct_size = sizeof r };
    ls_error err = { 0 };
    const volatile int cancel = 1;
    o.cancel = &cancel;
    CHECK_INT(ls_train_verify(&o, NULL, NULL, NULL, &r, &err), LS_E_CANCELED);
    o.cancel = NULL;
    o.seq = 1 << 20;
    data = write_text(dir, "short.txt", "short");
    CHECK_INT(ls_train_verify(&o, NULL, NULL, NULL, &r, &err), LS_E_INVAL);
    o = verify_options(&data);
    o.seq = 2;
    CHECK_INT(ls_train_verify(&o, "/nowhere/dump", NULL, NULL, &r, &err), LS_E_IO);
    o.model = NULL;
    CHECK_INT(ls_train_verify(&o, NULL, NULL, NULL, &r, &err), LS_E_INVAL);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_modes), TEST(test_short_blocks), TEST(test_progress_of_data),
        TEST(test_dump),  TEST(test_dump_adapter), TEST(test_refusals)
    };
    tiny_dir(dir, sizeof dir);
    const int rc = test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
    tiny_remove(dir);
    return rc;
}
