/*
 * Training: exact gradients of long sequences on the memory there is.
 *
 *     ls_train_options o;
 *     ls_train_options_defaults(&o);
 *     o.model = "SmolLM2-135M-Instruct.gguf";
 *     o.data = (const char *[]){ "book.txt" };
 *     o.n_data = 1;
 *     o.seq = 4096;
 *     o.steps = 100;
 *     o.out = "run";
 *     ls_train_run(&o, &err);                         // a whole run: run/model is a Hugging Face directory
 *
 * or step by step with a trainer, for programs that bring their own loop and data.
 *
 * How a step is computed is a choice (mode) that changes memory and speed, never the result beyond the last
 * bits: docs/training.md.
 */
#ifndef LONGSPAN_TRAIN_H
#define LONGSPAN_TRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <longspan/context.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How a step is computed. */
typedef enum ls_train_mode {
    LS_TRAIN_SWEEP,    /* row blocks through one layer at a time; one descending sweep in the backward pass */
    LS_TRAIN_STANDARD, /* every activation of every layer is kept */
    LS_TRAIN_RECOMPUTE, /* layers are recomputed in the backward pass, whole */
    LS_TRAIN_MST,       /* Mini-Sequence Transformer (arXiv 2407.15892): recompute, MLP and head in pieces */
} ls_train_mode;

typedef enum ls_train_dtype {
    LS_TRAIN_BF16, /* products of bf16 operands with fp32 sums */
    LS_TRAIN_FP32,
} ls_train_dtype;

/** What weights are kept in when products are bf16 (with fp32 they are fp32). */
typedef enum ls_train_weights {
    LS_TRAIN_MASTER, /* fp32 master weights beside the bf16 ones */
    LS_TRAIN_PURE,   /* bf16 alone, rounded stochastically */
} ls_train_weights;

/** What the moments of AdamW are kept in. */
typedef enum ls_train_moments {
    LS_TRAIN_MOMENTS_FP32,
    LS_TRAIN_MOMENTS_BF16, /* rounded stochastically */
    LS_TRAIN_MOMENTS_Q8,   /* 8 bits in blocks of 256; small tensors, norms and embeddings stay fp32 */
} ls_train_moments;

typedef enum ls_train_schedule {
    LS_TRAIN_CONSTANT,
    LS_TRAIN_LINEAR, /* towards min_lr_ratio, where the step after the last would be */
    LS_TRAIN_COSINE,
} ls_train_schedule;

typedef enum ls_train_format {
    LS_TRAIN_AUTO,  /* .jsonl: by the fields of the first line; else text */
    LS_TRAIN_TEXT,  /* one document, cut into windows of seq tokens; a shorter rest is dropped */
    LS_TRAIN_JSONL, /* a document a line, field "text" */
    LS_TRAIN_CHAT,  /* a conversation a line, field "messages"; the loss is on the assistant's turns */
} ls_train_format;

/** What a finished step was like. */
typedef struct ls_train_step {
    size_t struct_size;
    uint64_t step;    /* from 1 */
    double loss;      /* mean over the valid labels of the step */
    double grad_norm; /* before clipping; NAN where it is not known */
    double lr;
    uint64_t tokens;       /* of the step */
    uint64_t valid_labels; /* that the loss is a mean over */
    double seconds;
    uint64_t peak_bytes; /* greatest resident set so far */
    double eval_loss;    /* NAN when nothing was evaluated after this step */
} ls_train_step;

typedef void ls_train_step_fn(void *user, const ls_train_step *step);

struct ls_train_plan;

/** What a dry step took: what was planned, and the bytes that were allocated for it. */
typedef void ls_train_dry_fn(void *user, const struct ls_train_plan *plan, uint64_t allocated_bytes);

