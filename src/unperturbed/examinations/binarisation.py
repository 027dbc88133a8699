"""The binarisation test: attacks must solve a problem with a known solution.

Zimmermann, Brendel, Tramèr & Carlini 2022, Increasing Confidence in Adversarial Robustness Evaluations,
https://arxiv.org/abs/2206.13991.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.evaluation.attack import attack as attack_with
from unperturbed.examinations.remedies.deployed import Reachable
from unperturbed.examinations.remedies.layers import bare
from unperturbed.losses import margin
from unperturbed.maximise.apgd import APGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits

INNER, DRAWS = 499, 200
"""Number of inner points with the example's label, and of random points of the baseline."""
CLOSENESS = 0.95
"""Radius of the ball of the inner points, in units of eps."""
SEPARATED = 0.999
"""The position of the boundary on the way to the planted point: only points near it solve the problem."""
CLIMB = 100
OF_CLIMB = 0.7
"""Steps of a climb of the score; and how far on its way a suite must come. Single steps reach 0.48 to 0.88 of it on an
ordinary network for MNIST at Linf 0.1, and 0.02 to 0.49 on a robust one at 0.3; ten climbs of 50 steps 0.82 or more."""
Attacking = Callable[[nn.Module, Inputs, Tensor], Inputs]


@dataclass(frozen=True)
class Binarisation:
    """Outcome of the test.

    Attributes:
        solved: problems in which the suite found a point of the planted class.
        valid: problems that could be planted.
        by_chance: problems solved by one of `DRAWS` random points.
        reason: why no problem could be planted.
    """

    solved: int
    valid: int
    by_chance: int
    reason: str = ""


