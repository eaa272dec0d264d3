/* What every token store must be good for: its documents can be cut and packed in every way. */
#ifndef LS_FUZZ_USE_TOKENS_H
#define LS_FUZZ_USE_TOKENS_H

#include "train/data_impl.h"

#include "fuzz.h"

static void use_sequences(const struct lsi_token_store *t, size_t seq, enum lsi_packing packing)
{
    struct lsi_sequences s;
    ls_error err = { 0 };
    FUZZ_CHECK(lsi_sequences_make(&s, t, seq, packing, NULL, &err) == LS_OK);
    uint64_t n_tokens = 0;
    for (size_t k = 0; k < s.n; k++) {
        size_t n = 0;
        FUZZ_CHECK(s.first[k] < s.first[k + 1]);
        for (size_t p = s.first[k]; p < s.first[k + 1]; p++) {
            FUZZ_CHECK(s.pieces[p].first + s.pieces[p].n <= t->n_ids);
            n += s.pieces[p].n;
        }
        FUZZ_CHECK(n <= seq);
        n_tokens += n;
    }
    FUZZ_CHECK(n_tokens == s.n_tokens && n_tokens + s.n_dropped == t->n_ids);
    lsi_sequences_fini(&s);
}

static void use_tokens(const struct lsi_token_store *t)
{
    static const size_t seqs[] = { 2, 7, 64, 5000 };
    for (size_t i = 0; i < LSI_LEN(seqs); i++)
        for (int packing = LSI_PACK_WINDOWS; packing <= LSI_PACK_TIGHT; packing++)
            use_sequences(t, seqs[i], (enum lsi_packing)packing);
}

#endif
