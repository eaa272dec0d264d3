/* A trained adapter into the matrices of its model. */
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
    const int status = check_paths(o);

    return status == EXIT_OK ? cli_convert(o, o->model, o->adapter, o->out) : status;
}
