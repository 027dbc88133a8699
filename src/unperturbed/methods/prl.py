"""Probabilistically robust learning."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.checks import AT_LEAST_ONE, MOST, Rule, check_fields
from unperturbed.errors import InputError
from unperturbed.losses import cross_entropy
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, PerExample, Terms


@dataclass(frozen=True)
class PRL(Method):
    """CVaR of CE(f(z), y) for random z in S(x): the mean loss over the worst share beta (Robey et al. 2022).

    Probabilistically robust learning, https://arxiv.org/abs/2202.01136, with CVaR = min_t t + mean[(l - t)_+] / beta in
    closed form: of `samples` draws, the mean of the highest beta * samples. Draws are ranked in eval mode without a
    gradient, and training uses the ceil(beta * samples) worst of an example. The released code takes a few steps in t,
    scaled by 1 / batch size, which hardly move t.

    Attributes:
        beta: the share of the draws that counts: 1 is the mean over all, 1 / samples the worst one.
        samples: draws an example and step.
    """

    name: ClassVar[str] = "prl"
    ramp: ClassVar[float] = 0.25
    beta: float = 0.5
    samples: int = 20

    def __post_init__(self) -> None:
        """Refuse less than one draw, and a share that holds none."""
        share = Rule("is a share of the draws: at least a millionth, at most 1", lambda value: 1 / MOST <= value <= 1)
        check_fields(self, samples=AT_LEAST_ONE, beta=share)
        if self.beta * self.samples < 1 - 1e-9:
            raise InputError(
                f"beta is {self.beta}, less than one of {self.samples} draws: give samples of at least "
                f"{math.ceil(1 / self.beta - 1e-9)}."
            )

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the worst draws, (k, n, ...)."""
        count = math.ceil(self.beta * self.samples - 1e-9)
        drawn = torch.stack([threat.sample(batch.x, noise.fold(draw)) for draw in range(self.samples)])
        with torch.no_grad():
            losses = torch.stack([cross_entropy(model(z), batch.y) for z in drawn])
        worst = losses.topk(count, dim=0).indices
        return Inner(drawn[worst, torch.arange(len(batch.x), device=worst.device)])

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean over the examples of the conditional value at risk, all draws in one forward."""
        count, n = inner.z.shape[:2]
        targets = batch.targets.repeat(count, *[1] * (batch.targets.dim() - 1))
        losses = cross_entropy(model(inner.z.flatten(0, 1)), targets).view(count, n)
        return {"tail": cvar(losses, self.beta * self.samples).mean()}


def cvar(losses: Tensor, count: float) -> PerExample:
    """Return the mean of the `count` highest of each column of losses, (m, n); the last one counts by its fraction.

    This is min_t t + sum_j (l_j - t)_+ / count, for count up to the number of all losses, m or more; the rows left out
    must not be among the highest.
    """
    ranked = losses.sort(dim=0, descending=True).values
    ranks = torch.arange(len(ranked), device=losses.device, dtype=losses.dtype)[:, None]
    return (ranked * (count - ranks).clamp(0, 1)).sum(dim=0) / count
