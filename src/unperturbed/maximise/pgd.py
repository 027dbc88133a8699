"""Projected gradient ascent."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unperturbed.checks import AT_LEAST_ONE, POSITIVE, check_fields
from unperturbed.maximise.ascent import Ascent, Memory
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample


@dataclass(frozen=True)
class PGD(Ascent):
    """Projected gradient ascent: z <- P(z + step_size * eps * d), d the steepest unit direction (Madry et al. 2018).

    https://arxiv.org/abs/1706.06083, section 2.1.

    Attributes:
        steps: moves, each one forward and one input gradient.
        step_size: in units of eps; None: 2.5 / steps, at most 1.25.
        random_start: from a random point of S(x) instead of from x.
    """

    name: ClassVar[str] = "pgd"
    steps: int = 10
    step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        """Refuse a number of steps or a step size that is not positive."""
        check_fields(self, steps=AT_LEAST_ONE, step_size=POSITIVE)

    def start(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        """Return a random point of S(x), or x."""
        return threat.sample(x, noise) if self.random_start else x

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
        """Return P(z + step_size * eps * d)."""
        length = threat.eps * (min(2.5 / self.steps, 1.25) if self.step_size is None else self.step_size)
        return threat.project(x, z + length * threat.steepest_ascent(z, gradient))
