"""Accuracy under random perturbations, on models where the share of S(x) that is wrong is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from support.examples import network, untouched
from support.toys import QUICK, Function, blobs, mlp
from unperturbed.data.convert import as_split
from unperturbed.data.split import select
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.probable import Probable, probable_accuracy
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Logits

EPS = 0.1


def above(limit: float) -> Function:
    """Return the classifier of numbers that says 1 above a limit and 0 below it: linear."""
    return Function(lambda x: torch.cat([torch.zeros_like(x), x - limit], dim=1))


def at(*wrong: float, each: int) -> tuple[Inputs, torch.Tensor]:
    """Return numbers of class 1 of whose interval [x - EPS, x + EPS] these shares lie below 0.5, so many of each."""
    x = torch.tensor([0.5 + EPS * (1 - 2 * share) for share in wrong]).repeat_interleave(each)[:, None]
    return x, torch.ones(len(x), dtype=torch.int64)


def within(found: float, expected: float, n: int) -> bool:
    """Tell whether a share of n is within five standard errors of what is expected."""
    return abs(found - expected) <= 5 * (expected * (1 - expected) / n) ** 0.5 + 1e-12


# Closed forms


def test_it_is_the_share_of_examples_whose_wrong_share_is_within_rho() -> None:
    shares = (0.0, 0.01, 0.08, 0.3, 0.9)
    found = probable_accuracy(above(0.5), at(*shares, each=20), Threat("Linf", EPS), (0.5, 0.15, 0.04), draws=400)
    assert {rho: each.value for rho, each in found.accuracy.items()} == {0.5: 0.8, 0.15: 0.6, 0.04: 0.4}
    assert within(found.mean_accuracy.value, 1 - sum(shares) / 5, 400 * 100)
    assert found.clean_accuracy.value == 0.8 and not any(found.unknown.values())
    wrong = np.array(found.examples["wrong"]).reshape(5, 20).sum(axis=1) / (20 * 400)
    assert all(within(a, b, 20 * 400) for a, b in zip(wrong, shares, strict=True))


@pytest.mark.parametrize(("share", "rho"), [(0.05, 0.05), (0.08, 0.1), (0.3, 0.28), (0.005, 0.0)])
def test_near_its_limit_an_example_passes_as_often_as_the_binomial_distribution_says(share: float, rho: float) -> None:
    found = probable_accuracy(above(0.5), at(share, each=1500), Threat("Linf", EPS), (rho,), draws=100)
    expected = float(binom.cdf(round(rho * 100), 100, share))
    assert within(found.accuracy[rho].value, expected, 1500)
    truth = float(share <= rho)
    assert found.accuracy[rho].low <= truth <= found.accuracy[rho].high


@pytest.mark.parametrize("share", [0.0085, 0.01, 0.012])
def test_draws_that_cannot_tell_the_sides_of_rho_apart_leave_the_interval_wide(share: float) -> None:
    found = probable_accuracy(above(0.5), at(share, each=300), Threat("Linf", EPS), (0.01,), draws=100)
    each = found.accuracy[0.01]
    assert each.low <= float(share <= 0.01) <= each.high and any("take more draws" in text for text in found.warnings)


@pytest.mark.slow
def test_enough_draws_narrow_the_interval_and_far_from_rho_few_are_enough() -> None:
    near = probable_accuracy(above(0.5), at(0.05, each=60), Threat("Linf", EPS), (0.01,), draws=500)
    assert near.accuracy[0.01].high < 0.1 and all("repeat" in text or "of class" in text for text in near.warnings)
    far = probable_accuracy(above(0.5), at(0.0, 0.9, each=100), Threat("Linf", EPS), (0.1,), draws=100)
    assert 0.4 < far.accuracy[0.1].low < 0.5 < far.accuracy[0.1].high < 0.6
    assert all("repeat" in text or "of class" in text for text in far.warnings)


@pytest.mark.slow
def test_only_what_the_box_leaves_is_drawn_from() -> None:
    """Of [0, 0.15] a third lies below 0.05; without the box it would be half of [-0.05, 0.15]."""
    x, y = torch.full((300, 1), 0.05), torch.ones(300, dtype=torch.int64)
    boxed = probable_accuracy(above(0.05), (x, y), Threat("Linf", EPS), (0.4,), draws=200)
    free = probable_accuracy(above(0.05), (x, y), Threat("Linf", EPS, None), (0.4,), draws=200)
    assert within(boxed.mean_accuracy.value, 2 / 3, 200 * 300) and boxed.accuracy[0.4].value > 0.9
    assert within(free.mean_accuracy.value, 1 / 2, 200 * 300) and free.accuracy[0.4].value < 0.1


def test_at_eps_0_it_is_the_clean_accuracy() -> None:
    x, y = blobs(60)
    found = probable_accuracy(mlp(6, 3), (x, y), Threat("Linf", 0.0), (0.3, 0.0), draws=5)
    assert all(each == found.clean_accuracy for each in found.accuracy.values())
    assert found.mean_accuracy == found.clean_accuracy


def test_it_is_no_less_than_the_robust_accuracy_and_may_be_far_above_it() -> None:
    x = torch.rand(80, 50, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    weight = torch.ones(50)
    model = Function(lambda z: torch.stack([torch.zeros(len(z)), (z - 0.5) @ weight], dim=1))
    data = x, (x.sum(1) > 25).long()
    threat = Threat("Linf", 0.02)
    found, robust = probable_accuracy(model, data, threat), evaluate(model, data, threat, QUICK).robust_accuracy
    assert all(each.value >= robust.value for each in found.accuracy.values())
    assert found.accuracy[0.1].value > robust.value + 0.15 and "no attack" in found.note


# What it does not depend on


@pytest.mark.rounding
def test_order_company_and_batch_size_do_not_matter() -> None:
    model, threat = mlp(6, 3), Threat("Linf", 0.2)
    split = as_split(blobs(90))
    whole = probable_accuracy(model, split, threat, draws=100)
    turned = torch.randperm(90, generator=torch.Generator().manual_seed(3))[:40]
    some = probable_accuracy(model, select(split, turned), threat, draws=100, batch_size=7)
    assert some.examples["id"] == turned.tolist()
    assert_same_draws(some, whole, turned.tolist())
    assert 0 < sum(whole.examples["wrong"]), "there is something to disagree on"
    again = probable_accuracy(model, split, threat, draws=100, seed=1)
    assert again.examples["wrong"] != whole.examples["wrong"]


@pytest.mark.rounding
def test_more_than_a_block_of_examples_is_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = blobs(50)
    whole = probable_accuracy(mlp(6, 3), (x, y), Threat("L2", 0.5), (0.1,), draws=20)
    monkeypatch.setattr("unperturbed.evaluation.measurement.BLOCK", 16)
    parts = probable_accuracy(mlp(6, 3), (x, y), Threat("L2", 0.5), (0.1,), draws=20)
    assert_same_draws(parts, whole, range(50))
    assert parts.accuracy == whole.accuracy


def assert_same_draws(found: Probable, whole: Probable, rows: Sequence[int]) -> None:
    """Assert the same counts, and clean margins that differ by rounding at most: the batches differ in size."""
    for column in ("id", "label", "right", "wrong", "unknown"):
        assert found.examples[column] == [whole.examples[column][row] for row in rows]
    clean = [whole.examples["clean"][row] for row in rows]
    np.testing.assert_allclose(found.examples["clean"], clean, rtol=1e-5, atol=1e-5)


def test_the_model_and_the_random_state_stay_as_they_were() -> None:
    model = network("dropout")
    x = torch.rand(5, 2, 4, 4)
    with untouched(model, x):
        probable_accuracy(model, (x, torch.arange(5) % 3), Threat("L1", 1.0), (0.5,), draws=4)


# What cannot be decided


def nan_above(limit: float) -> Function:
    """Return the classifier that says 1, without finite logits above a limit."""

    def logits(x: Inputs) -> Logits:
        return torch.cat([0 * x, torch.where(x > limit, torch.nan, 1 + 0 * x)], dim=1)

    return Function(logits)


@pytest.mark.slow
def test_draws_without_finite_logits_are_unknown_and_never_count_as_correct() -> None:
    """Of the intervals 0, 2%, 50% and all lie above the limit."""
    x = torch.tensor([[0.3], [0.5 - 0.096], [0.5], [0.7]]).repeat_interleave(10, dim=0)
    y = torch.ones(40, dtype=torch.int64)
    found = probable_accuracy(nan_above(0.5), (x, y), Threat("Linf", EPS), (0.2,), draws=200)
    assert found.accuracy[0.2].value == 0.5, "counted as wrong, a fiftieth of the draws is no matter"
    assert found.unknown[0.2] == 20 and found.accuracy[0.2].high == 1
    assert 0.3 < found.accuracy[0.2].low < wilson(20, 40).low
    assert found.clean_accuracy.value < 1 and found.mean_accuracy.high == wilson(40, 40).high
    assert any("no finite logits" in text for text in found.warnings)
    wrong = probable_accuracy(nan_above(0.5), (x, 1 - y), Threat("Linf", EPS), (0.2,), draws=200)
    assert wrong.accuracy[0.2].value == 0 and wrong.unknown[0.2] == 10, "where enough is wrong, nothing is open"


def test_ties_are_not_correct() -> None:
    flat = Function(lambda x: torch.zeros(len(x), 2) + 0 * x)
    found = probable_accuracy(flat, (torch.rand(20, 1), torch.zeros(20).long()), Threat("Linf", EPS), (0.0,), draws=3)
    assert found.accuracy[0.0].value == found.mean_accuracy.value == 0 and not any(found.unknown.values())


def test_an_example_on_which_the_network_fails_is_unknown() -> None:
    def logits(x: Inputs) -> Logits:
        if bool((x > 0.9).any()):
            raise RuntimeError("too bright")
        return torch.cat([0 * x, 1 + 0 * x], dim=1)

    x = torch.tensor([[0.2], [0.99], [0.4], [0.3]])
    found = probable_accuracy(Function(logits), (x, torch.ones(4).long()), Threat("Linf", 0.01), (0.0,), draws=3)
    assert found.accuracy[0.0].value == 0.75 and found.unknown[0.0] == 1
    assert any("too bright" in text for text in found.warnings)


def test_a_network_that_draws_random_numbers_is_told() -> None:
    noisy = Function(lambda x: torch.cat([x, 1 - x], dim=1) + 0.01 * torch.randn(len(x), 2))
    found: Probable = probable_accuracy(
        noisy, (torch.rand(9, 1), torch.zeros(9).long()), Threat("Linf", 0.1), draws=100
    )
    assert any("draws random numbers" in text for text in found.warnings)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"rho": (0.01,), "draws": 99}, "take 100 draws"),
        ({"rho": (0.3,), "draws": 3}, "take 4 draws"),
        ({"rho": ()}, "give one share"),
        ({"rho": (0.1, 0.1)}, "each once"),
        ({"rho": (-0.1,)}, "rho is -0.1"),
        ({"rho": (1.0,)}, "rho is 1.0"),
        ({"rho": (float("nan"),)}, "is nan, but must be finite"),
        ({"draws": 0}, "draws is 0"),
    ],
)
def test_shares_and_draws_that_cannot_be_meant_are_refused(given: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        probable_accuracy(mlp(6), blobs(8, classes=2), Threat("Linf", 0.1), **given)


def test_rho_of_exactly_so_many_draws_allows_them() -> None:
    probable_accuracy(mlp(6), blobs(8, classes=2), Threat("Linf", 0.1), (0.1, 0.2, 0.3, 0.7), draws=10)
    from unperturbed.evaluation.probable import _allowed

    assert [_allowed(k / 10, 10) for k in range(10)] == list(range(10))
    assert [_allowed(k / 100, 100) for k in range(100)] == list(range(100))


def test_a_single_share_needs_no_list() -> None:
    one, listed = (probable_accuracy(above(0.5), at(0.05, each=20), Threat("Linf", EPS), rho) for rho in (0.1, [0.1]))
    assert one.accuracy == listed.accuracy and list(one.accuracy) == [0.1]
