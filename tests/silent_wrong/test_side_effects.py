"""The quick start runs and the seed counts (S13), user text is never run (S15), the test set chooses nothing (S20),
and an evaluation leaves the process alone (S23)."""

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unperturbed
from support.toys import QUICK, Function, blobs, equal, mlp, state
from unperturbed.data.split import Split, select
from unperturbed.findings import Outcome
from unperturbed.methods.at import AT
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.training import engine, selection
from unperturbed.training.alarm import Probe, probe
from unperturbed.training.trained import Trained
from unperturbed.types import Batch, Inner, Inputs, Logits, Model, Terms

THREAT = Threat("Linf", 0.1)

# Quick start and seed (S13)


def quick_start(seed: int, folder: Path) -> tuple[Trained, Split]:
    """Train for an epoch on the digits, and return the result and some of the test split."""
    data = unperturbed.load_data("digits")
    torch.manual_seed(0)
    model = unperturbed.build_model("small-cnn", {"width": 4}, data.train.shape, 10, (0.3,), (0.4,))
    recipe = unperturbed.Recipe(epochs=1, seed=seed)
    trained = unperturbed.train(model, data, unperturbed.Threat.parse("Linf:0.1"), unperturbed.AT(), recipe, out=folder)
    assert data.test is not None
    return trained, select(data.test, torch.arange(8))


@pytest.mark.long
@pytest.mark.slow
def test_the_quick_start_runs_and_the_seed_counts_s13(tmp_path: Path) -> None:
    first, some = quick_start(0, tmp_path / "a")
    outcome = unperturbed.evaluate(first.model, some, THREAT, "pgd", out=tmp_path / "a/evaluation")
    assert first.clean_accuracy.value > 0.3 and outcome.n == 8 and "upper bound only" in str(outcome)
    assert (tmp_path / "a/evaluation/pgd.json").exists()

    again, _ = quick_start(0, tmp_path / "b")
    other, _ = quick_start(1, tmp_path / "c")
    assert equal(state(first.model), state(again.model)) and not equal(state(first.model), state(other.model))

    def attacked(seed: int) -> Outcome:
        return unperturbed.evaluate(first.model, some, THREAT, QUICK, seed=seed)

    assert attacked(0).examples == attacked(0).examples
    assert attacked(0).examples["margin"] != attacked(1).examples["margin"]


# Text as code (S15)

