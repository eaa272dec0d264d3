/* Checkpoints of runs: what comes back, what is refused, what happens when a disk is full or a process
 * killed. */
#include "train/state_file.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "small_params.h"
#include "faulty.h"
#include "tiny_case.h"

static char path[LSI_MODEL_PATH];
static struct lsi_config config;

static const struct lsi_setting settings[] = { { "seed", "1" }, { "dtype", "\"bf16\"" } };
static const struct lsi_state state = { .step = 123,
                                        .next_sequence = 1ull << 60,
                                        .tokens = 99,
                                        .seconds = 0.1,
                                        .loss_mean = 2.5,
                                        .data = 0xfedcba9876543210u };

static void begin(void)
{
    begin_dir();
    small_config(&config, tiny_configs[4]);
}

static void end(void)
{
    lsi_config_fini(&config);
    end_dir();
}

static ls_status save(const struct lsi_params *p, uint64_t step)
{
    struct lsi_state s = state;
    s.step = step;
    const ls_status st = lsi_state_path(path, dir, step, &err);
    return st == LS_OK ? lsi_state_save(path, p, &s, settings, LSI_LEN(settings), &err) : st;
}

static ls_status load(struct lsi_params *p, struct lsi_state *s)
{
    return lsi_state_load(path, p, s, settings, LSI_LEN(settings), &err);
}

static const struct small_spec specs[] = {
    { .dtype = LSI_F32, .moments = LSI_MOMENTS_F32 },
    { .dtype = LSI_BF16, .master = true, .moments = LSI_MOMENTS_F32 },
    { .dtype = LSI_BF16, .moments = LSI_MOMENTS_BF16 },
    { .dtype = LSI_BF16, .master = true, .moments = LSI_MOMENTS_Q8 },
    { .dtype = LSI_BF16, .moments = LSI_MOMENTS_F32, .lora_rank = 3 },
};

/* Every kind of state comes back bit by bit. */
static void test_round_trips(void)
{
    begin();
    for (size_t i = 0; i < LSI_LEN(specs); i++) {
        struct lsi_params a, b;
        struct lsi_state s;
        struct small_spec other = specs[i];
        other.seed = 5;
        small_params(&a, &config, &specs[i], NULL);
        small_params(&b, &config, &other, NULL);
        CHECK(!small_params_equal(&a, &b));
        REQUIRE_OK(save(&a, 123), err);
        REQUIRE_OK(load(&b, &s), err);
        CHECK(small_params_equal(&a, &b));
        CHECK_INT(s.step, state.step);
        CHECK_INT(s.next_sequence, state.next_sequence);
        CHECK_INT(s.tokens, state.tokens);
        CHECK(s.seconds == state.seconds && s.loss_mean == state.loss_mean && s.data == state.data);
        small_params_free(&a);
        small_params_free(&b);
    }
    end();
}

/* The trained weights are a safetensors file that others can read, under the names of Hugging Face files. */
static void test_names(void)
{
    struct lsi_params p;
    struct lsi_safetensors st;
    begin();
    small_params(&p, &config, &specs[1], NULL);
    REQUIRE_OK(save(&p, 1), err);
    CHECK(strstr(path, "/checkpoints/step-00000001.safetensors") != NULL);
    REQUIRE_OK(lsi_st_open(&st, path, lsi_alloc_or_default(NULL), &err), err);
    CHECK_INT(st.n_tensors, 3 * p.n + 1);
    const struct lsi_st_tensor *t = lsi_st_find(&st, "model.layers.1.mlp.up_proj.weight");
    REQUIRE(t != NULL);
    CHECK_INT(t->dtype, LSI_F32); /* the master */
    CHECK_INT(t->shape[0], 96);
    CHECK_INT(t->shape[1], 64);
    CHECK(lsi_st_find(&st, "model.layers.1.mlp.up_proj.weight.m") != NULL);
    lsi_st_close(&st);
    small_params_free(&p);
    end();
}

static void check_refused(struct lsi_params *p, const struct lsi_setting *with, size_t n, ls_status status,
                          const char *part)
{
    struct lsi_state s = { .step = 77 };
    CHECK_INT(lsi_state_load(path, p, &s, with, n, &err), status);
    CHECK_INT(s.step, 77);
    if (!strstr(err.text, part)) {
        CHECK_STR(err.text, part);
    }
}

