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

import jinja2
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import gguf_tokenizers
import golden
import texts

N_TOKENS = 1040
N_PROBE = 64
PASSAGE = "isa40:1-isa43:28"


def passage(reference):
    return subprocess.run(["bible", "-l", "200", reference], check=True, capture_output=True, text=True).stdout


def load(file):
    """The model of a GGUF file, dequantised to fp32."""
    where, name = os.path.split(os.path.abspath(file))
    return AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32,
                                                attn_implementation="eager").eval()


def logits(name, model, tok, full):
    text = passage(PASSAGE)
    ids = (tok.bos + tok.encode(text))[:N_TOKENS]
    assert len(ids) == N_TOKENS
    prefix = tok.decode(ids[len(tok.bos):])
    # the text is cut where the ids end: encoding it must give the ids again
    assert text.startswith(prefix) and tok.bos + tok.encode(prefix) == ids, "the cut text encodes differently"
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


def greedy(name, model, tok):
    cases = []

    def add(kind, given, ids, n):
        out, least = answer(model, ids, n, tok.stop)
        text = tok.decode([i for i in out if i not in tok.stop])
        cases.append(dict(kind=kind, **given, prompt_ids=ids, ids=out, text=text, least_margin=round(least, 4)))
        print(name, kind, len(ids), repr(text), round(least, 3))

    for question in texts.CHAT if tok.template else []:
        message = [{"role": "user", "content": question}]
        template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(tok.template)
        rendered = template.render(messages=message, add_generation_prompt=True)
        add("chat", {"prompt": question}, tok.encode(rendered, control=True), 24)
    for prompt in texts.GENERATE:
        add("generate", {"prompt": prompt}, tok.bos + tok.encode(prompt), 24)
    for needle in texts.NEEDLES:
        text = texts.needle_prompt(passage(needle["passage"]), needle)
        add("needle", needle, tok.bos + tok.encode(text), 8)
        cases[-1]["n_prompt"] = len(cases[-1].pop("prompt_ids"))
    path = os.path.join(golden.OUT, name + "-greedy.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n")


def tokens(name, tok):
    path = os.path.join(golden.OUT, name + "-tokens.json")
    rows = []
    for s in texts.TRICKY:
        row = {"text": s, "ids": tok.encode(s)}
        if tok.template and tok.encode(s, control=True) != row["ids"]:
            row["control_ids"] = tok.encode(s, control=True)
        rows.append(json.dumps(row))
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
    for name, file, kind in (("smollm2", a.smollm2, gguf_tokenizers.SmolLM2),
                             ("gemma3-270m", a.gemma, gguf_tokenizers.Gemma)):
        if not file:
            continue
        tok = kind(file)
        model = load(file) if a.full or a.only != ["tokens"] else None
        if a.full or "logits" in a.only:
            logits(name, model, tok, a.full)
        if not a.full and "greedy" in a.only:
            greedy(name, model, tok)
        if not a.full and "tokens" in a.only:
            tokens(name, tok)


if __name__ == "__main__":
    main()
