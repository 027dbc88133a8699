"""Instance margins: exact on linear networks; elsewhere bounds on the right sides of each other, or loudly not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn

from support.examined import NaNAt, all_finite, distribution, names, number, subject
from support.examples import NORMS, untouched
from support.toys import Function, linear, mlp, uniform
from unperturbed.anatomy.chain import Chain, chain
from unperturbed.examinations.diagnostics import instance_margins as module
from unperturbed.examinations.diagnostics.instance_margins import (
    first_order,
    instance_margins,
    log_lower_bound,
    nearest,
)
from unperturbed.examinations.subject import Subject
from unperturbed.losses import margin
from unperturbed.threat import Threat
from unperturbed.types import Batch, Norm

ORDER: dict[Norm, float] = {"Linf": 1.0, "L2": 2.0, "L1": math.inf}
"""Of the dual norms."""


@pytest.fixture(autouse=True)
def fewer_radii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RADII", 2)


def truth(model: nn.Linear, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """Return min_j (f_y - f_j) / |w_y - w_j| in the dual norm, or 0, in float64."""
    w, b, values = model.weight.detach().double(), model.bias.detach().double(), []
    for example, label in zip(x.double(), y, strict=True):
        f = w @ example + b
        others = [j for j in range(len(w)) if j != label]
        values.append(min((f[label] - f[j]) / torch.linalg.vector_norm(w[label] - w[j], ORDER[norm]) for j in others))
    return torch.stack(values).clamp(min=0)


def exactly(one: Subject, batch: Batch, norm: Norm) -> Tensor:
    """Return what a perfect search finds on a linear network."""
    assert isinstance(one.classifier, nn.Linear)
    return truth(one.classifier, batch.x, batch.y, norm)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "classes"), [("Linf", 4), ("L2", 4), ("L1", 4), ("L2", 2)])
def test_on_linear_networks_all_three_are_the_truth(norm: Norm, classes: int) -> None:
    """Labels are the predictions but for two examples, whose margin is 0."""
    model, x = linear(6, classes, seed=1), uniform(14, 6, seed=2)
    y = model(x).argmax(1)
    y[:2] = (y[:2] + 1) % classes
    exact, one = truth(model, x, y, norm), subject(model, x, y, classes=classes)
    assert (exact[2:] > 0).all() and exact[:2].tolist() == [0, 0]

    of = chain(model, x[:1])
    assert isinstance(of, Chain)
    below = log_lower_bound(of, model(x).detach(), y, norm, x).exp()
    torch.testing.assert_close(below, exact, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(first_order(model, one.test, norm, 8), exact, rtol=1e-5, atol=1e-7)
    above = nearest(one, one.test, norm)
    assert above[:2].tolist() == [0, 0]
    assert ((above[2:] >= (1 - 1e-5) * exact[2:]) & (above[2:] <= 1.01 * exact[2:])).all(), above / exact


@pytest.mark.slow
def test_the_finding_on_a_linear_network() -> None:
    model, x = linear(6, 3, seed=1), uniform(14, 6, seed=2)
    y = model(x).argmax(1)
    y[:2] = (y[:2] + 1) % 3
    one = subject(model, x, y)
    with untouched(model, x, y):
        found = instance_margins(one)
    for norm in ("Linf", "L2"):
        exact = truth(model, x, y, norm)
        upper, lower = (distribution(found, f"instance margin, {side} bound, {norm}") for side in ("upper", "lower"))
        estimate = distribution(found, f"instance margin, first-order estimate, {norm}")
        assert upper.values == pytest.approx(exact.tolist(), rel=0.01) and upper.ids == tuple(range(14))
        assert estimate.values == pytest.approx(exact.tolist(), rel=1e-5, abs=1e-7)
        assert lower.values == pytest.approx(exact[2:].tolist(), rel=1e-5, abs=1e-7) and lower.ids == tuple(
            range(2, 14)
        )
        smallest = number(found, f"instance margin, upper bound, {norm}: smallest of correct (v_min)")
        assert smallest.value == pytest.approx(float(exact[2:].min()), rel=0.01) and smallest.n == 12
        assert number(found, f"instance margin, upper bound, {norm}: median").value == pytest.approx(
            float(exact.quantile(0.5)), rel=0.01
        )
        for crossing in ("estimate above upper bound", "lower above upper bound", "lower bound below float32 rounding"):
            count = number(found, f"instance margin, {norm}: {crossing}")
            assert (count.value, count.n, count.unit) == (0, 12, "examples")
        ratio = number(found, f"instance margin, {norm}: log10 of upper over lower bound, median")
        assert 0 <= ratio.value < 0.005
    assert "within a factor of 1" in found.summary and "vacuous" not in found.summary and "ERROR" not in found.summary
    within = number(found, "instance margin, upper bound, Linf: share within eps")
    assert within.value == pytest.approx(float((truth(model, x, y, "Linf") <= 0.1).double().mean()))
    assert "instance margin, upper bound, L2: share within eps" not in names(found)
    spectral = distribution(found, "output margin over the product of largest singular values, L2")
    f, rows = model(x).detach().double(), torch.arange(14)
    score = (f[rows, y, None] - f).scatter(1, y[:, None], torch.inf).amin(1) / math.sqrt(2)
    largest = torch.linalg.svdvals(model.weight.detach().double())[0]
    assert spectral.values == pytest.approx((score / largest)[2:].tolist(), rel=1e-5)
    assert all(s <= v * (1 + 1e-6) for s, v in zip(spectral.values, lower.values, strict=True)), "never above the other"
    assert all_finite(found)


def deep(seed: int) -> nn.Sequential:
    model = mlp(5, 3, seed=seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    return model.double()


@settings(max_examples=15, deadline=None)
@given(seed=some.integers(0, 10_000), norm=some.sampled_from(NORMS))
def test_nothing_closer_than_the_lower_bound_is_misclassified(seed: int, norm: Norm) -> None:
    """Corners and random points of the ball of that radius, in float64; and it lies below what a search finds."""
    model, x = deep(seed), uniform(8, 5, seed=seed).double()
    with torch.no_grad():
        logits = model(x)
    y = logits.argmax(1)
    of = chain(model, x[:1])
    assert isinstance(of, Chain)
    radius = log_lower_bound(of, logits, y, norm, x).exp()
    step = torch.randn(500, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    step = torch.cat([step, step.sign(), step * (step.abs() == step.abs().amax(2, keepdim=True))])
    order = {"Linf": torch.inf, "L2": 2, "L1": 1}[norm]
    step = step / torch.linalg.vector_norm(step, order, dim=2, keepdim=True)
    points = (x + 0.9999 * radius[:, None] * step).flatten(0, 1)
    assert bool((margin(model(points), y.repeat(len(step))) < 0).all())


@pytest.mark.slow
def test_lower_bounds_lie_below_what_is_found() -> None:
    model, x = mlp(6, 3, seed=4), uniform(20, 6, seed=5)
    y = model(x).argmax(1)
    found = instance_margins(subject(model, x, y, threat=Threat("Linf", 0.1)))
    for norm in ("Linf", "L2"):
        upper, lower = (distribution(found, f"instance margin, {side} bound, {norm}") for side in ("upper", "lower"))
        above = dict(zip(upper.ids, upper.values, strict=True))
        assert lower.ids and all(
            low <= above.get(name, math.inf) for name, low in zip(lower.ids, lower.values, strict=True)
        )
        assert number(found, f"instance margin, {norm}: lower above upper bound").value == 0
    assert all_finite(found)


def test_a_bound_in_one_norm_serves_in_the_others() -> None:
    """In d = 4 dimensions |v|_2 <= 2 |v|_inf, |v|_1 <= 4 |v|_inf, and |v|_1 <= 2 |v|_2; the other way round, 1."""
    head, x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.zeros(1, 4)
    logits, y = torch.tensor([[6.0, 0.0]]), torch.tensor([0])
    ones: dict[Norm, float] = {"Linf": 6 / 2, "L2": 6 / 2, "L1": 6 / 2}
    far = math.log(1e6)
    for known, stretch in {
        "Linf": {"Linf": 1, "L2": 1, "L1": 1},
        "L2": {"Linf": 2, "L2": 1, "L1": 1},
        "L1": {"Linf": 4, "L2": 2, "L1": 1},
    }.items():
        logs: dict[Norm, float] = {norm: 0.0 if norm == known else far for norm in NORMS}
        for norm in NORMS:
            found = log_lower_bound(Chain(head, logs), logits, y, norm, x).exp()
            assert found.tolist() == pytest.approx([ones[norm] / stretch[norm]]), (known, norm)


def test_equal_rows_of_the_head_never_change_places() -> None:
    head = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    logits, y = torch.tensor([[3.0, 2.0, 1.0], [3.0, 3.0, 1.0]]), torch.tensor([0, 0])
    found = log_lower_bound(Chain(head, {"L2": 0.0}), logits, y, "L2", torch.zeros(2, 2)).exp()
    assert found.tolist() == pytest.approx([2 / math.sqrt(2), 0.0])


@pytest.mark.slow
def test_an_estimate_above_the_upper_bound_is_counted() -> None:
    """f_1 - f_0 = x^4 - 1 at x = 0.1: the gradient there promises a margin of 250, the truth is 0.9 (in the box)."""
    model = Function(lambda x: torch.cat([torch.zeros_like(x), x**4 - 1], dim=1))
    x = torch.tensor([[0.1], [2.0]])
    found = instance_margins(subject(model, x, torch.tensor([0, 1]), threat=Threat("Linf", 0.1, (0.0, 3.0)), classes=2))
    for norm in ("Linf", "L2"):
        count = number(found, f"instance margin, {norm}: estimate above upper bound")
        assert (count.value, count.n) == (1, 2)
        assert distribution(found, f"instance margin, upper bound, {norm}").values == pytest.approx(
            (0.9, 1.0), rel=0.01
        )
        promised = distribution(found, f"instance margin, first-order estimate, {norm}").values
        assert promised == pytest.approx(((1 - 1e-4) / 4e-3, 15 / 32), rel=1e-4)
    assert "exceeds the upper bound for 1 of 2" in found.summary


def test_a_lower_bound_above_the_upper_one_is_an_error_and_said_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = linear(6, 3, seed=1), uniform(10, 6, seed=2)
    wrong = Chain(model.weight.detach(), dict.fromkeys(NORMS, math.log(0.9)))
    monkeypatch.setattr(module, "chain", lambda model, example: wrong)
    monkeypatch.setattr(module, "nearest", exactly)
    found = instance_margins(subject(model, x, model(x).argmax(1)))
    assert number(found, "instance margin, Linf: lower above upper bound").value == 10
    assert "ERROR: for 10 of 10 examples" in found.summary


@pytest.mark.parametrize(("log", "words"), [(math.log(50), "a factor of 50"), (60.0, "10^26"), (2000.0, "10^869")])
def test_vacuous_bounds_are_called_so_with_the_ratio(monkeypatch: pytest.MonkeyPatch, log: float, words: str) -> None:
    model, x = linear(6, 3, seed=1), uniform(10, 6, seed=2)
    far = Chain(model.weight.detach(), dict.fromkeys(NORMS, log))
    monkeypatch.setattr(module, "chain", lambda model, example: far)
    monkeypatch.setattr(module, "nearest", exactly)
    found = instance_margins(subject(model, x, model(x).argmax(1)))
    assert words in found.summary and "vacuous" in found.summary
    assert ("float32" in found.summary) == (log > 10)
    ratio = number(found, "instance margin, L2: log10 of upper over lower bound, median")
    assert ratio.value == pytest.approx(log / math.log(10), abs=0.005)
    lost = number(found, "instance margin, L2: lower bound below float32 rounding")
    assert lost.value == (10 if log > 10 else 0)
    assert all_finite(found) and min(distribution(found, "instance margin, lower bound, L2").values) > 0


@pytest.mark.slow
def test_what_is_no_chain_has_a_reason_and_no_lower_bound() -> None:
    model = Function(lambda x: torch.stack([x[:, 0], 1 - x[:, 0].square()], dim=1))
    x = uniform(6, 1)
    found = instance_margins(subject(model, x, model(x).argmax(1), classes=2))
    reason = chain(model, x[:1])
    assert isinstance(reason, str) and any(f"No lower bound: {reason}." == note for note in found.notes)
    assert not any("lower" in name for name in names(found)) and "lower" not in found.summary


@pytest.mark.long
@pytest.mark.slow
def test_what_is_not_finite_is_counted_apart_and_ties_have_margin_0() -> None:
    model, x = linear(6, 3, seed=1), uniform(10, 6, seed=2)
    y = model(x).argmax(1)
    found = instance_margins(subject(NaNAt(model, x[4]), x, y))
    for norm in ("Linf", "L2"):
        for kind in ("upper bound", "first-order estimate"):
            one = distribution(found, f"instance margin, {kind}, {norm}")
            assert one.missing == 1 and one.ids == (0, 1, 2, 3, 5, 6, 7, 8, 9)
            assert any(note.startswith(f"{one.name}: 1 of 10") for note in found.notes)
    tie = Function(lambda x: x)
    points = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    one = subject(tie, points, torch.zeros(2).long(), classes=2)
    assert nearest(one, one.test, "L2").tolist() == pytest.approx([0.0, 0.8 / math.sqrt(2)], rel=0.01)
    assert first_order(tie, one.test, "L2", 8).tolist() == pytest.approx([0.0, 0.8 / math.sqrt(2)])
    assert number(instance_margins(one), "instance margin, upper bound, L2: smallest of correct (v_min)").n == 1


@pytest.mark.slow
def test_where_nothing_can_be_found_nothing_is_said() -> None:
    model = Function(lambda x: torch.stack([1 + 0 * x[:, 0], 0 * x[:, 0]], dim=1))
    found = instance_margins(subject(model, uniform(5, 2), torch.zeros(5).long(), classes=2))
    for kind in ("upper bound", "first-order estimate"):
        one = distribution(found, f"instance margin, {kind}, Linf")
        assert one.missing == 5 and one.values == ()
    assert "no misclassified point was found" in found.summary and all_finite(found)


@pytest.mark.slow
def test_what_was_not_found_counts_as_beyond_eps() -> None:
    """The box ends before the boundary of the second example: only the first has a point, 0.1 away."""
    model = Function(lambda x: torch.stack([x[:, 0] - 0.5 + 10 * x[:, 1], torch.zeros(len(x))], dim=1))
    x, box = torch.tensor([[0.6, 0.0], [0.6, 1.0]]), (torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0]))
    low = torch.tensor([0.0, 0.9])
    first = instance_margins(subject(model, x[:1], torch.zeros(1).long(), threat=Threat("Linf", 0.2, box), classes=2))
    assert number(first, "instance margin, upper bound, Linf: share within eps").value == 1
    second = subject(model, x[1:], torch.zeros(1).long(), threat=Threat("Linf", 0.2, (low, box[1])), classes=2)
    found = instance_margins(second)
    share = number(found, "instance margin, upper bound, Linf: share within eps")
    assert (share.value, share.n) == (0, 1)
    assert any("1 without a misclassified point found" in note for note in found.notes) and all_finite(found)


def test_only_the_first_examples_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXAMPLES", 4)
    monkeypatch.setattr(module, "nearest", exactly)
    model, x = linear(6, 3, seed=1), uniform(10, 6, seed=2)
    found = instance_margins(subject(model, x, model(x).argmax(1)))
    assert distribution(found, "instance margin, upper bound, L2").ids == (0, 1, 2, 3)
    assert any("first 4 of 10" in note for note in found.notes)
