/*
 * Small tokenizers of every family with the ids recorded for tricky texts: tokenizer.json files by the
 * `tokenizers` library, tokenizer.model files by SentencePiece (scripts/make-golden/small_tokenizers.py).
 */
#ifndef LS_TEST_RECORDED_H
#define LS_TEST_RECORDED_H

#include "test.h"
#include "tokenizer/tokenizer.h"

#define DATA LS_SOURCE_DIR "/tests/unit/tokenizer/data/"

/* The tokenizer.json files; the SentencePiece models. */
static const char *const families[] = { "gpt2", "smollm", "llama3", "qwen2", "other", "llama2", "gemma" };
static const char *const models[] = { "spm", "spm-bare" };

typedef ls_status open_fn(const void *data, size_t bytes, const char *name, const ls_alloc *alloc,
                          ls_tokenizer **tok, ls_error *err);

static inline ls_tokenizer *open_recorded(const char *name, const char *suffix, open_fn *fn)
{
    char path[512];
    ls_error err = { 0 };
    struct lsi_map m;
    ls_tokenizer *t = NULL;
    snprintf(path, sizeof path, DATA "%s%s", name, suffix);
    REQUIRE_OK(lsi_map_open(&m, path, &err), err);
    const ls_status st = fn(m.data, m.bytes, path, NULL, &t, &err);
    lsi_map_close(&m);
    REQUIRE_OK(st, err);
    return t;
}

static inline ls_tokenizer *open_family(const char *name)
{
    return open_recorded(name, ".json", lsi_tokenizer_from_json);
}

static inline ls_tokenizer *open_model(const char *name)
{
    return open_recorded(name, ".model", lsi_tokenizer_from_sentencepiece);
}

static inline size_t from_hex(const char *hex, char *out)
{
    size_t n = 0;
    unsigned v;
    while (hex[0] != '-' && sscanf(hex, "%2x", &v) == 1 && hex[0] != ' ') {
        out[n++] = (char)v;
        hex += 2;
    }
    return n;
}

/* Every line of the recorded file; returns how many were wrong. */
static inline int check_ids(const ls_tokenizer *t, const char *name, unsigned flags)
{
    char path[512], line[8192], text[2048];
    ls_error err = { 0 };
    int wrong = 0, row = 0;
    snprintf(path, sizeof path, DATA "%s.ids", name);
    FILE *f = fopen(path, "r");
    REQUIRE(f != NULL);
    while (fgets(line, sizeof line, f)) {
        if (line[0] == '#')
            continue;
        row++;
        const size_t len = from_hex(line, text);
        int32_t *ids;
        size_t n, i = 0;
        REQUIRE_OK(ls_tokenizer_encode(t, text, len, flags, &ids, &n, &err), err);
        bool same = true;
        for (char *p = strchr(line, ' '); p; p = strchr(p + 1, ' '), i++)
            same &= i < n && ids[i] == atoi(p);
        if (!same || i != n) {
            wrong++;
            fprintf(stderr, "  %s: text %d differs: \"%.*s\"\n", name, row, (int)len, text);
        }
        ls_tokenizer_ids_free(t, ids, n);
    }
    fclose(f);
    CHECK(row > 40);
    return wrong;
}

#endif
