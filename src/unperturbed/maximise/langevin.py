"""Langevin dynamics: sampling from a density that grows with the score, instead of maximising the score."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from unperturbed.checks import NONE_OR_MORE, NOT_NEGATIVE, POSITIVE, check_fields
from unperturbed.maximise.ascent import Ascent, Memory
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample


@dataclass(frozen=True)
class Langevin(Ascent):
    """Projected Langevin dynamics: ascent with noise in every move (Robey et al. 2021, DALE, algorithm 1).

    https://arxiv.org/abs/2110.15767. With U the score, u its gradient, h = step_size, and r what eps
    leaves to each of the d features (eps for Linf, eps / sqrt(d) for L2, eps / d for L1), a move is one of

        plain       z <- P(z + h r^2 u + r sqrt(2 h T) v)
        sign        z <- P(z + h eps d(u) + r sqrt(2 h T) v)
        noisy-sign  z <- P(z + h eps d(h r^2 u + r sqrt(2 h T) v))

    where v has independent features of variance 1, T is the temperature, d(u) the steepest unit direction (the sign
    for Linf), and P the projection on S(x). Small plain steps sample from the density exp(U / T) on S(x); the others
    are the released code's for Gaussian noise ("sign") and for Laplacian noise ("noisy-sign"), which have no such law.

    The gradient is that of each example's own score, so T does not depend on the batch size. The released
    noise c added to signs is T = (c / r)^2 / 2h; c added to the mean gradient of n examples, in the sign, is
    T = h (c n r)^2.
    With T = 0, "sign" and "noisy-sign" are PGD, and a single one of step_size 1 from x is FGSM; with no steps at all,
    the start remains.

    Attributes:
        steps: moves, each one forward and one input gradient; 0 returns the start.
        step_size: h; None: 2.5 / steps, at most 1.25.
        temperature: T; 0: no noise.
        law: of the noise.
        move: how gradient and noise move the point.
        random_start: from a random point of S(x) instead of from x, where the caller gives no start.
    """

    name: ClassVar[str] = "langevin"
    steps: int = 10
    step_size: float | None = None
    temperature: float = 0.1
    law: Literal["gaussian", "laplacian"] = "gaussian"
    move: Literal["sign", "noisy-sign", "plain"] = "sign"
    random_start: bool = True

    def __post_init__(self) -> None:
        """Refuse what no step or temperature can be, and words that are not choices."""
        check_fields(self, steps=NONE_OR_MORE, step_size=POSITIVE, temperature=NOT_NEGATIVE)

    def start(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        """Return a random point of S(x), or x."""
        return threat.sample(x, noise) if self.random_start else x

    def memory(self, x: Inputs, noise: Noise) -> Memory:
        """Return the keys of the noise."""
        return {"keys": noise.fold(-1).keys}

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
        """Return the point after a noisy move."""
        h = min(2.5 / max(self.steps, 1), 1.25) if self.step_size is None else self.step_size
        r = threat.even_share(x)
        noise = self._noise(z, k, memory, r * math.sqrt(2 * h * self.temperature))
        if self.move == "plain":
            return threat.project(x, z + h * r**2 * gradient + noise)
        if self.move == "sign":
            return threat.project(x, z + h * threat.eps * threat.steepest_ascent(z, gradient) + noise)
        noisy = gradient + noise / (h * r**2) if r > 0 else gradient
        return threat.project(x, z + h * threat.eps * threat.steepest_ascent(z, noisy))

    def _noise(self, z: Inputs, k: int | Tensor, memory: Memory, size: float) -> Inputs | float:
        """Return the noise of move k, of standard deviation `size`."""
        if size == 0:
            return 0.0
        stream = Noise(memory["keys"]).fold(k if isinstance(k, int) else k.flatten())
        draw = stream.normal if self.law == "gaussian" else stream.laplacian
        return size * draw(z.shape[1:], z.dtype)
