#!/usr/bin/env python3
"""Runs of training: what they leave, how they go on after any end, what they say when something is missing.

    tests/cli/train.py LONGSPAN [NAME...]

NAME: run only the cases whose names contain one of these.
"""

import contextlib
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(os.path.dirname(HERE), "data", "models")
MODEL = os.path.join(MODELS, "smollm2")
TIMEOUT = 200
failures = 0


def check(what, ok, detail=""):
    global failures
    failures += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {what}{'' if ok else f': {detail!r}'}", flush=True)


def write_text(path, words=4000, seed=1):
    """A text of few words, so that a small model has something to learn."""
    rng = random.Random(seed)
    names = "the a small large river mountain crosses sees under and of green old bridge".split()
    with open(path, "w", encoding="utf-8") as f:
        for i in range(words):
            f.write(rng.choice(names) + ("\n" if i % 17 == 16 else " "))


def start(*words, **how):
    return subprocess.Popen([sys.argv[1], *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, **how)


def longspan(*words, **how):
    """Exit status, output, messages."""
    p = start(*words, **how)
    try:
        out, err = p.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        return None, out, err
    return p.returncode, out, err


class Run:
    """A run in a folder of its own, on the text, with steps that do not depend on how many there are."""

    def __init__(self, folder, name, *more, model=("-m", MODEL)):
        self.out = os.path.join(folder, name)
        self.words = ["train", *model, "-d", os.path.join(folder, "text.txt"), "-o", self.out, "--seq", 48,
                      "--lr", "1e-3", "--schedule", "constant", "--warmup", 0, "-t", 1, "-q", *more]

    def go(self, steps, *more):
        return longspan(*self.words, "--steps", steps, *more)

    def start(self, steps, *more):
        return start(*self.words, "--steps", steps, *more)

    def path(self, *names):
        return os.path.join(self.out, *names)

    def result(self):
        lora = os.path.isdir(self.path("adapter"))
        with open(self.path(*(("adapter", "adapter_model") if lora else ("model", "model"))) + ".safetensors", "rb") as f:
            return f.read()

    def metrics(self):
        with open(self.path("metrics.jsonl"), encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def lines(self):
        """Whole lines of metrics while it runs."""
        try:
            with open(self.path("metrics.jsonl"), "rb") as f:
                return f.read().count(b"\n")
        except FileNotFoundError:
            return 0

    def learned(self):
        """What does not depend on time and place."""
        return [{k: v for k, v in m.items() if k not in ("seconds", "peak_bytes")} for m in self.metrics()]

    def checkpoints(self):
        try:
            return sorted(n for n in os.listdir(self.path("checkpoints")) if n.endswith(".safetensors"))
        except FileNotFoundError:
            return []

    def leftovers(self):
        return [n for _, folders, files in os.walk(self.out) for n in folders + files
                if ".part-" in n or ".tmp-" in n]


def same(what, a, b):
    check(f"{what}: the same weights", a.result() == b.result())
    check(f"{what}: the same metrics", a.learned() == b.learned(), (a.learned(), b.learned()))


def one_sentence(err):
    lines = err.strip().split("\n")
    return len(lines) == 1 and lines[0].startswith("longspan: ")


# ---- cases --------------------------------------------------------------------------------------


def case_whole_run(folder):
    write_text(os.path.join(folder, "eval.txt"), 600, seed=2)
    run = Run(folder, "run", "--eval-data", os.path.join(folder, "eval.txt"), "--eval-every", 4, "--save-every", 3,
              "--gguf", "q8_0", "--accumulate", 2)
    status, _, err = run.go(8)
    check("a run ends well", status == 0 and err == "", (status, err))
    metrics = run.metrics()
    check("a line for each step", [m["step"] for m in metrics] == list(range(1, 9)), metrics)
    fields = {"step", "loss", "grad_norm", "lr", "tokens", "labels", "seconds", "peak_bytes"}
    check("their members", all(fields <= m.keys() for m in metrics), metrics[0])
    check("evaluated when asked", [m["step"] for m in metrics if "eval_loss" in m] == [4, 8], metrics)
    check("tokens and labels of the step", all(m["tokens"] == 96 and m["labels"] == 94 for m in metrics), metrics)
    check("the loss falls", metrics[-1]["loss"] < metrics[0]["loss"] - 0.1, [m["loss"] for m in metrics])
    check("the evaluation's too", metrics[7]["eval_loss"] < metrics[3]["eval_loss"], metrics)
    check("the last checkpoints are kept", run.checkpoints() == [f"step-{i:08}.safetensors" for i in (6, 8)],
          run.checkpoints())
    check("nothing is left over", run.leftovers() == [], run.leftovers())
    names = {"run.json", "metrics.jsonl", "loss.svg", "checkpoints", "tokens", "model", "model.gguf"}
    check("the directory", set(os.listdir(run.out)) == names, os.listdir(run.out))
    with open(run.path("run.json"), encoding="utf-8") as f:
        options = json.load(f)["options"]
    check("run.json says what was asked for", options["seq"] == 48 and options["accumulate"] == 2, options)
    names = {"config.json", "model.safetensors", "tokenizer.json"}
    check("a Hugging Face directory", names <= set(os.listdir(run.path("model"))), os.listdir(run.path("model")))
    for model in (run.path("model"), run.path("model.gguf")):
        status, out, err = longspan("generate", "-m", model, "-p", "the small", "-n", 4, "--ignore-eos", "-q")
        check(f"{os.path.basename(model)} generates", status == 0 and out.strip() != "", (status, out, err))
    losses = []
    for model in (MODEL, run.path("model"), run.path("model.gguf")):
        status, out, err = longspan("perplexity", "-m", model, "-f", os.path.join(folder, "eval.txt"), "-c", 48,
                                    "--json", "-q")
        losses.append(json.loads(out)["perplexity"] if status == 0 else None)
    check("perplexity falls with training", None not in losses and losses[1] < 0.95 * losses[0]
          and abs(losses[2] / losses[1] - 1) < 0.02, losses)
    status, _, err = run.go(8)
    check("a run is not written over", status == 1 and one_sentence(err) and "--resume" in err, (status, err))
    before = run.result()
    status, _, err = run.go(8, "--resume")
    check("a finished run has nothing left to do", status == 0 and run.result() == before, (status, err))


NUMBERS = {
    "fp32": ["--dtype", "fp32"],
    "bf16": [],
    "pure bf16": ["--weights", "pure", "--moments", "bf16"],
    "pure bf16, 8-bit moments, in the sweep": ["--weights", "pure", "--moments", "q8", "--clip", 0],
    "bf16, pieces, spilled": ["--block", 11, "--spill", "."],
    "LoRA": ["--lora-rank", 3],
}


def case_resume(folder):
    for name, words in NUMBERS.items():
        once, twice = Run(folder, f"once {name}", *words), Run(folder, f"twice {name}", *words)
        ends = [once.go(6), twice.go(3), twice.go(6, "--resume")]
        check(f"{name}: runs end well", all(status == 0 for status, _, _ in ends), ends)
        same(f"{name}, 6 steps or 3 and 3", once, twice)


def case_other_ways(folder):
    """What may change when a run goes on: how a step is computed, on how many threads."""
    once, twice = Run(folder, "once", "--dtype", "fp32"), Run(folder, "twice", "--dtype", "fp32")
    ends = [once.go(4), twice.go(2), twice.go(4, "--resume", "-t", 2, "--spill", folder)]
    check("runs end well", all(status == 0 for status, _, _ in ends), ends)
    same("other threads, activations in a file", once, twice)
    status, _, err = twice.go(6, "--resume", "--dtype", "bf16")
    check("other numbers are refused", status == 1 and one_sentence(err) and "dtype" in err, (status, err))


def case_killed(folder):
    """SIGKILL at any moment: at worst the steps since the last checkpoint are done again."""
    words = ["--save-every", 1, "--weights", "pure", "--moments", "q8", "--clip", 0]
    steps, rng = 200, random.Random(3)
    once, killed = Run(folder, "once", *words), Run(folder, "killed", *words)
    begun = time.monotonic()
    status, _, err = once.go(steps)
    check("the run that is left alone", status == 0, (status, err))
    whole = time.monotonic() - begun
    n = 0
    while n < 10:
        p = killed.start(steps, *(["--resume"] if os.path.exists(killed.path("run.json")) else []))
        time.sleep(rng.uniform(0, 0.2) * whole)
        p.kill()
        _, err = p.communicate()
        if p.returncode != -signal.SIGKILL:
            check("a killed run goes on", p.returncode == 0, (p.returncode, err))
            break
        n += 1
    check("killed in the middle", n > 3 and 0 < killed.lines(), (n, killed.lines()))
    status, _, err = killed.go(steps, "--resume")
    check(f"killed {n} times, it comes to its end", status == 0, (status, err))
    same("killed or not", once, killed)
    check("no unfinished checkpoint stays",
          not [f for f in os.listdir(killed.path("checkpoints")) if ".part-" in f], killed.leftovers())


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def case_signals(folder):
    for name in ("SIGINT", "SIGTERM"):
        once, stopped = Run(folder, f"once {name}"), Run(folder, f"stopped {name}")
        p = stopped.start(100000)
        began = wait_for(lambda: stopped.lines() > 2)
        p.send_signal(getattr(signal, name))
        try:
            _, err = p.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            p.kill()
            _, err = p.communicate()
        done = stopped.lines()
        check(f"{name}: stops with status 0", began and p.returncode == 0, (p.returncode, err))
        check(f"{name}: with a checkpoint", stopped.checkpoints()[-1:] == [f"step-{done:08}.safetensors"],
              (done, stopped.checkpoints()))
        ends = [once.go(done + 2), stopped.go(done + 2, "--resume")]
        check(f"{name}: goes on", all(status == 0 for status, _, _ in ends), ends)
        same(name, once, stopped)


def case_two_at_once(folder):
    first = Run(folder, "run")
    p = first.start(100000)
    wait_for(lambda: first.lines() > 0)
    status, _, err = first.go(3, "--resume")
    check("a second process is refused", status == 1 and one_sentence(err) and "another process" in err,
          (status, err))
    p.kill()
    p.communicate()


@contextlib.contextmanager
def small_disk(folder, kib):
    """A file system of that size, or None where one cannot be had."""
    at = os.path.join(folder, "disk")
    os.mkdir(at)
    mounted = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", at],
                                                   capture_output=True).returncode == 0
    try:
        yield at if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", at], check=True)


def case_disk_full(folder):
    text = os.path.join(folder, "text.txt")
    once = Run(folder, "once", "--save-every", 1)
    status, _, err = once.go(4)
    check("the run with room", status == 0, (status, err))
    size = os.path.getsize(once.path("checkpoints", once.checkpoints()[0])) // 1024 + 1
    with small_disk(folder, 2 * size + size // 2) as disk:
        if not disk:
            print("skip a full disk: no file system can be mounted here")
            return
        run = Run(folder, "disk/run", "--save-every", 1, "--token-cache", os.path.join(folder, "cache"))
        run.words[run.words.index("-d") + 1] = text
        status, _, err = run.go(4)
        check("a full disk ends the run", status == 1 and one_sentence(err) and "No space left" in err, (status, err))
        check("what was there is whole, nothing is left over",
              run.checkpoints() == [f"step-{i:08}.safetensors" for i in (1, 2)] and run.leftovers() == [],
              (run.checkpoints(), run.leftovers()))
        os.unlink(run.path("checkpoints", run.checkpoints()[0]))
        subprocess.run(["mount", "-o", f"remount,size={20 * size}k", disk], check=True)
        status, _, err = run.go(4, "--resume")
        check("with room it goes on", status == 0, (status, err))
        same("a full disk", once, run)
    with small_disk(os.path.join(folder, "cache"), 64) as disk:
        run = Run(folder, "spilled", "--spill", disk, "--seq", 1024)
        status, _, err = run.go(2)
        check("no room for activations", status == 1 and one_sentence(err) and disk in err, (status, err))


def case_adapter(folder):
    run = Run(folder, "run", "--lora-rank", 4, "--lora-targets", "q_proj,v_proj,down_proj", "--lr", "1e-2",
              "--dtype", "fp32")
    run.words.remove("-q")
    status, _, err = run.go(8)
    check("an adapter is trained", status == 0 and f"the result is {run.path('adapter')}\n" in err, (status, err))
    check("and nothing else written", os.path.isdir(run.path("adapter")) and not os.path.exists(run.path("model")),
          os.listdir(run.out))
    with open(run.path("adapter", "adapter_config.json"), encoding="utf-8") as f:
        config = json.load(f)
    check("as PEFT has it", config["r"] == 4 and config["peft_type"] == "LORA"
          and set(config["target_modules"]) == {"q_proj", "v_proj", "down_proj"}, config)
    merged = os.path.join(folder, "merged")
    status, _, err = longspan("merge", "-m", MODEL, "--adapter", run.path("adapter"), "-o", merged, "-q")
    check("it is merged", status == 0, (status, err))
    losses = []
    for model in (MODEL, merged):
        status, out, err = longspan("perplexity", "-m", model, "-f", os.path.join(folder, "text.txt"), "-c", 48,
                                    "--json", "-q")
        losses.append(json.loads(out)["perplexity"] if status == 0 else None)
    check("the merged model knows the text", None not in losses and losses[1] < 0.95 * losses[0], losses)


def case_adapter_context(folder):
    """A context that is extended with an adapter arrives in the merged model, as it does in a whole one."""
    extend = ("--seq", 96, "--rope-base", 54321, "--rope-scaling", "yarn:4:64", "--context", 5000)
    runs = [Run(folder, name, *extend, *more) for name, more in (("whole", ()), ("lora", ("--lora-rank", 2)))]
    ends = [run.go(2) for run in runs]
    check("both run", all(e[0] == 0 for e in ends), ends)
    merged = os.path.join(folder, "merged")
    ends = [longspan("merge", "-m", MODEL, "--adapter", runs[1].path("adapter"), "-o", out, "-q")
            for out in (merged, merged + ".gguf")]
    check("the adapter is merged", all(e[0] == 0 for e in ends), ends)
    told = []
    for model in (runs[0].path("model"), merged, merged + ".gguf"):
        status, out, err = longspan("info", "-m", model, "--json")
        about = json.loads(out)["architecture"] if status == 0 else {}
        told.append({k: v for k, v in about.items() if k.startswith(("rope", "n_ctx"))})
    check("with its position settings", len(told[0]) >= 3 and told.count(told[0]) == 3, told)
    configs = []
    for model in (runs[0].path("model"), merged):
        with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
            configs.append({k: v for k, v in json.load(f).items() if k.startswith(("rope", "max_pos"))})
    check("as config.json has them", configs[0] == configs[1], configs)


def case_curves(folder):
    """A thousand steps computed at once and in uneven blocks and pieces: what the last bits of each step come to.

    The learning rate is one at which training is not chaotic; where it is, any disturbance grows with every step."""
    n, last = 1000, 100
    write_text(os.path.join(folder, "text.txt"), words=120000)  # none of it twice: learning by heart is chaotic
    cut = ("--mode", "sweep", "--block", 48, "--head-chunks", 3)
    for dtype, bound, mean_bound in (("fp32", 1e-4, 1e-5), ("bf16", 2e-2, 1e-3)):
        how = ("--seq", 160, "--lr", "5e-4", "--schedule", "cosine", "--warmup", 0.05, "--dtype", dtype)
        runs = [Run(folder, f"{dtype}-{more[1]}", *how, *more) for more in (("--mode", "standard"), cut)]
        for p in [r.start(n) for r in runs]:
            _, err = p.communicate(timeout=2 * TIMEOUT)
            check(f"{dtype}: a thousand steps", p.returncode == 0, (p.returncode, err))
        one, other = ([m["loss"] for m in r.metrics()] for r in runs)
        apart = max(abs(a - b) / a for a, b in zip(one, other))
        means = [sum(c[-last:]) / last for c in (one, other)]
        check(f"{dtype}: from {one[0]:.3f} to {means[0]:.3f}", len(one) == len(other) == n and means[0] < 0.8 * one[0], means)
        check(f"{dtype}: losses of a step at most {apart:.1e} apart", apart <= bound, (apart, bound))
        between = abs(means[1] / means[0] - 1)
        check(f"{dtype}: means of the last {last} {between:.1e} apart", between <= mean_bound, means)


def case_from_scratch(folder):
    model = os.path.join(folder, "new")
    os.mkdir(model)
    with open(os.path.join(MODEL, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    config["num_hidden_layers"] = 1
    with open(os.path.join(model, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    runs = [Run(folder, name, "--seed", seed, "--lr", "1e-2",
                model=("--init", os.path.join(model, "config.json"), "--tokenizer", tokenizer))
            for name, seed, tokenizer in (("a", 7, MODEL), ("b", 7, os.path.join(MODEL, "tokenizer.json")), ("c", 8, MODEL))]
    ends = [run.go(8) for run in runs]
    check("random weights are trained", all(status == 0 for status, _, _ in ends), ends)
    check("the seed decides", runs[0].result() == runs[1].result() != runs[2].result())
    losses = [m["loss"] for m in runs[0].metrics()]
    check("they learn", losses[-1] < losses[0] - 0.3, losses)
    status, out, err = longspan("generate", "-m", runs[0].path("model"), "-p", "the", "-n", 3, "--ignore-eos", "-q")
    check("the result runs", status == 0 and out.strip() != "", (status, out, err))


def case_refused(folder):
    run = Run(folder, "run")
    write_text(os.path.join(folder, "short.txt"), 3)
    for what, words, said in (
            ("a memory limit", ["--memory", "8MiB", "--seq", 4096], "fewer tokens"),
            ("one that no length keeps", ["--memory", "3MiB", "--seq", 64], "no sequence fits as it is, and 64 with --"),
            ("too little to evaluate", ["--eval-data", os.path.join(folder, "short.txt")], "evaluation data: the data hold"),
            ("targets of no adapter", ["--lora-targets", "q_proj"], "--lora-rank"),
            ("no data", ["-d", os.path.join(folder, "none.txt")], "none.txt"),
            ("a folder that is none", ["--spill", os.path.join(folder, "text.txt")], "text.txt"),
            ("nothing to resume", ["--resume"], "no run"),
            ("standard and a file", ["--mode", "standard", "--spill", folder], "another mode"),
    ):
        status, _, err = run.go(2, *words)
        check(f"{what} is refused in a sentence", status in (1, 2) and one_sentence(err) and said in err, (status, err))
        check(f"{what}: no result", not os.path.exists(run.path("model")))
    status, _, err = run.go(2)
    check("after that the directory can be used", status == 0, (status, err))


def case_memory(folder):
    """What a refusal says would fit does, and a token more does not."""
    def dry(seq, *more, memory="8MiB"):
        return longspan("train", "-m", MODEL, "--memory", memory, "--seq", seq, "--dry-step", "-q", *more)

    for mode in ("sweep", "standard", "recompute", "mst"):
        status, _, err = dry(100000, "--mode", mode)
        found = re.search(r"; (\d+) tokens fit as it is", err)
        check(f"{mode}: refused, with what fits", status == 1 and one_sentence(err) and found, (status, err))
        n = int(found.group(1)) if found else 2
        ends = [dry(n, "--mode", mode), dry(n + 1, "--mode", mode)]
        check(f"{mode}: {n} tokens do", ends[0][0] == 0 and ends[1][0] == 1, ends)
    for seq, memory in ((3000, "17MiB"), (64, "3MiB")):
        status, _, err = dry(seq, memory=memory)
        option = re.search(rf", and {seq} with (--.*)$", err.strip())
        check(f"{seq} tokens in {memory}: refused, with a change", status == 1 and option, (status, err))
        words = option.group(1).replace("DIR", folder).split() if option else []
        status, _, err = dry(seq, *words, memory=memory)
        check(f"{' '.join(words)} suffices", status == 0, (status, err))


def schedule(name, i, steps, warmup, ratio):
    """Share of the learning rate that step i, from 0, takes: docs/training.md."""
    if i < warmup:
        return (i + 1) / warmup
    x = (i - warmup) / (steps - warmup)
    return {"constant": 1, "linear": ratio + (1 - ratio) * (1 - x),
            "cosine": ratio + (1 - ratio) * (1 + math.cos(math.pi * x)) / 2}[name]


def case_schedule(folder):
    for k, (name, steps, given, warmup, ratio) in enumerate((
            ("constant", 6, 0, 0, 0), ("linear", 7, 3, 3, 0), ("cosine", 9, 0.25, 2, 0.1), ("cosine", 5, 2.5, 2, 0),
            ("linear", 4, 8, 8, 0), ("cosine", 100, 0.29, 29, 0))):
        run = Run(folder, str(k), "--schedule", name, "--warmup", given, "--min-lr-ratio", ratio)
        status, _, err = run.go(steps)
        got = [m["lr"] for m in run.metrics()] if status == 0 else []
        want = [1e-3 * schedule(name, i, steps, warmup, ratio) for i in range(steps)]
        check(f"{name}, warm-up {given}, to {ratio}", len(got) == steps and
              all(abs(a - b) <= 1e-10 for a, b in zip(got, want)), (status, err, got, want))


def case_told(folder):
    """What is said at the end."""
    run = Run(folder, "run")
    run.words.remove("-q")
    status, _, err = run.go(3, "--eval-every", 2)
    last = run.metrics()[-1]["loss"]
    check("the last loss", status == 0 and f", last loss {last:.4f} (mean " in err, (status, err))
    check("nothing to evaluate", "nothing is evaluated" in err, err)
    status, out, err = run.go(3, "--resume", "--json")
    check("all was done", status == 0 and "all steps were done before; the result is" in err
          and json.loads(out)["step"] is None, (status, out, err))
    status, _, err = run.go(2, "--resume")
    check("more than was asked for", status == 0 and "has done 3 steps, more than the 2 asked for" in err, (status, err))


def case_peak(folder):
    """The peak memory is that of the run, not of who started it."""
    ballast = bytearray(400 << 20)
    ballast[::4096] = bytes([1]) * len(range(0, len(ballast), 4096))
    run = Run(folder, "run")
    status, _, err = run.go(2)
    peaks = [m["peak_bytes"] for m in run.metrics()] if status == 0 else []
    check("peak memory of the run alone", peaks and max(peaks) < 300 << 20 < len(ballast), (status, err, peaks))
    status, out, err = longspan("train", "-m", MODEL, "--seq", 100000, "--memory", "1GiB", "--dry-step", "--json", "-q")
    told = json.loads(out) if status == 0 else {}
    check("it is what was planned and little more", status == 0 and told["planned_bytes"] == told["allocated_bytes"]
          and 0 < told["peak_bytes"] - told["planned_bytes"] < 32 << 20, (status, err, told))


def case_other_data(folder):
    run = Run(folder, "run")
    run.words.remove("-q")
    ends = [run.go(2), run.go(3, "--resume")]
    write_text(os.path.join(folder, "text.txt"), 500, seed=2)
    ends += [run.go(4, "--resume"), run.go(5, "--resume")]
    told = ["are not those that the run began with" in err for _, _, err in ends]
    check("data that have changed are noticed", all(e[0] == 0 for e in ends) and told == [False, False, True, False], ends)


def case_not_finite(folder):
    run = Run(folder, "run", "--save-every", 1)
    status, _, err = run.go(2)
    check("a run begins", status == 0, (status, err))
    status, _, err = run.go(50, "--resume", "--lr", 1000, "--weight-decay", 1000)
    done = run.lines()
    check("numbers that grow too large end it in a sentence", status == 1 and one_sentence(err)
          and f"step {done + 1}:" in err and "not finite" in err, (status, done, err))
    check("the checkpoint before is kept", run.checkpoints()[-1:] == [f"step-{done:08}.safetensors"],
          (done, run.checkpoints()))


def case_families(folder):
    for name in sorted(os.listdir(MODELS)):
        run = Run(folder, name, model=("-m", os.path.join(MODELS, name)))
        status, _, err = run.go(2)
        check(f"{name} is trained", status == 0, (status, err))
        status, out, err = longspan("generate", "-m", run.path("model"), "-p", "a", "-n", 2, "--ignore-eos", "-q")
        check(f"{name}: the result runs", status == 0, (status, err))


def main():
    cases = {name[len("case_"):]: f for name, f in globals().items() if name.startswith("case_")}
    for name, case in cases.items():
        if len(sys.argv) > 2 and not any(word in name for word in sys.argv[2:]):
            continue
        with tempfile.TemporaryDirectory() as folder:
            write_text(os.path.join(folder, "text.txt"))
            print(f"== {name}")
            case(folder)
    return 1 if failures else 0


sys.exit(main())
