"""The examples run as they are, and the short one stays short."""

import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support.shares import first
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.cli.main import main
from unperturbed.evaluation import accuracy
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.suites.fast import FAST

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def commands(file: Path) -> list[list[str]]:
    """Return the commands in a file's docstring, as words without the program's name."""
    lines = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith("unperturbed ")]


@pytest.mark.slow
def statements(file: Path) -> list[str]:
    """Return the lines of code: without the docstring, comments and blank lines."""
    tree = ast.parse(file.read_text())
    lines = file.read_text().splitlines()[tree.body[0].end_lineno :]
    return [line for line in lines if line.strip() and not line.strip().startswith("#")]


@pytest.mark.long
@pytest.mark.slow
def test_29_features_with_bounds_of_their_own_take_ten_lines() -> None:
    """In a process of its own, as a user runs it."""
    file = EXAMPLES / "tabular.py"
    assert len(statements(file)) <= 10 and max(map(len, statements(file))) <= 100
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(file)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "n=169" in done.stdout and "bounds per feature" in done.stdout
    robust = float(done.stdout.rpartition("per feature ")[2].partition("%")[0])
    assert 75 < robust < 97, "robust, but less than clean"


@pytest.mark.parametrize("name", first(1, ["own_method", "own_model", "own_diagnostic"]))
def test_the_commands_of_an_example_work(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a single epoch, and a short suite under its usual name."""
    quick = Suite("fast", (GradientAttack("PGD-CE", cross_entropy, PGD(steps=3)),), FAST.note)
    monkeypatch.setitem(accuracy.SUITES, "fast", quick)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / f"{name}.py").write_text((EXAMPLES / f"{name}.py").read_text())
    monkeypatch.chdir(tmp_path)
    found = commands(EXAMPLES / f"{name}.py")
    assert found[0][0] == "train" and any(f"{name}:" in word for words in found for word in words)
    for words in found:
        shorter = ["--epochs", "1"] if words[0] == "train" else ["--examples", "64"]
        assert main([*words, *shorter]) == 0, capsys.readouterr().err
    assert (tmp_path / f"runs/{name.replace('_', '-')}/best.safetensors").is_file()
    told = capsys.readouterr().out
    assert "accuracy" in told or "Steepness of the loss" in told
