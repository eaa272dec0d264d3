/* tokenizer.json: whatever opens must encode and decode. */
#include "tokenizer/tokenizer.h"

#include "use_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    ls_tokenizer *tok = NULL;
    ls_error err = { 0 };
    if (lsi_tokenizer_from_json(data, bytes, "input", NULL, &tok, &err) != LS_OK) {
        FUZZ_CHECK(err.text[0] && err.status != LS_OK && !tok);
        return 0;
    }
    use_tokenizer(tok);
    ls_tokenizer_close(tok);
    return 0;
}
