"""The files that docs/clusters.md gives to copy are out of date: commands, options and YAML."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from unperturbed.cli import evaluate
from unperturbed.cli.options import parse

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "examples/clusters").iterdir())


def test_the_page_links_every_file() -> None:
    page = (ROOT / "docs/clusters.md").read_text()
    assert FILES and all(f"](../examples/clusters/{file.name})" in page for file in FILES if file.is_file())


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix == ".sbatch"], ids=lambda file: file.name)
def test_a_script_of_slurm_is_bash(file: Path) -> None:
    checked = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert file.read_text().startswith("#!/bin/bash\n") and "#SBATCH --nodes=" in file.read_text()


def test_the_command_on_kubernetes_is_understood_and_its_volumes_exist() -> None:
    job: Any = yaml.safe_load((ROOT / "examples/clusters/kuberay.yaml").read_text())["spec"]
    _, command, *words = shlex.split(job["entrypoint"])
    parsed = parse(evaluate.parser(), words, evaluate.POSITIONAL)
    assert command == "evaluate" and (parsed.engine, parsed.address, parsed.cpus_per_worker) == ("ray", "auto", 4)
    cluster = job["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]


def test_the_options_in_a_script_are_those_of_the_command() -> None:
    text = (ROOT / "examples/clusters/slurm_ray.sbatch").read_text()
    (line,) = re.findall(r'unperturbed "\$@" (.*)$', text, re.MULTILINE)
    words = shlex.split(line.replace("$head", "host"))
    assert parse(evaluate.parser(), ["run", *words], evaluate.POSITIONAL).address == "host:6379"


def test_the_cluster_starts_ray_without_reports_on_every_node() -> None:
    pytest.importorskip("ray")
    from ray.autoscaler._private.util import prepare_config, validate_config

    cluster: Any = yaml.safe_load((ROOT / "examples/clusters/ray_cluster.yaml").read_text())
    validate_config(prepare_config(cluster))
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("RAY_USAGE_STATS_ENABLED=0 ray start" in line for line in cluster[name])
