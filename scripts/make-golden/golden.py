"""What the golden files hold, and how they are written: one safetensors file per model.

    text       U8  [bytes]   what the ids were made of (real models only)
    ids        I32 [N]       the tokens given to the model, one after the other
    nll        F32 [N-1]     -log p(ids[i+1] | ids[0..i])
    top        I32 [N]       the id with the largest logit after each token
    margin     F32 [N]       largest logit less the second largest
    lse        F32 [N]       log of the sum of exp of all logits
    probe_ids  I32 [P]       a fixed choice of vocabulary ids
    probe      F32 [N][P]    their logits after each token
    full_at    I32 [M]       positions whose logits are there in full
    full       F32 [M][V]    those

The metadata names the versions that made the file and the reference's own distance from fp64.
"""

import os

import torch
import transformers
from safetensors.torch import save_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUT = os.path.join(ROOT, "tests/data/golden")


@torch.no_grad()
def measure(model, ids, n_probe, full_every, seed, rows=64):
    """Teacher-forced logits of the whole sequence, kept as the head of this file says."""
    x = torch.tensor([ids])
    hidden = model.model(input_ids=x).last_hidden_state[0]
    n, vocab = len(ids), model.config.vocab_size
    g = torch.Generator().manual_seed(seed)
    probe_ids = torch.sort(torch.randperm(vocab, generator=g)[:n_probe]).values
    full_at = torch.arange(full_every - 1, n, full_every) if full_every else torch.zeros(0, dtype=torch.long)
    out = {k: [] for k in ("nll", "top", "margin", "lse", "probe", "full")}
    keep = set(full_at.tolist())
    for r in range(0, n, rows):
        logits = model.lm_head(hidden[r:r + rows]).to(torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        two = torch.topk(logits, 2, dim=-1)
        lse = torch.logsumexp(logits.double(), dim=-1)
        out["top"].append(two.indices[:, 0])
        out["margin"].append(two.values[:, 0] - two.values[:, 1])
        out["lse"].append(lse)
        out["probe"].append(logits[:, probe_ids])
        target = x[0, r + 1:r + 1 + logits.shape[0]]
        out["nll"].append(lse[:len(target)] - logits.double()[torch.arange(len(target)), target])
        out["full"] += [logits[i - r] for i in range(r, r + logits.shape[0]) if i in keep]
    t = {k: torch.cat(v) for k, v in out.items() if k != "full"}
    t = {k: v.to(torch.int32 if k == "top" else torch.float32).contiguous() for k, v in t.items()}
    t["ids"] = x[0].to(torch.int32)
    t["probe_ids"] = probe_ids.to(torch.int32)
    if full_every:
        t["full_at"] = full_at.to(torch.int32)
        t["full"] = torch.stack(out["full"]).to(torch.float32)
    return t


def drift(a, b):
    """Largest distance between two measurements, for the metadata."""
    d = (a["probe"] - b["probe"]).abs().max()
    if "full" in a:
        d = max(d, (a["full"] - b["full"]).abs().max())
    same = (a["top"] == b["top"]).float().mean()
    return "%.2g, top-1 equal on %.2f %%" % (d, 100 * same)


def write(path, tensors, about):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    meta = {
        "format": "pt",
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }
    meta.update(about)
    save_file(tensors, path, meta)
    os.chmod(path, 0o644)
    print("%-40s %8d bytes  %s" % (os.path.basename(path), os.path.getsize(path), about))
