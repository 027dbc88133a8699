"""Bad input is refused before an evaluation writes files, and doubtful input is warned of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from support.toys import QUICK, Function, blobs, linear, mlp, uniform
from unperturbed.attacks.base import Attack
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.square import Square
from unperturbed.data.split import Data, array_split
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.checked_model import check_kinds
from unperturbed.evaluation.evidence import Evidence
from unperturbed.evaluation.outputs import spoiled_columns
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Logits

THREAT = Threat("Linf", 0.1)


def with_value(value: float) -> Any:
    x, y = blobs(30)
    x[7, 2] = value
    return x, y


def with_label(label: int) -> Any:
    x, y = blobs(30)
    y[7] = label
    return x, y


X, Y = blobs(30)


@pytest.mark.parametrize(
    ("model", "data", "suite", "message"),
    [
        (linear(6, 3), with_value(np.nan), QUICK, "1 of 30 inputs hold NaN or infinite values .first: example 7"),
        (linear(6, 3), with_value(np.inf), QUICK, "NaN or infinite"),
        (linear(6, 3), with_value(1.5), QUICK, "to 1.5, outside the bounds 0 to 1"),
        (linear(6, 3), with_label(3), QUICK, r"Labels range from 0 to 3.*3 classes.*0 to 2.*example 7"),
        (linear(6, 3), with_label(-1), QUICK, "Labels range from -1 to 2"),
        (linear(6, 2), (X, Y), QUICK, "with 2 classes they must be 0 to 1"),
        (linear(6, 3), (X, Y.float()), QUICK, "not integers"),
        (linear(6, 3), (X, Y[:-1]), QUICK, "30 inputs and 29 labels"),
        (linear(5, 3), (X, Y), QUICK, r"the model fails on an input of shape \(1, 6\)"),
        (linear(6, 3).bfloat16(), (X, Y), QUICK, "weights are torch.bfloat16, but results are computed in float32"),
        (linear(6, 3).half(), (X, Y), QUICK, "weights are torch.float16"),
        (Function(lambda x: x.bfloat16()), (X, Y), QUICK, "returns torch.bfloat16 logits from torch.float32 weights"),
        (Function(lambda x: x.double()), (X, Y), QUICK, "returns torch.float64 logits from torch.float32 weights"),
        (nn.Sequential(linear(6, 1)), (X, Y), QUICK, r"one number an example, but labels go up to 2.*shape \(n, 3\)"),
        (Function(lambda x: x.sum(1)), (X, Y), QUICK, "of shape"),
        (linear(6, 3), (X, Y), "autoatack", "There is no suite 'autoatack'. Known are: .*standard"),
        (linear(6, 3), Data("nothing to test", array_split(X, Y), None, ("a", "b", "c")), QUICK, "has no test split"),
        (linear(6, 3), (X[:0], Y[:0]), QUICK, "no examples"),
        (linear(6, 3), 7, QUICK, "data is of type int"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    model: nn.Module, data: Any, suite: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(model, data, THREAT, suite, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [0, -4])
def test_a_batch_needs_an_example(size: int) -> None:
    with pytest.raises(InputError, match=f"batch_size is {size}"):
        evaluate(linear(6, 3), (X, Y), THREAT, QUICK, batch_size=size)


def test_inference_mode_is_refused() -> None:
    with torch.inference_mode(), pytest.raises(InputError, match="inference_mode"):
        evaluate(linear(6, 3), (X, Y), THREAT, QUICK)


# Warnings


def warned(model: nn.Module, threat: Threat = THREAT, **options: Any) -> list[str]:
    return list(evaluate(model, (X, Y), threat, QUICK, **options).warnings)


def test_nothing_to_warn_of() -> None:
    model = linear(6, 3)
    y = model(X).argmax(1)
    assert evaluate(model, (X, y), Threat("Linf", 1e-4), QUICK).warnings == ()


def test_examples_that_repeat_others_are_told() -> None:
    rows = torch.arange(len(X)) % 5
    outcome = evaluate(linear(6, 3), (X[rows], Y[rows]), THREAT, QUICK)
    assert any(f"{len(X) - 5} of the {len(X)} examples repeat" in text for text in outcome.warnings)


def test_labels_that_count_from_one_are_told() -> None:
    """With 30 examples of three classes, a class without an example is no chance."""
    for first in (0, 1):
        outcome = evaluate(linear(6, 3), (X, torch.arange(len(X)) % 2 + first), THREAT, QUICK)
        assert any("Labels run from 1 to 2" in text for text in outcome.warnings) == (first == 1)


@pytest.mark.parametrize("n", [19, 20])
def test_many_examples_of_one_class_are_told(n: int) -> None:
    outcome = evaluate(linear(6, 3), (X[:n], torch.full((n,), 2)), THREAT, QUICK)
    assert any(f"All {n} examples are of class 2" in text for text in outcome.warnings) == (n == 20)


def test_an_example_selected_twice_is_refused() -> None:
    twice = array_split(X, Y)[[0, 1, 0]]
    with pytest.raises(InputError, match=r"1 of the 3 examples have the id of another one .ids \[0\]"):
        evaluate(linear(6, 3), twice, THREAT, QUICK)


def test_probabilities_in_place_of_logits_are_told() -> None:
    assert any("look like probabilities" in text for text in warned(nn.Sequential(linear(6, 3), nn.Softmax(1))))
    assert not any("probabilities" in text for text in warned(nn.Sequential(linear(6, 3), nn.LogSoftmax(1))))


@pytest.mark.parametrize("tracked", [True, False])
def test_logits_that_depend_on_the_company_are_told(tracked: bool) -> None:
    """Batch norm without running statistics takes them from the batch, also in eval mode."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=tracked)
    model = nn.Sequential(nn.Unflatten(1, (1, 6, 1)), nn.Conv2d(1, 4, 1), norm, nn.Flatten(), nn.Linear(24, 3))
    assert any("depend on the others in its batch" in text for text in warned(model)) != tracked
    noisy = Function(lambda x: linear(6, 3)(x) + torch.randn(len(x), 3))
    assert not any("depend on the others" in text for text in warned(noisy))


