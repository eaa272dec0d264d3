#!/usr/bin/env python3
"""Write the tiny random-weight models of tests/data/models: one Hugging Face directory per family.

The weights are seeded and scaled so that every part matters: attention scores have a spread of about
two, logits of about two and a half, and norm weights and biases are not the neutral ones.
"""

import argparse
import json
import math
import os
import shutil
import subprocess

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

import tiny_tokenizers as tt

CHATML_SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_QWEN2 = CHATML_SMOLLM.replace(
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
    "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
)
LLAMA3 = (
    "{{- bos_token }}{% for message in messages %}{{- '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\n' + messages[0]['content'] + "
    "'\n<</SYS>>\n\n' %}{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + "
    "(system if loop.first else '') + message['content'] | trim + ' [/INST]' }}{% else %}"
    "{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') + message['content'] | trim + "
    "'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

BASE = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=320, max_position_embeddings=2048, rms_norm_eps=1e-5,
            bos_token_id=0, eos_token_id=2, pad_token_id=None, tie_word_embeddings=False)

# config: as written to config.json, in the spelling (transformers 4 or 5) that the wild has for the family.
MODELS = {
    "llama2": dict(
        dtype="float16", tok=("spm", "llama", 384), template=LLAMA2,
        config=dict(BASE, model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=384,
                    num_key_value_heads=4, rope_theta=10000.0, rope_scaling=None, attention_bias=False,
                    bos_token_id=1, hidden_act="silu")),
    "llama3": dict(
        dtype="bfloat16", tok=("bpe", "llama3", 320), template=LLAMA3, template_file=True, shards=2,
        config=dict(BASE, model_type="llama", architectures=["LlamaForCausalLM"], hidden_act="silu",
                    eos_token_id=[1, 4], head_dim=16,
                    rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, factor=8.0,
                                         low_freq_factor=1.0, high_freq_factor=4.0,
                                         original_max_position_embeddings=256))),
    "smollm2": dict(
        dtype="bfloat16", tok=("bpe", "smollm", 320), template=CHATML_SMOLLM,
        config=dict(BASE, model_type="llama", architectures=["LlamaForCausalLM"], hidden_act="silu",
                    hidden_size=96, intermediate_size=160, num_attention_heads=6, num_key_value_heads=2,
                    bos_token_id=1, rope_theta=100000, rope_scaling=None, rope_interleaved=False,
                    tie_word_embeddings=True)),
    "mistral": dict(
        dtype="float32", tok=("spm", "llama", 384), template=None,
        config=dict(BASE, model_type="mistral", architectures=["MistralForCausalLM"], vocab_size=384,
                    hidden_act="silu", intermediate_size=64, sliding_window=100, rope_theta=10000.0, bos_token_id=1)),
    "qwen2": dict(
        dtype="bfloat16", tok=("bpe", "qwen2", 320), template=CHATML_QWEN2,
        config=dict(BASE, model_type="qwen2", architectures=["Qwen2ForCausalLM"], hidden_act="silu",
                    rms_norm_eps=1e-6, rope_theta=1000000.0, use_sliding_window=False, sliding_window=512,
                    max_window_layers=2, tie_word_embeddings=True)),
    "qwen3": dict(
        dtype="bfloat16", tok=("bpe", "qwen2", 320), template=None,
        config=dict(BASE, model_type="qwen3", architectures=["Qwen3ForCausalLM"], hidden_act="silu",
                    rms_norm_eps=1e-6, head_dim=32, intermediate_size=96, attention_bias=False,
                    use_sliding_window=False, sliding_window=None, max_window_layers=2, vocab_size=336,
                    rope_parameters=dict(rope_type="default", rope_theta=1000000.0))),
    "gemma3": dict(
        dtype="bfloat16", tok=("spm", "gemma", 384), template=GEMMA,
        config=dict(BASE, model_type="gemma3_text", architectures=["Gemma3ForCausalLM"], vocab_size=384,
                    num_hidden_layers=7, num_key_value_heads=1, head_dim=32, intermediate_size=64,
                    hidden_activation="gelu_pytorch_tanh", rms_norm_eps=1e-6, bos_token_id=2,
                    eos_token_id=[1, 5], pad_token_id=0, sliding_window=48, sliding_window_pattern=6,
                    rope_theta=1000000.0, rope_local_base_freq=10000.0, rope_scaling=None,
                    query_pre_attn_scalar=32, attn_logit_softcapping=None, final_logit_softcapping=None,
                    tie_word_embeddings=True)),
    "gemma3-linear": dict(
        dtype="bfloat16", tok=("spm", "gemma", 384), template=GEMMA, template_file=True,
        config=dict(BASE, model_type="gemma3_text", architectures=["Gemma3ForCausalLM"], vocab_size=384,
                    num_hidden_layers=3, head_dim=32, intermediate_size=64, num_key_value_heads=2,
                    hidden_activation="gelu_pytorch_tanh", rms_norm_eps=1e-6, bos_token_id=2,
                    eos_token_id=1, pad_token_id=0, sliding_window=65,
                    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                    rope_parameters=dict(
                        full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
                        sliding_attention=dict(rope_type="default", rope_theta=10000.0)),
                    query_pre_attn_scalar=40, tie_word_embeddings=True)),
}

