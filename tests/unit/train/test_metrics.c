/* metrics.jsonl and run.json. */
#include "train/metrics.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "small_params.h"
#include "tiny_case.h"
#include "train/run_file.h"

static ls_train_step step_of(uint64_t n)
{
    return (ls_train_step){ .struct_size = sizeof(ls_train_step),
                            .step = n,
                            .loss = 3.0 - 0.125 * (double)n,
                            .grad_norm = n == 2 ? (double)NAN : 1.5,
                            .lr = 1e-5,
                            .tokens = 4096,
                            .valid_labels = 4095,
                            .seconds = 0.5,
                            .peak_bytes = 1ull << 40,
                            .eval_loss = n == 3 ? 2.25 : (double)NAN };
}

static void append(uint64_t after, uint64_t first, uint64_t last)
{
    struct lsi_metrics *m = NULL;
    REQUIRE_OK(lsi_metrics_open(&m, dir, after, NULL, &err), err);
    for (uint64_t n = first; n <= last; n++) {
        const ls_train_step s = step_of(n);
        REQUIRE_OK(lsi_metrics_append(m, &s, &err), err);
    }
    lsi_metrics_close(m);
}

static void test_lines(void)
{
    begin_dir();
    append(0, 1, 3);
    CHECK_STR(tiny_read(dir, "metrics.jsonl"),
              "{\"step\":1,\"loss\":2.875,\"grad_norm\":1.5,\"lr\":1e-05,\"tokens\":4096,\"labels\":4095,"
              "\"seconds\":0.5,\"peak_bytes\":1099511627776}\n"
              "{\"step\":2,\"loss\":2.75,\"grad_norm\":null,\"lr\":1e-05,\"tokens\":4096,\"labels\":4095,"
              "\"seconds\":0.5,\"peak_bytes\":1099511627776}\n"
              "{\"step\":3,\"loss\":2.625,\"grad_norm\":1.5,\"lr\":1e-05,\"tokens\":4096,\"labels\":4095,"
              "\"seconds\":0.5,\"peak_bytes\":1099511627776,\"eval_loss\":2.25}\n");
    append(0, 1, 1); /* begun anew */
    CHECK(strstr(tiny_read(dir, "metrics.jsonl"), "\"step\":2") == NULL);
    end_dir();
}

struct seen {
    uint64_t n, last;
    double eval;
};

static void see(void *user, const ls_train_step *s)
{
    struct seen *x = user;
    x->n++;
    x->last = s->step;
    if (!isnan(s->eval_loss))
        x->eval = s->eval_loss;
}

static struct seen read_all(void)
{
    struct seen x = { 0 };
    REQUIRE_OK(lsi_metrics_read(tiny_path(dir, "metrics.jsonl"), see, &x, &err), err);
    return x;
}

static void test_resume(void)
{
    begin_dir();
    append(0, 1, 9);
    FILE *f = fopen(tiny_path(dir, "metrics.jsonl"), "ab"); /* killed while writing */
    fputs("{\"step\":10,\"loss\":1.", f);
    fclose(f);
    CHECK_INT(read_all().n, 9);
    append(6, 7, 8);
    const struct seen x = read_all();
    CHECK_INT(x.n, 8);
    CHECK_INT(x.last, 8);
    CHECK_NEAR(x.eval, 2.25, 0);
    CHECK(strstr(tiny_read(dir, "metrics.jsonl"), "\"step\":9") == NULL);
    CHECK(strstr(tiny_content, "\"step\":10") == NULL);
    append(8, 9, 9); /* nothing to cut */
    CHECK_INT(read_all().n, 9);
    end_dir();
}

static void test_bad_files(void)
{
    struct lsi_metrics *m = NULL;
    struct seen x = { 0 };
    begin_dir();
    tiny_write(dir, "metrics.jsonl", "{\"step\":1}\nnonsense\n{\"step\":2}\n", 32);
    CHECK_INT(lsi_metrics_read(tiny_path(dir, "metrics.jsonl"), see, &x, &err), LS_E_FORMAT);
    append(5, 6, 6); /* what cannot be read ends what is kept */
    CHECK_INT(read_all().n, 2);
    CHECK_INT(lsi_metrics_open(&m, tiny_path(dir, "nowhere"), 0, NULL, &err), LS_E_IO);
    CHECK(m == NULL);
    end_dir();
}

