/* config.json: every description that is accepted stays within the limits, and says what it was patched to
 * say. */
#include "model/config.h"

#include "fuzz.h"
#include "model/hf_dir.h"

/* Another context and another base, written into the text and read back. */
static void check_patched(struct lsi_config *c, const uint8_t *data, size_t bytes)
{
    struct lsi_config again;
    struct lsi_buf b;
    ls_error err = { 0 };
    c->n_ctx_train = 12345;
    c->rope[0].base = 54321;
    lsi_buf_init(&b, lsi_alloc_or_default(NULL), (size_t)1 << 24);
    FUZZ_CHECK(lsi_config_patch_json(data, bytes, "input", c, LSI_BF16, &b, &err) == LS_OK && !b.failed);
    FUZZ_CHECK(lsi_config_from_json(&again, b.data, b.len, "patched", NULL, &err) == LS_OK);
    FUZZ_CHECK(again.n_ctx_train == 12345 && again.rope[0].base == 54321 && again.tied == c->tied);
    FUZZ_CHECK(again.family == c->family && again.L == c->L && again.C == c->C && again.V == c->V);
    FUZZ_CHECK(again.rope[0].scaling == c->rope[0].scaling && again.rope[0].factor == c->rope[0].factor);
    lsi_config_fini(&again);
    lsi_buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct lsi_config c;
    ls_error err = { 0 };
    if (lsi_config_from_json(&c, data, bytes, "input", NULL, &err) != LS_OK) {
        FUZZ_CHECK(err.text[0] && err.status != LS_OK);
        return 0;
    }
    FUZZ_CHECK(c.family && c.L <= LSI_MAX_LAYERS && c.C <= LSI_MAX_WIDTH && c.H <= LSI_MAX_HEADS);
    FUZZ_CHECK(c.G >= 1 && c.H % c.G == 0 && c.D <= LSI_MAX_HEAD && c.n_eos <= LSI_MAX_EOS);
    double inv_freq[LSI_MAX_HEAD / 2];
    lsi_rope_frequencies(&c.rope[0], c.freq_divisors, c.D, inv_freq);
    lsi_rope_frequencies(&c.rope[1], NULL, c.D, inv_freq);
    check_patched(&c, data, bytes);
    lsi_config_add_generation(&c, data, bytes, "input", &err);
    lsi_config_fini(&c);
    return 0;
}
