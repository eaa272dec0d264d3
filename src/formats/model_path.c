#include "formats/model_path.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The only .gguf file of a directory. */
static ls_status find_gguf(const char *dir, char out[LSI_MODEL_PATH], ls_error *err)
{
    DIR *d = opendir(dir);
    if (!d)
        return lsi_fail(err, LS_E_IO, "cannot read the directory %s: %s", dir, strerror(errno));
    size_t n = 0;
    bool fits = true;
    for (const struct dirent *e; (e = readdir(d)) != NULL;)
        if (lsi_path_has_suffix(e->d_name, ".gguf") && n++ == 0)
            fits = lsi_path_join(out, LSI_MODEL_PATH, dir, e->d_name);
    closedir(d);
    if (n == 0)
        return lsi_fail(err, LS_E_IO,
                        "%s: a model directory has config.json or a .gguf file; neither is there", dir);
    if (n > 1)
        return lsi_fail(err, LS_E_INVAL, "%s: %zu .gguf files are there; name the one to open", dir, n);
    return fits ? LS_OK : lsi_fail(err, LS_E_INVAL, "%s: the path is too long", dir);
}

static bool has_config(const char *dir)
{
    char path[LSI_MODEL_PATH];
    return lsi_path_join(path, sizeof path, dir, "config.json") && lsi_path_exists(path);
}

/* model.safetensors alone says nothing about the model: its directory does. */
static ls_status find_parent(const char *path, char out[LSI_MODEL_PATH], ls_error *err)
{
    const char *slash = strrchr(path, '/');
    if (slash)
        snprintf(out, LSI_MODEL_PATH, "%.*s", slash == path ? 1 : (int)(slash - path), path);
    else
        snprintf(out, LSI_MODEL_PATH, ".");
    if (!has_config(out))
        return lsi_fail(err, LS_E_FORMAT, "%s: there is no config.json beside it to say what the model is",
                        path);
    return LS_OK;
}

ls_status lsi_model_path(const char *path, char out[LSI_MODEL_PATH], ls_error *err)
{
    if (strlen(path) >= LSI_MODEL_PATH)
        return lsi_fail(err, LS_E_INVAL, "the path of the model has %zu bytes; at most %d are allowed",
                        strlen(path), LSI_MODEL_PATH - 1);
    if (!lsi_path_exists(path))
        return lsi_fail(
            err, LS_E_IO,
            "%s: no such file or directory (a model is a .gguf file, or a directory with config.json "
            "and model.safetensors)",
            path);
    if (lsi_path_is_dir(path) && !has_config(path))
        return find_gguf(path, out, err);
    if (!lsi_path_is_dir(path) && lsi_path_has_suffix(path, ".safetensors"))
        return find_parent(path, out, err);
    snprintf(out, LSI_MODEL_PATH, "%s", path);
    return LS_OK;
}