static void test_disk_full(void)
{
    struct lsi_metrics *m = NULL;
    begin_dir();
    if (mount("tmpfs", dir, "tmpfs", 0, "size=16k") != 0) {
        fprintf(stderr, "    skipped: no right to mount\n");
        end_dir();
        return;
    }
    REQUIRE_OK(lsi_metrics_open(&m, dir, 0, NULL, &err), err);
    ls_status st = LS_OK;
    uint64_t n = 0;
    while (st == LS_OK && n < 1000) {
        const ls_train_step s = step_of(++n);
        st = lsi_metrics_append(m, &s, &err);
    }
    CHECK_INT(st, LS_E_IO);
    CHECK(strstr(err.text, "No space left") != NULL);
    lsi_metrics_close(m);
    const struct seen x = read_all();
    CHECK_INT(x.last, n - 1);
    const char *text = tiny_read(dir, "metrics.jsonl");
    CHECK(text[strlen(text) - 1] == '\n');
    umount(dir);
    end_dir();
}

/* ---- run.json ---------------------------------------------------------------------------------- */

static void test_run_file(void)
{
    ls_train_options o = { .struct_size = sizeof o };
    struct lsi_config c;
    struct lsi_json j;
    begin_dir();
    o.model = "a \"model\".gguf";
    o.data = (const char *[]){ "one.txt", "two.jsonl" };
    o.n_data = 2;
    o.lr = 2e-4;
    o.mode = LS_TRAIN_MST;
    o.steps = UINT64_MAX;
    small_config(&c, tiny_configs[3]);
    REQUIRE_OK(lsi_run_file_write(dir, &o, &c, NULL, &err), err);
    const char *text = tiny_read(dir, "run.json");
    lsi_json_init(&j, text, strlen(text), "run.json", &err);
    REQUIRE_OK(lsi_json_skip(&j), err);
    REQUIRE_OK(lsi_json_end(&j), err);
    static const char *const parts[] = {
        "\"longspan\": \"",
        "\"started\": \"2",
        "\"family\": \"qwen2\"",
        "\"rope_scaling\": \"yarn\"",
        "\"model\": \"a \\\"model\\\".gguf\"",
        "\"data\": [\"one.txt\", \"two.jsonl\"]",
        "\"lr\": 0.0002",
        "\"mode\": \"mst\"",
        "\"steps\": 18446744073709551615",
        "\"init\": null",
        "\"shuffle\": false",
    };
    for (size_t i = 0; i < LSI_LEN(parts); i++) {
        if (!strstr(text, parts[i])) {
            CHECK_STR(text, parts[i]);
        }
    }
    lsi_config_fini(&c);
    end_dir();
}

static const char *setting(const ls_train_options *o, const char *name)
{
    static struct lsi_setting list[LSI_RUN_SETTINGS];
    size_t n = 0;
    REQUIRE_OK(lsi_run_settings(o, list, &n, &err), err);
    CHECK(n <= LSI_RUN_SETTINGS);
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            return list[i].value;
    return NULL;
}

static void test_settings(void)
{
    ls_train_options o = { .struct_size = sizeof o, .seq = 512, .dtype = LS_TRAIN_FP32 };
    char first[2][200];
    static char long_path[2][300];
    CHECK_STR(setting(&o, "seq"), "512");
    CHECK_STR(setting(&o, "dtype"), "\"fp32\"");
    CHECK(setting(&o, "lr") == NULL);
    CHECK(setting(&o, "mode") == NULL);
    for (int i = 0; i < 2; i++) { /* long values that differ at their end */
        memset(long_path[i], 'x', sizeof long_path[i] - 1);
        memcpy(long_path[i] + 58, "\xe4\xb8\xad", 3); /* where the text is shortened */
        long_path[i][298] = (char)('a' + i);
        o.data = (const char *[]){ long_path[i] };
        o.n_data = 1;
        snprintf(first[i], sizeof first[i], "%s", setting(&o, "data"));
    }
    CHECK(strcmp(first[0], first[1]) != 0);
    CHECK_INT(lsi_utf8_valid_prefix(first[0], strlen(first[0])), strlen(first[0]));
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_lines),     TEST(test_resume),   TEST(test_bad_files),
        TEST(test_disk_full), TEST(test_run_file), TEST(test_settings),
    };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}
