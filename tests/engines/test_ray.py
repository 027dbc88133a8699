"""On a Ray cluster a unit is lost, done twice or done otherwise than in one process; or the cluster outlives its test.

Three nodes are simulated on this machine, on its loopback address; nothing leaves it, and the fixture stops them.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("ray")

PROGRAM = (sys.executable, "-P", "-c", "from unperturbed.cli.main import program; raise SystemExit(program())")
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
STORE = 80_000_000
"""Bytes of a node's object store: the least that Ray takes, about."""
NODES = """
import sys
from ray.cluster_utils import Cluster
options = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": int(sys.argv[1])}
cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
nodes = [cluster.add_node(**options) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "add":
        nodes.append(cluster.add_node(**options))
        print("added", flush=True)
    if line.strip() == "kill":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("killed", flush=True)
cluster.shutdown()
"""
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
                file.write(f"{self.number} {step} {os.getppid()}\\n")
            report(step / STEPS, "working")
            time.sleep(0.7)
            keep(step + 1)
        return self.number ** 2

kept, stored, seen = {}, {}, []
units = [
    Unit(number, 10, Work(number), keep=lambda state, number=number: kept.setdefault(number, []).append(state),
         finish=lambda result, number=number: stored.setdefault(number, []).append(result) or result)
    for number in range(5)
]
results = dict(Ray(sys.argv[1], workers=3).map(units, lambda done, text: seen.append(done)))
print(json.dumps({"results": results, "stored": stored, "seen": seen, "kept": kept}))
"""


class Cluster:
    """Three nodes of one processor, in a process."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        command = (sys.executable, "-c", NODES, str(STORE))
        self._process: Any = subprocess.Popen(command, text=True, env={**os.environ, **LOOPBACK}, **pipes)
        self.address = self._process.stdout.readline().strip()

    def kill_a_node(self) -> None:
        """Kill a node with its workers."""
        assert self._answer("kill") == "killed"

    def add_a_node(self) -> None:
        assert self._answer("add") == "added"

    def _answer(self, word: str) -> str:
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return str(self._process.stdout.readline().strip())

    def stop(self) -> None:
        self._process.communicate(timeout=60)
        assert self._process.returncode == 0


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


def begun(*words: str) -> "subprocess.Popen[str]":
    """Return the process of a command, with one thread."""
    environment = {**os.environ, **LOOPBACK, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen((*PROGRAM, *words), text=True, env=environment, stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE)  # fmt: skip


def done(*words: str) -> Any:
    """Return the value of a command."""
    out, err = (process := begun(*words, "--json")).communicate()
    assert process.returncode == 0, err
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


def wait_for(condition: Any, process: "subprocess.Popen[str]") -> None:
    """Wait until the condition holds; fail where the process ends before, or after ten minutes."""
    until = time.monotonic() + 600
    while not condition():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            pytest.fail(f"The condition did not come: {process.communicate()[1]}")
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.long
def test_the_unit_of_a_killed_node_is_resumed_where_it_was(cluster: Cluster, tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    steps.touch()
    command = (sys.executable, "-c", UNITS, cluster.address, str(tmp_path))
    driver = subprocess.Popen(command, text=True, env={**os.environ, **LOOPBACK}, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)  # fmt: skip
    wait_for(lambda: sum(line.split()[1] == "2" for line in steps.read_text().splitlines()) >= 3, driver)
    cluster.kill_a_node()
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 0, err
    value = json.loads(out.splitlines()[-1])
    assert value["results"] == {str(number): number**2 for number in range(5)}
    assert value["stored"] == {str(number): [number**2] for number in range(5)}, "a result was stored twice"
    assert value["seen"] and max(value["seen"]) <= 50
    rows = [tuple(map(int, line.split())) for line in steps.read_text().splitlines()]
    again = {(number, step) for number, step, _ in rows if sum(row[:2] == (number, step) for row in rows) > 1}
    assert "another one resumes the part" in err and len({node for *_, node in rows}) == 3
    assert len(again) == 1 and min(step for _, step in again) >= 1, "more was done again than one step"


@pytest.mark.slow
@pytest.mark.long
def test_an_evaluation_on_a_cluster_has_the_bits_of_one_process(cluster: Cluster, run: Path, tmp_path: Path) -> None:
    words = ("evaluate", str(run), "--suite", "apgd-ce,square", "--examples", "90", "--overwrite")
    values = [done(*words, "--out", str(tmp_path / name), *options)
              for name, options in (("there", on(cluster)), ("here", here()))]  # fmt: skip
    assert plain(values[0]) == plain(values[1])
    folders = [next((tmp_path / name).rglob("part-00002.parquet")).parent for name in ("there", "here")]
    pd.testing.assert_frame_equal(table(folders[0]), table(folders[1]), check_exact=True)


def killed(process: "subprocess.Popen[str]") -> None:
    """Kill a driver; its workers end with it."""
    process.kill()
    process.communicate()


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
    wait_for(lambda: any(there.rglob("*.unfinished")), driver)
    second = begun(*again)
    assert second.communicate()[1].count("is being written by") == 1 and second.returncode == 2
    cluster.kill_a_node()
    cluster.add_a_node()
    wait_for(lambda: any(there.rglob("part-*.json")), driver)
    killed(driver)
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
    wait_for(lambda: any(there.glob("*/metrics.jsonl")), driver)
    cluster.kill_a_node()
    cluster.add_a_node()
    wait_for(lambda: len(list(there.glob("*/result.json"))) >= 4, driver)
    killed(driver)
    weights = {file: file.stat().st_mtime_ns for file in there.glob("*/best.safetensors")
               if (file.parent / "result.json").exists()}  # fmt: skip
    swept = done(*again)
    assert len(swept["runs"]) == 12 and all(entry["status"] == "done" for entry in swept["runs"])
    assert plain(swept) == plain(whole)
    assert weights and all(file.stat().st_mtime_ns == written for file, written in weights.items()), "trained twice"
