"""Shares with their intervals, verdicts, and the progress callback."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["misclassified", "broken", "survived", "unknown"]
"""The verdict on an example: misclassified without an attack; broken, verified; not broken; not evaluated."""

Progress = Callable[[float, float, str], None]
"""A callback; it gets the finished work, the total work, and a short text."""


def silent(finished: float, total: float, text: str) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Interval:
    """A share of `n` with its 95% interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Return, say, `48.7% [45.6%, 51.8%], n=1000`."""
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}], n={self.n}"


def doubted(doubts: Sequence[str]) -> str:
    """Return the addition to the line of a doubtful robust accuracy; "" without doubts."""
    return f": not to be believed ({'; '.join(doubts)})" if doubts else ""
