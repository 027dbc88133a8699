"""Expectation over transformations: attacks on networks that draw random numbers climb a mean over draws.

Athalye et al. 2018, Synthesizing Robust Adversarial Examples, https://arxiv.org/abs/1707.07397, section 2.1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from unperturbed.types import Inputs, PerExample, Rows, Score


class RandomTransform(nn.Module):
    """f(t(x)), t drawn anew at every forward: a network with a random transformation of its inputs in front of it.

    Attacks climb the expectation over t (Athalye et al. 2018, https://arxiv.org/abs/1707.07397, section 2.1).

    Args:
        transform: a function from inputs to the network's inputs, which draws from torch's generators. The gradient
            runs through it: wrap a function without a gradient in `StraightThrough`.
        model: the network.
    """

    def __init__(self, transform: Callable[[Inputs], Inputs], model: nn.Module) -> None:
        super().__init__()
        self.transform, self.model = transform, model

    def forward(self, x: Inputs) -> Any:
        """Return the network's output for the transformed inputs."""
        return self.model(self.transform(x))


def averaged(score: Score, draws: int) -> Score:
    """Return E[score(z)] as the mean of `draws` calls, for the climbed value and for the ranking one."""
    return score if draws == 1 else _Mean(score, draws)


@dataclass(frozen=True, eq=False)
class _Mean:
    score: Score
    draws: int

    def of_climb(self, numbers: Rows, moves: Rows) -> "_Mean":
        """Return the mean of the scores of these climbs after so many moves, if climbs have separate scores."""
        of_climb = getattr(self.score, "of_climb", None)
        return self if of_climb is None else replace(self, score=of_climb(numbers, moves))

    def __call__(self, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        """Return the two means; a NaN in one draw makes the mean NaN."""
        drawn = [self.score(z, rows) for _ in range(self.draws)]
        values, ranks = zip(*(draw if isinstance(draw, tuple) else (draw, draw) for draw in drawn), strict=True)
        return torch.stack(values).mean(0), torch.stack(ranks).mean(0)
