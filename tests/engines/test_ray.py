"""On a Ray cluster a unit is lost, done twice or done otherwise than in one process; or the cluster outlives its test.

Three nodes are simulated on this machine, on its loopback address; nothing leaves it, and the fixture stops them.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from benchmarks.simulated_nodes import LOOPBACK, Cluster

from support.processes import Process, is_running

pytest.importorskip("ray")

PROGRAM = (sys.executable, "-P", "-c", "from unperturbed.cli.main import program; raise SystemExit(program())")
UNITS = """
import json, os, sys, time
from pathlib import Path
from unperturbed.engines.base import Unit
from unperturbed.engines.ray import Ray

STEPS, place, shared = 4, Path(sys.argv[2]), list(range(1000))

class Work:
    def __init__(self, number):
        self.number, self.shared = number, shared

    def __call__(self, begun, keep, report):
        for step in range(begun or 0, STEPS):
            with (place / "steps").open("a") as file:
                file.write(f"{self.number} {step} {os.getppid()} {os.getpid()}\\n")
            report(step / STEPS, "working")
            if step == 2:
                come(place / "killed")
            keep(step + 1)
            come(place / f"kept {self.number} {step + 1}")
        return self.number ** 2

def come(file):
    while not file.exists():
        time.sleep(0.01)

def keep(number, state):
    kept.setdefault(number, []).append(state)
    (place / f"kept {number} {state}").touch()

