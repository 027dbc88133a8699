"""Examinations of several networks side by side, and what is claimed of them."""

from dataclasses import dataclass
from typing import Literal

from unperturbed.findings.findings import Distribution, Finding, Line

Decision = Literal["held", "did not hold", "not decided here"]
"""On a claim: the interval lies on the claimed side; on the other; on both."""


@dataclass(frozen=True)
class Examined:
    """One network's findings, and what it was trained with.

    Attributes:
        name: of the run.
        strength: the eps that it was trained at, 0 for ordinary training.
        seed: of its training.
        findings: what the diagnostics found.
    """

    name: str
    strength: float
    seed: int
    findings: tuple[Finding, ...]

    def distribution(self, name: str) -> Distribution | None:
        """Return the distribution of this name, if a diagnostic found it."""
        return next((each for found in self.findings for each in found.distributions if each.name == name), None)

    def number(self, name: str) -> float | None:
        """Return the number of this name, if a diagnostic found it."""
        return next((each.value for found in self.findings for each in found.numbers if each.name == name), None)

    def line(self, name: str) -> Line | None:
        """Return the line of this name, if a diagnostic found it."""
        return next((each for found in self.findings for each in found.lines if each.name == name), None)


@dataclass(frozen=True)
class Claim:
    """What is said to happen as training gets more robust.

    Attributes:
        sentence: the claim.
        quantity: the distribution whose mean is said to move, or a number.
        sign: +1 where it is said to rise with the strength, -1 where it is said to fall.
        without_scale: whether the values are divided by the product of the layers' largest singular values, so that
            networks of different scale are compared (the spectral control).
    """

    sentence: str
    quantity: str
    sign: Literal[-1, 1]
    without_scale: bool = False


@dataclass(frozen=True)
class Trend:
    """How the mean of a quantity moves with the strength.

    Attributes:
        claim: what was said of it.
        change: of a line fitted to the means, from the weakest strength to the strongest.
        low: lower end of the change's 95% interval.
        high: upper end.
        p: two-sided, by Student's t, adjusted after Holm where several claims are tested together; 1 where a strength
            has one network.
        decision: *held* where the adjusted p is below 0.05 and the change has the claimed sign, *did not hold* where it
            has the other, else *not decided here*.
        examples: how many every network shares; 1 where the quantity is a single number of a network.
        means: of each strength.
        reason: why the claim cannot be decided, or "".
    """

    claim: Claim
    change: float
    low: float
    high: float
    p: float
    decision: Decision
    examples: int
    means: tuple[float, ...]
    reason: str = ""

    @property
    def verdict(self) -> str:
        """The decision, with the reason where there is one."""
        return f"{self.decision} ({self.reason})" if self.reason else self.decision

    def __str__(self) -> str:
        """Return a plain sentence."""
        means = " → ".join(f"{mean:.3g}" for mean in self.means)
        return (
            f"{self.claim.sentence}: {self.verdict} ({self.claim.quantity}: {means}; change {self.change:+.3g} "
            f"[{self.low:+.3g}, {self.high:+.3g}], p = {self.p:.2g}, n = {self.examples})."
        )


@dataclass(frozen=True)
class Row:
    """One quantity at every strength.

    Attributes:
        quantity: its name.
        unit: what it is counted in.
        means: at each strength, over its networks; None where none has it.
        low: lower ends of 95% intervals over the networks of a strength (Student's t); None where it has only one.
        high: upper ends.
    """

    quantity: str
    unit: str
    means: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True)
class Comparison:
    """Networks of several strengths, side by side.

    Attributes:
        strengths: rising.
        networks: how many there are of each strength.
        rows: every number, and the mean of every distribution, against the strength.
        claims: the four, p adjusted for their being four.
        controls: other readings of them, p of each alone.
        notes: what a reader must know.
    """

    strengths: tuple[float, ...]
    networks: tuple[int, ...]
    rows: tuple[Row, ...]
    claims: tuple[Trend, ...]
    controls: tuple[Trend, ...]
    notes: tuple[str, ...]
