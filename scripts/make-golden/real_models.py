#!/usr/bin/env python3
"""Golden data of the real models: SmolLM2-135M-Instruct and Gemma 3 270M, dequantised by transformers.

    real_models.py --smollm2 FILE.gguf --gemma FILE.gguf

writes tests/data/golden/{smollm2,gemma3-270m}.safetensors (logits of a stretch of the King James Bible),
*-greedy.json (answers) and *-tokens.json (token ids of difficult texts). With --full DIR it writes only
DIR/NAME.safetensors with the logits of every position whole (200 MB and 1.1 GB), for a check by hand.
"""

import argparse
import json
import os
import subprocess

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import golden
import texts

N_TOKENS = 1040
N_PROBE = 64
PASSAGE = "isa40:1-isa43:28"


def passage(reference):
    return subprocess.run(["bible", "-l", "200", reference], check=True, capture_output=True, text=True).stdout


def load(file):
    """The model in fp32 and its tokenizer, both from one GGUF file."""
    where, name = os.path.split(os.path.abspath(file))
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    return model, AutoTokenizer.from_pretrained(where, gguf_file=name)


def logits(name, model, tok, full):
    text = passage(PASSAGE)
    ids = tok(text)["input_ids"][:N_TOKENS]
    assert len(ids) == N_TOKENS
    prefix = tok.decode(ids, skip_special_tokens=True)
    # cut the text where the ids end, so that encoding it gives the ids again
    assert text.startswith(prefix) and tok(prefix)["input_ids"] == ids, "the cut text encodes differently"
    t = golden.measure(model, ids, N_PROBE, 1 if full else 0, 9)
    t["text"] = torch.tensor(list(prefix.encode()), dtype=torch.uint8)
    golden.write(os.path.join(full or golden.OUT, name + ".safetensors"), t,
                 {"model": name, "passage": "King James Bible, " + PASSAGE})


@torch.no_grad()
def answer(model, ids, n, stop):
    """Greedy continuation: ids without the stopping one, and the smallest margin of a choice."""
    past, x, out, least = None, torch.tensor([ids]), [], float("inf")
    for _ in range(n):
        r = model(input_ids=x, past_key_values=past, use_cache=True, logits_to_keep=1)
        past = r.past_key_values
        two = torch.topk(r.logits[0, -1], 2)
        least = min(least, (two.values[0] - two.values[1]).item())
        chosen = two.indices[0].item()
        out.append(chosen)
        if chosen in stop:
            break
        x = torch.tensor([[chosen]])
    return out, least


def greedy(name, model, tok, stop):
    cases = []

    def add(kind, given, ids, n):
        out, least = answer(model, ids, n, stop)
        text = tok.decode([i for i in out if i not in stop])
        cases.append(dict(kind=kind, **given, prompt_ids=ids, ids=out, text=text, least_margin=round(least, 4)))
        print(name, kind, len(ids), repr(text), round(least, 3))

    for question in texts.CHAT if tok.chat_template else []:
        message = [{"role": "user", "content": question}]
        rendered = tok.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        add("chat", {"prompt": question}, tok(rendered, add_special_tokens=False)["input_ids"], 24)
    for prompt in texts.GENERATE:
        add("generate", {"prompt": prompt}, tok(prompt)["input_ids"], 24)
    for needle in texts.NEEDLES:
        text = texts.needle_prompt(passage(needle["passage"]), needle)
        add("needle", needle, tok(text)["input_ids"], 8)
        if name == "smollm2":
            cases[-1]["n_prompt"] = len(cases[-1]["prompt_ids"])
        del cases[-1]["prompt_ids"]
    path = os.path.join(golden.OUT, name + "-greedy.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")


def tokens(name, tok):
    path = os.path.join(golden.OUT, name + "-tokens.json")
    rows = []
    for s in texts.TRICKY:
        ids = tok(s, add_special_tokens=False)["input_ids"]
        rows.append(json.dumps({"text": s, "ids": ids}, ensure_ascii=True))
    with open(path, "w", encoding="ascii") as f:
        f.write("[\n" + ",\n".join(rows) + "\n]\n")
    print(path, len(rows), "texts")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--smollm2", help="SmolLM2-135M-Instruct.Q4_1.gguf")
    ap.add_argument("--gemma", help="Gemma 3 270M, Q4_K_M, GGUF")
    ap.add_argument("--full", help="directory: write whole logits there, nothing else")
    ap.add_argument("--only", choices=["logits", "greedy", "tokens"], nargs="*", default=["logits", "greedy", "tokens"])
    a = ap.parse_args()
    logging.disable_progress_bar()
    for name, file in (("smollm2", a.smollm2), ("gemma3-270m", a.gemma)):
        if not file:
            continue
        model, tok = load(file)
        stop = {tok.eos_token_id} if name == "gemma3-270m" else {0, 2}
        if a.full or "logits" in a.only:
            logits(name, model, tok, a.full)
        if not a.full and "greedy" in a.only:
            greedy(name, model, tok, stop)
        if not a.full and "tokens" in a.only:
            tokens(name, tok)


if __name__ == "__main__":
    main()
