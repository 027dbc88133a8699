"""Rounding to 8 bits: inside ball and box in integers, as near as possible, and reported correctly."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from support.toys import QUICK, Function, blobs
from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.data.named.digits import load as load_digits
from unperturbed.data.split import ArraySplit
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.grid import as_inputs, budget, check_eight_bit, levels_of, nearest, spent
from unperturbed.evaluation.quantize import Quantised, clear, quantize
from unperturbed.findings import Outcome
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Model, Norm

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")


def fits(levels: np.ndarray, k: np.ndarray, threat: Threat) -> bool:
    """Tell whether k/255 lies within eps of levels/255, in exact arithmetic; eps = m/255 in floats is m/255."""
    moved = [abs(int(a) - int(b)) for a, b in zip(levels.ravel(), k.ravel(), strict=True)]
    whole = round(threat.eps * 255)
    eps = Fraction(whole, 255) if whole / 255 == threat.eps else Fraction(threat.eps)
    if threat.norm == "L2":
        return Fraction(sum(m * m for m in moved), 255**2) <= eps**2
    return Fraction(max(moved) if threat.norm == "Linf" else sum(moved), 255) <= eps


def case(seed: int, norm: Norm, eps: float, d: int = 12, n: int = 5) -> tuple[Threat, Tensor, Tensor]:
    """Return a threat, levels (many at the ends of the box), and points of S(x) in levels, up to float32 rounding."""
    draw = torch.Generator().manual_seed(seed)
    threat = Threat(norm, eps, (0.0, 1.0) if seed % 2 else (torch.full((d,), 0.2), torch.full((d,), 0.7)))
    low, high = (0, 255) if seed % 2 else (51, 178)
    u = torch.randint(low - 40, high + 40, (n, d), generator=draw).clamp(low, high)
    x = as_inputs(u, torch.zeros(1))
    z = threat.project(x, x + eps * torch.randn(x.shape, generator=draw))
    return threat, u, z.double() * 255


radii = st.one_of(st.integers(0, 40).map(lambda m: m / 255), st.floats(0, 2, allow_subnormal=False))
cases = given(seed=st.integers(0, 2**31), norm=st.sampled_from(NORMS), eps=radii)


@pytest.mark.slow
@cases
def test_a_rounded_point_lies_in_ball_and_box_exactly(seed: int, norm: Norm, eps: float) -> None:
    threat, u, target = case(seed, norm, eps)
    k = nearest(u, target, threat)
    assert all(fits(a, b, threat) for a, b in zip(u.numpy(), k.numpy(), strict=True))
    x, z = as_inputs(u, torch.zeros(1)), as_inputs(k, torch.zeros(1))
    low, high = threat.limits(z)
    assert bool(((z >= low) & (z <= high)).all()) and bool((levels_of(z) == k).all())
    assert threat.contains(x, z).all()
    order = {"Linf": math.inf, "L2": 2, "L1": 1}[norm]
    assert bool(((k - u).double().div(255).norm(order, dim=1) <= threat.eps * (1 + 1e-15)).all())


@cases
def test_a_point_on_the_grid_stays(seed: int, norm: Norm, eps: float) -> None:
    threat, u, target = case(seed, norm, eps)
    k = nearest(u, target, threat)
    assert torch.equal(nearest(u, k.double(), threat), k)
    assert torch.equal(nearest(u, as_inputs(k, torch.zeros(1)).double() * 255, threat), k)


@cases
def test_what_fits_is_rounded_to_the_nearest(seed: int, norm: Norm, eps: float) -> None:
    threat, u, target = case(seed, norm, eps)
    k, plain = nearest(u, target, threat), target.round().long()
    for row in range(len(u)):
        if fits(u[row].numpy(), plain[row].numpy(), threat):
            assert torch.equal(k[row], plain[row])


@given(seed=st.integers(0, 2**31), norm=st.sampled_from(NORMS), radius=st.integers(0, 60))
def test_against_all_points_of_the_grid(seed: int, norm: Norm, radius: int) -> None:
    """Linf and L1: none is nearer. L2: none is nearer by more than two squared levels a pixel."""
    draw = torch.Generator().manual_seed(seed)
    threat = Threat(norm, radius / 20 / 255)
    u = torch.randint(100, 103, (1, 3), generator=draw)
    target = u + 3 * (2 * torch.rand(1, 3, generator=draw, dtype=torch.float64) - 1)
    grid = u + torch.tensor(list(product(range(-4, 5), repeat=3)))
    inside = grid[spent(u.expand_as(grid), grid, threat) <= budget(threat)]
    best = (inside - target).square().sum(1).min()
    found = (nearest(u, target, threat) - target).square().sum()
    assert found <= best + (6 if norm == "L2" else 1e-9)


@pytest.mark.parametrize("m", range(256))
def test_a_radius_in_levels_is_counted_in_whole_levels(m: int) -> None:
    assert [budget(Threat(norm, m / 255)) for norm in NORMS] == [m, m * m, m]
    assert budget(Threat.parse(f"Linf:{m}/255")) == m
    if m:
        below = Threat("Linf", math.nextafter(m / 255, 0))
        assert budget(below) == (m - 1 if Fraction(below.eps) * 255 < m else m)


def test_other_radii_are_rounded_down() -> None:
    assert budget(Threat("L2", 0.5)) == 16256 and budget(Threat("Linf", 0.03)) == 7
    assert budget(Threat("L1", 12.0)) == 3060 and budget(Threat("Linf", 0.5 / 255)) == 0


# Whole evaluations


@dataclass(frozen=True)
class Move(Attack):
    """Goes `levels` levels up in every pixel, or as far as 255."""

    levels: float
    label: str = "Move"
    restarts: int = 1

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        z = (batch.x + self.levels / 255).clamp(max=1)
        return AttackResult(z, margin(model(z), batch.y), torch.ones(len(z), dtype=torch.bool), batch.y * 0 + 1, len(z))


def moved(levels: float) -> Suite:
    return Suite("move", (Move(levels),), "a test")


def flat(function: Callable[[Tensor], Tensor]) -> Function:
    """Return a classifier of two classes whose margin for class 0 is `function` of the pixels."""

    def logits(x: Inputs) -> Tensor:
        value = function(x.flatten(1) * 255)
        return torch.stack([torch.zeros_like(value), value], 1)

    return Function(logits)


def images(n: int, channels: int = 3, side: int = 4, seed: int = 0, most: int = 256) -> ArraySplit:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, most, (n, channels, side, side), generator=draw, dtype=torch.uint8)
    return ArraySplit(x, torch.zeros(n, dtype=torch.int64))


def linear_images(n: int, channels: int) -> tuple[nn.Module, ArraySplit]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, 3))
    split = images(n, channels)
    split.labels = model(split.inputs(torch.arange(n))).argmax(1)
    return model, split


@pytest.mark.parametrize("norm,eps", [("Linf", 24 / 255), ("L2", 0.3), ("L1", 1.0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_read_back_as_what_was_evaluated(norm: Norm, eps: float, channels: int, tmp_path: Path) -> None:
    model, split = linear_images(60, channels)
    threat = Threat(norm, eps)
    outcome = evaluate(model, split, threat, QUICK, out=tmp_path)
    before = outcome.json()
    quantised = quantize(model, split, threat, outcome, out=tmp_path)
    assert outcome.json() == before and quantised.images is None
    with (tmp_path / "pgd/png/index.csv").open() as file:
        index = list(csv.DictReader(file))
    assert len(index) == outcome.counts["broken"] == sum(quantised.counts.values()) > 10
    assert quantised.counts["broken"] > 0.8 * len(index) and quantised.counts["unknown"] == 0
    for row in index:
        number = int(row["id"])
        pixels = np.asarray(Image.open(tmp_path / f"pgd/png/{number:05d}.png"))
        k = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
        u = split.stored[number].numpy()
        assert fits(u, k, threat)
        steps = torch.from_numpy(k.astype(np.float64) - u).flatten() / 255
        order = {"Linf": math.inf, "L2": 2, "L1": 1}[norm]
        assert float(row["distance"]) == pytest.approx(float(steps.norm(order)), rel=1e-12)
        logits = model(torch.from_numpy(k.copy()).float().div_(255)[None])
        assert int(logits.argmax()) == int(row["prediction"])
        assert (row["verdict"] == "broken") == bool(logits.argmax() != split.labels[number])
    files = {path.name for path in (tmp_path / "pgd/png").iterdir()}
    assert files == {"index.csv", *(f"{int(row['id']):05d}.png" for row in index)}
    standing = outcome.counts["survived"] + quantised.counts["survived"]
    assert quantised.robust_accuracy.value == standing / 60 >= outcome.robust_accuracy.value
    assert json.loads((tmp_path / "pgd-8bit.json").read_text()) == json.loads(json.dumps(quantised.json()))

    clear(tmp_path, "pgd")
    assert not list((tmp_path / "pgd/png").iterdir()) and not (tmp_path / "pgd-8bit.json").exists()
    assert list((tmp_path / "pgd").glob("part-*"))


@pytest.mark.slow
def test_in_memory_and_from_the_folder_are_the_same(tmp_path: Path) -> None:
    model, split = linear_images(60, 3)
    threat = Threat("L2", 0.3)
    alone = quantize(model, split, threat, evaluate(model, split, threat, QUICK))
    written = quantize(model, split, threat, evaluate(model, split, threat, QUICK, out=tmp_path), out=tmp_path)
    assert alone.examples == written.examples and alone.images is not None
    assert alone.images.dtype == torch.uint8 and len(alone.images) == len(alone.examples["id"])


def run(model: nn.Module, levels: float, split: ArraySplit, eps: float = 2 / 255) -> tuple[Outcome, Quantised]:
    threat = Threat("Linf", eps)
    outcome = evaluate(model, split, threat, moved(levels))
    return outcome, quantize(model, split, threat, outcome)


def test_a_network_that_breaks_between_the_levels_only_is_told() -> None:
    outcome, quantised = run(flat(lambda v: (v * math.pi).sin().abs().mean(1) - 0.5), 0.4, images(12, most=200))
    assert outcome.counts["broken"] == 12 and outcome.robust_accuracy.value == 0
    assert quantised.counts == {"broken": 0, "survived": 12, "unknown": 0}
    assert quantised.robust_accuracy.value == 1 and set(quantised.examples["verdict"]) == {"survived"}


def test_pixels_are_rounded_along_the_gradient_where_the_nearest_is_lost() -> None:
    """0.4 levels up in each pixel is enough; the nearest grid point is the original itself."""
    split = images(6, most=200)
    split.stored[:] = split.stored[:1]
    start = split.stored[0].float().sum()
    outcome, quantised = run(flat(lambda v: v.sum(1) - start - 5), 0.4, split)
    assert outcome.counts["broken"] == quantised.counts["broken"] == 6
    assert quantised.examples["rounding"] == ["gradient"] * 6 and quantised.examples["distance"] == [1 / 255] * 6


def test_pixels_are_rounded_at_random_where_there_is_no_gradient() -> None:
    """0.4 levels up in one pixel of 100: at 101 the network breaks, and its gradient is 0 everywhere."""
    split = ArraySplit(torch.full((40, 1, 1, 1), 100, dtype=torch.uint8), torch.zeros(40, dtype=torch.int64))
    outcome, quantised = run(flat(lambda v: (v[:, 0] > 100.2).float() * 2 - 1 + 0 * v[:, 0]), 0.4, split)
    assert outcome.counts["broken"] == 40
    won = quantised.examples["rounding"].count("random")
    assert quantised.counts["broken"] == won and 25 <= won < 40  # 1 - 0.6^4 = 87%
    assert quantised.examples["rounding"].count("nearest") == 40 - won == quantised.counts["survived"]


def test_values_that_are_not_finite_after_rounding_are_unknown() -> None:
    split = ArraySplit(torch.full((4, 1, 1, 1), 100, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))

    def value(v: Tensor) -> Tensor:
        return torch.where((v[:, 0] - 101).abs() < 0.1, torch.nan, v[:, 0] - 100.3)

    outcome, quantised = run(flat(value), 0.6, split, eps=1 / 255)
    assert outcome.counts["broken"] == 4 and quantised.counts == {"broken": 0, "survived": 0, "unknown": 4}
    assert quantised.robust_accuracy.value == 0 and quantised.robust_accuracy.high == 1


def test_a_network_in_float64() -> None:
    model, split = linear_images(30, 3)
    threat = Threat("Linf", 8 / 255)
    outcome = evaluate(model.double(), split, threat, QUICK)
    quantised = quantize(model, split, threat, outcome)
    assert quantised.counts["broken"] > 0.8 * outcome.counts["broken"] > 5


def test_no_broken_example_gives_an_empty_index(tmp_path: Path) -> None:
    model, split = linear_images(5, 3)
    outcome = evaluate(model, split, Threat("Linf", 0.0), QUICK, out=tmp_path)
    quantised = quantize(model, split, Threat("Linf", 0.0), outcome, out=tmp_path)
    assert quantised.robust_accuracy.value == 1
    assert (tmp_path / "pgd/png/index.csv").read_text().splitlines() == [
        "id,label,prediction,verdict,rounding,distance"
    ]


def test_floats_on_the_grid_count_as_8_bit_images() -> None:
    x = images(3).inputs(torch.arange(3))
    check_eight_bit(ArraySplit(x, torch.zeros(3, dtype=torch.int64)))


@pytest.mark.parametrize(
    "split",
    [
        load_digits().train,
        ArraySplit(torch.full((2, 1, 2, 2), torch.nan), torch.zeros(2, dtype=torch.int64)),
        ArraySplit(torch.full((2, 1, 2, 2), 256 / 255), torch.zeros(2, dtype=torch.int64)),
        ArraySplit(*blobs(3)),
        images(2, channels=2),
    ],
)
def test_what_is_no_8_bit_image_is_refused_with_the_remedy(split: ArraySplit) -> None:
    with pytest.raises(InputError, match="8-bit images .PNG files, or uint8 arrays."):
        check_eight_bit(split)


def test_an_outcome_of_something_else_is_refused(tmp_path: Path) -> None:
    model, split = linear_images(8, 3)
    threat = Threat("Linf", 8 / 255)
    outcome = evaluate(model, split, threat, QUICK, out=tmp_path)
    with pytest.raises(InputError, match="other weights"):
        quantize(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), split, threat, outcome, out=tmp_path)
    with pytest.raises(InputError, match="Linf:8/255, not of L2"):
        quantize(model, split, Threat("L2", 8 / 255), outcome, out=tmp_path)
    with pytest.raises(InputError, match="other examples"):
        quantize(model, ArraySplit(split.stored, 2 - split.labels), threat, outcome, out=tmp_path)
    with pytest.raises(InputError, match="give it as out"):
        quantize(model, split, threat, replace(outcome, adversarial=None))


def test_means_over_draws_are_refused() -> None:
    """An example that most draws classify correctly would count as robust, though a share of the draws is wrong."""
    model, split = linear_images(8, 3)
    threat = Threat("Linf", 8 / 255)
    means = Suite("means", (GradientAttack("margin", margin, PGD(steps=2), draws=2),), "a test")
    with pytest.raises(InputError, match="means over draws"):
        quantize(model, split, threat, evaluate(model, split, threat, means))
