/*
 * libedit where the build found it, plain lines otherwise. The history is
 * ${XDG_STATE_HOME:-~/.local/state}/longspan/history, readable by its owner alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "line_input.h"

#ifdef LS_HAVE_LIBEDIT
#include <histedit.h>
#endif

struct line_input {
    char *plain; /* of getline */
    size_t cap_plain;
    bool interactive;
#ifdef LS_HAVE_LIBEDIT
    EditLine *edit;
    History *history;
    struct text history_path;
#endif
};

static const char prompt_text[] = "> ";

#ifdef LS_HAVE_LIBEDIT
enum {
    HISTORY_LINES = 1000
};

static char *edit_prompt(EditLine *e)
{
    static char text[sizeof prompt_text];

    (void)e;
    memcpy(text, prompt_text, sizeof text);
    return text;
}

/* The history file's path, its folder made; empty when there is no place for it. */
static void find_history(struct text *path)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");

    if (state && *state)
        text_puts(path, state);
    else if (home && *home)
        text_printf(path, "%s/.local/state", home);
    else
        return;
    text_puts(path, "/longspan/history");
    for (char *p = path->data + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        mkdir(path->data, 0700);
        *p = '/';
    }
}

static void open_editor(struct line_input *in)
{
    HistEvent ev;

    in->edit = el_init("longspan", stdin, stderr, stderr);
    in->history = history_init();
    if (!in->edit || !in->history)
        return;
    history(in->history, &ev, H_SETSIZE, HISTORY_LINES);
    history(in->history, &ev, H_SETUNIQUE, 1);
    el_set(in->edit, EL_EDITOR, "emacs");
    el_set(in->edit, EL_PROMPT, edit_prompt);
    el_set(in->edit, EL_HIST, history, in->history);
    el_set(in->edit, EL_SIGNAL, 0);
    el_set(in->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(in->edit, NULL);
    find_history(&in->history_path);
    if (in->history_path.len)
        history(in->history, &ev, H_LOAD, in->history_path.data);
}

static enum line_result read_edited(struct line_input *in, const char **line, size_t *len)
{
    HistEvent ev;
    int n = 0;

    errno = 0;
    const char *s = el_gets(in->edit, &n);
    if (!s || n <= 0) {
        const bool interrupted = cli_cancel || errno == EINTR;
        fputc('\n', stderr);
        if (interrupted)
            el_reset(in->edit);
        return interrupted ? LINE_INTERRUPTED : LINE_END;
    }
    *line = s;
    *len = (size_t)n;
    if (*len && s[*len - 1] == '\n')
        --*len;
    if (strspn(s, " \t\n") < (size_t)n) {
        history(in->history, &ev, H_ENTER, s);
        if (in->history_path.len) {
            const mode_t mask = umask(0077);
            history(in->history, &ev, H_SAVE, in->history_path.data);
            umask(mask);
        }
    }
    return LINE_TEXT;
}
#endif

struct line_input *line_input_open(bool interactive)
{
    struct line_input *in = cli_realloc(NULL, 1, sizeof *in);

    memset(in, 0, sizeof *in);
    in->interactive = interactive;
#ifdef LS_HAVE_LIBEDIT
    if (interactive)
        open_editor(in);
#endif
    return in;
}

void line_input_close(struct line_input *in)
{
    if (!in)
        return;
#ifdef LS_HAVE_LIBEDIT
    if (in->edit)
        el_end(in->edit);
    if (in->history)
        history_end(in->history);
    text_free(&in->history_path);
#endif
    free(in->plain);
    free(in);
}

enum line_result line_input_read(struct line_input *in, const char **line, size_t *len)
{
    ssize_t n;

#ifdef LS_HAVE_LIBEDIT
    if (in->interactive && in->edit && in->history)
        return read_edited(in, line, len);
#endif
    if (in->interactive)
        fputs(prompt_text, stderr);
    n = getline(&in->plain, &in->cap_plain, stdin);
    if (n < 0) {
        clearerr(stdin);
        return cli_cancel ? LINE_INTERRUPTED : LINE_END;
    }
    if (n && in->plain[n - 1] == '\n')
        n--;
    *line = in->plain;
    *len = (size_t)n;
    return LINE_TEXT;
}
