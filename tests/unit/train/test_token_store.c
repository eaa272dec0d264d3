/* The digest, the token cache on disk, and packing. */
#include <sys/stat.h>
#include <unistd.h>

#include "data_files.h"

static char dir[512];

/* ---- the digest ------------------------------------------------------------------ */

static uint64_t digest_of(const unsigned char *p, size_t n, size_t piece)
{
    struct lsi_digest d;
    lsi_digest_init(&d);
    for (size_t i = 0; i < n; i += piece)
        lsi_digest_add(&d, p + i, lsi_min_size(piece, n - i));
    return lsi_digest_get(&d);
}

static void test_digest(void)
{
    unsigned char bytes[200];
    struct lsi_rng rng;
    lsi_rng_init(&rng, 11);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)lsi_rng_u64(&rng);
    for (size_t n = 1; n <= sizeof bytes; n++) {
        const uint64_t whole = digest_of(bytes, n, n);
        for (size_t piece = 1; piece < n; piece += 1 + n / 20)
            CHECK(digest_of(bytes, n, piece) == whole);
        CHECK(digest_of(bytes, n - 1, n) != whole);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            CHECK(digest_of(bytes, n, n) != whole);
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
    memset(bytes, 0, sizeof bytes);
    for (size_t n = 0; n < 100; n++) /* zeros at the end count */
        CHECK(digest_of(bytes, n, 100) != digest_of(bytes, n + 1, 100));
}

/* ---- the cache --------------------------------------------------------------------- */

static void count_call(void *user, size_t done, size_t total)
{
    (void)done;
    (void)total;
    ++*(int *)user;
}

/* Open with the cache; returns whether the files were tokenised. */
static bool tokenises(struct lsi_data_options *o, uint64_t *print)
{
    struct lsi_digest g;
    int calls = 0;
    o->progress = count_call;
    o->progress_user = &calls;
    struct lsi_data *d = open_data(o);
    lsi_digest_init(&g);
    for (uint64_t i = 0; i < lsi_data_n_sequences(d); i++) {
        const ls_train_sequence s = get_sequence(d, i, 0);
        lsi_digest_add(&g, s.tokens, s.n * sizeof *s.tokens);
        lsi_digest_add(&g, s.labels, s.n * sizeof *s.labels);
    }
    *print = lsi_digest_get(&g);
    lsi_data_close(d);
    return calls > 0;
}

static const char *only_file(const char *folder)
{
    static char path[1024];
    char command[1200];
    snprintf(command, sizeof command, "ls %s/*.tokens", folder);
    FILE *f = popen(command, "r");
    REQUIRE(f && fgets(path, sizeof path, f));
    path[strcspn(path, "\n")] = '\0';
    char second[1024];
    CHECK(!fgets(second, sizeof second, f));
    pclose(f);
    return path;
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    REQUIRE(f && fseek(f, at, SEEK_SET) == 0);
    const int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ 1, f);
    fclose(f);
}

static void test_cache(void)
{
    ls_tokenizer *tok = open_smollm2(), *other = open_family("smollm");
    char folder[600];
    uint64_t want, got;
    snprintf(folder, sizeof folder, "%s/cache", dir);
    const char *path =
        write_text(dir, "c.jsonl", "{\"text\": \"some words\"}\n{\"text\": \"and others 123\"}\n");
    struct lsi_data_options o = data_options(tok, &path, 1, 16);
    CHECK(tokenises(&o, &want));
    o.cache_dir = folder;
    CHECK(tokenises(&o, &got) && got == want);
    CHECK(!tokenises(&o, &got) && got == want);

    const char *file = only_file(folder);
    struct stat st;
    REQUIRE(stat(file, &st) == 0);
    for (long at = 0; at < st.st_size; at++) { /* damaged anywhere: made anew, without a word */
        flip(file, at);
        CHECK(tokenises(&o, &got) && got == want);
    }
    CHECK(!tokenises(&o, &got) && got == want);
    for (long n = 0; n < st.st_size; n += 7) { /* cut short */
        REQUIRE(truncate(file, n) == 0);
        CHECK(tokenises(&o, &got) && got == want);
    }

    o.seq = 9; /* cuts and order are not part of it */
    o.shuffle = true;
    CHECK(!tokenises(&o, &got));
    o.tok = other;
    o.n_vocab = ls_tokenizer_n_vocab(other);
    CHECK(tokenises(&o, &got));
    o.tok = tok;
    o.n_vocab = ls_tokenizer_n_vocab(tok);
    CHECK(tokenises(&o, &got));
    write_text(dir, "c.jsonl", "{\"text\": \"some words\"}\n{\"text\": \"and others 124\"}\n");
    CHECK(tokenises(&o, &got));
    CHECK(!tokenises(&o, &got));
    only_file(folder); /* changed data took the place of what they were */
    ls_tokenizer_close(tok);
    ls_tokenizer_close(other);
}

