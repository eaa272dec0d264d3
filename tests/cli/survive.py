#!/usr/bin/env python3
"""A run that is killed, stopped or out of disk and resumed ends as one that nothing happened to.

    tests/cli/survive.py LONGSPAN

kill -9 at moments that a seed chooses: the weights and every line of losses are those of an undisturbed run, and
nothing unfinished is left. SIGTERM: a checkpoint and status 0. A full disk: one sentence, whole files; with room
again the run goes on.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(os.path.dirname(HERE), "data", "models", "smollm2")
TEXT = os.path.join(os.path.dirname(os.path.dirname(HERE)), "docs", "numerics.md")
STEPS, SAVE_EVERY, KILLS = 300, 7, 12
failures = 0


def check(what, ok, detail=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}{'' if ok else f': {detail!r}'}", flush=True)


def start(out, *more):
    words = ["train", "-m", MODEL, "--data", TEXT, "--eval-data", TEXT, "--eval-every", "50", "--seq", "64",
             "--steps", str(STEPS), "--save-every", str(SAVE_EVERY), "--lr", "1e-3", "-q", "--out", out, *more]
    return subprocess.Popen([sys.argv[1], *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


def finish(p):
    out, err = p.communicate(timeout=200)
    return p.returncode, out.decode(), err.decode()


def lines(out):
    """What must be the same: everything but times and memory. None where a line is not whole."""
    kept = ("step", "loss", "grad_norm", "lr", "tokens", "labels", "eval_loss")
    with open(os.path.join(out, "metrics.jsonl"), encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    return [{k: row.get(k) for k in kept} for row in rows]


def weights(out):
    with open(os.path.join(out, "model", "model.safetensors"), "rb") as f:
        return f.read()


def left_over(out):
    return [name for folder in (out, os.path.join(out, "checkpoints")) for name in os.listdir(folder)
            if ".part-" in name or ".tmp-" in name]


def steps_of(out):
    try:
        with open(os.path.join(out, "metrics.jsonl"), "rb") as f:
            return f.read().count(b"\n")
    except FileNotFoundError:
        return 0


def wait_for_steps(p, out, n):
    """Until n lines more are there than now; false when the process ended before."""
    want = steps_of(out) + n
    while p.poll() is None and steps_of(out) < want:
        time.sleep(0.001)
    return p.poll() is None


def resume(out):
    return start(out, *(["--resume"] if os.path.exists(os.path.join(out, "run.json")) else []))


def test_kill(work, plain):
    rng = random.Random(11)
    out = os.path.join(work, "killed")
    killed = 0
    for _ in range(KILLS):
        p = resume(out)
        if wait_for_steps(p, out, rng.randrange(1, STEPS // KILLS)):
            time.sleep(rng.random() * 0.02)
        p.send_signal(signal.SIGKILL)
        killed += finish(p)[0] == -signal.SIGKILL
    status, _, err = finish(resume(out))
    check(f"a run killed {killed} times ends", status == 0 and killed > KILLS // 2, (status, killed, err))
    check("its weights are those of an undisturbed run", weights(out) == weights(plain))
    check("and so is every line of its metrics", lines(out) == lines(plain))
    check("nothing unfinished is left", left_over(out) == [], left_over(out))


def test_stop(work, plain):
    out = os.path.join(work, "stopped")
    p = start(out)
    wait_for_steps(p, out, 20)
    p.send_signal(signal.SIGTERM)
    status, _, err = finish(p)
    n = steps_of(out)
    check("SIGTERM ends a run with status 0", status == 0 and 20 <= n < STEPS, (status, n, err))
    check("and a checkpoint of its last step",
          os.path.exists(os.path.join(out, "checkpoints", f"step-{n:08}.safetensors")), os.listdir(out))
    status, _, err = finish(resume(out))
    check("it goes on", status == 0 and weights(out) == weights(plain) and lines(out) == lines(plain), (status, err))


def test_disk_full(work, plain):
    disk = os.path.join(work, "disk")
    os.mkdir(disk)
    small = sum(os.path.getsize(os.path.join(plain, "checkpoints", f))
                for f in os.listdir(os.path.join(plain, "checkpoints"))) * 5 // 4
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={small}", "tmpfs", disk], capture_output=True)
    if mount.returncode != 0:
        print("skipped: no right to mount")
        return
    try:
        out = os.path.join(disk, "run")
        status, _, err = finish(start(out))
        check("a full disk is one sentence", status == 1 and err.count("\n") == 1 and "No space left" in err,
              (status, err))
        check("what is there is whole", left_over(out) == [] and len(lines(out)) > 0, left_over(out))
        subprocess.run(["mount", "-o", "remount,size=100M", disk], check=True)
        status, _, err = finish(resume(out))
        check("with room it goes on", status == 0 and weights(out) == weights(plain) and lines(out) == lines(plain),
              (status, err))
    finally:
        subprocess.run(["umount", disk], check=False)


def main():
    work = tempfile.mkdtemp(prefix="longspan-survive-")
    try:
        plain = os.path.join(work, "plain")
        status, _, err = finish(start(plain))
        check("an undisturbed run", status == 0, err)
        test_kill(work, plain)
        test_stop(work, plain)
        test_disk_full(work, plain)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
