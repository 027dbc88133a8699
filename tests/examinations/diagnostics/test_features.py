"""Relative changes of the features: in closed form on linear and two-layer networks, and laws on others."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from support.architectures import BUILDERS, SHAPE, built, images
from support.examples import untouched
from unperturbed.examinations.diagnostics.features import KINDS, feature_changes, gaussian_noise, uniform_noise
from unperturbed.examinations.subject import Subject
from unperturbed.findings import Distribution, Finding, Line
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Bounds, Inputs, Norm

IDS = torch.tensor([7, 3, 11, 20, 5, 8])


def subject(model: nn.Module, x: Inputs, threat: Threat, ids: Tensor = IDS, batch_size: int = 4) -> Subject:
    return Subject("a model", model, Batch(x, torch.zeros_like(ids), ids), None, threat, 3, batch_size=batch_size)


def line(finding: Finding, name: str) -> Line:
    (found,) = [line for line in finding.lines if line.name == name]
    return found


def values(finding: Finding, name: str) -> dict[int, float]:
    (found,) = [each for each in finding.distributions if each.name == name]
    assert isinstance(found, Distribution)
    return dict(zip(found.ids, found.values, strict=True))


def flat(n: int = 6, d: int = 5) -> Inputs:
    draw = torch.Generator().manual_seed(1)
    return torch.rand(n, d, generator=draw, dtype=torch.float64)


def two_layers(d: int = 5) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(d, 8), nn.ReLU(), nn.Linear(8, 3)).double()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_changes_and_amplification_of_a_two_layer_network_are_the_formulas(norm: Norm) -> None:
    model, x = two_layers(), flat()
    given = subject(model, x, Threat(norm, 0.2))
    finding = feature_changes(given)
    z = given.worst_test
    hidden = [model[0](point) for point in (x, z)]
    steps = [(x, z), (hidden[0], hidden[1]), (model(x), model(z))]
    rho = torch.stack([(b - a).norm(dim=1) / a.norm(dim=1) for a, b in steps], dim=1).detach()

    expected = {int(i): float(v) for i, v in zip(IDS, rho[:, 1:].log().mean(1), strict=True)}
    assert values(finding, "feature change, worst case") == pytest.approx(expected, abs=1e-9)
    change = line(finding, "relative change of the features, worst case")
    assert change.x == ("input", "0", "logits")
    assert change.y == pytest.approx(rho.quantile(0.5, dim=0).tolist())
    assert change.low == pytest.approx(rho.quantile(0.25, dim=0).tolist())
    assert change.high == pytest.approx(rho.quantile(0.75, dim=0).tolist())
    amplified = line(finding, "amplification from block to block, worst case")
    assert amplified.x == ("0", "logits")
    assert amplified.y == pytest.approx((rho[:, 1:] / rho[:, :-1]).quantile(0.5, dim=0).tolist())
    highest = line(finding, "95th percentile of the relative change, worst case")
    assert highest.y == pytest.approx(rho.quantile(0.95, dim=0).tolist())
    mean = {number.name: number for number in finding.numbers}["feature change, worst case: mean"]
    assert mean.value == pytest.approx(float(rho[:, 1:].log().mean())) and mean.n == 6 and mean.unit == "log"


def test_an_isometry_changes_its_input_and_output_alike() -> None:
    """A scaled orthogonal map without bias: rho is the input's own under every perturbation, amplification 1."""
    q, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    model = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(3 * q)
        model[1].weight.copy_(q.T / 7)
    finding = feature_changes(subject(model, flat(), Threat("Linf", 0.1)))
    for kind in KINDS:
        assert line(finding, f"amplification from block to block, {kind}").y == pytest.approx((1.0, 1.0))
        change = line(finding, f"relative change of the features, {kind}").y
        assert change[0] == pytest.approx(change[1]) == pytest.approx(change[2])
    worst, gaussian = (values(finding, f"feature change, {kind}") for kind in ("worst case", "Gaussian noise"))
    assert worst == pytest.approx(gaussian)  # because both are equally long
    numbers = {number.name: number.value for number in finding.numbers}
    assert numbers["feature change, worst case less Gaussian noise: mean"] == pytest.approx(0.0, abs=1e-9)
    assert "1 times as much" in finding.summary


