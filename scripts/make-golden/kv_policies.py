#!/usr/bin/env python3
"""Cache policies as their papers state them, on a tiny model of Llama's type, in numpy and double: every token goes
alone through the layers, every set of tokens is a Python list.

    kv_policies.py

writes tests/data/golden/kv-policies.safetensors, which tests/golden/test_golden_kv.c holds the engine against:

    ids        I32 [N]            tokens of the tiny qwen3 model
    n_prompt   I32 [1]            the first so many are a prompt, the others are appended one at a time
    probe_ids  I32 [P]            vocabulary ids whose logits are there
    KV         F32 [N - n_prompt + 1][P]   a tensor for each policy, named by its --kv text: logits after the prompt
                                           and after each later token

Papers: StreamingLLM, arXiv 2309.17453; H2O, 2306.14048; SnapKV, 2404.14469; PyramidKV, 2406.02069; KIVI, 2402.02750.
"""

import json
import os

import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL = os.path.join(ROOT, "tests/data/models/qwen3")
OUT = os.path.join(ROOT, "tests/data/golden/kv-policies.safetensors")
N_TOKENS, N_PROMPT, PROBE_EVERY = 330, 200, 12


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rotate(x, pos, theta):
    """Rotary embedding of vectors [..., d] at one position."""
    half = x.shape[-1] // 2
    angle = pos * theta ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=-1)


class Model:
    def __init__(self, path):
        with open(os.path.join(path, "config.json")) as f:
            c = json.load(f)
        self.w = {k: v.to(torch.float64).numpy() for k, v in load_file(path + "/model.safetensors").items()}
        self.L, self.H, self.G = (c["num_" + n] for n in ("hidden_layers", "attention_heads", "key_value_heads"))
        self.d, self.eps, self.theta = c["head_dim"], c["rms_norm_eps"], c["rope_parameters"]["rope_theta"]

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps) * self.w[name]

    def logits(self, token, t, policies, prompt):
        """Logits after the token at place t; policies: one for each layer."""
        x = self.w["model.embed_tokens.weight"][token]
        for layer in range(self.L):
            at = "model.layers.%d." % layer
            n = self.norm(x, at + "input_layernorm.weight")
            q, k, v = ((self.w[at + "self_attn.%s_proj.weight" % p] @ n).reshape(-1, self.d) for p in "qkv")
            q = self.norm(q, at + "self_attn.q_norm.weight")
            k = self.norm(k, at + "self_attn.k_norm.weight")
            o = policies[layer].token(q, k, v, t, prompt)
            x = x + self.w[at + "self_attn.o_proj.weight"] @ o.reshape(-1)
            n = self.norm(x, at + "post_attention_layernorm.weight")
            gate, up = self.w[at + "mlp.gate_proj.weight"] @ n, self.w[at + "mlp.up_proj.weight"] @ n
            x = x + self.w[at + "mlp.down_proj.weight"] @ (gate / (1 + np.exp(-gate)) * up)
        return self.w["lm_head.weight"] @ self.norm(x, "model.norm.weight")


class Full:
    """Per kv head lists of tokens: their places, keys (rotated there) and values."""

    margins = []  # how near choices were, of the largest score: fp32 must not choose otherwise

    def __init__(self, model, layer):
        self.m, self.layer = model, layer
        self.pos, self.k, self.v = ([[] for _ in range(model.G)] for _ in range(3))

    def heads(self, g):
        group = self.m.H // self.m.G
        return slice(g * group, (g + 1) * group)

    def attend(self, g, q):
        """Query heads of group g over the list: probabilities [group][n], outputs [group][d]."""
        p = softmax(q @ np.array(self.k[g]).T / np.sqrt(self.m.d))
        return p, p @ np.array(self.v[g])

    def token(self, q, k, v, t, prompt):
        q, k = rotate(q, t, self.m.theta), rotate(k, t, self.m.theta)
        out = np.zeros_like(q)
        for g in range(self.m.G):
            self.pos[g].append(t)
            self.k[g].append(k[g])
            self.v[g].append(v[g])
            p, out[self.heads(g)] = self.attend(g, q[self.heads(g)])
            self.looked(g, q[self.heads(g)], p, prompt)
        return out

    def looked(self, g, q, p, prompt):
        pass

    def end_prompt(self):
        pass

    def keep(self, g, chosen):
        for x in (self.pos, self.k, self.v):
            x[g] = [x[g][i] for i in chosen]

    def best(self, scores, candidates, k):
        """The k candidates of the largest scores; of equal ones the later."""
        order = sorted(candidates, key=lambda i: (scores[i], i), reverse=True)
        if 0 < k < len(order):
            self.margins.append((scores[order[k - 1]] - scores[order[k]]) / max(scores))
        return order[:k]


