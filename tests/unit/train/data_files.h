/* Files of data in a folder of their own, and data opened with a small tokenizer. */
#ifndef LS_TEST_DATA_FILES_H
#define LS_TEST_DATA_FILES_H

#include "../model/tiny.h"
#include "test.h"
#include "tokenizer/tokenizer.h"
#include "train/data_impl.h"

#define FAMILIES LS_SOURCE_DIR "/tests/unit/tokenizer/data/"

static inline ls_tokenizer *open_tokenizer(const char *path)
{
    ls_error err = { 0 };
    ls_tokenizer *t = NULL;
    REQUIRE_OK(ls_tokenizer_open(path, NULL, &t, &err), err);
    return t;
}

static inline ls_tokenizer *open_smollm2(void)
{
    return open_tokenizer(LS_SOURCE_DIR "/tests/data/models/smollm2");
}

/* One of the tokenizers that the tokenizer's tests keep. */
static inline ls_tokenizer *open_family(const char *name)
{
    char path[512];
    struct lsi_map m;
    ls_error err = { 0 };
    ls_tokenizer *t = NULL;
    snprintf(path, sizeof path, FAMILIES "%s.json", name);
    REQUIRE_OK(lsi_map_open(&m, path, &err), err);
    REQUIRE_OK(lsi_tokenizer_from_json(m.data, m.bytes, name, NULL, &t, &err), err);
    lsi_map_close(&m);
    return t;
}

static inline const char *write_text(const char *dir, const char *name, const char *text)
{
    tiny_write(dir, name, text, strlen(text));
    return tiny_path(dir, name);
}

/* Options for n files with sequences of seq tokens, in order, no cache. */
static inline struct lsi_data_options data_options(const ls_tokenizer *tok, const char *const *paths,
                                                   size_t n, size_t seq)
{
    return (struct lsi_data_options){
        .paths = paths,
        .n_paths = n,
        .tok = tok,
        .tokenizer_path = "the test's",
        .seq = seq,
        .pack = true,
        .n_vocab = ls_tokenizer_n_vocab(tok),
    };
}

static inline struct lsi_data *open_data(const struct lsi_data_options *o)
{
    ls_error err = { 0 };
    struct lsi_data *d = NULL;
    REQUIRE_OK(lsi_data_open(&d, o, &err), err);
    return d;
}

static inline ls_train_sequence get_sequence(struct lsi_data *d, uint64_t i, int slot)
{
    ls_error err = { 0 };
    ls_train_sequence s;
    REQUIRE_OK(lsi_data_get(d, i, slot, &s, &err), err);
    return s;
}

/* The sentence of an opening that must fail. */
static inline const char *open_failure(const struct lsi_data_options *o, ls_status want)
{
    static ls_error err;
    struct lsi_data *d = NULL;
    err.text[0] = '\0';
    CHECK_INT(lsi_data_open(&d, o, &err), want);
    CHECK(d == NULL);
    return err.text;
}

#endif
