"""Stored evaluations and the finished parts of a killed audit are not measured again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.planted import EPS, Small, examples, robust
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.examinations.audit import audit
from unperturbed.examinations.audited import Audited, CheckResult
from unperturbed.findings import Outcome
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.runs.tables import read_table
from unperturbed.threat import Threat

THREAT = Threat("Linf", EPS)
SHORT = Suite("short", (GradientAttack("PGD-margin", margin, PGD(steps=10)),), "a test")
LONGER = Suite("longer", (GradientAttack("PGD-margin", margin, PGD(steps=40), restarts=4),), "a test")
N = 16
CHEAP = ("probabilities", "saturation", "zero_gradient", "company", "quantisation", "repetition", "one_step", "radii")
PROGRAM = """
import sys
import torch
sys.path[:0] = {paths!r}
import test_audit_resume
import unperturbed.examinations.audit as room
room.checks_in = test_audit_resume.only(*test_audit_resume.CHEAP)
torch.set_num_threads(1)
test_audit_resume.audited({out!r})
"""


def only(*names: str) -> Any:
    """Return what finds these checks alone."""
    from unperturbed.examinations.budget import checks_in

    found = [entry for entry in checks_in() if entry[0].__name__ in names]
    return lambda: found


def audited(out: str, stored: tuple[Outcome, ...] = ()) -> dict[str, Any]:
    found = audit(robust(), examples(N), THREAT, SHORT, examples=N, budget=1000, out=out, stored=stored)
    value = found.json()
    (Path(out) / "whole.json").write_text(json.dumps(value))
    return value


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(entry) for name, entry in value.items() if name not in ("seconds", "costs")}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.examinations.audit.checks_in", only("probabilities", "saturation"))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_stored_evaluation_is_the_baseline_and_others_count_too(tmp_path: Path) -> None:
    net = robust()
    short, longer = (evaluate(net, examples(N), THREAT, suite) for suite in (SHORT, LONGER))
    assert longer.robust_accuracy.value <= short.robust_accuracy.value
    verdicts = [
        "broken" if number == short.examples["verdict"].index("survived") else verdict
        for number, verdict in enumerate(longer.examples["verdict"])
    ]
    longer = replace(longer, examples={**longer.examples, "verdict": verdicts})
    value = audited(str(tmp_path), (short, longer))
    assert not (tmp_path / "baseline").exists(), "it was stored"
    assert value["claimed"]["value"] == short.robust_accuracy.value
    assert value["headline"]["value"] <= verdicts.count("survived") / N, "broken by any is broken"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_sorted_examples_are_audited_in_every_class(tmp_path: Path) -> None:
    """The first 12 of these are all of class 0, and say nothing about the other classes."""
    x, y = examples(120)
    order = y.argsort(stable=True)
    found = audit(robust(), (x[order], y[order]), THREAT, SHORT, examples=12, budget=1000, out=tmp_path)
    assert found.claimed.n == 12 and any("stratified:12" in text for text in found.warnings)
    (table,) = [read_table(path) for path in (tmp_path / "baseline").rglob("part-*.parquet")]
    assert len({*table["label"]}) == len({*y.tolist()})


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_an_evaluation_of_another_network_or_of_fewer_examples_is_not_used(tmp_path: Path) -> None:
    other = evaluate(Small(), examples(N), THREAT, SHORT)
    fewer = evaluate(robust(), examples(N - 1), THREAT, SHORT)
    audited(str(tmp_path), (other, fewer))
    assert (tmp_path / "baseline").exists()


@pytest.mark.long
@pytest.mark.slow
def test_a_check_that_breaks_an_example_lowers_the_headline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(given: Audited) -> CheckResult:
        """Does it?"""
        return CheckResult("breaking", "Does it?", "pass", "all", "", broke=tuple(given.batch.ids.tolist()))

    breaking.__module__ = "unperturbed.examinations.audits.probabilities"  # whose cost it takes
    monkeypatch.setattr("unperturbed.examinations.audit.checks_in", lambda: [(breaking, 1)])
    assert audited(str(tmp_path))["headline"]["value"] == 0


def stage(folder: Path) -> int:
    """Return how far the audit in a folder is: plan, checks one by one, attacks after the remedies, the whole."""
    files = [(folder / name).exists() for name in ("plan.json", "strength.json", "headline", "whole.json")]
    checks = json.loads((folder / "checks.json").read_text())["checks"] if (folder / "checks.json").exists() else ()
    return sum(files) + len(checks)


def resumed(folder: Path, kills: list[tuple[int, float]]) -> dict[str, Any]:
    """Run an audit, kill it so many seconds after each of these stages and run it again; return what was found."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = PROGRAM.format(paths=[str(Path(__file__).parent), *sys.path], out=str(folder))
    for at, later in kills:
        process = subprocess.Popen([sys.executable, "-c", program], env=environment)
        while stage(folder) < at and process.poll() is None:
            time.sleep(0.02)
        time.sleep(later)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    value: dict[str, Any] = json.loads((folder / "whole.json").read_text())
    return value


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_audit_resumes_and_finds_the_same(tmp_path: Path) -> None:
    draw = random.Random(0)
    kills = [(at, draw.uniform(0, 0.3)) for at in sorted(draw.sample(range(1, 4 + len(CHEAP)), 3))]
    whole, broken = resumed(tmp_path / "whole", []), resumed(tmp_path / "killed", kills)
    assert without_times(broken) == without_times(whole)
    assert len(whole["checks"]) == len(CHEAP)
