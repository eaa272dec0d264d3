/* loss.svg for runs of every length: well formed, within its frame, of bounded size. */
#include "train/plot.h"

#include <sys/stat.h>

#include "tiny_case.h"
#include "train/metrics.h"

static char *text; /* of the picture */

static void end(void)
{
    free(text);
    text = NULL;
    end_dir();
}

static ls_train_step step_of(uint64_t n, uint64_t of)
{
    const double t = (double)n / (double)of;
    const double noise = (double)(n * 2654435761u % 1000) / 1000 - 0.5;
    return (ls_train_step){ .struct_size = sizeof(ls_train_step),
                            .step = n,
                            .loss = 2 + 3 * exp(-8 * t) + 0.4 * noise + (n == of / 3 ? 50 : 0),
                            .grad_norm = 1 + noise,
                            .lr = 3e-4 * (t < 0.05 ? t / 0.05 : 0.5 + 0.5 * cos(3.14159 * t)),
                            .tokens = 4096,
                            .seconds = 0.7,
                            .peak_bytes = (uint64_t)(2e9 + 1e9 * (t > 0.1)),
                            .eval_loss =
                                of < 20 || n % (of / 20) == 0 ? 2.1 + 3 * exp(-8 * t) : (double)NAN };
}

static void metrics(uint64_t n, bool norms)
{
    struct lsi_metrics *m = NULL;
    REQUIRE_OK(lsi_metrics_open(&m, dir, 0, NULL, &err), err);
    for (uint64_t i = 1; i <= n; i++) {
        ls_train_step s = step_of(i, n);
        if (!norms)
            s.grad_norm = (double)NAN;
        REQUIRE_OK(lsi_metrics_append(m, &s, &err), err);
    }
    lsi_metrics_close(m);
}

static void draw(void)
{
    struct stat info;
    REQUIRE_OK(lsi_plot_write(dir, NULL, &err), err);
    REQUIRE(stat(tiny_path(dir, "loss.svg"), &info) == 0);
    FILE *f = fopen(tiny_path(dir, "loss.svg"), "rb");
    free(text);
    text = malloc((size_t)info.st_size + 1);
    REQUIRE(f && text && fread(text, 1, (size_t)info.st_size, f) == (size_t)info.st_size);
    text[info.st_size] = '\0';
    fclose(f);
}

static size_t count(const char *part)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, part)) != NULL; p++)
        n++;
    return n;
}

/* Tags open and close, and every coordinate of a path lies in the picture. */
static void check_picture(void)
{
    double width = 0, height = 0;
    CHECK(strncmp(text, "<svg ", 5) == 0 && strcmp(text + strlen(text) - 7, "</svg>\n") == 0);
    CHECK_INT(count("<text"), count("</text>"));
    CHECK_INT(count("nan") + count("inf\""), 0);
    REQUIRE(sscanf(strstr(text, "viewBox=\""), "viewBox=\"0 0 %lf %lf\"", &width, &height) == 2);
    for (const char *p = text; (p = strstr(p, " d=\"")) != NULL;) {
        for (p += 4; *p == 'M' || *p == 'L';) {
            char *next;
            const double x = strtod(p + 1, &next), y = strtod(next, &next);
            if (!(x >= 0 && x <= width && y >= 0 && y <= height)) {
                CHECK_NEAR(x, width / 2, width / 2);
                CHECK_NEAR(y, height / 2, height / 2);
                return;
            }
            p = next;
        }
        CHECK(*p == '"');
    }
}

static void test_lengths(void)
{
    static const uint64_t lengths[] = { 1, 2, 3, 10, 41, 779, 780, 781, 5000 };
    begin_dir();
    for (size_t i = 0; i < LSI_LEN(lengths); i++) {
        metrics(lengths[i], i % 2 == 0);
        draw();
        check_picture();
        CHECK_INT(count("norm of the gradient"), i % 2 == 0);
        CHECK_INT(count("greatest resident memory, GiB"), 1);
        CHECK(count("evaluation</text>") == 1);
        CHECK(strlen(text) < 200000);
    }
    end();
}

/* The last point of the smoothed line is at the height of the last values, between the ticks around them. */
static void test_values(void)
{
    struct lsi_metrics *m = NULL;
    begin_dir();
    REQUIRE_OK(lsi_metrics_open(&m, dir, 0, NULL, &err), err);
    for (uint64_t i = 1; i <= 5; i++) {
        const ls_train_step s = { .step = i,
                                  .loss = i == 3 ? (double)NAN : 1 + (double)i,
                                  .grad_norm = (double)NAN,
                                  .eval_loss = (double)NAN,
                                  .tokens = 1000000 };
        REQUIRE_OK(lsi_metrics_append(m, &s, &err), err);
    }
    lsi_metrics_close(m);
    draw();
    check_picture();
    CHECK(strstr(text, "5 steps, loss 6.0000<") != NULL);
    CHECK(strstr(text, "5.0 million tokens in 0 s") != NULL);
    CHECK(strstr(text, "\"M76 344.00L268 274.00L651 134.00L843 64.00\"") !=
          NULL); /* 2, 3, 5, 6 on 64 .. 344 */
    end();
}

static void test_nothing(void)
{
    begin_dir();
    CHECK_INT(lsi_plot_write(dir, NULL, &err), LS_E_IO);
    metrics(0, true);
    draw();
    CHECK(strstr(text, "no step yet") != NULL);
    tiny_write(dir, "metrics.jsonl", "nonsense\n", 9);
    CHECK_INT(lsi_plot_write(dir, NULL, &err), LS_E_FORMAT);
    CHECK(strstr(text, "no step yet") != NULL); /* the old picture stays */
    end();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = { TEST(test_lengths), TEST(test_values), TEST(test_nothing) };
    return test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
}
