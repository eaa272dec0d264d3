/* Activation checkpoints in memory and in a file: the same rows whatever is asked for when; one clear error
 * when the file cannot be written or read, and nothing that waits for ever. */
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "small_trainer.h"

static char dir[512];

struct size {
    size_t n_layers, n_rows, row_bytes, block;
};

static const struct size sizes[] = {
    { 1, 1, 2, 1 },      { 1, 7, 3, 7 },       { 2, 64, 128, 16 }, { 3, 65, 90, 16 },
    { 5, 31, 1152, 10 }, { 4, 200, 4097, 33 }, { 30, 9, 64, 2 },   { 2, 100, 1 << 13, 7 },
};

struct tier {
    struct lsi_tier t;
    struct lsi_arena arena;
    struct size size;
};

static void make(struct tier *t, const struct size *s, bool in_file)
{
    struct lsi_arena counted = { 0 };
    ls_error err = { 0 };
    t->size = *s;
    t->arena = (struct lsi_arena){ 0 };
    lsi_tier_layout(&t->t, &counted, in_file, s->n_layers, s->n_rows, s->row_bytes, s->block);
    REQUIRE_OK(lsi_arena_init(&t->arena, lsi_alloc_or_default(NULL), counted.used), err);
    lsi_tier_layout(&t->t, &t->arena, in_file, s->n_layers, s->n_rows, s->row_bytes, s->block);
    CHECK_INT(t->arena.used, counted.used);
    CHECK_INT(lsi_tier_file_bytes(&t->t), in_file ? s->n_layers * s->n_rows * s->row_bytes : 0);
    REQUIRE_OK(lsi_tier_open(&t->t, dir, &err), err);
}

static void finish(struct tier *t)
{
    lsi_tier_close(&t->t);
    lsi_arena_fini(&t->arena);
}

/* What rows hold: every byte depends on where it is, and on the round. */
static void fill(unsigned char *rows, const struct size *s, size_t layer, size_t row, size_t n,
                 unsigned round)
{
    for (size_t i = 0; i < n * s->row_bytes; i++) {
        const uint64_t at = ((uint64_t)layer * s->n_rows + row) * s->row_bytes + i;
        rows[i] = (unsigned char)((at * 0x9E3779B97F4A7C15u >> 32) + round);
    }
}

static size_t n_blocks(const struct size *s)
{
    return lsi_div_up(s->n_rows, s->block);
}

static size_t rows_of(const struct size *s, size_t block)
{
    return lsi_min_size(s->block, s->n_rows - block * s->block);
}

static void write_all(struct tier *t, unsigned char *rows, unsigned round)
{
    const struct size *s = &t->size;
    for (size_t layer = 0; layer < s->n_layers; layer++)
        for (size_t b = 0; b < n_blocks(s); b++) {
            fill(rows, s, layer, b * s->block, rows_of(s, b), round);
            lsi_tier_write(&t->t, layer, b * s->block, rows_of(s, b), rows);
            memset(rows, 0xee, rows_of(s, b) * s->row_bytes); /* the caller's memory is its own again */
        }
}

static void check_block(struct tier *t, size_t layer, size_t block, unsigned char *want, unsigned round)
{
    const struct size *s = &t->size;
    const size_t n = rows_of(s, block), row = block * s->block;
    const void *got = lsi_tier_read(&t->t, layer, row, n);
    fill(want, s, layer, row, n, round);
    CHECK_MEM(got, n * s->row_bytes, want, n * s->row_bytes);
    lsi_tier_release(&t->t, got);
}

/* As the backward pass goes: layers descending, blocks up and down, the next one asked for beforehand. */
static void sweep_back(struct tier *t, unsigned char *rows, bool prefetch, unsigned round)
{
    const struct size *s = &t->size;
    for (size_t layer = s->n_layers; layer-- > 0;) {
        for (size_t b = 0; b < n_blocks(s); b++) {
            if (prefetch && b + 1 < n_blocks(s))
                lsi_tier_prefetch(&t->t, layer, (b + 1) * s->block, rows_of(s, b + 1));
            check_block(t, layer, b, rows, round);
        }
        for (size_t b = n_blocks(s); b-- > 0;) {
            if (prefetch && b > 0)
                lsi_tier_prefetch(&t->t, layer, (b - 1) * s->block, rows_of(s, b - 1));
            else if (prefetch && layer > 0)
                lsi_tier_prefetch(&t->t, layer - 1, 0, rows_of(s, 0));
            check_block(t, layer, b, rows, round);
        }
    }
}

