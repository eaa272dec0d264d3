/*
 * DIR/results.jsonl: a line for the settings,
 *
 *   {"longspan_eval":1,"settings":"..."}
 *
 * then one for each case. A line that was cut off in writing is taken away when a folder is gone on with.
 */
#include "eval/eval_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"

#define LINE_BYTES ((size_t)1 << 30)

/* ---- records in memory ---------------------------------------------------------------------------- */

/* What a record is found by. */
static size_t key_text(char out[1024], const ls_eval_record *r)
{
    const int n = snprintf(out, 1024, "%s\n%s\n%s\n%zu\n%" PRIu64 "\n%" PRIu64 "\n%d", r->kv, r->budget,
                           r->task, r->n_tokens, r->seed, r->index, (int)r->protocol);
    return lsi_min_size((size_t)n, 1023);
}

bool ls_eval_log_has(const ls_eval_log *log, const ls_eval_record *key)
{
    char text[1024];
    return lsi_used_has(&log->keys, text, key_text(text, key));
}

static char *copy_text(const char *s)
{
    return lsi_strndup(NULL, s ? s : "", s ? strlen(s) : 0);
}

static void free_text(const char *s)
{
    if (s)
        lsi_free(NULL, (char *)(uintptr_t)s, strlen(s) + 1);
}

static void free_record(ls_eval_record *r)
{
    free_text(r->kv);
    free_text(r->budget);
    free_text(r->task);
    free_text(r->result.answer);
}

/* Takes over the record's texts, on failure too. */
static ls_status keep_record(ls_eval_log *log, ls_eval_record *r, ls_error *err)
{
    char text[1024];
    if (r->kv && r->budget && r->task && r->result.answer && lsi_buf_append(&log->records, r, sizeof *r)) {
        (void)lsi_used_add(&log->keys, text, key_text(text, r));
        if (!log->keys.failed)
            return LS_OK;
    } else {
        free_record(r);
    }
    return lsi_fail(err, LS_E_NOMEM, "no memory for another result");
}

/* ---- lines ------------------------------------------------------------------------------------------- */

static void put_string(struct lsi_buf *b, const char *key, const char *s)
{
    lsi_buf_printf(b, "\"%s\":", key);
    lsi_buf_json_string(b, s, strlen(s));
    lsi_buf_append(b, ",", 1);
}

static void put_real(struct lsi_buf *b, const char *key, double v)
{
    lsi_buf_printf(b, "\"%s\":", key);
    lsi_buf_json_number(b, v);
    lsi_buf_append(b, ",", 1);
}

static void put_record(struct lsi_buf *b, const ls_eval_record *r)
{
    const ls_eval_result *v = &r->result;
    size_t scored = 0;
    lsi_buf_append(b, "{", 1);
    put_string(b, "kv", r->kv);
    if (*r->budget)
        put_string(b, "budget", r->budget);
    else
        lsi_buf_printf(b, "\"budget\":null,");
    put_string(b, "task", r->task);
    lsi_buf_printf(b, "\"length\":%zu,\"seed\":%" PRIu64 ",\"index\":%" PRIu64 ",", r->n_tokens, r->seed,
                   r->index);
    put_string(b, "protocol", ls_eval_protocol_name(r->protocol));
    put_real(b, "score", v->score);
    lsi_buf_printf(b, "\"prompt_tokens\":%zu,\"decode_tokens\":%zu,\"cache_bytes\":%zu,", v->prompt_tokens,
                   v->decode_tokens, v->cache_bytes);
    put_real(b, "prompt_seconds", v->prompt_seconds);
    put_real(b, "decode_seconds", v->decode_seconds);
    for (size_t i = 0; i < LS_EVAL_BINS; i++)
        scored += v->scored[i];
    if (scored > 0) {
        lsi_buf_printf(b, "\"bins\":[");
        for (size_t i = 0; i < LS_EVAL_BINS; i++) {
            lsi_buf_printf(b, "%s{\"tokens\":%zu,\"nll\":", i ? "," : "", v->scored[i]);
            lsi_buf_json_number(b, v->nll[i]);
            lsi_buf_append(b, "}", 1);
        }
        lsi_buf_printf(b, "],");
    }
    lsi_buf_printf(b, "\"answer\":");
    lsi_buf_json_string(b, v->answer ? v->answer : "", v->answer ? strlen(v->answer) : 0);
    lsi_buf_printf(b, "}\n");
}

