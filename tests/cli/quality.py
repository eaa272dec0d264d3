#!/usr/bin/env python3
"""What every way to keep a KV cache loses, on models that were trained: gates that a broken one does not pass.

    tests/cli/quality.py LONGSPAN loss|recall

loss: SmolLM2-135M on a text, most of it longer ago than the cache holds. recall: numbers in long texts, asked of the bundled
model. The thresholds are what was measured when they were written (docs/kv-policies.md), with room for another text.
"""

import json
import math
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
RECALL = os.path.join(os.path.dirname(os.path.dirname(HERE)), "models", "recall")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "longspan")
SMOLLM2 = os.environ.get("LONGSPAN_MODEL") or os.path.join(CACHE, "SmolLM2-135M-Instruct.Q4_1.gguf")
PROGRAM = sys.argv[1]
failures = 0


def check(what, ok, detail=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}: {detail}", flush=True)


def output(*words):
    return subprocess.run([PROGRAM, *words], stdout=subprocess.PIPE, check=True).stdout.decode()


def loss():
    """A model that was trained on real text, on a text most of which is longer ago than 128 tokens."""
    if not os.path.exists(SMOLLM2):
        print("skipped: run scripts/get-model first")
        sys.exit(77)
    text = subprocess.run(["bible", "-l", "200", "est1:1-est2:23"], stdout=subprocess.PIPE, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "text")
        with open(path, "wb") as f:
            f.write(text[:3000])

        def nll(kv):
            return json.loads(output("perplexity", "-m", SMOLLM2, "-f", path, "-c", "1024", "--prompt-tokens", "32", "--kv", kv,
                                     "--json", "-q"))["mean_nll"]

        full = nll("full")
        lost = {kv: 100 * (nll(kv) / full - 1) for kv in (
            "kivi:bits=4", "kivi:bits=2", "streaming:sink=4,recent=124", "streaming:sink=0,recent=128",
            "h2o:heavy=64,recent=64", "h2o:heavy=0,recent=128", "topk:k=128", "quest:budget=128")}
    print("\n".join(f"     {kv}: {by:+.2f} % of {full:.4f}" for kv, by in lost.items()))
    sinks, none = lost["streaming:sink=4,recent=124"], lost["streaming:sink=0,recent=128"]
    heavy, recent = lost["h2o:heavy=64,recent=64"], lost["h2o:heavy=0,recent=128"]
    best, pages = lost["topk:k=128"], lost["quest:budget=128"]
    check("4 bits cost nothing", abs(lost["kivi:bits=4"]) < 1, lost["kivi:bits=4"])
    check("2 bits cost little", 1 < lost["kivi:bits=2"] < 10, lost["kivi:bits=2"])
    check("a window with sinks loses what lies outside", 1 < sinks < 10, sinks)
    check("a window without sinks breaks", none > 20, none)
    check("heavy hitters are worth more than the last tokens", heavy < 10 and heavy < recent / 2, (heavy, recent))
    check("pages are read instead of 128 tokens", best < pages < 7, pages)
    check("the oracle is the best of 128 tokens", best < 2 and best < min(sinks, heavy, pages), best)


def recall():
    """Numbers in long texts, an eighth of which is kept or read, and what lies in the window."""
    tasks = ("needle-single", "needle-multikey", "passkey")
    names = ("full", "streaming", "h2o", "snapkv", "kivi:bits=2", "kivi:bits=4", "quest", "topk")
    rows = json.loads(output("eval", "-m", RECALL, "--kv", ",".join(names), "--budget", "12.5%", "--task", ",".join(tasks),
                             "--length", "2k", "--cases", "8", "--protocol", "sparse", "--json", "-q"))["rows"]
    found = {}
    for row in rows:
        name = next(n for n in names if row["kv"].startswith(n))
        found[name] = found.get(name, 0) + row["accuracy"] / len(tasks)
    print("\n".join(f"     {name}: {100 * by:.0f} %" for name, by in found.items()))
    full = found["full"]
    check("full attention", full >= 0.95, full)
    check("4 bits", found["kivi:bits=4"] >= 0.95 * full, found["kivi:bits=4"])
    check("2 bits", found["kivi:bits=2"] >= 0.6 * full, found["kivi:bits=2"])
    check("an eighth is read by pages", found["quest"] >= 0.98 * full, found["quest"])
    check("the oracle", found["topk"] >= 0.98 * full, found["topk"])
    for name in ("streaming", "h2o", "snapkv"):
        check(f"an eighth is kept, the question unknown: {name}", found[name] <= 0.5, found[name])

    bible = subprocess.run(["bible", "-l", "200", "est1:1-est9:32"], stdout=subprocess.PIPE, check=True).stdout.decode()
    needle = "One of the special magic numbers for {} is: {}.\n"
    lines = "".join(needle.format(*pair) for pair in (("Lisbon", 52814), ("Bergen", 18429), ("Hanoi", 60937)))
    text = bible[:6000] + lines + bible[6000:6200] + "\nWhat is the special magic number for Bergen? The special magic number for Bergen is:"
    for kv in ("full", "streaming:sink=4,recent=252", "h2o:heavy=128,recent=128"):
        answer = output("generate", "-m", RECALL, "-p", text, "-n", "6", "--temp", "0", "--kv", kv, "-q")
        check(f"a line in the window: {kv}", answer.strip().startswith("18429"), answer)


{"loss": loss, "recall": recall}[sys.argv[2]]()
sys.exit(1 if failures else 0)
