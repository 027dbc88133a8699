"""Projected gradient ascent with a step size that falls along cosines."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.checks import AT_LEAST_ONE, POSITIVE, check_fields
from unperturbed.maximise.ascent import Ascent, Memory
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample


@dataclass(frozen=True)
class CosinePGD(Ascent):
    """z <- P(z + size_k eps d), d the steepest unit direction, size_k falling from `size` to 0 once in each cycle.

    Within a cycle of T moves size_k = size (1 + cos(pi (k mod T) / T)) / 2 (Ma et al. 2023, Imbalanced Gradients,
    https://arxiv.org/abs/2006.13726, section 4.2, which has two cycles from 2 eps).

    Attributes:
        steps: moves, each one forward and one input gradient.
        cycles: how often the step size falls.
        size: of the first step of a cycle, in units of eps.
    """

    name: ClassVar[str] = "cosine-pgd"
    steps: int = 100
    cycles: int = 2
    size: float = 2.0

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, steps=AT_LEAST_ONE, cycles=AT_LEAST_ONE, size=POSITIVE)

    def start(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        """Return a random point of S(x)."""
        return threat.sample(x, noise)

    def memory(self, x: Inputs, noise: Noise) -> Memory:
        """Return nothing: the rule is without memory."""
        return {}

    def step(
        self,
        x: Inputs,
        z: Inputs,
        value: PerExample,
        gradient: Inputs,
        k: int | Tensor,
        memory: Memory,
        threat: Threat,
    ) -> Inputs:
        """Return P(z + size_k eps d)."""
        length = -(-self.steps // self.cycles)
        share = torch.as_tensor(k, device=x.device).to(x.dtype) % length / length
        size = self.size * (1 + torch.cos(math.pi * share)) / 2
        return threat.project(x, z + size * threat.eps * threat.steepest_ascent(z, gradient))
