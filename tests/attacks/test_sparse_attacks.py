"""Attacks in L0: the exact distance of linear networks, what every attack owes, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unperturbed as un
from support.toys import QUICK, Function, blobs, linear, mlp, uniform
from unperturbed.attacks.base import Attack
from unperturbed.attacks.function import FunctionAttack
from unperturbed.attacks.gradient import Suite
from unperturbed.attacks.sigma_zero import SigmaZero
from unperturbed.attacks.sparse_search import SparseSearch
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.suites.sparse import SPARSE
from unperturbed.threat import Threat
from unperturbed.types import Batch, Norm

ATTACKS: dict[str, Attack] = {"sigma-zero": SigmaZero(steps=150), "sparse-rs": SparseSearch(queries=300)}
SHORT = Suite("short", tuple(ATTACKS.values()), "a test")
every = pytest.mark.parametrize("name", ATTACKS)


def batch_of(model: nn.Module, x: Tensor) -> Batch:
    return Batch(x, model(x).argmax(1).detach(), torch.arange(len(x)))


def exact(model: nn.Linear, batch: Batch) -> Tensor:
    """Return how many features must change: those that move the lead most, each to its end of the box."""
    slope = (model.weight[0] - model.weight[1]) * torch.where(batch.y == 0, 1, -1)[:, None]
    lead = model(batch.x)
    lead = (lead[:, 0] - lead[:, 1]) * torch.where(batch.y == 0, 1, -1)
    gains = (slope.abs() * torch.where(slope > 0, batch.x, 1 - batch.x)).sort(dim=1, descending=True).values
    return (gains.cumsum(1) < lead[:, None]).sum(1).detach() + 1


@pytest.mark.slow
def test_sigma_zero_finds_the_exact_distance_of_linear_networks() -> None:
    model = linear(30)
    batch = batch_of(model, uniform(60, 30))
    truth = exact(model, batch)
    with under_attack(model):
        found = SigmaZero(steps=400).nearest(model, batch, Threat("L0", 5), Noise.of(0, batch.ids), 64)
    assert bool((found.distance >= truth).all()) and float((found.distance == truth).float().mean()) > 0.9
    assert bool((found.distance <= truth + 1).all()) and int(truth.max()) >= 3
    assert torch.equal(Threat("L0", 5).distance(batch.x, found.z), found.distance)
    assert torch.equal(model(found.z).argmax(1) != batch.y, found.distance.isfinite())


@pytest.mark.slow
@every
def test_of_linear_networks_nothing_breaks_below_the_distance_and_most_above(name: str) -> None:
    model = linear(20, seed=3)
    batch = batch_of(model, uniform(40, 20, seed=1))
    truth, broken = exact(model, batch), list[Tensor]()
    for eps in range(1, 6):
        with under_attack(model):
            found = ATTACKS[name](model, batch, Threat("L0", eps), Noise.of(0, batch.ids), 64)
        broken.append(found.margin > 0)
        assert bool((truth[broken[-1]] <= eps).all()) and bool(Threat("L0", eps).contains(batch.x, found.z).all())
    share = torch.stack(broken)[truth.clamp(max=5) - 1, torch.arange(40)][truth <= 5].float().mean()
    assert float(share) > (0.9 if name == "sigma-zero" else 0.5)


@pytest.mark.slow
@every
@pytest.mark.parametrize("eps", [0.0, 1.0, 5.0, 6.0, 100.0])
def test_points_stay_inside_whatever_the_radius(name: str, eps: float) -> None:
    model = mlp(6, 3)
    batch, bounds = batch_of(model, 2 * uniform(25, 6) - 0.5), (-0.5, 1.5)
    threat = Threat("L0", eps, bounds)
    with under_attack(model):
        found = ATTACKS[name](model, batch, threat, Noise.of(0, batch.ids), 8)
    assert bool(threat.contains(batch.x, found.z).all())
    logits = model(found.z)
    own = logits.gather(1, batch.y[:, None])[:, 0]
    lead = logits.scatter(1, batch.y[:, None], -torch.inf).amax(1) - own
    torch.testing.assert_close(lead, found.margin, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@every
@pytest.mark.rounding
def test_order_and_company_do_not_matter(name: str) -> None:
    model, threat = mlp(6, 3), Threat("L0", 2)
    batch = batch_of(model, uniform(20, 6))
    turned = torch.randperm(20, generator=torch.Generator().manual_seed(0))[:11]
    some = Batch(batch.x[turned], batch.y[turned], batch.ids[turned])
    with under_attack(model):
        whole = ATTACKS[name](model, batch, threat, Noise.of(0, batch.ids), 8)
        part = ATTACKS[name](model, some, threat, Noise.of(0, some.ids), 8)
    assert torch.equal(part.margin > 0, (whole.margin > 0)[turned])
    torch.testing.assert_close(part.z, whole.z[turned], rtol=1e-4, atol=1e-4)


@every
def test_values_that_are_not_finite_are_reported(name: str) -> None:
    """The attacks lower features, and below 0.3 the first one gives no logits."""

    def logits(x: Tensor) -> Tensor:
        both = torch.stack([x.sum(1), 0.1 + 0 * x[:, 0]], dim=1)
        return torch.where(x[:, :1] < 0.3, torch.nan, both)

    model = Function(logits)
    batch = Batch(torch.full((4, 3), 0.6), torch.zeros(4).long(), torch.arange(4))
    with under_attack(model):
        found = ATTACKS[name](model, batch, Threat("L0", 1), Noise.of(0, batch.ids), 4)
    assert not bool((found.margin.isnan() | (found.margin == torch.inf)).any())
    assert not bool(found.finite.all()), "a search that met NaN says so"


@pytest.mark.long
@pytest.mark.slow
def test_evaluate_and_curve_agree_and_never_rise_with_the_radius(tmp_path: Path) -> None:
    model, x = linear(40, 3), uniform(16, 40)
    data = x, model(x).argmax(1)
    curve = minimum_norm(model, data, Threat("L0", 6), SHORT, out=tmp_path)
    assert curve.radii == (1, 2, 3, 4, 5, 6)
    shares = [share.value for _, share in curve.curve()]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[-1]
    distances = curve.examples["distance"]
    assert all(distance == int(distance) for distance in distances if distance < float("inf"))
    for eps in (1, 3):
        outcome = evaluate(model, data, Threat("L0", eps), SHORT)
        broken = [verdict == "broken" for verdict in outcome.examples["verdict"]]
        assert sum(broken) >= sum(distance <= eps for distance in distances) - 1
        assert abs(outcome.robust_accuracy.value - curve.at(eps).value) <= 0.05
    assert (tmp_path / "curve-L0.json").exists()


@pytest.mark.parametrize("suite", ["pgd", "standard", "apgd-ce", QUICK])
def test_suites_of_other_norms_are_refused_in_l0(suite: Any) -> None:
    with pytest.raises(InputError, match="does not attack in L0.*Take the suite 'sparse'"):
        evaluate(mlp(6, 3), blobs(6), Threat("L0", 2), suite)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_sparse_suite_is_refused_in_other_norms(norm: Norm) -> None:
    with pytest.raises(InputError, match="'sparse' does not attack in L.*: Sigma-zero, Sparse-RS cannot"):
        evaluate(mlp(6, 3), blobs(6), Threat(norm, 0.1), SPARSE)
    with pytest.raises(InputError, match="does not attack"):
        minimum_norm(mlp(6, 3), blobs(6), Threat(norm, 0.1), "sparse")


def test_a_function_of_ones_own_may_attack_in_l0() -> None:
    def first_feature(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        z = x.clone()
        z[:, 0] = 1 - z[:, 0].round()
        return z

    own = Suite("own", (FunctionAttack("first", first_feature),), "a test")
    model = linear(3, seed=2)
    x = uniform(30, 3)
    outcome = evaluate(model, (x, model(x).argmax(1)), Threat("L0", 1), own)
    assert 0 < outcome.counts["broken"] < 30


def calls() -> dict[str, Callable[[Threat], object]]:
    model, data = mlp(6, 3), blobs(8)
    return {
        "train": lambda t: un.train(model, data, t, un.AT(), un.Recipe(epochs=1)),
        "robust_loss": lambda t: un.robust_loss(un.AT(), model, *data, t, step=0),
        "audit": lambda t: un.audit(model, data, t),
        "diagnose": lambda t: un.diagnose(model, data, t),
        "explain": lambda t: un.explain(model, data, t),
        "doctor": lambda t: un.doctor(model, data, t),
        "transfer": lambda t: un.transfer({"a": model, "b": mlp(6, 3, seed=1)}, data, t, SPARSE),
        "certify": lambda t: un.certify(model, data, t, 0.1),
        "quantize": lambda t: un.quantize(model, data, t, un.evaluate(model, data, t, SHORT)),
    }


@pytest.mark.parametrize("name", calls())
def test_what_is_not_sound_in_l0_refuses_it_with_the_reason(name: str) -> None:
    with pytest.raises(InputError, match="is not defined in L0, whose ball is not convex: use Linf, L2 or L1"):
        calls()[name](Threat("L0", 2))


def test_random_perturbations_and_attack_work_in_l0() -> None:
    model, data = linear(6, 3), blobs(30)
    found = un.probable_accuracy(model, data, Threat("L0", 2), (0.1,), draws=20)
    assert 0 < found.mean_accuracy.value <= 1
    z = un.attack(model, *data, Threat("L0", 2), SHORT)
    assert bool(Threat("L0", 2).contains(data[0], z).all())