class Binary(nn.Module):
    """A network's features with a new linear layer of two logits, (-w, w)."""

    def __init__(self, network: nn.Module, head: nn.Linear, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.network, self.head, self.weight, self.bias = network, [head], weight, bias

    def forward(self, x: Inputs) -> Logits:
        """Return the two logits."""
        score = features_of(self.network, self.head[0], x) @ self.weight + self.bias
        return torch.stack([-score, score], 1)


def features_of(network: nn.Module, head: nn.Module, x: Inputs) -> Tensor:
    """Return the input of the layer `head` in its last call, flat."""
    inputs: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    try:
        network(x)
    finally:
        handle.remove()
    return inputs[-1].flatten(1)


def binarisation(
    network: nn.Module,
    batch: Batch,
    threat: Threat,
    suite: Suite | Attacking,
    examples: int,
    seed: int = 0,
    failures: int | None = None,
) -> Binarisation:
    """Plant problems at examples, and count those that the suite solves.

    Points of the ball of radius 0.95 eps keep the example's label, one point at distance eps gets the other; a linear
    layer on the network's features separates them, so that a solution exists. Its boundary is then moved towards the
    end of a long climb, which is a solution too: otherwise a single step would solve the problem on networks that are
    nearly linear in the ball.

    Args:
        network: returns logits by a last linear layer.
        batch: the examples.
        threat: the threat set.
        suite: a suite, or a function of (network, x, y) that returns perturbed inputs.
        examples: number of problems.
        seed: of the points.
        failures: number of unsolved problems after which the test ends; None: it does not.
    """
    head = _head(network, batch.x[:1])
    if head is None:
        return Binarisation(0, 0, 0, "the network has no last linear layer")
    solved = valid = chance = 0
    with under_attack(network):
        for row in range(min(examples, len(batch.y))):
            x, noise = batch.x[row : row + 1], Noise.of(seed, batch.ids[row : row + 1]).fold(29)
            problem = _planted(network, head, x, threat, noise)
            if problem is None:
                continue
            valid += 1
            y = torch.zeros(1, dtype=torch.int64, device=x.device)
            draws = threat.sample(x.expand(DRAWS, *x.shape[1:]), Noise(noise.fold(3).keys + torch.arange(DRAWS)))
            with torch.no_grad():
                chance += int((problem(draws).argmax(1) == 1).any())
            z = attack_with(Reachable(problem), x, y, threat, suite, seed=seed)
            with torch.no_grad():
                solved += int(problem(z).argmax(1)[0] == 1 and bool(threat.contains(x, z)))
            if failures is not None and valid - solved >= failures:
                break
    return Binarisation(solved, valid, chance, "" if valid else "features do not separate the planted point")


def _head(network: nn.Module, x: Inputs) -> nn.Linear | None:
    """Return the last linear layer in a forward."""
    called: list[nn.Linear] = []
    handles = [
        module.register_forward_hook(lambda module, arguments, value: called.append(module))
        for module in bare(network).modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    return called[-1] if called else None


def _planted(network: nn.Module, head: nn.Linear, x: Inputs, threat: Threat, noise: Noise) -> Binary | None:
    """Return a problem with a solution at this example; None if the features do not separate it."""
    streams = Noise(noise.keys + torch.arange(INNER, device=x.device) * 7919)
    inner = replace(threat, eps=CLOSENESS * threat.eps).sample(x.expand(INNER, *x.shape[1:]), streams)
    border = threat.maximise_linear(x, noise.fold(1).normal(x.shape[1:], x.dtype))
    with torch.no_grad():
        points = torch.cat([x, inner, border])
        features = torch.cat([features_of(network, head, part) for part in torch.split(points, 128)]).double()
    separator = _separated(features[:-1].cpu().numpy(), features[-1].cpu().numpy())
    if separator is None:
        return None
    weight, bias = (torch.as_tensor(value, dtype=x.dtype, device=x.device) for value in separator)
    problem, solution = _harder(
        Binary(network, head, weight, bias), x, border, threat, noise, features[:-1].to(x) @ weight + bias
    )
    with torch.no_grad():
        fits = bool(problem(solution).argmax(1)[0] == 1) and bool(problem(x).argmax(1)[0] == 0)
    return problem if fits else None


def _harder(
    problem: Binary, x: Inputs, border: Inputs, threat: Threat, noise: Noise, inside: Tensor
) -> tuple[Binary, Inputs]:
    """Return the problem with its boundary on the way to the end of a long climb, and a solution.

    Networks are nearly linear close to an example: there a single step goes beyond a random planted point. Where the
    climb does not lead beyond it either, the problem stays as it is. `inside` has the scores of the inner points.
    """
    climb = GradientAttack("climb", margin, APGD(steps=CLIMB), restarts=2, enough=torch.inf)
    example = Batch(x, torch.zeros(1, dtype=torch.int64, device=x.device), torch.zeros(1, dtype=torch.int64))
    z = climb(Reachable(problem), example, threat, noise.fold(5), 2).z
    with torch.no_grad():
        top = float(problem(z)[0, 1])
    low = float(inside.max())
    bound = low + OF_CLIMB * (top - low)
    if not (bound > 0 and math.isfinite(bound)):
        return problem, border
    scale = 1 / max(float((inside - bound).abs().mean()), 1e-30)
    return Binary(problem.network, problem.head[0], scale * problem.weight, scale * (problem.bias - bound)), z


def _separated(inside: Any, planted: Any) -> tuple[Any, Any] | None:
    """Return weights and bias of a linear function that is below 0 at all inner points, and above 0 at the other.

    Linear discriminant with shrinkage, whose boundary is then moved next to the planted point.
    """
    mean = inside.mean(0)
    covariance = np.cov(inside, rowvar=False)
    shrunk = covariance + (1e-3 * np.trace(covariance) / len(covariance) + 1e-12) * np.eye(len(covariance))
    weight = np.linalg.solve(shrunk, planted - mean)
    scores, top = inside @ weight, float(planted @ weight)
    gap = top - float(scores.max())
    if not np.isfinite(weight).all() or gap <= 1e-3 * max(float(scores.std()), 1e-30):
        return None
    bound = top - (1 - SEPARATED) * gap
    scale = 1 / max(float(np.abs(scores - bound).mean()), 1e-30)
    return scale * weight, -scale * bound
