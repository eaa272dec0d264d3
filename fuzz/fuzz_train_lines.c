/* Lines of training data, texts and conversations: whatever is read can be cut and packed. */
#include "tokenizer/tokenizer.h"

#include <string.h>

#include "use_tokens.h"

/* Byte-level, with few letters: most texts have bytes that it cannot express. */
static const char tokenizer[] =
    "{\"added_tokens\": [{\"id\": 0, \"content\": \"<|im_start|>\", \"special\": true},"
    "{\"id\": 1, \"content\": \"<|im_end|>\", \"special\": true}],"
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": true},"
    "\"decoder\": {\"type\": \"ByteLevel\"},"
    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"<|im_start|>\": 0, \"<|im_end|>\": 1, \"h\": 2, \"e\": 3, "
    "\"l\": 4, "
    "\"o\": 5, \"w\": 6, \"r\": 7, \"d\": 8, \"\\u0120\": 9, \"\\u010a\": 10, \"ll\": 11, \"ell\": 12, "
    "\"u\": 13, "
    "\"s\": 14, \"a\": 15, \"i\": 16, \"t\": 17, \"n\": 18, \"he\": 19},"
    "\"merges\": [\"l l\", \"e ll\", \"h e\"]}}";

static void read_as(const struct lsi_data_file *file, ls_train_format format, const ls_tokenizer *tok,
                    const ls_chat_template *chat)
{
    struct lsi_data_file f = *file;
    struct lsi_token_writer w;
    struct lsi_token_store s;
    ls_error err = { 0 };
    f.format = format;
    FUZZ_CHECK(lsi_token_writer_open(&w, NULL, 0, format == LS_TRAIN_CHAT, NULL, &err) == LS_OK);
    struct lsi_data_reader r = {
        .tok = tok, .chat = chat, .n_vocab = ls_tokenizer_n_vocab(tok), .out = &w, .total_bytes = f.bytes
    };
    lsi_buf_init(&r.text, NULL, SIZE_MAX / 4);
    if (lsi_data_read_file(&r, &f, &err) == LS_OK) {
        FUZZ_CHECK(r.done_bytes <= f.bytes);
        FUZZ_CHECK(lsi_token_writer_finish(&w, &s, r.n_vocab, &err) == LS_OK);
        use_tokens(&s);
        lsi_token_store_close(&s);
    } else {
        FUZZ_CHECK(strstr(err.text, "input") != NULL);
    }
    lsi_token_writer_close(&w);
    lsi_buf_fini(&r.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static ls_tokenizer *tok;
    static ls_chat_template *chat;
    ls_error err = { 0 };
    if (!tok) {
        FUZZ_CHECK(lsi_tokenizer_from_json(tokenizer, sizeof tokenizer - 1, "", NULL, &tok, &err) == LS_OK);
        FUZZ_CHECK(ls_chat_template_open(tok, "chatml", &chat, &err) == LS_OK);
    }
    const struct lsi_data_file f = { .path = "input", .data = (const char *)data, .bytes = bytes };
    ls_train_format format;
    if (lsi_data_detect(&f, &format, &err) != LS_OK)
        FUZZ_CHECK(strstr(err.text, "input") != NULL);
    read_as(&f, LS_TRAIN_JSONL, tok, chat);
    read_as(&f, LS_TRAIN_CHAT, tok, chat);
    read_as(&f, LS_TRAIN_TEXT, tok, chat);
    return 0;
}
