"""Frank-Wolfe: convex combinations with the maximiser of the linear model; no projection."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unperturbed.checks import AT_LEAST_ONE, check_fields
from unperturbed.maximise.ascent import Ascent, Memory
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample


@dataclass(frozen=True)
class FrankWolfe(Ascent):
    """z <- z + 2 / (k + 2) * (argmax_{s in S(x)} <gradient, s> - z), from x (Frank & Wolfe 1956; Jaggi 2013).

    The first move goes all the way to the maximiser of the linear model. https://proceedings.mlr.press/v28/jaggi13

    Attributes:
        steps: moves, each one forward and one input gradient.
    """

    name: ClassVar[str] = "frank-wolfe"
    steps: int = 10

    def __post_init__(self) -> None:
        """Refuse a number of steps below 1."""
        check_fields(self, steps=AT_LEAST_ONE)

    def start(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        """Return x."""
        return x

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
        """Return the convex combination; projected only against rounding."""
        return threat.project(x, z + 2 / (k + 2) * (threat.maximise_linear(x, gradient) - z))
