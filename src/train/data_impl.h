/*
 * The parts of reading data:
 *
 *   files ─ data_read.c (data_chat.c: conversations) ─► token store ─ data_pack.c ─► pieces in sequences ─
 * data.c
 */
#ifndef LSI_DATA_IMPL_H
#define LSI_DATA_IMPL_H

#include <longspan/chat.h>

#include "base/json.h"
#include "train/data.h"
#include "train/token_store.h"

/* ---- data_read.c ------------------------------------------------------------- */

struct lsi_data_file {
    const char *path;
    const char *data;
    size_t bytes;
    ls_train_format format; /* TEXT, JSONL or CHAT */
    struct lsi_map map;     /* empty where data is the caller's */
};

/** Map a file and find its format where it is AUTO. */
ls_status lsi_data_file_open(struct lsi_data_file *f, const char *path, ls_train_format format,
                             ls_error *err);
void lsi_data_file_close(struct lsi_data_file *f);
/** What a file is by the fields of its first line that is not empty: JSONL or CHAT. */
ls_status lsi_data_detect(const struct lsi_data_file *f, ls_train_format *format, ls_error *err);

/* What reading takes along. */
struct lsi_data_reader {
    const ls_tokenizer *tok;
    const char *tokenizer_path;   /* for messages */
    const ls_chat_template *chat; /* of conversations */
    size_t n_vocab;
    struct lsi_token_writer *out;
    size_t done_bytes, total_bytes;
    ls_progress_fn *progress;
    void *progress_user;
    const volatile int *cancel;
    const ls_alloc *alloc;
    struct lsi_buf text; /* of a line, escapes resolved */
};

/** Tokenise a file: its documents go to r->out. */
ls_status lsi_data_read_file(struct lsi_data_reader *r, const struct lsi_data_file *f, ls_error *err);

/** Append a string's text to r->text. */
ls_status lsi_data_take_string(struct lsi_data_reader *r, const struct lsi_json_str *s, ls_error *err);
/** Check ids of the document that is being written and write them. what: the file, or a line of it. */
ls_status lsi_data_put(struct lsi_data_reader *r, const char *what, const int32_t *ids,
                       const unsigned char *learn, size_t n, ls_error *err);

/* ---- data_chat.c ----------------------------------------------------------------- */

/** One conversation: j stands before the object of a line, what names the line. */
ls_status lsi_data_read_chat(struct lsi_data_reader *r, struct lsi_json *j, const char *what, ls_error *err);

/* ---- data_pack.c ------------------------------------------------------------------- */

/* Consecutive tokens of a document, as they stand in a sequence. */
struct lsi_piece {
    uint64_t first;
    uint32_t n;
};

struct lsi_sequences {
    struct lsi_piece *pieces; /* [n_pieces] those of a sequence side by side */
    size_t *first;            /* [n + 1] sequence s: pieces first[s] .. first[s + 1] - 1 */
    size_t n, n_pieces, cap_pieces;
    size_t most_pieces; /* of a sequence */
    uint64_t n_tokens, n_dropped;
    const ls_alloc *alloc;
};

enum lsi_packing {
    LSI_PACK_WINDOWS, /* pieces of exactly seq tokens, each a sequence; a shorter rest is dropped */
    LSI_PACK_NONE,    /* each piece is a sequence */
    LSI_PACK_ORDERED, /* pieces in order, a sequence ends where the next one does not fit */
    LSI_PACK_TIGHT,   /* long pieces first, each to the fullest sequence that has room */
};

/** Cut documents in pieces of at most seq tokens, 2 <= seq < 2^32, and put pieces together. */
ls_status lsi_sequences_make(struct lsi_sequences *s, const struct lsi_token_store *t, size_t seq,
                             enum lsi_packing packing, const ls_alloc *alloc, ls_error *err);
/** A zeroed one is fine. */
void lsi_sequences_fini(struct lsi_sequences *s);

#endif
