"""The results of measurements: plain data with a count behind every number."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from unperturbed.errors import InputError
from unperturbed.findings.numbers import Interval, Verdict, doubted
from unperturbed.findings.shown import Shown

if TYPE_CHECKING:
    import pandas

Clean = TypeVar("Clean", Interval, tuple[Interval, ...])


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Result(Shown, ABC, Generic[Clean]):
    """The common part of all results.

    Attributes:
        threat: the threat set, as text.
        n: examples.
        clean_accuracy: share classified correctly without a perturbation (a tie of the logits is not correct).
        seconds: total time.
        warnings: reasons to doubt the numbers.
        environment: versions, seed, hashes.
        examples: the per-example table, by column.
    """

    threat: str
    n: int
    clean_accuracy: Clean
    seconds: float
    warnings: tuple[str, ...]
    environment: Mapping[str, Any]
    examples: Mapping[str, list[Any]]

    @abstractmethod
    def json(self) -> dict[str, Any]:
        """Return the summary as plain values."""

    def table(self) -> "pandas.DataFrame":
        """Return the per-example table as a pandas data frame, one row per example.

        Raises:
            InputError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise InputError(
                "table() returns a data frame of pandas, which is not installed: pip install pandas. "
                "`examples` holds the same columns as lists."
            ) from error
        return pandas.DataFrame(dict(self.examples))

    def measured(self) -> dict[str, Any]:
        """Return, as plain values, the threat, the count and the clean accuracy with its interval."""
        clean: Any = self.clean_accuracy
        several = isinstance(clean, tuple)
        values, ends = _values(clean if several else (clean,))
        return {
            "threat": self.threat,
            "n": self.n,
            "clean_accuracy": values if several else values[0],
            "clean_interval": ends if several else ends[0],
        }

    def circumstances(self) -> dict[str, Any]:
        """Return, as plain values, seconds, warnings and environment."""
        return {"seconds": self.seconds, "warnings": list(self.warnings), "environment": dict(self.environment)}


def _values(shares: tuple[Interval, ...]) -> tuple[list[float], list[list[float]]]:
    return [share.value for share in shares], [[share.low, share.high] for share in shares]


@dataclass(frozen=True)
class AttackRecord:
    """The record of one attack of a suite."""

    name: str
    broken: int
    """Examples that this attack was the first to break, verified."""
    robust_after: float
    """Share of all examples that remain unbroken after it, an upper bound."""
    seconds: float
    forwards: int
    backwards: int


@dataclass(frozen=True)
class GateRecord:
    """How a stronger suite checked the survivors of a suite.

    Attributes:
        suite: the stronger suite.
        survivors: of the suite's own attacks.
        sampled: survivors that the stronger suite attacked first: those nearest to a break, and others drawn at random.
        broken: of these.
        reason: why the stronger suite attacked all the survivors; empty where it did not.
        estimate: the robust accuracy that both suites together leave, estimated from the sample, with its 95% interval
            over samples of these examples; the accuracy itself where all survivors were attacked. With a half-width
            that of the stronger suite alone: it has attacked the examples that the suite broke, too.
        half_width: of the interval that was asked for, as a share of all examples; None: none was.
    """

    suite: str
    survivors: int
    sampled: int
    broken: int
    reason: str
    estimate: Interval
    half_width: float | None = None

    def __str__(self) -> str:
        """Return one sentence."""
        estimate, text = self.estimate, f"{self.suite} attacked all {self.survivors} survivors"
        if self.reason:
            text = f"{text}: {self.reason}"
        elif self.sampled == self.survivors:
            text = f"{text}, and broke {self.broken}"
        else:
            text = f"{self.suite} broke {self.broken} of {self.sampled} survivors in a sample"
        if self.half_width is not None:
            text += f"; alone it would leave {estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"
        elif not self.reason and self.sampled < self.survivors:
            text += f"; on all of them it would leave {estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}]"
        return f"{text}."


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Outcome(Result[Interval]):
    """The result of an evaluation.

    Attributes:
        suite: its name.
        note: a remark on the meaning of the robust accuracy.
        robust_accuracy: share that survived; its interval runs from the Wilson low of survived / n to the Wilson high
            of (survived + unknown) / n.
        counts: examples by verdict.
        attacks: the record of each attack.
        ties: examples whose final margin lies within 1e-4 of 0.
        unverified: successes that an attack claimed and a fresh float32 forward refuted.
        doubts: short reasons why the robust accuracy is not credible; the warnings have the details.
        adversarial: the broken examples' perturbed inputs (row k belongs to the k-th broken example of the table),
            if the evaluation was not written to a folder.
        gate: the check of the survivors by a stronger suite, if there was one.
    """

    suite: str
    note: str
    robust_accuracy: Interval
    counts: Mapping[Verdict, int]
    attacks: tuple[AttackRecord, ...]
    ties: int
    unverified: int
    adversarial: Any = None
    doubts: tuple[str, ...] = ()
    gate: GateRecord | None = None

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values; `interval` is the robust accuracy's."""
        return (
            {"suite": self.suite, "note": self.note}
            | self.measured()
            | {
                "robust_accuracy": self.robust_accuracy.value,
                "interval": [self.robust_accuracy.low, self.robust_accuracy.high],
                "doubts": list(self.doubts),
                "counts": dict(self.counts),
                "attacks": [asdict(attack) for attack in self.attacks],
                "ties": self.ties,
                "unverified": self.unverified,
            }
            | ({} if self.gate is None else {"gate": asdict(self.gate)})
            | self.circumstances()
        )

    def __str__(self) -> str:
        """Return the headline."""
        return (
            f"clean {self.clean_accuracy}; robust under {self.threat} {self.robust_accuracy}{doubted(self.doubts)} "
            f"({self.suite}: {self.note})"
        )


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Transfer(Result[tuple[Interval, ...]]):
    """Accuracies of models on adversarial points of each other; `clean_accuracy` has one value per model.

    Attributes:
        names: of the models, in the order of rows and columns.
        suite: the attacks on every model.
        note: a remark on the meaning of the numbers.
        accuracy: entry [i][j] is the accuracy of model j on the points found on model i, one an example; the diagonal
            has the models' robust accuracies. Intervals run from the Wilson low of correct / n to the Wilson high of
            (correct + unknown) / n.
        worst: each model's accuracy if an example counts only if it is correct on the points of all models.
        doubts: by model, reasons why its accuracy, and that of others on its points, is not credible.
    """

    names: tuple[str, ...]
    suite: str
    note: str
    accuracy: tuple[tuple[Interval, ...], ...]
    worst: tuple[Interval, ...]
    doubts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return plain values: accuracies with intervals, one row per attacked model."""
        return (
            {"suite": self.suite, "note": self.note}
            | self.measured()
            | {
                "models": list(self.names),
                "accuracy": [[share.value for share in row] for row in self.accuracy],
                "interval": [[[share.low, share.high] for share in row] for row in self.accuracy],
                "worst_accuracy": [share.value for share in self.worst],
                "worst_interval": [[share.low, share.high] for share in self.worst],
                "doubts": {name: list(doubts) for name, doubts in self.doubts.items()},
            }
            | self.circumstances()
        )

    def __str__(self) -> str:
        """Return each model's clean accuracy, and its accuracy on the points of all models."""
        texts = [
            f"{name} clean {clean}, on the points of all models {worst}{doubted(self.doubts.get(name, ()))}"
            for name, clean, worst in zip(self.names, self.clean_accuracy, self.worst, strict=True)
        ]
        return f"{'; '.join(texts)}; under {self.threat} ({self.suite}: {self.note})"
