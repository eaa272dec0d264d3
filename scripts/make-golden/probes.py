"""Probes of tensors that are too large to be kept: what a golden file holds in place of whole gradients.

For each of P parameters, in one order throughout:

    names    U8  [bytes]   their Hugging Face names, each followed by a newline
    shape    I32 [P][2]    rows and columns; a vector of n is n, 1
    norm     F64 [P]       square root of the sum of squares
    dot      F64 [P][K]    inner products with K vectors of signs
    sample   F32 [...]     min(n, LIMIT) elements of each parameter of n, one parameter after the other

With i the index of an element, row by row, and mix64 the finalizer of splitmix64:

    sign k of element i    1 - 2 * (bit k of mix64(i))
    sample j               element j when n <= LIMIT, else element mix64(2^63 + j) mod n

LIMIT stands in the metadata ("sample limit"). If d is the difference of two tensors, the mean square of its K inner products
estimates |d|^2 (within a factor of 3 either way in most cases at K = 4), and so does n times the mean square of its samples.
"""

import numpy as np
import torch

K = 4
BLOCK = 1 << 22


def mix64(x):
    """x: numpy array of uint64."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sampled(n, limit):
    """Indices of the elements that are kept of n."""
    j = np.arange(min(n, limit), dtype=np.uint64)
    if n <= limit:
        return j.astype(np.int64)
    return (mix64(j + np.uint64(1 << 63)) % np.uint64(n)).astype(np.int64)


def dots(x):
    """Inner products of the flat array x with the K vectors of signs, in double."""
    sums = np.zeros(K)
    for begin in range(0, x.size, BLOCK):
        part = x[begin:begin + BLOCK].astype(np.float64)
        h = mix64(np.arange(begin, begin + part.size, dtype=np.uint64))
        for k in range(K):
            signs = 1.0 - 2.0 * ((h >> np.uint64(k)) & np.uint64(1)).astype(np.float64)
            sums[k] += part @ signs
    return sums


def table(named, limit, prefix=""):
    """The tensors above for a dictionary of name to tensor; prefix goes before the keys of all but names and shape."""
    rows, norms, products, samples = [], [], [], []
    for t in named.values():
        x = t.detach().numpy().reshape(-1)
        rows.append([t.shape[0], t.shape[1] if t.dim() == 2 else 1])
        norms.append(np.sqrt(np.sum(np.square(x, dtype=np.float64))))
        products.append(dots(x))
        samples.append(x[sampled(x.size, limit)].astype(np.float32))
    return {
        "names": torch.tensor(list("".join(n + "\n" for n in named).encode()), dtype=torch.uint8),
        "shape": torch.tensor(rows, dtype=torch.int32),
        prefix + "norm": torch.tensor(np.array(norms)),
        prefix + "dot": torch.tensor(np.array(products)),
        prefix + "sample": torch.tensor(np.concatenate(samples)),
    }
