/* A token cache with a digest that is right: what opens can be cut and packed. */
#include <string.h>

#include "use_tokens.h"

enum {
    KEY = 16, /* where it stands in the header */
    DIGEST = 56,
    HEADER = 64,
    N_VOCAB = 100
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct lsi_token_store s;
    ls_error err = { 0 };
    uint64_t key = 0;
    unsigned char *p = lsi_alloc(NULL, bytes); /* aligned as a mapping is */
    FUZZ_CHECK(p);
    if (bytes)
        memcpy(p, data, bytes);
    if (bytes >= HEADER) {
        struct lsi_digest d;
        lsi_digest_init(&d);
        lsi_digest_add(&d, p + HEADER, bytes - HEADER);
        lsi_digest_add(&d, p, DIGEST);
        const uint64_t digest = lsi_digest_get(&d);
        memcpy(p + DIGEST, &digest, sizeof digest);
        memcpy(&key, p + KEY, sizeof key);
    }
    if (lsi_token_store_parse(&s, p, bytes, "input", key, N_VOCAB, &err) == LS_OK) {
        for (size_t i = 0; i < s.n_ids; i++)
            FUZZ_CHECK(s.ids[i] >= 0 && s.ids[i] < N_VOCAB);
        use_tokens(&s);
    } else {
        FUZZ_CHECK(err.text[0]);
    }
    lsi_token_store_close(&s);
    lsi_free(NULL, p, bytes);
    return 0;
}
