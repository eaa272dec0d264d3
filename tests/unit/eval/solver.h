/* Answers of the tasks found in the text of a prompt alone, by reading it: nothing is shared with what wrote
 * it. */
#ifndef LS_TEST_SOLVER_H
#define LS_TEST_SOLVER_H

#include <stddef.h>

#define SOLVER_ANSWERS 16
#define SOLVER_BYTES   128

struct solution {
    char answers[SOLVER_ANSWERS][SOLVER_BYTES];
    size_t n;
};

/** text: all that was read before the question. n 0: the text does not say. */
void solve(const char *task, const char *text, const char *question, struct solution *s);

#endif