typedef struct ls_train_options {
    size_t struct_size;

    /* what is trained */
    const char *model;     /* GGUF file or Hugging Face directory, or NULL with init */
    const char *init;      /* config.json of a model to begin from random weights */
    const char *tokenizer; /* model path or directory to take the tokenizer from; NULL: model, or the folder
                              of init */
    double rope_base;      /* new base of the rotary embedding, 0: the model's */
    const char *rope_scaling; /* "none", "linear:FACTOR", "yarn:FACTOR[:ORIGINAL]", NULL: the model's */
    size_t n_ctx;             /* context length to record in the result, 0: max of the model's and seq */

    /* LoRA (arXiv 2106.09685); rank 0: all weights are trained */
    size_t lora_rank;
    double lora_alpha;        /* default 2 * rank */
    const char *lora_targets; /* "q_proj,v_proj" …, "all": every matrix of the layers; default all */

    /* data */
    const char *const *data; /* files */
    size_t n_data;
    ls_train_format format;
    const char *chat_template; /* NULL: recognised */
    const char *eval_data;     /* NULL: none */
    size_t seq;                /* N: tokens of a sequence */
    bool shuffle;              /* default true */
    bool pack;                 /* several documents to a sequence; default true */
    const char *token_cache;   /* folder for tokenised data; NULL: out/tokens */

    /* optimizer */
    uint64_t steps;
    double lr; /* default 2e-5 */
    ls_train_schedule schedule;
    double warmup;       /* whole steps, or with a value below 1 a share of them; default 0.03 */
    double min_lr_ratio; /* of linear and cosine at the end, default 0 */
    double beta1, beta2, eps, weight_decay;
    double clip;       /* greatest global norm of the gradient, 0: none; default 1 */
    size_t accumulate; /* sequences a step, default 1 */
    uint64_t seed;

    /* numbers */
    ls_train_dtype dtype;
    ls_train_weights weights;
    ls_train_moments moments;

    /* how */
    ls_train_mode mode;
    size_t block;             /* rows of a block, 0: chosen */
    size_t mlp_chunks;        /* pieces of the MLP, 0: chosen */
    size_t head_chunks;       /* pieces of the head, 0: chosen */
    size_t checkpoint_layers; /* the input of every N-th layer is an activation checkpoint, what lies between
                                 is computed again in the backward pass (arXiv 1604.06174); 0: 1, and in the
                                 mode sweep as many as the memory asks for */
    const char *spill;        /* folder for the activation checkpoints; NULL: memory */
    uint64_t memory;          /* limit in bytes, 0: what the system could give */
    int n_threads;            /* 0: all processors */

    /* the run */
    const char *out;
    uint64_t eval_every, save_every; /* steps; 0: at the end only */
    size_t eval_sequences;           /* sequences an evaluation reads at most, default 16 */
    size_t keep;                     /* checkpoints kept, default 2 */
    bool resume;
    const char
        *gguf; /* also write the result as a GGUF file of this type: "f32", "bf16", "q8_0" …; NULL: no */
    bool dry_step; /* allocate, touch everything, run the ends of each phase */

    ls_train_step_fn *on_step;
    ls_train_dry_fn *on_dry_step;
    ls_progress_fn *on_rows;                           /* progress within a step: work done, of total */
    ls_progress_fn *on_data;                           /* while data are tokenised: bytes done, of total */
    void (*on_note)(void *user, const char *sentence); /* what is worth telling a person */
    void *user;
    const volatile int *cancel;
    const ls_alloc *alloc;
} ls_train_options;

LS_API void ls_train_options_defaults(ls_train_options *o);

/** A whole run in a run directory: docs/training.md says what it holds. LS_E_CANCELED after a clean stop with
 * a checkpoint. */
LS_API ls_status ls_train_run(const ls_train_options *o, ls_error *err);

/* ---- memory ------------------------------------------------------------------- */

/** Bytes of a training step; everything that is allocated is in one of these. */
typedef struct ls_train_plan {
    size_t struct_size;
    size_t seq;                        /* rows planned for */
    size_t block, mlp_rows, head_rows; /* rows of the pieces */
    size_t mlp_chunks, head_chunks;
    size_t checkpoint_layers; /* layers from one activation checkpoint to the next */
    /* states */
    uint64_t weights_bytes, master_bytes, moments_bytes, gradient_bytes;
    /* what grows with the sequence */
    uint64_t checkpoint_bytes; /* activation checkpoints in memory, and layer inputs between two of them */
    uint64_t spill_bytes;      /* and in a file */
    uint64_t kept_bytes;       /* activations of all layers (standard) */
    uint64_t rows_bytes;       /* row gradients, tokens, labels, softmax statistics */
    uint64_t kv_bytes;         /* keys and values of one layer */
    uint64_t dkv_bytes;        /* and their gradients */
    /* what does not */
    uint64_t block_bytes;   /* activations of a block */
    uint64_t head_bytes;    /* logits of a block */
    uint64_t scratch_bytes; /* of operations */
    /* greatest use by phase, states included */
    uint64_t forward_bytes, loss_bytes, backward_bytes, step_bytes;
    const char *peak_phase; /* "forward", "loss", "backward", "step" */
    uint64_t total_bytes;   /* what is allocated */
    double bytes_per_token; /* slope of total_bytes in seq */
} ls_train_plan;

