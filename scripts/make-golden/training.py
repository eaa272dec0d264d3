#!/usr/bin/env python3
"""Golden data of training: losses, gradients and ten steps of AdamW, by transformers and PyTorch in fp32 (loss_sum says
what is not).

    training.py --smollm2 FILE.gguf

writes tests/data/golden/train-smollm2.safetensors and, for the tiny models, train-tiny-*, train-packed-* and
train-lora-*. To hold every element of somebody's gradients against PyTorch's:

    training.py --full FILE.safetensors --model MODEL [--data TEXT] [--seq N]

writes the loss of the first N tokens of a text and all gradients, which scripts/compare-gradients compares with
what `longspan verify-training --dump` writes. MODEL is a Hugging Face directory or SmolLM2's GGUF file.

What a file holds, beside the probes of the gradients (probes.py):

    ids          I32 [1][n]    the tokens of which loss and gradients were computed
    labels       I32 [1][n]    target of each position, already shifted; -1: none
    loss         F64 [1]       mean over the positions that have a target
    step_ids     I32 [W][m]    windows: step s, from 0, trains on window s mod W
    step_labels  I32 [W][m]
    step_loss    F64 [S]       before the step's update
    step_norm    F64 [S]       norm of all gradients before clipping
    adamw        F64 [6]       lr, beta1, beta2, eps, decay of matrices (others: none), clip (0: none)
    moved_norm, moved_dot, moved_sample   probes of the weights after all steps less those before
    text         U8 [bytes]    what the ids were made of (train-smollm2)
    documents    I32 [D]       lengths of the documents in the row (train-packed-*)
    NAME         F32           the adapter's initial weights, under PEFT's names (train-lora-*)
"""

import argparse
import copy
import os

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import gguf_tokenizers
import golden
import probes

NO_LABEL = -1
N_STEPS = 10
TINY_ROW = 131      # odd, and longer than the widest window of the tiny models
TINY_LIMIT = 1024
REAL_SEQ, REAL_STEP_SEQ = 512, 256
REAL_LIMIT = 512

TINY_ADAMW = dict(lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, decay=0.1, clip=1.0)
REAL_ADAMW = dict(lr=1e-4, beta1=0.9, beta2=0.95, eps=1e-8, decay=0.1, clip=0.0)

PACKED = {"smollm2": [37, 1, 50, 43], "gemma3": [70, 1, 49, 11], "qwen3": [5, 64, 62]}
LORA = {"smollm2": ["q_proj", "v_proj", "down_proj"], "gemma3-linear": ["q_proj", "v_proj", "down_proj"]}


def load(path):
    """A model of a directory or a GGUF file, its weights as fp32 has them. Eager attention: plain products and softmax.

    Of a GGUF file transformers makes a quantised model; a plain one with its weights takes the place."""
    plain = dict(dtype=torch.float32, attn_implementation="eager")
    if not path.endswith(".gguf"):
        return AutoModelForCausalLM.from_pretrained(path, **plain).eval()
    where, name = os.path.split(os.path.abspath(path))
    packed = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, **plain)
    config = copy.deepcopy(packed.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, **plain)
    model.load_state_dict(packed.state_dict())
    return model.eval()


def shifted(ids, first=0, every=0):
    """Labels of a row of tokens: the next one; none before position `first`, nor at each `every`-th position."""
    labels = ids[1:] + [NO_LABEL]
    return [NO_LABEL if t < first or (every and t % every == 0) else v for t, v in enumerate(labels)]


def loss_sum(model, ids, labels, exact=True):
    """Sum over the labelled positions of one row, of fp32 logits in fp64.

    PyTorch's cross-entropy in fp32, over SmolLM2's 49,152 logits, gives a loss that is off by 3e-6, and gradients of
    norms, small sums of large terms, that are off by up to 6.7e-4."""
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    target = torch.tensor(labels)
    return F.cross_entropy(logits.double() if exact else logits, target, ignore_index=NO_LABEL, reduction="sum")


def cut(row, lengths):
    """The documents of a packed row."""
    begins = [sum(lengths[:i]) for i in range(len(lengths))]
    return [row[b:b + n] for b, n in zip(begins, lengths)]


def backward(model, ids, labels, documents=None, exact=True):
    """Mean loss of a row; its gradients are left in the parameters.

    Packed documents go through the model one at a time: that is what a packed row must equal."""
    documents = documents or [len(ids)]
    n_valid = sum(v != NO_LABEL for v in labels)
    model.zero_grad(set_to_none=True)
    total = 0.0
    for part, target in zip(cut(ids, documents), cut(labels, documents)):
        if any(v != NO_LABEL for v in target):
            loss = loss_sum(model, part, target, exact) / n_valid
            loss.backward()
            total += loss.item()
    return total


