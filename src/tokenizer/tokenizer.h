/*
 * The tokenizer as the library sees it: one object for byte-level BPE and for
 * SentencePiece BPE, filled by a loader (GGUF, tokenizer.json, tokenizer.model),
 * read by everything else. Immutable once opened.
 *
 *   text ─ special.c: added tokens ─► stretches ─ normalize.c ─► split.c: pieces ─ bpe.c: merges ─► ids
 *
 * Token texts are kept as the bytes that they stand for: "Ġthe" of a byte-level vocabulary and "▁the" of
 * SentencePiece are both " the", <0x0A> is one line feed. So a piece of text is looked up as it stands in the
 * input, and decoding is copying.
 */
#ifndef LSI_TOKENIZER_H
#define LSI_TOKENIZER_H

#include "base/base.h"

#include <longspan/tokenizer.h>

struct lsi_gguf;
struct lsi_gguf_writer;

/* ---- opening and writing ------------------------------------------------- */

/** From an open GGUF file; nothing of *g is referenced afterwards. */
ls_status lsi_tokenizer_from_gguf(const struct lsi_gguf *g, const ls_alloc *alloc, ls_tokenizer **tok,
                                  ls_error *err);
/** From the text of a tokenizer.json alone (name is for messages); nothing of data is referenced afterwards.
 */
ls_status lsi_tokenizer_from_json(const void *data, size_t bytes, const char *name, const ls_alloc *alloc,
                                  ls_tokenizer **tok, ls_error *err);
/** From a SentencePiece tokenizer.model (protobuf). */
ls_status lsi_tokenizer_from_sentencepiece(const void *data, size_t bytes, const char *name,
                                           const ls_alloc *alloc, ls_tokenizer **tok, ls_error *err);
/** From a Hugging Face directory: tokenizer.json or tokenizer.model with the settings beside it. */
ls_status lsi_tokenizer_from_dir(const char *dir, const ls_alloc *alloc, ls_tokenizer **tok, ls_error *err);

/** Write tokenizer.json, tokenizer_config.json and special_tokens_map.json into an existing directory. */
ls_status lsi_tokenizer_write_hf(const ls_tokenizer *tok, const char *dir, ls_error *err);
/** Put the tokenizer.* pairs. LS_E_UNSUPPORTED when GGUF has no name for the split rule. */
ls_status lsi_tokenizer_write_gguf(const ls_tokenizer *tok, struct lsi_gguf_writer *w, ls_error *err);

/* ---- the object ---------------------------------------------------------- */

/* As in GGUF's tokenizer.ggml.token_type. */
enum lsi_token_type {
    LSI_TOKEN_NORMAL = 1,
    LSI_TOKEN_UNKNOWN,
    LSI_TOKEN_CONTROL,
    LSI_TOKEN_USER,
    LSI_TOKEN_UNUSED,
    LSI_TOKEN_BYTE,
};

#define LSI_TOKEN_MAX_BYTES ((1u << 24) - 1)
#define LSI_TOKENS_MAX      (1u << 24)

struct lsi_token {
    uint32_t off; /* first byte in ls_tokenizer.text */
    uint32_t len : 24;
    uint32_t type : 7; /* enum lsi_token_type */
    uint32_t stop : 1;
};

/* How two neighbours are joined. */
struct lsi_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free slot */
    uint32_t rank; /* lower first */
    uint32_t id;
};

/* A token that is found in the text before any splitting. */
struct lsi_added {
    uint32_t off, len; /* match text, in ls_tokenizer.added_text */
    int32_t id;
    bool special;    /* only where the caller allows control tokens */
    bool normalized; /* matched after normalisation */
    bool single_word, lstrip, rstrip;
};

/* Trie over the added tokens' bytes; node 0 is the root. Children are chained by `next`. */
struct lsi_trie_node {
    uint32_t child, next;
    int32_t added; /* index of the added token that ends here, -1 */
    unsigned char byte;
};

struct lsi_trie {
    struct lsi_trie_node *nodes;
    size_t n, cap;
    uint32_t root[256]; /* first step by table */
};

