/* safetensors: whatever opens can be read to its last byte, and its tensors fill the file exactly. */
#include "formats/safetensors.h"

#include <string.h>

#include "fuzz.h"

static unsigned long sink; /* keeps the reads */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct lsi_safetensors s;
    ls_error err = { 0 };
    if (lsi_st_parse(&s, data, bytes, "input", NULL, &err) != LS_OK) {
        FUZZ_CHECK(err.text[0] && err.status != LS_OK);
        return 0;
    }
    size_t total = 0;
    for (size_t i = 0; i < s.n_tensors; i++) {
        const struct lsi_st_tensor *t = &s.tensors[i];
        for (size_t k = 0; k < t->bytes; k++)
            sink += t->data[k];
        total += t->bytes;
        FUZZ_CHECK(t->rank <= LSI_ST_MAX_RANK && lsi_st_find(&s, t->name) == t);
    }
    uint64_t header;
    memcpy(&header, data, sizeof header);
    FUZZ_CHECK(total == bytes - 8 - header);
    lsi_st_close(&s);
    return 0;
}
