"""Kill a node of a Ray cluster, or the driver, at random moments, and compare the results with those of one process.

    python benchmarks/cluster_kills.py --nodes 10 --drivers 5 --out cluster_kills

On three simulated nodes, for `sweep` (12 runs on the digits), `evaluate --suite standard` (400 examples) and `curve`.
After a node another one is started; after the driver the same command is given again. The files must be those of
`--engine local` in every bit, but for seconds, and no file of a finished part may be written twice. Called again, the
script resumes.
"""

import argparse
import json
import os
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from kills import contents, start, to_the_end
from simulated_nodes import LOOPBACK, Cluster
from sklearn.datasets import load_digits

DATA = ("--data", "../digits.npz", "--threat", "Linf:0.1", "--device", "cpu", "--batch-size", "32", "--model", "mlp")
PREPARE = ("train", *DATA, "--method", "erm", "--epochs", "3", "--out", "first")
"""The run of the measurements: it is not robust, so that `standard` is short."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "sweep": ("sweep", *DATA, "--method", "fgsm", "--over", "seed=0,1,2", "--over", "lr=0.003,0.01,0.03,0.1",
              "--train-examples", "200", "--epochs", "2", "--suite", "apgd-ce", "--examples", "24", "--out", "sweep"),
    "evaluate": ("evaluate", "first", "--suite", "standard", "--examples", "400", "--device", "cpu"),
    "curve": ("curve", "first", "--eps", "0.05,0.1", "--examples", "24", "--device", "cpu"),
}  # fmt: skip
WORKERS = 3


def finished(folder: Path) -> dict[Path, int]:
    """Return the files that are written once, with their times of change.

    They are those of finished blocks of examples, and the weights of finished runs.
    """
    parts = list(folder.rglob("part-*.json"))
    weights = [file for file in folder.rglob("best.safetensors") if (file.parent / "result.json").exists()]
    return {file: file.stat().st_mtime_ns for file in parts + weights}


def prepared(out: Path, cluster: Cluster) -> dict[str, float]:
    """Make the run that the commands work on, and every command's results of one process.

    Return the seconds of each command on the cluster, undisturbed; the results must be the same there.
    """
    if not (out / "times.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        (out / "base").mkdir(parents=True)
        x, y = load_digits(return_X_y=True)
        x = (x / 16).astype("float32").reshape(-1, 1, 8, 8)
        numpy.savez(out / "digits.npz", x_train=x[:1397], y_train=y[:1397], x_test=x[1397:], y_test=y[1397:])
        to_the_end(PREPARE, out / "base")
        (out / "times.json").write_text("{}")
    times = dict(json.loads((out / "times.json").read_text()))
    for name, words in COMMANDS.items():
        if name not in times:
            local, remote = out / name, out / f"{name}-undisturbed"
            for folder in (local, remote):
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(out / "base", folder)
            to_the_end((*words, "--engine", "local", *(() if name == "sweep" else ("--workers", "6"))), local)
            times[name] = to_the_end(on(cluster, words), remote)
            if different := differing(local, remote):
                raise RuntimeError(f"{name} on the cluster differs from one process in {different}.")
            (out / "times.json").write_text(json.dumps(times))
    return times


def on(cluster: Cluster, words: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a command on the cluster: two blocks a node, or a run at a time on each."""
    workers = WORKERS if words[0] == "sweep" else 2 * WORKERS
    return (*words, "--engine", "ray", "--address", cluster.address, "--workers", str(workers))


def differing(expected: Path, folder: Path) -> list[str]:
    """Return the names of the files that differ, seconds left out."""
    texts, again = contents(expected), contents(folder)
    return sorted(path for path in texts.keys() | again.keys() if texts.get(path) != again.get(path))


def round_of(out: Path, cluster: Cluster, name: str, what: str, number: int, seconds: float) -> dict[str, Any]:
    """Kill `what`, a node or the driver, while the command runs, and return what came of it.

    The moment is drawn from the undisturbed duration. Where the command has ended before it, the command starts anew
    and is killed after half the time.
    """
    draw = random.Random(f"{name} {what} {number}")
    folder, delay = out / f"{name}-{what}-{number}", draw.uniform(0.02, 0.95) * seconds
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(out / "base", folder)
        began = time.monotonic()
        process = start(words := on(cluster, COMMANDS[name]), folder)
        process.join(delay)
        if process.is_alive():
            break
        delay /= 2
    before = finished(folder)
    if what == "node":
        cluster.kill_a_node(draw.randrange(2))
        ran = process.is_alive()
        cluster.add_a_node()
    else:
        process.kill()
        process.join()
        ran, before = process.exitcode == -9, finished(folder)
        process = start(words, folder)
    process.join()
    after = finished(folder)
    result = {
        "command": name, "killed": what, "number": number, "delay": delay, "ran": ran, "code": process.exitcode,
        "finished": len(before), "resumed": (folder / "output.txt").read_text().count("another one resumes the part"),
        "twice": sorted(str(file.relative_to(folder)) for file in before if after.get(file) != before[file]),
        "differing": differing(out / name, folder), "seconds": time.monotonic() - began,
    }  # fmt: skip
    if not (result["code"] or result["twice"] or result["differing"]):
        shutil.rmtree(folder)
    return result


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return a row for each command and kind of kill."""
    lines = [
        "| command | killed | times, while it ran | parts or runs finished before | units resumed by other workers | "
        "failed | written twice | tables that differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in COMMANDS:
        for what in ("node", "driver"):
            rows = [row for row in results if (row["command"], row["killed"]) == (name, what) and row["ran"]]
            if rows:
                done = [row["finished"] for row in rows]
                sums = [sum(bool(row[key]) for row in rows) for key in ("code", "twice", "differing")]
                resumed = sum(row["resumed"] for row in rows)
                cells = [f"`{name}`", what, len(rows), f"{min(done)} to {max(done)}", resumed, *sums]
                lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def run(out: Path, nodes: int, drivers: int) -> list[dict[str, Any]]:
    """Return the results of so many kills of each command, those of an earlier call included."""
    out = out.absolute()
    cluster = Cluster()
    try:
        times, path = prepared(out, cluster), out / "results.jsonl"
        results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        done = {(row["command"], row["killed"], row["number"]) for row in results}
        rounds = [("node", number) for number in range(nodes)] + [("driver", number) for number in range(drivers)]
        for what, number in sorted(rounds, key=lambda kill: kill[1] / (nodes if kill[0] == "node" else drivers)):
            for name in COMMANDS:
                if (name, what, number) not in done:
                    results.append(round_of(out, cluster, name, what, number, times[name]))
                    with path.open("a") as file:
                        file.write(json.dumps(results[-1]) + "\n")
        return results
    finally:
        cluster.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=10, help="kills of a node, for each command")
    parser.add_argument("--drivers", type=int, default=5, help="kills of the driver, for each command")
    parser.add_argument("--out", type=Path, default=Path("cluster_kills"))
    arguments = parser.parse_args()
    os.environ |= LOOPBACK
    rounds = run(arguments.out, arguments.nodes, arguments.drivers)
    print(table(rounds))
    for entry in rounds:
        if entry["code"] or entry["twice"] or entry["differing"]:
            print(entry)
