/* The records of an evaluation, in memory and in a file. */
#ifndef LSI_EVAL_LOG_H
#define LSI_EVAL_LOG_H

#include "eval/eval.h"

struct ls_eval_log {
    struct lsi_buf records; /* ls_eval_record: texts are the log's own */
    struct lsi_buf rows;    /* ls_eval_row: of the last call of ls_eval_log_rows */
    struct lsi_used keys;   /* of the records */
    int fd;                 /* -1: no file */
    int lock;               /* file descriptor of the folder; -1: none */
    char path[4096];
};

/** Records in the order in which they were added. */
static inline const ls_eval_record *lsi_eval_records(const ls_eval_log *log, size_t *n)
{
    *n = log->records.len / sizeof(ls_eval_record);
    return (const ls_eval_record *)(const void *)log->records.data;
}

#endif