static ls_status read_size(struct lsi_json *j, size_t *v)
{
    int64_t i = 0;
    LSI_TRY(lsi_json_int(j, &i));
    if (i < 0)
        return lsi_json_error(j, "a number of results is negative");
    *v = (size_t)i;
    return LS_OK;
}

static ls_status read_text(struct lsi_json *j, const char **out)
{
    struct lsi_json_str s;
    char *copy = NULL;
    LSI_TRY(lsi_json_string(j, &s));
    if (lsi_json_strdup(&s, NULL, &copy) != LS_OK)
        return lsi_json_error(j, "a text cannot be kept");
    free_text(*out); /* of a key that stands there twice */
    *out = copy;
    return LS_OK;
}

/* null where the policy was not given one. */
static ls_status read_budget(struct lsi_json *j, const char **out)
{
    if (lsi_json_peek(j) != LSI_JSON_NULL)
        return read_text(j, out);
    LSI_TRY(lsi_json_null(j));
    free_text(*out);
    *out = copy_text(NULL);
    return *out ? LS_OK : lsi_json_error(j, "a text cannot be kept");
}

static ls_status read_bins(struct lsi_json *j, ls_eval_result *v)
{
    struct lsi_json_str key;
    size_t i = 0;
    LSI_TRY(lsi_json_array(j));
    for (; lsi_json_next_elem(j); i++) {
        if (i == LS_EVAL_BINS)
            return lsi_json_error(j, "more than %d bins", LS_EVAL_BINS);
        LSI_TRY(lsi_json_object(j));
        while (lsi_json_next_key(j, &key)) {
            if (lsi_json_str_is(&key, "tokens"))
                LSI_TRY(read_size(j, &v->scored[i]));
            else if (lsi_json_str_is(&key, "nll"))
                LSI_TRY(lsi_json_double(j, &v->nll[i]));
            else
                LSI_TRY(lsi_json_skip(j));
        }
    }
    return j->status;
}

static ls_status read_member(struct lsi_json *j, const struct lsi_json_str *key, ls_eval_record *r)
{
    struct lsi_json_str s;
    ls_eval_result *v = &r->result;
    const char *answer = v->answer;
    ls_status st;
    if (lsi_json_str_is(key, "kv"))
        return read_text(j, &r->kv);
    if (lsi_json_str_is(key, "budget"))
        return read_budget(j, &r->budget);
    if (lsi_json_str_is(key, "task"))
        return read_text(j, &r->task);
    if (lsi_json_str_is(key, "answer")) {
        st = read_text(j, &answer);
        v->answer = (char *)(uintptr_t)answer;
        return st;
    }
    if (lsi_json_str_is(key, "protocol")) {
        LSI_TRY(lsi_json_string(j, &s));
        r->protocol = lsi_json_str_is(&s, "dense") ? LS_EVAL_DENSE : LS_EVAL_SPARSE;
        return LS_OK;
    }
    size_t seed = 0, index = 0;
    if (lsi_json_str_is(key, "seed")) {
        st = read_size(j, &seed);
        r->seed = seed;
        return st;
    }
    if (lsi_json_str_is(key, "index")) {
        st = read_size(j, &index);
        r->index = index;
        return st;
    }
    const struct {
        const char *name;
        size_t *v;
    } sizes[] = { { "length", &r->n_tokens },
                  { "prompt_tokens", &v->prompt_tokens },
                  { "decode_tokens", &v->decode_tokens },
                  { "cache_bytes", &v->cache_bytes } };
    const struct {
        const char *name;
        double *v;
    } reals[] = { { "score", &v->score },
                  { "prompt_seconds", &v->prompt_seconds },
                  { "decode_seconds", &v->decode_seconds } };
    for (size_t i = 0; i < LSI_LEN(sizes); i++)
        if (lsi_json_str_is(key, sizes[i].name))
            return read_size(j, sizes[i].v);
    for (size_t i = 0; i < LSI_LEN(reals); i++)
        if (lsi_json_str_is(key, reals[i].name))
            return lsi_json_double(j, reals[i].v);
    return lsi_json_str_is(key, "bins") ? read_bins(j, v) : lsi_json_skip(j);
}

