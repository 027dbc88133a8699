"""The page on training loops: its blocks run, and its loops reach the accuracies of `train`."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import unperturbed as un
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation import accuracy
from unperturbed.findings import Outcome
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD

PAGE = (Path(__file__).parents[1] / "docs/loops.md").read_text()
SETUP, PLAIN, LIGHTNING, TRAINER, ESTIMATOR = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
POINTS = 0.02
"""The difference of accuracies that the page promises at most."""


@pytest.fixture(autouse=True)
def short_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put ten steps of PGD into the place of the suite, which takes longer than training."""
    suite = Suite("fast", (GradientAttack("PGD-CE", cross_entropy, PGD(steps=10)),), "a short one")
    monkeypatch.setitem(accuracy.SUITES, "fast", suite)  # type: ignore[attr-defined]


def executed(block: str) -> dict[str, Any]:
    """Return the names that a block defines after the page's first one."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(SETUP + block, names)
    return names


@cache
def trained() -> Outcome:
    """Return the evaluation of the network that `train` makes with the page's method and number of steps."""
    names = executed("")
    recipe = un.Recipe(
        epochs=names["epochs"], batch_size=names["batch_size"], lr=names["lr"], optimiser="adam", precision="32"
    )
    result = un.train(un.model_for(names["data"]), names["data"], names["threat"], names["method"], recipe)
    return un.evaluate(result.model, names["data"], names["threat"])


def check_against_train(outcome: Outcome) -> None:
    assert outcome.n == 359
    assert abs(outcome.clean_accuracy.value - trained().clean_accuracy.value) <= POINTS
    assert abs(outcome.robust_accuracy.value - trained().robust_accuracy.value) <= POINTS


@pytest.mark.slow
@pytest.mark.long
def test_the_plain_loop_reaches_the_accuracies_of_train() -> None:
    check_against_train(executed(PLAIN)["outcome"])


@pytest.mark.slow
@pytest.mark.skipif(find_spec("lightning") is None, reason="Lightning is not installed (extra lightning)")
@pytest.mark.filterwarnings("ignore")  # of Lightning, which warns of few workers and of its own dependencies
def test_the_lightning_loop_reaches_the_accuracies_of_train() -> None:
    names = executed(LIGHTNING)
    check_against_train(names["outcome"])
    logged = names["trainer"].callback_metrics
    assert logged["robust_accuracy"] < logged["clean_accuracy"] and logged["robust_accuracy"] > 0.5


@pytest.mark.slow
@pytest.mark.skipif(find_spec("accelerate") is None, reason="transformers is not installed (extra transformers)")
@pytest.mark.filterwarnings("ignore")  # of transformers and accelerate, of their own dependencies
def test_the_loop_of_the_trainer_reaches_the_accuracies_of_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = executed(TRAINER)
    check_against_train(names["outcome"])
    looks = [line for line in names["trainer"].state.log_history if "eval_robust_accuracy" in line]
    assert len(looks) == names["epochs"] and looks[-1]["eval_robust_accuracy"] < looks[-1]["eval_clean_accuracy"]


@pytest.mark.long
@pytest.mark.slow
def test_the_estimator_of_the_page_works(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    executed(ESTIMATOR)
    clean, robust = map(float, capsys.readouterr().out.split())
    assert 0.2 < robust < clean <= 1