/* A file with a right digest and wrong content is refused all the same. */
static void test_wrong_content(void)
{
    static const uint64_t borders[][4] = { { 0, 2, 5, 0 }, { 1, 2, 4, 0 }, { 0, 2, 2, 4 }, { 0, 3, 2, 4 } };
    const int32_t ids[4] = { 1, 2, 3, 9 };
    struct lsi_token_store s;
    ls_error err = { 0 };
    for (size_t i = 0; i < LSI_LEN(borders) + 2; i++) {
        struct lsi_token_writer w;
        const char *path = tiny_path(dir, "wrong.tokens");
        REQUIRE_OK(lsi_token_writer_open(&w, path, 5, true, NULL, &err), err);
        REQUIRE_OK(lsi_token_writer_put(&w, ids, NULL, 4, &err), err);
        if (i < LSI_LEN(borders)) {
            w.docs.len = 0;
            lsi_buf_append(&w.docs, borders[i], (borders[i][3] ? 4 : 3) * sizeof(uint64_t));
        } else {
            REQUIRE_OK(lsi_token_writer_end_document(&w, &err), err);
        }
        const size_t n_vocab = i == LSI_LEN(borders) ? 9 : 10;
        const ls_status st = lsi_token_writer_finish(&w, &s, n_vocab, &err);
        CHECK_INT(st, i == LSI_LEN(borders) + 1 ? LS_OK : LS_E_FORMAT);
        lsi_token_writer_close(&w);
        lsi_token_store_close(&s);
    }
}

/* ---- packing --------------------------------------------------------------------------- */

static void random_documents(struct lsi_token_store *s, size_t n_docs, size_t longest, uint64_t seed)
{
    struct lsi_token_writer w;
    struct lsi_rng rng;
    ls_error err = { 0 };
    int32_t id = 0;
    lsi_rng_init(&rng, seed);
    REQUIRE_OK(lsi_token_writer_open(&w, NULL, 0, false, NULL, &err), err);
    for (size_t d = 0; d < n_docs; d++) {
        for (size_t n = 1 + (size_t)lsi_rng_below(&rng, longest); n > 0; n--, id++)
            REQUIRE_OK(lsi_token_writer_put(&w, &id, NULL, 1, &err), err);
        REQUIRE_OK(lsi_token_writer_end_document(&w, &err), err);
    }
    REQUIRE_OK(lsi_token_writer_finish(&w, s, SIZE_MAX, &err), err);
    lsi_token_writer_close(&w);
}

