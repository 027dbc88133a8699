"""Certified radii: closed forms on linear networks, quadrature in the plane, and attacks that must fail within them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor, nn

from support.shares import first
from support.toys import QUICK, Function, blobs, linear, mlp, uniform, wavy
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import Suite
from unperturbed.data.convert import as_split
from unperturbed.data.split import select
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.bars import bars
from unperturbed.evaluation.certify import certify
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.evaluation.votes import NONE, UNKNOWN, answer
from unperturbed.statistics.smoothing import certified_radius
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Logits

L2 = Threat("L2", 0.5)
BOUNDARY: Suite = Suite("boundary", (FAB(steps=20), *QUICK.attacks), "a test")


def above(limit: float) -> Function:
    """Return the classifier of numbers that says 1 above a limit and 0 below it."""
    return Function(lambda x: torch.cat([torch.zeros_like(x), x - limit], dim=1))


# Closed forms


@pytest.mark.slow
def test_the_radius_of_a_linear_network_is_its_margin_over_the_norm() -> None:
    """Cohen et al. 2019, proposition 2 (appendix B): smoothing leaves a linear classifier as it is."""
    model, sigma = linear(5), 0.4
    difference = (model.weight[1] - model.weight[0]).detach().double()
    direction, length = difference / difference.norm(), float(difference.norm())
    start, distances = torch.full((5,), 0.5, dtype=torch.float64), torch.tensor([0.2, -0.3, 0.45])
    x = (start + distances[:, None] * direction).float()
    lead = (model(x)[:, 1] - model(x)[:, 0]).detach().double() / length
    torch.testing.assert_close(lead, distances.double(), rtol=1e-4, atol=1e-5)
    free = Threat("L2", 0.5, None)
    found = certify(model, (x, (distances > 0).long()), free, sigma, draws=1_000_000, alpha=0.001, batch_size=2**15)
    radius = torch.tensor(found.examples["radius"], dtype=torch.float64)
    torch.testing.assert_close(radius, distances.double().abs(), rtol=0.01, atol=0)
    assert bool((radius < distances.abs()).all()), "with alpha 0.001, three bounds from below"
    proven = torch.tensor(found.examples["proven"], dtype=torch.float64)
    torch.testing.assert_close(proven, distances.double().abs(), rtol=1e-4, atol=0)


def test_the_votes_are_those_of_gauss_and_the_radius_that_of_scipy() -> None:
    x, sigma, draws, alpha = torch.tensor([[0.3], [0.45], [0.6], [0.9]]), 0.2, 4000, 0.01
    found = certify(above(0.5), (x, torch.tensor([0, 1, 1, 1])), Threat("L2", 0.3), sigma, draws=draws, alpha=alpha)
    chance = norm.cdf(np.abs(x[:, 0].numpy() - 0.5) / sigma)
    votes = np.array(found.examples["votes"])
    assert (np.abs(votes - draws * chance) < 5 * np.sqrt(draws * chance * (1 - chance)) + 1).all()
    expected = [sigma * norm.ppf(max(0.5, binomial_bound(k, draws, alpha))) for k in votes]
    np.testing.assert_allclose(found.examples["radius"], expected, atol=1e-9)
    assert found.examples["prediction"] == [0, 0, 1, 1] and found.counts == {"correct": 3, "wrong": 1, "abstained": 0}
    assert (
        found.smoothed(0.0).value == 0.75 and found.smoothed(0.15).value == 0.5 and found.smoothed(0.38).value <= 0.25
    )
    assert found.clean_accuracy.value == 0.75


def binomial_bound(votes: int, draws: int, alpha: float) -> float:
    """Return p with P(Binomial(draws, p) >= votes) = alpha, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if binom.sf(votes - 1, draws, middle) < alpha else (low, middle)
    return low


def test_a_vote_that_is_too_close_abstains() -> None:
    x = torch.tensor([[0.5001], [0.9]])
    found = certify(above(0.5), (x, torch.ones(2).long()), Threat("L2", 0.3), 0.2, draws=1000)
    assert found.examples["prediction"] == [-1, 1] and found.examples["radius"][0] == 0
    assert found.counts == {"correct": 1, "wrong": 0, "abstained": 1} and found.smoothed(0.0).value == 0.5


