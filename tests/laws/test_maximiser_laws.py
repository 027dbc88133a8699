"""Laws of all maximisers; the classes are found by file, so that a new one is tested automatically."""

from dataclasses import is_dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import unperturbed.maximise
from support.examples import (
    NORMS,
    brief,
    bumpy_score,
    classes_in,
    find_classes,
    inputs_within,
    linear_score,
    make,
    make_bounds,
    modules_of,
)
from unperturbed.maximise.adam import Adam
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Norm, PerExample, Rows

MAXIMISERS = find_classes(unperturbed.maximise, Maximiser)
every_maximiser = pytest.mark.parametrize("kind", MAXIMISERS, ids=lambda kind: kind.__name__)
every_norm = pytest.mark.parametrize("norm", NORMS)


def case(norm: Norm, eps: float, box: str = "unit", n: int = 8, shape: tuple[int, ...] = (2, 3, 3), seed: int = 0,
         dtype: torch.dtype = torch.float32) -> tuple[Threat, Inputs, Noise]:  # fmt: skip
    threat = Threat(norm, eps, make_bounds(box, shape, dtype, seed))
    return threat, inputs_within(threat, n, shape, dtype, seed), Noise.of(seed, torch.arange(100, 100 + n))


def test_every_file_has_a_maximiser() -> None:
    for module in modules_of(unperturbed.maximise):
        assert module.__name__.endswith((".ascent", ".climb_queue", ".slopes")) or classes_in(module, Maximiser), (
            f"none found in {module.__name__}"
        )
    assert {PGD, Adam, FrankWolfe} <= set(MAXIMISERS)


@every_maximiser
def test_names_are_unique_and_values_are_frozen(kind: type) -> None:
    assert [other.name for other in MAXIMISERS].count(kind.name) == 1  # type: ignore[attr-defined]
    assert is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


@pytest.mark.slow
@every_maximiser
@given(
    seed=st.integers(0, 2**31),
    norm=st.sampled_from(NORMS),
    eps=st.sampled_from([0.0, 1e-3, 8 / 255, 0.3, 2.0, 12.0]),
    box=st.sampled_from(["unit", "per feature", "none"]),
    shape=st.sampled_from([(1,), (6,), (2, 3, 3)]),
    started=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=30, deadline=None)
def test_the_result_is_detached_and_inside_the_threat(
    kind: type, seed: int, norm: Norm, eps: float, box: str, shape: tuple[int, ...], started: bool, dtype: torch.dtype
) -> None:
    threat, x, noise = case(norm, eps, box, 5, shape, seed, dtype)
    start = threat.sample(x, noise.fold(9)) if started else None
    z = brief(kind)(bumpy_score(x, seed), x, threat, noise, start)
    assert z.shape == x.shape and z.dtype == dtype and not z.requires_grad and z.grad_fn is None
    assert threat.contains(x, z).all()
    if eps == 0:
        assert torch.equal(z, x)


@every_maximiser
@every_norm
def test_a_score_without_slope_gives_no_nan(kind: type, norm: Norm) -> None:
    threat, x, noise = case(norm, 0.5)
    z = brief(kind)(lambda z, rows: 0 * z.flatten(1).sum(1), x, threat, noise)
    assert threat.contains(x, z).all()


@pytest.mark.slow
@every_maximiser
@given(seed=st.integers(0, 2**31), norm=st.sampled_from(NORMS), box=st.sampled_from(["unit", "per feature", "none"]))
@settings(max_examples=15, deadline=None)
def test_a_linear_score_is_not_lowered(kind: type, seed: int, norm: Norm, box: str) -> None:
    """Neither from its own start nor, within the rounding of the score, from the best point itself."""
    threat, x, noise = case(norm, 0.4, box, seed=seed)
    score, rows = linear_score(x, seed), torch.arange(len(x))
    z = brief(kind)(score, x, threat, noise)
    assert (score(z, rows) >= score(x, rows) - 1e-5).all()
    z = brief(kind)(score, x, threat, noise, x)
    assert (score(z, rows) >= score(x, rows) - 1e-5).all()


@every_maximiser
@every_norm
@pytest.mark.parametrize("started", [False, True])
def test_the_callers_tensors_and_the_global_generators_are_untouched(kind: type, norm: Norm, started: bool) -> None:
    threat, x, noise = case(norm, 0.3, shape=(2, 4, 4))
    x = x.contiguous(memory_format=torch.channels_last)
    start = threat.sample(x, noise.fold(3)) if started else None
    score = linear_score(x, 1)
    given_tensors = [x, noise.keys, score.slope] + ([start] if start is not None else [])
    before = [(t.clone(), t.stride(), t._version) for t in given_tensors]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    z = brief(kind)(score, x, threat, noise, start)
    z.zero_()  # and the result is the caller's own: writing to it changes nothing else
    for tensor, (values, stride, version) in zip(given_tensors, before, strict=True):
        assert torch.equal(tensor, values) and tensor.stride() == stride and tensor._version == version
        assert not tensor.requires_grad and tensor.grad is None
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]


