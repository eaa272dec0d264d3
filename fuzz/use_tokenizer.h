/* What every tokenizer that opens must be able to do. */
#ifndef LS_FUZZ_USE_TOKENIZER_H
#define LS_FUZZ_USE_TOKENIZER_H

#include <string.h>

#include <longspan/tokenizer.h>

#include "fuzz.h"

static void use_text(const ls_tokenizer *tok, const char *text, unsigned flags)
{
    ls_error err = { 0 };
    int32_t *ids;
    size_t n;
    if (ls_tokenizer_encode(tok, text, strlen(text), flags, &ids, &n, &err) != LS_OK) {
        FUZZ_CHECK(err.text[0]);
        return;
    }
    for (size_t i = 0; i < n; i++)
        FUZZ_CHECK(ids[i] >= 0 && (size_t)ids[i] < ls_tokenizer_n_vocab(tok));
    char *back;
    size_t len;
    if (ls_tokenizer_decode(tok, ids, n, true, &back, &len, &err) == LS_OK)
        ls_tokenizer_text_free(tok, back, len);
    ls_tokenizer_ids_free(tok, ids, n);
}

static void use_tokenizer(const ls_tokenizer *tok)
{
    static const char *const texts[] = {
        "",
        " ",
        "Hello  world, it's 1234 o'clock\n\n",
        "caf\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x99\x82\t",
        "broken \xff\xc3 text",
        "<s>[INST] <|im_start|>user</s> <unk><a><b>",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        use_text(tok, texts[i], i % 2 ? LS_ENCODE_ADD_SPECIAL : LS_ENCODE_PARSE_SPECIAL);
    const size_t n = ls_tokenizer_n_vocab(tok);
    for (size_t i = 0; i < n && i < 64; i++) {
        size_t len;
        const char *piece = ls_tokenizer_piece(tok, (int32_t)(i % 2 ? n - 1 - i : i), true, &len);
        FUZZ_CHECK(piece || len == 0);
    }
    FUZZ_CHECK(ls_tokenizer_bos(tok) < (int64_t)n && ls_tokenizer_eos(tok) < (int64_t)n);
    ls_tokenizer_find(tok, "a", 1);
}

#endif