/* Any order, some asked for beforehand (twice, or never fetched), and rows held while others are read. */
static void at_random(struct tier *t, unsigned char *rows, unsigned round)
{
    const struct size *s = &t->size;
    struct lsi_rng rng;
    lsi_rng_init(&rng, s->row_bytes);
    for (int i = 0; i < 100; i++) {
        const size_t layer = lsi_rng_below(&rng, s->n_layers), b = lsi_rng_below(&rng, n_blocks(s));
        const size_t other = lsi_rng_below(&rng, n_blocks(s));
        const bool ask = lsi_rng_below(&rng, 2), again = lsi_rng_below(&rng, 4) == 0;
        for (int k = 0; ask && k <= again; k++)
            lsi_tier_prefetch(&t->t, layer, b * s->block, rows_of(s, b));
        const void *held = lsi_tier_read(&t->t, layer, b * s->block, rows_of(s, b));
        if (other != b)
            check_block(t, layer, other, rows, round);
        fill(rows, s, layer, b * s->block, rows_of(s, b), round);
        CHECK_MEM(held, rows_of(s, b) * s->row_bytes, rows, rows_of(s, b) * s->row_bytes);
        lsi_tier_release(&t->t, held);
        if (lsi_rng_below(&rng, 8) == 0) {
            lsi_tier_prefetch(&t->t, layer, other * s->block, rows_of(s, other));
            lsi_tier_drain(&t->t);
        }
    }
}

static void test_rows(void)
{
    for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
        const struct size *s = &sizes[i / 2];
        unsigned char *rows = malloc(s->block * s->row_bytes);
        struct tier t;
        ls_error err = { 0 };
        REQUIRE(rows != NULL);
        make(&t, s, i % 2);
        CHECK((lsi_tier_at(&t.t, 0, 0) != NULL) == (i % 2 == 0));
        for (unsigned round = 0; round < 3; round++) { /* a step after the other in the same file */
            write_all(&t, rows, round);
            sweep_back(&t, rows, round != 1, round);
            at_random(&t, rows, round);
            lsi_tier_drain(&t.t);
            REQUIRE_OK(lsi_tier_status(&t.t, &err), err);
        }
        finish(&t);
        free(rows);
    }
}

/* Read what has just been written: requests are served in order. */
static void test_write_then_read(void)
{
    const struct size *s = &sizes[5];
    unsigned char *rows = malloc(s->block * s->row_bytes);
    struct tier t;
    REQUIRE(rows != NULL);
    make(&t, s, true);
    for (unsigned round = 0; round < 50; round++) {
        const size_t b = round % n_blocks(s), layer = round % s->n_layers;
        fill(rows, s, layer, b * s->block, rows_of(s, b), round);
        lsi_tier_write(&t.t, layer, b * s->block, rows_of(s, b), rows);
        check_block(&t, layer, b, rows, round);
    }
    finish(&t);
    free(rows);
}

/* Prefetches that nobody comes for fill every slot; who needs rows, or room to write, gets it all the same.
 */
static void test_prefetched_in_vain(void)
{
    const struct size *s = &sizes[5];
    unsigned char *rows = malloc(s->block * s->row_bytes);
    struct tier t;
    REQUIRE(rows != NULL);
    make(&t, s, true);
    for (int i = 0; i < 2; i++) {
        write_all(&t, rows, 0);
        for (size_t k = 0; k <= LSI_TIER_SLOTS; k++)
            lsi_tier_prefetch(&t.t, 1, k * s->block, rows_of(s, k));
        for (size_t k = 0; k < LSI_TIER_SLOTS; k++)
            check_block(&t, 2 + k % 2, k / 2, rows, 0);
        check_block(&t, 1, 1, rows, 0);
    }
    finish(&t);
    free(rows);
}

/* The transfers that are under way end; nobody waits for the others. */
static void test_close_in_the_middle(void)
{
    const struct size *s = &sizes[7];
    unsigned char *rows = calloc(s->block, s->row_bytes);
    REQUIRE(rows != NULL);
    for (size_t i = 0; i < 40; i++) {
        struct tier t;
        make(&t, s, true);
        for (size_t k = 0; k < i % 6; k++)
            lsi_tier_write(&t.t, 0, k * s->block, s->block, rows);
        for (size_t k = 0; k < i % 5; k++)
            lsi_tier_prefetch(&t.t, 1, k * s->block, s->block);
        if (i % 7 == 6)
            lsi_tier_release(&t.t, lsi_tier_read(&t.t, 1, 5 * s->block, s->block));
        finish(&t);
    }
    free(rows);
    struct lsi_tier nothing = { 0 };
    lsi_tier_close(&nothing);
}

/* ---- files that fail ---------------------------------------------------------------------------------- */

static struct rlimit limit_files(rlim_t bytes)
{
    struct rlimit before, now;
    signal(SIGXFSZ, SIG_IGN);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    now = before;
    now.rlim_cur = bytes;
    REQUIRE(setrlimit(RLIMIT_FSIZE, &now) == 0);
    return before;
}

