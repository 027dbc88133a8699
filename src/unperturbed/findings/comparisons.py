"""Examinations of several networks side by side, and claims about them."""

from dataclasses import dataclass
from typing import Literal

from unperturbed.findings.findings import Distribution, Finding, Line

Decision = Literal["held", "did not hold", "not decided here"]
"""The decisions on a claim: the interval lies on the claimed side, on the other, or on both."""


@dataclass(frozen=True)
class Examined:
    """The findings of one network, with its training's eps and seed.

    Attributes:
        name: of the run.
        strength: the eps of its training, 0 for ordinary training.
        seed: of its training.
        findings: the findings of the diagnostics.
    """

    name: str
    strength: float
    seed: int
    findings: tuple[Finding, ...]

    def distribution(self, name: str) -> Distribution | None:
        """Return the distribution of this name, or None."""
        return next(
            (
                distribution
                for finding in self.findings
                for distribution in finding.distributions
                if distribution.name == name
            ),
            None,
        )

    def number(self, name: str) -> float | None:
        """Return the number of this name, or None."""
        return next(
            (number.value for finding in self.findings for number in finding.numbers if number.name == name), None
        )

    def line(self, name: str) -> Line | None:
        """Return the line of this name, or None."""
        return next((line for finding in self.findings for line in finding.lines if line.name == name), None)


@dataclass(frozen=True)
class Claim:
    """A claim about the effect of more robust training.

    Attributes:
        sentence: the claim.
        quantity: the distribution whose mean moves by the claim, or a number.
        sign: +1 if it rises with the strength by the claim, -1 if it falls.
        without_scale: whether the values are divided by the product of the layers' largest singular values, so that
            networks of different scale are compared (the spectral control).
    """

    sentence: str
    quantity: str
    sign: Literal[-1, 1]
    without_scale: bool = False


@dataclass(frozen=True)
class Trend:
    """The change of a quantity's mean with the strength.

    Attributes:
        claim: the claim.
        change: of a line fitted to the means, from the weakest strength to the strongest.
        low: lower end of the change's 95% interval.
        high: upper end.
        p: two-sided, by Student's t, adjusted after Holm if several claims are tested together; 1 if a strength has one
            network.
        decision: *held* where the adjusted p is below 0.05 and the change has the claimed sign, *did not hold* where it
            has the other, else *not decided here*.
        examples: the number that all networks share; 1 if the quantity is a single number of a network.
        means: one for each strength.
        reason: the reason why the claim cannot be decided, or "".
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
        """The decision, with its reason if it has one."""
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
        unit: its unit.
        means: at each strength, over its networks; None if no network has it.
        low: lower ends of 95% intervals over the networks of a strength (Student's t); None for a single network.
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
        networks: their number at each strength.
        rows: every number, and the mean of every distribution, against the strength.
        claims: the four claims, with p adjusted for four tests.
        controls: alternative readings of the claims, with unadjusted p.
        notes: remarks for the reader.
    """

    strengths: tuple[float, ...]
    networks: tuple[int, ...]
    rows: tuple[Row, ...]
    claims: tuple[Trend, ...]
    controls: tuple[Trend, ...]
    notes: tuple[str, ...]
