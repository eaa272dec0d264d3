/* Adapters: small trained additions to a model's matrices (LoRA, arXiv 2106.09685), as PEFT stores them. */
#ifndef LONGSPAN_ADAPTER_H
#define LONGSPAN_ADAPTER_H

#include <longspan/convert.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Write the model with an adapter added to its matrices, W + (alpha / r) B A in fp32, as a Hugging Face
 * directory or a GGUF file.
 * @param model    a GGUF file or a Hugging Face directory: the one that the adapter was trained on
 * @param adapter  a directory with adapter_config.json and adapter_model.safetensors. What it asks for beyond
 *                 plain LoRA (DoRA, rank patterns, trained biases …) is refused by name.
 * @param o        as for ls_convert; NULL for defaults. With dtype "keep" quantised matrices are quantised
 *                 again in a GGUF file, which costs accuracy.
 */
LS_API ls_status ls_merge_adapter(const char *model, const char *adapter, const char *out,
                                  const ls_convert_options *o, ls_error *err);

#ifdef __cplusplus
}
#endif
#endif
