/*
 * What the sub-commands share: messages, text buffers, JSON output, signals.
 * Results go to stdout, everything else to stderr.
 */
#ifndef LONGSPAN_CLI_H
#define LONGSPAN_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <longspan/longspan.h>

#define CLI_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Exit statuses of every command. */
enum {
    EXIT_OK = 0,
    EXIT_ERROR = 1,         /* something failed while working: a file, the memory */
    EXIT_USAGE = 2,         /* the command line is wrong */
    EXIT_INTERRUPTED = 130, /* Ctrl-C; what there was has been printed */
};

struct cli_options;

/** One sub-command. run gets checked options and returns an exit status. */
struct command {
    const char *name;
    unsigned bit; /* its bit in the rows of options.def */
    int (*run)(const struct cli_options *o);
    const char *summary;     /* a line for the list of commands */
    const char *usage;       /* after the program's name, '\n' between forms */
    const char *description; /* paragraphs */
    const char *examples;    /* lines */
};

int cmd_generate(const struct cli_options *o);
int cmd_chat(const struct cli_options *o);
int cmd_perplexity(const struct cli_options *o);
int cmd_tokenize(const struct cli_options *o);
int cmd_info(const struct cli_options *o);
int cmd_convert(const struct cli_options *o);
int cmd_bench(const struct cli_options *o);
int cmd_merge(const struct cli_options *o);
int cmd_inspect(const struct cli_options *o);
int cmd_plan(const struct cli_options *o);
int cmd_train(const struct cli_options *o);
int cmd_eval(const struct cli_options *o);
int cmd_verify_training(const struct cli_options *o);

/* ---- messages (cli_text.c) ------------------------------------------------ */

/** "longspan: sentence" on stderr; returns EXIT_ERROR. */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/** The same for a mistake of the command line; returns EXIT_USAGE. */
int cli_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/** Something worth knowing, on stderr, unless quiet. */
void cli_note(bool quiet, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Memory that is there: ends the program with a sentence when there is none. */
void *cli_realloc(void *ptr, size_t n, size_t size);

/* ---- growing text (cli_text.c) -------------------------------------------- */

/** Zero-initialise; data is NUL-terminated once something was added. */
struct text {
    char *data;
    size_t len, cap;
};

void text_add(struct text *t, const void *data, size_t n);
void text_puts(struct text *t, const char *s);
void text_printf(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_clear(struct text *t);
void text_free(struct text *t);
/** Append a whole file ("-": standard input). False after a message on stderr. */
bool text_read_file(struct text *t, const char *path);

/** "1.5 GB", "23.0 KB": decimal units; out holds 32 bytes. */
const char *format_bytes(char *out, double bytes);
/** "1.50 GiB": binary units; out holds 32 bytes. */
const char *format_binary(char *out, double bytes);
/** "43 s", "2 min 05 s", "1 h 02 min"; out holds 32 bytes. */
const char *format_seconds(char *out, double seconds);
double now_seconds(void);
/** Width of the terminal behind stderr or, without one there, stdout; 0 when there is none. */
size_t terminal_columns(void);

/* ---- JSON (cli_json.c) ------------------------------------------------------ */

/** Writes one JSON value; commas and quoting are its business. key NULL inside arrays. */
struct json_out {
    struct text text;
    bool need_comma;
};

void json_open(struct json_out *j, const char *key, char bracket); /* '{' or '[' */
void json_close(struct json_out *j, char bracket);
void json_text(struct json_out *j, const char *key, const char *s, size_t n);
void json_str(struct json_out *j, const char *key, const char *s); /* NULL: null */
void json_int(struct json_out *j, const char *key, long long v);
void json_uint(struct json_out *j, const char *key, unsigned long long v);
void json_real(struct json_out *j, const char *key, double v); /* not finite: null */
void json_bool(struct json_out *j, const char *key, bool v);
void json_ids(struct json_out *j, const char *key, const int32_t *ids, size_t n);
/** Values written elsewhere, between brackets. */
void json_raw(struct json_out *j, const char *key, char left, const struct text *values, char right);
/** Print the value and a newline to stdout, release it; an exit status. */
int json_print(struct json_out *j);

/**
 * Ids from text: a JSON array of integers, or integers between white space or commas.
 * False after a message that names what stands there instead.
 */
bool parse_ids(const char *s, size_t n, size_t n_vocab, int32_t **ids, size_t *n_ids);

/* ---- signals (cli_signal.c) ------------------------------------------------ */

/** Raised by the first Ctrl-C; the second ends the program. Given to the library as cancel flag. */
extern volatile int cli_cancel;

/** SIGINT and SIGTERM raise the flag; SIGPIPE ends the program quietly. */
void signals_install(void);
/** Take the flag down again: the next Ctrl-C is a first one. */
void signals_rearm(void);

/* ---- progress (cli_progress.c) ---------------------------------------------- */

/**
 * On a terminal a bar that is redrawn; elsewhere a line every ten seconds. Nothing is
 * shown for work that takes less than a second.
 */
struct progress {
    const char *what; /* "prompt" */
    const char *unit; /* "tokens" */
    bool quiet;
    size_t offset, total; /* set by progress_span; total 0: what each call says */
    double started, shown;
    bool drawn;
};

void progress_start(struct progress *p, const char *what, const char *unit, bool quiet);
/** The work is one of several pieces: offset units are done of total. */
void progress_span(struct progress *p, size_t offset, size_t total);
/** An ls_progress_fn; user is the struct progress. */
void progress_update(void *user, size_t done, size_t total);
/** Wipe the bar; updates show nothing until the next start. */
void progress_end(struct progress *p);

/** Draw a bar with a text behind it over the last one, on the terminal behind stderr. */
void progress_draw(const char *what, const char *text, double share);
/** Wipe it. */
void progress_wipe(void);

/** Flush stdout; EXIT_ERROR with a message when what was written did not arrive, else status. */
int finish_output(int status);

#endif