class Streaming(Full):
    """Sinks and a window; places are those in the cache. Keys are kept as they are before the rotation."""

    def __init__(self, model, layer, sink, recent):
        super().__init__(model, layer)
        self.sink, self.recent = sink, recent

    def token(self, q, k, v, t, prompt):
        out = np.zeros_like(q)
        for g in range(self.m.G):
            self.k[g].append(k[g])
            self.v[g].append(v[g])
            n = len(self.k[g])
            keys = np.array([rotate(x, i, self.m.theta) for i, x in enumerate(self.k[g])])
            p = softmax(rotate(q[self.heads(g)], n - 1, self.m.theta) @ keys.T / np.sqrt(self.m.d))
            out[self.heads(g)] = p @ np.array(self.v[g])
            if n > self.sink + self.recent:
                del self.k[g][self.sink], self.v[g][self.sink]
        return out


class H2O(Full):
    def __init__(self, model, layer, heavy, recent, sinks=0, age=False):
        super().__init__(model, layer)
        self.heavy, self.recent, self.sinks, self.age = heavy, recent, sinks, age
        self.acc = [[] for _ in range(model.G)]

    def looked(self, g, q, p, prompt):
        self.acc[g] = list(np.array(self.acc[g] + [0.0]) + p.sum(axis=0))
        if not prompt:
            self.cut(g)

    def cut(self, g):
        n, pos = self.pos[g][-1] + 1, self.pos[g]
        safe = [i for i in range(len(pos)) if pos[i] >= n - self.recent or pos[i] < self.sinks]
        others = [i for i in range(len(pos)) if i not in safe]
        drop = len(pos) - self.heavy - self.recent
        if drop <= 0:
            return
        scores = [a / (n - p) if self.age else a for a, p in zip(self.acc[g], pos)]
        chosen = sorted(safe + self.best(scores, others, len(others) - drop))
        self.keep(g, chosen)
        self.acc[g] = [self.acc[g][i] for i in chosen]

    def end_prompt(self):
        for g in range(self.m.G):
            self.cut(g)


