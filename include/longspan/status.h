/*
 * Status codes and error details.
 *
 * Every fallible function returns an ls_status; results go through
 * out-parameters. The explanation for people goes into an optional ls_error
 * that the caller owns:
 *
 *     ls_error err = { 0 };
 *     ls_model *model = NULL;
 *     if (ls_model_open("model.gguf", NULL, &model, &err) != LS_OK)
 *         fprintf(stderr, "error: %s\n", err.text);
 */
#ifndef LONGSPAN_STATUS_H
#define LONGSPAN_STATUS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define LS_API
#else
#define LS_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, value, text). Values are frozen once released. */
#define LS_STATUS_LIST(X)                               \
    X(OK, 0, "success")                                 \
    X(E_INVAL, -1, "invalid argument")                  \
    X(E_NOMEM, -2, "out of memory")                     \
    X(E_IO, -3, "read or write failed")                 \
    X(E_FORMAT, -4, "malformed file or message")        \
    X(E_UNSUPPORTED, -5, "not supported")               \
    X(E_LIMIT, -6, "a configured limit was reached")    \
    X(E_AGAIN, -7, "no progress possible yet")          \
    X(E_CANCELED, -8, "cancelled by the caller")        \
    X(E_DEVICE, -9, "accelerator or transport failure") \
    X(E_NUMERIC, -10, "non-finite loss, gradient or logit")

typedef enum ls_status {
#define LS_STATUS_ENUM(name, value, text) LS_##name = value,
    LS_STATUS_LIST(LS_STATUS_ENUM)
#undef LS_STATUS_ENUM
} ls_status;

/** Detail of the last failure of one call; written only on failure. */
typedef struct ls_error {
    ls_status status;
    char text[500]; /* one sentence, NUL-terminated, names the thing that is wrong */
} ls_error;

/** Short text of a status, never NULL. */
LS_API const char *ls_status_text(ls_status status);

#ifdef __cplusplus
}
#endif
#endif