static void unlimit_files(const struct rlimit *before)
{
    REQUIRE(setrlimit(RLIMIT_FSIZE, before) == 0);
}

static void test_no_room(void)
{
    const struct size *s = &sizes[7];
    struct tier t = { 0 };
    struct lsi_arena counted = { 0 };
    ls_error err = { 0 };
    lsi_tier_layout(&t.t, &counted, true, s->n_layers, s->n_rows, s->row_bytes, s->block);
    const struct rlimit before = limit_files(1 << 20);
    CHECK_INT(lsi_tier_open(&t.t, dir, &err), LS_E_IO);
    unlimit_files(&before);
    CHECK(strstr(err.text, dir) != NULL && strstr(err.text, "File too large") != NULL);
    lsi_tier_close(&t.t);
    CHECK_INT(lsi_tier_open(&t.t, tiny_path(dir, "none"), &err), LS_E_IO);
    CHECK(strstr(err.text, "No such file or directory") != NULL);
    lsi_tier_close(&t.t);
}

static void test_failed_writes(void)
{
    const struct size *s = &sizes[7];
    unsigned char *rows = calloc(s->block, s->row_bytes);
    struct tier t;
    ls_error err = { 0 };
    REQUIRE(rows != NULL);
    make(&t, s, true);
    const struct rlimit before = limit_files(1 << 20);
    write_all(&t, rows, 0);
    for (size_t b = n_blocks(s); b-- > 0;) { /* a reader is not left waiting */
        if (b > 0)
            lsi_tier_prefetch(&t.t, 1, (b - 1) * s->block, s->block);
        lsi_tier_release(&t.t, lsi_tier_read(&t.t, 1, b * s->block, rows_of(s, b)));
    }
    lsi_tier_drain(&t.t);
    unlimit_files(&before);
    CHECK_INT(lsi_tier_status(&t.t, &err), LS_E_IO);
    CHECK(strstr(err.text, "cannot store activations") != NULL && strstr(err.text, dir) != NULL);
    finish(&t);
    free(rows);
}

static void test_failed_reads(void)
{
    const struct size *s = &sizes[5];
    unsigned char *rows = malloc(s->block * s->row_bytes);
    struct tier t;
    ls_error err = { 0 };
    REQUIRE(rows != NULL);
    make(&t, s, true);
    write_all(&t, rows, 0);
    lsi_tier_drain(&t.t);
    REQUIRE_OK(lsi_tier_status(&t.t, &err), err);
    REQUIRE(ftruncate(t.t.fd, (off_t)(s->n_rows * s->row_bytes)) == 0);
    check_block(&t, 0, 1, rows, 0);
    REQUIRE_OK(lsi_tier_status(&t.t, &err), err);
    lsi_tier_prefetch(&t.t, 2, 0, s->block);
    lsi_tier_release(&t.t, lsi_tier_read(&t.t, 2, 0, s->block));
    CHECK_INT(lsi_tier_status(&t.t, &err), LS_E_IO);
    CHECK(strstr(err.text, "cannot read back activations") != NULL && strstr(err.text, dir) != NULL);
    finish(&t);
    free(rows);
}

/* The step ends with the sentence, and no weight has been stepped with what was not read. */
static void test_failed_step(void)
{
    for (int i = 0; i < 4; i++) {
        struct small_batch b;
        ls_train_options o = small_options(small_config_path(dir, small_find("llama tied")), 100);
        ls_train_step step = { .struct_size = sizeof step };
        ls_error err = { 0 };
        o.block = 9;
        o.spill = dir;
        o.clip = i % 2;
        small_sequence(&b, 100, 83, 0, 0, 3);
        ls_trainer *t = small_trainer(&o, 5);
        struct small_result before = small_weights(t);
        struct rlimit limit;
        if (i / 2) /* all but the last block of the last layer */
            limit = limit_files(lsi_tier_file_bytes(&t->memory.tier) - 1);
        else
            limit = limit_files(1000);
        const ls_status st = ls_trainer_step(t, &b.s, 1, 1e-3, &step, &err);
        unlimit_files(&limit);
        CHECK_INT(st, LS_E_IO);
        CHECK(strstr(err.text, "cannot store activations") != NULL);
        struct small_result after = small_weights(t);
        CHECK_MEM(after.values, after.n * sizeof(float), before.values, before.n * sizeof(float));
        small_free(&before);
        small_free(&after);
        ls_trainer_free(t);
    }
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_rows),
        TEST(test_write_then_read),
        TEST(test_close_in_the_middle),
        TEST(test_prefetched_in_vain),
        TEST(test_no_room),
        TEST(test_failed_writes),
        TEST(test_failed_reads),
        TEST(test_failed_step),
    };
    tiny_dir(dir, sizeof dir);
    const int status = test_main(tests, sizeof tests / sizeof *tests, argc, argv);
    tiny_remove(dir);
    return status;
}
