/*
 * Longspan: language models at long context on the memory you have.
 *
 * Open a model, open its tokenizer, make a context, append tokens, choose the next
 * one; examples/ask.c is a complete program.
 *
 * Rules that hold everywhere, so that functions state only exceptions:
 *  - Models and tokenizers are immutable after open and may be shared between threads;
 *    contexts, samplers and detokenizers belong to one thread at a time.
 *  - Pointers passed in are borrowed for the call. Pointers returned by `get` live as long as the
 *    object. What `create`, `open` or `take` return is the caller's to release; releasing NULL is
 *    a no-op.
 *  - Options structs are filled by their `defaults` function, which sets struct_size. Of other structs
 *    that have one the caller sets it; no call reads or writes beyond it.
 *  - Fallible functions return ls_status and explain in an optional ls_error; out-parameters hold
 *    results on success only (a handle may be set to NULL on failure).
 *  - Nothing prints, exits, or touches signals and locale.
 */
#ifndef LONGSPAN_H
#define LONGSPAN_H

#include <longspan/adapter.h>
#include <longspan/alloc.h>
#include <longspan/chat.h>
#include <longspan/context.h>
#include <longspan/convert.h>
#include <longspan/eval.h>
#include <longspan/model.h>
#include <longspan/plan.h>
#include <longspan/sample.h>
#include <longspan/status.h>
#include <longspan/system.h>
#include <longspan/tokenizer.h>
#include <longspan/train.h>

#endif
