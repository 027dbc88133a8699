"""Perturbations that raise a class's probability: within a large threat set, and within the L1.5 ball."""

import torch

from unperturbed.curvature.products import input_gradient
from unperturbed.maximise.ascent import Ascent, search
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.threat.lp_ball import LpBall
from unperturbed.threat.shares import count_changing, zero_or_one
from unperturbed.types import Inputs, Labels, Logits, Model, PerExample, Rows

DEFAULT = FrankWolfe(steps=30)
AROUND: dict[str, float] = {"Linf": 0.3, "L2": 0.15, "L1": 0.05}
"""The eps of a large threat set, as a share of the range of values (for L1 times d, for L2 times sqrt(d))."""


def log_probability(logits: Logits, target: Labels) -> PerExample:
    """Return log p_t by differences of logits, which do not underflow."""
    return (logits - logits.gather(1, target[:, None])).logsumexp(dim=1).neg()


def large_threat(x: Inputs, threat: Threat, norm: str) -> Threat:
    """Return a threat set large enough to change the visible class, in the box of `threat`.

    Features that never change in `threat` do not change here.
    """
    low, high = threat.limits(x)
    spread = float((high - low).max())
    if spread == float("inf"):
        spread = float(x.max() - x.min())
    d = count_changing(threat.shares, x)
    scale = {"Linf": 1.0, "L2": d**0.5, "L1": float(d)}[norm]
    eps = AROUND[norm] * spread * scale
    return Threat(norm, eps, threat.bounds, zero_or_one(threat.shares))  # type: ignore[arg-type]


def synthesise(
    model: Model,
    centre: Inputs,
    target: Labels,
    threat: Threat,
    noise: Noise,
    maximiser: Ascent = DEFAULT,
    batch_size: int = 128,
) -> Inputs:
    """Return the point of S(centre) with the highest log p_target among the iterates of the maximiser.

    Frank-Wolfe by default, in one climb an example. The points lie inside the threat set.
    """

    def score(z: Inputs, rows: Rows) -> PerExample:
        return log_probability(model(z), target[rows])

    with as_reported(centre.device), under_attack(model):
        return search(maximiser, score, centre, threat, noise, 1, batch_size, torch.inf).z


def sparse_counterfactual(model: Model, x: Inputs, target: Labels, ball: LpBall, steps: int = 75) -> Inputs:
    """Return the point of the L1.5 ball and the box with the highest log p_target of 75 Frank-Wolfe steps.

    Sparse visual counterfactual explanations (Boreiko et al. 2022, https://arxiv.org/abs/2205.07972): the exact linear
    oracle of the set and step sizes 2 / (k + 2), from x. Examples are independent.
    """
    z, best = x.clone(), x.clone()
    value = x.new_full((len(x),), -torch.inf)
    shape = (-1, *[1] * (x.dim() - 1))
    with as_reported(x.device), under_attack(model):
        for k in range(steps + 1):
            current, gradient = input_gradient(model, z, lambda logits: log_probability(logits, target))
            better = current > value
            value[better], best[better] = current[better], z[better]
            if k < steps:
                z = z + 2 / (k + 2) * (ball.maximise_linear(x, gradient.nan_to_num()) - z)
                excess = (ball.radius / ball.distance(x, z).clamp(min=ball.radius)).view(shape)
                z = torch.where(excess < 1, x + excess * (z - x), z)  # only rounding can lead outside
    return best
