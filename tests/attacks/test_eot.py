"""Means over draws: what is climbed and ranked is an expectation, and climbs can go to their end."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from support import attack_laws as laws
from support.toys import Function, linear, uniform
from unperturbed.attacks.eot import RandomTransform, averaged
from unperturbed.attacks.gradient import GradientAttack
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.ascent import climb
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import own_randomness
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, PerExample, Rows

CPU = torch.device("cpu")


def shaken(x: Inputs) -> Inputs:
    """Scale by a number drawn for each example."""
    return x * (1 + 0.5 * torch.rand(len(x), *[1] * (x.dim() - 1), dtype=x.dtype))


def test_a_mean_is_that_of_single_draws_and_so_is_its_gradient() -> None:
    model = RandomTransform(shaken, linear(4, 3).double())
    x, y, rows = uniform(5, 4).double(), torch.arange(5) % 3, torch.arange(5)

    def score(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        logits = model(z)
        return cross_entropy(logits, y[rows]), margin(logits, y[rows]).detach()

    with own_randomness(3, CPU):
        found = climb(averaged(score, 7), x, rows)
    with own_randomness(3, CPU):
        single = [climb(score, x, rows) for _ in range(7)]
    for mean, parts in zip(found, zip(*single, strict=True), strict=True):
        torch.testing.assert_close(mean, torch.stack(parts).mean(0))
    assert (single[0][0] != single[1][0]).all()


def test_one_draw_is_the_score_itself() -> None:
    def score(z: Inputs, rows: Rows) -> PerExample:
        return z.flatten(1).sum(1)

    assert averaged(score, 1) is score
    value, rank, _ = climb(averaged(score, 3), torch.ones(2, 4), torch.arange(2))
    assert value.tolist() == rank.tolist() == [4.0, 4.0]


def test_a_transformation_is_drawn_at_every_forward_and_differentiated() -> None:
    model = RandomTransform(shaken, linear(4, 3).double())
    x = uniform(2, 4).double().requires_grad_()
    assert not torch.equal(model(x), model(x))

    def seeded(x: Tensor) -> Tensor:
        with own_randomness(1, CPU):
            logits: Tensor = model(x)
            return logits

    assert torch.autograd.gradcheck(seeded, (x,))
    assert [name for name, _ in model.named_parameters()] == ["model.weight", "model.bias"]
    assert "transform" in dict(RandomTransform(nn.Dropout(), model).named_modules())


@pytest.mark.parametrize("targeted", [False, True])
def test_a_mean_finds_the_direction_that_single_draws_hide(targeted: bool) -> None:
    """Weights with noise five times their size, drawn for the batch: the expectation is the linear network without."""
    weight = linear(30, 2, seed=5).weight.detach()

    def noisy(x: Inputs) -> Logits:
        return (x - 0.5) @ (weight + 5 * torch.randn(2, 30)).T

    x, threat = uniform(40, 30), Threat("Linf", 0.1)
    y = ((x - 0.5) @ weight.T).argmax(1)
    batch = Batch(x, y, torch.arange(40))
    once = PGD(steps=1, step_size=2.0, random_start=False)
    attack = MultiTargeted(ascent=once) if targeted else GradientAttack("a", margin, once)

    def reached(draws: int, seed: int) -> Tensor:
        with own_randomness(seed, CPU):
            z = replace(attack, draws=draws, enough=math.inf)(Function(noisy), batch, threat, Noise.of(0, y), 64).z
        return margin((z - 0.5) @ weight.T, y)

    slope = torch.where(y[:, None] == 0, weight[1] - weight[0], weight[0] - weight[1])
    best = margin((threat.maximise_linear(x, slope) - 0.5) @ weight.T, y)
    start = margin((x - 0.5) @ weight.T, y)
    shares = [[((reached(draws, seed) - start) / (best - start)).mean() for seed in range(5)] for draws in (1, 100)]
    one, many = (float(torch.stack(each).mean()) for each in shares)
    assert one < 0.4 and many > 0.85, (one, many)


@pytest.mark.parametrize("attack", [GradientAttack("a", cross_entropy, PGD(steps=6), 2), MultiTargeted(ascent=PGD(6))])
def test_on_a_network_without_random_numbers_draws_change_nothing(attack: GradientAttack | MultiTargeted) -> None:
    """In every bit, targets that change from climb to climb included: the mean of two equal numbers is exact."""
    model, x = laws.Wavy(classes=4, lead=5.0), laws.inputs(8)
    batch = laws.batch_for(model, x)
    one, two = (laws.run(replace(attack, draws=n), model, batch, Threat("L2", 0.08), batch_size=4) for n in (1, 2))
    assert torch.equal(one.z, two.z) and torch.equal(one.margin, two.margin) and torch.equal(one.restart, two.restart)
    assert (one.margin > 0).any() and (one.margin < 0).any()
    assert two.backwards is None or two.backwards == 2 * (one.backwards or 0)


@pytest.mark.parametrize("attack", [GradientAttack("a", margin, PGD(steps=40)), MultiTargeted(ascent=PGD(steps=40))])
def test_a_climb_can_go_on_to_the_worst_point(attack: GradientAttack | MultiTargeted) -> None:
    model, threat = laws.Linear(), Threat("Linf", 0.3)
    batch = laws.batch_for(model, laws.inputs())
    worst = model.worst(batch, threat)
    assert (worst > 0).all()
    stopped = laws.run(attack, model, batch, threat)
    to_the_end = laws.run(replace(attack, enough=math.inf), model, batch, threat)
    torch.testing.assert_close(to_the_end.margin, worst)
    assert (stopped.margin > 0).all() and (stopped.margin < 0.8 * worst).any() and stopped.passes < to_the_end.passes


def test_what_is_not_finite_in_one_draw_is_flagged() -> None:
    calls = []

    def sometimes(x: Inputs) -> Logits:
        calls.append(0)
        wrong = (torch.arange(len(x)) == 1) & (len(calls) % 5 == 4)
        return torch.stack([x[:, 0] + 5, torch.where(wrong, torch.nan, x[:, 0])], dim=1)

    batch = Batch(uniform(2, 2), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    attack = GradientAttack("a", cross_entropy, PGD(steps=2), draws=5)
    found = attack(Function(sometimes), batch, Threat("Linf", 0.1), Noise.of(0, batch.ids), 2)
    assert found.finite.tolist() == [True, False] and found.margin[1] == -torch.inf
