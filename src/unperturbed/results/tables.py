"""Tables of examples, their comparison with the summary, and accuracies by class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unperturbed.errors import InputError
from unperturbed.evaluation.stored import with_examples
from unperturbed.findings import Interval, Outcome
from unperturbed.statistics.intervals import wilson

UNVERIFIED = "its table of examples is missing, damaged or contradicts the summary"


@dataclass(frozen=True)
class ClassResult:
    """The accuracies on the examples of one class."""

    label: int
    clean: Interval
    robust: Interval
    unknown: int


def with_verified_table(path: Path, outcome: Outcome) -> Outcome:
    """Return an evaluation with its table, and a doubt if table and summary do not agree."""
    try:
        return with_examples(path, outcome)
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        return replace(outcome, doubts=(*outcome.doubts, UNVERIFIED), warnings=(*outcome.warnings, str(error)))


def by_class(outcome: Outcome) -> Sequence[ClassResult]:
    """Return the accuracies of each class, with intervals that count the unknown as in the headline."""
    rows = dict[int, list[tuple[float, str]]]()
    columns = (outcome.examples[name] for name in ("label", "clean_margin", "verdict"))
    for label, margin, verdict in zip(*columns, strict=True):
        rows.setdefault(label, []).append((margin, verdict))
    results = []
    for label in sorted(rows):
        n, verdicts = len(rows[label]), [verdict for _, verdict in rows[label]]
        correct = sum(margin < 0 for margin, _ in rows[label])
        not_finite = sum(margin != margin for margin, _ in rows[label])
        robust, unknown = verdicts.count("survived"), verdicts.count("unknown")
        results.append(
            ClassResult(label, wilson(correct, n, correct + not_finite), wilson(robust, n, robust + unknown), unknown)
        )
    return results
