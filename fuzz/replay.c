/*
 * Feeds every file of the given folders to a fuzz target: the committed corpus as
 * an ordinary test, without libFuzzer. Each input lies in a block of exactly its
 * size, so that a sanitizer sees reads past its end.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

/* 0 when the file was fed to the target. */
static int replay_file(const char *path, size_t bytes)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(bytes ? bytes : 1);
    int rc = 1;
    if (f && data && fread(data, 1, bytes, f) == bytes) {
        fprintf(stderr, "%s\n", path); /* before the call: the last line names the input that failed */
        LLVMFuzzerTestOneInput(data, bytes);
        rc = 0;
    } else {
        fprintf(stderr, "cannot read %s\n", path);
    }
    free(data);
    if (f)
        fclose(f);
    return rc;
}

/* Number of files replayed, or -1 on failure. */
static long replay_dir(const char *dir)
{
    struct dirent **entries;
    const int n = scandir(dir, &entries, NULL, alphasort);
    if (n < 0) {
        perror(dir);
        return -1;
    }
    long done = 0;
    for (int i = 0; i < n; i++) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, entries[i]->d_name);
        if (done >= 0 && stat(path, &st) == 0 && S_ISREG(st.st_mode))
            done = replay_file(path, (size_t)st.st_size) == 0 ? done + 1 : -1;
        free(entries[i]);
    }
    free(entries);
    return done;
}

int main(int argc, char **argv)
{
    long total = 0;
    for (int i = 1; i < argc; i++) {
        const long n = replay_dir(argv[i]);
        if (n < 0)
            return 1;
        total += n;
    }
    fprintf(stderr, "%ld inputs\n", total);
    return total > 0 ? 0 : 1; /* an empty corpus tests nothing */
}
