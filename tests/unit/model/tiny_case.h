/* What tests that work in a folder of their own share: the folder, the last error, a model in the folder. */
#ifndef TINY_CASE_H
#define TINY_CASE_H

#include "test.h"
#include "tiny.h"

#include <sys/stat.h>

static ls_error err;
static char dir[256];

static inline void begin_dir(void)
{
    memset(&err, 0, sizeof err);
    tiny_dir(dir, sizeof dir);
}

static inline void end_dir(void)
{
    tiny_remove(dir);
}

/* A folder with a model in dir/in. */
static inline void begin_model(const char *config, enum lsi_dtype dtype)
{
    begin_dir();
    mkdir(tiny_path(dir, "in"), 0777);
    tiny_model(tiny_path(dir, "in"), &(struct tiny_spec){ .config = config, .dtype = dtype });
}

static inline ls_model *open_model(const char *name)
{
    ls_model *m = NULL;
    REQUIRE_OK(ls_model_open(tiny_path(dir, name), NULL, &m, &err), err);
    return m;
}

#endif
