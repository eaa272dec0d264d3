/* GGUF to Hugging Face directory and back, with quantisation. */
#include <string.h>
#include <sys/stat.h>

#include "cli_options.h"

/* Input and output from -m, -o and the arguments that are no options. */
static int find_paths(const struct cli_options *o, const char **in, const char **out)
{
    size_t used = 0;

    *in = o->model ? o->model : used < o->rest.n ? o->rest.items[used++] : NULL;
    *out = o->out ? o->out : used < o->rest.n ? o->rest.items[used++] : NULL;
    if (!*in)
        return cli_usage("nothing to convert: longspan convert IN OUT");
    if (!*out)
        return cli_usage("no name for the result: longspan convert IN OUT");
    if (used < o->rest.n)
        return cli_usage("unexpected argument '%s': convert takes one input and one output",
                         o->rest.items[used]);
    return EXIT_OK;
}

int cli_convert(const struct cli_options *o, const char *in, const char *adapter, const char *out)
{
    const double started = now_seconds();
    ls_convert_options c;
    ls_error err = { 0 };
    struct progress progress;
    struct stat info;
    char took[32];

    if (!o->force && lstat(out, &info) == 0)
        return cli_fail("'%s' is there already; --force replaces it", out);
    progress_start(&progress, o->command->name, "tensors", o->quiet);
    ls_convert_options_defaults(&c);
    c.format = strcmp(o->format, "auto") == 0 ? NULL : o->format;
    c.dtype = o->dtype;
    c.force = o->force;
    c.progress = progress_update;
    c.progress_user = &progress;
    c.cancel = &cli_cancel;
    const ls_status st =
        adapter ? ls_merge_adapter(in, adapter, out, &c, &err) : ls_convert(in, out, &c, &err);
    progress_end(&progress);
    if (st == LS_E_CANCELED) {
        cli_note(o->quiet, "interrupted; nothing was written");
        return EXIT_INTERRUPTED;
    }
    if (st != LS_OK)
        return cli_fail("%s", err.text);
    cli_note(o->quiet, "'%s' written in %s", out, format_seconds(took, now_seconds() - started));
    return EXIT_OK;
}

int cmd_convert(const struct cli_options *o)
{
    const char *in, *out;
    const int status = find_paths(o, &in, &out);

    return status == EXIT_OK ? cli_convert(o, in, NULL, out) : status;
}
