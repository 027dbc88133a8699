"""Projected Adam."""

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
class Adam(Ascent):
    """z <- P(z + step_size * eps * m / (sqrt(v) + 1e-9)), m and v Adam's bias-corrected moments.

    The moves are sign-like: under L2 and L1 the search ends short of the optimum even on a linear score, so it is
    for Linf above all. Kingma & Ba 2015, https://arxiv.org/abs/1412.6980, algorithm 1; as an inner maximisation:
    Uesato et al. 2018, https://arxiv.org/abs/1802.05666.

    Attributes:
        steps: moves, each one forward and one input gradient.
        step_size: in units of eps.
        random_start: from a random point of S(x) instead of from x.
    """

    name: ClassVar[str] = "adam"
    steps: int = 10
    step_size: float = 0.5
    random_start: bool = True

    def __post_init__(self) -> None:
        """Refuse a number of steps or a step size that is not positive."""
        check_fields(self, steps=AT_LEAST_ONE, step_size=POSITIVE)

    def start(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        """Return a random point of S(x), or x."""
        return threat.sample(x, noise) if self.random_start else x

    def memory(self, x: Inputs, noise: Noise) -> Memory:
        """Return both moments at zero."""
        return {"m": torch.zeros_like(x), "v": torch.zeros_like(x)}

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
        """Return the projected Adam move."""
        memory["m"].lerp_(gradient, 0.1)
        memory["v"].lerp_(gradient**2, 0.001)
        m, v = memory["m"] / (1 - 0.9 ** (k + 1)), memory["v"] / (1 - 0.999 ** (k + 1))
        return threat.project(x, z + self.step_size * threat.radii(x) * m / (v.sqrt() + 1e-9))