static ls_status read_record(ls_eval_log *log, const char *line, size_t n, ls_error *err)
{
    struct lsi_json j;
    struct lsi_json_str key;
    ls_eval_record r = { .result.struct_size = sizeof r.result };
    ls_status st;
    lsi_json_init(&j, line, n, log->path, err);
    LSI_TRY_OR(end, lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key))
        LSI_TRY_OR(end, read_member(&j, &key, &r));
    LSI_TRY_OR(end, lsi_json_end(&j));
    if (!r.kv || !r.budget || !r.task || !r.result.answer) {
        st = lsi_fail(err, LS_E_FORMAT, "%s has a line that is no result: remove it", log->path);
        goto end;
    }
    if (!ls_eval_log_has(log, &r)) /* of a case that is there twice the first result counts */
        return keep_record(log, &r, err);
end:
    free_record(&r);
    return st;
}

/* "NAME VALUE" in quotes, cut, of the line that begins there; no line: "nothing". */
static void quote_setting(char out[256], const char *line)
{
    const size_t n = strcspn(line, "\n");
    if (n > 0)
        snprintf(out, 256, "'%.*s'", (int)lsi_min_size(n, 240), line);
    else
        snprintf(out, 256, "nothing");
}

/* Settings are lines: the first that differs is told. */
static ls_status other_settings(const ls_eval_log *log, const char *there, const char *asked, ls_error *err)
{
    char a[256], b[256];
    while (*there && *asked) {
        const size_t n = strcspn(there, "\n"), m = strcspn(asked, "\n");
        if (n != m || memcmp(there, asked, n) != 0)
            break;
        there += n + (there[n] == '\n');
        asked += n + (asked[n] == '\n');
    }
    quote_setting(a, there);
    quote_setting(b, asked);
    return lsi_fail(err, LS_E_INVAL, "%s was made with other settings: %s, not %s; name another folder",
                    log->path, a, b);
}

static ls_status check_settings(const ls_eval_log *log, const char *line, size_t n, const char *settings,
                                ls_error *err)
{
    struct lsi_json j;
    struct lsi_json_str key;
    const char *there = NULL;
    ls_status st;
    lsi_json_init(&j, line, n, log->path, err);
    LSI_TRY(lsi_json_object(&j));
    while (lsi_json_next_key(&j, &key)) {
        if (lsi_json_str_is(&key, "settings")) {
            LSI_TRY_OR(end, read_text(&j, &there));
        } else {
            LSI_TRY_OR(end, lsi_json_skip(&j));
        }
    }
    LSI_TRY_OR(end, lsi_json_end(&j));
    if (!there || strcmp(there, settings) != 0)
        st = other_settings(log, there ? there : "", settings, err);
end:
    free_text(there);
    return st;
}

/* ---- the file ------------------------------------------------------------------------------------------ */

/* Whole lines of what is there; *end: behind the last of them. */
static ls_status read_file(ls_eval_log *log, const char *settings, size_t *end, ls_error *err)
{
    struct lsi_map m;
    ls_status st = LS_OK;
    *end = 0;
    LSI_TRY(lsi_map_read(&m, log->path, LINE_BYTES, NULL, err));
    const char *text = (const char *)m.data;
    while (st == LS_OK && *end < m.bytes) {
        const char *stop = memchr(text + *end, '\n', m.bytes - *end);
        if (!stop)
            break;
        const size_t n = (size_t)(stop - (text + *end));
        st = *end == 0 ? check_settings(log, text, n, settings, err) : read_record(log, text + *end, n, err);
        *end += n + 1;
    }
    lsi_map_close(&m);
    return st;
}

