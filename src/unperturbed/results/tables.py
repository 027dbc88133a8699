"""Tables of results: of examples, verified against the summary; by class; of networks; of differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unperturbed.errors import InputError
from unperturbed.evaluation.comparison import Difference, PairedComparison
from unperturbed.evaluation.stored import with_examples
from unperturbed.evaluation.union import Union
from unperturbed.findings import Interval, Outcome
from unperturbed.reports.rows import Cell, Rows
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


def accuracy_rows(outcomes: Mapping[str, Sequence[Outcome | Union]]) -> Rows:
    """Return a row for each evaluation of each network, by name; the last column has doubts, if there are any."""
    listed = [(name, outcome) for name, of_name in outcomes.items() for outcome in of_name]
    columns = ("network", "threat", "suite", "n", "clean accuracy", "robust accuracy")
    cells = [
        (name, outcome.threat, _suite(outcome), outcome.n, outcome.clean_accuracy, outcome.robust_accuracy)
        for name, outcome in listed
    ]
    return _with_doubts(columns, cells, ["; ".join(outcome.doubts) for _, outcome in listed])


def _suite(outcome: Outcome | Union) -> str:
    return outcome.suite if isinstance(outcome, Outcome) else outcome.outcomes[0].suite


def difference_rows(comparison: PairedComparison) -> Rows:
    """Return a row for each pair of networks, second less first; the last column has doubts, if there are any."""
    columns = ("difference", "threat", "suite", "n", "clean accuracy", "robust accuracy", "McNemar's p, robust")
    cells: list[tuple[Cell, ...]] = [
        (
            f"{pair.names[1]} less {pair.names[0]}",
            comparison.threat,
            comparison.suite,
            pair.n,
            _share(pair.clean, pair.n),
            _share(pair.robust, pair.n),
            "" if pair.robust.p is None else pair.robust.p,
        )
        for pair in comparison.pairs
    ]
    doubts = [
        "; ".join(f"{name}: {text}" for name in pair.names for text in comparison.doubts.get(name, ()))
        for pair in comparison.pairs
    ]
    return _with_doubts(columns, cells, doubts)


def _share(difference: Difference, n: int) -> Interval:
    return Interval(difference.value, difference.low, difference.high, n)


def _with_doubts(columns: tuple[str, ...], cells: Sequence[tuple[Cell, ...]], doubts: Sequence[str]) -> Rows:
    if not any(doubts):
        return Rows(columns, tuple(cells))
    return Rows((*columns, "not to be believed"), tuple((*row, text) for row, text in zip(cells, doubts, strict=True)))
