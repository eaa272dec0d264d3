#!/usr/bin/env python3
"""What rounding costs, emulated in transformers: the measure for the modes that round.

    rounding.py --smollm2 FILE.gguf [--gemma FILE.gguf] --full DIR

DIR holds the whole logits that `real_models.py --full DIR` wrote. Each line compares all of them: bf16 is
products of values rounded to bf16, q8 is activations in 8 bits with a scale for each 32 values, kv is keys
and values rounded to bf16.
"""

import argparse
import importlib
import os

import torch
from safetensors.torch import load_file
from transformers.utils import logging

import real_models

FORM = {"linear": None, "kv": False}


def to_bf16(x):
    return x.bfloat16().float()


def to_q8(x):
    runs = x.reshape(-1, 32)
    scale = runs.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, (runs / scale).round() * scale, runs).reshape(x.shape)


def install(model):
    linear = torch.nn.functional.linear

    def rounded(x, w, b=None):
        if FORM["linear"] == "bf16":
            return linear(to_bf16(x), to_bf16(w), b)
        return linear(to_q8(x) if FORM["linear"] == "q8" else x, w, b)

    torch.nn.functional.linear = rounded
    module = importlib.import_module(type(model).__module__)
    attention = module.eager_attention_forward

    def rounded_attention(this, q, k, v, *args, **kwargs):
        if FORM["kv"]:
            k, v = to_bf16(k), to_bf16(v)
        return attention(this, q, k, v, *args, **kwargs)

    module.eager_attention_forward = rounded_attention


@torch.no_grad()
def compare(name, model, want):
    ids = want["ids"].long()
    hidden = model.model(input_ids=ids[None]).last_hidden_state[0]
    n, largest, squares, same, nll = len(ids), 0.0, 0.0, 0, []
    for r in range(0, n, 64):
        got, ref = model.lm_head(hidden[r:r + 64]), want["full"][r:r + 64]
        d = got - ref
        largest = max(largest, d.abs().max().item())
        squares += d.double().pow(2).sum().item()
        same += (got.argmax(-1) == ref.argmax(-1)).sum().item()
        target = ids[r + 1:r + 1 + len(got)]
        rows = torch.arange(len(target))
        nll.append(torch.logsumexp(got.double(), -1)[:len(target)] - got.double()[rows, target])
    dnll = torch.cat(nll) - want["nll"].double()
    print("%-12s %-10s max %.3f  rms %.4f  top-1 %.2f %%  |dNLL| %.4f  net %+.4f" % (
        name, "%s%s" % (FORM["linear"] or "fp32", "+kv" if FORM["kv"] else ""), largest,
        (squares / want["full"].numel()) ** 0.5, 100 * same / n, dnll.abs().mean(), dnll.mean()), flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--smollm2")
    ap.add_argument("--gemma")
    ap.add_argument("--full", required=True)
    a = ap.parse_args()
    logging.disable_progress_bar()
    for name, file in (("smollm2", a.smollm2), ("gemma3-270m", a.gemma)):
        if not file:
            continue
        model = real_models.load(file)
        install(model)
        want = load_file(os.path.join(a.full, name + ".safetensors"))
        for FORM["linear"] in (None, "bf16", "q8"):
            for FORM["kv"] in (False, True):
                compare(name, model, want)


if __name__ == "__main__":
    main()