@every_maximiser
@every_norm
def test_the_result_does_not_depend_on_order_or_company(kind: type, norm: Norm) -> None:
    """Bit-identical in another order; the same up to float rounding in batches of another size.

    The score multiplies matrices whose rows are a multiple of 16 bytes long: at other lengths the processor's library
    rounds a row of a matrix product by the alignment of its place.
    """
    threat, x, noise = case(norm, 0.3, n=16, shape=(4, 2, 2))
    draw = torch.Generator().manual_seed(4)
    weights = torch.randn((16, 8), generator=draw)

    def score_of(ids: Rows):  # type: ignore[no-untyped-def]
        def score(z: Inputs, rows: Rows) -> PerExample:
            hidden = (z.flatten(1) @ weights).sin()
            return (hidden * torch.arange(1.0, 9.0)).sum(1) * (1 + ids[rows]) + z.flatten(1).square().sum(1)

        return score

    def run(rows: Tensor) -> Inputs:
        return brief(kind)(score_of(rows), x[rows], threat, noise.rows(rows))  # type: ignore[no-any-return]

    together = run(torch.arange(16))
    order = torch.randperm(16, generator=draw)
    assert torch.equal(run(order), together[order])
    apart = torch.cat([run(part) for part in torch.arange(16).split([1, 4, 11])])
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-4)


@every_maximiser
def test_the_noise_decides(kind: type) -> None:
    """The same noise gives the same point again."""
    threat, x, noise = case("L2", 0.3)
    first, again = (brief(kind)(bumpy_score(x, 3), x, threat, noise) for _ in range(2))
    assert torch.equal(first, again)


# How near to the optimum of a linear score: the maximum over S(x) is known exactly, box included.


def shortfall(maximiser: Maximiser, norm: Norm, shape: tuple[int, ...], eps: float, seed: int) -> Tensor:
    """Return the share of the possible gain that is missed, with a third of the pixels at the bounds."""
    threat, x, noise = case(norm, eps, n=6, shape=shape, seed=seed, dtype=torch.float64)
    score, rows = linear_score(x, seed), torch.arange(6)
    best = score(threat.maximise_linear(x, score.slope), rows)
    found = score(maximiser(score, x, threat, noise), rows)
    assert (found <= best + 1e-9 * best.abs()).all()
    return (best - found) / (best - score(x, rows))


@every_norm
@pytest.mark.parametrize(("shape", "radius"), [((5,), 1.0), ((1, 16, 16), 1.0), ((1, 16, 16), 0.1), ((1, 16, 16), 6.0)])
def test_pgd_reaches_the_optimum_of_a_linear_score(norm: Norm, shape: tuple[int, ...], radius: float) -> None:
    """In L2 the angle to the optimum shrinks by e^-a over a path of a radii: the default's 2.5 miss 1.3%."""
    eps = radius * {"Linf": 0.3, "L2": 2.0, "L1": 12.0}[norm]
    if norm == "L2":
        assert shortfall(PGD(steps=200, step_size=5 / 200), norm, shape, eps, seed=1).max() < 1e-3
    assert shortfall(PGD(steps=200), norm, shape, eps, seed=1).max() < (0.014 if norm == "L2" else 1e-3)


@every_norm
@pytest.mark.parametrize("shape", [(5,), (1, 16, 16)])
def test_frank_wolfe_is_exact_in_one_step_on_a_linear_score(norm: Norm, shape: tuple[int, ...]) -> None:
    assert shortfall(FrankWolfe(steps=1), norm, shape, 0.7, seed=2).abs().max() < 1e-12


def test_adam_comes_near_the_optimum_of_a_linear_score() -> None:
    assert shortfall(Adam(steps=10), "Linf", (1, 16, 16), 0.3, seed=3).max() < 0.01


@every_norm
def test_adam_climbs_in_every_norm(norm: Norm) -> None:
    """Its coordinates move at one speed, which suits the cube: on the balls it ends below the optimum."""
    assert shortfall(Adam(steps=40), norm, (12,), 0.5, seed=3).max() < 1


@pytest.mark.parametrize("kind", [k for k in MAXIMISERS if "steps" in getattr(k, "__dataclass_fields__", {})])
def test_passes_are_one_forward_a_step(kind: type) -> None:
    """The point that is returned is not looked at again."""
    threat, x, noise = case("Linf", 0.3)
    calls = []
    score = bumpy_score(x, 0)

    def counted(z: Inputs, rows: Rows) -> PerExample:
        calls.append(len(z))
        return score(z, rows)  # type: ignore[return-value]

    replace(make(kind), steps=5)(counted, x, threat, noise)
    assert calls == [len(x)] * 5