static ls_status write_all(ls_eval_log *log, const struct lsi_buf *b, ls_error *err)
{
    size_t done = 0;
    if (b->failed)
        return lsi_fail(err, LS_E_NOMEM, "no memory for a line of %s", log->path);
    while (done < b->len) {
        const ssize_t n = write(log->fd, b->data + done, b->len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return lsi_fail(err, LS_E_IO, "cannot write %s: %s", log->path, strerror(errno));
        done += (size_t)n;
    }
    return LS_OK;
}

static ls_status write_settings(ls_eval_log *log, const char *settings, ls_error *err)
{
    struct lsi_buf b;
    lsi_buf_init(&b, NULL, LINE_BYTES);
    lsi_buf_printf(&b, "{\"longspan_eval\":1,\"settings\":");
    lsi_buf_json_string(&b, settings, strlen(settings));
    lsi_buf_printf(&b, "}\n");
    const ls_status st = write_all(log, &b, err);
    lsi_buf_fini(&b);
    return st;
}

static ls_status open_file(ls_eval_log *log, const char *dir, const char *settings, bool resume,
                           ls_error *err)
{
    size_t end = 0;
    if (!lsi_path_join(log->path, sizeof log->path, dir, "results.jsonl"))
        return lsi_fail(err, LS_E_INVAL, "%.200s…: the path of the folder is too long", dir);
    LSI_TRY(lsi_dir_take(dir, "evaluating", &log->lock, err));
    if (lsi_path_exists(log->path)) {
        if (!resume)
            return lsi_fail(err, LS_E_INVAL,
                            "%s is there already: --resume goes on with it, or name another folder",
                            log->path);
        LSI_TRY(read_file(log, settings, &end, err));
    }
    log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log->fd < 0 || ftruncate(log->fd, (off_t)end) != 0)
        return lsi_fail(err, LS_E_IO, "cannot write %s: %s", log->path, strerror(errno));
    return end == 0 ? write_settings(log, settings, err) : LS_OK;
}

ls_status ls_eval_log_open(const char *dir, const char *settings, bool resume, ls_eval_log **out,
                           ls_error *err)
{
    ls_eval_log *log = lsi_calloc(NULL, 1, sizeof *log);
    if (!log)
        return lsi_fail(err, LS_E_NOMEM, "no memory for results");
    log->fd = log->lock = -1;
    lsi_buf_init(&log->records, NULL, SIZE_MAX / 4);
    lsi_buf_init(&log->rows, NULL, SIZE_MAX / 4);
    const ls_status st = dir ? open_file(log, dir, settings, resume, err) : LS_OK;
    if (st == LS_OK)
        *out = log;
    else
        ls_eval_log_close(log);
    return st;
}

void ls_eval_log_close(ls_eval_log *log)
{
    if (!log)
        return;
    const size_t n = log->records.len / sizeof(ls_eval_record);
    ls_eval_record *r = (ls_eval_record *)(void *)log->records.data;
    for (size_t i = 0; i < n; i++)
        free_record(&r[i]);
    lsi_buf_fini(&log->records);
    lsi_buf_fini(&log->rows);
    lsi_used_fini(&log->keys);
    if (log->fd >= 0)
        close(log->fd);
    if (log->lock >= 0)
        close(log->lock);
    lsi_free(NULL, log, sizeof *log);
}

ls_status ls_eval_log_add(ls_eval_log *log, const ls_eval_record *record, ls_error *err)
{
    struct lsi_buf b;
    ls_eval_record r = *record;
    ls_status st = LS_OK;
    if (log->fd >= 0) {
        lsi_buf_init(&b, NULL, LINE_BYTES);
        put_record(&b, record);
        st = write_all(log, &b, err);
        lsi_buf_fini(&b);
    }
    LSI_TRY(st);
    r.kv = copy_text(record->kv);
    r.budget = copy_text(record->budget);
    r.task = copy_text(record->task);
    r.result.answer = copy_text(record->result.answer);
    return keep_record(log, &r, err);
}
