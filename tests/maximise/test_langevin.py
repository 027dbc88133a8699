"""The sampler's law where it is known, and its special cases."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from support.examples import NORMS, bumpy_score, inputs_within, linear_score
from unperturbed.errors import InputError
from unperturbed.losses import cross_entropy, log_wrong
from unperturbed.maximise.ascent import search
from unperturbed.maximise.langevin import Langevin
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Norm, PerExample, Rows

ROWS = torch.arange(6)
NOISE = Noise.of(0, ROWS + 50)
X = inputs_within(Threat("Linf", 0.1), 6, (2, 3, 3), torch.float64, 0)


@dataclass(frozen=True)
class Quadratic:
    """z -> -bend / 2 |z - centre|^2, with its own gradient."""

    bend: float
    centre: float

    def __call__(self, z: Inputs, rows: Rows) -> PerExample:
        return -self.bend / 2 * (z - self.centre).square().flatten(1).sum(1)


# The law


@pytest.mark.parametrize("law", ["gaussian", "laplacian"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_plain_steps_reach_the_stationary_mean_and_variance_of_the_discretised_dynamics(law: str, norm: Norm) -> None:
    """z <- z + eta u + sqrt(2 eta T) v with u = -bend (z - m): mean m, variance 2 eta T / (1 - (1 - eta bend)^2).

    The steps are long, so that the variance is far from T / bend, which infinitely short steps would give.
    """
    d, eps, bend, centre, temperature = 4, 50.0, 3.0, 0.7, 0.5
    threat = Threat(norm, eps, None)
    x = torch.zeros(10_000, d, dtype=torch.float64)
    eta = 0.4 / bend
    chain = Langevin(60, eta / threat.even_share(x) ** 2, temperature, law, "plain", random_start=False)
    z = chain(Quadratic(bend, centre), x, threat, Noise.of(0, torch.arange(len(x))))
    variance = 2 * eta * temperature / (1 - (1 - eta * bend) ** 2)
    assert variance > 1.2 * temperature / bend
    count = z.numel()
    assert abs(float(z.mean()) - centre) < 4 * (variance / count) ** 0.5
    assert abs(float(z.var()) / variance - 1) < 4 * (3 / count) ** 0.5
    assert float(torch.corrcoef(z.T).fill_diagonal_(0).abs().max()) < 0.05, "features are independent"


@pytest.mark.slow
def test_in_a_small_ball_the_projected_chain_has_the_truncated_density() -> None:
    """density exp(U / T) on [x - eps, x + eps], in total variation."""
    threat, temperature = Threat("Linf", 1.0, None), 0.5
    x = torch.zeros(20_000, 1, dtype=torch.float64)
    score = Quadratic(2.0, 0.6)
    z = Langevin(600, 0.002, temperature, move="plain")(score, x, threat, Noise.of(1, torch.arange(len(x))))
    bins = 20
    found = torch.histc(z, bins, -1, 1) / len(z)
    fine = torch.linspace(-1, 1, 100 * bins + 1, dtype=torch.float64)
    middles = ((fine[1:] + fine[:-1]) / 2)[:, None]
    density = (score(middles, ROWS) / temperature).exp().view(bins, 100).sum(1)
    density /= density.sum()
    assert density.max() > 3 * density.min(), "the density is not flat"
    assert float((found - density).abs().sum()) / 2 < 0.05


@pytest.mark.parametrize("move", ["plain", "sign", "noisy-sign"])
@pytest.mark.parametrize("law", ["gaussian", "laplacian"])
def test_lengths_are_in_units_of_eps(move: str, law: str) -> None:
    """The same picture in other units, or with the potential and the temperature scaled alike, has the same chain."""
    chain = Langevin(5, 0.2, 0.1, law, move)
    x, score = X - 0.5, bumpy_score(X, 1)
    expected = chain(score, x, Threat("Linf", 0.3, None), NOISE)
    wider = chain(lambda z, rows: score(z / 10, rows), 10 * x, Threat("Linf", 3.0, None), NOISE)
    torch.testing.assert_close(wider / 10, expected, rtol=0, atol=1e-9)
    if move != "sign":
        hot = Langevin(5, 0.2 / (7 if move == "plain" else 1), 0.1 * 7 ** (1 if move == "plain" else 2), law, move)
        found = hot(lambda z, rows: 7 * score(z, rows), x, Threat("Linf", 0.3, None), NOISE)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


# Moves


def slope(z: Inputs) -> Tensor:
    z = z.clone().requires_grad_()
    return torch.autograd.grad(bumpy_score(X, 1)(z, ROWS).sum(), z)[0]  # type: ignore[union-attr]


@pytest.mark.parametrize("law", ["gaussian", "laplacian"])
@pytest.mark.parametrize("move", ["plain", "sign", "noisy-sign"])
def test_moves_as_published(law: str, move: str) -> None:
    """Written by hand: c N or c L next to the sign, inside it, or next to the gradient, each with its own draw."""
    eps, h, temperature = 0.3, 0.25, 0.05
    z = X.clone()
    keys = Noise(NOISE.fold(-1).keys)
    for k in range(4):
        stream = keys.fold(k)
        v = stream.normal(X.shape[1:], X.dtype) if law == "gaussian" else stream.laplacian(X.shape[1:], X.dtype)
        eta = h * eps**2
        c = (2 * eta * temperature) ** 0.5
        if move == "plain":
            z = z + eta * slope(z) + c * v
        elif move == "sign":
            z = z + h * eps * slope(z).sign() + c * v
        else:
            z = z + h * eps * (slope(z) + c / eta * v).sign()
        z = (X + (z - X).clamp(-eps, eps)).clamp(0, 1)
    found = Langevin(4, h, temperature, law, move, random_start=False)(bumpy_score(X, 1), X, Threat("Linf", eps), NOISE)
    torch.testing.assert_close(found, z, rtol=0, atol=1e-12)


# Special cases


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("law", ["gaussian", "laplacian"])
@pytest.mark.parametrize("move", ["sign", "noisy-sign"])
@pytest.mark.parametrize("random_start", [True, False])
def test_without_noise_it_is_pgd(norm: Norm, law: str, move: str, random_start: bool) -> None:
    threat, score = Threat(norm, {"Linf": 0.1, "L2": 0.5, "L1": 2.0}[norm]), bumpy_score(X, 1)
    for step_size in (None, 0.3):
        cold = Langevin(6, step_size, 0.0, law, move, random_start)
        assert torch.equal(cold(score, X, threat, NOISE), PGD(6, step_size, random_start)(score, X, threat, NOISE))


def test_a_single_step_without_noise_is_fgsm() -> None:
    threat, score = Threat("Linf", 0.1), linear_score(X, 2)
    one = Langevin(steps=1, step_size=1.0, temperature=0.0, random_start=False)
    assert torch.equal(one(score, X, threat, NOISE), threat.maximise_linear(X, score.slope))


@pytest.mark.parametrize("norm", NORMS)
def test_no_steps_are_uniform_noise(norm: Norm) -> None:
    threat = Threat(norm, 0.1)
    assert torch.equal(Langevin(steps=0)(bumpy_score(X, 1), X, threat, NOISE), threat.sample(X, NOISE))


@pytest.mark.parametrize("move", ["sign", "noisy-sign"])
def test_with_signs_both_potentials_of_a_binary_problem_give_one_trajectory(move: str) -> None:
    """grad log(1 - p) is a positive multiple of grad CE, so without noise the chains are the same (p_y < 1)."""
    weights = torch.randn(18, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.arange(6) % 5
    ends = [
        Langevin(7, temperature=0.0, move=move)(
            lambda z, rows, loss=loss: loss((z.flatten(1) @ weights).sin() * 3, y[rows]), X, Threat("Linf", 0.2), NOISE
        )
        for loss in (log_wrong, cross_entropy)
    ]
    assert torch.equal(*ends)


# In a search


def test_a_search_gives_each_climb_and_each_restart_noise_of_its_own() -> None:
    """The iterate of a climb is that of the chain alone with the climb's noise, wherever and whenever it runs."""
    threat, chain = Threat("Linf", 0.2), Langevin(3, temperature=0.1)

    def score(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        value = bumpy_score(X, 1)(z, rows)
        assert isinstance(value, Tensor)
        return value, value - 1e6  # never broken

    for places in (2, 8):
        found = search(chain, score, X, threat, NOISE, restarts=2, batch_size=places)
        best = torch.full((6,), -torch.inf, dtype=X.dtype)
        for restart in range(2):
            for steps in range(4):
                short = Langevin(steps, 2.5 / 3, 0.1)
                z = short(bumpy_score(X, 1), X, threat, NOISE.fold(restart))
                best = torch.maximum(best, bumpy_score(X, 1)(z, ROWS))  # type: ignore[arg-type]
        torch.testing.assert_close(found.rank, best - 1e6)


def test_the_noise_is_the_examples_own_and_differs_between_moves() -> None:
    x = torch.full((6, 400), 0.5, dtype=torch.float64)
    flat = linear_score(x, 0)
    z = [Langevin(k, 0.01, 1.0, move="plain", random_start=False)(flat, x, Threat("L2", 9.0, None), NOISE)
         for k in (1, 2)]  # fmt: skip
    first, second = z[0] - x, z[1] - z[0]
    for a, b in ((first[0], first[1]), (first[0], second[0])):
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "steps is -1"),
        ({"step_size": 0.0}, "step_size is 0.0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("inf")}, "temperature is inf"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Langevin(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["law", "move"])
def test_a_word_that_is_no_choice_is_refused(name: str) -> None:
    chain = Langevin()
    object.__setattr__(chain, name, "cauchy")  # past the check of types, which only tests have
    with pytest.raises(InputError, match=f"{name} is 'cauchy', but must be"):
        chain.__post_init__()