BPE_SPECIALS = {
    "smollm": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
}
SPM_SPECIALS = {
    "llama": ["<unk>", "<s>", "</s>"],
    "gemma": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"],
}


def write_tokenizer(directory, spec, lines):
    group, kind, size = spec["tok"]
    if group == "bpe":
        specials = BPE_SPECIALS[kind]
        tok = tt.byte_bpe(kind, lines, size, specials)
        bos, eos = {"smollm": (1, 2), "qwen2": (0, 2), "llama3": (0, 4)}[kind]
        add_bos = kind == "llama3"
    else:
        specials = SPM_SPECIALS[kind]
        tok = tt.spm_bpe(kind, lines, size, specials)
        bos, eos = {"llama": (1, 2), "gemma": (2, 1)}[kind]
        add_bos = True
    if add_bos:
        tt.with_bos(tok, specials[bos])
    tt.save(directory, tok, specials[bos], specials[eos], add_bos, spec["template"],
            spec.get("template_file", False))


def fill(model, seed):
    """Seeded weights; see the head of this file for their scales."""
    g = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type.startswith("gemma3")
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=g, dtype=torch.float32)
        if name.endswith("bias"):
            w = 0.5 * r
        elif "norm" in name:
            scale = 1.4 if "q_norm" in name or "k_norm" in name else 1.0
            w = scale + 0.15 * r - (1.0 if gemma else 0.0)
        elif "embed_tokens" in name or "lm_head" in name:
            w = 2.5 / math.sqrt(p.shape[1]) * r
        else:
            sharp = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
            w = sharp / math.sqrt(p.shape[1]) * r
        p.data.copy_(w)


def write_weights(directory, model, dtype, shards):
    state = {k: v.detach().to(dtype).contiguous() for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    if not shards:
        save_file(state, os.path.join(directory, "model.safetensors"), {"format": "pt"})
        return
    names = list(state)
    weight_map = {}
    for i in range(shards):
        part = {n: state[n] for n in names[i * len(names) // shards:(i + 1) * len(names) // shards]}
        file = "model-%05d-of-%05d.safetensors" % (i + 1, shards)
        save_file(part, os.path.join(directory, file), {"format": "pt"})
        weight_map.update({n: file for n in part})
    total = sum(t.numel() * t.element_size() for t in state.values())
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, f, indent=1)
        f.write("\n")


def write_model(out, name, spec, seed, lines):
    directory = os.path.join(out, name)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    config = dict(spec["config"])
    config["dtype" if "rope_parameters" in config else "torch_dtype"] = spec["dtype"]
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
        f.write("\n")
    with open(os.path.join(directory, "generation_config.json"), "w") as f:
        json.dump({k: config[k] for k in ("bos_token_id", "eos_token_id")}, f, indent=2)
        f.write("\n")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=torch.float32)
    fill(model, seed)
    write_weights(directory, model, getattr(torch, spec["dtype"]), spec.get("shards", 0))
    write_tokenizer(directory, spec, lines)
    AutoModelForCausalLM.from_pretrained(directory)  # it must load as any published model does
    for f in os.listdir(directory):
        os.chmod(os.path.join(directory, f), 0o644)
    size = sum(os.path.getsize(os.path.join(directory, f)) for f in os.listdir(directory))
    print("%-14s %7d bytes" % (name, size))


def main():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--out", default=os.path.join(root, "tests/data/models"))
    logging.disable_progress_bar()
    ap.add_argument("--only", nargs="*", help="names of models to write")
    a = ap.parse_args()
    text = subprocess.run(["bible", "-l", "200", "gen1:1-gen20:18"], check=True, capture_output=True,
                          text=True).stdout
    lines = text.splitlines()
    for i, (name, spec) in enumerate(MODELS.items()):
        if not a.only or name in a.only:
            write_model(a.out, name, spec, 1000 + i, lines)


if __name__ == "__main__":
    main()
