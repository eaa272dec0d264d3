/* What tests of files need from outside: a folder of their own. */
#ifndef TEST_OUTSIDE_H
#define TEST_OUTSIDE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char temp_dir_path[64];

static inline const char *temp_dir(void)
{
    if (!temp_dir_path[0]) {
        strcpy(temp_dir_path, "/tmp/ls-test-XXXXXX");
        if (!mkdtemp(temp_dir_path))
            abort();
    }
    return temp_dir_path;
}

static inline void temp_dir_remove(void)
{
    char command[128];
    if (!temp_dir_path[0])
        return;
    snprintf(command, sizeof command, "rm -rf %s", temp_dir_path);
    if (system(command) != 0)
        fprintf(stderr, "cannot remove %s\n", temp_dir_path);
}

#endif
