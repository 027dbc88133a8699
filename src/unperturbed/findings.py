"""Plain data for everything that examines or reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Verdict = Literal["misclassified", "broken", "survived", "unknown"]
"""Of one example: wrong without an attack; broken by one, verified; not broken; not possible to evaluate."""

Decision = Literal["held", "did not hold", "not decided here"]
"""On a claim: the interval lies on the claimed side; on the other; on both."""

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


@dataclass(frozen=True)
class Number:
    """A measured number with the count behind it.

    Attributes:
        name: what it is; the same for every model, so that models can be compared.
        value: finite.
        n: how many examples, layers or whatever else it was measured on.
        low: lower end of its 95% interval; None: it has none.
        high: upper end.
        unit: what it is counted in; "%": a share, shown as a percentage.
    """

    name: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Distribution:
    """One value for each of many examples.

    Attributes:
        name: what it is; the same for every model.
        values: finite.
        ids: of the examples, in the same order: what pairs one model's values with another's.
        unit: what they are counted in.
        log: whether they are positive and best seen on a logarithmic scale.
        missing: examples left out, because their value was not finite or could not be found.
    """

    name: str
    values: tuple[float, ...]
    ids: tuple[int, ...]
    unit: str = ""
    log: bool = False
    missing: int = 0


@dataclass(frozen=True)
class Line:
    """A value at each of several places, say the layers.

    Attributes:
        name: what it is; the same for every model.
        x: names of the places in order, or numbers.
        y: the values; None where there is none.
        low: lower ends of a range around each, where there is one; `about` says which.
        high: upper ends.
        across: what x is.
        unit: what y is counted in.
        log: whether y is positive and best seen on a logarithmic scale.
        about: what the range is, and how many examples are behind each value.
    """

    name: str
    x: tuple[str, ...] | tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    across: str = "layer"
    unit: str = ""
    log: bool = False
    about: str = ""


@dataclass(frozen=True)
class Finding:
    """What one diagnostic found in one network.

    Attributes:
        title: what was examined.
        summary: the outcome in a plain sentence or two.
        numbers: single numbers.
        distributions: a value an example.
        lines: a value a layer, or a curve.
        notes: what could not be analysed, and what a reader of the numbers must know.
    """

    title: str
    summary: str
    numbers: tuple[Number, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Finding":
        """Return the finding that `json` wrote, read back."""
        return cls(
            value["title"],
            value["summary"],
            tuple(Number(**each) for each in value["numbers"]),
            tuple(Distribution(**_tuples(each)) for each in value["distributions"]),
            tuple(Line(**_tuples(each)) for each in value["lines"]),
            tuple(value["notes"]),
        )


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(each) if isinstance(each, list) else each for key, each in value.items()}


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


@dataclass(frozen=True)
class AttackRecord:
    """What one attack of a suite did."""

    name: str
    broken: int
    """Examples that this attack was the first to break, verified."""
    robust_after: float
    """Share of all examples still standing after it, an upper bound."""
    seconds: float
    forwards: int
    backwards: int


@dataclass(frozen=True)
class Transfer:
    """How models stand up to the points that were found on each other.

    Attributes:
        names: of the models, in the order of rows and columns.
        suite: that every model was attacked with.
        note: what a reader of the numbers must know.
        threat: the threat set, the same for all, as text.
        n: examples.
        clean: each model's accuracy without an attack.
        accuracy: entry [i][j] is the accuracy of model j on the points found on model i, one an example; on the
            diagonal the model's own robust accuracy. Intervals run from the Wilson low of correct / n to the Wilson
            high of (correct + unknown) / n.
        worst: each model's accuracy where an example counts only if it is correct on the points of all the models.
        seconds: in all.
        warnings: whatever makes the numbers doubtful.
        environment: versions, seed, hashes.
        doubts: by model, why its accuracy, and that of others on its points, is not to be believed.
    """

    names: tuple[str, ...]
    suite: str
    note: str
    threat: str
    n: int
    clean: tuple[Interval, ...]
    accuracy: tuple[tuple[Interval, ...], ...]
    worst: tuple[Interval, ...]
    seconds: float
    warnings: tuple[str, ...]
    environment: Mapping[str, Any]
    doubts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return plain values: each accuracy with its interval beside it, rows for the models attacked."""
        return {
            "suite": self.suite,
            "note": self.note,
            "threat": self.threat,
            "n": self.n,
            "models": list(self.names),
            "clean_accuracy": [each.value for each in self.clean],
            "clean_interval": [[each.low, each.high] for each in self.clean],
            "accuracy": [[each.value for each in row] for row in self.accuracy],
            "interval": [[[each.low, each.high] for each in row] for row in self.accuracy],
            "worst_accuracy": [each.value for each in self.worst],
            "worst_interval": [[each.low, each.high] for each in self.worst],
            "doubts": {name: list(doubts) for name, doubts in self.doubts.items()},
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "environment": dict(self.environment),
        }


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of an evaluation.

    Attributes:
        suite: its name.
        note: what a reader of the number must know.
        threat: the threat set, as text.
        n: examples.
        clean_accuracy: share classified correctly without an attack (a tie of the logits is not correct).
        robust_accuracy: share that survived; its interval runs from the Wilson low of survived / n to the Wilson high
            of (survived + unknown) / n.
        counts: examples by verdict.
        attacks: what each attack did.
        ties: examples whose final margin lies within 1e-4 of 0.
        unverified: successes that an attack claimed and a fresh float32 forward refuted.
        seconds: in all.
        warnings: whatever makes the number doubtful.
        environment: versions, seed, hashes.
        examples: the per-example table, by column.
        doubts: why the robust accuracy is not to be believed, each in a few words; the warnings say more.
        adversarial: the broken examples' perturbed inputs (row k belongs to the k-th broken example of the table),
            where the evaluation was not written to a folder.
    """

    suite: str
    note: str
    threat: str
    n: int
    clean_accuracy: Interval
    robust_accuracy: Interval
    counts: Mapping[Verdict, int]
    attacks: tuple[AttackRecord, ...]
    ties: int
    unverified: int
    seconds: float
    warnings: tuple[str, ...]
    environment: Mapping[str, Any]
    examples: Mapping[str, list[Any]]
    adversarial: Any = None
    doubts: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values; `interval` is the robust accuracy's."""
        return {
            "suite": self.suite,
            "note": self.note,
            "threat": self.threat,
            "n": self.n,
            "clean_accuracy": self.clean_accuracy.value,
            "clean_interval": [self.clean_accuracy.low, self.clean_accuracy.high],
            "robust_accuracy": self.robust_accuracy.value,
            "interval": [self.robust_accuracy.low, self.robust_accuracy.high],
            "doubts": list(self.doubts),
            "counts": dict(self.counts),
            "attacks": [asdict(attack) for attack in self.attacks],
            "ties": self.ties,
            "unverified": self.unverified,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "environment": dict(self.environment),
        }

    def __str__(self) -> str:
        """Return the headline."""
        return (
            f"clean {self.clean_accuracy}; robust under {self.threat} {self.robust_accuracy}{doubted(self.doubts)} "
            f"({self.suite}: {self.note})"
        )