SOURCES = sorted(Path(str(unperturbed.__file__)).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=[path.stem for path in SOURCES])
def test_no_text_is_ever_run_s15(path: Path) -> None:
    """No eval or exec; no unsafe reading of pickles or YAML; no `bool` as the type of an option ("False" is true)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {word.arg: ast.unparse(word.value) for word in node.keywords}
        assert called.split(".")[-1] not in ("exec", "__import__", "unsafe_load", "full_load"), (path, node.lineno)
        assert called not in ("eval", "builtins.eval", "yaml.load", "pickle.load", "pickle.loads", "compile")
        if called == "torch.load":
            assert keywords.get("weights_only") == "True", (path, node.lineno)
        if called.endswith(".add_argument"):
            assert keywords.get("type") != "bool" or "action" in keywords, (path, node.lineno)


def test_false_on_the_command_line_is_false_s15() -> None:
    from unperturbed.cli import train
    from unperturbed.cli.options import parse

    for text, value in (("false", False), ("true", True), ("False", False)):
        given = parse(train.parser(), ["--data", "digits", "--compile", text])
        assert given.compile is value
    assert parse(train.parser(), ["--data", "digits"]).resume is False


# The test split (S20)


@dataclass(frozen=True)
class Recording(AT):
    """Adversarial training that remembers the ids and inputs of its batches."""

    batches: list[Batch] = field(default_factory=list)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        self.batches.append(batch)
        return super().loss(model, batch, inner, threat, noise)


def recorded(test: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, Any, list[Batch], list[Batch]]:
    probed: list[Batch] = []

    def remembering(model: nn.Module, batch: Batch, threat: Threat, noise: Noise) -> Probe:
        probed.append(batch)
        return probe(model, batch, threat, noise)

    monkeypatch.setattr(selection, "probe", remembering)
    monkeypatch.setattr(engine.Engine, "preflight", lambda *_: [])  # its step is no training
    method, model = Recording(), mlp(6, 3)
    recipe = unperturbed.Recipe(epochs=4, validation=0.2)
    trained = unperturbed.train(model, (blobs(120), test), THREAT, method, recipe)
    return model, trained, method.batches, probed


def test_best_is_chosen_on_held_out_training_examples_s20(monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = blobs(120)
    _, trained, batches, probed = recorded(blobs(30, seed=8), monkeypatch)
    trained_on = torch.cat([batch.ids for batch in batches]).unique()
    held_out = probed[0].ids
    assert len(probed) == 4 and len(held_out) == 24 == trained.clean_accuracy.n
    assert not set(trained_on.tolist()) & set(held_out.tolist()) and len(trained_on) == 96
    assert torch.equal(probed[-1].x, x[held_out])
    assert all(torch.equal(batch.x, x[batch.ids]) for batch in batches)


def test_another_test_split_changes_nothing_s20(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(60, seed=8)
    model, trained, *_ = recorded((x, y), monkeypatch)
    other, retrained, *_ = recorded((x.flip(0)[:7], torch.zeros(7, dtype=torch.int64)), monkeypatch)
    assert equal(state(model), state(other)) and trained.best_epoch == retrained.best_epoch
    assert trained.robust_accuracy == retrained.robust_accuracy


# Global state (S23)


def surroundings() -> dict[str, Any]:
    """Return what a caller may rely on; Python's own random state is left out, since the type checks draw from it."""
    return {
        "trace": sys.gettrace(),
        "profile": sys.getprofile(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index]
        "torch": torch.get_rng_state().tolist(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "benchmark": torch.backends.cudnn.benchmark,
    }


def noisy(x: Inputs) -> Logits:
    score = x[:, 0] + 0.05 * torch.randn(len(x))
    return torch.stack([torch.full_like(score, 0.5), score], dim=1)


def dropping() -> nn.Module:
    return mlp(6, 3, dropout=0.5)


@pytest.mark.parametrize("make", [dropping, lambda: Function(noisy)], ids=["dropout", "random in eval mode"])
def test_an_evaluation_leaves_the_process_alone_and_can_be_repeated_s23(make: Callable[[], nn.Module]) -> None:
    def trace(frame: FrameType, event: str, argument: object) -> None:
        return None

    model, data, before = make(), blobs(40), sys.gettrace()
    data = (data[0], data[1] % 2)
    sys.settrace(trace)
    try:
        was = surroundings()
        first = unperturbed.evaluate(model, data, THREAT, QUICK)
        assert surroundings() == was and sys.gettrace() is trace
    finally:
        sys.settrace(before)
    torch.rand(3)
    second = unperturbed.evaluate(model, data, THREAT, QUICK)
    assert first.examples == second.examples
    assert torch.equal(first.adversarial, second.adversarial) and first.counts == second.counts
    assert [(a.name, a.broken, a.forwards) for a in first.attacks] == [
        (a.name, a.broken, a.forwards) for a in second.attacks
    ]


def test_training_leaves_the_process_alone_s23() -> None:
    was = surroundings()
    unperturbed.train(mlp(6, 3, dropout=0.5), blobs(40), THREAT, None, unperturbed.Recipe(epochs=1))
    assert surroundings() == was


def test_an_outer_no_grad_changes_neither_the_result_nor_itself_s23() -> None:
    model, data = mlp(6, 3), blobs(40)
    expected = unperturbed.evaluate(model, data, THREAT, QUICK)
    with torch.no_grad():
        outcome = unperturbed.evaluate(model, data, THREAT, QUICK)
        assert not torch.is_grad_enabled()
    assert outcome.examples == expected.examples and outcome.counts["broken"] > 0


def test_the_caller_s_tensors_are_untouched_s23() -> None:
    x, y = blobs(40)
    before: tuple[Tensor, Tensor] = (x.clone(), y.clone())
    model = mlp(6, 3)
    unperturbed.evaluate(model, (x, y), THREAT, QUICK)
    unperturbed.train(model, (x, y), THREAT, None, unperturbed.Recipe(epochs=1))
    assert torch.equal(x, before[0]) and torch.equal(y, before[1]) and not x.requires_grad
