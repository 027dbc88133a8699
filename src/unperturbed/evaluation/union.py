"""The worst case over several evaluations: robustness to the union of the threat sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unperturbed.checks import checked
from unperturbed.errors import InputError
from unperturbed.findings import Interval, Outcome, Result, Verdict, doubted
from unperturbed.statistics.intervals import wilson, wilson_over_draws

_ORDER: tuple[Verdict, ...] = ("misclassified", "broken", "unknown", "survived")
"""The order of precedence of verdicts; `misclassified` comes first, since the clean input lies in every threat set."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Union(Result[Interval]):
    """The robust accuracy under the union of several threat sets.

    The columns of `examples` are id, label, verdict, and broken_under (the threats, in the order of the outcomes).

    Attributes:
        outcomes: the evaluations.
        robust_accuracy: share that survived every evaluation; its interval as that of an `Outcome`. For means over
            draws, each example counts under the threat with the fewest right draws.
        counts: examples by verdict. An example is broken if broken under any threat, and unknown if it is broken under
            none and unknown under some.
    """

    outcomes: tuple[Outcome, ...]
    robust_accuracy: Interval
    counts: Mapping[Verdict, int]

    @property
    def doubts(self) -> tuple[str, ...]:
        """Reasons why the robust accuracy is not credible: the doubts about any of the evaluations."""
        return tuple(dict.fromkeys(doubt for outcome in self.outcomes for doubt in outcome.doubts))

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values, with those of the evaluations under `threats`."""
        return (
            self.measured()
            | {
                "robust_accuracy": self.robust_accuracy.value,
                "interval": [self.robust_accuracy.low, self.robust_accuracy.high],
                "doubts": list(self.doubts),
                "counts": dict(self.counts),
            }
            | self.circumstances()
            | {"threats": [outcome.json() for outcome in self.outcomes]}
        )

    def __str__(self) -> str:
        """Return the headline."""
        return f"clean {self.clean_accuracy}; robust under {self.threat} {self.robust_accuracy}{doubted(self.doubts)}"


@checked()
def union(outcomes: Sequence[Outcome]) -> Union:
    """Return the worst case, example by example, over evaluations of one model on the same examples.

    Examples are matched by id, in the order of the first outcome.

    Raises:
        InputError: without outcomes, if weights, network or data differ, if some are means over draws and others are
        not, and if two examples have the same id.
    """
    if not outcomes:
        raise InputError("There is no outcome: give at least one.")
    first, ids = outcomes[0], outcomes[0].examples["id"]
    for later in outcomes[1:]:
        check_same(first, later)
    if len(set(ids)) < len(ids):
        raise InputError(f"{len(ids) - len(set(ids))} examples have the id of another one: they cannot be matched.")
    rows = [{name: row for row, name in enumerate(outcome.examples["id"])} for outcome in outcomes]

    def column(key: str) -> list[tuple[Any, ...]]:
        values = [
            [outcome.examples[key][rows_by_id[name]] for name in ids]
            for outcome, rows_by_id in zip(outcomes, rows, strict=True)
        ]
        return list(zip(*values, strict=True))

    verdicts = [min(entries, key=_ORDER.index) for entries in column("verdict")]
    counts = {verdict: verdicts.count(verdict) for verdict in first.counts}
    correct = sum(all(value < 0 for value in entries) for entries in column("clean_margin"))
    undecided = sum(all(not value >= 0 for value in entries) for entries in column("clean_margin")) - correct
    n = len(ids)
    clean = wilson(correct, n, correct + undecided)
    robust = wilson(counts["survived"], n, counts["survived"] + counts["unknown"])
    if _over_draws(first):
        clean, robust = _fewest_right(column("clean_draws")), _fewest_right(column("draws"))
    return Union(
        outcomes=tuple(outcomes),
        threat=" or ".join(outcome.threat for outcome in outcomes),
        n=n,
        seconds=sum(outcome.seconds for outcome in outcomes),
        warnings=tuple(f"{outcome.threat}: {text}" for outcome in outcomes for text in outcome.warnings),
        environment=_shared(outcomes),
        clean_accuracy=clean,
        robust_accuracy=robust,
        counts=counts,
        examples={
            "id": list(ids),
            "label": list(first.examples["label"]),
            "verdict": verdicts,
            "broken_under": [
                [outcome.threat for outcome, verdict in zip(outcomes, entries, strict=True) if verdict == "broken"]
                for entries in column("verdict")
            ],
        },
    )


def _shared(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the common entries of the outcomes' environments."""
    first, *others = (outcome.environment for outcome in outcomes)
    return {
        name: value for name, value in first.items() if all(name in other and other[name] == value for other in others)
    }


def _over_draws(outcome: Outcome) -> bool:
    return "draws" in outcome.examples


def _fewest_right(rows: list[tuple[list[int], ...]]) -> Interval:
    """Return the mean over draws, with every example under the threat of its fewest right draws."""
    draws = np.array([min(row, key=lambda one: one.count(1)) for row in rows])
    return wilson_over_draws(draws == 1, draws == -1)


def check_same(first: Outcome, second: Outcome) -> None:
    """Raise InputError if two outcomes are of different networks or data, or only one is a mean over draws."""
    if _over_draws(first) != _over_draws(second):
        raise InputError(
            f"Of the outcomes under {first.threat} and {second.threat} one is a mean over draws and the other is not: "
            "evaluate both under rand, or neither."
        )
    for key in ("weights", "data", "network"):
        if first.environment[key] != second.environment[key]:
            raise InputError(
                f"The outcomes under {first.threat} (n={first.n}) and {second.threat} (n={second.n}) are of different "
                f"{key}: evaluate the same."
            )
