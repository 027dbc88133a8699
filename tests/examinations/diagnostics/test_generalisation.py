"""Accuracies, losses and gaps typed again, and the covering-number bound by arithmetic of its own."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor, nn

from support.examined import WIDE, NaNAt, all_finite, names, number, subject
from support.examples import untouched
from support.toys import Function, linear, mlp, uniform
from unperturbed.examinations.covering import intrinsic_dimension, log10_covering_term, packing_number, ramp_term
from unperturbed.examinations.diagnostics.generalisation import generalisation
from unperturbed.threat import Threat

W = torch.tensor([1.0, -2.0, 0.5, 1.5, -1.0])
TWO = nn.Linear(5, 2)
"""f = (0, w x): the score of label 1 is w x, and the worst case within Linf eps takes 6 eps off."""
with torch.no_grad():
    TWO.weight.copy_(torch.stack([torch.zeros(5), W]))
    TWO.bias.zero_()
DRAW = torch.Generator().manual_seed(0)


def labelled(n: int) -> tuple[Tensor, Tensor]:
    """Return normal inputs with the labels that TWO gives them, but for every sixth."""
    x = torch.randn(n, 5, generator=DRAW)
    return x, ((x @ W > 0).long() + (torch.arange(n) % 6 == 0)) % 2


TEST, TRAIN = labelled(24), labelled(30)
OPEN = Threat("Linf", 0.1, None)


@pytest.fixture(autouse=True)
def fewer_radii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.examinations.diagnostics.instance_margins.RADII", 2)


# What is measured


@pytest.mark.slow
def test_accuracies_losses_and_gaps_typed_again() -> None:
    one = subject(TWO, *TEST, train=TRAIN, threat=OPEN, classes=2)
    with untouched(TWO, *TEST, *TRAIN):
        found = generalisation(one)
    values = {}
    for part, (x, y) in {"test": TEST, "train": TRAIN}.items():
        score = (x.double() @ W.double()).numpy() * (2 * y - 1).numpy()
        for kind, seen in {"natural": score, "robust": score - 0.6}.items():
            loss, right = np.log1p(np.exp(-seen)), seen > 0
            values[kind, part] = loss.mean(), right.mean()
            assert number(found, f"{kind} accuracy, {part}").value == pytest.approx(right.mean())
            assert number(found, f"{kind} loss, {part}").value == pytest.approx(loss.mean(), abs=1e-5)
            assert number(found, f"{kind} loss, {part}").n == len(y)
    for kind in ("natural", "robust"):
        gaps = [first - second for first, second in zip(values[kind, "train"], values[kind, "test"], strict=True)]
        assert number(found, f"{kind} loss gap, train minus test").value == pytest.approx(gaps[0], abs=1e-5)
        assert number(found, f"{kind} accuracy gap, train minus test").value == pytest.approx(gaps[1])
    assert values["robust", "test"][1] < values["natural", "test"][1]
    assert any("upper bounds" in note and "20 steps of PGD" in note for note in found.notes) and all_finite(found)


def test_what_is_wrong_to_begin_with_is_not_robust() -> None:
    """A band of width 0.1 in which the label's class loses: half of all steps out of it are right again."""
    band = Function(lambda x: torch.cat([torch.zeros_like(x), 0.05 - (x - 0.5).abs()], dim=1))
    x = torch.tensor([[0.5], [0.3]])
    found = generalisation(subject(band, x, torch.zeros(2).long(), threat=Threat("Linf", 0.5), classes=2))
    assert number(found, "natural accuracy, test").value == 0.5
    assert number(found, "robust accuracy, test").value <= 0.5
    assert number(found, "robust loss, test").value >= number(found, "natural loss, test").value


@pytest.mark.slow
def test_what_is_not_finite_is_never_counted_as_right() -> None:
    x, y = TRAIN
    rows = ((x @ W > 0).long() == y).nonzero()[:2, 0]
    whole = generalisation(subject(TWO, *TEST, train=TRAIN, threat=OPEN, classes=2))
    found = generalisation(subject(NaNAt(TWO, x[rows[0]]), *TEST, train=TRAIN, threat=OPEN, classes=2))
    before, after = (number(each, "natural accuracy, train") for each in (whole, found))
    assert after.value == pytest.approx(before.value - 1 / 30) and after.n == 30 and after.high == before.high
    assert number(found, "natural loss, train").n == 29 and number(found, "bound: m").value == 29
    assert any("natural, train: 1 of 30" in note for note in found.notes) and all_finite(found)
    nothing = generalisation(subject(Function(lambda x: x[:, :2] * torch.nan), *TEST, train=TRAIN, threat=OPEN))
    assert (
        number(nothing, "natural accuracy, test").value == 0 and "no bound" in nothing.summary and all_finite(nothing)
    )


