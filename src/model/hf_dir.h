/*
 * Writing Hugging Face directories: built beside their place under another name, then renamed,
 * so that a directory is either the old one or whole.
 *
 *     LSI_TRY(lsi_hf_dir_create(&d, out, alloc, err));
 *     st = lsi_hf_dir_write(&d, "config.json", data, bytes);
 *     if (st == LS_OK) st = lsi_hf_dir_write_tensors(&d, &tensors);
 *     return lsi_hf_dir_finish(&d, st);                          // takes its place, or goes
 */
#ifndef LSI_HF_DIR_H
#define LSI_HF_DIR_H

#include "formats/safetensors.h"
#include "model/model_impl.h"

/* transformers writes shards of up to this many bytes. */
#define LSI_SHARD_BYTES ((uint64_t)5000000000)

struct lsi_hf_dir {
    const char *out; /* the caller's */
    char tmp[LSI_MODEL_PATH];
    const ls_alloc *alloc;
    ls_error *err;
};

/** Remove what killed writers of `out` left beside it. Only where nobody else can be writing it. */
void lsi_hf_dir_clean(const char *out);
/** Refuses to replace a directory that holds anything but files of a model. */
ls_status lsi_hf_dir_create(struct lsi_hf_dir *d, const char *out, const ls_alloc *alloc, ls_error *err);
/** With LS_OK: give the directory its name; one that was there is removed only afterwards. Else, or when that
 * fails: remove what was written. Returns the first failure. */
ls_status lsi_hf_dir_finish(struct lsi_hf_dir *d, ls_status st);

ls_status lsi_hf_dir_write(const struct lsi_hf_dir *d, const char *name, const void *data, size_t bytes);
/** A buffer for lsi_hf_dir_write_buf. */
void lsi_hf_dir_buf(const struct lsi_hf_dir *d, struct lsi_buf *b);
/** Writes the buffer and releases it. */
ls_status lsi_hf_dir_write_buf(const struct lsi_hf_dir *d, const char *name, struct lsi_buf *b);
/** Copy a file of another directory; none there is fine. */
ls_status lsi_hf_dir_copy(const struct lsi_hf_dir *d, const char *from, const char *name);
/** Copy the files of a tokenizer, or (all) every file that goes along with a model unchanged. */
ls_status lsi_hf_dir_copy_companions(const struct lsi_hf_dir *d, const char *from, bool all);
/** The tokenizer of a GGUF file, if it has one. */
ls_status lsi_hf_dir_write_tokenizer(const struct lsi_hf_dir *d, const struct lsi_gguf *g);

struct lsi_hf_tensor {
    const char *name; /* good as long as the tensors */
    enum lsi_dtype dtype;
    uint32_t rank;
    uint64_t shape[LSI_ST_MAX_RANK];
    uint64_t bytes;
};

struct lsi_hf_tensors {
    size_t n;
    uint64_t shard_bytes; /* of one file at most, if it holds more than one tensor */
    struct lsi_hf_tensor (*describe)(void *user, size_t i);
    /* Hand the bytes of tensor i to lsi_st_write_data. */
    ls_status (*write)(void *user, size_t i, struct lsi_st_writer *w);
    void *user;
};

/** model.safetensors, or shards with their index. */
ls_status lsi_hf_dir_write_tensors(const struct lsi_hf_dir *d, const struct lsi_hf_tensors *t);

/* ---- config.json (convert_json.c) -------------------------------------------------------- */

/** LS_E_UNSUPPORTED for what only a GGUF file can say. name: of the model, for the message. */
ls_status lsi_config_check_hf(const struct lsi_config *c, const char *name, ls_error *err);
/** config.json for matrices of type dtype. */
void lsi_config_write_json(const struct lsi_config *c, enum lsi_dtype dtype, struct lsi_buf *b);
void lsi_config_write_generation(const struct lsi_config *c, struct lsi_buf *b);
/** A copy of a config.json with its dtype (older name: torch_dtype) replaced. */
ls_status lsi_config_retype_json(const void *data, size_t bytes, const char *name, enum lsi_dtype dtype,
                                 struct lsi_buf *b, ls_error *err);
/**
 * The same, and what *c says otherwise than the text replaced too: rotary embedding, context length, tied or
 * not, a missing model_type. Everything else stays as it is written. Where the text describes a multimodal
 * model (text_config), its text model alone is described anew.
 */
ls_status lsi_config_patch_json(const void *data, size_t bytes, const char *name, const struct lsi_config *c,
                                enum lsi_dtype dtype, struct lsi_buf *b, ls_error *err);

#endif
