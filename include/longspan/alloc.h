/*
 * The allocator interface. It travels in the options of each top-level object;
 * NULL there means the C library's allocator. There is no process-wide hook.
 */
#ifndef LONGSPAN_ALLOC_H
#define LONGSPAN_ALLOC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Memory callbacks. They may be called from any thread that uses the object.
 * Returned memory is aligned to at least 64 bytes.
 */
typedef struct ls_alloc {
    void *(*alloc)(void *user, size_t bytes);          /* NULL when there is none; bytes > 0 */
    void (*free)(void *user, void *ptr, size_t bytes); /* ptr may be NULL; bytes as allocated */
    void *user;
} ls_alloc;

#ifdef __cplusplus
}
#endif
#endif