static void check_packing(const struct lsi_token_store *t, size_t seq, enum lsi_packing packing)
{
    struct lsi_sequences s;
    ls_error err = { 0 };
    unsigned char *seen = calloc(t->n_ids, 1);
    uint64_t n_tokens = 0, before = 0;
    REQUIRE(seen != NULL);
    REQUIRE_OK(lsi_sequences_make(&s, t, seq, packing, NULL, &err), err);
    CHECK_INT(s.first[s.n], s.n_pieces);
    for (size_t k = 0; k < s.n; k++) {
        size_t n = 0;
        REQUIRE(s.first[k] < s.first[k + 1]);
        for (size_t p = s.first[k]; p < s.first[k + 1]; p++) {
            const struct lsi_piece *piece = &s.pieces[p];
            size_t d = 0;
            REQUIRE(piece->n >= 2 && piece->n <= seq && piece->first + piece->n <= t->n_ids);
            while (t->docs[d + 1] <= piece->first)
                d++;
            CHECK(piece->first + piece->n <= t->docs[d + 1]); /* of one document */
            CHECK((piece->first - t->docs[d]) % seq == 0);
            for (size_t i = 0; i < piece->n; i++)
                CHECK(seen[piece->first + i]++ == 0);
            CHECK(packing == LSI_PACK_TIGHT || p == 0 || piece->first >= before);
            before = piece->first + piece->n;
            n += piece->n;
        }
        CHECK(n <= seq && (packing != LSI_PACK_WINDOWS || n == seq));
        CHECK(packing != LSI_PACK_NONE || s.first[k + 1] - s.first[k] == 1);
        n_tokens += n;
    }
    CHECK_INT(n_tokens, s.n_tokens);
    CHECK_INT(n_tokens + s.n_dropped, t->n_ids);
    if (packing == LSI_PACK_ORDERED) /* a sequence ends only where the next piece does not fit */
        for (size_t k = 0; k + 1 < s.n; k++) {
            size_t n = s.pieces[s.first[k + 1]].n;
            for (size_t p = s.first[k]; p < s.first[k + 1]; p++)
                n += s.pieces[p].n;
            CHECK(n > seq);
        }
    if (packing == LSI_PACK_TIGHT) /* best fit by falling length needs at most 11/9 of the best, and 1 */
        CHECK(s.n <= (n_tokens + seq - 1) / seq * 11 / 9 + 1 || t->n_ids / t->n_docs > seq / 4);
    lsi_sequences_fini(&s);
    free(seen);
}

static void test_packing(void)
{
    static const size_t longest[] = { 1, 2, 5, 30, 100, 300, 9000 };
    static const size_t seqs[] = { 2, 3, 63, 64, 65, 100, 4095, 4096, 4097, 20000 };
    for (size_t l = 0; l < LSI_LEN(longest); l++) {
        struct lsi_token_store t;
        random_documents(&t, longest[l] > 1000 ? 40 : 200, longest[l], l);
        for (size_t i = 0; i < LSI_LEN(seqs); i++)
            for (int packing = LSI_PACK_WINDOWS; packing <= LSI_PACK_TIGHT; packing++)
                check_packing(&t, seqs[i], (enum lsi_packing)packing);
        lsi_token_store_close(&t);
    }
}

/* Against the plain definition: for each piece by falling length look at every sequence. */
static void test_best_fit(void)
{
    enum {
        DOCS = 300,
        SEQ = 5000
    };
    struct lsi_token_store t;
    struct lsi_sequences s;
    ls_error err = { 0 };
    size_t room[DOCS], n = 0;
    random_documents(&t, DOCS, 3000, 77);
    for (size_t len = SEQ; len >= 2; len--)
        for (size_t d = 0; d < DOCS; d++) {
            size_t best = n;
            if (t.docs[d + 1] - t.docs[d] != len)
                continue;
            for (size_t k = 0; k < n; k++)
                if (room[k] >= len && (best == n || room[k] < room[best]))
                    best = k;
            if (best == n)
                room[n++] = SEQ;
            room[best] -= len;
        }
    REQUIRE_OK(lsi_sequences_make(&s, &t, SEQ, LSI_PACK_TIGHT, NULL, &err), err);
    CHECK_INT(s.n, n);
    lsi_sequences_fini(&s);
    lsi_token_store_close(&t);
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {
        TEST(test_digest),  TEST(test_cache),    TEST(test_wrong_content),
        TEST(test_packing), TEST(test_best_fit),
    };
    tiny_dir(dir, sizeof dir);
    const int rc = test_main(tests, sizeof tests / sizeof tests[0], argc, argv);
    tiny_remove(dir);
    return rc;
}