@pytest.mark.parametrize(("threat", "told"), [
    (Threat("Linf", 1.0), True), (Threat("Linf", 0.99), False), (Threat("Linf", 1.0, (0.0, 1.1)), False),
    (Threat("Linf", 3.0, None), False), (Threat("Linf", 0.3, (torch.zeros(6), torch.full((6,), 1.25))), False),
    (Threat("Linf", 1.25, (torch.zeros(6), torch.full((6,), 1.25))), True), (Threat("L2", 1.0), False),
    (Threat("L2", 2.44), False), (Threat("L2", 2.46), True), (Threat("L1", 5.9), False), (Threat("L1", 6.1), True),
])  # fmt: skip
def test_an_eps_wider_than_the_box_is_told(threat: Threat, told: bool) -> None:
    assert any("every input may become any other" in text for text in warned(linear(6, 3), threat)) == told


@pytest.mark.parametrize(("threat", "told"), [
    (Threat("Linf", 8.0), True), (Threat("L2", 128.0), True), (Threat("Linf", 1000.0), False),
    (Threat("Linf", 8.0, (0.0, 5.0)), False), (Threat("Linf", 8 / 255), False),
])  # fmt: skip
def test_an_eps_in_255ths_is_recognised(threat: Threat, told: bool) -> None:
    assert any(f"meant as {threat.eps:g}/255?" in text for text in warned(linear(6, 3), threat)) == told


@pytest.mark.slow
def test_a_gradient_that_is_0_is_told() -> None:
    """Inputs that are rounded before the network move no logit, and no search by gradient breaks anything."""
    model = linear(6, 3)

    def rounded(share: float) -> Function:
        return Function(lambda z: model(torch.where(z[:, :1] < share, (z * 16).round() / 16, z)))

    (text,) = [text for text in warned(rounded(2.0)) if "gradient" in text]
    assert "exactly 0 for 30 of the first 30 examples" in text and "survivors prove nothing" in text
    assert any("exactly 0" in text for text in warned(rounded(float(X[:, 0].sort().values[10]))))
    assert not any("exactly 0" in text for text in warned(rounded(-1.0)))
    assert not any("exactly 0" in text for text in warned(nn.Sequential(model, nn.Softmax(1))))


def test_weights_that_are_not_finite_are_named() -> None:
    model = mlp(6, 3)
    with torch.no_grad():
        model[0].weight[3, 2] = torch.nan
        model[2].bias[0] = torch.inf
    (text,) = [text for text in warned(model) if "Weights" in text]
    assert text.startswith("Weights are NaN or infinite: 0.weight (1 of its values), 2.bias (1 of its values)")


def test_an_accuracy_that_chance_would_give_is_told() -> None:
    model = linear(6, 3)
    right = model(X).argmax(1)
    for labels, told in ((right, False), ((right + 1) % 3, True), (torch.arange(len(X)) % 3, True)):
        found = evaluate(model, (X, labels), THREAT, QUICK)
        assert any("not above chance (33%)" in text for text in found.warnings) == told


