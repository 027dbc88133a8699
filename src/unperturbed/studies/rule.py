"""The rule that decides a claim from differences which are paired over examples and seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from unperturbed.findings import Decision
from unperturbed.statistics.holm import holm
from unperturbed.statistics.paired import PairedMean
from unperturbed.studies.values import Values

LEVEL = 0.05
ONE_SEED = "one seed: other seeds are not covered"


@dataclass(frozen=True)
class Claim:
    """A statement about a mean difference, fixed before the runs.

    Attributes:
        sentence: the statement.
        difference: from the values to differences (seeds, examples).
        kind: "above": the mean lies above `threshold`; "within": it lies between -threshold and threshold.
        threshold: 0, or a margin named beforehand.
        unknown: the largest difference that an example with an unknown verdict can make; it counts against the claim,
            and for it at the other end of the interval. None: such examples are left out.
        percent: whether the difference is one of shares; the standard error is then at least that of one example.
        resolution: the smallest standard error of a value of a network, such as an accuracy on few examples.
        over: the rows of the differences: seeds, or repeats of the measurement of a time.
    """

    sentence: str
    difference: Callable[[Values], Tensor]
    kind: Literal["above", "within"] = "above"
    threshold: float = 0.0
    unknown: float | None = 1.0
    percent: bool = True
    resolution: float = 0.0
    over: Literal["seeds", "repeats"] = "seeds"

    def decide(self, values: Values) -> "Verdict":
        """Return the decision without adjustment for further claims."""
        differences = self.difference(values)
        if self.unknown is None:
            differences = differences[:, differences.isfinite().all(0)]
        seeds, examples = differences.shape
        if examples == 0:
            return Verdict(self, math.nan, -math.inf, math.inf, 1.0, seeds, 0, reason="no example has a value")
        reach, error = self.unknown or 0.0, self._least_error(differences)
        low, middle, high = (PairedMean.of(differences.nan_to_num(nan=end), error) for end in (-reach, 0.0, reach))
        p = max(self._p(low), self._p(high)) if self._side(low) == self._side(high) else 1.0
        verdict = Verdict(self, middle.mean, low.interval()[0], high.interval()[1], p, seeds, examples)
        verdict = replace(verdict, held=self._side(middle), paired=middle)
        return verdict if seeds > 1 else replace(verdict, p=1.0, reason=ONE_SEED)

    def _least_error(self, differences: Tensor) -> float:
        if differences.shape[1] == 1:
            return self.resolution
        return 1 / differences.numel() if self.percent else 0.0

    def distance(self, mean: float) -> float:
        """Return the distance of a mean from the nearest threshold."""
        return abs(mean - self.threshold) if self.kind == "above" else abs(abs(mean) - self.threshold)

    def _side(self, paired: PairedMean) -> bool:
        """Tell whether the mean lies on the claimed side."""
        return paired.mean > self.threshold if self.kind == "above" else abs(paired.mean) < self.threshold

    def _p(self, paired: PairedMean) -> float:
        """Return the p of the side where the mean lies; for a margin, that of its farther or nearer end."""
        if self.kind == "above":
            return paired.p_beyond(self.threshold)
        ends = [paired.p_beyond(end) for end in (-self.threshold, self.threshold)]
        return max(ends) if self._side(paired) else ends[int(paired.mean > 0)]


@dataclass(frozen=True)
class Verdict:
    """The decision on a claim in one setting.

    Attributes:
        claim: the claim.
        mean: of the differences.
        low: lower end of its 95% interval.
        high: upper end.
        p: two-sided, of the side of the threshold on which the mean lies; adjusted after Holm by `decide_all`.
        seeds: number of seeds, or of repeats of a time.
        examples: number of examples; 1 if the value is one of a network.
        decision: held, did not hold or not decided here.
        reason: the reason why it cannot be decided, or "".
        needed: number of seeds that would decide it with a probability of 80%; None: no number would, or it is decided.
        held: whether the mean lies on the claimed side.
        paired: the mean with its variances.
    """

    claim: Claim
    mean: float
    low: float
    high: float
    p: float
    seeds: int
    examples: int
    decision: Decision = "not decided here"
    reason: str = ""
    needed: int | None = None
    held: bool = False
    paired: PairedMean | None = None

    def adjusted(self, p: float, tests: int) -> "Verdict":
        """Return the decision at a p that is adjusted for a number of tests."""
        if p < LEVEL:
            return replace(self, p=p, decision="held" if self.held else "did not hold")
        needed = None
        if self.paired is not None and self.seeds > 1:
            needed = self.paired.seeds_needed(self.claim.distance(self.mean), LEVEL / tests)
        return replace(self, p=p, needed=needed)

    def further(self) -> str:
        """Return the seeds that would decide an undecided claim, in words, or the reason why it is undecided."""
        if self.decision != "not decided here" or self.reason:
            return self.reason
        if self.needed is None:
            return f"no number of {self.claim.over} would decide it on {self.examples} examples"
        return f"{self.needed} {self.claim.over} would decide it"

    def __str__(self) -> str:
        """Return one plain sentence."""
        text = f" ({self.further()})" if self.further() else ""
        count = f"{self.seeds} {self.claim.over}" + (f" of {self.examples} examples" if self.examples > 1 else "")
        return (
            f"{self.claim.sentence}: {self.decision}{text}; difference {self.number(self.mean)} "
            f"[{self.number(self.low)}, {self.number(self.high)}], {count}."
        )

    def number(self, value: float) -> str:
        """Return a difference as text."""
        return f"{100 * value:+.1f}%" if self.claim.percent else f"{value:+.3g}"


def decide_all(claims: Sequence[tuple[Claim, Values]]) -> tuple[Verdict, ...]:
    """Return the decisions on the claims of a study, with p adjusted for their number (Holm 1979)."""
    verdicts = [claim.decide(values) for claim, values in claims]
    adjusted = holm([verdict.p for verdict in verdicts])
    return tuple(verdict.adjusted(p, len(verdicts)) for verdict, p in zip(verdicts, adjusted, strict=True))
