/* Which file or directory is meant by the path of a model. */
#ifndef LSI_FORMATS_MODEL_PATH_H
#define LSI_FORMATS_MODEL_PATH_H

#include "base/base.h"

enum {
    LSI_MODEL_PATH = 4096 /* bytes of a path, with its NUL */
};

/**
 * What holds the model that a path names: the GGUF file itself, the Hugging Face directory itself or the one
 * that a .safetensors file stands in, or the only .gguf file of a directory without config.json.
 */
ls_status lsi_model_path(const char *path, char out[LSI_MODEL_PATH], ls_error *err);

#endif
