/* The model description and the tokenizer in the metadata of a GGUF file. */
#include "formats/gguf.h"
#include "model/config.h"
#include "tokenizer/tokenizer.h"

#include "use_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct lsi_gguf g;
    ls_error err = { 0 };
    if (lsi_gguf_parse(&g, data, bytes, "input", NULL, &err) != LS_OK)
        return 0;
    struct lsi_config c;
    if (lsi_config_from_gguf(&c, &g, "input", NULL, &err) == LS_OK) {
        FUZZ_CHECK(c.L <= LSI_MAX_LAYERS && c.C <= LSI_MAX_WIDTH && c.H <= LSI_MAX_HEADS &&
                   c.V <= LSI_MAX_VOCAB);
        lsi_config_fini(&c);
    } else {
        FUZZ_CHECK(err.text[0]);
    }
    ls_tokenizer *tok = NULL;
    err = (ls_error){ 0 };
    if (lsi_tokenizer_from_gguf(&g, NULL, &tok, &err) == LS_OK) {
        use_tokenizer(tok);
        ls_tokenizer_close(tok);
    } else {
        FUZZ_CHECK(err.text[0] && !tok);
    }
    lsi_gguf_close(&g);
    return 0;
}