enum lsi_norm_kind {
    LSI_NORM_NFC,
    LSI_NORM_NFD,
    LSI_NORM_NFKC,
    LSI_NORM_NFKD,
    LSI_NORM_REPLACE,
    LSI_NORM_PREPEND,
    LSI_NORM_STRIP_LEFT,
    LSI_NORM_STRIP_RIGHT,
};

#define LSI_NORM_MAX  8
#define LSI_NORM_TEXT 31

struct lsi_norm {
    enum lsi_norm_kind kind;
    unsigned char from_len, to_len;
    char from[LSI_NORM_TEXT + 1]; /* of REPLACE */
    char to[LSI_NORM_TEXT + 1];   /* of REPLACE; what PREPEND puts in front */
};

enum lsi_split_kind {
    LSI_SPLIT_GPT2,    /* ByteLevel's own rule */
    LSI_SPLIT_LLAMA3,  /* digits by three */
    LSI_SPLIT_QWEN2,   /* digits one by one */
    LSI_SPLIT_DIGITS,  /* each \p{N} alone */
    LSI_SPLIT_NUMBERS, /* runs of \p{N} */
    LSI_SPLIT_SPACE,   /* a piece begins at each space (Metaspace with split) */
    LSI_SPLIT_REGEX,
};

enum lsi_split_behavior {
    LSI_SPLIT_ISOLATED,
    LSI_SPLIT_REMOVED,
    LSI_SPLIT_MERGED_WITH_PREVIOUS,
    LSI_SPLIT_MERGED_WITH_NEXT,
    LSI_SPLIT_CONTIGUOUS,
};

#define LSI_SPLIT_MAX 8

struct lsi_regex; /* split_regex.c */

struct lsi_split {
    enum lsi_split_kind kind;
    enum lsi_split_behavior behavior; /* of REGEX */
    bool invert;
    struct lsi_regex *regex;
};

enum lsi_prefix_scheme {
    LSI_PREFIX_NEVER,
    LSI_PREFIX_FIRST,  /* the beginning of the whole text */
    LSI_PREFIX_ALWAYS, /* every stretch between added tokens */
};

#define LSI_SEAM_BITS                                                                     \
    20 /* a million pairs of characters: a few per cent full for the largest vocabularies \
        */
#define LSI_SEAM_BYTES (((size_t)1 << LSI_SEAM_BITS) / 8)

struct ls_tokenizer {
    const ls_alloc *alloc;

    /* vocabulary: vocab.c */
    struct lsi_token *tokens;
    size_t n_tokens, cap_tokens;
    struct lsi_buf text; /* bytes of the tokens */
    float *scores;       /* NULL: none (merges decide) */
    size_t cap_scores;
    uint64_t *index; /* hash tag << 32 | id + 1; normal tokens come first among equal texts */
    size_t index_cap;
    int32_t byte_ids[256];    /* token of each byte, -1: none */
    struct lsi_merge *merges; /* open addressing; NULL when scores decide */
    size_t merges_cap, n_merges, last_merged;
    uint32_t *seam_bits; /* pairs of characters that some token contains; NULL: not used */

    /* added tokens: special.c */
    struct lsi_added *added;
    size_t n_added, cap_added;
    struct lsi_buf added_text;
    struct lsi_trie raw_trie, norm_trie;
    bool user_after_norm; /* user-defined tokens are looked for in the normalised text, as they stand */

    /* rules */
    bool byte_level;    /* every byte is a symbol; else every character */
    bool space_is_meta; /* U+2581 in the files stands for a space */
    bool byte_fallback;
    bool fuse_unk;
    bool ignore_merges;
    bool strip_space;   /* decoding drops the space that encoding put in front */
    bool space_if_none; /* the prefix space is left out when the text begins with one */
    enum lsi_prefix_scheme prefix_space;
    struct lsi_norm norms[LSI_NORM_MAX];
    size_t n_norms;
    struct lsi_split splits[LSI_SPLIT_MAX];
    size_t n_splits;
    char split_name[32];

    /* roles */
    int32_t bos, eos, unk, pad;
    bool add_bos, add_eos;
    char *chat_template;
    char warning[256];
};

/** Zeroed object with everything absent. */
ls_status lsi_tokenizer_new(const ls_alloc *alloc, ls_tokenizer **tok, ls_error *err);

/* ---- vocab.c -------------------------------------------------------------- */

