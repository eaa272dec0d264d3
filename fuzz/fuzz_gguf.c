/* GGUF: whatever opens can be read to its last byte. */
#include "formats/gguf.h"

#include "fuzz.h"

static unsigned long sink; /* keeps the reads */

static void use_pair(const struct lsi_gguf_kv *kv)
{
    struct lsi_str s;
    size_t cursor = 0;
    uint64_t n_strings = 0;
    while (lsi_gguf_next_str(kv, &cursor, &s)) {
        for (size_t i = 0; i < s.len; i++)
            sink += (unsigned char)s.s[i];
        n_strings++;
    }
    FUZZ_CHECK(n_strings == 0 || n_strings == kv->count);
    for (uint64_t i = 0; i < kv->count && i < 100; i++) {
        int64_t v;
        double d;
        if (lsi_gguf_elem_i64(kv, kv->count - 1 - i, &v))
            FUZZ_CHECK(lsi_gguf_elem_f64(kv, kv->count - 1 - i, &d));
        else if (lsi_gguf_elem_f64(kv, i, &d))
            sink += d > 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct lsi_gguf g;
    ls_error err = { 0 };
    if (lsi_gguf_parse(&g, data, bytes, "input", NULL, &err) != LS_OK) {
        FUZZ_CHECK(err.text[0] && err.status != LS_OK);
        return 0;
    }
    for (size_t i = 0; i < g.n_kv; i++)
        use_pair(&g.kv[i]);
    uint64_t u;
    sink += lsi_gguf_get_u64(&g, "general.alignment", &u);
    for (size_t i = 0; i < g.n_tensors; i++) {
        const struct lsi_gguf_tensor *t = &g.tensors[i];
        FUZZ_CHECK(t->n_dims >= 1 && t->n_dims <= 4 && t->offset % g.alignment == 0);
        for (size_t k = 0; k < t->bytes; k++)
            sink += t->data[k];
        FUZZ_CHECK(lsi_gguf_type_name(t->type_id)[0]);
    }
    lsi_gguf_close(&g);
    return 0;
}
