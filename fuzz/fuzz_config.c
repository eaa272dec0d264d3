/* config.json: every description that is accepted stays within the limits. */
#include "model/config.h"

#include "fuzz.h"

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
    lsi_config_add_generation(&c, data, bytes, "input", &err);
    double inv_freq[LSI_MAX_HEAD / 2];
    lsi_rope_frequencies(&c.rope[0], c.freq_divisors, c.D, inv_freq);
    lsi_rope_frequencies(&c.rope[1], NULL, c.D, inv_freq);
    lsi_config_fini(&c);
    return 0;
}
