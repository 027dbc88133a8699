"""Each step rule against the same arithmetic written out by hand, and restarts against their parts."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from support.examples import NORMS, bumpy_score, inputs_within, linear_score
from unperturbed.errors import InputError
from unperturbed.maximise.adam import Adam
from unperturbed.maximise.ascent import Maximiser, climb
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.maximise.pgd import PGD
from unperturbed.maximise.restarts import Restarts
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Norm, PerExample, Rows, Score

ROWS = torch.arange(6)
NOISE = Noise.of(0, ROWS + 50)
X = inputs_within(Threat("Linf", 0.1), 6, (2, 3, 3), torch.float64, 0)


def slope(score: Score, z: Inputs) -> Tensor:
    z = z.clone().requires_grad_()
    values = score(z, ROWS)
    assert isinstance(values, Tensor)
    values.sum().backward()
    assert z.grad is not None
    return z.grad


def test_pgd_is_signed_steps_and_two_clamps_in_the_cube() -> None:
    """Madry's loop as everybody writes it: 2.5 / steps radii a move from a random start."""
    score, eps, steps = bumpy_score(X, 1), 0.3, 7
    z = Threat("Linf", eps).sample(X, NOISE)
    for _ in range(steps):
        z = z + 2.5 / steps * eps * slope(score, z).sign()
        z = (X + (z - X).clamp(-eps, eps)).clamp(0, 1)
    torch.testing.assert_close(PGD(steps=steps)(score, X, Threat("Linf", eps), NOISE), z, rtol=0, atol=1e-12)


def test_pgd_is_normalised_steps_and_a_rescaling_in_the_ball() -> None:
    score, eps = bumpy_score(X, 1), 0.5
    z = X
    for _ in range(4):
        g = slope(score, z).flatten(1)
        move = z.flatten(1) + 0.4 * eps * g / g.norm(dim=1, keepdim=True) - X.flatten(1)
        move = move * (eps / move.norm(dim=1, keepdim=True)).clamp(max=1)
        z = (X.flatten(1) + move).view_as(X)
    found = PGD(steps=4, step_size=0.4, random_start=False)(score, X, Threat("L2", eps, None), NOISE)
    torch.testing.assert_close(found, z, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("steps", "length"), [(1, 1.25), (2, 1.25), (5, 0.5)])