/** Room for n tokens and their bytes (a hint), so that filling does not copy. */
bool lsi_vocab_reserve(ls_tokenizer *t, size_t n_tokens, size_t text_bytes);
/** Set token id (any order; holes are unused tokens). The bytes are already what the token stands for. */
bool lsi_vocab_set(ls_tokenizer *t, size_t id, const char *s, size_t len, enum lsi_token_type type);
/** Convert the text of a token file (byte-level letters, U+2581, <0xHH>) to bytes, and set. */
bool lsi_vocab_set_surface(ls_tokenizer *t, size_t id, const char *s, size_t len, enum lsi_token_type type);
/** The same conversion alone. out has room for len bytes. */
size_t lsi_vocab_bytes(const ls_tokenizer *t, const char *s, size_t len, char *out);
/** Turn normal tokens spelled <0xHH> into the bytes that they are. */
bool lsi_vocab_name_bytes(ls_tokenizer *t);
/** Build the index and byte_ids. After this lookups work. */
bool lsi_vocab_index(ls_tokenizer *t);
/** Id of a normal (or user-defined) token by its bytes, -1 when there is none. */
int32_t lsi_vocab_find(const ls_tokenizer *t, const char *s, size_t len);
/** The same among all types. */
int32_t lsi_vocab_find_any(const ls_tokenizer *t, const char *s, size_t len);
/** Room for n merges (a hint). Then add them in order of rank. */
bool lsi_merges_reserve(ls_tokenizer *t, size_t n);
/** Add a merge by texts as in the files; one whose parts or result are no tokens is left out. False: no
 * memory. */
bool lsi_merges_add(ls_tokenizer *t, const char *left, size_t left_len, const char *right, size_t right_len,
                    uint32_t rank);
const struct lsi_merge *lsi_merges_find(const ls_tokenizer *t, int32_t left, int32_t right);
/** Note which pairs of characters occur inside tokens: text may be cut between any others. */
bool lsi_vocab_note_seams(ls_tokenizer *t);
bool lsi_vocab_may_join(const ls_tokenizer *t, const char *a, size_t a_len, const char *b, size_t b_len);
static inline const char *lsi_token_text(const ls_tokenizer *t, size_t id)
{
    return t->text.data + t->tokens[id].off;
}
uint64_t lsi_hash_bytes(const char *s, size_t len);

/* A merge with its parts, for writing. */
struct lsi_merge_row {
    int32_t left, right, id;
    uint32_t rank;
};
/** All merges by rank; those of a vocabulary with scores are made up from it. Release: lsi_free, n rows. */
ls_status lsi_merges_list(const ls_tokenizer *t, struct lsi_merge_row **rows, size_t *n, ls_error *err);
/** The text of a token as files spell it (byte-level letters, U+2581, <0xHH>). */
bool lsi_vocab_surface(const ls_tokenizer *t, size_t id, struct lsi_buf *out);

/* ---- special.c ------------------------------------------------------------ */

bool lsi_added_push(ls_tokenizer *t, const struct lsi_added *a, const char *s, size_t len);
/** Build the tries. Added tokens are complete; normalisers are known. */
bool lsi_added_index(ls_tokenizer *t);
/** Mark the tokens that end an answer by their spelling. */
void lsi_mark_stops(ls_tokenizer *t);
void lsi_mark_stop(ls_tokenizer *t, int32_t id);
/** True for the spellings that lsi_mark_stops knows. */
bool lsi_is_stop_text(const char *s, size_t len);

/* A stretch of text and what was found at its end. */
struct lsi_match {
    size_t begin, end; /* of the added token, stripped white space included; begin == end == len: none */
    int32_t added;     /* index, -1: none */
};
/**
 * First added token at or after `from`: leftmost, then longest, among those that may be recognised there.
 * `special` false: none of the special ones; plain: ranges in which they are not recognised either.
 */
struct lsi_match lsi_added_next(const ls_tokenizer *t, const struct lsi_trie *trie, const char *s, size_t len,
                                size_t from, bool special, const ls_byte_range *plain, size_t n_plain);

/* ---- unicode.c ------------------------------------------------------------ */

enum lsi_char_class {
    LSI_CHAR_OTHER,
    LSI_CHAR_LETTER,
    LSI_CHAR_NUMBER,
    LSI_CHAR_SPACE
};

