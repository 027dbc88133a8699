"""Shares with their intervals, verdicts, and how progress is reported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["misclassified", "broken", "survived", "unknown"]
"""Of one example: wrong without an attack; broken by one, verified; not broken; not possible to evaluate."""

Progress = Callable[[float, float, str], None]
"""Called with work done, work in all, and a few words."""


def silent(done: float, total: float, text: str) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Interval:
    """A share of `n` with its 95% interval: a number never travels without both."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Return, say, `48.7% [45.6%, 51.8%], n=1000`."""
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}], n={self.n}"


def doubted(doubts: Sequence[str]) -> str:
    """Return what a line adds to a robust accuracy that something speaks against; "" where nothing does."""
    return f": not to be believed ({'; '.join(doubts)})" if doubts else ""
