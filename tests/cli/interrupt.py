#!/usr/bin/env python3
"""Ctrl-C: the first stops the work and keeps what there is, the second ends the program.

    tests/cli/interrupt.py LONGSPAN
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(os.path.dirname(HERE), "data", "models", "smollm2")
ENDLESS = ["-n", "-1", "-c", "400000", "--ignore-eos"]
failures = 0


def check(what, ok, detail=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}{'' if ok else f': {detail!r}'}")


def start(*words):
    return subprocess.Popen([sys.argv[1], *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def interrupted(*words, first_output=True):
    p = start(*words)
    p.stderr.readline()  # what model it is: from here on signals are expected
    head = p.stdout.read(8) if first_output else b""
    if not first_output:
        time.sleep(0.3)
    p.send_signal(signal.SIGINT)
    try:
        out, err = p.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
    return p.returncode, head + out, err


status, out, err = interrupted("generate", "-m", MODEL, "-p", "Hello", *ENDLESS)
check("generate stops and prints what there is", status == 130 and len(out) > 1, (status, out[:80], err))

status, out, err = interrupted("generate", "-m", MODEL, "-p", "Hello", "--json", *ENDLESS, first_output=False)
try:
    answer = json.loads(out)
except ValueError:
    answer = {}
check("--json still prints its object", status == 130 and answer.get("stop") == "interrupt"
      and answer["generated_tokens"] == len(answer["ids"]), (status, out[:80], err))

status, out, err = interrupted("chat", "-m", MODEL, "-p", "Hello", *ENDLESS)
check("chat -p stops", status == 130 and len(out) > 1, (status, out[:80], err))

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "long.txt")
    with open(path, "w") as f:
        f.write("A text that takes a while to read. " * 200_000)
    status, out, err = interrupted("generate", "-m", MODEL, "--doc", path, "-p", "x", "-c", "8000000", "-t", "1",
                                   first_output=False)
    check("reading a prompt stops", status == 130 and out == b"", (status, out[:80], err))
    status, out, err = interrupted("perplexity", "-m", MODEL, "-f", path, "-c", "512", "-t", "1",
                                   first_output=False)
    check("perplexity stops", status == 130, (status, out[:80], err))

with tempfile.TemporaryDirectory() as folder:
    text, run = os.path.join(folder, "numbers.txt"), os.path.join(folder, "run")
    with open(text, "w") as f:
        f.write(" ".join(str(n) for n in range(20_000)))
    words = ["train", "-m", MODEL, "--data", text, "--seq", "256", "--out", run, "-t", "1"]
    p = start(*words, "--steps", "1000000")
    for _ in range(600):  # until steps are being made
        try:
            if os.path.getsize(os.path.join(run, "metrics.jsonl")) > 0:
                break
        except OSError:
            pass
        time.sleep(0.1)
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate(timeout=60)
    check("training stops with status 0 and says how to go on", p.returncode == 0 and b"--resume goes on" in err,
          (p.returncode, err))
    with open(os.path.join(run, "metrics.jsonl")) as f:
        done = len(f.readlines())
    p = start(*words, "--steps", str(done + 2), "--resume", "--json")
    out, err = p.communicate(timeout=60)
    check("and goes on", p.returncode == 0 and json.loads(out)["step"] == done + 2, (p.returncode, out, err))

sys.exit(1 if failures else 0)
