/* A line of questions: whatever is accepted has what a question takes, and is a text. */
#include "eval/eval_file.h"

#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct lsi_eval_line l;
    ls_error err = { 0 };
    size_t read = 0;
    if (lsi_eval_line_read(&l, (const char *)data, bytes, "input", 1, &err) == LS_OK) {
        FUZZ_CHECK(l.input && (l.ruler || l.context));
        FUZZ_CHECK(lsi_eval_texts(&l.answers) > 0);
        for (size_t i = 0; i < lsi_eval_texts(&l.answers); i++)
            read += strlen(lsi_eval_text(&l.answers, i));
        for (size_t i = 0; i < lsi_eval_texts(&l.classes); i++)
            read += strlen(lsi_eval_text(&l.classes, i));
        FUZZ_CHECK(read <= bytes);
    } else {
        FUZZ_CHECK(strstr(err.text, "input, line 1") != NULL);
    }
    lsi_eval_line_free(&l);
    return 0;
}