/**
 * What a step of o->seq tokens takes: the allocator run dry. Model weights are not read.
 * @param plan  struct_size must be set.
 */
LS_API ls_status ls_train_get_plan(const ls_train_options *o, ls_train_plan *plan, ls_error *err);

/* ---- a trainer, step by step ------------------------------------------------------- */

typedef struct ls_trainer ls_trainer;

#define LS_TRAIN_IGNORE (-1) /* a label that counts nothing */

/** A sequence to learn from. */
typedef struct ls_train_sequence {
    const int32_t *tokens; /* [n] */
    const int32_t *labels; /* [n] the id that should follow each token, or LS_TRAIN_IGNORE */
    size_t n;
    const size_t *doc_start; /* [n_docs + 1] first tokens of documents, then n: no token sees another
                                document's, positions restart; NULL: one document */
    size_t n_docs;
} ls_train_sequence;

/** Uses model or init, the numbers, the optimizer and how; n is at most o->seq. */
LS_API ls_status ls_trainer_create(const ls_train_options *o, ls_trainer **t, ls_error *err);
LS_API void ls_trainer_free(ls_trainer *t);
/** One optimizer step on n_seqs sequences: one mean over all their valid labels. */
LS_API ls_status ls_trainer_step(ls_trainer *t, const ls_train_sequence *seqs, size_t n_seqs, double lr,
                                 ls_train_step *result, ls_error *err);
/** Sum of the losses of a sequence's valid labels; no gradient. */
LS_API ls_status ls_trainer_eval(ls_trainer *t, const ls_train_sequence *seq, double *loss_sum,
                                 uint64_t *n_valid, ls_error *err);
LS_API void ls_trainer_get_plan(const ls_trainer *t, ls_train_plan *plan);
/** Write the weights as a Hugging Face directory. */
LS_API ls_status ls_trainer_export(ls_trainer *t, const char *dir, ls_error *err);

/* ---- a mode against the plain computation -------------------------------------------- */

/** The same moment of both computations. */
typedef struct ls_train_verify_step {
    size_t struct_size;
    uint64_t step; /* 0: the first batch, before any step */
    double loss, standard_loss;
    double grad_norm, standard_grad_norm; /* before clipping */
} ls_train_verify_step;

typedef void ls_train_verify_fn(void *user, const ls_train_verify_step *step);

/**
 * Differences relative to the standard computation, and what they may be. A gradient's difference is the norm
 * of the difference over the norm.
 */
typedef struct ls_train_verify_result {
    size_t struct_size;
    /* of the first batch, from the same weights: exact up to rounding */
    double loss_difference, norm_difference; /* may be norm_tolerance: 1e-6 in fp32, 1e-3 in bf16 */
    double gradient_difference;              /* of all tensors together; may be gradient_tolerance */
    double tensor_difference;                /* of the tensor where it is greatest; may be tensor_tolerance */
    char tensor[160];                        /* its Hugging Face name */
    /* of the steps: the optimizer turns the sign of a small gradient into a step of full size */
    double step_loss_difference; /* greatest of a step's loss; may be step_tolerance */
    double weight_difference; /* after the last step, of the tensor where it is greatest: 0 without steps */
    char weight_tensor[160];
    double norm_tolerance, gradient_tolerance, tensor_tolerance, step_tolerance;
    bool passed;
} ls_train_verify_result;

/**
 * Compute the gradients of the first batch, then o->steps steps of the constant learning rate o->lr, with
 * LS_TRAIN_STANDARD and with o->mode, from the same weights and data, one after the other: the memory is
 * that of the larger one and a copy of the gradients and the weights. No run directory is made. LS_OK also
 * when they differ: result->passed tells.
 *
 * @param dump     Write the loss ("loss", a scalar) and the gradient of every trained tensor of the first
 *                 batch, computed with o->mode, under Hugging Face names (adapters: PEFT's) as a safetensors
 *                 file. NULL: no.
 * @param on_step  Called while the second computation goes on; may be NULL.
 * @param result   struct_size must be set.
 */
LS_API ls_status ls_train_verify(const ls_train_options *o, const char *dump, ls_train_verify_fn *on_step,
                                 void *user, ls_train_verify_result *result, ls_error *err);

#ifdef __cplusplus
}
#endif
#endif