def trainable(model):
    """Parameters by the names under which checkpoints have them."""
    return {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}


def gradients(model):
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in trainable(model).items()}


def train(model, windows, labels, o, documents=None):
    """Losses and gradient norms of N_STEPS steps, and how far every parameter moved."""
    params = trainable(model)
    before = {n: p.detach().clone() for n, p in params.items()}
    groups = [{"params": [p for p in params.values() if p.dim() == 2], "weight_decay": o["decay"]},
              {"params": [p for p in params.values() if p.dim() != 2], "weight_decay": 0.0}]
    opt = torch.optim.AdamW(groups, lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"])
    losses, norms = [], []
    for s in range(N_STEPS):
        losses.append(backward(model, windows[s % len(windows)], labels[s % len(labels)], documents))
        grads = [p.grad for p in params.values() if p.grad is not None]
        norms.append(torch.sqrt(sum(g.double().square().sum() for g in grads)).item())
        if o["clip"]:
            torch.nn.utils.clip_grad_norm_(params.values(), o["clip"])
        opt.step()
    for n, p in params.items():
        before[n].sub_(p.detach()).neg_()
    return losses, norms, before


def distance(got, want):
    """Largest relative distance of a tensor, and its name."""
    far = {n: ((got[n].double() - w.double()).norm() / w.double().norm()).item() for n, w in want.items()
           if w.any()}
    name = max(far, key=far.get)
    return "%.1e (%s)" % (far[name], name)


def compute(model, rows, steps, o, documents):
    """Loss, gradients, and what train() gives."""
    loss = backward(model, rows[0][0], rows[1][0], documents)
    grads = gradients(model)
    return (loss, grads) + train(model, steps[0], steps[1], o, documents)


def case(make, path, rows, steps, o, limit, extra=None, documents=None, about=None):
    """Run a case in fp32, and again otherwise to tell how exact that is; write the file.

    make() gives the model; rows and steps are (tokens, labels), of one row and of W windows."""
    loss, grads, losses, norms, moved = compute(make(), rows, steps, o, documents)
    _, far_grads, far_losses, far_norms, far_moved = compute(make().double(), rows, steps, o, documents)
    far = "gradients %s, losses %.1e, norms %.1e, moved weights %s" % (
        distance(grads, far_grads), max(abs(a / b - 1) for a, b in zip(losses, far_losses)),
        max(abs(a / b - 1) for a, b in zip(norms, far_norms)), distance(moved, far_moved))
    model = make()
    rough = backward(model, rows[0][0], rows[1][0], documents, exact=False)
    rough = "loss %.1e, gradients %s" % (abs(loss / rough - 1), distance(gradients(model), grads))
    t = probes.table(grads, limit)
    t.update(probes.table(moved, limit, "moved_"))
    t.update(extra or {})
    t["ids"], t["labels"] = (torch.tensor(x, dtype=torch.int32) for x in rows)
    t["step_ids"], t["step_labels"] = (torch.tensor(x, dtype=torch.int32) for x in steps)
    t["loss"] = torch.tensor([loss], dtype=torch.float64)
    t["step_loss"] = torch.tensor(losses, dtype=torch.float64)
    t["step_norm"] = torch.tensor(norms, dtype=torch.float64)
    t["adamw"] = torch.tensor([o[k] for k in ("lr", "beta1", "beta2", "eps", "decay", "clip")], dtype=torch.float64)
    if documents:
        t["documents"] = torch.tensor(documents, dtype=torch.int32)
    golden.write(path, t, dict(about or {}, **{
        "sample limit": str(limit), "from fp64": far, "with PyTorch's loss in fp32": rough}))


def random_rows(n_rows, vocab, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(6, vocab, (n_rows, TINY_ROW), generator=g).tolist()


def output(name):
    return os.path.join(golden.OUT, "train-%s.safetensors" % name)


def tiny(name, path, seed):
    """Three windows: targets missing here and there, almost everywhere, and only at the end."""
    vocab = load(path).config.vocab_size
    rows = random_rows(3, vocab, seed)
    labels = [shifted(rows[0], first=20, every=7), shifted(rows[1], first=TINY_ROW - 9), shifted(rows[2])]
    case(lambda: load(path), output("tiny-" + name), (rows[:1], labels[:1]), (rows, labels), TINY_ADAMW,
         TINY_LIMIT, about={"model": name})


def packed(name, path, seed):
    lengths = PACKED[name]
    rows = random_rows(1, load(path).config.vocab_size, seed)
    labels = [[v for part in cut(rows[0], lengths) for v in shifted(part)]]
    case(lambda: load(path), output("packed-" + name), (rows, labels), (rows, labels), TINY_ADAMW,
         TINY_LIMIT, documents=lengths, about={"model": name})


def lora(name, path, seed):
    """Rank 4, alpha 8. B is not zero, or A would have no gradient."""
    rows = random_rows(2, load(path).config.vocab_size, seed)
    labels = [shifted(r, first=10) for r in rows]

    def make():
        config = LoraConfig(r=4, lora_alpha=8, target_modules=LORA[name], lora_dropout=0.0, bias="none")
        model = get_peft_model(load(path), config).eval()
        g = torch.Generator().manual_seed(seed + 1)
        for p in trainable(model).values():
            p.data.copy_(0.1 * torch.randn(p.shape, generator=g))
        return model

    adapter = {n: t.clone().contiguous() for n, t in get_peft_model_state_dict(make()).items()}
    case(make, output("lora-" + name), (rows[:1], labels[:1]), (rows, labels), TINY_ADAMW, TINY_LIMIT, extra=adapter,
         about={"model": name, "lora": "rank 4, alpha 8, targets " + " ".join(LORA[name])})


def real(file):
    """SmolLM2 on the passage of tests/data/golden/smollm2.safetensors, in windows as a text file is cut."""
    given = load_file(os.path.join(golden.OUT, "smollm2.safetensors"))
    ids = given["ids"].tolist()
    row = ids[:REAL_SEQ]
    windows = [ids[i:i + REAL_STEP_SEQ] for i in range(0, len(ids) - REAL_STEP_SEQ + 1, REAL_STEP_SEQ)]
    model = load(file)
    with torch.no_grad():
        theirs = model(input_ids=torch.tensor([row]), labels=torch.tensor([row])).loss.item()
        ours = loss_sum(model, row, shifted(row)).item() / (REAL_SEQ - 1)
    assert abs(theirs / ours - 1) < 1e-5, "not the loss that transformers computes"
    del model
    case(lambda: load(file), output("smollm2"), ([row], [shifted(row)]),
         (windows, [shifted(w) for w in windows]), REAL_ADAMW, REAL_LIMIT, extra={"text": given["text"]},
         about={"model": "SmolLM2-135M-Instruct.Q4_1.gguf, dequantised"})


def full(out, path, text, seq):
    """Loss and all gradients of the first seq tokens of a text."""
    if text:
        with open(text, encoding="utf-8") as f:
            text = f.read()
    else:
        given = load_file(os.path.join(golden.OUT, "smollm2.safetensors"))
        text = bytes(given["text"].tolist()).decode()
    if path.endswith(".gguf"):
        tok = gguf_tokenizers.SmolLM2(path)
        ids = tok.bos + tok.encode(text)
    else:
        ids = AutoTokenizer.from_pretrained(path)(text)["input_ids"]
    if len(ids) < seq:
        raise SystemExit("the text has %d tokens, %d are asked for" % (len(ids), seq))
    model = load(path)
    loss = backward(model, ids[:seq], shifted(ids[:seq]))
    named = dict(gradients(model), loss=torch.tensor(loss))
    save_file(named, out, {"format": "pt"})
    print("%s: loss %.6f, gradients of %d tensors" % (out, loss, len(named) - 1))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--smollm2", help="SmolLM2-135M-Instruct.Q4_1.gguf")
    ap.add_argument("--only", nargs="*", help="names of files: tiny-qwen2, packed-gemma3, lora-smollm2, smollm2")
    ap.add_argument("--full", help="write whole gradients there, nothing else")
    ap.add_argument("--model", help="with --full: a Hugging Face directory or SmolLM2's GGUF file")
    ap.add_argument("--data", help="with --full: a text file; without it, the passage of the golden files")
    ap.add_argument("--seq", type=int, default=REAL_SEQ, help="with --full: tokens")
    a = ap.parse_args()
    logging.disable_progress_bar()
    if a.full:
        full(a.full, a.model or a.smollm2, a.data, a.seq)
        return
    models = os.path.join(golden.ROOT, "tests/data/models")
    for kind, run, names in (("tiny", tiny, sorted(os.listdir(models))), ("packed", packed, PACKED),
                             ("lora", lora, LORA)):
        for i, name in enumerate(names):
            if not a.only or "%s-%s" % (kind, name) in a.only:
                run(name, os.path.join(models, name), 500 + i)
    if a.smollm2 and (not a.only or "smollm2" in a.only):
        real(a.smollm2)


if __name__ == "__main__":
    main()
