#!/usr/bin/env python3
"""Write a random-weight model of SmolLM2-135M's shape with a context of 131,072 tokens.

    bench/make_model.py DIRECTORY

Speed does not depend on the values of the weights, and the real model's context ends at 8,192. The
result is a Hugging Face directory in bf16; `longspan convert` makes GGUF files of it.
"""

import json
import os
import random
import struct
import sys

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 30, 576, 9, 3, 64, 1536, 49152
CONTEXT = 131072
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def shapes():
    yield "model.embed_tokens.weight", (VOCAB, HIDDEN)
    for n in range(LAYERS):
        p = "model.layers.%d." % n
        yield p + "input_layernorm.weight", (HIDDEN,)
        yield p + "mlp.down_proj.weight", (HIDDEN, FFN)
        yield p + "mlp.gate_proj.weight", (FFN, HIDDEN)
        yield p + "mlp.up_proj.weight", (FFN, HIDDEN)
        yield p + "post_attention_layernorm.weight", (HIDDEN,)
        yield p + "self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield p + "self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM)
        yield p + "self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN)
        yield p + "self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)


def bf16(rng, shape):
    """Random values of magnitude 0.008 to 0.12 and either sign; ones for the norms."""
    n = 1
    for d in shape:
        n *= d
    if len(shape) == 1:
        return b"\x80\x3f" * n
    out = bytearray(2 * n)
    out[0::2] = rng.randbytes(n)
    high = bytes(0x3C | (b & 1) | (b & 0x80) for b in range(256))
    out[1::2] = rng.randbytes(n).translate(high)
    return bytes(out)


def write_weights(path):
    rng = random.Random(1)
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes():
        size = 2
        for d in shape:
            size *= d
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes():
            f.write(bf16(rng, shape))


def write_tokenizer(path):
    """Byte-level BPE with SmolLM's split rule; the merges are pairs of bytes in order."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    other = [b for b in range(256) if b not in plain]
    letters = [chr(b) for b in plain] + [chr(256 + i) for i in range(len(other))]
    vocab, merges = SPECIALS + letters, []
    for a in letters:
        for b in letters:
            if len(vocab) < VOCAB:
                vocab.append(a + b)
                merges.append([a, b])
    split = [{"type": "Digits", "individual_digits": True},
             {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(special, id=i, content=t) for i, t in enumerate(SPECIALS)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": split},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {t: i for i, t in enumerate(vocab)}, "merges": merges},
    }
    with open(path, "w", encoding="utf-8") as f:
        json.dump(tokenizer, f, ensure_ascii=False)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": HIDDEN, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
        "rope_scaling": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2,
    }
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
    with open(os.path.join(out, "tokenizer_config.json"), "w") as f:
        json.dump({"add_bos_token": False, "bos_token": SPECIALS[1], "eos_token": SPECIALS[2],
                   "tokenizer_class": "PreTrainedTokenizerFast"}, f, indent=2)
    write_tokenizer(os.path.join(out, "tokenizer.json"))
    write_weights(os.path.join(out, "model.safetensors"))


if __name__ == "__main__":
    main()
