"""Every command that takes examples selects them by the same rule, and says so where they are not the first ones."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from unperturbed.cli.main import main
from unperturbed.data.sources import load_data
from unperturbed.runs.record import RunRecord
from unperturbed.training.run import training_examples

TRAIN = ("train", "--data", "sorted.npz", "--epochs", "1", "--method", "erm", "--threat", "Linf:0.01", "--out", "run")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with data of three classes, one after the other: 180 training and 60 test examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    rng = np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", 60), ("test", 20)):
        y = np.repeat(np.arange(3), n)
        arrays |= {f"y_{name}": y, f"x_{name}": (0.3 * y[:, None] + 0.2 * rng.random((3 * n, 4))).astype(np.float32)}
    np.savez("sorted.npz", **arrays)
    return tmp_path


@pytest.mark.long
@pytest.mark.slow
def test_a_run_on_50_of_sorted_examples_knows_all_classes_and_which_they_were(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first 50 are of one class: any network that says so is right on 100% of them, under any attack."""
    assert main([*TRAIN, "--examples", "50", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["selection"] == "stratified:50 seed 0" and "first:50 takes the first ones" in err
    stored = yaml.safe_load(Path("run/config.yaml").read_text())
    assert stored["examples"] == "stratified:50 seed 0"
    trained_on = training_examples(RunRecord.read(Path("run")), load_data("sorted.npz"), "run")
    assert trained_on is not None and len(trained_on) == stored["chosen"]["training_examples"]
    assert sorted(torch.bincount(trained_on.labels).tolist()) == [14, 15, 15]

    assert main(["evaluate", "run", "--examples", "12", "--suite", "apgd-ce", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["selection"] == "stratified:12 seed 0" and found["n"] == 12
    assert any("stratified:12" in text for text in found["warnings"]) and "no example of 1, 2" in err
    assert list(Path("run/evaluation").glob("stratified-12-seed-0/*.json"))

    assert main(["evaluate", "run", "--examples", "first:12", "--suite", "apgd-ce"]) == 0
    out, err = capsys.readouterr()
    assert "first:12" in out and "2 classes are missing" in err


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "curve", "certify", "probable", "transfer", "sweep", "diagnose"]
)
def test_every_command_offers_the_same_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--examples N" in text and "--examples-seed S" in text and "stratified:N" in text


@pytest.mark.parametrize("value", ["0", "-3", "1.5", "10^18", "many", "last:3", "first:", "9" * 400])
def test_nonsense_is_refused_by_training(folder: Path, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([*TRAIN, "--examples", value])
    err = capsys.readouterr().err
    assert code == 2 and "--examples" in err and value[:40] in err and "Traceback" not in err
    assert not Path("run").exists()
