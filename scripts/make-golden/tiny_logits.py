#!/usr/bin/env python3
"""Write tests/data/golden/tiny-NAME.safetensors: logits of the tiny models, by transformers in fp32."""

import argparse
import os

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import golden

N_TOKENS = 1040
N_PROBE = 24
FULL_EVERY = 20


def main():
    models = os.path.join(golden.ROOT, "tests/data/models")
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--only", nargs="*", help="names of models")
    a = ap.parse_args()
    logging.disable_progress_bar()
    for i, name in enumerate(sorted(os.listdir(models))):
        if a.only and name not in a.only:
            continue
        path = os.path.join(models, name)

        def load(dtype):
            return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager").eval()

        model = load(torch.float32)
        g = torch.Generator().manual_seed(77 + i)
        ids = torch.randint(6, model.config.vocab_size, (N_TOKENS,), generator=g).tolist()
        t = golden.measure(model, ids, N_PROBE, FULL_EVERY, 5)
        t64 = golden.measure(load(torch.float64), ids, N_PROBE, FULL_EVERY, 5)
        std = t["full"].std().item()
        golden.write(os.path.join(golden.OUT, "tiny-%s.safetensors" % name), t,
                     {"model": name, "fp32 against fp64": golden.drift(t, t64), "spread of logits": "%.2f" % std})


if __name__ == "__main__":
    main()