/** \p{L}, \p{N}, White_Space or neither. */
enum lsi_char_class lsi_char_class_of(uint32_t cp);
/** \w: letters, marks, numbers, connectors. */
bool lsi_char_is_word(uint32_t cp);
/** The small letter of a capital one, by itself (no text of several characters); others as they are. */
uint32_t lsi_char_lower(uint32_t cp);
/** The character at s (n > 0 bytes left); a byte that is not UTF-8 is one character, U+FFFD, of length 1. */
size_t lsi_char_at(const char *s, size_t n, uint32_t *cp);
/** Letter of the byte-level alphabet for a byte, and back (-1: not in the alphabet). */
uint32_t lsi_byte_letter(unsigned char byte);
int lsi_letter_byte(uint32_t cp);

/* ---- normalize.c ---------------------------------------------------------- */

/** Append the normalised stretch to out. first: it begins the whole text. */
ls_status lsi_normalize(const ls_tokenizer *t, const char *s, size_t len, bool first, struct lsi_buf *out,
                        ls_error *err);
/** True when lsi_normalize would copy s unchanged. */
bool lsi_normalize_is_identity(const ls_tokenizer *t, const char *s, size_t len, bool first);

/* ---- split.c, split_regex.c ------------------------------------------------ */

/** Append the stages of a GGUF `pre` name. False: unknown. */
ls_status lsi_split_named(ls_tokenizer *t, const char *name, bool *known, ls_error *err);
/** Append a stage for a pattern: a known one becomes a matcher, any other is compiled. */
ls_status lsi_split_pattern(ls_tokenizer *t, const char *pattern, size_t len, bool literal,
                            enum lsi_split_behavior behavior, bool invert, ls_error *err);
bool lsi_split_push(ls_tokenizer *t, enum lsi_split_kind kind);
/** The pattern of a hand-written rule, as published files have it; NULL for stages without one. */
const char *lsi_split_pattern_of(enum lsi_split_kind kind);
/** Name for ls_tokenizer_split from the stages, unless one is set. */
void lsi_split_set_name(ls_tokenizer *t);

/* Receives pieces in order. False stops. */
typedef bool lsi_piece_fn(void *ctx, const char *s, size_t len);
ls_status lsi_split_run(const ls_tokenizer *t, const char *s, size_t len, lsi_piece_fn *fn, void *ctx,
                        ls_error *err);

ls_status lsi_regex_compile(const ls_alloc *alloc, const char *pattern, size_t len, struct lsi_regex **re,
                            ls_error *err);
void lsi_regex_free(struct lsi_regex *re);
/** The pattern as it was given to lsi_regex_compile. */
const char *lsi_regex_pattern(const struct lsi_regex *re, size_t *len);
struct lsi_regex_run; /* one matcher of one encode call */
struct lsi_regex_run *lsi_regex_run_new(const struct lsi_regex *re);
void lsi_regex_run_free(struct lsi_regex_run *run);
/** Next non-empty match at or after from in valid UTF-8. 1 found, 0 none, negative: gave up (limits). */
int lsi_regex_next(struct lsi_regex_run *run, const char *s, size_t len, size_t from, size_t *begin,
                   size_t *end);

/* ---- bpe.c ---------------------------------------------------------------- */

struct lsi_bpe; /* working memory of one encode call */

struct lsi_bpe *lsi_bpe_new(const ls_tokenizer *t, size_t text_len);
void lsi_bpe_free(struct lsi_bpe *b);
/** Encode one piece. False: out of memory. */
bool lsi_bpe_piece(struct lsi_bpe *b, const char *s, size_t len);
/** Append one id. */
bool lsi_bpe_put(struct lsi_bpe *b, int32_t id);
/** The ids so far move to the caller (exactly n of them). False: out of memory. */
bool lsi_bpe_take(struct lsi_bpe *b, int32_t **ids, size_t *n);
size_t lsi_bpe_dropped(const struct lsi_bpe *b);
/** A new stretch begins: unknown characters are not fused across it. */
void lsi_bpe_break(struct lsi_bpe *b);
/** Earlier pieces have moved or gone: do not compare with them any more. */
void lsi_bpe_forget(struct lsi_bpe *b);

#endif