/* Another model or other settings: the sentence names what differs, nothing is changed. */
static void test_differences(void)
{
    static const struct lsi_setting other[] = { { "seed", "2" }, { "dtype", "\"bf16\"" } };
    static const struct lsi_setting more[] = { { "seed", "1" }, { "pack", "true" } };
    struct lsi_params a, b, wide;
    struct lsi_config wider;
    begin();
    small_params(&a, &config, &specs[2], NULL);
    REQUIRE_OK(save(&a, 7), err);
    check_refused(&a, other, 2, LS_E_INVAL, "seed 1, not 2");
    check_refused(&a, more, 2, LS_E_INVAL, "pack (none), not true");

    small_params(&b, &config, &specs[0], NULL);
    check_refused(&b, settings, 2, LS_E_INVAL, "BF16");
    small_params_free(&b);
    small_params(&b, &config, &specs[4], NULL);
    check_refused(&b, settings, 2, LS_E_INVAL, "lora_A");
    small_params_free(&b);

    small_config(&wider, "{\"model_type\": \"qwen3\", \"hidden_size\": 64, \"intermediate_size\": 128, "
                         "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
                         "\"head_dim\": 32, \"vocab_size\": 80}");
    small_params(&wide, &wider, &specs[2], NULL);
    check_refused(&wide, settings, 2, LS_E_INVAL,
                  "gate_proj.weight is BF16 [96][64], expected BF16 [128][64]");
    small_params_free(&wide);
    lsi_config_fini(&wider);
    small_config(&wider, "{\"model_type\": \"qwen3\", \"hidden_size\": 64, \"intermediate_size\": 96, "
                         "\"num_hidden_layers\": 1, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
                         "\"head_dim\": 32, \"vocab_size\": 80}");
    small_params(&wide, &wider, &specs[2], NULL);
    check_refused(&wide, settings, 2, LS_E_INVAL, "tensors");
    small_params_free(&wide);
    lsi_config_fini(&wider);
    small_params_free(&a);
    end();
}

static void flip(const char *file, long at)
{
    FILE *f = fopen(file, "r+b");
    REQUIRE(f != NULL);
    fseek(f, at, SEEK_SET);
    const int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 0x10, f);
    fclose(f);
}

static long size_of(const char *file)
{
    struct stat st;
    return stat(file, &st) == 0 ? (long)st.st_size : -1;
}

/* A changed bit anywhere shows, and nothing is changed in memory. */
static void test_damage(void)
{
    struct lsi_params a, b;
    struct lsi_state s;
    struct small_spec other = specs[3];
    begin();
    other.seed = 9;
    small_params(&a, &config, &specs[3], NULL);
    small_params(&b, &config, &other, NULL);
    REQUIRE_OK(save(&a, 1), err);
    const long size = size_of(path);
    for (long at = 0; at < size; at += at < 20000 ? 7 : 3001) {
        flip(path, at);
        if (load(&b, &s) == LS_OK) {
            CHECK_INT(at, -1);
        }
        flip(path, at);
        REQUIRE(!small_params_equal(&a, &b));
    }
    REQUIRE_OK(load(&b, &s), err);
    CHECK(truncate(path, size - 1) == 0);
    CHECK_INT(load(&b, &s), LS_E_FORMAT);
    small_params_free(&a);
    small_params_free(&b);
    end();
}

static char noted[512];

static void note(void *user, const char *sentence)
{
    (void)user;
    snprintf(noted, sizeof noted, "%s", sentence);
}

static ls_status latest(struct lsi_params *p, struct lsi_state *s)
{
    noted[0] = '\0';
    return lsi_state_latest(dir, p, s, settings, LSI_LEN(settings), note, NULL, &err);
}