@pytest.mark.slow
def test_certificates_fail_no_more_often_than_alpha() -> None:
    """Six thousand examples at one distance from the plane: the radius exceeds it for at most alpha of them."""
    distance, sigma, alpha, n = 0.2, 0.4, 0.05, 6000
    x = torch.full((n, 1), 0.5 + distance)
    settings = {"draws": 200, "selection_draws": 30, "alpha": alpha, "batch_size": 2**14}
    found = certify(above(0.5), (x, torch.ones(n).long()), L2, sigma, **settings)  # type: ignore[arg-type]
    wrong = [label != given and given >= 0 for label, given in zip(*two(found, "label", "prediction"), strict=True)]
    failures = sum(radius > distance for radius in found.examples["radius"]) + sum(wrong)
    assert 0.2 * alpha * n < failures < binom.ppf(0.999, n, alpha)


def two(found: Any, first_column: str, second: str) -> tuple[list[Any], list[Any]]:
    return found.examples[first_column], found.examples[second]


def test_noise_is_not_clipped_to_the_box() -> None:
    """At 0, with the plane at -0.1, a clipped draw would never cross it."""
    x, draws = torch.zeros(1, 1), 20_000
    found = certify(above(-0.1), (x, torch.ones(1).long()), L2, 0.1, draws=draws)
    assert found.examples["votes"][0] == pytest.approx(draws * norm.cdf(1), abs=5 * math.sqrt(draws * 0.15))


def smoothed_chances(model: nn.Module, x: Tensor, sigma: float) -> Tensor:
    """Return P(f(x + sigma N(0, I)) = c) in the plane, by a fine grid of the normal distribution: (n, classes)."""
    steps = norm.ppf((np.arange(400) + 0.5) / 400)
    grid = torch.tensor(np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2), dtype=torch.float32)
    with torch.no_grad():
        answers = torch.stack([model(point + sigma * grid).argmax(1) for point in x])
    return torch.stack([(answers == c).double().mean(1) for c in range(3)], dim=1)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_smoothed_answer_changes_within_its_radius_in_the_plane(seed: int) -> None:
    """The vote is computed by quadrature in all directions just within the radius: certified implies survived."""
    model, sigma = mlp(2, 3, seed=seed), 0.3
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4)
    x = uniform(12, 2, seed=seed)
    found = certify(model, (x, model(x).argmax(1)), L2, sigma, draws=20_000, batch_size=4096)
    angles = torch.linspace(0, 2 * math.pi, 17)[:-1]
    around, checked = torch.stack([angles.cos(), angles.sin()], dim=1), 0
    for point, given, radius in zip(x, found.examples["prediction"], found.examples["radius"], strict=True):
        if given >= 0:
            chances = smoothed_chances(model, point + 0.999 * radius * around, sigma)
            assert chances.argmax(1).tolist() == [given] * 16
            checked += 1
    assert checked >= 8, "most examples are certified"


# The network itself: certified <= truth <= attacked


def images(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(12, 3)).eval()


def named(kind: str) -> nn.Module:
    made: dict[str, nn.Module] = {
        "linear": linear(6, 3),
        "linear-2": linear(6, 3, seed=4),
        "mlp": mlp(6, 3),
        "mlp-2": mlp(6, 3, seed=2),
        "mlp-norm": mlp(6, 3, norm=True).eval(),
        "dropout": mlp(6, 3, dropout=0.3).eval(),
        "wavy": wavy(),
        "deep": nn.Sequential(mlp(6, 8), nn.ELU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)),
        "cnn": images(0),
        "cnn-2": images(1),
    }
    return made[kind]


KINDS = ["linear", "mlp", "cnn", "linear-2", "mlp-2", "mlp-norm", "dropout", "wavy", "deep", "cnn-2"]


@pytest.mark.slow
@pytest.mark.parametrize("norm_name", ["L2", "Linf"])
@pytest.mark.parametrize("kind", first(3, KINDS))
def test_no_attack_breaks_what_is_proved_on_any_example_of_ten_networks(kind: str, norm_name: Any) -> None:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = named(kind)
        shape = {"wavy": (8,), "cnn": (1, 8, 8), "cnn-2": (1, 8, 8)}.get(kind, (6,))
        x = uniform(24, math.prod(shape), seed=3).view(-1, *shape)
    data, threat = (x, model(x).argmax(1)), Threat(norm_name, 1.0)
    found = certify(model, data, threat, 0.1, draws=2, selection_draws=1)
    assert not found.unproven
    distances = minimum_norm(model, data, threat, BOUNDARY)
    rows = zip(found.examples["proven"], distances.examples["distance"], strict=True)
    assert all(0 < bound <= distance * (1 + 1e-4) for bound, distance in rows)
    shown = bars(found, distances)
    assert [bar.eps for bar in shown] == list(distances.radii)
    assert all(bar.certified.value <= bar.attacked.value for bar in shown)
    (bar,) = bars(found, evaluate(model, data, threat, QUICK))
    assert bar.certified.value <= bar.attacked.value and bar.eps == 1.0


