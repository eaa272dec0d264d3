#!/usr/bin/env python3
"""A training step of the SmolLM2-135M shape in plain PyTorch: the peer of bench/train-peers.

    peer_torch.py --seq N [--mode std|ckpt|mini] [--dtype fp32|bf16] [--steps K] [--threads T]

One configuration a process. Prints a JSON object: seconds of every step, tokens, loss, version.

    std    autograd keeps what it wants
    ckpt   every layer is a checkpoint of torch.utils.checkpoint and is computed again
    mini   besides, the MLP in pieces and the output matrix with the loss in blocks of rows, each a checkpoint:
           mini-sequences as an ordinary PyTorch program has them

Attention is PyTorch's fused one. With bf16 weights, gradients and moments are bf16 too, which is the fastest and
smallest way PyTorch has. Weights and tokens are random: speed does not depend on the values.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD, HIDDEN, VOCAB = 576, 30, 9, 3, 64, 1536, 49152
ROPE_BASE, EPS = 1e5, 1e-5
MLP_PIECES = -(-HIDDEN // WIDTH)
HEAD_ROWS = 512


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)
        return (wide * scale).to(x.dtype) * self.gain


def rotation(seq, dtype):
    """Cosines and sines of every position, for both halves of a head."""
    frequency = ROPE_BASE ** (-torch.arange(0, HEAD, 2).float() / HEAD)
    angle = torch.outer(torch.arange(seq).float(), frequency).repeat(1, 2)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x, rope):
    first, second = x.chunk(2, -1)
    return x * rope[0] + torch.cat((-second, first), -1) * rope[1]


class Layer(nn.Module):
    def __init__(self, pieces):
        super().__init__()
        self.pieces = pieces
        self.attention_norm, self.mlp_norm = Norm(), Norm()
        self.q = nn.Linear(WIDTH, HEADS * HEAD, bias=False)
        self.k = nn.Linear(WIDTH, KV_HEADS * HEAD, bias=False)
        self.v = nn.Linear(WIDTH, KV_HEADS * HEAD, bias=False)
        self.o = nn.Linear(HEADS * HEAD, WIDTH, bias=False)
        self.gate = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.up = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

    def attention(self, x, rope):
        n = self.attention_norm(x)
        q = rotate(self.q(n).view(-1, HEADS, HEAD).transpose(0, 1), rope)
        k = rotate(self.k(n).view(-1, KV_HEADS, HEAD).transpose(0, 1), rope)
        v = self.v(n).view(-1, KV_HEADS, HEAD).transpose(0, 1)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, 0) for t in (k, v))
        y = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        return x + self.o(y.transpose(0, 1).reshape(-1, HEADS * HEAD))

    def mlp(self, x):
        n = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))

    def forward(self, x, rope):
        x = self.attention(x, rope)
        if self.pieces == 1:
            return self.mlp(x)
        return torch.cat([checkpoint(self.mlp, part, use_reentrant=True) for part in x.chunk(self.pieces)])


class Model(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.mode = mode
        self.embedding = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(Layer(MLP_PIECES if mode == "mini" else 1) for _ in range(LAYERS))
        self.norm = Norm()
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, 0, 0.02)

    def loss_sum(self, x, target):
        return F.cross_entropy(F.linear(x, self.embedding.weight).float(), target, reduction="sum")

    def forward(self, ids, target, rope):
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, rope) if self.mode == "std" else checkpoint(layer, x, rope, use_reentrant=True)
        x = self.norm(x)
        if self.mode != "mini":
            return self.loss_sum(x, target) / len(ids)
        blocks = zip(x.split(HEAD_ROWS), target.split(HEAD_ROWS))
        return sum(checkpoint(self.loss_sum, a, b, use_reentrant=True) for a, b in blocks) / len(ids)


def prepared(model):
    """AdamW with its moments already there, so that no timed step allocates them."""
    opt = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    opt.step()
    opt.zero_grad(set_to_none=True)
    return opt


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seq", type=int, required=True)
    ap.add_argument("--mode", choices=("std", "ckpt", "mini"), default="std")
    ap.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    ap.add_argument("--steps", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if a.dtype == "bf16" else torch.float32
    model = Model(a.mode).to(dtype)
    opt = prepared(model)
    rope = rotation(a.seq, dtype)
    ids = torch.randint(0, VOCAB, (a.seq,))
    target = ids.roll(-1)
    seconds = []
    for _ in range(a.steps):
        start = time.monotonic()
        loss = model(ids, target, rope)
        loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
        seconds.append(time.monotonic() - start)
    print(json.dumps({"seconds": seconds, "tokens": a.seq, "loss": loss.item(), "version": torch.__version__}))


if __name__ == "__main__":
    main()
