"""Kill every command with SIGKILL at random moments, run it again, and compare with an undisturbed run.

    python benchmarks/kills.py --kills 100 --out kills

Called again, it resumes. Tables, JSON files, weights and perturbed inputs must be the same in every
bit, but for seconds.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet

DATA = ("--data", "digits", "--threat", "Linf:0.1", "--device", "cpu", "--method", "fgsm", "--batch-size", "32")
PREPARE = tuple(
    ("train", *DATA, "--examples", "300", "--epochs", "3", "--seed", seed, "--out", name)
    for seed, name in (("0", "first"), ("1", "second"))
)
"""Two runs that the other commands work on."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "train": ("train", *DATA, "--examples", "300", "--epochs", "4", "--checkpoint-minutes", "0.0003", "--out", "run",
              "--resume"),
    "evaluate": ("evaluate", "first", "--suite", "standard", "--examples", "8", "--device", "cpu"),
    "curve": ("curve", "first", "--eps", "0.05,0.1", "--examples", "4", "--device", "cpu"),
    "sweep": ("sweep", *DATA, "--over", "seed=0,1", "--train-examples", "200", "--epochs", "2", "--suite", "apgd-ce",
              "--examples", "24", "--out", "sweep"),
    "transfer": ("transfer", "first", "second", "--suite", "apgd-ce,square", "--examples", "8", "--out", "matrix",
                 "--device", "cpu"),
    "diagnose": ("diagnose", "first", "--diagnostics", "margins,confidence,directions", "--examples", "16", "--device",
                 "cpu"),
}  # fmt: skip
TIMES = ("seconds", "sha256", "files", "command", "since")
"""Fields that hold times, or hashes of what holds times."""
PRELOADED = ["unperturbed.cli.main", "unperturbed.training.loop", "unperturbed.cli.sweep", "unperturbed.cli.transfer",
             "unperturbed.cli.curve", "unperturbed.cli.diagnose", "unperturbed.evaluation.accuracy",
             "unperturbed.evaluation.curve", "unperturbed.evaluation.transfer", "sklearn.datasets",
             "ray", "unperturbed.engines.ray_worker"]  # fmt: skip


def go(words: Sequence[str], folder: Path) -> None:
    """Run a command in a folder, with its output in a file there; this is what the processes run."""
    import torch

    from unperturbed.cli.main import main

    torch.set_num_threads(1)
    os.chdir(folder)
    sys.stdout = sys.stderr = open("output.txt", "a")
    sys.exit(main(words))


def start(words: Sequence[str], folder: Path) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=go, args=(words, folder))
    process.start()
    return process


def to_the_end(words: Sequence[str], folder: Path) -> float:
    """Run a command, and return its seconds."""
    began = time.monotonic()
    process = start(words, folder)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {process.exitcode}:\n{(folder / 'output.txt').read_text()}")
    return time.monotonic() - began


def contents(folder: Path) -> dict[str, Any]:
    """Return what lies in a folder, by file, without times."""
    texts: dict[str, Any] = {}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            texts[name] = timeless(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            texts[name] = [timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".parquet":
            with path.open("rb") as file:
                texts[name] = repr(pyarrow.parquet.read_table(file).to_pydict())
        elif path.suffix in (".safetensors", ".yaml"):
            texts[name] = path.read_bytes()
        elif path.name.startswith("."):
            texts[name] = "left behind"
    return texts


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: timeless(part) for name, part in value.items() if name not in TIMES}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def prepared(out: Path) -> dict[str, float]:
    """Make the runs that the commands work on and an undisturbed run of every command; return the seconds of each."""
    if not (out / "times.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        (out / "base").mkdir(parents=True)
        for words in PREPARE:
            to_the_end(words, out / "base")
        times = {}
        for name, words in COMMANDS.items():
            shutil.copytree(out / "base", out / name)
            times[name] = to_the_end(words, out / name)
        (out / "times.json").write_text(json.dumps(times))
    return dict(json.loads((out / "times.json").read_text()))


def kill(out: Path, number: int, times: dict[str, float]) -> dict[str, Any]:
    """Kill one command while it runs, run it again, and return what came of it.

    The moment is drawn from the duration of the undisturbed run. Where the command has ended before it, the command
    starts anew and is killed after half the time.
    """
    name = list(COMMANDS)[number % len(COMMANDS)]
    words, folder = COMMANDS[name], out / f"kill-{number}"
    delay = random.Random(number).uniform(0.02, 0.9) * times[name]
    while not killed_while_running(words, out / "base", folder, delay):
        delay /= 2
    done = len(list(folder.rglob("*"))) - len(list((out / "base").rglob("*")))
    to_the_end(words, folder)
    undisturbed, resumed = contents(out / name), contents(folder)
    differing = sorted(
        path for path in undisturbed.keys() | resumed.keys() if undisturbed.get(path) != resumed.get(path)
    )
    if not differing:
        shutil.rmtree(folder)
    return {"number": number, "command": name, "delay": delay, "files": done, "differing": differing}


def killed_while_running(words: Sequence[str], base: Path, folder: Path, delay: float) -> bool:
    """Start a command in a fresh copy of the base folder, kill it after a delay in seconds, and say whether it ran."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    process = start(words, folder)
    process.join(delay)
    running = process.is_alive()
    process.kill()
    process.join()
    return running


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return a row for each command."""
    lines = ["| command | kills while it ran | files written before the kill | runs that differ |", "|---|---|---|---|"]
    for name in COMMANDS:
        rows = [row for row in results if row["command"] == name]
        files = [row["files"] for row in rows]
        between = f"{min(files)} to {max(files)}" if files else "-"
        lines.append(f"| `{name}` | {len(rows)} | {between} | {sum(bool(row['differing']) for row in rows)} |")
    return "\n".join(lines)


def run(out: Path, kills: int, first: int = 0) -> list[dict[str, Any]]:
    """Return the results of so many kills from the first number on, those of an earlier call included."""
    out = out.absolute()
    times, path = prepared(out), out / "results.jsonl"
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for number in range(first + len(results), first + kills):
        results.append(kill(out, number, times))
        with path.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first kill, where several share them")
    parser.add_argument("--out", type=Path, default=Path("kills"))
    arguments = parser.parse_args()
    rounds = run(arguments.out, arguments.kills, arguments.first)
    print(table(rounds))
    for entry in rounds:
        if entry["differing"]:
            print(entry)