@pytest.mark.slow
def test_of_linear_networks_both_sides_meet() -> None:
    model, data = linear(6), (uniform(40, 6), torch.zeros(40).long())
    data = data[0], model(data[0]).argmax(1)
    threat = Threat("L2", 0.4, None)
    shown = bars(certify(model, data, threat, 0.1, draws=2), minimum_norm(model, data, threat, BOUNDARY))
    assert all(bar.certified.value == bar.attacked.value for bar in shown) and 0 < shown[4].certified.value < 1
    assert str(shown[0]).count("%") == 2 and "<= truth <=" in str(shown[0])


@pytest.mark.slow
def test_a_bound_above_a_found_distance_is_an_error_of_the_program() -> None:
    model, data = mlp(6, 3), blobs(12)
    found, distances = certify(model, data, L2, 0.1, draws=2), minimum_norm(model, data, L2, BOUNDARY)
    row = next(k for k, distance in enumerate(distances.examples["distance"]) if 0 < distance < math.inf)
    nearest = distances.examples["distance"][row]
    for factor, wrong in ((1.00005, False), (1.001, True)):
        proven = [nearest * factor if k == row else 0.0 for k in range(12)]
        changed = replace(found, examples={**found.examples, "proven": proven})
        if wrong:
            with pytest.raises(RunError, match=rf"Example {row} is proved .* error of the program"):
                bars(changed, distances)
        else:
            bars(changed, distances)
    outcome = evaluate(model, data, L2, QUICK)
    broken = outcome.examples["verdict"].index("broken")
    proven = [9.0 if k == broken else 0.0 for k in range(12)]
    with pytest.raises(RunError, match="error of the program"):
        bars(replace(found, examples={**found.examples, "proven": proven}), outcome)


@pytest.mark.slow
def test_other_networks_examples_and_norms_are_no_bar() -> None:
    model, data = mlp(6, 3), blobs(12)
    found = certify(model, data, L2, 0.1, draws=2)
    with pytest.raises(InputError, match="weights"):
        bars(found, evaluate(mlp(6, 3, seed=1), data, L2, QUICK))
    with pytest.raises(InputError, match="data"):
        bars(found, evaluate(model, blobs(10), L2, QUICK))
    with pytest.raises(InputError, match="the norm"):
        bars(found, evaluate(model, data, Threat("Linf", 0.1), QUICK))


@pytest.mark.long
@pytest.mark.slow
def test_stored_attacks_of_the_same_network_are_bars(tmp_path: Path) -> None:
    model, data, out = mlp(6, 3), blobs(20), tmp_path / "evaluation"
    outcome = evaluate(model, data, Threat("L2", 0.02), QUICK, out=out / "L2-0.02")
    evaluate(model, data, Threat("Linf", 0.02), QUICK, out=out / "Linf-0.02")
    evaluate(mlp(6, 3, seed=1), data, Threat("L2", 0.03), QUICK, out=out / "L2-0.03")
    distances = minimum_norm(model, data, Threat("L2", 0.1), BOUNDARY, radii=[0.05, 0.1], out=out)
    found = certify(model, data, Threat("L2", 0.1), 0.1, draws=4, out=out)
    assert [(bar.eps, bar.suite) for bar in found.bars] == [(0.02, "pgd"), (0.05, "boundary"), (0.1, "boundary")]
    assert found.bars[0].attacked == outcome.robust_accuracy and found.bars[2].attacked == distances.at(0.1)
    assert found.bars[1].certified == found.network(0.05)
    summary = json.loads((out / "certify-L2-0.1.json").read_text())
    assert [bar["eps"] for bar in summary["bars"]] == [0.02, 0.05, 0.1]
    table = out / "curve-L2/part-00000.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    again = certify(model, data, Threat("L2", 0.1), 0.1, draws=4, out=out)
    assert [bar.eps for bar in again.bars] == [0.02], "a damaged curve is left out"


@pytest.mark.slow
def test_without_a_chain_nothing_is_proved_of_the_network() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Inputs) -> Logits:
            logits: Logits = self.head(x + self.inner(x))
            return logits

    model, data = Residual(), blobs(12)
    found = certify(model, data, L2, 0.1, draws=50)
    assert found.unproven and found.examples["proven"] == [0.0] * 12
    assert found.json()["certified"][0]["network_accuracy"] is None
    assert bars(found, minimum_norm(model, data, L2, BOUNDARY)) == ()


