/* Lines from a person (edited, with history) or from a pipe. */
#ifndef LONGSPAN_LINE_INPUT_H
#define LONGSPAN_LINE_INPUT_H

#include "cli.h"

struct line_input;

enum line_result {
    LINE_TEXT,
    LINE_END,
    LINE_INTERRUPTED
};

/** interactive: with editing, a prompt, and history kept in the user's state folder. Never NULL. */
struct line_input *line_input_open(bool interactive);
void line_input_close(struct line_input *in);
/** The next line without its newline, valid until the next call. */
enum line_result line_input_read(struct line_input *in, const char **line, size_t *len);

#endif
