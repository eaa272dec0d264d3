/* The data that the options of a run name. */
#include "train/data.h"

#include <string.h>

ls_status lsi_data_tokenizer_path(const ls_train_options *o, char path[LSI_MODEL_PATH], ls_error *err)
{
    const char *named = o->tokenizer ? o->tokenizer : o->model ? o->model : o->init;
    if (!named)
        return lsi_fail(err, LS_E_INVAL, "training takes a model, or a config.json to begin from (init)");
    const char *slash = strrchr(named, '/');
    const bool folder = (named == o->init && !lsi_path_is_dir(named)) ||
                        lsi_path_has_suffix(named, "tokenizer.json") ||
                        lsi_path_has_suffix(named, "tokenizer.model");
    const size_t len = !folder ? strlen(named) : slash ? (size_t)(slash - named) + 1 : 0;
    if (len >= LSI_MODEL_PATH)
        return lsi_fail(err, LS_E_INVAL, "the path of the tokenizer is too long: %.200s", named);
    memcpy(path, named, len);
    path[len] = '\0';
    if (len == 0)
        memcpy(path, ".", 2);
    return LS_OK;
}

void lsi_data_run_options(struct lsi_data_options *d, const ls_train_options *o, bool eval,
                          const ls_tokenizer *tok, const char *tokenizer_path, size_t n_vocab)
{
    *d = (struct lsi_data_options){
        .paths = eval ? &o->eval_data : o->data,
        .n_paths = eval ? o->eval_data != NULL : o->n_data,
        .format = o->format,
        .tok = tok,
        .tokenizer_path = tokenizer_path,
        .chat_template = o->chat_template,
        .seq = o->seq,
        .shuffle = o->shuffle && !eval,
        .pack = o->pack,
        .seed = o->seed,
        .cache_dir = o->token_cache,
        .n_vocab = n_vocab,
        .progress = o->on_data,
        .progress_user = o->user,
        .n_slots = (int)lsi_max_size(o->accumulate, LSI_DATA_SLOTS),
        .cancel = o->cancel,
        .alloc = o->alloc,
    };
}