def test_without_training_examples_the_rest_is_said() -> None:
    found = generalisation(subject(TWO, *TEST, threat=OPEN, classes=2))
    assert any("no training examples" in note for note in found.notes) and "Natural test accuracy" in found.summary
    assert not any("train" in name or "bound" in name for name in names(found))


# The bound


@given(
    cells=some.integers(1, 10**6),
    classes=some.integers(2, 1000),
    m=some.integers(1, 10**6),
    eta=some.floats(0.001, 0.5),
)
def test_the_covering_term_by_arithmetic(cells: int, classes: int, m: int, eta: float) -> None:
    expected = math.sqrt((2 * classes * cells * math.log(2) + 2 * math.log(1 / eta)) / m)
    assert 10 ** log10_covering_term(math.log10(cells), classes, m, eta) == pytest.approx(expected)


def test_the_covering_term_of_numbers_too_large_to_write_out() -> None:
    """sqrt(20 ln 2 / 1000) 10^2000: the other term is nothing beside it."""
    expected = 2000 + math.log10(20 * math.log(2) / 1000) / 2
    assert log10_covering_term(4000, 10, 1000, 0.05) == pytest.approx(expected)


def test_the_ramp_term() -> None:
    assert [ramp_term(least, 2.0) for least in (-1.0, 0.0, 0.5, 2.0, 3.0)] == [1.0, 1.0, 0.75, 0.0, 0.0]


@given(points=some.lists(some.integers(0, 60), min_size=1, max_size=20), r=some.integers(1, 20))
def test_no_cover_is_smaller_than_the_packing(points: list[int], r: int) -> None:
    """On a line the smallest cover by intervals of length r begins one at the first point not yet covered."""
    cover, end = 0, -1.0
    for point in sorted(points):
        if point > end:
            cover, end = cover + 1, point + r
    x = torch.tensor(points, dtype=torch.float32)[:, None]
    assert 1 <= packing_number(x, float(r)) <= cover


def test_the_packing_of_a_grid() -> None:
    x = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)).view(25, 1, 1, 2)
    assert packing_number(x, 0.99) == 25 and packing_number(x, 1.0) < 25 and packing_number(x, 6.0) == 1


@pytest.mark.parametrize("k", [2, 5])
def test_the_dimension_of_a_subspace(k: int) -> None:
    """Normal in k of 20 dimensions, turned; copies make no difference."""
    draw = torch.Generator().manual_seed(1)
    turned = torch.linalg.qr(torch.randn(20, k, generator=draw, dtype=torch.float64)).Q
    x = torch.randn(1000, k, generator=draw, dtype=torch.float64) @ turned.T
    found = intrinsic_dimension(x)
    assert found == pytest.approx(k, rel=0.15)
    assert intrinsic_dimension(torch.cat([x, x[:100]])) == pytest.approx(found)
    assert intrinsic_dimension(3 * x.view(1000, 5, 4)) == pytest.approx(found)


def test_the_dimension_by_its_formula() -> None:
    """At 0, 1 and 3 on a line with two neighbours: ln of 3/1, 2/1 and 3/2."""
    inverse = (math.log(3) + math.log(2) + math.log(3 / 2)) / 3
    assert intrinsic_dimension(torch.tensor([[0.0], [1.0], [3.0]])) == pytest.approx(1 / inverse)
    assert math.isnan(intrinsic_dimension(torch.ones(5, 2))) and math.isnan(intrinsic_dimension(torch.eye(3)))


@pytest.mark.slow
def test_every_constant_of_the_bound() -> None:
    """The network is linear: v_min = |w x| / |w|, Lam = |w|, o = score / sqrt 2."""
    x, y = TRAIN[0], (TRAIN[0] @ W > 0).long()
    found = generalisation(subject(TWO, *TEST, train=(x, y), threat=OPEN, classes=2))
    score = (x.double() @ W.double()).numpy() * (2 * y - 1).numpy()
    length = float(W.double().norm())
    r = number(found, "bound: r = v_min, L2, upper bound").value
    assert r == pytest.approx(abs(score).min() / length, rel=0.01)
    assert (number(found, "bound: m").value, number(found, "bound: |Y|").value, number(found, "bound: eta").value) == (
        30, 2, 0.05,
    )  # fmt: skip
    assert 10 ** number(found, "bound: log10 Lam, Lam = prod s_max").value == pytest.approx(length, rel=1e-5)
    gamma, least = np.median(score / math.sqrt(2)), (score / math.sqrt(2)).min() - length * r
    assert number(found, "bound: gamma, median output margin").value == pytest.approx(gamma, rel=1e-5)
    assert number(found, "bound: u_min").value == pytest.approx(least, rel=1e-4)
    away = np.linalg.norm(x.double().numpy()[:, None] - x.double().numpy(), axis=2)
    assert number(found, "bound: diameter C of the training examples, L2").value == pytest.approx(away.max(), rel=1e-5)
    cells = number(found, "bound: N(X, r / 2), at least (packing number)").value
    assert cells == packing_number(x, r)
    covering = math.sqrt((4 * cells * math.log(2) + 2 * math.log(20)) / 30)
    assert 10 ** number(found, "bound: log10 of the 0-1 gap, N at least").value == pytest.approx(covering)
    k = number(found, "bound: intrinsic dimension k").value
    proxy = max((away.max() / r) ** k, cells)
    assert 10 ** number(found, "bound: log10 N(X, r / 2), proxy (C / r)^k").value == pytest.approx(proxy, rel=1e-3)
    second = math.sqrt((4 * proxy * math.log(2) + 2 * math.log(20)) / 30)
    assert 10 ** number(found, "bound: log10 of the 0-1 gap, proxy").value == pytest.approx(second, rel=1e-3)
    assert least < 0 and number(found, "bound: first term, max{0, 1 - u_min / gamma}").value == 1
    assert 10 ** number(found, "bound: log10 of the ramp gap, N at least").value == pytest.approx(1 + covering)
    assert covering > 1 and "vacuous, for certain" in found.summary
    assert all("proxy" in note or "proved" in note for note in found.notes if note.startswith(("r is", "N(X", "Lam")))


