"""Seconds that an examination took: processor time where other work keeps the machine busy."""

import time
from dataclasses import dataclass

STRETCH = 4.0
"""The largest number of seconds by the clock that count as one: a network that waits for a service or a disk needs
little processor time, and its budget must end too."""


@dataclass(frozen=True)
class Start:
    """The moment at which a measurement of time begins.

    Attributes:
        clock: reading of the machine's clock in seconds.
        processor: processor time of this process until then, in seconds.
    """

    clock: float
    processor: float

    @classmethod
    def now(cls) -> "Start":
        """Return this moment."""
        return cls(time.monotonic(), time.process_time())

    @property
    def cost(self) -> float:
        """The processor time since then in seconds, of all threads."""
        return time.process_time() - self.processor

    @property
    def seconds(self) -> float:
        """The processor time since then: at most the time by the clock, and at least a quarter of it.

        On a free machine that is the time by the clock. On a busy one it leaves out the waiting for other programs, so
        that what a budget reaches for does not depend on them.
        """
        passed = time.monotonic() - self.clock
        return min(passed, max(self.cost, passed / STRETCH))