def test_pgds_automatic_step(steps: int, length: float) -> None:
    """2.5 radii in all, a single step not longer than 1.25."""
    threat, score = Threat("Linf", 0.1, None), linear_score(X, 2)
    one = PGD(steps=steps, random_start=False).step(X, X, torch.zeros(6, dtype=X.dtype), score.slope, 0, {}, threat)
    expected = X + min(length, 1.0) * 0.1 * score.slope.sign()
    torch.testing.assert_close(one, expected, rtol=0, atol=1e-12)
    start = X - 0.1 * score.slope.sign()  # far enough from the other side to see the whole step
    moved = PGD(steps=steps, random_start=False).step(
        X, start, torch.zeros(6, dtype=X.dtype), score.slope, 0, {}, threat
    )
    torch.testing.assert_close((moved - start).abs(), torch.full_like(X, length * 0.1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [PGD, Adam])
@pytest.mark.parametrize("norm", NORMS)
def test_a_random_start_is_a_sample_and_a_given_start_replaces_it(kind: type, norm: Norm) -> None:
    threat = Threat(norm, 0.3)
    assert torch.equal(kind().start(X, threat, NOISE), threat.sample(X, NOISE))
    assert torch.equal(kind(random_start=False).start(X, threat, NOISE), X)
    given = threat.sample(X, NOISE.fold(7))
    seen: list[Tensor] = []

    def score(z: Inputs, rows: Rows) -> PerExample:
        seen.append(z.detach().clone())
        return z.flatten(1).sum(1)

    kind()(score, X, threat, NOISE, given)
    assert torch.equal(seen[0], given)


def test_adam_is_torchs_adam_between_projections() -> None:
    """Each coordinate's move is that of torch.optim.Adam, maximising, with a rate of step_size * eps."""
    score, eps = bumpy_score(X, 1), 0.3
    z = X.clone().requires_grad_()
    optimiser = torch.optim.Adam([z], lr=0.25 * eps, eps=1e-9, maximize=True)
    for _ in range(8):
        z.grad = slope(score, z.detach())
        optimiser.step()
        with torch.no_grad():
            z.copy_((X + (z - X).clamp(-eps, eps)).clamp(0, 1))
    found = Adam(steps=8, step_size=0.25, random_start=False)(score, X, Threat("Linf", eps), NOISE)
    torch.testing.assert_close(found, z.detach(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("norm", NORMS)
def test_frank_wolfe_averages_the_maximisers_of_the_linear_models(norm: Norm) -> None:
    threat, score = Threat(norm, 0.4), bumpy_score(X, 1)
    z = X
    for k in range(5):
        z = z + 2 / (k + 2) * (threat.maximise_linear(X, slope(score, z)) - z)
    torch.testing.assert_close(FrankWolfe(steps=5)(score, X, threat, NOISE), z, rtol=0, atol=1e-6)


def test_frank_wolfe_converges_on_a_concave_score() -> None:
    """Within 2 C / (k + 2) of the optimum (Jaggi 2013, theorem 1); the curvature C of ½|z - t|² is at most (2 eps)²."""
    threat = Threat("L2", 0.7)
    target = X + 0.6 * torch.randn(X.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def score(z: Inputs, rows: Rows) -> PerExample:
        return -0.5 * (z - target[rows]).flatten(1).square().sum(1)

    best = score(threat.project(X, target), ROWS)
    for steps in (5, 50):
        found = score(FrankWolfe(steps=steps)(score, X, threat, NOISE), ROWS)
        assert (best - found <= 2 * (2 * 0.7) ** 2 / (steps + 2)).all() and (found <= best + 1e-12).all()


# Restarts


@dataclass(frozen=True)
class Scripted(Maximiser):
    """Gives back the first of its ends, then the second, and so on."""

    ends: list[Inputs]
    starts: list[Inputs | None] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)

    def __call__(self, score: Score, x: Inputs, threat: Threat, noise: Noise, start: Inputs | None = None) -> Inputs:
        self.starts.append(start)
        self.keys.append(noise.keys)
        return self.ends[len(self.starts) - 1]


def test_restarts_keep_the_worst_for_each_example_never_the_last_s10() -> None:
    """A ByteTensor negated (254, which is true) once made every restart overwrite all examples."""
    heights = torch.tensor([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [2.0, 2.0, 1.0], [-5.0, -4.0, -6.0]])
    ends = [heights[:, k : k + 1] for k in range(3)]
    x = torch.zeros(5, 1)
    noise = Noise.of(1, torch.arange(5))
    scripted = Scripted(ends)
    found = Restarts(scripted, count=3)(lambda z, rows: z[:, 0], x, Threat("Linf", 9.0, None), noise, x)
    assert torch.equal(found[:, 0], heights.amax(1))
    assert scripted.starts[0] is x and scripted.starts[1:] == [None, None], "only the first begins where it is told"
    assert len(torch.stack(scripted.keys).unique()) == 15, "each restart has random numbers of its own"


def test_restarts_rank_by_the_second_value() -> None:
    ends = [torch.tensor([[1.0]]), torch.tensor([[2.0]])]
    x = torch.zeros(1, 1)
    found = Restarts(Scripted(ends), 2)(lambda z, rows: (z[:, 0], -z[:, 0]), x, Threat("Linf", 9.0, None), NOISE)
    assert float(found) == 1.0


def test_restarts_do_not_take_what_is_not_a_number() -> None:
    ends = [torch.tensor([[1.0], [5.0]]), torch.tensor([[torch.nan], [2.0]])]
    x = torch.zeros(2, 1)
    found = Restarts(Scripted(ends), 2)(lambda z, rows: z[:, 0], x, Threat("Linf", 9.0, None), NOISE)
    assert found[:, 0].tolist() == [1.0, 5.0]


@pytest.mark.parametrize("norm", NORMS)
def test_more_restarts_are_never_worse(norm: Norm) -> None:
    threat, score = Threat(norm, 0.5), bumpy_score(X, 3)
    values = [score(Restarts(PGD(steps=3), k)(score, X, threat, NOISE), ROWS) for k in (1, 2, 5)]
    assert (values[1] >= values[0]).all() and (values[2] >= values[1]).all()  # type: ignore[operator]
    assert (values[2] > values[0]).any()  # type: ignore[operator]


# What a score may bring


def test_climb_asks_a_score_for_its_own_gradient() -> None:
    """Then no graph is built at all."""

    class Own:
        def __call__(self, z: Inputs, rows: Rows) -> PerExample:
            assert not torch.is_grad_enabled() and not z.requires_grad
            return z.flatten(1).sum(1)

        def gradient(self, z: Inputs, rows: Rows) -> Inputs:
            return z * 3

    value, rank, gradient = climb(Own(), X, ROWS)
    assert torch.equal(gradient, X * 3) and torch.equal(value, X.flatten(1).sum(1)) and torch.equal(rank, value)


def test_climb_gives_each_example_its_own_gradient() -> None:
    """Summed, not averaged, over the batch; and it leaves the weights without gradients."""
    weights = torch.randn(18, 3, dtype=torch.float64, requires_grad=True)
    value, rank, gradient = climb(lambda z, rows: (z.flatten(1) @ weights).sin().sum(1), X, ROWS)
    for k in range(6):
        z = X[k : k + 1].clone().requires_grad_()
        (own,) = torch.autograd.grad((z.flatten(1) @ weights).sin().sum(), z)
        torch.testing.assert_close(gradient[k : k + 1], own)
    assert weights.grad is None and not value.requires_grad and not rank.requires_grad and not X.requires_grad


@pytest.mark.parametrize("wrong", [lambda: PGD(steps=0), lambda: PGD(step_size=0.0), lambda: Adam(step_size=-1.0),
                                   lambda: PGD(step_size=float("nan")), lambda: FrankWolfe(steps=-2),
                                   lambda: Restarts(count=0), lambda: replace(Adam(), steps=0)])  # fmt: skip
def test_what_is_not_positive_is_refused_with_its_value(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=r"is (-?\d|nan)"):
        wrong()