def clusters(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return two tight clusters, a class each, a distance of 10 apart along the first axis."""
    y = torch.arange(n) % 2
    x = 0.01 * torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    x[:, 0] += 10.0 * y
    return x, y


@pytest.mark.long
@pytest.mark.slow
def test_a_bound_that_is_not_vacuous_is_not_called_proved() -> None:
    """Two cells are enough: sqrt((8 ln 2 + 2 ln 20) / 400) = 0.17."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        model.bias.copy_(torch.tensor([5.0, -5.0]))
    one = subject(model, *clusters(20, 1), train=clusters(400), threat=Threat("Linf", 0.1, (-20.0, 20.0)), classes=2)
    found = generalisation(one)
    assert number(found, "bound: N(X, r / 2), at least (packing number)").value == 2
    value = 10 ** number(found, "bound: log10 of the 0-1 gap, N at least").value
    assert value == pytest.approx(math.sqrt((8 * math.log(2) + 2 * math.log(20)) / 400))
    assert "vacuous, for certain" not in found.summary and "not proved" in found.summary
    assert number(found, "bound: first term, max{0, 1 - u_min / gamma}").value > 0.9, "o is used up at the boundary"


@pytest.mark.slow
def test_without_a_chain_the_ramp_loss_has_a_reason_instead() -> None:
    model = Function(lambda x: torch.stack([torch.zeros(len(x)), x @ W], dim=1))
    found = generalisation(subject(model, *TEST, train=TRAIN, threat=OPEN, classes=2))
    assert any("prod s_max" in note and note.startswith("No bound on the ramp loss") for note in found.notes)
    assert not any("ramp" in name for name in names(found)) and "bound: m" in names(found)


@pytest.mark.long
@pytest.mark.slow
def test_where_v_min_is_0_there_is_no_bound() -> None:
    x, y = TRAIN
    tied = torch.cat([x, torch.zeros(1, 5)]), torch.cat([y, torch.zeros(1).long()])
    found = generalisation(subject(TWO, *TEST, train=tied, threat=OPEN, classes=2))
    assert "no bound" in found.summary and "v_min 0" in found.summary and all_finite(found)
    constant = Function(lambda x: torch.stack([1 + 0 * x[:, 0], 0 * x[:, 0]], dim=1))
    nothing = generalisation(subject(constant, *TEST, train=TRAIN, threat=WIDE, classes=2))
    assert "has no v_min" in nothing.summary and all_finite(nothing)


@pytest.mark.slow
def test_a_product_of_norms_beyond_all_numbers_is_vacuous() -> None:
    layers: list[nn.Module] = []
    for _ in range(40):
        layer = nn.Linear(5, 5, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0, 1e12])))
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers, linear(5, 3))
    x = uniform(12, 5)
    x[:, 4] = 0
    found = generalisation(subject(model, x, torch.arange(12) % 3, train=(x, torch.arange(12) % 3)))
    assert number(found, "bound: log10 Lam, Lam = prod s_max").value > 400
    assert any("vacuous" in note for note in found.notes) and all_finite(found)


@pytest.mark.slow
def test_training_examples_beyond_the_most_are_left_out_of_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unperturbed.examinations.covering.COVERED", 10)
    one = subject(mlp(5, 2), *TEST, train=TRAIN, threat=OPEN, classes=2)
    found = generalisation(replace(one, seed=1))
    assert number(found, "bound: m").value == 10 and number(found, "natural accuracy, train").n == 30