kept, stored, seen = {}, {}, []
units = [
    Unit(number, 10, Work(number), keep=lambda state, number=number: keep(number, state),
         finish=lambda result, number=number: stored.setdefault(number, []).append(result) or result)
    for number in range(5)
]
results = dict(Ray(sys.argv[1], workers=3).map(units, lambda done, text: seen.append(done)))
(place / "values").write_text(json.dumps({"results": results, "stored": stored, "seen": seen, "kept": kept}))
"""
"""The values go to a file, since Ray writes to stdout, too."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", cluster.address)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a trained run."""
    folder = tmp_path_factory.mktemp("run") / "run"
    done("train", "--data", "digits", "--model", "mlp", "--epochs", "2", "--method.steps", "3", "--out", str(folder))
    return folder


def process(*command: str) -> Process:
    """Return a process of one thread."""
    return Process(*command, environment={**os.environ, **LOOPBACK, "OMP_NUM_THREADS": "1"})


def begun(*words: str) -> Process:
    """Return the process of a command."""
    return process(*PROGRAM, *words)


def done(*words: str) -> Any:
    """Return the value of a command."""
    out, err = (command := begun(*words, "--json")).output()
    assert command.returncode == 0, err
    return json.loads(out)


def on(cluster: Cluster, workers: int = 3) -> tuple[str, ...]:
    return "--engine", "ray", "--address", cluster.address, "--workers", str(workers)


def here(workers: int = 3) -> tuple[str, ...]:
    """Return the options of the same blocks in one process."""
    return "--engine", "local", "--workers", str(workers)


def table(folder: Path) -> pd.DataFrame:
    """Return the per-example table of a measurement, in the order of the examples."""
    parts = [pd.read_parquet(part) for part in folder.glob("part-*.parquet")]
    return pd.concat(parts).sort_values("id").reset_index(drop=True)


def plain(value: Any) -> Any:
    """Return a result without times and places."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key not in ("seconds", "run", "figure", "warnings")}
    return [plain(part) for part in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.long
def test_the_unit_of_a_killed_node_is_resumed_where_it_was(cluster: Cluster, tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    steps.touch()
    driver = process(sys.executable, "-c", UNITS, cluster.address, str(tmp_path))
    driver.wait_for(lambda: sum(line.split()[1] == "2" for line in steps.read_text().splitlines()) == 3)
    workers = [int(line.split()[3]) for line in steps.read_text().splitlines()]
    cluster.kill_a_node()
    while all(is_running(worker) for worker in workers):  # it outlives its node by a moment
        time.sleep(0.01)
    (tmp_path / "killed").touch()
    _, err = driver.output()
    cluster.add_a_node()
    assert driver.returncode == 0, err
    value = json.loads((tmp_path / "values").read_text())
    assert value["results"] == {str(number): number**2 for number in range(5)}
    assert value["stored"] == {str(number): [number**2] for number in range(5)}, "a result was stored twice"
    assert value["seen"] and max(value["seen"]) <= 50
    rows = [tuple(map(int, line.split())) for line in steps.read_text().splitlines()]
    again = {(number, step) for number, step, *_ in rows if sum(row[:2] == (number, step) for row in rows) > 1}
    assert "another one resumes the part" in err and len({node for _, _, node, _ in rows}) == 3
    assert [step for _, step in again] == [2], "more was done again than the step in work"


@pytest.mark.slow
@pytest.mark.long
def test_an_evaluation_on_a_cluster_has_the_bits_of_one_process(cluster: Cluster, run: Path, tmp_path: Path) -> None:
    words = ("evaluate", str(run), "--suite", "apgd-ce,square", "--examples", "90", "--overwrite")
    values = [done(*words, "--out", str(tmp_path / name), *options)
              for name, options in (("there", on(cluster)), ("here", here()))]  # fmt: skip
    assert plain(values[0]) == plain(values[1])
    folders = [next((tmp_path / name).rglob("part-00002.parquet")).parent for name in ("there", "here")]
    pd.testing.assert_frame_equal(table(folders[0]), table(folders[1]), check_exact=True)


def kill(driver: Process) -> None:
    """Kill a driver while it works; its workers end with it."""
    driver.kill()
    driver.output()
    assert driver.returncode == -signal.SIGKILL, "it had ended"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    "words",
    [("evaluate", "--suite", "standard", "--examples", "120"), ("curve", "--eps", "0.05,0.1", "--examples", "60")],
    ids=["evaluate", "curve"],
)
def test_measurements_survive_the_ends_of_a_node_and_of_the_driver(
    words: tuple[str, ...], cluster: Cluster, run: Path, tmp_path: Path
) -> None:
    command, *options = words
    there, here_too = tmp_path / "there", tmp_path / "here"
    whole = done(command, str(run), *options, "--out", str(here_too), *here(6))
    again = (command, str(run), *options, "--out", str(there), *on(cluster, 6))

    driver = begun(*again)
    driver.wait_for(lambda: any(there.rglob("*.unfinished")))
    driver.send_signal(signal.SIGSTOP)  # it cannot end before the second one has been refused
    second = begun(*again)
    assert second.output()[1].count("is being written by") == 1 and second.returncode == 2
    driver.send_signal(signal.SIGCONT)
    cluster.kill_a_node()
    cluster.add_a_node()
    driver.wait_for(lambda: any(there.rglob("part-*.json")))
    kill(driver)
    finished = {part: part.stat().st_mtime_ns for part in there.rglob("part-*.json")}
    assert finished
    assert plain(done(*again)) == plain(whole)
    assert all(part.stat().st_mtime_ns == written for part, written in finished.items()), "a part was written twice"
    folders = [next(folder.rglob("part-00005.parquet")).parent for folder in (there, here_too)]
    pd.testing.assert_frame_equal(table(folders[0]), table(folders[1]), check_exact=True)
    assert not list(there.rglob("*.unfinished")) and not list(there.rglob(".*lock*"))


@pytest.mark.slow
@pytest.mark.long
def test_a_sweep_survives_the_ends_of_a_node_and_of_the_driver(cluster: Cluster, tmp_path: Path) -> None:
    words = ("sweep", "--data", "digits", "--model", "mlp", "--epochs", "2", "--method.steps", "2",
             "--suite", "apgd-ce", "--examples", "40", "--over", "lr=0.001,0.003,0.01,0.03",
             "--over", "seed=0,1,2")  # fmt: skip
    whole = done(*words, "--out", str(tmp_path / "here"))
    again = (*words, "--out", str(there := tmp_path / "there"), *on(cluster))

    driver = begun(*again)
    driver.wait_for(lambda: any(there.glob("*/metrics.jsonl")))
    cluster.kill_a_node()
    cluster.add_a_node()
    driver.wait_for(lambda: len(list(there.glob("*/result.json"))) >= 4)
    kill(driver)
    weights = {file: file.stat().st_mtime_ns for file in there.glob("*/best.safetensors")
               if (file.parent / "result.json").exists()}  # fmt: skip
    swept = done(*again)
    assert len(swept["runs"]) == 12 and all(entry["status"] == "done" for entry in swept["runs"])
    assert plain(swept) == plain(whole)
    assert weights and all(file.stat().st_mtime_ns == written for file, written in weights.items()), "trained twice"