static void test_latest_and_prune(void)
{
    struct lsi_params a;
    struct lsi_state s;
    begin();
    small_params(&a, &config, &specs[0], NULL);
    REQUIRE_OK(latest(&a, &s), err); /* none yet */
    CHECK_INT(s.step, 0);
    for (uint64_t step = 5; step <= 100000000; step = step * 20) /* a step of nine digits too */
        REQUIRE_OK(save(&a, step), err);
    tiny_write(tiny_path(dir, "checkpoints"), "notes.txt", "dear", 4);
    tiny_write(tiny_path(dir, "checkpoints"), "step-00000007.safetensors.part-1", "x", 1);
    tiny_write(dir, "loss.svg.part-1", "x", 1);
    REQUIRE_OK(latest(&a, &s), err);
    CHECK_INT(s.step, 16000000);
    CHECK_STR(noted, "");

    flip(tiny_path(dir, "checkpoints/step-16000000.safetensors"), 5000);
    REQUIRE_OK(latest(&a, &s), err);
    CHECK_INT(s.step, 800000);
    CHECK(strstr(noted, "step-16000000") != NULL);

    lsi_state_prune(dir, 2);
    CHECK_INT(tiny_count(tiny_path(dir, "checkpoints")), 3); /* two, notes.txt */
    CHECK_INT(tiny_count(dir), 1);
    CHECK(lsi_path_exists(tiny_path(dir, "checkpoints/step-00800000.safetensors")));
    lsi_state_prune(dir, 0);
    CHECK_INT(tiny_count(tiny_path(dir, "checkpoints")), 2);
    CHECK_INT(latest(&a, &s), LS_E_FORMAT);
    CHECK(strstr(err.text, "step-16000000") != NULL);
    small_params_free(&a);
    end();
}

/* A disk that fills: a sentence, no rest of a file, the one before whole. */
static void test_disk_full(void)
{
    struct lsi_params a;
    struct lsi_state s;
    begin();
    if (mount("tmpfs", dir, "tmpfs", 0, "size=800k") != 0) {
        fprintf(stderr, "    skipped: no right to mount\n");
        end();
        return;
    }
    small_params(&a, &config, &specs[2], NULL);
    REQUIRE_OK(save(&a, 1), err);
    ls_status st = LS_OK;
    for (uint64_t step = 2; st == LS_OK && step < 50; step++)
        st = save(&a, step);
    CHECK_INT(st, LS_E_IO);
    CHECK(strstr(err.text, "No space left") != NULL);
    const size_t n = tiny_count(tiny_path(dir, "checkpoints"));
    REQUIRE_OK(latest(&a, &s), err);
    CHECK_INT(s.step, n); /* as many as were whole */
    CHECK_STR(noted, "");
    small_params_free(&a);
    umount(dir);
    end();
}

/* Killed at any moment while it writes one checkpoint after another. */
static void test_kill(void)
{
    struct lsi_params a;
    struct lsi_state s;
    begin();
    small_params(&a, &config, &specs[0], NULL);
    REQUIRE_OK(save(&a, 1), err);
    for (int k = 0; k < 30; k++) {
        const pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            for (uint64_t step = 2;; step++) {
                if (save(&a, step) != LS_OK)
                    _exit(1);
                lsi_state_prune(dir, 2);
            }
        }
        usleep(500u + 700u * (unsigned)k);
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        CHECK(WIFSIGNALED(status));
        REQUIRE_OK(latest(&a, &s), err);
        CHECK(s.step >= 1);
        CHECK_STR(noted, "");
    }
    lsi_state_prune(dir, 1);
    CHECK_INT(tiny_count(tiny_path(dir, "checkpoints")), 1);
    small_params_free(&a);
    end();
}

/* ---- memory -------------------------------------------------------------------------------- */

/* Whichever allocation fails: the status says so and nothing is kept. */
static void test_memory(void)
{
    begin();
    struct faulty f = { 0 };
    const ls_alloc alloc = { faulty_alloc, faulty_free, &f };
    struct lsi_params a;
    struct lsi_state s;
    small_params(&a, &config, &specs[0], &alloc);
    const long long held = f.outstanding;
    REQUIRE_OK(save(&a, 1), err);
    for (int way = 0; way < 2; way++)
        for (size_t k = 1;; k++) {
            f.n = 0;
            f.fail_at = k;
            const ls_status st = way == 0 ? save(&a, 2) : load(&a, &s);
            CHECK_INT(f.outstanding, held);
            if (f.n < k) {
                REQUIRE_OK(st, err);
                break;
            }
            CHECK_INT(st, LS_E_NOMEM);
        }
    f.fail_at = 0;
    small_params_free(&a);
    CHECK_INT(f.outstanding, 0);
    end();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_round_trips),      TEST(test_names),     TEST(test_differences), TEST(test_damage),
        TEST(test_latest_and_prune), TEST(test_disk_full), TEST(test_kill),        TEST(test_memory),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}
