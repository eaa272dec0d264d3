/* A trained adapter into the matrices of its model. */
#include <string.h>
#include <sys/stat.h>

#include "cli_options.h"

static int check_paths(const struct cli_options *o)
{
    if (!o->model)
        return cli_usage("which model? longspan merge -m MODEL --adapter DIR -o OUT");
    if (!o->adapter)
        return cli_usage("which adapter? longspan merge -m MODEL --adapter DIR -o OUT");
    if (!o->out)
        return cli_usage("no name for the result: longspan merge -m MODEL --adapter DIR -o OUT");
    return EXIT_OK;
}

int cmd_merge(const struct cli_options *o)
{
    const double started = now_seconds();
    ls_convert_options c;
    ls_error err = { 0 };
    struct progress progress;
    struct stat info;
    char took[32];
    const int status = check_paths(o);

    if (status != EXIT_OK)
        return status;
    if (!o->force && lstat(o->out, &info) == 0)
        return cli_fail("'%s' is there already; --force replaces it", o->out);
    progress_start(&progress, "merge", "tensors", o->quiet);
    ls_convert_options_defaults(&c);
    c.format = strcmp(o->format, "auto") == 0 ? NULL : o->format;
    c.dtype = o->dtype;
    c.force = o->force;
    c.progress = progress_update;
    c.progress_user = &progress;
    c.cancel = &cli_cancel;
    const ls_status st = ls_merge_adapter(o->model, o->adapter, o->out, &c, &err);
    progress_end(&progress);
    if (st == LS_E_CANCELED) {
        cli_note(o->quiet, "interrupted; nothing was written");
        return EXIT_INTERRUPTED;
    }
    if (st != LS_OK)
        return cli_fail("%s", err.text);
    cli_note(o->quiet, "'%s' written in %s", o->out, format_seconds(took, now_seconds() - started));
    return EXIT_OK;
}