@pytest.mark.parametrize(("model", "threat", "message"), [
    ("runs/at", THREAT, r"not a torch.nn.Module.*load_run"), (lambda z: z, THREAT, "into the forward of a module"),
    (linear(6, 3), "Linf:0.1", "give a Threat, such as"),
])  # fmt: skip
def test_what_is_no_network_and_what_is_no_threat_is_told(model: Any, threat: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_kinds(model, threat)


def test_a_batch_larger_than_the_data_is_lowered_and_told() -> None:
    assert any(
        "batch size 1000 is larger than the data (30); it was lowered" in t for t in warned(mlp(6, 3), batch_size=1000)
    )
    assert not any("batch size" in text for text in warned(mlp(6, 3), batch_size=30))


def late(x: Inputs) -> Logits:
    """Break only in a pocket that a random start rarely hits."""
    inside = ((x[:, 0] > 0.5) & (x[:, 0] < 0.52)).to(x.dtype)
    return torch.stack([0.5 + 0 * x.sum(1), inside], dim=1)


@pytest.mark.parametrize("restarts", [1, 3])
def test_breaks_of_the_last_restart_are_told(restarts: int) -> None:
    x, y = uniform(300, 2, low=0.42, high=0.48), torch.zeros(300, dtype=torch.int64)
    suite = Suite("late", (GradientAttack("late", margin, PGD(steps=2), restarts),), "a test")
    outcome = evaluate(Function(late), (x, y), THREAT, suite)
    by_last = sum(
        verdict == "broken" and restart == restarts
        for verdict, restart in zip(outcome.examples["verdict"], outcome.examples["restart"], strict=True)
    )
    assert by_last > 5
    if restarts > 1:
        assert by_last < outcome.counts["broken"]
        assert f"{by_last} examples broke only in the last restart of late: more would break more." in outcome.warnings


def test_no_warning_where_the_last_restart_broke_nothing_more() -> None:
    model = linear(6, 3)
    y = model(X).argmax(1)
    outcome = evaluate(model, (X, y), Threat("Linf", 0.15), QUICK)
    assert outcome.counts["broken"] > 3 and not any("last restart" in text for text in outcome.warnings)


# Counting


def test_the_numbers_agree_with_the_table() -> None:
    x, model = uniform(80, 6, seed=3), linear(6, 3, seed=4)
    y = torch.where(torch.arange(80) % 8 == 0, (model(x).argmax(1) + 1) % 3, model(x).argmax(1))

    def unsound(x: Inputs) -> Logits:
        logits: Logits = model(x)
        return torch.where(x[:, :1] > 0.9, torch.nan, logits)

    outcome = evaluate(Function(unsound), (x, y), Threat("Linf", 0.05), QUICK)
    table = outcome.examples
    counts = {verdict: table["verdict"].count(verdict) for verdict in outcome.counts}
    assert counts == outcome.counts and sum(counts.values()) == outcome.n == 80 and min(counts.values()) > 2
    unknown_clean = int((x[:, 0] > 0.9).sum())
    correct = int(((model(x).argmax(1) == y) & (x[:, 0] <= 0.9)).sum())
    assert outcome.clean_accuracy == wilson(correct, 80, correct + unknown_clean)
    assert outcome.robust_accuracy == wilson(counts["survived"], 80, counts["survived"] + counts["unknown"])
    assert outcome.robust_accuracy.high > wilson(counts["survived"], 80).high + 0.01
    assert [table["attack"].count(a.name) for a in outcome.attacks] == [a.broken for a in outcome.attacks]
    standing = correct - np.cumsum([a.broken for a in outcome.attacks])
    np.testing.assert_allclose([a.robust_after for a in outcome.attacks], standing / 80)
    assert table["label"] == y.tolist() and table["id"] == list(range(80))
    queries = {verdict: set[int]() for verdict in ("misclassified", "broken", "survived", "unknown")}
    for verdict, taken in zip(table["verdict"], table["queries"], strict=True):
        queries[verdict].add(taken)
    assert queries["misclassified"] == {0} and queries["survived"] == {2 * 2 * 5}, "two attacks, two climbs, four moves"
    assert queries["broken"] <= set(range(1, 21)) and len(queries["broken"]) > 1
    assert outcome.threat == "Linf:0.05" and outcome.note == "a test" and outcome.suite == "pgd"


class Counting(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls, self.sizes = inner, 0, set[int]()

    def forward(self, x: Inputs) -> Logits:
        self.calls += x.requires_grad
        self.sizes.add(len(x))
        logits: Logits = self.inner(x)
        return logits


def test_passes_are_counted_as_the_network_saw_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many examples as places and none that breaks, every place is busy to the end."""
    monkeypatch.setattr(
        "unperturbed.evaluation.suite_run.examined", lambda *_, **__: Evidence()
    )  # its forwards are no attack's
    model = Counting(Function(lambda x: torch.stack([x[:, 0] + 5, x[:, 1]], dim=1)))
    outcome = evaluate(model, (uniform(16, 2), torch.zeros(16, dtype=torch.int64)), THREAT, QUICK, batch_size=16)
    assert outcome.counts["survived"] == 16
    assert [a.forwards for a in outcome.attacks] == [a.backwards for a in outcome.attacks] == [16 * 2 * 5] * 2
    assert model.calls == 2 * 2 * 5 + 7, "and seven looks at the network"
    assert model.sizes == {1, 16}


@pytest.mark.parametrize("form", [
    lambda x, y: (x.numpy(), y.numpy()), lambda x, y: torch.utils.data.TensorDataset(x, y),
    lambda x, y: Data("d", array_split(x[:3], y[:3]), array_split(x, y), ("a", "b", "c")), array_split,
])  # fmt: skip
def test_data_in_any_form_gives_the_same(form: Callable[..., Any]) -> None:
    expected = evaluate(linear(6, 3), (X, Y), THREAT, QUICK)
    assert evaluate(linear(6, 3), form(X, Y), THREAT, QUICK).examples == expected.examples


def test_progress_is_told_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.evaluation.measurement.BLOCK", 12)
    monkeypatch.setattr("unperturbed.maximise.climb_queue.PAUSE", 1e6)
    told: list[tuple[float, float, str]] = []
    evaluate(linear(6, 3), (X, Y), THREAT, QUICK, progress=lambda *words: told.append(words))
    assert [total for _, total, _ in told] == [30] * 6
    assert [done for done, *_ in told] == pytest.approx([6, 12, 18, 24, 27, 30])
    assert all("examples still stand" in text for _, _, text in told)


@pytest.mark.parametrize("attack", [
    *QUICK.attacks, FAB("FAB", steps=6), FAB("FAB-T", targets=2, restarts=2, steps=6), Square(queries=40),
    replace(QUICK.attacks[0], draws=2),
], ids=lambda attack: f"{attack.label}")  # fmt: skip
def test_progress_moves_within_an_attack(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never back, never beyond the attack's own share, and without a bound below what is left standing."""
    monkeypatch.setattr("unperturbed.maximise.climb_queue.PAUSE", -1.0)
    told: list[tuple[float, float, str]] = []
    suite = Suite("one", (attack,), "a test")
    outcome = evaluate(linear(6, 3), (X, Y), THREAT, suite, progress=lambda *words: told.append(words), batch_size=8)
    shares = [done / total for done, total, _ in told]
    assert shares == sorted(shares) and len(set(shares)) > 4 and 0 < shares[0] < 0.5 and shares[-1] == 1.0
    bounds = [int(text.split()[-6]) / len(X) for *_, text in told if "still stand" in text]
    assert bounds == sorted(bounds, reverse=True) and bool(bounds) == (getattr(attack, "draws", 1) == 1)
    assert not bounds or bounds[-1] == pytest.approx(outcome.attacks[-1].robust_after, abs=1e-3)


def test_progress_that_stops_the_evaluation_is_no_failure_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it is raised in the middle of an attack, where what a network raises costs examples."""
    monkeypatch.setattr("unperturbed.maximise.climb_queue.PAUSE", -1.0)
    calls = []

    def enough(*words: object) -> None:
        calls.append(words)
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        evaluate(linear(6, 3), (X, Y), THREAT, QUICK, progress=enough)
    assert len(calls) == 1


class Masked(nn.Module):
    """A network with the logit -inf for one class."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear(6, 3)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) + self.mask


def test_a_class_without_finite_logits_is_named() -> None:
    assert any("not finite in column 1 (-inf for" in text and "-1e4" in text for text in warned(Masked()))
    assert not any("not finite" in text for text in warned(linear(6, 3)))
    logits = torch.zeros(4, 3)
    logits[1:, 2] = torch.nan
    assert spoiled_columns(logits) == "in column 2 (nan for 3)"
    assert spoiled_columns(torch.full((4, 3), torch.nan)) == spoiled_columns(torch.zeros(4, 3)) == ""