class SnapKV(Full):
    def __init__(self, model, layer, budget, window, kernel, pool="avg", pyramid=False):
        super().__init__(model, layer)
        self.budget, self.window, self.kernel, self.pool, self.pyramid = budget, window, kernel, pool, pyramid
        self.q = [[] for _ in range(model.G)]

    def looked(self, g, q, p, prompt):
        if prompt:
            self.q[g].append(q)

    def layer_budget(self, n):
        chosen = self.budget - self.window
        if not self.pyramid:
            return chosen
        lo = chosen // 20
        hi = 2 * chosen - lo
        if hi > n - self.window:
            hi = n - self.window
            lo = 2 * chosen - hi
        return hi - self.layer * (hi - lo) // (self.m.L - 1)

    def pooled(self, s):
        half, n = self.kernel // 2, len(s)
        if self.pool == "max":
            return np.array([s[max(0, j - half):j + half + 1].max() for j in range(n)])
        padded = np.concatenate([np.zeros(half), s, np.zeros(half)])
        return np.array([padded[j:j + self.kernel].mean() for j in range(n)])

    def end_prompt(self):
        for g in range(self.m.G):
            n, w = len(self.k[g]), self.window
            keys, scores = np.array(self.k[g]), np.zeros(n - w)
            for h in range(self.m.H // self.m.G):
                s = np.zeros(n - w)
                for i in range(w):  # row i of the window sees everything up to itself
                    row = self.q[g][n - w + i][h] @ keys[:n - w + i + 1].T / np.sqrt(self.m.d)
                    s += softmax(row)[:n - w]
                scores += self.pooled(s)
            chosen = self.best(list(scores), range(n - w), self.layer_budget(n))
            self.keep(g, sorted(chosen) + list(range(n - w, n)))


def quantised(x, bits):
    """A group of numbers through `bits` bits: the offset rounded down to fp16 and the step up, so that they cover it."""
    top = 2 ** bits - 1
    z = np.float16(x.min())
    z = np.nextafter(z, np.float16(-np.inf)) if float(z) > x.min() else z
    step = (x.max() - float(z)) / top
    s = np.float16(step)
    s = np.nextafter(s, np.float16(np.inf)) if float(s) < step else s
    if s == 0:
        return np.full_like(x, float(z))
    return np.clip(np.rint((x - float(z)) / float(s)), 0, top) * float(s) + float(z)


class Kivi(Full):
    """Keys per channel in groups of tokens, values per token in groups of channels; tails that are exact."""

    def __init__(self, model, layer, bits, group, residual):
        super().__init__(model, layer)
        self.bits, self.group, self.residual = bits, group, residual
        self.nk = self.nv = 0  # tokens whose keys, values are quantised

    def quantise(self, n_keys, n_values):
        for g in range(self.m.G):
            for t in range(self.nk, n_keys, self.group):
                block = np.array(self.k[g][t:t + self.group])
                for c in range(self.m.d):
                    block[:, c] = quantised(block[:, c], self.bits)
                self.k[g][t:t + self.group] = list(block)
            for t in range(self.nv, n_values):
                v = self.v[g][t]
                self.v[g][t] = np.concatenate(
                    [quantised(v[c:c + self.group], self.bits) for c in range(0, self.m.d, self.group)])
        self.nk, self.nv = max(self.nk, n_keys), max(self.nv, n_values)

    def token(self, q, k, v, t, prompt):
        out = super().token(q, k, v, t, prompt)
        if not prompt:
            self.end_prompt()
        return out

    def end_prompt(self):
        n, R = len(self.k[0]), self.residual
        self.quantise(n - n % R, max(0, n - R))


CASES = {
    "full": lambda m, l: Full(m, l),
    "streaming:sink=4,recent=60": lambda m, l: Streaming(m, l, 4, 60),
    "streaming:sink=1,recent=150": lambda m, l: Streaming(m, l, 1, 150),
    "h2o:heavy=20,recent=20": lambda m, l: H2O(m, l, 20, 20),
    "h2o:heavy=15%,recent=5%": lambda m, l: H2O(m, l, 30, 10),
    "h2o:heavy=40,recent=10,sinks=4,normalise=age": lambda m, l: H2O(m, l, 40, 10, 4, True),
    "snapkv:budget=60,window=16,kernel=5": lambda m, l: SnapKV(m, l, 60, 16, 5),
    "snapkv:budget=25%,window=16,kernel=7,pool=max": lambda m, l: SnapKV(m, l, 50, 16, 7, "max"),
    "snapkv:budget=60,window=16,kernel=5,layers=pyramid": lambda m, l: SnapKV(m, l, 60, 16, 5, "avg", True),
    "kivi:bits=2,group=32,residual=32": lambda m, l: Kivi(m, l, 2, 32, 32),
    "kivi:bits=4,group=32,residual=128": lambda m, l: Kivi(m, l, 4, 32, 128),
}


def run(model, make, ids, probe):
    policies = [make(model, layer) for layer in range(model.L)]
    rows = []
    for t, token in enumerate(ids):
        logits = model.logits(token, t, policies, t < N_PROMPT)
        if t == N_PROMPT - 1:
            for p in policies:
                p.end_prompt()
        if t >= N_PROMPT - 1:
            rows.append(logits[probe])
    return np.array(rows)


def main():
    model = Model(MODEL)
    vocab = len(model.w["lm_head.weight"])
    ids = np.random.default_rng(4).integers(6, vocab, N_TOKENS)
    probe = np.arange(PROBE_EVERY // 2, vocab, PROBE_EVERY)
    out = {"ids": ids.astype(np.int32), "n_prompt": np.array([N_PROMPT], np.int32), "probe_ids": probe.astype(np.int32)}
    full = None
    for name, make in CASES.items():
        Full.margins.clear()
        rows = run(model, make, ids, probe)
        full = rows if full is None else full
        print("%-52s from full: %.3f rms   nearest choice: %.1e"
              % (name, np.sqrt(((rows - full) ** 2).mean()), min(Full.margins, default=np.inf)))
        out[name] = rows.astype(np.float32)
    save_file(out, OUT, {"made by": "scripts/make-golden/kv_policies.py", "model": "qwen3"})
    os.chmod(OUT, 0o644)
    print("%s %d bytes" % (os.path.basename(OUT), os.path.getsize(OUT)))


if __name__ == "__main__":
    main()
