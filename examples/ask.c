/*
 * Continue a text: a short, complete program with the library.
 *
 *     cc ask.c $(pkg-config --cflags --libs longspan) -o ask
 *     ./ask MODEL.gguf "The capital of France is"
 */
#include <longspan/longspan.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ls_error err;

static void must(ls_status status)
{
    if (status != LS_OK) {
        fprintf(stderr, "error: %s\n", err.text);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL TEXT\n", argv[0]);
        return 2;
    }
    ls_model *model;
    ls_tokenizer *tok;
    ls_context *ctx;
    ls_sampler *sampler;
    ls_detokenizer *out;
    int32_t *ids;
    size_t n_ids, len;
    const char *text;
    bool stopped;

    ls_context_options options;
    ls_context_options_defaults(&options);
    ls_sampler_options choice;
    ls_sampler_options_defaults(&choice);
    choice.temperature = 0; /* always the likeliest token */
    must(ls_model_open(argv[1], NULL, &model, &err));
    must(ls_tokenizer_open(argv[1], NULL, &tok, &err));
    must(ls_context_create(model, &options, &ctx, &err));
    must(ls_sampler_create(&choice, ls_context_n_vocab(ctx), NULL, &sampler, &err));
    must(ls_detokenizer_create(tok, true, NULL, 0, &out, &err));
    must(ls_tokenizer_encode(tok, argv[2], strlen(argv[2]), LS_ENCODE_ADD_SPECIAL, &ids, &n_ids, &err));

    float *logits = malloc(ls_context_n_vocab(ctx) * sizeof *logits);
    if (!logits)
        return 1;
    must(ls_context_append(ctx, ids, n_ids, logits, &err));
    for (int i = 0; i < 64; i++) {
        const int32_t id = ls_sampler_choose(sampler, logits);
        if (ls_tokenizer_is_stop(tok, id))
            break;
        must(ls_detokenizer_push(out, id, &text, &len, &stopped));
        fwrite(text, 1, len, stdout);
        must(ls_context_append(ctx, &id, 1, logits, &err));
    }
    putchar('\n');

    free(logits);
    ls_tokenizer_ids_free(tok, ids, n_ids);
    ls_detokenizer_free(out);
    ls_sampler_free(sampler);
    ls_context_free(ctx);
    ls_tokenizer_close(tok);
    ls_model_close(model);
    return 0;
}
