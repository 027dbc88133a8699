"""PRL, TERM, noise augmentation and smoothing against their formulas, typed again here."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from support.examples import make_batch, network, noise_for, smoothed
from unperturbed.errors import InputError
from unperturbed.methods import random_noise
from unperturbed.methods.base import Method
from unperturbed.methods.erm import ERM
from unperturbed.methods.prl import PRL, cvar
from unperturbed.methods.random_noise import RandomNoise
from unperturbed.methods.smoothing import Smoothing
from unperturbed.methods.term import TERM
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, Terms

BATCH = make_batch(8, torch.float64)
THREAT = Threat("Linf", 0.2)
NOISE = noise_for(BATCH)
ROWS = torch.arange(8)


def both(method: Method, model: Model, batch: Batch = BATCH) -> tuple[Inner, Terms]:
    with under_attack(model):
        inner = method.perturb(model, batch, THREAT, NOISE)
    with torch.no_grad():
        return inner, method.loss(model, batch, inner, THREAT, NOISE)


# CVaR


@given(seed=st.integers(0, 2**31), m=st.integers(1, 12), beta=st.floats(0.05, 1.0))
def test_cvar_is_the_least_of_its_variational_form(seed: int, m: int, beta: float) -> None:
    """min over t of t + mean((l - t)_+) / beta; convex and piecewise linear in t, so least at one of the losses."""
    losses = torch.randn(m, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    beta = max(beta, 1 / m)
    of_t = losses[:, None] + (losses[None] - losses[:, None]).clamp(min=0).mean(1, keepdim=True) / beta
    torch.testing.assert_close(cvar(losses, beta * m), of_t[:, 0].amin(0))


def test_cvar_lies_between_mean_and_maximum() -> None:
    losses = torch.randn(20, 5, dtype=torch.float64)
    torch.testing.assert_close(cvar(losses, 20.0), losses.mean(0))
    torch.testing.assert_close(cvar(losses, 1.0), losses.amax(0))
    torch.testing.assert_close(cvar(losses, 0.4), losses.amax(0))


@pytest.mark.parametrize(("beta", "samples"), [(0.5, 20), (0.3, 7), (1.0, 4), (0.1, 10)])
def test_prl_is_the_mean_cvar_of_all_draws(beta: float, samples: int) -> None:
    """Though only the worst draws are trained on."""
    model = network("plain", torch.float64)
    inner, terms = both(PRL(beta, samples), model)
    draws = torch.stack([THREAT.sample(BATCH.x, NOISE.fold(k)) for k in range(samples)])
    losses = torch.stack([-model(z).softmax(1)[ROWS, BATCH.y].log() for z in draws]).detach()
    expected = torch.stack([t + (losses - t).clamp(min=0).mean(0) / beta for t in losses]).amin(0)
    torch.testing.assert_close(terms["tail"], expected.mean())
    assert len(inner.z) == math.ceil(beta * samples - 1e-9)


def test_a_share_of_less_than_one_draw_is_refused_with_the_number_that_would_do() -> None:
    """It would be that of the worst draw, whatever was asked for."""
    with pytest.raises(InputError, match="less than one of 20 draws: give samples of at least 100"):
        PRL(0.01, 20)
    PRL(0.01, 100)


def test_prl_on_smoothed_labels() -> None:
    model = network("plain", torch.float64)
    batch = smoothed(BATCH)
    inner, terms = both(PRL(1.0, 4), model, batch)
    losses = torch.stack([-(batch.targets * model(z).log_softmax(1)).sum(1) for z in inner.z])
    torch.testing.assert_close(terms["tail"], losses.mean().detach())


# TERM


def test_term_is_the_tilted_mean() -> None:
    model = network("plain", torch.float64)
    losses = -model(BATCH.x).softmax(1)[ROWS, BATCH.y].log().detach()
    for tilt in (2.0, -1.5, 0.1):
        _, terms = both(TERM(tilt), model)
        torch.testing.assert_close(terms["tilted"], (tilt * losses).exp().mean().log() / tilt)
    torch.testing.assert_close(both(TERM(1e-6), model)[1]["tilted"], losses.mean(), rtol=1e-4, atol=0)
    torch.testing.assert_close(both(TERM(1e4), model)[1]["tilted"], losses.max(), rtol=1e-3, atol=0)
    torch.testing.assert_close(both(ERM(), model)[1]["clean"], losses.mean())


# Noise


def test_noise_is_cross_entropy_at_a_uniform_point_of_the_cut_cube() -> None:
    model = network("plain", torch.float64)
    inner, terms = both(RandomNoise(), model)
    low, high = (BATCH.x - 0.2).clamp(min=0), (BATCH.x + 0.2).clamp(max=1)
    z = low + NOISE.uniform(BATCH.x.shape[1:], torch.float64) * (high - low)
    torch.testing.assert_close(inner.z, z)
    torch.testing.assert_close(terms["noisy"], -model(z).softmax(1)[ROWS, BATCH.y].log().mean().detach())


def test_the_worked_example_of_the_pages_is_this_file() -> None:
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    code = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0]
    assert Path(random_noise.__file__).read_text() == code


def test_smoothing_is_cross_entropy_under_gaussian_noise_that_is_not_cut() -> None:
    model = network("plain", torch.float64)
    batch = make_batch(400, torch.float64)
    method, noise = Smoothing(sigma=0.5), noise_for(batch)
    inner = method.perturb(model, batch, THREAT, noise)
    moved = (inner.z - batch.x).flatten() / 0.1
    assert kstest(moved.numpy(), norm.cdf).pvalue > 1e-3 and inner.z.min() < 0 and inner.z.max() > 1
    with torch.no_grad():
        terms = method.loss(model, batch, inner, THREAT, noise)
        expected = -model(inner.z).softmax(1)[torch.arange(400), batch.y].log().mean()
    torch.testing.assert_close(terms["noisy"], expected)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (PRL, {"beta": 0.0}, "beta is 0.0"),
        (PRL, {"beta": 1.1}, "beta is 1.1"),
        (PRL, {"samples": 0}, "samples is 0"),
        (TERM, {"tilt": 0.0}, "tilt is 0.0"),
        (TERM, {"tilt": math.inf}, "tilt is inf"),
        (RandomNoise, {"size": -1.0}, "size is -1"),
        (RandomNoise, {"size": math.nan}, "size is nan"),
        (RandomNoise, {"size": math.inf}, "size is inf, but must be finite"),
        (Smoothing, {"sigma": math.inf}, "sigma is inf"),
        (Smoothing, {"sigma": -1.0}, "sigma is -1"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**settings)
