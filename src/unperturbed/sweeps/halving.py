"""Successive halving: all runs are trained a little, and only the best third of them is trained further.

Jamieson & Talwalkar 2016, https://arxiv.org/abs/1502.07943, with the factor 3 of ASHA (Li et al. 2020,
https://arxiv.org/abs/1810.05934). The promotions are synchronous: they wait for all runs, so that they do not depend on
the order in which workers finish.
"""

from collections.abc import Mapping
from typing import Any

from unperturbed.errors import InputError

FACTOR = 3
"""One run of so many is promoted, and trained for so many times the epochs."""


def rungs_of(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which runs are compared, in increasing order; the last ones are those of a whole run.

    Raises:
        InputError: for fewer than three epochs, which leave nothing to save.
    """
    if epochs < FACTOR:
        raise InputError(f"--stop asha compares runs after a third of their epochs, but epochs is {epochs}: give 3.")
    rungs = [epochs]
    while rungs[0] >= FACTOR:
        rungs.insert(0, rungs[0] // FACTOR)
    return tuple(rungs)


def best_third(ranks: Mapping[int, Any]) -> list[int]:
    """Return the numbers of the best third of the runs, one at least, in increasing order.

    Args:
        ranks: by the number of the run; the highest is best. Of equal ones the lower number is promoted.
    """
    order = sorted(ranks, key=lambda number: (ranks[number], -number), reverse=True)
    return sorted(order[: max(1, len(order) // FACTOR)])