@given(
    seed=st.integers(0, 1000),
    share=st.floats(0.0, 1.0),
    bounds=st.sampled_from([(0.0, 1.0), None, (torch.zeros(4), torch.tensor([1.0, 2.0, 0.0, 0.5]))]),
)
def test_gaussian_noise_is_as_long_as_it_should_be_and_stays_in_the_box(
    seed: int, share: float, bounds: Bounds
) -> None:
    threat, noise = Threat("L2", 1.0, bounds), Noise.of(seed, torch.arange(3))
    draw = torch.Generator().manual_seed(seed)
    low, high = threat.limits(torch.zeros(3, 4, dtype=torch.float64)) if bounds else (torch.zeros(()), torch.ones(()))
    x = low + (torch.rand(3, 4, generator=draw, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1) * (high - low)
    g = noise.normal((4,), torch.float64)
    reach = torch.where(g > 0, high - x, x - low) if bounds else torch.full_like(x, 10.0)
    length = share * reach.norm(dim=1)
    z = gaussian_noise(x, length, threat, noise)
    torch.testing.assert_close((z - x).norm(dim=1), length, rtol=1e-9, atol=1e-9)
    if bounds:
        assert bool(((z >= low) & (z <= high)).all())
    assert bool(((z - x) * g >= 0).all())
    # what no wall holds is a multiple of the noise
    ratio = ((z - x) / g).masked_fill((z - x).abs() >= reach - 1e-9, -torch.inf)
    for row in ratio:
        free = row[row.isfinite()]
        torch.testing.assert_close(free, free[:1].expand_as(free), rtol=1e-6, atol=1e-9)


def test_gaussian_noise_that_the_box_cannot_hold_goes_as_far_as_it_can() -> None:
    x = torch.full((2, 3), 0.5)
    z = gaussian_noise(x, torch.tensor([9.0, 0.0]), Threat("L2", 9.0), Noise.of(0, torch.arange(2)))
    assert torch.equal((z - x).abs(), torch.tensor([[0.5] * 3, [0.0] * 3]))


def test_uniform_noise_fills_what_the_box_leaves_of_the_cube() -> None:
    x = torch.tensor([0.0, 0.5, 1.0]).repeat(20_000, 1)
    z = uniform_noise(x, torch.full((20_000,), 0.2), Threat("Linf", 0.2), Noise.of(0, torch.arange(20_000)))
    low, high = torch.tensor([0.0, 0.3, 0.8]), torch.tensor([0.2, 0.7, 1.0])
    assert bool(((z >= low - 1e-6) & (z <= high + 1e-6)).all())
    torch.testing.assert_close(z.mean(0), (low + high) / 2, atol=0.005, rtol=0)
    torch.testing.assert_close(z.std(0), (high - low) / math.sqrt(12), atol=0.005, rtol=0)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_style_of_network_goes_through(name: str) -> None:
    model, ids = built(name), torch.arange(6)
    given = subject(model, images(6), Threat("Linf", 4 / 255), ids)
    with untouched(model):
        finding = feature_changes(given)
    assert not [note for note in finding.notes if "left out" in note]
    for kind in KINDS:
        found = values(finding, f"feature change, {kind}")
        assert sorted(found) == list(range(6)) and all(map(math.isfinite, found.values()))
        shown = line(finding, f"relative change of the features, {kind}")
        assert len(shown.x) == len(shown.y) and None not in shown.y


@pytest.mark.parametrize("name", ["torchvision", "sequence first", "grouped"])
def test_neither_places_nor_order_matter(name: str) -> None:
    model, x, ids = built(name, torch.float64), images(6, torch.float64), torch.tensor([4, 9, 2, 30, 1, 6])
    threat = Threat("Linf", 4 / 255)
    one = feature_changes(subject(model, x, threat, ids))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    other = feature_changes(subject(model, x[order], threat, ids[order], batch_size=3))
    for kind in KINDS:
        expected = values(one, f"feature change, {kind}")
        assert values(other, f"feature change, {kind}") == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_in_place_change_nothing(dtype: torch.dtype) -> None:
    def network(inplace: bool) -> nn.Sequential:
        torch.manual_seed(0)
        middle = nn.Sequential(
            nn.BatchNorm2d(4), nn.ReLU(inplace=inplace), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=inplace)
        )
        return nn.Sequential(nn.Conv2d(3, 4, 3), *middle, nn.Flatten(), nn.Linear(64, 3)).to(dtype)

    with torch.random.fork_rng([]):
        plain, in_place = network(False), network(True)
    x = images(6, dtype)
    a, b = (feature_changes(subject(model, x, Threat("Linf", 0.05))) for model in (plain, in_place))
    assert a.distributions == b.distributions and a.lines == b.lines


def test_features_of_length_0_or_not_finite_are_counted_apart() -> None:
    class Odd(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            h = h.clone()
            h[h[:, 0] > 100] = 0
            h[h[:, 0] < -100] = torch.inf
            return h

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.odd, self.b = nn.Linear(5, 5), Odd(), nn.Linear(5, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(self.odd(self.a(x)))
            return out

    model = nn.Sequential(Shifted(), nn.Linear(5, 3)).double()
    x = flat()
    x[2] *= 1e5
    x[4] *= -1e5
    with torch.no_grad():
        model[0].a.weight.copy_(torch.eye(5))
        model[0].b.weight.copy_(torch.eye(5))
    finding = feature_changes(subject(model, x, Threat("Linf", 0.1, bounds=None)))
    for kind in KINDS:
        (found,) = [d for d in finding.distributions if d.name == f"feature change, {kind}"]
        assert found.missing == 2 and set(found.ids) == set(IDS.tolist()) - {int(IDS[2]), int(IDS[4])}
        assert all(map(math.isfinite, found.values))
    assert any(note.startswith("0: no logarithm") and "on 2 of 6 examples" in note for note in finding.notes)


def test_a_block_that_the_input_never_moves_does_not_cost_the_others() -> None:
    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.side, self.main, self.head = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.main(x) + self.side(torch.zeros_like(x)))
            return out

    finding = feature_changes(subject(Side().double(), flat(), Threat("Linf", 0.1)))
    assert len(values(finding, "feature change, worst case")) == 6
    assert any(note.startswith("side: ") and "the means over the blocks exclude it" in note for note in finding.notes)
    change = line(finding, "relative change of the features, worst case")
    assert [place for place, value in zip(change.x, change.y, strict=True) if value is None] == ["side"]


def test_a_threat_of_size_0_leaves_nothing_to_compare() -> None:
    finding = feature_changes(subject(two_layers(), flat(), Threat("Linf", 0.0)))
    assert [found.missing for found in finding.distributions] == [6, 6, 6]
    assert finding.summary.startswith("No change")


def test_images_of_any_memory_layout_give_the_same() -> None:
    model, x = built("grouped"), images(6)
    given = subject(model, x, Threat("Linf", 0.05))
    plain = replace(given, test=Batch(x.contiguous(), given.test.y, given.test.ids))
    a, b = feature_changes(given), feature_changes(plain)
    for kind in KINDS:
        name = f"feature change, {kind}"
        assert values(a, name) == pytest.approx(values(b, name), abs=1e-3)
    assert x.shape[1:] == SHAPE
