/* Which model is meant when -m does not say. */
#include <stdlib.h>
#include <unistd.h>

#include "cli_options.h"

static const char default_model[] = "longspan/SmolLM2-135M-Instruct.Q4_1.gguf";

char *find_model(const struct cli_options *o)
{
    const char *named = o->model ? o->model : getenv("LONGSPAN_MODEL");
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    struct text path = { 0 };

    if (named && *named) {
        text_puts(&path, named);
        return path.data;
    }
    if (cache && *cache)
        text_printf(&path, "%s/%s", cache, default_model);
    else
        text_printf(&path, "%s/.cache/%s", home ? home : "", default_model);
    if (access(path.data, R_OK) == 0)
        return path.data;
    cli_usage(
        "no model: name a GGUF file or a Hugging Face directory with -m PATH, or run ./demo once, which "
        "fetches SmolLM2 to '%s'",
        path.data);
    text_free(&path);
    return NULL;
}