def test_radii_of_other_norms_are_those_that_the_euclidean_one_holds() -> None:
    model, data, d = mlp(6, 3), blobs(12), 6
    found = {name: certify(model, data, Threat(name, 0.5), 0.3, draws=500) for name in ("L2", "Linf", "L1")}
    two_norm = np.array(found["L2"].examples["radius"])
    np.testing.assert_allclose(found["Linf"].examples["radius"], two_norm / math.sqrt(d))
    np.testing.assert_allclose(found["L1"].examples["radius"], two_norm)
    assert two_norm.max() > 0


# What cannot be decided, and what changes nothing


def test_answers_without_a_largest_finite_logit_vote_for_no_class() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [2.0, 2.0, 1.0], [1.0, 3.0, torch.nan], [torch.inf, 0.0, 1.0]])
    assert answer(logits).tolist() == [1, NONE, UNKNOWN, UNKNOWN]


def test_draws_without_finite_logits_count_against_the_class() -> None:
    def logits(x: Inputs) -> Logits:
        return torch.cat([0 * x, torch.where(x > 0.6, torch.nan, 1 + 0 * x)], dim=1)

    draws, sigma = 3000, 0.1
    found = certify(Function(logits), (torch.tensor([[0.5]]), torch.ones(1).long()), L2, sigma, draws=draws)
    assert found.examples["votes"][0] + found.examples["unknown"][0] == draws
    assert found.examples["unknown"][0] == pytest.approx(draws * norm.sf(1), abs=100)
    expected = certified_radius(np.array(found.examples["votes"]), draws, 0.001, sigma)[0]
    assert found.examples["radius"][0] == expected < sigma
    assert any("no finite logits" in text for text in found.warnings)


def test_a_network_that_fails_on_some_draws_goes_on_with_the_others() -> None:
    def logits(x: Inputs) -> Logits:
        if bool((x > 0.8).any()):
            raise RuntimeError("too bright")
        return torch.cat([0 * x, 1 + 0 * x], dim=1)

    x = torch.full((3, 1), 0.5)
    found = certify(Function(logits), (x, torch.ones(3).long()), L2, 0.15, draws=300, batch_size=16)
    failed = sum(found.examples["unknown"])
    assert 0 < failed < 60 and sum(found.examples["votes"]) == 900 - failed
    assert sum("too bright" in text for text in found.warnings) == 1


@pytest.mark.slow
@pytest.mark.rounding
def test_order_company_and_batch_size_do_not_matter() -> None:
    model, split = mlp(6, 3), as_split(blobs(40))
    whole = certify(model, split, L2, 0.3, draws=60)
    turned = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:17]
    some = certify(model, select(split, turned), L2, 0.3, draws=60, batch_size=7)
    assert some.examples["id"] == turned.tolist()
    for column in ("votes", "prediction", "radius"):
        assert some.examples[column] == [whole.examples[column][row] for row in turned.tolist()]
    assert 0 < min(whole.examples["votes"]) < 60
    assert certify(model, split, L2, 0.3, draws=60, seed=1).examples["votes"] != whole.examples["votes"]


def test_a_network_that_draws_random_numbers_has_no_bound_by_its_layers() -> None:
    noisy = Function(lambda x: torch.cat([x, 1 - x], dim=1) + 0.01 * torch.randn(len(x), 2))
    found = certify(noisy, (torch.rand(5, 1), torch.zeros(5).long()), L2, 0.1, draws=20)
    assert "random numbers" in found.unproven and any("draws random numbers" in text for text in found.warnings)


def test_logits_that_depend_on_the_batch_are_a_doubt() -> None:
    coupled = Function(lambda x: torch.cat([x - x.mean(), 0.5 - x], dim=1))
    found = certify(coupled, (torch.rand(9, 1), torch.zeros(9).long()), L2, 0.1, draws=20)
    assert found.doubts == ("logits depend on the rest of the batch",)


def test_radii_beyond_what_the_draws_can_certify_are_reported() -> None:
    found = certify(mlp(6, 3), blobs(6), L2, 0.1, draws=100)
    assert any("100 draws certify no radius above 0.15" in text for text in found.warnings)
    assert not any("certify no radius" in text for text in certify(mlp(6, 3), blobs(6), L2, 0.4, draws=500).warnings)


@pytest.mark.parametrize("radii", [(), (-0.1,), (math.nan,), (0.1, math.inf)])
def test_radii_that_cannot_be_meant_are_refused(radii: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="radii"):
        certify(mlp(6, 3), blobs(6), L2, 0.1, radii=radii)


@pytest.mark.parametrize(("name", "value"), [("sigma", 0.0), ("alpha", 0.0), ("alpha", 1.0), ("draws", 0)])
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        certify(mlp(6, 3), blobs(6), L2, **{"sigma": 0.1, name: value})
